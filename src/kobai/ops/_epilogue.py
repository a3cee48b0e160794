"""Activations that a layer applies to its own result in place: ``Linear(..., activation="relu")`` and its like.

Only activations whose derivative is a function of their *value* qualify, because the value is all that is kept:
relu′ = [y > 0], sigmoid′ = y (1 − y), tanh′ = 1 − y².
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kobai.errors import nearest
from kobai.ops import _formulas
from kobai.xp import Array


class Epilogue(NamedTuple):
    """``apply(z)`` overwrites z with y = f(z) and returns it; ``backward(dy, y)`` returns dz = dy · f′ as a new array."""

    apply: Callable[[Array], Array]
    backward: Callable[[Array, Array], Array]


EPILOGUES: dict[str, Epilogue] = {
    "relu": Epilogue(lambda z: _formulas.relu(z, out=z), _formulas.relu_backward),
    "sigmoid": Epilogue(lambda z: _formulas.sigmoid(z, out=z), _formulas.sigmoid_backward),
    "tanh": Epilogue(lambda z: _formulas.tanh(z, out=z), _formulas.tanh_backward),
}


def epilogue(who: str, activation: str | None) -> Epilogue | None:
    """The fused activation of this name; None for None; ValueError with the nearest name otherwise."""
    if activation is None:
        return None
    found = EPILOGUES.get(activation)
    if found is None:
        raise ValueError(f"{who}: unknown activation {activation!r}.{nearest(str(activation), EPILOGUES)}")
    return found
