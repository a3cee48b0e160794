"""Unpooling, adaptive maxima with positions, power means, pixels, bags, distances: PyTorch, differences, captured steps."""

import importlib
import re

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.gradcheck import gradcheck
from kobai.nn import functional as F

RNG = np.random.default_rng(0)


def distinct(*shape):
    return RNG.permutation(int(np.prod(shape))).reshape(shape) * 0.1 - 1.0


ADAPTIVE = [
    (1, (2, 3, 7), 3),
    (2, (3, 5, 6), (3, 4)),
    (2, (2, 3, 6, 6), 2),
    (3, (2, 2, 5, 3, 4), (2, None, 3)),
    (2, (0, 3, 5, 5), 2),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("n", "shape", "size"), ADAPTIVE)
def test_adaptive_maxima_and_their_positions_as_pytorch(n, shape, size):
    torch = importlib.import_module("torch")
    x = distinct(*shape)
    name = f"adaptive_max_pool{n}d"
    y, where = getattr(F, name)(kobai.tensor(x), size, return_indices=True)
    expected, there = getattr(torch.nn.functional, name)(torch.tensor(x), size, return_indices=True)
    assert y.tolist() == expected.tolist()
    assert where.tolist() == there.tolist()
    module = getattr(nn, f"AdaptiveMaxPool{n}d")(size, return_indices=True)
    assert module(kobai.tensor(x))[1].tolist() == there.tolist()


UNPOOLED = [
    (1, (2, 3, 8), 2, {}),
    (2, (3, 6, 8), 2, {}),
    (2, (2, 3, 7, 7), 3, {"stride": 2, "padding": 1}),
    (3, (2, 2, 4, 4, 6), 2, {}),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("n", "shape", "kernel", "options"), UNPOOLED)
@pytest.mark.parametrize("sized", [False, True])
def test_unpooling_as_pytorch(n, shape, kernel, options, sized):
    torch = importlib.import_module("torch")
    x, results = RNG.normal(size=shape), []
    for module, functional in ((kobai, F), (torch, torch.nn.functional)):
        a = module.tensor(x, requires_grad=True)
        maxima, where = getattr(functional, f"max_pool{n}d")(a, kernel, **options, return_indices=True)
        maxima.retain_grad()
        size = shape[-n:] if sized else None
        y = getattr(functional, f"max_unpool{n}d")(maxima, where, kernel, **options, output_size=size)
        (y**3).sum().backward()
        results.append([y.detach().numpy(), maxima.grad.numpy(), a.grad.numpy()])
        layer = getattr(module.nn, f"MaxUnpool{n}d")(kernel, **options)
        assert (layer(maxima, where, output_size=size) == y).all()
        results[-1].append(repr(layer))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def steps(x):
    maxima, where = F.max_pool2d(x, 2, return_indices=True)
    y = F.max_unpool2d(maxima, where, 2) + F.lp_pool2d(x * x, 2, 3, 1).sum()
    return y.sum() + F.adaptive_max_pool2d(x, (3, 2)).sum() + F.adaptive_avg_pool3d(x, 3).sum()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_captured_as_eager(dtype):
    weight = nn.Parameter(kobai.tensor(distinct(2, 3, 6, 8) / 20, dtype=getattr(kobai, dtype)))

    def step(x):
        weight.grad = None
        loss = steps(x * weight)
        loss.backward()
        return loss, weight.grad.clone()

    captured = kobai.capture(step)
    for _ in range(4):
        x = kobai.tensor(distinct(2, 3, 6, 8) / 20, dtype=getattr(kobai, dtype))
        expected = step(x)
        assert [t.tolist() for t in captured(x)] == [t.tolist() for t in expected]


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients(transposed):
    x = distinct(3, 4, 6)
    a = kobai.tensor(x.T.copy(), requires_grad=True)
    maxima, where = F.max_pool2d(kobai.tensor(x), 2, return_indices=True)
    assert gradcheck(lambda m: F.max_unpool2d(m, where, 2), (kobai.tensor(maxima.numpy(), requires_grad=True),))
    turned = (lambda t: t.permute(2, 1, 0)) if transposed else (lambda t: t)
    assert gradcheck(lambda t: F.adaptive_max_pool2d(turned(t), (3, 2)), (a,))
    assert gradcheck(lambda t: F.lp_pool2d(turned(t) + 2.5, 3, 2), (a,))


