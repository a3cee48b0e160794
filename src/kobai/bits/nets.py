"""The seven small nets by whose trainings machines are compared, and the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kobai import nn, optim, random
from kobai.bits.digest import Digest, on_grid
from kobai.core.tensor import Tensor
from kobai.nn import functional as F
from kobai.nn.utils import clip_grad_norm_
from kobai.ops import tensor

__all__ = ["NETS", "STEPS", "Net", "Recurrent", "digest", "training"]

STEPS = 10
CLASSES = 10


class Recurrent(nn.Module):
    """A recurrent layer in both directions, and a classifier of its last output."""

    def __init__(self, kind: Callable[..., nn.Module], inputs: int = 12, size: int = 24) -> None:
        super().__init__()
        self.layer = kind(inputs, size, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * size, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, inputs) → (N, classes)."""
        output: Tensor = self.layer(x)[0]
        scores: Tensor = self.out(output[:, -1])
        return scores


class Residual(nn.Module):
    """Two blocks with dropout, each added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(60, 60), nn.Linear(60, 60)
        self.norm, self.out = nn.LayerNorm(60), nn.Linear(60, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 60) → (N, classes)."""
        x = x + F.dropout(F.gelu(self.first(x)), 0.1, self.training)
        x = x + F.dropout(F.silu(self.second(x)), 0.1, self.training)
        scores: Tensor = self.out(self.norm(x))
        return scores


class Net(NamedTuple):
    """How a net is made and trained."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    """Of its input; N is odd and no multiple of a vector's lanes."""
    optimizer: Callable[..., optim.Optimizer] = optim.Adam
    lr: float = 1e-3
    clip: float | None = None
    """Greatest norm of the gradient."""


def _dense(*norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(300, 200), *norm, nn.ReLU(), nn.Linear(200, 90), nn.Tanh(), nn.Linear(90, CLASSES))


def _convolutional() -> nn.Module:
    first = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, nn.Conv2d(8, 12, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(108, CLASSES))


def _attentive() -> nn.Module:
    layer = nn.TransformerEncoderLayer(24, 3, 48, dropout=0.1, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(24 * 9, CLASSES))


NETS: dict[str, Net] = {
    "mlp": Net(_dense, (129, 300), optim.SGD, 0.1),
    "batch norm": Net(lambda: _dense(nn.BatchNorm1d(200)), (129, 300)),
    "layer norm": Net(lambda: _dense(nn.LayerNorm(200)), (129, 300)),
    "attention": Net(_attentive, (21, 9, 24), optim.AdamW),
    "residual": Net(Residual, (37, 60)),
    "lstm": Net(lambda: Recurrent(nn.LSTM), (21, 7, 12), clip=0.5),
    "cnn": Net(_convolutional, (21, 3, 16, 16)),
}
"""The last two have as many kernels as all others: who compiles from the end (``ahead.py``) meets who begins in the middle."""


def training(net: Net, after: Callable[[str, list[Tensor]], None] = lambda what, changed: None) -> nn.Module:
    """The net after :data:`STEPS` steps; ``after`` is told what was done that is no primitive, and what that has changed."""
    random.manual_seed(0)
    model = net.make()
    after("the first parameters", _state(model))
    rng = np.random.default_rng(0)
    x = tensor(on_grid(rng.uniform(-1, 1, net.shape)).astype(np.float32))
    target = tensor(rng.integers(CLASSES, size=len(x)))
    optimizer = net.optimizer(model.parameters(), lr=net.lr)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(x), target).backward()
        if net.clip is not None:
            clip_grad_norm_(model.parameters(), net.clip)
            after("clip_grad_norm_", [p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
        after(f"{type(optimizer).__name__}'s step", _state(model))
    return model


def digest(model: nn.Module) -> str:
    """Of all parameters and buffers."""
    return str(Digest(*(value.numpy() for value in _state(model))))


def _state(model: nn.Module) -> list[Tensor]:
    return list(model.state_dict().values())
