"""The Optuna study behind a search: its journal on disk, and trials that several processes share and none can lose."""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from kobai.core.checksum import read_json, write_json
from kobai.core.files import SILENCE, Process, this_process
from kobai.core.untrusted import real, regular
from kobai.errors import DataError
from kobai.lab.plain import plain
from kobai.lab.sweep import folders
from kobai.lab.sweep.database import store
from kobai.lab.sweep.journal import Journal
from kobai.lab.sweep.needs_optuna import calm, require
from kobai.lab.sweep.tune_plan import Trial, TunePlan
from kobai.lab.sweep.values import Range, spelt
from kobai.lab.training import from_settings
from kobai.lab.training.curves import Curves

JOURNAL, NAME = "study.journal", "kobai"
ELSEWHERE = "storage.json"
"""In a folder whose study is in a database: its name there."""
BEGIN = b'{"op_code": 0, "worker_id": "'
"""The beginning of a journal."""
ETA = 3
"""Of the trials that reach a rung, the best third goes on (arXiv:1810.05934 uses 3 and 4)."""


# --- the file ---------------------------------------------------------------------------------------------------------


def check_folder(folder: Path, plan: TunePlan, storage: str | None = None) -> None:
    """DataError unless the folder is free or holds this very search. Of a study, nothing is changed.

    With a ``storage`` the study is in a database, under the folder's name, and the folder is for what is found.
    """
    if storage is None and (folder / ELSEWHERE).exists():
        raise DataError(f"{folder}: the study of this search is in a database; say which one by storage (--storage)")
    begun = folders.holds(folder, JOURNAL if storage is None else ELSEWHERE, "search")
    held = held_plan(folder, storage) if begun or storage is not None else None
    if held is not None:
        folders.check_same(folder, "search", held, {n: v for n, v in _described(plan).items() if n != "where"})
    if storage is not None and not begun:
        write_json(folder / ELSEWHERE, {"study": real(folder).name})


def held_plan(folder: Path, storage: str | None = None) -> dict[str, Any] | None:
    """The plan of the study in a folder, or in a database; None if there is none yet. DataError for a foreign journal."""
    if storage is not None:
        return _plan_in(storage, _name(folder))
    path = folder / JOURNAL
    if not path.exists():
        return None
    journal, created = Journal(regular(path)), False
    for entry in journal.read_logs(0):
        created |= entry["op_code"] == 0 and entry.get("study_name") == NAME
        if "plan" in entry.get("user_attr", {}):
            found: dict[str, Any] = entry["user_attr"]["plan"]
            return found
    with regular(path).open("rb") as file:  # a process may have been killed in its first line
        begun = not journal.seen[0] and BEGIN.startswith(file.read(len(BEGIN)))
    if not (created or begun):
        raise DataError(f"{path}: is no journal of a search by Kobai; choose another folder")
    return None


def _described(plan: TunePlan) -> dict[str, Any]:
    where = {name: getattr(plan.base, name) for name in ("data_dir", "download")}
    return folders.listed({**plan.as_dict(), "data": from_settings.fingerprint(plan.base), "where": where})


def _name(folder: Path) -> str:
    """Of a folder's study in a database."""
    marked = folder / ELSEWHERE
    return str(read_json(marked)["study"]) if marked.exists() else real(folder).name


def _plan_in(storage: str, name: str) -> dict[str, Any] | None:
    """The plan of a study in a database; None if there is no such study."""
    optuna = require()
    opened = store(storage)
    if name not in optuna.get_all_study_names(opened):
        return None
    found: dict[str, Any] | None = optuna.load_study(study_name=name, storage=opened).user_attrs.get("plan")
    return found


def open_study(folder: Path | None, plan: TunePlan, storage: str | None = None) -> Any:
    """The study in a folder or in a database, which is made if it is missing; without either, one in memory."""
    optuna = require()
    direction = "maximize" if plan.greatest else "minimize"
    with calm():
        if folder is None:
            kept, name = None, NAME
        elif storage is None:
            kept, name = optuna.storages.JournalStorage(Journal(folder / JOURNAL)), NAME
        else:
            kept, name = store(storage), _name(folder)
        study = optuna.create_study(storage=kept, study_name=name, direction=direction, load_if_exists=True)
    if folder is not None and "plan" not in study.user_attrs:
        study.set_user_attr("plan", _described(plan))
    return study


def wanted(study: Any) -> int | None:
    """How many trials were wanted in all when the study was last worked on."""
    found: int | None = study.user_attrs.get("trials")
    return found


# --- trials -----------------------------------------------------------------------------------------------------------


