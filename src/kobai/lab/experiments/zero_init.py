"""``zero-init``: weights that are all equal keep the units of a layer equal for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from kobai.core.grad_mode import no_grad
from kobai.lab import plots
from kobai.lab.experiments._nets import CURVES, net, percent, the_data
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.lab.training.curves import load, train_curves
from kobai.nn.init import normal_
from kobai.random import Generator
from kobai.xp import to_host

CONDITIONS = {"zeros": "zeros", "constant": "constant(0.01)", "constant + noise": "constant(0.01)", "xavier": "xavier"}
TITLES = {
    "zeros": "all weights 0",
    "constant": "all weights 0.01",
    "constant + noise": "0.01 + N(0, 0.1²)",
    "xavier": "Xavier (1/√n)",
}
LOOKS = {
    **{name: plots.style(name) for name in CONDITIONS},
    "constant + noise": {"color": plots.BLUE, "linestyle": plots.DASHDOT, "marker": "^"},
}
NOISE = 0.1
HIDDEN, ACTIVATION = (50, 50), "sigmoid"
TRAINING: dict[str, Any] = {"lr": 0.5, "steps": 2000, "measure_every": 50}
SHOWN = 6
TOLERANCE = 1e-3
"""Singular values below this share of the greatest do not count towards the rank: rounding makes them grow slowly."""


class ZeroInit(Experiment):
    """A net of two hidden layers of 50 sigmoids is trained (plain SGD, rate 0.5, 2000 steps) from weights that are all 0,
    all 0.01, 0.01 plus noise from N(0, 0.1²), and Xavier's.

    Above, what six units of the first hidden layer weigh after training, as images: equal units stay equal, for equal units
    get equal gradients. Below left, the numerical rank of the first layer's weight matrix (singular values above a thousandth
    of the greatest): 1 for as long as the symmetry holds, so that 50 units do the work of one (0 while all weights are 0).
    Below right, what that costs, and that random weights, or noise upon the constant, cure it.

    All in float64: a product's rounding errors differ from unit to unit, and a difference of two equal units grows. In float32
    it becomes visible after a thousand steps on MNIST; nobody should count on being saved by it.
    """

    name = "zero-init"
    title = "Zero initialisation"
    claim = "From equal weights the units of a layer stay identical, rank 1; breaking the symmetry cures it."
    source = "Saitoh, Deep Learning from Scratch, ch. 6.2; Goodfellow, Bengio & Courville, Deep Learning, ch. 8.4"

    def run(self, settings: Settings) -> Numbers:
        tasks = {name: (the_data(settings), name, settings.seed) for name in CONDITIONS}
        shape = load(*the_data(settings)).input_shape
        return {"conditions": settings.map(_trained, tasks), "units": HIDDEN[0], "input_shape": shape, **TRAINING}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs = numbers["conditions"]
        equal, broken = [runs["zeros"], runs["constant"]], [runs["constant + noise"], runs["xavier"]]
        highest = [max(run["rank"]) for run in equal]
        difference = max(run["difference"][-1] for run in equal)
        worst, best = max(run["held_accuracy"][-1] for run in equal), min(run["held_accuracy"][-1] for run in broken)
        least = min(run["rank"][-1] for run in broken)
        passed = max(highest) <= 1 and least > 10 and difference < 1e-3 and best - worst > 0.2
        text = (
            f"After {numbers['steps']} steps from all weights 0 or all 0.01, the {numbers['units']} units of the first "
            f"layer {'are still the same' if difference < 1e-3 else 'differ'} (greatest difference of two units' "
            f"weights, relative to their size: {difference:.1g}) and the rank of their weight matrix was never above "
            f"{max(highest)}; on samples held out {percent(runs['zeros']['held_accuracy'][-1])} and "
            f"{percent(runs['constant']['held_accuracy'][-1])} are told right. With noise upon the constant the rank "
            f"is {runs['constant + noise']['rank'][-1]} and the accuracy "
            f"{percent(runs['constant + noise']['held_accuracy'][-1])}; with Xavier {runs['xavier']['rank'][-1]} and "
            f"{percent(runs['xavier']['held_accuracy'][-1])}."
        )
        return text, passed

    def figure(self, numbers: Numbers) -> Any:
        runs = numbers["conditions"]
        fig = plots.figure(plots.FULL, 4.4)
        above, below = fig.subfigures(2, 1, height_ratios=(1, 1.6))
        images = above.subplots(1, len(runs))
        for ax, (name, run) in zip(images, runs.items(), strict=True):
            units = np.array(run["units"]).reshape(SHOWN, *numbers["input_shape"]).mean(1)  # colours, if any, together
            framed = [np.pad(unit, 1, constant_values=np.nan) for unit in units]
            strip = np.block([framed[:3], framed[3:]])
            reach = float(np.nanmax(np.abs(strip))) or 1.0
            ax.imshow(strip, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
            ax.set_title(TITLES[name], fontsize=9, color=LOOKS[name]["color"], fontweight="bold")
            ax.set_xlabel(f"±{reach:.2g}", fontsize=7.5, color="0.3", labelpad=2)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        above.suptitle("incoming weights of six units after training (red +, blue −)", fontsize=8.5, color="0.2")
        left, right = plots.panels(below, 1, 2)[0]
        for ax, key in ((left, "rank"), (right, "held_accuracy")):
            for name, run in runs.items():
                plots.curve(ax, run["step"], run[key], name, label=TITLES[name], **LOOKS[name])
            ax.set_xlabel("training step (batch of 100)")
        left.set(ylabel="rank of the first weight matrix", ylim=(0, None))
        right.set(ylabel="held-out accuracy", ylim=(0, 1))
        plots.percents(right.yaxis)
        plots.legend_below(below, left)
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        ends = "; ".join(
            f"{TITLES[name]}: rank {run['rank'][-1]}, held-out accuracy {percent(run['held_accuracy'][-1])}"
            for name, run in numbers["conditions"].items()
        )
        return (
            "Above, the weights of six units as images, which are all alike from equal weights and differ otherwise. "
            f"Below, the rank of the first weight matrix and the held-out accuracy over the steps. At the end {ends}."
        )


def _trained(source: tuple[Any, ...], name: str, seed: int) -> Numbers:
    data = load(*source)
    data = replace(data, train_x=data.train_x.double(), held_x=data.held_x.double())
    model = net(data, HIDDEN, seed, activation=ACTIVATION, init=CONDITIONS[name]).double()
    if name == "constant + noise":
        generator = Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                noise = normal_(parameter.detach().clone(), std=NOISE, generator=generator)
                with no_grad():
                    parameter.add_(noise)
    seen: list[tuple[int, float]] = []

    def look(_: Any) -> None:
        seen.append(symmetry(to_host(model[1].weight.array)))

    curves = train_curves(model, data, seed=seed, on_measure=look, **TRAINING).as_dict()
    kept = {key: curves[key] for key in ("step", *CURVES, "diverged")}
    units = to_host(model[1].weight.array)[:SHOWN].round(5)
    return {**kept, "rank": [rank for rank, _ in seen], "difference": [apart for _, apart in seen], "units": units}


def symmetry(weights: np.ndarray[Any, Any]) -> tuple[int, float]:
    """(numerical rank of a weight matrix, greatest difference of two rows relative to the greatest row's norm).

    >>> symmetry(np.ones((3, 4)))
    (1, 0.0)
    """
    w = weights.astype(np.float64)
    singular = np.linalg.svd(w, compute_uv=False)
    rank = int((singular > TOLERANCE * singular[0]).sum()) if singular[0] > 0 else 0
    size = float(np.linalg.norm(w, axis=1).max())
    difference = float(np.linalg.norm(w - w[:1], axis=1).max())
    return rank, difference / size if size else 0.0


EXPERIMENT = ZeroInit()
