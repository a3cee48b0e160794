"""``hyperparameters``: three searches that never see the test split."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from kobai.errors import DataError
from kobai.lab.experiments import hyperparameters, register
from kobai.lab.experiments.base import Settings
from kobai.lab.experiments.hyperparameters import (
    DECAYS,
    EXPERIMENT,
    RATES,
    TRIALS,
    best_so_far,
    curve,
    in_any_order,
    search,
    trials_to,
    without_test,
)
from kobai.lab.training.curves import Data, evaluate, load

optuna = pytest.importorskip("optuna")

SOURCE = ("digits", True, 0, None)

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def numbers():
    return register.run("hyperparameters", Settings(quick=True)).numbers


def test_bayesian_search_needs_fewer_trials_than_the_grid(numbers):
    runs = numbers["searches"]
    assert {kind: {len(run) for run in found} for kind, found in runs.items()} == {kind: {TRIALS} for kind in runs}
    assert {len(found) for found in runs.values()} == {hyperparameters.REPEATS - 2}
    grid, bayesian = (curve(runs, kind)[0] for kind in ("grid", "bayesian"))
    for n in (TRIALS // 2, TRIALS):  # half-way, and for all that the grids find
        assert trials_to(bayesian, grid[n - 1]) < n
    assert EXPERIMENT.finding(numbers)[1]


def test_each_grid_lies_elsewhere(numbers):
    rates = [sorted({rate for rate, _, _ in grid}) for grid in numbers["searches"]["grid"]]
    assert all(len(found) == hyperparameters.SIDE for found in rates)
    mesh = (RATES[1] / RATES[0]) ** (1 / hyperparameters.SIDE)
    for found in rates:
        assert np.divide(found[1:], found[:-1]) == pytest.approx(mesh)
        assert RATES[0] <= found[0] < RATES[0] * mesh
    assert len({found[0] for found in rates}) == len(rates)


def test_all_look_in_the_same_ranges(numbers):
    for kind, found in numbers["searches"].items():
        rates, decays, _ = np.array(found).reshape(-1, 3).T
        assert rates.min() >= RATES[0] * 0.999, kind
        assert rates.max() <= RATES[1] * 1.001, kind
        assert decays.min() >= DECAYS[0] * 0.999, kind
        assert decays.max() <= DECAYS[1] * 1.001, kind
    rates = np.log10(np.array(numbers["searches"]["random"]).reshape(-1, 3)[:, 0])
    assert abs(np.mean(rates < -1.5) - 0.5) < 0.15, "uniform on a logarithmic scale"


def test_the_claim_is_not_seen_where_the_sampler_ignores_what_it_saw(numbers, monkeypatch):
    """Bayesian search run again with a sampler that draws as random search does."""

    def blind(seed, n_startup_trials):
        return optuna.samplers.RandomSampler(seed=seed)

    monkeypatch.setattr(hyperparameters, "sampler_of_optuna", lambda: blind)
    runs = [search(SOURCE, "bayesian", numbers["steps"], seed) for seed in range(3)]
    searches = {kind: found[:3] for kind, found in numbers["searches"].items()}
    assert EXPERIMENT.finding({**numbers, "searches": searches})[1], "three repetitions are enough to see it"
    assert not EXPERIMENT.finding({**numbers, "searches": {**searches, "bayesian": runs}})[1]


def test_the_claim_is_not_seen_where_bayesian_search_wants_the_worst(numbers, monkeypatch):
    found = hyperparameters.validation_loss
    monkeypatch.setattr(hyperparameters, "validation_loss", lambda *args: -found(*args))
    runs = [[(*trial[:2], -trial[2]) for trial in search(SOURCE, "bayesian", numbers["steps"], 0)]] * 3
    searches = {kind: found[:3] for kind, found in numbers["searches"].items()}
    assert not EXPERIMENT.finding({**numbers, "searches": {**searches, "bayesian": runs}})[1]


@pytest.mark.parametrize("kind", ["grid", "random", "bayesian"])
def test_a_search_never_asks_for_the_test_split(kind, monkeypatch):
    def looked(data):
        raise AssertionError("a search looked at the test split")

    monkeypatch.setattr(Data, "test", looked)
    monkeypatch.setattr(hyperparameters, "TRIALS", 7)
    monkeypatch.setattr(hyperparameters, "SIDE", 2)
    assert len(search(SOURCE, kind, 5, 0)) in (4, 7)


@pytest.mark.parametrize("kind", ["grid", "random", "bayesian"])
def test_a_search_that_judges_by_the_test_split_is_caught(kind, monkeypatch):
    def peeking(data, rate, decay, steps):
        return evaluate(hyperparameters._trained(data, rate, decay, steps), *data.test())[0]

    monkeypatch.setattr(hyperparameters, "validation_loss", peeking)
    with pytest.raises(DataError, match="there is no sample"):
        search(SOURCE, kind, 2, 0)


def test_a_search_is_given_nothing_to_look_at(monkeypatch):
    held = []

    def objective(data, rate, decay, steps):
        held.append(data)
        return rate

    monkeypatch.setattr(hyperparameters, "validation_loss", objective)
    for kind in ("grid", "random", "bayesian"):
        search(SOURCE, kind, 1, 0)
    assert held
    assert all(len(data.test()[0]) == len(data.splits.test) == 0 for data in held)
    data = without_test(load(*SOURCE))
    with pytest.raises(DataError, match="no sample"):
        evaluate(lambda x: x, *data.test())


def test_the_test_split_is_used_once_and_at_the_end(monkeypatch):
    happened = []
    real_test, real_loss = Data.test, hyperparameters.validation_loss
    monkeypatch.setattr(Data, "test", lambda data: happened.append("test") or real_test(data))
    monkeypatch.setattr(
        hyperparameters, "validation_loss", lambda *args: happened.append("trial") or real_loss(*args[:3], 2)
    )
    monkeypatch.setattr(hyperparameters, "TRIALS", 6)
    monkeypatch.setattr(hyperparameters, "REPEATS", 4)  # a quick run takes two less
    EXPERIMENT.run(Settings(quick=True, jobs=1))
    assert happened.count("test") == 1
    assert happened[-1] == "test"
    assert happened.count("trial") == 2 * (hyperparameters.SIDE**2 + 2 * 6)


def test_without_optuna_it_says_so_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setitem(sys.modules, "optuna.samplers", None)
    monkeypatch.setattr(hyperparameters, "search", lambda *args: pytest.fail("it began to train"))
    with pytest.raises(ImportError, match=r"pip install 'kobai\[tune\]'"):
        EXPERIMENT.run(Settings(quick=True, jobs=1))


def test_curves_of_searches():
    losses = [5.0, 3.0, 4.0, 1.0]
    assert best_so_far(losses) == [5.0, 3.0, 3.0, 1.0]
    expected = in_any_order(losses)
    rng = np.random.default_rng(0)
    drawn = np.mean([np.minimum.accumulate(rng.permutation(losses)) for _ in range(4000)], axis=0)
    assert expected == pytest.approx(drawn, abs=0.1)
    assert trials_to(losses, 3.5) == 2
    assert trials_to(losses, 0.5) == 5


def test_figure(numbers):
    figure = EXPERIMENT.figure(numbers)
    assert len(figure.axes) == 4
    assert "validation loss" in EXPERIMENT.alt_text(numbers)
