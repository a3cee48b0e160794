"""Sums of floats that have the same bits on every processor: Σ x and Σ x·y of arrays, inside compiled loops.

A sum that LLVM may rearrange goes into as many partial sums as the processor's vectors have lanes, four times over, and so
rounds by the width of vectors. Here there are 4·L partial sums with L = 64 bytes' worth of numbers (16 float32, 8 float64),
whatever vectors there are:

    s[v, l] = Σ x[4L·i + L·v + l]       as long as there are 4L numbers
    s[0, l] += x[L·i + l]               as long as there are L
    s[1, l] += x[l]                     of what is left
    Σ = tree over l of (s[0] + s[1]) + (s[2] + s[3])        halves onto halves

and of L numbers or fewer, the tree over l of x[l]. A processor with narrower vectors takes two or four of them for one of 64
bytes. A product is fused into its sum.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.cpu.job import load
from kobai.cpu.tiles import Elements, integer, loop
from kobai.engine.dispatch import instruction, llvm_ir, merged

VECTOR, VECTORS = 64, 4
"""Bytes of a vector of partial sums, and how many vectors."""


def _slot(builder: Any, kind: Any, count: int = 1) -> Any:
    """Memory of the function, not of a turn of its loop, for LLVM to make registers of."""
    return importlib.import_module("numba.core.cgutils").alloca_once(builder, kind, count)


def _sum(builder: Any, x: Elements, factors: list[Any], count: Any) -> Any:
    """The sum of ``count`` products of what lies at the addresses, one or two."""
    ir = llvm_ir()

    def added(s: Any, values: list[Any]) -> Any:
        return (
            x.call(builder, f"fma.{x.name}", x.vector, [*values, s]) if len(values) == 2 else builder.fadd(s, *values)
        )

    def some(at: Any, left: Any) -> list[Any]:
        (mask,) = x.masks(builder, left, 1)
        return [x.load_some(builder, builder.add(address, at), mask) for address in factors]

    result = _slot(builder, x.vector)
    bytes = builder.mul(count, integer(x.size))
    with builder.if_else(builder.icmp_signed("<=", bytes, integer(VECTOR))) as (short, long):
        with short:
            values = some(integer(0), count)
            builder.store(builder.fmul(*values) if len(values) == 2 else values[0], result)
        with long:
            slots = [_slot(builder, x.vector) for _ in range(VECTORS)]
            for slot in slots:
                builder.store(x.zero(), slot)

            def add(slot: Any, values: list[Any]) -> None:
                builder.store(added(builder.load(slot), values), slot)

            fours, wholes = (builder.and_(bytes, integer(-block)) for block in (VECTOR * VECTORS, VECTOR))
            with loop(builder, integer(0), fours, integer(VECTOR * VECTORS), integer(0)) as (at, _, follow):
                for v, slot in enumerate(slots):
                    here = builder.add(at, integer(v * VECTOR))
                    add(slot, [x.load(builder, builder.add(address, here)) for address in factors])
                follow(integer(0))
            with loop(builder, fours, wholes, integer(VECTOR), integer(0)) as (at, _, follow):
                add(slots[0], [x.load(builder, builder.add(address, at)) for address in factors])
                follow(integer(0))
            with builder.if_then(builder.icmp_signed("<", wholes, bytes)):
                add(slots[1], some(wholes, builder.sdiv(builder.sub(bytes, wholes), integer(x.size))))
            builder.store(_together(builder, slots), result)
    number = _tree(builder, builder.load(result), x.lanes)
    return builder.bitcast(number if x.size == 8 else builder.fpext(number, ir.DoubleType()), ir.IntType(64))


def _together(builder: Any, slots: list[Any]) -> Any:
    """The four vectors of sums as one."""
    a, b, c, d = map(builder.load, slots)
    return builder.fadd(builder.fadd(a, b), builder.fadd(c, d))


def _tree(builder: Any, vector: Any, lanes: int) -> Any:
    """The sum of a vector's numbers."""
    ir = llvm_ir()
    while lanes > 1:
        lanes //= 2
        half = ir.VectorType(ir.IntType(32), lanes)
        parts = [ir.Constant(half, list(range(first, first + lanes))) for first in (0, lanes)]
        vector = builder.fadd(*(builder.shuffle_vector(vector, vector, part) for part in parts))
    return builder.extract_element(vector, ir.IntType(32)(0))


