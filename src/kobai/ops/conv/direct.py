"""Convolution on the host without columns: the tiles of a product read the padded image itself.

With stride 1, the numbers that windows q, q + 1, … meet with one element t of the kernel lie behind each other in the padded
image. So the product W·X of :mod:`kobai.ops.conv.image_loops` needs no copy of X, which has an image's numbers once for each
element of the kernel: X[(c, t), q] lies at ``c·plane + tap[t] + q`` (:mod:`kobai.cpu.tiles_at`). The windows are counted along
the padded image; of every line a few fall between two lines, and are left out at the end:

    padded image, lines of 4      y, lines of 3 and what lies between
        . . . .                       0 1 2 | 3
        . a b .                       4 5 6 | 7            a kernel of 1×2
        . c d .                       8 9 10| -

The three products are two loops:

    FORWARD    y = W·X + b
    BACKWARD   dx = the same, of padded dy, with the kernel turned round and channels for filters
    WEIGHTS    dWᵀ += X·dyᵀ, a share of the images for each part; of X single numbers are read, so any stride will do

Each element of y is the sum over (c, t) in order, in blocks of INNER, as with columns: the same bits.
"""

from __future__ import annotations

from math import prod

import numpy as np

from kobai.cpu import team
from kobai.cpu.job import JOB, load, store
from kobai.cpu.product import BLOCK, INNER, cut, pack, panel_row
from kobai.cpu.threads import num_threads
from kobai.cpu.tiles import VECTORS, machine, tile_rows, width
from kobai.cpu.tiles_at import put_places, tile_at
from kobai.engine.dispatch import as_written, entry
from kobai.ops._windows import Windows
from kobai.ops.conv.image_loops import (
    BACKWARD,
    CONV,
    PER_THREAD,
    SHARES,
    WEIGHTS,
    Images,
    copy_row,
    fill_row,
    frame,
    places,
    take_room,
)
from kobai.xp import Array

RESULTS = 1 << 17
"""Bytes of results that are computed at a time, as they lie in the padded image: an eighth of a second-level cache."""

LANES = 16
"""Windows are counted in so many at once when it is decided whether too many of them lie between lines."""

WASTE = 1.2
"""The most windows that are computed for each that is wanted; columns cost less beyond that."""

DEEP = 64
"""The least sums for which copying results line by line does not matter."""

FEW = 32
"""Of fewer windows several images share a product, with columns."""


