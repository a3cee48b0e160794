"""Rules of what steers a loss: a few samples, an output that cancels it, targets that jump, and targets next to nothing."""

from __future__ import annotations

import math

import numpy as np

from kobai import ops
from kobai.autograd import grad
from kobai.core.grad_mode import enable_grad, no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.flow import mode
from kobai.lab.doctor.rules.neighbours import flat, gathered, nearest
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View
from kobai.xp import to_host

STEEP, SOME, ENOUGH = 1e4, 0.25, 24
"""Slopes of a few samples over the median one; the largest part of the samples that is a few; samples that are needed."""
FAR, CANCELLED, WIDEST = 30.0, 1e-3, 8
"""An output that is as good as infinite, the part of the loss that it may leave, and the columns that are looked at."""
ROUND, SAID, MANY, SEVERAL, NEIGHBOURS = 0.5, 0.5, 200, 20, 5
"""What is missed on a circle over that on a line, and of all; samples, values and neighbours that are looked at."""
TINY, BESIDE, BEGINS = 0.03, 10.0, 100.0
"""Size of targets that is tiny; outputs over these; and the first loss over that of guessing."""

FEW_STEER = Disease(
    "few-samples-steer",
    "a few samples that make up the whole gradient",
    f"numbers as targets, {ENOUGH} samples or more: the loss has a gradient for the outputs of most samples, and that of up to "
    f"{SOME:.0%} of them is on average over {STEEP:g} times the median one",
    "∂L/∂y of a relative error |y − t|/|t| is 1/|t|: without bound where the target goes to 0. Samples of such weight are "
    "fitted alone, for what others ask is lost in rounding beside them.",
    "Hyndman and Koehler, Another look at measures of forecast accuracy, 2006, section 2 (percentage errors at targets near 0)",
    ("non-finite", "mixed-targets", "target-scale"),
    certain=True,
)
FREE_SCALE = Disease(
    "free-scale",
    "an output that makes the loss nothing",
    f"one of two to {WIDEST} outputs at ±{FAR:g} for all samples, and the loss is less than {CANCELLED:g} of what it "
    "was, for the "
    "targets as they are, and shuffled, and whatever the other outputs say",
    "(y − t)²/σ² falls to 0 as σ grows, with no need to know t: the likelihood of a Gaussian, (y − t)²/2σ² + log σ, has a term "
    "that a wide σ costs. Without it the net learns to be unsure of everything.",
    "Nix and Weigend, Estimating the mean and variance of the target probability distribution, 1994; Kendall and Gal, "
    "NeurIPS 2017",
    ("non-finite",),
    certain=True,
)
TARGET_JUMPS = Disease(
    "target-jumps",
    "an angle, or another target that goes round",
    f"one number as a target, {MANY} samples and {SEVERAL} values or more: the mean of the {NEIGHBOURS} nearest neighbours, by "
    f"inputs, misses less than {SAID:.0%} of the targets (cos α, sin α), α = 2π(t − min)/(max − min), and less than {ROUND:g} "
    "times the part that it misses of t (along a line it would be the larger part); and the loss is not the same a whole range "
    "further",
    "An angle of π and one of −π are the same direction, and (y − t)² between them is 4π². Where a continuous net meets the "
    "jump it says the mean of both, which is the opposite direction; (cos α, sin α) has no jump.",
    "Zhou et al., On the continuity of rotation representations in neural networks, CVPR 2019",
    ("non-finite", "mixed-targets", "labels-unrelated"),
    fact=True,
)
TARGET_TINY = Disease(
    "target-tiny",
    "targets that are tiny beside the outputs",
    f"a regression whose targets have a root mean square below {TINY:g} and one output each, of which those of the net "
    "are more "
    f"than {BESIDE:g} times as large, so that the loss begins at more than {BEGINS:g} times that of guessing",
    "A net's outputs begin at a size of about 0.1 to 1, and each step moves them by a share of the learning rate: both "
    "are large "
    "beside targets of 0.0003, and a loss of 1e-7 has a gradient to match. The answer is noise of that size, or 0.",
    "LeCun, Bottou, Orr, Müller, Efficient BackProp, 1998, section 4 (scales of inputs and targets)",
    ("non-finite", "mixed-targets", "exploding-activations"),
)


