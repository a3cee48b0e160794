"""``LKJCholesky``: random correlation matrices, as their Cholesky factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from kobai.core.tensor import Tensor
from kobai.distributions import constraints
from kobai.distributions.base import Distribution, parameters
from kobai.distributions.gamma import Beta
from kobai.dtypes import finfo
from kobai.ops.create import arange
from kobai.ops.joining import cat
from kobai.ops.rare_special import mvlgamma
from kobai.ops.rearrange import tril
from kobai.ops.special import lgamma


class LKJCholesky(Distribution):
    """Factors L of correlation matrices L Lᵀ of ``dim`` variables with the density p(L Lᵀ) ∝ det(L Lᵀ)^(η − 1).

    η = ``concentration``: with 1 all correlation matrices are as probable, with more those near the identity.
    Lewandowski, Kurowicka, Joe, *Generating random correlation matrices based on vines and extended onion method*, 2009.

    >>> import kobai
    >>> L = kobai.distributions.LKJCholesky(3, 0.5).sample()
    >>> kobai.allclose((L @ L.mT).diagonal(), kobai.ones(3))
    True
    """

    arg_constraints: ClassVar[Any] = {"concentration": constraints.positive}
    support = constraints.corr_cholesky

    def __init__(self, dim: int, concentration: Any = 1.0, validate_args: bool | None = None) -> None:
        if dim < 2:
            raise ValueError(f"LKJCholesky: expected dim >= 2, got {dim}")
        self.dim = dim
        (self.concentration,) = parameters(concentration)
        super().__init__(self.concentration.shape, (dim, dim), validate_args)

    def _settings(self) -> dict[str, Any]:
        return {"dim": self.dim}

    def _steps(self, start: float) -> Tensor:
        """``dim`` − 1 numbers from ``start`` on."""
        like = self.concentration
        return start + arange(self.dim - 1, dtype=like.dtype, device=like.device)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """The onion method: row i of i = 0 … K − 1 begins with i numbers of a uniform direction, whose sum of squares is
        drawn from Beta(i/2, η + (K − 1 − i)/2); the next number makes the row's norm 1.

        PyTorch draws that sum from Beta(i − 1/2, ...), which from K = 3 on is another distribution than its density.
        """
        rows = self._steps(1.0)
        second = self.concentration.detach().unsqueeze(-1) + (self.dim - 1 - rows) / 2
        squares = Beta(rows / 2, second, validate_args=False).sample(
            sample_shape if isinstance(sample_shape, Sequence) else (sample_shape,)
        )
        squares = cat([squares.new_zeros(*squares.shape[:-1], 1), squares], -1)
        noise = tril(squares.new_empty(self._extended_shape(sample_shape)).normal_(), -1)
        length = noise.norm(dim=-1, keepdim=True).clamp(min=float(finfo(noise.dtype).tiny))
        below = noise / length * squares.sqrt().unsqueeze(-1)
        return below + (1 - squares).clamp(min=float(finfo(noise.dtype).tiny)).sqrt().diag_embed()  # type: ignore[no-any-return]

    def log_prob(self, value: Tensor) -> Tensor:
        """Σᵢ (2η − 2 + K − i) log Lᵢᵢ for i = 2 … K, less the logarithm of the integral (theorem 5 of the article)."""
        value, k = self._validate_sample(value), self.dim
        power = 2 * (self.concentration - 1).unsqueeze(-1) + (k - self._steps(2.0))
        density = (power * value.diagonal(dim1=-2, dim2=-1)[..., 1:].log()).sum(-1)
        shape = self.concentration + (k - 1) / 2
        integral = mvlgamma(shape - 0.5, k - 1) - (k - 1) * lgamma(shape)
        return density - integral - (k - 1) / 2 * math.log(math.pi)  # type: ignore[no-any-return]
