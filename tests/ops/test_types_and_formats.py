"""PyTorch's older type names, memory formats, and the questions that programs ask of a tensor."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.ops.typed import TYPES, TensorType

FORMATS = {"contiguous_format": None, "preserve_format": None, "channels_last": 4, "channels_last_3d": 5}


@pytest.mark.parametrize("name", TYPES)
def test_an_older_name_makes_tensors_and_stands_for_their_type(name):
    made = getattr(kobai, name)
    x = made([1, 0])
    assert (x.dtype, x.tolist(), x.type()) == (TYPES[name], [1, 0], f"torch.{name}")
    assert made.dtype == x.dtype
    assert isinstance(x, made)
    assert not isinstance(x, getattr(kobai.cuda, name))
    assert not isinstance(np.ones(2), made)
    assert (made(2, 3).shape, made(kobai.ones(2, 3).size()).shape) == ((2, 3), (2, 3))
    assert made().shape == (0,)
    for wanted in (made, f"torch.{name}", f"kobai.{name}", made.dtype):
        assert kobai.tensor([1.0, 0.0]).type(wanted).type() == f"torch.{name}"
    assert pickle.loads(pickle.dumps(made)) is made
    assert {n for n in TYPES if isinstance(x, getattr(kobai, n))} == {name}


@pytest.mark.gpu
def test_older_names_of_tensors_on_a_gpu():
    x = kobai.cuda.FloatTensor(2, 3)
    assert x.is_cuda
    assert x.type() == "torch.cuda.FloatTensor"
    assert isinstance(x, kobai.cuda.FloatTensor)
    assert not isinstance(x, kobai.FloatTensor)
    assert kobai.ones(2).type(kobai.cuda.LongTensor).type() == "torch.cuda.LongTensor"
    assert kobai.cuda.LongTensor([1]).cpu().type() == "torch.LongTensor"


def test_a_program_that_chooses_its_type():
    use_cuda = kobai.cuda.is_available()
    dtype = kobai.cuda.FloatTensor if use_cuda else kobai.FloatTensor
    assert isinstance(dtype, TensorType)
    w = kobai.autograd.Variable(kobai.randn(2, 3).type(dtype), volatile=True)
    assert not w.requires_grad
    assert w.type() == f"torch.{'cuda.' * use_cuda}FloatTensor"


def test_the_default_type():
    try:
        for given in ("torch.DoubleTensor", kobai.DoubleTensor):
            kobai.set_default_tensor_type(given)
            assert kobai.ones(1).type() == "torch.DoubleTensor"
            kobai.set_default_tensor_type("torch.FloatTensor")
            assert kobai.ones(1).dtype == kobai.float32
    finally:
        kobai.set_default_dtype(kobai.float32)
    with pytest.raises(TypeError, match="got 3"):
        kobai.set_default_tensor_type(3)
    with pytest.raises(ValueError, match=r"set_default_tensor_type: .*'torch\.FooTensor'"):
        kobai.set_default_tensor_type("torch.FooTensor")
    with pytest.raises(TypeError, match="expected a float dtype"):
        kobai.set_default_tensor_type(kobai.LongTensor)


TAKERS = {
    **{name: getattr(kobai, name) for name in ("zeros_like", "ones_like", "empty_like", "rand_like", "randn_like")},
    **{name: getattr(kobai.Tensor, name) for name in ("to", "contiguous", "clone", "float", "double", "cpu")},
    "full_like": lambda x, **options: kobai.full_like(x, 3, **options),
    "randint_like": lambda x, **options: kobai.randint_like(x, 3, **options),
    "empty": lambda x, **options: kobai.empty(x.shape, **options),
}


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize("format_name", FORMATS)
def test_a_memory_format_is_checked_and_changes_nothing(name, format_name):
    taker, chosen, ndim = TAKERS[name], getattr(kobai, format_name), FORMATS[format_name]
    for shape in ((2, 3, 4, 5), (2, 3, 1, 2, 2), (3,)):
        x = kobai.ones(shape)
        if ndim in (None, len(shape)):
            y = taker(x, memory_format=chosen)
            assert y.shape == x.shape
            assert y.is_contiguous()
        else:
            with pytest.raises(RuntimeError, match=rf": expected {ndim} dimensions for kobai\.{format_name}, got"):
                taker(x, memory_format=chosen)
    with pytest.raises(TypeError, match="expected a memory format such as"):
        taker(kobai.ones(2), memory_format="channels_last")


def test_whether_channels_are_last_is_seen_from_the_steps():
    x = kobai.ones(2, 3, 4, 5)
    assert not x.is_contiguous(memory_format=kobai.channels_last)
    last = kobai.ones(2, 4, 5, 3).permute(0, 3, 1, 2)
    assert last.is_contiguous(memory_format=kobai.channels_last)
    assert not last.is_contiguous()
    assert kobai.ones(2, 1, 4, 5).is_contiguous(memory_format=kobai.channels_last)
    assert not kobai.ones(2, 3).is_contiguous(memory_format=kobai.channels_last)


def test_modules_take_a_memory_format():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    weight = net[0].weight
    assert net.to(memory_format=kobai.channels_last)[0].weight is weight
    assert net.to(dtype=kobai.float64, memory_format=kobai.channels_last)[0].weight.dtype == kobai.float64
    with pytest.raises(TypeError, match="expected a memory format"):
        net.to(memory_format="channels_last")


def test_formats_and_layout_are_constants():
    for constant in (kobai.channels_last, kobai.preserve_format, kobai.strided):
        assert pickle.loads(pickle.dumps(constant)) is constant
        assert copy.deepcopy(constant) is constant
    assert isinstance(kobai.channels_last, kobai.memory_format)
    assert kobai.ones(2).layout is kobai.strided
    assert repr(kobai.channels_last_3d) == "kobai.channels_last_3d"


def test_what_a_tensor_is_not():
    x = kobai.ones(2)
    for kind in "sparse sparse_csr quantized mkldnn nested meta mps xpu xla".split():
        assert getattr(x, f"is_{kind}") is False
        assert getattr(kobai.Tensor, f"is_{kind}").__doc__
    assert x.is_cpu
    assert not x.is_cuda


def test_schedules_say_which_module_they_are_from():
    from kobai.optim import lr_scheduler

    for name in lr_scheduler.__all__:
        schedule = getattr(lr_scheduler, name)
        assert schedule.__module__ == lr_scheduler.__name__
        assert pickle.loads(pickle.dumps(schedule)) is schedule


@pytest.mark.oracle
def test_types_and_questions_are_pytorchs():
    import torch

    for name, dtype in TYPES.items():
        theirs = torch.ones(2).type(f"torch.{name}")
        assert kobai.ones(2, dtype=dtype).type() == theirs.type()
        assert kobai.ones(2).type(f"torch.{name}").tolist() == theirs.tolist()
    ours, theirs = kobai.ones(2, 3, 4, 5), torch.ones(2, 3, 4, 5)
    for x, y in ((ours, theirs), (ours.permute(0, 3, 1, 2), theirs.permute(0, 3, 1, 2))):
        for name in FORMATS:
            if name != "preserve_format":
                mine, other = getattr(kobai, name), getattr(torch, name)
                assert x.is_contiguous(memory_format=mine) == y.is_contiguous(memory_format=other)


@pytest.mark.parametrize(
    "ask",
    [
        lambda x, kind: x.to(kind),
        lambda x, kind: x.type(kind),
        lambda x, kind: x.sum(dtype=kind),
        lambda x, kind: x.view(kind),
        lambda x, kind: x.new_zeros(2, dtype=kind),
        lambda x, kind: kobai.tensor([1.0], dtype=kind),
        lambda x, kind: kobai.zeros(2, dtype=kind),
        lambda x, kind: kobai.empty(2, dtype=kind),
        lambda x, kind: kobai.full((2,), 1.0, dtype=kind),
        lambda x, kind: kobai.arange(3, dtype=kind),
        lambda x, kind: kobai.linspace(0, 1, 3, dtype=kind),
        lambda x, kind: kobai.eye(2, dtype=kind),
        lambda x, kind: kobai.randint(3, (2,), dtype=kind),
        lambda x, kind: kobai.rand(2, dtype=kind),
        lambda x, kind: kobai.nn.Linear(2, 2).to(kind),
    ],
)
@pytest.mark.parametrize("kind", [object, dict, str, complex, np.dtype("S3")])
def test_numpys_other_types_are_refused(ask, kind):
    with pytest.raises((TypeError, ValueError), match="expected a bool, integer or float dtype"):
        ask(kobai.ones(2), kind)


def test_the_class_of_tensors_stands_for_the_default_dtype():
    assert (kobai.ones(2) < 0).type(kobai.Tensor).dtype == kobai.float32
