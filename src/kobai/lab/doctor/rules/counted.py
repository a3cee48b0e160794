"""Rules of what the loss counts: padding, one frequent answer, weights the wrong way round, and too much smoothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai import ops
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.cures_of_losses import (
    alike,
    in_rows,
    leave_out,
    leave_out_zeros,
    smooth_not,
    weigh_classes,
    weigh_ones,
)
from kobai.lab.doctor.cures_of_outputs import set_loss, targets_on_two_sides
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.ends import untouched
from kobai.lab.doctor.rules.losses import slope_of
from kobai.lab.doctor.rules.pulls import Counted, counted
from kobai.lab.doctor.rules.reads import silent_zeros
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import undisturbed
from kobai.nn import functional as F
from kobai.train.batches import device_of
from kobai.train.step import computing
from kobai.xp import to_host

PADDED, RAGGED = 0.5, 0.9
ALIKE = 0.8
CROWDED, SAID, HEARD = 0.9, 0.2, 3.0
FEW = 5
FREQUENT, HEAVIER, STEADY = 3.0, 1.5, 0.05
AIM, MEANT = 0.5, 0.9
SHAKEN, COUNTED, MASKED = (0.1, 1.0, 10.0), 0.9, 0.5
"""Sizes of random numbers that are added to outputs; and shares of targets, see the rule of classes that are left out."""
SURE = tuple(i / 20 for i in range(20) if i / 20 < AIM)
"""Shares of the way from an equal share of probability to certainty."""

PADDING_COUNTED = Disease(
    "padding-counted",
    "the loss counts padding",
    f"targets of several positions, of which more than {PADDED:.0%} have one value that fills the end (or the beginning) of a "
    f"sample from some position on, in {RAGGED:.0%} of the samples and from different positions; where it does, {ALIKE:.0%} of "
    "the inputs are one value too; and the loss has a gradient at these outputs",
    "A mean over all positions is mostly one over padding, whose answer is known: the loss falls to a small number while the "
    "net has learnt nothing of the rest, whose gradient is divided by all positions.",
    "torch.nn.CrossEntropyLoss (ignore_index); tensorflow.org/guide/keras/understanding_masking_and_padding",
    ("non-finite", "wrong-labels", "mixed-targets"),
    fact=True,
)
ONE_ANSWER = Disease(
    "one-answer",
    "the net gives the frequent answer everywhere",
    f"targets of several positions, of which the loss counts more than {CROWDED:.0%} with one answer; and after the steps of a "
    f"trial the net gives another one at less than {SAID:.0%} of those positions whose target is another, while a copy "
    f"trained with weights that make up for it, if they can be tried, does at {HEARD:g} times as many and {SAID:.0%} or more",
    "To give the frequent answer everywhere is right nearly everywhere: what the others add to the mean, and to its gradient, "
    "is their share. Accuracy and loss look well; recall of the others does not.",
    "Milletari, Navab, Ahmadi, V-Net, 2016, section 3; Sudre et al., Generalised Dice overlap, 2017",
    ("non-finite", "wrong-labels", "padding-counted", "weights-inverted", "rate-too-small", "rate-too-large"),
    fact=True,
)
WEIGHTS_INVERTED = Disease(
    "weights-inverted",
    "the frequent class has the larger weight",
    f"at equal scores, the gradient at an output of a class is more than {HEAVIER:g} times that of a class which has less than "
    f"1/{FREQUENT:g} of its samples ({FEW} or more), and the same for all samples of a class within {STEADY:.0%}",
    "Weights are to make up for what is rare: n/(C nₖ) for class k. Shares in their place, or the weights in another order of "
    "the classes, make the rare class count even less than without any.",
    "King and Zeng, Logistic regression in rare events data, 2001; torch.nn.BCEWithLogitsLoss (pos_weight)",
    ("non-finite", "wrong-labels"),
    fact=True,
)
CLASS_LEFT_OUT = Disease(
    "class-left-out",
    "a class that the loss does not count",
    f"of {FEW} targets or more of one class every one has a gradient of exactly 0 at its output, at outputs that know nothing "
    f"and at {len(SHAKEN)} random ones, and {COUNTED:.0%} of the others have one; where a sample has several targets it is a "
    f"value of less than {MASKED:.0%} of them that does not fill the ends of samples (that is padding, or a mask); or targets "
    "of 0 beside 1 have none, and do with s = 2t − 1 in place of t, where L(y, s) = L(−y, −s) ≥ 0",
    "∂L/∂y = 0 at all samples of a class: the net is never told of it, and takes them for others. ignore_index names what "
    "stands for no class; a class weight of 0 leaves one out, and a hinge of 1 − t y has no slope where t is 0 in place of −1.",
    "torch.nn.CrossEntropyLoss (ignore_index, weight); torch.nn.HingeEmbeddingLoss (targets 1 and −1)",
    ("non-finite", "wrong-labels", "constant-loss"),
    fact=True,
)
AIMS_LOW = Disease(
    "smoothed-too-far",
    "the loss asks for scores that are hardly sure",
    f"the loss's gradient lowers the score of the true class where that has less than {AIM:.0%} of the way from an equal share "
    "of probability to certainty",
    "Label smoothing ε wants 1 − ε + ε/C of probability for the true class, and ε/C for each other. Most of it as noise leaves "
    "little to tell the classes apart; 0.1 is usual.",
    "Szegedy et al., Rethinking the Inception architecture, 2016, section 7; Müller, Kornblith, Hinton, 2019",
    ("non-finite", "wrong-labels"),
    fact=True,
)


def balancing(seen: Counted) -> Cure | None:
    """Weights that make up for what is rare, if the loss is a cross-entropy, weighted or not; else None."""
    with no_grad():
        if seen.kind == "labels":
            weight = ops.from_numpy(seen.weights()).to(seen.output.device, seen.output.dtype)

            def usual(y: Tensor) -> Any:
                return F.cross_entropy(*in_rows(y, seen.target, seen.count, seen.last), weight=weight)

            if alike(seen.loss, usual, seen.output):
                return weigh_classes(seen.target, seen.count, seen.last)
        elif seen.kind == "two":
            zeros, ones = seen.weights()
            ratio = ops.tensor(ones / zeros if zeros else 1.0).to(seen.output.device, seen.output.dtype)

            def logits(y: Tensor) -> Any:
                return F.binary_cross_entropy_with_logits(y, seen.target.reshape(y.shape), pos_weight=ratio)

            if alike(seen.loss, logits, seen.output):
                return weigh_ones(seen.target)
    return None


def padding_counted(view: View) -> Finding | None:
    """One value that fills the ends of targets, and of inputs, and is counted."""
    with undisturbed(), untouched(view.model):
        seen = counted(view)
        if seen is None or seen.kind == "two" or seen.target.ndim < 2 or seen.each < 3:
            return None
        length = seen.target.shape[1]
        t = to_host(seen.target.array).reshape(len(seen.target), length, -1)
        inputs = [to_host(part[0].array) for part in view.seen if isinstance(part[0], Tensor) and part[0].ndim > 1]
        if not inputs or any(x.shape[1] != length for x in inputs) or sum(map(len, inputs)) < len(t):
            return None
        x = np.concatenate([part.reshape(len(part), length, -1) for part in inputs])[: len(t)]
        values, counts = np.unique(t, return_counts=True)
        value = values[counts.argmax()]
        filled = (t == value).all(2)
        share = float(filled.mean())
        padded = filled & _to_the_end(filled)
        if not share > PADDED or not _alike(x, padded):
            return None
        pull = seen.pull.reshape(len(t), length, -1).sum(2)
        there = float(pull[padded].sum() / pull.sum()) if pull.sum() > 0 else 0.0
        if not there > PADDED:
            return None
        cure = leaving_out(seen, view, int(value)) if seen.kind == "labels" else leave_out_zeros(view.loss_fn)
    return PADDING_COUNTED.found(
        Evidence(
            f"what the loss counts that is padding (the value {value:g})", there, PADDED, True, True, severity="warning"
        ),
        cause=f"{share:.0%} of the positions of the targets are {value:g} up to the end, where the inputs say nothing either: "
        "the mean loss is mostly one over padding, and falls to little before anything is learnt of the rest. Leave the "
        "padding out: ignore_index, or a mask.",
        cure=cure,
    )


def leaving_out(seen: Counted, view: View, label: int) -> Cure:
    """``ignore_index`` in a plain cross-entropy; else advice."""

    def usual(y: Tensor) -> Any:
        return F.cross_entropy(*in_rows(y, seen.target, seen.count, seen.last))

    with no_grad():
        if alike(seen.loss, usual, seen.output):
            return leave_out(label, seen.count, seen.last)
    return Cure(
        f"# the loss of each position, without a mean, times a mask; or ignore_index={label}\n"
        f"there = (t != {label}).float()  # then: loss = (loss * there).sum() / there.sum()"
    )


def _to_the_end(filled: Numbers) -> Numbers:
    """For each row (N, L) the places from which on, or up to which, all is filled: whichever is more, in most rows."""
    behind = np.flip(np.cumprod(np.flip(filled, 1), 1), 1).astype(bool)
    before = np.cumprod(filled, 1).astype(bool)
    found: Numbers = behind if behind.sum() >= before.sum() else before
    return found


def _alike(x: Numbers, padded: Numbers) -> bool:
    """Whether the padding is most of what is filled, begins at different places, and the inputs are one value there."""
    lengths = padded.sum(1)
    if (lengths > 0).mean() < RAGGED or len(np.unique(lengths)) < 2:
        return False
    rows = x[padded]
    _, counts = np.unique(rows[:: max(1, len(rows) // 4000)], axis=0, return_counts=True)
    return bool(counts.max() >= ALIKE * counts.sum())


def one_answer(view: View) -> Finding | None:
    """What a trained copy answers at positions whose target is not the frequent one."""
    assert view.trials is not None
    with undisturbed(), untouched(view.model):
        seen = counted(view)
        if seen is None or seen.kind == "numbers" or seen.each < 2:
            return None
        counts = np.bincount(seen.classes[seen.pull > 0], minlength=seen.count)
        most, total = int(counts.argmax()), int(counts.sum())
        rest = total - int(counts[most])
        if not total or rest < FEW or not counts[most] > CROWDED * total:
            return None
        cure = balancing(seen)
    course = view.trials.course()
    recall = _recall(course.patient.model, view, seen, most)
    if recall is None or not recall < SAID:
        return None
    heard = ""
    if cure is not None:
        after = _recall(
            view.trials.course(f"with the cure of {ONE_ANSWER.title}", cure.apply).patient.model, view, seen, most
        )
        if after is None or after < max(SAID, HEARD * recall):
            return None  # it is not the share of the classes that hinders it
        heard = f" A copy that was trained with class weights says another one at {after:.0%} of them."
    advice = Cure(
        "# give the rare answers more weight: nn.CrossEntropyLoss(weight=…), nn.BCEWithLogitsLoss(pos_weight=…),\n"
        "# or a loss of the overlap (Dice); and look at the recall of each class, not at accuracy"
    )
    return ONE_ANSWER.found(
        Evidence(
            f"positions with another target where the net says so, after {len(course.losses)} steps",
            recall, SAID, False, True, "warning" if cure is None else "error",
        ),
        Evidence(f"positions that are of class {most}, of {total:,}", counts[most] / total, CROWDED, True, True),
        cause=f"{counts[most] / total:.1%} of what the loss counts is of class {most} (background, nothing, the most frequent "
        f"answer), and the net says {most} nearly everywhere: the other classes with {rest / total:.1%} hardly count. Give "
        f"them class weights, so that what is rare counts as much.{heard}",
        cure=cure or advice,
    )  # fmt: skip


def _recall(trained: Any, view: View, seen: Counted, most: int) -> float | None:
    """The share of the rest that a trained copy does not take for the frequent class; None if it cannot be told."""
    trials, model = view.trials, trained.eval()
    assert trials is not None
    told = rest = 0
    with undisturbed(), no_grad(), computing(view.precision, device_of(model).type):
        for *inputs, target in [*trials.held, *trials.fitted][:8]:
            y = model(*inputs)
            if not isinstance(y, Tensor):
                return None
            if seen.kind == "labels":
                said = to_host(y.argmax(-1 if seen.last else 1).array).reshape(-1)
            else:
                shares = bool(((y >= 0) & (y <= 1)).all().item())
                said = to_host((y > (0.5 if shares else 0.0)).array).reshape(-1).astype(np.int64)
            labels = to_host(target.array).reshape(-1).astype(np.int64)
            other = (labels != most) & (labels >= 0)
            told, rest = told + int((said[other] != most).sum()), rest + int(other.sum())
    return told / rest if rest else None


def weights_inverted(view: View) -> Finding | None:
    """Two classes of which the frequent one has the larger gradient at each of its samples."""
    with undisturbed(), untouched(view.model):
        seen = counted(view)
        if seen is None or seen.kind == "numbers":
            return None
        here = seen.pull > 0
        counts = np.bincount(seen.classes[here], minlength=seen.count)
        known = np.flatnonzero(counts >= FEW)
        if len(known) < 2:
            return None
        pull = np.bincount(seen.classes, seen.pull, seen.count) / np.maximum(counts, 1)
        squares = np.bincount(seen.classes, seen.pull**2, seen.count) / np.maximum(counts, 1)
        spread = np.sqrt(np.maximum(0, squares - pull**2)) / np.maximum(pull, 1e-30)
        if spread[known].max() > STEADY:
            return None
        pairs = [(pull[a] / pull[b], a, b) for a in known for b in known if counts[a] > FREQUENT * counts[b]]
        if not pairs or not max(pairs)[0] > HEAVIER:
            return None
        ratio, most, least = max(pairs)
        own = balancing(seen)
        plain = Cure(
            "# a rare class needs the larger weight: n / (C nₖ), or pos_weight = zeros / ones, not their inverse\n"
            "print(t.reshape(-1).unique(return_counts=True))"
        )
    share = pull[least] * counts[least] / (pull[known] * counts[known]).sum()
    return WEIGHTS_INVERTED.found(
        Evidence(f"weight of a sample of class {most} over one of class {least}", float(ratio), HEAVIER, True),
        Evidence(f"samples of class {most} over those of class {least}", counts[most] / counts[least], FREQUENT, True),
        cause=f"Of class {most} there are {counts[most]:,} targets, of class {least} {counts[least]:,}, and the loss weighs "
        f"each of the frequent class {ratio:.3g} times as much: class {least} makes {share:.1%} of what it asks for. The class "
        "weights are the wrong way round.",
        cure=own or plain,
    )


def class_left_out(view: View) -> Finding | None:
    """A class at none of whose samples the loss has a gradient, whatever the outputs are."""
    with undisturbed(), untouched(view.model):
        seen = counted(view)
        if seen is None:
            return _of_margins(view)
        if seen.kind == "numbers":
            return None
        t = to_host(seen.target.array)
        classes = (t != 0).astype(np.int64) if seen.kind == "two" else t.astype(np.int64)
        flat, pull = classes.reshape(-1), seen.pull.copy()
        scores = not bool(seen.output.any().item())  # else they are shares, and stay above 0
        for size in SHAKEN:
            y = size * ops.randn_like(seen.output) if scores else seen.output * ops.rand_like(seen.output)
            more = seen.pull_at(y)
            if more is None:
                return None
            pull += more
        there = (flat >= 0) & (flat < seen.count)
        counts = np.bincount(flat[there], minlength=seen.count)
        heard = np.bincount(flat[there], pull[there] > 0, seen.count)
        silent = [k for k in range(seen.count) if counts[k] >= FEW and heard[k] == 0]
        if len(silent) != 1:
            return None
        (k,), others = silent, int(counts.sum() - counts[silent[0]])
        if not heard.sum() > COUNTED * others or not others:
            return None
        share = counts[k] / counts.sum()
        if seen.each > 1 and (share > MASKED or _fills(classes.reshape(len(t), -1) == k)):
            return None
        plain = seen.kind == "labels" and seen.each == 1

        def ignoring(y: Tensor) -> Any:
            return F.cross_entropy(*in_rows(y, seen.target, seen.count, seen.last), ignore_index=k)

        with no_grad():
            cure = set_loss("cross_entropy") if plain and alike(seen.loss, ignoring, seen.output) else None
    return CLASS_LEFT_OUT.found(
        Evidence(
            f"targets of class {k} that the loss has a gradient for, of {counts[k]:,}", 0.0, 1e-9, False,
            severity="error" if seen.each == 1 else "warning",
        ),
        cause=f"Of {counts[k]:,} targets that are {k} ({share:.0%}) none has a gradient, whatever the outputs are: the "
        "loss leaves this class out, and the net is never told of it. It is the ignore_index, or has a weight of 0, or the "
        "loss wants targets of 1 and −1.",
        cure=cure or Cure(
            "# ignore_index is a label that stands for nothing (−100); class weights are above 0;\n"
            "# margin and hinge losses take targets of 1 and −1: t = 2 * t − 1"
        ),
    )  # fmt: skip


def _of_margins(view: View) -> Finding | None:
    """Targets of 0 where a loss of several outputs for each target, such as one of ranks, takes −1 and 1."""
    silent = silent_zeros(view.end) if view.end is not None and isinstance(view.end.target, Tensor) else 0
    if not silent:
        return None
    return CLASS_LEFT_OUT.found(
        Evidence(f"targets of 0 that the loss has a gradient for, of {silent:,}", 0.0, 1e-9, False),
        cause=f"Of {silent:,} targets that are 0 none has a gradient, whatever the outputs are: the loss depends on target "
        "times output, and takes targets of 1 and −1.",
        cure=targets_on_two_sides(view.loss_fn),
    )


def _fills(there: Numbers) -> bool:
    """Whether a value (N, L) stands nearly always where all is filled with it up to an end."""
    return bool((there & _to_the_end(there)).sum() > COUNTED * there.sum())


def aims_low(view: View) -> Finding | None:
    """The probability of the true class at which the loss's gradient no longer raises its score."""
    with undisturbed(), untouched(view.model):
        seen = counted(view)
        if seen is None or seen.kind != "labels":
            return None
        axis = -1 if seen.last else 1
        labels = seen.target.reshape(-1) if seen.last else seen.target
        hot = F.one_hot(labels.clamp(0, seen.count - 1), seen.count)
        if not seen.last and labels.ndim > 1:
            hot = hot.permute(0, -1, *range(1, labels.ndim))
        hot = hot.reshape(seen.output.shape).to(seen.output.device, seen.output.dtype)
        first, aim = None, 1.0
        for sure in SURE:
            q = 1 / seen.count + sure * (1 - 1 / seen.count)
            y = (hot * q + (1 - hot) * ((1 - q) / (seen.count - 1))).log()
            slope = slope_of(seen.end, y, seen.target)
            if slope is None:
                return None
            own = (slope * hot).sum(axis)
            mean = float(own.mean().item())
            if first is None:
                first = mean
                if not float((own < 0).float().mean().item()) > MEANT:
                    return None  # another class is what the loss asks for
            if mean > -1e-4 * first:
                aim = sure
                break
        if not aim < AIM:
            return None
        weight = ops.from_numpy(seen.weights()).to(seen.output.device, seen.output.dtype)
        amount = _smoothing(seen, weight)
    asked = 1 / seen.count + aim * (1 - 1 / seen.count)
    return AIMS_LOW.found(
        Evidence("way from guessing to certainty that the loss asks for", aim, AIM, False, True),
        cause=f"At a probability of {asked:.2f} for the true class of {seen.count} the loss already wants it lower, as under a "
        f"label smoothing of about {1 - aim:.2g}: most of what it asks for is the same for every sample.",
        cure=smooth_not(seen.count, seen.last)
        if amount
        else Cure("loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)  # in place of a larger one"),
    )


def _smoothing(seen: Counted, weight: Tensor) -> bool:
    """Whether the loss is a cross-entropy with some label smoothing."""
    for amount in (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0):

        def usual(y: Tensor, amount: float = amount) -> Any:
            return F.cross_entropy(*in_rows(y, seen.target, seen.count, seen.last), label_smoothing=amount)

        with no_grad():
            if alike(seen.loss, usual, seen.output):
                return True
    return False
