"""Singular values, eigenvalues, QR and what follows, with gradients; the formulas are in :mod:`kobai.linalg.factors`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.linalg import factors
from kobai.linalg.factors import part
from kobai.linalg.systems import matrices
from kobai.ops._args import need, need_flags
from kobai.ops.broadcast import broadcast_shapes, expand
from kobai.ops.create import empty
from kobai.ops.singular import NO_SINGULAR_VALUES, singular_values
from kobai.xp import linalg_errors, xp_of


class SVDResult(NamedTuple):
    """U diag(S) Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


@one_operation
def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> SVDResult:
    """Singular value decomposition A = U diag(S) Vh, singular values in descending order.

    (..., n, m) → U (..., n, k), S (..., k), Vh (..., k, m) with k = min(n, m); with ``full_matrices`` U and Vh are square,
    and their additional vectors have no gradient. ``driver`` names an algorithm of a library of PyTorch's; here the array
    library decides, so only None is taken. The gradient is infinite where it depends on vectors of equal singular values.
    Townsend, *Differentiating the singular value decomposition*, 2016.

    >>> import kobai
    >>> U, S, Vh = kobai.linalg.svd(kobai.tensor([[0., 3.5], [2., 0.], [0., 0.]]), full_matrices=False)
    >>> U.shape, S, Vh.shape
    (kobai.Size([3, 2]), tensor([3.5000, 2.0000]), kobai.Size([2, 2]))
    """
    matrices("svd", A)
    _no_driver("svd", driver)
    n, m = A.shape[-2:]
    k = min(n, m)
    packed = factors.usv(A, full_matrices)
    u, v = (part(packed, row, size, size if full_matrices else k) for row, size in ((0, n), (n + 1, m)))
    return SVDResult(u, part(packed, n, 1, k).squeeze(-2), v.mT)


def _no_driver(who: str, driver: Any) -> None:
    need(who, driver is None, "driver=None: the array library chooses the algorithm", repr(driver))


@one_operation
def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """Singular values in descending order: d σᵢ = uᵢᵀ dA vᵢ. ``driver`` as for :func:`svd`.

    >>> import kobai
    >>> kobai.linalg.svdvals(kobai.tensor([[2., 0.], [0., -3.5]]))
    tensor([3.5000, 2.0000])
    """
    matrices("svdvals", A)
    _no_driver("svdvals", driver)
    return singular_values(A)


class EighResult(NamedTuple):
    """Eigenvalues in ascending order and eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def _upper(who: str, UPLO: Any) -> bool:
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise (RuntimeError if isinstance(UPLO, str) else TypeError)(f"{who}: expected UPLO 'L' or 'U', got {UPLO!r}")
    return UPLO.upper() == "U"


@one_operation
def eigh(A: Tensor, UPLO: str = "L") -> EighResult:
    """Eigenvalues and eigenvectors of symmetric matrices, of which the lower (L) or upper (U) triangle counts.

    The gradient is that along symmetric matrices, infinite where it depends on vectors of equal eigenvalues. Giles, *An
    extended collection of matrix derivative results for forward and reverse mode algorithmic differentiation*, 2008.

    >>> import kobai
    >>> kobai.linalg.eigh(kobai.tensor([[2.5, 1.], [1., 2.5]])).eigenvalues
    tensor([1.5000, 3.5000])
    """
    matrices("eigh", A, square=True)
    n = A.shape[-1]
    packed = factors.eigen(A, _upper("eigh", UPLO))
    return EighResult(part(packed, 0, 1, n).squeeze(-2), part(packed, 1, n, n))


@one_operation
def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """Eigenvalues in ascending order of symmetric matrices, of which the triangle L or U counts: d λᵢ = vᵢᵀ dA vᵢ.

    >>> import kobai
    >>> kobai.linalg.eigvalsh(kobai.tensor([[2.5, 1.], [1., 2.5]]))
    tensor([1.5000, 3.5000])
    """
    matrices("eigvalsh", A, square=True)
    return factors.eigenvalues(A, _upper("eigvalsh", UPLO))


class QRResult(NamedTuple):
    """Orthonormal columns and an upper triangle."""

    Q: Tensor
    R: Tensor


@one_operation
def qr(A: Tensor, mode: str = "reduced") -> QRResult:
    """A = Q R with orthonormal columns Q and an upper triangle R.

    ``mode``: ``"reduced"``, Q (..., n, k) and R (..., k, m) with k = min(n, m); ``"complete"``, Q (..., n, n) and R
    (..., n, m); ``"r"``, R of the reduced form, and an empty Q. ``"complete"`` of more rows than columns has no gradient:
    RuntimeError in backward. Walter, Lehmann, *Algorithmic differentiation of linear algebra functions*, 2018.

    >>> import kobai
    >>> Q, R = kobai.linalg.qr(kobai.tensor([[3., 1.], [4., 2.], [0., 2.]]))
    >>> Q.shape, kobai.allclose(Q.T @ Q, kobai.eye(2), atol=1e-6), (R[1, 0] == 0).item()
    (kobai.Size([3, 2]), True, True)
    """
    matrices("qr", A)
    need("qr", mode in ("reduced", "complete", "r"), "mode 'reduced', 'complete' or 'r'", repr(mode))
    n, m = A.shape[-2:]
    k = n if mode == "complete" else min(n, m)
    packed = factors.orthogonal(A, mode == "complete")
    q = empty(0, dtype=A.dtype, device=A.device) if mode == "r" else part(packed, 0, n, k)
    return QRResult(q, part(packed, n, k, m))


@one_operation
def pinv(A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """Moore–Penrose inverse V S⁺ Uᵀ: singular values up to the cut-off max(atol, rtol · σ₁) count as 0.

    ``rtol`` – by its older name ``rcond`` – is max(n, m) · ε of the dtype unless ``atol`` or it is given (numbers or tensors,
    one for each matrix). ``hermitian`` says that A is symmetric; then only its lower triangle counts. The gradient is that of
    matrices of one rank: Golub, Pereyra, SIAM Journal on Numerical Analysis 10, 1973.

    >>> import kobai
    >>> kobai.linalg.pinv(kobai.tensor([[2.], [0.]]))
    tensor([[0.5000, 0.0000]])
    """
    need_flags("pinv", hermitian=hermitian)
    matrices("pinv", A, square=hermitian)
    rtol = rcond if rtol is None else rtol
    atol, rtol = (x.detach() if isinstance(x, Tensor) else x for x in (atol, rtol))
    return factors.pseudo_inverse(factors.mirrored(A) if hermitian else A, atol, rtol)


class LstsqResult(NamedTuple):
    """Solution, squared residuals, rank of A, its singular values."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


