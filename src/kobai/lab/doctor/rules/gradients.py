"""Rules of what goes back: the norm of the loss's gradient at the output of every hidden stage, and of all weights."""

from __future__ import annotations

import math

from kobai.lab.doctor.cures import ClipGradients, Cure, Orthogonal
from kobai.lab.doctor.diseases import (
    GRADIENT_FACTOR,
    GRADIENT_GREW,
    GRADIENT_NORM,
    GRADIENT_NORM_SOME,
    HEAVY,
    LIGHT,
    RATIO_LARGE,
    RECURRENT,
    VANISH_FACTOR,
    VANISHED,
    VANISHED_SOME,
)
from kobai.lab.doctor.findings import Evidence, Finding
from kobai.lab.doctor.rules.view import View, found
from kobai.lab.probe.probes import SQUASHING


def _norms(view: View) -> list[tuple[str, float, int]]:
    """‖∂L/∂hᵢ‖ at each hidden stage, from the input on, and how deep it lies; without stages that are given none."""
    depths = view.depths[-len(view.trunk) :] if view.trunk else []
    return [
        (layer.name, layer.gradient.norm, depth)
        for layer, depth in zip(view.trunk, depths, strict=True)
        if layer.gradient is not None
    ]


def vanishing(view: View) -> Finding | None:
    """‖∂L/∂h₁‖ / ‖∂L/∂h_L‖, and its (L − 1)-th root: what one layer leaves."""
    norms = _norms(view)
    if len(norms) < 2 or not norms[-1][1] > 0:
        return None
    (first, start, above), (last, end, below) = norms[0], norms[-1]
    left = start / end
    factor = left ** (1 / (below - above))
    if not (left < VANISHED_SOME and factor < VANISH_FACTOR):
        return None
    severity = "error" if left < VANISHED else "warning"
    kinds = {stage.output.activation or "" for stage in view.hidden} & SQUASHING
    least = min((view.gain(i) for i in range(1, len(view.hidden))), default=1.0)
    cure: Cure = view.rectify() if kinds else view.reinitialise() if least < LIGHT else view.normalise()
    because = f"the slope of {', '.join(sorted(kinds))}" if kinds else "the slopes and weights on its way"
    layers = "one layer" if below - above == 1 else f"{below - above} layers"
    return found(
        "vanishing-gradient",
        severity,
        [name for name, norm, _ in norms if norm / end < VANISHED_SOME],
        [
            Evidence(
                f"gradient at {first!r} over that at {last!r}",
                left,
                VANISHED if severity == "error" else VANISHED_SOME,
                False,
            ),
            Evidence("left per layer", factor, VANISH_FACTOR, False),
        ],
        f"Each layer passes on {factor:.2g} of the gradient: {because}, multiplied over {layers}.",
        cure,
    )


def exploding(view: View) -> Finding | None:
    """Growth of the gradient from the last hidden stage to the first; or, where the step Δw = −η g is as long as the gradient
    is large, a norm ‖g‖ that changes some weight by a large part of its size, ‖Δw‖ / ‖w‖."""
    if within := _recurrent(view):
        return within
    evidence: list[Evidence] = []
    severity = "warning"
    norms = _norms(view)
    if len(norms) >= 2 and norms[-1][1] > 0:
        (first, start, above), (last, end, below) = norms[0], norms[-1]
        growth = start / end
        factor = growth ** (1 / (below - above))
        if growth > GRADIENT_GREW and factor > GRADIENT_FACTOR:
            severity = "error"
            evidence.append(Evidence(f"gradient at {first!r} over that at {last!r}", growth, GRADIENT_GREW, True))
            evidence.append(Evidence("growth per layer", factor, GRADIENT_FACTOR, True))
    known = [weight for weight in view.reading.weights if weight.gradient is not None]
    total = math.sqrt(sum(weight.gradient.norm**2 for weight in known if weight.gradient is not None))
    ratio = max((weight.ratio for weight in known if math.isfinite(weight.ratio)), default=0.0)
    if total > GRADIENT_NORM_SOME and ratio > RATIO_LARGE and view.plain and not view.clipped:
        large = total > GRADIENT_NORM
        severity = "error" if large else severity
        limit = GRADIENT_NORM if large else GRADIENT_NORM_SOME
        evidence.append(Evidence("norm of all weights' gradients", total, limit, True))
        evidence.append(Evidence("largest update-to-weight ratio", ratio, RATIO_LARGE, True))
    if not evidence:
        return None
    gains = [view.gain(i) for i in range(len(view.stages)) if not view.stages[i].normalised]
    heavy = max(gains, default=1.0)
    cause = (
        f"Weights up to {heavy:.2g} times as large as those that fit multiply the gradient on its way back."
        if heavy > HEAVY
        else "The loss is steep: it is summed instead of averaged, or its targets are large."
    )
    return found(
        "exploding-gradient",
        severity,
        [weight.layer for weight in known if weight.gradient is not None and weight.gradient.norm > total / 10],
        evidence,
        cause,
        view.reinitialise() if heavy > HEAVY else ClipGradients(1.0),
    )


def _recurrent(view: View) -> Finding | None:
    """Recurrent weights, which multiply the state at every step of a sequence: s √n for n × n of size s, 1 for an orthogonal
    matrix. Above 1 the gradient may grow with every step, as (s √n)^k over k of them, until all units are saturated."""
    sizes = {
        weight.layer: weight.value.rms * math.sqrt(weight.shape[-1])
        for weight in view.reading.weights
        if weight.name.rpartition(".")[2].startswith("weight_hh")
    }
    bad = {layer: size for layer, size in sizes.items() if size > RECURRENT}
    if not bad:
        return None
    layer, size = max(bad.items(), key=lambda pair: pair[1])
    return found(
        "exploding-gradient",
        "error",
        list(bad),
        [Evidence(f"recurrent weights of {layer!r}, over those of an orthogonal matrix", size, RECURRENT, True)],
        f"At each step of a sequence the state is multiplied by weights {size:.2g} times as large as orthogonal ones.",
        Orthogonal(tuple(bad)),
    )
