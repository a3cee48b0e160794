"""``kobai evaluate`` and ``kobai predict``: using a trained model."""

from __future__ import annotations

import csv
import io
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from kobai.cli.common import out, say, warn
from kobai.cli.options import DataDir, Model, command
from kobai.core.files import write_atomically
from kobai.errors import nearest
from kobai.train import inference, job
from kobai.train.scores import NAMES
from kobai.train.settings import SettingsError

_option = partial(typer.Option, rich_help_panel="Data")
_RUN = "A checkpoint, or the folder of a run (its best one)."

Trained = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help=_RUN, show_default=False)]
OtherData = Annotated[
    str | None,
    _option(
        help="A table (CSV, TSV, Parquet, Excel), an image or a folder of images, or a data set by name; default: what the "
        "model was trained on."
    ),
]
Split = Annotated[
    str | None, _option(help="train, validation or test; default: test, or all rows of a table, all images.")
]


def _asked(
    trained: Path, data: str | None, data_dir: str | None, split: str | None, model: str | None
) -> tuple[job.Restored, inference.Questions]:
    if split is not None and split not in inference.SPLITS:
        raise SettingsError("split", f"{split!r}: no split is called so.{nearest(split, inference.SPLITS)}")
    restored = job.restore(trained.expanduser(), warn, model)
    asked = inference.questions(restored, data, data_dir, split)
    for note in asked.notes:
        warn(note)
    return restored, asked


@command()
def evaluate(
    *, trained: Trained, data: OtherData = None, data_dir: DataDir = None, split: Split = None, model: Model = None
) -> None:
    """Loss and accuracy of a trained model; of tables more. The last line is the accuracy, or the R² of a regression.

    Examples:
        kobai evaluate runs/digits-mlp-… — the test split of its own data
        kobai evaluate runs/…/last.safetensors --split validation
        kobai evaluate runs/… --data more.csv — labelled rows that it has not seen
    """
    restored, asked = _asked(trained, data, data_dir, split, model)
    found = inference.score(restored, asked)
    say(f"{restored.which}, on {asked.what}")
    _tell_if_seen(restored, asked, data_dir)
    prefix = f"{asked.split} " if asked.split else ""
    tell_scores(found, prefix)
    say(f"{prefix}loss {found['loss']:.4f}")
    main = "accuracy" if "accuracy" in found else "r2"
    say(f"{prefix}{NAMES[main]} {found[main]:.4f}")


def _tell_if_seen(restored: job.Restored, asked: inference.Questions, data_dir: str | None) -> None:
    """Say so if the model was, or may have been, trained on the samples."""
    if asked.split in ("validation", "test"):
        return
    known, n = inference.seen(restored, asked, data_dir), len(asked.inputs)
    if known is None:
        say(f"whether it was trained on any of these cannot be told, because {restored.settings.data} cannot be read")
    elif known:
        which = "all of them" if known == n else f"{known} of them"
        say(f"it was trained on {which}: this is no measure of how it does on samples that it has not seen")


@command()
def predict(
    *,
    trained: Trained,
    data: OtherData = None,
    data_dir: DataDir = None,
    split: Split = None,
    model: Model = None,
    answers: Annotated[
        Path | None,
        typer.Option("--out", help="CSV file to write; default: standard output.", rich_help_panel="Output"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many samples.", rich_help_panel="Output")] = None,
) -> None:
    """Classes and their probabilities, or values, for each sample, as CSV, or as a table in a terminal.

    Examples:
        kobai predict runs/digits-mlp-… — its test split, the first rows as a table
        kobai predict runs/… --data new.csv --out answers.csv — rows of a CSV file, with or without labels
        kobai predict runs/… --data photo.jpg — an image, or a folder of them
        kobai predict runs/… --data new.csv | cut -d, -f2 — CSV where the output is no terminal
    """
    restored, asked = _asked(trained, data, data_dir, split, model)
    header, rows = _lines(restored, asked, inference.answers(restored, asked))
    rows = rows[:limit]
    if answers is not None:
        table = io.StringIO(newline="")
        csv.writer(table).writerows([header, *rows])
        write_atomically(answers, table.getvalue().encode())
        warn(f"{len(rows)} predictions in {answers}, by {restored.which}, on {asked.what}")
    elif out.is_terminal:
        say(f"{restored.which}, on {asked.what}")
        _show(header, rows, asked.what, len(restored.classes))
    else:
        csv.writer(sys.stdout, lineterminator="\n").writerows([header, *rows])
        sys.stdout.flush()
        warn(f"{restored.which}, on {asked.what}")


def _lines(
    restored: job.Restored, asked: inference.Questions, found: inference.Answers
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the CSV file: sample, prediction, then what is known, then the probability of every class."""
    samples = asked.files or [str(i) for i in range(len(asked.inputs))]
    labels = [
        [] if asked.labels is None else ["" if label is None else _cell(label)]
        for label in asked.labels or [None] * len(asked.inputs)
    ]
    label = ["label"] * (asked.labels is not None)
    if found.values is not None:
        both = zip(samples, found.values.tolist(), labels, strict=True)
        return ["sample", "prediction", *label], [[sample, _cell(v), *known] for sample, v, known in both]
    header = ["sample", "prediction", "probability", *label, *(f"P({name})" for name in restored.classes)]
    each = zip(samples, found.classes.tolist(), found.probabilities.tolist(), labels, found.every.tolist(), strict=True)
    return header, [
        [sample, restored.classes[k], f"{p:.6f}", *known, *(f"{q:.6f}" for q in every)]
        for sample, k, p, known, every in each
    ]


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.7g}"


def tell_scores(found: dict[str, float], prefix: str) -> None:
    """The scores beside loss and accuracy, or R², that are known: one line each."""
    told = ("accuracy", "r2", *["log_loss"] * (abs(found.get("log_loss", 0.0) - found["loss"]) < 1e-3))
    for name, shown in NAMES.items():
        if name in found and name not in told:
            say(
                f"{prefix}{shown} {found[name]:.4f}"
                if abs(found[name]) < 1e4
                else f"{prefix}{shown} {found[name]:,.0f}"
            )


def _show(header: list[str], rows: list[list[str]], name: str, classes: int, most: int = 20) -> None:
    if classes > 4:  # a terminal has no room for the probability of each
        header, rows = header[: len(header) - classes], [row[: len(row) - classes] for row in rows]
    at = header.index("label") if "label" in header and classes else None
    shown = Table(title=name, title_justify="left", box=None, header_style="bold")
    for column in header:
        shown.add_column(column, justify="left" if column in ("prediction", "label") and classes else "right")
    for row in rows[:most]:
        wrong = at is not None and row[at] not in ("", row[1])
        shown.add_row(*row, style="red" if wrong else None)
    out.print(shown)
    if len(rows) > most:
        say(f"… and {len(rows) - most} more; --out FILE writes all of them")
