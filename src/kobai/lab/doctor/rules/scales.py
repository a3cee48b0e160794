"""Rules of scales: first outputs that are sure of what they do not know, and a term of the loss that drowns the answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kobai import ops
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure, Patient
from kobai.lab.doctor.cures_of_outputs import shrink
from kobai.lab.doctor.findings import Disease, Evidence, Finding, graded
from kobai.lab.doctor.flow import mode
from kobai.lab.doctor.rules.data import FAULTS, OPTIMISER
from kobai.lab.doctor.rules.ends import parts, rebuilt
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import copy_of, evaluated
from kobai.train.batches import device_of
from kobai.train.step import computing

SURE, TOO_SURE, SHRUNK = 10.0, 3.0, (0.3, 0.1, 0.03, 0.01)
"""Loss of the first outputs over that of outputs that are all 0, and what they, or a weight, are multiplied by."""
NUMBERS = 10.0
"""How many times these limits are larger for numbers, which may be small in whatever unit, and whose errors are squared."""
NEAR = 1.3
"""Of that loss, with which nothing is claimed any more."""
NO_BETTER, FAR_BETTER = 0.95, 0.7
"""Of the loss of a constant answer: what a trained copy's answer is not below, and what it is below without the other terms."""
SCORES = 0.6, 0.3
"""The same of the scores of classes, which a strong penalty leaves a little to say."""

OVERCONFIDENT = Disease(
    "overconfident",
    "first outputs that are far too large",
    f"the loss of the first outputs is above {TOO_SURE:g} times that of outputs that are all 0 (an error above {SURE:g}; "
    f"{NUMBERS:g} times as much where the targets are no classes), and that of the same outputs, made smaller, comes down to "
    f"{NEAR:g} times that",
    "Who knows nothing should say nothing: equal scores, or outputs of the targets' size. Scores of size s cost about s where "
    "they are wrong, and the first steps do nothing but make them small. An embedding of deviation 1 that is the last layer "
    "too gives scores of size √d, for d units.",
    "Karpathy, A recipe for training neural networks, 2019 (verify the loss at init); Press and Wolf, arXiv:1608.05859 (tied "
    "weights)",
    (*FAULTS, *OPTIMISER, "exploding-activations"),
    looks=True,
)
DROWNED = Disease(
    "term-drowned",
    "a term of the loss that drowns the answer",
    "of outputs in several parts, of which one has the targets' shape: after a trial that part is no better than the targets' "
    f"mean ({NO_BETTER:g} of its loss), while in a copy in which the other parts are given no gradient by the loss itself it "
    f"comes below {FAR_BETTER:g} of that; or of scores of classes, beside a penalty such as one of the weights, "
    f"{SCORES[0]:g} and "
    f"{SCORES[1]:g} of the loss of the classes' shares",
    "Terms of a loss are traded against each other at their sizes. A divergence that is a sum over codes beside an error "
    "that is a mean over pixels counts as many times too much as there are pixels: codes without information cost least, and "
    "every answer is the mean. The bound on the likelihood has the sum in both.",
    "Kingma and Welling, arXiv:1312.6114, equation 10; Bowman et al., arXiv:1511.06349 (collapse); Higgins et al., ICLR 2017",
    (*FAULTS,),
    certain=True,
)


def overconfident(view: View) -> Finding | None:
    """The loss of the first outputs over that of zeros, and the weight that, made smaller, brings it down most."""
    assert view.ledger is not None
    model, _ = copy_of(view.ledger.case.model)
    with mode(model, training=True), computing(view.precision, device_of(model).type):
        output = model(*view.inputs)
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        first, none = view.cost(output, view.target), view.cost(0 * output, view.target)
        scale = 1.0 if view.whole_numbers else NUMBERS
        if not 0 < none < math.inf or not scale * TOO_SURE * none < first < math.inf:
            return None
        if not min(view.cost(part * output, view.target) for part in SHRUNK) < NEAR * none:
            return None
        name, part, least = _heaviest(view, model, none)
    size = float((output.double() ** 2).mean().item()) ** 0.5
    where = [name.rpartition(".")[0]] if name else []
    smaller = f", and {name} with {part:g} of its initial size makes it {least:.3g}" if name else ""
    return OVERCONFIDENT.found(
        graded("loss of the first outputs over that of outputs that are all 0", first / none, scale * SURE, scale * TOO_SURE),
        cause=f"The first loss is {first:.3g}, and {none:.3g} for outputs that are all 0: the outputs, of size {size:.2g}, "
        f"are far too large{smaller}.",
        cure=shrink(name, part)
        if name
        else Cure("# make the first outputs small: a last layer whose weights have deviation 1/√n, or begin at 0"),
        where=where,
    )  # fmt: skip


