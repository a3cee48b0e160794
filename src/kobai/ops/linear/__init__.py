"""Matrix products: ``matmul`` and its relatives, and the dense layer."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from kobai.core.autocast import one_operation
from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.ops._args import into, need_one_dtype, need_tensor, numbers_between, unbroadcast
from kobai.ops._epilogue import epilogue
from kobai.ops._matmul import matmul as matmul_of_arrays
from kobai.ops.arithmetic import add, mul
from kobai.ops.linear import parts
from kobai.ops.linear.columns import activation_backward, column_sums
from kobai.ops.linear.kernel import gemm, product_and_sums
from kobai.xp import Array

__all__ = [
    "addbmm",
    "addmm",
    "addmv",
    "addr",
    "baddbmm",
    "bmm",
    "dot",
    "matmul",
    "mm",
    "mv",
    "outer",
]


multiplied = partial(matmul_of_arrays, precision=None)  # as the user has set it


def _rows(x: Array) -> Array:
    """All vectors along the last axis, as one matrix."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(2, 3)), rng.normal(size=2)),
        lambda rng: (rng.normal(size=(2, 4, 0)), rng.normal(size=(2, 0)), rng.normal(size=2)),
        lambda rng: (rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 3)), None),
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(2, 3)), rng.normal(size=2), {"activation": "relu"}),
        lambda rng: (rng.normal(size=(3,)), rng.normal(size=(2, 3)), rng.normal(size=2), {"activation": "sigmoid"}),
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(2, 3)), rng.normal(size=2), {"activation": "tanh"}),
        lambda rng: (rng.normal(size=(0, 3)), rng.normal(size=(2, 3)), rng.normal(size=2)),
    ],
    half="device",
)
def _linear(x: Array, weight: Array, bias: Array | None, *, activation: str | None = None) -> Any:
    if activation is not None:
        epilogue("linear", activation)  # complains about what is not known
    y = gemm(_rows(x), weight, trans_b=True, bias=bias, activation=activation)
    if x.ndim != 2:
        y = y.reshape(*x.shape[:-1], weight.shape[0])

    result = y if activation is not None else None  # kept only where the derivative is a function of it
    has_bias = bias is not None

    def vjp(dy: Array) -> Any:
        dz, inputs, db = _rows(dy), _rows(x), None
        if activation is not None:
            dz, db = activation_backward(dz, _rows(result), activation, has_bias)

        def dweight() -> Array:
            nonlocal db
            if samples := parts.sizes.get():
                dw, db = parts.gradients_of_parts(dz, inputs, samples, has_bias)
                return dw
            if db is None and has_bias:
                dw, db = product_and_sums(dz, inputs)
                return dw
            return gemm(dz, inputs, trans_a=True)

        def dbias() -> Array:
            return column_sums(dz) if db is None else db

        return lambda: gemm(dz, weight).reshape(x.shape), dweight, dbias if has_bias else None

    return y, vjp


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """y = f(x Wᵀ + b), the dense layer.

    ``input`` (..., in), ``weight`` (out, in), ``bias`` (out) or None, result (..., out). ``activation`` (None, ``"relu"``,
    ``"sigmoid"``, ``"tanh"``) is applied in place to the product: the same mathematics as the separate function, in one
    pass and without keeping the value before it.

    >>> import kobai
    >>> kobai.nn.functional.linear(kobai.ones(1, 3), kobai.ones(2, 3), kobai.tensor([0.0, 1.0]))
    tensor([[3., 4.]])
    """
    need_tensor("linear", input, weight)
    xs, ws = input._array.shape, weight._array.shape
    if len(ws) != 2 or len(xs) == 0 or xs[-1] != ws[1]:
        wanted = f"(..., {ws[1]})" if len(ws) == 2 else "(..., in_features) and weight (out_features, in_features)"
        raise RuntimeError(f"linear: expected input {wanted}, got {tuple(xs)}" + ("" if len(ws) == 2 else f" and {ws}"))
    if bias is not None and bias._array.shape != ws[:1]:
        raise RuntimeError(f"linear: expected bias ({ws[0]},), got {tuple(bias.shape)}")
    if input._array.dtype is not weight._array.dtype or (
        bias is not None and bias._array.dtype is not input._array.dtype
    ):
        need_one_dtype("linear", input, weight, bias)
    y = _linear(input, weight, bias, activation=activation)
    return y if out is None else into("linear", out, y)


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(3, 2))),
        lambda rng: (rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 3, 5))),
        lambda rng: (rng.normal(size=(5, 1, 4, 3)), rng.normal(size=(2, 3, 2))),
        lambda rng: (rng.normal(size=(2, 4, 3)), rng.normal(size=(3, 2))),
        lambda rng: (rng.normal(size=3), rng.normal(size=3)),
        lambda rng: (rng.normal(size=3), rng.normal(size=(2, 3, 4))),
        lambda rng: (rng.normal(size=(2, 4, 3)), rng.normal(size=3)),
        lambda rng: (rng.normal(size=(0, 3)), rng.normal(size=(3, 2))),
        lambda rng: (rng.normal(size=(4, 0)), rng.normal(size=(0, 2))),
        lambda rng: (rng.normal(size=(2, 4, 0)), rng.normal(size=(0, 2))),
    ],
    half="device",
)
def _matmul(a: Array, b: Array) -> Any:
    y = multiplied(a, b)

    def vjp(dy: Array) -> Any:
        # Vectors act as a row (left) or a column (right); their gradient loses that axis again.
        left = a[None, :] if a.ndim == 1 else a
        right = b[:, None] if b.ndim == 1 else b
        d = dy[..., None] if b.ndim == 1 else dy
        d = d[..., None, :] if a.ndim == 1 else d

        def da() -> Array:
            full = multiplied(d, right.swapaxes(-1, -2))
            return unbroadcast(full[..., 0, :] if a.ndim == 1 else full, a.shape)

        def db() -> Array:
            # For one matrix on the right, one large product instead of a batch of them and their sum.
            one = right.ndim == 2 and left.ndim > 2
            full = multiplied(_rows(left).T, _rows(d)) if one else multiplied(left.swapaxes(-1, -2), d)
            return unbroadcast(full[..., 0] if b.ndim == 1 else full, b.shape)

        return da, db

    return y, vjp


