"""How far a comparison or a search is: a live board in a terminal; elsewhere a line for each run that ends."""

from __future__ import annotations

import math
import shlex
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import RenderableType
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from kobai.cli.common import Bar, out, say, warn, warn_whole
from kobai.lab.sweep import compare_plan, tune_plan
from kobai.lab.sweep.tune_plan import Trial
from kobai.lab.sweep.tune_result import Search
from kobai.lab.sweep.values import spelt_out
from kobai.train.own_models import is_own


class Board(Bar):
    """A bar of ``total`` runs, called ``what``, above a table of those that run."""

    def __init__(self, total: int, what: str, quiet: bool) -> None:
        counted = TextColumn("[bold]{task.fields[ended]} of {task.total} {task.description}")
        times = TextColumn("[dim]{task.fields[note]}"), TimeElapsedColumn(), TimeRemainingColumn()
        bar = BarColumn(max(4, _room()))
        # Runs take long: estimate the rate from all the time, not from the last seconds.
        super().__init__(counted, bar, *times, quiet=quiet, refresh_per_second=4, speed_estimate_period=math.inf)
        self.total = total
        self.runs = self.add_task(what, total=total, ended=0, note="")

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield from self.rows()

    def rows(self) -> Iterable[RenderableType]:
        """What is below the bar."""
        raise NotImplementedError

    def interrupted(self, folder: Path, mark: str, command: str, models: Iterable[str]) -> NoReturn:
        """Say how far it came, and the ``command`` that goes on if the ``folder`` holds the file ``mark``; exit code 130.

        With ``models`` of the user's own it is the command that began it: what a folder names is not run.
        """
        task = self.tasks[0]
        if (folder / mark).exists():
            found = f", what they found is in {folder}" * (task.fields["ended"] > 0)
            done = f"after {task.fields['ended']} of {self.total} {task.description}{found}"
            how = f"go on with:\n  {command} --resume {shlex.quote(str(folder))}"
            if any(map(is_own, models)):
                how = f"go on with the same command and\n  --out {shlex.quote(str(folder))}"
            warn_whole(f"interrupted {done}; {how}")
        else:
            warn("interrupted; nothing is saved")
        raise typer.Exit(130)


class CompareBoard(Board):
    """All conditions, or as many as the screen has lines for, those that run first, with the curve of their accuracy."""

    def __init__(self, plan: compare_plan.ComparePlan, quiet: bool) -> None:
        self.names = [name for name, _ in plan.conditions()]
        self.epochs = [settings.epochs for _, settings in plan.conditions()]
        self.repeat = plan.repeat
        self.news: dict[tuple[int, int], dict[str, Any]] = {}
        self.ended: set[tuple[int, int]] = set()
        self.lock = threading.Lock()
        super().__init__(len(self.names) * plan.repeat, "runs", quiet)

    def take(self, key: tuple[int, int], news: dict[str, Any], ended: bool) -> None:
        """News of a run; see :func:`kobai.lab.compare`."""
        with self.lock:
            self.news[key] = news
            if ended:
                self.ended.add(key)
            done = sum(1.0 if k in self.ended else n["epoch"] / self.epochs[k[0]] for k, n in self.news.items())
        self.update(self.runs, completed=done, ended=len(self.ended))
        if ended and self.in_lines:
            c, r = key
            seed = f", seed {r + 1} of {self.repeat}" if self.repeat > 1 else ""
            gone = news["run"].diverged
            score = f"validation {news['run'].measure} {news['held_accuracy'][-1]:.4f}"
            what = score if gone is None else f"diverged at step {gone}"
            say(f"{len(self.ended):>{len(str(self.total))}}/{self.total}  {self.names[c]}{seed}: {what}")

    def rows(self) -> Iterable[RenderableType]:
        with self.lock:
            news, ended = dict(self.news), set(self.ended)
        if not news:
            yield STARTING
            return
        running = {c for c, r in news if (c, r) not in ended}
        table = Table(box=None, header_style="bold")
        table.add_column("condition")  # this one shrinks if there is little room
        measure = next(iter(news.values()))["run"].measure
        for heading in (*["runs"] * (self.repeat > 1), "epoch", "train loss", measure):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        room = max(3, out.size.height - 5)
        order = list(range(len(self.names)))
        if len(order) > room:
            best = {c: max((n["held_accuracy"][-1] for k, n in news.items() if k[0] == c), default=0.0) for c in order}
            order = sorted(order, key=lambda c: (c not in running, -best[c]))[:room]
        for c in sorted(order):
            mine = [r for r in range(self.repeat) if (c, r) in news]
            runs = [f"{sum((c, r) in ended for r in mine)}/{self.repeat}"] * (self.repeat > 1)
            if not mine:
                table.add_row(_cut(self.names[c]), *runs, style="dim")
                continue
            now = news[c, max(mine, key=lambda r: ((c, r) not in ended, r))]
            loss = f"{now['loss']:.4f}" if now["loss"] < 1000 else f"{now['loss']:.3g}"
            accuracies = now["held_accuracy"]
            measured = f"{now['epoch']:.1f}", loss, f"{accuracies[-1]:.4f}", sparkline(accuracies, _room())
            table.add_row(_cut(self.names[c]), *runs, *measured, style="bold" if c in running else "")
        if len(order) < len(self.names):
            table.caption = f"and {len(self.names) - len(order)} more conditions"
        yield table


