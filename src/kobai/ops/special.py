"""Special functions and rarer elementwise ones: lgamma, digamma, erfinv, xlogy, sinc, hypot, logaddexp, copysign, gcd, ..."""

from __future__ import annotations

import math
from typing import Any

from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.engine import special
from kobai.ops import _formulas, _gamma
from kobai.ops._args import Samples, cast, drawn, need_tensor, pair, scalar, unbroadcast
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
    "gcd",
    "heaviside",
    "hypot",
    "lcm",
    "lgamma",
    "logaddexp",
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


def _sinc_slope(xp: Any, x: Array) -> Array:
    safe = xp.where(x == 0, xp.ones_like(x), x)
    return xp.where(x == 0, xp.zeros_like(x), (xp.cos(math.pi * safe) - xp.sinc(safe)) / safe)


sinc = unary("sinc", "sin(πx) / πx, 1 at 0.", quiet(lambda xp, x: xp.sinc(x)), _sinc_slope)


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


def _pair(who: str, input: Any, other: Any, to_float: bool = False) -> tuple[Any, Any]:
    need_tensor(who, input)
    a, b = pair(who, input, other, to_float)
    return a, b if isinstance(b, Tensor) else scalar(who, b, a)


@method
def fmax(input: Tensor, other: Tensor) -> Tensor:
    """Elementwise larger of two; where one is nan, the other.

    >>> import kobai
    >>> kobai.fmax(kobai.tensor([1., float("nan")]), kobai.tensor([2., 3.]))
    tensor([2., 3.])
    """
    return _fmax(*_pair("fmax", input, other))


@method
def fmin(input: Tensor, other: Tensor) -> Tensor:
    """Elementwise smaller of two; where one is nan, the other.

    >>> import kobai
    >>> kobai.fmin(kobai.tensor([1., float("nan")]), kobai.tensor([2., 3.]))
    tensor([1., 3.])
    """
    return _fmin(*_pair("fmin", input, other))


@method(in_place=True)
def copysign(input: Tensor, other: Any) -> Tensor:
    """|input| with the sign of ``other``.

    >>> import kobai
    >>> kobai.copysign(kobai.tensor([1., -2.]), kobai.tensor([-0.0, 5.]))
    tensor([-1.,  2.])
    """
    return _copysign(*_pair("copysign", input, other, to_float=True))


@method(in_place=True)
def xlogy(input: Tensor, other: Any) -> Tensor:
    """input · log(other), 0 where ``input`` is 0.

    >>> import kobai
    >>> kobai.xlogy(kobai.tensor([0.0, 2.0]), kobai.tensor([0.0, 1.0]))
    tensor([0., 0.])
    """
    return _xlogy(*_pair("xlogy", input, other, to_float=True))


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
    """0 below 0, 1 above, ``values`` at 0.

    >>> import kobai
    >>> kobai.heaviside(kobai.tensor([-1., 0., 2.]), kobai.tensor([0.5]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    a, b = _pair("heaviside", input, values)
    return where(a == 0, b, cast(a > 0, a.dtype))  # type: ignore[no-any-return]


def _whole(name: str, doc: str, example: str) -> Any:
    def function(input: Tensor, other: Tensor) -> Tensor:
        a, b = _pair(name, input, other)
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
    return _hypot(*_pair("hypot", input, other, to_float=True))


@primitive(sample=[drawn([(4, 3), (3,)]), drawn([(0, 3), (1, 3)])], kind="elementwise")
def _logaddexp(a: Array, b: Array) -> Any:
    y = xp_of(a).logaddexp(a, b)
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
    need_tensor("logaddexp", input, other)
    return _logaddexp(*pair("logaddexp", input, other, to_float=True))