@method
def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix product with NumPy's and PyTorch's rules for vectors and batches; the operator ``@``.

    (..., n, k) · (..., k, m) → (..., n, m), batch dimensions broadcast; a vector is a row on the left, a column on the right.

    >>> import kobai
    >>> kobai.matmul(kobai.eye(2), kobai.tensor([3., 4.]))
    tensor([3., 4.])
    """
    y = _product("matmul", "(..., n, k) and (..., k, m)", input, other)
    return y if out is None else into("matmul", out, y)


def _product(who: str, form: str, input: Tensor, other: Tensor) -> Tensor:
    need_tensor(who, input, other)
    a, b = input._array.shape, other._array.shape
    if not a or not b or a[-1] != b[-2 if len(b) > 1 else 0]:
        raise RuntimeError(f"{who}: expected {form}, got {tuple(a)} and {tuple(b)}")
    need_one_dtype(who, input, other)
    return _matmul(input, other)


def _ranked(who: str, form: str, rank_a: int, rank_b: int, input: Tensor, other: Tensor) -> Tensor:
    """The product of tensors of these numbers of dimensions."""
    need_tensor(who, input, other)
    if input.ndim != rank_a or other.ndim != rank_b:
        raise RuntimeError(
            f"{who}: expected tensors of {rank_a} and {rank_b} dimensions, "
            f"got shapes {tuple(input.shape)} and {tuple(other.shape)}"
        )
    if rank_a == 3 and input.shape[0] != other.shape[0]:
        raise RuntimeError(f"{who}: expected equal batch sizes, got {input.shape[0]} and {other.shape[0]}")
    return _product(who, form, input, other)


@method
def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Product of two matrices, (n, k) · (k, m) → (n, m).

    >>> import kobai
    >>> kobai.mm(kobai.tensor([[1, 2], [3, 4]]), kobai.tensor([[0, 1], [1, 0]]))
    tensor([[2, 1],
            [4, 3]])
    """
    return into("mm", out, _ranked("mm", "(n, k) and (k, m)", 2, 2, input, mat2))


