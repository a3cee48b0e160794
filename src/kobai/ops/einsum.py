"""Einstein summation, as a chain of matrix products.

Two operands are contracted by sorting their indices into four groups – *batch* (in both and kept), *summed* (in both, not
kept), and the free ones of either side – and reshaping them to one batched matrix product, which BLAS computes.
"""

from __future__ import annotations

import math
from functools import lru_cache
from string import ascii_letters
from typing import Any, NamedTuple

import numpy as np

from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.ops._args import drawn, need_tensor
from kobai.ops._matmul import matmul
from kobai.ops._sums import total
from kobai.xp import Array, quiet, xp_of

__all__ = ["einsum"]


@lru_cache(maxsize=4096)
def _kept(labels: str, keep: str) -> tuple[str, tuple[int, ...], str]:
    """Labels without repetition, the axes among them that ``keep`` has not, and those that it has."""
    unique = "".join(dict.fromkeys(labels))
    return unique, tuple(i for i, c in enumerate(unique) if c not in keep), "".join(c for c in unique if c in keep)


def _reduce_to(x: Array, labels: str, keep: str) -> tuple[Array, str]:
    """Take diagonals of repeated labels and sum over labels that are not in ``keep``."""
    unique, axes, rest = _kept(labels, keep)
    if unique != labels:
        x = xp_of(x).einsum(f"{labels}->{unique}", x)
    if axes:
        summed = total(x, axes) if x.dtype.kind in FLOATING else x.sum(axis=axes, dtype=np.int64)
        x = xp_of(x).asarray(summed)
    return x, rest


class _Plan(NamedTuple):
    """How two operands become two batches of matrices, and their product the result."""

    sums: bool
    left: tuple[tuple[int, ...], tuple[int, ...]]  # order of the axes, shape
    right: tuple[tuple[int, ...], tuple[int, ...]]
    shape: tuple[int, ...]
    labels: str


