"""Powers, chains and exponentials of matrices; products of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.linalg.systems import inv, matrices
from kobai.ops._args import cast, need_tensor
from kobai.ops.arithmetic import mul, sub
from kobai.ops.create import eye
from kobai.ops.joining import stack
from kobai.ops.linear import matmul
from kobai.ops.parts import unbind
from kobai.ops.shape import diagonal as _diagonal, fresh
from kobai.refusals import truth_values
from kobai.xp import Array, xp_of


def matrix_power(A: Tensor, n: int) -> Tensor:
    """Aⁿ, by squaring; n may be negative.

    >>> import kobai
    >>> kobai.linalg.matrix_power(kobai.tensor([[1., 1.], [0., 1.]]), 5)
    tensor([[1., 5.],
            [0., 1.]])
    """
    matrices("matrix_power", A, square=True)
    base = inv(A) if n < 0 else A
    n = abs(n)
    result: Tensor | None = None
    while n:
        if n & 1:
            result = base if result is None else matmul(result, base)
        n >>= 1
        if n:
            base = matmul(base, base)
    return _identity(A) if result is None else fresh(result, A)


@primitive(sample=[lambda rng: (rng.normal(size=(3, 3)),), lambda rng: (rng.normal(size=(2, 0, 0)),)])
def _identity(a: Array) -> Any:
    """A⁰, which is I for every A: its gradient is zero."""
    y = xp_of(a).empty(a.shape, a.dtype)
    y[...] = xp_of(a).eye(a.shape[-1], dtype=a.dtype)
    return y, lambda dy: (lambda: xp_of(dy).zeros_like(dy),)


@one_operation
def matrix_exp(A: Tensor) -> Tensor:
    """e^A = Σ Aⁿ / n!, by scaling and squaring: the series is summed for A/2ˢ with ‖A/2ˢ‖ ≤ ½, then squared s times.

    Moler, Van Loan, *Nineteen dubious ways to compute the exponential of a matrix*, SIAM Review 45, 2003.

    >>> import kobai
    >>> kobai.linalg.matrix_exp(kobai.zeros(2, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    matrices("matrix_exp", A, square=True)
    size = max(float(A.detach().abs().sum(-1).amax().item()) if A.numel() else 0.0, 1e-30)
    halvings = max(0, math.ceil(math.log2(size)) + 1)
    x = A / 2.0**halvings
    total = eye(A.shape[-1], dtype=A.dtype, device=A.device) + x
    term = x
    for n in range(2, 19):  # (½)¹⁹ / 19! is below the rounding of float64
        term = matmul(term, x) / n
        total = total + term
    for _ in range(halvings):
        total = matmul(total, total)
    return total


@one_operation
def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """A₁ A₂ … Aₙ in the order of multiplication that takes the fewest steps; the first and last may be vectors.

    >>> import kobai
    >>> kobai.linalg.multi_dot([kobai.ones(2), kobai.eye(2), kobai.ones(2)])
    tensor(2.)
    """
    if len(tensors) < 2:
        raise RuntimeError(f"multi_dot: expected at least two tensors, got {len(tensors)}")
    chain = list(tensors)
    first, last = chain[0].ndim == 1, chain[-1].ndim == 1
    if first:
        chain[0] = chain[0].unsqueeze(0)
    if last:
        chain[-1] = chain[-1].unsqueeze(1)
    for i, x in enumerate(chain):
        if x.ndim != 2 or (i and chain[i - 1].shape[1] != x.shape[0]):
            raise RuntimeError(f"multi_dot: these shapes do not form a chain: {[tuple(t.shape) for t in tensors]}")
    product = _chain(chain, _best_splits([chain[0].shape[0], *(x.shape[1] for x in chain)]), 0, len(chain) - 1)
    product = product.squeeze(0) if first else product
    return product.squeeze(-1) if last else product


def _best_splits(sizes: list[int]) -> dict[tuple[int, int], int]:
    """Where to split every product i … j of a chain: Cormen et al., *Introduction to Algorithms*, section 15.2."""
    n = len(sizes) - 1
    cost = {(i, i): 0 for i in range(n)}
    split: dict[tuple[int, int], int] = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            costs = {k: cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j)}
            split[i, j] = min(costs, key=lambda k: costs[k])
            cost[i, j] = costs[split[i, j]]
    return split


def _chain(chain: list[Tensor], split: dict[tuple[int, int], int], i: int, j: int) -> Tensor:
    if i == j:
        return chain[i]
    k = split[i, j]
    return matmul(_chain(chain, split, i, k), _chain(chain, split, k + 1, j))


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """Cross product of vectors of three elements along ``dim``.

    >>> import kobai
    >>> kobai.linalg.cross(kobai.tensor([1, 0, 0]), kobai.tensor([0, 1, 0]))
    tensor([0, 0, 1])
    """
    need_tensor("cross", input, other)
    if input.ndim != other.ndim:
        shapes = f"{tuple(input.shape)} and {tuple(other.shape)}"
        raise RuntimeError(f"cross: expected tensors of as many dimensions, got {shapes}")
    a, b = unbind(input, dim), unbind(other, dim)
    if len(a) != 3 or len(b) != 3:
        raise RuntimeError(f"cross: expected 3 elements along dim {dim}, got {len(a)} and {len(b)}")
    parts = [sub(mul(a[i - 2], b[i - 1]), mul(a[i - 1], b[i - 2])) for i in range(3)]
    return stack(parts, dim)


@one_operation
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Σ xᵢ yᵢ along ``dim``, with broadcasting.

    >>> import kobai
    >>> kobai.linalg.vecdot(kobai.tensor([[1, 2], [3, 4]]), kobai.tensor([1, 10]))
    tensor([21, 43])
    """
    return mul(x, y).sum(dim)  # type: ignore[no-any-return]


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Diagonals of matrices, a view.

    >>> import kobai
    >>> kobai.linalg.diagonal(kobai.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """
    return _diagonal(A, offset, dim1, dim2)


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """Rows of powers: 1, xᵢ, xᵢ², … up to N − 1 (default: as many as x is long), of floats or of integers as int64.

    A number counts as a vector of one. RuntimeError for N < 2.

    >>> import kobai
    >>> kobai.linalg.vander(kobai.tensor([2, 3]), N=3)
    tensor([[1, 2, 4],
            [1, 3, 9]])
    """
    need_tensor("vander", x)
    if x.dtype.kind == "b":
        raise truth_values("vander", "bool")
    if not x.ndim:
        x = x.unsqueeze(0)
    if not x.is_floating_point():
        x = cast(x, np.int64)
    count = x.shape[-1] if N is None else N
    if count < 2:
        raise RuntimeError(f"vander: expected N >= 2, got {count}")
    return stack([x**n for n in range(count)], -1)
