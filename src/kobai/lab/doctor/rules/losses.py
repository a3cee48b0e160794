"""Rules of the loss function: whether it takes these outputs and targets together, sample by sample, and has a least value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kobai import ops
from kobai.autograd import grad
from kobai.autograd.samples import vmap
from kobai.core.grad_mode import enable_grad, no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.cures_of_outputs import (
    append_end,
    logarithms,
    one_by_one,
    probabilities,
    replace_end,
    same_shape,
    set_loss,
    targets_within,
    turned,
)
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.all_pairs import SAME, AllPairs, over_all_pairs
from kobai.lab.doctor.rules.ends import End, parts, truths, untouched
from kobai.lab.doctor.rules.view import View

NORMED = 1e-3
"""How far log Σ exp of log-probabilities may be from 0, and a sum of probabilities from 1."""
SURER = (2.0, 5.0, 10.0)
"""Scores that are ever surer of one side."""
SHIFTS, NEARLY = (10.0, 100.0, -100.0), 1e-2
"""What is added to all outputs, and how even the loss falls by it where it has no least value."""
BEYOND = 3.0
"""Outputs over targets of 1, where a loss of shares from 0 to 1 has fallen below 0."""
MIXED = 0.25
"""Share of the other samples whose gradient changes with one target."""

MIXED_TARGETS = Disease(
    "mixed-targets",
    "outputs compared with the targets of other samples",
    "the loss of a batch is the mean (or sum, or root of the mean square) of the losses of all pairs of an output and a "
    f"target, within {SAME:g}, and not of those of outputs with their own targets; if one target is changed, the gradient by "
    f"more than {MIXED:.0%} of the other samples' outputs changes. Losses that compare samples on purpose are no such mean",
    "(N, 1) − (N,) is broadcast to (N, N): each output is compared with all N targets, and what suits all of them is "
    "their mean. The loss then cannot fall below the variance of the targets, whatever the net.",
    "NumPy's and PyTorch's rules of broadcasting; Bishop 1995, section 6.1",
    ("non-finite",),
    certain=True,
)
REFUSED = Disease(
    "refused-by-the-loss",
    "outputs or targets that the loss function refuses",
    "the loss function fails, and does not if the targets have the shape of the outputs, if they lie from 0 to 1, or if "
    "a sigmoid or a softmax follows the model",
    "A loss of probabilities takes numbers from 0 to 1, and compares each with a target of its own.",
    "definition of the binary cross-entropy",
    certain=True,
)
NO_LEAST_LOSS = Disease(
    "no-least-loss",
    "a loss that has no least value",
    "the loss is linear in the outputs and falls with that of the true class, as the likelihood of log-probabilities "
    f"does, and log Σ exp of a sample's outputs is more than {NORMED:g} from 0; or it is negative for outputs far from the "
    "targets, and lower the farther they are; or it is negative for scores that are sure, falls with their size, and does "
    "not become negative with the same targets scaled to lie from 0 to 1; or it falls in proportion to a number that is added "
    f"to all outputs ({', '.join(f'{far:g}' for far in SHIFTS)}), and not if log_softmax follows them; or it is 0 (within "
    f"{NORMED:g}) for outputs that are the targets, 0 and 1, above 0 nearer to each other, and negative for {BEYOND:g} times "
    "the targets, and the outputs go beyond 0 and 1",
    "A probability is at most 1, so that its −log is at least 0: −log p of a class has a least value, −p or minus a "
    "score falls on without it. The cross-entropy −t log p − (1 − t) log (1 − p) is bounded only for t from 0 to 1.",
    "Bishop 1995, sections 6.7 and 6.9; Cover and Thomas, Elements of Information Theory, section 2.6",
    ("non-finite", "wrong-labels", "mixed-targets"),
    certain=True,
)
CONSTANT_LOSS = Disease(
    "constant-loss",
    "a loss that does not depend on the outputs",
    "the loss stays exactly the same, and its gradient is 0, if random numbers are added to the outputs",
    "The softmax of a single score is 1, whatever the score: its cross-entropy has nothing to be lowered.",
    "definition of the softmax",
    ("non-finite", "wrong-labels"),
    certain=True,
)

ONE_SHAPE = (
    "# in the loss function, print the shapes of what is subtracted or compared: (N,) with (N, 1) gives (N, N).\n"
    "# Bring both into one shape, by y.reshape(t.shape), or t[:, 0] in place of t[:, :1]"
)


def refused(view: View) -> Finding | None:
    """What must be changed for the loss function to take outputs and targets that it refuses."""
    y, t = view.output, view.target
    if not isinstance(y, Tensor) or not isinstance(t, Tensor):
        return None
    shapes = f"The loss function refuses outputs {tuple(y.shape)} with targets {tuple(t.shape)}"
    for kind, output, target, cure, evidence in _remedies(view, y.detach(), t):
        if math.isfinite(view.cost(output, target)):
            return REFUSED.found(evidence, cause=f"{shapes}: {kind}.", cure=cure)
    return None


def _remedies(view: View, y: Tensor, t: Tensor) -> Iterator[tuple[str, Tensor, Tensor, Cure, Evidence]]:
    """What may make a loss take outputs and targets: what is wrong, both as they should be, the cure and its evidence."""
    shaped = t
    if y.numel() == t.numel() and y.shape != t.shape:
        shaped = t.reshape(y.shape)
        other = Evidence("dimensions of the targets", t.ndim, y.ndim, t.ndim > y.ndim)
        if other.passed:
            yield "it wants them in one shape", y, shaped, same_shape(view.loss_fn, tuple(y.shape[1:])), other
    low, high = float(t.min().item()), float(t.max().item())
    least, most = float(y.min().item()), float(y.max().item())
    outside = Evidence("least output", least, 0.0, False) if least < 0 else Evidence("greatest output", most, 1.0, True)
    if outside.passed:
        yield (
            "it takes probabilities, and the outputs are scores",
            y.sigmoid(),
            shaped,
            append_end("nn.Sigmoid()"),
            outside,
        )
    if high > low and (low < 0 or high > 1):
        beyond = Evidence("least target", low, 0.0, False) if low < 0 else Evidence("greatest target", high, 1.0, True)
        cure = targets_within(view.loss_fn, low, high)
        yield "it takes targets from 0 to 1", y.clamp(0, 1), (shaped - low) / (high - low), cure, beyond


def mixed_targets(view: View) -> Finding | None:
    """Whether the loss of a batch is that of every output with every target, as where shapes are broadcast."""

    with untouched(view.model):
        end = view.end
        if end is None or not isinstance(end.target, Tensor):
            return None
        every = over_all_pairs(end.asked, end.parts, end.target)
        if every is None:
            return None
        share = max(_others_changed(end, every, k) for k in range(len(end.parts)))
        if not share > MIXED:
            return None
        wide = _widened(end)
        alone = isinstance(end.output, Tensor) and _taken_alone(end)
    n, cause = len(end.target), "the best that the net can do is to say their mean."
    which = "the targets of all samples" if every.column is None else f"column {every.column} of all targets"
    if wide is not None:
        y, t = (_written(part.shape, n) for part in (end.parts[0], end.target))
        what = f"Outputs {y} and targets {t} are broadcast to {_written(wide, n)}, for N samples"
        cure = same_shape(view.loss_fn, tuple(end.parts[0].shape[1:]))
    else:
        what = "Within the loss function shapes such as (N,) and (N, 1) are broadcast to (N, N), for N samples"
        cure = one_by_one(view.loss_fn, every.summed) if alone else Cure(ONE_SHAPE)
    return MIXED_TARGETS.found(
        Evidence("other samples whose gradient one target changes", share, MIXED, True, share=True),
        cause=f"{what}: each output is compared with {which}, and {cause}",
        cure=cure,
    )


def _widened(end: End) -> Sequence[int] | None:
    """The shape that outputs and targets of one size and different shapes are broadcast to."""
    y, t = end.parts[0], end.target
    if len(end.parts) != 1 or y.shape == t.shape or y.numel() != t.numel():
        return None
    try:
        wide = np.broadcast_shapes(tuple(y.shape), tuple(t.shape))
    except ValueError:
        return None
    return None if math.prod(wide) == y.numel() else wide


def _others_changed(end: End, every: AllPairs, k: int) -> float:
    """See :func:`_others`, of the k-th tensor of the outputs."""
    slopes = [slope_of(end, end.parts[k], target, k) for target in (end.target, every.target)]
    return 0.0 if slopes[0] is None or slopes[1] is None else _others(slopes[0], slopes[1], every.row)


def _taken_alone(end: End) -> bool:
    """Whether the loss function can be called on batches of one, all at once."""
    with no_grad():
        try:
            vmap(end.loss_fn)(end.parts[0][:, None], end.target[:, None])
        except Exception:  # what it does with numbers, vmap cannot follow
            return False
    return True


def _written(shape: Sequence[int], samples: int) -> str:
    sizes = ["N" if size == samples else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"


def _others(before: Tensor, after: Tensor, i: int) -> float:
    """Share of the samples but the i-th one whose gradient has changed."""
    with no_grad():
        rows = (before != after).reshape(len(before), -1).float().amax(1)
        return float(((rows.sum() - rows[i]) / (len(rows) - 1)).item())


def slope_of(end: End, y: Tensor, target: Any, place: int = 0) -> Tensor | None:
    """The loss's gradient by the outputs, or by the one at a place of several; None if it refuses them."""
    with enable_grad():
        leaf = y.detach().requires_grad_(True)
        given = [*end.parts[:place], leaf, *end.parts[place + 1 :]]
        try:
            (slope,) = grad(end.cost(given, target), [leaf], allow_unused=True)
        except (ValueError, RuntimeError, TypeError, IndexError):
            return None
    return ops.zeros_like(leaf) if slope is None else slope.detach()


