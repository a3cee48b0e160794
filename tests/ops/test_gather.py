"""gather, embedding, where, masks; scatter and its relatives."""

from __future__ import annotations

import numpy as np
import pytest
from tables import cases, check, refused

import kobai
from kobai.engine.domains import check_range, counted_from_front
from kobai.gradcheck import gradcheck
from kobai.ops._positions import add_at, mesh, positions_along
from kobai.ops.gather import embedding, one_hot

CHOSEN = """
gather: a.gather(1, i([[0], [2], [1], [1]])) | np.take_along_axis(a, np.array([[0], [2], [1], [1]]), 1)
gather_fewer_rows: T.gather(a, 0, i([[0, 3, 1]])) | np.array([[a[0, 0], a[3, 1], a[1, 2]]])
gather_fewer_columns: a.gather(0, i([[3], [3]])) | np.array([[a[3, 0]], [a[3, 0]]])
gather_repeats: a.gather(-1, i([[0, 0, 2, 0]])) | a[:1, [0, 0, 2, 0]]
gather_nothing: a.gather(0, T.zeros(0, 3, dtype=T.int64)) | a[:0]
gather_scalar: s.gather(0, i([0])) | s[None]
gather_by_scalar: v[:1].gather(0, i([0])) | v[:1]
take: a.take(i([[0, -1], [5, 5]])) | a.take([[0, -1], [5, 5]])
take_along_dim: T.take_along_dim(a, i([[2, 1]]), 1) | a[:, [2, 1]]
take_along_dim_from_end: T.take_along_dim(a, i([[-1, 0, -3]]), 1) | a[:, [2, 0, 0]]
take_along_dim_of_bytes: T.take_along_dim(T.arange(300), T.tensor([200], dtype=T.uint8), 0) | np.array([200])
take_along_all: a.take_along_dim(i([3, 3])) | a.ravel()[[3, 3]]
take_along_all_from_end: a.take_along_dim(i([-1, 0])) | a.ravel()[[-1, 0]]
index_select: c.index_select(1, i([0, 0, 2])) | c[:, [0, 0, 2]]
index_select_scalar: s.index_select(0, i([0])) | s
index_select_one: v.index_select(0, i(3)) | v[[3]]
where: T.where(a > 0, a, b) | np.where(a > 0, a, b)
where_number: T.where(a > 0, a, 0.0) | np.where(a > 0, a, 0)
where_number_first: T.where(a > 0, 1, a) | np.where(a > 0, 1, a)
where_numbers: T.where(a > 0, 1.0, 0.0) | (a > 0).astype(np.float32)
where_ints: T.where(a > 0, 1, 0) | (a > 0).astype(np.int64)
where_bools: T.where(a > 0, True, False) | a > 0
where_promotes: T.where(a > 0, i(1), a) | np.where(a > 0, 1, a)
where_broadcast: T.where(a[:, :1] > 0, v[:3], s) | np.where(a[:, :1] > 0, v[:3], s)
where_method: a.where(b > 0, -1.0) | np.where(b > 0, a, -1)
where_alone: T.where(a > 0) | np.nonzero(a > 0)
masked_fill: a.masked_fill(b > 0, -float('inf')) | np.where(b > 0, -np.inf, a)
masked_fill_tensor: a.masked_fill(b > 0, i(3)) | np.where(b > 0, 3, a)
masked_fill_int: i([1, 2]).masked_fill(i([True, False]), 7) | np.array([7, 2])
masked_select: a.masked_select(b > 0) | a[b > 0]
masked_select_broadcast: T.masked_select(a, i([True, False, True])) | a[:, [0, 2]].ravel()
masked_select_scalar: s.masked_select(i(True)) | s[None]
nonzero: (a > 0).nonzero() | np.argwhere(a > 0)
nonzero_tuple: i([0, 3, 5]).nonzero(as_tuple=True) | np.nonzero([0, 3, 5])
nonzero_scalar: i(3).nonzero() | np.zeros((1, 0), np.int64)
nonzero_scalar_tuple: i(3).nonzero(as_tuple=True) | np.zeros(1, np.int64)
argwhere: T.argwhere(a > 0) | np.argwhere(a > 0)
scatter: T.zeros(2, 3).scatter(1, i([[2], [0]]), 1.0) | np.array([[0, 0, 1], [1, 0, 0]], np.float32)
scatter_value: T.zeros(3).scatter(0, i([1]), value=2) | np.array([0, 2, 0], np.float32)
scatter_source: T.zeros(3).scatter(0, i([2, 0]), T.arange(5.0)[1:]) | np.array([2, 0, 1], np.float32)
scatter_reduce_add: T.ones(3).scatter(0, i([1, 1]), T.ones(2), reduce='add') | np.array([1, 3, 1], np.float32)
scatter_scalar: s.scatter(0, i(0), 2.0) | np.array(2.0)
scatter_nothing: a.scatter(0, T.zeros(0, dtype=T.int64), 2.0) | a
scatter_add: T.zeros(3).scatter_add(0, i([1, 1, 0]), T.ones(3)) | np.array([1, 2, 0], np.float32)
scatter_add_ints: i([1, -1]).scatter_add(0, i([1, 1]), i([-5, 2])) | np.array([1, -4])
scatter_add_bools: i([True, False]).scatter_add(0, i([1, 1]), i([False, True])) | np.array([True, True])
index_add: T.zeros(2, 3).index_add(0, i([1, 1]), T.ones(2, 3), alpha=2) | np.array([[0] * 3, [4] * 3], np.float32)
index_copy: a.index_copy(1, i([2, 0]), b[:, :2]) | np.stack([b[:, 1], a[:, 1], b[:, 0]], 1)
index_fill: a.index_fill(0, i([0, 3]), 3.0) | np.stack([a[0] * 0 + 3, a[1], a[2], a[0] * 0 + 3])
index_fill_tensor: v.index_fill(0, i([0]), i(2.0)) | np.concatenate([[2.0], v[1:]])
index_put: a.index_put((i([0, 2]), i([1, 1])), i(0.0)) | np.where(np.arange(12).reshape(4, 3) % 6 == 1, 0, a)
index_put_add: T.zeros(2, 2).index_put((i([0, 0]),), T.ones(2), accumulate=True) | np.float32([[2, 2], [0, 0]])
fill_diagonal: T.zeros(2, 3).fill_diagonal_(1) | np.eye(2, 3, dtype=np.float32)
fill_diagonal_wrap: T.zeros(4, 2).fill_diagonal_(1, wrap=True) | np.float32([[1, 0], [0, 1], [0, 0], [1, 0]])
fill_diagonal_cube: T.zeros(2, 2, 2).fill_diagonal_(1).sum() | np.float32(2)
scatter_reduce_sum: T.ones(2).scatter_reduce(0, i([0, 0]), i([2.0, 4.0]), 'sum') | np.float32([7, 1])
scatter_reduce_mean: T.zeros(2).scatter_reduce(0, i([0, 0]), i([2.0, 4.0]), 'mean') | np.float32([2, 0])
scatter_reduce_amax: T.full((2,), 3.0).scatter_reduce(0, i([0, 0]), i([2.0, 4.0]), 'amax') | np.float32([4, 3])
scatter_reduce_amin: T.zeros(2).scatter_reduce(0, i([0, 0]), i([2.0, 4.0]), 'amin', include_self=False) | np.float32([2, 0])
scatter_reduce_ints: i([1, 2]).scatter_reduce(0, i([0, 0]), i([3, 4]), 'mean') | np.array([2, 2])
masked_scatter_rows: v[:3].masked_scatter(T.ones(2, 3) > 0, b[:2]) | b[:2]
masked_scatter_number: s.masked_scatter(i([True, False]), v) | np.array([v[0], s])
masked_scatter: i([1, 2, 3]).masked_scatter(i([True, False, True]), i([7, 8, 9])) | np.array([7, 2, 8])
"""


