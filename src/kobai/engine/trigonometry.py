"""Sine, cosine, tangent and their inverses, written so that LLVM vectorises the loops that call them.

With x = n π/2 + r and |r| ≤ π/4, sin x and cos x are ± sin r or ± cos r. π/2 is taken away in three parts, all fused: x minus n
times the first is exact, so that r, as two numbers, is good to its last bit for |x| < 2³⁰, however near x is to n π/2 (Cody and
Waite). Beyond, the bits of 2/π that count are multiplied by x as integers (Payne and Hanek, "Radian reduction for
trigonometric functions", 1983); that is not vectorised, and so is only in the loops here, which look for such numbers first.

arctan: of t = a/b with a ≤ (√2 − 1) b, else π/4 + arctan((a − b)/(a + b)) or π/2 − arctan(b/a). arcsin of |x| > ½ is
π/2 − 2 arcsin √((1 − |x|)/2), where the root is two numbers. sin and cos are Taylor-like, the inverses' polynomials Chebyshev
interpolation in 60 digits. Errors: below 1 unit in the last place, 2 for the tangent and arctangents. In float32 all are
computed in float64 and rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.engine.dispatch import in_order, inlined
from kobai.engine.fused import exact, fast_two_sum, fma, horner, nearest, two_product

# --- of numbers below 2³⁰ -------------------------------------------------------------------------------------------------

LARGE = 2.0**30

_TWO_BY_PI = 0.6366197723675814
_P1, _P2, _P3 = 1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33  # π/2
_SIN = (
    -0.16666666666666666, 0.008333333333333331, -0.00019841269841265003, 2.7557319219291695e-06, -2.505210621597886e-08,
    1.6058529011958893e-10, -7.586543634004167e-13,
)  # fmt: skip
_COS = (
    0.041666666666666664, -0.0013888888888888887, 2.480158730158461e-05, -2.755731922137643e-07, 2.0876755781923355e-09,
    -1.1470459438046617e-11, 4.745786562431753e-14,
)  # fmt: skip


@exact
def _reduced(x: Any) -> Any:
    """r as two numbers, and the last bits of n."""
    n, quadrant = nearest(x, _TWO_BY_PI)
    r = fma(-n, _P1, x)
    p, p_low = two_product(n, _P2)
    hi = r - p
    lo = ((r - hi) - p) - fma(n, _P3, p_low)
    return hi, lo, quadrant


@exact
def _sine(hi: Any, lo: Any) -> Any:
    z = hi * hi
    return hi + fma(hi * z, horner(z, _SIN), lo * fma(-0.5, z, 1.0))


@exact
def _cosine(hi: Any, lo: Any) -> Any:
    z = hi * hi
    half = 0.5 * z
    near = 1.0 - half
    return near + (((1.0 - near) - half) + fma(z * z, horner(z, _COS), -(hi * lo)))


@exact
def _sine_at(hi: Any, lo: Any, quadrant: Any) -> Any:
    y = _cosine(hi, lo) if quadrant & 1 else _sine(hi, lo)
    return -y if quadrant & 2 else y


@exact
def _tangent_at(hi: Any, lo: Any, quadrant: Any) -> Any:
    sine, cosine = _sine(hi, lo), _cosine(hi, lo)
    turned = quadrant & 1
    return (-cosine if turned else sine) / (sine if turned else cosine)


def _sin(x: Any) -> Any:
    hi, lo, quadrant = _reduced(x)
    y = _sine_at(hi, lo, quadrant)
    return x if x == 0.0 else y


def _cos(x: Any) -> Any:
    hi, lo, quadrant = _reduced(x)
    return _sine_at(hi, lo, quadrant + 1)


def _tan(x: Any) -> Any:
    hi, lo, quadrant = _reduced(x)
    y = _tangent_at(hi, lo, quadrant)
    return x if x == 0.0 else y


# --- inverses ---------------------------------------------------------------------------------------------------------

_QUARTER, _QUARTER_LOW = 0.7853981633974483, 3.061616997868383e-17
_PI, _PI_LOW = 3.141592653589793, 1.2246467991473532e-16
_TAN_EIGHTH = 0.41421356237309503
_ATAN = (
    -0.3333333333333333, 0.19999999999999804, -0.14285714285659806, 0.11111111105153429, -0.0909090875340046,
    0.07692296372129048, -0.0666642483359963, 0.0587892839837847, -0.05230449855807327, 0.04551573082982608,
    -0.034570044100419084, 0.016285182943163206,
)  # fmt: skip
_ASIN = (
    0.16666666666666669, 0.07499999999998425, 0.04464285714637338, 0.030381944137085167, 0.022372173002007063,
    0.017352391265880077, 0.013971235301502854, 0.011478952686959197, 0.010324318308209832, 0.005450878110995214,
    0.01741935815831295, -0.014881409674851229, 0.02877844279349127,
)  # fmt: skip


@exact
def _arctangent(a: Any, b: Any) -> Any:
    """arctan a/b for a, b ≥ 0, as two numbers."""
    steep, flat = a * _TAN_EIGHTH > b, a <= b * _TAN_EIGHTH
    top = -b if steep else (a if flat else a - b)
    bottom = a if steep else (b if flat else a + b)
    base = 2.0 if steep else (0.0 if flat else 1.0)
    t = top / bottom
    z = t * t
    hi, rest = base * _QUARTER, fma(t * z, horner(z, _ATAN), base * _QUARTER_LOW)
    total = hi + t
    return (t, rest) if flat else (total, (t - (total - hi)) + rest)


def _atan(x: Any) -> Any:
    size = abs(x)
    hi, lo = _arctangent(1.0 if size == np.inf else size, 0.0 if size == np.inf else 1.0)
    y = hi + lo
    y = -y if x < 0.0 else y
    return x if x == 0.0 else y


def _atan2(x: Any, y: Any) -> Any:
    """The angle of the point (y, x): arctan x/y where y > 0."""
    a, b = abs(x), abs(y)
    endless = (a == np.inf) | (b == np.inf)
    scale = 2.0**-600 if (a > 2.0**600) | (b > 2.0**600) else (2.0**400 if (a < 2.0**-600) & (b < 2.0**-200) else 1.0)
    a = (1.0 if a == np.inf else 0.0) if endless else a * scale
    b = (1.0 if b == np.inf else 0.0) if endless else b * scale
    hi, lo = _arctangent(a, 1.0 if (a == 0.0) & (b == 0.0) else b)
    left = np.float64(y).view(np.int64) < 0
    total = _PI - hi
    angle = total + (((_PI - total) - hi) + (_PI_LOW - lo)) if left else hi + lo
    angle = -angle if np.float64(x).view(np.int64) < 0 else angle
    return x + y if (x != x) | (y != y) else angle


@exact
def _half_chord(size: Any) -> Any:
    """Of √((1 − size)/2) the arcsine without its first term, the root, and what rounding that has lost."""
    z = 0.5 - 0.5 * size
    root = np.sqrt(z)
    lost = fma(-root, root, z) / (2.0 * root) if z > 0.0 else 0.0
    return root * z * horner(z, _ASIN), root, lost


def _asin(x: Any) -> Any:
    size = abs(x)
    z = x * x
    near = fma(x * z, horner(z, _ASIN), x)
    more, root, lost = _half_chord(size)
    far = 2.0 * (_QUARTER - root)
    far = far + (((2.0 * _QUARTER - far) - 2.0 * root) - 2.0 * (more + lost - _QUARTER_LOW))
    far = -far if x < 0.0 else far
    return (near if size <= 0.5 else far) if size <= 1.0 else np.nan


def _acos(x: Any) -> Any:
    size = abs(x)
    z = x * x
    asin_low = x * z * horner(z, _ASIN)
    middle = 2.0 * _QUARTER - x
    near = middle + (((2.0 * _QUARTER - middle) - x) + (2.0 * _QUARTER_LOW - asin_low))
    more, root, lost = _half_chord(size)
    right = 2.0 * (root + (more + lost))
    left = _PI - 2.0 * root
    left = left + (((_PI - left) - 2.0 * root) + (_PI_LOW - 2.0 * (more + lost)))
    far = left if x < 0.0 else right
    return (near if size <= 0.5 else far) if size <= 1.0 else np.nan


sin, cos, tan = inlined(None, _sin), inlined(None, _cos), inlined(None, _tan)
asin, acos, atan, atan2 = inlined(None, _asin), inlined(None, _acos), inlined(None, _atan), inlined(None, _atan2)

# --- of all others ------------------------------------------------------------------------------------------------------

_WORD, _MASK = 32, np.int64(0xFFFFFFFF)


def _pi(bits: int) -> int:
    """⌊2ᵇⁱᵗˢ π⌋, by Machin's formula."""

    def arctan_of_inverse(x: int) -> int:
        power = total = (1 << bits + 16) // x
        n, sign = 1, -1
        while power:
            power //= x * x
            n += 2
            total += sign * (power // n)
            sign = -sign
        return total

    return (16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)) >> 16


