"""Probes against NumPy, in captured steps, and off."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.lab import Probe
from kobai.lab.probes import SAMPLE
from kobai.nn import functional as F


def net(activation: nn.Module | None = None) -> nn.Sequential:
    kobai.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), activation or nn.Tanh(), nn.Linear(16, 3))


def batch(n: int = 40, seed: int = 1) -> tuple[Any, Any]:
    kobai.manual_seed(seed)
    return kobai.randn(n, 6) * 3, kobai.arange(n) % 3


def step_of(model: nn.Module, optimizer: Any) -> Any:
    def step(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss

    return step


def near(value: float, expected: Any) -> None:
    assert value == pytest.approx(float(expected), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("captured", [False, True])
def test_numbers_are_those_of_numpy(captured: bool) -> None:
    model = net()
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.5)
    probe = Probe(model, optimizer, every=1, bins=7)
    step = step_of(model, optimizer)
    if captured:
        step = kobai.capture(step)
    for seed in range(4):  # the last is a replay, if any is
        x, t = batch(seed=seed)
        before = [p.detach().clone() for p in model.parameters()]
        with probe.step() as observed:
            step(x, t)
        assert observed
    reading = probe.read()
    assert reading is not None
    old = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    for own, value in zip(old.parameters(), before, strict=True):
        own.data.copy_(value)
    hidden = old[1](old[0](x))
    hidden.retain_grad()
    F.cross_entropy(old[2](hidden), t).backward()
    y = hidden.detach().numpy()
    found = reading["1"].output
    near(found.mean, y.mean())
    near(found.std, y.std())
    near(found.norm, np.linalg.norm(y))
    near(found.largest, np.abs(y).max())
    near(found.signal, np.sqrt(y.var(0).mean()))
    near(found.saturated, (np.abs(y) > math.sqrt(0.95)).mean())
    assert found.counts == tuple(np.histogram(y.reshape(-1), bins=7)[0])
    gradient = reading["1"].gradient
    assert gradient is not None
    near(gradient.norm, np.linalg.norm(hidden.grad.numpy()))
    near(gradient.mean, hidden.grad.numpy().mean())
    weight = reading.weights[0]
    new, was = model[0].weight.detach().numpy(), before[0].numpy()
    assert weight.update is not None
    assert weight.gradient is not None
    near(weight.value.std, was.std())
    near(weight.value.norm, np.linalg.norm(was))
    near(weight.gradient.norm, np.linalg.norm(old[0].weight.grad.numpy()))
    near(weight.update.norm, np.linalg.norm(new - was))
    near(weight.update.mean, (new - was).mean())
    near(weight.ratio, np.linalg.norm(new - was) / np.linalg.norm(was))
    assert reading.input is not None
    near(reading.input.std, x.numpy().std())


def test_a_captured_step_keeps_two_programs_and_learns_the_same() -> None:
    results = []
    for every in (None, 3):
        model = net()
        optimizer = kobai.optim.Adam(model.parameters(), lr=0.01)
        step = kobai.capture(step_of(model, optimizer))
        probe = Probe(model, optimizer, every=every or 1)
        for seed in range(20):
            if every is None:
                step(*batch(seed=seed))
                continue
            with probe.step():
                step(*batch(seed=seed))
        assert step.failure is None
        assert step.programs == (1 if every is None else 2)
        results.append([p.detach().numpy() for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_is_left_when_off() -> None:
    model = net()
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
    probe = Probe(model, optimizer)
    probe.attach()
    probe.detach()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not optimizer._step_pre_hooks
    assert not optimizer._step_post_hooks
    assert not any(p._accumulate_hooks for p in model.parameters())
    assert probe.read() is not None  # it was on, if only for no step
    assert Probe(model).read() is None


def test_dead_units_and_kinds_of_saturation() -> None:
    model = net(nn.ReLU())
    model[0].bias.data[:4] = -100.0
    probe = Probe(model, every=1)
    with probe.step():
        model(batch()[0])
    reading = probe.read()
    assert reading is not None
    assert reading["1"].output.dead >= 0.25
    assert math.isnan(reading["1"].output.saturated)
    assert reading["1"].gradient is None
    for activation in (nn.Sigmoid(), nn.Softsign(), nn.Hardtanh(), nn.Hardsigmoid()):
        model = net(activation)
        nn.init.normal_(model[0].weight, std=1000.0)
        probe = Probe(model, every=1)
        with probe.step():
            model(batch()[0])
        reading = probe.read()
        assert reading is not None
        assert reading["1"].output.saturated > 0.95


def test_fixed_range_and_large_tensors() -> None:
    model = net()
    probe = Probe(model, every=1, bins=4, range=(-1.0, 1.0))
    with probe.step():
        model(batch(500)[0])
    reading = probe.read()
    assert reading is not None
    assert reading["1"].output.edges == (-1.0, -0.5, 0.0, 0.5, 1.0)
    assert sum(reading["1"].output.counts or ()) == SAMPLE
    assert sum(reading["0"].output.counts or ()) == SAMPLE  # the outer bins count what is beyond


def test_blocks_show_their_sums_and_images_their_channels() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Any) -> Any:
            return x + self.conv(x)

    model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), Block(), nn.Flatten(), nn.Linear(4 * 36, 2))
    model[0][0].bias.data[0] = -100.0
    probe = Probe(model, every=1)
    with probe.step():
        model(kobai.randn(10, 1, 8, 8))
    reading = probe.read()
    assert reading is not None
    assert [layer.name for layer in reading.layers] == ["0.0", "0.1", "1.conv", "1", "2", "3"]
    assert reading["1"].block
    assert reading["0.1"].output.dead == pytest.approx(0.25)


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r"expected a kobai\.nn\.Module"):
        Probe(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no parameters"):
        Probe(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="every"):
        Probe(net(), every=0)
    with pytest.raises(ValueError, match="range"):
        Probe(net(), range=(1.0, 0.0))
    with pytest.raises(TypeError, match="Optimizer"):
        Probe(net(), 3)  # type: ignore[arg-type]
