"""Class indices: checked where the host can see them, and turned into positions."""

from __future__ import annotations

import numpy as np

from kobai.xp import Array, xp_of


def all_inside(targets: Array, classes: int) -> bool:
    """Whether every index is known to lie in [0, classes). False on a device: looking would wait for it."""
    if type(targets) is not np.ndarray:
        return False
    if targets.size == 0:
        return True
    if targets.dtype == np.int64 and targets.flags.c_contiguous:
        # as unsigned numbers the negative ones are huge: one comparison instead of two
        return int(targets.view(np.uint64).max()) < classes
    return int(targets.min()) >= 0 and int(targets.max()) < classes


def check_classes(who: str, targets: Array, classes: int, ignore_index: int) -> None:
    """IndexError naming the first index outside [0, classes) that is not ``ignore_index``; on the host only."""
    if type(targets) is not np.ndarray:
        return
    bad = ((targets < 0) | (targets >= classes)) & (targets != ignore_index)
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        where = position[0] if len(position) == 1 else position
        raise IndexError(
            f"{who}: expected class indices in [0, {classes}), got {int(targets[position])}"
            + (f" at position {where}" if position else "")
        )


def check_unit_interval(who: str, x: Array) -> None:
    """ValueError unless all elements lie in [0, 1] (nan does not); on the host only."""
    if type(x) is not np.ndarray or x.size == 0:
        return
    low, high = x.min(), x.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{who}: expected probabilities in [0, 1], got values from {low:g} to {high:g}")


def flat_indices(targets: Array) -> Array:
    """Indices of any integer dtype, shape and layout as one row of int64: what the fast kernels take."""
    if targets.dtype != np.int64 or not targets.flags.c_contiguous:
        targets = xp_of(targets).ascontiguousarray(targets.astype(np.int64, copy=False))
    return targets.reshape(-1)


def positions(targets: Array, classes: int) -> Array:
    """Where element (i, targets[i]) of a matrix with ``classes`` columns lies, counted row by row."""
    return xp_of(targets).arange(0, targets.size * classes, classes) + targets