@pytest.mark.parametrize(("call", "expected"), cases(CHOSEN))
def test_agrees_with_numpy(call, expected, backend):
    check(call, expected)


REFUSED = [
    ("a.gather(0, i([0, 1]))", RuntimeError, "gather: expected an index of 2 dimensions, got shape (2,)"),
    ("a.gather(0, i([[0.0]]))", RuntimeError, "expected an index of integers, got kobai.float32"),
    ("a.gather(0, i([[-1]]))", IndexError, "gather: expected indices in [0, 3], got -1"),
    ("a.gather(1, i([[3]]))", IndexError, "gather: expected indices in [0, 2], got 3"),
    ("a.gather(1, T.zeros(5, 1, dtype=T.int64))", RuntimeError, "is larger than (4, 3) beside dim 1"),
    ("a.gather(2, i([[0]]))", IndexError, "gather: expected dim in [-2, 1], got 2"),
    ("a.gather(0, [[0]])", TypeError, "gather: expected a Tensor, got list"),
    ("a.take(i([12]))", IndexError, "take: expected indices in [-12, 11], got 12"),
    ("a.take_along_dim(i([[3]]), 1)", IndexError, "take_along_dim: expected indices in [-3, 2], got 3"),
    ("a.take_along_dim(i([[-4]]), 1)", IndexError, "take_along_dim: expected indices in [-3, 2], got -4"),
    ("a.take_along_dim(i([[0.0]]), 1)", RuntimeError, "take_along_dim: expected an index of integers"),
    ("a.take_along_dim(0, 1)", TypeError, "take_along_dim: expected a Tensor, got int"),
    ("v[:3].masked_scatter_(b > 0, b)", RuntimeError, "the result has shape (4, 3), the tensor (3,)"),
    ("a.take_along_dim(i([0]), 0)", RuntimeError, "expected indices of 2 dimensions"),
    ("a.index_select(0, i([-1]))", IndexError, "index_select: expected indices in [0, 3], got -1"),
    ("a.index_select(0, i([[1]]))", IndexError, "index of one dimension"),
    ("a.index_select(0, i([1.0]))", RuntimeError, "index of integers"),
    ("T.where(a, a, b)", RuntimeError, "condition of truth values (bool), got kobai.float64"),
    ("T.where(a > 0, 'x', 1)", TypeError, "where: expected a Tensor or a number, got str"),
    ("a.masked_fill(b, 0)", RuntimeError, "mask of truth values (bool), got kobai.float64"),
    ("a.masked_fill(b > 0, v)", RuntimeError, "value without dimensions, got shape (5,)"),
    ("a.masked_select(b)", RuntimeError, "mask of truth values"),
    ("a.masked_scatter(b > 100, i([1]))", RuntimeError, "a source of kobai.float64, got kobai.bool and kobai.int64"),
    ("a.masked_scatter(b > -100, v)", RuntimeError, "at least 12 elements in the source, got 5"),
    ("a.scatter(0, i([[4]]), 1.0)", IndexError, "scatter: expected indices in [0, 3], got 4"),
    ("a.scatter(0, i([[0]]))", TypeError, "either src or value"),
    ("a.scatter(0, i([[0]]), 1.0, reduce='mean')", RuntimeError, "got 'mean'"),
    (
        "a.scatter(0, i([[0]]), T.ones(1, 1))",
        RuntimeError,
        "scatter: expected a source of kobai.float64, got kobai.float32",
    ),
    ("a.scatter(0, i([[0, 0]]), a[:1, :1])", RuntimeError, "is larger than the source (1, 1)"),
    ("a.scatter_reduce(0, i([[0]]), b, 'product')", RuntimeError, "got 'product'"),
    (
        "a.scatter_reduce(0, i([[0]]), T.ones(1, 1), 'sum')",
        RuntimeError,
        "expected a source of kobai.float64, got kobai.float32",
    ),
    ("v.fill_diagonal_(0)", RuntimeError, "fill_diagonal_: expected a matrix or equal sizes, got shape (5,)"),
    ("a.scatter_add(0, i([[0]]), 1.0)", TypeError, "scatter_add: expected a Tensor, got float"),
    ("a.index_add(0, i([0]), b)", RuntimeError, "source of shape (1, 3) and kobai.float64, got (4, 3)"),
    ("a.index_copy(1, i([5]), b[:, :1])", IndexError, "index_copy: expected indices in [0, 2], got 5"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refuses(call, error, message):
    refused(call, error, message)


def rows(*shape):
    return kobai.tensor(np.random.default_rng(3).normal(size=shape), requires_grad=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x.index_put((kobai.tensor([0, 0]),), y[:2], accumulate=True),
        lambda x, y: x.scatter_reduce(0, kobai.tensor([[0, 0, 1]]), y, "mean"),
        lambda x, y: x.take(kobai.tensor([0, 5, 5])),
        lambda x, y: kobai.take_along_dim(x, kobai.tensor([[2, 1, 1]]), 1),
        lambda x, y: kobai.take_along_dim(x, kobai.tensor([[-1, -1, -3, 0]]), 1),
        lambda x, y: x[0].masked_scatter(y > 0, y.reshape(-1)),
        lambda x, y: x.masked_scatter(y > 0, y.reshape(-1)),
        lambda x, y: x.index_fill(0, kobai.tensor([1]), y[0, 0]),
        lambda x, y: kobai.where(x > 0, x * y, y),
        lambda x, y: x.masked_fill(x > 0.5, y[0, 1]),
        lambda x, y: x.clone().index_add_(1, kobai.tensor([0, 0]), y[:, :2], alpha=-1),
        lambda x, y: (x * 1).scatter_(1, kobai.tensor([[2], [0], [1], [0]]), y[:, :1]),
        lambda x, y: (x * 1).masked_fill_(y > 0, 0.0),
    ],
)
def test_gradient(function):
    assert gradcheck(function, (rows(4, 3), rows(4, 3)))


def test_embedding(backend):
    weight = kobai.arange(12.0).reshape(4, 3).requires_grad_()
    indices = kobai.tensor([[0, 2], [2, 3]])
    y = embedding(weight, indices, padding_idx=-1)
    assert y.shape == (2, 2, 3)
    y.sum().backward()
    assert weight.grad.tolist() == [[1.0] * 3, [0.0] * 3, [2.0] * 3, [0.0] * 3]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((kobai.zeros(3, 2), kobai.tensor([3])), IndexError, "embedding: expected indices in [0, 2], got 3"),
        ((kobai.zeros(3, 2), kobai.tensor([-1])), IndexError, "got -1"),
        ((kobai.zeros(3, 2), kobai.tensor([1.0])), RuntimeError, "expected integer indices, got kobai.float32"),
        ((kobai.zeros(3), kobai.tensor([1])), RuntimeError, "expected a weight of 2 dimensions, got shape (3,)"),
    ],
)
def test_embedding_refuses(arguments, error, message):
    with pytest.raises(error) as caught:
        embedding(*arguments)
    assert message in str(caught.value)


