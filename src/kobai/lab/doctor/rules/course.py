"""The rule of a training's course: a loss that becomes infinite, and one that ends no better than guessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from kobai.lab.doctor.cures import Cure, scale_rate
from kobai.lab.doctor.findings import Disease, Evidence, Finding, better
from kobai.lab.doctor.rules.data import FAULTS, OPTIMISER
from kobai.lab.doctor.rules.numbers import spoilt
from kobai.lab.doctor.rules.updates import LOSS_GREW, RATE_TOO_LARGE
from kobai.lab.doctor.rules.view import View
from kobai.optim import Optimizer

GUESSED, FASTER = 0.02, 0.1
"""A net that learns is below a guess's loss by GUESSED of its size; a learning rate that diverged is multiplied by FASTER."""

NO_BETTER_THAN_GUESSING = Disease(
    "no-better-than-guessing",
    "no better than guessing",
    f"after the steps of a trial the loss is not finite, or not below that of one output for all samples by {GUESSED:.0%} (a "
    "warning if it falls)",
    "A net that says the same of every sample has learnt nothing of what tells them apart, however healthy its layers "
    "look.",
    "definition of the loss; Karpathy, A recipe for training neural networks, 2019",
    (
        *FAULTS,
        *OPTIMISER,
        *"bounded-scores unshuffled symmetric saturated exploding-activations collapsed dying-relu".split(),
        *"mixed-samples unused-inputs order-unseen not-registered not-held cut-off frozen standing".split(),
        *"no-activation bottleneck".split(),
        *"no-offset only-a-plane one-place diagonal-alone words-alike padding-is-a-word fades-in-time".split(),
        *"dropout cannot-fit vanishing-gradient exploding-gradient rate-too-large rate-too-small".split(),
    ),
)


def falls(losses: Sequence[float]) -> bool:
    """Whether losses of different batches fall: the median of the last third is below that of the first third.

    It must be below the very first loss too: a loss that jumps up and comes back in part has not fallen.

    >>> falls([3.0, 1.0, 2.9, 1.0, 2.0, 0.9, 2.0, 0.8, 0.9]), falls([1.0, 1.01, 0.99] * 3), falls([1.0, 0.5])
    (True, False, False)
    >>> falls([1.0, 50.0, 40.0, 30.0, 20.0, 10.0])
    False
    """
    third = len(losses) // 3
    if not third or not all(map(math.isfinite, losses)):
        return False
    last = median(losses[-third:])
    return last < losses[0] and better(last, median(losses[:third]), GUESSED)


def guessing(view: View) -> Finding | None:
    """What a longer training of a copy shows: the loss after it, beside that of the best constant output."""
    assert view.trials is not None
    trials = view.trials
    course = trials.course()
    targets = [batch[-1] for batch in trials.fitted]
    guess = min(view.guesses(targets), default=None)
    found = outcome(course.losses, course.end, guess, trials.fitted, view.optimizer)
    if found is None or found.disease != RATE_TOO_LARGE.name:
        return found
    slower = trials.course(f"{FASTER:g} of the rate", found.cure.apply)
    if better(slower.end, course.losses[0]):
        return found
    return outcome(course.losses, course.end, guess, trials.fitted, None)  # which grows at a smaller rate too


def outcome(
    losses: Sequence[float], end: float, guess: float | None, batches: Sequence[Any], optimizer: Optimizer | None
) -> Finding | None:
    """What the losses of a training show that the few steps before it did not.

    ``end`` is where they end, infinite if that is not a number; ``guess`` the loss of the best constant output, if known;
    ``batches`` what was trained on, over and over. Only the user's own ``optimizer`` is blamed.
    """
    if not math.isfinite(end):
        at = next(i for i, loss in enumerate(losses) if not math.isfinite(loss))
        *inputs, target = batches[at % len(batches)]
        if bad := spoilt(inputs, target):
            return bad
    grew = not math.isfinite(end) or end - losses[0] > (LOSS_GREW - 1) * max(abs(losses[0]), 1e-3)
    if grew and (guess is None or not end <= guess) and optimizer is not None and math.isfinite(losses[0]):
        rate = float(optimizer.param_groups[0]["lr"])
        return RATE_TOO_LARGE.found(
            Evidence(f"loss after {len(losses)} steps, less that before", end - losses[0], 0.0, True),
            cause=f"The loss grows from {losses[0]:.3g} to {end:.3g}: learning rate {rate:g} is too large for these gradients.",
            cure=scale_rate(FASTER, rate),
        )
    if math.isfinite(end) and (not guess or better(end, guess, GUESSED)):
        return None
    limit = guess if guess is not None else max(filter(math.isfinite, losses), default=0.0)
    guessed = "." if guess is None else f", and {guess:.3g} for one output that is the same for all samples."
    return NO_BETTER_THAN_GUESSING.found(
        Evidence(f"loss after {len(losses)} steps", end, limit, True),
        cause=f"After {len(losses)} steps the loss is {end:.3g}{guessed}",
        cure=Cure(
            "# does the net learn one small batch by heart? If not, look at the loss function, the last layer and what lies\n"
            "# between them, then at the targets; if it does, give it more steps, or data from which the targets can be told"
        ),
        # A loss that still falls may just need more steps.
        severity="warning" if better(end, losses[0], GUESSED) and math.isfinite(losses[0]) else "error",
    )
