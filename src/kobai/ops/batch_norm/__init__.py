"""Batch normalisation, one primitive for training and one for evaluation; the mathematics is in ``kernel.py``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, HALVES
from kobai.ops._args import need_tensor
from kobai.ops._epilogue import epilogue
from kobai.ops._halves import of_16_bits
from kobai.ops._sums import total
from kobai.ops.batch_norm import kernel as batch_norm_kernels
from kobai.xp import Array, xp_of

__all__ = ["batch_norm"]


def need_float(who: str, input: Any) -> tuple[int, ...]:
    """Shape of ``input``, checked to be a float Tensor."""
    need_tensor(who, input)
    if input._array.dtype.kind not in FLOATING:
        raise TypeError(f"{who}: expected a float tensor, got {input.dtype}")
    return input._array.shape  # type: ignore[no-any-return]


def need_vectors(who: str, shape: tuple[int, ...], dtype: Any, **vectors: Tensor | None) -> None:
    """Complain about parameters and buffers of another shape, or another dtype unless ``dtype`` is None."""
    for name, vector in vectors.items():
        if vector is None:
            continue
        need_tensor(who, vector)
        if vector._array.shape != shape:
            raise RuntimeError(f"{who}: expected {name} {shape}, got {tuple(vector.shape)}")
        mixed = dtype in HALVES and vector._array.dtype == np.float32  # as autocast leaves parameters
        if dtype is not None and vector._array.dtype != dtype and not mixed:
            raise RuntimeError(f"{who}: expected {name} of {dtype} as the input, got {vector.dtype}")


def _case(*shape: int, running: bool = False, weight: bool = True, bias: bool = True, **options: Any) -> Any:
    """A sample: input, running mean and variance, weight and bias of three channels."""

    def draw(rng: np.random.Generator) -> tuple[Any, ...]:
        moments = (rng.normal(size=3), rng.uniform(0.5, 2, 3)) if running else (None, None)
        vectors = [rng.normal(size=3) if given else None for given in (weight, bias)]
        return rng.uniform(-2, 2, shape), *moments, *vectors, options

    return draw


@primitive(
    sample=[
        _case(6, 3),
        _case(4, 3, 2, bias=False),
        _case(2, 3, 2, 2, weight=False),
        _case(6, 3, activation="relu"),
        _case(4, 3, 2, weight=False, bias=False, activation="tanh"),
        _case(0, 3, 2, 2, running=True),
    ],
    half="device",
    updates=(1, 2),
    again=True,
)
def _batch_norm(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None,
    bias: Array | None,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
) -> Any:
    """Normalise by the statistics of the batch, which also move the running ones (in place, outside the tape)."""
    x, weight, bias = of_16_bits(x, weight, bias)
    y, backward = batch_norm_kernels.train(x, weight, bias, running_mean, running_var, momentum, eps, activation)

    def vjp(dy: Array) -> Any:
        dx, dweight, dbias = backward(dy)
        return dx, None, None, dweight, dbias

    return y, vjp


@primitive(
    sample=[
        _case(6, 3, running=True),
        _case(2, 3, 2, 2, running=True, weight=False, bias=False),
        _case(4, 3, 2, running=True, bias=False, activation="relu"),
        _case(0, 3, running=True),
    ],
    half="device",
    again=True,
)
def _batch_norm_eval(
    x: Array,
    running_mean: Array,
    running_var: Array,
    weight: Array | None,
    bias: Array | None,
    *,
    eps: float = 1e-5,
    activation: str | None = None,
) -> Any:
    """Normalise by the running statistics: one affine function per channel."""
    x, running_mean, running_var, weight, bias = of_16_bits(x, running_mean, running_var, weight, bias)
    xp, ndim = xp_of(x), x.ndim
    channels = (-1, *(1,) * (ndim - 2))
    mean = running_mean.copy()  # the buffer may move on before backward
    invstd = 1 / xp.sqrt(running_var + eps)
    scale = invstd if weight is None else invstd * weight
    y = batch_norm_kernels.affine(x, mean, scale, bias, activation)
    fused = epilogue("batch_norm", activation)
    value = None if fused is None else y
    others = (0, *range(2, ndim))

    def vjp(dy: Array) -> Any:
        dz = dy if fused is None else fused.backward(dy, value)

        def dbias() -> Array:
            return total(dz, others)

        def dweight() -> Array:
            return invstd * total(dz * (x - mean.reshape(channels)), others)

        return (
            lambda: dz * scale.reshape(channels),
            lambda: -scale * dbias(),
            lambda: -0.5 * scale * invstd * dweight(),
            dweight,
            dbias,
        )

    return y, vjp


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
) -> Tensor:
    """y = f(w (x − μ) / √(σ² + ε) + b) per channel (Ioffe and Szegedy, ICML 2015).

    ``input`` (N, C), (N, C, L) or (N, C, H, W), ...; the other tensors (C). With ``training`` μ and σ² are those of the
    batch (σ² biased), and running ← (1 − momentum) · running + momentum · batch (σ² unbiased) in place; otherwise they
    are the running ones. ``activation`` (None, ``"relu"``, ``"sigmoid"``, ``"tanh"``) is applied in place.

    An empty batch gives an empty result and moves nothing; its gradients are zero.

    Errors: ValueError for input without channels, for one value per channel in training, and for ε < 0 (in training ≤ 0).

    >>> import kobai
    >>> x = kobai.tensor([[0.0, 1.0], [2.0, 5.0]])
    >>> kobai.nn.functional.batch_norm(x, None, None, training=True)
    tensor([[-1.0000, -1.0000],
            [ 1.0000,  1.0000]])
    """
    shape = need_float("batch_norm", input)
    if len(shape) < 2:
        raise ValueError(f"batch_norm: expected input (N, C) or (N, C, ...), got {tuple(shape)}")
    if not (eps > 0 or (eps == 0 and not training)):  # in training √ε divides the gradient of a channel without spread
        raise ValueError(f"batch_norm: expected eps {'> 0 in training' if training else '>= 0'}, got {eps}")
    dtype = input._array.dtype
    need_vectors("batch_norm", shape[1:2], None, running_mean=running_mean, running_var=running_var)
    need_vectors("batch_norm", shape[1:2], dtype, weight=weight, bias=bias)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: expected running_mean and running_var when not training, got None")
        return _batch_norm_eval(input, running_mean, running_var, weight, bias, eps=eps, activation=activation)
    if input._array.size <= shape[1] and shape[0] * math.prod(shape[2:]) == 1:
        raise ValueError(f"batch_norm: expected more than one value per channel in training, got input {tuple(shape)}")
    return _batch_norm(
        input, running_mean, running_var, weight, bias, momentum=momentum, eps=eps, activation=activation
    )
