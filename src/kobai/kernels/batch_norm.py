"""Batch normalisation with a fused activation, y = f(w x̂ + b) with x̂ = (x − μ) / √(σ² + ε), per channel of (N, C) or (N, C, S).

μ and σ² are statistics over the n elements of a channel and depend on each of them, hence with dz = dy · f′

    dx = (g − mean(g) − x̂ · mean(g x̂)) / √(σ² + ε),  g = w dz.

The twins look at the data twice, once for sums and once for the result. They sum x − k, where the origin k is the channel's
first element: var = mean((x − k)²) − mean(x − k)² loses no digits to a large mean, for with an element of the channel as origin
it cancels at most n of n + 1 parts. Sums are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from kobai.kernels.engine import compiled, launch, numba_runs
from kobai.kernels.epilogue import Epilogue, epilogue
from kobai.kernels.threads import GRAIN, run_split
from kobai.xp import Array, xp_of

Backward = Callable[[Array], tuple[Any, Any, Any]]
"""dy → (dx, dweight, dbias), functions ``f(out)`` that give them: so the tape knows that nobody else holds the arrays."""


def train(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: Any,
    eps: float,
    activation: str | None,
) -> tuple[Array, Backward]:
    """Normalise by the statistics of the batch, which also move the running ones (in place)."""
    if numba_runs(x, weight, bias) and x.size:
        return _train_numba(x, weight, bias, running_mean, running_var, momentum, eps, activation)
    return _train_reference(x, weight, bias, running_mean, running_var, momentum, eps, activation)


def affine(x: Array, mean: Array, scale: Array, bias: Array | None, activation: str | None) -> Array:
    """f((x − mean) · scale + bias) per channel: batch normalisation in evaluation."""
    if numba_runs(x, mean, scale, bias) and x.size:
        return _affine_numba(x, mean, scale, bias, activation)
    return _affine_reference(x, mean, scale, bias, activation)


# --- reference --------------------------------------------------------------------------------------------------------


def mean_over(xp: Any, n: int, dtype: Any) -> Array:
    """The vector whose product with n elements is their mean: BLAS sums 100×100 float32 in 1.0 µs, NumPy's ``mean`` in 4.1."""
    return xp.full(n, 1 / n if n else 0.0, dtype)


def _per_channel(v: Array, ndim: int) -> Array:
    """(C) so that it broadcasts against (N, C) or (N, C, S)."""
    return v if ndim == 2 else v[:, None]


def _channel_mean(x: Array, over_batch: Array, over_space: Array | None) -> Array:
    """Mean of every channel of (N, C) or (N, C, S), shape (C)."""
    return over_batch @ (x if over_space is None else x @ over_space)


def _move(
    running_mean: Array | None, running_var: Array | None, momentum: Any, mean: Array, var: Array, n: int
) -> None:
    """running ← (1 − momentum) · running + momentum · batch; for the variance the unbiased estimate, as PyTorch."""
    if running_mean is not None:
        running_mean *= 1 - momentum
        running_mean += momentum * mean
    if running_var is not None:
        running_var *= 1 - momentum
        running_var += (momentum * n / (n - 1)) * var


