"""Inverses, systems of equations, determinants and the Cholesky factor: all differentiable."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.engine import dispatch
from kobai.linalg.factors import symmetric, t
from kobai.ops._args import need_tensor
from kobai.ops.broadcast import broadcast_shapes, expand
from kobai.ops.create import eye
from kobai.ops.rearrange import tril, triu
from kobai.ops.singular import NO_SINGULAR_VALUES
from kobai.xp import Array, linalg_errors, quiet, xp_of


def _square(rng: np.random.Generator, *batch: int) -> Array:
    return rng.normal(size=(*batch, 3, 3)) + 3 * np.eye(3)


def _inverse(who: str, a: Array) -> Array:
    with linalg_errors(a, f"{who}: expected a matrix that is not singular"):
        return xp_of(a).linalg.inv(a)


def _inverse_or_infinite(a: Array, singular: Array) -> Array:
    """A⁻¹, infinite for those that have none."""
    xp = xp_of(a)
    there = singular[..., None, None]
    inverse = _inverse("inv", xp.where(there, xp.eye(a.shape[-1], dtype=a.dtype), a))
    return xp.where(there, xp.inf, inverse).astype(a.dtype, copy=False)


def _cofactors(a: Array, determinants: Array) -> Array:
    """∂ det A / ∂A, also of a singular A = U diag(σ) Vᵀ: det U det V · U diag(∏ⱼ≠ᵢ σⱼ) Vᵀ, and det A · A⁻ᵀ for others."""
    xp = xp_of(a)
    if type(a) in dispatch.HOST_TYPES:
        out = xp.empty_like(a)
        dispatch.launch(_cofactors_on_host, a, determinants, out)
        return out
    return _cofactors_of_any(a)


def _cofactors_on_host(a: Array, determinants: Array, out: Array) -> None:
    """The faster way, where it is exact. On a device looking at the determinants would wait for them."""
    if (np.isfinite(determinants) & (determinants != 0)).all():
        out[...] = determinants[..., None, None] * t(_inverse("det", a))
    else:
        out[...] = quiet(_cofactors_of_any)(a)


def _cofactors_of_any(a: Array) -> Array:
    xp = xp_of(a)
    with linalg_errors(a, NO_SINGULAR_VALUES):
        u, s, vt = xp.linalg.svd(a, full_matrices=False)
    one = xp.ones_like(s[..., :1])
    below = xp.concatenate([one, s[..., :-1]], axis=-1).cumprod(-1)
    above = xp.flip(xp.concatenate([one, xp.flip(s, -1)[..., :-1]], axis=-1).cumprod(-1), -1)
    turns = xp.rint(xp.linalg.det(u) * xp.linalg.det(vt))
    return turns[..., None, None] * ((u * (below * above)[..., None, :]) @ vt)


@primitive(sample=[lambda rng: (_square(rng),), lambda rng: (_square(rng, 2),)])
@quiet
def _inv(a: Array) -> Any:
    y = _inverse("inv", a)
    return y, lambda dy: (lambda: _inverse_slope(y, dy),)


def _inverse_slope(y: Array, dy: Array) -> Array:
    return -(t(y) @ dy @ t(y))  # d(A⁻¹) = −A⁻¹ dA A⁻¹


@primitive(sample=[lambda rng: (_square(rng),), lambda rng: (_square(rng, 2),)])
@quiet
def inverse_or_infinite(a: Array) -> Any:
    """A⁻¹, infinite for the matrices that have none."""
    y = _inverse_or_infinite(a, xp_of(a).linalg.slogdet(a)[0] == 0)
    return y, lambda dy: (lambda: _inverse_slope(y, dy),)


@primitive(
    sample=[
        lambda rng: (_square(rng), rng.normal(size=(3, 2))),
        lambda rng: (_square(rng, 2), rng.normal(size=(2, 3, 2))),
    ]
)
@quiet
def _solve(a: Array, b: Array) -> Any:
    with linalg_errors(a, "solve: expected a matrix that is not singular"):
        x = xp_of(a).linalg.solve(a, b)

    def vjp(dx: Array) -> Any:
        with linalg_errors(a, "solve: expected a matrix that is not singular"):
            db = xp_of(a).linalg.solve(t(a), dx)  # A X = B: dB = A⁻ᵀ dX, dA = −dB Xᵀ
        return (lambda: -(db @ t(x))), db

    return x, vjp


@primitive(sample=[lambda rng: (_square(rng),), lambda rng: (_square(rng, 2),)])
@quiet
def _det(a: Array) -> Any:
    y = xp_of(a).asarray(xp_of(a).linalg.det(a))
    return y, lambda dy: (lambda: dy[..., None, None] * _cofactors(a, y),)  # Jacobi: d det A = tr(adj A dA)


@primitive(sample=[lambda rng: (_square(rng),), lambda rng: (_square(rng, 2),)], again=True)
@quiet
def _logabsdet(a: Array) -> Any:
    sign, y = map(xp_of(a).asarray, xp_of(a).linalg.slogdet(a))
    return y, lambda dy: (lambda: dy[..., None, None] * t(_inverse_or_infinite(a, sign == 0)),)


@primitive(sample=[lambda rng: (_square(rng),), lambda rng: (_square(rng, 2),)])
@quiet
def _signdet(a: Array) -> Any:
    y = xp_of(a).asarray(xp_of(a).linalg.slogdet(a)[0])
    shape = a.shape
    return y, lambda dy: (lambda: xp_of(dy).zeros(shape, dy.dtype),)


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(3, 3)) + 5 * np.eye(3),),
        lambda rng: (rng.normal(size=(2, 3, 3)) + 5 * np.eye(3),),
    ],
    within=lambda free: (free + free.mT) / 2,
)
def lower_factor(a: Array, found: Any = None) -> Any:
    """L of the lower triangle of A, or what is ``found`` already. The gradient is symmetric, along symmetric matrices."""
    if found is not None:
        return found, lambda dy: (lambda: cholesky_gradient(found, dy), None)
    xp = xp_of(a)
    with linalg_errors(a, "cholesky: expected a matrix that is positive definite"):
        lower = xp.linalg.cholesky(symmetric(a))

    return lower, lambda dy: (lambda: cholesky_gradient(lower, dy),)


def cholesky_gradient(lower: Array, dy: Array) -> Array:
    """dA = sym(L⁻ᵀ Φ(Lᵀ dL) L⁻¹), where Φ halves the diagonal and drops what is above it: Murray 2016, arXiv:1602.07527."""
    xp = xp_of(lower)
    inverse = xp.linalg.inv(lower)
    phi = xp.tril(t(lower) @ dy)
    phi = phi - 0.5 * phi * xp.eye(phi.shape[-1], dtype=phi.dtype)
    s = t(inverse) @ phi @ inverse
    return (s + t(s)) / 2


def matrices(who: str, *tensors: Tensor, square: bool = False) -> None:
    """Check that these are matrices of floats, or batches of them."""
    for x in tensors:
        if not isinstance(x, Tensor):
            raise TypeError(f"{who}: expected a Tensor, got {type(x).__name__}")
        if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
            raise RuntimeError(f"{who}: expected {'square ' * square}matrices (..., n, m), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise RuntimeError(f"{who}: expected floats, got {x.dtype}")


@one_operation
def inv(A: Tensor) -> Tensor:
    """Inverse of (every one of a batch of) square matrices; numpy.linalg.LinAlgError for a singular one.

    >>> import kobai
    >>> kobai.linalg.inv(kobai.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    matrices("inv", A, square=True)
    return _inv(A)


@one_operation
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X of A X = B – of X A = B without ``left`` –; leading dimensions broadcast.

    A (..., n, n), B (..., n, k) – (..., k, n) without ``left`` – or one vector (n) for all or (..., n) for each A.
    LinAlgError for a singular A.

    >>> import kobai
    >>> kobai.linalg.solve(kobai.tensor([[2., 0.], [0., 4.]]), kobai.tensor([2., 2.]))
    tensor([1.0000, 0.5000])
    """
    matrices("solve", A, square=True)
    need_tensor("solve", B)
    vector = B.ndim == 1 or B.shape == A.shape[:-1]
    if vector and not left:
        raise RuntimeError("solve: expected matrices as B if left=False, got vectors")
    x = _broadcast_solve("solve", A if left else A.mT, B.unsqueeze(-1) if vector else B if left else B.mT)
    return x.squeeze(-1) if vector else x if left else x.mT


def _broadcast_solve(who: str, A: Tensor, B: Tensor) -> Tensor:
    if B.ndim < 2 or B.shape[-2] != A.shape[-1]:
        raise RuntimeError(f"{who}: expected matrices of as many rows, got {tuple(A.shape)} and {tuple(B.shape)}")
    batch = broadcast_shapes(A.shape[:-2], B.shape[:-2])
    return _solve(expand(A, *batch, *A.shape[-2:]), expand(B, *batch, *B.shape[-2:]))


def det(A: Tensor) -> Tensor:
    """Determinant of square matrices.

    >>> import kobai
    >>> kobai.linalg.det(kobai.tensor([[3., 1.], [0., 2.5]]))
    tensor(7.5000)
    """
    matrices("det", A, square=True)
    return _det(A)


class SlogdetResult(NamedTuple):
    """Sign and logarithm of the absolute value of a determinant."""

    sign: Tensor
    logabsdet: Tensor


def slogdet(A: Tensor) -> SlogdetResult:
    """Sign and log |det A|, which neither overflows nor underflows. The gradient of the sign is zero.

    >>> import kobai
    >>> sign, logarithm = kobai.linalg.slogdet(kobai.tensor([[-1., 0.], [0., 2.]]))
    >>> sign, logarithm
    (tensor(-1.), tensor(0.6931))
    """
    matrices("slogdet", A, square=True)
    return SlogdetResult(_signdet(A), _logabsdet(A))


@one_operation
def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """Lower triangular L with L Lᵀ = A, for a symmetric positive definite A, of which only the lower triangle is read.

    With ``upper`` the upper triangular Lᵀ, from the upper triangle. The gradient is symmetric.

    >>> import kobai
    >>> kobai.linalg.cholesky(kobai.tensor([[4., 2.], [2., 5.]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    matrices("cholesky", A, square=True)
    return lower_factor(A.mT).mT if upper else lower_factor(A)


@one_operation
def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """X of A X = B – of X A = B without ``left`` – where only the upper or lower triangle of A counts.

    ``unitriangular`` takes the diagonal of A as ones.

    >>> import kobai
    >>> A = kobai.tensor([[2., 0.], [9., 4.]])
    >>> kobai.linalg.solve_triangular(A, kobai.tensor([[2.], [4.]]), upper=True)  # the 9 does not count
    tensor([[1.],
            [1.]])
    """
    matrices("solve_triangular", A, B)
    triangle = triu(A) if upper else tril(A)
    if unitriangular:
        one = eye(A.shape[-1], dtype=A.dtype, device=A.device)
        triangle = (triu(A, 1) if upper else tril(A, -1)) + one
    if left:
        return _broadcast_solve("solve_triangular", triangle, B)
    return _broadcast_solve("solve_triangular", triangle.mT, B.mT).mT  # type: ignore[no-any-return]
