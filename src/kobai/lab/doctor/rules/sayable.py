"""Rules of what a net cannot say of its inputs whatever its weights are, and what the targets ask of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kobai import ops
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.dependence import outputs_of, redrawn
from kobai.lab.doctor.rules.neighbours import gathered, nearest
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View
from kobai.xp import to_host

ENOUGH, SAME = 100, 1e-3
"""Samples that are needed; differences between outputs, over what they vary, that are none."""
OFFSET = 0.8
"""Part of a linear fit's error that is left with a constant beside it, above which the constant is not missed."""
WRONG, BENT = 0.5, 0.1
"""Neighbours' error over that of a plane, and the difference of both, of what is to be told."""
ROUND, LEFT, PIXELS = 0.05, 0.8, 4096
"""What neighbouring places must tell beyond the place itself, the part of its error that is left, and places looked at."""

NO_OFFSET = Disease(
    "no-offset",
    "a net that says 0 of nothing",
    f"with new weights f(−x) = −f(x) within {SAME:g} of what f varies, in evaluation mode; and a constant beside a "
    "linear fit of "
    f"the targets, by least squares over {ENOUGH} samples or more, leaves less than {OFFSET:.0%} of the squared error",
    "Without a bias a linear layer maps 0 to 0, and so do all odd functions of it: f(x) = −f(−x) has the mean 0 over inputs of "
    "mean 0. Targets of another mean are missed by that, whatever the weights are.",
    "Montgomery, Peck, Vining, Introduction to linear regression analysis, section 2.10 (regression through the origin)",
    ("non-finite", "wrong-labels", "mixed-targets", "no-signal"),
    certain=True,
)
PLANE = Disease(
    "only-a-plane",
    "a linear net for what no plane tells",
    f"one layer with weights and f(a x + (1 − a) y) = a f(x) + (1 − a) f(y) within {SAME:g} of what f varies; of "
    "targets of one "
    f"half of {2 * ENOUGH} samples or more a linear fit of the other half misses {BENT:.0%} more than its five nearest "
    f"neighbours do, whose error is below {WRONG:.0%} of its own",
    "A linear layer parts its inputs by planes, and says numbers that change evenly along each direction. Classes within one "
    "another, such as rings, have no plane between them; a hidden layer with an activation bends it.",
    "Goodfellow, Bengio, Courville, Deep Learning, 2016, section 6.1 (XOR); Cover and Hart 1967",
    ("non-finite", "wrong-labels", "no-signal", "no-activation", "no-offset"),
)
ONE_PLACE = Disease(
    "one-place",
    "places that are judged by themselves",
    "outputs over the places of the inputs, with new weights: each depends on the inputs at its own place alone; and linear "
    f"fits of the targets over half of the samples tell {ROUND:.0%} more of the other half, and leave less than {LEFT:.0%} of "
    "the error, where they know the places beside as well",
    "A kernel of size 1 is a dense layer for each place. However many follow each other, the receptive field is one place: "
    "1 + Σ(k − 1). Two layers of 3 × 3 see 5 × 5.",
    "Luo et al., Understanding the effective receptive field in deep convolutional neural networks, NeurIPS 2016",
    ("non-finite", "wrong-labels", "no-signal", "masks-turned"),
    certain=True,
)


def _spread(y: Numbers) -> float:
    return float(np.sqrt(np.mean((y - y.mean(0)) ** 2)))


def _numbers(view: View, samples: int = ENOUGH) -> tuple[Numbers, Numbers] | None:
    """Inputs and targets of enough samples, all finite; None where the net takes others than one tensor of numbers."""
    if len(view.inputs) != 1 or view.whole_numbers or not isinstance(view.target, Tensor):
        return None
    both = gathered(view.seen)
    if both is None or len(both[0]) < samples or not all(np.isfinite(part).all() for part in both):
        return None
    x, t = both[0].astype(np.float64), both[1]
    return x, (t[:, 0] if view.classes is not None else t.astype(np.float64))


def _given(view: View, x: Tensor, rows: Sequence[Numbers]) -> list[Numbers] | None:
    """What a net with new weights gives for other inputs of the shape of x; None if it refuses them."""
    assert view.ledger is not None
    model, found = redrawn(view.ledger.fresh), []
    try:
        for row in rows:
            given = ops.from_numpy(np.ascontiguousarray(row)).to(x.device, x.dtype)
            found.append(np.concatenate([y.reshape(len(row), -1) for y in outputs_of(model, [given])], 1))
    except Exception:  # weights that cannot be redrawn, outputs that are none of single samples
        return None
    return found if all(np.isfinite(y).all() for y in found) else None


