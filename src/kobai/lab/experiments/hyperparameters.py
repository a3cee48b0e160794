"""Experiment ``hyperparameters``: grid, random and Bayesian search of learning rate and weight decay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from kobai.errors import install
from kobai.lab import plots
from kobai.lab.experiments._nets import interval, net, over_seeds, percent, the_data
from kobai.lab.experiments.base import Experiment, Numbers, Settings
from kobai.lab.training.curves import Data, evaluate, load, train_curves
from kobai.nn import Module
from kobai.utils.data import TensorDataset

RATES, DECAYS = (1e-4, 1e1), (1e-8, 1e-1)
"""The ranges searched, both on a logarithmic scale."""

SIDE = 6
TRIALS = SIDE**2
HIDDEN, BATCH = (50,), 50
SEARCHES = ("grid", "random", "bayesian")
REPEATS = 8

Trial = tuple[float, float, float]
"""Learning rate, weight decay, validation loss."""


class Hyperparameters(Experiment):
    """Three ways to look for a learning rate (10⁻⁴ to 10) and a weight decay (10⁻⁸ to 10⁻¹), 36 trials each.

    A trial trains a net of one hidden layer of 50 ReLU units by plain SGD, batches of 50, and is judged by its
    cross-entropy on the validation split. The grid has six values of each; random search draws both log-uniformly;
    Bayesian search is Optuna's TPE (five random trials first), which looks where good trials were.

    How good a grid is depends on whether one of its few learning rates happens to lie well: a single grid can be beaten by
    anything or by nothing. So all three searches are repeated eight times (``quick``: six), the grid each time shifted by
    random parts of its own meshes, the others with other seeds; and what is compared are means over the repetitions, of the
    logarithm of the best loss so far, by number of trials (as Bergstra and Bengio do). A grid comes to its end after all of
    its 36 trials; the question is after how many another search is there. It is also asked half-way: 18 points of the grid
    in random order, whose mean is computed exactly. And a Bayesian search should be one: its later trials are to be
    better than those of a search that takes no notice of earlier ones.

    The searches are given data from which the test split has been taken out. After them the best setting of all is
    trained once more and measured on the test split: the only use of it.

    Left to right: where each search looked (of the repetitions: the run that ended in the middle), a darker dot for a
    lower loss; and the best loss found after so many trials, the mean with its 95 % confidence band. The dotted line is
    where grids end.
    """

    name = "hyperparameters"
    title = "Search of hyperparameters"
    claim = (
        "Searches judge by a validation split and never see the test split; Bayesian search needs fewer trials than a grid for "
        "the same score."
    )
    source = "Saitoh, Deep Learning from Scratch, ch. 6.5; Bergstra and Bengio, Random search, 2012; Bergstra et al., TPE, 2011"

    def run(self, settings: Settings) -> Numbers:
        sampler_of_optuna()  # before anything is trained
        source, budget = the_data(settings), 60 if settings.quick else 400
        tasks = {kind: (source, kind, budget) for kind in reversed(SEARCHES)}  # the long ones first
        found = over_seeds(settings, search, tasks, REPEATS - 2 * settings.quick)
        runs = {kind: found[kind] for kind in SEARCHES}
        rate, decay, loss = min((t for kind in runs.values() for run in kind for t in run), key=lambda trial: trial[2])
        test_loss, test_accuracy = final(source, rate, decay, budget)
        chosen = {"lr": rate, "weight_decay": decay, "validation_loss": loss}
        chosen |= {"test_loss": test_loss, "test_accuracy": test_accuracy}
        return {"steps": budget, "searches": runs, "chosen": chosen}

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs, chosen = numbers["searches"], numbers["chosen"]
        mean = {kind: curve(runs, kind)[0] for kind in SEARCHES}
        half = TRIALS // 2
        needed = {kind: [trials_to(mean[kind], mean["grid"][n - 1]) for n in (half, TRIALS)] for kind in SEARCHES}
        sooner = sum(
            trials_to([t[2] for t in run], min(t[2] for t in grid)) < TRIALS
            for run, grid in zip(runs["bayesian"], runs["grid"], strict=True)
        )
        late = {
            kind: float(np.exp(np.mean([math.log(t[2]) for run in runs[kind] for t in run[half:]])))
            for kind in ("random", "bayesian")
        }

        def told(kind: str, which: int) -> str:
            return f"after {needed[kind][which]}" if needed[kind][which] <= TRIALS else f"not in {TRIALS}"

        text = (
            f"The {len(runs['grid'])} grids end, after {TRIALS} trials, at a validation loss of {mean['grid'][-1]:.3f} "
            f"(geometric mean). Bayesian search is there {told('bayesian', 1)} trials, random search {told('random', 1)}; what "
            f"{half} points of the grid in random order give, {mean['grid'][half - 1]:.3f}, Bayesian search has "
            f"{told('bayesian', 0)}, random search {told('random', 0)}. Taken one by one, {sooner} of {len(runs['grid'])} "
            f"Bayesian searches need fewer trials than a grid has for what the grid finds. The trials of a Bayesian search's "
            f"second half have a loss of {late['bayesian']:.2f}, those of random search {late['random']:.2f}. The best setting "
            f"of all, learning rate {chosen['lr']:.2g} and weight decay {chosen['weight_decay']:.1e}, has a validation loss of "
            f"{chosen['validation_loss']:.3f}; trained once more it classifies {percent(chosen['test_accuracy'])} of the test "
            f"images rightly, and that is the one time that the test split was looked at."
        )
        fewer = needed["bayesian"][0] < half and needed["bayesian"][1] < TRIALS
        learns = late["bayesian"] < 0.8 * late["random"]
        return text, bool(fewer and learns and chosen["test_accuracy"] > 0.5)

    def figure(self, numbers: Numbers) -> Any:
        runs = numbers["searches"]
        fig = plots.figure(plots.FULL, 2.7)
        axes = plots.panels(fig, 1, 4, width_ratios=[1, 1, 1, 1.55])[0]
        losses = [math.log(t[2]) for kind in runs.values() for run in kind for t in run]
        low, high = min(losses), math.log(2.4)
        for i, kind in enumerate(SEARCHES):
            ax = axes[i]
            rate, decay, loss = zip(*middle(runs[kind]), strict=True)
            dots = ax.scatter(
                rate, decay, c=[min(v, 2.4) for v in loss], s=20, cmap="cividis", marker=plots.style(kind)["marker"],
                norm="log", edgecolors="0.3", linewidths=0.4,
            )  # fmt: skip
            dots.set_clim(math.exp(low), math.exp(high))
            ax.set(xscale="log", yscale="log", xlim=(4e-5, 25), ylim=(3e-9, 0.3), xlabel="learning rate")
            ax.set_xticks([1e-4, 1e-2, 1])
            ax.minorticks_off()
            plots.letter(ax, plots.title(kind))
            ax.title.set_color(plots.style(kind)["color"])
            if i:
                ax.tick_params(labelleft=False)
        axes[0].set_ylabel("weight decay")
        ax = axes[3]
        plots.letter(ax, "best validation loss so far")
        trials, curves = range(1, TRIALS + 1), {kind: curve(runs, kind) for kind in SEARCHES}
        for kind, (mean, least, most) in curves.items():
            plots.band(ax, trials, least, most, kind)
            plots.curve(ax, trials, mean, kind)
        target, bottom = curves["grid"][0][-1], 0.9 * min(least[-1] for _, least, _ in curves.values())
        ax.axhline(target, color="0.55", linewidth=0.8, linestyle=plots.DOTTED)
        ax.set(yscale="log", xlabel="trials", xlim=(1, TRIALS), ylim=(bottom, 2.6), ylabel="cross-entropy (nats)")
        ax.set_yticks([t for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2) if t > bottom])
        plots.plain_ticks(ax.yaxis)
        plots.note(ax, "grids end", (1, target), (3, -9), fontsize=7, color="0.4")
        plots.legend_below(fig, ax)
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        runs = numbers["searches"]
        ends = ", ".join(f"{kind} {curve(runs, kind)[0][-1]:.3f}" for kind in SEARCHES)
        return (
            "Three panels of tried settings, learning rate against weight decay: a regular grid, scattered points, and points "
            f"that gather where the loss is low. Right, the best validation loss by number of trials; after {TRIALS}: {ends}."
        )


# --- searches ---------------------------------------------------------------------------------------------------------


def search(source: tuple[Any, ...], kind: str, steps: int, seed: int) -> list[Trial]:
    """The trials of one search, in order."""
    data = without_test(load(*source))

    def objective(rate: float, decay: float) -> float:
        return validation_loss(data, rate, decay, steps)

    if kind == "grid":
        shift = np.random.default_rng([seed, 5]).uniform(size=2)
        rates, decays = (_mesh(*ends, part) for ends, part in zip((RATES, DECAYS), shift, strict=True))
        return [(rate, decay, objective(rate, decay)) for decay in decays for rate in rates]
    if kind == "random":
        low, high = ([math.log(end) for end in ends] for ends in zip(RATES, DECAYS, strict=True))
        drawn = np.random.default_rng([seed, 3]).uniform(low, high, size=(TRIALS, 2)).tolist()
        return [(*at, objective(*at)) for at in ((math.exp(rate), math.exp(decay)) for rate, decay in drawn)]
    return _bayesian(objective, seed)


def _mesh(low: float, high: float, shift: float) -> list[float]:
    """SIDE values from low to high, evenly on a logarithmic scale, each that part of a mesh above its mesh's end."""
    return [float(low * (high / low) ** ((i + shift) / SIDE)) for i in range(SIDE)]


