"""What a report shows of a net's inside: activations, gradients and updates through its depth, before training and after."""

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
from kobai.lab.probe.probes import LayerStats, Moments, Probe, Reading
from kobai.lab.reports import charts, count_charts
from kobai.lab.reports.axes import number, rounded
from kobai.lab.reports.charts import Line
from kobai.lab.reports.count_charts import Bars
from kobai.lab.reports.drawing import WIDTH
from kobai.lab.reports.markup import Markup, escaped, table, tag
from kobai.lab.reports.page import figure, how, more
from kobai.nn import functional as F
from kobai.nn.utils import clip_grad_norm_
from kobai.optim import Optimizer
from kobai.random import manual_seed
from kobai.train import job
from kobai.train.batches import evaluating
from kobai.train.models import build
from kobai.train.recipes import optimizer
from kobai.train.settings import Settings

BINS, PANELS = 36, 12

NARROW = 330
"""Width of charts of which three stand side by side."""

BEFORE, AFTER = ("before training", "vermilion", 1), ("after training", "blue", 0)

RATIO = 1e-3
"""Update-to-weight ratio that is usual in nets that train well (A. Karpathy, CS231n notes, "Neural Networks Part 3")."""


@dataclass(frozen=True)
class Seen:
    """One training step on the same samples: of the net as it was drawn, and of the net as it is kept."""

    before: Reading
    after: Reading
    diagnosis_before: Diagnosis
    diagnosis_after: Diagnosis
    samples: int


