"""What the fresh situations are made of, beside the material of the others: sentences, masks, pairs, and nets for them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kobai
from exam.material import Data, split
from exam.question import rng_of
from kobai import nn
from kobai.nn import functional as F


def sentences(seed: int, count: int = 700, vocabulary: int = 20, length: int = 12) -> Data:
    """(N, L) words and the (N, L) words that follow: each word has one usual successor, which comes four times in five."""
    rng = rng_of(seed)
    usual = rng.permutation(vocabulary)
    words = np.empty((count + 500, length + 1), np.int64)
    words[:, 0] = rng.integers(0, vocabulary, len(words))
    for i in range(length):
        words[:, i + 1] = np.where(
            rng.random(len(words)) < 0.8, usual[words[:, i]], rng.integers(0, vocabulary, len(words))
        )
    return split(words[:, :-1], words[:, 1:], seed, count)


def per_word(output: Any, target: Any) -> Any:
    """Cross-entropy of (N, L, V) scores with (N, L) words."""
    return F.cross_entropy(output.reshape(-1, output.shape[-1]), target.reshape(-1))


class Speaker(nn.Module):
    """A recurrent language model."""

    def __init__(self, vocabulary: int = 20, width: int = 48, kind: str = "GRU", **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 16)
        self.rnn = getattr(nn, kind)(16, width, **{"batch_first": True, **options})
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(self.embed(x))[0])


class Reader(nn.Module):
    """A transformer over words: ``causal`` as a language model, else a classifier of the mean."""

    def __init__(
        self,
        vocabulary: int = 20,
        outputs: int = 20,
        width: int = 32,
        causal: bool = True,
        pooled: bool = False,
        positions: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.1 * kobai.randn(32, width)) if positions else None
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout, batch_first=True, norm_first=True)
        self.head = nn.Linear(width, outputs)
        self.causal, self.pooled = causal, pooled

    def forward(self, x: Any) -> Any:
        length = x.shape[1]
        h = self.embed(x)
        if self.places is not None:
            h = h + self.places[:length]
        mask = kobai.triu(kobai.full((length, length), -math.inf), 1) if self.causal else None
        h = self.layer(h, src_mask=mask)
        return self.head(h.mean(1) if self.pooled else h)


def boxes(seed: int, count: int = 300, side: int = 6) -> Data:
    """(N, 1, 12, 12) noisy images with a bright square, and masks (N, 12, 12) of where it is."""
    rng = rng_of(seed)
    x = rng.normal(size=(count + 150, 1, 12, 12)).astype(np.float32)
    t = np.zeros((len(x), 12, 12), np.int64)
    for i, (row, column) in enumerate(rng.integers(0, 13 - side, (len(x), 2))):
        t[i, row : row + side, column : column + side] = 1
    x[:, 0] += 1.5 * t
    return split(x, t, seed, count)


def pixels(outputs: int = 2, width: int = 8, last: tuple[nn.Module, ...] = ()) -> nn.Sequential:
    """Three convolutions that keep the size: scores for each pixel."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, outputs, 3, padding=1),
        *last,
    )


def pairs(seed: int, data: Data, count: int = 900) -> Data:
    """(N, 2, D) two samples, and whether (1.0) they are of one class; half of them are."""
    rng = rng_of(seed)
    x, t = data.x.numpy(), data.t.numpy()
    first = rng.integers(0, len(t), count + 300)
    same = rng.random(len(first)) < 0.5
    second = np.array([rng.choice(np.flatnonzero((t == t[i]) == s)) for i, s in zip(first, same, strict=True)])
    return split(np.stack([x[first], x[second]], 1), same.astype(np.float32), seed, count)


class Twins(nn.Module):
    """The same net on both of a pair: (N, 2, D) to (N, 2, outputs)."""

    def __init__(self, body: nn.Module, unit: bool = False) -> None:
        super().__init__()
        self.body, self.unit = body, unit

    def forward(self, x: Any) -> Any:
        y = self.body(x.reshape(-1, x.shape[-1])).reshape(len(x), x.shape[1], -1)
        return F.normalize(y, dim=-1) if self.unit else y


def triples(seed: int, data: Data, count: int = 700) -> Data:
    """(N, 3, D): a sample, one of its class, and one of another."""
    rng = rng_of(seed)
    x, t = data.x.numpy(), data.t.numpy()
    first = rng.integers(0, len(t), count + 300)
    same = [rng.choice(np.flatnonzero(t == t[i])) for i in first]
    other = [rng.choice(np.flatnonzero(t != t[i])) for i in first]
    return split(np.stack([x[first], x[same], x[other]], 1), t[first], seed, count)


class Variational(nn.Module):
    """A variational autoencoder; its output is (reconstruction, mean, logarithm of the variance)."""

    def __init__(self, inputs: int = 64, code: int = 6) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 2 * code))
        self.decoder = nn.Sequential(nn.Linear(code, 64), nn.ReLU(), nn.Linear(64, inputs))

    def forward(self, x: Any) -> Any:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        code = mean + (0.5 * log_variance).exp() * kobai.randn_like(mean)
        return self.decoder(code), mean, log_variance


def divergence(mean: Any, log_variance: Any) -> Any:
    """Of each sample: how far its code is from a standard normal one."""
    return 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1)


def reconstruction(output: Any, target: Any) -> Any:
    """Mean squared error of the first part of the output."""
    return F.mse_loss(output[0], target)
