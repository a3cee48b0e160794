"""Sums over an axis and running sums along one, of x seen as (outer, n, inner): compiled loops over the outer index.

Sums of float32 are added in 64 lanes within a block, and rows' blocks in float64. Which terms meet does not depend on how the
loop is parted, nor on the width of vectors, so the bits are the same for any number of threads and any processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.cpu.lanes import total
from kobai.engine.dispatch import as_written, compiled
from kobai.ops._rows import launch_split
from kobai.xp import Array, xp_of

ROW, COLUMN = 1024, 128
"""Terms of a block, along a row and down a column: in both 16 are added one after the other, as a row goes through four
vectors of 16 lanes and a column by eights. Their rounding errors are still small."""

GRAIN = 1 << 18
"""Elements worth a thread: each is read once, and a core takes 100 GB/s from its second-level cache."""


def sums(x: Array, outer: int, n: int, inner: int) -> Array:
    """Σ over the middle axis: contiguous float32 (outer, n, inner) → (outer, inner)."""
    xp, flat = xp_of(x), x.reshape(-1)
    if inner == 1:
        y = xp.empty(outer, x.dtype)
        launch_split(_rows, outer, x.size, GRAIN, flat, y, n)
        return y
    while True:
        blocks = -(-n // COLUMN)
        y = xp.empty(outer * blocks * inner, x.dtype)
        launch_split(_columns, outer * blocks, x.size, GRAIN, flat, y, n, inner, blocks)
        if blocks == 1:
            return y
        flat, n = y, blocks


def running(x: Array, axis: int, backwards: bool = False, factors: bool = False) -> Array:
    """Running sums along ``axis``, from its end if ``backwards``, or products of ``factors``, in float64: contiguous float32
    or float64."""
    xp, shape = xp_of(x), x.shape
    y, n = xp.empty(shape, x.dtype), shape[axis]
    if not x.size:
        return y
    inner = int(np.prod(shape[axis + 1 :]))
    outer, flat = x.size // (n * inner), x.reshape(-1)
    if inner == 1:
        launch_split(_running_rows, outer, x.size, GRAIN, flat, y.reshape(-1), n, backwards, factors)
    else:
        so_far = xp.empty(outer * inner, np.float64)
        launch_split(_running_columns, outer, x.size, GRAIN, flat, y.reshape(-1), so_far, n, inner, backwards, factors)
    return y


def products(x: Array, outer: int, n: int, inner: int) -> Array:
    """Π over the middle axis, in float64: contiguous float32 or float64 (outer, n, inner) → (outer, inner)."""
    xp = xp_of(x)
    y, so_far = xp.empty(outer * inner, x.dtype), xp.empty(outer * inner, np.float64)
    launch_split(_products, outer, x.size, GRAIN, x.reshape(-1), y, so_far, n, inner)
    return y


@as_written
def _rows(x: Any, y: Any, n: int, start: int, stop: int) -> None:
    for row in range(start, stop):
        s, end = 0.0, (row + 1) * n
        for first in range(row * n, end, ROW):
            s += total(x[first : min(first + ROW, end)])
        y[row] = s


@compiled
def _columns(x: Any, y: Any, n: int, inner: int, blocks: int, start: int, stop: int) -> None:
    """Eight rows at a time, so that the sums so far are moved less often, and their errors are an eighth."""
    zero = x.dtype.type(0)
    for item in range(start, stop):
        above, first = item // blocks * n, item % blocks * COLUMN
        last = min(first + COLUMN, n)
        eights = first + (last - first) // 8 * 8
        ys = y[item * inner : (item + 1) * inner]
        for j in range(ys.size):
            ys[j] = zero
        for i in range(first, eights, 8):
            at = (above + i) * inner
            a, b = x[at : at + inner], x[at + inner : at + 2 * inner]
            c, d = x[at + 2 * inner : at + 3 * inner], x[at + 3 * inner : at + 4 * inner]
            e, f = x[at + 4 * inner : at + 5 * inner], x[at + 5 * inner : at + 6 * inner]
            g, h = x[at + 6 * inner : at + 7 * inner], x[at + 7 * inner : at + 8 * inner]
            for j in range(ys.size):
                ys[j] += ((a[j] + b[j]) + (c[j] + d[j])) + ((e[j] + f[j]) + (g[j] + h[j]))
        for i in range(eights, last):
            a = x[(above + i) * inner : (above + i + 1) * inner]
            for j in range(ys.size):
                ys[j] += a[j]


@as_written
def _running_rows(x: Any, y: Any, n: int, backwards: bool, factors: bool, start: int, stop: int) -> None:
    """Four rows at a time: each addition waits for the one before it."""
    step, none = -1 if backwards else 1, 1.0 if factors else 0.0
    fours = start + (stop - start) // 4 * 4
    for row in range(start, fours, 4):
        p, q, r, s = none, none, none, none
        at = (row + 1) * n - 1 if backwards else row * n
        for _ in range(n):
            a, b, c, d = x[at], x[at + n], x[at + 2 * n], x[at + 3 * n]
            if factors:
                p, q, r, s = p * a, q * b, r * c, s * d
            else:
                p, q, r, s = p + a, q + b, r + c, s + d
            y[at], y[at + n], y[at + 2 * n], y[at + 3 * n] = p, q, r, s
            at += step
    for row in range(fours, stop):
        p = none
        at = (row + 1) * n - 1 if backwards else row * n
        for _ in range(n):
            p = p * x[at] if factors else p + x[at]
            y[at] = p
            at += step


@as_written
def _running_columns(
    x: Any, y: Any, so_far: Any, n: int, inner: int, backwards: bool, factors: bool, start: int, stop: int
) -> None:
    for item in range(start, stop):
        total = so_far[item * inner : (item + 1) * inner]
        for j in range(total.size):
            total[j] = 1.0 if factors else 0.0
        for k in range(n):
            i = n - 1 - k if backwards else k
            at = (item * n + i) * inner
            xs, ys = x[at : at + inner], y[at : at + inner]
            if factors:
                for j in range(total.size):
                    total[j] *= xs[j]
                    ys[j] = total[j]
            else:
                for j in range(total.size):
                    total[j] += xs[j]
                    ys[j] = total[j]


@as_written
def _products(x: Any, y: Any, so_far: Any, n: int, inner: int, start: int, stop: int) -> None:
    """Along a row eight products at a time: each multiplication waits for the one before it."""
    for item in range(start, stop):
        total, ys = so_far[item * inner : (item + 1) * inner], y[item * inner : (item + 1) * inner]
        first, end = item * n * inner, (item + 1) * n * inner
        for j in range(inner):
            total[j] = 1.0
        if inner == 1:
            p, q, r, s, t, u, v, w = 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0
            eights = first + n // 8 * 8
            for i in range(first, eights, 8):
                xs = x[i : i + 8]
                p, q, r, s = p * xs[0], q * xs[1], r * xs[2], s * xs[3]
                t, u, v, w = t * xs[4], u * xs[5], v * xs[6], w * xs[7]
            for i in range(eights, end):
                p *= x[i]
            total[0] = ((p * q) * (r * s)) * ((t * u) * (v * w))
        else:
            for i in range(first, end, inner):
                xs = x[i : i + inner]
                for j in range(inner):
                    total[j] *= xs[j]
        for j in range(inner):
            ys[j] = total[j]
