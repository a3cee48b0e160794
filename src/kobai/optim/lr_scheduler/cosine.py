"""Cosine annealing, without and with restarts."""

from __future__ import annotations

import math
from typing import Any

from kobai.optim.lr_scheduler.base import LRScheduler, at_every_step
from kobai.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """lr = η_min + (initial lr − η_min)·(1 + cos(πt/T_max))/2: half a cosine wave, and back up again after T_max.

    Loshchilov, Hutter, *SGDR: stochastic gradient descent with warm restarts*, arXiv:1608.03983.

    >>> import kobai
    >>> optimizer = kobai.optim.SGD([kobai.zeros(1, requires_grad=True)], lr=1.0)
    >>> scheduler = kobai.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
    >>> for _ in range(2):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     print(round(scheduler.get_last_lr()[0], 6))
    0.5
    0.0
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if T_max <= 0:
            raise ValueError(f"CosineAnnealingLR: expected T_max > 0, got {T_max}")
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self._is_initial:
            return self._present()
        if (self.last_epoch - 1 - self.T_max) % (
            2 * self.T_max
        ) == 0:  # the rate before was η_min: no ratio to multiply by
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [lr + (base - self.eta_min) * rise for lr, base in zip(self._present(), self.base_lrs, strict=True)]
        ratio = self._wave(self.last_epoch) / self._wave(self.last_epoch - 1)
        return [ratio * (lr - self.eta_min) + self.eta_min for lr in self._present()]

    def _wave(self, epoch: int) -> float:
        return 1 + math.cos(math.pi * epoch / self.T_max)

    def _get_closed_form_lr(self) -> list[float]:
        return [self.eta_min + (base - self.eta_min) * self._wave(self.last_epoch) / 2 for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """lr = η_min + (initial lr − η_min)·(1 + cos(πT_cur/T_i))/2, restarted when T_cur reaches T_i.

    The first period is ``T_0`` epochs, each further one ``T_mult`` times the one before. ``step(epoch)`` takes
    fractions (``step(epoch + i / iterations)``) to anneal within an epoch.

    Loshchilov, Hutter, *SGDR: stochastic gradient descent with warm restarts*, arXiv:1608.03983.

    >>> import kobai
    >>> optimizer = kobai.optim.SGD([kobai.zeros(1, requires_grad=True)], lr=1.0)
    >>> scheduler = kobai.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=2)
    >>> rates = []
    >>> for _ in range(6):
    ...     rates += scheduler.get_last_lr()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> [round(rate, 2) for rate in rates]
    [1.0, 0.5, 1.0, 0.85, 0.5, 0.15]
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        for name, value in (("T_0", T_0), ("T_mult", T_mult)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"CosineAnnealingWarmRestarts: expected {name} as an int >= 1, got {value!r}")
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        wave = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * wave for base in self.base_lrs]

    @at_every_step
    def step(self, epoch: Any = None) -> None:
        """Go to the next epoch, or to ``epoch``, which may be a fraction."""
        if epoch is None and self.last_epoch >= 0:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            epoch = 0 if epoch is None else epoch
            if epoch < 0:
                raise ValueError(f"CosineAnnealingWarmRestarts: expected epoch >= 0, got {epoch}")
            # n whole periods, of length T_0·(mult^n − 1)/(mult − 1) together, lie before this epoch
            if self.T_mult == 1:
                self.T_i, self.T_cur = self.T_0, epoch % self.T_0
            elif epoch < self.T_0:
                self.T_i, self.T_cur = self.T_0, epoch
            else:
                n = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
                self.T_i = self.T_0 * self.T_mult**n
                self.T_cur = epoch - self.T_0 * (self.T_mult**n - 1) / (self.T_mult - 1)
        self.last_epoch = math.floor(epoch)
        self._set_lr(self.get_lr())
