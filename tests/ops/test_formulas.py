"""Activation kernels: blocks, layouts, writing in place, extreme values, accuracy; also the row reductions."""

import numpy as np
import pytest

from kobai.engine import dispatch
from kobai.formula.numpy_code import BLOCK_BYTES
from kobai.ops import _formulas
from kobai.ops._formulas import relu, sigmoid
from kobai.ops._rows import row_max, row_sum

BLOCK = BLOCK_BYTES // 4


@pytest.fixture(params=[False, True], ids=["numpy", "numba"], autouse=True)
def engines(request, monkeypatch):
    if request.param:
        pytest.importorskip("numba")
    monkeypatch.setattr(dispatch, "numba_installed", request.param)


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


def test_a_gradient_passes_where_the_value_is_nan_and_zero_stops_infinity():
    """As PyTorch's, which compares and selects; a product with a mask would give NaN for 0 · ∞."""
    dy = np.array([np.inf, np.nan, 1, 2, 3], np.float32)
    y = np.array([0, 0, 0, np.nan, 5], np.float32)
    np.testing.assert_array_equal(_formulas.relu_backward(dy, y), [0, 0, 0, 2, 3])


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


@pytest.mark.parametrize(("dtype", "roundings"), [(np.float32, 8), (np.float64, 8)])
@pytest.mark.parametrize(
    ("kernel", "options", "reference"),
    [
        (_formulas.softplus, {"beta": 1.0, "threshold": 1e9}, lambda x: np.logaddexp(0, x)),
        (_formulas.logsigmoid, {}, lambda x: -np.logaddexp(0, -x)),
        (_formulas.elu, {"alpha": 1.0, "scale": 1.0, "rate": 1.0}, lambda x: np.where(x > 0, x, np.expm1(x))),
        (_formulas.tanh, {}, np.tanh),
        (_formulas.mish, {}, lambda x: x * np.tanh(np.logaddexp(0, x))),
        (_formulas.silu, {}, lambda x: x / (1 + np.exp(-x))),
    ],
)
def test_they_keep_their_digits_where_they_are_small(kernel, options, reference, dtype, roundings):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-80, 80, 2000), rng.normal(size=2000) * 1e-3, [-1e-12, 1e-12, 0.0]]).astype(dtype)
    wanted = reference(x.astype(np.longdouble)).astype(dtype)
    np.testing.assert_allclose(kernel(x, **options), wanted, rtol=roundings * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_by_the_error_function(dtype):
    math = pytest.importorskip("math")
    x = np.concatenate([np.linspace(-12, 12, 2001), [np.nan]]).astype(dtype)
    y, cdf = _formulas.gelu(x)
    wanted = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    slack = 4e-7 if dtype == np.float32 else 1e-15
    np.testing.assert_allclose(cdf, wanted, atol=slack)
    np.testing.assert_allclose(y, x * wanted, atol=12 * slack)


@pytest.mark.parametrize("shape", [(5, 10), (3, 64), (3, 65), (0, 4), (1, 1)])
def test_row_reductions(shape):
    x = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_array_equal(row_max(x), x.max(axis=1))
    np.testing.assert_allclose(row_sum(x), x.sum(axis=1), rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(row_max(np.repeat(x, 2, axis=1)[:, ::2]), x.max(axis=1))
