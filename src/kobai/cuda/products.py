"""Products of arrays on a CUDA device: by cuBLASLt where nvmath is installed, which can be captured, else by CuPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.cuda import cublaslt
from kobai.xp import Array, backend_of, xp_of


def by_cublaslt(a: Array, b: Array) -> bool:
    """Whether the product of these arrays goes through cuBLASLt."""
    return backend_of(a).name == "cupy" and a.size > 0 and b.size > 0 and cublaslt.is_available()


def matmul(a: Array, b: Array, out: Array | None = None, precision: str | None = None) -> Array:
    """a·b with NumPy's rules for vectors and batches; into ``out`` if given.

    ``precision`` of float32 as in ``set_float32_matmul_precision``, which holds where it is None. "highest" is for sums
    written as products: rounding their terms to TF32 is nothing that anybody asked for.
    """
    xp = xp_of(a)
    if not by_cublaslt(a, b):
        return xp.matmul(a, b, out=out)
    if a.ndim == 1 or b.ndim == 1:  # a row on the left, a column on the right
        y = matmul(a[None, :] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b, precision=precision)
        y = y[..., 0] if b.ndim == 1 else y
        y = y[..., 0, :] if a.ndim == 1 and b.ndim > 1 else y[..., 0] if a.ndim == 1 else y
    else:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        y = out if out is not None and out.flags.c_contiguous else None
        if y is None:
            y = xp.empty((*batch, a.shape[-2], b.shape[-1]), dtype=a.dtype)
        left, right, flat = a, b, y
        if batch:
            left, right, flat = _one_batch(a, batch), _one_batch(b, batch), y.reshape(-1, *y.shape[-2:])
        if not product(left, right, flat, precision=precision):
            xp.matmul(a, b, out=y)
    if out is not None and y is not out:
        out[...] = y
        return out
    return y


def product(
    a: Array,
    b: Array,
    out: Array,
    *,
    trans_a: bool = False,
    trans_b: bool = False,
    epilogue: str = "DEFAULT",
    vector: Array | None = None,
    precision: str | None = None,
) -> bool:
    """One call of :func:`kobai.cuda.cublaslt.matmul`; operands that it cannot read in place are copied first."""
    options: dict[str, Any] = {"trans_a": trans_a, "trans_b": trans_b}
    options |= {"epilogue": epilogue, "vector": vector, "precision": precision}
    if cublaslt.matmul(a, b, out, **options):
        return True
    if cublaslt.layout(a) is not None and cublaslt.layout(b) is not None:
        return False
    xp = xp_of(a)
    return cublaslt.matmul(xp.ascontiguousarray(a), xp.ascontiguousarray(b), out, **options)


def _one_batch(array: Array, batch: tuple[int, ...]) -> Array:
    """The array with its batch dimensions as one, repeated to ``batch``: a view where memory permits (a stride may be 0)."""
    wide = xp_of(array).broadcast_to(array, (*batch, *array.shape[-2:]))
    return wide.reshape(math.prod(batch), *array.shape[-2:])
