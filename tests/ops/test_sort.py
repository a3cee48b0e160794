"""Order: sort, topk, unique, counting and searching."""

from __future__ import annotations

import numpy as np
import pytest
from tables import cases, check, refused

import kobai

TABLE = """
sort: a.sort(1) | [np.sort(a, 1), np.argsort(a, 1)]
sort_down: T.sort(c, dim=1, descending=True) | [np.sort(c, 1)[:, ::-1], np.argsort(c, 1)[:, ::-1]]
sort_axis: c.sort(axis=0) | [np.sort(c, 0), np.argsort(c, 0)]
sort_ties: i([1.0, 1.0, 0.0]).sort(descending=True, stable=True) | [np.float32([1, 1, 0]), np.array([0, 1, 2])]
sort_nan: i([1.0, float('nan'), 0.0]).sort() | [np.float32([0, 1, 'nan']), np.array([2, 0, 1])]
sort_nan_down: i([1.0, float('nan'), 0.0]).sort(descending=True) | [np.float32(['nan', 1, 0]), np.array([1, 0, 2])]
sort_scalar: s.sort(0) | [s, np.int64(0)]
sort_empty: e.sort(0) | [e, np.zeros((0, 3), np.int64)]
sort_ints: i([3, 1, 2]).sort() | [np.array([1, 2, 3]), np.array([1, 2, 0])]
argsort: T.argsort(c, dim=0) | np.argsort(c, 0)
argsort_down: a.argsort(1, True) | np.argsort(-a, 1)
msort: a.msort() | np.sort(a, 0)
topk: c.topk(2) | [np.sort(c)[..., :1:-1], np.argsort(c)[..., :1:-1]]
topk_dim: a.topk(3, dim=0) | [np.sort(a, 0)[:0:-1], np.argsort(a, 0)[:0:-1]]
topk_smallest: a.topk(2, 1, largest=False) | [np.sort(a)[:, :2], np.argsort(a)[:, :2]]
topk_all: a.topk(3, -1) | [np.sort(a)[:, ::-1], np.argsort(a)[:, ::-1]]
topk_none: a.topk(0) | [a[:, :0], np.zeros((4, 0), np.int64)]
topk_scalar: s.topk(1) | [s, np.int64(0)]
kthvalue: a.kthvalue(2, dim=0) | [np.sort(a, 0)[1], np.argsort(a, 0)[1]]
kthvalue_keep: a.kthvalue(1, 1, True) | [a.min(1, keepdims=True), a.argmin(1)[:, None]]
kthvalue_scalar: s.kthvalue(1, 0) | [s, np.int64(0)]
mode: i([[1, 2, 2, 3], [3, 1, 3, 1]]).mode(1)[0] | np.array([2, 1])
mode_keep: T.mode(i([2.0, 2.0, 1.0]), keepdim=True)[0] | np.float32([2])
mode_first_dim: i([[1, 2], [1, 3]]).mode(0)[0] | np.array([1, 2])
mode_scalar: s.mode() | [s, np.int64(0)]
cummax: c.cummax(1)[0] | np.maximum.accumulate(c, 1)
cummax_ties: i([1, 3, 2, 3]).cummax(0) | [np.array([1, 3, 3, 3]), np.array([0, 1, 1, 3])]
cummin: T.cummin(c, dim=-1)[0] | np.minimum.accumulate(c, -1)
cummin_scalar: s.cummin(0) | [s, np.int64(0)]
cummin_empty: e.cummin(0) | [e, np.zeros((0, 3), np.int64)]
isin: T.isin(i([1, 2, 3]), i([3, 1])) | np.array([True, False, True])
unique: T.unique(i([3, 1, 3, 2])) | np.array([1, 2, 3])
unique_all: i([[3, 1], [3, 2]]).unique(True, True, True) | [np.arange(1, 4), np.array([[2, 0], [2, 1]]), np.array([1, 1, 2])]
unique_counts: T.unique(i([2, 2]), return_counts=True) | [np.array([2]), np.array([2])]
unique_dim: T.unique(i([[3, 1], [3, 1], [0, 2]]), dim=0) | np.array([[0, 2], [3, 1]])
unique_dim_inverse: i([[3, 3, 0]]).unique(dim=1, return_inverse=True) | [np.array([[0, 3]]), np.array([1, 1, 0])]
unique_consecutive: T.unique_consecutive(i([1, 1, 2, 1])) | np.array([1, 2, 1])
unique_consecutive_all: i([1, 1, 2]).unique_consecutive(True, True) | [np.array([1, 2]), np.array([0, 0, 1]), np.array([2, 1])]
unique_consecutive_dim: i([[1, 1, 2], [0, 0, 0]]).unique_consecutive(dim=1) | np.array([[1, 2], [0, 0]])
unique_consecutive_none: T.zeros(0).unique_consecutive() | np.zeros(0, np.float32)
bincount: T.bincount(i([0, 2, 2]), minlength=5) | np.array([1, 0, 2, 0, 0])
bincount_weights: i([0, 2, 2]).bincount(i([0.5, 1.0, 2.0])) | np.float32([0.5, 0, 3])
bincount_int_weights: i([0, 1]).bincount(i([2, 3])) | np.float64([2, 3])
bincount_empty: T.bincount(T.zeros(0, dtype=T.int64), minlength=2) | np.array([0, 0])
histc: T.histc(i([1.0, 2.0, 1.0, 5.0]), bins=4, min=0, max=3) | np.float32([0, 2, 1, 0])
histc_auto: i([1.0, 2.0, 1.0]).histc(2) | np.float32([2, 1])
histc_constant: i([1.0, 1.0]).histc(2) | np.float32([0, 2])
searchsorted: T.searchsorted(i([1, 3, 5]), i([[3, 6], [0, 1]])) | np.array([[1, 3], [0, 0]])
searchsorted_right: T.searchsorted(i([1, 3, 5]), i([3]), right=True) | np.array([2])
searchsorted_side: T.searchsorted(i([1, 3, 5]), i([3]), side='right', out_int32=True) | np.int32([2])
searchsorted_number: T.searchsorted(i([1, 3, 5]), 4) | np.int64(2)
searchsorted_rows: T.searchsorted(i([[1, 3], [2, 4]]), i([[3], [4]])) | np.array([[1], [1]])
searchsorted_rows_right: T.searchsorted(i([[1, 3], [2, 4]]), i([[3], [4]]), right=True) | np.array([[2], [2]])
bucketize: T.bucketize(i([0.5, 2.0, 9.0]), i([1.0, 2.0, 3.0])) | np.array([0, 1, 3])
bucketize_method: i([2.0]).bucketize(i([1.0, 2.0]), right=True) | np.array([2])
"""


