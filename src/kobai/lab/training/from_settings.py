"""A run of ``kobai train`` by its settings, with curves and without the test split, for ``compare`` and ``tune``."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any

from kobai.errors import nearest
from kobai.lab.sweep.values import spelt
from kobai.lab.training.curves import MEASURED, Curves
from kobai.train import job
from kobai.train.callbacks import Callback
from kobai.train.optimizers import OPTIMIZERS
from kobai.train.own_models import named
from kobai.train.recipes import recipe
from kobai.train.settings import FREE, TABULAR, RunSettings, SettingsError, option
from kobai.train.trainer import Trainer
from kobai.utils.data import TensorDataset
from kobai.xp import backend

__all__ = ["command", "fingerprint", "parts", "settings_of", "train"]


@dataclass(frozen=True)
class Parts:
    """The parts of a data set that a run may see: all but the test split."""

    train: TensorDataset
    validation: TensorDataset
    input_shape: tuple[int, ...]
    outputs: int
    embedded: tuple[int, ...] = ()

    @cached_property
    def fingerprint(self) -> list[int]:
        """Sizes and checksums of both."""
        return [number for part in (self.train, self.validation) for number in (len(part), job.checksum(part))]


def parts(settings: RunSettings) -> Parts:
    """Training and validation part of the data that ``settings`` name, on the default device; read once in a process.

    >>> len(parts(RunSettings()).train), len(parts(RunSettings()).validation)
    (1294, 144)
    """
    s = settings
    read = RunSettings(data=s.data, data_dir=s.data_dir, download=s.download, validation=s.validation, seed=s.seed)
    return _parts(replace(read, **{name: getattr(s, name) for name in TABULAR}), backend())


@lru_cache(maxsize=4)
def _parts(settings: RunSettings, on: str) -> Parts:
    splits = job.load_data(settings)
    return Parts(splits.train, splits.validation, tuple(splits.input_shape), splits.outputs, splits.embedded)


def fingerprint(settings: RunSettings) -> list[int]:
    """Sizes and checksums of training and validation data: comparisons and searches do not resume with other data."""
    return parts(settings).fingerprint


class _Ended(Exception):
    """Ends a run that is not worth continuing."""


class _Measure(Callback):
    """Measures a run of :class:`Trainer` at certain ``steps``, in whatever epochs they are."""

    def __init__(
        self, data: Parts, batches: int, steps: Container[int], told: Callable[[Curves], bool | None] | None
    ) -> None:
        (held_x, held_t), (x, t) = data.validation.tensors, data.train.tensors
        self.held, self.trained = (held_x, held_t), (x[:MEASURED], t[:MEASURED])
        self.batches, self.steps, self.told = batches, steps, told
        self.run = Curves(backend=backend())

    def on_fit_start(self, trainer: Trainer) -> None:
        self._take(trainer, 0)

    def on_batch_end(self, trainer: Trainer) -> None:
        step = trainer.epoch * self.batches + trainer.position
        if step in self.steps:
            self._take(trainer, step)

    def on_fit_end(self, trainer: Trainer) -> None:
        step = trainer.epoch * self.batches
        if self.run.step[-1] != step:  # stopped early
            self._take(trainer, step)

    def _take(self, trainer: Trainer, step: int) -> None:
        run = self.run
        run.epoch.append(step / self.batches)
        run.take(step, trainer.model, self.trained, self.held)
        if not (math.isfinite(run.train_loss[-1]) and math.isfinite(run.held_loss[-1])):
            run.diverged = step
            raise _Ended
        if self.told is not None and self.told(run):
            raise _Ended


def train(
    settings: RunSettings, measures: int = 40, on_measure: Callable[[Curves], bool | None] | None = None
) -> Curves:
    """The run that ``kobai train`` makes of ``settings``, measured on the training and the validation part alone.

    There are ``measures`` evenly spaced measurements after the first, or one per step if there are fewer steps. ``on_measure``
    is called with the curves so far after each, and ends the run by returning True. Weights, batches and steps are exactly
    those of ``kobai train``.

    >>> run = train(RunSettings(hidden=(16,), epochs=3), measures=6)
    >>> run.epoch[0], run.epoch[-1], run.held_accuracy[-1] > run.held_accuracy[0]
    (0.0, 3.0, True)
    """
    data, began = parts(settings), time.perf_counter()
    batches = math.ceil(len(data.train) / settings.batch_size)
    total = batches * settings.epochs
    measure = _Measure(data, batches, {math.ceil(i * total / measures) for i in range(1, measures + 1)}, on_measure)
    trainer, loader = job.assemble(
        settings,
        job.describe_model(settings, data.input_shape, data.outputs, data.embedded),
        data.train,
        callbacks=[measure],
        terminate_on_non_finite=False,
    )
    needed = settings.patience is not None or settings.schedule == "plateau"  # these two look at the validation loss
    with suppress(_Ended):
        trainer.fit(loader, data.validation if needed else None, epochs=settings.epochs)
    measure.run.seconds = time.perf_counter() - began
    return measure.run


# --- settings ---------------------------------------------------------------------------------------------------------


def settings_of(who: str, values: Mapping[str, Any]) -> RunSettings:
    """:class:`RunSettings` from keyword arguments, unchecked; TypeError, with the nearest name, for an unknown one."""
    known = {f.name for f in fields(RunSettings)}
    for name in values:
        if name not in known:
            raise TypeError(f"{who}: no setting of kobai train is called {name!r}.{nearest(name, known)}")
    hidden = {"hidden": tuple(values["hidden"])} if "hidden" in values else {}
    own = {"model": named(values["model"])} if "model" in values else {}
    return RunSettings(**{**values, **hidden, **own})


def settled(
    option: str, base: RunSettings, varied: Container[str], all_of_them: Iterable[tuple[str, RunSettings]]
) -> RunSettings:
    """``base`` with the path of a table made absolute; SettingsError if one of ``all_of_them``, by name, is invalid.

    ``base`` itself is not checked: its values of the ``varied`` settings are not used. The error is about ``option``, unless
    it concerns a setting that does not vary and all of them have it.
    """
    wrong, checked = [], []
    for name, one in all_of_them:
        try:
            checked.append(one.check())
        except SettingsError as error:
            wrong.append((name, error))
    if wrong:
        name, first = wrong[0]
        if first.option not in varied and not checked:
            raise first
        raise SettingsError(option, f"{name}: {first.option.replace('_', '-')}: {first}")
    return replace(base, data=checked[0].data)


def lasting(settings: RunSettings) -> dict[str, Any]:
    """The settings that the numbers of a run depend on, as JSON."""
    return {name: v for name, v in settings.as_dict().items() if name not in FREE or name == "epochs"}


def shared(base: RunSettings, varied: Container[str]) -> str:
    """The settings that all runs share, without defaults of ``kobai train``.

    >>> shared(RunSettings(lr=0.1, epochs=5), ["lr"])
    'data digits, epochs 5'
    """
    usual = RunSettings().as_dict()
    own = [
        f"{name} {spelt(tuple(value) if isinstance(value, list) else value)}"
        for name, value in lasting(base).items()
        if name not in varied and name != "data" and value != usual[name]
    ]
    return ", ".join([f"data {base.data}", *own])


def command(settings: RunSettings) -> str:
    """The command that trains with these settings, overriding the data set's own defaults.

    >>> command(RunSettings(hidden=(50,), lr=0.01, init="normal(0.1)", data="mnist"))
    "kobai train --data mnist --hidden 50 --init 'normal(0.1)' --lr 0.01 --schedule none --epochs 30"
    """
    given = {name: value for name, value in asdict(settings).items() if value != getattr(RunSettings, name)}
    undone = {name: getattr(settings, name) for name in recipe(settings.data, given)}
    if "lr" in undone and settings.lr is None:
        undone["lr"] = OPTIMIZERS[settings.optimizer][1]
    if "patience" in undone and settings.patience is None:
        undone["patience"] = settings.epochs  # a run of so many never waits so long
    words = ["kobai", "train"]
    for name in asdict(settings):
        if name in given or name in undone:
            value = given.get(name, undone.get(name))
            if isinstance(value, bool):
                words.append(option(name) if value else "--no-" + option(name)[2:])
            else:
                words += [option(name), ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"]
    return shlex.join(words)


def check_count(name: str, value: Any) -> int:
    """``value`` if it is an integer of at least 1, else SettingsError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SettingsError(name, f"expected an integer >= 1, got {value!r}")
    return value


def check_jobs(jobs: int | None) -> None:
    """SettingsError for several processes on a GPU."""
    if jobs is not None:
        check_count("jobs", jobs)
        if jobs > 1 and backend() != "numpy":
            raise SettingsError("jobs", f"on the backend {backend()} runs go one after another, got {jobs}")
