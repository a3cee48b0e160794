"""Convolution as matrix products: every window of the input becomes a column (im2col), a product does the rest.

With X the matrix of columns of one image, (C·k, L) for k kernel elements and L windows, and W the weight as (O, C·k):

    y = W X,    dW = dy Xᵀ,    dX = Wᵀ dy,    and dx adds the columns of dX back to where they came from (col2im).

Columns are made for a few images at a time, so that they are still in the cache when the product reads them, and made again
in backward: keeping them would cost k times the memory of the input, copying them costs a tenth of the product.
Chellapilla, Puri, Simard, "High performance convolutional neural networks for document processing", 2006.

On the host the blocks of images are shared among Kobai's threads, each with columns of its own: copies and products of a block
are done by one thread, which has them in its cache. On a device there are few large blocks, one after another.

Any number of spatial dimensions; groups are a batch dimension of the products.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from queue import SimpleQueue
from typing import Any, NamedTuple

from kobai.kernels import blas, gemm
from kobai.kernels.engine import HOST_TYPES, launch
from kobai.kernels.im2col import add_columns, im2col, needs_room
from kobai.kernels.threads import run_split
from kobai.kernels.windows import Windows
from kobai.xp import Array, xp_of

CACHE = 2 << 20  # bytes of columns made at a time on the host; half and double this cost a few per cent more
DEVICE = 1 << 28  # ... and on a device, where few large products are better
NARROW = 128  # an image with fewer windows has too few columns for a product of its own: a block of images shares one
FEWEST = 512  # columns of such a product at least, for the weight has to be read once for each


class Plan(NamedTuple):
    """How a batch is cut: blocks of ``step`` images, ``workers`` at a time. A matrix for each image, or one for a block."""

    w: Windows
    groups: int
    channels: int
    filters: int
    images: int
    step: int
    workers: int
    by_image: bool
    host: bool

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.images // self.step)

    @property
    def windows(self) -> int:
        """L, the windows of one image."""
        return prod(self.w.out)

    @property
    def direct(self) -> bool:
        """Whether the images are their own columns, for a product each."""
        return self.by_image and self.w.is_pointwise

    def block(self, i: int) -> slice:
        """The images of the i-th block."""
        return slice(i * self.step, min((i + 1) * self.step, self.images))

    def product(self, a: Array, b: Array, out: Array) -> None:
        """out ← a·b, within a block."""
        if self.host:
            blas.multiply(a, b, out)
        else:
            gemm.matmul(a, b, out=out)

    def columns(self, memory: Array, m: int, by_image: bool) -> Array:
        """The columns of m images in this memory, as (m, C, k, *out), whatever their order is."""
        k, out = prod(self.w.kernel), self.w.out
        part = memory[: m * self.channels * k * self.windows]
        if by_image:
            return part.reshape(m, self.channels, k, *out)
        return part.reshape(self.channels, k, m, *out).transpose(2, 0, 1, *range(3, 3 + len(out)))


def plan_of(x: Array, w: Windows, channels: int, filters: int, groups: int) -> Plan:
    """For a batch of ``x``: as many images at a time as fit the cache, with what the products read and write."""
    host = type(x) in HOST_TYPES
    workers = blas.workers() if host else 1
    n, length = x.shape[0], prod(w.out)
    each = max(channels * prod(w.kernel), filters) * length * x.itemsize
    step = max(1, (CACHE if host else DEVICE) // max(1, each), FEWEST // max(1, length))
    step = max(1, min(step, -(-n // workers)))
    return Plan(w, groups, channels, filters, n, step, min(workers, -(-n // step)), length >= NARROW, host)


# --- the three products -----------------------------------------------------------------------------------------------


def convolve(x: Array, weight: Array, w: Windows, groups: int, bias: Array | None = None) -> Array:
    """y[n, o, p] = b[o] + Σ_{c,t} weight[o, c, t] · x[n, c, p·stride + t·dilation − pad].

    x (N, C, *size), weight (O, C / groups, *kernel), bias (O), y (N, O, *out).
    """
    plan, xp = plan_of(x, w, x.shape[1], weight.shape[0], groups), xp_of(x)
    x = _plain(x, plan)
    y = xp.empty((plan.images, plan.filters, *w.out), dtype=x.dtype)
    matrix = weight.reshape(groups, plan.filters // groups, -1)
    shift = None if bias is None else bias.reshape(-1, *(1,) * len(w.out))
    _shared(_forward, plan, plan.blocks, _memory(plan, x, rows=not plan.by_image), x, matrix, shift, y)
    return y


def convolve_transposed(dy: Array, weight: Array, w: Windows, groups: int) -> Array:
    """The transpose of :func:`convolve` as a map of x: dL/dx of dL/dy. dy (N, O, *out) gives (N, C, *size)."""
    plan, xp = plan_of(dy, w, weight.shape[1] * groups, weight.shape[0], groups), xp_of(dy)
    dy = _plain(dy, plan)
    dx = xp.empty((plan.images, plan.channels, *w.size), dtype=dy.dtype)
    matrix = weight.reshape(groups, plan.filters // groups, -1).swapaxes(-1, -2)
    _shared(_backward, plan, plan.blocks, _memory(plan, dy, rows=not plan.by_image), dy, matrix, dx)
    return dx


def weight_gradient(
    x: Array, dy: Array, w: Windows, groups: int, shape: tuple[int, ...], out: Array | None = None
) -> Array:
    """dL/dweight of dL/dy: Σₙ dy Xᵀ, one product for all images of a block.

    Each worker adds up its share of the blocks, always the same one, and their sums are added in order.
    """
    plan, xp = plan_of(x, w, x.shape[1], shape[0], groups), xp_of(x)
    x, dy = _plain(x, plan), _plain(dy, plan)
    totals = xp.zeros((max(1, plan.workers), groups, shape[0] // groups, prod(shape[1:])), dtype=x.dtype)
    memory = _memory(plan, x, rows=True, product=totals.shape[1:])
    _shared(_weights, plan, plan.workers if plan.images else 0, memory, x, dy, totals)
    total = totals[0] if plan.workers <= 1 else totals.sum(axis=0)
    if out is None:
        return total.reshape(shape)
    out[...] = total.reshape(shape)
    return out


# --- a block after another --------------------------------------------------------------------------------------------

Memory = tuple[Array, ...]
"""What one worker writes to on the way: columns; filters' rows; a product; the padded images. What is not needed is empty."""


