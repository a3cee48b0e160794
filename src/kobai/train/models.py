"""Models by name, for the command line, and from the description in a checkpoint."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from kobai import nn
from kobai.errors import CheckpointError, nearest
from kobai.random import Generator
from kobai.train.activations import chosen, share
from kobai.train.categories import Categories
from kobai.train.image_models import cnn, lenet, resnet8
from kobai.train.own_models import OwnModel, is_own, make, short
from kobai.transforms import Augment


def mlp(
    in_features: int,
    hidden: Sequence[int],
    out_features: int,
    *,
    activation: str = "relu",
    init: str = "auto",
    batch_norm: bool = False,
    dropout: float = 0.0,
    generator: Generator | None = None,
) -> nn.Sequential:
    """Multilayer perceptron: for each hidden layer Linear, [BatchNorm1d,] activation, [Dropout]; a Linear last.

    Args:
        in_features: inputs of (N, ...) are flattened to (N, in_features).
        hidden: widths of the hidden layers; none makes a linear model.
        out_features: the output is (N, out_features), scores (logits) for a classifier.
        activation: a name of :data:`kobai.train.activations.ACTIVATIONS`.
        init: a name of :func:`kobai.nn.init.by_name` for all weights; ``"auto"`` takes the one that matches the
            activation, and LeCun's for the last layer, which has none.
        batch_norm: normalise before each activation; the Linear before it then has no bias, which would be subtracted again.
        dropout: share of each hidden layer's outputs dropped in training.
        generator: RNG for the initial weights; default: the global one.

    Raises:
        ValueError: unknown names (with the nearest), sizes < 1, dropout outside [0, 1).

    >>> mlp(784, [100, 100], 10)
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=784, out_features=100, bias=True)
      (2): ReLU()
      (3): Linear(in_features=100, out_features=100, bias=True)
      (4): ReLU()
      (5): Linear(in_features=100, out_features=10, bias=True)
    )
    """
    rectify, hidden_init, last_init = chosen("mlp", activation, init)
    share("mlp", dropout)
    widths = [in_features, *hidden, out_features]
    if any(not isinstance(width, int) or isinstance(width, bool) or width < 1 for width in widths):
        raise ValueError(f"mlp: expected layer sizes of at least 1, got {widths}")
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in pairwise(widths[:-1]):
        layers.append(nn.Linear(n_in, n_out, bias=not batch_norm, init=hidden_init, generator=generator))
        if batch_norm:
            layers.append(nn.BatchNorm1d(n_out))
        layers.append(rectify())
        if dropout:
            layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(widths[-2], out_features, init=last_init, generator=generator))
    return nn.Sequential(*layers)


def _mlp(input_shape: Sequence[int], classes: int, hidden: Sequence[int], **arguments: Any) -> nn.Sequential:
    return mlp(math.prod(input_shape), hidden, classes, **arguments)


MODELS: dict[str, Callable[..., nn.Module]] = {"mlp": _mlp, "cnn": cnn, "lenet": lenet, "resnet8": resnet8}
"""Functions of input shape, number of classes, and what else describes the net."""

EVERY = ("hidden", "activation", "init", "batch_norm", "dropout")
"""Settings that describe a net."""

TAKES = {"mlp": EVERY, "cnn": EVERY, "lenet": ("activation", "init", "dropout"), "resnet8": ("activation", "init")}
"""Those that each net has; one of the reader's own has none."""


def takes(model: str) -> tuple[str, ...]:
    """The settings of :data:`EVERY` that a net has."""
    return TAKES.get(model, ())


def build(description: Mapping[str, Any]) -> nn.Module:
    """The model that ``{"name": "mlp", "input_shape": [...], "classes": n, **arguments}`` describes.

    The name may be an :class:`~kobai.train.own_models.OwnModel`; the mere text of one is not run.

    With ``"augment": {"shift": s, "flip": bool}`` its first layer, ``augment``, changes the images in training; with
    ``"categories": [rows, ...]`` it is :class:`~kobai.train.categories.Categories` and makes vectors of the last inputs.

    >>> net = build({"name": "mlp", "input_shape": [1, 8, 8], "classes": 10, "hidden": [16]})
    >>> net[1].in_features, net[-1].out_features
    (64, 10)
    """
    arguments = dict(description)
    name, augment, rows = arguments.pop("name"), arguments.pop("augment", None), arguments.pop("categories", None)
    shape, classes = arguments.pop("input_shape"), arguments.pop("classes")
    first: dict[str, nn.Module] = {} if augment is None else {"augment": Augment(**augment)}
    if rows:
        first["categories"] = vectors = Categories(rows)
        shape = [shape[0] - len(rows) + vectors.width]
    if isinstance(name, OwnModel):
        net = make(name, shape, classes)
    elif name in MODELS:
        net = MODELS[name](shape, classes, **arguments)
    elif is_own(name):
        raise CheckpointError(
            f"{short(name)} is code, which runs only if the command line names it: --model {short(name)}; a comparison or a "
            "search goes on by the command that began it, with --out FOLDER"
        )
    else:
        raise ValueError(f"model: unknown model {name!r}.{nearest(name, MODELS)}")
    return nn.Sequential(OrderedDict(**first, net=net)) if first else net
