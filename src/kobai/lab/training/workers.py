"""Several runs at once: on the CPU a pool of processes with one thread each; on a GPU one run after another."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from kobai.cpu.threads import processors
from kobai.random import manual_seed
from kobai.xp import backend, use

T = TypeVar("T")

ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Set to 1 in the environment before a worker imports NumPy: thread pools of several processes starve each other."""

GRACE = 10.0
"""Seconds that a worker has to clean up after SIGTERM."""

_pool: tuple[int, ProcessPoolExecutor] | None = None


def run_all(
    function: Callable[..., T],
    tasks: Sequence[tuple[Any, ...]],
    *,
    jobs: int | None = None,
    done: Callable[[int, T], None] | None = None,
) -> list[T]:
    """``[function(*task) for task in tasks]``, several at once.

    Args:
        function: a function of a module, because workers import it; arguments and results are pickled.
        jobs: processes; by default as many as there are processors. With 1, with one task, and on a GPU (where runs would wait
            for each other) all tasks run in this process, in turn.
        done: called with the number of a task and its result as soon as it ends, in any order.

    The first exception of a task ends the others and is raised. Workers stay for the next call.

    >>> run_all(pow, [(2, 3), (3, 2)], jobs=1)
    [8, 9]
    """
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise ValueError(f"jobs: expected an integer >= 1, got {jobs!r}")
    jobs = min(jobs or processors(), len(tasks))
    results: list[Any] = [None] * len(tasks)

    def ended(i: int, result: T) -> None:
        results[i] = result
        if done is not None:
            done(i, result)

    if jobs <= 1 or backend() != "numpy" or multiprocessing.parent_process() is not None:
        for i, task in enumerate(tasks):
            ended(i, function(*task))
        return results
    executor = _executor(jobs)
    with _fit_to_spawn(function):
        numbers: dict[Future[T], int] = {
            executor.submit(_in_folder, os.getcwd(), function, *task): i for i, task in enumerate(tasks)
        }
    try:
        for future in as_completed(numbers):
            ended(numbers[future], future.result())
    except BrokenProcessPool as error:
        close()
        raise RuntimeError(
            f"lab: a worker process died ({error}). Out of memory? Try fewer at once: jobs=1 (--jobs 1)"
        ) from error
    except BaseException:  # also when the user interrupts: start no further tasks
        close(kill=True)
        raise
    return results


def _in_folder(folder: str, function: Callable[..., T], *task: Any) -> T:
    """``function(*task)`` in the caller's folder: paths in a task are relative to it, and the worker may be in another."""
    os.chdir(folder)
    return function(*task)


def close(kill: bool = False) -> None:
    """End the workers; with ``kill`` without waiting for their tasks."""
    global _pool
    if _pool is not None:
        executor, _pool = _pool[1], None
        if kill:
            for process in list((executor._processes or {}).values()):
                process.terminate()
        executor.shutdown(wait=not kill, cancel_futures=True)


atexit.register(close)


def _executor(jobs: int) -> ProcessPoolExecutor:
    global _pool
    if _pool is not None and _pool[0] != jobs:
        close()
    if _pool is None:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks held by threads of this process
        _pool = (jobs, ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin))
    return _pool[1]


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use("numpy")
    manual_seed(0)


def _end_with_parent() -> None:
    """End this worker when its parent is gone: a killed parent leaves workers waiting for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)


@contextmanager
def _fit_to_spawn(function: Callable[..., Any]) -> Iterator[None]:
    """Environment and ``__main__`` for processes started meanwhile, which Ctrl-C does not reach.

    A spawned process imports the main script again, and a script that calls the lab at its top level would start all over.
    Functions of modules need no main script, so it is hidden.
    """
    main = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {}
    if getattr(function, "__module__", "__main__") != "__main__":
        hidden = {name: main[name] for name in ("__spec__", "__file__") if name in main}
        main.pop("__file__", None)
        main["__spec__"] = None
    before = {name: os.environ[name] for name in ONE_THREAD if name in os.environ}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    signals = None
    if sys.platform != "win32":  # a process interrupted before _begin would print a traceback
        resource_tracker.ensure_running()  # starting it unblocks signals
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32" and signals is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        main.update(hidden)
        for name in ONE_THREAD:
            os.environ.pop(name, None)
        os.environ.update(before)
