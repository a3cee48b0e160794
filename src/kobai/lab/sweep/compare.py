"""``compare``: all combinations of some settings, each trained from the same seeds, in a folder to resume from."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from kobai.compat.versions import VERSION
from kobai.core.checksum import read_json, to_json, write_json
from kobai.core.files import Lock, sweep
from kobai.core.untrusted import real
from kobai.cpu.threads import processors
from kobai.errors import DataError
from kobai.lab.sweep import compare_shared, folders
from kobai.lab.sweep.compare_plan import ComparePlan, plan
from kobai.lab.sweep.compare_result import Comparison, Condition
from kobai.lab.sweep.values import with_own_models
from kobai.lab.sweep.watching import watching
from kobai.lab.training import from_settings, workers
from kobai.lab.training.curves import Curves
from kobai.train.settings import RunSettings, SettingsError

log = logging.getLogger("kobai")

__all__ = ["compare", "perform", "read_plan"]

PLAN, RUNS = "comparison.json", "runs"
"""A comparison's folder holds its plan and its finished runs, beside the results."""

Watch = Callable[[tuple[int, int], dict[str, Any], bool], None]
"""Called with (number of the condition, of the seed), how far the run is, and whether it has ended."""


def compare(
    vary: Mapping[str, Any],
    *,
    repeat: int = 1,
    jobs: int | None = None,
    out: str | Path | None = None,
    storage: str | None = None,
    measures: int = 40,
    watch: Watch | None = None,
    **settings: Any,
) -> Comparison:
    """Train every combination of the values in ``vary``, all from the same seeds, and rank them by validation accuracy, or R².

    Args:
        vary: for each setting its values, as a sequence or as text: ``{"activation": ["sigmoid", "relu"], "init":
            "normal:0.01,xavier,he", "batch_norm": [True, False]}``. Any setting of ``kobai train`` that describes the model
            or its training.
        repeat: run each condition with so many seeds, ``seed``, ``seed + 1``, …; all conditions have the same.
        jobs: processes, with one thread each; by default as many as there are processors. On a GPU runs go one after another.
        out: a folder for the files: curves, a ranked table, and ``report.html``, see :func:`kobai.lab.report`. Runs that an
            interrupted comparison has left there are not repeated.
        storage: where machines that compare together leave their runs: the URL of a database, such as
            ``postgresql://user@host/name``, or the path of a journal in a folder that all see (``kobai[tune]``). The comparison
            has the name of the folder ``out`` there; each machine writes all results.
        measures: measurements along each run.
        watch: called as runs go on, from another thread, and at the end of each.
        settings: what all conditions share, as options of ``kobai train``. A data set's own recipe is not applied: it would
            hide what is compared.

    The test split is not looked at: a condition chosen by it would look better than it is.

    Raises:
        SettingsError: a setting that does not exist or has a wrong value. DataError: ``out`` holds something else.

    >>> found = compare({"init": ["normal:0.0001", "he"]}, hidden=(20, 20), optimizer="sgd", epochs=3, jobs=1)
    >>> [place.name for place in found.ranking()]
    ['he', 'std 0.0001']
    """
    base = from_settings.settings_of("compare", settings)
    made = plan(base, with_own_models(vary), repeat, measures, given=settings)
    return perform(made, jobs=jobs, out=out, storage=storage, watch=watch)


def perform(
    plan: ComparePlan,
    *,
    jobs: int | None = None,
    out: str | Path | None = None,
    storage: str | None = None,
    watch: Watch | None = None,
) -> Comparison:
    """Do the runs of a plan, or those that are left in the folder ``out``; results are also written on an interrupt."""
    from_settings.check_jobs(jobs)
    folder = None if out is None else Path(out)
    if storage is not None and folder is None:
        raise SettingsError("storage", "the comparison has the name of the folder there: give out (--out) too")
    if folder is not None:
        claim(folder, plan)
    from_settings.parts(plan.base)  # download, or complain, once and here
    names = [name for name, _ in plan.conditions()]
    runs: dict[tuple[int, int], Curves] = {}
    told: dict[tuple[int, int], Curves] = {}

    def ended(key: tuple[int, int], run: Curves) -> None:
        runs[key] = run
        if watch is not None:
            watch(key, _news(run), True)

    def seen(under_way: dict[tuple[int, int], Curves]) -> None:
        for key, run in under_way.items():
            if watch is not None and key not in runs and run != told.get(key):
                told[key] = run
                watch(key, _news(run), False)

    with ExitStack() as stack:
        here = None
        if watch is not None:
            # On a full disk nobody sees how far runs are; a worker that is ended may write once more.
            with suppress(OSError):
                here = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            stack.enter_context(watching(lambda: _under_way(here), seen))
        tasks: dict[tuple[int, int], tuple[Any, ...]] = {}
        for key, one in _runs(plan):
            path = None if folder is None else folder / RUNS / _file(key, names[key[0]], one)
            run = None if path is None else _finished(path, plan, one)
            if run is None:
                tasks[key] = one, plan.measures, path, here and here / f"{key[0]}-{key[1]}.json"
            else:
                ended(key, run)
        keys = list(tasks)
        try:
            with nullcontext() if folder is None else Lock(folder):
                if folder is not None and storage is not None:
                    _with_others(plan, folder, storage, jobs, runs, ended)
                    tasks.clear()
                workers.run_all(
                    _work, list(tasks.values()), jobs=jobs, done=lambda i, run: ended(keys[i], Curves.from_dict(run))
                )
        finally:
            comparison = Comparison(plan, tuple(_conditions(plan, runs)))
            if folder is not None and runs:
                comparison.save(folder)
    return comparison


