"""The simulated device itself: what it computes, and the mistakes that it shows."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest

if os.environ.get("KOBAI_SIMULATE_GPU") != "1":
    pytest.skip("needs KOBAI_SIMULATE_GPU=1, CuPy and g++", allow_module_level=True)

import cupy

pytestmark = pytest.mark.gpu
CudaError = cupy.cuda.runtime.CUDARuntimeError


def test_kernels_of_cupy():
    x = np.random.default_rng(0).normal(size=(5, 70)).astype(np.float32)
    there = cupy.asarray(x)
    np.testing.assert_allclose((there * 2 + 1).get(), x * 2 + 1, rtol=1e-6)
    np.testing.assert_allclose(there.sum(0).get(), x.sum(0), rtol=1e-5)
    np.testing.assert_allclose((there @ there.T).get(), x @ x.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(cupy.sort(there).get(), np.sort(x))
    np.testing.assert_array_equal(cupy.nonzero(there > 0)[1].get(), np.nonzero(x > 0)[1])
    np.testing.assert_array_equal(there.astype(cupy.float16).get(), x.astype(np.float16))


def test_a_pinned_buffer_that_is_reused_too_early_is_seen():
    pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(40), np.float32, 10)
    pinned[:] = 1
    stream = cupy.cuda.Stream(non_blocking=True)
    there = cupy.empty(10, np.float32)
    there.set(pinned, stream=stream)
    pinned[:] = 2  # before the copy has happened
    stream.synchronize()
    assert there.get(stream=stream).tolist() == [2] * 10


def test_work_of_two_streams_has_no_order_but_that_of_events():
    first, second = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)

    def sum_of(wait: bool) -> float:
        with first:
            x = cupy.zeros(10, np.float32)
            first.synchronize()
            x += 1
            done = first.record()
        with second:
            if wait:
                second.wait_event(done)
            y = x.sum()
        return float(y.get(stream=second))

    assert sum_of(wait=True) == 10
    assert sum_of(wait=False) == 0


def test_fresh_memory_is_nan_and_margins_are_checked():
    runtime = cupy.cuda.runtime
    address = runtime.malloc(40)
    memory = cupy.cuda.UnownedMemory(address, 48, None)
    x = cupy.ndarray((12,), np.float32, cupy.cuda.MemoryPointer(memory, 0))
    assert cupy.isnan(x[:10]).all()
    x += 1  # two elements too many
    with pytest.raises(CudaError, match="llegal"):
        runtime.deviceSynchronize()
    with pytest.raises(CudaError, match="invalid argument"):
        runtime.memset(address, 0, 48)
    ctypes.memset(address + 40, 0xA5, 8)  # as it was
    runtime.free(address)


def test_what_a_capture_does_not_allow():
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        x = cupy.ones(10, np.float32)
        y = x * 2
        stream.begin_capture()
        cupy.multiply(x, 2, out=y)
        graph = stream.end_capture()
        x[:] = 5
        graph.launch(stream)
    assert y.get(stream=stream).tolist() == [10] * 10
    with stream:
        stream.begin_capture()
        with pytest.raises(CudaError, match="StreamCapture"):
            stream.synchronize()
        with pytest.raises(CudaError, match="StreamCapture"):
            stream.end_capture()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("if (threadIdx.x < 16) __syncthreads(); else __syncwarp();", "do not all reach"),
        ("if (threadIdx.x < 16) out[0] = __shfl_sync(0xffffffffu, 1.0f, 0); else __syncthreads();", "do not all reach"),
    ],
)
def test_threads_that_wait_for_each_other_in_vain_are_an_error(body, said):
    kernel = cupy.RawKernel('extern "C" __global__ void wrong(float* out) { ' + body + " }", "wrong")
    out = cupy.zeros(1, np.float32)
    kernel((1,), (64,), (out,))
    with pytest.raises(CudaError) as error:
        out.get()
    assert said in error.value.__notes__[0]


def test_a_launch_that_no_device_takes():
    kernel = cupy.RawKernel('extern "C" __global__ void nothing() {}', "nothing")
    with pytest.raises(cupy.cuda.driver.CUDADriverError):
        kernel((1,), (2048,), ())
    with cupy.cuda.Device(1):
        stream = cupy.cuda.Stream()
    with pytest.raises(cupy.cuda.driver.CUDADriverError):
        kernel((1,), (32,), (), stream=stream)
