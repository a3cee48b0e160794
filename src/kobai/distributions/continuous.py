"""Distributions on the line: ``Normal``, ``LogNormal``, ``Uniform``, ``Exponential``, ``Laplace``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kobai.core.tensor import Tensor
from kobai.distributions.base import Distribution, parameters, require
from kobai.ops.gather import where
from kobai.ops.pointwise import erf, expm1
from kobai.ops.random import rand, randn

LOG_2PI = math.log(2 * math.pi)


class Normal(Distribution):
    """Normal distribution with mean ``loc`` and standard deviation ``scale``: p(x) = e^(−(x−μ)²/2σ²) / σ√2π.

    >>> import kobai
    >>> round(kobai.distributions.Normal(0.0, 1.0).log_prob(kobai.tensor(0.0)).item(), 4)
    -0.9189
    """

    has_rsample = True
    _shown = ("loc", "scale")

    def __init__(self, loc: Any, scale: Any) -> None:
        self.loc, self.scale = parameters(loc, scale)
        require(type(self).__name__, "scale", self.scale, "> 0", lambda s: s > 0)
        super().__init__(self.loc.shape)

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
        z = (self._value(value) - self.loc) / self.scale
        return -0.5 * (z * z) - self.scale.log() - 0.5 * LOG_2PI  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """½ (1 + erf((x − μ) / σ√2))."""
        return 0.5 * (1 + erf((self._value(value) - self.loc) / (self.scale * math.sqrt(2))))

    def entropy(self) -> Tensor:
        """½ + ½ log 2π + log σ."""
        return 0.5 + 0.5 * LOG_2PI + self.scale.log()  # type: ignore[no-any-return]


class LogNormal(Distribution):
    """Distribution of eˣ for a normal x with mean ``loc`` and standard deviation ``scale``.

    >>> import kobai
    >>> kobai.distributions.LogNormal(0.0, 2.0).mean.log()
    tensor(2.)
    """

    has_rsample = True
    _shown = ("loc", "scale")

    def __init__(self, loc: Any, scale: Any) -> None:
        self._normal = Normal(loc, scale)
        self.loc, self.scale = self._normal.loc, self._normal.scale
        super().__init__(self.loc.shape)

    @property
    def mean(self) -> Tensor:
        """e^(μ + σ²/2)."""
        return (self.loc + self.scale * self.scale / 2).exp()  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """(e^σ² − 1) e^(2μ + σ²)."""
        square = self.scale * self.scale
        return expm1(square) * (2 * self.loc + square).exp()  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """e to a normal draw."""
        return self._normal.rsample(sample_shape).exp()  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """That of log x, less log x."""
        logarithm = self._value(value).log()
        return self._normal.log_prob(logarithm) - logarithm  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """Normal entropy + μ."""
        return self._normal.entropy() + self.loc


class Uniform(Distribution):
    """Every number in [low, high) equally likely: p(x) = 1 / (high − low).

    >>> import kobai
    >>> kobai.distributions.Uniform(0.0, 4.0).log_prob(kobai.tensor([1.0, 2.0])).exp()
    tensor([0.2500, 0.2500])
    """

    has_rsample = True
    _shown = ("low", "high")

    def __init__(self, low: Any, high: Any) -> None:
        self.low, self.high = parameters(low, high)
        require("Uniform", "high − low", (self.high - self.low).detach(), "> 0", lambda width: width > 0)
        super().__init__(self.low.shape)

    @property
    def mean(self) -> Tensor:
        """The middle."""
        return (self.low + self.high) / 2

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
        x = self._value(value)
        inside = (x >= self.low) & (x < self.high)
        return where(inside, -(self.high - self.low).log(), -math.inf)  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """(x − low) / (high − low), within 0 and 1."""
        return ((self._value(value) - self.low) / (self.high - self.low)).clamp(0, 1)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """log(high − low)."""
        return (self.high - self.low).log()  # type: ignore[no-any-return]


class Exponential(Distribution):
    """Waiting time at ``rate`` λ: p(x) = λ e^(−λx).

    >>> import kobai
    >>> kobai.distributions.Exponential(4.0).mean
    tensor(0.2500)
    """

    has_rsample = True
    _shown = ("rate",)

    def __init__(self, rate: Any) -> None:
        (self.rate,) = parameters(rate)
        require("Exponential", "rate", self.rate, "> 0", lambda r: r > 0)
        super().__init__(self.rate.shape)

    @property
    def mean(self) -> Tensor:
        """1/λ."""
        return 1 / self.rate

    @property
    def variance(self) -> Tensor:
        """1/λ²."""
        return 1 / (self.rate * self.rate)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """−log(1 − u) / λ, u uniform on [0, 1)."""
        return -(-self._noise(rand, sample_shape)).log1p() / self.rate  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """log λ − λx."""
        return self.rate.log() - self.rate * self._value(value)  # type: ignore[no-any-return]

    def cdf(self, value: Tensor) -> Tensor:
        """1 − e^(−λx)."""
        return -expm1(-self.rate * self._value(value))

    def entropy(self) -> Tensor:
        """1 − log λ."""
        return 1 - self.rate.log()  # type: ignore[no-any-return]


class Laplace(Distribution):
    """Two exponentials back to back around ``loc``: p(x) = e^(−|x−μ|/b) / 2b with b = ``scale``.

    >>> import kobai
    >>> kobai.distributions.Laplace(1.0, 2.0).variance
    tensor(8.)
    """

    has_rsample = True
    _shown = ("loc", "scale")

    def __init__(self, loc: Any, scale: Any) -> None:
        self.loc, self.scale = parameters(loc, scale)
        require("Laplace", "scale", self.scale, "> 0", lambda s: s > 0)
        super().__init__(self.loc.shape)

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
        return -(2 * self.scale).log() - (self._value(value) - self.loc).abs() / self.scale  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """1 + log 2b."""
        return 1 + (2 * self.scale).log()  # type: ignore[no-any-return]
