"""Batch normalisation with a fused activation, y = f(w x̂ + b) with x̂ = (x − μ) / √(σ² + ε), per channel of (N, C) or (N, C, S).

μ and σ² are statistics over the n elements of a channel and depend on each of them, hence with dz = dy · f′

    dx = (g − mean(g) − x̂ · mean(g x̂)) / √(σ² + ε),  g = w dz.

The twins sum x − k, where the origin k is the channel's first element, so that a large mean costs no digits. Then one pass in
float64 gives both statistics, var = mean((x − k)²) − mean(x − k)²: with an element of the channel as origin this cancels at
most n of n + 1 parts, usually one of two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from kobai.dtypes import HALVES
from kobai.engine.dispatch import device, engine_for, host, kernel
from kobai.formula.many import dtype_of_numbers
from kobai.ops._epilogue import Epilogue, epilogue
from kobai.ops._halves import beside
from kobai.ops._matmul import matmul
from kobai.ops.batch_norm import device as cuda, loops
from kobai.ops.batch_norm.loops import MEAN, VAR
from kobai.xp import Array, xp_of

Backward = Callable[[Array], tuple[Any, Any, Any]]
"""dy → functions that return dx, dweight and dbias; functions tell the tape that nobody else holds the arrays."""


# --- reference --------------------------------------------------------------------------------------------------------


def mean_over(xp: Any, n: int, dtype: Any) -> Array:
    """The vector whose product with n elements is their mean: BLAS sums 100×100 float32 in 1.0 µs, NumPy's ``mean`` in 4.1."""
    return xp.full(n, 1 / n if n else 0.0, dtype)


def _per_channel(v: Array, ndim: int) -> Array:
    """(C) so that it broadcasts against (N, C) or (N, C, S)."""
    return v if ndim == 2 else v[:, None]


def _channel_mean(x: Array, over_batch: Array, over_space: Array | None) -> Array:
    """Mean of every channel of (N, C) or (N, C, S), shape (C)."""
    return matmul(over_batch, x if over_space is None else matmul(x, over_space))


def _move(
    running_mean: Array | None, running_var: Array | None, momentum: Any, mean: Array, var: Array, n: int
) -> None:
    """running ← (1 − momentum) · running + momentum · batch; for the variance the unbiased estimate, as PyTorch.

    A batch without elements has no statistics, and moves nothing.
    """
    if not n:
        return
    for running, share, batch in ((running_mean, momentum, mean), (running_var, momentum * n / max(n - 1, 1), var)):
        if running is not None and running.dtype in HALVES:
            running[...] = running.astype(np.float32) * (1 - momentum) + share * batch
        elif running is not None:
            running *= 1 - momentum
            running += share * batch


@kernel("x", halves=True, when=lambda x, weight, bias, *_: x.size and beside(x, weight) and beside(x, bias))
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
    xp, shape = xp_of(x), x.shape
    rows = x if x.ndim == 2 else x.reshape(*shape[:2], math.prod(shape[2:]))
    ndim, n = rows.ndim, shape[0] * math.prod(shape[2:])
    over_batch = mean_over(xp, shape[0], x.dtype)
    over_space = None if ndim == 2 else mean_over(xp, rows.shape[2], x.dtype)
    mean = _channel_mean(rows, over_batch, over_space)
    centred = rows - _per_channel(mean, ndim)
    left = _channel_mean(centred, over_batch, over_space)  # by rounding the mean
    centred -= _per_channel(left, ndim)
    mean += left
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

        def dx() -> Array:
            # (dz − mean(dz) − x̂ mean(dz x̂)) · scale, in the memory of work, whose mean is taken
            xp.multiply(centred, _per_channel(invstd * mean_dzx, ndim), out=work)
            xp.add(work, _per_channel(mean_dz, ndim), out=work)
            xp.subtract(dz, work, out=work)
            xp.multiply(work, _per_channel(scale, ndim), out=work)
            return work.reshape(shape)

        return dx, lambda: mean_dzx * n, lambda: mean_dz * n

    return y, backward


@kernel(
    "x", halves=True, when=lambda x, mean, scale, bias, _: x.size and all(beside(x, v) for v in (mean, scale, bias))
)
def affine(x: Array, mean: Array, scale: Array, bias: Array | None, activation: str | None) -> Array:
    """f((x − mean) · scale + bias) per channel: batch normalisation in evaluation."""
    channels = (-1, *(1,) * (x.ndim - 2))
    shift = -mean * scale if bias is None else bias - mean * scale
    y = x * scale.reshape(channels)
    y += shift.reshape(channels)
    fused = epilogue("batch_norm", activation)
    return y if fused is None else fused.apply(y)


# --- with a twin ------------------------------------------------------------------------------------------------------


def _rectifier_or_epilogue(activation: str | None) -> tuple[bool, Epilogue | None]:
    return (True, None) if activation == "relu" else (False, epilogue("batch_norm", activation))


def _train_twin(
    twin: Any,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    momentum: Any,
    eps: float,
    activation: str | None,
) -> tuple[Array, Backward]:
    relu, fused = _rectifier_or_epilogue(activation)
    xp, channels, wide = xp_of(x), x.shape[1], dtype_of_numbers(x.dtype)
    y = xp.empty(x.shape, x.dtype)
    both = running_mean is not None and running_var is not None and running_mean.dtype == wide
    if both and type(momentum) in (int, float) and engine_for((running_mean, running_var)):
        kept = twin.train(x, weight, bias, running_mean, running_var, y, float(momentum), eps, relu)
    else:
        kept = twin.train(x, weight, bias, None, None, y, 0.0, eps, relu)
        _move(running_mean, running_var, momentum, kept[0][MEAN], kept[0][VAR], x.size // channels)
    if fused is not None:
        y = fused.apply(y)
    value = None if activation is None else y

    def backward(dy: Array) -> Any:
        dz = xp.ascontiguousarray(dy if fused is None else fused.backward(dy, value))
        dx, dweight, dbias = xp.empty(x.shape, x.dtype), xp.empty(channels, wide), xp.empty(channels, wide)
        twin.backward(dz, x, value if relu else None, kept, dx, dweight, dbias)
        return lambda: dx, lambda: dweight, lambda: dbias

    return y, backward


def _affine_twin(twin: Any, x: Array, mean: Array, scale: Array, bias: Array | None, activation: str | None) -> Array:
    relu, fused = _rectifier_or_epilogue(activation)
    xp = xp_of(x)
    y, shift = xp.empty(x.shape, x.dtype), xp.zeros(mean.shape, mean.dtype) if bias is None else bias
    twin.affine(x, mean, scale, shift, y, relu)
    return y if fused is None else fused.apply(y)


for _kernel, _with in ((train, _train_twin), (affine, _affine_twin)):
    host(_kernel)(partial(_with, loops))
    device(_kernel)(partial(_with, cuda))
