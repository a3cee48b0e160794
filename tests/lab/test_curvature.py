"""``curvature``: eigenvalues by Lanczos' method, products with the Hessian, and the edge of stability."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.lab.experiments import curvature
from kobai.lab.experiments.curvature import EXPERIMENT, hessian_product, largest_eigenvalue

SOURCE = ("digits", True, 0, None)


def test_the_largest_eigenvalue_is_that_of_the_matrix():
    rng = np.random.default_rng(0)
    for spectrum in (rng.normal(size=40), np.array([3.0] * 5), -np.arange(1.0, 9.0), np.array([2.0])):
        q = np.linalg.qr(rng.normal(size=(spectrum.size, spectrum.size)))[0]
        a = kobai.tensor(q * spectrum @ q.T)
        found = largest_eigenvalue(lambda v, a=a: a @ v, kobai.tensor(rng.normal(size=spectrum.size)), steps=40)
        assert found == pytest.approx(spectrum.max(), rel=1e-9)


def test_products_are_those_with_the_hessian():
    kobai.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    x = kobai.randn(5, 3, dtype=kobai.float64)

    def loss():
        return (model(x) ** 2).mean()

    def slope():
        parameters = list(model.parameters())
        return kobai.cat([g.reshape(-1) for g in kobai.autograd.grad(loss(), parameters)]).numpy()

    product = hessian_product(model, loss)
    n = sum(p.numel() for p in model.parameters())
    hessian = np.stack([product(row).numpy() for row in kobai.eye(n, dtype=kobai.float64)])
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-14)
    start = kobai.ones(n, dtype=kobai.float64)
    assert largest_eigenvalue(product, start, steps=n) == pytest.approx(np.linalg.eigvalsh(hessian)[-1])
    step, around = 1e-6, []
    for change in (step, -2 * step):
        with kobai.no_grad():
            model[0].weight[1, 2] += change
        around.append(slope())
    above, below = around
    np.testing.assert_allclose(hessian[5], (above - below) / (2 * step), atol=1e-8)


def test_before_the_limit_is_reached_the_claim_is_not_seen(monkeypatch):
    monkeypatch.setattr(curvature, "MEASURED", 3)
    runs = {f"{rate:g}": curvature._trained(SOURCE, rate, 30, 0) for rate in curvature.RATES}
    text, passed = EXPERIMENT.finding({"rates": list(curvature.RATES), "steps": 30, "runs": runs})
    assert not passed
    assert "at step never, never and never" in text
    for run in runs.values():
        assert run["step"] == [0, 10, 20, 30]
        assert run["rises"] == 0
        assert run["loss"] == sorted(run["loss"], reverse=True)


def test_a_curvature_that_goes_on_beyond_the_limit_is_not_the_claim():
    run = {"step": [0, 1, 2], "curvature": [1.0, 10.0, 15.0], "loss": [3.0, 2.0, 1.0], "rises": 0.5}
    assert EXPERIMENT.finding({"rates": [0.2], "steps": 2, "runs": {"0.2": {**run, "curvature": [1.0, 10.0, 10.0]}}})[1]
    assert not EXPERIMENT.finding({"rates": [0.2], "steps": 2, "runs": {"0.2": run}})[1]