def _heaviest(view: View, model: Any, none: float) -> tuple[str, float, float]:
    """The trained weight, the part of its size with which the loss comes nearest to that of zeros, and it; "" if none."""
    trained = [name for name, p in model.named_parameters() if p.requires_grad and p.ndim > 1]
    for part in SHRUNK:
        costs = {name: _cost(view, model, name, part) for name in trained}
        best = min(costs, key=lambda name: costs[name], default="")
        if best and costs[best] < NEAR * none:
            return best, part, costs[best]
    return "", 1.0, math.inf


def _cost(view: View, model: Any, name: str, part: float) -> float:
    """The loss with one weight made smaller; infinite if it is none."""
    weight = model.get_parameter(name)
    kept = weight.detach().clone()
    with mode(model, training=True):  # as it is trained: running statistics have not seen anything yet
        weight.mul_(part)
        cost = view.cost(model(*view.inputs), view.target)
        weight.copy_(kept)
    return cost if math.isfinite(cost) else math.inf


def drowned(view: View) -> Finding | None:
    """The answer of a copy beside the targets' mean, as it is trained and without the terms of the other parts."""
    assert view.trials is not None
    course, batch = view.trials.course(), view.trials.fitted[0]
    at = _answer(course.patient, batch)
    if at is None or not math.isfinite(course.end):
        return None
    least, most = (NO_BETTER, FAR_BETTER) if view.classes is None and view.target.is_floating_point() else SCORES
    own = _over_mean(view, course.patient, batch, at)
    if not own > least:
        return None
    loss_fn = view.loss_fn

    def alone(output: Any, target: Any) -> Any:
        given = [part if i == at else part.detach() for i, part in enumerate(parts(output))]
        return loss_fn(rebuilt(output, iter(given)), target)

    def change(patient: Patient) -> None:
        patient.loss_fn = alone

    other = view.trials.course("the other terms give no gradient", change)
    freed = _over_mean(view, other.patient, batch, at)
    if not freed < most:
        return None
    return DROWNED.found(
        Evidence("loss of a trained copy's answer over that of the targets' mean", own, least, True),
        Evidence("the same, over that of a copy trained without the other terms", own / freed, 1 / most, True),
        cause=f"After {len(course.losses)} steps the answer costs {own:.3g} times as much as the targets' mean (or the "
        "classes' "
        f"shares), the same for every sample, and {freed:.2g} times in a copy that was trained without the other terms "
        "of the loss: their weight is "
        "too large, and a code says nothing (as in a variational autoencoder whose divergence is a sum and whose error "
        "a mean), or the penalty leaves the weights nothing to say.",
        cure=Cure(
            "# weigh the terms alike: sums over all features and over all codes, means over samples alone,\n"
            "# loss = ((y - t) ** 2).reshape(len(t), -1).sum(1).mean() + divergence.sum(1).mean()\n"
            "# or begin with a weight of 0 for the divergence, and let it grow over the first epochs;\n"
            "# of a penalty: a factor so small that it is some per cent of the loss at the beginning"
        ),
    )  # fmt: skip


def _answer(patient: Patient, batch: Sequence[Any]) -> int | None:
    """Which part of the output has the targets' shape, where there are others that the loss may depend on."""
    with evaluated(patient.model) as model:
        given = parts(model(*batch[:-1]))
    target = batch[-1]
    if len(given) < 2 or not isinstance(target, Tensor):
        return None
    if not target.is_floating_point():  # scores of classes
        fitting = [
            i for i, part in enumerate(given) if part.ndim == 2 and part.shape[:1] == target.shape and part.shape[1] > 1
        ]
        return fitting[0] if len(fitting) == 1 else None
    fitting = [i for i, part in enumerate(given) if part.shape == target.shape]
    return fitting[0] if fitting else None


def _constant(target: Tensor, like: Tensor) -> Tensor:
    """The mean of the targets, or the logarithms of the shares of labels, for every sample."""
    if target.is_floating_point():
        constant: Tensor = target.mean(0, keepdim=True).expand(target.shape).to(like.dtype)
        return constant
    counts = target.clamp(0, like.shape[1] - 1).bincount(minlength=like.shape[1]) + 1
    shares: Tensor = (counts.to(like.dtype) / (len(target) + len(counts))).log().reshape(1, -1).expand(like.shape)
    return shares


def _over_mean(view: View, patient: Patient, batch: Sequence[Any], at: int) -> float:
    """The loss of the answer over that of the targets' mean, the other parts being 0."""
    *inputs, target = batch
    with evaluated(patient.model) as model, computing(view.precision, device_of(model).type):
        output = model(*inputs)
        given = parts(output)
        costs = []
        for answer in (given[at], _constant(target, given[at])):
            zeros = [ops.zeros_like(part) for part in given]
            costs.append(view.cost(rebuilt(output, iter([*zeros[:at], answer, *zeros[at + 1 :]])), target))
    own, constant = costs
    return own / constant if 0 < constant < math.inf and math.isfinite(own) and own >= 0 else math.nan
