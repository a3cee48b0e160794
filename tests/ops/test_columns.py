"""What the dense layer does along columns, on every engine: bias and activation in place, their gradient with its sums."""

import numpy as np
import pytest

from engines import host_engine, launches, peak_bytes  # noqa: F401 - a fixture
from kobai.ops.linear import columns

pytestmark = pytest.mark.usefixtures("host_engine")
VALUES = {
    None: lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
}
SLOPES = {"relu": lambda y: y > 0, "sigmoid": lambda y: y * (1 - y), "tanh": lambda y: 1 - y * y}
SHAPES = [
    (1, 1),
    (1, 7),
    (5, 1),
    (3, 2),
    (0, 4),
    (4, 0),
    (63, 17),
    (64, 16),
    (65, 100),
    (130, 33),
    (3, 2500),
    (300, 1100),
]
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
shapes = pytest.mark.parametrize("shape", SHAPES)


@pytest.mark.few(5)
@both
@shapes
@pytest.mark.parametrize("activation", VALUES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_bias_and_activation(dtype, shape, activation, has_bias):
    rng = np.random.default_rng(0)
    z, bias = rng.normal(size=shape).astype(dtype) * 3, rng.normal(size=shape[1]).astype(dtype)
    wanted = VALUES[activation](z.astype(np.longdouble) + (bias if has_bias else 0))
    y = columns.bias_activation(z, bias if has_bias else None, activation)
    assert y is z
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, wanted.astype(np.float64), rtol=8 * eps, atol=8 * eps)


@both
@shapes
def test_sums_of_columns(dtype, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    wanted = x.astype(np.longdouble).sum(axis=0).astype(np.float64)
    slack = 4 * np.finfo(dtype).eps * np.sqrt(shape[0] + 1)
    np.testing.assert_allclose(columns.column_sums(x), wanted, rtol=slack, atol=4 * slack)
    np.testing.assert_allclose(columns.column_sums(np.asfortranarray(x)), wanted, rtol=slack, atol=4 * slack)


@pytest.mark.few(5)
@both
@shapes
@pytest.mark.parametrize("activation", SLOPES)
def test_backward_with_sums(dtype, shape, activation):
    rng = np.random.default_rng(0)
    dy, y = rng.normal(size=shape).astype(dtype), np.maximum(rng.uniform(-0.9, 0.9, shape), 0).astype(dtype)
    before = dy.copy(), y.copy()
    wanted = dy.astype(np.longdouble) * SLOPES[activation](y.astype(np.longdouble))
    eps = np.finfo(dtype).eps
    for sums in (True, False):
        dz, db = columns.activation_backward(dy, y, activation, sums)
        np.testing.assert_allclose(dz, wanted.astype(np.float64), rtol=8 * eps, atol=8 * eps)
        if db is not None:
            assert sums
            slack = 8 * eps * np.sqrt(shape[0] + 1)
            np.testing.assert_allclose(db, wanted.sum(axis=0).astype(np.float64), rtol=slack, atol=4 * slack)
    np.testing.assert_array_equal(dy, before[0])
    np.testing.assert_array_equal(y, before[1])


def test_many_rows_are_added_up_more_accurately_than_one_by_one(host_engine):  # noqa: F811
    if host_engine == "reference":
        pytest.skip("NumPy adds rows one by one")
    x = np.full((200_000, 3), 0.1, np.float32)
    np.testing.assert_allclose(columns.column_sums(x), 20_000, rtol=2e-6)


def test_nan_and_infinity():
    z = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    np.testing.assert_array_equal(columns.bias_activation(z.copy(), np.zeros(3, np.float32), None), z)
    relu = columns.bias_activation(z.copy(), np.zeros(3, np.float32), "relu")
    np.testing.assert_array_equal(relu, [[np.nan, np.inf, 0]])
    dz, _ = columns.activation_backward(np.full((1, 3), np.nan, np.float32), relu, "relu", True)
    assert np.isnan(dz[0, 1])
    assert np.isnan(columns.column_sums(z)[0])


def test_compiled_loops_allocate_nothing(monkeypatch, host_engine):  # noqa: F811
    if host_engine == "reference":
        pytest.skip("NumPy's functions make arrays")
    x, b = np.ones((100, 300), np.float32), np.ones(300, np.float32)
    noted = launches(monkeypatch)
    columns.bias_activation(x, b, "relu")
    columns.column_sums(x)
    columns.activation_backward(x, x, "tanh", True)
    assert len(noted) == 3
    for kernel, args in noted:
        assert peak_bytes(lambda kernel=kernel, args=args: kernel(*args)) < 1000


@pytest.mark.parametrize("activation", VALUES)
def test_in_parts(monkeypatch, activation):
    monkeypatch.setattr(columns, "LIGHT", 64)
    monkeypatch.setattr(columns, "EXPONENTIALS", 64)
    rng = np.random.default_rng(0)
    x, bias = rng.normal(size=(70, 90)), rng.normal(size=90)
    np.testing.assert_allclose(columns.column_sums(x), x.sum(axis=0), rtol=1e-12, atol=1e-12)
    y = columns.bias_activation(x.copy(), bias, activation)
    np.testing.assert_allclose(y, VALUES[activation](x + bias), rtol=1e-12, atol=1e-14)
    if activation is not None:
        dz, db = columns.activation_backward(x, y, activation, True)
        np.testing.assert_allclose(dz, x * SLOPES[activation](y), rtol=1e-12, atol=1e-14)
        if db is not None:
            np.testing.assert_allclose(db, dz.sum(axis=0), rtol=1e-12, atol=1e-12)
