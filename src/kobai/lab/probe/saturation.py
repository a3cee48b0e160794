"""Which activation an output has gone through, and where that is flat."""

from __future__ import annotations

import math
from typing import Any

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.train.activations import ACTIVATIONS

FLAT = 0.05
"""An output is saturated where the activation's slope is below this share of its greatest slope."""

_KINDS: dict[Any, str] = {
    **{kind: name for name, kind in ACTIVATIONS.items() if name != "identity"},
    nn.Hardsigmoid: "hardsigmoid",
    nn.Softsign: "softsign",
    nn.ReLU6: "relu6",
    nn.CELU: "celu",
    nn.Mish: "mish",
    nn.Hardswish: "hardswish",
}

RECTIFIERS = frozenset({"relu", "relu6"})
"""Activations whose units can die: exactly 0, with slope 0, on the whole side below 0."""

_HALF = 0.5 * math.sqrt(1 - FLAT)
_FLAT_FROM = {
    "sigmoid": (0.5 - _HALF, 0.5 + _HALF),  # slope y (1 − y), at most 1/4
    "tanh": (-2 * _HALF, 2 * _HALF),  # 1 − y²
    "softsign": (math.sqrt(FLAT) - 1, 1 - math.sqrt(FLAT)),  # (1 − |y|)²
    "hardsigmoid": (0.0, 1.0),
    "hardtanh": (-1.0, 1.0),
}
"""(low, high): up to low and from high on, the slope, as a function of the output y, is below FLAT of its greatest, or 0."""

SQUASHING = frozenset(_FLAT_FROM)
"""Activations between two bounds, which saturate at both."""


def activation_of(module: nn.Module) -> str | None:
    """The activation that a module's output has gone through, by name; None if it has none.

    >>> activation_of(nn.Tanh()), activation_of(nn.Linear(2, 2, activation="relu")), activation_of(nn.Flatten())
    ('tanh', 'relu', None)
    """
    fused = getattr(module, "activation", None)
    return _KINDS.get(type(module)) or (fused if isinstance(fused, str) else None)


_FUNCTIONS = frozenset(
    "relu leaky_relu prelu elu gelu silu mish hardswish softplus sigmoid tanh hardsigmoid softsign".split()
)
"""Activations that the tape knows by name. SELU and CELU are ELU there; hardtanh is missing, as the tape lacks its bounds."""

_SHAPES = frozenset("reshape permute swap part cast dropout masked replaced max_pool avg_pool".split())
"""Operations between an activation and the next layer that do not hide the activation."""


def function_since(last: Any, x: Any) -> str | None:
    """The activation called as a function, as in ``F.relu(self.fc(x))``, between the tensors ``last`` and x, by the tape of x.

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
    """The last activation, or softmax, that an output has gone through, by its tape.

    >>> import kobai
    >>> x = nn.Linear(2, 3)(kobai.ones(4, 2))
    >>> ending(kobai.softmax(x, 1)), ending(kobai.sigmoid(x).reshape(-1)), ending(x)
    ('softmax', 'sigmoid', None)
    """
    name = getattr(getattr(output, "grad_fn", None), "name_", "").strip("_")
    return "softmax" if name == "softmax" else function_since(None, output) if isinstance(output, Tensor) else None


def flat_outputs(activation: nn.Module | str) -> tuple[float, float] | None:
    """(low, high): up to low and from high on, outputs are saturated. None for what does not squash.

    >>> flat_outputs(nn.Hardtanh(-2.0, 2.0)), flat_outputs("hardtanh"), flat_outputs(nn.ReLU())
    ((-2.0, 2.0), (-1.0, 1.0), None)
    """
    kind = activation if isinstance(activation, str) else activation_of(activation)
    if kind == "hardtanh" and isinstance(activation, nn.Hardtanh):
        return float(activation.min_val), float(activation.max_val)
    return _FLAT_FROM.get(kind or "")
