"""``diagnose``: run a few real training steps on a copy of a net, under probes, and judge what they show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.errors import DataError, nearest
from kobai.lab.doctor.cures import Patient
from kobai.lab.doctor.findings import Case, Diagnosis
from kobai.lab.doctor.judging import examine, ordered, tried
from kobai.lab.doctor.ledger import Ledger
from kobai.lab.doctor.rules.data import wrong_labels
from kobai.lab.doctor.rules.losses import refused
from kobai.lab.doctor.rules.units import twins
from kobai.lab.doctor.rules.updates import PATIENCE
from kobai.lab.doctor.rules.view import View, stages
from kobai.lab.doctor.trials import EXAMINING, Trials, copied, described, undisturbed
from kobai.lab.probe.probes import Probe
from kobai.lab.probe.readings import Reading
from kobai.lab.probe.saturation import ending
from kobai.nn import functional as F
from kobai.optim import Optimizer
from kobai.train.batches import device_of, moved
from kobai.train.step import PRECISIONS, computing, left_out, scale_of, scaler_for, update
from kobai.utils.data import DataLoader


def diagnose(
    model: nn.Module,
    batch: Any,
    loss_fn: Callable[[Any, Any], Tensor] = F.cross_entropy,
    optimizer: Optimizer | None = None,
    steps: int = 5,
    *,
    clip_grad_norm: float | None = None,
    precision: str = "fp32",
    data: Iterable[Any] | None = None,
    validation: Iterable[Any] | None = None,
    quick: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Diagnosis:
    """What keeps ``model`` from learning ``batch``: findings with place, evidence, cause and cure, the root cause first.

    A copy is trained for ``steps`` steps, in training mode; up to 30 if the loss grows. Then the cures of the first findings
    are tried: copies with and without each are trained side by side (200 steps, or as many as 1.5 s allow), and the finding
    says what that did.
    One whose cure does not help is a mere note. The model, its gradients, the optimizer and the random streams stay as they
    are. The catalogue of diseases, with all thresholds, is
    :data:`kobai.lab.doctor.diseases.DISEASES`; the code of a cure runs as pasted.

    Args:
        model: any module that is called with the inputs of the batch.
        batch: ``(input, ..., target)``; 50 samples or more make the shares reliable, and of one alone little can be told.
        loss_fn: ``loss_fn(output, target)``.
        optimizer: what the model is trained with; without it the learning rate is not judged.
        clip_grad_norm: as in training, if gradients are clipped there.
        precision: what the steps compute in, as of a :class:`kobai.train.Trainer`.
        data: batches for the trials, such as a DataLoader; by default the one batch, of which a fourth is held out.
        validation: a batch of validation data, or batches such as a DataLoader: are they like the training data?
        quick: leave the trials out.
        progress: called with a line before each trial.

    Raises:
        TypeError, ValueError: wrong arguments, a model without parameters, a batch on which the model cannot be run.

    >>> import kobai
    >>> from kobai import nn
    >>> _ = kobai.manual_seed(0)
    >>> x, t = kobai.randn(64, 20), kobai.arange(64) % 4
    >>> layers = [part for _ in range(6) for part in (nn.Linear(20, 20, init="normal(0.01)"), nn.Tanh())]
    >>> found = kobai.lab.diagnose(nn.Sequential(*layers, nn.Linear(20, 4)), (x, t))
    >>> found.findings[0].disease, found.findings[0].severity, found.healthy
    ('collapsed', 'error', False)
    >>> print(found.findings[0].cure.code.splitlines()[0])
    for layer in [model[0], model[2], model[4], model[6], model[8], model[10]]:
    """
    case = _checked(model, batch, loss_fn, optimizer, clip_grad_norm, steps, precision, data, validation)
    return diagnosed(case, None if quick else Trials(case, say=progress, purse=EXAMINING))


def diagnosed(case: Case, trials: Trials | None, cures: bool = True) -> Diagnosis:
    """All examinations of a case, those by trials if there are any; and whether the ``cures`` help."""
    with undisturbed():
        view = observe(case, trials)
        made = examine(view)
        findings = ordered(made.found)
        if trials is None or cures:
            findings = tried(findings, view)
    notes: tuple[str, ...] = (
        () if case.optimizer is not None else ("no optimizer was given, so the learning rate is not judged",)
    )
    if view.single:
        left_out = "; whether ".join(made.left_out)
        notes += (f"of a batch of one sample it cannot be told whether {left_out}: give 2 or more",)
    if made.late:
        notes += (f"copies train too slowly for it to be examined whether {'; whether '.join(made.late)}",)
    return Diagnosis(findings, tuple(view.losses), view.reading, described(case.model), notes, case, tuple(made.right))


def _checked(
    model: Any,
    batch: Any,
    loss_fn: Any,
    optimizer: Any,
    clip_grad_norm: Any,
    steps: Any,
    precision: Any,
    data: Any,
    validation: Any,
) -> Case:
    if not isinstance(model, nn.Module):
        got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"diagnose: expected a kobai.nn.Module as model, got {got}")
    if next(iter(model.parameters()), None) is None:
        raise ValueError(f"diagnose: {type(model).__name__} has no parameters to train")
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        got = f"{len(batch)} of them" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
        hint = "; take one: next(iter(loader))" if isinstance(batch, DataLoader) else ""
        raise TypeError(f"diagnose: expected a batch (input, ..., target) of at least two tensors, got {got}{hint}")
    for part in batch:
        if not isinstance(part, Tensor):
            raise TypeError(f"diagnose: expected tensors in the batch, got {type(part).__name__}; see kobai.as_tensor")
        if part.ndim == 0 or part.shape[0] < 1:
            raise ValueError(
                f"diagnose: expected a batch of at least 1 sample, got a tensor of shape {tuple(part.shape)}"
            )
    *inputs, target = batch
    # There may be a target for each step of a sequence.
    if len({x.shape[0] for x in inputs}) > 1 or len(target) % len(inputs[0]):
        sizes = ", ".join(str(tuple(part.shape)) for part in batch)
        raise ValueError(f"diagnose: expected inputs and targets of equally many samples, got shapes {sizes}")
    if isinstance(loss_fn, Optimizer) or not callable(loss_fn):
        hint = "; an optimizer is passed as optimizer=…" if isinstance(loss_fn, Optimizer) else ""
        raise TypeError(f"diagnose: expected loss_fn(output, target), got {type(loss_fn).__name__}{hint}")
    for name, value, hint in (("loss_fn", loss_fn, "()"), ("optimizer", optimizer, "(model.parameters(), lr=…)")):
        if isinstance(value, type):
            raise TypeError(
                f"diagnose: expected {name} to be an object, got the class {value.__name__}; write {value.__name__}{hint}"
            )
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(f"diagnose: expected a kobai.optim.Optimizer, got {type(optimizer).__name__}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"diagnose: expected steps as an integer >= 1, got {steps!r}")
    if clip_grad_norm is not None and not clip_grad_norm > 0:
        raise ValueError(f"diagnose: expected clip_grad_norm > 0, got {clip_grad_norm}")
    if precision not in PRECISIONS:
        hint = nearest(str(precision), PRECISIONS)
        raise ValueError(f"diagnose: expected precision {', '.join(PRECISIONS)}, got {precision!r}.{hint}")
    device = device_of(model)
    batches, held = _batches(data, "data", device), _batches(validation, "validation data", device)
    return Case(model, tuple(moved(batch, device)), loss_fn, optimizer, clip_grad_norm, steps, precision, batches, held)


def _batches(data: Any, what: str, device: Any) -> tuple[tuple[Any, ...], ...]:
    """Batches on the model's device; one alone is one of them."""
    if data is None:
        return ()
    if isinstance(data, (tuple, list)) and len(data) > 1 and all(isinstance(part, Tensor) for part in data):
        data = [data]
    batches = []
    for part in data:
        if not isinstance(part, (tuple, list)) or len(part) < 2:
            raise TypeError(f"diagnose: expected batches (input, ..., target) as {what}, got a {type(part).__name__}")
        batches.append(tuple(moved(part, device)))
    if not batches:
        raise DataError(f"diagnose: the {what} gave no batch")
    return tuple(batches)