def few_steer(view: View) -> Finding | None:
    """The size of the gradient of each sample's output."""
    t = view.target
    if view.ledger is None or not isinstance(t, Tensor) or not t.is_floating_point() or len(t) < ENOUGH:
        return None
    rows = len(view.ledger.few[0])
    t = t[:rows]
    with mode(view.ledger.fresh, training=True):
        y = view.ledger.fresh(*view.ledger.few)
    if not isinstance(y, Tensor) or len(y) != len(t):
        return None
    with enable_grad():
        leaf = y.detach().requires_grad_(True)
        try:
            (slope,) = grad(view.loss_fn(leaf, t), [leaf], allow_unused=True)
        except Exception:  # targets of another count for each sample
            return None
    if slope is None:
        return None
    each = np.sort(np.abs(flat(slope).astype(np.float64)).sum(1))
    middle = float(np.median(each))
    few = int((each > STEEP * middle).sum())
    if not middle > 0 or not 0 < few <= SOME * len(each) or not math.isfinite(each[-1]):
        return None
    steep = np.abs(flat(slope).astype(np.float64)).sum(1) > STEEP * middle
    size = float(np.abs(flat(t)[steep]).max())
    where = (
        f"their targets are 0, or near (at most {size:.2g})"
        if size < 1e-3 * float(np.abs(flat(t)).max())
        else "look at their targets"
    )
    return FEW_STEER.found(
        Evidence("slope of the loss for a few samples, over the median one", float(each[-few:].mean()) / middle, STEEP, True),
        cause=f"{few} of {len(each)} samples make up the whole gradient; {where}. A loss that divides by the target, as a "
        "percentage error does, is fitted to these alone.",
        cure=Cure(
            "# an error that is not divided by the target, or by one number for all samples:\n"
            "loss_fn = nn.functional.l1_loss  # or divide by t.abs().mean(); or fit log(1 + t)"
        ),
        severity="warning",
    )  # fmt: skip


def free_scale(view: View) -> Finding | None:
    """The loss where one output is very large or very small."""
    t = view.target
    if view.ledger is None or not isinstance(t, Tensor) or not t.is_floating_point() or len(t) < 4:
        return None
    with mode(view.ledger.fresh, training=False):
        y = view.ledger.fresh(*view.ledger.few)
    t = t[: len(y)] if isinstance(y, Tensor) else t
    if not isinstance(y, Tensor) or y.ndim != 2 or not 2 <= y.shape[1] <= WIDEST or y.shape == t.shape:
        return None
    turned = t.roll(1, 0)
    with no_grad():
        base = view.cost(y, t)
        for column in range(y.shape[1]):
            for far in (FAR, -FAR):
                other = y.clone()
                other[:, column] = far
                mixed = other + ops.randn_like(other)
                mixed[:, column] = far
                tried = [view.cost(part, target) for part in (other, mixed) for target in (t, turned)]
                if base > 0 and all(math.isfinite(each) and abs(each) < CANCELLED * base for each in tried):
                    return _free(column, far, max(map(abs, tried)) / base)
    return None


def _free(column: int, far: float, left: float) -> Finding:
    return FREE_SCALE.found(
        Evidence(f"loss with output {column} at {far:g}, of what it was", left, CANCELLED, False, severity="error"),
        cause=f"Output {column} alone makes the loss nothing, whatever the targets and the other outputs are: a "
        "variance or weight "
        "that divides the error, and that costs nothing itself.",
        cure=Cure(
            "# the whole negative logarithm of the likelihood, which a wide variance costs, for y = (mean, log of the "
            "variance):\n"
            "loss_fn = lambda y, t: (0.5 * (y[:, :1] - t) ** 2 * (-y[:, 1:]).exp() + 0.5 * y[:, 1:]).mean()"
        ),
    )


