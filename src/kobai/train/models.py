"""Models by name, for the command line, and from the description in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from kobai import nn
from kobai.errors import nearest
from kobai.nn import init as initialisers
from kobai.random import Generator

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "rrelu": nn.RReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "hardtanh": nn.Hardtanh,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}

# He's factor √2 makes up for the half that a rectifier cuts off; SELU is made for LeCun's (arXiv:1706.02515).
_MATCHING_INIT = {"selu": "lecun", "tanh": "xavier", "sigmoid": "xavier", "hardtanh": "xavier", "identity": "xavier"}


def matching_init(activation: str) -> str:
    """The initialiser that keeps the signal's size under an activation: ``"he"``, ``"xavier"`` or ``"lecun"``.

    >>> matching_init("relu"), matching_init("tanh")
    ('he', 'xavier')
    """
    return _MATCHING_INIT.get(activation, "he")


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
        activation: a name of :data:`ACTIVATIONS`.
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
    if activation not in ACTIVATIONS:
        raise ValueError(f"mlp: unknown activation {activation!r}.{nearest(activation, ACTIVATIONS)}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"mlp: expected dropout in [0, 1), got {dropout}")
    widths = [in_features, *hidden, out_features]
    if any(not isinstance(width, int) or isinstance(width, bool) or width < 1 for width in widths):
        raise ValueError(f"mlp: expected layer sizes of at least 1, got {widths}")
    hidden_init, last_init = (matching_init(activation), "lecun") if init == "auto" else (init, init)
    initialisers.by_name(hidden_init)  # an unknown name fails here, with the known ones
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in pairwise(widths[:-1]):
        layers.append(nn.Linear(n_in, n_out, bias=not batch_norm, init=hidden_init, generator=generator))
        if batch_norm:
            layers.append(nn.BatchNorm1d(n_out))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(widths[-2], out_features, init=last_init, generator=generator))
    return nn.Sequential(*layers)


MODELS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp}


def build(description: Mapping[str, Any]) -> nn.Module:
    """The model that ``{"name": "mlp", "input_shape": [...], "classes": n, **arguments}`` describes.

    >>> net = build({"name": "mlp", "input_shape": [1, 8, 8], "classes": 10, "hidden": [16]})
    >>> net[1].in_features, net[-1].out_features
    (64, 10)
    """
    arguments = dict(description)
    name = arguments.pop("name")
    if name not in MODELS:
        raise ValueError(f"model: unknown model {name!r}.{nearest(name, MODELS)}")
    shape, classes = arguments.pop("input_shape"), arguments.pop("classes")
    return MODELS[name](math.prod(shape), arguments.pop("hidden"), classes, **arguments)
