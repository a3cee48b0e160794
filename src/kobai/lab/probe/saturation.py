"""What is known of activations: which one a module's output has gone through, and where it is flat."""

from __future__ import annotations

import math
from typing import Any

from kobai import nn
from kobai.core.tensor import Tensor

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


_FUNCTIONS = frozenset(
    "relu leaky_relu prelu elu gelu silu mish hardswish softplus sigmoid tanh hardsigmoid softsign".split()
)
"""Activations that the tape knows by name. SELU and CELU are ELU there; hardtanh's bounds it does not tell."""

_SHAPES = frozenset("reshape permute swap part cast dropout masked replaced max_pool avg_pool".split())
"""Operations between an activation and the next layer that leave it what it is."""


def function_since(last: Any, x: Any) -> str | None:
    """The activation that was called as a function, as in ``F.relu(self.fc(x))``, since the tensor ``last``, by the tape of x.

    >>> import kobai
    >>> x = nn.Linear(2, 3)(kobai.ones(4, 2))
    >>> function_since(x, kobai.relu(x).reshape(-1)), function_since(x, x.reshape(-1)), function_since(x, x + 1)
    ('relu', None, None)
    """
    end, node = getattr(last, "grad_fn", None), x.grad_fn
    while node is not None and node is not end:
        name = getattr(node, "name_", "").strip("_")
        if name in _FUNCTIONS:
            return name
        node = node.edges[0] if name in _SHAPES and node.edges else None
    return None


def ending(output: Any) -> str | None:
    """The activation that an output has gone through last, softmax among them, by its tape.

    >>> import kobai
    >>> x = nn.Linear(2, 3)(kobai.ones(4, 2))
    >>> ending(kobai.softmax(x, 1)), ending(kobai.sigmoid(x).reshape(-1)), ending(x)
    ('softmax', 'sigmoid', None)
    """
    name = getattr(getattr(output, "grad_fn", None), "name_", "").strip("_")
    return "softmax" if name == "softmax" else function_since(None, output) if isinstance(output, Tensor) else None


def flat_outputs(activation: nn.Module | str) -> tuple[float, float] | None:
    """(low, high): up to low and from high on, outputs are saturated. None for what does not squash.

    The slope, written as a function of the output y, is there below FLAT of its greatest value, or 0.

    >>> flat_outputs(nn.Hardtanh()), flat_outputs(nn.ReLU())
    ((-1.0, 1.0), None)
    """
    kind = activation if isinstance(activation, str) else activation_of(activation)
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
        return float(getattr(activation, "min_val", -1.0)), float(getattr(activation, "max_val", 1.0))
    return None
