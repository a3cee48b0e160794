"""A captured step on the GPU: the eager one's numbers, without waiting for the device, in constant memory."""

import gc
import os

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.errors import CaptureError
from kobai.nn import functional as F

pytestmark = pytest.mark.skipif("not __import__('kobai').cuda.cublaslt.is_available()", reason="needs nvmath-python")


def mlp():
    layers = [nn.Flatten()]
    for before, after in ((64, 48), (48, 32)):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, nn.Linear(32, 4))


def fused():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32, activation="relu"), nn.LayerNorm(32), nn.Linear(32, 4))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 4)
    )


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(64, 4)

    def forward(self, x):
        x = x.reshape(-1, 8, 8)
        return self.out(self.attention(x, x, x, need_weights=False)[0].flatten(1))


STEPS = 60 if os.environ.get("KOBAI_SIMULATE_GPU") else 1000  # the simulated device takes a tenth of a second for one
NETS = {"mlp": mlp, "fused": fused, "cnn": cnn, "attention": Attention}
OPTIMIZERS = {
    "sgd": lambda p: kobai.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: kobai.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: kobai.optim.AdamW(p, lr=1e-3),
    "rmsprop": lambda p: kobai.optim.RMSprop(p, lr=1e-3),
}


def training(net, optimizer, dtype=kobai.float32, clip=True):
    """A step, its batches (the last one is shorter), and what it changes."""
    kobai.manual_seed(1)
    model = NETS[net]().to(dtype)
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    schedule = kobai.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    images = kobai.randn(70, 1, 8, 8, dtype=dtype)
    labels = images.reshape(70, 4, 16).mean(2).argmax(1)

    def step(x, t):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss

    batches = [(images[i : i + 16], labels[i : i + 16]) for i in range(0, 70, 16)]
    return step, batches, model


