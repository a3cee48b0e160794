"""Experiment ``mlp-vs-cnn``: a multilayer perceptron and a convolutional net of equal size, on images and shuffled pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from kobai import nn
from kobai._tensor import Tensor
from kobai.errors import DataError
from kobai.lab import plots
from kobai.lab.experiment import Experiment, Numbers, Settings
from kobai.lab.experiments._nets import listing, percent, the_data
from kobai.lab.training import Data, accuracy, load, train_curves
from kobai.ops import index_select
from kobai.random import Generator, manual_seed
from kobai.train import mlp
from kobai.xp import asarray, default_device

CHANNELS = (8, 16)
RATE, BATCH = 0.01, 50
SEEDS = 6
KINDS, PIXELS = ("mlp", "cnn"), ("images", "shuffled")
TOLERANCE = 0.02
"""How far apart the numbers of parameters may be."""


class MlpVsCnn(Experiment):
    """Two nets with the same number of parameters, within 2 %, on the same images: what does it help to know what a picture is?

    The convolutional net: twice 3×3 convolution (8, then 16 channels), ReLU and 2×2 max pooling, then one linear layer.
    The multilayer perceptron: two hidden layers of ReLU units whose widths are chosen such that the numbers of parameters
    agree best. Adam, learning rate 0.01, batches of 50, six seeds.

    Both are also trained on the same images with their pixels shuffled, all images in the same way. To the perceptron
    this is nothing: pixels are a list to it, in whatever order. The convolutional net loses what it had ahead, for it
    lives by neighbouring pixels belonging together.

    Left: accuracy on held-out images by epoch. Right: errors on the test images at the end; each dot is a seed.
    """

    name: ClassVar[str] = "mlp-vs-cnn"
    title: ClassVar[str] = "Perceptron and convolution"
    claim: ClassVar[str] = (
        "Of two nets with equally many parameters the convolutional one, which keeps the image's shape, generalises better."
    )
    source: ClassVar[str] = "Saitoh, Deep Learning from Scratch, ch. 7.2; LeCun et al., Gradient-based learning, 1998"

    def run(self, settings: Settings) -> Numbers:
        data = load(*the_data(settings))
        epochs = 20 if settings.data == "digits" else 4
        epochs *= 1 if settings.quick else 2
        seeds = range(settings.seed, settings.seed + max(SEEDS, settings.repeat))
        tasks = {
            (kind, pixels, f"seed {seed}"): (the_data(settings), kind, pixels, epochs, seed)
            for kind in reversed(KINDS)  # the long ones first
            for pixels in PIXELS
            for seed in seeds
        }
        found = settings.map(_train, tasks)
        conditions: dict[str, Numbers] = {}
        for kind in KINDS:
            for pixels in PIXELS:
                runs = [run for (k, p, _), run in found.items() if (k, p) == (kind, pixels)]
                conditions[f"{kind}, {pixels}"] = {
                    "epoch": runs[0]["epoch"],
                    "held_accuracy": np.mean([run["held_accuracy"] for run in runs], axis=0).tolist(),
                    "train_accuracy": [run["train_accuracy"] for run in runs],
                    "test_accuracy": [run["test_accuracy"] for run in runs],
                }
        parameters = {kind: _count(net(data, kind, 0)) for kind in KINDS}
        return {"parameters": parameters, "hidden": widths(data), "seeds": len(seeds), "conditions": conditions}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs, size = numbers["conditions"], numbers["parameters"]
        error = {name: 1 - float(np.mean(run["test_accuracy"])) for name, run in runs.items()}
        apart = abs(size["mlp"] - size["cnn"]) / size["cnn"]
        cnn, dense = error["cnn, images"], error["mlp, images"]
        text = (
            f"With {size['cnn']:,} parameters the convolutional net errs on {percent(cnn)} of the test images, the perceptron "
            f"({listing([str(n) for n in numbers['hidden']])} hidden units, {size['mlp']:,} parameters, {percent(apart)} "
            f"apart) on {percent(dense)}: {dense / max(cnn, 1e-9):.1f} times as many, means of {numbers['seeds']} seeds. With "
            f"the pixels shuffled the perceptron errs on {percent(error['mlp, shuffled'])}, the convolutional net on "
            f"{percent(error['cnn, shuffled'])}: what it was ahead by came from the image's shape."
        )
        advantage = error["mlp, shuffled"] - error["cnn, shuffled"]
        passed = apart <= TOLERANCE and cnn < 0.8 * dense and advantage < 0.5 * (dense - cnn)
        return text, bool(passed)

    def figure(self, numbers: Numbers) -> Any:
        runs = numbers["conditions"]
        fig = plots.figure(plots.FULL, 2.9)
        left, right = plots.panels(fig, 1, 2, width_ratios=[1.5, 1])[0]
        lines = {}
        for name, run in runs.items():
            look = LOOKS[name]
            x, y = run["epoch"], [100 * v for v in run["held_accuracy"]]
            lines[LABELS[name]] = plots.curve(left, x, y, name, **look)
        least = min(min(run["held_accuracy"][len(run["epoch"]) // 5 :]) for run in runs.values())
        left.set_ylim(max(0.0, 10 * np.floor(10 * least) - 5), 100.5)
        left.set_xlim(0, None)
        left.set(xlabel="epoch", ylabel="accuracy on held-out images (%)")
        plots.end_labels(left, lines, gap=0.09)
        for row, (name, run) in enumerate(runs.items()):
            errors = [100 * (1 - v) for v in run["test_accuracy"]]
            colour = LOOKS[name]["color"]
            full = "images" in name
            right.barh(
                row, np.mean(errors), height=0.6, edgecolor=colour, facecolor=colour if full else "white",
                alpha=0.85 if full else 1, hatch="" if full else "////", linewidth=1,
            )  # fmt: skip
            right.plot(errors, [row] * len(errors), linestyle="none", marker="o", markersize=3.5, color="0.1")
        plots.tidy(right, grid="x")
        right.set_yticks(range(len(runs)), labels=[LABELS[name] for name in runs])
        right.invert_yaxis()
        right.set_xlim(0)
        right.set_xlabel("errors on test images (%)")
        size = numbers["parameters"]
        plots.letter(right, f"{size['mlp']:,} and {size['cnn']:,} parameters")
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        errors = ", ".join(
            f"{LABELS[name]} {percent(1 - float(np.mean(run['test_accuracy'])))}"
            for name, run in numbers["conditions"].items()
        )
        return f"Left, held-out accuracy by epoch of four conditions. Right, errors on the test images: {errors}."


LABELS = {
    "mlp, images": "MLP",
    "mlp, shuffled": "MLP, shuffled",
    "cnn, images": "CNN",
    "cnn, shuffled": "CNN, shuffled",
}
LOOKS: dict[str, dict[str, Any]] = {
    f"{kind}, {pixels}": {
        **plots.style(kind),
        "linestyle": plots.SOLID if pixels == "images" else plots.DOTTED,
        "markerfacecolor": plots.style(kind)["color"] if pixels == "images" else "white",
    }
    for kind in KINDS
    for pixels in PIXELS
}
"""Colour and marker tell the net, line and filling what it sees."""


def net(data: Data, kind: str, seed: int) -> nn.Module:
    """The net of a kind for images like those of ``data``."""
    manual_seed(seed)  # convolutions draw their weights on the default generator
    if kind == "mlp":
        model: nn.Module = mlp(data.features, widths(data), data.classes, generator=Generator(seed=seed))
    else:
        channels, height, width = data.input_shape
        first, second = CHANNELS
        model = nn.Sequential(
            nn.Conv2d(channels, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(second * (height // 4) * (width // 4), data.classes),
        )  # fmt: skip
    return model.to(default_device())


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
    if not pairs:
        raise DataError(
            f"mlp-vs-cnn: no perceptron for {n} inputs is as small as the convolutional net with its {wanted} parameters"
        )
    return list(min(pairs, key=lambda pair: abs(size(*pair) - wanted)))


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def shuffled(x: Tensor) -> Tensor:
    """Images (N, C, H, W) with their pixels in another order, the same for all."""
    order = np.random.default_rng(0).permutation(x[0].numel())
    index: Tensor = Tensor._wrap(asarray(order.astype(np.int64), device=x.device))
    mixed: Tensor = index_select(x.flatten(1), 1, index).reshape(x.shape)
    return mixed


def _train(source: tuple[Any, ...], kind: str, pixels: str, epochs: int, seed: int) -> Numbers:
    data = load(*source)
    test_x, test_t = data.test()
    if pixels == "shuffled":
        data = replace(data, train_x=shuffled(data.train_x), held_x=shuffled(data.held_x))
        test_x = shuffled(test_x)
    model = net(data, kind, seed)
    curves = train_curves(
        model,
        data,
        optimizer="adam",
        lr=RATE,
        epochs=epochs,
        batch_size=BATCH,
        seed=seed,
        measure_every=max(1, len(data.train_x) // (2 * BATCH)),
    )
    return {
        "epoch": [step * BATCH / len(data.train_x) for step in curves.step],
        "held_accuracy": curves.held_accuracy,
        "train_accuracy": curves.train_accuracy[-1],
        "test_accuracy": accuracy(model, test_x, test_t),
    }


EXPERIMENT = MlpVsCnn()
