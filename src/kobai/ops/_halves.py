"""Operands of kernels on a device that load and store floats of 16 bits and take parameters and statistics in float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.dtypes import HALVES
from kobai.engine.dispatch import engine_for
from kobai.formula.many import dtype_of_numbers
from kobai.xp import Array, xp_of

__all__ = ["beside", "of_16_bits"]


def of_16_bits(x: Array, *others: Array | None) -> tuple[Any, ...]:
    """Operands on a device: where ``x`` has 16 bits, its kernel takes the rest in float32. Without one, all is float32."""
    if x.dtype not in HALVES:
        return x, *others
    xp = xp_of(x)
    x = xp.ascontiguousarray(x)
    if not x.size or engine_for((x,), halves=True) is None:
        x = x.astype(np.float32)
    return x, *[v if v is None else xp.ascontiguousarray(v.astype(np.float32, copy=False)) for v in others]


def beside(x: Array, v: Array | None) -> bool:
    """Whether a kernel that takes ``x`` takes the parameter ``v`` beside it."""
    return v is None or (v.flags.c_contiguous and v.dtype == dtype_of_numbers(x.dtype))
