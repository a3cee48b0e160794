"""Softmax and its logarithm along one axis, forwards and backwards: reference, compiled loops, CUDA C.

With m the maximum along the axis and s = Σ e^(x − m): softmax = e^(x − m) / s and log_softmax = x − m − ln s; no exponential
can overflow. Their gradients are y (dy − Σ dy·y) and dy − e^y Σ dy. The fast forms take the last axis of arrays that lie row
by row in memory. Other axes have loops of their own on the host (``columns.py``), else they go by a transposed copy. The
compiled loops try m = 0 first, which nearly always will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.cpu.lanes import dot, total
from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel
from kobai.engine.dispatch import DEVICE, HOST, compiled, engine_for, launch
from kobai.engine.exponential import exp
from kobai.engine.logarithm import log as logarithm
from kobai.ops._rows import (
    BLOCK,
    EXPONENTIALS,
    LEAST,
    LONG,
    MOST,
    exponentials,
    highest,
    launch_split,
    less,
    shifted_exponentials,
    threads_for,
)
from kobai.ops._sums import total as summed
from kobai.ops.softmax import columns as down
from kobai.xp import Array, xp_of


def softmax(x: Array, axis: int) -> Array:
    """e^xᵢ / Σⱼ e^xⱼ along ``axis``; ``x`` has elements."""
    return _along(axis, _softmax_reference, (_softmax_rows, down.softmax), SOFTMAX, x)


def softmax_backward(dy: Array, y: Array, axis: int) -> Array:
    """Gradient of the input, given the result."""
    loops = _softmax_backward_rows, down.softmax_backward
    return _along(axis, _softmax_backward_reference, loops, SOFTMAX_BACKWARD, dy, y)


def log_softmax(x: Array, axis: int) -> Array:
    """xᵢ − ln Σⱼ e^xⱼ along ``axis``; ``x`` has elements."""
    return _along(axis, _log_softmax_reference, (_log_softmax_rows, down.log_softmax), LOG_SOFTMAX, x)


def log_softmax_backward(dy: Array, y: Array, axis: int) -> Array:
    """Gradient of the input, given the result."""
    loops = _log_softmax_backward_rows, down.log_softmax_backward
    return _along(axis, _log_softmax_backward_reference, loops, LOG_SOFTMAX_BACKWARD, dy, y)


def _along(
    axis: int, reference: Callable[..., Array], loops: tuple[Any, Any], kernel: CudaKernel, *args: Array
) -> Array:
    """One of the four functions by the engine that takes its operands: arrays of one shape."""
    first = args[0]
    xp, shape = xp_of(first), first.shape
    if axis != len(shape) - 1:
        if first.flags.c_contiguous and down.fits(shape, axis):
            rows = [xp.ascontiguousarray(arg) for arg in args]
            if engine_for(rows) is HOST:
                return down.columns(loops[1], axis, *rows)
        moved = [xp.ascontiguousarray(xp.moveaxis(arg, axis, -1)) for arg in args]
        if engine_for(moved, halves=True) is None:
            return reference(*args, axis)
        y = _along(len(shape) - 1, reference, loops, kernel, *moved)
        return xp.ascontiguousarray(xp.moveaxis(y, -1, axis))
    args = tuple(map(xp.ascontiguousarray, args))
    columns = shape[-1]
    engine = engine_for(args, halves=True)
    if engine is HOST:
        y = xp.empty(shape, first.dtype)
        flat = [arg.reshape(-1) for arg in args]
        launch_split(loops[0], first.size // columns, first.size, EXPONENTIALS, *flat, y.reshape(-1), columns)
        return y
    if engine is DEVICE:
        y = xp.empty(shape, first.dtype)
        launch(kernel, first.size // columns, (*args, y, columns), threads_for(columns))
        return y
    return reference(*args, axis)


# --- reference --------------------------------------------------------------------------------------------------------


def _softmax_reference(x: Array, axis: int) -> Array:
    y = xp_of(x).exp(x - x.max(axis=axis, keepdims=True))
    y /= summed(y, (axis,), True)
    return y


def _softmax_backward_reference(dy: Array, y: Array, axis: int) -> Array:
    dx = dy * y
    dx -= y * summed(dx, (axis,), True)
    return dx


def _log_softmax_reference(x: Array, axis: int) -> Array:
    xp = xp_of(x)
    z = x - x.max(axis=axis, keepdims=True)
    return z - xp.log(summed(xp.exp(z), (axis,), True))


def _log_softmax_backward_reference(dy: Array, y: Array, axis: int) -> Array:
    return dy - xp_of(y).exp(y) * summed(dy, (axis,), True)


# --- compiled loops ---------------------------------------------------------------------------------------------------


@compiled
def _softmax_rows(x: Any, y: Any, columns: int, start: int, stop: int) -> None:
    number = x.dtype.type
    step = BLOCK // columns if columns < LONG else 1
    for first in range(start, stop, step):
        last = min(first + step, stop)
        if columns < LONG:
            exponentials(x[first * columns : last * columns], y[first * columns : last * columns])
        for row in range(first, last):
            xs, ys = x[row * columns : (row + 1) * columns], y[row * columns : (row + 1) * columns]
            s = total(ys) if columns < LONG else shifted_exponentials(xs, number(0), ys)
            if columns == 1 or not LEAST < s < MOST:
                s = shifted_exponentials(xs, highest(xs), ys)
            share = number(1) / s
            for j in range(ys.size):
                ys[j] *= share


@compiled
def _softmax_backward_rows(dy: Any, y: Any, dx: Any, columns: int, start: int, stop: int) -> None:
    for row in range(start, stop):
        ds, ys = dy[row * columns : (row + 1) * columns], y[row * columns : (row + 1) * columns]
        out = dx[row * columns : (row + 1) * columns]
        along = dot(ds, ys)
        for j in range(ys.size):
            out[j] = ys[j] * (ds[j] - along)


@compiled
def _log_softmax_rows(x: Any, y: Any, columns: int, start: int, stop: int) -> None:
    number = x.dtype.type
    step = BLOCK // columns if columns < LONG else 1
    for first in range(start, stop, step):
        last = min(first + step, stop)
        if columns < LONG:
            exponentials(x[first * columns : last * columns], y[first * columns : last * columns])
        for row in range(first, last):
            xs, ys = x[row * columns : (row + 1) * columns], y[row * columns : (row + 1) * columns]
            m = number(0)
            s = total(ys) if columns < LONG else shifted_exponentials(xs, m, ys)
            if columns == 1 or not LEAST < s < MOST:  # alone, x − m is 0 and nothing else
                m = highest(xs)
                s = shifted_exponentials(xs, m, ys)
            log = logarithm(np.float64(s))
            if m == 0:  # ln s in two parts: where x is near it, x − ln s keeps its digits
                m = number(log)
                log -= np.float64(m)
            rest = number(log)
            for j in range(xs.size):
                value = less(xs[j], m, rest)
                ys[j] = number(0) if value > number(0) else value  # no probability is above 1, whatever was rounded


@compiled
def _log_softmax_backward_rows(dy: Any, y: Any, dx: Any, columns: int, start: int, stop: int) -> None:
    step = BLOCK // columns if columns < LONG else 1
    for first in range(start, stop, step):
        last = min(first + step, stop)
        if columns < LONG:
            exponentials(y[first * columns : last * columns], dx[first * columns : last * columns])
        for row in range(first, last):
            ds, ys = dy[row * columns : (row + 1) * columns], y[row * columns : (row + 1) * columns]
            out = dx[row * columns : (row + 1) * columns]
            s = total(ds)
            if columns < LONG:
                for j in range(ds.size):
                    out[j] = ds[j] - out[j] * s
            else:
                for j in range(ds.size):
                    out[j] = ds[j] - exp(ys[j]) * s


# --- CUDA C: a block for each row -------------------------------------------------------------------------------------


_EACH_ROW = "const long long at = blockIdx.x * (long long)columns;\n"
_TOTAL = r"""
    A m = -INFINITY, s = 0;
    for (int j = threadIdx.x; j < columns; j += blockDim.x) m = maximum(m, (A)x[at + j]);
    m = block_max(m);
    for (int j = threadIdx.x; j < columns; j += blockDim.x) s += exp((A)x[at + j] - m);
    s = block_sum(s);
