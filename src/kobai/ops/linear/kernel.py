"""A matrix product with what a dense layer does beside it: bias and activation, or the sums that are the bias's gradient."""

from __future__ import annotations

from typing import Any

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
    a_sums: Array | None = None,
) -> Array:
    """f(op(a)·op(b) + bias) for matrices, op transposing where asked.

    ``bias`` (columns of the result) is added to every row; ``activation`` is one of :mod:`kobai.ops._epilogue`'s.
    ``a_sums`` (rows of the result) gets Σₖ op(a)[·, k]: beside the weight's gradient δᵀx that is the bias's, the sum of δ
    over the batch. On CUDA with nvmath all this is one kernel; elsewhere the product reads a transposed operand in place,
    and the rest is done to its result.
    """
    if type(a) is not np.ndarray and cublaslt.takes(a, b):
        return _on_device(a, b, trans_a, trans_b, bias, activation, a_sums)
    left = a.T if trans_a else a
    right = b.T if trans_b else b
    y = matmul(left, right, precision=None)
    if a_sums is not None:
        column_sums(a if trans_a else a.T, a_sums)
    return bias_activation(y, bias, activation)


def _on_device(
    a: Array,
    b: Array,
    trans_a: bool,
    trans_b: bool,
    bias: Array | None,
    activation: str | None,
    a_sums: Array | None,
) -> Array:
    xp = xp_of(a)
    y = xp.empty((a.shape[1] if trans_a else a.shape[0], b.shape[0] if trans_b else b.shape[1]), dtype=a.dtype)
    options: dict[str, Any] = {"trans_a": trans_a, "trans_b": trans_b}
    if a_sums is not None:
        epilogue, vector = "BGRADB", a_sums  # of cuBLASLt's second operand, which is our first
    elif bias is not None:
        epilogue, vector = ("RELU_BIAS" if activation == "relu" else "BIAS"), bias
    else:
        epilogue, vector = ("RELU" if activation == "relu" else "DEFAULT"), None
    if vector is not None and not vector.flags.c_contiguous:
        epilogue, vector = "DEFAULT", None
    if not cublaslt.multiply(a, b, y, epilogue=epilogue, vector=vector, **options):
        epilogue, vector = "DEFAULT", None  # there is no algorithm that does it all
        if not cublaslt.multiply(a, b, y, epilogue=epilogue, vector=vector, **options):
            xp.matmul(a.T if trans_a else a, b.T if trans_b else b, out=y)
    if a_sums is not None and vector is not a_sums:
        column_sums(a if trans_a else a.T, a_sums)
    return bias_activation(y, None if vector is bias else bias, None if "RELU" in epilogue else activation)
