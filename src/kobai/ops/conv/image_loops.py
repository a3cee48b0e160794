"""Convolution on the host as products of Kobai's own (:mod:`kobai.cpu.product`), in parts that threads share.

Each window of an image becomes a column of a matrix X, and a convolution is the product of the weight with it. A kernel of 2×2
over an image of 3×4, which has 2×3 windows:

    a b c d         X = a b c | e f g     element t = 0 of the kernel in each window
    e f g h             b c d | f g h     t = 1
    i j k l             e f g | i j k     t = 2         W (filters × 4) · X (4 × 6) = y (filters × 6)
                        f g h | j k l     t = 3
                        line 0| line 1

The columns are nothing but the image's elements at other places: the one of channel c, of the kernel's element t, in window q
lies at ``c·plane + tap[t] + window[q]`` of the padded image. For any stride, dilation and number of dimensions ``window`` goes
in even steps along a *line*, the last dimension of the result. So a row of X is copied line by line, vectors at a time, for as
many lines of an image – or as many small images – as fit the cache; the product follows while they are there.
The three products of a convolution (see :mod:`kobai.ops.conv.kernel`) share all this:

    FORWARD    image -> pad -> columns -> y = W·X + b
    BACKWARD   dy -> columns = Wᵀ·dy -> added up where they come from -> image
    WEIGHTS    image -> pad -> columns -> dWᵀ += X·dyᵀ, a share of the images for each part

A part handles some of the images in a *room*, memory that no other thread uses meanwhile. An image's result does not depend on
its part, and the weight's gradient is the sum over ``SHARES`` shares of the images, in order: so the bits depend on the arrays,
not on the number of threads.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product as combinations
from math import prod
from typing import Any

import numpy as np

from kobai.cpu import team
from kobai.cpu.job import JOB, Job, fields, load, store
from kobai.cpu.product import SET, WHOLE, cut, multiply
from kobai.cpu.team import give_way, replace
from kobai.cpu.threads import num_threads
from kobai.cpu.tiles import add_lines, add_one, clear_vector, copy_lines, copy_one, copy_vector, spread_vector, width
from kobai.engine.dispatch import as_written, compiled, entry
from kobai.ops._windows import Windows
from kobai.xp import Array

ROOM = 1 << 19
"""Bytes of columns that are made at a time: half of a second-level cache."""

FEWEST = 128
"""The fewest columns of a product: the whole weight is read for each product."""

SHARES = 16
"""Shares into which the images are split for the weight's gradient; the shares are then added in order."""

PER_THREAD = 4
"""Parts for each thread, so that one slow thread does not hold up the rest."""

FORWARD, BACKWARD, WEIGHTS = range(3)
"""The three products of a convolution."""

CONV = fields(
    "kind size images groups channels filters taps windows line stride plane input input_line has_padding direct "
    "together at_once tap start input_start rooms room_count room_bytes columns other x weight y bias give_way "
    "depth row a_rows a_places b_places",
    after=JOB,
)
"""What a job says of a convolution. Sizes are numbers of elements; tables (``tap``, ``start``, ``input_start``), rooms and
arrays are addresses."""


# --- rows ---------------------------------------------------------------------------------------------------------------


@as_written
def copy_row(size: int, source: int, target: int, count: int) -> None:
    """Copy ``count`` numbers. The last vector may begin within the one before: to store a part of one is slow on AMD's Zen."""
    bytes = count * size
    for i in range(0, bytes - width() + 1, width()):
        copy_vector(source + i, target + i)
    if bytes % width() and bytes > width():
        copy_vector(source + bytes - width(), target + bytes - width())
    elif bytes < width():
        for i in range(0, bytes, size):
            copy_one(size, source + i, target + i)


@as_written
def fill_row(size: int, source: int, target: int, count: int) -> None:
    """Write one number ``count`` times, as :func:`copy_row` does it."""
    bytes = count * size
    for i in range(0, bytes - width() + 1, width()):
        spread_vector(size, source, target + i)
    if bytes % width() and bytes > width():
        spread_vector(size, source, target + bytes - width())
    elif bytes < width():
        for i in range(0, bytes, size):
            copy_one(size, source, target + i)


@as_written
def visit_lines(
    size: int, image: int, places: int, first: int, last: int, stride: int, dense: int, line: int, add: int
) -> None:
    """Gather numbers of an image that lie ``stride`` elements apart, line by line, into dense memory; or add them back."""
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
    """Write zeros, in whole vectors: up to one vector more than ``bytes``."""
    for i in range(0, bytes, width()):
        clear_vector(target + i)


