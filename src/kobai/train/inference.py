"""Using a trained model: the data it is asked about, its answers, and how good they are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import kobai
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.core.untrusted import real
from kobai.data import NAMES, DataSplits
from kobai.data.images import is_picture, names_images, pictures
from kobai.data.tables.doubts import Doubt
from kobai.data.tables.table import is_table
from kobai.errors import DataError, nearest
from kobai.nn import functional as F
from kobai.train.batches import predict
from kobai.train.job import Restored, checksum, load_data
from kobai.train.metric_base import read
from kobai.train.metrics import Accuracy, Loss, R2Score
from kobai.train.objectives import loss_of
from kobai.train.scores import scores, values
from kobai.train.settings import RunSettings
from kobai.utils.data import TensorDataset
from kobai.xp import asarray, default_device, to_host

Host = np.ndarray[Any, Any]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Questions:
    """Samples for a model, and their true answers if these are known.

    ``inputs``: (N, *input_shape) on the default device. ``labels``: names of classes, or values of a regression, each None
    where it is not known; or None for all. ``split``: their part of a data set, None for all rows of a table. ``notes``:
    warnings for the user. ``files``: the names of images.
    """

    name: str
    inputs: Tensor
    labels: Sequence[Any] | None
    split: str | None = None
    notes: tuple[str, ...] = ()
    files: Sequence[str] | None = None

    @property
    def what(self) -> str:
        """Data, split and number of samples, in words."""
        n = len(self.inputs)
        if self.files is not None:
            return f"{self.name}: {n} image{'s' * (n != 1)}"
        part = f"{self.split} split" if self.split else "all rows"
        return f"{self.name}, {part}: {n} sample{'s' * (n != 1)}"


@dataclass(frozen=True)
class Answers:
    """Arrays on the host: the most probable class of each sample and its probability (N,), and those of ``every`` class (N, K).

    Of a regression all are empty, and ``values`` (N,) are in the target's own unit.
    """

    classes: Host
    probabilities: Host
    every: Host
    values: Host | None = None


def questions(restored: Restored, data: Any = None, data_dir: str | None = None, split: str | None = None) -> Questions:
    """The data to ask a model about.

    ``data=None`` is what the model was trained on. All rows of a table and all images of a folder are used, unless it is that
    one with a split; an image may be asked about alone. The default split of other data sets is the test split. A DataFrame is
    a table too. DataError if the data do not fit the model.
    """
    if data is not None and not isinstance(data, (str, Path)):
        return _of_table(data, restored)
    own = restored.settings
    if data_dir is not None:
        own = replace(own, data_dir=data_dir)
    if data is None or (data == own.data and split is not None):
        return _of_own(restored, own, split or "test")
    if _are_pictures(path := Path(data).expanduser()):
        return _of_pictures(path, restored, split)
    if is_table(data):
        if split is None:
            return _of_table(path, restored)
        if str(real(path)) != own.data:
            raise DataError(f"{data}: has no {split} split, as the model was not trained on it; leave --split out")
        return _of_own(restored, own, split)
    splits = load_data(replace(own, data=str(data)))
    if restored.preparation is not None:
        raise DataError(f"{data}: the model was trained on the table {own.data}, and answers tables with its columns")
    if splits.input_shape != restored.input_shape or splits.classes != restored.classes:
        raise DataError(
            f"{data}: the model takes {_shape(restored.input_shape)} inputs for {len(restored.classes)} classes "
            f"({_few(restored.classes)}), these data have {_shape(splits.input_shape)} inputs and "
            f"{len(splits.classes)} classes ({_few(splits.classes)})"
        )
    return of_split(splits, split or "test")


def answers(restored: Restored, asked: Questions) -> Answers:
    """The model's answers: probabilities by softmax of its scores, or values in the target's unit."""
    output = predict(restored.model, asked.inputs)
    if not restored.classes and restored.preparation is not None:
        none = np.zeros(0, dtype=np.int64)
        return Answers(none, none, none, values(restored.preparation, to_host(output.array)))
    with no_grad():
        host = to_host(F.softmax(output, dim=1).array)
    best = host.argmax(axis=1)
    return Answers(best, host[np.arange(len(best)), best], host)


def score(restored: Restored, asked: Questions) -> dict[str, float]:
    """Loss and accuracy, of tables all :func:`~kobai.train.scores.scores`; DataError without labels, or for an unknown one.

    Samples whose label is not known are left out.
    """
    labels = [label for label in asked.labels or () if label is not None]
    if asked.labels is None or (not labels and len(asked.labels)):
        name = f" (no column {restored.label!r})" if restored.label else ""
        raise DataError(f"{asked.name}: has no labels to compare with{name}; use kobai predict")
    target = _target(restored, asked.name, labels)
    output = predict(restored.model, asked.inputs)
    if len(labels) < len(asked.labels):
        known = np.flatnonzero([label is not None for label in asked.labels])
        output = output[kobai.tensor(known, device=output.device)]
    found, measured = Loss(), R2Score() if target.is_floating_point() else Accuracy()
    found.take(
        loss_of(replace(restored.settings, class_weight="none"), TensorDataset(target, target), restored.outputs)(
            output, target
        ),
        target,
    )
    measured.update(output, target)
    told = read([found, measured])
    return told if restored.preparation is None else told | scores(restored.preparation, output, target)


def _target(restored: Restored, name: str, labels: Sequence[Any]) -> Tensor:
    """The labels as the model's loss takes them."""
    if not restored.classes:
        assert restored.preparation is not None
        host: Host = (np.array(labels, dtype=np.float64) - restored.preparation.shift) / restored.preparation.scale
        host = host.astype(np.float32)[:, None]
    else:
        index = {text: i for i, text in enumerate(restored.classes)}
        for number, label in enumerate(labels):
            if label not in index:
                raise DataError(f"{name}: sample {number} has the label {label!r}.{nearest(label, index)}")
        host = np.array([index[label] for label in labels], dtype=np.int64)
    target: Tensor = Tensor._wrap(asarray(host, device=default_device()))
    return target


