"""Elimination by Gauss and Cholesky: factors, pivots, and which matrix has none, without an error."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.engine.dispatch import check
from kobai.errors import LinAlgError
from kobai.linalg.factors import symmetric, t
from kobai.linalg.systems import inverse_or_infinite, lower_factor, matrices, solve, solve_triangular
from kobai.ops._args import drawn, need
from kobai.ops.create import empty, eye
from kobai.ops.gather import where
from kobai.ops.linear import matmul
from kobai.ops.rearrange import tril, triu
from kobai.xp import Array, linalg_errors, quiet, to_host, xp_of


@quiet
def _eliminated(a: Array, pivot: bool = True) -> tuple[Array, Array, Array]:
    """P A = L U: L below the diagonal and U in one array, the row (from 1) that each step took, the first step without one.

    Golub, Van Loan, *Matrix Computations*, algorithm 3.4.1, for all matrices of a batch at once.
    """
    xp = xp_of(a)
    m, n = a.shape[-2:]
    steps = min(m, n)
    lu = a.reshape(-1, m, n).copy() if a.size else a
    count = lu.shape[0] if a.size else math.prod(a.shape[:-2])
    each = xp.arange(count)
    pivots, info = xp.zeros((count, steps), np.int32), xp.zeros(count, np.int32)
    for j in range(steps if a.size else 0):
        chosen = xp.abs(lu[:, j:, j]).argmax(1) + j if pivot else xp.full(count, j)
        pivots[:, j] = chosen + 1
        row = lu[each, chosen]
        lu[each, chosen] = lu[:, j]
        lu[:, j] = row
        divisor = lu[:, j, j]
        info = xp.where((info == 0) & (divisor == 0), np.int32(j + 1), info)
        lu[:, j + 1 :, j] /= xp.where(divisor == 0, xp.ones_like(divisor), divisor)[:, None]
        lu[:, j + 1 :, j + 1 :] -= lu[:, j + 1 :, j, None] * lu[:, j, None, j + 1 :]
    batch = a.shape[:-2]
    return lu.reshape(a.shape), pivots.reshape(*batch, steps), info.reshape(batch)


def _order(pivots: Array, rows: int) -> Array:
    """The row of A that is each row of P A."""
    xp = xp_of(pivots)
    swaps = pivots.reshape(math.prod(pivots.shape[:-1]), pivots.shape[-1])
    each = xp.arange(swaps.shape[0])
    order = xp.zeros((swaps.shape[0], rows), np.int64) + xp.arange(rows)
    for j in range(swaps.shape[1]):
        other = swaps[:, j] - 1
        moved = order[each, other]
        order[each, other] = order[:, j]
        order[:, j] = moved
    return order.reshape(*pivots.shape[:-1], rows)


def _permutation(pivots: Array, rows: int, dtype: Any) -> Array:
    """P of A = P L U."""
    xp = xp_of(pivots)
    return (xp.arange(rows)[:, None] == _order(pivots, rows)[..., None, :]).astype(dtype)


@primitive(sample=[drawn((3, 3)), drawn((2, 4, 3)), drawn((2, 3, 4)), drawn((2, 0, 3))])
def _lu(a: Array, found: Any = None) -> Any:
    """L below the diagonal, U, in one array; ``found`` is what :func:`_eliminated` has found.

    Of a square A = P L U, dA = P L⁻ᵀ (LᵀdL below the diagonal + dU Uᵀ from it on) U⁻ᵀ. What a tall A has below is L₂ = A₂ U⁻¹,
    what a wide one has beside is U₂ = L⁻¹ A₂: Walter, Lehmann, *Algorithmic differentiation of linear algebra functions*, 2018.
    """
    xp = xp_of(a)
    m, n = a.shape[-2:]
    k = min(m, n)
    lu, pivots = _eliminated(a)[:2] if found is None else found

    def da(d: Array) -> Array:
        lower = xp.tril(lu[..., :k, :k], -1) + xp.eye(k, dtype=a.dtype)
        upper = xp.triu(lu[..., :k, :k])
        d_lower, d_upper = xp.tril(d[..., :k, :k], -1), xp.triu(d[..., :k, :k])
        with linalg_errors(a, "lu: expected a matrix without zeros on the diagonal of U for a gradient"):
            beside, below = d[..., :k, k:], d[..., k:, :k]
            beside = xp.linalg.solve(t(lower), beside) if n > k else beside  # CuPy's takes no system without columns
            below = t(xp.linalg.solve(upper, t(below))) if m > k else below
            d_lower = d_lower - beside @ t(lu[..., :k, k:])
            d_upper = d_upper - t(lu[..., k:, :k]) @ below
            inner = xp.tril(t(lower) @ d_lower, -1) + xp.triu(d_upper @ t(upper))
            corner = t(xp.linalg.solve(upper, t(xp.linalg.solve(t(lower), inner))))
        rows = xp.concatenate([xp.concatenate([corner, beside], -1), xp.concatenate([below, d[..., k:, k:]], -1)], -2)
        return _permutation(pivots, m, a.dtype) @ rows

    return lu, lambda d: (lambda: da(d), None)


class LUFactorResult(NamedTuple):
    """L below the diagonal and U in one matrix, and the row (from 1) with which each was exchanged."""

    LU: Tensor
    pivots: Tensor


class LUFactorExResult(NamedTuple):
    """As :class:`LUFactorResult`, and the first zero on the diagonal of U, from 1; 0 if there is none."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


