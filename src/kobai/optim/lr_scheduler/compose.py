"""Schedules made of schedules: one after the other (SequentialLR), all at once (ChainedScheduler)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from kobai.optim.groups import set_learning_rate
from kobai.optim.lr_scheduler.base import LRScheduler, at_every_step, present_lrs
from kobai.optim.lr_scheduler.plateau import ReduceLROnPlateau
from kobai.optim.optimizer import Optimizer


class _Composed(LRScheduler):
    _parts = ("_schedulers",)
    _schedulers: list[LRScheduler]

    def _check_all(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler]) -> None:
        who = type(self).__name__
        for i, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(f"{who}: expected schedulers, got {type(scheduler).__name__} at index {i}")
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(f"{who}: ReduceLROnPlateau at index {i} needs a metric at each step")
            if scheduler.optimizer is not optimizer:
                raise ValueError(f"{who}: expected schedulers of one optimizer, got another one's at index {i}")


class SequentialLR(_Composed):
    """``schedulers`` one after the other; the next one begins, at its epoch 0, at each of ``milestones``.

    >>> import kobai
    >>> from kobai.optim.lr_scheduler import ConstantLR, ExponentialLR, SequentialLR
    >>> optimizer = kobai.optim.SGD([kobai.zeros(1, requires_grad=True)], lr=1.0)
    >>> warm = ConstantLR(optimizer, factor=0.5, total_iters=2)
    >>> scheduler = SequentialLR(optimizer, [warm, ExponentialLR(optimizer, gamma=0.5)], milestones=[2])
    >>> rates = []
    >>> for _ in range(4):
    ...     rates += scheduler.get_last_lr()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> rates
    [0.5, 0.5, 1.0, 0.5]
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int], last_epoch: int = -1
    ) -> None:
        if not schedulers:
            raise ValueError("SequentialLR: expected at least one scheduler, got none")
        self._check_all(optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: expected {len(schedulers) - 1} milestones for {len(schedulers)} schedulers, "
                f"got {len(milestones)}"
            )
        self._schedulers = list(schedulers)
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        self.optimizer = optimizer
        # Every schedule has made its initial step, each on top of the one before. Start again, with the first alone.
        for group in optimizer.param_groups:
            set_learning_rate(group, group["initial_lr"])
        _step_back(self)
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    @at_every_step
    def step(self, epoch: Any = None) -> None:
        """One step of the schedule whose turn it is."""
        if epoch is not None:
            raise TypeError("SequentialLR: step() takes no epoch")
        self.last_epoch += 1
        turn = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[turn]
        if turn > 0 and self._milestones[turn - 1] == self.last_epoch:
            scheduler._update_lr(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()


def _step_back(scheduler: LRScheduler) -> None:
    """Undo the count of the initial step, in schedules within schedules too."""
    if isinstance(scheduler, _Composed):
        for inner in scheduler._schedulers:
            _step_back(inner)
    else:
        scheduler.last_epoch -= 1


class ChainedScheduler(_Composed):
    """All ``schedulers`` at every step, each on top of what the one before has set: their factors multiply.

    >>> import kobai
    >>> optimizer = kobai.optim.SGD([kobai.zeros(1, requires_grad=True)], lr=1.0)
    >>> halve = kobai.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    >>> drop = kobai.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    >>> scheduler = kobai.optim.lr_scheduler.ChainedScheduler([halve, drop])
    >>> rates = []
    >>> for _ in range(4):
    ...     rates += scheduler.get_last_lr()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> [round(rate, 4) for rate in rates]
    [1.0, 0.5, 0.025, 0.0125]
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise ValueError("ChainedScheduler: expected at least one scheduler, got none")
        optimizer = optimizer or schedulers[0].optimizer
        self._check_all(optimizer, schedulers)
        self._schedulers = list(schedulers)
        self.optimizer = optimizer
        self._last_lr = present_lrs(optimizer)

    @at_every_step
    def step(self, epoch: Any = None) -> None:
        """One step of every schedule."""
        if epoch is not None:
            raise TypeError("ChainedScheduler: step() takes no epoch")
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = present_lrs(self.optimizer)
