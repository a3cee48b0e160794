"""kobai.data: digits, MNIST, Fashion-MNIST, CIFAR-10."""

import gzip
import hashlib
import os
import sys
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import kobai
from data.builders import NAMES, cifar_archive, cifar_contents, idx, mnist_contents, write_mnist
from kobai.data import cifar, cifar10, digits, fashion_mnist, mnist
from kobai.data.idx import read_idx
from kobai.data.splits import stratified
from kobai.errors import DataError
from kobai.utils.data import TensorDataset

REAL_MNIST = Path(os.environ.get("KOBAI_DATA", Path(__file__).parents[2] / "../shared/data/mnist"))


def same(a, b):
    return all(kobai.equal(x, y) for x, y in zip(a.tensors, b.tensors, strict=True))


def check(splits, channels, side):
    for part in (splits.train, splits.validation, splits.test):
        assert isinstance(part, TensorDataset)
        x, t = part.tensors
        assert x.shape == (len(part), channels, side, side)
        assert x.dtype == np.float32
        assert t.dtype == np.int64
        assert x.min().item() >= 0
        assert x.max().item() <= 1
        assert t.min().item() >= 0
        assert t.max().item() < len(splits.classes)
    assert splits.input_shape == (channels, side, side)


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits():
    splits = digits()
    check(splits, 1, 8)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [1294, 144, 359]
    assert splits.classes == tuple("0123456789")
    assert splits.train.tensors[0].max().item() == 1.0
    assert splits.scaling.scale == (16.0,)
    per_class = np.bincount(splits.test.tensors[1].numpy())
    assert per_class.min() >= 34
    assert "1294 train, 144 validation, 359 test; 1×8×8 inputs, 10 classes" in repr(splits)


def test_digits_are_split_without_loss_or_overlap():
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits

    splits = digits()
    parts = [p.tensors[0].numpy().reshape(len(p), -1) for p in (splits.train, splits.validation, splits.test)]
    rows = np.concatenate(parts)
    original = (load_digits().data / 16).astype(np.float32)
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], original[np.lexsort(original.T)])


def test_the_test_split_does_not_depend_on_the_seed():
    a, b, again = digits(seed=1), digits(seed=2, validation=0.3), digits(seed=1)
    assert same(a.test, b.test)
    assert same(a.train, again.train)
    assert same(a.validation, again.validation)
    assert len(b.validation) == 431
    assert not same(digits(seed=3).validation, a.validation)


def test_splitting_draws_nothing_from_the_default_generator():
    before = kobai.get_rng_state()
    digits(seed=5)
    assert kobai.get_rng_state() == before


@pytest.mark.parametrize("validation", [0, 1, -0.1, 1.5, "half", None])
def test_validation_must_be_a_fraction(validation):
    with pytest.raises(ValueError, match="validation: expected a fraction between 0 and 1"):
        digits(validation=validation)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'kobai\[data\]'"):
        digits()


# --- stratified -------------------------------------------------------------------------------------------------------


def test_stratified_keeps_proportions_and_order():
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    rest, apart = stratified(labels, 0.25, 0, "x")
    assert np.bincount(labels[apart]).tolist() in ([15, 7, 3], [15, 8, 2])
    assert sorted([*rest, *apart]) == list(range(100))
    assert (np.diff(rest) > 0).all()
    assert (np.diff(apart) > 0).all()


def test_stratified_needs_enough_samples():
    with pytest.raises(DataError, match="x: the data set is empty"):
        stratified(np.array([], dtype=int), 0.5, 0, "x")
    with pytest.raises(DataError, match=r"2 samples are too few to set 0\.1"):
        stratified(np.array([0, 1]), 0.1, 0, "x")


# --- MNIST and Fashion-MNIST ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("sub", ["", "mnist", "MNIST/raw"])
def test_mnist_from_a_folder(tmp_path, zipped, sub):
    write_mnist(tmp_path / sub, zipped)
    splits = mnist(tmp_path)
    check(splits, 1, 28)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [54, 6, 20]
    raw = np.frombuffer(mnist_contents()[NAMES[2]][16:], np.uint8).reshape(-1, 1, 28, 28)
    np.testing.assert_allclose(splits.test.tensors[0].numpy(), raw / 255, rtol=1e-6)
    assert splits.test.tensors[1][:4].tolist() == [7, 2, 1, 0]


