"""``kl_divergence``: KL(p ‖ q) = E_p[log p − log q] in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from kobai import linalg
from kobai.core.tensor import Tensor
from kobai.distributions.base import Distribution, summed
from kobai.distributions.continuous import Cauchy, ContinuousBernoulli, Exponential, Laplace, Normal, Uniform
from kobai.distributions.counts import Binomial, Geometric, Poisson
from kobai.distributions.discrete import Bernoulli, Categorical, OneHotCategorical
from kobai.distributions.gamma import Beta, Dirichlet, Gamma
from kobai.distributions.half import HalfNormal
from kobai.distributions.multivariate import Independent, LowRankMultivariateNormal, MultivariateNormal
from kobai.distributions.transformed import EULER, Gumbel, Pareto, TransformedDistribution
from kobai.ops.activation import softplus
from kobai.ops.gather import where
from kobai.ops.special import digamma, lgamma

Formula = TypeVar("Formula", bound=Callable[[Any, Any], Any])

_FORMULAS: dict[tuple[type, type], Callable[[Any, Any], Any]] = {}


def register_kl(type_p: type, type_q: type) -> Callable[[Formula], Formula]:
    """Decorator: ``kl_divergence`` of these two kinds, and of their subclasses, is the decorated function of p and q.

    >>> import kobai
    >>> from kobai.distributions import Normal, kl_divergence, register_kl
    >>> class Standard(Normal):
    ...     def __init__(self): super().__init__(0.0, 1.0)
    >>> @register_kl(Normal, Standard)
    ... def _(p, q): return 0.5 * (p.scale**2 + p.loc**2 - 1) - p.scale.log()
    >>> kl_divergence(Normal(1.0, 1.0), Standard())
    tensor(0.5000)
    """
    for kind in (type_p, type_q):
        if not (isinstance(kind, type) and issubclass(kind, Distribution)):
            raise TypeError(f"register_kl: expected two subclasses of Distribution, got {kind!r}")

    def keep(formula: Formula) -> Formula:
        _FORMULAS[type_p, type_q] = formula
        return formula

    return keep


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p ‖ q) ≥ 0, in nats; shape of the batches. Most pairs of one kind have a formula, few of two.

    Errors: NotImplementedError for a pair without one.

    >>> import kobai
    >>> from kobai.distributions import Normal, kl_divergence
    >>> kl_divergence(Normal(1.0, 1.0), Normal(0.0, 1.0))
    tensor(0.5000)
    """
    lines = type(p).__mro__, type(q).__mro__
    found = [
        (lines[0].index(a) + lines[1].index(b), formula)
        for (a, b), formula in _FORMULAS.items()
        if a in lines[0] and b in lines[1]
    ]
    if not found:
        raise NotImplementedError(f"kl_divergence: no formula for {type(p).__name__} and {type(q).__name__}")
    return min(found, key=lambda pair: pair[0])[1](p, q)  # type: ignore[no-any-return]


# --- of one kind ------------------------------------------------------------------------------------------------------


@register_kl(Normal, Normal)
def _normal(p: Any, q: Any) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    apart = ((p.loc - q.loc) / q.scale) ** 2
    return 0.5 * (ratio + apart - 1 - ratio.log())  # type: ignore[no-any-return]


@register_kl(Uniform, Uniform)
def _uniform(p: Any, q: Any) -> Tensor:
    inside = (q.low <= p.low) & (p.high <= q.high)
    return where(inside, ((q.high - q.low) / (p.high - p.low)).log(), math.inf)  # type: ignore[no-any-return]


@register_kl(Exponential, Exponential)
def _exponential(p: Any, q: Any) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - ratio.log()  # type: ignore[no-any-return]


@register_kl(Laplace, Laplace)
def _laplace(p: Any, q: Any) -> Tensor:
    apart = (p.loc - q.loc).abs()
    ratio = p.scale / q.scale
    return apart / q.scale + ratio * (-apart / p.scale).exp() - 1 - ratio.log()  # type: ignore[no-any-return]


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Any, q: Any) -> Tensor:
    return p.probs * (p.logits - q.logits) - softplus(p.logits) + softplus(q.logits)  # type: ignore[no-any-return]


@register_kl(Categorical, Categorical)
@register_kl(OneHotCategorical, OneHotCategorical)
def _categorical(p: Any, q: Any) -> Tensor:
    terms = where(p.probs == 0, 0.0, p.probs * (p.logits - q.logits))
    return where((q.probs == 0) & (p.probs > 0), math.inf, terms).sum(-1)  # type: ignore[no-any-return]


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate(p: Any, q: Any) -> Tensor:
    m = linalg.solve_triangular(q.scale_tril, p.scale_tril, upper=False)
    z = linalg.solve_triangular(q.scale_tril, (q.loc - p.loc).unsqueeze(-1), upper=False).squeeze(-1)
    return 0.5 * ((m * m).sum((-2, -1)) + (z * z).sum(-1) - p.event_shape[0]) + q._log_det() - p._log_det()  # type: ignore[no-any-return]


