"""``kobai tune``."""

from __future__ import annotations

import math
import shlex
import time
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kobai.cli import options
from kobai.cli.common import Backend, DataDir, Debug, choose_backend, has, one_line, out, say, warn
from kobai.cli.compare import shared, sparkline
from kobai.cli.train import BARE
from kobai.errors import DataError
from kobai.lab import study
from kobai.lab.tuning import CHOSEN, SCORES, TRIALS, Plan, Search, Trial, perform, plan, read_plan, spelt_out
from kobai.lab.values import Range, pairs, spelt
from kobai.train.progress import duration
from kobai.train.settings import Settings, SettingsError
from kobai.xp import backend as backend_name

PANEL = "Search"

EXAMPLES = """[b]Examples[/b]

kobai tune --space lr=1e-4..1e-1:log --space weight_decay=1e-8..1e-4:log

kobai tune --space 'hidden=50|100|100,100' --space dropout=0..0.5 --space batch_norm=on,off --trials 60 --test

kobai tune --method grid --space lr=1e-3..1e-1:log:5 --space batch_size=32,64,128 — 5 × 3 trials

kobai tune --resume runs/tune-… --trials 100 — go on; on a second machine too, beside the first

kobai tune --resume runs/tune-… --test — train with the best settings and look at the test split, once"""


