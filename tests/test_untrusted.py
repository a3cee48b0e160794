"""Input that others wrote: files of any kind and content, text for the terminal, datagrams. Each ends in one clear error."""

import io
import json
import os
import re
import threading
import tomllib
from pathlib import Path

import pytest

import kobai
from kobai.core import checksum
from kobai.core.files import write_atomically
from kobai.core.untrusted import Bounded, from_json, from_toml, printable, real, regular
from kobai.errors import CheckpointError, DataError
from kobai.lab.experiments import register
from kobai.lab.sweep import tune_study
from kobai.train import checkpoint
from kobai.train.settings import SettingsError, read_toml

# disk_cache.py reads in a folder of the user's own only.
SOURCES = [
    path for path in Path(kobai.__file__).parent.rglob("*.py") if path.name not in ("untrusted.py", "disk_cache.py")
]


def test_what_a_terminal_would_obey_is_shown():
    every = "".join(map(chr, range(0x10000)))
    shown = printable(every)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    assert printable("Müller 日本 naïve\n× …") == "Müller 日本 naïve\n× …"


def test_a_bounded_file_ends():
    assert Bounded(io.BytesIO(b"abcdef"), 6).read() == b"abcdef"
    file = Bounded(io.BytesIO(b"abcdef"), 5)
    assert file.read(3) == b"abc"
    with pytest.raises(OSError, match="longer than the 5 bytes"):
        file.read(3)


DEEP = {"json": "[" * 100_000, "object": '{"a":' * 100_000, "toml": "a = " + "[" * 100_000}


def test_depth_is_damage():
    for text in (DEEP["json"], DEEP["object"]):
        with pytest.raises(ValueError, match="nested too deeply"):
            from_json(text)
    with pytest.raises(tomllib.TOMLDecodeError, match="nested too deeply"):
        from_toml(DEEP["toml"])


READERS = [
    (checkpoint.read, CheckpointError),
    (checksum.read_json, (DataError, OSError)),
    (lambda path: read_toml(path, {}), SettingsError),
    (register.read, (ValueError, OSError)),
    (lambda path: tune_study.held_plan(path.parent), (DataError, OSError)),
    (kobai.load, (CheckpointError, OSError)),
]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize(("reader", "error"), READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "loop", *DEEP, "digits"])
def test_every_reader_of_files_refuses_what_is_none(tmp_path, reader, error, kind):
    path = tmp_path / tune_study.JOURNAL
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
        if error == (DataError, OSError) and reader is not checksum.read_json:
            assert reader(path) is None  # no journal is there
            return
    else:
        path.write_text(DEEP.get(kind, "a = " + "1" * 10_000) + "\n")
    with pytest.raises(error):
        reader(path)


def test_depth_within_a_checkpoint():
    def file(structure):
        header = json.dumps({"__metadata__": {"format": "pt", "kobai": structure}}).encode()
        return io.BytesIO(len(header).to_bytes(8, "little") + header)

    for depth in (400, 100_000):
        deep = '{"version": 1, "data": ' + '{"list": [' * depth + "0" + "]}" * depth + "}"
        with pytest.raises(CheckpointError, match="damaged"):
            kobai.load(file(deep))


def test_nothing_reads_or_resolves_past_these_functions():
    loose = re.compile(r"json\.loads\((?!json\.dumps)|tomllib\.loads|(?<!__file__\))\.resolve\(\)|\.read_bytes\(\)")
    found = [(path.name, line) for path in SOURCES for line in path.read_text().splitlines() if loose.search(line)]
    assert [line for _, line in found if "regular(" not in line and "os.fsdecode(" not in line] == []


def test_loops_of_links_are_paths_like_others(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert real(tmp_path / "loop").name == "loop"
    with pytest.raises(OSError, match="loop"):
        regular(tmp_path / "loop")


def test_writing_follows_links_and_replaces_no_pipe(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    write_atomically(tmp_path / "link", b"new")
    assert ((tmp_path / "link").is_symlink(), (tmp_path / "file").read_bytes()) == (True, b"new")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        write_atomically(tmp_path / "loop", b"new")
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_atomically(tmp_path / "pipe", b"through")
    reader.join(10)
    assert (got, (tmp_path / "pipe").is_fifo()) == ([b"through"], True)
