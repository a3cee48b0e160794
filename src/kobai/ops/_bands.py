"""Products with matrices whose rows have a few numbers beside each other: resampling, without multiplying by zeros."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kobai.engine.dispatch import as_written
from kobai.ops._positions import whole
from kobai.ops._rows import launch_split
from kobai.xp import Array, table, xp_of

GRAIN = 1 << 16
"""Elements of a result that are worth a thread."""


class Bands(NamedTuple):
    """Row o of the matrix is ``weights[o, :count[o]]`` from the column ``first[o]`` on."""

    first: Array
    count: Array
    weights: Array


def bands(matrix: Array) -> Bands:
    """A matrix as its bands."""
    there = matrix != 0
    first = there.argmax(axis=1)
    count = np.where(there.any(axis=1), matrix.shape[1] - there[:, ::-1].argmax(axis=1) - first, 0)
    weights = np.zeros((len(matrix), max(1, count.max(initial=0))), matrix.dtype)
    for row, (start, n) in enumerate(zip(first, count, strict=True)):
        weights[row, :n] = matrix[row, start : start + n]
    return Bands(table(first, "cpu"), table(count, "cpu"), table(weights, "cpu"))


def along(m: Bands, x: Array, axis: int) -> Array:
    """The matrix times every line of ``x`` along ``axis``; ``x`` is contiguous."""
    y = xp_of(x).empty((*x.shape[:axis], len(m.first), *x.shape[axis + 1 :]), x.dtype)
    three = whole(y, axis)
    launch_split(_along, three.shape[0], y.size, GRAIN, whole(x, axis), *m, three)
    return y


@as_written
def _along(x: Any, first: Any, count: Any, weights: Any, y: Any, start: int, stop: int) -> None:
    for b in range(start, stop):
        for o in range(first.size):
            row, band = y[b, o], weights[o, : count[o]]
            lines = x[b, first[o] : first[o] + band.size]
            if row.size == 1:
                total = row.dtype.type(0)
                for k in range(band.size):
                    total += band[k] * lines[k, 0]
                row[0] = total
            else:
                for j in range(row.size):
                    row[j] = row.dtype.type(0)
                for k in range(band.size):
                    weight, line = band[k], lines[k]
                    for j in range(row.size):
                        row[j] += weight * line[j]
