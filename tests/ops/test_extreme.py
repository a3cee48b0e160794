"""Extremes, logsumexp, norms, truth values."""

from __future__ import annotations

import pytest
from tables import cases, check, refused

import kobai

TABLE = """
max: a.max() | a.max()
max_dim: a.max(1) | [a.max(1), a.argmax(1)]
max_keep: c.max(dim=1, keepdim=True) | [c.max(1, keepdims=True), c.argmax(1)[:, None]]
max_axis: c.max(axis=-1) | [c.max(-1), c.argmax(-1)]
max_two: T.max(a, b) | np.maximum(a, b)
max_other: T.max(a, other=b) | np.maximum(a, b)
max_scalar: s.max(0) | [s, np.int64(0)]
max_int: i([[1, 5], [7, 2]]).max(1) | [np.array([5, 7]), np.array([1, 0])]
max_nan: i([1.0, float('nan'), 3.0]).max(0) | [np.float32('nan'), np.int64(1)]
min: a.min() | a.min()
min_dim: T.min(c, -1) | [c.min(-1), c.argmin(-1)]
min_two: a.min(b) | np.minimum(a, b)
amax: c.amax((0, 2)) | c.max((0, 2))
amin: c.amin(1, keepdim=True) | c.min(1, keepdims=True)
aminmax: T.aminmax(a, dim=0) | [a.min(0), a.max(0)]
aminmax_all: a.aminmax() | [a.min(), a.max()]
median: v.median() | np.median(v)
median_even: i([4, 1, 3, 2]).median() | np.int64(2)
median_dim: a.median(0)[0] | np.sort(a, 0)[1]
median_keep: c.median(1, keepdim=True)[0] | np.median(c, 1, keepdims=True)
median_indices: i([[3, 1, 2]]).median(1) | [np.array([2]), np.array([2])]
median_nan: i([1.0, float('nan'), 3.0]).median(0) | [np.float32('nan'), np.int64(1)]
median_scalar: s.median(0) | [s, np.int64(0)]
median_empty: T.zeros(0).median() | np.float32('nan')
argmax: a.argmax() | a.argmax()
argmax_keep: a.argmax(keepdim=True) | a.argmax().reshape(1, 1)
argmax_dim: c.argmax(dim=1, keepdim=True) | c.argmax(1)[:, None]
argmax_scalar: s.argmax(0) | np.int64(0)
argmin: c.argmin(-1) | c.argmin(-1)
logsumexp: a.logsumexp(1) | np.log(np.exp(a).sum(1))
logsumexp_dims: c.logsumexp((0, 2), keepdim=True) | np.log(np.exp(c).sum((0, 2), keepdims=True))
logsumexp_large: (a * 0 + 1000).logsumexp(0) | 1000 + np.log(4) + 0 * a[0]
logsumexp_nothing: T.full((2, 3), -float('inf')).logsumexp(1) | np.full(2, -np.inf, np.float32)
logsumexp_inf: i([float('inf'), 1.0]).logsumexp(0) | np.float32('inf')
logsumexp_empty: e.logsumexp(0) | np.full(3, -np.inf)
logsumexp_int: i([0, 0]).logsumexp(0) | np.log(np.float32(2))
norm: a.norm() | np.sqrt((a * a).sum())
norm_1: a.norm(1, dim=1) | abs(a).sum(1)
norm_p: c.norm(p=3, dim=-1, keepdim=True) | (abs(c) ** 3).sum(-1, keepdims=True) ** (1 / 3)
norm_inf: a.norm(float('inf'), 0) | abs(a).max(0)
norm_minus_inf: a.norm(-float('inf'), 0) | abs(a).min(0)
norm_0: i([0.0, 2.0, 3.0]).norm(0) | np.float32(2)
norm_fro: T.norm(a, p='fro', dim=(0, 1)) | np.sqrt((a * a).sum())
norm_dtype: i([3, 4]).norm(dtype=T.float32) | np.float32(5)
dist: a.dist(b) | np.sqrt(((a - b) ** 2).sum())
dist_1: T.dist(a, b, 1) | abs(a - b).sum()
all: (a > -9).all() | np.True_
all_dim: (a > 0).all(dim=1) | (a > 0).all(1)
all_dims: (c > -1).all((0, 1), keepdim=True) | (c > -1).all((0, 1), keepdims=True)
all_floats: a.all() | np.True_
any: T.any(a > 1, 0) | (a > 1).any(0)
count_nonzero: T.count_nonzero(a > 0, dim=1) | np.count_nonzero(a > 0, 1)
count_nonzero_all: i([0, 3]).count_nonzero() | np.int64(1)
"""


@pytest.mark.parametrize(("call", "expected"), cases(TABLE))
def test_agrees_with_numpy(call, expected, backend):
    check(call, expected)


REFUSED = [
    ("T.zeros(0).max()", RuntimeError, "max: expected at least one element, got shape (0,)"),
    ("e.max(0)", IndexError, "argmax: expected at least one element in dim 0, got shape (0, 3)"),
    ("T.zeros(0).argmin()", IndexError, "argmin: expected at least one element"),
    ("e.amax(0)", IndexError, "amax: expected at least one element in dim 0"),
    ("a.max(2)", IndexError, "expected dim in [-2, 1], got 2"),
    ("e.median(0)", IndexError, "median: expected at least one element"),
    ("T.argmax([1])", TypeError, "argmax: expected a Tensor, got list"),
    ("i([1, 2]).norm()", RuntimeError, "norm: expected floats, got kobai.int64"),
    ("a.norm('max')", ValueError, "norm: expected a number, 'fro' or 'nuc' as p, got 'max'"),
    ("a.all(2)", IndexError, "all: expected dim in [-2, 1], got 2"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refuses(call, error, message):
    refused(call, error, message)


def gradient(function, values) -> list:
    x = kobai.tensor(values, requires_grad=True)
    function(x).sum().backward()
    return x.grad.tolist()


def test_ties_share_the_gradient_of_a_full_extreme_and_the_first_takes_that_along_a_dimension():
    assert gradient(lambda x: x.max(), [3.0, 3.0, 1.0]) == [0.5, 0.5, 0.0]
    assert gradient(lambda x: x.amin(0), [1.0, 1.0, 1.0, 3.0]) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert gradient(lambda x: x.max(0).values, [3.0, 3.0, 1.0]) == [1.0, 0.0, 0.0]
    assert gradient(lambda x: x.norm(float("inf")), [-3.0, 3.0, 1.0]) == [-0.5, 0.5, 0.0]


def test_gradient_where_a_norm_or_logsumexp_has_none_is_zero():
    for p in (1, 2, 3, 0, float("inf")):
        assert gradient(lambda x, p=p: x.norm(p), [0.0, 0.0]) == [0.0, 0.0]
    minus_infinity = -float("inf")
    assert gradient(lambda x: x.logsumexp(0), [minus_infinity, minus_infinity]) == [0.0, 0.0]
    assert gradient(lambda x: x.logsumexp(0), [minus_infinity, 1.0]) == [0.0, 1.0]


def test_results_have_names():
    result = kobai.tensor([[1.0, 5.0]]).max(1)
    assert result.values.tolist() == [5.0]
    assert result.indices.tolist() == [1]
    values, indices = result
    assert values is result[0]
    assert indices is result[1]


def test_gradient_of_a_median():
    assert gradient(lambda x: x.median(), [3.0, 1.0, 2.0]) == [0.0, 0.0, 1.0]
    assert gradient(lambda x: x.median(0, keepdim=True).values, [3.0, 1.0, 2.0]) == [0.0, 0.0, 1.0]
