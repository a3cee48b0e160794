"""Small data files in the published formats, for tests."""

import gzip
import io
import struct
import tarfile

import numpy as np

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

FIRST = {"mnist": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9], "fashion-mnist": [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]}


def idx(array):
    array = np.asarray(array, dtype=np.uint8)
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist_contents(kind="mnist", train=60, test=20, side=28):
    """The four files of a tiny set of the family, by name."""
    rng = np.random.default_rng(0)
    train_labels = np.arange(train) % 10
    test_labels = np.array((FIRST[kind] * (test // 10 + 1))[:test])
    arrays = (
        rng.integers(0, 256, (train, side, side)),
        train_labels,
        rng.integers(0, 256, (test, side, side)),
        test_labels,
    )
    return {name: idx(array) for name, array in zip(NAMES, arrays, strict=True)}


def write_mnist(folder, zipped=True, **options):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in mnist_contents(**options).items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / name).write_bytes(content)
    return folder


def cifar_contents(n=20):
    """The six files of a tiny CIFAR-10, by name; image i is filled with i."""
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    records = np.zeros((n, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(n) % 10
    records[:, 1:] = np.arange(n)[:, None]
    records[:, 1 + 1024] = 200  # the first green pixel
    return {name: records.tobytes() for name in names}


def cifar_archive(contents=None):
    """The bytes of a cifar-10-binary.tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (contents or cifar_contents()).items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
