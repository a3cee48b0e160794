"""Worker threads that read batches ahead of the training loop.

Threads, not processes: reading files, decompressing and NumPy's copies release the GIL, nothing has to be pickled, and the
data set is shared instead of copied. Batch k is read by worker k mod N, and taken from it in that order, so
the order of batches does not depend on timing.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sized
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from kobai.utils.data.fetch import END, Read, Source

__all__ = ["get_worker_info"]


@dataclass(frozen=True)
class WorkerInfo:
    """What :func:`get_worker_info` tells: the worker's number, how many there are, its seed, and the data set.

    The data set is the loader's own, shared by all workers (PyTorch's are copies, one for each process).
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any


_current = threading.local()


def get_worker_info() -> WorkerInfo | None:
    """The :class:`WorkerInfo` of the worker that calls this; None outside workers.

    >>> get_worker_info() is None
    True
    """
    return getattr(_current, "info", None)


@dataclass(eq=False)
class Worker:
    """A thread with a queue of jobs and a queue of results, both in order."""

    jobs: queue.SimpleQueue[Callable[[], Any] | None] = field(default_factory=queue.SimpleQueue)
    results: queue.SimpleQueue[tuple[Any, BaseException | None]] = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)
    exhausted: bool = False

    def close(self) -> None:
        """Let the thread end after its present job."""
        self.stop.set()
        self.jobs.put(None)


def _work(info: WorkerInfo, init: Callable[[int], object] | None, worker: Worker) -> None:
    """Body of a worker thread: one result for every job."""
    _current.info = info
    ready = init is None
    for job in iter(worker.jobs.get, None):
        if worker.stop.is_set():
            return
        try:
            if init is not None and not ready:
                # Tried again after a failure: to keep the error would keep the iterator alive, through its traceback.
                init(info.id)
                ready = True
            result = job()
        except StopIteration as error:  # would end the training loop as if the data were over
            lost = RuntimeError("DataLoader: the data set raised StopIteration")
            lost.__cause__ = error
            worker.results.put((None, lost))
        except BaseException as error:
            worker.results.put((None, error))
        else:
            worker.results.put((result, None))
            del result  # the batch must not live on in an idle thread


class LoaderIterator(Iterator[Any]):
    """What ``iter`` of a loader gives: one epoch. It has the loader's length."""

    sized: Sized | None = None

    def __len__(self) -> int:
        if self.sized is None:
            raise TypeError("an iterator of persistent workers has no length; ask its DataLoader")
        return len(self.sized)


class ThreadedIterator(LoaderIterator):
    """The batches of a :class:`Source`, read ahead by threads.

    ``depth``: batches in flight per worker. ``timeout``: seconds to wait for a batch; 0 waits forever. The threads end when
    the iterator is exhausted (unless ``persistent``) or dropped; they never refer to it.
    """

    def __init__(
        self,
        dataset: Any,
        num_workers: int,
        depth: int,
        timeout: float,
        init: Callable[[int], object] | None,
        seed: int,
        persistent: bool,
    ) -> None:
        self.depth, self.timeout, self.persistent = depth, timeout, persistent
        self.workers = [Worker() for _ in range(num_workers)]
        self._close = weakref.finalize(self, _close_all, self.workers)
        self.pending: deque[tuple[int, int]] = deque()
        for i, worker in enumerate(self.workers):
            info = WorkerInfo(i, num_workers, seed + i, dataset)
            threading.Thread(target=_work, args=(info, init, worker), name=f"kobai-loader-{i}", daemon=True).start()

    def start(self, source: Source) -> ThreadedIterator:
        """Begin an epoch; batches still pending from the last one are read and dropped."""
        while self.pending:
            self._take()
        self.source, self.submitted, self.turn = source, 0, 0
        # Settings of the calling thread, such as the device for new tensors, hold for its workers too.
        self.contexts = [copy_context() for _ in self.workers]
        self.readers = [cache(source.open) for _ in self.workers]  # opens once, at its first batch
        for worker in self.workers:
            worker.exhausted = False
        for _ in range(self.depth * len(self.workers)):
            self._submit()
        return self

    def __next__(self) -> Any:
        while self.pending:
            number, index, (batch, error) = self._take()
            if batch is END:
                self.workers[index].exhausted = True
                continue
            self._submit()
            if error is not None:
                error.add_note(f"DataLoader: raised in worker {index} by batch {number}")
                raise error
            return self.source.finish(batch)
        if not self.persistent:
            self._close()
        raise StopIteration

    def _submit(self) -> None:
        """Ask the next worker whose stream has not ended for the next batch."""
        for _ in self.workers:
            index, self.turn = self.turn, (self.turn + 1) % len(self.workers)
            if not self.workers[index].exhausted:
                key = next(self.source.keys, END)
                if key is not END:
                    self.workers[index].jobs.put(partial(self.contexts[index].run, _read, self.readers[index], key))
                    self.pending.append((self.submitted, index))
                    self.submitted += 1
                return

    def _take(self) -> tuple[int, int, tuple[Any, BaseException | None]]:
        number, index = self.pending[0]
        try:
            result = self.workers[index].results.get(timeout=self.timeout or None)
        except queue.Empty:
            raise RuntimeError(f"DataLoader: timed out, no batch within {self.timeout} seconds") from None
        self.pending.popleft()
        return number, index, result


def _read(opened: Callable[[], Read], key: Any) -> Any:
    """A batch of a source that is opened here, in the thread that reads it."""
    return opened()(key)


def _close_all(workers: list[Worker]) -> None:
    for worker in workers:
        worker.close()
