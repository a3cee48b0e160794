"""Distributions made of gamma-distributed numbers, whose draws are differentiable in the shape too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from kobai.autograd.function import Function
from kobai.core.tensor import Tensor
from kobai.distributions import constraints
from kobai.distributions.base import Distribution, ExponentialFamily, drawn, parameters
from kobai.dtypes import finfo
from kobai.ops import _gamma
from kobai.ops.joining import stack
from kobai.ops.random import randn
from kobai.ops.rare_special import igamma
from kobai.ops.special import digamma, lgamma, xlogy
from kobai.xp import Array, quiet, xp_of


@quiet
def _shape_slope(alpha: Array, z: Array) -> Array:
    """dz/dα of a gamma-distributed z whose cumulated probability P(α, z) stays: −(∂P/∂α) / p(z).

    Figurnov, Mohamed, Mnih, *Implicit reparameterization gradients*, 2018. P = Σ z^(α+n) e^(−z) / Γ(α+n+1), differentiated
    term by term; for α > 60 Wilson's and Hilferty's z = α (1 − 1/9α + x/3√α)³ with a normal x that stays.
    """
    xp = xp_of(z)
    a, y = alpha.astype(np.float64), z.astype(np.float64)
    large = a > 60
    small_a, small_y = xp.where(large, 1.0, a), xp.where(large, 1.0, y)
    term = xp.exp(small_a * xp.log(small_y) - small_y - _gamma.lgamma(small_a + 1))
    slope = xp.log(small_y) - _gamma.digamma(small_a + 1)
    total = term * slope
    for n in range(1, 400):
        term = term * (small_y / (small_a + n))
        slope = slope - 1 / (small_a + n)
        total = total + term * slope
        if type(z) is np.ndarray and (np.abs(term * slope) <= 1e-16 * np.abs(total)).all():
            break
    density = xp.exp((small_a - 1) * xp.log(small_y) - small_y - _gamma.lgamma(small_a))
    root = xp.power(y / a, 1 / 3)
    x = 3 * xp.sqrt(a) * (root - 1 + 1 / (9 * a))
    far = root * root * root + 3 * a * (root * root) * (1 / (9 * a * a) - x / (6 * a * xp.sqrt(a)))
    return xp.where(large, far, -total / density).astype(z.dtype)


class _StandardGamma(Function):
    """z, drawn with the shape α, which it is differentiable in."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor, z: Tensor) -> Tensor:
        ctx.save_for_backward(alpha, z)
        return z.clone()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> Any:
        alpha, z = ctx.saved_tensors
        return dy[0] * Tensor._wrap(_shape_slope(alpha.array, z.array)), None


def standard_gamma(concentration: Tensor, shape: Sequence[int]) -> Tensor:
    """Draws of rate 1, positive, differentiable in the concentration."""
    a = concentration.expand(*shape)
    z = drawn("standard_gamma", shape, a).clamp(min=float(finfo(a.dtype).tiny))
    return _StandardGamma.apply(a, z)  # type: ignore[no-any-return]


class Gamma(ExponentialFamily):
    """Gamma distribution with shape α = ``concentration`` and ``rate`` β: p(x) = βᵅ xᵅ⁻¹ e^(−βx) / Γ(α).

    >>> import kobai
    >>> kobai.distributions.Gamma(2.0, 4.0).mean
    tensor(0.5000)
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = parameters(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """α/β."""
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        """(α − 1)/β, at least 0."""
        return ((self.concentration - 1) / self.rate).clamp(min=0)  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """α/β²."""
        return self.concentration / (self.rate * self.rate)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw of rate 1, over β; differentiable in both."""
        return standard_gamma(self.concentration, self._extended_shape(sample_shape)) / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        """α log β + (α − 1) log x − βx − log Γ(α)."""
        x, a, b = self._validate_sample(value), self.concentration, self.rate
        return xlogy(a, b) + xlogy(a - 1, x) - b * x - lgamma(a)

    def cdf(self, value: Tensor) -> Tensor:
        """P(α, βx), the regularised incomplete gamma function."""
        return igamma(self.concentration, self.rate * self._validate_sample(value))

    def entropy(self) -> Tensor:
        """α − log β + log Γ(α) + (1 − α) ψ(α)."""
        a = self.concentration
        return a - self.rate.log() + lgamma(a) + (1 - a) * digamma(a)  # type: ignore[no-any-return]


