"""Layer normalisation, y = w x̂ + b with x̂ = (x − μ) / √(σ² + ε) for every row of (R, D); without μ, by root mean square.

The gradient is that of :mod:`kobai.ops.batch_norm`, by rows. The twins sum x − k with the row's first element as origin k,
as there, in float64.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from kobai.cpu.lanes import moments, slopes
from kobai.cpu.threads import GRAIN
from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel
from kobai.engine.dispatch import compiled, device, host, kernel, launch
from kobai.formula.many import dtype_of_numbers
from kobai.ops._halves import beside
from kobai.ops._matmul import matmul
from kobai.ops._rows import launch_split
from kobai.ops._sums import total
from kobai.ops.batch_norm.kernel import Backward, mean_over
from kobai.xp import Array, xp_of

# --- reference --------------------------------------------------------------------------------------------------------


def standardized(xp: Any, rows: Array, eps: float, centre: bool = True) -> tuple[Array, Array]:
    """x̂ and 1/√(σ² + ε) (a column) of every row."""
    mean_of = mean_over(xp, rows.shape[1], rows.dtype)
    xhat = rows
    if centre:
        xhat = rows - matmul(rows, mean_of)[:, None]
        xhat -= matmul(xhat, mean_of)[:, None]  # what rounding the mean has left
    invstd = 1 / xp.sqrt(matmul(xhat * xhat, mean_of) + eps)[:, None]
    return xhat * invstd, invstd


def standardized_backward(xp: Any, g: Array, xhat: Array, invstd: Array, centre: bool = True) -> Array:
    """dx where g is the gradient of x̂."""
    mean_of = mean_over(xp, g.shape[1], g.dtype)
    dx = g - xhat * matmul(g * xhat, mean_of)[:, None]
    if centre:
        dx -= matmul(g, mean_of)[:, None]
    dx *= invstd
    return dx


def _has_spread(x: Array, weight: Array | None, bias: Array | None, size: int, eps: float, centre: bool) -> bool:
    """A single element is its own mean, so dx = 0; the twins' fused multiply-adds would leave a rounding error."""
    return x.size > 0 and not (centre and size == 1) and beside(x, weight) and beside(x, bias)


@kernel("x", halves=True, when=_has_spread)
def layer_norm(
    x: Array, weight: Array | None, bias: Array | None, size: int, eps: float, centre: bool
) -> tuple[Array, Backward]:
    """Normalise every ``size`` elements of ``x``, as many as ``weight`` and ``bias`` have; without ``centre`` μ counts as 0."""
    xp, shape = xp_of(x), x.shape
    xhat, invstd = standardized(xp, x.reshape(-1 if size else 0, size), eps, centre)
    y = xhat.copy() if weight is None else xhat * weight.reshape(-1)
    if bias is not None:
        y += bias.reshape(-1)

    def backward(dy: Array) -> Any:
        rows = dy.reshape(xhat.shape)

        def dx() -> Array:
            g = rows if weight is None else rows * weight.reshape(-1)
            return standardized_backward(xp, g, xhat, invstd, centre).reshape(shape)

        return dx, lambda: total(rows * xhat, (0,)), lambda: total(rows, (0,))

    return y.reshape(shape), backward


# --- with a twin ------------------------------------------------------------------------------------------------------
#
# What is kept for backward is ``kept`` (2, R): μ − k and 1/√(σ² + ε).


def twin(
    forward: Any,
    back: Any,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    shape: tuple[int, ...],
    rows: int,
    option: int,
    eps: float,
) -> tuple[Array, Backward]:
    """Normalise ``rows`` of x, taken as an array of ``shape`` whose second dimension ``weight`` and ``bias`` belong to."""
    xp, size, wide = xp_of(x), shape[1], dtype_of_numbers(x.dtype)
    y, kept = xp.empty(x.shape, x.dtype), xp.empty((2, rows), wide)
    scale = xp.ones(size, wide) if weight is None else weight.reshape(-1)
    shift = xp.zeros(size, wide) if bias is None else bias.reshape(-1)
    forward(x.reshape(shape), scale, shift, y.reshape(shape), kept, option, eps)

    def backward(dy: Array) -> Any:
        dz, dx = xp.ascontiguousarray(dy).reshape(shape), xp.empty(x.shape, x.dtype)
        dweight, dbias = xp.empty(size, wide), xp.empty(size, wide)
        back(dz, x.reshape(shape), scale, kept, dx.reshape(shape), dweight, dbias, option)
        return lambda: dx, lambda: dweight, lambda: dbias

    return y, backward


def _twin(
    forward: Any, back: Any, x: Array, weight: Array | None, bias: Array | None, size: int, eps: float, centre: bool
) -> tuple[Array, Backward]:
    rows = x.size // size
    return twin(forward, back, x, weight, bias, (rows, size), rows, int(centre), eps)


