"""Binary arithmetic with broadcasting: ``+ − × ÷ xʸ``, minimum and maximum, remainders.

Every gradient of a broadcast operand is summed back to its shape (:func:`~kobai.ops._args.unbroadcast`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.core.primitive import in_place, method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.engine.domains import check_divisor
from kobai.ops._args import Samples, cast, drawn, held, into, need_numbers, need_tensor, pair, shape_of, unbroadcast
from kobai.ops._operators import as_operator
from kobai.ops._powers import power, slope
from kobai.ops._quotients import floor_quotient, floor_remainder, trunc_quotient, trunc_remainder
from kobai.xp import Array, xp_of

__all__ = [
    "add",
    "arctan2",
    "atan2",
    "div",
    "divide",
    "float_power",
    "floor_divide",
    "fmod",
    "maximum",
    "minimum",
    "mul",
    "multiply",
    "pow",
    "remainder",
    "sub",
    "subtract",
    "true_divide",
]


def _two(low: float = -2.0, high: float = 2.0) -> Samples:
    """Sample pairs: equal shapes, broadcasting both ways, a number, no elements."""
    return [
        drawn([(4, 3), (4, 3)], between=(low, high)),
        drawn([(4, 1, 3), (2, 1)], between=(low, high)),
        drawn([(), (2, 3)], between=(low, high)),
        drawn((4, 3), 1.5, between=(low, high)),
        drawn([(0, 3), (3,)], between=(low, high)),
    ]


@primitive(sample=_two(), kind="elementwise", half="device")
def _add(a: Array, b: Array) -> Any:
    sa, sb = shape_of(a), shape_of(b)
    return a + b, lambda dy: (unbroadcast(dy, sa), unbroadcast(dy, sb))


@primitive(sample=_two(), kind="elementwise", half="device")
def _sub(a: Array, b: Array) -> Any:
    sa, sb = shape_of(a), shape_of(b)
    return a - b, lambda dy: (unbroadcast(dy, sa), lambda: unbroadcast(-dy, sb))


@primitive(sample=_two(), kind="elementwise")
def _mul(a: Array, b: Array) -> Any:
    y = a * b
    if isinstance(b, (bool, int, float)):
        return y, lambda dy: (lambda: dy * b, None)
    return y, lambda dy: (lambda: unbroadcast(dy * b, a.shape), lambda: unbroadcast(dy * a, b.shape))


@primitive(sample=_two(0.5, 2.0), kind="elementwise")
def _div(a: Array, b: Array) -> Any:
    y = a / b
    if isinstance(b, (bool, int, float)):
        return y, lambda dy: (lambda: dy / b, None)
    sa = shape_of(a)
    # The quotient is computed again, so that the result may change in place: z = a / b; z += c.
    return y, lambda dy: (lambda: unbroadcast(dy / b, sa), lambda: unbroadcast(-dy * (a / b) / b, b.shape))


@primitive(sample=drawn((4, 3)), kind="elementwise")
def _squared(x: Array) -> Any:
    return x * x, lambda dy: (lambda: 2 * (dy * x),)


@primitive(
    sample=[*_two(0.5, 2.0), *(drawn((4, 3), p, between=(0.5, 2.0)) for p in (3.0, -2.0, 0.5, -0.5))],
    kind="elementwise",
)
def _pow(a: Array, b: Array) -> Any:
    y = power(a, b)
    if isinstance(b, (int, float)):
        # y is not kept, so that it may change in place
        return y, lambda dy: (lambda: slope(a, b, dy), None)

    def vjp(dy: Array) -> Any:
        def da() -> Array:
            # d(aᵇ)/da = b aᵇ⁻¹, which at b = 0 is 0, also where a = 0
            xp = xp_of(b)
            zero = b == 0
            return unbroadcast(dy * xp.where(zero, 0 * b, b * power(a, xp.where(zero, 1 + 0 * b, b - 1))), a.shape)

        def db() -> Array:
            # d(aᵇ)/db = aᵇ ln a, which at a = 0 is 0 for b ≥ 0; below 0 there is none (nan)
            g = dy * (y * _ln(a))
            if not (isinstance(a, (int, float)) and a != 0):
                xp = xp_of(b)
                g = xp.where((a == 0) & (b >= 0), xp.zeros_like(g), g)
            return unbroadcast(g, b.shape)

        return da, db

    return y, vjp


def _ln(x: Any) -> Any:
    if isinstance(x, (int, float)):
        return math.log(x) if x > 0 else -math.inf if x == 0 else math.nan
    return xp_of(x).log(x)


@primitive(sample=_two(), kind="elementwise")
def _maximum(a: Array, b: Array) -> Any:
    y = xp_of(a).maximum(a, b)
    return y, lambda dy: _to_the_chosen(dy, xp_of(a).maximum(a, b), a, b)


@primitive(sample=_two(), kind="elementwise")
def _minimum(a: Array, b: Array) -> Any:
    y = xp_of(a).minimum(a, b)
    return y, lambda dy: _to_the_chosen(dy, xp_of(a).minimum(a, b), a, b)


def _to_the_chosen(dy: Array, y: Array, a: Array, b: Array) -> Any:
    """Gradient to the operand that is the result; where both are, half to each (the symmetric subgradient).

    Where one is NaN, and so the result, both get all of it, as in PyTorch. The result is computed again rather than kept,
    so that it may change in place.
    """

    def share(x: Array, other: Array) -> Array:
        chosen = ((x == y) | (y != y)).astype(dy.dtype)
        return unbroadcast(dy * (chosen - 0.5 * (chosen * (other == y))), shape_of(x))

    return (lambda: share(a, b)), (lambda: share(b, a))


REMAINDERS: Samples = [
    lambda rng: (rng.uniform(-2, 2, (4, 3)) + 0.01, 0.7),
    lambda rng: (rng.normal(size=(2, 3)), rng.uniform(1, 2, (3,))),
    lambda rng: (-1.5, rng.uniform(0.2, 2, (2, 3))),
]


def _rest(name: str, remainder: Any, quotient: Any) -> Callable[..., Tensor]:
    """The primitive of a remainder a − q b with the whole ``quotient`` q: its derivative is 1 in a, −q in b."""

    def forward(a: Array, b: Array) -> Any:
        check_divisor(name, a, b)
        sa, sb = shape_of(a), shape_of(b)
        return remainder(a, b), lambda dy: (unbroadcast(dy, sa), lambda: unbroadcast(-dy * quotient(a, b), sb))

    forward.__name__ = f"_{name}"
    return primitive(sample=REMAINDERS)(forward)


_remainder = _rest("remainder", floor_remainder, floor_quotient)
_fmod = _rest("fmod", trunc_remainder, trunc_quotient)


@primitive(sample=[lambda rng: (rng.uniform(0.5, 2, (4, 3)), rng.uniform(-2, 2, (3,)))])
def _atan2(a: Array, b: Array) -> Any:
    y = xp_of(a).arctan2(a, b)

    def vjp(dy: Array) -> Any:
        square = a * a + b * b
        # No direction at the origin: the gradient is 0, and so are the derivatives of the gradient.
        scaled = dy / xp_of(a).where(square == 0, square + math.inf, square)
        return (lambda: unbroadcast(scaled * b, a.shape)), (lambda: unbroadcast(-scaled * a, b.shape))

    return y, vjp


@primitive(sample=_two(0.5, 2.0), kind="elementwise")
def _floor_divide(a: Array, b: Array) -> Any:
    check_divisor("floor_divide", a, b)
    return floor_quotient(a, b), _no_slope(a, b)


@primitive(sample=_two(0.5, 2.0), kind="elementwise")
def _trunc_divide(a: Array, b: Array) -> Any:
    check_divisor("div", a, b)
    return trunc_quotient(a, b), _no_slope(a, b)


def _no_slope(a: Array, b: Array) -> Any:
    """The vjp of a step function: zeros in the shape of each operand."""
    sa, sb = shape_of(a), shape_of(b)

    def zeros(dy: Array, shape: tuple[int, ...] | None) -> Any:
        return None if shape is None else lambda: xp_of(dy).zeros(shape, dy.dtype)

    return lambda dy: (zeros(dy, sa), zeros(dy, sb))


def _behind(who: str, alpha: Any, older: tuple[Any, ...]) -> tuple[Any, Any]:
    """``other`` and ``alpha`` of PyTorch's older order, in which the factor comes before what it multiplies."""
    if len(older) > 1 or isinstance(alpha, Tensor):
        raise TypeError(
            f"{who}: expected (input, other, *, alpha) or (input, alpha, other), got {2 + len(older)} operands"
        )
    return older[0], alpha


