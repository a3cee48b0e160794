"""Rules of the backward pass: norms of the gradient at the output of every hidden stage, and of all weights' gradients."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any

from kobai import nn
from kobai.autograd import grad
from kobai.core.grad_mode import enable_grad
from kobai.core.tensor import Tensor
from kobai.lab.doctor import cures
from kobai.lab.doctor.findings import Disease, Evidence, Finding, graded
from kobai.lab.doctor.flow import mode
from kobai.lab.doctor.rules.activations import HEAVY, LIGHT
from kobai.lab.doctor.rules.data import FAULTS, OPTIMISER
from kobai.lab.doctor.rules.updates import RATIO_LARGE
from kobai.lab.doctor.rules.view import View
from kobai.lab.probe.saturation import SQUASHING

VANISHED, VANISHED_SOME, VANISH_FACTOR = 5e-3, 2e-2, 0.5
GRADIENT_GREW, GRADIENT_FACTOR, GRADIENT_NORM, GRADIENT_NORM_SOME = 100.0, 2.0, 100.0, 30.0
RECURRENT = 5.0
"""Multiple of the size 1/√n of an orthogonal matrix's weights; initialisers give 0.6 to 1, training up to about 2."""

VANISHING_GRADIENT = Disease(
    "vanishing-gradient",
    "vanishing gradient",
    f"from the last hidden layer to the first the gradient shrinks below {VANISHED:g} (warning: {VANISHED_SOME:g}), "
    f"and by more than {VANISH_FACTOR:g} per layer, and no layer on a branch beside the first is given more",
    "Sigmoid's slope is at most 1/4: with weights that keep the signal's size every layer takes three quarters of the "
    "gradient, and the first layers learn thousands of times more slowly than the last.",
    "Hochreiter 1991; Bengio, Simard, Frasconi, IEEE TNN 1994; Glorot and Bengio 2010",
    (*FAULTS, *OPTIMISER, "symmetric", "saturated", "collapsed", "dying-relu"),
    looks=True,
)
EXPLODING_GRADIENT = Disease(
    "exploding-gradient",
    "exploding gradient",
    f"growing from the last hidden layer to the first by more than {GRADIENT_GREW:g} in all and {GRADIENT_FACTOR:g} "
    f"per layer; or, where the step is in proportion to the gradient (SGD), a norm of all weights' gradients above "
    f"{GRADIENT_NORM:g} (warning: {GRADIENT_NORM_SOME:g}) whose step changes some weight by more than "
    f"{RATIO_LARGE:g} of its size; or recurrent weights {RECURRENT:g} times as large as orthogonal ones",
    "The mean cross-entropy of a net with outputs of size 1 has a gradient of norm 1 to 5. A step along one a hundred "
    "times as long leaves the region for which it was computed. Adam and its like divide by the gradient's size, and "
    "do not mind it.",
    "Pascanu, Mikolov, Bengio, ICML 2013",
    (*FAULTS, *OPTIMISER, "symmetric", "saturated", "exploding-activations"),
    looks=True,
)


def _shares(view: View) -> list[tuple[str, float, int]]:
    """For each hidden stage that a gradient reaches, from the input on: its name, ‖∂L/∂hᵢ‖ / ‖∂L/∂h_L‖, and how many layers lie
    between the two. Empty if there are fewer than two, or the gradient of the last is 0."""
    norms = [
        (layer.name, layer.gradient.norm, depth)
        for layer, depth in zip(view.trunk, view.depths, strict=True)
        if layer.gradient is not None
    ]
    if len(norms) < 2 or not norms[-1][1] > 0:
        return []
    _, end, deepest = norms[-1]
    return [(name, norm / end, deepest - depth) for name, norm, depth in norms]


