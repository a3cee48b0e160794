"""The rule of numbers that are not finite, looked for in the order in which numbers are computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.rows import Culprits, begins, culprits
from kobai.lab.doctor.rules.view import View

NON_FINITE = Disease(
    "non-finite",
    "numbers that are not finite",
    "any input, target, weight, output, loss or gradient is NaN or infinite; where that is so of a few samples alone, by "
    "halving the batch again and again in evaluation mode, these are named. Of all, or of these, the operation is named by "
    "which it begins: the first on the tape whose result is infinite or NaN while its operands are finite. Or a step "
    "makes numbers of a parameter so whose gradient is 0",
    "Nothing can be learnt from them, and they spread: one NaN spoils every number computed with it.",
    "IEEE 754, 6.2",
    fact=True,
)

REPAIR = """good = {0}.isfinite().reshape(len({0}), -1).all(1)
x, t = x[good], t[good]  # without the samples that hold such numbers; or repair them"""

AGAIN = """# make the model anew, or go back to a checkpoint from before that: model.load_state_dict(...)
print([name for name, p in model.named_parameters() if not p.isfinite().all()])  # now {0}, ..."""

HUGE = 1e15
"""Squares of larger outputs, summed over a batch, come near the largest float32, 3e38."""


def non_finite(view: View) -> Finding | None:
    """NaN and infinity where they appear first: in the data, the weights, the outputs, the loss, the gradients."""
    reading = view.reading
    if data := spoilt(view.inputs, view.target):
        return data
    weights = [weight.name for weight in reading.weights if not weight.value.finite]
    if bad := [*dict.fromkeys([*weights, *view.broken])]:
        layers = [*dict.fromkeys(name.rpartition(".")[0] for name in bad)]
        drawn = {stage.layer for stage in view.stages}
        cause = "The parameters themselves are not finite: an earlier step, or the initialiser, went wrong."
        cure = view.reinitialise() if drawn.issuperset(layers) else Cure(AGAIN.format(", ".join(bad[:3])))
        return NON_FINITE.found(
            Evidence("parameters that are not finite", len(bad), 0, True), cause=cause, cure=cure, where=layers
        )
    outputs = [layer.name for layer in reading.layers if not layer.output.finite]
    gradients = [layer.name for layer in reading.layers if layer.gradient is not None and not layer.gradient.finite]
    spoils = outputs or gradients or (view.losses and not math.isfinite(view.losses[0]))
    if spoils and view.ledger is not None:
        few = culprits(view.ledger.fresh, view.loss_fn, view.inputs, view.target)
        if few is not None:
            return of_few(few, outputs[:1])
    last = reading.layers[-1] if reading.layers else None  # a net may consist of functions alone
    if spoils and (found := _of_all(view, outputs)) is not None:
        return found
    if outputs:
        cause = f"The numbers overflow in layer {outputs[0]!r}: its inputs and weights are finite, and their products are not."
        evidence = Evidence("layers whose outputs are not finite", len(outputs), 0, True)
        return NON_FINITE.found(evidence, cause=cause, cure=view.reinitialise(), where=outputs)
    if view.losses and not math.isfinite(view.losses[0]):
        if last is not None and last.output.largest > HUGE:
            cause = f"The outputs are as large as {last.output.largest:.1g}, and the loss of them is more than a float32 holds."
            evidence = Evidence("largest output", last.output.largest, HUGE, True)
            return NON_FINITE.found(evidence, cause=cause, cure=view.reinitialise(), where=[last.name])
        cause = (
            f"All outputs are finite, and the loss is {view.losses[0]:g}: the loss function overflows, takes log 0, or "
            "divides by 0."
        )
        cure = Cure(
            "# keep log and division off 0: give scores, not probabilities, to a loss that takes both together,\n"
            "loss_fn = nn.functional.cross_entropy  # or nn.functional.binary_cross_entropy_with_logits\n"
            "# or bound what goes into them, as in p.clamp(min=1e-7).log()"
        )
        return NON_FINITE.found(Evidence("losses that are not finite", 1, 0, True), cause=cause, cure=cure)
    if gradients:
        cause = (
            f"Outputs and loss are finite, and the gradient is not from layer {gradients[-1]!r} down: the loss or that "
            f"layer divides by 0."
        )
        cure = Cure(
            "# look at what is computed from that layer's output: sqrt, log, norm and division have no finite slope at 0;\n"
            "# add a small number before them, as in (y**2).sum(1).add(1e-12).sqrt()"
        )
        evidence = Evidence("layers whose gradient is not finite", len(gradients), 0, True)
        return NON_FINITE.found(evidence, cause=cause, cure=cure, where=gradients[::-1])
    return _by_a_step(view)


