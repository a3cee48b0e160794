"""Windows as columns of a matrix (im2col), and its transpose, which adds columns back to where they came from (col2im).

A column holds the C·k elements that one window covers, k being the elements of the kernel. Columns are an array
(n, C, k, *out), which may be a view, so that they lie in memory in any order.
"""

from __future__ import annotations

from kobai.ops._windows import Windows, pad
from kobai.xp import Array, xp_of


def im2col(images: Array, w: Windows, columns: Array) -> None:
    """columns[n, c, t, p] ← the element of images[n, c] that the kernel's t-th meets in window p. images (n, C, *size)."""
    wide = pad(images, w)
    for t, where in w.taps():
        columns[:, :, t] = wide[(..., *where)]


def col2im(columns: Array, w: Windows, wide: Array) -> Array:
    """Add columns (n, C, k, *out) up in ``wide`` (n, C, *padded), which is emptied first: the transpose of im2col."""
    wide[...] = 0
    for t, where in w.taps():
        wide[(..., *where)] += columns[:, :, t]
    return wide


def add_columns(columns: Array, w: Windows, images: Array) -> None:
    """images (n, C, *size) ← the columns added up, those of the padding left out."""
    wide = xp_of(columns).empty((*images.shape[:2], *w.padded), dtype=columns.dtype)
    images[...] = col2im(columns, w, wide)[(..., *w.inside)]
