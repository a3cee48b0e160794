"""The Numba twin of batch normalisation, see :mod:`kobai.ops.batch_norm.kernel`.

``kept`` is (7, C), its rows named below; ``sums``, (2, C) of float64, is kept too, as ``moments``: μ − k in float32 is not
exact enough to subtract from a sum. Loops work on channels [start, stop). The rectifier is a lower bound, NaN for none. Indices
are unsigned: Numba counts negative ones from the end, and a loop whose index may be negative does not vectorise.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from kobai.cpu.lanes import moments, rectified_slopes
from kobai.cpu.threads import GRAIN
from kobai.engine.dispatch import compiled
from kobai.ops._rows import launch_split
from kobai.xp import Array, xp_of

ORIGIN, OFFSET, INVSTD, SCALE, SHIFT, MEAN, VAR = range(7)
"""k; μ − k; 1/√(σ² + ε); that times w; b − offset · scale, so that y = (x − k) · scale + shift; μ and σ²."""

Kept: TypeAlias = tuple[Array, ...]
"""What backward needs; the (7, C) comes first."""

_TILE = 1024
"""Columns done at a time: their sums stay in the first-level cache, and rows are read in long pieces, which prefetch well."""

_WEIGHT, _BIAS, _RUNNING = 1, 2, 4
"""Flags for the arguments that are given; any vector stands in for the others."""

_u = np.uint64


@compiled
def _affine_rows(x: Any, origin: Any, scale: Any, shift: Any, y: Any, bound: float, start: int, stop: int) -> None:
    bound = x.dtype.type(bound)
    for i in range(_u(x.shape[0])):
        for j in range(_u(start), _u(stop)):
            value = (x[i, j] - origin[j]) * scale[j] + shift[j]
            y[i, j] = bound if value < bound else value  # NaN stays


@compiled
def _affine_planes(x: Any, origin: Any, scale: Any, shift: Any, y: Any, bound: float, start: int, stop: int) -> None:
    bound = x.dtype.type(bound)
    for c in range(_u(start), _u(stop)):
        k, a, b = origin[c], scale[c], shift[c]
        for i in range(_u(x.shape[0])):
            for j in range(_u(x.shape[2])):
                value = (x[i, c, j] - k) * a + b
                y[i, c, j] = bound if value < bound else value


@compiled
def _statistics(
    kept: Any, sums: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any,
    given: int, momentum: float, eps: float, n: int, start: int, stop: int,
) -> None:  # fmt: skip
    """Fill ``kept`` from the sums of x − k and of its squares."""
    for j in range(start, stop):
        offset = sums[0, j] / n
        var = sums[1, j] / n - offset * offset
        var = 0.0 if var < 0 else var
        mean = kept[ORIGIN, j] + offset
        invstd = 1 / np.sqrt(var + eps)
        scale = invstd * weight[j] if given & _WEIGHT else invstd
        kept[OFFSET, j], kept[INVSTD, j], kept[SCALE, j] = offset, invstd, scale
        kept[SHIFT, j] = bias[j] - offset * scale if given & _BIAS else -offset * scale
        kept[MEAN, j], kept[VAR, j] = mean, var
        if given & _RUNNING:
            running_mean[j] += momentum * (mean - running_mean[j])
            running_var[j] += momentum * (var * n / (n - 1) - running_var[j])


@compiled
def _gradients(
    kept: Any, moments: Any, sums: Any, terms: Any, dweight: Any, dbias: Any, n: int, start: int, stop: int
) -> None:
    """From the sums of dz and of dz (x − k) to dw, db, and the terms of dx = dz · scale + (x − k) · terms₀ + terms₁."""
    for j in range(start, stop):
        offset, invstd, scale = moments[0, j] / n, kept[INVSTD, j], kept[SCALE, j]
        along = (sums[1, j] - offset * sums[0, j]) * invstd
        slope = scale * invstd * along / n
        dweight[j], dbias[j] = along, sums[0, j]
        terms[0, j], terms[1, j] = -slope, offset * slope - scale * sums[0, j] / n


@compiled
def _train_rows(
    x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, y: Any, kept: Any, sums: Any,
    given: int, momentum: float, eps: float, bound: float, start: int, stop: int,
) -> None:  # fmt: skip
    """(N, C): down all columns at once."""
    n, one, two, three, four, tile = _u(x.shape[0]), _u(1), _u(2), _u(3), _u(4), _u(_TILE)
    for low in range(_u(start), _u(stop), tile):
        high = min(low + tile, _u(stop))
        for j in range(low, high):
            kept[ORIGIN, j] = x[0, j]
            sums[0, j] = sums[1, j] = 0
        for i in range(_u(0), n - n % four, four):
            for j in range(low, high):
                k = np.float64(kept[ORIGIN, j])
                d0, d1, d2, d3 = x[i, j] - k, x[i + one, j] - k, x[i + two, j] - k, x[i + three, j] - k
                sums[0, j] += (d0 + d1) + (d2 + d3)
                sums[1, j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
        for i in range(n - n % four, n):
            for j in range(low, high):
                d = x[i, j] - np.float64(kept[ORIGIN, j])
                sums[0, j] += d
                sums[1, j] += d * d
        _statistics(kept, sums, weight, bias, running_mean, running_var, given, momentum, eps, x.shape[0], low, high)
        _affine_rows(x, kept[ORIGIN], kept[SCALE], kept[SHIFT], y, bound, low, high)


@compiled
def _train_planes(
    x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, y: Any, kept: Any, sums: Any,
    given: int, momentum: float, eps: float, bound: float, start: int, stop: int,
) -> None:  # fmt: skip
    """(N, C, S): one channel after the other."""
    n = x.shape[0] * x.shape[2]
    for channel in range(start, stop):
        c = _u(channel)
        kept[ORIGIN, c] = x[0, c, 0]
        k = np.float64(x[0, c, 0])
        total = squares = 0.0
        for i in range(_u(x.shape[0])):
            t, q = moments(x[i, c], k)
            total += t
            squares += q
        sums[0, c], sums[1, c] = total, squares
        after = channel + 1
        _statistics(kept, sums, weight, bias, running_mean, running_var, given, momentum, eps, n, channel, after)
        _affine_planes(x, kept[ORIGIN], kept[SCALE], kept[SHIFT], y, bound, channel, after)


@compiled
def _backward_rows(
    dy: Any, x: Any, y: Any, kept: Any, moments: Any, dx: Any, dweight: Any, dbias: Any, sums: Any, terms: Any,
    bound: float, start: int, stop: int,
) -> None:  # fmt: skip
    n, one, two, tile = _u(x.shape[0]), _u(1), _u(2), _u(_TILE)
    bound, nought = x.dtype.type(bound), x.dtype.type(0)
    for low in range(_u(start), _u(stop), tile):
        high = min(low + tile, _u(stop))
        for j in range(low, high):
            sums[0, j] = sums[1, j] = 0
        for i in range(_u(0), n - n % two, two):
            for j in range(low, high):
                k = np.float64(kept[ORIGIN, j])
                d, e = dy[i, j], dy[i + one, j]  # always read: a conditional load would be a branch
                d = np.float64(nought if y[i, j] <= bound else d)
                e = np.float64(nought if y[i + one, j] <= bound else e)
                sums[0, j] += d + e
                sums[1, j] += d * (x[i, j] - k) + e * (x[i + one, j] - k)
        for i in range(n - n % two, n):
            for j in range(low, high):
                d = dy[i, j]
                d = np.float64(nought if y[i, j] <= bound else d)
                sums[0, j] += d
                sums[1, j] += d * (x[i, j] - np.float64(kept[ORIGIN, j]))
        _gradients(kept, moments, sums, terms, dweight, dbias, x.shape[0], low, high)
        for i in range(n):
            for j in range(low, high):
                d = dy[i, j]
                dz = nought if y[i, j] <= bound else d
                dx[i, j] = dz * kept[SCALE, j] + ((x[i, j] - kept[ORIGIN, j]) * terms[0, j] + terms[1, j])


@compiled
def _backward_planes(
    dy: Any, x: Any, y: Any, kept: Any, moments: Any, dx: Any, dweight: Any, dbias: Any, sums: Any, terms: Any,
    bound: float, start: int, stop: int,
) -> None:  # fmt: skip
    n = x.shape[0] * x.shape[2]
    bound, nought = x.dtype.type(bound), x.dtype.type(0)
    for channel in range(start, stop):
        c = _u(channel)
        k, scale = kept[ORIGIN, c], kept[SCALE, c]
        total = along = 0.0
        for i in range(_u(x.shape[0])):
            t, q = rectified_slopes(dy[i, c], y[i, c], bound, x[i, c], k)
            total += t
            along += q
        sums[0, c], sums[1, c] = total, along
        _gradients(kept, moments, sums, terms, dweight, dbias, n, channel, channel + 1)
        slope, level = terms[0, c], terms[1, c]
        for i in range(_u(x.shape[0])):
            for j in range(_u(x.shape[2])):
                d = dy[i, c, j]
                dz = nought if y[i, c, j] <= bound else d
                dx[i, c, j] = dz * scale + ((x[i, c, j] - k) * slope + level)


def _rows(x: Array) -> Array:
    """(N, C) as it is, everything else as (N, C, S)."""
    return x if x.ndim == 2 else x.reshape(*x.shape[:2], -1)


def _over_channels(kernel: Any, x: Array, *args: Any) -> None:
    """Run a kernel on all channels, which threads share if there is much to do."""
    launch_split(kernel, x.shape[1], x.size, GRAIN, *args)


def _bound(relu: bool) -> float:
    return 0.0 if relu else math.nan


def train(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    y: Array,
    momentum: float,
    eps: float,
    relu: bool,
) -> Kept:
    kept, sums = xp_of(x).empty((7, x.shape[1]), x.dtype), xp_of(x).empty((2, x.shape[1]), np.float64)
    spare = kept[ORIGIN]
    vectors = [spare if v is None else v for v in (weight, bias, running_mean, running_var)]
    given = (weight is not None) * _WEIGHT | (bias is not None) * _BIAS | (running_mean is not None) * _RUNNING
    kernel = _train_rows if x.ndim == 2 else _train_planes
    _over_channels(kernel, x, _rows(x), *vectors, _rows(y), kept, sums, given, momentum, eps, _bound(relu))
    return kept, sums


def backward(dz: Array, x: Array, y: Array | None, kept: Kept, dx: Array, dweight: Array, dbias: Array) -> None:
    kernel, shape = _backward_rows if x.ndim == 2 else _backward_planes, (2, x.shape[1])
    sums, terms = xp_of(x).empty(shape, np.float64), xp_of(x).empty(shape, x.dtype)
    value, bound = (dz, math.nan) if y is None else (y, 0.0)
    _over_channels(kernel, x, _rows(dz), _rows(x), _rows(value), *kept, _rows(dx), dweight, dbias, sums, terms, bound)


def affine(x: Array, mean: Array, scale: Array, shift: Array, y: Array, relu: bool) -> None:
    kernel = _affine_rows if x.ndim == 2 else _affine_planes
    _over_channels(kernel, x, _rows(x), mean, scale, shift, _rows(y), _bound(relu))
