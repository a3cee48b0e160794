"""Comparison, logic, bits, and kinds of numbers: results without a gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai._primitive import method, primitive
from kobai._tensor import Tensor
from kobai.ops._args import Samples, need_tensor, pair
from kobai.ops.shape import broadcast_shapes
from kobai.xp import Array, is_array, xp_of

__all__ = [
    "allclose",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "eq",
    "equal",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "le",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lt",
    "ne",
    "not_equal",
    "signbit",
]

# --- comparison -------------------------------------------------------------------------------------------------------


def _two() -> Samples:
    return [
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(4, 3))),
        lambda rng: (rng.normal(size=(4, 1, 3)), rng.normal(size=(2, 1))),
        lambda rng: (rng.normal(size=(4, 3)), 0.5),
        lambda rng: (rng.normal(size=(0, 3)), rng.normal(size=3)),
    ]


@primitive(sample=_two(), kind="elementwise")
def _eq(a: Array, b: Array) -> Any:
    return a == b, None


@primitive(sample=_two(), kind="elementwise")
def _ne(a: Array, b: Array) -> Any:
    return a != b, None


@primitive(sample=_two(), kind="elementwise")
def _lt(a: Array, b: Array) -> Any:
    return a < b, None


@primitive(sample=_two(), kind="elementwise")
def _le(a: Array, b: Array) -> Any:
    return a <= b, None


@primitive(sample=_two(), kind="elementwise")
def _gt(a: Array, b: Array) -> Any:
    return a > b, None


@primitive(sample=_two(), kind="elementwise")
def _ge(a: Array, b: Array) -> Any:
    return a >= b, None


def _operands(who: str, input: Any, other: Any) -> tuple[Any, Any]:
    """Both operands with one dtype; RuntimeError if their shapes do not broadcast."""
    need_tensor(who, input)
    a, b = pair(who, input, other)
    if isinstance(b, Tensor) and a._array.shape != b._array.shape:
        broadcast_shapes(a._array.shape, b._array.shape)
    return a, b


@method(in_place=True)
def eq(input: Tensor, other: Any) -> Tensor:
    """input = other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.tensor([1, 2, 3]) == kobai.tensor([1, 0, 3])
    tensor([ True, False,  True])
    """
    return _eq(*_operands("eq", input, other))


@method(in_place=True)
def ne(input: Tensor, other: Any) -> Tensor:
    """input ≠ other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.ne(kobai.tensor([1, 2, 3]), 2)
    tensor([ True, False,  True])
    """
    return _ne(*_operands("ne", input, other))


@method(in_place=True)
def lt(input: Tensor, other: Any) -> Tensor:
    """input < other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.lt(kobai.tensor([1, 2, 3]), 2)
    tensor([ True, False, False])
    """
    return _lt(*_operands("lt", input, other))


@method(in_place=True)
def le(input: Tensor, other: Any) -> Tensor:
    """input ≤ other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.le(kobai.tensor([1, 2, 3]), 2)
    tensor([ True,  True, False])
    """
    return _le(*_operands("le", input, other))


@method(in_place=True)
def gt(input: Tensor, other: Any) -> Tensor:
    """input > other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.gt(kobai.tensor([1, 2, 3]), 2)
    tensor([False, False,  True])
    """
    return _gt(*_operands("gt", input, other))


@method(in_place=True)
def ge(input: Tensor, other: Any) -> Tensor:
    """input ≥ other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.ge(kobai.tensor([1, 2, 3]), 2)
    tensor([False,  True,  True])
    """
    return _ge(*_operands("ge", input, other))


greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne
for _name, _function in (
    ("greater", gt),
    ("greater_equal", ge),
    ("less", lt),
    ("less_equal", le),
    ("not_equal", ne),
):
    method(_function, name=_name, in_place=True)


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """|input − other| ≤ atol + rtol · |other|, elementwise.

    >>> import kobai
    >>> kobai.isclose(kobai.tensor([1., 1.]), kobai.tensor([1.1, 1.2]), atol=0.15)
    tensor([ True, False])
    """
    a, b = _operands("isclose", input, other)
    xp = xp_of(a._array)
    found = xp.isclose(a._array, b._array, rtol=rtol, atol=atol, equal_nan=equal_nan)
    return Tensor._wrap(xp.asarray(found))  # type: ignore[no-any-return]  # NumPy gives a scalar for two 0-d arrays


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether :func:`isclose` holds everywhere, as a Python bool.

    >>> import kobai
    >>> kobai.allclose(kobai.tensor([1.0]), kobai.tensor([1.0 + 1e-7]))
    True
    """
    return bool(isclose(input, other, rtol, atol, equal_nan)._array.all().item())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and elements, as a Python bool.

    >>> import kobai
    >>> kobai.equal(kobai.tensor([1, 2]), kobai.tensor([1, 2])), kobai.equal(kobai.tensor([1]), kobai.tensor([1, 1]))
    (True, False)
    """
    need_tensor("equal", input, other)
    return input._array.shape == other._array.shape and bool(eq(input, other)._array.all().item())


method(isclose)
method(allclose)
method(equal)


# --- logic and bits ---------------------------------------------------------------------------------------------------


@method(in_place=True)
def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Both true (not zero), elementwise.

    >>> import kobai
    >>> kobai.logical_and(kobai.tensor([0, 0, 2]), kobai.tensor([0, 1, 3]))
    tensor([False, False,  True])
    """
    a, b = _truths("logical_and", input, other)
    return _logical_and(a, b)


