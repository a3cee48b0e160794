"""Using a trained model: the data it is asked about, its answers, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kobai import nn
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.core.untrusted import real
from kobai.data import DataSplits, table
from kobai.errors import DataError, nearest
from kobai.nn import functional as F
from kobai.train.batches import predict
from kobai.train.job import Restored, checksum, load_data
from kobai.train.metric_base import read
from kobai.train.metrics import Accuracy, Loss
from kobai.train.settings import TABLES, RunSettings
from kobai.utils.data import TensorDataset
from kobai.xp import asarray, default_device, to_host

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Questions:
    """Samples for a model, and their true classes if these are known.

    ``inputs``: (N, *input_shape) on the default device. ``labels``: names of classes, or None. ``split``: their part of a data
    set, None for all rows of a table. ``notes``: warnings for the user.
    """

    name: str
    inputs: Tensor
    labels: Sequence[str] | None
    split: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """Data, split and number of samples, in words."""
        n = len(self.inputs)
        part = f"{self.split} split" if self.split else "all rows"
        return f"{self.name}, {part}: {n} sample{'s' * (n != 1)}"


@dataclass(frozen=True)
class Answers:
    """The most probable class of each sample and its probability: arrays (N,) on the host."""

    classes: np.ndarray[Any, Any]
    probabilities: np.ndarray[Any, Any]


def questions(restored: Restored, data: str | None, data_dir: str | None, split: str | None) -> Questions:
    """The data to ask a model about.

    ``data=None`` is what the model was trained on. All rows of a table are used, unless it is that one with a split. The
    default split of other data sets is the test split. DataError if the data do not fit the model.
    """
    own = restored.settings
    if data_dir is not None:
        own = replace(own, data_dir=data_dir)
    if data is None or (data == own.data and split is not None):
        return _of_own(restored, own, split or "test")
    if Path(data).suffix.lower() in TABLES or Path(data).is_file():
        if split is None:
            return _of_table(Path(data).expanduser(), restored)
        if str(real(Path(data).expanduser())) != own.data:
            raise DataError(f"{data}: has no {split} split, as the model was not trained on it; leave --split out")
        return _of_own(restored, own, split)
    splits = load_data(replace(own, data=data, label=None))
    if splits.input_shape != restored.input_shape or splits.classes != restored.classes:
        raise DataError(
            f"{data}: the model takes {_shape(restored.input_shape)} inputs for {len(restored.classes)} classes "
            f"({_few(restored.classes)}), these data have {_shape(splits.input_shape)} inputs and "
            f"{len(splits.classes)} classes ({_few(splits.classes)})"
        )
    return _of_split(splits, split or "test")


def answers(restored: Restored, asked: Questions) -> Answers:
    """The model's answers, by softmax of its scores."""
    with no_grad():
        probabilities = F.softmax(predict(restored.model, asked.inputs), dim=1)
    host = to_host(probabilities.array)
    best = host.argmax(axis=1)
    return Answers(best, host[np.arange(len(best)), best])


def score(restored: Restored, asked: Questions) -> dict[str, float]:
    """Loss (cross-entropy) and accuracy; DataError without labels, or for an unknown one."""
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


def seen(restored: Restored, asked: Questions, data_dir: str | None = None) -> int | None:
    """How many of the samples, compared bit by bit, the model was trained on; None if its data cannot be read."""
    own = restored.settings if data_dir is None else replace(restored.settings, data_dir=data_dir)
    try:
        trained = load_data(replace(own, download=False)).train.tensors[0]
    except (DataError, ImportError, OSError):
        return None
    known = set(_rows(trained))
    return sum(row in known for row in _rows(asked.inputs))


def _rows(inputs: Tensor) -> list[bytes]:
    host = to_host(inputs.array)
    return [row.tobytes() for row in host]


def _of_own(restored: Restored, own: RunSettings, split: str) -> Questions:
    """A split of what the model was trained on; with a note if the data have changed since."""
    splits = load_data(own)
    asked = _of_split(splits, split)
    changed = restored.checksums != tuple(checksum(part) for part in (splits.train, splits.validation, splits.test))
    note = f"{own.data}: has changed since the model was trained on it, so that this split may hold samples it has seen"
    return replace(asked, notes=(note,) * changed)


def _of_split(splits: DataSplits, split: str) -> Questions:
    if split not in SPLITS:
        raise ValueError(f"split: unknown split {split!r}.{nearest(split, SPLITS)}")
    part: TensorDataset = getattr(splits, split)
    inputs, target = part.tensors
    labels = [splits.classes[k] for k in to_host(target.array).tolist()]
    return Questions(splits.name, inputs, labels, split)


