"""Matrix products on the host as jobs, in parts that threads share: C ← A·B.

To multiply is easy; to have the numbers at hand is not. A processor multiplies and adds 32 or more floats in the time in which
memory brings one. So each number that was brought is used many times, at each level of the caches:

                    n                      1. C is cut into parts (here 2×2), one thread computes each: ``grid_of``.
              +---------+---------+
              |  B      |         |        2. A part takes B in blocks of k ≤ INNER rows and as many columns as half of a
            k |  [block]|         |           second-level cache holds, and copies each block into *panels* (``pack``).
              +---------+---------+
       k            |                      3. It multiplies all its rows of A with the block, tile by tile
    +-----+   +-----v---+---------+           (:mod:`kobai.cpu.tiles`). A tile of C stays in registers.
    | A --|-->|  tile   |         |
  m |     |   |  part   |  part   |        panel: for each p the numbers of as many columns as a tile has, behind each other,
    |     |   +---------+---------+               so that the innermost loop reads memory straight on; zeros beyond the last
    |     |   |  part   |  part   |
    +-----+   +---------+---------+           p=0: b00 b01 … b0,31 | p=1: b10 b11 … b1,31 | p=2: …

A stays where it is, unless it lies column by column and is used often enough to be copied as well (``pack_rows``). B stays
where it is if it lies row by row and the part has no more rows than a tile, which reads it once.

The inner dimension is summed up in blocks of ``INNER``: sums over many elements lose fewer digits so. As that number is the
same everywhere, the bits of a product depend on nothing but its factors.

An inner dimension of one block may consist of equal *parts*, a power of two, whose products are added in a balanced binary
tree, as the gradients of shards are. A tile does all parts in turn: every second one is added while it is in registers, and
what waits for its neighbour lies in a few lines of the nearest cache.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from kobai.cpu.job import JOB, Job, fields, load, store
from kobai.cpu.tiles import (
    VECTORS,
    add_one,
    add_vector,
    clear_vector,
    copy_one,
    copy_vector,
    copy_vectors,
    machine,
    tile,
    tile_rows,
    turn,
    width,
)
from kobai.engine.dispatch import as_written, compiled, compiled_for, entry
from kobai.xp import Array

INNER = 384
"""Elements of the inner dimension in a block."""

BLOCK = 1 << 19
"""Bytes of a block of panels: half of a second-level cache."""

TILES, OFTEN = 16, 128
"""Columns of A are copied for so many tiles at a time, if the part has so many columns of B at least."""

EDGE = 16
"""Parts begin at multiples of so many columns."""

TURNING = 3
"""How much more it costs to copy a number of B into panels if it lies column by column."""

SET, ADD = np.int64(0), np.int64(1)
"""Whether a product is added to what is there. Of Python's own 0 and 1 Numba would compile the callee once more each."""

WHOLE = np.int64(1)
"""An inner dimension in one part."""

PRODUCT = fields(
    "size m n k a a_row a_step b b_step b_column c c_row grid_rows grid_columns "
    "batch within a_outer b_outer c_outer a_within b_within c_within batch_parts inner_parts",
    after=JOB,
)
"""What a job says of a product: addresses, and strides in bytes. Of a batch: how many there are, how many of them ``within``
the second of two dimensions, and the bytes from one to the next in either."""


def available() -> bool:
    """Whether this processor, with Numba, can do products so."""
    return machine() != (0, 0)


# --- loops --------------------------------------------------------------------------------------------------------------


