"""Invertible functions with the logarithms of their Jacobian determinants, under the names of PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kobai.core.tensor import Size, Tensor
from kobai.distributions import constraints
from kobai.distributions.base import Distribution, summed
from kobai.distributions.transform import (
    CatTransform,
    ComposeTransform,
    IndependentTransform,
    ReshapeTransform,
    StackTransform,
    Transform,
    _InverseTransform as _InverseTransform,
    identity_transform,
    one_before,
)
from kobai.distributions.triangular import CorrCholeskyTransform, LowerCholeskyTransform, PositiveDefiniteTransform
from kobai.dtypes import finfo
from kobai.ops.activation import softplus
from kobai.ops.broadcast import broadcast_shapes
from kobai.ops.create import arange, as_tensor
from kobai.ops.joining import cat
from kobai.ops.pointwise import expm1
from kobai.ops.softmax import softmax

__all__ = [
    "AbsTransform",
    "AffineTransform",
    "CatTransform",
    "ComposeTransform",
    "CorrCholeskyTransform",
    "CumulativeDistributionTransform",
    "ExpTransform",
    "IndependentTransform",
    "LowerCholeskyTransform",
    "PositiveDefiniteTransform",
    "PowerTransform",
    "ReshapeTransform",
    "SigmoidTransform",
    "SoftmaxTransform",
    "SoftplusTransform",
    "StackTransform",
    "StickBreakingTransform",
    "TanhTransform",
    "Transform",
    "identity_transform",
]


class _Elementwise(Transform):
    """A rising function of one number, without numbers of its own: two of a kind are equal."""

    bijective = True
    sign: Any = 1

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    __hash__ = Transform.__hash__


class ExpTransform(_Elementwise):
    """y = eˣ.

    >>> import kobai
    >>> kobai.distributions.ExpTransform()(kobai.tensor(0.0))
    tensor(1.)
    """

    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return x.exp()  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """x."""
        return x


class SigmoidTransform(_Elementwise):
    """y = 1 / (1 + e⁻ˣ).

    >>> import kobai
    >>> kobai.distributions.SigmoidTransform()(kobai.tensor(0.0))
    tensor(0.5000)
    """

    codomain = constraints.unit_interval

    def _call(self, x: Tensor) -> Tensor:
        kind = finfo(x.dtype)
        return x.sigmoid().clamp(float(kind.tiny), 1 - float(kind.eps))  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        kind = finfo(y.dtype)
        y = y.clamp(float(kind.tiny), 1 - float(kind.eps))
        return y.log() - (-y).log1p()  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """−log(1 + e⁻ˣ) − log(1 + eˣ)."""
        return -softplus(-x) - softplus(x)


class SoftplusTransform(_Elementwise):
    """y = log(1 + eˣ).

    >>> import kobai
    >>> kobai.distributions.SoftplusTransform()(kobai.tensor(0.0))
    tensor(0.6931)
    """

    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return (-expm1(-y)).log() + y  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """−log(1 + e⁻ˣ)."""
        return -softplus(-x)


class TanhTransform(_Elementwise):
    """y = tanh x.

    >>> import kobai
    >>> kobai.distributions.TanhTransform()(kobai.tensor(0.0))
    tensor(0.)
    """

    codomain = constraints.interval(-1.0, 1.0)

    def _call(self, x: Tensor) -> Tensor:
        return x.tanh()  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return y.atanh()  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """2 (log 2 − x − log(1 + e⁻²ˣ)), which keeps its digits where tanh is near ±1."""
        return 2 * (math.log(2) - x - softplus(-2 * x))


class AbsTransform(Transform):
    """y = |x|, which has no inverse; that of ``inv`` is y itself.

    >>> import kobai
    >>> kobai.distributions.AbsTransform()(kobai.tensor(-2.0))
    tensor(2.)
    """

    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return x.abs()  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AbsTransform)

    __hash__ = Transform.__hash__


class PowerTransform(Transform):
    """y = x to the power ``exponent``, of positive numbers.

    >>> import kobai
    >>> kobai.distributions.PowerTransform(2.0)(kobai.tensor(3.0))
    tensor(9.)
    """

    domain = constraints.positive
    codomain = constraints.positive
    bijective = True

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.exponent = exponent if isinstance(exponent, Tensor) else as_tensor(exponent)

    @property
    def sign(self) -> Any:
        """That of the exponent."""
        return self.exponent.sign()

    def _call(self, x: Tensor) -> Tensor:
        return x**self.exponent

    def _inverse(self, y: Tensor) -> Tensor:
        return y ** (1 / self.exponent)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |exponent · y / x|."""
        return (self.exponent * y / x).abs().log()  # type: ignore[no-any-return]

    def forward_shape(self, shape: Sequence[int]) -> Any:
        """Broadcast with the exponent."""
        return broadcast_shapes(shape, self.exponent.shape)

    inverse_shape = forward_shape

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PowerTransform) and bool((self.exponent == other.exponent).all())

    __hash__ = Transform.__hash__