@register_kl(Independent, Independent)
def _independent(p: Any, q: Any) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("kl_divergence: expected two Independent with equally many event dimensions")
    return p._summed(kl_divergence(p.base_dist, q.base_dist))  # type: ignore[no-any-return]


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
@register_kl(LowRankMultivariateNormal, MultivariateNormal)
@register_kl(MultivariateNormal, LowRankMultivariateNormal)
def _low_rank(p: Any, q: Any) -> Tensor:
    dense = (MultivariateNormal(d.loc, scale_tril=d.scale_tril, validate_args=False) for d in (p, q))
    return _multivariate(*dense)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed(p: Any, q: Any) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError("kl_divergence: expected two TransformedDistribution with equal transforms")
    extra = len(p.event_shape) - len(p.base_dist.event_shape)
    return summed(kl_divergence(p.base_dist, q.base_dist), extra)


@register_kl(HalfNormal, HalfNormal)
def _half_normal(p: Any, q: Any) -> Tensor:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Gamma, Gamma)
def _gamma(p: Any, q: Any) -> Tensor:
    a, b = p.concentration, q.concentration
    shapes = lgamma(b) - lgamma(a) + (a - b) * digamma(a)
    return b * (p.rate / q.rate).log() + shapes + (q.rate - p.rate) * (a / p.rate)  # type: ignore[no-any-return]


@register_kl(Dirichlet, Dirichlet)
def _dirichlet(p: Any, q: Any) -> Tensor:
    a, b = p.concentration, q.concentration
    total = a.sum(-1)
    norms = lgamma(total) - lgamma(b.sum(-1)) - (lgamma(a) - lgamma(b)).sum(-1)
    return norms + ((a - b) * (digamma(a) - digamma(total).unsqueeze(-1))).sum(-1)  # type: ignore[no-any-return]


@register_kl(Beta, Beta)
def _beta(p: Any, q: Any) -> Tensor:
    return _dirichlet(p._dirichlet, q._dirichlet)


@register_kl(Cauchy, Cauchy)
def _cauchy(p: Any, q: Any) -> Tensor:
    """Chyzak, Nielsen, arXiv:1905.10965."""
    apart = (p.scale + q.scale) ** 2 + (p.loc - q.loc) ** 2
    return (apart / (4 * p.scale * q.scale)).log()  # type: ignore[no-any-return]


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _continuous_bernoulli(p: Any, q: Any) -> Tensor:
    odds = p.mean * (p.logits - q.logits)
    return odds + p._log_norm() + (-p.probs).log1p() - q._log_norm() - (-q.probs).log1p()  # type: ignore[no-any-return]


@register_kl(Binomial, Binomial)
def _binomial(p: Any, q: Any) -> Tensor:
    """Infinite for more trials than q has; for fewer there is no formula."""
    if bool((p.total_count < q.total_count).any()):
        raise NotImplementedError("kl_divergence: expected two Binomial with equal total_count, or more of p")
    trials = p.total_count * _bernoulli(p, q)
    return where(p.total_count > q.total_count, math.inf, trials)  # type: ignore[no-any-return]


@register_kl(Geometric, Geometric)
def _geometric(p: Any, q: Any) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits  # type: ignore[no-any-return]


@register_kl(Poisson, Poisson)
def _poisson(p: Any, q: Any) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)  # type: ignore[no-any-return]


@register_kl(Gumbel, Gumbel)
def _gumbel(p: Any, q: Any) -> Tensor:
    ratio, apart = p.scale / q.scale, (q.loc - p.loc) / q.scale
    moment = (apart + lgamma(1 + ratio)).exp()
    return -ratio.log() - apart + ratio * EULER + moment - (1 + EULER)  # type: ignore[no-any-return]


@register_kl(Pareto, Pareto)
def _pareto(p: Any, q: Any) -> Tensor:
    ratio = q.alpha / p.alpha
    found = q.alpha * (p.scale / q.scale).log() - ratio.log() + ratio - 1
    return where(p.scale < q.scale, math.inf, found)  # type: ignore[no-any-return]


# --- of two kinds -----------------------------------------------------------------------------------------------------


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Any, q: Any) -> Tensor:
    return _gamma(Gamma(p.rate * 0 + 1, p.rate, validate_args=False), q)


@register_kl(Gamma, Exponential)
def _gamma_exponential(p: Any, q: Any) -> Tensor:
    return _gamma(p, Gamma(q.rate * 0 + 1, q.rate, validate_args=False))


def _to_normal(p: Any, q: Any) -> Tensor:
    """E_p of −log q for a normal q, less the entropy of p."""
    square = p.variance + (p.mean - q.loc) ** 2
    return 0.5 * math.log(2 * math.pi) + q.scale.log() + square / (2 * q.scale**2) - p.entropy()  # type: ignore[no-any-return]


for _kind in (Beta, ContinuousBernoulli, Exponential, Gamma, Gumbel, Laplace, Uniform):
    register_kl(_kind, Normal)(_to_normal)
