"""Convolution on the host as products of Kobai's own (:mod:`kobai.cpu.product`), in parts that threads share.

The columns X of an image (see :mod:`kobai.ops.conv.kernel`) are nothing but its elements at other places: the one of
channel c, of the kernel's element t, in window q lies at ``c·plane + tap[t] + window[q]`` of the padded image. For any stride,
dilation and number of dimensions ``window`` goes in even steps along a *line*, the last dimension of the result. So columns
are made line by line, vectors at a time, for as many lines of an image – or as many images, if they are small – as a cache has
room for; a product follows while they are there.

An image's result does not depend on which part it is in, and the weight's gradient is the sum of ``SHARES`` of the images, in
order: bits depend on the arrays, not on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import product as combinations
from math import prod
from typing import Any

import numpy as np

from kobai.cpu import team
from kobai.cpu.product import cut, multiply
from kobai.cpu.team import give_way, load, replace, store
from kobai.cpu.threads import num_threads, share_job
from kobai.cpu.tiles import add_lines, add_one, clear_vector, copy_lines, copy_one, copy_some, spread_some, width
from kobai.engine.dispatch import as_written, compiled, entry
from kobai.ops._windows import Windows
from kobai.xp import Array

ROOM = 1 << 19
"""Bytes of columns that are made at a time: half of a second-level cache."""

FEWEST = 128
"""Columns of a product at least: the weight is read once for each."""

SHARES = 16
"""Shares of the images whose weight gradients are summed up one after the other."""

PER_THREAD = 4
"""Parts for each thread, lest all wait for one that is held up."""

FORWARD, BACKWARD, WEIGHTS = range(3)
"""The three products of a convolution."""

# What a job says, after what every job says. Sizes are numbers of elements.
(KIND, SIZE, IMAGES, GROUPS, CHANNELS, FILTERS, TAPS, WINDOWS, LINE, STRIDE, PLANE, INPUT, INPUT_LINE, PADDED, DIRECT, TOGETHER,
 AT_ONCE, TAP, START, INPUT_START, ROOMS, ROOM_COUNT, ROOM_BYTES, COLUMNS, OTHER, X, WEIGHT, Y, BIAS, YIELD) = (
    team.HEADER + 8 * i for i in range(30)
)  # fmt: skip


# --- rows ---------------------------------------------------------------------------------------------------------------


@compiled
def copy_row(size: int, source: int, target: int, count: int) -> None:
    """So many numbers."""
    lanes = width() // size
    for i in range(0, count, lanes):
        copy_some(size, source + i * size, target + i * size, count - i)


@compiled
def fill_row(size: int, source: int, target: int, count: int) -> None:
    """One number everywhere."""
    lanes = width() // size
    for i in range(0, count, lanes):
        spread_some(size, source, target + i * size, count - i)


@as_written
def visit_lines(
    size: int, image: int, places: int, first: int, last: int, stride: int, dense: int, line: int, add: int
) -> None:
    """Numbers of an image that lie ``stride`` elements apart, line by line, to where they lie without gaps; or added back."""
    if stride == 1 and add:
        add_lines(size, image, places, first, last, dense, line)
    elif stride == 1:
        copy_lines(size, image, places, first, last, dense, line)
    else:
        for j in range(first, last):
            here, there = image + load(places + 8 * j) * size, dense + (j - first) * line * size
            for i in range(line):
                if add:
                    add_one(size, there + i * size, here + i * stride * size)
                else:
                    copy_one(size, here + i * stride * size, there + i * size)


@compiled
def clear(target: int, bytes: int) -> None:
    """Zeros, a few more than are asked for."""
    for i in range(0, bytes, width()):
        clear_vector(target + i)


# --- columns ------------------------------------------------------------------------------------------------------------


@compiled
def take_room(job: int) -> Any:
    """The number of a room that no other thread has; if there are more threads than rooms, when one is free."""
    flags, looks = load(job + ROOMS), 0
    while True:
        for i in range(load(job + ROOM_COUNT)):
            if replace(flags + 64 * i, 0, 1):
                return i
        looks += 1
        if looks % 32 == 0:
            give_way(load(job + YIELD))


@compiled
def padded(job: int, image: int, count: int, room: int) -> Any:
    """Where images from the number ``image`` on lie with their padding: in ``room``, or where they are if there is none."""
    size, inner, channels = load(job + SIZE), load(job + INPUT), load(job + CHANNELS)
    source = load(job + X) + image * channels * inner * size
    if load(job + PADDED) == 0:
        return source
    line, plane, starts = load(job + INPUT_LINE), load(job + PLANE), load(job + INPUT_START)
    for i in range(count * channels):
        for j in range(inner // line):
            to = room + (i * plane + load(starts + 8 * j)) * size
            copy_row(size, source + (i * inner + j * line) * size, to, line)
    return room


@compiled
def unpadded(job: int, image: int, count: int, room: int) -> None:
    """Write images from the number ``image`` on, whose padded ones are in ``room``."""
    size, inner, channels = load(job + SIZE), load(job + INPUT), load(job + CHANNELS)
    target = load(job + X) + image * channels * inner * size
    line, plane, starts = load(job + INPUT_LINE), load(job + PLANE), load(job + INPUT_START)
    for i in range(count * channels):
        for j in range(inner // line):
            source = room + (i * plane + load(starts + 8 * j)) * size
            copy_row(size, source, target + (i * inner + j * line) * size, line)


@as_written
def visit(job: int, images: int, count: int, first: int, last: int, columns: int, add: int) -> None:
    """Make the columns of the lines from ``first`` to ``last`` of padded images, a row for each channel and element of the
    kernel; or add what is there to the images, if ``add`` is not 0.
    """
    size, channels, taps, plane = load(job + SIZE), load(job + CHANNELS), load(job + TAPS), load(job + PLANE)
    line, stride, tap, start = load(job + LINE), load(job + STRIDE), load(job + TAP), load(job + START)
    at = columns
    for c in range(channels):
        for t in range(taps):
            for i in range(count):
                base = images + ((i * channels + c) * plane + load(tap + 8 * t)) * size
                visit_lines(size, base, start, first, last, stride, at, line, add)
                at += (last - first) * line * size


@compiled
def rows(job: int, image: int, count: int, other: int, back: int) -> None:
    """The filters' rows of several images, each beside the other: from y to ``other``, or ``back``."""
    size, filters, windows = load(job + SIZE), load(job + FILTERS), load(job + WINDOWS)
    for o in range(filters):
        for i in range(count):
            y = load(job + Y) + ((image + i) * filters + o) * windows * size
            there = other + (o * count + i) * windows * size
            if back:
                copy_row(size, there, y, windows)
            else:
                copy_row(size, y, there, windows)


