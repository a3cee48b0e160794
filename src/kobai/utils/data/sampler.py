"""Samplers: in which order, and in which batches, the samples of a data set are visited.

All draws come from the host stream of a :class:`kobai.Generator`, so the order is the same on every backend. The samplers
here can give a whole epoch at once (``_order``), from which a ``DataLoader`` cuts batches without a Python loop over samples.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import chain, islice
from typing import Any, Generic, TypeVar

import numpy as np

from kobai.core.tensor import Tensor
from kobai.ops._args import need_flags
from kobai.random import Generator, resolve
from kobai.xp import to_host

__all__ = [
    "BatchSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "SubsetRandomSampler",
    "WeightedRandomSampler",
]

T_co = TypeVar("T_co", covariant=True)

Order = range | np.ndarray[Any, np.dtype[np.int64]]


class Sampler(Generic[T_co]):
    """Base of samplers: ``__iter__`` yields indices (or lists of them, for a batch sampler). Subclass it.

    >>> from kobai.utils.data import DataLoader
    >>> class Backwards(Sampler):
    ...     def __iter__(self):
    ...         return iter([2, 1, 0])
    >>> [batch.tolist() for batch in DataLoader([10, 11, 12], batch_size=2, sampler=Backwards())]
    [[12, 11], [10]]
    """

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__}: a Sampler must define __iter__")


PIECE = 2**20
"""How many draws at most are made at once in an epoch that is longer than its data."""


class _Ordered(Sampler[int]):
    """A sampler that computes the order of a whole epoch at once, unless the epoch is long beyond its data."""

    def _pieces(self) -> Iterator[Order]:
        """Consecutive pieces of an epoch's order. The stream they come from is chosen by the call, not by the first piece."""
        raise NotImplementedError

    def _order(self) -> Order:
        pieces = list(self._pieces())
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _endless(self) -> bool:
        """Whether an epoch is drawn piece by piece as it is used: ``num_samples=10**10`` stands for no end."""
        return False

    def __iter__(self) -> Iterator[int]:
        if self._endless():
            return chain.from_iterable(np.asarray(piece).tolist() for piece in self._pieces())
        order = self._order()  # drawn now, not at the first sample: iter() fixes the epoch
        return iter(order if isinstance(order, range) else order.tolist())


class SequentialSampler(_Ordered):
    """0, 1, 2, ...

    >>> list(SequentialSampler("abc"))
    [0, 1, 2]
    """

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def _pieces(self) -> Iterator[Order]:
        return iter([range(len(self.data_source))])

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(_Ordered):
    """A random order: a permutation, or with ``replacement`` independent uniform draws.

    ``num_samples`` (default: all) indices an epoch; more than there are continue with further permutations. Without
    ``generator`` each epoch draws one seed from the default generator and shuffles with that, so that an epoch costs the
    default generator one draw whatever the size of the data.

    >>> import kobai
    >>> sorted(RandomSampler(range(5), generator=kobai.Generator().manual_seed(0)))
    [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        need_flags("RandomSampler", replacement=replacement)
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = None if generator is None else resolve(generator)
        if num_samples is not None:
            _check_count("RandomSampler", "num_samples", num_samples)
        if len(data_source) == 0:
            raise ValueError("RandomSampler: the data set is empty, there is nothing to draw from")

    @property
    def num_samples(self) -> int:
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def _pieces(self) -> Iterator[Order]:
        draw = self.generator.numpy if self.generator is not None else _epoch_stream()
        n, count = len(self.data_source), self.num_samples
        if self.replacement:
            return (draw.integers(n, size=min(PIECE, count - start)) for start in range(0, count, PIECE))
        return (draw.permutation(n)[: count - start] for start in range(0, count, n))

    def _endless(self) -> bool:
        return self.num_samples > max(PIECE, len(self.data_source))

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(_Ordered):
    """The given ``indices`` in random order.

    >>> sorted(SubsetRandomSampler([4, 7, 2]))
    [2, 4, 7]
    """

    def __init__(self, indices: Sequence[int] | Tensor, generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = None if generator is None else resolve(generator)

    def _pieces(self) -> Iterator[Order]:
        return iter([host_indices(self.indices)[resolve(self.generator).numpy.permutation(len(self.indices))]])

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(_Ordered):
    """Index i with probability ``weights[i] / sum(weights)``, ``num_samples`` times.

    ``weights``: (N,) non-negative numbers; without ``replacement`` at least ``num_samples`` of them are positive.

    >>> set(WeightedRandomSampler([0.0, 1.0, 0.0], 4))
    {1}
    """

    def __init__(
        self,
        weights: Sequence[float] | Tensor,
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
    ) -> None:
        _check_count("WeightedRandomSampler", "num_samples", num_samples)
        need_flags("WeightedRandomSampler", replacement=replacement)
        host = to_host(weights.array) if isinstance(weights, Tensor) else weights
        w = np.asarray(host, dtype=np.float64)
        if w.ndim != 1:
            raise ValueError(f"WeightedRandomSampler: expected weights of shape (N,), got {w.shape}")
        if not np.isfinite(w).all() or (w < 0).any() or not w.sum() > 0:
            raise ValueError("WeightedRandomSampler: expected finite, non-negative weights with a positive sum")
        if not replacement and num_samples > np.count_nonzero(w):
            raise ValueError(
                f"WeightedRandomSampler: without replacement expected at most {np.count_nonzero(w)} samples, "
                f"as many as there are positive weights, got num_samples={num_samples}"
            )
        self.weights = w
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = None if generator is None else resolve(generator)

    def _pieces(self) -> Iterator[Order]:
        draw, p, count = resolve(self.generator).numpy, self.weights / self.weights.sum(), self.num_samples
        if not self.replacement:
            return iter([draw.choice(len(p), size=count, replace=False, p=p)])
        return (draw.choice(len(p), size=min(PIECE, count - start), p=p) for start in range(0, count, PIECE))

    def _endless(self) -> bool:
        return self.num_samples > max(PIECE, len(self.weights))

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of ``batch_size`` indices of another sampler; the last may be shorter, or is dropped.

    >>> list(BatchSampler(range(5), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Sampler[int] | Iterable[int], batch_size: int, drop_last: bool) -> None:
        _check_count("BatchSampler", "batch_size", batch_size)
        need_flags("BatchSampler", drop_last=drop_last)
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        return _batches(iter(self.sampler), self.batch_size, self.drop_last)

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]  # TypeError, as it should, where the sampler has no length
        return n // self.batch_size if self.drop_last else math.ceil(n / self.batch_size)


def _batches(items: Iterator[Any], size: int, drop_last: bool) -> Iterator[list[Any]]:
    """Lists of ``size`` items; the last may be shorter, or is dropped."""
    while batch := list(islice(items, size)):
        if len(batch) == size or not drop_last:
            yield batch


def host_indices(indices: Iterable[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Indices (integers, zero-dimensional tensors, an array, a tensor) as an int64 array on the host."""
    if isinstance(indices, Tensor):
        indices = to_host(indices.array)
    if isinstance(indices, range) or (isinstance(indices, np.ndarray) and indices.dtype.kind in "iu"):
        return np.asarray(indices, dtype=np.int64)
    return np.fromiter(map(operator.index, indices), np.int64)


def _epoch_stream() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int(resolve(None).numpy.integers(2**63))))


def _check_count(who: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{who}: expected an integer as {name}, got {value!r}")
    if value <= 0:
        raise ValueError(f"{who}: expected a positive {name}, got {value}")