@one_operation
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> LstsqResult:
    """X that minimises ‖A X − B‖², the shortest if there are many: A (..., n, m), B (..., n, k) or a vector for each A.

    Always by singular values, of which those up to ``rcond`` · σ₁ (default: max(n, m) ε) count as 0. ``driver`` only decides,
    as in PyTorch, what else is given: the rank unless it is ``"gels"``; singular values if it is ``"gelsd"`` or ``"gelss"``;
    with these three the residuals, if n > m and A has full rank, which ``"gels"`` takes for granted. What is not given is an
    empty tensor. The default is ``"gelsy"``. Gradients of A and B through the solution.

    >>> import kobai
    >>> A = kobai.tensor([[1.], [1.], [1.]])
    >>> kobai.linalg.lstsq(A, kobai.tensor([[1.], [2.], [4.5]])).solution  # one number for all: the mean
    tensor([[2.5000]])
    """
    matrices("lstsq", A)
    drivers = (None, "gels", "gelsy", "gelsd", "gelss")
    need("lstsq", driver in drivers, "driver 'gels', 'gelsy', 'gelsd' or 'gelss'", repr(driver))
    need(
        "lstsq", isinstance(B, Tensor) and B.dtype == A.dtype, f"B of {A.dtype}", getattr(B, "dtype", type(B).__name__)
    )
    n, m = A.shape[-2:]
    vector = B.ndim == A.ndim - 1 and B.shape == A.shape[:-1]
    b = B.unsqueeze(-1) if vector else B
    need("lstsq", b.ndim >= 2 and b.shape[-2] == n, f"B with {n} rows", f"shape {tuple(B.shape)}")
    batch = broadcast_shapes(A.shape[:-2], b.shape[:-2])
    a, b = expand(A, *batch, n, m), expand(b, *batch, n, b.shape[-1])
    x = factors.least_squares(a, b, rcond)
    values = singular_values(a.detach())
    rank = (values > Tensor._wrap(factors.cut_off(values.array, a.shape, None, rcond))).sum(-1)
    none = empty(0, dtype=A.dtype, device=A.device)
    residuals = x.flatten()[:0]  # has the gradient zero, as residuals have one
    if n > m and driver not in (None, "gelsy") and (driver == "gels" or bool((rank == m).all())):
        residuals = ((a @ x - b) ** 2).sum(-2)
    return LstsqResult(
        x.squeeze(-1) if vector else x,
        residuals,
        rank if driver != "gels" else empty(0, dtype=np.int64, device=A.device),
        values if driver in ("gelsd", "gelss") else none,
    )


@one_operation
def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """Number of singular values above the cut-off of :func:`pinv`; ``tol`` is an older name of ``atol``. No gradient.

    >>> import kobai
    >>> kobai.linalg.matrix_rank(kobai.tensor([[1., 2.], [2., 4.]]))
    tensor(1)
    """
    matrices("matrix_rank", A, square=hermitian)
    array = A.detach().array
    xp = xp_of(array)
    with linalg_errors(array, NO_SINGULAR_VALUES):
        values = xp.linalg.svd(factors.symmetric(array) if hermitian else array, compute_uv=False)
    atol, rtol = (x.detach().array if isinstance(x, Tensor) else x for x in (tol if atol is None else atol, rtol))
    above = values > factors.cut_off(values, array.shape, atol, rtol)
    return Tensor._wrap(xp.asarray(above.sum(-1, dtype=np.int64)))  # type: ignore[no-any-return]
