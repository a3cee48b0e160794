"""The metrics: loss, accuracy, squared and absolute error; and how they are named."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.ops.averaged import Averaged
from kobai.train.metric_base import PLAIN, Metric, kind_of
from kobai.xp import Array, to_host, xp_of

log = logging.getLogger("kobai")

IGNORED = -100
"""The class index that is ignored unless a loss says otherwise: cross-entropy's default."""


class Loss(Metric):
    """Mean loss over the samples, of batch means weighted by what each is the mean of.

    If the loss ignores labels or weights classes (:func:`kobai.nn.functional.cross_entropy`), the weight of a batch is that of
    its labels, 0 if all are ignored, so that the value is that of all samples in one batch. Otherwise it is the number of
    samples.

    >>> import kobai
    >>> loss = kobai.train.Loss()
    >>> loss.take(kobai.tensor(1.0), kobai.zeros(3))
    >>> loss.take(kobai.tensor(5.0), kobai.zeros(1))
    >>> loss.compute()
    2.0
    """

    name = "loss"

    def take(self, loss: Tensor, target: Any, averaged: Averaged | None = None, summed: bool = False) -> None:
        """Add the loss of one batch to the mean.

        ``averaged`` is what the loss said about its target; ``summed``: the loss is a sum over the batch, not a mean.
        """
        value = loss.array
        if value.size != 1:
            raise ValueError(
                f"loss: expected one number from the loss function, got shape {tuple(value.shape)}; take its mean"
            )
        n = _weight(target, averaged)
        if type(value) is np.ndarray:
            total = (
                value.item() * (1 if summed else n) if n else 0.0
            )  # the mean of no labels is NaN, and no part of any mean
        else:
            value = value.reshape(()).astype(np.float64)
            total = value if summed else value * n
            total = total if type(n) is int else xp_of(value).where(n > 0, total, 0.0)
        self.add(total, n)

    def spoilt(self) -> bool:
        """Whether a loss was NaN or infinite (waits for the device)."""
        total = self.total if self.total is None or type(self.total) in PLAIN else to_host(self.total)[0]
        return total is not None and not math.isfinite(total)


def _weight(target: Any, averaged: Averaged | None) -> Any:
    """The weight of a batch's mean loss: the total weight of its labels, or the number of samples."""
    if averaged is None or averaged.ignore_index is None or not _indices(target):
        return _samples(target)
    labels = target.array
    xp = xp_of(labels)
    counts = labels != averaged.ignore_index
    if averaged.weight is None:
        return _count(counts)
    weight = averaged.weight.detach().array
    weights = (weight[xp.where(counts, labels, 0)] * counts).sum(dtype=np.float64)
    return weights.item() if type(labels) is np.ndarray else weights


def _count(found: Array) -> Any:
    """The number of true elements: an integer on the host, an array on a device."""
    return int(np.count_nonzero(found)) if type(found) is np.ndarray else xp_of(found).count_nonzero(found)


def _indices(target: Any) -> bool:
    return isinstance(target, Tensor) and target.array.dtype.kind in "iu"


def _samples(target: Any) -> int:
    """The number of samples of a target, which may be nested."""
    while isinstance(target, (dict, list, tuple)) and target:
        target = next(iter(target.values())) if isinstance(target, dict) else target[0]
    return len(target) if isinstance(target, Tensor) and target.ndim else 1


