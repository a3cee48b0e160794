"""Class indices in the forms that kernels take, and as positions."""

from __future__ import annotations

import numpy as np

from kobai.xp import Array, xp_of


def flat_indices(targets: Array) -> Array:
    """Indices of any integer dtype, shape and layout as one row of int64: what the fast kernels take."""
    if targets.dtype != np.int64 or not targets.flags.c_contiguous:
        targets = xp_of(targets).ascontiguousarray(targets.astype(np.int64, copy=False))
    return targets.reshape(-1)


def positions(targets: Array, classes: int) -> Array:
    """Where element (i, targets[i]) of a matrix with ``classes`` columns lies, counted row by row."""
    return xp_of(targets).arange(0, targets.size * classes, classes) + targets
