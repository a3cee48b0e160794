"""The libraries beneath CuPy on the simulated device: what they compute, and which calls they refuse."""

from __future__ import annotations

import contextlib
import os
from functools import partial

import numpy as np
import pytest

if os.environ.get("KOBAI_SIMULATE_GPU") != "1":
    pytest.skip("needs KOBAI_SIMULATE_GPU=1, CuPy and g++", allow_module_level=True)

import cupy
import cupyx
from cupy.cuda import cub
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


NOTHING_IN_ROWS = pytest.param(
    (2, 0),
    marks=pytest.mark.xfail(
        cupy.__version__.startswith("14.0."), reason="CuPy 14.0 divides by zero", raises=ZeroDivisionError
    ),
)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (0, 7), NOTHING_IN_ROWS])
def test_sorting(shape):
    x = np.random.default_rng(0).integers(0, 4, shape).astype(np.float32)
    x[x == 2] = np.nan
    there = cupy.asarray(x)
    np.testing.assert_array_equal(cupy.sort(there).get(), np.sort(x))
    np.testing.assert_array_equal(cupy.argsort(there).get(), np.argsort(x, kind="stable"))
    if x.ndim == 2 and x.size:
        np.testing.assert_array_equal(cupy.lexsort(there).get(), np.lexsort(x))


REDUCTIONS = ("sum", "prod", "max", "min", "argmax", "argmin")


@pytest.fixture
def asked(monkeypatch):
    """The functions of ``cupy.cuda.cub`` that were called."""
    names = []
    for name in ("device_reduce", "device_segmented_reduce", "device_scan", "device_histogram"):

        def called(name, function, *args, **more):
            names.append(name)
            return function(*args, **more)

        monkeypatch.setattr(cub, name, partial(called, name, getattr(cub, name)))
    return names


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_reductions_by_cub(dtype, asked):
    rng = np.random.default_rng(0)
    x = rng.uniform(0.5, 1.5, (6, 5, 7)).astype(dtype)
    there = cupy.asarray(x)
    for name in REDUCTIONS:
        for axis in (None, 2, (1, 2)) if "arg" not in name else (None,):
            asked.clear()
            made = getattr(there, name)(axis=axis)
            assert asked == ["device_reduce" if axis is None else "device_segmented_reduce"]
            close(made, getattr(x, name)(axis=axis), np.float32 if dtype == np.float16 else dtype)
    there[:, 0] = there[3, 2, 1]  # neither its rows nor its columns are one block
    np.testing.assert_allclose(there[:, ::2].sum().get(), there.get()[:, ::2].sum(), rtol=1e-2)


def test_nan_is_an_extreme_of_cub(asked):
    x = np.array([[3, np.nan, 5], [1, 2, 0]], np.float32)
    for name in ("max", "min", "argmax", "argmin", "sum"):
        np.testing.assert_array_equal(getattr(cupy.asarray(x), name)().get(), getattr(x, name)())
    np.testing.assert_array_equal(cupy.asarray(x).max(axis=1).get(), x.max(axis=1))
    assert len(asked) == 6


def test_cub_adds_numbers_of_16_bits_in_16_bits():
    a = 3 * 2**-13  # 1 + a is nearest to 1, and 1 + 3 a is not
    x = cupy.asarray([1, a, a, 0, a, 0, 0, 0], np.float16)
    assert x.sum() == 1
    assert x.sum(dtype=np.float32) == 1 + 3 * a


def test_scans_and_histograms_by_cub(asked):
    x = np.random.default_rng(0).normal(size=50).astype(np.float32)
    there = cupy.asarray(x)
    close(there.cumsum(), x.cumsum(), np.float32)
    close(there.cumprod(), x.cumprod(), np.float32)
    x[3] = 9  # beyond the edges
    for made, wanted in zip(cupy.histogram(cupy.asarray(x), 5, (-1, 1)), np.histogram(x, 5, (-1, 1)), strict=True):
        np.testing.assert_allclose(made.get(), wanted)
    assert asked == ["device_scan", "device_scan", "device_histogram"]


def test_a_graph_contains_cubs_work():
    x, stream = cupy.arange(12, dtype=np.float32).reshape(3, 4), cupy.cuda.Stream(non_blocking=True)
    other = 12 - x
    cupy.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        made = x.sum(), x.max(axis=1), x.argmax(), x.ravel().cumsum()
        graph = stream.end_capture()
        x[...] = other
        graph.launch()
        stream.synchronize()
    host = other.get()
    for got, wanted in zip(made, (host.sum(), host.max(axis=1), host.argmax(), host.cumsum()), strict=True):
        np.testing.assert_array_equal(got.get(), wanted)


def test_what_overflows_in_cub_is_infinite():
    x = np.full((2, 8), 3e38, np.float32)
    assert cupy.asarray(x).sum() == np.inf
    assert cupy.asarray(x).cumsum()[-1] == np.inf


def test_cub_and_memory_of_another_device():
    with cupy.cuda.Device(1):
        x = cupy.ones((3, 4))
    x.sum()
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="on device 1, the call on device 0"):
        cupy.cuda.Device().synchronize()


def test_reductions_over_blocks_by_cub():
    x = np.random.default_rng(0).normal(size=3000)
    there = cupy.asarray(x)
    assert cupy.all(there).get()
    assert not cupy.any(there == 7).get()
    close(cupy.nansum(there), x.sum(), np.float64)
    close(cupy.var(there), x.var(), np.float64)
    assert (there > 0).sum() == (x > 0).sum()
