"""``activations``: activation functions and their derivatives."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

import kobai
from kobai import nn
from kobai.lab import plots
from kobai.lab.experiments.base import Experiment, Numbers, Settings

ACTIVATIONS: dict[str, tuple[type[nn.Module], str]] = {
    "sigmoid": (nn.Sigmoid, "1/(1 + e⁻ˣ)"),
    "tanh": (nn.Tanh, "tanh x"),
    "relu": (nn.ReLU, "max(0, x)"),
    "leaky_relu": (nn.LeakyReLU, "x < 0: 0.01 x"),
    "prelu": (nn.PReLU, "x < 0: a x, a learnt"),
    "rrelu": (nn.RReLU, "x < 0: a x, a random"),
    "elu": (nn.ELU, "x < 0: eˣ − 1"),
    "gelu": (nn.GELU, "x Φ(x)"),
}
"""Class and formula, as written over its panel."""

REACH, POINTS = 6.0, 601


class Activations(Experiment):
    """Each activation is evaluated at 601 points of [−6, 6], and differentiated by Kobai's own backward pass.

    Solid, the value; dashed, the derivative, which is what a layer multiplies a gradient by on its way back. A derivative
    that is small nearly everywhere, as the sigmoid's, makes gradients vanish through depth; one that is 1 for every positive
    input, as the rectifiers', lets them pass. Where a rectifier's derivative is 0 a unit gets no gradient at all; its leaky
    relatives keep a little. The parametric one learns its slope (shown at its start, 0.25); the randomised one draws it anew
    for each number while it is trained (the band), and takes the middle of the range afterwards (the line).
    """

    name = "activations"
    title = "Activation functions"
    claim = "The sigmoid's derivative is at most 0.25, tanh's at most 1, and ReLU's is 0 or 1."
    source = (
        "Saitoh, Deep Learning from Scratch, ch. 3; Xu et al., arXiv:1505.00853; Hendrycks & Gimpel, arXiv:1606.08415"
    )

    def run(self, settings: Settings) -> Numbers:
        x = np.linspace(-REACH, REACH, POINTS)
        curves = {name: {**_evaluate(kind(), x), "formula": formula} for name, (kind, formula) in ACTIVATIONS.items()}
        peaks = {name: float(max(curve["derivative"])) for name, curve in curves.items()}
        return {"x": x, "curves": curves, "peaks": peaks, "rrelu_slopes": [nn.RReLU().lower, nn.RReLU().upper]}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        peaks, relu = numbers["peaks"], numbers["curves"]["relu"]["derivative"]
        steps = sorted({round(value, 6) for value in relu})
        above = [plots.title(name) for name, peak in peaks.items() if peak > 1.0005]
        passed = abs(peaks["sigmoid"] - 0.25) < 1e-4 and abs(peaks["tanh"] - 1) < 1e-4 and steps == [0.0, 1.0]
        text = (
            f"The sigmoid's derivative is greatest at 0, where it is {peaks['sigmoid']:.3g}: ten layers of sigmoids "
            f"multiply a gradient by at most {peaks['sigmoid']:.3g}¹⁰ = {peaks['sigmoid'] ** 10:.1g}, unless large "
            f"weights make up for it. tanh's reaches {peaks['tanh']:.3g}, also at 0 alone. ReLU's takes the values "
            f"{' and '.join(f'{value:g}' for value in steps)} and no other."
        )
        if above:
            text += f" Of the others only {', '.join(above)} exceeds 1, by a little ({max(peaks.values()):.3g})."
        return text, passed

    def figure(self, numbers: Numbers) -> Any:
        x, curves = numbers["x"], numbers["curves"]
        fig = plots.figure(plots.FULL, 3.7)
        axes = plots.panels(fig, 2, 4, sharex=True, sharey=True)
        for ax, (name, curve) in zip(axes.flat, curves.items(), strict=True):
            colour = plots.style(name)["color"]
            plots.tidy(ax, grid="")
            for line in (ax.axhline, ax.axvline):
                line(0, color="0.8", linewidth=0.8, zorder=0)
            if name == "rrelu":
                low, high = numbers["rrelu_slopes"]
                left = np.array([value for value in x if value <= 0])
                ax.fill_between(left, high * left, low * left, color=colour, alpha=0.25, linewidth=0)
                ax.fill_between(left, low, high, color="0.4", alpha=0.15, linewidth=0)
            ax.plot(x, curve["value"], color=colour, linewidth=1.8, label="value f(x)")
            for part in _pieces(x, curve["derivative"]):
                ax.plot(*part, color="0.25", linewidth=1.2, linestyle=plots.DENSE)
            plots.letter(ax, plots.title(name))
            ax.text(0.98, 0.04, curve["formula"], transform=ax.transAxes, fontsize=7, ha="right", color="0.3")
            if name in ("sigmoid", "tanh"):
                peak, height, line = numbers["peaks"][name], 0.32, None
                if name == "tanh":
                    height, line = 1.45, {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6}
                place = {"xytext": (1.6, height), "textcoords": "data", "arrowprops": line}
                plots.note(ax, f"f′ ≤ {peak:.3g}", (0, peak), color="0.25", **place)
        axes[0, 0].set(xlim=(-4.5, 4.5), ylim=(-1.5, 3.1), xticks=[-4, -2, 0, 2, 4])
        for ax in axes[1]:
            ax.set_xlabel("input x")
        for ax in axes[:, 0]:
            ax.set_ylabel("f(x), f′(x)")
        from matplotlib.lines import Line2D

        keys = [
            Line2D([], [], color="0.25", linewidth=1.8, label="value f(x), in the activation's colour"),
            Line2D([], [], color="0.25", linewidth=1.2, linestyle=plots.DENSE, label="derivative f′(x)"),
        ]
        fig.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False, fontsize=8, handlelength=3)
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        return (
            "Eight panels, one for each activation, with its value and its derivative between −4.5 and 4.5. The "
            f"sigmoid's derivative is a low bump of height {numbers['peaks']['sigmoid']:.3g}, tanh's one of height "
            f"{numbers['peaks']['tanh']:.3g}; ReLU's derivative is a step from 0 to 1, and those of its relatives are "
            "steps from a smaller value, or smooth."
        )


def _evaluate(activation: nn.Module, x: np.ndarray[Any, Any]) -> Numbers:
    """Values and derivatives, the latter by the backward pass; a randomised activation in evaluation mode."""
    activation.to(dtype=kobai.float64).eval()
    points = kobai.tensor(x, dtype=kobai.float64, requires_grad=True)
    value = activation(points)
    value.sum().backward()
    assert points.grad is not None
    return {"value": value.tolist(), "derivative": points.grad.tolist()}


def _pieces(x: list[float], y: list[float]) -> list[tuple[list[float], list[float]]]:
    """A curve cut where it jumps, so that no line is drawn across the jump."""
    cuts = [0, *(i for i in range(1, len(y)) if abs(y[i] - y[i - 1]) > 0.2), len(y)]
    return [(x[a:b], y[a:b]) for a, b in pairwise(cuts)]


EXPERIMENT = Activations()