def test_one_hot(backend):
    assert one_hot(kobai.tensor([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert one_hot(kobai.tensor([[1]]), 2).shape == (1, 1, 2)
    assert one_hot(kobai.tensor([], dtype=kobai.int64), 2).shape == (0, 2)


def test_one_hot_refuses():
    with pytest.raises(IndexError, match=r"one_hot: expected indices in \[0, 1\], got 2"):
        one_hot(kobai.tensor([2]), 2)
    with pytest.raises(RuntimeError, match=r"expected integers, got kobai\.float32"):
        one_hot(kobai.tensor([1.0]))
    with pytest.raises(RuntimeError, match="expected num_classes"):
        one_hot(kobai.tensor([], dtype=kobai.int64))


# --- the kernel -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.bool_])
def test_add_at_adds_repeated_positions(dtype):
    out = np.zeros((2, 3), dtype)
    add_at(out, np.array([0, 0, 5, 4]), np.array([1, 2, 3, 4]).astype(dtype))
    expected = np.zeros(6, dtype)
    np.add.at(expected, [0, 0, 5, 4], np.array([1, 2, 3, 4]).astype(dtype))
    np.testing.assert_array_equal(out.ravel(), expected)


@pytest.mark.parametrize(("shape", "axis"), [((4,), 0), ((4, 3), 0), ((4, 3), 1), ((2, 4, 3), 1), ((2, 4, 3), 2)])
def test_positions_along_are_those_of_take(shape, axis):
    index = np.array([[0, -1], [2, 2]])
    everything = np.arange(np.prod(shape)).reshape(shape)
    found = positions_along(shape, axis, counted_from_front("f", index, shape[axis]))
    np.testing.assert_array_equal(found, np.take(everything, index, axis).ravel())


def test_mesh_is_take_along_axis():
    x, index = np.arange(12).reshape(4, 3), np.array([[2], [0], [1], [1]])
    np.testing.assert_array_equal(x[mesh(index, 1)], np.take_along_axis(x, index, 1))


def test_check_range_names_the_offender():
    check_range("f", np.array([0, 2]), 3)
    check_range("f", np.array([-3]), 3, negative=True)
    check_range("f", np.array([], dtype=np.int64), 0)
    with pytest.raises(IndexError, match=r"f: expected indices in \[-3, 2\], got -4"):
        check_range("f", np.array([-4, 9]), 3, negative=True)


@pytest.mark.parametrize(
    "dtype", [kobai.int8, kobai.uint8, kobai.int16, kobai.int32, kobai.int64, kobai.float16, kobai.bfloat16]
)
def test_every_dtype_adds_up_where_places_repeat(dtype, backend):
    index = kobai.tensor([0, 2, 0, 0])
    total = kobai.zeros(3, dtype=dtype).scatter_add(0, index, kobai.tensor([1, 2, 3, 4], dtype=dtype))
    assert total.dtype == dtype
    assert total.tolist() == [8, 0, 2]


@pytest.mark.parametrize("dtype", [kobai.int8, kobai.int64, kobai.float16, kobai.bfloat16, kobai.float64])
@pytest.mark.parametrize("reduce", ["amax", "amin"])
def test_extremes_at_repeated_places_of_every_dtype(reduce, dtype, backend):
    start, index = kobai.tensor([0, 5, -9, 3], dtype=dtype), kobai.tensor([0, 2, 0, 2, 2])
    found = start.scatter_reduce(0, index, kobai.tensor([4, -7, -4, 1, 0], dtype=dtype), reduce)
    assert found.dtype == dtype
    assert found.tolist() == ([4, 5, 1, 3] if reduce == "amax" else [-4, 5, -9, 3])


@pytest.mark.parametrize("reduce", ["amax", "amin"])
def test_extremes_at_repeated_places_are_exact_and_nan_wins(reduce, backend):
    values = kobai.tensor([1 + 1e-12, 1.0, 1 - 1e-12, float("nan"), 2.0, 3.0], dtype=kobai.float64)
    index = kobai.tensor([0, 0, 0, 1, 1, 2])
    found = kobai.ones(3, dtype=kobai.float64).scatter_reduce(0, index, values, reduce, include_self=False).tolist()
    assert found[0] == (1 + 1e-12 if reduce == "amax" else 1 - 1e-12)
    assert found[1] != found[1]
    assert found[2] == 3.0


def test_a_tensor_without_dimensions_is_indexed_like_one_of_one_element():
    first, one = kobai.tensor([0]), kobai.tensor(5.0)
    for call in (
        lambda x, s: x.index_add(0, first, s),
        lambda x, s: x.index_copy(0, first, s),
        lambda x, s: x.index_fill(0, first, s.reshape(())),
        lambda x, s: x.scatter(0, first.reshape(s.shape), s),
        *(lambda x, s, how=how: x.scatter_reduce(0, first.reshape(s.shape), s, how) for how in ("sum", "mean", "amax")),
        *(
            lambda x, s, how=how: x.scatter_reduce(0, first.reshape(s.shape), s, how, include_self=False)
            for how in ("sum", "mean", "amin")
        ),
    ):
        vector = kobai.tensor([2.0], requires_grad=True)
        expected = call(vector, one.reshape(1))
        expected.sum().backward()
        scalar = kobai.tensor(2.0, requires_grad=True)
        found = call(scalar, one)
        found.backward()
        assert (found.shape, found.item(), scalar.grad.item()) == ((), expected.item(), vector.grad.item())


def test_an_index_without_elements_may_have_any_shape():
    x = kobai.ones(5, requires_grad=True)
    y = x.gather(0, kobai.zeros(2, 0, dtype=kobai.int64))
    assert y.shape == (2, 0)
    y.sum().backward()
    assert x.grad.tolist() == [0] * 5


def test_a_captured_step_counts_new_indices_from_the_end():
    x, weights = kobai.nn.Parameter(kobai.arange(6.0).reshape(2, 3)), kobai.tensor([1.0, 10.0])

    def step(places):
        loss = (kobai.take_along_dim(x, places, 1) * weights).sum()
        (dx,) = kobai.autograd.grad(loss, [x])
        return loss, dx

    captured = kobai.capture(step)
    for places in ([[0, 1]], [[-1, 1]], [[-3, -3]], [[2, -1]]):
        index = kobai.tensor(places)
        for found, expected in zip(captured(index), step(index), strict=True):
            assert found.tolist() == expected.tolist()
    with pytest.raises(IndexError, match=r"take_along_dim: expected indices in \[-3, 2\], got -4"):
        captured(kobai.tensor([[-4, 0]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_adding_and_taking_by_compiled_loops_is_what_numpy_does(axis, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 5)).astype(dtype)
    rows = rng.integers(0, x.shape[axis], 9)
    part = rng.normal(size=[9 if d == axis else n for d, n in enumerate(x.shape)]).astype(dtype)
    each = rng.integers(0, x.shape[axis], part.shape)
    added, scattered = x.copy(), x.copy()
    np.add.at(added, (slice(None),) * axis + (rows,), part)
    np.add.at(scattered, tuple(each if d == axis else m for d, m in enumerate(np.indices(part.shape))), part)
    for view in (np.asarray, np.asfortranarray):
        t, i = kobai.tensor(view(x), requires_grad=True), kobai.tensor(each)
        np.testing.assert_array_equal(t.index_add(axis, kobai.tensor(rows), kobai.tensor(view(part))).detach(), added)
        np.testing.assert_array_equal(t.scatter_add(axis, i, kobai.tensor(view(part))).detach(), scattered)
        y = t.gather(axis, i)
        np.testing.assert_array_equal(y.detach(), np.take_along_axis(x, each, axis))
        y.backward(kobai.tensor(view(part)))
        np.testing.assert_allclose(t.grad.array, scattered - x, rtol=1e-5, atol=1e-6)


def test_indices_in_neighbouring_axes_count_in_one():
    x = kobai.tensor(np.random.default_rng(0).normal(size=(2, 3, 4, 5)), requires_grad=True)
    i, j = kobai.tensor([[0, -1], [2, 2]]), kobai.tensor([3, -4])
    y = x[:, i, j]
    y.backward(kobai.ones_like(y))
    right = np.zeros(x.shape)
    np.add.at(right, (slice(None), i.array, j.array), 1)
    np.testing.assert_array_equal(x.grad.array, right)
