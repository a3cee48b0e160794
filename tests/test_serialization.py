"""save and load: what comes back, what is refused, and that a file is never half written."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

import kobai
from kobai.core.files import write_atomically
from kobai.errors import CheckpointError
from kobai.serialization import CHECKSUM, KEY


def through_a_file(obj):
    file = io.BytesIO()
    kobai.save(obj, file)
    file.seek(0)
    return kobai.load(file)


def same(a, b) -> bool:
    if isinstance(a, kobai.Tensor):
        return isinstance(b, kobai.Tensor) and same(a.detach().numpy(), b.numpy())
    if isinstance(a, np.ndarray):
        return type(b) is np.ndarray and a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


NESTED = {
    "model": {"0.weight": kobai.ones(2, 3), "0.bias": kobai.zeros(3)},
    "optimizer": {"state": {0: {"step": 3, "m": kobai.ones(2)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]},
    "history": [{"loss": 0.25}, {"loss": math.nan}, {"loss": -math.inf}],
    "best": None,
    "flags": [True, False, 1, 1.0, -0.0, 10**30, "grüße \ud800", ""],
    "array": np.arange(3, dtype=np.int32),
    "numpy scalars": [np.float64(0.1), np.float32(0.1), np.int64(3), np.bool_(True)],
    "empty": [{}, [], (), kobai.zeros(0, 3)],
    "keys": {1: "int", 2.5: "float", None: "none", "$tensor": "dollar", "": "nothing"},
    "look-alike": {"$tensor": "x"},
}


@pytest.mark.parametrize("name", NESTED)
def test_nested_data_comes_back(name):
    assert same(through_a_file({name: NESTED[name]}), {name: NESTED[name]})


def test_all_of_it_at_once(tmp_path):
    kobai.save(NESTED, tmp_path / "all")
    assert same(kobai.load(str(tmp_path / "all")), NESTED)


@pytest.mark.parametrize("obj", [None, 3, "text", [], (), {}, kobai.ones(2), np.ones(2), True], ids=repr)
def test_anything_may_be_at_the_top(obj):
    assert same(through_a_file(obj), obj)


@pytest.mark.parametrize("dtype", "bool uint8 int8 int16 int32 int64 bfloat16 float16 float32 float64".split())
@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (3,), (2, 3)], ids=str)
def test_every_dtype_and_shape(dtype, shape):
    x = (kobai.randn(shape) * 10).to(getattr(kobai, dtype))
    for obj in (x, {"x": x}, [x.numpy()]):
        assert same(through_a_file(obj), obj)


def test_layouts_and_special_numbers():
    base = kobai.arange(24.0).reshape(4, 6)
    for x in (base.t(), base[::2, ::3], base[:0], base[1], base.expand(2, 4, 6)):
        assert same(through_a_file({"x": x})["x"], x.contiguous())
    bits = np.array([math.nan, math.inf, -0.0, 1e-45], np.float32)
    assert through_a_file({"x": kobai.from_numpy(bits)})["x"].numpy().tobytes() == bits.tobytes()
    assert through_a_file([np.array([1, 2], ">f4")])[0].tolist() == [1, 2]


def test_what_is_loaded_is_a_constant_of_its_own():
    x = kobai.ones(2, requires_grad=True)
    y = through_a_file({"x": x, "again": x})
    assert not y["x"].requires_grad
    y["x"].add_(1)
    assert y["again"].tolist() == [1, 1]


def test_names_that_collide_with_paths_or_the_format():
    obj = {"a.b": kobai.ones(1), "a": {"b": kobai.zeros(1)}, "a.b_": kobai.ones(1) * 3, "": kobai.ones(1) * 4}
    assert same(through_a_file(obj), obj)
    assert same(through_a_file({"__metadata__": kobai.ones(2)}), {"__metadata__": kobai.ones(2)})


def test_a_state_dict_is_a_plain_safetensors_file(tmp_path):
    kobai.save(kobai.nn.Linear(2, 3).state_dict(), tmp_path / "w")
    content = (tmp_path / "w").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(header) == {"__metadata__", "weight", "bias"}
    assert KEY not in header["__metadata__"]


def test_tensors_of_a_device_are_saved_and_placed():
    with kobai.using("strict"):
        x = kobai.ones(2)
    file = io.BytesIO()
    kobai.save({"x": x}, file)
    for where in (None, "cpu", "strict"):
        file.seek(0)
        assert kobai.load(file, map_location=where)["x"].device == (where or "cpu")


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({"a": [1, {"b": object()}]}, "got object at a.1.b"),
        ({1, 2}, "got set at the top"),
        (kobai.nn.Linear(1, 1), r"got Linear at the top. Save a model as model.state_dict\(\)"),
        ({"f": len}, "got builtin_function_or_method at f"),
        ({"a": np.array(["text"])}, "expected bool, integer or float elements, got <U4 at a"),
        ([np.array([1j])], "got complex128 at 0"),
        ({"a": {(1, 2): 3}}, "expected dict keys to be strings or numbers, got tuple at a"),
        (b"bytes", "got bytes at the top"),
    ],
    ids=["object", "set", "module", "function", "text", "complex", "key", "bytes"],
)
def test_what_cannot_be_saved_is_named_with_its_place(obj, message, tmp_path):
    with pytest.raises(TypeError, match=f"save: .*{message}"):
        kobai.save(obj, tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"save: the folder .*missing does not exist"):
        kobai.save({}, tmp_path / "missing" / "f")
    with pytest.raises(TypeError, match="save: expected a path or a binary file object, got int"):
        kobai.save({}, 3)


# --- files that are refused -------------------------------------------------------------------------------------------


def test_a_file_cut_anywhere_is_refused(tmp_path):
    kobai.save({"x": [kobai.ones(3), "text"], "n": 1}, tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    path = tmp_path / "cut"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut .*truncated or of another format"):
            kobai.load(path)
    path.write_bytes(content + b"x")
    with pytest.raises(CheckpointError):
        kobai.load(path)


# --- files that have been damaged -------------------------------------------------------------------------------------

WHOLE = {
    "a state_dict": {"0.weight": kobai.arange(6.0).reshape(2, 3), "0.bias": kobai.zeros(3)},
    "nested": {
        "x": [kobai.ones(3), "text"],
        "n": (1, math.nan),
        "mark": f'"{CHECKSUM}"',
        "twice": "kobai-crc32:00000000",
    },
    "no arrays": [1, "text"],
    "large": {"noise": np.random.default_rng(0).random(5000)},
}


def bytes_of(obj) -> bytes:
    file = io.BytesIO()
    kobai.save(obj, file)
    return file.getvalue()


def refused(content: bytes) -> bool:
    try:
        kobai.load(io.BytesIO(content))
    except CheckpointError:
        return True
    return False


@pytest.mark.parametrize("name", ["a state_dict", "nested", "no arrays"])
def test_every_flipped_bit_is_noticed(name):
    content = bytes_of(WHOLE[name])
    assert not refused(content)
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            assert refused(bytes(damaged)), (place, bit, content[max(0, place - 20) : place + 20])


@pytest.mark.parametrize("name", WHOLE)
def test_other_damage_is_noticed(name):
    content, rng = bytes_of(WHOLE[name]), np.random.default_rng(0)
    for _ in range(300):
        begin = int(rng.integers(len(content)))
        end = begin + int(rng.integers(1, 600))
        middle = content[begin:end]
        for other in (b"", bytes(len(middle)), rng.bytes(len(middle)), middle + middle):
            damaged = content[:begin] + other + content[end:]
            assert damaged == content or refused(damaged)
        assert refused(content[:begin])
        assert refused(content + rng.bytes(end - begin))


def test_a_file_without_a_checksum_is_read(tmp_path):
    """Kobai 0.1 wrote none, and other programs write none."""
    from safetensors.numpy import save_file

    array = np.arange(3, dtype=np.float32)
    save_file({"x": array}, tmp_path / "plain", {"format": "pt", "checksum": "sha256:0123"})
    structure = json.dumps({"version": 1, "data": {"epoch": 3, "x": {"$tensor": "x"}}})
    save_file({"x": array}, tmp_path / "old", {"format": "pt", KEY: structure})
    assert kobai.load(tmp_path / "plain")["x"].tolist() == [0, 1, 2]
    assert same(kobai.load(tmp_path / "old"), {"epoch": 3, "x": kobai.from_numpy(array)})


def test_arrays_are_where_the_format_wants_them():
    """Without holes, each at a multiple of its elements' size; and the same state gives the same bytes."""
    state = {"b": kobai.ones(3, dtype=kobai.uint8), "a": kobai.ones(2), "d": kobai.ones(1, dtype=kobai.float64)}
    content = bytes_of(state)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert size % 8 == 0
    assert {n: header[n]["data_offsets"] for n in state} == {"d": [0, 8], "a": [8, 16], "b": [16, 19]}
    assert bytes_of(dict(reversed(state.items()))) == content


