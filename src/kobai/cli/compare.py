"""``kobai compare``: every combination of some settings, ranked."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kobai.cli import options
from kobai.cli.boards import CompareBoard
from kobai.cli.common import has, new_folder, out, results, say, say_whole, show
from kobai.cpu.threads import processors
from kobai.errors import install
from kobai.lab.sweep.compare import PLAN, claim, perform, read_plan
from kobai.lab.sweep.compare_plan import ComparePlan, plan
from kobai.lab.sweep.compare_result import TABLE, Comparison, Place, cells, headings
from kobai.lab.sweep.database import hidden
from kobai.lab.sweep.values import pairs, spelt
from kobai.lab.training import from_settings
from kobai.train.settings import RunSettings, SettingsError
from kobai.xp import backend as backend_name

_option = partial(typer.Option, rich_help_panel="Comparison")

SHOWN = 20
"""Places of a ranking that a terminal shows; the file has all of them."""


@options.command("save_every", quiet="Print the best condition and nothing else.")
def compare(
    *,
    vary: Annotated[
        list[str] | None,
        _option(
            metavar="NAME=VALUE,VALUE,…",
            help="A setting and its values, any option below that describes model or training; may be given several times.",
            show_default=False,
        ),
    ] = None,
    repeat: Annotated[int, _option(help="Seeds for each condition, the same for all.")] = 1,
    jobs: Annotated[
        int | None,
        _option(
            help="Runs at once, each with one thread; default: one for each processor. One after another on a GPU."
        ),
    ] = None,
    folder: Annotated[Path | None, _option("--out", help="Folder of the files; default: runs/compare-<time>.")] = None,
    storage: Annotated[
        str | None,
        _option(
            metavar="URL|PATH",
            help="Do the runs together with other machines that are given the same: a database, such as "
            "postgresql://user@host/name, or a journal in a folder that all see. There it has the name of the folder --out.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        str | None, _option(help="Go on with the comparison in this folder; without a value: in the newest in runs/.")
    ] = None,
    asked: options.Asked,
    quiet: bool,
) -> None:
    """Train every combination of some settings from the same seeds, and rank them by validation accuracy, or R².

    Writes learning curves (PNG and SVG), a ranked table, a report (one HTML file) and all numbers (JSON) to a folder, and each
    run as it ends. Options that are not varied hold for all runs; a data set's own recipe is not applied, for it would hide
    what is compared.

    Examples:
        kobai compare --vary init=normal:0.01,xavier,he --vary activation=sigmoid,relu --optimizer sgd --lr 0.1
        kobai compare --vary batch_norm=on,off --vary init=normal:1,normal:0.1,normal:0.01 --repeat 3
        kobai compare --vary 'hidden=50|100|100,100' --data mnist --data-dir data --epochs 5 — | where values hold commas
        kobai compare --vary batch_norm=on,off --repeat 20 --storage postgresql://lab@db/lab --out runs/bn — on every machine
        kobai compare --resume runs/compare-… — go on with a comparison that was stopped
    """
    from_settings.check_jobs(jobs)
    if storage is not None and folder is None and resume is None:
        raise SettingsError(
            "storage", "the comparison has the name of the folder there: give --out too, the same everywhere"
        )
    found, folder = _planned(asked, vary or [], repeat, resume, folder)
    claim(folder, found)
    board = CompareBoard(found, quiet)
    if not quiet:
        _introduce(found, 1 if backend_name() != "numpy" else min(jobs or processors(), board.total), folder)
    try:
        with board:
            result = perform(found, jobs=jobs, out=folder, storage=storage, watch=board.take)
    except KeyboardInterrupt:
        again = f" --storage {shlex.quote(hidden(storage))}" if storage else ""
        models = [one.model for _, one in found.conditions()]
        board.interrupted(folder, PLAN, f"kobai compare{again}", models)
    if quiet:
        best = result.ranking()[0]
        say(f"{best.name}: {'diverged' if best.diverged else f'validation {best.measure} {best.accuracy:.4f}'}")
    else:
        _tell(result, folder)


def _planned(
    asked: options.Asked, vary: list[str], repeat: int, resume: str | None, folder: Path | None
) -> tuple[ComparePlan, Path]:
    """The comparison to begin, or to go on with, and its folder."""
    if resume is None:
        made = plan(RunSettings(**asked.values), pairs("vary", vary), repeat, given=asked.given)
        from_settings.parts(made.base)  # before there is a folder: the data may be missing
        return made, folder or new_folder("compare")
    asked.nothing_beside_resume("repeat", "storage")
    folder = options.resumed(resume, "comparison", PLAN)
    begun = read_plan(folder)
    times = repeat if asked.has("repeat") else begun.repeat
    return plan(replace(begun.base, **asked.where), begun.vary, times, begun.measures), folder


def _tell(result: Comparison, folder: Path) -> None:
    """The ranking, and where it is written."""
    places = result.ranking()
    _show(places, folder)
    if not has("matplotlib"):
        say(f"no figure, because matplotlib is missing: {install('plot')}")
    say(f"files in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if places[0].diverged:
        say("every condition left the finite numbers: none of them trains; try a smaller --lr")
    else:
        say_whole(f"train the best one: {result.command()}")


def _introduce(plan: ComparePlan, together: int, folder: Path) -> None:
    count = len(plan.conditions())
    say("varied    " + "; ".join(f"{n} {' | '.join(map(spelt, vs))}" for n, vs in plan.vary.items()))
    say(f"all runs  {from_settings.shared(plan.base, plan.vary)}")
    say(f"runs      {count} conditions × {plan.repeat} = {count * plan.repeat}, {together} at once")
    say(f"backend   {backend_name()}")
    say(f"folder    {folder}")


def _show(places: list[Place], folder: Path) -> None:
    """The ranked table, on the screen."""
    columns = headings(places, short=True)
    table = results()
    table.add_column("", justify="right")
    table.add_column("condition", overflow="fold")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    shown = places[:SHOWN] if out.is_terminal else places
    for place in shown:
        table.add_row(str(place.rank), place.name, *cells(place, columns), style="bold" if place.rank == 1 else "")
    say("")
    say(f"ranked by {places[0].measure} on the validation split")
    show(table)
    if len(shown) < len(places):
        say(f"… and {len(places) - len(shown)} more, in {folder / TABLE}")
