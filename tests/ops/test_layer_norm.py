"""Layer normalisation: the compiled twin against the reference and float64; rounding, layouts and special values."""

import numpy as np
import pytest

import kobai
import kobai.nn.functional as F
from kobai.engine import dispatch
from kobai.ops.norm import layer_kernel

needs_numba = pytest.mark.skipif(not dispatch.numba_installed, reason="needs Numba")
both = pytest.mark.parametrize("numba", [pytest.param(True, marks=needs_numba), False], ids=["numba", "reference"])

SHAPES = [(1, 5), (6, 2), (40, 33), (3, 1000), (2, 3, 17), (2, 3, 4, 5)]


def draw(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def normalised(x, dy, affine=True, centre=True):
    """y, dx, dweight and dbias."""
    size, dtype = x.shape[-1], x.dtype
    w, b = (1 + draw(size, dtype, 1), draw(size, dtype, 2)) if affine else (None, None)
    y, backward = layer_kernel.layer_norm(x, w, b, size, 1e-5, centre)
    return [y, *(g() for g in backward(dy))]


def by_reference(monkeypatch, function, *args, **options):
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "numba_installed", False)
        return function(*args, **options)


@needs_numba
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("centre", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_twin_agrees_with_the_reference(shape, centre, dtype, monkeypatch):
    x, dy = draw(shape, dtype), draw(shape, dtype, 5)
    slack = 5e-5 if dtype == "float32" else 1e-12
    for affine in (True, False):
        found = normalised(x, dy, affine, centre)
        wanted = by_reference(monkeypatch, normalised, x, dy, affine, centre)
        for left, right in zip(found, wanted, strict=True):
            assert left.dtype == right.dtype == dtype
            assert left.shape == right.shape
            np.testing.assert_allclose(left, right, rtol=slack, atol=slack)


@both
def test_a_large_mean_costs_no_more_digits_than_it_must(numba, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_installed", numba)
    x, dy = draw((50, 1000), "float32") + np.float32(1000), draw((50, 1000), "float32", 5)
    single = normalised(x, dy)
    monkeypatch.setattr(dispatch, "numba_installed", False)
    double = normalised(x.astype("float64"), dy.astype("float64"))
    for left, right in zip(single, double, strict=True):
        np.testing.assert_allclose(left, right, rtol=2e-5, atol=2e-5 if numba else 5e-3)


@needs_numba
def test_gradients_of_the_parameters_do_not_lose_digits_over_many_rows(monkeypatch):
    x, dy = draw((20000, 4), "float32"), 1 + draw((20000, 4), "float32", 5)
    found = normalised(x, dy)
    wanted = by_reference(monkeypatch, normalised, x.astype("float64"), dy.astype("float64"))
    np.testing.assert_allclose(found[3], wanted[3], rtol=1e-6)
    np.testing.assert_allclose(found[2], wanted[2], atol=20000 * 1e-7)


@needs_numba
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_what_is_not_finite_spoils_its_row_alone(place, value, monkeypatch):
    x, dy = draw((4, 5), "float32"), draw((4, 5), "float32", 5)
    x[1, place] = value
    y, dx, *_ = normalised(x, dy)
    clean = [0, 2, 3]
    wanted = by_reference(monkeypatch, normalised, x, dy)
    np.testing.assert_allclose(y[clean], wanted[0][clean], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx[clean], wanted[1][clean], rtol=1e-5, atol=1e-5)
    assert np.isnan(y[1]).all()
    assert np.isnan(dx[1]).all()


@needs_numba
def test_threads_share_the_rows_of_large_arrays(monkeypatch):
    x, dy = draw((300, 20), "float64"), draw((300, 20), "float64", 5)
    wanted = normalised(x, dy)
    monkeypatch.setattr(layer_kernel, "GRAIN", 500)
    for left, right in zip(normalised(x, dy), wanted, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)


@both
def test_odd_layouts_give_the_same(numba, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_installed", numba)
    x = draw((6, 8), "float64")
    x.flags.writeable = False
    wanted = F.layer_norm(kobai.tensor(x), (8,)).numpy()
    for odd in (x, np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2]):
        np.testing.assert_allclose(F.layer_norm(kobai.from_numpy(odd), (8,)).numpy(), wanted)
    w = kobai.ones(8, 2, dtype=kobai.float64)[:, 0].requires_grad_()
    y = F.layer_norm(kobai.tensor(x), (8,), w)
    np.testing.assert_allclose(y.detach().numpy(), wanted)
    y.sum().backward()  # of which the incoming gradient is one number, broadcast
    np.testing.assert_allclose(w.grad.numpy(), wanted.sum(0), atol=1e-12)


@both
def test_no_rows_and_one_row(numba, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_installed", numba)
    w = kobai.ones(3, requires_grad=True)
    y = F.layer_norm(kobai.zeros(0, 3), (3,), w)
    y.sum().backward()
    assert y.shape == (0, 3)
    assert w.grad.tolist() == [0, 0, 0]
    assert F.layer_norm(kobai.tensor([1.0, 2.0, 6.0]), (3,)).shape == (3,)
    assert F.layer_norm(kobai.tensor([[4.0], [2.0]]), (1,)).tolist() == [[0.0], [0.0]]


@both
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_element_by_itself_has_the_gradient_zero(dtype, numba, monkeypatch):
    monkeypatch.setattr(dispatch, "numba_installed", numba)
    x, w, b = (kobai.tensor(draw(s, dtype, i), requires_grad=True) for i, s in enumerate([(500, 1), (1,), (1,)]))
    y = F.layer_norm(x, (1,), w, b)
    y.backward(kobai.tensor(draw((500, 1), dtype, 3)))
    assert (y == b).all()
    assert (x.grad == 0).all()
    assert w.grad.item() == 0