def _either(builder: Any, size: Any, factors: list[Any], count: Any) -> Any:
    """The sum, as the bits of a float64, of numbers of 4 or 8 bytes."""
    result = _slot(builder, llvm_ir().IntType(64))
    with builder.if_else(builder.icmp_signed("==", size, integer(4))) as branches:
        for branch, bytes in zip(branches, (4, 8), strict=True):
            with branch:
                builder.store(_sum(builder, Elements(bytes, VECTOR // bytes), factors, count), result)
    return builder.load(result)


@instruction
def _total(builder: Any, size: Any, x: Any, count: Any) -> Any:
    return _either(builder, size, [x], count)


@instruction
def _dot(builder: Any, size: Any, x: Any, y: Any, count: Any) -> Any:
    return _either(builder, size, [x, y], count)


@merged
def total(x: Any) -> Any:
    """Σ x of a contiguous array of one dimension, of its type."""
    return x.dtype.type(np.int64(_total(x.itemsize, x.ctypes.data, x.size)).view(np.float64))


@merged
def dot(x: Any, y: Any) -> Any:
    """Σ x·y of two contiguous arrays of one dimension and one type."""
    return x.dtype.type(np.int64(_dot(x.itemsize, x.ctypes.data, y.ctypes.data, x.size)).view(np.float64))


# --- in float64 -----------------------------------------------------------------------------------------------------------

_Reader = Callable[[Any], Any]


def _two_sums(builder: Any, size: Any, count: Any, terms: Callable[[Elements, _Reader], tuple[Any, Any]]) -> Any:
    """Where Σ u and Σ u·v lie, as float64; ``terms(x, read)`` builds 8 of u and of v from what ``read`` reads at addresses."""
    result = _slot(builder, llvm_ir().DoubleType(), 2)
    with builder.if_else(builder.icmp_signed("==", size, integer(4))) as branches:
        for branch, bytes in zip(branches, (4, 8), strict=True):
            with branch:
                sums = _wide_sums(builder, Elements(bytes, VECTOR // 8), count, terms)
                for i, value in enumerate(sums):
                    builder.store(value, builder.gep(result, [integer(i)]))
    return builder.ptrtoint(result, llvm_ir().IntType(64))


def _wide_sums(
    builder: Any, x: Elements, count: Any, terms: Callable[[Elements, _Reader], tuple[Any, Any]]
) -> list[Any]:
    wide = Elements(8, x.lanes)
    results = [_slot(builder, wide.vector) for _ in range(2)]

    def built(at: Any, mask: Any = None) -> tuple[Any, Any]:
        shift = builder.mul(at, integer(x.size))

        def read(address: Any) -> Any:
            here = builder.add(address, shift)
            return x.load(builder, here) if mask is None else x.load_some(builder, here, mask)

        u, v = terms(x, read)
        return (u, v) if mask is None else (builder.select(mask, u, wide.zero()), builder.select(mask, v, wide.zero()))

    def rest(at: Any, left: Any) -> tuple[Any, Any]:
        (mask,) = x.masks(builder, left, 1)
        return built(at, mask)

    def add(v: int, u: Any, w: Any) -> None:
        builder.store(builder.fadd(builder.load(slots[0][v]), u), slots[0][v])
        old = builder.load(slots[1][v])
        builder.store(wide.call(builder, f"fma.{wide.name}", wide.vector, [u, w, old]), slots[1][v])

    with builder.if_else(builder.icmp_signed("<=", count, integer(x.lanes))) as (short, long):
        with short:
            u, w = rest(integer(0), count)
            builder.store(u, results[0])
            builder.store(builder.fmul(u, w), results[1])
        with long:
            slots = [[_slot(builder, wide.vector) for _ in range(VECTORS)] for _ in range(2)]
            for slot in (*slots[0], *slots[1]):
                builder.store(wide.zero(), slot)
            fours, wholes = (builder.and_(count, integer(-block)) for block in (x.lanes * VECTORS, x.lanes))
            with loop(builder, integer(0), fours, integer(x.lanes * VECTORS), integer(0)) as (at, _, follow):
                for v in range(VECTORS):
                    add(v, *built(builder.add(at, integer(v * x.lanes))))
                follow(integer(0))
            with loop(builder, fours, wholes, integer(x.lanes), integer(0)) as (at, _, follow):
                add(0, *built(at))
                follow(integer(0))
            with builder.if_then(builder.icmp_signed("<", wholes, count)):
                add(1, *rest(wholes, builder.sub(count, wholes)))
            for each, result in zip(slots, results, strict=True):
                builder.store(_together(builder, each), result)
    return [_tree(builder, builder.load(result), x.lanes) for result in results]


@instruction
def _moments(builder: Any, size: Any, x: Any, origin: Any, count: Any) -> Any:
    def terms(each: Elements, read: _Reader) -> tuple[Any, Any]:
        d = _away(builder, each, read(x), origin)
        return d, d

    return _two_sums(builder, size, count, terms)


@instruction
def _slopes(builder: Any, size: Any, g: Any, weight: Any, x: Any, origin: Any, count: Any) -> Any:
    def terms(each: Elements, read: _Reader) -> tuple[Any, Any]:
        u = _wide(builder, each, builder.fmul(read(g), read(weight)))
        return u, _away(builder, each, read(x), origin)

    return _two_sums(builder, size, count, terms)


@instruction
def _rectified_slopes(builder: Any, size: Any, g: Any, y: Any, bound: Any, x: Any, origin: Any, count: Any) -> Any:
    def terms(each: Elements, read: _Reader) -> tuple[Any, Any]:
        least = each.spread(builder, _number(builder, each, bound))
        u = builder.select(builder.fcmp_ordered("<=", read(y), least), each.zero(), read(g))
        return _wide(builder, each, u), _away(builder, each, read(x), origin)

    return _two_sums(builder, size, count, terms)


def _number(builder: Any, x: Elements, bits: Any) -> Any:
    """The number of type x whose value the bits of a float64 are."""
    value = builder.bitcast(bits, llvm_ir().DoubleType())
    return value if x.size == 8 else builder.fptrunc(value, x.one)


def _wide(builder: Any, x: Elements, vector: Any) -> Any:
    return vector if x.size == 8 else builder.fpext(vector, Elements(8, x.lanes).vector)


def _away(builder: Any, x: Elements, vector: Any, origin: Any) -> Any:
    """x − origin in float64, whose bits that is."""
    wide, number = Elements(8, x.lanes), builder.bitcast(origin, llvm_ir().DoubleType())
    return builder.fsub(_wide(builder, x, vector), wide.spread(builder, number))


@merged
def _pair(at: int) -> Any:
    return np.int64(load(at)).view(np.float64), np.int64(load(at + 8)).view(np.float64)


@merged
def moments(x: Any, origin: Any) -> Any:
    """Σ d and Σ d² in float64, with d = x − origin."""
    return _pair(_moments(x.itemsize, x.ctypes.data, np.float64(origin).view(np.int64), x.size))


@merged
def slopes(g: Any, weight: Any, x: Any, origin: Any) -> Any:
    """Σ u and Σ u (x − origin) in float64, with u = g·weight in their own type."""
    away = np.float64(origin).view(np.int64)
    return _pair(_slopes(x.itemsize, g.ctypes.data, weight.ctypes.data, x.ctypes.data, away, x.size))


@merged
def rectified_slopes(g: Any, y: Any, bound: Any, x: Any, origin: Any) -> Any:
    """Σ u and Σ u (x − origin) in float64, with u = g, and 0 where y ≤ bound."""
    least, away = np.float64(bound).view(np.int64), np.float64(origin).view(np.int64)
    return _pair(_rectified_slopes(x.itemsize, g.ctypes.data, y.ctypes.data, least, x.ctypes.data, away, x.size))
