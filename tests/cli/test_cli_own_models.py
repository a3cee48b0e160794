"""``--model file.py:MyNet``: a net of the user's own in every command, and no code that a file alone has named."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from cli_commands import kobai_command
from kobai.errors import CheckpointError
from kobai.lab import compare
from kobai.train import job
from kobai.train.models import build
from kobai.train.own_models import OwnModel
from kobai.train.settings import RunSettings

NET = """
from pathlib import Path
from kobai import nn

Path("was_run").touch()

class MyNet(nn.Module):
    def __init__(self, in_features, num_classes, *, width=8):
        super().__init__()
        self.body, self.head = nn.Linear(in_features, width), nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).relu())

class Ten(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))

class Flat(nn.Linear):
    def __init__(self):
        super().__init__(64, 10)

class Wide(nn.Sequential):
    def __init__(self, depth):
        super().__init__()

def made(input_shape, classes):
    channels, h, w = input_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * h * w, classes))

def number():
    return 3

net = Ten()
"""

SHORT = ["--epochs", 1, "--quiet"]


@pytest.fixture
def file() -> Path:
    path = Path("net.py")
    path.write_text(NET)
    return path


@pytest.fixture
def own_run(capsys, file):
    assert kobai_command(capsys, "train", "--model", "net.py:MyNet", *SHORT, "--out", "own")[0] == 0
    Path("was_run").unlink()
    return "own"


def plainly(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


COMMANDS = ("evaluate", "predict", "export", "report", "diagnose", "warmup")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_wants_the_file_named_and_runs_nothing_without(capsys, own_run, command):
    more = ["--quick"] if command == "diagnose" else []
    code, _, err = kobai_command(capsys, command, own_run, *more)
    assert code == 1
    assert "a checkpoint may not run code; name it: --model net.py:MyNet" in plainly(err)
    assert not Path("was_run").exists()
    code, _, err = kobai_command(capsys, command, own_run, *more, "--model", "net.py:MyNet")
    assert code == 0, err


def test_resuming_wants_it_too_and_the_file_may_have_moved(capsys, own_run, file):
    code, _, err = kobai_command(capsys, "train", "--resume", own_run, "--epochs", 2)
    assert code == 1
    assert "runs only if the command line names it: --model net.py:MyNet" in plainly(err)
    assert not Path("was_run").exists()
    Path("elsewhere").mkdir()
    os.replace(file, "elsewhere/net.py")
    moved = ["--model", "elsewhere/net.py:MyNet"]
    assert kobai_command(capsys, "train", "--resume", own_run, "--epochs", 2, "--quiet", *moved)[0] == 0


def test_neither_settings_in_a_file_nor_descriptions_run_code(capsys, file):
    Path("settings.toml").write_text('model = "net.py:MyNet"\n')
    code, _, err = kobai_command(capsys, "train", "--config", "settings.toml", *SHORT)
    assert code == 1
    assert "runs only if the command line names it" in plainly(err)
    with pytest.raises(CheckpointError, match="runs only if"):
        build({"name": str(file.resolve()) + ":MyNet", "input_shape": [1, 8, 8], "classes": 10})
    with pytest.raises(CheckpointError, match="runs only if"):
        job.begin(RunSettings(model="net.py:MyNet"), {"name": "net.py:MyNet", "input_shape": [1, 8, 8], "classes": 10})
    assert not Path("was_run").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere.py:MyNet", "nowhere.py: there is no such file"),
        ("net.py:Other", "net.py has no 'Other'. It defines MyNet, Ten, Flat, Wide"),
        ("net.py:", "expected net.py:NAME, with the name of a net. It defines MyNet, Ten, Flat, Wide"),
        ("net.py:net", "net.py:net is a net already made, and each run makes a new one: name its class, or a function"),
        ("net.py:NET", "net.py has no 'NET'"),
        ("net.py:Path", "expected net.py:Path to be a class of nets, or a function"),
        ("net.py:number", "expected net.py:number to make a kobai.nn.Module, got int"),
        ("net.py:Wide", "net.py:Wide needs depth; give it a default, or call it one of what is known: input_shape"),
        ("net.py:Flat", "net.py:Flat fails given inputs of shape (2, 1, 8, 8): net.py, line"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(capsys, file, name, told):
    code, _, err = kobai_command(capsys, "train", "--model", name, *SHORT)
    assert code == 2
    assert told in plainly(err)


def test_a_program_that_fails_is_told_with_its_line(capsys):
    Path("net.py").write_text("x = 1\nimport torch.nope\n")
    code, _, err = kobai_command(capsys, "train", "--model", "net.py:Net", *SHORT)
    assert code in (1, 2)
    assert "net.py, line 2: ModuleNotFoundError" in plainly(err)


def test_an_output_of_another_width_is_told(capsys, file, table):
    code, _, err = kobai_command(capsys, "train", "--data", table, "--target", "kind", "--model", "net.py:made", *SHORT)
    assert code == 2
    assert re.search(
        r"net\.py:made fails when it is made: net\.py, line \d+: ValueError: not enough values", plainly(err)
    )
    file.write_text(NET.replace("nn.Linear(width, num_classes)", "nn.Linear(width, 7)"))
    code, _, err = kobai_command(
        capsys, "train", "--data", table, "--target", "kind", "--model", "./net.py:MyNet", *SHORT
    )
    assert code == 2
    assert "to give (2, 3), a score for each of 3 classes, for 2 samples, got a tensor of shape (2, 7)" in plainly(err)


def test_settings_of_other_nets_do_not_fit(capsys, file):
    code, _, err = kobai_command(capsys, "train", "--model", "net.py:MyNet", "--hidden", "5")
    assert code == 2
    assert "net.py:MyNet has no such part to set; mlp and cnn have" in plainly(err)


def test_a_model_of_the_library_needs_no_file(capsys, run, file):
    code, _, err = kobai_command(capsys, "evaluate", run, "--model", "net.py:MyNet")
    assert code == 1
    assert "its net is mlp, which needs no --model" in plainly(err)
    assert not Path("was_run").exists()


def test_own_nets_are_compared_in_processes_and_in_python(capsys, file):
    options = ["--epochs", 1, "--jobs", 2, "--out", "compared"]
    code, out, err = kobai_command(capsys, "compare", "--vary", "model=mlp,net.py:MyNet,net.py:made", *options)
    assert code == 0, err
    assert "net.py:MyNet" in out
    names = {
        run["settings"]["model"] for run in map(json.loads, (p.read_text() for p in Path("compared/runs").iterdir()))
    }
    assert names == {"mlp", OwnModel("net.py:MyNet"), OwnModel("net.py:made")}
    assert len(compare({"lr": [0.01, 0.1]}, model="net.py:Ten", epochs=1, jobs=1).ranking()) == 2


@pytest.mark.thorough
def test_bench_and_diagnose_and_tune_take_them(capsys, file):
    own = ["--model", "net.py:Ten"]
    code, out, err = kobai_command(capsys, "bench", *own, "--batch-sizes", "8", "--seconds", 0.01, "--backend", "numpy")
    assert code == 0, err
    assert "net.py:Ten 1×8×8-10, adam, batches of 100" in plainly(out)
    assert "by width" not in out
    code, out, err = kobai_command(capsys, "diagnose", *own, "--quick")
    assert code in (0, 1), err
    assert "net.py:Ten 1×8×8-10" in plainly(out)
    pytest.importorskip("optuna")
    space = ["--space", "lr=1e-3..1e-1:log", "--trials", 2, "--epochs", 1, "--jobs", 1]
    assert kobai_command(capsys, "tune", *own, *space, "--quiet", "--out", "tuned")[0] == 0
    assert kobai_command(capsys, "report", "tuned")[0] == 0
    code, _, err = kobai_command(capsys, "tune", "--resume", "tuned", "--trials", 3)
    assert code == 1
    assert "goes on by the command that began it, with --out FOLDER" in plainly(err)


def test_the_same_seed_gives_the_same_bits_however_often_the_file_was_run(file):
    file.write_text(NET + "import kobai\nkobai.rand(3)\n")
    settings = RunSettings(model=OwnModel("net.py:MyNet"))
    described = job.describe_model(settings, (1, 8, 8), 10)
    first, second = (job.begin(settings, described)[0].state_dict() for _ in range(2))
    assert all((first[name] == second[name]).all().item() for name in first)
