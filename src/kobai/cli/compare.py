"""``kobai compare``."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Container
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from kobai.cli import options
from kobai.cli.common import Backend, DataDir, Debug, choose_backend, has, one_line, out, say, warn
from kobai.cli.train import BARE
from kobai.errors import DataError
from kobai.kernels.threads import processors
from kobai.lab import running
from kobai.lab.comparison import PLAN, Place, cells, headings, perform, plan, read_plan
from kobai.lab.values import pairs, spelt
from kobai.train.progress import duration
from kobai.train.settings import Settings, SettingsError
from kobai.xp import backend as backend_name

PANEL = "Comparison"

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
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the files if they are not there.", rich_help_panel="Data")
    ] = False,
    label: options.Label = None,
    validation: Annotated[
        float, typer.Option(help="Share of the training data held out for validation.", rich_help_panel="Data")
    ] = Settings.validation,
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
    schedule: Annotated[
        str, typer.Option(help="none, cosine, step, exponential, onecycle or plateau.", rich_help_panel="Training")
    ] = Settings.schedule,
    epochs: Annotated[
        int, typer.Option(help="Passes over the training data.", rich_help_panel="Training")
    ] = Settings.epochs,
    batch_size: options.BatchSize = Settings.batch_size,
    clip_grad_norm: options.ClipGradNorm = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many epochs without a better validation loss.", rich_help_panel="Training"),
    ] = None,
    seed: options.Seed = Settings.seed,
    backend: Backend = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the best condition and nothing else.")] = False,
    debug: Debug = False,
) -> None:
    """Train every combination of some settings from the same seeds, and rank them by validation accuracy.

    Writes learning curves (PNG and SVG), a ranked table and all numbers (JSON) to a folder, and each run as it ends. Options
    that are not varied hold for all runs; a data set's own recipe is not applied, for it would hide what is compared.
    """
    with one_line(debug, tell=(lambda line: None) if quiet else None):
        choose_backend(backend)
        given = {f.name: ctx.params[f.name] for f in fields(Settings) if options.is_given(ctx, f.name)}
        if resume is not None:
            allowed = ("data_dir", "download")
            wrong = [name for name in given if name not in allowed] + ["vary"] * bool(vary) + ["out"] * bool(folder)
            if wrong:
                raise SettingsError(wrong[0], "has no place beside --resume, which takes everything from the folder")
            folder = _newest() if resume == BARE else Path(resume).expanduser()
            found = read_plan(folder)
            if options.is_given(ctx, "repeat"):
                found = plan(found.base, found.vary, repeat, found.measures)
        else:
            values = {f.name: ctx.params[f.name] for f in fields(Settings) if f.name in ctx.params}
            base = Settings(**{**values, "hidden": options.sizes("hidden", hidden)}).check()
            found = plan(base, pairs("vary", vary or []), repeat, given=given)
            folder = folder or Path("runs") / time.strftime("compare-%Y%m%d-%H%M%S")
        running.check_jobs(jobs)
        conditions = found.conditions()
        runs = len(conditions) * found.repeat
        together = 1 if backend_name() != "numpy" else min(jobs or processors(), runs)
        if not quiet:
            say("varied    " + "; ".join(f"{n} {' | '.join(map(spelt, vs))}" for n, vs in found.vary.items()))
            say(f"all runs  {shared(found.base, found.vary)}")
            say(f"runs      {len(conditions)} conditions × {found.repeat} = {runs}, {together} at once")
            say(f"backend   {backend_name()}")
            say(f"folder    {folder}")
        board = Board([name for name, _ in conditions], found.repeat, quiet)
        try:
            with board:
                result = perform(found, jobs=jobs, out=folder, watch=board.take)
        except KeyboardInterrupt:
            warn(f"interrupted; go on with: kobai compare --resume {shlex.quote(str(folder))}")
            raise typer.Exit(130) from None
        places = result.ranking()
        if quiet:
            say(f"{places[0].name}: validation accuracy {places[0].accuracy:.4f}")
            return
        show(places)
        if not has("matplotlib"):
            say("no figure, because matplotlib is missing: pip install 'kobai[plot]'")
        say(f"files in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
        say(f"train the best one: {result.command()}")


def shared(base: Settings, varied: Container[str]) -> str:
    """What all runs have in common, as far as it is not what kobai train does by itself."""
    usual = Settings().as_dict()
    own = [
        f"{name} {spelt(tuple(value) if isinstance(value, list) else value)}"
        for name, value in running.lasting(base).items()
        if name not in varied and name != "data" and value != usual[name]
    ]
    return ", ".join([f"data {base.data}", *own])


def _newest() -> Path:
    found = list(Path("runs").glob(f"*/{PLAN}"))
    if not found:
        raise DataError("runs: no comparison to go on with in this folder")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def show(places: list[Place]) -> None:
    """The ranked table, on the screen."""
    columns = headings(places, short=True)
    table = Table(
        title="\nranked by accuracy on the validation split", title_justify="left", box=None, header_style="bold"
    )
    table.add_column("", justify="right")
    table.add_column("condition", overflow="fold")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for place in places:
        table.add_row(str(place.rank), place.name, *cells(place, columns), style="bold" if place.rank == 1 else "")
    out.print(table)


class Board:
    """Where all runs are: a live table with running curves in a terminal, a line for each finished run elsewhere."""

    def __init__(self, names: list[str], repeat: int, quiet: bool) -> None:
        self.names, self.repeat, self.quiet = names, repeat, quiet
        self.news: dict[tuple[int, int], dict[str, Any]] = {}
        self.ended: set[tuple[int, int]] = set()
        self.lock = threading.Lock()
        self.began = time.perf_counter()
        self.live: Live | None = None

    def __enter__(self) -> Board:
        if not self.quiet and out.is_terminal and not out.is_dumb_terminal:
            self.live = Live(get_renderable=self.table, console=out, refresh_per_second=4, transient=True)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def take(self, key: tuple[int, int], news: dict[str, Any], ended: bool) -> None:
        """News of a run; see :func:`kobai.lab.compare`."""
        with self.lock:
            self.news[key] = news
            if ended:
                self.ended.add(key)
        if ended and self.live is None and not self.quiet:
            c, r = key
            seed = f", seed {r + 1} of {self.repeat}" if self.repeat > 1 else ""
            gone = news["run"].diverged
            what = (
                f"diverged at step {gone}"
                if gone is not None
                else f"validation accuracy {news['held_accuracy'][-1]:.4f}"
            )
            say(f"{len(self.ended)}/{len(self.names) * self.repeat}  {self.names[c]}{seed}: {what}")

    def table(self) -> Table:
        """The board as it is now: all conditions as far as the screen has lines, those that run first."""
        with self.lock:
            news, ended = dict(self.news), set(self.ended)
        total, gone = len(self.names) * self.repeat, time.perf_counter() - self.began
        title = f"{len(ended)} of {total} runs, {duration(gone)}"
        table = Table(title=title, title_justify="left", box=None, header_style="bold")
        table.add_column("condition", overflow="ellipsis", no_wrap=True)
        for heading in ("runs", "epoch", "training loss", "validation accuracy"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        running_now = {c for c, r in news if (c, r) not in ended}
        room = max(3, out.size.height - 5)
        order = list(range(len(self.names)))
        if len(order) > room:
            order = sorted(
                order,
                key=lambda c: (
                    c not in running_now,
                    -max([0.0, *(n["held_accuracy"][-1] for k, n in news.items() if k[0] == c)]),
                ),
            )[:room]
        for c in sorted(order):
            mine = [r for r in range(self.repeat) if (c, r) in news]
            done = sum((c, r) in ended for r in mine)
            if not mine:
                table.add_row(self.names[c], f"0/{self.repeat}", "", "", "", "", style="dim")
                continue
            now = news[c, max(mine, key=lambda r: ((c, r) not in ended, r))]
            table.add_row(
                self.names[c],
                f"{done}/{self.repeat}",
                f"{now['epoch']:.1f}",
                f"{now['loss']:.4f}" if now["loss"] < 1000 else f"{now['loss']:.3g}",
                f"{now['held_accuracy'][-1]:.4f}",
                sparkline(now["held_accuracy"]),
                style="bold" if c in running_now else "",
            )
        if len(order) < len(self.names):
            table.caption = f"and {len(self.names) - len(order)} more conditions"
        return table


def sparkline(values: list[float], width: int = 20) -> str:
    """Values from 0 to 1 as a row of bars.

    >>> sparkline([0.0, 0.25, 0.5, 0.75, 1.0], 5)
    '▁▃▅▇█'
    """
    bars = "▁▂▃▄▅▆▇█"
    step = max(1.0, len(values) / width)
    taken = [values[min(len(values) - 1, int((i + 1) * step) - 1)] for i in range(min(width, len(values)))]
    return "".join(bars[min(7, int(max(0.0, v) * 8))] if v == v else " " for v in taken)
