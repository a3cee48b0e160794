"""The rule of the outputs: whether the loss can become small within the bounds of the model's last activation."""

from __future__ import annotations

from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure, remove_activation
from kobai.lab.doctor.findings import Disease, Finding, graded
from kobai.lab.doctor.rules.view import View
from kobai.lab.probe.readings import LayerStats
from kobai.nn import functional as F

BOUNDS = {
    **dict.fromkeys(("softmax", "sigmoid", "hardsigmoid"), (0.0, 1.0)),
    **dict.fromkeys(("tanh", "softsign", "hardtanh"), (-1.0, 1.0)),
}
FAR = (2.0, 5.0, 50.0)
"""Scores beyond all bounds: one as good as infinite, and smaller ones, which suit smoothed labels."""


FLOOR, FLOOR_SOME = 0.5, 0.1
"""Least loss that outputs can reach, over that of the best constant output."""

BOUNDED_SCORES = Disease(
    "bounded-scores",
    "probabilities in the place of scores",
    f"a last activation with bounds (softmax, sigmoid, tanh), within which the loss cannot fall below {FLOOR:g} "
    f"(warning: {FLOOR_SOME:g}) of that of one output for all samples, while scores without bounds cost less than half",
    "A loss that takes scores squashes them itself. Squashed twice, C classes cost log(1 + (C − 1)/e) at least, and "
    "the gradient is that of one softmax times that of the other: it learns slowly, at any rate.",
    "definition of the cross-entropy of scores; Bridle, Neurocomputing, 1990",
    ("non-finite", "wrong-labels"),
    certain=True,
)


def bounded_scores(view: View) -> Finding | None:
    """The least loss within the bounds of the last activation, over that of knowing nothing, if other scores reach less.

    This recognises any loss that takes scores and squashes them itself: probabilities of C classes taken for scores have a
    cross-entropy of at least log(1 + (C − 1)/e).
    """
    if not view.reading.layers or view.chance is None:
        return None
    last = view.reading.layers[-1]
    kind = _squashed_by(view, last)
    truth = None if kind is None and view.ending not in BOUNDS else _truth(view)
    if truth is None:
        return None
    name = kind or str(view.ending)
    low, high = BOUNDS[name]
    least = view.cost(low + (high - low) * truth, view.target)
    beyond = min(view.cost(far * (2 * truth - 1), view.target) for far in FAR)
    if not least > FLOOR_SOME * view.chance or not beyond < FLOOR * least:
        return None
    module = view.modules.get(last.name) if kind else None
    what = f"least loss of outputs from {low:g} to {high:g}, over that of one output for all samples"
    return BOUNDED_SCORES.found(
        graded(what, least / view.chance, FLOOR, FLOOR_SOME),
        cause=f"The model ends in {name}, and the loss function takes scores, which it squashes itself, as by softmax or "
        f"sigmoid: the loss cannot fall below {least:.3g}, and its gradient is small.",
        cure=remove_activation(last.name, name, fused=isinstance(module, nn.Linear))
        if module is not None and not next(module.children(), None)
        else Cure(f"# in forward(), leave out the last {name}: the loss function takes scores, and applies its own"),
        where=[last.name] if kind else [],
    )


def _squashed_by(view: View, last: LayerStats) -> str | None:
    """The last layer's activation, if it has bounds. Outputs of a softmax are recognised by their mean, 1/C."""
    if last.activation in BOUNDS:
        return last.activation
    output, classes = last.output, view.classes
    if classes is None or classes < 2 or not output.largest <= 1 + 1e-3:
        return None
    return "softmax" if abs(output.mean * classes - 1) < 1e-4 else None


def _truth(view: View) -> Tensor | None:
    """The targets as probabilities 0 and 1; None if they are neither labels nor 0 and 1."""
    t, like = view.target, next(view.model.parameters())
    with no_grad():
        if view.classes is not None:
            sure: Tensor = F.one_hot(t.clamp(0, view.classes - 1), view.classes).to(like.device, like.dtype)
            return sure
        return t if view.binary and t.numel() == view.reading.layers[-1].output.size else None
