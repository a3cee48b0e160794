"""What is known of activations: which one a module's output has gone through, and where it is flat."""

from __future__ import annotations

import math

from kobai import nn

FLAT = 0.05
"""An output is saturated where the activation's slope is below this share of its greatest slope."""

_KINDS: dict[type[nn.Module], str] = {
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.Hardtanh: "hardtanh",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Softsign: "softsign",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.RReLU: "rrelu",
    nn.ELU: "elu",
    nn.CELU: "celu",
    nn.SELU: "selu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Hardswish: "hardswish",
    nn.Softplus: "softplus",
}

RECTIFIERS = frozenset({"relu", "relu6"})
"""Activations whose units can die: exactly 0, with slope 0, on the whole side below 0."""

SQUASHING = frozenset({"sigmoid", "tanh", "hardtanh", "hardsigmoid", "softsign"})
"""Activations between two bounds, which saturate at both."""


def activation_of(module: nn.Module) -> str | None:
    """The activation that a module's output has gone through, by name; None if it has none.

    >>> activation_of(nn.Tanh()), activation_of(nn.Linear(2, 2, activation="relu")), activation_of(nn.Flatten())
    ('tanh', 'relu', None)
    """
    kind = _KINDS.get(type(module))
    if kind is None and isinstance(fused := getattr(module, "activation", None), str):
        return fused
    return kind


def flat_outputs(module: nn.Module) -> tuple[float, float] | None:
    """(low, high): up to low and from high on, outputs are saturated. None for what does not squash.

    The slope, written as a function of the output y, is there below FLAT of its greatest value, or 0.

    >>> flat_outputs(nn.Hardtanh()), flat_outputs(nn.ReLU())
    ((-1.0, 1.0), None)
    """
    kind = activation_of(module)
    if kind == "sigmoid":  # slope y (1 − y), at most 1/4
        half = 0.5 * math.sqrt(1 - FLAT)
        return 0.5 - half, 0.5 + half
    if kind == "tanh":  # 1 − y²
        return -math.sqrt(1 - FLAT), math.sqrt(1 - FLAT)
    if kind == "softsign":  # (1 − |y|)²
        return math.sqrt(FLAT) - 1, 1 - math.sqrt(FLAT)
    if kind == "hardsigmoid":
        return 0.0, 1.0
    if kind == "hardtanh":
        return float(getattr(module, "min_val", -1.0)), float(getattr(module, "max_val", 1.0))
    return None
