#!/usr/bin/env python3
"""The default net for tables against scikit-learn's MLP: ``python scripts/tables_beside_sklearn.py [NAME ...] [--held-out]``.

Twelve tables that scikit-learn and statsmodels bring along, on which the defaults were chosen; ``--held-out`` takes others,
on which they were not. For each seed the rows are shuffled, and both nets are tested on the same fifth; both see the same
prepared inputs. scikit-learn's net trains on the training and the validation rows together, with standardised targets, as it
needs no validation. Scores are points: accuracy, or R² of a regression, times 100. The gain is the median of the differences
seed by seed: a split that is hard is hard for both, and R² on a few dozen rows differs by 40 points between splits.
"""

import argparse
import statistics
import time
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn import datasets
from sklearn.neural_network import MLPClassifier, MLPRegressor

from kobai.data import table
from kobai.train import EarlyStopping, job
from kobai.train.recipes import for_table, recipe
from kobai.train.scores import scores
from kobai.train.settings import RunSettings

SCIKIT = ("iris", "wine", "breast_cancer", "digits", "diabetes")
STATSMODELS = {
    "anes96": "vote",
    "modechoice": "choice",
    "fair": "affairs",
    "randhie": "mdvis",
    "star98": "NABOVE",
    "engel": "foodexp",
    "grunfeld": "invest",
}
HELD_OUT = {
    "ccard": "AVGEXP",
    "cancer": "cancer",
    "heart": "survival",
    "macrodata": "infl",
    "statecrime": "murder",
    "spector": "GRADE",
}
GENERATED = {
    "friedman1": {"n_samples": 300, "noise": 1.0},
    "moons": {"n_samples": 200, "noise": 0.25},
    "classification": {"n_samples": 400, "n_informative": 6, "flip_y": 0.05},
    "hastie_10_2": {"n_samples": 1000},
    "sparse_uncorrelated": {"n_samples": 250},
}
"""Of ``sklearn.datasets.make_…``."""

MOST = 4000


def frame(name):
    """A table and its target."""
    if name in SCIKIT:
        return getattr(datasets, f"load_{name}")(as_frame=True).frame, "target"
    if name in GENERATED:
        x, y = getattr(datasets, f"make_{name}")(**GENERATED[name], random_state=0)
        return pd.DataFrame(x).add_prefix("x").assign(y=y), "y"
    from statsmodels import datasets as others

    data = getattr(others, name).load_pandas().data
    return data.sample(min(MOST, len(data)), random_state=0), {**STATSMODELS, **HELD_OUT}[name]


def ours(splits, seed, **given):
    """Score of the net that ``kobai train --data FILE`` makes, and its epochs."""
    settings = RunSettings(data="t.csv", seed=seed, **given)
    settings = replace(settings, **recipe("t.csv", given))
    settings = replace(settings, **for_table(splits, given))
    keep = EarlyStopping(settings.epochs, monitor="val_loss", restore_best=True)
    description = job.describe_model(settings, splits.input_shape, splits.outputs)
    trainer, loader = job.assemble(settings, description, splits.train, callbacks=[keep])
    trainer.fit(loader, splits.validation, epochs=settings.epochs)
    x, t = splits.test.tensors
    found = scores(splits.preparation, trainer.predict(x), t)
    return 100 * found.get("accuracy", found.get("r2")), trainer.epoch


def theirs(splits, seed):
    """Score of scikit-learn's default net."""
    x, t = (np.concatenate([p.tensors[i].numpy() for p in (splits.train, splits.validation)]) for i in (0, 1))
    net = (MLPClassifier if splits.classes else MLPRegressor)(random_state=seed)
    net.fit(x, t.ravel())
    x, t = (part.numpy() for part in splits.test.tensors)
    return 100 * net.score(x, t.ravel())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    gains = []
    print(f"{'table':14}{'rows':>6}{'inputs':>7}  {'kobai':>7}{'scikit':>8}{'gain':>7}{'epochs':>8}{'s':>6}{'s':>6}")
    for name in asked.names or ([*HELD_OUT, *GENERATED] if asked.held_out else [*SCIKIT, *STATSMODELS]):
        whole, target = frame(name)
        ran = []
        for seed in range(asked.seeds):
            splits = table(whole.sample(frac=1, random_state=seed), target, seed=seed)
            began = time.process_time()
            mine, epochs = ours(splits, seed)
            middle = time.process_time()
            ran.append((mine, theirs(splits, seed), epochs, middle - began, time.process_time() - middle))
        gains.append(statistics.median(mine - other for mine, other, *_ in ran))
        mine, other, epochs, took, took_other = (statistics.median(column) for column in zip(*ran, strict=True))
        print(
            f"{name:14}{len(whole):6}{splits.input_shape[0]:7}  {mine:7.2f}{other:8.2f}{gains[-1]:+7.2f}{epochs:8.0f}"
            f"{took:6.1f}{took_other:6.1f}",
            flush=True,
        )
    print(f"median gain {statistics.median(gains):+.2f} points, least {min(gains):+.2f}")


if __name__ == "__main__":
    main()
