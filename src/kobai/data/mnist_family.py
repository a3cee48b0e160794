"""MNIST and Fashion-MNIST: two data sets of one form, 28×28 grey images in four IDX files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kobai.data.files import Remote, locate
from kobai.data.idx import read_idx
from kobai.data.splits import DataSplits, Scaling, check_labels, make_splits
from kobai.errors import DataError

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Family:
    """One set of the family. ``first_test_labels`` tell it from its sisters, whose files have the same names."""

    name: str
    folders: tuple[str, ...]
    classes: tuple[str, ...]
    first_test_labels: tuple[int, ...]
    remotes: tuple[Remote, ...]


def _remotes(bases: tuple[str, ...], sha256: tuple[str, ...], sizes: tuple[int, ...]) -> tuple[Remote, ...]:
    names = [f"{name}.gz" for name in IDX_FILES]
    return tuple(
        Remote(name, tuple(base + name for base in bases), checksum, size)
        for name, checksum, size in zip(names, sha256, sizes, strict=True)
    )


MNIST = Family(
    "mnist",
    ("mnist", "MNIST/raw"),
    tuple("0123456789"),
    (7, 2, 1, 0, 4, 1, 4, 9, 5, 9),
    _remotes(
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        (9_912_422, 28_881, 1_648_877, 4_542),
    ),
)

FASHION = Family(
    "fashion-mnist",
    ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"),
    (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    (9, 2, 1, 1, 6, 1, 4, 6, 5, 7),
    _remotes(
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        (26_421_880, 29_515, 4_422_102, 5_148),
    ),
)


def mnist(
    data_dir: str | Path | None = None, *, download: bool = False, validation: float = 0.1, seed: int = 0
) -> DataSplits:
    """MNIST: 60 000 training and 10 000 test images of handwritten digits, inputs (1, 28, 28).

    Reads the four IDX files, plain or gzip, from ``data_dir`` (else ``KOBAI_DATA``, else the cache), there or in its sub
    folder ``mnist``; ``download`` fetches them, with checksums, if they are not there. ``validation`` of the training images
    are held out, drawn with ``seed``, in equal proportions of the classes. Pixels are divided by 255.

    Raises :class:`~kobai.errors.DataError` for missing, truncated or foreign files. Source: Y. LeCun, C. Cortes, C. J. C.
    Burges, "The MNIST database of handwritten digits", 1998.
    """
    return _load(MNIST, data_dir, download, validation, seed)


def fashion_mnist(
    data_dir: str | Path | None = None, *, download: bool = False, validation: float = 0.1, seed: int = 0
) -> DataSplits:
    """Fashion-MNIST: as :func:`mnist`, with ten kinds of clothing; sub folder ``fashion-mnist``.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms", 2017, arXiv:1708.07747.
    """
    return _load(FASHION, data_dir, download, validation, seed)


def _load(family: Family, data_dir: str | Path | None, download: bool, validation: float, seed: int) -> DataSplits:
    name, n_classes = family.name, len(family.classes)
    wanted = [(f"{file}.gz", file, file.replace("-idx", ".idx")) for file in IDX_FILES]
    paths = locate(name, data_dir, family.folders, wanted, family.remotes if download else None)
    train_x, train_t, test_x, test_t = (read_idx(path) for path in paths)
    for path, images, labels in ((paths[1], train_x, train_t), (paths[3], test_x, test_t)):
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or labels.dtype != np.uint8:
            raise DataError(
                f"{name}: expected uint8 images (N, 28, 28) and uint8 labels (N,), got {images.dtype} {images.shape} "
                f"and {labels.dtype} {labels.shape} in {path.parent}"
            )
        check_labels(f"{name}: {path}", labels, len(images), n_classes)
    for other in (MNIST, FASHION):
        if other is not family and tuple(test_t[:10].tolist()) == other.first_test_labels:
            raise DataError(
                f"{name}: the files in {paths[0].parent} are those of {other.name}, which have the same names"
            )
    training, test = (train_x[:, None], train_t), (test_x[:, None], test_t)
    return make_splits(name, training, test, family.classes, validation, seed, Scaling((0.0,), (255.0,)))
