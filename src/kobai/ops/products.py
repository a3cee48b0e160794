"""Products of other kinds: over chosen axes, of Kronecker, of distances; and the trace."""

from __future__ import annotations

from functools import lru_cache
from string import ascii_letters
from typing import Any

from kobai.core.autocast import one_operation
from kobai.core.primitive import method
from kobai.core.tensor import Tensor
from kobai.ops._args import need, need_tensor, normalize_axes
from kobai.ops.einsum import einsum
from kobai.ops.pointwise import abs as _abs
from kobai.ops.vector_norm import norm

__all__ = ["cdist", "kron", "tensordot", "trace"]


@one_operation
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sum of products over ``dims``: the last n axes of ``a`` with the first n of ``b``, or two lists of axes.

    An axis of size 1 is repeated where the other is larger.

    >>> import kobai
    >>> kobai.tensordot(kobai.ones(2, 3), kobai.ones(3, 4), dims=1).shape
    kobai.Size([2, 4])
    """
    need_tensor("tensordot", a, b)
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot: expected dims in [0, {min(a.ndim, b.ndim)}], got {dims}")
        left, right = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    else:
        left, right = (list(normalize_axes("tensordot", list(d), x.ndim)) for d, x in zip(dims, (a, b), strict=True))
    pairs = [(a.shape[i], b.shape[j]) for i, j in zip(left, right, strict=False)]
    if len(left) != len(right) or any(m != n and 1 not in (m, n) for m, n in pairs):
        raise RuntimeError(f"tensordot: axes {left} of {tuple(a.shape)} and {right} of {tuple(b.shape)} do not match")
    # An axis of size 1 is repeated for the other: the sum over the other may be taken first.
    a, b = (
        _summed(x, [axis for axis, (m, n) in zip(axes, sizes, strict=True) if n == 1 != m])
        for x, axes, sizes in ((a, left, pairs), (b, right, [(n, m) for m, n in pairs]))
    )
    return einsum(_equation(a._array.ndim, b._array.ndim, tuple(left), tuple(right)), a, b)


@lru_cache(maxsize=256)
def _equation(rank_a: int, rank_b: int, left: tuple[int, ...], right: tuple[int, ...]) -> str:
    la, lb = list(ascii_letters[:rank_a]), list(ascii_letters[rank_a : rank_a + rank_b])
    for i, j in zip(left, right, strict=True):
        lb[j] = la[i]
    out = [c for i, c in enumerate(la) if i not in left] + [c for j, c in enumerate(lb) if j not in right]
    return f"{''.join(la)},{''.join(lb)}->{''.join(out)}"


def _summed(x: Tensor, axes: list[int]) -> Tensor:
    return x.sum(axes, keepdim=True, dtype=x.dtype) if axes else x


@method
def kron(input: Tensor, other: Tensor) -> Tensor:
    """Kronecker product: every element of ``input`` times all of ``other``.

    >>> import kobai
    >>> kobai.kron(kobai.tensor([[1, 10]]), kobai.tensor([[1, 2], [3, 4]]))
    tensor([[ 1,  2, 10, 20],
            [ 3,  4, 30, 40]])
    """
    rank = max(input.ndim, other.ndim)
    left, right = [1] * (rank - input.ndim) + list(input.shape), [1] * (rank - other.ndim) + list(other.shape)
    a = input.reshape([n for size in left for n in (size, 1)])
    b = other.reshape([n for size in right for n in (1, size)])
    return (a * b).reshape([m * n for m, n in zip(left, right, strict=True)])  # type: ignore[no-any-return]


@method
@one_operation
def trace(input: Tensor) -> Tensor:
    """Sum of the diagonal of a matrix.

    >>> import kobai
    >>> kobai.trace(kobai.tensor([[1, 2], [3, 4]]))
    tensor(5)
    """
    if input.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, got {tuple(input.shape)}")
    return input.diagonal().sum()  # type: ignore[no-any-return]


_COMPUTE_MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")


@one_operation
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """p-norm distance of every row of ``x1`` (..., P, M) to every row of ``x2`` (..., R, M): (..., P, R).

    ``compute_mode`` says where PyTorch may take ‖x‖² + ‖y‖² − 2xᵀy, which loses the digits of small distances. Here it is the
    norm of x − y in every mode.

    >>> import kobai
    >>> kobai.cdist(kobai.tensor([[0., 0.]]), kobai.tensor([[3., 4.], [0., 1.]]))
    tensor([[5., 1.]])
    """
    if x1.ndim < 2 or x2.ndim < 2 or x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(f"cdist: expected (..., P, M) and (..., R, M), got {tuple(x1.shape)} and {tuple(x2.shape)}")
    need("cdist", p >= 0, "p >= 0", p)
    if compute_mode not in _COMPUTE_MODES:
        raise ValueError(f"cdist: expected compute_mode {', '.join(map(repr, _COMPUTE_MODES))}, got {compute_mode!r}")
    difference = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    if p == 1:
        return _abs(difference).sum(-1)  # type: ignore[no-any-return]
    return norm(difference, p, -1)
