"""Special functions of statistics: of the normal distribution, incomplete gamma, Bessel, zeta. Numbers computed in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.engine import special
from kobai.ops import _bessel, _gamma
from kobai.ops._args import as_float, drawn, into, need, need_tensor, pair, scalar, unbroadcast
from kobai.ops.pointwise import samples
from kobai.ops.special import lgamma
from kobai.xp import Array, quiet, xp_of

__all__ = ["i0", "igamma", "igammac", "mvlgamma", "polygamma"]

Row = Callable[..., Tensor]

ROOT_2PI, ROOT_HALF = math.sqrt(2 * math.pi), math.sqrt(0.5)


def _row(
    name: str,
    doc: str,
    example: tuple[str, str],
    f: Callable[[Any, Array], Array],
    slope: Callable[[Any, Array], Array],
    domain: tuple[float, float] = (-2.0, 2.0),
) -> Row:
    """A function of one number that PyTorch has in ``special``: its value and its derivative in the argument."""

    def forward(x: Array) -> Any:
        xp = xp_of(x)
        return f(xp, x).astype(x.dtype, copy=False), lambda dy: (dy * slope(xp, x).astype(x.dtype, copy=False),)

    forward.__name__ = f"_{name}"
    forward.__module__ = __name__
    recorded = primitive(sample=samples(*domain), kind="elementwise")(quiet(forward))

    def function(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        return into(name, out, recorded(as_float(name, input)))

    function.__name__ = function.__qualname__ = name
    where = "" if name in __all__ else "special."
    function.__doc__ = (
        f"{doc} Elementwise; integers are converted to floats first.\n\n"
        f">>> import kobai\n>>> kobai.{where}{name}(kobai.tensor({example[0]}))\ntensor({example[1]})"
    )
    return function


i0e = _row(
    "i0e",
    "e^−|x| I₀(x), I₀ the modified Bessel function of order 0.",
    ("[0., 1.]", "[1.0000, 0.4658]"),
    lambda xp, x: _bessel.zeroth(x),
    lambda xp, x: _bessel.first(x) - xp.sign(x) * _bessel.zeroth(x),
)
i1e = _row(
    "i1e",
    "e^−|x| I₁(x), I₁ the modified Bessel function of order 1.",
    ("[0., 1.]", "[0.0000, 0.2079]"),
    lambda xp, x: _bessel.first(x),
    lambda xp, x: _bessel.zeroth(x) - _bessel.first_by_x(x) - xp.sign(x) * _bessel.first(x),
)
i0 = method(
    _row(
        "i0",
        "Modified Bessel function of order 0.",
        ("[0., 1.]", "[1.0000, 1.2661]"),
        lambda xp, x: _bessel.zeroth(x) * xp.exp(xp.abs(x)),
        lambda xp, x: _bessel.first(x) * xp.exp(xp.abs(x)),
    ),
    in_place=True,
)
i1 = _row(
    "i1",
    "Modified Bessel function of order 1.",
    ("[0., 1.]", "[0.0000, 0.5652]"),
    lambda xp, x: _bessel.first(x) * xp.exp(xp.abs(x)),
    lambda xp, x: (_bessel.zeroth(x) - _bessel.first_by_x(x)) * xp.exp(xp.abs(x)),
)
erfcx = _row(
    "erfcx",
    "e^(x²) erfc(x), which does not underflow for large x.",
    ("[0., 100.]", "[1.0000, 0.0056]"),
    lambda xp, x: special.erfcx(x),
    lambda xp, x: 2 * x * special.erfcx(x) - 2 / math.sqrt(math.pi),
)
ndtr = _row(
    "ndtr",
    "Φ(x), the probability that a standard normal number is at most x.",
    ("[-1., 0.]", "[0.1587, 0.5000]"),
    lambda xp, x: 0.5 * special.erfc(-x * ROOT_HALF),
    lambda xp, x: xp.exp(-0.5 * x * x) / ROOT_2PI,
)


def _log_ndtr(xp: Any, x: Array) -> Array:
    z = x.astype(np.float64)
    left = xp.clip(z, None, -1)
    tail = xp.log(special.erfcx(-left * ROOT_HALF) / 2) - 0.5 * left * left
    return xp.where(z < -1, tail, xp.log1p(-0.5 * special.erfc(xp.clip(z, -1, None) * ROOT_HALF)))


log_ndtr = _row(
    "log_ndtr",
    "log Φ(x), also far in the left tail.",
    ("[-10., 0.]", "[-53.2313,  -0.6931]"),
    _log_ndtr,
    lambda xp, x: 2 / (ROOT_2PI * special.erfcx(-x.astype(np.float64) * ROOT_HALF)),
)


@special.on_tape("ndtri")
def _ndtri(p: Array) -> Array:
    """By Newton's method on log Φ, from √(−2 log p) on; of p > ½ by symmetry."""
    xp = xp_of(p)
    z = p.astype(np.float64)
    small = xp.minimum(z, 1 - z)
    inside = small > 0
    log_p = xp.log(xp.where(inside, small, 0.5))
    y = -xp.sqrt(xp.maximum(-2 * log_p - 1.3, 0.0))
    for _ in range(8):
        y = y - (_log_ndtr(xp, y) - log_p) * ROOT_2PI * special.erfcx(-y * ROOT_HALF) / 2
    found = xp.where(z > 0.5, -y, xp.where(z == 0.5, 0.0, y))
    edge = xp.where(z == 0, -xp.inf, xp.where(z == 1, xp.inf, xp.nan))
    return xp.where(inside, found, edge)


