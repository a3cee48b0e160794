"""What a diagnosis says: diseases, findings with evidence, cause and cure; as text, on a terminal, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.plain import plain
from kobai.lab.probe.readings import Reading
from kobai.optim import Optimizer

SEVERITIES = {"error": "red", "warning": "yellow", "note": "cyan"}
"""Severities, the worst first, and their colours on a terminal."""

BETTER, WORSE, FAR_BETTER = 0.1, 0.05, 0.5
"""A cure must lower the loss by BETTER of its size, and not raise that of samples held out by WORSE of it; or lower the latter
by FAR_BETTER, whatever the copies have learnt by heart."""
NOTHING = 0.01
"""A gain in training that is less than this part of the loss of samples held out is none."""


def better(loss: float, other: float, by: float = BETTER) -> bool:
    """Whether a loss is below another by more than luck: by a part of its size. A loss that is not finite never is.

    >>> better(0.8, 1.0), better(0.99, 1.0), better(-2.0, -1.0), better(3.0, math.inf), better(math.inf, math.inf)
    (True, False, True, True, False)
    """
    return math.isfinite(loss) and (not math.isfinite(other) or other - loss > by * abs(other))


@dataclass(frozen=True)
class Tried:
    """What a cure did to a copy: losses after ``steps`` steps without it and with it, also of samples held out, if any.

    ``beside``: the findings whose cures both copies have been given.
    """

    steps: int
    before: float
    after: float
    held_before: float | None = None
    held_after: float | None = None
    beside: tuple[str, ...] = ()

    @property
    def helped(self) -> bool:
        """Whether the loss is lower by more than luck, and that of samples held out not higher.

        >>> Tried(200, 2.0, 0.1).helped, Tried(200, 2.0, 0.1, 2.0, 2.5).helped, Tried(200, 0.1, 0.1, 2.0, 0.3).helped
        (True, False, True)
        >>> Tried(200, 0.7, 1.0, 6.3, 1.1).helped, Tried(200, 0.7, 1.0, 1.3, 1.1).helped
        (True, False)

        Where both copies know their samples by heart, a training loss that is still lower is no help:

        >>> Tried(200, 2e-4, 1e-4, 0.80, 0.83).helped, Tried(200, 2e-4, 1e-4, 0.80, 0.60).helped
        (False, True)
        """
        if self.held_before is None or self.held_after is None:
            return better(self.after, self.before)
        worse = better(self.held_before, self.held_after, WORSE)
        by_heart = self.before - self.after < NOTHING * abs(self.held_before)
        return (
            (better(self.after, self.before) and not worse and not by_heart)
            or (better(self.held_after, self.held_before) and not better(self.before, self.after, WORSE))
            or better(self.held_after, self.held_before, FAR_BETTER)
        )

    def __str__(self) -> str:
        text = f"after {self.steps} steps the loss of a copy is {self.after:.3g} with the cure, {self.before:.3g} without it"
        if self.held_after is not None and self.held_before is not None:
            text += f"; of samples held out {self.held_after:.3g} and {self.held_before:.3g}"
        return text + (f"; both with that against {' and '.join(self.beside)}" if self.beside else "")


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
        severity: ``"error"`` (the net will not train), ``"warning"`` (it trains worse than it could) or ``"note"`` (found, but
            not at fault, as far as a trial can tell).
        where: names of the layers, as ``model.named_modules()`` has them.
        evidence, cause, cure: numbers against thresholds; one sentence; code, which :func:`treat` can apply.
        follows: the disease that this one is a consequence of, and should go away with; None for a root.
        tried: what the cure did to a copy, if it was tried.
    """

    disease: str
    title: str
    severity: str
    where: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    cause: str
    cure: Cure
    follows: str | None = None
    tried: Tried | None = None

    @property
    def sure(self) -> str:
        """How sure the finding is, in words."""
        if self.tried is None:
            return "seen in the numbers above; " + (
                "the cure was not tried" if self.cure.applicable else "the cure needs you"
            )
        if self.tried.helped:
            return f"shown: {self.tried}"
        return f"found, but changing it did not help: {self.tried}"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "disease": self.disease,
            "title": self.title,
            "severity": self.severity,
            "where": list(self.where),
            "evidence": [
                {"what": e.what, "value": plain(e.value), "threshold": float(e.threshold), "above": e.above}
                for e in self.evidence
            ],
            "cause": self.cause,
            "cure": self.cure.code,
            "follows": self.follows,
            "tried": None
            if self.tried is None
            else {key: value if key == "beside" else plain(value) for key, value in vars(self.tried).items()}
            | {"helped": self.tried.helped},
        }

    def rows(self) -> Iterator[tuple[str, str]]:
        """The lines of a report before the cure: (heading, text)."""
        if self.where:
            yield "where", self.place
        for i, evidence in enumerate(self.evidence):
            yield "evidence" if i == 0 else "", str(evidence)
        yield "cause", self.cause
        if self.follows is None:
            yield "how sure", self.sure

    @property
    def heading(self) -> str:
        """What the code is: a cure, unless it was tried in vain."""
        return "cure" if self.tried is None or self.tried.helped else "tried"

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
        certain: whether it is shown by an experiment or a proof, which a trial in which its cure does not help
            cannot refute.
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
    certain: bool = False
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
    data: tuple[Any, ...] = ()
    """Batches for trials; without any the one batch serves."""
    validation: tuple[Any, ...] = ()
    """Batches of validation samples, to compare with those."""