class TuneBoard(Board):
    """How many trials have ended, which is best, and those that run."""

    def __init__(self, plan: tune_plan.TunePlan, wanted: int, quiet: bool) -> None:
        self.plan = plan
        self.search = Search(plan, ())
        self.told: set[int] = set()
        super().__init__(wanted, "trials", quiet)

    def take(self, search: Search) -> None:
        """The search as it is now; see :func:`kobai.lab.tune`."""
        self.search, done = search, len(search.ended)
        note = f"{len(search.of('pruned'))} pruned" if self.plan.prune else ""
        self.update(self.runs, completed=done, ended=done, note=note)
        for trial in search.ended if self.in_lines else ():
            if trial.number not in self.told:
                self.told.add(trial.number)
                say(self._line(trial))

    def _line(self, trial: Trial) -> str:
        best = self.search.best
        value = "diverged" if trial.diverged else f"{self.plan.by} {trial.value:.4f}"
        mark = "  best so far" if best is not None and best.number == trial.number else ""
        state = "pruned at " if trial.state == "pruned" else ""
        return f"trial {trial.number:>3}  {state}{value}  {spelt_out(trial.parameters)}{mark}"

    def rows(self) -> Iterable[RenderableType]:
        running, best = self.search.of("running"), self.search.best
        if not self.search.ended and not running:
            yield STARTING
            return
        if best is not None:
            said = f"best {self.plan.by} {best.value:.4f}, trial {best.number}: {spelt_out(best.parameters)}"
            yield _cut(said, "bold")
        table = Table(box=None, show_header=False, padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True)
        table.add_column(style="dim")  # this one shrinks
        for trial in running[: max(1, out.size.height - 5)]:
            curve = [value for value in trial.curve if value is not None]
            bars = sparkline(curve, _room()) if self.plan.greatest else ""
            now = f"{curve[-1]:.4f}" if curve else ""
            table.add_row(f"trial {trial.number}", now, bars, _cut(spelt_out(trial.parameters)))
        yield table


STARTING = Text("processes are starting …", style="dim")


def _room() -> int:
    """Columns for a bar or a curve: 20 in a terminal of 80 columns, fewer in a narrower one."""
    return max(0, min(20, out.size.width - 60))


def _cut(text: str, style: str = "") -> Text:
    """Text that is cut off, not broken, if it is too long."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def sparkline(values: list[float], width: int = 20) -> str:
    """Values from 0 to 1 as a row of bars.

    >>> sparkline([0.0, 0.25, 0.5, 0.75, 1.0], 5)
    '▁▃▅▇█'
    """
    bars = "▁▂▃▄▅▆▇█"
    step = max(1.0, len(values) / max(1, width))
    taken = [values[min(len(values) - 1, int((i + 1) * step) - 1)] for i in range(min(width, len(values)))]
    return "".join(bars[min(7, int(max(0.0, v) * 8))] if v == v else " " for v in taken)
