"""Special functions and rarer elementwise ones: lgamma, digamma, erfinv, xlogy, sinc, hypot, logaddexp, copysign, gcd, ..."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kobai.core.primitive import method, primitive
from kobai.core.tape import as_array
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, HALVES
from kobai.engine import special
from kobai.ops import _formulas, _gamma
from kobai.ops._args import Samples, cast, drawn, need_one_dtype, need_tensor, pair, scalar, unbroadcast
from kobai.ops.arithmetic import mul, pow
from kobai.ops.gather import where
from kobai.ops.pointwise import unary
from kobai.refusals import truth_values
from kobai.xp import Array, quiet, xp_of

__all__ = [
    "copysign",
    "deg2rad",
    "digamma",
    "erfinv",
    "fmax",
    "fmin",
    "frexp",
    "gcd",
    "heaviside",
    "hypot",
    "lcm",
    "ldexp",
    "lgamma",
    "logaddexp",
    "logaddexp2",
    "nextafter",
    "positive",
    "rad2deg",
    "rsub",
    "sinc",
    "xlogy",
]

deg2rad = unary("deg2rad", "x π / 180.", lambda xp, x: x * (math.pi / 180), lambda xp, x: math.pi / 180)
rad2deg = unary("rad2deg", "x 180 / π.", lambda xp, x: x * (180 / math.pi), lambda xp, x: 180 / math.pi)
lgamma = unary(
    "lgamma", "log |Γ(x)|.", lambda xp, x: _gamma.lgamma(x), lambda xp, x: _gamma.digamma(x), domain=(0.5, 3.0)
)
digamma = unary(
    "digamma",
    "ψ(x) = Γ′(x) / Γ(x).",
    lambda xp, x: _gamma.digamma(x),
    lambda xp, x: _gamma.trigamma(x),
    domain=(0.5, 3.0),
)
erfinv = unary(
    "erfinv",
    "Inverse of erf: ±∞ at ±1, nan beyond.",
    lambda xp, x: _gamma.erfinv(x, special.erf),
    of_y=lambda xp, y: (math.sqrt(math.pi) / 2) * xp.exp(y * y),
    domain=(-0.9, 0.9),
)


@quiet
def _sinc_slope(xp: Any, x: Array) -> Array:
    """(cos z − sin z / z) / z · π of z = πx; for |z| < 1, where that loses digits, by its power series."""
    z = math.pi * x
    near = abs(z) < 1
    small, large = xp.where(near, z, 0), xp.where(near, 1, z)
    square, series = small * small, xp.zeros_like(z)
    for k in range(12, 0, -1):
        series = series * square + (-1) ** k * 2 * k / math.factorial(2 * k + 1)
    far = (xp.cos(large) - xp.sin(large) / large) / large
    return (math.pi * xp.where(near, series * small, far)).astype(x.dtype, copy=False)


def _sinc(xp: Any, x: Array) -> Array:
    turned = math.pi * xp.where(x == 0, 1e-20, x)
    return (xp.sin(turned) / turned).astype(x.dtype, copy=False)


sinc = unary("sinc", "sin(πx) / πx, 1 at 0.", _sinc, _sinc_slope)


def _two() -> Samples:
    return [drawn([(4, 3), (3,)], between=(0.5, 2)), drawn([(0, 3), (1, 3)], between=(0.5, 2))]


@primitive(sample=_two(), kind="elementwise")
def _fmax(a: Array, b: Array) -> Any:
    xp = xp_of(a)
    return xp.fmax(a, b), lambda dy: _chosen(dy, (a >= b) | xp.isnan(b), a, b)


@primitive(sample=_two(), kind="elementwise")
def _fmin(a: Array, b: Array) -> Any:
    xp = xp_of(a)
    return xp.fmin(a, b), lambda dy: _chosen(dy, (a <= b) | xp.isnan(b), a, b)


def _chosen(dy: Array, first: Array, a: Array, b: Array) -> Any:
    return (lambda: unbroadcast(dy * first, a.shape)), (lambda: unbroadcast(dy * ~first, b.shape))


@primitive(sample=_two(), kind="elementwise")
def _copysign(a: Array, b: Array) -> Any:
    xp = xp_of(a)
    return xp.copysign(a, b), lambda dy: (
        lambda: unbroadcast(dy * xp.sign(a) * xp.copysign(xp.ones_like(b), b), a.shape),
        lambda: xp.zeros(b.shape, dy.dtype),
    )


def _tensors(who: str, input: Any, other: Any, to_float: bool = False) -> tuple[Tensor, Tensor]:
    """Both operands, which must be tensors, with one dtype."""
    return pair(who, input, other, to_float, tensors=2)


def _operands(who: str, input: Any, other: Any) -> tuple[Any, ...]:
    """Both operands as float tensors; one of them may be a number."""
    a, b = pair(who, input, other, to_float=True, tensors=1)
    like = a if isinstance(a, Tensor) else b
    return tuple(x if isinstance(x, Tensor) else scalar(who, x, like) for x in (a, b))


def _floats(who: str, input: Any, other: Any) -> tuple[Tensor, Tensor]:
    """Both operands with one dtype; NotImplementedError if it is not a float's."""
    a, b = _tensors(who, input, other)
    if a._array.dtype.kind not in FLOATING:
        raise NotImplementedError(f"{who}: expected floats, got {input.dtype} and {other.dtype}; use .float() first")
    return a, b


