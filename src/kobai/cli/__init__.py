"""The command line, ``kobai``: one file for each command, and what they share in ``options.py`` and ``common.py``."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterable
from inspect import cleandoc
from typing import Annotated, Any

import typer

import kobai
from kobai.cli import (
    bench,
    compare,
    diagnose,
    export,
    info,
    lab,
    launch,
    options,
    report,
    train,
    tune,
    use,
    verify,
    warmup,
)
from kobai.cli.common import end_all, say
from kobai.compat.versions import VERSION

app = typer.Typer(
    name="kobai",
    help="Train neural networks on NumPy and, with one flag, on CuPy.",
    epilog="First steps:  kobai train   then   kobai evaluate runs/…   and   kobai predict runs/…",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        say(f"kobai {VERSION}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Train neural networks on NumPy and, with one flag, on CuPy."""


def _add(function: Callable[..., None], name: str | None = None, defaults: Iterable[str] = (), **settings: Any) -> None:
    """Make a command of a function; its help is the docstring.

    The terminal breaks each paragraph. Sections (``Examples:`` with a command in each line) come after the options, and before
    them ``defaults``.
    """
    text, *sections = re.split(r"^(.+):\n(?= )", cleandoc(function.__doc__ or ""), flags=re.MULTILINE)
    titled = dict(zip(sections[::2], (section.strip().splitlines() for section in sections[1::2]), strict=True))
    shown = {"Defaults": defaults, **titled} if defaults else titled
    epilog = "\n\n".join(line for title, lines in shown.items() for line in (f"[b]{title}[/b]", *map(str.strip, lines)))
    help = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
    app.command(name, help=help, epilog=epilog, **settings)(function)


_add(train.train, defaults=train.DEFAULTS)
_add(use.evaluate)
_add(use.predict)
_add(export.export)
_add(diagnose.diagnose)
_add(compare.compare)
_add(tune.tune)
_add(lab.lab)
_add(bench.bench)
_add(warmup.compile_kernels, name="warmup")
_add(report.report)
_add(launch.launch, context_settings={"allow_interspersed_args": False})  # what follows the script is its own
_add(verify.verify)
_add(info.info)


def spelt_out(arguments: list[str]) -> list[str]:
    """Give a ``--resume`` without a value the value BARE: the parser knows no option with an optional value.

    >>> spelt_out(["train", "--resume", "--out", "x"])
    ['train', '--resume', '?', '--out', 'x']
    """
    full: list[str] = []
    for i, argument in enumerate(arguments):
        full.append(argument)
        if argument == "--resume" and (i + 1 == len(arguments) or arguments[i + 1].startswith("-")):
            full.append(options.BARE)
    return full


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``kobai`` command. Exit codes: 0, 1 failure, 2 usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # do not fail for a × in ASCII
            stream.reconfigure(errors="backslashreplace")
    line = sys.argv[1:] if arguments is None else arguments
    try:
        app(spelt_out(line), prog_name="kobai", obj=line)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as error:
        if error.code:
            end_all(error.code)
        raise