@pytest.mark.parametrize(("call", "expected"), cases(TABLE))
def test_agrees_with_numpy(call, expected, backend):
    check(call, expected)


REFUSED = [
    ("v.topk(6)", RuntimeError, "topk: expected k in [0, 5], got 6"),
    ("v.kthvalue(0)", RuntimeError, "kthvalue: expected k in [1, 5], got 0"),
    ("e.mode(0)", IndexError, "mode: expected at least one element in dim 0"),
    ("v.sort(1)", IndexError, "expected dim in [-1, 0], got 1"),
    ("T.bincount(a)", RuntimeError, "bincount: expected a vector of integers, got kobai.float64 of shape (4, 3)"),
    ("T.bincount(i([-1]))", IndexError, "bincount: expected indices"),
    ("T.bincount(i([1]), v)", RuntimeError, "bincount: expected 1 weights, got shape (5,)"),
    ("T.histc(i([1]))", RuntimeError, "histc: expected floats, got kobai.int64"),
    ("T.histc(v, min=2, max=1)", RuntimeError, "expected min ≤ max, both finite, got 2.0 and 1.0"),
    ("T.searchsorted(v, v, side='middle')", RuntimeError, "'left' or 'right', got 'middle'"),
    ("T.searchsorted(a, v)", RuntimeError, "equal leading dimensions, got (4, 3) and (5,)"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refuses(call, error, message):
    refused(call, error, message)


def test_the_gradient_goes_back_to_where_the_values_came_from():
    w = kobai.tensor([1.0, 10.0, 100.0])
    for function, expected in (
        (lambda x: x.sort().values * w, [100.0, 1.0, 10.0]),
        (lambda x: x.topk(2).values * w[:2], [1.0, 0.0, 10.0]),
        (lambda x: x.kthvalue(2).values, [0.0, 0.0, 1.0]),
        (lambda x: x.msort() * w, [100.0, 1.0, 10.0]),
    ):
        x = kobai.tensor([3.0, 1.0, 2.0], requires_grad=True)
        function(x).sum().backward()
        assert x.grad.tolist() == expected


def test_topk_agrees_with_sorting_for_many_sizes():
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 100):
        x = kobai.tensor(rng.integers(0, 20, (3, size)))
        for k in {1, size // 2, size}:
            assert x.topk(k).values.tolist() == x.sort(descending=True).values[:, :k].tolist()
            assert x.gather(1, x.topk(k, largest=False).indices).tolist() == x.sort().values[:, :k].tolist()


@pytest.mark.parametrize("shape", [(9,), (2, 3, 9)])
@pytest.mark.parametrize("options", [{}, {"right": True}, {"side": "right", "out_int32": True}])
def test_a_sequence_is_searched_in_the_order_of_its_sorter(shape, options, backend):
    rng = np.random.default_rng(0)
    sequence, values = kobai.tensor(rng.integers(0, 5, shape)), kobai.tensor(rng.integers(-1, 7, (*shape[:-1], 4)))
    ordered, sorter = sequence.sort()
    found = kobai.searchsorted(sequence, values, sorter=sorter, **options)
    assert found.tolist() == kobai.searchsorted(ordered, values, **options).tolist()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"sorter": kobai.tensor([1, 0])},
            RuntimeError,
            r"sorter kobai.int64 of shape \(3,\), got kobai.int64 of shape \(2,\)",
        ),
        (
            {"sorter": kobai.tensor([1, 2, 0], dtype=kobai.int32)},
            RuntimeError,
            r"expected sorter kobai.int64 .* got kobai.int32",
        ),
        ({"sorter": kobai.tensor([1, 2, 3])}, IndexError, "searchsorted"),
        ({"sorter": kobai.tensor([1, -1, 0])}, IndexError, "searchsorted"),
        ({"sorter": [1, 2, 0]}, TypeError, "searchsorted"),
        ({"side": "left", "right": True}, RuntimeError, "expected one side, got side='left' and right=True"),
    ],
)
def test_searchsorted_refuses(options, error, message):
    with pytest.raises(error, match=message):
        kobai.searchsorted(kobai.tensor([5, 1, 3]), kobai.tensor([2]), **options)
