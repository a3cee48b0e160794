"""Sums, means, variances, products, running sums: against NumPy, at the edges, and what they refuse."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from tables import cases, check, refused

import kobai

TABLE = """
sum: a.sum() | a.sum()
sum_dim: c.sum(1) | c.sum(1)
sum_dims: c.sum((0, -1), keepdim=True) | c.sum((0, 2), keepdims=True)
sum_axis: c.sum(axis=2, keepdims=True) | c.sum(2, keepdims=True)
sum_list: T.sum(c, [0, 1]) | c.sum((0, 1))
sum_dtype: a.sum(dtype=T.float32) | a.astype(np.float32).sum()
sum_no_dims: a.sum(dim=()) | a.sum()
sum_scalar: s.sum(0) | s
sum_empty: e.sum() | np.float64(0)
sum_empty_dim: e.sum(0) | np.zeros(3)
sum_bool: (a > 0).sum() | (a > 0).sum()
sum_int32: i([1, 2], dtype=T.int32).sum() | np.int64(3)
sum_bool_dtype: (a > 0).sum(dtype=T.float32) | (a > 0).sum(dtype=np.float32)
mean: a.mean() | a.mean()
mean_dims: c.mean(dim=[1, 2]) | c.mean((1, 2))
mean_keep: c.mean(-1, True) | c.mean(-1, keepdims=True)
mean_dtype: i([1, 2]).mean(dtype=T.float64) | np.float64(1.5)
mean_empty: e.mean(0) | np.full(3, np.nan)
nansum: T.nansum(T.where(a > 0, a, float('nan')), 1) | np.where(a > 0, a, 0).sum(1)
nanmean: T.nanmean(T.where(a > 0, a, float('nan'))) | a[a > 0].mean()
var: a.var() | a.var(ddof=1)
var_dim: c.var(1, unbiased=False) | c.var(1)
var_positional: c.var(1, True, True) | c.var(1, ddof=1, keepdims=True)
var_false: a.var(False) | a.var()
var_correction: T.var(c, dim=(0, 2), correction=2) | c.var((0, 2), ddof=2)
var_axis: a.var(axis=0, keepdims=True) | a.var(0, ddof=1, keepdims=True)
std: a.std() | a.std(ddof=1)
std_dim: c.std(dim=2, keepdim=True) | c.std(2, ddof=1, keepdims=True)
var_mean: T.var_mean(a, dim=0) | [a.var(0, ddof=1), a.mean(0)]
std_mean: T.std_mean(a, 1, correction=0) | [a.std(1), a.mean(1)]
prod: a.prod() | a.prod()
prod_dim: c.prod(1, keepdim=True) | c.prod(1, keepdims=True)
prod_int: i([2, 3], dtype=T.int32).prod() | np.int64(6)
prod_dtype: i([2, 3]).prod(dtype=T.float32) | np.float32(6)
cumsum: c.cumsum(1) | c.cumsum(1)
cumsum_axis: T.cumsum(c, axis=-1) | c.cumsum(-1)
cumsum_bool: (a > 0).cumsum(0) | (a > 0).cumsum(0)
cumsum_scalar: s.cumsum(0) | s
cumsum_dtype: i([1, 2]).cumsum(0, dtype=T.float32) | np.array([1, 3], np.float32)
cumprod: a.cumprod(dim=-1) | a.cumprod(-1)
cumprod_int: i([2, 3]).cumprod(0) | np.array([2, 6])
cumprod_scalar: s.cumprod(0) | s
cumsum_in_place: a.clone().cumsum_(0) | a.cumsum(0)
"""


@pytest.mark.parametrize(("call", "expected"), cases(TABLE))
def test_agrees_with_numpy(call, expected, backend):
    with np.errstate(invalid="ignore"):
        check(call, expected)


REFUSED = [
    ("i([1, 2]).mean()", RuntimeError, "mean: expected floats, got kobai.int64"),
    ("a.sum(2)", IndexError, "sum: expected dim in [-2, 1], got 2"),
    ("a.sum((0, 0))", RuntimeError, "names a dimension twice"),
    ("a.sum('x')", TypeError, "expected dim to be an integer"),
    ("i([1, 2]).var()", RuntimeError, "var: expected floats, got kobai.int64"),
    ("a.var(0, unbiased=True, correction=1)", TypeError, "unbiased or correction, not both"),
    ("T.std([1.0])", TypeError, "std: expected a Tensor, got list"),
    ("a.cumsum(3)", IndexError, "cumsum: expected dim"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refuses(call, error, message):
    refused(call, error, message)


def test_variance_keeps_its_digits_far_from_zero():
    """Σx² − n·mean² would lose all of them."""
    x = kobai.tensor([1.0, 2.0, 3.0], dtype=kobai.float64) + 1e9
    assert x.var().item() == 1.0


@pytest.mark.parametrize(("values", "correction", "expected"), [([0.0], 1, np.nan), ([1.0, 2.0], 3, np.inf)])
def test_variance_without_degrees_of_freedom_warns(values, correction, expected):
    with pytest.warns(UserWarning, match="degrees of freedom"):
        y = kobai.tensor(values).var(correction=correction)
    np.testing.assert_equal(y.item(), np.float32(expected))


def test_deviation_of_equal_elements_has_gradient_zero():
    x = kobai.full((3,), 2.0, requires_grad=True)
    x.std().backward()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


def test_gradient_of_large_sums_is_broadcast_not_copied():
    """Above a size the gradient is a view; a leaf that receives two of them must still add them up."""
    x = kobai.ones(100, 100, requires_grad=True)
    (x.sum() + x.mean() + x.sum(0).sum()).backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 + 1e-4, rtol=1e-6)


def test_float32_in_float32_out():
    x = kobai.ones(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {f(x).dtype for f in (kobai.sum, kobai.mean, kobai.var, kobai.std, kobai.prod)} == {kobai.float32}
