"""Making tensors: from data, filled, ranges, and converting them."""

from __future__ import annotations

import numpy as np
import pytest

import kobai


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (1, "int64", ()),
        (1.5, "float32", ()),
        (True, "bool", ()),
        ([], "float32", (0,)),
        ([[]], "float32", (1, 0)),
        ([1, 2], "int64", (2,)),
        ([1, 2.5], "float32", (2,)),
        ([True, False], "bool", (2,)),
        ([True, 2], "int64", (2,)),
        ([[1, 2], [3, 4]], "int64", (2, 2)),
        (((1.0,), (2.0,)), "float32", (2, 1)),
        (range(3), "int64", (3,)),
        (np.ones(2), "float64", (2,)),
        ([np.ones(2), np.zeros(2)], "float64", (2, 2)),
        ([np.float32(1), np.float32(2)], "float32", (2,)),
        (np.float64(1), "float64", ()),
        (np.array([1, 2], np.uint8), "uint8", (2,)),
        (np.array([1.0, 2.0], ">f4"), "float32", (2,)),
        (np.array(3, np.int16), "int16", ()),
    ],
    ids=repr,
)
def test_dtype_and_shape_of_data(data, dtype, shape):
    x = kobai.tensor(data)
    assert (x.dtype, x.shape) == (np.dtype(dtype), shape)
    assert x.dtype.isnative
    assert kobai.as_tensor(data).dtype == x.dtype


def test_tensors_inside_data():
    assert kobai.tensor([kobai.tensor(1.0), kobai.tensor(2.0)]).tolist() == [1, 2]
    assert kobai.tensor([kobai.ones(2), kobai.zeros(2)]).shape == (2, 2)


def test_tensor_copies_and_as_tensor_does_not():
    host = np.ones(3)
    for make, shared in ((kobai.tensor, False), (kobai.as_tensor, True), (kobai.from_numpy, True)):
        assert np.shares_memory(make(host).array, host) is shared
    x = kobai.ones(2, requires_grad=True)
    assert kobai.as_tensor(x) is x
    y = kobai.tensor(x)
    assert y.is_leaf
    assert not y.requires_grad
    assert not np.shares_memory(y.array, x.array)
    assert kobai.tensor(host, dtype=kobai.float32, requires_grad=True).requires_grad


def test_dtype_argument_takes_what_numpy_takes():
    for dtype in (kobai.float64, np.float64, "float64", float):
        assert kobai.zeros(1, dtype=dtype).dtype == kobai.float64
    with pytest.raises(TypeError):
        kobai.zeros(1, dtype="flaot32")


@pytest.mark.parametrize("make", [kobai.zeros, kobai.ones, kobai.empty, kobai.rand, kobai.randn])
def test_sizes(make):
    for shape in (
        make(2, 3),
        make((2, 3)),
        make([2, 3]),
        make(size=(2, 3)),
        make(kobai.Size((2, 3))),
        make(np.int64(2), 3),
    ):
        assert shape.shape == (2, 3)
    assert make(()).shape == ()
    assert make(0, 4).shape == (0, 4)
    assert make(3).dtype == kobai.float32
    assert make(2, requires_grad=True, dtype=kobai.float64).grad_fn is None
    name = make.__name__
    with pytest.raises(RuntimeError, match=rf"{name}: expected sizes >= 0, got \(2, -1\)"):
        make(2, -1)
    with pytest.raises(TypeError, match=f"{name}: expected sizes as integers"):
        make(2.5)
    with pytest.raises(TypeError, match=f"{name}: expected sizes once"):
        make(2, size=(3,))


def test_full():
    assert kobai.full((2,), 3).dtype == kobai.int64
    assert kobai.full((2,), True).dtype == kobai.bool
    assert kobai.full((2,), 0.5).dtype == kobai.float32
    assert kobai.full((2,), kobai.tensor(0.5), dtype=kobai.float64).tolist() == [0.5, 0.5]
    assert kobai.full([], 1.0).shape == ()


def test_like():
    x = kobai.ones(2, 3, dtype=kobai.float64, requires_grad=True)
    for y in (kobai.zeros_like(x), kobai.ones_like(x), kobai.empty_like(x), kobai.full_like(x, 7), kobai.rand_like(x)):
        assert (y.shape, y.dtype, y.requires_grad) == ((2, 3), kobai.float64, False)
    assert kobai.ones_like(x, dtype=kobai.int64).tolist() == [[1] * 3] * 2
    for name in ("zeros_like", "ones_like", "empty_like"):
        with pytest.raises(TypeError, match=f"{name}: expected a Tensor, got list"):
            getattr(kobai, name)([1])
        with pytest.raises(TypeError, match=f"{name}.. got an unexpected keyword argument 'memory'"):
            getattr(kobai, name)(x, memory=1)


