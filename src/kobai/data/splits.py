"""The form of every data set: three splits, the names of the classes, and how raw values were scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.errors import DataError
from kobai.utils.data import TensorDataset
from kobai.xp import asarray, default_device

if TYPE_CHECKING:
    from kobai.data.tables.preparation import Preparation

Host = np.ndarray[Any, Any]

TEST_FRACTION, TEST_SEED = 0.2, 0
"""The test split of what comes without one: a fifth, the same for every seed of a run."""


@dataclass(frozen=True)
class Scaling:
    """``x = (raw − shift) / scale``, elementwise; one number for all features or one for each.

    >>> Scaling((0.0,), (255.0,))(np.array([0, 51, 255], dtype=np.uint8))
    array([0. , 0.2, 1. ], dtype=float32)
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def __call__(self, raw: Host) -> Host:
        """float32 features of raw values."""
        if raw.dtype == np.uint8 and self.shift == (0.0,):  # images: no float64 array in between
            scaled: Host = np.divide(raw, np.float32(self.scale[0]), dtype=np.float32)
        else:
            scaled = ((raw - np.array(self.shift)) / np.array(self.scale)).astype(np.float32)
        return scaled


@dataclass(frozen=True)
class DataSplits:
    """A data set in three parts that share no sample.

    Each part is a :class:`~kobai.utils.data.TensorDataset` of float32 features ``(N, *input_shape)`` and int64 labels
    ``(N,)``, label k meaning ``classes[k]``; or, without ``classes``, the standardised float32 values ``(N, 1)`` of a
    regression. The test part never depends on a seed: it is the published one, or cut off once
    and for all; only the rest is divided into training and validation. ``scaling`` maps raw values to features; ``features``
    names the inputs made of a table, ``label`` its target, ``preparation`` how they are made of its columns, and ``notes`` say
    what was done with it.

    >>> import kobai
    >>> data = kobai.data.digits()
    >>> data.input_shape, len(data.classes), data.train[0][0].shape
    ((1, 8, 8), 10, kobai.Size([1, 8, 8]))
    """

    name: str
    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    scaling: Scaling
    features: tuple[str, ...] = ()
    label: str = ""
    preparation: Preparation | None = None
    notes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Outputs of a net for these data: a score for each class, or one value."""
        return len(self.classes) or 1

    @property
    def embedded(self) -> tuple[int, ...]:
        """Categories of each of the last inputs that number them, as a table may have asked for."""
        return () if self.preparation is None else self.preparation.embedded

    def __repr__(self) -> str:
        shape = "×".join(str(n) for n in self.input_shape)
        answers = f"{len(self.classes)} classes" if self.classes else f"a regression of {self.label}"
        return (
            f"DataSplits({self.name!r}: {len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test; "
            f"{shape} input{'s' * (shape != '1')}, {answers})"
        )


def make_splits(
    name: str,
    training: tuple[Host, Host],
    test: tuple[Host, Host],
    classes: tuple[str, ...],
    validation: float | tuple[Host, Host],
    seed: int,
    scaling: Scaling | None = None,
    features: tuple[str, ...] = (),
    label: str = "",
) -> DataSplits:
    """Divide the training part into training and validation, scale everything, and make tensors on the default device.

    ``training`` and ``test`` are (raw features, labels), and so is ``validation`` where it is no share of the training part.
    Without ``scaling``, features are standardised: shift and scale are the mean and the standard deviation of each feature over
    the training split alone.
    """
    if not isinstance(validation, tuple):
        raw, labels = training
        kept, held = stratified(labels, validation, seed, f"{name}: validation")
        training, validation = (raw[kept], labels[kept]), (raw[held], labels[held])
    if not len(test[1]):
        raise DataError(f"{name}: the test split is empty")
    if scaling is None:
        spread = training[0].std(axis=0)
        spread[spread == 0] = 1.0  # a constant feature becomes 0
        scaling = Scaling(tuple(training[0].mean(axis=0).tolist()), tuple(spread.tolist()))

    def tensors(x: Host, t: Host) -> TensorDataset:
        return TensorDataset(_tensor(scaling(x)), _tensor(t.astype(np.int64)))

    return DataSplits(
        name,
        tensors(*training),
        tensors(*validation),
        tensors(*test),
        classes,
        training[0].shape[1:],
        scaling,
        features,
        label,
    )


def stratified(labels: Host, fraction: float, seed: int, who: str) -> tuple[Host, Host]:
    """Indices of the two parts of a split with equal class proportions; ``fraction`` of the samples are in the second.

    Both keep the order of the data. Of each class, ``fraction`` is rounded down, and the classes with the largest remainders
    give one sample more, until the whole is right.
    """
    if not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise ValueError(f"{who}: expected a fraction between 0 and 1, got {fraction!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"{who}: expected seed as an integer >= 0, got {seed!r}")
    n = len(labels)
    total = round(fraction * n)
    if n == 0:
        raise DataError(f"{who}: the data set is empty")
    if not 0 < total < n:
        raise DataError(f"{who}: {n} samples are too few to set {fraction:g} of them apart")
    rng = np.random.default_rng(seed)
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    exact = fraction * counts
    take = np.floor(exact).astype(np.int64)
    for k in np.argsort(take - exact, kind="stable")[: total - int(take.sum())]:
        take[k] += 1
    held = np.zeros(n, dtype=bool)
    for k in range(len(counts)):
        held[rng.permutation(np.flatnonzero(which == k))[: take[k]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def check_labels(who: str, labels: Host, n_samples: int, n_classes: int) -> None:
    """DataError unless ``labels`` holds a class index for each sample."""
    if labels.shape != (n_samples,):
        raise DataError(f"{who}: expected {n_samples} labels, one for each sample, got shape {labels.shape}")
    if n_samples and int(labels.max()) >= n_classes:
        where = int(np.argmax(labels >= n_classes))
        raise DataError(f"{who}: expected labels below {n_classes}, got {labels[where]} at position {where}")


def _tensor(host: Host) -> Tensor:
    tensor: Tensor = Tensor._wrap(asarray(host, device=default_device()))
    return tensor
