"""The rule of answers among the inputs: a target that can be read off, at a place that the outputs depend on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kobai import nn, ops
from kobai.autograd import grad
from kobai.core.grad_mode import enable_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.flow import mode
from kobai.lab.doctor.rules.dependence import FEW, exchanged, outputs_of, redrawn
from kobai.lab.doctor.rules.ends import parts, rebuilt
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View
from kobai.xp import to_host

EQUAL, BY_CHANCE = 0.98, 0.8
NO_EFFECT, DIRECT = 1e-6, 3.0
LOOKED_AT = 12
ENOUGH = 32

ANSWER_IN_INPUT = Disease(
    "answer-in-input",
    "the answer is among the inputs",
    f"of sequences: {EQUAL:.0%} of the targets are the input some steps later (by chance less than {BY_CHANCE:.0%}), and the "
    f"outputs that the loss compares with them change by more than {NO_EFFECT:g} of their size if that input is exchanged; or "
    "they are the input at the same step, of words, or of a net that sees no later step, and that input has more than "
    f"{DIRECT:g} times the effect of a typical one, or later ones have none",
    "∂y_t/∂x_s ≠ 0 for the x_s that is the target of y_t: the loss is lowest for a net that copies it, and learns nothing of "
    "what is wanted, where that input will not be known. p(x) = Π p(x_t | x_1 … x_{t−1}) has each step depend on earlier ones.",
    "Vaswani et al., Attention is all you need, 2017, section 3.2.3 (masking)",
    ("non-finite", "wrong-labels", "mixed-samples"),
    fact=True,
)


@dataclass(frozen=True)
class Copied:
    """Targets at the steps of a sequence that are the input ``ahead`` steps later."""

    ahead: int
    share: float


def answer_in_input(view: View) -> Finding | None:
    """A step of a sequence that is the target of an output which depends on it."""
    if view.ledger is None or not isinstance(view.target, Tensor) or not view.inputs:
        return None
    sequences = [k for k, x in enumerate(view.inputs) if isinstance(x, Tensor) and x.ndim in (2, 3)]
    t = view.target
    copies = {k: made for k in sequences if (made := _copied(view.inputs[k], t)) is not None}
    if not copies:
        return None
    model = redrawn(view.ledger.fresh)
    n, seen = min(FEW, len(view.inputs[0])), []
    each = len(t) // len(view.inputs[0])
    xs = [x[:n] for x in view.inputs]
    try:
        for k, made in copies.items():
            seen.append(_effect(view, model, xs, t[: n * each], k, made))
    except (
        Exception
    ):  # samples that cannot be parted from the others, or a loss that cannot be asked for single targets
        return None
    if any(
        effect is None for effect in seen
    ):  # as where a decoder is given the words before, and copies what it was told
        return None
    made, effect = next(iter(copies.values())), seen[0]
    assert effect is not None
    later = f"{made.ahead} step{'s' * (made.ahead > 1)} later"
    if made.ahead:
        cause = (
            f"The target of a step is the input {later}, and the output depends on it: the net sees the future that it has to "
            "predict, and learns to copy it. There is no causal mask, or it does not mask what lies ahead."
        )
        cure = Cure(
            "# in forward(): attention wants a causal mask, and other layers must look back only (no bidirectional=True, and\n"
            "# convolutions padded on the left)\n"
            "length = x.shape[1]\n"
            'mask = kobai.triu(kobai.full((length, length), -float("inf")), 1)  # src_mask or attn_mask of a layer'
        )
    else:
        cause = (
            "The target of a step is the input at the same step, and the output depends on it: the targets are not shifted, "
            "and the net learns to copy its input. If it is to predict the next step, the target is the input one step later."
        )
        cure = Cure("x, t = x[:, :-1], x[:, 1:]  # what comes next is the target (unless a copy is what is wanted)")
    return ANSWER_IN_INPUT.found(
        Evidence(
            "change of an output if just the input that is its target is exchanged, of its size",
            effect,
            NO_EFFECT,
            True,
        ),
        cause=cause,
        cure=cure,
        severity="error" if made.ahead else "warning",
    )


def _copied(x: Tensor, t: Tensor) -> Copied | None:
    """How many steps ahead of its target an input is, if targets are inputs: (N, L) or (N, L, features) both."""
    if x.shape[1] < 4 or len(t) % len(x) or x.is_floating_point() != t.is_floating_point():
        return None
    n, length = x.shape[:2]
    a, b = (to_host(part.detach().array) for part in (x, t))
    if b.size % (n * length):
        return None
    a, b = a.reshape(n, length, -1), b.reshape(n, length, -1)
    if b.shape[2] > a.shape[2]:
        return None
    known = (b >= 0) if not t.is_floating_point() else np.ones(b.shape, bool)  # others are left out of the loss
    values, counts = np.unique(b[known], return_counts=True)
    if t.is_floating_point() or len(values) > 2:
        known = known & (b != values[counts.argmax()])  # padding is equal everywhere
    for ahead in range(length // 2):
        here, then = b[:, : length - ahead], a[:, ahead:, : b.shape[2]]
        kept = known[:, : length - ahead]
        if kept.sum() < ENOUGH:
            continue
        share, chance = (here == then)[kept].mean(), (here == np.roll(then, 1, 0))[kept].mean()
        if share >= EQUAL and chance < BY_CHANCE:
            return Copied(ahead, float(share))
    return None


def _effect(view: View, model: nn.Module, xs: Sequence[Tensor], t: Tensor, k: int, made: Copied) -> float | None:
    """The effect that the input which is a target has on the outputs that are compared with it; None: it is as it should be."""
    length = xs[k].shape[1]
    base, moved = outputs_of(model, xs), functools.cache(functools.partial(_moved, model, xs, k))
    some, least = {length * i // LOOKED_AT for i in range(LOOKED_AT)}, []
    for step in sorted({(length - made.ahead) * i // 4 for i in (1, 2, 3)}):
        paired = _paired(view, model, xs, t, step, length)
        if paired is None:
            return None
        at = step + made.ahead
        sizes = {place: _size(base, moved(place), paired) for place in sorted({*some, max(0, at - 1), at})}
        own = sizes.pop(at)
        if not own > NO_EFFECT:
            return None
        later = any(size > NO_EFFECT for place, size in sizes.items() if place > at)
        if made.ahead == 0:
            words, others = not xs[k].is_floating_point(), list(sizes.values())
            strict = not later and max(others) > NO_EFFECT  # causal: each step sees itself and those before
            aimed = (
                max(sizes, key=sizes.__getitem__) == at - 1
            )  # the loss compares the output of the step before with it
            if not (strict or (words and (aimed or own > DIRECT * np.median(others)))):
                return None
        least.append(own)
    return min(least)


def _paired(
    view: View, model: nn.Module, xs: Sequence[Tensor], t: Tensor, step: int, length: int
) -> list[Numbers] | None:
    """Where in the outputs the loss has another gradient if the targets of a step are exchanged."""
    array = to_host(t.detach().array)
    steps = array.reshape(-1, length, *array.shape[2:]) if len(array) == len(xs[0]) else array.reshape(-1, length)
    other = steps.copy()
    other[:, step] = np.roll(steps[:, step], 1, 0)
    if (other == steps).all():
        return None
    changed = ops.from_numpy(np.ascontiguousarray(other.reshape(array.shape))).to(t.device, t.dtype)
    with mode(model, training=False), enable_grad():
        output = model(*xs)
        leaves = [part.detach().requires_grad_(True) for part in parts(output)]
        found = [
            grad(view.loss_fn(rebuilt(output, iter(leaves)), target), leaves, allow_unused=True)
            for target in (t, changed)
        ]
    masks = []
    for before, after, leaf in zip(*found, leaves, strict=True):
        if before is None or after is None:
            masks.append(np.zeros(leaf.shape, bool))
            continue
        a, b = to_host(before.array), to_host(after.array)
        masks.append(np.abs(a - b) > 1e-3 * np.abs(a - b).max() if (a != b).any() else a != b)
    return masks if any(mask.any() for mask in masks) else None


def _moved(model: nn.Module, xs: Sequence[Tensor], k: int, at: int) -> list[Numbers]:
    """The outputs if a step of the k-th input is exchanged."""
    given = list(xs)
    given[k] = exchanged(xs[k], (slice(at, at + 1),))
    return outputs_of(model, given)


def _size(base: Sequence[Numbers], moved: Sequence[Numbers], masks: Sequence[Numbers]) -> float:
    """How much these outputs have changed, over their size."""
    seen = [
        (np.abs(a - b)[m].max(), np.abs(a[m]).mean()) for a, b, m in zip(base, moved, masks, strict=True) if m.any()
    ]
    return max(float(change / (size + 1e-30)) for change, size in seen)
