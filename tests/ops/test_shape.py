"""Views: their shapes, the memory they share, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from tables import cases, check, refused, tensors

import kobai
from kobai.gradcheck import gradcheck

VIEWS = """
reshape: a.reshape(2, -1) | a.reshape(2, -1)
reshape_tuple: T.reshape(a, (6, 2)) | a.reshape(6, 2)
reshape_tensor_sizes: a.reshape(i(2), 6) | a.reshape(2, 6)
reshape_numpy_sizes: a.reshape(np.int64(2), 6) | a.reshape(2, 6)
reshape_as: a.reshape_as(T.zeros(2, 6)) | a.reshape(2, 6)
view: a.view(3, 4) | a.reshape(3, 4)
view_as: a.view_as(T.zeros(12)) | a.reshape(12)
view_list: c.view([6, 4]) | c.reshape(6, 4)
view_of_rows: c[:, 1:].view(2, 8) | c[:, 1:].reshape(2, 8)
ravel: c.ravel() | c.ravel()
ravel_empty: e.ravel() | e.ravel()
flatten: c.flatten(1) | c.reshape(2, 12)
flatten_some: c.flatten(0, 1) | c.reshape(6, 4)
flatten_scalar: s.flatten() | s.reshape(1)
unflatten: c.unflatten(-1, (2, -1)) | c.reshape(2, 3, 2, 2)
transpose: c.transpose(0, -1) | c.swapaxes(0, 2)
transpose_scalar: s.transpose(0, -1) | s
swapaxes: T.swapaxes(c, 0, 1) | c.swapaxes(0, 1)
swapdims: c.swapdims(0, 1) | c.swapaxes(0, 1)
t: a.t() | a.T
t_vector: v.t() | v
T: c.T | c.T
T_matrix: a.T | a.T
mT: c.mT | c.swapaxes(1, 2)
mH: c.mH | c.swapaxes(1, 2)
H: a.H | a.T
permute: c.permute(2, 0, 1) | c.transpose(2, 0, 1)
permute_tuple: T.permute(c, (-1, 0, 1)) | c.transpose(2, 0, 1)
movedim: c.movedim(0, -1) | np.moveaxis(c, 0, -1)
moveaxis: T.moveaxis(c, (0, 1), (2, 0)) | np.moveaxis(c, (0, 1), (2, 0))
squeeze: o.squeeze() | o.squeeze()
squeeze_dim: o.squeeze(1) | o[:, 0]
squeeze_axis: o.squeeze(axis=1) | o[:, 0]
squeeze_none_there: o.squeeze(0) | o
squeeze_dims: o.squeeze((0, 1)) | o[:, 0]
unsqueeze: a.unsqueeze(1) | a[:, None]
unsqueeze_last: T.unsqueeze(a, dim=-1) | a[..., None]
expand: o.expand(2, 4, 3) | np.broadcast_to(o, (2, 4, 3))
expand_keep: o.expand(3, -1, 4, -1) | np.broadcast_to(o, (3, 2, 4, 3))
expand_as: o.expand_as(T.zeros(2, 4, 3)) | np.broadcast_to(o, (2, 4, 3))
broadcast_to: v.broadcast_to((2, 5)) | np.broadcast_to(v, (2, 5))
broadcast_tensors: T.broadcast_tensors(o, a) | np.broadcast_arrays(o, a)
diagonal: c.diagonal(1, -2, -1) | c.diagonal(1, -2, -1)
diagonal_below: a.diagonal(-2) | a.diagonal(-2)
diagonal_outside: a.diagonal(7) | a.diagonal(7)
select: c.select(-1, 2) | c[..., 2]
narrow: c.narrow(1, 1, 2) | c[:, 1:3]
narrow_from_end: c.narrow(2, -2, 1) | c[..., 2:3]
split: c.split(3, dim=-1) | [c[..., :3], c[..., 3:]]
split_even: v.split(5) | [v]
split_list: v.split([1, 4]) | [v[:1], v[1:]]
split_empty: e.split(2) | [e]
chunk: v.chunk(2) | [v[:3], v[3:]]
chunk_few: v[:2].chunk(4) | [v[:1], v[1:2]]
chunk_empty: e.chunk(2) | [e, e]
tensor_split: v.tensor_split(3) | np.array_split(v, 3)
tensor_split_at: v.tensor_split((1, -1)) | np.split(v, (1, 4))
tensor_split_tensor: v.tensor_split(i([1, 4])) | np.split(v, (1, 4))
hsplit: a.hsplit([1]) | np.hsplit(a, [1])
hsplit_vector: v.hsplit(1) | [v]
vsplit: T.vsplit(a, 2) | np.vsplit(a, 2)
dsplit: c.dsplit(2) | np.dsplit(c, 2)
unbind: c.unbind(1) | [c[:, 0], c[:, 1], c[:, 2]]
"""


@pytest.mark.parametrize(("call", "expected"), cases(VIEWS))
def test_view_agrees_with_numpy(call, expected, backend):
    check(call, expected)


@pytest.mark.parametrize("call", [row.values[0] for row in cases(VIEWS)], ids=[row.id for row in cases(VIEWS)])
def test_views_share_memory_and_version(call):
    """Writing into a view is seen by the tensor it views, and counted by it."""
    space = tensors()
    before = {name: t.clone() for name, t in space.items()}
    result = eval(call, {"T": kobai, "i": kobai.tensor, "np": np, **space})
    for view in result if isinstance(result, tuple) else (result,):
        if view.numel() and 0 not in view.array.strides:
            view.add_(1)
    changed = [name for name, t in space.items() if not t.equal(before[name])]
    expanded = "expand" in call or "broadcast" in call
    if not expanded and "outside" not in call and "(7)" not in call and "e." not in call.split("(")[0]:
        assert len(changed) == 1
        assert space[changed[0]]._version[0] > 0


REFUSED = [
    ("a.view(5)", RuntimeError, "view: shape [5] does not fit the 12 elements of (4, 3)"),
    ("a.t().view(-1)", RuntimeError, "needs a copy; use reshape()"),
    ("a.reshape(5, -1)", RuntimeError, "reshape: shape [5, -1] does not fit the 12 elements of (4, 3)"),
    ("a.reshape(2.0, 6)", TypeError, "reshape: expected integers"),
    ("c.flatten(2, 1)", RuntimeError, "expected start_dim ≤ end_dim, got 2 and 1"),
    ("c.unflatten(2, (3, -1))", RuntimeError, "do not multiply to the 4 of dim 2"),
    ("a.transpose(0, 2)", IndexError, "transpose: expected dim in [-2, 1], got 2"),
    ("c.t()", RuntimeError, "t: expected at most 2 dimensions, got shape (2, 3, 4)"),
    ("v.mT", RuntimeError, "mT: expected at least 2 dimensions"),
    ("c.H", RuntimeError, "H: expected a matrix, got shape (2, 3, 4)"),
    ("a.permute(0, 0)", RuntimeError, "permute: expected each of 2 dimensions once, got (0, 0)"),
    ("c.movedim((0, 1), 0)", RuntimeError, "as many sources as destinations"),
    ("a.squeeze(2)", IndexError, "squeeze: expected dim in [-2, 1], got 2"),
    ("a.unsqueeze(3)", IndexError, "unsqueeze: expected dim in [-3, 2], got 3"),
    ("a.expand(2, 3)", RuntimeError, "expand: shape (4, 3) cannot be expanded to (2, 3)"),
    ("a.expand(3)", RuntimeError, "cannot be expanded"),
    ("T.broadcast_tensors(a, v)", RuntimeError, "shapes (4, 3), (5,) do not fit together"),
    ("c.diagonal(0, 1, 1)", RuntimeError, "two different dimensions"),
    ("c.narrow(1, 2, 2)", RuntimeError, "start 2 with length 2 does not fit the size 3 of dim 1"),
    ("v.split([1, 1])", RuntimeError, "sizes [1, 1] do not add up to the 5 of dim 0"),
    ("v.split(0)", RuntimeError, "split: expected a positive size, got 0"),
    ("v.chunk(0)", RuntimeError, "chunk: expected chunks ≥ 1"),
    ("v.tensor_split(0)", RuntimeError, "at least one section"),
    ("v.unfold(0, 6, 1)", RuntimeError, "unfold: expected 0 ≤ size ≤ 5"),
    ("v.select(1, 0)", IndexError, "select: expected dim in [-1, 0], got 1"),
    ("v.unbind(1)", IndexError, "unbind: expected dim"),
    ("a.transpose('0', 1)", TypeError, "expected dim to be an integer"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refuses(call, error, message):
    refused(call, error, message)


def test_an_expanded_view_cannot_be_written_to():
    x = kobai.zeros(2, 1)
    with pytest.raises(RuntimeError, match="share memory; clone"):
        x.expand(2, 3).add_(1)


def test_writing_to_the_base_changes_an_expanded_view_and_its_gradient():
    leaf = kobai.tensor([[1.0], [2.0]], requires_grad=True)
    x = leaf * 1
    wide = x.expand(2, 3)
    x.mul_(5)
    wide.sum().backward()
    assert wide.tolist() == [[5.0] * 3, [10.0] * 3]
    assert leaf.grad.tolist() == [[15.0], [15.0]]


def test_a_view_made_without_the_tape_is_a_constant():
    leaf = kobai.tensor([1.0, 2.0], requires_grad=True)
    y = leaf * 3
    with kobai.no_grad():
        first = y[0]
    assert not first.requires_grad
    (y * first).sum().backward()
    assert leaf.grad.tolist() == [9.0, 9.0]


def test_a_view_can_be_made_a_leaf():
    x = kobai.linspace(-1, 1, 4).reshape(-1, 1).requires_grad_()
    with pytest.raises(RuntimeError, match="view of a leaf"):
        x[0].mul_(2)
    (x * x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.detach().numpy())


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
@pytest.mark.parametrize("write", ["y.reshape(-1)[::2] *= 2", "y.t()[0] *= y.sum()", "y.view(-1)[3] = 0.0"])
def test_writing_through_a_view_of_a_base_of_any_layout(layout, write):
    """Where the base lies in memory column by column, gradients must find the places of the view in that order too."""

    def written(leaf):
        base = kobai.from_numpy(layout(np.zeros((3, 2))))
        base.add_(leaf)
        y = base if base.is_contiguous() else base.t()
        exec(write, {"y": y})
        return base * base

    assert gradcheck(written, (kobai.tensor(np.arange(1.0, 7.0).reshape(3, 2), requires_grad=True),))


def test_the_shape_itself_can_change(backend):
    x = kobai.arange(6.0)
    row = x[2:4]
    assert x.unsqueeze_(0) is x
    assert x.shape == (1, 6)
    assert x.transpose_(0, 1).shape == (6, 1)
    assert x.t_().shape == (1, 6)
    assert x.squeeze_().shape == (6,)
    assert x.t_() is x
    row.add_(10)
    assert x.tolist() == [0, 1, 12, 13, 4, 5]


def test_views_made_before_the_shape_changed_keep_their_history():
    leaf = kobai.tensor([1.0, 2.0, 3.0], requires_grad=True)
    x = leaf * 2
    first = x[0]
    x.unsqueeze_(0)
    first.mul_(5)
    assert x.tolist() == [[10.0, 4.0, 6.0]]
    (x.sum() + first).backward()
    assert leaf.grad.tolist() == [20.0, 2.0, 2.0]


def test_the_shape_of_a_leaf_changes_only_outside_the_tape():
    x = kobai.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="unsqueeze_: a leaf that requires a gradient"):
        x.unsqueeze_(0)
    with kobai.no_grad():
        x.unsqueeze_(0)
    assert x.is_leaf
    (x * 3).sum().backward()
    assert x.grad.tolist() == [[3.0, 3.0]]


def test_unfold_of_a_tensor_without_dimensions():
    assert kobai.tensor(3.0).unfold(0, 1, 1).tolist() == [3]


def test_unfold_gives_every_window(backend):
    x = kobai.arange(7.0)
    assert x.unfold(0, 3, 2).tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    assert kobai.zeros(2, 5, 3).unfold(1, 2, 3).shape == (2, 2, 3, 2)
