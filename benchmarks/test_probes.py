"""What a probe costs: ten steps of net S, captured, the first of them observed and read, beside ten steps without."""

from __future__ import annotations

import pytest

import kobai
from cases import CPU, LEARNING_RATE, S
from kobai import nn
from kobai.lab import Probe
from problems import draw
from sides import kobai_side

BINS = {"plain": None, "probe": 0, "probe with histograms": 20}


@pytest.mark.parametrize("probe", list(BINS))
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_ten_steps(optimizer, probe, timed):
    problem = draw(CPU["S"])
    model = kobai_side.model_of(CPU["S"], problem)
    rule = getattr(kobai.optim, optimizer)(model.parameters(), lr=LEARNING_RATE[optimizer])
    x, t = kobai.tensor(problem.x), kobai.tensor(problem.t)
    bins = BINS[probe]
    observer = None if bins is None else Probe(model, rule, every=10, bins=bins)

    @kobai.capture
    def step(x, t):
        rule.zero_grad()
        loss = nn.functional.cross_entropy(model(x), t)
        loss.backward()
        rule.step()
        return loss

    def ten():
        for _ in range(10):
            if observer is None:
                step(x, t)
                continue
            with observer.step() as observed:
                step(x, t)
            if observed:
                observer.read()

    timed(f"ten steps of {'-'.join(map(str, S))}, {optimizer}", ten)
