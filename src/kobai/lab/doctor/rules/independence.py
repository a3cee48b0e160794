"""The rule of independence: what a net says of one sample must not depend on the others of its batch."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure, Patient
from kobai.lab.doctor.cures_of_capacity import set_options
from kobai.lab.doctor.findings import Disease, Finding, graded
from kobai.lab.doctor.flow import flow
from kobai.lab.doctor.rules.relations import along
from kobai.lab.doctor.rules.view import View
from kobai.nn.batchnorm import _NormBase
from kobai.optim import SGD
from kobai.xp import to_host

MIXED, MIXED_SOME = 0.3, 1e-3
ROUNDED = 1e-5
SURE, TWICE = 4.0, 2.0

MIXED_SAMPLES = Disease(
    "mixed-samples",
    "samples that are mixed with each other",
    "when every other sample of the batch is exchanged, the outputs of those that stay change by more than "
    f"{MIXED:g} (warning: {MIXED_SOME:g}) of their standard deviation, in evaluation mode (batch normalisation has fixed "
    "statistics there); not asked of nets that are given relations between samples (a matrix of samples by samples), nor found "
    "where the batch is the second axis of inputs, outputs and targets, unless neighbours along that axis are related "
    f"(correlations more than {SURE:g} standard deviations above those of shuffled ones), along the first less than "
    f"1/{TWICE:g} as surely",
    "Samples are drawn independently, and the loss is a sum over them: output i is to be a function of input i, so that "
    "∂yᵢ/∂xⱼ = 0 for i ≠ j. A view or reshape in place of a permutation, a softmax, mean or norm over axis 0, or a sequence "
    "that is taken for a batch gives each sample parts of the others, and the target belongs to none of them.",
    "definition of the empirical risk; Karpathy, A recipe for training neural networks, 2019 (use backprop to chart "
    "dependencies)",
    ("non-finite", "wrong-labels"),
    certain=True,
)


def mixed_samples(view: View) -> Finding | None:
    """Change of the outputs of samples that stay, when all others are exchanged, over their standard deviation."""
    assert view.ledger is not None
    model, xs = view.ledger.fresh, list(view.inputs)
    n = len(xs[0]) if xs else 0
    if n < 4 or _related(model, xs, n):
        return None
    others = [_exchanged(x, 0) for x in xs]
    change, place = _change(model, xs, others, n)
    if not change > MIXED_SOME:
        return None
    if _batch_second(model, xs, view.target, n) and not _steps_second(xs[0], view.target):
        return None
    before, name, inside = place
    where = name or before or ""
    if inside:
        at = f"in {name!r}"
    elif name is None:
        at = f"after {before!r}" if before is not None else "in forward()"
    else:
        at = f"between {before!r} and {name!r}" if before is not None else f"before {name!r}"
    return MIXED_SAMPLES.found(
        graded("change of a sample's output when others are exchanged, of its spread", change, MIXED, MIXED_SOME),
        cause=f"The outputs of a sample depend on the other samples of its batch: they are mixed {at}.",
        cure=_cure(view, xs, others, n)
        or Cure(
            f"# look {at}: view and reshape must leave x.shape[0] alone, and move no axis (permute and transpose do);\n"
            "# softmax, mean, std, norm and cat not over dim=0; recurrent layers and attention want batch_first=True"
        ),
        where=[where],
    )


def _exchanged(x: Tensor, axis: int) -> Tensor:
    """The batch, in which every other sample is another one: of numbers with twice the size, of indices all the same, for a
    mean does not see an order."""
    at = (slice(None),) * axis
    other: Tensor = x.clone()
    if x.is_floating_point():
        other[(*at, slice(1, None, 2))] = -2 * x[(*at, slice(1, None, 2))].roll(1, axis)
    else:
        other[(*at, slice(1, None, 2))] = x[(*at, slice(1, 2))]
    return other


def _change(
    model: nn.Module, xs: Sequence[Any], others: Sequence[Any], n: int, axis: int = 0
) -> tuple[float, tuple[str | None, str | None, bool]]:
    """How much what stays is changed in the outputs, and where first: (layer before, layer, whether inside of it)."""
    there, outputs = flow(model, xs)
    here, changed = flow(model, others)
    both = list(zip(outputs, changed, strict=False))
    change = max((_apart(y, z, n, axis) for y, z in both), default=0.0)
    before: str | None = None
    for calm, noisy in zip(there, here, strict=False):
        came = _moved(calm.input, noisy.input, n, axis)
        if came or _moved(calm.output, noisy.output, n, axis):
            return change, (before, calm.name, not came)
        before = calm.name
    return change, (before, None, False)


def _moved(y: Tensor | None, z: Tensor | None, n: int, axis: int) -> bool:
    return y is not None and z is not None and _apart(y, z, n, axis) > MIXED_SOME


def _apart(y: Tensor, z: Tensor, n: int, axis: int) -> float:
    """Root mean square of the change of what stays, over its standard deviation from sample to sample.

    0 for what is not one row per sample.

    Several rows per sample may come sample by sample, or all samples' first rows first: the smaller change counts.
    """
    if y.shape != z.shape or y.ndim <= axis or y.shape[axis] == 0 or y.shape[axis] % n or not y.is_floating_point():
        return 0.0
    first, second = (np.moveaxis(to_host(part.detach().array).astype(np.float64), axis, 0) for part in (y, z))
    rows = len(first) // n
    changes = []
    for order in ((n, rows), (rows, n)) if rows > 1 else ((n, rows),):
        a, b = (part.reshape(*order, -1) for part in (first, second))
        if order[0] != n:
            a, b = a.swapaxes(0, 1), b.swapaxes(0, 1)
        stay, now = a[::2], b[::2]
        spread, off = float(np.sqrt(stay.var(0).mean())), float(np.sqrt(np.mean((stay - now) ** 2)))
        seen = off > ROUNDED * float(np.sqrt(np.mean(stay**2)))  # more than sums in another order differ by
        changes.append(off / spread if seen and spread > 0 and math.isfinite(off) else 0.0)
    return min(changes)


def _related(model: nn.Module, xs: Sequence[Any], n: int) -> bool:
    """Whether the net knows of relations between samples, or takes the batch's own statistics in evaluation mode too."""
    held = [tensor for module in model.modules() for tensor in vars(module).values() if isinstance(tensor, Tensor)]
    tensors = [*xs, *held, *model.buffers()]
    square = any(tensor.ndim > 1 and tuple(tensor.shape[:2]) == (n, n) for tensor in tensors)
    return square or any(isinstance(m, _NormBase) and m.running_mean is None for m in model.modules())