def test_mnist_under_the_other_common_names(tmp_path):
    for name, content in mnist_contents().items():
        (tmp_path / name.replace("-idx", ".idx")).write_bytes(content)
    assert len(mnist(tmp_path).test) == 20


def test_folder_from_the_environment_and_from_the_cache(tmp_path, monkeypatch):
    write_mnist(tmp_path / "elsewhere")
    monkeypatch.setenv("KOBAI_DATA", str(tmp_path / "elsewhere"))
    assert len(mnist().test) == 20
    monkeypatch.delenv("KOBAI_DATA")
    with pytest.raises(DataError, match="no files found"):
        mnist()
    write_mnist(tmp_path / "cache" / "kobai" / "mnist", test=10)
    if sys.platform.startswith("linux"):
        assert len(mnist().test) == 10
        monkeypatch.setenv("KOBAI_DATA", str(tmp_path / "nothing here"))
        assert len(mnist().test) == 10


def test_fashion_mnist(tmp_path):
    write_mnist(tmp_path / "fashion-mnist", kind="fashion-mnist")
    splits = fashion_mnist(tmp_path)
    check(splits, 1, 28)
    assert splits.name == "fashion-mnist"
    assert splits.classes[9] == "ankle boot"


def test_the_two_sets_are_not_mistaken_for_each_other(tmp_path):
    write_mnist(tmp_path / "a", kind="mnist")
    write_mnist(tmp_path / "b", kind="fashion-mnist")
    with pytest.raises(DataError, match="are those of mnist"):
        fashion_mnist(tmp_path / "a")
    with pytest.raises(DataError, match="are those of fashion-mnist"):
        mnist(tmp_path / "b")


def test_missing_files_say_where_and_what(tmp_path):
    with pytest.raises(DataError, match=r"mnist: no files found in .*train-images-idx3-ubyte\.gz.*download=True"):
        mnist(tmp_path / "nowhere")
    write_mnist(tmp_path)
    (tmp_path / f"{NAMES[1]}.gz").unlink()
    with pytest.raises(DataError, match=r"lacks train-labels-idx1-ubyte\.gz"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NAMES[0]: idx(np.zeros((60, 8, 8)))}, r"expected uint8 images \(N, 28, 28\).*\(60, 8, 8\)"),
        ({NAMES[1]: idx(np.zeros(59))}, r"expected 60 labels, one for each sample, got shape \(59,\)"),
        ({NAMES[1]: idx(np.zeros((60, 1)))}, r"got shape \(60, 1\)"),
        ({NAMES[3]: idx([0] * 19 + [10])}, "expected labels below 10, got 10 at position 19"),
        ({NAMES[2]: idx(np.zeros((0, 28, 28))), NAMES[3]: idx([])}, "the test split is empty"),
        ({NAMES[0]: idx(np.zeros((0, 28, 28))), NAMES[1]: idx([])}, "the data set is empty"),
        ({NAMES[0]: b"\0\0\x0b\x01\0\0\0\0"}, "expected uint8 images.*int16"),
        ({NAMES[0]: mnist_contents()[NAMES[0]][:1000]}, "truncated"),
    ],
)
def test_damaged_sets(tmp_path, changes, message):
    for name, content in (mnist_contents() | changes).items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=message):
        mnist(tmp_path)