def _plain(x: Array, plan: Plan) -> Array:
    """``x`` row by row in memory on the host, as the compiled loops need it."""
    return xp_of(x).ascontiguousarray(x) if plan.host else x


def _memory(plan: Plan, x: Array, rows: bool, product: tuple[int, ...] = (0,)) -> list[Memory]:
    """One for each worker."""
    xp, w, m = xp_of(x), plan.w, plan.step
    columns = 0 if plan.direct and product == (0,) else m * plan.channels * prod(w.kernel) * plan.windows
    room = (m, plan.channels, *w.padded) if needs_room(x, w) else (0,)
    return [
        (
            xp.empty(columns, dtype=x.dtype),
            xp.empty(m * plan.filters * plan.windows if rows else 0, dtype=x.dtype),
            xp.empty(product, dtype=x.dtype),
            xp.zeros(room, dtype=x.dtype),
        )
        for _ in range(plan.workers)
    ]


class _Shares:
    """A loop over n blocks, or over shares of them, that workers divide among themselves: a kernel for ``launch``."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function

    def bind(self, plan: Plan, n: int, memory: list[Memory], *args: Any) -> Callable[[], None]:
        free = _free(memory)

        def run() -> None:
            with blas.one_thread():
                if plan.workers == 1:
                    self.function(plan, free, *args, 0, n)
                else:
                    run_split(self.function, n, plan, free, *args, grain=1)

        return run

    def __call__(self, *args: Any) -> None:
        self.bind(*args)()


def _shared(shares: _Shares, plan: Plan, n: int, memory: list[Memory], *args: Any) -> None:
    if not n:
        return
    if plan.host:
        launch(shares, plan, n, memory, *args)
    else:
        shares.function(plan, _free(memory), *args, 0, n)


def _free(memory: list[Memory]) -> SimpleQueue[Memory]:
    """A thread that finds nothing here waits: there may be more threads than were planned for."""
    free: SimpleQueue[Memory] = SimpleQueue()
    for one in memory:
        free.put(one)
    return free


def _by_filter(dy: Array, plan: Plan, rows: Array) -> Array:
    """dy (m, O, *out) with a row for each filter: (groups, O / groups, m · L), in the memory of ``rows``."""
    m = dy.shape[0]
    part = rows[: dy.size].reshape(plan.filters, m, *plan.w.out)
    part[...] = dy.swapaxes(0, 1)
    return part.reshape(plan.groups, plan.filters // plan.groups, -1)


def _room(room: Array, m: int) -> Array | None:
    return room[:m] if room.size else None


@_Shares
def _forward(
    plan: Plan, free: SimpleQueue[Memory], x: Array, matrix: Array, shift: Any, y: Array, start: int, stop: int
) -> None:
    mine = free.get()
    try:
        flat, rows, _, room = mine
        for images in map(plan.block, range(start, stop)):
            result = y[images]
            m = result.shape[0]
            if plan.direct:
                columns = x[images]
            else:
                columns = plan.columns(flat, m, plan.by_image)
                im2col(x[images], plan.w, columns, _room(room, m))
            if plan.by_image:
                shape = (m, plan.groups, -1, plan.windows)
                plan.product(matrix, columns.reshape(shape), result.reshape(shape))
            else:
                wide = flat[: columns.size].reshape(plan.groups, -1, m * plan.windows)
                part = rows[: result.size]
                plan.product(matrix, wide, part.reshape(plan.groups, -1, m * plan.windows))
                result[...] = part.reshape(plan.filters, m, *plan.w.out).swapaxes(0, 1)
            if shift is not None:
                result += shift
    finally:
        free.put(mine)


@_Shares
def _backward(
    plan: Plan, free: SimpleQueue[Memory], dy: Array, matrix: Array, dx: Array, start: int, stop: int
) -> None:
    mine = free.get()
    try:
        flat, rows, _, room = mine
        for images in map(plan.block, range(start, stop)):
            above, into = dy[images], dx[images]
            m = above.shape[0]
            if plan.by_image:
                shape = (m, plan.groups, -1, plan.windows)
                made = into if plan.direct else plan.columns(flat, m, True)
                plan.product(matrix, above.reshape(shape), made.reshape(shape))
            else:
                made = plan.columns(flat, m, False)
                wide = flat[: made.size].reshape(plan.groups, -1, m * plan.windows)
                plan.product(matrix, _by_filter(above, plan, rows), wide)
            if not plan.direct:
                add_columns(made, plan.w, into, _room(room, m))
    finally:
        free.put(mine)


@_Shares
def _weights(plan: Plan, free: SimpleQueue[Memory], x: Array, dy: Array, totals: Array, start: int, stop: int) -> None:
    mine = free.get()
    try:
        flat, rows, product, room = mine
        for share in range(start, stop):
            first, last = (plan.blocks * i // plan.workers for i in (share, share + 1))
            for images in map(plan.block, range(first, last)):
                m = min(images.stop, plan.images) - images.start
                columns = plan.columns(flat, m, False)
                im2col(x[images], plan.w, columns, _room(room, m))
                wide = flat[: columns.size].reshape(plan.groups, -1, m * plan.windows)
                plan.product(_by_filter(dy[images], plan, rows), wide.swapaxes(-1, -2), product)
                totals[share] += product
    finally:
        free.put(mine)
