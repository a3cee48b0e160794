"""What a data set is: something with ``__getitem__`` and ``__len__``, or something that can be iterated."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, Generic, TypeVar

from kobai.core.tensor import Tensor
from kobai.errors import users_line
from kobai.random import Generator, resolve

__all__ = [
    "ChainDataset",
    "ConcatDataset",
    "Dataset",
    "IterableDataset",
    "StackDataset",
    "Subset",
    "TensorDataset",
    "random_split",
]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Dataset(Generic[T_co]):
    """A map-style data set: ``dataset[index]`` is one sample, ``len(dataset)`` their number. Subclass it.

    A subclass may also define ``__getitems__(indices) -> list of samples``; a ``DataLoader`` then fetches a batch with
    one call. ``a + b`` is the :class:`ConcatDataset` of both.

    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 5
    ...
    ...     def __getitem__(self, index):
    ...         return index, index**2
    >>> Squares()[3], len(Squares() + Squares())
    ((3, 9), 10)
    """

    def __getitem__(self, index: Any) -> T_co:
        raise NotImplementedError(f"{type(self).__name__}: a map-style Dataset must define __getitem__")

    def __add__(self, other: Dataset[T]) -> ConcatDataset[T_co | T]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co], Iterable[T_co]):
    """A data set that can only be read from its beginning: a stream. Subclass it and define ``__iter__``.

    With ``num_workers`` > 1 every worker iterates over the whole stream unless ``__iter__`` takes its share of it, which
    :func:`get_worker_info` tells. ``a + b`` is the :class:`ChainDataset` of both.

    >>> class Countdown(IterableDataset):
    ...     def __iter__(self):
    ...         return iter([3, 2, 1])
    >>> list(Countdown()), list(Countdown() + Countdown())
    ([3, 2, 1], [3, 2, 1, 3, 2, 1])
    """

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__}: an IterableDataset must define __iter__")

    def __add__(self, other: Dataset[T]) -> ChainDataset[T_co | T]:  # type: ignore[override]  # a stream cannot be indexed
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Samples that are rows of tensors: ``dataset[i]`` is ``(x[i], t[i], ...)``.

    ``tensors``: any number of tensors of one first dimension N, on any device. A ``DataLoader`` takes each batch with one
    gather per tensor, on the device where it lives.

    >>> import kobai
    >>> x, t = kobai.arange(6.0).reshape(3, 2), kobai.tensor([0, 1, 0])
    >>> len(TensorDataset(x, t)), TensorDataset(x, t)[1]
    (3, (tensor([2., 3.]), tensor(1)))
    """

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise TypeError("TensorDataset: expected at least one tensor, got none")
        for i, t in enumerate(tensors):
            if not isinstance(t, Tensor):
                raise TypeError(f"TensorDataset: expected tensors, got {type(t).__name__} as argument {i}")
            if not t.shape:
                raise ValueError(f"TensorDataset: expected tensors of shape (N, ...), argument {i} has no dimension")
        lengths = [len(t) for t in tensors]
        if len(set(lengths)) > 1:
            raise ValueError(f"TensorDataset: expected tensors of one length, got lengths {lengths}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class ConcatDataset(Dataset[T_co]):
    """Several map-style data sets, concatenated.

    >>> both = ConcatDataset(["abc", "de"])
    >>> len(both), both[3], both[-1]
    (5, 'd', 'e')
    """

    datasets: list[Dataset[T_co]]
    cumulative_sizes: list[int]

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset: expected at least one data set, got none")
        for d in self.datasets:
            if isinstance(d, IterableDataset):
                raise TypeError(f"ConcatDataset: {type(d).__name__} is iterable-style; join streams with ChainDataset")
        self.cumulative_sizes = list(accumulate(_length(d, "ConcatDataset") for d in self.datasets))

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> T_co:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"ConcatDataset: index {index} is out of range for {len(self)} samples")
        which = bisect_right(self.cumulative_sizes, position)
        return self.datasets[which][position - (self.cumulative_sizes[which - 1] if which else 0)]


