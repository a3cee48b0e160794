"""Experiment ``hyperparameters``: grid, random and Bayesian search of learning rate and weight decay."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from kobai._tensor import Tensor
from kobai.lab import plots
from kobai.lab.experiment import Experiment, Numbers, Settings
from kobai.lab.experiments._nets import percent, the_data
from kobai.lab.training import Data, evaluate, load, train_curves
from kobai.nn import Module
from kobai.random import Generator
from kobai.train import mlp
from kobai.xp import default_device

RATES, DECAYS = (1e-4, 1e1), (1e-8, 1e-1)
"""The ranges searched, both on a logarithmic scale."""

SIDE = 6
TRIALS = SIDE**2
HIDDEN, BATCH = (50,), 50
SEARCHES = ("grid", "random", "bayesian")
REPEATS = 5

Trial = tuple[float, float, float]
"""Learning rate, weight decay, validation loss."""


class Hyperparameters(Experiment):
    """Three ways to look for a learning rate (10⁻⁴ to 10) and a weight decay (10⁻⁸ to 10⁻¹), 36 trials each.

    A trial trains a net of one hidden layer of 50 ReLU units by plain SGD, batches of 50, and is judged by its
    cross-entropy on the validation split. The grid has six values of each; random search draws both log-uniformly;
    Bayesian search is Optuna's TPE (five random trials first), which looks where good trials were. Random and Bayesian
    search are repeated with several seeds.

    The searches are given data from which the test split has been taken out. After them the best setting of all is
    trained once more and measured on the test split: the only use of it.

    Left to right: where each search looked (of the repeated ones: the run that ended in the middle), a darker dot for a
    lower loss; and the best loss found after so many trials, the median over the seeds and all of them faintly. The
    grid's line is its mean over orders in which its points could have been tried.
    """

    name: ClassVar[str] = "hyperparameters"
    title: ClassVar[str] = "Search of hyperparameters"
    claim: ClassVar[str] = (
        "Searches judge by a validation split and never see the test split; Bayesian search needs fewer trials than a grid for "
        "the same score."
    )
    source: ClassVar[str] = (
        "Saitoh, Deep Learning from Scratch, ch. 6.5; Bergstra and Bengio, Random search, 2012; Bergstra et al., TPE, 2011"
    )

    def run(self, settings: Settings) -> Numbers:
        sampler_of_optuna()  # before anything is trained
        source, budget = the_data(settings), 100 if settings.quick else 400
        searches: dict[tuple[str, ...], tuple[Any, ...]] = {
            (kind, f"seed {seed}"): (source, kind, budget, seed)
            for kind in ("bayesian", "random")
            for seed in range(settings.seed, settings.seed + max(REPEATS, settings.repeat))
        }
        # The points of a grid do not depend on each other.
        searches |= {("grid", f"row {row}"): (source, f"grid row {row}", budget, settings.seed) for row in range(SIDE)}
        found = settings.map(search, searches)
        runs: dict[str, list[list[Trial]]] = {
            kind: [trials for (k, _), trials in found.items() if k == kind] for kind in SEARCHES
        }
        runs["grid"] = [[trial for row in runs["grid"] for trial in row]]
        rate, decay, loss = min((t for kind in runs.values() for run in kind for t in run), key=lambda trial: trial[2])
        test_loss, test_accuracy = final(source, rate, decay, budget, settings.seed)
        chosen = {"lr": rate, "weight_decay": decay, "validation_loss": loss}
        return {
            "steps": budget,
            "searches": runs,
            "chosen": {**chosen, "test_loss": test_loss, "test_accuracy": test_accuracy},
        }

    def finding(self, numbers: Numbers) -> tuple[str, bool]:
        runs, chosen = numbers["searches"], numbers["chosen"]
        target = min(trial[2] for trial in runs["grid"][0])
        hits = sum(trial[2] <= target for trial in runs["grid"][0])
        needed = {
            kind: sorted(trials_to([trial[2] for trial in run], target) for run in runs[kind])
            for kind in ("random", "bayesian")
        }
        median = {kind: float(np.median(found)) for kind, found in needed.items()}

        def told(kind: str) -> str:
            missed = sum(n > TRIALS for n in needed[kind])
            count = f"{median[kind]:.0f}" if median[kind] <= TRIALS else f"more than {TRIALS}"
            return f"{count} (median of {len(needed[kind])} seeds{f'; {missed} did not get there' if missed else ''})"

        text = (
            f"The grid's {TRIALS} trials end at a validation loss of {target:.3f}, reached "
            f"in a random order of its points after {(TRIALS + 1) / (1 + hits):.0f} on average. Bayesian search is there after "
            f"{told('bayesian')} trials, random search after {told('random')}. The best setting of all, learning rate "
            f"{chosen['lr']:.2g} and weight decay {chosen['weight_decay']:.1e}, has a validation loss of "
            f"{chosen['validation_loss']:.3f}; trained once more it classifies {percent(chosen['test_accuracy'])} of the test "
            f"images rightly, and that is the one time that the test split was looked at."
        )
        return text, median["bayesian"] <= 0.75 * TRIALS and chosen["test_accuracy"] > 0.5

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
        trials = range(1, TRIALS + 1)
        lines = {}
        for kind in SEARCHES:
            curves = [best_so_far([t[2] for t in run]) for run in runs[kind]]
            if kind == "grid":
                curves = [in_any_order([t[2] for t in runs[kind][0]])]
            elif len(curves) > 1:
                for curve in curves:
                    ax.plot(trials, curve, color=plots.style(kind)["color"], alpha=0.2, linewidth=0.8)
            lines[kind] = plots.curve(ax, trials, np.median(curves, axis=0).tolist(), kind)
        target = min(t[2] for t in runs["grid"][0])
        ax.axhline(target, color="0.55", linewidth=0.8, linestyle=plots.DOTTED)
        ax.set(yscale="log", xlabel="trials", xlim=(1, TRIALS), ylabel="cross-entropy (nats)")
        ax.set_ylim(math.exp(low) * 0.85, 2.6)
        ticks = [t for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2) if t > math.exp(low) * 0.85]
        ax.set_yticks(ticks, labels=[f"{t:g}" for t in ticks])
        ax.minorticks_off()
        ax.annotate(
            "best of the grid", (1, target), xytext=(3, -8), textcoords="offset points", fontsize=7, color="0.4"
        )
        plots.legend_below(fig, ax)
        return fig

    def alt_text(self, numbers: Numbers) -> str:
        runs = numbers["searches"]
        ends = ", ".join(
            f"{kind} {float(np.median([min(t[2] for t in run) for run in runs[kind]])):.3f}" for kind in SEARCHES
        )
        return (
            "Three panels of tried settings, learning rate against weight decay: a regular grid, scattered points, and points "
            f"that gather where the loss is low. Right, the best validation loss by number of trials; after {TRIALS}: {ends}."
        )


# --- searches ---------------------------------------------------------------------------------------------------------


def search(source: tuple[Any, ...], kind: str, steps: int, seed: int) -> list[Trial]:
    """The trials of one search, in order; ``grid row 0`` is that part of the grid."""
    data = without_test(load(*source))

    def objective(rate: float, decay: float) -> float:
        return validation_loss(data, rate, decay, steps)

    if kind.startswith("grid"):
        decay = float(np.geomspace(*DECAYS, SIDE)[int(kind.split()[-1])])
        points = [(float(rate), decay) for rate in np.geomspace(*RATES, SIDE)]
        return [(rate, decay, objective(rate, decay)) for rate, decay in points]
    if kind == "random":
        rng = np.random.default_rng([seed, 3])
        drawn = [(_log_uniform(rng, RATES), _log_uniform(rng, DECAYS)) for _ in range(TRIALS)]
        return [(rate, decay, objective(rate, decay)) for rate, decay in drawn]
    return _bayesian(objective, seed)


def _log_uniform(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    return math.exp(rng.uniform(math.log(ends[0]), math.log(ends[1])))


def _bayesian(objective: Any, seed: int) -> list[Trial]:
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=sampler_of_optuna()(seed=seed, n_startup_trials=5))
        trials = []
        for _ in range(TRIALS):
            trial = study.ask()
            rate = trial.suggest_float("lr", *RATES, log=True)
            decay = trial.suggest_float("weight_decay", *DECAYS, log=True)
            trials.append((rate, decay, objective(rate, decay)))
            study.tell(trial, trials[-1][2])
        return trials
    finally:
        optuna.logging.set_verbosity(verbosity)


def sampler_of_optuna() -> Any:
    """Optuna's class TPESampler; ImportError, with the line that installs it, where Optuna is missing."""
    try:
        from optuna.samplers import TPESampler
    except ImportError as error:
        raise ImportError(
            "lab: hyperparameters needs Optuna for its Bayesian search. Install it: pip install 'kobai[tune]'"
        ) from error
    return TPESampler


