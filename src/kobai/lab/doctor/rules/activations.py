"""Rules of the forward pass: the signal s₀ of the inputs, s₁ … s_L after the hidden stages, and where activations are flat."""

from __future__ import annotations

from kobai.lab.doctor.findings import Disease, Evidence, Finding, graded
from kobai.lab.doctor.rules.data import FAULTS, FEW, OPTIMISER
from kobai.lab.doctor.rules.view import View
from kobai.lab.probe.saturation import SQUASHING

SATURATED, SATURATED_SOME = 0.3, 0.15
HARD = {"hardtanh": (0.6, 0.45)}
"""Errors and warnings for activations that are flat beyond 1, where a third of N(0, 1) lies."""
COLLAPSED, COLLAPSED_SOME, COLLAPSE_FACTOR = 3e-3, 1e-2, 0.5
EXPLODED, EXPLODE_FACTOR, EXPLODED_SIZE = 25.0, 1.5, 10.0
BLIND, SCORES_HEAVY = 3.0, 3.0
"""Loss over that of the best constant output, and weights of the last layer over those that fit."""
DEAD, DEAD_SOME, DEAD_FEW = 0.6, 0.4, 0.9
HEAVY, LIGHT = 1.5, 0.6
"""Weights are blamed beyond these multiples of those that fit the activation."""

SATURATED_ACTIVATIONS = Disease(
    "saturated",
    "saturated activations",
    f"in a hidden layer {SATURATED:.0%} (warning: {SATURATED_SOME:.0%}) of the outputs lie where the slope is below "
    "5 % of its greatest",
    "A flat activation passes no gradient. With matching weights its argument has a standard deviation of about 1, "
    "and less than 4 % of tanh's outputs, and none of sigmoid's, are flat.",
    "LeCun et al. 1998, section 4.4; Glorot and Bengio, AISTATS 2010, section 3",
    (*FAULTS, *OPTIMISER, "symmetric"),
    looks=True,
)
EXPLODING_ACTIVATIONS = Disease(
    "exploding-activations",
    "exploding activations",
    f"the signal grows by more than {EXPLODED:g} in all and {EXPLODE_FACTOR:g} per layer, to a size above "
    f"{EXPLODED_SIZE:g}; or the loss is above {BLIND:g} times that of one output for all samples, and the last layer's "
    f"weights {SCORES_HEAVY:g} times as large as those that fit",
    "With He's variance 2/fan_in the factor of a rectifier's layer is 1; a residual sum without normalisation has √2, "
    "and trains. What grows faster does so exponentially in the depth. Who knows nothing should say nothing.",
    "He, Zhang, Ren, Sun, ICCV 2015, section 2.2; Hanin and Rolnick, NeurIPS 2018; De and Smith, NeurIPS 2020; "
    "Karpathy, A recipe for training neural networks, 2019",
    (*FAULTS, *OPTIMISER, "symmetric"),
    looks=True,
)
COLLAPSED_ACTIVATIONS = Disease(
    "collapsed",
    "collapsed activations",
    f"what differs from sample to sample shrinks below {COLLAPSED:g} (warning: {COLLAPSED_SOME:g}) of what the inputs "
    f"had, and by more than {COLLAPSE_FACTOR:g} per layer, and no later layer has a signal",
    "The last layers see almost the same for every sample: the loss stays at chance, and the gradient of every weight, "
    "a product with its input's variation, is as small.",
    "Glorot and Bengio 2010, section 4.2; He et al. 2015, section 2.2",
    (*FAULTS, *OPTIMISER, "symmetric", "bottleneck", "saturated", "dying-relu"),
    looks=True,
)
DYING_RELU = Disease(
    "dying-relu",
    "dying ReLU",
    f"{DEAD:.0%} (warning: {DEAD_SOME:.0%}) of a layer's units are 0 for every sample of the batch; {DEAD_FEW:.0%} in "
    f"a batch of fewer than {FEW} samples",
    "A unit that is never positive has slope 0 for every sample, and no gradient ever brings it back. Some dead units "
    "are normal: where samples look alike, as in deep narrow nets, or are few, up to half of them, by chance.",
    "Lu, Shin, Su, Karniadakis, arXiv:1903.06733; Maas, Hannun, Ng, ICML 2013",
    (*FAULTS, *OPTIMISER, "symmetric", "bottleneck", "exploding-activations"),
    looks=True,
)


def saturated(view: View) -> Finding | None:
    """The share of outputs where the slope is below 5 % of its greatest, |f′(a)| < 0.05 max |f′|, in the worst hidden layer."""
    limits = {name: HARD.get(name, (SATURATED, SATURATED_SOME)) for name in SQUASHING}
    bad = [
        (stage.output.output.saturated, i)
        for i, stage in enumerate(view.hidden)
        if stage.output.activation in limits and stage.output.output.saturated > limits[stage.output.activation][1]
    ]
    if not bad:
        return None
    share, at = max(bad, key=lambda pair: pair[0])
    worst = view.hidden[at].output
    kind = str(worst.activation)
    heavy = max(view.gain(i) for _, i in bad)
    cause = (
        f"The weights before {kind} are {heavy:.2g} times as large as those that fit, so that its argument lies in the flat "
        f"parts."
        if heavy > HEAVY
        else f"The argument of {kind} lies in its flat parts, for biases or inputs are too large."
    )
    # Three sigmoids in a row learn slowly even with fitting weights: each has a slope of 1/4 at most.
    deep = sum(stage.output.activation == "sigmoid" for stage in view.hidden) >= 3
    return SATURATED_ACTIVATIONS.found(
        graded(f"flat outputs of {worst.name!r}", share, *limits[kind], share=True),
        cause=cause,
        cure=view.rectify() if deep else view.reinitialise(),
        where=[view.hidden[i].output.name for _, i in bad],
    )