def vanishing(view: View) -> Finding | None:
    """‖∂L/∂h₁‖ / ‖∂L/∂h_L‖, and its (L − 1)-th root: what one layer passes on."""
    shares = _shares(view)
    if not shares:
        return None
    (first, left, distance), (last, *_) = shares[0], shares[-1]
    factor = left ** (1 / distance)
    if not (left < VANISHED_SOME and factor < VANISH_FACTOR):
        return None
    if any(before == 0 and after > VANISHED for (_, before, _), (_, after, _) in pairwise(shares)):
        return None  # of one layer to the next it is not small but 0: there is a rounding, a clamp, or a factor of 0
    around = beside(view, first)
    if any(share > VANISHED_SOME for name, share, _ in shares[:-1] if name in around):
        return None  # the gradient comes back by another branch
    kinds = {stage.output.activation or "" for stage in view.hidden} & SQUASHING
    least = min((view.gain(i) for i in range(1, len(view.hidden))), default=1.0)
    because = f"the slope of {', '.join(sorted(kinds))}" if kinds else "the slopes and weights on its way"
    layers = "one layer" if distance == 1 else f"{distance} layers"
    return VANISHING_GRADIENT.found(
        graded(f"gradient at {first!r} over that at {last!r}", left, VANISHED, VANISHED_SOME, above=False),
        Evidence("left per layer", factor, VANISH_FACTOR, False),
        cause=f"Each layer passes on {factor:.2g} of the gradient: {because}, multiplied over {layers}.",
        cure=view.rectify() if kinds else view.reinitialise() if least < LIGHT else view.normalise(),
        where=[name for name, share, _ in shares if share < VANISHED_SOME],
    )


def beside(view: View, first: str) -> set[str]:
    """Layers that do not depend on the output of another one, though they are called later: they stand on other branches."""
    made: dict[str, Tensor] = {}

    def hook(name: str, module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor) and output.is_floating_point():
            made[name] = output if name != first else output.detach().requires_grad_(True)
            return made[name]
        return output

    if view.ledger is None:
        return set()
    model = view.ledger.fresh
    names = [layer.name for layer in view.trunk if layer.name in view.modules]
    handles = [model.get_submodule(name).register_forward_hook(partial(hook, name)) for name in names]
    try:
        with mode(model, training=True), enable_grad():
            model(*view.ledger.few)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name
        for name, y in made.items()
        if name != first
        and first in made
        and (not y.requires_grad or grad(y.sum(), [made[first]], retain_graph=True, allow_unused=True)[0] is None)
    }


def exploding(view: View) -> Finding | None:
    """Growth of the gradient from the last hidden stage to the first; or, where the step is Δw = −η g, a norm ‖g‖ with which
    some weight changes by a large part ‖Δw‖ / ‖w‖ of its size."""
    if within := _recurrent(view):
        return within
    evidence: list[Evidence] = []
    if shares := _shares(view):
        (first, growth, distance), (last, *_) = shares[0], shares[-1]
        factor = growth ** (1 / distance)
        if growth > GRADIENT_GREW and factor > GRADIENT_FACTOR:
            evidence.append(Evidence(f"gradient at {first!r} over that at {last!r}", growth, GRADIENT_GREW, True))
            evidence.append(Evidence("growth per layer", factor, GRADIENT_FACTOR, True))
    norms = [
        (weight, weight.gradient.norm / view.scale) for weight in view.reading.weights if weight.gradient is not None
    ]
    total = math.sqrt(sum(norm**2 for _, norm in norms))
    ratio = max((weight.ratio for weight, _ in norms if math.isfinite(weight.ratio)), default=0.0)
    if total > GRADIENT_NORM_SOME and ratio > RATIO_LARGE and view.plain and not view.clipped:
        evidence.append(graded("norm of all weights' gradients", total, GRADIENT_NORM, GRADIENT_NORM_SOME))
        evidence.append(Evidence("largest update-to-weight ratio", ratio, RATIO_LARGE, True))
    if not evidence:
        return None
    heavy = max((view.gain(i) for i, stage in enumerate(view.stages) if not stage.normalised), default=1.0)
    return EXPLODING_GRADIENT.found(
        *evidence,
        cause=f"Weights up to {heavy:.2g} times as large as those that fit multiply the gradient on its way back."
        if heavy > HEAVY
        else "The loss is steep: it is summed instead of averaged, or its targets are large.",
        cure=view.reinitialise() if heavy > HEAVY else cures.clip_gradients(),
        where=[weight.layer for weight, norm in norms if norm > total / 10],
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
    return EXPLODING_GRADIENT.found(
        Evidence(f"recurrent weights of {layer!r}, over those of an orthogonal matrix", size, RECURRENT, True),
        cause=f"At each step of a sequence the state is multiplied by weights {size:.2g} times as large as orthogonal ones.",
        cure=cures.orthogonal(list(bad)),
        where=list(bad),
    )
