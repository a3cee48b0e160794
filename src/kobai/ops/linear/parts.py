"""Gradients of a dense layer whose rows belong to parts of a batch: each part's by itself, added in the order of the tree.

A part's gradient is as large as the layer, so writing and reading all of them would take longer than computing them. One
product adds as many neighbours as fit into its innermost loops (``cpu/product.py``). If that is not all, the products are
computed for some of the weight's rows at a time, and added while they lie in a cache.
"""

from __future__ import annotations

from contextvars import ContextVar
from itertools import pairwise

from kobai.cpu.product import INNER
from kobai.ops._matmul import matmul, matmul_of_parts
from kobai.ops._tree_sums import tree_into
from kobai.ops.linear.columns import column_sums
from kobai.xp import Array, xp_of

sizes: ContextVar[tuple[int, ...]] = ContextVar("sizes", default=())
"""Within a backward pass of a batch in parts, a power of two of them: how many samples each has."""

BLOCK = 1 << 21
"""Bytes of several products that are computed at a time."""


def gradients_of_parts(dz: Array, inputs: Array, samples: tuple[int, ...], sums: bool) -> tuple[Array, Array | None]:
    """Σ over parts of dz_sᵀ·x_s and, where they are asked for, of the sums over the rows of dz_s: gradients of weight and bias.

    A sample may have several rows, one behind the other.
    """
    xp, each, ends = xp_of(dz), len(dz) // sum(samples), [0]
    for n in samples:
        ends.append(ends[-1] + n * each)
    together = _together(samples, each)
    starts = ends[:-1:together]
    groups = [slice(*pair) for pair in pairwise((*starts, ends[-1]))]
    dw = xp.empty((dz.shape[1], inputs.shape[1]), dz.dtype)
    step = max(16, BLOCK // (max(1, dw.shape[1]) * dw.itemsize * len(groups))) if len(groups) > 1 else len(dw)
    for first in range(0, len(dw), step):
        out = dw[first : first + step]
        leaves = [out if len(groups) == 1 else xp.empty(out.shape, out.dtype) for _ in groups]
        for rows, leaf in zip(groups, leaves, strict=True):
            _product(dz[rows, first : first + step].T, inputs[rows], together, leaf)
        if len(groups) > 1:
            tree_into(leaves, out)
    if not sums:
        return dw, None
    db = xp.empty(dz.shape[1], dz.dtype)
    tree_into([column_sums(dz[slice(*pair)]) for pair in pairwise(ends)], db)
    return dw, db


def _together(samples: tuple[int, ...], each: int) -> int:
    """How many neighbours, a power of two, one product takes and adds: as many as have equal rows, in a block of them."""
    together = 1
    if len(set(samples)) == 1:
        while together < len(samples) and 2 * together * samples[0] * each <= INNER:
            together *= 2
    return together


def _product(a: Array, b: Array, parts: int, out: Array) -> None:
    if parts == 1:
        matmul(a, b, out, precision=None)
    else:
        matmul_of_parts(a, b, parts, out)