def seen(restored: Restored, asked: Questions, data_dir: str | None = None) -> int | None:
    """How many of the samples, compared bit by bit, the model was trained on; None if its data cannot be read."""
    own = restored.settings if data_dir is None else replace(restored.settings, data_dir=data_dir)
    try:
        trained = load_known(replace(own, download=False)).train.tensors[0]
    except (DataError, ImportError, OSError):
        return None
    known = set(_rows(trained))
    return sum(row in known for row in _rows(asked.inputs))


def load_known(settings: RunSettings) -> DataSplits:
    """The data that a model was trained on, without the doubts that training has told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Doubt)
        return load_data(settings)


def _rows(inputs: Tensor) -> list[bytes]:
    host = to_host(inputs.array)
    return [row.tobytes() for row in host]


def _of_own(restored: Restored, own: RunSettings, split: str) -> Questions:
    """A split of what the model was trained on; with a note if the data have changed since."""
    splits = load_known(own)
    asked = of_split(splits, split)
    changed = restored.checksums != tuple(checksum(part) for part in (splits.train, splits.validation, splits.test))
    note = f"{own.data}: has changed since the model was trained on it, so that this split may hold samples it has seen"
    return replace(asked, notes=(note,) * changed)


def of_split(splits: DataSplits, split: str) -> Questions:
    if split not in SPLITS:
        raise ValueError(f"split: unknown split {split!r}.{nearest(split, SPLITS)}")
    part: TensorDataset = getattr(splits, split)
    inputs, target = part.tensors
    if splits.classes:
        labels = [splits.classes[k] for k in to_host(target.array).tolist()]
    else:
        assert splits.preparation is not None
        labels = values(splits.preparation, to_host(target.array)).tolist()
    return Questions(splits.name, inputs, labels, split)


def _are_pictures(path: Path) -> bool:
    if path.is_dir():
        return str(path) not in NAMES
    return is_picture(path) or (path.is_file() and names_images(path))


def _of_pictures(path: Path, restored: Restored, split: str | None) -> Questions:
    """Images of the user's own, cut and scaled as those that the model was trained on."""
    shape, trained = restored.input_shape, restored.settings.data
    if len(shape) != 3 or shape[0] not in (1, 3) or trained == "digits":  # whose values are no pixels of files
        raise DataError(f"{path}: holds images, and the model was trained on {trained}")
    found = pictures(path, shape, restored.classes, split or "test")
    scaled = restored.scaling(found.pixels)
    tensor: Tensor = Tensor._wrap(asarray(scaled, device=default_device()))
    return Questions(str(path), tensor, found.labels, files=found.files)


def _of_table(source: Any, restored: Restored) -> Questions:
    """All rows of a table, prepared as the training rows were; columns by name, by position if there was no header."""
    preparation = restored.preparation
    if preparation is None:
        raise DataError(f"{source}: is a table, and the model was trained on {restored.settings.data}")
    table = preparation.read(source)
    inputs, notes = preparation(table)
    answer, told = preparation.answers(table)
    tensor: Tensor = Tensor._wrap(asarray(inputs, device=default_device()))
    return Questions(table.name, tensor, answer, notes=tuple(f"{table.name}: {note}" for note in (*notes, *told)))


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]}, …, {names[-1]}"