class LUResult(NamedTuple):
    """A = P L U."""

    P: Tensor
    L: Tensor
    U: Tensor


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> LUFactorExResult:
    """A = P L U as L below the diagonal and U in one matrix; (..., n, m) → (..., n, m), pivots (..., min(n, m)), info (...).

    ``info`` is the first zero on the diagonal of U, counted from 1, 0 if there is none; ``check_errors`` makes that an error.
    Without ``pivot`` no rows are exchanged.

    >>> import kobai
    >>> kobai.linalg.lu_factor_ex(kobai.tensor([[1., 2.], [2., 4.]]))
    LUFactorExResult(LU=tensor([[2.0000, 4.0000],
            [0.5000, 0.0000]]), pivots=tensor([2, 2], dtype=kobai.int32), info=tensor(2, dtype=kobai.int32))
    """
    matrices("lu_factor_ex", A)
    lu, pivots, info = _eliminated(_whole(A), pivot)
    _check("lu_factor_ex", info, check_errors, "has no zero on the diagonal of U")
    return LUFactorExResult(
        _lu(A, (lu.astype(A.array.dtype, copy=False), pivots)), Tensor._wrap(pivots), Tensor._wrap(info)
    )


def _whole(A: Tensor) -> Array:
    """The array of floats, of at least 32 bits."""
    array = A.detach().array
    return array if array.dtype.itemsize > 2 else array.astype(np.float32)


def _check(who: str, info: Array, wanted: bool, what: str) -> None:
    if wanted:
        _look(who, to_host(info), what)


def _look(who: str, info: Array, what: str) -> None:
    """LinAlgError for an info that is not 0; of an array on a device only what was copied to the host is seen."""
    if type(info) is np.ndarray and info.any():
        raise LinAlgError(f"{who}: expected a matrix that {what}, got info {info.max()}")


def lu_factor(A: Tensor, *, pivot: bool = True) -> LUFactorResult:
    """As :func:`lu_factor_ex`; on the host LinAlgError if A is square and there is a zero on the diagonal of U.

    >>> import kobai
    >>> kobai.linalg.lu_factor(kobai.tensor([[1., 2.], [2., 5.]])).pivots
    tensor([2, 2], dtype=kobai.int32)
    """
    matrices("lu_factor", A)
    factored = lu_factor_ex(A, pivot=pivot)
    if A.shape[-1] == A.shape[-2]:
        check(_look, "lu_factor", factored.info.array, "is not singular")
    return LUFactorResult(*factored[:2])


def lu(A: Tensor, *, pivot: bool = True) -> LUResult:
    """A = P L U: a permutation, ones on the diagonal of a lower triangle, and an upper one. P is empty without ``pivot``.

    (..., n, m) → (..., n, n), (..., n, k), (..., k, m) with k = min(n, m).

    >>> import kobai
    >>> P, L, U = kobai.linalg.lu(kobai.tensor([[1., 2.], [2., 5.]]))
    >>> P @ L @ U
    tensor([[1., 2.],
            [2., 5.]])
    """
    matrices("lu", A)
    factored = lu_factor_ex(A, pivot=pivot)
    return lu_unpack(factored.LU, factored.pivots, unpack_pivots=pivot)


def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> LUResult:
    """P, L and U of what :func:`lu_factor` gives; empty tensors for what is not to be unpacked.

    >>> import kobai
    >>> LU, pivots = kobai.linalg.lu_factor(kobai.tensor([[1., 2.], [2., 5.]]))
    >>> kobai.lu_unpack(LU, pivots).P
    tensor([[0., 1.],
            [1., 0.]])
    """
    need("lu_unpack", LU_pivots.dtype == np.int32, "pivots of int32, as lu_factor gives them", LU_pivots.dtype)
    m, n = LU_data.shape[-2:]
    k = min(m, n)
    p = lower = upper = empty(0, dtype=LU_data.dtype, device=LU_data.device)
    if unpack_data:
        lower = tril(LU_data[..., :, :k], -1) + eye(m, k, dtype=LU_data.dtype, device=LU_data.device)
        upper = triu(LU_data[..., :k, :])
    if unpack_pivots:
        p = Tensor._wrap(_permutation(LU_pivots.array, m, LU_data.dtype))
    return LUResult(p, lower, upper)


