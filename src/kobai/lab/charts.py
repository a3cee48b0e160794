"""Charts as SVG, drawn without any package, in the colours of the page they stand in: light or dark, on paper or a phone.

Colours are those of Okabe and Ito, as in :mod:`kobai.lab.plots`; the page gives each a lighter shade where it is dark. What a
colour says, the form of the line and its marker say as well. Every chart carries its text for those who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeGuard

from kobai.lab.markup import Markup, tag

COLOURS = ("blue", "vermilion", "green", "purple", "orange", "sky", "grey", "yellow")
"""Names of the page's colours (``--blue`` …), in the order in which lines without a fixed one take them."""

DASHES = ("", "7 4", "9 3 2 3", "2 3", "12 4", "4 2", "9 3 2 3 2 3", "3 5")
MARKERS = ("circle", "square", "triangle", "diamond")

WIDTH, HEIGHT = 400, 260

SPIKE = 3.0
"""A histogram's bin that is so many times higher than any other is cut off, and its share written beside it."""

_GREATEST = 1e100
"""What is larger is drawn no more than infinity is: the arithmetic of axes would overflow."""


@dataclass(frozen=True)
class Line:
    """One line of a chart; points that are None or not finite are gaps. ``colour`` and ``form`` number colour, dash, marker."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: str = "blue"
    form: int = 0
    band: tuple[Sequence[float | None], Sequence[float | None]] | None = None

    def points(self) -> list[tuple[float, float] | None]:
        return [(float(x), float(y)) if _finite(y) else None for x, y in zip(self.x, self.y, strict=True)]


@dataclass(frozen=True)
class Bars:
    """A histogram: ``len(counts) + 1`` edges; filled, or as an outline."""

    name: str
    edges: Sequence[float]
    counts: Sequence[float]
    colour: str = "blue"
    filled: bool = True


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
        percent: y is a share, written in per cent.
        whole: x has whole numbers only.
        ticks: places and names on the x axis instead of numbers.
        marks, levels: vertical and horizontal lines of reference with their names.
        legend: whether the lines' names stand below, where there are several lines.
        width: of the drawing, in the units of its type; what is shown narrow is drawn narrow, so that type stays legible.

    >>> chart = lines([Line("loss", [1, 2], [0.5, None])], alt="It falls.", x_label="epoch", y_label="loss")
    >>> chart.startswith('<svg viewBox="0 0 400 260" role="img" aria-label="It falls."')
    True
    """
    shown = [
        (line, [p if p is not None and (p[1] > 1 / _GREATEST or not log) else None for p in line.points()])
        for line in series
    ]
    found = [p for _, points in shown for p in points if p is not None]
    if not found:
        return _nothing(alt)
    ys = [y for _, y in found]
    for line in series:
        for edge in line.band or ():
            ys += [float(v) for v in edge if _finite(v) and (v > 1 / _GREATEST or not log)]
    near = [v for v, _ in levels if (v > 0 or not log) and _within_reach(v, ys, log)]
    frame = _Frame.around([x for x, _ in found], [*ys, *near], log, percent, whole, ticks, width)
    body = [frame.axes(x_label, y_label)]
    notes = []
    for value, name in levels:
        if value in near:
            y = frame.y(value)
            body.append(_stroke(frame.left, y, frame.right, y, "level"))
            notes.append(tag("text", name, x=_n(frame.right), y=_n(y - 4), class_="note end"))
    for value, name in marks:
        x = frame.x(value)
        side = "end" if x > (frame.left + frame.right) / 2 else ""
        body.append(_stroke(x, frame.top, x, frame.bottom, "level"))
        notes.append(tag("text", name, x=_n(x + (-5 if side else 5)), y=_n(frame.top + 9), class_=f"note {side}"))
    for line, points in shown:
        if line.band is not None:
            body.append(_band(frame, line, log))
        style = f"stroke:var(--{line.colour})"
        dash = DASHES[line.form % len(DASHES)] or None
        for run in _runs(points):
            path = " ".join(f"{_n(frame.x(x))},{_n(frame.y(y))}" for x, y in run)
            if len(run) > 1:
                body.append(tag("polyline", points=path, class_="line", style=style, stroke_dasharray=dash))
        seen = [p for p in points if p is not None]
        every = max(1, math.ceil(len(seen) / 12))
        for i, (x, y) in enumerate(seen):
            if i % every == 0 or i == len(seen) - 1:
                spoken = f"{line.name}: {_shown(y, percent)}"
                body.append(_marker(frame.x(x), frame.y(y), line, spoken))
    entries = [(line.name, line) for line, points in shown if any(points)]
    return _figure(alt, [*body, *notes], entries if legend and len(series) > 1 else [], width)


