"""``gradient-check``: all primitives and whole nets; a wrong gradient is found and named."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai.core.primitive import REGISTRY, Primitive, primitive
from kobai.lab.experiments import gradient_check, register
from kobai.lab.experiments.base import Settings
from kobai.lab.experiments.gradient_check import EXPERIMENT, LIMIT, NETS, problem

pytestmark = pytest.mark.thorough

SOURCE = ("digits", True, 0, None)


@pytest.fixture(scope="module")
def numbers():
    return register.run("gradient-check", Settings(quick=True)).numbers


def test_every_primitive_agrees_with_central_differences(numbers):
    assert {row["primitive"] for row in numbers["primitives"]} | set(numbers["without"]) == set(REGISTRY)
    assert not set(numbers["without"]) & {row["primitive"] for row in numbers["primitives"]}
    assert numbers["primitives"][0]["error"] < LIMIT
    assert len({row["primitive"] for row in numbers["primitives"]}) > 100


@pytest.mark.parametrize("net", NETS)
def test_whole_nets_agree(numbers, net):
    assert numbers["nets"][net]["error"] < LIMIT
    assert numbers["nets"][net]["elements"] > 100


def test_the_worst_element_is_named(numbers):
    text, passed = EXPERIMENT.finding(numbers)
    worst = numbers["primitives"][0]
    assert passed
    assert f"{worst['primitive']} (sample {worst['sample']}, argument {worst['input']}" in text
    assert str(tuple(worst["index"])) in text
    assert any(net["where"] in text for net in numbers["nets"].values())


def test_a_wrong_gradient_is_found_and_named(numbers, monkeypatch):
    def nearly(x):
        def vjp(dy):
            dx = 2 * x * dy
            dx[1, 2] *= 1 + 1e-4
            return (dx,)

        return x * x, vjp

    nearly.__module__, known = "kobai.ops.wrong", dict(REGISTRY)
    primitive(sample=lambda rng: (rng.normal(size=(3, 4)),))(nearly)
    wrong = REGISTRY.pop("ops.wrong.nearly")
    assert isinstance(wrong, Primitive)
    assert known == REGISTRY
    monkeypatch.setitem(REGISTRY, "ops.wrong.nearly", wrong)
    rows = gradient_check._primitives(["ops.wrong.nearly"])
    assert rows[0]["error"] > LIMIT
    assert (rows[0]["input"], rows[0]["index"]) == (0, [1, 2])
    text, passed = EXPERIMENT.finding({**numbers, "primitives": rows + numbers["primitives"]})
    assert not passed
    assert "ops.wrong.nearly (sample 0, argument 0 at (1, 2))" in text


def test_a_wrong_layer_is_found_in_a_net(numbers):
    net, loss = problem(SOURCE, "sigmoid net", 0)
    parameters = list(net.parameters())

    class Bent(kobai.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value * 1.0

        @staticmethod
        def backward(ctx, dy):
            return dy * (1 + 1e-5)

    found = gradient_check.check(lambda *args: Bent.apply(loss()), parameters)
    assert found.error > LIMIT
    bent = {**numbers["nets"], "sigmoid net": {**numbers["nets"]["sigmoid net"], "error": found.error}}
    assert not EXPERIMENT.finding({**numbers, "nets": bent})[1]


def test_rectifiers_see_no_image_near_a_kink():
    net, _ = problem(SOURCE, "ReLU net", 0)
    data = gradient_check.load(*SOURCE)
    x = data.train_x[:200].to(kobai.float64)
    kept = gradient_check._away_from_kinks(net, x)
    assert 0 < len(kept) < 200
    first = net[1](net[0](x[kept]))
    assert np.abs(first.detach().numpy()).min() > gradient_check.FROM_KINKS


def test_the_step_is_near_the_best(numbers):
    sweep = numbers["sweep"]
    best = sweep["step"][int(np.argmin(sweep["error"]))]
    assert 1e-7 < best < 1e-3
    assert sweep["error"][0] > 1e-3, "the formula's own error"
    assert sweep["error"][-1] > 1e-6, "rounding"


def test_figure(numbers):
    figure = EXPERIMENT.figure(numbers)
    assert len(figure.axes) == 2
    assert "1e-7" in EXPERIMENT.alt_text(numbers)
