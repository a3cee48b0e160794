"""Rules over epochs: what only the course of a training shows, by its losses in training and validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from kobai.core.grad_mode import no_grad
from kobai.lab.doctor.cures import Cure, scale_rate
from kobai.lab.doctor.findings import Disease, Evidence, Finding, better
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import copy_of, undisturbed
from kobai.train.batches import device_of
from kobai.train.step import computing

RISE, FALL, SINCE = 0.1, 0.1, 3
FLAT_SINCE, FLAT_FALL = 5, 0.5
LOST, NEAR = 0.5, 2.0
GONE, STILL, UNDONE = 0.05, 0.01, 0.3
RAISED = 1.5
DEAD, DEAD_FIRST, SHRUNK, GREW, UNLEARNT, DECAYED = 0.6, 0.3, 1e-2, 1e2, 0.8, 0.5
WORSE_THAN_GUESSING, KNOWN = 1.0, 0.5
EASIER, EASIER_OF_GUESSING, ENOUGH = 0.6, 0.1, 100

OVERFITTING = Disease(
    "overfitting",
    "overfitting",
    f"{SINCE} or more epochs after that of the least validation loss, the validation loss (the median of three epochs) is "
    f"higher by {RISE:.0%}, and the training loss lower by {FALL:.0%}; or {FLAT_SINCE} or more epochs after it, the "
    "training loss "
    f"has fallen by {FLAT_FALL:.0%} and is less than half of the validation loss",
    "The net goes on to learn what holds for the training samples alone, their noise. Its weights were best for new samples "
    "when the validation loss was least.",
    "Prechelt, Early stopping – but when?, 1998; Goodfellow, Bengio, Courville, Deep learning, 2016, section 7.8",
    ("validation-prepared-otherwise", "validation-labelled-otherwise", "evaluation-differs", "labels-unrelated"),
    fact=True,
)
FALLS_BACK = Disease(
    "falls-back",
    "the loss had fallen, and is lost again",
    f"an epoch's training loss is above {NEAR:g} times the least one, and {LOST:.0%} of what had been gained since "
    "the first epoch "
    "is lost; or not finite after epochs that were",
    "Steps that are longer than 2 over the curvature leave a valley, however well they had come down. The curvature grows "
    "during training, and a schedule or momentum may lengthen the steps.",
    "Cohen et al., Gradient descent on neural networks typically occurs at the edge of stability, 2021; Zhang et al., "
    "Dive into deep learning, section 12.11",
    ("non-finite", "wrong-labels"),
    fact=True,
)
SPOILT_BY_STEPS = Disease(
    "spoilt-by-steps",
    "the steps have spoilt a net that began well",
    f"a hidden layer of which more than {DEAD:.0%} of the units are dead, and less than {DEAD_FIRST:.0%} were at the "
    "first look; or the "
    f"signal of the last hidden layer is {SHRUNK:g} or {GREW:g} times what it was; while the loss is above "
    f"{UNLEARNT:g} of that of "
    "guessing",
    "What was healthy at the first step was made ill by those since: new weights would end the same way. Steps that are too "
    "long throw biases and weights far off; a decay that outweighs the gradient takes them to 0.",
    "Lu et al., arXiv:1903.06733 (dying during training); Krogh and Hertz, A simple weight decay can improve "
    "generalization, 1992",
    ("non-finite", "wrong-labels", "no-signal", "rate-too-large", "falls-back"),
)
SCHEDULE_ENDED = Disease(
    "schedule-ended",
    "the schedule has taken the learning rate to nothing",
    f"in half of the epochs the learning rate is below {GONE:g} of the first epoch's, the training loss has stood "
    "still for two "
    f"epochs (less than {STILL:.0%} each), and is still above {UNDONE:g} of the first; or in the beginning it is below a "
    "thousandth of the rate that the schedule begins with, or that rate times itself (a warning), while a copy learns at that "
    "rate",
    "Steps are proportional to the rate: of a rate divided by ten again and again, the sum of all steps that are still to come "
    "is not larger than the next one.",
    "Robbins and Monro 1951 (the sum of all rates must be infinite); Loshchilov and Hutter, SGDR, 2017",
    ("non-finite",),
    fact=True,
)
VALIDATION_WORSE = Disease(
    "validation-worse-than-guessing",
    "validation is worse than guessing",
    f"the validation loss is above {WORSE_THAN_GUESSING:g} of that of one output for all validation samples, after "
    "every epoch, while "
    f"that of training is below {KNOWN:g} of guessing",
    "A net that tells training samples apart should know something of others of their kind. If it does not, they are not of "
    "their kind, or it has learnt the training samples by heart from the beginning.",
    "Goodfellow, Bengio, Courville 2016, section 5.2; Zhang et al., arXiv:1611.03530",
    (
        "validation-prepared-otherwise",
        "validation-labelled-otherwise",
        "evaluation-differs",
        "labels-unrelated",
        "overfitting",
    ),
    fact=True,
)
VALIDATION_EASIER = Disease(
    "validation-easier",
    "validation is better than training",
    f"of {ENOUGH} or more validation samples the loss is below {EASIER:g} of the loss of training samples, both in "
    "evaluation mode (so that "
    "dropout has no part in "
    f"it), and by more than {EASIER_OF_GUESSING:g} of the loss of guessing",
    "Of two samples of one population, the one that was trained on has the lower loss. Validation data that are easier "
    "are another population: other classes, fewer of the hard ones, no augmentation; or the training labels are noisy.",
    "Hastie, Tibshirani, Friedman, The elements of statistical learning, section 7.4",
    ("validation-seen", "validation-prepared-otherwise", "validation-labelled-otherwise"),
    fact=True,
)


def losses(view: View, key: str) -> list[float]:
    """A loss of all epochs."""
    return [float(record.get(key, math.nan)) for record in view.history]


def overfitting(view: View) -> Finding | None:
    """The validation loss since its least value, beside the training loss."""
    training, held = losses(view, "loss"), losses(view, "val_loss")
    if len(held) <= SINCE or not all(map(math.isfinite, training + held)):
        return None
    best = held.index(min(held))
    since, now, last = len(held) - 1 - best, median(held[-3:]), median(training[-3:])
    rises = (
        since >= SINCE and better(held[best], now, RISE) and better(last, training[best], FALL) and training[-1] < now
    )
    flat = since >= FLAT_SINCE and better(last, training[best], FLAT_FALL) and last < 0.5 * now
    if not (rises or flat):
        return None
    rise = Evidence("validation loss now over its least", now / held[best], 1 + RISE, True, severity="warning")
    fall = Evidence("training loss now over that of then", last / training[best], 1 - FALL, False, severity="warning")
    return OVERFITTING.found(
        *([rise] if rises else []),
        fall,
        cause=f"The validation loss was least in epoch {best + 1} ({held[best]:.3g}) and is {now:.3g} now, while the "
        "training loss "
        f"fell from {training[best]:.3g} to {last:.3g}: the net memorises its training samples.",
        cure=Cure(
            "# take the weights of the best epoch: Trainer(..., callbacks=[kobai.train.EarlyStopping(patience=3)]), or\n"
            "# kobai train --patience 3. Then more data or augmentation, a smaller net, nn.Dropout(0.5), or decay:\n"
            "optimizer = kobai.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)"
        ),
    )


def falls_back(view: View) -> Finding | None:
    """The training loss of the last epoch beside the least one, and the learning rates of both."""
    training, rates = losses(view, "loss"), losses(view, "lr")
    known = [loss for loss in training[:-1] if math.isfinite(loss)]
    if len(known) < 2:
        return None
    least, last = min(known), training[-1]
    at = training.index(least)
    gained = training[0] - least
    if math.isfinite(last) and not (last > NEAR * least and last - least > LOST * gained > 0):
        return None
    if not gained > 0 or not least < training[0]:
        return None
    raised = rates[-1] > RAISED * rates[at]
    rate = f"{rates[-1]:.3g}" + (f", raised from {rates[at]:.3g}" if raised else "")
    lower = rates[at] if raised else 0.3 * rates[-1]
    return FALLS_BACK.found(
        Evidence(f"training loss of the last epoch over that of epoch {at + 1}", last / least, NEAR, True)
        if math.isfinite(last)
        else Evidence("epochs whose loss is not finite", 1, 0, True),
        cause=f"The training loss had come down to {least:.3g} in epoch {at + 1} and is {last:.3g} now: the learning "
        "rate has become "
        f"too large ({rate}).",
        cure=Cure(
            f'for group in optimizer.param_groups:\n    group["lr"] = {lower:.2g}  # and no schedule that goes above '
            "it, from the "
            f"weights of epoch {at + 1}"
        ),
    )


def spoilt_by_steps(view: View) -> Finding | None:
    """Hidden layers at the first look and now: dead units, and the signal of the last of them."""
    if view.first is None or view.optimizer is None or not view.hidden or not view.losses:
        return None
    if view.chance is None or view.losses[0] < UNLEARNT * view.chance:
        return None
    first = {layer.name: layer.output for layer in view.first.layers}
    layers = [stage.output for stage in view.hidden if stage.output.name in first]
    died = [a for a in layers if a.output.dead > DEAD and first[a.name].dead < DEAD_FIRST]
    last = layers[-1] if layers else None
    before = first[last.name].signal if last is not None else 0.0
    now = last.output.signal if last is not None else 0.0
    if died:
        worst = max(died, key=lambda layer: layer.output.dead)
        was = first[worst.name].dead
        evidence = Evidence(
            f"dead units of {worst.name!r}, {was:.0%} at first", worst.output.dead, DEAD, True, share=True
        )
    elif before > 0 and last is not None and not SHRUNK <= now / before <= GREW:
        limit, above = (GREW, True) if now > before else (SHRUNK, False)
        evidence = Evidence(f"signal of {last.name!r} over that at first", now / before, limit, above)
    else:
        return None
    weights = {weight.name: weight.value.norm for weight in view.first.weights}
    ratio = math.sqrt(
        sum(weight.value.norm**2 for weight in view.reading.weights) / max(1e-30, sum(n**2 for n in weights.values()))
    )
    decay = max(float(group.get("weight_decay", 0.0)) for group in view.optimizer.param_groups)
    group = view.optimizer.param_groups[0]
    rate, momentum = float(group["lr"]), float(group.get("momentum", 0.0))
    where = [layer.name for layer in died] or [layers[-1].name]
    if decay > 0 and ratio < DECAYED:
        return SPOILT_BY_STEPS.found(
            evidence,
            Evidence("size of the weights over that at first", ratio, DECAYED, False),
            cause=f"At first all was well. Since then weight decay {decay:g} has outweighed the gradient and taken "
            "the weights to "
            f"{ratio:.0%} of their size.",
            cure=Cure(f'for group in optimizer.param_groups:\n    group["weight_decay"] = {decay / 1000:.1g}  # not {decay:g}'),
            where=where,
        )  # fmt: skip
    how = f"{rate:.3g}, with momentum {momentum:g}" if momentum else f"{rate:.3g}"
    return SPOILT_BY_STEPS.found(
        evidence,
        cause=f"At first all was well, so the initial weights are not at fault: the learning rate is too large "
        f"({how}), and its steps "
        "have thrown the weights off.",
        cure=scale_rate(0.1, rate),
        where=where,
    )


def schedule_ended(view: View) -> Finding | None:
    """The learning rate beside that of the first epoch, and by how much the training loss falls at both."""
    training, rates = losses(view, "loss"), losses(view, "lr")
    if len(training) < 4 or not all(map(math.isfinite, training)) or not rates[0] > 0 or not training[0] > 0:
        return None
    share = rates[-1] / rates[0]
    still = all(abs(a - b) < STILL * abs(a) for a, b in zip(training[-3:-1], training[-2:], strict=True))
    early = sum(rate < GONE * rates[0] for rate in rates) >= 0.5 * len(rates)  # at the end a schedule may do so
    if not (share < GONE and still and early and training[-1] > UNDONE * training[0]):
        return None
    return SCHEDULE_ENDED.found(
        Evidence("learning rate over that of the first epoch", share, GONE, False, severity="warning"),
        Evidence("training loss over that of the first epoch", training[-1] / training[0], UNDONE, True),
        cause=f"The schedule has lowered the learning rate from {rates[0]:.3g} to {rates[-1]:.2g}, which is too small "
        "to learn: the "
        f"training loss stands at {training[-1]:.3g}.",
        cure=Cure(
            f"# let the rate fall once over the whole training, not within its first epochs\n"
            f"scheduler = kobai.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max={max(view.epochs, len(rates))})"
        ),
    )


def guessed(view: View, batches: Sequence[Any]) -> float:
    """The least loss of one output for all samples of batches; infinite where none is known."""
    return min((loss for loss in view.guesses([batch[-1] for batch in batches]) if loss > 0), default=math.inf)


def validation_worse(view: View) -> Finding | None:
    """The least validation loss beside that of guessing, and the training loss beside it."""
    training, held = losses(view, "loss"), losses(view, "val_loss")
    guess, own = guessed(view, view.validation), guessed(view, view.seen)
    if not math.isfinite(guess) or not held or not all(map(math.isfinite, held)):
        return None
    if not (min(held) > WORSE_THAN_GUESSING * guess and training[-1] < KNOWN * own):
        return None
    return VALIDATION_WORSE.found(
        Evidence("validation loss over that of guessing", min(held) / guess, WORSE_THAN_GUESSING, True),
        cause=f"The training loss is {training[-1]:.3g}, and the validation loss was never below {min(held):.3g}, "
        "where one output for "
        f"all samples has {guess:.3g}: validation samples are prepared or labelled otherwise, or nothing was learnt "
        "but by heart.",
        cure=Cure(
            "print(x.mean(), x.std(), t[:10])  # of training and of validation data: are they prepared and labelled alike?\n"
            "# Then measure on a part of the training data that was held out: does it look like training, or like validation?"
        ),
    )


def validation_easier(view: View) -> Finding | None:
    """The validation loss beside that of training samples, both in evaluation mode."""
    held, chance = losses(view, "val_loss"), guessed(view, view.seen)
    count = sum(len(batch[-1]) for batch in view.validation)
    if not held or not math.isfinite(held[-1]) or not math.isfinite(chance) or count < ENOUGH:
        return None
    if not held[-1] < EASIER * losses(view, "loss")[-1]:
        return None
    with undisturbed(), no_grad(), computing(view.precision, device_of(view.model).type):
        model, _ = copy_of(view.model)
        model.eval()
        costs = [view.cost(model(*inputs), target) for *inputs, target in view.seen[:4]]
    own = sum(costs) / len(costs)
    if not (held[-1] < EASIER * own and own - held[-1] > EASIER_OF_GUESSING * chance):
        return None
    return VALIDATION_EASIER.found(
        Evidence("validation loss over that of training samples", held[-1] / own, EASIER, False, severity="warning"),
        cause=f"In evaluation mode training samples cost {own:.3g} and validation samples {held[-1]:.3g}, though the "
        "net was trained "
        "on the former: the two are not of one kind.",
        cure=Cure(
            "train, held = kobai.utils.data.random_split(data, [0.8, 0.2])  # two parts of the same data, at random"
        ),
    )
