"""Decompositions and what follows from them. Only singular values have a gradient; asking for another is an error."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.grad_mode import is_grad_enabled
from kobai.core.tensor import Tensor
from kobai.dtypes import finfo
from kobai.linalg.systems import matrices, symmetric
from kobai.ops.singular import singular_values
from kobai.xp import Array, linalg_errors, xp_of


def _plain(who: str, x: Tensor, *, square: bool = False) -> Array:
    """The array of an operand; NotImplementedError if its gradient is wanted."""
    matrices(who, x, square=square)
    if x.requires_grad and is_grad_enabled():
        raise NotImplementedError(f"{who}: the gradient is not implemented; use detach(), or no_grad()")
    return x.array


class SVDResult(NamedTuple):
    """U diag(S) Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


@one_operation
def svd(A: Tensor, full_matrices: bool = True) -> SVDResult:
    """Singular value decomposition, singular values in descending order. No gradient.

    >>> import kobai
    >>> U, S, Vh = kobai.linalg.svd(kobai.tensor([[0., 3.5], [2., 0.], [0., 0.]]), full_matrices=False)
    >>> U.shape, S, Vh.shape
    (kobai.Size([3, 2]), tensor([3.5000, 2.0000]), kobai.Size([2, 2]))
    """
    array = _plain("svd", A)
    with linalg_errors(array):
        parts = xp_of(array).linalg.svd(array, full_matrices=full_matrices)
    return SVDResult(*(Tensor._wrap(part) for part in parts))


@one_operation
def svdvals(A: Tensor) -> Tensor:
    """Singular values in descending order.

    >>> import kobai
    >>> kobai.linalg.svdvals(kobai.tensor([[2., 0.], [0., -3.5]]))
    tensor([3.5000, 2.0000])
    """
    matrices("svdvals", A)
    return singular_values(A)


class EighResult(NamedTuple):
    """Eigenvalues in ascending order and eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def _triangle(who: str, UPLO: Any) -> str:
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise (RuntimeError if isinstance(UPLO, str) else TypeError)(f"{who}: expected UPLO 'L' or 'U', got {UPLO!r}")
    return UPLO.upper()


@one_operation
def eigh(A: Tensor, UPLO: str = "L") -> EighResult:
    """Eigenvalues and eigenvectors of symmetric matrices, of which the lower (L) or upper (U) triangle counts. No gradient.

    >>> import kobai
    >>> kobai.linalg.eigh(kobai.tensor([[2.5, 1.], [1., 2.5]])).eigenvalues
    tensor([1.5000, 3.5000])
    """
    array = _plain("eigh", A, square=True)
    with linalg_errors(array):
        parts = xp_of(array).linalg.eigh(array, _triangle("eigh", UPLO))
    return EighResult(*(Tensor._wrap(part) for part in parts))


@one_operation
def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """Eigenvalues in ascending order of symmetric matrices, of which the triangle L or U counts. No gradient.

    >>> import kobai
    >>> kobai.linalg.eigvalsh(kobai.tensor([[2.5, 1.], [1., 2.5]]))
    tensor([1.5000, 3.5000])
    """
    array = _plain("eigvalsh", A, square=True)
    with linalg_errors(array):
        values = xp_of(array).linalg.eigvalsh(array, _triangle("eigvalsh", UPLO))
    return Tensor._wrap(values)  # type: ignore[no-any-return]


class QRResult(NamedTuple):
    """Orthonormal columns and an upper triangle."""

    Q: Tensor
    R: Tensor


@one_operation
def qr(A: Tensor) -> QRResult:
    """Reduced QR decomposition. No gradient.

    >>> import kobai
    >>> Q, R = kobai.linalg.qr(kobai.tensor([[3., 1.], [4., 2.], [0., 2.]]))
    >>> Q.shape, kobai.allclose(Q.T @ Q, kobai.eye(2), atol=1e-6), (R[1, 0] == 0).item()
    (kobai.Size([3, 2]), True, True)
    """
    array = _plain("qr", A)
    return QRResult(*(Tensor._wrap(part) for part in xp_of(array).linalg.qr(array)))


@one_operation
def pinv(A: Tensor, *, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Tensor:
    """Moore–Penrose inverse V S⁺ Uᵀ: singular values up to the cut-off max(atol, rtol · σ₁) count as 0. No gradient.

    ``rtol`` is max(n, m) · ε of the dtype unless ``atol`` or it is given (numbers or tensors, one for each matrix).
    ``hermitian`` says that A is symmetric; then only its lower triangle counts.

    >>> import kobai
    >>> kobai.linalg.pinv(kobai.tensor([[2.], [0.]]))
    tensor([[0.5000, 0.0000]])
    """
    array = _plain("pinv", A, square=hermitian)
    xp = xp_of(array)
    with linalg_errors(array):
        u, s, vh = xp.linalg.svd(symmetric(array) if hermitian else array, full_matrices=False)
    kept = s > _cut_off(array, s, atol, rtol)
    inverse = xp.where(kept, 1 / xp.where(kept, s, 1), 0)
    return Tensor._wrap((vh.swapaxes(-1, -2) * inverse[..., None, :]) @ u.swapaxes(-1, -2))  # type: ignore[no-any-return]


def _cut_off(array: Array, values: Array, atol: Any, rtol: Any) -> Any:
    """max(atol, rtol · σ₁), the cut-off up to which singular ``values`` count as 0."""
    if rtol is None:
        rtol = max(array.shape[-2:]) * float(finfo(array.dtype).eps) if atol is None else 0.0
    atol, rtol = (
        t.detach().array.astype(array.dtype, copy=False)[..., None] if isinstance(t, Tensor) else t or 0.0
        for t in (atol, rtol)
    )
    xp = xp_of(array)
    return xp.maximum(rtol * values[..., :1], atol)


class LstsqResult(NamedTuple):
    """Solution, squared residuals, rank of A, its singular values."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


@one_operation
def lstsq(A: Tensor, B: Tensor) -> LstsqResult:
    """X that minimises ‖A X − B‖². No gradient.

    >>> import kobai
    >>> A = kobai.tensor([[1.], [1.], [1.]])
    >>> kobai.linalg.lstsq(A, kobai.tensor([[1.], [2.], [4.5]])).solution  # one number for all: the mean
    tensor([[2.5000]])
    """
    a, b = _plain("lstsq", A), B.detach().array
    xp = xp_of(a)
    with linalg_errors(a):
        parts = xp.linalg.lstsq(a, b, rcond=None)
    return LstsqResult(*(Tensor._wrap(xp.asarray(part)) for part in parts))


@one_operation
def matrix_rank(A: Tensor, *, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Tensor:
    """Number of singular values above the cut-off of :func:`pinv`. No gradient.

    >>> import kobai
    >>> kobai.linalg.matrix_rank(kobai.tensor([[1., 2.], [2., 4.]]))
    tensor(1)
    """
    matrices("matrix_rank", A, square=hermitian)
    array = A.detach().array
    xp = xp_of(array)
    with linalg_errors(array):
        values = xp.linalg.svd(symmetric(array) if hermitian else array, compute_uv=False)
    return Tensor._wrap(xp.asarray((values > _cut_off(array, values, atol, rtol)).sum(-1, dtype=np.int64)))  # type: ignore[no-any-return]
