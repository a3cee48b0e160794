"""What the second fresh half is made of, beside the material of the others: frames, graphs, orders, and nets for them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kobai
from exam.material import Data, split
from exam.question import rng_of
from kobai import nn
from kobai.nn import functional as F


def frames(seed: int, count: int = 600, length: int = 12, features: int = 4) -> Data:
    """(N, L, features) noise; label of each frame: the feature whose sum with the frame before it is greatest."""
    rng = rng_of(seed)
    x = rng.normal(size=(count + 500, length, features)).astype(np.float32)
    before = np.concatenate([x[:, :1], x[:, :-1]], 1)
    return split(x, (x + before).argmax(-1), seed, count)


def graphs(seed: int, count: int = 600, nodes: int = 6) -> Data:
    """(N, nodes, 4 + nodes): features of the nodes and the adjacency; target: products of neighbours' features, added."""
    rng = rng_of(seed)
    x = rng.normal(size=(count + 500, nodes, 4))
    half = np.triu(rng.random((len(x), nodes, nodes)) < 0.4, 1)
    edges = (half | half.transpose(0, 2, 1)).astype(np.float64)
    t = (x[..., 0] * (edges @ x)[..., 1]).sum(1) + x[..., 2].sum(1)
    t = (t - t.mean()) / t.std()
    return split(np.concatenate([x, edges], 2).astype(np.float32), t.astype(np.float32)[:, None], seed, count)


def orders(seed: int, count: int = 900, vocabulary: int = 16, length: int = 8) -> Data:
    """(N, L) words; label: whether the greatest word stands in the first half."""
    rng = rng_of(seed)
    x = np.stack([rng.permutation(vocabulary)[:length] for _ in range(count + 500)])
    return split(x, (x.argmax(1) < length // 2).astype(np.int64), seed, count)


def echoes(seed: int, count: int = 800, length: int = 16) -> Data:
    """(N, L, 1) noise; target (N, 1): twice the first value, and the last."""
    rng = rng_of(seed)
    x = rng.normal(size=(count + 500, length, 1)).astype(np.float32)
    return split(x, 2 * x[:, 0] + x[:, -1], seed, count)


def couples(seed: int, count: int = 1000, inputs: int = 6) -> Data:
    """(N, 2·inputs) two items side by side; 1.0 where the first has the greater worth."""
    rng = rng_of(seed)
    x = rng.normal(size=(count + 500, 2, inputs)).astype(np.float32)
    worth = x[..., 0] + x[..., 1] * x[..., 2]
    return split(x.reshape(len(x), -1), (worth[:, 0] > worth[:, 1]).astype(np.float32), seed, count)


def strips(seed: int, count: int = 500, length: int = 12) -> Data:
    """(N, 12, 5) noisy frames in which three symbols of 1 to 4 are spoken in turn; targets (N, 3)."""
    rng = rng_of(seed)
    t = rng.integers(1, 5, (count + 300, 3))
    x = 0.5 * rng.normal(size=(len(t), length, 5))
    for place, start in enumerate((1, 5, 9)):
        x[np.arange(len(t)), start, t[:, place]] += 3
        x[np.arange(len(t)), start + 1, t[:, place]] += 3
    return split(x.astype(np.float32), t, seed, count)


def reviews(seed: int, count: int, vocabulary: int = 400, length: int = 20, share: float = 0.12) -> Data:
    """(N, L) words, a few of which hint at one of two labels."""
    rng = rng_of(seed)
    t = rng.integers(0, 2, count + 400)
    hint = rng.random((len(t), length)) < share
    words = np.where(hint, rng.integers(0, 10, hint.shape) + 10 * t[:, None], rng.integers(20, vocabulary, hint.shape))
    return split(words, t, seed, count)


class Attention(nn.Module):
    """One head of attention, written out; ``divided``: scores are divided by the root of the width."""

    def __init__(self, width: int, divided: bool = True) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.scale = 1 / math.sqrt(width) if divided else 1.0

    def forward(self, h: Any) -> Any:
        scores = kobai.bmm(self.query(h), self.key(h).transpose(1, 2)) * self.scale
        return kobai.bmm(F.softmax(scores, dim=-1), self.value(h))


class Graphs(nn.Module):
    """Two rounds of messages between neighbours, and a sum over the nodes of each graph."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, width), nn.Linear(2 * width, width), nn.Linear(width, 1)

    def messages(self, h: Any, edges: Any) -> Any:
        return kobai.bmm(edges, h)

    def pooled(self, h: Any) -> Any:
        return h.mean(1)

    def forward(self, x: Any) -> Any:
        h, edges = x[..., :4], x[..., 4:]
        h = F.relu(self.first(kobai.cat([h, self.messages(h, edges)], -1)))
        h = F.relu(self.second(kobai.cat([h, self.messages(h, edges)], -1)))
        return self.head(self.pooled(h))


def bits(seed: int, *shape: int) -> Any:
    """A tensor of float32 made of random bits, as memory that nobody has set would hold: some of it is not a number."""
    raw = rng_of(seed).integers(0, 2**32, shape, dtype=np.uint32)
    raw[0] = 0x7FC12345  # one word in 256 is no number; here at least these
    return kobai.from_numpy(raw.view(np.float32))
