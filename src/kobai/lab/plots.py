"""One style for all figures: colours, lines and markers by the name of a condition, sizes, files.

A condition has the same colour, line and marker in every figure. Colours are those of Okabe and Ito, which can be told apart
with every kind of colour vision ("Color universal design", 2008); lines and markers repeat the distinction for print in grey.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from kobai.errors import install

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE, GREY = "#D8C100", "#0072B2", "#D55E00", "#CC79A7", "#767676"
# Okabe and Ito's yellow, #F0E442, darkened: on white it vanishes as a line.

CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SOLID, DASHED, DOTTED, DASHDOT = "solid", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5))
LONG, DENSE = (0, (9, 2)), (0, (3, 1))
LINES: tuple[Any, ...] = (SOLID, DASHED, DASHDOT, DOTTED, LONG, DENSE, (0, (5, 1, 1, 1, 1, 1)), (0, (2, 2)))

FIXED: dict[str, tuple[str, Any, str]] = {
    # activations
    "sigmoid": (VERMILION, SOLID, "o"),
    "tanh": (PURPLE, DASHED, "s"),
    "relu": (BLUE, SOLID, "^"),
    "leaky_relu": (SKY, DASHED, "v"),
    "prelu": (GREEN, DASHDOT, "D"),
    "rrelu": (YELLOW, DOTTED, "P"),
    "elu": (ORANGE, LONG, "X"),
    "selu": (GREY, DASHED, "*"),
    "gelu": (BLACK, DENSE, "h"),
    # initialisers
    "xavier": (GREEN, DASHED, "s"),
    "lecun": (GREEN, DASHED, "s"),
    "glorot": (SKY, DASHDOT, "P"),
    "he": (BLUE, SOLID, "^"),
    "std 1": (VERMILION, SOLID, "o"),
    "std 0.1": (GREEN, DASHED, "s"),
    "std 0.01": (ORANGE, DASHDOT, "D"),
    "std 0.001": (PURPLE, DOTTED, "v"),
    "zeros": (VERMILION, SOLID, "o"),
    "constant": (ORANGE, DASHED, "D"),
    # optimisers
    "sgd": (VERMILION, SOLID, "o"),
    "momentum": (ORANGE, DASHED, "s"),
    "momentum (average)": (YELLOW, LONG, "D"),
    "nesterov": (PURPLE, DASHDOT, "v"),
    "adagrad": (GREEN, DENSE, "P"),
    "rmsprop": (SKY, DASHED, "X"),
    "adam": (BLUE, SOLID, "^"),
    # cures
    "none": (VERMILION, SOLID, "o"),
    "weight decay": (ORANGE, DASHED, "s"),
    "dropout": (SKY, DASHDOT, "^"),
    "both": (BLUE, LONG, "D"),
    "batch norm": (BLUE, SOLID, "^"),
    "without": (VERMILION, DASHED, "o"),
    # parts of the data
    "training": (BLUE, SOLID, "o"),
    "validation": (VERMILION, DASHED, "s"),
    "test": (BLACK, DOTTED, "D"),
    # searches
    "grid": (VERMILION, DASHED, "s"),
    "random": (ORANGE, DASHDOT, "D"),
    "bayesian": (BLUE, SOLID, "^"),
    "tpe": (BLUE, SOLID, "^"),
    "asha": (GREEN, DENSE, "P"),
    # models
    "mlp": (VERMILION, DASHED, "s"),
    "cnn": (BLUE, SOLID, "^"),
}
"""(colour, line, marker) of the conditions that the lab knows by name."""

TITLES = {
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "prelu": "parametric ReLU",
    "rrelu": "randomised ReLU",
    "elu": "ELU",
    "selu": "SELU",
    "gelu": "GELU",
    "xavier": "Xavier (1/√n)",
    "lecun": "LeCun (1/√n)",
    "glorot": "Glorot",
    "he": "He (√(2/n))",
    "sgd": "SGD",
    "adagrad": "AdaGrad",
    "rmsprop": "RMSprop",
    "adam": "Adam",
    "momentum": "Momentum",
    "nesterov": "Nesterov",
    "mlp": "MLP",
    "cnn": "CNN",
    "bayesian": "Bayesian",
    "tpe": "TPE",
    "asha": "ASHA",
}
"""Names of conditions as figures and findings show them, where that differs."""

FULL, HALF = 7.2, 3.6
"""Widths of figures in inches: of a page's text, and of a column."""


