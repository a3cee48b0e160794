"""A comparison on several machines: each does the next run that nobody has done or is doing, and all have all runs in the end.

The runs are trials of an Optuna study, in a journal or a database; who does one is in the line that begins it, see
``tune_study.py``. The run of a process that has died is done again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from kobai.core.files import SILENCE
from kobai.lab.sweep import folders, tune_study
from kobai.lab.sweep.database import hidden, store
from kobai.lab.sweep.needs_optuna import calm, require
from kobai.lab.training import from_settings
from kobai.lab.training.curves import Curves
from kobai.train.settings import RunSettings

PATIENCE = 1.0
"""Seconds between two looks at whether others have done their runs."""


def open_runs(storage: str, name: str, content: Mapping[str, Any]) -> Any:
    """The study of a comparison; DataError if it is that of another one."""
    optuna = require()
    with calm():
        study = optuna.create_study(storage=store(storage), study_name=name, load_if_exists=True)
    held = study.user_attrs.get("comparison")
    if held is None:
        study.set_user_attr("comparison", folders.listed(content))
    else:
        folders.check_same(f"{name} in {hidden(storage)}", "comparison", held, content)
    return study


def done(study: Any) -> dict[int, dict[str, Any]]:
    """The finished runs, by their place."""
    return {place: t.user_attrs["run"] for place, t in _there(study).items() if t.state.name == "COMPLETE"}


def work(storage: str, name: str, content: Mapping[str, Any], runs: Sequence[RunSettings], measures: int) -> None:
    """Do runs, beside other processes, until all are done; those of others are waited for."""
    from optuna.exceptions import UpdateFinishedTrialError

    study = open_runs(storage, name, content)
    while True:
        tune_study.sweep(study)
        there = _there(study)
        place = next((i for i in range(len(runs)) if i not in there), None)
        if place is None:
            if all(there[i].state.name == "COMPLETE" for i in range(len(runs))):
                return
            time.sleep(PATIENCE)
            continue
        trial = tune_study.claim(study, place, lambda: _there(study))
        if trial is None:
            continue
        number = study._storage.get_trial(trial).number
        try:
            run = from_settings.train(runs[place], measures, _signs_of_life(study, trial))
            study._storage.set_trial_user_attr(trial, "run", run.as_dict())
            study.tell(number, 0.0)
        except UpdateFinishedTrialError:  # another machine thought this process dead, and repeats the run
            continue
        except BaseException:
            tune_study.give_back(study, number)
            raise
        finally:
            tune_study.ended(study, trial)


def _there(study: Any) -> dict[int, Any]:
    """Runs that are done or being done, by their place, which belongs to the first that took it."""
    found: dict[int, Any] = {}
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name in ("COMPLETE", "RUNNING"):
            found.setdefault(trial.user_attrs["place"], trial)
    return found


def _signs_of_life(study: Any, trial: int) -> Any:
    heard = time.time()

    def measured(run: Curves) -> bool:
        nonlocal heard
        if time.time() - heard > SILENCE / 10:
            heard = time.time()
            tune_study.heard_of(study, trial)
        return False

    return measured
