"""The rules by which a reading is judged: numbers against the thresholds of the catalogue, findings in order of causes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kobai import nn
from kobai.lab.cures import (
    Advice,
    ClipGradients,
    Cure,
    InsertBatchNorm,
    Reinitialise,
    ReplaceActivation,
    ScaleRate,
    Standardise,
)
from kobai.lab.diseases import (
    COLLAPSE_FACTOR,
    COLLAPSED,
    COLLAPSED_SOME,
    DEAD,
    DEAD_SOME,
    DISEASES,
    EXPLODE_FACTOR,
    EXPLODED,
    EXPLODED_SIZE,
    GRADIENT_FACTOR,
    GRADIENT_GREW,
    GRADIENT_NORM,
    GRADIENT_NORM_SOME,
    HARD,
    INPUT_LARGE,
    INPUT_SMALL,
    LOSS_GREW,
    RATIO_GOOD,
    RATIO_LARGE,
    RATIO_LARGE_SOME,
    RATIO_SMALL,
    RATIO_SMALL_SOME,
    SATURATED,
    SATURATED_SOME,
    VANISH_FACTOR,
    VANISHED,
    VANISHED_SOME,
)
from kobai.lab.findings import Evidence, Finding
from kobai.lab.probes import SQUASHING, LayerStats, Reading, WeightStats
from kobai.nn.init import _calculate_fan_in_and_fan_out
from kobai.train.models import matching_init

NORMALISERS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


@dataclass(frozen=True)
class Stage:
    """A weight and what is computed with it before the next one: its last activation is the stage's output."""

    weight: WeightStats | None
    layer: str
    output: LayerStats
    activation: LayerStats | None
    normalised: bool


def stages(reading: Reading, model: nn.Module) -> list[Stage]:
    """The layers of a reading, grouped by the weights of dense layers and convolutions."""
    weights = {weight.layer: weight for weight in reading.weights}
    groups: list[list[LayerStats]] = []
    for layer in reading.layers:
        if layer.block:
            continue
        if layer.name in weights and not isinstance(model.get_submodule(layer.name), nn.Embedding):
            groups.append([layer])
        elif groups:
            groups[-1].append(layer)
    found = []
    for group in groups:
        acting = [layer for layer in group if layer.activation is not None]
        output = acting[-1] if acting else group[-1]
        normalised = any(isinstance(model.get_submodule(layer.name), NORMALISERS) for layer in group)
        found.append(Stage(weights[group[0].name], group[0].name, output, acting[-1] if acting else None, normalised))
    return found


@dataclass(frozen=True)
class View:
    """What the rules look at: one reading, and the model it is of."""

    reading: Reading
    model: nn.Module
    stages: list[Stage]
    clipped: bool = False
    """Whether the norm of the gradient is clipped before it is used."""

    @staticmethod
    def of(reading: Reading, model: nn.Module, clipped: bool = False) -> View:
        """With the stages of the model."""
        return View(reading, model, stages(reading, model), clipped)

    @property
    def prepared(self) -> bool:
        """Whether the inputs are standardised or normalised before the first weight sees them."""
        first = self.stages[0].layer if self.stages else ""
        before = [layer.name for layer in self.reading.layers]
        before = before[: before.index(first)] if first in before else []
        return any(isinstance(self.model.get_submodule(name), (Standardise, *NORMALISERS)) for name in before)

    @property
    def hidden(self) -> list[Stage]:
        """All stages but the last, whose output is the model's."""
        return self.stages[:-1]

    @property
    def trunk(self) -> list[LayerStats]:
        """Outputs from the input to the head, one after the other; a residual block's own for what is inside it."""
        blocks = [layer for layer in self.reading.layers if layer.block]
        found: dict[str, LayerStats] = {}
        for stage in self.stages:
            around = [block for block in blocks if stage.layer.startswith(f"{block.name}.")]
            output = min(around, key=lambda block: len(block.name)) if around else stage.output
            found[output.name] = output
        return list(found.values())[:-1]

    def scheme(self, i: int) -> str:
        """The initialiser that fits the activation after the i-th weight."""
        activation = self.stages[i].activation
        return "lecun" if activation is None or activation.activation is None else matching_init(activation.activation)

    def gain(self, i: int) -> float:
        """Size of the i-th stage's weights, 1 for those that fit."""
        weight = self.stages[i].weight
        assert weight is not None
        parameter = self.model.get_parameter(weight.name)
        fan_in, fan_out = _calculate_fan_in_and_fan_out(parameter)
        scheme = self.scheme(i)
        fitting = 2 / fan_in if scheme == "he" else 1 / fan_in if scheme == "lecun" else 2 / (fan_in + fan_out)
        return weight.value.rms / math.sqrt(fitting)

    def reinitialise(self) -> Reinitialise:
        """All weights by the scheme that fits."""
        return Reinitialise(tuple((stage.layer, self.scheme(i)) for i, stage in enumerate(self.stages)))

    def rectify(self) -> Cure:
        """ReLU in the place of every hidden activation."""
        paths = tuple(stage.activation.name for stage in self.hidden if stage.activation is not None)
        if not paths:
            return self.normalise()
        last = len(self.stages) - 1
        schemes = tuple((stage.layer, "lecun" if i == last else "he") for i, stage in enumerate(self.stages))
        return ReplaceActivation(paths, "relu", Reinitialise(schemes))

    def normalise(self) -> Cure:
        """Batch normalisation after every hidden weight that has none."""
        layers = []
        for stage in self.hidden:
            module: Any = self.model.get_submodule(stage.layer)
            fused = getattr(module, "activation", None)
            units = getattr(module, "out_features", getattr(module, "out_channels", None))
            if stage.normalised or fused is not None or units is None:
                continue
            ndim = 2 if isinstance(module, nn.Linear) else module.weight.ndim
            layers.append((stage.layer, int(units), ndim))
        return InsertBatchNorm(tuple(layers)) if layers else self.reinitialise()


