"""``kobai.multiprocessing``: Python's own, with PyTorch's :func:`spawn`.

Tensors that go from process to process are copied; none is in shared memory. Kobai itself trains in one process.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from multiprocessing import *  # noqa: F403
from multiprocessing import __all__ as _names, get_context
from multiprocessing.connection import wait
from typing import Any

from kobai.compat.absent import within

__all__ = [
    *_names,
    "ProcessRaisedException",
    "get_all_sharing_strategies",
    "get_sharing_strategy",
    "set_sharing_strategy",
    "spawn",
]


class ProcessRaisedException(Exception):
    """A process of :func:`spawn` raised; the message holds its traceback."""


def spawn(
    fn: Callable[..., Any],
    args: Iterable[Any] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> list[Any] | None:
    """Run ``fn(i, *args)`` in ``nprocs`` processes, i = 0, 1, ...

    With ``join`` wait for all; if one fails the others are stopped, and ProcessRaisedException has its traceback. Without
    it, return the processes. ``fn`` and ``args`` are pickled unless ``start_method`` is ``"fork"``.
    """
    context: Any = get_context(start_method)
    if isinstance(nprocs, bool) or not isinstance(nprocs, int) or nprocs < 1:
        raise ValueError(f"spawn: expected nprocs as an integer >= 1, got {nprocs!r}")
    errors = context.SimpleQueue()
    workers = [context.Process(target=_run, args=(fn, i, tuple(args), errors), daemon=daemon) for i in range(nprocs)]
    for worker in workers:
        worker.start()
    if not join:
        return workers
    running = {worker.sentinel: (i, worker) for i, worker in enumerate(workers)}
    while running:
        for sentinel in wait(list(running)):
            i, worker = running.pop(sentinel)
            worker.join()
            if worker.exitcode == 0:
                continue
            for _, other in running.values():
                other.terminate()
                other.join()
            told = "" if errors.empty() else f":\n\n{errors.get()}"
            raise ProcessRaisedException(f"spawn: process {i} ended with code {worker.exitcode}{told}")
    return None


def _run(fn: Callable[..., Any], i: int, args: tuple[Any, ...], errors: Any) -> None:
    try:
        fn(i, *args)
    except Exception:
        errors.put(traceback.format_exc())
        raise SystemExit(1) from None


_strategy = "file_descriptor"


def get_all_sharing_strategies() -> set[str]:
    """The names of PyTorch's ways to share memory; here they are all the same."""
    return {"file_descriptor", "file_system"}


def get_sharing_strategy() -> str:
    """The one that was set."""
    return _strategy


def set_sharing_strategy(new_strategy: str) -> None:
    """Has no effect: Kobai shares no memory between processes, and a DataLoader's workers are threads."""
    global _strategy
    if new_strategy not in get_all_sharing_strategies():
        raise ValueError(
            f"set_sharing_strategy: expected one of {sorted(get_all_sharing_strategies())}, got {new_strategy!r}"
        )
    _strategy = new_strategy


__getattr__ = within(
    __name__, "ProcessContext ProcessExitedException SpawnContext init_reductions reductions start_processes"
)
