"""How the loss reads outputs and targets: which scores it takes for those of one target, and which targets say nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kobai import ops
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.ends import End, untouched
from kobai.lab.doctor.rules.losses import slope_of
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View
from kobai.xp import to_host

PLACES, LABELS = 4, 8
"""Targets that are changed, and labels that each of them is given."""
READ = 0.5
"""Share of the targets whose scores may lie elsewhere than along one axis."""
SIZES, SAME = (0.1, 1.0, 100.0), 1e-4
"""Sizes of random outputs that a loss is asked for, and how near two losses are that are the same."""

READ_OTHERWISE = Disease(
    "axis-read-otherwise",
    "scores of one class read as those of all",
    f"outputs of three or more axes and one label for each C numbers of them: of {PLACES} targets, each given up to {LABELS} "
    f"labels in turn, more than {READ:.0%} change the gradient of as many numbers of their own sample, one for each label, "
    "which do not lie along one axis of length C",
    "Scores of one target are the C numbers at its place, along the axis of the classes. reshape and view keep the order in "
    "memory and move no axis: (N, C, L) read as (N·L, C) has rows of one class at C places, and is trained towards labels "
    "that are those of other places.",
    "PyTorch's documentation of torch.Tensor.view and permute",
    ("non-finite", "wrong-labels", "mixed-targets"),
    certain=True,
)


def read_otherwise(view: View) -> Finding | None:
    """Where in the outputs the gradient changes with one target, for some of the targets."""
    with untouched(view.model):
        end = view.end
        if end is None or len(end.parts) != 1 or not isinstance(end.target, Tensor):
            return None
        (y,), t = end.parts, end.target
        classes = y.numel() // max(1, t.numel())
        if t.is_floating_point() or y.ndim < 3 or classes < 3 or classes * t.numel() != y.numel():
            return None
        found = [_places(end, t.numel() * i // PLACES, classes) for i in range(PLACES)]
    seen = [place for place in found if place is not None]
    elsewhere = [place for place in seen if not _along(place, y.shape[1:], classes)]
    if not seen or not len(elsewhere) > READ * PLACES:
        return None
    fitting = [axis + 1 for axis, size in enumerate(y.shape[1:]) if size == classes]
    shape = ", ".join(["N", *map(str, y.shape[1:])])
    move = f"y.movedim({fitting[0]}, -1).reshape(-1, {classes})" if fitting else f"y.reshape(-1, {classes})"
    return READ_OTHERWISE.found(
        Evidence("targets whose scores lie along no axis of the classes", len(elsewhere) / PLACES, READ, True, share=True),
        cause=f"Outputs ({shape}) hold {classes} scores for each target, and the loss takes for these numbers that lie along "
        "another axis: a reshape or view without a permutation reads scores of one class at several places as those of all "
        "classes at one.",
        cure=Cure(
            "# in the loss function, move the classes last before the scores are made rows:\n"
            f"# F.cross_entropy({move}, t.reshape(-1))  # or give it (N, C, …) as they are"
        ),
    )  # fmt: skip


def _places(end: End, at: int, classes: int) -> Numbers | None:
    """The places (labels, axes) in its sample whose gradient changes with the target ``at``; None if they are not as many as
    the labels that it is given, or lie in other samples."""
    t, (y,) = end.target, end.parts
    labels = sorted({classes * k // LABELS for k in range(LABELS)})
    flat, slopes = t.reshape(-1).clone(), []
    if not 0 <= int(flat[at].item()) < classes:  # it is left out of the loss
        return None
    for label in labels:
        flat[at] = label
        slope = slope_of(end, y, flat.reshape(t.shape))
        if slope is None:
            return None
        slopes.append(to_host(slope.array).astype(np.float64))
    every = np.stack(slopes)
    moved = np.abs(every - every[:1]).max(0) > 1e-6 * max(1e-30, float(np.abs(every).max()))
    own = at // (t.numel() // len(y))
    places = np.argwhere(moved[own])
    return places if len(places) == len(labels) and moved.sum() == len(places) else None


def _along(places: Numbers, shape: Sequence[int], classes: int) -> bool:
    """Whether places lie on a line along an axis of this length."""
    varied = [axis for axis in range(len(shape)) if len(set(places[:, axis].tolist())) > 1]
    return len(varied) == 1 and shape[varied[0]] == classes


def silent_zeros(end: End) -> int:
    """How many targets are 0, if these alone have no gradient, of a loss of margins, which takes −1 and 1; else 0."""
    t = end.target
    binary = bool(((t == 0) | (t == 1)).all().item()) and t.is_floating_point()
    if not binary or t.numel() != len(t) or len(end.parts) != 1 or len(end.parts[0]) != len(t):
        return 0
    zeros = (t.reshape(-1) == 0).tolist()
    silent = all(_silent(end, size * ops.randn_like(end.parts[0]), zeros) for size in SIZES)
    return sum(zeros) if silent else 0


def _silent(end: End, y: Tensor, zeros: Sequence[bool]) -> bool:
    """Whether at these outputs the samples of target 0 alone have no gradient, and the loss is one of margins: with s = 2t − 1
    in place of t every such sample may have one, and L(y, s) = L(−y, −s), which is never below 0."""
    t = end.target
    signs = 2 * t - 1

    own, signed = slope_of(end, y, t), slope_of(end, y, signs)
    if own is None or signed is None:
        return False
    with no_grad():
        told, would = ((slope != 0).reshape(len(y), -1).any(1).tolist() for slope in (own, signed))
        one, other = end.asked([y], signs), end.asked([-y], -signs)
    none = not any(moves for moves, zero in zip(told, zeros, strict=True) if zero)
    some = any(told) and any(moves for moves, zero in zip(would, zeros, strict=True) if zero)
    return none and some and one >= 0 and abs(one - other) <= SAME * (1e-6 + abs(one))
