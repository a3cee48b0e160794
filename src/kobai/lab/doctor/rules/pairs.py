"""Rules of inputs and targets that belong together and no longer do: masks turned otherwise than images, lists out of step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.neighbours import DRAWS, SURE, UNSURE, beyond_chance, gathered, nearest
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View
from kobai.xp import to_host

FEWEST, IMAGES, SIDE = 16, 128, 48
BEYOND, LOST, CLEARLY, SOME = 0.1, 0.3, 0.1, 0.25
ENOUGH, STEPS, SURER = 64, (1, -1, 2, -2, 3, -3), 1.5

MASKS_TURNED = Disease(
    "masks-turned",
    "masks are turned or flipped otherwise than their images",
    f"of {FEWEST} or more pairs of an image and a target of the same height and width: what a linear filter of the image says "
    f"of the target correlates better with another one of the target's eight turns and flips, by more than {CLEARLY:g}, in "
    f"more than {SOME:.0%} of the pairs; the best one is by more than {BEYOND:g} better than for masks of other images, and "
    f"what is lost is more than {LOST:.0%} of it",
    "Each pixel of a target belongs to the pixel of the image at its place. Augmentation must draw once, and do the same to "
    "both.",
    "Ronneberger, Fischer, Brox, U-Net, 2015, section 3.1; Buslaev et al., Albumentations, 2020",
    ("non-finite", "wrong-labels", "no-signal"),
    fact=True,
)
OUT_OF_STEP = Disease(
    "targets-out-of-step",
    "the targets belong to the inputs some places further",
    f"of {ENOUGH} or more samples the five nearest neighbours tell the target no better than chance (less than {UNSURE:g} "
    f"standard deviations), and if all targets are moved by one to three places, or reversed, they do (more than {SURER:g} "
    f"times {SURE:g})",
    "Two lists of which one lacks its first line, or is sorted the other way, have the right lengths but for one, and the "
    "wrong pairs.",
    "Cover and Hart, Nearest neighbor pattern classification, 1967; Northcutt, Athalye, Mueller, Pervasive label errors, 2021",
    ("non-finite", "wrong-labels", "no-signal"),
    fact=True,
)


def _turn(times: int, flip: bool) -> Callable[[Numbers], Numbers]:
    def turn(mask: Numbers) -> Numbers:
        turned: Numbers = np.rot90(mask[..., ::-1] if flip else mask, times, (-2, -1))
        return turned

    return turn


TURNS = {
    f"turned by {90 * times}°{' and flipped' if flip else ''}": _turn(times, flip)
    for flip in (False, True)
    for times in range(4)
}
"""The symmetries of a square; the first leaves it as it is."""


def masks_turned(view: View) -> Finding | None:
    """Which of its turns and flips each target agrees with its image in, by a linear filter."""
    both = _maps(view.seen)
    if both is None or len(both[0]) < FEWEST:
        return None
    images, masks = both
    names = (
        list(TURNS)
        if masks.shape[1] == masks.shape[2]
        else [name for name in TURNS if "90" not in name and "270" not in name]
    )
    features = _features(images)
    turned = np.stack([_unit(TURNS[name](masks)) for name in names])  # (turns, N, pixels)
    said = _said(features, turned)
    if said is None:
        return None
    scores = (turned * said).sum(2)
    chance = float((np.roll(turned, 1, 1) * said).sum(2).max(0).mean())
    own, best = scores[0], scores.max(0)
    lost, gained = float((best - own).mean()), float(best.mean()) - chance
    others = float((best - own > CLEARLY).mean())
    if not others > SOME or not gained > BEYOND or not lost > LOST * best.mean():
        return None
    which = np.bincount(scores.argmax(0), minlength=len(names))
    most = int(which.argmax())
    always = most > 0 and which[most] > 0.8 * len(masks)
    how = f"they are all {names[most]}" if always else "each has been turned or flipped by a draw of its own"
    return MASKS_TURNED.found(
        Evidence("pairs that agree better if the target is turned or flipped", others, SOME, True, True),
        cause=f"What an image says of its mask correlates with it by {own.mean():.2f}, and by {best.mean():.2f} if the masks "
        f"may be turned and flipped ({chance:.2f} with masks of other images), {how}: a mismatch of images and masks, in "
        "which the label of a pixel belongs to another one.",
        cure=Cure(
            "both = kobai.cat([x, t.reshape(len(t), -1, *x.shape[2:]).float()], 1)  # augment image and mask as one\n"
            "if kobai.rand(1).item() < 0.5:\n"
            "    both = both.flip(-1)\n"
            "x, t = both[:, : x.shape[1]], both[:, x.shape[1] :].reshape(t.shape).to(t.dtype)"
        ),
    )


def _maps(batches: Sequence[Any]) -> tuple[Numbers, Numbers] | None:
    """Images (N, C, H, W) and one map (N, H, W) of each target, made smaller; None if the targets are no maps."""
    xs, ts, count = [], [], 0
    for x, *_, t in batches:
        if not isinstance(x, Tensor) or not isinstance(t, Tensor) or x.ndim != 4 or t.ndim not in (3, 4):
            return None
        if tuple(x.shape[2:]) != tuple(t.shape[-2:]) or len(x) != len(t) or min(x.shape[2:]) < 4:
            return None
        if not x.is_floating_point():
            return None
        xs.append(to_host(x.detach().array).astype(np.float64))
        ts.append(to_host(t.detach().array))
        count += len(x)
        if count >= IMAGES:
            break
    if not xs or len({part.shape[1:] for part in (*xs,)}) > 1 or len({part.shape[1:] for part in ts}) > 1:
        return None
    x, t = np.concatenate(xs)[:IMAGES], np.concatenate(ts)[:IMAGES]
    if not np.isfinite(x).all():
        return None
    if t.ndim == 4:
        t = t[:, int(t.reshape(len(t), t.shape[1], -1).std(2).mean(0).argmax())]
    if t.dtype.kind in "iub":
        values, counts = np.unique(t, return_counts=True)
        t = t != values[counts.argmax()]
    step = -(-max(x.shape[2:]) // SIDE)
    return _smaller(x, step), _smaller(t.astype(np.float64), step)


def _smaller(maps: Numbers, step: int) -> Numbers:
    """Means of squares of so many pixels."""
    if step == 1:
        return maps
    height, width = (size // step for size in maps.shape[-2:])
    cut = maps[..., : height * step, : width * step]
    means: Numbers = cut.reshape(*maps.shape[:-2], height, step, width, step).mean((-3, -1))
    return means


def _features(images: Numbers) -> Numbers:
    """(N, features, pixels): the channels, their means over 3 by 3 pixels, and how far they are from the image's mean."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = images.shape[2:]
    shifted = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    around = np.mean(shifted, 0)
    centred = around - around.mean((2, 3), keepdims=True)
    found = np.concatenate([images, around, np.abs(centred)], 1)
    return found.reshape(len(images), found.shape[1], -1)


