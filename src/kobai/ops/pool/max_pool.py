"""Maxima of windows, with the place of each: twins of the passes in :mod:`kobai.ops._windows`, for one or two dimensions.

``taken`` holds, for each window, which element of the kernel met the maximum, counted row by row: the first of several equal
ones, and a NaN before any number, as in PyTorch. So backward needs neither input nor result, and reads each gradient once.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from kobai.cpu.tiles import greatest_of_pairs, machine, spread_pairs, width as vector_width
from kobai.engine.dispatch import HOST, HOST_TYPES, compiled, engine_for
from kobai.ops._positions import add_at
from kobai.ops._rows import launch_split
from kobai.ops._windows import Windows
from kobai.xp import Array, xp_of

MOST = 255
"""The largest kernel whose elements fit a byte."""

WIDE = 16
"""Windows in a row from which on vectors pay."""

GRAIN = 1 << 16
"""Elements of the input that are worth a thread; each is compared once per window that covers it."""


@lru_cache(maxsize=256)
def planar(w: Windows) -> tuple[int, ...] | None:
    """Windows in one or two dimensions as numbers for a compiled loop, None for more dimensions.

    (height, width) of input, kernel, stride, dilation, padding in front and output, in this order.
    """
    if len(w.size) > 2:
        return None
    first = (1, 1, 1, 1, 0, 1) if len(w.size) == 1 else None
    fields = zip(w.size, w.kernel, w.stride, w.dilation, [a for a, _ in w.pads], w.out, strict=True)
    rows, columns = (first, *fields) if first is not None else fields
    return tuple(int(number) for pair in zip(rows, columns, strict=True) for number in pair)


def has_twin(x: Array, w: Windows) -> bool:
    """Whether the compiled loops take this input."""
    return x.size > 0 and len(w.size) <= 2 and prod(w.kernel) <= MOST and engine_for((x,)) == HOST


def forward(x: Array, w: Windows) -> tuple[Array, Array]:
    """(y, taken) of x (…, *size), both (…, *out)."""
    xp, lead = xp_of(x), x.shape[: -len(w.size)]
    y, taken = xp.empty((*lead, *w.out), x.dtype), xp.empty((*lead, *w.out), np.uint8)
    _by_planes(_maxima_2x2 if _in_squares(w) else _maxima, w, x.reshape(-1), y.reshape(-1), taken.reshape(-1))
    return y, taken


def backward(dy: Array, taken: Array, w: Windows) -> Array:
    """dx (…, *size): each gradient where its maximum was taken from."""
    xp, lead = xp_of(dy), dy.shape[: -len(w.size)]
    if type(dy) not in HOST_TYPES:
        return add_at(xp.zeros((*lead, *w.size), dy.dtype), _positions(taken, w), dy)
    dy = xp.ascontiguousarray(dy)
    dx = xp.empty((*lead, *w.size), dy.dtype)
    _by_planes(_scatter_2x2 if _in_squares(w) else _scatter, w, dx.reshape(-1), dy.reshape(-1), taken.reshape(-1))
    return dx


def _positions(taken: Array, w: Windows) -> Array:
    """Where the maxima lie in the flattened input."""
    xp = xp_of(taken)
    height, width, _, kw, sh, sw, dh, dw, ph, pw, oh, ow = planar(w) or ()
    tap = taken.astype(np.int64).reshape(-1, oh, ow)
    rows = (xp.arange(oh) * sh - ph)[:, None] + tap // kw * dh
    return (xp.arange(tap.shape[0])[:, None, None] * height + rows) * width + xp.arange(ow) * sw - pw + tap % kw * dw


def _in_squares(w: Windows) -> bool:
    """Whether these are 2×2 windows side by side, the commonest kind, which is done a vector at a time."""
    side_by_side = w.kernel == w.stride == (2, 2) and w.dilation == (1, 1) and w.pads == ((0, 0),) * 2
    return side_by_side and _fit(w) and machine()[0] > 0


def _fit(w: Windows) -> bool:
    """Whether no window reaches beyond the input, as the last ones may with ``ceil_mode``."""
    return all(2 * n <= size for n, size in zip(w.out, w.size, strict=True))


def _by_planes(loop: Any, w: Windows, images: Array, windows: Array, taken: Array) -> None:
    size = prod(w.size)
    launch_split(loop, images.size // size, images.size, GRAIN, planar(w), images, windows, taken)


# --- compiled loops ---------------------------------------------------------------------------------------------------

_u = np.uint64  # places that cannot be negative, as Numba would count those from the end and not vectorise


@compiled
def _meet(image: Any, first: int, step: int, ys: Any, ts: Any, low: int, high: int, tap: int) -> None:
    """Windows ``low`` to ``high`` meet one more element each: window q that at ``first`` + q · ``step``."""
    number, inside, chosen = np.uint8(tap), ys[low:high], ts[low:high]
    part = image[first + low * step : first + low * step + max(0, (inside.size - 1) * step + 1)]
    if step == 1:
        for q in range(_u(inside.size)):
            v, best, was = part[q], inside[q], chosen[q]
            wins = (v > best) | (v != v)
            inside[q], chosen[q] = v if wins else best, number if wins else was
    else:
        for q in range(_u(inside.size)):
            v, best, was = part[q * _u(step)], inside[q], chosen[q]
            wins = (v > best) | (v != v)
            inside[q], chosen[q] = v if wins else best, number if wins else was


@compiled
def _meet_pairs(image: Any, first: int, ys: Any, ts: Any, low: int, high: int, tap: int) -> None:
    """Windows meet two neighbours each: window q those from ``first`` + 2q on. (One of two would not be read as vectors.)"""
    one, two, inside, chosen = np.uint8(tap), np.uint8(tap + 1), ys[low:high], ts[low:high]
    part = image[first + 2 * low : first + 2 * low + 2 * inside.size]
    for q in range(_u(inside.size)):
        v, best, was = part[_u(2) * q], inside[q], chosen[q]
        wins = (v > best) | (v != v)
        best, was = v if wins else best, one if wins else was
        v = part[_u(2) * q + _u(1)]
        wins = (v > best) | (v != v)
        inside[q], chosen[q] = v if wins else best, two if wins else was


@compiled
def _narrow(image: Any, geometry: Any, p: int, above: int, below: int, ys: Any, ts: Any) -> None:
    """A row of few windows, one window at a time: elements ``above`` to ``below`` of the kernel's columns are in the image."""
    _, width, _, kw, sh, sw, dh, dw, ph, pw, _, _ = geometry
    for q in range(ys.size):
        left = q * sw - pw
        first, last = max(0, -left if dw == 1 else -(left // dw)), width - 1 - left
        last = min(kw, (last if dw == 1 else last // dw) + 1)
        best, tap = image.dtype.type(-np.inf), above * kw + first
        for i in range(above, below):
            at = (p * sh + i * dh - ph) * width + left
            for j in range(first, last):
                v = image[at + j * dw]
                wins = (v > best) | (v != v)
                best, tap = v if wins else best, i * kw + j if wins else tap
        ys[q], ts[q] = best, tap


@compiled
def _maxima(geometry: Any, x: Any, y: Any, taken: Any, start: int, stop: int) -> None:
    """One kernel element at a time, or two, for a whole row of windows, which vectorises.

    A window begins with −∞ at its first element within the image, where it stays if there is nothing greater. The last of
    three elements in a row of the kernel comes with the second once more, which changes nothing.
    """
    height, width, kh, kw, sh, sw, dh, dw, ph, pw, oh, ow = geometry
    least, pairs = x.dtype.type(-np.inf), sw == 2 and dw == 1 and kw > 1
    for plane in range(start, stop):
        image = x[plane * height * width : (plane + 1) * height * width]
        for p in range(oh):
            ys = y[(plane * oh + p) * ow : (plane * oh + p + 1) * ow]
            ts = taken[(plane * oh + p) * ow : (plane * oh + p + 1) * ow]
            above, below = max(0, -((p * sh - ph) // dh)), min(kh, (height - 1 - p * sh + ph) // dh + 1)
            if ow < WIDE:
                _narrow(image, geometry, p, above, below, ys, ts)
                continue
            for q in range(_u(ow)):
                ys[q], ts[q] = least, above * kw
            for q in range(min(ow, pw // sw + 1)):
                ts[q] = above * kw + max(0, -((q * sw - pw) // dw))
            for i in range(above, below):
                row = (p * sh + i * dh - ph) * width
                before = end = 0
                for j in range(kw):
                    shift = j * dw - pw  # window q meets column q · sw + shift of the image, if there is one
                    low = min(ow, max(0, -(shift // sw)))
                    high = max(low, min(ow, (width - 1 - shift) // sw + 1))
                    if not pairs:
                        _meet(image, row + shift, sw, ys, ts, low, high, i * kw + j)
                    elif j % 2 or j == kw - 1:  # with the element before it, which windows ``before`` to ``end`` meet
                        _meet_pairs(image, row + shift - 1, ys, ts, before, max(before, high), i * kw + j - 1)
                        if high < end:
                            _meet(image, row + shift - 1, 2, ys, ts, max(high, before), end, i * kw + j - 1)
                        if low < before:
                            _meet(image, row + shift, 2, ys, ts, low, min(before, high), i * kw + j)
                    before, end = low, high


@compiled
def _scatter(geometry: Any, dx: Any, dy: Any, taken: Any, start: int, stop: int) -> None:
    height, width, _, kw, sh, sw, dh, dw, ph, pw, oh, ow = geometry
    for plane in range(start, stop):
        image = dx[plane * height * width : (plane + 1) * height * width]
        for k in range(image.size):
            image[k] = 0
        for p in range(oh):
            ds = dy[(plane * oh + p) * ow : (plane * oh + p + 1) * ow]
            ts = taken[(plane * oh + p) * ow : (plane * oh + p + 1) * ow]
            corner = (p * sh - ph) * width - pw
            for q in range(ow):
                tap = np.int64(ts[q])
                i = tap // kw
                image[corner + i * dh * width + q * sw + (tap - i * kw) * dw] += ds[q]


@compiled
def _maxima_2x2(geometry: Any, x: Any, y: Any, taken: Any, start: int, stop: int) -> None:
    """A vector of windows at a time; the last one in a row may begin within the one before it."""
    height, width, oh, ow = geometry[0], geometry[1], geometry[10], geometry[11]
    size = x.itemsize
    lanes = vector_width() // size
    for plane in range(start, stop):
        for p in range(oh):
            above = x.ctypes.data + (plane * height + 2 * p) * width * size
            windows = (plane * oh + p) * ow
            for q in range(0, ow, lanes):
                first = max(0, min(q, ow - lanes))
                here, at = above + 2 * first * size, windows + first
                greatest_of_pairs(
                    size, here, here + width * size, y.ctypes.data + at * size, taken.ctypes.data + at, ow - first
                )


@compiled
def _scatter_2x2(geometry: Any, dx: Any, dy: Any, taken: Any, start: int, stop: int) -> None:
    """Writes each element of the image, a vector at a time, as _maxima_2x2 reads it."""
    height, width, oh, ow = geometry[0], geometry[1], geometry[10], geometry[11]
    size = dx.itemsize
    lanes = vector_width() // size
    for plane in range(start, stop):
        for p in range(oh):
            above = dx.ctypes.data + (plane * height + 2 * p) * width * size
            windows = (plane * oh + p) * ow
            for q in range(0, ow, lanes):
                first = max(0, min(q, ow - lanes))
                d, tap = dy.ctypes.data + (windows + first) * size, taken.ctypes.data + windows + first
                for row in range(2):
                    target = above + (row * width + 2 * first) * size
                    spread_pairs(size, d, tap, target, 2 * row, ow - first)
            if 2 * ow < width:  # an odd last column
                for row in range(2):
                    dx[(plane * height + 2 * p + row + 1) * width - 1] = 0
        for k in range((plane * height + 2 * oh) * width, (plane + 1) * height * width):
            dx[k] = 0
