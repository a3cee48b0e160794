"""The innermost loops of a matrix product: a tile of the result that stays in registers, and copies that feed it.

A *vector* is as many floats as one instruction of the processor works on, 4 to 16. A *tile* is R rows of V vectors of C ← A·B,
here 3 rows of 2 vectors:

                     b  = [b0 b1 b2 b3] [b4 b5 b6 b7]      for each p:  V vectors of B, which lie behind each other
    a = a0           C0 += a0 · b        a0 · b                         R numbers of A, each spread over a vector
        a1           C1 += a1 · b        a1 · b                         R·V sums, which never leave their registers
        a2           C2 += a2 · b        a2 · b

With R·V = 8·2 that is 16 instructions that multiply and add for 10 reads: enough time for the reads to come in meanwhile. The
processor's registers set R and V: all sums, a row of B and one number of A have to fit. Goto, van de Geijn, "Anatomy of
high-performance matrix multiplication", 2008; Van Zee, van de Geijn, "BLIS: a framework for rapidly instantiating BLAS
functionality", 2015.

Each element of a tile is the sum over p in order, each product fused into it. That is the same number for any width of vectors
and any size of tiles, so these loops give the same bits on every machine, and however a product is parted.

Numba has no word for a vector. So these functions do not compute: they *write code*, when a loop that uses them is compiled.
Each is given LLVM's ``builder``, which appends instructions to that loop, and its operands as LLVM values
(:class:`kobai.engine.dispatch.instruction`). A Python ``for`` in them repeats code, as for the R rows of a tile; a loop that
the machine runs is made of blocks and branches (``loop``), and a ``phi`` is a variable of it: one value on the way in, another
on the way round. All addresses, strides and counts are integers of 64 bits; strides are in bytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, update_wrapper
from typing import Any

from kobai.engine.dispatch import instruction, llvm_ir

VECTORS = 2
"""Vectors in a row of a tile; one, where no more columns are left."""


@cache
def machine() -> tuple[int, int]:
    """Bytes of a vector, and rows of a tile, on this processor; (0, 0) if it cannot multiply and add at once. Needs Numba.

    A tile takes R·V registers, of which there are 32, but 16 on x86 before AVX-512.
    """
    codegen = importlib.import_module("numba.core.registry").cpu_target.target_context.codegen()
    triple, _, features = codegen.magic_tuple()
    known = {name[1:] for name in features.split(",") if name.startswith("+")}
    if "avx512f" in known:
        return 64, 8
    if {"avx2", "fma"} <= known:
        return 32, 6
    return (16, 8) if triple.startswith(("aarch64", "arm64")) else (0, 0)


# --- words for LLVM -----------------------------------------------------------------------------------------------------


def integer(value: int) -> Any:
    return llvm_ir().IntType(64)(value)


class Elements:
    """Numbers of ``size`` bytes – floats, or single bytes – and a vector of them, as LLVM has them."""

    def __init__(self, size: int, lanes: int = 0) -> None:
        ir = llvm_ir()
        self.size, self.lanes = size, lanes or machine()[0] // size
        self.one, name = {1: (ir.IntType(8), "i8"), 4: (ir.FloatType(), "f32"), 8: (ir.DoubleType(), "f64")}[size]
        self.vector, self.name = ir.VectorType(self.one, self.lanes), f"v{self.lanes}{name}"

    def load(self, builder: Any, address: Any, kind: Any = None) -> Any:
        pointer = builder.inttoptr(address, (kind or self.vector).as_pointer())
        return builder.load(pointer, align=self.size)

    def store(self, builder: Any, value: Any, address: Any) -> None:
        builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=self.size)

    def zero(self) -> Any:
        return llvm_ir().Constant(self.vector, None)

    def spread(self, builder: Any, value: Any) -> Any:
        """A vector that has one number everywhere."""
        ir = llvm_ir()
        number = ir.IntType(32)
        nothing = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = builder.insert_element(nothing, value, number(0))
        places = ir.Constant(ir.VectorType(number, self.lanes), [0] * self.lanes)
        return builder.shuffle_vector(first, nothing, places)

    def call(self, builder: Any, name: str, result: Any, operands: list[Any]) -> Any:
        """One of LLVM's functions for vectors."""
        ir = llvm_ir()
        form = ir.FunctionType(result, [operand.type for operand in operands])
        cgutils = importlib.import_module("numba.core.cgutils")
        return builder.call(cgutils.get_or_insert_function(builder.module, form, f"llvm.{name}"), operands)

    def load_some(self, builder: Any, address: Any, mask: Any) -> Any:
        """A vector of which only what the mask shows is read, and the rest is zero; all of it without a mask."""
        if mask is None:
            return self.load(builder, address)
        pointer = builder.inttoptr(address, self.vector.as_pointer())
        operands = [pointer, llvm_ir().IntType(32)(self.size), mask, self.zero()]
        return self.call(builder, f"masked.load.{self.name}.p0", self.vector, operands)

    def store_some(self, builder: Any, value: Any, address: Any, mask: Any) -> None:
        """Only what the mask shows is written; all of the vector without a mask."""
        if mask is None:
            return self.store(builder, value, address)
        pointer = builder.inttoptr(address, self.vector.as_pointer())
        operands = [value, pointer, llvm_ir().IntType(32)(self.size), mask]
        self.call(builder, f"masked.store.{self.name}.p0", llvm_ir().VoidType(), operands)

    def masks(self, builder: Any, columns: Any, vectors: int) -> list[Any]:
        """For each vector which of its places are among so many columns."""
        number = llvm_ir().IntType(32)
        most = self.spread(builder, builder.trunc(columns, number))
        return [self.below(builder, number(v * self.lanes), most) for v in range(vectors)]

    def below(self, builder: Any, first: Any, most: Any) -> Any:
        """Which places of a vector that begins at the ``first`` are less than ``most``, which is spread."""
        ir = llvm_ir()
        places = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), list(range(self.lanes)))
        return builder.icmp_signed("<", builder.add(places, self.spread(builder, first)), most)