def no_least_loss(view: View) -> Finding | None:
    """A likelihood of what is no logarithm of a probability; or a cross-entropy of targets that are no probabilities."""
    with untouched(view.model):
        end = view.end
        if end is None or len(end.parts) != 1:
            return None
        y = end.parts[0]
        try:
            truth = truths(y, end.target)
        except (ValueError, RuntimeError, TypeError):
            truth = None
        if truth is None or truth.shape != y.shape:
            return _of_a_constant(view, end, y)
        return (
            _of_no_logarithms(view, end, y, truth)
            or _of_other_targets(view, end, y)
            or _of_wrong_sign(view, end, y, truth)
            or _of_no_shares(view, end, y, truth)
        )


def _of_no_logarithms(view: View, end: End, y: Tensor, truth: Tensor) -> Finding | None:
    """−y of the true class, where y is no logarithm of a probability."""
    if y.ndim < 2 or y.shape[1] < 2 or not bool(((truth.sum(1) - 1).abs() < NORMED).all().item()):
        return None
    slope = slope_of(end, y, end.target)
    again = slope_of(end, y + ops.rand_like(y), end.target)
    if slope is None or again is None:
        return None
    with no_grad():
        size = float(slope.abs().max().item())
        linear = size > 0 and float((slope - again).abs().max().item()) < 1e-3 * size
        to_truth = bool((slope <= 0).all().item()) and not bool(((slope != 0) & (truth == 0)).any().item())
        off = float(y.logsumexp(1).abs().max().item())
        if not linear or not to_truth or not off > NORMED:
            return None
        shares = bool((y >= 0).all().item()) and float((y.sum(1) - 1).abs().max().item()) < NORMED
        batch = float(y.logsumexp(0).abs().max().item()) < NORMED
    last = view.reading.layers[-1].name if view.reading.layers else ""
    module = view.modules.get(last)
    if batch:
        kind = "log-probabilities over the batch, in place of the classes (dim=0 of a log_softmax)"
        own = module is not None and type(module).__name__ == "LogSoftmax"
        cure = replace_end(last, "nn.LogSoftmax(dim=1)") if own else Cure("# in forward(): F.log_softmax(y, dim=1)")
    else:
        kind = "probabilities (a softmax without logarithm)" if shares else "scores (there is no log_softmax)"
        cure = logarithms(view.loss_fn, shares)
    return NO_LEAST_LOSS.found(
        Evidence("log of the sum of exp(outputs) of a sample, in size", off, NORMED, True),
        cause="The loss function is minus the output of the true class, as nll_loss is, which must be a log-probability, as of "
        f"log_softmax; the outputs are {kind}, and the loss is no likelihood.",
        cure=cure,
        where=[last] if last in view.modules else [],
    )


