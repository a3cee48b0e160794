"""ln(1 + x), written in plain arithmetic so that LLVM vectorises the loops that call it (as in ``exponential.py``).

With u = 1 + x = 2ᵏ m and √½ ≤ m < √2: ln u = k ln 2 + ln m, and ln m = 2 artanh(s) with s = (m − 1) / (m + 1), |s| < 0.172, by
the series s + s³/3 + s⁵/5 + …. What rounding u lost is added as (x − (u − 1)) / u (Kahan's correction). Errors: below 2 units
in the last place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.engine.dispatch import inlined

_f, _i = np.float32, np.int32

_ONE32, _TWO32, _ZERO32, _INFINITY32 = _f(1), _f(2), _f(0), _f(np.inf)
_LN2_HIGH32, _LN2_LOW32 = _f(0.693359375), _f(-2.1219444005469057e-4)
_S1, _S2, _S3, _S4 = (_f(1 / (2 * k + 1)) for k in range(1, 5))
_ROOT32, _EXPONENT32, _MANTISSA32 = _i(0x3F3504F3), _i(23), _i(0x7FFFFF)  # √½ as bits


def _log1p32(x: Any) -> Any:
    u = _ONE32 + x
    lost = (x - (u - _ONE32)) / u
    bits = _f(u).view(np.int32) - _ROOT32
    k = bits >> _EXPONENT32
    m = _i((bits & _MANTISSA32) + _ROOT32).view(np.float32)
    s = (m - _ONE32) / (m + _ONE32)
    z = s * s
    series = _TWO32 * s * ((((_S4 * z + _S3) * z + _S2) * z + _S1) * z + _ONE32)
    y = _f(k) * _LN2_HIGH32 + (series + (_f(k) * _LN2_LOW32 + lost))
    y = -_INFINITY32 if u == _ZERO32 else y
    y = (x - x) / (x - x) if u < _ZERO32 else y
    return x if (x == _INFINITY32) | (x != x) else y


_LN2_HIGH64, _LN2_LOW64 = 0.693147180369123816490, 1.90821492927058770002e-10
_S = tuple(1 / (2 * k + 1) for k in range(11))
_ROOT64, _EXPONENT64, _MANTISSA64 = np.int64(0x3FE6A09E667F3BCD), np.int64(52), np.int64(0xFFFFFFFFFFFFF)


def _log1p64(x: Any) -> Any:
    u = 1.0 + x
    lost = (x - (u - 1.0)) / u
    bits = np.float64(u).view(np.int64) - _ROOT64
    k = bits >> _EXPONENT64
    m = np.int64((bits & _MANTISSA64) + _ROOT64).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    series = _S[10]
    for n in range(9, -1, -1):
        series = series * z + _S[n]
    y = k * _LN2_HIGH64 + (2.0 * s * series + (k * _LN2_LOW64 + lost))
    y = -np.inf if u == 0.0 else y
    y = (x - x) / (x - x) if u < 0.0 else y
    return x if (x == np.inf) | (x != x) else y


log1p = inlined(_log1p32, _log1p64)
