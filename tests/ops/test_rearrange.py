"""Joining, repeating, reordering, triangles, copies."""

from __future__ import annotations

import numpy as np
import pytest
from tables import cases, check, refused

import kobai
from kobai.gradcheck import gradcheck

COPIES = """
cat: T.cat([a, b], dim=1) | np.concatenate([a, b], 1)
cat_axis: T.cat((a, b), axis=-1) | np.concatenate([a, b], 1)
cat_dtypes: T.cat([i([1, 2]), i([0.5])]) | np.array([1, 2, 0.5], np.float32)
cat_empty: T.cat([T.zeros(0, dtype=T.float64), a]) | a
cat_only_empty: T.cat([T.zeros(0), T.zeros(0)]) | np.zeros(0, np.float32)
concat: T.concat([a, b]) | np.concatenate([a, b])
concatenate: T.concatenate([a, b]) | np.concatenate([a, b])
stack: T.stack([a, b], -1) | np.stack([a, b], -1)
stack_scalars: T.stack([s, s]) | np.stack([s, s])
hstack: T.hstack((a, b)) | np.hstack((a, b))
hstack_vectors: T.hstack((v, v)) | np.hstack((v, v))
vstack: T.vstack((v, v)) | np.vstack((v, v))
dstack: T.dstack((a, b)) | np.dstack((a, b))
dstack_vectors: T.dstack((v, v)) | np.dstack((v, v))
atleast_1d: T.atleast_1d(s) | np.atleast_1d(s)
atleast_2d: T.atleast_2d(v, s) | [np.atleast_2d(v), np.atleast_2d(s)]
atleast_3d: T.atleast_3d([v, a, c]) | [np.atleast_3d(v), np.atleast_3d(a), c]
meshgrid: T.meshgrid(v, a[:, 0], indexing='ij') | np.meshgrid(v, a[:, 0], indexing='ij')
meshgrid_xy: T.meshgrid([v, a[:, 0]], indexing='xy') | np.meshgrid(v, a[:, 0])
cartesian_prod: T.cartesian_prod(i([1, 2]), i([3, 4])) | np.array([[1, 3], [1, 4], [2, 3], [2, 4]])
cartesian_prod_of_one: T.cartesian_prod(v) | v
repeat: a.repeat(2, 3) | np.tile(a, (2, 3))
repeat_more: v.repeat(2, 1, 2) | np.tile(v, (2, 1, 2))
repeat_zero: v.repeat(0) | v[:0]
tile: a.tile(2) | np.tile(a, 2)
tile_function: T.tile(a, (2, 1, 1)) | np.tile(a, (2, 1, 1))
repeat_interleave: a.repeat_interleave(2, dim=1) | np.repeat(a, 2, 1)
repeat_interleave_flat: a.repeat_interleave(2) | np.repeat(a, 2)
repeat_interleave_counts: T.repeat_interleave(v, i([1, 0, 2, 0, 1]), output_size=4) | np.repeat(v, [1, 0, 2, 0, 1])
flip: c.flip(0, -1) | np.flip(c, (0, 2))
flip_nothing: c.flip(()) | c
fliplr: T.fliplr(a) | np.fliplr(a)
flipud: a.flipud() | np.flipud(a)
roll: a.roll(2, 0) | np.roll(a, 2, 0)
roll_flat: T.roll(a, -5) | np.roll(a, -5)
roll_two: a.roll((1, -1), (0, 1)) | np.roll(a, (1, -1), (0, 1))
rot90: a.rot90() | np.rot90(a)
rot90_twice: c.rot90(2, (1, 2)) | np.rot90(c, 2, (1, 2))
rot90_back: a.rot90(-1) | np.rot90(a, -1)
rot90_whole: a.rot90(4) | a
tril: c.tril(1) | np.tril(c, 1)
triu: T.triu(a, -1) | np.triu(a, -1)
diag: T.diag(v, 1) | np.diag(v, 1)
diag_of: a.diag(-1) | np.diag(a, -1)
diag_embed: T.diag_embed(v) | np.diag(v)
diag_embed_dims: T.diag_embed(a, dim1=0, dim2=2) | np.moveaxis(np.stack([np.diag(r) for r in a]), (1, 2), (0, 2))
column_stack: T.column_stack((v, v, T.stack([v, v], 1))) | np.stack([v, v, v, v], 1)
row_stack: T.row_stack((v, v)) | np.stack([v, v])
block_diag: T.block_diag(i([[1, 2]]), i(3)) | np.array([[1, 2, 0], [0, 0, 3]])
tril_indices: T.tril_indices(3, 4, 1) | np.stack(np.tril_indices(3, 1, 4))
triu_indices: T.triu_indices(3, 3) | np.stack(np.triu_indices(3))
clone: a.t().clone() | a.T
contiguous: a.t().contiguous() | a.T
"""


@pytest.mark.parametrize(("call", "expected"), cases(COPIES))
def test_copy_agrees_with_numpy(call, expected, backend):
    check(call, expected)