# --- the rules -----------------------------------------------------------------------------------------------------------


def judge(view: View) -> list[Finding]:
    """What one reading shows of a net's state: everything but the data, the symmetry and the learning rate."""
    if bad := _non_finite(view):
        return [bad]
    found = (_saturated(view), _exploding(view), _collapsed(view), _dying(view), _vanishing(view), _growing(view))
    return [finding for finding in found if finding is not None]


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """In order of causes, with what follows from what."""
    order = list(DISEASES)
    found = sorted(findings, key=lambda finding: order.index(finding.disease))
    present = {finding.disease for finding in found}
    # A sigmoid's small slope makes signal and gradient shrink alike; only weights that are too small are a cause of their own.
    mutual = {"collapsed": "vanishing-gradient"}

    def root(finding: Finding) -> str | None:
        causes = [name for name in DISEASES[finding.disease].follows if name in present]
        if finding.disease in mutual and isinstance(finding.cure, ReplaceActivation):
            causes += [mutual[finding.disease]] if mutual[finding.disease] in present else []
        if finding.disease == "vanishing-gradient" and "collapsed" in causes:
            collapsed = next(f for f in found if f.disease == "collapsed")
            if isinstance(collapsed.cure, ReplaceActivation):
                causes.remove("collapsed")
        if finding.severity == "error":  # a warning is too weak to be the cause of an error
            causes = [name for name in causes if any(f.disease == name and f.severity == "error" for f in found)]
        return causes[0] if causes else None

    linked = [replace(finding, follows=root(finding)) for finding in found]
    return tuple(sorted(linked, key=lambda finding: finding.follows is not None))


def finding(
    disease: str,
    severity: str,
    where: Sequence[str],
    evidence: Sequence[tuple[str, float, float, bool]],
    cause: str,
    cure: Cure,
) -> Finding:
    """A finding of the catalogue."""
    return Finding(
        disease, DISEASES[disease].title, severity, tuple(where), tuple(Evidence(*e) for e in evidence), cause, cure
    )


def _non_finite(view: View) -> Finding | None:
    reading = view.reading
    bad = [weight.layer for weight in reading.weights if not weight.value.finite]
    if bad:
        return finding(
            "non-finite",
            "error",
            bad,
            [("weights that are not finite, in layers", len(bad), 0, True)],
            "The weights themselves are not finite: an earlier step, or the initialiser, went wrong.",
            view.reinitialise(),
        )
    outputs = [layer.name for layer in reading.layers if not layer.output.finite]
    if outputs:
        return finding(
            "non-finite",
            "error",
            outputs,
            [("outputs that are not finite, in layers", len(outputs), 0, True)],
            f"The numbers overflow in layer {outputs[0]!r}: its inputs and weights are finite, and "
            f"their products are not.",
            view.reinitialise(),
        )
    gradients = [layer.name for layer in reading.layers if layer.gradient is not None and not layer.gradient.finite]
    if gradients:
        return finding(
            "non-finite",
            "error",
            gradients[::-1],
            [("gradients that are not finite, at layers", len(gradients), 0, True)],
            f"Outputs are finite, and the gradient is not from layer {gradients[-1]!r} down: the loss "
            f"or that layer divides by 0.",
            view.reinitialise(),
        )
    return None


