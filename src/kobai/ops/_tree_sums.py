"""Sums of equal arrays, such as the gradients of shards, in a balanced binary tree: neighbours first.

The order is part of the result. Whoever holds a subtree can sum it, and several arrays are added in one pass over memory, but
the pairs that meet are always the same::

    ((a + b) + (c + d)) + ((e + f) + (g + h))

Four leaves wait for each other, and then join the sum of the four before them. That needs memory for five, which is better than
fewer passes over more: a product that writes a gradient to memory of long ago takes half as long again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kobai.engine.dispatch import HOST, as_written, engine_for, launch
from kobai.ops._rows import launch_split
from kobai.xp import Array, beside

AT_ONCE = 4
"""Leaves that wait for each other."""

GRAIN = 1 << 17
"""Elements worth a thread: each is read from up to five places."""


def tree_sum(parts: Sequence[Array], out: Array) -> None:
    """``out``, which may be one of them, becomes the sum of contiguous arrays of its shape and dtype, in the order of the tree.

    There are 1, 2 or 4; or 5, of which the first is the sum of those before the others: a + ((b + c) + (d + e)).
    """
    if engine_for((*parts, out)) == HOST:
        flat = [array.reshape(-1) for array in (*parts, out)]
        launch_split(_LOOPS[len(parts)], out.size, out.size, GRAIN, *flat)
        return
    with beside(out):
        launch(_added, *parts, out)


def tree_into(parts: Sequence[Array], out: Array) -> None:
    """``out`` becomes the sum of any power of two of contiguous arrays, which are written over."""
    while len(parts) > AT_ONCE:
        for first in range(0, len(parts), AT_ONCE):
            tree_sum(parts[first : first + AT_ONCE], parts[first])
        parts = parts[::AT_ONCE]
    tree_sum(parts, out)


def _added(*arrays: Array) -> None:
    *parts, out = arrays
    before = parts[:1] if len(parts) == AT_ONCE + 1 else []
    parts = parts[len(before) :]
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
    out[...] = before[0] + parts[0] if before else parts[0]


@as_written
def _one(a: Any, y: Any, start: int, stop: int) -> None:
    for i in range(start, stop):
        y[i] = a[i]


@as_written
def _two(a: Any, b: Any, y: Any, start: int, stop: int) -> None:
    for i in range(start, stop):
        y[i] = a[i] + b[i]


@as_written
def _four(a: Any, b: Any, c: Any, d: Any, y: Any, start: int, stop: int) -> None:
    for i in range(start, stop):
        y[i] = (a[i] + b[i]) + (c[i] + d[i])


@as_written
def _five(a: Any, b: Any, c: Any, d: Any, e: Any, y: Any, start: int, stop: int) -> None:
    for i in range(start, stop):
        y[i] = a[i] + ((b[i] + c[i]) + (d[i] + e[i]))


_LOOPS = {1: _one, 2: _two, AT_ONCE: _four, AT_ONCE + 1: _five}
