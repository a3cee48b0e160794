"""Metrics: means over the samples of an epoch, summed on the device, read from it once.

A metric adds to a float64 scalar that lives where the network's output lives; no batch waits for the device. The sums of
all metrics are read together by :func:`read`, at the end of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kobai._tensor import Tensor
from kobai.errors import nearest
from kobai.xp import Array, to_host, xp_of


class Metric:
    """A mean over samples. A subclass gives ``name`` and ``measure``; ``mode`` says which way is better.

    >>> import kobai
    >>> class Confidence(Metric):
    ...     name, mode = "confidence", "max"
    ...     def measure(self, output, target):
    ...         return output.max(1).values.sum().array, len(output)
    >>> metric = Confidence()
    >>> metric.update(kobai.tensor([[0.5, 0.25], [0.0, 1.0]]), kobai.tensor([0, 1]))
    >>> metric.compute()
    0.75
    """

    name = ""
    mode = "min"

    def __init__(self) -> None:
        self.reset()

    def measure(self, output: Tensor, target: Tensor) -> tuple[Array, int]:
        """(sum over the batch as a raw array scalar on the device, number of terms in it)."""
        raise NotImplementedError(f"{type(self).__name__}: define measure(output, target)")

    def reset(self) -> None:
        """Start a new mean."""
        self.total: Array = None
        self.count = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take one batch into the mean."""
        self.add(*self.measure(output, target))

    def add(self, total: Array, count: int) -> None:
        """Take ``count`` terms that sum to ``total`` (a scalar of any backend) into the mean."""
        if self.total is None:
            xp = xp_of(total)
            self.total = xp.zeros((1,), dtype=xp.float64)
        self.total += total
        self.count += count

    def compute(self) -> float:
        """The mean so far (waits for the device); NaN before the first batch."""
        return read([self])[self.name]

    def state_dict(self) -> dict[str, Any]:
        """Sum and count, for a checkpoint in the midst of an epoch."""
        return {"total": None if self.total is None else Tensor._wrap(self.total), "count": self.count}

    def load_state_dict(self, state: dict[str, Any], device: Any = None) -> None:
        """Go on from a :meth:`state_dict`, on ``device``."""
        self.total = None if state["total"] is None else state["total"].to(device or "cpu").array.copy()
        self.count = state["count"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Loss(Metric):
    """Mean loss over the samples, of batch means weighted by the sizes of their batches.

    >>> import kobai
    >>> loss = kobai.train.Loss()
    >>> loss.take(kobai.tensor(1.0), kobai.zeros(3))
    >>> loss.take(kobai.tensor(5.0), kobai.zeros(1))
    >>> loss.compute()
    2.0
    """

    name = "loss"

    def take(self, loss: Tensor, target: Tensor) -> None:
        """Take the mean loss of one batch into the mean."""
        n = len(target) if target.ndim else 1
        self.add(loss.array * n, n)


class Accuracy(Metric):
    """Share of right predictions.

    By shape of output and target: (N, C, ...) scores with (N, ...) class indices, or with (N, C, ...) probabilities, are
    right where the greatest score is the target's class; (N,) or (N, 1) logits with as many labels of 0 and 1 are right where
    logit > 0 says the label.

    >>> import kobai
    >>> metric = Accuracy()
    >>> metric.update(kobai.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), kobai.tensor([0, 1, 1]))
    >>> round(metric.compute(), 4)
    0.6667
    """

    name, mode = "accuracy", "max"

    def measure(self, output: Tensor, target: Tensor) -> tuple[Array, int]:
        y, t = output.array, target.array
        if y.ndim == t.ndim + 1 and y.shape[1] > 1 and t.dtype.kind in "iu" and (y.shape[0], *y.shape[2:]) == t.shape:
            right = y.argmax(axis=1) == t
        elif y.ndim > 1 and y.shape == t.shape and y.shape[1] > 1:
            right = y.argmax(axis=1) == t.argmax(axis=1)
        elif y.size == t.size and y.shape[:1] == t.shape[:1] == (y.size,):
            right = (y.reshape(-1) > 0) == (t.reshape(-1) > 0.5)
        else:
            raise ValueError(
                "accuracy: expected scores (N, C, ...) with class indices (N, ...) or probabilities of the same shape, or "
                f"logits (N,) with labels (N,), got output {tuple(y.shape)} and target {tuple(t.shape)} of {t.dtype}"
            )
        return right.sum(), right.size


class MeanSquaredError(Metric):
    """Mean of (output − target)² over all elements.

    >>> import kobai
    >>> metric = kobai.train.MeanSquaredError()
    >>> metric.update(kobai.tensor([1.0, 2.0]), kobai.tensor([1.0, 4.0]))
    >>> metric.compute()
    2.0
    """

    name = "mse"

    def measure(self, output: Tensor, target: Tensor) -> tuple[Array, int]:
        error = _difference(self.name, output, target)
        return (error * error).sum(), error.size


class MeanAbsoluteError(Metric):
    """Mean of |output − target| over all elements.

    >>> import kobai
    >>> metric = kobai.train.MeanAbsoluteError()
    >>> metric.update(kobai.tensor([1.0, 2.0]), kobai.tensor([1.0, 4.0]))
    >>> metric.compute()
    1.0
    """

    name = "mae"

    def measure(self, output: Tensor, target: Tensor) -> tuple[Array, int]:
        error = _difference(self.name, output, target)
        return abs(error).sum(), error.size


def _difference(name: str, output: Tensor, target: Tensor) -> Array:
    if output.shape != target.shape:
        raise ValueError(f"{name}: expected a target of shape {tuple(output.shape)}, got {tuple(target.shape)}")
    return output.array - target.array


KNOWN: dict[str, type[Metric]] = {"accuracy": Accuracy, "mse": MeanSquaredError, "mae": MeanAbsoluteError}


def resolve(metrics: Iterable[str | Metric]) -> list[Metric]:
    """Metrics given by name or as objects, checked to have different names."""
    found: list[Metric] = []
    for metric in [metrics] if isinstance(metrics, (str, Metric)) else metrics:
        if isinstance(metric, str):
            if metric not in KNOWN:
                raise ValueError(f"metrics: unknown metric {metric!r}.{nearest(metric, KNOWN)}")
            metric = KNOWN[metric]()
        elif not isinstance(metric, Metric):
            raise TypeError(f"metrics: expected names or kobai.train.Metric objects, got {type(metric).__name__}")
        if not metric.name or metric.name in {"loss", *(m.name for m in found)}:
            raise ValueError(f"metrics: expected a name of its own for each metric, got {metric.name!r}")
        found.append(metric)
    return found


def read(metrics: Sequence[Metric]) -> dict[str, float]:
    """The means of several metrics by name, with one copy from the device."""
    begun = [metric for metric in metrics if metric.count]
    if not begun:
        return {metric.name: float("nan") for metric in metrics}
    totals = to_host(xp_of(begun[0].total).concatenate([metric.total for metric in begun])).tolist()
    means = {metric.name: total / metric.count for metric, total in zip(begun, totals, strict=True)}
    return {metric.name: means.get(metric.name, float("nan")) for metric in metrics}
