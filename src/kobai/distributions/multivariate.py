"""Distributions of vectors: ``Independent`` numbers, multivariate normal ones; and mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from kobai import linalg
from kobai.core.tensor import Tensor
from kobai.distributions import constraints
from kobai.distributions.base import Distribution, ExponentialFamily, summed
from kobai.distributions.continuous import LOG_2PI
from kobai.distributions.discrete import Categorical
from kobai.ops.broadcast import broadcast_shapes
from kobai.ops.create import eye
from kobai.ops.extreme import logsumexp
from kobai.ops.gather import gather
from kobai.ops.random import randn


class Independent(Distribution):
    """The last ``reinterpreted_batch_ndims`` dimensions of a batch of distributions as one event: log-probabilities and
    entropies are summed over them.

    >>> import kobai
    >>> from kobai.distributions import Independent, Normal
    >>> Independent(Normal(kobai.zeros(5, 3), kobai.ones(5, 3)), 1).log_prob(kobai.zeros(5, 3)).shape
    kobai.Size([5])
    """

    def __init__(
        self, base_distribution: Distribution, reinterpreted_batch_ndims: int, validate_args: bool | None = None
    ) -> None:
        n, shape = reinterpreted_batch_ndims, base_distribution.batch_shape
        if not 0 <= n <= len(shape):
            raise ValueError(f"Independent: expected 0 to {len(shape)} dimensions of batch {tuple(shape)}, got {n}")
        self.base_dist = base_distribution
        self.reinterpreted_batch_ndims = n
        cut = len(shape) - n
        super().__init__(shape[:cut], shape[cut:] + base_distribution.event_shape, validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """If the base has it."""
        return self.base_dist.has_rsample

    @constraints.dependent_property
    def support(self) -> Any:
        """Events that are in the support of the base throughout."""
        found, n = self.base_dist.support, self.reinterpreted_batch_ndims
        return constraints.independent(found, n) if n else found

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Distribution:
        """As of the base."""
        n = self.reinterpreted_batch_ndims
        made = Independent(self.base_dist.expand((*batch_shape, *self.event_shape[:n])), n, self._validate_args)
        return self._into(_instance, made)  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        """That of the base."""
        return self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        """That of the base."""
        return self.base_dist.variance

    @property
    def mode(self) -> Tensor:
        """That of the base."""
        return self.base_dist.mode

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """As the base."""
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """As the base."""
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Sum of the base's."""
        return self._summed(self.base_dist.log_prob(value))

    def entropy(self) -> Tensor:
        """Sum of the base's."""
        return self._summed(self.base_dist.entropy())

    def _summed(self, x: Tensor) -> Tensor:
        return summed(x, self.reinterpreted_batch_ndims)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist!r}, {self.reinterpreted_batch_ndims})"


