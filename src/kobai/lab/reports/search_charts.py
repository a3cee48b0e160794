"""Charts of a search as SVG: scores by trial, what each setting did to them, trials as parallel coordinates.

Complete trials are blue circles, the best a vermilion diamond. Pruned ones are grey: their last score was measured
earlier than the others' and does not compare.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from kobai.lab.reports.axes import Axis, Frame, around, between, percent, rounded, shortened, whole_percent, wide
from kobai.lab.reports.drawing import WIDTH, at, drawable, key, label, marker, nothing, path, picture, stroke
from kobai.lab.reports.markup import Markup, tag
from kobai.lab.sweep.tune_plan import Trial, TunePlan, ranked
from kobai.lab.sweep.values import Range, spelt_out

COMPLETE, PRUNED, BEST = ("blue", 0), ("grey", 1), ("vermilion", 3)
"""(colour, form) of a trial."""

SLICE = 290
"""Width of charts of which three stand side by side."""


def history(plan: TunePlan, trials: Sequence[Trial], *, alt: str) -> Markup:
    """Each trial's score by its number, and the best so far as a staircase."""
    done, best = _scored(trials), _best(plan, trials)
    pruned = [t for t in trials if t.state == "pruned" and drawable(t.value)]
    shown = [*done, *pruned]
    if not shown:
        return nothing(alt)
    numbers = [t.number for t in shown]
    frame = Frame(between(min(numbers), max(numbers), whole=True), _scale(plan, shown))
    body = [frame.axes("trial", plan.score)]
    stairs: list[tuple[float, float]] = []
    for trial in sorted(done, key=lambda t: t.number):
        value = _value(trial)
        if not stairs or (value > stairs[-1][1] if plan.greatest else value < stairs[-1][1]):
            stairs += [*((trial.number, so_far) for _, so_far in stairs[-1:]), (trial.number, value)]
    if stairs:
        steps = path([frame.at(*point) for point in [*stairs, (max(numbers), stairs[-1][1])]])
        body.append(tag("polyline", points=steps, class_="line", style="stroke:var(--blue)"))
    body += [_point(plan, t, best, *frame.at(t.number, _value(t))) for t in [*pruned, *done]]
    return picture(alt, body)


def curves(plan: TunePlan, trials: Sequence[Trial], *, alt: str) -> Markup:
    """Each trial's score during its training."""
    best = _best(plan, trials)
    drawn = [t for t in trials if t.state in ("complete", "pruned") and any(map(drawable, t.curve))]
    if not drawn:
        return nothing(alt)
    frame = Frame(between(0, 100), _axis(plan, [v for t in drawn for v in t.curve if drawable(v)]))
    body = [frame.axes("share of its training, %", plan.score)]
    order = {"pruned": 0, "complete": 1}
    for trial in sorted(drawn, key=lambda t: (t is best, order[t.state])):
        points = [frame.at(100 * i / plan.measures, v) for i, v in enumerate(trial.curve, 1) if drawable(v)]
        body.append(_line(plan, trial, best, points))
        if trial.state == "pruned" or len(points) == 1:
            body.append(marker(*points[-1], *PRUNED, size=0.7))
    return picture(alt, body)


def slices(plan: TunePlan, trials: Sequence[Trial], name: str, *, alt: str) -> Markup:
    """Scores of the complete trials by the value of one setting; the values of pruned ones are marked below."""
    best, done = _best(plan, trials), [t for t in _scored(trials) if name in t.parameters]
    if not done:
        return nothing(alt, SLICE)
    axis, jitter = plan.axis(name), random.Random(0)
    frame = Frame(axis, _scale(plan, done), SLICE)
    words = f"{name.replace('_', ' ')}{', logarithmic' if axis.log else ''}"
    body = [frame.axes(words, plan.score)]

    def x(trial: Trial) -> float:
        place = plan.place(name, trial.parameters[name])
        # Equal choices are spread a little; their places are one apart.
        return frame.x(place if isinstance(plan.space[name], Range) else place + jitter.uniform(-0.12, 0.12))

    for trial in trials:
        if trial.state == "pruned" and name in trial.parameters:
            said = tag("title", _spoken(plan, trial))
            place, foot = at(x(trial)), frame.bottom
            body.append(tag("line", said, x1=place, x2=place, y1=at(foot - 9), y2=at(foot - 1), class_="rug"))
    body += [_point(plan, t, best, x(t), frame.y(_value(t))) for t in sorted(done, key=lambda t: t is best)]
    return picture(alt, body, SLICE)