def target_jumps(view: View) -> Finding | None:
    """Neighbours of samples at one end of the targets' range that are at the other."""
    t, layers = view.target, view.reading.layers
    if not isinstance(t, Tensor) or not t.is_floating_point() or t.numel() != len(t) or not layers:
        return None
    both = gathered(view.seen) if not view.whole_numbers and layers[-1].output.size == t.numel() else None
    if both is None or len(both[0]) < MANY or not all(np.isfinite(part).all() for part in both):
        return None
    x, values = both[0], both[1][:, 0].astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if len(np.unique(values)) < SEVERAL:
        return None
    turn = 2 * np.pi * (values - low) / (high - low)
    places = nearest(x, x, alone=True, count=NEIGHBOURS)
    line, circle = (_missed(part, places) for part in (turn[:, None], np.stack([np.cos(turn), np.sin(turn)], 1)))
    if not (circle < SAID and circle < ROUND * line):
        return None
    y = t + 0.3 * float(high - low) * ops.randn_like(t)
    here, there = view.cost(y, t), view.cost(y + float(high - low), t)
    if math.isfinite(there) and abs(here - there) < 0.2 * abs(here):
        return None
    return TARGET_JUMPS.found(
        Evidence(
            "what neighbours miss of the targets on a circle, over what they miss of them on a line",
            circle / line,
            ROUND,
            False,
            severity="warning",
        ),
        cause=f"Samples that are alike have targets at both ends of the range, {low:.3g} and {high:.3g}, as an angle "
        "has, or an hour "
        "of the day: the target goes round, and the loss takes the jump for the greatest error.",
        cure=Cure(
            f"period = {float(high - low):.4g}  # of the targets\n"
            "t = kobai.stack([(t * 6.2832 / period).cos(), (t * 6.2832 / period).sin()], 1)  # two outputs in place of one;\n"
            "# the angle is then kobai.atan2(y[:, 1], y[:, 0]) * period / 6.2832. Or a loss such as (1 - (y - t).cos()).mean()"
        ),
    )  # fmt: skip


def _missed(t: Numbers, places: Numbers) -> float:
    """The part of targets (N, d) that the mean of their neighbours misses."""
    total = float(((t - t.mean(0)) ** 2).sum())
    return float(((t - t[places].mean(1)) ** 2).sum()) / max(total, 1e-30)


def target_tiny(view: View) -> Finding | None:
    """Targets far smaller than what the net puts out at first."""
    t, layers = view.target, view.reading.layers
    if not isinstance(t, Tensor) or not t.is_floating_point() or not layers or layers[-1].output.size != t.numel():
        return None
    size = float(np.sqrt((to_host(t.detach().array).astype(np.float64) ** 2).mean()))
    outputs, chance = layers[-1].output.rms, view.chance
    if not 0 < size < TINY or not outputs > BESIDE * size or not view.losses or chance is None:
        return None
    if not view.losses[0] > BEGINS * chance:
        return None
    return TARGET_TINY.found(
        Evidence("root mean square of the targets", size, TINY, False, severity="warning"),
        Evidence("size of the outputs, relative to that of the targets", outputs / size, BESIDE, True),
        cause=f"The targets are not standardised: their scale of {size:.2g} is tiny beside the outputs, which begin at "
        f"{outputs:.2g}, "
        "and beside what one step changes; the loss is soon small, and the answer still noise.",
        cure=Cure(
            "shift, scale = t.mean(0), t.std(0)  # of the training data\n"
            "t = (t - shift) / scale  # for training; a prediction is then model(x) * scale + shift"
        ),
        where=[layers[-1].name],
    )
