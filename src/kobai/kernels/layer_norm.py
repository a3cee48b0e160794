"""Layer normalisation, y = w x̂ + b with x̂ = (x − μ) / √(σ² + ε) for every row of (R, D); without μ, by root mean square.

The gradient is that of :mod:`kobai.kernels.batch_norm`, by rows. The twins sum x − k with the row's first element as origin k,
as there, in float64.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from kobai.kernels.batch_norm import Backward, mean_over
from kobai.kernels.engine import compiled, launch, numba_runs
from kobai.kernels.threads import GRAIN, run_split
from kobai.xp import Array, xp_of


def layer_norm(
    x: Array, weight: Array | None, bias: Array | None, size: int, eps: float, centre: bool
) -> tuple[Array, Backward]:
    """Normalise every ``size`` elements of ``x``, as many as ``weight`` and ``bias`` have; without ``centre`` μ counts as 0."""
    if numba_runs(x, weight, bias) and x.size:
        return _numba(x, weight, bias, size, eps, centre)
    return _reference(x, weight, bias, size, eps, centre)


# --- reference --------------------------------------------------------------------------------------------------------


def standardized(xp: Any, rows: Array, eps: float, centre: bool = True) -> tuple[Array, Array]:
    """x̂ and 1/√(σ² + ε) (a column) of every row."""
    mean_of = mean_over(xp, rows.shape[1], rows.dtype)
    xhat = rows - (rows @ mean_of)[:, None] if centre else rows
    invstd = 1 / xp.sqrt((xhat * xhat) @ mean_of + eps)[:, None]
    return xhat * invstd, invstd


def standardized_backward(xp: Any, g: Array, xhat: Array, invstd: Array, centre: bool = True) -> Array:
    """dx where g is the gradient of x̂."""
    mean_of = mean_over(xp, g.shape[1], g.dtype)
    dx = g - xhat * ((g * xhat) @ mean_of)[:, None]
    if centre:
        dx -= (g @ mean_of)[:, None]
    dx *= invstd
    return dx


def _reference(
    x: Array, weight: Array | None, bias: Array | None, size: int, eps: float, centre: bool
) -> tuple[Array, Backward]:
    xp, shape = xp_of(x), x.shape
    xhat, invstd = standardized(xp, x.reshape(-1 if size else 0, size), eps, centre)
    y = xhat.copy() if weight is None else xhat * weight.reshape(-1)
    if bias is not None:
        y += bias.reshape(-1)

    def backward(dy: Array) -> Any:
        rows = dy.reshape(xhat.shape)

        def dx(out: Array | None) -> Array:
            g = rows if weight is None else rows * weight.reshape(-1)
            return standardized_backward(xp, g, xhat, invstd, centre).reshape(shape)

        return dx, lambda out: (rows * xhat).sum(axis=0), lambda out: rows.sum(axis=0)

    return y.reshape(shape), backward


# --- Numba ------------------------------------------------------------------------------------------------------------
#
# Places are counted without sign, see batch_norm.py.

_u = np.uint64

_ROWS = 16
"""Rows whose part in dw and db is added up in the dtype of x, before it is added to float64: that is half the work."""


@compiled
def _forward(x: Any, weight: Any, bias: Any, y: Any, kept: Any, centre: int, eps: float, start: int, stop: int) -> None:
    """``kept`` (2, R) gets μ − k and 1/√(σ² + ε)."""
    n = x.shape[1]
    for i in range(_u(start), _u(stop)):
        k = x[i, 0] if centre else x.dtype.type(0)
        total = squares = 0.0
        for j in range(_u(n)):
            d = x[i, j] - np.float64(k)
            total += d
            squares += d * d
        offset = total / n if centre else 0.0
        var = squares / n - offset * offset
        invstd = 1 / np.sqrt((0.0 if var < 0 else var) + eps)
        kept[0, i], kept[1, i] = offset, invstd
        scale, shift = x.dtype.type(invstd), x.dtype.type(-offset * invstd)
        for j in range(_u(n)):
            y[i, j] = ((x[i, j] - k) * scale + shift) * weight[j] + bias[j]


@compiled
def _backward(
    dy: Any, x: Any, weight: Any, kept: Any, dx: Any, near: Any, sums: Any, centre: int, start: int, stop: int
) -> None:
    """Slabs of rows, each with its own part of dw and db: ``sums`` (slabs, 2, D) and ``near``, of the dtype of x."""
    rows, n, last = x.shape[0], x.shape[1], _u(_ROWS - 1)
    nought = x.dtype.type(0)
    for slab in range(_u(start), _u(stop)):
        first, end = _u(rows * slab // len(sums)), _u(rows * (slab + 1) // len(sums))
        for j in range(_u(n)):
            near[slab, 0, j] = near[slab, 1, j] = sums[slab, 0, j] = sums[slab, 1, j] = 0
        for i in range(first, end):
            k = x[i, 0] if centre else nought
            total = along = 0.0
            for j in range(_u(n)):
                g = np.float64(dy[i, j] * weight[j])
                total += g
                along += g * (x[i, j] - np.float64(k))
            offset, scale = kept[0, i], kept[1, i]
            curve = scale * scale * scale * (along - offset * total) / n
            slope = x.dtype.type(-curve)
            level = x.dtype.type(offset * curve - (scale * total / n if centre else 0.0))
            shift = -offset * scale
            for j in range(_u(n)):
                d = x[i, j] - k
                near[slab, 0, j] += dy[i, j] * (d * scale + shift)
                near[slab, 1, j] += dy[i, j]
                dx[i, j] = dy[i, j] * weight[j] * scale + (d * slope + level)
            if (i & last) == last or i + _u(1) == end:
                for j in range(_u(n)):
                    sums[slab, 0, j] += near[slab, 0, j]
                    sums[slab, 1, j] += near[slab, 1, j]
                    near[slab, 0, j] = near[slab, 1, j] = 0


@compiled
def _together(sums: Any, dweight: Any, dbias: Any) -> None:
    for j in range(_u(dweight.size)):
        dw = db = 0.0
        for slab in range(_u(sums.shape[0])):
            dw += sums[slab, 0, j]
            db += sums[slab, 1, j]
        dweight[j], dbias[j] = dw, db


def _numba(
    x: Array, weight: Array | None, bias: Array | None, size: int, eps: float, centre: bool
) -> tuple[Array, Backward]:
    xp, rows = xp_of(x), x.size // size
    y, kept = xp.empty(x.shape, x.dtype), xp.empty((2, rows), x.dtype)
    scale = xp.ones(size, x.dtype) if weight is None else weight
    shift = xp.zeros(size, x.dtype) if bias is None else bias
    table = (rows, size)
    args = (x.reshape(table), scale.reshape(-1), shift.reshape(-1), y.reshape(table), kept, int(centre), eps)
    if x.size < 2 * GRAIN:
        launch(_forward, *args, 0, rows)
    else:
        launch(partial(run_split, grain=max(1, GRAIN // size)), _forward, rows, *args)

    def backward(dy: Array) -> Any:
        dx, dweight, dbias = xp.empty(x.shape, x.dtype), xp.empty(size, x.dtype), xp.empty(size, x.dtype)
        slabs = min(rows, max(1, 4 * x.size // GRAIN)) if x.size >= 2 * GRAIN else 1
        near, sums = xp.empty((slabs, 2, size), x.dtype), xp.empty((slabs, 2, size), np.float64)
        dy = xp.ascontiguousarray(dy)
        args = (
            dy.reshape(table),
            x.reshape(table),
            scale.reshape(-1),
            kept,
            dx.reshape(table),
            near,
            sums,
            int(centre),
        )
        if slabs == 1:
            launch(_backward, *args, 0, 1)
        else:
            launch(partial(run_split, grain=4), _backward, slabs, *args)
        launch(_together, sums, dweight, dbias)
        return lambda out: dx, lambda out: dweight, lambda out: dbias

    return y, backward
