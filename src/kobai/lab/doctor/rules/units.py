"""Rules of what can learn at all: units that are alike, and parameters without a gradient."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from kobai import nn, ops
from kobai.core.grad_mode import no_grad
from kobai.lab.doctor.cures import Cure, unfreeze
from kobai.lab.doctor.findings import Disease, Evidence, Finding
from kobai.lab.doctor.rules.data import NO_SIGNAL
from kobai.lab.doctor.rules.view import Stage, View
from kobai.xp import to_host

_PROJECTIONS = 4
_EQUAL = 1e-4
"""Rows closer than this part of the largest number are equal."""

ALIKE = 0.5

SYMMETRIC = Disease(
    "symmetric",
    "symmetric units",
    f"more than {ALIKE:.0%} of a layer's units have the weights and the gradients of another one",
    "Units that are alike get the same gradient and stay alike for ever: the layer is as good as one unit. Weights "
    "that are alike but get different gradients (a branch that begins at zero) are healthy.",
    "Goodfellow, Bengio, Courville, Deep Learning, 2016, section 8.4",
    ("non-finite", "wrong-labels", "no-signal"),
)


def twins(model: nn.Module, stages: list[Stage]) -> dict[str, float]:
    """For each hidden layer the share of units that have the weights *and* the gradients of another one.

    With rows wᵢ of the weights and gᵢ of their gradient, i and j are twins if wᵢ = wⱼ and gᵢ = gⱼ. Equal weights with different
    gradients (a branch that begins at zero) part at the first step. Rows are compared by a few random projections, w·r and
    g·r: equal rows have equal projections, others almost surely do not, and little leaves the device.
    """
    found: dict[str, float] = {}
    for stage in stages[:-1]:
        weight, module = model.get_parameter(stage.weight.name), model.get_submodule(stage.layer)
        gradient = weight.grad
        dense = hasattr(module, "bias") and not hasattr(module, "output_padding")
        if gradient is None or not dense or weight.shape[0] < 3:
            continue
        with no_grad():
            rows = weight.detach().reshape(weight.shape[0], -1)
            to = ops.from_numpy(_directions(rows.shape[1])).to(rows.device, rows.dtype)
            both = [to_host(part.array).astype(np.float64) for part in (rows @ to, gradient.reshape(rows.shape) @ to)]
        if all(np.isfinite(part).all() for part in both):
            found[stage.layer] = _share(np.concatenate([_scaled(part) for part in both], axis=1))
    return found


def symmetric(view: View) -> Finding | None:
    """Hidden layers in which many units are copies of each other."""
    bad = {layer: share for layer, share in view.twins.items() if share > ALIKE}
    if not bad:
        return None
    name, share = max(bad.items(), key=lambda pair: pair[1])
    return SYMMETRIC.found(
        Evidence(f"units of {name!r} that repeat another one", share, ALIKE, True, share=True),
        cause="Units began with the same weights and get the same gradients, so that they stay one unit for ever.",
        cure=view.reinitialise(),
        where=list(bad),
    )


def no_gradient(view: View) -> Finding | None:
    """Whether any parameter learns at all."""
    parameters = list(view.model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        evidence = Evidence("parameters that require a gradient", 0, 1, False)
        cause = "Every parameter has requires_grad=False: there is nothing to train."
        return NO_SIGNAL.found(evidence, cause=cause, cure=unfreeze())
    if all(parameter.grad is None for parameter in parameters):
        evidence = Evidence("parameters that were given a gradient", 0, 1, False)
        cause = "The loss does not depend on the parameters: the graph is cut, as by detach(), no_grad() or argmax."
        cure = Cure(
            "# look for .detach(), .item(), .data, argmax() or kobai.tensor(…) between the parameters and the loss"
        )
        return NO_SIGNAL.found(evidence, cause=cause, cure=cure)
    norms = [(weight.layer, weight.gradient.norm) for weight in view.reading.weights if weight.gradient is not None]
    signal = view.trunk[-1].output.signal if view.trunk else 0.0
    learnt = bool(view.losses) and view.losses[0] == 0  # then no gradient is no fault
    if norms and not any(norm for _, norm in norms) and signal > 0 and not learnt:
        evidence = Evidence("largest gradient of any weight", 0, math.ulp(0.0), False)
        cause = "Every weight's gradient is exactly 0, though the last layer is given a signal: the loss is flat there."
        cure = Cure(
            "# look at what follows the last hidden layer: weights that are 0 and frozen, a clamp or a rounding,\n"
            "# targets that are all left out, a loss that is multiplied by 0"
        )
        return NO_SIGNAL.found(evidence, cause=cause, cure=cure, where=[layer for layer, _ in norms])
    return None


@cache
def _directions(n: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(n, _PROJECTIONS))


def _scaled(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    largest = float(np.abs(rows).max()) if rows.size else 0.0
    return rows / largest if largest > 0 else rows


def _share(rows: np.ndarray[Any, Any]) -> float:
    """Share of rows that repeat another one, within _EQUAL: sorted, equal rows are neighbours.

    >>> _share(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
    0.5
    """
    ordered = rows[np.lexsort(rows.T[::-1])]
    near = (np.abs(np.diff(ordered, axis=0)) <= _EQUAL).all(1)
    return float(near.sum()) / (len(rows) - 1)
