"""A tile of a product whose factors are not matrices: tables say where their numbers lie (see :mod:`kobai.cpu.tiles`).

    C[i, j] = Σ_p A[i, p]·B[p, j],    A[i, p] lies at a + a_rows[i] + a_places[p],
                                      B[p, j] at b + b_places[p] + 4 j

A convolution of stride 1 is such a product: of one element of the kernel, the numbers that a run of windows meets lie behind
each other in the image itself. What a tile costs more than one of matrices is to read two places for each p.
"""

from __future__ import annotations

from typing import Any

from kobai.cpu.tiles import VECTORS, Elements, _write, integer, loop, machine
from kobai.engine.dispatch import instruction, llvm_ir


@instruction
def tile_at(
    builder: Any, rows: Any, columns: Any, k: Any, a: Any, a_rows: Any, a_places: Any, b: Any, b_places: Any, c: Any,
    c_row: Any, add: Any,
) -> None:  # fmt: skip
    """C ← A·B of float32, or C ← C + A·B if ``add`` is not 0, as :func:`kobai.cpu.tiles.tile` does it.

    The tables hold bytes as integers of 64 bits: ``rows`` of them, and k and k. Whole vectors of B are read, of two or one.
    """
    x = Elements(4)
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
            sums = _sums(x, builder, r, vectors, k, a, a_rows, a_places, b, b_places)
            places = [builder.add(c, builder.mul(c_row, integer(i))) for i in range(r)]
            _write(x, builder, sums, places, columns, adds)
            builder.branch(end)
    builder.position_at_end(end)


@instruction
def put_places(builder: Any, first: Any, step: Any, count: Any, table: Any) -> None:
    """Write first, first + step, … into a table."""
    with loop(builder, integer(0), count, integer(1), first) as (i, place, follow):
        word = builder.inttoptr(builder.add(table, builder.shl(i, integer(3))), place.type.as_pointer())
        builder.store(place, word)
        follow(builder.add(place, step))


def _sums(
    x: Elements,
    builder: Any,
    rows: int,
    vectors: int,
    k: Any,
    a: Any,
    a_rows: Any,
    a_places: Any,
    b: Any,
    b_places: Any,
) -> list[list[Any]]:
    """The loop over p."""
    word = llvm_ir().IntType(64)

    def place(address: Any) -> Any:
        return x.load(builder, address, word)

    starts = [builder.add(a, place(builder.add(a_rows, integer(8 * i)))) for i in range(rows)]
    before, body, after = builder.block, *(builder.append_basic_block(name) for name in ("body", "after"))
    stop = builder.shl(k, integer(3))
    builder.branch(body)
    builder.position_at_end(body)
    p = builder.phi(word)
    p.add_incoming(integer(0), before)
    sums = [[builder.phi(x.vector) for _ in range(vectors)] for _ in range(rows)]
    at_a, at_b = place(builder.add(a_places, p)), builder.add(b, place(builder.add(b_places, p)))
    row = [x.load(builder, builder.add(at_b, integer(v * machine()[0]))) for v in range(vectors)]
    new: list[list[Any]] = []
    for start in starts:
        one = x.spread(builder, x.load(builder, builder.add(start, at_a), x.one))
        old = sums[len(new)]
        new.append([x.call(builder, f"fma.{x.name}", x.vector, [one, row[v], old[v]]) for v in range(vectors)])
    for old_row, new_row in zip(sums, new, strict=True):
        for old, value in zip(old_row, new_row, strict=True):
            old.add_incoming(x.zero(), before)
            old.add_incoming(value, body)
    more = builder.add(p, integer(8))
    p.add_incoming(more, body)
    builder.cbranch(builder.icmp_signed("<", more, stop), body, after)
    builder.position_at_end(after)
    return new