def _usual(x: Tensor) -> Numbers:
    """Standardised inputs, all features alike."""
    array = to_host(x.detach().array).astype(np.float64)
    return (array - array.mean()) / max(float(array.std()), 1e-12)  # type: ignore[no-any-return]


def no_offset(view: View) -> Finding | None:
    """Whether f is odd, and the targets want a constant."""
    both = _numbers(view)
    if both is None or both[1].ndim != 2 or view.classes is not None or len(both[0]) < 5 * both[0].shape[1]:
        return None
    x, t = both
    first = view.ledger.few[0] if view.ledger is not None else view.inputs[0]
    if (
        not isinstance(view.reading.layers[-1].output.size, int)
        or view.reading.layers[-1].output.size != view.target.numel()
    ):
        return None
    usual = _usual(first)
    outputs = _given(view, first, (usual, -usual))
    if outputs is None or not _spread(outputs[0]) > 0:
        return None
    off = float(np.sqrt(np.mean((outputs[0] + outputs[1]) ** 2))) / _spread(outputs[0])
    if not off < SAME:
        return None
    one = np.ones((len(x), 1))
    without, beside = (_error(part, t, part, t) for part in (x, np.concatenate([x, one], 1)))
    left = beside / without if without > 0 else 1.0
    if not left < OFFSET:
        return None
    return NO_OFFSET.found(
        Evidence("squared error of a linear fit with a constant, of that without", left, OFFSET, False, True, "warning"),
        cause=f"The net has no bias: it says 0 for inputs of 0, and −y where −x is given. The mean of the targets, "
        f"{float(t.mean()):.3g}, is beyond it, and this offset is most of the error.",
        cure=Cure("# the default, nn.Linear(…, bias=True), in the last layer; bias=False is for layers before a norm"),
    )  # fmt: skip


def _error(x: Numbers, t: Numbers, others: Numbers, truth: Numbers) -> float:
    """Squared error that a linear fit of x leaves of the truth of other samples."""
    weights = np.linalg.lstsq(x, t, rcond=None)[0]
    return float(((truth - others @ weights) ** 2).sum())


