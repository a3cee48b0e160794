"""The rule of the outputs: whether the loss can become small within what the model's end, after its last layer, can say."""

from __future__ import annotations

import math
from collections.abc import Callable

from kobai import nn, ops
from kobai.autograd import grad
from kobai.core.grad_mode import enable_grad, no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure, remove_activation
from kobai.lab.doctor.cures_of_outputs import replace_end
from kobai.lab.doctor.findings import Disease, Evidence, Finding, graded
from kobai.lab.doctor.rules.ends import End, Reach, parts, truths, untouched
from kobai.lab.doctor.rules.view import View

FLOOR, FLOOR_SOME = 0.5, 0.1
"""Least loss that outputs can reach, over that of the best constant output."""

REFUTED = 0.9
"""Loss of a copy after its training over the least that its end was thought to reach, below which that was wrong: other layers
lead to the output too."""

FLAT, PRESSED = 0.9, 0.2
"""Shares of outputs without a gradient: of all, or of a class; and of scores that the loss presses against a bound."""

BOUNDED_SCORES = Disease(
    "bounded-scores",
    "outputs within bounds",
    f"where the last layer may give any numbers, the loss cannot fall below {FLOOR:g} (warning: {FLOOR_SOME:g}) of that "
    "of one output for all samples (of zeros, where one output is right for all), whatever the weights after it, for what "
    "follows that layer (softmax, sigmoid, ReLU, a normalisation, dropout) "
    f"bounds the outputs, while free outputs cost less than half; or {FLAT:.0%} of the outputs are given no gradient by "
    f"it; or (a warning) {PRESSED:.0%} of scores are pressed against a bound, without a gradient (an error if {FLAT:.0%} "
    "of a class's are)",
    "A loss that takes scores squashes them itself. Squashed twice, C classes cost log(1 + (C − 1)/e) at least, and "
    "the gradient is that of one softmax times that of the other: it learns slowly, at any rate. A target outside the "
    "outputs' range costs its distance for ever, and one output with a softmax is always 1.",
    "definition of the cross-entropy of scores; Bridle, Neurocomputing, 1990; Bishop 1995, sections 6.5 and 6.9",
    ("non-finite", "wrong-labels", "one-module-for-several"),
    certain=True,
)

_NAMES = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Dropout": "dropout", "LogSigmoid": "logsigmoid"}


def bounded_scores(view: View) -> Finding | None:
    """The least loss within what the model's end can say, over that of knowing nothing, if free outputs reach less.

    The last layer's output is replaced by free numbers, which descend the loss through what follows that layer. This
    recognises any loss and any end: probabilities of C classes taken for scores have a cross-entropy of at least
    log(1 + (C − 1)/e), a ReLU leaves the squares of negative targets.
    """
    with untouched(view.model):
        end = view.end
        if end is None or not end.given:
            return None
        try:
            reach = end.reach()
            if not reach.moves and end.passes():
                return None
        except (ValueError, RuntimeError, TypeError, IndexError):  # a loss, or an end, that takes no other numbers
            return None
        least, free = reach.end, max(reach.free, 0.0)
        bounded = FLOOR_SOME * reach.guess < least < math.inf and free < FLOOR * least
        if not (0 < reach.guess < math.inf and bounded):
            return _flat(view, end, reach)
        if not reach.all and end.bypassed():  # a second output has weights of its own
            return None
        if _gone_beyond(view, end, REFUTED * least):
            return None
        where, name = _named(view, end)
        cure = _cure(view, end, where, name)
        flat = _flat(view, end, reach)
    share = graded(
        "least loss that the outputs can reach, over that of one output for all samples",
        least / reach.guess,
        FLOOR,
        FLOOR_SOME,
    )
    severe = flat is not None and flat.severity == "error"
    return BOUNDED_SCORES.found(
        share,
        *(flat.evidence if flat is not None and severe else ()),
        cause=_cause(view, end, reach, name),
        cure=cure,
        where=[where] if where is not None else [],
        severity="error" if severe else share.severity,
    )


def _gone_beyond(view: View, end: End, bound: float) -> bool:
    """Whether a copy that was trained for a while has a loss below the bound on the samples that gave it."""
    if view.copy is None:
        return False
    with no_grad():
        loss = end.loss_fn(view.copy.patient.model(*end.inputs), end.target)
    return float(loss.item()) < bound


def _cause(view: View, end: End, reach: Reach, name: str) -> str:
    """Why the loss cannot become small."""
    stuck = f"the loss cannot fall below {reach.end:.3g}, and one output for all samples costs {reach.guess:.3g}"
    if not reach.moves:
        return f"The model ends in {name}, and its output is always {reach.high:.3g}, whatever the last layer gives: {stuck}."
    if end.random:
        return f"The model ends in {name}, which changes its outputs at random: {stuck}."
    t = view.target
    if view.classes is not None or view.binary or not isinstance(t, Tensor) or not t.is_floating_point():
        squashed = (
            ", which it squashes itself, as by softmax or sigmoid"
            if reach.low >= -1.001 and reach.high <= 1.001
            else ""
        )
        return f"The model ends in {name}, and the loss function takes scores{squashed}: {stuck}."
    least, most = (float(x.item()) for x in (t.min(), t.max()))
    return (
        f"The model ends in {name}, with outputs from {_bound(reach.low)} to {_bound(reach.high)}, and the targets are from "
        f"{least:.3g} to {most:.3g}: {stuck}."
    )


