"""relu and sigmoid on raw arrays: blocks, layouts, writing in place, extreme values."""

import numpy as np
import pytest

from kobai.kernels.activation import BLOCK, at_least, relu, sigmoid
from kobai.kernels.rows import row_max, row_sum


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_relu_in_blocks(size):
    x = np.random.default_rng(0).normal(size=size).astype(np.float32)
    wanted = np.maximum(x, 0)
    np.testing.assert_array_equal(relu(x), wanted)
    assert relu(x, out=x) is x
    np.testing.assert_array_equal(x, wanted)


def test_relu_keeps_integers_and_nan_and_takes_any_layout():
    assert relu(np.array([-1, 2])).dtype == np.int64
    np.testing.assert_array_equal(relu(np.array([np.nan, -1.0, np.inf])), [np.nan, 0, np.inf])
    x = np.random.default_rng(0).normal(size=(6, 8)).T[::2]
    np.testing.assert_array_equal(relu(x), np.maximum(x, 0))
    np.testing.assert_array_equal(at_least(x, -0.5), np.maximum(x, -0.5))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_sigmoid_is_accurate_everywhere_and_never_overflows(dtype):
    x = np.concatenate([np.linspace(-80, 80, 2001) if dtype != np.float16 else np.linspace(-5, 8, 100)]).astype(dtype)
    wide = x.astype(np.longdouble)
    np.testing.assert_allclose(sigmoid(x), (1 / (1 + np.exp(-wide))).astype(dtype), rtol=4 * np.finfo(dtype).eps)
    y = sigmoid(np.array([-np.inf, -6e4, 6e4, np.inf, np.nan], dtype))
    np.testing.assert_allclose(y, [0, 0, 1, 1, np.nan], atol=1e-4 if dtype == np.float16 else 1e-37)
    assert sigmoid(np.array(0.0, dtype)) == 0.5


def test_sigmoid_in_place():
    x = np.array([[-1.0, 0.0], [1.0, 2.0]])
    wanted = 1 / (1 + np.exp(-x))
    assert sigmoid(x, out=x) is x
    np.testing.assert_allclose(x, wanted, rtol=1e-15)


@pytest.mark.parametrize("shape", [(5, 10), (3, 64), (3, 65), (0, 4), (1, 1)])
def test_row_reductions(shape):
    x = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_array_equal(row_max(x), x.max(axis=1))
    np.testing.assert_allclose(row_sum(x), x.sum(axis=1), rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(row_max(np.repeat(x, 2, axis=1)[:, ::2]), x.max(axis=1))
