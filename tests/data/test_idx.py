"""kobai.data.idx: the IDX format."""

import contextlib
import gzip
import math
import os
import struct
import tracemalloc

import numpy as np
import pytest

from kobai.data.idx import TYPES, read_idx
from kobai.errors import DataError


def idx_bytes(array):
    code = next(c for c, d in TYPES.items() if np.dtype(d) == array.dtype.newbyteorder(">"))
    head = struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4, 5), (0, 28, 28), ()])
def test_every_type_and_rank(tmp_path, dtype, shape, zipped):
    array = np.random.default_rng(0).normal(scale=50, size=shape).astype(dtype)
    content = idx_bytes(np.asarray(array))
    path = tmp_path / "some.file"  # the name says nothing about the compression
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    back = read_idx(path)
    assert back.dtype == np.dtype(dtype)
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, array)


def test_elements_are_big_endian(tmp_path):
    (tmp_path / "x").write_bytes(bytes.fromhex("00000c01 00000002 00000001 ffffff00"))
    assert read_idx(tmp_path / "x").tolist() == [1, -256]


GOOD = idx_bytes(np.arange(12, dtype=np.uint8).reshape(3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an IDX file, found 0 bytes"),
        (b"\0\0\x08", "found 3 bytes"),
        (b"PK\x03\x04 a zip archive", "not an IDX file.*found 50 4b 03 04"),
        (b"\0\0\x07\x01\0\0\0\0", "not an IDX file"),
        (b"\x01\0\x08\x01\0\0\0\0", "not an IDX file"),
        (GOOD[:9], r"expected 2 dimensions \(8 bytes\), found 5 bytes"),
        (GOOD[:-1], r"truncated; shape \(3, 4\) needs 12 bytes of data, found 11"),
        (GOOD[:12], r"needs 12 bytes of data, found 0"),
        (GOOD + b"\0", r"longer than its shape \(3, 4\)"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "truncated; shape"),  # claims 2⁹⁶ bytes
        (gzip.compress(GOOD, mtime=0)[:-9], "gzip stream ends early"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "gzip stream is damaged"),
        (b"\x1f\x8b\x08" + b"\xff" * 40, "gzip|truncated|damaged"),
        (gzip.compress(GOOD[:-2], mtime=0), r"needs 12 bytes of data, found 10"),
        (gzip.compress(b"", mtime=0), "found 0 bytes"),
        (gzip.compress(GOOD + b"\0", mtime=0), r"longer than its shape \(3, 4\)"),
        (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"\0", "no array has the shape"),
        (b"\0\0\x08\x04" + b"\xff" * 12 + b"\0" * 4, "no array has the shape"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "bad-file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_random_bytes_never_raise_anything_else(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "noise"
    for i in range(200):
        noise = bytearray(rng.bytes(int(rng.integers(0, 60))))
        if i % 2 and len(noise) > 4:
            noise[:3] = b"\0\0\x08" if i % 4 == 1 else b"\x1f\x8b\x08"
        path.write_bytes(noise)
        with contextlib.suppress(DataError):
            read_idx(path)


@pytest.mark.parametrize("shape", [(3, 4), (1 << 31,)])  # less than what is packed, and far more
def test_no_more_is_unpacked_than_the_shape_says(tmp_path, shape):
    head = struct.pack(">HBB", 0, 8, len(shape)) + struct.pack(f">{len(shape)}I", *shape)
    size = 1 << 26 if math.prod(shape) < 1 << 20 else 1 << 10
    (tmp_path / "bomb").write_bytes(gzip.compress(head + bytes(size), mtime=0))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"longer than its shape|truncated"):
            read_idx(tmp_path / "bomb")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_devices_and_loops_of_links_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, message in (
        (tmp_path / "pipe", "not an ordinary"),
        ("/dev/zero", "not an ordinary"),
        (tmp_path / "loop", ""),
    ):
        with pytest.raises(DataError, match=f"cannot be read.*{message}"):
            read_idx(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.*No such file"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path)