def _sized(build: Callable[..., None]) -> instruction:
    """Decorator: an instruction whose first operand is how many bytes a number has, 4 or 8; what builds it is given those."""

    def either(builder: Any, size: Any, *operands: Any) -> None:
        with builder.if_else(builder.icmp_signed("==", size, integer(4))) as branches:
            for branch, bytes in zip(branches, (4, 8), strict=True):
                with branch:
                    build(builder, Elements(bytes), *operands)

    return instruction(update_wrapper(either, build))


# --- a tile -------------------------------------------------------------------------------------------------------------


@_sized
def tile(
    builder: Any, x: Elements, rows: Any, columns: Any, k: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, c: Any,
    c_row: Any, add: Any,
) -> None:  # fmt: skip
    """C ← A·B, or C ← C + A·B if ``add`` is not 0: ``rows`` rows, and ``columns`` columns where those are fewer than a tile's.

    A: its first element, bytes from row to row and from p to p. B: k times as many vectors as the tile has in a row, and bytes
    from one time to the next.
    """
    end = builder.append_basic_block("end")
    adds = builder.icmp_signed("!=", add, integer(0))
    narrow = builder.icmp_signed("<=", columns, integer(x.lanes))
    blocks = {vectors: builder.append_basic_block(f"vectors{vectors}") for vectors in (1, VECTORS)}
    builder.cbranch(narrow, blocks[1], blocks[VECTORS])
    for vectors, block in blocks.items():
        builder.position_at_end(block)
        choice = builder.switch(rows, end)
        for r in range(1, machine()[1] + 1):
            case = builder.append_basic_block(f"rows{r}")
            choice.add_case(integer(r), case)
            builder.position_at_end(case)
            sums = _sums(x, builder, r, vectors, k, a, a_row, a_step, b, b_step)
            places = [builder.add(c, builder.mul(c_row, integer(i))) for i in range(r)]
            _write(x, builder, sums, places, columns, adds)
            builder.branch(end)
    builder.position_at_end(end)


