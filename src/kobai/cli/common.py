"""What the commands share: where lines go, how failures end, options of several commands."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.table import Table

from kobai import xp
from kobai.core.terminal import Terminal
from kobai.core.untrusted import printable
from kobai.engine.notices import NOTICE, listening
from kobai.errors import BackendError, CheckpointError, DataError, nearest
from kobai.train.nonfinite import NonFiniteError
from kobai.train.progress import print_line
from kobai.train.settings import SettingsError, option

out = Terminal()
err = Terminal(stderr=True)

WIDE = 1000
"""Columns of a table that nobody looks at in a terminal."""


def say(line: str) -> None:
    """A line on standard output."""
    print_line(out, line)


def say_whole(line: str) -> None:
    """A line that is to be copied, such as a command: a terminal wraps it, and no newline comes into it."""
    out.print(line, markup=False, soft_wrap=True)


def results() -> Table:
    """An empty table for results, with little between its columns."""
    return Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))


def show(table: Table) -> None:
    """A table: as wide as the terminal at most, and as wide as it is in a file or a pipe."""
    (out if out.is_terminal else Terminal(width=WIDE)).print(table)


def interrupted(done: str, saved: Path, command: str) -> NoReturn:
    """Say how far it came, and the ``command`` that goes on if there is the file of what was ``saved``; exit code 130."""
    if saved.exists():
        warn_whole(f"interrupted {done}; go on with:\n  {command}")
    else:
        warn("interrupted; nothing is saved")
    raise typer.Exit(130)


def silent(line: str) -> None:
    """What is quiet says its lines to."""


def new_folder(kind: str) -> Path:
    """A folder that is not there yet: ``runs/<kind>-<time>``."""
    name = time.strftime(f"{kind}-%Y%m%d-%H%M%S")
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(folder for name in names if not (folder := Path("runs") / name).exists())


def warn(line: str) -> None:
    """A line on standard error."""
    print_line(err, f"kobai: {line}")


def warn_whole(message: str) -> None:
    """A warning in the first line; what is below is to be copied: a terminal wraps it, and no newline comes into it."""
    first, *rest = message.splitlines()
    warn(first)
    for line in rest:
        err.print(line, markup=False, soft_wrap=True)


@contextmanager
def one_line(debug: bool, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Failures as one line and exit code 1; wrong settings as usage errors, code 2; ``debug`` lets all of them through.

    ``tell`` is given a line if kernels have to be compiled; by default it is shown where standard error is a terminal.
    """
    tell = tell or (warn if err.is_terminal else lambda line: None)
    told: list[str] = []

    def compiling(kernel: str, seconds: float | None) -> None:
        if not told:
            told.append(kernel)
            tell(NOTICE)

    try:
        with listening(compiling), warnings.catch_warnings():
            warnings.showwarning = lambda message, *where: warn(str(message))  # without file and line of the library
            yield
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except SettingsError as error:
        raise typer.BadParameter(printable(str(error)), param_hint=option(error.option)) from error
    except KeyboardInterrupt:
        warn("interrupted")
        raise typer.Exit(130) from None
    except BrokenPipeError:  # the reader, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:
        if debug:
            raise
        warn(_reason(error))
        raise typer.Exit(1) from None


def _reason(error: Exception) -> str:
    if isinstance(error, DataError):  # the library speaks of arguments where the command line has options
        return str(error).replace("data_dir=", "--data-dir").replace("pass download=True", "add --download")
    if isinstance(error, (BackendError, CheckpointError, NonFiniteError)):
        return str(error)
    if isinstance(error, ImportError) and "pip install" in str(error):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return f"out of memory ({error}); try a smaller --batch-size or --hidden"
    return f"{type(error).__name__}: {error} (--debug shows where)"


def choose_backend(name: str | None) -> None:
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
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


# --- options that several commands share ------------------------------------------------------------------------------

Backend = Annotated[
    str | None,
    typer.Option(
        help="auto, numpy or cupy, or a device such as cuda:1. [dim]Default: $KOBAI_BACKEND, else numpy.[/dim]"
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]
