"""The study behind a search: Optuna's samplers, pruner and journal on the disk, and trials that run settings."""

from __future__ import annotations

import json
import math
import os
import random
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kobai.errors import DataError
from kobai.lab import running
from kobai.lab.running import Run
from kobai.lab.values import Range, spelt
from kobai.train.settings import Settings

if TYPE_CHECKING:
    from kobai.lab.tuning import Plan, Search, Trial

JOURNAL, NAME = "study.journal", "kobai"
INSTALL = "tune: Optuna is not installed. Install it: pip install 'kobai[tune]'"
ETA = 3
"""Of the trials that reach a rung, the best third goes on (arXiv:1810.05934 uses 3 and 4)."""

SILENCE = 600.0
"""Seconds without a word after which a trial of another machine counts as dead."""


def require() -> Any:
    """Optuna; ImportError with the install line where it is missing."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError(INSTALL) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # each trial would be two lines
    return optuna


@contextmanager
def _calm() -> Iterator[None]:
    """Without warnings that parts of Optuna may change one day."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


# --- the file ---------------------------------------------------------------------------------------------------------


def check_folder(folder: Path, plan: Plan) -> None:
    """DataError unless the folder is free, or holds a study of this very search. Nothing in it is changed."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file, and a search needs a folder")
    if not (folder / JOURNAL).exists():
        if folder.exists() and any(folder.iterdir()):
            raise DataError(f"{folder}: holds files that are not a search's; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        return
    held = held_plan(folder)
    if held is None:
        return
    asked = _described(plan)
    for name in asked:
        if name != "where" and held.get(name) != asked[name]:
            raise DataError(
                f"{folder}: holds a study of another search: {_difference(name, held.get(name), asked[name])}; nothing is "
                "overwritten, choose another folder"
            )


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
    content = {**plan.as_dict(), "data": running.fingerprint(plan.base), "where": where}
    described: dict[str, Any] = json.loads(json.dumps(content))
    return described


def _difference(name: str, there: Any, asked: Any) -> str:
    if name == "data":
        return "its data are not those of this one"
    if not isinstance(there, dict):
        return f"its {name} is {there}, not {asked}"
    if name == "space":
        spaces = [
            " ".join(f"{k}={v if isinstance(v, str) else '|'.join(v)}" for k, v in s.items()) for s in (there, asked)
        ]
        return f"its space is {spaces[0]}, not {spaces[1]}"
    key = next(k for k in [*asked, *there] if there.get(k, ...) != asked.get(k, ...))
    return f"its {key} is {there.get(key)}, not {asked.get(key)}"


def open_study(folder: Path | None, plan: Plan) -> Any:
    """The study in a folder, made if it is not there; without a folder, one in memory."""
    optuna = require()
    direction = "maximize" if plan.greatest else "minimize"
    pruner = optuna.pruners.NopPruner()
    if plan.prune:
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=max(1, plan.measures // ETA**2), reduction_factor=ETA
        )
    with _calm():
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


def _storage(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock

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
    with _calm():
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


# --- trials -----------------------------------------------------------------------------------------------------------


def settings(plan: Plan, parameters: Mapping[str, Any]) -> Settings:
    """The settings of a trial; choices may be given as themselves or as they are spelt."""
    return replace(plan.base, **_values(parameters, plan))


def _values(parameters: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Parameters as settings hold them; Optuna keeps choices as they are spelt."""
    found = {}
    for name, value in parameters.items():
        what = plan.space[name]
        found[name] = value if isinstance(what, Range) else next(one for one in what if value in (one, spelt(one)))
    return found


