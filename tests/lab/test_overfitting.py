"""``overfitting``: 300 images, seven hidden layers, and two cures."""

from __future__ import annotations

import numpy as np
import pytest

from kobai.cpu import threads
from kobai.lab.experiments import register
from kobai.lab.experiments._nets import fewer, interval
from kobai.lab.experiments.base import Settings
from kobai.lab.experiments.overfitting import (
    CURES,
    CURVES,
    EXPERIMENT,
    HIDDEN,
    REPEATS,
    SAMPLES,
    _late,
    _train,
    smaller,
)
from kobai.lab.training.curves import load

SOURCE = ("digits", True, 0, None)

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def numbers():
    return register.run("overfitting", Settings(quick=True)).numbers


def again(numbers, cure, monkeypatch, **options):
    """The numbers with one condition trained once more, with other options than its own."""
    monkeypatch.setitem(CURES, cure, options)
    monkeypatch.setattr(threads, "_chosen", 1)  # as the processes that trained the others: bits depend on it
    runs = [_train(SOURCE, cure, 150, seed) for seed in range(numbers["repetitions"])]
    found = {**numbers["conditions"][cure], "at_end": {key: [_late(run[key]) for run in runs] for key in CURVES}}
    return {**numbers, "conditions": {**numbers["conditions"], cure: found}}


def test_the_net_learns_its_images_by_heart(numbers):
    end = numbers["conditions"]["none"]["at_end"]
    assert len(HIDDEN) == 7
    assert len(end["train_accuracy"]) == numbers["repetitions"] == REPEATS - 2
    assert np.mean(end["train_accuracy"]) > 0.99
    assert np.mean(np.subtract(end["train_accuracy"], end["held_accuracy"])) > 0.04


@pytest.mark.parametrize(
    ("cure", "curve"),
    [("weight decay", "loss"), ("dropout", "accuracy"), ("dropout", "loss"), ("both", "accuracy"), ("both", "loss")],
)
def test_the_gap_shrinks_with_each_cure(numbers, cure, curve):
    assert interval(smaller(numbers, cure, curve))[1] > 0, "beyond chance"
    held = {name: np.mean(run["at_end"]["held_accuracy"]) for name, run in numbers["conditions"].items()}
    assert held[cure] > held["none"] - 0.01, "and not because less is learnt"


def test_the_finding_says_so(numbers):
    text, passed = EXPERIMENT.finding(numbers)
    assert passed
    assert "300 training images" in text


def test_the_claim_is_not_seen_without_a_cure(numbers, monkeypatch):
    broken = again(numbers, "dropout", monkeypatch)
    assert smaller(broken, "dropout", "loss") == [0.0] * numbers["repetitions"], "the same images and weights as none"
    assert not EXPERIMENT.finding(broken)[1]
    idle = broken["conditions"]["dropout"]
    for cure in ("weight decay", "both"):
        assert not EXPERIMENT.finding({**numbers, "conditions": {**numbers["conditions"], cure: idle}})[1]


def test_learning_less_is_no_cure(numbers, monkeypatch):
    broken = again(numbers, "weight decay", monkeypatch, weight_decay=0.1)
    assert interval(smaller(broken, "weight decay", "loss"))[1] > 0, "the gap is small"
    assert not EXPERIMENT.finding(broken)[1]


def test_training_and_unseen_images_share_none():
    data = load("digits")
    small, other = fewer(data, SAMPLES, 0), fewer(data, SAMPLES, 1)
    assert len(small.train_x) == len(small.train_t) == 300
    assert len(small.held_x) == len(small.held_t) == len(data.held_x) + len(data.train_x) - 300
    assert len(fewer(data, SAMPLES, 0, unseen=100).held_x) == 100
    drawn, others = ({bytes(row) for row in part.train_x.flatten(1).numpy()} for part in (small, other))
    unseen = {bytes(row) for row in small.held_x.flatten(1).numpy()}
    assert not drawn & unseen
    assert drawn | unseen == {bytes(row) for part in (data.train_x, data.held_x) for row in part.flatten(1).numpy()}
    assert len(drawn & others) < 200, "another seed draws others"


def test_confidence_intervals_are_students():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for n in (2, 6, 8, 12, 40):
        values = rng.normal(size=n)
        expected = stats.t.interval(0.95, n - 1, values.mean(), values.std(ddof=1) / n**0.5)
        assert interval(values.tolist())[1:] == pytest.approx(expected, rel=2e-3, abs=2e-3)
    with pytest.raises(ValueError, match="expected at least 2 values, got 1"):
        interval([1.0])


def test_figure(numbers):
    figure = EXPERIMENT.figure(numbers)
    assert len(figure.axes) == 10
    assert "points" in EXPERIMENT.alt_text(numbers)
