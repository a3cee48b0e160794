"""Distributions of absolute values: ``HalfNormal`` and ``HalfCauchy``."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.distributions import constraints
from kobai.distributions.continuous import Cauchy, Normal
from kobai.distributions.transformed import TransformedDistribution
from kobai.distributions.transforms import AbsTransform
from kobai.ops.gather import where


class _Half(TransformedDistribution):
    """Distribution of |x| for an x with ``scale``, symmetrical around 0."""

    arg_constraints: ClassVar[Any] = {"scale": constraints.positive}
    support = constraints.nonnegative
    _whole: Any

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        base = self._whole(0, scale, validate_args=False)
        self.scale = base.scale
        super().__init__(base, AbsTransform(), validate_args)

    @property
    def mode(self) -> Tensor:
        """0."""
        return self.scale * 0  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """log 2p(x) for x ≥ 0, else −∞."""
        x = self._validate_sample(value)
        return where(x >= 0, self.base_dist.log_prob(x) + math.log(2), -math.inf)  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """2P(x) − 1."""
        return 2 * self.base_dist.cdf(self._validate_sample(value)) - 1

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of (p + 1)/2."""
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        """That of both halves, less log 2."""
        return self.base_dist.entropy() - math.log(2)


class HalfNormal(_Half):
    """Distribution of |x| for a normal x of mean 0 and standard deviation ``scale``.

    >>> import kobai
    >>> kobai.distributions.HalfNormal(1.0).mean
    tensor(0.7979)
    """

    _whole = Normal

    @property
    def mean(self) -> Tensor:
        """σ √(2/π)."""
        return self.scale * math.sqrt(2 / math.pi)  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """σ² (1 − 2/π)."""
        return self.scale**2 * (1 - 2 / math.pi)  # type: ignore[no-any-return]


class HalfCauchy(_Half):
    """Distribution of |x| for a Cauchy-distributed x around 0, of width ``scale``.

    >>> import kobai
    >>> kobai.distributions.HalfCauchy(1.0).cdf(kobai.tensor(1.0))
    tensor(0.5000)
    """

    _whole = Cauchy

    @property
    def mean(self) -> Tensor:
        """∞."""
        return self.scale.detach() * math.inf  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """∞."""
        return self.scale.detach() * math.inf  # type: ignore[no-any-return]