class Chi2(Gamma):
    """Sum of the squares of ``df`` standard normal numbers: Gamma(df/2, ½).

    >>> import kobai
    >>> kobai.distributions.Chi2(3.0).mean
    tensor(3.)
    """

    arg_constraints: ClassVar[Any] = {"df": constraints.positive}

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        (self.df,) = parameters(df)
        super().__init__(0.5 * self.df, 0.5, validate_args=validate_args)


class Dirichlet(ExponentialFamily):
    """Probabilities of K classes: p(x) ∝ ∏ xᵢ^(αᵢ−1) for positive x with the sum 1, α = ``concentration`` (..., K).

    >>> import kobai
    >>> kobai.distributions.Dirichlet(kobai.tensor([1.0, 3.0])).mean
    tensor([0.2500, 0.7500])
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if not isinstance(concentration, Tensor) or concentration.ndim < 1:
            raise ValueError(f"Dirichlet: expected concentration as a Tensor (..., K), got {concentration!r}")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args)

    @property
    def mean(self) -> Tensor:
        """α / Σα."""
        return self.concentration / self.concentration.sum(-1, keepdim=True)  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """(α − 1) / (Σα − K) of those above 1; the largest class if there are none."""
        left = (self.concentration - 1).clamp(min=0)
        total = left.sum(-1, keepdim=True)
        most = self.concentration == self.concentration.amax(-1, keepdim=True)
        return (left / total).where(total > 0, most.to(left.dtype))  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """α (Σα − α) / (Σα)² (Σα + 1)."""
        total = self.concentration.sum(-1, keepdim=True)
        return self.concentration * (total - self.concentration) / (total**2 * (total + 1))  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of Gamma(αᵢ, 1), over their sum."""
        g = standard_gamma(self.concentration, self._extended_shape(sample_shape))
        return g / g.sum(-1, keepdim=True)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """Σ (αᵢ − 1) log xᵢ + log Γ(Σα) − Σ log Γ(αᵢ)."""
        a = self.concentration
        return xlogy(a - 1, self._validate_sample(value)).sum(-1) + lgamma(a.sum(-1)) - lgamma(a).sum(-1)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """Σ log Γ(αᵢ) − log Γ(α₀) − (K − α₀) ψ(α₀) − Σ (αᵢ − 1) ψ(αᵢ) with α₀ = Σα."""
        a, k = self.concentration, self.concentration.shape[-1]
        total = a.sum(-1)
        rest = (k - total) * digamma(total) + ((a - 1) * digamma(a)).sum(-1)
        return lgamma(a).sum(-1) - lgamma(total) - rest  # type: ignore[no-any-return]


class Beta(ExponentialFamily):
    """p(x) ∝ x^(α−1) (1 − x)^(β−1) on [0, 1], α = ``concentration1``, β = ``concentration0``.

    >>> import kobai
    >>> kobai.distributions.Beta(1.0, 3.0).mean
    tensor(0.2500)
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = parameters(concentration1, concentration0)
        self._dirichlet = Dirichlet(stack([self.concentration1, self.concentration0], -1), validate_args=False)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """α / (α + β)."""
        return self._dirichlet.mean[..., 0]

    @property
    def mode(self) -> Tensor:
        """(α − 1) / (α + β − 2)."""
        return self._dirichlet.mode[..., 0]

    @property
    def variance(self) -> Tensor:
        """αβ / (α + β)² (α + β + 1)."""
        return self._dirichlet.variance[..., 0]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The first of two probabilities."""
        return self._dirichlet.rsample(sample_shape)[..., 0]

    def log_prob(self, value: Tensor) -> Tensor:
        """(α − 1) log x + (β − 1) log(1 − x) − log B(α, β)."""
        x = self._validate_sample(value)
        return self._dirichlet.log_prob(stack([x, 1 - x], -1))

    def entropy(self) -> Tensor:
        """As of a Dirichlet distribution of two classes."""
        return self._dirichlet.entropy()


