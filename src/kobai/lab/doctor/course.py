"""What ``Doctor`` keeps of a training to judge its epochs by: some samples of both sides, and the records of all epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.diseases import BOTH_SIDES, COMPARED, LABELLED, MODES, OVER_EPOCHS
from kobai.lab.doctor.findings import Evidence, Finding
from kobai.lab.doctor.judging import Round
from kobai.lab.doctor.plan import Plan
from kobai.lab.doctor.rules.numbers import AGAIN, NON_FINITE, REPAIR, of_few
from kobai.lab.doctor.rules.rows import culprits
from kobai.lab.doctor.rules.view import View
from kobai.lab.probe.readings import Reading
from kobai.optim.groups import learning_rate
from kobai.train.batches import generators_of, moved
from kobai.train.nonfinite import NonFiniteError

if TYPE_CHECKING:
    from kobai.train.trainer import Trainer

MOST = 512
"""Samples of each side that are kept."""

APART = 1.5
"""Times by which the losses of training and validation differ, from which on it is worth looking why."""

DOUBTS = 3
"""Looks, at most, at what costs another pass of the net: a training is not to be slowed down by more than a few per cent."""


class Course:
    """The epochs of one training, and samples of both sides.

    What costs a pass of the net, or the distances of all samples, is looked at where the two losses are apart, and seldom.
    """

    def __init__(self) -> None:
        self.samples: list[Any] = []
        self._kept = 0
        self._held: list[Any] | None = None
        self._doubts = 0

    @property
    def full(self) -> bool:
        """Whether enough samples are kept."""
        return self._kept >= MOST

    def keep(self, trainer: Trainer) -> None:
        """Keep a batch of the first epoch, until there are enough."""
        if not self.full:
            inputs, target = trainer.unpack(trainer.batch)
            self.samples.append((*inputs, target))
            self._kept += len(target) if isinstance(target, Tensor) and target.ndim else 1

    def round(self, trainer: Trainer, reading: Reading | None) -> Round | None:
        """What is to be examined after an epoch."""
        if reading is None or not self.samples or not trainer.history:
            return None
        due = [*OVER_EPOCHS, *(COMPARED if self._held is None else ())]
        if self._held is None:
            self._held = [] if trainer.held_data is None else _first(trainer.held_data, trainer, self._kept)
        view = self._view(trainer, reading, self._held)
        record = trainer.history[-1]
        training, held = float(record["loss"]), float(record.get("val_loss", math.nan))
        doubtful = not training / APART <= held <= training * APART
        if self._held and doubtful and self._doubts < DOUBTS and len(trainer.history) in (1, 3, 6):
            self._doubts += 1
            due += [*LABELLED, *MODES, *BOTH_SIDES]
        return Round(view, due)

    def _view(self, trainer: Trainer, reading: Reading, held: list[Any]) -> View:
        *inputs, target = self.samples[0]
        return View(
            trainer.model,
            [reading],
            inputs,
            target,
            trainer.loss_fn,
            [float(trainer.history[-1]["loss"])],
            optimizer=trainer.optimizer,
            samples=self.samples,
            validation=held,
            precision=trainer.precision,
            history=trainer.history,
            epochs=trainer.epochs,
            plan=_plan(trainer),
        )


def _plan(trainer: Trainer) -> Plan | None:
    """The schedule, with the steps of it that the training will take."""
    if trainer.scheduler is None:
        return None
    data: Any = trainer.train_data
    try:
        each = 1 if trainer.scheduler_interval == "epoch" else len(data)
    except TypeError:  # an iterator does not know how many it gives
        return None
    return Plan(trainer.scheduler, trainer.epochs * each)


def _first(batches: Any, trainer: Trainer, count: int) -> list[Any]:
    """The first samples of the validation data; the random streams stay as they were."""
    found, seen = [], 0
    with _streams_kept(generators_of(trainer.train_data, batches)):
        for batch in batches:
            if not isinstance(batch, (tuple, list)) or len(batch) < 2 or not all(isinstance(p, Tensor) for p in batch):
                return []
            found.append(tuple(part[: count - seen] for part in moved(batch, trainer.device)))
            seen += len(batch[-1])
            if seen >= count:
                break
    return found


@contextmanager
def _streams_kept(generators: Sequence[Any]) -> Iterator[None]:
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def stopped(error: NonFiniteError, trainer: Trainer) -> Finding:
    """What a training that stopped over a number that is not finite shows."""
    if error.batch is not None and error.place != "data":
        inputs, target = error.batch
        few = culprits(trainer.model, trainer.loss_fn, inputs, target)
        if few is not None:
            found = of_few(few, [error.layer] if error.layer else [])
            return replace(found, cause=f"{found.cause} {str(error).rstrip('.')}.")
    rate = learning_rate(trainer.optimizer.param_groups[0])
    code = {
        "data": REPAIR.format("x"),
        "loss": "# in the loss function: log(p.clamp(min=1e-7)), sqrt(v + 1e-12), a / (b + 1e-7);\n"
        "# better, F.cross_entropy or F.binary_cross_entropy_with_logits on the scores, which need no log of their own",
    }.get(error.place)
    if code is None:
        lower = f'for group in optimizer.param_groups:\n    group["lr"] = {rate / 10:.2g}  # in place of {rate:.2g}'
        code = f"{AGAIN.format(error.layer or 'none')}\n{lower}"
    well = f" All went well for {trainer.epoch} epochs before." if trainer.epoch else ""
    return NON_FINITE.found(
        Evidence("batches whose numbers are not finite", 1, 0, True),
        cause=f"{str(error).rstrip('.')}.{well}",
        cure=Cure(code),
        where=[error.layer] if error.layer else [],
    )
