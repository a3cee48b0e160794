"""The statistics of :mod:`kobai.lab.probe.moments` as Numba loops.

All float dtypes are summed in float64, which is exact enough for a whole tensor and loses neither the squares of vanished
gradients nor those of exploded ones. Indices are unsigned, see :mod:`kobai.ops.batch_norm.loops`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.engine.dispatch import compiled, inlined, launch
from kobai.lab.probe import moments_layout as slot
from kobai.lab.probe.moments_layout import Layout, Look
from kobai.xp import Array, xp_of

TILE = 512
"""Columns whose sums fit in the first-level cache."""

_u = np.uint64
_MAGNITUDE32, _MAGNITUDE64 = np.int32(0x7FFFFFFF), np.int64(0x7FFFFFFFFFFFFFFF)


def _bits32(x: Any) -> Any:
    return np.int32(np.float32(x).view(np.int32) & _MAGNITUDE32)


def _bits64(x: Any) -> Any:
    return np.int64(np.float64(x).view(np.int64) & _MAGNITUDE64)


def _number32(x: Any) -> Any:
    return np.int32(x).view(np.float32)


def _number64(x: Any) -> Any:
    return np.int64(x).view(np.float64)


_bits, _number = inlined(_bits32, _bits64), inlined(_number32, _number64)
"""Magnitudes as integers: LLVM vectorises their comparison, but not that of floats. NaN is the largest."""


@compiled
def _finite(x: Any) -> Any:
    """x, or 0 if it is not finite."""
    x = np.float64(x)
    return x if abs(x) < np.inf else 0.0


@compiled
def _as_one_row(x: Any, minus: Any, differs: bool, row: Any) -> None:
    """Sums of a table of one row, x or x − minus."""
    total = squares = 0.0
    k = _finite(x[0] - minus[0] if differs else x[0])
    for i in range(_u(x.size)):
        d = (x[i] - minus[i] if differs else x[i]) - k
        total += d
        squares += d * d
    row[slot.ORIGIN], row[slot.HEAD + slot.TOTAL], row[slot.HEAD + slot.SQUARES] = k, total, squares


@compiled
def _as_table(x: Any, row: Any, scratch: Any) -> None:
    """Sums of a table (N, C), down the columns, tile by tile."""
    n, columns, four, one, two, three, tile = _u(x.shape[0]), _u(x.shape[1]), _u(4), _u(1), _u(2), _u(3), _u(TILE)
    sums, squared, origins = scratch[:TILE], scratch[TILE : 2 * TILE], scratch[2 * TILE :]
    k0 = _finite(x[0, 0])
    within = total = squares = 0.0
    for low in range(_u(0), columns, tile):
        high = min(low + tile, columns)
        for j in range(low, high):
            sums[j - low] = squared[j - low] = 0.0
            origins[j - low] = _finite(x[0, j])
        for i in range(_u(0), n - n % four, four):
            for j in range(low, high):
                k = origins[j - low]
                d0, d1, d2, d3 = x[i, j] - k, x[i + one, j] - k, x[i + two, j] - k, x[i + three, j] - k
                sums[j - low] += (d0 + d1) + (d2 + d3)
                squared[j - low] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
        for i in range(n - n % four, n):
            for j in range(low, high):
                d = x[i, j] - origins[j - low]
                sums[j - low] += d
                squared[j - low] += d * d
        for j in range(low, high):
            offset = sums[j - low] / np.float64(x.shape[0])
            rest = squared[j - low] - sums[j - low] * offset
            within += 0.0 if rest < 0 else rest
            mean = (origins[j - low] - k0) + offset
            total += mean
            squares += mean * mean
    row[slot.ORIGIN], row[slot.HEAD + slot.WITHIN], row[slot.HEAD + slot.TOTAL], row[slot.HEAD + slot.SQUARES] = (
        k0,
        within,
        total,
        squares,
    )


@compiled
def _largest(x: Any) -> Any:
    most = _bits(x[0])
    for i in range(_u(x.size)):
        bits = _bits(x[i])
        most = bits if bits > most else most
    return _number(most)


@compiled
def _outside(x: Any, low: float, high: float) -> Any:
    """Share of elements outside the bounds; NaN does not count."""
    low, high = x.dtype.type(low), x.dtype.type(high)
    count = 0
    for i in range(_u(x.size)):
        count += (x[i] <= low) | (x[i] >= high)
    return count / x.size


@compiled
def _dead(x: Any, units: int, inner: int) -> Any:
    """Share of units that are nowhere above 0. A unit that is alive usually shows it early."""
    dead = 0
    for unit in range(_u(units)):
        alive = False
        for outer in range(_u(x.size // (units * inner))):
            first = (outer * _u(units) + unit) * _u(inner)
            for i in range(first, first + _u(inner)):
                alive |= not x[i] <= 0
            if alive:
                break
        dead += not alive
    return dead / units


@compiled
def _histogram(
    x: Any, minus: Any, differs: bool, stride: int, count: int, low: float, high: float, row: Any, scratch: Any
) -> None:
    """Histogram of ``count`` elements between low and high or, if these are NaN, the smallest and the largest."""
    least, most = np.inf, -np.inf
    for i in range(_u(count)):
        at = i * _u(stride)
        v = np.float64(x[at] - minus[at] if differs else x[at])
        scratch[i] = v
        if abs(v) < np.inf:
            least = v if v < least else least
            most = v if v > most else most
    if least <= most and low < high:
        least, most = low, high
    if least == most:
        least, most = least - 0.5, most + 0.5
    row[slot.LOW], row[slot.HIGH] = least, most
    counts = row[slot.HEAD + slot.SUMS :]
    last = counts.size - 1
    for i in range(_u(counts.size)):
        counts[i] = 0
    scale = counts.size / (most - least)
    for i in range(_u(count)):
        v = scratch[i]
        if abs(v) < np.inf:
            counts[_u(max(0.0, min((v - least) * scale, last)))] += 1


@compiled
def _measure(
    x: Any, minus: Any, differs: bool, columns: int, samples: int, low: float, high: float, units: int, inner: int,
    stride: int, count: int, least: float, most: float, row: Any, scratch: Any,
) -> None:  # fmt: skip
    """All statistics: of a table if there are ``columns``, saturation between bounds, dead units if there are ``units``."""
    row[slot.SIZE], row[slot.SAMPLES], row[slot.COLUMNS] = x.size, samples, columns if columns else x.size
    for i in range(_u(slot.HEAD), _u(slot.HEAD + slot.SUMS)):
        row[i] = np.nan
    if columns:
        _as_table(x.reshape(x.size // columns, columns), row, scratch)
        row[slot.HEAD + slot.LARGEST] = _largest(x)
    else:
        _as_one_row(x, minus, differs, row)
    if low < high:
        row[slot.HEAD + slot.SATURATED] = _outside(x, low, high)
    if units:
        row[slot.HEAD + slot.DEAD] = _dead(x, units, inner)
    if row.size > slot.HEAD + slot.SUMS:
        _histogram(x, minus, differs, stride, count, least, most, row, scratch)


def measure(x: Array, minus: Array | None, row: Array, look: Look, layout: Layout) -> None:
    low, high = look.flat or (math.nan, math.nan)
    least, most = look.range or (math.nan, math.nan)
    scratch = xp_of(x).empty(3 * TILE, np.float64)
    flat = x.reshape(-1)
    launch(
        _measure, flat, flat if minus is None else minus.reshape(-1), minus is not None,
        layout.columns if look.by_sample else 0, layout.samples, float(low), float(high),
        layout.units if look.rectifier else 0, layout.inner, layout.stride, layout.count, float(least), float(most),
        row, scratch,
    )  # fmt: skip
