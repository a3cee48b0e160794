"""What the README shows, works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_trains(capsys):
    pytest.importorskip("sklearn", reason="the embedded digits need the extra 'data'")
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "DataLoader" in block]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    exec(compile(example, "README.md", "exec"), {})
    accuracy = float(capsys.readouterr().out.rsplit(maxsplit=1)[1])
    assert accuracy > 0.9


def test_it_is_read_in_a_few_minutes():
    assert len(README.splitlines()) <= 110


def test_every_file_it_links_is_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_script_it_names_is_there():
    for name in re.findall(r"(?:scripts|tests|src)/[\w/.]+\w", README):
        assert (ROOT / name).exists(), name
