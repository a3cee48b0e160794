"""Logarithms, and what is made of them (powers, inverse hyperbolic functions), written so that LLVM vectorises their loops.

With x = 2ᵏ m and √½ ≤ m < √2: ln x = k ln 2 + ln m, and ln m = 2 artanh(s) with s = f / (2 + f), f = m − 1, |s| < 0.172. As
2s = f − s f, the sum is f − (f²/2 − s (f²/2 + R)) with R = 2 artanh(s)/s − 2, a polynomial in s² (Chebyshev interpolation in 60
digits): f is exact, and what is taken from it small. Where the result goes on into a power, or is to be exact for powers of 10,
s and the sum are two numbers each. Of ln(1 + x), what rounding 1 + x has lost is added as (x − (u − 1)) / u (Kahan's
correction).

Errors: below 1 unit in the last place for ln, log₂, log₁₀ and powers, 2 for ln(1 + x), 3 for the others. What has no version
for float32 is computed in float64 and rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.engine.dispatch import inlined
from kobai.engine.exponential import exp, exp_of_two
from kobai.engine.fused import exact, fast_two_sum, fma, horner, two_product

_f, _i = np.float32, np.int32

# --- float32 ----------------------------------------------------------------------------------------------------------

_ONE32, _TWO32, _HALF32, _ZERO32, _INFINITY32 = _f(1), _f(2), _f(0.5), _f(0), _f(np.inf)
_LN2_HIGH32, _LN2_LOW32 = _f(0.693359375), _f(-2.1219444005469057e-4)
_S1, _S2, _S3, _S4 = (_f(2 / (2 * k + 1)) for k in range(1, 5))
_ROOT32, _EXPONENT32, _MANTISSA32 = _i(0x3F3504F3), _i(23), _i(0x7FFFFF)  # √½ as bits


def _log1p32(x: Any) -> Any:
    u = _ONE32 + x
    lost = (x - (u - _ONE32)) / u
    bits = _f(u).view(np.int32) - _ROOT32
    k = _f(bits >> _EXPONENT32)
    f = _i((bits & _MANTISSA32) + _ROOT32).view(np.float32) - _ONE32
    s = f / (_TWO32 + f)
    z = s * s
    half = _HALF32 * f * f
    series = fma(fma(fma(_S4, z, _S3), z, _S2), z, _S1)
    rest = half - fma(s, fma(series, z, half), fma(k, _LN2_LOW32, lost))
    y = fma(k, _LN2_HIGH32, f - rest)
    y = -_INFINITY32 if u == _ZERO32 else y
    y = (x - x) / (x - x) if u < _ZERO32 else y
    return x if (x == _INFINITY32) | (x != x) | (x == _ZERO32) else y


# --- float64 ----------------------------------------------------------------------------------------------------------

_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10  # k times the first is exact
_LOG2E, _LOG2E_LOW = 1.4426950408889634, 2.0355273740931033e-17
_LOG10E, _LOG10E_LOW = 0.4342944819032518, 1.098319650216765e-17
_LOG10_2, _LOG10_2_LOW = 0.3010299955494702, 1.1451100898021838e-10  # as those
_TWO_THIRDS, _TWO_THIRDS_LOW = 0.6666666666666666, 3.700743415417188e-17
_SERIES = (
    0.6666666666666666, 0.4000000000000088, 0.28571428570801954, 0.2222222239208907, 0.1818179560005562, 0.15386241882168694,
    0.1326871478713654, 0.13087236243871003,
)  # fmt: skip
_REST = (
    0.4, 0.2857142857142937, 0.22222222221654697, 0.181818183356598, 0.15384594934129375, 0.13334806232940835,
    0.11706195217866709, 0.11723607898886837,
)  # fmt: skip
_ROOT, _EXPONENT, _MANTISSA = np.int64(0x3FE6A09E667F3BCD), np.int64(52), np.int64(0xFFFFFFFFFFFFF)
_LEAST, _UP = 2.0**-1022, 2.0**54


@exact
def _parted(x: Any) -> Any:
    """k and m of a normal number."""
    bits = np.float64(x).view(np.int64) - _ROOT
    return float(bits >> _EXPONENT), np.int64((bits & _MANTISSA) + _ROOT).view(np.float64)


@exact
def _normal(x: Any) -> Any:
    """k and m of any positive number."""
    k, m = _parted(x * _UP if x < _LEAST else x)
    return k - 54.0 if x < _LEAST else k, m


@exact
def _sum(k: Any, m: Any, more: Any) -> Any:
    """k ln 2 + ln m + more"""
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    half = 0.5 * f * f
    rest = half - fma(s, fma(horner(z, _SERIES), z, half), fma(k, _LN2_LOW, more))
    return fma(k, _LN2_HIGH, f - rest)


@exact
def _of_two(m: Any) -> Any:
    """ln m as two numbers, to 2⁻⁶⁵ of it."""
    f = m - 1.0
    t, t_low = fast_two_sum(2.0, f)
    reciprocal = 1.0 / t
    s = f * reciprocal
    s_low = fma(-s, t_low, fma(-s, t, f)) * reciprocal
    z, z_low = two_product(s, s)
    z_low = fma(2.0 * s, s_low, z_low)
    p, p_low = fast_two_sum(_TWO_THIRDS, z * horner(z, _REST))
    p_low += _TWO_THIRDS_LOW
    q, q_low = two_product(z, p)
    q_low = fma(z, p_low, fma(z_low, p, q_low))
    r, r_low = two_product(s, q)
    r_low = fma(s, q_low, fma(s_low, q, r_low))
    hi, lo = fast_two_sum(2.0 * s, r)
    return fast_two_sum(hi, lo + fma(2.0, s_low, r_low))


@exact
def _edges(x: Any, y: Any) -> Any:
    """The logarithm y of x, and what it is where x is no positive number."""
    y = -np.inf if x == 0.0 else y
    y = np.nan if x < 0.0 else y
    return x if (x == np.inf) | (x != x) else y


def _log(x: Any) -> Any:
    k, m = _normal(x)
    return _edges(x, _sum(k, m, 0.0))


def _log1p64(x: Any) -> Any:
    u = 1.0 + x
    k, m = _parted(u)
    y = _edges(u, _sum(k, m, (x - (u - 1.0)) / u))
    return x if (x == np.inf) | (x == 0.0) else y


@exact
def _in_base(x: Any, factor: Any, factor_low: Any, of_two: Any, of_two_low: Any) -> Any:
    k, m = _normal(x)
    hi, lo = _of_two(m)
    p, p_low = two_product(hi, factor)
    p_low = fma(lo, factor, fma(hi, factor_low, p_low))
    total, low = fast_two_sum(k * of_two, p)
    return _edges(x, total + (low + fma(k, of_two_low, p_low)))


def _log2(x: Any) -> Any:
    return _in_base(x, _LOG2E, _LOG2E_LOW, 1.0, 0.0)


def _log2_single(x: Any) -> Any:
    return np.float32(log(np.float64(x)) * _LOG2E)


def _log10_single(x: Any) -> Any:
    return np.float32(log(np.float64(x)) * _LOG10E)


def _log10(x: Any) -> Any:
    return _in_base(x, _LOG10E, _LOG10E_LOW, _LOG10_2, _LOG10_2_LOW)


# --- powers -----------------------------------------------------------------------------------------------------------


@exact
def _power_edges(x: Any, y: Any, size: Any) -> Any:
    """xʸ where |x|ʸ is ``size``."""
    whole = np.floor(y) == y
    odd = whole & (np.floor(0.5 * y) * 2.0 != y) & (abs(y) < 2.0**53)
    negative = np.float64(x).view(np.int64) < 0
    size = 1.0 if (abs(x) == 1.0) & (y == y) else size
    signed = -size if negative & odd else size
    signed = np.nan if negative & (x < 0.0) & (abs(x) != np.inf) & ~whole else signed
    return 1.0 if (x == 1.0) | (y == 0.0) else (x + y if (x != x) | (y != y) else signed)


def _pow(x: Any, y: Any) -> Any:
    size = abs(x)
    k, m = _normal(size)
    hi, lo = _of_two(m)
    total, low = fast_two_sum(k * _LN2_HIGH, hi)
    hi, lo = fast_two_sum(total, low + fma(k, _LN2_LOW, lo))
    hi, lo = (_edges(size, hi), 0.0) if (size == 0.0) | (size == np.inf) else (hi, lo)
    p, p_low = two_product(hi, y)
    p_low = fma(lo, y, p_low)
    p_low = p_low if abs(p) < 1000.0 else 0.0
    return _power_edges(x, y, exp_of_two(p, p_low, 0))


def _pow32(x: Any, y: Any) -> Any:
    wide, power = np.float64(x), np.float64(y)
    return np.float32(_power_edges(wide, power, exp(power * log(abs(wide)))))


# --- inverse hyperbolic functions -----------------------------------------------------------------------------------------

_LN2 = 0.6931471805599453
_FAR = 2.0**28
"""From here on x² + 1 is x²."""


def _asinh(x: Any) -> Any:
    size = abs(x)
    inside = _FAR if size > _FAR else size
    square = inside * inside
    near = log1p(inside + square / (1.0 + np.sqrt(square + 1.0)))
    y = near if size < _FAR else log(size) + _LN2
    y = -y if x < 0.0 else y
    return x if x == 0.0 else y


def _acosh(x: Any) -> Any:
    t = x - 1.0
    inside = _FAR if t > _FAR else t
    near = log1p(inside + np.sqrt(fma(inside, inside, 2.0 * inside)))
    y = near if x < _FAR else log(x) + _LN2
    return y if x >= 1.0 else np.nan


def _atanh(x: Any) -> Any:
    size = abs(x)
    y = 0.5 * log1p(2.0 * size / (1.0 - size))
    y = -y if x < 0.0 else y
    return x if x == 0.0 else (y if size <= 1.0 else np.nan)


log, log2, log10 = inlined(None, _log), inlined(_log2_single, _log2), inlined(_log10_single, _log10)
log1p = inlined(_log1p32, _log1p64)
pow = inlined(_pow32, _pow)
asinh, acosh, atanh = inlined(None, _asinh), inlined(None, _acosh), inlined(None, _atanh)