@pytest.mark.skipif(not REAL_MNIST.is_dir(), reason="the full MNIST is not on this machine (KOBAI_DATA)")
def test_the_full_mnist():
    labels = read_idx(REAL_MNIST / "t10k-labels-idx1-ubyte.gz")
    assert hashlib.md5(idx(labels)).hexdigest() == "27ae3e4e09519cfbb04c329615203637"
    images = read_idx(REAL_MNIST / "t10k-images-idx3-ubyte.gz")
    assert hashlib.md5(idx(images)).hexdigest() == "2646ac647ad5339dbf082846283269ea"
    splits = mnist(REAL_MNIST)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [54000, 6000, 10000]
    check(splits, 1, 28)
    np.testing.assert_array_equal(splits.test.tensors[1].numpy(), labels)
    assert np.bincount(splits.train.tensors[1].numpy()).tolist() == [
        5331, 6068, 5362, 5518, 5258, 4879, 5326, 5638, 5266, 5354,
    ]  # fmt: skip


# --- CIFAR-10 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sub", ["", "cifar10", "cifar-10-batches-bin"])
def test_cifar10_from_unpacked_files(tmp_path, sub):
    (tmp_path / sub).mkdir(exist_ok=True)
    for name, content in cifar_contents().items():
        (tmp_path / sub / name).write_bytes(content)
    splits = cifar10(tmp_path)
    check(splits, 3, 32)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [90, 10, 20]
    x, t = splits.test[7]
    assert t.item() == 7
    assert x[0, 0, 0].item() == pytest.approx(7 / 255)
    assert x[1, 0, 0].item() == pytest.approx(200 / 255)
    assert splits.classes[:2] == ("airplane", "automobile")


def test_cifar10_from_the_archive(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(cifar_archive())
    splits = cifar10(tmp_path)
    check(splits, 3, 32)
    assert len(splits.test) == 20


def _member(name, size, content=b"", **pax):
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = size, pax
    head = info.tobuf(tarfile.PAX_FORMAT)
    return head + content + bytes(-len(content) % 512)


def _sparse(name, size):
    """A member of 0 bytes in the archive that claims ``size``."""
    return _member(name, 0, **{"GNU.sparse.size": str(size), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,0"})


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (_member("other", 1 << 26, bytes(1 << 26)), "longer than the 3000000 bytes"),
        (_member("data_batch_1.bin", 1 << 26, bytes(1 << 26)), "claims 67108864 bytes"),
        (_sparse("data_batch_1.bin", 1 << 40), "claims 1099511627776 bytes"),
        (_member("x", 0, comment="0" * (1 << 26)), "longer than the 3000000 bytes"),
    ],
    ids=["passed over", "one of the six", "sparse", "header"],
)
def test_no_more_of_an_archive_is_unpacked_than_cifar10_has(tmp_path, monkeypatch, first, message):
    monkeypatch.setattr(cifar, "ARCHIVE", 3_000_000)
    rest = gzip.decompress(cifar_archive())
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(gzip.compress(first + rest, 1))
    del rest
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            cifar10(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_file_of_cifar10_has_an_end(tmp_path):
    for name, content in cifar_contents().items():
        (tmp_path / name).write_bytes(content)
    os.truncate(tmp_path / "test_batch.bin", 1 << 40)  # takes no room
    with pytest.raises(DataError, match=r"test_batch.bin: longer than the 30730000 bytes"):
        cifar10(tmp_path)


def test_damaged_cifar10(tmp_path):
    def refuse(message):
        with pytest.raises(DataError, match=message):
            cifar10(tmp_path)

    refuse("no files found.*cifar-10-binary.tar.gz")
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(cifar_archive()[:400])
    refuse("truncated")
    archive.write_bytes(b"no archive")
    refuse("not a readable tar.gz")
    contents = cifar_contents()
    archive.write_bytes(cifar_archive({k: v for k, v in contents.items() if k != "data_batch_3.bin"}))
    refuse("lacks data_batch_3.bin")
    archive.write_bytes(cifar_archive(contents | {"data_batch_2.bin": contents["data_batch_2.bin"][:-1]}))
    refuse("data_batch_2.bin: expected a multiple of 3073 bytes, found 61459")
    archive.write_bytes(cifar_archive(contents | {"test_batch.bin": b"\x0a" + b"\0" * 3072}))
    refuse("expected labels below 10, got 10 at position 0")
    archive.write_bytes(cifar_archive(contents | {"test_batch.bin": b""}))
    refuse("test_batch.bin: expected a multiple of 3073 bytes, found 0")
