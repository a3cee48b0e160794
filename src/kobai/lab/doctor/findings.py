"""What a diagnosis says: findings with evidence, cause and cure, in order of causes; as text, on a terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.plain import plain
from kobai.lab.probe.probes import Reading
from kobai.optim import Optimizer

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Evidence:
    """One number against the threshold that makes it a finding."""

    what: str
    value: float
    threshold: float
    above: bool
    """Whether it is too large; else too small."""
    share: bool = False
    """Whether it is a share, which people read in per cent."""

    def __str__(self) -> str:
        for digits in range(3, 8):  # two numbers that differ are not written alike
            value, limit = (
                f"{number:.{digits - 3}%}" if self.share else f"{number:.{digits}g}"
                for number in (self.value, self.threshold)
            )
            if value != limit:
                break
        return f"{self.what}: {value} (should be {'at most' if self.above else 'at least'} {limit})"


@dataclass(frozen=True)
class Finding:
    """One disease in one net.

    Attributes:
        disease: its name in :data:`kobai.lab.doctor.diseases.DISEASES`; ``title`` for people.
        severity: ``"error"`` (it will not train so), ``"warning"`` (it trains worse than it could), ``"note"``.
        where: names of the layers, as ``model.named_modules()`` has them.
        evidence, cause, cure: numbers against thresholds; one sentence; code, which :func:`treat` can apply.
        follows: the disease of which this one is a consequence, and with which it should go away; None for a root.
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
        """As JSON holds it."""
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

    @property
    def place(self) -> str:
        """The layers, shortened: the first three, and how many more."""
        names = [name or "(the model)" for name in self.where]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@dataclass(frozen=True)
class Case:
    """What was diagnosed: the user's own objects, of which copies are examined and treated."""

    model: nn.Module
    batch: tuple[Any, ...]
    loss_fn: Callable[[Any, Any], Tensor]
    optimizer: Optimizer | None
    clip_grad_norm: float | None
    steps: int


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found. ``findings`` come in order of causes, and only one without ``follows`` needs its cure.

    ``losses`` are those of the steps that were run, ``reading`` what the probes saw in the first of them.
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
        """As JSON holds it."""
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
            lines += [f"  where     {finding.place}"] if finding.where else []
            lines += [f"  {'evidence' if i == 0 else '':<9} {evidence}" for i, evidence in enumerate(finding.evidence)]
            lines.append(f"  cause     {finding.cause}")
            if finding.follows is None:
                lines += [
                    f"  {'cure' if i == 0 else '':<9} {line}" for i, line in enumerate(finding.cure.code.splitlines())
                ]
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
        if self.healthy:
            console.print(Text.assemble((f"{self.model}: ", "bold"), ("healthy", "bold green"), ", no finding"))
        else:
            console.print(Text.assemble((f"{self.model}: ", "bold"), _counted(self.findings)))
        colours = {"error": "red", "warning": "yellow", "note": "cyan"}
        for finding in self.findings:
            table = Table.grid(padding=(0, 2))
            table.add_column(style="dim", no_wrap=True)
            table.add_column()
            if finding.where:
                table.add_row("where", Text(finding.place))
            for i, evidence in enumerate(finding.evidence):
                table.add_row("evidence" if i == 0 else "", Text(str(evidence)))
            table.add_row("cause", Text(finding.cause))
            parts: list[Any] = [table]
            if finding.follows:
                table.add_row("cure", Text(f"that of the cause: {finding.follows}"))
            else:
                parts.append(Syntax(finding.cure.code, "python", background_color="default", word_wrap=True))
            colour = colours[finding.severity]
            title = Text.assemble((finding.severity, f"bold {colour}"), "  ", (finding.title, "bold"))
            console.print(Panel(Group(*parts), title=title, title_align="left", border_style=colour))
        for note in self.notes:
            console.print(Text(note, style="dim"))


def _counted(findings: tuple[Finding, ...]) -> str:
    counts = [(sum(f.severity == severity for f in findings), severity) for severity in SEVERITIES]
    return ", ".join(f"{n} {severity}{'s' * (n > 1)}" for n, severity in counts if n)