def _by_a_step(view: View) -> Finding | None:
    """Parameters whose numbers with a gradient of 0 a step has spoilt; others may have diverged."""
    if view.ledger is None or view.optimizer is None:
        return None
    with no_grad():
        spoilt = [
            t for t in view.ledger.trainees if bool(t.before.isfinite().all().item()) and _stepped_nowhere(t.parameter)
        ]
    if not spoilt:
        return None
    group = view.optimizer.param_groups[spoilt[0].group or 0]
    name = type(view.optimizer).__name__
    cause = f"A step of {name} makes numbers of {spoilt[0].name} NaN or infinite whose gradient is 0"
    code = "# a smaller rate, optimizer.param_groups[0]['lr'], or the usual settings of the optimizer"
    if group.get("eps") == 0:
        cause += ": with eps=0 it divides by the root of the mean squared gradient, and 0/0 is NaN where that is 0"
        code = (
            "for group in optimizer.param_groups:\n    group['eps'] = 1e-8  # and make the model anew: it holds NaN now"
        )
    return NON_FINITE.found(
        Evidence(f"numbers of {spoilt[0].name} that a step spoils", _count(spoilt[0].parameter), 0, True),
        cause=f"{cause}.",
        cure=Cure(code),
        where=list(dict.fromkeys(t.layer for t in spoilt)),
    )


def _of_all(view: View, where: Sequence[str]) -> Finding | None:
    """The operation by which numbers of the whole batch stop being finite, unless the outputs are huge already."""
    last = view.reading.layers[-1].output if view.reading.layers else None
    if view.ledger is None or (last is not None and last.finite and last.largest > HUGE):
        return None
    begun = begins(view.ledger.fresh, view.loss_fn, view.inputs, view.target)
    if begun is None:
        return None
    what = "the outputs are" if where else "the loss is" if not math.isfinite(view.losses[0]) else "the gradient is"
    return NON_FINITE.found(
        Evidence("operations by which numbers stop being finite", 1, 0, True),
        cause=f"Inputs and weights are finite, and {what} not: {begun}.",
        cure=Cure(begun.code or "# bound what goes into this operation, as in a.clamp(min=…, max=…)"),
        where=where,
    )


def _stepped_nowhere(parameter: Tensor) -> bool:
    """Whether a number is not finite though its gradient is 0."""
    return parameter.grad is not None and bool(((parameter.grad == 0) & ~parameter.isfinite()).any().item())


def of_few(few: Culprits, where: Sequence[str] = ()) -> Finding:
    """The finding of a few samples that spoil a batch."""
    return NON_FINITE.found(
        Evidence(f"samples, of {few.count}, that alone spoil the {few.what}", len(few.rows), 0, True),
        cause=f"{str(few)[0].upper()}{str(few)[1:]}.",
        cure=Cure(few.code),
        where=where,
    )


def spoilt(inputs: Sequence[Any], target: Any) -> Finding | None:
    """NaN and infinity in a batch."""
    for name, what, tensors in (("x", "inputs", inputs), ("t", "targets", [target])):
        if numbers := sum(_count(tensor) for tensor in tensors):
            cause = f"The {what} hold NaN or infinity; one such number spoils the whole batch."
            evidence = Evidence(f"numbers of the {what} that are not finite", numbers, 0, True)
            return NON_FINITE.found(evidence, cause=cause, cure=Cure(REPAIR.format(name)))
    return None


def _count(tensor: Any) -> int:
    """How many numbers are not finite."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or not tensor.numel():
        return 0
    with no_grad():
        if math.isfinite(tensor.detach().sum().item()):  # the usual case, in a fifth of the time
            return 0
        return int((~tensor.detach().isfinite()).sum().item())
