"""Experiment ``gradient-check``: backpropagation against central differences, primitive by primitive and for whole nets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

import kobai
from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.core.primitive import REGISTRY
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, float64
from kobai.gradcheck import STEP, Mismatch, worst_mismatch
from kobai.lab import plots
from kobai.lab.experiments._nets import the_data
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.lab.training.curves import load
from kobai.nn import functional as F
from kobai.random import Generator, manual_seed
from kobai.train import mlp
from kobai.xp import default_device, to_host

LIMIT = 1e-7
DOUBTFUL = 1e-8
"""An error above this is measured again with a step ten times as large: it is often rounding of the difference."""

IMAGES, PIXELS, FROM_KINKS = 12, 8, 1e-2
SWEEP = tuple(float(step) for step in 10.0 ** -np.arange(0, 11))
SHARES = 16
LINE = {"color": plots.VERMILION, "linewidth": 1.2, "linestyle": plots.DASHED}
"""The limit, in the figure."""


class GradientCheck(Experiment):
    """Every differentiable primitive of Kobai, and five whole nets on images, in float64: backpropagation against (L(x + h) −
    L(x − h)) / 2h, element by element.

    L is a random projection of the output, or the net's cross-entropy. The error of an element is |backward − difference|
    over the larger of the difference and the largest gradient of its input. h = ε^(1/3) ≈ 6·10⁻⁶; where the error is
    above 10⁻⁸, 10 h is tried as well and the better taken, for the difference has errors of its own. Rectified nets see
    images for which no unit is near its kink, where there is no derivative.

    Left: a dot for each sample of a primitive, by family; all must lie left of the line. Right: why h is what it is, for
    the first net. Too large a step and the difference is no derivative (the error grows as h²); too small, and the loss's
    last digits are rounding (it grows as 1/h).
    """

    name = "gradient-check"
    title = "Gradient check"
    claim = "Backpropagation agrees with numerical differentiation to a relative error below 1e-7."
    source = "Saitoh, Deep Learning from Scratch, ch. 5.7; Bishop, Pattern Recognition, sec. 5.3.3"

    def run(self, settings: Settings) -> Numbers:
        names = sorted(REGISTRY)
        shares = {f"primitives, part {i + 1}": (names[i::SHARES],) for i in range(SHARES)}
        primitives = [row for part in settings.map(_primitives, shares).values() for row in part]
        nets = {name: (the_data(settings), name, settings.seed) for name in NETS}
        first = next(iter(NETS))
        return {
            "limit": LIMIT,
            "primitives": sorted(primitives, key=lambda row: -row["error"]),
            "without": sorted(set(names) - {row["primitive"] for row in primitives}),
            "nets": settings.map(_net, nets),
            "sweep": {"net": first, "step": list(SWEEP), "error": _sweep(the_data(settings), first, settings.seed)},
            "step": STEP,
        }

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        rows, limit = numbers["primitives"], numbers["limit"]
        worst = rows[0]
        checked = len({row["primitive"] for row in rows})
        elements = sum(row["elements"] for row in rows) + sum(net["elements"] for net in numbers["nets"].values())
        wrong = [row for row in rows if row["error"] >= limit]
        bad = [name for name, net in numbers["nets"].items() if net["error"] >= limit]
        name, net = max(numbers["nets"].items(), key=lambda item: item[1]["error"])
        text = (
            f"{checked} primitives in {len(rows)} samples and {len(numbers['nets'])} nets, {elements:,} gradients in all: "
            f"{len(wrong)} samples and {len(bad)} nets are at or above {limit:g}. The worst element of a primitive is of "
            f"{_where(worst)}; {worst['error']:.1e} apart, backward {worst['backward']:.10g}, difference "
            f"{worst['numeric']:.10g}. The worst of a net is {net['where']} of the {name}: {net['error']:.1e} apart, backward "
            f"{net['backward']:.10g}, difference {net['numeric']:.10g}. The {len(numbers['without'])} other primitives have no "
            "gradient, as comparisons have none."
        )
        if wrong:
            text += f" Wrong: {', '.join(sorted({row['primitive'] for row in wrong}))}."
        return text, not wrong and not bad

    def figure(self, numbers: Numbers) -> Any:
        families: dict[str, list[float]] = defaultdict(list)
        for row in numbers["primitives"]:
            family = row["primitive"].rpartition(".")[0].removeprefix("ops.").replace("_", " ").strip()
            families[family].append(row["error"])
        order = sorted(families, key=lambda family: max(families[family]))
        names = [*order, *numbers["nets"]]
        fig = plots.figure(plots.FULL, 1.3 + 0.13 * len(names))
        left, right = plots.panels(fig, 1, 2, width_ratios=[1.35, 1])[0]
        self._errors(left, numbers, [families[family] for family in order], names)
        self._steps(right, numbers)
        return fig

    def _errors(self, left: Any, numbers: Numbers, families: list[list[float]], names: list[str]) -> None:
        plots.tidy(left, grid="x")
        dots = {"linestyle": "none", "marker": "o", "markersize": 3, "color": plots.BLUE, "alpha": 0.45}
        for y, found in enumerate(families):
            left.plot(np.maximum(found, 1e-13), [y] * len(found), **dots)
        for y, net in enumerate(numbers["nets"].values(), start=len(families)):
            left.plot(max(net["error"], 1e-13), y, marker="D", markersize=4.5, color=plots.ORANGE)
        left.axhline(len(families) - 0.5, color="0.7", linewidth=0.7)
        left.set_yticks(range(len(names)), labels=names, fontsize=6.5)
        left.set(xscale="log", xlim=(6e-14, 1e-6), ylim=(-0.8, len(names) - 0.2), xlabel="relative error")
        left.set_xticks([1e-13, 1e-11, 1e-9, 1e-7], labels=["≤ 10⁻¹³", "10⁻¹¹", "10⁻⁹", "10⁻⁷"])
        left.minorticks_off()
        left.axvline(numbers["limit"], **LINE)
        plots.note(left, "limit", (numbers["limit"], 0), (4, 0), fontsize=8, color=plots.VERMILION)
        plots.letter(left, "every primitive, by family, and whole nets")

    def _steps(self, right: Any, numbers: Numbers) -> None:
        sweep = numbers["sweep"]
        plots.letter(right, f"the choice of the step ({sweep['net']})")
        right.plot(sweep["step"], sweep["error"], color=plots.ORANGE, marker="D", markersize=4, linewidth=1.6)
        h = np.array(sweep["step"])
        near = {at: int(np.argmin(np.abs(h - at))) for at in (1e-9, 1e-8, 1e-2)}
        small, large = (sweep["error"][near[at]] for at in (1e-9, 1e-2))
        laws = ((large * (h / 1e-2) ** 2, "∝ h²", 1e-2, -6, "right"), (small * 1e-9 / h, "∝ 1/h", 1e-8, 6, "left"))
        for values, text, at, shift, side in laws:
            shown = (values > min(sweep["error"]) / 3) & (values < 3)
            right.plot(h[shown], values[shown], color="0.65", linewidth=0.9, linestyle=plots.DOTTED)
            plots.note(right, text, (at, values[near[at]]), (shift, -3), fontsize=8, color="0.4", ha=side)
        right.axvline(numbers["step"], color="0.5", linewidth=0.8)
        plots.note(right, "h used", (numbers["step"], 1), (4, 0), fontsize=8, color="0.35", va="top")
        right.axhline(numbers["limit"], **LINE)
        right.set(xscale="log", yscale="log", xlabel="step h of the difference", ylabel="largest relative error")

    def alt_text(self, numbers: Numbers) -> str:
        worst = numbers["primitives"][0]
        best = min(e for e in numbers["sweep"]["error"] if e is not None)
        return (
            f"Left, relative errors of {len(numbers['primitives'])} samples of primitives and {len(numbers['nets'])} nets on a "
            f"logarithmic axis; the largest is {worst['error']:.1e}, the limit 1e-7. Right, the error against the step of the "
            f"difference, shaped like a V with its lowest point at {best:.1e}."
        )


def _where(row: Numbers) -> str:
    index = f" at {tuple(row['index'])}" if row["index"] else ""
    return f"{row['primitive']} (sample {row['sample']}, argument {row['input']}{index})"


def check(function: Callable[..., Any], inputs: list[Any]) -> Mismatch:
    """The element that disagrees most; a doubtful one is measured with the better of two steps."""
    worst = worst_mismatch(function, inputs)
    if worst.error > DOUBTFUL:
        worst = min(worst, worst_mismatch(function, inputs, step=10 * STEP), key=lambda found: found.error)
    return worst


def _as_dict(worst: Mismatch) -> Numbers:
    error = worst.error if np.isfinite(worst.error) else 1e300
    gradients = {"backward": worst.backward, "numeric": worst.numeric}
    return {"error": error, "input": worst.input, "index": list(worst.index), **gradients}


def _primitives(names: list[str]) -> list[Numbers]:
    """The worst element of every sample of these primitives that has something to differentiate."""
    rows = []
    for name in names:
        for number, sample in enumerate(REGISTRY[name].samples):
            values, options = sample(np.random.default_rng(number)), {}
            if values and isinstance(values[-1], dict):
                *values, options = values
            made = [_tensor(v) for v in values]
            leaves = [x for x in made if isinstance(x, Tensor) and x.requires_grad]

            def call(*args: Any, name: str = name, options: dict[str, Any] = options) -> Tensor:
                manual_seed(7)  # those that draw masks draw the same ones
                return REGISTRY[name].op(*args, **options)

            if not leaves or not call(*made).requires_grad:
                continue
            elements = sum(x.numel() for x in leaves)
            rows.append({"primitive": name, "sample": number, "elements": elements, **_as_dict(check(call, made))})
    return rows


def _tensor(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    floating = value.dtype.kind in FLOATING
    return kobai.tensor(value, dtype=float64 if floating else None, requires_grad=floating)


# --- whole nets -------------------------------------------------------------------------------------------------------


class _Rows(nn.Module):
    """An LSTM that reads an image row by row."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(PIXELS, 6, batch_first=True)
        self.scores = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x.reshape(-1, PIXELS, PIXELS))
        scores: Tensor = self.scores(states[:, -1])
        return scores


