"""Convolution as matrix products: every window of the input becomes a column (im2col), a product does the rest.

With X the matrix of columns of one image, (C·k, L) for k kernel elements and L windows, and W the weight as (O, C·k):

    y = W X,    dW = dy Xᵀ,    dX = Wᵀ dy,    and dx adds the columns of dX back to where they came from (col2im).

Columns are made for a few images at a time, so that they are still in the cache when the product reads them, and made again
in backward: keeping them would cost k times the memory of the input, copying them costs a tenth of the product.
Chellapilla, Puri, Simard, "High performance convolutional neural networks for document processing", 2006.

Any number of spatial dimensions; groups are a batch dimension of the products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import numpy as np

from kobai.kernels.gemm import matmul
from kobai.kernels.windows import Windows
from kobai.xp import Array, xp_of

CACHE = 2 << 20  # bytes of columns made at a time on the host; half and double this cost a few per cent more
DEVICE = 1 << 28  # ... and on a device, where few large products are better
NARROW = 128  # an image with fewer windows has too few columns for a product of its own: a block of images shares one
FEWEST = 512  # columns of such a product at least, for the weight has to be read once for each


def _blocks(x: Array, w: Windows, channels: int, filters: int) -> Iterator[slice]:
    """Slices of the batch of ``x``: as many images at a time as fit the cache, with what the products read and write."""
    limit = CACHE if type(x) is np.ndarray else DEVICE
    length = prod(w.out)
    each = max(channels * prod(w.kernel), filters) * length * x.itemsize
    step = max(1, limit // max(1, each), FEWEST // max(1, length))
    return (slice(i, min(i + step, x.shape[0])) for i in range(0, x.shape[0], step))


class _Columns:
    """Makes the columns of one block of images after another, in the same memory.

    ``by_image``: (n, C, k, *out), a matrix for each image. Else (C, k, n, *out), one wide matrix for all of them.
    """

    def __init__(self, x: Array, w: Windows, step: int, by_image: bool) -> None:
        xp = xp_of(x)
        channels = x.shape[1]
        self.w = w
        self.by_image = by_image
        k = prod(w.kernel)
        shape = (step, channels, k, *w.out) if by_image else (channels, k, step, *w.out)
        self.memory = xp.empty(shape, dtype=x.dtype)
        self.wide = None if w.padded == w.size else xp.zeros((step, channels, *w.padded), dtype=x.dtype)

    def of(self, images: Array) -> Array:
        n = images.shape[0]
        if self.wide is not None:
            self.wide[(slice(n), slice(None), *self.w.inside)] = images  # the zeros around stay as they are
            images = self.wide[:n]
        columns = self.memory[:n] if self.by_image else self.memory[:, :, :n]
        for t, where in self.w.taps():
            part = images[(..., *where)]
            if self.by_image:
                columns[:, :, t] = part
            else:
                columns[:, t] = part.swapaxes(0, 1)
        return columns


def convolve(
    x: Array, weight: Array, w: Windows, groups: int, finish: Callable[[Array], object] | None = None
) -> Array:
    """y[n, o, p] = Σ_{c,t} weight[o, c, t] · x[n, c, p·stride + t·dilation − pad]; ``finish`` may change y in place.

    x (N, C, *size), weight (O, C / groups, *kernel), y (N, O, *out).
    """
    xp = xp_of(x)
    (n, channels), filters, length = x.shape[:2], weight.shape[0], prod(w.out)
    matrix = weight.reshape(groups, filters // groups, -1)
    y = xp.empty((n, filters, *w.out), dtype=x.dtype)
    by_image = length >= NARROW
    columns = None
    for block in _blocks(x, w, channels, filters):
        result, m = y[block], block.stop - block.start
        if w.is_pointwise and by_image:
            made = x[block]
        else:
            columns = columns or _Columns(x, w, m, by_image)
            made = columns.of(x[block])
        if by_image:
            matmul(matrix, made.reshape(m, groups, -1, length), out=result.reshape(m, groups, -1, length))
        else:
            rows = matmul(matrix, made.reshape(groups, -1, m * length))
            result[...] = rows.reshape(filters, m, *w.out).swapaxes(0, 1)
        if finish is not None:
            finish(result)
    return y


def convolve_transposed(dy: Array, weight: Array, w: Windows, groups: int) -> Array:
    """The transpose of :func:`convolve` as a map of x: dL/dx of dL/dy. dy (N, O, *out) gives (N, C, *size)."""
    xp = xp_of(dy)
    n, filters, channels, length = dy.shape[0], weight.shape[0], weight.shape[1] * groups, prod(w.out)
    matrix = weight.reshape(groups, filters // groups, -1).swapaxes(-1, -2)
    dx = xp.empty((n, channels, *w.size), dtype=dy.dtype)
    by_image = length >= NARROW
    columns = wide = None
    for block in _blocks(dy, w, channels, filters):
        m = block.stop - block.start
        if by_image and w.is_pointwise:
            into = dx[block].reshape(m, groups, -1, length)
            matmul(matrix, dy[block].reshape(m, groups, -1, length), out=into)
            continue
        if wide is None:
            wide = xp.empty((m, channels, *w.padded), dtype=dy.dtype)
        if by_image:
            if columns is None:
                columns = xp.empty((m, groups, matrix.shape[1], length), dtype=dy.dtype)
            matmul(matrix, dy[block].reshape(m, groups, -1, length), out=columns[:m])
            made = columns[:m].reshape(m, channels, -1, *w.out)
        else:
            made = matmul(matrix, _rows(dy[block], groups)).reshape(channels, -1, m, *w.out)
            made = made.transpose(2, 0, 1, *range(3, made.ndim))
        dx[block] = col2im(made, w, wide[:m])[(..., *w.inside)]
    return dx


def _rows(dy: Array, groups: int) -> Array:
    """(n, O, *out) as a row for each filter: (groups, O / groups, n · L)."""
    return dy.swapaxes(0, 1).reshape(groups, dy.shape[1] // groups, -1)


def col2im(columns: Array, w: Windows, wide: Array) -> Array:
    """Add columns (n, C, k, *out) up in ``wide`` (n, C, *padded), which is emptied first: the transpose of im2col."""
    wide[...] = 0
    for t, where in w.taps():
        wide[(..., *where)] += columns[:, :, t]
    return wide


def weight_gradient(
    x: Array, dy: Array, w: Windows, groups: int, shape: tuple[int, ...], out: Array | None = None
) -> Array:
    """dL/dweight of dL/dy: Σₙ dy Xᵀ, one product for all images of a block."""
    xp = xp_of(x)
    channels, filters = x.shape[1], shape[0]
    total = xp.zeros((groups, filters // groups, prod(shape[1:])), dtype=x.dtype)
    columns = None
    for block in _blocks(x, w, channels, filters):
        columns = columns or _Columns(x, w, block.stop - block.start, by_image=False)
        made = columns.of(x[block])
        total += matmul(_rows(dy[block], groups), made.reshape(groups, total.shape[2], -1).swapaxes(-1, -2))
    if out is None:
        return total.reshape(shape)
    out[...] = total.reshape(shape)
    return out
