"""Activations by name, and the initial weights that go with them."""

from __future__ import annotations

from collections.abc import Callable

from kobai import nn
from kobai.errors import nearest
from kobai.nn import init as initialisers

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


def chosen(who: str, activation: str, init: str) -> tuple[Callable[[], nn.Module], str, str]:
    """The class of an activation, the initialiser of the layers before it, and that of the last layer, which has none.

    ``"auto"`` takes the one that matches the activation, and LeCun's for the last layer. ValueError for unknown names.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"{who}: unknown activation {activation!r}.{nearest(activation, ACTIVATIONS)}")
    hidden_init, last_init = (matching_init(activation), "lecun") if init == "auto" else (init, init)
    initialisers.by_name(hidden_init)  # an unknown name fails here, with the known ones
    return ACTIVATIONS[activation], hidden_init, last_init


def share(who: str, dropout: float) -> float:
    """``dropout``; ValueError unless it is in [0, 1)."""
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"{who}: expected dropout in [0, 1), got {dropout}")
    return dropout
