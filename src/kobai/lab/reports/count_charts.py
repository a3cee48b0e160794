"""Charts of counts as SVG: histograms, bars, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from kobai.lab.reports.axes import Frame, around, between, named, nice, number, shortened, thinned
from kobai.lab.reports.drawing import WIDTH, at, drawable, label, nothing, picture, stroke
from kobai.lab.reports.markup import Markup, tag

SPIKE = 3.0
"""A bin this many times higher than all others is cut off, with its share written beside it."""


@dataclass(frozen=True)
class Bars:
    """One histogram: ``len(counts) + 1`` edges; filled or outlined."""

    name: str
    edges: Sequence[float]
    counts: Sequence[float]
    colour: str = "blue"
    filled: bool = True


def histogram(bars: Sequence[Bars], *, alt: str, width: int = 200, height: int = 112) -> Markup:
    """Small histograms drawn over each other on one x axis, each scaled to its highest bin.

    >>> histogram([Bars("now", [0, 0.5, 1], [3, 1])], alt="Most are small.").count("<path")
    1
    """
    seen = [b for b in bars if any(b.counts) and all(map(drawable, b.edges))]
    if not seen:
        return nothing(alt, width, height)
    axis = between(min(b.edges[0] for b in seen), max(b.edges[-1] for b in seen))
    left, right, top, bottom = 6.0, width - 6.0, 6.0, height - 22.0

    def place(value: float) -> float:
        return left + axis.share(value) * (right - left)

    body, notes = [stroke(left, bottom, right, bottom, "axis")], []
    for value in nice(axis.low, axis.high, 4):
        x = place(value)
        body.append(stroke(x, bottom, x, bottom + 3, "axis"))
        side = "start" if x < left + 12 else "end" if x > right - 12 else ""
        body.append(label(number(value), x, bottom + 15, f"tick middle {side}"))
    for b in seen:
        ordered = sorted(b.counts)
        # A bin far above all others, such as the zeros of a ReLU, is cut off so that the others stay visible.
        spike = len(ordered) > 1 and ordered[-2] > 0 and ordered[-1] > SPIKE * ordered[-2]
        most = 1.25 * ordered[-2] if spike else ordered[-1]
        # A single narrow bin, of units that all agree, is widened to stay visible.
        corners = [(place(b.edges[0]), bottom)]
        for (a, c), count in zip(pairwise(b.edges), b.counts, strict=True):
            y = bottom - min(1.0, count / most) * (bottom - top)
            x0, x1 = place(a), place(c)
            if x1 - x0 < 1.5:
                x0, x1 = (x0 + x1) / 2 - 0.75, (x0 + x1) / 2 + 0.75
            corners += [(x0, y), (x1, y)]
        corners.append((corners[-1][0], bottom))
        path = "M" + "L".join(f"{at(x)} {at(y)}" for x, y in corners)
        how = f"fill:{f'var(--{b.colour})' if b.filled else 'none'};stroke:var(--{b.colour})"
        if spike and b.filled:
            i = list(b.counts).index(ordered[-1])
            x = place((b.edges[i] + b.edges[i + 1]) / 2)
            side, shift = ("", 6) if x < (left + right) / 2 else ("end", -6)
            share = f"{100 * ordered[-1] / sum(b.counts):.0f} %"
            notes.append(label(share, x + shift, top + 9, f"note {side}"))
        body.append(tag("path", tag("title", b.name), d=path, class_="fill" if b.filled else "outline", style=how))
    return picture(alt, [*body, *notes], width, height)


def bars(names: Sequence[str], values: Sequence[float], *, alt: str, x_label: str, y_label: str) -> Markup:
    """A bar for each name.

    >>> bars(["a", "b"], [3, 5], alt="b is more.", x_label="class", y_label="samples").count("<rect")
    2
    """
    if not values or not max(values) > 0:
        return nothing(alt)
    axis = named(names)
    frame = Frame(replace(axis, ticks=thinned(axis.ticks, 14)), around([0.0, max(values)]))
    body = [frame.axes(x_label, y_label)]
    thick = min(40.0, 0.78 * (frame.right - frame.left) / len(values))
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        y = frame.y(value)
        box = {"x": at(frame.x(i) - thick / 2), "y": at(y), "width": at(thick), "height": at(max(0, frame.bottom - y))}
        body.append(tag("rect", tag("title", f"{name}: {value:,}"), **box, rx=1.5, class_="bar"))
    return picture(alt, body)


def confusion(names: Sequence[str], counts: Sequence[Sequence[int]], *, alt: str) -> Markup:
    """A confusion matrix: rows are true classes, columns predictions; the diagonal is right, mistakes stand out.

    >>> confusion(["a", "b"], [[5, 1], [0, 6]], alt="One a was taken for b.").count("<rect")
    4
    """
    k = len(names)
    cell = min(54.0, 340.0 / k)
    long = max(len(name) for name in names) > 3
    left, top = 34.0 + (48 if long else 14), 8.0
    # As wide as other charts, so that few classes are not drawn, and written, larger than all else on the page.
    width, height = max(WIDTH, left + k * cell + 10), top + k * cell + (70 if long else 40)
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
            box = {"x": at(x + 0.5), "y": at(y + 0.5), "width": at(cell - 1), "height": at(cell - 1), "rx": 2}
            how = f"fill:var(--{colour});fill-opacity:{strength:.3f}" if n else "fill:var(--line);fill-opacity:.35"
            body.append(tag("rect", tag("title", said), **box, style=how))
            if n and cell >= 20:
                body.append(label(n, x + cell / 2, y + cell / 2 + 4, "cell"))
    if cell >= 9:
        for i, name in enumerate(names):
            body.append(label(shortened(name, 9), left - 6, top + (i + 0.5) * cell + 4, "tick end"))
            x, y = left + (i + 0.5) * cell, top + k * cell + 15
            turn = (-45, x, y - 4) if long else None
            body.append(label(shortened(name, 9), x, y, "tick end" if long else "tick middle", turn))
    body.append(label("predicted class", left + k * cell / 2, height - 4, "label middle"))
    middle = top + k * cell / 2
    body.append(label("true class", 12, middle, "label middle", turn=(-90, 12, middle)))
    return picture(alt, body, round(width), round(height))
