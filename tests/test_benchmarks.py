"""The programs in ``benchmarks/`` run: the suite is collected and times, sides agree, what is missing is said."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kobai

HOME = Path(__file__).parents[1] / "benchmarks"
CASES = ("S", "S+BN", "S+dropout", "M", "L", "CNN")


def run(*command, path=()):
    """A program of the folder with this Kobai; (exit code, all it printed)."""
    source = str(Path(kobai.__file__).parents[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, path), source])  # one process, whatever this test runs in
    done = subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


def suite(*arguments):
    pytest.importorskip("pytest_benchmark")
    return run("-m", "pytest", HOME, "-p", "no:cacheprovider", *arguments)


# --- the suite --------------------------------------------------------------------------------------------------------


def test_the_suite_is_collected():
    code, out = suite("--collect-only", "--backend", "numpy")
    assert code == 0
    for name in ("test_ops.py", "test_layers.py", "test_optimizers.py", "test_steps.py"):
        assert name in out
    for case in CASES[:-1]:
        assert f"test_step[numpy-{case}-" in out
    assert {"eager", "captured"} == set(re.findall(r"test_step\[numpy-S-100-(\w+)\]", out))


@pytest.mark.thorough
def test_a_step_is_timed_and_a_backend_that_is_not_here_is_skipped_by_name():
    code, out = suite("--quick", "-k", "test_step and S-10-", "--backend", "numpy,cupy")
    assert code == 0
    assert "benchmark 'step S, batch 10, SGD'" in out
    assert "test_step[numpy-S-10-captured]" in out
    assert "test_step[numpy-S-10-eager]" in out
    if reason := kobai.available_backends()["cupy"]:
        assert reason in out


def test_an_unknown_backend_is_refused():
    code, out = suite("--backend", "numby")
    assert code == 4
    assert "expected some of numpy, cupy, got 'numby'" in out


# --- peers ------------------------------------------------------------------------------------------------------------


def peers(tmp_path, *arguments, path=()):
    file = tmp_path / "peers.json"
    code, out = run(HOME / "peers.py", "--tiny", "--rounds", "2", "--out", file, *arguments, path=path)
    return code, out, json.loads(file.read_text()) if file.exists() else None


@pytest.mark.thorough
def test_sides_agree_and_are_timed(tmp_path):
    code, out, report = peers(tmp_path, "--sides", "kobai,kobai-plain,numpy,products")
    assert code == 0, out
    assert [row["case"] for row in report["cases"]] == list(CASES)
    for row in report["cases"]:
        sides = {"kobai", "kobai-plain", "products"} | ({"numpy"} if row["case"] != "CNN" else set())
        if "kobai" in report["left out"]:  # Numba is not installed
            sides -= {"kobai"}
        assert row["microseconds"].keys() == sides
        assert all(0 < low <= middle <= high for low, middle, high in row["microseconds"].values())
        assert len(row["losses"]["kobai-plain"]) == 5
    assert report["machine"]["processor"]
    assert report["versions"]["numpy"]


def test_a_missing_peer_is_said(tmp_path):
    (tmp_path / "jax.py").write_text("raise ImportError('no jax here')\n")
    arguments = ("--sides", "kobai-plain-eager,jax", "--cases", "M")
    code, out, report = peers(tmp_path, *arguments, path=[tmp_path])
    assert code == 0
    assert "JAX, jit: left out, no jax here: pip install jax" in out
    assert report["left out"].keys() == {"jax"}


@pytest.mark.thorough
def test_memory_is_weighed(tmp_path):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux")
    code, out, report = peers(tmp_path, "--sides", "kobai-eager,numpy", "--cases", "M", "--memory")
    assert code == 0, out
    assert all(found["growth"] >= 0 for found in report["cases"][0]["memory"].values())


def test_a_side_that_computes_something_else_is_found_out():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import peers, cases; "
    code += "print(peers.disagreements(cases.CPU['S'], {'a': [1.0, 0.5], 'b': [1.0, 0.5], 'c': [1.0, 0.51]}, 1e-3))"
    assert "'c': 'losses [1.0, 0.51]" in run("-c", code, HOME)[1]


@pytest.mark.oracle
def test_pytorch_agrees(tmp_path):
    code, out, report = peers(tmp_path, "--sides", "kobai-plain,torch,torch-fused")
    assert code == 0, out
    for row in report["cases"]:
        assert row["microseconds"].keys() == {"kobai-plain", "torch", "torch-fused"}


SEQUENCES = """
import sys
sys.path.insert(0, sys.argv[1])
import cases, problems, importlib
for key in ("transformer", "RNN"):
    case = cases.shrunk(cases.CUDA[key])
    for side, variant in (("kobai", "eager"), ("kobai", "captured"), ("torch", "eager")):
        module = importlib.import_module(f"sides.{side}_side")
        run = module.make(case, problems.draw(case), variant, "cpu", "fp32")
        print(key, [f"{run.read(run.step()):.4f}" for _ in range(5)])
"""


@pytest.mark.oracle
def test_pytorch_agrees_on_sequences():
    """Those steps are measured on a GPU only."""
    code, out = run("-c", f"import os; os.environ.setdefault('OMP_NUM_THREADS', '1')\n{SEQUENCES}", HOME)
    assert code == 0, out
    lines = [line for line in out.splitlines() if line.startswith(("transformer", "RNN"))]
    assert (len(lines), len(set(lines))) == (6, 2), out


def test_what_is_measured_already_is_left_out(tmp_path):
    file = tmp_path / "peers.json"
    file.write_text(json.dumps({"cases": [{"case": "S", "left out": {}}]}))
    arguments = ("--sides", "kobai-plain-eager", "--cases", "S,M", "--resume", "--own-memory")
    code, out, report = peers(tmp_path, *arguments)
    assert code == 0, out
    assert [row["case"] for row in report["cases"]] == ["S", "M"]
    assert report["cases"][0] == {"case": "S", "left out": {}}
    assert report["cases"][1]["own memory"] == {}  # NumPy's arrays are nobody's account


def test_compiling_without_a_compiler_is_left_out_with_a_word(tmp_path):
    (tmp_path / "torch.py").write_text("__version__ = '0'\n")
    code = "import os, sys; sys.path.insert(0, sys.argv[1]); os.environ.pop('CXX', None); os.environ['PATH'] = ''\n"
    code += "from sides import torch_side; torch_side.versions('compile')"
    assert "install g++ or clang++" in run("-c", code, HOME, path=[tmp_path])[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cases", "S,Q"], "unknown: Q; known: S, S+BN"),
        (["--sides", "tensorflow"], "unknown: tensorflow"),
        (["--precision", "tf32"], "for --device cuda"),
        (["--precision", "bf16"], "for --device cuda"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_wrong_arguments(arguments, words):
    code, out = run(HOME / "peers.py", *arguments)
    assert (code, words in out) == (2, True)


# --- a whole command --------------------------------------------------------------------------------------------------


def test_whole_commands_ask_for_data():
    code, out = run(HOME / "whole_command.py")
    assert (code, "--data-dir" in out) == (2, True)
