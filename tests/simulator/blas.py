"""cuBLAS by NumPy. Matrices lie column by column, as in Fortran; alpha and beta are on the host or on the device."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from simulator.device import Machine

DTYPES = {"s": "float32", "d": "float64", "c": "complex64", "z": "complex128"}
CUDA_DTYPES = {0: "float32", 1: "float64", 2: "float16", 4: "complex64", 5: "complex128", 3: "int8", 10: "int32"}
"""By the numbers of ``cudaDataType``. bfloat16, 14, is widened by hand."""

BFLOAT16 = 14


def view(
    machine: Machine, address: int, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...] | None = None
) -> np.ndarray:
    """Device memory as an array; strides in elements. An error where it leaves its block."""
    dtype = np.dtype(dtype)
    if strides is None:
        strides = tuple(np.cumprod((1, *shape[:0:-1]))[::-1].tolist())
    if 0 in shape:
        return np.empty(shape, dtype)
    extent = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    machine.memory.need(address, extent * dtype.itemsize, "a library call")
    flat = np.frombuffer((ctypes.c_char * (extent * dtype.itemsize)).from_address(address), dtype)
    return np.lib.stride_tricks.as_strided(flat, shape, [s * dtype.itemsize for s in strides])


def columns(machine: Machine, address: int, dtype: Any, rows: int, cols: int, ld: int) -> np.ndarray:
    """A matrix that lies column by column, ``ld`` elements apart."""
    return view(machine, address, dtype, (rows, cols), (1, ld))


def widened(array: np.ndarray) -> np.ndarray:
    """The 16 bits of bfloat16 numbers as float32."""
    return (array.astype(np.uint32) << 16).view(np.float32)


def narrowed(array: np.ndarray) -> np.ndarray:
    """float32 as the 16 bits of bfloat16, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return np.where(np.isnan(array), 0x7FFF, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def functions(machine: Machine, module: ModuleType) -> dict[str, Callable[..., Any]]:
    """What ``cupy_backends.cuda.libs.cublas`` offers, by name."""
    import cupy

    pointer_mode = {0: 0}

    def scalar(address: int, dtype: str) -> Callable[[], Any]:
        """A factor, read now if it is on the host, else when the work is done."""
        read = partial(np.frombuffer, dtype=dtype)
        make = lambda: read((ctypes.c_char * np.dtype(dtype).itemsize).from_address(address))[0]  # noqa: E731
        block = machine.memory.find(address)
        if block is not None and block.device >= 0:
            return make
        value = make()
        return lambda: value

    def ask(do: Callable[[], None]) -> None:
        machine.ask(machine.stream(cupy.cuda.get_current_stream().ptr), do)

    def op(matrix: np.ndarray, how: int) -> np.ndarray:
        return matrix if how == 0 else matrix.swapaxes(-1, -2) if how == 1 else matrix.swapaxes(-1, -2).conj()

    def product(
        batch: int, how_a: int, how_b: int, m: int, n: int, k: int, alpha: int, beta: int,
        a: tuple[int, Any, int, int], b: tuple[int, Any, int, int], c: tuple[int, Any, int, int], compute: str,
    ) -> None:  # fmt: skip
        """C ← α op(A) op(B) + β C for each of a batch; a, b and c are (address, type, leading dimension, stride)."""
        factors = scalar(alpha, compute), scalar(beta, compute)

        def matrices(of: tuple[int, Any, int, int], rows: int, cols: int) -> np.ndarray:
            address, dtype, ld, stride = of
            return view(
                machine,
                address,
                np.uint16 if dtype == BFLOAT16 else CUDA_DTYPES[dtype],
                (batch, rows, cols),
                (stride, 1, ld),
            )

        def do() -> None:
            x = matrices(a, *((m, k) if how_a == 0 else (k, m)))
            y = matrices(b, *((k, n) if how_b == 0 else (n, k)))
            z = matrices(c, m, n)
            x, y = (widened(v) if of[1] == BFLOAT16 else v.astype(compute) for v, of in ((x, a), (y, b)))
            made = factors[0]() * (op(x, how_a) @ op(y, how_b))
            if factors[1]() != 0:
                made = made + factors[1]() * (widened(z) if c[1] == BFLOAT16 else z)
            z[...] = narrowed(made) if c[1] == BFLOAT16 else made

        ask(do)

    table: dict[str, Callable[..., Any]] = {
        "create": lambda: 1,
        "destroy": lambda handle: None,
        "setStream": lambda handle, stream: None,
        "setPointerMode": lambda handle, mode: pointer_mode.update({0: mode}),
        "getPointerMode": lambda handle: pointer_mode[0],
        "setMathMode": lambda handle, mode: None,
        "getMathMode": lambda handle: 0,
        "getVersion": lambda handle: 120900,
        "setWorkspace": lambda *_: None,
    }
    types = {"s": 0, "d": 1, "c": 4, "z": 5}

    def gemm(t: str, handle, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        d = types[t]
        product(1, ta, tb, m, n, k, alpha, beta, (a, d, lda, 0), (b, d, ldb, 0), (c, d, ldc, 0), DTYPES[t])

    def strided(t: str, handle, ta, tb, m, n, k, alpha, a, lda, sa, b, ldb, sb, beta, c, ldc, sc, batch):
        d = types[t]
        product(batch, ta, tb, m, n, k, alpha, beta, (a, d, lda, sa), (b, d, ldb, sb), (c, d, ldc, sc), DTYPES[t])

    def compute_of(number: int, dtype: int) -> str:
        """The type in which a product of elements of ``dtype`` is added up; ``number`` is a ``cublasComputeType``."""
        if dtype in (4, 5):
            return CUDA_DTYPES[dtype]
        return {64: "float16", 65: "float16", 70: "float64", 71: "float64", 1: "float64"}.get(number, "float32")

    def gemmEx(handle, ta, tb, m, n, k, alpha, a, da, lda, b, db, ldb, beta, c, dc, ldc, compute, algorithm):
        product(
            1, ta, tb, m, n, k, alpha, beta, (a, da, lda, 0), (b, db, ldb, 0), (c, dc, ldc, 0),
            compute_of(compute, da),
        )  # fmt: skip

    def gemmStridedBatchedEx(
        handle, ta, tb, m, n, k, alpha, a, da, lda, sa, b, db, ldb, sb, beta, c, dc, ldc, sc, batch, compute, algorithm
    ):
        product(
            batch, ta, tb, m, n, k, alpha, beta, (a, da, lda, sa), (b, db, ldb, sb), (c, dc, ldc, sc),
            compute_of(compute, da),
        )  # fmt: skip

    def sgemmEx(handle, ta, tb, m, n, k, alpha, a, da, lda, b, db, ldb, beta, c, dc, ldc):
        product(1, ta, tb, m, n, k, alpha, beta, (a, da, lda, 0), (b, db, ldb, 0), (c, dc, ldc, 0), "float32")

    def gemv(t: str, handle, how, m, n, alpha, a, lda, x, incx, beta, y, incy):
        factors = scalar(alpha, DTYPES[t]), scalar(beta, DTYPES[t])

        def do():
            matrix = op(columns(machine, a, DTYPES[t], m, n, lda), how)
            left = view(machine, x, DTYPES[t], (matrix.shape[1],), (incx,))
            out = view(machine, y, DTYPES[t], (matrix.shape[0],), (incy,))
            made = factors[0]() * (matrix @ left)
            out[...] = made + factors[1]() * out if factors[1]() != 0 else made

        ask(do)

    def dot(t: str, conjugate: bool, handle, n, x, incx, y, incy, result):
        def do():
            left, right = view(machine, x, DTYPES[t], (n,), (incx,)), view(machine, y, DTYPES[t], (n,), (incy,))
            np.frombuffer((ctypes.c_char * np.dtype(DTYPES[t]).itemsize).from_address(result), DTYPES[t])[...] = np.dot(
                left.conj() if conjugate else left, right
            )

        ask(do)
        block = machine.memory.find(result)
        if block is None or block.device < 0:
            machine.finish_stream(machine.stream(cupy.cuda.get_current_stream().ptr))

    def ger(t: str, handle, m, n, alpha, x, incx, y, incy, a, lda):
        factor = scalar(alpha, DTYPES[t])

        def do():
            left, right = view(machine, x, DTYPES[t], (m,), (incx,)), view(machine, y, DTYPES[t], (n,), (incy,))
            columns(machine, a, DTYPES[t], m, n, lda)[...] += factor() * np.outer(left, right)

        ask(do)

    def geam(t: str, handle, ta, tb, m, n, alpha, a, lda, beta, b, ldb, c, ldc):
        factors = scalar(alpha, DTYPES[t]), scalar(beta, DTYPES[t])

        def do():
            x = op(columns(machine, a, DTYPES[t], *((m, n) if ta == 0 else (n, m)), lda), ta)
            made = factors[0]() * x
            if factors[1]() != 0:
                made = made + factors[1]() * op(
                    columns(machine, b, DTYPES[t], *((m, n) if tb == 0 else (n, m)), ldb), tb
                )
            columns(machine, c, DTYPES[t], m, n, ldc)[...] = made

        ask(do)

    def dgmm(t: str, handle, side, m, n, a, lda, x, incx, c, ldc):
        def do():
            matrix = columns(machine, a, DTYPES[t], m, n, lda)
            diagonal = view(machine, x, DTYPES[t], (m if side == 0 else n,), (incx,))
            columns(machine, c, DTYPES[t], m, n, ldc)[...] = matrix * (diagonal[:, None] if side == 0 else diagonal)

        ask(do)

    def trsm(t: str, handle, side, uplo, trans, diag, m, n, alpha, a, lda, b, ldb):
        factor = scalar(alpha, DTYPES[t])

        def do():
            size = m if side == 0 else n
            full = columns(machine, a, DTYPES[t], size, size, lda)
            matrix = np.tril(full) if uplo == 0 else np.triu(full)
            if diag == 1:
                matrix = matrix - np.diag(np.diag(matrix)) + np.eye(size, dtype=DTYPES[t])
            right = columns(machine, b, DTYPES[t], m, n, ldb)
            matrix = op(matrix, trans)
            solved = (
                np.linalg.solve(matrix, factor() * right)
                if side == 0
                else np.linalg.solve(matrix.T, factor() * right.T).T
            )
            right[...] = solved

        ask(do)

    for t in DTYPES:
        for made in (gemm, gemv, geam, dgmm, trsm):
            table[t + made.__name__] = partial(made, t)
        table[t + "gemmStridedBatched"] = partial(strided, t)
    for t in "sd":
        table[t + "dot"], table[t + "ger"] = partial(dot, t, False), partial(ger, t)
    table |= {"gemmEx": gemmEx, "gemmStridedBatchedEx": gemmStridedBatchedEx, "sgemmEx": sgemmEx}
    return table
