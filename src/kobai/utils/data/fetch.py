"""How a batch is read: sample by sample, or, from tensors, as one gather.

A :class:`Source` is what one pass over a data set consists of: ``keys``, one for each batch; ``open``, which gives the
function from key to batch and is called once by every thread that reads; and ``finish``, applied to a batch in the thread
that trains. A Source never refers to the loader, which may be dropped while threads still read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

import numpy as np

from kobai import xp
from kobai.core.tensor import Tensor
from kobai.utils.data.collate import stack, to_tensors
from kobai.utils.data.dataset import Dataset, IterableDataset, Subset, TensorDataset
from kobai.utils.data.sampler import Order, host_indices
from kobai.xp import Array, device_of, move

END: Any = object()
"""What a reader of a stream returns when the stream is over."""

Read = Callable[[Any], Any]


def same(batch: Any) -> Any:
    """The batch unchanged: the ``finish`` of a source that has nothing left to do."""
    return batch


@dataclass(frozen=True)
class Source:
    keys: Iterator[Any]
    open: Callable[[], Read]
    finish: Callable[[Any], Any] = same


# --- sample by sample -------------------------------------------------------------------------------------------------


def samples(dataset: Dataset[Any], keys: Iterable[Any], collate: Callable[[Any], Any] | None, batches: bool) -> Source:
    """Map-style data set: each key is a list of indices (``batches``), or one index. ``collate=None`` is the default."""
    combine, finish = (stack, to_tensors) if collate is None else (collate, same)
    getitems = getattr(dataset, "__getitems__", None)

    def read(key: Any) -> Any:
        if not batches:
            return combine(dataset[key])
        return combine(getitems(list(key)) if getitems else [dataset[index] for index in key])

    return Source(iter(keys), lambda: read, finish)


def stream(
    dataset: IterableDataset[Any], size: int | None, drop_last: bool, collate: Callable[[Any], Any] | None
) -> Source:
    """Iterable-style data set: every reader goes through an iterator of its own, ``size`` samples at a time."""
    combine, finish = (stack, to_tensors) if collate is None else (collate, same)

    def open_() -> Read:
        iterator = iter(dataset)

        def read(key: Any) -> Any:
            if size is None:
                sample = next(iterator, END)
                return END if sample is END else combine(sample)
            batch = list(islice(iterator, size))
            return END if not batch or (drop_last and len(batch) < size) else combine(batch)

        return read

    return Source(repeat(None), open_, finish)


# --- one gather per tensor --------------------------------------------------------------------------------------------


def tensors_of(dataset: object) -> tuple[tuple[Tensor, ...], list[Sequence[int]]] | None:
    """Tensors of a TensorDataset and the index lists of the Subsets around it, the outermost first; else None.

    Not of subclasses, which may override ``__getitem__``.
    """
    chosen: list[Sequence[int]] = []
    while type(dataset) is Subset:
        chosen.append(dataset.indices)
        dataset = dataset.dataset
    if type(dataset) is not TensorDataset or any(t.requires_grad for t in dataset.tensors):
        return None
    return dataset.tensors, chosen


class Rows:
    """Reads batches from tensors whose rows are samples."""

    def __init__(self, tensors: tuple[Tensor, ...], chosen: list[Sequence[int]]) -> None:
        self.arrays = [t.array for t in tensors]
        self.n = len(self.arrays[0])
        self.chosen = [host_indices(indices) for indices in chosen]

    def order(self, order: Order) -> Order:
        """Positions in the tensors, from positions in the outermost Subset."""
        for indices in self.chosen:
            order = indices[order.start : order.stop] if isinstance(order, range) else indices[order]
        if not isinstance(order, range):
            order = self._checked(order)
        return order

    def slices(self, order: Order, size: int, drop_last: bool) -> Source:
        """Consecutive batches of an epoch's order: the order is copied to the device once, and each batch takes a slice."""
        order = self.order(order)
        stop = len(order) - len(order) % size if drop_last else len(order)
        keys = (slice(start, min(start + size, stop)) for start in range(0, stop, size))
        if isinstance(order, range):
            return self._source(keys, self.copy)
        placed = [(array, move(order, device_of(array))) for array in self.arrays]
        return self._source(keys, lambda key: [_take(array, index[key]) for array, index in placed])

    def lists(self, keys: Iterable[Any]) -> Source:
        """Batches given as lists of indices, as other samplers yield them."""
        return self._source(iter(keys), self.gather)

    def copy(self, key: slice) -> list[Tensor]:
        # A copy, not a view: a batch changed in place must not change the data set.
        batch = []
        for array in self.arrays:
            with xp.beside(array):
                batch.append(Tensor._wrap(array[key].copy()))
        return batch

    def gather(self, key: Iterable[Any]) -> list[Tensor]:
        order = self.order(host_indices(key))
        return [_take(array, move(order, device_of(array))) for array in self.arrays]

    def _source(self, keys: Iterator[Any], read: Read) -> Source:
        if all(device_of(array) == "cpu" for array in self.arrays):
            return Source(keys, lambda: read)
        # The training thread queues work for a device: another thread's work would break into a captured step.
        return Source(keys, lambda: same, read)

    def _checked(self, order: Array) -> Array:
        """``order`` checked against the bounds, as a gather on a device does not; negative positions count from the end."""
        if order.size and (order.min() < -self.n or order.max() >= self.n):
            wrong = order[(order < -self.n) | (order >= self.n)][0]
            raise IndexError(f"TensorDataset: index {wrong} is out of range for {self.n} samples")
        return np.where(order < 0, order + self.n, order)


def _take(array: Array, index: Array) -> Tensor:
    with xp.beside(array):
        return Tensor._wrap(array.take(index, axis=0))  # type: ignore[no-any-return]
