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


def training(name, where, dtype=None):
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
        with kobai.autocast(where, dtype=dtype, enabled=dtype is not None):
            output = model(images)
            assert dtype is None or output.dtype == dtype
            loss = F.cross_entropy(output, labels)
        scaler.scale(loss * factor).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss

    return step, model, optimizer, scaler


def run(name, where, captured, steps=14, dtype=None):
    with kobai.using(where):
        step, model, optimizer, scaler = training(name, where, dtype)
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
@pytest.mark.parametrize("dtype", [kobai.float16, kobai.bfloat16], ids=str)
def test_autocast_with_a_scaler_in_a_graph(dtype):
    """As eagerly; and near float32, where the master weights are."""
    eager, scales, counts = run("adamw", "cuda", False, dtype=dtype)
    captured, in_graphs, counted = run("adamw", "cuda", True, dtype=dtype)
    wide, *expected = run("adamw", "cuda", False)
    assert [scales, counts] == [in_graphs, counted] == expected
    for a, b, c in zip(eager, captured, wide, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(a, c, atol=0.05)


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


# --- operations in 16 bits --------------------------------------------------------------------------------------------


def batch_norm(x, weight, bias):
    mean, var = kobai.zeros(6), kobai.ones(6)
    y = F.batch_norm(x, mean, var, weight, bias, training=True, activation="relu")
    return y + 0 * mean.sum() + 0 * F.batch_norm(x, mean, var, weight, bias)


OPERATIONS = {
    "gelu": lambda x, weight, bias: F.gelu(x),
    "softmax": lambda x, weight, bias: F.softmax(x, 1),
    "log_softmax": lambda x, weight, bias: F.log_softmax(x, 1),
    "arithmetic": lambda x, weight, bias: (x * x - x) / (x.abs() + 1),
    "sums": lambda x, weight, bias: x.sum(0) + x.mean() + x.exp().amax(),
    "batch_norm": batch_norm,
    "layer_norm": lambda x, weight, bias: F.layer_norm(x, (6,), weight, bias.to(x.dtype)),
    "group_norm": lambda x, weight, bias: F.group_norm(x[:, :, None].expand(20, 6, 3), 3, weight, bias),
    "columns": lambda x, weight, bias: F.layer_norm(x.T, (20,)),
    "cross_entropy": lambda x, weight, bias: F.cross_entropy(x, x.argmax(1), label_smoothing=0.1),
    "weighted": lambda x, weight, bias: F.cross_entropy(x, x.argmax(1), weight.detach().abs(), reduction="none"),
    "nll_loss": lambda x, weight, bias: F.nll_loss(x, x.argmax(1)),
    "linear": lambda x, weight, bias: F.linear(x, x[:6], bias.to(x.dtype), activation="relu"),
    "matmul": lambda x, weight, bias: x @ x.T,
    "part": lambda x, weight, bias: x[:, ::2] + x.T[::2].T,
    "cast": lambda x, weight, bias: x.to(kobai.float32).to(x.dtype),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_in_16_bits(name, dtype):
    """Values and gradients are those of the host, where 16 bits are rounded float32, but for a last bit."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=s) for s in ((20, 6), 6, 6)]
    seen = []
    for where in ("cpu", "cuda"):
        with kobai.using(where):
            x = kobai.tensor(values[0].tolist(), dtype=getattr(kobai, dtype), requires_grad=True)
            weight, bias = (kobai.tensor(v.tolist(), requires_grad=True) for v in values[1:])
            y = OPERATIONS[name](x, weight, bias)
            (y * y).sum().backward()
            seen.append(
                [
                    (t.dtype, t.detach().to(kobai.float32).cpu().numpy())
                    for t in (y, x.grad, weight.grad)
                    if t is not None
                ]
            )
    assert len(seen[0]) == len(seen[1])
    eps = float(kobai.finfo(dtype).eps)
    for (a, host), (b, device) in zip(*seen, strict=True):
        assert a == b
        np.testing.assert_allclose(device, host, rtol=4 * eps, atol=4 * eps * np.abs(host).max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_of_parameters_in_16_bits(name, dtype):
    rng = np.random.default_rng(0)
    start, seen = rng.normal(size=(33, 5)), []
    for where in ("cpu", "cuda"):
        with kobai.using(where):
            p = kobai.tensor(start.tolist(), dtype=getattr(kobai, dtype), requires_grad=True)
            optimizer = OPTIMIZERS[name]([p])
            for _ in range(5):
                optimizer.zero_grad()
                (p * p).sum().backward()
                nn.utils.clip_grad_norm_([p], 1.0)
                optimizer.step()
            seen.append(p.detach().to(kobai.float32).cpu().numpy())
    eps = float(kobai.finfo(dtype).eps)
    np.testing.assert_allclose(seen[1], seen[0], rtol=4 * eps, atol=4 * eps)
