"""The catalogue of diseases, and the rules that find them. Thresholds and entries are defined beside their rules.

A threshold is no law: there is a range between healthy nets and sick ones, and each threshold lies in it. Where a number
depends on depth, a rule looks at both the total over all layers and the factor per layer: 50 layers may lose what 3 must not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kobai.lab.doctor.findings import Disease, Finding
from kobai.lab.doctor.rules import activations, course, data, gradients, numbers, outputs, units, updates
from kobai.lab.doctor.rules.view import View

Rule: TypeAlias = Callable[[View], Finding | None]

RULES: tuple[Rule, ...] = (
    data.wrong_labels,
    numbers.non_finite,
    data.constant_inputs,
    data.alike_targets,
    data.unshuffled,
    outputs.bounded_scores,
    units.no_gradient,
    units.symmetric,
    data.input_scale,
    data.target_scale,
    activations.saturated,
    activations.exploding,
    activations.collapsed,
    activations.dying,
    gradients.vanishing,
    gradients.exploding,
    updates.too_large,
    updates.too_small,
)
"""All rules, which ``judging`` applies; ``tests/lab/test_doctor_conformance.py`` examines each."""

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
