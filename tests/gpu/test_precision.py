"""Mixed precision on the GPU: a scaler in a captured step waits for nothing, and its steps are those of the CPU."""

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.amp import GradScaler
from kobai.nn import functional as F

OPTIMIZERS = {
    "sgd": lambda p: kobai.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5),
    "adamw": lambda p: kobai.optim.AdamW(p, lr=1e-2),
    "nadam": lambda p: kobai.optim.NAdam(p, lr=1e-2),
    "radam": lambda p: kobai.optim.RAdam(p, lr=1e-2, betas=(0.9, 0.9)),
    "asgd": lambda p: kobai.optim.ASGD(p, lr=1e-2, t0=3),
}
OVERFLOWS = (0, 4, 5, 9)

needs_nvmath = pytest.mark.skipif("not __import__('kobai').cuda.cublaslt.is_available()", reason="needs nvmath-python")


def training(name, where):
    """A step with a scaler, its data, and what it changes."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 4))
    for p in model.parameters():
        p.array[...] = kobai.tensor(rng.normal(size=p.shape).astype(np.float32)).array * 0.3
    optimizer = OPTIMIZERS[name](model.parameters())
    scaler = GradScaler(where, init_scale=2.0**10, growth_interval=3)
    images = kobai.tensor(rng.normal(size=(32, 8)).astype(np.float32))
    labels = kobai.tensor(rng.integers(0, 4, 32))

    def step(factor):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss * factor).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss

    return step, model, optimizer, scaler


def run(name, where, captured, steps=14):
    with kobai.using(where):
        step, model, optimizer, scaler = training(name, where)
        step = kobai.capture(step) if captured else step
        scales = []
        for i in range(steps):
            step(kobai.tensor(np.float32(np.inf if i in OVERFLOWS else 1)))
            scales.append(scaler.get_scale())
        if captured:
            assert step.programs == 1
            assert step.failure is None
        counts = [state["step"].item() for state in optimizer.state.values() if "step" in state]
        return [p.detach().cpu().numpy() for p in model.parameters()], scales, counts


@needs_nvmath
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scaler_in_a_graph(name):
    eager, scales, counts = run(name, "cuda", False)
    captured, in_graphs, counted = run(name, "cuda", True)
    on_the_host, expected, right = run(name, "cpu", False)
    assert scales == in_graphs == expected
    assert counts == counted == right
    for a, b, c in zip(eager, captured, on_the_host, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-5)


@needs_nvmath
def test_a_step_with_a_scaler_reads_nothing(monkeypatch):
    """Neither eagerly nor in a graph; that a capture refuses a read is the device's own rule."""
    with kobai.using("cuda"):
        step, *_ = training("adamw", "cuda")
        captured = kobai.capture(step, verify=0)
        factors = [kobai.tensor(np.float32(x)) for x in (1, 1, 1, np.inf)]
        for factor in factors[:3]:
            captured(factor)
            step(factor)

        def read(*args, **kwargs):
            raise AssertionError("a value is read from the device")

        monkeypatch.setattr(kobai.xp, "to_host", read)
        for name in ("item", "__float__", "__bool__", "__int__", "tolist", "numpy"):
            monkeypatch.setattr(kobai.Tensor, name, read)
        step(factors[3])
        captured(factors[3])
