"""Apply all rules to a view and order what they find by cause; both ``diagnose`` and ``Doctor`` do so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kobai.lab.doctor.diseases import DISEASES, RULES
from kobai.lab.doctor.findings import Finding
from kobai.lab.doctor.rules.view import View


def judge(view: View) -> tuple[Finding, ...]:
    """What all rules find, in order of causes. Wrong labels, and numbers that are not finite, leave nothing else to say."""
    found: list[Finding] = []
    for rule in RULES:
        if (finding := rule(view)) is None:
            continue
        if finding.disease in ("wrong-labels", "non-finite"):
            return (finding,)
        if not (DISEASES[finding.disease].looks and view.learnt):
            found.append(finding)
        elif finding.severity == "error":
            found.append(_weaker(finding))
    return ordered(found)


def tempered(finding: Finding) -> Finding | None:
    """What is left of a finding where the loss falls: the rate is not too large, and all else is at most a warning."""
    if DISEASES[finding.disease].fact:
        return finding
    return None if finding.disease == "rate-too-large" else _weaker(finding)


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings in order of causes, with what follows from what; roots first."""
    order = list(DISEASES)
    found = sorted(findings, key=lambda finding: order.index(finding.disease))
    linked = [replace(finding, follows=_cause(finding, found)) for finding in found]
    return tuple(sorted(linked, key=lambda finding: finding.follows is not None))


def _weaker(finding: Finding) -> Finding:
    return replace(finding, severity="warning")


def _cause(finding: Finding, found: list[Finding]) -> str | None:
    """The first finding that this one may follow from. A warning is too weak to cause an error."""
    strong = {other.disease: other for other in found if finding.severity != "error" or other.severity == "error"}
    causes = [name for name in DISEASES[finding.disease].follows if name in strong]
    # Signal and gradient shrink together. If the weights are too small, the signal is the cause; if the slope of the activation
    # is small, the gradient is.
    if finding.disease == "collapsed" and "vanishing-gradient" in strong and finding.cure.name == "rectify":
        causes.append("vanishing-gradient")
    if finding.disease == "vanishing-gradient" and "collapsed" in causes and strong["collapsed"].cure.name == "rectify":
        causes.remove("collapsed")
    return causes[0] if causes else None
