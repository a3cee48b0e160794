"""What a loss takes its input for, and what it averages over: told to whoever listens.

Labels that a loss leaves out must not count where an epoch's mean is weighed or an accuracy taken, and a probability must
not be read as a logit. Only the loss knows, and it may be called from any function of the user's; so it says so itself.
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
"""Where losses are heard: a list that each one called appends to; None, nobody listens."""


def tell(reads: str, shape: tuple[int, ...], ignore_index: int | None = None, weight: Tensor | None = None) -> None:
    """Say what a loss that is being computed reads and averages over."""
    heard = listener.get()
    if heard is not None:
        heard.append(Averaged(reads, shape, ignore_index, weight))
