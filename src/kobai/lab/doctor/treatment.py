"""``treat``: apply the cures of a diagnosis to a copy, and train the sick and the cured net side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.errors import DataError
from kobai.lab.doctor.cures import Patient
from kobai.lab.doctor.diagnosis import diagnose, diagnosed
from kobai.lab.doctor.findings import Case, Diagnosis, Finding, better
from kobai.lab.doctor.judging import ordered
from kobai.lab.doctor.rules.course import outcome
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import Trials, copied, end_of, train, undisturbed
from kobai.lab.plain import plain
from kobai.nn import functional as F
from kobai.optim import Optimizer
from kobai.random import manual_seed
from kobai.train.batches import device_of, moved

ROUNDS = 4
"""Cures at most: one may uncover another disease, as larger weights do the small slope of a sigmoid."""


@dataclass(frozen=True)
class Treatment:
    """What :func:`treat` did.

    Attributes:
        model, optimizer, clip_grad_norm, loss_fn: the cured net after its training steps, and what it is trained with.
        cured: findings whose cures were applied, in order, and made the copy better.
        failed: findings whose cures were tried after these and did not lower the loss, with the loss at the end of each.
        before, after: losses of the sick and of the cured net, step by step.
        diagnosis: of the sick net.
        left: diagnosis of the cured net before its training, and what that showed: an infinite loss, or one no better than
            guessing, is a finding too.
    """

    model: nn.Module
    optimizer: Optimizer
    clip_grad_norm: float | None
    cured: tuple[Finding, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    diagnosis: Diagnosis = field(repr=False)
    left: Diagnosis = field(repr=False)
    failed: tuple[tuple[Finding, float], ...] = ()
    loss_fn: Callable[[Any, Any], Tensor] = field(default=F.cross_entropy, repr=False)

    @property
    def loss_before(self) -> float:
        """Mean loss of the sick net's last tenth of steps; infinite if it is not a number."""
        return end_of(self.before)

    @property
    def loss_after(self) -> float:
        """Mean loss of the cured net's last tenth of steps; infinite if it is not a number."""
        return end_of(self.after)

    @property
    def helped(self) -> bool:
        """Whether the cured net has a loss that is lower by more than a tenth; by its own loss function, if that was cured."""
        return bool(self.cured)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "cured": [finding.to_dict() for finding in self.cured],
            "failed": [finding.to_dict() | {"loss_after": plain(loss)} for finding, loss in self.failed],
            "steps": len(self.after),
            "loss_before": plain(self.loss_before),
            "loss_after": plain(self.loss_after),
            "helped": self.helped,
            "losses_before": plain(self.before),
            "losses_after": plain(self.after),
            "left": self.left.to_dict(),
        }

    def _repr_html_(self) -> str:
        from kobai.lab.notebook import treatment

        return treatment(self)

    def __str__(self) -> str:
        lines = []
        for i, finding in enumerate(self.cured):
            lines.append(f"cure {i + 1}, against {finding.title}:")
            lines += [f"  {line}" for line in finding.cure.code.splitlines()]
        if self.cured:
            lines.append(f"{'':<11}{'first loss':>12}{'after ' + str(len(self.after)) + ' steps':>18}")
            lines.append(f"{'before':<11}{self.before[0]:>12.4g}{self.loss_before:>18.4g}")
            lines.append(f"{'after':<11}{self.after[0]:>12.4g}{self.loss_after:>18.4g}")
        for finding, loss in self.failed:
            lines.append(
                f"no cure: the one against {finding.title} was tried; the loss after {len(self.after)} steps was {loss:.4g}, "
                f"and {self.loss_after:.4g} without it"
            )
        if not lines:
            lines.append(
                "nothing to cure" + ("" if self.left.healthy else ": what was found needs the reader, see its cure")
            )
        return "\n".join(lines)


