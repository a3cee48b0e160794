"""Schedules that go up and down again, and move the momentum against the learning rate: OneCycleLR and CyclicLR."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from kobai.optim.groups import Group, set_learning_rate
from kobai.optim.lr_scheduler.base import LRScheduler, check_known, per_group
from kobai.optim.optimizer import Optimizer


class _Cycle(LRScheduler):
    """What both share: the momentum (``momentum`` of SGD, β₁ of Adam) between base and max."""

    cycle_momentum: bool
    use_beta1: bool

    def _start_momentum(self, optimizer: Optimizer, base: Any, largest: Any, last_epoch: int) -> None:
        who = type(self).__name__
        if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
            raise ValueError(
                f"{who}: cycle_momentum=True needs an optimizer with momentum or betas, got {type(optimizer).__name__}"
            )
        self.use_beta1 = "betas" in optimizer.defaults
        bases = per_group(self, "base_momentum", base, optimizer)
        maxima = per_group(self, "max_momentum", largest, optimizer)
        if last_epoch == -1:
            for group, low, high in zip(optimizer.param_groups, bases, maxima, strict=True):
                self._set_momentum(group, high)
                group["max_momentum"] = high
                group["base_momentum"] = low
        self.base_momentums, self.max_momentums = bases, maxima

    def _set_momentum(self, group: Group, momentum: float) -> None:
        if self.use_beta1:
            group["betas"] = (momentum, *group["betas"][1:])
        else:
            group["momentum"] = momentum


class OneCycleLR(_Cycle):
    """One cycle over the whole training: from max_lr/``div_factor`` up to ``max_lr``, then down far below the start.

    To be stepped after every batch. The rate rises for ``pct_start`` of the steps and falls to
    initial_lr/``final_div_factor`` in the rest (``three_phase``: back to initial_lr in as many steps as it rose, then
    on). With ``cycle_momentum`` the momentum goes from ``max_momentum`` to ``base_momentum`` and back meanwhile.

    Arguments:
        optimizer, max_lr: ``max_lr`` for all groups or one each.
        total_steps: or ``epochs`` and ``steps_per_epoch``.
        pct_start, anneal_strategy: see above; ``"cos"`` or ``"linear"``.
        cycle_momentum, base_momentum, max_momentum: see above.
        div_factor, final_div_factor, three_phase, last_epoch: see above.

    Errors: ValueError for options out of range, and for more than ``total_steps`` steps.

    Smith, Topin, *Super-convergence: very fast training of neural networks*, arXiv:1708.07120.

    >>> import kobai
    >>> optimizer = kobai.optim.SGD([kobai.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    >>> scheduler = kobai.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=10, pct_start=0.5)
    >>> rates = []
    >>> for _ in range(6):
    ...     rates += [round(scheduler.get_last_lr()[0], 2)]
    ...     optimizer.step()
    ...     scheduler.step()
    >>> rates
    [0.04, 0.18, 0.52, 0.86, 1.0, 0.9]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        largest = per_group(self, "max_lr", max_lr, optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: expected total_steps, or epochs and steps_per_epoch")
            for name, value in (("epochs", epochs), ("steps_per_epoch", steps_per_epoch)):
                if not isinstance(value, int) or value < 1:
                    raise ValueError(f"OneCycleLR: expected {name} as an int >= 1, got {value!r}")
            total_steps = epochs * steps_per_epoch
        if not isinstance(total_steps, int) or total_steps < 1:
            raise ValueError(f"OneCycleLR: expected total_steps as an int >= 1, got {total_steps!r}")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: expected pct_start in [0, 1], got {pct_start}")
        check_known(self, "anneal_strategy", anneal_strategy, _ANNEAL)
        self.total_steps = total_steps
        self._anneal_func_type = anneal_strategy
        peak, last = float(pct_start * total_steps) - 1, float(total_steps - 1)
        # (last step of the phase, lr at its start and end, momentum at its start and end), as keys of the groups
        self._schedule_phases = [
            (peak, "initial_lr", "max_lr", "max_momentum", "base_momentum"),
            (last, "max_lr", "min_lr", "base_momentum", "max_momentum"),
        ]
        if three_phase:
            self._schedule_phases[1:] = [
                (2 * pct_start * total_steps - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
                (last, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
            ]
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, largest, strict=True):
                group["initial_lr"] = lr / div_factor
                group["max_lr"] = lr
                group["min_lr"] = group["initial_lr"] / final_div_factor
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._start_momentum(optimizer, base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        step = self.last_epoch
        if step > self.total_steps:
            raise ValueError(f"OneCycleLR: expected at most total_steps={self.total_steps} steps, got step {step}")
        start = 0.0
        for phase in self._schedule_phases:
            end, lr_from, lr_to, momentum_from, momentum_to = phase
            if step <= end:
                break
            if phase is not self._schedule_phases[-1]:
                start = end
        done = (step - start) / (end - start)
        anneal = _ANNEAL[self._anneal_func_type]
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(anneal(group[lr_from], group[lr_to], done))
            if self.cycle_momentum:
                self._set_momentum(group, anneal(group[momentum_from], group[momentum_to], done))
        return rates


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1)


def _linear(start: float, end: float, done: float) -> float:
    return (end - start) * done + start


_ANNEAL = {"cos": _cosine, "linear": _linear}


class CyclicLR(_Cycle):
    """Triangular waves between ``base_lr`` and ``max_lr``.

    To be stepped after every batch. A cycle is ``step_size_up`` steps up and ``step_size_down`` (as many, if None)
    down. ``mode`` scales its height: ``"triangular"`` not at all, ``"triangular2"`` by half each cycle, ``"exp_range"``
    by γ^step; ``scale_fn``, of the cycle or of the step (``scale_mode`` ``"cycle"`` or ``"iterations"``), overrides it.
    With ``cycle_momentum`` the momentum goes from ``max_momentum`` to ``base_momentum`` and back meanwhile.

    Smith, *Cyclical learning rates for training neural networks*, WACV 2017.

    >>> import kobai
    >>> optimizer = kobai.optim.SGD([kobai.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    >>> scheduler = kobai.optim.lr_scheduler.CyclicLR(optimizer, base_lr=1.0, max_lr=3.0, step_size_up=2)
    >>> rates = []
    >>> for _ in range(6):
    ...     rates += scheduler.get_last_lr()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> rates
    [1.0, 2.0, 3.0, 2.0, 1.0, 2.0]
    """

    _parts = ("_scale_fn_custom",)

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | list[float],
        max_lr: float | list[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ) -> None:
        if scale_fn is None:
            check_known(self, "mode", mode, ("triangular", "triangular2", "exp_range"))
        check_known(self, "scale_mode", scale_mode, ("cycle", "iterations"))
        base_lrs = per_group(self, "base_lr", base_lr, optimizer)
        if last_epoch == -1:
            for group, lr in zip(optimizer.param_groups, base_lrs, strict=True):
                set_learning_rate(group, lr)
        self.max_lrs = per_group(self, "max_lr", max_lr, optimizer)
        down = step_size_up if step_size_down is None else step_size_down
        self.total_size = float(step_size_up + down)
        self.step_ratio = step_size_up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn_custom = scale_fn
        self.scale_mode = scale_mode
        if scale_fn is None:
            self.scale_mode = "iterations" if mode == "exp_range" else "cycle"
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self._start_momentum(optimizer, base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = base_lrs

    def scale_fn(self, x: float) -> float:
        """Height of the wave at cycle or step ``x`` (see ``scale_mode``), 1 being full height."""
        if self._scale_fn_custom is not None:
            return self._scale_fn_custom(x)
        if self.mode == "triangular":
            return 1.0
        return float(0.5 ** (x - 1) if self.mode == "triangular2" else self.gamma**x)

    def get_lr(self) -> list[float]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle  # position in the cycle, 0 to 1
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        height *= self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, low, high in zip(
                self.optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True
            ):
                self._set_momentum(group, high - (high - low) * height)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]