def takes(kind: int, w: Windows, depth: int, results: int, size: int) -> bool:
    """Whether a product goes without columns: of so many terms of a sum, and rows of a result, of a group.

    That depends on shapes alone, for gradients of weights have their sums in another order than with columns.
    """
    if size != 4 or prod(w.kernel) == 1:
        return False
    if kind == WEIGHTS:
        return prod(w.out) >= FEW
    starts = places(w)[1]
    reach = -(-(int(starts[-1]) + w.out[-1]) // LANES) * LANES
    return set(w.stride) == {1} and depth >= DEEP and results > 1 and reach <= WASTE * prod(w.out)


def turned(w: Windows) -> Windows | None:
    """The windows of y's gradient whose convolution with the turned kernel is that of x; None if there are none."""
    reach = [d * (k - 1) for k, d in zip(w.kernel, w.dilation, strict=True)]
    pads = tuple((r - a, r - b) for r, (a, b) in zip(reach, w.pads, strict=True))
    if set(w.stride) != {1} or min(map(min, pads)) < 0:
        return None
    return Windows(w.kernel, w.stride, w.dilation, pads, w.out, w.size)


# --- loops --------------------------------------------------------------------------------------------------------------


@as_written
def windows_of(job: int, group: int, images: int, first: int, last: int, results: int, row: int) -> None:
    """Results of a group's filters for lines ``first`` to ``last``, as they lie in the padded image, a row for each filter."""
    size, starts = load(job + CONV.size), load(job + CONV.start)
    each, depth = load(job + CONV.filters) // load(job + CONV.groups), load(job + CONV.depth)
    begin = load(starts + 8 * first)
    wide = load(starts + 8 * (last - 1)) + load(job + CONV.line) - begin
    channels = load(job + CONV.channels) // load(job + CONV.groups)
    image = images + (group * channels * load(job + CONV.plane) + begin) * size
    weight, bias = load(job + CONV.weight) + group * each * depth * size, load(job + CONV.bias)
    a_rows, a_places, b_places = load(job + CONV.a_rows), load(job + CONV.a_places), load(job + CONV.b_places)
    for o in range(each if bias else 0):
        fill_row(size, bias + (group * each + o) * size, results + o * row, wide)
    tall, panel = -(-each // -(-each // tile_rows())), VECTORS * (width() // size)
    for p in range(0, depth, INNER):
        for o in range(0, each, tall):
            for q in range(0, wide, panel):
                tile_at(
                    min(tall, each - o), wide - q, min(INNER, depth - p), weight, a_rows + 8 * o, a_places + 8 * p,
                    image + q * size, b_places + 8 * p, results + o * row + q * size, row, p | bias,
                )  # fmt: skip


@as_written
def lines_of(job: int, group: int, image: int, first: int, last: int, results: int, row: int) -> None:
    """Copy the lines of results to where they belong, without what lies between them."""
    size, starts, line, windows = (
        load(job + CONV.size),
        load(job + CONV.start),
        load(job + CONV.line),
        load(job + CONV.windows),
    )
    filters, each = load(job + CONV.filters), load(job + CONV.filters) // load(job + CONV.groups)
    begin = load(starts + 8 * first)
    for o in range(each):
        y = load(job + CONV.y) + ((image * filters + group * each + o) * windows + first * line) * size
        for j in range(first, last):
            copy_row(
                size, results + o * row + (load(starts + 8 * j) - begin) * size, y + (j - first) * line * size, line
            )


@as_written
def weights_of(job: int, group: int, images: int, dy: int, out: int, add: int, positions: int, scratch: int) -> None:
    """Add an image's X·dyᵀ of a group to dWᵀ (C·k, O / groups) at ``out``, or set it."""
    size, line, stride, windows = (
        load(job + CONV.size),
        load(job + CONV.line),
        load(job + CONV.stride),
        load(job + CONV.windows),
    )
    starts = load(job + CONV.start)
    each, depth = load(job + CONV.filters) // load(job + CONV.groups), load(job + CONV.depth)
    channels = load(job + CONV.channels) // load(job + CONV.groups)
    image, rows = images + group * channels * load(job + CONV.plane) * size, load(job + CONV.b_places)
    panel, tall = VECTORS * (width() // size), -(-depth // -(-depth // tile_rows()))
    most = BLOCK // (INNER * size) // panel * panel
    for p in range(0, windows, INNER):
        inner = min(INNER, windows - p)
        i = 0
        while i < inner:
            j, q = (p + i) // line, (p + i) % line
            some = min(line - q, inner - i)
            put_places((load(starts + 8 * j) + q * stride) * size, stride * size, some, positions + 8 * i)
            i += some
        for j in range(0, each, most):
            columns = min(most, each - j)
            pack(size, inner, columns, dy + (j * windows + p) * size, size, windows * size, scratch)
            for r in range(0, depth, tall):
                right = scratch
                for q in range(0, columns, panel):
                    step = panel_row(size, columns - q)
                    tile_at(
                        min(tall, depth - r), columns - q, inner, image, rows + 8 * r, positions, right,
                        load(job + CONV.a_places) + 8 * INNER * (step > width()), out + (r * each + j + q) * size,
                        each * size, p | add,
                    )  # fmt: skip
                    right += inner * VECTORS * width()


@entry
def convolution(job: int, part: int, scratch: int) -> None:
    """A part of the images of a convolution, or a share of its weight's gradient."""
    kind, size, groups = load(job + CONV.kind), load(job + CONV.size), load(job + CONV.groups)
    channels, filters, windows = load(job + CONV.channels), load(job + CONV.filters), load(job + CONV.windows)
    lines, at_once = windows // load(job + CONV.line), load(job + CONV.at_once)
    each, depth, row = filters // groups, load(job + CONV.depth), load(job + CONV.row)
    number = take_room(job)
    room = load(job + CONV.rooms) + 64 * load(job + CONV.room_count) + number * load(job + CONV.room_bytes)
    other, n, parts = room + load(job + CONV.other), load(job + CONV.images), load(job + JOB.parts)
    begin = cut(n, part, parts, 1)
    for image in range(begin, cut(n, part + 1, parts, 1)):
        frame(job, load(job + CONV.x) + image * channels * load(job + CONV.input) * size, 1, room, 0)
        for g in range(groups):
            if kind == WEIGHTS:
                dy = load(job + CONV.y) + (image * filters + g * each) * windows * size
                out = load(job + CONV.weight) + (part * groups + g) * depth * each * size
                weights_of(job, g, room, dy, out, image - begin, other, scratch)
            else:
                for first in range(0, lines, at_once):
                    last = min(first + at_once, lines)
                    windows_of(job, g, room, first, last, other, row)
                    lines_of(job, g, image, first, last, other, row)
    store(load(job + CONV.rooms) + 64 * number, 0)


# --- jobs ---------------------------------------------------------------------------------------------------------------


class Direct(Images):
    """A product without columns, for arrays like these. Of BACKWARD the windows are :func:`turned`, x is dy and y is dx."""

    def __init__(self, kind: int, w: Windows, groups: int, x: Array, y: Array) -> None:
        super().__init__()
        (n, channels), filters, size = x.shape[:2], y.shape[1], x.itemsize
        kernel, windows, line, plane = prod(w.kernel), prod(w.out), w.out[-1], prod(w.padded)
        tap, start, input_start = places(w)
        each, depth = filters // groups, channels // groups * kernel
        at_once = max(1, min(RESULTS // (each * size) // w.padded[-1], len(start)))
        first = np.arange(0, len(start), at_once)
        wide = int((start[np.minimum(first + at_once, len(start)) - 1] - start[first]).max()) + line
        row = -(-wide // LANES) * LANES * size
        k = np.arange(depth)
        elements = (k // kernel * plane + tap[k % kernel]) * size
        if kind == WEIGHTS:
            steps = np.arange(INNER) * machine()[0]
            a_places, b_places, a_rows = np.concatenate([steps, steps * VECTORS]), elements, elements
        else:
            a_places, b_places, a_rows = k * size, elements, np.arange(each) * depth * size
        if kind == BACKWARD:  # W (O, C / groups, k) has x's channels as filters and y's filters as channels
            a_places = (k // kernel * each * kernel + kernel - 1 - k % kernel) * size
            a_rows = np.arange(each) * kernel * size
        self.parts = min(n, SHARES if kind == WEIGHTS else PER_THREAD * num_threads())
        frames = -(-(channels * plane + 4 * LANES) * size // 64) * 64
        end = frames + -(-(INNER * 8 if kind == WEIGHTS else each * row) // 64) * 64 + 64
        count = min(self.parts, num_threads())
        memory = np.zeros(count * (64 + end) + 64, np.uint8)
        tables = {
            "tap": tap, "start": start, "input_start": input_start, "a_rows": a_rows, "a_places": a_places, "b_places": b_places
        }  # fmt: skip
        self.tables = {name: np.ascontiguousarray(table, np.int64) for name, table in tables.items()}
        self.rooms, self.bytes = memory, memory.size + sum(table.nbytes for table in self.tables.values())
        self.write(
            function=convolution.address, parts=self.parts, work=n * windows * filters * depth, kind=kind, size=size,
            images=n, groups=groups, channels=channels, filters=filters, taps=kernel, depth=depth, windows=windows, line=line,
            stride=w.stride[-1], plane=plane, input=prod(w.size), input_line=w.size[-1], at_once=at_once, row=row, other=frames,
            rooms=-(-memory.ctypes.data // 64) * 64, room_count=count, room_bytes=end, give_way=team.give_way_address(),
            **{name: table.ctypes.data for name, table in self.tables.items()},
        )  # fmt: skip
