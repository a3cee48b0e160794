"""The rule of an order that matters to the targets, and that the net cannot see."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai import ops
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.cures_of_order import with_positions
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.flow import flow
from kobai.lab.doctor.rules.capacity import severity
from kobai.lab.doctor.rules.dependence import FEW, outputs_of, padded, redrawn
from kobai.lab.doctor.rules.relations import Numbers, beyond_shuffles, described, standardised
from kobai.lab.doctor.rules.view import View
from kobai.xp import to_host

INVARIANT, LITTLE, SURE, LONGEST, SAMPLES = 1e-4, 1e-2, 8.0, 64, 512

ORDER_UNSEEN = Disease(
    "order-unseen",
    "an order that matters and is not seen",
    f"if the steps of each sample are put into another order, the outputs change by less than {INVARIANT:g} of what differs "
    "between samples, in evaluation mode and with new weights; while which of two words comes first, what follows what, or "
    f"what stands at a step is correlated with the targets more (by {SURE:g} standard deviations) than after the steps of each "
    "sample were shuffled: what the steps hold, whatever their order, cannot explain that (an error if the loss of a trial is "
    "no better than guessing). Not found in sets, whose order says nothing",
    "Attention without positions, a sum and a mean give the same for every order of their inputs: f(x_π(1) … x_π(L)) = "
    "f(x_1 … x_L). Samples that differ in their order alone get the same output.",
    "Vaswani et al., Attention is all you need, 2017, section 3.5; Zaheer et al., Deep sets, 2017",
    ("non-finite", "wrong-labels", "mixed-samples", "unused-inputs"),
    certain=True,
)


def order_unseen(view: View) -> Finding | None:
    """Outputs that stay if steps are put into another order, and targets that do not."""
    t = view.target
    if (
        view.ledger is None
        or len(view.inputs) != 1
        or not isinstance(t, Tensor)
        or not isinstance(view.inputs[0], Tensor)
    ):
        return None
    x = view.inputs[0]
    words = not x.is_floating_point()
    if x.ndim != (2 if words else 3) or not 3 <= x.shape[1] <= LONGEST or len(t) != len(x) or t.numel() > 8 * len(t):
        return None
    if len(x) < 32 or _one_order(x) or not _invariant(redrawn(view.ledger.fresh), x[:FEW]):
        return None
    targets = described(t.reshape(len(t), -1), 1)[:SAMPLES].reshape(min(len(t), SAMPLES), -1)
    steps = described(x)[:SAMPLES]

    def score(rng: np.random.Generator | None) -> float:
        order = np.broadcast_to(np.arange(steps.shape[1]), steps.shape[:2])
        own = steps if rng is None else np.take_along_axis(steps, rng.permuted(order, axis=1)[..., None], 1)
        return _strongest(_orders(own, words), targets)

    sure = beyond_shuffles(score)
    if not sure > SURE:
        return None
    place = _place(view.ledger.fresh, x)
    return ORDER_UNSEEN.found(
        Evidence("correlation of order and targets, above shuffled steps, in standard deviations", sure, SURE, True),
        cause="The outputs are the same for every order of the steps, as of a bag of words: the net has no positions. The "
        "targets depend on the order of the steps.",
        cure=with_positions(*place)
        if place is not None
        else Cure(
            "# in forward(): add to each step a vector of its position, before steps are added up or attended to"
        ),
        where=[place[0]] if place is not None else [],
        severity=severity(view),
    )


def _one_order(x: Tensor) -> bool:
    """Whether the order is made of what the steps hold: padding at the end, or steps that are sorted."""
    array = to_host(x.detach().array)
    rising = np.diff(array.reshape(*array.shape[:2], -1)[..., 0], axis=1)
    return bool((rising >= 0).all() or (rising <= 0).all() or padded(x).any())


def _invariant(model: Any, x: Tensor) -> bool:
    """Whether outputs are the same for another order of the steps."""
    order = np.random.default_rng(0).permutation(x.shape[1])
    turned = ops.from_numpy(np.ascontiguousarray(to_host(x.detach().array)[:, order])).to(x.device, x.dtype)
    try:
        base, other = outputs_of(model, [x]), outputs_of(model, [turned])
    except Exception:  # weights that cannot be redrawn
        return False
    for a, b in zip(base, other, strict=True):
        if len(a) != len(x) or not np.isfinite(a).all() or a.size > 64 * len(a):
            return False
        spread = max(float(np.sqrt(a.var(0).mean())), LITTLE * float(np.sqrt((a**2).mean())))
        if not spread > 0 or not np.abs(a - b).max() < INVARIANT * spread:
            return False
    return bool(base)


def _orders(steps: Numbers, words: bool) -> Numbers:
    """(N, features) of an order: of words which comes first, and what follows what; of numbers what stands at a step, and its
    product with the next."""
    n = len(steps)
    if not words:
        return np.concatenate([steps.reshape(n, -1), (steps[:, 1:] * steps[:, :-1]).mean(1)], 1)
    first = np.where(steps.any(1), steps.argmax(1), -1).astype(np.float32)
    both = (first >= 0)[:, :, None] & (first >= 0)[:, None]
    sooner = np.where(both, np.sign(first[:, None] - first[:, :, None]), 0)
    follows = np.einsum("nla,nlb->nab", steps[:, :-1], steps[:, 1:])
    return np.concatenate([sooner.reshape(n, -1), follows.reshape(n, -1), steps.reshape(n, -1)], 1)


def _strongest(features: Numbers, targets: Numbers) -> float:
    """The greatest correlation, in size, of a feature and a target; features of a few samples are left out."""
    some = features[:, (features != 0).sum(0) >= len(features) // 10]
    if not some.shape[1]:
        return 0.0
    a, b = standardised(some), standardised(targets)
    return float(np.abs(a.T @ b).max()) / len(a)


def _place(model: Any, x: Tensor) -> tuple[str, int, int] | None:
    """The first layer that gives a vector for each step: its name, the steps, and the size of the vectors."""
    for passage in flow(model, [x])[0]:
        if passage.output.ndim == 3 and tuple(passage.output.shape[:2]) == tuple(x.shape[:2]):
            return passage.name, x.shape[1], passage.output.shape[2]
    return None
