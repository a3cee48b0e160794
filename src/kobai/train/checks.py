"""Checks of a Trainer's arguments."""

from __future__ import annotations

from typing import Any

from kobai.nn import Module
from kobai.optim import Optimizer
from kobai.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


def check(model: Any, optimizer: Any, scheduler: Any, interval: Any, clip_grad_norm: float | None) -> None:
    """Check the types and values of a Trainer's arguments."""
    if not isinstance(model, Module):
        raise TypeError(f"Trainer: expected a kobai.nn.Module as model, got {type(model).__name__}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"Trainer: expected a kobai.optim.Optimizer, got {type(optimizer).__name__}")
    if scheduler is not None and not isinstance(scheduler, LRScheduler):
        raise TypeError(f"Trainer: expected a schedule of kobai.optim.lr_scheduler, got {type(scheduler).__name__}")
    if interval not in (None, "epoch", "batch"):
        raise ValueError(f"Trainer: expected scheduler_interval 'epoch' or 'batch', got {interval!r}")
    if isinstance(scheduler, ReduceLROnPlateau) and interval == "batch":
        raise ValueError(
            "Trainer: ReduceLROnPlateau looks at the values of whole epochs, got scheduler_interval='batch'"
        )
    if clip_grad_norm is not None and not clip_grad_norm > 0:
        raise ValueError(f"Trainer: expected clip_grad_norm > 0, got {clip_grad_norm}")
