"""Ordinary PyTorch programs run on Kobai with nothing but their import lines changed.

Each file of `programs/` is written for PyTorch, checks its own outcome in `main()` and returns it. Values whose key
begins with `exact_` follow from fixed numbers alone, so that both frameworks must agree on them. Where `main()` takes
`prepare`, it is applied to each training step: `kobai.capture` must then change no bit of the outcome.
"""

import importlib
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import kobai

PROGRAMS = sorted(p for p in (Path(__file__).parent / "programs").glob("*.py") if p.name != "conftest.py")

IMPORT_LINES = [
    (re.compile(r"^(\s*)import torch$", re.M), r"\1import kobai as torch"),
    (re.compile(r"^(\s*)import torch\.[\w.]+$", re.M), r"\1import kobai as torch"),
    (re.compile(r"^(\s*)import torch(\.[\w.]+) as (\w+)$", re.M), r"\1import kobai\2 as \3"),
    (re.compile(r"^(\s*)from torch((?:\.\w+)*) import ", re.M), r"\1from kobai\2 import "),
]


def with_kobai_imports(source: str) -> str:
    for pattern, replacement in IMPORT_LINES:
        source = pattern.sub(replacement, source)
    return source


def run_program(
    path: Path, source: str, name: str, monkeypatch: pytest.MonkeyPatch, **options: object
) -> dict[str, float | str]:
    """The dictionary that the program's `main()` returns."""
    module = ModuleType(name)
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses and pickling look the module up by name
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module.main(**options)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_is_a_plain_pytorch_program(path: Path) -> None:
    source = path.read_text()
    assert "kobai" not in source.lower()
    changed = with_kobai_imports(source).splitlines()
    before = source.splitlines()
    different = [old for old, new in zip(before, changed, strict=True) if old != new]
    assert different
    assert all(re.match(r"\s*(import|from) torch\b", line) for line in different)
    assert not any(re.match(r"\s*(import|from) torch\b", line) for line in changed)


@pytest.mark.few(6)
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_runs_with_only_its_imports_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_program(path, with_kobai_imports(path.read_text()), f"program_{path.stem}", monkeypatch)
    numbers = [value for value in result.values() if isinstance(value, float)]
    assert numbers
    assert all(math.isfinite(value) for value in numbers), result


@pytest.mark.few(8)
@pytest.mark.parametrize("path", [p for p in PROGRAMS if "def main(prepare=" in p.read_text()], ids=lambda p: p.stem)
def test_captured_steps_have_the_bits_of_eager_ones(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, steps = with_kobai_imports(path.read_text()), []

    def captured(step: Callable[..., object]) -> Callable[..., object]:
        steps.append(kobai.capture(step))
        return steps[-1]

    eager = run_program(path, source, f"eager_{path.stem}", monkeypatch)
    assert run_program(path, source, f"captured_{path.stem}", monkeypatch, prepare=captured) == eager
    assert steps
    assert all(step.programs == 1 for step in steps)


@pytest.mark.oracle
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_agrees_with_pytorch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("torch")
    source = path.read_text()
    expected = run_program(path, source, f"torch_{path.stem}", monkeypatch)
    result = run_program(path, with_kobai_imports(source), f"program_{path.stem}", monkeypatch)
    assert list(result) == list(expected)
    for key in (key for key in expected if key.startswith("exact_")):
        if isinstance(expected[key], str):
            assert result[key] == expected[key], key
        else:
            assert result[key] == pytest.approx(expected[key], rel=1e-5, abs=1e-7), key
