"""Householder's reflections, and equations of tensors with more than two dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from kobai.core.autocast import one_operation
from kobai.core.grad_mode import is_grad_enabled
from kobai.core.tensor import Tensor
from kobai.linalg.systems import inv, matrices, solve
from kobai.ops._args import need, need_tensor
from kobai.ops.create import eye
from kobai.ops.joining import cat
from kobai.ops.linear import matmul
from kobai.ops.rearrange import tril
from kobai.ops.shape import movedim
from kobai.xp import xp_of


class GeqrfResult(NamedTuple):
    """R with the vectors of the reflections below it, and their factors."""

    a: Tensor
    tau: Tensor


@one_operation
def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first m columns of H₁ H₂ … H_k with Hᵢ = 1 − τᵢ vᵢ vᵢᵀ; A (..., n, m), tau (..., k), n ≥ m ≥ k.

    vᵢ is 1 at i and 0 above it; below is what A has there in its column i. Differentiable.

    >>> import kobai
    >>> kobai.linalg.householder_product(kobai.tensor([[0.], [1.]]), kobai.tensor([1.]))
    tensor([[ 0.],
            [-1.]])
    """
    matrices("householder_product", A)
    need_tensor("householder_product", tau)
    n, m = A.shape[-2:]
    fits = tau.ndim == A.ndim - 1 and n >= m >= tau.shape[-1]
    need(
        "householder_product",
        fits,
        "A (..., n, m) and tau (..., k), n >= m >= k",
        f"{tuple(A.shape)}, {tuple(tau.shape)}",
    )
    k = tau.shape[-1]
    vectors = tril(A[..., :k], -1) + eye(n, k, dtype=A.dtype, device=A.device)
    product = A * 0 + eye(n, m, dtype=A.dtype, device=A.device)
    for i in reversed(range(k)):
        v = vectors[..., i : i + 1]
        product = product - tau[..., i, None, None] * matmul(v, matmul(v.mT, product))
    return product


def geqrf(A: Tensor) -> GeqrfResult:
    """See :func:`kobai.geqrf`."""
    matrices("geqrf", A)
    if A.requires_grad and is_grad_enabled():
        raise NotImplementedError("geqrf: the gradient is not implemented; linalg.qr has one")
    xp = xp_of(A.array)
    reflected, tau = xp.linalg.qr(A.array, "raw")
    return GeqrfResult(Tensor._wrap(reflected.swapaxes(-1, -2).copy()), Tensor._wrap(tau))


@one_operation
def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """See :func:`kobai.ormqr`."""
    matrices("ormqr", input, other)
    n, m = input.shape[-2:]
    whole = input[..., :n] if m >= n else cat([input, input.new_zeros(*input.shape[:-1], n - m)], -1)
    q = householder_product(whole, tau)
    q = q.mT if transpose else q
    return matmul(q, other) if left else matmul(other, q)


@one_operation
def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """Inverse of A, seen as a matrix of its first ``ind`` dimensions by the others: tensordot(A⁻¹, A, ind) is an identity.

    >>> import kobai
    >>> kobai.linalg.tensorinv(kobai.eye(4).reshape(2, 2, 4)).shape
    kobai.Size([4, 2, 2])
    """
    need_tensor("tensorinv", A)
    need("tensorinv", ind > 0, "ind > 0", ind)
    rows, columns = A.shape[:ind], A.shape[ind:]
    square = math.prod(rows) == math.prod(columns)
    need("tensorinv", square, f"as many elements in the first {ind} dimensions as in the others", tuple(A.shape))
    return inv(A.reshape(math.prod(rows), -1)).reshape(*columns, *rows)  # type: ignore[no-any-return]


@one_operation
def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """X with tensordot(A, X, X.ndim) = B; the dimensions ``dims`` of A are moved to its end first.

    >>> import kobai
    >>> kobai.linalg.tensorsolve(2 * kobai.eye(4).reshape(2, 2, 4), kobai.ones(2, 2))
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    need_tensor("tensorsolve", A, B)
    a: Any = A if dims is None else movedim(A, tuple(dims), tuple(range(-len(dims), 0)))
    shape = a.shape[B.ndim :]
    fits = math.prod(shape) == B.numel() == math.prod(a.shape[: B.ndim])
    need("tensorsolve", fits, "A of the shape of B and as many elements beyond", f"{tuple(A.shape)}, {tuple(B.shape)}")
    return solve(a.reshape(B.numel(), -1), B.flatten()).reshape(shape)  # type: ignore[no-any-return]
