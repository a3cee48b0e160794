"""Probes against NumPy, in captured steps, and off."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.engine import dispatch
from kobai.lab import Probe
from kobai.lab.probe.moments_layout import SAMPLE
from kobai.lab.probe.readings import Reading
from kobai.lab.training.curves import load, train_curves
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
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
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


def seen(model: nn.Module, *inputs: Any, **options: Any) -> Reading:
    probe = Probe(model, every=1, **options)
    with probe.step():
        model(*inputs)
    reading = probe.read()
    assert reading is not None
    return reading


def test_on_every_backend(backend: str) -> None:
    """Captured and replayed, a probe reads on every backend what it reads in an eager step on NumPy."""
    readings = []
    for place, captured in (("numpy", False), (backend, True)):
        with kobai.using(place):
            model = net(nn.ReLU())
            optimizer = kobai.optim.Adam(model.parameters(), lr=0.01)
            probe = Probe(model, optimizer, every=1, bins=5)
            step = kobai.capture(step_of(model, optimizer)) if captured else step_of(model, optimizer)
            for seed in range(4):
                with probe.step():
                    step(*batch(seed=seed))
            found = probe.read()
            assert found is not None
            readings.append([found.input, *[m for x in found.layers for m in (x.output, x.gradient)]])
            readings[-1] += [m for w in found.weights for m in (w.value, w.gradient, w.update)]
    for one, other in zip(*readings, strict=True):
        assert one is not None
        assert other is not None
        assert one.counts == other.counts
        np.testing.assert_allclose(one[:9], other[:9], rtol=2e-5, atol=1e-7)
        np.testing.assert_allclose(one.edges, other.edges, rtol=2e-5, atol=1e-7)


def test_what_an_observed_step_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel for each tensor, one copy for each weight; what more there is would show in every training.

    In calls, for times depend on what else the machine does: how long they take is in ``benchmarks/test_probes.py``.
    """
    for numba in {False, dispatch.numba_installed}:
        monkeypatch.setattr(dispatch, "numba_installed", numba)
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 3))
        optimizer = kobai.optim.Adam(model.parameters(), lr=0.01)
        probe = Probe(model, optimizer, every=2, bins=5)
        step = kobai.capture(step_of(model, optimizer))
        for seed in range(8):
            with probe.step():
                step(*batch(seed=seed))
        assert step.programs == 2
        calls = sorted(
            [replay.run.__self__.calls for variants in step._programs.values() for replay in variants], key=len
        )
        kernels = [sum("moments" in getattr(function, "__module__", "") for function, _ in part) for part in calls]
        tensors, layers, weights = 1 + 2 * 5 + 3 * 3, 5, 3
        assert kernels == [0, tensors]
        # and the gradients that hooks see are arrays of their own
        assert len(calls[1]) - len(calls[0]) <= tensors + weights + layers


def test_a_reading_stays_and_is_made_when_it_is_looked_at() -> None:
    model = net()
    probe = Probe(model, every=1)
    for scale in (1.0, 100.0):
        with probe.step():
            model(batch()[0] * scale)
        if scale == 1.0:
            reading = probe.read()
    assert reading is not None
    assert "layers" not in vars(reading)
    near(reading["0"].output.std, model[0](batch()[0]).detach().numpy().std())
    assert reading.layers is reading.layers
    assert pickle.loads(pickle.dumps(reading)).layers[0].output.std == reading["0"].output.std
    assert repr(reading) == "Reading(3 layers, 2 weights)"
    with pytest.raises(KeyError, match="no layer 'x' was seen"):
        reading["x"]


def test_dtypes_and_tensors_that_hold_nothing() -> None:
    model = net().half()
    reading = seen(model, batch()[0].half() * 1000)  # its squares are beyond half precision
    near(reading.input.std, (batch()[0].half() * 1000).numpy().astype("d").std())  # type: ignore[union-attr]
    table = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    reading = seen(table, kobai.arange(5))
    assert reading.input is None  # no floats
    near(reading["0"].output.norm, np.linalg.norm(table[0].weight.detach().numpy()))
    reading = seen(net(), kobai.zeros(0, 6))
    assert reading.input is None
    assert reading.layers == ()
    assert len(reading.weights) == 2


def test_numbers_that_are_not_finite_are_seen() -> None:
    x = batch()[0].numpy().copy()
    x[3, 2] = np.nan
    reading = seen(net(), kobai.tensor(x), bins=4)
    assert reading.input is not None
    assert math.isnan(reading.input.mean)
    assert math.isnan(reading.input.largest)
    assert sum(reading.input.counts or ()) == x.size - 1
    assert not reading["0"].output.finite
    assert reading.weights[0].value.finite


def test_readings_along_learning_curves() -> None:
    kobai.manual_seed(0)
    data = load("digits").only(200)
    model = kobai.train.mlp(64, [16], 10)
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.1)
    probe = Probe(model, optimizer, every=10)
    curves = train_curves(model, data, optimizer=optimizer, steps=25, batch_size=20, probe=probe)
    assert list(curves.readings) == [1, 11, 21]
    assert all(reading.weights[0].update is not None for reading in curves.readings.values())
    norms = [reading.weights[0].value.norm for reading in curves.readings.values()]
    assert len(set(norms)) == 3
    assert "readings" not in curves.as_dict()
    kobai.manual_seed(0)
    alone = train_curves(kobai.train.mlp(64, [16], 10), data, lr=0.1, steps=25, batch_size=20)
    assert alone.loss == curves.loss
    assert alone.readings == {}
    with pytest.raises(ValueError, match="a probe of the model that is trained, a Sequential, got one of another"):
        train_curves(net(), data, lr=0.1, steps=1, probe=probe)
    with pytest.raises(ValueError, match="another optimizer"):
        train_curves(model, data, lr=0.1, steps=1, probe=probe)


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
