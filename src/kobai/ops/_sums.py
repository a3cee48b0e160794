"""Sums whose rounding errors do not grow with the number of terms, and products: over axes, and running along one.

NumPy adds the elements of a row in pairs of pairs, with an error of about ε log₂ n. Down a column it adds one row after the
other, and when it has come to 2²⁴ times a term in float32 – or 2¹¹ in float16 – that term is lost altogether. Here columns are
added in blocks, and these in blocks again; running sums, which cannot be, are added in a wider dtype. With Numba both are
compiled loops (``_sum_loops.py``). An array library for devices adds in a tree by itself, and float16 in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.dtypes import FLOATING
from kobai.engine.dispatch import HOST, HOST_TYPES, engine_for
from kobai.ops import _sum_loops
from kobai.xp import Array, xp_of

__all__ = ["BLOCK", "centred", "cumulative_product", "cumulative_sum", "product", "suffix_sum", "total"]

BLOCK = 128
"""Terms that are added one after the other, as many as in NumPy's own blocks."""

FEW = 4 * BLOCK
"""Up to as many elements in the array NumPy's order of addition is left as it is."""


def total(x: Array, axes: tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """Σ x over ``axes`` (None: all)."""
    itemsize = x.itemsize
    if itemsize == 2 and x.dtype.kind in FLOATING:
        return total(x.astype(np.float32), axes, keepdims).astype(x.dtype)
    if itemsize != 4 or x.size <= FEW or axes == () or type(x) not in HOST_TYPES or x.dtype.kind not in FLOATING:
        return x.sum(axis=axes, keepdims=keepdims)
    shape = x.shape
    if engine_for((x,)) is HOST:
        return _compiled(_sum_loops.sums, x, axes, keepdims)
    if axes is None:
        axes = tuple(range(x.ndim))
    if x.flags.f_contiguous and engine_for((x.T,)) is HOST:
        last = x.ndim - 1
        return _compiled(_sum_loops.sums, x.T, tuple(last - d for d in axes), keepdims).T
    if math.prod([shape[d] for d in axes]) <= BLOCK or (len(axes) == x.ndim and x.flags.forc):
        return x.sum(axis=axes, keepdims=keepdims)
    for group in reversed(_neighbours(axes)):  # the last one first: what is left is small
        x = _over(x, group)
    return x if keepdims else x.reshape([n for d, n in enumerate(shape) if d not in axes])


def _compiled(over: Callable[..., Array], x: Array, axes: tuple[int, ...] | None, keepdims: bool) -> Array:
    """Σ or Π of x over ``axes`` by compiled loops, one group of neighbouring axes after the other."""
    if axes is None:
        return over(x, 1, x.size, 1).reshape((1,) * x.ndim if keepdims else ())
    shape = list(x.shape)
    for group in reversed(_neighbours(axes)) if len(axes) > 1 else (axes,):
        first, after = group[0], group[-1] + 1
        n, inner = math.prod(shape[first:after]), math.prod(shape[after:])
        x = over(x, math.prod(shape[:first]), n, inner)
        shape[first:after] = (1,) * len(group)
    return x.reshape(shape if keepdims else [n for d, n in enumerate(shape) if d not in axes])


def _neighbours(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Axes in groups that follow each other without a gap."""
    groups: list[tuple[int, ...]] = []
    for axis in sorted(axes):
        if groups and groups[-1][-1] == axis - 1:
            groups[-1] += (axis,)
        else:
            groups.append((axis,))
    return groups


def _over(x: Array, group: tuple[int, ...]) -> Array:
    """Σ x over neighbouring axes, which stay with size 1."""
    first, after, shape = group[0], group[-1] + 1, x.shape
    if x.flags.c_contiguous:
        if after == x.ndim:
            return x.sum(axis=group, keepdims=True)
        merged = _along(x.reshape((*shape[:first], -1, *shape[after:])), first)
        return merged.reshape((*shape[:first], *(1,) * len(group), *shape[after:]))
    for axis in reversed(group):
        x = _along(x, axis)
    return x


def _along(x: Array, axis: int) -> Array:
    """Σ x along one axis, which stays with size 1."""
    n, before = x.shape[axis], (slice(None),) * axis
    while n > BLOCK:
        whole = n // BLOCK
        blocks = x[(*before, slice(0, whole * BLOCK))]
        parts = blocks.reshape((*x.shape[:axis], whole, BLOCK, *x.shape[axis + 1 :])).sum(axis=axis + 1)
        if n % BLOCK:
            rest = x[(*before, slice(whole * BLOCK, n))].sum(axis=axis, keepdims=True)
            parts = xp_of(x).concatenate([parts, rest], axis=axis)
        x, n = parts, parts.shape[axis]
    return x.sum(axis=axis, keepdims=True)


def centred(x: Array, axes: tuple[int, ...] | None) -> Array:
    """x − mean over ``axes``, exact to the digits of x: the mean itself is rounded, and what that leaves is taken off again."""
    n = x.size if axes is None else math.prod([x.shape[d] for d in axes])
    share = 1 / n if n else math.nan
    off = x - total(x, axes, True) * share
    off -= total(off, axes, True) * share
    return off


def cumulative_sum(x: Array, axis: int) -> Array:
    """Running sums along ``axis``, added in float64, of integers in their own dtype."""
    if x.dtype.kind not in FLOATING:
        return xp_of(x).cumsum(x, axis=axis, dtype=x.dtype)
    if x.size > FEW and engine_for((x,)) is HOST:
        return _sum_loops.running(x, axis)
    return xp_of(x).cumsum(x, axis=axis, dtype=np.float64).astype(x.dtype, copy=False)


def product(x: Array, axes: tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """Π x over ``axes`` (None: all), multiplied in float64: a partial product out of range would spoil all that follow."""
    if x.dtype.kind not in FLOATING:
        return x.prod(axis=axes, keepdims=keepdims)
    one = axes is None or len(axes) == 1 or len(axes) == x.ndim  # else what lies between would be rounded
    if x.size > FEW and one and engine_for((x,)) is HOST:
        return _compiled(_sum_loops.products, x, None if axes is None or len(axes) == x.ndim else axes, keepdims)
    return x.prod(axis=axes, keepdims=keepdims, dtype=np.float64).astype(x.dtype, copy=False)


def cumulative_product(x: Array, axis: int) -> Array:
    """Running products along ``axis``, multiplied in float64, of integers in their own dtype."""
    if x.dtype.kind not in FLOATING:
        return xp_of(x).cumprod(x, axis=axis, dtype=x.dtype)
    if x.size > FEW and engine_for((x,)) is HOST:
        return _sum_loops.running(x, axis, factors=True)
    return xp_of(x).cumprod(x, axis=axis, dtype=np.float64).astype(x.dtype, copy=False)


def suffix_sum(x: Array, axis: int) -> Array:
    """Running sums from the end."""
    xp: Any = xp_of(x)
    if x.size > FEW and engine_for((x,)) is HOST:
        return _sum_loops.running(x, axis, True)
    return xp.flip(cumulative_sum(xp.flip(x, axis), axis), axis)
