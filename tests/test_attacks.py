"""The attacks of ``scripts/attack.py`` in small: a few of their cases, always the same ones."""

from __future__ import annotations

import os
import sys

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("optuna")

from attacks import MODULES, commands, crash_points, find
from kobai.core import files

SHARES = {"train": 0.12, "compare": 0.12, "tune": 0.03, "lab": 0.2, "bench": 0.2, "report": 0.6, "predict": 1.0}
"""Of the calls of each command, how many are disturbed."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("attack")


@pytest.mark.thorough
@pytest.mark.few(3)
@pytest.mark.skipif(sys.platform == "win32", reason="a link there is a privilege")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.thorough] * (name in ("bench", "report", "tune")))  # those that take long
        for name in commands.COMMANDS
    ],
)
def test_whatever_a_dead_process_or_a_full_disk_leaves_goes_on(name, folder):
    said: list[str] = []
    assert crash_points.points(name, folder, 0, SHARES.get(name, 0.0), said.append) == [], said


def test_the_harness_counts_halves_and_stops(tmp_path):
    """Without which the test above could not fail."""
    path = tmp_path / "f"
    with crash_points.Disk(tmp_path) as disk:
        files.write_atomically(path, b"old")
    assert disk.count == 4  # open, write, fsync, replace
    for at, left in ((1, []), (2, [b"ne"]), (3, [b"newer"]), (4, [b"newer"])):
        with crash_points.Disk(tmp_path, at), pytest.raises(crash_points.Died):
            files.write_atomically(path, b"newer")
        assert path.read_bytes() == b"old"
        litter = [other for other in tmp_path.iterdir() if other != path]
        assert [other.read_bytes() for other in litter] == left
        files.sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [path]
    with crash_points.Disk(tmp_path, 2, "full"), pytest.raises(OSError, match="No space"):
        files.write_atomically(path, b"newer")
    assert list(tmp_path.iterdir()) == [path]
    with crash_points.Disk(tmp_path), pytest.raises(AssertionError, match="past the counted calls"):
        path.write_text("by the way")


def test_damage_is_noticed_or_harmless(tmp_path):
    assert find("damage")(0, 0.1, tmp_path, lambda line: None) == []


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_killed_processes_are_gone_on_with(tmp_path):
    assert find("kills")(0, 0.0, tmp_path, lambda line: None) == []


def test_every_attack_can_be_found():
    assert all(callable(find(name)) for name in MODULES)
