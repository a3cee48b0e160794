"""What all experiments have in common: the register, the files, bad input, workers, the style of figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import kobai
from kobai.lab import plots
from kobai.lab.experiments import register
from kobai.lab.experiments.base import Result, Settings
from kobai.lab.experiments.register import EXPERIMENTS, find, plain, read, run
from kobai.lab.training import workers
from kobai.lab.training.curves import load, train_curves


def test_names_are_found_in_several_spellings_and_the_nearest_is_offered():
    assert find("Zero_Init") is EXPERIMENTS["zero-init"]
    assert len(EXPERIMENTS) == 13 == len(list(EXPERIMENTS))
    with pytest.raises(ValueError, match=r"no experiment is called 'init-scal'\. Did you mean 'init-scale'"):
        find("init-scal")
    with pytest.raises(ValueError, match="expected seed as an integer >= 0, got -1"):
        Settings(seed=-1)
    with pytest.raises(ValueError, match="expected jobs as an integer >= 1, got 0"):
        Settings(jobs=0)


@pytest.mark.thorough
def test_a_run_writes_three_files_that_hold_the_same_each_time(tmp_path):
    said: list[str] = []
    result = run("activations", out=tmp_path, say=said.append)
    assert [path.name for path in result.files] == ["activations.json", "activations.png", "activations.svg"]
    assert said[0] == result.finding
    assert said[1:] == [str(path) for path in result.files]
    content = json.loads((tmp_path / "activations.json").read_text())
    assert content["passed"] is True
    assert content["alt"]
    assert content["claim"]
    assert content["numbers"] == result.numbers
    again = read(tmp_path / "activations.json")
    assert again.as_dict() == result.as_dict()
    before = [path.read_bytes() for path in result.files[1:]]
    register.write(again, tmp_path)  # drawn from the JSON
    assert [path.read_bytes() for path in result.files[1:]] == before


def test_a_figure_that_fails_overwrites_nothing(tmp_path, monkeypatch):
    (tmp_path / "activations.json").write_text("mine")
    monkeypatch.setattr(type(find("activations")), "figure", lambda self, numbers: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("activations", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["activations.json"]
    assert (tmp_path / "activations.json").read_text() == "mine"


def test_foreign_json_is_named(tmp_path):
    path = tmp_path / "other.json"
    for text in ("{}", "[1]", "no json"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"other\.json holds no result of an experiment"):
            read(path)


def test_numbers_become_json():
    with pytest.raises(TypeError, match="object cannot be written to JSON"):
        plain({"a": object()})
    assert Result("a", {}, {}, "", True).as_dict().keys() == {"name", "settings", "numbers", "finding", "passed"}


# --- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_workers_have_one_thread_each_and_report_as_they_end():
    ended: list[int] = []
    try:
        results = workers.run_all(os.getenv, [("OMP_NUM_THREADS",)] * 3, jobs=2, done=lambda i, _: ended.append(i))
        assert results == ["1"] * 3
        assert sorted(ended) == [0, 1, 2]
        with pytest.raises(TypeError):
            workers.run_all(divmod, [(1, 2), (1, None)], jobs=2)
        assert workers.run_all(divmod, [(7, 2), (9, 4)], jobs=2) == [(3, 1), (2, 1)]  # a new pool
    finally:
        workers.close()
    with pytest.raises(ValueError, match="jobs: expected an integer >= 1, got 0"):
        workers.run_all(pow, [(1, 1)], jobs=0)


def test_workers_are_where_their_caller_is(tmp_path, monkeypatch):
    """A relative path means the same here and there, also for workers that stay from an earlier call elsewhere."""
    try:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            assert workers.run_all(os.getcwd, [()] * 2, jobs=2) == [str(tmp_path / name)] * 2
    finally:
        workers.close()


def test_a_script_without_a_guard_does_not_start_itself_over(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from kobai.lab.training.workers import run_all\nprint('once', run_all(pow, [(2, 3), (3, 2)], jobs=2))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.stdout == "once [8, 9]\n", done.stderr


# --- training runs ----------------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_curves_with_and_without_capture():
    data = load("digits")
    curves = []
    for capture in (True, False):
        net = kobai.train.mlp(64, [16], 10, generator=kobai.Generator().manual_seed(3))
        curves.append(train_curves(net, data, lr=0.1, steps=60, seed=1, capture=capture).as_dict())
        curves[-1].pop("seconds")
    assert curves[0] == curves[1]


def test_training_refuses_what_cannot_be():
    data = load("digits")
    net = kobai.train.mlp(64, [], 10)
    for wrong, message in [
        ({}, "expected epochs or steps"),
        ({"epochs": 1, "steps": 1}, "expected epochs or steps"),
        ({"steps": 1, "batch_size": 5000}, "expected a batch size from 1 to 1294"),
        ({"steps": 0}, "expected at least 1 step"),
        ({"steps": 1, "optimizer": "sdg"}, "Did you mean 'sgd'"),
    ]:
        with pytest.raises(ValueError, match=message):
            train_curves(net, data, **wrong)
    with pytest.raises(ValueError, match="Flatten has no parameters to train"):
        train_curves(kobai.nn.Flatten(), data, steps=1)
    with pytest.raises(ValueError, match="expected 1 to 1294 training samples"):
        data.only(2000)


def test_a_run_that_diverges_ends_and_says_when():
    net = kobai.train.mlp(64, [50, 50], 10, generator=kobai.Generator().manual_seed(0))
    curves = train_curves(net, load("digits"), lr=1e6, steps=200, measure_every=10)
    assert curves.diverged is not None
    assert curves.diverged == curves.step[-1] < 200


# --- figures ----------------------------------------------------------------------------------------------------------


def test_a_condition_looks_the_same_whatever_it_is_called():
    assert plots.style("ReLU") == plots.style("relu") == plots.style("relu", 3)
    assert plots.style("normal:0.01") == plots.style("normal(0.01)") == plots.style("std 0.01")
    found = plots.styles(["a", "sgd", "b", "adam"])
    assert len({look["color"] for look in found.values()}) == 4
    assert len({look["marker"] for look in found.values()}) >= 3
