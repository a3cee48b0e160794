"""Experiment ``mlp-vs-cnn``: a multilayer perceptron and a convolutional net of equal size, on images and shuffled pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import kobai
from kobai import nn, ops
from kobai.core.tensor import Tensor
from kobai.errors import DataError
from kobai.lab import plots
from kobai.lab.experiments._nets import fewer, interval, listing, net as perceptron, over_seeds, percent, the_data
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.lab.training.curves import Curves, Data, accuracy, load, train_curves
from kobai.random import manual_seed
from kobai.xp import default_device

SAMPLES, TEST = 300, 1000
"""Images to train on, and test images at least."""

CHANNELS = (16, 32)
RATES, BATCH = (0.001, 0.002, 0.005), 50
STEPS, QUICK_STEPS = 500, 200
TRIED, SEEDS = 2, 8
"""Runs of each learning rate, in ``quick`` one less, and of the chosen one."""

KINDS, PIXELS = ("mlp", "cnn"), ("images", "shuffled")
TOLERANCE = 0.02
"""How far apart the numbers of parameters may be."""


class MlpVsCnn(Experiment):
    """Two nets with the same number of parameters, within 2 %, on the same images: what does it help to know what a picture is?

    The convolutional net: twice 3×3 convolution (16, then 32 channels), ReLU and 2×2 max pooling, then one linear layer.
    The multilayer perceptron: two hidden layers of ReLU units whose widths are chosen such that the numbers of parameters
    agree best. Both learn from 300 images, where what a net is built for counts most: Adam, batches of 50, 500 steps
    (``quick``: 200). The training images left over are held out.

    Both are also trained on the same images with their pixels shuffled, all images in the same way. To the perceptron
    this is nothing: pixels are a list to it, in whatever order. The convolutional net loses what it had ahead, for it
    lives by neighbouring pixels belonging together.

    Of three learning rates (0.001, 0.002, 0.005; from 0.01 on single runs of the convolutional net collapse) each of the
    four gets the one with the highest accuracy on held-out images, in the last quarter of training, the mean of two runs
    (``quick``: one). With it eight nets are trained, each time on 300 other images, the same for all four. Only these are
    shown the test images, once, at the end: the test split and, where it has less than 1000, as many training images as are
    lacking, put aside before anything else.

    Left: accuracy on held-out images by step. Right: errors on the test images at the end; each dot is a repetition.
    """

    name = "mlp-vs-cnn"
    title = "Perceptron and convolution"
    claim = "Of two nets with equally many parameters the convolutional one, which keeps the image's shape, generalises better."
    source = "Saitoh, Deep Learning from Scratch, ch. 7.2; LeCun et al., Gradient-based learning, 1998"

    def run(self, settings: Settings) -> Numbers:
        data, source = load(*the_data(settings)), the_data(settings)
        steps = QUICK_STEPS if settings.quick else STEPS
        repeats = max(SEEDS, settings.repeat)
        others = replace(settings, seed=settings.seed + repeats, repeat=1)
        long_ones_first = list(CONDITIONS)[::-1]
        rates = {
            (name, str(rate)): (source, *CONDITIONS[name], rate, steps) for name in long_ones_first for rate in RATES
        }
        held = over_seeds(others, held_accuracy, rates, TRIED - settings.quick)
        tried = {name: {rate: float(np.mean(held[name, str(rate)])) for rate in RATES} for name in CONDITIONS}
        best = {name: max(RATES, key=lambda rate: tried[name][rate]) for name in CONDITIONS}
        tasks = {name: (source, *CONDITIONS[name], best[name], steps) for name in long_ones_first}
        found = over_seeds(settings, measured, tasks, repeats)
        conditions = {
            name: {
                "step": found[name][0]["step"],
                "held_accuracy": np.mean([run["held_accuracy"] for run in found[name]], axis=0).tolist(),
                "test_accuracy": [run["test_accuracy"] for run in found[name]],
                "rate": best[name],
                "held_accuracy_by_rate": tried[name],
            }
            for name in CONDITIONS
        }
        parameters = {kind: _count(net(data, kind, 0)) for kind in KINDS}
        return {"parameters": parameters, "hidden": widths(data), "repetitions": repeats, "conditions": conditions}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs, size = numbers["conditions"], numbers["parameters"]
        test = {name: np.array(run["test_accuracy"]) for name, run in runs.items()}
        error = {name: 1 - float(right.mean()) for name, right in test.items()}
        apart = abs(size["mlp"] - size["cnn"]) / size["cnn"]
        cnn, dense = error["cnn, images"], error["mlp, images"]
        ahead = {pixels: interval(test[f"cnn, {pixels}"] - test[f"mlp, {pixels}"]) for pixels in PIXELS}
        mean, low, high = (f"{100 * v:.1f}" for v in ahead["images"])
        by_shape = ahead["shuffled"][0] < 0.5 * ahead["images"][0]
        rates = listing([f"{runs[name]['rate']:g} ({LABELS[name]})" for name in LABELS])
        text = (
            f"With {size['cnn']:,} parameters the convolutional net errs on {percent(cnn)} of the test images, the perceptron "
            f"({listing([str(n) for n in numbers['hidden']])} hidden units, {size['mlp']:,} parameters, {percent(apart)} "
            f"apart) on {percent(dense)}: {mean} points more (95 % confidence: {low} to {high}), means of "
            f"{numbers['repetitions']} repetitions. With the pixels shuffled the perceptron errs on "
            f"{percent(error['mlp, shuffled'])}, the convolutional net on {percent(error['cnn, shuffled'])}: its lead of "
            f"{mean} points, which came from the image's shape, becomes one of {100 * ahead['shuffled'][0]:.1f}. Learning "
            f"rates, chosen on images held out: {rates}."
        )
        return text, bool(apart <= TOLERANCE and ahead["images"][1] > 0 and by_shape)

    def figure(self, numbers: Numbers) -> Any:
        runs = numbers["conditions"]
        fig = plots.figure(plots.FULL, 2.9)
        left, right = plots.panels(fig, 1, 2, width_ratios=[1.5, 1])[0]
        lines = {}
        for name, run in runs.items():
            held = [100 * v for v in run["held_accuracy"]]
            lines[LABELS[name]] = plots.curve(left, run["step"], held, name, **LOOKS[name])
        least = min(min(run["held_accuracy"][len(run["step"]) // 2 :]) for run in runs.values())
        left.set(xlim=(0, None), ylim=(max(0.0, 5 * np.floor(20 * least) - 5), 100.5))
        left.set(xlabel="training step (batch of 50)", ylabel="accuracy on held-out images (%)")
        plots.end_labels(left, lines)
        for row, (name, run) in enumerate(runs.items()):
            errors, colour = [100 * (1 - v) for v in run["test_accuracy"]], LOOKS[name]["color"]
            look = {"facecolor": "white", "alpha": 1, "hatch": "////"}
            if "images" in name:
                look = {"facecolor": colour, "alpha": 0.85, "hatch": ""}
            right.barh(row, np.mean(errors), height=0.6, edgecolor=colour, linewidth=1, **look)
            right.plot(errors, [row] * len(errors), linestyle="none", marker="o", markersize=3.5, color="0.1")
        plots.tidy(right, grid="x")
        right.set_yticks(range(len(runs)), labels=[LABELS[name] for name in runs])
        right.invert_yaxis()
        right.set(xlim=(0, None), xlabel="errors on test images (%)")
        plots.letter(right, "{mlp:,} and {cnn:,} parameters".format_map(numbers["parameters"]))
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        errors = ", ".join(
            f"{LABELS[name]} {percent(1 - float(np.mean(run['test_accuracy'])))}"
            for name, run in numbers["conditions"].items()
        )
        return f"Left, held-out accuracy by step of four conditions. Right, errors on the test images: {errors}."


CONDITIONS = {f"{kind}, {pixels}": (kind, pixels) for kind in KINDS for pixels in PIXELS}
LABELS = {
    name: plots.title(kind) + ", shuffled" * (pixels == "shuffled") for name, (kind, pixels) in CONDITIONS.items()
}
LOOKS: dict[str, dict[str, Any]] = {
    name: {
        **plots.style(kind),
        "linestyle": plots.SOLID if pixels == "images" else plots.DOTTED,
        "markerfacecolor": plots.style(kind)["color"] if pixels == "images" else "white",
    }
    for name, (kind, pixels) in CONDITIONS.items()
}
"""Colour and marker tell the net, line and filling what it sees."""


def net(data: Data, kind: str, seed: int) -> nn.Module:
    """The net of a kind for images like those of ``data``."""
    if kind == "mlp":
        return perceptron(data, widths(data), seed)
    manual_seed(seed)  # convolutions draw their weights on the default generator
    channels, height, width = data.input_shape
    first, second = CHANNELS
    return nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(second * (height // 4) * (width // 4), data.classes),
    ).to(default_device())  # fmt: skip


def widths(data: Data) -> list[int]:
    """Two hidden layers with which the perceptron has as many parameters as the convolutional net, as nearly as can be."""
    if len(data.input_shape) != 3:
        raise DataError(f"mlp-vs-cnn: expected images, got inputs of shape {tuple(data.input_shape)} in {data.name}")
    wanted = _count(net(data, "cnn", 0))
    n, k = data.features, data.classes

    def size(first: int, second: int) -> int:
        return (n + 1) * first + (first + 1) * second + (second + 1) * k

    # The second layer at least as wide as there are classes, and no wider than twice the first: no bottleneck, no fan.
    pairs = [(a, b) for a in range(k, 400) for b in range(k, 2 * a + 1) if size(a, b) <= 2 * wanted]
    found = min(pairs, key=lambda pair: abs(size(*pair) - wanted), default=None)
    if found is None or abs(size(*found) - wanted) > TOLERANCE * wanted:
        raise DataError(
            f"mlp-vs-cnn: no perceptron for {n} inputs is as small as the convolutional net with its {wanted} parameters"
        )
    return list(found)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def shuffled(x: Tensor) -> Tensor:
    """Images (N, C, H, W) with their pixels in another order, the same for all."""
    order = kobai.tensor(np.random.default_rng(0).permutation(x[0].numel()), device=x.device)
    mixed: Tensor = ops.index_select(x.flatten(1), 1, order).reshape(x.shape)
    return mixed


def aside(data: Data) -> int:
    """How many of the training images, the last ones, are put aside as test images."""
    return max(0, TEST - len(data.splits.test))


def split(source: tuple[Any, ...], pixels: str, seed: int) -> Data:
    """300 images to train on, drawn by ``seed``, and held-out ones; shuffled if ``pixels`` says so."""
    data = load(*source)
    data = fewer(data.only(len(data.train_x) - aside(data)), SAMPLES, seed)
    if pixels == "shuffled":
        data = replace(data, train_x=shuffled(data.train_x), held_x=shuffled(data.held_x))
    return data


def test_images(source: tuple[Any, ...], pixels: str) -> tuple[Tensor, Tensor]:
    """The images that no training and no choice has seen, and their classes."""
    data = load(*source)
    (x, t), first = data.test(), len(data.train_x) - aside(data)
    x, t = ops.cat([x, data.train_x[first:]]), ops.cat([t, data.train_t[first:]])
    return (shuffled(x) if pixels == "shuffled" else x), t


def learnt(data: Data, kind: str, rate: float, steps: int, seed: int) -> tuple[nn.Module, Curves]:
    """A net of that kind after training, and its curves."""
    model = net(data, kind, seed)
    curves = train_curves(
        model, data, optimizer="adam", lr=rate, steps=steps, batch_size=BATCH, seed=seed, measure_every=steps // 10
    )
    return model, curves


def held_accuracy(source: tuple[Any, ...], kind: str, pixels: str, rate: float, steps: int, seed: int) -> float:
    """What a learning rate is chosen by: accuracy on images held out, in the last quarter of training."""
    _, curves = learnt(split(source, pixels, seed), kind, rate, steps, seed)
    return float(np.mean(curves.held_accuracy[-3:]))


def measured(source: tuple[Any, ...], kind: str, pixels: str, rate: float, steps: int, seed: int) -> Numbers:
    """A run with the chosen learning rate, and the one look at the test images."""
    model, curves = learnt(split(source, pixels, seed), kind, rate, steps, seed)
    return {
        "step": curves.step,
        "held_accuracy": curves.held_accuracy,
        "test_accuracy": accuracy(model, *test_images(source, pixels)),
    }


EXPERIMENT = MlpVsCnn()
