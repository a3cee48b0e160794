"""Matrix products: the one place through which dense layers reach BLAS."""

from __future__ import annotations

from kobai.xp import Array, xp_of


def gemm(a: Array, b: Array, *, trans_a: bool = False, trans_b: bool = False, out: Array | None = None) -> Array:
    """op(a) · op(b) for matrices, op transposing where asked; into ``out`` if given.

    A transposed operand is passed as a view: BLAS reads it in place, nothing is copied.
    """
    left = a.T if trans_a else a
    right = b.T if trans_b else b
    return xp_of(a).matmul(left, right, out=out)
