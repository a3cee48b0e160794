"""What programs that define distributions of their own use of ``torch.distributions.utils``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kobai.core.tensor import Tensor
from kobai.distributions.base import clamped, parameters, summed
from kobai.ops.random import randn
from kobai.ops.softmax import softmax

if TYPE_CHECKING:
    from kobai.dtypes import dtype
    from kobai.xp import device

__all__ = ["broadcast_all", "clamp_probs", "lazy_property", "logits_to_probs", "probs_to_logits"]

lazy_property = cached_property
_sum_rightmost = summed


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors of one shape.

    >>> import kobai
    >>> from kobai.distributions.utils import broadcast_all
    >>> broadcast_all(kobai.zeros(2), 1.0)
    (tensor([0., 0.]), tensor([1., 1.]))
    """
    return tuple(parameters(*values))


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities at least ε from 0 and 1, so that logarithms are finite.

    >>> import kobai
    >>> kobai.distributions.utils.clamp_probs(kobai.tensor(0.0)).item() > 0
    True
    """
    return clamped(probs)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """σ of each, or softmax along the last dimension.

    >>> import kobai
    >>> kobai.distributions.utils.logits_to_probs(kobai.zeros(2))
    tensor([0.5000, 0.5000])
    """
    return logits.sigmoid() if is_binary else softmax(logits, -1)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """log(p / (1 − p)) of each, or log p.

    >>> import kobai
    >>> kobai.distributions.utils.probs_to_logits(kobai.tensor(0.5), is_binary=True)
    tensor(0.)
    """
    p = clamped(probs)
    return p.logit() if is_binary else p.log()  # type: ignore[no-any-return]


def _standard_normal(shape: Sequence[int], dtype: dtype, device: device | str | None) -> Tensor:
    """Draws from N(0, 1)."""
    return randn(tuple(shape), dtype=dtype, device=device)
