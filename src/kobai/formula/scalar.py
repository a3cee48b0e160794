"""Functions of one number that formulas may call (:mod:`kobai.formula.elementwise`), here as Python computes them.

So a kernel's function can be called on numbers. On arrays each engine has its own spelling of these; NaN goes through all.
"""

from __future__ import annotations

import math

import numpy as np


def sqrt(x: float) -> float:
    """√x, NaN for x < 0."""
    return math.sqrt(x) if x >= 0 else math.nan


def rsqrt(x: float) -> float:
    """1/√x, NaN for x < 0, ∞ for 0."""
    return 1 / sqrt(x) if x else math.copysign(math.inf, x)


def exp(x: float) -> float:
    """eˣ"""
    return float(np.exp(x))


def exp2(x: float) -> float:
    """2ˣ"""
    return float(np.exp2(x))


def expm1(x: float) -> float:
    """eˣ − 1"""
    return float(np.expm1(x))


def log(x: float) -> float:
    """ln x"""
    return float(np.log(x))


def log2(x: float) -> float:
    """log₂ x"""
    return float(np.log2(x))


def log10(x: float) -> float:
    """log₁₀ x"""
    return float(np.log10(x))


def log1p(x: float) -> float:
    """ln(1 + x)"""
    return float(np.log1p(x))


def sinh(x: float) -> float:
    """sinh x"""
    return float(np.sinh(x))


def cosh(x: float) -> float:
    """cosh x"""
    return float(np.cosh(x))


def tanh(x: float) -> float:
    """tanh x"""
    return math.tanh(x)


def asinh(x: float) -> float:
    """The inverse of sinh."""
    return float(np.arcsinh(x))


def acosh(x: float) -> float:
    """The inverse of cosh."""
    return float(np.arccosh(x))


def atanh(x: float) -> float:
    """The inverse of tanh."""
    return float(np.arctanh(x))


def asin(x: float) -> float:
    """The inverse of the sine."""
    return float(np.arcsin(x))


def acos(x: float) -> float:
    """The inverse of the cosine."""
    return float(np.arccos(x))


def atan(x: float) -> float:
    """The inverse of the tangent."""
    return float(np.arctan(x))


def sigmoid(x: float) -> float:
    """1 / (1 + e⁻ˣ)"""
    return float(1 / (1 + np.exp(-x)))


def erf(x: float) -> float:
    """2/√π ∫₀ˣ e^(−t²) dt"""
    return math.erf(x)


def erfc(x: float) -> float:
    """1 − erf(x)"""
    return math.erfc(x)


def sign(x: float) -> float:
    """−1, 0 or 1; NaN of NaN"""
    return float(np.sign(x))


def maximum(x: float, y: float) -> float:
    """The larger of two; NaN if one is."""
    return float(np.maximum(x, y))


def minimum(x: float, y: float) -> float:
    """The smaller of two; NaN if one is."""
    return float(np.minimum(x, y))


def pow(x: float, y: float) -> float:
    """xʸ; NaN for x < 0 unless y is whole."""
    return float(np.power(np.float64(x), np.float64(y)))


def atan2(y: float, x: float) -> float:
    """The angle of the point (x, y)."""
    return math.atan2(y, x)
