"""Maxima of windows, with the place of each: twins of the passes in :mod:`kobai.ops._windows`, for one or two dimensions.

``taken`` holds, for each window, which element of the kernel met the maximum, counted row by row: the first of several equal
ones, and a NaN before any number, as in PyTorch. So backward needs neither input nor result, and reads each gradient once.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from kobai.cpu.tiles import machine, spread_pairs, width as vector_width
from kobai.engine.dispatch import HOST, HOST_TYPES, compiled, engine_for
from kobai.ops._positions import add_at
from kobai.ops._rows import launch_split
from kobai.ops._windows import Windows
from kobai.xp import Array, xp_of

MOST = 255
"""The largest kernel whose elements fit a byte; one value means "none yet"."""

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
    _by_planes(_maxima_2x2 if _is_2x2(w) else _maxima, w, x.reshape(-1), y.reshape(-1), taken.reshape(-1))
    return y, taken


def backward(dy: Array, taken: Array, w: Windows) -> Array:
    """dx (…, *size): each gradient where its maximum was taken from."""
    xp, lead = xp_of(dy), dy.shape[: -len(w.size)]
    if type(dy) not in HOST_TYPES:
        return add_at(xp.zeros((*lead, *w.size), dy.dtype), _positions(taken, w), dy)
    dy = xp.ascontiguousarray(dy)
    dx = xp.empty((*lead, *w.size), dy.dtype)
    _by_planes(
        _scatter_2x2 if _is_2x2(w) and machine()[0] else _scatter, w, dx.reshape(-1), dy.reshape(-1), taken.reshape(-1)
    )
    return dx


def _positions(taken: Array, w: Windows) -> Array:
    """Where the maxima lie in the flattened input."""
    xp = xp_of(taken)
    height, width, _, kw, sh, sw, dh, dw, ph, pw, oh, ow = planar(w) or ()
    tap = taken.astype(np.int64).reshape(-1, oh, ow)
    rows = (xp.arange(oh) * sh - ph)[:, None] + tap // kw * dh
    return (xp.arange(tap.shape[0])[:, None, None] * height + rows) * width + xp.arange(ow) * sw - pw + tap % kw * dw


def _is_2x2(w: Windows) -> bool:
    """Whether these are 2×2 windows side by side, the commonest kind, whose loop is six times as fast."""
    return w.kernel == w.stride == (2, 2) and w.dilation == (1, 1) and w.pads == ((0, 0),) * 2 and _fit(w)


def _fit(w: Windows) -> bool:
    """Whether no window reaches beyond the input, as the last ones may with ``ceil_mode``."""
    return all(2 * n <= size for n, size in zip(w.out, w.size, strict=True))


def _by_planes(loop: Any, w: Windows, images: Array, windows: Array, taken: Array) -> None:
    size = prod(w.size)
    launch_split(loop, images.size // size, images.size, GRAIN, planar(w), images, windows, taken)


# --- compiled loops ---------------------------------------------------------------------------------------------------


@compiled
def _maxima(geometry: Any, x: Any, y: Any, taken: Any, start: int, stop: int) -> None:
    """One kernel element at a time for a whole row of windows, which vectorises."""
    height, width, kh, kw, sh, sw, dh, dw, ph, pw, oh, ow = geometry
    for plane in range(start, stop):
        image = x[plane * height * width : (plane + 1) * height * width]
        for p in range(oh):
            ys = y[(plane * oh + p) * ow : (plane * oh + p + 1) * ow]
            ts = taken[(plane * oh + p) * ow : (plane * oh + p + 1) * ow]
            for q in range(ow):
                ts[q] = 255
            for i in range(kh):
                row = p * sh + i * dh - ph
                if row < 0 or row >= height:
                    continue
                for j in range(kw):
                    shift = j * dw - pw  # window q meets column q · sw + shift of the image, if there is one
                    low = min(ow, max(0, -(shift // sw)))
                    high = max(low, min(ow, (width - 1 - shift) // sw + 1))
                    inside, chosen = ys[low:high], ts[low:high]
                    tap = np.uint8(i * kw + j)
                    first = row * width + low * sw + shift
                    part = image[first : first + max(0, (inside.size - 1) * sw + 1)]
                    if sw == 2:
                        for q in range(inside.size):
                            v, best = part[2 * q], inside[q]
                            wins = (v > best) | (v != v) | (chosen[q] == 255)
                            inside[q] = v if wins else best
                            chosen[q] = tap if wins else chosen[q]
                    else:
                        for q in range(inside.size):
                            v, best = part[q * sw], inside[q]
                            wins = (v > best) | (v != v) | (chosen[q] == 255)
                            inside[q] = v if wins else best
                            chosen[q] = tap if wins else chosen[q]


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


_u = np.uint64  # places that cannot be negative, as Numba would count those from the end and not vectorise


@compiled
def _maxima_2x2(geometry: Any, x: Any, y: Any, taken: Any, start: int, stop: int) -> None:
    height, width, oh, ow = geometry[0], geometry[1], geometry[10], geometry[11]
    for plane in range(start, stop):
        for p in range(oh):
            first = (plane * height + 2 * p) * width
            above, below = x[first : first + width], x[first + width : first + 2 * width]
            ys, ts = y[(plane * oh + p) * ow : (plane * oh + p + 1) * ow], taken[(plane * oh + p) * ow :]
            for q in range(_u(ow)):
                best, tap = above[_u(2) * q], 0
                v = above[_u(2) * q + _u(1)]
                wins = (v > best) | (v != v)
                best, tap = v if wins else best, 1 if wins else tap
                v = below[_u(2) * q]
                wins = (v > best) | (v != v)
                best, tap = v if wins else best, 2 if wins else tap
                v = below[_u(2) * q + _u(1)]
                wins = (v > best) | (v != v)
                ys[q], ts[q] = v if wins else best, 3 if wins else tap


@compiled
def _scatter_2x2(geometry: Any, dx: Any, dy: Any, taken: Any, start: int, stop: int) -> None:
    """Writes each element of the image once, a vector at a time."""
    height, width, oh, ow = geometry[0], geometry[1], geometry[10], geometry[11]
    size = dx.itemsize
    lanes = vector_width() // size
    for plane in range(start, stop):
        for p in range(oh):
            above = dx.ctypes.data + (plane * height + 2 * p) * width * size
            windows = (plane * oh + p) * ow
            for q in range(0, ow, lanes):
                d, tap = dy.ctypes.data + (windows + q) * size, taken.ctypes.data + windows + q
                for row in range(2):
                    target = above + (row * width + 2 * q) * size
                    spread_pairs(size, d, tap, target, 2 * row, ow - q)
            if 2 * ow < width:  # an odd last column
                for row in range(2):
                    dx[(plane * height + 2 * p + row + 1) * width - 1] = 0
        for k in range((plane * height + 2 * oh) * width, (plane + 1) * height * width):
            dx[k] = 0
