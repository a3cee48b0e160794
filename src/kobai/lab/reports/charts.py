"""Line charts, and strips for table rows, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeGuard

from kobai.lab.reports.axes import Axis, Frame, around, between
from kobai.lab.reports.drawing import (
    GREATEST,
    WIDTH,
    at,
    drawable,
    key,
    label,
    marker,
    nothing,
    path,
    picture,
    stroke,
)
from kobai.lab.reports.markup import Markup, tag

Point = tuple[float, float]
DASHES = (None, "7 4", "9 3 2 3", "2 3", "12 4", "4 2", "9 3 2 3 2 3", "3 5")


@dataclass(frozen=True)
class Line:
    """One line of a chart; values that are None or not finite leave gaps. ``form`` numbers its dashes and its marker."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: str = "blue"
    form: int = 0
    band: tuple[Sequence[float | None], Sequence[float | None]] | None = None

    def stroke(self) -> dict[str, Any]:
        """The SVG attributes of its stroke."""
        dashes = DASHES[self.form % len(DASHES)]
        return {"class_": "line", "style": f"stroke:var(--{self.colour})", "stroke_dasharray": dashes}


def lines(
    series: Sequence[Line],
    *,
    alt: str,
    x_label: str,
    y_label: str,
    log: bool = False,
    percent: bool = False,
    whole: bool = False,
    ticks: Sequence[tuple[float, str]] | None = None,
    marks: Sequence[tuple[float, str]] = (),
    levels: Sequence[tuple[float, str]] = (),
    legend: bool = True,
    width: int = WIDTH,
) -> Markup:
    """A line chart.

    Args:
        alt: what it shows, in words.
        log: logarithmic y axis; values that are not above 0 are left out.
        percent: y is a share, written as a percentage.
        whole: x has whole numbers only.
        ticks: places and names on the x axis instead of numbers.
        marks, levels: vertical and horizontal reference lines with their names.
        legend: whether the lines' names stand below, where there are several lines.
        width: of the drawing, in the units of its type; see ``drawing.WIDTH``.

    >>> chart = lines([Line("loss", [1, 2], [0.5, None])], alt="It falls.", x_label="epoch", y_label="loss")
    >>> chart.startswith('<svg viewBox="0 0 400 260" role="img" aria-label="It falls."')
    True
    """

    def fits(value: float | None) -> TypeGuard[float]:
        return drawable(value) and (value > 1 / GREATEST or not log)

    runs = [_runs(line, fits) for line in series]
    found = [point for of_line in runs for run in of_line for point in run]
    if not found:
        return nothing(alt)
    ys = [y for _, y in found] + [v for line in series for edge in line.band or () for v in edge if fits(v)]
    near = [v for v, _ in levels if (v > 0 or not log) and _within_reach(v, ys, log)]
    frame = Frame(_across([x for x, _ in found], whole, ticks), around([*ys, *near], log, shares=percent), width)
    body = [frame.axes(x_label, y_label)]
    notes = []
    for value, name in levels:
        if value in near:
            y = frame.y(value)
            body.append(stroke(frame.left, y, frame.right, y, "level"))
            notes.append(label(name, frame.right, y - 4, "note end"))
    for value, name in marks:
        x = frame.x(value)
        side = "end" if x > (frame.left + frame.right) / 2 else ""
        body.append(stroke(x, frame.top, x, frame.bottom, "level"))
        notes.append(label(name, x + (-5 if side else 5), frame.top + 9, f"note {side}"))
    for line, of_line in zip(series, runs, strict=True):
        if line.band is not None:
            body.append(_band(frame, line, log))
        for run in of_line:
            if len(run) > 1:
                body.append(tag("polyline", points=path([frame.at(*point) for point in run]), **line.stroke()))
        seen = [point for run in of_line for point in run]
        every = max(1, math.ceil(len(seen) / 12))
        for i, (x, y) in enumerate(seen):
            if i % every == 0 or i == len(seen) - 1:
                spoken = f"{line.name}: {100 * y:.1f} %" if percent else f"{line.name}: {y:.4g}"
                body.append(marker(*frame.at(x, y), line.colour, line.form, spoken))
    drawing = picture(alt, [*body, *notes], width)
    drawn = [line for line, of_line in zip(series, runs, strict=True) if of_line]
    return Markup(drawing + names(drawn)) if legend and len(series) > 1 else drawing


