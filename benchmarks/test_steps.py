"""Whole training steps: forward, loss, backward, update, eager, float32."""

from __future__ import annotations

from itertools import pairwise

import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F

S = ([784, 100, 100, 100, 100, 10], 100)
M = ([784, 512, 512, 10], 256)
CASES = {
    "S: 784-100-100-100-100-10, batch 100, SGD": (*S, False, "SGD"),
    "S + BatchNorm1d, Adam": (*S, True, "Adam"),
    "M: 784-512-512-10, batch 256, Adam": (*M, False, "Adam"),
}


def mlp(sizes, batch_norm):
    layers = []
    for fan_in, fan_out in pairwise(sizes[:-1]):
        layers += [nn.Linear(fan_in, fan_out), *([nn.BatchNorm1d(fan_out)] if batch_norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


@pytest.mark.parametrize("case", CASES)
def test_step(case, timed, rng):
    sizes, batch, batch_norm, optimizer = CASES[case]
    model = mlp(sizes, batch_norm)
    update = getattr(kobai.optim, optimizer)(model.parameters(), lr=1e-3)
    x = kobai.tensor(rng.standard_normal((batch, sizes[0])).astype("float32"), device=next(model.parameters()).device)
    t = kobai.tensor(rng.integers(0, sizes[-1], batch), device=x.device)

    def step():
        update.zero_grad()
        F.cross_entropy(model(x), t).backward()
        update.step()

    timed(case, step)


@pytest.mark.parametrize("case", ["M: 784-512-512-10, batch 256, Adam"])
def test_forward_only(case, timed, rng):
    sizes, batch, _, _ = CASES[case]
    model = mlp(sizes, False).eval()
    x = kobai.tensor(rng.standard_normal((batch, sizes[0])).astype("float32"), device=next(model.parameters()).device)

    @kobai.no_grad()
    def predict():
        model(x)

    timed("M: prediction only", predict)
