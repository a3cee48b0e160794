"""How far a comparison or a search is: a live board in a terminal, a line for whatever has ended elsewhere."""

from __future__ import annotations

import threading
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kobai.cli.common import out, say
from kobai.lab.sweep import compare_plan, tune_plan
from kobai.lab.sweep.tune_plan import Trial
from kobai.lab.sweep.tune_result import Search
from kobai.lab.sweep.values import spelt_out
from kobai.train.progress import duration


class Board:
    """``with`` it, it is shown; it goes when that is over."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.began = time.perf_counter()
        self.live: Live | None = None

    def __enter__(self) -> None:
        if not self.quiet and out.is_terminal and not out.is_dumb_terminal:
            self.live = Live(get_renderable=self.panel, console=out, refresh_per_second=4, transient=True)
            self.live.start()

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    @property
    def in_lines(self) -> bool:
        """Whether what has ended is to be told in lines."""
        return self.live is None and not self.quiet

    def panel(self) -> RenderableType:
        """What is on the screen now."""
        raise NotImplementedError

    def head(self, done: int, total: int, what: str, share: float, note: str = "") -> Table:
        """The first line: how much is done, and how long the rest will take if it goes on like this."""
        gone = time.perf_counter() - self.began
        rest = round(gone / share * (1 - share)) if 0.02 < share < 1 else 0
        left = f", some {f'{rest} s' if rest < 60 else duration(rest)} left" if rest else ""
        line = Table.grid(padding=(0, 1))
        line.add_row(
            Text(f"{done} of {total} {what}", style="bold"),
            ProgressBar(total=1.0, completed=share, width=max(4, _room())),
            Text(f"{note}{duration(gone)}{left}", style="dim"),
        )
        return line


class CompareBoard(Board):
    """All conditions as far as the screen has lines, those that run first, with the curve of their accuracy."""

    def __init__(self, plan: compare_plan.ComparePlan, quiet: bool) -> None:
        super().__init__(quiet)
        self.names = [name for name, _ in plan.conditions()]
        self.epochs = [settings.epochs for _, settings in plan.conditions()]
        self.repeat = plan.repeat
        self.total = len(self.names) * plan.repeat
        self.news: dict[tuple[int, int], dict[str, Any]] = {}
        self.ended: set[tuple[int, int]] = set()
        self.lock = threading.Lock()

    def take(self, key: tuple[int, int], news: dict[str, Any], ended: bool) -> None:
        """News of a run; see :func:`kobai.lab.compare`."""
        with self.lock:
            self.news[key] = news
            if ended:
                self.ended.add(key)
        if ended and self.in_lines:
            c, r = key
            seed = f", seed {r + 1} of {self.repeat}" if self.repeat > 1 else ""
            gone = news["run"].diverged
            accuracy = f"validation accuracy {news['held_accuracy'][-1]:.4f}"
            what = accuracy if gone is None else f"diverged at step {gone}"
            say(f"{len(self.ended):>{len(str(self.total))}}/{self.total}  {self.names[c]}{seed}: {what}")

    def panel(self) -> Group:
        with self.lock:
            news, ended = dict(self.news), set(self.ended)
        running = {c for c, r in news if (c, r) not in ended}
        share = sum(1.0 if k in ended else n["epoch"] / self.epochs[k[0]] for k, n in news.items()) / self.total
        head = self.head(len(ended), self.total, "runs", share)
        if not news:
            return Group(head, Text("processes are starting …", style="dim"))
        table = Table(box=None, header_style="bold")
        table.add_column("condition")  # the one that gives way where there is little room
        for heading in (*["runs"] * (self.repeat > 1), "epoch", "train loss", "accuracy"):
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
            table.add_row(
                _cut(self.names[c]),
                *runs,
                f"{now['epoch']:.1f}",
                loss,
                f"{now['held_accuracy'][-1]:.4f}",
                sparkline(now["held_accuracy"], _room()),
                style="bold" if c in running else "",
            )
        if len(order) < len(self.names):
            table.caption = f"and {len(self.names) - len(order)} more conditions"
        return Group(head, table)


class TuneBoard(Board):
    """What is done, what is best, and the trials that run."""

    def __init__(self, plan: tune_plan.TunePlan, wanted: int, quiet: bool) -> None:
        super().__init__(quiet)
        self.plan, self.wanted = plan, wanted
        self.search = Search(plan, ())
        self.before: int | None = None
        self.told: set[int] = set()

    def take(self, search: Search) -> None:
        """The search as it is now; see :func:`kobai.lab.tune`."""
        self.search = search
        if self.in_lines:
            for trial in search.ended:
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
        search = self.search
        done, running, best = search.ended, search.of("running"), search.best
        note = f"{len(search.of('pruned'))} pruned, " if self.plan.prune else ""
        lines: list[RenderableType] = [
            self.head(len(done), self.wanted, "trials", min(1.0, len(done) / self.wanted), note)
        ]
        if not done and not running:
            return Group(*lines, Text("processes are starting …", style="dim"))
        if best is not None:
            said = f"best {self.plan.by} {best.value:.4f}, trial {best.number}: {spelt_out(best.parameters)}"
            lines.append(_cut(said, "bold"))
        table = Table(box=None, show_header=False, padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True)
        table.add_column(style="dim")  # the one that gives way
        for trial in running[: max(1, out.size.height - 5)]:
            curve = [value for value in trial.curve if value is not None]
            bars = sparkline(curve, _room()) if self.plan.greatest else ""
            now = f"{curve[-1]:.4f}" if curve else ""
            table.add_row(f"trial {trial.number}", now, bars, _cut(spelt_out(trial.parameters)))
        return Group(*lines, table)


def _room() -> int:
    """Columns for a bar or a curve: 20 of a terminal with 80 of them, fewer where that is narrower."""
    return max(0, min(20, out.size.width - 60))


def _cut(text: str, style: str = "") -> Text:
    """Text that is cut off, and not broken, where it is too long."""
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
