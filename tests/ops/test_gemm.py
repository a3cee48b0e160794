"""``gemm`` and ``product_and_sums`` on the host libraries; ``tests/cuda/test_cublaslt.py`` has the same for cuBLASLt."""

import numpy as np
import pytest

from kobai import xp
from kobai.ops._matmul import matmul
from kobai.ops.linear.kernel import gemm, product_and_sums


@pytest.fixture
def on(backend):
    """Arrays of the backend in use, and back."""
    return lambda a: xp.asarray(a, device=xp.default_device())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_gemm_is_its_formula(on, with_bias, activation, dtype):
    rng = np.random.default_rng(0)
    functions = {
        None: lambda z: z,
        "relu": lambda z: np.maximum(z, 0),
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "tanh": np.tanh,
    }
    for trans_a in (False, True):
        for trans_b in (False, True):
            a, b, bias = (rng.standard_normal(s).astype(dtype) for s in ((6, 4), (4, 3), 3))
            z = a @ b + (bias if with_bias else 0)
            y = gemm(
                on(a.T.copy() if trans_a else a),
                on(b.T.copy() if trans_b else b),
                trans_a=trans_a,
                trans_b=trans_b,
                bias=on(bias) if with_bias else None,
                activation=activation,
            )
            assert y.dtype == dtype
            eps = np.finfo(dtype).eps
            np.testing.assert_allclose(xp.to_host(y), functions[activation](z), rtol=64 * eps, atol=64 * eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradients_of_weight_and_bias(on, dtype):
    rng = np.random.default_rng(3)
    dz, x = (rng.standard_normal(s).astype(dtype) for s in ((6, 3), (6, 4)))
    slack = 64 * np.finfo(dtype).eps
    for found, wanted in zip(product_and_sums(on(dz), on(x)), (dz.T @ x, dz.sum(0)), strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(xp.to_host(found), wanted, rtol=slack, atol=slack)


def test_the_operands_stay_as_they_are(on):
    a, b = on(np.eye(3)), on(np.arange(9.0).reshape(3, 3))
    y = gemm(a, b, bias=on(np.ones(3)))
    np.testing.assert_array_equal(xp.to_host(y), np.arange(9.0).reshape(3, 3) + 1)
    np.testing.assert_array_equal(xp.to_host(b), np.arange(9.0).reshape(3, 3))


def test_batches(on):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((5, 1, 2, 3)), rng.standard_normal((4, 3, 6))
    np.testing.assert_allclose(xp.to_host(matmul(on(a), on(b))), a @ b, atol=1e-14)
    out = on(np.zeros((5, 4, 2, 6)))
    assert matmul(on(a), on(b), out=out) is out
    np.testing.assert_allclose(xp.to_host(out), a @ b, atol=1e-14)


def test_an_unknown_activation_is_named(on):
    with pytest.raises(ValueError, match="gemm: unknown activation 'rely'"):
        gemm(on(np.eye(2)), on(np.eye(2)), activation="rely")