@lru_cache(maxsize=4096)
def _plan(la: str, left: tuple[int, ...], lb: str, right: tuple[int, ...], keep: str) -> _Plan:
    size = {**dict(zip(la, left, strict=True)), **dict(zip(lb, right, strict=True))}
    batch = [c for c in la if c in lb and c in keep]
    summed = [c for c in la if c in lb and c not in keep]
    free_a = [c for c in la if c not in lb]
    free_b = [c for c in lb if c not in la]

    def matrices(labels: str, rows: list[str], columns: list[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        order = tuple(labels.index(c) for c in batch + rows + columns)
        groups = (batch, rows, columns) if batch else (rows, columns)
        return order, tuple(math.prod(size[c] for c in group) for group in groups)

    labels = batch + free_a + free_b
    shape = tuple(size[c] for c in labels)
    return _Plan(bool(summed), matrices(la, free_a, summed), matrices(lb, summed, free_b), shape, "".join(labels))


def _contract(a: Array, la: str, b: Array, lb: str, keep: str) -> tuple[Array, str]:
    """Sum of products of two operands over the labels they share that are not in ``keep``."""
    a, la = _reduce_to(a, la, keep + lb)
    b, lb = _reduce_to(b, lb, keep + la)
    plan = _plan(la, a.shape, lb, b.shape, keep)
    if plan.sums and a.dtype != b.dtype:
        raise RuntimeError(f"einsum: expected tensors of one dtype, got {a.dtype}, {b.dtype}; convert with .to(dtype)")
    (first, rows), (second, columns) = plan.left, plan.right
    product = matmul(a.transpose(first).reshape(rows), b.transpose(second).reshape(columns), precision=None)
    return product.reshape(plan.shape), plan.labels


def _evaluate(operands: list[tuple[Array, str]], output: str) -> Array:
    x, labels = operands[0]
    for i, (y, other) in enumerate(operands[1:], start=1):
        later = "".join(rest for _, rest in operands[i + 1 :])
        x, labels = _contract(x, labels, y, other, output + later)
    x, labels = _reduce_to(x, labels, output)
    return x.transpose([labels.index(c) for c in output])


def _gradient(i: int, operands: list[tuple[Array, str]], dy: Array, output: str) -> Array:
    """d/d(operand i): contract dy with all the others; labels it had to itself are spread, repeated ones put on a diagonal."""
    x, labels = operands[i]
    unique = "".join(dict.fromkeys(labels))
    others = [operand for j, operand in enumerate(operands) if j != i]
    reachable = set(output).union(*(other for _, other in others)) if others else set(output)
    target = "".join(c for c in unique if c in reachable)
    g = _evaluate([(dy, output), *others], target)
    size = dict(zip(labels, x.shape, strict=True))
    xp = xp_of(x)
    g = g.reshape([size[c] if c in reachable else 1 for c in unique])
    if not others or target != unique:
        g = xp.array(xp.broadcast_to(g, [size[c] for c in unique]))  # a fresh array: so far it may be a view of dy
    if unique != labels:
        whole = xp.zeros_like(x)
        ranges = {c: xp.arange(size[c]).reshape(-1, *(1,) * (len(unique) - 1 - i)) for i, c in enumerate(unique)}
        whole[tuple([ranges[c] for c in labels])] = g
        g = whole
    return g


@primitive(
    sample=[
        drawn([(4, 3), (3, 2)], {"inputs": ("ij", "jk"), "output": "ik"}),
        drawn([(2, 4, 3), (2, 5, 3)], {"inputs": ("bqd", "bkd"), "output": "bqk"}),
        drawn([(3, 4), (4,)], {"inputs": ("ij", "j"), "output": ""}),
        drawn((3, 3), {"inputs": ("ii",), "output": "i"}),
        drawn((3, 4), {"inputs": ("ij",), "output": "ji"}),
        lambda rng: (
            *(rng.normal(size=s) for s in ((2, 3), (4, 3, 5), (2, 5))),
            {"inputs": ("bn", "anm", "bm"), "output": "ba"},
        ),
        drawn([(0, 3), (3, 2)], {"inputs": ("ij", "jk"), "output": "ik"}),
    ]
)
@quiet
def _einsum(*operands: Array, inputs: tuple[str, ...], output: str) -> Any:
    pairs = list(zip(operands, inputs, strict=True))
    y = _evaluate(pairs, output)
    if len(operands) == 1:
        y = xp_of(y).array(y)  # so far it may be a view

    def vjp(dy: Array) -> Any:
        pairs = list(zip(operands, inputs, strict=True))
        return [lambda i=i: _gradient(i, pairs, dy, output) for i in range(len(operands))]

    return y, vjp


def _by_lists(given: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """Equation and operands of (operand, list, operand, list, ..., list of the result)."""

    def letters(subscripts: Any) -> str:
        return "".join("..." if i is Ellipsis else ascii_letters[i] for i in subscripts)

    result = f"->{letters(given[-1])}" if len(given) % 2 else ""
    lists = given[1 : len(given) - len(given) % 2 : 2]
    return ",".join(map(letters, lists)) + result, given[0 : 2 * len(lists) : 2]


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sum of products of elements whose index letters agree, over the letters missing after ``->``.

    Without ``->`` the result has the letters that occur once, in alphabetical order. ``...`` stands for leading dimensions
    that all operands share (their sizes must be equal). A letter twice in one operand takes the diagonal. Or without an
    equation, each operand followed by a list of integers for letters, at the end one for the result: einsum(a, [0, 1], [1, 0]).

    >>> import kobai
    >>> a, b = kobai.ones(2, 3), kobai.ones(3, 4)
    >>> kobai.einsum("ij,jk->ik", a, b).shape
    kobai.Size([2, 4])
    """
    if isinstance(equation, Tensor):
        equation, operands = _by_lists((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    need_tensor("einsum", *operands)
    inputs, output = _parsed(equation, tuple(tensor._array.shape for tensor in operands))
    return _einsum(*operands, inputs=inputs, output=output)


@lru_cache(maxsize=4096)
def _parsed(equation: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[str, ...], str]:
    """The letters of each operand and of the result."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(shapes):
        raise RuntimeError(f"einsum: {equation!r} names {len(inputs)} operands, got {len(shapes)}")
    spare = [c for c in ascii_letters if c not in equation]
    dots = max(
        (len(shape) - len(s.replace("...", "")) for s, shape in zip(inputs, shapes, strict=True) if "..." in s),
        default=0,
    )
    ellipsis = "".join(spare[:dots])
    full = []
    for subscripts, shape in zip(inputs, shapes, strict=True):
        covered = len(shape) - len(subscripts.replace("...", ""))
        full.append(subscripts.replace("...", ellipsis[dots - covered :] if covered > 0 else ""))
        if len(full[-1]) != len(shape) or not set(full[-1]) <= set(ascii_letters):
            raise RuntimeError(f"einsum: {subscripts!r} of {equation!r} does not fit an operand of shape {shape}")
    letters = "".join(full)
    if arrow:
        output = right.replace("...", ellipsis)
    else:
        output = ellipsis + "".join(sorted(c for c in set(letters) if letters.count(c) == 1 and c not in ellipsis))
    if len(set(output)) != len(output) or not set(output) <= set(letters):
        raise RuntimeError(f"einsum: the result {right!r} of {equation!r} must name letters of the operands, each once")
    sizes: dict[str, int] = {}
    for subscripts, shape in zip(full, shapes, strict=True):
        for c, n in zip(subscripts, shape, strict=True):
            if sizes.setdefault(c, n) != n:
                raise RuntimeError(f"einsum: index {c!r} of {equation!r} has sizes {sizes[c]} and {n}")
    return tuple(full), output
