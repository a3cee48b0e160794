"""``kobai warmup``: compile now what training would compile in its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from kobai.bench.shapes import Shape, shape_of
from kobai.cli import options
from kobai.cli.common import Bar, say, silent, warn
from kobai.engine import disk_cache, dispatch
from kobai.errors import install
from kobai.lab import Doctor
from kobai.nn import Module
from kobai.ops.create import zeros
from kobai.train import job
from kobai.train.models import build
from kobai.train.progress import duration
from kobai.train.settings import RunSettings, option
from kobai.train.warmup import Warmed, warmup
from kobai.xp import backend, default_device


@options.command(*options.OF_RESULTS, quiet="Print nothing.", tell=silent)
def compile_kernels(
    *,
    trained: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CHECKPOINT]",
            help="A checkpoint, or the folder of a run, instead of the options for data, model and training.",
            show_default=False,
        ),
    ] = None,
    asked: options.Asked,
    quiet: bool,
) -> None:
    """Compile what training a model needs, so that its first step is as quick as the others.

    That happens once on a machine: what is compiled is kept on disk. Options are those of kobai train.

    Examples:
        kobai warmup — for what kobai train trains without options
        kobai warmup --data mnist --hidden 512,512 --batch-norm --dropout 0.2 --optimizer sgd
        kobai warmup runs/digits-mlp-… — for going on with a run, and for its answers
    """
    if trained is None:
        settings = asked.settings()
        shape = shape_of(settings)
        net = build(shape.description(settings)).to(default_device())
    else:
        given = dict(asked.given)
        own = given.pop("model", None)
        if given:
            raise typer.BadParameter(f"given {trained}, there is no use for {', '.join(map(option, given))}")
        restored = job.restore(trained.expanduser(), warn, own)
        settings, net = restored.settings, restored.model
        if not quiet:
            say(f"for the net of {restored.which}, trained on {settings.data}")
        shape = Shape(restored.input_shape, len(restored.classes))
    with _Bar(quiet) as bar:
        done = _warm(settings, shape, net, bar)
    if not quiet:
        say(_summary(done, bar.done))


def _warm(settings: RunSettings, shape: Shape, net: Module, bar: _Bar) -> Warmed:
    """Train on a batch of zeros."""
    images = zeros(settings.batch_size, *shape.inputs, device=default_device())
    labels = zeros(settings.batch_size, dtype="int64", device=default_device())
    return warmup(
        net,
        job.optimizer_of(settings, net),
        [(images, labels)],
        metrics=["accuracy"],
        callbacks=[Doctor(say=silent)],
        clip_grad_norm=settings.clip_grad_norm,
        precision=settings.precision,
        shards=settings.shards,
        listener=bar.heard,
    )


def _summary(done: Warmed, compiled: int) -> str:
    if compiled:
        kept_there = "for this process only" if disk_cache.unkept else "from now on read from disk"
        return f"{compiled} kernel{'s' * (compiled != 1)} compiled in {duration(done.seconds)}; {kept_there}"
    if backend() == "numpy" and not dispatch.numba_installed:
        return f"nothing to compile without Numba: {install('cpu')}"
    return f"all kernels were compiled already; read in {duration(done.seconds)}"


class _Bar(Bar):
    """In a terminal a line that says what is being compiled; elsewhere a line for each kernel when it is done."""

    def __init__(self, quiet: bool) -> None:
        counted = TextColumn("{task.description}  [dim]{task.completed} done")
        super().__init__(SpinnerColumn(), counted, TimeElapsedColumn(), quiet=quiet)
        self.done = 0
        self.kernel = self.add_task("starting", total=None)

    def heard(self, kernel: str, seconds: float | None) -> None:
        if seconds is None:
            self.update(self.kernel, description=f"compiling {kernel}")
            return
        self.done += 1
        self.update(self.kernel, completed=self.done)
        if self.in_lines:
            say(f"{kernel:<32} {duration(seconds)}")