def _bound(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 100 else "no bound"


def _named(view: View, end: End) -> tuple[str | None, str]:
    """The layer that bounds the outputs, if it is a module of its own, and what it is called."""
    layers = view.reading.layers
    names = [layer.name for layer in layers]
    last = layers[max(i for i, name in enumerate(names) if not layers[i].block or i == len(names) - 1)]
    stage = view.stages[-1].layer
    sums = _sums(end.parts[0])
    if isinstance(end.fused, str):
        return stage, end.fused
    if last.name != stage:
        module = view.modules[last.name]
        kind = type(module).__name__
        return last.name, last.activation or (sums if kind in ("Softmax", "LogSoftmax") else None) or _NAMES.get(
            kind
        ) or kind
    return None, sums or view.ending or f"what follows {stage!r}"


def _sums(output: Tensor) -> str | None:
    """Which softmax an output has gone through, by what sums to 1."""
    if output.ndim < 2:
        return None
    for text, part in (("softmax", output), ("log_softmax", output.exp())):
        if not bool((part >= 0).all().item()):
            continue
        for dim, over in ((1, ""), (-1, " over the last dimension"), (0, " over the batch")):
            if output.shape[dim] > 1 or dim != 0:
                off = float((part.sum(dim) - 1).abs().max().item())
                if off < 1e-4:
                    return text + (over if output.shape[1] > 1 or dim == 0 else " over one unit")
    return None


def _cure(view: View, end: End, where: str | None, name: str) -> Cure:
    """The end of the model with which the loss can become small: none, else a sigmoid or a softmax over the classes."""
    module = view.modules.get(where) if where is not None else None
    wanted = _fitting(end)
    if where is None or module is None or next(module.children(), None) is not None:
        last = name if name.startswith("what ") else f"the last {name}"
        if wanted is None:
            advice = f"# in forward(), leave out {last}; or scale the targets into the range of the outputs"
        else:
            put = "" if wanted == "nn.Identity()" else f", and put {wanted} in its place"
            advice = f"# in forward(), leave out {last}{put}: the loss function asks for that"
        return Cure(advice)
    if wanted in (None, "nn.Identity()"):
        return remove_activation(where, name, fused=isinstance(end.fused, str))
    return replace_end(where, str(wanted), isinstance(end.fused, str))


ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.Identity()": lambda z: z,
    "nn.Sigmoid()": ops.sigmoid,
    "nn.LogSoftmax(dim=1)": lambda z: nn.functional.log_softmax(z, 1),
    "nn.Softmax(dim=1)": lambda z: nn.functional.softmax(z, 1),
}
"""What a model may end in instead."""


def _fitting(end: End) -> str | None:
    """The first of :data:`ENDS` with which scores that are sure of the truth cost next to nothing, and others can be tried."""
    if len(end.given) != 1 or len(end.parts) != 1 or end.given[0].shape != end.parts[0].shape:
        return None
    z = end.given[0]
    truth = truths(z, end.target)
    if truth is None:
        return None
    for code, function in ENDS.items():
        if z.ndim < 2 and "dim=1" in code:
            continue
        with no_grad():
            try:
                costs = [
                    float(end.cost([function(score)]).item())
                    for score in (10 * (2 * truth - 1), -10 * (2 * truth - 1), truth)
                ]
            except (ValueError, RuntimeError):
                continue
        least = min(costs)
        if all(map(math.isfinite, costs)) and -1e-3 <= least < 0.2 * max(costs):
            return code
    return None


def _flat(view: View, end: End, reach: Reach) -> Finding | None:
    """Outputs where the end passes on no gradient: of nearly all; or of scores at a bound beyond which the loss would have
    them, the share of all, and the greatest share among those of one class."""
    if view.live or end.random or not reach.all or len(end.given) != 1 or len(end.parts) != 1:
        return None
    z, y = end.given[0], end.parts[0]
    if z.shape != y.shape:
        return None
    with enable_grad():
        leaf = z.detach().requires_grad_(True)
        (output,) = parts(end.run([leaf]))
        (passed,) = (
            grad(output, [leaf], [ops.rand_like(output)], allow_unused=True) if output.requires_grad else (None,)
        )
        free = output.detach().requires_grad_(True)
        cost = end.cost([free])
        (asked,) = grad(cost, [free], allow_unused=True) if cost.requires_grad else (None,)
    if passed is None or asked is None:
        return None
    with no_grad():
        none, wanted = passed == 0, asked != 0
        pressed = none & (((asked > 0) & (y <= reach.low)) | ((asked < 0) & (y >= reach.high)))
        most = float((none & wanted).sum().item()) / max(1.0, float(wanted.sum().item()))
        rows = pressed.reshape(len(pressed), -1).float()
        share, worst = float(rows.mean().item()), float(rows.mean(0).max().item())
    what: list[Evidence] = []
    if most > FLAT:
        what.append(Evidence("outputs that are given no gradient", most, FLAT, True, share=True))
    if view.classes is not None or view.binary:
        if share > PRESSED:
            what.append(
                Evidence("scores at a bound, without a gradient", share, PRESSED, True, share=True, severity="warning")
            )
        if worst > FLAT:
            what.append(Evidence("such scores of one class", worst, FLAT, True, share=True))
    if not what:
        return None
    where, name = _named(view, end)
    return BOUNDED_SCORES.found(
        *what,
        cause=f"The model ends in {name}, with outputs from {_bound(reach.low)} to {_bound(reach.high)}: an output at its "
        "bound has no gradient, though the loss function would move it on.",
        cure=_cure(view, end, where, name),
        where=[where] if where is not None else [],
        severity="error" if any(each.severity == "error" for each in what) else "warning",
    )