def without_test(data: Data) -> Data:
    """The same data with a test split of no sample: what a search is given, so that it cannot look."""
    nothing = data.splits.test.tensors
    empty = type(data.splits.test)(*(part[:0] for part in nothing))
    return replace(data, splits=replace(data.splits, test=empty))


def validation_loss(data: Data, rate: float, decay: float, steps: int) -> float:
    """The cross-entropy on the validation split after training; that of a blind guess where training diverged, or worse."""
    model = _trained(data, rate, decay, steps, seed=0)
    loss = evaluate(model, data.held_x, data.held_t)[0]
    ceiling = 2 * math.log(data.classes)
    return min(loss, ceiling) if math.isfinite(loss) else ceiling


def _trained(data: Data, rate: float, decay: float, steps: int, seed: int) -> Module:
    model = mlp(data.features, HIDDEN, data.classes, generator=Generator(seed=seed)).to(default_device())
    train_curves(
        model, data, lr=rate, weight_decay=decay, steps=steps, batch_size=BATCH, seed=seed, measure_every=steps
    )
    return model


def final(source: tuple[Any, ...], rate: float, decay: float, steps: int, seed: int) -> tuple[float, float]:
    """(loss, accuracy) on the test split of the chosen setting, trained once more."""
    data = load(*source)
    test: tuple[Tensor, Tensor] = data.test()
    return evaluate(_trained(data, rate, decay, steps, seed=0), *test)


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