def dots(points: Sequence[Point], *, alt: str, x_label: str, y_label: str, diagonal: bool = False) -> Markup:
    """A cloud of points; with the line on which both are equal, where both are in one unit.

    >>> dots([(1.0, 2.0), (3.0, 3.0)], alt="Two.", x_label="true", y_label="said", diagonal=True).count("<circle")
    2
    """
    found = [point for point in points if drawable(point[0]) and drawable(point[1])]
    if not found:
        return nothing(alt)
    xs, ys = [x for x, _ in found], [y for _, y in found]
    both = around([*xs, *ys])
    frame = Frame(both, both, WIDTH) if diagonal else Frame(around(xs), around(ys), WIDTH)
    body = [frame.axes(x_label, y_label)]
    if diagonal:
        (x0, y0), (x1, y1) = frame.at(both.low, both.low), frame.at(both.high, both.high)
        body.append(stroke(x0, y0, x1, y1, "level"))
    body += [marker(*frame.at(x, y), "blue", 0, size=0.6) for x, y in found]
    return picture(alt, body, WIDTH)


def names(series: Sequence[Line]) -> Markup:
    """The lines' names, each beside a piece of its line."""

    def piece(line: Line) -> Markup:
        stretch = tag("line", x1=1, y1=7, x2=33, y2=7, **line.stroke())
        dot = marker(17, 7, line.colour, line.form)
        return tag("svg", stretch, dot, viewBox="0 0 34 14", aria_hidden="true")

    return key([(piece(line), line.name) for line in series])


def strip(values: Sequence[float], scale: Axis) -> Markup:
    """A dot for each value and a bar up to their mean, for a table row that also has the numbers.

    >>> strip([0.9, 0.95], around([0, 1])).count("<circle")
    2
    """
    width, height = 120.0, 16.0
    mean = sum(values) / len(values)

    def x(value: float) -> float:
        return 5 + (width - 10) * scale.share(value)

    body = [tag("rect", x=0, y=3, width=at(x(mean)), height=10, rx=2, class_="bar faint")]
    body += [tag("circle", cx=at(x(v)), cy=8, r=3, class_="marker", style="stroke:var(--blue)") for v in values]
    return tag("svg", *body, viewBox=f"0 0 {width:g} {height:g}", class_="strip", aria_hidden="true")


def _across(xs: Sequence[float], whole: bool, ticks: Sequence[tuple[float, str]] | None) -> Axis:
    if ticks is None:
        return between(min(xs), max(xs), whole=whole)
    ends = [*xs, *(value for value, _ in ticks)]
    low, high = min(ends), max(ends)
    return Axis(low, high, tuple(ticks)) if high > low else Axis(low - 0.5, high + 0.5, tuple(ticks))


def _within_reach(value: float, ys: Sequence[float], log: bool) -> bool:
    """Whether a reference line is near enough to the data not to flatten them."""
    low, high = min(ys), max(ys)
    if log:
        return low / 30 <= value <= high * 30
    reach = max(high - low, 1e-12)
    return low - reach <= value <= high + reach


def _runs(line: Line, fits: Callable[[float | None], bool]) -> list[list[Point]]:
    """The points of a line, split where values are missing."""
    points: Iterable[Any] = zip(line.x, line.y, strict=True)
    return [list(run) for there, run in groupby(points, lambda point: fits(point[1])) if there]


def _band(frame: Frame, line: Line, log: bool) -> Markup:
    low, high = line.band or ((), ())
    both = [
        (x, a, b)
        for x, a, b in zip(line.x, low, high, strict=True)
        if drawable(a) and drawable(b) and (not log or a > 0)
    ]
    upper = [frame.at(x, b) for x, _, b in both]
    lower = [frame.at(x, a) for x, a, _ in reversed(both)]
    return tag("polygon", points=path(upper + lower), class_="band", style=f"fill:var(--{line.colour})")
