"""Recipes: the defaults that ``kobai train`` has for some data sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kobai.data import DataSplits
from kobai.data.images import names_images
from kobai.data.tables.table import is_table
from kobai.train.models import EVERY
from kobai.train.settings import RunSettings

RECIPES: dict[str, dict[str, Any]] = {
    # A net soon knows 1294 images by heart. A wide, regularised one generalises best: 97.9 % (97.2 to 98.6 % over ten seeds),
    # against 96.2 % with the defaults for large sets.
    "digits": {
        "hidden": (256, 256),
        "batch_norm": True,
        "dropout": 0.5,
        "lr": 0.003,
        "schedule": "plateau",
        "batch_size": 32,
        "epochs": 40,
    },
    # 60 000 images in 5 epochs: 97.9 %, against 97.3 % at a constant rate of 0.001.
    "mnist": {"lr": 0.002, "schedule": "cosine", "epochs": 10},
    "fashion-mnist": {"lr": 0.002, "schedule": "cosine", "epochs": 20},
}
"""Defaults for a data set, unless the command line or a file says otherwise."""


UPDATES = 13_500
"""Updates that a run on a table has time for: 30 epochs of 45 000 rows. Progress ends most runs before."""

SMALL = 2000
"""Training rows below which batches are small, so that an epoch has some updates."""

ENOUGH = 450
"""Updates of an epoch: where there are more rows, batches grow instead, up to ``LARGEST``."""

LARGEST = 1000
"""Samples of a batch; larger ones take as long for each sample, and learn less by it."""

TABLE: dict[str, Any] = {
    # Xavier's smaller weights, dropout and one hidden layer: R² of 0.65 for star98's 240 rows, where two layers that begin
    # with He's weights reach 0.52, and 0.50 for diabetes, against 0.42. Training anew on the validation rows too, for as many
    # updates, gained nothing on 13 small tables (median of the differences -0.1 points), and is not done.
    "hidden": (100,),
    "init": "xavier",
    "dropout": 0.2,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "lr": 0.001,
    "batch_size": 100,
    "epochs": 300,
    "patience": 60,
}
"""Defaults for tables; those of batches and epochs hold for small ones, see :func:`for_table`."""


def for_table(data: DataSplits, given: Mapping[str, Any]) -> dict[str, Any]:
    """Batch size, epochs and patience for a table of so many rows, where they are not ``given``; nothing for other data.

    The validation loss ends a run; ``epochs`` are as many as there is time for, from 30 to 300.
    """
    if data.preparation is None:
        return {}
    n = len(data.train)
    size = given.get("batch_size", 32 if n < SMALL else min(max(TABLE["batch_size"], n // ENOUGH), LARGEST))
    epochs = given.get("epochs", min(max(UPDATES // -(-n // size), 30), TABLE["epochs"]))
    found = {"batch_size": size, "epochs": epochs, "patience": max(5, epochs // 5)}
    return {name: value for name, value in found.items() if name not in given}


def recipe(data: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The data set's defaults for settings that are not ``given``; its learning rate is for Adam alone,
    and what describes a net for the MLP.

    >>> recipe("mnist", {"epochs": 5}), recipe("mnist", {"optimizer": "sgd", "epochs": 5})
    ({'lr': 0.002, 'schedule': 'cosine'}, {'schedule': 'cosine'})
    """
    other_rule = given.get("optimizer", RunSettings.optimizer) != RunSettings.optimizer
    left_out = {*given, *(["lr"] if other_rule else [])}
    if given.get("model", RunSettings.model) != RunSettings.model:  # the recipes are the MLP's; others keep its rate
        left_out |= {*EVERY, "epochs", "batch_size"}
    of_rows = is_table(data) and not names_images(Path(data).expanduser())
    found = TABLE if of_rows else RECIPES.get(data.lower().replace("_", "-"), {})
    return {name: value for name, value in found.items() if name not in left_out}
