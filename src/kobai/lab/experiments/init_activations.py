"""``init-activations``: what five hidden layers make of random inputs, by activation and initialiser."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.lab import plots
from kobai.lab.experiments._nets import INITS as NAMES, XAVIER, percent
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.nn.init import by_name
from kobai.random import Generator
from kobai.train.activations import ACTIVATIONS as MODULES
from kobai.xp import to_host

ACTIVATIONS, INITS = ("sigmoid", "tanh", "relu"), ("std 1", "std 0.01", "xavier", "he")
LAYERS, WIDTH, SAMPLES, BINS = 5, 100, 1000, 50
RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, 3.0)}
CENTRES = {"sigmoid": 0.5, "tanh": 0.0, "relu": 0.0}
"""The output of a unit whose input is 0."""


class InitActivations(Experiment):
    """A thousand samples of 100 numbers from N(0, 1) go through five layers of 100 units without bias, for each activation
    and each initialiser: N(0, 1), N(0, 0.01²), Xavier (1/√n) and He (√(2/n)). No training: this is the first forward pass.

    Each panel holds the histograms of the five layers, the first layer on top, each scaled to its own peak (a rectifier's to
    that of the numbers which are not 0); at the right their standard deviation. Mass at the ends of a sigmoid or tanh means
    saturation: derivatives near 0, no gradient. All mass in one place means that the units of a layer say the same, whatever
    the input: the net has the expressive power of very few. What is wanted is spread that lasts through all layers: Xavier's
    for tanh, He's for ReLU, which cuts half away.

    A histogram does not tell whether the samples are spread or the units. So the claim is measured on the standard deviation
    over the samples alone, unit by unit (``signal``, the mean of the units'): what sets the samples apart. Where histograms
    grow lumps the units differ, but each says nearly the same to every sample. That is so for sigmoids, whose histogram stays
    wide with Xavier: their mean is 0.5, not 0, and their derivative at most 0.25.
    """

    name = "init-activations"
    title = "Activations through depth at initialisation"
    claim = (
        "With std 1 sigmoids saturate at 0 and 1, with std 0.01 all activations collapse to one value; Xavier keeps what sets "
        "samples apart in tanh, He in ReLU, and sigmoids lose it with both."
    )
    source = "Saitoh, Deep Learning from Scratch, ch. 6.2; Glorot & Bengio, AISTATS 2010; He et al., arXiv:1502.01852"

    def run(self, settings: Settings) -> Numbers:
        found = {f"{a} + {init}": _forward(a, init, settings.seed) for a in ACTIVATIONS for init in INITS}
        return {"conditions": found, "layers": LAYERS, "width": WIDTH, "samples": SAMPLES}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs = numbers["conditions"]

        def spread(activation: str, init: str, layer: int = -1) -> float:
            return float(runs[f"{activation} + {init}"]["layers"][layer]["std"])

        def kept(activation: str, init: str) -> float:
            layers = runs[f"{activation} + {init}"]["layers"]
            return float(layers[-1]["signal"] / layers[0]["signal"])

        ends = runs["sigmoid + std 1"]["layers"][-1]["ends"]
        centre = {a: min(layer["centre"] for layer in runs[f"{a} + std 0.01"]["layers"][1:]) for a in ACTIVATIONS}
        sigmoid_xavier, sigmoid_small = spread("sigmoid", "xavier"), spread("sigmoid", "std 0.01")
        passed = (
            ends > 0.5
            and all(share > 0.9 for share in centre.values())
            and sigmoid_xavier > 5 * sigmoid_small
            and kept("tanh", "xavier") > 0.4
            and 0.4 < kept("relu", "he") < 1.6
            and kept("relu", "xavier") < 0.5 * kept("relu", "he")
            and max(kept("sigmoid", "xavier"), kept("sigmoid", "he")) < 0.05
            and max(kept(activation, "std 0.01") for activation in ACTIVATIONS) < 0.01
        )
        text = (
            f"With std 1, {percent(ends)} of the fifth layer's sigmoids lie within 0.05 of 0 or 1. With std 0.01, from "
            f"the second layer on at least {percent(centre['sigmoid'])} of the sigmoids lie within 0.05 of 0.5, and of "
            f"tanh and ReLU {percent(centre['tanh'])} and {percent(centre['relu'])} within 0.05 of 0. Of what sets the "
            "samples apart in the first layer (the spread over samples, unit by unit) five layers leave tanh "
            f"{percent(kept('tanh', 'xavier'))} with Xavier, ReLU {percent(kept('relu', 'he'))} with He and "
            f"{percent(kept('relu', 'xavier'))} with Xavier, and sigmoids {percent(kept('sigmoid', 'xavier'))} with "
            f"Xavier and {percent(kept('sigmoid', 'he'))} with He, although with Xavier their units still differ: over "
            f"units and samples the standard deviation is {sigmoid_xavier:.2g}, {sigmoid_xavier / sigmoid_small:.0f} "
            "times that with std 0.01."
        )
        return text, passed

    def figure(self, numbers: Numbers) -> Any:
        runs = numbers["conditions"]
        fig = plots.figure(plots.FULL, 5.6)
        axes = plots.panels(fig, len(ACTIVATIONS), len(INITS))
        small = {"fontsize": 6.5, "ha": "left", "color": "0.35"}
        for row, activation in zip(axes, ACTIVATIONS, strict=True):
            low, high = RANGES[activation]
            for ax, init in zip(row, INITS, strict=True):
                run = runs[f"{activation} + {init}"]
                plots.tidy(ax, grid="")
                ax.spines[["left"]].set_visible(False)
                count, margin, colour = len(run["layers"]), 0.04 * (high - low), plots.style(init)["color"]
                fill = {"fill": True, "facecolor": plots.pale(colour), "edgecolor": colour, "linewidth": 0.8}
                for i, layer in enumerate(run["layers"]):
                    base, peak = float(count - 1 - i), _peak(activation, layer["counts"])
                    top = [base + 0.92 * min(n / peak, 1.0) for n in layer["counts"]]
                    ax.stairs(top, run["edges"], baseline=base, zorder=3 + i, **fill)
                    ax.text(1.0, base + 0.08, _short(layer["std"]), transform=ax.get_yaxis_transform(), **small)
                ax.set(xlim=(low - margin, high + margin), ylim=(-0.02, count), xticks=[low, (low + high) / 2, high])
                ax.set_yticks([count - 1 - i + 0.1 for i in range(count)], range(1, count + 1))
                ax.tick_params(axis="y", length=0, labelleft=ax is row[0])
                beyond = "+" if high == 3 else ""
                ax.xaxis.set_major_formatter(lambda v, _, top=high, sign=beyond: f"{v:g}{sign if v == top else ''}")
                if activation == ACTIVATIONS[0]:
                    ax.set_title(plots.title(init), fontsize=9, color=colour, fontweight="bold")
            row[0].set_ylabel(f"{plots.title(activation)}\nlayer")
        axes[0, -1].text(1.0, 1.0, "std", transform=axes[0, -1].transAxes, style="italic", **small)
        fig.supxlabel(f"output of a unit.  {XAVIER}", fontsize=7.5)
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        stds = "; ".join(
            f"{name}: " + ", ".join(f"{layer['std']:.2g}" for layer in run["layers"])
            for name, run in numbers["conditions"].items()
        )
        return (
            "Histograms of the outputs of five layers, one panel for each of three activations and four initialisers. "
            f"Standard deviations from the first layer to the fifth: {stds}."
        )


def _peak(activation: str, counts: list[int]) -> int:
    """The count drawn at full height; for a rectifier that of the outputs above 0, if there are many."""
    inner = max(counts[1:-1]) if activation == "relu" else 0
    return inner if inner > 0.01 * sum(counts) else max(counts)


def _short(value: float) -> str:
    """Two digits, without an exponent where it can be.

    >>> _short(0.4567), _short(2400.1), _short(1.8e-6)
    ('0.46', '2400', '2e-6')
    """
    if value >= 100:
        return f"{float(f'{value:.2g}'):.0f}"
    return f"{value:.2g}" if value >= 0.001 else f"{value:.0e}".replace("e-0", "e-")


def _forward(activation: str, init: str, seed: int) -> Numbers:
    drawn = np.random.default_rng([seed, 3]).standard_normal((SAMPLES, WIDTH))
    x = kobai.tensor(drawn, dtype=kobai.float32)
    generator, fill = Generator().manual_seed(seed), by_name(NAMES[init])
    low, high = RANGES[activation]
    edges = np.linspace(low, high, BINS + 1)
    layers = []
    with no_grad():
        for _ in range(LAYERS):
            linear = nn.Linear(WIDTH, WIDTH, bias=False).to(x.device)
            fill(linear.weight, generator=generator)
            x = MODULES[activation]()(linear(x))
            values = to_host(x.array).astype(np.float64)
            counts, _ = np.histogram(np.clip(values, low, high), edges)  # what lies beyond is counted in the last bin
            near = np.abs(values - CENTRES[activation]) < 0.05
            beyond = (values < low + 0.05) | (values > high - 0.05)
            spread = {"mean": values.mean(), "std": values.std(), "signal": values.std(0).mean()}
            layers.append({"counts": counts, **spread, "centre": near.mean(), "ends": beyond.mean()})
    return {"edges": edges, "layers": layers}


EXPERIMENT = InitActivations()
