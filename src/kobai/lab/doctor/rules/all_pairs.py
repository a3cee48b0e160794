"""Which targets an output is compared with: the loss of a batch beside the losses of single outputs with single targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.rules.relations import Numbers

FEW = 6
"""Samples of which each output is put beside each target."""
COLUMNS = 8
"""At most so many columns of the targets are looked at one by one."""
SAME, OTHER = 1e-5, 1e-4
"""How near two losses are that are the same one, and how far apart others are, over what single losses are in size."""
TOGETHER = 1e-3
"""Part of single losses, by which they are no sum of a term of the output and one of the target."""


@dataclass(frozen=True)
class AllPairs:
    """A loss that is one over all pairs of outputs and targets.

    Attributes:
        column: of the targets, the one that is compared with all outputs; None for whole targets.
        target: the targets, of which one sample's are those of another; ``row`` is that sample.
        summed: whether the loss is a sum over samples, not a mean.
    """

    column: int | None
    target: Tensor
    row: int
    summed: bool


def over_all_pairs(
    loss: Callable[[Sequence[Tensor], Tensor], float], y: Sequence[Tensor], t: Tensor
) -> AllPairs | None:
    """Whether L(y, t) is the mean, or the sum, of ℓ(yᵢ, tⱼ) over all i and j, and not of ℓ(yᵢ, tᵢ).

    ℓ is the same function of one output and one target. That sets it apart from losses which compare samples on purpose: of
    one sample they say nothing, and their value is no sum over pairs of outputs and targets.
    """
    if t.ndim == 0 or len(t) < 3 or any(part.ndim == 0 or len(part) != len(t) for part in y):
        return None
    count = min(FEW, len(t))
    rows = [i * len(t) // count for i in range(count)]
    some, own = [part[rows] for part in y], t[rows]
    with no_grad():
        whole = loss(some, own)
        single = np.array([loss(_row(some, i), own[i : i + 1]) for i in range(count)])
        if not np.isfinite([*single, whole]).all() or _made_of(whole, single, (1, count), OTHER):
            return None
        for column in _columns(t):
            every = np.array(
                [[loss(_row(some, i), _drawn(own, i, j, column)) for j in range(count)] for i in range(count)]
            )
            together = every - every.mean(0) - every.mean(1)[:, None] + every.mean()
            if not np.abs(together).mean() > TOGETHER * np.abs(every).mean():
                continue  # outputs and targets have a term each, and nothing to do with each other
            if factor := _made_of(whole, every, (1, count, count**2), SAME):
                i, j = _apart(t, column)
                changed = t.clone()
                changed[i : i + 1] = _drawn(t, i, j, column)
                return AllPairs(column, changed, i, factor > 1)
    return None


def _made_of(whole: float, single: Numbers, factors: Sequence[int], near: float) -> int:
    """The factor by which a loss is the mean of these, or, if it is 1, the root of their mean square; 0: it is none."""
    size = float(np.abs(single).mean())
    for factor in factors:
        if abs(whole - factor * single.mean()) <= near * factor * size:
            return factor
    return int(abs(whole - np.sqrt((single**2).mean())) <= near * size)


def _columns(t: Tensor) -> Iterator[int | None]:
    yield None
    if t.ndim == 2 and 1 < t.shape[1] <= COLUMNS:
        yield from range(t.shape[1])


def _row(parts: Sequence[Tensor], i: int) -> list[Tensor]:
    return [part[i : i + 1] for part in parts]


def _drawn(t: Tensor, i: int, j: int, column: int | None) -> Tensor:
    """The target of sample i, of which a column, or all, is that of sample j."""
    if column is None:
        return t[j : j + 1]
    drawn: Tensor = t[i : i + 1].clone()
    drawn[:, column] = t[j : j + 1, column]
    return drawn


def _apart(t: Tensor, column: int | None) -> tuple[int, int]:
    """Two samples whose targets differ most."""
    flat = (t if column is None else t[:, column]).reshape(len(t), -1)
    sums = flat.float().sum(1)
    return int(sums.argmin().item()), int(sums.argmax().item())
