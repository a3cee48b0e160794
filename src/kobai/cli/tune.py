"""``kobai tune``: a search for the best settings."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kobai.cli import options
from kobai.cli.boards import TuneBoard
from kobai.cli.common import has, new_folder, out, results, say, say_whole, show, silent
from kobai.errors import DataError, install
from kobai.lab.reports.axes import whole_percent
from kobai.lab.sweep import tune_study
from kobai.lab.sweep.database import hidden
from kobai.lab.sweep.needs_optuna import require
from kobai.lab.sweep.tune import TRIALS, perform, read_plan, wanted_in_all
from kobai.lab.sweep.tune_plan import METHODS, TunePlan, plan, scored_by
from kobai.lab.sweep.tune_result import CHOSEN, Search
from kobai.lab.sweep.values import Range, pairs, spelt
from kobai.lab.training import from_settings
from kobai.train.progress import Progress
from kobai.train.scores import NAMES
from kobai.train.settings import RunSettings, SettingsError
from kobai.xp import backend as backend_name

_option = partial(typer.Option, rich_help_panel="Search")

STORAGE = (
    "Keep the study in a database, such as postgresql://user@host/name, or in a journal, under the name of the folder --out; "
    "for machines that do not share that folder."
)


@options.command("save_every", quiet="Print the best settings and nothing else.")
def tune(
    *,
    space: Annotated[
        list[str] | None,
        _option(
            metavar="NAME=LOW..HIGH[:log] | NAME=A,B,…",
            help="A setting to search, any option below that describes model or training; may be given several times. "
            ":7 after a range makes 7 points of it in a grid.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[str, _option(help="tpe (Bayesian), random or grid.")] = "tpe",
    trials: Annotated[
        int | None,
        _option(
            help=f"Trials in all, with those that are in the folder; default: {TRIALS}, or the whole grid; with --resume, as "
            "many as were asked for before."
        ),
    ] = None,
    prune: Annotated[
        bool | None,
        _option(
            "--prune/--no-prune",
            help="End trials that fall behind (asynchronous successive halving); default: but for a grid.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        _option(help="Score on the validation split: accuracy or loss; default: accuracy, of a regression loss."),
    ] = None,
    jobs: Annotated[
        int | None, _option(help="Trials at once, each with one thread; default: one for each processor. One on a GPU.")
    ] = None,
    test: Annotated[
        bool, _option("--test", help="In the end, train with the best settings and look at the test split, once.")
    ] = False,
    folder: Annotated[Path | None, _option("--out", help="Folder of the study; default: runs/tune-<time>.")] = None,
    storage: Annotated[str | None, _option(metavar="URL|PATH", help=STORAGE, show_default=False)] = None,
    resume: Annotated[
        str | None, _option(help="Go on with the search in this folder; without a value: in the newest in runs/.")
    ] = None,
    asked: options.Asked,
    quiet: bool,
) -> None:
    """Search settings for the best score on the validation split: Bayesian, random or grid, by Optuna.

    The study is kept on the disk: an interrupted search goes on, and several processes or machines may work on one. Beside it
    are figures, a report (one HTML file) and all numbers (JSON). No trial sees the test split. Options that are not searched
    hold for all trials; a data set's own recipe is not applied.

    Examples:
        kobai tune --space lr=1e-4..1e-1:log --space weight_decay=1e-8..1e-4:log
        kobai tune --space 'hidden=50|100|100,100' --space dropout=0..0.5 --space batch_norm=on,off --trials 60 --test
        kobai tune --method grid --space lr=1e-3..1e-1:log:5 --space batch_size=32,64,128 — 5 × 3 trials
        kobai tune --resume runs/tune-… --trials 100 — go on; on a second machine too, beside the first
        kobai tune --space lr=1e-4..1e-1:log --storage postgresql://lab@db/lab --out runs/lr — on every machine that shall help
        kobai tune --resume runs/tune-… --test — train with the best settings and look at the test split, once
    """
    require()
    from_settings.check_jobs(jobs)
    if resume is None:
        settings = RunSettings(**asked.values)
        found = scored_by(settings.check(), by)
        made = plan(settings, pairs("space", space or []), method, prune, found, given=asked.given)
        wanted, folder = wanted_in_all(made, trials), _new(folder, storage)
    else:
        made, wanted, folder = _begun(asked, resume, trials, storage)
    tune_study.check_folder(folder, made, storage)
    if not quiet:
        _introduce(made, wanted, folder)
    _search(made, wanted, jobs, folder, storage, test, quiet)


def _search(
    made: TunePlan, wanted: int, jobs: int | None, folder: Path, storage: str | None, test: bool, quiet: bool
) -> None:
    """Search, say what was found, and look at the test split if that is asked."""
    board = TuneBoard(made, wanted, quiet)
    try:
        with board:
            found = perform(made, trials=wanted, jobs=jobs, out=folder, storage=storage, watch=board.take)
        if not quiet:
            _tell(found, folder)
        if found.best is None:
            why = "every trial left the finite numbers; search smaller learning rates"
            if not found.complete:
                why = "no trial has been completed; go on with more --trials, or search anew with --no-prune"
            raise DataError(f"{folder}: {why}")
        if test:
            result = found.test(folder, silent if quiet else say, (Progress(out, quiet=quiet),))
    except KeyboardInterrupt:
        again = f"kobai tune{' --test' * test}" + (f" --storage {shlex.quote(hidden(storage))}" if storage else "")
        board.interrupted(folder, tune_study.ELSEWHERE if storage else tune_study.JOURNAL, again, made.models)
    if test:
        if not quiet:
            say(f"the model is in {folder / CHOSEN}; test loss {result['loss']:.4f}")
        main = "accuracy" if "accuracy" in result else "r2"
        say(f"test {NAMES[main]} {result[main]:.4f}")
    elif quiet:
        say_whole(found.command())
    else:
        say("the test split has not been looked at; --test does, once")


def _new(folder: Path | None, storage: str | None) -> Path:
    """The folder of a search that begins; a study elsewhere needs its name."""
    if storage is not None and folder is None:
        raise SettingsError(
            "storage", "the study there has the name of the folder: give --out too, the same everywhere"
        )
    return folder or new_folder("tune")


def _begun(asked: options.Asked, resume: str, trials: int | None, storage: str | None) -> tuple[TunePlan, int, Path]:
    """The search to go on with, its trials in all, and its folder."""
    asked.nothing_beside_resume("trials", "test", "storage")
    folder = options.resumed(resume, "search", tune_study.ELSEWHERE if storage else tune_study.JOURNAL)
    made = read_plan(folder, storage)
    made = replace(made, base=replace(made.base, **asked.where))
    held = tune_study.open_study(folder, made, storage)
    return made, max(wanted_in_all(made, trials, held), len(tune_study.by_place(held, made))), folder


def _introduce(plan: TunePlan, wanted: int, folder: Path) -> None:
    spaces = [f"{n} {w if isinstance(w, Range) else ' | '.join(map(spelt, w))}" for n, w in plan.space.items()]
    how = METHODS[plan.method] + (f" of {len(plan.grid())}" if plan.method == "grid" else "")
    say(f"searched  {'; '.join(spaces)}")
    say(f"all       {from_settings.shared(plan.base, plan.space)}")
    pruned = ", pruned by successive halving" if plan.prune else ""
    say(f"search    {how}, {wanted} {'trial' if wanted == 1 else 'trials'} in all{pruned}, by {plan.score}")
    say(f"backend   {backend_name()}")
    say(f"folder    {folder}")


def _tell(found: Search, folder: Path) -> None:
    """The best trials, what mattered, and where it is written."""
    table = results()
    table.add_column("trial", justify="right")
    table.add_column(found.plan.by, justify="right")
    for name in found.plan.space:
        table.add_column(name.replace("_", " "), justify="right", overflow="fold")
    for i, t in enumerate([t for t in found.ranking() if not t.diverged][:5]):
        cells = [f"{v:.3g}" if isinstance(v, float) else spelt(v) for v in t.parameters.values()]
        table.add_row(str(t.number), f"{t.value:.4f}", *cells, style="bold" if i == 0 else "")
    if table.rows:
        say("")
        say("the best trials")
        show(table)
    if others := len(found.of("running")):
        say(
            f"{others} {'trial is' if others == 1 else 'trials are'} still at work in other processes, and not counted here"
        )
    if shares := found.importances():
        say(
            "importance: "
            + ", ".join(f"{name.replace('_', ' ')} {whole_percent(part)}" for name, part in shares.items())
        )
    if not has("matplotlib"):
        say(f"no figures, because matplotlib is missing: {install('plot')}")
    say(f"files in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if found.best is not None:
        say_whole(f"train with the best: {found.command()}")
