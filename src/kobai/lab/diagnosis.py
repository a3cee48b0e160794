"""``diagnose``: a few real steps on a copy of a net, under probes, and what they show."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from kobai import nn
from kobai._grad_mode import no_grad
from kobai._tensor import Tensor
from kobai.errors import DataError
from kobai.lab import diseases, rules
from kobai.lab.cures import Advice, Cure, Reinitialise, StandardiseInputs, Unfreeze
from kobai.lab.findings import Diagnosis, Finding
from kobai.lab.probes import Probe, Reading
from kobai.lab.rules import View
from kobai.nn import functional as F
from kobai.nn.utils import clip_grad_norm_
from kobai.optim import SGD, Optimizer
from kobai.random import default_generator
from kobai.train.batches import device_of, moved
from kobai.xp import to_host

USUAL_RATE = 0.1
"""Of the plain gradient descent that stands in where no optimiser is given; its rate is not judged then."""


@dataclass(frozen=True)
class Case:
    """What was diagnosed: the user's own objects, of which copies are examined and treated."""

    model: nn.Module
    batch: tuple[Any, ...]
    loss_fn: Callable[[Any, Any], Tensor]
    optimizer: Optimizer | None
    clip_grad_norm: float | None
    steps: int


def diagnose(
    model: nn.Module,
    batch: Any,
    loss_fn: Callable[[Any, Any], Tensor] = F.cross_entropy,
    optimizer: Optimizer | None = None,
    steps: int = 5,
    *,
    clip_grad_norm: float | None = None,
) -> Diagnosis:
    """What hinders ``model`` from learning ``batch``: findings with place, evidence, cause and cure, the root cause first.

    ``steps`` training steps are done on a copy, in training mode; the model, its gradients, the optimizer and the random
    streams stay as they are. The catalogue of diseases, with all thresholds, is :data:`kobai.lab.diseases.DISEASES`.

    Args:
        model: any module that is called with the inputs of the batch.
        batch: ``(input, ..., target)``, at least 2 samples; 50 or more make the shares reliable.
        loss_fn: ``loss_fn(output, target)``.
        optimizer: the one that the model is trained with; without it the learning rate is not judged.
        clip_grad_norm: as in training, if it is used there.

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
    for layer in (model[0], model[2], model[4], model[6], model[8], model[10],):
    """
    case = _checked(model, batch, loss_fn, optimizer, clip_grad_norm, steps)
    with undisturbed():
        return _examine(case)


