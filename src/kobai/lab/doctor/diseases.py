"""The catalogue of diseases, and the rules that find them. Thresholds and entries are defined beside their rules.

A threshold is no law: there is a range between healthy nets and sick ones, and each threshold lies in it. Where a number
depends on depth, a rule looks at both the total over all layers and the factor per layer: 50 layers may lose what 3 must not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from kobai.lab.doctor.findings import Disease, Finding
from kobai.lab.doctor.rules import activations, course, data, gradients, numbers, outputs, units, updates
from kobai.lab.doctor.rules.view import View

Rule: TypeAlias = Callable[[View], Finding | None]


@dataclass(frozen=True)
class Examination:
    """A rule, what is right where it finds nothing, and what a view must have for it to look at."""

    rule: Rule
    right: str
    needs: Callable[[View], bool] = lambda view: True


def optimizer(view: View) -> bool:
    """Whether the user's own optimiser is there."""
    return view.optimizer is not None


def trials(view: View) -> bool:
    """Whether copies can be trained."""
    return view.trials is not None


def both(view: View) -> bool:
    """Whether copies can be trained with the user's own optimiser, and at the rate that it trains with."""
    return optimizer(view) and trials(view) and not view.settling


EXAMINATIONS: tuple[Examination, ...] = (
    Examination(data.wrong_labels, "labels are places of scores", lambda view: view.classes is not None),
    Examination(numbers.non_finite, "all numbers are finite"),
    Examination(data.constant_inputs, "inputs differ from sample to sample"),
    Examination(data.alike_targets, "targets differ"),
    Examination(data.unshuffled, "samples are in no order of class", lambda view: view.classes is not None),
    Examination(outputs.bounded_scores, "the outputs can reach what the loss asks for"),
    Examination(units.no_gradient, "the loss depends on the parameters"),
    Examination(units.symmetric, "units differ"),
    Examination(data.input_scale, "inputs are of usual size"),
    Examination(data.target_scale, "targets are of usual size"),
    Examination(activations.saturated, "activations are not flat"),
    Examination(activations.exploding, "the signal does not grow with depth"),
    Examination(activations.collapsed, "the signal reaches the last layer"),
    Examination(activations.dying, "units are alive"),
    Examination(gradients.vanishing, "the gradient reaches the first layer"),
    Examination(gradients.exploding, "the gradient is of usual size"),
    Examination(updates.too_large, "steps are not too long", optimizer),
    Examination(updates.too_small, "steps are not too short", optimizer),
    Examination(course.guessing, "the loss falls below that of guessing", both),
)
"""All examinations, which ``judging`` makes; ``tests/lab/test_doctor_conformance.py`` examines each."""

RULES = tuple(examination.rule for examination in EXAMINATIONS)

DISEASES: dict[str, Disease] = {
    disease.name: disease
    for disease in (
        numbers.NON_FINITE,
        data.WRONG_LABELS,
        data.NO_SIGNAL,
        data.UNSHUFFLED,
        outputs.BOUNDED_SCORES,
        data.INPUT_SCALE,
        data.TARGET_SCALE,
        units.SYMMETRIC,
        activations.SATURATED_ACTIVATIONS,
        activations.EXPLODING_ACTIVATIONS,
        activations.COLLAPSED_ACTIVATIONS,
        activations.DYING_RELU,
        gradients.VANISHING_GRADIENT,
        gradients.EXPLODING_GRADIENT,
        updates.RATE_TOO_LARGE,
        updates.RATE_TOO_SMALL,
        course.NO_BETTER_THAN_GUESSING,
    )
}
"""Diseases in order of causes: of two found together, the earlier is more likely the root."""