@method(in_place=True)
def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """One or both true (not zero), elementwise.

    >>> import kobai
    >>> kobai.logical_or(kobai.tensor([0, 0, 2]), kobai.tensor([0, 1, 3]))
    tensor([False,  True,  True])
    """
    a, b = _truths("logical_or", input, other)
    return _logical_or(a, b)


@method(in_place=True)
def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Exactly one true (not zero), elementwise.

    >>> import kobai
    >>> kobai.logical_xor(kobai.tensor([0, 0, 2]), kobai.tensor([0, 1, 3]))
    tensor([False,  True, False])
    """
    a, b = _truths("logical_xor", input, other)
    return _logical_xor(a, b)


@method(in_place=True)
def logical_not(input: Tensor) -> Tensor:
    """Not true: zero, elementwise.

    >>> import kobai
    >>> kobai.logical_not(kobai.tensor([0, 1, 2]))
    tensor([ True, False, False])
    """
    need_tensor("logical_not", input)
    return _logical_not(input)


def _truths(who: str, input: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    need_tensor(who, input, other)
    broadcast_shapes(input._array.shape, other._array.shape)
    return input, other


def _truth_samples() -> Samples:
    return [
        lambda rng: (np.maximum(rng.normal(size=(4, 3)), 0), np.maximum(rng.normal(size=(4, 3)), 0)),
        lambda rng: (rng.normal(size=(4, 1)) > 0, rng.normal(size=3) > 0),
        lambda rng: (rng.normal(size=(0, 3)) > 0, rng.normal(size=3) > 0),
    ]


@primitive(sample=_truth_samples(), kind="elementwise")
def _logical_and(a: Array, b: Array) -> Any:
    return xp_of(a).logical_and(a, b), None


@primitive(sample=_truth_samples(), kind="elementwise")
def _logical_or(a: Array, b: Array) -> Any:
    return xp_of(a).logical_or(a, b), None


@primitive(sample=_truth_samples(), kind="elementwise")
def _logical_xor(a: Array, b: Array) -> Any:
    return xp_of(a).logical_xor(a, b), None


@primitive(sample=lambda rng: (np.maximum(rng.normal(size=(4, 3)), 0),), kind="elementwise")
def _logical_not(a: Array) -> Any:
    return xp_of(a).logical_not(a), None


def _bit_samples() -> Samples:
    return [
        lambda rng: (rng.integers(0, 60, (4, 3)), rng.integers(0, 6, (4, 3))),
        lambda rng: (rng.integers(0, 60, (4, 1)), rng.integers(0, 6, 3)),
        lambda rng: (rng.integers(0, 60, (4, 3)), 5),
    ]


@primitive(sample=_bit_samples())
def _and(a: Array, b: Array) -> Any:
    return a & b, None


@primitive(sample=_bit_samples())
def _or(a: Array, b: Array) -> Any:
    return a | b, None


@primitive(sample=_bit_samples())
def _xor(a: Array, b: Array) -> Any:
    return a ^ b, None


@primitive(sample=_bit_samples())
def _shift_left(a: Array, b: Array) -> Any:
    return a << b, None


@primitive(sample=_bit_samples())
def _shift_right(a: Array, b: Array) -> Any:
    return a >> b, None


@primitive(sample=lambda rng: (rng.integers(0, 60, (4, 3)),))
def _invert(a: Array) -> Any:
    return ~a, None


def _bits(who: str, input: Any, other: Any) -> tuple[Any, Any]:
    a, b = _operands(who, input, other)
    for operand in (a, b):
        if isinstance(operand, float) or (isinstance(operand, Tensor) and operand._array.dtype.kind == "f"):
            raise TypeError(f"{who}: expected integers or truth values, got floats")
    return a, b


@method(in_place=True)
def bitwise_and(input: Tensor, other: Any) -> Tensor:
    """input & other on integers bit by bit; on truth values, and.

    >>> import kobai
    >>> kobai.bitwise_and(kobai.tensor([5]), 3)  # 101 and 011
    tensor([1])
    """
    return _and(*_bits("bitwise_and", input, other))


@method(in_place=True)
def bitwise_or(input: Tensor, other: Any) -> Tensor:
    """input | other on integers bit by bit; on truth values, or.

    >>> import kobai
    >>> kobai.bitwise_or(kobai.tensor([5]), 3)  # 101 or 011
    tensor([7])
    """
    return _or(*_bits("bitwise_or", input, other))


@method(in_place=True)
def bitwise_xor(input: Tensor, other: Any) -> Tensor:
    """input ^ other on integers bit by bit; on truth values, either-or.

    >>> import kobai
    >>> kobai.bitwise_xor(kobai.tensor([5]), 3)  # 101 either-or 011
    tensor([6])
    """
    return _xor(*_bits("bitwise_xor", input, other))


@method(in_place=True)
def bitwise_left_shift(input: Tensor, other: Any) -> Tensor:
    """input · 2ᵒᵗʰᵉʳ of integers.

    >>> import kobai
    >>> kobai.bitwise_left_shift(kobai.tensor([1, 3]), 2)
    tensor([ 4, 12])
    """
    return _shift_left(*_bits("bitwise_left_shift", input, other))


@method(in_place=True)
def bitwise_right_shift(input: Tensor, other: Any) -> Tensor:
    """⌊input ÷ 2ᵒᵗʰᵉʳ⌋ of integers.

    >>> import kobai
    >>> kobai.bitwise_right_shift(kobai.tensor([7, -7]), 1)
    tensor([ 3, -4])
    """
    return _shift_right(*_bits("bitwise_right_shift", input, other))


@method(in_place=True)
def bitwise_not(input: Tensor) -> Tensor:
    """~input: all bits turned over; of truth values, not.

    >>> import kobai
    >>> kobai.bitwise_not(kobai.tensor([0, 5])), kobai.bitwise_not(kobai.tensor([True]))
    (tensor([-1, -6]), tensor([False]))
    """
    need_tensor("bitwise_not", input)
    if input._array.dtype.kind == "f":
        raise TypeError(f"bitwise_not: expected integers or truth values, got {input.dtype}")
    return _invert(input)


def _operator(function: Any) -> Any:
    """An operator answers NotImplemented for operands it does not know: ``x == None`` is False then, as in PyTorch."""

    def operate(self: Tensor, other: Any) -> Any:
        if not isinstance(other, (Tensor, bool, int, float, np.generic)) and not is_array(other):
            return NotImplemented
        return function(self, other)

    return operate


for _symbol, _function in (("eq", eq), ("ne", ne), ("lt", lt), ("le", le), ("gt", gt), ("ge", ge)):
    setattr(Tensor, f"__{_symbol}__", _operator(_function))
for _symbol, _function in (
    ("and", bitwise_and),
    ("or", bitwise_or),
    ("xor", bitwise_xor),
    ("lshift", bitwise_left_shift),
    ("rshift", bitwise_right_shift),
):
    setattr(Tensor, f"__{_symbol}__", _operator(_function))
    setattr(Tensor, f"__i{_symbol}__", getattr(Tensor, f"{_function.__name__}_"))
for _symbol, _function in (("and", bitwise_and), ("or", bitwise_or), ("xor", bitwise_xor)):
    setattr(Tensor, f"__r{_symbol}__", _operator(_function))  # they commute
setattr(Tensor, "__invert__", bitwise_not)  # noqa: B010 - mypy refuses to assign a method


# --- kinds of numbers -------------------------------------------------------------------------------------------------


def _kind(input: Tensor, who: str) -> Tensor:
    need_tensor(who, input)
    xp = xp_of(input._array)
    return Tensor._wrap(xp.asarray(getattr(xp, who)(input._array)))  # type: ignore[no-any-return]


@method
def isnan(input: Tensor) -> Tensor:
    """Where an element is not a number.

    >>> import kobai
    >>> kobai.isnan(kobai.tensor([1.0, float("nan"), float("inf")]))
    tensor([False,  True, False])
    """
    return _kind(input, "isnan")


@method
def isinf(input: Tensor) -> Tensor:
    """Where an element is ∞ or −∞.

    >>> import kobai
    >>> kobai.isinf(kobai.tensor([float("-inf"), float("nan"), float("inf")]))
    tensor([ True, False,  True])
    """
    return _kind(input, "isinf")


@method
def isfinite(input: Tensor) -> Tensor:
    """Where an element is neither infinite nor NaN.

    >>> import kobai
    >>> kobai.isfinite(kobai.tensor([1.0, float("nan"), float("inf")]))
    tensor([ True, False, False])
    """
    return _kind(input, "isfinite")


@method
def isposinf(input: Tensor) -> Tensor:
    """Where an element is ∞.

    >>> import kobai
    >>> kobai.isposinf(kobai.tensor([float("-inf"), 1.0, float("inf")]))
    tensor([False, False,  True])
    """
    return _eq(input, math.inf)


@method
def isneginf(input: Tensor) -> Tensor:
    """Where an element is −∞.

    >>> import kobai
    >>> kobai.isneginf(kobai.tensor([float("-inf"), 1.0, float("inf")]))
    tensor([ True, False, False])
    """
    return _eq(input, -math.inf)


@method
def signbit(input: Tensor) -> Tensor:
    """Where the sign is set: negative numbers and −0.

    >>> import kobai
    >>> kobai.signbit(kobai.tensor([-1.0, -0.0, 0.0]))
    tensor([ True,  True, False])
    """
    return _kind(input, "signbit")
