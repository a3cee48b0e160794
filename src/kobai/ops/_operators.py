"""Functions of two operands as Python's operators."""

from __future__ import annotations

from typing import Any

from kobai.core.tensor import Tensor


def as_operator(function: Any, reflected: bool = False) -> Any:
    """``function`` as an operator: NotImplemented for operands it does not know, so that Python asks the other one.

    ``reflected`` is for numbers on the left, other ∘ self; where the order does not matter, self must be a tensor, as in
    PyTorch.
    """

    commutes = function.__name__ in ("add", "mul", "bitwise_and", "bitwise_or", "bitwise_xor")

    def operate(self: Tensor, other: Any) -> Any:
        try:
            return function(self, other)
        except TypeError:
            if isinstance(other, (Tensor, bool, int, float)):
                raise
            return NotImplemented

    def reflect(self: Tensor, other: Any) -> Any:
        if commutes and not isinstance(self, Tensor):
            raise TypeError(f"{function.__name__}: expected a Tensor, got {type(self).__name__}")
        try:
            return function(other, self)
        except TypeError:
            if isinstance(other, (Tensor, bool, int, float)):
                raise
            return NotImplemented

    return reflect if reflected else operate