def _of_table(path: Path, restored: Restored) -> Questions:
    """All rows of a table: columns by name if the training data had a header, else by position."""
    lines = table._read(path, None)
    names = [cell.strip() for cell in lines[0][1]]
    if restored.features:
        columns, rows = _columns_by_name(path, names, restored.features), lines[1:]
    else:
        width = restored.input_shape[0]
        if len(names) not in (width, width + 1):
            raise DataError(f"{path}: expected {width} columns, or {width + 1} with the label, got {len(names)}")
        label = int(restored.settings.label) if restored.settings.label is not None else -1
        columns = [i for i in range(len(names)) if len(names) == width or i != label % len(names)]
        headed = not any(table._is_number(names[i]) for i in columns)
        rows = lines[1:] if headed else lines
    if not rows:
        raise DataError(f"{path}: no rows")
    for number, cells in rows:
        if len(cells) != len(names):
            raise DataError(f"{path}: row {number} has {len(cells)} cells, expected {len(names)}")
    answer, notes = _label_among(path, names, columns, rows, restored)
    shown = restored.features or [f"column {i}" for i in columns]
    values = table._features(path, [(number, [cells[i] for i in columns]) for number, cells in rows], shown)
    labels = None if answer is None else [_class(cells[answer].strip(), restored.classes) for _, cells in rows]
    inputs: Tensor = Tensor._wrap(asarray(restored.scaling(values), device=default_device()))
    return Questions(str(path), inputs, labels, notes=notes)


def _columns_by_name(path: Path, names: list[str], features: Sequence[str]) -> list[int]:
    """The columns of the features; several of one name keep their order."""
    columns, taken = [], dict.fromkeys(features, 0)
    for name in features:
        places = [i for i, there in enumerate(names) if there == name]
        if len(places) != features.count(name):
            problem = "no column" if not places else f"{len(places)} columns"
            many = "" if features.count(name) == 1 else f" {features.count(name)} times"
            hint = "" if places else nearest(name, names)
            raise DataError(f"{path}: {problem} named {name!r}, which the model was trained on{many}.{hint}")
        columns.append(places[taken[name]])
        taken[name] += 1
    return columns


def _label_among(
    path: Path, names: list[str], columns: list[int], rows: Sequence[tuple[int, list[str]]], restored: Restored
) -> tuple[int | None, tuple[str, ...]]:
    """The column of the label, if there is one, and notes on the columns that the model does not use.

    The label has the same name as in training. If that is not known, it is the column that holds known classes only.
    """
    others = [i for i in range(len(names)) if i not in columns]
    given = restored.settings.label
    name = restored.label or (given if given is not None and not given.removeprefix("-").isdecimal() else None)
    if restored.features and name is not None:
        named = [i for i in others if names[i] == name]
        if len(named) > 1:
            raise DataError(f"{path}: {len(named)} columns named {name!r}, which is the label")
        return (named[0] if named else None), _left_out(path, [names[i] for i in others if i not in named])

    def strange(i: int) -> tuple[int, str] | None:
        """The first row and cell of a column that is not a known class."""
        cells = ((number, row[i].strip()) for number, row in rows)
        return next((at for at in cells if _class(at[1], restored.classes) not in restored.classes), None)

    holding = [i for i in others if strange(i) is None]
    if restored.features:
        answer = holding[0] if len(holding) == 1 else None
        note = (
            ()
            if answer is None
            else (f"{path}: column {names[answer]!r}, which holds known classes only, is the label",)
        )
        return answer, (*note, *_left_out(path, [names[i] for i in others if i != answer]))
    if others and (bad := strange(others[0])) is not None:
        raise DataError(
            f"{path}: column {others[0]} of {len(names)} is the label by its place, and row {bad[0]} holds {bad[1]!r} there, "
            f"which is no class ({_few(restored.classes)}); expected {len(columns)} columns without a label"
        )
    return (others[0] if others else None), ()


def _left_out(path: Path, names: list[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        f"{path}: not used, as the model was not trained on {'it' if len(names) == 1 else 'them'}: {', '.join(names)}",
    )


def _class(cell: str, classes: Sequence[str]) -> str:
    """A label in the spelling of the classes: ``1.0`` is ``1``."""
    if cell not in classes and table._is_number(cell) and float(cell).is_integer():
        return str(int(float(cell)))
    return cell


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]}, …, {names[-1]}"
