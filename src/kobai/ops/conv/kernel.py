"""Convolution as matrix products: every window of the input becomes a column (im2col), a product does the rest.

With X the matrix of columns of one image, (C·k, L) for k kernel elements and L windows, and W the weight as (O, C·k):

    y = W X,    dW = dy Xᵀ,    dX = Wᵀ dy,    and dx adds the columns of dX back to where they came from (col2im).

Columns are made for a few images at a time and made again in backward: keeping them would cost k times the memory of the input,
copying them costs a tenth of the product. Chellapilla, Puri, Simard, "High performance convolutional neural networks for
document processing", 2006.

On the host with Numba, :mod:`kobai.ops.conv.image_loops` and, for stride 1, :mod:`kobai.ops.conv.direct` do this, and
:mod:`kobai.ops.conv.depthwise` what is no product.
The code here serves devices, which prefer few large products, and the host without Numba. Any number of spatial dimensions;
groups are a batch dimension of the products.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any, NamedTuple

from kobai.cpu import blas
from kobai.cpu.lanes import total as lanes_total
from kobai.engine.dispatch import FLOATS, HOST, HOST_TYPES, as_written, engine_for, launch
from kobai.ops._matmul import matmul
from kobai.ops._rows import launch_split
from kobai.ops._sums import total
from kobai.ops._windows import Windows
from kobai.ops.conv import depthwise, jobs
from kobai.ops.conv.im2col import add_columns, im2col
from kobai.xp import Array, xp_of

CACHE = 2 << 20  # bytes of columns made at a time on the host; half and double this cost a few per cent more
DEVICE = 1 << 28  # ... and on a device, where few large products are better
NARROW = 128  # images with fewer windows share a product, a block of them at a time
FEWEST = 512  # columns of such a product at least: each product reads the whole weight
GRAIN = 1 << 18  # elements to sum that are worth a thread

multiply = partial(matmul, precision=None)  # as the user has set it


class BatchPlan(NamedTuple):
    """How a batch is cut: into blocks of ``step`` images, with one matrix per image or one per block."""

    w: Windows
    groups: int
    channels: int
    filters: int
    images: int
    step: int
    by_image: bool

    @property
    def windows(self) -> int:
        """L, the windows of one image."""
        return prod(self.w.out)

    @property
    def direct(self) -> bool:
        """Whether the images themselves are the columns."""
        return self.by_image and self.w.is_pointwise

    def blocks(self) -> list[slice]:
        """The images of each block."""
        return [slice(i, min(i + self.step, self.images)) for i in range(0, self.images, self.step)]

    def columns(self, x: Array, m: int, by_image: bool) -> Array:
        """Empty memory for the columns of m images like ``x``, as (m, C, k, *out)."""
        k, out = prod(self.w.kernel), self.w.out
        if by_image:
            return xp_of(x).empty((m, self.channels, k, *out), dtype=x.dtype)
        columns = xp_of(x).empty((self.channels, k, m, *out), dtype=x.dtype)
        return columns.transpose(2, 0, 1, *range(3, 3 + len(out)))

    def side_by_side(self, columns: Array) -> Array:
        """Columns that :meth:`columns` made for a block, as (groups, C / groups · k, m · L)."""
        order = (1, 2, 0, *range(3, columns.ndim))
        m, channels, k = columns.shape[:3]
        return columns.transpose(order).reshape(self.groups, channels // self.groups * k, m * self.windows)


def plan_of(x: Array, w: Windows, channels: int, filters: int, groups: int) -> BatchPlan:
    """The plan for a batch ``x``: as many images at a time as fit the cache with the products' operands."""
    n, length = x.shape[0], prod(w.out)
    each = max(channels * prod(w.kernel), filters) * length * x.itemsize
    step = max(1, (CACHE if type(x) in HOST_TYPES else DEVICE) // max(1, each), FEWEST // max(1, length))
    return BatchPlan(w, groups, channels, filters, n, min(step, max(1, n)), length >= NARROW)


def _compiled(*arrays: Array) -> bool:
    """Whether the compiled loops can take these arrays."""
    dtype = arrays[0].dtype
    return (
        dtype in FLOATS
        and all(type(array) in HOST_TYPES and array.dtype == dtype and array.size for array in arrays)
        and blas.own()
    )


# --- the three products -----------------------------------------------------------------------------------------------


def convolve(x: Array, weight: Array, w: Windows, groups: int, bias: Array | None = None) -> Array:
    """y[n, o, p] = b[o] + Σ_{c,t} weight[o, c, t] · x[n, c, p·stride + t·dilation − pad].

    x (N, C, *size), weight (O, C / groups, *kernel), bias (O), y (N, O, *out).
    """
    xp, filters = xp_of(x), weight.shape[0]
    y = xp.empty((x.shape[0], filters, *w.out), dtype=x.dtype)
    if _compiled(x, weight, y) and (bias is None or _compiled(x, bias)):
        flat = None if bias is None else xp.ascontiguousarray(bias)
        x, weight = xp.ascontiguousarray(x), xp.ascontiguousarray(weight)
        if depthwise.takes(w, groups, x.shape[1]):
            depthwise.convolve(w, x, weight, flat, y)
        else:
            launch(jobs.convolve, w, groups, x, weight, flat, y)
        return y
    plan = plan_of(x, w, x.shape[1], filters, groups)
    matrix = weight.reshape(groups, filters // groups, prod(weight.shape[1:]))
    for images in plan.blocks():
        result = y[images]
        m = result.shape[0]
        columns = x[images]
        if not plan.direct:
            columns = plan.columns(x, m, plan.by_image)
            im2col(x[images], w, columns)
        if plan.by_image:
            shape = (m, groups, matrix.shape[2], plan.windows)
            multiply(matrix, columns.reshape(shape), out=result.reshape(m, groups, matrix.shape[1], plan.windows))
        else:
            rows = multiply(matrix, plan.side_by_side(columns))
            result[...] = rows.reshape(filters, m, *w.out).swapaxes(0, 1)
        if bias is not None:
            result += bias.reshape(-1, *(1,) * len(w.out))
    return y


def convolve_transposed(dy: Array, weight: Array, w: Windows, groups: int) -> Array:
    """The transpose of :func:`convolve` as a map of x: dL/dx of dL/dy. dy (N, O, *out) gives (N, C, *size)."""
    xp, filters, channels = xp_of(dy), weight.shape[0], weight.shape[1] * groups
    dx = xp.empty((dy.shape[0], channels, *w.size), dtype=dy.dtype)
    if _compiled(dy, weight, dx):
        dy, weight = xp.ascontiguousarray(dy), xp.ascontiguousarray(weight)
        if depthwise.takes(w, groups, channels):
            depthwise.convolve_transposed(w, dy, weight, dx)
        else:
            launch(jobs.convolve_transposed, w, groups, dy, weight, dx)
        return dx
    plan = plan_of(dy, w, channels, filters, groups)
    matrix = weight.reshape(groups, filters // groups, prod(weight.shape[1:])).swapaxes(-1, -2)
    for images in plan.blocks():
        above, into = dy[images], dx[images]
        m = above.shape[0]
        made = into if plan.direct else plan.columns(dy, m, plan.by_image)
        if plan.by_image:
            dy_shape, dx_shape = ((m, groups, rows, plan.windows) for rows in matrix.shape[:0:-1])
            multiply(matrix, above.reshape(dy_shape), out=made.reshape(dx_shape))
        else:
            multiply(matrix, _by_filter(above, plan), out=plan.side_by_side(made))
        if not plan.direct:
            add_columns(made, w, into)
    return dx


def weight_gradient(x: Array, dy: Array, w: Windows, groups: int, shape: tuple[int, ...]) -> Array:
    """dL/dweight of dL/dy: Σₙ dy Xᵀ, one product for all images of a block."""
    xp = xp_of(x)
    if _compiled(x, dy) and 0 not in shape:
        dweight = xp.empty(shape, dtype=x.dtype)
        x, dy = xp.ascontiguousarray(x), xp.ascontiguousarray(dy)
        if depthwise.takes(w, groups, x.shape[1]):
            depthwise.weight_gradient(w, x, dy, dweight)
        else:
            launch(jobs.weight_gradient, w, groups, x, dy, dweight)
        return dweight
    plan = plan_of(x, w, x.shape[1], shape[0], groups)
    total = xp.zeros((groups, shape[0] // groups, prod(shape[1:])), dtype=x.dtype)
    for images in plan.blocks():
        columns = plan.columns(x, images.stop - images.start, False)
        im2col(x[images], w, columns)
        total += multiply(_by_filter(dy[images], plan), plan.side_by_side(columns).swapaxes(-1, -2))
    return total.reshape(shape)


def channel_sums(dy: Array) -> Array:
    """Σ over images and windows of dy (N, O, *out) → (O), the gradient of the bias."""
    xp, (n, filters) = xp_of(dy), dy.shape[:2]
    if engine_for((dy,)) != HOST or not dy.size:
        return xp.asarray(total(dy, (0, *range(2, dy.ndim))))
    out = xp.empty(filters, dy.dtype)
    launch_split(_channel_sums, filters, dy.size, GRAIN, dy.reshape(n, filters, -1), out)
    return out


@as_written
def _channel_sums(dy: Any, out: Any, start: int, stop: int) -> None:
    """Each image is summed in its own dtype, the images' sums in float64, so that errors do not grow with the batch."""
    n = dy.shape[0]
    for o in range(start, stop):
        s = 0.0
        for i in range(n):
            s += lanes_total(dy[i, o])
        out[o] = s


def _by_filter(dy: Array, plan: BatchPlan) -> Array:
    """dy (m, O, *out) with a row for each filter: (groups, O / groups, m · L)."""
    return dy.swapaxes(0, 1).reshape(plan.groups, plan.filters // plan.groups, dy.shape[0] * plan.windows)
