"""The figure of ``kobai bench``: time of a step by batch size and by width, a line for each backend and mode."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kobai.bench.timing import CAPTURED, EAGER, SWEEPS, Timing, win
from kobai.core.files import write_atomically
from kobai.errors import install

# Okabe and Ito's blue and vermilion, which every kind of colour vision tells apart; the lines differ in form too.
BLUE, VERMILION, DASHED = "#0072B2", "#D55E00", (0, (4, 2))
LOOKS: dict[tuple[str, str], dict[str, Any]] = {
    ("numpy", EAGER): {"color": BLUE, "linestyle": DASHED, "marker": "o", "markerfacecolor": "white"},
    ("numpy", CAPTURED): {"color": BLUE, "linestyle": "solid", "marker": "s", "markerfacecolor": BLUE},
    ("cupy", EAGER): {"color": VERMILION, "linestyle": DASHED, "marker": "^", "markerfacecolor": "white"},
    ("cupy", CAPTURED): {"color": VERMILION, "linestyle": "solid", "marker": "D", "markerfacecolor": VERMILION},
}
AXES = {"batch size": "batch size (samples)", "width": "width of every hidden layer (units)"}


def picture(timings: Sequence[Timing], title: str, fixed: dict[str, str], stem: str | Path) -> list[Path]:
    """Draw ``stem.png`` and ``stem.svg``; returns their paths.

    Args:
        timings: what :func:`kobai.bench.measure` gave, at least one of them successful.
        title: stands above the panels.
        fixed: what was kept constant in each sweep, stands above its panel.

    Raises ImportError, with the install line, without matplotlib, and ValueError where nothing was measured.
    """
    sweeps = [sweep for sweep in SWEEPS if any(t.sweep == sweep and t.median is not None for t in timings)]
    if not sweeps:
        raise ValueError("picture: nothing was measured")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"picture: matplotlib is not installed. Install it: {install('plot')}") from error

    # Figure without pyplot: no window system, no state shared with the caller's own figures.
    figure = Figure(figsize=(5.2 * len(sweeps), 4.4), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, len(sweeps), squeeze=False, sharey=True)[0]
    for panel, sweep in zip(panels, sweeps, strict=True):
        _panel(panel, [timing for timing in timings if timing.sweep == sweep], sweep, fixed.get(sweep, ""))
    panels[0].set_ylabel("time of one training step")
    legend = {"ncols": 4, "frameon": False, "fontsize": 9, "title": "median; band: quartiles", "title_fontsize": 8}
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", **legend)
    paths = []
    for kind in ("png", "svg"):
        content = io.BytesIO()
        figure.savefig(content, format=kind)
        path = Path(f"{stem}.{kind}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.getvalue())
        paths.append(path)
    return paths


def _panel(panel: Any, timings: list[Timing], sweep: str, fixed: str) -> None:
    from matplotlib.ticker import LogLocator

    for backend, mode in dict.fromkeys((timing.backend, timing.mode) for timing in timings):
        line = sorted(
            (t.value, t.median, *t.quartiles)
            for t in timings
            if (t.backend, t.mode) == (backend, mode) and t.median is not None and t.quartiles is not None
        )
        if line:
            values, medians, lows, highs = zip(*line, strict=True)
            look = LOOKS[backend, mode]
            panel.plot(values, medians, markersize=5, linewidth=1.6, label=f"{backend}, {mode}", **look)
            panel.fill_between(values, lows, highs, color=look["color"], alpha=0.15, linewidth=0)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    points = sorted({timing.value for timing in timings})
    panel.set_xticks(points)
    panel.set_xticks([], minor=True)
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(lambda value, _: duration(value))
    panel.yaxis.set_minor_formatter("")
    panel.set_xlabel(AXES[sweep])
    panel.set_title(fixed, fontsize=9, color="0.3")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(which="major", color="0.9", linewidth=0.8)
    panel.set_axisbelow(True)
    _mark_win(panel, timings, sweep, points)


def _mark_win(panel: Any, timings: list[Timing], sweep: str, points: list[int]) -> None:
    """Mark where the GPU starts to win."""
    at = win(timings, sweep)
    if at is None:
        return
    if at:
        panel.axvline(at, color="0.35", linestyle="dotted", linewidth=1.2)
    panel.annotate(
        f"GPU faster from {round_sum(at)} on" if at else "GPU faster everywhere",
        (at or points[0], 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=9,
        color="0.35",
    )


def duration(seconds: float) -> str:
    """Three digits and a unit.

    >>> duration(0.0000123), duration(0.00025), duration(0.0123), duration(2.0)
    ('12.3 µs', '250 µs', '12.3 ms', '2 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * size or unit == "µs":
            return f"{float(f'{seconds / size:.3g}'):g} {unit}"
    raise AssertionError


def round_sum(value: float) -> str:
    """Two digits of an interpolated number.

    >>> round_sum(183.7), round_sum(4321.0), round_sum(7.24)
    ('180', '4,300', '7.2')
    """
    two = float(f"{value:.2g}")
    return f"{two:,.0f}" if two >= 10 else f"{two:g}"
