"""xᵖ with a known exponent by multiplications and roots, and for all others by the array library's own power."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from kobai.dtypes import FLOATING
from kobai.engine.dispatch import HOST_TYPES, launch, loops_run
from kobai.formula.elementwise import Elementwise
from kobai.xp import Array, xp_of

MOST = 16
"""The largest exponent by multiplication. Each of the p − 1 factors may add half a unit in the last place."""


FEW = 256
"""Elements up to which it is quicker not to look for negative ones."""


def by_products(p: float) -> tuple[Elementwise, Elementwise] | None:
    """xᵖ and its gradient p xᵖ⁻¹ dy as kernels, for p = ±½ and whole p with 1 ≤ |p| ≤ :data:`MOST`; else None.

    NumPy's power takes 1.3 to 60 ns for an element, and most where x < 0.
    """
    if p % 1 == 0 and 1 <= abs(p) <= MOST:
        return _kernels(int(p))
    return _kernels(float(p)) if abs(p) == 0.5 else None


@cache  # which tells 3 from 3.0
def _kernels(p: int | float) -> tuple[Elementwise, Elementwise]:
    def power(x: Any) -> Any:
        return x**p

    def power_backward(dy: Any, x: Any) -> Any:
        return dy * (p * x ** (p - 1))

    name = f"{p:g}".replace("-", "minus_").replace(".", "_")
    return Elementwise(power, name=f"power_{name}"), Elementwise(power_backward, name=f"power_{name}_backward")


def power(a: Any, b: Any) -> Any:
    """aᵇ; for integers and b < 0 the quotient 1 ÷ a⁻ᵇ without its fraction: 0 unless a = ±1."""
    numbers = isinstance(b, (int, float)), isinstance(a, (int, float))
    array = a if numbers[0] else b
    if array.dtype.kind in FLOATING:
        if numbers[0] and (kernels := by_products(b)) is not None:
            return kernels[0](a)
        if type(array) in HOST_TYPES and not loops_run(array.dtype) and not (numbers[1] and a > 0) and array.size > FEW:
            return _on_host(a, b, array)
        return xp_of(array).power(a, b)
    if numbers[0] or array.dtype.kind != "i":
        return a**b
    xp = xp_of(b)
    inverse = xp.where(abs(a) == 1, xp.where(b % 2 == 0, 1, a), 0).astype(b.dtype)
    return xp.where(b < 0, inverse, a ** xp.maximum(b, 0))


def slope(a: Any, b: float, dy: Array) -> Array:
    """dy · d(aᵇ)/da for a number b."""
    if b == 0:
        return dy * 0
    kernels = by_products(b)
    return dy * (b * power(a, b - 1)) if kernels is None else kernels[1](dy, a)


def _on_host(a: Any, b: Any, like: Array) -> Array:
    shape = like.shape if isinstance(a, (int, float)) or isinstance(b, (int, float)) else None
    if shape is None:
        shape = np.broadcast_shapes(a.shape, b.shape)
    out = xp_of(like).empty(shape, like.dtype)
    launch(_write, out, a, b)
    return out


def _write(out: Array, a: Any, b: Any) -> None:
    """out ← aᵇ, from |a| where an a is negative: NumPy's power of such takes forty times as long."""
    negative = np.signbit(a)
    if not negative.any():
        np.power(a, b, out=out)
        return
    np.power(np.abs(a), b, out=out)
    b = np.asarray(b, out.dtype)
    np.negative(out, out=out, where=negative & (np.remainder(b, 2) == 1))
    np.copyto(out, np.nan, where=np.less(a, 0) & np.isfinite(a) & (b != np.floor(b)))