def title(name: str) -> str:
    """A condition's name as figures show it.

    >>> title("relu"), title("std 0.01")
    ('ReLU', 'std 0.01')
    """
    return TITLES.get(name, name)


def style(name: str, index: int = 0) -> dict[str, Any]:
    """Colour, line style and marker of a condition, as arguments of ``plot``; ``index`` picks those of unknown names.

    >>> style("relu") == style("ReLU"), style("normal(0.01)") == style("std 0.01"), style("my own", 1)["marker"]
    (True, True, 's')
    """
    key = re.sub(r"[\s_-]+", " ", re.sub(r"normal[(:]([\d.e-]+)\)?", r"std \1", name.strip().lower()))
    known = {re.sub(r"[_-]", " ", k): v for k, v in FIXED.items()}
    known |= {re.sub(r"[_-]", " ", v.lower()): FIXED[k] for k, v in TITLES.items() if k in FIXED}
    colour, line, marker = known.get(key) or [cycle[index % len(cycle)] for cycle in (CYCLE, LINES, MARKERS)]
    return {"color": colour, "linestyle": line, "marker": marker}


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A style for each condition, in different colours as long as there are enough; known names come first.

    >>> found = styles(["mine", "relu", "yours"])
    >>> len({s["color"] for s in found.values()})
    3
    """
    # Where the index makes no difference, the lab knows the name.
    found = {name: style(name) for name in names if style(name) == style(name, 1)}
    taken = {known["color"] for known in found.values()}
    free = [i for i in range(len(CYCLE)) if CYCLE[i] not in taken] + list(range(len(CYCLE)))
    for i, name in enumerate(name for name in names if name not in found):
        found[name] = style(name, free[i % len(free)])
    return {name: found[name] for name in names}


def figure(width: float = FULL, height: float = 3.0) -> Any:
    """A new ``Figure`` of ``width`` × ``height`` inches that lays out its panels itself.

    It does without pyplot: no window system, no state shared with the caller's own figures. Without matplotlib it raises
    ImportError with the install line.

    >>> figure(HALF, 2.4).get_size_inches().tolist()
    [3.6, 2.4]
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"lab: matplotlib is not installed. Install it: {install('plot')}") from error
    return Figure(figsize=(width, height), dpi=200, layout="constrained")


def panels(fig: Any, rows: int = 1, columns: int = 1, **kwargs: Any) -> Any:
    """The axes of a grid of panels, an array (rows, columns), each in the house's style."""
    axes = fig.subplots(rows, columns, squeeze=False, **kwargs)
    for ax in axes.flat:
        tidy(ax)
    return axes