@pytest.mark.oracle
def test_the_files_are_read_by_pytorch(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    state = kobai.nn.Sequential(kobai.nn.Linear(2, 3), kobai.nn.BatchNorm1d(3)).state_dict()
    kobai.save(state, tmp_path / "ours")
    theirs = load_file(tmp_path / "ours")
    assert {name: t.tolist() for name, t in theirs.items()} == {name: t.tolist() for name, t in state.items()}
    save_file({**theirs, "half": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "theirs")
    half = kobai.load(tmp_path / "theirs")["half"]
    assert (half.dtype, half.tolist()) == (kobai.bfloat16, [1, 1])


# --- foreign files ----------------------------------------------------------------------------------------------------


def foreign(tmp_path, kind):
    path = tmp_path / kind
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data.pkl", b"x" * 50)
    elif kind == "folder":
        path.mkdir()
    elif kind.startswith("pickle"):
        path.write_bytes(pickle.dumps({"a": 1}, protocol=int(kind[-1])))
    else:
        path.write_bytes({"empty": b"", "text": b"hello world, a text", "zeros": bytes(100), "json": b'{"a": 1}'}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", r"\(0 bytes\) is not a whole safetensors file"),
        ("text", "is not a whole safetensors file"),
        ("json", "is not a whole safetensors file"),
        ("zeros", "is not a whole safetensors file"),
        ("pickle2", r"pickled file.*could run any code; convert it with safetensors.torch.save_file"),
        ("pickle5", "pickled file"),
        ("zip", "pickled file such as torch.save writes"),
        ("folder", "is a folder, expected a file"),
    ],
)
def test_foreign_files(kind, message, tmp_path):
    with pytest.raises(CheckpointError, match=f"load: .*{kind}.*{message}"):
        kobai.load(foreign(tmp_path, kind))


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        kobai.load(tmp_path / "nowhere")


def test_a_header_whose_length_looks_like_a_pickle():
    """640 = 0x0280: such a file begins with the bytes 80 02, as a pickle does."""
    for name in ("x" * n for n in range(500, 700)):
        file = io.BytesIO()
        kobai.save({name: kobai.ones(1)}, file)
        if file.getvalue()[:2] == b"\x80\x02":
            break
    assert file.getvalue()[:2] == b"\x80\x02"
    file.seek(0)
    assert kobai.load(file)[name].tolist() == [1]


def entry(dtype: str, data: bytes, metadata: dict | None = None) -> io.BytesIO:
    header = {"x": {"dtype": dtype, "shape": [1], "data_offsets": [0, len(data)]}}
    if metadata is not None:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    return io.BytesIO(len(text).to_bytes(8, "little") + text + data)


def test_bfloat16_is_read_exactly_and_what_is_unknown_is_named():
    x = kobai.load(entry("BF16", b"\xab\x3e"))["x"]  # sign 0, exponent −2, fraction 43/128
    assert (x.dtype, x.item()) == (kobai.bfloat16, (1 + 43 / 128) / 4)
    with pytest.raises(CheckpointError, match="'x' in the stream has elements of C64"):
        kobai.load(entry("C64", bytes(8)))


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"version": 1}', "damaged"),
        ('{"version": 99, "data": 1}', r"written by a newer Kobai \(format 99\)"),
        ('{"version": 1, "data": {"$tensor": "y"}}', "damaged"),
        ('{"version": 1, "data": {"$dict": [[1]]}}', "damaged"),
    ],
)
def test_damaged_structures(structure, message):
    with pytest.raises(CheckpointError, match=message):
        kobai.load(entry("F32", bytes(4), {KEY: structure}))


