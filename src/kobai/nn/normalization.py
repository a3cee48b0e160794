"""Normalisation within one example: ``LayerNorm``, ``GroupNorm``, ``RMSNorm``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kobai.core.tensor import Tensor
from kobai.nn import functional as F, init
from kobai.nn.linear import _real, _size
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
from kobai.ops.create import empty

__all__ = ["GroupNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]


def _shape(who: str, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not sizes:
        raise ValueError(f"{who}: expected at least one dimension in normalized_shape, got ()")
    return tuple(_size(who, "normalized_shape", size) for size in sizes)


class _Affine(Module):
    """A normalisation with a trained ``weight``, 1 at first, and ``bias``, 0 at first; either may be left out."""

    weight: Parameter | None
    bias: Parameter | None

    def _add_affine(self, shape: Any, device: Any, dtype: Any, **wanted: bool) -> None:
        for name, is_wanted in wanted.items():
            self.register_parameter(name, Parameter(empty(shape, device=device, dtype=dtype)) if is_wanted else None)

    def reset_parameters(self) -> None:
        """Reset: weight 1, bias 0."""
        for name, fill in (("weight", init.ones_), ("bias", init.zeros_)):
            parameter = self._parameters.get(name)
            if parameter is not None:
                fill(parameter)


class LayerNorm(_Affine):
    """y = (x − mean) / √(var + eps) · weight + bias, mean and variance over the last dimensions of each example.

    Args:
        normalized_shape: sizes of these last dimensions; of ``weight`` and ``bias`` too.
        eps: added to the (biased) variance.
        elementwise_affine: whether there are ``weight`` and ``bias``; ``bias=False`` leaves out the latter.
        device, dtype: of the parameters.

    Ba, Kiros, Hinton, arXiv:1607.06450.

    >>> import kobai
    >>> kobai.nn.LayerNorm(2, elementwise_affine=False)(kobai.tensor([[1.0, 3.0]]))
    tensor([[-1.0000,  1.0000]])
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape("LayerNorm", normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        affine = elementwise_affine
        self._add_affine(self.normalized_shape, device, dtype, weight=affine, bias=affine and bias)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """(*, *normalized_shape) → the same."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
            f"bias={self.bias is not None}"
        )


class RMSNorm(_Affine):
    """y = x / √(mean(x²) + eps) · weight over the last dimensions of each example. arXiv:1910.07467.

    ``eps=None`` means the machine epsilon of the input's dtype. Arguments as those of :class:`LayerNorm`.

    >>> import kobai
    >>> kobai.nn.RMSNorm(2)(kobai.tensor([[3.0, 4.0]])).shape
    kobai.Size([1, 2])
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _shape("RMSNorm", normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._add_affine(self.normalized_shape, device, dtype, weight=elementwise_affine)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """(*, *normalized_shape) → the same."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(_Affine):
    """y = (x − mean) / √(var + eps) · weight + bias, mean and variance over each of ``num_groups`` groups of channels.

    Input (N, num_channels, *); ``weight`` and ``bias`` are (num_channels). Wu and He, arXiv:1803.08494.

    >>> import kobai
    >>> kobai.nn.GroupNorm(2, 4)(kobai.randn(3, 4, 5)).shape
    kobai.Size([3, 4, 5])
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_groups = _size("GroupNorm", "num_groups", num_groups)
        self.num_channels = _size("GroupNorm", "num_channels", num_channels)
        if num_groups == 0 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.eps = _real("GroupNorm", "eps", eps)
        self.affine = affine
        self._add_affine(num_channels, device, dtype, weight=affine, bias=affine and bias)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """(N, num_channels, *) → the same."""
        if input.ndim < 2 or input.shape[1] != self.num_channels:
            raise ValueError(f"GroupNorm: expected input (N, {self.num_channels}, *), got {tuple(input.shape)}")
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        bias = self.bias is not None
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, bias={bias}"


class LocalResponseNorm(Module):
    """y = x / (k + α · mean of x² over ``size`` neighbouring channels)^β, see :func:`kobai.nn.functional.local_response_norm`.

    Krizhevsky, Sutskever, Hinton, NIPS 2012.

    >>> import kobai
    >>> kobai.nn.LocalResponseNorm(1, alpha=3.0, beta=0.5)(kobai.ones(1, 2, 1))
    tensor([[[0.5000],
             [0.5000]]])
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *) → the same."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
