"""``mlp-vs-cnn``: equal numbers of parameters, images and shuffled pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import kobai
from kobai.errors import DataError
from kobai.lab.experiments import mlp_vs_cnn, register
from kobai.lab.experiments._nets import interval
from kobai.lab.experiments.base import Settings
from kobai.lab.experiments.mlp_vs_cnn import EXPERIMENT, measured, net, shuffled
from kobai.lab.training.curves import Data, load
from kobai.utils.data import TensorDataset

SOURCE = ("digits", True, 0, None)

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def numbers():
    return register.run("mlp-vs-cnn", Settings(quick=True)).numbers


def lead(numbers, pixels):
    """By how much the convolutional net is ahead on the test images, in each repetition."""
    runs = numbers["conditions"]
    return np.subtract(runs[f"cnn, {pixels}"]["test_accuracy"], runs[f"mlp, {pixels}"]["test_accuracy"])


def test_the_convolutional_net_generalises_better(numbers):
    assert len(lead(numbers, "images")) == mlp_vs_cnn.SEEDS
    assert interval(lead(numbers, "images"))[1] > 0, "beyond chance"
    assert EXPERIMENT.finding(numbers)[1]


def test_what_it_is_ahead_by_comes_from_the_images_shape(numbers):
    assert lead(numbers, "shuffled").mean() < 0.5 * lead(numbers, "images").mean()


def test_learning_rates_are_chosen_by_images_held_out(numbers, monkeypatch):
    for run in numbers["conditions"].values():
        tried = {float(rate): held for rate, held in run["held_accuracy_by_rate"].items()}
        assert set(tried) == set(mlp_vs_cnn.RATES)
        assert tried[run["rate"]] == max(tried.values())
    happened: list[str] = []
    real = Data.test
    monkeypatch.setattr(Data, "test", lambda data: happened.append("test") or real(data))
    monkeypatch.setattr(mlp_vs_cnn, "held_accuracy", lambda *args: happened.append("choice") or 0.5)
    monkeypatch.setattr(mlp_vs_cnn, "QUICK_STEPS", 10)
    monkeypatch.setattr(mlp_vs_cnn, "SEEDS", 1)
    EXPERIMENT.run(Settings(quick=True, jobs=1))
    assert happened == ["choice"] * 4 * len(mlp_vs_cnn.RATES) + ["test"] * 4


def test_no_test_image_is_trained_on_or_chosen_by():
    x, t = mlp_vs_cnn.test_images(SOURCE, "images")
    assert len(x) == len(t) == mlp_vs_cnn.TEST
    data = mlp_vs_cnn.split(SOURCE, "images", 3)
    assert len(data.train_x) == 300
    whole = load(*SOURCE)
    assert len(x) + len(data.train_x) + len(data.held_x) == sum(
        map(len, (whole.train_x, whole.held_x, whole.test()[0]))
    )
    parts = ((x,), (data.train_x, data.held_x))
    test, seen = ({bytes(row) for part in these for row in part.flatten(1).numpy()} for these in parts)
    assert not test & seen


def test_the_choice_does_not_look_at_the_test_images(monkeypatch):
    monkeypatch.setattr(Data, "test", lambda data: pytest.fail("looked"))
    assert 0 < mlp_vs_cnn.held_accuracy(SOURCE, "mlp", "images", 0.01, 10, 0) < 1


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (1, 32, 32)])
def test_equal_numbers_of_parameters(shape):
    data = replace(load("digits"), input_shape=shape)
    sizes = {kind: sum(p.numel() for p in net(data, kind, 0).parameters()) for kind in ("mlp", "cnn")}
    assert abs(sizes["mlp"] - sizes["cnn"]) <= 0.02 * sizes["cnn"], sizes
    x = kobai.zeros(2, *shape)
    assert all(net(data, kind, 0)(x).shape == (2, 10) for kind in sizes)


def test_the_claim_is_not_seen_where_the_shape_is_lost(numbers, monkeypatch):
    """Both nets trained again, on images whose pixels somebody shuffled beforehand."""

    def mixed(*source):
        data = load(*source)
        x, t = data.splits.test.tensors
        splits = replace(data.splits, test=TensorDataset(shuffled(x), t))
        return replace(data, train_x=shuffled(data.train_x), held_x=shuffled(data.held_x), splits=splits)

    monkeypatch.setattr(mlp_vs_cnn, "load", mixed)
    runs = dict(numbers["conditions"])
    for name in ("mlp, images", "cnn, images"):
        again = [
            measured(SOURCE, name[:3], "images", runs[name]["rate"], mlp_vs_cnn.QUICK_STEPS, seed) for seed in range(4)
        ]
        runs[name] = {**runs[name], "test_accuracy": [run["test_accuracy"] for run in again]}
    lost = {**numbers, "conditions": runs}
    assert lead(lost, "images").mean() < 0.5 * lead(numbers, "images").mean()
    assert not EXPERIMENT.finding(lost)[1]


def test_unequal_sizes_do_not_pass(numbers):
    assert not EXPERIMENT.finding({**numbers, "parameters": {"mlp": 3000, "cnn": 1898}})[1]


def test_shuffling_moves_all_images_alike():
    x = kobai.arange(2 * 16).reshape(2, 1, 4, 4)
    mixed = shuffled(x)
    assert mixed.shape == x.shape
    assert not kobai.equal(mixed, x)
    assert kobai.equal(mixed[1] - mixed[0], kobai.full((1, 4, 4), 16, dtype=kobai.int64))
    assert sorted(mixed[0].flatten().tolist()) == list(range(16))


def test_a_table_is_no_image():
    with pytest.raises(DataError, match="expected images"):
        mlp_vs_cnn.widths(replace(load("digits"), input_shape=(64,)))


def test_images_too_large_for_a_perceptron_of_that_size():
    with pytest.raises(DataError, match="no perceptron for 3072 inputs is as small"):
        mlp_vs_cnn.widths(replace(load("digits"), input_shape=(3, 32, 32)))


def test_figure(numbers):
    figure = EXPERIMENT.figure(numbers)
    assert len(figure.axes) == 2
    assert "shuffled" in EXPERIMENT.alt_text(numbers)