ndtri = _row(
    "ndtri",
    "The x with Φ(x) = p; ±∞ at 1 and 0, nan beyond.",
    ("[0.025, 0.975]", "[-1.9600,  1.9600]"),
    lambda xp, p: _ndtri(p),
    lambda xp, p: ROOT_2PI * xp.exp(0.5 * _ndtri(p) ** 2),
    domain=(0.1, 0.9),
)
entr = _row(
    "entr",
    "−x log x, 0 at 0, −∞ for x < 0.",
    ("[0., 0.5]", "[0.0000, 0.3466]"),
    lambda xp, x: xp.where(x > 0, -x * xp.log(xp.where(x > 0, x, 1)), xp.where(x == 0, 0, xp.where(x < 0, -xp.inf, x))),
    lambda xp, x: -xp.log(x) - 1,
    domain=(0.5, 2.0),
)


# --- of two numbers ---------------------------------------------------------------------------------------------------


@primitive(sample=[lambda rng: (rng.uniform(-2, 2, (4, 3)), rng.uniform(-0.5, 2, (3,))), drawn([(0, 3), (1, 3)])])
@quiet
def _xlog1py(a: Array, b: Array) -> Any:
    xp = xp_of(a)
    nothing = (a == 0) & (b == b)
    y = xp.where(nothing, 0, a * xp.log1p(xp.where(nothing, 0, b))).astype(a.dtype, copy=False)
    return y, lambda dy: (
        lambda: unbroadcast(dy * xp.where((a == 0) & (b <= -1), 0, xp.log1p(b)).astype(a.dtype), a.shape),
        lambda: unbroadcast(dy * a / (b + 1), b.shape),
    )


def _no_gradient(who: str) -> Any:
    def gradient() -> Any:
        raise NotImplementedError(f"{who}: the gradient of the first argument is not implemented")

    return gradient


def _of_shape(rng: np.random.Generator) -> Any:
    return rng.integers(1, 5, (4, 3)), rng.uniform(0.5, 4, (4, 3))


@primitive(sample=[_of_shape])
@quiet
def _incomplete_gamma(a: Array, x: Array, upper: bool = False) -> Any:
    def dx(dy: Array) -> Array:
        b, z = a.astype(np.float64), x.astype(np.float64)
        density = _gamma.density(b, z) / z
        return unbroadcast((dy * (-density if upper else density)).astype(x.dtype), x.shape)

    value = _gamma.incomplete(a, x, upper)
    return value, lambda dy: (_no_gradient("gammaincc" if upper else "gammainc"), lambda: dx(dy), None)


@primitive(sample=[lambda rng: (np.array([[2], [4]]), rng.uniform(0.5, 4, (2, 3)))])
@quiet
def _zeta(s: Array, q: Array) -> Any:
    def dq(dy: Array) -> Array:
        return unbroadcast((dy * -s * _gamma.zeta(s + 1, q.astype(np.float64))).astype(q.dtype), q.shape)

    return _gamma.zeta(s, q), lambda dy: (_no_gradient("zeta"), lambda: dq(dy))


