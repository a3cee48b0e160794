"""The loss of a run: cross-entropy for classes, a distance for the values of a regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import kobai
from kobai import nn
from kobai.core.tensor import Tensor
from kobai.train.settings import RunSettings, SettingsError, quantile_of
from kobai.utils.data import TensorDataset
from kobai.xp import to_host

DISTANCES: dict[str, Callable[[], nn.Module]] = {"mse": nn.MSELoss, "mae": nn.L1Loss, "huber": nn.HuberLoss}


class QuantileLoss(nn.Module):
    """Mean of max(q·e, (q − 1)·e) with e = target − output: least where a share q of the targets lies below the output.

    Output and target have one shape. Koenker and Bassett, "Regression quantiles", 1978.

    >>> QuantileLoss(0.9)(kobai.tensor([[0.0], [0.0]]), kobai.tensor([[1.0], [-1.0]])).item()
    0.5
    """

    def __init__(self, q: float) -> None:
        super().__init__()
        self.q = q

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        error = target - output
        loss: Tensor = kobai.maximum(self.q * error, (self.q - 1) * error).mean()
        return loss


def loss_of(settings: RunSettings, data: TensorDataset, outputs: int) -> Callable[[Any, Any], Tensor]:
    """The loss that ``settings`` ask for on training data with these targets; SettingsError if it does not fit them."""
    target = data.tensors[1]
    name, share = settings.loss, quantile_of(settings.loss)
    if target.is_floating_point():
        if name == "cross_entropy":
            raise SettingsError(
                "loss", "cross_entropy is for classes, and the target is a number: mse, mae, huber or quantile(…)"
            )
        if settings.class_weight != "none":
            raise SettingsError("class_weight", "the target is a number, and has no classes to weight")
        return DISTANCES["mse" if name == "auto" else name]() if share is None else QuantileLoss(share)
    if name not in ("auto", "cross_entropy"):
        raise SettingsError(
            "loss", f"{name} is for numbers, and the target is a class: leave it out, or give --task regression"
        )
    if settings.class_weight == "none":
        return nn.CrossEntropyLoss()
    counts = np.bincount(to_host(target.array), minlength=outputs)
    weight = len(target) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return nn.CrossEntropyLoss(weight=kobai.tensor(weight, dtype=kobai.float32, device=target.device))
