"""Rules of the data: inputs and targets, before anything is computed with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Advice, StandardiseInputs
from kobai.lab.doctor.diseases import (
    CONSTANT,
    FEATURES_APART,
    FEW,
    INPUT_LARGE,
    INPUT_SMALL,
    MADE_UP,
    OFFSET,
    TARGET_LARGE,
    TARGET_REACHED,
    UNSHUFFLED,
)
from kobai.lab.doctor.findings import Evidence, Finding
from kobai.lab.doctor.rules.view import View, found
from kobai.xp import to_host

IGNORED = -100
"""The label that cross-entropy leaves out, PyTorch's ``ignore_index``."""


def constant_inputs(view: View) -> Finding | None:
    """Inputs that are alike for all samples: their spread over the batch, relative to their size."""
    spreads = [(size, float(np.sqrt((spread**2).mean()))) for size, spread in view.spreads]
    if not spreads or any(spread > CONSTANT * size for size, spread in spreads):
        return None
    relative = max(spread / size if size else 0.0 for size, spread in spreads)
    return found(
        "no-signal",
        "error",
        [],
        [Evidence("spread of the inputs between samples, relative to their size", relative, CONSTANT, False)],
        "All inputs of the batch are alike, so that nothing can tell them apart.",
        Advice(
            "print(x[0], x[1])  # are they what you think? Look for a wrong index, a mask, a division by a large number"
        ),
    )


def alike_targets(view: View) -> Finding | None:
    """One target for all samples: data that are sorted, wrong labels – or, of two classes, one that is rare."""
    t = view.target
    if not isinstance(t, Tensor) or t.ndim == 0 or len(t) < FEW or not _constant(t):
        return None
    two = view.classes in (1, 2) or (t.is_floating_point() and bool(((t == 0) | (t == 1)).all().item()))
    rare = ", or the other class is rare: then draw batches in which it is found (WeightedRandomSampler)" if two else ""
    return found(
        "no-signal",
        "warning" if two else "error",
        [],
        [Evidence(f"different targets among {len(t)} samples", 1, 2, False)],
        f"All samples of the batch have the same target: the data are sorted by class, or the labels are wrong{rare}.",
        Advice(
            "loader = kobai.utils.data.DataLoader(data, batch_size=64, shuffle=True)  # batches of all classes\n"
            "print(t[:20])  # and are these the labels that you expect?"
        ),
    )


def outside_labels(target: Any, classes: int | None) -> Finding | None:
    """Labels for which the output has no score."""
    if classes is None or classes < 2:
        return None
    labels = to_host(target.array)
    bad = labels[((labels < 0) & (labels != IGNORED)) | (labels >= classes)]
    if not bad.size:
        return None
    low = bad.min() < 0
    worst, limit = (bad.min(), 0) if low else (bad.max(), classes - 1)
    from_one = labels.min() == 1 and labels.max() == classes
    cause = (
        f"The net gives {classes} scores, for the labels 0 to {classes - 1}, and {bad.size} of {labels.size} labels are none "
        f"of these{': they are counted from 1' if from_one else ''}."
    )
    cure = (
        "t = t - 1  # labels counted from 0"
        if from_one
        else f"print(t.min(), t.max())  # expected 0 to {classes - 1}: mend the labels, or give the last layer more outputs"
    )
    evidence = Evidence(f"{'least' if low else 'greatest'} label", float(worst), limit, not low)
    return found("wrong-labels", "error", [], [evidence], cause, Advice(cure))


