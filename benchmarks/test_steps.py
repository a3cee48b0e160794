"""Whole training steps – forward, loss, backward, update – eager and captured, in float32; and prediction alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

import kobai
from cases import CPU
from problems import draw
from sides import kobai_side

# key of cases.CPU: batch sizes; those of the largest steps are left out under --quick
BATCHES = {"S": (10, 100, 1000), "S+BN": (10, 100, 1000), "S+dropout": (100,), "M": (64, 256, 1024), "L": (1024,)}
POINTS = [
    pytest.param(key, batch, marks=[pytest.mark.large] * (key == "L" or batch * (key == "M") > 256))
    for key, batches in BATCHES.items()
    for batch in batches
]


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize(("key", "batch"), POINTS)
def test_step(key, batch, mode, backend, timed):
    case = replace(CPU[key], batch=batch)
    device = "cuda" if backend == "cupy" else "cpu"
    run = kobai_side.make(case, draw(case), mode, device, "fp32")
    timed(f"step {key}, batch {batch}, {case.optimizer}", run.step)


@pytest.mark.parametrize("mode", ["eager", "captured"])
@pytest.mark.parametrize("batch", [1, 256])
def test_prediction(batch, mode, timed):
    case = replace(CPU["M"], batch=batch)
    problem = draw(case)
    model = kobai_side.model_of(case, problem).eval()
    x = kobai.tensor(problem.x)

    @kobai.no_grad()
    def predict(x):
        return model(x)

    run = kobai.capture(predict) if mode == "captured" else predict
    timed(f"prediction M, batch {batch}", lambda: run(x))