class Accuracy(Metric):
    """Share of right predictions.

    By shape of output and target: (N, C, ...) scores with (N, ...) class indices, or with (N, C, ...) probabilities of one
    class per sample, are right if the greatest score is that of the target's class. (N,) or (N, 1) outputs with as many labels
    of 0 and 1 (or −1 and 1) are right if they lie on the label's side of a threshold.

    Args:
        ignore_index: the class index to ignore. Default: that of the Trainer's loss, else −100.
        threshold: outputs of one column above it mean 1. Default: by the Trainer's loss – 0 for logits
            (:class:`~kobai.nn.BCEWithLogitsLoss`), ½ for probabilities (:class:`~kobai.nn.BCELoss`), the middle between the two
            labels for estimates (:class:`~kobai.nn.MSELoss`). Without such a loss, outputs that all lie in [0, 1] are read as
            probabilities, with a warning, and others as logits.

    Errors: ValueError for shapes that do not fit, several classes per sample, or labels of other values; IndexError for a class
    beyond the scores.

    >>> import kobai
    >>> metric = Accuracy()
    >>> metric.update(kobai.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), kobai.tensor([0, 1, 1]))
    >>> round(metric.compute(), 4)
    0.6667
    """

    name, mode = "accuracy", "max"

    def __init__(self, *, ignore_index: int | None = None, threshold: float | None = None) -> None:
        super().__init__()
        self.ignore_index, self.threshold = ignore_index, threshold
        self._told: Averaged | None = None

    def heed(self, averaged: Averaged) -> None:
        self._told = averaged

    @property
    def _ignored(self) -> int:
        if self.ignore_index is not None:
            return self.ignore_index
        told = None if self._told is None else self._told.ignore_index
        return IGNORED if told is None else told

    def measure(self, output: Tensor, target: Tensor) -> tuple[Array, Any]:
        y, t = _arrays(self.name, output, target)
        xp = xp_of(y)
        if y.ndim == t.ndim + 1 and y.shape[1] > 1 and t.dtype.kind in "iu" and (y.shape[0], *y.shape[2:]) == t.shape:
            if self._told is None or self._told.ignore_index is None:  # else the loss has looked at them
                self._check_classes(t, y.shape[1])
            counts, right = t != self._ignored, y.argmax(axis=1) == t
            if 0 <= self._ignored < y.shape[1]:  # other ignored labels are no class, and never right
                right &= counts
            return _count(right), _count(counts)
        if y.ndim > 1 and y.shape == t.shape and y.shape[1] > 1:
            good = abs(t.sum(axis=1) - 1.0) <= 1e-3
            self._check_targets(good, "one class a sample, as probabilities that sum to 1,", xp.moveaxis(t, 1, -1))
            right = y.argmax(axis=1) == t.argmax(axis=1)
            return _count(right), right.size
        if y.size == t.size and y.shape[:1] == t.shape[:1] == (y.size,):
            return self._of_two(y.reshape(-1), t.reshape(-1)), y.size
        raise ValueError(
            "accuracy: expected scores (N, C, ...) with class indices (N, ...) or probabilities of the same shape, or "
            f"logits (N,) with labels (N,), got output {tuple(y.shape)} and target {tuple(t.shape)} of {t.dtype}"
        )

    def _of_two(self, y: Array, t: Array) -> Array:
        """Counts: right by a threshold of 0, of ½, of the given one; outputs outside [0, 1]; labels below 0."""
        xp = xp_of(y)
        self._check_targets((t >= -1) & (t <= 1), "labels of 0 and 1, or of −1 and 1,", t)
        below = t < 0
        one = xp.where(below, False, t > 0.5)
        given = 0.0 if self.threshold is None else self.threshold
        found = [(y > 0) == one, (y > 0.5) == one, (y > given) == one, (y < 0) | (y > 1), below]
        return xp.stack([row.sum() for row in found])

    def mean(self, sums: list[float], count: float) -> float:
        if len(sums) == 1:
            return sums[0] / count
        logits, probabilities, given, outside, below = sums
        if self.threshold is not None:
            return given / count
        reads = "" if self._told is None else self._told.reads
        if reads == "logits" or (reads == "estimates" and below):
            return logits / count
        if reads in ("probabilities", "estimates"):
            return probabilities / count
        if outside:
            return logits / count
        log.warning(
            "accuracy: all outputs lie in [0, 1], so they are read as probabilities, above 0.5 for a 1; if they are logits, "
            "give Accuracy(threshold=0.0)"
        )
        return probabilities / count

    def _check_classes(self, t: Array, classes: int) -> None:
        """IndexError for the first label that is neither a class nor ignored; on a device see :meth:`_check_targets`."""
        good = ((t >= 0) & (t < classes)) | (t == self._ignored)
        if (type(good) is np.ndarray or self.total is None) and not (seen := to_host(good)).all():
            at = tuple(int(i) for i in np.argwhere(~seen)[0])
            raise IndexError(
                f"accuracy: expected class indices in [0, {classes}), got {int(to_host(t)[at])} at position "
                f"{at[0] if len(at) == 1 else at}"
            )

    def _check_targets(self, good: Array, expected: str, t: Array) -> None:
        """ValueError unless all are ``good``. That waits for a device, so it is done for an epoch's first batch only."""
        if (type(good) is np.ndarray or self.total is None) and not (seen := to_host(good)).all():
            raise ValueError(
                f"accuracy: expected {expected} in a target of the output's shape, got {to_host(t)[~seen][0].tolist()}; define "
                "a Metric for what is right here"
            )


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
        return (error * error).sum(dtype=np.float64), error.size


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
        return abs(error).sum(dtype=np.float64), error.size