def tune(
    ctx: typer.Context,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOW..HIGH[:log] | NAME=A,B,…",
            help="A setting to search, any option below that describes model or training; may be given several times. "
            ":7 after a range makes 7 points of it in a grid.",
            rich_help_panel=PANEL,
            show_default=False,
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="tpe (Bayesian), random or grid.", rich_help_panel=PANEL)] = "tpe",
    trials: Annotated[
        int | None,
        typer.Option(
            help=f"Trials in all, with those that are in the folder; default: {TRIALS}, or the whole grid.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    prune: Annotated[
        bool | None,
        typer.Option(
            "--prune/--no-prune",
            help="End trials that fall behind (asynchronous successive halving); default: but for a grid.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help="Score on the validation split: accuracy or loss.", rich_help_panel=PANEL)
    ] = "accuracy",
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Trials at once, each with one thread; default: one for each processor. One on a GPU.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    test: Annotated[
        bool,
        typer.Option(
            "--test",
            help="In the end, train with the best settings and look at the test split, once.",
            rich_help_panel=PANEL,
        ),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the study; default: runs/tune-<time>.", rich_help_panel=PANEL),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with the search in this folder; without a value: in the newest in runs/.", rich_help_panel=PANEL
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
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the best settings and nothing else.")] = False,
    debug: Debug = False,
) -> None:
    """Search settings for the best score on the validation split: Bayesian, random or grid, by Optuna.

    The study is kept on the disk: an interrupted search goes on, and several processes or machines may work on one. No trial
    sees the test split. Options that are not searched hold for all trials; a data set's own recipe is not applied.
    """
    with one_line(debug, tell=(lambda line: None) if quiet else None):
        study.require()
        choose_backend(backend)
        given = {f.name: ctx.params[f.name] for f in fields(Settings) if options.is_given(ctx, f.name)}
        if resume is not None:
            others = [n for n in ("method", "prune", "by") if options.is_given(ctx, n)]
            wrong = [n for n in [*given, *others] if n not in ("data_dir", "download")]
            wrong += ["space"] * bool(space) + ["out"] * bool(folder)
            if wrong:
                raise SettingsError(wrong[0], "has no place beside --resume, which takes everything from the folder")
            folder = _newest() if resume == BARE else Path(resume).expanduser()
            made = read_plan(folder)
        else:
            values = {f.name: ctx.params[f.name] for f in fields(Settings) if f.name in ctx.params}
            base = Settings(**{**values, "hidden": options.sizes("hidden", hidden)}).check()
            made = plan(base, pairs("space", space or []), method, prune, by, given=given)
            folder = folder or Path("runs") / time.strftime("tune-%Y%m%d-%H%M%S")
        points = len(made.grid()) if made.method == "grid" else None
        wanted = min(trials or points or TRIALS, points or math.inf)
        if resume is not None:
            held = study.trials(study.open_study(folder, made), made)
            wanted = max(wanted, sum(trial.state != "waiting" for trial in held))
        board = Board(made, int(wanted), quiet)
        if not quiet:
            _introduce(made, board.wanted, folder)
        try:
            with board:
                found = perform(made, trials=board.wanted, jobs=jobs, out=folder, watch=board.take)
        except KeyboardInterrupt:
            warn(f"interrupted; go on with: kobai tune --resume {shlex.quote(str(folder))} --trials {board.wanted}")
            raise typer.Exit(130) from None
        if found.best is None:
            raise DataError(f"{folder}: no trial has been completed; go on with more --trials, or without pruning")
        if quiet and not test:
            say(found.command())
        elif not quiet:
            _show(found)
            if not has("matplotlib"):
                say("no figures, because matplotlib is missing: pip install 'kobai[plot]'")
            say(f"files in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
            say(f"train with the best: {found.command()}")
        if test:
            result = found.test(folder, say=(lambda line: None) if quiet else say)
            if not quiet:
                say(f"the model is in {folder / CHOSEN}; test loss {result['loss']:.4f}")
            say(f"test accuracy {result['accuracy']:.4f}")
        elif not quiet:
            say("the test split has not been looked at; --test does, once")


def _newest() -> Path:
    found = list(Path("runs").glob(f"*/{study.JOURNAL}"))
    if not found:
        raise DataError("runs: no search to go on with in this folder")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def _introduce(plan: Plan, wanted: int, folder: Path) -> None:
    spaces = [f"{n} {w if isinstance(w, Range) else ' | '.join(map(spelt, w))}" for n, w in plan.space.items()]
    how = {"tpe": "Bayesian (TPE)", "random": "random", "grid": f"grid of {len(plan.grid())}"}[plan.method]
    say(f"searched  {'; '.join(spaces)}")
    say(f"all       {shared(plan.base, plan.space)}")
    pruned = ", pruned by successive halving" if plan.prune else ""
    say(f"search    {how}, {wanted} trials in all{pruned}, by {SCORES[plan.by]}")
    say(f"backend   {backend_name()}")
    say(f"folder    {folder}")


def _show(found: Search) -> None:
    """The best trials, and what mattered, on the screen."""
    sign = -1 if found.plan.greatest else 1
    best = sorted(
        (t for t in found.complete if t.value is not None),
        key=lambda t: (sign * (t.value or 0.0), t.loss if t.loss is not None else float("inf"), t.number),
    )[:5]
    table = Table(title="\nthe best trials", title_justify="left", box=None, header_style="bold")
    table.add_column("trial", justify="right")
    table.add_column(SCORES[found.plan.by].removeprefix("validation "), justify="right")
    for name in found.plan.space:
        table.add_column(name.replace("_", " "), justify="right", overflow="fold")
    for i, t in enumerate(best):
        cells = [f"{v:.3g}" if isinstance(v, float) else spelt(v) for v in t.parameters.values()]
        table.add_row(str(t.number), f"{t.value:.4f}", *cells, style="bold" if i == 0 else "")
    out.print(table)
    if shares := found.importances():
        say(
            "importance: "
            + ", ".join(f"{name.replace('_', ' ')} {100 * share:.0f} %" for name, share in shares.items())
        )


class Board:
    """How far a search is: a live panel in a terminal, a line for each finished trial elsewhere."""

    def __init__(self, plan: Plan, wanted: int, quiet: bool) -> None:
        self.plan, self.wanted, self.quiet = plan, wanted, quiet
        self.search = Search(plan, ())
        self.told: set[int] = set()
        self.began = time.perf_counter()
        self.live: Live | None = None

    def __enter__(self) -> Board:
        if not self.quiet and out.is_terminal and not out.is_dumb_terminal:
            self.live = Live(get_renderable=self.panel, console=out, refresh_per_second=4, transient=True)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def take(self, search: Search) -> None:
        """The search as it is now; see :func:`kobai.lab.tune`."""
        self.search = search
        if self.quiet or self.live is not None:
            return
        ended = search.of("complete", "pruned")
        for trial in ended:
            if trial.number not in self.told:
                self.told.add(trial.number)
                say(self._line(trial))

    def _line(self, trial: Trial) -> str:
        best = self.search.best
        value = "diverged" if trial.diverged else f"{self.plan.by} {trial.value:.4f}"
        mark = "  best so far" if best is not None and best.number == trial.number else ""
        state = "pruned at " if trial.state == "pruned" else ""
        return f"trial {trial.number:>3}  {state}{value}  {spelt_out(trial.parameters)}{mark}"

    def panel(self) -> Group:
        """The search on a screen: what is done, what is best, and the trials that run."""
        search, gone = self.search, time.perf_counter() - self.began
        done = search.of("complete", "pruned")
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(f"{len(done)} of {self.wanted} trials", style="bold"),
            ProgressBar(total=self.wanted, completed=min(len(done), self.wanted), width=24),
            Text(f"{len(search.of('pruned'))} pruned  {duration(gone)}", style="dim"),
        )
        lines: list[Table | Text] = [head]
        if search.best is not None and search.best.value is not None:
            best = search.best
            lines.append(
                Text(f"best {self.plan.by} {best.value:.4f}, trial {best.number}: {spelt_out(best.parameters)}", "bold")
            )
        running = Table(box=None, show_header=False, padding=(0, 1))
        for trial in search.of("running")[: max(1, out.size.height - 5)]:
            curve = [value for value in trial.curve if value is not None]
            bars = sparkline(curve) if self.plan.greatest else ""
            now = f"{curve[-1]:.4f}" if curve else ""
            running.add_row(f"trial {trial.number}", now, bars, Text(spelt_out(trial.parameters), "dim", no_wrap=True))
        return Group(*lines, running)