def test_no_pickle():
    file = io.BytesIO(pickle.dumps({"w": 1}))
    for weights_only in (False, True):
        file.seek(0)
        with pytest.raises(CheckpointError, match="is a pickled file"):
            kobai.load(file, weights_only=weights_only)


@pytest.mark.parametrize("saved", [{}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"pickle_module": pickle}])
def test_what_pytorch_is_told_of_pickles_makes_no_difference_to_our_own_files(tmp_path, saved, options):
    kobai.save({"epoch": 3, "w": kobai.ones(2)}, tmp_path / "a.pt", **saved)
    for weights_only in (False, True):
        loaded = kobai.load(tmp_path / "a.pt", weights_only=weights_only, **options)
        assert loaded["epoch"] == 3
        assert loaded["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "map_location",
    [
        "cpu",
        kobai.device("cpu"),
        {"cuda:0": "cpu"},
        {"cpu": "cpu"},
        lambda storage, location: storage,
        lambda storage, location: None,
        lambda storage, location: storage.to("cpu"),
    ],
)
def test_every_way_to_say_where(tmp_path, map_location):
    kobai.save([kobai.ones(2), "text"], tmp_path / "a.pt")
    tensor, text = kobai.load(tmp_path / "a.pt", map_location=map_location)
    assert tensor.tolist() == [1, 1]
    assert tensor.device.type == "cpu"
    assert text == "text"


