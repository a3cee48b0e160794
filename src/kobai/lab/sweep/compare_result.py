"""The result of a comparison: the runs of each condition, their ranking, and the files that report it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kobai.compat.versions import VERSION
from kobai.core.checksum import to_json
from kobai.lab.plain import plain
from kobai.lab.sweep import compare_figure, folders
from kobai.lab.sweep.compare_figure import SHOWN
from kobai.lab.sweep.compare_plan import ComparePlan
from kobai.lab.training.curves import Curves
from kobai.lab.training.from_settings import command, lasting
from kobai.train.settings import RunSettings

__all__ = ["Comparison", "Condition", "Place", "cells", "headings"]

RESULTS, TABLE, FIGURE = "results.json", "ranking.md", "curves"

REACHED = 0.9
"""The speed of a condition is how soon its accuracy, or R², passes this share of the best final one."""


@dataclass(frozen=True)
class Condition:
    """One condition with its runs, one for each seed; fewer where the comparison was interrupted."""

    name: str
    settings: RunSettings
    runs: tuple[Curves, ...]

    def curve(self, what: str) -> list[list[float]]:
        """Values of ``train_loss``, ``held_accuracy``, …: for each measurement those of all runs that reached it."""
        longest = max(len(run.epoch) for run in self.runs)
        return [[getattr(r, what)[i] for r in self.runs if i < len(r.epoch)] for i in range(longest)]

    @property
    def epochs(self) -> list[float]:
        """Where the measurements of :meth:`curve` are."""
        return max((run.epoch for run in self.runs), key=len)

    def final(self, what: str) -> list[float]:
        """The last value of each run."""
        return [getattr(run, what)[-1] for run in self.runs]


@dataclass(frozen=True)
class Place:
    """A line of the ranked table: means over ``runs`` seeds.

    ``accuracy`` is R² if ``measure`` says so. ``spread`` is the standard deviation over seeds, None with a single one.
    ``reached``: epochs until the mean accuracy passes 90 % of the best condition's, None if it never does.
    """

    rank: int
    name: str
    runs: int
    accuracy: float
    spread: float | None
    best: float
    loss: float
    train_loss: float
    reached: float | None
    diverged: int
    seconds: float
    measure: str = "accuracy"


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison: its conditions, in the order of the plan, and their ranking."""

    plan: ComparePlan
    conditions: tuple[Condition, ...]

    def __repr__(self) -> str:
        best = self.ranking()[0]
        return f"Comparison({len(self.conditions)} conditions × {self.plan.repeat}; best: {best.name}, {best.accuracy:.4f})"

    def _repr_html_(self) -> str:
        from kobai.lab.notebook import comparison

        return comparison(self, headings(self.ranking(), short=True), cells)

    @property
    def measure(self) -> str:
        """What conditions are ranked by: ``"accuracy"``, or ``"R²"`` of a regression."""
        return self.conditions[0].runs[0].measure

    @property
    def goal(self) -> float:
        """90 % of the best final accuracy, or R²: the sooner a condition reaches it, the faster it is."""
        return REACHED * max(_mean(c.final("held_accuracy")) for c in self.conditions)

    @property
    def left(self) -> int:
        """Unfinished runs: 0 unless the comparison was interrupted."""
        return len(self.plan.conditions()) * self.plan.repeat - sum(len(c.runs) for c in self.conditions)

    def ranking(self) -> list[Place]:
        """The conditions, best first: by the mean validation accuracy, or R², at the end, then by the validation loss.

        Conditions with runs that diverged come after all others.
        """
        goal, places = self.goal, []
        for c in self.conditions:
            accuracy, gone = c.final("held_accuracy"), sum(run.diverged is not None for run in c.runs)
            means = [_mean(v) for v in c.curve("held_accuracy")]
            places.append(
                Place(
                    rank=0,
                    name=c.name,
                    runs=len(c.runs),
                    accuracy=_mean(accuracy),
                    spread=statistics.stdev(accuracy) if len(accuracy) > 1 else None,
                    best=_mean([max(run.held_accuracy) for run in c.runs]),
                    loss=_mean(c.final("held_loss")),
                    train_loss=_mean(c.final("train_loss")),
                    reached=next((at for at, mean in zip(c.epochs, means, strict=True) if mean >= goal), None),
                    diverged=gone,
                    seconds=_mean([run.seconds for run in c.runs]),
                    measure=self.measure,
                )
            )
        places.sort(key=lambda p: (p.diverged, -p.accuracy, p.loss if math.isfinite(p.loss) else math.inf))
        return [replace(place, rank=i) for i, place in enumerate(places, 1)]

    def table(self) -> str:
        """The ranking as a table in Markdown."""
        places = self.ranking()
        rows = [["rank", "condition", *headings(places).values()]]
        rows += [[str(p.rank), p.name, *cells(p, headings(places))] for p in places]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        padded = [
            [cell.ljust(w) if i == 1 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
            for row in rows
        ]
        rule = ["-" * w if i == 1 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
        return "".join(f"| {' | '.join(row)} |\n" for row in (padded[0], rule, *padded[1:]))

    def command(self) -> str:
        """The command that trains with the settings of the best condition."""
        best = self.ranking()[0].name
        return command(next(c.settings for c in self.conditions if c.name == best))

    def figure(self) -> Any:
        """Learning curves, a matplotlib ``Figure``: mean over seeds, and in a band from the least to the greatest."""
        return compare_figure.figure(self)

    def alt_text(self) -> str:
        """What the figure shows, for readers who cannot see it."""
        places = self.ranking()
        shown = "; ".join(f"{p.name} {p.accuracy:.3f}" for p in places[:SHOWN])
        more = f"; and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        what = f"validation {self.measure}"
        return f"Training loss and {what} by epoch. Final {what}, best first: {shown}{more}."

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON holds it: plan, ranking, and each run's curves."""
        return {
            "kobai": VERSION,
            "title": "Comparison",
            **self.plan.as_dict(),
            "repeat": self.plan.repeat,
            "seeds": [self.plan.base.seed + r for r in range(self.plan.repeat)],
            "left": self.left,
            "goal": self.goal,
            "measure": self.measure,
            "ranking": [plain(asdict(place)) for place in self.ranking()],
            "command": self.command(),
            "alt": self.alt_text(),
            "conditions": [
                {"name": c.name, "settings": lasting(c.settings), "runs": [run.as_dict() for run in c.runs]}
                for c in self.conditions
            ],
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``results.json``, ``ranking.md``, ``report.html``, and, if matplotlib is there, ``curves.png`` and ``.svg``."""
        content = {RESULTS: to_json(self.as_dict(), indent=1), TABLE: self.table().encode()}
        return folders.save(Path(folder), content, lambda: {FIGURE: self.figure()})


def headings(places: Sequence[Place], short: bool = False) -> dict[str, str]:
    """The columns of a ranked table after rank and condition; columns that would say nothing are left out.

    ``short``: fewer columns and shorter headings, for a screen.
    """
    goal = f"{REACHED * max(place.accuracy for place in places):.2f}"
    found = {
        "runs": "runs",
        "accuracy": f"{'' if short else 'validation '}{places[0].measure}",
        "spread": "± std",
        "best": "" if short else "best",
        "loss": "loss" if short else "validation loss",
        "train_loss": "train loss" if short else "training loss",
        "reached": f"epochs to {goal}",
        "diverged": "diverged",
        "seconds": "" if short else "seconds",
    }
    if len({place.runs for place in places}) == 1:
        del found["runs"]
    if all(place.spread is None for place in places):
        del found["spread"]
    if not any(place.diverged for place in places):
        del found["diverged"]
    return {name: heading for name, heading in found.items() if heading}


def cells(place: Place, columns: Mapping[str, str]) -> list[str]:
    """A place's values in these columns."""
    found = []
    for name in columns:
        value = getattr(place, name)
        if value is None or not math.isfinite(value):
            found.append("–")
        elif name in ("runs", "diverged"):
            found.append(str(value))
        elif name in ("reached", "seconds"):
            found.append(f"{value:.1f}")
        else:
            found.append(f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}")
    return found


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
