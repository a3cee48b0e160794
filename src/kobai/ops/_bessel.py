"""Modified Bessel functions of the first kind, scaled by e^−|x|, which NumPy has only in part. Computed in float64.

Abramowitz, Stegun, *Handbook of Mathematical Functions*: the power series 9.6.10 for |x| ≤ 20, whose terms are all positive,
and the asymptotic one 9.7.1 beyond.
"""

from __future__ import annotations

import math

import numpy as np

from kobai.xp import Array, quiet, xp_of

NEAR = 20.0


@quiet
def scaled(order: int, x: Array) -> Array:
    """e^−|x| I_n(x) for n = 0 or 1."""
    xp = xp_of(x)
    z = xp.abs(x.astype(np.float64))
    small = z <= NEAR
    s, far = xp.where(small, z, 1.0), xp.where(small, NEAR, z)
    quarter = s * s / 4
    term = total = s / 2 if order else xp.ones_like(s)
    for k in range(1, 60):
        term = term * quarter / (k * (k + order))
        total = total + term
    near = total * xp.exp(-s)
    term = series = xp.ones_like(far)
    for k in range(1, 30):
        term = term * -(4 * order * order - (2 * k - 1) ** 2) / (8 * k * far)
        series = series + term
    far = xp.where(xp.isinf(z), 0.0, series / xp.sqrt(2 * math.pi * far))
    found = xp.where(z != z, z, xp.where(small, near, far))
    return (xp.sign(x) * found if order else found).astype(x.dtype, copy=False)
