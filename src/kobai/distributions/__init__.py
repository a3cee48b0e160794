"""``kobai.distributions``: sampling, log-probabilities, entropies and divergences, all differentiable in the parameters."""

from kobai.compat.paths import connect as _connect
from kobai.distributions.base import Distribution
from kobai.distributions.continuous import Exponential, Laplace, LogNormal, Normal, Uniform
from kobai.distributions.discrete import Bernoulli, Categorical, OneHotCategorical
from kobai.distributions.kl import kl_divergence
from kobai.distributions.multivariate import Independent, MultivariateNormal
from kobai.refusals import guard as _guard

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "Exponential",
    "Independent",
    "Laplace",
    "LogNormal",
    "MultivariateNormal",
    "Normal",
    "OneHotCategorical",
    "Uniform",
    "kl_divergence",
]

_guard(globals(), classes=True)
_connect(__name__)