def parallel(plan: TunePlan, trials: Sequence[Trial], *, alt: str) -> Markup:
    """A line for each trial through its settings to its score; the stronger, the better its rank. Pruned ones have no score."""
    best, done = _best(plan, trials), [t for t in _scored(trials) if set(t.parameters) == set(plan.space)]
    if not done:
        return nothing(alt)
    pruned = [t for t in trials if t.state == "pruned" and set(t.parameters) == set(plan.space)]
    axes = {name: plan.axis(name) for name in plan.space}
    score = _scale(plan, done)
    left, top, bottom = 58.0, 14.0, 232.0
    width = max(720.0, left + 112 * len(axes) + 62)  # it is shown across the page
    step = (width - left - 62) / len(axes)
    jitter = random.Random(0)
    body, front = [], []

    def height(share: float) -> float:
        return bottom - share * (bottom - top)

    order = {t.number: i for i, t in enumerate(reversed(ranked(plan, done)), 1)}
    for trial in [*pruned, *sorted(done, key=lambda t: order[t.number])]:
        shares, strength = plan.shares(trial.parameters, jitter), None
        if trial.state == "complete":
            shares.append(score.share(_value(trial)))
            # By rank and not by score: one trial that went wrong must not take all the shades.
            strength = (
                f"stroke-opacity:{0.15 + 0.85 * order[trial.number] / len(done):.2f}" if trial is not best else None
            )
        points = [(left + i * step, height(share)) for i, share in enumerate(shares)]
        body.append(_line(plan, trial, best, points, style=strength))
        if trial is best:
            body += [marker(a, b, *BEST) for a, b in points]
    for i, (name, axis) in enumerate([*axes.items(), (plan.score, score)]):
        x = left + i * step
        body.append(stroke(x, top, x, bottom, "axis"))
        for value, text in axis.ticks:
            y = height(axis.share(value))
            front.append(stroke(x - 3, y, x, y, "axis"))
            front.append(label(shortened(text, 13), x - 5, y + 4, "note end"))
        words = name.replace("_", " ").split(" ")
        lines = [" ".join(part) for part in (words[: len(words) // 2], words[len(words) // 2 :]) if part]
        body += [label(line, x, bottom + 18 + 13 * k, "label middle") for k, line in enumerate(lines)]
    return picture(alt, [*body, *front], width, bottom + 38)


def importance(shares: Mapping[str, float], *, alt: str) -> Markup:
    """A bar for each setting, the most important on top."""
    left, right, row = 118.0, WIDTH - 52.0, 26.0
    body = []
    for i, (name, part) in enumerate(sorted(shares.items(), key=lambda pair: -pair[1])):
        y = 6 + i * row
        long = (right - left) * part / max(shares.values())
        body.append(label(shortened(name.replace("_", " "), 18), left - 8, y + 13, "label end"))
        body.append(tag("rect", x=at(left), y=at(y), width=at(long), height=at(row - 8), rx=2, class_="bar"))
        body.append(label(whole_percent(part), left + long + 6, y + 13, "tick"))
    return picture(alt, body, WIDTH, 8 + len(shares) * row)


def kinds(plan: TunePlan) -> Markup:
    """What the markers stand for."""
    shown = [("complete", COMPLETE), ("the best", BEST), *[("pruned", PRUNED)] * plan.prune]
    dot = {"viewBox": "0 0 14 14", "class_": "dot", "aria_hidden": "true"}
    return key([(tag("svg", marker(7, 7, *look), **dot), name) for name, look in shown])


# --- trials -------------------------------------------------------------------------------------------------------------


def _scored(trials: Sequence[Trial]) -> list[Trial]:
    return [t for t in trials if t.state == "complete" and not t.diverged and drawable(t.value)]


def _best(plan: TunePlan, trials: Sequence[Trial]) -> Trial | None:
    return next(iter(ranked(plan, _scored(trials))), None)


def _value(trial: Trial) -> float:
    return math.nan if trial.value is None else trial.value


def _scale(plan: TunePlan, trials: Sequence[Trial]) -> Axis:
    return _axis(plan, [_value(t) for t in trials])


def _axis(plan: TunePlan, values: Sequence[float]) -> Axis:
    return around(values, not plan.greatest and wide(values), shares=plan.greatest)


def _line(
    plan: TunePlan, trial: Trial, best: Trial | None, points: Sequence[tuple[float, float]], **attributes: Any
) -> Markup:
    said, kind = tag("title", _spoken(plan, trial)), "best" if trial is best else trial.state
    return tag("polyline", said, points=path(points), class_=f"trial {kind}", **attributes)


def _point(plan: TunePlan, trial: Trial, best: Trial | None, x: float, y: float) -> Markup:
    look = BEST if trial is best else PRUNED if trial.state == "pruned" else COMPLETE
    return marker(x, y, *look, _spoken(plan, trial), size=0.7 if look is PRUNED else 1.3 if look is BEST else 1.0)


def _spoken(plan: TunePlan, trial: Trial) -> str:
    score = percent(trial.value) if plan.greatest else rounded(trial.value)
    pruned = ", pruned at" if trial.state == "pruned" else ":"
    return f"trial {trial.number}{pruned} {score}, {spelt_out(trial.parameters)}"
