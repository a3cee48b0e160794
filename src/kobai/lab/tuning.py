"""``tune``: grid, random or Bayesian search of settings on the validation split; the test split is used once, at the end."""

from __future__ import annotations

import json
import math
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from kobai.errors import DataError, nearest
from kobai.kernels.threads import processors
from kobai.lab import plots, running, study, tune_figures, workers
from kobai.lab.values import Range, Space, spelt
from kobai.lab.values import space as space_of
from kobai.serialization import write_atomically
from kobai.train import job
from kobai.train.job import kobai_version
from kobai.train.settings import Settings, SettingsError
from kobai.xp import backend

__all__ = ["Plan", "Search", "Trial", "perform", "plan", "tune"]

METHODS = ("tpe", "random", "grid")
SCORES = {"accuracy": "validation accuracy", "loss": "validation loss"}
RESULTS, TEST, CHOSEN = "search.json", "test.json", "chosen"
TRIALS = 30
MEASURES = 27
"""Measurements along each trial: with halving by three, unpromising trials end after 1/9 or 1/3 of it."""

POLL = 0.5
"""Seconds between two looks at how far the trials of all processes are."""


@dataclass(frozen=True)
class Plan:
    """What is searched: ``space`` around ``base``; the seed of ``base`` draws the trials too."""

    base: Settings
    space: Space
    method: str = "tpe"
    prune: bool = True
    by: str = "accuracy"
    measures: int = MEASURES

    @property
    def greatest(self) -> bool:
        """Whether a greater score is better."""
        return self.by == "accuracy"

    def grid(self) -> list[dict[str, Any]]:
        """All points of the grid, as :func:`kobai.lab.study.settings` takes them."""
        axes = [
            what.grid() if isinstance(what, Range) else [spelt(value) for value in what] for what in self.space.values()
        ]
        return [dict(zip(self.space, point, strict=True)) for point in product(*axes)]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it: what a study of another search is told by."""
        space = {n: str(w) if isinstance(w, Range) else [spelt(v) for v in w] for n, w in self.space.items()}
        kept = {name: v for name, v in running.lasting(self.base).items() if name not in self.space}
        return {
            "space": space,
            "settings": kept,
            "method": self.method,
            "prune": self.prune,
            "by": self.by,
            "measures": self.measures,
        }


@dataclass(frozen=True)
class Trial:
    """One trial. ``state`` is complete, pruned, running, waiting or failed; ``value`` its score, of a pruned one the last.

    ``curve`` holds the score at each measurement.
    """

    number: int
    state: str
    value: float | None
    parameters: dict[str, Any]
    curve: list[float | None] = field(default_factory=list)
    loss: float | None = None
    seconds: float | None = None
    diverged: bool = False


@dataclass(frozen=True)
class Search:
    """What a search found so far."""

    plan: Plan
    trials: tuple[Trial, ...]

    def __repr__(self) -> str:
        if self.best is None:
            return "Search(no trial has been completed)"
        return (
            f"Search({len(self.complete)} complete trials, {len(self.of('pruned'))} pruned; best: {self.plan.by} "
            f"{self.best.value:.4f} with {spelt_out(self.best.parameters)})"
        )

    def of(self, *states: str) -> list[Trial]:
        """The trials in these states."""
        return [trial for trial in self.trials if trial.state in states]

    @property
    def complete(self) -> list[Trial]:
        """The trials that came to their end."""
        return self.of("complete")

    @property
    def best(self) -> Trial | None:
        """The complete trial with the best score, of equal ones that with the least validation loss; None without one."""
        sign = -1 if self.plan.greatest else 1

        def order(trial: Trial) -> tuple[float, float, int]:
            value = math.inf if trial.value is None else sign * trial.value
            return value, math.inf if trial.loss is None else trial.loss, trial.number

        return min(self.complete, key=order, default=None)

    def settings(self) -> Settings:
        """The settings of the best trial; DataError if there is none."""
        if self.best is None:
            raise DataError("tune: no trial has been completed, so none is best")
        return study.settings(self.plan, self.best.parameters)

    def command(self) -> str:
        """The command that trains with the best settings."""
        return running.command(self.settings())

    def test(self, folder: str | Path | None = None, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
        """Train with the best settings and look at the test split: ``{"accuracy": …, "loss": …, "parameters": …}``.

        With ``folder``, the run's files stay in its subfolder ``chosen`` and the result in ``test.json``; asked again, that is
        what is returned. DataError where the test split has been looked at with other settings already: to choose between
        two looks would make it one more validation split.
        """
        settings = self.settings()
        chosen: dict[str, Any] = study.plain(self.best.parameters if self.best else {})
        if folder is None:
            with tempfile.TemporaryDirectory() as temporary:
                return self._test(settings, chosen, Path(temporary), say)
        path = Path(folder) / TEST
        if path.exists():
            held: dict[str, Any] = running.read_json(path)
            if held.get("parameters") != chosen:
                raise DataError(
                    f"{path}: the test split has been looked at already, with {spelt_out(held.get('parameters', {}))}; to "
                    "choose by a second look would make it a validation split. Remove the file if you must"
                )
            return held
        found = self._test(settings, chosen, Path(folder), say)
        write_atomically(path, json.dumps(found, allow_nan=False, indent=1).encode() + b"\n")
        return found

    def _test(
        self, settings: Settings, chosen: dict[str, Any], folder: Path, say: Callable[[str], None]
    ) -> dict[str, Any]:
        run = folder / CHOSEN
        resume = run if job.holds_run(run) else None  # a look that was interrupted
        scores = job.train(settings, job.load_data(settings), run, resume=resume, say=say, curve=False)
        return {"accuracy": scores["accuracy"], "loss": scores["loss"], "parameters": chosen}

    def importances(self) -> dict[str, float]:
        """How much each setting has to do with whether a trial is among the best tenth; they sum to 1.

        By PED-ANOVA (arXiv:2304.10255), which sets the distribution of a setting among the best trials against that among
        all; pruned ones count with the score at which they ended. Empty while there are fewer than ten trials.
        """
        return study.importances(self)

    def figures(self) -> dict[str, Any]:
        """matplotlib ``Figure`` objects by name: ``history``, ``parallel``, and ``importance`` where it can be told."""
        return tune_figures.figures(self)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON holds it."""
        return {
            "kobai": kobai_version(),
            "title": "Search",
            **self.plan.as_dict(),
            "best": None if self.best is None else study.plain(asdict(self.best)),
            "command": None if self.best is None else self.command(),
            "importances": self.importances(),
            "trials": [study.plain(asdict(trial)) for trial in self.trials],
            "alt": tune_figures.alt_texts(self),
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``search.json`` and the figures (PNG and SVG) to a folder; figures only if matplotlib is there."""
        folder = Path(folder)
        text = json.dumps(self.as_dict(), ensure_ascii=False, allow_nan=False, indent=1)
        content = {RESULTS: text.encode() + b"\n"}
        with suppress(ImportError):
            for name, drawn in self.figures().items():
                content |= {f"{name}.{kind}": plots.render(drawn, kind) for kind in ("png", "svg")}
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in content.items():
            write_atomically(folder / name, data)
        return [folder / name for name in content]


Watch = Callable[[Search], None]


def tune(
    space: Mapping[str, Any],
    *,
    method: str = "tpe",
    trials: int | None = None,
    prune: bool | None = None,
    by: str = "accuracy",
    jobs: int | None = None,
    out: str | Path | None = None,
    watch: Watch | None = None,
    **settings: Any,
) -> Search:
    """Search settings of ``kobai train`` for the best score on the validation split (needs Optuna: ``kobai[tune]``).

    Args:
        space: for each setting a range, ``"1e-4..1e-1:log"``, or choices, ``"50|100|100,100"`` or a list. ``:7`` after a
            range is the number of its points in a grid.
        method: ``"tpe"``, Bayesian by the tree-structured Parzen estimator (Bergstra et al. 2011); ``"random"``, uniform or
            log-uniform; ``"grid"``, all points in random order.
        trials: how many in all, those in ``out`` included; 30, or the whole grid, by default.
        prune: end trials that fall behind, by asynchronous successive halving (arXiv:1810.05934); by default all but a grid.
        by: ``"accuracy"`` or ``"loss"`` of the validation split at the end of training.
        jobs: processes; by default as many as there are processors, on a GPU one.
        out: a folder for the study. Several processes or machines may work on one, and an interrupted search goes on there.
        watch: called with the search so far, whenever it has changed; from another thread.
        settings: what all trials share, as options of ``kobai train``. A data set's own recipe is not applied.

    No trial sees the test split; :meth:`Search.test` looks at it, once. A trial's parameters depend on the seed and its number
    (and, with ``"tpe"``, on the trials before it).

    Raises:
        SettingsError: a setting that does not exist or has a wrong value. DataError: ``out`` holds something else.
        ImportError: Optuna is not installed.

    >>> found = tune({"lr": "1e-4..1e-1:log"}, method="random", trials=4, hidden=(16,), epochs=2, jobs=1)
    >>> len(found.trials), found.settings().lr == found.best.parameters["lr"]
    (4, True)
    """
    base = running.settings_of("tune", settings)
    made = plan(base, space, method, prune, by, given=settings)
    return perform(made, trials=trials, jobs=jobs, out=out, watch=watch)


def plan(
    base: Settings,
    space: Mapping[str, Any],
    method: str = "tpe",
    prune: bool | None = None,
    by: str = "accuracy",
    measures: int = MEASURES,
    given: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan of a search; SettingsError for what cannot be. ``given`` holds the settings of ``base`` that were set."""
    if method not in METHODS:
        raise SettingsError("method", f"{method!r}: no method is called so.{nearest(method, METHODS)}")
    if by not in SCORES:
        raise SettingsError("by", f"{by!r}: no score is called so.{nearest(by, SCORES)}")
    found = space_of(space)
    for name in found:
        if name in (given or {}):
            raise SettingsError("space", f"{name} is given for all trials too; leave one of the two out")
    made = Plan(base.check(), found, method, method != "grid" if prune is None else prune, by, measures)
    ends = [
        [w.low, w.high] if isinstance(w, Range) else [spelt(v) for v in w] for w in found.values()
    ]  # if these can be, all between them can
    for point in product(*ends):
        try:
            study.settings(made, dict(zip(found, point, strict=True))).check()
        except SettingsError as error:
            raise SettingsError("space", f"{error.option.replace('_', '-')}: {error}") from None
    return made


def perform(
    plan: Plan,
    *,
    trials: int | None = None,
    jobs: int | None = None,
    out: str | Path | None = None,
    watch: Watch | None = None,
) -> Search:
    """Do what a plan says, or what is left of it in the folder ``out``."""
    study.require()
    running.check_jobs(jobs)
    points = len(plan.grid()) if plan.method == "grid" else None
    wanted = running.check_repeats("trials", trials if trials is not None else points or TRIALS)
    if points is not None and wanted > points:
        wanted = points
    jobs = 1 if backend() != "numpy" else min(jobs or processors(), wanted)
    with tempfile.TemporaryDirectory() as temporary:
        # Several processes meet in a file, one needs none.
        folder = Path(out) if out is not None else Path(temporary) if jobs > 1 else None
        if folder is not None:
            study.check_folder(folder, plan)
        running.parts(plan.base)  # downloads, and complains, once and here
        opened = study.open_study(folder, plan)
        study.sweep(opened)
        if plan.method == "grid":
            study.enqueue(opened, plan)
        left = wanted - study.counted(opened)
        with _watching(opened, plan, watch):
            if left > 0 and (folder is None or min(jobs, left) == 1):
                study.work(opened, plan, wanted)
            elif left > 0:
                workers.run_all(study.work_in, [(folder, plan, wanted)] * min(jobs, left), jobs=min(jobs, left))
        search = Search(plan, study.trials(opened, plan))
    if out is not None:
        search.save(out)
    return search


class _watching:
    """Tells ``watch`` of the search as it goes on, in whatever processes; at the end once more."""

    def __init__(self, opened: Any, plan: Plan, watch: Watch | None) -> None:
        self.opened, self.plan, self.watch = opened, plan, watch
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        if self.watch is not None:
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        if self.watch is not None:
            self.over.set()
            self.thread.join()
            self.watch(Search(self.plan, study.trials(self.opened, self.plan)))

    def _look(self) -> None:
        before: Any = None
        while not self.over.wait(POLL):
            now = study.trials(self.opened, self.plan)
            if now != before and self.watch is not None:
                self.watch(Search(self.plan, now))
            before = now


def spelt_out(parameters: Mapping[str, Any]) -> str:
    """Parameters in a line.

    >>> spelt_out({"lr": 0.00123456, "hidden": (100, 50)})
    'lr 0.00123, hidden 100,50'
    """
    return ", ".join(
        f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {spelt(tuple(v) if isinstance(v, list) else v)}"
        for n, v in parameters.items()
    )


def read_plan(folder: str | Path) -> Plan:
    """The plan of the search that a folder's study is of; DataError where there is none."""
    held = study.held_plan(Path(folder))
    if held is None:
        raise DataError(f"{folder}: holds no search to go on with ({study.JOURNAL} is missing)")
    base = Settings.from_dict({**held["settings"], **held["where"]})
    return plan(base, held["space"], held["method"], held["prune"], held["by"], held["measures"])
