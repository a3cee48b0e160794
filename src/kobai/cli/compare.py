"""``kobai compare``."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kobai.cli import options
from kobai.cli.boards import CompareBoard
from kobai.cli.common import (
    Backend,
    DataDir,
    Debug,
    choose_backend,
    has,
    interrupted,
    new_folder,
    one_line,
    out,
    results,
    say,
    say_whole,
    show,
)
from kobai.cpu.threads import processors
from kobai.lab.sweep.compare import PLAN, claim, perform, read_plan
from kobai.lab.sweep.compare_plan import ComparePlan, plan
from kobai.lab.sweep.compare_result import TABLE, Place, cells, headings
from kobai.lab.sweep.values import pairs, spelt
from kobai.lab.training import from_settings
from kobai.train.settings import Settings
from kobai.xp import backend as backend_name

PANEL = "Comparison"

SHOWN = 20
"""Places of a ranking that a terminal shows; the file has all of them."""

EXAMPLES = """[b]Examples[/b]

kobai compare --vary init=normal:0.01,xavier,he --vary activation=sigmoid,relu --optimizer sgd --lr 0.1

kobai compare --vary batch_norm=on,off --vary init=normal:1,normal:0.1,normal:0.01 --repeat 3

kobai compare --vary 'hidden=50|100|100,100' --data mnist --data-dir data --epochs 5 — | where values hold commas

kobai compare --resume runs/compare-… — go on with a comparison that was stopped"""


def compare(
    ctx: typer.Context,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE,VALUE,…",
            help="A setting and its values, any option below that describes model or training; may be given several times.",
            rich_help_panel=PANEL,
            show_default=False,
        ),
    ] = None,
    repeat: Annotated[int, typer.Option(help="Seeds for each condition, the same for all.", rich_help_panel=PANEL)] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs at once, each with one thread; default: one for each processor. One after another on a GPU.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the files; default: runs/compare-<time>.", rich_help_panel=PANEL),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with the comparison in this folder; without a value: in the newest in runs/.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    data: options.Data = Settings.data,
    data_dir: DataDir = None,
    download: options.Download = False,
    label: options.Label = None,
    validation: options.Validation = Settings.validation,
    model: options.Model = Settings.model,
    hidden: options.Hidden = options.HIDDEN,
    activation: options.Activation = Settings.activation,
    init: options.Init = Settings.init,
    batch_norm: options.BatchNorm = Settings.batch_norm,
    dropout: options.Dropout = Settings.dropout,
    optimizer: options.OptimizerName = Settings.optimizer,
    lr: options.LearningRate = None,
    momentum: options.Momentum = Settings.momentum,
    weight_decay: options.WeightDecay = Settings.weight_decay,
    schedule: options.Schedule = Settings.schedule,
    epochs: options.Epochs = Settings.epochs,
    batch_size: options.BatchSize = Settings.batch_size,
    clip_grad_norm: options.ClipGradNorm = None,
    patience: options.Patience = None,
    seed: options.Seed = Settings.seed,
    backend: Backend = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the best condition and nothing else.")] = False,
    debug: Debug = False,
) -> None:
    """Train every combination of some settings from the same seeds, and rank them by validation accuracy.

    Writes learning curves (PNG and SVG), a ranked table, a report (one HTML file) and all numbers (JSON) to a folder, and each
    run as it ends. Options that are not varied hold for all runs; a data set's own recipe is not applied, for it would hide
    what is compared.
    """
    with one_line(debug, tell=(lambda line: None) if quiet else None):
        choose_backend(backend)
        values, given = options.settings_in(ctx)
        if resume is not None:
            options.nothing_beside_resume(ctx, ["repeat"])
            folder = options.resumed(resume, PLAN, "comparison")
            found = read_plan(folder)
            where = {name: given[name] for name in ("data_dir", "download") if name in given}
            times = repeat if options.is_given(ctx, "repeat") else found.repeat
            found = plan(replace(found.base, **where), found.vary, times, found.measures)
        else:
            found = plan(Settings(**values), pairs("vary", vary or []), repeat, given=given)
            folder = folder or new_folder("compare")
        from_settings.check_jobs(jobs)
        claim(folder, found)
        board = CompareBoard(found, quiet)
        if not quiet:
            _introduce(found, 1 if backend_name() != "numpy" else min(jobs or processors(), board.total), folder)
        try:
            with board:
                result = perform(found, jobs=jobs, out=folder, watch=board.take)
        except KeyboardInterrupt:
            ended = len(board.ended)
            done = f"after {ended} of {board.total} runs{f', what they found is in {folder}' * (ended > 0)}"
            interrupted(done, folder / PLAN, f"kobai compare --resume {shlex.quote(str(folder))}")
        places = result.ranking()
        best = places[0]
        if quiet:
            say(f"{best.name}: {'diverged' if best.diverged else f'validation accuracy {best.accuracy:.4f}'}")
            return
        _show(places, folder)
        if not has("matplotlib"):
            say("no figure, because matplotlib is missing: pip install 'kobai[plot]'")
        say(f"files in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
        if best.diverged:
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
    say("ranked by accuracy on the validation split")
    show(table)
    if len(shown) < len(places):
        say(f"… and {len(places) - len(shown)} more, in {folder / TABLE}")
