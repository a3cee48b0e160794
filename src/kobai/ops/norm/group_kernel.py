"""Group and instance normalisation: y = w x̂ + b, x̂ standardised over each of G groups of channels of each example of (N, C, S).

As in ``layer_kernel.py`` with rows of a group's elements, but w and b belong to channels, of which a row has several.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from kobai.cpu.lanes import moments, rectified_slopes
from kobai.cpu.threads import GRAIN
from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel
from kobai.engine.dispatch import compiled, device, host, kernel, launch
from kobai.ops._halves import beside
from kobai.ops._rows import launch_split
from kobai.ops._sums import total
from kobai.ops.batch_norm.kernel import Backward
from kobai.ops.norm.layer_kernel import (
    BACKWARD,
    FORWARD,
    standardized,
    standardized_backward,
    threads_of,
    together,
    twin,
)
from kobai.xp import Array, xp_of

SHORT = 8
"""Elements of a channel below which NumPy is as fast as the compiled loops."""


# --- reference --------------------------------------------------------------------------------------------------------


def _is_long(x: Array, weight: Array | None, bias: Array | None, *_: Any) -> bool:
    """Floats of 16 bits, which only a device has here, are always the kernels'."""
    long = x.itemsize == 2 or math.prod(x.shape[2:]) >= SHORT
    return bool(x.size) and long and beside(x, weight) and beside(x, bias)


