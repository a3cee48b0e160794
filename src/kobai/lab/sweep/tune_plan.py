"""The plan of a search – space, method, score – and its trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import combinations, product
from random import Random
from typing import Any

from kobai.data.tables.table import is_table
from kobai.errors import nearest
from kobai.lab.plain import plain
from kobai.lab.reports.axes import Axis, between, named
from kobai.lab.sweep.values import Range, Space, space as space_of, spelt, spelt_out
from kobai.lab.training import from_settings
from kobai.train.settings import RunSettings, SettingsError

__all__ = ["TunePlan", "Trial", "plan", "ranked", "scored_by"]

METHODS = {"tpe": "Bayesian (TPE)", "random": "random", "grid": "grid"}
SCORES = {"accuracy": "validation accuracy", "loss": "validation loss"}

MEASURES = 27
"""Measurements along each trial: with halving by three, unpromising trials end after 1/9 or 1/3 of it."""


@dataclass(frozen=True)
class TunePlan:
    """What to search: ``space`` around ``base``, whose seed draws the trials too."""

    base: RunSettings
    space: Space
    method: str = "tpe"
    prune: bool = True
    by: str = "accuracy"
    measures: int = MEASURES

    @property
    def greatest(self) -> bool:
        """Whether a higher score is better."""
        return self.by == "accuracy"

    @property
    def score(self) -> str:
        """The name of the score."""
        return SCORES[self.by]

    def grid(self) -> list[dict[str, Any]]:
        """All points of the grid, as :meth:`settings` takes them."""
        axes = [
            what.grid() if isinstance(what, Range) else [spelt(value) for value in what] for what in self.space.values()
        ]
        return [dict(zip(self.space, point, strict=True)) for point in product(*axes)]

    def values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters as settings hold them; a choice may be given as text."""
        found = {}
        for name, value in parameters.items():
            what = self.space[name]
            found[name] = value if isinstance(what, Range) else next(one for one in what if value in (one, spelt(one)))
        return found

    def settings(self, parameters: Mapping[str, Any]) -> RunSettings:
        """The settings of a trial with these parameters."""
        return replace(self.base, **self.values(parameters))

    @property
    def models(self) -> list[str]:
        """The models of all trials."""
        varied = self.space.get("model")
        return varied if isinstance(varied, list) else [self.base.model]

    def axis(self, name: str) -> Axis:
        """The axis of a setting in a chart."""
        what = self.space[name]
        if isinstance(what, Range):
            return between(what.low, what.high, what.log, what.whole)
        return named([spelt(value) for value in what])

    def place(self, name: str, value: Any) -> float:
        """Where a value is on :meth:`axis`."""
        what = self.space[name]
        return float(value) if isinstance(what, Range) else float([spelt(one) for one in what].index(spelt(value)))

    def shares(self, parameters: Mapping[str, Any], jitter: Random) -> list[float]:
        """How far along its axis each value is; ``jitter`` sets equal choices side by side."""
        found = []
        for name, what in self.space.items():
            share = self.axis(name).share(self.place(name, parameters[name]))
            found.append(share if isinstance(what, Range) else share + jitter.uniform(-0.02, 0.02))
        return found

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it; a study of another search has another one."""
        space = {n: str(w) if isinstance(w, Range) else [spelt(v) for v in w] for n, w in self.space.items()}
        kept = {name: v for name, v in from_settings.lasting(self.base).items() if name not in self.space}
        return {
            "space": space,
            "settings": kept,
            "method": self.method,
            "prune": self.prune,
            "by": self.by,
            "measures": self.measures,
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> TunePlan:
        """The plan that :meth:`as_dict` describes.

        >>> made = plan(RunSettings(), {"lr": "1e-4..1:log", "hidden": "50|100,100"})
        >>> TunePlan.from_dict(made.as_dict()) == made
        True
        """
        base = RunSettings.from_dict({**content["settings"], **content.get("where", {})})
        return plan(base, content["space"], content["method"], content["prune"], content["by"], content["measures"])


@dataclass(frozen=True)
class Trial:
    """One trial. ``state`` is complete, pruned or running; ``value`` its score, of a pruned one the last.

    ``curve`` holds its scores after equal parts of its training, ``plan.measures`` of them in the end, None for one not taken.
    """

    number: int
    state: str
    value: float | None
    parameters: dict[str, Any]
    curve: list[float | None] = field(default_factory=list)
    loss: float | None = None
    seconds: float | None = None
    diverged: bool = False
    backend: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        content: dict[str, Any] = plain(asdict(self))
        return content

    @staticmethod
    def from_dict(content: Mapping[str, Any], plan: TunePlan) -> Trial:
        """The trial of a plan that :meth:`as_dict` describes."""
        known = {f.name for f in fields(Trial)}
        values = {name: value for name, value in content.items() if name in known}
        parameters = {name: tuple(v) if isinstance(v, list) else v for name, v in content["parameters"].items()}
        return Trial(**{**values, "parameters": plan.values(parameters)})


def ranked(plan: TunePlan, trials: Iterable[Trial]) -> list[Trial]:
    """The complete trials, best first; equal scores by validation loss. Those that diverged come last."""
    sign = -1 if plan.greatest else 1

    def order(trial: Trial) -> tuple[bool, float, float, int]:
        value = math.inf if trial.value is None else sign * trial.value
        return trial.diverged, value, math.inf if trial.loss is None else trial.loss, trial.number

    return sorted((trial for trial in trials if trial.state == "complete"), key=order)


def scored_by(base: RunSettings, by: str | None) -> str:
    """What trials are scored by where ``by`` leaves it open; SettingsError for the accuracy of a regression, which has none."""
    if by not in (None, "accuracy") or not is_table(base.data):
        return by or "accuracy"
    regression = from_settings.parts(base).train.tensors[1].is_floating_point()
    if regression and by is not None:
        raise SettingsError("by", f"the target of {base.data} is a number, which has no accuracy; score by the loss")
    return "loss" if regression else "accuracy"


def plan(
    base: RunSettings,
    space: Mapping[str, Any],
    method: str = "tpe",
    prune: bool | None = None,
    by: str = "accuracy",
    measures: int = MEASURES,
    given: Mapping[str, Any] | None = None,
) -> TunePlan:
    """The plan of a search; SettingsError if it cannot be done. ``given`` are the settings of ``base`` that the user set."""
    if method not in METHODS:
        raise SettingsError("method", f"{method!r}: no method is called so.{nearest(method, METHODS)}")
    if by not in SCORES:
        raise SettingsError("by", f"{by!r}: no score is called so.{nearest(by, SCORES)}")
    found = space_of(space)
    for name in found:
        if name in (given or {}):
            raise SettingsError("space", f"{name} is given for all trials too; leave one of the two out")
    made = TunePlan(base, found, method, method != "grid" if prune is None else prune, by, measures)
    # Checking the ends of each range, for each pair of settings, is enough: conflicts are between two settings.
    ends = {n: [w.low, w.high] if isinstance(w, Range) else [spelt(v) for v in w] for n, w in found.items()}
    first = {name: values[0] for name, values in ends.items()}
    points = [
        {**first, **dict(zip(names, point, strict=True))}
        for names in combinations(ends, min(2, len(ends)))
        for point in product(*(ends[name] for name in names))
    ]
    all_of_them = [(spelt_out(point), made.settings(point)) for point in points]
    return replace(made, base=from_settings.settled("space", base, found, all_of_them))
