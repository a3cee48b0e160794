"""Sums of many float32, in every direction, running ones too, and what is computed from them: spreads about a large mean."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from engines import host_engine  # noqa: F401 - a fixture
from kobai.cpu import threads
from kobai.dtypes import FLOATING
from kobai.nn import functional as F
from kobai.ops._sums import BLOCK, cumulative_sum, suffix_sum, total

ALIKE = np.float32(0.1)  # equal terms are the worst: every rounding goes the same way

LONG = [
    ((300_000,), None),
    ((300_000, 2), (0,)),
    ((300_000, 2), None),
    ((2, 300_000), (1,)),
    ((100_000, 2, 2), (0, 2)),
    ((100_000, 2, 2), (0, 1)),
    ((2, 100_000, 3), (1,)),
    ((3 * BLOCK + 1, 5), (0,)),
    ((BLOCK * BLOCK, 1, 3), (0, 1)),
]


@pytest.mark.parametrize(("shape", "axes"), LONG, ids=str)
@pytest.mark.parametrize("layout", ["rows", "columns", "every second"])
def test_errors_do_not_grow_with_the_number_of_terms(shape, axes, layout):
    x = np.full(shape, ALIKE)
    if layout == "columns":
        x = x.T.copy().T
    elif layout == "every second":
        x = np.full((*shape[:-1], 2 * shape[-1]), ALIKE)[..., ::2]
    for keepdims in (False, True):
        wanted = x.astype(np.float64).sum(axis=axes, keepdims=keepdims)
        found = total(x, axes, keepdims)
        assert np.shape(found) == np.shape(wanted)
        assert np.abs(found / wanted - 1).max() < 5e-6
    public = kobai.from_numpy(x).sum(axes), kobai.from_numpy(x).mean(axes) * (x.size / np.size(x.sum(axes)))
    for found in public:
        assert np.abs(found.numpy() / x.astype(np.float64).sum(axes) - 1).max() < 5e-6


@pytest.mark.parametrize("dtype", ["bfloat16", np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64, bool])
@pytest.mark.parametrize("shape", [(), (0,), (5, 0), (3, 4), (40, 30), (7, 300)], ids=str)
def test_small_large_and_none(dtype, shape):
    x = (np.random.default_rng(0).uniform(-3, 3, shape) * 10).astype(np.int64).astype(dtype)
    axes = [None, *[(d,) for d in range(x.ndim)]]
    for axis in axes:
        wanted = x.astype(np.float64).sum(axis=axis)
        np.testing.assert_allclose(total(x, axis), wanted, rtol={"bfloat16": 4e-3, np.float16: 1e-3}.get(dtype, 1e-6))
        if x.dtype.kind in FLOATING:
            assert total(x, axis).dtype == dtype


def test_gradients_of_what_was_broadcast():
    bias = kobai.zeros(2, requires_grad=True)
    (kobai.ones(300_000, 2) + bias).backward(kobai.full((300_000, 2), 0.1))
    assert abs(bias.grad.numpy() / 30_000 - 1).max() < 5e-6


@pytest.mark.parametrize("axis", [0, 1])
def test_running_sums(axis):
    shape = (200_000, 2) if axis == 0 else (2, 200_000)
    x = np.full(shape, ALIKE)
    wanted = np.cumsum(x.astype(np.float64), axis)
    np.testing.assert_allclose(cumulative_sum(x, axis), wanted, rtol=1e-7)
    np.testing.assert_allclose(suffix_sum(x, axis), np.flip(wanted, axis), rtol=1e-7)
    leaf = kobai.from_numpy(x).requires_grad_()
    y = leaf.cumsum(axis)
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=1e-7)
    y.backward(kobai.from_numpy(x))
    np.testing.assert_allclose(leaf.grad.numpy(), np.flip(wanted, axis), rtol=1e-7)


@pytest.mark.parametrize("shape", [(700,), (7, 200), (3, 200, 5), (2, 5, 100), (5, 0, 300)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_sums_have_the_bits_of_sums_in_float64(shape, dtype, host_engine):  # noqa: F811
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    for axis in range(x.ndim):
        for found, wanted in [
            (cumulative_sum(x, axis), np.cumsum(x, axis, dtype=np.float64)),
            (suffix_sum(x, axis), np.flip(np.cumsum(np.flip(x, axis), axis, dtype=np.float64), axis)),
        ]:
            assert found.dtype == dtype
            assert np.array_equal(found, wanted.astype(dtype))


@pytest.mark.parametrize("sums", [lambda x: total(x, (1,)), lambda x: total(x, (0,)), lambda x: cumulative_sum(x, 1)])
def test_bits_do_not_depend_on_the_number_of_threads(sums):
    x = np.random.default_rng(0).normal(size=(3000, 401)).astype(np.float32)
    found = []
    try:
        for n in (1, 2, 3):
            threads.set_num_threads(n)
            found.append(sums(x))
    finally:
        threads.set_num_threads(None)
    assert all(np.array_equal(found[0], other) for other in found)


@pytest.mark.parametrize("axes", [None, (0,), (1,), (2,), (0, 2), (1, 2), ()], ids=str)
def test_captured_sums_have_the_bits_of_eager_ones(axes):
    x = np.random.default_rng(0).normal(size=(5, 300, 7)).astype(np.float32)
    given = kobai.from_numpy(x)

    def step(x):
        x = x.detach().requires_grad_()
        y = x.sum(axes) if axes != () else x.mean(axes)
        return y, x.cumsum(1), kobai.autograd.grad((y * y).sum() + x.cumsum(1).square().sum(), x)[0]

    replayed = kobai.capture(lambda x: step(x))
    for _ in range(3):
        for eager, captured in zip(step(given), replayed(given), strict=True):
            assert np.array_equal(eager.detach().numpy(), captured.detach().numpy())


def test_sums_with_infinity_and_nan():
    x = np.ones((300, 40), np.float32)
    x[3, 5], x[4, 6], x[5, 7], x[6, 7] = np.inf, np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        for axis in (None, 0, 1):
            np.testing.assert_array_equal(total(x, None if axis is None else (axis,)), x.sum(axis))
            np.testing.assert_array_equal(cumulative_sum(x, 0), np.cumsum(x, 0))


def test_running_products_do_not_leave_the_range_on_the_way():
    x = kobai.tensor([1e30, 1e30, 1e-30, 1e-30, 3.0])
    assert x.prod().item() == pytest.approx(3)
    assert x.cumprod(0)[-1].item() == pytest.approx(3)


# --- large means ------------------------------------------------------------------------------------------------------

ABOUT = (1e6 + np.random.default_rng(0).normal(size=(6, 4, 16))).astype(np.float32)  # time stamps, say


def standard(x: np.ndarray, axes: tuple) -> np.ndarray:
    wide = x.astype(np.float64)
    return (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)


NORMS = {
    "layer_norm": (lambda x: F.layer_norm(x, (16,)), (2,)),
    "group_norm": (lambda x: F.group_norm(x, 2), None),
    "group_norm of single elements": (lambda x: F.group_norm(x.reshape(24, 16, 1), 1).reshape(6, 4, 16), (2,)),
    "instance_norm": (F.instance_norm, (2,)),
    "batch_norm": (lambda x: F.batch_norm(x, None, None, training=True), (0, 2)),
    "batch_norm of rows": (
        lambda x: F.batch_norm(x.reshape(6, 64), None, None, training=True).reshape(6, 4, 16),
        (0,),
    ),
    "by std": (lambda x: x.std(2, correction=0, keepdim=True), "std"),
    "by var_mean": (lambda x: kobai.var_mean(x, 2, correction=0, keepdim=True)[0], "var"),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
def test_spread_about_a_large_mean(name, captured, host_engine):  # noqa: F811
    f, axes = NORMS[name]
    if axes == "std":
        wanted = ABOUT.astype(np.float64).std(2, keepdims=True)
    elif axes == "var":
        wanted = ABOUT.astype(np.float64).var(2, keepdims=True)
    elif axes is None:
        wanted = standard(ABOUT.reshape(6, 2, 32), (2,)).reshape(ABOUT.shape)
    else:
        wanted = standard(ABOUT, axes)
    x = kobai.from_numpy(ABOUT.copy())
    step = kobai.capture(f) if captured else f
    for _ in range(3):
        found = step(x).numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_statistics_that_move_are_those_of_a_large_mean_too(host_engine):  # noqa: F811
    for norm, axes in ((F.batch_norm, (0, 2)), (F.instance_norm, (2,))):
        mean, var = kobai.zeros(4), kobai.zeros(4)
        options = {"training": True} if norm is F.batch_norm else {}
        norm(kobai.from_numpy(ABOUT.copy()), mean, var, momentum=1.0, **options)
        wide = ABOUT.astype(np.float64)
        wanted = wide.var(axes, ddof=1) if norm is F.batch_norm else wide.var(axes, ddof=1).mean(0)
        np.testing.assert_allclose(var.numpy(), wanted, rtol=1e-4)
        np.testing.assert_allclose(mean.numpy(), wide.mean((0, 2)), rtol=2e-7)


@pytest.mark.parametrize("f", [kobai.var, kobai.std], ids=["var", "std"])
def test_gradient_of_a_spread_about_a_large_mean(f):
    x = kobai.from_numpy(ABOUT.copy()).requires_grad_()
    f(x, 2).sum().backward()
    exact = kobai.from_numpy(ABOUT.astype(np.float64)).requires_grad_()
    f(exact, 2).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), exact.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "dim"), [((2003,), 0), ((9, 131), 1), ((9, 131), 0), ((5, 40, 7), 1), ((5, 40, 7), None)]
)
def test_products_and_running_products_are_multiplied_in_float64(dtype, shape, dim):
    values = np.random.default_rng(0).uniform(0.9, 1.11, shape).astype(dtype)
    values.flat[:3] *= dtype(1e30), dtype(1e30), dtype(1e-30)  # the running product leaves the range of float32
    wide, x = values.astype(np.float64), kobai.tensor(values)
    product = x.prod() if dim is None else x.prod(dim)
    np.testing.assert_allclose(product.numpy(), np.prod(wide, axis=dim).astype(dtype), rtol=1e-6)
    if dim is not None:
        with np.errstate(over="ignore"):
            expected = np.cumprod(wide, axis=dim).astype(dtype)
        np.testing.assert_allclose(kobai.cumprod(x, dim).numpy(), expected, rtol=1e-6)
