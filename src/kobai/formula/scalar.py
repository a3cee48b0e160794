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


def log1p(x: float) -> float:
    """ln(1 + x)"""
    return float(np.log1p(x))


def tanh(x: float) -> float:
    """tanh x"""
    return math.tanh(x)


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
