"""Linear algebra under PyTorch's older names: functions of ``kobai`` and methods that call :mod:`kobai.linalg`."""

from __future__ import annotations

from typing import NamedTuple

from kobai import linalg
from kobai.core.autocast import one_operation
from kobai.core.primitive import method
from kobai.core.tensor import Tensor
from kobai.linalg import cross, det, elimination, matrix_exp, matrix_power, reflections, slogdet
from kobai.linalg.decompositions import QRResult
from kobai.linalg.reflections import GeqrfResult
from kobai.ops.linear import dot, outer
from kobai.ops.products import tensordot
from kobai.ops.rearrange import tril

__all__ = [
    "chain_matmul",
    "cholesky",
    "cholesky_inverse",
    "cholesky_solve",
    "cross",
    "det",
    "geqrf",
    "ger",
    "inner",
    "inverse",
    "logdet",
    "lu",
    "lu_solve",
    "lu_unpack",
    "matrix_exp",
    "matrix_power",
    "orgqr",
    "ormqr",
    "pca_lowrank",
    "pinverse",
    "qr",
    "slogdet",
    "svd",
    "triangular_solve",
    "vdot",
]

for _function in (cross, det, matrix_exp, matrix_power, slogdet):
    method(_function)


@method
def inverse(input: Tensor) -> Tensor:
    """:func:`kobai.linalg.inv`.

    >>> import kobai
    >>> kobai.inverse(kobai.tensor([[2., 0.], [0., 4.]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    return linalg.inv(input)


@method
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """:func:`kobai.linalg.pinv` with the cut-off ``rcond`` · σ₁.

    >>> import kobai
    >>> kobai.pinverse(kobai.tensor([[2.], [0.]]))
    tensor([[0.5000, 0.0000]])
    """
    return linalg.pinv(input, rcond)


@method
def logdet(input: Tensor) -> Tensor:
    """log det A; nan where the determinant is negative.

    >>> import kobai
    >>> kobai.logdet(kobai.eye(3))
    tensor(0.)
    """
    sign, logarithm = linalg.slogdet(input)
    root = sign.sqrt()
    return logarithm + (root - root)  # type: ignore[no-any-return]  # nan for a sign of −1, else 0


@method
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """:func:`kobai.linalg.cholesky`, or its transpose.

    >>> import kobai
    >>> kobai.cholesky(kobai.tensor([[4., 2.], [2., 5.]]), upper=True)
    tensor([[2., 1.],
            [0., 2.]])
    """
    return linalg.cholesky(input, upper=upper)


@method
@one_operation
def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X of A X = ``input``, given the Cholesky factor of A.

    >>> import kobai
    >>> A = kobai.tensor([[4., 0.], [0., 9.]])
    >>> kobai.cholesky_solve(kobai.tensor([[6.], [18.]]), kobai.cholesky(A))
    tensor([[1.5000],
            [2.0000]])
    """
    lower = L.mT if upper else L
    half = linalg.solve_triangular(lower, input, upper=False)
    return linalg.solve_triangular(lower.mT, half, upper=True)


@method
@one_operation
def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """A⁻¹, given the Cholesky factor of A.

    >>> import kobai
    >>> kobai.cholesky_inverse(kobai.cholesky(kobai.tensor([[4., 0.], [0., 16.]])))
    tensor([[0.2500, 0.0000],
            [0.0000, 0.0625]])
    """
    half = linalg.inv(tril(L.mT if upper else L))  # what is beyond the triangle does not count
    return half.mT @ half  # type: ignore[no-any-return]


class TriangularSolveResult(NamedTuple):
    """The solution, and the coefficients it belongs to."""

    solution: Tensor
    cloned_coefficient: Tensor


@method
def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> TriangularSolveResult:
    """:func:`kobai.linalg.solve_triangular` with the arguments the other way round, and a copy of A.

    >>> import kobai
    >>> b, A = kobai.tensor([[2.], [4.]]), kobai.tensor([[2., 0.], [9., 4.]])
    >>> kobai.triangular_solve(b, A).solution
    tensor([[1.],
            [1.]])
    """
    left = A.mT if transpose else A
    solution = linalg.solve_triangular(left, b, upper=upper != transpose, unitriangular=unitriangular)
    return TriangularSolveResult(solution, A.clone())


class SVD(NamedTuple):
    """U diag(S) Vᵀ; here V, not its transpose."""

    U: Tensor
    S: Tensor
    V: Tensor


@method
def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> SVD:
    """Singular value decomposition with V as columns; ``some`` gives the reduced one.

    Without ``compute_uv`` U (..., M, M) and V (..., N, N) are zeros.

    >>> import kobai
    >>> U, S, V = kobai.svd(kobai.tensor([[0., 3.], [2., 0.], [0., 0.]]))
    >>> kobai.allclose(U @ kobai.diag(S) @ V.T, kobai.tensor([[0., 3.], [2., 0.], [0., 0.]]), atol=1e-6)
    True
    """
    if not compute_uv:
        rows, columns = input.shape[-2:]
        batch = input.shape[:-2]
        values = linalg.svdvals(input)
        return SVD(values.new_zeros(*batch, rows, rows), values, values.new_zeros(*batch, columns, columns))
    u, s, vh = linalg.svd(input, full_matrices=not some)
    return SVD(u, s, vh.mT)


