"""Normalisation of each sample by itself: layer, group, instance, root mean square; and scaling to unit length.

All but the last are y = w x̂ + b with x̂ = (x − μ) / √(σ² + ε); the gradient is that of :mod:`kobai.ops.batch_norm`, by rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import finfo
from kobai.ops._args import as_float, normalize_axes, normalize_axis
from kobai.ops._halves import of_16_bits
from kobai.ops._sums import centred, total
from kobai.ops.batch_norm import batch_norm, need_float, need_vectors
from kobai.ops.norm import group_kernel as group_norm_kernels, layer_kernel as layer_norm_kernels
from kobai.ops.vector_norm import p_norm, p_norm_slope
from kobai.xp import Array, beside, quiet, xp_of

__all__ = ["group_norm", "instance_norm", "layer_norm", "normalize", "rms_norm"]


@primitive(
    sample=[
        lambda rng: (rng.uniform(-2, 2, (4, 5)), rng.normal(size=5), rng.normal(size=5)),
        lambda rng: (rng.uniform(-2, 2, (2, 3, 4)), rng.normal(size=(3, 4)), None),
        lambda rng: (rng.uniform(-2, 2, (5,)), None, None, {"dims": 1}),
        lambda rng: (rng.uniform(-2, 2, (2, 3, 5)), rng.normal(size=5), None, {"centre": False}),
        lambda rng: (rng.uniform(-2, 2, (0, 5)), rng.normal(size=5), rng.normal(size=5)),
    ],
    half="device",
    again=True,
)
def _layer_norm(
    x: Array, weight: Array | None, bias: Array | None, *, dims: int = 0, eps: float = 1e-5, centre: bool = True
) -> Any:
    x, weight, bias = of_16_bits(x, weight, bias)
    tail = x.shape[x.ndim - (dims if weight is None else weight.ndim) :]
    y, backward = layer_norm_kernels.layer_norm(x, weight, bias, math.prod(tail), eps, centre)

    def vjp(dy: Array) -> Any:
        dx, dweight, dbias = backward(dy)
        return dx, lambda: dweight().reshape(tail), lambda: dbias().reshape(tail)

    return y, vjp


def _normalized_shape(who: str, input: Tensor, normalized_shape: Sequence[int] | int) -> tuple[int, ...]:
    shape = need_float(who, input)
    wanted = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not wanted or tuple(shape[len(shape) - len(wanted) :]) != wanted or len(wanted) > len(shape):
        raise RuntimeError(f"{who}: expected input (..., {', '.join(map(str, wanted))}), got {tuple(shape)}")
    return wanted


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int] | int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """w (x − μ) / √(σ² + ε) + b, statistics over the last dimensions, which are ``normalized_shape``.

    ``weight`` and ``bias`` have that shape too. Ba, Kiros, Hinton, arXiv:1607.06450.

    >>> import kobai
    >>> kobai.nn.functional.layer_norm(kobai.tensor([[1., 3.], [10., 30.]]), (2,))
    tensor([[-1.0000,  1.0000],
            [-1.0000,  1.0000]])
    """
    tail = _normalized_shape("layer_norm", input, normalized_shape)
    need_vectors("layer_norm", tail, input._array.dtype, weight=weight, bias=bias)
    return _layer_norm(input, weight, bias, dims=len(tail), eps=eps)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int] | int, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """w x / √(mean(x²) + ε) over the last dimensions (Zhang and Sennrich, NeurIPS 2019); ε defaults to the dtype's epsilon.

    >>> import kobai
    >>> kobai.nn.functional.rms_norm(kobai.tensor([[1., 7.]]), (2,))  # √((1 + 49) / 2) = 5
    tensor([[0.2000, 1.4000]])
    """
    tail = _normalized_shape("rms_norm", input, normalized_shape)
    need_vectors("rms_norm", tail, input._array.dtype, weight=weight)
    eps = float(finfo(input._array.dtype).eps) if eps is None else eps
    return _layer_norm(input, weight, None, dims=len(tail), eps=eps, centre=False)


@primitive(
    sample=[
        lambda rng: (rng.uniform(-2, 2, (2, 6, 3)), rng.normal(size=6), rng.normal(size=6), 3),
        lambda rng: (rng.uniform(-2, 2, (3, 4)), None, rng.normal(size=4), 2),
        lambda rng: (rng.uniform(-2, 2, (2, 4, 2, 2)), rng.normal(size=4), None, 4),
        lambda rng: (rng.uniform(-2, 2, (2, 4, 3, 3)), rng.normal(size=4), rng.normal(size=4), 2),
        lambda rng: (rng.uniform(-2, 2, (0, 4, 3)), rng.normal(size=4), rng.normal(size=4), 2),
    ],
    half="device",
    again=True,
)
def _group_norm(x: Array, weight: Array | None, bias: Array | None, groups: int, *, eps: float = 1e-5) -> Any:
    x, weight, bias = of_16_bits(x, weight, bias)
    y, backward = group_norm_kernels.group_norm(x, weight, bias, groups, eps)
    return y, backward


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """w (x − μ) / √(σ² + ε) + b, statistics over each of ``num_groups`` groups of channels (Wu and He, ECCV 2018).

    ``input`` (N, C, ...), ``weight`` and ``bias`` (C).

    >>> import kobai
    >>> kobai.nn.functional.group_norm(kobai.tensor([[1., 3., 10., 30.]]), 2)
    tensor([[-1.0000,  1.0000, -1.0000,  1.0000]])
    """
    shape = need_float("group_norm", input)
    if len(shape) < 2:
        raise RuntimeError(f"group_norm: expected input (N, C, ...), got {tuple(shape)}")
    if num_groups < 1 or shape[1] % num_groups:
        raise RuntimeError(f"group_norm: expected num_groups to divide {shape[1]} channels, got {num_groups}")
    need_vectors("group_norm", shape[1:2], input._array.dtype, weight=weight, bias=bias)
    return _group_norm(input, weight, bias, num_groups, eps=eps)


@one_operation
def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """w (x − μ) / √(σ² + ε) + b, statistics over each channel of each sample (Ulyanov et al., arXiv:1607.08022).

    ``input`` (N, C, L) or (N, C, H, W), ...; the other tensors (C). Running statistics, where given, move towards the mean
    over the samples, and are used instead if not ``use_input_stats``.

    >>> import kobai
    >>> kobai.nn.functional.instance_norm(kobai.tensor([[[1., 3.], [10., 30.]]]))
    tensor([[[-1.0000,  1.0000],
             [-1.0000,  1.0000]]])
    """
    shape = need_float("instance_norm", input)
    if len(shape) < 3:
        raise ValueError(f"instance_norm: expected input (N, C, L) or (N, C, H, W), got {tuple(shape)}")
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    n = math.prod(shape[2:])
    if n == 1:
        raise ValueError(f"instance_norm: expected more than one value per channel in training, got {tuple(shape)}")
    need_vectors("instance_norm", shape[1:2], None, running_mean=running_mean, running_var=running_var)
    axes = tuple(range(2, len(shape)))
    for buffer, statistic in ((running_mean, _mean_of), (running_var, _var_of)):
        if buffer is not None and input._array.size:
            with beside(input._array):
                x = input._array.astype(np.promote_types(input._array.dtype, np.float32), copy=False)
                buffer._array[...] = (1 - momentum) * buffer._array + momentum * statistic(x, axes, n)
            buffer._bump()
    return group_norm(input, shape[1], weight, bias, eps)


def _mean_of(x: Array, axes: tuple[int, ...], n: int) -> Array:
    return total(x, (0, *axes)) / (n * x.shape[0])


def _var_of(x: Array, axes: tuple[int, ...], n: int) -> Array:
    """Unbiased variances, averaged over the samples."""
    off = centred(x, axes)
    return total(off * off, (0, *axes)) / ((n - 1) * x.shape[0])


# --- unit length ------------------------------------------------------------------------------------------------------


@primitive(
    sample=[
        lambda rng: (rng.uniform(-2, 2, (4, 3)), 2.0, (1,)),
        lambda rng: (rng.uniform(-2, 2, (2, 3, 4)), 3.0, (1,)),
        lambda rng: (rng.uniform(-2, 2, (4, 3)), 1.0, (0,)),
        lambda rng: (rng.uniform(-2, 2, (4, 3)), math.inf, (1,)),
        lambda rng: (rng.uniform(0.5, 2, (4, 3)), -1.0, (1,)),
        lambda rng: (rng.uniform(-2, 2, (4, 3)), 0.0, (1,)),
        lambda rng: (rng.uniform(-2, 2, (4, 3)), 2.0, (1,), {"eps": 10.0}),
        lambda rng: (rng.uniform(0.5, 2, ()), 2.0, ()),
        lambda rng: (rng.uniform(-2, 2, (0, 3)), 2.0, (1,)),
    ],
    again=True,
)
@quiet
def _normalize(x: Array, p: float, axes: tuple[int, ...], *, eps: float = 1e-12) -> Any:
    norm = p_norm(x, p, axes, True)
    divisor = xp_of(x).maximum(norm, eps)
    y = x / divisor

    def vjp(dy: Array) -> Any:
        # y = x / d: dx = dy / d − (Σ dy y) / d · d‖x‖/dx; below eps the norm does not count
        along = total(dy * (x / divisor), axes, True) * (norm > eps) / divisor
        return (dy / divisor - p_norm_slope(along, norm, x, p, axes, True),)

    return y, vjp


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(‖x‖ₚ, ε) along ``dim``, with the norm of :func:`kobai.norm`.

    >>> import kobai
    >>> kobai.nn.functional.normalize(kobai.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    x = as_float("normalize", input)
    return _normalize(x, float(p), normalize_axes("normalize", dim, x._array.ndim), eps=eps)
