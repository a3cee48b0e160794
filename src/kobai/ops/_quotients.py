"""Quotients and remainders of raw arrays.

A float quotient is rounded: ⌊a ÷ b⌋ may then be one too large, and a − ⌊a ÷ b⌋ b anything. C's fmod is exact, and the
others follow from it. CuPy's ``floor_divide`` and ``remainder`` of floats are the rounded ones. Integers are exact by
``floor_divide``; their ``fmod`` goes through float64 on CuPy.
"""

from __future__ import annotations

from typing import Any

from kobai.dtypes import FLOATING
from kobai.xp import xp_of


def _operands(a: Any, b: Any) -> tuple[Any, bool]:
    """Namespace of the operands, one of which may be a number, and whether they are floats."""
    array = b if isinstance(a, (int, float)) else a
    return xp_of(array), array.dtype.kind in FLOATING


def trunc_remainder(a: Any, b: Any) -> Any:
    """a − trunc(a ÷ b) b, with the sign of a."""
    xp, floats = _operands(a, b)
    return xp.fmod(a, b) if floats else a - trunc_quotient(a, b) * b


def floor_remainder(a: Any, b: Any) -> Any:
    """a − ⌊a ÷ b⌋ b, with the sign of b."""
    xp, floats = _operands(a, b)
    if not floats:
        return xp.remainder(a, b)
    rest = xp.fmod(a, b)
    return rest + xp.where((rest != 0) & ((rest < 0) != (b < 0)), b, rest.dtype.type(0))


def floor_quotient(a: Any, b: Any) -> Any:
    """⌊a ÷ b⌋: (a − fmod(a, b)) ÷ b is an integer but for rounding, and 1 more where the rest has another sign than b."""
    xp, floats = _operands(a, b)
    if not floats:
        return xp.floor_divide(a, b)
    rest = xp.fmod(a, b)
    whole = (a - rest) / b - ((rest != 0) & ((rest < 0) != (b < 0)))
    below = xp.floor(whole)
    return xp.where(xp.equal(b, 0), a / b, below + (whole - below > 0.5))


def trunc_quotient(a: Any, b: Any) -> Any:
    """trunc(a ÷ b)."""
    xp, floats = _operands(a, b)
    if floats:
        return xp.trunc(a / b)
    floor = xp.floor_divide(a, b)  # a float quotient would round large integers
    return floor + ((floor < 0) & (floor * b != a))