def test_new():
    x = kobai.ones(2, dtype=kobai.float64)
    made = [x.new_zeros(3), x.new_ones((3,)), x.new_empty(3), x.new_full((3,), 2), x.new_tensor([1, 2, 3])]
    assert all((y.shape, y.dtype) == ((3,), kobai.float64) for y in made)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ((5,), [0, 1, 2, 3, 4]),
        ((1, 4), [1, 2, 3]),
        ((4, 1, -1), [4, 3, 2]),
        ((0,), []),
        ((3, 3), []),
        ((0, 1, 0.25), [0, 0.25, 0.5, 0.75]),
        ((2.5,), [0, 1, 2]),
    ],
    ids=str,
)
def test_arange(arguments, values):
    x = kobai.arange(*arguments)
    assert x.tolist() == values
    assert x.dtype == (kobai.int64 if all(isinstance(a, int) for a in arguments) else kobai.float32)


def test_arange_by_name_and_its_errors():
    assert kobai.arange(end=3).tolist() == kobai.arange(start=0, end=3, step=1).tolist() == [0, 1, 2]
    assert kobai.arange(3, dtype=kobai.float64).dtype == kobai.float64
    assert kobai.arange(kobai.tensor(3)).tolist() == [0, 1, 2]
    with pytest.raises(RuntimeError, match="arange: expected steps from 5 towards 1, got step 1"):
        kobai.arange(5, 1)
    with pytest.raises(RuntimeError, match="got step 0"):
        kobai.arange(0, 1, 0)
    with pytest.raises(TypeError, match="arange: expected an end"):
        kobai.arange()


@pytest.mark.parametrize(
    ("arguments", "dtype", "values"),
    [
        ((0.5, 10, 2.5), kobai.int64, [0, 2, 4, 6, 8]),  # int64: all three lose their fractions, then it counts
        ((0.1, -7.9, -4.0), kobai.int64, [0, -4]),
        ((5.9,), kobai.int64, [0, 1, 2, 3, 4]),
        ((0.9, 5), kobai.uint8, [0, 1, 2, 3, 4]),  # others: it counts, then start and step do
        ((0.5, 10, 2.5), kobai.int32, [0, 2, 4, 6]),
        ((2**62, 2**62 + 3), kobai.int64, [2**62, 2**62 + 1, 2**62 + 2]),
    ],
    ids=str,
)
def test_ranges_of_integers(arguments, dtype, values):
    x = kobai.arange(*arguments, dtype=dtype)
    assert (x.dtype, x.tolist()) == (dtype, values)


def test_spaces_of_integers():
    assert kobai.linspace(4.3, -3, 10, dtype=kobai.int64).tolist() == [4, 3, 2, 1, 0, 0, 0, -1, -2, -3]
    assert kobai.linspace(0.5, 9.9, 4, dtype=kobai.uint8).tolist() == [0, 3, 6, 9]
    assert kobai.linspace(2.5, 9, 1, dtype=kobai.int64).tolist() == [2]
    assert kobai.linspace(kobai.tensor(0.5), kobai.tensor(9), 4, dtype=kobai.int64).tolist() == [0, 3, 6, 9]
    assert kobai.logspace(kobai.tensor(0), kobai.tensor(2.0), 3, dtype=kobai.int64).tolist() == [1, 10, 100]
    assert kobai.logspace(4.3, 1.2, 4, 3.0, dtype=kobai.int64).tolist() == [81, 27, 9, 3]
    assert kobai.logspace(0, 3, 4, dtype=kobai.int32).tolist() == [1, 10, 100, 1000]
    with pytest.raises(RuntimeError, match="arange: expected a step of at least 1 for int64, got 0"):
        kobai.arange(0, 3, 0.5, dtype=kobai.int64)


def test_tensors_of_one_element_are_numbers_in_a_sequence():
    a = kobai.tensor([0.5])
    for data, shape in (
        ([a, a], (2,)),
        ([[a], [a]], (2, 1)),
        ([[a, a], [a, a]], (2, 2)),
        ([a, 1.0], (2,)),
        ([kobai.tensor(1.0), kobai.tensor([[2.0]])], (2,)),
        ([a.expand(2), a.expand(2)], (2, 2)),  # those of several are rows
        ([[1.0, 2.0], kobai.tensor([3.0, 4.0])], (2, 2)),
        ([np.array([0.5]), np.array([0.5])], (2, 1)),  # and so are arrays
    ):
        for make in (kobai.tensor, kobai.as_tensor, kobai.FloatTensor):
            assert make(data).shape == shape


