"""Rules of what a net should not be shown: the target among the inputs, and validation samples made of training samples."""

from __future__ import annotations

import math

import numpy as np

from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.neighbours import SURE, beyond_chance, gathered, nearest
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.validation import FEWEST, seen_in_training, sides
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.rules.windows import PIECE, VALUES, among, series

ENOUGH, COLUMNS, WIDEST, FEW = 50, 3, 4096, 5
OWN_VALUE, APART, MANY_COLUMNS = 1e-6, 1.0, 0.25
REST, NEARLY, OTHERS = 1e-5, 1e-3, 0.5
SUM_REST, SUM_OF, SUM_AMONG = 1e-9, 3, 6
OVERLAPPING, ONE_WAY, SHIFTS = 0.05, 0.2, 32
NEAR, NEIGHBOURS, NEAR_SHARE, FEATURES = 0.33, 20, 0.1, 512

TARGET_IN_INPUTS = Disease(
    "target-in-inputs",
    "a column of the inputs gives the target away",
    f"of {ENOUGH} or more samples and {COLUMNS} or more columns: a column that has one value for each class, or values of "
    f"the classes farther apart than {APART:g} times what they span within a class, where no other column parts them; for "
    f"numbers a column that leaves less than {REST:g} of the target's variance ({NEARLY:g} if each other one leaves more than "
    f"{OTHERS:g}), or orders the samples exactly as the target does; or the exact sum of two or three of {SUM_AMONG} or more "
    f"columns. Not where more than {MANY_COLUMNS:.0%} of the columns are so, "
    f"nor where the nearest neighbours by the other columns do not tell the target ({SURE:g} standard deviations)",
    "What is known only together with the target is not there when the net is used. It then learns to copy that column and "
    "nothing else, and validation looks perfect too.",
    "Kaufman, Rosset, Perlich, Stitelman, Leakage in data mining, 2012; Kapoor and Narayanan, Patterns 2023",
    ("non-finite", "wrong-labels"),
    fact=True,
)
WINDOWS_OVERLAP = Disease(
    "windows-overlap",
    "validation windows overlap with training windows of the same series",
    f"of {FEWEST} or more validation samples more than {OVERLAPPING:.0%} begin with numbers ({PIECE} steps, or half a window) "
    f"that stand further on in a training sample, or hold those that one begins with, apart from offset and scale; and of both "
    f"kinds there are at least {ONE_WAY:g} as many as of the other: a split in order of time has one of them alone",
    "Windows of one series that overlap hold the same measurements. Shuffled before the split, most of what a validation "
    "window holds, and its target, has been seen in training.",
    "Cerqueira, Torgo, Mozetič, Evaluating time series forecasting models, 2020; Hyndman and Athanasopoulos, section 5.8",
    ("validation-seen",),
    fact=True,
)
NEAR_DUPLICATES = Disease(
    "near-duplicates",
    "validation samples are nearly copies of training samples",
    f"validation samples whose nearest training sample (or its mirror image) is nearer than {NEAR:g} times the "
    f"{NEIGHBOURS}th nearest: more than {NEAR_SHARE:.0%} beyond three times what is to be expected of independent samples of "
    "their dimension",
    "Frames of one film, augmented copies, several photographs of one person: what differs between them is small beside what "
    "differs between other samples. Such copies on both sides measure what the net knows by heart.",
    "Barz and Denzler, Do we train on test data?, 2020; Levina and Bickel, Maximum likelihood estimation of intrinsic "
    "dimension, 2004",
    ("validation-seen", "windows-overlap"),
    fact=True,
)


# --- the target among the inputs


def target_in_inputs(view: View) -> Finding | None:
    """Columns that alone give the target: one value for each class, the same order, or an exact sum of few."""
    both = gathered(view.seen)
    if both is None or view.inputs[0].ndim != 2:  # a step of a sequence may be what is asked for
        return None
    x, t = both
    if len(x) < ENOUGH or not COLUMNS <= x.shape[1] <= WIDEST or not np.isfinite(x).all() or not np.isfinite(t).all():
        return None
    if t.shape[1] != 1:
        return None
    own = t[:, 0].astype(np.float64)
    x = x.astype(np.float64)
    varying = np.ptp(x, axis=0) > 0
    if not np.ptp(own) > 0 or not varying.any():
        return None
    if view.classes is not None or view.binary:
        found = _of_classes(x, own)
    elif view.whole_numbers:
        found = None
    else:
        found = _of_numbers(x, own) or _of_sums(x, own)
    if found is None:
        return None
    places, evidence, how = found
    if len(places) > max(1.0, MANY_COLUMNS * varying.sum()):
        return None
    rest = np.delete(x, places, 1)
    known = both[1][:, 0] if view.classes is not None else both[1]
    near = nearest(rest, rest, alone=True, count=5)
    if not np.ptp(rest, axis=0).any() or not beyond_chance(known, known, near).deviations > SURE:
        return None  # where nothing else tells the target, that column is the task
    named = ", ".join(map(str, places[:5]))
    several = len(places) > 1
    return TARGET_IN_INPUTS.found(
        evidence,
        cause=f"Input column{'s' * several} {named} {how}. Is {'each of them' if several else 'it'} known before the target "
        "is? If not, the target leaks into the inputs, and the net learns to copy it.",
        cure=Cure(
            f"leak = {list(places)}  # columns that are made of the target\n"
            "rest = [i for i in range(x.shape[1]) if i not in leak]\n"
            "x = x[:, rest]  # for training and validation; the first layer then has len(rest) inputs"
        ),
    )