def _with_others(
    plan: ComparePlan,
    folder: Path,
    storage: str,
    jobs: int | None,
    here: Mapping[tuple[int, int], Curves],
    done: Callable[[tuple[int, int], Curves], None],
) -> None:
    """Do the runs of a plan together with other machines; all of them are in the folder then, as if done here.

    ``done`` is called with those that are not among the runs ``here``.
    """
    keys, each = zip(*_runs(plan), strict=True)
    names = [name for name, _ in plan.conditions()]
    name, content = real(folder).name, {**plan.as_dict(), "data": from_settings.fingerprint(plan.base)}
    study = compare_shared.open_runs(storage, name, content)
    written: set[int] = set()

    def write(found: dict[int, dict[str, Any]]) -> None:
        for place in sorted(found.keys() - written):
            if place < len(keys):  # others may repeat it more often
                file = folder / RUNS / _file(keys[place], names[keys[place][0]], each[place])
                write_json(file, _entry(each[place], plan.measures, found[place]))
                if keys[place] not in here:
                    done(keys[place], Curves.from_dict(found[place]))
            written.add(place)

    together = min(jobs or processors(), len(each))
    with watching(lambda: compare_shared.done(study), write):
        tasks = [(storage, name, content, each, plan.measures)] * together
        workers.run_all(compare_shared.work, tasks, jobs=together)


def _conditions(plan: ComparePlan, runs: Mapping[tuple[int, int], Curves]) -> Iterator[Condition]:
    """The conditions that have a finished run, with their runs."""
    for c, (name, one) in enumerate(plan.conditions()):
        if mine := tuple(runs[c, r] for r in range(plan.repeat) if (c, r) in runs):
            yield Condition(name, one, mine)


def read_plan(folder: str | Path) -> ComparePlan:
    """The plan of the comparison in a folder; DataError if there is none."""
    path = Path(folder) / PLAN
    if not path.exists():
        raise DataError(f"{folder}: holds no comparison to go on with ({PLAN} is missing)")
    content = read_json(path)
    try:
        return ComparePlan.from_dict(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: is not the plan of a comparison ({type(error).__name__}: {error})") from error


# --- the runs ---------------------------------------------------------------------------------------------------------


def _runs(plan: ComparePlan) -> Iterator[tuple[tuple[int, int], RunSettings]]:
    """((number of the condition, of the seed), settings) of each run, seed by seed: an early stop leaves whole rounds."""
    for r in range(plan.repeat):
        for c, (_, one) in enumerate(plan.conditions()):
            yield (c, r), replace(one, seed=plan.base.seed + r)


def _work(settings: RunSettings, measures: int, path: Path | None, progress: Path | None) -> dict[str, Any]:
    """One run, in any process; its file is written as soon as it ends."""
    run = from_settings.train(settings, measures, None if progress is None else lambda run: _tell(progress, run))
    content = run.as_dict()
    if path is not None:
        write_json(path, _entry(settings, measures, content))
    if progress is not None:
        with suppress(OSError):
            progress.unlink()
    return content


def _entry(settings: RunSettings, measures: int, run: dict[str, Any]) -> dict[str, Any]:
    """What the file of a finished run holds."""
    return {"settings": from_settings.lasting(settings), "measures": measures, "run": run}


def _tell(progress: Path, run: Curves) -> None:
    """Write how far a run is, for :func:`_under_way`; without waiting for the disk, and without failing."""
    with suppress(OSError):
        new = progress.with_suffix(".new")
        new.write_bytes(to_json(run.as_dict()))
        os.replace(new, progress)


def _under_way(folder: Path | None) -> dict[tuple[int, int], Curves]:
    """How far the runs are, by the numbers of condition and seed."""
    found = {}
    for path in folder.glob("*.json") if folder is not None else ():
        condition, seed = map(int, path.stem.split("-"))
        with suppress(OSError):  # the run has just ended
            found[condition, seed] = Curves.from_dict(read_json(path))
    return found


def _finished(path: Path, plan: ComparePlan, settings: RunSettings) -> Curves | None:
    """The run in a file; None if there is none, or, with a warning, if it is damaged."""
    if not path.exists():
        return None
    try:
        content = read_json(path)
    except DataError as error:
        log.warning("%s; the run is done again", error)
        return None
    if not isinstance(content, dict) or (content.get("settings"), content.get("measures")) != (
        from_settings.lasting(settings),
        plan.measures,
    ):
        raise DataError(f"{path}: is not the run that its name says; remove it to have it done again")
    return Curves.from_dict(content["run"])


def _file(key: tuple[int, int], name: str, settings: RunSettings) -> str:
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")[:60]
    return f"{key[0]:03d}-{slug}-seed{settings.seed}.json"


def _news(run: Curves) -> dict[str, Any]:
    return {"epoch": run.epoch[-1], "loss": run.train_loss[-1], "held_accuracy": run.held_accuracy, "run": run}


def claim(folder: Path, plan: ComparePlan) -> None:
    """Make the folder this comparison's; DataError if it holds anything else."""
    asked = {**plan.as_dict(), "data": from_settings.fingerprint(plan.base)}
    path = folder / PLAN
    repeat = 0
    if folders.holds(folder, PLAN, "comparison"):
        held = read_json(path)
        folders.check_same(folder, "comparison", held, asked)
        repeat = held["repeat"]
    if plan.repeat > repeat:
        where = {name: getattr(plan.base, name) for name in ("data_dir", "download")}
        content = {"kobai": VERSION, **asked, "repeat": plan.repeat, "where": where}
        write_json(path, content, indent=1)
    (folder / RUNS).mkdir(exist_ok=True)
    sweep(folder / RUNS)
