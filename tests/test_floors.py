"""The house: imports point only to lower floors, and heavy or optional packages stay out of ``import kobai``."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kobai
from kobai import xp
from strict import CUPY_NAMES

ROOT = Path(kobai.__file__).parent
FLOORS = {
    "errors": 0,
    "_files": 0,
    "_checksum": 0,
    "_untrusted": 0,
    "_terminal": 0,
    "dtypes": 0,
    "xp": 0,
    "random": 0,
    "kernels": 1,
    "cuda": 1,
    "_repr": 1,
    "memory": 1,
    "recording": 1,
    "_session": 3,
    "_audit": 3,
    "_capture": 3,
    "_grad_mode": 2,
    "_tape": 2,
    "_tensor": 2,
    "_primitive": 2,
    "ops": 3,
    "gradcheck": 3,
    "autograd": 3,
    "linalg": 3,
    "older": 3,
    "_absent": 0,
    "_anomaly": 1,
    "amp": 1,
    "backends": 1,
    "runtime": 1,
    "serialization": 3,
    "nn": 4,
    "optim": 4,
    "utils": 4,
    "swa_utils": 5,
    "distributions": 4,
    "func": 5,
    "special": 3,
    "testing": 3,
    "data": 5,  # data sets are TensorDatasets: they use utils
    "train": 6,
    "bench": 7,
    "lab": 7,
    "cli": 8,
    "__main__": 8,
}
STRANGERS = [("nn", "optim"), ("nn", "utils"), ("optim", "utils"), ("nn", "data"), ("optim", "data")]
LAZY = ["cupy", "matplotlib", "numba", "optuna", "pooch", "rich", "safetensors", "sklearn", "typer"]
FILES = sorted(ROOT.rglob("*.py"))


def imports(path: Path) -> list[tuple[str, int]]:
    """(module, line) of every import of Kobai's own modules in a file, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            if module == "kobai":
                found += [(f"kobai.{alias.name}", node.lineno) for alias in node.names]
            else:
                found.append((module, node.lineno))
    return [(name, line) for name, line in found if name.split(".")[0] == "kobai" and "." in name]


def test_the_design_note_shows_these_floors():
    note = (ROOT.parents[1] / "docs" / "design" / "0001-house.md").read_text()
    rows = re.findall(r"^\| (\d) \| (.*?) \|", note, re.M)
    assert {name.rstrip("/"): int(floor) for floor, names in rows for name in re.findall(r"`(.*?)`", names)} == FLOORS


def part(path: Path) -> str:
    if path.name == "swa_utils.py":  # PyTorch's place for averaged models and their schedule, which meet there only
        return "swa_utils"
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [f for f in FILES if part(f) != "__init__"], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_to_lower_floors(path):
    here = part(path)
    for name, line in imports(path):
        there = name.split(".")[1]
        assert there in FLOORS, f"{path}:{line}: {name} has no floor in this table"
        assert there == here or FLOORS[there] <= FLOORS[here], f"{path}:{line}: {here} (F{FLOORS[here]}) imports {name}"
        pair = (here, there)
        assert not {pair, pair[::-1]} & set(STRANGERS), f"{path}:{line}: {here} and {there} ignore each other"


def test_no_import_cycles_between_modules():
    graph: dict[str, set[str]] = {}
    for path in FILES:
        module = "kobai." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        graph[module.removesuffix(".__init__")] = set()
    for path in FILES:
        module = ("kobai." + ".".join(path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kobai"):
                names = [f"{node.module}.{a.name}" for a in node.names]
                graph[module] |= {n if n in graph else node.module for n in names} - {module}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module in done:
            return
        for other in graph.get(module, ()):
            if other != "kobai":
                visit(other, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_shim_and_kernels_know_cupy(path):
    if part(path) in ("xp", "kernels", "cuda"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not any(n.split(".")[0] in ("cupy", "cupyx", "torch") for n in names), f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_function_asked_of_a_namespace_exists_in_cupy(path):
    """``xp.name`` and ``xp_of(x).name``, on lines no test happens to run on ``strict`` too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Attribute):
            continue
        owner = node.value
        called = (
            isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id in ("xp_of", "namespace")
        )
        if (called or (isinstance(owner, ast.Name) and owner.id == "xp")) and node.attr != "__name__":
            assert node.attr in CUPY_NAMES or hasattr(xp, node.attr), f"{path}:{node.lineno}: CuPy has no {node.attr}"


def test_import_kobai_loads_nothing_optional_or_slow():
    code = f"import sys, kobai; print([m for m in {LAZY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_kobai_costs_less_than_a_tenth_of_a_second_beyond_numpy(tmp_path):
    """Or, on a busy machine where all takes longer, less than NumPy itself, which takes 0.08 s on a quiet one."""
    code = (
        "import time; a = time.perf_counter(); import numpy; b = time.perf_counter(); import kobai; "
        "print(b - a, time.perf_counter() - b)"
    )
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}  # compiled once, as an installed package is
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    times = []
    for _ in range(12):  # the first try compiles
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        numpys, ours = map(float, done.stdout.split())
        times.append((numpys, ours))
        if ours < max(0.1, numpys):
            return
    pytest.fail(f"seconds for NumPy and for Kobai: {times}")
