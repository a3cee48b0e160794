"""Products of host arrays: BLAS does them on one thread, and all but the smallest are split among Kobai's own threads.

The threads of a BLAS wait for each other by looking again and again. Where a processor is taken from one of them – by a second
training, by PyTorch's threads in the same process, by a container's quota – the others look on until it comes back: measured on
two cores, steps of 0.5 and 5 ms take 190 and 150 ms when two processes run them, and 3 and 11 ms after a product of PyTorch.
With Numba a matrix product is shared with threads that stay awake between one and the next (:mod:`kobai.kernels.team`);
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
from itertools import pairwise
from typing import Any

import numpy as np

from kobai.kernels import device_products, engine, team
from kobai.kernels.threads import num_threads, run_split, share_once, share_product
from kobai.xp import Array, xp_of

PART = 1 << 18
"""Multiplications that are worth a part where threads are awake, some 3 µs; what has two such parts is shared."""

WORTHWHILE = 1 << 27
"""Multiplications × bytes of an element that pay for waking a thread: 0.3 ms on one, where that takes 50 µs."""

PACKING = 3
"""How much more it costs to read the first factor than the second, or a second that is transposed than the first: BLAS
rearranges what each part reads. Chosen with the products of layers of 100 to 2048 units."""


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
    """How many products run at this moment, and what the libraries' threads were before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.before: tuple[int, ...] = ()

    def enter(self) -> None:
        with self.lock:
            if self.depth == 0:
                self.before = tuple(switch.get() for switch in switches())
                for switch in switches():
                    switch.set(1)
            self.depth += 1

    def leave(self) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                for switch, n in zip(switches(), self.before, strict=True):
                    switch.set(n)


_held = _Held()


def _after_fork() -> None:
    """The child has one thread, which runs no product: others may have been in the middle of one."""
    global _held
    interrupted, _held = _held, _Held()
    if interrupted.depth:
        for switch, n in zip(switches(), interrupted.before, strict=True):
            switch.set(n)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, BLAS computes on the calling thread alone."""
    held = _held
    held.enter()
    try:
        yield
    finally:
        held.leave()


def threads() -> int:
    """Threads among which a large product is split: those that BLAS would use, at most as many as there are processors."""
    own = library_threads()
    return own if exclusive() and own else min(num_threads(), own or 1)


def library_threads() -> int:
    """Threads that BLAS itself would use outside of Kobai; 0 where that cannot be known."""
    if _held.depth:
        return max(_held.before, default=0)
    found = [switch.get() for switch in switches()] if not exclusive() else [lib.num_threads for lib in _libraries()]
    return max(found, default=0)


def set_library_threads(n: int) -> None:
    """Let every BLAS in the process, and OpenMP, use ``n`` threads outside of Kobai."""
    with _held.lock:
        importlib.import_module("threadpoolctl").threadpool_limits(limits=n)
        # threadpoolctl leaves OpenBLAS to the thread that set it first; and a product may be running in another one.
        for switch in switches():
            switch.set(1 if _held.depth else n)
        _held.before = (n,) * len(switches())


# --- products ---------------------------------------------------------------------------------------------------------


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """a·b with NumPy's rules for vectors and batches; into ``out`` if given. On a device in full precision, whatever is set."""
    xp = xp_of(b if type(a) is np.ndarray else a)
    if type(a) not in engine.HOST_TYPES or type(b) not in engine.HOST_TYPES:
        return device_products.matmul(a, b, out, precision="highest")
    held = _held
    held.enter()
    try:
        if not _worthwhile(a, b, _can_share(a, b)) or (count := threads()) < 2 or not switches():
            return xp.matmul(a, b, out=out)
        if out is None:
            batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
            out = xp.empty((*batch, a.shape[-2], b.shape[-1]), dtype=a.dtype)
        product = None if engine.recorder is not None else _product(a, b, out, count)
        if product is None or not share_once(*product):
            engine.launch(split, a, b, out)
        return out
    finally:
        held.leave()


def workers() -> int:
    """Threads that a kernel may divide its products among itself, each computing its own with :func:`multiply`."""
    return threads() if switches() else 1