@method
def qr(input: Tensor, some: bool = True) -> QRResult:
    """:func:`kobai.linalg.qr`, reduced or, without ``some``, complete.

    >>> import kobai
    >>> Q, R = kobai.qr(kobai.tensor([[3., 1.], [4., 2.]]))
    >>> kobai.allclose(Q @ R, kobai.tensor([[3., 1.], [4., 2.]]), atol=1e-6)
    True
    """
    return linalg.qr(input, "reduced" if some else "complete")


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> SVD:
    """The q (default: at most 6) largest singular values of A, centred by columns, and their vectors. No gradient.

    Computed exactly, from the whole decomposition; ``niter``, the iterations of an approximation, changes nothing.

    >>> import kobai
    >>> U, S, V = kobai.pca_lowrank(kobai.tensor([[1., 5.], [2., 5.], [3., 5.]]), q=1)
    >>> S  # √(1² + 0² + 1²): only the first column varies
    tensor([1.4142])
    """
    q = min(6, *A.shape[-2:]) if q is None else q
    if not 0 <= q <= min(A.shape[-2:]):
        raise ValueError(f"pca_lowrank: expected q in [0, {min(A.shape[-2:])}], got {q}")
    u, s, v = svd(A - A.mean(-2, keepdim=True) if center else A)
    return SVD(u[..., :q], s[..., :q], v[..., :q])


@method
def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """:func:`kobai.linalg.lu_solve` with the right-hand side first.

    >>> import kobai
    >>> kobai.lu_solve(kobai.tensor([[3.], [7.]]), *kobai.linalg.lu_factor(kobai.tensor([[1., 2.], [2., 5.]])))
    tensor([[1.],
            [1.]])
    """
    return linalg.lu_solve(LU_data, LU_pivots, b)


@method
def lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> tuple[Tensor, ...]:
    """:func:`kobai.linalg.lu_factor_ex`: (LU, pivots), and with ``get_infos`` the info.

    >>> import kobai
    >>> LU, pivots = kobai.lu(kobai.tensor([[1., 2.], [2., 5.]]))
    >>> pivots
    tensor([2, 2], dtype=kobai.int32)
    """
    return linalg.lu_factor_ex(A, pivot=pivot)[: 3 if get_infos else 2]


def lu_unpack(
    LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """P, L and U of what :func:`kobai.lu` and :func:`kobai.linalg.lu_factor` give; empty tensors for what is not wanted.

    >>> import kobai
    >>> kobai.lu_unpack(*kobai.lu(kobai.tensor([[1., 2.], [2., 5.]])))[0]
    tensor([[0., 1.],
            [1., 0.]])
    """
    return elimination.lu_unpack(LU_data, LU_pivots, unpack_data, unpack_pivots)


@method
def geqrf(input: Tensor) -> GeqrfResult:
    """QR as LAPACK leaves it: R, below it the vectors of Householder's reflections, and their factors τ. No gradient.

    >>> import kobai
    >>> a, tau = kobai.geqrf(kobai.tensor([[3., 1.], [4., 2.]]))
    >>> kobai.orgqr(a, tau) @ a.triu()
    tensor([[3.0000, 1.0000],
            [4.0000, 2.0000]])
    """
    return reflections.geqrf(input)


@method
def orgqr(input: Tensor, input2: Tensor) -> Tensor:
    """:func:`kobai.linalg.householder_product`.

    >>> import kobai
    >>> kobai.orgqr(*kobai.geqrf(kobai.tensor([[2.], [0.]]))).abs()
    tensor([[1.],
            [0.]])
    """
    return linalg.householder_product(input, input2)


@method
def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """Q ``other`` – Qᵀ ``other`` with ``transpose``, ``other`` Q without ``left`` – with the square Q of :func:`geqrf`.

    >>> import kobai
    >>> A = kobai.tensor([[3., 1.], [4., 2.]])
    >>> a, tau = kobai.geqrf(A)
    >>> kobai.allclose(kobai.ormqr(a, tau, a.triu()), A, atol=1e-6)
    True
    """
    return reflections.ormqr(input, tau, other, left, transpose)


def chain_matmul(*matrices: Tensor) -> Tensor:
    """:func:`kobai.linalg.multi_dot` of matrices.

    >>> import kobai
    >>> kobai.chain_matmul(kobai.ones(2, 3), kobai.ones(3, 4), kobai.ones(4, 5)).shape
    kobai.Size([2, 5])
    """
    return matrices[0] if len(matrices) == 1 else linalg.multi_dot(matrices)


@method
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Σ over the last dimension of both: (..., n), (*, n) → (..., *).

    >>> import kobai
    >>> kobai.inner(kobai.tensor([[1, 2], [3, 4]]), kobai.tensor([1, 10]))
    tensor([21, 43])
    """
    if not input.ndim or not other.ndim:
        return input * other
    if input.shape[-1] != other.shape[-1]:
        raise RuntimeError(f"inner: expected equal last dimensions, got {tuple(input.shape)} and {tuple(other.shape)}")
    return tensordot(input, other, ([-1], [-1]))


@method
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """Inner product of two vectors.

    >>> import kobai
    >>> kobai.vdot(kobai.tensor([1, 2, 3]), kobai.tensor([1, 0, 2]))
    tensor(7)
    """
    return dot(input, other)


@method
def ger(input: Tensor, vec2: Tensor) -> Tensor:
    """Outer product of two vectors.

    >>> import kobai
    >>> kobai.ger(kobai.tensor([1, 2]), kobai.tensor([3, 4, 5]))
    tensor([[ 3,  4,  5],
            [ 6,  8, 10]])
    """
    return outer(input, vec2)
