"""SVG building blocks of charts, in the colours of their page: light, dark or printed.

Colours are those of Okabe and Ito, as in :mod:`kobai.lab.plots`; the page has a lighter shade of each for dark mode. Dashes and
markers repeat what colours say. Every chart has a text alternative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from kobai.lab.reports.markup import Markup, tag

MARKERS = ("circle", "square", "triangle", "diamond")
CORNERS = {
    "triangle": ((0.0, -3.6), (3.4, 2.8), (-3.4, 2.8)),
    "diamond": ((0.0, -3.8), (3.8, 0.0), (0.0, 3.8), (-3.8, 0.0)),
}

WIDTH, HEIGHT = 400, 260
"""Of a chart, in the units of its type: a narrow chart is drawn narrow, so that its type stays legible."""

GREATEST = 1e100
"""Larger values are left out, as infinity is: the arithmetic of axes would overflow."""


def drawable(value: float | None) -> TypeGuard[float]:
    """Whether a value can be drawn."""
    return value is not None and abs(value) < GREATEST


def at(value: float) -> str:
    """A coordinate, to a tenth.

    >>> at(3.04), at(0.25)
    ('3', '0.2')
    """
    return f"{value:.1f}".removesuffix(".0")


def stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return tag("line", x1=at(x1), y1=at(y1), x2=at(x2), y2=at(y2), class_=kind)


def label(text: Any, x: float, y: float, kind: str, turn: tuple[float, float, float] | None = None) -> Markup:
    """Text at (x, y); ``turn``: rotated by (degrees, about x, y)."""
    turned = {"transform": f"rotate({' '.join(map(at, turn))})"} if turn is not None else {}
    return tag("text", text, x=at(x), y=at(y), class_=kind.strip(), **turned)


def marker(x: float, y: float, colour: str, form: int, spoken: str = "", size: float = 1.0) -> Markup:
    """A marker, hollow so that overlapping ones are seen; ``spoken`` is its tooltip."""
    how = {"class_": "marker", "style": f"stroke:var(--{colour})"}
    said = tag("title", spoken) if spoken else None
    kind = MARKERS[form % len(MARKERS)]
    if kind == "circle":
        return tag("circle", said, cx=at(x), cy=at(y), r=f"{3 * size:g}", **how)
    if kind == "square":
        side = f"{5.6 * size:g}"
        return tag("rect", said, x=at(x - 2.8 * size), y=at(y - 2.8 * size), width=side, height=side, **how)
    return tag("polygon", said, points=path([(x + a * size, y + b * size) for a, b in CORNERS[kind]]), **how)


def path(points: Sequence[tuple[float, float]]) -> str:
    """Points as an attribute of a polyline or polygon."""
    return " ".join(f"{at(x)},{at(y)}" for x, y in points)


def picture(alt: str, body: Sequence[Markup], width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """A whole drawing; ``alt`` says in words what it shows."""
    return tag("svg", *body, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=alt)


def key(entries: Sequence[tuple[Markup, Any]]) -> Markup:
    """A legend of (sample, name)."""
    return tag("div", [tag("span", *entry) for entry in entries], class_="key")


def nothing(alt: str, width: float = WIDTH, height: float = 80) -> Markup:
    """The placeholder for a drawing without data."""
    text = label("nothing to draw", width // 2, height // 2, "note middle")
    return picture(f"{alt} (There is nothing to draw.)", [text], width, height)
