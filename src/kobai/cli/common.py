"""What the commands share: where their lines go, their bars, and how failures end."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.progress import Progress
from rich.table import Table

from kobai import xp
from kobai.bench.machine import version
from kobai.core.terminal import Terminal
from kobai.core.untrusted import printable
from kobai.engine.notices import NOTICE, listening
from kobai.errors import BackendError, CheckpointError, DataError, DistError, nearest
from kobai.train.nonfinite import NonFiniteError
from kobai.train.progress import print_line
from kobai.train.settings import SettingsError, option

out = Terminal()
err = Terminal(stderr=True)

WIDE = 1000
"""Columns of a table that is written to a file or a pipe."""


def say(line: str) -> None:
    """A line on standard output."""
    print_line(out, line)


def say_whole(line: str) -> None:
    """A line to copy, such as a command: a terminal may wrap it, but it is not broken."""
    out.print(line, markup=False, soft_wrap=True)


def results() -> Table:
    """An empty table for results, with little between its columns."""
    return Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))


def show(table: Table) -> None:
    """A table: no wider than the terminal, or in full width to a file or a pipe."""
    (out if out.is_terminal else Terminal(width=WIDE)).print(table)


def silent(line: str) -> None:
    """Takes the lines of a quiet command."""


class Bar(Progress):
    """A bar that is on the screen while its block runs; hidden if the output is not a terminal, ``in_lines`` unless quiet."""

    def __init__(self, *columns: Any, quiet: bool, **options: Any) -> None:
        hidden = quiet or not out.is_terminal or out.is_dumb_terminal
        super().__init__(*columns, console=out, transient=True, disable=hidden, **options)
        self.in_lines = hidden and not quiet

    def stop(self) -> None:
        if not self.disable:  # rich 13 ends a hidden bar with an empty line
            super().stop()


def new_folder(kind: str) -> Path:
    """Make the folder ``runs/<kind>-<time>``, with a number after it if another process has just made that one."""
    name, number = time.strftime(f"{kind}-%Y%m%d-%H%M%S"), 1
    folder = Path("runs") / name
    folder.parent.mkdir(exist_ok=True)
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
            folder = folder.with_name(f"{name}-{number}")


def warn(line: str) -> None:
    """A line on standard error."""
    print_line(err, f"kobai: {line}")


def warn_whole(message: str) -> None:
    """A warning in the first line; the lines below are to be copied, so a terminal may wrap them but none is broken."""
    first, *rest = message.splitlines()
    warn(first)
    for line in rest:
        err.print(line, markup=False, soft_wrap=True)


@contextmanager
def one_line(debug: bool, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Failures as one line and exit code 1, wrong settings as usage errors with code 2; ``debug`` shows tracebacks.

    ``tell`` gets a line if kernels have to be compiled; by default it goes to standard error, if that is a terminal.
    """
    tell = tell or (warn if err.is_terminal else silent)
    told: list[str] = []

    def compiling(kernel: str, seconds: float | None) -> None:
        if not told:
            told.append(kernel)
            tell(NOTICE)

    try:
        with listening(compiling), warnings.catch_warnings():
            warnings.showwarning = lambda message, *where: warn(str(message))  # without the library's file and line
            yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except SettingsError as error:
        _let_rank_0_speak()
        raise typer.BadParameter(printable(str(error)), param_hint=option(error.option)) from error
    except KeyboardInterrupt:
        warn("interrupted")
        raise typer.Exit(130) from None
    except BrokenPipeError:  # the reader, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:
        _let_rank_0_speak()
        if debug:
            raise
        warn(_reason(error))
        raise typer.Exit(1) from None


PATIENCE = 1.0
"""Seconds that a process of a job leaves to the first one: if that fails too, it says why, and ends all."""


def _let_rank_0_speak() -> None:
    if int(os.environ.get("RANK", "0")) > 0:
        time.sleep(PATIENCE)


def end_all(code: Any) -> None:
    """End the other processes of a job that fails: they would wait for this one."""
    if "RANK" in os.environ and (mpi := sys.modules.get("mpi4py.MPI")) is not None and mpi.COMM_WORLD.size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        mpi.COMM_WORLD.Abort(code if isinstance(code, int) else 1)


def _reason(error: Exception) -> str:
    if isinstance(error, DataError):  # name options instead of arguments
        return str(error).replace("data_dir=", "--data-dir").replace("pass download=True", "add --download")
    told = isinstance(error, ImportError) and "pip install" in str(error)
    if told or isinstance(error, (BackendError, CheckpointError, DistError, NonFiniteError)):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return f"out of memory ({error.__cause__ or error}); try a smaller --batch-size or --hidden"
    return f"{type(error).__name__}: {error} (--debug shows where)"


def choose_backend(name: str | None) -> None:
    """Make a backend the default; SettingsError if there is none of this name."""
    if name is None:
        return
    try:
        xp.use(name)
    except BackendError as error:
        known = ("auto", "numpy", "cupy", "cpu", "cuda")
        if name.partition(":")[0] not in known:
            raise SettingsError("backend", f"{name!r}: no backend is called so.{nearest(name, known)}") from error
        raise


def has(package: str) -> bool:
    """Whether a package is installed."""
    return bool(version(package))
