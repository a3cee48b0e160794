"""``reduction=``: what becomes of one loss per element."""

from __future__ import annotations

from kobai._tensor import Tensor
from kobai.ops.cross_entropy import REDUCTIONS, check_reduction

__all__ = ["REDUCTIONS", "check_reduction", "reduced"]


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """Mean, sum, or the losses themselves."""
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