def _of_a_constant(view: View, end: End, y: Tensor) -> Finding | None:
    """A likelihood, as of alignments, that grows without limit with a number added to what the last layer gives."""
    if len(end.given) != 1 or y.ndim < 2 or y.shape[-1] < 2:
        return None
    (z,) = end.given
    with no_grad():
        own = end.asked([_only(end.run([z]))])
        moved = [own - end.asked([_only(end.run([z + far]))]) for far in SHIFTS]
        gain = moved[0] / SHIFTS[0]
        even = all(abs(each / far - gain) < NEARLY * gain for each, far in zip(moved, SHIFTS, strict=True))
        if not gain > NORMED or not even:
            return None
        sure = [end.asked([_only(end.run([z + far])).log_softmax(-1)]) for far in (0.0, SHIFTS[-1])]
        if not all(loss >= 0 and math.isfinite(loss) for loss in sure) or abs(sure[1] - sure[0]) > NEARLY * (
            1 + sure[0]
        ):
            return None
    last = view.reading.layers[-1].name if view.reading.layers else ""
    return NO_LEAST_LOSS.found(
        Evidence(f"fall of the loss where {SHIFTS[1]:g} is added to all outputs", moved[1], NORMED * SHIFTS[1], True),
        cause=f"The loss falls by {gain:.3g} for each 1 that is added to all outputs, which says nothing of the targets, and "
        f"so on without limit; of log_softmax of the outputs it is {sure[0]:.3g}, whatever is added. The loss function takes "
        "log-probabilities, and is given scores: there is no log_softmax.",
        cure=logarithms(view.loss_fn, False, -1),
        where=[last] if last in view.modules else [],
    )


