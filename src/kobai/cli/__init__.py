"""The command line, ``kobai``: it parses, calls :mod:`kobai.train`, and turns errors into one line and an exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from inspect import cleandoc
from typing import Annotated

import typer

import kobai
from kobai.cli import bench, compare, diagnose, info, lab, options, report, train, tune, use, warmup
from kobai.cli.common import say

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
        say(f"kobai {kobai.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Train neural networks on NumPy and, with one flag, on CuPy."""


def _add(function: Callable[..., None], epilog: str | None = None, name: str | None = None) -> None:
    """A command; its help is the function's documentation, each paragraph in a line of its own: the terminal breaks it."""
    paragraphs = cleandoc(function.__doc__ or "").split("\n\n")
    app.command(name, help="\n\n".join(" ".join(text.split()) for text in paragraphs), epilog=epilog)(function)


_add(train.train, train.EXAMPLES)
_add(use.evaluate, use.EVALUATE_EXAMPLES)
_add(use.predict, use.PREDICT_EXAMPLES)
_add(diagnose.diagnose, diagnose.EXAMPLES)
_add(compare.compare, compare.EXAMPLES)
_add(tune.tune, tune.EXAMPLES)
_add(lab.lab, lab.EXAMPLES)
_add(bench.bench, bench.EXAMPLES)
_add(warmup.compile_kernels, warmup.EXAMPLES, name="warmup")
_add(report.report, report.EXAMPLES)
_add(info.info)


def spelt_out(arguments: list[str]) -> list[str]:
    """``--resume`` without a value gets the value BARE, which the parser has no notion of.

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
        if isinstance(stream, io.TextIOWrapper):  # what its encoding lacks, such as × in ASCII, is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        app(spelt_out(sys.argv[1:] if arguments is None else arguments), prog_name="kobai")
    except KeyboardInterrupt:
        sys.exit(130)