@compiled_for(lambda types: [types.int64(*(types.int64,) * 4)])
def cut(n: int, i: int, parts: int, edge: int) -> int:
    """Where the ``i``-th of ``parts`` of [0, n) begins."""
    if i == parts:
        return n
    return (n * i // parts + edge // 2) // edge * edge


@compiled
def pack(size: int, k: int, columns: int, b: int, step: int, column: int, to: int) -> None:
    """Copy ``columns`` columns of B into panels. ``step``, ``column``: bytes from p to p and from column to column."""
    bytes, lanes = width(), width() // size
    for j in range(0, columns, VECTORS * lanes):
        valid = min(columns - j, VECTORS * lanes)
        vectors = VECTORS if valid > lanes else 1
        source, row, whole = b + j * column, vectors * bytes, valid // lanes
        rows = 0  # of these all whole vectors are copied at once, and what is left over one by one
        if column == size:
            rows = k
            for p in range(k):
                for v in range(whole):
                    copy_vector(source + p * step + v * bytes, to + p * row + v * bytes)
        elif step == size:
            rows = k // lanes * lanes
            for p in range(0, rows, lanes):
                for v in range(whole):
                    turn(size, source + p * size + v * lanes * column, column, to + p * row + v * bytes, row)
        for p in range(rows if whole == vectors else 0, k):
            first = whole if p < rows else 0
            for v in range(first, vectors):
                clear_vector(to + p * row + v * bytes)
            for q in range(first * lanes, valid):
                copy_one(size, source + p * step + q * column, to + p * row + q * size)
        to += k * row


@compiled
def pack_rows(size: int, k: int, tall: int, rows: int, a: int, step: int, to: int) -> None:
    """Copy rows of an A that lies column by column for tiles ``tall`` rows high: for each p those of a tile."""
    bytes = tall * size
    each = k * bytes + width()
    fit = 0  # tiles whose rows end no sooner than a vector does: what is too much is written over by the next
    if bytes <= width() <= rows * size:
        fit = (rows * size - width()) // bytes + 1
    for p in range(k):
        source, target = a + p * step, to + p * bytes
        copy_vectors(source, bytes, target, each, fit)
        for i in range(fit * tall, rows):
            copy_one(size, source + i * size, target + i // tall * each + i % tall * size)


@compiled
def panel_row(size: int, columns: int) -> Any:
    """Bytes of a row of the panel of so many columns and those after them."""
    return (VECTORS if columns * size > width() else 1) * width()


@compiled
def waiting_at(scratch: int, i: int) -> Any:
    """Where the i-th sum of a tile waits, from 1 on."""
    return scratch + BLOCK + TILES * (INNER * tile_rows() * 8 + width()) + (i - 1) * tile_rows() * VECTORS * width()


@compiled
def add_tile(size: int, rows: int, columns: int, source: int, to: int, to_row: int) -> None:
    """Add a tile that has waited to the one before it."""
    lanes = width() // size
    for i in range(rows):
        left, right = to + i * to_row, source + i * VECTORS * width()
        for j in range(0, columns // lanes * lanes, lanes):
            add_vector(size, right + j * size, left + j * size)
        for j in range(columns // lanes * lanes, columns):
            add_one(size, right + j * size, left + j * size)


@as_written
def multiply(
    size: int, m: int, n: int, k: int, a: int, a_row: int, a_step: int, b: int, b_step: int, b_column: int, c: int, c_row: int,
    add: int, inner_parts: int, scratch: int,
) -> None:  # fmt: skip
    """C ← A·B, or C ← C + A·B if ``add`` is not 0, by this thread; addresses and strides in bytes. C lies row by row.

    Of ``inner_parts`` more than one, C ← Σ over them, in the order of the tree; k is INNER then at most.
    """
    panel = VECTORS * (width() // size)
    most = BLOCK // (INNER * size) // panel * panel
    tall = -(-m // -(-m // tile_rows()))  # rows of a tile, but the last: as even as can be
    for p in range(0, k, INNER):
        inner = min(INNER, k - p)
        for j in range(0, n, most):
            columns = min(most, n - j)
            block = b + p * b_step + j * b_column
            direct = columns // panel * panel if m <= tall and b_column == size else 0  # columns that are not copied
            pack(size, inner, columns - direct, block + direct * size, b_step, b_column, scratch)
            copied = a_row == size and columns >= OFTEN
            for start in range(0, m, tall):
                rows = min(tall, m - start)
                left, row, step = a + start * a_row + p * a_step, a_row, a_step
                if copied:
                    ahead = start % (TILES * tall)
                    if ahead == 0:
                        pack_rows(size, inner, tall, min(TILES * tall, m - start), left, a_step, scratch + BLOCK)
                    left, step = scratch + BLOCK + ahead // tall * (inner * tall * size + width()), tall * size
                right = scratch
                for q in range(0, columns, panel):
                    result = c + start * c_row + (j + q) * size
                    there, below = (block + q * size, b_step) if q < direct else (right, panel_row(size, columns - q))
                    waiting = 0  # sums: the first in its place, the others in the tile's own memory
                    for s in range(inner_parts):
                        to, to_row = (
                            (result, c_row) if waiting == 0 else (waiting_at(scratch, waiting), panel_row(size, panel))
                        )
                        tile(
                            size, rows, columns - q, inner // inner_parts, left + s * (inner // inner_parts) * step, row, step,
                            there + s * (inner // inner_parts) * below, below, to, to_row, p | add | s & 1,
                        )  # fmt: skip
                        waiting += s & 1
                        complete = (
                            s + 1 >> 1 if s & 1 else 1
                        )  # pairs; a zero at its end for every sum that has its neighbour
                        while complete & 1 == 0:
                            waiting, complete = waiting - 1, complete >> 1
                            to, to_row = (
                                (result, c_row)
                                if waiting == 1
                                else (waiting_at(scratch, waiting - 1), panel_row(size, panel))
                            )
                            add_tile(size, rows, min(columns - q, panel), waiting_at(scratch, waiting), to, to_row)
                    right += 0 if q < direct else inner * VECTORS * width()


@entry
def part(job: int, i: int, scratch: int) -> None:
    """The ``i``-th part of a product, or of a batch of them."""
    rows, columns = load(job + PRODUCT.grid_rows), load(job + PRODUCT.grid_columns)
    some, row, column = i // (rows * columns), i // columns % rows, i % columns
    m, n, size = load(job + PRODUCT.m), load(job + PRODUCT.n), load(job + PRODUCT.size)
    top, bottom = cut(m, row, rows, 1), cut(m, row + 1, rows, 1)
    left, right = cut(n, column, columns, EDGE), cut(n, column + 1, columns, EDGE)
    a_row, b_column, c_row = load(job + PRODUCT.a_row), load(job + PRODUCT.b_column), load(job + PRODUCT.c_row)
    a = load(job + PRODUCT.a) + top * a_row
    b = load(job + PRODUCT.b) + left * b_column
    c = load(job + PRODUCT.c) + top * c_row + left * size
    batch, parts, within = load(job + PRODUCT.batch), load(job + PRODUCT.batch_parts), load(job + PRODUCT.within)
    for j in range(cut(batch, some, parts, 1), cut(batch, some + 1, parts, 1)):
        p, q = j // within, j % within
        multiply(
            size, bottom - top, right - left, load(job + PRODUCT.k),
            a + p * load(job + PRODUCT.a_outer) + q * load(job + PRODUCT.a_within), a_row, load(job + PRODUCT.a_step),
            b + p * load(job + PRODUCT.b_outer) + q * load(job + PRODUCT.b_within), load(job + PRODUCT.b_step), b_column,
            c + p * load(job + PRODUCT.c_outer) + q * load(job + PRODUCT.c_within), c_row, SET,
            load(job + PRODUCT.inner_parts), scratch,
        )  # fmt: skip


def _of_matrices(types: Any) -> list[Any]:
    """``describe`` for matrices of either precision that lie anyhow; those that may not be written to, too."""
    integer = types.int64
    return [
        types.boolean(integer, integer, given, given, types.Array(real, 2, "A", aligned=False), *(integer,) * 3)
        for real in (types.float32, types.float64)
        for given in [types.Array(real, 2, "A", readonly=True, aligned=False)]
    ]


@compiled_for(_of_matrices)
def describe(job: int, function: int, a: Any, b: Any, out: Any, rows: int, columns: int, inner_parts: int) -> Any:
    """Write a job for a product; False if the result does not lie row by row, or lies over a factor."""
    (m, k), n, size = a.shape, b.shape[1], out.itemsize
    c_row, c_column = out.strides
    if c_column != size or (m > 1 and c_row < n * size) or _overlap(out, a) or _overlap(out, b):
        return False
    if _askew(a) or _askew(b) or _askew(out):
        return False
    store(job + JOB.function, function)
    store(job + JOB.parts, rows * columns)
    store(job + JOB.work, m * n * k)
    store(job + PRODUCT.size, size)
    store(job + PRODUCT.m, m)
    store(job + PRODUCT.n, n)
    store(job + PRODUCT.k, k)
    store(job + PRODUCT.a, a.ctypes.data)
    store(job + PRODUCT.a_row, a.strides[0])
    store(job + PRODUCT.a_step, a.strides[1])
    store(job + PRODUCT.b, b.ctypes.data)
    store(job + PRODUCT.b_step, b.strides[0])
    store(job + PRODUCT.b_column, b.strides[1])
    store(job + PRODUCT.c, out.ctypes.data)
    store(job + PRODUCT.c_row, c_row)
    store(job + PRODUCT.grid_rows, rows)
    store(job + PRODUCT.grid_columns, columns)
    store(job + PRODUCT.batch, 1)
    store(job + PRODUCT.within, 1)
    store(job + PRODUCT.batch_parts, 1)
    store(job + PRODUCT.inner_parts, inner_parts)
    return True


@compiled
def describe_batch(job: int, outer: Any, within: Any, parts: int) -> None:
    """Make it a batch. ``outer``, ``within``: how many, and bytes from one A, B and C to the next."""
    store(job + PRODUCT.batch, outer[0] * within[0])
    store(job + PRODUCT.within, within[0])
    store(job + PRODUCT.a_outer, outer[1])
    store(job + PRODUCT.b_outer, outer[2])
    store(job + PRODUCT.c_outer, outer[3])
    store(job + PRODUCT.a_within, within[1])
    store(job + PRODUCT.b_within, within[2])
    store(job + PRODUCT.c_within, within[3])
    store(job + PRODUCT.batch_parts, parts)
    store(job + JOB.parts, load(job + JOB.parts) * parts)
    store(job + JOB.work, load(job + JOB.work) * outer[0] * within[0])


@compiled
def _askew(x: Any) -> Any:
    """Whether elements lie where no array begins: fields of records do."""
    size = x.itemsize
    return (x.ctypes.data | x.strides[0] | x.strides[1]) % size != 0


@compiled
def _first_and_last(x: Any) -> Any:
    """Where the memory of a matrix begins and ends."""
    first = last = x.ctypes.data
    for axis in range(2):
        reach = (x.shape[axis] - 1) * x.strides[axis]
        first, last = first + min(reach, 0), last + max(reach, 0)
    return first, last + x.itemsize


@compiled
def _overlap(x: Any, y: Any) -> Any:
    """Whether the memory of two matrices may have something in common."""
    (x0, x1), (y0, y1) = _first_and_last(x), _first_and_last(y)
    return x0 < y1 and y0 < x1


# --- jobs ---------------------------------------------------------------------------------------------------------------


class Product(Job):
    """out ← a·b as a job. The addresses of its arrays are in it; ``keeps`` holds them where it is done again."""

    def __init__(self) -> None:
        super().__init__(PRODUCT)

    def describe(
        self, a: Array, b: Array, out: Array, grid: tuple[int, int], batch_parts: int = 1, inner_parts: int = 1
    ) -> bool:
        """Let it be this product, or the products of a batch; False for what is left to NumPy.

        ``grid``: rows and columns of parts of a product; ``batch_parts``: parts of the batch; ``inner_parts``: those of the
        inner dimension that are added in a tree.
        """
        steps, matrices = None, (a, b, out)
        if out.ndim > 2:
            steps = batch_steps(a, b, out)
            if steps is None or np.may_share_memory(out, a) or np.may_share_memory(out, b):
                return False
            matrices = (a[(0,) * (a.ndim - 2)], b[(0,) * (b.ndim - 2)], out[(0,) * (out.ndim - 2)])
        if not describe(self.address, part.address, *matrices, *grid, inner_parts):
            return False
        self.parts = grid[0] * grid[1]
        if steps is not None:
            describe_batch(self.address, *steps, batch_parts)
            self.parts *= batch_parts
        return True


Step = tuple[int, int, int, int]


def batch_steps(a: Array, b: Array, out: Array) -> tuple[Step, Step] | None:
    """The dimensions before the last two as two: how many, and bytes from one matrix of a, b and out to the next.

    None if they cannot be two.

    >>> batch_steps(np.ones((4, 3, 2, 5)), np.ones((3, 5, 2)), np.ones((4, 3, 2, 2)))
    ((4, 240, 0, 96), (3, 80, 80, 32))
    """
    dims = out.ndim - 2

    def strides(x: Array) -> list[int]:
        own = [s if n > 1 else 0 for n, s in zip(x.shape[:-2], x.strides[:-2], strict=True)]
        return [0] * (dims - len(own)) + own

    found: list[Step] = []
    for step in zip(out.shape[:-2], strides(a), strides(b), strides(out), strict=True):
        if step[0] == 1:
            continue
        last = found[-1] if found else None
        if last and all(x == y * step[0] for x, y in zip(last[1:], step[1:], strict=True)):
            found[-1] = (last[0] * step[0], *step[1:])
        else:
            found.append(step)
    if len(found) > 2:
        return None
    outer, within = ([(1, 0, 0, 0)] * 2 + found)[-2:]
    return outer, within


@cache
def grid_of(m: int, n: int, count: int, turned: bool) -> tuple[int, int]:
    """Rows and columns of parts of an (m, n) result, ``count`` parts at most: that of which the largest part is least work.

    A part multiplies its rows with whole vectors of columns, and copies its columns of B, which may lie column by column.
    """
    copying = 4 * (TURNING if turned else 1)

    def work(grid: tuple[int, int]) -> tuple[int, int]:
        rows = max(stop - start for start, stop in ranges(m, grid[0], 1))
        vectors = max(-(-(stop - start) // EDGE) for start, stop in ranges(n, grid[1], EDGE))
        return (rows + copying) * vectors, grid[0] * grid[1]

    grids = [(rows, columns) for rows in range(1, count + 1) for columns in range(1, count // rows + 1)]
    return min((grid for grid in grids if _apart(m, grid[0], 1) and _apart(n, grid[1], EDGE)), key=work)


def _apart(n: int, parts: int, edge: int) -> bool:
    return all(start < stop for start, stop in ranges(n, parts, edge)) or parts == 1


def ranges(n: int, parts: int, edge: int) -> list[tuple[int, int]]:
    """[0, n) in ``parts`` ranges of nearly the same size that begin at multiples of ``edge``.

    >>> ranges(100, 2, 16), ranges(40, 3, 4), ranges(5, 2, 1)
    ([(0, 48), (48, 100)], [(0, 12), (12, 28), (28, 40)], [(0, 2), (2, 5)])
    """
    cuts = [cut.function(n, i, parts, edge) for i in range(parts + 1)]
    return list(pairwise(cuts))


def scratch_bytes() -> int:
    """How much memory a thread needs for parts of products: a block of panels, and the rows of some tiles."""
    vector, rows = machine()
    return BLOCK + TILES * (INNER * rows * 8 + vector) + INNER.bit_length() * rows * VECTORS * vector
