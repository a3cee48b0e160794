"""Modified Bessel functions of the first kind, scaled by e^−|x|, which NumPy has only in part. Computed in float64.

Abramowitz, Stegun, *Handbook of Mathematical Functions*: the power series 9.6.10 for |x| ≤ 20, whose terms are all positive,
and the asymptotic one 9.7.1 beyond.
"""

from __future__ import annotations

import math

import numpy as np

from kobai.engine.special import on_tape
from kobai.xp import Array, quiet, xp_of

NEAR = 20.0


@on_tape("i0e")
def zeroth(x: Array) -> Array:
    """e^−|x| I₀(x)."""
    return _scaled(x, 0, 0)


@on_tape("i1e")
def first(x: Array) -> Array:
    """e^−|x| I₁(x)."""
    return _scaled(x, 1, 0)


def first_by_x(x: Array) -> Array:
    """e^−|x| I₁(x) / x, ½ at 0."""
    return _scaled(x, 1, 1)


@quiet
def _scaled(x: Array, order: int, power: int) -> Array:
    """e^−|x| I_n(x) / xᵖ for n and p of 0 or 1. Its steps have its derivatives: near 0 it is e^−|x| times a series in x²."""
    xp, z = xp_of(x), x.astype(np.float64)
    size = xp.abs(z)
    small = size <= NEAR
    s, far = xp.where(small, z, 1.0), xp.where(small, NEAR, size)
    quarter = s * s / 4
    term = total = xp.ones_like(s) if not order else xp.full_like(s, 0.5) if power else s / 2
    for k in range(1, 60):
        term = term * quarter / (k * (k + order))
        total = total + term
    near = total * xp.exp(-xp.abs(s))
    term = series = xp.ones_like(far)
    for k in range(1, 30):
        term = term * -(4 * order * order - (2 * k - 1) ** 2) / (8 * k * far)
        series = series + term
    far = xp.where(xp.isinf(size), 0.0, series / xp.sqrt(2 * math.pi * far) / (far if power else 1.0))
    far = xp.sign(z) * far if order > power else far
    return xp.where(z != z, z, xp.where(small, near, far)).astype(x.dtype, copy=False)
