"""How hard a loss pulls at the outputs of each class: its gradient at outputs that know nothing.

No argument of the loss function is read: class weights, masks, ``ignore_index`` and label smoothing all show in the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kobai import ops
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.rules.ends import End, rebuilt
from kobai.lab.doctor.rules.losses import slope_of
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View
from kobai.xp import to_host

MOST = 300_000
"""Numbers of outputs that are looked at."""
RARELY_NOT = 0.5
"""Of numbers, the share that is 0 from which on the zeros may be padding."""


@dataclass(frozen=True)
class Counted:
    """The targets of some batches, and how hard the loss pulls at the output of each.

    Attributes:
        classes: of each target; for numbers whether it is not 0.
        pull: size of the gradient there, at outputs that know nothing.
        target: all targets. ``output``: the outputs that know nothing.
        kind: ``"labels"``, ``"two"`` (0.0 and 1.0), or ``"numbers"``.
        count: classes. ``last``: see :func:`in_rows`.
        end: of the model.
    """

    classes: Numbers
    pull: Numbers
    target: Tensor
    output: Tensor
    kind: str
    count: int
    last: bool
    end: End

    @property
    def each(self) -> int:
        """Targets of one sample."""
        return int(self.target.numel()) // len(self.target)

    def loss(self, y: Tensor) -> Any:
        """The loss of these outputs."""
        return self.end.loss_fn(rebuilt(self.end.output, iter([y])), self.target)

    def pull_at(self, y: Tensor) -> Numbers | None:
        """Size of the gradient at the output of each target, at other outputs; None if there is none, or no number."""
        slope = slope_of(self.end, y, self.target)
        if slope is None or not bool(slope.isfinite().all().item()):
            return None
        return _sizes(slope, self.kind, self.last)

    def weights(self) -> Numbers:
        """Mean pull at the outputs of each class, 0 for those without samples."""
        counts = np.bincount(self.classes, minlength=self.count)
        return np.bincount(self.classes, self.pull, self.count) / np.maximum(counts, 1)


def _sizes(slope: Tensor, kind: str, last: bool) -> Numbers:
    """Of a gradient by the outputs, its size for each target."""
    size = slope.abs()
    found: Numbers = to_host((size.sum(-1 if last else 1) if kind == "labels" else size).array).reshape(-1)
    return found


def _shape(y: Tensor, t: Tensor) -> tuple[int, bool] | None:
    """Classes of scores, and whether these are the last dimension, for labels of another shape; None if they do not fit."""
    shape = tuple(y.shape)
    if y.ndim == t.ndim + 1 and (shape[0], *shape[2:]) == tuple(t.shape):
        return shape[1], False
    if y.ndim > 1 and y.numel() == shape[-1] * t.numel():
        return shape[-1], True
    return None


def _ignorant(end: End, part: Tensor, rows: int, kind: str, classes: int, target: Tensor) -> Tensor:
    """Outputs, of so many rows, that know nothing: equal scores or shares; for numbers some that are off by as much."""
    zeros: Tensor = ops.zeros((rows, *part.shape[1:]), dtype=part.dtype, device=part.device)
    if kind == "numbers":
        spread = float(target.std().item()) or 1.0
        signs = 2 * (ops.rand_like(zeros) > 0.5).to(part.device, part.dtype) - 1
        off: Tensor = target.reshape(zeros.shape) + spread * signs
        return off
    shares = bool(((part >= 0) & (part <= 1)).all().item())
    if not shares or (kind == "two" and _takes_logits(end, target, zeros)):
        return zeros
    equal: Tensor = zeros + 1 / classes
    return equal


def _takes_logits(end: End, target: Tensor, like: Tensor) -> bool:
    """Whether outputs beyond 0 and 1 cost less than those at 0 and 1: the loss takes logits, whatever the net gives."""
    truth = target.reshape(like.shape).to(like.device, like.dtype)
    with no_grad():
        try:
            sure, surer = (
                float(end.loss_fn(rebuilt(end.output, iter([y])), target).item()) for y in (truth, 10 * (2 * truth - 1))
            )
        except Exception:  # probabilities alone are taken
            return False
    return 0 <= surer < sure


def counted(view: View) -> Counted | None:
    """What the loss counts, if its targets are labels, 0 and 1, or mostly 0; to be used within ``untouched``."""
    end = view.end
    if end is None or len(end.parts) != 1 or not isinstance(end.target, Tensor) or not len(end.target):
        return None
    part, targets, seen = end.parts[0], [], 0
    for batch in view.seen:
        t = batch[-1]
        if not isinstance(t, Tensor) or tuple(t.shape[1:]) != tuple(end.target.shape[1:]):
            return None
        targets.append(t.detach())
        seen += len(t) * (part.numel() // len(end.target))
        if seen > MOST:
            break
    for target in (ops.cat(targets)[: max(1, MOST * len(end.target) // part.numel())], end.target):
        found = _pulled(end, part, target)
        if found is not None:
            return found
    return None


def _pulled(end: End, part: Tensor, t: Tensor) -> Counted | None:
    rows = len(t) * len(part) // len(end.target)
    if t.is_floating_point() or str(t.dtype).endswith("bool"):
        if t.numel() * len(part) != part.numel() * rows or not bool(t.isfinite().all().item()):
            return None
        two = bool(((t == 0) | (t == 1)).all().item())
        kind, classes, last = ("two" if two else "numbers"), 2, False
        labels = to_host((t != 0).array).reshape(-1).astype(np.int64)
        if not two and labels.mean() > RARELY_NOT:
            return None
    else:
        fitting = _shape(ops.zeros((rows, *part.shape[1:])), t)
        if fitting is None or fitting[0] < 2:
            return None
        kind, (classes, last) = "labels", fitting
        labels = to_host(t.array).reshape(-1).astype(np.int64)
    y = _ignorant(end, part, rows, kind, classes, t)
    slope = slope_of(end, y, t)
    if slope is None or not bool(slope.isfinite().all().item()):
        return None
    pull = _sizes(slope, kind, last)
    there = (labels >= 0) & (labels < classes)
    if len(pull) != len(labels):
        return None
    pull = np.where(there, pull, 0.0).astype(np.float64)
    return Counted(np.where(there, labels, 0), pull, t, y, kind, classes, last, end)
