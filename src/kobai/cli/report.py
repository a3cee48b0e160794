"""``kobai report``: a run, a comparison or a search as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kobai.cli.common import say, warn
from kobai.cli.options import DataDir, Model, command
from kobai.lab.reports.reporting import report as write_report


@command()
def report(
    *,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of a run of kobai train, of a comparison, of a search, or of experiments; or a checkpoint.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write; default: report.html in the folder.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    model: Model = None,
) -> None:
    """Tell the story of a run, a comparison or a search in one HTML file, which needs no network; prints its path.

    Of a run: data, model, learning curves, activations through the depth, gradient flow, findings and cures, mistakes,
    environment. kobai compare and kobai tune write theirs by themselves.

    Examples:
        kobai report runs/digits-mlp-… — the story of a run, in report.html beside its checkpoints
        kobai report runs/compare-… --out comparison.html — what kobai compare left in a folder, and likewise kobai tune
        kobai report lab — the experiments that kobai lab left in a folder
    """
    say(str(write_report(folder, out, data_dir=data_dir, model=model, say=warn, tell=warn)))
