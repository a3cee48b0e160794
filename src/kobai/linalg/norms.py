"""Norms and the condition number."""

from __future__ import annotations

import math
from typing import Any

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.linalg.decompositions import svdvals
from kobai.linalg.systems import inverse_or_infinite, matrices
from kobai.ops._args import normalize_axis
from kobai.ops.shape import movedim, unsqueeze
from kobai.ops.vector_norm import norm as _norm


def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Norm of a tensor seen as one vector (``ord`` None: Euclidean); with ``ord``, of vectors or matrices.

    ``dim`` is one dimension, then :func:`vector_norm` along it, or two, then :func:`matrix_norm` of the matrices in them;
    without it A is a vector or a matrix.

    >>> import kobai
    >>> A = kobai.tensor([[3., 4.], [0., 0.]])
    >>> kobai.linalg.norm(A), kobai.linalg.norm(A, dim=1), kobai.linalg.norm(A, 1, dim=(0, 1))
    (tensor(5.), tensor([5., 0.]), tensor(4.))
    """
    if ord is None:
        return vector_norm(A, 2, dim, keepdim, dtype=dtype)
    if dim is None:
        if A.ndim not in (1, 2):
            raise RuntimeError(f"linalg.norm: expected dim, or a vector or matrix, got shape {tuple(A.shape)}")
        dim = tuple(range(A.ndim))
    dims = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    if len(dims) == 2:
        return matrix_norm(A, ord, dims, keepdim, dtype=dtype)
    if len(dims) != 1:
        raise RuntimeError(f"linalg.norm: expected one or two dimensions as dim, got {dim}")
    return vector_norm(A, ord, dims, keepdim, dtype=dtype)


def vector_norm(x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """(Σ |xᵢ|ᵖ)^(1/p) with p = ``ord``, over all elements or along ``dim``.

    >>> import kobai
    >>> kobai.linalg.vector_norm(kobai.tensor([3., -4.])), kobai.linalg.vector_norm(kobai.tensor([3., -4.]), ord=1)
    (tensor(5.), tensor(7.))
    """
    if isinstance(ord, bool) or not isinstance(ord, (int, float)):
        raise ValueError(f"vector_norm: expected a number as ord, got {ord!r}")
    return _norm(x, ord, dim, keepdim, dtype=dtype)


@one_operation
def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """Norm of the matrices whose rows and columns are the two dimensions ``dim``.

    ``ord``: ``"fro"`` √Σ aᵢⱼ², 1 the largest Σᵢ |aᵢⱼ| of a column, ∞ the largest Σⱼ |aᵢⱼ| of a row, 2 the largest singular
    value; −1, −∞ and −2 the smallest of these; ``"nuc"`` the sum of the singular values.

    >>> import kobai
    >>> A = kobai.tensor([[1.5, 0.], [0., 2.]])
    >>> kobai.linalg.matrix_norm(A), kobai.linalg.matrix_norm(A, "nuc"), kobai.linalg.matrix_norm(A, -1)
    (tensor(2.5000), tensor(3.5000), tensor(1.5000))
    """
    if ord not in ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf):
        raise ValueError(f"matrix_norm: expected ord 'fro', 'nuc', ±1, ±2 or ±inf, got {ord!r}")
    if A.ndim < 2:
        raise RuntimeError(f"matrix_norm: expected matrices (..., n, m), got {tuple(A.shape)}")
    dims = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
    if len(dims) != 2:
        raise RuntimeError(f"matrix_norm: expected two dimensions as dim, got {dim}")
    rows, columns = (normalize_axis("matrix_norm", d, A.ndim) for d in dims)
    if rows == columns:
        raise RuntimeError(f"matrix_norm: expected two different dimensions as dim, got {dim}")
    x = A if dtype is None else A.to(dtype)
    if ord in ("fro", "nuc"):
        return _norm(x, ord, dims, keepdim)
    if ord in (2, -2):
        values = svdvals(movedim(x, (rows, columns), (-2, -1)))
        found = values.amin(-1) if ord < 0 else values.amax(-1) if values.shape[-1] else values.sum(-1)  # of none: 0
        return unsqueeze(unsqueeze(found, min(rows, columns)), max(rows, columns)) if keepdim else found
    inner, outer = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = _norm(x, 1, inner, keepdim=True)
    if ord > 0 and not x.shape[outer]:  # the norm of a matrix without elements is 0
        return sums.sum((inner, outer), keepdim)  # type: ignore[no-any-return]
    return sums.amax((inner, outer), keepdim) if ord > 0 else sums.amin((inner, outer), keepdim)  # type: ignore[no-any-return]


@one_operation
def cond(A: Tensor, p: Any = None) -> Tensor:
    """Condition number: the largest singular value over the smallest (``p`` None or 2; −2: the smallest over the largest), or
    ‖A‖ₚ ‖A⁻¹‖ₚ with the norms of :func:`matrix_norm`; ∞ of a matrix without an inverse.

    >>> import kobai
    >>> kobai.linalg.cond(kobai.tensor([[5., 0.], [0., 2.]]))
    tensor(2.5000)
    """
    matrices("cond", A, square=p not in (None, 2, -2))
    if p in (None, 2, -2, "nuc"):
        values = svdvals(A)
        if p == "nuc":
            return values.sum(-1) * (1 / values).sum(-1)  # type: ignore[no-any-return]
        if not values.shape[-1]:
            return values.sum(-1)  # type: ignore[no-any-return]  # of a matrix without elements: 0
        largest, smallest = values[..., 0], values[..., -1]
        return smallest / largest if p == -2 else largest / smallest
    return matrix_norm(A, p) * matrix_norm(inverse_or_infinite(A), p)
