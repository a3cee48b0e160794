"""Transforms of numbers to triangles and to positive definite matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kobai import linalg
from kobai.core.tensor import Size, Tensor
from kobai.distributions import constraints
from kobai.distributions.transform import Transform, one_before
from kobai.dtypes import finfo
from kobai.ops.activation import softplus
from kobai.ops.create import eye
from kobai.ops.joining import cat
from kobai.ops.rearrange import tril


class CorrCholeskyTransform(Transform):
    """K(K − 1)/2 numbers as the Cholesky factor of a correlation matrix: rows of norm 1, broken as sticks of squares by tanh x.

    >>> import kobai
    >>> kobai.distributions.CorrCholeskyTransform()(kobai.zeros(1))
    tensor([[1., 0.],
            [0., 1.]])
    """

    domain = constraints.real_vector
    codomain = constraints.corr_cholesky
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        eps = float(finfo(x.dtype).eps)
        r = _below(x.tanh().clamp(-1 + eps, 1 - eps))
        left = (1 - r * r).sqrt().cumprod(-1)
        diagonal = eye(r.shape[-1], dtype=r.dtype, device=r.device)
        return (r + diagonal) * one_before(left[..., :-1])

    def _inverse(self, y: Tensor) -> Tensor:
        squares = 1 - (y * y).cumsum(-1)
        left = one_before(squares[..., :-1])
        return _lower(tril(y, -1) / left.clamp(min=float(finfo(y.dtype).tiny)).sqrt(), -1).atanh()  # type: ignore[no-any-return]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """½ Σ of the logarithms of what is left of the squares, and those of the derivatives of tanh."""
        left = 1 - (y * y).cumsum(-1)
        stick = 0.5 * _lower(left.clamp(min=float(finfo(y.dtype).tiny)).log(), -2).sum(-1)
        slope = -2 * (x + softplus(-2 * x) - math.log(2)).sum(-1)
        return stick + slope  # type: ignore[no-any-return]

    def forward_shape(self, shape: Sequence[int]) -> Any:
        """(K(K − 1)/2) → (K, K)."""
        n = shape[-1]
        k = round((0.25 + 2 * n) ** 0.5 + 0.5)
        if k * (k - 1) // 2 != n:
            raise ValueError(f"CorrCholeskyTransform: expected K(K − 1)/2 numbers, got {n}")
        return Size((*shape[:-1], k, k))

    def inverse_shape(self, shape: Sequence[int]) -> Any:
        """(K, K) → (K(K − 1)/2)."""
        k = shape[-1]
        return Size((*shape[:-2], k * (k - 1) // 2))


def _positions(k: int, offset: int) -> list[int]:
    """Places of the lower triangle, row by row, in a flat matrix of k columns."""
    return [i * k + j for i in range(k) for j in range(max(0, i + offset + 1))]


def _below(x: Tensor) -> Tensor:
    """Numbers put below the diagonal, row by row."""
    k = CorrCholeskyTransform().forward_shape(x.shape)[-1]
    places = {place: i for i, place in enumerate(_positions(k, -1))}
    n = x.shape[-1]
    wide = cat([x, x.new_zeros(*x.shape[:-1], 1)], -1)
    return wide[..., [places.get(i, n) for i in range(k * k)]].reshape(*x.shape[:-1], k, k)  # type: ignore[no-any-return]


def _lower(y: Tensor, offset: int) -> Tensor:
    """What is on and below a diagonal, row by row."""
    return y.flatten(y.ndim - 2)[..., _positions(y.shape[-1], offset)]  # type: ignore[no-any-return]


class LowerCholeskyTransform(Transform):
    """A matrix as a lower triangle with a positive diagonal: e to what is on the diagonal.

    >>> import kobai
    >>> kobai.distributions.LowerCholeskyTransform()(kobai.zeros(2, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        return tril(x, -1) + x.diagonal(dim1=-2, dim2=-1).exp().diag_embed()  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return tril(y, -1) + y.diagonal(dim1=-2, dim2=-1).log().diag_embed()  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LowerCholeskyTransform)

    __hash__ = Transform.__hash__


class PositiveDefiniteTransform(Transform):
    """A matrix as a positive definite one: L Lᵀ of :class:`LowerCholeskyTransform`.

    >>> import kobai
    >>> kobai.distributions.PositiveDefiniteTransform()(kobai.zeros(1, 1))
    tensor([[1.]])
    """

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        lower = LowerCholeskyTransform()(x)
        return lower @ lower.mT  # type: ignore[no-any-return]

    def _inverse(self, y: Tensor) -> Tensor:
        return LowerCholeskyTransform().inv(linalg.cholesky(y))
