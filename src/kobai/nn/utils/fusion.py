"""A batch norm in evaluation is linear, y = s x + b, and can be taken into the weights of the layer before it."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from kobai.core.tensor import Tensor
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter

M = TypeVar("M", bound=Module)

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval", "fuse_linear_bn_weights"]


def fuse_conv_bn_eval(conv: M, bn: Module, transpose: bool = False) -> M:
    """A copy of a convolution (``transpose``: a transposed one) that computes bn(conv(x)); both in evaluation.

    >>> import kobai
    >>> conv, bn = kobai.nn.Conv2d(3, 4, 3).eval(), kobai.nn.BatchNorm2d(4).eval()
    >>> x = kobai.randn(1, 3, 5, 5)
    >>> kobai.allclose(kobai.nn.utils.fuse_conv_bn_eval(conv, bn)(x), bn(conv(x)), atol=1e-5)
    True
    """
    fused: Any = _copied("fuse_conv_bn_eval", conv, bn)
    given: Any = (*_numbers(conv, bn), transpose)
    fused.weight, fused.bias = fuse_conv_bn_weights(*given)
    return fused  # type: ignore[no-any-return]


def fuse_conv_bn_weights(
    conv_w: Tensor,
    conv_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight s · w and bias s (b − mean) + β of the fused layer, s = γ / √(variance + ε) for each output channel.

    >>> import kobai
    >>> one = kobai.ones(1)
    >>> w, b = kobai.nn.utils.fuse_conv_bn_weights(kobai.ones(1, 1, 1), None, one, 4 * one, 0.0, 6 * one, one)
    >>> w.item(), b.item()  # (x − 1) · 6 / 2 + 1
    (3.0, -2.0)
    """
    scale = (bn_rv + bn_eps).rsqrt() if bn_w is None else bn_w * (bn_rv + bn_eps).rsqrt()
    outputs = scale.numel() if transpose else conv_w.shape[0]
    shift = -bn_rm.expand(outputs) if conv_b is None else conv_b - bn_rm
    bias = shift * scale if bn_b is None else shift * scale + bn_b
    if transpose:  # (in, out / groups, ...), of which the rows of a group lie together
        inputs, each, *size = conv_w.shape
        parts = conv_w.reshape(outputs // each, -1, each, *size)
        weight = (parts * scale.reshape(-1, 1, each, *(1,) * len(size))).reshape(inputs, each, *size)
    else:
        weight = conv_w * scale.reshape(-1, *(1,) * (conv_w.ndim - 1))
    kept = conv_w.requires_grad, conv_w.requires_grad if conv_b is None else conv_b.requires_grad
    return Parameter(weight.detach().to(conv_w.dtype), kept[0]), Parameter(bias.detach().to(conv_w.dtype), kept[1])


def fuse_linear_bn_eval(linear: M, bn: Module) -> M:
    """A copy of a dense layer that computes bn(linear(x)); both in evaluation.

    >>> import kobai
    >>> linear, bn = kobai.nn.Linear(3, 4).eval(), kobai.nn.BatchNorm1d(4).eval()
    >>> x = kobai.randn(2, 3)
    >>> kobai.allclose(kobai.nn.utils.fuse_linear_bn_eval(linear, bn)(x), bn(linear(x)), atol=1e-5)
    True
    """
    fused: Any = _copied("fuse_linear_bn_eval", linear, bn)
    features, channels = linear.out_features, bn.num_features
    if channels not in (1, features):
        raise AssertionError(f"fuse_linear_bn_eval: expected a batch norm of {features} features or 1, got {channels}")
    fused.weight, fused.bias = fuse_linear_bn_weights(*_numbers(linear, bn))
    return fused  # type: ignore[no-any-return]


def fuse_linear_bn_weights(
    linear_w: Tensor,
    linear_b: Tensor | None,
    bn_rm: Tensor,
    bn_rv: Tensor,
    bn_eps: float,
    bn_w: Tensor | None,
    bn_b: Tensor | None,
) -> tuple[Parameter, Parameter]:
    """:func:`fuse_conv_bn_weights` of a dense layer (out, in).

    >>> import kobai
    >>> one = kobai.ones(1)
    >>> w, b = kobai.nn.utils.fuse_linear_bn_weights(kobai.ones(1, 2), one, one, 4 * one, 0.0, 6 * one, one)
    >>> w.tolist(), b.tolist()
    ([[3.0, 3.0]], [1.0])
    """
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def _copied(who: str, layer: M, bn: Module) -> Any:
    if layer.training or bn.training:
        raise AssertionError(f"{who}: expected both layers in evaluation, call eval() first")
    if bn.running_mean is None:
        raise AssertionError(f"{who}: expected a batch norm with running statistics, got track_running_stats=False")
    return copy.deepcopy(layer)


def _numbers(layer: Any, bn: Any) -> tuple[Any, ...]:
    return layer.weight, layer.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