def _sums(
    x: Elements, builder: Any, rows: int, vectors: int, k: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any
) -> list[list[Any]]:
    """The loop over p."""
    before, loop = builder.block, builder.append_basic_block("loop")
    # An address for three rows: the two others are one and two strides on, which an x86 instruction adds by itself.
    starts = [builder.add(a, builder.mul(a_row, integer(i))) for i in range(0, rows, 3)]
    twice = builder.shl(a_row, integer(1))
    builder.branch(loop)
    builder.position_at_end(loop)

    def changing(first: Any) -> Any:
        value = builder.phi(first.type)
        value.add_incoming(first, before)
        return value

    left, at_b = changing(k), changing(b)
    at_a = [changing(start) for start in starts]
    sums = [[changing(x.zero()) for _ in range(vectors)] for _ in range(rows)]
    column = [x.load(builder, builder.add(at_b, integer(v * machine()[0]))) for v in range(vectors)]
    new = []
    for i in range(rows):
        address = at_a[i // 3] if i % 3 == 0 else builder.add(at_a[i // 3], a_row if i % 3 == 1 else twice)
        one = x.spread(builder, x.load(builder, address, x.one))
        new.append([x.call(builder, f"fma.{x.name}", x.vector, [one, column[v], sums[i][v]]) for v in range(vectors)])
    for old_row, new_row in zip(sums, new, strict=True):
        for old, value in zip(old_row, new_row, strict=True):
            old.add_incoming(value, loop)
    for start in at_a:
        start.add_incoming(builder.add(start, a_step), loop)
    at_b.add_incoming(builder.add(at_b, b_step), loop)
    fewer = builder.sub(left, integer(1))
    left.add_incoming(fewer, loop)
    after = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed(">", fewer, integer(0)), loop, after)
    builder.position_at_end(after)
    return new


def _write(x: Elements, builder: Any, sums: list[list[Any]], places: list[Any], columns: Any, adds: Any) -> None:
    """Write rows of vectors to their places, or add them to what is there; not beyond the last column."""
    vectors = len(sums[0])

    def addresses() -> list[tuple[int, Any, Any]]:
        return [
            (v, builder.add(place, integer(v * machine()[0])), value)
            for place, row in zip(places, sums, strict=True)
            for v, value in enumerate(row)
        ]

    def whole(added: bool) -> None:
        for _, address, value in addresses():
            x.store(builder, builder.fadd(x.load(builder, address), value) if added else value, address)

    def masked(added: bool) -> None:
        masks = x.masks(builder, columns, vectors)
        for v, address, value in addresses():
            if added:
                value = builder.fadd(x.load_some(builder, address, masks[v]), value)
            x.store_some(builder, value, address, masks[v])

    full = builder.icmp_signed(">=", columns, integer(vectors * x.lanes))
    with builder.if_else(full) as (then, otherwise):
        for branch, write in ((then, whole), (otherwise, masked)):
            with branch, builder.if_else(adds) as (more, first):
                with more:
                    write(True)
                with first:
                    write(False)


# --- numbers that depend on the machine -----------------------------------------------------------------------------------


@instruction
def width(builder: Any) -> Any:
    """Bytes of a vector."""
    return integer(machine()[0])


@instruction
def tile_rows(builder: Any) -> Any:
    """Rows of a tile at most."""
    return integer(machine()[1])


# --- copies -------------------------------------------------------------------------------------------------------------


@instruction
def copy_vector(builder: Any, source: Any, target: Any) -> None:
    x = Elements(4)
    x.store(builder, x.load(builder, source), target)


@instruction
def copy_vectors(builder: Any, source: Any, step: Any, target: Any, stride: Any, count: Any) -> None:
    """Vectors that lie ``step`` bytes apart to where they lie ``stride`` bytes apart."""
    x = Elements(4)
    with loop(builder, integer(0), count, integer(1), source) as (i, here, follow):
        x.store(builder, x.load(builder, here), builder.add(target, builder.mul(stride, i)))
        follow(builder.add(here, step))


