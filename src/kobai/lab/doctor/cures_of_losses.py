"""Cures of what a loss counts: classes that weigh alike, targets that are left out, and no smoothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kobai import ops
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Action, Patient, cure
from kobai.nn import functional as F


def in_rows(y: Tensor, t: Tensor, classes: int, last: bool) -> tuple[Tensor, Tensor]:
    """Scores and labels as the cross-entropy takes them; ``last``: the classes are the last dimension of the scores."""
    return (y.reshape(-1, classes), t.reshape(-1)) if last else (y, t)


def _written(classes: int, last: bool) -> str:
    return f"y.reshape(-1, {classes}), t.reshape(-1)" if last else "y, t"


@cure
def weigh_classes(t: Tensor, classes: int, last: bool = False) -> tuple[str, Action]:
    """Cross-entropy in which all classes weigh alike: each sample by n/(C nₖ); ``last`` as in :func:`in_rows`."""
    count = t.reshape(-1).clamp(min=0).bincount(minlength=classes).clamp(min=1)
    weight = count.sum() / (classes * count.float())

    def action(patient: Patient) -> None:
        patient.loss_fn = lambda y, t: F.cross_entropy(*in_rows(y, t, classes, last), weight=weight.to(y.device))

    return (
        f"count = t.reshape(-1).clamp(min=0).bincount(minlength={classes}).clamp(min=1)  # of the training targets\n"
        f"weight = count.sum() / ({classes} * count.float())  # a rare class counts as much as a frequent one\n"
        f"loss_fn = lambda y, t: F.cross_entropy({_written(classes, last)}, weight=weight)"
    ), action


@cure
def weigh_ones(t: Tensor) -> tuple[str, Action]:
    """Binary cross-entropy in which ones and zeros weigh alike in sum."""
    ones = t.sum().clamp(min=1)
    weight = (t.numel() - ones) / ones

    def action(patient: Patient) -> None:
        patient.loss_fn = lambda y, t: F.binary_cross_entropy_with_logits(y, t.reshape(y.shape), pos_weight=weight)

    return (
        "ones = t.sum().clamp(min=1)  # of the training targets, 0 and 1\n"
        "weight = (t.numel() - ones) / ones  # zeros for each one: the ones weigh as much as all zeros\n"
        "loss_fn = lambda y, t: F.binary_cross_entropy_with_logits(y, t.reshape(y.shape), pos_weight=weight)"
    ), action


@cure
def leave_out(label: int, classes: int, last: bool = False) -> tuple[str, Action]:
    """Cross-entropy that leaves out the targets of one label; ``last`` as in :func:`in_rows`."""

    def action(patient: Patient) -> None:
        patient.loss_fn = lambda y, t: F.cross_entropy(*in_rows(y, t, classes, last), ignore_index=label)

    return f"loss_fn = lambda y, t: F.cross_entropy({_written(classes, last)}, ignore_index={label})", action


@cure
def leave_out_zeros(loss_fn: Callable[[Any, Any], Tensor]) -> tuple[str, Action]:
    """The loss of those outputs alone whose targets are not 0."""

    def action(patient: Patient) -> None:
        inner = patient.loss_fn or loss_fn
        patient.loss_fn = lambda y, t: inner(y.reshape(t.shape)[t != 0], t[t != 0])

    return (
        "own = loss_fn\n"
        "loss_fn = lambda y, t: own(y.reshape(t.shape)[t != 0], t[t != 0])  # or a mask of what is padding"
    ), action


@cure
def smooth_not(classes: int, last: bool = False) -> tuple[str, Action]:
    """Cross-entropy without label smoothing; ``last`` as in :func:`in_rows`."""

    def action(patient: Patient) -> None:
        patient.loss_fn = lambda y, t: F.cross_entropy(*in_rows(y, t, classes, last))

    return f"loss_fn = lambda y, t: F.cross_entropy({_written(classes, last)})  # label_smoothing at most 0.1", action


def alike(one: Callable[[Tensor], Any], other: Callable[[Tensor], Any], like: Tensor) -> bool:
    """Whether two losses are proportional, by random outputs of the shape of ``like``.

    >>> import kobai
    >>> alike(lambda y: 2 * y.sum(), lambda y: y.sum(), kobai.zeros(3)), alike(lambda y: (y * y).sum(), lambda y: y.sum(),
    ...     kobai.zeros(3))
    (True, False)
    """
    ratios = []
    for size in (0.3, 1.0, 3.0):
        y = size * ops.randn_like(like)
        try:
            a, b = float(one(y).item()), float(other(y).item())
        except Exception:  # a loss of the user's own may fail in any way
            return False
        if not b:
            return False
        ratios.append(a / b)
    return max(ratios) - min(ratios) <= 1e-3 * abs(ratios[0])
