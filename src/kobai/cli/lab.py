"""``kobai lab``: the experiments on why networks train or do not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from kobai.cli.common import Bar, has, new_folder, say, warn
from kobai.cli.options import DataDir, command
from kobai.errors import install, nearest
from kobai.lab.experiments.base import Result, Settings
from kobai.lab.experiments.register import EXPERIMENTS, find, run
from kobai.lab.training.curves import load
from kobai.train.settings import SettingsError

ALL, LIST = "all", "list"
IMAGES = ("digits", "mnist", "fashion-mnist")


@command(quiet="Print the names of the files and nothing else.")
def lab(
    *,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="An experiment, [b]all[/b], or [b]list[/b].", show_default=False)
    ] = LIST,
    data: Annotated[str, typer.Option(help="digits, mnist or fashion-mnist.", rich_help_panel="Data")] = "digits",
    data_dir: DataDir = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes, which still show the claim.")] = False,
    repeat: Annotated[int, typer.Option(min=1, help="Seeds for each condition, where an experiment takes means.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same numbers.")] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at once, each with one thread; default: one for each processor. One after another on a GPU.",
        ),
    ] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder of the files; default: runs/lab-<time>.")] = None,
    backend: str | None,
    quiet: bool,
    debug: bool,
) -> None:
    """Run an experiment on why networks train or do not: a figure, its numbers, and a finding computed from them.

    Writes NAME.png, NAME.svg and NAME.json. The exit code is 1 if a claim is not seen in the numbers.

    Examples:
        kobai lab list — the experiments and what they claim
        kobai lab vanishing-gradient
        kobai lab all --quick — all of them in small, in three minutes
        kobai lab init-compare --data mnist --data-dir data --repeat 3
    """
    wanted = _wanted(name)
    if not wanted:
        width = max(map(len, EXPERIMENTS))
        for each in EXPERIMENTS:
            say(f"{each:<{width}}  {find(each).claim}")
        return
    if not has("matplotlib"):  # say so before the work, not after it
        raise ImportError(f"no figure can be drawn, because matplotlib is missing: {install('plot')}")
    settings = Settings(_data(data), quick, seed, backend, repeat, jobs, data_dir)
    load(settings.data, quick, seed, data_dir)  # report missing files before anything runs
    folder = folder or new_folder("lab")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(20, "is a file, and the lab needs a folder", str(folder))
    failed = []
    for each in wanted:
        try:
            if _run(each, settings, folder, quiet).passed:
                continue
            warn(f"{each}: the claim is not seen in these numbers")
        except (ImportError, RuntimeError, ValueError, ArithmeticError) as error:
            if debug or (len(wanted) == 1 and not isinstance(error, ImportError)):
                raise
            warn(f"{each}: {error}" if each not in str(error) else str(error))
        failed.append(each)
    if len(wanted) > 1 and not quiet:
        say(f"{len(wanted) - len(failed)} of {len(wanted)} claims seen; files in {folder}")
    if failed:
        raise typer.Exit(1)


def _wanted(name: str) -> list[str]:
    """The experiments to run; empty for ``list``."""
    key = name.strip().lower().replace("_", "-")
    if key in (ALL, LIST):
        return list(EXPERIMENTS) if key == ALL else []
    if key not in EXPERIMENTS:
        known = [*EXPERIMENTS, ALL, LIST]
        hint = nearest(key, known) or f" There are {', '.join(EXPERIMENTS)}, all and list."
        raise typer.BadParameter(f"no experiment is called {name!r}.{hint}", param_hint="NAME")
    return [key]


def _data(name: str) -> str:
    key = name.strip().lower().replace("_", "-")
    if key not in IMAGES:
        raise SettingsError(
            "data", f"{name!r}: the lab works on {', '.join(IMAGES[:-1])} or {IMAGES[-1]}.{nearest(key, IMAGES)}"
        )
    return key


def _run(name: str, settings: Settings, folder: Path, quiet: bool) -> Result:
    began = time.perf_counter()
    with _progress(name, settings, quiet) as shown:
        result = run(name, shown, folder)
    if quiet:
        for path in result.files:
            say(str(path))
        return result
    say(f"{find(name).title}  ({time.perf_counter() - began:.0f} s)")
    say(f"  claim    {find(name).claim}")
    say(f"  finding  {result.finding}")
    say(f"  files    {folder}: {', '.join(path.name for path in result.files)}")
    return result


@contextmanager
def _progress(name: str, settings: Settings, quiet: bool) -> Iterator[Settings]:
    """The settings, with a bar that moves as runs end."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, quiet=quiet) as bar:
        task = bar.add_task(name, total=None)

        def done(ended: int, total: int, last: str) -> None:
            bar.update(task, completed=ended, total=total, description=f"{name}: {last}")

        yield replace(settings, done=done)