REFUSED = [
    ("T.cat([])", ValueError, "cat: expected at least one tensor"),
    ("T.cat(a)", TypeError, "cat: expected a list or tuple of Tensors, got Tensor"),
    ("T.cat([a, 1])", TypeError, "cat: expected a Tensor, got int"),
    ("T.cat([a, c])", RuntimeError, "got (2, 3, 4) for tensor 1"),
    ("T.cat([a, b[:2]], 1)", RuntimeError, "sizes equal to those of the first tensor (4, 3) but in dim 1, got (2, 3)"),
    ("T.cat([s, s])", RuntimeError, "use stack()"),
    ("T.cat([a, b], 2)", IndexError, "cat: expected dim in [-2, 1], got 2"),
    ("T.stack([a, b[:2]])", RuntimeError, "stack: expected equal shapes, got (4, 3) and (2, 3) for tensor 1"),
    ("T.meshgrid(a)", RuntimeError, "meshgrid: expected vectors"),
    ("T.meshgrid(v, indexing='yx')", RuntimeError, "'ij' or 'xy', got 'yx'"),
    ("a.repeat(2)", RuntimeError, "repeat: expected at least 2 counts"),
    ("v.repeat(-1)", RuntimeError, "counts ≥ 0"),
    ("v.repeat_interleave(i([1, 2]))", RuntimeError, "expected 1 or 5 repeats"),
    ("v.repeat_interleave(-1)", RuntimeError, "integers ≥ 0"),
    ("v.repeat_interleave(2, output_size=9)", RuntimeError, "output_size is 9, but repeats add up to 10"),
    ("v.roll((1, 2), 0)", RuntimeError, "as many shifts as dims"),
    ("v.tril()", RuntimeError, "tril: expected at least 2 dimensions"),
    ("v.triu()", RuntimeError, "triu: expected at least 2 dimensions"),
    ("T.diag(c)", RuntimeError, "diag: expected a vector or a matrix, got shape (2, 3, 4)"),
    ("a.flip(0, 0)", RuntimeError, "names a dimension twice"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refuses(call, error, message):
    refused(call, error, message)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.repeat(2, 3),
        lambda x: x.repeat_interleave(kobai.tensor([2, 0, 1]), 0),
        lambda x: kobai.hstack((x, x * 2)),
        lambda x: kobai.meshgrid(x[0], x[1], indexing="xy")[0],
        lambda x: x.rot90(1),
        lambda x: x.roll(4),
        lambda x: x.unfold(0, 2, 1),
        lambda x: x.diag(1),
        lambda x: kobai.cat([x.split(2, 1)[0], x.unbind(1)[1][:, None]], 1),
    ],
)
def test_gradient_of_what_is_put_together(function):
    x = kobai.tensor(np.random.default_rng(1).normal(size=(3, 3)), requires_grad=True)
    assert gradcheck(function, (x,))


def test_contiguous_is_itself_where_it_can_be():
    x = kobai.zeros(2, 3)
    assert x.contiguous() is x
    assert x.t().contiguous().is_contiguous()


def test_clone_has_its_own_memory():
    x = kobai.zeros(2)
    y = x.clone()
    y += 1
    assert x.tolist() == [0, 0]


def test_flip_is_a_copy_that_can_be_written_to():
    x = kobai.arange(3)
    y = x.flip(0)
    y[0] = 9
    assert x.tolist() == [0, 1, 2]
    assert y.tolist() == [9, 1, 0]


def test_tril_in_place():
    x = kobai.ones(2, 2)
    assert x.tril_() is x
    assert x.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("name", ["tril_indices", "triu_indices"])
def test_triangles_numbers_have_the_dtype_asked_for(name, backend):
    find = getattr(kobai, name)
    small = find(3, 4, -1, dtype=kobai.int32)
    assert small.dtype == kobai.int32
    assert find(3, 4, -1).dtype == kobai.int64
    assert small.tolist() == find(3, 4, -1).tolist() == np.stack(getattr(np, name)(3, -1, 4)).tolist()
    assert find(0, 2).shape == (2, 0)
    with pytest.raises(RuntimeError, match=f"{name}: expected dtype int32 or int64, got float32"):
        find(3, 4, dtype=kobai.float32)
    with pytest.raises(RuntimeError, match=f"{name}: expected row and col >= 0, got 3 and -4"):
        find(3, -4)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_with_bands_is_that_with_the_matrix(transposed):
    from kobai.ops._bands import along, bands

    matrix = np.zeros((5, 7))
    matrix[0, 2:5], matrix[1, 0], matrix[3, 6], matrix[4] = [1, 2, 3], 4, 5, np.arange(7)  # row 2 has none
    matrix = matrix.T if transposed else matrix
    x = np.random.default_rng(0).normal(size=(3, matrix.shape[1], 2))
    for axis, array in ((1, x), (2, np.ascontiguousarray(x.swapaxes(1, 2)))):
        right = np.moveaxis(np.tensordot(array, matrix, (axis, 1)), -1, axis)
        np.testing.assert_allclose(along(bands(matrix), array, axis), right, rtol=1e-13)


def test_infinity_stays_beside_what_it_is_interpolated_with():
    x = kobai.tensor([[[1.0, 2.0, float("inf"), 4.0, 5.0]]])
    y = kobai.nn.functional.interpolate(x, scale_factor=2, mode="linear")
    assert y.isfinite().tolist()[0][0] == [True, True, True, False, False, False, False, True, True, True]
