"""``tune``: grid, random or Bayesian search by the score on the validation split; the test split is used once, at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kobai.cpu.threads import processors
from kobai.errors import DataError
from kobai.lab.sweep import tune_study
from kobai.lab.sweep.needs_optuna import require
from kobai.lab.sweep.tune_plan import TunePlan, plan, scored_by
from kobai.lab.sweep.tune_result import Search
from kobai.lab.sweep.values import with_own_models
from kobai.lab.sweep.watching import watching
from kobai.lab.training import from_settings, workers
from kobai.train.settings import SettingsError
from kobai.xp import backend

__all__ = ["perform", "read_plan", "tune"]

TRIALS = 30

Watch = Callable[[Search], None]


def tune(
    space: Mapping[str, Any],
    *,
    method: str = "tpe",
    trials: int | None = None,
    prune: bool | None = None,
    by: str | None = None,
    jobs: int | None = None,
    out: str | Path | None = None,
    storage: str | None = None,
    watch: Watch | None = None,
    **settings: Any,
) -> Search:
    """Search settings of ``kobai train`` for the best score on the validation split (needs Optuna: ``kobai[tune]``).

    Args:
        space: for each setting a range, ``"1e-4..1e-1:log"``, or choices, ``"50|100|100,100"`` or a list. ``:7`` after a
            range is the number of its points in a grid.
        method: ``"tpe"``, Bayesian by the tree-structured Parzen estimator (Bergstra et al. 2011); ``"random"``, uniform or
            log-uniform; ``"grid"``, all points in random order.
        trials: how many in all, those in ``out`` included; by default as many as were asked for when that was begun, or else
            30, or the whole grid.
        prune: end trials that fall behind, by asynchronous successive halving (arXiv:1810.05934); by default all but a grid.
        by: ``"accuracy"`` or ``"loss"`` of the validation split at the end of training; by default the accuracy, of a
            regression the loss.
        jobs: processes; by default as many as there are processors, on a GPU one.
        out: a folder for the study, its figures and ``report.html``, see :func:`kobai.lab.report`. Several processes or
            machines may work on one, and an interrupted search goes on there.
        storage: the URL of a database, such as ``postgresql://user@host/name`` (``kobai[postgres]``), that keeps the study
            under the name of the folder ``out``, for machines that share no folder. All ask for the same search.
        watch: called with the search so far, whenever it has changed; from another thread.
        settings: what all trials share, as options of ``kobai train``. A data set's own recipe is not applied.

    No trial sees the test split; :meth:`Search.test` looks at it, once. A trial's parameters depend on the seed and its number
    (and, with ``"tpe"``, on the trials before it).

    Raises:
        SettingsError: a setting that does not exist or has a wrong value; the accuracy of a regression. DataError: ``out``
            holds something else.
        ImportError: Optuna is not installed.

    >>> found = tune({"lr": "1e-4..1e-1:log"}, method="random", trials=4, hidden=(16,), epochs=2, jobs=1)
    >>> len(found.trials), found.settings().lr == found.best.parameters["lr"]
    (4, True)
    """
    base = from_settings.settings_of("tune", settings)
    made = plan(base, with_own_models(space), method, prune, scored_by(base, by), given=settings)
    return perform(made, trials=trials, jobs=jobs, out=out, storage=storage, watch=watch)


def perform(
    plan: TunePlan,
    *,
    trials: int | None = None,
    jobs: int | None = None,
    out: str | Path | None = None,
    storage: str | None = None,
    watch: Watch | None = None,
) -> Search:
    """Do the trials of a plan, or those that are left in the folder ``out``; results are also written on an interrupt."""
    require()
    if storage is not None and out is None:
        raise SettingsError("storage", "the study there has the name of the folder: give out (--out) too")
    from_settings.check_jobs(jobs)
    if trials is not None:
        from_settings.check_count("trials", trials)
    with tempfile.TemporaryDirectory() as temporary:
        # Several processes share a study by a file, one needs none.
        together = 1 if backend() != "numpy" else jobs or processors()
        folder = Path(out) if out is not None else Path(temporary) if together > 1 else None
        if folder is not None:
            tune_study.check_folder(folder, plan, storage)
        from_settings.parts(plan.base)  # download, or complain, once and here
        opened = tune_study.open_study(folder, plan, storage)
        tune_study.sweep(opened)
        wanted = wanted_in_all(plan, trials, opened)
        if tune_study.wanted(opened) != wanted:  # for whoever goes on
            opened.set_user_attr("trials", wanted)
        left = wanted - len(tune_study.by_place(opened, plan))
        try:
            with watching(lambda: Search(plan, tune_study.trials(opened, plan)), watch):
                if left > 0 and (folder is None or min(together, left) == 1):
                    tune_study.work(opened, plan, wanted)
                elif left > 0:
                    tasks = [(folder, plan, wanted, storage)] * min(together, left)
                    workers.run_all(tune_study.work_in, tasks, jobs=together)
        finally:
            search = Search(plan, tune_study.trials(opened, plan))
            if out is not None and search.ended:
                search.save(out)
    return search


def wanted_in_all(plan: TunePlan, trials: int | None = None, opened: Any = None) -> int:
    """How many trials there will be: as asked for now, or before, or the default; at most the points of a grid."""
    if trials is not None:
        from_settings.check_count("trials", trials)
    points = len(plan.grid()) if plan.method == "grid" else None
    before = tune_study.wanted(opened) if opened is not None else None
    wanted = trials or before or points or TRIALS
    return min(wanted, points) if points is not None else wanted


def read_plan(folder: str | Path, storage: str | None = None) -> TunePlan:
    """The plan of the search in a folder, or of the study of its name in a database; DataError if there is none."""
    held = tune_study.held_plan(Path(folder), storage)
    if held is None:
        missing = f"{tune_study.JOURNAL} is missing" if storage is None else "the database has no study of this name"
        raise DataError(f"{folder}: holds no search to go on with ({missing})")
    try:
        return TunePlan.from_dict(held)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: the plan of the search is damaged ({type(error).__name__}: {error})") from error
