"""What a loss takes its input for and averages over, reported to whoever listens.

Labels that a loss ignores must not count in an epoch's mean or in an accuracy, and a probability must not be read as a
logit. Only the loss knows, and it may be called from any function of the user's; so it reports itself.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from kobai.core.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Averaged:
    """``reads``: what the input is – ``"classes"``, a score for each class; ``"logits"`` or ``"probabilities"`` of 1 against 0;
    ``"estimates"`` of the target itself. ``shape`` is the target's. Of class indices, ``ignore_index`` counts nothing, and the
    others as much as their ``weight`` (C).
    """

    reads: str
    shape: tuple[int, ...]
    ignore_index: int | None = None
    weight: Tensor | None = None


listener: ContextVar[list[Averaged] | None] = ContextVar("listener", default=None)
"""The list to which losses report; None if nobody listens."""


def tell(reads: str, shape: tuple[int, ...], ignore_index: int | None = None, weight: Tensor | None = None) -> None:
    """Report what the loss being computed reads and averages over."""
    heard = listener.get()
    if heard is not None:
        heard.append(Averaged(reads, shape, ignore_index, weight))
