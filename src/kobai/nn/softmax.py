"""``Softmax`` and its kin: activations along a dimension, as modules."""

from __future__ import annotations

from typing import ClassVar

from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.module import Module

__all__ = ["GLU", "LogSoftmax", "Softmax", "Softmax2d", "Softmin"]


class _AlongDim(Module):
    """f(x, dim): :class:`Softmax` and its kin."""

    _function: ClassVar[staticmethod[..., Tensor]]
    _repr_names = ("dim",)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return self._function(input, self.dim)


class GLU(_AlongDim):
    """a · σ(b), a and b the halves of x along ``dim``. Dauphin et al., arXiv:1612.08083.

    >>> import kobai
    >>> kobai.nn.GLU()(kobai.tensor([3.0, 4.0, 0.0, 100.0]))
    tensor([1.5000, 4.0000])
    """

    _function = staticmethod(F.glu)

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim)


class Softmax(_AlongDim):
    """eˣ / Σ eˣ along ``dim``, which must be given: a distribution over it.

    >>> import kobai
    >>> kobai.nn.Softmax(dim=-1)(kobai.zeros(4))
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    _function = staticmethod(F.softmax)


class Softmax2d(Module):
    """eˣ / Σ eˣ over the channels of images (N, C, H, W) or (C, H, W).

    >>> import kobai
    >>> kobai.nn.Softmax2d()(kobai.zeros(4, 1, 3)).flatten(1)[0]
    tensor([0.2500, 0.2500, 0.2500])
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected (N, C, H, W) or (C, H, W), got {tuple(input.shape)}")
        return F.softmax(input, -3)


class LogSoftmax(_AlongDim):
    """log(eˣ / Σ eˣ) along ``dim``, which must be given; without overflow.

    >>> import kobai
    >>> kobai.nn.LogSoftmax(dim=-1)(kobai.tensor([0.0, 1000.0]))
    tensor([-1000.,     0.])
    """

    _function = staticmethod(F.log_softmax)


class Softmin(_AlongDim):
    """Softmax of −x along ``dim``, which must be given.

    >>> import kobai
    >>> kobai.nn.Softmin(dim=-1)(kobai.tensor([0.0, 1.0, 200.0]))
    tensor([0.7311, 0.2689, 0.0000])
    """

    _function = staticmethod(F.softmin)
