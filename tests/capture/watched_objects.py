"""Objects that hold a value, and a small net with its data, for steps that read them."""

from __future__ import annotations

import dataclasses
import enum
import random

import numpy as np

import kobai
from kobai import nn


class Box:
    k = 1.0


class Slotted:
    __slots__ = ("k",)

    def __init__(self) -> None:
        self.k = 1.0


@dataclasses.dataclass
class Nested:
    inner: Slotted


class WithProperty:
    def __init__(self) -> None:
        self.hidden = 1.0

    @property
    def k(self) -> float:
        return self.hidden * 1.0


class ByName:
    def __init__(self) -> None:
        self.w_1 = 1.0

    def k(self) -> float:
        return getattr(self, f"w_{1}")


class Callable_:
    def __init__(self) -> None:
        self.w = 1.0

    def __call__(self) -> float:
        return self.w


class Kind(enum.Enum):
    PLAIN = 1.0
    FIFTH = 0.2


def with_default(x, k=1.0):
    return x * k


def with_keyword(x, *, k=1.0):
    return x * k


class Placed:
    """A value that a step reads, and how to change it."""

    def __init__(self, read, change) -> None:
        self.read, self.change = read, change


class Weights(np.ndarray):
    pass


class Drawing(random.Random):
    pass


def data(rows: int = 8):
    rng = np.random.default_rng(0)
    x = kobai.tensor(rng.standard_normal((rows, 6)).astype("f"))
    return x, kobai.tensor(rng.integers(0, 3, rows))


def net() -> nn.Sequential:
    kobai.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
