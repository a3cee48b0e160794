"""``kl_divergence``: KL(p ‖ q) = E_p[log p − log q] in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from kobai import linalg
from kobai.core.tensor import Tensor
from kobai.distributions.base import Distribution
from kobai.distributions.continuous import Exponential, Laplace, LogNormal, Normal, Uniform
from kobai.distributions.discrete import Bernoulli, Categorical, OneHotCategorical
from kobai.distributions.multivariate import Independent, MultivariateNormal
from kobai.ops.activation import softplus
from kobai.ops.gather import where


def _normal(p: Any, q: Any) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    apart = ((p.loc - q.loc) / q.scale) ** 2
    return 0.5 * (ratio + apart - 1 - ratio.log())  # type: ignore[no-any-return]


def _uniform(p: Any, q: Any) -> Tensor:
    inside = (q.low <= p.low) & (p.high <= q.high)
    return where(inside, ((q.high - q.low) / (p.high - p.low)).log(), math.inf)  # type: ignore[no-any-return]


def _exponential(p: Any, q: Any) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - ratio.log()  # type: ignore[no-any-return]


def _laplace(p: Any, q: Any) -> Tensor:
    apart = (p.loc - q.loc).abs()
    ratio = p.scale / q.scale
    return apart / q.scale + ratio * (-apart / p.scale).exp() - 1 - ratio.log()  # type: ignore[no-any-return]


def _bernoulli(p: Any, q: Any) -> Tensor:
    return p.probs * (p.logits - q.logits) - softplus(p.logits) + softplus(q.logits)  # type: ignore[no-any-return]


def _categorical(p: Any, q: Any) -> Tensor:
    terms = where(p.probs == 0, 0.0, p.probs * (p.logits - q.logits))
    return where((q.probs == 0) & (p.probs > 0), math.inf, terms).sum(-1)  # type: ignore[no-any-return]


def _multivariate(p: Any, q: Any) -> Tensor:
    m = linalg.inv(q.scale_tril) @ p.scale_tril
    z = (linalg.inv(q.scale_tril) @ (q.loc - p.loc).unsqueeze(-1)).squeeze(-1)
    return 0.5 * ((m * m).sum((-2, -1)) + (z * z).sum(-1) - p.event_shape[0]) + q._log_det() - p._log_det()  # type: ignore[no-any-return]


def _independent(p: Any, q: Any) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("kl_divergence: expected two Independent with equally many event dimensions")
    return p._summed(kl_divergence(p.base_dist, q.base_dist))  # type: ignore[no-any-return]


_FORMULAS: dict[type[Distribution], Callable[[Any, Any], Tensor]] = {
    Normal: _normal,
    LogNormal: _normal,  # the divergence does not change when both are mapped by the same function
    Uniform: _uniform,
    Exponential: _exponential,
    Laplace: _laplace,
    Bernoulli: _bernoulli,
    Categorical: _categorical,
    OneHotCategorical: _categorical,
    MultivariateNormal: _multivariate,
    Independent: _independent,
}


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """KL(p ‖ q) ≥ 0 of two distributions of one kind, in nats; shape of their batches.

    Errors: NotImplementedError for two of different kinds.

    >>> import kobai
    >>> from kobai.distributions import Normal, kl_divergence
    >>> kl_divergence(Normal(1.0, 1.0), Normal(0.0, 1.0))
    tensor(0.5000)
    """
    formula = _FORMULAS.get(type(p))
    if formula is None or type(p) is not type(q):
        raise NotImplementedError(f"kl_divergence: no formula for {type(p).__name__} and {type(q).__name__}")
    return formula(p, q)
