"""softmax and log_softmax on every engine: against sums in extended precision, at the ends of the range, along any axis."""

import numpy as np
import pytest

from engines import host_engine, launches, peak_bytes  # noqa: F401 - a fixture
from kobai.cpu import threads
from kobai.ops.softmax import kernel as kernels

pytestmark = pytest.mark.usefixtures("host_engine")
FUNCTIONS = ["softmax", "log_softmax"]
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each = pytest.mark.parametrize("name", FUNCTIONS)


def exact(name, x, axis):
    x = x.astype(np.longdouble)
    z = x - x.max(axis=axis, keepdims=True)
    log = z - np.log(np.exp(z).sum(axis=axis, keepdims=True))
    return np.exp(log) if name == "softmax" else log


def exact_backward(name, dy, y, axis):
    dy, y = dy.astype(np.longdouble), y.astype(np.longdouble)
    if name == "softmax":
        return y * (dy - (dy * y).sum(axis=axis, keepdims=True))
    return dy - np.exp(y) * dy.sum(axis=axis, keepdims=True)


SHAPES = [
    ((1, 1), 1),
    ((100, 10), 1),
    ((7, 16), 1),
    ((5, 255), 1),
    ((3, 256), 1),
    ((9, 1000), 1),
    ((2, 5000), 1),
    ((6,), 0),
]
SHAPES += [((4, 3), 0), ((2, 3, 4), 1), ((2, 3, 4, 5), 1), ((40, 1, 3), 1), ((1100, 1000), 1)]
SHAPES += [((300, 9), 0), ((3, 70, 7), 1), ((2, 5, 1030), 1), ((1, 600), 0), ((1100, 1000), 0)]


@pytest.mark.few(5)
@each
@both
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (20, 0), (1, 500), (1, -500), (300, 0)])
def test_forward_and_backward(name, dtype, shape, axis, scale, shift):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=shape) * scale + shift).astype(dtype)
    y = getattr(kernels, name)(x, axis)
    wanted = exact(name, x, axis)
    assert y.dtype == dtype
    assert y.shape == shape
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, wanted.astype(np.float64), rtol=40 * eps, atol=40 * eps)
    dy = rng.normal(size=shape).astype(dtype)
    dx = getattr(kernels, f"{name}_backward")(dy, y, axis)
    slack = 8 * eps * np.sqrt(shape[axis]) * 4
    np.testing.assert_allclose(dx, exact_backward(name, dy, y, axis).astype(np.float64), rtol=slack, atol=slack)


@each
@both
@pytest.mark.parametrize("columns", [5, 700])
def test_infinite_and_nan_scores(name, dtype, columns):
    x = np.zeros((6, columns), dtype)
    x[0, 1] = -np.inf  # a class that cannot be
    x[1] = -np.inf  # none can be
    x[2, 3] = np.nan
    x[3, 3] = np.inf
    x[4, 2] = np.copysign(np.nan, -1)
    y = getattr(kernels, name)(x, 1)
    assert y[0, 1] == (0 if name == "softmax" else -np.inf)
    np.testing.assert_allclose(np.exp(y[0]).sum() if name == "log_softmax" else y[0].sum(), 1, rtol=1e-5)
    assert np.isnan(y[1:5]).all()
    np.testing.assert_allclose(y[5], 1 / columns if name == "softmax" else -np.log(columns), rtol=1e-6)
    np.testing.assert_allclose(getattr(kernels, name)(np.ascontiguousarray(x.T), 0), y.T, rtol=1e-6)


@each
def test_layouts_that_are_not_row_by_row(name):
    x = np.random.default_rng(1).normal(size=(6, 9)).astype(np.float32)
    wanted = getattr(kernels, name)(x, 1)
    for view in (x.T.copy().T, np.repeat(x, 2, axis=1)[:, ::2], x[::-1][::-1]):
        np.testing.assert_allclose(getattr(kernels, name)(view, 1), wanted, rtol=1e-6)
        backward = getattr(kernels, f"{name}_backward")
        np.testing.assert_allclose(backward(view, wanted, 1), backward(x, wanted, 1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(getattr(kernels, name)(x.T, 0), wanted.T, rtol=1e-6)


@each
def test_half_precision_is_the_references(name):
    x = np.random.default_rng(1).normal(size=(6, 9)).astype(np.float16)
    y = getattr(kernels, name)(x, 1)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, exact(name, x, 1).astype(float), rtol=5e-3, atol=5e-3)


@each
def test_compiled_loops_allocate_nothing(name, monkeypatch, host_engine):  # noqa: F811
    if host_engine == "reference":
        pytest.skip("NumPy's functions make arrays")
    x = np.random.default_rng(1).normal(size=(100, 300)).astype(np.float32)
    noted = launches(monkeypatch)
    y = getattr(kernels, name)(x, 1)
    getattr(kernels, f"{name}_backward")(x, y, 1)
    assert len(noted) == 2
    for kernel, args in noted:
        assert peak_bytes(lambda kernel=kernel, args=args: kernel(*args)) < 1000


@each
def test_a_column_is_computed_as_if_it_were_alone(name):
    x = np.random.default_rng(1).normal(size=(90, 40)).astype(np.float32)
    y = getattr(kernels, name)(x, 0)
    x[:, 3], x[:, 5] = 1e30, x[:, 5] + 700
    beside = getattr(kernels, name)(x, 0)
    others = [j for j in range(40) if j not in (3, 5)]
    np.testing.assert_array_equal(beside[:, others], y[:, others])
    np.testing.assert_array_equal(getattr(kernels, name)(x[:, 8:28].copy(), 0), y[:, 8:28])


@each
def test_loops_down_columns_allocate_nothing_and_their_bits_need_no_number_of_threads(name, monkeypatch, host_engine):  # noqa: F811
    if host_engine == "reference":
        pytest.skip("NumPy's functions make arrays")
    x = np.random.default_rng(1).normal(size=(2, 300, 3000)).astype(np.float32)
    found = []
    try:
        for n in (1, 3):
            threads.set_num_threads(n)
            y = getattr(kernels, name)(x, 1)
            found.append((y, getattr(kernels, f"{name}_backward")(x, y, 1)))
    finally:
        threads.set_num_threads(None)
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)
    noted = launches(monkeypatch)
    y = getattr(kernels, name)(x[:1, :20, :300].copy(), 1)
    getattr(kernels, f"{name}_backward")(y, y, 1)
    assert len(noted) == 2
    for kernel, args in noted:
        assert peak_bytes(lambda kernel=kernel, args=args: kernel(*args)) < 1000
