"""The result of a search: its trials, the best one, the importance of settings, and the files that report it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kobai.compat.versions import VERSION
from kobai.core.checksum import read_json, to_json, write_json
from kobai.errors import DataError
from kobai.lab.plain import plain
from kobai.lab.reports.reporting import report
from kobai.lab.sweep import folders, tune_figures
from kobai.lab.sweep.importance import importances
from kobai.lab.sweep.tune_plan import Trial, TunePlan, ranked
from kobai.lab.sweep.values import spelt_out
from kobai.lab.training import from_settings
from kobai.train import job
from kobai.train.callbacks import Callback
from kobai.train.settings import RunSettings

__all__ = ["Search"]

RESULTS, TEST, CHOSEN = "search.json", "test.json", "chosen"


@dataclass(frozen=True)
class Search:
    """What a search found so far."""

    plan: TunePlan
    trials: tuple[Trial, ...]

    def __repr__(self) -> str:
        if self.best is None:
            return "Search(no trial has been completed)"
        return (
            f"Search({len(self.complete)} complete trials, {len(self.of('pruned'))} pruned; best: {self.plan.by} "
            f"{self.best.value:.4f} with {spelt_out(self.best.parameters)})"
        )

    def _repr_html_(self) -> str:
        from kobai.lab.notebook import search

        return search(self)

    def of(self, *states: str) -> list[Trial]:
        """The trials in these states."""
        return [trial for trial in self.trials if trial.state in states]

    @property
    def complete(self) -> list[Trial]:
        """The trials that ran to the end."""
        return self.of("complete")

    @property
    def ended(self) -> list[Trial]:
        """The trials that ran to the end or were pruned."""
        return self.of("complete", "pruned")

    def ranking(self) -> list[Trial]:
        """The complete trials, best first; see :func:`kobai.lab.sweep.tune_plan.ranked`."""
        return ranked(self.plan, self.trials)

    @property
    def best(self) -> Trial | None:
        """The first of the ranking; None while no trial has ended with finite numbers."""
        return next((trial for trial in self.ranking() if not trial.diverged), None)

    def settings(self) -> RunSettings:
        """The settings of the best trial; DataError if there is none."""
        if self.best is None:
            raise DataError("tune: no trial has come to its end with finite numbers, so none is best")
        return self.plan.settings(self.best.parameters)

    def command(self) -> str:
        """The command that trains with the best settings."""
        return from_settings.command(self.settings())

    def test(
        self,
        folder: str | Path | None = None,
        say: Callable[[str], None] = lambda line: None,
        callbacks: tuple[Callback, ...] = (),
    ) -> dict[str, Any]:
        """Train with the best settings and look at the test split: ``{"accuracy": …, "loss": …, "parameters": …}``,
        of a regression ``"r2"`` instead of the accuracy.

        With ``folder``, the run's files stay in its subfolder ``chosen`` and the result in ``test.json``; asked again, that is
        what is returned. ``say`` is given each line of what is worth telling, ``callbacks`` go to the Trainer. DataError where
        the test split has been looked at with other settings already: to choose between two looks would make it one more
        validation split.
        """
        if folder is None:
            with tempfile.TemporaryDirectory() as temporary:
                return self.test(temporary, say, callbacks)
        settings, path, run = self.settings(), Path(folder) / TEST, Path(folder) / CHOSEN
        chosen: dict[str, Any] = plain(self.best.parameters if self.best else {})
        if path.exists():
            held: dict[str, Any] = read_json(path)
            if held.get("parameters") != chosen:
                raise DataError(
                    f"{path}: the test split has been looked at already, with {spelt_out(held.get('parameters', {}))}; to "
                    "choose by a second look would make it a validation split. Remove the file if you must"
                )
            return held
        resume = run if job.holds_run(run) else None  # a look that was interrupted
        data = job.load_data(settings)
        scores = job.train(settings, data, run, resume=resume, say=say, callbacks=callbacks, curve=False)
        main = "accuracy" if "accuracy" in scores else "r2"
        found = {main: scores[main], "loss": scores["loss"], "parameters": chosen}
        write_json(path, found, indent=1)
        results = path.with_name(RESULTS)
        if results.exists():
            report(results)  # which now has a test accuracy
        return found

    def importances(self) -> dict[str, float]:
        """How much each setting has to do with whether a trial is among the best tenth; they sum to 1.

        By PED-ANOVA (arXiv:2304.10255), which sets the distribution of a setting among the best trials against that among
        all; pruned ones count with the score at which they ended. Empty while there are fewer than ten trials.
        """
        return importances(self.plan, self.trials)

    def figures(self) -> dict[str, Any]:
        """matplotlib ``Figure`` objects by name: ``history``, ``parallel``, and ``importance`` where it can be told."""
        return tune_figures.figures(self)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON holds it."""
        return {
            "kobai": VERSION,
            "title": "Search",
            **self.plan.as_dict(),
            "best": None if self.best is None else self.best.as_dict(),
            "command": None if self.best is None else self.command(),
            "importances": self.importances(),
            "trials": [trial.as_dict() for trial in self.trials],
            "alt": tune_figures.alt_texts(self),
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``search.json``, ``report.html``, and, if matplotlib is there, the figures (PNG and SVG) to a folder."""
        return folders.save(Path(folder), {RESULTS: to_json(self.as_dict(), indent=1)}, self.figures)
