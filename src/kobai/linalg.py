"""``kobai.linalg``: inverses, systems, decompositions. Products are in ``ops/linear.py``.

``inv``, ``solve``, ``det``, ``slogdet`` and ``cholesky`` are differentiable; the other decompositions raise rather than drop a
gradient that was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kobai._grad_mode import is_grad_enabled
from kobai._primitive import primitive
from kobai._tensor import Tensor
from kobai.ops.arithmetic import mul, sub
from kobai.ops.create import eye
from kobai.ops.extreme import norm as _norm
from kobai.ops.joining import stack
from kobai.ops.linear import matmul
from kobai.ops.parts import unbind
from kobai.ops.rearrange import tril, triu
from kobai.ops.shape import diagonal as _diagonal
from kobai.xp import Array, xp_of

LinAlgError = np.linalg.LinAlgError  # what a singular matrix raises, as in NumPy

__all__ = [
    "LinAlgError",
    "cholesky",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "lstsq",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svdvals",
    "vander",
    "vecdot",
    "vector_norm",
]


def _square(rng: np.random.Generator, *batch: int) -> Array:
    return rng.normal(size=(*batch, 3, 3)) + 3 * np.eye(3)


def _t(x: Array) -> Array:
    return x.swapaxes(-1, -2)


@primitive(sample=[lambda rng: (_square(rng),), lambda rng: (_square(rng, 2),)])
def _inv(a: Array) -> Any:
    y = xp_of(a).linalg.inv(a)
    # d(A⁻¹) = −A⁻¹ dA A⁻¹
    return y, lambda dy: (lambda out: -(_t(y) @ dy @ _t(y)),)


@primitive(
    sample=[
        lambda rng: (_square(rng), rng.normal(size=(3, 2))),
        lambda rng: (_square(rng, 2), rng.normal(size=(2, 3, 2))),
    ]
)
def _solve(a: Array, b: Array) -> Any:
    x = xp_of(a).linalg.solve(a, b)

    def vjp(dx: Array) -> Any:
        db = xp_of(a).linalg.solve(_t(a), dx)  # A X = B: dB = A⁻ᵀ dX, dA = −dB Xᵀ
        return (lambda out: -(db @ _t(x))), db

    return x, vjp


@primitive(sample=[lambda rng: (_square(rng),), lambda rng: (_square(rng, 2),)])
def _det(a: Array) -> Any:
    y = xp_of(a).asarray(xp_of(a).linalg.det(a))
    # Jacobi: d det A = det A · tr(A⁻¹ dA)
    return y, lambda dy: (lambda out: (dy * y)[..., None, None] * _t(xp_of(a).linalg.inv(a)),)


@primitive(sample=[lambda rng: (_square(rng),), lambda rng: (_square(rng, 2),)])
def _logabsdet(a: Array) -> Any:
    y = xp_of(a).asarray(xp_of(a).linalg.slogdet(a)[1])
    return y, lambda dy: (lambda out: dy[..., None, None] * _t(xp_of(a).linalg.inv(a)),)


@primitive(sample=lambda rng: ((lambda m: m @ m.T + np.eye(3))(_square(rng)),))
def _cholesky(a: Array) -> Any:
    xp = xp_of(a)
    # Only the symmetric part of A counts, so that a gradient exists for every element.
    lower = xp.linalg.cholesky((a + _t(a)) / 2)

    def da(dy: Array) -> Array:
        # Murray 2016, arXiv:1602.07527: dA = sym(L⁻ᵀ Φ(Lᵀ dL) L⁻¹), Φ halves the diagonal and drops what is above it
        inverse = xp.linalg.inv(lower)
        phi = xp.tril(_t(lower) @ dy)
        phi = phi - 0.5 * phi * xp.eye(phi.shape[-1], dtype=phi.dtype)
        s = _t(inverse) @ phi @ inverse
        return (s + _t(s)) / 2

    return lower, lambda dy: (lambda out: da(dy),)


def _matrices(who: str, *tensors: Tensor, square: bool = False) -> None:
    for x in tensors:
        if not isinstance(x, Tensor):
            raise TypeError(f"{who}: expected a Tensor, got {type(x).__name__}")
        if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
            raise RuntimeError(f"{who}: expected {'square ' * square}matrices (..., n, m), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise RuntimeError(f"{who}: expected floats, got {x.dtype}")


def _plain(who: str, x: Tensor, *, square: bool = False) -> Array:
    """Array of an operand of an operation that has no gradient here."""
    _matrices(who, x, square=square)
    if x.requires_grad and is_grad_enabled():
        raise NotImplementedError(f"{who}: the gradient is not implemented; use detach(), or no_grad()")
    return x.array


def inv(A: Tensor) -> Tensor:
    """Inverse of (every one of a batch of) square matrices; numpy.linalg.LinAlgError for a singular one.

    >>> import kobai
    >>> kobai.linalg.inv(kobai.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    _matrices("inv", A, square=True)
    return _inv(A)


def solve(A: Tensor, B: Tensor) -> Tensor:
    """X of A X = B; A (..., n, n), B (n) or (..., n, k).

    >>> import kobai
    >>> kobai.linalg.solve(kobai.tensor([[2., 0.], [0., 4.]]), kobai.tensor([2., 2.]))
    tensor([1.0000, 0.5000])
    """
    _matrices("solve", A, square=True)
    if B.ndim == 1:
        return _solve(A, B.unsqueeze(-1)).squeeze(-1)  # type: ignore[no-any-return]
    return _solve(A, B)


def det(A: Tensor) -> Tensor:
    """Determinant of square matrices.

    >>> import kobai
    >>> kobai.linalg.det(kobai.tensor([[3., 1.], [0., 2.5]]))
    tensor(7.5000)
    """
    _matrices("det", A, square=True)
    return _det(A)


class SlogdetResult(NamedTuple):
    """Sign and logarithm of the absolute value of a determinant."""

    sign: Tensor
    logabsdet: Tensor


def slogdet(A: Tensor) -> SlogdetResult:
    """Sign and log |det A|, which neither overflows nor underflows.

    >>> import kobai
    >>> sign, logarithm = kobai.linalg.slogdet(kobai.tensor([[-1., 0.], [0., 2.]]))
    >>> sign, logarithm
    (tensor(-1.), tensor(0.6931))
    """
    _matrices("slogdet", A, square=True)
    xp = xp_of(A.array)
    return SlogdetResult(Tensor._wrap(xp.asarray(xp.linalg.slogdet(A.array)[0])), _logabsdet(A))


def cholesky(A: Tensor) -> Tensor:
    """Lower triangular L with L Lᵀ = A, for a symmetric positive definite A.

    >>> import kobai
    >>> kobai.linalg.cholesky(kobai.tensor([[4., 2.], [2., 5.]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    _matrices("cholesky", A, square=True)
    return _cholesky(A)


class SVDResult(NamedTuple):
    """U diag(S) Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def svd(A: Tensor, full_matrices: bool = True) -> SVDResult:
    """Singular value decomposition, singular values in descending order. No gradient.

    >>> import kobai
    >>> U, S, Vh = kobai.linalg.svd(kobai.tensor([[0., 3.5], [2., 0.], [0., 0.]]), full_matrices=False)
    >>> U.shape, S, Vh.shape
    (kobai.Size([3, 2]), tensor([3.5000, 2.0000]), kobai.Size([2, 2]))
    """
    array = _plain("svd", A)
    parts = xp_of(array).linalg.svd(array, full_matrices=full_matrices)
    return SVDResult(*(Tensor._wrap(part) for part in parts))


def svdvals(A: Tensor) -> Tensor:
    """Singular values in descending order. No gradient.

    >>> import kobai
    >>> kobai.linalg.svdvals(kobai.tensor([[2., 0.], [0., -3.5]]))
    tensor([3.5000, 2.0000])
    """
    array = _plain("svdvals", A)
    return Tensor._wrap(xp_of(array).linalg.svd(array, compute_uv=False))  # type: ignore[no-any-return]


class EighResult(NamedTuple):
    """Eigenvalues in ascending order and eigenvectors as columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def eigh(A: Tensor) -> EighResult:
    """Eigenvalues and eigenvectors of symmetric matrices. No gradient.

    >>> import kobai
    >>> kobai.linalg.eigh(kobai.tensor([[2.5, 1.], [1., 2.5]])).eigenvalues
    tensor([1.5000, 3.5000])
    """
    array = _plain("eigh", A, square=True)
    return EighResult(*(Tensor._wrap(part) for part in xp_of(array).linalg.eigh(array)))


def eigvalsh(A: Tensor) -> Tensor:
    """Eigenvalues of symmetric matrices in ascending order. No gradient.

    >>> import kobai
    >>> kobai.linalg.eigvalsh(kobai.tensor([[2.5, 1.], [1., 2.5]]))
    tensor([1.5000, 3.5000])
    """
    array = _plain("eigvalsh", A, square=True)
    return Tensor._wrap(xp_of(array).linalg.eigvalsh(array))  # type: ignore[no-any-return]


class QRResult(NamedTuple):
    """Orthonormal columns and an upper triangle."""

    Q: Tensor
    R: Tensor


def qr(A: Tensor) -> QRResult:
    """Reduced QR decomposition. No gradient.

    >>> import kobai
    >>> Q, R = kobai.linalg.qr(kobai.tensor([[3., 1.], [4., 2.], [0., 2.]]))
    >>> Q.shape, kobai.allclose(Q.T @ Q, kobai.eye(2), atol=1e-6), (R[1, 0] == 0).item()
    (kobai.Size([3, 2]), True, True)
    """
    array = _plain("qr", A)
    return QRResult(*(Tensor._wrap(part) for part in xp_of(array).linalg.qr(array)))


def pinv(A: Tensor) -> Tensor:
    """Moore–Penrose inverse. No gradient.

    >>> import kobai
    >>> kobai.linalg.pinv(kobai.tensor([[2.], [0.]]))
    tensor([[0.5000, 0.0000]])
    """
    array = _plain("pinv", A)
    return Tensor._wrap(xp_of(array).linalg.pinv(array))  # type: ignore[no-any-return]


class LstsqResult(NamedTuple):
    """Solution, squared residuals, rank of A, its singular values."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


def lstsq(A: Tensor, B: Tensor) -> LstsqResult:
    """X that minimises ‖A X − B‖². No gradient.

    >>> import kobai
    >>> A = kobai.tensor([[1.], [1.], [1.]])
    >>> kobai.linalg.lstsq(A, kobai.tensor([[1.], [2.], [4.5]])).solution  # one number for all: the mean
    tensor([[2.5000]])
    """
    a, b = _plain("lstsq", A), B.detach().array
    xp = xp_of(a)
    return LstsqResult(*(Tensor._wrap(xp.asarray(part)) for part in xp.linalg.lstsq(a, b, rcond=None)))


def matrix_rank(A: Tensor) -> Tensor:
    """Number of singular values above rounding. No gradient.

    >>> import kobai
    >>> kobai.linalg.matrix_rank(kobai.tensor([[1., 2.], [2., 4.]]))
    tensor(1)
    """
    _matrices("matrix_rank", A)
    xp = xp_of(A.array)
    return Tensor._wrap(xp.asarray(xp.linalg.matrix_rank(A.array)))  # type: ignore[no-any-return]


def matrix_power(A: Tensor, n: int) -> Tensor:
    """Aⁿ, by squaring; n may be negative.

    >>> import kobai
    >>> kobai.linalg.matrix_power(kobai.tensor([[1., 1.], [0., 1.]]), 5)
    tensor([[1., 5.],
            [0., 1.]])
    """
    _matrices("matrix_power", A, square=True)
    base = inv(A) if n < 0 else A
    result, n = eye(A.shape[-1], dtype=A.dtype, device=A.device), abs(n)
    while n:
        if n & 1:
            result = matmul(result, base)
        base, n = matmul(base, base), n >> 1
    return result


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


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """Cross product of vectors of three elements along ``dim``.

    >>> import kobai
    >>> kobai.linalg.cross(kobai.tensor([1, 0, 0]), kobai.tensor([0, 1, 0]))
    tensor([0, 0, 1])
    """
    a, b = unbind(input, dim), unbind(other, dim)
    if len(a) != 3 or len(b) != 3:
        raise RuntimeError(f"cross: expected 3 elements along dim {dim}, got {len(a)} and {len(b)}")
    parts = [sub(mul(a[i - 2], b[i - 1]), mul(a[i - 1], b[i - 2])) for i in range(3)]
    return stack(parts, dim)


def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """X of A X = B – of X A = B without ``left`` – where only the upper or lower triangle of A counts.

    ``unitriangular`` takes the diagonal of A as ones.

    >>> import kobai
    >>> A = kobai.tensor([[2., 0.], [9., 4.]])
    >>> kobai.linalg.solve_triangular(A, kobai.tensor([[2.], [4.]]), upper=True)  # the 9 does not count
    tensor([[1.],
            [1.]])
    """
    _matrices("solve_triangular", A, B)
    triangle = triu(A) if upper else tril(A)
    if unitriangular:
        one = eye(A.shape[-1], dtype=A.dtype, device=A.device)
        triangle = (triu(A, 1) if upper else tril(A, -1)) + one
    if left:
        return solve(triangle, B)
    return solve(triangle.mT, B.mT).mT  # type: ignore[no-any-return]


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
    """Rows of powers: 1, xᵢ, xᵢ², … up to N − 1 (default: as many as x is long).

    >>> import kobai
    >>> kobai.linalg.vander(kobai.tensor([2, 3]), N=3)
    tensor([[1, 2, 4],
            [1, 3, 9]])
    """
    count = x.shape[-1] if N is None else N
    return stack([x**n for n in range(count)], -1)


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


def matrix_exp(A: Tensor) -> Tensor:
    """e^A = Σ Aⁿ / n!, by scaling and squaring: the series is summed for A/2ˢ with ‖A/2ˢ‖ ≤ ½, then squared s times.

    Moler, Van Loan, *Nineteen dubious ways to compute the exponential of a matrix*, SIAM Review 45, 2003.

    >>> import kobai
    >>> kobai.linalg.matrix_exp(kobai.zeros(2, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    _matrices("matrix_exp", A, square=True)
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
