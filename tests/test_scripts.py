"""``scripts/``: the set-up is done once, done again when it was interrupted or is stale, and explained when it fails."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in for Python is a shell script")


@pytest.fixture
def tree(tmp_path):
    """A copy of what the scripts look at."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.fixture
def setup(tree):
    """The module ``_setup`` of that copy, with every command recorded and none run."""
    spec = importlib.util.spec_from_file_location("_setup_copy", tree / "scripts" / "_setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.calls = []

    def run(command):
        module.calls.append(command)
        if "venv" in command:
            fake_python(tree)
        return subprocess.CompletedProcess(command, 0, stdout="")

    module.run = run
    return module


def fake_python(tree, body='echo "$@"; exit 7', folder=".venv"):
    """A stand-in for the environment's Python: it can import kobai, and else does ``body``."""
    python = tree / folder / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\n{body}\n')
    python.chmod(0o755)


def finished(setup, tree, *extras):
    fake_python(tree, folder=setup.VENV.name)
    setup.STAMP.write_text(json.dumps({"key": setup.key(), "extras": list(extras)}))


def test_first_run_installs_and_the_second_calls_nothing(setup):
    setup.prepare({"plot"})
    assert ["venv" in call for call in setup.calls] == [True, False]
    assert setup.calls[1][-1].endswith("[plot]")
    setup.calls.clear()
    setup.prepare({"plot"})
    assert setup.calls == []


def test_more_extras_are_added_to_a_finished_environment(setup, tree):
    finished(setup, tree, "plot")
    setup.prepare({"dev"})
    (call,) = setup.calls
    assert call[-1].endswith("[dev,plot]")
    assert setup.installed() == {"dev", "plot"}


@pytest.mark.parametrize("damage", ["no stamp", "half a stamp", "other metadata", "no python", "python fails"])
def test_unfinished_stale_or_broken_environment_is_built_anew(setup, tree, damage):
    finished(setup, tree, "plot")
    if damage == "no stamp":
        setup.STAMP.unlink()
    elif damage == "half a stamp":
        setup.STAMP.write_text('{"key": "')
    elif damage == "other metadata":
        (tree / "pyproject.toml").write_text("[project]\nname = 'kobai'\n")
    elif damage == "no python":
        setup.PYTHON.unlink()
    else:
        setup.PYTHON.write_text("#!/bin/sh\nexit 1\n")
    (tree / ".venv" / "left-over").touch()
    assert setup.installed() is None
    setup.prepare({"plot"})
    assert not (tree / ".venv" / "left-over").exists()
    assert setup.installed() == {"plot"}


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("Retrying after NewConnectionError\nERROR: No matching distribution", "is the network up"),
        ("ERROR: [Errno 28] No space left on device", "The disk is full"),
        ("ERROR: something else", "has failed"),
    ],
)
def test_failed_installation_is_explained_and_leaves_no_stamp(setup, tree, output, said):
    finished(setup, tree, "plot")
    setup.run = lambda command: subprocess.CompletedProcess(command, 1, stdout=output)
    with pytest.raises(SystemExit) as stop:
        setup.install({"dev"})
    assert said in str(stop.value)
    assert "ERROR" in str(stop.value)
    assert setup.installed() is None


def test_python_without_venv_module_borrows_pip(setup, tree):
    answers = iter([1, 0, 0])
    commands = []

    def run(command):
        commands.append(command)
        return subprocess.CompletedProcess(command, next(answers), stdout="ensurepip is not available")

    setup.run = run
    setup.create()
    assert "--without-pip" in commands[1]
    assert "--python" in commands[2]
    answers = iter([1, 0, 1])
    with pytest.raises(SystemExit, match="python3-venv"):
        setup.create()


@pytest.mark.parametrize(
    ("script", "extras", "run"),
    [
        ("train.py", "data onnx plot tune", "-m kobai train"),
        ("bench.py", "cpu plot", "-m kobai bench"),
        (
            "test.py",
            "cpu cuda-proof data dev mpi onnx plot postgres tensorboard tune",
            "-m pytest --numprocesses=auto --dist=loadfile",
        ),
    ],
)
def test_arguments_and_exit_code_pass_through(setup, tree, script, extras, run):
    finished(setup, tree, *extras.split())
    done = subprocess.run(
        [sys.executable, tree / "scripts" / script, "-x", "two words"], capture_output=True, text=True, cwd=tree.parent
    )
    assert (done.stdout.strip(), done.returncode) == (f"{run} -x two words", 7)
    assert done.stderr == ""


NEEDS = {
    "train": "data plot",
    "lab": "data plot tune",
    "tune": "data plot tune",
    "compare": "data plot",
    "export": "onnx",
}
"""Commands of ``kobai`` -> the extras without which they stop, or leave something out."""


def test_the_environment_of_the_first_command_can_run_every_command_of_the_readme():
    named = set(re.findall(r"\bkobai\s+([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"train", "lab", "tune"} <= named
    needed = {extra for command in named & NEEDS.keys() for extra in NEEDS[command].split()}
    text = (ROOT / "scripts" / "train.py").read_text(encoding="utf-8")
    assert needed <= set(re.findall(r'"([\w-]+)"', re.search(r"main\(\{(.*?)\}", text)[1]))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the simulated GPU needs Linux")
def test_a_gpu_is_simulated_where_there_is_a_compiler(setup, tree, tmp_path):
    setup.live_in(".venv-gpu")  # CuPy is installed apart from what runs the other tests
    finished(setup, tree, *"cpu cuda-proof data dev gpu-proof plot tune".split())
    fake_python(tree, 'echo "$@ $KOBAI_SIMULATE_GPU"', ".venv-gpu")
    (tmp_path / "bin").mkdir()

    def test():
        command = [sys.executable, tree / "scripts" / "test.py", "--simulate-gpu", "-x"]
        environment = {**os.environ, "PATH": str(tmp_path / "bin")}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    done = test()
    assert (done.returncode, "apt install g++" in done.stderr) == (1, True)
    shutil.copy(shutil.which("true"), tmp_path / "bin" / "g++")
    assert test().stdout.strip() == (
        "-m pytest --numprocesses=auto --dist=worksteal -m gpu and not slow and not thorough --count-gpu -x 1"
    )


def test_old_python_gets_a_sentence(tree):
    code = f"import sys; sys.version_info = (3, 9, 1); sys.path.insert(0, {str(tree / 'scripts')!r}); import _setup"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Kobai needs Python 3.11 or newer")
