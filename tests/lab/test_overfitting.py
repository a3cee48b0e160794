"""``overfitting``: 300 images, seven hidden layers, and two cures."""

from __future__ import annotations

import numpy as np
import pytest

from kobai.lab import experiment
from kobai.lab.experiment import Settings
from kobai.lab.experiments import overfitting
from kobai.lab.experiments.overfitting import CURES, EXPERIMENT, HIDDEN, few
from kobai.lab.training import load


@pytest.fixture(scope="module")
def numbers():
    return experiment.run("overfitting", Settings(quick=True)).numbers


def gaps(numbers, curve):
    ends = {cure: run["at_end"] for cure, run in numbers["conditions"].items()}
    return {cure: abs(np.mean(end[f"train_{curve}"]) - np.mean(end[f"held_{curve}"])) for cure, end in ends.items()}


def test_the_net_learns_its_images_by_heart(numbers):
    end = numbers["conditions"]["none"]["at_end"]
    assert len(HIDDEN) == 7
    assert np.mean(end["train_accuracy"]) > 0.99
    assert gaps(numbers, "accuracy")["none"] > 0.04


@pytest.mark.parametrize("cure", ["weight decay", "dropout", "both"])
def test_the_gap_shrinks_with_each_cure(numbers, cure):
    accuracy, loss = gaps(numbers, "accuracy"), gaps(numbers, "loss")
    assert accuracy[cure] < accuracy["none"]
    assert loss[cure] < 0.8 * loss["none"]
    assert np.mean(numbers["conditions"][cure]["at_end"]["held_accuracy"]) > 0.6, "and it still learns"


def test_the_finding_says_so(numbers):
    text, passed = EXPERIMENT.finding(numbers)
    assert passed
    assert "300 training images" in text


def test_the_claim_is_not_seen_without_a_cure(monkeypatch):
    for cure in CURES:
        monkeypatch.setitem(CURES, cure, {})
    numbers = experiment.run("overfitting", Settings(quick=True, jobs=1)).numbers
    assert not EXPERIMENT.finding(numbers)[1]


def test_training_and_unseen_images_share_none():
    data = load("digits")
    small = few(data)
    assert len(small.train_x) == 300
    assert len(small.held_x) == len(data.held_x) + len(data.train_x) - 300
    rows = {bytes(row) for row in small.train_x.flatten(1).numpy()}
    shared = sum(bytes(row) in rows for row in small.held_x.flatten(1).numpy())
    assert shared == 0


def test_figure(numbers):
    figure = EXPERIMENT.figure(numbers)
    assert len(figure.axes) == 10
    assert "points" in EXPERIMENT.alt_text(numbers)
    assert overfitting.CURVES == ("train_accuracy", "held_accuracy", "train_loss", "held_loss")