def run(net, optimizer, where, captured, steps, dtype=kobai.float32):
    with kobai.using(where):
        step, batches, model = training(net, optimizer, dtype)
        step = kobai.capture(step) if captured else step
        losses = [step(*batches[i % len(batches)]).item() for i in range(steps)]
        if captured:
            assert step.failure is None
            assert step.programs == 2  # whole batches, and the short one
    return losses, {name: value.cpu().numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_captured_is_eager(net, optimizer):
    """Sums by atomic additions come in no fixed order, hence the slack; nets without them agree bit for bit."""
    (eager, state), (captured, moved) = (run(net, optimizer, "cupy", c, 20) for c in (False, True))
    np.testing.assert_allclose(captured, eager, rtol=1e-6, atol=1e-6)
    for name, value in state.items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("net", NETS)
def test_captured_training_is_that_of_the_cpu(net):
    (here, _), (there, _) = (run(net, "adam", where, True, 20, kobai.float64) for where in ("numpy", "cupy"))
    np.testing.assert_allclose(there, here, rtol=1e-7)
    here, there = (run(net, "adam", where, True, 20)[0] for where in ("numpy", "cupy"))
    np.testing.assert_allclose(there, here, rtol=2e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_parameters_in_column_order(optimizer):
    """CuPy runs their formula, whose numbers change from step to step, in the graph, too."""

    def trained(captured):
        with kobai.using("cupy"):
            w = kobai.arange(12.0).reshape(3, 4).t().detach().requires_grad_()
            assert not w.is_contiguous()
            updates, x = OPTIMIZERS[optimizer]([w]), kobai.linspace(-1, 1, 12).reshape(3, 4)
            schedule = kobai.optim.lr_scheduler.ExponentialLR(updates, 0.9)

            def step():
                updates.zero_grad()
                (x @ w).square().sum().backward()
                updates.step()
                schedule.step()

            step = kobai.capture(step) if captured else step
            for _ in range(6):
                step()
            return w.detach().cpu().numpy()

    np.testing.assert_allclose(trained(True), trained(False), rtol=1e-6)


def test_steps_on_another_stream():
    import cupy

    with kobai.using("cupy"):
        (here, _), elsewhere = run("mlp", "sgd", "cupy", True, 12), cupy.cuda.Stream(non_blocking=True)
        with elsewhere:
            there, _ = run("mlp", "sgd", "cupy", True, 12)
    np.testing.assert_allclose(there, here, rtol=1e-6)


GATE = """extern "C" __global__ void gate(long long nanoseconds) {
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); while (now - start < nanoseconds);
}"""


@pytest.mark.parametrize("captured", [True, False], ids=["captured", "eager"])
def test_the_host_never_waits(captured):
    """A kernel keeps the device busy for a second, and steps are queued behind it: had one waited, the kernel would be over."""
    import cupy

    gate = cupy.RawKernel(GATE, "gate")
    gate((1,), (1,), (np.int64(1),))
    with kobai.using("cupy"):
        step, batches, _ = training("mlp", "adam")
        step = kobai.capture(step) if captured else step
        for x, t in batches * 3:
            step(x, t)
        cupy.cuda.Device().synchronize()
        over = cupy.cuda.Event()
        gate((1,), (1,), (np.int64(10**9),))
        over.record()
        for x, t in batches[:3]:
            step(x, t)
        assert not over.done
        cupy.cuda.Device().synchronize()


@pytest.mark.parametrize("captured", [True, False], ids=["captured", "eager"])
def test_memory_is_constant_over_many_steps(captured):
    import cupy

    with kobai.using("cupy"):
        step, batches, _ = training("mlp", "adam")
        step = kobai.capture(step) if captured else step
        for x, t in batches * 3:
            step(x, t)
        cupy.cuda.Device().synchronize()
        gc.collect()  # what earlier tests left
        pool = cupy.get_default_memory_pool()
        used, held, free = pool.used_bytes(), pool.total_bytes(), cupy.cuda.runtime.memGetInfo()[0]
        for i in range(STEPS):
            step(*batches[i % len(batches)])
        cupy.cuda.Device().synchronize()
        assert pool.used_bytes() == used
        assert pool.total_bytes() == held
        assert cupy.cuda.runtime.memGetInfo()[0] >= free - (1 << 22)  # other programs use the device too


def test_a_step_that_cannot_be_captured_raises_and_leaves_the_device_usable():
    with kobai.using("cupy"):
        step, batches, _ = training("fused", "sgd")

        def reading(x, t):
            loss = step(x, t)
            return loss if loss.item() > 0 else None

        captured = kobai.capture(reading)
        captured(*batches[0])
        with pytest.raises(CaptureError, match=r"test_graphs.py:\d+"):
            captured(*batches[0])
        assert np.isfinite(step(*batches[0]).item())


def test_fallback_goes_on_without_counting_twice(caplog):
    with kobai.using("cupy"):
        (step, batches, model), (eager, _, same) = training("mlp", "adam"), training("mlp", "adam")

        def reading(x, t):
            loss = step(x, t)
            return loss if loss.item() > 0 else None

        captured = kobai.capture(reading, fallback=True)
        kobai.manual_seed(5)
        losses = [captured(*batches[i % 4]).item() for i in range(6)]
        kobai.manual_seed(5)
        assert losses == pytest.approx([eager(*batches[i % 4]).item() for i in range(6)], rel=1e-6)
        assert captured.failure
        assert sum("going on without" in record.message for record in caplog.records) == 1
        for a, b in zip(model.parameters(), same.parameters(), strict=True):
            np.testing.assert_allclose(a.detach().cpu().numpy(), b.detach().cpu().numpy(), rtol=1e-5, atol=1e-6)


def test_precision_belongs_to_the_signature():
    with kobai.using("cupy"):
        step, batches, _ = training("fused", "sgd")
        step = kobai.capture(step)
        try:
            for precision in ("highest", "high", "highest"):
                kobai.set_float32_matmul_precision(precision)
                for _ in range(3):
                    step(*batches[0])
            assert step.programs == 2
        finally:
            kobai.set_float32_matmul_precision("highest")
