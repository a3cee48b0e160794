"""What the study claims of activations and initialisers, on real digits; and that each claim is refuted where it is not so."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest

import kobai
from kobai.lab.experiments import _nets, init_activations, init_compare, init_scale, vanishing_gradient, zero_init
from kobai.lab.experiments.base import Settings
from kobai.lab.experiments.register import find, plain
from kobai.nn.init import by_name


@dataclass(frozen=True)
class Kept(Settings):
    """Settings that remember the results of their tasks, and run again only those that ``fresh`` names."""

    results: dict[Any, Any] = field(default_factory=dict)
    fresh: Any = None

    def map(self, function, tasks):
        ran = super().map(function, {key: task for key, task in tasks.items() if self.fresh is None or self.fresh(key)})
        if self.fresh is None:
            self.results.update(ran)
        assert ran, "nothing was run again"
        return {key: ran[key] if key in ran else self.results[key] for key in tasks}


KEPT = {}
"""The settings of each experiment's run, with its results."""


def measured(name, fresh=None):
    """Numbers of an experiment and whether its claim is seen in them. ``fresh(key)``: the runs that a broken cause changes;
    the others are those of the first time."""
    experiment = find(name)
    if fresh is None:
        KEPT[name] = settings = Kept(quick=True, jobs=1)
    else:
        settings = Kept(quick=True, jobs=1, results=KEPT[name].results, fresh=fresh)
    numbers = plain(experiment.run(settings))
    text, passed = experiment.finding(numbers)
    assert "None" not in text
    assert "nan" not in text
    return numbers, passed


@pytest.fixture(scope="module")
def numbers():
    """Numbers of an experiment, measured once for all tests of this file."""
    found = {}

    def of(name):
        if name not in found:
            found[name] = measured(name)
        return copy.deepcopy(found[name][0]), found[name][1]

    return of


NAMES = ["vanishing-gradient", "activations", "init-activations", "init-scale", "init-compare", "zero-init"]


HEAVY = {"init-scale", "init-compare"}


@pytest.mark.thorough
@pytest.mark.rest
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.thorough] * (n in HEAVY)) for n in NAMES])
def test_the_claim_is_seen(name, numbers):
    found, passed = numbers(name)
    assert passed
    experiment = find(name)
    experiment.figure(found).draw_without_rendering()
    assert len(experiment.alt_text(found)) > 80


def test_sigmoid_factor_is_about_a_quarter_and_relu_keeps_the_norm(numbers):
    runs = numbers("vanishing-gradient")[0]["conditions"]
    for norms in runs["sigmoid"]["norms"]:  # before training and during it
        assert 0.15 < vanishing_gradient.factor(norms)[0] < 0.35
    assert 0.8 < vanishing_gradient.factor(runs["relu"]["norms"][0])[0] < 1.25
    depth = runs["sigmoid"]["first_by_depth"]
    assert all(later < 0.3 * earlier for earlier, later in itertools.pairwise(depth))  # two layers at a time


@pytest.mark.thorough
def test_sigmoid_with_small_weights_stays_at_chance_and_the_other_initialisers_train(numbers):
    runs = numbers("init-compare")[0]["conditions"]
    assert min(runs["sigmoid + std 0.01"]["train_loss"]) > 2.2
    starts = {name: run["start"] for name, run in runs.items()}
    assert starts["sigmoid + std 0.01"] is None
    assert starts["relu + he"] < starts["relu + xavier"] < starts["sigmoid + he"] < starts["sigmoid + xavier"]
    assert starts["relu + std 0.01"] is None or starts["relu + std 0.01"] > 20 * starts["relu + he"]


@pytest.mark.thorough
def test_a_middle_scale_starts_sooner_than_small_ones_and_generalises_better_than_a_large_one(numbers):
    runs = numbers("init-scale")[0]["conditions"]
    assert runs["std 0.1"]["start"] is not None
    for small in ("std 0.01", "std 0.001"):
        assert runs[small]["start"] is None or runs[small]["start"] > 4 * runs["std 0.1"]["start"]
    assert runs["std 1"]["held_at_level"] < runs["std 0.1"]["held_at_level"]
    assert runs["std 1"]["train_loss"][0] > 5


def test_equal_weights_stay_equal(numbers):
    runs = numbers("zero-init")[0]["conditions"]
    for name in ("zeros", "constant"):
        assert max(runs[name]["rank"]) == 1
        assert max(runs[name]["difference"]) < 1e-4
        assert runs[name]["held_accuracy"][-1] < 0.6
    assert runs["constant + noise"]["rank"][-1] > 10
    assert runs["constant + noise"]["held_accuracy"][-1] > 0.9


# --- where the phenomenon is absent, the claim is refuted ---------------------------------------------------------------