class MultivariateNormal(ExponentialFamily):
    """Normal vectors with mean ``loc`` (..., k) and one of: ``covariance_matrix`` Σ, ``precision_matrix`` Σ⁻¹, or
    ``scale_tril``, the lower triangular L with L Lᵀ = Σ; (..., k, k).

    >>> import kobai
    >>> d = kobai.distributions.MultivariateNormal(kobai.zeros(2), kobai.eye(2))
    >>> round(d.log_prob(kobai.zeros(2)).item(), 4)
    -1.8379
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        given = [m for m in (covariance_matrix, precision_matrix, scale_tril) if m is not None]
        if len(given) != 1:
            raise ValueError(
                "MultivariateNormal: expected exactly one of covariance_matrix, precision_matrix and scale_tril, "
                f"got {len(given)}"
            )
        k = loc.shape[-1] if loc.ndim else 0
        if given[0].ndim < 2 or tuple(given[0].shape[-2:]) != (k, k) or k == 0:
            raise ValueError(
                "MultivariateNormal: expected loc (..., k) and a matrix (..., k, k), "
                f"got {tuple(loc.shape)} and {tuple(given[0].shape)}"
            )
        shape = (*broadcast_shapes(loc.shape[:-1], given[0].shape[:-2]), k)
        self.loc = loc.expand(shape)
        names = ("covariance_matrix", "precision_matrix", "scale_tril")
        name = names[[covariance_matrix is not None, precision_matrix is not None, scale_tril is not None].index(True)]
        setattr(self, name, given[0].expand(*shape, k))
        super().__init__(shape[:-1], shape[-1:], validate_args)

    @cached_property
    def scale_tril(self) -> Tensor:
        """L with L Lᵀ = Σ."""
        given = self.__dict__.get("covariance_matrix")
        return linalg.cholesky(linalg.inv(self.precision_matrix) if given is None else given)

    @cached_property
    def covariance_matrix(self) -> Tensor:
        """Σ = L Lᵀ."""
        return self.scale_tril @ self.scale_tril.mT  # type: ignore[no-any-return]

    @cached_property
    def precision_matrix(self) -> Tensor:
        """Σ⁻¹."""
        return linalg.inv(self.covariance_matrix)

    @property
    def mean(self) -> Tensor:
        """μ."""
        return self.loc  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """μ."""
        return self.loc  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """The diagonal of Σ."""
        return (self.scale_tril * self.scale_tril).sum(-1)  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """μ + L ε with ε standard normal."""
        return self.loc + (self.scale_tril @ self._noise(randn, sample_shape).unsqueeze(-1)).squeeze(-1)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """−½ ‖L⁻¹(x − μ)‖² − Σ log Lᵢᵢ − ½ k log 2π."""
        difference = self._validate_sample(value) - self.loc
        z = linalg.solve_triangular(self.scale_tril, difference.unsqueeze(-1), upper=False).squeeze(-1)
        return -0.5 * (z * z).sum(-1) - self._log_det() - 0.5 * self.event_shape[0] * LOG_2PI  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """½ k (1 + log 2π) + Σ log Lᵢᵢ."""
        return self._log_det() + 0.5 * self.event_shape[0] * (1 + LOG_2PI)  # type: ignore[no-any-return]

    def _log_det(self) -> Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # type: ignore[no-any-return]


class LowRankMultivariateNormal(Distribution):
    """Normal vectors with mean ``loc`` (..., k), covariance W Wᵀ + diag(D): W = ``cov_factor`` (..., k, r), D = ``cov_diag``.

    Of the r × r matrix 1 + Wᵀ D⁻¹ W only is a Cholesky factor computed (Woodbury's identity).

    >>> import kobai
    >>> d = kobai.distributions.LowRankMultivariateNormal(kobai.zeros(2), kobai.ones(2, 1), kobai.ones(2))
    >>> d.covariance_matrix
    tensor([[2., 1.],
            [1., 2.]])
    """

    has_rsample = True
    arg_constraints: ClassVar[Any] = {
        "loc": constraints.real_vector,
        "cov_factor": constraints.independent(constraints.real, 2),
        "cov_diag": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector

    def __init__(self, loc: Tensor, cov_factor: Tensor, cov_diag: Tensor, validate_args: bool | None = None) -> None:
        k = loc.shape[-1] if loc.ndim else 0
        if cov_factor.ndim < 2 or cov_factor.shape[-2] != k or cov_diag.shape[-1:] != (k,) or not k:
            shapes = ", ".join(str(tuple(x.shape)) for x in (loc, cov_factor, cov_diag))
            raise ValueError(f"LowRankMultivariateNormal: expected (..., k), (..., k, r) and (..., k), got {shapes}")
        batch = broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self.loc, self.cov_diag = loc.expand(*batch, k), cov_diag.expand(*batch, k)
        self.cov_factor = cov_factor.expand(*batch, k, cov_factor.shape[-1])
        super().__init__(batch, (k,), validate_args)

    @cached_property
    def _capacitance(self) -> Tensor:
        """The Cholesky factor of 1 + Wᵀ D⁻¹ W."""
        w = self.cov_factor
        one = eye(w.shape[-1], dtype=w.dtype, device=w.device)
        return linalg.cholesky(one + w.mT @ (w / self.cov_diag.unsqueeze(-1)))

    @property
    def mean(self) -> Tensor:
        """μ."""
        return self.loc  # type: ignore[no-any-return]

    @property
    def mode(self) -> Tensor:
        """μ."""
        return self.loc  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance."""
        return (self.cov_factor**2).sum(-1) + self.cov_diag  # type: ignore[no-any-return]

    @property
    def covariance_matrix(self) -> Tensor:
        """W Wᵀ + diag(D)."""
        return self.cov_factor @ self.cov_factor.mT + self.cov_diag.diag_embed()  # type: ignore[no-any-return]

    @property
    def precision_matrix(self) -> Tensor:
        """Its inverse."""
        return linalg.inv(self.covariance_matrix)

    @property
    def scale_tril(self) -> Tensor:
        """Its Cholesky factor."""
        return linalg.cholesky(self.covariance_matrix)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """μ + W ε + √D ε′."""
        shape = self._extended_shape(sample_shape)
        few = randn((*shape[:-1], self.cov_factor.shape[-1]), dtype=self.loc.dtype, device=self.loc.device)
        spread = (self.cov_factor @ few.unsqueeze(-1)).squeeze(-1)
        return self.loc + spread + self.cov_diag.sqrt() * self._noise(randn, sample_shape)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """−½ (M + log det + k log 2π), M the squared distance of Mahalanobis."""
        x = self._validate_sample(value) - self.loc
        scaled = x / self.cov_diag
        half = linalg.solve_triangular(self._capacitance, self.cov_factor.mT @ scaled.unsqueeze(-1), upper=False)
        distance = (x * scaled).sum(-1) - (half * half).sum((-2, -1))
        return -0.5 * (distance + self.event_shape[0] * LOG_2PI) - self._log_det()  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """½ k (1 + log 2π) + ½ log det."""
        return self._log_det() + 0.5 * self.event_shape[0] * (1 + LOG_2PI)  # type: ignore[no-any-return]

    def _log_det(self) -> Tensor:
        """Half the logarithm of the determinant."""
        diagonal = self._capacitance.diagonal(dim1=-2, dim2=-1)
        return diagonal.log().sum(-1) + 0.5 * self.cov_diag.log().sum(-1)  # type: ignore[no-any-return]


class MixtureSameFamily(Distribution):
    """One of K components, the last dimension of the batch of ``component_distribution``, drawn by ``mixture_distribution``.

    >>> import kobai
    >>> from kobai.distributions import Categorical, MixtureSameFamily, Normal
    >>> mixture = MixtureSameFamily(Categorical(kobai.ones(2)), Normal(kobai.tensor([-1.0, 3.0]), kobai.ones(2)))
    >>> mixture.mean, mixture.variance
    (tensor(1.), tensor(5.))
    """

    def __init__(
        self, mixture_distribution: Categorical, component_distribution: Distribution, validate_args: bool | None = None
    ) -> None:
        if not isinstance(mixture_distribution, Categorical) or not isinstance(component_distribution, Distribution):
            raise ValueError(
                "MixtureSameFamily: expected a Categorical and another Distribution, got "
                f"{type(mixture_distribution).__name__} and {type(component_distribution).__name__}"
            )
        shape = component_distribution.batch_shape
        k = mixture_distribution._classes
        if not shape or shape[-1] != k:
            raise ValueError(f"MixtureSameFamily: expected components of batch (..., {k}), got {tuple(shape)}")
        self._mixture_distribution, self._component_distribution = mixture_distribution, component_distribution
        super().__init__(shape[:-1], component_distribution.event_shape, validate_args)

    @property
    def mixture_distribution(self) -> Categorical:
        """By which a component is drawn."""
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Distribution:
        """The components."""
        return self._component_distribution

    @constraints.dependent_property
    def support(self) -> Any:
        """That of the components."""
        return self._component_distribution.support

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Distribution:
        """As of the components."""
        k = self._mixture_distribution._classes
        components = self._component_distribution.expand((*batch_shape, k))
        mixture: Any = self._mixture_distribution.expand(batch_shape)
        made = MixtureSameFamily(mixture, components, self._validate_args)
        return self._into(_instance, made)  # type: ignore[no-any-return]

    def _weights(self) -> Tensor:
        return self._mixture_distribution.probs.reshape(  # type: ignore[no-any-return]
            *self._mixture_distribution.probs.shape, *[1] * len(self.event_shape)
        )

    def _averaged(self, x: Tensor) -> Tensor:
        return (self._weights() * x).sum(-1 - len(self.event_shape))  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        """E of the components' means."""
        return self._averaged(self._component_distribution.mean)

    @property
    def variance(self) -> Tensor:
        """E of their variances, and the variance of their means."""
        means = self._component_distribution.mean
        apart = means - self.mean.unsqueeze(-1 - len(self.event_shape))
        return self._averaged(self._component_distribution.variance) + self._averaged(apart * apart)

    def cdf(self, value: Tensor) -> Tensor:
        """E of the components'."""
        cdf = self._component_distribution.cdf(self._validate_sample(value).unsqueeze(-1))
        return (cdf * self._mixture_distribution.probs).sum(-1)  # type: ignore[no-any-return]

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw of a drawn component, without a gradient."""
        n = len(self.event_shape)
        draws = self._component_distribution.sample(sample_shape)
        chosen = self._mixture_distribution.expand(self.batch_shape).sample(sample_shape)
        index = chosen.reshape(*chosen.shape, *[1] * (n + 1))
        shape = (*chosen.shape, 1, *self.event_shape)
        return gather(draws, draws.ndim - n - 1, index.expand(*shape)).squeeze(draws.ndim - n - 1)  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """log Σ wₖ pₖ(x)."""
        x = self._validate_sample(value).unsqueeze(-1 - len(self.event_shape))
        weights = self._mixture_distribution.logits
        return logsumexp(self._component_distribution.log_prob(x) + weights, -1)

    def __repr__(self) -> str:
        return f"MixtureSameFamily({self._mixture_distribution!r}, {self._component_distribution!r})"
