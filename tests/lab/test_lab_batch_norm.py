"""``batch-norm``: sixteen initial scales, with and without normalisation."""

from __future__ import annotations

import pytest

from kobai import nn
from kobai.lab.experiments import batch_norm, register
from kobai.lab.experiments.base import Settings
from kobai.lab.experiments.batch_norm import EXPERIMENT, LEARNT, SCALES, net
from kobai.random import Generator

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def numbers():
    return register.run("batch-norm", Settings(quick=True)).numbers


def final(numbers, arm):
    return [run[-1] for run in numbers["accuracy"][arm]]


def test_with_it_training_depends_little_on_the_initial_scale(numbers):
    learnt = {arm: sum(a >= LEARNT for a in final(numbers, arm)) for arm in batch_norm.ARMS}
    assert len(numbers["scales"]) == 16
    assert (max(SCALES), min(SCALES)) == (1.0, pytest.approx(1e-4))
    assert learnt["before"] >= 2 * learnt["without"]
    assert learnt["after"] >= 2 * learnt["without"]
    assert learnt["without"] >= 1, "without it some scale works: the net as such is able to"
    assert min(final(numbers, "before")) > max(0.3, 2 * min(final(numbers, "without")))


def test_with_it_training_is_faster(numbers):
    means = {arm: [sum(run) / len(run) for run in runs] for arm, runs in numbers["accuracy"].items()}
    ahead = sum(a > b for a, b in zip(means["before"], means["without"], strict=True))
    assert ahead >= 12
    soonest = {
        arm: min(next((e for e, a in enumerate(run) if a >= LEARNT), 99) for run in runs)
        for arm, runs in numbers["accuracy"].items()
    }
    assert soonest["before"] <= soonest["without"]
    assert EXPERIMENT.finding(numbers)[1]


@pytest.mark.parametrize("arm", ["before", "after"])
def test_the_claim_is_not_seen_without_normalisation(arm, numbers, monkeypatch):
    monkeypatch.setattr(nn, "BatchNorm1d", lambda n, **options: nn.Identity())
    epochs = numbers["epochs"][-1]
    again = [batch_norm._train(("digits", True, 0, None), arm, scale, epochs, 0) for scale in SCALES]
    assert not EXPERIMENT.finding({**numbers, "accuracy": {**numbers["accuracy"], arm: again}})[1]


def test_where_the_normalisation_stands():
    kinds = {arm: [type(layer).__name__ for layer in net(64, 10, arm, 0.1, Generator())] for arm in batch_norm.ARMS}
    assert kinds["without"][1:3] == ["Linear", "ReLU"]
    assert kinds["before"][1:4] == ["Linear", "BatchNorm1d", "ReLU"]
    assert kinds["after"][1:4] == ["Linear", "ReLU", "BatchNorm1d"]


def test_figure(numbers):
    figure = EXPERIMENT.figure(numbers)
    assert len(figure.axes[0].lines) == 4  # three ways to train, and where He's scale is
    assert "batch normalisation" in EXPERIMENT.alt_text(numbers)
