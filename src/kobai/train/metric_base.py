"""What a metric is: a mean over the samples of an epoch, summed on the device, read from it once.

A metric adds to float64 sums that live where the network's output lives; no batch waits for the device. The sums of
all metrics are read together by :func:`read`, at the end of an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.dtypes import is_number
from kobai.ops.averaged import Averaged
from kobai.xp import Array, is_array, to_host, xp_of

PLAIN = (int, float)
"""Types of sums on the host; on a device they are arrays, so that no batch waits for it."""


class Metric:
    """A mean over samples. A subclass gives ``name`` and ``measure``; ``mode`` says which way is better.

    >>> import kobai
    >>> class Confidence(Metric):
    ...     name, mode = "confidence", "max"
    ...     def measure(self, output, target):
    ...         return output.max(1).values.sum(), len(output)
    >>> metric = Confidence()
    >>> metric.update(kobai.tensor([[0.5, 0.25], [0.0, 1.0]]), kobai.tensor([0, 1]))
    >>> metric.compute()
    0.75
    """

    name = ""
    mode = "min"
    total: Array = None
    count: Any = 0

    def __init__(self) -> None:
        self.reset()

    def measure(self, output: Tensor, target: Tensor) -> tuple[Any, Any]:
        """(sum over the batch, number of terms in it), each a number or a tensor or raw array of one element, on any device.

        A metric that needs several sums for its mean returns them as one array (k,), and :meth:`mean` makes one number of
        them.
        """
        raise NotImplementedError(f"{type(self).__name__}: define measure(output, target)")

    def mean(self, sums: list[float], count: float) -> float:
        """The value of an epoch, from its sums and the number of their terms."""
        return sums[0] / count

    def heed(self, averaged: Averaged) -> None:
        """Called with what the loss reads and ignores, before the first batch is measured; does nothing by default."""

    def reset(self) -> None:
        """Start a new mean."""
        self.total = None
        self.count = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add one batch to the mean."""
        self.add(*self._measured(output, target))

    def _measured(self, output: Tensor, target: Tensor) -> tuple[Any, Any]:
        measured = self.measure(output, target)
        if not isinstance(measured, tuple) or len(measured) != 2:
            raise TypeError(
                f"{self._who}: expected measure to return (sum over the batch, number of terms), got {kind_of(measured)}"
            )
        return measured

    def add(self, total: Any, count: Any) -> None:
        """Add ``count`` terms that sum to ``total`` (of any backend) to the mean."""
        total, count = self._checked(total, count)
        if self.total is None:
            self.total = 0.0 if type(total) in PLAIN else xp_of(total).zeros(total.shape, dtype=np.float64)
        if _size(self.total) != _size(total):
            raise TypeError(
                f"{self._who}: expected {_size(self.total)} sums as of the batches before, got {_size(total)}"
            )
        self.total = self.total + total
        self.count = self.count + count

    def _checked(self, total: Any, count: Any) -> tuple[Any, Any]:
        if type(count) not in PLAIN:
            count = self._array("number of terms", count)
            if count.size != 1:
                raise TypeError(
                    f"{self._who}: expected one number of terms, got an array of shape {tuple(count.shape)}"
                )
            count = count.reshape(())
        if type(total) not in PLAIN:
            total = self._array("sum", total)
            total = total.reshape(total.shape or (1,))
            if total.ndim > 1 or (total.size != 1 and type(self).mean is Metric.mean):
                raise TypeError(
                    f"{self._who}: expected one number as the sum over the batch, got an array of shape {tuple(total.shape)}; "
                    "a metric of several sums defines mean(sums, count) too"
                )
        return total, count

    def _array(self, what: str, value: Any) -> Any:
        """A number as an array, without tape."""
        if isinstance(value, Tensor):
            value = value.detach().array
        elif isinstance(value, (Real, np.generic)):
            value = np.asarray(value)
        if not is_array(value) or not is_number(value.dtype):
            raise TypeError(f"{self._who}: expected the {what} as a number or a tensor of one, got {kind_of(value)}")
        return value

    @property
    def _who(self) -> str:
        return self.name or type(self).__name__

    def compute(self) -> float:
        """The mean so far (waits for the device); NaN before the first batch, or if nothing counted."""
        return _means([self])[0]

    def state_dict(self) -> dict[str, Any]:
        """Sums and count, for a checkpoint within an epoch."""
        count = self.count if type(self.count) in PLAIN else float(to_host(self.count))
        total = np.array([self.total]) if type(self.total) in PLAIN else self.total
        return {"total": None if total is None else Tensor._wrap(total), "count": count}

    def load_state_dict(self, state: dict[str, Any], device: Any = None) -> None:
        """Go on from a :meth:`state_dict`, on ``device``."""
        self.total = None if state["total"] is None else state["total"].to(device or "cpu").array.copy()
        self.count = state["count"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def measured(metric: Metric, output: Tensor, target: Tensor) -> tuple[Any, Any]:
    """What ``metric.measure`` says, checked: each a plain number, or an array without tape."""
    return metric._checked(*metric._measured(output, target))


def _size(sums: Any) -> int:
    return 1 if type(sums) in PLAIN else sums.size


def kind_of(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def read(metrics: Sequence[Metric]) -> dict[str, float]:
    """The means of several metrics by name, with one copy from the device; a ``compute`` of a metric's own is called."""
    own = [metric for metric in metrics if type(metric).compute is not Metric.compute]
    others = [metric for metric in metrics if metric not in own]
    found = dict(zip((metric.name for metric in others), _means(others), strict=True))
    for metric in own:
        value = metric.compute()
        if isinstance(value, Tensor):
            value = value.item()
        if not isinstance(value, (Real, np.generic)):
            raise TypeError(f"{metric.name}: expected a number from compute, got {kind_of(value)}")
        found[metric.name] = float(value)
    return {metric.name: found[metric.name] for metric in metrics}


def _means(metrics: Sequence[Metric]) -> list[float]:
    parts: list[Array] = []
    for metric in metrics:
        if metric.total is not None:
            parts += [
                part.reshape(-1).astype(np.float64) for part in (metric.total, metric.count) if type(part) not in PLAIN
            ]
    values = iter(_on_host(parts))
    means = []
    for metric in metrics:
        if metric.total is None:
            means.append(math.nan)
            continue
        plain = type(metric.total) in PLAIN
        sums = [metric.total] if plain else [next(values) for _ in range(metric.total.size)]
        count = metric.count if type(metric.count) in PLAIN else next(values)
        means.append(float(metric.mean(sums, count)) if count else math.nan)
    return means


def _on_host(parts: Sequence[Array]) -> list[float]:
    """The numbers of all arrays, with one copy for each backend."""
    numbers: dict[int, list[float]] = {}
    kinds = [xp_of(part) for part in parts]
    for xp in {id(xp): xp for xp in kinds}.values():
        here = [i for i, kind in enumerate(kinds) if kind is xp]
        flat = iter(to_host(xp.concatenate([parts[i] for i in here])).tolist())
        numbers |= {i: [next(flat) for _ in range(parts[i].size)] for i in here}
    return [value for i in range(len(parts)) for value in numbers[i]]