def treat(
    patient: Diagnosis | nn.Module,
    batch: Any = None,
    loss_fn: Callable[[Any, Any], Tensor] = F.cross_entropy,
    optimizer: Optimizer | None = None,
    steps: int = 200,
    *,
    data: Iterable[Any] | None = None,
    seed: int = 0,
    clip_grad_norm: float | None = None,
    precision: str = "fp32",
) -> Treatment:
    """Cure what :func:`diagnose` finds, on a copy, and train both for ``steps`` steps from the same seed.

    The root of all findings is cured first, a copy is trained, and the net is diagnosed again, until no curable finding is
    left. What the training shows is part of the diagnosis: a loss that becomes infinite, or ends no better than one output for
    all samples would. A cure counts only if the copy trained with it, and with those before it, has a loss that is lower by
    more than a tenth. Warnings are treated if there is no error.

    Args:
        patient: a :class:`Diagnosis`, which knows its net, batch, loss function and optimizer; or a model, with the arguments
            of :func:`diagnose`, ``precision`` among them.
        data: batches ``(input, ..., target)`` to train on, over and over; by default the diagnosed batch.
        seed: for new weights and for both trainings.

    >>> import kobai
    >>> from kobai import nn
    >>> _ = kobai.manual_seed(0)
    >>> x = kobai.randn(64, 10)
    >>> t = (x[:, 0] > 0).long()
    >>> layers = [part for _ in range(4) for part in (nn.Linear(10, 10, init="normal(0.01)"), nn.ReLU())]
    >>> found = kobai.lab.diagnose(nn.Sequential(*layers, nn.Linear(10, 2)), (x, t))
    >>> treatment = kobai.lab.treat(found, steps=50)
    >>> [finding.disease for finding in treatment.cured], treatment.helped, treatment.left.healthy
    (['collapsed'], True, True)
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"treat: expected steps as an integer >= 1, got {steps!r}")
    if isinstance(patient, Diagnosis):
        diagnosis = patient
    elif isinstance(patient, nn.Module):
        if batch is None:
            raise TypeError("treat: a model needs a batch (input, ..., target) to be diagnosed on; or pass a Diagnosis")
        how: dict[str, Any] = {"clip_grad_norm": clip_grad_norm, "precision": precision}
        diagnosis = diagnose(patient, batch, loss_fn, optimizer, **how)
    else:
        raise TypeError(f"treat: expected a Diagnosis or a kobai.nn.Module, got {type(patient).__name__}")
    case = diagnosis.case
    if case is None:
        raise ValueError("treat: this diagnosis does not know its net: it was not made by diagnose()")
    batches = [case.batch] if data is None else list(data)
    if not batches:
        raise DataError("treat: the data gave no batch")
    with undisturbed():
        manual_seed(seed)
        courses = _courses(case, diagnosis, batches, steps, seed)
    kept = 0
    for i, course in enumerate(courses):
        kept = i if better(*_beside(course, courses[kept], case, batches)) else kept
    best = courses[kept]
    failed = tuple((course.cured[-1], end_of(course.losses)) for course in courses[kept + 1 :])
    model, rule, clip = best.patient.model, best.patient.optimizer, best.patient.clip_grad_norm
    loss = best.patient.loss_fn or case.loss_fn
    return Treatment(model, rule, clip, best.cured, courses[0].losses, best.losses, diagnosis, best.left, failed, loss)


@dataclass(frozen=True)
class _Course:
    """A copy with some cures after its training, and what was found before and by the training."""

    cured: tuple[Finding, ...]
    patient: Patient
    losses: tuple[float, ...]
    left: Diagnosis


def _due(finding: Finding, diagnosis: Diagnosis) -> bool:
    """Whether a finding that is no error is treated: a warning whose cure is known to help, or any beside no error."""
    if finding.severity == "note":
        return False
    helped = finding.tried is not None and finding.tried.helped
    return helped or all(root.severity != "error" or not root.cure.applicable for root in diagnosis.roots)


def _beside(course: _Course, other: _Course, case: Case, batches: list[Any]) -> tuple[float, float]:
    """The losses at the end of two courses; by the loss function of the first, if they were trained with two."""
    loss_fn = course.patient.loss_fn
    if loss_fn is other.patient.loss_fn:
        return end_of(course.losses), end_of(other.losses)
    trials, device = Trials(case), device_of(case.model)
    parts = [moved(batch, device) for batch in batches]
    first, second = (trials.loss(patient, parts, loss_fn) for patient in (course.patient, other.patient))
    assert first is not None
    assert second is not None
    return first, second


def _courses(case: Case, diagnosis: Diagnosis, batches: list[Any], steps: int, seed: int) -> list[_Course]:
    """Train the net as it is, and then with one more cure each time."""
    patient = Patient(*copied(case), case.clip_grad_norm)
    *inputs, target = case.batch
    targets = [moved(batch, device_of(case.model))[-1] for batch in batches]
    # The least loss of one output for all samples of the batches, if one is known.
    guess = min(View(case.model, [diagnosis.reading], inputs, target, case.loss_fn).guesses(targets), default=None)
    courses: list[_Course] = []
    cured: tuple[Finding, ...] = ()
    left = diagnosis
    while True:
        optimizer = patient.optimizer if case.optimizer is not None else None
        now = replace(case, model=patient.model, optimizer=patient.optimizer)
        trained = Patient(*copied(now), patient.clip_grad_norm, patient.loss_fn)
        with undisturbed():
            losses = train(trained, case, batches, steps, seed)
        seen = outcome(losses, end_of(losses), guess, batches, optimizer)
        if seen is not None and seen.disease not in [finding.disease for finding in left.findings]:
            left = replace(left, findings=ordered([*left.findings, seen]))
        courses.append(_Course(cured, trained, losses, left))
        known = [f for f in left.roots if f.cure.applicable and (f.severity == "error" or _due(f, diagnosis))]
        fresh = [f for f in known if (f.disease, f.cure.code) not in [(c.disease, c.cure.code) for c in cured]]
        if not fresh or len(cured) == ROUNDS:
            return courses
        fresh[0].cure.apply(patient)
        cured = (*cured, fresh[0])
        now = replace(now, model=patient.model, optimizer=optimizer, clip_grad_norm=patient.clip_grad_norm)
        left = diagnosed(replace(now, loss_fn=patient.loss_fn or case.loss_fn), Trials(now), cures=False)
