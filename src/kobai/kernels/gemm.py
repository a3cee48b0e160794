"""Matrix products: the one place through which layers reach BLAS."""

from __future__ import annotations

import math

import numpy as np

from kobai.cuda import cublaslt
from kobai.kernels import blas
from kobai.kernels.columns import bias_activation, column_sums
from kobai.xp import Array, backend_of, xp_of


def gemm(
    a: Array,
    b: Array,
    *,
    trans_a: bool = False,
    trans_b: bool = False,
    out: Array | None = None,
    bias: Array | None = None,
    activation: str | None = None,
    accumulate: bool = False,
    a_sums: Array | None = None,
) -> Array:
    """f(op(a)·op(b) + bias) for matrices, op transposing where asked; into ``out`` if given.

    ``bias`` (columns of the result) is added to every row; ``activation`` is one of :mod:`kobai.kernels.epilogue`'s.
    ``accumulate`` adds the product to what ``out`` holds. ``a_sums`` (rows of the result) gets Σₖ op(a)[·, k]: beside the
    weight's gradient δᵀx that is the bias's, the sum of δ over the batch. On CUDA with nvmath all this is one kernel;
    elsewhere BLAS does the product, reading a transposed operand in place, and the rest is done to its result.
    """
    if type(a) is not np.ndarray and _by_cublaslt(a, b):
        return _on_device(a, b, trans_a, trans_b, out, bias, activation, accumulate, a_sums)
    xp = xp_of(a)
    left = a.T if trans_a else a
    right = b.T if trans_b else b
    if accumulate and out is not None:
        product = xp.empty(out.shape, dtype=out.dtype)  # BLAS could add by itself (β = 1), but NumPy does not let it
        blas.matmul(left, right, out=product)
        y = xp.add(out, product, out=out)
    else:
        y = blas.matmul(left, right, out=out)
    if a_sums is not None:
        column_sums(a if trans_a else a.T, out=a_sums)
    return bias_activation(y, bias, activation)


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """a·b with NumPy's rules for vectors and batches; into ``out`` if given."""
    if type(a) is np.ndarray or not _by_cublaslt(a, b):
        return blas.matmul(a, b, out=out)
    if a.ndim == b.ndim == 2:
        return gemm(a, b, out=out)
    if a.ndim == 1 or b.ndim == 1:  # a row on the left, a column on the right
        y = matmul(a[None, :] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
        y = y[..., 0] if b.ndim == 1 else y
        y = y[..., 0, :] if a.ndim == 1 and b.ndim > 1 else y[..., 0] if a.ndim == 1 else y
        if out is None:
            return y
        out[...] = y
        return out
    xp = xp_of(a)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    y = out if out is not None and out.flags.c_contiguous else None
    if y is None:
        y = xp.empty((*batch, a.shape[-2], b.shape[-1]), dtype=a.dtype)
    if not _product(_one_batch(a, batch), _one_batch(b, batch), y.reshape(-1, *y.shape[-2:])):
        xp.matmul(a, b, out=y)
    if out is not None and y is not out:
        out[...] = y
        return out
    return y


# --- CUDA -------------------------------------------------------------------------------------------------------------


def _by_cublaslt(a: Array, b: Array) -> bool:
    return backend_of(a).name == "cupy" and a.size > 0 and b.size > 0 and cublaslt.is_available()


def _on_device(
    a: Array,
    b: Array,
    trans_a: bool,
    trans_b: bool,
    out: Array | None,
    bias: Array | None,
    activation: str | None,
    accumulate: bool,
    a_sums: Array | None,
) -> Array:
    xp = xp_of(a)
    y = out
    if y is None or not y.flags.c_contiguous:
        shape = (a.shape[1] if trans_a else a.shape[0], b.shape[0] if trans_b else b.shape[1])
        y = xp.empty(shape, dtype=a.dtype)
        if out is not None and accumulate:
            y[...] = out
    if a_sums is not None:
        named, vector = "BGRADB", a_sums  # of cuBLASLt's second operand, which is our first
    elif bias is not None:
        named, vector = ("RELU_BIAS" if activation == "relu" else "BIAS"), bias
    else:
        named, vector = ("RELU" if activation == "relu" else "DEFAULT"), None
    if vector is not None and not vector.flags.c_contiguous:
        named, vector = "DEFAULT", None
    if not _product(a, b, y, trans_a, trans_b, named, vector, accumulate):
        named, vector = "DEFAULT", None  # there is no algorithm that does it all
        left, right = (a.T if trans_a else a), (b.T if trans_b else b)
        if not _product(a, b, y, trans_a, trans_b, named, vector, accumulate):
            if accumulate:
                xp.add(y, xp.matmul(left, right), out=y)
            else:
                xp.matmul(left, right, out=y)
    if a_sums is not None and vector is not a_sums:
        column_sums(a if trans_a else a.T, out=a_sums)
    y = bias_activation(y, None if vector is bias else bias, None if "RELU" in named else activation)
    if out is not None and y is not out:
        out[...] = y
        return out
    return y


def _product(
    a: Array,
    b: Array,
    out: Array,
    trans_a: bool = False,
    trans_b: bool = False,
    named: str = "DEFAULT",
    vector: Array | None = None,
    accumulate: bool = False,
) -> bool:
    """One call of cuBLASLt; operands that it cannot read in place are copied first. False if it cannot do this product."""
    xp = xp_of(a)
    a, b = (m if cublaslt.layout(m) is not None else xp.ascontiguousarray(m) for m in (a, b))
    return cublaslt.matmul(
        a, b, out, trans_a=trans_a, trans_b=trans_b, epilogue=named, vector=vector, accumulate=accumulate
    )


def _one_batch(array: Array, batch: tuple[int, ...]) -> Array:
    """The array with its batch dimensions as one, repeated to ``batch``: a view where memory permits (a stride may be 0)."""
    wide = xp_of(array).broadcast_to(array, (*batch, *array.shape[-2:]))
    return wide.reshape(math.prod(batch), *array.shape[-2:])
