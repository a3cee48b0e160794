"""Group and instance normalisation: the compiled twin against the reference and float64."""

import numpy as np
import pytest

from kobai.engine import dispatch
from kobai.ops.norm import group_kernel

needs_numba = pytest.mark.skipif(not dispatch.numba_installed, reason="needs Numba")

CASES = [((2, 6, 9), 3), ((1, 4, 20), 4), ((3, 5, 4, 4), 1), ((2, 8, 2, 2, 3), 2), ((4, 4, 3), 2), ((3, 4), 2)]


def draw(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def normalised(x, dy, groups, affine=True):
    """y, dx, dweight and dbias."""
    c, dtype = x.shape[1], x.dtype
    w, b = (1 + draw(c, dtype, 1), draw(c, dtype, 2)) if affine else (None, None)
    y, backward = group_kernel.group_norm(x, w, b, groups, 1e-5)
    return [y, *(g() for g in backward(dy))]


def by_reference(monkeypatch, *args):
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "numba_installed", False)
        return normalised(*args)


@needs_numba
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_twin_agrees_with_the_reference(case, dtype, monkeypatch):
    shape, groups = case
    x, dy = draw(shape, dtype), draw(shape, dtype, 5)
    slack = 5e-5 if dtype == "float32" else 1e-12
    for affine in (True, False):
        found, wanted = normalised(x, dy, groups, affine), by_reference(monkeypatch, x, dy, groups, affine)
        for left, right in zip(found, wanted, strict=True):
            assert left.dtype == right.dtype == dtype
            assert left.shape == right.shape
            np.testing.assert_allclose(left, right, rtol=slack, atol=slack)


@needs_numba
def test_a_large_mean_costs_no_digits(monkeypatch):
    x, dy = draw((3, 4, 500), "float32") + np.float32(1000), draw((3, 4, 500), "float32", 5)
    found, wanted = normalised(x, dy, 2), by_reference(monkeypatch, x.astype("float64"), dy.astype("float64"), 2)
    for left, right in zip(found, wanted, strict=True):
        np.testing.assert_allclose(left, right, rtol=2e-5, atol=2e-5)


@needs_numba
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_spoils_its_group_alone(value, monkeypatch):
    x, dy = draw((2, 4, 10), "float64"), draw((2, 4, 10), "float64", 5)
    x[1, 0, 3] = value
    for left, right in zip(normalised(x, dy, 2)[:2], by_reference(monkeypatch, x, dy, 2)[:2], strict=True):
        assert np.isnan(left[1, :2]).all()
        np.testing.assert_allclose(left[0], right[0], rtol=1e-12)
        np.testing.assert_allclose(left[1, 2:], right[1, 2:], rtol=1e-12)


@needs_numba
def test_threads_share_the_groups_of_large_arrays(monkeypatch):
    x, dy = draw((20, 6, 10), "float64"), draw((20, 6, 10), "float64", 5)
    wanted = normalised(x, dy, 3)
    monkeypatch.setattr(group_kernel, "GRAIN", 200)
    for left, right in zip(normalised(x, dy, 3), wanted, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.thorough
@needs_numba
def test_loops_allocate_nothing():
    numba = pytest.importorskip("numba")
    from kobai.ops.batch_norm import kernel as batch_norm_kernel, loops as loops
    from kobai.ops.norm import layer_kernel

    for shape in ((4, 3), (4, 3, 8)):
        x, v = draw(shape, "float32"), draw(3, "float32")
        batch_norm_kernel.train(x, v, v, v.copy(), v.copy(), 0.1, 1e-5, "relu")[1](x)
        batch_norm_kernel.affine(x, v, v, v, "relu")
    normalised(draw((2, 4, 10), "float32"), draw((2, 4, 10), "float32"), 2)
    x = draw((5, 3), "float32")
    layer_kernel.layer_norm(x, None, None, 3, 1e-5, True)[1](x)
    twins = [kernel for module in (loops, group_kernel, layer_kernel) for kernel in vars(module).values()]
    twins = {kernel for kernel in twins if isinstance(kernel, dispatch.compiled)}
    assert len(twins) == 16
    for twin in twins:
        if twin.dispatcher is None:
            continue  # used inside others only
        for signature in twin.dispatcher.signatures:
            again = numba.njit(error_model="numpy")(twin.dispatcher.py_func)  # one from the disk has no source
            again.compile(signature)
            assert "NRT_MemInfo_alloc" not in again.inspect_llvm(signature), twin.function.__name__
            assert "NRT_Allocate" not in again.inspect_llvm(signature), twin.function.__name__