@instruction
def clear_vector(builder: Any, target: Any) -> None:
    x = Elements(4)
    x.store(builder, x.zero(), target)


@_sized
def copy_one(builder: Any, x: Elements, source: Any, target: Any) -> None:
    x.store(builder, x.load(builder, source, x.one), target)


@_sized
def add_one(builder: Any, x: Elements, source: Any, target: Any) -> None:
    x.store(builder, builder.fadd(x.load(builder, target, x.one), x.load(builder, source, x.one)), target)


@_sized
def add_vector(builder: Any, x: Elements, source: Any, target: Any) -> None:
    x.store(builder, builder.fadd(x.load(builder, target), x.load(builder, source)), target)


@_sized
def spread_vector(builder: Any, x: Elements, source: Any, target: Any) -> None:
    """One number, in all places of a vector."""
    x.store(builder, x.spread(builder, x.load(builder, source, x.one)), target)


@_sized
def copy_lines(
    builder: Any, x: Elements, image: Any, places: Any, first: Any, last: Any, dense: Any, count: Any
) -> None:
    """Lines of ``count`` numbers that begin at places[first], … places[last − 1] elements from ``image``, copied to ``dense``
    memory one behind the other. Zeros are written beyond the end of a line: room for a vector has to follow.
    """
    for line, there, mask in _lines(builder, x, image, places, first, last, dense, count):
        x.store(builder, x.load_some(builder, line, mask), there)


@_sized
def add_lines(
    builder: Any, x: Elements, image: Any, places: Any, first: Any, last: Any, dense: Any, count: Any
) -> None:
    """The transpose: lines are added to the image, and zeros to what lies beyond them."""
    for line, there, mask in _lines(builder, x, image, places, first, last, dense, count):
        x.store(builder, builder.fadd(x.load(builder, line), x.load_some(builder, there, mask)), line)


def _lines(
    builder: Any, x: Elements, image: Any, places: Any, first: Any, last: Any, dense: Any, count: Any
) -> Iterator[tuple[Any, Any, Any]]:
    """The loops over lines and vectors: where a vector of the image is, where that of the memory, which of it is the line's."""
    number = llvm_ir().IntType(32)
    most = x.spread(builder, builder.trunc(count, number))
    with loop(builder, first, last, integer(1), dense) as (j, start, follow):
        place = x.load(builder, builder.add(places, builder.mul(j, integer(8))), llvm_ir().IntType(64))
        line = builder.add(image, builder.mul(place, integer(x.size)))
        with loop(builder, integer(0), count, integer(x.lanes), start) as (i, there, next_vector):
            here = builder.add(line, builder.mul(i, integer(x.size)))
            yield here, there, x.below(builder, builder.trunc(i, number), most)
            next_vector(builder.add(there, integer(machine()[0])))
        follow(builder.add(start, builder.mul(count, integer(x.size))))


@contextmanager
def loop(builder: Any, start: Any, stop: Any, step: Any, carried: Any) -> Iterator[tuple[Any, Any, Any]]:
    """for i in range(start, stop, step), if there is a first: i, a value that is carried on, and what sets it for the next."""
    before, body, after = (builder.block, *(builder.append_basic_block(name) for name in ("body", "after")))
    builder.cbranch(builder.icmp_signed("<", start, stop), body, after)
    builder.position_at_end(body)
    i, value = builder.phi(start.type), builder.phi(carried.type)
    i.add_incoming(start, before)
    value.add_incoming(carried, before)
    following: list[Any] = []
    yield i, value, following.append
    more = builder.add(i, step)
    i.add_incoming(more, builder.block)
    value.add_incoming(following[0], builder.block)
    builder.cbranch(builder.icmp_signed("<", more, stop), body, after)
    builder.position_at_end(after)


def _whole_or_part(builder: Any, x: Elements, count: Any, write: Callable[[Any, Any], None]) -> None:
    """Write code for ``count`` numbers, and for a whole vector without masks: AVX2 has none for bytes, so LLVM would branch.

    ``write`` is given the mask of one vector, and those of the two vectors that hold twice as many.
    """
    with builder.if_else(builder.icmp_signed("<", count, integer(x.lanes))) as (part, whole):
        with part:
            write(x.masks(builder, count, 1)[0], x.masks(builder, builder.add(count, count), 2))
        with whole:
            write(None, (None, None))


