"""Medians, k-th values and the first k, found without sorting all, against stable sorts: ties, NaN, infinities, every dtype."""

import numpy as np
import pytest

import kobai
from engines import host_engine  # noqa: F401 - a fixture
from kobai.cpu import threads

pytestmark = pytest.mark.usefixtures("host_engine")
SHAPES = [((7,), 0), ((40, 30), 1), ((40, 30), 0), ((3, 90, 4), 1), ((5, 1), 1), ((2, 3, 200), -1)]


def draw(shape, dtype, seed=0):
    """With many ties; floats with NaN and infinities too."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 9, size=shape).astype(dtype)
    if x.dtype.kind == "f":
        x = np.where(x == 8, np.inf, np.where(x == 7, -np.inf, x)).astype(dtype)
        x[rng.random(shape) < 0.02] = np.nan
    return x


def order(x, axis, largest=False):
    if not largest:
        return np.argsort(x, axis=axis, kind="stable")
    backwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(backwards, axis)


dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.uint8])
shapes = pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)


@dtypes
@shapes
def test_kthvalue_is_that_of_a_stable_sort(shape, axis, dtype):
    x = draw(shape, dtype)
    for k in {1, x.shape[axis] // 2 + 1, x.shape[axis]}:
        values, indices = kobai.from_numpy(x).kthvalue(k, axis)
        wanted = np.take(order(x, axis), k - 1, axis=axis)
        np.testing.assert_array_equal(indices.numpy(), wanted)
        np.testing.assert_array_equal(
            values.numpy(), np.take_along_axis(x, np.expand_dims(wanted, axis), axis).squeeze(axis)
        )


@dtypes
@shapes
@pytest.mark.parametrize("name", ["median", "nanmedian"])
def test_median_is_that_of_a_stable_sort(shape, axis, dtype, name):
    x = draw(shape, dtype)
    values, indices = getattr(kobai.from_numpy(x), name)(axis)
    known = (x == x).sum(axis, keepdims=True)
    n = x.shape[axis]
    rank = np.maximum(known - 1, 0) // 2 if name == "nanmedian" else np.where(known < n, known, (n - 1) // 2)
    wanted = np.take_along_axis(order(x, axis), rank, axis)
    np.testing.assert_array_equal(indices.numpy(), wanted.squeeze(axis))
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, wanted, axis).squeeze(axis))
    whole = getattr(kobai.from_numpy(x), name)().numpy()
    np.testing.assert_array_equal(whole, getattr(kobai.from_numpy(x.reshape(-1)), name)(0)[0].numpy())
    assert whole.dtype == x.dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("largest", [True, False])
@shapes
def test_topk_are_the_first_of_a_stable_sort(shape, axis, dtype, largest, host_engine):  # noqa: F811
    x = draw(shape, dtype)
    for k in {0, 1, min(5, x.shape[axis]), x.shape[axis]}:
        values, indices = kobai.from_numpy(x).topk(k, axis, largest)
        wanted = np.take(order(x, axis, largest), range(k), axis=axis)
        np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, wanted, axis))
        if host_engine == "numba" or k == x.shape[axis]:  # NumPy's partition chooses among equals as it likes
            np.testing.assert_array_equal(indices.numpy(), wanted)


def test_topk_of_many_and_of_another_layout():
    x = np.random.default_rng(0).normal(size=(30, 200)).astype(np.float32)
    for k in (64, 65, 199):
        np.testing.assert_array_equal(kobai.from_numpy(x).topk(k)[0].numpy(), np.sort(x)[:, ::-1][:, :k])
        np.testing.assert_array_equal(
            kobai.from_numpy(x.T).topk(min(k, 30), 1)[0].numpy(), np.sort(x.T)[:, ::-1][:, :k]
        )


def test_captured_as_eager_and_with_any_number_of_threads():
    x = kobai.from_numpy(draw((700, 800), np.float32))
    step = lambda x: (*x.topk(3), *x.median(1), *x.nanmedian(0), *x.kthvalue(5, 0), x.median())  # noqa: E731
    captured = kobai.capture(step)
    try:
        for n in (1, 1, 1, 2):
            threads.set_num_threads(n)
            for one, other in zip(step(x), captured(x), strict=True):
                np.testing.assert_array_equal(one.numpy(), other.numpy())
    finally:
        threads.set_num_threads(None)
