"""What the experiments on initialisers and activations share: nets by condition, runs of them, means over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai.lab.experiment import Numbers, Settings
from kobai.lab.training import Data, load, train_curves
from kobai.nn import Sequential
from kobai.random import Generator
from kobai.train import mlp
from kobai.xp import default_device

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

CURVES = ("loss", "train_loss", "train_accuracy", "held_loss", "held_accuracy")


def net(data: Data, hidden: Sequence[int], activation: str, init: str, seed: int) -> Sequential:
    """A multilayer perceptron of the study: all weights, the last layer's too, from the initialiser of condition ``init``."""
    model = mlp(
        data.features,
        hidden,
        data.classes,
        activation=activation,
        init=INITS.get(init, init),
        generator=Generator().manual_seed(seed),
    )
    model.to(default_device())
    return model


def the_data(settings: Settings) -> tuple[Any, ...]:
    """Arguments of :func:`kobai.lab.training.load`, which travel to workers in place of the data."""
    return settings.data, settings.quick, settings.seed, settings.data_dir


def trained(
    source: tuple[Any, ...], hidden: Sequence[int], activation: str, init: str, seed: int, options: dict[str, Any]
) -> Numbers:
    """The curves of one net of the study; ``options`` are for :func:`train_curves`."""
    data = load(*source)
    return train_curves(net(data, hidden, activation, init, seed), data, seed=seed, **options).as_dict()


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


def first_below(run: Numbers, level: float, curve: str = "train_loss") -> int | None:
    """The first measured step at which a curve is below ``level``; None if it never is.

    >>> first_below({"step": [0, 10, 20], "train_loss": [2.3, 1.0, 0.5]}, 1.1)
    10
    """
    return next((s for s, v in zip(run["step"], run[curve], strict=True) if v is not None and v < level), None)


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


def chance(classes: int) -> float:
    """The cross-entropy of equal probabilities for all classes: where a net that tells nothing apart stays.

    >>> round(chance(10), 3)
    2.303
    """
    return math.log(classes)


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
