"""``vanishing-gradient``: gradients on their way back through deep nets, by activation and depth."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai import ops
from kobai.lab import plots
from kobai.lab.experiments._nets import XAVIER, listing, net, percent, the_data
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.lab.training.curves import Curves, Data, load, train_curves
from kobai.nn import Linear, Module, functional as F
from kobai.xp import to_host

CONDITIONS = {"sigmoid": "xavier", "tanh": "xavier", "relu": "he"}
"""Activation: initialiser."""

WIDTH, DEPTH, DEPTHS = 100, 10, (2, 4, 6, 8, 10, 12)
PROBE = 500
"""Samples in the batch whose gradient is measured."""

RATE, STEPS, QUICK_STEPS = 0.1, 2000, 600


class VanishingGradient(Experiment):
    """Nets of 2 to 12 hidden layers of 100 units: sigmoid and tanh with Xavier's initialiser, ReLU with He's. For one batch
    of 500 samples, what is measured is the Frobenius norm of the loss's gradient with respect to each layer's weights.

    Above, one panel for each activation: the norm layer by layer in a net of ten hidden layers, before training and after 10,
    100 and all steps of plain SGD (rate 0.1, batches of 100); pale is early. A straight line on the logarithmic axis is a
    constant factor from layer to layer: for the sigmoid about a quarter, the greatest value of its derivative. Below left,
    the norm in the first hidden-to-hidden layer against the number of layers; below right, what comes of it. The slope is
    fitted to the layers between hidden ones, which have equal shapes.
    """

    name = "vanishing-gradient"
    title = "The vanishing gradient"
    claim = (
        "In deep sigmoid nets the gradient shrinks towards the input by a roughly constant factor for each layer, "
        "before and during training; with ReLU and He it does not."
    )
    source = "Hochreiter 1991; Glorot & Bengio, AISTATS 2010; Saitoh, Deep Learning from Scratch, ch. 6"

    def run(self, settings: Settings) -> Numbers:
        steps = QUICK_STEPS if settings.quick else STEPS
        source = the_data(settings)
        tasks = {(name, "training"): (source, name, init, settings.seed, steps) for name, init in CONDITIONS.items()}
        data, conditions = load(*source), {}
        for (name, _), run in settings.map(_trained, tasks).items():
            made = {"activation": name, "init": CONDITIONS[name]}
            by_depth = [layer_norms(net(data, [WIDTH] * depth, settings.seed, **made), data)[1] for depth in DEPTHS]
            conditions[name] = {**run, "init": made["init"], "first_by_depth": by_depth}
        return {"conditions": conditions, "depth": DEPTH, "depths": DEPTHS, "steps": steps}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs = numbers["conditions"]
        slopes = {name: [factor(norms) for norms in run["norms"]] for name, run in runs.items()}
        before = {name: found[0][0] for name, found in slopes.items()}
        factors, fits = zip(*slopes["sigmoid"], strict=True)
        kept = [value for value, _ in slopes["relu"]]
        passed = (
            0.1 < before["sigmoid"] < 0.45
            and max(factors) < 0.6
            and min(fits) > 0.95
            and all(0.7 < value < 1.4 for value in kept)
            and runs["sigmoid"]["first_by_depth"][-1] < 1e-3 * runs["relu"]["first_by_depth"][-1]
        )
        right = [f"{plots.title(name)} has {percent(run['held_accuracy'][-1])} right" for name, run in runs.items()]
        whole = {name: before[name] ** (numbers["depth"] - 2) for name in runs}
        text = (
            f"Before training each layer of sigmoids multiplies the gradient's norm by {before['sigmoid']:.2f} (a "
            f"straight line explains {percent(fits[0])} of its logarithm's variance): over the {numbers['depth'] - 2} "
            f"steps between equal layers of a net with {numbers['depth']} that is {whole['sigmoid']:.0e}. tanh has "
            f"{before['tanh']:.2f}, ReLU with He {before['relu']:.2f}. During {numbers['steps']} steps of training the "
            f"sigmoid's factor stays between {min(factors):.2f} and {max(factors):.2f}, on a line as straight "
            f"({percent(min(fits))} at least), and ReLU's between {min(kept):.2f} and {max(kept):.2f}. On samples held "
            f"out, {listing(right)}."
        )
        return text, passed

    def figure(self, numbers: Numbers) -> Any:
        runs, depth = numbers["conditions"], numbers["depth"]
        fig = plots.figure(plots.FULL, 5.0)
        above, below = fig.subfigures(2, 1, height_ratios=(1.15, 1))
        axes = plots.panels(above, 1, len(runs), sharey=True)[0]
        layers = list(range(1, depth + 2))
        for ax, (name, run) in zip(axes, runs.items(), strict=True):
            colour = plots.style(name)["color"]
            ax.set_yscale("log")
            last = len(run["moments"]) - 1
            for i, (step, norms) in enumerate(zip(run["moments"], run["norms"], strict=True)):
                line = plots.SOLID if i == last else (plots.DENSE, plots.DOTTED, plots.DASHDOT)[min(i, 2)]
                width, moment = 1.8 if i in (0, last) else 1.2, f"step {step}" if step else "before training"
                look = {"color": colour, "alpha": 0.3 + 0.7 * i / last, "linestyle": line, "linewidth": width}
                ax.plot(layers, norms, marker="o" if i == last else None, markersize=3.5, label=moment, **look)
            slope = factor(run["norms"][0])[0]
            plots.letter(ax, f"{plots.title(name)} + {plots.title(run['init']).split(' (')[0]}: × {slope:.2f} a layer")
            ax.set(xlabel="layer (1: at the input)", xticks=[1, *range(3, depth + 2, 2)])
        axes[0].set_ylabel("norm of the weights' gradient")
        plots.legend_below(above, axes[-1])
        for handle in above.legends[0].legend_handles:
            handle.set_color("0.25")
        left, right = plots.panels(below, 1, 2)[0]
        for name, run in runs.items():
            plots.curve(left, numbers["depths"], run["first_by_depth"], name, markevery=1)
            plots.curve(right, run["step"], run["held_accuracy"], name)
        left.set(yscale="log", xlabel="hidden layers", xticks=numbers["depths"], ylabel="norm in layer 2, untrained")
        right.set(xlabel="training step (batch of 100)", ylabel="held-out accuracy", ylim=(0, 1))
        plots.percents(right.yaxis)
        plots.letter(left, "the deeper, the less arrives")
        plots.letter(right, f"what {depth} hidden layers learn")
        plots.legend_below(below, left, title=XAVIER, title_fontsize=6.5)
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        parts = "; ".join(
            f"{plots.title(name)}: {run['norms'][0][1]:.1e} in layer 2, {run['norms'][0][-2]:.1e} in the last "
            "hidden layer"
            for name, run in numbers["conditions"].items()
        )
        return (
            "Above, the norm of the weights' gradient in each layer for three activations, at several moments of "
            f"training. Before training it is: {parts}. Below, the norm in the second layer against depth, and the "
            "held-out accuracy over the steps."
        )


def layer_norms(model: Module, data: Data) -> list[float]:
    """Norm of the loss's gradient with respect to each linear layer's weights, from the input on, for one fixed batch."""
    n = min(PROBE, len(data.train_x))
    model.zero_grad()
    F.cross_entropy(model(data.train_x[:n]), data.train_t[:n]).backward()
    gradients = [layer.weight.grad for layer in model.modules() if isinstance(layer, Linear)]
    norms = ops.stack([(gradient.double() ** 2).sum().sqrt() for gradient in gradients if gradient is not None])
    model.zero_grad()
    return [float(value) for value in to_host(norms.array)]


def factor(norms: list[float]) -> tuple[float, float]:
    """(factor by which the norm changes for each layer towards the input, share of the variance a straight line explains).

    Fitted to the logarithms for the layers between hidden ones; the first and the last have other shapes.

    >>> factor([9.0, 0.25, 0.5, 1.0, 2.0, 9.0])
    (0.5, 1.0)
    """
    y = np.log(np.maximum(np.array(norms[1:-1], dtype=np.float64), 1e-300))
    x = np.arange(len(y))
    slope, intercept = np.polyfit(x, y, 1)
    rest, spread = ((y - slope * x - intercept) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    return round(float(np.exp(-slope)), 6), round(float(1 - rest / spread), 6) if spread > 0 else 1.0


def _trained(source: tuple[Any, ...], activation: str, init: str, seed: int, steps: int) -> Numbers:
    """Norms by layer at some moments of training, and the curves."""
    data = load(*source)
    model = net(data, [WIDTH] * DEPTH, seed, activation=activation, init=init)
    moments = [*(step for step in (0, 10, 100) if step < steps), steps]
    norms: list[list[float]] = []

    def look(curves: Curves) -> None:
        if curves.step[-1] in moments:
            norms.append(layer_norms(model, data))

    measured = sorted({*moments, *range(0, steps, max(1, steps // 40))})
    curves = train_curves(model, data, lr=RATE, steps=steps, seed=seed, measure_every=measured, on_measure=look)
    found = curves.as_dict()
    return {
        "moments": moments,
        "norms": norms,
        **{key: found[key] for key in ("step", "train_loss", "held_accuracy", "diverged")},
    }


EXPERIMENT = VanishingGradient()
