"""What objects look like in a notebook: HTML without scripts, in the notebook's own type, in light and dark.

Text and lines take the notebook's colour. Accents have a lighter shade for dark pages, by what the reader prefers or, in
JupyterLab and Visual Studio Code, by the theme that is chosen there.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kobai.core.markup import Markup, tag

_LIGHT = "--k0:#0072b2;--k1:#d55e00;--k2:#008060;--k3:#b0508a;--k4:#806000;"
_LIGHT += "--error:#b3261e;--warning:#8a5a00;--note:#00639b;--good:#146c2e"
_DARK = "--k0:#56b4e9;--k1:#ff9d5c;--k2:#3ddbb0;--k3:#f0a0d0;--k4:#f0e442;"
_DARK += "--error:#ff8a80;--warning:#ffca58;--note:#7cc4f5;--good:#6dd58c"
STYLE = f"""
.kobai{{{_LIGHT};line-height:1.45;max-width:62em;overflow-x:auto}}
@media (prefers-color-scheme:dark){{.kobai{{{_DARK}}}}}
[data-jp-theme-light="true"] .kobai,.vscode-light .kobai{{{_LIGHT}}}
[data-jp-theme-light="false"] .kobai,.vscode-dark .kobai{{{_DARK}}}
.kobai table{{border-collapse:collapse;margin:.4em 0;color:inherit;font-size:inherit;border:0}}
.kobai th,.kobai td{{padding:.15em .8em .15em 0;text-align:left;vertical-align:top;border:0;background:none;color:inherit}}
.kobai td:first-child{{white-space:nowrap}}
.kobai thead th{{border-bottom:1px solid;font-weight:600}}
.kobai .n{{text-align:right;font-variant-numeric:tabular-nums}}
.kobai pre{{background:none;color:inherit;margin:.3em 0;padding:.3em .7em;border-left:3px solid}}
.kobai pre{{overflow-x:auto;font-size:.92em;line-height:1.4}}
.kobai .quiet{{opacity:.72}}
.kobai .error{{color:var(--error)}}.kobai .warning{{color:var(--warning)}}
.kobai .note{{color:var(--note)}}.kobai .good{{color:var(--good)}}
.kobai .best td{{font-weight:600}}
.kobai svg{{max-width:100%;height:auto;margin:.2em 1em .2em 0}}
.kobai svg text{{fill:currentColor;font-size:11px}}
.kobai progress{{width:16em;vertical-align:middle;accent-color:var(--k0)}}
"""

COLOURS = 5


def frame(*children: Any) -> str:
    """The HTML of an object: its parts, with the style that they share."""
    return tag("div", tag("style", Markup(STYLE)), *children, class_="kobai")


def table(
    header: Sequence[Any], rows: Iterable[Sequence[Any]], numeric: Iterable[int] = (), best: int | None = None
) -> Markup:
    """A table; ``numeric`` columns are right-aligned, the row ``best`` stands out."""
    right = set(numeric)

    def row(cells: Sequence[Any], kind: str, **how: Any) -> Markup:
        return tag("tr", [tag(kind, cell, class_="n" if i in right else None) for i, cell in enumerate(cells)], **how)

    body = [row(cells, "td", class_="best" if i == best else None) for i, cells in enumerate(rows)]
    return tag("table", tag("thead", row(header, "th")) if header else None, tag("tbody", body))


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    across: str = "epoch",
    width: int = 330,
    legend: bool = True,
) -> Markup:
    """A chart of lines by name, each of values over positions. Values that are not finite are gaps.

    Without a ``legend`` the names are beside the colours elsewhere, see :func:`swatch`.
    """
    height, left, right, top, bottom = 190, 56, 10, 24, 34
    points = [(x, y) for xs, ys in lines.values() for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    if not points:
        return Markup()
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points, strict=True))
    x1, y1 = x1 + (x0 == x1), y1 + (y0 == y1) * (abs(y0) or 1)

    def place(x: float, y: float) -> str:
        across, up = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
        return f"{left + across * (width - left - right):.1f},{height - bottom - up * (height - top - bottom):.1f}"

    def text(content: str, x: float, y: float, anchor: str = "start", **how: Any) -> Markup:
        return tag("text", content, x=f"{x:.0f}", y=f"{y:.0f}", text_anchor=anchor, **how)

    floor = height - bottom
    parts = [
        tag("path", d=f"M{left} {top}V{floor}H{width - right}", fill="none", stroke="currentColor", opacity="0.5"),
        text(title, left, 13, font_weight="600"),
        text(f"{y1:.3g}", left - 5, top + 9, "end"),
        text(f"{y0:.3g}", left - 5, floor, "end"),
        text(f"{x0:g}", left, floor + 14),
        text(f"{x1:g}", width - right, floor + 14, "end"),
        text(across, (left + width - right) / 2, floor + 14, "middle"),
    ]
    for i, (name, (xs, ys)) in enumerate(lines.items()):
        how = {"stroke": f"var(--k{i % COLOURS})", "stroke_dasharray": ("", "5 3", "2 2", "8 3 2 3")[i % 4] or None}
        runs: list[list[str]] = [[]]
        for x, y in zip(xs, ys, strict=True):
            if math.isfinite(y):
                runs[-1].append(place(x, y))
            elif runs[-1]:
                runs.append([])
        path = "".join(f"M{run[0]}" + "".join(f"L{at}" for at in run[1:] or run) for run in runs if run)
        said = tag("title", f"{name}: {ys[-1]:.4g} at the end")
        parts.append(tag("path", said, d=path, fill="none", stroke_width="1.8", stroke_linecap="round", **how))
        if legend and len(lines) > 1:
            at = left + 8 + i * (width - left - right) / len(lines)
            parts.append(tag("path", d=f"M{at:.0f} {height - 7}h18", fill="none", stroke_width="1.8", **how))
            room = int((width - left - right) / len(lines) - 26) // 6  # of letters
            parts.append(text(name if len(name) <= room else f"{name[: room - 1]}…", at + 22, height - 3))
    spoken = f"{title} by {across}: " + ", ".join(f"{name} ends at {ys[-1]:.4g}" for name, (_, ys) in lines.items())
    return tag("svg", parts, viewBox=f"0 0 {width} {height}", width=width, height=height, role="img", aria_label=spoken)


def swatch(i: int) -> Markup:
    """The colour of a chart's line."""
    return tag("span", "●", style=f"color:var(--k{i})") if i < COLOURS else Markup()


def in_notebook() -> bool:
    """Whether this program runs in a kernel of Jupyter, whose front end shows HTML."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


def looked_at() -> bool:
    """Whether a person looks at what is shown: a notebook or a terminal, neither a test nor continuous integration."""
    if "PYTEST_CURRENT_TEST" in os.environ or os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    return in_notebook() or bool(getattr(sys.stdout, "isatty", lambda: False)())