def _bayesian(objective: Callable[..., float], seed: int) -> list[Trial]:
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=sampler_of_optuna()(seed=seed, n_startup_trials=5))
        space = {"lr": RATES, "weight_decay": DECAYS}

        def judged(trial: Any) -> float:
            return objective(*(trial.suggest_float(name, *ends, log=True) for name, ends in space.items()))

        study.optimize(judged, TRIALS)
        return [(*trial.params.values(), trial.value) for trial in study.trials]
    finally:
        optuna.logging.set_verbosity(verbosity)


def sampler_of_optuna() -> Any:
    """Optuna's class TPESampler; ImportError, with the line that installs it, where Optuna is missing."""
    try:
        from optuna.samplers import TPESampler
    except ImportError as error:
        raise ImportError(
            f"lab: hyperparameters needs Optuna for its Bayesian search. Install it: {install('tune')}"
        ) from error
    return TPESampler


def without_test(data: Data) -> Data:
    """The same data with an empty test split, so that a search cannot look at it."""
    empty = TensorDataset(*(part[:0] for part in data.splits.test.tensors))
    return replace(data, splits=replace(data.splits, test=empty))


def validation_loss(data: Data, rate: float, decay: float, steps: int) -> float:
    """The cross-entropy on the validation split after training; at most twice that of a blind guess, also if it diverged."""
    model = _trained(data, rate, decay, steps)
    loss = evaluate(model, data.held_x, data.held_t)[0]
    ceiling = 2 * math.log(data.classes)
    return min(loss, ceiling) if math.isfinite(loss) else ceiling


