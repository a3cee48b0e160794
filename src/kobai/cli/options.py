"""Options that describe a model and how it is trained, the same for every command that has them, and how they are read."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from kobai.errors import DataError
from kobai.train.settings import Settings, SettingsError

Data = Annotated[
    str, typer.Option(help="digits, mnist, fashion-mnist, cifar10, or a CSV file.", rich_help_panel="Data")
]
Label = Annotated[
    str | None,
    typer.Option(
        help="Column of the class in a CSV file, by name or number; default: the last.", rich_help_panel="Data"
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch the files if they are not there.", rich_help_panel="Data")
]
Validation = Annotated[
    float, typer.Option(help="Share of the training data held out for validation.", rich_help_panel="Data")
]
Model = Annotated[str, typer.Option(help="Kind of network: mlp, the multilayer perceptron.", rich_help_panel="Model")]
Hidden = Annotated[str, typer.Option(help="Widths of the hidden layers; '' for none.", rich_help_panel="Model")]
Activation = Annotated[str, typer.Option(help="relu, tanh, sigmoid, gelu, selu, …", rich_help_panel="Model")]
Init = Annotated[
    str,
    typer.Option(
        help="Initial weights: he, xavier, lecun, normal(0.01), orthogonal, zeros, …; auto fits the activation.",
        rich_help_panel="Model",
    ),
]
BatchNorm = Annotated[bool, typer.Option(help="Normalise before each activation.", rich_help_panel="Model")]
Dropout = Annotated[float, typer.Option(help="Share of hidden outputs dropped in training.", rich_help_panel="Model")]
OptimizerName = Annotated[
    str,
    typer.Option(
        help="sgd, adam, adamw, adagrad, rmsprop, adadelta, adamax, nadam or radam.", rich_help_panel="Training"
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        help="Learning rate; default: the optimizer's usual one (adam 0.001, sgd 0.1).", rich_help_panel="Training"
    ),
]
Momentum = Annotated[float, typer.Option(help="For sgd and rmsprop.", rich_help_panel="Training")]
WeightDecay = Annotated[float, typer.Option(help="L2 penalty (adamw: decoupled).", rich_help_panel="Training")]
Schedule = Annotated[
    str, typer.Option(help="none, cosine, step, exponential, onecycle or plateau.", rich_help_panel="Training")
]
Epochs = Annotated[int, typer.Option(help="Passes over the training data, in all.", rich_help_panel="Training")]
BatchSize = Annotated[int, typer.Option(help="Samples in a batch.", rich_help_panel="Training")]
ClipGradNorm = Annotated[float | None, typer.Option(help="Greatest norm of the gradient.", rich_help_panel="Training")]
Patience = Annotated[
    int | None,
    typer.Option(help="Stop after so many epochs without a better validation loss.", rich_help_panel="Training"),
]
Seed = Annotated[int, typer.Option(help="Same seed, same result, bit for bit.", rich_help_panel="Training")]


RESUME_FREE = ("data_dir", "download", "jobs", "backend", "quiet", "debug")
"""Options that say where and how something is done, and not what."""

BARE = "?"
"""What a ``--resume`` without a path is given."""

HIDDEN = ",".join(map(str, Settings.hidden))
"""The widths where none are given, as the command line writes them."""


def sizes(name: str, text: str) -> tuple[int, ...]:
    """``"100,50"`` as (100, 50), ``""`` as (); SettingsError for anything else, naming the option.

    >>> sizes("hidden", "100, 50")
    (100, 50)
    """
    try:
        return tuple(int(size) for size in text.split(",")) if text.strip() else ()
    except ValueError:
        raise SettingsError(
            name, f"expected integers with commas between them, such as 100,100, got {text!r}"
        ) from None


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option came from the command line or the file, and is not our default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def settings_in(ctx: typer.Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """All settings that a command has options for, and those of them that were given."""
    values = {field.name: ctx.params[field.name] for field in fields(Settings) if field.name in ctx.params}
    values["hidden"] = sizes("hidden", values["hidden"])
    return values, {name: value for name, value in values.items() if is_given(ctx, name)}


def nothing_beside_resume(ctx: typer.Context, allowed: Container[str]) -> None:
    """SettingsError for an option beside ``--resume`` that is not ``allowed``: the folder says all the others."""
    for param in ctx.command.params:
        name = param.name or ""
        if name not in (*RESUME_FREE, "resume") and name not in allowed and is_given(ctx, name):
            option = max(param.opts, key=len).removeprefix("--")
            raise SettingsError(option, "has no place beside --resume, which takes everything from the folder")


def resumed(resume: str, mark: str, what: str) -> Path:
    """The folder that ``--resume`` means: without a value the newest in ``runs/`` that holds the file ``mark``."""
    if resume != BARE:
        return Path(resume).expanduser()
    found = list(Path("runs").glob(f"*/{mark}"))
    if not found:
        raise DataError(f"runs: no {what} to go on with in this folder")
    return max(found, key=lambda path: path.stat().st_mtime).parent