def _unit(maps: Numbers) -> Numbers:
    """Rows of pixels of mean 0 and length 1; 0 where a map is constant."""
    flat = maps.reshape(len(maps), -1)
    flat = flat - flat.mean(1, keepdims=True)
    rows: Numbers = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return rows


def _said(features: Numbers, turned: Numbers) -> Numbers | None:
    """What the features say of the target, as unit rows: by least squares, for the turn that they say most of."""
    centred = features - features.mean(2, keepdims=True)
    gram = np.einsum("nfp,ngp->fg", centred, centred)
    size = np.trace(gram)
    if not size > 0:
        return None
    gram += 1e-6 * size / len(gram) * np.eye(len(gram))
    slopes = np.einsum("nfp,tnp->tf", centred, turned)
    weights = np.linalg.solve(gram, slopes.T).T
    told = (weights * slopes).sum(1)
    return _unit(np.einsum("nfp,f->np", centred, weights[int(told.argmax())]))


def out_of_step(view: View) -> Finding | None:
    """Neighbours that tell nothing of the targets, and much of those some places further."""
    both = gathered(view.seen)
    if both is None or view.whole_numbers or len(both[0]) < ENOUGH:
        return None
    if not all(np.isfinite(part).all() for part in both):
        return None
    x, t = both[0], both[1][:, 0] if view.classes is not None else both[1]
    places = nearest(x, x, alone=True, count=5)
    own = beyond_chance(t, t, places)
    if own.deviations >= UNSURE:
        return None
    moved = {f"{step:+d}": np.roll(t, -step, 0) for step in STEPS} | {"reversed": t[::-1]}
    told = {name: beyond_chance(other, other, places).deviations for name, other in moved.items()}
    name, best = max(told.items(), key=lambda item: item[1])
    if not best > SURER * SURE:
        return None
    step = 0 if name == "reversed" else int(name)
    how = (
        "read from the end"
        if not step
        else f"{abs(step)} place{'s' * (abs(step) > 1)} {'further on' if step > 0 else 'before'}"
    )
    code = "x, t = x, t.flip(0)" if not step else (
        f"x, t = x[:-{step}], t[{step}:]" if step > 0 else f"x, t = x[{-step}:], t[:{step}]"
    )  # fmt: skip
    return OUT_OF_STEP.found(
        Evidence(
            "what neighbours tell of the targets, above chance, in standard deviations", own.deviations, UNSURE, False
        ),
        cause=f"Samples that are alike have targets that are alike only if each is given the target {how}: then it is "
        f"{best:.0f} standard deviations of {DRAWS} permutations above chance. The lists of inputs and targets are out of "
        "step: the labels do not belong to their samples.",
        cure=Cure(f"{code}  # mend it where the two lists are read, for all of the data"),
    )