@method
def fmax(input: Tensor, other: Tensor) -> Tensor:
    """Elementwise larger of two; where one is nan, the other.

    >>> import kobai
    >>> kobai.fmax(kobai.tensor([1., float("nan")]), kobai.tensor([2., 3.]))
    tensor([2., 3.])
    """
    return _fmax(*_tensors("fmax", input, other))


@method
def fmin(input: Tensor, other: Tensor) -> Tensor:
    """Elementwise smaller of two; where one is nan, the other.

    >>> import kobai
    >>> kobai.fmin(kobai.tensor([1., float("nan")]), kobai.tensor([2., 3.]))
    tensor([1., 3.])
    """
    return _fmin(*_tensors("fmin", input, other))


@method(in_place=True)
def copysign(input: Tensor, other: Any) -> Tensor:
    """|input| with the sign of ``other``.

    >>> import kobai
    >>> kobai.copysign(kobai.tensor([1., -2.]), kobai.tensor([-0.0, 5.]))
    tensor([-1.,  2.])
    """
    need_tensor("copysign", input)
    return _copysign(*_operands("copysign", input, other))


@method(in_place=True)
def xlogy(input: Any, other: Any) -> Tensor:
    """input · log(other), 0 where ``input`` is 0.

    >>> import kobai
    >>> kobai.xlogy(kobai.tensor([0.0, 2.0]), kobai.tensor([0.0, 1.0]))
    tensor([0., 0.])
    """
    return _xlogy(*_operands("xlogy", input, other))


@primitive(
    sample=[
        lambda rng: (rng.uniform(-2, 2, (4, 3)), rng.uniform(0.5, 2, (4, 3))),
        lambda rng: (rng.uniform(-2, 2, (4, 1)), rng.uniform(0.5, 2, (2, 1, 3))),
        lambda rng: (rng.uniform(-2, 2, (0, 3)), rng.uniform(0.5, 2, (3,))),
    ]
)
def _xlogy(a: Array, b: Array) -> Any:
    xp = xp_of(a)
    nothing = (a == 0) & (b == b)
    y = xp.where(nothing, 0, a * xp.log(xp.where(nothing, 1, b))).astype(a.dtype, copy=False)
    return y, lambda dy: (
        # ∂/∂a is log b at a = 0 too, but 0 where that is −∞ or NaN
        lambda: unbroadcast(dy * xp.where((a == 0) & (b <= 0), 0, xp.log(b)).astype(a.dtype), a.shape),
        lambda: unbroadcast(dy * a / b, b.shape),
    )