@dataclass(frozen=True)
class Diagnosis:
    """What :func:`diagnose` found. ``findings`` come in order of causes; those with ``follows`` need no cure of their own.

    ``losses`` are those of the training steps, ``reading`` is what the probes saw in the first; ``examined`` says what was
    looked at and is right.
    """

    findings: tuple[Finding, ...]
    losses: tuple[float, ...]
    reading: Reading
    model: str
    notes: tuple[str, ...] = ()
    case: Case | None = field(default=None, repr=False, compare=False)
    examined: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether there is no error and no warning."""
        return all(finding.severity == "note" for finding in self.findings)

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
            "examined": list(self.examined),
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """The findings as JSON; a number that is not finite is null."""
        return json.dumps(self.to_dict(), indent=2)

    @property
    def verdict(self) -> str:
        """The headline: how many findings of which severity there are."""
        return f"healthy, {_counted(self.findings) or 'no finding'}" if self.healthy else _counted(self.findings)

    def __str__(self) -> str:
        lines = [f"{self.model}: {self.verdict}"]
        for finding in self.findings:
            after = f" (follows from: {finding.follows})" if finding.follows else ""
            lines += ["", f"{finding.severity}: {finding.title}{after}"]
            rows = list(finding.rows())
            if finding.follows is None:
                rows += [("" if i else finding.heading, line) for i, line in enumerate(finding.cure.code.splitlines())]
            lines += [f"  {heading:<9} {text}" for heading, text in rows]
        if self.examined:
            lines += ["", "examined and found right:", *[f"  {what}" for what in self.examined]]
        return "\n".join([*lines, *[f"\n{note}" for note in self.notes]])

    def _repr_html_(self) -> str:
        from kobai.lab.notebook import diagnosis

        return diagnosis(self)

    def show(self, console: Any = None) -> None:
        """Print the report with colours (needs rich)."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.syntax import Syntax
        from rich.table import Table
        from rich.text import Text

        from kobai.core.terminal import Terminal

        console = console or Terminal()
        style = "bold green" if self.healthy else ""
        console.print(Text.assemble((f"{self.model}: ", "bold"), (self.verdict, style)))
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
                table.add_row(finding.heading, "")
                parts.append(Syntax(finding.cure.code, "python", background_color="default", word_wrap=True))
            colour = SEVERITIES[finding.severity]
            title = Text.assemble((finding.severity, f"bold {colour}"), "  ", (finding.title, "bold"))
            console.print(Panel(Group(*parts), title=title, title_align="left", border_style=colour))
        if self.examined:
            # The list is an answer where there is no other, and hides one that there is.
            sick = any(finding.severity == "error" for finding in self.findings)
            listed = f"{len(self.examined)} points (--json lists them)" if sick else "; ".join(self.examined)
            console.print(Text(f"examined and found right: {listed}", style="dim"))
        for note in self.notes:
            console.print(Text(note, style="dim"))


def _counted(findings: tuple[Finding, ...]) -> str:
    counts = [(sum(f.severity == severity for f in findings), severity) for severity in SEVERITIES]
    return ", ".join(f"{n} {severity}{'s' * (n > 1)}" for n, severity in counts if n)
