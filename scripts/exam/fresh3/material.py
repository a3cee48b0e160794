"""What the third fresh half is made of, beside the material of the others: views, bars, clouds, arrows, and nets for them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kobai
from exam.material import Data, digits, split
from exam.question import rng_of
from kobai import nn
from kobai.nn import functional as F


def views(seed: int, count: int = 1000) -> Data:
    """(N, 2, 64): two noisy views of a digit; the target is its label."""
    rng, data = rng_of(seed), digits(seed, count)
    sets = []
    for x in (data.x, data.fresh_x):
        both = np.repeat(x.numpy()[:, None], 2, 1) * (rng.random((len(x), 2, 64)) < 0.8)
        sets.append(kobai.from_numpy((both + 0.3 * rng.normal(size=both.shape)).astype(np.float32)))
    return Data(sets[0], data.t, sets[1], data.fresh_t)


class Both(nn.Module):
    """The same encoder on both views, to unit length: (N, 2, 64) to (N, 2, outputs)."""

    def __init__(self, outputs: int = 24) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))

    def forward(self, x: Any) -> Any:
        return F.normalize(self.encoder(x), dim=-1)


def partner_missed(y: Any, t: Any) -> Any:
    """Share of first views whose nearest second view is not their own."""
    return ((y[:, 0] @ y[:, 1].T).argmax(1) != kobai.arange(len(y))).float().mean()


def spots(seed: int, count: int = 700, side: int = 12) -> tuple[Data, np.ndarray]:
    """(N, 1, 12, 12) noisy images of a spot beside the centre, and in which direction it lies, from −π to π."""
    rng = rng_of(seed)
    angle = rng.uniform(-math.pi, math.pi, count + 300)
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    down, right = 3.5 * np.sin(angle)[:, None, None], 3.5 * np.cos(angle)[:, None, None]
    x = 2.5 * np.exp(-((rows - down) ** 2 + (columns - right) ** 2) / 3) + 0.3 * rng.normal(
        size=(len(angle), side, side)
    )
    data = split(x[:, None].astype(np.float32), angle.astype(np.float32), seed, count)
    return data, angle


def arrows(seed: int, count: int = 600) -> Data:
    """(N, 1, 8, 8) noisy arrows that point left, right, up or down: labels 0 to 3."""
    rng = rng_of(seed)
    left = np.zeros((8, 8))
    left[3:5, 1:7] = 1
    for i in range(4):
        left[3 - i : 5 + i, 1 + i] = 1
    left[:, 5:] *= 0.5
    shapes = np.stack([left, left[:, ::-1], left.T, left.T[::-1]])
    t = rng.integers(0, 4, count + 400)
    x = shapes[t] + 0.5 * rng.normal(size=(len(t), 8, 8))
    return split(2 * x[:, None].astype(np.float32) - 0.7, t, seed, count)


def clouds(seed: int, count: int = 600, points: int = 8) -> Data:
    """(N, points, 3): points in a cube; label: whether they come in close pairs."""
    rng = rng_of(seed)
    x, t = rng.uniform(-1, 1, (count + 200, points, 3)), rng.integers(0, 2, count + 200)
    close = x[:, : points // 2] + 0.12 * rng.normal(size=(len(x), points // 2, 3))
    x[:, points // 2 :] = np.where(t[:, None, None] == 1, close, x[:, points // 2 :])
    return split(x.astype(np.float32), t, seed, count)


def nodes(seed: int, count: int = 500, size: int = 10) -> Data:
    """(N, size, 4 + size): features of nodes, and which are joined; target (N, size): of the node and its neighbours."""
    rng = rng_of(seed)
    x = rng.normal(size=(count + 300, size, 4))
    half = np.triu(rng.random((len(x), size, size)) < 0.35, 1)
    joined = (half | half.transpose(0, 2, 1)).astype(np.float64)
    around = (joined @ x) / np.maximum(joined.sum(2, keepdims=True), 1)
    t = np.sin(2 * x[..., 0]) + 1.5 * around[..., 1] + x[..., 2]
    return split(np.concatenate([x, joined], 2).astype(np.float32), (t / t.std()).astype(np.float32), seed, count)


def bandit(seed: int, data: Data, classes: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Inputs, and targets (N, 3): the action that was tried, what it earned, and the one that would have been best."""
    rng = rng_of(seed)
    sets = []
    for x, t in ((data.x, data.t), (data.fresh_x, data.fresh_t)):
        best = t.numpy()
        tried = np.where(rng.random(len(best)) < 0.3, best, rng.integers(0, classes, len(best)))
        earned = (tried == best) + 0.2 * rng.normal(size=len(best))
        sets.append((x, kobai.from_numpy(np.stack([tried, earned, best], 1).astype(np.float32))))
    return sets[0], sets[1]


def not_the_best(y: Any, t: Any) -> Any:
    """Share of states in which the greatest score is not that of the best action."""
    return (y.argmax(1) != t[:, 2].long()).float().mean()


def chosen_log(y: Any, t: Any) -> Any:
    """The logarithm of the probability of the action that was tried."""
    return F.log_softmax(y, dim=-1).gather(1, t[:, :1].long())[:, 0]


class Stepped(nn.Module):
    """A net that counts its training steps, as one with a schedule of its own does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", kobai.zeros(1))

    def step(self) -> float:
        """Steps so far; one more in training."""
        if self.training:
            self.steps.add_(1)
        return float(self.steps.item())
