"""The study behind a search: Optuna's samplers, pruner and journal on the disk, and trials that run settings."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from kobai.errors import DataError
from kobai.lab import folders, running
from kobai.lab.needs_optuna import calm, require
from kobai.lab.running import Run
from kobai.lab.trials import Plan, Trial, plain
from kobai.lab.values import Range, spelt

JOURNAL, NAME = "study.journal", "kobai"
ETA = 3
"""Of the trials that reach a rung, the best third goes on (arXiv:1810.05934 uses 3 and 4)."""

SILENCE = 600.0
"""Seconds without a word after which a trial of another machine counts as dead."""


# --- the file ---------------------------------------------------------------------------------------------------------


def check_folder(folder: Path, plan: Plan) -> None:
    """DataError unless the folder is free, or holds a study of this very search. Nothing in it is changed."""
    if folders.holds(folder, JOURNAL, "search"):
        held = held_plan(folder)
        if held is not None:
            folders.check_same(folder, "search", held, {n: v for n, v in _described(plan).items() if n != "where"})


def held_plan(folder: Path) -> dict[str, Any] | None:
    """What the study in a folder is a search of; None if there is none yet. DataError for a file that is no such study."""
    path = folder / JOURNAL
    if not path.exists():
        return None
    created = False
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                created |= entry["op_code"] == 0 and entry["study_name"] == NAME
                if "plan" in entry.get("user_attr", {}):
                    found: dict[str, Any] = entry["user_attr"]["plan"]
                    return found
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}: is no journal of a search ({type(error).__name__}: {error})") from error
    if path.stat().st_size and not created:
        raise DataError(f"{path}: is no journal of a search by Kobai; choose another folder")
    return None  # killed between its first lines


def _described(plan: Plan) -> dict[str, Any]:
    where = {name: getattr(plan.base, name) for name in ("data_dir", "download")}
    return folders.plain({**plan.as_dict(), "data": running.fingerprint(plan.base), "where": where})


def open_study(folder: Path | None, plan: Plan) -> Any:
    """The study in a folder, made if it is not there; without a folder, one in memory."""
    optuna = require()
    direction = "maximize" if plan.greatest else "minimize"
    pruner = optuna.pruners.NopPruner()
    if plan.prune:
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=_rungs(plan)[0], reduction_factor=ETA)
    with calm():
        study = optuna.create_study(
            storage=None if folder is None else _storage(folder / JOURNAL),
            study_name=NAME,
            direction=direction,
            sampler=optuna.samplers.RandomSampler(plan.base.seed),  # each trial brings its own, see work
            pruner=pruner,
            load_if_exists=True,
        )
    if folder is not None and "plan" not in study.user_attrs:
        study.set_user_attr("plan", _described(plan))
    return study


def wanted(study: Any) -> int | None:
    """How many trials there were to be in all, when the study was worked on last."""
    found: int | None = study.user_attrs.get("trials")
    return found


def want(study: Any, trials: int) -> None:
    """Remember how many trials there are to be, for whoever goes on."""
    if wanted(study) != trials:
        study.set_user_attr("trials", trials)


def _storage(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock

    # The lock is a link to this path, from its own folder: a relative one would lead nowhere, and Optuna would wait for a
    # lock that a dead process has left for ever.
    path = path.resolve()
    # A link is atomic on network drives too; Windows lets only some users make one.
    lock = JournalFileOpenLock(str(path)) if sys.platform == "win32" else JournalFileSymlinkLock(str(path))
    if path.exists():
        lock.acquire()
        try:
            with path.open("rb+") as file:
                content = file.read()
                if content and not content.endswith(b"\n"):  # killed within a line: what follows would be spoilt
                    file.truncate(content.rfind(b"\n") + 1)
        finally:
            lock.release()
    with calm():
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


# --- trials -----------------------------------------------------------------------------------------------------------


def work_in(folder: Path, plan: Plan, wanted: int) -> None:
    """Do trials of the study in a folder, beside other processes, until there are as many as are wanted."""
    # A worker that is to end gives back its trial first, and the lock of the journal, which others would wait for.
    ending = False

    def end(*_: Any) -> None:
        nonlocal ending
        ending = True
        sys.exit(1)

    before = signal.signal(signal.SIGTERM, end)
    try:
        work(open_study(folder, plan), plan, wanted)
    finally:
        if ending:  # now, for a pool that is being closed waits for workers, and these for their next task
            os._exit(1)
        signal.signal(signal.SIGTERM, before)


def work(study: Any, plan: Plan, wanted: int) -> None:
    """Do trials until there are as many as are wanted, whoever did them."""
    optuna = require()
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    while counted(study) < wanted:
        trial = study.ask()
        trial.set_user_attr("owner", _owner())
        if counted(study, before=trial.number) >= wanted:  # another process was faster with the last one
            study.tell(trial, state=TrialState.FAIL)
            return
        # The parameters of a trial depend on its number, not on who does it.
        seed = random.Random(f"{plan.base.seed} {trial.number}").getrandbits(32)
        with calm():
            study.sampler = (
                optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
                if plan.method == "tpe"
                else optuna.samplers.RandomSampler(seed)
            )
        try:
            state, value = _perform(trial, plan)
        except UpdateFinishedTrialError:  # another machine took this process for dead, and does the trial again
            continue
        except BaseException:
            _give_back(study, trial.number)
            raise
        study.tell(trial, value, state=state, skip_if_finished=True)


def _perform(trial: Any, plan: Plan) -> tuple[Any, float | None]:
    from optuna.trial import TrialState

    heard, before, ended = time.time(), 0, False

    def measured(run: Run) -> bool:
        nonlocal heard, before, ended
        # How far it is, in parts of its training, of which there are as many as measurements.
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
            and _behind(trial, score, plan)
        )
        before = at
        return ended

    one = plan.settings(_suggested(trial, plan))
    total = one.epochs * math.ceil(len(running.parts(one).train) / one.batch_size)
    run = running.train(one, plan.measures, measured)
    trial.set_user_attr("loss", plain(run.held_loss[-1]))
    trial.set_user_attr("seconds", run.seconds)
    trial.set_user_attr("backend", run.backend)
    if run.diverged is not None:
        trial.set_user_attr("diverged", True)
        return TrialState.COMPLETE, 0.0 if plan.greatest else math.inf  # the sampler shall learn to keep away
    if ended:
        return TrialState.PRUNED, None
    return TrialState.COMPLETE, _score(run, plan)


def _rungs(plan: Plan) -> tuple[int, ...]:
    """After how many measurements a trial is judged."""
    return max(1, plan.measures // ETA**2), max(1, plan.measures // ETA)


def _behind(trial: Any, score: float, plan: Plan) -> bool:
    """Whether a trial is to be ended: not among the best third at its rung, nor as good as the best is at its end."""
    if not trial.should_prune():
        return False
    from optuna.trial import TrialState

    done = [t.value for t in trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    return not done or (score < max(done) if plan.greatest else score > min(done))


def _score(run: Run, plan: Plan) -> float:
    return run.held_accuracy[-1] if plan.greatest else run.held_loss[-1]


def _suggested(trial: Any, plan: Plan) -> dict[str, Any]:
    found = {}
    for name, what in plan.space.items():
        if not isinstance(what, Range):
            found[name] = trial.suggest_categorical(name, [spelt(value) for value in what])
        elif what.whole:
            found[name] = trial.suggest_int(name, what.low, what.high, log=what.log)
        else:
            found[name] = trial.suggest_float(name, what.low, what.high, log=what.log)
    return found


def counted(study: Any, before: int | None = None) -> int:
    """Trials that are done or being done."""
    from optuna.trial import TrialState

    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return sum(before is None or t.number < before for t in study.get_trials(deepcopy=False, states=states))


def enqueue(study: Any, plan: Plan) -> None:
    """Line up the points of a grid that no trial has, in an order drawn by the seed: a part of a grid is spread over it."""
    there = [_parameters(t) for t in study.get_trials(deepcopy=False) if t.state.name != "FAIL"]
    points = plan.grid()
    random.Random(plan.base.seed).shuffle(points)
    for point in points:
        if point not in there:
            study.enqueue_trial(point)


def sweep(study: Any) -> None:
    """Give back the trials whose process has died."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _alive(trial):
            _give_back(study, trial.number)