def _digits(words: int) -> tuple[np.int64, ...]:
    """The bits of 2/π behind the point, in words of 32, behind two words of zeros."""
    bits = _WORD * (words + 2)
    quotient = (1 << 2 * bits + 1) // _pi(bits)
    return tuple(np.int64(quotient >> bits - _WORD * k & 0xFFFFFFFF) for k in range(-1, words + 1))


_INVERSE = _digits(40)


@exact
def _reduced_by_bits(x: Any) -> Any:
    """As ``_reduced``, of |x| ≥ 2³⁰.

    |x| = m·2ᵉ with an integer m < 2⁵³. Bits of 2/π that stand for multiples of 4 when they are multiplied by 2ᵉ do not count;
    of the others the first 256 are multiplied by m, and of the product the first 128 are enough.
    """
    bits = np.float64(x).view(np.int64) & np.int64(0x7FFFFFFFFFFFFFFF)
    m = (bits & np.int64(0xFFFFFFFFFFFFF)) | np.int64(0x10000000000000)
    m0, m1 = m & _MASK, m >> 32
    first = (bits >> 52) - 1075 - 2 + 64
    word, shift = first >> 5, first & 31
    w0 = w1 = w2 = w3 = carry = high = two_up = np.int64(0)
    for k in range(7, -1, -1):
        there = ((_INVERSE[word + k] << shift) | (_INVERSE[word + k + 1] >> (32 - shift))) & _MASK
        low, next = there * m0, there * m1  # the first is less than 2⁶⁴, as an unsigned number
        total = (low & _MASK) + high + carry
        w0, w1, w2, w3 = total & _MASK, w0, w1, w2
        carry = total >> 32
        high = ((low >> 32) & _MASK) + (next & _MASK) + two_up
        two_up = next >> 32
    quadrant, top = w0 >> 30, w0 & np.int64(0x3FFFFFFF)
    if top >> 29:
        quadrant, top = quadrant + 1, top - np.int64(0x40000000)
    turns = (top << 32) | w1
    hi = float(turns)
    lo = float(turns - np.int64(hi)) * 2.0**-62 + (w2 * 2.0**-94 + w3 * 2.0**-126)
    hi, lo = fast_two_sum(hi * 2.0**-62, lo)
    r, r_low = two_product(hi, _P1)
    r, r_low = fast_two_sum(r, fma(hi, _P2, fma(lo, _P1, r_low)))
    return (-r, -r_low, -quadrant) if x < 0.0 else (r, r_low, quadrant)