def observe(case: Case, trials: Trials | None = None) -> View:
    """Train a copy for some steps under a probe; what the rules look at."""
    model, optimizer = copied(case)
    *inputs, target = case.batch
    probe = Probe(model, optimizer)
    readings: list[Reading] = []
    losses: list[float] = []
    alike: dict[str, float] = {}
    last: str | None = None
    ledger: Ledger | None = None
    scaler, scale = scaler_for(case.precision, device_of(model).type), 1.0
    probe.attach()
    # Steps of another optimiser than the user's say nothing: look at the state of the net alone.
    while len(readings) < (case.steps if case.optimizer is not None else 1):
        probe.clear()
        output = _output(model, inputs, case)
        last = last or ending(output)
        try:
            loss = _loss(output, target, case)
        except ValueError:
            scores = _scores(output, target)
            view = View(model, [_read(probe)], inputs, target, case.loss_fn, refused=scores, output=output)
            if wrong_labels(view) or refused(view):
                return view
            raise
        ledger = ledger or Ledger(case, model, optimizer, output, loss)
        before, value = scale_of(scaler), float(loss.item())
        if loss.requires_grad:
            update(model, optimizer, loss, case.clip_grad_norm, case.precision, scaler)
            if math.isfinite(value) and left_out(before, scale_of(scaler)):
                continue
            ledger.note()
        losses.append(value)
        readings.append(_read(probe))
        if len(readings) == 1:
            scale = before
            alike = twins(model, stages(readings[0], model))
        if not (math.isfinite(losses[-1]) and loss.requires_grad):
            break
    probe.detach()
    if len(readings) > 1:
        _await(losses, Patient(model, optimizer, case.clip_grad_norm), case, scaler)
    return View(
        model,
        readings,
        inputs,
        target,
        case.loss_fn,
        losses,
        alike,
        optimizer if case.optimizer is not None else None,
        case.clip_grad_norm is not None,
        settling="initial_lr" in optimizer.param_groups[0],  # a schedule has left it there
        broken=[name for name, p in case.model.named_parameters() if not bool(p.detach().isfinite().all().item())],
        ending=last,
        scale=scale,
        precision=case.precision,
        trials=trials,
        samples=case.data,
        validation=case.validation,
        ledger=ledger,
    )


