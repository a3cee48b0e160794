"""DataLoader: batches of a data set, in order or shuffled, read ahead by threads if asked."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Generic, TypeAlias, TypeVar

from kobai.errors import users_line
from kobai.random import Generator, resolve
from kobai.utils.data.collate import default_collate, default_convert, to_pinned
from kobai.utils.data.dataset import Dataset, IterableDataset
from kobai.utils.data.fetch import END, Read, Rows, Source, samples, stream, tensors_of
from kobai.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from kobai.utils.data.workers import LoaderIterator, ThreadedIterator
from kobai.xp import available_backends

__all__ = ["DataLoader"]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
_collate_fn_t: TypeAlias = Callable[[list[T]], Any]
_worker_init_fn_t: TypeAlias = Callable[[int], None]

# Exact types: a subclass may have its own __iter__.
_ORDERED = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler)

_FIXED = frozenset({"batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"})


class DataLoader(Generic[T_co]):
    """Iterates over batches of ``dataset``; every ``iter()`` is one epoch.

    Without ``collate_fn``, samples are combined by :func:`default_collate`. Batches of a :class:`TensorDataset`, or of
    Subsets of one, are cut from its tensors with one gather each, on the device where they live.

    Args:
        dataset: anything with ``__getitem__`` and ``__len__``, or an :class:`IterableDataset`.
        batch_size: samples in a batch; None gives single samples, converted but not batched.
        shuffle: a new random order every epoch.
        sampler, batch_sampler: your own order of indices, or of lists of indices, instead of ``shuffle``.
        num_workers: threads that read ahead; 0 reads in the loop itself. Neither the order of the batches nor the random
            numbers of the program depend on it. Threads share ``dataset``, whose ``__getitem__`` must be thread-safe. Tensors
            that live on a GPU are gathered by the calling thread: nothing needs reading there.
        pin_memory: batches on the CPU come in page-locked memory. Without a GPU: no effect, with a warning.
        drop_last: leave out the last batch if it is shorter.
        timeout: seconds to wait for a worker's batch before a RuntimeError; 0 waits for ever.
        worker_init_fn: called as ``worker_init_fn(worker_id)`` in each worker at its start.
        generator: RNG of the shuffle. Default: the default generator, one draw per epoch (see :class:`RandomSampler`).
        prefetch_factor: batches that each worker reads ahead (default 2).
        persistent_workers: keep the threads from one epoch to the next.
        multiprocessing_context, pin_memory_device, in_order: how PyTorch starts processes, for which device it locks pages,
            and whether batches may overtake each other. Threads need no context; batches always come in order.

    Raises ValueError for contradictory arguments, TypeError for wrong types; what a data set raises in a worker is raised
    from the loop, with its own traceback. The order of an epoch is fixed by ``iter()``: a generator's state saved before it
    gives the same epoch again.

    >>> import kobai
    >>> from kobai.utils.data import TensorDataset
    >>> data = TensorDataset(kobai.arange(5), kobai.arange(5) ** 2)
    >>> for x, t in DataLoader(data, batch_size=2):
    ...     print(x.tolist(), t.tolist())
    [0, 1] [0, 1]
    [2, 3] [4, 9]
    [4] [16]
    """

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: Sampler[list[Any]] | Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], object] | None = None,
        *,
        generator: Generator | None = None,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        multiprocessing_context: Any = None,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        iterable = isinstance(dataset, IterableDataset)
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers, multiprocessing_context)
        _check_order(dataset, batch_size, shuffle, sampler, batch_sampler, drop_last)
        if batch_sampler is not None:
            batch_size = None
        if generator is not None:
            resolve(generator)
        missing = pin_memory and available_backends()["cupy"]
        if missing:
            warnings.warn(f"DataLoader: pin_memory=True has no effect: {missing}", stacklevel=users_line())
        self._pins = pin_memory and not missing

        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.drop_last = drop_last
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.persistent_workers = persistent_workers
        self.multiprocessing_context = multiprocessing_context
        self.pin_memory_device, self.in_order = pin_memory_device, in_order
        self.sampler: Any = sampler
        self.batch_sampler: Any = batch_sampler
        if not iterable:
            if sampler is None and batch_sampler is None:
                self.sampler = (
                    RandomSampler(dataset, generator=generator)  # type: ignore[arg-type]  # has a length
                    if shuffle
                    else SequentialSampler(dataset)  # type: ignore[arg-type]
                )
            if batch_size is not None:
                self.batch_sampler = BatchSampler(self.sampler, batch_size, drop_last)
        batches = batch_size is not None or batch_sampler is not None
        self.collate_fn = collate_fn if collate_fn is not None else (default_collate if batches else default_convert)
        self._threads: ThreadedIterator | None = None
        self._initialized = True

    @property
    def _dataset_kind(self) -> int:
        return _DatasetKind.Iterable if isinstance(self.dataset, IterableDataset) else _DatasetKind.Map

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and self.__dict__.get("_initialized"):
            raise ValueError(f"DataLoader: {name} cannot be changed after construction; make a new DataLoader")
        super().__setattr__(name, value)

    def __len__(self) -> int:
        if self.batch_sampler is not None:
            return len(self.batch_sampler)
        if self.sampler is not None:
            return len(self.sampler)
        n = len(self.dataset)  # type: ignore[arg-type]  # TypeError, as it should, where a stream has no length
        if self.batch_size is None:
            return n
        return n // self.batch_size if self.drop_last else math.ceil(n / self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        source = self._source()
        if self._pins:
            source = replace(source, open=_pinning(source.open))
        if not self.num_workers:
            return BatchIterator(self, source)
        if self._threads is not None:
            return self._threads.start(source)
        threads = ThreadedIterator(
            self.dataset,
            self.num_workers,
            self.prefetch_factor or 2,
            self.timeout,
            self.worker_init_fn,
            self._worker_seed(),
            self.persistent_workers,
        )
        if self.persistent_workers:
            self._threads = threads
        else:
            threads.sized = self
        return threads.start(source)

    def _source(self) -> Source:
        collate = None if self.collate_fn is default_collate else self.collate_fn
        if isinstance(self.dataset, IterableDataset):
            return stream(self.dataset, self.batch_size, self.drop_last, collate)
        if self.batch_sampler is None:
            return samples(self.dataset, self.sampler, collate, batches=False)
        found = tensors_of(self.dataset) if collate is None else None
        if found is None:
            return samples(self.dataset, self.batch_sampler, collate, batches=True)
        rows = Rows(*found)
        if self.batch_size is not None and type(self.sampler) in _ORDERED and not self.sampler._endless():
            return rows.slices(self.sampler._order(), self.batch_size, self.drop_last)
        return rows.lists(self.batch_sampler)

    def _worker_seed(self) -> int:
        """Seed of the first worker. A stream, which has no sampler, costs one draw; otherwise the state is only copied, so
        that ``num_workers`` changes no random number of the program."""
        draw = resolve(self.generator).numpy
        if not isinstance(self.dataset, IterableDataset):
            draw = copy.deepcopy(draw)
        return int(draw.integers(2**62))


class BatchIterator(LoaderIterator):
    """The batches of a source, read on demand."""

    def __init__(self, loader: DataLoader[Any], source: Source) -> None:
        self.sized, self._batches = loader, _in_turn(source)

    def __next__(self) -> Any:
        return next(self._batches)


class _DatasetKind:
    """PyTorch's names for what a loader reads: a data set by index, or a stream."""

    Map, Iterable = 0, 1


