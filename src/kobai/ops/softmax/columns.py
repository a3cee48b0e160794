"""Softmax and its logarithm down columns, of x seen as (outer, n, inner): compiled loops along ``inner``, no transposed copy.

Columns go side by side, ``WIDE`` at a time so that their sums stay in the first-level cache; each is computed as if it were
alone, first with m = 0 (``kernel.py``). Sums are over ``TALL`` rows, and of these in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.engine.dispatch import compiled
from kobai.engine.exponential import exp
from kobai.engine.logarithm import log as logarithm
from kobai.ops._rows import EXPONENTIALS, LEAST, MOST, launch_split, less
from kobai.xp import Array, xp_of

NARROW, SMALL = 8, 512
"""From so many columns side by side on; fewer do not fill a vector. Up to so many elements, copies cost more than that."""

WIDE, TALL = 1024, 64


def fits(shape: tuple[int, ...], axis: int) -> bool:
    """Whether these loops are faster than those along rows with transposed copies."""
    return math.prod(shape[axis + 1 :]) >= NARROW or math.prod(shape) <= SMALL


def columns(loop: Callable[..., Any], axis: int, *args: Array) -> Array:
    """What a loop of this file makes of contiguous arrays of one shape and float dtype, along ``axis``."""
    first = args[0]
    xp, shape, dtype = xp_of(first), first.shape, first.dtype
    n, inner = shape[axis], math.prod(shape[axis + 1 :])
    outer = first.size // (n * inner)
    y = xp.empty(shape, dtype)
    each = outer * inner
    m, part, s = xp.empty(each, dtype), xp.empty(each, dtype), xp.empty(each, np.float64)
    flat = [arg.reshape(-1) for arg in (*args, y)]
    launch_split(loop, outer * -(-inner // WIDE), first.size, EXPONENTIALS, *flat, m, part, s, n, inner)
    return y


@compiled
def _place(item: int, n: int, inner: int) -> tuple[int, int, int]:
    """Of the columns that go side by side: where their first row begins, their place among all columns, and how many."""
    chunks = (inner + WIDE - 1) // WIDE
    outer, left = item // chunks, item % chunks * WIDE
    return outer * n * inner + left, outer * inner + left, min(WIDE, inner - left)


@compiled
def _add_up(x: Any, y: Any, kept: bool, at: int, m: Any, part: Any, s: Any, n: int, inner: int) -> None:
    """s ← Σ e^(x − m), whose terms are ``kept`` in y or not."""
    zero = x.dtype.type(0)
    for j in range(s.size):
        s[j] = 0
    for first in range(0, n, TALL):
        for j in range(part.size):
            part[j] = zero
        for i in range(first, min(first + TALL, n)):
            here = at + i * inner
            xs = x[here : here + m.size]
            if kept:
                ys = y[here : here + m.size]
                for j in range(m.size):
                    power = exp(xs[j] - m[j])
                    ys[j] = power
                    part[j] += power
            else:
                for j in range(m.size):
                    part[j] += exp(xs[j] - m[j])
        for j in range(s.size):
            s[j] += part[j]


@compiled
def _totals(x: Any, y: Any, kept: bool, at: int, m: Any, part: Any, s: Any, n: int, inner: int) -> None:
    """m and s ← Σ e^(x − m) of each column: m is 0 where that will do, else the maximum."""
    zero = x.dtype.type(0)
    for j in range(m.size):
        m[j] = zero
    _add_up(x, y, kept, at, m, part, s, n, inner)
    fit = 0
    for j in range(s.size):
        fit += 1 if (s[j] > LEAST) & (s[j] < MOST) else 0
    if n > 1 and fit == s.size:
        return
    for j in range(m.size):
        m[j] = x[at + j]
    for i in range(1, n):
        xs = x[at + i * inner : at + i * inner + m.size]
        for j in range(m.size):
            m[j] = xs[j] if xs[j] > m[j] else m[j]
    for j in range(m.size):
        m[j] = zero if (n > 1) & (s[j] > LEAST) & (s[j] < MOST) else m[j]
    _add_up(x, y, kept, at, m, part, s, n, inner)


@compiled
def softmax(x: Any, y: Any, tops: Any, parts: Any, sums: Any, n: int, inner: int, start: int, stop: int) -> None:
    for item in range(start, stop):
        at, column, width = _place(item, n, inner)
        m, share, s = tops[column : column + width], parts[column : column + width], sums[column : column + width]
        _totals(x, y, True, at, m, share, s, n, inner)
        for j in range(s.size):
            share[j] = 1 / s[j]
        for i in range(n):
            ys = y[at + i * inner : at + i * inner + width]
            for j in range(share.size):
                ys[j] *= share[j]


@compiled
def softmax_backward(
    dy: Any, y: Any, dx: Any, tops: Any, parts: Any, sums: Any, n: int, inner: int, start: int, stop: int
) -> None:
    _backward(dy, y, dx, False, parts, sums, n, inner, start, stop)


@compiled
def log_softmax(x: Any, y: Any, tops: Any, parts: Any, sums: Any, n: int, inner: int, start: int, stop: int) -> None:
    number = x.dtype.type
    for item in range(start, stop):
        at, column, width = _place(item, n, inner)
        m, rest, s = tops[column : column + width], parts[column : column + width], sums[column : column + width]
        _totals(x, y, False, at, m, rest, s, n, inner)
        for j in range(s.size):
            log = logarithm(s[j])
            if m[j] == 0:  # ln s in two parts, as in rows
                m[j] = number(log)
                log -= np.float64(m[j])
            rest[j] = log
        for i in range(n):
            xs, ys = x[at + i * inner : at + i * inner + width], y[at + i * inner : at + i * inner + width]
            for j in range(rest.size):
                value = less(xs[j], m[j], rest[j])
                ys[j] = number(0) if value > number(0) else value


@compiled
def log_softmax_backward(
    dy: Any, y: Any, dx: Any, tops: Any, parts: Any, sums: Any, n: int, inner: int, start: int, stop: int
) -> None:
    _backward(dy, y, dx, True, parts, sums, n, inner, start, stop)


@compiled
def _backward(
    dy: Any, y: Any, dx: Any, log: bool, parts: Any, sums: Any, n: int, inner: int, start: int, stop: int
) -> None:
    """Of the ``log`` or of softmax itself."""
    zero = y.dtype.type(0)
    for item in range(start, stop):
        at, column, width = _place(item, n, inner)
        part, s = parts[column : column + width], sums[column : column + width]
        for j in range(s.size):
            s[j] = 0
        for first in range(0, n, TALL):
            for j in range(part.size):
                part[j] = zero
            for i in range(first, min(first + TALL, n)):
                ds, ys = dy[at + i * inner : at + i * inner + width], y[at + i * inner : at + i * inner + width]
                if log:
                    for j in range(part.size):
                        part[j] += ds[j]
                else:
                    for j in range(part.size):
                        part[j] += ds[j] * ys[j]
            for j in range(s.size):
                s[j] += part[j]
        for j in range(s.size):
            part[j] = s[j]
        for i in range(n):
            ds, ys = dy[at + i * inner : at + i * inner + width], y[at + i * inner : at + i * inner + width]
            out = dx[at + i * inner : at + i * inner + width]
            if log:
                for j in range(part.size):
                    out[j] = ds[j] - exp(ys[j]) * part[j]
            else:
                for j in range(part.size):
                    out[j] = ys[j] * (ds[j] - part[j])
