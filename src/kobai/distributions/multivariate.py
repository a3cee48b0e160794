"""Distributions of vectors: ``Independent`` numbers, and the ``MultivariateNormal``."""

from __future__ import annotations

from collections.abc import Sequence

from kobai import linalg
from kobai.core.tensor import Tensor
from kobai.distributions.base import Distribution
from kobai.distributions.continuous import LOG_2PI
from kobai.ops.random import randn
from kobai.ops.rearrange import tril


class Independent(Distribution):
    """The last ``reinterpreted_batch_ndims`` dimensions of a batch of distributions as one event: log-probabilities and
    entropies are summed over them.

    >>> import kobai
    >>> from kobai.distributions import Independent, Normal
    >>> Independent(Normal(kobai.zeros(5, 3), kobai.ones(5, 3)), 1).log_prob(kobai.zeros(5, 3)).shape
    kobai.Size([5])
    """

    def __init__(self, base_distribution: Distribution, reinterpreted_batch_ndims: int) -> None:
        n, shape = reinterpreted_batch_ndims, base_distribution.batch_shape
        if not 0 <= n <= len(shape):
            raise ValueError(f"Independent: expected 0 to {len(shape)} dimensions of batch {tuple(shape)}, got {n}")
        self.base_dist = base_distribution
        self.reinterpreted_batch_ndims = n
        cut = len(shape) - n
        super().__init__(shape[:cut], shape[cut:] + base_distribution.event_shape)

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
        n = self.reinterpreted_batch_ndims
        return x.sum(tuple(range(-n, 0))) if n else x

    def __repr__(self) -> str:
        return f"Independent({self.base_dist!r}, {self.reinterpreted_batch_ndims})"


class MultivariateNormal(Distribution):
    """Normal vectors with mean ``loc`` (..., k) and one of: ``covariance_matrix`` Σ, ``precision_matrix`` Σ⁻¹, or
    ``scale_tril``, the lower triangular L with L Lᵀ = Σ; (..., k, k).

    >>> import kobai
    >>> d = kobai.distributions.MultivariateNormal(kobai.zeros(2), kobai.eye(2))
    >>> round(d.log_prob(kobai.zeros(2)).item(), 4)
    -1.8379
    """

    has_rsample = True
    _shown = ("loc", "scale_tril")

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
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
        if scale_tril is not None:
            lower = tril(scale_tril)
        else:
            lower = linalg.cholesky(linalg.inv(precision_matrix) if precision_matrix is not None else given[0])
        shape = (lower[..., 0] + loc).shape
        self.loc = loc.expand(shape)
        self.scale_tril = lower.expand(*shape, k)
        super().__init__(shape[:-1], shape[-1:])

    @property
    def covariance_matrix(self) -> Tensor:
        """Σ = L Lᵀ."""
        return self.scale_tril @ self.scale_tril.mT  # type: ignore[no-any-return]

    @property
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
        difference = self._value(value) - self.loc
        z = (linalg.inv(self.scale_tril) @ difference.unsqueeze(-1)).squeeze(-1)
        return -0.5 * (z * z).sum(-1) - self._log_det() - 0.5 * self.event_shape[0] * LOG_2PI  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """½ k (1 + log 2π) + Σ log Lᵢᵢ."""
        return self._log_det() + 0.5 * self.event_shape[0] * (1 + LOG_2PI)  # type: ignore[no-any-return]

    def _log_det(self) -> Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # type: ignore[no-any-return]