def _train_reference(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: Any,
    eps: float,
    activation: str | None,
) -> tuple[Array, Backward]:
    xp, shape = xp_of(x), x.shape
    rows = x if x.ndim == 2 else x.reshape(*shape[:2], -1)
    ndim, n = rows.ndim, rows.size // shape[1]
    over_batch = mean_over(xp, shape[0], x.dtype)
    over_space = None if ndim == 2 else mean_over(xp, rows.shape[2], x.dtype)
    mean = _channel_mean(rows, over_batch, over_space)
    centred = rows - _per_channel(mean, ndim)
    y = centred * centred
    var = _channel_mean(y, over_batch, over_space)
    _move(running_mean, running_var, momentum, mean, var, n)
    invstd = 1 / xp.sqrt(var + eps)
    scale = invstd if weight is None else invstd * weight
    xp.multiply(centred, _per_channel(scale, ndim), out=y)  # the squares are not needed any more
    if bias is not None:
        y += _per_channel(bias, ndim)
    fused = epilogue("batch_norm", activation)
    if fused is not None:
        y = fused.apply(y)
    y = y.reshape(shape)
    value = None if fused is None else y

    def backward(dy: Array) -> Any:
        dz = (dy if fused is None else fused.backward(dy, value)).reshape(centred.shape)
        work = dz * centred
        mean_dz = _channel_mean(dz, over_batch, over_space)
        mean_dzx = invstd * _channel_mean(work, over_batch, over_space)

        def dx(out: Array | None) -> Array:
            # (dz − mean(dz) − x̂ mean(dz x̂)) · scale, in the memory of work, whose mean is taken
            xp.multiply(centred, _per_channel(invstd * mean_dzx, ndim), out=work)
            xp.add(work, _per_channel(mean_dz, ndim), out=work)
            xp.subtract(dz, work, out=work)
            xp.multiply(work, _per_channel(scale, ndim), out=work)
            return work.reshape(shape)

        return (
            dx,
            lambda out: xp.multiply(mean_dzx, n, out=out),
            lambda out: xp.multiply(mean_dz, n, out=out),
        )

    return y, backward


def _affine_reference(x: Array, mean: Array, scale: Array, bias: Array | None, activation: str | None) -> Array:
    channels = (-1, *(1,) * (x.ndim - 2))
    shift = -mean * scale if bias is None else bias - mean * scale
    y = x * scale.reshape(channels)
    y += shift.reshape(channels)
    fused = epilogue("batch_norm", activation)
    return y if fused is None else fused.apply(y)


# --- Numba ------------------------------------------------------------------------------------------------------------
#
# ``kept`` is (7, C), its rows named below, ``sums`` (2, C) of float64. Kernels work on channels [start, stop). They know the
# rectifier as a lower bound, NaN for none; the other activations have kernels of their own.
# Places in arrays are counted without sign: Numba counts negative ones from the end, and a loop that might vectorise does not.

_ORIGIN, _OFFSET, _INVSTD, _SCALE, _SHIFT, _MEAN, _VAR = range(7)
"""k; μ − k; 1/√(σ² + ε); that times w; b − offset · scale, so that y = (x − k) · scale + shift; μ and σ²."""

_TILE = 1024
"""Columns whose sums stay in the first-level cache while the rows go by, in long contiguous pieces that prefetching likes."""

_WEIGHT, _BIAS, _RUNNING = 1, 2, 4
"""Which arguments are there; the place of the others is taken by some vector."""

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
    """From the sums of x − k and of its squares to all that is kept."""
    for j in range(start, stop):
        offset = sums[0, j] / n
        var = sums[1, j] / n - offset * offset
        var = 0.0 if var < 0 else var
        mean = kept[_ORIGIN, j] + offset
        invstd = 1 / np.sqrt(var + eps)
        scale = invstd * weight[j] if given & _WEIGHT else invstd
        kept[_OFFSET, j], kept[_INVSTD, j], kept[_SCALE, j] = offset, invstd, scale
        kept[_SHIFT, j] = bias[j] - offset * scale if given & _BIAS else -offset * scale
        kept[_MEAN, j], kept[_VAR, j] = mean, var
        if given & _RUNNING:
            running_mean[j] += momentum * (mean - running_mean[j])
            running_var[j] += momentum * (var * n / (n - 1) - running_var[j])


