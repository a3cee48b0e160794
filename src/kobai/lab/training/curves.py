"""Short training runs with learning curves, for the experiments, ``compare`` and ``tune``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import kobai.data
from kobai import ops
from kobai.core.tensor import Tensor
from kobai.data import DataSplits
from kobai.errors import DataError
from kobai.lab.plain import plain
from kobai.lab.probe.probes import Probe
from kobai.lab.probe.readings import Reading
from kobai.nn import Module, functional as F
from kobai.optim import Optimizer
from kobai.train import Trainer
from kobai.train.batches import EVALUATION_BATCH, evaluating
from kobai.train.optimizers import optimizer as by_name
from kobai.xp import asarray, backend, to_host

__all__ = ["Curves", "Data", "accuracy", "evaluate", "load", "log_steps", "train_curves"]

MEASURED = 1000
"""Loss and accuracy are measured on the first this many training samples."""

QUICK_TRAINING, QUICK_TEST = 4000, 2000
"""Samples of a large data set that a quick run keeps."""


@dataclass(frozen=True, repr=False)
class Data:
    """A data set as whole tensors on the default device: a part to train on, and a part held out to choose by. The test split
    takes a call of :meth:`test`.

    ``train_x`` (N, *input_shape) float32, ``train_t`` (N,) int64, likewise ``held_x``, ``held_t``; ``classes``: how many.
    """

    name: str
    train_x: Tensor
    train_t: Tensor
    held_x: Tensor
    held_t: Tensor
    input_shape: tuple[int, ...]
    classes: int
    splits: DataSplits
    tested: int | None = None

    def __repr__(self) -> str:
        shape = "×".join(str(n) for n in self.input_shape)
        return (
            f"Data({self.name!r}: {len(self.train_x)} to train on, {len(self.held_x)} held out; {shape} inputs, "
            f"{self.classes} classes)"
        )

    @property
    def features(self) -> int:
        """Numbers in one sample."""
        return math.prod(self.input_shape)

    def test(self) -> tuple[Tensor, Tensor]:
        """(inputs, targets) of the test split, for one look at the end: never choose anything by it."""
        x, t = self.splits.test.tensors
        return x[: self.tested], t[: self.tested]

    def only(self, n: int) -> Data:
        """The same data with the first ``n`` training samples alone.

        >>> len(load("digits").only(300).train_x)
        300
        """
        if not 1 <= n <= len(self.train_x):
            raise ValueError(f"only: expected 1 to {len(self.train_x)} training samples of {self.name}, got {n}")
        return replace(self, train_x=self.train_x[:n], train_t=self.train_t[:n])


def load(data: str = "digits", quick: bool = False, seed: int = 0, data_dir: str | Path | None = None) -> Data:
    """The data set called ``data`` (see :func:`kobai.data.load`) on the default device; a ``quick`` one is cut to 4000
    samples.

    ``seed`` draws the held-out part and the order of the training samples. Within a process a data set is read once.

    >>> load("digits")
    Data('digits': 1294 to train on, 144 held out; 1×8×8 inputs, 10 classes)
    """
    return _load(data, quick, seed, None if data_dir is None else str(data_dir), backend())


@lru_cache(maxsize=4)
def _load(name: str, quick: bool, seed: int, data_dir: str | None, on: str) -> Data:
    splits = kobai.data.load(name, None if name == "digits" else data_dir, seed=seed)
    x, t = splits.train.tensors
    # Files may be sorted by class; the first n samples should be a random draw.
    order = np.random.default_rng([seed, 1]).permutation(len(x))[: QUICK_TRAINING if quick else None]
    index = _indices(order, x)
    held_x, held_t = splits.validation.tensors
    tested = QUICK_TEST if quick else None
    return Data(
        name,
        ops.index_select(x, 0, index),
        ops.index_select(t, 0, index),
        held_x[:tested],
        held_t[:tested],
        tuple(splits.input_shape),
        len(splits.classes),
        splits,
        tested,
    )


@dataclass
class Curves:
    """Learning curves of a run: each list has one entry per measurement, the first from before training.

    ``epoch`` is ``step`` in epochs; ``loss`` is the mean training loss of the batches since the previous measurement (at first:
    of the first batch). The others are measured in evaluation mode: ``train_loss`` and ``train_accuracy`` on the first 1000
    training samples, ``held_loss`` and ``held_accuracy`` on the validation split. Of a regression ``measure`` is ``"R²"``
    instead of ``"accuracy"``, and that is what stands there. :func:`train_curves` records no ``epoch``,
    :func:`kobai.lab.training.from_settings.train` no ``loss``; these lists stay empty. ``diverged`` is the step at which a loss
    that was not finite ended training, or None.
    """

    epoch: list[float] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    held_loss: list[float] = field(default_factory=list)
    held_accuracy: list[float] = field(default_factory=list)
    diverged: int | None = None
    seconds: float = 0.0
    backend: str = ""
    measure: str = "accuracy"
    readings: dict[int, Reading] = field(default_factory=dict)
    """What a probe saw, by the number of the step; the first step is 1."""

    def take(self, step: int, model: Module, trained: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]) -> None:
        """Add a measurement in evaluation mode, with one transfer from the device."""
        numbers = [number for pair in _evaluated(model, trained, held) for number in pair]
        curves = self.train_loss, self.train_accuracy, self.held_loss, self.held_accuracy
        self.measure = "R²" if held[1].is_floating_point() else "accuracy"
        self.step.append(step)
        for curve, number in zip(curves, numbers, strict=True):
            curve.append(number)

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values, NaN and infinity as None; without readings and empty lists.

        >>> Curves(step=[0], loss=[float("nan")]).as_dict()
        {'step': [0], 'loss': [None], 'diverged': None, 'seconds': 0.0, 'measure': 'accuracy'}
        """
        taken = {name: value for name, value in vars(self).items() if name != "readings" and value not in ([], "")}
        return {name: plain(value) for name, value in taken.items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Curves:
        """The curves that :meth:`as_dict` describes.

        >>> Curves.from_dict(Curves(step=[0], train_loss=[float("inf")]).as_dict()).train_loss
        [nan]
        """
        known = {name: values[name] for name in Curves.__dataclass_fields__ if name in values}
        for name, value in known.items():
            if isinstance(value, list):
                known[name] = [math.nan if v is None else v for v in value]
        return Curves(**known)


def train_curves(
    model: Module,
    data: Data,
    *,
    optimizer: str | Optimizer | Callable[[Any], Optimizer] = "sgd",
    lr: float | None = None,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int = 100,
    seed: int = 0,
    measure_every: int | Sequence[int] | None = None,
    capture: bool = True,
    after_step: Callable[[int], None] | None = None,
    on_measure: Callable[[Curves], bool | None] | None = None,
    probe: Probe | None = None,
) -> Curves:
    """Train ``model`` with cross-entropy on the training part of ``data`` and measure it on the way, never on the test split.

    Args:
        model: gives scores (N, classes) of inputs (N, *input_shape).
        optimizer: a name of ``kobai train --optimizer``, an optimiser of the model's parameters, or a function that makes
            one of the parameters. ``lr``, ``weight_decay`` and ``momentum`` are for names.
        epochs, steps: one of them says how long; ``epochs`` may be a fraction.
        batch_size: of all batches; what is left at the end of an epoch's order opens the next.
        seed: draws the order of the samples, and nothing else: two models with one seed see the same batches.
        measure_every: steps between measurements, or the steps themselves (see :func:`log_steps`); by default 40 measurements
            in all. The last step is always measured.
        capture: record the step and replay it, see :func:`kobai.capture`.
        after_step: called with the number of steps done, after each.
        on_measure: called with the curves so far after each measurement, the one before training too; True ends training (a
            pruned trial).
        probe: of this model; observes the steps that it is set to, and what it reads goes into ``readings``. It sees updates
            if it was given the optimizer, which must then be an object.

    Training ends where a measured loss is NaN or infinite; ``diverged`` then says at which step.

    >>> import kobai
    >>> _ = kobai.manual_seed(0)
    >>> data = load("digits")
    >>> curves = train_curves(kobai.train.mlp(64, [32], 10), data, lr=0.1, steps=200)
    >>> len(curves.step), curves.step[-1], curves.held_accuracy[0] < 0.5 < curves.held_accuracy[-1]
    (41, 200, True)
    """
    total, moments = _moments(len(data.train_x), data.name, epochs, steps, batch_size, measure_every)
    if probe is not None and probe.model is not model:
        raise ValueError(
            f"train_curves: expected a probe of the model that is trained, a {type(model).__name__}, got one of another "
            f"{type(probe.model).__name__}"
        )
    rule = _rule(model, optimizer, lr, weight_decay, momentum)
    if probe is not None and probe.optimizer not in (None, rule):
        raise ValueError("train_curves: the probe was given another optimizer, whose updates it would wait for in vain")
    trainer = Trainer(model, rule, terminate_on_non_finite=False, capture=capture)

    began = time.perf_counter()
    curves, indices = Curves(), _batches(len(data.train_x), batch_size, seed, data.train_x)
    held, trained = (data.held_x, data.held_t), (data.train_x[:MEASURED], data.train_t[:MEASURED])

    def batch(index: Tensor) -> tuple[Tensor, Tensor]:
        return ops.index_select(data.train_x, 0, index), ops.index_select(data.train_t, 0, index)

    since: list[Tensor] = []  # losses since the previous measurement

    def measure(step: int) -> bool:
        """Whether training is to end."""
        curves.loss.append(float(to_host(ops.stack([loss.detach() for loss in since]).array).mean()))
        since.clear()
        curves.take(step, model, trained, held)
        if step and not (math.isfinite(curves.loss[-1]) and math.isfinite(curves.train_loss[-1])):
            curves.diverged = step
            return True
        return on_measure is not None and bool(on_measure(curves))

    first = next(indices)
    with evaluating(model):
        x, t = batch(first)
        since.append(F.cross_entropy(model(x), t))
    total = 0 if measure(0) else total
    model.train()
    for step, index in zip(range(1, total + 1), chain([first], indices), strict=False):
        with nullcontext(False) if probe is None else probe.step() as observed:
            since.append(trainer.train_step(batch(index)))
        if observed and probe is not None and (reading := probe.read()) is not None:
            curves.readings[step] = reading
        if after_step is not None:
            after_step(step)
        if step in moments and measure(step):
            break
    model.eval()
    curves.seconds = time.perf_counter() - began
    return curves


def _moments(
    n: int, name: str, epochs: float | None, steps: int | None, batch_size: int, every: int | Sequence[int] | None
) -> tuple[int, set[int]]:
    """The number of steps on ``n`` samples, and the steps after which to measure."""
    if (epochs is None) == (steps is None):
        raise ValueError(f"train_curves: expected epochs or steps, got epochs={epochs}, steps={steps}")
    if not 1 <= batch_size <= n:
        raise ValueError(f"train_curves: expected a batch size from 1 to {n}, the samples of {name}, got {batch_size}")
    total = steps if steps is not None else max(1, round(float(epochs or 0) * n / batch_size))
    every = max(1, total // 40) if every is None else every
    if total < 1 or (isinstance(every, int) and every < 1):
        raise ValueError(
            f"train_curves: expected at least 1 step, and measurements at least 1 apart, got {total}, {every}"
        )
    return total, {total, *(range(0, total, every) if isinstance(every, int) else every)}


def _rule(
    model: Module,
    optimizer: str | Optimizer | Callable[[Any], Optimizer],
    lr: float | None,
    weight_decay: float,
    momentum: float,
) -> Optimizer:
    """The optimiser that ``train_curves`` was asked for."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"train_curves: {type(model).__name__} has no parameters to train")
    if isinstance(optimizer, str):
        return by_name(optimizer, parameters, lr, weight_decay, momentum)
    if lr is not None or weight_decay or momentum:
        raise ValueError(
            "train_curves: lr, weight_decay and momentum are for optimizers by name; set them in the optimizer"
        )
    return optimizer if isinstance(optimizer, Optimizer) else optimizer(parameters)


def log_steps(total: int, n: int = 80) -> list[int]:
    """About ``n`` different steps from 1 to ``total``, evenly spaced on a logarithmic axis.

    >>> log_steps(1000, 7)
    [1, 3, 10, 32, 100, 316, 1000]
    """
    return sorted({round(step) for step in np.geomspace(1, total, n)})


def accuracy(model: Module, x: Tensor, t: Tensor) -> float:
    """The share of samples whose highest score is that of their class, in evaluation mode.

    >>> import kobai
    >>> accuracy(kobai.nn.Identity(), kobai.eye(4), kobai.tensor([0, 1, 2, 0]))
    0.75
    """
    return evaluate(model, x, t)[1]


def evaluate(model: Module, x: Tensor, t: Tensor) -> tuple[float, float]:
    """(mean cross-entropy, accuracy) over whole tensors, in evaluation mode, with one transfer from the device.

    >>> import kobai
    >>> loss, share = evaluate(kobai.nn.Identity(), 9 * kobai.eye(4), kobai.tensor([0, 1, 2, 3]))
    >>> round(loss, 4), share
    (0.0004, 1.0)
    """
    if not len(x):
        raise DataError("evaluate: there is no sample")
    return _evaluated(model, (x, t))[0]


def _evaluated(model: Module, *parts: tuple[Tensor, Tensor]) -> list[tuple[float, float]]:
    """(mean cross-entropy, accuracy) over each part, of values (mean squared error, R²); with one transfer from the device."""
    sums = []
    with evaluating(model):
        for x, t in parts:
            batches = []
            for i in range(0, len(x), EVALUATION_BATCH):
                scores, target = model(x[i : i + EVALUATION_BATCH]), t[i : i + EVALUATION_BATCH]
                batches.append(_sums(scores, target))
            sums.append(ops.stack(batches).sum(0))
    numbers = to_host(ops.stack(sums).array).tolist()
    found = []
    for (loss, right, total, squares), (x, t) in zip(numbers, parts, strict=True):
        n = len(x)
        if t.is_floating_point():
            spread = squares - total * total / n
            right = n * (1 - loss / spread) if spread > 0 else math.nan
        found.append((loss / n, right / n))
    return found


def _sums(scores: Tensor, target: Tensor) -> Tensor:
    """Sums over a batch: of the loss, of right answers, of values and of their squares."""
    if target.is_floating_point():
        error = scores - target
        return ops.stack([(error * error).sum(), error.sum() * 0, target.sum(), (target * target).sum()])
    right = (scores.argmax(1) == target).sum().to(scores.dtype)
    return ops.stack([F.cross_entropy(scores, target, reduction="sum"), right, right * 0, right * 0])


def _batches(n: int, size: int, seed: int, like: Tensor) -> Iterator[Tensor]:
    """Indices of endless batches: one permutation of the samples after another, cut into batches of ``size``."""
    rng, left = np.random.default_rng([seed, 2]), np.arange(0)
    while True:
        order = np.concatenate([left, rng.permutation(n)])
        whole = len(order) - len(order) % size
        index = _indices(order, like)
        for at in range(0, whole, size):
            yield index[at : at + size]
        left = order[whole:]


def _indices(order: np.ndarray[Any, Any], like: Tensor) -> Tensor:
    index: Tensor = Tensor._wrap(asarray(order.astype(np.int64), device=like.device))
    return index
