"""Each test of a command runs in a folder of its own, beside a small table."""

import csv
from pathlib import Path

import numpy as np
import pytest
from cli_commands import kobai_command


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test runs in a folder of its own, in a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def table(tmp_path):
    """Two features, three classes that they tell apart."""
    rng = np.random.default_rng(0)
    path = tmp_path / "points.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "y", "kind"])
        for k, kind in enumerate(("ant", "bee", "cat")):
            writer.writerows([f"{a:.4f}", f"{b:.4f}", kind] for a, b in rng.normal(size=(40, 2)) * 0.4 + [k, -k])
    return path


# --- evaluate, predict ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys, table):
    """A trained run."""
    flags = ["--hidden", 16, "--epochs", 20, "--lr", 0.02, "--label", "kind", "--out", "run"]
    assert kobai_command(capsys, "train", "--data", table, *flags)[0] == 0
    return Path("run")
