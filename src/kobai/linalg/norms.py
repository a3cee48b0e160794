"""Norms and the condition number."""

from __future__ import annotations

from typing import Any

from kobai._tensor import Tensor
from kobai.linalg.decompositions import svdvals
from kobai.linalg.systems import inv
from kobai.ops.extreme import norm as _norm


def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Norm of a tensor seen as one vector (``ord`` None: Euclidean), or along ``dim``.

    >>> import kobai
    >>> A = kobai.tensor([[3., 4.], [0., 0.]])
    >>> kobai.linalg.norm(A), kobai.linalg.norm(A, dim=1)
    (tensor(5.), tensor([5., 0.]))
    """
    if ord is not None and dim is None and A.ndim == 2:
        return matrix_norm(A, ord)
    return vector_norm(A, 2 if ord is None else ord, dim, keepdim)


def vector_norm(x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    """(Σ |xᵢ|ᵖ)^(1/p) with p = ``ord``, over all elements or along ``dim``.

    >>> import kobai
    >>> kobai.linalg.vector_norm(kobai.tensor([3., -4.])), kobai.linalg.vector_norm(kobai.tensor([3., -4.]), ord=1)
    (tensor(5.), tensor(7.))
    """
    return _norm(x, ord, dim, keepdim)


def matrix_norm(A: Tensor, ord: Any = "fro") -> Tensor:
    """Frobenius norm, or the nuclear (``"nuc"``) and spectral (2) norms, without gradient.

    >>> import kobai
    >>> A = kobai.tensor([[1.5, 0.], [0., 2.]])
    >>> kobai.linalg.matrix_norm(A), kobai.linalg.matrix_norm(A, "nuc")
    (tensor(2.5000), tensor(3.5000))
    """
    if ord == "fro":
        return _norm(A, 2, (-2, -1))
    if ord == "nuc":
        return svdvals(A).sum(-1)  # type: ignore[no-any-return]
    if ord == 2:
        return svdvals(A).amax(-1)  # type: ignore[no-any-return]
    raise ValueError(f"matrix_norm: expected ord 'fro', 'nuc' or 2, got {ord!r}")


def cond(A: Tensor, p: Any = None) -> Tensor:
    """Condition number: the largest singular value over the smallest (``p`` None or 2), or ‖A‖ₚ ‖A⁻¹‖ₚ. No gradient.

    >>> import kobai
    >>> kobai.linalg.cond(kobai.tensor([[5., 0.], [0., 2.]]))
    tensor(2.5000)
    """
    if p in (None, 2):
        values = svdvals(A)
        return values[..., 0] / values[..., -1]
    return matrix_norm(A, p) * matrix_norm(inv(A), p)
