"""The worked examples of CONTRIBUTING.md, put into a copy of the repository: they work, and the tests see them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n# (\S+?)(?:, (in|before) ([^\n]+))?\n(.*?)^```$", re.S | re.M)
MOST = 10
"""Lines of an example that are not blank."""

EXAMINED = {
    "tests/test_registry.py": ["sum_of_squares"],
    "tests/nn/test_layers.py": ["Stretch", "SquaredReLU", "test_every_layer_is_examined"],
    "tests/nn/test_init.py": ["fan_in_uniform_"],
    "tests/optim/test_optimizers.py": ["Lion"],
    "tests/optim/test_optimizer_base.py": ["Lion"],
    "tests/optim/test_optim_captured.py": ["Lion"],
    "tests/optim/test_optim_kernels.py": ["lion"],
    "tests/formula/test_formula.py": ["hinge"],
    "tests/lab/test_every_experiment.py": ["temperature"],
    "tests/lab/test_doctor_conformance.py": ["updates.decay", "test_every_rule_and_every_cure_is_examined"],
}
"""Tests of the repository, and what they must have found in the copy."""

PROGRAM = """
import numpy as np
import kobai
from kobai import nn
from kobai.engine import dispatch
from kobai.lab import diagnose
from kobai.lab.experiments.register import run
from kobai.ops import _formulas
from kobai.train import mlp

dispatch.numba_installed = False  # which would compile for the copy anew
x = kobai.tensor([[1.0, 2.0]], requires_grad=True)
x.sum_of_squares().sum().backward()
assert x.grad.tolist() == [[2.0, 4.0]]
assert kobai.sum_of_squares(kobai.tensor([1, 2])).item() == 5

assert [p.shape for p in nn.Stretch().parameters()] == [(1,)]
assert nn.SquaredReLU()(kobai.tensor([-2.0, 3.0])).tolist() == [0.0, 9.0]

assert 0.4 < nn.Linear(4, 100, init="fan_in_uniform").weight.abs().max().item() <= 0.5
assert len(list(mlp(4, [5], 3, activation="squared_relu", init="fan_in_uniform").parameters())) == 4

w = kobai.tensor([1.0, -2.0], requires_grad=True)
optimizer = kobai.optim.Lion([w], lr=0.5)
(w * w).sum().backward()
optimizer.step()
assert w.tolist() == [0.5, -1.5]

assert _formulas.hinge(np.float32([0.0, 2.0]), margin=1.0).tolist() == [1.0, 0.0]

assert run("temperature").passed

model = mlp(4, [5], 3)
optimizer = kobai.optim.SGD(model.parameters(), lr=0.1, weight_decay=2.0)
found = diagnose(model, (kobai.randn(8, 4), kobai.arange(8) % 3), optimizer=optimizer)
assert any(finding.cause.startswith("Weight decay") for finding in found.findings)
"""
"""What a newcomer would try first."""


def examples() -> list[tuple[str, str, str, str]]:
    """(file, "in" or "before" or "", name of a list or table, text) of each example."""
    return BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))


def put_in(path: Path, where: str, name: str, text: str) -> None:
    """Write an example into its file: into a list or table, before it, or to the end."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if where:
        at, head = next((i, m) for i, line in enumerate(lines) if (m := re.match(rf"{name}\b.*?= [\[({{]", line)))
        lines[at] = f"{text}\n\n{lines[at]}" if where == "before" else f"{head[0]}\n{text}{lines[at][head.end() :]}"
    else:
        lines += ["\n" if text[0].isspace() else "\n\n", text]  # where it begins with space, the class goes on
    path.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository with all examples in it."""
    folder = tmp_path_factory.mktemp("clone") / "kobai"
    for part in ("src", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "frozen", "programs", "*.so")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, folder)
    for file, *example in examples():
        put_in(folder / file, *example)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_examples_are_short():
    assert len({file for file, *_ in examples()}) > 10
    for file, *_, text in examples():
        assert sum(bool(line.strip()) for line in text.splitlines()) <= MOST, f"{file}: {text}"


def test_they_work(copy):
    done = run(copy, "-c", PROGRAM)
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_the_tests_of_their_kind_see_them(copy):
    names = sorted({name for found in EXAMINED.values() for name in found})
    done = run(copy, "-m", "pytest", "-vv", "-n0", "--without-numba", "-k", " or ".join(names), *EXAMINED)
    assert done.returncode == 0, done.stdout + done.stderr
    for file, found in EXAMINED.items():
        for name in found:
            assert re.search(rf"^{file}::.*{name}.*PASSED", done.stdout, re.M), f"{file} does not see {name}"
