"""Rules of the learning rate, by what the optimiser did: update-to-weight ratios ‖Δw‖ / ‖w‖, and the loss meanwhile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from kobai.lab.doctor.cures import scale_rate, set_rate
from kobai.lab.doctor.findings import Disease, Evidence, Finding, graded
from kobai.lab.doctor.rules.data import FAULTS, OPTIMISER
from kobai.lab.doctor.rules.optimisers import SLOW, SWEEP, SWEPT, TAKEN, Swept, compared, costs, takes
from kobai.lab.doctor.rules.view import LEARNT, View
from kobai.lab.probe.readings import Reading

RATIO_LARGE, RATIO_LARGE_SOME, RATIO_SMALL, RATIO_SMALL_SOME, RATIO_GOOD = 0.2, 0.15, 1e-5, 1e-4, 3e-3
LOSS_GREW, OVERSHOOT, PATIENCE = 1.5, 1.2, 30

RATE_TOO_LARGE = Disease(
    "rate-too-large",
    "learning rate too large",
    f"median update-to-weight ratio above {RATIO_LARGE:g} (warning: {RATIO_LARGE_SOME:g}), while the loss does not "
    f"fall, or rises by {OVERSHOOT:g} on its way; or a loss of the same batch that grows by {LOSS_GREW:g}, and has not "
    f"come back after {PATIENCE} steps (both only where copies learn far more at a smaller rate); or a copy that, within "
    f"{SWEPT} steps at one of the rates of a sweep (multiples {SWEEP[0]:g} to {SWEEP[-1]:g}, and further while that helps), "
    f"learns {1 / TAKEN:g} times what 200 steps at this rate teach it; in "
    "`treat` also one that ends its training higher than it began",
    "A ratio of about 1e-3 is usual; Adam's first steps have lr divided by the weights' size, up to some 1e-2. At 0.2 "
    "five steps write every weight anew. Above 2 / curvature gradient descent overshoots; up to twice that the loss "
    "may grow at first and come back.",
    "Karpathy, CS231n notes, 2015; LeCun et al. 1998, section 5; Lewkowycz et al., arXiv:2003.02218",
    (
        *FAULTS,
        *OPTIMISER,
        *"symmetric exploding-activations exploding-gradient saturated collapsed dying-relu".split(),
    ),
)
RATE_TOO_SMALL = Disease(
    "rate-too-small",
    "learning rate too small",
    f"largest update-to-weight ratio of all layers below {RATIO_SMALL:g} (warning: {RATIO_SMALL_SOME:g}); or a "
    f"copy that, within {SWEPT} steps at a larger rate of the sweep, learns {1 / SLOW:g} times what 200 steps at this rate "
    "teach it; not judged where a schedule may mean it",
    "The reciprocal is the number of steps, all in one direction, in which a weight changes by its own size: ten "
    "thousand at 1e-4. Careful fine-tuning has some 5e-4.",
    "Karpathy, CS231n notes, 2015; Devlin et al., BERT, NAACL 2019, appendix A.3 (rates for fine-tuning)",
    (
        *FAULTS,
        *OPTIMISER,
        *"symmetric collapsed dying-relu vanishing-gradient saturated exploding-activations".split(),
    ),
    certain=True,
)


def too_large(view: View) -> Finding | None:
    """A large median ratio while the loss does not fall steadily; or a loss that grows on one batch."""
    judged, rate = _judged(view), view.rate
    if not judged or rate is None:
        return None
    medians = [median(steps) for steps in judged.values()]
    typical = min(median(medians), median([median(steps) for steps in _ratios(view.readings).values()]))
    first = median([steps[0] for steps in judged.values()])
    losses, seen = view.losses, view.losses[: len(view.readings)]
    diverged = len(losses) > 1 and not losses[-1] <= LOSS_GREW * max(losses[0], 1e-3)
    # Small weights have large ratios, and grow. If the loss falls all the same, there is nothing to cure.
    falls = len(seen) > 1 and seen[-1] < seen[0] and max(seen) <= OVERSHOOT * seen[0]
    swept = compared(view)
    swept = swept if swept is not None and swept.rate < rate else None
    if not (typical > RATIO_LARGE_SOME and not falls) and not (diverged and typical > RATIO_GOOD):
        return None if swept is None else _by_sweep(RATE_TOO_LARGE, swept, rate)
    smaller = min(0.5, RATIO_GOOD / max(first, RATIO_GOOD * 2))
    cure = set_rate(swept.rate, rate) if swept is not None else scale_rate(smaller, rate)
    quick = view.trials is None  # what a smaller rate does is not known then, but what this one does
    if not quick and swept is None:
        shown = f"{smaller:g} of the rate", cure.apply
        if takes(view, *shown) is None and costs(view, *shown) is None:
            return None  # steps may be long for other reasons: a smaller rate does no better
    limit = next(limit for limit in (RATIO_LARGE, RATIO_LARGE_SOME, RATIO_GOOD) if typical > limit)
    evidence = [Evidence("median update-to-weight ratio", typical, limit, True)]
    if diverged:
        grown = losses[-1] / losses[0] if losses[0] else math.inf
        what = f"loss after {len(losses) - 1} steps on one batch, over that before"
        evidence.append(Evidence(what, grown, LOSS_GREW, True))
    size = f"{typical:.3g} times" if typical >= 1 else f"{typical:.1%} of"
    return RATE_TOO_LARGE.found(
        *evidence,
        cause=f"A step changes a weight by {size} its size: learning rate {rate:g} is too large for these gradients.",
        cure=cure,
        where=[name.rpartition(".")[0] for name in judged],
        severity="error" if diverged or (limit == RATIO_LARGE and not (quick and view.left < LEARNT)) else "warning",
    )


def too_small(view: View) -> Finding | None:
    """A small largest ratio, though the gradient is not 0 and there is much to learn."""
    judged, rate = _judged(view), view.rate
    if not judged or rate is None or view.settling or view.learnt:
        return None
    most = max(median(steps) for steps in judged.values())
    gradient = any(weight.gradient is not None and weight.gradient.norm > 0 for weight in view.reading.weights)
    if not gradient:
        return None
    swept = compared(view)
    swept = swept if swept is not None and swept.rate > rate else None
    if not most < RATIO_SMALL_SOME:
        return None if swept is None else _by_sweep(RATE_TOO_SMALL, swept, rate)
    if swept is None and view.trials is not None and most > 0:  # copies learn no faster at other rates
        return None
    if most > 0:
        cause = f"A step changes no weight by more than {most:.1g} of its size: learning rate {rate:g} is too small."
    elif rate > 0:
        cause = f"No step changes any weight: learning rate {rate:g} is lost in the rounding of weights of this size."
    else:
        cause = "No step changes any weight: the learning rate is 0."
    return RATE_TOO_SMALL.found(
        graded("largest update-to-weight ratio", most, RATIO_SMALL, RATIO_SMALL_SOME, above=False),
        cause=cause,
        cure=set_rate(swept.rate, rate)
        if swept is not None
        else scale_rate(RATIO_GOOD / most, rate)
        if most > 0 and rate > 0
        else set_rate(1e-3, rate),
        where=[name.rpartition(".")[0] for name in judged],
        severity="error" if swept is not None else None,
    )


def _by_sweep(disease: Disease, swept: Swept, rate: float) -> Finding:
    """What copies trained at several rates show."""
    size = "large" if swept.rate < rate else "small"
    return disease.found(
        Evidence(f"loss of a copy after training at {rate:g}", swept.own, swept.best, True),
        cause=f"At learning rate {rate:g} the loss of a copy ends at {swept.own:.3g}, and at {swept.rate:g}, in fewer steps, "
        f"at {swept.best:.3g}: the rate is too {size}.",
        cure=set_rate(swept.rate, rate),
        severity="error" if not swept.own < swept.start else "warning",
    )


def _judged(view: View) -> dict[str, list[float]]:
    """The ratios by which the user's own learning rate is judged.

    Weights before a normalisation are left out: their size means nothing, and a step that is too long makes them longer and the
    next step relatively shorter (van Laarhoven, arXiv:1706.05350). So are weights that the optimiser does not hold.
    """
    if view.losses and not math.isfinite(view.losses[0]):
        return {}
    free = {stage.weight.name for stage in view.stages if stage.normalised}
    if view.optimizer is not None:
        held = {id(p) for group in view.optimizer.param_groups for p in group["params"]}
        free |= {name for name, parameter in view.model.named_parameters() if id(parameter) not in held}
    return {name: steps for name, steps in _ratios(view.readings).items() if name not in free}


def _ratios(readings: Sequence[Reading]) -> dict[str, list[float]]:
    """Update-to-weight ratios of each weight, step by step; without weights that were 0."""
    found = {}
    for i, weight in enumerate(readings[0].weights if readings else ()):
        ratios = [reading.weights[i].ratio for reading in readings if i < len(reading.weights)]
        ratios = [ratio for ratio in ratios if not math.isnan(ratio)]
        if ratios and math.isfinite(ratios[0]):
            found[weight.name] = ratios
    return found