class ChainDataset(IterableDataset[T_co]):
    """Several iterable-style data sets, concatenated.

    >>> class Countdown(IterableDataset):
    ...     def __iter__(self):
    ...         return iter([3, 2, 1])
    >>> list(ChainDataset([Countdown(), Countdown()]))
    [3, 2, 1, 3, 2, 1]
    """

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        self.datasets = datasets

    def _streams(self) -> Iterator[IterableDataset[T_co]]:
        for d in self.datasets:
            if not isinstance(d, IterableDataset):
                raise TypeError(f"ChainDataset: expected IterableDatasets, got {type(d).__name__}")
            yield d

    def __iter__(self) -> Iterator[T_co]:
        return chain.from_iterable(self._streams())

    def __len__(self) -> int:
        return sum(_length(d, "ChainDataset") for d in self._streams())


class StackDataset(Dataset[Any]):
    """Several data sets of one length side by side: sample i is the tuple – given by name, the dict – of their samples.

    >>> StackDataset(image=["a", "b"], label=[0, 1])[1]
    {'image': 'b', 'label': 1}
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if bool(args) == bool(kwargs):
            raise ValueError("StackDataset: expected data sets, all of them by position or all by name")
        self.datasets: Any = kwargs if kwargs else args
        lengths = [len(d) for d in (kwargs.values() if kwargs else args)]
        if len(set(lengths)) > 1:
            raise ValueError(f"StackDataset: expected data sets of one length, got {lengths}")
        self._length = lengths[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: d[index] for name, d in self.datasets.items()}
        return tuple(d[index] for d in self.datasets)

    def __len__(self) -> int:
        return self._length


class Subset(Dataset[T_co]):
    """The samples of ``dataset`` at ``indices``, in their order.

    >>> list(Subset([10, 11, 12, 13], [3, 0]))
    [13, 10]
    """

    dataset: Dataset[T_co]
    indices: Sequence[int]

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T_co:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[T_co]:
        chosen = [self.indices[i] for i in indices]
        batched = getattr(self.dataset, "__getitems__", None)
        samples: list[T_co] = batched(chosen) if batched else [self.dataset[i] for i in chosen]
        return samples

    def __len__(self) -> int:
        return len(self.indices)


def random_split(
    dataset: Dataset[T], lengths: Sequence[int | float], generator: Generator | None = None
) -> list[Subset[T]]:
    """Split ``dataset`` at random into parts of ``lengths`` that do not overlap.

    ``lengths``: integers that sum to ``len(dataset)``, or fractions that sum to 1; samples that rounding down leaves over
    go to the parts in turn. ``generator`` fixes the split (default: the default generator).

    >>> import kobai
    >>> [len(part) for part in random_split(range(10), [0.7, 0.3], kobai.Generator().manual_seed(42))]
    [7, 3]
    """
    n = _length(dataset, "random_split")
    sizes = [float(size) for size in lengths]
    if sizes and all(0 <= size <= 1 for size in sizes) and math.isclose(sum(sizes), 1):
        counts = [math.floor(size * n) for size in sizes]
        for i in range(n - sum(counts)):
            counts[i % len(counts)] += 1
        for i, count in enumerate(counts):
            if count == 0:
                warnings.warn(f"random_split: part {i} of {len(counts)} is empty", stacklevel=users_line())
    else:
        if any(size < 0 or size != int(size) for size in sizes) or sum(sizes) != n:
            raise ValueError(
                f"random_split: expected integers that sum to {n}, the length of the data set, or fractions that sum to 1, "
                f"got {list(lengths)}"
            )
        counts = [int(size) for size in sizes]
    order: list[int] = resolve(generator).numpy.permutation(n).tolist()
    ends = list(accumulate(counts))
    return [Subset(dataset, order[end - count : end]) for count, end in zip(counts, ends, strict=True)]


def _length(dataset: object, who: str) -> int:
    try:
        return len(dataset)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{who}: expected a data set with a length, got {type(dataset).__name__} without __len__"
        ) from None
