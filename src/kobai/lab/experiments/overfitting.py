"""Experiment ``overfitting``: a large net on 300 images, and what weight decay and dropout do about it."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.lab import plots
from kobai.lab.experiments._nets import fewer, interval, listing, net, over_seeds, percent, the_data
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.lab.training.curves import load, train_curves
from kobai.random import manual_seed

SAMPLES = 300
HIDDEN = (100,) * 7
BATCH, RATE = 100, 0.02
DECAY, DROPOUT = 0.01, 0.05
REPEATS = 8

CURES: dict[str, dict[str, float]] = {
    "none": {},
    "weight decay": {"weight_decay": DECAY},
    "dropout": {"dropout": DROPOUT},
    "both": {"weight_decay": DECAY, "dropout": DROPOUT},
}
REAL = ("weight decay", "dropout", "both")
"""The conditions that are a cure."""


class Overfitting(Experiment):
    """Seven hidden layers of 100 ReLU units have 67,000 weights or more; 300 images cannot determine them.

    The same net (He) is trained on 300 images in batches of 100 by plain SGD (learning rate 0.02) as it is, with an L2
    penalty on its weights (0.01), with dropout after each hidden layer (0.05: through seven of them 70 % of all paths are
    open at a time), and with both. Each of the eight repetitions (``quick``: six) draws 300 other images and other weights,
    the same for all four nets, so that a cure is compared with none on equal terms. Training curves are measured without
    dropout.

    A gap has two measures, and the cures do not act on the same one. Weight decay keeps the net from growing ever surer of
    its errors: the gap in the loss shrinks, that in accuracy less. Dropout has more images told right: the gap in accuracy
    shrinks, while that in the loss does not always; on MNIST it even grows a little once the training images are known by
    heart. So a gap is said to shrink if it does so beyond chance in one of the measures, and if that in accuracy does not
    grow; beyond chance: the 95 % confidence interval of the paired differences (Student's t) leaves out 0.

    The strengths are those with the highest accuracy on unseen images in trial runs on both data sets (L2 0.001 to 0.03,
    dropout 0.05 to 0.3), made with seeds from 100 on. Stronger ones shrink the gap more, but only by learning less; that is
    no cure, and the finding asks for an accuracy on unseen images that is at most a point lower than without.

    Above: accuracy on the 300 images and on images that the net never trained on, means of the repetitions. What matters is
    the distance between the two lines of a panel. Below: the same for the loss. The last panels show by how much the gap in
    the last quarter of training differs from that of none: a dot for each repetition, and the mean with its confidence
    interval.
    """

    name = "overfitting"
    title = "Overfitting and its cures"
    claim = (
        "The gap between training and unseen images, in accuracy or in the loss, shrinks with weight decay, with dropout and "
        "with both."
    )
    source = "Saitoh, Deep Learning from Scratch, ch. 6.4; Srivastava et al., Dropout, 2014; Krogh and Hertz, 1991"

    def run(self, settings: Settings) -> Numbers:
        epochs = 150 if settings.quick else 300
        tasks = {cure: (the_data(settings), cure, epochs) for cure in CURES}
        conditions = {}
        for cure, runs in over_seeds(settings, _train, tasks, REPEATS - 2 * settings.quick).items():
            conditions[cure] = {
                "epoch": runs[0]["epoch"],
                **{key: np.mean([run[key] for run in runs], axis=0).tolist() for key in CURVES},
                "at_end": {key: [_late(run[key]) for run in runs] for key in CURVES},
            }
        unseen = len(fewer(load(*the_data(settings)), SAMPLES, settings.seed).held_x)
        return {"samples": SAMPLES, "unseen": unseen, "repetitions": len(runs), "conditions": conditions}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs = numbers["conditions"]
        end = {cure: {key: float(np.mean(run["at_end"][key])) for key in CURVES} for cure, run in runs.items()}
        parts = [
            f"{cure} {percent(at['train_accuracy'])} and {percent(at['held_accuracy'])} "
            f"({100 * (at['train_accuracy'] - at['held_accuracy']):.1f} points apart, "
            f"{at['held_loss'] - at['train_loss']:.2f} in the loss)"
            for cure, at in end.items()
        ]
        accuracy = {cure: interval(smaller(numbers, cure, "accuracy")) for cure in REAL}
        loss = {cure: interval(smaller(numbers, cure, "loss")) for cure in REAL}
        text = (
            f"Right on the {numbers['samples']} training images and on {numbers['unseen']} unseen ones, means of "
            f"{numbers['repetitions']} repetitions and of the last quarter of training: {listing(parts)}. Compared with none, "
            f"image set by image set, the gap in accuracy is smaller by "
            f"{listing([_between(cure, accuracy[cure], 100, 1) for cure in REAL])} points (95 % confidence); the gap in the "
            f"loss by {listing([_between(cure, loss[cure], 1, 2) for cure in REAL])}."
        )
        fits = end["none"]["train_accuracy"] > 0.99
        shrinks = all(max(accuracy[cure][1], loss[cure][1]) > 0 and accuracy[cure][2] > 0 for cure in REAL)
        learns = all(end[cure]["held_accuracy"] > end["none"]["held_accuracy"] - 0.01 for cure in REAL)
        return text, bool(fits and shrinks and learns)

    def figure(self, numbers: Numbers) -> Any:
        runs = numbers["conditions"]
        fig = plots.figure(plots.FULL, 4.0)
        axes = plots.panels(fig, 2, 5, sharex="col", width_ratios=[1, 1, 1, 1, 0.95])
        top = 1.1 * min(3.0, max(max(run["held_loss"][1:]) for run in runs.values()))
        for j, (cure, run) in enumerate(runs.items()):
            plots.letter(axes[0, j], cure)
            for ax, (curve, scale, highest) in zip(axes[:, j], (("accuracy", 100, 104), ("loss", 1, top)), strict=True):
                train = [scale * v for v in run[f"train_{curve}"]]
                held = [scale * v for v in run[f"held_{curve}"]]
                plots.curve(ax, run["epoch"], train, "training", label="training images", marker="")
                plots.curve(ax, run["epoch"], held, "validation", label="unseen images", marker="")
                ax.fill_between(run["epoch"], train, held, color="0.92", linewidth=0)
                ax.set(xlim=(0, run["epoch"][-1]), ylim=(0, highest))
                ax.tick_params(labelleft=j == 0)
            axes[1, j].set_xlabel("epoch")
        axes[0, 0].set_ylabel("accuracy (%)")
        axes[1, 0].set_ylabel("cross-entropy (nats)")
        plots.letter(axes[0, 4], "gap, vs. none")
        for i, (curve, scale, unit) in enumerate((("accuracy", 100, "points"), ("loss", 1, "nats"))):
            ax = axes[i, 4]
            ax.axhline(0, color="0.4", linewidth=0.8)
            for x, cure in enumerate(REAL):
                values = [-scale * v for v in smaller(numbers, cure, curve)]
                mean, low, high = interval(values)
                look = {"color": plots.style(cure)["color"], "marker": plots.style(cure)["marker"]}
                ax.plot([x - 0.17] * len(values), values, linestyle="none", marker=".", markersize=3.5, color="0.6")
                ax.errorbar(x + 0.12, mean, [[mean - low], [high - mean]], capsize=2.5, markersize=4, **look)
            ax.set(xlim=(-0.6, len(REAL) - 0.4), ylabel=f"in {curve} ({unit})")
            ax.set_xticks(range(len(REAL)), labels=REAL, fontsize=7.5, rotation=45, ha="right")
            ax.tick_params(labelbottom=i == 1)
        plots.legend_below(fig, axes[0, 0])
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        means = {cure: interval(smaller(numbers, cure, "accuracy"))[0] for cure in REAL}
        differences = ", ".join(f"{cure} {100 * mean:.1f} points" for cure, mean in means.items())
        return (
            "Four columns of curves, none, weight decay, dropout and both: accuracy above and loss below, for training and for "
            f"unseen images, by epoch. At the right, by how much the gap in accuracy is smaller than with none: {differences}."
        )


CURVES = ("train_accuracy", "held_accuracy", "train_loss", "held_loss")


def _late(curve: list[float]) -> float:
    """The mean over the last quarter of a curve, which jumps from one measurement to the next."""
    return float(np.mean(curve[-max(1, len(curve) // 4) :]))


def smaller(numbers: Numbers, cure: str, curve: str) -> list[float]:
    """By how much the gap at the end, in ``accuracy`` or ``loss``, is smaller with a cure than with none, in each
    repetition."""
    ends = (numbers["conditions"][which]["at_end"] for which in ("none", cure))
    none, cured = (np.abs(np.subtract(end[f"train_{curve}"], end[f"held_{curve}"])) for end in ends)
    return [float(v) for v in none - cured]


def _between(cure: str, found: tuple[float, float, float], scale: float, digits: int) -> str:
    mean, low, high = (f"{scale * v:.{digits}f}" for v in found)
    return f"{mean} with {cure} ({low} to {high})"


def _train(source: tuple[Any, ...], cure: str, epochs: int, seed: int) -> Numbers:
    data = fewer(load(*source), SAMPLES, seed)
    manual_seed(seed)  # dropout draws on the default generator
    cures, steps = {"weight_decay": 0.0, "dropout": 0.0, **CURES[cure]}, SAMPLES // BATCH
    options: dict[str, Any] = {"lr": RATE, "weight_decay": cures["weight_decay"], "batch_size": BATCH, "seed": seed}
    model = net(data, HIDDEN, seed, dropout=cures["dropout"])
    curves = train_curves(model, data, steps=epochs * steps, measure_every=10 * steps, **options)
    return {**{key: getattr(curves, key) for key in CURVES}, "epoch": [step / steps for step in curves.step]}


EXPERIMENT = Overfitting()