def unshuffled(view: View) -> Finding | None:
    """Labels that come in order, in batches that lack classes: neighbours differ far more seldom than chance would have it.

    Of n labels, nₖ of each class, in random order, neighbours differ R times, with (Barton and David 1957, k classes):

        E[R] + 1 = n − Σ nₖ²/n + 1,
        Var[R] = [Σ nₖ² (Σ nₖ² + n (n + 1)) − 2 n Σ nₖ³ − n³] / (n² (n − 1)).
    """
    classes = view.classes
    if classes is None or classes < 2 or len(view.target) < FEW:
        return None
    labels = to_host(view.target.array)
    _, counts = np.unique(labels, return_counts=True)
    if not 2 <= len(counts) < classes:
        return None
    n, squares, cubes = float(len(labels)), float((counts**2).sum()), float((counts**3).sum())
    expected = n - squares / n
    variance = (squares * (squares + n * (n + 1)) - 2 * n * cubes - n**3) / (n**2 * (n - 1))
    changes = int((labels[1:] != labels[:-1]).sum())
    if not variance > 0 or (changes - expected) / math.sqrt(variance) >= UNSHUFFLED:
        return None
    return found(
        "unshuffled",
        "error",
        [],
        [
            Evidence(
                f"changes of label along the batch, {expected:.0f} by chance: in standard deviations from that",
                (changes - expected) / math.sqrt(variance),
                UNSHUFFLED,
                False,
            ),
            Evidence("classes in the batch", len(counts), classes, False),
        ],
        "The samples come in order of their class, so that each batch shows few classes and the net forgets the others.",
        Advice("loader = kobai.utils.data.DataLoader(data, batch_size=64, shuffle=True)"),
    )


def input_scale(view: View) -> Finding | None:
    """Inputs far from mean 0 and standard deviation 1, unless they are standardised or the first layer makes up for it."""
    x = view.inputs[0] if view.inputs else None
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.numel() or view.prepared:
        return None
    size, spread = view.spreads[0]
    typical = math.sqrt(float((spread**2).mean()))
    if not size > 0 or not typical > CONSTANT * size:
        return None
    varying = spread[spread > 0]
    apart = float(varying.max() / np.median(varying))
    evidence = []
    first = view.stages[0] if view.stages else None
    made_up = first is not None and first.normalised and first.output.output.signal >= MADE_UP
    if not made_up:
        if size > INPUT_LARGE:
            evidence.append(Evidence("root mean square of the inputs", size, INPUT_LARGE, True))
        if size < INPUT_SMALL:
            evidence.append(Evidence("root mean square of the inputs", size, INPUT_SMALL, False))
        if size > OFFSET * typical:
            evidence.append(
                Evidence("size of the inputs over what differs between samples", size / typical, OFFSET, True)
            )
    if apart > FEATURES_APART:
        evidence.append(Evidence("widest feature over the typical one", apart, FEATURES_APART, True))
    if not evidence:
        return None
    return found(
        "input-scale",
        "error",
        [first.layer] if first is not None else [],
        evidence,
        "The inputs are not standardised: weights and learning rate are made for inputs of mean 0 and size 1.",
        StandardiseInputs.of(x),
    )


def target_scale(view: View) -> Finding | None:
    """Targets of a regression that are far larger than what the net puts out."""
    t, layers = view.target, view.reading.layers
    if not isinstance(t, Tensor) or not t.is_floating_point() or not t.numel() or not layers:
        return None
    output = layers[-1].output
    if output.size != t.numel():
        return None
    with no_grad():
        size = math.sqrt(float((t.detach().double() ** 2).mean().item()))
    if not size > TARGET_LARGE or output.rms > TARGET_REACHED * size:
        return None
    return found(
        "target-scale",
        "error",
        [layers[-1].name],
        [
            Evidence("root mean square of the targets", size, TARGET_LARGE, True),
            Evidence("size of the outputs, relative to that of the targets", output.rms / size, TARGET_REACHED, False),
        ],
        "The targets are not standardised: a net's outputs begin at a size of about 1, and its last layer has far to go.",
        Advice(
            "shift, scale = t.mean(0), t.std(0).clamp(min=1e-6)  # of the training data\n"
            "t = (t - shift) / scale  # for training; a prediction is then model(x) * scale + shift"
        ),
    )


def _constant(t: Tensor) -> bool:
    """Whether all samples have one target."""
    with no_grad():
        flat = t.detach().reshape(t.shape[0], -1)
        return bool((flat == flat[:1]).all().item())