def _convolutional(classes: int, generator: Generator) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(),
        nn.Linear(16, classes),
    )  # fmt: skip


NETS: dict[str, Callable[[int, Generator], nn.Module]] = {
    "sigmoid net": lambda classes, g: mlp(PIXELS**2, [12, 12], classes, activation="sigmoid", generator=g),
    "ReLU net": lambda classes, g: mlp(PIXELS**2, [12, 12], classes, generator=g),
    "batch-normed GELU net": lambda classes, g: mlp(
        PIXELS**2, [12, 12], classes, activation="gelu", batch_norm=True, generator=g
    ),
    "convolutional net": _convolutional,
    "LSTM": lambda classes, g: _Rows(classes),
}
"""Constructors of the nets, from the number of classes and a generator."""


def problem(source: tuple[Any, ...], name: str, seed: int) -> tuple[nn.Module, Callable[..., Tensor]]:
    """A net in float64, and its cross-entropy on a few real images as a function of (ignored) parameters."""
    data = load(*source)
    manual_seed(seed)  # layers that are given no generator draw on the default one
    net = NETS[name](data.classes, Generator(seed=seed)).to(device=default_device(), dtype=float64)
    x = F.adaptive_avg_pool2d(data.train_x[:200], PIXELS).to(float64)
    keep = _away_from_kinks(net, x)[:IMAGES]
    x, t = x[keep], data.train_t[:200][keep]
    return net, lambda *parameters: F.cross_entropy(net(x), t)


