"""A small batch and small nets for the doctor's tests."""

from __future__ import annotations

from typing import Any

import kobai
from kobai import nn
from kobai.nn import functional as F
from kobai.train import mlp


def batch(n: int = 64, features: int = 20) -> tuple[Any, Any]:
    kobai.manual_seed(1)
    x = kobai.randn(n, features)
    return x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()


def net(init: str = "auto", activation: str = "relu", depth: int = 5, **options: Any) -> nn.Sequential:
    kobai.manual_seed(0)
    return mlp(20, [30] * depth, 4, init=init, activation=activation, **options)


class Called(nn.Module):
    """Activations that are functions."""

    def __init__(self, function: Any, bias: float = 0.0) -> None:
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(20, 30, init="he"), nn.Linear(30, 30, init="he"), nn.Linear(30, 4)
        nn.init.zeros_(self.fc1.bias)
        nn.init.constant_(self.fc2.bias, bias)
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.head(F.dropout(self.function(self.fc2(self.function(self.fc1(x)))), 0.1, self.training))
