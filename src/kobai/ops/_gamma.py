"""The gamma function's logarithm and that one's derivatives, and the inverse of erf, which NumPy lacks.

For large x the asymptotic (Stirling's) series holds; smaller x are moved up by Γ(x + 1) = x Γ(x), negative ones reflected by
Γ(x) Γ(1 − x) = π / sin πx. Abramowitz, Stegun, *Handbook of Mathematical Functions*, 6.1 and 6.3. Computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.engine.dispatch import HOST_TYPES, launch
from kobai.engine.special import erfc, on_tape
from kobai.xp import Array, quiet, xp_of

FAR = 10.0  # from here on the series below are exact to float64's rounding
# Bernoulli numbers B₂, B₄, ..., B₁₆
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


def _moved_up(xp: Any, x: Array, term: Callable[[Array], Array]) -> tuple[Array, Array]:
    """x + n ≥ FAR, and the sum of term(x), term(x + 1), ..., term(x + n − 1)."""
    total = xp.zeros_like(x)
    for _ in range(int(FAR)):
        small = x < FAR
        total = total + xp.where(small, term(xp.where(small, x, xp.ones_like(x))), xp.zeros_like(x))
        x = xp.where(small, x + 1, x)
    return x, total


def _by_reflection(x: Array, right: Callable[[Any, Array], Array], left: Callable[[Any, Array, Array], Array]) -> Array:
    """right(x) for x > 0; for the others left(x, right(1 − x)). In float64, the result in the dtype of x."""
    xp = xp_of(x)
    z = x.astype(np.float64)
    negative = z <= 0
    value = right(xp, xp.where(negative, 1 - z, z))
    return xp.where(negative, left(xp, z, value), value).astype(x.dtype)


def _series(xp: Any, z: Array, coefficients: list[float]) -> Array:
    inverse = 1 / (z * z)
    total = xp.zeros_like(z)
    for c in reversed(coefficients):
        total = total * inverse + c
    return total


@on_tape("gammaln")
def lgamma(x: Array) -> Array:
    """log |Γ(x)|: (z − ½) log z − z + ½ log 2π + Σ B₂ₖ / (2k (2k − 1) z²ᵏ⁻¹); ∞ at 0, −1, −2, ..."""
    coefficients = [b / (2 * k * (2 * k - 1)) for k, b in enumerate(BERNOULLI, 1)]

    def right(xp: Any, z: Array) -> Array:
        z, logs = _moved_up(xp, z, xp.log)
        value = (z - 0.5) * xp.log(z) - z + 0.5 * math.log(2 * math.pi) + _series(xp, z, coefficients) / z
        return xp.where(xp.isinf(z), z, value) - logs

    def left(xp: Any, z: Array, mirrored: Array) -> Array:
        part = z - xp.floor(z)  # sin πz = ± sin π(z − ⌊z⌋)
        value = math.log(math.pi) - xp.log(xp.sin(math.pi * part)) - mirrored
        return xp.where(xp.isinf(z), xp.inf, value)

    return _by_reflection(x, right, left)


@on_tape("psi")
def digamma(x: Array) -> Array:
    """ψ(x): log z − 1/2z − Σ B₂ₖ / (2k z²ᵏ)."""
    coefficients = [b / (2 * k) for k, b in enumerate(BERNOULLI, 1)]

    def right(xp: Any, z: Array) -> Array:
        z, inverses = _moved_up(xp, z, lambda t: 1 / t)
        return xp.log(z) - 0.5 / z - _series(xp, z, coefficients) / (z * z) - inverses

    def left(xp: Any, z: Array, mirrored: Array) -> Array:
        part = z - xp.floor(z)
        slope = math.pi / xp.tan(math.pi * part)
        return xp.where(part == 0, xp.where(z == 0, xp.copysign(xp.inf, -z), xp.nan), mirrored - slope)

    return _by_reflection(x, right, left)


@on_tape("polygamma", 1)
def trigamma(x: Array) -> Array:
    """ψ′(x): 1/z + 1/2z² + Σ B₂ₖ / z²ᵏ⁺¹."""

    def right(xp: Any, z: Array) -> Array:
        z, squares = _moved_up(xp, z, lambda t: 1 / (t * t))
        return 1 / z + 0.5 / (z * z) + _series(xp, z, list(BERNOULLI)) / (z * z * z) + squares

    def left(xp: Any, z: Array, mirrored: Array) -> Array:
        sine = xp.sin(math.pi * (z - xp.floor(z)))
        return (math.pi / sine) ** 2 - mirrored

    return _by_reflection(x, right, left)


def erfinv(x: Array, erf: Callable[[Array], Array]) -> Array:
    """y with erf(y) = x: Winitzki's approximation (2008), refined by Halley's method in float64."""
    xp = xp_of(x)
    z = x.astype(np.float64)
    a = 0.147
    inside = xp.abs(z) < 1
    safe = xp.where(inside, z, xp.zeros_like(z))
    logarithm = xp.log1p(-safe * safe)
    half = 2 / (math.pi * a) + logarithm / 2
    y = xp.sign(safe) * xp.sqrt(xp.sqrt(half * half - logarithm / a) - half)
    for _ in range(4):
        error = (erf(y) - safe) / (2 / math.sqrt(math.pi) * xp.exp(-y * y))
        y = y - error / (1 + y * error)
    edge = xp.where(xp.abs(z) == 1, xp.copysign(xp.inf, z), xp.nan)
    return xp.where(inside, y, edge).astype(x.dtype)


def _on_host(function: Any, a: Array, x: Array, *rest: Any) -> Array:
    """The function of two arrays; on the host as one call, which a captured step repeats with all its looking at values."""
    if type(x) not in HOST_TYPES:
        return function(a, x, *rest)
    out = xp_of(x).empty(np.broadcast_shapes(a.shape, x.shape), x.dtype)
    launch(_fill, out, function, a, x, *rest)
    return out


def _fill(out: Array, function: Any, *args: Any) -> None:
    out[...] = function(*args)


@on_tape("zeta")
def zeta(s: Array, q: Array) -> Array:
    """:func:`_zeta`."""
    return _on_host(_zeta, s, q)


def incomplete(a: Array, x: Array, upper: bool) -> Array:
    """:func:`_incomplete`."""
    return _on_host(_incomplete, a, x, upper)


@quiet
def _zeta(s: Array, q: Array) -> Array:
    """ζ(s, q) = Σ (q + k)^−s by the formula of Euler and Maclaurin (Abramowitz, Stegun, 23.1.30), for s > 1.

    ∞ for s = 1 and for q = 0, −1, ...; nan for s < 1, and for a negative q unless s is an integer. q reaches down to −1000, on
    a device to −20.
    """
    xp = xp_of(q)
    exponent, x = s.astype(np.float64), q.astype(np.float64)
    total = xp.zeros(xp.broadcast_arrays(exponent, x)[0].shape)
    low = min(max(int(-x.min()), 20), 1000) if type(q) is np.ndarray and x.size and np.isfinite(x).all() else 20
    for _ in range(low + 10):
        total = total + xp.power(x, -exponent)
        x = x + 1
    power = xp.power(x, -exponent)
    total = total + x * power / (exponent - 1) + 0.5 * power
    factor = exponent * power / x
    for k, b in enumerate(BERNOULLI, 1):
        total = total + factor * b / math.factorial(2 * k)
        factor = factor * (exponent + 2 * k - 1) * (exponent + 2 * k) / (x * x)
    whole_q, whole_s = xp.floor(q) == q, xp.floor(exponent) == exponent
    total = xp.where((q <= 0) & ~whole_q & (~whole_s | (q < -low - 1)), xp.nan, total)
    total = xp.where((q <= 0) & whole_q, xp.inf, total)
    return xp.where(exponent == 1, xp.inf, xp.where(exponent < 1, xp.nan, total)).astype(q.dtype, copy=False)


SLOW = 1e4
"""From here on neither series nor fraction near x = a ends within a thousand steps; the expansion for large a is exact."""

# Temme's c₀, c₁, c₂ as series in η (DLMF 8.12)
TEMME = (
    (-1 / 3, 1 / 12, -2 / 135, 1 / 864, 1 / 2835, -139 / 777600, 1 / 25515, -571 / 261273600, -281 / 151559100),
    (-1 / 540, -1 / 288, 1 / 378, -77 / 77760, 1 / 4860),
    (25 / 6048, -139 / 51840, 1 / 1296),
)


def _excess(xp: Any, m: Array) -> Array:
    """m − log(1 + m), near 0 by its series m²/2 − m³/3 + ..., as the difference would lose its digits."""
    near = xp.where(xp.abs(m) < 0.01, m, 0.0)
    total = xp.zeros_like(m)
    for k in range(11, 1, -1):
        total = total * near + (-1) ** k / k
    return xp.where(xp.abs(m) < 0.01, near * near * total, m - xp.log1p(m))


def density(a: Array, x: Array) -> Array:
    """xᵃ e⁻ˣ / Γ(a) in float64, for a, x > 0. Stirling's series for Γ(a) keeps its digits where a is large."""
    xp = xp_of(x)
    stirling = _series(xp, a, [c / (2 * k * (2 * k - 1)) for k, c in enumerate(BERNOULLI, 1)]) / a
    large = xp.exp(-a * _excess(xp, (x - a) / a) - stirling) * xp.sqrt(a / (2 * math.pi))
    return xp.where(a > FAR, large, xp.exp(a * xp.log(x) - x - lgamma(a)))