def _of_classes(x: Numbers, t: Numbers) -> tuple[list[int], Evidence, str] | None:
    """Columns with one value for each class, or, where no other does so, values that are far apart."""
    labels = [k for k in np.unique(t) if (t == k).sum() >= FEW]
    if len(labels) < 2 or len(labels) > len(t) / FEW:
        return None
    low, high = (np.stack([part(x[t == k], 0) for k in labels]) for part in (np.min, np.max))
    span = np.maximum(np.ptp(x, axis=0), 1e-30)
    widest = (high - low).max(0)
    constant = (widest <= OWN_VALUE * span) & (np.ptp(low, axis=0) > 0.01 * span)
    if constant.any():
        places = [int(i) for i in np.flatnonzero(constant)]
        known = max(len(np.unique(low[:, i])) for i in places)
        told = "tell the class of each sample" if known == len(labels) else "tell one class from the others"
        evidence = Evidence(
            "spread within a class of column " + str(places[0]), 0.0, OWN_VALUE, False, severity="warning"
        )
        return (
            places,
            evidence,
            f"{told if len(places) > 1 else told.replace('tell', 'tells', 1)}, without an exception",
        )
    order = np.argsort(low, 0)
    low, high = np.take_along_axis(low, order, 0), np.take_along_axis(high, order, 0)
    gap = (low[1:] - high[:-1]).min(0)
    apart = gap / np.maximum(widest, 1e-30)
    best = int(apart.argmax())
    if not apart[best] > APART or (gap > 0).sum() > 1:
        return None
    evidence = Evidence(
        f"gap between the classes in column {best}, over their width",
        float(apart[best]),
        APART,
        True,
        severity="warning",
    )
    return [best], evidence, "alone tells the class of each sample, by a wide gap, and no other column does"


def _of_numbers(x: Numbers, t: Numbers) -> tuple[list[int], Evidence, str] | None:
    """Columns that are the target but for offset and scale, or in the same order."""
    a, b = x - x.mean(0), t - t.mean()
    size = (a**2).sum(0)
    with np.errstate(all="ignore"):
        left = np.where(size > 0, 1 - (a * b[:, None]).sum(0) ** 2 / (size * (b**2).sum()), 1.0)
    best = int(left.argmin())
    others = np.delete(left, best)
    if left[best] < REST or (left[best] < NEARLY and others.min() > OTHERS):
        places = [int(i) for i in np.flatnonzero(left < max(REST, 1.01 * left[best]))]
        evidence = Evidence(
            f"variance of the target that column {best} leaves", float(left[best]), REST if left[best] < REST else NEARLY,
            False, severity="warning",
        )  # fmt: skip
        return places, evidence, "gives the target but for an offset and a scale"
    if len(np.unique(t)) < 0.5 * len(t):
        return None
    rank = t.argsort().argsort()
    for i in np.argsort(left)[:5]:
        if len(np.unique(x[:, i])) < 0.5 * len(t):
            continue
        order = x[:, i].argsort().argsort()
        if (order == rank).all() or (order == len(t) - 1 - rank).all():
            evidence = Evidence(
                f"pairs of samples that column {i} puts in another order than the target", 0.0, REST, False,
                severity="warning",
            )  # fmt: skip
            return [int(i)], evidence, "has the order of the target: it is a function of it"
    return None


def _of_sums(x: Numbers, t: Numbers) -> tuple[list[int], Evidence, str] | None:
    """Two or three columns of many, whose weighted sum is the target exactly."""
    if x.shape[1] < SUM_AMONG or len(x) < 2 * x.shape[1] + 20 or x.shape[1] > 200:
        return None
    spread = x.std(0)
    wide = np.flatnonzero(spread > 0)
    a, b = (x[:, wide] - x[:, wide].mean(0)) / spread[wide], (t - t.mean()) / t.std()
    weights, *_ = np.linalg.lstsq(a, b, rcond=None)
    left = float(((b - a @ weights) ** 2).mean())
    places = [int(i) for i in wide[np.abs(weights) > 1e-3]]
    if not left < SUM_REST or not 2 <= len(places) <= SUM_OF:
        return None
    evidence = Evidence(
        "variance of the target that their weighted sum leaves", left, SUM_REST, False, severity="warning"
    )
    return places, evidence, "give the target exactly, as a weighted sum"