@exact
def _any_reduced(x: Any) -> Any:
    return _reduced_by_bits(x) if LARGE <= abs(x) < np.inf else _reduced(x)


@exact
def any_sin(x: Any) -> Any:
    hi, lo, quadrant = _any_reduced(np.float64(x))
    return x if x == 0.0 else _sine_at(hi, lo, quadrant)


@exact
def any_cos(x: Any) -> Any:
    hi, lo, quadrant = _any_reduced(np.float64(x))
    return _sine_at(hi, lo, quadrant + 1)


@exact
def any_tan(x: Any) -> Any:
    hi, lo, quadrant = _any_reduced(np.float64(x))
    return x if x == 0.0 else _tangent_at(hi, lo, quadrant)


# --- loops ------------------------------------------------------------------------------------------------------------

_BLOCK = 1024


@in_order
def _has_large(x: Any) -> Any:
    found = 0
    for i in range(x.size):
        found |= abs(x[i]) >= LARGE
    return found


@in_order
def sines(x: Any, y: Any, start: int, stop: int) -> None:
    """y ← sin x; in blocks, of which those with large numbers are computed one by one."""
    for first in range(start, stop, _BLOCK):
        here, there = x[first : min(first + _BLOCK, stop)], y[first : min(first + _BLOCK, stop)]
        if _has_large(here):
            for i in range(here.size):
                there[i] = any_sin(here[i])
        else:
            for i in range(here.size):
                there[i] = sin(here[i])


@in_order
def cosines(x: Any, y: Any, start: int, stop: int) -> None:
    """y ← cos x"""
    for first in range(start, stop, _BLOCK):
        here, there = x[first : min(first + _BLOCK, stop)], y[first : min(first + _BLOCK, stop)]
        if _has_large(here):
            for i in range(here.size):
                there[i] = any_cos(here[i])
        else:
            for i in range(here.size):
                there[i] = cos(here[i])


@in_order
def tangents(x: Any, y: Any, start: int, stop: int) -> None:
    """y ← tan x"""
    for first in range(start, stop, _BLOCK):
        here, there = x[first : min(first + _BLOCK, stop)], y[first : min(first + _BLOCK, stop)]
        if _has_large(here):
            for i in range(here.size):
                there[i] = any_tan(here[i])
        else:
            for i in range(here.size):
                there[i] = tan(here[i])
