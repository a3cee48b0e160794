"""The command line, ``kobai``: it parses, calls :mod:`kobai.train`, and turns errors into one line and an exit code."""

from __future__ import annotations

import sys
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


app.command(epilog=train.EXAMPLES)(train.train)
app.command(epilog=use.EVALUATE_EXAMPLES)(use.evaluate)
app.command(epilog=use.PREDICT_EXAMPLES)(use.predict)
app.command(epilog=diagnose.EXAMPLES)(diagnose.diagnose)
app.command(epilog=compare.EXAMPLES)(compare.compare)
app.command(epilog=tune.EXAMPLES)(tune.tune)
app.command(epilog=lab.EXAMPLES)(lab.lab)
app.command(epilog=bench.EXAMPLES)(bench.bench)
app.command("warmup", epilog=warmup.EXAMPLES)(warmup.compile_kernels)
app.command(epilog=report.EXAMPLES)(report.report)
app.command()(info.info)


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
    try:
        app(spelt_out(sys.argv[1:] if arguments is None else arguments), prog_name="kobai")
    except KeyboardInterrupt:
        sys.exit(130)
