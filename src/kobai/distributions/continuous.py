"""Distributions on the line: ``Normal``, ``Uniform``, ``Exponential``, ``Laplace``, ``Cauchy``; on a circle ``VonMises``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.distributions import constraints
from kobai.distributions.base import Distribution, ExponentialFamily, clamped, one_of, parameters
from kobai.ops.gather import where
from kobai.ops.pointwise import erf, expm1
from kobai.ops.random import rand, randn
from kobai.ops.rare_special import i0e, i1e
from kobai.ops.special import erfinv

LOG_2PI = math.log(2 * math.pi)


class Normal(ExponentialFamily):
    """Normal distribution with mean ``loc`` and standard deviation ``scale``: p(x) = e^(−(x−μ)²/2σ²) / σ√2π.

    >>> import kobai
    >>> round(kobai.distributions.Normal(0.0, 1.0).log_prob(kobai.tensor(0.0)).item(), 4)
    -0.9189
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = parameters(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """μ."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """μ."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """σ²."""
        return self.scale * self.scale

    @property
    def stddev(self) -> Tensor:
        """σ."""
        return self.scale

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """μ + σ ε with ε standard normal: differentiable in μ and σ (Kingma and Welling, arXiv:1312.6114)."""
        return self.loc + self._noise(randn, sample_shape) * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """−(x − μ)²/2σ² − log σ − ½ log 2π."""
        z = (self._validate_sample(value) - self.loc) / self.scale
        return -0.5 * (z * z) - self.scale.log() - 0.5 * LOG_2PI  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """½ (1 + erf((x − μ) / σ√2))."""
        return 0.5 * (1 + erf((self._validate_sample(value) - self.loc) / (self.scale * math.sqrt(2))))

    def icdf(self, value: Tensor) -> Tensor:
        """μ + σ√2 erf⁻¹(2p − 1)."""
        return self.loc + self.scale * erfinv(2 * value - 1) * math.sqrt(2)

    def entropy(self) -> Tensor:
        """½ + ½ log 2π + log σ."""
        return 0.5 + 0.5 * LOG_2PI + self.scale.log()  # type: ignore[no-any-return]


class Uniform(Distribution):
    """Every number in [low, high) equally likely: p(x) = 1 / (high − low).

    >>> import kobai
    >>> kobai.distributions.Uniform(0.0, 4.0).log_prob(kobai.tensor([1.0, 2.0])).exp()
    tensor([0.2500, 0.2500])
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {"low": constraints.dependent, "high": constraints.dependent}

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = parameters(low, high)
        super().__init__(self.low.shape, validate_args=validate_args)
        if self._validate_args:
            self._confined("high − low", self.high - self.low, constraints.positive)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """[low, high]."""
        return constraints.interval(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        """The middle."""
        return (self.low + self.high) / 2

    @property
    def mode(self) -> Tensor:
        """nan: no number is more likely than others."""
        return self.low * math.nan

    @property
    def variance(self) -> Tensor:
        """(high − low)² / 12."""
        width = self.high - self.low
        return width * width / 12

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """low + (high − low) u, u uniform on [0, 1)."""
        return self.low + self._noise(rand, sample_shape) * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        """−log(high − low) inside, −∞ outside."""
        x = self._validate_sample(value)
        inside = (x >= self.low) & (x < self.high)
        return where(inside, -(self.high - self.low).log(), -math.inf)  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """(x − low) / (high − low), within 0 and 1."""
        return ((self._validate_sample(value) - self.low) / (self.high - self.low)).clamp(0, 1)  # type: ignore[no-any-return]

    def icdf(self, value: Tensor) -> Tensor:
        """low + p (high − low)."""
        return self.low + value * (self.high - self.low)

    def entropy(self) -> Tensor:
        """log(high − low)."""
        return (self.high - self.low).log()  # type: ignore[no-any-return]


class Exponential(ExponentialFamily):
    """Waiting time at ``rate`` λ: p(x) = λ e^(−λx).

    >>> import kobai
    >>> kobai.distributions.Exponential(4.0).mean
    tensor(0.2500)
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {"rate": constraints.positive}
    support = constraints.nonnegative

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = parameters(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """1/λ."""
        return 1 / self.rate

    @property
    def mode(self) -> Tensor:
        """0."""
        return self.rate * 0

    @property
    def variance(self) -> Tensor:
        """1/λ²."""
        return 1 / (self.rate * self.rate)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """−log(1 − u) / λ, u uniform on [0, 1)."""
        return -(-self._noise(rand, sample_shape)).log1p() / self.rate  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """log λ − λx."""
        return self.rate.log() - self.rate * self._validate_sample(value)  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """1 − e^(−λx)."""
        return -expm1(-self.rate * self._validate_sample(value))

    def icdf(self, value: Tensor) -> Tensor:
        """−log(1 − p) / λ."""
        return -(-value).log1p() / self.rate  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """1 − log λ."""
        return 1 - self.rate.log()  # type: ignore[no-any-return]


class _Located(Distribution):
    """A symmetrical distribution around ``loc``, of width ``scale``."""

    has_rsample = True
    arg_constraints: ClassVar[Any] = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = parameters(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mode(self) -> Tensor:
        """μ."""
        return self.loc


class Laplace(_Located):
    """Two exponentials back to back around ``loc``: p(x) = e^(−|x−μ|/b) / 2b with b = ``scale``.

    >>> import kobai
    >>> kobai.distributions.Laplace(1.0, 2.0).variance
    tensor(8.)
    """

    @property
    def mean(self) -> Tensor:
        """μ."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """2b²."""
        return 2 * self.scale * self.scale

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """μ − b sign(u) log(1 − 2|u|), u uniform on [−½, ½)."""
        u = self._noise(rand, sample_shape) - 0.5
        return self.loc - self.scale * u.sign() * (-2 * u.abs()).clamp(min=-1 + 1e-7).log1p()  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """−log 2b − |x − μ|/b."""
        return -(2 * self.scale).log() - (self._validate_sample(value) - self.loc).abs() / self.scale  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """½ − ½ sign(x − μ) (e^(−|x−μ|/b) − 1)."""
        x = self._validate_sample(value) - self.loc
        return 0.5 - 0.5 * x.sign() * expm1(-x.abs() / self.scale)  # type: ignore[no-any-return]

    def icdf(self, value: Tensor) -> Tensor:
        """μ − b sign(p − ½) log(1 − 2|p − ½|)."""
        u = value - 0.5
        return self.loc - self.scale * u.sign() * (-2 * u.abs()).log1p()  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """1 + log 2b."""
        return 1 + (2 * self.scale).log()  # type: ignore[no-any-return]


class Cauchy(_Located):
    """Ratio of two normal numbers, around ``loc``: p(x) = 1 / πγ(1 + ((x − μ)/γ)²) with γ = ``scale``. It has no mean.

    >>> import kobai
    >>> kobai.distributions.Cauchy(0.0, 1.0).cdf(kobai.tensor(1.0))
    tensor(0.7500)
    """

    @property
    def mean(self) -> Tensor:
        """nan."""
        return self.loc.detach() * math.nan

    @property
    def variance(self) -> Tensor:
        """∞."""
        return self.loc.detach() * 0 + math.inf

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The quantile of a uniform number."""
        return self.icdf(self._uniform(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """−log π − log γ − log(1 + ((x − μ)/γ)²)."""
        z = (self._validate_sample(value) - self.loc) / self.scale
        return -math.log(math.pi) - self.scale.log() - (z * z).log1p()  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """½ + arctan((x − μ)/γ) / π."""
        return ((self._validate_sample(value) - self.loc) / self.scale).atan() / math.pi + 0.5  # type: ignore[no-any-return]

    def icdf(self, value: Tensor) -> Tensor:
        """μ + γ tan(π(p − ½))."""
        return self.loc + self.scale * (math.pi * (value - 0.5)).tan()  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """log 4πγ."""
        return math.log(4 * math.pi) + self.scale.log()  # type: ignore[no-any-return]


class ContinuousBernoulli(ExponentialFamily):
    """p(x) ∝ λˣ (1 − λ)^(1−x) on [0, 1], λ = ``probs``. Loaiza-Ganem, Cunningham, arXiv:1907.06845.

    Within ``lims`` of ½, where the formulas are 0/0, a Taylor series takes their place.

    >>> import kobai
    >>> kobai.distributions.ContinuousBernoulli(0.5).log_prob(kobai.tensor(0.25))
    tensor(0.)
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval

    def __init__(
        self,
        probs: Any = None,
        logits: Any = None,
        lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:
        name, given = one_of("ContinuousBernoulli", probs, logits)
        (given,) = parameters(given)
        setattr(self, name, given)
        self._lims = lims
        super().__init__(given.shape, validate_args=validate_args)

    def _settings(self) -> dict[str, Any]:
        return {"lims": self._lims}

    @cached_property
    def probs(self) -> Tensor:
        """σ(logits)."""
        return self.logits.sigmoid()  # type: ignore[no-any-return]

    @cached_property
    def logits(self) -> Tensor:
        """log(λ / (1 − λ))."""
        return clamped(self.probs).logit()  # type: ignore[no-any-return]

    def _cut(self) -> tuple[Tensor, Tensor]:
        """Where λ is far from ½, and λ there, else a number below ½."""
        p = clamped(self.probs)
        far = (p <= self._lims[0]) | (p > self._lims[1])
        return far, where(far, p, self._lims[0])

    def _log_norm(self) -> Tensor:
        far, p = self._cut()
        exact = ((-p).log1p() - p.log()).abs().log() - (1 - 2 * p).abs().log()
        x = (self.probs - 0.5) ** 2
        return where(far, exact, math.log(2) + (4 / 3 + 104 / 45 * x) * x)  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        """λ/(2λ − 1) + 1/(2 artanh(1 − 2λ))."""
        far, p = self._cut()
        x = self.probs - 0.5
        exact = p / (2 * p - 1) + 1 / ((-p).log1p() - p.log())
        return where(far, exact, 0.5 + (1 / 3 + 16 / 45 * x**2) * x)  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """λ(λ − 1)/(1 − 2λ)² + 1/(log(1 − λ) − log λ)²."""
        far, p = self._cut()
        x = (self.probs - 0.5) ** 2
        exact = p * (p - 1) / (1 - 2 * p) ** 2 + 1 / ((-p).log1p() - p.log()) ** 2
        return where(far, exact, 1 / 12 - (1 / 15 - 128 / 945 * x) * x)  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The quantile of a uniform number."""
        return self.icdf(self._uniform(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """x log λ + (1 − x) log(1 − λ) − that of the norm."""
        x = self._validate_sample(value)
        p = clamped(self.probs)
        return x * p.log() + (1 - x) * (-p).log1p() + self._log_norm()  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """(λˣ (1 − λ)^(1−x) + λ − 1) / (2λ − 1), within 0 and 1."""
        x = self._validate_sample(value)
        far, p = self._cut()
        exact = (p**x * (1 - p) ** (1 - x) + p - 1) / (2 * p - 1)
        return where(far, exact, x).clamp(0, 1)  # type: ignore[no-any-return]

    def icdf(self, value: Tensor) -> Tensor:
        """(log(1 − λ + u(2λ − 1)) − log(1 − λ)) / (log λ − log(1 − λ))."""
        far, p = self._cut()
        exact = ((-p + value * (2 * p - 1)).log1p() - (-p).log1p()) / (p.log() - (-p).log1p())
        return where(far, exact, value)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """−log(1 − λ) − E[x] logit λ − log of the norm."""
        p = clamped(self.probs)
        return -(-p).log1p() - self.mean * (p.log() - (-p).log1p()) - self._log_norm()  # type: ignore[no-any-return]


class VonMises(Distribution):
    """Angles around ``loc``: p(x) = e^(κ cos(x − μ)) / 2π I₀(κ) with κ = ``concentration``.

    >>> import kobai
    >>> kobai.distributions.VonMises(1.0, 4.0).mean
    tensor(1.)
    """

    arg_constraints: ClassVar[Any] = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.loc, self.concentration = parameters(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """μ, as a direction."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """μ."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """1 − I₁(κ)/I₀(κ), of directions."""
        k = self.concentration
        return 1 - i1e(k) / i0e(k)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Angles in [−π, π), without a gradient."""
        return self._drawn(sample_shape, "vonmises", self.loc, self.concentration)

    def log_prob(self, value: Tensor) -> Tensor:
        """κ cos(x − μ) − log 2π − log I₀(κ)."""
        k = self.concentration
        return k * ((self._validate_sample(value) - self.loc).cos() - 1) - LOG_2PI - i0e(k).log()  # type: ignore[no-any-return]
