"""Pieces of charts as SVG, in the colours of the page they stand in: light or dark, on paper or a phone.

Colours are those of Okabe and Ito, as in :mod:`kobai.lab.plots`; the page gives each a lighter shade where it is dark. What a
colour says, the form of the line and its marker say as well. Every chart carries its text for those who do not see it.
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
"""Of a chart, in units of its type: what is shown narrow is drawn narrow, so that type stays legible."""

GREATEST = 1e100
"""What is larger is drawn no more than infinity is: the arithmetic of axes would overflow."""


def drawable(value: float | None) -> TypeGuard[float]:
    """Whether a number has a place on paper."""
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
    """Words at a place; ``turn``: (degrees, around x, y)."""
    turned = {"transform": f"rotate({' '.join(map(at, turn))})"} if turn is not None else {}
    return tag("text", text, x=at(x), y=at(y), class_=kind.strip(), **turned)


def marker(x: float, y: float, colour: str, form: int, spoken: str = "", size: float = 1.0) -> Markup:
    """A point in its form, hollow so that points under one another are seen; ``spoken`` is shown where it is pointed at."""
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
    """Points as a polyline or polygon has them."""
    return " ".join(f"{at(x)},{at(y)}" for x, y in points)


def picture(alt: str, body: Sequence[Markup], width: float = WIDTH, height: float = HEIGHT) -> Markup:
    """A whole drawing; ``alt`` says in words what it shows."""
    return tag("svg", *body, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=alt)


def key(entries: Sequence[tuple[Markup, Any]]) -> Markup:
    """A legend: (what it looks like, what it is)."""
    return tag("div", [tag("span", *entry) for entry in entries], class_="key")


def nothing(alt: str, width: float = WIDTH, height: float = 80) -> Markup:
    """What stands in the place of a drawing without data."""
    text = label("nothing to draw", width // 2, height // 2, "note middle")
    return picture(f"{alt} (There is nothing to draw.)", [text], width, height)
