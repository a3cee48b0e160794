"""What the situations are made of: data with fresh samples beside them, and the nets that most of them start from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

import kobai
from kobai import nn, optim
from kobai.nn import functional as F


class Data(NamedTuple):
    x: Any
    t: Any
    fresh_x: Any
    fresh_t: Any

    @property
    def train(self) -> tuple[Any, Any]:
        return self.x, self.t

    @property
    def held(self) -> tuple[Any, Any]:
        return self.fresh_x, self.fresh_t


def split(x: np.ndarray, t: np.ndarray, seed: int, count: int) -> Data:
    """``count`` samples to train on and at most 500 fresh ones, in an order that is drawn."""
    order = np.random.default_rng(seed).permutation(len(x))
    first, rest = order[:count], order[count : count + 500]
    return Data(*(kobai.from_numpy(np.ascontiguousarray(part)) for part in (x[first], t[first], x[rest], t[rest])))


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    parts = [part.tensors for part in (kobai.data.digits().train, kobai.data.digits().test)]
    x = np.concatenate([x.numpy() for x, _ in parts])
    return x, np.concatenate([t.numpy() for _, t in parts])


def digits(seed: int, count: int = 1200, raw: bool = False) -> Data:
    """(N, 64) standardised pixels of ten digits; ``raw``: from 0 to 1."""
    x, t = _digits()
    x = x.reshape(len(x), -1)
    return split(x if raw else (x - x.mean()) / x.std(), t, seed, count)


def images(seed: int, count: int = 800) -> Data:
    """(N, 1, 8, 8) standardised images of ten digits."""
    x, t = _digits()
    return split((x - x.mean()) / x.std(), t, seed, count)


def odd(seed: int, count: int = 1200) -> Data:
    """Is the digit above four? Targets (N, 1) of 0 and 1."""
    x, t = _digits()
    x = x.reshape(len(x), -1)
    return split((x - x.mean()) / x.std(), (t > 4).astype(np.float32)[:, None], seed, count)


def surface(seed: int, count: int = 1000, inputs: int = 8) -> Data:
    """A regression with products and bends; targets (N, 1) of mean 0 and deviation 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count + 500, inputs))
    t = np.sin(1.5 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.7 * x[:, 3] + 0.1 * rng.normal(size=len(x))
    t = (t - t.mean()) / t.std()
    return split(x.astype(np.float32), t.astype(np.float32)[:, None], seed, count)


def circles(seed: int, count: int = 1000) -> Data:
    """Two rings in the plane, labels 0 and 1: no line parts them."""
    rng = np.random.default_rng(seed)
    angle, t = rng.uniform(0, 2 * np.pi, count + 500), rng.integers(0, 2, count + 500)
    x = np.stack([np.cos(angle), np.sin(angle)], 1) * (1.4 - 0.7 * t)[:, None] + 0.08 * rng.normal(size=(len(t), 2))
    return split(x.astype(np.float32), t, seed, count)


def blobs(seed: int, count: int = 1000, classes: int = 4, inputs: int = 12) -> Data:
    """Classes of two clusters each."""
    rng = np.random.default_rng(seed)
    centres = 2.2 * rng.normal(size=(2 * classes, inputs)) / np.sqrt(2)
    which = rng.integers(0, 2 * classes, count + 500)
    x = centres[which] + rng.normal(size=(len(which), inputs))
    return split((x / x.std()).astype(np.float32), which % classes, seed, count)


def sequences(seed: int, count: int = 800, length: int = 12, features: int = 4) -> Data:
    """(N, L, features) random walks; label: which feature rose most."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count + 500, length, features))
    return split(x.astype(np.float32), x.sum(1).argmax(1), seed, count)


def words(seed: int, count: int = 1000, vocabulary: int = 60, length: int = 10) -> Data:
    """(N, L) words; label: which third of the vocabulary is most frequent."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 3, count + 500)
    x = np.where(
        rng.random((len(topic), length)) < 0.5,
        rng.integers(0, vocabulary, (len(topic), length)),
        rng.integers(0, vocabulary // 3, (len(topic), length)) + (topic * (vocabulary // 3))[:, None],
    )
    return split(x, topic, seed, count)


def table(name: str, seed: int) -> Data:
    """A table of scikit-learn (breast_cancer, wine, diabetes, iris): features as they are."""
    from sklearn import datasets

    x, t = getattr(datasets, f"load_{name}")(return_X_y=True)
    return split(
        x.astype(np.float32), t if t.dtype.kind == "i" else t.astype(np.float32)[:, None], seed, int(0.7 * len(x))
    )


# --- nets ---------------------------------------------------------------------------------------------------------------


def mlp(*widths: int, act: Callable[[], nn.Module] = nn.ReLU, last: tuple[nn.Module, ...] = ()) -> nn.Sequential:
    """Dense layers with an activation between them, and what comes ``last``."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), act()]
    return nn.Sequential(*layers[:-1], *last)


def cnn(outputs: int = 10, width: int = 8, norm: bool = False, last: tuple[nn.Module, ...] = ()) -> nn.Sequential:
    """Two convolutions over (N, 1, 8, 8), and a dense layer."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        *[nn.BatchNorm2d(width)] * norm,
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        *[nn.BatchNorm2d(2 * width)] * norm,
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, outputs),
        *last,
    )


class Rows(nn.Module):
    """A recurrent net, and a dense layer on its last state."""

    def __init__(
        self, kind: str = "LSTM", features: int = 4, width: int = 32, outputs: int = 4, **options: Any
    ) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(features, width, **{"batch_first": True, **options})
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x)[0][:, -1])


class Calls(nn.Module):
    """A net whose activations are functions called in ``forward``, and what is done to the output as well."""

    def __init__(self, *widths: int, after: Callable[[Any], Any] = lambda y: y, act: Any = F.relu) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(*pair) for pair in pairwise(widths)])
        self.after, self.act = after, act

    def forward(self, x: Any) -> Any:
        for layer in self.layers[:-1]:
            x = self.act(layer(x))
        return self.after(self.layers[-1](x))


def adam(model: Any, lr: float = 1e-3, **options: Any) -> Any:
    return optim.Adam(model.parameters(), lr=lr, **options)


def sgd(model: Any, lr: float = 0.05, momentum: float = 0.9, **options: Any) -> Any:
    return optim.SGD(model.parameters(), lr=lr, momentum=momentum, **options)