def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """X of A X = B – of X A = B without ``left``, of Aᵀ X = B with ``adjoint`` – from what :func:`lu_factor` gives of A.

    >>> import kobai
    >>> LU, pivots = kobai.linalg.lu_factor(kobai.tensor([[1., 2.], [2., 5.]]))
    >>> kobai.linalg.lu_solve(LU, pivots, kobai.tensor([[3.], [7.]]))
    tensor([[1.],
            [1.]])
    """
    matrices("lu_solve", LU, square=True)
    matrices("lu_solve", B)
    if not left:
        return lu_solve(LU, pivots, B.mT, adjoint=not adjoint).mT  # type: ignore[no-any-return]
    p = lu_unpack(LU, pivots, unpack_data=False).P
    if adjoint:
        x = solve_triangular(LU.mT, solve_triangular(LU.mT, B, upper=False), upper=True, unitriangular=True)
        return matmul(p, x)
    x = solve_triangular(LU, matmul(p.mT, B), upper=False, unitriangular=True)
    return solve_triangular(LU, x, upper=True)


# --- what may have no inverse or no factor ----------------------------------------------------------------------------


@quiet
def _cholesky_or_info(a: Array) -> tuple[Array, Array]:
    """L with L Lᵀ = A, and the first leading minor, from 1, that is not positive; 0 if A is positive definite."""
    xp = xp_of(a)
    info = xp.zeros(a.shape[:-2], np.int32)
    if type(a) is np.ndarray:
        try:
            return np.linalg.cholesky(a), info
        except np.linalg.LinAlgError:
            pass
    lower = xp.zeros_like(a)
    for j in range(a.shape[-1]):
        before = lower[..., j, :j]
        square = a[..., j, j] - (before * before).sum(-1)
        fine = square > 0
        info = xp.where((info == 0) & ~fine, np.int32(j + 1), info)
        root = xp.sqrt(xp.where(fine, square, xp.ones_like(square)))
        rest = a[..., j + 1 :, j] - (lower[..., j + 1 :, :j] * before[..., None, :]).sum(-1)
        lower[..., j, j] = root
        lower[..., j + 1 :, j] = rest / root[..., None]
    return lower, info


class CholeskyExResult(NamedTuple):
    """The factor, and the first leading minor that is not positive, from 1; 0 if there is none."""

    L: Tensor
    info: Tensor


@one_operation
def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> CholeskyExResult:
    """:func:`cholesky` without an error: ``info`` is 0 where A is positive definite, elsewhere the first leading minor, from
    1, that is not, and the factor means nothing there. ``check_errors`` raises LinAlgError then.

    >>> import kobai
    >>> kobai.linalg.cholesky_ex(kobai.tensor([[1., 2.], [2., 1.]])).info
    tensor(2, dtype=kobai.int32)
    """
    matrices("cholesky_ex", A, square=True)
    read = A.mT if upper else A
    lower, info = _cholesky_or_info(symmetric(_whole(read)))
    _check("cholesky_ex", info, check_errors, "is positive definite")
    factor = lower_factor(read, lower.astype(A.array.dtype, copy=False))
    return CholeskyExResult(factor.mT if upper else factor, Tensor._wrap(info))


class InvExResult(NamedTuple):
    """The inverse, and the first zero on the diagonal of U of A = P L U, from 1; 0 if there is none."""

    inverse: Tensor
    info: Tensor


class SolveExResult(NamedTuple):
    """The solution, and the first zero on the diagonal of U of A = P L U, from 1; 0 if there is none."""

    result: Tensor
    info: Tensor


@one_operation
def inv_ex(A: Tensor, *, check_errors: bool = False) -> InvExResult:
    """:func:`inv` without an error: infinite where A is singular, and ``info`` as of :func:`lu_factor_ex`.

    >>> import kobai
    >>> kobai.linalg.inv_ex(kobai.tensor([[1., 2.], [2., 4.]])).info
    tensor(2, dtype=kobai.int32)
    """
    matrices("inv_ex", A, square=True)
    info = _eliminated(_whole(A))[2]
    _check("inv_ex", info, check_errors, "is not singular")
    return InvExResult(inverse_or_infinite(A), Tensor._wrap(info))


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> SolveExResult:
    """:func:`solve` without an error: NaN where A is singular, and ``info`` as of :func:`lu_factor_ex`.

    >>> import kobai
    >>> kobai.linalg.solve_ex(kobai.tensor([[2., 0.], [0., 4.]]), kobai.tensor([2., 2.])).result
    tensor([1.0000, 0.5000])
    """
    matrices("solve_ex", A, square=True)
    info = _eliminated(_whole(A))[2]
    _check("solve_ex", info, check_errors, "is not singular")
    vector = B.ndim == 1 or B.shape == A.shape[:-1]
    singular = Tensor._wrap(info != 0)[..., None, None]
    x = solve(where(singular, eye(A.shape[-1], dtype=A.dtype, device=A.device), A), B, left=left)
    return SolveExResult(where(singular[..., 0] if vector else singular, float("nan"), x), Tensor._wrap(info))
