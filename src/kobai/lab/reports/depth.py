"""The inside of a net in a report: activations, gradients and updates through its depth, before and after training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.errors import CheckpointError
from kobai.lab.doctor.diagnosis import diagnose
from kobai.lab.doctor.findings import Diagnosis, Finding
from kobai.lab.probe.moments import Moments
from kobai.lab.probe.probes import Probe
from kobai.lab.probe.readings import LayerStats, Reading, WeightStats
from kobai.lab.reports import charts, count_charts
from kobai.lab.reports.axes import number, rounded, thinned
from kobai.lab.reports.charts import Line
from kobai.lab.reports.count_charts import Bars
from kobai.lab.reports.drawing import key
from kobai.lab.reports.markup import Markup, code, table, tag
from kobai.lab.reports.page import figure, how, more
from kobai.nn.utils import clip_grad_norm_
from kobai.optim import Optimizer
from kobai.train import job
from kobai.train.batches import evaluating
from kobai.train.objectives import loss_of
from kobai.utils.data import TensorDataset

BINS, PANELS = 36, 12

NARROW = 330
"""Width of charts of which three stand side by side."""

BEFORE, AFTER = ("before training", "vermilion", 1), ("after training", "blue", 0)

THROUGH_DEPTH = {
    "signal": ("Signal by depth", "what differs from sample to sample, root mean square", "signal (root mean square)"),
    "dead": ("Dead units by depth", "units that are 0 for every sample", "share of units"),
    "saturated": ("Saturated outputs by depth", "outputs where the activation is flat", "share of outputs"),
    "gradient": (
        "Gradient by depth",
        "of the loss by a layer's outputs, root mean square",
        "gradient (root mean square)",
    ),
    "gradient of weights": ("Gradient of the weights", "root mean square", "gradient (root mean square)"),
    "update": ("Update against weight", "‖Δw‖ / ‖w‖ of one step; about 10⁻³ is usual", "update / weight"),
}
"""Title and note of what is drawn through the depth of a net, and the name of its axis."""

RATIO = 1e-3
"""Update-to-weight ratio that is usual in nets that train well (A. Karpathy, CS231n notes, "Neural Networks Part 3")."""


@dataclass(frozen=True)
class Seen:
    """One training step on the same samples, of the untrained net and of the trained one."""

    before: Reading
    after: Reading
    diagnosis_before: Diagnosis
    diagnosis_after: Diagnosis
    samples: int


def look(restored: job.Restored, state: dict[str, Any], batch: tuple[Tensor, Tensor]) -> Seen:
    """Observe a step of both nets, on copies. Draws random numbers."""
    settings = restored.settings
    # The name may be that of a net of the user's own, which only what the settings hold may make.
    fresh, begun = job.begin(settings, {**state["config"]["model"], "name": settings.model})
    loss_fn = loss_of(settings, TensorDataset(*batch), restored.outputs)
    trained = copy.deepcopy(restored.model)
    going = job.optimizer_of(settings, trained)
    try:
        going.load_state_dict(state["optimizer"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{restored.path}: holds no state of its optimizer ({error})") from error
    found = []
    for model, rule in ((fresh, begun), (trained, going)):
        model.train()
        diagnosis = diagnose(
            model, batch, loss_fn, rule, clip_grad_norm=settings.clip_grad_norm, precision=settings.precision
        )
        found.append((_reading(model, rule, batch, loss_fn, settings.clip_grad_norm), diagnosis))
    (before, first), (after, last) = found
    return Seen(before, after, first, last, len(batch[0]))


def _reading(
    model: nn.Module,
    rule: Optimizer,
    batch: tuple[Tensor, Tensor],
    loss_fn: Callable[[Any, Any], Tensor],
    clip: float | None,
) -> Reading:
    probe = Probe(model, rule, every=1, bins=BINS)
    with probe.step():
        loss = loss_fn(model(batch[0]), batch[1])
        rule.zero_grad()
        loss.backward()
        if clip is not None:
            clip_grad_norm_(model.parameters(), clip)
        rule.step()
    reading = probe.read()
    assert reading is not None
    return reading


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that hold no others, by their names."""
    return {path: module for path, module in model.named_modules() if not list(module.children())}


def shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of one sample's output of each layer, by the layer's name."""
    found: dict[str, tuple[int, ...]] = {}
    paths = {module: path for path, module in leaves(model).items()}

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            found[paths[module]] = tuple(output.shape[1:])

    handles = [module.register_forward_hook(keep) for module in paths]
    try:
        with evaluating(model), no_grad():
            model(x[:2])
    finally:
        for handle in handles:
            handle.remove()
    return found


# --- activations --------------------------------------------------------------------------------------------------------


def activations(seen: Seen) -> list[Any]:
    """Histograms layer by layer, and the spread of the signal through the depth."""
    layers = _activated(seen.after)
    before = {layer.name: layer for layer in seen.before.layers}
    panels = [_panel(layer, before.get(layer.name)) for layer in _chosen(layers)]
    names = key([(tag("i", class_="filled"), AFTER[0]), (tag("i", class_="hollow"), BEFORE[0])])
    header = ["layer", "kind", "mean", "std before", "std after", "saturated", "dead"]
    rows = [_row(layer, before.get(layer.name)) for layer in seen.after.layers]
    hidden = len(layers) - len(panels)
    return [
        how(
            f"What leaves the layers when {seen.samples} training samples go in. A net can learn while its activations stay "
            "spread from the first layer to the last: piled up at the ends of a sigmoid, or shrunk to a point, they tell the "
            "next layer nothing, and let no gradient back."
        ),
        tag("div", panels, class_="small"),
        names,
        how(f"{hidden} more layers lie between these; the table has all.") if hidden else None,
        tag("div", _signals(seen, layers), class_="two"),
        more("All layers", table(header, rows, numeric=range(2, 7), caption="Outputs of every layer")),
    ]


def _panel(layer: LayerStats, before: LayerStats | None) -> Markup:
    """The histogram of a layer's outputs, over that of the untrained net."""
    old = before.output if before else None
    drawn = [
        Bars(name, stats.edges, stats.counts, colour, filled=form == 0)
        for stats, (name, colour, form) in ((layer.output, AFTER), (old, BEFORE))
        if stats is not None and stats.edges is not None and stats.counts is not None
    ]
    said = _changes(layer.output, old)
    alt = f"Histogram of the outputs of layer {layer.name or 'model'}, {_kind(layer)}: {said}."
    return figure(count_charts.histogram(drawn, alt=alt), f"{layer.name} · {_kind(layer)}", said)


def _signals(seen: Seen, layers: Sequence[LayerStats]) -> list[Markup]:
    """The spread of the signal through the depth, and the share of units that block it, if any do."""
    names = [layer.name for layer in layers]
    spread = _through_depth("signal", names, seen, lambda layer: layer.output.signal, log=True)
    outputs = [layer.output for layer in layers]
    shares = [now.saturated if math.isfinite(now.saturated) else now.dead for now in outputs]
    if not any(math.isfinite(share) and share > 0 for share in shares):
        return [spread]
    what = "dead" if any(math.isfinite(now.dead) for now in outputs) else "saturated"
    return [spread, _through_depth(what, names, seen, lambda layer: getattr(layer.output, what), percent=True)]


def _activated(reading: Reading) -> list[LayerStats]:
    """Layers worth a histogram: activations and the scores; every layer, where there is no activation."""
    found = [layer for layer in reading.layers if layer.activation is not None]
    last = [layer for layer in reading.layers[-1:] if layer not in found]
    return [*found, *last] if found else [layer for layer in reading.layers if layer.kind != "Flatten"]


def _chosen(layers: Sequence[LayerStats]) -> list[LayerStats]:
    """At most PANELS layers, evenly spread over the depth, the first and the last among them."""
    if len(layers) <= PANELS:
        return list(layers)
    return [layers[round(i * (len(layers) - 1) / (PANELS - 1))] for i in range(PANELS)]


def _kind(layer: LayerStats) -> str:
    named = layer.activation is None or layer.kind.lower() == layer.activation
    return layer.kind if named else f"{layer.kind}, {layer.activation}"


def _changes(now: Moments, before: Moments | None) -> str:
    parts = [f"std {_spread(before)} → {_spread(now)}" if before is not None else f"std {_spread(now)}"]
    for name in ("saturated", "dead"):
        share = getattr(now, name)
        old = getattr(before, name) if before is not None else math.nan
        if math.isfinite(share) and (share > 0.005 or (math.isfinite(old) and old > 0.005)):
            begun = f"{100 * old:.0f} → " if math.isfinite(old) else ""
            parts.append(f"{begun}{100 * share:.0f} % {name}")
    return ", ".join(parts)


def _spread(moments: Moments | None) -> str:
    if moments is None or not math.isfinite(moments.std):
        return "not finite"
    return rounded(moments.std, 2)


def _row(layer: LayerStats, before: LayerStats | None) -> list[Any]:
    def share(value: float) -> str:
        return f"{100 * value:.1f} %" if math.isfinite(value) else "–"

    now = layer.output
    old = _spread(before.output) if before is not None else "–"
    mean = rounded(now.mean, 2) if math.isfinite(now.mean) else "not finite"
    return [layer.name or "model", _kind(layer), mean, old, _spread(now), share(now.saturated), share(now.dead)]


# --- gradients ----------------------------------------------------------------------------------------------------------


