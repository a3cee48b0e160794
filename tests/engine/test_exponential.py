"""e^x, σ and tanh of compiled loops: accuracy over the whole range, and what happens at its ends."""

import numpy as np
import pytest

from kobai.engine.dispatch import compiled
from kobai.engine.exponential import exp, sigmoid, tanh

pytest.importorskip("numba")


@compiled
def _exp(x, y):
    for i in range(x.size):
        y[i] = exp(x[i])


@compiled
def _sigmoid(x, y):
    for i in range(x.size):
        y[i] = sigmoid(x[i])


@compiled
def _tanh(x, y):
    for i in range(x.size):
        y[i] = tanh(x[i])


LOOPS = {
    "exp": (_exp, lambda x: np.exp(x), 1.1),
    "sigmoid": (_sigmoid, lambda x: np.exp(-np.abs(x) * (x < 0)) / (1 + np.exp(-np.abs(x))), 3),
    "tanh": (_tanh, lambda x: np.tanh(x), 2),
}
SCALES = [1e-30, 1e-3, 0.3, 1, 10, 100, 400, 1e5]
case = pytest.mark.parametrize("name", LOOPS)
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def applied(name, x):
    y = np.empty_like(x)
    LOOPS[name][0](x, y)
    return y


@case
@both
def test_within_a_few_units_in_the_last_place_over_the_whole_range(name, dtype):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-s, s, 20_000) for s in SCALES]).astype(dtype)
    with np.errstate(over="ignore", under="ignore"):
        exact = LOOPS[name][1](x.astype(np.longdouble))
        rounded = exact.astype(dtype)  # where that overflows or vanishes, so must ours
    found = applied(name, x)
    np.testing.assert_array_equal(np.isinf(found), np.isinf(rounded))
    finite = np.isfinite(rounded)
    error = np.abs(found[finite] - exact[finite]) / np.spacing(np.abs(rounded[finite]))
    assert error.max() < LOOPS[name][2]


@case
@both
def test_ends_of_the_range(name, dtype):
    x = np.array([np.inf, -np.inf, np.nan, -np.nan, 0.0, -0.0, 1e4, -1e4], dtype)
    wanted = {
        "exp": [np.inf, 0, np.nan, np.nan, 1, 1, np.inf, 0],
        "sigmoid": [1, 0, np.nan, np.nan, 0.5, 0.5, 1, 0],
        "tanh": [1, -1, np.nan, np.nan, 0.0, -0.0, 1, -1],
    }[name]
    for spread in (x, np.tile(x, 9)):  # the vectorised part of the loop, and the rest
        found = applied(name, spread)
        np.testing.assert_array_equal(found, np.tile(wanted, len(spread) // 8).astype(dtype))
        if name == "tanh":
            assert (np.signbit(found[4::8]) == [False] * len(found[4::8])).all()
            assert np.signbit(found[5::8]).all()


@both
def test_denormal_results(dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    x = np.log(np.array([1.0, 3.0, 100.0]) * np.longdouble(smallest)).astype(dtype)
    found = applied("exp", x) / smallest
    np.testing.assert_allclose(found.astype(np.float64), np.exp(x.astype(np.longdouble)) / smallest, atol=1)
    assert (found > 0).all()


@both
def test_never_more_than_one_and_monotone_at_the_seam_of_tanh(dtype):
    x = np.linspace(0.6249, 0.6251, 2001).astype(dtype)
    y = applied("tanh", x)
    assert (np.diff(y) >= -2 * np.finfo(dtype).eps).all()
    wide = np.linspace(-50, 50, 10_001).astype(dtype)
    assert np.abs(applied("tanh", wide)).max() <= 1
    assert applied("sigmoid", wide).max() <= 1
