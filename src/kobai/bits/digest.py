"""Digests of arrays, and numbers that have the same bits wherever they are drawn."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

__all__ = ["Digest", "on_grid"]


class Digest:
    """SHA-256 over dtype, shape and bytes of arrays. Any NaN is one NaN: its sign and payload are nobody's promise.

    >>> str(Digest(np.float32([0.0, np.nan]))) == str(Digest(np.float32([0.0, -np.nan])))
    True
    """

    def __init__(self, *arrays: Any) -> None:
        self.hash = hashlib.sha256()
        for array in arrays:
            self.add(array)

    def add(self, array: Any) -> None:
        """Take one more array."""
        array = np.array(array)
        if array.dtype.kind == "f":
            array[np.isnan(array)] = np.nan
        self.hash.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())

    def __str__(self) -> str:
        return self.hash.hexdigest()[:12]


def on_grid(x: Any) -> np.ndarray:
    """Numbers near x, on a grid: the same bits where NumPy draws a sample by other code, and as many as a float has.

    >>> float(on_grid(0.5))
    0.499995
    """
    return np.asarray(np.round(x * 2.0**20) * (0.99999 / 2.0**20))
