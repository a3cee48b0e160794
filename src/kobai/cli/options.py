"""Options that describe a model and how it is trained, the same for every command that has them."""

from __future__ import annotations

from typing import Annotated

import typer

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
BatchSize = Annotated[int, typer.Option(help="Samples in a batch.", rich_help_panel="Training")]
ClipGradNorm = Annotated[float | None, typer.Option(help="Greatest norm of the gradient.", rich_help_panel="Training")]
Seed = Annotated[int, typer.Option(help="Same seed, same result, bit for bit.", rich_help_panel="Training")]


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
