"""The picture of a comparison: training loss and validation accuracy, or R², by epoch, one line for each condition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kobai.lab import plots
from kobai.lab.reports.axes import wide
from kobai.lab.sweep.values import label
from kobai.train.settings import RunSettings

Comparison = Any
"""``kobai.lab.sweep.compare_result.Comparison``, whose file imports this one."""

SHOWN = 8
"""How many conditions, the best ones, are drawn in colours: nobody can tell more lines apart."""

PANELS = ("train_loss", "held_accuracy")


def figure(comparison: Comparison) -> Any:
    """The figure; its legend is in the order of the ranking."""
    ranked = [place.name for place in comparison.ranking()]
    shown, others = ranked[:SHOWN], ranked[SHOWN:]
    titles = {name: f"{i}. {', '.join(map(plots.title, name.split(', ')))}" for i, name in enumerate(shown, 1)}
    rest = [f"{len(others)} others"] * bool(others)
    looks = appearances(comparison.plan.vary, comparison.plan.conditions())
    by_name = {c.name: c for c in comparison.conditions}
    fig = plots.figure(plots.FULL, 2.7 + 0.17 * math.ceil((len(shown) + len(rest)) / 2))
    axes = plots.panels(fig, 1, 2)[0]
    shares = comparison.measure == "accuracy"
    ylabels = "training loss (nats)" if shares else "training loss (squared error)", f"validation {comparison.measure}"
    for ax, what, ylabel in zip(axes, PANELS, ylabels, strict=True):
        for i, name in enumerate(reversed(others)):
            condition = by_name[name]
            means, _, _ = summary(condition.curve(what))
            ax.plot(condition.epochs, means, color="0.8", linewidth=0.9, zorder=1, label="_" * bool(i) + rest[0])
        for name in reversed(shown):  # the best on top
            condition, look = by_name[name], looks[name]
            means, low, high = summary(condition.curve(what))
            plots.curve(ax, condition.epochs, means, name, label=titles[name], **look)
            if len(condition.runs) > 1:
                plots.band(ax, condition.epochs, low, high, name, color=look["color"])
        ax.xaxis.get_major_locator().set_params(nbins=6, steps=[1, 2, 5, 10])
        ax.set_xlabel("epoch")
        ax.set_ylabel(ylabel)
        ax.margins(x=0.02)
    losses = [v for name in shown for values in by_name[name].curve("train_loss") for v in values]
    losses = [v for v in losses if math.isfinite(v) and v > 0]
    if wide(losses):
        axes[0].set_yscale("log")
    elif losses:
        axes[0].set_ylim(bottom=0)
    if shares:
        axes[1].set_ylim(0, 1.02)
    else:  # R² begins far below 0, where nothing is to be seen
        axes[1].set_ylim(max(axes[1].get_ylim()[0], -1), 1.02)
    lines, labels = axes[0].get_legend_handles_labels()
    longest = max(map(len, [*shown, *rest]))
    columns = min(len(labels), 2 if longest > 24 else 3 if longest > 14 else 4)
    order = _by_rows([*titles.values(), *rest], columns)
    look = {"frameon": False, "fontsize": 8, "handlelength": 3.2, "columnspacing": 1.6}
    fig.legend([lines[labels.index(text)] for text in order], order, loc="outside lower center", ncols=columns, **look)
    return fig


def appearances(
    vary: Mapping[str, Sequence[Any]], conditions: Sequence[tuple[str, RunSettings]]
) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of each condition, which is (name, settings).

    With one setting, each value has its own. With several, the setting with most values determines the colour and the others
    the line, so that what belongs together looks alike.
    """
    names = [name for name, _ in conditions]
    if len(vary) == 1:
        looks = plots.styles(names)
        for i, name in enumerate(names):  # two known ones may share a kind of line, and colours alone are not enough
            used = [str(looks[other]["linestyle"]) for other in names[:i]]
            if str(looks[name]["linestyle"]) in used:
                free = [line for line in plots.LINES if str(line) not in used]
                looks[name] = {**looks[name], "linestyle": free[0] if free else looks[name]["linestyle"]}
        return looks
    leading = max(vary, key=lambda setting: (len(vary[setting]), -list(vary).index(setting)))
    colours = plots.styles([label(leading, value) for value in vary[leading]])
    rest: list[tuple[str, ...]] = []
    found = {}
    for name, settings in conditions:
        values = {s: label(s, getattr(settings, s)) for s in vary}
        other = tuple(text for s, text in values.items() if s != leading)
        if other not in rest:
            rest.append(other)
        i = rest.index(other)
        found[name] = {
            "color": colours[values[leading]]["color"],
            "linestyle": plots.LINES[i % len(plots.LINES)],
            "marker": plots.MARKERS[i % len(plots.MARKERS)],
        }
    return found


def summary(curve: Sequence[Sequence[float]]) -> tuple[list[float], list[float], list[float]]:
    """Mean, least and greatest value of the runs at each measurement: line and band.

    Where a run is not finite, there is no mean, and the band is that of the other runs.

    >>> summary([[1.0, 2.0], [math.inf, 3.0]])
    ([1.5, nan], [1.0, 3.0], [2.0, 3.0])
    """
    finite = [[v for v in values if math.isfinite(v)] for values in curve]
    return (
        [sum(f) / len(f) if f and len(f) == len(v) else math.nan for f, v in zip(finite, curve, strict=True)],
        [min(values, default=math.nan) for values in finite],
        [max(values, default=math.nan) for values in finite],
    )


def _by_rows(entries: list[str], columns: int) -> list[str]:
    """Reorder entries so that a legend, which is filled by columns, reads row by row."""
    rows = math.ceil(len(entries) / columns)
    found: list[str] = []
    for c in range(columns):
        found += [entries[r * columns + c] for r in range(rows) if r * columns + c < len(entries)]
    return found
