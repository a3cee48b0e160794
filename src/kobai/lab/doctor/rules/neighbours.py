"""Nearest neighbours: do samples that are alike have targets that are alike? No net is needed to see that.

The rule of targets that have nothing to do with their inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kobai import nn, ops
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding, better
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import undisturbed
from kobai.nn import functional as F
from kobai.optim import Adam
from kobai.random import manual_seed
from kobai.train.batches import device_of
from kobai.train.step import computing
from kobai.xp import to_host

SURE = 4.0
"""Standard deviations above chance, beyond which neighbours surely tell a target."""
DRAWS = 30
"""Permutations of the targets, which say what chance gives."""
UNSURE, ENOUGH, HEART, FITTED = 2.5, 200, 32, 0.5
BEGUN = 0.1
"""A net that is below guessing by less than this part, on the samples that it is trained on, has not begun to learn them."""
LOOKS, WIDTH, PACE = (20, 60, 180), 64, 3e-3
"""Steps after which a reference net is asked of new samples, its units in each of two hidden layers, and its rate (Adam)."""
TAILS = (5, 95)
"""Percentiles beyond which the size of a target does not matter."""
MOST = 1024
"""Samples that are compared at most."""

UNRELATED = Disease(
    "labels-unrelated",
    "targets have nothing to do with the inputs",
    f"of {ENOUGH} or more samples, the five nearest neighbours of a sample tell its target no better than chance (less than "
    f"{UNSURE:g} standard deviations above what permuted targets give), nor do the net, which is below guessing by "
    f"{BEGUN:.0%} on those it is trained on, and a reference net of two layers of {WIDTH} units tell those of samples held "
    f"out; while a copy learns {HEART} samples by heart, to less than {FITTED:g} of the loss of guessing: net, loss and "
    "optimiser work",
    "A net can learn any targets by heart, but what it learns holds for new samples only where similar inputs have similar "
    "targets. A relation so faint, or so intricate, that neither sees it in so few samples looks the same.",
    "Zhang, Bengio, Hardt, Recht, Vinyals, Understanding deep learning requires rethinking generalization, 2017; Cover "
    "and Hart 1967",
    (
        *("non-finite", "wrong-labels", "no-signal", "few-samples", "signal-lost", "unused-inputs", "order-unseen"),
        *("masks-turned", "targets-out-of-step", "axes-in-another-order", "rare-class"),
    ),
    fact=True,
)


def flat(x: Tensor) -> Numbers:
    """A host array of one row for each sample."""
    array = to_host(x.detach().array)
    return array.reshape(len(array), -1).astype(np.float32 if array.dtype.kind in "fiub" else array.dtype)


def nearest(x: Numbers, among: Numbers, alone: bool = False, count: int = 1) -> Numbers:
    """Places (N, count) of the nearest rows, by the distance of standardised features; ``alone``: a row is not its own.

    >>> nearest(np.array([[0.0], [1.0], [5.0]]), np.array([[0.0], [1.0], [5.0]]), alone=True).ravel().tolist()
    [1, 0, 1]
    """
    spread = among.std(0)
    scale = np.where(spread > 0.1 * spread.max(initial=0.0), spread, max(0.1 * float(spread.max(initial=0.0)), 1e-12))
    a, b = (x - among.mean(0)) / scale, (among - among.mean(0)) / scale
    distance = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    if alone:
        np.fill_diagonal(distance, np.inf)
    return np.argpartition(distance, min(count, distance.shape[1] - 1), axis=1)[:, :count]


@dataclass(frozen=True)
class Beyond:
    """How much better neighbours tell a target than chance does: in standard deviations; the score, and that of chance."""

    deviations: float
    score: float
    chance: float


def beyond_chance(t: Numbers, known: Numbers, places: Numbers) -> Beyond:
    """The share of neighbours with the same label, or how much nearer their numbers are, beside that of permuted targets.

    ``t`` are the targets of the samples, ``known`` those of their neighbours at ``places``. For numbers (2-D) the score is
    1 − Σ(t − mean of neighbours)²/Σ(t − mean)²; for labels (1-D) the share of equal ones.
    """
    rng = np.random.default_rng(0)

    def score(own: Numbers) -> float:
        if own.ndim == 1:
            return float((known[places] == own[:, None]).mean())
        rest = own - known[places].mean(1)
        total = ((own - own.mean(0)) ** 2).sum()
        return 1 - float((rest**2).sum() / total) if total > 0 else 0.0

    drawn = [score(t[rng.permutation(len(t))]) for _ in range(DRAWS)]
    found, chance, spread = score(t), float(np.mean(drawn)), float(np.std(drawn))
    return Beyond((found - chance) / spread if spread > 0 else 0.0, found, chance)


def gathered(batches: Sequence[Any]) -> tuple[Numbers, Numbers] | None:
    """First inputs (N, features) and targets of at most MOST samples; None for inputs of several lengths, or no tensors."""
    xs, ts, count = [], [], 0
    for first, *_, target in batches:
        if not isinstance(first, Tensor) or not isinstance(target, Tensor) or len(first) != len(target):
            return None
        xs.append(flat(first))
        ts.append(flat(target))
        count += len(first)
        if count >= MOST:
            break
    if not xs or len({x.shape[1] for x in xs}) > 1 or len({t.shape[1] for t in ts}) > 1:
        return None
    return np.concatenate(xs)[:MOST], np.concatenate(ts)[:MOST]


def unrelated(view: View) -> Finding | None:
    """Neighbours and a trained copy that tell no target, while a copy learns a few samples by heart."""
    trials, chance = view.trials, view.chance
    if trials is None or chance is None or not trials.held or view.whole_numbers:
        return None
    both = gathered(view.seen)
    if both is None or len(both[0]) < ENOUGH or not all(np.isfinite(part).all() for part in both):
        return None
    x, t = both[0], both[1][:, 0] if view.classes is not None else _within(both[1], both[1])
    near = beyond_chance(t, t, nearest(x, x, alone=True, count=5))
    if near.deviations >= UNSURE:
        return None
    course = trials.course()
    if not better(course.end, chance, BEGUN):  # what it says of new samples says nothing of the data
        return None
    told = _told(course.patient.model, trials.held, view)
    if told is None or told.deviations >= UNSURE:
        return None
    if reference(view, trials.fitted, trials.held) >= UNSURE:
        return None
    *inputs, target = trials.fitted[0]
    few = [(*[part[:HEART] for part in inputs], target[:HEART])]
    heart = trials.course(f"{HEART} samples by heart", batches=few)
    if not heart.end < FITTED * chance and not better(course.end, chance, FITTED):
        return None
    by_heart = min(heart.end, course.end)
    return UNRELATED.found(
        Evidence(
            f"what neighbours tell of the targets of {len(x)} samples, above chance", near.deviations, UNSURE, False
        ),
        Evidence(
            "what the net tells of samples held out of its training, above chance", told.deviations, UNSURE, False
        ),
        cause=f"{_said(view, near)}, and a copy that learnt {HEART} samples by heart (loss {by_heart:.2g}, guessing "
        f"{chance:.2g}) tells no better of new ones: the targets look as if drawn at random (numbers are standard deviations).",
        cure=Cure(
            "# are inputs and targets still in one order? Look at a few pairs, and at where they are joined or shuffled:\n"
            "for i in range(5):\n"
            "    print(x[i], t[i])"
        ),
        severity="warning",
    )


def _within(t: Numbers, of: Numbers) -> Numbers:
    """Numbers, of which those beyond TAILS of some others are these bounds: squares of a few would drown all that is told."""
    low, high = np.percentile(of, TAILS, axis=0)
    return np.clip(t, low, high).astype(t.dtype)


def reference(view: View, fitted: Sequence[Any], held: Sequence[Any]) -> float:
    """Deviations above chance by which a small net of standardised inputs tells samples held out, at the best of its looks."""
    both, new = gathered(fitted), gathered(held)
    if both is None or new is None:
        return 0.0
    (x, t), (other, truth) = both, new
    labels = view.classes is not None
    if not labels:
        t, truth = _within(t, t), _within(truth, t)
    if labels and min(t.min(), truth.min()) < 0:  # places that the loss leaves out
        return 0.0
    device = device_of(view.model)
    mean, spread = x.mean(0), np.maximum(x.std(0), 1e-6)
    x, other = ((part - mean) / spread for part in (x, other))
    target = t[:, 0].astype(np.int64) if labels else (t - t.mean(0)) / np.maximum(t.std(0), 1e-6)
    with undisturbed():
        manual_seed(0)
        wide = max(view.classes or 0, int(t.max()) + 1) if labels else t.shape[1]
        hidden = [nn.Linear(x.shape[1], WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()]
        model = nn.Sequential(*hidden, nn.Linear(WIDTH, wide)).to(device)
        optimizer = Adam(model.parameters(), lr=PACE)
        given, wanted, asked, known = (
            ops.from_numpy(np.ascontiguousarray(part)).to(device) for part in (x, target, other, truth)
        )
        known = known[:, 0] if labels else known
        told = []
        for step in range(1, LOOKS[-1] + 1):
            loss = F.cross_entropy(model(given), wanted) if labels else F.mse_loss(model(given), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step in LOOKS and (found := _told(model, [(asked, known)], view)) is not None:
                told.append(found.deviations)
            model.train()
    return max(told, default=0.0)


def _said(view: View, near: Beyond) -> str:
    if view.classes is not None:
        return f"Neighbours have the same label in {near.score:.0%} of cases, and {near.chance:.0%} is chance"
    return f"Neighbours explain {max(0.0, near.score):.0%} of what differs between the targets"


def _told(model: Any, batches: Sequence[Any], view: View) -> Beyond | None:
    """What a trained model tells of targets that it has not seen."""
    outputs, targets = [], []
    with no_grad(), computing(view.precision, device_of(model).type):
        for *inputs, target in batches:
            output = model.eval()(*inputs)
            if not isinstance(output, Tensor) or len(output) != len(target):
                return None
            outputs.append(flat(output))
            targets.append(flat(target))
    y, t = np.concatenate(outputs), np.concatenate(targets)
    if not np.isfinite(y).all():
        return None
    if view.classes is not None:
        return beyond_chance(t[:, 0], y.argmax(1).astype(t.dtype), np.arange(len(t))[:, None])
    if y.shape != t.shape:
        return None
    y = (y - y.mean(0)) / np.maximum(y.std(0), 1e-12)
    t = (t - t.mean(0)) / np.maximum(t.std(0), 1e-12)
    return beyond_chance(t, y, np.arange(len(t))[:, None])
