"""``kobai train --backend cupy``: the run of the CPU, and a model that both backends can use."""

import json
from pathlib import Path

import numpy as np
import pytest

import kobai
from cli_commands import kobai_command
from kobai.train import job

pytestmark = pytest.mark.usefixtures("elsewhere")


def run(capsys, *arguments):
    code, out, err = kobai_command(capsys, *arguments)
    assert code == 0, err
    return out


def history(folder):
    return [json.loads(line) for line in (Path(folder) / job.HISTORY).read_text().splitlines()]


def test_train_evaluate_and_predict_on_both(capsys, table):
    small = ["--hidden", "8", "--batch-size", "16", "--epochs", "6", "--lr", "0.05", "--dropout", "0.2", "--seed", "3"]
    for backend in ("numpy", "cupy"):
        run(capsys, "train", "--data", table, *small, "--backend", backend, "--out", backend)
    for here, there in zip(history("numpy"), history("cupy"), strict=True):
        assert here.keys() == there.keys()
        for key, value in here.items():
            if isinstance(value, float) and key != "time":
                np.testing.assert_allclose(there[key], value, rtol=1e-2, atol=0.05)
    for model in ("numpy", "cupy"):
        here, there = (run(capsys, "evaluate", model, "--backend", backend) for backend in ("numpy", "cupy"))
        assert here == there
        here, there = (
            run(capsys, "predict", model, "--data", table, "--backend", backend, "--limit", "5")
            for backend in ("numpy", "cupy")
        )
        assert [line.split(",")[:2] for line in here.splitlines()] == [
            line.split(",")[:2] for line in there.splitlines()
        ]


def test_a_run_is_resumed_on_the_device(capsys, table):
    run(capsys, "train", "--data", table, "--epochs", "2", "--backend", "cupy", "--out", "run")
    run(capsys, "train", "--resume", "run", "--epochs", "4", "--backend", "cupy")
    assert [record["epoch"] for record in history("run")] == [1, 2, 3, 4]


def test_info_names_the_device(capsys):
    assert "cupy" in run(capsys, "info")


def test_bench_times_both_and_names_the_device(capsys):
    """On the simulated device, whose times mean nothing, that is its name."""
    options = ["--hidden", "8", "--seconds", "0.01", "--batch-sizes", "8", "--widths", "", "--backend", "numpy,cupy"]
    said = run(capsys, "bench", *options, "--out", "bench")
    assert kobai.cuda.get_device_name() in " ".join(said.split())
    timings = json.loads(Path("bench/bench.json").read_text())["timings"]
    assert {point["backend"] for point in timings} == {"numpy", "cupy"}


def test_the_lab_runs_on_the_device(capsys):
    """An experiment whose figures are the CPU's, as weights and batches are."""
    findings = []
    for backend in ("numpy", "cupy"):
        run(capsys, "lab", "init-activations", "--quick", "--backend", backend, "--out", backend)
        findings.append(json.loads(Path(backend, "init-activations.json").read_text())["finding"])
    assert findings[0] == findings[1]