def _saturated(view: View) -> Finding | None:
    flat = [(stage, stage.output.output.saturated) for stage in view.hidden if stage.output.activation in SQUASHING]
    limits = {
        stage.output.name: HARD.get(str(stage.output.activation), (SATURATED, SATURATED_SOME)) for stage, _ in flat
    }
    bad = [(stage, share) for stage, share in flat if share >= limits[stage.output.name][1]]
    if not bad:
        return None
    worst, share = max(bad, key=lambda pair: pair[1])
    severity = "error" if share >= limits[worst.output.name][0] else "warning"
    i = view.stages.index(worst)
    heavy = any(view.gain(view.stages.index(stage)) > 1.5 for stage, _ in bad)
    cause = (
        f"The weights before {worst.output.activation} are {view.gain(i):.2g} times as large as those "
        f"that fit, so that its argument lies in the flat parts."
        if heavy
        else f"The argument of {worst.output.activation} lies in its flat parts, for biases or inputs are too large."
    )
    shown = limits[worst.output.name][severity == "warning"]
    # Three sigmoids in a row learn slowly even with fitting weights: each has a slope of 1/4 at most.
    deep = sum(stage.output.activation == "sigmoid" for stage in view.hidden) >= 3
    return finding(
        "saturated",
        severity,
        [stage.output.name for stage, _ in bad],
        [(f"share of flat outputs of {worst.output.name!r}", share, shown, True)],
        cause,
        view.rectify() if deep else view.reinitialise(),
    )


def _sizes(view: View) -> list[float]:
    """What differs from sample to sample: in the inputs (at most 1, so that it is no fault of a layer to scale down), then
    after every hidden stage."""
    first = view.reading.input
    start = [min(1.0, first.signal)] if first is not None and first.signal > 0 else []
    return [*start, *[layer.output.signal for layer in view.trunk]]


def _exploding(view: View) -> Finding | None:
    sizes = _sizes(view)
    for i in range(1, len(sizes)):
        if not sizes[0] > 0 or not sizes[i] > EXPLODED_SIZE:
            continue
        growth = sizes[i] / sizes[0]
        factor = growth ** (1 / i)
        if growth > EXPLODED and factor > EXPLODE_FACTOR:
            where = [layer.name for layer in view.trunk if layer.output.signal > EXPLODED_SIZE]
            heavy = max(view.gain(j) for j in range(len(view.hidden)))
            cure = view.reinitialise() if heavy > 1.5 else view.normalise()
            return finding(
                "exploding-activations",
                "error",
                where,
                [
                    (f"growth of the signal up to {where[0]!r}", growth, EXPLODED, True),
                    ("growth per layer", factor, EXPLODE_FACTOR, True),
                ],
                f"Every layer widens what it is given {factor:.2g} times, its weights being up to "
                f"{heavy:.2g} times as large as those that fit.",
                cure,
            )
    return None


def _collapsed(view: View) -> Finding | None:
    sizes = _sizes(view)
    hidden, trunk = view.hidden, view.trunk
    if len(sizes) < 2 or not sizes[0] > 0 or not trunk:
        return None
    shrunk = [(sizes[i] / sizes[0], (sizes[i] / sizes[0]) ** (1 / i), i) for i in range(1, len(sizes))]
    left, factor, at = min(shrunk)
    if not (left < COLLAPSED_SOME and factor < COLLAPSE_FACTOR):
        return None
    severity = "error" if left < COLLAPSED else "warning"
    offset = len(sizes) - len(trunk)
    where = [trunk[i - offset].name for ratio, _, i in shrunk if ratio < COLLAPSED_SOME and i >= offset]
    least = min(view.gain(i) for i in range(len(hidden)))
    squashing = any(stage.output.activation in SQUASHING for stage in hidden)
    if least < 0.6:
        cure: Cure = view.reinitialise()
        cause = (
            f"The weights are too small, down to {least:.2g} times those that fit: every layer passes on "
            f"only {factor:.2g} of what differs between samples."
        )
    elif squashing:
        cure = view.rectify()
        cause = (
            f"The weights fit, but the activation's slope lets every layer pass on only {factor:.2g} of "
            f"what differs between samples."
        )
    else:
        cure = view.normalise()
        cause = (
            f"Every layer passes on only {factor:.2g} of what differs between samples, though its weights "
            f"are large enough."
        )
    return finding(
        "collapsed",
        severity,
        where,
        [
            (
                f"signal left at {trunk[at - offset].name!r}",
                left,
                COLLAPSED if severity == "error" else COLLAPSED_SOME,
                False,
            ),
            ("left per layer", factor, COLLAPSE_FACTOR, False),
        ],
        cause,
        cure,
    )


