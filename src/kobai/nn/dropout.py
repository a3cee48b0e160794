"""Dropout: in training, put random elements (or channels) to zero; in evaluation, do nothing."""

from __future__ import annotations

from typing import ClassVar

from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.module import Module

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class _Dropout(Module):
    """f(x, p, training, inplace)."""

    _function: ClassVar[staticmethod[..., Tensor]]
    _repr_names = ("p", "inplace")

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"{self._get_name()}: expected a probability p between 0 and 1, got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return self._function(input, self.p, self.training, self.inplace)


class Dropout(_Dropout):
    """In training each element is 0 with probability p, else x / (1 − p), so that its mean stays; any shape.

    The mask comes from the counter stream of the default generator: the same on every backend.
    Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.

    >>> import kobai
    >>> drop = kobai.nn.Dropout(0.5)
    >>> sorted(set(drop(kobai.ones(100)).tolist()))
    [0.0, 2.0]
    >>> drop.eval()(kobai.ones(2))
    tensor([1., 1.])
    """

    _function = staticmethod(F.dropout)


class Dropout1d(_Dropout):
    """As :class:`Dropout`, but whole channels at once: (N, C, L) or (C, L).

    >>> import kobai
    >>> channels = kobai.nn.Dropout1d(0.5)(kobai.ones(1, 64, 5)).sum(-1)
    >>> sorted(set(channels.flatten().tolist()))
    [0.0, 10.0]
    """

    _function = staticmethod(F.dropout1d)


class Dropout2d(_Dropout):
    """As :class:`Dropout`, but whole channels at once: (N, C, H, W). Three dimensions are read as (N, C, L), with a warning.

    >>> import kobai
    >>> channels = kobai.nn.Dropout2d(0.5)(kobai.ones(1, 64, 2, 2)).sum((-2, -1))
    >>> sorted(set(channels.flatten().tolist()))
    [0.0, 8.0]
    """

    _function = staticmethod(F.dropout2d)


class Dropout3d(_Dropout):
    """As :class:`Dropout`, but whole channels at once: (N, C, D, H, W) or (C, D, H, W).

    >>> import kobai
    >>> channels = kobai.nn.Dropout3d(0.5)(kobai.ones(1, 64, 2, 2, 2)).sum((-3, -2, -1))
    >>> sorted(set(channels.flatten().tolist()))
    [0.0, 16.0]
    """

    _function = staticmethod(F.dropout3d)


class AlphaDropout(_Dropout):
    """Dropout for :class:`SELU` networks: keeps mean 0 and variance 1. Klambauer et al., arXiv:1706.02515.

    >>> import kobai
    >>> drop = kobai.nn.AlphaDropout(0.5)
    >>> len(set(drop(kobai.ones(100)).tolist())), drop.eval()(kobai.ones(2))
    (2, tensor([1., 1.]))
    """

    _function = staticmethod(F.alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """As :class:`AlphaDropout`, but whole channels at once: (N, C, ...).

    >>> import kobai
    >>> y = kobai.nn.FeatureAlphaDropout(0.5)(kobai.ones(1, 8, 2, 2))
    >>> kobai.equal(y.amax((2, 3)), y.amin((2, 3)))  # every channel is of one number
    True
    """

    _function = staticmethod(F.feature_alpha_dropout)