class StudentT(Distribution):
    """Normal numbers over the root of a Chi2(df) over df, around ``loc``, of width ``scale``.

    >>> import kobai
    >>> kobai.distributions.StudentT(4.0).variance
    tensor(2.)
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {
        "df": constraints.positive,
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.real

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None) -> None:
        self.df, self.loc, self.scale = parameters(df, loc, scale)
        super().__init__(self.df.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """μ; nan for df ≤ 1."""
        return self.loc.masked_fill(self.df <= 1, math.nan)  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """μ."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """σ² df / (df − 2); ∞ for df ≤ 2, nan for df ≤ 1."""
        many = self.scale**2 * self.df / (self.df - 2)
        return many.masked_fill(self.df <= 2, math.inf).masked_fill(self.df <= 1, math.nan)  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """μ + σ ε √(df / χ²)."""
        shape = self._extended_shape(sample_shape)
        chi2 = 2 * standard_gamma(self.df / 2, shape)
        return self.loc + self.scale * (self._noise(randn, sample_shape) * (self.df / chi2).sqrt())  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """log Γ((df + 1)/2) − log Γ(df/2) − ½ log(df π) − log σ − (df + 1)/2 log(1 + z²/df)."""
        n = self.df
        z = (self._validate_sample(value) - self.loc) / self.scale
        norm = lgamma(n / 2) - lgamma((n + 1) / 2) + 0.5 * (n * math.pi).log() + self.scale.log()
        return -(n + 1) / 2 * (z * z / n).log1p() - norm  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """log σ + (df + 1)/2 (ψ((df + 1)/2) − ψ(df/2)) + ½ log df + log B(df/2, ½)."""
        n = self.df
        beta = lgamma(n / 2) + math.lgamma(0.5) - lgamma((n + 1) / 2)
        return self.scale.log() + (n + 1) / 2 * (digamma((n + 1) / 2) - digamma(n / 2)) + n.log() / 2 + beta  # type: ignore[no-any-return]


class FisherSnedecor(Distribution):
    """Ratio of two Chi2 numbers, each over its degrees of freedom, ``df1`` and ``df2``.

    >>> import kobai
    >>> kobai.distributions.FisherSnedecor(2.0, 4.0).mean
    tensor(2.)
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None) -> None:
        self.df1, self.df2 = parameters(df1, df2)
        super().__init__(self.df1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """df2 / (df2 − 2); nan for df2 ≤ 2."""
        return (self.df2 / (self.df2 - 2)).masked_fill(self.df2 <= 2, math.nan)  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """(df1 − 2)/df1 · df2/(df2 + 2); nan for df1 ≤ 2."""
        mode = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return mode.masked_fill(self.df1 <= 2, math.nan)  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """2 df2² (df1 + df2 − 2) / df1 (df2 − 2)² (df2 − 4); nan for df2 ≤ 4."""
        m, n = self.df1, self.df2
        variance = 2 * n**2 * (m + n - 2) / (m * (n - 2) ** 2 * (n - 4))
        return variance.masked_fill(n <= 4, math.nan)  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The ratio of two draws."""
        shape = self._extended_shape(sample_shape)
        x, y = (standard_gamma(df / 2, shape) / (df / 2) for df in (self.df1, self.df2))
        return x / y

    def log_prob(self, value: Tensor) -> Tensor:
        """log of (df1/df2)^(df1/2) x^(df1/2 − 1) (1 + x df1/df2)^(−(df1 + df2)/2) / B(df1/2, df2/2)."""
        x, m, n = self._validate_sample(value), self.df1 / 2, self.df2 / 2
        ratio = self.df1 / self.df2
        beta = lgamma(m) + lgamma(n) - lgamma(m + n)
        return m * ratio.log() + (m - 1) * x.log() - (m + n) * (ratio * x).log1p() - beta  # type: ignore[no-any-return]