def _dying(view: View) -> Finding | None:
    bad = [(stage, stage.output.output.dead) for stage in view.hidden if stage.output.output.dead >= DEAD_SOME]
    if not bad:
        return None
    worst, share = max(bad, key=lambda pair: pair[1])
    severity = "error" if share >= DEAD else "warning"
    return finding(
        "dying-relu",
        severity,
        [stage.output.name for stage, _ in bad],
        [(f"share of dead units of {worst.output.name!r}", share, DEAD if severity == "error" else DEAD_SOME, True)],
        "Biases or weights push the units' arguments below 0 for every sample, where ReLU has slope 0.",
        view.reinitialise(),
    )


def _gradients(view: View) -> list[tuple[str, float]]:
    """Norm of the gradient at each hidden stage's output, from the input on; without stages that are given none."""
    return [(layer.name, layer.gradient.norm) for layer in view.trunk if layer.gradient is not None]


def _vanishing(view: View) -> Finding | None:
    norms = _gradients(view)
    if len(norms) < 2:
        return None
    last = norms[-1][1]
    if not last > 0:
        return None
    left = norms[0][1] / last
    factor = left ** (1 / (len(norms) - 1))
    if not (left < VANISHED_SOME and factor < VANISH_FACTOR):
        return None
    severity = "error" if left < VANISHED else "warning"
    kinds = {stage.output.activation or "" for stage in view.hidden} & SQUASHING
    least = min(view.gain(i) for i in range(1, len(view.hidden)))
    cure: Cure = view.reinitialise() if least < 0.6 and not kinds else view.rectify() if kinds else view.normalise()
    because = f"the slope of {', '.join(sorted(kinds))}" if kinds else "the slopes and weights on its way"
    return finding(
        "vanishing-gradient",
        severity,
        [name for name, norm in norms if norm / last < VANISHED_SOME],
        [
            (
                f"gradient at {norms[0][0]!r} over that at {norms[-1][0]!r}",
                left,
                VANISHED if severity == "error" else VANISHED_SOME,
                False,
            ),
            ("left per layer", factor, VANISH_FACTOR, False),
        ],
        f"Each layer passes on {factor:.2g} of the gradient: {because}, multiplied over {len(norms) - 1} layers.",
        cure,
    )


def _growing(view: View) -> Finding | None:
    evidence: list[tuple[str, float, float, bool]] = []
    norms = _gradients(view)
    total = math.sqrt(sum(w.gradient.norm**2 for w in view.reading.weights if w.gradient is not None))
    severity = "warning"
    if len(norms) >= 2 and norms[-1][1] > 0:
        growth = norms[0][1] / norms[-1][1]
        factor = growth ** (1 / (len(norms) - 1))
        if growth > GRADIENT_GREW and factor > GRADIENT_FACTOR:
            severity = "error"
            evidence.append((f"gradient at {norms[0][0]!r} over that at {norms[-1][0]!r}", growth, GRADIENT_GREW, True))
            evidence.append(("growth per layer", factor, GRADIENT_FACTOR, True))
    if total > GRADIENT_NORM_SOME and not view.clipped:
        large = total > GRADIENT_NORM
        severity = "error" if large else severity
        evidence.append(("norm of all weights' gradients", total, GRADIENT_NORM if large else GRADIENT_NORM_SOME, True))
    if not evidence:
        return None
    gains = [view.gain(i) for i in range(len(view.stages)) if not view.stages[i].normalised]
    heavy = max(gains, default=1.0)
    cause = (
        f"Weights up to {heavy:.2g} times as large as those that fit multiply the gradient on its way back."
        if heavy > 2
        else "The loss is steep: it is summed instead of averaged, or its targets are large."
    )
    where = [
        w.layer for w in view.reading.weights if w.gradient is not None and w.gradient.norm > GRADIENT_NORM_SOME / 3
    ]
    return finding(
        "exploding-gradient",
        severity,
        where,
        evidence,
        cause,
        view.reinitialise() if heavy > 2 else ClipGradients(1.0),
    )