def _trained(data: Data, rate: float, decay: float, steps: int) -> Module:
    model = net(data, HIDDEN, seed=0)
    train_curves(model, data, lr=rate, weight_decay=decay, steps=steps, batch_size=BATCH, measure_every=steps)
    return model


def final(source: tuple[Any, ...], rate: float, decay: float, steps: int) -> tuple[float, float]:
    """(loss, accuracy) on the test split of the chosen setting, trained once more."""
    data = load(*source)
    return evaluate(_trained(data, rate, decay, steps), *data.test())


# --- curves -----------------------------------------------------------------------------------------------------------


def best_so_far(losses: list[float]) -> list[float]:
    """The least of the first n losses, for each n.

    >>> best_so_far([3.0, 1.0, 2.0])
    [3.0, 1.0, 1.0]
    """
    return [float(v) for v in np.minimum.accumulate(losses)]


def in_any_order(losses: list[float]) -> list[float]:
    """The expected least of n of these losses drawn without replacement, for each n.

    >>> [round(v, 3) for v in in_any_order([1.0, 2.0, 3.0])]
    [2.0, 1.333, 1.0]
    """
    ranked, n = sorted(losses), len(losses)
    return [
        sum(loss * math.comb(n - 1 - i, k - 1) for i, loss in enumerate(ranked)) / math.comb(n, k)
        for k in range(1, n + 1)
    ]


def curve(runs: dict[str, list[list[Trial]]], kind: str) -> tuple[list[float], list[float], list[float]]:
    """The best loss after n trials, for each n: the geometric mean over the repetitions and its 95 % confidence interval.

    A grid's is what its points give in random order.
    """
    so_far = in_any_order if kind == "grid" else best_so_far
    curves = np.array([so_far([math.log(t[2]) for t in run]) for run in runs[kind]])
    mean, low, high = np.exp([interval(values) for values in curves.T.tolist()]).T.tolist()
    return mean, low, high


def trials_to(losses: list[float], target: float) -> int:
    """Trials until a loss is at or below ``target``; one more than there are if none is.

    >>> trials_to([3.0, 1.0], 2.0), trials_to([3.0], 2.0)
    (2, 2)
    """
    return next((i + 1 for i, loss in enumerate(losses) if loss <= target), len(losses) + 1)


def middle(runs: list[list[Trial]]) -> list[Trial]:
    """The run whose best loss is the median of all."""
    ranked = sorted(runs, key=lambda run: min(trial[2] for trial in run))
    return ranked[(len(ranked) - 1) // 2]


EXPERIMENT = Hyperparameters()
