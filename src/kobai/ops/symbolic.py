"""What programs write for PyTorch's compiler to read: checks, and functions of sizes that it may not know yet.

Kobai knows every size, a Python number; so the functions are Python's, and nothing is an instance of ``SymInt``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from kobai.compat.absent import stand_in
from kobai.core.tensor import Tensor
from kobai.ops.create import tensor

__all__: list[str] = []

sym_int, sym_float, sym_max, sym_min, sym_not, sym_sqrt = int, float, max, min, operator.not_, math.sqrt
SymInt, SymFloat, SymBool = map(stand_in, ("SymInt", "SymFloat", "SymBool"))


def sym_ite(b: bool, t: Any, f: Any) -> Any:
    """``t`` if ``b``, else ``f``."""
    return t if b else f


def sym_sum(args: Any) -> Any:
    """The sum of numbers."""
    return sum(args)


def _raised(kind: type[Exception], who: str) -> Callable[..., None]:
    def check(cond: Any, message: Callable[[], str] | None = None) -> None:
        if not cond:
            raise kind(message() if message is not None else f"{who}: the condition is false")

    check.__name__ = check.__qualname__ = who
    check.__doc__ = f"{kind.__name__}, with what ``message()`` gives, unless the condition holds."
    return check


_check = _raised(RuntimeError, "_check")
_check_index = _raised(IndexError, "_check_index")
_check_type = _raised(TypeError, "_check_type")
_check_value = _raised(ValueError, "_check_value")


def _check_is_size(i: int, message: Callable[[], str] | None = None, *, max: int | None = None) -> None:
    """RuntimeError unless ``i`` can be a size, of ``max`` at most."""
    _check(i >= 0 and (max is None or i <= max), message)


def _assert_async(input: Tensor, assert_msg: str = "_assert_async: expected a true element") -> None:
    """RuntimeError unless the one element of ``input`` is true."""
    if not input.item():
        raise RuntimeError(assert_msg)


def _shape_as_tensor(input: Tensor) -> Tensor:
    """The shape of ``input`` as a tensor of int64."""
    return tensor(list(input.shape))


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any = ()) -> Any:
    """``true_fn(*operands)`` if ``pred`` is true – a bool, or a tensor of one element – else ``false_fn(*operands)``."""
    return (true_fn if bool(pred) else false_fn)(*operands)
