"""What a dense layer does along the columns of its matrices (rows are samples), each in one pass: forward, add the bias and
activate in place; backward, multiply by f′ and sum the columns for the bias's gradient.

Columns are summed over blocks of rows, and the blocks' sums in float64, so that rounding errors do not grow with the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.cpu.threads import GRAIN
from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel
from kobai.engine.dispatch import as_written, compiled, device, host, kernel, launch
from kobai.engine.exponential import sigmoid, tanh
from kobai.ops._epilogue import epilogue
from kobai.ops._rows import EXPONENTIALS, launch_split
from kobai.ops._sums import total as summed
from kobai.xp import Array, xp_of

NUMBERS: dict[str | None, int] = {"relu": 1, "sigmoid": 2, "tanh": 3}
"""The activations of :mod:`kobai.ops._epilogue` as numbers for the compiled loops."""

LIGHT = 4 * GRAIN
"""Elements worth a thread here, where each is a quarter of the work that ``GRAIN`` was measured with."""

TALL, WIDE = 64, 1024
"""Rows of a block, and columns summed at a time, so that their sums stay in the first-level cache."""


@kernel("y", "bias", halves=True, when=lambda y, bias, f: bias is not None and bias.size and f in _LOOPS)
def bias_activation(y: Array, bias: Array | None, activation: str | None) -> Array:
    """y ← f(y + bias), in place; ``y`` (N, C), ``bias`` (C) or None, ``activation`` a name known to ``epilogue`` or None."""
    if bias is not None:
        y += bias
    fused = epilogue("gemm", activation)
    return y if fused is None else fused.apply(y)


@kernel("dz")
def column_sums(dz: Array) -> Array:
    """Σ over the rows of ``dz`` (N, C) → (C)."""
    return summed(dz, (0,))


@kernel("dy", "y", when=lambda dy, y, activation, sums: sums and activation in NUMBERS)
def activation_backward(dy: Array, y: Array, activation: str, sums: bool) -> tuple[Array, Array | None]:
    """dz = dy · f′ from the value y = f(z), (N, C), and its column sums where they are wanted and cheap, else None."""
    fused = epilogue("gemm", activation)
    return (dy if fused is None else fused.backward(dy, y)), None


# --- compiled loops ---------------------------------------------------------------------------------------------------


@host(bias_activation)
def _bias_activation_numba(y: Array, bias: Array, activation: str | None) -> Array:
    loop = _LOOPS[activation]
    grain = LIGHT if loop is _rectified else EXPONENTIALS
    args = (y.reshape(-1), bias, activation == "relu") if loop is _rectified else (y.reshape(-1), bias)
    launch_split(loop, y.shape[0], y.size, grain, *args)
    return y


@host(column_sums)
def _column_sums_numba(dz: Array) -> Array:
    xp, (rows, columns) = xp_of(dz), dz.shape
    part, total, out = xp.empty(columns, dz.dtype), xp.empty(columns, np.float64), xp.empty(columns, dz.dtype)
    launch_split(_sums, columns, dz.size, LIGHT, dz.reshape(-1), part, total, out, rows, least=16)
    return out


@host(activation_backward)
def _activation_backward_numba(dy: Array, y: Array, activation: str, sums: bool) -> tuple[Array, Array | None]:
    xp, columns = xp_of(y), y.shape[1]
    dz, db = xp.empty(y.shape, y.dtype), xp.empty(columns, y.dtype)
    part, total = xp.empty(columns, y.dtype), xp.empty(columns, np.float64)
    args = dy.reshape(-1), y.reshape(-1), dz.reshape(-1), NUMBERS[activation], part, total, db, y.shape[0]
    launch_split(_backward, columns, y.size, LIGHT, *args, least=16)
    return dz, db


@compiled
def _rectified(y: Any, bias: Any, relu: bool, start: int, stop: int) -> None:
    number = y.dtype.type
    least = number(0) if relu else number(-np.inf)
    for row in range(start, stop):
        ys = y[row * bias.size : (row + 1) * bias.size]
        for j in range(ys.size):
            z = ys[j] + bias[j]
            ys[j] = least if z < least else z  # NaN stays


@compiled
def _sigmoids(y: Any, bias: Any, start: int, stop: int) -> None:
    for row in range(start, stop):
        ys = y[row * bias.size : (row + 1) * bias.size]
        for j in range(ys.size):
            ys[j] = sigmoid(ys[j] + bias[j])


@compiled
def _tanhs(y: Any, bias: Any, start: int, stop: int) -> None:
    for row in range(start, stop):
        ys = y[row * bias.size : (row + 1) * bias.size]
        for j in range(ys.size):
            ys[j] = tanh(ys[j] + bias[j])


_LOOPS: dict[str | None, Any] = {None: _rectified, "relu": _rectified, "sigmoid": _sigmoids, "tanh": _tanhs}


@as_written
def _sums(x: Any, part: Any, totals: Any, out: Any, rows: int, start: int, stop: int) -> None:
    """out ← the sums of columns ``start`` to ``stop``; four rows at a time, so that the sums so far are moved less often."""
    columns = out.size
    for left in range(start, stop, WIDE):
        right = min(left + WIDE, stop)
        total, p = totals[left:right], part[left:right]
        for j in range(total.size):
            total[j] = 0
        for first in range(0, rows, TALL):
            last = min(first + TALL, rows)
            fours = first + (last - first) // 4 * 4
            for j in range(p.size):
                p[j] = 0
            for row in range(first, fours, 4):
                a = x[row * columns + left : row * columns + right]
                b = x[(row + 1) * columns + left : (row + 1) * columns + right]
                c = x[(row + 2) * columns + left : (row + 2) * columns + right]
                d = x[(row + 3) * columns + left : (row + 3) * columns + right]
                for j in range(p.size):
                    p[j] += (a[j] + b[j]) + (c[j] + d[j])
            for row in range(fours, last):
                a = x[row * columns + left : row * columns + right]
                for j in range(p.size):
                    p[j] += a[j]
            for j in range(p.size):
                total[j] += p[j]
        sums = out[left:right]
        for j in range(sums.size):
            sums[j] = total[j]


@as_written
def _backward(
    dy: Any, y: Any, dz: Any, kind: int, part: Any, totals: Any, out: Any, rows: int, start: int, stop: int
) -> None:
    """dz ← dy · f′ and out ← its sums, for columns ``start`` to ``stop``."""
    number = y.dtype.type
    columns = out.size
    for left in range(start, stop, WIDE):
        right = min(left + WIDE, stop)
        total, p = totals[left:right], part[left:right]
        for j in range(total.size):
            total[j] = 0
        for first in range(0, rows, TALL):
            for j in range(p.size):
                p[j] = 0
            for row in range(first, min(first + TALL, rows)):
                a = dy[row * columns + left : row * columns + right]
                v = y[row * columns + left : row * columns + right]
                d = dz[row * columns + left : row * columns + right]
                if kind == 1:
                    for j in range(p.size):
                        g = number(0) if v[j] <= number(0) else a[j]
                        d[j] = g
                        p[j] += g
                elif kind == 2:
                    for j in range(p.size):
                        g = a[j] * (v[j] * (number(1) - v[j]))
                        d[j] = g
                        p[j] += g
                else:
                    for j in range(p.size):
                        g = a[j] * (number(1) - v[j] * v[j])
                        d[j] = g
                        p[j] += g
            for j in range(p.size):
                total[j] += p[j]
        sums = out[left:right]
        for j in range(sums.size):
            sums[j] = total[j]


# --- CUDA C -----------------------------------------------------------------------------------------------------------

SLAB, SLABS = 256, 128
"""Rows that are worth a block of their own, and the most blocks that share the rows of 32 columns."""


BIAS_ACTIVATION = CudaKernel(
    "bias_activation",
    "T* y, const T* bias, int kind, long long n, long long columns",
    r"""
    EACH(i, n) {
        A z = (A)y[i] + (A)bias[i % columns];
        if (kind == 1) z = maximum(z, (A)0);
        if (kind == 2) z = 1 / (1 + exp(-z));
        if (kind == 3) z = tanh(z);
        y[i] = z;
    }
    """,
    dtypes=EVERY_FLOAT,
)

COLUMN_SUMS = CudaKernel(
    "column_sums",
    "const T* x, T* sums, long long rows, long long columns",
    r"""
    // Block (i, k): columns 32 i to 32 i + 31, one to each lane, over the k-th slab of rows, which the warps share
    A* parts = shared_memory<A>();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const long long column = blockIdx.x * 32LL + lane, height = (rows + gridDim.y - 1) / gridDim.y;
    const long long end = min(rows, (blockIdx.y + 1) * height);
    A sum = 0;
    if (column < columns)
        for (long long row = blockIdx.y * height + warp; row < end; row += warps) sum += (A)x[row * columns + column];
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (warp == 0 && column < columns) {
        for (int k = 1; k < warps; k++) sum += parts[32 * k + lane];
        sums[blockIdx.y * columns + column] = sum;
    }
    """,
    shared=256 * 8,
)


@device(bias_activation)
def _bias_activation_cuda(y: Array, bias: Array, activation: str | None) -> Array:
    args = y, bias, NUMBERS.get(activation, 0), y.size, bias.size
    launch(BIAS_ACTIVATION, BIAS_ACTIVATION.blocks(y.size), args)
    return y


@device(column_sums)
def _column_sums_cuda(dz: Array) -> Array:
    xp, (rows, columns) = xp_of(dz), dz.shape
    out, blocks, slabs = xp.empty(columns, dz.dtype), -(-columns // 32), min(-(-rows // SLAB), SLABS)
    part = dz if slabs < 2 else xp.empty((slabs, columns), dz.dtype)
    if slabs > 1:
        launch(COLUMN_SUMS, (blocks, slabs), (dz, part, rows, columns))
    launch(COLUMN_SUMS, (blocks, 1), (part, out, *part.shape))
    return out
