"""The activations inside hot loops, on raw arrays: rectifier and logistic function, fast on NumPy and safe on all libraries."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from kobai.xp import Array, xp_of

BLOCK = 1 << 16  # elements; a block of them and one of the bound fit the L2 cache together


def at_least(x: Array, bound: float, out: Array | None = None) -> Array:
    """max(x, bound) as a new array, or into ``out`` (which may be x).

    NumPy vectorises the maximum of two arrays but not that of an array and a number: against a bound repeated in memory
    it takes 1.6 µs instead of 3.6 for 100×100 float32, 14 instead of 40 for 256×512.
    """
    if type(x) is not np.ndarray or not x.flags.c_contiguous or (out is not None and not out.flags.c_contiguous):
        return xp_of(x).maximum(x, bound, out=out)
    bounds = _repeated(bound, x.dtype)
    if x.size <= BLOCK:
        return np.maximum(x, bounds[: x.size].reshape(x.shape), out=out)
    if out is None:
        out = np.empty_like(x)
    flat, result = x.reshape(-1), out.reshape(-1)
    for start in range(0, x.size, BLOCK):
        part = flat[start : start + BLOCK]
        np.maximum(part, bounds[: part.size], out=result[start : start + BLOCK])
    return out


@lru_cache(maxsize=16)
def _repeated(value: float, dtype: Any) -> Array:
    values = np.full(BLOCK, value, dtype)
    values.flags.writeable = False
    return values


def relu(x: Array, out: Array | None = None) -> Array:
    """max(x, 0) as a new array, or into ``out`` (which may be x)."""
    return at_least(x, 0, out)


def sigmoid(x: Array, out: Array | None = None) -> Array:
    """σ(x) = 1 / (1 + e⁻ˣ) as a new array, or into ``out`` (which may be x); accurate relative to σ, however small.

    Below about −88 in float32 (−709 in float64), where e⁻ˣ would overflow, σ stays at the value it has there, < 10⁻³⁸.
    (½ + ½ tanh(x/2) is twice as fast but cancels: at x = −10 only three digits of it are right in float32.)
    """
    xp = xp_of(x)
    y = at_least(x, _lowest(x.dtype), out)
    if y.ndim == 0:  # NumPy returns a scalar here, which nothing can be written into
        return 1 / (1 + xp.exp(-y))
    xp.multiply(y, -1, out=y)  # NumPy 2.4's negative is wrong for some strides of out
    xp.exp(y, out=y)
    y += 1
    return xp.reciprocal(y, out=y)


@lru_cache(maxsize=8)
def _lowest(dtype: Any) -> float:
    """The least whole number whose e⁻ˣ does not overflow."""
    return -float(np.floor(np.log(np.finfo(dtype).max)))
