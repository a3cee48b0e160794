"""Windows as columns of a matrix (im2col), and columns added back to where they came from (col2im), its transpose.

A column holds the C·k elements that one window meets, k of them in the kernel. Both functions write to columns of any order,
given as an array (n, C, k, *out) that may be a view. The zeros of the padding are written, never read: no padded copy of the
images is made where a compiled loop runs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from kobai.kernels.engine import compiled, numba_runs
from kobai.kernels.windows import Windows
from kobai.xp import Array


@lru_cache(maxsize=256)
def planar(w: Windows) -> tuple[int, ...] | None:
    """Windows in one or two dimensions as numbers for a compiled loop, None for more dimensions.

    (height, width) of input, kernel, stride, dilation, padding in front and output, in this order.
    """
    if len(w.size) > 2:
        return None
    first = (1, 1, 1, 1, 0, 1) if len(w.size) == 1 else None
    fields = zip(w.size, w.kernel, w.stride, w.dilation, [a for a, _ in w.pads], w.out, strict=True)
    rows, columns = (first, *fields) if first is not None else fields
    return tuple(int(number) for pair in zip(rows, columns, strict=True) for number in pair)


def needs_room(x: Array, w: Windows) -> bool:
    """Whether im2col and col2im need a padded copy of images like ``x``."""
    return not (numba_runs(x) and len(w.size) <= 2)


def im2col(images: Array, w: Windows, columns: Array, room: Array | None = None) -> None:
    """columns[n, c, t, p] ← the element of images[n, c] that the kernel's t-th meets in window p.

    images (n, C, *size); ``room`` (n, C, *padded), zero around the images, where :func:`needs_room` and there is padding.
    """
    geometry = planar(w)
    if room is None and geometry is not None and numba_runs(images):
        strides = _flat_strides(columns)
        _im2col(images.reshape(-1), _flat(columns), geometry, *images.shape[:2], *strides)
        return
    if room is not None and w.padded != w.size:
        room[(..., *w.inside)] = images
        images = room
    for t, where in w.taps():
        columns[:, :, t] = images[(..., *where)]


def col2im(columns: Array, w: Windows, wide: Array) -> Array:
    """Add columns (n, C, k, *out) up in ``wide`` (n, C, *padded), which is emptied first: the transpose of im2col."""
    wide[...] = 0
    for t, where in w.taps():
        wide[(..., *where)] += columns[:, :, t]
    return wide


def add_columns(columns: Array, w: Windows, images: Array, room: Array | None = None) -> None:
    """images ← the columns added up, those of the padding left out; ``room`` (n, C, *padded) where :func:`needs_room`."""
    geometry = planar(w)
    if room is None and geometry is not None:
        _col2im(images.reshape(-1), _flat(columns), geometry, *images.shape[:2], *_flat_strides(columns))
    else:
        images[...] = col2im(columns, w, room)[(..., *w.inside)]


def _flat(columns: Array) -> Array:
    """The memory of columns that are a view of all of it, in whatever order."""
    base = columns.transpose(sorted(range(columns.ndim), key=lambda i: -columns.strides[i]))
    return base.reshape(-1)


def _flat_strides(columns: Array) -> tuple[int, int, int]:
    """Distances in memory between images, channels and elements of the kernel; a window's row follows on the last."""
    a, b, d = (stride // columns.itemsize for stride in columns.strides[:3])
    return a, b, d


# --- compiled loops ---------------------------------------------------------------------------------------------------

_i = np.int64


@compiled
def _im2col(x: Any, columns: Any, geometry: Any, images: int, channels: int, a: int, b: int, d: int) -> None:
    height, width, kh, kw, sh, sw, dh, dw, ph, pw, oh, ow = geometry
    for n in range(images):
        for c in range(channels):
            plane = x[(n * channels + c) * height * width : (n * channels + c + 1) * height * width]
            for i in range(kh):
                for j in range(kw):
                    base = n * a + c * b + (i * kw + j) * d
                    shift = j * dw - pw  # window q meets column q · sw + shift of the image, if there is one
                    low = min(ow, max(0, -(shift // sw)))
                    high = max(low, min(ow, (width - 1 - shift) // sw + 1))
                    for p in range(oh):
                        row = p * sh + i * dh - ph
                        to = columns[base + p * ow : base + (p + 1) * ow]
                        if row < 0 or row >= height:
                            for q in range(ow):
                                to[q] = 0
                            continue
                        for q in range(low):
                            to[q] = 0
                        inside = to[low:high]
                        start = row * width + low * sw + shift
                        if sw == 1:
                            part = plane[start : start + inside.size]
                            for q in range(inside.size):
                                inside[q] = part[q]
                        else:
                            for q in range(inside.size):
                                inside[q] = plane[start + q * sw]
                        for q in range(high, ow):
                            to[q] = 0


@compiled
def _col2im(x: Any, columns: Any, geometry: Any, images: int, channels: int, a: int, b: int, d: int) -> None:
    height, width, kh, kw, sh, sw, dh, dw, ph, pw, oh, ow = geometry
    for n in range(images):
        for c in range(channels):
            plane = x[(n * channels + c) * height * width : (n * channels + c + 1) * height * width]
            for q in range(plane.size):
                plane[q] = 0
            for i in range(kh):
                for j in range(kw):
                    base = n * a + c * b + (i * kw + j) * d
                    shift = j * dw - pw
                    low = min(ow, max(0, -(shift // sw)))
                    high = max(low, min(ow, (width - 1 - shift) // sw + 1))
                    for p in range(oh):
                        row = p * sh + i * dh - ph
                        if row < 0 or row >= height:
                            continue
                        inside = columns[base + p * ow + low : base + p * ow + high]
                        start = row * width + low * sw + shift
                        if sw == 1:
                            part = plane[start : start + inside.size]
                            for q in range(inside.size):
                                part[q] += inside[q]
                        else:
                            for q in range(inside.size):
                                plane[start + q * sw] += inside[q]