class AffineTransform(Transform):
    """y = loc + scale · x, of events of ``event_dim`` dimensions.

    >>> import kobai
    >>> kobai.distributions.AffineTransform(1.0, 2.0)(kobai.tensor(3.0))
    tensor(7.)
    """

    bijective = True

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale, self._event_dim = loc, scale, event_dim
        self.domain = self.codomain = (
            constraints.independent(constraints.real, event_dim) if event_dim else constraints.real
        )

    @property
    def sign(self) -> Any:
        """That of the scale."""
        return self.scale.sign() if isinstance(self.scale, Tensor) else (self.scale > 0) - (self.scale < 0)

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + self.scale * x  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |scale|, for every element of an event."""
        scale = (
            self.scale
            if isinstance(self.scale, Tensor)
            else as_tensor(float(self.scale), dtype=x.dtype, device=x.device)
        )
        return summed(scale.abs().log().expand(broadcast_shapes(x.shape, scale.shape)), self._event_dim)

    def forward_shape(self, shape: Sequence[int]) -> Any:
        """Broadcast with loc and scale."""
        return broadcast_shapes(shape, getattr(self.loc, "shape", ()), getattr(self.scale, "shape", ()))

    inverse_shape = forward_shape

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AffineTransform):
            return False
        pairs = ((self.loc, other.loc), (self.scale, other.scale))
        return all(
            a is b or (not isinstance(same := a == b, Tensor) and same) or bool(as_tensor(same).all()) for a, b in pairs
        )

    __hash__ = Transform.__hash__


class CumulativeDistributionTransform(Transform):
    """y = P(X ≤ x) of a distribution of numbers.

    >>> import kobai
    >>> from kobai.distributions import CumulativeDistributionTransform, Normal
    >>> CumulativeDistributionTransform(Normal(0.0, 1.0))(kobai.tensor(0.0))
    tensor(0.5000)
    """

    bijective = True
    codomain = constraints.unit_interval
    sign = 1

    def __init__(self, distribution: Distribution, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.distribution = distribution

    @property
    def domain(self) -> Any:
        """The support of the distribution."""
        return self.distribution.support

    def _call(self, x: Tensor) -> Tensor:
        return self.distribution.cdf(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(x)."""
        return self.distribution.log_prob(x)


class SoftmaxTransform(Transform):
    """y = softmax x, which has no inverse; ``inv`` gives log y.

    >>> import kobai
    >>> kobai.distributions.SoftmaxTransform()(kobai.zeros(2))
    tensor([0.5000, 0.5000])
    """

    domain = constraints.real_vector
    codomain = constraints.simplex

    def _call(self, x: Tensor) -> Tensor:
        return softmax(x, -1)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SoftmaxTransform)

    __hash__ = Transform.__hash__


class StickBreakingTransform(Transform):
    """K − 1 numbers as K probabilities: a stick is broken K − 1 times, each time at the share σ(xᵢ − log(K − i)) of the rest.

    >>> import kobai
    >>> kobai.distributions.StickBreakingTransform()(kobai.zeros(3))
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def _rest(self, x: Tensor) -> Tensor:
        """log(K − i)."""
        k = x.shape[-1]
        return arange(k, 0, -1, dtype=x.dtype, device=x.device).log()  # type: ignore[no-any-return]

    def _call(self, x: Tensor) -> Tensor:
        z = (x - self._rest(x)).sigmoid()
        left = one_before((1 - z).cumprod(-1))
        return cat([z, z.new_ones(*z.shape[:-1], 1)], -1) * left

    def _inverse(self, y: Tensor) -> Tensor:
        shares = y[..., :-1]
        left = (1 - shares.cumsum(-1)).clamp(min=float(finfo(y.dtype).tiny))
        return shares.log() - left.log() + self._rest(shares)  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Σ (log(1 − zᵢ) + log yᵢ)."""
        x = x - self._rest(x)
        return (y[..., :-1].log() - softplus(x)).sum(-1)  # type: ignore[no-any-return]

    def forward_shape(self, shape: Sequence[int]) -> Any:
        """One more."""
        return Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Sequence[int]) -> Any:
        """One less."""
        return Size((*shape[:-1], shape[-1] - 1))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StickBreakingTransform)

    __hash__ = Transform.__hash__