@pytest.mark.parametrize("data", [[300], 300, [1, -256], [float("nan")], [1.0, float("inf")], [[1], [-2.5e9]]], ids=str)
def test_numbers_that_do_not_fit(data):
    with pytest.raises(RuntimeError, match="tensor: expected numbers that fit into uint8"):
        kobai.tensor(data, dtype=kobai.uint8)
    assert kobai.tensor([-1, 254.5], dtype=kobai.uint8).tolist() == [255, 254]


def test_spaces_and_eye():
    assert kobai.linspace(0, 1, 5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert kobai.linspace(3, 3, 1).tolist() == [3]
    assert kobai.linspace(0, 1, 0).shape == (0,)
    assert kobai.logspace(0, 2, 3).tolist() == [1, 10, 100]
    assert kobai.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert kobai.eye(0).shape == (0, 0)
    for space in (kobai.linspace, kobai.logspace):
        with pytest.raises(RuntimeError, match=f"{space.__name__}: expected steps >= 0, got -1"):
            space(0, 1, -1)
    with pytest.raises(RuntimeError, match="eye: expected sizes >= 0, got"):
        kobai.eye(-1)


def test_to_and_its_short_names():
    x = kobai.tensor([0.0, 1.5], requires_grad=True)
    names = "float double half bfloat16 long int short char byte bool".split()
    dtypes = "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split()
    for name, dtype in zip(names, dtypes, strict=True):
        y = getattr(x, name)()
        assert y.dtype == np.dtype(dtype)
        assert y.requires_grad is getattr(kobai, dtype).is_floating_point
    assert x.float() is x
    assert x.to(kobai.float32) is x
    assert x.to("cpu") is x
    assert x.to(kobai.zeros(1, dtype=kobai.float64)).dtype == kobai.float64
    assert x.type_as(kobai.zeros(1, dtype=kobai.int32)).dtype == kobai.int32
    assert x.type(kobai.float64).dtype == kobai.float64
    for made, name in ((x, "FloatTensor"), (x.double(), "DoubleTensor"), (x > 0, "BoolTensor")):
        assert made.type() == f"torch.{name}"
        for library in ("torch", "kobai"):
            assert kobai.ones(1).type(f"{library}.{name}").dtype == made.dtype
    for wrong in ("torch.FooTensor", "numpy.FloatTensor", "torch.xpu.FloatTensor"):
        with pytest.raises(ValueError, match=r"type: expected a dtype or a name such as 'torch\.FloatTensor'"):
            x.type(wrong)
    assert x.to("cpu", kobai.float64, non_blocking=True).dtype == kobai.float64
    assert x.to("cpu", kobai.float32, True) is x
    assert x.to(kobai.float32, False, True) is not x
    with pytest.raises(TypeError, match="to: expected at most non_blocking and copy"):
        x.to(kobai.float32, False, True, True)
    with pytest.raises(ValueError, match="device: expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'"):
        x.to("gpu")
    (x.double() * 2).sum().backward()
    assert (x.grad.dtype, x.grad.tolist()) == (kobai.float32, [2, 2])


def test_questions():
    assert kobai.is_tensor(kobai.ones(1))
    assert not kobai.is_tensor(np.ones(1))
    assert kobai.is_floating_point(kobai.ones(1))
    assert kobai.numel(kobai.ones(2, 3)) == 6


def test_default_dtype():
    kobai.set_default_dtype(kobai.float64)
    assert {
        t.dtype for t in (kobai.ones(1), kobai.tensor([0.5]), kobai.rand(1), kobai.eye(1), kobai.linspace(0, 1, 2))
    } == {kobai.float64}
    assert kobai.get_default_dtype() == kobai.float64
    with pytest.raises(TypeError, match="set_default_dtype: expected a float dtype, got int64"):
        kobai.set_default_dtype(kobai.int64)


def test_ranges_without_end():
    for bounds in ((0, float("inf"), 2), (float("-inf"), 1), (0, float("nan"))):
        with pytest.raises(RuntimeError, match="arange: expected finite bounds, got"):
            kobai.arange(*bounds)
    with pytest.raises(RuntimeError, match="arange: expected steps from 0 towards 3, got step nan"):
        kobai.arange(0, 3, float("nan"))
    for make in (kobai.linspace, kobai.logspace):
        with pytest.raises(TypeError, match=rf"{make.__name__}: expected steps to be an integer, got 1\.5"):
            make(0, 3, 1.5)
