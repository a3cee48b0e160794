"""Every claim of the lab over several base seeds, quick sizes, digits; with ``KOBAI_DATA``, MNIST in full size too.

pytest -m slow tests/lab/test_lab_claims.py              some ten minutes on two cores
KOBAI_DATA=data pytest -m slow tests/lab/test_lab_claims.py -k mnist
"""

from __future__ import annotations

import os

import pytest

from kobai.lab.experiments.base import Settings
from kobai.lab.experiments.register import EXPERIMENTS, run

pytestmark = pytest.mark.slow

ALIKE = {"activations", "gradient-check"}
"""They draw nothing at random, or next to nothing."""


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in ALIKE])
def test_the_claim_is_seen_from_any_base_seed(name, seed):
    if name == "hyperparameters":
        pytest.importorskip("optuna")
    result = run(name, Settings(quick=True, seed=seed))
    assert result.passed, result.finding


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_two_seeds_a_condition_show_it_too(name):
    result = run(name, Settings(quick=True, repeat=2))
    assert result.passed, result.finding


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_claim_is_seen_on_mnist(name, seed):
    if "KOBAI_DATA" not in os.environ:
        pytest.skip("KOBAI_DATA names no folder that holds MNIST")
    result = run(name, Settings(data="mnist", seed=seed))
    assert result.passed, result.finding
