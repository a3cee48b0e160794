"""Rules of what is held out: validation data prepared otherwise, labelled otherwise, or seen in training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding, graded
from kobai.lab.doctor.rules.neighbours import SURE, beyond_chance, gathered, nearest
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.rules.windows import of_one_series

FEWEST = 16
"""Samples on each side, below which moments say nothing."""
SHIFTED, SHIFTED_SOME = 1.0, 0.5
WIDER, WIDER_SOME = 4.0, 2.0
SHARED, SHARED_SOME = 0.5, 0.05
NEVER_SEEN = 0.1

PREPARED_OTHERWISE = Disease(
    "validation-prepared-otherwise",
    "validation data are prepared otherwise than training data",
    f"of {FEWEST} or more samples on each side, features whose mean differs by more than {SHIFTED_SOME:g} standard deviations "
    f"in root mean square, after what chance adds is taken off ({SHIFTED:g}: an error), or whose standard deviation is more "
    f"than {WIDER_SOME:g} times as large or small in the median ({WIDER:g}: an error); of windows of one series without the "
    "mean of each, which drifts",
    "A net knows only inputs like those that it was trained on. Whatever is done to the training inputs – a division, a "
    "mean taken off, an order of axes or channels – must be done to all others, with the same numbers.",
    "Hastie, Tibshirani, Friedman, The elements of statistical learning, section 7.10.2; Sculley et al., Hidden "
    "technical debt in machine learning systems, 2015 (training-serving skew)",
    fact=True,
)
LABELLED_OTHERWISE = Disease(
    "validation-labelled-otherwise",
    "validation labels mean something else than training labels",
    f"more than {NEVER_SEEN:.0%} of the validation samples are of classes that no training sample has; or among training "
    f"samples the nearest neighbour tells the label (more than {SURE:g} standard deviations above chance), while the labels of "
    "validation samples are at chance beside those of their nearest training samples",
    "Numbers of classes come from a list of names. Another list, or another split of sorted data, makes a net that is "
    "right look wrong.",
    "Cover and Hart, Nearest neighbor pattern classification, 1967",
    ("validation-prepared-otherwise",),
    fact=True,
)
SEEN_IN_TRAINING = Disease(
    "validation-seen",
    "validation samples are among the training samples",
    f"more than {SHARED_SOME:.0%} of the validation samples have inputs that are equal to those of a training sample",
    "What a net is measured on must be new to it: of samples that it was trained on it may know the answer by heart, and "
    "overfitting does not show.",
    "Barz and Denzler, Do we train on test data?, 2020 (CIFAR duplicates); Kaufman et al., Leakage in data mining, 2012",
    fact=True,
)


@dataclass(frozen=True)
class Sides:
    """Inputs, one row for each sample, and targets: of training and of validation samples."""

    x: Numbers
    t: Numbers
    held_x: Numbers
    held_t: Numbers


def sides(view: View) -> Sides | None:
    """Both sides as arrays; None if there are no validation data, or none that can be compared."""
    training, held = gathered(view.seen), gathered(view.validation)
    if training is None or held is None or training[0].shape[1] != held[0].shape[1]:
        return None
    return Sides(*training, *held)


def prepared_otherwise(view: View) -> Finding | None:
    """Mean and standard deviation of each feature, over the validation samples and over the training samples."""
    both = sides(view)
    if both is None or min(len(both.x), len(both.held_x)) < FEWEST or view.whole_numbers:
        return None
    if of_one_series(view.seen):  # whose level drifts from one part to the next, by itself
        centred = [part - part.mean(1, keepdims=True) for part in (both.x, both.held_x)]
        both = Sides(centred[0], both.t, centred[1], both.held_t)
    spread, held = both.x.std(0), both.held_x.std(0)
    typical = float(np.sqrt((spread**2).mean()))
    if not typical > 0 or not np.isfinite(both.held_x).all() or not np.isfinite(both.x).all():
        return None
    scale = np.maximum(spread, 0.1 * typical)
    chance = (scale**2) / len(both.x) + np.minimum(held, scale) ** 2 / len(both.held_x)
    apart = ((both.held_x.mean(0) - both.x.mean(0)) ** 2 - chance) / scale**2
    shift = math.sqrt(max(0.0, float(apart.mean())))
    wide = spread > 0.1 * typical
    ratio = float(np.median(held[wide] / spread[wide]))
    # A scale that some features alone have lost or gained: in thousands instead of in units.
    times = ratio if ratio >= 1 or ratio == 0 else 1 / ratio
    evidence = [
        graded("shift of the features' means, in standard deviations of training", shift, SHIFTED, SHIFTED_SOME),
        graded(
            f"typical factor between the spreads ({'wider' if ratio > 1 else 'narrower'})", times, WIDER, WIDER_SOME
        ),
    ]
    passed = sorted((each for each in evidence if each.passed), key=lambda each: each.severity)
    if not passed:
        return None
    own, other = (f"mean {part.mean():.3g} and standard deviation {part.std():.3g}" for part in (both.x, both.held_x))
    return PREPARED_OTHERWISE.found(
        *passed,
        cause=f"Training inputs have {own}, validation inputs {other}: they do not come from the same preparation.",
        cure=Cure(
            "shift, scale = x.mean(0), x.std(0).clamp(min=1e-6)  # of the training data, before they are prepared\n"
            "prepare = lambda inputs: (inputs - shift) / scale  # one function, for training, validation and use"
        ),
    )


def labelled_otherwise(view: View) -> Finding | None:
    """Classes that only validation samples have; labels at chance beside those of the nearest training samples."""
    both = sides(view)
    if both is None or view.classes is None or min(len(both.t), len(both.held_t)) < FEWEST:
        return None
    t, held = both.t[:, 0], both.held_t[:, 0]
    unseen = np.isin(held, np.unique(t), invert=True)
    if len(t) >= 10 * view.classes and unseen.mean() > NEVER_SEEN:
        names = ", ".join(f"{label:g}" for label in np.unique(held[unseen])[:5])
        return LABELLED_OTHERWISE.found(
            Evidence("validation samples of classes that training lacks", float(unseen.mean()), NEVER_SEEN, True, True),
            cause=f"No training sample has one of the validation labels {names}: the data were split in order of class, or the "
            "classes are numbered otherwise.",
            cure=Cure(
                "train, held = kobai.utils.data.random_split(data, [0.8, 0.2])  # at random, not the last fifth\n"
                "print(t.unique(return_counts=True))  # which labels are there, on both sides?"
            ),
        )
    if prepared_otherwise(view) is not None:
        return None  # neighbours of other inputs say nothing
    own = beyond_chance(t, t, nearest(both.x, both.x, alone=True))
    across = beyond_chance(held, t, nearest(both.held_x, both.x))
    if not own.deviations > SURE or across.deviations > min(SURE, 0.2 * own.deviations):
        return None
    return LABELLED_OTHERWISE.found(
        Evidence(
            "nearest neighbours that tell a validation label, above chance, in standard deviations",
            across.deviations,
            SURE,
            False,
        ),
        cause=f"The nearest training sample has the same label for {own.score:.0%} of training samples, and for "
        f"{across.score:.0%} of validation samples, where chance gives {across.chance:.0%}: the labels of the two sides are "
        "numbered, or matched to the inputs, in two ways.",
        cure=Cure(
            "print(data.classes)  # are both sides numbered by one list of names? Then look at a few samples of each"
        ),
    )


NATURAL = 3
"""Copies across the sides over those within training: 2 where rows of few kinds are drawn at random."""


def seen_in_training(view: View) -> Finding | None:
    """The share of validation samples whose inputs are those of a training sample, number for number."""
    both = sides(view)
    if both is None or len(both.held_x) < FEWEST or not both.x.shape[1] > 1:
        return None
    known = {row.tobytes() for row in both.x}
    twice = float(np.mean([row.tobytes() in known for row in both.held_x]))
    # A table with few different rows has equal ones on both sides by nature: of n rows drawn from M kinds, n/2M have come
    # before, and of others n/M are among them.
    within = 1 - len(known) / len(both.x)
    values = max(len(np.unique(column)) for column in both.x.T[:: max(1, both.x.shape[1] // 16)])
    if not twice > SHARED_SOME or not (values > 0.5 * len(known) or twice > NATURAL * within):
        return None
    return SEEN_IN_TRAINING.found(
        Evidence(
            f"validation samples that are copies of training samples, of {len(both.held_x)} looked at",
            twice,
            SHARED_SOME,
            True,
            True,
            "error" if twice > SHARED else "warning",
        ),
        cause="Samples were copied or drawn before the data were split, or one set was passed twice: the validation loss "
        "measures what the net knows by heart.",
        cure=Cure(
            "train, held = kobai.utils.data.random_split(data, [0.8, 0.2])  # split first, then balance or augment train"
        ),
    )
