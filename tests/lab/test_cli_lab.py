"""``kobai lab``: names, files, exit codes, clear lines."""

from __future__ import annotations

import json
import sys

import pytest

from cli_commands import kobai_command
from kobai.cli import lab
from kobai.lab.experiments.activations import EXPERIMENT as ACTIVATIONS
from kobai.lab.experiments.base import Result, Settings
from kobai.lab.experiments.register import EXPERIMENTS

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_one_experiment(capsys, tmp_path):
    code, out, err = kobai_command(capsys, "lab", "activations", "--quick", "--out", "figures")
    assert (code, err) == (0, "")
    assert ACTIVATIONS.claim in " ".join(out.split())
    assert "activations.json, activations.png, activations.svg" in out
    written = json.loads((tmp_path / "figures/activations.json").read_text())
    assert written["passed"]
    assert written["settings"]["quick"]
    assert (tmp_path / "figures/activations.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figures/activations.svg").read_text().startswith("<?xml")


def test_quiet_prints_files_alone_and_the_folder_has_a_default(capsys, tmp_path):
    code, out, err = kobai_command(capsys, "lab", "Activations", "--quiet")
    assert (code, err) == (0, "")
    assert sorted(out.split()) == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("runs/lab-*/*"))
    assert len(out.split()) == 3


@pytest.mark.parametrize("arguments", [["lab"], ["lab", "list"]])
def test_list(capsys, tmp_path, arguments):
    code, out, _ = kobai_command(capsys, *arguments)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(EXPERIMENTS)
    assert all(EXPERIMENTS[name].claim[:40] in out for name in EXPERIMENTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "hint"), [("batch_nrm", "batch-norm"), ("optimisers", "optimizers"), ("lst", "list")]
)
def test_unknown_names_offer_the_nearest(capsys, tmp_path, wrong, hint):
    code, _, err = kobai_command(capsys, "lab", wrong)
    assert code == 2
    assert f"'{hint}'" in " ".join(err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "mnst"], "Did you mean 'mnist'?"),
        (["--data", "table.csv"], "works on digits, mnist or fashion-mnist"),
        (["--repeat", "0"], "--repeat"),
        (["--seed", "-1"], "--seed"),
        (["--jobs", "0"], "--jobs"),
        (["--backend", "cupi"], "Did you mean 'cupy'?"),
    ],
)
def test_bad_values(capsys, tmp_path, arguments, complaint):
    code, _, err = kobai_command(capsys, "lab", "activations", *arguments)
    assert code == 2
    assert complaint in " ".join(err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_missing_data_is_told_of_before_anything_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "run", lambda *args: pytest.fail("it ran"))
    (tmp_path / "empty").mkdir()
    code, _, err = kobai_command(capsys, "lab", "all", "--data", "mnist", "--data-dir", "empty")
    assert code == 1
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_out_is_a_file(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "run", lambda *args: pytest.fail("it ran"))
    (tmp_path / "taken").write_text("mine")
    code, _, err = kobai_command(capsys, "lab", "activations", "--out", "taken")
    assert code == 1
    assert "is a file" in err
    assert (tmp_path / "taken").read_text() == "mine"


def test_matplotlib_is_asked_for_before_the_work(capsys, monkeypatch):
    monkeypatch.setattr(lab, "has", lambda package: package != "matplotlib")
    monkeypatch.setattr(lab, "run", lambda *args: pytest.fail("it ran"))
    code, _, err = kobai_command(capsys, "lab", "activations")
    assert code == 1
    assert "pip install 'kobai[plot]'" in err


def test_all_goes_on_past_a_failure(capsys, monkeypatch):
    ran = []

    def run(name, settings, folder):
        ran.append(name)
        if name == "init-scale":
            raise ImportError("lab: something is missing. Install it: pip install it")
        if name == "zero-init":
            raise RuntimeError("broken")
        return Result(name, {}, {}, "As it is.", name != "optimizers")

    monkeypatch.setattr(lab, "run", run)
    code, out, err = kobai_command(capsys, "lab", "all")
    assert ran == list(EXPERIMENTS)
    assert code == 1
    assert "10 of 13 claims seen" in out
    assert "init-scale: lab: something is missing" in err
    assert "zero-init: broken" in err
    assert "optimizers: the claim is not seen in these numbers" in err


def test_options_arrive(capsys, monkeypatch):
    heard = []

    def run(name, settings, folder):
        settings.done(1, 2, "first")
        heard.append(settings)
        return Result(name, {}, {}, "", True)

    monkeypatch.setattr(lab, "run", run)
    options = ["--quick", "--seed", 3, "--repeat", 2, "--jobs", 1, "--backend", "numpy"]
    assert kobai_command(capsys, "lab", "activations", *options)[0] == 0
    assert heard == [Settings("digits", True, 3, "numpy", 2, 1)]


def test_one_that_fails_is_one_line(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setitem(sys.modules, "optuna.samplers", None)
    code, _, err = kobai_command(capsys, "lab", "hyperparameters", "--quick")
    assert code == 1
    assert "pip install 'kobai[tune]'" in err
    assert len(err.strip().splitlines()) == 1
