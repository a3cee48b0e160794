"""Products of arrays: the one door, behind which it is decided who computes them.

    matmul(a, b)
      +-- on a device --+-- with nvmath      cuBLASLt    (kobai.cuda.cublaslt)
      |                 +-- without          CuPy
      +-- on the host --+-- with Numba       own loops   (kobai.cpu.product), a job for the threads that are awake
                        +-- without, tiny    BLAS        on one thread; a large product is split, BLAS does each part

Who computes a product on the host depends on shapes, dtypes and what is installed; how it is split, on its shape and the number
of threads. One thread does each part. So bits do not depend on what else the machine does; those of our own loops do not even
depend on the number of threads. (BLAS' own threads promise the first, too, but could not retreat when they are disturbed.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from kobai.cpu import blas
from kobai.cpu.product import EDGE, Product, grid_of, ranges
from kobai.cpu.team import share_job
from kobai.cpu.threads import num_threads, run_split
from kobai.cuda import cublaslt
from kobai.engine import dispatch
from kobai.xp import Array, recorder, xp_of

PART = 1 << 18
"""Multiplications that are worth a part where threads are awake, some 3 µs; what has two such parts is shared."""

FEW = 8
"""Rows and columns that a result has at least, if it is to be done in tiles."""

WORTHWHILE = 1 << 27
"""Multiplications × bytes of an element that pay for waking a thread: 0.3 ms on one, where that takes 50 µs."""

SMALL = 1 << 14
"""Multiplications of which NumPy's call is not the most, so that it pays to have them done otherwise."""


def matmul(a: Array, b: Array, out: Array | None = None, *, precision: str | None = "highest") -> Array:
    """a·b with NumPy's rules for vectors and batches; into ``out`` if given.

    ``precision`` of float32 on a device: in full, whatever is set, for nobody asked to have the terms of a sum rounded that
    we write as a product; None where users multiply, for what :func:`kobai.set_float32_matmul_precision` set.
    """
    xp = xp_of(b if type(a) is np.ndarray else a)
    if type(a) not in dispatch.HOST_TYPES or type(b) not in dispatch.HOST_TYPES:
        return _on_device(xp, a, b, out, precision)
    if a.ndim > b.ndim == 2 and a.flags.c_contiguous and a.size:  # all rows of the batch at once
        shape = (*a.shape[:-1], b.shape[1])
        rows = a.reshape(-1, a.shape[-1])
        if out is None:
            return matmul(rows, b).reshape(shape)
        if out.shape == shape and out.flags.c_contiguous:
            matmul(rows, b, out.reshape(rows.shape[0], b.shape[1]))
            return out
    if ours(a, b):
        size = _shape(a, b)
        result = xp.empty(size, dtype=a.dtype) if out is None and size else out
        if result is not None and _fits(result, a, size):
            if recorder() is not None:
                dispatch.launch(split, a, b, result)
                return result
            if _shared(a, b, result):
                return result
    return blas.on_one_thread(_by_library, xp, a, b, out)


# --- on a device ------------------------------------------------------------------------------------------------------


def _on_device(xp: Any, a: Array, b: Array, out: Array | None, precision: str | None) -> Array:
    if not cublaslt.takes(a, b):
        return xp.matmul(a, b, out=out)
    if a.ndim == 1 or b.ndim == 1:  # a row on the left, a column on the right
        left, right = a[None, :] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b
        y = _on_device(xp, left, right, None, precision)
        y = y[..., 0] if b.ndim == 1 else y
        y = y[..., 0, :] if a.ndim == 1 and b.ndim > 1 else y[..., 0] if a.ndim == 1 else y
    else:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        y = out if out is not None and out.flags.c_contiguous else None
        if y is None:
            y = xp.empty((*batch, a.shape[-2], b.shape[-1]), dtype=a.dtype)
        left, right, flat = a, b, y
        if batch:
            left, right, flat = _one_batch(a, batch), _one_batch(b, batch), y.reshape(-1, *y.shape[-2:])
        if not cublaslt.multiply(left, right, flat, precision=precision):
            xp.matmul(a, b, out=y)
    if out is not None and y is not out:
        out[...] = y
        return out
    return y


def _one_batch(array: Array, batch: tuple[int, ...]) -> Array:
    """The array with its batch dimensions as one, repeated to ``batch``: a view where memory permits (a stride may be 0)."""
    wide = xp_of(array).broadcast_to(array, (*batch, *array.shape[-2:]))
    return wide.reshape(prod(batch), *array.shape[-2:])


# --- on the host --------------------------------------------------------------------------------------------------------


