"""Sums of equal arrays, such as the gradients of shards, in a balanced binary tree: neighbours first.

The order is part of the result. Whoever holds a subtree can sum it, and up to eight arrays are added in one pass over
memory, but the pairs that meet are always the same::

    ((a + b) + (c + d)) + ((e + f) + (g + h))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kobai.engine.dispatch import as_written, launch, loops_run
from kobai.ops._rows import launch_split
from kobai.xp import Array

AT_ONCE = 8
"""Most arrays that a loop reads: more streams than the processor foresees would be slower."""

GRAIN = 1 << 17
"""Elements worth a thread: each is read from up to eight places."""


def tree_sum(parts: Sequence[Array], out: Array) -> None:
    """``out`` becomes the sum of 1, 2, 4 or 8 arrays of its shape and dtype, in the order of the tree; all are contiguous."""
    if loops_run(out.dtype):
        flat = [array.reshape(-1) for array in (*parts, out)]
        launch_split(_LOOPS[len(parts)], out.size, out.size, GRAIN, *flat)
        return
    launch(_added, *parts, out)


def _added(*arrays: Array) -> None:
    *parts, out = arrays
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
    out[...] = parts[0]


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
def _eight(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, y: Any, start: int, stop: int) -> None:
    for i in range(start, stop):
        y[i] = ((a[i] + b[i]) + (c[i] + d[i])) + ((e[i] + f[i]) + (g[i] + h[i]))


_LOOPS = {1: _one, 2: _two, 4: _four, AT_ONCE: _eight}