def _spelt(parameters: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Parameters as Optuna keeps them."""
    return {n: v if isinstance(plan.space[n], Range) else spelt(v) for n, v in parameters.items()}


def work_in(folder: Path, plan: Plan, wanted: int) -> None:
    """Do trials of the study in a folder, beside other processes, until there are as many as are wanted."""
    work(open_study(folder, plan), plan, wanted)


def work(study: Any, plan: Plan, wanted: int) -> None:
    """Do trials until there are as many as are wanted, whoever did them."""
    optuna = require()
    from optuna.trial import TrialState

    while counted(study) < wanted:
        trial = study.ask()
        trial.set_user_attr("owner", [socket.gethostname(), os.getpid(), time.time()])
        if counted(study, before=trial.number) >= wanted:  # another process was faster with the last one
            study.tell(trial, state=TrialState.FAIL)
            return
        # The parameters of a trial depend on its number, not on who does it.
        seed = random.Random(f"{plan.base.seed} {trial.number}").getrandbits(32)
        with _calm():
            study.sampler = (
                optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
                if plan.method == "tpe"
                else optuna.samplers.RandomSampler(seed)
            )
        try:
            state, value = _perform(trial, plan)
        except BaseException:
            study.tell(trial, state=TrialState.FAIL)
            _again(study, trial.number)
            raise
        study.tell(trial, value, state=state)


def _perform(trial: Any, plan: Plan) -> tuple[Any, float | None]:
    from optuna.trial import TrialState

    heard, ended = time.time(), False

    def measured(run: Run) -> bool:
        nonlocal heard, ended
        at, score = len(run.epoch) - 1, _score(run, plan)
        if at == 0:
            return False
        trial.report(score, at)
        if time.time() - heard > SILENCE / 10:
            heard = time.time()
            trial.set_user_attr("owner", [socket.gethostname(), os.getpid(), heard])
        ended = plan.prune and run.step[-1] < total and bool(trial.should_prune())
        return ended

    one = settings(plan, _suggested(trial, plan))
    total = one.epochs * math.ceil(len(running.parts(one).train) / one.batch_size)
    run = running.train(one, plan.measures, measured)
    trial.set_user_attr("loss", _json(run.held_loss[-1]))
    trial.set_user_attr("seconds", run.seconds)
    if run.diverged is not None:
        trial.set_user_attr("diverged", True)
        return TrialState.COMPLETE, 0.0 if plan.greatest else math.inf  # the sampler shall learn to keep away
    if ended:
        return TrialState.PRUNED, None
    return TrialState.COMPLETE, _score(run, plan)


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
    """Trials whose process has died are failed, and lined up again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not _alive(trial):
            study.tell(trial.number, state=TrialState.FAIL)
            _again(study, trial.number)


def _again(study: Any, number: int) -> None:
    trial = next(t for t in study.get_trials(deepcopy=False) if t.number == number)
    if parameters := _parameters(trial):
        study.enqueue_trial(parameters)


def _parameters(trial: Any) -> dict[str, Any]:
    return dict(trial.system_attrs.get("fixed_params") or trial.params)


def _alive(trial: Any) -> bool:
    owner = trial.user_attrs.get("owner")
    host, pid, heard = owner or ("", 0, trial.datetime_start.timestamp())
    if host == socket.gethostname() and sys.platform != "win32":
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
    from kobai.lab.tuning import Trial

    found = []
    for t in study.get_trials(deepcopy=False):
        if t.state.name == "FAIL":
            continue
        curve = [_json(value) for _, value in sorted(t.intermediate_values.items())]
        value = _json(t.value) if t.state.name == "COMPLETE" else curve[-1] if curve else None
        found.append(
            Trial(
                number=t.number,
                state=t.state.name.lower(),
                value=value,
                parameters=_values(_parameters(t) if t.state.name == "WAITING" else t.params, plan),
                curve=curve,
                loss=t.user_attrs.get("loss"),
                seconds=t.user_attrs.get("seconds"),
                diverged=t.user_attrs.get("diverged", False),
            )
        )
    return tuple(found)


def importances(search: Search) -> dict[str, float]:
    """See :meth:`kobai.lab.tuning.Search.importances`."""
    optuna = require()
    done = [
        t
        for t in search.of("complete", "pruned")
        if t.value is not None and len(t.parameters) == len(search.plan.space)
    ]
    varied = {n for n in search.plan.space if len({str(t.parameters.get(n)) for t in done}) > 1}
    if len(done) < 10 or not varied or len({t.value for t in done}) < 2:
        return {}
    kinds = {}
    for name, what in search.plan.space.items():
        if not isinstance(what, Range):
            kinds[name] = optuna.distributions.CategoricalDistribution([spelt(value) for value in what])
        elif what.whole:
            kinds[name] = optuna.distributions.IntDistribution(int(what.low), int(what.high), log=what.log)
        else:
            kinds[name] = optuna.distributions.FloatDistribution(what.low, what.high, log=what.log)
    with _calm():
        copy = optuna.create_study(direction="maximize" if search.plan.greatest else "minimize")
        copy.add_trials(
            [
                optuna.trial.create_trial(params=_spelt(t.parameters, search.plan), distributions=kinds, value=t.value)
                for t in done
            ]
        )
        found = optuna.importance.get_param_importances(
            copy, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), params=sorted(varied)
        )
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}


def plain(value: Any) -> Any:
    """As JSON holds it."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return _json(value) if isinstance(value, float) else value


def _json(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
