"""The simulated device itself: what it computes, and the mistakes that it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

if os.environ.get("KOBAI_SIMULATE_GPU") != "1":
    pytest.skip("needs KOBAI_SIMULATE_GPU=1, CuPy and g++", allow_module_level=True)

import cupy

import simulator

pytestmark = pytest.mark.gpu
CudaError, DriverError = cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError


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


def notes(caught: pytest.ExceptionInfo) -> str:
    return "".join(caught.value.__notes__)


def test_memory_is_nan_until_it_is_written_also_when_a_pool_lends_it_again():
    x = cupy.ones(1000, np.float32)
    address = x.data.ptr
    del x
    again = cupy.empty(1000, np.float32)
    assert again.data.ptr == address
    assert cupy.isnan(again).all()
    assert np.isnan(np.frombuffer(cupy.cuda.alloc_pinned_memory(40), np.float32, 10)).all()


@pytest.mark.parametrize("first", [-2, 10], ids=["before", "behind"])
def test_who_writes_beside_an_array_is_named(first):
    source = 'extern "C" __global__ void astray(float* x, int i) { x[i] += 1; }'
    x = cupy.zeros(10, np.float32)
    cupy.RawKernel(source, "astray")((1,), (1,), (x, np.int32(first)))
    with pytest.raises(CudaError, match="llegal") as caught:
        cupy.cuda.runtime.deviceSynchronize()
    assert f"astray wrote {'before' if first < 0 else 'behind'} the block of 40 bytes" in notes(caught)
    x += 1  # and all goes on
    assert x.get().tolist() == [1] * 10


def test_addresses_that_no_array_has_are_refused():
    kernel = cupy.RawKernel('extern "C" __global__ void one(float* x) { x[0] = 1; }', "one")
    x = cupy.zeros(10, np.float32)
    address = x.data.ptr
    with pytest.raises(CudaError, match="llegal"):
        cupy.cuda.runtime.memset(address, 0, 48)
    del x
    with pytest.raises(DriverError, match="its pool has back"):
        kernel((1,), (1,), (np.uint64(address),))
    with cupy.cuda.Device(1):
        x = cupy.zeros(10, np.float32)
    with pytest.raises(DriverError, match="memory of device 1, the kernel runs on device 0"):
        kernel((1,), (1,), (x,))
    with pytest.raises(ValueError, match="device"):
        cupy.zeros(10, np.float32) + x
    kernel((1,), (1,), (np.uint64(16),))
    with pytest.raises(CudaError) as caught:
        cupy.cuda.runtime.deviceSynchronize()
    assert "an illegal memory access" in notes(caught)


def test_devices_reach_into_each_other_only_when_they_may(monkeypatch):
    runtime = cupy.cuda.runtime
    assert not runtime.deviceCanAccessPeer(0, 1)
    with pytest.raises(CudaError):
        runtime.deviceEnablePeerAccess(1)
    with cupy.cuda.Device(1) as device:
        there = cupy.zeros(5, np.float32)
        device.synchronize()  # which the copy does not wait for by itself
    assert cupy.asarray(there).get().tolist() == [0] * 5  # a copy from device to device
    kernel = cupy.RawKernel('extern "C" __global__ void two(float* x) { x[0] = 2; }', "two")
    monkeypatch.setattr(simulator.machine, "peer_access", True)
    monkeypatch.setattr(simulator.machine, "peers", set())
    with pytest.raises(DriverError, match="memory of device 1"):
        kernel((1,), (1,), (there,))
    runtime.deviceEnablePeerAccess(1)
    with pytest.raises(CudaError):
        runtime.deviceEnablePeerAccess(1)
    kernel((1,), (1,), (there,))
    runtime.deviceSynchronize()
    assert there.get().tolist() == [2, 0, 0, 0, 0]


MISSING = """extern "C" __global__ void reversed(float* x) {
    __shared__ float kept[64];
    kept[threadIdx.x] = x[threadIdx.x];
    %s
    x[threadIdx.x] = kept[threadIdx.x ^ %d];
}"""


@pytest.mark.parametrize("other", [1, 32])
def test_a_missing_barrier_is_seen_in_one_of_both_orders(other):
    machine = simulator.machine
    wanted = (np.arange(64) ^ other).tolist()
    for barrier in ("__syncthreads();", "if (threadIdx.x == 99) __syncthreads();"):
        kernel = cupy.RawKernel(MISSING % (barrier, other), "reversed")
        right = []
        for machine.backwards in (True, False):
            x = cupy.arange(64, dtype=np.float32)
            kernel((1,), (64,), (x,))
            right.append(x.get().tolist() == wanted)
        assert all(right) == (not barrier.startswith("if"))


def test_a_missing_barrier_between_a_write_and_the_next_is_seen_in_one_of_both_orders():
    source = """extern "C" __global__ void shifted(float* x) {
        __shared__ float kept[64];
        kept[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        if (threadIdx.x >= 16) kept[threadIdx.x] += kept[threadIdx.x - 16];
        __syncthreads();
        x[threadIdx.x] = kept[threadIdx.x];
    }"""
    found = []
    for simulator.machine.backwards in (True, False):
        x = cupy.ones(64, dtype=np.float32)
        cupy.RawKernel(source, "shifted")((1,), (64,), (x,))
        found.append(x.get().tolist())
    assert found[0] != found[1]


def test_a_graph_has_the_values_of_its_launch():
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


RELAXED, GLOBAL = 2, 0


@pytest.mark.parametrize(
    ("wrong", "mode", "said"),
    [
        (lambda x, stream, other: stream.synchronize(), RELAXED, "a captured stream was synchronised"),
        (lambda x, stream, other: stream.done, RELAXED, "a captured stream was queried"),
        (lambda x, stream, other: stream.record().synchronize(), RELAXED, "an event of a capture was waited for"),
        (lambda x, stream, other: stream.record().done, RELAXED, "an event of a capture was queried"),
        (lambda x, stream, other: cupy.cuda.Device().synchronize(), RELAXED, "the device was synchronised"),
        (lambda x, stream, other: stream.wait_event(other.record()), RELAXED, "work that is not captured"),
        (lambda x, stream, other: cupy.cuda.runtime.malloc(1 << 22), GLOBAL, "memory was allocated"),
        (lambda x, stream, other: cupy.cuda.runtime.memcpy(x.data.ptr, x.data.ptr, 4, 3), GLOBAL, "copied synchron"),
    ],
)
def test_what_a_capture_does_not_allow(wrong, mode, said):
    stream, other = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    with stream:
        x = cupy.ones(10, np.float32)
        stream.synchronize()
        stream.begin_capture(mode)
        with pytest.raises(CudaError, match="StreamCapture") as caught:
            wrong(x, stream, other)
        assert said in notes(caught)
        with pytest.raises(DriverError, match="CAPTURE_INVALIDATED"):
            x += 1
        with pytest.raises(CudaError, match="StreamCaptureInvalidated"):
            stream.end_capture()
        x += 1
        assert x.get().tolist() == [2] * 10


def test_the_host_reads_nothing_in_a_capture():
    """CuPy asks the stream, and refuses by itself."""
    x = cupy.ones(10, np.float32)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="capturing"):
            float(x[0])
        stream.end_capture()


def test_products_of_cupys_are_refused_in_a_capture():
    x = cupy.ones((4, 4), np.float32)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        with pytest.raises(NotImplementedError, match="cuBLAS API during stream capture"):
            x @ x
        stream.end_capture()


def test_the_default_stream_comes_after_a_blocking_one_that_is_captured():
    stream = cupy.cuda.Stream()
    x = cupy.ones(10, np.float32)
    with stream:
        stream.begin_capture()
    with pytest.raises(DriverError, match="CAPTURE_IMPLICIT"):
        x += 1
    with stream, pytest.raises(CudaError, match="Invalidated"):
        stream.end_capture()


def test_a_capture_joins_the_streams_that_it_forks_to():
    first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    x = cupy.zeros(10, np.float32)
    cupy.cuda.Device().synchronize()
    for joined in (True, False):
        with first:
            first.begin_capture()
            second.wait_event(first.record())
            with second:
                x += 1
                done = second.record()
            if joined:
                first.wait_event(done)
                first.end_capture().launch(first)
            else:
                with pytest.raises(CudaError, match="Unjoined"):
                    first.end_capture()
            first.synchronize()
    assert x.get().tolist() == [1] * 10


def graph_of(function, pool=None):
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream, cupy.cuda.using_allocator((pool or cupy.get_default_memory_pool()).malloc):
        stream.begin_capture()
        function()
        return stream.end_capture(), stream


def test_a_graph_does_not_use_what_belongs_to_others():
    x = cupy.ones(10, np.float32)
    cupy.cuda.Device().synchronize()
    graph, stream = graph_of(partial(cupy.multiply, x, 2, out=x))
    graph.launch(stream)
    stream.synchronize()
    assert x.get().tolist() == [2] * 10
    del x
    with pytest.raises(CudaError) as caught:
        graph.launch(stream)
    assert "an array of 40 bytes which is gone" in notes(caught)


def test_memory_of_a_graph_is_lent_to_nobody_else():
    pool = cupy.cuda.MemoryPool()
    graph, stream = graph_of(lambda: cupy.ones(10, np.float32), pool)
    with stream, cupy.cuda.using_allocator(pool.malloc):
        with pytest.raises(CudaError) as caught:
            cupy.empty(10, np.float32)
        assert "to which a graph still writes" in notes(caught)
        del graph
        cupy.empty(10, np.float32)


def test_memory_of_a_graph_that_is_filled_from_outside_keeps_what_is_there():
    kept = []

    def step():
        kept.append(cupy.empty(10, np.float32))
        cupy.multiply(kept[0], 2, out=kept[0])
        kept.append(cupy.empty(20, np.float32))
        del kept[1]
        cupy.empty(30, np.float32).fill(7)

    graph, stream = graph_of(step, cupy.cuda.MemoryPool())
    with stream:
        for _ in range(2):
            kept[0].fill(3)
            graph.launch(stream)
            assert kept[0].get().tolist() == [6] * 10


def test_what_is_left_undone_is_done_and_said():
    x = cupy.zeros(10, np.float32)
    cupy.RawKernel('extern "C" __global__ void astray(float* x) { x[10] = 1; }', "astray")((1,), (1,), (x,))
    with pytest.raises(Exception, match="astray wrote behind"):
        simulator.machine.sound()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        with pytest.raises(Exception, match="still captured"):
            simulator.machine.sound()


def test_a_process_ends_in_peace_with_work_undone():
    code = "import simulator; simulator.install(); import cupy; s = cupy.cuda.Stream(); y = cupy.ones(9) * 2; e = s.record()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


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


@pytest.mark.skipif("__import__('nvrtc').library() is None", reason="needs NVRTC: pip install 'kobai[gpu-proof]'")
def test_what_only_the_host_takes_is_refused_by_the_real_compiler():
    kernel = cupy.RawKernel(
        'extern "C" __global__ void vla(float* x, int n) { float y[n]; y[0] = *x; *x = y[0]; }', "vla"
    )
    with pytest.raises(cupy.cuda.compiler.CompileException, match="expression must have a constant value"):
        kernel.compile()


@pytest.mark.skipif("__import__('nvrtc').library() is None", reason="needs NVRTC: pip install 'kobai[gpu-proof]'")
def test_a_source_is_compiled_for_the_devices_that_are_asked_for(monkeypatch):
    monkeypatch.setenv("KOBAI_SIMULATOR_ARCHITECTURES", "sm_80,sm_75")
    source = '#if __CUDA_ARCH__ < 800\n#error what only Ampere has\n#endif\nextern "C" __global__ void ampere() {}'
    with pytest.raises(cupy.cuda.compiler.CompileException, match="sm_75"):
        cupy.RawKernel(source, "ampere").compile()


def test_a_launch_that_no_device_takes():
    kernel = cupy.RawKernel('extern "C" __global__ void nothing() {}', "nothing")
    with pytest.raises(DriverError):
        kernel((1,), (2048,), ())
    with cupy.cuda.Device(1):
        stream = cupy.cuda.Stream()
    with pytest.raises(DriverError):
        kernel((1,), (32,), (), stream=stream)


def test_default_streams_of_threads_are_refused():
    with (
        cupy.cuda.Stream.ptds,
        pytest.raises(CudaError, match="0x2 is not the handle of a stream"),
    ):
        cupy.ones(3)