# --- Numba ------------------------------------------------------------------------------------------------------------
#
# Indices are unsigned, see ops/batch_norm/loops.py.

_u = np.uint64

_ROWS = 16
"""Rows whose part of dw and db is summed in the dtype of x before it is added in float64, for half the work."""


@compiled
def _forward(x: Any, weight: Any, bias: Any, y: Any, kept: Any, centre: int, eps: float, start: int, stop: int) -> None:
    n = x.shape[1]
    for i in range(_u(start), _u(stop)):
        k = x[i, 0] if centre else x.dtype.type(0)
        total, squares = moments(x[i], k)
        offset = total / n if centre else 0.0
        var = squares / n - offset * offset
        invstd = 1 / np.sqrt((0.0 if var < 0 else var) + eps)
        kept[0, i], kept[1, i] = offset, invstd
        scale, shift = x.dtype.type(invstd), x.dtype.type(-offset * invstd)
        for j in range(_u(n)):
            y[i, j] = ((x[i, j] - k) * scale + shift) * weight[j] + bias[j]


@compiled
def _backward(
    dy: Any, x: Any, weight: Any, kept: Any, dx: Any, near: Any, sums: Any, centre: int, start: int, stop: int
) -> None:
    """Slabs of rows, each with its own part of dw and db, in ``sums`` (slabs, 2, D) and in ``near``, in the dtype of x."""
    rows, n, last = x.shape[0], x.shape[1], _u(_ROWS - 1)
    nought = x.dtype.type(0)
    for slab in range(_u(start), _u(stop)):
        first, end = _u(rows * slab // len(sums)), _u(rows * (slab + 1) // len(sums))
        for j in range(_u(n)):
            near[slab, 0, j] = near[slab, 1, j] = sums[slab, 0, j] = sums[slab, 1, j] = 0
        for i in range(first, end):
            k = x[i, 0] if centre else nought
            total, along = slopes(dy[i], weight, x[i], k)
            offset, scale = kept[0, i], kept[1, i]
            curve = scale * scale * scale * (along - offset * total) / n
            slope = x.dtype.type(-curve)
            level = x.dtype.type(offset * curve - (scale * total / n if centre else 0.0))
            shift = -offset * scale
            for j in range(_u(n)):
                d = x[i, j] - k
                near[slab, 0, j] += dy[i, j] * (d * scale + shift)
                near[slab, 1, j] += dy[i, j]
                dx[i, j] = dy[i, j] * weight[j] * scale + (d * slope + level)
            if (i & last) == last or i + _u(1) == end:
                for j in range(_u(n)):
                    sums[slab, 0, j] += near[slab, 0, j]
                    sums[slab, 1, j] += near[slab, 1, j]
                    near[slab, 0, j] = near[slab, 1, j] = 0


@compiled
def together(sums: Any, dweight: Any, dbias: Any) -> None:
    for j in range(_u(dweight.size)):
        dw = db = 0.0
        for slab in range(_u(sums.shape[0])):
            dw += sums[slab, 0, j]
            db += sums[slab, 1, j]
        dweight[j], dbias[j] = dw, db


def _forward_numba(x: Array, weight: Array, bias: Array, y: Array, kept: Array, centre: int, eps: float) -> None:
    launch_split(_forward, x.shape[0], x.size, GRAIN, x, weight, bias, y, kept, centre, eps)


def _backward_numba(
    dy: Array, x: Array, weight: Array, kept: Array, dx: Array, dweight: Array, dbias: Array, centre: int
) -> None:
    xp, (rows, size) = xp_of(x), x.shape
    slabs = min(rows, 4 * x.size // GRAIN) if x.size >= 2 * GRAIN else 1
    near, sums = xp.empty((slabs, 2, size), x.dtype), xp.empty((slabs, 2, size), np.float64)
    launch_split(_backward, slabs, x.size, GRAIN, dy, x, weight, kept, dx, near, sums, centre)
    launch(together, sums, dweight, dbias)


# --- CUDA -------------------------------------------------------------------------------------------------------------


_ROW = r"""
    const long long row = blockIdx.x, n = (long long)width * size;
    const int low = row % groups * width;
    x += row * n;
    const A k = centre ? (A)x[0] : A(0);
"""

FORWARD = CudaKernel(
    "layer_norm",
    "const T* x, const A* weight, const A* bias, T* y, A* kept, int centre, A eps, int groups, int width, int size",
    _ROW
    + r"""
    y += row * n;
    A sum = 0, squares = 0;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) sum += x[j] - k;
    const A offset = centre ? block_sum(sum) / n : A(0);
    for (long long j = threadIdx.x; j < n; j += blockDim.x) { const A d = (x[j] - k) - offset; squares += d * d; }
    const A invstd = 1 / sqrt(block_sum(squares) / n + eps);
    if (threadIdx.x == 0) kept[row] = offset, kept[gridDim.x + row] = invstd;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        const int c = low + (size == 1 ? j : j / size);
        y[j] = ((x[j] - k) - offset) * invstd * weight[c] + bias[c];
    }
    """,
    threads=1024,
    dtypes=EVERY_FLOAT,
)

BACKWARD = CudaKernel(
    "layer_norm_backward",
    "const T* dy, const T* x, const A* weight, const A* kept, T* dx, int centre, int groups, int width, int size",
    _ROW
    + r"""
    dy += row * n, dx += row * n;
    const A offset = kept[row], invstd = kept[gridDim.x + row];
    A sum = 0, along = 0;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        const A g = dy[j] * weight[low + (size == 1 ? j : j / size)];
        sum += g;
        along += g * ((x[j] - k) - offset);
    }
    const A level = centre ? block_sum(sum) / n : A(0), slope = block_sum(along) * invstd * invstd / n;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        const A g = dy[j] * weight[low + (size == 1 ? j : j / size)];
        dx[j] = invstd * (g - level - ((x[j] - k) - offset) * slope);
    }
    """,
    threads=1024,
    dtypes=EVERY_FLOAT,
)
"""For layers and for groups of channels: a block for each row, of the ``n`` elements of ``width`` channels."""

COLUMNS = CudaKernel(
    "layer_norm_columns",
    "const T* dy, const T* x, const A* kept, A* parts, int centre, long long rows, int size",
    r"""
    // dw and db of 32 columns over a slab of rows, a warp for every eighth row
    __shared__ A shared[2][8][32];
    const int column = threadIdx.x % 32, warp = threadIdx.x / 32, j = blockIdx.x * 32 + column;
    const long long slab = blockIdx.y, slabs = gridDim.y, most = rows % slabs, each = rows / slabs;
    const long long start = slab * each + (slab < most ? slab : most), stop = start + each + (slab < most);
    A dw = 0, db = 0;
    if (j < size)
        for (long long i = start + warp; i < stop; i += 8) {
            const A k = centre ? (A)x[i * size] : A(0), g = dy[i * size + j];
            dw += g * ((x[i * size + j] - k) - kept[i]) * kept[rows + i];
            db += g;
        }
    shared[0][warp][column] = dw, shared[1][warp][column] = db;
    __syncthreads();
    if (warp < 2 && j < size) {
        A total = 0;
        for (int w = 0; w < 8; w++) total += shared[warp][w][column];
        parts[(slab * 2 + warp) * size + j] = total;
    }
    """,
    dtypes=EVERY_FLOAT,
)

TOGETHER = CudaKernel(
    "layer_norm_together",
    "const T* parts, T* dweight, T* dbias, int slabs, int size",
    r"""
    EACH(j, size) {
        A dw = 0, db = 0;
        for (int slab = 0; slab < slabs; slab++) {
            dw += parts[slab * 2LL * size + j];
            db += parts[(slab * 2LL + 1) * size + j];
        }
        dweight[j] = dw, dbias[j] = db;
    }
    """,
)


def threads_of(elements: int) -> int:
    """About four elements for each thread."""
    return min(1024, max(32, 1 << (elements // 4).bit_length()))


def _forward_cuda(x: Array, weight: Array, bias: Array, y: Array, kept: Array, centre: int, eps: float) -> None:
    (rows, size), threads = x.shape, threads_of(x.shape[1])
    launch(FORWARD, rows, (x, weight, bias, y, kept, centre, eps, 1, size, 1), threads)


def _backward_cuda(
    dy: Array, x: Array, weight: Array, kept: Array, dx: Array, dweight: Array, dbias: Array, centre: int
) -> None:
    rows, size = x.shape
    launch(BACKWARD, rows, (dy, x, weight, kept, dx, centre, 1, size, 1), threads_of(size))
    blocks = -(-size // 32)
    slabs = min(
        -(-rows // 64), -(-512 // blocks)
    )  # blocks for every processor of a large device, eight rows for each warp
    parts = xp_of(x).empty((slabs, 2, size), kept.dtype)
    launch(COLUMNS, (blocks, slabs), (dy, x, kept, parts, centre, rows, size))
    launch(TOGETHER, TOGETHER.blocks(size), (parts, dweight, dbias, slabs, size))


host(layer_norm)(partial(_twin, _forward_numba, _backward_numba))
device(layer_norm)(partial(_twin, _forward_cuda, _backward_cuda))