def judge_rate(
    view: View, readings: Sequence[Reading], losses: Sequence[float], rate: float, small: bool = True
) -> Finding | None:
    """The learning rate, by what the optimiser did in some steps. ``small=False``: an end of training may have small ones.

    Weights before a normalisation are left out: their size means nothing, and a step that is too long makes them longer and
    the next one relatively shorter (van Laarhoven, arXiv:1706.05350).
    """
    free = {stage.weight.name for stage in view.stages if stage.normalised and stage.weight is not None}
    by_weight = {name: ratios for name, ratios in _ratios(readings) if name not in free}
    where = [name.rpartition(".")[0] for name in by_weight]
    medians = [_median(ratios) for ratios in by_weight.values()]
    diverged = len(losses) > 1 and math.isfinite(losses[0]) and not losses[-1] <= LOSS_GREW * max(losses[0], 1e-3)
    if medians:
        typical, most = _median(medians), max(medians)
        typical = min(typical, _median([_median(ratios) for _, ratios in _ratios(readings)]))
        first = _median([ratios[0] for ratios in by_weight.values()])
        # Small weights have large ratios, and grow: where the loss falls for all that, there is nothing to cure.
        falls = len(losses) > 1 and losses[-1] < losses[0] and typical < 1
        if (typical > RATIO_LARGE_SOME and not falls) or (diverged and typical > RATIO_GOOD):
            large = typical > RATIO_LARGE or diverged
            limit = (
                RATIO_LARGE if typical > RATIO_LARGE else RATIO_LARGE_SOME if typical > RATIO_LARGE_SOME else RATIO_GOOD
            )
            evidence = [("median update-to-weight ratio", typical, limit, True)]
            if diverged:
                evidence.append(
                    ("loss of the same batch, over that at the beginning", losses[-1] / losses[0], LOSS_GREW, True)
                )
            return finding(
                "rate-too-large",
                "error" if large else "warning",
                where,
                evidence,
                f"A step changes a weight by {typical:.1%} of its size: learning rate {rate:g} is too "
                f"large for these gradients.",
                ScaleRate(min(0.5, RATIO_GOOD / max(first, RATIO_GOOD * 2)), rate),
            )
        if small and 0 < most < RATIO_SMALL_SOME:
            severe = most < RATIO_SMALL
            return finding(
                "rate-too-small",
                "error" if severe else "warning",
                where,
                [("largest update-to-weight ratio", most, RATIO_SMALL if severe else RATIO_SMALL_SOME, False)],
                f"A step changes no weight by more than {most:.1g} of its size: learning rate {rate:g} is too small.",
                ScaleRate(RATIO_GOOD / most, rate),
            )
    return None


def _ratios(readings: Sequence[Reading]) -> Iterator[tuple[str, list[float]]]:
    """Update-to-weight ratios of each weight, step by step; not of weights that were 0."""
    names = [weight.name for weight in readings[0].weights] if readings else []
    for i, name in enumerate(names):
        ratios = [reading.weights[i].ratio for reading in readings if i < len(reading.weights)]
        ratios = [ratio for ratio in ratios if not math.isnan(ratio)]
        if ratios and math.isfinite(ratios[0]):
            yield name, ratios


def _median(values: Sequence[float]) -> float:
    ranked = sorted(values)
    middle = len(ranked) // 2
    return ranked[middle] if len(ranked) % 2 else (ranked[middle - 1] + ranked[middle]) / 2


def judge_input(view: View) -> Finding | None:
    """The scale of the inputs, as far as a reading shows it: their size, not that of single features."""
    given = view.reading.input
    if given is None or not given.finite or view.prepared or (view.stages and view.stages[0].normalised):
        return None
    if INPUT_SMALL <= given.rms <= INPUT_LARGE or given.rms == 0:
        return None
    large = given.rms > INPUT_LARGE
    return finding(
        "input-scale",
        "error",
        [view.stages[0].layer] if view.stages else [],
        [("root mean square of the inputs", given.rms, INPUT_LARGE if large else INPUT_SMALL, large)],
        "The inputs are not standardised: weights and learning rate are made for inputs of size 1.",
        Advice("x = (x - train_x.mean(0)) / train_x.std(0).clamp(min=1e-6)  # in training and afterwards"),
    )