@kernel("x", halves=True, when=_is_long)
def group_norm(x: Array, weight: Array | None, bias: Array | None, groups: int, eps: float) -> tuple[Array, Backward]:
    """Standardise groups of channels of (N, C, ...), then scale and shift every channel."""
    xp, shape = xp_of(x), x.shape
    channels = (*shape[:2], math.prod(shape[2:]))
    rows = x.reshape(shape[0] * groups, channels[1] // groups * channels[2])
    xhat, invstd = standardized(xp, rows, eps)
    y = xhat.reshape(channels)
    y = y.copy() if weight is None else y * weight[:, None]
    if bias is not None:
        y += bias[:, None]

    def backward(dy: Array) -> Any:
        dz = dy.reshape(channels)

        def dx() -> Array:
            g = dz if weight is None else dz * weight[:, None]
            return standardized_backward(xp, g.reshape(xhat.shape), xhat, invstd).reshape(shape)

        return dx, lambda: total(dz * xhat.reshape(channels), (0, 2)), lambda: total(dz, (0, 2))

    return y.reshape(shape), backward


# --- with a twin ------------------------------------------------------------------------------------------------------


def _twin(
    forward: Any, back: Any, x: Array, weight: Array | None, bias: Array | None, groups: int, eps: float
) -> tuple[Array, Backward]:
    planes = (*x.shape[:2], math.prod(x.shape[2:]))
    return twin(forward, back, x, weight, bias, planes, x.shape[0] * groups, groups, eps)


# --- Numba ------------------------------------------------------------------------------------------------------------
#
# Indices are unsigned, see ops/batch_norm/loops.py.

_u = np.uint64


@compiled
def _forward(x: Any, weight: Any, bias: Any, y: Any, kept: Any, groups: int, eps: float, start: int, stop: int) -> None:
    """Groups [start, stop) of all N G."""
    size, width = _u(x.shape[2]), _u(x.shape[1] // groups)
    n = x.shape[1] // groups * x.shape[2]
    for row in range(_u(start), _u(stop)):
        i, low = row // _u(groups), row % _u(groups) * width
        k = x[i, low, 0]
        total = squares = 0.0
        for c in range(low, low + width):
            t, q = moments(x[i, c], k)
            total += t
            squares += q
        offset = total / n
        var = squares / n - offset * offset
        invstd = 1 / np.sqrt((0.0 if var < 0 else var) + eps)
        kept[0, row], kept[1, row] = offset, invstd
        for c in range(low, low + width):
            scale = x.dtype.type(invstd * weight[c])
            shift = x.dtype.type(bias[c] - offset * invstd * weight[c])
            for j in range(size):
                y[i, c, j] = (x[i, c, j] - k) * scale + shift


@compiled
def _backward(dy: Any, x: Any, weight: Any, kept: Any, dx: Any, sums: Any, groups: int, start: int, stop: int) -> None:
    """Also each example's part of dw and db, into ``sums`` (N, 2, C)."""
    size, width = _u(x.shape[2]), _u(x.shape[1] // groups)
    n = x.shape[1] // groups * x.shape[2]
    for row in range(_u(start), _u(stop)):
        i, low = row // _u(groups), row % _u(groups) * width
        k, offset, invstd = x[i, low, 0], np.float64(kept[0, row]), np.float64(kept[1, row])
        total = along = 0.0
        for c in range(low, low + width):
            a, q = rectified_slopes(dy[i, c], x[i, c], np.nan, x[i, c], k)  # nothing is below nan
            q = (q - offset * a) * invstd
            sums[i, 0, c], sums[i, 1, c] = q, a
            total += weight[c] * a
            along += weight[c] * q
        slope = x.dtype.type(-invstd * invstd * along / n)
        level = x.dtype.type((offset * invstd * along - total) * invstd / n)
        for c in range(low, low + width):
            scale = x.dtype.type(invstd * weight[c])
            for j in range(size):
                dx[i, c, j] = dy[i, c, j] * scale + ((x[i, c, j] - k) * slope + level)


def _forward_numba(x: Array, weight: Array, bias: Array, y: Array, kept: Array, groups: int, eps: float) -> None:
    launch_split(_forward, len(kept[0]), x.size, GRAIN, x, weight, bias, y, kept, groups, eps)


def _backward_numba(
    dy: Array, x: Array, weight: Array, kept: Array, dx: Array, dweight: Array, dbias: Array, groups: int
) -> None:
    sums = xp_of(x).empty((x.shape[0], 2, x.shape[1]), np.float64)
    launch_split(_backward, len(kept[0]), x.size, GRAIN, dy, x, weight, kept, dx, sums, groups)
    launch(together, sums, dweight, dbias)


# --- CUDA -------------------------------------------------------------------------------------------------------------


PARAMETERS = CudaKernel(
    "group_norm_parameters",
    "const T* dy, const T* x, const A* kept, A* dweight, A* dbias, long long rows, int groups, int width, int size",
    r"""
    const int c = blockIdx.x, group = c / width, warps = blockDim.x / 32;
    const long long channels = (long long)groups * width;
    A dw = 0, db = 0;
    for (long long i = threadIdx.x / 32; i < rows; i += warps) {  // a warp for each example
        const long long row = i * groups + group, at = (i * channels + c) * size;
        const A k = x[row * width * size], offset = kept[row];
        A a = 0, q = 0;
        for (int j = threadIdx.x % 32; j < size; j += 32) a += dy[at + j], q += dy[at + j] * ((x[at + j] - k) - offset);
        dw += q * kept[rows * groups + row];
        db += a;
    }
    dw = block_sum(dw), db = block_sum(db);
    if (threadIdx.x == 0) dweight[c] = dw, dbias[c] = db;
    """,
    threads=1024,
    dtypes=EVERY_FLOAT,
)


def _forward_cuda(x: Array, weight: Array, bias: Array, y: Array, kept: Array, groups: int, eps: float) -> None:
    rows, width, size = x.shape[0] * groups, x.shape[1] // groups, x.shape[2]
    launch(FORWARD, rows, (x, weight, bias, y, kept, 1, eps, groups, width, size), threads_of(width * size))


def _backward_cuda(
    dy: Array, x: Array, weight: Array, kept: Array, dx: Array, dweight: Array, dbias: Array, groups: int
) -> None:
    (n, channels, size), width = x.shape, x.shape[1] // groups
    launch(BACKWARD, n * groups, (dy, x, weight, kept, dx, 1, groups, width, size), threads_of(width * size))
    threads = threads_of(4 * 32 * n)
    launch(PARAMETERS, channels, (dy, x, kept, dweight, dbias, n, groups, width, size), threads)


host(group_norm)(partial(_twin, _forward_numba, _backward_numba))
device(group_norm)(partial(_twin, _forward_cuda, _backward_cuda))
