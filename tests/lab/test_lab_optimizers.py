"""``optimizers``: paths on the bowl, curves on data, effective steps."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kobai import optim
from kobai.lab import experiment
from kobai.lab.experiment import Settings
from kobai.lab.experiments import optimizers
from kobai.lab.experiments.optimizers import (
    EXPERIMENT,
    LONGER,
    RULES,
    START,
    _train,
    crossings,
    distance,
    path,
    steps_to,
)


@pytest.fixture(scope="module")
def numbers():
    return experiment.run("optimizers", Settings(quick=True)).numbers


def test_sgd_zigzags_and_the_others_do_not(numbers):
    paths = numbers["paths"]
    assert set(paths) == set(RULES) - {LONGER}
    assert all(tuple(way[0]) == START and len(way) == 31 for way in paths.values())
    assert crossings(paths["sgd"]) == 30
    assert distance(paths["sgd"]) > 30
    for name in set(paths) - {"sgd"}:
        assert distance(paths[name]) < 0.5 * distance(paths["sgd"]), name


def test_the_paths_are_those_of_the_formulas():
    x, y, vx, vy = *START, 0.0, 0.0
    for found in path(*RULES["momentum"][:2])[1:]:
        vx, vy = 0.9 * vx - 0.1 * x / 10, 0.9 * vy - 0.1 * 2 * y
        x, y = x + vx, y + vy
        assert found == pytest.approx([x, y])
    rate = RULES["momentum (average)"][1]
    x, y, vx, vy = *START, START[0] / 10, 2 * START[1]  # the average begins at the first gradient
    x, y = x - rate * vx, y - rate * vy
    for found in path(*RULES["momentum (average)"][:2])[2:]:
        vx, vy = 0.9 * vx + 0.1 * x / 10, 0.9 * vy + 0.1 * 2 * y
        x, y = x - rate * vx, y - rate * vy
        assert found == pytest.approx([x, y])


def test_adagrads_step_shrinks_and_rmsprops_does_not(numbers):
    adagrad, rmsprop = (numbers["training"][name]["effective"][1:] for name in ("adagrad", "rmsprop"))
    assert all(later <= sooner for sooner, later in pairwise(adagrad))
    assert adagrad[-1] < 0.6 * adagrad[0]
    assert rmsprop[-1] > 0.9 * rmsprop[len(rmsprop) // 4]
    assert rmsprop[-1] / rmsprop[0] > 2 * adagrad[-1] / adagrad[0]


def test_momentum_reaches_a_lower_loss_sooner(numbers):
    training = numbers["training"]
    sgd = steps_to(training["sgd"], numbers["level"])
    for name in optimizers.WITH_MOMENTUM:
        assert steps_to(training[name], numbers["level"]) < sgd / 2, name
        assert training[name]["loss"][-1] < training["sgd"]["loss"][-1] / 4, name
    assert EXPERIMENT.finding(numbers)[1]


def test_momentums_lead_is_that_of_a_longer_step(numbers):
    """What the page says of it: SGD whose steps are as long as momentum's add up to keeps up."""
    training = numbers["training"]
    assert steps_to(training[LONGER], numbers["level"]) <= 1.5 * steps_to(training["momentum"], numbers["level"])
    assert EXPERIMENT.finding(numbers)[0].count("SGD with ten times the rate") == 1


def test_the_two_forms_of_momentum_are_one_method(numbers):
    velocity, average = (numbers["training"][name]["loss"] for name in ("momentum", "momentum (average)"))
    assert max(abs(a - b) for a, b in zip(velocity, average, strict=True)) < 0.25


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("momentum", (lambda p, lr: optim.SGD(p, lr=lr), 0.1, 0.01)),  # without momentum
        ("rmsprop", (lambda p, lr: optim.RMSprop(p, lr=lr, alpha=1 - 1e-6), 0.3, 1e-5)),  # AdaGrad with 0.01
    ],
)
def test_the_claim_is_not_seen_without_its_cause(name, broken, numbers, monkeypatch):
    monkeypatch.setitem(RULES, name, broken)
    again = _train(("digits", True, 0, None), name, 1000, 0)
    assert not EXPERIMENT.finding({**numbers, "training": {**numbers["training"], name: again}})[1]


def test_figure(numbers):
    figure = EXPERIMENT.figure(numbers)
    assert len(figure.subfigs[0].axes) == 8
    assert "30 times" in EXPERIMENT.alt_text(numbers)
