"""Logic and bits: results without a gradient."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.ops._args import Samples, need_numbers, need_tensor, pair
from kobai.ops._operators import as_operator
from kobai.ops.broadcast import broadcast_shapes
from kobai.ops.compare import _operands, without_gradient
from kobai.xp import Array, xp_of

__all__ = [
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
]


@method(in_place=True)
def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Both true (not zero), elementwise.

    >>> import kobai
    >>> kobai.logical_and(kobai.tensor([0, 0, 2]), kobai.tensor([0, 1, 3]))
    tensor([False, False,  True])
    """
    return _logical_and(*_truths("logical_and", input, other))


@method(in_place=True)
def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """One or both true (not zero), elementwise.

    >>> import kobai
    >>> kobai.logical_or(kobai.tensor([0, 0, 2]), kobai.tensor([0, 1, 3]))
    tensor([False,  True,  True])
    """
    return _logical_or(*_truths("logical_or", input, other))


@method(in_place=True)
def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Exactly one true (not zero), elementwise.

    >>> import kobai
    >>> kobai.logical_xor(kobai.tensor([0, 0, 2]), kobai.tensor([0, 1, 3]))
    tensor([False,  True, False])
    """
    return _logical_xor(*_truths("logical_xor", input, other))


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


_and, _or, _xor, _shift_left, _shift_right = (
    without_gradient(__name__, name, function, _bit_samples())
    for name, function in (
        ("_and", operator.and_),
        ("_or", operator.or_),
        ("_xor", operator.xor),
        ("_shift_left", operator.lshift),
        ("_shift_right", operator.rshift),
    )
)


@primitive(sample=lambda rng: (rng.integers(0, 60, (4, 3)),))
def _invert(a: Array) -> Any:
    return ~a, None


def _bits(who: str, input: Any, other: Any) -> tuple[Any, Any]:
    left = isinstance(input, Tensor) or not isinstance(other, Tensor)  # numbers may stand on the left too
    a, b = _operands(who, input, other, wraps=True) if left else pair(who, input, other)
    for operand in (a, b):
        if isinstance(operand, float) or (isinstance(operand, Tensor) and operand._array.dtype.kind in FLOATING):
            raise NotImplementedError(f"{who}: expected integers or truth values, got floats")
    return a, b


@method(in_place=True)
def bitwise_and(input: Any, other: Any) -> Tensor:
    """input & other on integers bit by bit; on truth values, and.

    >>> import kobai
    >>> kobai.bitwise_and(kobai.tensor([5]), 3)  # 101 and 011
    tensor([1])
    """
    return _and(*_bits("bitwise_and", input, other))


@method(in_place=True)
def bitwise_or(input: Any, other: Any) -> Tensor:
    """input | other on integers bit by bit; on truth values, or.

    >>> import kobai
    >>> kobai.bitwise_or(kobai.tensor([5]), 3)  # 101 or 011
    tensor([7])
    """
    return _or(*_bits("bitwise_or", input, other))


@method(in_place=True)
def bitwise_xor(input: Any, other: Any) -> Tensor:
    """input ^ other on integers bit by bit; on truth values, either-or.

    >>> import kobai
    >>> kobai.bitwise_xor(kobai.tensor([5]), 3)  # 101 either-or 011
    tensor([6])
    """
    return _xor(*_bits("bitwise_xor", input, other))


@method(in_place=True)
def bitwise_left_shift(input: Any, other: Any) -> Tensor:
    """input · 2ᵒᵗʰᵉʳ of integers.

    >>> import kobai
    >>> kobai.bitwise_left_shift(kobai.tensor([1, 3]), 2)
    tensor([ 4, 12])
    """
    return _shift_left(*need_numbers("bitwise_left_shift", *_bits("bitwise_left_shift", input, other)))


@method(in_place=True)
def bitwise_right_shift(input: Any, other: Any) -> Tensor:
    """⌊input ÷ 2ᵒᵗʰᵉʳ⌋ of integers.

    >>> import kobai
    >>> kobai.bitwise_right_shift(kobai.tensor([7, -7]), 1)
    tensor([ 3, -4])
    """
    return _shift_right(*need_numbers("bitwise_right_shift", *_bits("bitwise_right_shift", input, other)))


@method(in_place=True)
def bitwise_not(input: Tensor) -> Tensor:
    """~input: all bits turned over; of truth values, not.

    >>> import kobai
    >>> kobai.bitwise_not(kobai.tensor([0, 5])), kobai.bitwise_not(kobai.tensor([True]))
    (tensor([-1, -6]), tensor([False]))
    """
    need_tensor("bitwise_not", input)
    if input._array.dtype.kind in FLOATING:
        raise TypeError(f"bitwise_not: expected integers or truth values, got {input.dtype}")
    return _invert(input)


for _symbol, _function in (
    ("and", bitwise_and),
    ("or", bitwise_or),
    ("xor", bitwise_xor),
    ("lshift", bitwise_left_shift),
    ("rshift", bitwise_right_shift),
):
    setattr(Tensor, f"__{_symbol}__", as_operator(_function))
    setattr(Tensor, f"__i{_symbol}__", getattr(Tensor, f"{_function.__name__}_"))
for _symbol, _function in (("and", bitwise_and), ("or", bitwise_or), ("xor", bitwise_xor)):
    setattr(Tensor, f"__r{_symbol}__", as_operator(_function, reflected=True))  # they commute
setattr(Tensor, "__invert__", bitwise_not)  # noqa: B010 - mypy refuses to assign a method
