"""SWALR: from the present learning rate to a constant one."""

from __future__ import annotations

import math
from typing import Any

from kobai.optim.groups import learning_rate
from kobai.optim.lr_scheduler.base import LRScheduler, per_group
from kobai.optim.optimizer import Optimizer


class SWALR(LRScheduler):
    """Anneals to ``swa_lr`` within ``anneal_epochs`` steps, along a cosine or a line, and stays there.

    With α falling from 1 to 0, lr = α·lr₀ + (1 − α)·swa_lr; lr₀ is the rate that the group has when this starts.

    Arguments:
        optimizer: its groups get the key ``swa_lr``.
        swa_lr: the final rate, or a list with one per group.
        anneal_epochs: steps on the way; 0 goes there at once.
        anneal_strategy: ``"cos"`` or ``"linear"``.

    >>> import kobai
    >>> optimizer = kobai.optim.SGD([kobai.zeros(1, requires_grad=True)], lr=1.0)
    >>> scheduler = SWALR(optimizer, swa_lr=0.5, anneal_epochs=2, anneal_strategy="linear")
    >>> rates = []
    >>> for _ in range(3):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     rates += scheduler.get_last_lr()
    >>> rates
    [0.75, 0.5, 0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: Any,
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"SWALR: expected anneal_strategy 'cos' or 'linear', got {anneal_strategy!r}")
        if isinstance(anneal_epochs, bool) or not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"SWALR: expected anneal_epochs as an integer ≥ 0, got {anneal_epochs!r}")
        for group, rate in zip(optimizer.param_groups, per_group(self, "swa_lr", swa_lr, optimizer), strict=True):
            group["swa_lr"] = rate
        self.anneal_epochs = anneal_epochs
        self.anneal_strategy = anneal_strategy
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Next rate, from the present one: the share that is left of lr₀ shrinks from α₋ to α."""
        if self._is_initial:
            return self._present()
        before, now = self._share(self.last_epoch - 1), self._share(self.last_epoch)
        rates = []
        for group in self.optimizer.param_groups:
            start = group["swa_lr"] if before == 0 else (learning_rate(group) - (1 - before) * group["swa_lr"]) / before
            rates.append(now * start + (1 - now) * group["swa_lr"])
        return rates

    def _share(self, step: int) -> float:
        done = min(1.0, max(0.0, step / max(1, self.anneal_epochs))) if self.anneal_epochs else 1.0
        return (1 + math.cos(math.pi * done)) / 2 if self.anneal_strategy == "cos" else 1 - done
