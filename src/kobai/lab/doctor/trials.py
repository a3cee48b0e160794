"""Trials: copies of the patient are trained side by side, each with one thing changed, so that its effect is seen."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from kobai import nn, ops
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.budget import Postponed
from kobai.lab.doctor.cures import Action, Patient
from kobai.lab.doctor.findings import Case, Finding, Tried
from kobai.optim import SGD, Adam, Optimizer
from kobai.random import default_generator, manual_seed
from kobai.train.batches import device_of
from kobai.train.step import computing
from kobai.train.trainer import Trainer
from kobai.xp import to_host

USUAL_RATE = 0.1
"""Learning rate of the gradient descent that stands in for a missing optimiser; it is not judged."""

STEPS, SECONDS, WAIT = 200, 1.5, 8.0
"""A trial ends after so many steps, or when the first of a diagnosis has taken so long; all others take as many steps, and
shorter ones the same part of theirs.

It is the processor time of the thread that counts, so that a busy machine changes no answer; but nobody waits for more than
WAIT times as long by the clock on the wall."""

LEAST = 20
"""Steps of a trial, however long they take."""

AWHILE = 60
"""Steps on the batch after which it shows whether a net learns, where there is no trial."""

EXAMINING, CURING = 4.5, 3.0
"""Seconds for the trials of examinations, and further ones for those of cures, after which no more is begun."""

LONGER, SLOW = 5, 0.9
"""A trial goes on for so many times as long, if the loss without the cure ends above this part of what it began with."""

Change: TypeAlias = tuple[str, Action | None]
"""What a copy's training is called, and what is changed before it."""

APART = 64
"""From so many samples on, every fourth is held out of a trial: a cure must not lower the loss by heart alone."""


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the random stream as it is, and silence warnings: sick nets overflow and broadcast, which is what we look for."""
    state = default_generator.get_state()
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        default_generator.set_state(state)


def copied(case: Case) -> tuple[nn.Module, Optimizer]:
    """Copies of model and optimiser, in training mode; plain gradient descent where no optimiser is given.

    In a model that is in training mode parts may have been left in evaluation mode, as they are in its training then.
    """
    model, optimizer = copy_of(case.model, case.optimizer)
    return model if model.training else model.train(), optimizer or SGD(list(model.parameters()), lr=USUAL_RATE)


@contextmanager
def evaluated(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode and without a tape; afterwards each part is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with no_grad():
            yield model.eval()
    finally:
        for module, was in modes:
            module.training = was


def leaves(roots: Iterable[Tensor]) -> list[Tensor]:
    """The leaves of the tape that want a gradient of any of these.

    >>> import kobai
    >>> a, b = kobai.ones(2, requires_grad=True), kobai.ones(2, requires_grad=True)
    >>> [leaf is a for leaf in leaves([(2 * a * b.detach()).sum()])]
    [True]
    """
    stack = [root._edge() for root in roots]
    found, seen = [], set()
    while stack:
        edge = stack.pop()
        if edge is None or id(edge) in seen:
            continue
        seen.add(id(edge))
        if isinstance(edge, Tensor):
            found.append(edge)
        else:
            stack.extend(edge.edges)
    return found


def copy_of(model: nn.Module, optimizer: Optimizer | None = None) -> tuple[nn.Module, Optimizer | None]:
    """Copies of a model and of the optimiser of its parameters."""
    # Tensors kept from the last pass, such as a weight-normed weight, are on a tape, with which they cannot be copied. One
    # that was made of no parameter of the model, such as nn.Parameter(…) * 0.01, wants a gradient that nobody uses.
    kept = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    own = set(map(id, model.parameters()))
    memo: dict[int, Any] = {
        id(tensor): tensor.detach().clone().requires_grad_(bool(made_of) and own.isdisjoint(made_of))
        for tensor in kept
        if not tensor.is_leaf
        for made_of in [set(map(id, leaves([tensor])))]
    }
    try:
        return copy.deepcopy((model, optimizer), memo)
    except Exception as error:
        raise ValueError(
            f"diagnose: {described(model)} cannot be copied, and is not touched itself: {error}"
        ) from error


def by_adam(rate: float, patient: Patient) -> None:
    """Train a patient by Adam, and without clipping."""
    patient.optimizer = Adam([p for p in patient.model.parameters() if p.requires_grad], lr=rate)
    patient.clip_grad_norm = None


def described(model: nn.Module) -> str:
    """The model in a few words."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(model).__name__} of {count:,} parameters"


