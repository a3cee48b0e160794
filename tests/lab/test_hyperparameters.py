"""``hyperparameters``: three searches that never see the test split."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from kobai.errors import DataError
from kobai.lab import experiment
from kobai.lab.experiment import Settings
from kobai.lab.experiments import hyperparameters
from kobai.lab.experiments.hyperparameters import (
    DECAYS,
    EXPERIMENT,
    RATES,
    TRIALS,
    best_so_far,
    in_any_order,
    search,
    trials_to,
    without_test,
)
from kobai.lab.training import Data, evaluate, load

optuna = pytest.importorskip("optuna")

SOURCE = ("digits", True, 0, None)


@pytest.fixture(scope="module")
def numbers():
    return experiment.run("hyperparameters", Settings(quick=True)).numbers


def test_bayesian_search_needs_fewer_trials_than_the_grid(numbers):
    runs = numbers["searches"]
    assert {kind: {len(run) for run in found} for kind, found in runs.items()} == {kind: {TRIALS} for kind in runs}
    target = min(trial[2] for trial in runs["grid"][0])
    needed = [trials_to([trial[2] for trial in run], target) for run in runs["bayesian"]]
    assert np.median(needed) <= 0.75 * TRIALS
    assert EXPERIMENT.finding(numbers)[1]


def test_all_look_in_the_same_ranges(numbers):
    for kind, found in numbers["searches"].items():
        rates, decays, _ = np.array(found).reshape(-1, 3).T
        assert rates.min() >= RATES[0] * 0.999, kind
        assert rates.max() <= RATES[1] * 1.001, kind
        assert decays.min() >= DECAYS[0] * 0.999, kind
        assert decays.max() <= DECAYS[1] * 1.001, kind
    rates = np.log10(np.array(numbers["searches"]["random"]).reshape(-1, 3)[:, 0])
    assert abs(np.mean(rates < -1.5) - 0.5) < 0.15, "uniform on a logarithmic scale"


def test_the_claim_is_not_seen_where_bayesian_search_learns_nothing(numbers):
    """A search that stays among the worst trials of the grid is told from one that gets ahead."""
    bad = sorted(numbers["searches"]["grid"][0], key=lambda trial: -trial[2])[:1] * TRIALS
    blind = {**numbers, "searches": {**numbers["searches"], "bayesian": [bad] * 5}}
    assert not EXPERIMENT.finding(blind)[1]


@pytest.mark.parametrize("kind", ["grid row 2", "random", "bayesian"])
def test_a_search_never_asks_for_the_test_split(kind, monkeypatch):
    def looked(data):
        raise AssertionError("a search looked at the test split")

    monkeypatch.setattr(Data, "test", looked)
    monkeypatch.setattr(hyperparameters, "TRIALS", 7)
    assert len(search(SOURCE, kind, 5, 0)) in (6, 7)


def test_a_search_is_given_nothing_to_look_at(monkeypatch):
    held = []

    def objective(data, rate, decay, steps):
        held.append(data)
        return rate

    monkeypatch.setattr(hyperparameters, "validation_loss", objective)
    for kind in ("grid row 0", "random", "bayesian"):
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
    monkeypatch.setattr(hyperparameters, "REPEATS", 1)
    EXPERIMENT.run(Settings(quick=True, jobs=1))
    assert happened.count("test") == 1
    assert happened[-1] == "test"
    assert happened.count("trial") == hyperparameters.SIDE**2 + 2 * 6


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
