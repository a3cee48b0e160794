"""ReduceLROnPlateau: lower the learning rate when a metric stops improving."""

from __future__ import annotations

import math
import warnings
from typing import Any, SupportsFloat

from kobai.errors import users_line
from kobai.optim.groups import learning_rate, set_learning_rate
from kobai.optim.lr_scheduler.base import EPOCH_WARNING, LRScheduler, at_every_step, check_known, per_group, present_lrs
from kobai.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """lr ← max(``factor``·lr, ``min_lr``) after more than ``patience`` epochs without improvement.

    Arguments:
        optimizer: whose groups' rates are set.
        mode: ``"min"`` (a loss) or ``"max"`` (an accuracy).
        factor, patience: see above.
        threshold, threshold_mode: improvement must exceed it, relative to the best (``"rel"``) or absolute (``"abs"``).
        cooldown: epochs after a reduction in which nothing is counted.
        min_lr: lower bound, for all groups or one each.
        eps: smaller changes of lr are not made.

    Errors: ValueError for options out of range.

    >>> import kobai
    >>> optimizer = kobai.optim.SGD([kobai.zeros(1, requires_grad=True)], lr=1.0)
    >>> scheduler = kobai.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in [3.0, 2.0, 2.0, 2.0]:
    ...     scheduler.step(loss)
    >>> scheduler.get_last_lr()
    [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        if factor >= 1.0:
            raise ValueError(f"ReduceLROnPlateau: expected factor < 1, got {factor}")
        check_known(self, "mode", mode, ("min", "max"))
        check_known(self, "threshold_mode", threshold_mode, ("rel", "abs"))
        self.optimizer = optimizer
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode
        self.factor, self.patience, self.cooldown, self.eps = factor, patience, cooldown, eps
        self.min_lrs = per_group(self, "min_lr", min_lr, optimizer)
        self.default_min_lr = None if isinstance(min_lr, (list, tuple)) else min_lr
        self.last_epoch = 0
        self._last_lr = present_lrs(optimizer)
        self._reset()

    def _reset(self) -> None:
        """Forget the best value and all counts."""
        self.best = math.inf if self.mode == "min" else -math.inf
        self.cooldown_counter = 0
        self.num_bad_epochs = 0

    @at_every_step
    def step(self, metrics: SupportsFloat, epoch: Any = None) -> None:  # type: ignore[override]
        """Count an epoch whose metric is ``metrics``, and lower the rates if it is time."""
        current = float(metrics)
        if epoch is not None:
            warnings.warn(EPOCH_WARNING, stacklevel=users_line())
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self._is_better(current):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = present_lrs(self.optimizer)

    @property
    def in_cooldown(self) -> bool:
        """Whether epochs are not counted just now."""
        return self.cooldown_counter > 0

    def _is_better(self, value: float) -> bool:
        sign = 1.0 if self.mode == "max" else -1.0
        relative = self.threshold_mode == "rel"
        bar = self.best * (1.0 + sign * self.threshold) if relative else self.best + sign * self.threshold
        return sign * value > sign * bar

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            if self.default_min_lr is None:
                raise RuntimeError(
                    f"ReduceLROnPlateau: expected min_lrs for {len(groups)} parameter groups, got {len(self.min_lrs)}; "
                    "a group was added since, extend the attribute min_lrs"
                )
            self.min_lrs = [self.default_min_lr] * len(groups)
        for group, low in zip(groups, self.min_lrs, strict=True):
            present = learning_rate(group)
            lr = max(present * self.factor, low)
            if present - lr > self.eps:
                set_learning_rate(group, lr)