def _of_wrong_sign(view: View, end: End, y: Tensor, truth: Tensor) -> Finding | None:
    """A loss that is lower, and falls on without limit, the farther the outputs are from the targets."""
    if len(end.given) != 1 or end.given[0].shape != y.shape:
        return None
    with no_grad():
        shares = bool(((truth >= 0) & (truth <= 1)).all().item())
        away = 2 * truth - 1 if shares else ops.ones_like(truth)
        fitting, far, farther = (
            end.asked([_only(end.run([at]))])
            for at in (10 * away if shares else truth, truth - 5 * away, truth - 10 * away)
        )
    if not (farther < far < min(fitting, -1.0)):
        return None
    return NO_LEAST_LOSS.found(
        Evidence("loss of outputs that are far from the targets", farther, min(fitting, 0.0), False),
        cause=f"The loss is {fitting:.3g} for outputs that fit the targets and {farther:.3g} for outputs far from them: it "
        "has the wrong sign, and falls on without limit.",
        cure=turned(view.loss_fn),
    )


def _of_no_shares(view: View, end: End, y: Tensor, truth: Tensor) -> Finding | None:
    """A loss of shares, such as of an overlap, which is 0 where they are the targets, and lower for outputs beyond 1."""
    with no_grad():
        least, most = float(y.min().item()), float(y.max().item())
        binary = bool(((truth == 0) | (truth == 1)).all().item()) and 0 < float(truth.mean().item()) < 1
        if not binary or (least >= -NORMED and most <= 1 + NORMED):
            return None
        fitting, near, beyond = (end.asked([at]) for at in (truth, 0.2 + 0.6 * truth, BEYOND * truth))
    if not (abs(fitting) < NORMED < near and beyond < -NORMED):
        return None
    return NO_LEAST_LOSS.found(
        Evidence(f"loss of outputs that are {BEYOND:g} times the targets", beyond, 0.0, False),
        cause=f"The loss is {fitting:.2g} where the outputs are the targets, 0 and 1, and {beyond:.3g} where they are "
        f"{BEYOND:g} times as large: it takes shares from 0 to 1, as an overlap (Dice, IoU) does, and falls on beyond them. "
        f"The outputs are scores, here from {least:.3g} to {most:.3g}: there is no sigmoid.",
        cure=probabilities(view.loss_fn),
    )