@method(in_place=True)
def add(input: Any, other: Any, *older: Any, alpha: float = 1, out: Tensor | None = None) -> Tensor:
    """input + alpha · other, elementwise with broadcasting; written into ``out`` if given. (input, alpha, other) too.

    >>> import kobai
    >>> kobai.add(kobai.tensor([1., 2.]), 10, alpha=2)
    tensor([21., 22.])
    """
    if older:
        other, alpha = _behind("add", other, older)
    a, b = pair("add", input, other if alpha == 1 else _times("add", input, other, alpha))
    y = _add(a, b) if isinstance(a, Tensor) else _add(b, a)
    return y if out is None else into("add", out, y)


def _times(who: str, input: Any, other: Any, alpha: float) -> Any:
    """alpha · other; RuntimeError for a fraction of integers."""
    if isinstance(alpha, float) and not any(
        isinstance(x, float) or (isinstance(x, Tensor) and x._array.dtype.kind in FLOATING) for x in (input, other)
    ):
        raise RuntimeError(f"{who}: expected an integer as alpha for integers, got {alpha}")
    return other * alpha


@method(in_place=True)
def sub(input: Any, other: Any, *older: Any, alpha: float = 1, out: Tensor | None = None) -> Tensor:
    """input − alpha · other, elementwise with broadcasting. NotImplementedError for truth values. (input, alpha, other) too.

    >>> import kobai
    >>> kobai.sub(kobai.tensor([10, 20]), kobai.tensor([1, 2]), alpha=3)
    tensor([ 7, 14])
    """
    if older:
        other, alpha = _behind("sub", other, older)
    y = _sub(*pair("sub", input, other if alpha == 1 else _times("sub", input, other, alpha), bools=False))
    return y if out is None else into("sub", out, y)


