"""Rules of the learning rate, by what the optimiser did: update-to-weight ratios ‖Δw‖ / ‖w‖, and the loss meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

from kobai.lab.doctor.cures import ScaleRate, SetRate
from kobai.lab.doctor.diseases import (
    LOSS_GREW,
    OVERSHOOT,
    RATIO_GOOD,
    RATIO_LARGE,
    RATIO_LARGE_SOME,
    RATIO_SMALL,
    RATIO_SMALL_SOME,
)
from kobai.lab.doctor.findings import Evidence, Finding
from kobai.lab.doctor.rules.view import View, found
from kobai.lab.probe.probes import Reading


def rate(view: View) -> Finding | None:
    """The learning rate, too large or too small. Only the user's own is judged.

    Weights before a normalisation are left out: their size means nothing, and a step that is too long makes them longer and
    the next one relatively shorter (van Laarhoven, arXiv:1706.05350).
    """
    if view.rate is None or (view.losses and not math.isfinite(view.losses[0])):
        return None
    free = {stage.weight.name for stage in view.stages if stage.normalised}
    ratios = dict(_ratios(view.readings))
    judged = {name: steps for name, steps in ratios.items() if name not in free}
    if not judged:
        return None
    return _large(view, view.rate, judged, ratios) or _small(view, view.rate, judged)


def _large(view: View, rate: float, judged: dict[str, list[float]], ratios: dict[str, list[float]]) -> Finding | None:
    """A median ratio that is large while the loss does not fall steadily; or a loss of the same batch that grows."""
    medians = [median(steps) for steps in judged.values()]
    typical = min(median(medians), median([median(steps) for steps in ratios.values()]))
    first = median([steps[0] for steps in judged.values()])
    losses, seen = view.losses, view.losses[: len(view.readings)]
    diverged = len(losses) > 1 and not losses[-1] <= LOSS_GREW * max(losses[0], 1e-3)
    # Small weights have large ratios, and grow: where the loss falls for all that, there is nothing to cure.
    falls = len(seen) > 1 and seen[-1] < seen[0] and max(seen) <= OVERSHOOT * seen[0]
    if not (typical > RATIO_LARGE_SOME and not falls) and not (diverged and typical > RATIO_GOOD):
        return None
    limit = next(limit for limit in (RATIO_LARGE, RATIO_LARGE_SOME, RATIO_GOOD) if typical > limit)
    evidence = [Evidence("median update-to-weight ratio", typical, limit, True)]
    if diverged:
        grown = losses[-1] / losses[0] if losses[0] else math.inf
        evidence.append(
            Evidence(f"loss after {len(losses) - 1} steps on one batch, over that before", grown, LOSS_GREW, True)
        )
    size = f"{typical:.3g} times" if typical >= 1 else f"{typical:.1%} of"
    return found(
        "rate-too-large",
        "error" if limit == RATIO_LARGE or diverged else "warning",
        [name.rpartition(".")[0] for name in judged],
        evidence,
        f"A step changes a weight by {size} its size: learning rate {rate:g} is too large for these gradients.",
        ScaleRate(min(0.5, RATIO_GOOD / max(first, RATIO_GOOD * 2)), rate),
    )


def _small(view: View, rate: float, judged: dict[str, list[float]]) -> Finding | None:
    """A largest ratio that is small, with a gradient that is not 0, while there is much to learn."""
    most = max(median(steps) for steps in judged.values())
    gradient = any(weight.gradient is not None and weight.gradient.norm > 0 for weight in view.reading.weights)
    if view.settling or view.learnt or not most < RATIO_SMALL_SOME or not gradient:
        return None
    severe = most < RATIO_SMALL
    return found(
        "rate-too-small",
        "error" if severe else "warning",
        [name.rpartition(".")[0] for name in judged],
        [Evidence("largest update-to-weight ratio", most, RATIO_SMALL if severe else RATIO_SMALL_SOME, False)],
        f"A step changes no weight by more than {most:.1g} of its size: learning rate {rate:g} is too small."
        if most > 0
        else f"No step changes any weight: learning rate {rate:g} is lost in the rounding of weights of this size."
        if rate > 0
        else "No step changes any weight: the learning rate is 0.",
        ScaleRate(RATIO_GOOD / most, rate) if most > 0 and rate > 0 else SetRate(1e-3, rate),
    )


def _ratios(readings: Sequence[Reading]) -> Iterator[tuple[str, list[float]]]:
    """Update-to-weight ratios of each weight, step by step; not of weights that were 0."""
    for i, weight in enumerate(readings[0].weights if readings else ()):
        ratios = [reading.weights[i].ratio for reading in readings if i < len(reading.weights)]
        ratios = [ratio for ratio in ratios if not math.isnan(ratio)]
        if ratios and math.isfinite(ratios[0]):
            yield weight.name, ratios
