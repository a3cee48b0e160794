"""Using a trained model: the data it is asked about, its answers, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kobai import nn
from kobai._grad_mode import no_grad
from kobai._tensor import Tensor
from kobai.data import DataSplits, table
from kobai.errors import DataError, nearest
from kobai.nn import functional as F
from kobai.train.batches import predict
from kobai.train.job import Restored, load_data
from kobai.train.metrics import Accuracy, Loss, read
from kobai.train.settings import TABLES
from kobai.utils.data import TensorDataset
from kobai.xp import asarray, default_device, to_host

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Questions:
    """Samples for a model, and their true classes where these are known.

    ``inputs``: (N, *input_shape) on the default device. ``labels``: names of classes, or None.
    """

    name: str
    inputs: Tensor
    labels: Sequence[str] | None


@dataclass(frozen=True)
class Answers:
    """For each sample the most probable class and its probability: arrays of shape (N,) on the host."""

    classes: np.ndarray[Any, Any]
    probabilities: np.ndarray[Any, Any]


def questions(restored: Restored, data: str | None, data_dir: str | None, split: str | None) -> Questions:
    """The data to ask a model about.

    ``data=None`` is what the model was trained on; a table is read whole unless it is that one and a split is named; of a
    named data set the test split is the default. Raises DataError where the data do not fit the model.
    """
    own = restored.settings
    if data_dir is not None:
        own = replace(own, data_dir=data_dir)
    if data is None or (data == own.data and split is not None):
        return _of_split(load_data(own), split or "test")
    if Path(data).suffix.lower() in TABLES or Path(data).is_file():
        if split is None:
            return _of_table(Path(data).expanduser(), restored)
        if str(Path(data).expanduser().resolve()) != own.data:
            raise DataError(f"{data}: has no {split} split, as the model was not trained on it; leave --split out")
        return _of_split(load_data(own), split)
    splits = load_data(replace(own, data=data, label=None))
    if splits.input_shape != restored.input_shape or splits.classes != restored.classes:
        raise DataError(
            f"{data}: the model takes {_shape(restored.input_shape)} inputs for {len(restored.classes)} classes "
            f"({_few(restored.classes)}), these data have {_shape(splits.input_shape)} inputs and "
            f"{len(splits.classes)} classes ({_few(splits.classes)})"
        )
    return _of_split(splits, split or "test")


def answers(restored: Restored, asked: Questions) -> Answers:
    """What the model answers, by softmax of its scores."""
    with no_grad():
        probabilities = F.softmax(predict(restored.model, asked.inputs), dim=1)
    host = to_host(probabilities.array)
    best = host.argmax(axis=1)
    return Answers(best, host[np.arange(len(best)), best])


def score(restored: Restored, asked: Questions) -> dict[str, float]:
    """Loss (cross-entropy) and accuracy; DataError without labels, or with one that the model does not know."""
    if asked.labels is None:
        raise DataError(f"{asked.name}: has no labels to compare with; use kobai predict")
    index = {name: i for i, name in enumerate(restored.classes)}
    for number, label in enumerate(asked.labels):
        if label not in index:
            raise DataError(f"{asked.name}: sample {number} has the label {label!r}.{nearest(label, index)}")
    host = np.array([index[label] for label in asked.labels], dtype=np.int64)
    target: Tensor = Tensor._wrap(asarray(host, device=default_device()))
    output = predict(restored.model, asked.inputs)
    loss, accuracy = Loss(), Accuracy()
    loss.take(nn.CrossEntropyLoss()(output, target), target)
    accuracy.update(output, target)
    return read([loss, accuracy])


def _of_split(splits: DataSplits, split: str) -> Questions:
    if split not in SPLITS:
        raise ValueError(f"split: unknown split {split!r}.{nearest(split, SPLITS)}")
    part: TensorDataset = getattr(splits, split)
    inputs, target = part.tensors
    labels = [splits.classes[k] for k in to_host(target.array).tolist()]
    return Questions(f"{splits.name} {split}", inputs, labels)


def _of_table(path: Path, restored: Restored) -> Questions:
    """All rows of a table: columns by name where the training data had a header, else by position."""
    lines = table._read(path, None)
    names = [cell.strip() for cell in lines[0][1]]
    label = restored.settings.label
    if restored.features:
        missing = [name for name in restored.features if name not in names]
        if missing:
            raise DataError(
                f"{path}: no column named {missing[0]!r}, which the model was trained on.{nearest(missing[0], names)}"
            )
        columns = [names.index(name) for name in restored.features]
        others = [i for i in range(len(names)) if i not in columns]
        # Without a name for the label in the settings it was the last column; here that is what is left over.
        answer = names.index(label) if label in names else others[0] if len(others) == 1 else None
        rows = lines[1:]
    else:
        width = restored.input_shape[0]
        position = int(label) if label is not None else -1
        if len(names) not in (width, width + 1):
            raise DataError(f"{path}: expected {width} columns, or {width + 1} with the label, got {len(names)}")
        answer = position % len(names) if len(names) == width + 1 else None
        columns = [i for i in range(len(names)) if i != answer]
        headed = not any(table._is_number(names[i]) for i in columns)
        rows = lines[1:] if headed else lines
    if not rows:
        raise DataError(f"{path}: no rows")
    for number, cells in rows:
        if len(cells) != len(names):
            raise DataError(f"{path}: row {number} has {len(cells)} cells, expected {len(names)}")
    shown = restored.features or [f"column {i}" for i in columns]
    values = table._features(path, [(number, [cells[i] for i in columns]) for number, cells in rows], shown)
    labels = None if answer is None else [_class(cells[answer].strip(), restored.classes) for _, cells in rows]
    inputs: Tensor = Tensor._wrap(asarray(restored.scaling(values), device=default_device()))
    return Questions(str(path), inputs, labels)


def _class(cell: str, classes: Sequence[str]) -> str:
    """A label as the classes are spelt: integers may be written with a fraction of zero."""
    if cell not in classes and table._is_number(cell) and float(cell).is_integer():
        return str(int(float(cell)))
    return cell


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]}, …, {names[-1]}"
