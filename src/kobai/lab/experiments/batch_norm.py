"""Experiment ``batch-norm``: training with and without batch normalisation over sixteen initial scales."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from kobai import nn
from kobai.lab import plots
from kobai.lab.experiments._nets import over_seeds, the_data
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.lab.training.curves import load, train_curves
from kobai.random import Generator
from kobai.xp import default_device

ARMS = {
    "without": "without batch norm",
    "before": "batch norm before the activation",
    "after": "batch norm after the activation",
}
HIDDEN = (100,) * 5
SAMPLES, BATCH, RATE = 1000, 100, 0.01
EPS, MOMENTUM = 1e-10, 0.3
"""ε must stay below the variance of the smallest scale's outputs, 10⁻⁸, or it decides what they are divided by. Running
statistics, which evaluation uses, must follow within the ten batches of an epoch.
"""
SCALES = tuple(float(scale) for scale in np.logspace(0, -4, 16))
LEARNT = 0.8
"""The training accuracy at which a net counts as having learnt."""

STYLES: dict[str, dict[str, Any]] = {
    "without": plots.style("without"),
    "before": plots.style("batch norm"),
    "after": {"color": plots.GREEN, "linestyle": plots.DASHDOT, "marker": "s"},
}


class BatchNormalisation(Experiment):
    """Sixteen nets that differ only in the standard deviation of their initial weights, each trained in three ways.

    Five hidden layers of 100 ReLU units, 1000 training images, plain SGD with learning rate 0.01, batches of 100, no bias
    initialised to anything but 0. Batch normalisation stands before or after each activation; its ε is 10⁻¹⁰ instead of
    10⁻⁵, which would be more than the variance that the smallest weights leave, and would stand in for it.

    Left: how well each net fits its training images at the end, against its initial scale. A curve that is high and flat
    is a way of training that does not care how it began; without batch normalisation only a narrow window of scales
    works, around He's √(2/100) ≈ 0.14. Right: the same runs epoch by epoch; the sooner a row turns dark, the faster that
    net learnt.
    """

    name = "batch-norm"
    title = "Batch normalisation"
    claim = "With batch normalisation, training is faster and depends less on the scale of the initial weights."
    source = "Ioffe and Szegedy, Batch normalization, 2015 (arXiv:1502.03167)"

    def run(self, settings: Settings) -> Numbers:
        epochs = 20 if settings.quick else 40
        names = {scale: f"std {scale:.2g}" for scale in SCALES}
        tasks = {(arm, names[scale]): (the_data(settings), arm, scale, epochs) for scale in SCALES for arm in ARMS}
        found = over_seeds(settings, _train, tasks, 1)
        accuracy = {arm: [np.mean(found[arm, names[scale]], axis=0).tolist() for scale in SCALES] for arm in ARMS}
        return {"scales": list(SCALES), "epochs": list(range(epochs + 1)), "accuracy": accuracy}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        epochs = numbers["epochs"][-1]
        accuracy = {arm: np.array(runs) for arm, runs in numbers["accuracy"].items()}  # (scales, epochs)
        end = {arm: runs[:, -1] for arm, runs in accuracy.items()}
        learnt = {arm: int((final >= LEARNT).sum()) for arm, final in end.items()}
        somewhere = {arm: (runs >= LEARNT).any(axis=0) for arm, runs in accuracy.items()}  # (epochs,)
        soonest = {arm: min(np.flatnonzero(reached).tolist(), default=math.inf) for arm, reached in somewhere.items()}
        n = len(numbers["scales"])
        ahead = int((accuracy["before"].mean(axis=1) > accuracy["without"].mean(axis=1)).sum())
        window = [scale for scale, final in zip(numbers["scales"], end["without"], strict=True) if final >= LEARNT]
        range_ = f" (initial scales {min(window):.2g} to {max(window):.2g})" if window else ""
        text = (
            f"After {epochs} epochs {learnt['before']} of {n} nets with batch normalisation before the activation and "
            f"{learnt['after']} of {n} with it after the activation classify at least {LEARNT:.0%} of their training "
            f"images; without it {learnt['without']} of {n} do{range_}. Over the sixteen scales the final accuracy "
            f"lies between {end['before'].min():.0%} and {end['before'].max():.0%} before the activation, "
            f"{end['after'].min():.0%} and {end['after'].max():.0%} after it, {end['without'].min():.0%} and "
            f"{end['without'].max():.0%} without: a standard deviation of {100 * end['before'].std():.0f}, "
            f"{100 * end['after'].std():.0f} and {100 * end['without'].std():.0f} points. The fastest net needs "
            f"{_epochs(soonest['before'])} with and {_epochs(soonest['without'])} without it to get to {LEARNT:.0%}; "
            f"at {ahead} of {n} scales the net with it is ahead, in the mean over the epochs."
        )
        passed = (
            min(learnt["before"], learnt["after"]) >= max(n / 3, 2 * learnt["without"])
            and max(end["before"].std(), end["after"].std()) < 0.8 * end["without"].std()
            and soonest["before"] <= soonest["without"]
            and ahead >= 0.75 * n
        )
        return text, bool(passed)

    def figure(self, numbers: Numbers) -> Any:
        fig = plots.figure(plots.FULL, 3.1)
        grid = fig.add_gridspec(1, 4, width_ratios=[2.1, 1, 1, 1])
        ax = plots.tidy(fig.add_subplot(grid[0]))
        scales, epochs = numbers["scales"], numbers["epochs"]
        for arm, label in ARMS.items():
            final = [100 * run[-1] for run in numbers["accuracy"][arm]]
            plots.curve(ax, scales, final, arm, label=label, markevery=1, **STYLES[arm])
        he = math.sqrt(2 / HIDDEN[0])
        ax.axvline(he, color="0.6", linewidth=0.8, linestyle=plots.DOTTED, zorder=0)
        plots.note(ax, "He", (he, 104), color="0.4", ha="center", va="bottom", annotation_clip=False)
        measured = f"training accuracy after {epochs[-1]} epochs (%)"
        ax.set(xscale="log", ylim=(0, 104), xlabel="initial scale (std of the weights)", ylabel=measured)
        plots.legend_below(fig, ax)
        image = None
        edges = [math.sqrt(a * b) for a, b in pairwise(scales)]
        edges = [scales[0] ** 2 / edges[0], *edges, scales[-1] ** 2 / edges[-1]]
        left = [e - 0.5 for e in epochs] + [epochs[-1] + 0.5]
        headings = ("without", "batch norm\nbefore activation", "batch norm\nafter activation")
        for i, (arm, heading) in enumerate(zip(ARMS, headings, strict=True)):
            panel = fig.add_subplot(grid[i + 1])
            values = 100 * np.array(numbers["accuracy"][arm])
            image = panel.pcolormesh(left, edges, values, cmap="cividis_r", vmin=0, vmax=100, rasterized=True)
            panel.set(yscale="log", xlabel="epoch")
            panel.set_title(heading, fontsize=8, color=STYLES[arm]["color"])
            panel.tick_params(labelsize=7.5, color="0.4", labelcolor="0.15")
            panel.xaxis.label.set_size(8.5)
            panel.spines[["top", "right", "left", "bottom"]].set_visible(False)
            panel.tick_params(labelleft=i == 0)
            panel.set_xticks(range(0, epochs[-1] + 1, epochs[-1] // 4))
        fig.axes[1].set_ylabel("initial scale", fontsize=8.5)
        bar = fig.colorbar(image, ax=fig.axes[1:], fraction=0.06, pad=0.03, aspect=30)
        bar.set_label("training accuracy (%)", fontsize=8.5)
        bar.ax.tick_params(labelsize=7.5)
        bar.outline.set_visible(False)
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        parts = []
        for arm, label in ARMS.items():
            final = [run[-1] for run in numbers["accuracy"][arm]]
            best = numbers["scales"][int(np.argmax(final))]
            parts.append(f"{label} from {min(final):.0%} to {max(final):.0%}, best at {best:.2g}")
        return (
            "Left, training accuracy at the end against the initial scale of the weights from 1 to 0.0001: "
            f"{'; '.join(parts)}. Right, three heat maps of accuracy by epoch and initial scale: almost all rows fill in with "
            "batch normalisation, a band of them without."
        )


def _train(where: tuple[Any, ...], arm: str, scale: float, epochs: int, seed: int) -> list[float]:
    """Training accuracy before training and after each epoch; a net that diverged keeps its last value."""
    data = load(*where)
    data = data.only(min(SAMPLES, len(data.train_x)))
    model = net(data.features, data.classes, arm, scale, Generator(seed=seed)).to(default_device())
    steps = len(data.train_x) // BATCH
    curves = train_curves(model, data, lr=RATE, steps=epochs * steps, batch_size=BATCH, seed=seed, measure_every=steps)
    accuracy = curves.train_accuracy
    return accuracy + [accuracy[-1]] * (epochs + 1 - len(accuracy))


def net(features: int, classes: int, arm: str, scale: float, generator: Generator) -> nn.Sequential:
    """Five hidden layers with normal weights of standard deviation ``scale``, normalised as ``arm`` says."""
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in pairwise((features, *HIDDEN)):
        normalise = [] if arm == "without" else [nn.BatchNorm1d(n_out, eps=EPS, momentum=MOMENTUM)]
        linear = nn.Linear(n_in, n_out, init=f"normal({scale})", generator=generator)
        layers += [linear, *normalise, nn.ReLU()] if arm == "before" else [linear, nn.ReLU(), *normalise]
    return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], classes, init=f"normal({scale})", generator=generator))


def _epochs(count: float) -> str:
    return f"{count} {'epoch' if count == 1 else 'epochs'}" if math.isfinite(count) else "more epochs than were run"


EXPERIMENT = BatchNormalisation()