# --- samples on both sides


def windows_overlap(view: View) -> Finding | None:
    """Beginnings of validation windows inside of training windows, and the reverse."""
    ours, theirs = series(view.seen), series(view.validation)
    if ours is None or theirs is None or len(theirs) < FEWEST or ours.shape[1:] != theirs.shape[1:]:
        return None
    found: list[Numbers] = []
    for a, b in ((ours, theirs), (ours.swapaxes(1, 2), theirs.swapaxes(1, 2))):
        length = min(a.shape[1] // 2, PIECE)
        if length * a.shape[2] < VALUES or length < 2:
            continue
        later, earlier = np.zeros(len(b), bool), np.zeros(len(b), bool)
        for shift in range(1, min(SHIFTS, a.shape[1] - length) + 1):
            there = slice(shift, shift + length)
            later |= among(b[:, :length], a[:, there])
            earlier |= among(b[:, there], a[:, :length])
        found.append(np.stack([later, earlier]))
    if not found:
        return None
    later, earlier = max(found, key=lambda each: each.any(0).mean())
    share = float((later | earlier).mean())
    less, more = sorted((int(later.sum()), int(earlier.sum())))
    if not share > OVERLAPPING or less < ONE_WAY * more:
        return None
    return WINDOWS_OVERLAP.found(
        Evidence(
            f"validation windows that overlap with a training window, of {len(theirs)} looked at",
            share, OVERLAPPING, True, True, "error" if share > 0.5 else "warning",
        ),
        cause="The series was cut into overlapping windows, and these were shuffled before the split: validation windows hold "
        "measurements that are in training windows too, before and after. The validation loss is too good.",
        cure=Cure(
            "# split the series in time first, and cut windows from each part; leave out one window's length between them\n"
            "cut = int(0.8 * len(x))  # x, t: all windows in order of time\n"
            "train, held = (x[:cut], t[:cut]), (x[cut + x.shape[1] :], t[cut + x.shape[1] :])"
        ),
    )  # fmt: skip


def near_duplicates(view: View) -> Finding | None:
    """Validation samples whose nearest training sample is far nearer than those after it."""
    both = sides(view)
    if both is None or view.whole_numbers or len(both.x) < 4 * NEIGHBOURS or len(both.held_x) < FEWEST:
        return None
    if not np.isfinite(both.x).all() or not np.isfinite(both.held_x).all():
        return None
    step = -(-both.x.shape[1] // FEATURES)  # of many pixels some will do
    spread = both.x.std(0)
    scale = np.maximum(spread, max(float(np.sqrt((spread**2).mean())), 1e-12))  # what hardly varies is not blown up
    a, mean = both.x / scale, both.x.mean(0) / scale
    first, later, dimension = _distances((both.held_x / scale - mean)[:, ::step], (a - mean)[:, ::step])
    x = view.inputs[0]
    if x.ndim == 4 and x.shape[-1] > 2:
        turned = both.held_x.reshape(len(both.held_x), *x.shape[1:])[..., ::-1].reshape(len(both.held_x), -1)
        first = np.minimum(first, _distances((turned / scale - mean)[:, ::step], (a - mean)[:, ::step])[0])
    near = float(((first < NEAR * later) & (first > 1e-6 * later)).mean())
    by_chance = 1 - (1 - NEAR**dimension) ** (NEIGHBOURS - 1)
    limit = NEAR_SHARE + 3 * by_chance
    if not near > limit or seen_in_training(view) is not None:
        return None
    return NEAR_DUPLICATES.found(
        Evidence("validation samples with a near copy in training", near, limit, True, True, "warning"),
        cause=f"{near:.0%} of the validation samples have a training sample nearer than {NEAR:g} times the {NEIGHBOURS}th "
        f"nearest one; of independent samples {by_chance:.1%} would: they are copies with small changes (augmented, frames of "
        "one film, the same person or object).",
        cure=Cure(
            "# split by what the copies have in common (person, film, original image), and augment after the split\n"
            "groups = groups.unique()  # the group of each sample; those of one group go to one side\n"
            "held = groups[: len(groups) // 5]"
        ),
    )


def _distances(rows: Numbers, among: Numbers) -> tuple[Numbers, Numbers, float]:
    """For each row the distance of the nearest and of the NEIGHBOURS-th other one, and the dimension of the samples."""
    squares = (rows**2).sum(1)[:, None] + (among**2).sum(1) - 2 * rows @ among.T
    half = NEIGHBOURS // 2
    distance = np.sqrt(np.maximum(np.partition(squares, (0, half - 1, NEIGHBOURS - 1), 1)[:, :NEIGHBOURS], 0))
    last = np.maximum(distance[:, -1], 1e-12)
    growth = float(np.log(last / np.maximum(distance[:, half - 1], 1e-12)).mean())
    return distance[:, 0], last, math.log(2) / max(growth, 1e-3)
