"""Products of arrays: ``matmul`` decides who computes them.

    matmul(a, b)
      +-- on a device --+-- with nvmath      cuBLASLt    (kobai.cuda.cublaslt)
      |                 +-- without          CuPy
      +-- on the host --+-- with Numba       own loops   (kobai.cpu.product), a job for the threads that are awake
                        +-- without          BLAS        on one thread; a large product is split, BLAS does each part

On the host the choice depends on dtypes and what is installed; the split, on the shape and the number of threads. One thread
does each part. So the bits do not depend on what else the machine does. Our own loops compute every product of float32 and of
float64, also the smallest, where BLAS may be quicker: an element has the same bits on any processor and on any number of
threads, and whatever stands beside it (``docs/design/0026-bits.md``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from kobai.core import tape
from kobai.cpu import blas
from kobai.cpu.lanes import dot
from kobai.cpu.product import EDGE, Product, grid_of, ranges
from kobai.cpu.team import share_job
from kobai.cpu.threads import num_threads, run_split
from kobai.cuda import cublaslt
from kobai.engine import dispatch
from kobai.xp import Array, recorder, xp_of

PART = 1 << 18
"""Multiplications worth a part of their own where threads are awake, about 3 µs; two such parts are shared."""

WORTHWHILE = 1 << 27
"""Multiplications × bytes of an element that pay for waking a thread: 0.3 ms of work, against 50 µs to wake one."""


def matmul(a: Array, b: Array, out: Array | None = None, *, precision: str | None = "highest") -> Array:
    """a·b with NumPy's rules for vectors and batches; into ``out`` if given.

    ``precision`` of float32 on a device: full by default, for sums that Kobai happens to write as products; None, where users
    multiply, for what :func:`kobai.set_float32_matmul_precision` set.
    """
    xp = xp_of(b if type(a) is np.ndarray else a)
    if type(a) not in dispatch.HOST_TYPES or type(b) not in dispatch.HOST_TYPES:
        return _on_device(xp_of(b) if type(b) is tape.taped_type else xp, a, b, out, precision)
    if a.ndim > b.ndim == 2 and a.flags.c_contiguous and a.size:  # all rows of the batch at once
        shape = (*a.shape[:-1], b.shape[1])
        rows = a.reshape(-1, a.shape[-1])
        if out is None:
            return matmul(rows, b).reshape(shape)
        if out.shape == shape and out.flags.c_contiguous:
            matmul(rows, b, out.reshape(rows.shape[0], b.shape[1]))
            return out
    if ours(a, b):
        if a.ndim == b.ndim == 1:
            y = xp.empty(1, a.dtype)
            dispatch.launch(_dot, xp.ascontiguousarray(a), xp.ascontiguousarray(b), y)
            return _given(y.reshape(()), out)
        if a.ndim == 1 or b.ndim == 1:
            return _given(_of_vectors(matmul, a, b), out)
        size = _shape(a, b)
        if size is not None and (out is None or _fits(out, a, size)):
            result = xp.empty(size, dtype=a.dtype) if out is None else out
            if recorder() is not None:
                dispatch.launch(split, a, b, result)
            else:
                _shared(a, b, result)
            return result
    multiplications = max(a.size * (b.shape[-1] if b.ndim > 1 else 1), b.size)
    if multiplications <= blas.TINY and blas.takes_tiny_alone():
        return xp.matmul(a, b, out=out)
    return blas.on_one_thread(_by_library, xp, a, b, out)


def matmul_of_parts(a: Array, b: Array, parts: int, out: Array) -> None:
    """out ← the sum over ``parts`` equal parts of the inner dimension, a power of two, of their products: in a balanced tree.

    Matrices that Kobai's own loops multiply (:func:`ours`), with at most INNER elements in the inner dimension.
    """
    dispatch.launch(split, a, b, out, parts)


# --- on a device ------------------------------------------------------------------------------------------------------


def _on_device(xp: Any, a: Array, b: Array, out: Array | None, precision: str | None) -> Array:
    if not cublaslt.takes(a, b):
        return xp.matmul(a, b, out=out)
    if a.ndim == 1 or b.ndim == 1:
        return _given(_of_vectors(partial(_on_device, xp, out=None, precision=precision), a, b), out)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    y = out if out is not None and out.flags.c_contiguous else None
    if y is None:
        y = xp.empty((*batch, a.shape[-2], b.shape[-1]), dtype=a.dtype)
    left, right, flat = a, b, y
    if batch:
        left, right, flat = _one_batch(a, batch), _one_batch(b, batch), y.reshape(-1, *y.shape[-2:])
    if not cublaslt.multiply(left, right, flat, precision=precision):
        xp.matmul(a, b, out=y)
    return _given(y, out)


def _of_vectors(multiply: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    """The product where ``multiply`` knows matrices alone: a vector is a row on the left, a column on the right."""
    y = multiply(a[None, :] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
    y = y[..., 0] if b.ndim == 1 else y
    if a.ndim > 1:
        return y
    return y[..., 0, :] if b.ndim > 1 else y[..., 0]


def _given(y: Array, out: Array | None) -> Array:
    """The result, in ``out`` if that was given."""
    if out is None or y is out:
        return y
    out[...] = y
    return out


def _one_batch(array: Array, batch: tuple[int, ...]) -> Array:
    """The array broadcast to ``batch``, with one batch dimension: a view where possible (a stride may be 0)."""
    wide = xp_of(array).broadcast_to(array, (*batch, *array.shape[-2:]))
    return wide.reshape(prod(batch), *array.shape[-2:])


# --- on the host --------------------------------------------------------------------------------------------------------


_spare: list[Product] = []
"""Unused jobs: making one takes longer than describing a product."""


def _shared(a: Array, b: Array, out: Array, parts: int = 1) -> None:
    """Compute a product in our own loops, or the tree of those of so many parts of the inner dimension."""
    try:
        job = _spare.pop()
    except IndexError:
        job = Product()
    if _described(job, a, b, out, parts):
        share_job(job)
    else:
        _apart(a, b, out, parts)
    _spare.append(job)


def _described(job: Product, a: Array, b: Array, out: Array, parts: int) -> bool:
    """Let the job be this product. A column is the transpose of a row, which fills vectors."""
    if out.shape[-1] == 1:
        a, b, out = b.swapaxes(-1, -2), a.swapaxes(-1, -2), out.swapaxes(-1, -2)
    return job.describe(a, b, out, *_parted(a, b, out), parts)


@dispatch.compiled
def _dot(a: Array, b: Array, out: Array) -> None:
    """out ← a·b of vectors: in partial sums, of which each is quick, and not in the order of a product of matrices."""
    out[0] = dot(a, b)


def _apart(a: Array, b: Array, out: Array, parts: int) -> None:
    """Compute what cannot be described, since the arrays lie over each other or in too many ways, of copies."""
    batch, y = out.shape[:-2], np.empty(out.shape, out.dtype)
    left, right = (np.array(np.broadcast_to(x, (*batch, *x.shape[-2:])), order="C") for x in (a, b))
    _shared(left, right, y, parts)
    out[...] = y


def _by_library(xp: Any, a: Array, b: Array, out: Array | None) -> Array:
    if not _worthwhile(a, b) or blas.threads() < 2 or not blas.switches():
        return xp.matmul(a, b, out=out)
    if out is None:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = xp.empty((*batch, a.shape[-2], b.shape[-1]), dtype=a.dtype)
    dispatch.launch(split, a, b, out)
    return out


def ours(a: Array, b: Array) -> bool:
    """Whether our own loops compute the product of two host arrays: both float32 or both float64, and not empty."""
    return (
        a.dtype == b.dtype
        and a.dtype in dispatch.FLOATS
        and bool(a.size and b.size)
        and a.shape[-1:] == b.shape[-2:][:1] != ()
        and blas.own()
    )


def _are_matrices(a: Array, b: Array) -> bool:
    """Matrices or batches of them, both float32 or both float64."""
    return a.ndim >= 2 and b.ndim >= 2 and a.dtype == b.dtype and a.dtype in dispatch.FLOATS


def _shape(a: Array, b: Array) -> tuple[int, ...] | None:
    """The shape of a product; None if there is none, for NumPy to raise."""
    if a.ndim == b.ndim == 2:
        return a.shape[0], b.shape[1]
    try:
        return *np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]
    except ValueError:
        return None


def _fits(out: Array, a: Array, shape: tuple[int, ...] | None) -> bool:
    return bool(out.shape == shape and out.dtype == a.dtype and out.flags.writeable and out.size)


def _parted(a: Array, b: Array, out: Array) -> tuple[tuple[int, int], int]:
    """How our own loops split a product: a grid, and the number of parts of the batch."""
    count = min(num_threads(), out.size * a.shape[-1] // PART)
    if count < 2:
        return (1, 1), 1
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
    """The product as a kernel for ``launch``; ``bind`` does everything that depends only on the arrays."""

    def bind(self, a: Array, b: Array, out: Array, parts: int = 1) -> Callable[[], Any]:
        fits = _fits(out, a, _shape(a, b))
        if fits and ours(a, b):
            job = Product()
            if not _described(job, a, b, out, parts):
                return partial(_apart, a, b, out, parts)
            job.keeps = a, b, out
            return partial(share_job, job)
        if not fits or not _worthwhile(a, b) or np.may_share_memory(out, a) or np.may_share_memory(out, b):
            return partial(np.matmul, a, b, out=out)
        views = _parts(a, b, out, blas.threads())

        def run() -> None:
            run_split(_multiply, len(views), views, grain=1)

        return run

    def __call__(self, a: Array, b: Array, out: Array, parts: int = 1) -> None:
        if ours(a, b) and _fits(out, a, _shape(a, b)):
            _shared(a, b, out, parts)
        else:
            self.bind(a, b, out)()


split = _Split()

Part = tuple[Array, Array, Array]


def _multiply(parts: list[Part], start: int, stop: int) -> None:
    for a, b, out in parts[start:stop]:
        np.matmul(a, b, out=out)


def _parts(a: Array, b: Array, out: Array, count: int) -> list[Part]:
    """Views of operands and result, one triple per part: together the whole product, at most ``count`` parts."""
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