def tidy(ax: Any, grid: str = "y") -> Any:
    """Two spines, faint grid lines behind the data, small type. ``grid``: ``x``, ``y``, ``both``, or empty for none."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("0.4")
    ax.tick_params(labelsize=8, color="0.4", labelcolor="0.15")
    ax.tick_params(which="minor", length=0)
    ax.xaxis.label.set_size(8.5)
    ax.yaxis.label.set_size(8.5)
    ax.title.set_size(9)
    ax.set_axisbelow(True)
    ax.grid(False)
    if grid:
        ax.grid(axis=grid, color="0.9", linewidth=0.7)
    return ax


def curve(ax: Any, x: Sequence[float], y: Sequence[float | None], name: str, **kwargs: Any) -> Any:
    """A line in its condition's style, with about ten markers however many points it has; None leaves a gap.

    Further arguments, such as ``label``, go to ``plot`` and override the style.
    """
    values = [float("nan") if value is None else value for value in y]
    options: dict[str, Any] = {
        **style(name),
        "label": title(name),
        "linewidth": 1.6,
        "markersize": 4,
        "markevery": max(1, -(-len(values) // 10)),
        **kwargs,
    }
    return ax.plot(x, values, **options)[0]


def band(ax: Any, x: Sequence[float], low: Sequence[float], high: Sequence[float], name: str, **kwargs: Any) -> Any:
    """The spread of a condition, in its colour, behind its line."""
    options = {"color": style(name)["color"], "alpha": 0.15, "linewidth": 0, **kwargs}
    return ax.fill_between(x, low, high, **options)


def end_labels(ax: Any, lines: Mapping[str, Any], gap: float = 0.075, size: float = 8) -> None:
    """Write each line's name at its right end instead of in a legend; names that would overlap are pushed apart.

    ``lines``: lines of ``plot`` by label; ``gap``: least distance of two labels, as a share of the panel's height. Call it when
    scale and limits of the axes are final.
    """
    places = []
    to_axes = ax.transData + ax.transAxes.inverted()
    for label, line in lines.items():
        points = [(x, y) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if y == y]
        if points:
            places.append([to_axes.transform(points[-1])[1], label, line])
    places.sort(key=lambda place: place[0])
    places = [[min(max(y, 0.0), 1.0), label, line] for y, label, line in places]
    for _ in range(100):  # neighbours that are too close push each other away
        for lower, upper in pairwise(places):
            lacking = gap - (upper[0] - lower[0])
            if lacking > 1e-6:
                lower[0], upper[0] = lower[0] - lacking / 2, upper[0] + lacking / 2
    look = {"xycoords": "axes fraction", "va": "center", "fontsize": size, "annotation_clip": False}
    for y, label, line in places:
        note(ax, label, (1.0, y), (5, 0), color=line.get_color(), **look)


def legend_below(fig: Any, ax: Any, columns: int | None = None, **kwargs: Any) -> Any:
    """One legend for all panels, below them; ``ax``: the panel whose lines it names."""
    lines, labels = ax.get_legend_handles_labels()
    options = {"frameon": False, "fontsize": 8, "handlelength": 2.8, "columnspacing": 1.4, **kwargs}
    return fig.legend(lines, labels, loc="outside lower center", ncols=columns or min(len(labels), 5), **options)


def plain_ticks(axis: Any) -> None:
    """Write numbers on a logarithmic axis as 0.01 and 1,000, not as powers of ten. Call it when scale and data are set."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    if low > 0 and high / low < 30:  # powers of ten alone would be one or two numbers
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def percents(axis: Any) -> None:
    """Shares on an axis as percentages."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def letter(ax: Any, text: str) -> None:
    """A panel's heading, left-aligned."""
    ax.set_title(text, loc="left", fontsize=9, color="0.1")


def note(ax: Any, text: str, at: tuple[float, float], shift: tuple[float, float] = (0, 0), **kwargs: Any) -> None:
    """Small words beside a point of the data, ``shift`` points away from it; further arguments are those of ``annotate``."""
    ax.annotate(text, at, **{"xytext": shift, "textcoords": "offset points", "fontsize": 7.5, **kwargs})


def render(fig: Any, kind: str) -> bytes:
    """A figure as the bytes of a ``png`` or ``svg`` file; equal figures give equal bytes.

    >>> render(figure(1, 1), "png")[1:4]
    b'PNG'
    """
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "kobai", "svg.fonttype": "path"}):
        fig.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return _shorter(content.getvalue()) if kind == "svg" else content.getvalue()


def _shorter(svg: bytes) -> bytes:
    """Round coordinates of paths to a hundredth of a point, 3 µm; matplotlib's six decimals take a third more space."""

    def cut(found: re.Match[bytes]) -> bytes:
        return re.sub(rb"(\.\d\d)\d+", rb"\1", found[0]).replace(b" \n", b" ")

    return re.sub(rb' d="[^"]*"', cut, svg)


def pale(colour: str, share: float = 0.45) -> tuple[float, float, float]:
    """A colour mixed with white, opaque: for areas behind a line of that colour.

    >>> pale("#000000", 0.25)
    (0.75, 0.75, 0.75)
    """
    red, green, blue = (1 - share * (1 - int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    return red, green, blue
