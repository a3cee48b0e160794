"""The gamma function's logarithm and that one's derivatives, and the inverse of erf, which NumPy lacks.

For large x the asymptotic (Stirling's) series holds; smaller x are moved up by Γ(x + 1) = x Γ(x), negative ones reflected by
Γ(x) Γ(1 − x) = π / sin πx. Abramowitz, Stegun, *Handbook of Mathematical Functions*, 6.1 and 6.3. Computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.xp import Array, xp_of

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
