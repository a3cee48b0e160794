"""Progress on the screen: a live bar in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from kobai.core.markup import Markup, tag
from kobai.core.notebook import frame, in_notebook, looked_at
from kobai.train.callbacks import Callback, Trainer
from kobai.train.metric_base import read
from kobai.train.records import shown

REFRESH = 0.2
"""Seconds between two reads of the running loss, each of which waits for the device."""


class Progress(Callback):
    """A live bar for the running epoch, with loss, metrics, time and time left, and a line for each finished one.

    A notebook has a bar and the curves so far. If the output is neither, only the lines are printed, and nothing is read from
    the device between epochs.

    Args:
        console: a ``rich.console.Console``; the notebook or standard output by default.
        quiet: print nothing at all.

    >>> import kobai
    >>> model = kobai.nn.Linear(2, 2, init="zeros")
    >>> progress = kobai.train.Progress()
    >>> trainer = kobai.train.Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[progress])
    >>> _ = trainer.fit([(kobai.zeros(4, 2), kobai.tensor([0, 1, 1, 0]))], epochs=1)  # doctest: +ELLIPSIS
    epoch 1/1  loss 0.6931  lr 0.1  ... ms
    """

    once = True

    def __init__(self, console: Any = None, quiet: bool = False) -> None:
        self.quiet = quiet
        self._console = console
        self._bar: Any = None
        self._task: Any = None
        self._page: _Page | None = None

    @property
    def console(self) -> Any:
        """Where the lines go."""
        if self._console is None:
            from kobai.core.terminal import Terminal

            self._console = Terminal()
        return self._console

    def on_fit_start(self, trainer: Trainer) -> None:
        self._first = trainer.epoch + trainer.position / max(1, _batches(trainer))
        self._began = time.perf_counter()
        self._looked = -math.inf
        self._explained = False
        if self._console is None and in_notebook():
            self._page = None if self.quiet else _Page()
            return
        live = self.console.is_terminal and not self.console.is_dumb_terminal
        if self.quiet or trainer.epoch >= trainer.epochs or not live:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}", markup=False),
            TextColumn("[dim]{task.fields[clock]}"),
            console=self.console,
            transient=True,
            refresh_per_second=8,
        )
        self._bar.start()

    def on_epoch_start(self, trainer: Trainer) -> None:
        if self._bar is None:
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(
            f"epoch {trainer.epoch + 1}/{trainer.epochs}",
            total=_batches(trainer) or None,
            completed=trainer.position,
            values="",
            clock=self._clock(trainer),
        )

    def on_batch_end(self, trainer: Trainer) -> None:
        if (self._bar is None and self._page is None) or time.perf_counter() - self._looked < REFRESH:
            return
        self._looked = time.perf_counter()
        values = _values(read([trainer.loss, *trainer.metrics]))
        if self._page is not None:
            self._page.show(trainer, f"{values}  {self._clock(trainer)}")
            return
        self._bar.update(self._task, completed=trainer.position, values=values, clock=self._clock(trainer))

    def on_epoch_end(self, trainer: Trainer) -> None:
        if self._page is not None:
            self._page.show(trainer, self._clock(trainer))
        if self.quiet or self._page is not None:
            return
        record = trainer.history[-1]
        measured = {k: v for k, v in record.items() if k not in ("epoch", "lr", "time")}
        if not self._explained and any(k.startswith("val_") for k in measured):
            print_line(self.console, "each value: training/validation")
            self._explained = True
        line = (
            f"epoch {record['epoch']:>{len(str(trainer.epochs))}}/{trainer.epochs}  {_values(measured)}  "
            f"lr {record['lr']:.2g}  {duration(record['time'])}"
        )
        print_line(self.console, line)

    def on_close(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
        if self._page is not None:
            self._page.end(trainer)
            self._page = None

    def _clock(self, trainer: Trainer) -> str:
        """Time since the start, and the time left at this rate."""
        gone = time.perf_counter() - self._began
        done = trainer.epoch + trainer.position / max(1, _batches(trainer)) - self._first
        left = trainer.epochs - trainer.epoch - trainer.position / max(1, _batches(trainer))
        rest = f", {duration(gone / done * left)} left" if done > 0 and gone > 1 else ""
        return f"{duration(gone)}{rest}"


class _Page:
    """What a notebook shows of a running training, in one place of its page."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._place: Any = display(HTML(""), display_id=True)

    def show(self, trainer: Trainer, line: str) -> None:
        """A bar of the whole training, a line, and the curves so far."""
        per_epoch = _batches(trainer)
        done = trainer.epoch + (trainer.position / per_epoch if per_epoch else 0)
        bar = tag("progress", value=f"{done:.3f}", max=trainer.epochs)
        at = f"  epoch {min(trainer.epoch + 1, trainer.epochs)}/{trainer.epochs}  {line}"
        self._update(tag("div", bar, at), trainer)

    def end(self, trainer: Trainer) -> None:
        """The curves, and why training stopped early."""
        self._update(tag("div", trainer.stop_reason, class_="quiet") if trainer.stop_reason else Markup(), trainer)

    def _update(self, head: Markup, trainer: Trainer) -> None:
        self._place.update(self._html(frame(head, tag("div", shown(trainer.history)))))


def progress_for(callbacks: Sequence[Callback], wanted: bool | None) -> list[Progress]:
    """What shows the progress, beside these callbacks: one is enough."""
    wanted = looked_at() if wanted is None else wanted
    return [Progress()] if wanted and not any(isinstance(callback, Progress) for callback in callbacks) else []


def print_line(console: Any, line: str) -> None:
    """Print a line: a narrow terminal breaks it between words, a file or a pipe never."""
    console.print(line, markup=False, soft_wrap=not console.is_terminal)


def duration(seconds: float) -> str:
    """Seconds, readable.

    >>> duration(0.042), duration(7.3), duration(125), duration(7384)
    ('42 ms', '7.3 s', '2 min 05 s', '2 h 03 min')
    """
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _values(values: dict[str, float]) -> str:
    """Each value, with that of the validation data after a slash: an epoch's line fits into 80 columns.

    >>> _values({"loss": 0.04, "accuracy": 0.985, "val_loss": 0.05, "val_accuracy": 0.993})
    'loss 0.0400/0.0500  accuracy 0.9850/0.9930'
    """
    parts = []
    for name, value in values.items():
        if not name.startswith("val_"):
            held = values.get(f"val_{name}")
            parts.append(f"{name} {_number(value)}" + ("" if held is None else f"/{_number(held)}"))
    return "  ".join(parts)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3e}"


def _batches(trainer: Trainer) -> int:
    """Batches in an epoch; 0 if the loader has no length."""
    try:
        return len(trainer.train_data)
    except TypeError:
        return 0