def _only(output: Any) -> Tensor:
    """The one tensor of an output."""
    (y,) = parts(output)
    return y


def _of_other_targets(view: View, end: End, y: Tensor) -> Finding | None:
    """A loss that becomes negative, and would not with targets from 0 to 1."""
    t = view.target
    if not t.is_floating_point():
        return None
    low, high = float(t.min().item()), float(t.max().item())
    if not high > low or (low >= 0 and high <= 1):
        return None
    own, scaled = end.target, (end.target - low) / (high - low)

    def losses(target: Any) -> list[float]:
        """Those of outputs, or else of what the last layer gives, that are ever surer of one side."""
        towards = ops.sign(target - 0.5).reshape(y.shape)
        found = [end.asked([far * towards], target) for far in SURER]
        if all(map(math.isfinite, found)) or len(end.given) != 1 or end.given[0].shape != y.shape:
            return found
        return [end.asked([_only(end.run([far * towards]))], target) for far in SURER]

    with no_grad():
        now, then = losses(own), losses(scaled)
    if not now[0] > now[1] > now[2] or not now[2] < -NORMED or not min(then) >= -NORMED:
        return None
    few = bool(((t == low) | (t == high)).all().item())
    return NO_LEAST_LOSS.found(
        Evidence("loss that outputs can reach", now[2], 0.0, False),
        cause=f"The targets are from {low:.4g} to {high:.4g}, and the loss function takes them for probabilities, from 0 to 1: "
        "as a cross-entropy it falls below 0, and on without limit. A regression's targets need a loss such as mse_loss.",
        cure=targets_within(view.loss_fn, low, high) if few or low == 0 else set_loss("mse_loss"),
    )


def _shaken(y: Tensor, size: float) -> Tensor:
    shaken: Tensor = y + size * (1 + y.abs()) * ops.randn_like(y)
    return shaken


def constant_loss(view: View) -> Finding | None:
    """Whether the loss changes with the outputs."""
    with untouched(view.model):
        end = view.end
        if end is None:
            return None
        with no_grad():
            try:
                losses = [float(end.cost([_shaken(part, size) for part in end.parts]).item()) for size in (0, 1, 10)]
            except (ValueError, RuntimeError):
                return None
    if len(set(losses)) > 1 or not math.isfinite(losses[0]):
        return None
    two = view.binary and end.parts[0].shape == end.target.shape
    cure = set_loss("binary_cross_entropy_with_logits") if two else None
    one = (
        " There is one score for each sample, whose softmax is 1."
        if all(len(p.shape) > 1 and p.shape[1] == 1 for p in end.parts)
        else ""
    )
    return CONSTANT_LOSS.found(
        Evidence("change of the loss when random numbers are added to the outputs", 0.0, math.ulp(0.0), False),
        cause=f"The loss is {losses[0]:.3g}, whatever the outputs are: there is nothing to learn from it.{one}",
        cure=cure
        or Cure(
            "# give the model one output for each class, or the loss function the outputs themselves, not what a rounding left"
        ),
    )
