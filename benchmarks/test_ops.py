"""Single operations, forward and backward, at sizes of the whole steps; and the optimisers' updates."""

from __future__ import annotations

import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F

SHAPES = [(100, 100), (256, 512)]
OPERATIONS = {
    "relu": F.relu,
    "sigmoid": F.sigmoid,
    "gelu": F.gelu,
    "softmax": lambda x: F.softmax(x, dim=1),
    "dropout": lambda x: F.dropout(x, 0.5),
    "sum": lambda x: x.sum(dim=0),
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name, shape, timed, rng):
    x = kobai.tensor(rng.standard_normal(shape).astype("float32"), requires_grad=True)
    dy = kobai.ones_like(OPERATIONS[name](x))
    timed(f"{name} {shape[0]}x{shape[1]}", lambda: OPERATIONS[name](x).backward(dy))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("name", ["Linear", "BatchNorm1d", "LayerNorm"])
def test_layer(name, shape, timed, rng):
    layer = nn.Linear(shape[1], shape[1]) if name == "Linear" else getattr(nn, name)(shape[1])
    x = kobai.tensor(rng.standard_normal(shape).astype("float32"), requires_grad=True)
    dy = kobai.ones_like(x)
    timed(f"{name} {shape[0]}x{shape[1]}", lambda: layer(x).backward(dy))


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"])
def test_optimizer_step(name, timed, rng):
    sizes = [(512, 784), (512,), (512, 512), (512,), (10, 512), (10,)]
    params = [kobai.zeros(*size, requires_grad=True) for size in sizes]
    for p in params:
        p.grad = kobai.tensor(rng.standard_normal(p.shape).astype("float32"))
    update = getattr(kobai.optim, name)(params, lr=1e-3)
    timed(f"{name}, 669,706 parameters", update.step)
