"""Arithmetic that rounds the same on every processor, for functions inside compiled loops.

LLVM may fuse a product into a sum where it is told so (``contract``), and which of two products it takes depends on the
processor. What is written with ``fma`` is fused, and all else is not: the functions of this folder are compiled by
:class:`kobai.engine.dispatch.inlined` and :class:`exact` without such licence, and have the same bits everywhere.
"""

from __future__ import annotations

import importlib
from functools import cached_property
from typing import Any

import numpy as np

from kobai.engine.dispatch import instruction, merged


class _Fused(instruction):
    """An instruction whose operands and result are floats of one type."""

    @cached_property
    def known(self) -> Any:
        numba = importlib.import_module("numba")

        def typing(context: Any, x, y, z):  # type: ignore[no-untyped-def]  # Numba reads the signature
            def build(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
                return self.build(builder, *operands)

            return x(x, x, x), build

        del typing.__annotations__["context"]
        return numba.extending.intrinsic(typing)


@_Fused
def fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x·y + z, rounded once."""
    return builder.fma(x, y, z)


class exact(merged):
    """Decorator: a function inside compiled loops, merged into them, whose arithmetic is done as it is written."""

    flags = frozenset()


@exact
def horner(z: Any, coefficients: Any) -> Any:
    """Σ cₖ zᵏ"""
    total = coefficients[-1]
    for k in range(len(coefficients) - 2, -1, -1):
        total = fma(total, z, coefficients[k])
    return total


# --- two numbers for one: hi + lo, of which lo is what rounding left ------------------------------------------------------


@exact
def two_product(x: Any, y: Any) -> Any:
    """x·y exactly."""
    hi = x * y
    return hi, fma(x, y, -hi)


@exact
def fast_two_sum(x: Any, y: Any) -> Any:
    """x + y exactly, for |x| ≥ |y|."""
    hi = x + y
    return hi, y - (hi - x)


# --- 2ᵏ ---------------------------------------------------------------------------------------------------------------

_ROUND, _ROUND_BITS = 6755399441055744.0, np.float64(6755399441055744.0).view(np.int64)
"""1.5·2⁵²: a number added to it loses its fraction, and is then an integer in the last bits."""

_ROUND32, _ROUND_BITS32 = np.float32(12582912), np.float32(12582912).view(np.int32)


@exact
def nearest(x: Any, y: Any) -> Any:
    """The integer n that is nearest to x·y, as a float and as an integer; of float64."""
    shifted = fma(x, y, _ROUND)
    return shifted - _ROUND, np.float64(shifted).view(np.int64) - _ROUND_BITS


@exact
def nearest32(x: Any, y: Any) -> Any:
    shifted = fma(x, y, _ROUND32)
    return shifted - _ROUND32, np.int32(np.float32(shifted).view(np.int32) - _ROUND_BITS32)


@exact
def scaled(x: Any, k: Any) -> Any:
    """2ᵏ x, in two steps: the result may be denormal, or k = 1024."""
    half = k >> 1
    return x * np.int64((half + 1023) << 52).view(np.float64) * np.int64((k - half + 1023) << 52).view(np.float64)