def histogram(bars: Sequence[Bars], *, alt: str, width: int = 200, height: int = 112) -> Markup:
    """Small histograms over one another, each scaled to its own greatest count, on a common x axis.

    >>> histogram([Bars("now", [0, 0.5, 1], [3, 1])], alt="Most are small.").count("<path")
    1
    """
    seen = [b for b in bars if any(b.counts) and all(map(_finite, b.edges))]
    if not seen:
        return _nothing(alt, width, height)
    low, high = min(b.edges[0] for b in seen), max(b.edges[-1] for b in seen)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    left, right, top, bottom = 6.0, width - 6.0, 6.0, height - 22.0

    def place(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    body, notes = [_stroke(left, bottom, right, bottom, "axis")], []
    for value in nice(low, high, 4):
        x = place(value)
        body.append(_stroke(x, bottom, x, bottom + 3, "axis"))
        side = "start" if x < left + 12 else "end" if x > right - 12 else ""
        body.append(tag("text", number(value), x=_n(x), y=_n(bottom + 15), class_=f"tick middle {side}".strip()))
    for b in seen:
        ordered = sorted(b.counts)
        # One bin far above all others, as of the zeros of a ReLU, is cut off, lest the others vanish beside it.
        spike = len(ordered) > 1 and ordered[-2] > 0 and ordered[-1] > SPIKE * ordered[-2]
        most = 1.25 * ordered[-2] if spike else ordered[-1]
        # One bin alone, as of units that all say the same, is drawn so wide that it is seen.
        corners = [(place(b.edges[0]), bottom)]
        for (a, c), count in zip(pairwise(b.edges), b.counts, strict=True):
            y = bottom - min(1.0, count / most) * (bottom - top)
            x0, x1 = place(a), place(c)
            if x1 - x0 < 1.5:
                x0, x1 = (x0 + x1) / 2 - 0.75, (x0 + x1) / 2 + 0.75
            corners += [(x0, y), (x1, y)]
        corners.append((corners[-1][0], bottom))
        path = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in corners)
        how = f"fill:var(--{b.colour});stroke:var(--{b.colour})" if b.filled else f"fill:none;stroke:var(--{b.colour})"
        if spike and b.filled:
            at = list(b.counts).index(ordered[-1])
            x = place((b.edges[at] + b.edges[at + 1]) / 2)
            side, shift = ("", 6) if x < (left + right) / 2 else ("end", -6)
            share = f"{100 * ordered[-1] / sum(b.counts):.0f} %"
            notes.append(tag("text", share, x=_n(x + shift), y=_n(top + 9), class_=f"note {side}".strip()))
        body.append(tag("path", tag("title", b.name), d=path, class_="fill" if b.filled else "outline", style=how))
    return _svg(alt, [*body, *notes], width, height)


def bars(names: Sequence[str], values: Sequence[float], *, alt: str, x_label: str, y_label: str) -> Markup:
    """A bar for each name.

    >>> bars(["a", "b"], [3, 5], alt="b is more.", x_label="class", y_label="samples").count("<rect")
    2
    """
    if not values or not max(values) > 0:
        return _nothing(alt)
    places = _thinned([(i, name) for i, name in enumerate(names)], 14)
    frame = _Frame.around([-0.5, len(values) - 0.5], [0.0, max(values)], False, False, False, places)
    body = [frame.axes(x_label, y_label)]
    thick = min(40.0, 0.78 * (frame.right - frame.left) / len(values))
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        y = frame.y(value)
        box = {"x": _n(frame.x(i) - thick / 2), "y": _n(y), "width": _n(thick), "height": _n(max(0, frame.bottom - y))}
        body.append(tag("rect", tag("title", f"{name}: {value:,}"), **box, rx=1.5, class_="bar"))
    return _figure(alt, body, [])


