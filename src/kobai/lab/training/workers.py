"""Several runs at once: a pool of processes with one thread each on the CPU, one run after another on a GPU."""

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
"""What must be 1 in the environment before a worker imports NumPy: pools of threads of several processes starve each
other."""

GRACE = 10.0
"""Seconds that a worker has to tidy up when it is to end."""

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
        function: of a module, because workers import it; its arguments and its result travel between processes.
        jobs: processes; by default as many as there are processors. With 1, with one task, and on a GPU (where runs would
            wait for each other) everything happens here, in turn.
        done: called with the number of a task and its result as soon as it has ended, in whatever order.

    The first exception of a task ends the rest and is raised. Workers stay for the next call.

    >>> run_all(pow, [(2, 3), (3, 2)], jobs=1)
    [8, 9]
    """
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise ValueError(f"jobs: expected an integer >= 1, got {jobs!r}")
    jobs = min(jobs or processors(), len(tasks))
    results: list[Any] = [None] * len(tasks)
    if jobs <= 1 or backend() != "numpy" or multiprocessing.parent_process() is not None:
        for i, task in enumerate(tasks):
            results[i] = function(*task)
            if done is not None:
                done(i, results[i])
        return results
    executor = _executor(jobs)
    with _fit_to_spawn(function):
        numbers: dict[Future[T], int] = {
            executor.submit(_in_folder, os.getcwd(), function, *task): i for i, task in enumerate(tasks)
        }
    try:
        for future in as_completed(numbers):
            i = numbers[future]
            results[i] = future.result()
            if done is not None:
                done(i, results[i])
    except BrokenProcessPool as error:
        close()
        raise RuntimeError(
            f"lab: a worker process died ({error}). Out of memory? Try fewer at once: jobs=1 (--jobs 1)"
        ) from error
    except BaseException:  # also when the user interrupts: what has not begun shall not begin
        close(kill=True)
        raise
    return results


def _in_folder(folder: str, function: Callable[..., T], *task: Any) -> T:
    """``function(*task)`` where the caller is: paths in a task are relative to that, and a worker may have begun elsewhere."""
    os.chdir(folder)
    return function(*task)


def close(kill: bool = False) -> None:
    """End the workers; ``kill`` does not wait for what they are at."""
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
        context = multiprocessing.get_context(
            "spawn"
        )  # a fork would copy the locks of this process's threads as they are
        _pool = (jobs, ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin))
    return _pool[1]


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use("numpy")
    manual_seed(0)


def _end_with_parent() -> None:
    """A process that was killed does not end its workers, which would wait for their next task for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)


@contextmanager
def _fit_to_spawn(function: Callable[..., Any]) -> Iterator[None]:
    """The environment and the ``__main__`` that processes started meanwhile shall see; Ctrl-C they shall not.

    A spawned process imports the main script again, and a script that calls the lab at its top level would start it all
    over. Our functions are in modules of their own and need no main script, so it is hidden.
    """
    main = sys.modules["__main__"]
    hide = getattr(function, "__module__", "__main__") != "__main__"
    hidden: dict[str, Any] = {
        name: main.__dict__[name] for name in ("__spec__", "__file__") if hide and name in main.__dict__
    }
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    signals = None
    if sys.platform != "win32":  # each would show a traceback, if it is hit before it comes to _begin
        resource_tracker.ensure_running()  # which unblocks them when it is started
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    if hide:
        main.__dict__.pop("__file__", None)
        main.__spec__ = None
    try:
        yield
    finally:
        if sys.platform != "win32" and signals is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        vars(main).update(hidden)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
