"""Pictures of a search: its history, its trials as parallel coordinates, and which settings mattered."""

from __future__ import annotations

import math
import random
from typing import Any

from kobai.lab import plots
from kobai.lab.reports.axes import Axis, between, whole_percent, wide
from kobai.lab.sweep.tune_plan import Trial
from kobai.lab.sweep.values import spelt_out

Search = Any
"""``kobai.lab.sweep.tune_result.Search``, whose file imports this one."""

MAP = "viridis_r"
"""Dark is good, which every kind of colour vision sees, and a print in grey shows."""


def figures(search: Search) -> dict[str, Any]:
    """The figures that can be drawn of these trials, by name."""
    found = {}
    if any(t.value is not None for t in search.of("complete", "pruned")):
        found["history"] = history(search)
    if len(_scored(search)) >= 2:
        found["parallel"] = parallel(search)
    if shares := search.importances():
        found["importance"] = importance(search, shares)
    return found


def alt_texts(search: Search) -> dict[str, str]:
    """What the figures show, for readers who cannot see them."""
    if search.best is None or search.best.value is None:
        return {}
    best, score = search.best, search.plan.score
    drawn = f"Each complete trial as a line through its settings to its {score}."
    texts = {
        "history": f"The {score} of each trial, and the best so far; trial {best.number} has the best, {best.value:.4f}.",
        "parallel": f"{drawn} The best: {spelt_out(best.parameters)}.",
    }
    if shares := search.importances():
        listed = ", ".join(f"{name.replace('_', ' ')} {whole_percent(part)}" for name, part in shares.items())
        texts["importance"] = f"Importance of each setting: {listed}."
    return texts


def history(search: Search) -> Any:
    """Each trial's score by its number, and the best so far as a staircase."""
    fig = plots.figure(plots.HALF * 1.35, 2.7)
    ax = plots.panels(fig)[0][0]
    complete, pruned = _scored(search), [t for t in search.of("pruned") if t.value is not None]
    better = max if search.plan.greatest else min
    if pruned:
        numbers, values = [t.number for t in pruned], [_number(t) for t in pruned]
        ax.plot(numbers, values, "x", markersize=4, color=plots.GREY, label="pruned, where it ended")
    if complete:
        numbers, values = [t.number for t in complete], [_number(t) for t in complete]
        ax.plot(numbers, values, "o", markersize=4, color=plots.SKY, label="complete")
        best, stairs = values[0], []
        for value in values:
            best = better(best, value)
            stairs.append(best)
        last = max(t.number for t in [*complete, *pruned])
        ax.step([*numbers, last], [*stairs, best], where="post", color=plots.BLUE, linewidth=1.6, label="best so far")
    ax.set_xlabel("trial")
    ax.set_ylabel(search.plan.score)
    if search.plan.greatest:
        ax.set_ylim(top=1.02)
    elif wide([_number(t) for t in complete]):
        ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    plots.legend_below(fig, ax, columns=3)
    return fig


def parallel(search: Search) -> Any:
    """One axis for each setting and one for the score; a line for each trial, the darker the better its rank."""
    from matplotlib import colormaps

    plan, complete, best = search.plan, _scored(search), search.best
    pruned = [t for t in search.of("pruned") if t.value is not None]
    sign = 1 if search.plan.greatest else -1
    complete.sort(key=lambda t: sign * _number(t))
    axes = {name: plan.axis(name) for name in plan.space}
    values = [_number(t) for t in [*complete, *pruned]]
    score = between(min(values), max(values))
    fig = plots.figure(min(plots.FULL, 2.2 + 1.25 * len(axes)), 3.1)
    ax = fig.subplots()
    jitter = random.Random(0)
    for i, trial in enumerate([*pruned, *complete]):
        heights = [*plan.shares(trial.parameters, jitter), score.share(_number(trial))]
        # By rank, not by score: one trial that went wrong would take all the colours.
        rank = (i - len(pruned) + 1) / len(complete)
        mine, ended = best is not None and trial.number == best.number, trial.state == "pruned"
        ax.plot(
            range(len(heights)),
            heights,
            color=plots.VERMILION if mine else "0.82" if ended else colormaps[MAP](0.05 + 0.95 * rank),
            linewidth=2.4 if mine else 0.7 if ended else 1.1,
            zorder=3 if mine else 1.5 if ended else 2,
            marker="o" if mine else None,
            markersize=5,
        )
    for i, axis in enumerate([*axes.values(), score]):
        _upright(ax, i, axis)
    ax.set_xticks(range(len(axes) + 1), [*(name.replace("_", "\n") for name in axes), plan.score.replace(" ", "\n")])
    ax.tick_params(axis="x", length=0, labelsize=8.5, pad=6)
    ax.set_yticks([])
    ax.set_xlim(-0.42, len(axes) + 0.06)
    ax.set_ylim(-0.04, 1.04)
    ax.spines[:].set_visible(False)
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=plots.VERMILION, linewidth=2.4, marker="o", markersize=5, label="best trial"),
        Line2D([], [], color=colormaps[MAP](1.0), linewidth=1.4, label="good rank"),
        Line2D([], [], color=colormaps[MAP](0.1), linewidth=1.4, label="bad rank"),
    ]
    if pruned:
        entries.append(Line2D([], [], color="0.7", linewidth=0.9, label="pruned"))
    fig.legend(handles=entries, loc="outside lower center", ncols=len(entries), frameon=False, fontsize=8)
    return fig


def _upright(ax: Any, x: int, axis: Axis) -> None:
    """The axis of a setting or of the score, with its numbers to the left."""
    ax.axvline(x, color="0.35", linewidth=0.9, zorder=1)
    for value, text in axis.ticks:
        height = axis.share(value)
        ax.plot([x - 0.02, x], [height, height], color="0.35", linewidth=0.9, zorder=4)
        ax.annotate(
            text,
            (x, height),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7.5,
            color="0.1",
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
        )


def importance(search: Search, shares: dict[str, float]) -> Any:
    """A bar for each setting, the most important on top."""
    names = sorted(shares, key=lambda name: shares[name])
    fig = plots.figure(plots.HALF * 1.2, 0.75 + 0.32 * len(names))
    ax = plots.tidy(fig.subplots(), grid="")
    bars = ax.barh(range(len(names)), [shares[name] for name in names], color=plots.BLUE, height=0.62)
    ax.bar_label(bars, [whole_percent(shares[name]) for name in names], padding=4, fontsize=8)
    ax.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, max(shares.values()) * 1.15)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    ax.set_xlabel("share in what sets the best tenth of the trials apart")
    return fig


def _scored(search: Search) -> list[Trial]:
    return [t for t in search.complete if t.value is not None and set(t.parameters) == set(search.plan.space)]


def _number(trial: Trial) -> float:
    return math.nan if trial.value is None else trial.value