def work_in(folder: Path, plan: TunePlan, wanted: int, storage: str | None = None) -> None:
    """Do trials of the study of a folder, beside other processes, until there are as many as wanted."""
    # A worker that is told to end first gives back its trial, and the journal's lock, which others wait for.
    ending = False

    def end(*_: Any) -> None:
        nonlocal ending
        ending = True
        sys.exit(1)

    before = signal.signal(signal.SIGTERM, end)
    try:
        work(open_study(folder, plan, storage), plan, wanted)
    finally:
        if ending:  # at once: a pool that closes waits for its workers, and they for their next task
            os._exit(1)
        signal.signal(signal.SIGTERM, before)


def work(study: Any, plan: TunePlan, wanted: int) -> None:
    """Do trials until there are as many as wanted, by whichever process."""
    require()
    from optuna.exceptions import UpdateFinishedTrialError

    while (trial := _take(study, plan, wanted)) is not None:
        attempt = trial.user_attrs["attempt"]
        try:
            state, value = _perform(trial, plan)
        except UpdateFinishedTrialError:  # another machine thought this process dead, and repeats the trial
            continue
        except BaseException:
            give_back(study, trial.number)
            raise
        finally:
            _at_work.discard(attempt)
        study.tell(trial, value, state=state, skip_if_finished=True)


def _take(study: Any, plan: TunePlan, wanted: int) -> Any:
    """Take the first trial that nobody has done or is doing; None if none is left.

    The place of a trial in the search determines what it tries: its seed, or its point of the grid. A trial that was broken
    off leaves its place, and whoever takes it does the same again. Optuna's own numbers count the attempts.
    """
    optuna = require()
    while True:
        sweep(study)
        there = by_place(study, plan)
        place = next((i for i in range(wanted) if i not in there), None)
        if place is None:
            return None
        seed = random.Random(f"{plan.base.seed} {place}").getrandbits(32)
        with calm():
            fresh = optuna.load_study(
                study_name=study.study_name,
                storage=study._storage,
                sampler=optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
                if plan.method == "tpe"
                else optuna.samplers.RandomSampler(seed),
            )
        attributes = {"fixed_params": _points(plan)[place]} if plan.method == "grid" else {}
        number = claim(study, place, lambda: by_place(study, plan), attributes)
        if number is not None:
            return optuna.trial.Trial(fresh, number)


def claim(
    study: Any, place: int, there: Callable[[], dict[int, Any]], attributes: dict[str, Any] | None = None
) -> int | None:
    """Begin the trial of a place: its number in the storage; None if another process was faster, as ``there`` tells."""
    optuna = require()
    from optuna.trial import TrialState

    # Place and owner are in the line that makes the trial: no trial is ever without them.
    attempt = os.urandom(8).hex()
    _at_work.add(attempt)
    made = optuna.trial.create_trial(
        state=TrialState.RUNNING,
        user_attrs={"place": place, "owner": _owner(), "attempt": attempt},
        system_attrs=attributes or {},
    )
    storage = study._storage
    try:
        number: int = storage.create_new_trial(storage.get_study_id_from_name(study.study_name), made)
    except BaseException:
        _at_work.discard(attempt)
        raise
    if there()[place]._trial_id == number:
        return number
    _at_work.discard(attempt)
    study.tell(storage.get_trial(number).number, state=TrialState.FAIL)
    return None


def _perform(trial: Any, plan: TunePlan) -> tuple[Any, float | None]:
    from optuna.trial import TrialState

    heard, before, ended = time.time(), 0, False

    def measured(run: Curves) -> bool:
        nonlocal heard, before, ended
        # How far it is, counted in measurements.
        at, score = plan.measures * run.step[-1] // total, _score(run, plan)
        if at == before:
            return False
        trial.report(score, at)
        if time.time() - heard > SILENCE / 10:
            heard = time.time()
            trial.set_user_attr("owner", _owner())
        ended = (
            plan.prune
            and any(before < rung <= at < plan.measures for rung in _rungs(plan))
            and _behind(trial, at, score, plan)
        )
        before = at
        return ended

    one = plan.settings(_suggested(trial, plan))
    total = one.epochs * math.ceil(len(from_settings.parts(one).train) / one.batch_size)
    run = from_settings.train(one, plan.measures, measured)
    trial.set_user_attr("loss", plain(run.held_loss[-1]))
    trial.set_user_attr("seconds", run.seconds)
    trial.set_user_attr("backend", run.backend)
    if run.diverged is not None:
        trial.set_user_attr("diverged", True)
        return TrialState.COMPLETE, 0.0 if plan.greatest else math.inf  # so that the sampler keeps away
    if ended:
        return TrialState.PRUNED, None
    return TrialState.COMPLETE, _score(run, plan)