def multiply(a: Array, b: Array, out: Array) -> None:
    """out ← a·b for arrays of the host, for use inside of kernels; it holds BLAS to nothing, see :func:`one_thread`."""
    if switches() and _worthwhile(a, b) and threads() > 1:
        split(a, b, out)  # by this thread alone where others are at work on other products
    else:
        np.matmul(a, b, out=out)


@cache
def gemms() -> team.Gemms | None:
    """The BLAS functions that :mod:`kobai.kernels.team` calls; None without Numba, or where NumPy has another BLAS."""
    return team.find(_libraries()) if engine.numba_installed else None


def _worthwhile(a: Array, b: Array, shared: bool = False) -> bool:
    if a.ndim < 2 or b.ndim < 2 or a.dtype != b.dtype or a.dtype not in engine.FLOATS:
        return False
    multiplications = max(a.size * b.shape[-1], b.size * a.shape[-2])  # one of them has the batch
    return bool(multiplications >= 2 * PART if shared else multiplications * a.itemsize >= WORTHWHILE)


def _can_share(a: Array, b: Array) -> bool:
    return a.ndim == b.ndim == 2 and gemms() is not None


def _product(a: Array, b: Array, out: Array, count: int) -> tuple[Any, ...] | None:
    """What :meth:`team.Job.describe` is given; None for what is not shared."""
    if not _can_share(a, b) or out.dtype != a.dtype or not out.flags.writeable:
        return None
    parts = min(count, a.size * b.shape[1] // PART)
    return gemms(), a, b, out, _grid(*out.shape, parts, b.strides[0] < b.strides[1])


class _Split:
    """The product as a kernel: bound to its arrays it needs no more than to be run."""

    def bind(self, a: Array, b: Array, out: Array) -> Callable[[], Any]:
        count, job = threads(), team.Job()
        product = _product(a, b, out, count)
        if product is not None and job.describe(*product):
            job.keeps = a, b, out
            return partial(share_product, job)
        if not _worthwhile(a, b):
            return partial(np.matmul, a, b, out=out)
        parts = _parts(a, b, out, count)

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

        return [(of(a, i, j), of(b, i, j), out[i:j]) for i, j in _ranges(batches, count, 1)]
    m, n = out.shape[-2:]
    rows, columns = _grid(m, n, count, b.strides[-2] < b.strides[-1])
    return [
        (a[..., i:j, :], b[..., k:last], out[..., i:j, k:last])
        for i, j in _ranges(m, rows, team.ROWS)
        for k, last in _ranges(n, columns, team.COLUMNS)
    ]


@cache
def _grid(m: int, n: int, count: int, transposed: bool) -> tuple[int, int]:
    """Rows and columns of parts of an (m, n) result: as many parts as threads if there can be, and least to read.

    Each part reads its rows of the first factor and its columns of the second, which may be ``transposed`` in memory.
    """
    first, second = (1, PACKING) if transposed else (PACKING, 1)
    grids = [(rows, columns) for rows in range(1, count + 1) for columns in range(1, count // rows + 1)]
    whole = [(r, c) for r, c in grids if _apart(m, r, team.ROWS) and _apart(n, c, team.COLUMNS)]
    return min(whole, key=lambda grid: (-grid[0] * grid[1], first * m * grid[1] + second * n * grid[0]))


def _apart(n: int, parts: int, edge: int) -> bool:
    return all(start < stop for start, stop in _ranges(n, parts, edge)) or parts == 1


def _ranges(n: int, parts: int, edge: int) -> list[tuple[int, int]]:
    """[0, n) in ``parts`` ranges of nearly the same size that begin at multiples of ``edge``.

    >>> _ranges(100, 2, 16), _ranges(40, 3, 4), _ranges(5, 2, 1)
    ([(0, 48), (48, 100)], [(0, 12), (12, 28), (28, 40)], [(0, 2), (2, 5)])
    """
    cuts = [team.cut.function(n, i, parts, edge) for i in range(parts + 1)]
    return list(pairwise(cuts))
