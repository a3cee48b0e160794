"""Rules of single columns and samples: numbers that stand for nothing, other units, two scales, axes in another order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.cures_of_data import channels_first, convert, fill_in, one_scale
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.neighbours import gathered
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View
from kobai.xp import to_host

ENOUGH, WIDEST, VALUES = 50, 512, 20
MISSING_GAP, UNIT_GAP, HALF, THIRD = 1.0, 5.0, 0.5, 0.3
SCALES, SCALES_SHARE, NUMBERS = 10.0, 0.05, 8
EACH = 10
CHANNELS, SMOOTH, SMOOTHER = (2, 3, 4), 0.5, 0.25

MISSING_AS_NUMBER = Disease(
    "missing-as-number",
    "a number that stands for what is missing",
    f"of {ENOUGH} or more samples, in a column of which the rest has {VALUES} or more values: one value of 3 or more samples "
    f"(at most {HALF:.0%}) that lies beyond all others, by more than {MISSING_GAP:g} times what nine tenths of them span",
    "−999, 9999 or 0 in place of what was not measured is a huge measurement to the net: it sets the scale of the column, and "
    "the gradient of its weights.",
    "Little and Rubin, Statistical analysis with missing data, chapter 1; Géron, Hands-on machine learning, chapter 2",
    ("non-finite",),
    fact=True,
)
OTHER_UNITS = Disease(
    "other-units",
    "some rows of a column are in another unit",
    f"of {ENOUGH} or more samples, in a column of which the rest has {VALUES} or more values: 1 % to {THIRD:.0%} of the "
    f"samples, 5 or more, of several values, that lie beyond all others by more than {UNIT_GAP:g} times what nine tenths of "
    "these span",
    "Metres beside millimetres, or two sources that were joined: the few set the mean and the spread of the column, and all "
    "others become alike.",
    "Rahm and Do, Data cleaning: problems and current approaches, 2000; Kim et al., A taxonomy of dirty data, 2003",
    ("non-finite", "missing-as-number"),
    fact=True,
)
TWO_SCALES = Disease(
    "samples-of-two-scales",
    "some samples have another scale than the others",
    f"root mean squares of the samples (of {NUMBERS} or more numbers, without the largest eighth) with a gap of more "
    f"than {SCALES:g} times between two groups, each of {SCALES_SHARE:.0%} or more of the samples, and more than each group "
    "spans",
    "Pixels from 0 to 255 in some files and from 0 to 1 in others: the former make all of the gradient, and the latter look "
    "black to the net.",
    "LeCun, Bottou, Orr, Müller, Efficient BackProp, 1998, section 4.3; torchvision.transforms (ranges by dtype)",
    ("non-finite",),
    fact=True,
)
LABELS_FROM_ONE = Disease(
    "labels-from-one",
    "labels are counted from 1, and an output is left over",
    f"one output more than there are classes: label 0 never occurs, though {EACH} or more samples are to be expected of each "
    "class, and all others do",
    "Labels from 1 to C fit C + 1 outputs, of which the first is never right: nothing fails, but class k is the k-th output "
    "only if one counts from 0, in names, reports and confusion matrices.",
    "definition of the cross-entropy of class indices; torch.nn.CrossEntropyLoss (targets in [0, C))",
    ("non-finite", "wrong-labels", "unshuffled"),
    fact=True,
)
AXES_IN_ANOTHER_ORDER = Disease(
    "axes-in-another-order",
    "images have their axes in another order than a convolution takes them",
    f"for a net with convolutions: numbers (N, C, H, W) of {CHANNELS[0]} to {CHANNELS[-1]} channels that are smoother by more "
    f"than {SMOOTHER:g} (correlation of neighbours, the lesser one of height and width) if they are read as (N, H, W, C); or a "
    f"last axis of that length, while neighbours along the axis of channels correlate by more than {SMOOTH:g}",
    "A convolution slides over the last two axes. A reshape from (H, W, C) to (C, H, W) leaves the numbers where they are, so "
    "that a row of a channel holds all channels of a third of a row; permute moves them.",
    "torch.nn.Conv2d (shape: N, C, H, W); LeCun et al. 1998 on local correlation",
    ("non-finite",),
    fact=True,
)
IDLE_COLUMNS = Disease(
    "idle-columns",
    "columns that are constant or equal to others",
    f"in a table of {ENOUGH} or more samples whose other columns hardly repeat a value: columns of one value, or equal to "
    "another column",
    "They say nothing, or nothing new, and do no harm either; but a column that was meant to be another one is lost.",
    "Hastie, Tibshirani, Friedman, The elements of statistical learning, section 3.4",
    ("non-finite",),
    fact=True,
)


@dataclass(frozen=True)
class Far:
    """What lies beyond the rest of a column: its rows, the gap over the span of the rest, and the medians of both."""

    column: int
    rows: Numbers
    gap: float
    own: float
    rest: float
    single: bool


def far_groups(x: Numbers) -> list[Far]:
    """For each column (N, F) the smaller side of its widest gap, if the other side has many values."""
    n, found = len(x), []
    order = np.sort(x, 0)
    gaps = np.diff(order, axis=0)
    at = gaps.argmax(0)
    count = np.minimum(at + 1, n - 1 - at)
    for i in np.flatnonzero((count >= 3) & (count <= HALF * n) & (gaps.max(0) > 0)):
        above = at[i] + 1 > n - 1 - at[i]
        edge = order[at[i] + 1, i] if above else order[at[i], i]
        rows = x[:, i] >= edge if above else x[:, i] <= edge
        rest, own = x[~rows, i], x[rows, i]
        span = float(np.subtract(*np.quantile(rest, (0.95, 0.05))))
        if len(np.unique(rest)) < VALUES or not span > 0:
            continue
        single = len(np.unique(own)) == 1
        found.append(
            Far(int(i), rows, float(gaps[at[i], i]) / span, float(np.median(own)), float(np.median(rest)), single)
        )
    return found


def _table(view: View) -> tuple[Numbers, Numbers] | None:
    """Inputs (N, F) of numbers, and targets, of a table that is not too wide."""
    if view.whole_numbers or not isinstance(view.inputs[0], Tensor) or view.inputs[0].ndim != 2:
        return None
    both = gathered(view.seen)
    if both is None or len(both[0]) < ENOUGH or both[0].shape[1] > WIDEST or not np.isfinite(both[0]).all():
        return None
    return both


def missing_as_number(view: View) -> Finding | None:
    """One value, of several samples, far beyond all others of its column; in the inputs or in the targets of a regression."""
    both = _table(view)
    if both is None:
        return None
    x, t = both
    far = [each for each in far_groups(x) if each.single and each.gap > MISSING_GAP]
    targets = []
    if (
        view.classes is None
        and not view.binary
        and t.dtype.kind == "f"
        and np.isfinite(t).all()
        and t.shape[1] <= WIDEST
    ):
        targets = [each for each in far_groups(t) if each.single and each.gap > MISSING_GAP]
    if not far and not targets:
        return None
    worst = max(far or targets, key=lambda each: each.gap)
    column, share = x[:, worst.column] if far else t[:, worst.column], float(worst.rows.mean())
    wider = float(column.std() / max(float(column[~worst.rows].std()), 1e-12))
    what = f"column {worst.column}" if far else "the targets"
    if far:
        cure = fill_in(worst.column, worst.own, worst.rest)
    else:
        cure = Cure(
            f"there = (t - ({worst.own:.6g})).abs() > 1e-3  # leave samples without a target out\n"
            "x, t = x[there.reshape(len(t), -1).all(1)], t[there.reshape(len(t), -1).all(1)]"
        )
    also = f" (and in {len(far) - 1} more columns)" if len(far) > 1 else ""
    return MISSING_AS_NUMBER.found(
        Evidence(
            f"gap beside {worst.own:.6g} in {what}, over what nine tenths of the others span", worst.gap, MISSING_GAP, True,
            severity="error" if wider > 2 else "warning",
        ),
        cause=f"{share:.1%} of the samples have exactly {worst.own:.6g} in {what}{also}, far from all others (median "
        f"{worst.rest:.4g}): it stands for a missing value, and makes the spread {wider:.3g} times as large.",
        cure=cure,
    )  # fmt: skip


def other_units(view: View) -> Finding | None:
    """A few rows of a column that lie beyond all others, by far, with values of their own."""
    both = _table(view)
    if both is None:
        return None
    x, _ = both
    limits = max(5.0, 0.01 * len(x)), THIRD * len(x)
    far = [
        each for each in far_groups(x)
        if not each.single and each.gap > UNIT_GAP and limits[0] <= each.rows.sum() <= limits[1]
    ]  # fmt: skip
    if not far:
        return None
    worst = max(far, key=lambda each: each.gap)
    column, share = x[:, worst.column], float(worst.rows.mean())
    wider = float(column.std() / max(float(column[~worst.rows].std()), 1e-12))
    times = abs(worst.own / worst.rest) if worst.rest else math.inf
    beyond = math.sqrt(float(np.abs(column[worst.rows]).min()) * max(float(np.abs(column[~worst.rows]).max()), 1e-12))
    near = [f for f in (10.0, 100.0, 1000.0, 1e4, 1e6) if 0.6 < times / f < 1.6]
    whole = float(np.abs(column[worst.rows]).min()) > beyond > float(np.abs(column[~worst.rows]).max())
    cure = (
        convert(worst.column, beyond, near[0] if near else times)
        if whole and 2 < times < math.inf
        else Cure(
            f"far = (x[:, {worst.column}] - ({worst.rest:.4g})).abs() > (x[:, {worst.column}] - ({worst.own:.4g})).abs()\n"
            "print(x[far])  # where do these rows come from, and in which unit are they?"
        )
    )
    said = f", about {times:.3g} times as much" if 2 < times < math.inf else ""
    return OTHER_UNITS.found(
        Evidence(
            f"gap beside the far rows of column {worst.column}, over what nine tenths of the others span", worst.gap, UNIT_GAP,
            True, severity="error" if wider > 2 else "warning",
        ),
        cause=f"{share:.1%} of the samples have about {worst.own:.4g} in column {worst.column}, all others about "
        f"{worst.rest:.4g}, and none lies between: another unit{said}, or another source of data.",
        cure=cure,
    )  # fmt: skip


def two_scales(view: View) -> Finding | None:
    """Two groups of samples, of sizes that are far apart."""
    both = None if view.whole_numbers else gathered(view.seen)
    if both is None or len(both[0]) < ENOUGH or both[0].shape[1] < NUMBERS or not np.isfinite(both[0]).all():
        return None
    x = np.abs(both[0].astype(np.float64))
    # Without the largest eighth of its numbers: a single column may be far larger in some samples.
    least = np.sort(x, 1)[:, : x.shape[1] - -(-x.shape[1] // 8)]
    size, whole = np.sqrt((least**2).mean(1)), np.sqrt((x**2).mean(1))
    there = np.argsort(size)[np.count_nonzero(size == 0) :]
    if len(there) < ENOUGH:
        return None
    order = np.log(size[there])
    gaps = np.diff(order)
    at, gap = int(gaps.argmax()) + 1, float(gaps.max())
    few = min(at, len(order) - at) / len(order)
    spans = [float(np.subtract(*np.quantile(part, (0.95, 0.05)))) for part in (order[:at], order[at:])]
    below, above = float(whole[there[:at]].max()), float(whole[there[at:]].min())
    if few < SCALES_SHARE or not gap > math.log(SCALES) or gap < max(spans) or not below < above:
        return None
    low, high = (float(np.median(whole[rows])) for rows in (there[:at], there[at:]))
    near = [f for f in (100.0, 127.5, 255.0, 256.0, 1000.0) if 0.7 < high / low / f < 1.4]
    factor = min(near, key=lambda f: abs(math.log(high / low / f))) if near else high / low
    return TWO_SCALES.found(
        Evidence("gap between two groups of samples, larger size over smaller one", math.exp(gap), SCALES, True),
        cause=f"{1 - at / len(order):.0%} of the samples have a root mean square of about {high:.3g}, the others of about "
        f"{low:.3g}, and none lies between: some were divided (by 255?) and some were not.",
        cure=one_scale(math.sqrt(below * above), factor),
    )


def labels_from_one(view: View) -> Finding | None:
    """Labels of which 0 alone does not occur."""
    classes = view.classes
    if classes is None or classes < 3 or view.whole_numbers:
        return None
    labels = np.concatenate([to_host(batch[-1].array).reshape(-1) for batch in view.seen])
    counts = np.bincount(labels[(labels >= 0) & (labels < classes)].astype(np.int64), minlength=classes)
    expected = counts.sum() / classes
    if counts[0] or expected < EACH or counts[1:].min() < 0.3 * expected:
        return None
    return LABELS_FROM_ONE.found(
        Evidence("least label", float(labels.min()), 0, True, severity="warning"),
        cause=f"The labels are 1 to {classes - 1}, each of them with {counts[1:].min()} samples or more, and 0 is not among "
        f"{len(labels)}: {classes - 1} classes counted from 1, for {classes} outputs, of which output 0 is never right.",
        cure=Cure(f"t = t - 1  # labels from 0; the last layer then has {classes - 1} outputs"),
    )


def axes_in_another_order(view: View) -> Finding | None:
    """How much neighbouring numbers are alike, as the images are given, and with the channels as their last axis."""
    x = view.inputs[0] if view.inputs else None
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
        return None
    if not any(isinstance(module, nn.Conv2d) for module in view.modules.values()):
        return None
    images = to_host(x.detach()[:64].array).astype(np.float64)
    n, channels, height, width = images.shape
    if not np.isfinite(images).all() or n < 4:
        return None
    if width in (1, *CHANNELS) and min(channels, height) >= 8:
        along = min(_smoothness(images.transpose(0, 3, 1, 2)))
        if not along > SMOOTH:
            return None
        return AXES_IN_ANOTHER_ORDER.found(
            Evidence("correlation of neighbours along the axis of channels", along, SMOOTH, True, severity="warning"),
            cause=f"Images of shape {images.shape[1:]} are taken as {channels} channels of {height} by {width} pixels; they "
            f"look like {width} channel{'s' * (width > 1)} of {channels} by {height}, with the channels last.",
            cure=Cure(f"x = x.permute(0, 3, 1, 2)  # (N, C, H, W); the first convolution then has in_channels={width}"),
        )
    if channels not in CHANNELS or min(height, width) < 8:
        return None
    now = min(_smoothness(images))
    then = min(_smoothness(images.reshape(n, height, width, channels).transpose(0, 3, 1, 2)))
    if not then > now + SMOOTHER:
        return None
    return AXES_IN_ANOTHER_ORDER.found(
        Evidence(
            "correlation of neighbours, with the channels as last axis, less that of the images as they are", then - now,
            SMOOTHER, True, severity="warning",
        ),
        cause=f"Neighbouring pixels correlate by {now:.2f} as the images are, and by {then:.2f} if the same numbers are read "
        f"as (N, {height}, {width}, {channels}): height, width and channels were exchanged by a reshape in place of a permute.",
        cure=channels_first(channels),
    )  # fmt: skip


def _smoothness(images: Numbers) -> list[float]:
    """Correlation of neighbours along height and width, of (N, C, H, W)."""
    centred = images - images.mean((2, 3), keepdims=True)
    size = float((centred**2).mean())
    if not size > 0:
        return [0.0, 0.0]
    down = float((centred[:, :, 1:] * centred[:, :, :-1]).mean()) / size
    across = float((centred[..., 1:] * centred[..., :-1]).mean()) / size
    return [down, across]


def idle_columns(view: View) -> Finding | None:
    """Constant columns and pairs of equal ones, in a table of columns that hardly repeat a value."""
    both = _table(view)
    if both is None or both[0].shape[1] < 3:
        return None
    x = both[0]
    values = np.array([len(np.unique(column)) for column in x.T])
    constant = np.flatnonzero(values == 1)
    rich = np.flatnonzero(values > 0.5 * len(x))
    if len(rich) + len(constant) < 0.9 * x.shape[1] or len(constant) > 0.5 * x.shape[1]:
        return None
    known: dict[bytes, int] = {}
    twice = [int(i) for i in rich if known.setdefault(x[:, i].tobytes(), int(i)) != i]
    idle = [*map(int, constant), *twice]
    if not idle:
        return None
    parts = [f"{_listed(constant.tolist())} constant"] if len(constant) else []
    parts += [f"{_listed(twice)} equal to another one"] if twice else []
    return IDLE_COLUMNS.found(
        Evidence("columns that say nothing of their own", len(idle), 0, True, severity="note"),
        cause=f"Of {x.shape[1]} input columns {' and '.join(parts)}. Perhaps another column was meant.",
        cure=Cure(
            f"idle = {idle}\nx = x[:, [i for i in range(x.shape[1]) if i not in idle]]  # for training and validation"
        ),
    )


def _listed(places: Sequence[Any]) -> str:
    some = ", ".join(str(int(place)) for place in places[:5])
    return f"{some} {'is' if len(places) == 1 else 'are'}"