def _await(losses: list[float], patient: Patient, case: Case, scaler: Any) -> None:
    """Go on where the loss has grown: it may come back, as in the catapult of rates from 2 to 4 over the curvature."""
    *inputs, target = case.batch
    while losses[-1] > losses[0] and len(losses) < PATIENCE:
        loss = _loss(_output(patient.model, inputs, case), target, case)
        losses.append(float(loss.item()))
        update(patient.model, patient.optimizer, loss, case.clip_grad_norm, case.precision, scaler)


def _read(probe: Probe) -> Reading:
    reading = probe.read()
    assert reading is not None
    return reading


def _output(model: nn.Module, inputs: list[Any], case: Case) -> Any:
    try:
        with computing(case.precision, device_of(model).type):
            return model(*inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise ValueError(f"diagnose: {described(model)} cannot be run on inputs of shape {shapes}: {error}") from error


def _loss(output: Any, target: Any, case: Case) -> Tensor:
    try:
        with computing(case.precision, device_of(case.model).type):
            loss = case.loss_fn(output, target)
    except Exception as error:
        if isinstance(output, Tensor):
            what = f"outputs {tuple(output.shape)}"
        else:
            what = f"outputs that are a {type(output).__name__} (give a loss_fn that takes its part of it)"
        raise ValueError(
            f"diagnose: the loss function cannot compare {what} with targets {tuple(target.shape)}: {error}"
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"diagnose: expected loss_fn to return one number, the loss of the batch, got {got}")
    return loss


def _scores(output: Any, target: Any) -> int | None:
    """Scores per sample; None if the targets are no labels."""
    labels = isinstance(output, Tensor) and output.ndim == 2 and target.ndim == 1 and not target.is_floating_point()
    return int(output.shape[1]) if labels else None
