"""The house: imports point only to lower floors, and heavy or optional packages stay out of ``import kobai``."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import kobai
from kobai import xp
from strict import CUPY_NAMES

ROOT = Path(kobai.__file__).parent
NOTE = ROOT.parents[1] / "docs" / "design" / "0001-house.md"
STRANGERS = [("nn", "optim"), ("nn", "utils"), ("optim", "utils"), ("nn", "data"), ("optim", "data")]
CUPY_ROOMS = ("engine", "cuda", "capture")
LAZY = ["cupy", "matplotlib", "numba", "onnx", "optuna", "pooch", "rich", "safetensors", "sklearn", "typer"]
FILES = sorted(ROOT.rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(("kobai", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def named(node: ast.AST) -> list[str]:
    """Modules that a statement or an expression imports, ours or not; ``importlib.import_module`` too."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        (name,) = node.args
        if isinstance(name, ast.JoinedStr):  # any module of a package
            package = ast.literal_eval(name.values[0]).rstrip(".")
            return [module for module in MODULES if module.rpartition(".")[0] == package]
        return [ast.literal_eval(name)]
    return []


def imported(tree: ast.AST) -> set[str]:
    """All that is imported anywhere in a file, but what a package's ``__getattr__`` hands on."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.FunctionDef) and node.name == "__getattr__"):
            found.update(named(node), imported(node))
    return found


def graph() -> dict[str, set[str]]:
    """Each module and those of ours that it imports, in functions and under ``TYPE_CHECKING`` too."""
    found = {}
    for module, path in MODULES.items():
        names = imported(ast.parse(path.read_text()))
        ours = {name if name in MODULES else name.rpartition(".")[0] for name in names}
        found[module] = ours & MODULES.keys() - {module}
    return found


GRAPH = graph()


PLACES = {"kobai.optim.swa_utils": "swa_utils", "kobai.cuda.amp": "amp"}
"""PyTorch's places for what belongs to other rooms: averaged models with their schedule; older names of ``amp``."""


def room(module: str) -> str:
    if module in PLACES:
        return PLACES[module]
    return module.split(".")[1] if "." in module else "kobai"


def cycle(edges: dict[str, set[str]]) -> str:
    """One cycle, as text; empty if there is none."""
    try:
        tuple(TopologicalSorter(edges).static_order())
    except CycleError as error:
        return " -> ".join(error.args[1])
    return ""


def rooms() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for module, others in GRAPH.items():
        if module != "kobai":
            found.setdefault(room(module), set()).update({room(other) for other in others} - {room(module), "kobai"})
    return found


def test_no_file_imports_itself_by_a_detour():
    assert cycle(GRAPH) == ""


def test_no_room_imports_itself_by_a_detour():
    assert cycle(rooms()) == ""


def test_floors_are_as_the_design_note_shows_them():
    """A room's floor is one above the highest that it imports from."""
    edges, floors = rooms(), {}
    for name in TopologicalSorter(edges).static_order():
        floors[name] = 1 + max((floors[other] for other in edges.get(name, ())), default=-1)
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", NOTE.read_text(), re.M)
    declared = {name.rstrip("/"): int(floor) for floor, names in rows for name in re.findall(r"`(.*?)`", names)}
    assert floors == declared


@pytest.mark.parametrize("pair", STRANGERS, ids="-".join)
def test_some_rooms_ignore_each_other(pair):
    edges, (one, other) = rooms(), pair
    assert other not in edges[one]
    assert one not in edges[other]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_some_rooms_know_cupy_and_none_knows_pytorch(path):
    others = {name.partition(".")[0] for name in imported(ast.parse(path.read_text()))}
    assert "torch" not in others
    assert room(module_of(path)) in CUPY_ROOMS or others.isdisjoint({"cupy", "cupyx"})


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


def test_import_kobai_costs_a_tenth_of_a_second_beyond_numpy(tmp_path):
    """0.09 s of processor time beyond NumPy's 0.08 on a quiet machine: modules that are executed, and functions called.

    Both are counted, for they are the same on every machine. The clock only tells what they cannot, one slow call: on a
    busy machine Kobai's many small files cost twice NumPy's time.
    """
    code = (
        "import sys, time; a = time.process_time(); import numpy; b = time.process_time(); before = set(sys.modules); "
        "import kobai; print(b - a, time.process_time() - b); new = set(sys.modules) - before; "
        "print(len([n for n in new if n.startswith('kobai')]), len(new))"
    )
    calls = (
        "import numpy, sys; calls = []; sys.setprofile(lambda frame, event, arg: event == 'call' and calls.append("
        "frame.f_code.co_filename)); import kobai; sys.setprofile(None); "
        "print(len([c for c in calls if not c.startswith('<frozen importlib')]))"
    )
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}  # compiled once, as an installed package is
    env.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(code):
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        return [float(number) for number in done.stdout.split()]

    times = []
    for _ in range(12):  # the first try compiles
        numpys, ours, own, new = run(code)
        assert own <= 265, "a module that few programs need is imported when it is asked for"
        assert new - own <= 60
        times.append((numpys, ours))
        if ours < max(0.2, 2.5 * numpys):
            break
    else:
        pytest.fail(f"seconds for NumPy and for Kobai: {times}")
    (called,) = run(calls)
    assert called <= 40_000, "what few programs need is made when it is asked for"
