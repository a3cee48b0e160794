"""Each test of a command runs in a folder of its own."""

from pathlib import Path

import pytest

from cli_commands import kobai_command


@pytest.fixture(autouse=True)
def _elsewhere(elsewhere):
    pass


@pytest.fixture
def run(capsys, table):
    """A trained run."""
    flags = ["--hidden", 16, "--epochs", 20, "--lr", 0.02, "--label", "kind", "--out", "run"]
    assert kobai_command(capsys, "train", "--data", table, *flags)[0] == 0
    return Path("run")
