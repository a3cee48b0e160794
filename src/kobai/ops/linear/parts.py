"""Gradients of a dense layer whose rows belong to parts of a batch: each part's by itself, added in the order of the tree.

A part's gradient is as large as the layer, so writing and reading all of them would take longer than computing them. They are
computed for some of the weight's rows at a time, and added while they lie in a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from kobai.ops._matmul import matmul
from kobai.ops._tree_sums import tree_into
from kobai.ops.linear.columns import column_sums
from kobai.xp import Array, xp_of

sizes: ContextVar[tuple[int, ...]] = ContextVar("sizes", default=())
"""Within a backward pass of a batch in parts, a power of two of them: how many samples each has."""

BLOCK = 1 << 21
"""Bytes of all parts' gradients that are computed at a time."""


def gradients_of_parts(dz: Array, inputs: Array, samples: tuple[int, ...], sums: bool) -> tuple[Array, Array | None]:
    """Σ over parts of dz_sᵀ·x_s and, where they are asked for, of the sums over the rows of dz_s: gradients of weight and bias.

    A sample may have several rows, one behind the other.
    """
    xp, each, ends = xp_of(dz), len(dz) // sum(samples), [0]
    for n in samples:
        ends.append(ends[-1] + n * each)
    parts = [slice(*ends[i : i + 2]) for i in range(len(samples))]
    dw = xp.empty((dz.shape[1], inputs.shape[1]), dz.dtype)
    step = max(16, BLOCK // (max(1, dw.shape[1]) * dw.itemsize * len(parts)))
    products = _products(dz, inputs, parts)
    for first in range(0, len(dw), step):
        tree_into(products(first, first + step), dw[first : first + step])
    if not sums:
        return dw, None
    db = xp.empty(dz.shape[1], dz.dtype)
    tree_into([column_sums(dz[rows]) for rows in parts], db)
    return dw, db


def _products(dz: Array, inputs: Array, parts: list[slice]) -> Callable[[int, int], list[Array]]:
    """Some rows of dz_sᵀ·x_s of every part: as one batch of products where the parts have equally many rows."""
    count, rows = len(parts), parts[0].stop
    if any(part.stop - part.start != rows for part in parts):
        return lambda a, b: [matmul(dz[part, a:b].T, inputs[part], precision=None) for part in parts]
    left = dz.reshape(count, rows, dz.shape[1]).transpose(0, 2, 1)
    right = inputs.reshape(count, rows, inputs.shape[1])
    return lambda a, b: list(matmul(left[:, a:b], right, precision=None))
