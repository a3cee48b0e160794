"""``x[...]`` read and written: what NumPy and PyTorch share, where they differ, the tape, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from tables import cases, check, refused, tensors

import kobai
from kobai import xp
from kobai.gradcheck import gradcheck

READ = """
int: a[1] | a[1]
negative: a[-1] | a[-1]
numpy_int: a[np.int64(2)] | a[2]
int_of_vector: v[2] | v[2, ...]
two_ints: a[1, -1] | a[1, -1, ...]
slices: c[:, 1:, ::2] | c[:, 1:, ::2]
slice_by_tensors: v[i(1):i(3)] | v[1:3]
ellipsis: c[..., 0] | c[..., 0]
nothing: s[()] | s
only_ellipsis: a[...] | a
none: a[:, None, 1] | a[:, None, 1]
none_only: s[None] | s[None]
tensor: a[i([2, 0, -2])] | a[[2, 0, -2]]
list: a[[3, -1]] | a[[3, -1]]
nested_list: c[:, [[0, 1], [2, 0]]] | c[:, [[0, 1], [2, 0]]]
empty_list: a[[]] | a[:0]
array: a[np.array([1, 1])] | a[[1, 1]]
range: a[range(2)] | a[:2]
second_dim: c[:, i([2, 0])] | c[:, [2, 0]]
two_tensors: a[i([0, 3, 3]), i([1, 2, 2])] | a[[0, 3, 3], [1, 2, 2]]
separated: c[i([0, 1]), :, i([3, 3])] | c[[0, 1], :, [3, 3]]
int_then_list: c[0, :, [0, 1]] | c[0][:, [0, 1]]
list_then_int: c[[1, 0], :, 2] | c[..., 2][[1, 0]]
list_none_list: c[[0, 1], None, [2, 2]] | c[[0, 1], None, [2, 2]]
ellipsis_list: c[..., [0, 2]] | c[..., [0, 2]]
mask: a[a > 0] | a[a > 0]
mask_rows: a[i([True, False, True, True])] | a[[0, 2, 3]]
mask_columns: a[:, i([True, False, True])] | a[:, [0, 2]]
mask_list: a[[True, False, False, True]] | a[[0, 3]]
mask_pairs: c[i([[True, False, True], [False, False, True]])] | c[[0, 0, 1], [0, 2, 2]]
mask_and_list: c[i([True, False]), :, [1, 2]] | c[[0, 0], :, [1, 2]]
mask_of_scalar: s[s > -100] | s[None]
true: a[True] | a[None]
false: a[False] | a[None][:0]
tensor_without_dims: a[i(2)] | a[2]
tensor_without_dims_mixed: c[i(1), :, i([0, 2])] | c[1][:, [0, 2]]
none_and_list: c[None, [0], ..., 1] | c[..., 1][None][:, [0]]
int32: a[i([0, 1], dtype=T.int32)] | a[:2]
of_bools: (a > 0)[1] | (a > 0)[1]
iterate: [row for row in a] | [a[0], a[1], a[2], a[3]]
"""


@pytest.mark.parametrize(("call", "expected"), cases(READ))
def test_reading(call, expected, backend):
    check(call, expected)


WRITE = """
int: x[1] = 5.0
element: x[1, 2] = 5.0
slice: x[1:3] = b[:2]
column: x[:, 0] = b[:, 1]
broadcast: x[:, 1:] = b[:, :1]
extra_dim: x[0] = b[None, 0]
ellipsis: x[...] = b
none: x[None] = b
list: x[[0, 2]] = b[:2]
tensors: x[i([0, 3]), i([1, 2])] = b[0, :2]
int_and_list: x[1, [0, 2]] = b[0, :2]
mask: x[x > 0] = 0.0
mask_value: x[x > 0] = b[x > 0]
mask_rows: x[i([True, False, False, True])] = b[:2]
python_list: x[0] = [1.0, 2.0, 3.0]
numpy: x[0] = np.array([1.0, 2.0, 3.0])
own: x[1:] = x[:-1]
own_reversed: x[[0, 1, 2, 3]] = x[[3, 2, 1, 0]]
in_place_add: x[1] += 1
in_place_mul: x[:, 0] *= x[:, 1]
in_place_list: x[[0, 1]] += 1
view: x.t()[0] = 7.0
number_tensor: x[0, 0] = s
"""


@pytest.mark.parametrize("code", [row.values[0] for row in cases(WRITE)], ids=[row.id for row in cases(WRITE)])
def test_writing(code, backend):
    space = {"T": kobai, "i": kobai.tensor, "np": np, **tensors()}
    hosts = {n: xp.to_host(t.array).copy() for n, t in space.items() if isinstance(t, kobai.Tensor)}
    space["x"], hosts["x"] = space["a"].clone(), hosts["a"].copy()
    before = space["x"]._version[0]
    if code.startswith("x.t"):
        exec(code, space)
        hosts["x"].T[0] = 7.0
    else:
        exec(code, space)
        exec(code, {"np": np, "i": np.array, **hosts})
    np.testing.assert_array_equal(xp.to_host(space["x"].array), hosts["x"])
    assert space["x"]._version[0] > before


@pytest.mark.parametrize(
    "write",
    [
        lambda x, w: x.__setitem__(0, w[0]),
        lambda x, w: x.__setitem__((slice(None), 1), w[:, 0]),
        lambda x, w: x.__setitem__([0, 2], w[:2]),
        lambda x, w: x.__setitem__((kobai.tensor([0, 0, 1]), kobai.tensor([1, 2, 0])), w[:3, 0]),
        lambda x, w: x.__setitem__(kobai.tensor([True, False, True, False]), w[:2]),
        lambda x, w: x.__setitem__((1, [0, 2]), w[0, :2]),
        lambda x, w: x.__setitem__(..., 2.0),
        lambda x, w: x.copy_(w[:1]),
        lambda x, w: x[1:].copy_(w[1:]),
        lambda x, w: x.fill_(w[0, 0]),
        lambda x, w: x[0].zero_(),
    ],
)
def test_gradient_of_an_assignment(write):
    rng = np.random.default_rng(2)
    x, w = (kobai.tensor(rng.normal(size=(4, 3)), requires_grad=True) for _ in range(2))

    def assigned(x, w):
        y = x * 1.5
        write(y, w)
        return y * y

    assert gradcheck(assigned, (x, w))


def test_a_tensor_without_a_gradient_takes_over_the_history_of_what_is_written_into_it():
    w = kobai.tensor([1.0, 2.0], requires_grad=True)
    rows = kobai.zeros(3, 2)
    for i in range(3):
        rows[i] = w * i
    rows.sum().backward()
    assert w.grad.tolist() == [3.0, 3.0]


def test_the_assigned_value_is_cast_to_the_dtype_of_the_target():
    x = kobai.zeros(2, dtype=kobai.int64)
    x[0] = 1.9
    x[1] = kobai.tensor(2.9)
    assert x.tolist() == [1, 2]
    w = kobai.tensor([1.0, 2.0], requires_grad=True)
    y = kobai.zeros(2, dtype=kobai.float64)
    y[...] = w
    y.sum().backward()
    assert w.grad.dtype == kobai.float32


def test_basic_indexing_shares_memory_and_indices_copy():
    x = kobai.zeros(3, 2)
    x[0].add_(1)
    x[1][0] = 5
    x[[2]].add_(1)
    assert x.tolist() == [[1, 1], [5, 0], [0, 0]]
    element = x[0, 0]
    element.fill_(9)
    assert x[0, 0].item() == 9


def test_in_place_change_of_an_index_is_noticed():
    x = kobai.ones(3, requires_grad=True)
    index = kobai.tensor([0, 1])
    y = x[index]
    index += 1
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


REFUSED = [
    (
        "a[4]",
        IndexError,
        "index: 4 does not fit a tensor of shape (4, 3): index 4 is out of bounds for axis 0 with size 4",
    ),
    ("a[0, 3]", IndexError, "does not fit a tensor of shape (4, 3)"),
    ("a[0, 0, 0]", IndexError, "3 indices are too many for a tensor of shape (4, 3)"),
    ("a[i([9])]", IndexError, "index: expected indices in [-4, 3], got 9"),
    ("a[i([0, 9]), i([0, 0])]", IndexError, "index: expected indices in [-4, 3], got 9"),
    ("a[1.5]", IndexError, "got float"),
    ("a['x']", IndexError, "got str"),
    ("a[i([0.0])]", IndexError, "got a tensor of float32"),
    ("a[:, i([True, False])]", IndexError, "a mask of shape (2,) does not fit dimensions (3,)"),
    ("a[..., ...]", IndexError, "at most one Ellipsis"),
    ("a[::-1]", ValueError, "expected a slice step > 0, got -1; use flip()"),
    ("s[0]", IndexError, "too many"),
    ("a.__setitem__(4, 1.0)", IndexError, "index: 4 does not fit"),
    ("a.__setitem__([4], 1.0)", IndexError, "index: expected indices in [-4, 3], got 4"),
    ("a.__setitem__(0, v)", RuntimeError, "a value of shape (5,) cannot be assigned"),
    ("a.__setitem__(0, [1.0, 2.0])", RuntimeError, "cannot be assigned"),
    ("a.copy_(v)", RuntimeError, "copy_: shape (5,) cannot be broadcast to (4, 3)"),
    ("a.fill_(v)", RuntimeError, "fill_: expected a number or a tensor without dimensions"),
    ("a.clone().requires_grad_().__setitem__(0, 1.0)", RuntimeError, "a view of a leaf that requires a gradient"),
    ("a.clone().requires_grad_().fill_(0)", RuntimeError, "a leaf that requires a gradient"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refuses(call, error, message):
    refused(call, error, message)


def test_copy_and_fill_without_the_tape():
    x = kobai.zeros(2, 3)
    assert x.copy_(kobai.tensor([1, 2, 3])) is x
    assert x.tolist() == [[1, 2, 3]] * 2
    assert x.fill_(2).sum().item() == 12
    assert x.zero_().sum().item() == 0
    p = kobai.ones(2, requires_grad=True)
    with kobai.no_grad():
        p.copy_(kobai.tensor([3.0, 4.0]))
        p[0] = 5.0
    assert p.tolist() == [5.0, 4.0]
    assert p.is_leaf


def test_values_move_to_the_device_of_the_target():
    with kobai.using("strict"):
        x = kobai.zeros(3)
    x[0] = kobai.tensor(2.0, device="cpu")
    x[kobai.tensor([1], device="cpu")] = kobai.tensor([3.0], device="cpu")
    x[2:].copy_(kobai.tensor([4.0], device="cpu"))
    assert x.device.type == "strict"
    assert x.tolist() == [2.0, 3.0, 4.0]


LISTS = [[[0, 1], [1, 2]], [[0], 1], [slice(None), 0], [range(2)], [None, 0], [..., 1], [[[0, 1], [1, 2]]]]


@pytest.mark.parametrize("index", LISTS, ids=str)
def test_a_list_of_more_than_integers_counts_as_a_tuple(index):
    x, y, expected = kobai.arange(9).reshape(3, 3), kobai.zeros(3, 3), kobai.zeros(3, 3)
    with pytest.warns(UserWarning, match=r"one index per dimension, .* NumPy takes it as one index. Write x\[a, b\]"):
        got = x[index]
    assert got.tolist() == x[tuple(index)].tolist()
    with pytest.warns(UserWarning, match="one index per dimension"):
        y[index] = 1.0
    expected[tuple(index)] = 1.0
    assert y.tolist() == expected.tolist()


def test_a_long_list_of_lists_is_one_index():
    x = kobai.arange(6).reshape(3, 2)
    assert x[[[0, 2]] * 32].shape == (32, 2, 2)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence", "ignore:index. a list")
def test_lists_are_taken_as_in_pytorch():
    import torch

    for index in (*LISTS, [[0, 2]] * 32, [True, False, True], [0, 2]):
        assert kobai.arange(9).reshape(3, 3)[index].tolist() == torch.arange(9).reshape(3, 3)[index].tolist()


def test_ragged_indices():
    with pytest.raises(IndexError, match=r"index: expected rows of equal length in \[\[0, 1\], \[1\]\]"):
        kobai.zeros(3, 3)[[[0, 1], [1]], 0]
