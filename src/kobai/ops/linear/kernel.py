"""A matrix product with what a dense layer does beside it: bias and activation, or the sums that are the bias's gradient."""

from __future__ import annotations

import numpy as np

from kobai.cuda import cublaslt
from kobai.ops._matmul import matmul
from kobai.ops.linear.columns import bias_activation, column_sums
from kobai.xp import Array, xp_of


def gemm(
    a: Array,
    b: Array,
    *,
    trans_a: bool = False,
    trans_b: bool = False,
    bias: Array | None = None,
    activation: str | None = None,
) -> Array:
    """f(op(a)·op(b) + bias) for matrices, op transposing where asked.

    ``bias`` (columns of the result) is added to every row; ``activation`` is one of :mod:`kobai.ops._epilogue`'s. On CUDA with
    nvmath all this is one kernel; elsewhere BLAS does the product, reading a transposed operand in place, and the rest is done
    to its result.
    """
    if type(a) is not np.ndarray and cublaslt.takes(a, b):
        relu = activation == "relu"
        plain, biased = ("RELU", "RELU_BIAS") if relu else ("DEFAULT", "BIAS")
        y, done = _on_device(a, b, trans_a, trans_b, plain if bias is None else biased, bias)
        return bias_activation(y, None if done else bias, None if done and relu else activation)
    y = matmul(a.T if trans_a else a, b.T if trans_b else b, precision=None)
    return bias_activation(y, bias, activation)


def product_and_sums(a: Array, b: Array) -> tuple[Array, Array]:
    """aᵀ·b and Σ over the rows of a: the gradients of weight and bias, where a is that of the layer's result, b its input.

    On CUDA with nvmath the sums are taken on the way, as the product reads a anyway.
    """
    if type(a) is not np.ndarray and cublaslt.takes(a, b):
        sums = xp_of(a).empty(a.shape[1], a.dtype)
        y, done = _on_device(a, b, True, False, "BGRADB", sums)  # of cuBLASLt's second operand, which is our first
        return y, sums if done else column_sums(a)
    return matmul(a.T, b, precision=None), column_sums(a)


def _on_device(
    a: Array, b: Array, trans_a: bool, trans_b: bool, epilogue: str, vector: Array | None
) -> tuple[Array, bool]:
    """op(a)·op(b) by cuBLASLt, and whether it has done what ``epilogue`` says, too."""
    left, right = a.T if trans_a else a, b.T if trans_b else b
    y = xp_of(a).empty((left.shape[0], right.shape[1]), dtype=a.dtype)
    if (vector is None or vector.flags.c_contiguous) and cublaslt.multiply(
        a, b, y, epilogue=epilogue, vector=vector, trans_a=trans_a, trans_b=trans_b
    ):
        return y, True
    if not cublaslt.multiply(a, b, y, trans_a=trans_a, trans_b=trans_b):
        xp_of(a).matmul(left, right, out=y)
    return y, False