def only_a_plane(view: View) -> Finding | None:
    """What a linear fit and neighbours miss, where the net is affine."""
    both = _numbers(view, 2 * ENOUGH)
    weights = view.stages
    if both is None or len(weights) != 1 or len(both[0]) < 10 * both[0].shape[1] or view.ledger is None:
        return None
    x, t = both
    first = view.ledger.few[0]
    usual = _usual(first)
    outputs = _given(view, first, (usual, np.roll(usual, 1, 0), 2 * usual - np.roll(usual, 1, 0)))
    if outputs is None or not _spread(outputs[0]) > 0:
        return None
    off = float(np.sqrt(np.mean((outputs[2] - 2 * outputs[0] + outputs[1]) ** 2))) / _spread(outputs[0])
    if not off < SAME:
        return None
    order = np.random.default_rng(0).permutation(len(x))
    a, b = order[: len(x) // 2], order[len(x) // 2 :]
    places = nearest(x[b], x[a], count=5)
    one = np.ones((len(x), 1))
    rows = np.concatenate([x, one], 1)
    if t.ndim == 1:
        values, label = np.unique(t, return_inverse=True)
        sure = np.eye(len(values))[label]
        plane = float(((rows[b] @ np.linalg.lstsq(rows[a], sure[a], rcond=None)[0]).argmax(1) != label[b]).mean())
        near = float((sure[a][places].sum(1).argmax(1) != label[b]).mean())
    else:
        total = float(((t[b] - t[a].mean(0)) ** 2).sum())
        if not total > 0:
            return None
        plane = _error(rows[a], t[a], rows[b], t[b]) / total
        near = float(((t[b] - t[a][places].mean(1)) ** 2).sum()) / total
    if not (plane - near > BENT and near < WRONG * plane):
        return None
    return PLANE.found(
        Evidence("error of a linear fit of other samples", plane, near + BENT, True, True, "warning"),
        cause=f"The net is one linear layer, and no plane tells these targets: a linear fit misses {plane:.0%} of new samples, "
        f"and the nearest neighbours {near:.0%}.",
        cure=Cure(
            f"# a hidden layer with an activation before it:\nmodel = nn.Sequential(nn.Linear({x.shape[1]}, 64), nn.ReLU(), "
            "nn.Linear(64, outputs))"
        ),
        where=[weights[0].layer],
    )


def one_place(view: View) -> Finding | None:
    """Which inputs an output depends on, of a net of places; and what the places beside tell of its target."""
    if view.ledger is None or len(view.inputs) != 1 or view.whole_numbers or not isinstance(view.target, Tensor):
        return None
    x, t = view.ledger.few[0], view.target
    if (
        x.ndim not in (3, 4)
        or min(x.shape[2:]) < 4
        or t.shape[0] != len(view.inputs[0])
        or t.shape[t.ndim - x.ndim + 2 :] != x.shape[2:]
    ):
        return None
    if t.ndim not in (x.ndim, x.ndim - 1) or (t.ndim == x.ndim - 1 and t.shape[1:] != x.shape[2:]):
        return None
    usual = _usual(x)[:4]
    middle = tuple(size // 2 for size in x.shape[2:])
    other = usual.copy()
    other[(slice(None), slice(None), *middle)] += 3.0
    model = redrawn(view.ledger.fresh)
    try:
        before, after = (
            outputs_of(model, [ops.from_numpy(np.ascontiguousarray(part)).to(x.device, x.dtype)])
            for part in (usual, other)
        )
    except Exception:  # weights that cannot be redrawn
        return None
    if len(before) != 1 or before[0].ndim != x.ndim or before[0].shape[2:] != x.shape[2:]:
        return None
    moved = np.abs(after[0] - before[0]).max((0, 1))
    own = float(moved[middle])
    moved[middle] = 0
    if not own > 0 or float(moved.max()) > 0:
        return None
    alone, beside = _by_places(to_host(view.inputs[0].array), to_host(t.array))
    if not (beside - alone > ROUND and 1 - beside < LEFT * (1 - alone)):
        return None
    kernel = " × ".join("1" for _ in middle)
    return ONE_PLACE.found(
        Evidence("what a place alone tells of its target, of new samples", alone, beside - ROUND, False, True, "warning"),
        cause=f"Each output depends on the one pixel or step at its own place (all kernels are {kernel}), while the "
        "target there "
        f"hangs on its neighbours: a linear fit tells {max(0.0, alone):.0%} by the place alone and {beside:.0%} with "
        "those beside.",
        cure=Cure(
            "# kernels of 3, which keep the size with padding=1, as nn.Conv2d(…, …, 3, padding=1); each layer of them "
            "sees one\n"
            "# place further on every side"
        ),
    )  # fmt: skip


def _by_places(x: Numbers, t: Numbers) -> tuple[float, float]:
    """Shares of the targets of half of the samples that linear fits of the others explain: by places, and by those beside."""
    x = x.astype(np.float64)
    axes = range(2, x.ndim)
    shifts = [{axis: step} for axis in axes for step in (-1, 1)]
    if x.ndim == 4:
        shifts += [{2: i, 3: j} for i in (-1, 1) for j in (-1, 1)]
    x = x - x.mean()
    own = np.concatenate([x, x**2, np.abs(x)], 1)
    beside = [np.roll(x, list(shift.values()), list(shift)) for shift in shifts]
    every = np.concatenate([own, *beside, sum(beside) ** 2], 1)
    truth = (
        t.reshape(len(t), -1, *x.shape[2:])
        if t.dtype.kind == "f"
        else (t[:, None] == np.unique(t)[:8].reshape(1, -1, *[1] * (x.ndim - 2)))
    )
    rows = [np.moveaxis(part, 1, -1).reshape(-1, part.shape[1]).astype(np.float64) for part in (own, every, truth)]
    half, keep = len(rows[0]) // 2, np.random.default_rng(0)
    a = keep.permutation(half)[:PIXELS]
    b = half + keep.permutation(len(rows[0]) - half)[:PIXELS]
    one = np.ones((len(rows[0]), 1))
    total = float(((rows[2][b] - rows[2][a].mean(0)) ** 2).sum())
    fits = [np.concatenate([part, one], 1) for part in rows[:2]]
    left = [_error(part[a], rows[2][a], part[b], rows[2][b]) / max(total, 1e-30) for part in fits]
    return 1 - left[0], 1 - left[1]
