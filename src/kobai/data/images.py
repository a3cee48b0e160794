"""Images of one's own as a data set: a folder of folders, or a table of paths and classes."""

from __future__ import annotations

import csv
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kobai.core.untrusted import regular
from kobai.data.image_folder import EXTENSIONS, ImageFolder, files_in, open_image
from kobai.data.splits import TEST_FRACTION, TEST_SEED, DataSplits, Host, Scaling, make_splits, stratified
from kobai.errors import DataError, nearest, users_line

SIDE = 64
"""Height and width of images that come in several sizes, unless a size is given."""

VALIDATION_FOLDERS = ("val", "valid", "validation")
PARTS = {"train": ("train",), "validation": VALIDATION_FOLDERS, "test": ("test",)}

Samples = list[tuple[str, str]]
"""Path and class of each image."""


def images(
    path: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    label: str | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> DataSplits:
    """Images in ``path/<class>/``, or those that a CSV file names; inputs are (C, H, W), pixels divided by 255.

    A folder that holds ``train`` and ``test`` (and perhaps ``val``), each with a folder for every class, is split so;
    else a stratified fifth, the same for every ``seed``, is the test split. A table has one column of paths, relative to its
    own folder, and one of classes. C is 1 where all images are grey, else 3.

    Args:
        path: the folder or the table.
        size: height and width; larger and smaller images are scaled so that they cover it, and the middle is taken.
            Default: that of the images if all have the same, else 64 × 64, with a warning.
        label: the column of the class; default: the first other than the paths.
        validation, seed: the share of the other images held out for validation, and the seed of that draw.

    Raises :class:`~kobai.errors.DataError` for what is no image, a folder without classes, a class of one image.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for k in range(20):
    ...         file = Path(root, "dark" if k % 2 else "light", f"{k}.png")
    ...         file.parent.mkdir(exist_ok=True)
    ...         Image.new("L", (8, 6), 20 if k % 2 else 200).save(file)
    ...     splits = images(root)
    >>> splits.classes, splits.input_shape, len(splits.test)
    (('dark', 'light'), (1, 6, 8), 4)
    """
    path = Path(path)
    parts = _in_folders(path) if path.is_dir() else {"": _in_table(path, label)}
    classes = tuple(sorted({name for samples in parts.values() for _, name in samples}))
    if len(classes) < 2:
        raise DataError(
            f"{path}: expected images of at least two classes, got {', '.join(map(repr, classes)) or 'none'}"
        )
    pictures = {part: [open_image(file) for file, _ in samples] for part, samples in parts.items()}
    every = [picture for part in pictures.values() for picture in part]
    side = _size(path, every, size)
    grey = all(_is_grey(picture) for picture in every)
    found = {
        part: (_stacked(pictures[part], side, grey), np.array([classes.index(name) for _, name in samples]))
        for part, samples in parts.items()
    }
    return _split(path, found, classes, validation, seed)


@dataclass(frozen=True)
class Pictures:
    """Images that a model is asked about: pixels (N, C, H, W), names of files, and classes if folders or a table say them."""

    pixels: Host
    files: list[str]
    labels: list[str] | None


def is_picture(path: str | Path) -> bool:
    """Whether a path ends as those of images do."""
    return str(path).lower().endswith(EXTENSIONS)


def pictures(path: str | Path, shape: Sequence[int], classes: Sequence[str], part: str = "test") -> Pictures:
    """The image ``path``, those in a folder, or those that a CSV file names, scaled and cut to ``shape`` (C, H, W).

    Where a folder holds folders that are called as ``classes`` are, these are the labels; of one that is parted into
    ``train``, ``test`` and perhaps ``val``, the ``part`` is read.

    Raises :class:`~kobai.errors.DataError` where there is no image.
    """
    path, labels = Path(path), None
    if path.is_dir():
        root = path
        if {"train", "test"} <= {entry.name for entry in path.iterdir()}:
            root = next((path / name for name in PARTS[part] if (path / name).is_dir()), path)
        files = [file for file in files_in(str(root)) if is_picture(file)]
        first = [Path(file).relative_to(root).parts[0] for file in files]
        labels = first if set(first) & set(classes) else None
    elif is_picture(path):
        root, files = path.parent, [str(path)]
    else:
        root, (files, labels) = path.parent, _columns(path)
    if not files:
        raise DataError(f"{path}: no image in this folder; they end in {', '.join(EXTENSIONS)}")
    channels, *side = shape
    found = _stacked([open_image(file) for file in files], (side[0], side[1]), channels == 1)
    return Pictures(found, [os.path.relpath(file, root) for file in files], labels)


def _columns(path: Path) -> tuple[list[str], list[str] | None]:
    """Paths, and classes if there are any, in a CSV file."""
    if len(_rows(path, 1)[0]) == 1:
        return [file for file, _ in _in_table(path, _rows(path, 1)[0][0])], None
    files, labels = zip(*_in_table(path, None), strict=True)
    return list(files), list(labels)


def _split(
    path: Path, found: dict[str, tuple[Host, Host]], classes: tuple[str, ...], validation: float, seed: int
) -> DataSplits:
    name, scaling = path.stem, Scaling((0.0,), (255.0,))
    if "" in found:
        pixels, labels = found[""]
        _, counts = np.unique(labels, return_counts=True)
        if counts.min() < 2:
            raise DataError(f"{path}: class {classes[int(counts.argmin())]!r} has one image; at least two are needed")
        rest, apart = stratified(labels, TEST_FRACTION, TEST_SEED, f"{path}: test")
        found = {"train": (pixels[rest], labels[rest]), "test": (pixels[apart], labels[apart])}
    held = found.get("validation", validation)
    return make_splits(name, found["train"], found["test"], classes, held, seed, scaling)


def _in_folders(path: Path) -> dict[str, Samples]:
    """The images by part: "" for all, or train, test and perhaps validation."""
    inside = {entry.name: entry for entry in path.iterdir() if entry.is_dir()}
    if not {"train", "test"} <= inside.keys():
        return {"": _samples(path)}
    parts = {"train": _samples(inside["train"]), "test": _samples(inside["test"])}
    for name in VALIDATION_FOLDERS:
        if name in inside:
            parts["validation"] = _samples(inside[name])
    known = {name for _, name in parts["train"]}
    for part, samples in parts.items():
        for _, name in samples:
            if name not in known:
                raise DataError(
                    f"{path}: class {name!r} of the part {part!r} has no folder in train.{nearest(name, known)}"
                )
    return parts


def _samples(path: Path) -> Samples:
    folder = ImageFolder(path)
    return [(file, folder.classes[k]) for file, k in folder.samples]


def names_images(path: Path) -> bool:
    """Whether a file is a table with a column of paths of images."""
    try:
        header, *rows = _rows(path, 21)
    except (DataError, ValueError):
        return False
    return _paths_column(header, rows) is not None


def _rows(path: Path, most: int | None = None) -> list[list[str]]:
    try:
        with regular(path).open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            return list(islice((row for row in reader if any(row)), most))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table of images ({error})") from error


def _in_table(path: Path, label: str | None) -> Samples:
    rows = _rows(path)
    if len(rows) < 2:
        raise DataError(f"{path}: expected a header and a row for each image")
    header, rows = rows[0], rows[1:]
    files = _paths_column(header, rows)
    if files is None:
        raise DataError(f"{path}: no column holds paths of images; they end in {', '.join(EXTENSIONS)}")
    if label is not None and label not in header:
        raise DataError(f"{path}: no column named {label!r}.{nearest(label, header)}")
    column = header.index(label) if label is not None else next((k for k in range(len(header)) if k != files), None)
    if column is None:
        raise DataError(f"{path}: expected a column of classes beside the paths")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise DataError(f"{path}: row {number} has {len(row)} cells, expected {len(header)}")
    return [(str(path.parent / row[files]), row[column].strip()) for row in rows]


def _paths_column(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int | None:
    """The column of a table that holds the paths of images, if there is one."""
    few = rows[:20]
    return next(
        (k for k in range(len(header)) if few and all(row[k : k + 1] and _is_path(row[k]) for row in few)), None
    )


def _is_path(cell: str) -> bool:
    return is_picture(cell.strip())


def _size(path: Path, pictures: Sequence[Any], size: int | tuple[int, int] | None) -> tuple[int, int]:
    if size is not None:
        return (size, size) if isinstance(size, int) else size
    counts = Counter((picture.height, picture.width) for picture in pictures)
    if len(counts) == 1:
        return next(iter(counts))
    (low, high) = min(counts), max(counts)
    warnings.warn(
        f"{path}: images of {len(counts)} sizes, from {low[0]} × {low[1]} to {high[0]} × {high[1]}; each is scaled and cut "
        f"to {SIDE} × {SIDE}. size= (--image-size) sets another",
        stacklevel=users_line(),
    )
    return SIDE, SIDE


def _is_grey(picture: Any) -> bool:
    array = np.asarray(picture)
    return bool((array[..., 0] == array[..., 1]).all() and (array[..., 1] == array[..., 2]).all())


def _stacked(pictures: Sequence[Any], side: tuple[int, int], grey: bool) -> Host:
    """(N, C, H, W) in uint8: scaled so that ``side`` is covered, then the middle."""
    from PIL import ImageOps

    rows = []
    for picture in pictures:
        if (picture.height, picture.width) != side:
            picture = ImageOps.fit(picture, side[::-1])
        rows.append(np.asarray(picture.convert("L"))[None] if grey else np.asarray(picture).transpose(2, 0, 1))
    return np.stack(rows)
