"""Tensor: what it is, what it turns into, how it prints, and what it says to wrong arguments."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import kobai
from kobai.errors import BackendError

# --- what it is -------------------------------------------------------------------------------------------------------


def test_size_is_a_tuple_that_counts_and_stays_a_size_when_cut():
    shape = kobai.zeros(2, 3, 4).shape
    assert shape == (2, 3, 4)
    assert shape.numel() == 24
    assert shape[1:].numel() == 12
    assert shape[:1].__add__((5,)).numel() == 10
    assert shape[-1] == 4
    assert repr(shape) == "kobai.Size([2, 3, 4])"


def test_attributes(backend):
    x = kobai.zeros(2, 3)
    assert (x.ndim, x.dim(), x.numel(), x.nelement(), x.size(), x.size(-1)) == (2, 2, 6, 6, (2, 3), 3)
    assert (x.itemsize, x.element_size(), x.nbytes, x.dtype) == (4, 4, 24, kobai.float32)
    assert x.stride() == (3, 1)
    assert x.t().stride() == (1, 3)
    assert x.is_contiguous()
    assert not x.t().is_contiguous()
    assert x.is_floating_point()
    assert x.is_leaf
    assert x.grad_fn is None
    assert len(x) == 2


@pytest.mark.parametrize("dim", [2, -3])
def test_size_names_the_range(dim):
    with pytest.raises(IndexError, match=r"size: expected dim in \[-2, 1\], got"):
        kobai.zeros(2, 3).size(dim)


def test_the_old_constructor_takes_sizes_or_data():
    assert kobai.Tensor(2, 3).shape == (2, 3)
    assert kobai.Tensor(3).shape == (3,)
    assert kobai.Tensor([3]).tolist() == [3.0]
    assert kobai.Tensor().shape == (0,)
    assert kobai.Tensor([1, 2]).dtype == kobai.float32
    with pytest.raises(TypeError, match="expected sizes as integers, or one sequence"):
        kobai.Tensor(2, "a")


# --- what it turns into -----------------------------------------------------------------------------------------------


def test_item_and_tolist(backend):
    assert kobai.tensor([[1.5]]).item() == 1.5
    assert kobai.tensor(True).item() is True
    assert type(kobai.tensor(3).item()) is int
    assert kobai.tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert kobai.tensor(2.5).tolist() == 2.5
    assert kobai.zeros(0, 3).tolist() == []
    with pytest.raises(RuntimeError, match=r"item: expected a tensor of one element, got shape \(2,\)"):
        kobai.zeros(2).item()


def test_python_numbers_from_one_element():
    x = kobai.tensor([2])
    assert (int(x), float(x), bool(x), [10, 20, 30][x]) == (2, 2.0, True, 30)
    assert round(float(kobai.tensor(1.25)), 1) == 1.2
    with pytest.raises(RuntimeError, match=r"bool: expected a tensor of one element.*any\(\) or .all\(\)"):
        bool(kobai.zeros(2))
    with pytest.raises(RuntimeError, match="one element"):
        bool(kobai.zeros(0))
    with pytest.raises(TypeError, match=r"index: expected an integer tensor, got kobai\.float32"):
        [1, 2][kobai.tensor(1.0)]


def test_containers():
    x = kobai.tensor([[1, 2], [3, 4]])
    assert 3 in x
    assert 5 not in x
    assert [row.tolist() for row in x] == [[1, 2], [3, 4]]
    assert reversed(x).tolist() == [[3, 4], [1, 2]]
    assert (+x).tolist() == x.tolist()
    _, b = x
    assert b.tolist() == [3, 4]
    for use in (len, iter):
        with pytest.raises(TypeError, match="without dimensions"):
            use(kobai.tensor(1.0))


def test_a_tensor_is_hashed_by_identity():
    x, y = kobai.zeros(2), kobai.zeros(2)
    assert len({x, y, x}) == 2
    assert {x: 1}[x] == 1


def test_numpy_shares_memory_both_ways():
    x = kobai.zeros(3)
    x.numpy()[0] = 1
    assert x.tolist() == [1, 0, 0]
    host = np.zeros(3)
    kobai.from_numpy(host).add_(1)
    assert host.tolist() == [1, 1, 1]


def test_numpy_refuses_what_would_lose_the_gradient_or_the_device():
    x = kobai.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"use tensor.detach\(\).numpy\(\)"):
        x.numpy()
    assert x.numpy(force=True).tolist() == [1, 1]
    with kobai.using("strict"):
        y = kobai.ones(2)
    with pytest.raises(TypeError, match=r"on strict; use tensor.cpu\(\).numpy\(\)"):
        y.numpy()
    assert y.cpu().numpy().tolist() == [1, 1]


def test_array_protocol():
    x = kobai.arange(3)
    assert np.asarray(x).dtype == np.int64
    assert np.asarray(x, dtype=np.float32).dtype == np.float32
    assert np.stack([x, x]).shape == (2, 3)
    kept = np.array(x)
    x.add_(1)
    assert kept.tolist() == [0, 1, 2]
    assert np.shares_memory(np.asarray(x), x.array)
    with pytest.raises(ValueError, match="a copy is needed"):
        np.array(x, dtype=np.float32, copy=False)


def test_dlpack_with_numpy_shares_memory():
    x = kobai.zeros(2, 3)
    host = np.from_dlpack(x)
    x.add_(1)
    assert host.tolist() == x.tolist()
    back = kobai.from_dlpack(np.ones(3))
    assert back.add_(1).tolist() == [2, 2, 2]
    with pytest.raises(BufferError, match="requires a gradient"):
        np.from_dlpack(kobai.ones(2, requires_grad=True))
    with pytest.raises(TypeError, match="from_dlpack: expected an object with __dlpack__, got list"):
        kobai.from_dlpack([1])


@pytest.mark.parametrize(
    "view", [lambda a: a[::2], lambda a: a.T, lambda a: a[::-1]], ids=["step", "transposed", "reversed"]
)
def test_from_numpy_keeps_any_layout(view):
    host = view(np.arange(12.0).reshape(4, 3))
    assert kobai.from_numpy(host).tolist() == host.tolist()
    assert (kobai.from_numpy(host) * 2).tolist() == (host * 2).tolist()


# --- mixing with NumPy ------------------------------------------------------------------------------------------------


def test_numpy_operands():
    x = kobai.ones(2, requires_grad=True)
    for y in (x * np.array([2.0, 3.0], np.float32), np.array([2.0, 3.0], np.float32) * x):
        assert isinstance(y, kobai.Tensor)
        assert y.requires_grad
        assert y.tolist() == [2, 3]
    assert (np.float64(2) * x).dtype == kobai.float32, "NumPy's scalars are as weak as Python's"
    assert (x + np.float32(1)).tolist() == [2, 2]


def test_a_memory_mapped_file_is_an_ordinary_operand(tmp_path):
    np.arange(3.0).tofile(tmp_path / "numbers")
    mapped = np.memmap(tmp_path / "numbers", np.float64, "r")
    for x in (kobai.tensor(mapped), kobai.as_tensor(mapped), kobai.from_numpy(mapped)):
        assert (x + kobai.ones(3)).tolist() == [1, 2, 3]
    assert (kobai.ones(3) * mapped).tolist() == [0, 1, 2]


# --- copies -----------------------------------------------------------------------------------------------------------


def test_deepcopy_is_independent_and_keeps_what_belongs_to_a_leaf():
    x = kobai.ones(2, requires_grad=True)
    x.name = "weights"
    (x * 2).sum().backward()
    y = copy.deepcopy(x)
    with kobai.no_grad():
        x.add_(1)
        x.grad.add_(1)
    assert (y.tolist(), y.grad.tolist(), y.requires_grad, y.name) == ([1, 1], [2, 2], True, "weights")
    pair = copy.deepcopy([x, x])
    assert pair[0] is pair[1]
    with pytest.raises(RuntimeError, match="only leaf tensors"):
        copy.deepcopy(x * 2)
    assert copy.copy(x).array is x.array


# --- as text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (1.5, "tensor(1.5000)"),
        (3, "tensor(3)"),
        ([1.0, 2.0], "tensor([1., 2.])"),
        ([0.1, -20.25], "tensor([  0.1000, -20.2500])"),
        ([1e-5, 1.0], "tensor([1.0000e-05, 1.0000e+00])"),
        ([float("nan"), float("inf"), 1.5], "tensor([   nan,    inf, 1.5000])"),
        ([[True, False]], "tensor([[ True, False]])"),
        ([], "tensor([])"),
        (np.zeros((0, 3)), "tensor([], size=(0, 3), dtype=kobai.float64)"),
        (np.array([1, 255], np.uint8), "tensor([  1, 255], dtype=kobai.uint8)"),
        (np.arange(2000), "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])"),
        (np.zeros((1, 2, 2)), "tensor([[[0., 0.],\n         [0., 0.]]], dtype=kobai.float64)"),
        (np.zeros((2, 1, 1), np.float32), "tensor([[[0.]],\n\n        [[0.]]])"),
    ],
)
def test_repr(data, text):
    assert repr(kobai.tensor(data)) == text


def test_repr_tells_where_a_tensor_came_from():
    x = kobai.ones(2, requires_grad=True)
    assert repr(x) == "tensor([1., 1.], requires_grad=True)"
    assert repr(x * 2) == "tensor([2., 2.], grad_fn=<MulBackward>)"
    with kobai.using("strict"):
        assert repr(kobai.ones(1)) == "tensor([1.], device='strict')"
    kobai.set_default_dtype(kobai.float64)
    assert repr(kobai.tensor([1.0])) == "tensor([1.])"


def test_repr_breaks_lines_and_moves_a_note_that_does_not_fit():
    lines = repr(kobai.arange(40, dtype=kobai.float64) / 3).split("\n")
    assert len(lines) > 2
    assert all(len(line) <= 80 for line in lines)
    assert repr(kobai.linspace(0, 1, 9, dtype=kobai.float64)).endswith("\n       dtype=kobai.float64)")
    assert repr(kobai.zeros(50, 50)).count("...") == 7


def test_format():
    loss = kobai.tensor(0.12345)
    assert f"{loss:.3f}|{loss:8.2f}|{kobai.tensor(3)}" == "0.123|    0.12|3"
    assert f"{kobai.ones(2)}" == "tensor([1., 1.])"
    with pytest.raises(TypeError, match="format"):
        f"{kobai.ones(2):.3f}"


# --- wrong arguments --------------------------------------------------------------------------------------------------


def test_unknown_attribute_offers_the_nearest():
    with pytest.raises(AttributeError, match=r"^'Tensor' object has no attribute 'resahpe'\. Did you mean 'reshape'"):
        kobai.ones(2).resahpe(1)
    with pytest.raises(AttributeError, match=r"'kobai' has no attribute 'tesnor'\. Did you mean 'tensor'"):
        kobai.tesnor([1])
    assert not hasattr(kobai.ones(2), "__cuda_array_interface__")


@pytest.mark.parametrize("other", ["a", None, {}, object()])
def test_operators_leave_strangers_to_python(other):
    with pytest.raises(TypeError, match="unsupported operand"):
        kobai.ones(2) + other
    with pytest.raises(TypeError, match="add: expected a Tensor or a number, got"):
        kobai.add(kobai.ones(2), other)


def test_operators_ask_the_other_operand():
    class Other:
        def __radd__(self, tensor):
            return "asked"

        __rmatmul__ = __radd__

    assert kobai.ones(2) + Other() == "asked"
    assert kobai.ones(2) @ Other() == "asked"


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (lambda a, b: a + b, "add"),
        (lambda a, b: a / b, "div"),
        (lambda a, b: a // b, "floor_divide"),
        (kobai.maximum, "maximum"),
    ],
)
def test_shapes_that_do_not_broadcast_are_named(operation, name):
    with pytest.raises(RuntimeError, match=rf"{name}: expected shapes that broadcast together, got \(2,\) and \(3,\)"):
        operation(kobai.ones(2), kobai.ones(3))


def test_mixing_backends_names_operation_argument_and_fix():
    here = kobai.ones(2)
    with kobai.using("strict"):
        there, number = kobai.ones(2), kobai.tensor(2.0)
    with pytest.raises(BackendError, match=r"add: argument 2 is on strict but argument 1 on cpu.*\.to\('cpu'\)"):
        here + there
    with pytest.raises(BackendError, match=r"mul: argument 2 is on cpu but argument 1 on strict.*\.to\('strict'\)"):
        there * here
    with pytest.raises(BackendError, match="linear: "):
        kobai.nn.functional.linear(kobai.ones(1, 2), there.reshape(1, 2))
    with pytest.raises(BackendError, match="floor_divide: "):
        here // there
    assert (there * kobai.tensor(2.0)).device.type == "strict", "a number of the host goes to the others"
    with pytest.raises(BackendError, match="mul: "):
        here * number  # the other way round it would have to wait for the device
    with pytest.raises(BackendError, match="add: "):
        here.add_(there)


def test_dtypes_that_no_tensor_has():
    for data in (np.array(["a"]), np.array([1j]), np.array([object()]), np.array(["2020-01-01"], "datetime64[D]")):
        for make in (kobai.tensor, kobai.as_tensor, kobai.from_numpy):
            with pytest.raises(TypeError, match="expected a bool, integer or float array"):
                make(data)
    for data in ("a", None, {}, {1, 2}, 1j, object()):
        with pytest.raises(TypeError, match="tensor: expected numbers"):
            kobai.tensor(data)
    with pytest.raises(ValueError, match="rows of equal length"):
        kobai.tensor([[1, 2], [3]])


def test_requires_grad_needs_floats():
    with pytest.raises(RuntimeError, match="requires_grad: expected a float tensor, got int64"):
        kobai.arange(3).requires_grad_()
    with pytest.raises(RuntimeError, match="expected a float tensor, got bool"):
        kobai.tensor([True], requires_grad=True)


def test_grad_is_checked_when_assigned():
    x = kobai.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"grad: expected shape \(2,\), got \(3,\)"):
        x.grad = kobai.ones(3)
    with pytest.raises(RuntimeError, match=r"grad: expected dtype kobai\.float32, got kobai\.float64"):
        x.grad = kobai.ones(2, dtype=kobai.float64)
    with pytest.raises(TypeError, match="grad: expected a Tensor or None, got int"):
        x.grad = 1
    x.grad = kobai.ones(2)
    del x.grad
    assert x.grad is None
    with pytest.raises(TypeError, match="data: expected a Tensor, got list"):
        x.data = [1]


def test_inf_and_nan_flow_without_a_warning():
    x = kobai.tensor([0.0, 1e38, float("nan"), float("inf")], requires_grad=True)
    y = (x / 0).log() + x * 10 - x.exp()
    y.sum().backward()
    assert kobai.isnan(x.grad).any()


def test_memory_is_shared_by_threads_as_it_is():
    x = kobai.ones(2)
    assert x.share_memory_() is x


@pytest.mark.parametrize(
    ("size", "stride"), [((2, 3), (1, 2)), ((2, 3), (3, 1)), ((2, 0), (1, 1)), ((), ()), ((3,), (2,))]
)
def test_a_tensor_is_made_with_the_steps_asked_for(size, stride):
    x = kobai.empty_strided(size, stride, dtype=kobai.float64, requires_grad=True)
    assert (tuple(x.shape), x.dtype, x.requires_grad, x.is_leaf) == (size, kobai.float64, True, True)
    assert 0 in size or x.stride() == stride
    x.detach().fill_(2)
    assert (x == 2).all()


def test_steps_and_sizes_have_to_fit_each_other():
    with pytest.raises(RuntimeError, match="empty_strided: expected a step for every size"):
        kobai.empty_strided((2, 3), (1,))
    with pytest.raises(RuntimeError, match="empty_strided: expected no negative numbers"):
        kobai.empty_strided((2,), (-1,))
