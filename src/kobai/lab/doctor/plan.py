"""A training's schedule, and the rates that it will come to: followed ahead on a copy."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

from kobai import ops
from kobai.optim import SGD
from kobai.optim.groups import learning_rate
from kobai.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

FURTHER = 1000
"""Times as many steps as the training will take, over which a schedule is followed."""
POINTS, ALIKE, MOST = 300, 30, 3000
"""Steps that are looked at where a schedule can be asked for each, steps by which that is tried, and at most where not."""


@dataclass(frozen=True)
class Plan:
    """A training's schedule, and how many steps of it the training will take in all."""

    scheduler: LRScheduler
    steps: int


def ahead(plan: Plan) -> list[tuple[int, float]] | None:
    """(step, rate) of the first group for steps from now to many times the training's; None where that cannot be known.

    A schedule that says the same when asked for a step as when it is stepped there is asked for steps further ahead.
    """
    first, last = plan.scheduler.last_epoch, FURTHER * plan.steps
    last = min(last, getattr(plan.scheduler, "total_steps", last) - 1)  # a cycle gives no rates beyond its end
    if isinstance(plan.scheduler, ReduceLROnPlateau) or first >= last:
        return None
    now = [(first, _rate(plan.scheduler))]
    try:
        walked = _walked(_alone(plan.scheduler), range(first + 1, min(first + MOST, last) + 1))
        tried = walked[:: max(1, len(walked) // ALIKE)]
        if not _says(plan.scheduler, tried):
            return now + walked
        far = {first + round((last - first) * (i / POINTS) ** 2) for i in range(POINTS + 1)}
        near = (
            {first + (plan.steps - first) * i // POINTS for i in range(POINTS + 1)}
            if first < plan.steps <= last
            else set()
        )
        return now + _asked(_alone(plan.scheduler), sorted((far | near) - {first}))
    except Exception:  # a schedule of the program's own may need what a copy has not
        return None


def _says(scheduler: LRScheduler, walked: Sequence[tuple[int, float]]) -> bool:
    """Whether a schedule says the same when it is asked for a step as when it is stepped there."""
    try:
        asked = _asked(_alone(scheduler), [step for step, _ in walked])
    except (NotImplementedError, ValueError):  # it knows the next step alone
        return False
    return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12) for (_, a), (_, b) in zip(walked, asked, strict=True))


def _alone(scheduler: LRScheduler) -> LRScheduler:
    """A copy of a schedule, with an optimiser of nothing: all that a schedule changes are options of groups."""
    own = scheduler.optimizer
    groups = [
        {"params": [ops.zeros(1).requires_grad_()]} | {key: value for key, value in group.items() if key != "params"}
        for group in own.param_groups
    ]
    other = SGD([part for group in groups for part in group["params"]], lr=1.0)
    other.param_groups[:] = [dict(group) for group in groups]
    other._step_called = True
    return copy.deepcopy(scheduler, {id(own): other})


def _walked(scheduler: LRScheduler, steps: Sequence[int]) -> list[tuple[int, float]]:
    found = []
    for step in steps:
        scheduler.step()
        found.append((step, _rate(scheduler)))
    return found


def _asked(scheduler: LRScheduler, steps: Sequence[int]) -> list[tuple[int, float]]:
    found = []
    for step in steps:
        scheduler._update_lr(step)
        found.append((step, _rate(scheduler)))
    return found


def _rate(scheduler: LRScheduler) -> float:
    return learning_rate(scheduler.optimizer.param_groups[0])
