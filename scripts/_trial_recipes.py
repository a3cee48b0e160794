"""Nets as people build them, drawn: data, families of nets, recipes. Part of ``doctor_trial.py``."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import kobai
from kobai import nn
from kobai.nn import functional as F, init

mnist: str | Path | None = None
"""The folder that holds MNIST, if it is to be among the data."""


# --- data ---------------------------------------------------------------------------------------------------------------


@dataclass
class Task:
    """Inputs, targets, the loss, what it costs to know nothing, and how many outputs it takes."""

    name: str
    x: np.ndarray
    t: np.ndarray
    loss_fn: Any
    chance: float
    outputs: int


@cache
def images(kind: str) -> tuple[np.ndarray, np.ndarray]:
    if kind == "digits":
        x, t = kobai.data.digits().train.tensors
        return x.numpy(), t.numpy()
    x, t = kobai.data.mnist(mnist).train.tensors
    return x[:2000].numpy().reshape(2000, 1, 14, 2, 14, 2).mean((3, 5)), t[:2000].numpy()


def scaled(x: np.ndarray, how: str) -> np.ndarray:
    if how == "standardised":
        return (x - x.mean()) / x.std()
    if how == "by feature":
        return (x - x.mean(0)) / np.where(x.std(0) > 1e-8, x.std(0), 1)
    return x  # from 0 to 1


def task(draw: random.Random, kind: str) -> Task:
    rng = np.random.default_rng(draw.randrange(2**32))
    if kind in ("digits", "mnist"):
        (x, t), how = images(kind), draw.choice(["standardised", "by feature", "unit"])
        return Task(f"{kind} {how}", scaled(x, how), t, F.cross_entropy, math.log(10), 10)
    if kind == "odd":  # is the digit odd?
        (x, t), how = images("digits"), draw.choice(["standardised", "unit"])
        odd = (t % 2)[:, None].astype(np.float32)
        return Task(f"odd {how}", scaled(x, how), odd, F.binary_cross_entropy_with_logits, math.log(2), 1)
    if kind == "autoencoder":
        x = scaled(images("digits")[0], "standardised").reshape(-1, 64)
        return Task(kind, x, x, F.mse_loss, 1.0, 64)
    if kind == "regression":
        x, w, v = rng.normal(size=(1500, 10)), rng.normal(size=(10, 6)) / 10**0.5, rng.normal(size=6)
        t = np.tanh(2 * x @ w) @ v + 0.1 * rng.normal(size=1500)
        t = ((t - t.mean()) / t.std())[:, None]
        return Task(kind, x.astype(np.float32), t.astype(np.float32), F.mse_loss, 1.0, 1)
    if kind == "one-hot":  # a table of four categories
        codes = rng.integers(0, 8, size=(1500, 4))
        t = rng.normal(size=(4, 8, 4))[np.arange(4), codes].sum(1).argmax(1)
        return Task(kind, np.eye(8, dtype=np.float32)[codes].reshape(1500, -1), t, F.cross_entropy, math.log(4), 4)
    if kind == "moons":
        angle, t = rng.uniform(0, math.pi, 1000), rng.integers(0, 2, 1000)
        x = np.stack([np.cos(angle) + t, np.where(t, -1, 1) * np.sin(angle) + 0.5 * t], 1)
        x = scaled(x + 0.1 * rng.normal(size=x.shape), "by feature").astype(np.float32)
        return Task(kind, x, t, F.cross_entropy, math.log(2), 2)
    assert kind == "tokens"  # which of four groups of words is most frequent?
    x = rng.integers(0, 40, size=(1500, 12))
    t = np.stack([(x // 10 == k).sum(1) for k in range(4)], 1).argmax(1)
    return Task(kind, x, t, F.cross_entropy, math.log(4), 4)


# --- nets ---------------------------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
FITTING = {"selu": "lecun", "tanh": "xavier", "sigmoid": "xavier"}


class Residual(nn.Module):
    def __init__(self, body: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body, self.after = body, after

    def forward(self, x: Any) -> Any:
        return self.after(x + self.body(x))


class Rows(nn.Module):
    """An image, row by row, through a recurrent net."""

    def __init__(self, kind: str, features: int, width: int, layers: int, outputs: int) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(features, width, layers, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x.reshape(x.shape[0], -1, x.shape[-1]))[0][:, -1])


class Encoder(nn.Module):
    """Rows of an image, or words, through a transformer's encoder."""

    def __init__(self, data: Task, width: int, layers: int, first: bool) -> None:
        super().__init__()
        words = data.name == "tokens"
        self.embed = nn.Embedding(40, width) if words else nn.Linear(data.x.shape[-1], width)
        self.position = nn.Parameter(0.02 * kobai.randn(data.x.shape[-1 if words else -2], width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=first)
        self.encoder, self.head = nn.TransformerEncoder(layer, layers), nn.Linear(width, data.outputs)

    def forward(self, x: Any) -> Any:
        x = x.reshape(x.shape[0], -1, x.shape[-1]) if x.ndim == 4 else x
        return self.head(self.encoder(self.embed(x) + self.position).mean(1))


class Bag(nn.Module):
    """Words, embedded, averaged, and a net on top."""

    def __init__(self, width: int, body: nn.Module) -> None:
        super().__init__()
        self.embed, self.body = nn.Embedding(40, width), body

    def forward(self, x: Any) -> Any:
        return self.body(self.embed(x).mean(1))


class Written(nn.Module):
    """The same net with its activations called in ``forward``, as F.relu(self.layers[0](x)): there is no module for them."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        kinds = {type(make()): getattr(F, name) for name, make in ACTIVATIONS.items()}
        self.layers = nn.ModuleList([part for part in net if type(part) not in kinds])
        numbers = iter(range(len(self.layers)))
        self.program = [kinds[type(part)] if type(part) in kinds else next(numbers) for part in net]

    def forward(self, x: Any) -> Any:
        for part in self.program:
            x = self.layers[part](x) if isinstance(part, int) else part(x)
        return x


def mlp(n_in: int, widths: list[int], n_out: int, act: str, norm: str = "", dropout: float = 0.0) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for width in widths:
        layers.append(nn.Linear(n_in, width))
        layers += [nn.BatchNorm1d(width)] * (norm == "batch") + [nn.LayerNorm(width)] * (norm == "layer")
        layers += [ACTIVATIONS[act](), *[nn.Dropout(dropout)] * (dropout > 0)]
        n_in = width
    return nn.Sequential(*layers, nn.Linear(n_in, n_out))


def cnn(size: int, depth: int, width: int, n_out: int, act: str, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers.append(nn.Conv2d(width if i else 1, width, 3, padding=1))
        layers += [*[nn.BatchNorm2d(width)] * norm, ACTIVATIONS[act](), *[nn.MaxPool2d(2)] * (i < 2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * (size >> min(depth, 2)) ** 2, n_out))


def residual(n_in: int, blocks: int, width: int, n_out: int, act: str, norm: str) -> nn.Sequential:
    def block() -> nn.Module:
        def after() -> list[nn.Module]:
            return [nn.BatchNorm1d(width)] * (norm == "batch")

        body = [*[nn.LayerNorm(width)] * (norm == "layer"), nn.Linear(width, width), *after(), ACTIVATIONS[act]()]
        tail = nn.ReLU() if norm == "batch" else nn.Identity()
        return Residual(nn.Sequential(*body, nn.Linear(width, width), *after()), tail)

    middle = [block() for _ in range(blocks)]
    return nn.Sequential(nn.Flatten(), nn.Linear(n_in, width), *middle, nn.Linear(width, n_out))


def resnet(size: int, blocks: int, width: int, n_out: int) -> nn.Sequential:
    def conv(n: int) -> list[nn.Module]:
        return [nn.Conv2d(n, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]

    body = [Residual(nn.Sequential(*conv(width), nn.ReLU(), *conv(width)), nn.ReLU()) for _ in range(blocks)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_out)]
    return nn.Sequential(*conv(1), nn.ReLU(), *[nn.MaxPool2d(2)] * (size > 8), *body, *head)


# --- recipes ------------------------------------------------------------------------------------------------------------

RULES: dict[str, Callable[[Any], Any]] = {
    "sgd 0.1": lambda p: kobai.optim.SGD(p, lr=0.1),
    "sgd 0.1 momentum": lambda p: kobai.optim.SGD(p, lr=0.1, momentum=0.9),
    "sgd 0.01 momentum": lambda p: kobai.optim.SGD(p, lr=0.01, momentum=0.9),
    "adam 1e-3": lambda p: kobai.optim.Adam(p, lr=1e-3),
    "adam 3e-3": lambda p: kobai.optim.Adam(p, lr=3e-3),
    "adam 3e-4": lambda p: kobai.optim.Adam(p, lr=3e-4),
    "adamw 1e-3": lambda p: kobai.optim.AdamW(p, lr=1e-3, weight_decay=0.01),
    "rmsprop 1e-3": lambda p: kobai.optim.RMSprop(p, lr=1e-3),
}
FAMILIES = "mlp mlp mlp cnn residual resnet rows encoder bag autoencoder tiny regression".split()


@dataclass
class Case:
    """A net, all that it is trained with, and what it has: names of diseases of which each is right; none for a healthy one."""

    name: str
    model: nn.Module
    rule: Callable[[Any], Any]
    task: Task
    batch: int
    seed: int
    clip: float | None = None
    truth: list[str] = field(default_factory=list)
    ordered: bool = False
    checked: bool = False

    @property
    def batches(self) -> list[Any]:
        """Whole batches, in an order that is drawn – or in that of the labels."""
        order = np.random.default_rng(self.seed).permutation(len(self.task.x))
        if self.ordered:
            order = np.argsort(self.task.t.reshape(len(order), -1)[:, 0], kind="stable")
        parts = [order[stop - self.batch : stop] for stop in range(self.batch, len(order) + 1, self.batch)]
        return [(kobai.from_numpy(self.task.x[i]), kobai.from_numpy(self.task.t[i])) for i in parts]


def weighted(model: nn.Module) -> list[Any]:
    return [
        module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None
    ]


def fitted(model: nn.Module, scheme: str) -> Any:
    for layer in weighted(model) if scheme != "default" else []:
        init.by_name(scheme)(layer.weight)
        init.zeros_(layer.bias)
    return model


def recipe(
    index: str, family: str = "", acts: list[str] | None = None, deep: bool = False, plain: bool = False
) -> Case:
    """A net as people build it. ``plain``: without normalisation and dropout; ``deep``: 2 to 12 layers, not mostly few."""
    draw = random.Random(index)
    kobai.manual_seed(seed := draw.randrange(2**31))
    family = family or draw.choice(FAMILIES)
    act = draw.choice(acts or [*["relu"] * 3, *list(ACTIVATIONS)[1:]])
    depth = draw.randint(2, 12) if deep else draw.choice([1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 8, 10])
    width = draw.choice([16, 32, 64, 128, 256])
    scheme = draw.choice(["default", *[FITTING.get(act, "he")] * 2, "orthogonal"])
    norm, dropout = ("", 0.0) if plain else (draw.choice(["", "", "batch", "layer"]), draw.choice([0, 0, 0.2, 0.5]))
    batch = draw.choice([8, 16, 32, 64, 64, 128, 128, 256, 512])
    batch = batch if family in ("mlp", "tiny", "regression") else min(batch, 128)  # for the time it takes
    rule = draw.choice(list(RULES))
    kind = draw.choice(["digits", "digits", "mnist" if mnist else "digits", "odd", "one-hot"])
    clip = 1.0 if not plain and draw.random() < 0.1 else None
    if family in ("cnn", "resnet", "rows", "encoder") and kind == "one-hot":
        kind = "digits"
    if family == "bag" or (family == "encoder" and draw.random() < 0.4):
        kind = "tokens"
    kind = {"regression": "regression", "autoencoder": "autoencoder", "tiny": "moons"}.get(family, kind)
    data = task(draw, kind)
    n_in, size = int(np.prod(data.x.shape[1:])), data.x.shape[-1]
    what = f"{act} {norm} {scheme}"
    if family in ("mlp", "regression"):
        name, model = (
            f"{depth}×{width} {what}",
            fitted(mlp(n_in, [width] * depth, data.outputs, act, norm, dropout), scheme),
        )
        name += f" dropout {dropout}" * (dropout > 0)
    elif family == "tiny":
        depth, width = draw.choice([1, 1, 2]), draw.choice([4, 8, 16])
        rule = draw.choice(["adam 3e-3", "sgd 0.1 momentum", "sgd 0.1"])
        name, model = f"{depth}×{width} {act} {scheme}", fitted(mlp(n_in, [width] * depth, data.outputs, act), scheme)
    elif family == "autoencoder":
        code = draw.choice([16, 32])
        name, model = f"{width}-{code} {act} {scheme}", fitted(mlp(n_in, [width, code, width], 64, act), scheme)
    elif family == "cnn":
        depth, width = draw.randint(2, 12) if deep else draw.randint(1, 5), draw.choice([8, 16, 32])
        name, model = (
            f"{depth}×{width} {what}",
            fitted(cnn(size, depth, width, data.outputs, act, norm == "batch"), scheme),
        )
    elif family == "residual":
        depth, width = draw.randint(2, 12) if deep else draw.randint(1, 8), min(width, 128)
        model = fitted(residual(n_in, depth, width, data.outputs, act, norm), scheme)
        name = f"{depth} blocks of {width} {what}"
    elif family == "resnet":
        depth, width = draw.randint(1, 4), draw.choice([8, 16])
        name, model = f"{depth} blocks of {width}", resnet(size, depth, width, data.outputs)
    elif family == "rows":
        kind, width, layers = draw.choice(["LSTM", "GRU", "RNN"]), draw.choice([32, 64, 128]), draw.choice([1, 1, 2])
        name, model = f"{kind} {layers}×{width}", Rows(kind, size, width, layers, data.outputs)
    elif family == "encoder":
        width, layers, first = draw.choice([32, 64]), draw.choice([1, 2, 3]), draw.random() < 0.5
        rule = draw.choice(["adam 1e-3", "adam 3e-4", "adamw 1e-3"])
        name, model = f"{layers}×{width} {'pre' if first else 'post'}-norm", Encoder(data, width, layers, first)
    else:
        width, depth = draw.choice([16, 32, 64]), draw.randint(1, 3)
        name = f"{depth}×{width} {what}"
        model = Bag(width, fitted(mlp(width, [width] * depth, data.outputs, act, norm), scheme))
    label = f"{family} {name} | {data.name} | {rule} | batch {batch}" + " | clipped" * (clip is not None)
    return Case(" ".join(label.split()), model, RULES[rule], data, batch, seed, clip)
