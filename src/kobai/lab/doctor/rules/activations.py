"""Rules of what goes forward: the signal s₀ of the inputs, s₁ … s_L after the hidden stages, and where activations are flat."""

from __future__ import annotations

from kobai.lab.doctor.cures import Cure
from kobai.lab.doctor.diseases import (
    BLIND,
    COLLAPSE_FACTOR,
    COLLAPSED,
    COLLAPSED_SOME,
    DEAD,
    DEAD_FEW,
    DEAD_SOME,
    EXPLODE_FACTOR,
    EXPLODED,
    EXPLODED_SIZE,
    FEW,
    HARD,
    HEAVY,
    LIGHT,
    SATURATED,
    SATURATED_SOME,
    SCORES_HEAVY,
)
from kobai.lab.doctor.findings import Evidence, Finding
from kobai.lab.doctor.rules.view import View, found
from kobai.lab.probe.probes import SQUASHING


def saturated(view: View) -> Finding | None:
    """The share of outputs where the slope is below 5 % of its greatest, |f′(a)| < 0.05 max |f′|, in the worst hidden layer."""
    limits = {name: HARD.get(name, (SATURATED, SATURATED_SOME)) for name in SQUASHING}
    bad = [
        (stage, stage.output.output.saturated)
        for stage in view.hidden
        if stage.output.activation in limits and stage.output.output.saturated > limits[stage.output.activation][1]
    ]
    if not bad:
        return None
    worst, share = max(bad, key=lambda pair: pair[1])
    kind = str(worst.output.activation)
    severity = "error" if share > limits[kind][0] else "warning"
    heavy = max(view.gain(view.stages.index(stage)) for stage, _ in bad)
    cause = (
        f"The weights before {kind} are {heavy:.2g} times as large as those that fit, so that its argument lies in the flat "
        f"parts."
        if heavy > HEAVY
        else f"The argument of {kind} lies in its flat parts, for biases or inputs are too large."
    )
    # Three sigmoids in a row learn slowly even with fitting weights: each has a slope of 1/4 at most.
    deep = sum(stage.output.activation == "sigmoid" for stage in view.hidden) >= 3
    return found(
        "saturated",
        severity,
        [stage.output.name for stage, _ in bad],
        [
            Evidence(
                f"flat outputs of {worst.output.name!r}", share, limits[kind][severity == "warning"], True, share=True
            )
        ],
        cause,
        view.rectify() if deep else view.reinitialise(),
    )


def exploding(view: View) -> Finding | None:
    """Growth sᵢ / s₀ and growth per layer, (sᵢ / s₀)^(1/i), at the first hidden stage where the signal is large; or scores
    that cost far more than knowing nothing."""
    sizes, depths = view.sizes, view.depths
    for i in range(1, len(sizes)):
        if not sizes[0] > 0 or not sizes[i] > EXPLODED_SIZE:
            continue
        growth = sizes[i] / sizes[0]
        factor = growth ** (1 / depths[i])
        if growth > EXPLODED and factor > EXPLODE_FACTOR:
            where = [layer.name for layer in view.trunk if layer.output.signal > EXPLODED_SIZE]
            heavy = max(view.gain(j) for j in range(len(view.hidden)))
            weights = (
                f"its weights being up to {heavy:.2g} times as large as those that fit"
                if heavy > HEAVY
                else "though no weight alone is too large for it"
            )
            return found(
                "exploding-activations",
                "error",
                where,
                [
                    Evidence(f"growth of the signal from the inputs to {where[0]!r}", growth, EXPLODED, True),
                    Evidence("growth per layer", factor, EXPLODE_FACTOR, True),
                ],
                f"Every layer widens what it is given {factor:.2g} times, {weights}.",
                view.reinitialise() if heavy > HEAVY else view.normalise(),
            )
    return _scores(view)


def _scores(view: View) -> Finding | None:
    """A last layer whose outputs cost far more than knowing nothing: L over that, and its weights over those that fit."""
    if not view.stages or not view.losses or view.chance is None:
        return None
    loss, heavy = view.losses[0] / view.chance, view.gain(len(view.stages) - 1)
    if not loss > BLIND or not heavy > SCORES_HEAVY:
        return None
    last = view.stages[-1].layer
    return found(
        "exploding-activations",
        "error",
        [last],
        [
            Evidence("loss, over that of one output for all samples", loss, BLIND, True),
            Evidence(f"weights of {last!r}, over those that fit", heavy, SCORES_HEAVY, True),
        ],
        f"The last layer's weights are {heavy:.2g} times as large as those that fit: the net is sure of what it does not know.",
        view.reinitialise(),
    )


def collapsed(view: View) -> Finding | None:
    """What is left of the signal, sᵢ / s₀, and how much per layer, (sᵢ / s₀)^(1/i), where least is left."""
    sizes, depths, hidden, trunk = view.sizes, view.depths, view.hidden, view.trunk
    if len(sizes) < 2 or not sizes[0] > 0 or not trunk:
        return None
    shrunk = [(sizes[i] / sizes[0], (sizes[i] / sizes[0]) ** (1 / depths[i]), i) for i in range(1, len(sizes))]
    left, factor, at = min(shrunk)
    if not (left < COLLAPSED_SOME and factor < COLLAPSE_FACTOR):
        return None
    severity = "error" if left < COLLAPSED else "warning"
    offset = len(sizes) - len(trunk)
    least = min(view.gain(i) for i in range(len(hidden)))
    squashing = any(stage.output.activation in SQUASHING for stage in hidden)
    passes = f"passes on only {factor:.2g} of what differs between samples"
    if least < LIGHT:
        cure: Cure = view.reinitialise()
        cause = f"The weights are too small, down to {least:.2g} times those that fit: every layer {passes}."
    elif squashing:
        cure = view.rectify()
        cause = f"The weights fit, but the activation's slope is small: every layer {passes}."
    else:
        cure = view.normalise()
        cause = f"Every layer {passes}, though its weights are large enough."
    return found(
        "collapsed",
        severity,
        [trunk[i - offset].name for ratio, _, i in shrunk if ratio < COLLAPSED_SOME and i >= offset],
        [
            Evidence(
                f"signal left at {trunk[at - offset].name!r}, of that of the inputs",
                left,
                COLLAPSED if severity == "error" else COLLAPSED_SOME,
                False,
            ),
            Evidence("left per layer", factor, COLLAPSE_FACTOR, False),
        ],
        cause,
        cure,
    )


def dying(view: View) -> Finding | None:
    """The share of a rectifier's units that are 0 for every sample of the batch, in the worst hidden layer."""
    few = view.reading.layers[0].output.samples < FEW if view.reading.layers else True
    warn, fail = (DEAD_FEW, DEAD_FEW) if few else (DEAD_SOME, DEAD)
    bad = [(stage, stage.output.output.dead) for stage in view.hidden if stage.output.output.dead > warn]
    if not bad:
        return None
    worst, share = max(bad, key=lambda pair: pair[1])
    severity = "error" if share > fail else "warning"
    return found(
        "dying-relu",
        severity,
        [stage.output.name for stage, _ in bad],
        [
            Evidence(
                f"dead units of {worst.output.name!r}", share, fail if severity == "error" else warn, True, share=True
            )
        ],
        "Biases or weights push the units' arguments below 0 for every sample, where ReLU has slope 0.",
        view.reinitialise(),
    )
