"""cuSOLVER by LAPACK through NumPy: LU, Cholesky, QR, singular values and eigenvalues of symmetric matrices.

What went wrong is said in ``info``, on the device. What a decomposition destroys is as if it had never been written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from simulator import lapack
from simulator.capi import Long, Pointer
from simulator.device import INVALID_VALUE, CudaError, Machine
from simulator.libraries import Library, leading, put

BLOCK = 32
"""Columns of which the workspaces are that are asked for."""


def functions(machine: Machine) -> dict[str, Callable[..., int]]:
    """What ``libcusolver`` offers, by name."""
    library = Library(machine, invalid=3, failed=6)
    offers = library.offers

    # --- handles, and settings that nobody changes

    offers("cusolverDnCreate")(library.create)
    offers("cusolverDnDestroy")(library.destroy)
    offers("cusolverDnSetStream")(library.set_stream)
    offers("cusolverDnGetStream")(library.get_stream)

    @offers("cusolverGetProperty")
    def get_property(which: int, to: Pointer) -> None:
        put(to, np.int32, (11, 7, 5)[which])

    class Settings:
        pass

    def create(to: Pointer) -> None:
        put(to, np.uint64, machine.handle(Settings()))

    def destroy(settings: Pointer) -> None:
        machine.of(settings, Settings)
        del machine.handles[settings]

    for name in ("Params", "GesvdjInfo", "SyevjInfo"):
        offers("cusolverDnCreate" + name)(create)
        offers("cusolverDnDestroy" + name)(destroy)

    # --- arguments

    def number(handle: Pointer, address: Pointer, count: int = 1) -> Callable[[], np.ndarray]:
        return library.array(handle, address, np.int32, (count,))

    def workspace(handle: Pointer, address: Pointer, dtype: Any, size: int, needed: int) -> Callable[[], None]:
        if size < needed:
            raise CudaError(INVALID_VALUE, f"a workspace of {size} elements, {needed} are needed")
        return library.used_up(handle, address, dtype, needed)

    def ask(handle: Pointer, do: Callable[[], None], used_up: Callable[[], None]) -> None:
        library.ask(handle, lambda: (do(), used_up()))  # type: ignore[arg-type]

    # --- LU

    @offers("cusolverDn{T}getrf_bufferSize")
    def getrf_size(dtype: str, handle: Pointer, m: int, n: int, a: Pointer, lda: int, size: Pointer) -> None:
        leading(m, lda)
        put(size, np.int32, BLOCK * n)

    @offers("cusolverDn{T}getrf")
    def getrf(
        dtype: str, handle: Pointer, m: int, n: int, a: Pointer, lda: int, work: Pointer, pivots: Pointer, info: Pointer
    ) -> None:
        matrix, said = library.matrix(handle, a, dtype, m, n, lda), number(handle, info)
        order = number(handle, pivots, min(m, n))

        def do() -> None:
            said()[0] = lapack.getrf(matrix(), order())

        ask(handle, do, library.used_up(handle, work, dtype, BLOCK * n))

    @offers("cusolverDn{T}getrs")
    def getrs(
        dtype: str, handle: Pointer, how: int, n: int, nrhs: int, a: Pointer, lda: int, pivots: Pointer, b: Pointer,
        ldb: int, info: Pointer,
    ) -> None:  # fmt: skip
        matrix, right = library.matrix(handle, a, dtype, n, n, lda), library.matrix(handle, b, dtype, n, nrhs, ldb)
        order, said = number(handle, pivots, n), number(handle, info)

        def do() -> None:
            lapack.getrs(matrix(), order(), right(), how)
            said()[0] = 0

        library.ask(handle, do)

    # --- Cholesky

    @offers("cusolverDn{T}potrf_bufferSize")
    def potrf_size(dtype: str, handle: Pointer, uplo: int, n: int, a: Pointer, lda: int, size: Pointer) -> None:
        leading(n, lda)
        put(size, np.int32, BLOCK * n)

    @offers("cusolverDn{T}potrf")
    def potrf(
        dtype: str, handle: Pointer, uplo: int, n: int, a: Pointer, lda: int, work: Pointer, size: int, info: Pointer
    ) -> None:
        matrix, said = library.matrix(handle, a, dtype, n, n, lda), number(handle, info)

        def do() -> None:
            said()[0] = lapack.potrf(matrix(), upper=uplo == 1)

        ask(handle, do, workspace(handle, work, dtype, size, BLOCK * n))

    @offers("cusolverDn{T}potrfBatched")
    def potrf_batched(
        dtype: str, handle: Pointer, uplo: int, n: int, a: Pointer, lda: int, info: Pointer, batch: int
    ) -> None:
        matrices, said = library.pointed(handle, a, dtype, batch, n, n, lda), number(handle, info, batch)

        def do() -> None:
            said()[...] = [lapack.potrf(matrix, upper=uplo == 1) for matrix in matrices()]

        library.ask(handle, do)

    # --- QR

    @offers("cusolverDn{T}geqrf_bufferSize")
    def geqrf_size(dtype: str, handle: Pointer, m: int, n: int, a: Pointer, lda: int, size: Pointer) -> None:
        put(size, np.int32, BLOCK * n)

    @offers("cusolverDn{T}geqrf")
    def geqrf(
        dtype: str, handle: Pointer, m: int, n: int, a: Pointer, lda: int, tau: Pointer, work: Pointer, size: int,
        info: Pointer,
    ) -> None:  # fmt: skip
        matrix, said = library.matrix(handle, a, dtype, m, n, lda), number(handle, info)
        factors = library.array(handle, tau, dtype, (min(m, n),))

        def do() -> None:
            lapack.geqrf(matrix(), factors())
            said()[0] = 0

        ask(handle, do, workspace(handle, work, dtype, size, BLOCK * n))

    @offers("cusolverDn{T}orgqr_bufferSize")
    def orgqr_size(
        dtype: str, handle: Pointer, m: int, n: int, k: int, a: Pointer, lda: int, tau: Pointer, size: Pointer
    ) -> None:
        leading(m, lda)
        put(size, np.int32, BLOCK * n)

    @offers("cusolverDn{T}orgqr")
    def orgqr(
        dtype: str, handle: Pointer, m: int, n: int, k: int, a: Pointer, lda: int, tau: Pointer, work: Pointer,
        size: int, info: Pointer,
    ) -> None:  # fmt: skip
        if not m >= n >= k >= 0:
            raise CudaError(INVALID_VALUE, f"orgqr: {k} reflections, {n} columns, {m} rows")
        matrix, said = library.matrix(handle, a, dtype, m, n, lda), number(handle, info)
        factors = library.array(handle, tau, dtype, (k,))

        def do() -> None:
            lapack.orgqr(matrix(), factors())
            said()[0] = 0

        ask(handle, do, workspace(handle, work, dtype, size, BLOCK * n))

    # --- singular values

    @offers("cusolverDn{T}gesvd_bufferSize")
    def gesvd_size(dtype: str, handle: Pointer, m: int, n: int, size: Pointer) -> None:
        if m < n:
            raise CudaError(INVALID_VALUE, f"gesvd: {m} rows, fewer than {n} columns")
        put(size, np.int32, BLOCK * (m + n))

    @offers("cusolverDn{T}gesvd")
    def gesvd(
        dtype: str, handle: Pointer, job_u: int, job_vt: int, m: int, n: int, a: Pointer, lda: int, s: Pointer,
        u: Pointer, ldu: int, vt: Pointer, ldvt: int, work: Pointer, size: int, rwork: Pointer, info: Pointer,
    ) -> None:  # fmt: skip
        """A = U S Vᵀ. Of U and Vᵀ 'A' wants all columns and rows, 'S' the first, 'O' those in place of A, 'N' none."""
        jobs = chr(job_u & 0xFF) + chr(job_vt & 0xFF)
        if m < n or jobs == "OO" or not set(jobs) <= set("ASON"):
            raise CudaError(INVALID_VALUE, f"gesvd: {m} rows, {n} columns, jobs {jobs!r}")
        matrix = library.matrix(handle, a, dtype, m, n, lda)
        values, said = library.array(handle, s, dtype, (n,)), number(handle, info)
        cols = m if jobs[0] == "A" else n
        left = library.matrix(handle, u, dtype, m, cols, ldu) if jobs[0] in "AS" else None
        right = library.matrix(handle, vt, dtype, n, n, ldvt) if jobs[1] in "AS" else None

        def do() -> None:
            made = svd(matrix(), full=jobs[0] == "A")
            said()[0] = made is None
            here = matrix()
            x, y, z = made or (np.full((m, cols), np.nan), np.nan, np.full((n, n), np.nan))
            here[...] = np.nan
            values()[...] = y
            if left is not None:
                left()[...] = x
            if right is not None:
                right()[...] = z
            if jobs[0] == "O":
                here[...] = x
            if jobs[1] == "O":
                here[:n] = z

        ask(handle, do, workspace(handle, work, dtype, size, BLOCK * (m + n)))

    @offers("cusolverDn{T}gesvdjBatched_bufferSize")
    def gesvdj_size(
        dtype: str, handle: Pointer, job: int, m: int, n: int, a: Pointer, lda: int, s: Pointer, u: Pointer, ldu: int,
        v: Pointer, ldv: int, size: Pointer, settings: Pointer, batch: int,
    ) -> None:  # fmt: skip
        put(size, np.int32, BLOCK * (m + n) * batch)

    @offers("cusolverDn{T}gesvdjBatched")
    def gesvdj(
        dtype: str, handle: Pointer, job: int, m: int, n: int, a: Pointer, lda: int, s: Pointer, u: Pointer, ldu: int,
        v: Pointer, ldv: int, work: Pointer, size: int, info: Pointer, settings: Pointer, batch: int,
    ) -> None:  # fmt: skip
        """All columns of U and V for each of a batch of matrices of at most 32 by 32, which lie behind each other."""
        machine.of(settings, Settings)
        if max(m, n) > 32:
            raise CudaError(INVALID_VALUE, f"gesvdjBatched: {m} by {n} is more than 32 by 32")
        matrices = library.batch(handle, a, dtype, batch, m, n, lda, lda * n)
        values, said = library.array(handle, s, dtype, (batch, min(m, n))), number(handle, info, batch)
        wanted = job == 1
        left = library.batch(handle, u, dtype, batch, m, m, ldu, ldu * m) if wanted else None
        right = library.batch(handle, v, dtype, batch, n, n, ldv, ldv * n) if wanted else None

        def do() -> None:
            for i, matrix in enumerate(matrices()):
                made = svd(matrix, full=True)
                said()[i] = 0 if made else min(m, n) + 1
                x, y, z = made or (np.full((m, m), np.nan), np.nan, np.full((n, n), np.nan))
                values()[i] = y
                matrix[...] = np.nan
                if left is not None and right is not None:
                    left()[i], right()[i] = x, z.T

        ask(handle, do, workspace(handle, work, dtype, size, BLOCK * (m + n) * batch))

    # --- eigenvalues of symmetric matrices

    def eigen(matrix: np.ndarray, values: np.ndarray, vectors: bool, upper: bool) -> bool:
        """In place of A its eigenvectors, if they are wanted; whether it went wrong."""
        try:
            made, columns = np.linalg.eigh(matrix, "U" if upper else "L")
        except np.linalg.LinAlgError:
            made = columns = np.nan
        values[...] = made
        matrix[...] = columns if vectors else np.nan
        return bool(np.isnan(values).any())

    @offers("cusolverDnXsyevd_bufferSize")
    def syevd_size(
        handle: Pointer, settings: Pointer, job: int, uplo: int, n: Long, type_a: int, a: Pointer, lda: Long,
        type_w: int, w: Pointer, compute: int, on_device: Pointer, on_host: Pointer,
    ) -> None:  # fmt: skip
        leading(n, lda)
        put(on_device, np.uint64, 8 * BLOCK * n)
        put(on_host, np.uint64, 0)

    @offers("cusolverDnXsyevd")
    def syevd(
        handle: Pointer, settings: Pointer, job: int, uplo: int, n: Long, type_a: int, a: Pointer, lda: Long,
        type_w: int, w: Pointer, compute: int, work: Pointer, size: Long, host: Pointer, host_size: Long, info: Pointer,
    ) -> None:  # fmt: skip
        machine.of(settings, Settings)
        if not type_a == type_w == compute or type_a not in (0, 1):
            raise CudaError(INVALID_VALUE, f"Xsyevd: types {type_a}, {type_w} and {compute}")
        dtype = ("float32", "float64")[type_a]
        matrix, said = library.matrix(handle, a, dtype, n, n, lda), number(handle, info)
        values = library.array(handle, w, dtype, (n,))

        def do() -> None:
            said()[0] = eigen(matrix(), values(), job == 1, uplo == 1)

        ask(handle, do, workspace(handle, work, np.int8, size, 8 * BLOCK * n))

    @offers("cusolverDn{T}syevjBatched_bufferSize")
    def syevj_size(
        dtype: str, handle: Pointer, job: int, uplo: int, n: int, a: Pointer, lda: int, w: Pointer, size: Pointer,
        settings: Pointer, batch: int,
    ) -> None:  # fmt: skip
        leading(n, lda)
        put(size, np.int32, BLOCK * n * batch)

    @offers("cusolverDn{T}syevjBatched")
    def syevj(
        dtype: str, handle: Pointer, job: int, uplo: int, n: int, a: Pointer, lda: int, w: Pointer, work: Pointer,
        size: int, info: Pointer, settings: Pointer, batch: int,
    ) -> None:  # fmt: skip
        machine.of(settings, Settings)
        matrices = library.batch(handle, a, dtype, batch, n, n, lda, lda * n)
        values, said = library.array(handle, w, dtype, (batch, n)), number(handle, info, batch)

        def do() -> None:
            for i, matrix in enumerate(matrices()):
                said()[i] = eigen(matrix, values()[i], job == 1, uplo == 1)

        ask(handle, do, workspace(handle, work, dtype, size, BLOCK * n * batch))

    return library.functions


def svd(matrix: np.ndarray, full: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """U, S and Vᵀ; None where it does not converge, as with NaN."""
    try:
        made = np.linalg.svd(matrix, full_matrices=full)
    except np.linalg.LinAlgError:
        return None
    return None if np.isnan(made[1]).any() else tuple(made)  # type: ignore[return-value]
