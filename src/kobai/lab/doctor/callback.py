"""``Doctor``: a Trainer's callback that examines a step now and then and says what is wrong while there is time to fix it."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kobai.lab.doctor.beginning import Beginning
from kobai.lab.doctor.budget import LEAST, Budget
from kobai.lab.doctor.course import Course, stopped
from kobai.lab.doctor.diseases import DISEASES, ENDS, EXAMINATIONS, MODES
from kobai.lab.doctor.findings import Finding
from kobai.lab.doctor.judging import Round, ordered, tempered
from kobai.lab.doctor.rules.course import falls
from kobai.lab.doctor.rules.epochs import FALLS_BACK, SPOILT_BY_STEPS
from kobai.lab.doctor.rules.numbers import NON_FINITE
from kobai.lab.doctor.rules.units import twins
from kobai.lab.doctor.rules.updates import PATIENCE
from kobai.lab.doctor.rules.view import View, stages
from kobai.lab.probe.probes import Probe
from kobai.lab.probe.readings import Reading
from kobai.train.callbacks import Callback
from kobai.train.nonfinite import NonFiniteError
from kobai.train.step import left_out, scale_of
from kobai.xp import to_host

if TYPE_CHECKING:
    from kobai.train.trainer import Trainer

log = logging.getLogger("kobai")


@dataclass(frozen=True)
class Visit:
    """A finding, and the epoch and batch it was made in, both counted from 1."""

    epoch: int
    batch: int
    finding: Finding

    def __str__(self) -> str:
        finding = self.finding
        where = f" in {finding.place}" if finding.where else ""
        evidence = "; ".join(map(str, finding.evidence))
        cure = finding.cure.code.replace("\n", "\n    ")
        return (
            f"doctor: epoch {self.epoch}, batch {self.batch}: {finding.title}{where} ({evidence}). {finding.cause}\n"
            f"  cure:\n    {cure}"
        )


@dataclass(frozen=True)
class _Suspicion:
    """A finding that the loss may yet refute; ``since``: the first of the noted steps whose losses count."""

    visit: Visit
    root: bool
    learnt: bool
    since: int


@dataclass
class _Work:
    """Examinations that are being made, and since which epoch and batch."""

    round: Round
    epoch: int
    batch: int


DEAR = (*ENDS, *MODES)
"""What runs the net, and is made at a step if there is time."""

USUAL, REST = 100, 20
"""Steps between two looks, at least, unless the user says how many; and steps in which nothing is asked."""

TOLD = ("no-better-than-guessing",)
"""Diseases that a training shows by itself."""


class Doctor(Callback):
    """Warn of each disease once during training, with epoch, layer and cure.

    The examinations are those of :func:`diagnose`. The first step, and later ones, are looked at under a :class:`Probe`. A
    single step does not show whether the net learns despite what its layers look like. So faults of the data are reported at
    once, and all else when the loss of the next 30 steps is known, or training ends. If that loss falls, no learning rate is
    called too large and no finding an error. After each epoch its losses are looked at, in training and validation:
    overfitting, a loss that is lost again, a schedule that has ended, validation data that are not like the training data.
    What only trials show (who is trained, samples that are mixed, what the net can learn, ...) is found on copies of the net as
    it was when training began, piece by piece. Consequences of other findings are kept in ``visits`` but not reported.

    All this takes ``share`` of the processor time of the training at most (and 10 ms of a very short
    one). What does not fit is put off, and what has been put off at the end is in ``unexamined``, and in
    ``str(doctor)``; :func:`diagnose` makes all examinations.

    Args:
        every: steps between two looks at a step, whatever they take; by default 100, or more, as there is time.
        say: called with each message; by default the logger ``kobai`` warns.
        share: part of the processor time of the training that examinations may take; ``math.inf``: no limit.

    ``visits`` lists what was found, with epoch and batch.

    >>> import kobai
    >>> from kobai import nn
    >>> _ = kobai.manual_seed(0)
    >>> layers = [part for _ in range(5) for part in (nn.Linear(10, 10, init="normal(0.01)"), nn.ReLU())]
    >>> model = nn.Sequential(*layers, nn.Linear(10, 2))
    >>> doctor = kobai.lab.Doctor(say=lambda message: print(message.splitlines()[0][:60]))
    >>> trainer = kobai.train.Trainer(model, kobai.optim.SGD(model.parameters(), lr=0.1), callbacks=[doctor])
    >>> _ = trainer.fit([(kobai.randn(64, 10), kobai.arange(64) % 2)], epochs=2)
    doctor: epoch 1, batch 1: collapsed activations in 3, 5, 7 a
    """

    def __init__(
        self, every: int | None = None, say: Callable[[str], None] = log.warning, *, share: float = 0.07
    ) -> None:
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise ValueError(f"Doctor: expected every as an integer >= 1, got {every!r}")
        if not share > 0:
            raise ValueError(f"Doctor: expected share > 0, got {share!r}")
        self.every, self.say = every, say
        self.visits: list[Visit] = []
        self._told: set[str] = set()
        self._steps = self._next = self._wake = self._since = 0
        self._probe: Probe | None = None
        self._held: list[_Suspicion] = []
        # After each step: the sum of the epoch's losses, of how many samples, and whether it is the epoch's first step.
        self._sums: list[tuple[Any, Any, bool]] = []
        self._apart = False  # no units were twins at the last look, and none become twins later
        self._made: set[str] = set()
        self._scale = 1.0  # of the loss in the observed step
        self._course = Course()
        self._first: Reading | None = None
        self._reading: Reading | None = None
        self._batch = 0  # of the epoch, before the Trainer begins to count anew
        self._budget = Budget(share, self._clock)
        self._looks: _Work | None = None
        self._takes = 0.0  # the last look, in seconds, with what was spent before it in _before
        self._before: float | None = 0.0
        self._beginning: Beginning | None = None
        self._batches = 0  # of an epoch, if known

    _clock = staticmethod(time.process_time)
    """What the processor time is read from."""

    once = True

    def on_fit_start(self, trainer: Trainer) -> None:
        probe, budget = self._probe, self._budget
        budget.begin()
        with budget.examining():
            if probe is None or probe.model is not trainer.model or probe.optimizer is not trainer.optimizer:
                self._beginning = Beginning(trainer, budget)
                self._probe = probe = Probe(trainer.model, trainer.optimizer, self.every or USUAL)
                self._apart = False
                self._made.clear()
            data: Any = trainer.train_data
            try:
                self._batches = len(data)
            except TypeError:  # an iterator does not know how many it gives
                self._batches = 0
            if self._steps >= self._next:
                probe.attach()
                self._scale = scale_of(trainer.scaler)
        self._since = self._wake = self._steps

    def on_batch_end(self, trainer: Trainer) -> None:
        self._steps += 1
        self._batch = trainer.position
        if self._steps >= self._wake:
            self._visit(trainer)

    def _visit(self, trainer: Trainer) -> None:
        """After a step that was looked at, or when something may be due."""
        probe, budget = self._probe, self._budget
        assert probe is not None
        planned = trainer.epochs * self._batches
        more = max(0, planned - trainer.epoch * self._batches - trainer.position)
        budget.steps(max(1, self._steps - self._since), probe.attached, more)
        if not budget.asks and not probe.attached and self._before is not None:
            self._takes, self._before = budget.spent - self._before, None  # a look, and the step that was looked at
        with budget.examining():
            keeps = not trainer.history and not self._course.full
            if keeps:
                self._course.keep(trainer)
            if self._held:
                self._note(trainer)
            if probe.attached and not left_out(self._scale, scale_of(trainer.scaler)):
                probe.detach()
                self._next = self._steps - 1 + (self.every or USUAL)
                self._look(trainer, probe)
            if self._held:
                self._settle(PATIENCE)
            self._work(trainer)
            if self._steps >= self._next and (self.every is not None or budget.left(LEAST) > self._takes):
                probe.attach()
                self._before = budget.spent
            if probe.attached:
                self._scale = scale_of(trainer.scaler)
        each = keeps or self._held or probe.attached or budget.asks
        self._since, self._wake = self._steps, self._steps + (1 if each else REST)
        if self.every is not None:
            self._wake = max(self._steps + 1, min(self._wake, self._next))

    def on_epoch_end(self, trainer: Trainer) -> None:
        with self._budget.examining():
            if not self._course.samples and trainer.batch is not None:  # of a run that was resumed
                self._course.keep(trainer)
            made = self._course.round(trainer, self._reading)
            if made is not None:
                self._examine(trainer, _Work(made, trainer.epoch, self._batch), self._told)
            self._work(trainer)
        if self._held:
            self._wake = self._steps + 1
        self._since = self._steps

    def _work(self, trainer: Trainer) -> None:
        """Make examinations for which there is time."""
        if self._looks is not None and self._looks.round.due:
            self._examine(trainer, self._looks)
        if self._beginning is not None and self._course.samples:
            if self._course.full or trainer.history:
                self._beginning.open(trainer, self._course.samples)
            if self._beginning.go_on():
                found = [f for f in self._beginning.findings if f.severity != "note" and f.disease not in TOLD]
                self._hear(trainer, found, trainer.epoch + 1, self._batch, self._told)
                self._beginning = None

    def _examine(self, trainer: Trainer, work: _Work, known: set[str] | None = None) -> None:
        """Make all that is cheap, and of a look what is dear if there is time; ``known``: after an epoch, what was told."""
        made, before = work.round, len(work.round.found)
        while made.due and (known is not None or made.due[0] not in DEAR or self._budget.left(LEAST) > 0):
            self._made.add(made.due[0].right)
            made.step()
            self._budget.lap()
        if len(made.found) > before:
            found = ordered(made.found)
            # A disease that was reported and is still there may have consequences that look like causes.
            known = self._told & {finding.disease for finding in found} if known is None else known
            self._hear(trainer, found, work.epoch, work.batch, known, made.view.learnt)

    @property
    def unexamined(self) -> tuple[str, ...]:
        """What there was no time to look at, or why copies could not be made."""
        left = self._looks.round.due if self._looks is not None else []
        due = [examination.right for examination in left if examination.right not in self._made]
        if self._beginning is not None:
            why = self._beginning.failed
            due += [f"{right}{f' ({why})' if why else ''}" for right in self._beginning.unexamined]
        return tuple(dict.fromkeys(due))

    def __str__(self) -> str:
        lines = [str(visit) for visit in self.visits if visit.finding.follows is None] or ["doctor: nothing found"]
        if self.unexamined:
            lines.append("not examined, for lack of time; kobai.lab.diagnose() makes these examinations:")
            lines += [f"  whether {what}" for what in self.unexamined]
        return "\n".join(lines)

    def on_close(self, trainer: Trainer) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, NonFiniteError) and all(visit.finding.disease != NON_FINITE.name for visit in self.visits):
            self._tell(Visit(trainer.epoch + 1, trainer.position + 1, stopped(error, trainer)), root=True)
        self._settle(0)
        if self._probe is not None:
            self._probe.detach()
        if self.unexamined:
            log.info("doctor: not examined, for lack of time: whether %s", "; whether ".join(self.unexamined))

    def state_dict(self) -> dict[str, Any]:
        held = {suspicion.visit.finding.disease for suspicion in self._held}
        return {"told": sorted(self._told - held), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._told, self._steps = set(state["told"]), state["steps"]
        self._next = -(-self._steps // (self.every or USUAL)) * (self.every or USUAL)

    def _look(self, trainer: Trainer, probe: Probe) -> None:
        reading = probe.read()
        if reading is None or not reading.layers or reading.layers[0].output.samples < 2:
            return
        self._reading = reading
        if self._steps == 1:
            self._first = reading
        inputs, target = trainer.unpack(trainer.batch)
        alike = {} if self._apart else twins(trainer.model, stages(reading, trainer.model))
        self._apart = self._apart or (bool(alike) and not any(alike.values()))
        view = View(
            trainer.model,
            [reading],
            inputs,
            target,
            trainer.loss_fn,
            [trainer.loss.compute()],
            twins=alike,
            optimizer=trainer.optimizer,
            clipped=trainer.clip_grad_norm is not None,
            scale=self._scale,
            first=self._first if self._steps > 1 else None,
            live=True,
            # A small rate is a fault at the beginning; later a schedule may mean it.
            settling=trainer.epoch > 0 or trainer.scheduler is not None,
        )
        cheap = [examination for examination in EXAMINATIONS if examination not in DEAR]
        dear = [examination for examination in DEAR if examination in MODES or examination.right not in self._made]
        self._looks = _Work(Round(view, [*cheap, *dear]), trainer.epoch + 1, trainer.position)
        self._examine(trainer, self._looks)

    def _hear(
        self,
        trainer: Trainer,
        findings: Iterable[Finding],
        epoch: int,
        batch: int,
        known: Iterable[str],
        learnt: bool = False,
    ) -> None:
        """Tell what is new and certain; wait with the rest until it is seen whether the loss falls."""
        before = set(known)
        for finding in findings:
            if finding.disease in self._told:
                continue
            self._told.add(finding.disease)
            visit = Visit(epoch, batch, finding)
            related = any(
                finding.disease in DISEASES[name].follows or name in DISEASES[finding.disease].follows
                for name in before
            )
            root = finding.follows is None and not related
            if DISEASES[finding.disease].fact:
                self._tell(visit, root)
                continue
            if not self._sums:
                self._note(trainer)
            self._held.append(_Suspicion(visit, root, learnt, len(self._sums) - 1))

    def _explain(self, cause: str) -> None:
        """What was seen of layers and steps before its cause was known is a consequence."""
        for i, visit in enumerate(self.visits):
            if visit.finding.follows is None and cause in DISEASES[visit.finding.disease].follows:
                self.visits[i] = replace(visit, finding=replace(visit.finding, follows=cause))

    def _tell(self, visit: Visit, root: bool) -> None:
        self.visits.append(visit)
        if visit.finding.disease in (FALLS_BACK.name, SPOILT_BY_STEPS.name):
            self._explain(visit.finding.disease)
        self.visits.sort(key=lambda visit: (visit.epoch, visit.batch))
        if root:
            self.say(str(visit))

    def _note(self, trainer: Trainer) -> None:
        """Keep the sum of the losses so far, on its device: a metric does not add in place."""
        self._sums.append((trainer.loss.total, trainer.loss.count, trainer.position == 1))

    def _settle(self, patience: int) -> None:
        """Report what has been watched for ``patience`` steps, unless the loss has refuted it."""
        due = [suspicion for suspicion in self._held if len(self._sums) - 1 - suspicion.since >= patience]
        if not due:
            return
        self._held = [suspicion for suspicion in self._held if suspicion not in due]
        losses = self._losses()
        for suspicion in due:
            visit, seen = suspicion.visit, losses[suspicion.since :]
            # Where the net has learnt already, the loss need not fall any further.
            well = falls(seen) or (suspicion.learnt and not falls(seen[::-1]))
            finding = tempered(visit.finding) if well else visit.finding
            if finding is None:
                self._told.discard(visit.finding.disease)  # a later look may find it again
            else:
                self._tell(replace(visit, finding=finding), suspicion.root)
        if not self._held:
            self._sums = []

    def _losses(self) -> list[float]:
        """Mean loss of each noted step; for the first, the mean over its epoch so far."""
        losses, before, samples = [], 0.0, 0.0
        for total, count, first in self._sums:
            now, seen = _number(total), _number(count)
            if first:  # the sums start over with each epoch
                before = samples = 0.0
            losses.append((now - before) / (seen - samples) if seen > samples else math.nan)
            before, samples = now, seen
        return losses


def _number(value: Any) -> float:
    """The value of a number, or of an array of one element on any device."""
    return float(value) if isinstance(value, (int, float)) else float(to_host(value).reshape(-1)[0])
