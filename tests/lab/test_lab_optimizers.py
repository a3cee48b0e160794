"""``optimizers``: paths on the bowl, curves on data, effective steps."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from kobai import optim
from kobai.lab.experiments import optimizers, register
from kobai.lab.experiments._nets import first_below
from kobai.lab.experiments.base import Settings
from kobai.lab.experiments.optimizers import (
    EXPERIMENT,
    LONGER,
    RULES,
    START,
    _root_law,
    _train,
    crossings,
    distance,
    path,
)

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def numbers():
    return register.run("optimizers", Settings(quick=True)).numbers


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
    """Where both are given the same gradients, which last: 1/√t against a constant."""
    lasting = numbers["lasting"]
    adagrad, rmsprop = (np.array(lasting[name]) / lasting[name][0] for name in ("adagrad", "rmsprop"))
    law = np.array([_root_law(step) for step in lasting["step"]])
    assert law[[0, 99]] == pytest.approx([1, (1000**-0.5) / np.mean(np.arange(1, 11) ** -0.5)], rel=0.01)
    assert adagrad == pytest.approx(law, rel=0.25)
    assert rmsprop[25:] == pytest.approx(rmsprop[25:].mean(), rel=0.1)
    # a moving average of squares makes a step of about the rate, whatever the gradient's size
    assert 0.5 < lasting["rmsprop"][-1] / RULES["rmsprop"][2] < 1.5


def test_a_rule_that_does_not_forget_is_noticed(numbers, monkeypatch):
    """RMSprop with a memory without end is AdaGrad, and AdaGrad that forgets is RMSprop."""
    monkeypatch.setitem(RULES, "rmsprop", (lambda p, lr: optim.Adagrad(p, lr=lr), 0.3, 0.001))
    monkeypatch.setitem(optimizers.SQUARES, "rmsprop", "sum")
    lasting = optimizers._under_lasting_gradients(("digits", True, 0, None), 1000, 0)
    assert lasting["rmsprop"][-1] < 0.1 * lasting["rmsprop"][0]
    assert not EXPERIMENT.finding({**numbers, "lasting": lasting})[1]
    swapped = {**numbers["lasting"], "adagrad": numbers["lasting"]["rmsprop"]}
    assert not EXPERIMENT.finding({**numbers, "lasting": swapped})[1]


def test_in_training_what_a_gradient_of_one_would_be_given_grows_as_the_gradients_vanish(numbers):
    """Why it is not what the claim is measured on."""
    run = numbers["training"]["rmsprop"]
    quarter = len(run["gradient"]) // 4
    assert run["gradient"][-1] < 0.1 * run["gradient"][quarter]
    assert run["effective"][-1] > 5 * run["effective"][quarter]
    assert all(later <= sooner for sooner, later in pairwise(numbers["training"]["adagrad"]["effective"][1:]))


def test_momentum_reaches_a_lower_loss_sooner(numbers):
    training = numbers["training"]
    sgd = first_below(training["sgd"], numbers["level"])
    for name in optimizers.WITH_MOMENTUM:
        assert first_below(training[name], numbers["level"]) < sgd / 2, name
        assert training[name]["loss"][-1] < training["sgd"]["loss"][-1] / 4, name
    assert EXPERIMENT.finding(numbers)[1]


def test_momentums_lead_is_that_of_a_longer_step(numbers):
    """What the page says of it: SGD whose steps are as long as momentum's add up to keeps up."""
    training = numbers["training"]
    assert first_below(training[LONGER], numbers["level"]) <= 1.5 * first_below(training["momentum"], numbers["level"])
    assert EXPERIMENT.finding(numbers)[0].count("SGD with ten times the rate") == 1


def test_the_two_forms_of_momentum_are_one_method(numbers):
    velocity, average = (numbers["training"][name]["loss"] for name in ("momentum", "momentum (average)"))
    assert max(abs(a - b) for a, b in zip(velocity, average, strict=True)) < 0.25


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("momentum", (lambda p, lr: optim.SGD(p, lr=lr), 0.1, 0.01)),  # without momentum
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