def look(restored: job.Restored, state: dict[str, Any], batch: tuple[Tensor, Tensor]) -> Seen:
    """Watch a step of both nets, on copies. Random numbers are drawn."""
    settings = restored.settings
    manual_seed(settings.seed)  # as job.train does, so that these are the weights that the run began with
    fresh = build(job.describe_model(settings, restored.input_shape, len(restored.classes))).to(batch[0].device)
    begun = _rule(settings, fresh)
    trained = copy.deepcopy(restored.model)
    going = _rule(settings, trained)
    try:
        going.load_state_dict(state["optimizer"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{restored.path}: holds no state of its optimizer ({error})") from error
    found = []
    for model, rule in ((fresh, begun), (trained, going)):
        model.train()
        diagnosis = diagnose(model, batch, optimizer=rule, clip_grad_norm=settings.clip_grad_norm)
        found.append((_reading(model, rule, batch, settings.clip_grad_norm), diagnosis))
    (before, first), (after, last) = found
    return Seen(before, after, first, last, len(batch[0]))


def _rule(settings: Settings, model: nn.Module) -> Optimizer:
    return optimizer(settings.optimizer, model.parameters(), settings.lr, settings.weight_decay, settings.momentum)


def _reading(model: nn.Module, rule: Optimizer, batch: tuple[Tensor, Tensor], clip: float | None) -> Reading:
    probe = Probe(model, rule, every=1, bins=BINS)
    with probe.step():
        loss = F.cross_entropy(model(batch[0]), batch[1])
        rule.zero_grad()
        loss.backward()
        if clip is not None:
            clip_grad_norm_(model.parameters(), clip)
        rule.step()
    reading = probe.read()
    assert reading is not None
    return reading


def shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """The shape of one sample's output of each layer, by the layer's name."""
    found: dict[str, tuple[int, ...]] = {}

    def keep(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found[path] = tuple(output.shape[1:])

        return hook

    handles = [m.register_forward_hook(keep(path)) for path, m in model.named_modules() if not list(m.children())]
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
    panels = []
    for layer in _chosen(layers):
        old = before.get(layer.name)
        drawn = []
        for stats, (name, colour, form) in ((layer.output, AFTER), (old.output if old else None, BEFORE)):
            if stats is not None and stats.edges is not None and stats.counts is not None:
                drawn.append(Bars(name, stats.edges, stats.counts, colour, filled=form == 0))
        said = _changes(layer.output, old.output if old else None)
        alt = f"Histogram of the outputs of layer {layer.name or 'model'}, {_kind(layer)}: {said}."
        panels.append(figure(count_charts.histogram(drawn, alt=alt), f"{layer.name} · {_kind(layer)}", said))
    key = tag(
        "div",
        tag("span", tag("i", class_="filled"), AFTER[0]),
        tag("span", tag("i", class_="hollow"), BEFORE[0]),
        class_="key",
    )
    names = [layer.name for layer in layers]
    spread = _through_depth(
        names,
        [(seen.before, BEFORE), (seen.after, AFTER)],
        lambda layer: layer.output.signal,
        "Signal by depth",
        "what differs from sample to sample, root mean square",
        "signal (root mean square)",
        log=True,
    )
    shares = [
        (layer.output.saturated if math.isfinite(layer.output.saturated) else layer.output.dead) for layer in layers
    ]
    charts_ = [spread]
    if any(math.isfinite(share) and share > 0 for share in shares):
        what = "dead" if any(math.isfinite(layer.output.dead) for layer in layers) else "saturated"
        charts_.append(
            _through_depth(
                names,
                [(seen.before, BEFORE), (seen.after, AFTER)],
                lambda layer: getattr(layer.output, what),
                "Dead units by depth" if what == "dead" else "Saturated outputs by depth",
                "units that are 0 for every sample" if what == "dead" else "outputs where the activation is flat",
                "share of units" if what == "dead" else "share of outputs",
                percent=True,
            )
        )
    rows = [_row(layer, before.get(layer.name)) for layer in seen.after.layers]
    hidden = len(layers) - len(panels)
    return [
        how(
            f"What leaves the layers when {seen.samples} training samples go in. A net can learn while its activations stay "
            "spread from the first layer to the last: piled up at the ends of a sigmoid, or shrunk to a point, they tell the "
            "next layer nothing, and let no gradient back."
        ),
        tag("div", panels, class_="small"),
        key,
        how(f"{hidden} more layers lie between these; the table has all.") if hidden else None,
        tag("div", charts_, class_="two"),
        more(
            "All layers",
            table(
                ["layer", "kind", "mean", "std before", "std after", "saturated", "dead"],
                rows,
                numeric=range(2, 7),
                caption="Outputs of every layer",
            ),
        ),
    ]


def _activated(reading: Reading) -> list[LayerStats]:
    """Layers worth a histogram: activations and the scores; every layer, where there is no activation."""
    found = [layer for layer in reading.layers if layer.activation is not None]
    last = [layer for layer in reading.layers[-1:] if layer not in found]
    return [*found, *last] if found else [layer for layer in reading.layers if layer.kind != "Flatten"]


def _chosen(layers: Sequence[LayerStats]) -> list[LayerStats]:
    """At most PANELS of them, evenly through the depth, with the first and the last."""
    if len(layers) <= PANELS:
        return list(layers)
    return [layers[round(i * (len(layers) - 1) / (PANELS - 1))] for i in range(PANELS)]


def _kind(layer: LayerStats) -> str:
    return (
        layer.kind
        if layer.activation is None or layer.kind.lower() == layer.activation
        else f"{layer.kind}, {layer.activation}"
    )


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
    both = [(seen.before, BEFORE), (seen.after, AFTER)]
    flow = _through_depth(
        names,
        both,
        lambda layer: layer.gradient.rms if layer.gradient is not None else math.nan,
        "Gradient by depth",
        "of the loss by a layer's outputs, root mean square",
        "gradient (root mean square)",
        log=True,
        width=NARROW,
    )
    charts_ = [flow]
    weights = [w.name.removesuffix(".weight") for w in seen.after.weights]
    for what, title, note, label in (
        ("gradient", "Gradient of the weights", "root mean square", "gradient (root mean square)"),
        ("ratio", "Update against weight", "‖Δw‖ / ‖w‖ of one step; about 10⁻³ is usual", "update / weight"),
    ):
        series = []
        for reading, (name, colour, form) in both:
            known = {w.name.removesuffix(".weight"): w for w in reading.weights}
            values = []
            for weight in weights:
                w = known.get(weight)
                if w is None:
                    values.append(math.nan)
                else:
                    values.append(
                        w.ratio if what == "ratio" else w.gradient.rms if w.gradient is not None else math.nan
                    )
            series.append(Line(name, list(range(len(weights))), values, colour, form))
        charts_.append(
            figure(
                charts.lines(
                    series,
                    alt=f"{title}, from the first layer to the last: {'; '.join(_ends(line) for line in series)}.",
                    x_label="weights, from input to output",
                    y_label=label,
                    log=True,
                    ticks=_ticks(weights),
                    levels=[(RATIO, "usual")] if what == "ratio" else [],
                    width=NARROW,
                ),
                title,
                note,
            )
        )
    first, last = _first_and_last(seen.before, names)
    told = ""
    if first and last:
        factor = first / last
        told = (
            f" Before training the gradient at layer {names[0]} was {_times(factor)} that at layer {names[-1]}."
            if len(names) > 1
            else ""
        )
    return [
        how(
            "The gradient enters at the output and goes back layer by layer. A line that falls steeply to the left is "
            f"a gradient that vanishes, one that climbs is a gradient that explodes; level is healthy.{told}"
        ),
        tag("div", charts_, class_="three"),
    ]


def _times(factor: float) -> str:
    if factor < 1e-3:
        return f"{rounded(factor, 1)} times"
    return f"{factor:.3g} times" if factor >= 1 else f"1/{1 / factor:,.0f} of" if factor < 0.1 else f"{factor:.2f} of"


def _first_and_last(reading: Reading, names: Sequence[str]) -> tuple[float, float]:
    known = {layer.name: layer for layer in reading.layers}
    ends = [known[name].gradient for name in (names[0], names[-1]) if name in known] if names else []
    values = [g.rms if g is not None and g.finite else 0.0 for g in ends]
    return (values[0], values[1]) if len(values) == 2 else (0.0, 0.0)


def _through_depth(
    names: Sequence[str],
    readings: Sequence[tuple[Reading, tuple[str, str, int]]],
    value: Callable[[LayerStats], float],
    title: str,
    note: str,
    label: str,
    *,
    log: bool = False,
    percent: bool = False,
    width: int = WIDTH,
) -> Markup:
    series = []
    for reading, (name, colour, form) in readings:
        known = {layer.name: layer for layer in reading.layers}
        values = [value(known[layer]) if layer in known else math.nan for layer in names]
        series.append(Line(name, list(range(len(names))), values, colour, form))
    drawing = charts.lines(
        series,
        alt=f"{title}, from the first layer to the last: {'; '.join(_ends(line, percent) for line in series)}.",
        x_label="layer, from input to output",
        y_label=label,
        log=log,
        percent=percent,
        ticks=_ticks(names),
        width=width,
    )
    return figure(drawing, title, note)


def _ticks(names: Sequence[str]) -> list[tuple[float, str]]:
    step = max(1, math.ceil(len(names) / 12))
    return [(float(i), name or "model") for i, name in enumerate(names) if i % step == 0]


def _ends(line: Line, percent: bool = False) -> str:
    known = [v for v in line.y if v is not None and math.isfinite(v)]
    if not known:
        return f"{line.name}: nothing finite"
    first, last = (f"{100 * v:.0f} %" if percent else f"{v:.2g}" for v in (known[0], known[-1]))
    return f"{line.name} from {first} to {last}"


# --- findings -----------------------------------------------------------------------------------------------------------


def findings(restored: job.Restored, seen: Seen) -> list[Any]:
    """What the doctor says of the net as it began and as it is."""
    parts: list[Any] = [
        how(
            "The doctor (kobai diagnose) watches real training steps and compares what it measures with thresholds that are "
            "stated. Of findings that follow from one another, the root needs the cure."
        )
    ]
    for when, diagnosis in (("As it began", seen.diagnosis_before), ("As it is now", seen.diagnosis_after)):
        parts.append(tag("h3", when))
        parts += [finding_card(finding) for finding in diagnosis.findings]
        if diagnosis.healthy:
            parts.append(healthy_card())
        parts += [how(note) for note in diagnosis.notes]
    return parts


def healthy_card() -> Markup:
    """That nothing was found."""
    return tag("div", tag("p", tag("span", "healthy", class_="badge good"), " No finding."), class_="finding good")


def finding_card(finding: Finding) -> Markup:
    """One finding: what, where, evidence, cause, cure."""
    level = {"error": "error", "warning": "warning"}.get(finding.severity, "info")
    heading = tag("h3", finding.title, " ", tag("span", finding.severity, class_=f"badge {level}"))
    rows = []
    for e in finding.evidence:
        measured = rounded(e.value) if math.isfinite(e.value) else "not finite"
        rows.append([e.what, measured, f"{'above' if e.above else 'below'} {number(e.threshold)}"])
    where = tag("p", tag("b", "Where: "), finding.place) if finding.where else None
    cure = (
        tag("p", tag("b", "Cure: "), f"that of its cause, {finding.follows}")
        if finding.follows
        else escaped([tag("p", tag("b", "Cure:")), tag("pre", tag("code", finding.cure.code), tabindex="0")])
    )
    return tag(
        "div",
        heading,
        where,
        tag("p", tag("b", "Cause: "), finding.cause),
        table(["evidence", "measured", "finding if"], rows, numeric=[1, 2]) if rows else None,
        cure,
        class_=f"finding {level}",
    )
