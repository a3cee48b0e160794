"""Elements by their rank, without sorting all: a value is found by a partition, and then where it stands among its equals.

Ranks are those of a stable sort, in which NaN comes last: of equal elements the first has the lowest rank.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.engine.dispatch import HOST, compiled, engine_for
from kobai.ops._args import sortable
from kobai.ops._rows import launch_split
from kobai.xp import Array, xp_of

MOST = 64
"""Up to so many elements of a row are kept in order while the row goes by; for more, a partition is faster."""

GRAIN = 1 << 17
"""Elements worth a thread, each of which is compared once."""


def at_rank(x: Array, rank: Array, axis: int, value: Array) -> Array:
    """Where along ``axis`` the element of this rank stands, whose value is known, one for each slice; the axis is kept."""
    xp, x = xp_of(x), sortable(x)
    if axis == x.ndim - 1 and engine_for((x, value)) is HOST:
        places, n = xp.empty(value.shape, np.int64), x.shape[axis]
        args = x.reshape(-1), xp.ascontiguousarray(rank).reshape(-1), value.reshape(-1), places.reshape(-1), n
        launch_split(_places, value.size, x.size, GRAIN, *args)
        return places
    none = value != value
    less = xp.where(none, x == x, x < value).sum(axis=axis, keepdims=True)
    equal = xp.where(none, x != x, x == value)
    # The element is the (rank − less)-th of its equals, from 0.
    return xp.expand_dims((xp.cumsum(equal, axis=axis, dtype=np.int32) > rank - less).argmax(axis=axis), axis)


@compiled
def _places(x: Any, ranks: Any, values: Any, places: Any, n: int, start: int, stop: int) -> None:
    for row in range(start, stop):
        xs, v, less = x[row * n : (row + 1) * n], values[row], 0
        for i in range(n):
            less += 1 if (xs[i] < v) | ((v != v) & (xs[i] == xs[i])) else 0
        left = ranks[row] - less
        for i in range(n):
            if (xs[i] == v) | ((v != v) & (xs[i] != xs[i])):
                if left == 0:
                    places[row] = i
                    break
                left -= 1


def kth(x: Array, k: int, axis: int) -> Array:
    """Where along ``axis`` the element of rank ``k``, from 0, stands; the axis is kept."""
    xp = xp_of(x)
    parted = xp.partition(sortable(x), k, axis=axis)
    value = xp.ascontiguousarray(parted[(slice(None),) * axis + (slice(k, k + 1),)])
    return at_rank(x, xp.full(value.shape, k, np.int64), axis, value)


def first(x: Array, k: int, axis: int, largest: bool) -> Array | None:
    """Indices of the ``k`` largest or smallest elements along ``axis`` in order, of equal ones the first; None without a loop.

    x has more than ``k`` elements there, 0 < k.
    """
    if k > MOST or engine_for((x,)) is not HOST:
        return None
    xp, last = xp_of(x), axis == x.ndim - 1
    rows = x if last else xp.ascontiguousarray(xp.moveaxis(x, axis, -1))
    n = rows.shape[-1]
    best, indices = xp.empty((*rows.shape[:-1], k), x.dtype), xp.empty((*rows.shape[:-1], k), np.int64)
    args = rows.reshape(-1), best.reshape(-1), indices.reshape(-1), n, k, largest
    launch_split(_first, x.size // n, x.size, GRAIN, *args)
    return indices if last else xp.ascontiguousarray(xp.moveaxis(indices, -1, axis))


@compiled
def _before(v: Any, w: Any, largest: bool) -> Any:
    """Whether v comes before w; NaN counts as the largest."""
    return (v > w) | ((v != v) & (w == w)) if largest else (v < w) | ((v == v) & (w != w))


@compiled
def _first(x: Any, best: Any, indices: Any, n: int, k: int, largest: bool, start: int, stop: int) -> None:
    """The first so far are kept in order; what does not come before the last of them, nearly all, costs one comparison."""
    for row in range(start, stop):
        xs, values, at = x[row * n : (row + 1) * n], best[row * k : (row + 1) * k], indices[row * k : (row + 1) * k]
        for i in range(n):
            v = xs[i]
            if i < k or _before(v, values[k - 1], largest):
                j = min(i, k - 1)
                while j > 0 and _before(v, values[j - 1], largest):
                    values[j], at[j] = values[j - 1], at[j - 1]
                    j -= 1
                values[j], at[j] = v, i
