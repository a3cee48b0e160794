"""Every CUDA kernel is run on the host, on its check data, and must give what NumPy gives."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import host
import numpy as np
import pytest

from kernel_checks import CASES, DTYPES, assert_expected, launch_of
from kernel_data import CHECKS
from kobai.engine.cuda_kernel import KERNELS

BY_ROWS = (
    "softmax",
    "log_softmax",
    "softmax_backward",
    "log_softmax_backward",
    "cross_entropy",
    "cross_entropy_backward",
)
"""Kernels of which a block computes a row."""
pytestmark = [pytest.mark.thorough, pytest.mark.skipif(host.COMPILER is None, reason="needs a C++ compiler (g++)")]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    used = [d for d in DTYPES if any(d in k.dtypes for k in KERNELS.values())]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(used, pool.map(lambda d: host.compiled(d, folder), used), strict=True))


@pytest.mark.few(4)
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize(("name", "i", "dtype"), CASES)
def test_kernel(libraries, name, i, dtype, backwards):
    launch = launch_of(name, i, dtype)
    assert_expected(launch, name, host.run(libraries[dtype], name, dtype, launch, backwards), dtype)


ROWS = [(name, i, dtype) for name, i, dtype in CASES if name in BY_ROWS]


@pytest.mark.few(2)
@pytest.mark.parametrize(("name", "i", "dtype"), ROWS)
def test_rows_far_along(libraries, name, i, dtype):
    """Elements are counted in 64 bits: the same rows, behind so many others that there are 2³³ elements before them."""
    launch = launch_of(name, i, dtype)
    rows = (1 << 33) // launch.args[0].shape[1]
    assert_expected(launch, name, host.run(libraries[dtype], name, dtype, launch, False, rows), dtype)


@pytest.fixture(scope="module")
def watching(tmp_path_factory):
    return host.compiled("float32", tmp_path_factory.mktemp("races"), races=True)


@pytest.mark.few(3)
@pytest.mark.parametrize(("name", "i"), [(name, i) for name, i, dtype in CASES if dtype == "float32"])
def test_threads_do_not_race(watching, name, i):
    """No two threads reach the same memory, one of them to write, without a barrier between or atomic operations."""
    host.run(watching, name, "float32", launch_of(name, i, "float32"), False)


RACING = """
#include "host.h"
static float* memory;
extern "C" const char* run(void (*body)(), unsigned blocks, unsigned threads) {
    const unsigned shape[6] = {blocks, 1, 1, threads, 1, 1};
    return host::run(body, shape, true, false);
}
static void atomically() { atomicAdd(&memory[0], 1.0f); }
static void plainly() { memory[0] += 1; }
static void neighbours(bool waits) {
    __shared__ float part[64];
    part[threadIdx.x] = memory[threadIdx.x];
    if (waits) __syncthreads();
    memory[64 + threadIdx.x] = part[63 - threadIdx.x];
}
static void with_barrier() { neighbours(true); }
static void without_barrier() { neighbours(false); }
static void in_a_warp() {
    __shared__ float part[64];
    part[threadIdx.x] = 1;
    __syncwarp();
    memory[threadIdx.x] = part[threadIdx.x ^ 1];
}
static void every_block() { memory[threadIdx.x] = 1; }
extern "C" const char* go(int which, float* m) {
    void (*bodies[])() = {atomically, plainly, with_barrier, without_barrier, in_a_warp, every_block, every_block};
    memory = m;
    return run(bodies[which], which == 6 ? 2 : 1, 64);
}
"""


def test_races_are_found(tmp_path):
    """And what is none is not."""
    library = host.built(RACING, tmp_path / "racing.cpp", races=True)
    library.go.restype = ctypes.c_char_p
    memory = np.zeros(128, np.float32)
    said = [library.go(k, ctypes.c_void_p(memory.ctypes.data)) for k in range(7)]
    assert [text is not None for text in said] == [False, True, False, True, False, False, True], said
    assert b"block 0, thread 1: reads what thread 0 of block 0 reaches without a barrier between" in said[1]


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_every_kernel_has_a_check(name):
    assert CHECKS.get(name)


def test_every_check_is_of_a_kernel():
    assert CHECKS.keys() <= KERNELS.keys()


def test_both_forms_of_numbers_are_run():
    """Whether numbers come by value or on the device is decided by the argument: each such kernel has a check of both."""
    for name, kernel in KERNELS.items():
        for k, p in enumerate(kernel.parameters):
            if p.count:
                forms = {
                    isinstance(launch_of(name, i, kernel.dtypes[0]).args[k], np.ndarray)
                    for i in range(len(CHECKS[name]))
                }
                assert forms == {False, True}, (
                    f"{name}: {p.name} is never checked as {'a tuple' if True in forms else 'an array'}"
                )
