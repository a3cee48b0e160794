"""Layers in training mode, forward and backward."""

from __future__ import annotations

import pytest

import kobai
from kobai import nn

SHAPES = [(100, 100), (256, 512), pytest.param((1024, 2048), marks=pytest.mark.large)]
FLAT = {
    "Linear": lambda n: nn.Linear(n, n),
    "Linear, then ReLU": lambda n: nn.Sequential(nn.Linear(n, n), nn.ReLU()),
    "Linear(activation='relu')": lambda n: nn.Linear(n, n, activation="relu"),
    "BatchNorm1d": nn.BatchNorm1d,
    "BatchNorm1d, then ReLU": lambda n: nn.Sequential(nn.BatchNorm1d(n), nn.ReLU()),
    "BatchNorm1d(activation='relu')": lambda n: nn.BatchNorm1d(n, activation="relu"),
    "LayerNorm": nn.LayerNorm,
    "Dropout": lambda n: nn.Dropout(0.5),
}
IMAGES = {
    "Conv2d 3x3": lambda c: nn.Conv2d(c, c, 3, padding=1),
    "BatchNorm2d": nn.BatchNorm2d,
    "MaxPool2d": lambda c: nn.MaxPool2d(2),
    "Conv2d, BatchNorm2d, ReLU": lambda c: nn.Sequential(
        nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU()
    ),
}
SEQUENCES = {
    "LSTM": lambda n: nn.LSTM(n, n, batch_first=True),
    "MultiheadAttention": lambda n: nn.MultiheadAttention(n, 4, batch_first=True),
}


def both_ways(layer, *inputs):
    def forward():
        y = layer(*inputs)
        return y[0] if isinstance(y, tuple) else y

    dy = kobai.ones_like(forward())

    def run():
        layer.zero_grad()
        inputs[0].grad = None
        forward().backward(dy)

    return run


def normal(rng, *shape):
    return kobai.tensor(rng.standard_normal(shape).astype("float32"), requires_grad=True)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("name", FLAT)
def test_flat(name, shape, timed, rng):
    layer = FLAT[name](shape[1]).to(kobai.get_default_device())
    timed(f"{name} {shape[0]}x{shape[1]}", both_ways(layer, normal(rng, *shape)))


@pytest.mark.parametrize("batch", [8, pytest.param(128, marks=pytest.mark.large)])
@pytest.mark.parametrize("name", IMAGES)
def test_images(name, batch, timed, rng):
    layer = IMAGES[name](32).to(kobai.get_default_device())
    timed(f"{name} {batch}x32x28x28", both_ways(layer, normal(rng, batch, 32, 28, 28)))


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name, timed, rng):
    layer = SEQUENCES[name](64).to(kobai.get_default_device())
    x = normal(rng, 16, 32, 64)
    timed(f"{name} 16x32x64", both_ways(layer, *([x] * (3 if name == "MultiheadAttention" else 1))))
