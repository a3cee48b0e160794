"""The factors of a matrix, and their gradients: singular values, eigenvalues, QR, pseudo-inverse, least squares.

A decomposition has several results, a primitive one: it returns the factors packed below each other in one array, and ``part``
cuts them out again. Where two singular values or eigenvalues are equal their vectors are not determined, and the gradient of a
function of them is infinite; for one that does not depend on the vectors 0/0 counts as 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.core.primitive import primitive
from kobai.ops._args import drawn
from kobai.ops.singular import NO_SINGULAR_VALUES
from kobai.xp import Array, linalg_errors, quiet, xp_of

NO_EIGENVALUES = "eigh: expected a matrix of finite numbers, whose decomposition converges"


def t(x: Array) -> Array:
    """Matrices transposed."""
    return x.swapaxes(-1, -2)


def symmetric(a: Array, upper: bool = False) -> Array:
    """Symmetric matrices with the lower (upper) triangles of ``a``."""
    xp = xp_of(a)
    return xp.triu(a) + t(xp.triu(a, 1)) if upper else xp.tril(a) + t(xp.tril(a, -1))


def _quotient(x: Array, y: Array) -> Array:
    """x / y, and 0 where both are 0."""
    xp, nothing = xp_of(x), (x == 0) & (y == 0)
    return xp.where(nothing, xp.zeros_like(x), x / xp.where(nothing, xp.ones_like(y), y))


def _packed(parts: list[Array]) -> Array:
    """Matrices below each other, narrow ones filled up with zeros to the width of the widest."""
    first = parts[0]
    width = max(p.shape[-1] for p in parts)
    packed = xp_of(first).zeros((*first.shape[:-2], sum(p.shape[-2] for p in parts), width), first.dtype)
    row = 0
    for p in parts:
        packed[..., row : row + p.shape[-2], : p.shape[-1]] = p
        row += p.shape[-2]
    return packed


@primitive(sample=[drawn((5, 3), 1, 3, 2), drawn((2, 4, 3), 0, 2, 3)], half="own")
def part(packed: Array, row: int, rows: int, columns: int) -> Any:
    """One of the matrices that :func:`_packed` has put together, in memory of its own."""
    whole = packed.shape

    def vjp(dy: Array) -> Any:
        d = xp_of(dy).zeros(whole, dy.dtype)
        d[..., row : row + rows, :columns] = dy
        return d, None, None, None

    return packed[..., row : row + rows, :columns].copy(), vjp


@primitive(sample=[drawn((4, 3)), drawn((2, 3, 4)), drawn((2, 3, 3)), drawn((0, 2, 2))], again=True)
@quiet
def usv(a: Array, full: bool = False) -> Any:
    """A = U diag(σ) Vᵀ as U, σ as one row, and V. Townsend, *Differentiating the singular value decomposition*, 2016:

    dA = U (F∘(UᵀdU − dUᵀU) Σ + Σ F∘(VᵀdV − dVᵀV) + diag dσ) Vᵀ + (1 − UUᵀ) dU Σ⁻¹ Vᵀ + U Σ⁻¹ dVᵀ (1 − VVᵀ)

    with Fᵢⱼ = 1 / (σⱼ² − σᵢ²). With ``full`` the columns of U and V beyond min(n, m) span the null space, in any way: what
    depends on them has no gradient there.
    """
    xp = xp_of(a)
    m, n = a.shape[-2:]
    k = min(m, n)
    with linalg_errors(a, NO_SINGULAR_VALUES):
        whole_u, s, whole_vt = xp.linalg.svd(a, full_matrices=full)
    u, v = whole_u[..., :k], t(whole_vt)[..., :k]

    def da(d: Array) -> Array:
        du, ds, dv = d[..., :m, :k], d[..., m, :k], d[..., m + 1 :, :k]
        squares = s * s
        apart = squares[..., None, :] - squares[..., :, None]
        turn_u, turn_v = t(u) @ du, t(v) @ dv
        middle = _quotient(turn_u - t(turn_u), apart) * s[..., None, :] + s[..., :, None] * _quotient(
            turn_v - t(turn_v), apart
        )
        middle = middle + ds[..., None, :] * xp.eye(k, dtype=a.dtype)
        result = u @ middle @ t(v)
        if m > k:
            result = result + _quotient(du - u @ turn_u, s[..., None, :]) @ t(v)
        if n > k:
            result = result + u @ t(_quotient(dv - v @ turn_v, s[..., None, :]))
        return result

    return _packed([whole_u, s[..., None, :], t(whole_vt)]), lambda d: (lambda: da(d), None)


@primitive(
    sample=[drawn((3, 3)), drawn((2, 3, 3)), drawn((2, 0, 0))], within=lambda free: (free + free.mT) / 2, again=True
)
@quiet
def eigen(a: Array, upper: bool = False) -> Any:
    """A = V diag(λ) Vᵀ of a symmetric A, of which one triangle is read: λ as one row, and V. Giles 2008, section 3.1:

    dA = V (F∘(VᵀdV) + diag dλ) Vᵀ with Fᵢⱼ = 1 / (λⱼ − λᵢ), 0 on the diagonal.
    """
    xp = xp_of(a)
    n = a.shape[-1]
    with linalg_errors(a, NO_EIGENVALUES):
        w, v = xp.linalg.eigh(a, "U" if upper else "L")

    def da(d: Array) -> Array:
        dw, dv = d[..., 0, :], d[..., 1:, :]
        one = xp.eye(n, dtype=a.dtype)
        apart = w[..., None, :] - w[..., :, None]
        return v @ (_quotient((t(v) @ dv) * (1 - one), apart) + dw[..., None, :] * one) @ t(v)

    return _packed([w[..., None, :], v]), lambda d: (lambda: da(d), None)


@primitive(sample=[drawn((3, 3)), drawn((2, 3, 3))], within=lambda free: (free + free.mT) / 2)
@quiet
def eigenvalues(a: Array, upper: bool = False) -> Any:
    """λ of :func:`eigen`, whose vectors are computed for the gradient only."""
    with linalg_errors(a, NO_EIGENVALUES):
        w = xp_of(a).linalg.eigvalsh(a, "U" if upper else "L")

    def da(dw: Array) -> Array:
        with linalg_errors(a, NO_EIGENVALUES):
            _, v = xp_of(a).linalg.eigh(a, "U" if upper else "L")
        return (v * dw[..., None, :]) @ t(v)

    return w, lambda dw: (lambda: da(dw), None)


@primitive(sample=[drawn((3, 3)), drawn((2, 3, 3))], within=lambda free: (free + free.mT) / 2)
def mirrored(a: Array) -> Any:
    """:func:`symmetric` matrices, of which gradients along symmetric matrices are wanted."""
    return symmetric(a), lambda dy: (dy,)


@primitive(
    sample=[drawn((4, 3)), drawn((2, 3, 4)), drawn((2, 3, 3)), drawn((3, 4), True), drawn((0, 3, 2))], again=True
)
@quiet
def orthogonal(a: Array, complete: bool = False) -> Any:
    """A = Q R as Q and R. Walter, Lehmann, *Algorithmic differentiation of linear algebra functions*, 2018:

    dA = (dQ + Q (M below the diagonal and its mirror image)) R⁻ᵀ with M = R dRᵀ − dQᵀQ, where R is square. Of a wide
    A = (X Y) the decomposition is X = Q U, with Y = Q V beside it: dY = Q dV, and dQ has Y dVᵀ in addition.
    """
    xp = xp_of(a)
    m, n = a.shape[-2:]
    k = min(m, n)
    q, r = xp.linalg.qr(a, "complete" if complete else "reduced")

    def da(d: Array) -> Array:
        if complete and m > n:
            raise RuntimeError("qr: expected mode 'reduced' for a gradient of more rows than columns, got 'complete'")
        dq, du = d[..., :m, :k], d[..., m:, :k]
        u = r[..., :, :k]
        beside = None
        if n > m:
            dv = d[..., m:, m:n]
            beside = q @ dv
            dq = dq + a[..., :, m:] @ t(dv)
        turned = xp.tril(u @ t(du) - t(dq) @ q)
        left = dq + q @ (turned + t(xp.tril(turned, -1)))
        with linalg_errors(a, "qr: expected the first columns independent for a gradient"):
            dx = t(xp.linalg.solve(u, t(left)))
        return dx if beside is None else xp.concatenate([dx, beside], axis=-1)

    return _packed([q, r]), lambda d: (lambda: da(d), None)


def cut_off(values: Array, shape: Any, atol: Any, rtol: Any) -> Any:
    """max(atol, rtol · σ₁), up to which singular ``values`` count as 0; rtol is max(n, m) ε unless one of them is given.

    Each is a number, or an array of one for every matrix.
    """
    dtype = values.dtype
    if rtol is None:
        rtol = max(shape[-2:]) * float(np.finfo(dtype).eps) if atol is None else 0.0
    atol, rtol = (
        x if isinstance(x, (int, float)) else x.astype(dtype)[..., None] for x in (0.0 if atol is None else atol, rtol)
    )
    return xp_of(values).maximum(rtol * values[..., :1], atol)


def _inverted(who: str, a: Array, atol: Any, rtol: Any) -> tuple[Array, Array, Array, Array]:
    """U, σ, 1/σ – 0 for what counts as 0 – and Vᵀ."""
    xp = xp_of(a)
    with linalg_errors(a, f"{who}: expected a matrix of finite numbers, whose singular values converge"):
        u, s, vt = xp.linalg.svd(a, full_matrices=False)
    kept = s > cut_off(s, a.shape, atol, rtol)
    return u, s, xp.where(kept, 1 / xp.where(kept, s, 1), 0).astype(a.dtype), vt


def _inverse_gradient(a: Array, x: Array, dx: Array) -> Array:
    """The gradient of A from that of X = A⁺. Golub, Pereyra, SIAM Journal on Numerical Analysis 10, 1973, (4.12):

    dX = −X dA X + X Xᵀ dAᵀ (1 − A X) + (1 − X A) dAᵀ Xᵀ X
    """
    right, left = t(dx) @ x @ t(x), t(x) @ x @ t(dx)
    return right - a @ (x @ right) + left - (left @ x) @ a - t(x) @ dx @ t(x)


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), None, None),
        lambda rng: (rng.normal(size=(2, 3, 4)), 1e-3, None),
        lambda rng: (rng.normal(size=(2, 0, 3)), None, 1e-3),
    ]
)
@quiet
def pseudo_inverse(a: Array, atol: Any, rtol: Any) -> Any:
    """A⁺ = V σ⁻¹ Uᵀ."""
    u, _, inverse, vt = _inverted("pinv", a, atol, rtol)
    x = (t(vt) * inverse[..., None, :]) @ t(u)
    return x, lambda dx: ((lambda: _inverse_gradient(a, x, dx)), None, None)


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(4, 2)), None),
        lambda rng: (rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 1)), 1e-3),
    ],
    again=True,
)
@quiet
def least_squares(a: Array, b: Array, rcond: Any) -> Any:
    """X = A⁺ B, the shortest of those that minimise ‖A X − B‖: dX = dA⁺ B + A⁺ dB."""
    u, _, inverse, vt = _inverted("lstsq", a, None, rcond)
    x = t(vt) @ (inverse[..., None] * (t(u) @ b))

    def vjp(dx: Array) -> Any:
        pseudo = (t(vt) * inverse[..., None, :]) @ t(u)
        return (lambda: _inverse_gradient(a, pseudo, dx @ t(b))), (lambda: t(pseudo) @ dx), None

    return x, vjp