_spare: list[Product] = []
"""Jobs that are not in use: to make one takes longer than to describe a product."""


def _shared(a: Array, b: Array, out: Array) -> bool:
    """Do a one-off product; False if our loops cannot."""
    try:
        job = _spare.pop()
    except IndexError:
        job = Product()
    if done := job.describe(a, b, out, *_parted(a, b, out)):
        share_job(job)
    _spare.append(job)
    return done


def _by_library(xp: Any, a: Array, b: Array, out: Array | None) -> Array:
    if not _worthwhile(a, b) or blas.threads() < 2 or not blas.switches():
        return xp.matmul(a, b, out=out)
    if out is None:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = xp.empty((*batch, a.shape[-2], b.shape[-1]), dtype=a.dtype)
    dispatch.launch(split, a, b, out)
    return out


def ours(a: Array, b: Array) -> bool:
    """Whether the product of two arrays of the host is one for our own loops. That depends on shapes and dtypes alone."""
    if not _are_matrices(a, b):
        return False
    (m, k), n = a.shape[-2:], b.shape[-1]
    return k == b.shape[-2] and m >= FEW and n >= FEW and m * n * k >= SMALL and blas.own()


def _are_matrices(a: Array, b: Array) -> bool:
    """Or batches of them, of one of the precisions that are computed with."""
    return a.ndim >= 2 and b.ndim >= 2 and a.dtype == b.dtype and a.dtype in dispatch.FLOATS


def _shape(a: Array, b: Array) -> tuple[int, ...] | None:
    """The shape of a product; None: let NumPy raise."""
    if a.ndim == b.ndim == 2:
        return a.shape[0], b.shape[1]
    try:
        return (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    except ValueError:
        return None


def _fits(out: Array, a: Array, shape: tuple[int, ...] | None) -> bool:
    return bool(out.shape == shape and out.dtype == a.dtype and out.flags.writeable and out.size)


def _parted(a: Array, b: Array, out: Array) -> tuple[tuple[int, int], int]:
    """How a product of ours is parted: a grid, and a number of parts of the batch."""
    count = max(1, min(num_threads(), out.size * a.shape[-1] // PART))
    batch = prod(out.shape[:-2])
    if batch >= count:
        return (1, 1), count
    return grid_of(*out.shape[-2:], count // batch, b.strides[-2] < b.strides[-1]), batch


def _worthwhile(a: Array, b: Array) -> bool:
    if not _are_matrices(a, b):
        return False
    multiplications = max(a.size * b.shape[-1], b.size * a.shape[-2])  # one of them has the batch
    return bool(multiplications * a.itemsize >= WORTHWHILE)


class _Split:
    """The product as a kernel: bound to its arrays it needs no more than to be run."""

    def bind(self, a: Array, b: Array, out: Array) -> Callable[[], Any]:
        fits = _fits(out, a, _shape(a, b))
        if fits and ours(a, b):
            job = Product()
            if job.describe(a, b, out, *_parted(a, b, out)):
                job.keeps = a, b, out
                return partial(share_job, job)
        if not fits or not _worthwhile(a, b) or np.may_share_memory(out, a) or np.may_share_memory(out, b):
            return partial(np.matmul, a, b, out=out)
        parts = _parts(a, b, out, blas.threads())

        def run() -> None:
            run_split(_multiply, len(parts), parts, grain=1)

        return run

    def __call__(self, a: Array, b: Array, out: Array) -> None:
        self.bind(a, b, out)()


split = _Split()

Part = tuple[Array, Array, Array]


def _multiply(parts: list[Part], start: int, stop: int) -> None:
    for a, b, out in parts[start:stop]:
        np.matmul(a, b, out=out)


def _parts(a: Array, b: Array, out: Array, count: int) -> list[Part]:
    """Views of operands and result whose products are that of the whole: at most one part for each thread."""
    batches = out.shape[0] if out.ndim > 2 else 1
    if batches >= count:

        def of(array: Array, start: int, stop: int) -> Array:
            return array[start:stop] if array.ndim == out.ndim and array.shape[0] == batches else array

        return [(of(a, i, j), of(b, i, j), out[i:j]) for i, j in ranges(batches, count, 1)]
    m, n = out.shape[-2:]
    rows, columns = grid_of(m, n, count, b.strides[-2] < b.strides[-1])
    return [
        (a[..., i:j, :], b[..., k:last], out[..., i:j, k:last])
        for i, j in ranges(m, rows, 1)
        for k, last in ranges(n, columns, EDGE)
    ]
