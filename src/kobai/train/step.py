"""One training step, and whether its loss is a mean over the batch or a sum."""

from __future__ import annotations

from typing import Any

from kobai.core.tensor import Tensor
from kobai.nn import Module
from kobai.nn.utils import clip_grad_norm_
from kobai.optim import Optimizer


def step(
    model: Module, optimizer: Optimizer, inputs: list[Any], target: Any, loss_fn: Any, clip_grad_norm: float | None
) -> tuple[Any, Tensor]:
    """Forward, loss, backward, clipping, update; returns output and loss."""
    output = model(*inputs)
    loss = loss_fn(output, target)
    optimizer.zero_grad()
    loss.backward()
    if clip_grad_norm is not None:
        clip_grad_norm_(model.parameters(), clip_grad_norm)
    optimizer.step()
    return output, loss


def reduction_of(loss_fn: Any) -> str:
    """The ``reduction`` of a loss: an attribute of a module, a keyword of a partial function, or else the mean."""
    keywords = getattr(loss_fn, "keywords", None) or {}
    return str(keywords.get("reduction") or getattr(loss_fn, "reduction", "mean"))
