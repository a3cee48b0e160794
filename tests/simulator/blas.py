"""cuBLAS by NumPy. Matrices lie column by column, as in Fortran; alpha and beta are on the host or on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from simulator import lapack
from simulator.capi import Long, Pointer
from simulator.device import INVALID_VALUE, CudaError, Machine
from simulator.libraries import Library, get, put

CUDA_DTYPES = {0: "float32", 1: "float64", 2: "float16", 3: "int8", 10: "int32", 14: bfloat16}
"""By the numbers of ``cudaDataType``."""

CUDA_NUMBERS = {"float32": 0, "float64": 1}


def op(matrix: np.ndarray, how: int) -> np.ndarray:
    """The matrix itself, or with ``cublasOperation_t`` 1 and 2 its transpose, which for real numbers are the same."""
    return matrix if how == 0 else matrix.swapaxes(-1, -2)


def functions(machine: Machine) -> dict[str, Callable[..., int]]:
    """What ``libcublas`` offers, by name."""
    library = Library(machine, invalid=7, failed=13)
    offers = library.offers

    # --- handles

    offers("cublasCreate_v2")(library.create)
    offers("cublasDestroy_v2")(library.destroy)
    offers("cublasSetStream_v2")(library.set_stream)
    offers("cublasGetStream_v2")(library.get_stream)

    @offers("cublasSetPointerMode_v2")
    def set_pointer_mode(handle: Pointer, mode: int) -> None:
        library.handle(handle).scalars_on_device = mode == 1

    @offers("cublasGetPointerMode_v2")
    def get_pointer_mode(handle: Pointer, to: Pointer) -> None:
        put(to, np.int32, library.handle(handle).scalars_on_device)

    @offers("cublasSetMathMode")
    def set_math_mode(handle: Pointer, mode: int) -> None:
        library.handle(handle).math_mode = mode

    @offers("cublasGetMathMode")
    def get_math_mode(handle: Pointer, to: Pointer) -> None:
        put(to, np.int32, library.handle(handle).math_mode)

    @offers("cublasGetVersion_v2")
    def get_version(handle: Pointer, to: Pointer) -> None:
        put(to, np.int32, 120900)

    # --- products

    Operand = tuple[int, int, int]  # address, cudaDataType, leading dimension

    def product(
        handle: Pointer, batch: int, how: tuple[int, int], sizes: tuple[int, int, int], factors: tuple[int, int],
        operands: tuple[Operand, Operand, Operand], compute: str, steps: tuple[int, int, int] | None = (0, 0, 0),
    ) -> None:  # fmt: skip
        """C ← α op(A) op(B) + β C for each of a batch: ``steps`` elements apart, or with None addresses on the device."""
        m, n, k = sizes
        shapes = ((m, k) if how[0] == 0 else (k, m), (k, n) if how[1] == 0 else (n, k), (m, n))
        alpha, beta = (library.factor(handle, address, compute) for address in factors)

        def matrices(i: int) -> Callable[[], Iterable[np.ndarray]]:
            (address, dtype, ld), (rows, cols) = operands[i], shapes[i]
            if steps is None:
                return library.pointed(handle, address, CUDA_DTYPES[dtype], batch, rows, cols, ld)
            return library.batch(handle, address, CUDA_DTYPES[dtype], batch, rows, cols, ld, steps[i])

        a, b, c = map(matrices, range(3))

        def wide(matrix: np.ndarray) -> np.ndarray:
            return matrix.astype(compute, copy=False)

        def do() -> None:
            for x, y, z in zip(a(), b(), c(), strict=True):
                made = alpha() * (op(wide(x), how[0]) @ op(wide(y), how[1]))
                if beta() != 0:
                    made = made + beta() * wide(z)
                z[...] = made

        library.ask(handle, do)

    def compute_of(number: int) -> str:
        """The type in which a product is added up; ``number`` is a ``cublasComputeType_t``."""
        return {64: "float16", 65: "float16", 70: "float64", 71: "float64", 1: "float64"}.get(number, "float32")

    @offers("cublas{T}gemm_v2")
    def gemm(
        dtype: str, handle: Pointer, ta: int, tb: int, m: int, n: int, k: int, alpha: Pointer, a: Pointer, lda: int,
        b: Pointer, ldb: int, beta: Pointer, c: Pointer, ldc: int,
    ) -> None:  # fmt: skip
        d = CUDA_NUMBERS[dtype]
        product(handle, 1, (ta, tb), (m, n, k), (alpha, beta), ((a, d, lda), (b, d, ldb), (c, d, ldc)), dtype)

    @offers("cublas{T}gemmStridedBatched")
    def gemm_strided(
        dtype: str, handle: Pointer, ta: int, tb: int, m: int, n: int, k: int, alpha: Pointer, a: Pointer, lda: int,
        sa: Long, b: Pointer, ldb: int, sb: Long, beta: Pointer, c: Pointer, ldc: int, sc: Long, batch: int,
    ) -> None:  # fmt: skip
        d, steps = CUDA_NUMBERS[dtype], (sa, sb, sc)
        operands = ((a, d, lda), (b, d, ldb), (c, d, ldc))
        product(handle, batch, (ta, tb), (m, n, k), (alpha, beta), operands, dtype, steps)

    @offers("cublas{T}gemmBatched")
    def gemm_batched(
        dtype: str, handle: Pointer, ta: int, tb: int, m: int, n: int, k: int, alpha: Pointer, a: Pointer, lda: int,
        b: Pointer, ldb: int, beta: Pointer, c: Pointer, ldc: int, batch: int,
    ) -> None:  # fmt: skip
        d = CUDA_NUMBERS[dtype]
        operands = ((a, d, lda), (b, d, ldb), (c, d, ldc))
        product(handle, batch, (ta, tb), (m, n, k), (alpha, beta), operands, dtype, None)

    @offers("cublasSgemmEx")
    def sgemm_ex(
        handle: Pointer, ta: int, tb: int, m: int, n: int, k: int, alpha: Pointer, a: Pointer, da: int, lda: int,
        b: Pointer, db: int, ldb: int, beta: Pointer, c: Pointer, dc: int, ldc: int,
    ) -> None:  # fmt: skip
        product(handle, 1, (ta, tb), (m, n, k), (alpha, beta), ((a, da, lda), (b, db, ldb), (c, dc, ldc)), "float32")

    @offers("cublasGemmEx")
    def gemm_ex(
        handle: Pointer, ta: int, tb: int, m: int, n: int, k: int, alpha: Pointer, a: Pointer, da: int, lda: int,
        b: Pointer, db: int, ldb: int, beta: Pointer, c: Pointer, dc: int, ldc: int, compute: int, algorithm: int,
    ) -> None:  # fmt: skip
        operands = ((a, da, lda), (b, db, ldb), (c, dc, ldc))
        product(handle, 1, (ta, tb), (m, n, k), (alpha, beta), operands, compute_of(compute))

    @offers("cublasGemmStridedBatchedEx")
    def gemm_strided_ex(
        handle: Pointer, ta: int, tb: int, m: int, n: int, k: int, alpha: Pointer, a: Pointer, da: int, lda: int,
        sa: Long, b: Pointer, db: int, ldb: int, sb: Long, beta: Pointer, c: Pointer, dc: int, ldc: int, sc: Long,
        batch: int, compute: int, algorithm: int,
    ) -> None:  # fmt: skip
        operands = ((a, da, lda), (b, db, ldb), (c, dc, ldc))
        product(
            handle, batch, (ta, tb), (m, n, k), (alpha, beta), operands, compute_of(compute), (sa, sb, sc)
        )  # fmt: skip

    def vector(handle: Pointer, address: int, dtype: Any, n: int, step: int) -> Callable[[], np.ndarray]:
        if step < 1:
            raise CudaError(INVALID_VALUE, f"elements of a vector {step} apart")
        return library.array(handle, address, dtype, (n,), (step,))

    @offers("cublas{T}gemv_v2")
    def gemv(
        dtype: str, handle: Pointer, how: int, m: int, n: int, alpha: Pointer, a: Pointer, lda: int, x: Pointer,
        step_x: int, beta: Pointer, y: Pointer, step_y: int,
    ) -> None:  # fmt: skip
        matrix = library.matrix(handle, a, dtype, m, n, lda)
        left = vector(handle, x, dtype, n if how == 0 else m, step_x)
        out = vector(handle, y, dtype, m if how == 0 else n, step_y)
        alpha_of, beta_of = (library.factor(handle, address, dtype) for address in (alpha, beta))

        def do() -> None:
            made = alpha_of() * (op(matrix(), how) @ left())
            out()[...] = made + beta_of() * out() if beta_of() != 0 else made

        library.ask(handle, do)

    @offers("cublas{T}dot_v2")
    def dot(dtype: str, handle: Pointer, n: int, x: Pointer, step_x: int, y: Pointer, step_y: int, to: Pointer) -> None:
        left, right = vector(handle, x, dtype, n, step_x), vector(handle, y, dtype, n, step_y)
        if library.handle(handle).scalars_on_device:
            out = library.array(handle, to, dtype, (1,))

            def do() -> None:
                out()[0] = left() @ right()

            library.ask(handle, do)
        else:
            get(to, dtype)
            library.ask(handle, lambda: put(to, dtype, left() @ right()))
            machine.finish_stream(library.stream(handle))

    @offers("cublas{T}ger_v2")
    def ger(
        dtype: str, handle: Pointer, m: int, n: int, alpha: Pointer, x: Pointer, step_x: int, y: Pointer, step_y: int,
        a: Pointer, lda: int,
    ) -> None:  # fmt: skip
        left, right = vector(handle, x, dtype, m, step_x), vector(handle, y, dtype, n, step_y)
        matrix, factor = library.matrix(handle, a, dtype, m, n, lda), library.factor(handle, alpha, dtype)

        def do() -> None:
            matrix()[...] += factor() * np.outer(left(), right())

        library.ask(handle, do)

    @offers("cublas{T}geam")
    def geam(
        dtype: str, handle: Pointer, ta: int, tb: int, m: int, n: int, alpha: Pointer, a: Pointer, lda: int,
        beta: Pointer, b: Pointer, ldb: int, c: Pointer, ldc: int,
    ) -> None:  # fmt: skip
        """C ← α op(A) + β op(B); with β = 0 on the host B may be anything."""
        alpha_of, beta_of = (library.factor(handle, address, dtype) for address in (alpha, beta))
        left = library.matrix(handle, a, dtype, *((m, n) if ta == 0 else (n, m)), lda)
        without = not library.handle(handle).scalars_on_device and beta_of() == 0
        right = left if without else library.matrix(handle, b, dtype, *((m, n) if tb == 0 else (n, m)), ldb)
        out = library.matrix(handle, c, dtype, m, n, ldc)

        def do() -> None:
            made = alpha_of() * op(left(), ta)
            out()[...] = made if without else made + beta_of() * op(right(), tb)

        library.ask(handle, do)

    @offers("cublas{T}dgmm")
    def dgmm(
        dtype: str, handle: Pointer, side: int, m: int, n: int, a: Pointer, lda: int, x: Pointer, step: int,
        c: Pointer, ldc: int,
    ) -> None:  # fmt: skip
        matrix, out = library.matrix(handle, a, dtype, m, n, lda), library.matrix(handle, c, dtype, m, n, ldc)
        diagonal = vector(handle, x, dtype, m if side == 0 else n, step)

        def do() -> None:
            out()[...] = matrix() * (diagonal()[:, None] if side == 0 else diagonal())

        library.ask(handle, do)

    # --- systems of equations, one for each of a batch of addresses on the device

    @offers("cublas{T}getrfBatched")
    def getrf(
        dtype: str, handle: Pointer, n: int, a: Pointer, lda: int, pivots: Pointer, info: Pointer, batch: int
    ) -> None:
        matrices = library.pointed(handle, a, dtype, batch, n, n, lda)
        swapped, said = (
            library.array(handle, pivots, np.int32, (batch, n)),
            library.array(handle, info, np.int32, (batch,)),
        )

        def do() -> None:
            for i, matrix in enumerate(matrices()):
                said()[i] = lapack.getrf(matrix, swapped()[i])

        library.ask(handle, do)

    @offers("cublas{T}getrsBatched")
    def getrs(
        dtype: str, handle: Pointer, how: int, n: int, nrhs: int, a: Pointer, lda: int, pivots: Pointer, b: Pointer,
        ldb: int, info: Pointer, batch: int,
    ) -> None:  # fmt: skip
        """``info`` is of the host, and only says which argument is wrong."""
        matrices = library.pointed(handle, a, dtype, batch, n, n, lda)
        right = library.pointed(handle, b, dtype, batch, n, nrhs, ldb)
        swapped = library.array(handle, pivots, np.int32, (batch, n))
        put(info, np.int32, 0)

        def do() -> None:
            for matrix, order, x in zip(matrices(), swapped(), right(), strict=True):
                lapack.getrs(matrix, order, x, how)

        library.ask(handle, do)

    @offers("cublas{T}getriBatched")
    def getri(
        dtype: str, handle: Pointer, n: int, a: Pointer, lda: int, pivots: Pointer, c: Pointer, ldc: int,
        info: Pointer, batch: int,
    ) -> None:  # fmt: skip
        matrices = library.pointed(handle, a, dtype, batch, n, n, lda)
        inverses = library.pointed(handle, c, dtype, batch, n, n, ldc)
        swapped, said = (
            library.array(handle, pivots, np.int32, (batch, n)),
            library.array(handle, info, np.int32, (batch,)),
        )

        def do() -> None:
            for i, (matrix, out) in enumerate(zip(matrices(), inverses(), strict=True)):
                out[...] = np.eye(n)
                lapack.getrs(matrix, swapped()[i], out, 0)
                said()[i] = lapack.singular_at(matrix)

        library.ask(handle, do)

    return library.functions
