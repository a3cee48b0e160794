"""Rules of the schedule beside the course of a training: one that is made for far more steps, and one that steps too late."""

from __future__ import annotations

import math

from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.plan import FURTHER, MOST, ahead
from kobai.lab.doctor.rules.view import View
from kobai.optim.lr_scheduler import OneCycleLR

REACHED, HARDLY = 0.25, 0.05
"""Parts of the schedule's largest rate that a training gets."""
RISING = 0.9
"""Part of the way after which the rate must not rise any more: one that grows for ever, as in a search, has no top."""
CUT, FELL, STOOD, WAITED = 0.5, 0.3, 0.02, 4
"""A step of a schedule, what the loss falls by after it, how still it stood before, and for how many epochs."""

SCHEDULE_TOO_LONG = Disease(
    "schedule-too-long",
    "a schedule that is made for far more steps",
    f"a copy of the schedule is followed for {FURTHER} times as many steps as the training will take (or {MOST} steps, where "
    "it "
    f"must be stepped through each): the largest rate within the training is below {REACHED:g} of the largest of them (an "
    f"error below {HARDLY:g})",
    "A warm-up or a cycle begins far below its largest rate, and reaches it after a share of the steps that it was told of. If "
    "those are steps of another data set, or batches where it is stepped once an epoch, all ends within its beginning.",
    "Smith and Topin, Super-convergence, arXiv:1708.07120; Goyal et al., arXiv:1706.02677, section 2.2 (warm-up)",
    ("non-finite",),
    fact=True,
)
STEPS_LATE = Disease(
    "schedule-steps-late",
    "a schedule that lets the loss stand still before it steps",
    f"over {WAITED} epochs or more the training loss has fallen by less than {STOOD:.0%} each, and in the epoch after the rate "
    f"was cut to {CUT:g} or less of what it was it falls by {FELL:.0%}",
    "At a constant rate stochastic steps come down to a level that is proportional to it, and stay there. What follows at once "
    "after a cut could have followed as many epochs earlier.",
    "Bottou, Curtis, Nocedal, Optimization methods for large-scale machine learning, 2018, section 4.2; Dive into deep "
    "learning, section 12.11",
    ("non-finite", "falls-back"),
    fact=True,
)


def too_long(view: View) -> Finding | None:
    """The largest rate that the schedule reaches within the training, beside that in many times as many steps."""
    plan = view.plan
    if plan is None or plan.steps < 2:
        return None
    rates = ahead(plan)
    if rates is None:
        return None
    there = max(rate for _, rate in rates)
    if rates[-1][1] > max(rate for step, rate in rates if step <= RISING * rates[-1][0]):
        return None
    here = max(rate for step, rate in rates if step <= plan.steps)
    if not here < REACHED * there:
        return None
    share = here / there
    total = plan.scheduler.total_steps if isinstance(plan.scheduler, OneCycleLR) else 0
    return SCHEDULE_TOO_LONG.found(
        Evidence(
            "largest learning rate of this training over the largest that its schedule comes to", share, REACHED, False,
            severity="error" if share < HARDLY else "warning",
        ),
        cause=f"In the {plan.steps} steps of the schedule that this training takes the learning rate comes to {here:.2g} at "
        f"most, and later to {there:.2g}{f' (it is made for {total} steps)' if total else ''}: the "
        "schedule is made for far more steps than will be taken, and the rate stays too small.",
        cure=Cure(
            f"scheduler = kobai.optim.lr_scheduler.OneCycleLR(optimizer, max_lr={there:.3g}, total_steps={plan.steps})\n"
            "# the steps that will be taken: epochs * len(loader) where it is stepped after each batch, epochs where after each"
            if total
            else f"# let the warm-up end after some hundredths of the {plan.steps} steps that will be taken; is it stepped\n"
            "# after each epoch, and was made for batches? Trainer(..., scheduler_interval=\"batch\") steps it after each batch"
        ),
    )  # fmt: skip


def steps_late(view: View) -> Finding | None:
    """How long the training loss stood still before a cut of the rate, and by how much it falls in the epoch after it."""
    training = [float(record.get("loss", math.nan)) for record in view.history]
    rates = [float(record.get("lr", math.nan)) for record in view.history]
    if len(training) < WAITED + 2 or not all(map(math.isfinite, training + rates)) or not min(training) > 0:
        return None
    cut = next((i for i in range(len(rates) - 1, 0, -1) if rates[i] <= CUT * rates[i - 1]), None)
    if cut is None or not training[cut] < (1 - FELL) * training[cut - 1]:
        return None
    begun = cut - 1
    while begun > 0 and abs(training[begun] - training[begun - 1]) < STOOD * training[begun - 1]:
        begun -= 1
    still = cut - 1 - begun
    if still < WAITED or rates[begun + 1] != rates[cut - 1]:
        return None
    return STEPS_LATE.found(
        Evidence(
            "epochs of a loss that stood still before the schedule's step", still, WAITED - 1, True, severity="warning"
        ),
        Evidence("loss in the epoch after it, over that before", training[cut] / training[cut - 1], 1 - FELL, False),
        cause=f"At learning rate {rates[cut - 1]:.3g} the training loss stood at {training[cut - 1]:.3g} from epoch "
        f"{begun + 1} to {cut}, and fell to {training[cut]:.3g} when the rate became {rates[cut]:.3g}: that plateau lies "
        "before the "
        "schedule's step, which could come earlier.",
        cure=Cure(
            "# cut the rate when the loss stands still, not at a fixed epoch:\n"
            "scheduler = kobai.optim.lr_scheduler.ReduceLROnPlateau("
            f"optimizer, factor={rates[cut] / rates[cut - 1]:.2g}, patience=2)"
        ),
    )
