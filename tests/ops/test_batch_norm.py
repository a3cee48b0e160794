"""Batch normalisation: the compiled twin against the reference and float64; rounding, layouts and special values."""

import numpy as np
import pytest

import kobai
import kobai.nn.functional as F
from kobai.engine import dispatch
from kobai.ops.batch_norm import kernel, loops

needs_numba = pytest.mark.skipif(not dispatch.numba_installed, reason="needs Numba")

SHAPES = [
    (2, 3),
    (5, 1),
    (7, 33),
    (101, 100),
    (6, 1100),
    (2, 3, 1),
    (1, 4, 9),
    (5, 3, 17),
    (3, 2, 4, 5),
    (2, 2, 2, 3, 4),
]


def draw(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def trained(x, dy, activation=None, affine=True, momentum=0.25):
    """y, dx, dweight, dbias and the running statistics after one pass."""
    c, dtype = x.shape[1], x.dtype
    w, b = (1 + draw(c, dtype, 1), draw(c, dtype, 2)) if affine else (None, None)
    mean, var = draw(c, dtype, 3), 1 + draw(c, dtype, 4) ** 2
    y, backward = kernel.train(x, w, b, mean, var, momentum, 1e-5, activation)
    return [y, *(g() if callable(g) else g for g in backward(dy)), mean, var]


def by_reference(monkeypatch, function, *args, **options):
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "numba_installed", False)
        return function(*args, **options)


@needs_numba
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_twin_agrees_with_the_reference(shape, activation, dtype, monkeypatch):
    x, dy = draw(shape, dtype), draw(shape, dtype, 5)
    for affine in (True, False):
        found = trained(x, dy, activation, affine)
        wanted = by_reference(monkeypatch, trained, x, dy, activation, affine)
        slack = 2e-4 if dtype == "float32" else 1e-11  # for a channel of two almost equal values
        for left, right in zip(found, wanted, strict=True):
            assert left.dtype == right.dtype == dtype
            assert left.shape == right.shape
            np.testing.assert_allclose(left, right, rtol=slack, atol=slack)


@pytest.mark.parametrize("numba", [pytest.param(True, marks=needs_numba), False], ids=["numba", "reference"])
@pytest.mark.parametrize("shape", [(1000, 8), (10, 8, 100)], ids=str)
def test_a_large_mean_costs_no_more_digits_than_it_must(shape, numba, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_installed", numba)
    x, dy = draw(shape, "float32") + np.float32(1000), draw(shape, "float32", 5)
    single = trained(x, dy)
    monkeypatch.setattr(dispatch, "numba_installed", False)
    double = trained(x.astype("float64"), dy.astype("float64"))
    for left, right in zip(single, double, strict=True):
        # the mean itself has a spacing of 6e-5 in float32, which the twin keeps in two parts
        np.testing.assert_allclose(left, right, rtol=2e-5, atol=2e-5 if numba else 5e-3)


@needs_numba
def test_the_first_element_may_be_far_from_the_others():
    x = draw((1000, 4), "float32")
    x[0] = 1e4
    y = trained(x, x)[0]
    kept = by_reference(pytest.MonkeyPatch(), trained, x.astype("float64"), x.astype("float64"))[0]
    np.testing.assert_allclose(y, kept, rtol=1e-4, atol=1e-6)


@needs_numba
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("place", [0, -1])
def test_what_is_not_finite_spoils_its_channel_alone(shape, place, value, monkeypatch):
    x, dy = draw(shape, "float32"), draw(shape, "float32", 5)
    x[(place, 1) if x.ndim == 2 else (place, 1, place)] = value
    for activation in (None, "relu"):
        for left, right in zip(
            trained(x, dy, activation), by_reference(monkeypatch, trained, x, dy, activation), strict=True
        ):
            finite = np.ones(left.shape, bool)
            finite[(slice(None), 1) if left.ndim > 1 else 1] = False
            np.testing.assert_allclose(left[finite], right[finite], rtol=1e-5, atol=1e-5)
        y = trained(x, dy, activation)[0]
        assert np.isnan(y[:, 1]).all()


@needs_numba
def test_a_constant_channel_is_normalised_to_the_bias():
    x = np.full((50, 2), 1000.1, np.float32)
    y, dx, *_ = trained(x, draw((50, 2), "float32"))
    np.testing.assert_array_equal(y, np.broadcast_to(draw(2, "float32", 2), (50, 2)))
    assert np.isfinite(dx).all()


@needs_numba
def test_layouts_and_dtypes_that_the_twin_does_not_take_go_to_the_reference():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3))
    wanted = F.batch_norm(kobai.tensor(x), None, None, training=True).numpy()
    for odd in (np.asfortranarray(x), np.repeat(x, 2, 0)[::2]):
        assert dispatch.engine_for([odd]) is None
        np.testing.assert_allclose(F.batch_norm(kobai.from_numpy(odd), None, None, training=True).numpy(), wanted)
    half = F.batch_norm(kobai.tensor(x).half(), None, None, training=True)
    assert half.dtype == kobai.float16


@pytest.mark.parametrize("numba", [pytest.param(True, marks=needs_numba), False], ids=["numba", "reference"])
def test_running_statistics_in_every_form(numba, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_installed", numba)
    x = draw((20, 3), "float32")
    double = x.astype("float64")
    for momentum in (0.25, 1, np.array(0.5)):
        for dtype in ("float32", "float64"):
            for given in ((True, True), (True, False), (False, True)):
                mean, var = (np.ones(3, dtype) if wanted else None for wanted in given)
                kernel.train(x, None, None, mean, var, momentum, 1e-5, None)
                share = float(momentum)
                if mean is not None:
                    np.testing.assert_allclose(mean, (1 - share) + share * double.mean(0), rtol=1e-5, atol=1e-6)
                    assert mean.dtype == dtype
                if var is not None:
                    np.testing.assert_allclose(var, (1 - share) + share * double.var(0, ddof=1), rtol=1e-5)


@needs_numba
@pytest.mark.parametrize("activation", [None, "relu"])
def test_evaluation_agrees_with_the_reference(activation, monkeypatch):
    for shape in [*SHAPES, (0, 3), (2, 3, 0)]:
        for dtype in ("float32", "float64"):
            c = shape[1]
            args = draw(shape, dtype), draw(c, dtype, 1), 1 + draw(c, dtype, 2), draw(c, dtype, 3), activation
            found = kernel.affine(*args)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, by_reference(monkeypatch, kernel.affine, *args), rtol=1e-4, atol=1e-5)


@needs_numba
def test_threads_share_the_channels_of_large_arrays(monkeypatch):
    monkeypatch.setattr(loops, "GRAIN", 1000)
    for shape in ((100, 50), (10, 50, 10)):
        x, dy = draw(shape, "float64"), draw(shape, "float64", 5)
        for left, right in zip(trained(x, dy, "relu"), by_reference(monkeypatch, trained, x, dy, "relu"), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-11)


@needs_numba
def test_what_has_been_read_only_or_broadcast_is_taken_too():
    x, dy = draw((6, 3), "float64"), np.broadcast_to(np.float64(1.5), (6, 3))
    x.flags.writeable = False
    wanted = trained(x.copy(), dy.copy())
    for left, right in zip(trained(x, dy), wanted, strict=True):
        np.testing.assert_array_equal(left, right)