def _checked(model: Any, batch: Any, loss_fn: Any, optimizer: Any, clip_grad_norm: Any, steps: Any) -> Case:
    if not isinstance(model, nn.Module):
        raise TypeError(f"diagnose: expected a kobai.nn.Module as model, got {type(model).__name__}")
    if next(iter(model.parameters()), None) is None:
        raise ValueError(
            f"diagnose: {type(model).__name__} has no parameters, so there is nothing that could be trained"
        )
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        got = f"{len(batch)} of them" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise TypeError(f"diagnose: expected a batch (input, ..., target) of tensors, got {got}")
    for part in batch:
        if not isinstance(part, Tensor):
            raise TypeError(f"diagnose: expected tensors in the batch, got {type(part).__name__}; see kobai.as_tensor")
        if part.ndim == 0 or part.shape[0] < 2:
            raise ValueError(
                f"diagnose: expected a batch of at least 2 samples, got a tensor of shape {tuple(part.shape)}"
            )
    if len({part.shape[0] for part in batch}) > 1:
        sizes = ", ".join(str(tuple(part.shape)) for part in batch)
        raise ValueError(f"diagnose: expected inputs and targets of equally many samples, got shapes {sizes}")
    if not callable(loss_fn):
        raise TypeError(f"diagnose: expected loss_fn(output, target), got {type(loss_fn).__name__}")
    if optimizer is not None and not isinstance(optimizer, Optimizer):
        raise TypeError(f"diagnose: expected a kobai.optim.Optimizer, got {type(optimizer).__name__}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"diagnose: expected steps as an integer >= 1, got {steps!r}")
    if clip_grad_norm is not None and not clip_grad_norm > 0:
        raise ValueError(f"diagnose: expected clip_grad_norm > 0, got {clip_grad_norm}")
    if optimizer is not None:
        own = {id(parameter) for parameter in model.parameters()}
        if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            raise ValueError("diagnose: the optimizer trains none of the model's parameters")
    return Case(model, tuple(moved(batch, device_of(model))), loss_fn, optimizer, clip_grad_norm, steps)


@contextmanager
def undisturbed() -> Iterator[None]:
    """The random stream stays as it is, and NumPy does not warn: sick nets overflow, and that is what is being looked for."""
    state = default_generator.get_state()
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            yield
    finally:
        default_generator.set_state(state)


def copied(case: Case) -> tuple[nn.Module, Optimizer]:
    """Model and optimiser to experiment with, in training mode; plain gradient descent where none is given."""
    optimizer = case.optimizer
    if optimizer is not None:
        model, optimizer = copy.deepcopy((case.model, optimizer))
    else:
        model = copy.deepcopy(case.model)
        optimizer = SGD(list(model.parameters()), lr=USUAL_RATE)
    return model.train(), optimizer


def _examine(case: Case) -> Diagnosis:
    model, optimizer = copied(case)
    *inputs, target = case.batch
    probe = Probe(model, optimizer)
    readings: list[Reading] = []
    losses: list[float] = []
    frozen = not any(parameter.requires_grad for parameter in model.parameters())
    findings: list[Finding] = []
    probe.attach()
    # Without the user's optimiser its steps say nothing: the state of the net is all there is to see.
    for step in range(case.steps if case.optimizer is not None and not frozen else 1):
        probe.clear()
        loss = _loss(model, inputs, target, case)
        losses.append(float(loss.item()))
        if loss.requires_grad:
            optimizer.zero_grad()
            loss.backward()
            if step == 0:
                findings += _symmetric(model, probe)
            if case.clip_grad_norm is not None:
                clip_grad_norm_(model.parameters(), case.clip_grad_norm)
            optimizer.step()
        reading = probe.read()
        assert reading is not None
        readings.append(reading)
        if not math.isfinite(losses[-1]):
            break
    probe.detach()
    view = View.of(readings[0], model, case.clip_grad_norm is not None)
    data = _data(view, inputs, target)
    findings += data if data is not None else []
    if not any(finding.disease == "non-finite" for finding in findings):
        findings += _gradients(model, frozen, losses[0], view)
        findings += rules.judge(view)
        if case.optimizer is not None and math.isfinite(losses[0]):
            rate = rules.judge_rate(view, readings, losses, float(optimizer.param_groups[0]["lr"]))
            findings += [rate] if rate is not None else []
    notes = [] if case.optimizer is not None else ["no optimizer was given, so the learning rate is not judged"]
    return Diagnosis(rules.ordered(findings), tuple(losses), readings[0], _described(case.model), tuple(notes), case)


def _loss(model: nn.Module, inputs: list[Any], target: Any, case: Case) -> Tensor:
    shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
    try:
        output = model(*inputs)
    except Exception as error:
        raise ValueError(f"diagnose: {_described(model)} cannot be run on inputs of shape {shapes}: {error}") from error
    try:
        loss = case.loss_fn(output, target)
    except Exception as error:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"diagnose: the loss function cannot compare outputs {shape} with targets {tuple(target.shape)}: {error}"
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ValueError("diagnose: expected loss_fn to return one number, the loss of the batch")
    return loss


def _described(model: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{type(model).__name__} of {count:,} parameters"


# --- what a reading does not show --------------------------------------------------------------------------------------


def _data(view: View, inputs: list[Any], target: Tensor) -> list[Finding]:
    """Inputs and targets, before anything is computed with them."""
    found: list[Finding] = []
    x = inputs[0]
    if isinstance(x, Tensor) and x.is_floating_point() and x.numel():
        host = to_host(x.detach().array).astype(np.float64).reshape(x.shape[0], -1)
        bad = int((~np.isfinite(host)).sum())
        if bad:
            cure = Advice(
                "bad = ~x.isfinite().reshape(len(x), -1).all(1)  # these samples\nx, t = x[~bad], "
                "t[~bad]  # or repair them"
            )
            cause = "The data hold NaN or infinity; one such number spoils the whole batch."
            return [
                rules.finding(
                    "non-finite", "error", [], [("input numbers that are not finite", bad, 0, True)], cause, cure
                )
            ]
        found += _inputs(view, host, x)
    if not target.is_floating_point() and target.ndim == 1 and len(target) >= 16:
        labels = len(np.unique(to_host(target.array)))
        if labels == 1:
            cure = Advice(
                "loader = DataLoader(data, batch_size=…, shuffle=True)  # batches of all classes; "
                "and look at the labels"
            )
            cause = "All samples of the batch have one class: the data are sorted by class, or the labels are wrong."
            found.append(
                rules.finding("no-signal", "error", [], [("classes in the batch", labels, 2, False)], cause, cure)
            )
    return found


def _inputs(view: View, x: np.ndarray[Any, Any], tensor: Tensor) -> list[Finding]:
    size = math.sqrt(float((x**2).mean()))
    spread = x.std(0)
    if math.sqrt(float((spread**2).mean())) <= diseases.CONSTANT * size:
        look = Advice(
            "print(x[0], x[1])  # are they what you think? Look for a constant scaling, a wrong index, a mask"
        )
        evidence = [
            (
                "spread between samples, relative to their size",
                float(spread.max() / size) if size else 0.0,
                diseases.CONSTANT,
                False,
            )
        ]
        return [
            rules.finding(
                "no-signal",
                "error",
                [],
                evidence,
                "All inputs of the batch are alike, so that nothing can tell them apart.",
                look,
            )
        ]
    if view.prepared:
        return []
    evidence = []
    if size > diseases.INPUT_LARGE:
        evidence.append(("root mean square of the inputs", size, diseases.INPUT_LARGE, True))
    elif size < diseases.INPUT_SMALL:
        evidence.append(("root mean square of the inputs", size, diseases.INPUT_SMALL, False))
    varying = spread[spread > 0]
    apart = float(varying.max() / np.median(varying))
    if apart > diseases.FEATURES_APART:
        evidence.append(("widest feature over the typical one", apart, diseases.FEATURES_APART, True))
    if not evidence:
        return []
    normalised = (
        bool(view.stages) and view.stages[0].normalised and len(evidence) == 1 and apart <= diseases.FEATURES_APART
    )
    cause = (
        "The first layer is normalised, which makes up for the scale of the inputs; standardised "
        "inputs are better all the same."
        if normalised
        else "The inputs are not standardised: weights and learning rate are made for inputs of size 1."
    )
    first = [view.stages[0].layer] if view.stages else []
    cure = StandardiseInputs.of(tensor)
    return [rules.finding("input-scale", "note" if normalised else "error", first, evidence, cause, cure)]


def _symmetric(model: nn.Module, probe: Probe) -> list[Finding]:
    """Hidden layers in which many units have the weights and the gradients of others."""
    reading = probe.read()
    assert reading is not None
    view = View.of(reading, model)
    bad: list[tuple[str, float]] = []
    with no_grad():
        for stage in view.hidden:
            assert stage.weight is not None
            weight = model.get_parameter(stage.weight.name)
            module: Any = model.get_submodule(stage.layer)
            if (
                weight.grad is None
                or weight.shape[0] < 3
                or not hasattr(module, "bias")
                or hasattr(module, "output_padding")
            ):
                continue
            rows = [_scaled(to_host(part.array)) for part in (weight, weight.grad)]
            both = np.concatenate(rows, 1)
            alike = 1 - (len(np.unique(both, axis=0)) - 1) / (len(both) - 1)
            if alike > diseases.ALIKE and np.isfinite(both).all():
                bad.append((stage.layer, alike))
    if not bad:
        return []
    name, alike = max(bad, key=lambda pair: pair[1])
    cause = "Units began with the same weights and get the same gradients, so that they stay one unit for ever."
    evidence = [(f"share of units of {name!r} that repeat another one", alike, diseases.ALIKE, True)]
    cure: Cure = Reinitialise(view.reinitialise().schemes)
    return [rules.finding("symmetric", "error", [layer for layer, _ in bad], evidence, cause, cure)]


def _scaled(matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows, in units of 1e-4 of the largest number."""
    rows = matrix.reshape(len(matrix), -1).astype(np.float64)
    largest = float(np.abs(rows).max()) if rows.size else 0.0
    return np.round(rows / largest * 1e4) if largest > 0 else rows


def _gradients(model: nn.Module, frozen: bool, loss: float, view: View) -> list[Finding]:
    """Whether any parameter learns at all."""
    if frozen:
        cause = "Every parameter has requires_grad=False: there is nothing to train."
        evidence = [("parameters that require a gradient", 0.0, 1.0, False)]
        return [rules.finding("no-signal", "error", [], evidence, cause, Unfreeze())]
    if math.isfinite(loss) and all(parameter.grad is None for parameter in model.parameters()):
        cause = (
            "The loss does not depend on the parameters: the graph is cut, as by detach(), no_grad(), "
            "argmax or a new tensor."
        )
        evidence = [("parameters that were given a gradient", 0.0, 1.0, False)]
        cure = Advice(
            "# look for .detach(), .item(), .data, argmax() or kobai.tensor(...) between the parameters and the loss"
        )
        return [rules.finding("no-signal", "error", [], evidence, cause, cure)]
    return []


def batches_for(case: Case, data: Any) -> list[Any]:
    """Batches of ``data``, or the one that was diagnosed."""
    if data is None:
        return [case.batch]
    batches = list(data)
    if not batches:
        raise DataError("treat: the data gave no batch")
    return batches