def _two(who: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    first, second = pair(who, a, b, to_float=True, tensors=1)
    like = first if isinstance(first, Tensor) else second
    return tuple(x if isinstance(x, Tensor) else scalar(who, x, like) for x in (first, second))  # type: ignore[return-value]


def _shape_and_end(who: str, input: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    need_tensor(who, input, other)
    if input._array.dtype.kind not in FLOATING and other._array.dtype.kind not in FLOATING:
        raise NotImplementedError(f"{who}: expected a tensor of floats, got {input.dtype} and {other.dtype}")
    return _two(who, input, other)


def xlog1py(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
    """input · log(1 + other), 0 where ``input`` is 0; one of them may be a number.

    >>> import kobai
    >>> kobai.special.xlog1py(kobai.tensor([0.0, 2.0]), kobai.tensor([-1.0, 1.0]))
    tensor([0.0000, 1.3863])
    """
    return into("xlog1py", out, _xlog1py(*_two("xlog1py", input, other)))


def zeta(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
    """Hurwitz's ζ(s, q) = Σ (q + k)^−s, k = 0, 1, ..., s = ``input`` > 1, q = ``other``; ∞ for s = 1, nan below.

    For negative q only of an integer s, and down to −1000, on a device −20. Of s there is no gradient.

    >>> import kobai
    >>> kobai.special.zeta(kobai.tensor([2.0, 3.0]), 1.0)
    tensor([1.6449, 1.2021])
    """
    return into("zeta", out, _zeta(*_two("zeta", input, other)))


@method(in_place=True)
def igamma(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """P(a, x) = ∫₀ˣ tᵃ⁻¹ e⁻ᵗ dt / Γ(a), a = ``input`` ≥ 0, x = ``other`` ≥ 0; nan beyond. Of a there is no gradient.

    >>> import kobai
    >>> kobai.igamma(kobai.tensor([1.0, 2.0]), kobai.tensor([1.0, 1.0]))
    tensor([0.6321, 0.2642])
    """
    return into("igamma", out, _incomplete_gamma(*_shape_and_end("igamma", input, other)))


@method(in_place=True)
def igammac(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Q(a, x) = 1 − P(a, x), see :func:`kobai.igamma`, with its digits also where it is small.

    >>> import kobai
    >>> kobai.igammac(kobai.tensor([1.0, 2.0]), kobai.tensor([1.0, 1.0]))
    tensor([0.3679, 0.7358])
    """
    return into("igammac", out, _incomplete_gamma(*_shape_and_end("igammac", input, other), True))


def polygamma(n: int, input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """ψ⁽ⁿ⁾(x) = (−1)ⁿ⁺¹ n! ζ(n + 1, x), the derivative of order n of :func:`kobai.digamma`; for n > 1 from x > −1000 on.

    >>> import kobai
    >>> kobai.polygamma(1, kobai.tensor([1.0, 0.5]))
    tensor([1.6449, 4.9348])
    """
    need("polygamma", isinstance(n, int) and n >= 0, "an integer n >= 0", repr(n))
    return into("polygamma", out, _polygamma(as_float("polygamma", input), n))


@primitive(sample=[lambda rng: (rng.uniform(0.5, 3, (4, 3)), 0), lambda rng: (rng.uniform(0.5, 3, (4, 3)), 2)])
@quiet
def _polygamma(x: Array, n: int) -> Any:
    return _derivative(x, n), lambda dy: (lambda: dy * _derivative(x, n + 1), None)


def _derivative(x: Array, n: int) -> Array:
    if n < 2:
        return (_gamma.digamma, _gamma.trigamma)[n](x)
    factor = (-1) ** (n + 1) * float(math.factorial(n))
    s = xp_of(x).full((), n + 1.0)
    return (factor * _gamma.zeta(s, x.astype(np.float64))).astype(x.dtype)


def _of_order(self: Tensor, n: int) -> Tensor:
    """``polygamma(n, self)``."""
    return polygamma(n, self)


method(_of_order, name="polygamma", in_place=True)


@method(in_place=True)
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """log Γ_p(a) = p (p − 1)/4 log π + Σ log Γ(a + (1 − i)/2), i = 1 … p, the multivariate gamma function.

    >>> import kobai
    >>> kobai.mvlgamma(kobai.tensor([2.0]), 2)
    tensor([0.4516])
    """
    need("mvlgamma", isinstance(p, int) and p >= 1, "an integer p >= 1", repr(p))
    a = as_float("mvlgamma", input)
    total = lgamma(a) + p * (p - 1) / 4 * math.log(math.pi)
    for i in range(1, p):
        total = total + lgamma(a - i / 2)
    return total