@method(in_place=True)
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 below 0, 1 above, ``values`` at 0. RuntimeError for tensors of different dtypes.

    >>> import kobai
    >>> kobai.heaviside(kobai.tensor([-1., 0., 2.]), kobai.tensor([0.5]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    need_tensor("heaviside", input, values)
    need_one_dtype("heaviside", input, values)
    return where(input == 0, values, cast(input > 0, input.dtype))  # type: ignore[no-any-return]


def _whole(name: str, doc: str, example: str) -> Any:
    def function(input: Tensor, other: Tensor) -> Tensor:
        a, b = _tensors(name, input, other)
        if a.dtype.kind not in "iu":
            raise RuntimeError(f"{name}: expected integers, got {a.dtype}")
        xp = xp_of(a._array)
        return Tensor._wrap(xp.asarray(getattr(xp, name)(a._array, b._array)))  # type: ignore[no-any-return]

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc}\n\n>>> import kobai\n>>> kobai.{name}(kobai.tensor([12, 5]), kobai.tensor(8))\n{example}"
    return method(function, name=name, in_place=True)


gcd = _whole("gcd", "Greatest common divisor of integers, elementwise.", "tensor([4, 1])")
lcm = _whole("lcm", "Least common multiple of integers, elementwise.", "tensor([24, 40])")


@method
def positive(input: Tensor) -> Tensor:
    """``input`` itself.

    >>> import kobai
    >>> kobai.positive(kobai.tensor([-1, 2]))
    tensor([-1,  2])
    """
    need_tensor("positive", input)
    if input._array.dtype.kind == "b":
        raise truth_values("positive", "bool")
    return input


@method
def rsub(input: Tensor, other: Any, *, alpha: float = 1) -> Tensor:
    """other − alpha · input.

    >>> import kobai
    >>> kobai.rsub(kobai.tensor([1, 2]), 10, alpha=3)
    tensor([7, 4])
    """
    need_tensor("rsub", input)
    return other - (input if alpha == 1 else input * alpha)  # type: ignore[no-any-return]


@primitive(sample=_two(), kind="elementwise")
def _hypot(a: Array, b: Array) -> Any:
    y = xp_of(a).hypot(a, b)
    return y, lambda dy: (lambda: unbroadcast(dy * a / y, a.shape), lambda: unbroadcast(dy * b / y, b.shape))


@method(in_place=True)
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """√(input² + other²) without overflow in between.

    >>> import kobai
    >>> kobai.hypot(kobai.tensor([3.]), kobai.tensor([4.]))
    tensor([5.])
    """
    return _hypot(*_floats("hypot", input, other))


@primitive(sample=[drawn([(4, 3), (3,)]), drawn([(0, 3), (1, 3)])], kind="elementwise")
def _logaddexp(a: Array, b: Array) -> Any:
    y = _formulas.logaddexp(a, b) if a.shape == b.shape else xp_of(a).logaddexp(a, b)
    return y, lambda dy: (
        lambda: unbroadcast(dy * _formulas.sigmoid(a - b), a.shape),
        lambda: unbroadcast(dy * _formulas.sigmoid(b - a), b.shape),
    )


@method
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """ln(eᵃ + eᵇ) without overflow.

    >>> import kobai
    >>> kobai.logaddexp(kobai.tensor([0., 1000.]), kobai.tensor([0., 0.]))
    tensor([6.9315e-01, 1.0000e+03])
    """
    return _logaddexp(*_floats("logaddexp", input, other))


@primitive(sample=[drawn([(4, 3), (3,)]), drawn([(0, 3), (1, 3)])], kind="elementwise")
def _logaddexp2(a: Array, b: Array) -> Any:
    y = xp_of(a).logaddexp2(a, b)
    return y, lambda dy: (
        lambda: unbroadcast(dy * _formulas.sigmoid((a - b) * math.log(2)), a.shape),
        lambda: unbroadcast(dy * _formulas.sigmoid((b - a) * math.log(2)), b.shape),
    )


@method
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log₂(2ᵃ + 2ᵇ) without overflow.

    >>> import kobai
    >>> kobai.logaddexp2(kobai.tensor([0., 1000.]), kobai.tensor([0., 0.]))
    tensor([   1., 1000.])
    """
    return _logaddexp2(*_floats("logaddexp2", input, other))


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), rng.integers(-3, 4, (3,))),
        lambda rng: (rng.normal(size=(1, 3)), rng.integers(-3, 4, (0, 3))),
    ]
)
def _ldexp(x: Array, exponent: Array) -> Any:
    xp, exponent = xp_of(x), exponent.astype(np.int32)
    return xp.ldexp(x, exponent), lambda dy: (lambda: unbroadcast(xp.ldexp(dy, exponent), x.shape), None)


@method(in_place=True)
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input · 2ᵒᵗʰᵉʳ; integers are converted to floats first.

    >>> import kobai
    >>> kobai.ldexp(kobai.tensor([1., 3.]), kobai.tensor([4, -1]))
    tensor([16.0000,  1.5000])
    """
    need_tensor("ldexp", input, other)
    if input._array.dtype.kind in FLOATING and other._array.dtype.kind not in FLOATING:
        if other._array.dtype.kind == "b":
            raise truth_values("ldexp", "bool")
        return _ldexp(input, other)
    return mul(input, pow(2.0, other))


@primitive(sample=[lambda rng: (rng.uniform(0.6, 0.9, (4, 3)) * 2.0 ** rng.integers(-3, 4, (4, 3)),), drawn((0, 3))])
def _mantissa(x: Array) -> Any:
    mantissa, exponent = xp_of(x).frexp(x)
    return mantissa, lambda dy: (lambda: xp_of(x).ldexp(dy, -exponent),)


class Frexp(NamedTuple):
    """What :func:`frexp` returns."""

    mantissa: Tensor
    exponent: Tensor


@method
def frexp(input: Tensor) -> Frexp:
    """x = mantissa · 2ᵉˣᵖᵒⁿᵉⁿᵗ with ½ ≤ |mantissa| < 1 and a whole exponent (int32).

    >>> import kobai
    >>> kobai.frexp(kobai.tensor([6., -0.5]))
    Frexp(mantissa=tensor([ 0.7500, -0.5000]), exponent=tensor([3, 0], dtype=kobai.int32))
    """
    need_tensor("frexp", input)
    if input._array.dtype.kind not in FLOATING:
        raise RuntimeError(f"frexp: expected floats, got {input.dtype}; use .float() first")
    array = input._array.astype(np.float32) if input._array.dtype in HALVES else input._array
    exponent = as_array(xp_of(array).frexp(array)[1]).astype(np.int32, copy=False)
    return Frexp(_mantissa(input), Tensor._wrap(exponent))


@primitive(sample=_two(), kind="elementwise", half="own")
def _nextafter(a: Array, b: Array) -> Any:
    xp, shape = xp_of(a), b.shape
    return xp.nextafter(a, b), lambda dy: (
        lambda: unbroadcast(dy * (a != b), a.shape),
        lambda: xp.zeros(shape, dy.dtype),
    )


@method(in_place=True)
def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The next number of the dtype after ``input`` on the way to ``other``; the gradient is that of ``input``.

    >>> import kobai
    >>> kobai.nextafter(kobai.tensor([1.], dtype=kobai.float64), kobai.tensor([2.], dtype=kobai.float64)) - 1
    tensor([2.2204e-16], dtype=kobai.float64)
    """
    return _nextafter(*_floats("nextafter", input, other))