@compiled
def _gradients(kept: Any, sums: Any, terms: Any, dweight: Any, dbias: Any, n: int, start: int, stop: int) -> None:
    """From the sums of dz and of dz (x − k) to dw, db, and the terms of dx = dz · scale + (x − k) · terms₀ + terms₁."""
    for j in range(start, stop):
        offset, invstd, scale = kept[_OFFSET, j], kept[_INVSTD, j], kept[_SCALE, j]
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
            kept[_ORIGIN, j] = x[0, j]
            sums[0, j] = sums[1, j] = 0
        for i in range(_u(0), n - n % four, four):
            for j in range(low, high):
                k = np.float64(kept[_ORIGIN, j])
                d0, d1, d2, d3 = x[i, j] - k, x[i + one, j] - k, x[i + two, j] - k, x[i + three, j] - k
                sums[0, j] += (d0 + d1) + (d2 + d3)
                sums[1, j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
        for i in range(n - n % four, n):
            for j in range(low, high):
                d = x[i, j] - np.float64(kept[_ORIGIN, j])
                sums[0, j] += d
                sums[1, j] += d * d
        _statistics(kept, sums, weight, bias, running_mean, running_var, given, momentum, eps, x.shape[0], low, high)
        _affine_rows(x, kept[_ORIGIN], kept[_SCALE], kept[_SHIFT], y, bound, low, high)


@compiled
def _train_planes(
    x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, y: Any, kept: Any, sums: Any,
    given: int, momentum: float, eps: float, bound: float, start: int, stop: int,
) -> None:  # fmt: skip
    """(N, C, S): one channel after the other."""
    n = x.shape[0] * x.shape[2]
    for channel in range(start, stop):
        c = _u(channel)
        kept[_ORIGIN, c] = x[0, c, 0]
        k = np.float64(x[0, c, 0])
        total = squares = 0.0
        for i in range(_u(x.shape[0])):
            for j in range(_u(x.shape[2])):
                d = x[i, c, j] - k
                total += d
                squares += d * d
        sums[0, c], sums[1, c] = total, squares
        after = channel + 1
        _statistics(kept, sums, weight, bias, running_mean, running_var, given, momentum, eps, n, channel, after)
        _affine_planes(x, kept[_ORIGIN], kept[_SCALE], kept[_SHIFT], y, bound, channel, after)


@compiled
def _backward_rows(
    dy: Any, x: Any, y: Any, kept: Any, dx: Any, dweight: Any, dbias: Any, sums: Any, terms: Any,
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
                k = np.float64(kept[_ORIGIN, j])
                d, e = dy[i, j], dy[i + one, j]  # read in any case: a load that may be left out is a jump
                d = np.float64(nought if y[i, j] <= bound else d)
                e = np.float64(nought if y[i + one, j] <= bound else e)
                sums[0, j] += d + e
                sums[1, j] += d * (x[i, j] - k) + e * (x[i + one, j] - k)
        for i in range(n - n % two, n):
            for j in range(low, high):
                d = dy[i, j]
                d = np.float64(nought if y[i, j] <= bound else d)
                sums[0, j] += d
                sums[1, j] += d * (x[i, j] - np.float64(kept[_ORIGIN, j]))
        _gradients(kept, sums, terms, dweight, dbias, x.shape[0], low, high)
        for i in range(n):
            for j in range(low, high):
                d = dy[i, j]
                dz = nought if y[i, j] <= bound else d
                dx[i, j] = dz * kept[_SCALE, j] + ((x[i, j] - kept[_ORIGIN, j]) * terms[0, j] + terms[1, j])


@compiled
def _backward_planes(
    dy: Any, x: Any, y: Any, kept: Any, dx: Any, dweight: Any, dbias: Any, sums: Any, terms: Any,
    bound: float, start: int, stop: int,
) -> None:  # fmt: skip
    n = x.shape[0] * x.shape[2]
    bound, nought = x.dtype.type(bound), x.dtype.type(0)
    for channel in range(start, stop):
        c = _u(channel)
        k, scale = kept[_ORIGIN, c], kept[_SCALE, c]
        total = along = 0.0
        for i in range(_u(x.shape[0])):
            for j in range(_u(x.shape[2])):
                d = dy[i, c, j]
                d = np.float64(nought if y[i, c, j] <= bound else d)
                total += d
                along += d * (x[i, c, j] - np.float64(k))
        sums[0, c], sums[1, c] = total, along
        _gradients(kept, sums, terms, dweight, dbias, n, channel, channel + 1)
        slope, level = terms[0, c], terms[1, c]
        for i in range(_u(x.shape[0])):
            for j in range(_u(x.shape[2])):
                d = dy[i, c, j]
                dz = nought if y[i, c, j] <= bound else d
                dx[i, c, j] = dz * scale + ((x[i, c, j] - k) * slope + level)


def _over_channels(kernel: Any, x: Array, *args: Any) -> None:
    """Run a kernel on all channels, which threads share if there is much to do."""
    channels = x.shape[1]
    if x.size < 2 * GRAIN:
        launch(kernel, *args, 0, channels)
    else:
        launch(partial(run_split, grain=max(1, GRAIN * channels // x.size)), kernel, channels, *args)


def _rows(x: Array) -> Array:
    """(N, C) as it is, everything else as (N, C, S)."""
    return x if x.ndim == 2 else x.reshape(*x.shape[:2], -1)


def _bound_or_epilogue(activation: str | None) -> tuple[float, Epilogue | None]:
    if activation == "relu":
        return 0.0, None
    return math.nan, epilogue("batch_norm", activation)


def _train_numba(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: Any,
    eps: float,
    activation: str | None,
) -> tuple[Array, Backward]:
    bound, fused = _bound_or_epilogue(activation)
    xp, channels = xp_of(x), x.shape[1]
    y = xp.empty(x.shape, x.dtype)
    kept, sums = xp.empty((7, channels), x.dtype), xp.empty((2, channels), np.float64)
    spare = kept[_ORIGIN]
    given = (_WEIGHT if weight is not None else 0) | (_BIAS if bias is not None else 0)
    both = running_mean is not None and running_var is not None
    if both and type(momentum) in (int, float) and numba_runs(x, running_mean, running_var):
        given |= _RUNNING
    _over_channels(
        _train_rows if x.ndim == 2 else _train_planes,
        x,
        _rows(x),
        spare if weight is None else weight,
        spare if bias is None else bias,
        running_mean if given & _RUNNING else spare,
        running_var if given & _RUNNING else spare,
        _rows(y),
        kept,
        sums,
        given,
        float(momentum) if given & _RUNNING else 0.0,
        eps,
        bound,
    )
    if not given & _RUNNING:
        _move(running_mean, running_var, momentum, kept[_MEAN], kept[_VAR], x.size // channels)
    if fused is not None:
        y = fused.apply(y)
    value = None if activation is None else y

    def backward(dy: Array) -> Any:
        dz = xp.ascontiguousarray(dy if fused is None else fused.backward(dy, value))
        dx, terms = xp.empty(x.shape, x.dtype), xp.empty((2, channels), x.dtype)
        dweight, dbias = xp.empty(channels, x.dtype), xp.empty(channels, x.dtype)
        _over_channels(
            _backward_rows if x.ndim == 2 else _backward_planes,
            x,
            _rows(dz),
            _rows(x),
            _rows(dz if value is None else value),
            kept,
            _rows(dx),
            dweight,
            dbias,
            xp.empty((2, channels), np.float64),
            terms,
            bound,
        )
        return lambda out: dx, lambda out: dweight, lambda out: dbias

    return y, backward


def _affine_numba(x: Array, mean: Array, scale: Array, bias: Array | None, activation: str | None) -> Array:
    bound, fused = _bound_or_epilogue(activation)
    xp = xp_of(x)
    y, shift = xp.empty(x.shape, x.dtype), xp.zeros(mean.shape, x.dtype) if bias is None else bias
    kernel = _affine_rows if x.ndim == 2 else _affine_planes
    _over_channels(kernel, x, _rows(x), mean, scale, shift, _rows(y), bound)
    return y if fused is None else fused.apply(y)
