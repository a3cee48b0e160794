"""Every CUDA kernel on the device, on its check data (as ``tests/cuda`` runs it on the host), and products by cuBLASLt."""

import numpy as np
import pytest

import kobai
from kernel_checks import CASES, addressed, assert_expected, each, launch_of
from kobai.engine.cuda_kernel import KERNELS
from kobai.engine.dispatch import DEVICE, engine_for, launch
from kobai.ops._matmul import matmul
from kobai.ops.linear.kernel import gemm, product_and_sums


@pytest.mark.parametrize(("name", "i", "dtype"), CASES)
def test_kernel(name, i, dtype):
    import cupy

    case = launch_of(name, i, dtype)
    typed = KERNELS[name].of(np.dtype(dtype))
    kept = [each(arg, cupy.asarray) for arg in case.args]
    args = [addressed(arg, wanted, lambda a: a.data.ptr) for arg, wanted in zip(kept, typed.dtypes, strict=True)]
    args = [cupy.asarray(a) if isinstance(arg, list) else a for arg, a in zip(kept, args, strict=True)]
    launch(typed, case.grid, args, case.threads, case.shared)
    assert_expected(case, name, [each(arg, cupy.asnumpy) for arg in kept], dtype)


def test_what_cuda_kernels_take():
    import cupy

    x = cupy.ones((4, 6), np.float32)
    assert engine_for([x, None, x]) == DEVICE
    assert engine_for([x.astype(np.float16)], halves=True) == DEVICE
    for others in (
        [x.astype(np.float64)],
        [x.T],
        [np.ones(3, np.float32)],
        [x.astype(np.int32)],
        [x.astype(np.float16)],
    ):
        assert engine_for([x, *others], halves=True) is None
    for odd in (x.T, x.astype(np.int32), x.astype(np.float16)):
        assert engine_for([odd]) is None


needs_nvmath = pytest.mark.skipif("not __import__('kobai').cuda.cublaslt.is_available()", reason="needs nvmath-python")


@pytest.fixture
def precision():
    yield kobai.set_float32_matmul_precision
    kobai.set_float32_matmul_precision("highest")


@needs_nvmath
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize(("trans_a", "trans_b"), [(False, False), (False, True), (True, False), (True, True)])
def test_products(trans_a, trans_b, activation, dtype):
    import cupy

    rng = np.random.default_rng(0)
    for m, k, n in ((96, 64, 40), (1, 3, 1), (33, 1, 17), (100, 784, 100), (256, 100, 10)):
        a = rng.standard_normal((k, m) if trans_a else (m, k)).astype(dtype)
        b = rng.standard_normal((n, k) if trans_b else (k, n)).astype(dtype)
        bias = rng.standard_normal(n).astype(dtype)
        z = (a.T if trans_a else a).astype(np.float64) @ (b.T if trans_b else b) + bias
        options = {"trans_a": trans_a, "trans_b": trans_b}
        there = cupy.asarray(a), cupy.asarray(b)
        slack = 8 * k**0.5 * float(np.finfo(dtype).eps)
        y = gemm(*there, bias=cupy.asarray(bias), activation=activation, **options)
        np.testing.assert_allclose(y.get(), np.maximum(z, 0) if activation else z, rtol=slack, atol=slack * 4)
        if trans_a and not trans_b:
            product, sums = product_and_sums(*there)
            np.testing.assert_allclose(product.get(), z - bias, rtol=slack, atol=slack * 4)
            np.testing.assert_allclose(sums.get(), a.sum(0), rtol=slack, atol=slack * 4)


@needs_nvmath
@pytest.mark.parametrize("result", ["float32", None])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_of_16_bits(dtype, result):
    """Added up in float32, and rounded once or not at all."""
    import cupy

    rng = np.random.default_rng(5)
    a, b, bias = (rng.standard_normal(s).astype(dtype) for s in ((40, 512), (512, 24), 24))
    wide = a.astype(np.float32) @ b.astype(np.float32)
    there = cupy.asarray(a), cupy.asarray(b)
    eps = float(kobai.finfo(result or dtype).eps)
    out = cupy.empty(wide.shape, result or dtype)
    matmul(*there, out)
    np.testing.assert_allclose(out.get().astype(np.float32), wide, rtol=max(eps, 1e-5), atol=1e-4)
    y = gemm(*there, bias=cupy.asarray(bias), activation="relu")
    expected = np.maximum(wide + bias.astype(np.float32), 0)
    np.testing.assert_allclose(y.get().astype(np.float32), expected, rtol=float(kobai.finfo(dtype).eps), atol=0.1)


@needs_nvmath
def test_products_of_parts_of_arrays():
    """Views, whose addresses are less aligned and whose rows have gaps between them."""
    import cupy

    rng = np.random.default_rng(1)
    wide = cupy.asarray(rng.standard_normal((40, 50)).astype(np.float32))
    for first in range(4):
        a, b = wide[:, first : first + 33], wide[first : first + 33, 5:30]
        np.testing.assert_allclose(gemm(a, b).get(), a.get() @ b.get(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            gemm(a.T, b.T[:, ::-1][:, ::-1].T, trans_a=True).get(), a.get() @ b.get(), rtol=1e-4, atol=1e-4
        )


@needs_nvmath
def test_batches_of_products():
    import cupy

    rng = np.random.default_rng(2)
    for left, right in (((7, 20, 30), (7, 30, 40)), ((7, 20, 30), (30, 40)), ((5, 1, 20, 30), (6, 30, 40))):
        a, b = rng.standard_normal(left), rng.standard_normal(right)
        np.testing.assert_allclose(matmul(cupy.asarray(a), cupy.asarray(b)).get(), a @ b, atol=1e-12)


@needs_nvmath
@pytest.mark.parametrize(
    ("setting", "least", "most"), [("highest", 0, 1e-6), ("high", 1e-6, 2e-3), ("medium", 1e-6, 2e-2)]
)
def test_precision_is_what_was_asked_for(precision, setting, least, most):
    import cupy

    if setting != "highest" and int(cupy.cuda.Device().compute_capability) < 80:
        pytest.skip("TF32 needs compute capability 8.0")
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((512, 512)).astype(np.float32) for _ in range(2))
    precision(setting)
    y = gemm(cupy.asarray(a), cupy.asarray(b)).get()
    wanted = a.astype(np.float64) @ b
    error = float(np.abs(y - wanted).max() / np.abs(wanted).max())
    assert least <= error <= most


@needs_nvmath
def test_a_nan_is_not_lost_in_the_rectifier():
    import cupy

    x = cupy.asarray(np.full((4, 4), np.nan, np.float32))
    bias = cupy.zeros(4, np.float32)
    assert np.isnan(gemm(x, cupy.eye(4, dtype=np.float32), bias=bias, activation="relu").get()).all()