class R2Score(Metric):
    """R² = 1 − Σ(target − output)² / Σ(target − mean)²: 1 is exact, 0 no better than the mean. One output a sample.

    >>> import kobai
    >>> metric = kobai.train.metrics.R2Score()
    >>> metric.update(kobai.tensor([[1.0], [2.0], [2.0]]), kobai.tensor([[1.0], [2.0], [3.0]]))
    >>> metric.compute()
    0.5
    """

    name, mode = "r2", "max"

    def measure(self, output: Tensor, target: Tensor) -> tuple[Array, int]:
        error, t = _difference(self.name, output, target), target.array.astype(np.float64)
        xp = xp_of(t)
        return xp.stack([(error * error).sum(dtype=np.float64), t.sum(), (t * t).sum()]), error.size

    def mean(self, sums: list[float], count: float) -> float:
        error, total, squares = sums
        spread = squares - total * total / count
        return 1.0 - error / spread if spread > 0 else math.nan


def _arrays(name: str, output: Any, target: Any) -> tuple[Array, Array]:
    for what, value in (("output", output), ("target", target)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: expected a tensor as {what}, got {kind_of(value)}; define a Metric for what is right here"
            )
    return output.array, target.array


def _difference(name: str, output: Tensor, target: Tensor) -> Array:
    _arrays(name, output, target)
    if output.shape != target.shape:
        raise ValueError(f"{name}: expected a target of shape {tuple(output.shape)}, got {tuple(target.shape)}")
    y, t = output.array, target.array
    wide = xp_of(y).result_type(y.dtype, t.dtype, np.float32)  # 16-bit numbers, and small integers, leave their range
    return y.astype(wide, copy=False) - t.astype(wide, copy=False)


KNOWN: dict[str, type[Metric]] = {
    "accuracy": Accuracy,
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "r2": R2Score,
}


_RECORD = ("loss", "epoch", "lr", "time")
"""Names in an epoch's record that are not a metric's."""


def resolve(metrics: Iterable[str | Metric]) -> list[Metric]:
    """Metrics given by name or as objects, checked to have different names."""
    found: list[Metric] = []
    for metric in [metrics] if isinstance(metrics, (str, Metric)) else metrics:
        if isinstance(metric, str):
            if metric not in KNOWN:
                raise ValueError(f"metrics: unknown metric {metric!r}.{nearest(metric, KNOWN)}")
            metric = KNOWN[metric]()
        elif not isinstance(metric, Metric):
            made = f"; make one of it: {metric.__name__}()" if isinstance(metric, type) else ""
            raise TypeError(f"metrics: expected names or kobai.train.Metric objects, got {type(metric).__name__}{made}")
        if not metric.name or metric.name in {*_RECORD, *(m.name for m in found)} or metric.name.startswith("val_"):
            raise ValueError(
                f"metrics: expected a name of its own for each metric, which is none of {', '.join(_RECORD)} and does not "
                f"begin with 'val_', got {metric.name!r}"
            )
        if metric.mode not in ("min", "max"):
            raise ValueError(f"metrics: expected {metric.name}.mode as 'min' or 'max', got {metric.mode!r}")
        found.append(metric)
    return found