def confusion(names: Sequence[str], counts: Sequence[Sequence[int]], *, alt: str) -> Markup:
    """A confusion matrix: rows are true classes, columns predicted ones; what is right lies on the diagonal, mistakes glow.

    >>> confusion(["a", "b"], [[5, 1], [0, 6]], alt="One a was taken for b.").count("<rect")
    4
    """
    k = len(names)
    cell = min(34.0, 360.0 / k)
    long = max(len(name) for name in names) > 3
    left, top = 34.0 + (48 if long else 14), 8.0
    width, height = left + k * cell + 10, top + k * cell + (70 if long else 40)
    wrong = max((counts[i][j] for i in range(k) for j in range(k) if i != j), default=0)
    body = []
    for i in range(k):
        whole = sum(counts[i])
        for j in range(k):
            n = counts[i][j]
            share = (n / whole if whole else 0.0) if i == j else (n / wrong if wrong else 0.0)
            colour, strength = ("blue", 0.75 * share) if i == j else ("vermilion", 0.25 + 0.65 * share if n else 0.0)
            x, y = left + j * cell, top + i * cell
            said = f"{names[i]}, taken for {names[j]}: {n}" if i != j else f"{names[i]}: {n} of {whole} right"
            box = {"x": _n(x + 0.5), "y": _n(y + 0.5), "width": _n(cell - 1), "height": _n(cell - 1), "rx": 2}
            how = f"fill:var(--{colour});fill-opacity:{strength:.3f}" if n else "fill:var(--line);fill-opacity:.35"
            body.append(tag("rect", tag("title", said), **box, style=how))
            if n and cell >= 20:
                body.append(tag("text", n, x=_n(x + cell / 2), y=_n(y + cell / 2 + 4), class_="cell"))
    if cell >= 9:
        for i, name in enumerate(names):
            middle = top + (i + 0.5) * cell + 4
            body.append(tag("text", _short(name, 9), x=_n(left - 6), y=_n(middle), class_="tick end"))
            x, y = left + (i + 0.5) * cell, top + k * cell + 15
            turned = {"transform": f"rotate(-45 {_n(x)} {_n(y - 4)})"} if long else {}
            body.append(
                tag("text", _short(name, 9), x=_n(x), y=_n(y), class_="tick end" if long else "tick middle", **turned)
            )
    body.append(tag("text", "predicted class", x=_n(left + k * cell / 2), y=_n(height - 4), class_="label middle"))
    turn = f"rotate(-90 12 {_n(top + k * cell / 2)})"
    body.append(tag("text", "true class", x=12, y=_n(top + k * cell / 2), class_="label middle", transform=turn))
    return _svg(alt, body, round(width), round(height))


# --- numbers ------------------------------------------------------------------------------------------------------------


def nice(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], some ``about`` of them.

    >>> nice(0, 1), nice(-3.2, 7, 3)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 5.0])
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def number(value: float) -> str:
    """A number as short as it can be read.

    >>> [number(v) for v in (0.25, 1500, 0.00001, -2.0, 1e6, 0)]
    ['0.25', '1,500', '1e−5', '−2', '1e6', '0']
    """
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    else:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        text = f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return text.replace("-", "−")


def _shown(value: float, percent: bool) -> str:
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and abs(value) < _GREATEST


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _thinned(ticks: Sequence[tuple[float, str]], most: int) -> list[tuple[float, str]]:
    """As many of the ticks as there is room for, evenly chosen."""
    step = max(1, math.ceil(len(ticks) / most))
    return list(ticks[::step])


def _within_reach(value: float, ys: Sequence[float], log: bool) -> bool:
    """Whether a line of reference is so near to the data that it does not flatten them."""
    low, high = min(ys), max(ys)
    if log:
        return low / 30 <= value <= high * 30
    reach = max(high - low, 1e-12)
    return low - reach <= value <= high + reach


