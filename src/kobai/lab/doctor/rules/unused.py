"""The rule of inputs that no output depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kobai import nn
from kobai.core.tensor import Tensor
from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.capacity import fits, severity, standardised
from kobai.lab.doctor.rules.data import LOSSES
from kobai.lab.doctor.rules.dependence import (
    FEW,
    exchanged,
    groups,
    outputs_of,
    padded,
    redrawn,
    slopes_by_place,
)
from kobai.lab.doctor.rules.relations import Numbers
from kobai.lab.doctor.rules.view import View

UNUSED, GRADUAL = 0.5, 1e-4

UNUSED_INPUTS = Disease(
    "unused-inputs",
    "inputs that no output depends on",
    f"of what differs between samples along an axis of the inputs, more than {UNUSED:.0%} has no effect: exchanged between "
    "samples it changes no output, in evaluation mode and with new weights, and its gradient is 0; padding stays what it is. "
    f"Not found where the effect fades from part to part (below {GRADUAL:g} of the greatest), as in a long recurrent net; an "
    "error if the loss of a trial is no better than guessing, a note if that leaves nothing to learn",
    "A net can use only what its outputs depend on: ∂y/∂x = 0 for all weights means that a part of the input might as well not "
    "be there. The state of a recurrent net at its first step has seen one step; attention sees what its mask leaves.",
    "Karpathy, A recipe for training neural networks, 2019 (use backprop to chart dependencies); Simonyan, Vedaldi, Zisserman, "
    "Deep inside convolutional networks, 2014 (saliency)",
    ("non-finite", "wrong-labels", *LOSSES, "no-signal", "few-samples", "signal-lost", "mixed-samples"),
    certain=True,
)


@dataclass(frozen=True)
class Axis:
    """Which places of an axis, of those that differ between samples, have no effect."""

    number: int
    size: int
    idle: tuple[slice, ...]
    varied: int
    padding: bool

    @property
    def share(self) -> float:
        """Of the places that differ."""
        return float(sum(part.stop - part.start for part in self.idle) / max(1, self.varied))


def unused(view: View) -> Finding | None:
    """Which parts of an axis of an input have no effect on any output."""
    assert view.ledger is not None
    xs = [part[:FEW] for part in view.ledger.few] if len(view.ledger.few) else []
    if len(xs) != 1 or xs[0].ndim < 2 or len(xs[0]) < 4:
        return None
    model = redrawn(view.ledger.fresh)
    try:
        found = _idle(model, xs)
    except Exception:  # samples that are related, as in a graph, cannot be parted; weights that cannot be redrawn
        return None
    if found is None:
        return None
    used = [i for i in range(found.size) if not any(part.start <= i < part.stop for part in found.idle)]
    places = f"steps, along axis {found.number} of the inputs" if found.number == 1 else f"parts of axis {found.number}"
    if len(used) == 0 or found.share == 1:
        said = f"No output depends on any of the {found.size} {places}" + (
            ", padding excepted" if found.padding else ""
        )
        likely = "a mask of the wrong sign (True means: leave out, in key_padding_mask), or a slice or pooling of nothing else"
    else:
        first = "the first of the" if used == [0] else "the last of the" if used == [found.size - 1] else "some of the"
        said = f"The outputs depend on {first} {found.size} {places}, and ignore {found.share:.0%} of these"
        likely = "an index such as [:, 0] in place of [:, -1], a slice, or a mask of the wrong sign"
    return UNUSED_INPUTS.found(
        Evidence(
            f"part of the input that has no effect, of axis {found.number}", found.share, UNUSED, True, share=True
        ),
        cause=f"{said}, whatever the weights are: {likely}.",
        cure=Cure(
            "# in forward(): which index, slice or mask leaves these parts out? The last state of a recurrent net that reads\n"
            "# (N, L, …) with batch_first=True is h[:, -1], not h[:, 0]; key_padding_mask is True for padding, not for words"
        ),
        severity="note" if fits(view) else severity(view),
    )


def _idle(model: nn.Module, xs: list[Tensor]) -> Axis | None:
    """The axis of which the largest part has no effect, if that is large enough."""
    still = padded(xs[0]) if xs[0].ndim > 1 else np.zeros(xs[0].shape, bool)
    if not still.any():
        xs = [standardised(xs[0])]
    base = outputs_of(model, xs)
    if not base or not all(np.isfinite(y).all() for y in base):
        return None
    slopes = slopes_by_place(model, xs, 0)
    worst: Axis | None = None
    for number in range(1, xs[0].ndim):
        axis = _of_axis(model, xs, base, slopes, number, still if still.any() else None)
        if axis is not None and axis.share > UNUSED and (worst is None or axis.share > worst.share):
            worst = axis
    return worst


def _of_axis(
    model: nn.Module,
    xs: Sequence[Tensor],
    base: Sequence[Numbers],
    slopes: Numbers | None,
    number: int,
    still: Numbers | None,
) -> Axis | None:
    x = xs[0]
    if x.shape[number] < 3:
        return None
    idle, varied, effects = [], 0, []
    for part in groups(x.shape[number]):
        at = (*[slice(None)] * (number - 1), part)
        other = exchanged(x, at, still)
        if bool((other == x).all().item()):
            continue
        varied += part.stop - part.start
        effect = max(float(np.abs(a - b).max()) for a, b in zip(base, outputs_of(model, [other]), strict=True))
        slope = 0.0 if slopes is None else _largest(slopes, at, still)
        if effect == 0 and slope == 0:
            idle.append(part)
        else:
            effects.append(effect)
    if effects and min(effects) < GRADUAL * max(effects):
        return None
    return Axis(number, x.shape[number], tuple(idle), varied, still is not None)


def _largest(slopes: Numbers, at: tuple[slice, ...], still: Numbers | None) -> float:
    """The largest gradient at a part, where that is no padding."""
    if still is not None:
        slopes = np.where(still.reshape(*still.shape, *[1] * (slopes.ndim - still.ndim)), 0, slopes)
    return float(slopes[(slice(None), *at)].max())