@_sized
def greatest_of_pairs(builder: Any, x: Elements, above: Any, below: Any, target: Any, taken: Any, count: Any) -> None:
    """Maxima of squares of four, two numbers from each of two rows, and which of the four each is: the first of equal ones, and
    a NaN before any number. A vector of them, or ``count`` if that is less.
    """
    ir, bytes = llvm_ir(), Elements(1, lanes=x.lanes)
    places = ir.VectorType(ir.IntType(32), x.lanes)

    def write(mask: Any, masks: Any) -> None:
        four = []
        for row in (above, below):
            starts = [builder.add(row, integer(i * machine()[0])) for i in range(2)]
            halves = [x.load_some(builder, place, some) for place, some in zip(starts, masks, strict=True)]
            for side in range(2):
                every_other = ir.Constant(places, list(range(side, 2 * x.lanes, 2)))
                four.append(builder.shuffle_vector(*halves, every_other))
        best, tap = four[0], bytes.zero()
        for i, number in enumerate(four[1:], 1):
            greater = builder.fcmp_ordered(">", number, best)
            wins = builder.or_(greater, builder.fcmp_unordered("uno", number, number))
            best = builder.select(wins, number, best)
            tap = builder.select(wins, bytes.spread(builder, bytes.one(i)), tap)
        x.store_some(builder, best, target, mask)
        bytes.store_some(builder, tap, taken, mask)

    _whole_or_part(builder, x, count, write)


@_sized
def spread_pairs(builder: Any, x: Elements, source: Any, taken: Any, target: Any, tap: Any, count: Any) -> None:
    """Two numbers for each in ``source``: it itself where its byte in ``taken`` is ``tap``, or the next; else zero.

    A vector of them, or ``count`` if that is less.
    """
    ir, bytes = llvm_ir(), Elements(1, lanes=x.lanes)
    places = ir.VectorType(ir.IntType(32), x.lanes)
    chosen = builder.trunc(tap, bytes.one)

    def write(mask: Any, masks: Any) -> None:
        values, taps = x.load_some(builder, source, mask), bytes.load_some(builder, taken, mask)
        pair = []
        for one in (chosen, builder.add(chosen, bytes.one(1))):
            here = builder.icmp_signed("==", taps, bytes.spread(builder, one))
            pair.append(builder.select(here, values, x.zero()))
        for half, side in enumerate(masks):
            first = half * x.lanes // 2
            order = [place for i in range(first, first + x.lanes // 2) for place in (i, x.lanes + i)]
            mixed = builder.shuffle_vector(*pair, ir.Constant(places, order))
            x.store_some(builder, mixed, builder.add(target, integer(half * machine()[0])), side)

    _whole_or_part(builder, x, count, write)


@_sized
def turn(builder: Any, x: Elements, source: Any, row: Any, target: Any, step: Any) -> None:
    """Transpose a square of as many numbers each way as a vector has. ``row``, ``step``: bytes from row to row.

    The rows of the first half are interleaved with those of the second, as cards are shuffled: log₂ n times, and they are
    columns.
    """
    ir, n = llvm_ir(), x.lanes
    places = ir.VectorType(ir.IntType(32), n)
    low, high = (
        ir.Constant(places, [place for i in half for place in (i, n + i)]) for half in (range(n // 2), range(n // 2, n))
    )
    rows = [x.load(builder, builder.add(source, builder.mul(row, integer(i)))) for i in range(n)]
    for _ in range(n.bit_length() - 1):
        pairs = [(rows[i], rows[i + n // 2]) for i in range(n // 2)]
        rows = [builder.shuffle_vector(*pair, part) for pair in pairs for part in (low, high)]
    for i, column in enumerate(rows):
        x.store(builder, column, builder.add(target, builder.mul(step, integer(i))))
