"""``init-compare``: two activations × three initialisers side by side."""

from __future__ import annotations

from typing import Any

from kobai.lab import plots
from kobai.lab.experiments._nets import (
    CHANCE,
    XAVIER,
    averaged,
    draw,
    first_below,
    listing,
    net,
    over_seeds,
    percent,
    the_data,
)
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.lab.training.curves import load, log_steps, train_curves

ACTIVATIONS, INITS = ("sigmoid", "relu"), ("std 0.01", "xavier", "he")
CONDITIONS = tuple((activation, init) for activation in ACTIVATIONS for init in INITS)
HIDDEN, SEEDS = (100, 100, 100), 3
RATE, STEPS, QUICK_STEPS = 0.2, 4000, 2000
STARTED, TRAINED = 0.5, 0.2
"""Shares of the loss of equal chances below which a net has started, and has trained."""


class InitCompare(Experiment):
    """Nets of three hidden layers of 100 units, sigmoid or ReLU, all weights from N(0, 0.01²), Xavier's or He's initialiser,
    biases 0; plain SGD (rate 0.2, batches of 100, 4000 steps), the same batches for all six; means over three seeds
    (``quick``: 2000 steps, two seeds).

    The two panels are the two activations, each line an initialiser; the steps are on a logarithmic axis, for the six differ
    by a factor of ten. N(0, 0.01²) shrinks the signal from layer to layer: with ReLU it takes long until training sets in,
    with sigmoids all units say the same and it does not. Xavier's scale, made for functions that are straight at 0, and He's,
    wider by √2 for the half that ReLU cuts off, both train.
    """

    name = "init-compare"
    title = "Initialisers compared"
    claim = (
        "Sigmoid with std 0.01 does not train and ReLU with std 0.01 lags; the other four train, He with ReLU soonest."
    )
    source = "Glorot & Bengio, AISTATS 2010; He et al., arXiv:1502.01852"

    def run(self, settings: Settings) -> Numbers:
        steps, repeat = (QUICK_STEPS, SEEDS - 1) if settings.quick else (STEPS, SEEDS)
        tasks = {(activation, init): (the_data(settings), activation, init, steps) for activation, init in CONDITIONS}
        conditions: Numbers = {}
        for (activation, init), runs in over_seeds(settings, _train, tasks, repeat).items():
            run = {"activation": activation, "init": init, **averaged(runs)}
            conditions[f"{activation} + {init}"] = {**run, "start": first_below(run, STARTED * CHANCE)}
        return {"conditions": conditions, "chance": CHANCE, "hidden": HIDDEN, "steps": steps, "lr": RATE}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs, ln = numbers["conditions"], numbers["chance"]
        end = {name: run["train_loss"][-1] for name, run in runs.items()}
        start = {name: run["start"] for name, run in runs.items() if run["start"] is not None}
        stuck = "sigmoid + std 0.01"
        late = "relu + std 0.01"
        others = [name for name in runs if name not in (stuck, late)]
        stays = min(value for value in runs[stuck]["train_loss"] if value is not None) > 0.85 * ln
        good = [name for name in others if name in start and end[name] is not None and end[name] < TRAINED * ln]
        rest = [start[name] for name in others if name in start and name.startswith("relu")]
        lags = late not in start or (bool(rest) and start[late] >= 4 * max(rest))
        first = min(start, key=lambda name: start[name], default="")

        def called(name: str) -> str:
            activation, init = name.split(" + ")
            return f"{plots.title(activation)} + {plots.title(init).split(' (')[0]}"

        def when(name: str) -> str:
            return f"after {start[name]} steps" if name in start else "not at all"

        order = sorted(start, key=lambda name: start[name])
        text = (
            f"{called(stuck)} {'does not train' if stays else 'trains'}: after {numbers['steps']} steps its loss is "
            f"{end[stuck]:.3g} (chance: {ln:.3g}) and its held-out accuracy "
            f"{percent(runs[stuck]['held_accuracy'][-1])}. The loss falls to half of chance "
            f"{listing([f'{when(name)} with {called(name)}' for name in order]) if order else 'in no run'}. "
            f"{called(late)} {'lags' if lags else 'does not lag'}{'' if late in start else ', it is not there yet'}; "
            f"first of all is {called(first) if first else 'none'}."
        )
        return text, stays and lags and len(good) == len(others) and first == "relu + he"

    def figure(self, numbers: Numbers) -> Any:
        runs = numbers["conditions"]
        fig = plots.figure(plots.FULL, 3.0)
        axes = plots.panels(fig, 1, 2, sharey=True)[0]
        half = STARTED * numbers["chance"]
        for ax, activation in zip(axes, ACTIVATIONS, strict=True):
            ax.set_xscale("log")
            for init in INITS:
                run = runs[f"{activation} + {init}"]
                draw(ax, run, "train_loss", init)
                if run["start"] is not None:
                    shift, side = ((4, 4), "left") if init == "xavier" else ((-4, -10), "right")
                    colour = plots.style(init)["color"]
                    plots.note(ax, f"{run['start']}", (run["start"], half), shift, ha=side, color=colour)
            ax.axhline(numbers["chance"], color="0.55", linewidth=0.8, linestyle=plots.DOTTED)
            ax.axhline(half, color="0.8", linewidth=0.8)
            plots.plain_ticks(ax.xaxis)
            plots.letter(ax, plots.title(activation))
            ax.set(xlabel="training step (batch of 100)", xlim=(0.7, numbers["steps"] * 1.1))
        axes[0].set(ylim=(0, 2.75), ylabel="training loss (nats)")
        axes[0].text(0.8, numbers["chance"] - 0.17, "ln 10: chance", fontsize=7.5, color="0.4")
        axes[0].text(0.8, half + 0.06, "half of it, and the step", fontsize=7.5, color="0.4")
        plots.legend_below(fig, axes[0], title=XAVIER, title_fontsize=6.5)
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        ends = ", ".join(f"{name}: {run['train_loss'][-1]:.3g}" for name, run in numbers["conditions"].items())
        return (
            "Training loss over the steps, on a logarithmic axis, in two panels: sigmoid and ReLU, each with three "
            f"initialisers. Losses at the end: {ends}."
        )


def _train(source: tuple[Any, ...], activation: str, init: str, steps: int, seed: int) -> Numbers:
    data = load(*source)
    model = net(data, HIDDEN, seed, activation=activation, init=init)
    return train_curves(model, data, seed=seed, lr=RATE, steps=steps, measure_every=log_steps(steps)).as_dict()


EXPERIMENT = InitCompare()