def _in_turn(source: Source) -> Iterator[Any]:
    read, finish = source.open(), source.finish
    for key in source.keys:
        batch = read(key)
        if batch is END:
            return
        yield finish(batch)


def _pinning(open_: Callable[[], Read]) -> Callable[[], Read]:
    def open_pinned() -> Read:
        read = open_()
        return lambda key: END if (batch := read(key)) is END else to_pinned(batch)

    return open_pinned


def _check_order(
    dataset: Any, batch_size: int | None, shuffle: bool | None, sampler: Any, batch_sampler: Any, drop_last: bool
) -> None:
    """ValueError if the arguments that choose a batch's samples contradict each other, or do not fit the data set."""
    iterable = isinstance(dataset, IterableDataset)
    if iterable and (shuffle or sampler is not None or batch_sampler is not None):
        raise ValueError(
            "DataLoader: an IterableDataset has an order of its own; "
            "shuffle, sampler and batch_sampler need a map-style data set"
        )
    if sampler is not None and shuffle:
        raise ValueError("DataLoader: give sampler or shuffle=True, not both")
    if batch_sampler is not None:
        if batch_size != 1 or shuffle or sampler is not None or drop_last:
            raise ValueError("DataLoader: batch_sampler stands in for batch_size, shuffle, sampler and drop_last")
    elif batch_size is None and drop_last:
        raise ValueError("DataLoader: drop_last needs a batch_size, got None")
    elif iterable and batch_size is not None:
        BatchSampler((), batch_size, drop_last)  # checks both
    if not iterable and not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"DataLoader: expected a data set with __getitem__ or an IterableDataset, got {type(dataset).__name__}"
        )


def _check_workers(
    num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool, context: Any
) -> None:
    if isinstance(num_workers, bool) or not isinstance(num_workers, int):
        raise TypeError(f"DataLoader: expected an integer as num_workers, got {num_workers!r}")
    if num_workers < 0:
        raise ValueError(f"DataLoader: expected num_workers >= 0, got {num_workers}")
    if timeout < 0:
        raise ValueError(f"DataLoader: expected timeout >= 0, got {timeout}")
    if prefetch_factor is not None and prefetch_factor < 1:
        raise ValueError(f"DataLoader: expected prefetch_factor >= 1, got {prefetch_factor}")
    if num_workers == 0:
        for name, given in (
            ("timeout", timeout),
            ("prefetch_factor", prefetch_factor is not None),
            ("persistent_workers", persistent_workers),
            ("multiprocessing_context", context is not None),
        ):
            if given:
                raise ValueError(f"DataLoader: {name} is for worker threads, but num_workers is 0")
