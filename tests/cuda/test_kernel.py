"""How a kernel's arguments travel, and what is refused before it would corrupt memory."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from kobai.engine import cuda_kernel as module
from kobai.engine.cuda_kernel import KERNELS, CudaKernel
from kobai.engine.dispatch import launch

BODY = "EACH(i, n) y[i] = h[0] * x[i] + b[i % 3];"
SIGNATURE = "const T* x, T* y, const T* b, const long long* at, A h[2], A k, int m, long long n"


@pytest.fixture
def launched(monkeypatch):
    """What CuPy is given to compile and to launch."""
    seen = []

    class RawKernel:
        def __init__(self, code, name, options):
            seen.append((name, code, options))

        def compile(self):
            pass

        def __call__(self, grid, block, args, shared_mem):
            seen.append((grid, block, args, shared_mem))

    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(RawKernel=RawKernel))
    before = dict(KERNELS)
    yield seen
    KERNELS.clear()
    KERNELS.update(before)


def arrays(dtype=np.float32):
    return [np.zeros(6, dtype), np.zeros(6, dtype), None, np.zeros(6, np.int64)]


def test_numbers_get_the_declared_types(launched):
    kernel = CudaKernel("affine", SIGNATURE, BODY)
    args = arrays()
    launch(kernel, 3, (*args, (1, 2.5), 0.5, 7, 6))
    (name, code, options), (grid, block, packed, shared) = launched
    assert name == "kobai_affine_float32"
    assert "float* x" not in code.split("typedef float T;")[1]  # T stays T
    assert (grid, block, shared, options) == ((3,), (256,), 0, module.OPTIONS)
    assert packed[:4] == tuple(args)
    assert [type(v) for v in packed[4:]] == [np.float32, np.float32, np.float32, np.int32, np.int64]
    assert packed[4:] == (1, 2.5, 0.5, 7, 6)


def test_one_function_is_compiled_for_each_dtype_and_form(launched):
    kernel = CudaKernel("affine", SIGNATURE, BODY)
    for dtype in (np.float32, np.float64):
        for numbers in ((1.0, 2.0), np.ones(2, dtype), (3.0, 4.0)):
            launch(kernel, (2, 2), (*arrays(dtype), numbers, 0.5, 7, 6), 64, 1024)
    names = [entry[0] for entry in launched if isinstance(entry[0], str)]
    assert names == [f"kobai_affine_{dtype}{form}" for dtype in ("float32", "float64") for form in ("", "_h")]
    assert launched[-1][1] == (64,)
    assert launched[-1][3] == 1024


def test_shared_memory_is_what_the_kernel_or_the_launch_says(launched):
    kernel = CudaKernel("shares", "T* y, int n", "", shared=2048)
    for shared in (-1, 0, 512):
        kernel(1, (np.zeros(3), 3), 0, shared)
    assert [entry[3] for entry in launched[1:]] == [2048, 0, 512]


def test_the_first_array_that_is_there_says_the_dtype(launched):
    kernel = CudaKernel("optional", "const T* weight, T* y, int n", "")
    launch(kernel, 1, (None, np.zeros(3), 3))
    assert launched[0][0] == "kobai_optional_float64"
    with pytest.raises(TypeError, match=r"no argument says its dtype, use \.of\(dtype\)"):
        launch(kernel, 1, (None, None, 3))


def test_nothing_is_launched_for_nothing(launched):
    kernel = CudaKernel("empty", "T* y, int n", "")
    launch(kernel, kernel.blocks(0), (np.zeros(0), 0))
    launch(kernel, (3, 0), (np.zeros(0), 0))
    assert launched == []
    assert (kernel.blocks(1), kernel.blocks(257), kernel.blocks(10**9)) == (1, 2, 1 << 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.zeros(6, np.float16)}, "expected elements of float32 or float64, got float16"),
        ({1: np.zeros(6, np.float64)}, "expected y of float32, got float64"),
        ({3: np.zeros(6, np.int32)}, "expected at of int64, got int32"),
        ({4: (1.0,)}, "expected 2 numbers h, got 1"),
        ({4: np.ones(2)}, "expected h of float32, got float64"),
    ],
)
def test_wrong_arguments_are_refused(launched, change, message):
    kernel = CudaKernel("affine", SIGNATURE, BODY)
    args = [*arrays(), (1.0, 2.0), 0.5, 7, 6]
    for place, value in change.items():
        args[place] = value
    with pytest.raises(TypeError, match=message):
        launch(kernel, 1, args)
    with pytest.raises(TypeError, match="expected 8 arguments"):
        launch(kernel, 1, (*arrays(), 3))
    with pytest.raises(TypeError, match="multiple of 32 threads up to 256"):
        launch(kernel, 1, (*arrays(), (1.0, 2.0), 0.5, 7, 6), 512)


def test_wrong_kernels_are_refused(launched):
    CudaKernel("once", "T* y", "")
    with pytest.raises(ValueError, match="there is a kernel 'once' already"):
        CudaKernel("once", "T* y", "")
    with pytest.raises(ValueError, match="got ' std::string name'"):
        CudaKernel("text", "T* y, std::string name", "")
    for threads in (0, 48, 2048):
        with pytest.raises(ValueError, match="multiple of 32 up to 1024"):
            CudaKernel("threads", "T* y", "", threads=threads)
    assert repr(KERNELS["once"].of(np.float32)) == "CudaKernel('once').of('float32')"
