"""The libraries beneath CuPy on the simulated device: what they compute, and which calls they refuse."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import pytest

if os.environ.get("KOBAI_SIMULATE_GPU") != "1":
    pytest.skip("needs KOBAI_SIMULATE_GPU=1, CuPy and g++", allow_module_level=True)

import cupy
import cupyx
from cupy_backends.cuda.libs import cublas, cusolver

pytestmark = pytest.mark.gpu
SQUARE = [(5, 5), (3, 5, 5), (2, 40, 40), (2, 260, 260)]
OBLONG = [(5, 5), (6, 3), (3, 6), (2, 6, 3), (2, 3, 6), (2, 40, 35), (2, 35, 40)]


def random(shape, dtype=np.float64):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def close(made, expected, dtype):
    tolerance = 2e-3 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(made.get(), expected, rtol=tolerance, atol=tolerance)


both = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@both
@pytest.mark.parametrize("shape", SQUARE)
def test_systems_of_equations(shape, dtype):
    a, b = random(shape) + 9 * np.eye(shape[-1]), random((*shape[:-1], 2))
    there, right = cupy.asarray(a, dtype), cupy.asarray(b, dtype)
    close(cupy.linalg.solve(there, right), np.linalg.solve(a, b), dtype)
    close(cupy.linalg.inv(there), np.linalg.inv(a), dtype)
    close(cupy.linalg.inv(there.swapaxes(-1, -2)), np.linalg.inv(a).swapaxes(-1, -2), dtype)
    for made, expected in zip(cupy.linalg.slogdet(there), np.linalg.slogdet(a), strict=True):
        close(made, expected, dtype)


@both
@pytest.mark.parametrize("shape", SQUARE)
def test_symmetric_matrices(shape, dtype):
    a = random(shape)
    a = a @ a.swapaxes(-1, -2) / shape[-1] + np.eye(shape[-1])
    there = cupy.asarray(a, dtype)
    close(cupy.linalg.cholesky(there), np.linalg.cholesky(a), dtype)
    for triangle in "LU":
        half = cupy.tril(there) if triangle == "L" else cupy.triu(there)  # the other one does not count
        values, vectors = cupy.linalg.eigh(half, triangle)
        close(vectors * values[..., None, :] @ vectors.swapaxes(-1, -2), a, dtype)
        close(cupy.linalg.eigvalsh(half, triangle), np.linalg.eigvalsh(a), dtype)


@both
@pytest.mark.parametrize("shape", OBLONG)
def test_orthogonal_factors(shape, dtype):
    a = random(shape)
    there = cupy.asarray(a, dtype)
    close(cupy.linalg.svd(there, compute_uv=False), np.linalg.svd(a, compute_uv=False), dtype)
    for full in (False, True):
        u, s, vt = cupy.linalg.svd(there, full_matrices=full)
        k = s.shape[-1]
        close(u[..., :k] * s[..., None, :] @ vt[..., :k, :], a, dtype)
        q, r = cupy.linalg.qr(there, "complete" if full else "reduced")
        close(q @ r, a, dtype)
        for orthogonal in (u, q, vt.swapaxes(-1, -2)):
            close(
                orthogonal.swapaxes(-1, -2) @ orthogonal,
                np.broadcast_to(np.eye(orthogonal.shape[-1]), (*shape[:-2], *2 * [orthogonal.shape[-1]])),
                dtype,
            )


def test_products_of_every_kind():
    a, b = random((3, 4, 5), np.float32), random((3, 5, 6), np.float32)
    there, right = cupy.asarray(a), cupy.asarray(b)
    close(there @ right, a @ b, np.float32)  # strided
    close(cupy.matmul(there[::2], right[::2]), a[::2] @ b[::2], np.float32)
    close(cupy.matmul(there[:, None], right[None]), a[:, None] @ b[None], np.float32)  # by addresses
    close(there[0] @ right[0, :, 0], a[0] @ b[0, :, 0], np.float32)
    close(cupy.dot(there[0, 0], right[0, :, 0]), a[0, 0] @ b[0, :, 0], np.float32)
    half = there.astype(np.float16) @ right.astype(np.float16)
    np.testing.assert_allclose(half.get(), a @ b, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: cupy.linalg.inv(cupy.zeros((3, 3))),
        lambda: cupy.linalg.inv(cupy.zeros((2, 3, 3))),
        lambda: cupy.linalg.solve(cupy.zeros((3, 3)), cupy.ones((3, 2))),
        lambda: cupy.linalg.cholesky(-cupy.eye(3)),
        lambda: cupy.linalg.cholesky(-cupy.ones((2, 3, 3))),
        lambda: cupy.linalg.svd(cupy.full((3, 3), np.nan)),
        lambda: cupy.linalg.svd(cupy.full((2, 3, 3), np.nan)),
        lambda: cupy.linalg.eigh(cupy.full((3, 3), np.nan)),
    ],
)
def test_what_has_no_solution_is_an_error_when_it_is_asked_for(call):
    with cupyx.errstate(linalg="raise"), pytest.raises(np.linalg.LinAlgError):
        call()
    call()


@pytest.mark.parametrize("call", [lambda a: a @ a, lambda a: cupy.linalg.inv(a), lambda a: cupy.sort(a)])
def test_libraries_that_a_capture_does_not_allow(call):
    a, stream = cupy.eye(3), cupy.cuda.Stream(non_blocking=True)
    call(a)
    with stream:
        stream.begin_capture()
        with pytest.raises((NotImplementedError, RuntimeError), match="captur"):
            call(a)
        with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):  # Thrust has spoilt the capture
            stream.end_capture()


def product(n=4, lda=4, a=None, handle=None):
    """C = A A of cuBLAS itself, float32."""
    there = cupy.ones((4, 4), np.float32)
    a = there.data.ptr if a is None else a
    out = cupy.empty((4, 4), np.float32)
    factor = np.array([1, 0], np.float32)
    handle = handle or cupy.cuda.device.get_cublas_handle()
    addresses = factor.ctypes.data, factor.ctypes.data + 4
    cublas.sgemm(handle, 0, 0, n, n, n, addresses[0], a, lda, there.data.ptr, 4, addresses[1], out.data.ptr, 4)
    return out


def test_arguments_that_a_library_does_not_take():
    assert product().get().tolist() == [[4] * 4] * 4
    host = np.ones((4, 4), np.float32)
    with cupy.cuda.Device(1):
        elsewhere = cupy.ones((4, 4), np.float32)
        handle = cupy.cuda.device.get_cublas_handle()
    for wrong in (
        {"lda": 3},
        {"n": 5},
        {"a": 0},
        {"a": host.ctypes.data},
        {"a": elsewhere.data.ptr},
        {"handle": handle},
    ):
        with pytest.raises(cublas.CUBLASError, match="INVALID_VALUE"):
            product(**wrong)


def test_a_workspace_that_is_too_small():
    a, info, work = cupy.eye(4, dtype=np.float32), cupy.empty(1, np.int32), cupy.cuda.runtime.malloc(16)
    handle = cupy.cuda.device.get_cusolver_handle()
    size = cusolver.spotrf_bufferSize(handle, 1, 4, a.data.ptr, 4)
    for given in (4, size):  # which the call is told, or which there is
        with pytest.raises(cusolver.CUSOLVERError, match="INVALID_VALUE"):
            cusolver.spotrf(handle, 1, 4, a.data.ptr, 4, work, given, info.data.ptr)
    cupy.cuda.runtime.free(work)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (0, 7), (2, 0)])
def test_sorting(shape):
    x = np.random.default_rng(0).integers(0, 4, shape).astype(np.float32)
    x[x == 2] = np.nan
    there = cupy.asarray(x)
    np.testing.assert_array_equal(cupy.sort(there).get(), np.sort(x))
    np.testing.assert_array_equal(cupy.argsort(there).get(), np.argsort(x, kind="stable"))
    if x.ndim == 2 and x.size:
        np.testing.assert_array_equal(cupy.lexsort(there).get(), np.lexsort(x))
