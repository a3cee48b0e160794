"""``init-scale``: a sigmoid net from four scales of initial weights."""

from __future__ import annotations

from typing import Any

from kobai.lab import plots
from kobai.lab.experiments._nets import (
    CHANCE,
    at_level,
    averaged,
    draw,
    fewer,
    first_below,
    net,
    over_seeds,
    percent,
    the_data,
)
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.lab.training.curves import load, log_steps, train_curves

SCALES = ("std 1", "std 0.1", "std 0.01", "std 0.001")
HIDDEN, SEEDS = (100, 100), 3
RATE, STEPS, QUICK_STEPS = 0.5, 4000, 2500
LEVEL = 0.2
"""The training loss at which held-out accuracies are compared; a higher one where a run does not get so far."""


class InitScale(Experiment):
    """A net of two hidden layers of 100 sigmoids is trained by plain SGD (rate 0.5, batches of 100, 4000 steps) with all
    weights drawn from N(0, std²), std = 1, 0.1, 0.01 and 0.001; means over three seeds (``quick``: 2500 steps, two seeds),
    the band is their range. A seed draws half of the training samples to train on; the others, up to 5000, are held out.

    Left: the training loss. With small weights all units compute nearly the same, and the loss stays on a plateau near ln 10,
    the loss of equal chances, before it falls: the later, the smaller the weights. Middle: accuracy on samples held out.
    Right: both together, the accuracy held out while the training loss passes a level. With std 1 most sigmoids are saturated
    from the start; the loss falls, beginning at a great height, by the outer weights that happen to help, and the accuracy on
    new samples lags behind that of the net that began with std 0.1 (= 1/√n for n = 100, the scale that keeps the spread).
    """

    name = "init-scale"
    title = "Scale of the initial weights"
    claim = (
        "Weights that are too small start late; with too large ones the loss falls but the accuracy on new samples "
        "lags; a middle value balances."
    )
    source = "Saitoh, Deep Learning from Scratch, ch. 6.2; Glorot & Bengio, AISTATS 2010"

    def run(self, settings: Settings) -> Numbers:
        steps, repeat = (QUICK_STEPS, SEEDS - 1) if settings.quick else (STEPS, SEEDS)
        runs = over_seeds(settings, _train, {scale: (the_data(settings), scale, steps) for scale in SCALES}, repeat)
        level = max(LEVEL, 1.1 * max(run["train_loss"][-1] or 0.0 for scale in SCALES[:2] for run in runs[scale]))
        conditions = {scale: averaged(found) for scale, found in runs.items()}
        for run in conditions.values():
            run["start"] = first_below(run, CHANCE / 2)
            run["held_at_level"] = at_level(run, level, "held_accuracy")
        told = {"chance": CHANCE, "hidden": HIDDEN, "steps": steps, "lr": RATE}
        return {"conditions": conditions, "level": level, **told}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs, level = numbers["conditions"], numbers["level"]
        large, middle, small, smallest = (runs[scale] for scale in SCALES)
        never = numbers["steps"] + 1
        starts = [never if run["start"] is None else run["start"] for run in (middle, small, smallest)]
        late = starts[1] >= 4 * starts[0] and starts[2] >= starts[1]
        a, b = large["held_at_level"], middle["held_at_level"]
        lags = a is not None and b is not None and b - a >= 0.005
        falls = large["train_loss"][-1] < 0.25 * numbers["chance"] and large["train_loss"][0] > 2 * numbers["chance"]
        best = max(SCALES, key=lambda scale: runs[scale]["held_accuracy"][-1])

        def when(steps: int) -> str:
            return "not within the run" if steps == never else f"after {steps} steps"

        text = (
            f"The training loss falls to half of ln 10 {when(starts[0])} with std 0.1, {when(starts[1])} with std 0.01 "
            f"and {when(starts[2])} with std 0.001. With std 1 it begins at {large['train_loss'][0]:.1f} and ends at "
            f"{large['train_loss'][-1]:.2g}. "
        )
        if a is not None and b is not None:
            text += (
                f"But where it passes {level:.2g}, {percent(a)} of the samples held out are told right, against "
                f"{percent(b)} for std 0.1 at the same training loss. "
            )
        text += f"At the end {best} is ahead with {percent(runs[best]['held_accuracy'][-1])}."
        return text, late and lags and falls and best == SCALES[1]

    def figure(self, numbers: Numbers) -> Any:
        runs = numbers["conditions"]
        fig = plots.figure(plots.FULL, 2.75)
        left, middle, right = plots.panels(fig, 1, 3)[0]
        for scale, run in runs.items():
            draw(left, run, "train_loss", scale)
            draw(middle, run, "held_accuracy", scale)
            reached = [pair for pair in zip(run["train_loss"], run["held_accuracy"], strict=True) if pair[0] <= 1.0]
            plots.curve(right, [loss for loss, _ in reached], [share for _, share in reached], scale)
        steps = {"xscale": "log", "xlabel": "training step (batch of 100)"}
        left.set(**steps, ylim=(0, 3.4), ylabel="training loss (nats)")
        left.axhline(numbers["chance"], color="0.55", linewidth=0.8, linestyle=plots.DOTTED)
        left.text(0.8, numbers["chance"] - 0.2, "ln 10: chance", fontsize=7, color="0.4")
        middle.set(**steps, ylim=(0, 1), ylabel="held-out accuracy")
        right.set(xscale="log", xlabel="training loss (nats), falling →", ylabel="held-out accuracy")
        right.invert_xaxis()
        right.set_ylim(bottom=0.7)
        for ax, text in ((left, "late starts"), (middle, "accuracy"), (right, "accuracy at equal loss")):
            plots.letter(ax, text)
            plots.plain_ticks(ax.xaxis)
        for ax in (middle, right):
            plots.percents(ax.yaxis)
        fig.get_layout_engine().set(wspace=0.07)
        plots.legend_below(fig, left)
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        runs = numbers["conditions"]
        ends = ", ".join(
            f"{scale}: loss {run['train_loss'][-1]:.2g}, held-out accuracy {percent(run['held_accuracy'][-1])}"
            for scale, run in runs.items()
        )
        return (
            "Three panels of curves for four scales of initial weights: training loss and held-out accuracy over the "
            f"steps, and held-out accuracy against training loss. At the end {ends}. The smaller the scale, the later "
            "the loss falls."
        )


def _train(source: tuple[Any, ...], scale: str, steps: int, seed: int) -> Numbers:
    data = load(*source)
    data = fewer(data, len(data.train_x) // 2, seed)
    model = net(data, HIDDEN, seed, activation="sigmoid", init=scale)
    return train_curves(model, data, seed=seed, lr=RATE, steps=steps, measure_every=log_steps(steps)).as_dict()


EXPERIMENT = InitScale()