def train(
    patient: Patient,
    case: Case,
    batches: Sequence[Any],
    steps: int,
    seed: int = 0,
    seconds: float = math.inf,
    look: Callable[[], None] | None = None,
    looks: int = 10,
) -> tuple[float, ...]:
    """Train a patient on the batches, over and over, for so many steps or seconds of this thread; the loss of each step.

    ``look`` is called so many times, ``looks``, on the way.
    """
    manual_seed(seed)
    loss_fn = patient.loss_fn or case.loss_fn
    *inputs, target = batches[0]
    with computing(case.precision, device_of(patient.model).type):
        output = patient.model(*inputs)
        try:
            loss = loss_fn(output, target)
        except ValueError:  # it refuses them: no loss is as high
            return (math.inf,) * steps
    if not loss.requires_grad:  # nothing is trained
        return (float(loss.item()),) * steps
    manual_seed(seed)
    trainer = Trainer(
        patient.model,
        patient.optimizer,
        loss_fn,
        clip_grad_norm=patient.clip_grad_norm,
        precision=case.precision,
        terminate_on_non_finite=False,
    )
    losses, begun, started = [], time.thread_time(), time.perf_counter()
    for step in range(steps):
        losses.append(trainer.train_step(batches[step % len(batches)]).detach())
        if look is not None and (step + 1) % max(1, steps // looks) == 0:
            look()
        if time.thread_time() - begun > seconds or time.perf_counter() - started > WAIT * seconds:
            break
    return tuple(map(float, ops.stack(losses).tolist()))


def end_of(losses: Sequence[float]) -> float:
    """Mean loss of the last tenth of steps; infinite if it is not a number."""
    last = losses[-max(1, len(losses) // 10) :]
    mean = sum(last) / len(last)
    return mean if math.isfinite(mean) else math.inf


@dataclass(frozen=True)
class Course:
    """A copy after its training: ``losses`` of its steps, and the least of the samples ``held`` out of it, in evaluation mode.

    The least, for a net that learns a few samples by heart does worse on others in the end, and is no worse a net for that.
    """

    patient: Patient
    losses: tuple[float, ...]
    held: float | None

    @property
    def end(self) -> float:
        """See :func:`end_of`."""
        return end_of(self.losses)


def awhile(case: Case, change: Action | None = None, batch: Any = None) -> Course:
    """A copy's training for AWHILE steps on its batch, or on another one, where there are no trials."""
    with undisturbed():
        patient = Patient(*copied(case), case.clip_grad_norm)
        if change is not None:
            change(patient)
        return Course(patient, train(patient, case, [case.batch if batch is None else batch], AWHILE), None)


class Trials:
    """Trainings of copies of one patient, each done once.

    Every copy starts from the same weights and the same seed and sees the same samples, so that what differs in the end is
    the work of what was changed. ``say`` is told what is being trained; ``affords`` is asked whether there is time for so
    many steps: if not, a training is :class:`Postponed`.
    """

    def __init__(
        self,
        case: Case,
        steps: int = STEPS,
        say: Callable[[str], None] | None = None,
        affords: Callable[[int], bool] = lambda steps: True,
        purse: float = math.inf,
    ) -> None:
        self.case, self.say, self.affords, self.purse = case, say, affords, purse
        self._steps, self._seconds, self._pace = steps, SECONDS, 1.0
        self._took = 0.0  # the first one, in seconds
        self._courses: dict[str, Course] = {}
        self.certain: list[Finding] = []
        """Errors that are certain, of those found so far."""
        self.fitted, self.held = _parted(case)

    def course(
        self,
        name: str = "as it is",
        change: Action | None = None,
        *,
        steps: int | None = None,
        batches: Sequence[Any] | None = None,
    ) -> Course:
        """A copy's training after ``change``, which ``name`` stands for; by default on all samples but those held out."""
        if name not in self._courses:
            limit = self._steps if steps is None else max(min(steps, LEAST), round(steps * self._pace))
            if not self.purse > 0 or not self.affords(limit):
                raise Postponed
            if self.say is not None:
                self.say(f"training a copy: {name}")
            begun = time.thread_time()
            with undisturbed():
                self._courses[name] = self._trained(change, limit, batches)
            took = time.thread_time() - begun
            self.purse -= took
            self._took = self._took or took
        return self._courses[name]

    def _trained(self, change: Action | None, limit: int, batches: Sequence[Any] | None) -> Course:
        patient = Patient(*copied(self.case), self.case.clip_grad_norm)
        if change is not None:
            manual_seed(0)  # for new weights
            change(patient)
        held: list[float] = []

        def look() -> None:
            loss = self.loss(patient, self.held)
            held.extend([] if loss is None else [loss])

        looks = max(1, min(10, limit // (2 * len(self.held) or 1)))  # which are to take less time than the steps
        losses = train(patient, self.case, batches or self.fitted, limit, seconds=self._seconds, look=look, looks=looks)
        if not self._courses and len(losses) > 1:  # the first one sets the pace
            paced = min(self._steps, max(len(losses), LEAST))
            self._steps, self._seconds, self._pace = paced, math.inf, paced / limit
        return Course(patient, losses, min(held) if held else self.loss(patient, self.held))

    def loss(self, patient: Patient, batches: Sequence[Any], loss_fn: Any = None) -> float | None:
        """Mean loss over batches in evaluation mode; infinite if it is not a number, None without batches."""
        if not batches:
            return None
        loss_fn = loss_fn or patient.loss_fn or self.case.loss_fn
        losses = []
        with evaluated(patient.model) as model, computing(self.case.precision, device_of(model).type):
            for *inputs, target in batches:
                output = model(*inputs)
                try:
                    losses.append(float(loss_fn(output, target).item()))
                except ValueError:  # as in train()
                    return math.inf
        mean = sum(losses) / len(losses)
        return mean if math.isfinite(mean) else math.inf

    def tried(self, finding: Finding, before: Sequence[Finding] = (), beside: Sequence[Finding] | None = None) -> Tried:
        """What the cure of a finding does on top of those before it, beside these alone; or ``beside`` others.

        If it helps a little, where the net hardly learns without it, both go on for LONGER times as many steps: a net that has
        to leave a plateau shows late whether it does.
        """
        sick, cured = _together(before if beside is None else beside), _together([*before, finding])
        what, base = self._tried(sick, cured), self.course(*sick)
        slow = base.end > SLOW * base.losses[0] and len(base.losses) == STEPS
        affordable = 2 * LONGER * self._took < self.purse
        if slow and affordable and not what.helped and what.after < what.before:
            what = self._tried(sick, cured, LONGER * STEPS)
        return replace(what, beside=tuple(other.title for other in (before if beside is None else beside)))

    def explained(self, loss: float | None) -> bool:
        """Whether with the cure of what is certain already a copy ends below this loss: nothing else needs to be looked for.

        These copies are trained anyway, to try the cures.
        """
        known = [finding for finding in self.certain if finding.cure.applicable]
        return loss is not None and any(what.helped and what.after < loss for what in map(self.tried, known[:1]))

    def _tried(self, sick: Change, cured: Change, steps: int | None = None) -> Tried:
        def course(name: str, change: Action | None) -> Course:
            return self.course(name if steps is None else f"{name}, for {steps} steps", change, steps=steps)

        base = course(*sick)
        try:
            with_it = course(*cured)
        except (RuntimeError, TypeError, IndexError):  # layers that do not fit each other, or outputs the loss
            return Tried(len(base.losses), base.end, math.inf, base.held, math.inf)
        loss_fn = with_it.patient.loss_fn
        if loss_fn is None or loss_fn is base.patient.loss_fn:
            return Tried(len(with_it.losses), base.end, with_it.end, base.held, with_it.held)
        # Two loss functions cannot be compared: the net that was trained with the wrong one is judged by the right one.
        fitted = [self.loss(course.patient, self.fitted, loss_fn) for course in (base, with_it)]
        lost, left = (math.inf if loss is None else loss for loss in fitted)
        return Tried(len(with_it.losses), lost, left, self.loss(base.patient, self.held, loss_fn), with_it.held)


def _together(findings: Sequence[Finding]) -> Change:
    """A name and the change for the cures of several findings."""
    if not findings:
        return "as it is", None
    cures = [finding.cure for finding in findings]
    cures.sort(
        key=lambda cure: cure.name == "standardise_inputs"
    )  # which wraps the model: the names of its layers change

    def change(patient: Patient) -> None:
        for cure in cures:
            cure.apply(patient)

    return "with the cure of " + " and ".join(finding.title for finding in findings), change


def _parted(case: Case) -> tuple[list[Any], list[Any]]:
    """Batches to train on, and what is held out of them: a fourth of the samples, or of the batches."""
    if len(case.data) >= 4:
        return [part for i, part in enumerate(case.data) if i % 4 != 3], list(case.data[3::4])
    if case.data:
        return list(case.data), []
    n = len(case.batch[0])
    if n < APART or any(len(part) != n for part in case.batch):
        return [case.batch], []
    order = _in_turn(case.batch[-1])
    kept, left = sorted(order[i] for i in range(n) if i % 4 != 3), sorted(order[3::4])
    fitted, held = tuple(part[kept] for part in case.batch), tuple(part[left] for part in case.batch)
    return ([fitted], [held]) if taken(case, (fitted, held)) else ([case.batch], [])


def _in_turn(target: Any) -> list[int]:
    """The places of the samples, of which every fourth is held out; by class where a rare one would be on one side alone."""
    n = len(target)
    order = list(range(n))
    if not isinstance(target, Tensor) or target.numel() != n:
        return order
    values = to_host(target.detach().array).reshape(-1)
    classes, own, counts = np.unique(values, return_inverse=True, return_counts=True)
    held = np.bincount(own[3::4], minlength=len(classes))
    if len(classes) > n // 4 or not ((counts >= 4) & ((held == 0) | (held == counts))).any():
        return order
    return [int(i) for i in np.argsort(own, kind="stable")]


def taken(case: Case, batches: Sequence[Any]) -> bool:
    """Whether net and loss take these parts of a batch: samples that are related, as in a graph, cannot be parted."""
    model, _ = copied(case)
    try:
        with undisturbed(), no_grad(), computing(case.precision, device_of(model).type):
            for *inputs, target in batches:
                case.loss_fn(model(*inputs), target)
    except Exception:
        return False
    return True
