"""NumPy's BLAS: its threads are held back, for Kobai has its own.

The threads of a BLAS wait for each other by looking again and again. Where a processor is taken from one of them – by a second
training, by PyTorch's threads in the same process, by a container's quota – the others look on until it comes back: measured on
two cores, steps of 0.5 and 5 ms take 190 and 150 ms when two processes run them, and 3 and 11 ms after a product of PyTorch.
So BLAS computes on the calling thread, and large products are split among Kobai's threads (:mod:`kobai.ops._matmul`). Who knows
that a process has its processors to itself can leave all products to BLAS' own threads with ``KOBAI_EXCLUSIVE=1``, which is of
use where Numba is missing.
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
