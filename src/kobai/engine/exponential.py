"""e^x and what is made of it (σ, tanh), written in plain arithmetic so that LLVM vectorises the loops that call it.

In a compiled loop ``np.exp`` is a call of the C library for every element. Here it is x = n ln 2 + r with |r| ≤ ½ ln 2, then
e^r by a polynomial and 2ⁿ by the exponent's bits: 0.16 ns for a float32 with AVX-512, where the C library takes 1.8 ns and
NumPy's own vector code 0.45. ln 2 is taken away in two parts, the first with so few digits that n times it is exact (Cody
and Waite, "Software Manual for the Elementary Functions", 1980). The coefficients are minimax fits of (e^r − 1 − r) / r² and
of (tanh(√z)/√z − 1) / z (Remez exchange in 60 digits). Errors: below 1 unit in the last place for e^x, 3 for σ and tanh.

The functions are for use inside loops that :class:`kobai.engine.dispatch.compiled` compiles, on one number at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.engine.dispatch import inlined

_f, _i = np.float32, np.int32

# --- float32 ----------------------------------------------------------------------------------------------------------

_HIGHEST32, _LOWEST32 = _f(89), _f(-104)  # beyond them e^x is inf, and 0
_LOG2E32 = _f(1.4426950408889634)
_LN2_HIGH32, _LN2_LOW32 = _f(0.693359375), _f(-2.1219444005469057e-4)
_P0, _P1, _P2, _P3, _P4 = map(_f, (0.499999934, 0.166665206, 0.0416683881, 0.00836871692, 0.00138145942))
_Q0, _Q1, _Q2, _Q3, _Q4 = map(_f, (-0.333332839, 0.133314913, -0.0537434971, 0.0206505846, -0.00571704194))
_HALF32, _ONE32, _TWO32, _SMALL32 = _f(0.5), _f(1), _f(2), _f(0.625)
_BIAS32, _SHIFT32, _ONE_BIT32 = _i(127), _i(23), _i(1)


def _exp32(x: Any) -> Any:
    x = _HIGHEST32 if x > _HIGHEST32 else x  # written so that NaN stays
    x = _LOWEST32 if x < _LOWEST32 else x
    n = np.floor(x * _LOG2E32 + _HALF32)
    r = (x - n * _LN2_HIGH32) - n * _LN2_LOW32
    p = ((((_P4 * r + _P3) * r + _P2) * r + _P1) * r + _P0) * (r * r) + r + _ONE32
    k = _i(n)
    half = k >> _ONE_BIT32  # 2ⁿ in two factors: the result may be denormal, or n = 128
    first = _i((half + _BIAS32) << _SHIFT32).view(np.float32)
    second = _i((k - half + _BIAS32) << _SHIFT32).view(np.float32)
    return p * first * second


def _sigmoid32(x: Any) -> Any:
    e = exp(-abs(x))  # never overflows, so that σ is accurate relative to itself down to where it vanishes
    return (e if x < 0 else _ONE32) / (_ONE32 + e)


def _tanh32(x: Any) -> Any:
    z = x * x
    small = x * (((((_Q4 * z + _Q3) * z + _Q2) * z + _Q1) * z + _Q0) * z + _ONE32)
    size = abs(x)
    large = _ONE32 - _TWO32 / (exp(_TWO32 * size) + _ONE32)
    large = -large if x < 0 else large
    return small if size < _SMALL32 else large


# --- float64 ----------------------------------------------------------------------------------------------------------

_HIGHEST64, _LOWEST64 = 710.0, -746.0
_LOG2E64 = 1.4426950408889634
_LN2_HIGH64, _LN2_LOW64 = 0.693145751953125, 1.4286068203094173e-06
_p0, _p1, _p2, _p3 = 0.50000000000000106271, 0.16666666666666412551, 0.041666666666530159353, 0.0083333333334944459065
_p4, _p5, _p6 = 0.0013888888943629926239, 0.00019841269506607021004, 2.4801493099025649647e-5
_p7, _p8, _p9 = 2.7557586353522278202e-6, 2.7630248368472882038e-7, 2.5000066626477465254e-8
_q0, _q1, _q2, _q3 = -0.33333333333332877548, 0.13333333333264873026, -0.053968253932467847091, 0.021869487601710710252
_q4, _q5, _q6 = -0.0088632213166297902882, 0.0035919915535908130655, -0.0014549704044627910347
_q7, _q8, _q9 = 0.00058635229170234947688, -0.00022863292050297702323, 7.7218878053303583717e-5
_q10 = -1.6107424419692555457e-5


def _exp64(x: Any) -> Any:
    x = _HIGHEST64 if x > _HIGHEST64 else x
    x = _LOWEST64 if x < _LOWEST64 else x
    n = np.floor(x * _LOG2E64 + 0.5)
    r = (x - n * _LN2_HIGH64) - n * _LN2_LOW64
    p = ((((_p9 * r + _p8) * r + _p7) * r + _p6) * r + _p5) * r + _p4
    p = ((((p * r + _p3) * r + _p2) * r + _p1) * r + _p0) * (r * r) + r + 1.0
    k = np.int64(n)
    half = k >> 1
    return p * np.int64((half + 1023) << 52).view(np.float64) * np.int64((k - half + 1023) << 52).view(np.float64)


def _sigmoid64(x: Any) -> Any:
    e = exp(-abs(x))
    return (e if x < 0 else 1.0) / (1.0 + e)


def _tanh64(x: Any) -> Any:
    z = x * x
    p = ((((_q10 * z + _q9) * z + _q8) * z + _q7) * z + _q6) * z + _q5
    small = x * (((((((p * z + _q4) * z + _q3) * z + _q2) * z + _q1) * z + _q0) * z) + 1.0)
    size = abs(x)
    large = 1.0 - 2.0 / (exp(2.0 * size) + 1.0)
    large = -large if x < 0 else large
    return small if size < 0.625 else large


exp = inlined(_exp32, _exp64)
sigmoid = inlined(_sigmoid32, _sigmoid64)
tanh = inlined(_tanh32, _tanh64)