def _batch_second(model: nn.Module, xs: Sequence[Any], target: Any, n: int) -> bool:
    """Whether the second axis is that of the samples: inputs, outputs and targets share it, and nothing is mixed along it."""
    outputs = flow(model, xs)[1]
    size = xs[0].shape[1] if xs[0].ndim > 1 else 0
    parts = [*xs, *outputs[:1], target]
    if size < 4 or any(part.ndim < 2 or part.shape[1] != size or len(part) != n for part in parts):
        # square outputs are similarities of samples
        return bool(outputs) and tuple(outputs[0].shape) == (n, n)
    return not _change(model, xs, [_exchanged(x, 1) for x in xs], size, 1)[0] > MIXED_SOME


def _steps_second(x: Tensor, t: Tensor) -> bool:
    """Whether neighbours along the second axis are related, and along the first are not: those are steps, and these samples."""
    return along(x, t, 1) > max(SURE, TWICE * along(x, t, 0))


def _cure(view: View, xs: Sequence[Any], others: Sequence[Any], n: int) -> Cure | None:
    """Options of layers with which nothing is mixed any more."""
    assert view.ledger is not None
    first = [
        (name, "batch_first", True) for name, m in view.modules.items() if getattr(m, "batch_first", True) is False
    ]
    last = [(name, "dim", -1) for name, m in view.modules.items() if getattr(m, "dim", None) == 0]
    for options in (first, last):
        if not options:
            continue
        cure = set_options(options)
        model = copy.deepcopy(view.ledger.fresh)
        cure.apply(Patient(model, SGD(list(model.parameters()), lr=0.1)))
        try:
            change, _ = _change(model, xs, others, n)
        except Exception:  # their outputs have another shape now, for which the rest is not made
            continue
        if not change > MIXED_SOME:
            return cure
    return None