@method(in_place=True)
def mul(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
    """input × other, elementwise with broadcasting.

    >>> import kobai
    >>> kobai.mul(kobai.tensor([[1], [2]]), kobai.tensor([3, 4]))
    tensor([[3, 4],
            [6, 8]])
    """
    a, b = pair("mul", input, other)
    y = _mul(a, b) if isinstance(a, Tensor) else _mul(b, a)
    return y if out is None else into("mul", out, y)


@method(in_place=True)
def div(input: Any, other: Any, *, rounding_mode: str | None = None, out: Tensor | None = None) -> Tensor:
    """input ÷ other, elementwise; integers give floats. ``rounding_mode`` is None, ``"floor"`` or ``"trunc"``.

    The gradient of a rounded quotient is zero.

    >>> import kobai
    >>> kobai.div(kobai.tensor([4, -7]), 2), kobai.div(kobai.tensor([4, -7]), 2, rounding_mode="trunc")
    (tensor([ 2.0000, -3.5000]), tensor([ 2, -3]))
    """
    if out is not None:
        return into("div", out, div(input, other, rounding_mode=rounding_mode))
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode == "trunc":
        return _trunc_divide(*need_numbers("div", *pair("div", input, other)))
    if rounding_mode is not None:
        raise ValueError(f"div: expected rounding_mode None, 'floor' or 'trunc', got {rounding_mode!r}")
    return _div(*pair("div", input, other, to_float=True))


@method(in_place=True)
def pow(input: Any, exponent: Any) -> Tensor:
    """inputᵉˣᵖᵒⁿᵉⁿᵗ, elementwise with broadcasting.

    >>> import kobai
    >>> kobai.pow(kobai.tensor([1, 2, 3]), 2), kobai.pow(2, kobai.tensor([1, 2, 3]))
    (tensor([1, 4, 9]), tensor([2, 4, 8]))
    """
    a, b = pair("pow", input, exponent, wraps=False, tensors=1)
    if isinstance(a, Tensor):
        if isinstance(b, (int, float)) and b == 2:
            return _squared(a)
        if isinstance(b, int) and b < 0 and a._array.dtype.kind not in FLOATING:
            raise RuntimeError(f"pow: integers cannot be raised to the negative power {b}")
        need_numbers("pow", a, b)
        return _pow(a, held("pow", b, a._array.dtype))
    need_numbers("pow", a, b)
    return _pow(held("pow", a, b._array.dtype), b)


@method
def float_power(input: Any, exponent: Any) -> Tensor:
    """inputᵉˣᵖᵒⁿᵉⁿᵗ, computed in float64 whatever the operands are.

    >>> import kobai
    >>> kobai.float_power(kobai.tensor([2, 4]), -1)
    tensor([0.5000, 0.2500], dtype=kobai.float64)
    """
    a, b = (cast(x, np.float64) if isinstance(x, Tensor) else x for x in (input, exponent))
    return pow(*pair("float_power", a, b, tensors=1))


def _float_power(self: Tensor, exponent: Any) -> Tensor:
    """In-place form of :func:`float_power`, of float64 only: other dtypes cannot keep the result."""
    if self._array.dtype != np.float64:
        raise RuntimeError(f"float_power_: a result of float64 cannot be kept in a tensor of {self.dtype}")
    return in_place(self, float_power, exponent)


method(_float_power, name="float_power_")


@method
def maximum(input: Tensor, other: Tensor) -> Tensor:
    """Elementwise larger of two; the gradient goes to the larger one, half to each where they are equal.

    >>> import kobai
    >>> kobai.maximum(kobai.tensor([1, 5]), kobai.tensor([3, 2]))
    tensor([3, 5])
    """
    return _maximum(*pair("maximum", input, other, tensors=2))


@method
def minimum(input: Tensor, other: Tensor) -> Tensor:
    """Elementwise smaller of two; the gradient goes to the smaller one, half to each where they are equal.

    >>> import kobai
    >>> kobai.minimum(kobai.tensor([1, 5]), kobai.tensor([3, 2]))
    tensor([1, 2])
    """
    return _minimum(*pair("minimum", input, other, tensors=2))


@method(in_place=True)
def remainder(input: Any, other: Any) -> Tensor:
    """input − ⌊input ÷ other⌋ · other, exactly: the remainder with the divisor's sign, as Python's ``%``.

    Integers: RuntimeError for a divisor 0 (on the host, where it can be seen).

    >>> import kobai
    >>> kobai.remainder(kobai.tensor([7, -7]), 3)
    tensor([1, 2])
    """
    return _remainder(*need_numbers("remainder", *pair("remainder", input, other, tensors=1)))


@method(in_place=True)
def fmod(input: Tensor, other: Any) -> Tensor:
    """input − trunc(input ÷ other) · other, exactly: the remainder with the dividend's sign, as C's ``fmod``.

    Integers: RuntimeError for a divisor 0 (on the host, where it can be seen).

    >>> import kobai
    >>> kobai.fmod(kobai.tensor([7, -7]), 3)
    tensor([ 1, -1])
    """
    need_tensor("fmod", input)
    return _fmod(*need_numbers("fmod", *pair("fmod", input, other)))


@method(in_place=True)
def floor_divide(input: Any, other: Any) -> Tensor:
    """⌊input ÷ other⌋, elementwise. The floor is that of the exact quotient, not of a rounded one; the gradient is zero.

    Integers: RuntimeError for a divisor 0 (on the host, where it can be seen).

    >>> import kobai
    >>> kobai.floor_divide(kobai.tensor([7, -7]), 2)
    tensor([ 3, -4])
    """
    return _floor_divide(*need_numbers("floor_divide", *pair("floor_divide", input, other)))


@method(in_place=True)
def atan2(input: Tensor, other: Tensor) -> Tensor:
    """Angle in radians of the point (other, input), in (−π, π].

    >>> import kobai
    >>> kobai.atan2(kobai.tensor([0., 1.]), kobai.tensor([1., 0.]))
    tensor([0.0000, 1.5708])
    """
    return _atan2(*pair("atan2", input, other, to_float=True, tensors=2))


def raw(x: Any) -> Any:
    """The array of a Tensor; a number as it is."""
    return x._array if isinstance(x, Tensor) else x


subtract, multiply, divide, true_divide, arctan2 = sub, mul, div, div, atan2
for _alias in ("subtract", "multiply", "divide", "true_divide", "arctan2"):
    method(globals()[_alias], name=_alias, in_place=True)


for _symbol, _binary in (
    ("add", add),
    ("sub", sub),
    ("mul", mul),
    ("truediv", div),
    ("floordiv", floor_divide),
    ("mod", remainder),
    ("pow", pow),
):
    setattr(Tensor, f"__{_symbol}__", as_operator(_binary))
    setattr(Tensor, f"__r{_symbol}__", as_operator(_binary, reflected=True))
    setattr(Tensor, f"__i{_symbol}__", getattr(Tensor, f"{_binary.__name__}_"))
