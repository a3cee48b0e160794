"""``kobai export``: a trained model as a file for other programs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kobai.cli.common import say, warn
from kobai.cli.options import Model, command
from kobai.cli.use import Trained
from kobai.errors import nearest
from kobai.ops.create import zeros
from kobai.train import job
from kobai.train.settings import SettingsError

_option = partial(typer.Option, rich_help_panel="Output")
FORMATS = ("onnx",)

To = Annotated[str, _option(help="The format: onnx.")]
Out = Annotated[
    Path | None,
    _option(help="The file; default: model.onnx in the folder of the run.", show_default=False),
]


@command("backend")
def export(*, trained: Trained, to: To = "onnx", out: Out = None, model: Model = None) -> None:
    """Write a trained model as a file of ONNX, for any number of samples at once. Says what it takes and gives.

    Examples:
        kobai export runs/digits-mlp-… — model.onnx in that folder
        kobai export runs/…/last.safetensors --to onnx --out digits.onnx
    """
    from kobai import onnx  # its tables are of no use to other commands

    if to not in FORMATS:
        raise SettingsError("to", f"{to!r}: no format is called so.{nearest(to, FORMATS)}")
    given = trained.expanduser()
    restored = job.restore(given, warn, model)
    answers, prepared = "scores" if restored.classes else "values", restored.preparation
    path = out if out is not None else (given if given.is_dir() else restored.path.parent) / "model.onnx"
    onnx.export(
        restored.model.cpu(),
        zeros(1, *restored.input_shape, device="cpu"),
        path,
        input_names=["x"],
        output_names=[answers],
        dynamic_axes={"x": {0: "samples"}, answers: {0: "samples"}},
        metadata={
            "kobai.classes": json.dumps(restored.classes),
            "kobai.features": json.dumps(restored.features),
            "kobai.shift": json.dumps(restored.scaling.shift),
            "kobai.scale": json.dumps(restored.scaling.scale),
            **({} if prepared is None else {"kobai.preparation": json.dumps(prepared.to_dict())}),
        },
    )
    say(f"{path}: {restored.which}")
    say(f"x       float32 (samples, {', '.join(map(str, restored.input_shape))}): {_input(restored)}")
    if prepared is not None and not restored.classes:
        say(f"values  float32 (samples, 1): {prepared.target} is value × {prepared.scale:.6g} + {prepared.shift:.6g}")
    else:
        classes = f"one for each class, {_some(restored.classes)}"
        say(f"scores  float32 (samples, {len(restored.classes)}): {classes}; softmax of them are the probabilities")


def _input(restored: job.Restored) -> str:
    """What the graph takes: it does not prepare raw values itself."""
    if restored.preparation is not None:
        inputs = _some(restored.preparation.inputs)
        return f"{inputs}; how columns become these says the file's metadata, kobai.preparation"
    shift, scale = restored.scaling.shift, restored.scaling.scale
    what = "raw values"
    if set(shift) == {0.0} and set(scale) == {1.0}:
        return f"{what}, as they are"
    if len(shift) == len(scale) == 1:
        return f"{what}, as (value − {shift[0]:g}) / {scale[0]:g}"
    return f"{what}, each as (value − shift) / scale, with kobai.shift and kobai.scale in the file's metadata"


def _some(names: tuple[str, ...], most: int = 10) -> str:
    return ", ".join(names[:most]) + ", …" * (len(names) > most)