def _runs(points: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """Points without a gap between them."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is not None:
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


# --- drawing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Where data lie on the paper."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float
    log: bool
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    left: float
    turned: bool
    right: float

    top: float = 10.0

    @property
    def bottom(self) -> float:
        return HEIGHT - (74.0 if self.turned else 42.0)

    @staticmethod
    def around(
        xs: Sequence[float],
        ys: Sequence[float],
        log: bool,
        percent: bool,
        whole: bool,
        ticks: Sequence[tuple[float, str]] | None,
        width: int = WIDTH,
    ) -> _Frame:
        low_x, high_x = min(xs), max(xs)
        if ticks:
            low_x, high_x = min(low_x, *[t for t, _ in ticks]), max(high_x, *[t for t, _ in ticks])
        if high_x == low_x:
            low_x, high_x = low_x - 0.5, high_x + 0.5
        low_y, high_y = min(ys), max(ys)
        if log:
            low_y, high_y = math.log10(low_y), math.log10(high_y)
            if high_y - low_y < 1:
                middle = (low_y + high_y) / 2
                low_y, high_y = middle - 0.5, middle + 0.5
            low_y, high_y = low_y - 0.05 * (high_y - low_y), high_y + 0.05 * (high_y - low_y)
            first, last = math.ceil(low_y), math.floor(high_y)
            step = max(1, math.ceil((last - first + 1) / 6))
            y_ticks = [(10.0**e, _power(10.0**e)) for e in range(first, last + 1, step)]
            if len(y_ticks) < 2:  # less than two decades: numbers between them too
                between = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
                y_ticks = [(v, number(v)) for v in between if low_y <= math.log10(v) <= high_y]
        else:
            if low_y >= 0 and low_y < 0.6 * high_y:  # from 0, where that costs little: lengths can then be compared
                low_y = 0.0
            if high_y == low_y:
                low_y, high_y = low_y - 0.5 * (abs(low_y) or 1), high_y + 0.5 * (abs(high_y) or 1)
            reach = high_y - low_y
            high_y = min(high_y + 0.05 * reach, 1.0) if percent and high_y <= 1 else high_y + 0.05 * reach
            if low_y:
                low_y -= 0.05 * reach
            y_ticks = [(v, f"{100 * v:.6g} %" if percent else number(v)) for v in nice(low_y, high_y)]
        if ticks is not None:
            x_ticks = list(ticks)
        else:
            x_ticks = [(v, number(v)) for v in nice(low_x, high_x) if not whole or v == round(v)]
        left = 34.0 + 6.4 * max((len(text) for _, text in y_ticks), default=1)
        room = (width - 14.0 - left) / max(1, len(x_ticks))
        turned = ticks is not None and any(6.2 * len(text) > room for _, text in x_ticks)
        return _Frame(low_x, high_x, low_y, high_y, log, x_ticks, y_ticks, left, turned, width - 14.0)

    def x(self, value: float) -> float:
        return self.left + (value - self.low_x) / (self.high_x - self.low_x) * (self.right - self.left - 8) + 4

    def y(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return self.bottom - (value - self.low_y) / (self.high_y - self.low_y) * (self.bottom - self.top)

    def axes(self, x_label: str, y_label: str) -> Markup:
        parts = []
        for value, text in self.y_ticks:
            y = self.y(value)
            parts.append(_stroke(self.left, y, self.right, y, "grid"))
            parts.append(tag("text", text, x=_n(self.left - 6), y=_n(y + 4), class_="tick end"))
        parts.append(_stroke(self.left, self.bottom, self.right, self.bottom, "axis"))
        for value, text in self.x_ticks:
            x = self.x(value)
            parts.append(_stroke(x, self.bottom, x, self.bottom + 3, "axis"))
            y = self.bottom + 16
            turned = {"transform": f"rotate(-45 {_n(x + 4)} {_n(y - 4)})"} if self.turned else {}
            kind = "tick end" if self.turned else "tick middle"
            shift = 4 if self.turned else 0
            parts.append(
                tag("text", _short(text, 11) if self.turned else text, x=_n(x + shift), y=_n(y), class_=kind, **turned)
            )
        middle = (self.left + self.right) / 2
        parts.append(tag("text", x_label, x=_n(middle), y=HEIGHT - 5, class_="label middle"))
        at = (self.top + self.bottom) / 2
        parts.append(tag("text", y_label, x=13, y=_n(at), class_="label middle", transform=f"rotate(-90 13 {_n(at)})"))
        return Markup("".join(parts))


def _power(value: float) -> str:
    """A power of ten, with its exponent raised.

    >>> _power(0.001), _power(1.0), _power(100.0)
    ('10⁻³', '1', '10²')
    """
    exponent = round(math.log10(value))
    if exponent in (0, 1):
        return "1" if exponent == 0 else "10"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _band(frame: _Frame, line: Line, log: bool) -> Markup:
    low, high = line.band or ((), ())
    both = [
        (x, a, b)
        for x, a, b in zip(line.x, low, high, strict=True)
        if _finite(a) and _finite(b) and (not log or (a or 0) > 0)
    ]
    upper = [(frame.x(x), frame.y(b)) for x, _, b in both if b is not None]
    lower = [(frame.x(x), frame.y(a)) for x, a, _ in reversed(both) if a is not None]
    points = " ".join(f"{_n(x)},{_n(y)}" for x, y in upper + lower)
    return tag("polygon", points=points, class_="band", style=f"fill:var(--{line.colour})")


def _marker(x: float, y: float, line: Line, spoken: str = "") -> Markup:
    """A point of a line in its form, hollow so that points under one another are seen."""
    how = {"class_": "marker", "style": f"stroke:var(--{line.colour})"}
    said = tag("title", spoken) if spoken else None
    kind = MARKERS[line.form % len(MARKERS)]
    if kind == "circle":
        return tag("circle", said, cx=_n(x), cy=_n(y), r=3, **how)
    if kind == "square":
        return tag("rect", said, x=_n(x - 2.8), y=_n(y - 2.8), width=5.6, height=5.6, **how)
    if kind == "triangle":
        corners = ((x, y - 3.6), (x + 3.4, y + 2.8), (x - 3.4, y + 2.8))
    else:
        corners = ((x, y - 3.8), (x + 3.8, y), (x, y + 3.8), (x - 3.8, y))  # type: ignore[assignment]
    return tag("polygon", said, points=" ".join(f"{_n(a)},{_n(b)}" for a, b in corners), **how)


def _stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", x1=_n(x1), y1=_n(y1), x2=_n(x2), y2=_n(y2), class_=kind)


def _svg(alt: str, body: Sequence[Markup], width: int, height: int) -> Markup:
    # viewBox is written by hand: SVG minds capitals, and tag() takes attributes as they are.
    return tag("svg", Markup("".join(body)), **{"viewBox": f"0 0 {width} {height}"}, role="img", aria_label=alt)


def _nothing(alt: str, width: int = WIDTH, height: int = 80) -> Markup:
    text = tag("text", "nothing to draw", x=width // 2, y=height // 2, class_="note middle")
    return _svg(f"{alt} (There is nothing to draw.)", [text], width, height)


def key(entries: Sequence[tuple[str, Line]]) -> Markup:
    """The lines' names, each beside a piece of its line."""
    shown = []
    for name, line in entries:
        dash = DASHES[line.form % len(DASHES)] or None
        piece = tag(
            "svg",
            tag(
                "line",
                x1=1,
                y1=7,
                x2=33,
                y2=7,
                class_="line",
                style=f"stroke:var(--{line.colour})",
                stroke_dasharray=dash,
            ),
            _marker(17, 7, line),
            **{"viewBox": "0 0 34 14"},
            aria_hidden="true",
        )
        shown.append(tag("span", piece, name))
    return tag("div", shown, class_="key")


def _figure(alt: str, body: Sequence[Markup], legend: Sequence[tuple[str, Line]], width: int = WIDTH) -> Markup:
    return Markup(_svg(alt, body, width, HEIGHT) + (key(legend) if legend else ""))
