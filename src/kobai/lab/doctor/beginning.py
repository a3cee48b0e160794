"""What ``diagnose`` says of a net as it was when its training began, found piece by piece while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kobai.core.tensor import Tensor
from kobai.lab.doctor.budget import Budget, Postponed
from kobai.lab.doctor.diagnosis import observe
from kobai.lab.doctor.diseases import EXAMINATIONS, both, ledger, trials
from kobai.lab.doctor.findings import Case, Finding
from kobai.lab.doctor.judging import Round, ordered, tried
from kobai.lab.doctor.rules.optimisers import uphill
from kobai.lab.doctor.trials import Trials, copy_of, undisturbed

if TYPE_CHECKING:
    from kobai.train.trainer import Trainer

LARGE = 1 << 28
"""Bytes of parameters beyond which no copies are made: the memory may be needed."""

PIECE, STEPS = 0.1, 3
"""Seconds that an examination may take which no one has made yet; steps that the copy is observed for."""

ON_COPIES = tuple(
    examination
    for examination in EXAMINATIONS
    if examination.needs in (ledger, trials, both) or examination.rule is uphill
)
"""What copies alone show."""


class Beginning:
    """A copy of model and optimiser, made before the first step.

    Attributes:
        failed: why nothing more can be found, if so.
        findings: what was found, when all is done.
    """

    def __init__(self, trainer: Trainer, budget: Budget) -> None:
        self.failed: str | None = None
        self.findings: tuple[Finding, ...] = ()
        self.done = False
        self._budget = budget
        self._round: Round | None = None
        self._case: Case | None = None
        self._copy: Any = None
        if sum(parameter.nbytes for parameter in trainer.model.parameters()) > LARGE:
            self._fail(f"more than {LARGE >> 20} MiB of parameters are not copied in training")
            return
        try:
            self._copy = copy_of(trainer.model, trainer.optimizer)
            self._copy[0].train()  # as the Trainer does
        except ValueError as error:
            self._fail(str(error))

    def open(self, trainer: Trainer, samples: Sequence[Any]) -> None:
        """There are samples now; what is done with the copy is done with these."""
        if self._copy is None or self._case is not None:
            return
        (model, optimizer), (batch, *_) = self._copy, samples
        if not all(isinstance(part, Tensor) and part.ndim and len(part) > 1 for part in batch):
            self._fail("copies are trained on batches of tensors, of two samples or more")
            return
        how = trainer.clip_grad_norm, STEPS, trainer.precision, tuple(samples)
        self._case = Case(model, batch, trainer.loss_fn, optimizer, *how)

    @property
    def unexamined(self) -> list[str]:
        """What is still to be looked at, of what only copies show."""
        due = ON_COPIES if self._round is None else [e for e in ON_COPIES if e in self._round.due]
        return [] if self.done else [examination.right for examination in due]

    def go_on(self) -> bool:
        """Do as much as there is time for; whether all is done now."""
        budget = self._budget
        while self._case is not None and not self.done and budget.affords(PIECE):
            try:
                with undisturbed():
                    self._piece(self._case)
            except Postponed:
                return False
            except Exception as error:  # what hinders an examination must not end a training
                self._fail(str(error))
            budget.lap()
        return self.done and self.failed is None

    def _piece(self, case: Case) -> None:
        if self._round is None:
            if not self._affords(10 * STEPS):
                raise Postponed
            self._round = Round(observe(case, Trials(case, affords=self._affords)))
        elif self._round.due:
            self._round.step()
        else:
            self.findings, self.done = tried(ordered(self._round.found), self._round.view), True
            self._copy = None

    def _affords(self, steps: int) -> bool:
        return self._budget.affords(PIECE + steps * self._budget.pace)

    def _fail(self, why: str) -> None:
        self.failed, self._copy, self._case = why, None, None