# --- atomic -----------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "f"
    kobai.save({"x": kobai.ones(1)}, path)

    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        kobai.save({"x": kobai.zeros(1)}, path)
    assert kobai.load(path)["x"].tolist() == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_failed_write_names_the_file_that_was_wanted(tmp_path, monkeypatch, call):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / ".f.abc.tmp"))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        kobai.save({"x": 1}, tmp_path / "f")
    assert caught.value.filename == str(tmp_path / "f")


def test_files_have_ordinary_permissions(tmp_path):
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "f", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644


def test_a_link_stays_and_a_device_is_written_to(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "f", tmp_path / "elsewhere" / "g"
    try:
        link.symlink_to(target)
    except OSError:
        pytest.skip("no links here")
    for content in (b"first", b"second"):
        write_atomically(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    read, write = os.pipe()
    if os.path.exists(f"/dev/fd/{write}"):
        write_atomically(f"/dev/fd/{write}", [b"th", b"ird"])
        assert os.read(read, 10) == b"third"
    os.close(read), os.close(write)


SAVE_FOREVER = """
import sys, kobai
for step in range(10**9):
    kobai.save({"step": step, "x": kobai.full((20_000,), float(step))}, sys.argv[1])
    print(step, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_killed_while_saving_the_file_always_loads(tmp_path):
    path = tmp_path / "state"
    rng = np.random.default_rng(0)
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", SAVE_FOREVER, str(path)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        state = kobai.load(path)
        assert (state["x"] == state["step"]).all()
