"""Single operations, forward and backward, at the sizes of the steps S, M and L."""

from __future__ import annotations

import pytest

import kobai
from kobai.nn import functional as F

SHAPES = [(100, 100), (256, 512), pytest.param((1024, 2048), marks=pytest.mark.large)]
UNARY = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": kobai.sigmoid,
    "tanh": kobai.tanh,
    "exp": kobai.exp,
    "softmax": lambda x: F.softmax(x, dim=1),
    "log_softmax": lambda x: F.log_softmax(x, dim=1),
    "dropout": lambda x: F.dropout(x, 0.5),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "sum over rows": lambda x: x.sum(dim=0),
    "mean of all": lambda x: x.mean(),
    "max over columns": lambda x: x.max(dim=1).values,
}
BINARY = {
    "add": kobai.add,
    "mul": kobai.mul,
    "div": lambda x, y: x / (y * y + 1),
    "add a row": lambda x, y: x + y[:1],
    "mse_loss": F.mse_loss,
    "matmul": lambda x, y: x @ y.mT,
}


def size(shape):
    return f"{shape[0]}x{shape[1]}"


def both_ways(function, *inputs):
    """Forward and backward in one call; gradients begin anew each time."""
    dy = kobai.ones_like(function(*inputs))

    def run():
        for x in inputs:
            x.grad = None
        function(*inputs).backward(dy)

    return run


def normal(rng, *shape):
    return kobai.tensor(rng.standard_normal(shape).astype("float32"), requires_grad=True)


@pytest.mark.parametrize("shape", SHAPES, ids=size)
@pytest.mark.parametrize("name", UNARY)
def test_of_one_tensor(name, shape, timed, rng):
    timed(f"{name} {size(shape)}", both_ways(UNARY[name], normal(rng, *shape)))


@pytest.mark.parametrize("shape", SHAPES, ids=size)
@pytest.mark.parametrize("name", BINARY)
def test_of_two_tensors(name, shape, timed, rng):
    timed(f"{name} {size(shape)}", both_ways(BINARY[name], normal(rng, *shape), normal(rng, *shape)))


@pytest.mark.parametrize("shape", [(100, 10), (256, 10), pytest.param((1024, 1024), marks=pytest.mark.large)], ids=size)
def test_cross_entropy(shape, timed, rng):
    t = kobai.tensor(rng.integers(0, shape[1], shape[0]))
    timed(f"cross_entropy {size(shape)}", both_ways(lambda x: F.cross_entropy(x, t), normal(rng, *shape)))


@pytest.mark.parametrize("batch", [8, pytest.param(128, marks=pytest.mark.large)])
@pytest.mark.parametrize("name", ["conv2d 3x3", "max_pool2d", "avg_pool2d"])
def test_of_images(name, batch, timed, rng):
    x = normal(rng, batch, 32, 28, 28)
    if name == "conv2d 3x3":
        run = both_ways(lambda x, w: F.conv2d(x, w, padding=1), x, normal(rng, 64, 32, 3, 3))
    else:
        run = both_ways(lambda x: getattr(F, name)(x, 2), x)
    timed(f"{name} {batch}x32x28x28", run)
