"""NumPy's BLAS, held to one thread: Kobai has threads of its own.

The threads of a BLAS spin while they wait for each other. If one of them loses its processor – to a second training, to
PyTorch's threads in the same process, to a container's quota – the others spin until it comes back: measured on two cores,
steps of 0.5 and 5 ms take 190 and 150 ms when two processes run them, and 3 and 11 ms after a product of PyTorch. So BLAS
computes on the calling thread, and large products are split among Kobai's threads (:mod:`kobai.ops._matmul`). For a process
that has its processors to itself, ``KOBAI_EXCLUSIVE=1`` leaves all products to BLAS' own threads; that helps where Numba is
missing.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from kobai.cpu.product import available
from kobai.cpu.threads import num_threads
from kobai.engine import dispatch

# --- the library's own threads ----------------------------------------------------------------------------------------


class Switch:
    """The number of threads of one loaded BLAS."""

    def __init__(self, library: Any) -> None:
        self.api: str = library.internal_api
        self.get: Callable[[], int] = library.get_num_threads
        self.set: Callable[[int], Any] = library.set_num_threads
        if library.internal_api == "openblas" and getattr(library, "threading_layer", "") == "pthreads":
            # Past threadpoolctl's bookkeeping, since this happens at every product: 0.3 µs instead of 1.2.
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
    """Whether the environment says that no other program or thread pool uses the processors."""
    return os.environ.get("KOBAI_EXCLUSIVE", "0") not in ("", "0")


@cache
def switches() -> tuple[Switch, ...]:
    """One for each BLAS whose threads Kobai holds back. Accelerate's cannot be held back, and need not."""
    if exclusive():
        return ()
    return tuple(Switch(library) for library in _libraries())


TINY = 1 << 13
"""Multiplications up to which OpenBLAS asks no other thread: less than for any of its functions (matrices from 262,144 on,
matrix times vector from 9,216, https://github.com/OpenMathLib/OpenBLAS/tree/develop/interface)."""


@cache
def takes_tiny_alone() -> bool:
    """Whether each BLAS computes products of up to :data:`TINY` multiplications on the calling thread by itself."""
    return all(switch.api == "openblas" for switch in switches())


def _libraries() -> list[Any]:
    found = importlib.import_module("threadpoolctl").ThreadpoolController().select(user_api="blas")
    return list(found.lib_controllers)


class _Held:
    """Which threads are computing products, and how many threads the libraries had before the first of them began.

    A product writes itself into ``threads`` as the first thing in a ``try``, and out as the first thing in its ``finally``:
    a signal handler raises only where a call is made. What it cuts short, the next product puts right.
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
        """Give the libraries their threads back, if no product is running."""
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


def on_one_thread(function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)`` while BLAS computes on the calling thread alone.

    No context manager: this comes before every product that NumPy computes, and one costs twice as much.
    """
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


# --- or no BLAS at all ------------------------------------------------------------------------------------------------


def own() -> bool:
    """Whether Kobai multiplies matrices by its own loops: with Numba, on a processor that multiplies and adds at once."""
    return dispatch.numba_installed and _able()


@cache
def _able() -> bool:
    return not exclusive() and available()