"""

SOFTMAX = CudaKernel(
    "softmax",
    "const T* x, T* out, int columns",
    _EACH_ROW
    + _TOTAL
    + "for (int j = threadIdx.x; j < columns; j += blockDim.x) out[at + j] = exp((A)x[at + j] - m) / s;",
    dtypes=EVERY_FLOAT,
)
LOG_SOFTMAX = CudaKernel(
    "log_softmax",
    "const T* x, T* out, int columns",
    _EACH_ROW
    + _TOTAL
    + r"""
    s = log(s);
    for (int j = threadIdx.x; j < columns; j += blockDim.x) out[at + j] = ((A)x[at + j] - m) - s;
    """,
    dtypes=EVERY_FLOAT,
)
SOFTMAX_BACKWARD = CudaKernel(
    "softmax_backward",
    "const T* dy, const T* y, T* out, int columns",
    _EACH_ROW
    + r"""
    A s = 0;
    for (int j = threadIdx.x; j < columns; j += blockDim.x) s += (A)dy[at + j] * (A)y[at + j];
    s = block_sum(s);
    for (int j = threadIdx.x; j < columns; j += blockDim.x) out[at + j] = (A)y[at + j] * ((A)dy[at + j] - s);
    """,
    dtypes=EVERY_FLOAT,
)
LOG_SOFTMAX_BACKWARD = CudaKernel(
    "log_softmax_backward",
    "const T* dy, const T* y, T* out, int columns",
    _EACH_ROW
    + r"""
    A s = 0;
    for (int j = threadIdx.x; j < columns; j += blockDim.x) s += (A)dy[at + j];
    s = block_sum(s);
    for (int j = threadIdx.x; j < columns; j += blockDim.x) out[at + j] = (A)dy[at + j] - exp((A)y[at + j]) * s;
    """,
    dtypes=EVERY_FLOAT,
)
