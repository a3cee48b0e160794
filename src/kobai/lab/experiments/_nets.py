"""What several experiments share: nets, runs over seeds, means with their confidence, curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

import kobai
from kobai import ops
from kobai.lab import plots
from kobai.lab.experiments.base import Numbers, Settings
from kobai.lab.training.curves import Data
from kobai.nn import Sequential
from kobai.random import Generator
from kobai.train import mlp
from kobai.xp import default_device

T = TypeVar("T")

INITS = {
    "std 1": "normal(1)",
    "std 0.1": "normal(0.1)",
    "std 0.01": "normal(0.01)",
    "std 0.001": "normal(0.001)",
    "xavier": "lecun",
    "he": "he",
}
"""Conditions of the study and what :func:`kobai.nn.init.by_name` calls them: its Xavier is 1/√n, which the field calls
LeCun's."""

XAVIER = (
    "Xavier here is std 1/√n (n inputs of a layer), elsewhere called LeCun normal; Glorot's own is √(2/(n_in + n_out))."
)
"""For captions of figures that show the condition ``xavier``."""

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Quantiles 0.975 of Student's t with 1, 2, … degrees of freedom."""

CHANCE = math.log(10)
"""The cross-entropy of equal probabilities for ten classes: where a net that tells nothing apart stays."""

CURVES = ("loss", "train_loss", "train_accuracy", "held_loss", "held_accuracy")


def net(data: Data, hidden: Sequence[int], seed: int, *, init: str = "auto", **options: Any) -> Sequential:
    """A multilayer perceptron for ``data``; ``init`` may be a condition of the study. Options: :func:`kobai.train.mlp`."""
    options |= {"init": INITS.get(init, init), "generator": Generator(seed=seed)}
    return mlp(data.features, hidden, data.classes, **options).to(default_device())


def the_data(settings: Settings) -> tuple[Any, ...]:
    """Arguments of :func:`kobai.lab.training.curves.load`, which travel to workers in place of the data."""
    return settings.data, settings.quick, settings.seed, settings.data_dir


def over_seeds(
    settings: Settings, function: Callable[..., T], tasks: Mapping[Any, tuple[Any, ...]], repeat: int
) -> dict[Any, list[T]]:
    """``{key: [function(*task, seed) for each seed]}`` over tasks: ``repeat`` seeds, or more if the settings ask for more."""
    seeds = range(settings.seed, settings.seed + max(repeat, settings.repeat))
    each = {
        (*((key,) if isinstance(key, str) else key), f"seed {seed}"): (*task, seed)
        for key, task in tasks.items()
        for seed in seeds
    }
    found = iter(settings.map(function, each).values())
    return {key: [next(found) for _ in seeds] for key in tasks}


def fewer(data: Data, samples: int, seed: int, unseen: int = 5000) -> Data:
    """``samples`` of the training images, drawn by ``seed``; up to ``unseen`` of the others join those held out.

    To compare what is learnt with what holds for new images, both parts must be large enough.

    >>> from kobai.lab.training.curves import load
    >>> fewer(load("digits"), 300, seed=0)
    Data('digits': 300 to train on, 1138 held out; 1×8×8 inputs, 10 classes)
    """
    more = max(0, unseen - len(data.held_x))
    order = np.random.default_rng([seed, 4]).permutation(len(data.train_x))[: samples + more]
    index = kobai.tensor(order)
    x, t = ops.index_select(data.train_x, 0, index), ops.index_select(data.train_t, 0, index)
    held_x, held_t = ops.cat([data.held_x, x[samples:]])[:unseen], ops.cat([data.held_t, t[samples:]])[:unseen]
    return replace(data, train_x=x, train_t=t, held_x=held_x, held_t=held_t).only(samples)


def averaged(runs: Sequence[Numbers]) -> Numbers:
    """Means of curves over seeds, with the least and the greatest value at each step as ``<curve>_low`` and ``_high``.

    Where a run diverged the means end, and ``diverged`` is the earliest such step.

    >>> a, b = ({"step": [0, 1], "diverged": None, **dict.fromkeys(CURVES, [x, 0.0])} for x in (1.0, 3.0))
    >>> found = averaged([a, b])
    >>> found["loss"], found["loss_high"]
    ([2.0, 0.0], [3.0, 0.0])
    """
    n = min(len(run["step"]) for run in runs)
    found: Numbers = {"step": list(runs[0]["step"][:n]), "seeds": len(runs)}
    for name in CURVES:
        values = np.array([run[name][:n] for run in runs], dtype=np.float64)
        found[name] = values.mean(0).tolist()
        found[f"{name}_low"], found[f"{name}_high"] = values.min(0).tolist(), values.max(0).tolist()
    stops = [run["diverged"] for run in runs if run["diverged"] is not None]
    found["diverged"] = min(stops, default=None)
    return found


def draw(ax: Any, run: Numbers, curve: str, name: str) -> None:
    """An averaged curve and its band on a logarithmic axis of steps; the measurement before training is at the left edge."""
    step = [max(s, 0.7) for s in run["step"]]
    plots.band(ax, step, run[f"{curve}_low"], run[f"{curve}_high"], name)
    plots.curve(ax, step, run[curve], name)


def first_below(run: Numbers, level: float) -> int | None:
    """The first measured step at which the training loss is below ``level``; None if it never is.

    >>> first_below({"step": [0, 10, 20], "train_loss": [2.3, 1.0, 0.5]}, 1.1)
    10
    """
    pairs = zip(run["step"], run["train_loss"], strict=True)
    return next((round(step) for step, loss in pairs if loss is not None and loss < level), None)


def at_level(run: Numbers, level: float, curve: str) -> float | None:
    """The value of ``curve`` where the training loss first falls through ``level``, interpolated; None if it never does.

    >>> at_level({"train_loss": [2.0, 1.0], "held_accuracy": [0.25, 0.75]}, 1.5, "held_accuracy")
    0.5
    """
    losses, values = run["train_loss"], run[curve]
    for i, loss in enumerate(losses):
        if loss is None:
            return None
        if loss <= level:
            if i == 0:
                return float(values[0])
            share = (losses[i - 1] - level) / (losses[i - 1] - loss)
            return float(values[i - 1] + share * (values[i] - values[i - 1]))
    return None


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of values that were drawn independently, and the ends of its 95 % confidence interval (Student's t).

    Of differences between two runs of equal seeds this is the paired comparison: what the seeds have in common drops out.

    >>> [round(v, 2) for v in interval([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    if len(values) < 2:
        raise ValueError(f"interval: expected at least 2 values, got {len(values)}")
    mean, freedom = float(np.mean(values)), len(values) - 1
    # The quantile 0.975 of t; beyond the table Cornish and Fisher's expansion, which is right to 0.002 there.
    z = 1.959964
    t = (
        T_975[freedom - 1]
        if freedom <= len(T_975)
        else z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    )
    half = t * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def percent(share: float) -> str:
    """A share as a percentage with one decimal.

    >>> percent(0.9583)
    '95.8 %'
    """
    return f"{100 * share:.1f} %"


def listing(words: Sequence[str]) -> str:
    """Words in a sentence.

    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
