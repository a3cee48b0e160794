"""Rows of a matrix (N, C): reductions to (N,), exponentials, and the splitting of compiled loops among threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.cpu.lanes import total
from kobai.cpu.threads import run_split
from kobai.engine.dispatch import as_written, compiled, inlined, launch
from kobai.engine.exponential import exp
from kobai.ops._matmul import matmul
from kobai.xp import Array, xp_of

FEW = 64
"""Up to this many columns a transposed copy is faster: NumPy restarts its inner loop for every row (40 ns each), but runs
down the columns of the copy without a stop. 100×10 float32: 4.6 → 1.5 µs; 1024×10: 40 → 4 µs; equal at 100 columns."""


def row_max(x: Array) -> Array:
    """Largest element of every row."""
    if type(x) is np.ndarray and x.shape[1] <= FEW:
        return np.maximum.reduce(np.ascontiguousarray(x.T), axis=0)
    return x.max(axis=1)


def row_sum(x: Array) -> Array:
    """Sum of every row, as a product with ones: 1.4 µs instead of 2 for 100×10 float32, 3 instead of 14 for 1024×10."""
    return matmul(x, xp_of(x).ones(x.shape[1], x.dtype))


# --- compiled loops over rows -----------------------------------------------------------------------------------------

EXPONENTIALS = 1 << 19
"""Elements worth a thread where each needs an exponential, 0.2 ns: 100 µs of work, twice what waking a thread takes."""

LONG = 256
"""From this many columns on, each row is a loop of its own. Shorter rows would leave vector registers half empty at their
ends: their exponentials are computed for a whole block of rows at once. log Σ e^x of 5120×10 float32: 129 → 31 µs."""

BLOCK = 2048
"""Elements in such a block: it stays in the first-level cache."""

LEAST, MOST = 1e-10, 1e10
"""Between them Σ e^x needs no shift by the maximum: nothing that counts in it has overflowed or lost digits, and ln Σ e^x is
small enough for differences from it. That saves most rows a pass."""


def launch_split(loop: Callable[..., Any], n: int, elements: int, grain: int, *args: Any, least: int = 1) -> None:
    """Launch ``loop(*args, start, stop)`` for items [0, n), which have so many ``elements``: all at once, or on threads.

    A thread's part has at least ``grain`` elements, and ``least`` items.
    """
    if elements < 2 * grain:
        launch(loop, *args, 0, n)
    else:
        launch(split, loop, n, max(least, -(-grain * n // elements)), *args)


def split(loop: Callable[..., Any], n: int, grain: int, *args: Any) -> None:
    """Run ``loop`` in parts of at least ``grain`` items, see :func:`run_split`."""
    run_split(loop, n, *args, grain=grain)


def threads_for(columns: int) -> int:
    """Threads of a CUDA block that has one row: a warp for short rows, else so many that each has four columns or more."""
    return 32 if columns <= 128 else 128 if columns <= 1024 else 256


_SIGN32, _SIGN64 = np.int32(31), np.int64(63)
_REST32, _REST64 = np.int32(0x7FFFFFFF), np.int64(0x7FFFFFFFFFFFFFFF)


def _ordered32(x: Any) -> Any:
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ np.int32(np.int32(bits >> _SIGN32) & _REST32))


def _ordered64(x: Any) -> Any:
    bits = np.float64(x).view(np.int64)
    return np.int64(bits ^ np.int64(np.int64(bits >> _SIGN64) & _REST64))


def _number32(x: Any) -> Any:
    return np.int32(x ^ np.int32(np.int32(x >> _SIGN32) & _REST32)).view(np.float32)


def _number64(x: Any) -> Any:
    return np.int64(x ^ np.int64(np.int64(x >> _SIGN64) & _REST64)).view(np.float64)


_ordered = inlined(_ordered32, _ordered64)
_number = inlined(_number32, _number64)


@compiled
def highest(x: Any) -> Any:
    """The largest element of a 1-D array, for use inside other loops.

    LLVM does not vectorise a maximum of floats, because of NaN. So the floats are compared as integers in the same order:
    the bits of positive numbers as they are, those of negative ones inverted but for the sign. NaN comes out largest or,
    with its sign set, smallest; either way it shows in what is computed from the row.
    """
    most = _ordered(x[0])
    for j in range(1, x.size):
        k = _ordered(x[j])
        most = k if k > most else most
    return _number(most)


@compiled
def exponentials(x: Any, e: Any) -> None:
    """e ← e^x"""
    for i in range(x.size):
        e[i] = exp(x[i])


@compiled
def shifted(x: Any, m: Any, e: Any) -> None:
    """e ← e^(x − m)"""
    for j in range(x.size):
        e[j] = exp(x[j] - m)


@as_written
def shifted_exponentials(x: Any, m: Any, e: Any) -> Any:
    """e ← e^(x − m); returns their sum, over blocks that are still in the cache."""
    s = x.dtype.type(0)
    for first in range(0, x.size, BLOCK):
        block = e[first : min(first + BLOCK, x.size)]
        shifted(x[first : first + block.size], m, block)
        s += total(block)
    return s


@as_written
def wide_total(x: Any) -> Any:
    """Σ x in float64: four sums, and those in pairs."""
    a = b = c = d = 0.0
    fours = x.size // 4 * 4
    for i in range(0, fours, 4):
        a += x[i]
        b += x[i + 1]
        c += x[i + 2]
        d += x[i + 3]
    for i in range(fours, x.size):
        a += x[i]
    return (a + b) + (c + d)


@as_written
def sum_of_exponentials(x: Any, m: Any, scratch: Any) -> Any:
    """Σ e^(x − m), with room for BLOCK terms."""
    s = x.dtype.type(0)
    for first in range(0, x.size, BLOCK):
        block = scratch[: min(BLOCK, x.size - first)]
        shifted(x[first : first + block.size], m, block)
        s += total(block)
    return s


@as_written
def less(x: Any, m: Any, rest: Any) -> Any:
    """(x − m) − rest: x − (m + rest) would round to the size of m."""
    return (x - m) - rest