def _give_back(study: Any, number: int) -> None:
    """A trial that was not ended is failed, and its parameters lined up again; nothing if another process has done so."""
    from optuna.trial import TrialState

    try:
        study.tell(number, state=TrialState.FAIL)
    except (RuntimeError, ValueError):
        return
    trial = next(t for t in study.get_trials(deepcopy=False) if t.number == number)
    if parameters := _parameters(trial):
        study.enqueue_trial(parameters)


def _parameters(trial: Any) -> dict[str, Any]:
    return dict(trial.system_attrs.get("fixed_params") or trial.params)


# --- who does a trial -------------------------------------------------------------------------------------------------


def _owner() -> list[Any]:
    return [socket.gethostname(), os.getpid(), time.time(), _birth(os.getpid())]


def _birth(pid: int) -> str:
    """What tells a process from a later one with the same number, where the system says (Linux); otherwise nothing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return f"{boot} {stat.rpartition(')')[2].split()[19]}"  # its start, in ticks since that boot: man 5 proc


def _alive(trial: Any) -> bool:
    owner = trial.user_attrs.get("owner")
    host, pid, heard, birth = owner or ("", 0, trial.datetime_start.timestamp(), "")
    if host == socket.gethostname() and sys.platform != "win32":
        if birth:
            return birth == _birth(pid)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
    return bool(time.time() - heard < SILENCE)


# --- what came out ----------------------------------------------------------------------------------------------------


def trials(study: Any, plan: Plan) -> tuple[Trial, ...]:
    """The trials of a study, those without a part in the search left out: failed ones, which have been lined up again."""
    found = []
    for t in study.get_trials(deepcopy=False):
        if t.state.name == "FAIL":
            continue
        measured = t.intermediate_values
        curve = [plain(measured.get(at)) for at in range(1, max(measured, default=0) + 1)]
        value = plain(t.value) if t.state.name == "COMPLETE" else curve[-1] if curve else None
        found.append(
            Trial(
                number=t.number,
                state=t.state.name.lower(),
                value=value,
                parameters=plan.values(_parameters(t) if t.state.name == "WAITING" else t.params),
                curve=curve,
                loss=t.user_attrs.get("loss"),
                seconds=t.user_attrs.get("seconds"),
                diverged=t.user_attrs.get("diverged", False),
                backend=t.user_attrs.get("backend"),
            )
        )
    return tuple(found)
