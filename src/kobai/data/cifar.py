"""CIFAR-10, from its binary version: 32×32 colour images of ten classes."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from kobai.core.untrusted import Bounded, read_most, regular
from kobai.data.files import Remote, data_dirs, find, locate
from kobai.data.splits import DataSplits, Host, Scaling, check_labels, make_splits
from kobai.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")

REMOTE = Remote(
    "cifar-10-binary.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170_052_171,
)

RECORD = 1 + 3 * 32 * 32
"""Bytes of one image: its label, then its red, green and blue planes, row by row."""

MOST = 10_000 * RECORD
"""Bytes of one of the six files: it has at most so many images."""

ARCHIVE = (len(BATCHES) + 1) * MOST
"""Bytes of the unpacked archive at most, which holds a few small files beside the six."""


def cifar10(
    data_dir: str | Path | None = None, *, download: bool = False, validation: float = 0.1, seed: int = 0
) -> DataSplits:
    """CIFAR-10: 50 000 training and 10 000 test images, inputs (3, 32, 32).

    Reads the binary version, ``cifar-10-binary.tar.gz`` or the six ``.bin`` files unpacked from it, from ``data_dir`` (else
    ``KOBAI_DATA``, else the cache), there or in its sub folder ``cifar10`` or ``cifar-10-batches-bin``; ``download`` fetches
    the archive, with checksum, if nothing is there. Validation split and pixels are as in :func:`~kobai.data.mnist`.

    Raises :class:`~kobai.errors.DataError` for missing, truncated or foreign files. Source: A. Krizhevsky, "Learning
    multiple layers of features from tiny images", 2009.
    """
    folders = ("cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin")
    unpacked = find("cifar10", data_dirs(data_dir), folders, [(name,) for name in BATCHES])
    if unpacked:
        contents = {path.name: (str(path), _read(path)) for path in unpacked}
    else:
        remotes = (REMOTE,) if download else None
        (archive,) = locate("cifar10", data_dir, folders, [(REMOTE.name,)], remotes)
        contents = _unpack(archive)
    parts = [_parse(*contents[name]) for name in BATCHES]
    training = np.concatenate([x for x, _ in parts[:-1]]), np.concatenate([t for _, t in parts[:-1]])
    return make_splits("cifar10", training, parts[-1], CLASSES, validation, seed, Scaling((0.0,), (255.0,)))


def _read(path: Path) -> bytes:
    try:
        with regular(path).open("rb") as file:
            return read_most(file, MOST + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _unpack(archive: Path) -> dict[str, tuple[str, bytes]]:
    """Contents of the six files in the archive, by name, each with what to call it in an error."""
    contents = {}
    try:
        # As a stream, so that the bound holds for headers, for sparse files, and for what is passed over.
        with (
            regular(archive).open("rb") as packed,
            gzip.open(packed) as unpacked,
            tarfile.open(fileobj=Bounded(cast(BinaryIO, unpacked), ARCHIVE), mode="r|") as tar,
        ):
            for member in tar:
                name = Path(member.name).name
                if name in BATCHES and name not in contents and member.isreg():
                    if member.size > MOST:
                        raise DataError(f"{archive}: {name} claims {member.size} bytes, expected {MOST} at most")
                    file = tar.extractfile(member)
                    assert file is not None
                    contents[name] = (f"{archive}: {name}", file.read())
    except DataError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        tarfile.TarError,
        zlib.error,
    ) as error:  # ValueError: false numbers in headers
        raise DataError(f"{archive}: not a readable tar.gz archive, or a truncated one ({error})") from error
    lacking = [name for name in BATCHES if name not in contents]
    if lacking:
        raise DataError(f"{archive}: lacks {', '.join(lacking)}; expected the binary version of CIFAR-10")
    return contents


def _parse(who: str, content: bytes) -> tuple[Host, Host]:
    """Images (N, 3, 32, 32) and labels (N,), both uint8."""
    if len(content) > MOST:
        raise DataError(f"{who}: longer than the {MOST} bytes of a file of CIFAR-10")
    if not content or len(content) % RECORD:
        raise DataError(
            f"{who}: expected a multiple of {RECORD} bytes, found {len(content)}; truncated or not CIFAR-10"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0]
    check_labels(who, labels, len(records), len(CLASSES))
    return records[:, 1:].reshape(-1, 3, 32, 32), labels