def test_without_small_derivatives_nothing_vanishes(numbers, monkeypatch):
    numbers("vanishing-gradient")
    monkeypatch.setitem(vanishing_gradient.CONDITIONS, "sigmoid", "normal(0.42)")  # makes up for the derivative of 1/4
    assert not measured("vanishing-gradient", lambda key: key[0] == "sigmoid")[1]


def test_another_function_under_the_name_of_the_sigmoid(monkeypatch):
    from kobai.lab.experiments import activations

    monkeypatch.setitem(activations.ACTIVATIONS, "sigmoid", (kobai.nn.Tanh, ""))
    assert not measured("activations")[1]


@pytest.mark.parametrize(
    ("condition", "broken"), [("he", "lecun"), ("xavier", "normal(0.01)"), ("std 1", "normal(0.1)")]
)
def test_histograms_with_one_initialiser_for_another(condition, broken, monkeypatch):
    monkeypatch.setitem(_nets.INITS, condition, broken)
    assert not measured("init-activations")[1]


def gradient_shrinks_while_relu_trains(found):
    norms = found["conditions"]["relu"]["norms"][-1]
    norms[:] = [norm * 0.5 ** (len(norms) - i) for i, norm in enumerate(norms)]


def gradient_does_not_shrink_by_a_constant_factor_while_sigmoids_train(found):
    norms = found["conditions"]["sigmoid"]["norms"][-1]
    norms[:] = [norm * (10.0 if i % 2 else 0.1) for i, norm in enumerate(norms)]


def one_layer_of_samples_alike(found, name="relu + he"):
    found["conditions"][name]["layers"][-1]["signal"] *= 1e-3


def sigmoids_that_tell_samples_apart(found):
    layers = found["conditions"]["sigmoid + xavier"]["layers"]
    layers[-1]["signal"] = layers[0]["signal"]


def another_scale_is_ahead_at_the_end(found):
    found["conditions"]["std 1"]["held_accuracy"][-1] = 1.0


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vanishing-gradient", gradient_shrinks_while_relu_trains),
        ("vanishing-gradient", gradient_does_not_shrink_by_a_constant_factor_while_sigmoids_train),
        ("init-activations", one_layer_of_samples_alike),
        ("init-activations", lambda found: one_layer_of_samples_alike(found, "tanh + xavier")),
        ("init-activations", sigmoids_that_tell_samples_apart),
        ("init-scale", another_scale_is_ahead_at_the_end),
    ],
)
def test_every_part_of_a_claim_is_measured_on_what_it_is_about(name, change, numbers):
    found, passed = numbers(name)
    assert passed
    change(found)
    assert not find(name).finding(found)[1]


@pytest.mark.thorough
@pytest.mark.parametrize("scale", ["std 1", "std 0.01"])
def test_a_scale_that_is_neither_large_nor_small(scale, numbers, monkeypatch):
    numbers("init-scale")
    monkeypatch.setitem(_nets.INITS, scale, "normal(0.1)")
    assert not measured("init-scale", lambda key: key[0] == scale)[1]


@pytest.mark.thorough
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_small_weights_that_are_not_small_train(activation, numbers, monkeypatch):
    numbers("init-compare")
    monkeypatch.setitem(_nets.INITS, "std 0.01", "he")
    assert not measured("init-compare", lambda key: key[:2] == (activation, "std 0.01"))[1]


def test_constants_that_are_no_constants_break_the_symmetry(numbers, monkeypatch):
    numbers("zero-init")
    monkeypatch.setitem(zero_init.CONDITIONS, "constant", "normal(0.1)")
    broken, passed = measured("zero-init", lambda key: key == "constant")
    assert not passed
    assert broken["conditions"]["constant"]["rank"][-1] > 10


@pytest.mark.parametrize("name", NAMES)
def test_experiments_run_where_nothing_is_read_by_the_way(name, monkeypatch):
    for module in (init_scale, init_compare, vanishing_gradient):
        monkeypatch.setattr(module, "QUICK_STEPS", 3)
    for module in (init_scale, init_compare):
        monkeypatch.setattr(module, "SEEDS", 2)
    monkeypatch.setattr(vanishing_gradient, "DEPTH", 4)
    monkeypatch.setattr(vanishing_gradient, "DEPTHS", (4,))
    monkeypatch.setitem(zero_init.TRAINING, "steps", 3)
    with kobai.using("strict"):
        assert plain(find(name).run(Settings(quick=True, jobs=1)))


def test_the_study_s_xavier_is_one_over_the_root_of_n():
    weight = by_name(_nets.INITS["xavier"])(kobai.empty(400, 100), generator=kobai.Generator().manual_seed(0))
    assert abs(weight.std().item() - 0.1) < 0.002
    assert init_activations.NAMES is _nets.INITS
    assert "LeCun" in _nets.XAVIER
