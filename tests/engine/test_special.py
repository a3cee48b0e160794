"""erf and erfc against the C library on a dense grid."""

import math

import numpy as np
import pytest

import strict  # noqa: F401 - registers the backend
from kobai import xp
from kobai.engine.special import erf, erfc

GRID = np.concatenate(
    [np.linspace(-7, 7, 20001), np.logspace(-300, 1, 500), -np.logspace(-300, 1, 500), [0.0, 1.0, -1.0]]
)


def relative_error(got, wanted):
    wanted = np.array(wanted)
    there = wanted != 0
    assert (got[~there] == 0).all()
    return np.abs(got[there].astype(np.float64) / wanted[there] - 1).max()


def test_erf_in_double_precision():
    assert relative_error(erf(GRID), [math.erf(v) for v in GRID]) < 1e-15


def test_erf_in_single_precision():
    x = np.linspace(-6, 6, 100001).astype(np.float32)
    y = erf(x)
    assert y.dtype == np.float32
    assert relative_error(y, [math.erf(v) for v in x]) < 5e-7
    assert np.abs(y).max() == 1
    assert (erf(-x) == -y).all()


def test_erfc_in_double_precision_also_where_it_is_tiny():
    x = np.linspace(-6, 26, 20001)
    assert relative_error(erfc(x), [math.erfc(v) for v in x]) < 2e-15


def test_erfc_in_single_precision():
    x = np.linspace(-4, 9, 5001).astype(np.float32)
    assert relative_error(erfc(x), [math.erfc(v) for v in x]) < 2e-7


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_limits(dtype):
    x = np.array([np.inf, -np.inf, np.nan, 40.0, -40.0], dtype)
    assert erf(x).dtype == dtype
    np.testing.assert_array_equal(erf(x), np.array([1, -1, np.nan, 1, -1], dtype))
    np.testing.assert_array_equal(erfc(x), np.array([0, 2, np.nan, 0, 2], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_shape_and_the_device_rules(dtype):
    for shape in [(), (0, 3), (2, 1, 3)]:
        x = np.full(shape, 0.5, dtype)
        for f in (erf, erfc):
            assert f(x).shape == shape
            device = f(xp.asarray(x, device="strict"))
            np.testing.assert_array_equal(xp.to_host(device), f(x))
