"""Make all examinations of a view, order what they find by cause, and try the cures; ``diagnose`` and ``Doctor`` do so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from kobai.lab.doctor.budget import Postponed
from kobai.lab.doctor.diseases import DISEASES, EXAMINATIONS, OF_ONE, Examination
from kobai.lab.doctor.findings import SEVERITIES, Finding, Tried
from kobai.lab.doctor.rules.course import guessing
from kobai.lab.doctor.rules.view import LEARNT, View
from kobai.lab.doctor.trials import CURING, Trials

LEARNT_ALL = 0.02
"""Part of the loss of guessing, below which a copy has learnt nearly all there is."""

CURES_TRIED = 4
"""Cures that are tried at most, of the first roots."""


class Round:
    """Examinations of one view, made one after the other: all by ``diagnose``, and as there is time by ``Doctor``.

    Attributes:
        due: what is still to be made; those that need what the view lacks are left out.
        left_out: those that compare samples, where the batch has one alone.
        late: those for which there was no time.
        found, right: what was found ill, and right.
    """

    def __init__(self, view: View, examinations: Iterable[Examination] = EXAMINATIONS) -> None:
        self.view = view
        due = [examination for examination in examinations if examination.needs(view)]
        self.due = [each for each in due if not view.single or each.rule in OF_ONE]
        self.left_out = [each.right for each in due if each not in self.due]
        self.late: list[str] = []
        self.found: list[Finding] = []
        self.right: list[str] = []

    def step(self) -> None:
        """Make the next examination. It stays due if it is Postponed.

        Wrong labels, and numbers that are not finite, leave nothing else to say.
        """
        finding = self.due[0].rule(self.view)
        examination = self.due.pop(0)
        if finding is None:
            self.right.append(examination.right)
        elif finding.disease in ("wrong-labels", "refused-by-the-loss", "non-finite"):
            self.found, self.right, self.due = [finding], [], []
        elif finding.disease in [other.disease for other in self.found]:
            return
        elif not (DISEASES[finding.disease].looks and self.view.learnt):
            self.found.append(finding)
            if self.view.trials is not None and finding.severity == "error" and DISEASES[finding.disease].certain:
                self.view.trials.certain.append(finding)
        elif finding.severity == "error":
            self.found.append(_milder(finding, "warning"))


def judge(view: View) -> tuple[Finding, ...]:
    """What all rules find, in order of causes."""
    return ordered(examine(view).found)


def examine(view: View) -> Round:
    """All examinations for which there is time."""
    made = Round(view)
    while made.due:
        try:
            made.step()
        except Postponed:
            made.late.append(made.due.pop(0).right)
    return made


def tried(findings: Iterable[Finding], view: View) -> tuple[Finding, ...]:
    """Findings with what the cures of the first roots did to copies; the worst first, and then the most helpful.

    Each cure is tried alone. One that does not help alone is tried on top of the best; if none helps alone, they are tried
    together, one more each time. A net that learns without a cure refutes what is no fact: it becomes a note, and what would
    have followed from it is a root, which is tried in its turn. If the net does not learn, it is still a warning, and what
    it was where the copies had to be trained by another optimiser than the user's. What only looks ill is no error in a net
    that learns well without a cure, and a note in one that learns nearly all there is, though a cure may be faster.
    """
    if view.trials is None:
        return doubted(findings, view)
    trials, found = view.trials, list(doubted(findings, view))
    least = "note" if guessing(view) is None else "warning" if view.optimizer is not None else "error"
    trials.purse += CURING
    vain: list[Finding] = []
    for _ in range(CURES_TRIED):
        root = next((f for f in found if f.follows is None and f.cure.applicable and f.tried is None), None)
        what = _attempt(trials, root) if root is not None else None
        if root is None or what is None:
            break
        if not what.helped:
            vain.append(root)
        found = _with(found, root, what, least)
    helpful = [finding for finding in found if finding.tried is not None and finding.tried.helped]
    if helpful:
        best = min(helpful, key=_place)
        for root in vain:
            found = _with(found, root, _attempt(trials, root, [best]) or root.tried, least)
    else:
        for i in range(1, len(vain)):
            what = _attempt(trials, vain[i], vain[:i], [])
            if what is not None and what.helped:
                for root in vain[: i + 1]:
                    found = _with(found, root, what, least)
                break
    return tuple(sorted(found, key=_place))


def doubted(findings: Iterable[Finding], view: View) -> tuple[Finding, ...]:
    """Findings, of which those that only look ill are warnings where a copy learns well, and notes where it learns nearly all
    there is; without trials, which hold samples out, they stay warnings."""
    found = tuple(findings)
    if not any(DISEASES[finding.disease].looks and finding.severity != "note" for finding in found):
        return found
    all_there_is = view.trials is not None and view.left <= LEARNT_ALL
    well = "note" if all_there_is else "warning" if view.left <= LEARNT else "error"
    milder = [_milder(finding, well) if DISEASES[finding.disease].looks else finding for finding in found]
    return ordered(replace(finding, follows=None) for finding in milder)


def _attempt(trials: Trials, finding: Finding, *beside: Sequence[Finding]) -> Tried | None:
    """What a cure does; None where the purse of a diagnosis is empty."""
    try:
        return trials.tried(finding, *beside)
    except Postponed:
        if trials.purse > 0:  # a Doctor comes back to it
            raise
        return None


def _milder(finding: Finding, severity: str) -> Finding:
    """The finding with this severity, if it has a worse one."""
    return replace(finding, severity=max(finding.severity, severity, key=list(SEVERITIES).index))


def _with(findings: list[Finding], root: Finding, what: Tried | None, least: str) -> list[Finding]:
    """The findings, of which one has been tried, ordered anew."""
    known = replace(root, tried=what)
    if what is not None and not what.helped and not (DISEASES[root.disease].fact or DISEASES[root.disease].certain):
        known = _milder(known, least)
    others = [finding for finding in findings if finding.disease != root.disease]
    return list(ordered(replace(finding, follows=None) for finding in [*others, known]))


def _place(finding: Finding) -> tuple[bool, int, bool, float]:
    """Roots first; then by severity, by whether a cure is known to help, and by what it leaves of the loss."""
    helped = finding.tried is not None and finding.tried.helped
    after = finding.tried.after if finding.tried is not None and helped else 0.0
    return finding.follows is not None, list(SEVERITIES).index(finding.severity), not helped, after


def tempered(finding: Finding) -> Finding | None:
    """What is left of a finding where the loss falls: the rate is not too large, and all else is at most a warning."""
    if DISEASES[finding.disease].fact:
        return finding
    return None if finding.disease in ("rate-too-large", "momentum-too-high") else _milder(finding, "warning")


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings in order of causes, with what follows from what; roots first."""
    order = list(DISEASES)
    found = sorted(findings, key=lambda finding: order.index(finding.disease))
    linked = [replace(finding, follows=_cause(finding, found)) for finding in found]
    return tuple(sorted(linked, key=lambda finding: finding.follows is not None))


def _cause(finding: Finding, found: list[Finding]) -> str | None:
    """The first finding that this one may follow from.

    A warning is too weak to cause an error, and a note to cause a warning, unless its cure has been seen to help.
    """
    rank = list(SEVERITIES)
    strong = {
        other.disease: other
        for other in found
        if rank.index(other.severity) <= rank.index(finding.severity)
        or (other.tried is not None and other.tried.helped)
    }
    causes = [name for name in DISEASES[finding.disease].follows if name in strong]
    # Signal and gradient shrink together. If the weights are too small, the signal is the cause; if the slope of the activation
    # is small, the gradient is.
    if finding.disease == "collapsed" and "vanishing-gradient" in strong and finding.cure.name == "rectify":
        causes.append("vanishing-gradient")
    if finding.disease == "vanishing-gradient" and "collapsed" in causes and strong["collapsed"].cure.name == "rectify":
        causes.remove("collapsed")
    return causes[0] if causes else None
