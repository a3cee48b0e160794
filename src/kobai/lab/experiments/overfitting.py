"""Experiment ``overfitting``: a large net on 300 images, and what weight decay and dropout do about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from kobai import ops
from kobai.lab import plots
from kobai.lab.experiment import Experiment, Numbers, Settings
from kobai.lab.experiments._nets import listing, percent, the_data
from kobai.lab.training import Data, load, train_curves
from kobai.random import Generator, manual_seed
from kobai.train import mlp
from kobai.xp import default_device

SAMPLES, UNSEEN = 300, 5000
HIDDEN = (100,) * 7
BATCH, RATE = 100, 0.02
DECAY, DROPOUT = 0.03, 0.1
SEEDS = 6

CURES: dict[str, dict[str, float]] = {
    "none": {},
    "weight decay": {"weight_decay": DECAY},
    "dropout": {"dropout": DROPOUT},
    "both": {"weight_decay": DECAY, "dropout": DROPOUT},
}


class Overfitting(Experiment):
    """Seven hidden layers of 100 ReLU units have 67,000 weights or more; 300 images cannot determine them.

    The same net (He) is trained on the same 300 images in batches of 100 by plain SGD, as it is, with an L2 penalty on
    its weights, with dropout after each hidden layer, and with both; six seeds each. Training curves are measured
    without dropout.

    Above: accuracy on the 300 images and on images that the net never trained on. What matters is the distance between
    the two lines of a panel. Below: the same for the loss, where overfitting shows most: the net grows ever surer of its
    errors, so that its loss on unseen images rises although its accuracy does not fall. The last panels show the gap
    between both in the last quarter of training, a dot for each seed.
    """

    name: ClassVar[str] = "overfitting"
    title: ClassVar[str] = "Overfitting and its cures"
    claim: ClassVar[str] = (
        "The gap between training and unseen images shrinks with weight decay, with dropout and with both."
    )
    source: ClassVar[str] = (
        "Saitoh, Deep Learning from Scratch, ch. 6.4; Srivastava et al., Dropout, 2014; Krogh and Hertz, 1991"
    )

    def run(self, settings: Settings) -> Numbers:
        epochs = 150 if settings.quick else 300
        seeds = range(settings.seed, settings.seed + max(SEEDS, settings.repeat))
        tasks = {(cure, f"seed {seed}"): (the_data(settings), cure, epochs, seed) for cure in CURES for seed in seeds}
        found = settings.map(_train, tasks)
        conditions = {}
        for cure in CURES:
            runs = [run for (which, _), run in found.items() if which == cure]
            conditions[cure] = {
                "epoch": runs[0]["epoch"],
                **{key: np.mean([run[key] for run in runs], axis=0).tolist() for key in CURVES},
                "at_end": {key: [_late(run[key]) for run in runs] for key in CURVES},
            }
        unseen = len(few(load(*the_data(settings))).held_x)
        return {"samples": SAMPLES, "unseen": unseen, "seeds": len(seeds), "conditions": conditions}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs = numbers["conditions"]
        end = {cure: {key: float(np.mean(run["at_end"][key])) for key in CURVES} for cure, run in runs.items()}
        gap = {cure: at["train_accuracy"] - at["held_accuracy"] for cure, at in end.items()}
        loss = {cure: at["held_loss"] - at["train_loss"] for cure, at in end.items()}
        parts = [
            f"{cure} {percent(at['train_accuracy'])} and {percent(at['held_accuracy'])} (a gap of {100 * gap[cure]:.1f} "
            f"points; of {loss[cure]:.2f} in the loss)"
            for cure, at in end.items()
        ]
        smallest = min(gap, key=lambda cure: gap[cure])
        text = (
            f"Right on the {numbers['samples']} training images and on {numbers['unseen']} unseen ones, means of "
            f"{numbers['seeds']} seeds and of the last quarter of training: {listing(parts)}. The gap in accuracy is smallest "
            f"with {smallest}, the gap in the loss with {min(loss, key=lambda cure: loss[cure])}."
        )
        cures = [cure for cure in CURES if cure != "none"]
        fits = end["none"]["train_accuracy"] > 0.99
        shrinks = all(gap[cure] < gap["none"] and loss[cure] < 0.9 * loss["none"] for cure in cures)
        learns = all(end[cure]["train_accuracy"] > 0.5 for cure in cures)
        return text, bool(fits and shrinks and learns)

    def figure(self, numbers: Numbers) -> Any:
        runs = numbers["conditions"]
        fig = plots.figure(plots.FULL, 4.0)
        axes = plots.panels(fig, 2, 5, sharex="col", width_ratios=[1, 1, 1, 1, 0.95])
        top = max(max(run["held_loss"][1:]) for run in runs.values())
        for j, (cure, run) in enumerate(runs.items()):
            plots.letter(axes[0, j], cure)
            for i, (curve, scale) in enumerate((("accuracy", 100), ("loss", 1))):
                ax = axes[i, j]
                train = [scale * v for v in run[f"train_{curve}"]]
                held = [scale * v for v in run[f"held_{curve}"]]
                plots.curve(ax, run["epoch"], train, "training", label="training images", marker="")
                plots.curve(ax, run["epoch"], held, "validation", label="unseen images", marker="")
                ax.fill_between(run["epoch"], train, held, color="0.92", linewidth=0)
                ax.set_ylim((0, 104) if i == 0 else (0, 1.1 * min(top, 3.0)))
                ax.set_xlim(0, run["epoch"][-1])
                if j:
                    ax.tick_params(labelleft=False)
            axes[1, j].set_xlabel("epoch")
        axes[0, 0].set_ylabel("accuracy (%)")
        axes[1, 0].set_ylabel("cross-entropy (nats)")
        for i, (curve, scale, unit) in enumerate((("accuracy", 100, "points"), ("loss", 1, "nats"))):
            ax = axes[i, 4]
            plots.letter(ax, "gap" if i == 0 else "")
            ax.set_ylabel(f"{curve} gap ({unit})")
            for x, (cure, run) in enumerate(runs.items()):
                ends = [np.array(run["at_end"][f"{part}_{curve}"]) for part in ("train", "held")]
                values = scale * np.abs(ends[0] - ends[1])
                ax.bar(x, np.mean(values), width=0.66, color=plots.style(cure)["color"], alpha=0.85)
                ax.plot([x] * len(values), values, linestyle="none", marker="o", markersize=2.5, color="0.15")
            ax.set_ylim(0)
            ax.set_xticks(range(len(runs)), labels=list(runs), fontsize=7.5, rotation=45, ha="right")
            ax.tick_params(labelbottom=i == 1)
        plots.legend_below(fig, axes[0, 0])
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        gaps = ", ".join(
            f"{cure} {100 * float(np.mean(np.subtract(*(run['at_end'][key] for key in CURVES[:2])))):.1f} points"
            for cure, run in numbers["conditions"].items()
        )
        return (
            "Four columns of curves, none, weight decay, dropout and both: accuracy above and loss below, for training and for "
            f"unseen images, by epoch. Bars at the right show the gap in accuracy: {gaps}."
        )


CURVES = ("train_accuracy", "held_accuracy", "train_loss", "held_loss")


def _late(curve: list[float]) -> float:
    """The mean over the last quarter of a curve: small batches have it jump from one measurement to the next."""
    return float(np.mean(curve[-max(1, len(curve) // 4) :]))


def few(data: Data) -> Data:
    """300 images to train on; those of the training split that are left over join the held-out ones."""
    x = ops.cat([data.held_x, data.train_x[SAMPLES:]])[:UNSEEN]
    t = ops.cat([data.held_t, data.train_t[SAMPLES:]])[:UNSEEN]
    return replace(data.only(SAMPLES), held_x=x, held_t=t)


def _train(source: tuple[Any, ...], cure: str, epochs: int, seed: int) -> Numbers:
    data = few(load(*source))
    manual_seed(seed)  # dropout draws on the default generator
    options = CURES[cure]
    model = mlp(
        data.features, HIDDEN, data.classes, dropout=options.get("dropout", 0.0), generator=Generator(seed=seed)
    ).to(default_device())
    steps = SAMPLES // BATCH
    curves = train_curves(
        model,
        data,
        lr=RATE,
        weight_decay=options.get("weight_decay", 0.0),
        steps=epochs * steps,
        batch_size=BATCH,
        seed=seed,
        measure_every=5 * steps,
    )
    numbers: Numbers = {key: getattr(curves, key) for key in CURVES}
    return {**numbers, "epoch": [step / steps for step in curves.step]}


EXPERIMENT = Overfitting()
