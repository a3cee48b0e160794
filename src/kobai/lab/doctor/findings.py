"""What a diagnosis says: diseases, findings with evidence, cause and cure; as text, on a terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.plain import plain
from kobai.lab.probe.readings import Reading
from kobai.optim import Optimizer

SEVERITIES = {"error": "red", "warning": "yellow"}
"""Severities, the worst first, and their colours on a terminal."""


@dataclass(frozen=True)
class Evidence:
    """One number against the threshold that makes it a finding."""

    what: str
    value: float
    threshold: float
    above: bool
    """Whether a number above the threshold is too large; else one below it is too small."""
    share: bool = False
    """Whether it is a share, shown in per cent."""
    severity: str = "error"
    """Severity of a finding that rests on it."""

    @property
    def passed(self) -> bool:
        """Whether the number is past its threshold."""
        return self.value > self.threshold if self.above else self.value < self.threshold

    def __str__(self) -> str:
        for digits in range(3, 8):  # until two numbers that differ look different
            value, limit = (
                f"{number:.{digits - 3}%}" if self.share else f"{number:.{digits}g}"
                for number in (self.value, self.threshold)
            )
            if value != limit:
                break
        return f"{self.what}: {value} (should be {'at most' if self.above else 'at least'} {limit})"


def graded(what: str, value: float, error: float, warning: float, above: bool = True, share: bool = False) -> Evidence:
    """Evidence against the threshold of an error if the number is past it, else against that of a warning.

    >>> str(graded("dead units", 0.5, 0.6, 0.4, share=True)), graded("left", 1e-4, 1e-3, 1e-2, above=False).severity
    ('dead units: 50% (should be at most 40%)', 'error')
    """
    severe = value > error if above else value < error
    return Evidence(what, value, error if severe else warning, above, share, "error" if severe else "warning")


@dataclass(frozen=True)
class Finding:
    """One disease in one net.

    Attributes:
        disease: its name in :data:`kobai.lab.doctor.diseases.DISEASES`; ``title`` for people.
        severity: ``"error"`` (the net will not train) or ``"warning"`` (it trains worse than it could).
        where: names of the layers, as ``model.named_modules()`` has them.
        evidence, cause, cure: numbers against thresholds; one sentence; code, which :func:`treat` can apply.
        follows: the disease that this one is a consequence of, and should go away with; None for a root.
    """

    disease: str
    title: str
    severity: str
    where: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    cause: str
    cure: Cure
    follows: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "disease": self.disease,
            "title": self.title,
            "severity": self.severity,
            "where": list(self.where),
            "evidence": [
                {"what": e.what, "value": plain(e.value), "threshold": e.threshold, "above": e.above}
                for e in self.evidence
            ],
            "cause": self.cause,
            "cure": self.cure.code,
            "follows": self.follows,
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """The lines of a report before the cure: (heading, text)."""
        if self.where:
            yield "where", self.place
        for i, evidence in enumerate(self.evidence):
            yield "evidence" if i == 0 else "", str(evidence)
        yield "cause", self.cause

    @property
    def place(self) -> str:
        """The first three layers, and how many more there are."""
        names = [name or "(the model)" for name in self.where]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@dataclass(frozen=True)
class Disease:
    """An entry of the catalogue, :data:`kobai.lab.doctor.diseases.DISEASES`.

    Attributes:
        name, title: for programs, and for people.
        rule, reason, source: how it is found, with all thresholds; why it is a disease; who has shown that.
        follows: diseases that this one may be a mere consequence of.
        fact: whether a falling loss does not refute it: with faulty data the loss may fall for the wrong reason.
        looks: whether it is judged by what data, layers and gradients look like. If the net has learnt all the same, its errors
            become warnings, and its warnings are dropped.
    """

    name: str
    title: str
    rule: str
    reason: str
    source: str
    follows: tuple[str, ...] = ()
    fact: bool = False
    looks: bool = False

    def found(
        self, *evidence: Evidence, cause: str, cure: Cure, where: Sequence[str] = (), severity: str | None = None
    ) -> Finding:
        """A finding, by default of the severity of the first evidence."""
        severity = severity or evidence[0].severity
        return Finding(self.name, self.title, severity, tuple(where), evidence, cause, cure)


@dataclass(frozen=True)
class Case:
    """What was diagnosed: the user's own objects. Only copies of them are examined and treated."""

    model: nn.Module
    batch: tuple[Any, ...]
    loss_fn: Callable[[Any, Any], Tensor]
    optimizer: Optimizer | None
    clip_grad_norm: float | None
    steps: int
    precision: str = "fp32"


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found. ``findings`` come in order of causes; those with ``follows`` need no cure of their own.

    ``losses`` are those of the training steps, ``reading`` is what the probes saw in the first.
    """

    findings: tuple[Finding, ...]
    losses: tuple[float, ...]
    reading: Reading
    model: str
    notes: tuple[str, ...] = ()
    case: Case | None = field(default=None, repr=False, compare=False)

    @property
    def healthy(self) -> bool:
        """Whether there is no finding."""
        return not self.findings

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings of severity error."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def roots(self) -> tuple[Finding, ...]:
        """Findings that follow from no other."""
        return tuple(finding for finding in self.findings if finding.follows is None)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "model": self.model,
            "healthy": self.healthy,
            "losses": plain(self.losses),
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """The findings as JSON; a number that is not finite is null."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        if self.healthy:
            return "\n".join([f"{self.model}: healthy, no finding", *[f"  {note}" for note in self.notes]])
        lines = [f"{self.model}: {_counted(self.findings)}"]
        for finding in self.findings:
            after = f" (follows from: {finding.follows})" if finding.follows else ""
            lines += ["", f"{finding.severity}: {finding.title}{after}"]
            rows = list(finding.rows())
            if finding.follows is None:
                rows += [("" if i else "cure", line) for i, line in enumerate(finding.cure.code.splitlines())]
            lines += [f"  {heading:<9} {text}" for heading, text in rows]
        return "\n".join([*lines, *[f"\n{note}" for note in self.notes]])

    def show(self, console: Any = None) -> None:
        """Print the report with colours (needs rich)."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.syntax import Syntax
        from rich.table import Table
        from rich.text import Text

        from kobai.core.terminal import Terminal

        console = console or Terminal()
        healthy = ("healthy", "bold green"), ", no finding"
        console.print(
            Text.assemble((f"{self.model}: ", "bold"), *(healthy if self.healthy else [_counted(self.findings)]))
        )
        for finding in self.findings:
            table = Table.grid(padding=(0, 2))
            table.add_column(style="dim", no_wrap=True)
            table.add_column()
            for heading, text in finding.rows():
                table.add_row(heading, Text(text))
            parts: list[Any] = [table]
            if finding.follows:
                table.add_row("cure", Text(f"that of the cause: {finding.follows}"))
            else:
                parts.append(Syntax(finding.cure.code, "python", background_color="default", word_wrap=True))
            colour = SEVERITIES[finding.severity]
            title = Text.assemble((finding.severity, f"bold {colour}"), "  ", (finding.title, "bold"))
            console.print(Panel(Group(*parts), title=title, title_align="left", border_style=colour))
        for note in self.notes:
            console.print(Text(note, style="dim"))


def _counted(findings: tuple[Finding, ...]) -> str:
    counts = [(sum(f.severity == severity for f in findings), severity) for severity in SEVERITIES]
    return ", ".join(f"{n} {severity}{'s' * (n > 1)}" for n, severity in counts if n)