def _away_from_kinks(net: nn.Module, x: Tensor) -> list[int]:
    """The images for which no rectifier's input is within FROM_KINKS of 0; all of them for a net without rectifiers."""
    least = np.full(len(x), np.inf)
    value = x
    if isinstance(net, nn.Sequential) and any(isinstance(layer, nn.ReLU) for layer in net):
        with no_grad():
            for layer in net:
                if isinstance(layer, nn.ReLU):
                    least = np.minimum(least, np.abs(to_host(value.array)).min(axis=1))
                value = layer(value)
    return [int(i) for i in np.argsort(-least, kind="stable") if least[i] > FROM_KINKS]


def _net(source: tuple[Any, ...], name: str, seed: int) -> Numbers:
    net, loss = problem(source, name, seed)
    named = list(net.named_parameters())
    worst = check(loss, [p for _, p in named])
    where = f"{named[worst.input][0]}{list(worst.index)}"
    return {**_as_dict(worst), "where": where, "elements": sum(p.numel() for _, p in named)}


def _sweep(source: tuple[Any, ...], name: str, seed: int) -> list[float]:
    net, loss = problem(source, name, seed)
    last = list(net.parameters())[-4:]  # the outer layers, which are small
    return [worst_mismatch(loss, last, step=step).error for step in SWEEP]


EXPERIMENT = GradientCheck()
