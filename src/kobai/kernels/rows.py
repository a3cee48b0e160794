"""Reductions along the rows of a matrix, (N, C) → (N,), where NumPy's own are slow: few columns, as in a classifier."""

from __future__ import annotations

import numpy as np

from kobai.xp import Array, xp_of

FEW = 64
"""Columns up to which the detour pays: NumPy starts its inner loop anew for every row (40 ns each); down the columns of a
transposed copy it runs through. 100×10 float32: 4.6 → 1.5 µs; 1024×10: 40 → 4 µs; equal at 100 columns."""


def row_max(x: Array) -> Array:
    """Largest element of every row."""
    if type(x) is np.ndarray and x.shape[1] <= FEW:
        return np.maximum.reduce(np.ascontiguousarray(x.T), axis=0)
    return x.max(axis=1)


def row_sum(x: Array) -> Array:
    """Sum of every row, as a product with ones: 1.4 µs instead of 2 for 100×10 float32, 3 instead of 14 for 1024×10."""
    return x @ xp_of(x).ones(x.shape[1], x.dtype)
