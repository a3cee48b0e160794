"""Products of host arrays: BLAS does them on one thread, and all but the smallest are split among Kobai's own threads.

The threads of a BLAS wait for each other by looking again and again. Where a processor is taken from one of them – by a second
training, by PyTorch's threads in the same process, by a container's quota – the others look on until it comes back: measured on
two cores, steps of 0.5 and 5 ms take 190 and 150 ms when two processes run them, and 3 and 11 ms after a product of PyTorch.
With Numba a matrix product is shared with threads that stay awake between one and the next (:mod:`kobai.cpu.team`);
without, and in batches, only large ones are, with threads that sleep meanwhile. Who knows that a process has its processors to
itself can leave all products to BLAS' own threads with ``KOBAI_EXCLUSIVE=1``, which is of use where Numba is missing.

How a product is split depends on its shape and on the number of threads alone, and each part is done on one thread. So its bits
do not depend on what else the machine does, which BLAS' own would promise too, but not if it were to retreat when disturbed.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from math import prod
from typing import Any

import numpy as np

from kobai.cpu.product import EDGE, Product, available, grid_of, ranges
from kobai.cpu.team import share_job
from kobai.cpu.threads import num_threads, run_split
from kobai.cuda import products
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


# --- the library's own threads ----------------------------------------------------------------------------------------


class Switch:
    """The number of threads of one loaded BLAS."""

    def __init__(self, library: Any) -> None:
        self.get: Callable[[], int] = library.get_num_threads
        self.set: Callable[[int], Any] = library.set_num_threads
        if library.internal_api == "openblas" and getattr(library, "threading_layer", "") == "pthreads":
            # Without threadpoolctl's bookkeeping between, as this happens at every product: 0.3 µs instead of 1.2.
            found = ctypes.CDLL(library.filepath)
            for name in ("openblas_%s_num_threads", "openblas_%s_num_threads64_", "openblas_%s_num_threads_64_"):
                for prefix in ("", "scipy_"):
                    if hasattr(found, prefix + name % "set"):
                        self.set = getattr(found, prefix + name % "set")
                        self.set.argtypes, self.set.restype = [ctypes.c_int], None  # type: ignore[attr-defined]
                        self.get = getattr(found, prefix + name % "get")
                        self.get.argtypes, self.get.restype = [], ctypes.c_int  # type: ignore[attr-defined]
                        return


def exclusive() -> bool:
    """Whether the environment says that no other program and no other pool of threads uses the processors."""
    return os.environ.get("KOBAI_EXCLUSIVE", "0") not in ("", "0")


@cache
def switches() -> tuple[Switch, ...]:
    """One for each BLAS whose threads Kobai holds back. Accelerate's, for one, cannot be, and need not."""
    if exclusive():
        return ()
    return tuple(Switch(library) for library in _libraries())


def _libraries() -> list[Any]:
    found = importlib.import_module("threadpoolctl").ThreadpoolController().select(user_api="blas")
    return list(found.lib_controllers)


class _Held:
    """Which threads compute products at this moment, and what the libraries' threads were before the first of them.

    Whoever does writes so into ``threads`` and back in a ``try`` and its ``finally``, without a call before it is done: an
    exception that a handler of signals raises comes only there. What such a one cuts short is made good by the next.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads: dict[int, int] = {}
        """How deep in products each thread is."""
        self.before: tuple[int, ...] | None = None
        self.done = False

    def hold(self) -> None:
        """From here on the libraries compute on one thread."""
        with self.lock:
            if self.before is None:
                self.before = tuple(switch.get() for switch in switches())
            if not self.done:
                for switch in switches():
                    switch.set(1)
                self.done = True

    def release(self) -> None:
        """As before, if nobody computes any more."""
        with self.lock:
            if not self.threads and self.before is not None:
                self.done = False
                for switch, n in zip(switches(), self.before, strict=True):
                    switch.set(n)
                self.before = None


_held = _Held()


def _after_fork() -> None:
    """The child has one thread, which runs no product: others may have been in the middle of one."""
    global _held
    interrupted, _held = _held, _Held()
    if interrupted.before is not None:
        for switch, n in zip(switches(), interrupted.before, strict=True):
            switch.set(n)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, BLAS computes on the calling thread alone."""
    held, me = _held, threading.get_ident()
    depth = held.threads.get(me, 0)
    try:
        held.threads[me] = depth + 1
        held.hold()
        yield
    finally:
        if depth:
            held.threads[me] = depth
        else:
            del held.threads[me]
        if not held.threads:
            held.release()


