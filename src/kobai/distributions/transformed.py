"""Distributions of functions of draws: ``TransformedDistribution``, and those that are one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.distributions import constraints
from kobai.distributions.base import Distribution, parameters, summed
from kobai.distributions.continuous import Exponential, Normal, Uniform
from kobai.distributions.gamma import Gamma
from kobai.distributions.multivariate import Independent
from kobai.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ExpTransform,
    PowerTransform,
    StickBreakingTransform,
    Transform,
)
from kobai.ops.create import as_tensor
from kobai.ops.gather import where
from kobai.ops.special import digamma, lgamma

EULER = 0.57721566490153286061  # γ


class TransformedDistribution(Distribution):
    """Distribution of tₙ(… t₁(x)) for an x of ``base_distribution``: log p(y) = log p(x) − Σ log |det ∂tᵢ|.

    >>> import kobai
    >>> from kobai.distributions import AffineTransform, Normal, TransformedDistribution
    >>> d = TransformedDistribution(Normal(0.0, 1.0), [AffineTransform(1.0, 2.0)])
    >>> d.cdf(kobai.tensor(1.0))
    tensor(0.5000)
    """

    def __init__(
        self,
        base_distribution: Distribution,
        transforms: Transform | Sequence[Transform],
        validate_args: bool | None = None,
    ) -> None:
        self.transforms = [transforms] if isinstance(transforms, Transform) else list(transforms)
        if not all(isinstance(t, Transform) for t in self.transforms):
            raise ValueError(f"TransformedDistribution: expected a Transform or a list of them, got {transforms!r}")
        whole = ComposeTransform(self.transforms)
        shape = (*base_distribution.batch_shape, *base_distribution.event_shape)
        needed, base_dim = whole.domain.event_dim, len(base_distribution.event_shape)
        if len(shape) < needed:
            raise ValueError(f"TransformedDistribution: expected a base of {needed} dimensions, got {shape}")
        after = tuple(whole.forward_shape(shape))
        before = tuple(whole.inverse_shape(after))
        if before != shape:
            base_distribution = base_distribution.expand(before[: len(before) - base_dim])
        if needed > base_dim:
            base_distribution = Independent(base_distribution, needed - base_dim)
        self.base_dist = base_distribution
        event_dim = max(whole.codomain.event_dim, base_dim + whole.codomain.event_dim - needed)
        super().__init__(after[: len(after) - event_dim], after[len(after) - event_dim :], validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """If the base has it."""
        return self.base_dist.has_rsample

    @constraints.dependent_property
    def support(self) -> Any:
        """The codomain of the last transform."""
        if not self.transforms:
            return self.base_dist.support
        found = self.transforms[-1].codomain
        more = len(self.event_shape) - found.event_dim
        return constraints.independent(found, more) if more > 0 else found

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Distribution:
        """As of the base."""
        if self.arg_constraints:
            return super().expand(batch_shape, _instance)
        shape = (*batch_shape, *self.event_shape)
        base = tuple(ComposeTransform(self.transforms).inverse_shape(shape))
        made = TransformedDistribution(
            self.base_dist.expand(base[: len(base) - len(self.base_dist.event_shape)]),
            self.transforms,
            self._validate_args,
        )
        return self._into(_instance, made)  # type: ignore[no-any-return]

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Transformed draws of the base."""
        with no_grad():
            return self._forward(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Transformed draws of the base, differentiable also in the parameters of transforms."""
        return self._forward(self.base_dist.rsample(sample_shape))

    def _forward(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) − Σ log |det ∂tᵢ|."""
        y = self._validate_sample(value)
        event_dim, total = len(self.event_shape), None
        for transform in reversed(self.transforms):
            x = transform.inv(y)
            event_dim += transform.domain.event_dim - transform.codomain.event_dim
            change = summed(transform.log_abs_det_jacobian(x, y), event_dim - transform.domain.event_dim)
            total = -change if total is None else total - change
            y = x
        base = summed(self.base_dist.log_prob(y), event_dim - len(self.base_dist.event_shape))
        return base if total is None else total + base

    def cdf(self, value: Tensor) -> Tensor:
        """That of the base at x, or 1 minus it where the transforms fall."""
        y = self._validate_sample(value)
        for transform in reversed(self.transforms):
            y = transform.inv(y)
        return self._falling(self.base_dist.cdf(y))

    def icdf(self, value: Tensor) -> Tensor:
        """The transformed quantile of the base."""
        return self._forward(self.base_dist.icdf(self._falling(value)))

    def _falling(self, p: Tensor) -> Tensor:
        """p, 1 − p where the transforms fall."""
        sign: Any = 1
        for transform in self.transforms:
            if transform.sign is None:
                raise NotImplementedError(f"{type(self).__name__}.cdf: {transform!r} neither rises nor falls")
            sign = sign * transform.sign
        return p if isinstance(sign, int) and sign == 1 else sign * (p - 0.5) + 0.5

    def __repr__(self) -> str:
        return super().__repr__() if self.arg_constraints else f"{type(self).__name__}()"


class _LocScale(TransformedDistribution):
    """A transformed distribution with parameters ``loc`` and ``scale``."""

    arg_constraints: ClassVar[Any] = {"loc": constraints.real, "scale": constraints.positive}


class LogNormal(_LocScale):
    """Distribution of eˣ for a normal x with mean ``loc`` and standard deviation ``scale``.

    >>> import kobai
    >>> kobai.distributions.LogNormal(0.0, 2.0).mean.log()
    tensor(2.)
    """

    support = constraints.positive

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        normal = Normal(loc, scale, validate_args=False)
        self.loc, self.scale = normal.loc, normal.scale
        super().__init__(normal, ExpTransform(), validate_args)

    @property
    def mean(self) -> Tensor:
        """e^(μ + σ²/2)."""
        return (self.loc + self.scale * self.scale / 2).exp()  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """e^(μ − σ²)."""
        return (self.loc - self.scale * self.scale).exp()  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """(e^σ² − 1) e^(2μ + σ²)."""
        square = self.scale * self.scale
        return square.expm1() * (2 * self.loc + square).exp()  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """Normal entropy + μ."""
        return self.base_dist.entropy() + self.loc


class Gumbel(_LocScale):
    """Distribution of the largest of many: P(X ≤ x) = e^(−e^(−(x − μ)/β)), β = ``scale``.

    >>> import kobai
    >>> kobai.distributions.Gumbel(0.0, 1.0).mean
    tensor(0.5772)
    """

    support = constraints.real

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = parameters(loc, scale)
        one = self.loc.detach() * 0 + 1
        base = Exponential(one, validate_args=False)
        log = ExpTransform().inv
        super().__init__(base, [log, AffineTransform(self.loc, -self.scale)], validate_args)

    @property
    def mean(self) -> Tensor:
        """μ + γβ."""
        return self.loc + self.scale * EULER

    @property
    def mode(self) -> Tensor:
        """μ."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """π²β²/6."""
        return math.pi**2 / 6 * self.scale**2

    def log_prob(self, value: Tensor) -> Tensor:
        """y − e^y − log β with y = (μ − x)/β."""
        y = (self.loc - self._validate_sample(value)) / self.scale
        return y - y.exp() - self.scale.log()  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """log β + 1 + γ."""
        return self.scale.log() + (1 + EULER)  # type: ignore[no-any-return]


class Pareto(TransformedDistribution):
    """p(x) = α mᵅ / x^(α+1) for x ≥ m = ``scale``, ``alpha`` α.

    >>> import kobai
    >>> kobai.distributions.Pareto(1.0, 3.0).mean
    tensor(1.5000)
    """

    arg_constraints: ClassVar[Any] = {"alpha": constraints.positive, "scale": constraints.positive}

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self.scale, self.alpha = parameters(scale, alpha)
        base = Exponential(self.alpha, validate_args=False)
        super().__init__(base, [ExpTransform(), AffineTransform(0, self.scale)], validate_args)

    @constraints.dependent_property
    def support(self) -> Any:
        """From m."""
        return constraints.greater_than_eq(self.scale)

    @property
    def mean(self) -> Tensor:
        """αm/(α − 1); ∞ for α ≤ 1."""
        a = self.alpha
        return where(a > 1, a * self.scale / (a - 1), math.inf)  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """m."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """m²α / (α − 1)²(α − 2); ∞ for α ≤ 2."""
        a = self.alpha
        return where(a > 2, self.scale**2 * a / ((a - 1) ** 2 * (a - 2)), math.inf)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """log(m/α) + 1 + 1/α."""
        return (self.scale / self.alpha).log() + (1 + 1 / self.alpha)  # type: ignore[no-any-return]


class Weibull(TransformedDistribution):
    """P(X ≤ x) = 1 − e^(−(x/λ)ᵏ), λ = ``scale``, k = ``concentration``.

    >>> import kobai
    >>> kobai.distributions.Weibull(2.0, 1.0).mean
    tensor(2.)
    """

    arg_constraints: ClassVar[Any] = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.scale, self.concentration = parameters(scale, concentration)
        base = Exponential(self.scale.detach() * 0 + 1, validate_args=False)
        power = PowerTransform(1 / self.concentration)
        super().__init__(base, [power, AffineTransform(0, self.scale)], validate_args)

    @property
    def mean(self) -> Tensor:
        """λ Γ(1 + 1/k)."""
        return self.scale * lgamma(1 + 1 / self.concentration).exp()  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """λ ((k − 1)/k)^(1/k); nan for k < 1."""
        k = self.concentration
        return self.scale * ((k - 1) / k) ** (1 / k)

    @property
    def variance(self) -> Tensor:
        """λ² (Γ(1 + 2/k) − Γ(1 + 1/k)²)."""
        k = self.concentration
        return self.scale**2 * (lgamma(1 + 2 / k).exp() - (2 * lgamma(1 + 1 / k)).exp())  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """γ(1 − 1/k) + log(λ/k) + 1."""
        k = self.concentration
        return EULER * (1 - 1 / k) + (self.scale / k).log() + 1  # type: ignore[no-any-return]


class Kumaraswamy(TransformedDistribution):
    """P(X ≤ x) = 1 − (1 − xᵃ)ᵇ on [0, 1], a = ``concentration1``, b = ``concentration0``.

    >>> import kobai
    >>> kobai.distributions.Kumaraswamy(1.0, 1.0).mean
    tensor(0.5000)
    """

    arg_constraints: ClassVar[Any] = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        a, b = self.concentration1, self.concentration0 = parameters(concentration1, concentration0)
        zero = a.detach() * 0
        transforms = [PowerTransform(1 / b), AffineTransform(1.0, -1.0), PowerTransform(1 / a)]
        super().__init__(Uniform(zero, zero + 1, validate_args=False), transforms, validate_args)

    def _moment(self, n: int) -> Tensor:
        """E[xⁿ] = b B(1 + n/a, b)."""
        a, b = 1 + n / self.concentration1, self.concentration0
        return (b.log() + lgamma(a) + lgamma(b) - lgamma(a + b)).exp()  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        """b B(1 + 1/a, b)."""
        return self._moment(1)

    @property
    def mode(self) -> Tensor:
        """((a − 1)/(ab − 1))^(1/a); nan for a < 1 or b < 1."""
        a, b = self.concentration1, self.concentration0
        mode = ((a - 1) / (a * b - 1)) ** (1 / a)
        return mode.masked_fill((a < 1) | (b < 1), math.nan)  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """E[x²] − E[x]²."""
        return self._moment(2) - self.mean**2

    def log_prob(self, value: Tensor) -> Tensor:
        """log ab + (a − 1) log x + (b − 1) log(1 − xᵃ)."""
        x, a, b = self._validate_sample(value), self.concentration1, self.concentration0
        return (a * b).log() + (a - 1) * x.log() + (b - 1) * (-(x**a)).log1p()  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """1 − 1/b + (1 − 1/a)(ψ(b + 1) + γ) − log ab."""
        a, b = self.concentration1, self.concentration0
        return 1 - 1 / b + (1 - 1 / a) * (digamma(b + 1) + EULER) - (a * b).log()  # type: ignore[no-any-return]


class InverseGamma(TransformedDistribution):
    """Distribution of 1/x for a gamma-distributed x of shape α = ``concentration`` and rate β = ``rate``.

    >>> import kobai
    >>> kobai.distributions.InverseGamma(3.0, 4.0).mean
    tensor(2.)
    """

    arg_constraints: ClassVar[Any] = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        base = Gamma(concentration, rate, validate_args=False)
        self.concentration, self.rate = base.concentration, base.rate
        minus = as_tensor(-1.0, dtype=base.rate.dtype, device=base.rate.device)
        super().__init__(base, PowerTransform(minus), validate_args)

    @property
    def mean(self) -> Tensor:
        """β/(α − 1); ∞ for α ≤ 1."""
        a = self.concentration
        return where(a > 1, self.rate / (a - 1), math.inf)  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """β/(α + 1)."""
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Tensor:
        """β² / (α − 1)²(α − 2); ∞ for α ≤ 2."""
        a = self.concentration
        return where(a > 2, self.rate**2 / ((a - 1) ** 2 * (a - 2)), math.inf)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """α + log β + log Γ(α) − (1 + α) ψ(α)."""
        a = self.concentration
        return a + self.rate.log() + lgamma(a) - (1 + a) * digamma(a)  # type: ignore[no-any-return]


class LogisticNormal(_LocScale):
    """Probabilities of K classes from K − 1 normal numbers, by :class:`StickBreakingTransform`.

    >>> import kobai
    >>> kobai.distributions.LogisticNormal(kobai.zeros(2), kobai.ones(2)).event_shape
    kobai.Size([3])
    """

    arg_constraints: ClassVar[Any] = {
        "loc": constraints.independent(constraints.real, 1),
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.simplex

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        normal = Normal(loc, scale, validate_args=False)
        self.loc, self.scale = normal.loc, normal.scale
        super().__init__(normal, StickBreakingTransform(), validate_args)
