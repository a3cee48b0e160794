"""``load``: a data set by its name, as the command line gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kobai.data.cifar import cifar10
from kobai.data.embedded import digits
from kobai.data.files import data_dirs
from kobai.data.images import images, is_picture, names_images
from kobai.data.mnist_family import fashion_mnist, mnist
from kobai.data.splits import DataSplits
from kobai.data.tables.table import is_table, table as read_table
from kobai.errors import DataError, nearest

IMAGES = {"mnist": mnist, "fashion-mnist": fashion_mnist, "cifar10": cifar10}

NAMES = ("digits", *IMAGES)


def load(
    name: str | Path,
    data_dir: str | Path | None = None,
    *,
    download: bool = False,
    validation: float = 0.1,
    seed: int = 0,
    **options: Any,
) -> DataSplits:
    """The data set called ``name`` (``digits``, ``mnist``, ``fashion-mnist``, ``cifar10``), a folder of images, or a table.

    A ``name`` that ends as tables do (``.csv``, ``.tsv``, ``.parquet``, ``.xlsx``, …), or is a file, is the path of one, looked
    up as given and then in ``data_dir``; ``options`` are those of :func:`table`, or of :func:`images`. ``digits`` comes with
    a package and does not use ``data_dir`` or ``download``.

    Raises :class:`~kobai.errors.DataError` for an unknown name, with the nearest known one.

    >>> load("digits").input_shape
    (1, 8, 8)
    """
    text = str(name)
    key = text.lower().replace("_", "-")
    if Path(text).expanduser().is_dir() and key not in NAMES:
        return images(Path(text).expanduser(), validation=validation, seed=seed, **options)
    if is_picture(text):
        raise DataError(f"load: {text} is one image; expected a folder that holds a folder of images for each class")
    if is_table(text):
        if download:
            raise DataError(f"load: {text} is a file; only {', '.join(IMAGES)} can be downloaded")
        path = _table_path(Path(text).expanduser(), data_dir)
        if "size" in options or names_images(path):
            given = {"size": options.get("size"), "label": options.get("target", options.get("label"))}
            return images(path, validation=validation, seed=seed, **given)
        return read_table(path, validation=validation, seed=seed, **options)
    if options and key in NAMES:
        raise TypeError(f"load: {', '.join(options)} is for tables, got the data set {text!r}")
    if key == "digits":
        return digits(validation=validation, seed=seed)
    if key in IMAGES:
        return IMAGES[key](data_dir, download=download, validation=validation, seed=seed)
    raise DataError(f"load: {text!r} is neither a known data set nor a file.{nearest(key, NAMES)}")


def _table_path(path: Path, data_dir: str | Path | None) -> Path:
    if path.exists() or path.is_absolute() or data_dir is None:
        return path
    return next((root / path for root in data_dirs(data_dir) if (root / path).exists()), path)