def test_one_element_and_integers():
    one = kobai.tensor([[[5.0]]])
    y, where = F.adaptive_max_pool2d(one, 1, return_indices=True)
    assert F.max_unpool2d(y, where, 1).item() == 5
    assert F.lp_pool2d(one, 2, 1).item() == 5
    assert F.avg_pool1d(kobai.tensor([[-3, -4, 3, 4]]), 2).tolist() == [[-3, 3]]  # towards zero, as in PyTorch
    assert F.avg_pool2d(kobai.tensor([[[1, 2], [2, 2]]]), 2, divisor_override=-2).item() == -3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, i: F.max_unpool2d(x, i.float(), 2), RuntimeError, "max_unpool2d: expected indices of kobai.int64"),
        (lambda x, i: F.max_unpool2d(x, i[:1], 2), RuntimeError, "expected indices (2, 3, 3) as the input"),
        (lambda x, i: F.max_unpool2d(x, i, 2, output_size=(9, 6)), ValueError, "less than (2, 2) away from (6, 6)"),
        (lambda x, i: F.max_unpool2d(x, i, 2, output_size=(6,)), ValueError, "to have 2 or 4 elements"),
        (lambda x, i: F.max_unpool2d(x, i + 36, 2), (RuntimeError, IndexError), "max_unpool2d"),
        (lambda x, i: F.adaptive_max_pool3d(x, 2), ValueError, "adaptive_max_pool3d: expected input (N, C, D, H, W)"),
        (lambda x, i: F.adaptive_max_pool2d(x, 2, "yes"), TypeError, "return_indices to be True or False"),
        (lambda x, i: F.avg_pool2d(i.int(), 2), RuntimeError, "one of kobai.int64, got kobai.int32"),
        (lambda x, i: nn.MaxUnpool2d((2, 2, 2)), TypeError, "MaxUnpool2d: expected kernel_size"),
    ],
)
def test_nonsense(call, error, message):
    x, where = F.max_pool2d(kobai.tensor(distinct(2, 6, 6)), 2, return_indices=True)
    with pytest.raises(error, match=re.escape(message)):
        call(x, where)


@pytest.mark.oracle
@pytest.mark.parametrize(("mode", "corners"), [("bilinear", True), ("bilinear", False), ("bicubic", False)])
def test_pixels_of_uint8_as_pytorch(mode, corners):
    """PyTorch's weights are integers, so a tie may go the other way."""
    torch = importlib.import_module("torch")
    x = RNG.integers(0, 256, (2, 3, 6, 7)).astype(np.uint8)
    y = F.interpolate(kobai.tensor(x), (9, 4), mode=mode, align_corners=corners)
    expected = torch.nn.functional.interpolate(torch.tensor(x), (9, 4), mode=mode, align_corners=corners)
    off = np.abs(y.numpy().astype(int) - expected.numpy().astype(int))
    assert y.dtype == kobai.uint8
    assert off.max() <= 1
    assert (off > 0).mean() < 0.05


@pytest.mark.oracle
@pytest.mark.parametrize("padding_idx", [None, 2, -1])
@pytest.mark.parametrize("flat", [True, False])
def test_the_largest_of_a_bag_as_pytorch(flat, padding_idx):
    torch, results = importlib.import_module("torch"), []
    indices = np.array([[2, 0, 2], [4, 4, 1], [2, 2, 2]])
    for module, functional in ((kobai, F), (torch, torch.nn.functional)):
        table = module.tensor(np.random.default_rng(1).normal(size=(5, 3)), requires_grad=True)
        given = [module.tensor(indices.reshape(-1) if flat else indices), table]
        given += [module.tensor([0, 4, 4, 6])] if flat else []
        y = functional.embedding_bag(*given, mode="max", padding_idx=padding_idx)
        (y**2).sum().backward()
        results.append((y.detach().numpy(), table.grad.numpy()))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.5, float("inf")])
def test_distances_of_rows_as_pytorch(p):
    torch = importlib.import_module("torch")
    rows, results = RNG.normal(size=(5, 3)), []
    for module, functional in ((kobai, F), (torch, torch.nn.functional)):
        x = module.tensor(rows, requires_grad=True)
        y = functional.pdist(x, p)
        (y**2).sum().backward()
        results.append((y.detach().numpy(), x.grad.numpy()))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    assert F.pdist(kobai.zeros(1, 3)).shape == (0,)