@method
def bmm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Products of two batches of matrices, (b, n, k) · (b, k, m) → (b, n, m).

    >>> import kobai
    >>> kobai.bmm(kobai.ones(5, 2, 3), kobai.ones(5, 3, 4)).shape
    kobai.Size([5, 2, 4])
    """
    return into("bmm", out, _ranked("bmm", "(b, n, k) and (b, k, m)", 3, 3, input, mat2))


@method
@one_operation
def mv(input: Tensor, vec: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Matrix times vector, (n, k) · (k) → (n).

    >>> import kobai
    >>> kobai.mv(kobai.tensor([[1, 2], [3, 4]]), kobai.tensor([1, 10]))
    tensor([21, 43])
    """
    return into("mv", out, _ranked("mv", "(n, k) and (k)", 2, 1, input, vec))


@method
@one_operation
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Inner product of two vectors of equal length.

    >>> import kobai
    >>> kobai.dot(kobai.tensor([1, 2, 3]), kobai.tensor([1, 0, 2]))
    tensor(7)
    """
    return _ranked("dot", "vectors of one length", 1, 1, input, tensor)


@method
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """Outer product of two vectors, (n), (m) → (n, m).

    >>> import kobai
    >>> kobai.outer(kobai.tensor([1, 2]), kobai.tensor([3, 4, 5]))
    tensor([[ 3,  4,  5],
            [ 6,  8, 10]])
    """
    if input.ndim != 1 or vec2.ndim != 1:
        raise RuntimeError(f"outer: expected two vectors, got shapes {tuple(input.shape)} and {tuple(vec2.shape)}")
    return mul(input.reshape(-1, 1), vec2)


@method(in_place=True)
@numbers_between
@one_operation
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """β · input + α · mat1 · mat2.

    >>> import kobai
    >>> kobai.addmm(kobai.ones(2), kobai.eye(2), kobai.tensor([[1., 2.], [3., 4.]]), alpha=10)
    tensor([[11., 21.],
            [31., 41.]])
    """
    return _scaled_sum(input, mm(mat1, mat2), beta, alpha)


@method(in_place=True)
@numbers_between
@one_operation
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """β · input + α · Σ batch1ᵢ · batch2ᵢ, the products of a batch added up.

    >>> import kobai
    >>> kobai.addbmm(kobai.ones(1, 1), kobai.ones(4, 1, 3), kobai.ones(4, 3, 1))
    tensor([[13.]])
    """
    return _scaled_sum(input, bmm(batch1, batch2).sum(0, dtype=batch1.dtype), beta, alpha)


@method(in_place=True)
@numbers_between
@one_operation
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """β · input + α · vec1 ⊗ vec2.

    >>> import kobai
    >>> kobai.addr(kobai.zeros(2, 2), kobai.tensor([1., 2.]), kobai.tensor([3., 4.]))
    tensor([[3., 4.],
            [6., 8.]])
    """
    return _scaled_sum(input, outer(vec1, vec2), beta, alpha)


@method(in_place=True)
@numbers_between
@one_operation
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """β · input + α · batch1 · batch2, batch by batch.

    >>> import kobai
    >>> kobai.baddbmm(kobai.ones(1, 1), kobai.ones(1, 1, 3), kobai.ones(1, 3, 1), beta=2)
    tensor([[[5.]]])
    """
    return _scaled_sum(input, bmm(batch1, batch2), beta, alpha)


@method(in_place=True)
@numbers_between
@one_operation
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """β · input + α · mat · vec.

    >>> import kobai
    >>> kobai.addmv(kobai.tensor([1., 1.]), kobai.tensor([[1., 2.], [3., 4.]]), kobai.tensor([1., 10.]))
    tensor([22., 44.])
    """
    return _scaled_sum(input, mv(mat, vec), beta, alpha)


def _scaled_sum(input: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    kind = product._array.dtype.kind
    if kind not in FLOATING:  # a sum of integers is one, whatever the factors
        beta, alpha = (bool(beta), bool(alpha)) if kind == "b" else (int(beta), int(alpha))
    product = product if alpha == 1 else mul(product, alpha)
    if beta == 0:
        return product
    return add(product, input if beta == 1 else mul(input, beta))


Tensor.__matmul__ = lambda self, other: matmul(self, other) if isinstance(other, Tensor) else NotImplemented  # type: ignore[method-assign]
