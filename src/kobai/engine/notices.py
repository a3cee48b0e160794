"""Which kernel is being compiled: compilers say it here, and progress bars listen.

A kernel is compiled once on a machine, at its first launch, and read from disk from then on. If nobody listens, a line of the
log says so: otherwise the first step would look hung.
"""

from __future__ import annotations

import importlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger("kobai")

NOTICE = "compiling for this machine, which takes some seconds, once; kobai warmup does it beforehand"

Listener = Callable[[str, "float | None"], object]

listeners: list[Listener] = []
"""Called with a kernel's name and None when it is begun, and with the seconds it took when it is done."""


class _State:
    depth = 0  # compiling a kernel compiles the kernels that it calls
    said = False
    hears_numba = False


_state = _State()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within, ``listener`` is told what is compiled, and the log is silent about it."""
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)


@contextmanager
def compiling(kernel: str) -> Iterator[None]:
    """Within, ``kernel`` is compiled."""
    start = _begin(kernel)
    try:
        yield
    finally:
        _end(kernel, start)


def _begin(kernel: str) -> float:
    _state.depth += 1
    if _state.depth == 1:
        if not listeners and not _state.said:
            _state.said = True
            log.warning("kernels: %s", NOTICE)
        for listener in tuple(listeners):
            listener(kernel, None)
    return time.perf_counter()


def _end(kernel: str, start: float) -> None:
    _state.depth -= 1
    if _state.depth == 0:
        for listener in tuple(listeners):
            listener(kernel, time.perf_counter() - start)


def hear_numba() -> None:
    """Have Numba say which of Kobai's kernels it compiles, but not which it reads from disk."""
    if _state.hears_numba:
        return
    _state.hears_numba = True
    event = importlib.import_module("numba.core.event")

    class OfKobai(event.Listener):  # type: ignore[misc, name-defined]  # numba is imported when it is needed
        def __init__(self) -> None:
            self.starts: list[float] = []

        def on_start(self, event: Any) -> None:
            if name := _name(event):
                self.starts.append(_begin(name))

        def on_end(self, event: Any) -> None:
            if name := _name(event):
                _end(name, self.starts.pop())

    event.register("numba:compile", OfKobai())


def _name(event: Any) -> str:
    """``softmax.forward`` for a function of Kobai's, "" for any other."""
    function = event.data["dispatcher"].py_func
    module = function.__module__ or ""
    if module.partition(".")[0] != "kobai" and not module.startswith("kobai_"):
        return ""
    # Generated modules are called kobai_<name>_<hash>.
    family = re.sub(r"^kobai_(.*)_[0-9a-f]{16}$", r"\1", module.rpartition(".")[2])
    return f"{family}.{function.__name__}"