# --- the three products -------------------------------------------------------------------------------------------------


@entry
def convolution(job: int, part: int, scratch: int) -> None:
    """A part of the images of y ← W·X + b (FORWARD), or of dx ← the columns Wᵀ·dy, added up where they come from (BACKWARD);
    a share of dWᵀ ← Σ X·dyᵀ (WEIGHTS).
    """
    kind, size, groups = load(job + KIND), load(job + SIZE), load(job + GROUPS)
    channels, filters, windows = load(job + CHANNELS), load(job + FILTERS), load(job + WINDOWS)
    depth, each = channels // groups * load(job + TAPS), filters // groups
    line, at_once, direct = load(job + LINE), load(job + AT_ONCE), load(job + DIRECT)
    weights, bias, add = load(job + WEIGHT), load(job + BIAS), 0
    if kind == WEIGHTS:
        weights += part * groups * depth * each * size
    number = take_room(job)
    flag = load(job + ROOMS) + 64 * number
    room = load(job + ROOMS) + 64 * load(job + ROOM_COUNT) + number * load(job + ROOM_BYTES)
    columns, other = room + load(job + COLUMNS), room + load(job + OTHER)
    n, parts, together = load(job + IMAGES), load(job + team.PARTS), load(job + TOGETHER)
    blocks = -(-n // together)
    for block in range(cut(blocks, part, parts, 1), cut(blocks, part + 1, parts, 1)):
        image = block * together
        count = min(together, n - image)
        images = room
        if direct or kind != BACKWARD:
            images = padded(job, image, count, room)
        else:
            clear(room, count * channels * load(job + PLANE) * size)
        if together > 1 and kind != FORWARD:
            rows(job, image, count, other, 0)
        for first in range(0, windows // line, at_once):
            last = min(first + at_once, windows // line)
            wide = count * (last - first) * line
            x = columns
            if direct:
                x = images
            elif kind != BACKWARD:
                visit(job, images, count, first, last, columns, 0)
            y, y_row = load(job + Y) + (image * filters * windows + first * line) * size, windows * size
            if together > 1:
                y, y_row = other, wide * size
            x_row, w_row = wide * size, depth * size
            for g in range(groups):
                weight = weights + g * each * w_row
                left, right = x + g * depth * x_row, y + g * each * y_row
                if kind == FORWARD:
                    if bias:
                        for o in range(each):
                            fill_row(size, bias + (g * each + o) * size, right + o * y_row, wide)
                    multiply(
                        size, each, wide, depth, weight, w_row, size, left, x_row, size, right, y_row, bias, scratch
                    )
                elif kind == BACKWARD:
                    multiply(size, depth, wide, each, weight, size, w_row, right, y_row, size, left, x_row, 0, scratch)
                else:
                    row = each * size
                    multiply(size, depth, each, wide, left, x_row, size, right, size, y_row, weight, row, add, scratch)
            add = 1
            if kind == BACKWARD and not direct:
                visit(job, room, count, first, last, columns, 1)
        if kind == FORWARD and together > 1:
            rows(job, image, count, other, 1)
        if kind == BACKWARD and not direct:
            unpadded(job, image, count, room)
    store(flag, 0)


@as_written
def add_shares(shares: Any, out: Any) -> None:
    """dW (groups, O / groups, C·k) ← the sum of shares (·, groups, C·k, O / groups)."""
    n, groups, depth, each = shares.shape
    for g in range(groups):
        for o in range(each):
            for r in range(depth):
                total = shares[0, g, r, o]
                for i in range(1, n):
                    total += shares[i, g, r, o]
                out[g, o, r] = total


# --- jobs ---------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def places(w: Windows) -> tuple[Array, Array, Array]:
    """Where, in a padded image, lie: the kernel's elements in the first window; the lines of windows; those of the input."""
    steps = [prod(w.padded[i + 1 :]) for i in range(len(w.padded))]

    def at(positions: list[list[int]]) -> Array:
        found = [sum(i * step for i, step in zip(p, steps, strict=True)) for p in combinations(*positions)]
        return np.array(found, np.int64)

    def begin(shift: int, step: int, n: int, axis: int) -> list[int]:
        return [shift + i * step for i in range(n if axis < len(steps) - 1 else 1)]

    return (
        at([[i * step for i in range(n)] for n, step in zip(w.kernel, w.dilation, strict=True)]),
        at([begin(0, w.stride[axis], w.out[axis], axis) for axis in range(len(steps))]),
        at([begin(w.pads[axis][0], 1, w.size[axis], axis) for axis in range(len(steps))]),
    )


class Convolution(team.Job):
    """One of the three as a job, with the memory that its threads need. ``weight``: W, or the shares of its gradient."""

    def __init__(
        self, kind: int, w: Windows, groups: int, x: Array, weight: Array, y: Array, bias: Array | None = None,
        shares: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(30)
        size, (n, channels), filters = x.itemsize, x.shape[:2], y.shape[1]
        kernel, windows, line, plane = prod(w.kernel), prod(w.out), w.out[-1], prod(w.padded)
        depth = channels * kernel
        together, at_once = blocks_of(w, n, depth, size)
        direct = w.is_pointwise and together == 1
        self.parts = shares or min(-(-n // together), PER_THREAD * num_threads())
        # A thread's memory: padded images, columns, the filters' rows of several images; room for a vector after each.
        wide, padded = together * at_once * line, w.padded != w.size
        starts, end = [], 0
        for needed, elements in (
            (not direct and (padded or kind == BACKWARD), together * channels * plane),
            (not direct, depth * wide),
            (together > 1, filters * wide),
        ):
            starts.append(end)
            end += (-(-elements * size // 64) + 1) * 64 if needed else 0
        count = min(self.parts, num_threads())
        memory = np.zeros(count * (64 + end) + 64, np.uint8)
        flags = -(-memory.ctypes.data // 64) * 64
        tables = places(w)
        self.memory[:] = (
            convolution.address, self.parts, n * windows * filters * depth // groups,
            kind, size, n, groups, channels, filters, kernel, windows, line, w.stride[-1], plane, prod(w.size), w.size[-1],
            padded, direct, together, at_once, *(table.ctypes.data for table in tables), flags, count, end, *starts[1:],
            x.ctypes.data, weight.ctypes.data, y.ctypes.data, 0 if bias is None else bias.ctypes.data, team.yield_address(),
        )  # fmt: skip
        self.keeps = (x, weight, y, bias, memory, *tables)


def blocks_of(w: Windows, images: int, depth: int, size: int) -> tuple[int, int]:
    """(images, lines) whose columns are made at once: those of several small images, or some lines of a large one."""
    windows, line = prod(w.out), w.out[-1]
    if windows < FEWEST:
        together = max(1, min(-(-FEWEST // windows), ROOM // (depth * windows * size), images))
        return together, windows // line
    if w.is_pointwise:
        return 1, windows // line
    lines = max(-(-FEWEST // line), ROOM // (depth * line * size))
    return 1, min(lines, windows // line)


class _Kernel:
    """A convolution for ``launch``: bound to its arrays it needs no more than to be run."""

    def __init__(self, bind: Callable[..., Callable[[], None]]) -> None:
        self.bind = bind

    def __call__(self, *args: Any) -> None:
        self.bind(*args)()


@_Kernel
def convolve(w: Windows, groups: int, x: Array, weight: Array, bias: Array | None, y: Array) -> Callable[[], None]:
    """y ← the windows of x times the weight (O, C / groups, *kernel), plus the bias."""
    return partial(share_job, Convolution(FORWARD, w, groups, x, weight, y, bias))


@_Kernel
def convolve_transposed(w: Windows, groups: int, dy: Array, weight: Array, dx: Array) -> Callable[[], None]:
    """dx ← what :func:`convolve` makes of it, transposed."""
    return partial(share_job, Convolution(BACKWARD, w, groups, dx, weight, dy))


@_Kernel
def weight_gradient(w: Windows, groups: int, x: Array, dy: Array, out: Array) -> Callable[[], None]:
    """out (O, C / groups, *kernel) ← Σ dy·Xᵀ."""
    n, each, depth = x.shape[0], out.shape[0] // groups, prod(out.shape[1:])
    blocks = -(-n // blocks_of(w, n, depth * groups, x.itemsize)[0])
    shares = np.empty((min(SHARES, blocks), groups, depth, each), x.dtype)
    job = Convolution(WEIGHTS, w, groups, x, shares, dy, shares=len(shares))
    total = out.reshape(groups, each, depth)

    def run() -> None:
        share_job(job)
        add_shares(shares, total)

    return run
