"""``mlp-vs-cnn``: equal numbers of parameters, images and shuffled pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import kobai
from kobai.errors import DataError
from kobai.lab import experiment
from kobai.lab.experiment import Settings
from kobai.lab.experiments import mlp_vs_cnn
from kobai.lab.experiments.mlp_vs_cnn import EXPERIMENT, net, shuffled
from kobai.lab.training import load


@pytest.fixture(scope="module")
def numbers():
    return experiment.run("mlp-vs-cnn", Settings(quick=True)).numbers


def error(numbers, condition):
    return 1 - np.mean(numbers["conditions"][condition]["test_accuracy"])


def test_the_convolutional_net_generalises_better(numbers):
    assert error(numbers, "cnn, images") < 0.75 * error(numbers, "mlp, images")
    assert EXPERIMENT.finding(numbers)[1]


def test_what_it_is_ahead_by_comes_from_the_images_shape(numbers):
    ahead = error(numbers, "mlp, images") - error(numbers, "cnn, images")
    assert error(numbers, "mlp, shuffled") - error(numbers, "cnn, shuffled") < 0.5 * ahead


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (1, 32, 32)])
def test_equal_numbers_of_parameters(shape):
    data = replace(load("digits"), input_shape=shape)
    sizes = {kind: sum(p.numel() for p in net(data, kind, 0).parameters()) for kind in ("mlp", "cnn")}
    assert abs(sizes["mlp"] - sizes["cnn"]) <= 0.02 * sizes["cnn"], sizes
    x = kobai.zeros(2, *shape)
    assert all(net(data, kind, 0)(x).shape == (2, 10) for kind in sizes)


def test_the_claim_is_not_seen_where_the_shape_is_lost(numbers):
    """The same finding from nets that only saw shuffled pixels."""
    runs = numbers["conditions"]
    lost = {name: runs[name.replace("images", "shuffled")] for name in runs}
    assert not EXPERIMENT.finding({**numbers, "conditions": lost})[1]


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
