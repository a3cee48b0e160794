"""Depthwise convolution on the host: each filter sees one channel, so that there is no product to make of it.

    y[n, o, i, j] = b[o] + Σ_{s,t} w[o, s, t] · x[n, ⌊o / m⌋, i·stride + s·dilation − pad, j·…],   m filters for a channel

A row of y stays in the first-level cache while w[o, s, t] times a row of x is added for every s and t, vectors at a time.
Threads share planes, an image's channel each, and for the weight's gradient filters. What a plane or a filter gets does not
depend on who computes it. (Loops count from 0 over slices: of other indices Numba asks whether they are negative.)
"""

from __future__ import annotations

from typing import Any

from kobai.cpu.lanes import dot
from kobai.engine.dispatch import as_written, compiled
from kobai.ops._rows import launch_split
from kobai.ops._windows import Windows
from kobai.xp import Array

GRAIN = 1 << 17
"""Multiplications that are worth a thread."""


def takes(w: Windows, groups: int, channels: int) -> bool:
    """Whether a convolution is depthwise, in one dimension or two."""
    return 1 < groups == channels and len(w.size) <= 2


def _numbers(w: Windows) -> tuple[int, ...]:
    """Stride, dilation and padding of rows and columns; an image of one dimension has one row."""
    if len(w.size) == 1:
        return 1, w.stride[0], 1, w.dilation[0], 0, w.pads[0][0]
    return *w.stride, *w.dilation, w.pads[0][0], w.pads[1][0]


def _planes(x: Array) -> Array:
    """(N · C, H, W) of (N, C, H, W) or (N, C, W)."""
    return x.reshape(-1, *((1,) if x.ndim == 3 else ()), *x.shape[2:])


def convolve(w: Windows, x: Array, weight: Array, bias: Array | None, y: Array) -> None:
    """y of x; arrays are contiguous."""
    taps = _planes(weight)
    given = y.reshape(-1)[:0] if bias is None else bias
    planes = x.shape[0] * taps.shape[0]
    launch_split(
        _forward, planes, y.size * taps[0].size, GRAIN, _planes(x), taps, given, _planes(y), x.shape[1], *_numbers(w)
    )


def convolve_transposed(w: Windows, dy: Array, weight: Array, dx: Array) -> None:
    """dx of dy."""
    taps = _planes(weight)
    planes = dx.shape[0] * dx.shape[1]
    launch_split(
        _backward, planes, dy.size * taps[0].size, GRAIN, _planes(dy), taps, _planes(dx), dx.shape[1], *_numbers(w)
    )


def weight_gradient(w: Windows, x: Array, dy: Array, dweight: Array) -> None:
    """dW of x and dy."""
    taps = _planes(dweight)
    launch_split(
        _weights, taps.shape[0], dy.size * taps[0].size, GRAIN, _planes(x), _planes(dy), taps, x.shape[1], *_numbers(w)
    )


@compiled
def _inside(size: int, out: int, stride: int, offset: int) -> Any:
    """The first and the last + 1 of the places 0 ≤ i < out with 0 ≤ i·stride + offset < size."""
    first = 0 if offset >= 0 else (stride - 1 - offset) // stride
    last = (size - 1 - offset) // stride + 1 if size - 1 - offset >= 0 else 0
    return min(first, out), max(min(last, out), min(first, out))


@compiled
def _forward(
    x: Any,
    w: Any,
    bias: Any,
    y: Any,
    channels: int,
    si: int,
    sj: int,
    di: int,
    dj: int,
    pi: int,
    pj: int,
    start: int,
    stop: int,
) -> None:
    filters = w.shape[0]
    for plane in range(start, stop):
        n, o = plane // filters, plane % filters
        image, result = x[n * channels + o * channels // filters], y[plane]
        for i in range(result.shape[0]):
            row = result[i]
            begin = bias[o] if bias.size else row.dtype.type(0)
            for j in range(row.size):
                row[j] = begin
            for s in range(w.shape[1]):
                at = i * si + s * di - pi
                if 0 <= at < image.shape[0]:
                    source = image[at]
                    for t in range(w.shape[2]):
                        offset = t * dj - pj
                        first, last = _inside(source.size, row.size, sj, offset)
                        tap = w[o, s, t]
                        here, there = row[first:last], source[first * sj + offset :]
                        if sj == 1:
                            for j in range(here.size):
                                here[j] += tap * there[j]
                        else:
                            for j in range(here.size):
                                here[j] += tap * there[j * sj]


@compiled
def _backward(
    dy: Any, w: Any, dx: Any, channels: int, si: int, sj: int, di: int, dj: int, pi: int, pj: int, start: int, stop: int
) -> None:
    each = w.shape[0] // channels
    for plane in range(start, stop):
        n, c = plane // channels, plane % channels
        image = dx[plane]
        for i in range(image.shape[0]):
            for j in range(image.shape[1]):
                image[i, j] = image.dtype.type(0)
        for o in range(c * each, (c + 1) * each):
            above = dy[n * w.shape[0] + o]
            for i in range(above.shape[0]):
                source = above[i]
                for s in range(w.shape[1]):
                    at = i * si + s * di - pi
                    if 0 <= at < image.shape[0]:
                        row = image[at]
                        for t in range(w.shape[2]):
                            offset = t * dj - pj
                            first, last = _inside(row.size, source.size, sj, offset)
                            tap = w[o, s, t]
                            here, there = source[first:last], row[first * sj + offset :]
                            if sj == 1:
                                for j in range(here.size):
                                    there[j] += tap * here[j]
                            else:
                                for j in range(here.size):
                                    there[j * sj] += tap * here[j]


@as_written
def _dot_strided(x: Any, y: Any, step: int) -> Any:
    """Σ xⱼ y[j·step]: four sums, and those in pairs."""
    a = b = c = d = x.dtype.type(0)
    fours = x.size // 4 * 4
    for j in range(0, fours, 4):
        a += x[j] * y[j * step]
        b += x[j + 1] * y[(j + 1) * step]
        c += x[j + 2] * y[(j + 2) * step]
        d += x[j + 3] * y[(j + 3) * step]
    for j in range(fours, x.size):
        a += x[j] * y[j * step]
    return (a + b) + (c + d)


@as_written
def _weights(
    x: Any, dy: Any, dw: Any, channels: int, si: int, sj: int, di: int, dj: int, pi: int, pj: int, start: int, stop: int
) -> None:
    """Each plane is summed in its own dtype, the planes' sums in float64."""
    filters = dw.shape[0]
    for o in range(start, stop):
        for s in range(dw.shape[1]):
            for t in range(dw.shape[2]):
                offset, total = t * dj - pj, 0.0
                for n in range(dy.shape[0] // filters):
                    above, image = dy[n * filters + o], x[n * channels + o * channels // filters]
                    first, last = _inside(image.shape[1], above.shape[1], sj, offset)
                    part = above.dtype.type(0)
                    for i in range(above.shape[0]):
                        at = i * si + s * di - pi
                        if 0 <= at < image.shape[0]:
                            here, there = above[i, first:last], image[at, first * sj + offset :]
                            if sj == 1:
                                part += dot(here, there)
                            else:
                                part += _dot_strided(here, there, sj)
                    total += part
                dw[o, s, t] = total
