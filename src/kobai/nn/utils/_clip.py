"""Kernels for clipping gradients by norm: the sum of squares of many arrays, and all of them times one number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from kobai.engine import dispatch
from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel
from kobai.formula.cuda_code import TABLE_BYTES, address_table
from kobai.formula.elementwise import elementwise
from kobai.formula.many import Many
from kobai.xp import Array, xp_of


@elementwise
def scaled(g: Any, *, factor: Any) -> Any:
    """g ← factor·g"""
    g = factor * g
    return g


def scale(arrays: Sequence[Array], factor: Array) -> None:
    """Multiply all arrays, of one library and dtype, by ``factor``, a 1-D array of one number; 1 does nothing on the host."""
    dispatch.launch(_Scale(len(arrays)), *arrays, factor)


class _Scale(Many):
    def __init__(self, count: int) -> None:
        super().__init__(scaled, count)

    def __call__(self, *arrays_and_factor: Any) -> None:
        factor = arrays_and_factor[-1]
        if type(factor) is not np.ndarray or factor[0] != 1:
            super().__call__(*arrays_and_factor)

    def bind(self, *arrays_and_factor: Any) -> Callable[[], None]:
        bound, factor = super().bind(*arrays_and_factor), arrays_and_factor[-1]

        def run() -> None:
            if type(factor) is not np.ndarray or factor[0] != 1:
                bound()

        return run


def sum_of_squares(arrays: Sequence[Array]) -> Array:
    """Σ g² over all elements of all arrays, which are of one library and dtype; a scalar array."""
    xp, first = xp_of(arrays[0]), arrays[0]
    if type(first) in dispatch.HOST_TYPES:
        total = xp.empty((), np.float64)
        dispatch.launch(_dot_products, *arrays, total)
        return total
    if dispatch.engine_for(arrays, halves=True):
        sums = xp.empty((len(arrays), CUDA_BLOCKS), first.dtype if first.dtype.itemsize > 2 else np.float32)
        for start in range(0, len(arrays), TENSORS):
            some = arrays[start : start + TENSORS]
            args = address_table(TABLE, [some]), sums[start : start + TENSORS]
            dispatch.launch(SQUARES.of(first.dtype), (CUDA_BLOCKS, len(some)), args)
        return sums.sum()
    return reduce(add, [xp.vdot(g, g) for g in arrays])


def _dot_products(*arrays_and_total: Array) -> None:
    """BLAS is as fast as a compiled loop over all arrays, and sums large ones in several lanes."""
    *arrays, total = arrays_and_total
    total[...] = sum(float(np.vdot(g, g)) for g in arrays)


CUDA_BLOCKS = 32
TENSORS = TABLE_BYTES // 16
TABLE = np.dtype([("at", np.uint64, (1, TENSORS)), ("size", np.int64, (TENSORS,))])
TABLE_IN_C = f"struct Table {{ T* at[1][{TENSORS}]; long long size[{TENSORS}]; }};"


SQUARES = CudaKernel(
    "sum_of_squares",
    "Table table, A* sums",
    """
    const T* x = table.at[0][blockIdx.y];
    A total = 0;
    EACH(i, table.size[blockIdx.y]) total += (A)x[i] * (A)x[i];
    total = block_sum(total);
    if (threadIdx.x == 0) sums[blockIdx.y * (long long)gridDim.x + blockIdx.x] = total;
    """,
    prelude=TABLE_IN_C,
    dtypes=EVERY_FLOAT,
    structs={"Table": TABLE},
)