# --- columns ------------------------------------------------------------------------------------------------------------


@compiled
def take_room(job: int) -> Any:
    """Take a free room and return its number; with more threads than rooms, wait for one."""
    flags, looks = load(job + CONV.rooms), 0
    while True:
        for i in range(load(job + CONV.room_count)):
            if replace(flags + 64 * i, 0, 1):
                return i
        looks += 1
        if looks % 32 == 0:
            give_way(load(job + CONV.give_way))


@compiled
def frame(job: int, source: int, count: int, room: int, back: int) -> None:
    """Copy images into the middle of their padded forms in ``room``, or ``back``."""
    size, inner, line = load(job + CONV.size), load(job + CONV.input), load(job + CONV.input_line)
    plane, starts = load(job + CONV.plane), load(job + CONV.input_start)
    for i in range(count * load(job + CONV.channels)):
        for j in range(inner // line):
            here = source + (i * inner + j * line) * size
            there = room + (i * plane + load(starts + 8 * j)) * size
            if back:
                copy_row(size, there, here, line)
            else:
                copy_row(size, here, there, line)


@as_written
def visit(job: int, images: int, count: int, first: int, last: int, columns: int, add: int) -> None:
    """Make the columns of lines ``first`` to ``last`` of padded images, a row for each channel and kernel element; or, with
    ``add``, add the columns to the images.
    """
    size, channels, taps = load(job + CONV.size), load(job + CONV.channels), load(job + CONV.taps)
    plane, line, stride = load(job + CONV.plane), load(job + CONV.line), load(job + CONV.stride)
    tap, start = load(job + CONV.tap), load(job + CONV.start)
    at = columns
    for c in range(channels):
        for t in range(taps):
            for i in range(count):
                base = images + ((i * channels + c) * plane + load(tap + 8 * t)) * size
                visit_lines(size, base, start, first, last, stride, at, line, add)
                at += (last - first) * line * size


@compiled
def rows(job: int, image: int, count: int, other: int, back: int) -> None:
    """Copy y of several images to ``other``, where the images' rows of one filter lie side by side; or ``back``."""
    size, filters, windows = load(job + CONV.size), load(job + CONV.filters), load(job + CONV.windows)
    for o in range(filters):
        for i in range(count):
            y = load(job + CONV.y) + ((image + i) * filters + o) * windows * size
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
    kind, size, groups = load(job + CONV.kind), load(job + CONV.size), load(job + CONV.groups)
    channels, filters, windows = load(job + CONV.channels), load(job + CONV.filters), load(job + CONV.windows)
    depth, each = channels // groups * load(job + CONV.taps), filters // groups
    line, at_once, direct = load(job + CONV.line), load(job + CONV.at_once), load(job + CONV.direct)
    weights, bias, add = load(job + CONV.weight), load(job + CONV.bias), 0
    if kind == WEIGHTS:
        weights += part * groups * depth * each * size
    number = take_room(job)
    flag = load(job + CONV.rooms) + 64 * number
    room = load(job + CONV.rooms) + 64 * load(job + CONV.room_count) + number * load(job + CONV.room_bytes)
    columns, other = room + load(job + CONV.columns), room + load(job + CONV.other)
    n, parts, together = load(job + CONV.images), load(job + JOB.parts), load(job + CONV.together)
    blocks = -(-n // together)
    for block in range(cut(blocks, part, parts, 1), cut(blocks, part + 1, parts, 1)):
        image = block * together
        count = min(together, n - image)
        source, images = load(job + CONV.x) + image * channels * load(job + CONV.input) * size, room
        if kind == BACKWARD and not direct:
            clear(room, count * channels * load(job + CONV.plane) * size)
        elif load(job + CONV.has_padding):
            frame(job, source, count, room, 0)
        else:
            images = source
        if together > 1 and kind != FORWARD:
            rows(job, image, count, other, 0)
        for first in range(0, windows // line, at_once):
            last = min(first + at_once, windows // line)
            wide = count * (last - first) * line
            if kind != BACKWARD and not direct:
                visit(job, images, count, first, last, columns, 0)
            y, y_row = load(job + CONV.y) + (image * filters * windows + first * line) * size, windows * size
            if together > 1:
                y, y_row = other, wide * size
            x, x_row, w_row = images if direct else columns, wide * size, depth * size
            for g in range(groups):
                weight = weights + g * each * w_row
                left, right = x + g * depth * x_row, y + g * each * y_row
                if kind == FORWARD:
                    for o in range(each if bias else 0):
                        fill_row(size, bias + (g * each + o) * size, right + o * y_row, wide)
                    multiply(
                        size, each, wide, depth, weight, w_row, size, left, x_row, size, right, y_row, bias, WHOLE, scratch
                    )  # fmt: skip
                elif kind == BACKWARD:
                    multiply(
                        size, depth, wide, each, weight, size, w_row, right, y_row, size, left, x_row, SET, WHOLE, scratch
                    )  # fmt: skip
                else:
                    multiply(
                        size, depth, each, wide, left, x_row, size, right, size, y_row, weight, each * size, add, WHOLE, scratch
                    )  # fmt: skip
            add = 1
            if kind == BACKWARD and not direct:
                visit(job, room, count, first, last, columns, 1)
        if kind == FORWARD and together > 1:
            rows(job, image, count, other, 1)
        if kind == BACKWARD and not direct:
            frame(job, source, count, room, 1)
    store(flag, 0)


@as_written
def add_shares(shares: Any, out: Any) -> None:
    """dW (groups, O / groups, C·k) ← the sum of shares (·, groups, C·k, O / groups), in order, in the memory of the first."""
    n, groups, depth, each = shares.shape
    flat = shares.reshape(n, -1)
    for i in range(1, n):
        for j in range(flat.shape[1]):
            flat[0, j] += flat[i, j]
    for g in range(groups):
        for o in range(each):
            for r in range(depth):
                out[g, o, r] = shares[0, g, r, o]


# --- jobs ---------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def places(w: Windows) -> tuple[Array, Array, Array]:
    """Offsets in a padded image: of the first window's kernel elements, of the lines of windows, of the input's lines."""
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


class Images(Job):
    """One of the three products as a job, with its threads' memory."""

    bytes = 0

    def __init__(self) -> None:
        super().__init__(CONV)

    def aim(self, x: Array, weight: Array, y: Array, bias: Array | None = None) -> None:
        """Let the job work on these arrays, which the caller keeps. ``weight`` is W, or the shares of its gradient."""
        w = weight.reshape(-1)
        aim(self.address, x.reshape(-1), w, y.reshape(-1), w if bias is None else bias, bias is not None)


class Columns(Images):
    """A product with columns, for arrays like these."""

    def __init__(self, kind: int, w: Windows, groups: int, x: Array, y: Array) -> None:
        super().__init__()
        size, (n, channels), filters = x.itemsize, x.shape[:2], y.shape[1]
        kernel, windows, line, plane = prod(w.kernel), prod(w.out), w.out[-1], prod(w.padded)
        depth = channels * kernel
        together, at_once = blocks_of(w, n, depth, size)
        direct = w.is_pointwise and together == 1
        self.parts = min(-(-n // together), SHARES if kind == WEIGHTS else PER_THREAD * num_threads())
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
        tap, start, input_start = (table.ctypes.data for table in tables)
        self.write(
            function=convolution.address, parts=self.parts, work=n * windows * filters * depth // groups,
            kind=kind, size=size, images=n, groups=groups, channels=channels, filters=filters,
            taps=kernel, windows=windows, line=line, stride=w.stride[-1],
            plane=plane, input=prod(w.size), input_line=w.size[-1], has_padding=padded,
            direct=direct, together=together, at_once=at_once, tap=tap, start=start, input_start=input_start,
            rooms=flags, room_count=count, room_bytes=end, columns=starts[1], other=starts[2],
            give_way=team.give_way_address(),
        )  # fmt: skip
        self.rooms, self.tables, self.bytes = memory, tables, memory.size


@compiled
def aim(job: int, x: Any, weight: Any, y: Any, bias: Any, has_bias: bool) -> None:
    store(job + CONV.x, x.ctypes.data)
    store(job + CONV.weight, weight.ctypes.data)
    store(job + CONV.y, y.ctypes.data)
    store(job + CONV.bias, bias.ctypes.data if has_bias else 0)


def blocks_of(w: Windows, images: int, depth: int, size: int) -> tuple[int, int]:
    """(images, lines) whose columns are made at a time: several small images, or some lines of a large one."""
    windows, line = prod(w.out), w.out[-1]
    if windows < FEWEST:
        together = max(1, min(-(-FEWEST // windows), ROOM // (depth * windows * size), images))
        return together, windows // line
    if w.is_pointwise:
        return 1, windows // line
    lines = max(-(-FEWEST // line), ROOM // (depth * line * size))
    return 1, min(lines, windows // line)