def _uniformly(a: Array, x: Array, upper: bool) -> Array:
    """P or Q for large a: Q = ½ erfc(η √(a/2)) + R, ½ η² = x/a − 1 − log(x/a), R = e^(−a η²/2) Σ cₖ(η) a⁻ᵏ / √(2π a).

    Temme, *The asymptotic expansion of the incomplete gamma functions*, SIAM J. Math. Anal. 10, 1979.
    """
    xp = xp_of(x)
    m = (x - a) / a
    excess = _excess(xp, m)
    eta = xp.copysign(xp.sqrt(2 * excess), m)
    near = xp.clip(eta, -1, 1)  # beyond, e^(−a η²/2) is 0
    c0, c1, c2 = (sum(c * xp.power(near, n) for n, c in enumerate(row)) for row in TEMME)
    rest = xp.exp(-a * excess) * (c0 + (c1 + c2 / a) / a) / xp.sqrt(2 * math.pi * a)
    z = eta * xp.sqrt(a / 2)
    return 0.5 * erfc(z) + rest if upper else 0.5 * erfc(-z) - rest


@quiet
def _incomplete(a: Array, x: Array, upper: bool) -> Array:
    """P(a, x) = ∫₀ˣ tᵃ⁻¹ e⁻ᵗ dt / Γ(a), or Q = 1 − P: for x < a + 1 by its series, else by the continued fraction of Q.

    Press et al., *Numerical Recipes*, 6.2. Both need about 9 √a steps near x = a; for a > 10⁴ see :func:`_uniformly`. On a
    device always 1000 steps are made.
    """
    xp = xp_of(x)
    a, z = (v.astype(np.float64) for v in (a, x))
    a, z = xp.broadcast_arrays(a, z)
    fine = (a > 0) & (z > 0) & xp.isfinite(a) & xp.isfinite(z)
    far = fine & (a > SLOW)
    b, y = xp.where(fine & ~far, a, 1.0), xp.where(fine & ~far, z, 1.0)
    front = density(b, y)
    series = y < b + 1
    u = xp.where(series, y, 0.5)
    term = total = 1 / b
    tiny = 1e-300
    low = y + 1 - b
    low = xp.where(xp.abs(low) < tiny, tiny, low)
    c, d = xp.full(b.shape, 1 / tiny), 1 / low
    fraction = d
    host = type(x) is np.ndarray
    for n in range(1, 1000):
        term = term * u / (b + n)
        total = total + term
        numerator = -n * (n - b)
        low = low + 2
        d = numerator * d + low
        d = 1 / xp.where(xp.abs(d) < tiny, tiny, d)
        c = low + numerator / c
        c = xp.where(xp.abs(c) < tiny, tiny, c)
        fraction = fraction * (d * c)
        if host and n % 16 == 0:
            done = xp.where(series, term <= 1e-17 * total, xp.abs(d * c - 1) < 1e-15)
            if done.all():
                break
    p = xp.where(series, front * total, 1 - front * fraction)
    q = xp.where(series, 1 - front * total, front * fraction)
    found = xp.where(far, _uniformly(xp.where(far, a, 1.0), xp.where(far, z, 1.0), upper), q if upper else p)
    nothing, everything = (1.0, 0.0) if upper else (0.0, 1.0)
    found = xp.where(xp.isinf(z), everything, found)
    found = xp.where(xp.isinf(a), xp.where(xp.isinf(z), xp.nan, nothing), found)
    found = xp.where(a != a, xp.nan, xp.where((z != z) & ~xp.isinf(a), xp.nan, found))
    found = xp.where(z == 0, nothing, found)
    found = xp.where(a == 0, xp.where(z > 0, everything, xp.nan), found)
    bad = (a < 0) | (z < 0)
    return xp.where(bad, xp.nan, found).astype(x.dtype, copy=False)