def exploding(view: View) -> Finding | None:
    """Growth sᵢ / s₀ and growth per layer, (sᵢ / s₀)^(1/i), at the first hidden stage with a large signal; or scores that cost
    far more than knowing nothing."""
    for growth, factor, layer in view.passed:
        if layer.output.signal > EXPLODED_SIZE and growth > EXPLODED and factor > EXPLODE_FACTOR:
            where = [layer.name for layer in view.trunk if layer.output.signal > EXPLODED_SIZE]
            heavy = max(view.gain(i) for i in range(len(view.hidden)))
            weights = (
                f"its weights being up to {heavy:.2g} times as large as those that fit"
                if heavy > HEAVY
                else "though no weight alone is too large for it"
            )
            return EXPLODING_ACTIVATIONS.found(
                Evidence(f"growth of the signal from the inputs to {where[0]!r}", growth, EXPLODED, True),
                Evidence("growth per layer", factor, EXPLODE_FACTOR, True),
                cause=f"Every layer widens what it is given {factor:.2g} times, {weights}.",
                cure=view.reinitialise() if heavy > HEAVY else view.normalise(),
                where=where,
            )
    return _scores(view)


def _scores(view: View) -> Finding | None:
    """A last layer whose outputs cost far more than knowing nothing: ratios of losses, and of its weights to those that fit."""
    if not view.stages or not view.losses or view.chance is None:
        return None
    loss, heavy = view.losses[0] / view.chance, view.gain(len(view.stages) - 1)
    if not loss > BLIND or not heavy > SCORES_HEAVY:
        return None
    last = view.stages[-1].layer
    return EXPLODING_ACTIVATIONS.found(
        Evidence("loss, over that of one output for all samples", loss, BLIND, True),
        Evidence(f"weights of {last!r}, over those that fit", heavy, SCORES_HEAVY, True),
        cause=f"The last layer's weights are {heavy:.2g} times as large as those that fit: "
        "the net is sure of what it does not know.",
        cure=view.reinitialise(),
        where=[last],
    )


def collapsed(view: View) -> Finding | None:
    """What is left of the signal, sᵢ / s₀, in all and per layer, (sᵢ / s₀)^(1/i), at the stage with the least.

    A stage is left out if a later one, or the last layer, has a signal again: it stands on a branch, such as a gate that begins
    at 0, and the signal goes around it.
    """
    if not view.passed:
        return None
    ratios = [ratio for ratio, _, _ in view.passed]
    low = [i for i, ratio in enumerate(ratios) if not max([*ratios[i:], view.said]) > COLLAPSED_SOME]
    left, factor, least = min((view.passed[i] for i in low), key=lambda stage: stage[:2], default=view.passed[0])
    if not (low and left < COLLAPSED_SOME and factor < COLLAPSE_FACTOR):
        return None
    light = min(view.gain(i) for i in range(len(view.hidden)))
    passes = f"passes on only {factor:.2g} of what differs between samples"
    if light < LIGHT:
        cure = view.reinitialise()
        cause = f"The weights are too small, down to {light:.2g} times those that fit: every layer {passes}."
    elif any(stage.output.activation in SQUASHING for stage in view.hidden):
        cure = view.rectify()
        cause = f"The weights fit, but the activation's slope is small: every layer {passes}."
    else:
        cure = view.normalise()
        cause = f"Every layer {passes}, though its weights are large enough."
    what = f"signal left at {least.name!r}, of that of the inputs"
    return COLLAPSED_ACTIVATIONS.found(
        graded(what, left, COLLAPSED, COLLAPSED_SOME, above=False),
        Evidence("left per layer", factor, COLLAPSE_FACTOR, False),
        cause=cause,
        cure=cure,
        where=[layer.name for ratio, _, layer in view.passed if ratio < COLLAPSED_SOME],
    )


def dying(view: View) -> Finding | None:
    """The share of a rectifier's units that are 0 for every sample of the batch, in the worst hidden layer."""
    few = view.reading.layers[0].output.samples < FEW if view.reading.layers else True
    error, warning = (DEAD_FEW, DEAD_FEW) if few else (DEAD, DEAD_SOME)
    bad = [stage.output for stage in view.hidden if stage.output.output.dead > warning]
    if not bad:
        return None
    worst = max(bad, key=lambda layer: layer.output.dead)
    return DYING_RELU.found(
        graded(f"dead units of {worst.name!r}", worst.output.dead, error, warning, share=True),
        cause="Biases or weights push the units' arguments below 0 for every sample, where ReLU has slope 0.",
        cure=view.reinitialise(),
        where=[layer.name for layer in bad],
    )