def on_one_thread(function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)`` within :func:`one_thread`, for half of its price."""
    held, me = _held, threading.get_ident()
    depth = held.threads.get(me, 0)
    try:
        held.threads[me] = depth + 1
        if not depth:
            held.hold()
        return function(*args)
    finally:
        if depth:
            held.threads[me] = depth
        else:
            del held.threads[me]
        if not held.threads:
            held.release()


def threads() -> int:
    """Threads among which a large product is split: those that BLAS would use, at most as many as there are processors."""
    own = library_threads()
    return own if exclusive() and own else min(num_threads(), own or 1)


def library_threads() -> int:
    """Threads that BLAS itself would use outside of Kobai; 0 where that cannot be known."""
    before = _held.before
    if before is not None:
        return max(before, default=0)
    found = [switch.get() for switch in switches()] if not exclusive() else [lib.num_threads for lib in _libraries()]
    return max(found, default=0)


def set_library_threads(n: int) -> None:
    """Let every BLAS in the process, and OpenMP, use ``n`` threads outside of Kobai."""
    with _held.lock:
        importlib.import_module("threadpoolctl").threadpool_limits(limits=n)
        # threadpoolctl leaves OpenBLAS to the thread that set it first; and a product may be running in another one.
        for switch in switches():
            switch.set(1 if _held.done else n)
        if _held.before is not None:
            _held.before = (n,) * len(switches())


# --- products ---------------------------------------------------------------------------------------------------------


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """a·b with NumPy's rules for vectors and batches; into ``out`` if given.

    On a device in full precision, whatever is set.
    """
    xp = xp_of(b if type(a) is np.ndarray else a)
    if type(a) not in dispatch.HOST_TYPES or type(b) not in dispatch.HOST_TYPES:
        return products.matmul(a, b, out, precision="highest")
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
    return on_one_thread(_by_library, xp, a, b, out)


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
    if not _worthwhile(a, b) or threads() < 2 or not switches():
        return xp.matmul(a, b, out=out)
    if out is None:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = xp.empty((*batch, a.shape[-2], b.shape[-1]), dtype=a.dtype)
    dispatch.launch(split, a, b, out)
    return out


def own() -> bool:
    """Whether Kobai multiplies matrices by its own loops: with Numba, on a processor that multiplies and adds at once."""
    return dispatch.numba_installed and _able()


@cache
def _able() -> bool:
    return not exclusive() and available()


def ours(a: Array, b: Array) -> bool:
    """Whether the product of two arrays of the host is one for our own loops. That depends on shapes and dtypes alone."""
    if not _are_matrices(a, b):
        return False
    (m, k), n = a.shape[-2:], b.shape[-1]
    return k == b.shape[-2] and m >= FEW and n >= FEW and m * n * k >= SMALL and own()


def _are_matrices(a: Array, b: Array) -> bool:
    """Or batches of them, of one of the precisions that are computed with."""
    return a.ndim >= 2 and b.ndim >= 2 and a.dtype == b.dtype and a.dtype in dispatch.FLOATS


def _shape(a: Array, b: Array) -> tuple[int, ...] | None:
    """The shape of a product; None if NumPy shall say what is wrong."""
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
        parts = _parts(a, b, out, threads())

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
