"""The rules by which a net is judged, one file for each subject, and the order of what they find.

``diagnose`` and ``Doctor`` gather what they see in a :class:`View`; :func:`judge` is all that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

from kobai.lab.doctor.cures import ReplaceActivation
from kobai.lab.doctor.diseases import DISEASES
from kobai.lab.doctor.findings import Finding
from kobai.lab.doctor.rules import activations, data, gradients, numbers, outputs, units, updates
from kobai.lab.doctor.rules.view import View

Rule: TypeAlias = Callable[[View], Finding | None]

CAUSES: tuple[Rule, ...] = (
    data.constant_inputs,
    data.alike_targets,
    data.unshuffled,
    outputs.bounded_scores,
    units.no_gradient,
    units.symmetric,
)
"""Rules of what cannot be learnt, or cannot learn."""

STATE: tuple[Rule, ...] = (
    data.input_scale,
    data.target_scale,
    activations.saturated,
    activations.exploding,
    activations.collapsed,
    activations.dying,
    gradients.vanishing,
    gradients.exploding,
)
"""Rules of what data, layers and gradients look like. Where a net has learnt for all that, their errors are warnings."""

FACTS = frozenset({"non-finite", "wrong-labels", "no-signal", "unshuffled"})
"""Diseases that a loss which falls says nothing about: what is wrong with the data makes it fall for a wrong reason."""


def judge(view: View) -> tuple[Finding, ...]:
    """What all rules find, in order of causes. Of numbers that are not finite nothing else can be said."""
    if bad := numbers.non_finite(view):
        return (bad,)
    causes = [finding for rule in CAUSES if (finding := rule(view)) is not None]
    state = [finding for rule in STATE if (finding := rule(view)) is not None]
    if view.learnt:
        state = [replace(finding, severity="warning") for finding in state if finding.severity == "error"]
    rate = updates.rate(view)
    return ordered([*causes, *state, *([rate] if rate is not None else [])])


def tempered(finding: Finding) -> Finding | None:
    """What a loss that falls leaves of a finding: its rate is not too large, and what looks ill is at most a warning."""
    if finding.disease in FACTS:
        return finding
    if finding.disease == "rate-too-large":
        return None
    return replace(finding, severity="warning") if finding.severity == "error" else finding


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """In order of causes, with what follows from what; roots first."""
    order = list(DISEASES)
    found = sorted(findings, key=lambda finding: order.index(finding.disease))
    linked = [replace(finding, follows=_cause(finding, found)) for finding in found]
    return tuple(sorted(linked, key=lambda finding: finding.follows is not None))


def _cause(finding: Finding, found: list[Finding]) -> str | None:
    """The first of those found from which this one may follow. A warning is too weak to be the cause of an error."""
    strong = {other.disease: other for other in found if finding.severity != "error" or other.severity == "error"}
    causes = [name for name in DISEASES[finding.disease].follows if name in strong]
    # Signal and gradient shrink alike: by weights that are too small, and then the signal comes first; or by the small slope
    # of an activation, which is what makes gradients vanish.
    if finding.disease == "collapsed" and "vanishing-gradient" in strong and _by_slope(finding):
        causes.append("vanishing-gradient")
    if finding.disease == "vanishing-gradient" and "collapsed" in causes and _by_slope(strong["collapsed"]):
        causes.remove("collapsed")
    return causes[0] if causes else None


def _by_slope(collapsed: Finding) -> bool:
    return isinstance(collapsed.cure, ReplaceActivation)
