"""Metrics: means over the samples of an epoch, summed on the device, read from it once.

A metric adds to float64 sums that live where the network's output lives; no batch waits for the device. The sums of
all metrics are read together by :func:`read`, at the end of an epoch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.ops.averaged import Averaged
from kobai.xp import Array, is_array, to_host, xp_of

log = logging.getLogger("kobai")

IGNORED = -100
"""The class index that counts nothing where no loss says otherwise: cross-entropy's default."""


_PLAIN = (int, float)
"""What sums on the host may be; they are arrays on a device, where nothing is to be waited for."""


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

        A metric that needs several sums for its mean returns them as one array (k,), and makes a number of them in
        :meth:`mean`.
        """
        raise NotImplementedError(f"{type(self).__name__}: define measure(output, target)")

    def mean(self, sums: list[float], count: float) -> float:
        """The value of an epoch, from its sums and the number of their terms."""
        return sums[0] / count

    def heed(self, averaged: Averaged) -> None:
        """Told what the loss reads and leaves out, before the first batch is measured; nothing is done by default."""

    def reset(self) -> None:
        """Start a new mean."""
        self.total = None
        self.count = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take one batch into the mean."""
        measured = self.measure(output, target)
        if not isinstance(measured, tuple) or len(measured) != 2:
            raise TypeError(
                f"{self._who}: expected measure to return (sum over the batch, number of terms), got {_kind(measured)}"
            )
        self.add(*measured)

    def add(self, total: Any, count: Any) -> None:
        """Take ``count`` terms that sum to ``total`` (of any backend) into the mean."""
        if type(count) not in _PLAIN:
            count = self._array("number of terms", count)
            if count.size != 1:
                raise TypeError(
                    f"{self._who}: expected one number of terms, got an array of shape {tuple(count.shape)}"
                )
            count = count.reshape(())
        if type(total) not in _PLAIN:
            total = self._array("sum", total)
            total = total.reshape(total.shape or (1,))
            if total.ndim > 1 or (total.size != 1 and type(self).mean is Metric.mean):
                raise TypeError(
                    f"{self._who}: expected one number as the sum over the batch, got an array of shape {tuple(total.shape)}; "
                    "a metric of several sums defines mean(sums, count) too"
                )
        if self.total is None:
            self.total = 0.0 if type(total) in _PLAIN else xp_of(total).zeros(total.shape, dtype=np.float64)
        if _size(self.total) != _size(total):
            raise TypeError(
                f"{self._who}: expected {_size(self.total)} sums as of the batches before, got {_size(total)}"
            )
        self.total = self.total + total
        self.count = self.count + count

    def _array(self, what: str, value: Any) -> Any:
        """A number as an array, without tape."""
        if isinstance(value, Tensor):
            value = value.detach().array
        elif isinstance(value, (Real, np.generic)):
            value = np.asarray(value)
        if not is_array(value) or value.dtype.kind not in "biuf":
            raise TypeError(f"{self._who}: expected the {what} as a number or a tensor of one, got {_kind(value)}")
        return value

    @property
    def _who(self) -> str:
        return self.name or type(self).__name__

    def compute(self) -> float:
        """The mean so far (waits for the device); NaN before the first batch, and where nothing counted."""
        return _means([self])[0]

    def state_dict(self) -> dict[str, Any]:
        """Sums and count, for a checkpoint in the midst of an epoch."""
        count = self.count if type(self.count) in _PLAIN else float(to_host(self.count))
        total = np.array([self.total]) if type(self.total) in _PLAIN else self.total
        return {"total": None if total is None else Tensor._wrap(total), "count": count}

    def load_state_dict(self, state: dict[str, Any], device: Any = None) -> None:
        """Go on from a :meth:`state_dict`, on ``device``."""
        self.total = None if state["total"] is None else state["total"].to(device or "cpu").array.copy()
        self.count = state["count"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _size(sums: Any) -> int:
    return 1 if type(sums) in _PLAIN else sums.size


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


class Loss(Metric):
    """Mean loss over the samples, of batch means weighted by what each is the mean of.

    Where the loss leaves out labels or weighs classes (:func:`kobai.nn.functional.cross_entropy`), a batch weighs as much
    as its labels do, and one of which every label is left out, nothing: the value is that of all samples in one batch.
    Otherwise it weighs as much as it has samples.

    >>> import kobai
    >>> loss = kobai.train.Loss()
    >>> loss.take(kobai.tensor(1.0), kobai.zeros(3))
    >>> loss.take(kobai.tensor(5.0), kobai.zeros(1))
    >>> loss.compute()
    2.0
    """

    name = "loss"

    def take(self, loss: Tensor, target: Any, averaged: Averaged | None = None, summed: bool = False) -> None:
        """Take the loss of one batch into the mean.

        ``averaged`` is what the loss said of its target; ``summed``: the loss is a sum over the batch, not a mean.
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
        total = self.total if self.total is None or type(self.total) in _PLAIN else to_host(self.total)[0]
        return total is not None and not math.isfinite(total)


def _weight(target: Any, averaged: Averaged | None) -> Any:
    """What the mean loss of a batch is the mean of: the weights of its labels together, or its samples."""
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
    """How many are true: an integer on the host, an array on a device."""
    return int(np.count_nonzero(found)) if type(found) is np.ndarray else xp_of(found).count_nonzero(found)


def _indices(target: Any) -> bool:
    return isinstance(target, Tensor) and target.array.dtype.kind in "iu"


def _samples(target: Any) -> int:
    """How many samples a target is of, which may be nested."""
    while isinstance(target, (dict, list, tuple)) and target:
        target = next(iter(target.values())) if isinstance(target, dict) else target[0]
    return len(target) if isinstance(target, Tensor) and target.ndim else 1


class Accuracy(Metric):
    """Share of right predictions.

    By shape of output and target: (N, C, ...) scores with (N, ...) class indices, or with (N, C, ...) probabilities of one
    class a sample, are right where the greatest score is the target's class. (N,) or (N, 1) outputs with as many labels of
    0 and 1 (or −1 and 1) are right where they lie on the label's side of a threshold.

    Args:
        ignore_index: the class index that counts nothing. Default: that of the Trainer's loss, else −100.
        threshold: where 1 begins in outputs of one column. Default: what the Trainer's loss takes its input for – 0 for logits
            (:class:`~kobai.nn.BCEWithLogitsLoss`), ½ for probabilities (:class:`~kobai.nn.BCELoss`), the middle between the two
            labels for estimates (:class:`~kobai.nn.MSELoss`). Where no loss says, outputs that all lie in [0, 1] are
            taken for probabilities, with a line that says so, and others for logits.

    Errors: ValueError for shapes that do not fit, several classes a sample, or labels that are no two; IndexError for a class
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
            if 0 <= self._ignored < y.shape[1]:  # other labels that are left out are no class, and never right
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
        """How many are right by a threshold of 0, by one of ½, by the one given; outputs outside [0, 1]; labels below 0."""
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
        """IndexError for the first label that is no class and is not left out; of a device as :meth:`_check_targets`."""
        good = ((t >= 0) & (t < classes)) | (t == self._ignored)
        if (type(good) is np.ndarray or self.total is None) and not (seen := to_host(good)).all():
            at = tuple(int(i) for i in np.argwhere(~seen)[0])
            raise IndexError(
                f"accuracy: expected class indices in [0, {classes}), got {int(to_host(t)[at])} at position "
                f"{at[0] if len(at) == 1 else at}"
            )

    def _check_targets(self, good: Array, expected: str, t: Array) -> None:
        """ValueError unless all are ``good``. Looking waits for a device, which is done for an epoch's first batch only."""
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


def _arrays(name: str, output: Any, target: Any) -> tuple[Array, Array]:
    for what, value in (("output", output), ("target", target)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: expected a tensor as {what}, got {_kind(value)}; define a Metric for what is right here"
            )
    return output.array, target.array


def _difference(name: str, output: Tensor, target: Tensor) -> Array:
    _arrays(name, output, target)
    if output.shape != target.shape:
        raise ValueError(f"{name}: expected a target of shape {tuple(output.shape)}, got {tuple(target.shape)}")
    y, t = output.array, target.array
    wide = xp_of(y).result_type(y.dtype, t.dtype, np.float32)  # 16-bit numbers, and small integers, leave their range
    return y.astype(wide, copy=False) - t.astype(wide, copy=False)


KNOWN: dict[str, type[Metric]] = {"accuracy": Accuracy, "mse": MeanSquaredError, "mae": MeanAbsoluteError}


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


def read(metrics: Sequence[Metric]) -> dict[str, float]:
    """The means of several metrics by name, with one copy from the device; a metric with its own ``compute`` is asked."""
    own = [metric for metric in metrics if type(metric).compute is not Metric.compute]
    others = [metric for metric in metrics if metric not in own]
    found = dict(zip((metric.name for metric in others), _means(others), strict=True))
    for metric in own:
        value = metric.compute()
        if isinstance(value, Tensor):
            value = value.item()
        if not isinstance(value, (Real, np.generic)):
            raise TypeError(f"{metric.name}: expected a number from compute, got {_kind(value)}")
        found[metric.name] = float(value)
    return {metric.name: found[metric.name] for metric in metrics}


def _means(metrics: Sequence[Metric]) -> list[float]:
    parts: list[Array] = []
    for metric in metrics:
        if metric.total is not None:
            parts += [
                part.reshape(-1).astype(np.float64) for part in (metric.total, metric.count) if type(part) not in _PLAIN
            ]
    values = iter(_on_host(parts))
    means = []
    for metric in metrics:
        if metric.total is None:
            means.append(math.nan)
            continue
        plain = type(metric.total) in _PLAIN
        sums = [metric.total] if plain else [next(values) for _ in range(metric.total.size)]
        count = metric.count if type(metric.count) in _PLAIN else next(values)
        means.append(float(metric.mean(sums, count)) if count else math.nan)
    return means


def _on_host(parts: Sequence[Array]) -> list[float]:
    """The numbers of all arrays, with one copy for each backend they are on."""
    numbers: dict[int, list[float]] = {}
    kinds = [xp_of(part) for part in parts]
    for xp in {id(xp): xp for xp in kinds}.values():
        here = [i for i, kind in enumerate(kinds) if kind is xp]
        flat = iter(to_host(xp.concatenate([parts[i] for i in here])).tolist())
        numbers |= {i: [next(flat) for _ in range(parts[i].size)] for i in here}
    return [value for i in range(len(parts)) for value in numbers[i]]