def _rungs(plan: TunePlan) -> tuple[int, ...]:
    """The measurements after which a trial is judged."""
    return max(1, plan.measures // ETA**2), max(1, plan.measures // ETA)


def _behind(trial: Any, at: int, score: float, plan: TunePlan) -> bool:
    """Whether to end a trial: it is not among the best third at its rung, nor as good as the best at its end.

    Optuna's pruner cannot be used: it would count trials that were broken off beside their repetitions.
    """
    from optuna.trial import TrialState

    def worse(than: float) -> bool:
        return score < than if plan.greatest else score > than

    there = _standing(trial.study)
    rung = sorted((t.intermediate_values[at] for t in there if at in t.intermediate_values), reverse=plan.greatest)
    if not worse(rung[max(1, len(rung) // ETA) - 1]):
        return False
    done = [t.value for t in there if t.state == TrialState.COMPLETE]
    return not done or any(map(worse, done))


def _score(run: Curves, plan: TunePlan) -> float:
    return run.held_accuracy[-1] if plan.greatest else run.held_loss[-1]


def _suggested(trial: Any, plan: TunePlan) -> dict[str, Any]:
    found = {}
    for name, what in plan.space.items():
        if not isinstance(what, Range):
            found[name] = trial.suggest_categorical(name, [spelt(value) for value in what])
        elif what.whole:
            found[name] = trial.suggest_int(name, what.low, what.high, log=what.log)
        else:
            found[name] = trial.suggest_float(name, what.low, what.high, log=what.log)
    return found


def _standing(study: Any) -> list[Any]:
    """Trials that are done or being done."""
    from optuna.trial import TrialState

    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    found: list[Any] = study.get_trials(deepcopy=False, states=states)
    return found


def by_place(study: Any, plan: TunePlan) -> dict[int, Any]:
    """Trials that are done or being done, by their place in the search, which belongs to the first that took it."""
    found: dict[int, Any] = {}
    points = _points(plan) if plan.method == "grid" else []
    for trial in _standing(study):
        place = trial.user_attrs.get("place")
        if place is None:  # of an early version
            parameters = trial.system_attrs.get("fixed_params")
            place = points.index(parameters) if parameters in points else next(i for i in count() if i not in found)
        found.setdefault(place, trial)
    return found


def _points(plan: TunePlan) -> list[dict[str, Any]]:
    """The points of a grid in an order that the seed draws, so that the first ones are spread over it."""
    points = plan.grid()
    random.Random(plan.base.seed).shuffle(points)
    return points


def sweep(study: Any) -> None:
    """Give back the trials of processes that have died."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _alive(trial):
            give_back(study, trial.number)


def give_back(study: Any, number: int) -> None:
    """Free the place of an unfinished trial, unless another process has done so."""
    from optuna.trial import TrialState

    with suppress(RuntimeError, ValueError):
        study.tell(number, state=TrialState.FAIL)


# --- who does a trial -------------------------------------------------------------------------------------------------


_at_work: set[str] = set()
"""Attempts of this process that have not ended."""


def heard_of(study: Any, number: int) -> None:
    """Give a sign of life for an unfinished trial."""
    study._storage.set_trial_user_attr(number, "owner", _owner())


def ended(study: Any, number: int) -> None:
    """Forget an attempt of this process."""
    _at_work.discard(study._storage.get_trial(number).user_attrs["attempt"])


def _owner() -> list[Any]:
    host, pid, birth = this_process()
    return [host, pid, time.time(), birth]


def _alive(trial: Any) -> bool:
    owner = trial.user_attrs.get("owner")
    if owner is None:  # of an early version, which died before it wrote it
        return False
    host, pid, heard, birth = owner
    if Process(host, pid, birth) == this_process():  # a full disk may have kept it from giving it back
        return trial.user_attrs.get("attempt") in _at_work
    return Process(host, pid, birth).alive(heard)


# --- what came out ----------------------------------------------------------------------------------------------------


def trials(study: Any, plan: TunePlan) -> tuple[Trial, ...]:
    """The trials of a study that are done or being done; a trial's number is its place in the search."""
    found = []
    for place, t in sorted(by_place(study, plan).items()):
        measured = t.intermediate_values
        curve = [plain(measured.get(at)) for at in range(1, max(measured, default=0) + 1)]
        value = plain(t.value) if t.state.name == "COMPLETE" else curve[-1] if curve else None
        found.append(
            Trial(
                number=place,
                state=t.state.name.lower(),
                value=value,
                parameters=plan.values(t.params),
                curve=curve,
                loss=t.user_attrs.get("loss"),
                seconds=t.user_attrs.get("seconds"),
                diverged=t.user_attrs.get("diverged", False),
                backend=t.user_attrs.get("backend"),
            )
        )
    return tuple(found)