def gradients(seen: Seen) -> list[Any]:
    """How much of the gradient reaches each layer and each weight, and how far a step moves the weights."""
    names = [layer.name for layer in _activated(seen.after)]
    weights = [weight.name for weight in seen.after.weights]
    look: dict[str, Any] = {"log": True, "width": NARROW}
    of_weights = {"part": "weights", "x_label": "weights, from input to output", **look}
    levels = [(RATIO, "usual")]

    def gradient(one: LayerStats | WeightStats) -> float:
        return math.nan if one.gradient is None else one.gradient.rms

    drawn = [
        _through_depth("gradient", names, seen, gradient, **look),
        _through_depth("gradient of weights", weights, seen, gradient, **of_weights),
        _through_depth("update", weights, seen, lambda weight: weight.ratio, levels=levels, **of_weights),
    ]
    known = {layer.name: layer.gradient for layer in seen.before.layers}
    first, last = (known.get(name) for name in (names[0], names[-1])) if len(names) > 1 else (None, None)
    told = ""
    if first is not None and last is not None and first.finite and last.finite and first.rms and last.rms:
        times = _times(first.rms / last.rms)
        told = f" Before training the gradient at layer {names[0]} was {times} that at layer {names[-1]}."
    return [
        how(
            "The gradient enters at the output and goes back layer by layer. A line that falls steeply to the left is "
            f"a gradient that vanishes, one that climbs is a gradient that explodes; level is healthy.{told}"
        ),
        tag("div", drawn, class_="three"),
    ]


def _times(factor: float) -> str:
    if factor < 1e-3:
        return f"{rounded(factor, 1)} times"
    return f"{factor:.3g} times" if factor >= 1 else f"1/{1 / factor:,.0f} of" if factor < 0.1 else f"{factor:.2f} of"


def _through_depth(
    what: str,
    names: Sequence[str],
    seen: Seen,
    value: Callable[[Any], float],
    *,
    part: str = "layers",
    percent: bool = False,
    **options: Any,
) -> Markup:
    """The ``value`` of each of these layers or weights, before training and after; ``options`` go to the chart."""
    title, note, label = THROUGH_DEPTH[what]
    series = []
    for reading, (name, colour, form) in ((seen.before, BEFORE), (seen.after, AFTER)):
        known = {one.name: value(one) for one in getattr(reading, part)}
        y = [known.get(one, math.nan) for one in names]
        series.append(Line(name, range(len(names)), y, colour, form))
    drawing = charts.lines(
        series,
        alt=f"{title}, from the first layer to the last: {'; '.join(_ends(line, percent) for line in series)}.",
        y_label=label,
        percent=percent,
        ticks=thinned([(float(i), name.removesuffix(".weight") or "model") for i, name in enumerate(names)], 12),
        **{"x_label": "layer, from input to output", **options},
    )
    return figure(drawing, title, note)


def _ends(line: Line, percent: bool = False) -> str:
    known = [v for v in line.y if v is not None and math.isfinite(v)]
    if not known:
        return f"{line.name}: nothing finite"
    first, last = (f"{100 * v:.0f} %" if percent else f"{v:.2g}" for v in (known[0], known[-1]))
    return f"{line.name} from {first} to {last}"


# --- findings -----------------------------------------------------------------------------------------------------------


def findings(restored: job.Restored, seen: Seen) -> list[Any]:
    """What the doctor finds in the untrained net and in the trained one."""
    parts: list[Any] = [
        how(
            "The doctor (kobai diagnose) watches real training steps and compares what it measures with thresholds that are "
            "stated. Of findings that follow from one another, the root needs the cure."
        )
    ]
    for when, diagnosis in (("As it began", seen.diagnosis_before), ("As it is now", seen.diagnosis_after)):
        parts.append(tag("h3", when))
        parts += [_card(finding) for finding in diagnosis.findings]
        if diagnosis.healthy:
            nothing = tag("p", tag("span", "healthy", class_="badge good"), " No finding.")
            parts.append(tag("div", nothing, class_="finding good"))
        parts += [how(note) for note in diagnosis.notes]
    return parts


def _card(finding: Finding) -> Markup:
    """One finding: what, where, evidence, cause, cure."""
    level = finding.severity if finding.severity in ("error", "warning") else "info"
    heading = tag("h3", finding.title, " ", tag("span", finding.severity, class_=f"badge {level}"))
    rows = []
    for e in finding.evidence:
        measured = rounded(e.value) if math.isfinite(e.value) else "not finite"
        rows.append([e.what, measured, f"{'above' if e.above else 'below'} {number(e.threshold)}"])
    where = tag("p", tag("b", "Where: "), finding.place) if finding.where else None
    cause = tag("p", tag("b", "Cause: "), finding.cause)
    evidence = table(["evidence", "measured", "finding if"], rows, numeric=[1, 2]) if rows else None
    cure = [tag("p", tag("b", "Cure:")), code(finding.cure.code)]
    if finding.follows:
        cure = [tag("p", tag("b", "Cure: "), f"that of its cause, {finding.follows}")]
    return tag("div", heading, where, cause, evidence, cure, class_=f"finding {level}")
