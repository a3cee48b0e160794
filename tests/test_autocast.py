"""autocast: what is cast, the way back of gradients, copies of parameters, nesting, threads, and captured steps."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import kobai
from kobai.core import autocast
from kobai.core.primitive import REGISTRY
from kobai.nn import functional as F

HALF, BRAIN, SINGLE = kobai.float16, kobai.bfloat16, kobai.float32


@pytest.fixture(autouse=True)
def _nothing_stays():
    yield
    assert not autocast.state.dtypes
    assert not autocast.state.cache
    assert not autocast._active


def small(**options):
    kobai.manual_seed(0)
    return kobai.nn.Sequential(kobai.nn.Linear(4, 6, **options), kobai.nn.Tanh(), kobai.nn.Linear(6, 3))


def test_every_listed_operation_is_there():
    assert autocast._switches.keys() == autocast.CPU.keys() | autocast.CUDA.keys()
    primitives = {key for key in autocast._switches if key.rpartition(".")[2].startswith("_")}
    assert primitives - {"nn.functional.misc._from_edges", "ops.pool.adaptive._adaptive_mean"} <= REGISTRY.keys()


X = kobai.tensor([[0.5, -1.0], [2.0, 0.25]])
EVERYWHERE = {
    "linear": (lambda x: F.linear(x, x, x[0]), "lower"),
    "matmul": (lambda x: x @ x, "lower"),
    "addmm": (lambda x: kobai.addmm(x, x, x), "lower"),
    "addbmm": (lambda x: kobai.bmm(x[None], x[None]), "lower"),
    "einsum": (lambda x: kobai.einsum("ij,jk->ik", x, x), "lower"),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), "lower"),
    "mse_loss": (lambda x: F.mse_loss(x.bfloat16(), x.bfloat16()), "float32"),
    "cross_entropy": (lambda x: F.cross_entropy(x.half(), kobai.tensor([0, 1], device=x.device)), "float32"),
    "dot": (lambda x: kobai.dot(x[0], x[1]), "float32"),
    "relu": (lambda x: F.relu(x.bfloat16()), "bfloat16"),
    "add": (lambda x: x.half() + x, "float32"),
    "mul": (lambda x: x.bfloat16() * 2.5, "bfloat16"),
    "cat": (lambda x: kobai.cat([x.half(), x]), "float32"),
    "doubles": (lambda x: x.double() @ x.double(), "float64"),
    "integers": (lambda x: x.long() @ x.long(), "int64"),
}
ON_CUDA = {
    "exp": (lambda x: x.half().exp(), "float32", "float16"),
    "sum": (lambda x: x.half().sum(), "float32", "float16"),
    "softmax": (lambda x: x.half().softmax(-1), "float32", "float16"),
    "square": (lambda x: x.half() ** 2, "float32", "float16"),
    "cube": (lambda x: x.half() ** 3, "float32", "float16"),
    "layer_norm": (lambda x: F.layer_norm(x.half(), (2,)), "float32", "float16"),
    "mv": (lambda x: kobai.mv(x, x[0]), "lower", "float32"),
    "mean": (lambda x: x.half().mean(), "float16", "float16"),
    "1 / x": (lambda x: 1 / x.half(), "float32", "float16"),
    "x / 2": (lambda x: x.half() / 2, "float16", "float16"),
    "x / x": (lambda x: x.half() / x.half(), "float16", "float16"),
    "2 ** x": (lambda x: 2 ** x.half(), "float32", "float16"),
    "reciprocal": (lambda x: x.half().reciprocal(), "float32", "float16"),
    "normalize": (lambda x: F.normalize(x.half()), "float32", "float16"),
    "cumsum of a number": (lambda x: x[0, 0].half().cumsum(0), "float32", "float16"),
    "nansum": (lambda x: x.half().nansum(), "float16", "float16"),
    "instance_norm": (lambda x: F.instance_norm(x.half()[None]), "float16", "float16"),
    "instance_norm with weights": (lambda x: F.instance_norm(x.half()[None], weight=x[0]), "float16", "float16"),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x.half()[None], 3), "float16", "float16"),
    "embedding_bag": (lambda x: F.embedding_bag((x > 9).long(), x.half()), "float16", "float16"),
}
ASKED = {
    "softmax": lambda x: x.softmax(-1, dtype=BRAIN),
    "log_softmax": lambda x: x.log_softmax(-1, dtype=BRAIN),
    "softmin": lambda x: F.softmin(x, -1, dtype=BRAIN),
    "sum": lambda x: x.sum(dtype=BRAIN),
    "nansum": lambda x: x.nansum(dtype=BRAIN),
    "mean": lambda x: x.mean(dtype=BRAIN),
    "prod": lambda x: x.prod(dtype=BRAIN),
    "prod of rows": lambda x: x.prod(1, dtype=BRAIN),
    "cumsum": lambda x: x.cumsum(0, dtype=BRAIN),
    "cumprod": lambda x: x.cumprod(0, dtype=BRAIN),
    "norm": lambda x: x.norm(dtype=BRAIN),
    "vector_norm": lambda x: kobai.linalg.vector_norm(x, dtype=BRAIN),
    "matrix_norm": lambda x: kobai.linalg.matrix_norm(x, dtype=BRAIN),
    "linalg.norm": lambda x: kobai.linalg.norm(x, dtype=BRAIN),
}


@pytest.mark.parametrize("make", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("where", ["cpu", "strict"])
def test_a_dtype_that_is_asked_for_is_given(where, make):
    for x in (X.to(where), X.to(where).half()):
        with kobai.autocast(where, HALF):
            assert make(x).dtype == BRAIN
        assert kobai.allclose(make(x).float(), make(X.to(where).double()).float(), rtol=0.02)


def test_reflecting_in_three_dimensions_is_on_no_list():
    """PyTorch's functions for one and two are, on the CPU."""
    x = kobai.ones(1, 3, 3, 3, 3).half()
    with kobai.autocast("cpu"):
        assert F.pad(x, (1,) * 4, mode="reflect").dtype == SINGLE
        assert F.pad(x, (1,) * 6, mode="reflect").dtype == HALF
        assert F.pad(x, (1,) * 6, mode="replicate").dtype == SINGLE


@pytest.mark.parametrize("lower", [HALF, BRAIN], ids=str)
@pytest.mark.parametrize("where", ["cpu", "strict"])
def test_the_dtype_of_results(where, lower):
    """A device that is no CPU has CUDA's list."""
    x = X.to(where)
    others = {name: (f, on_cpu if where == "cpu" else on_cuda) for name, (f, on_cuda, on_cpu) in ON_CUDA.items()}
    cases = EVERYWHERE | others
    for name, (f, expected) in cases.items():
        with kobai.autocast(where, lower):
            found = f(x).dtype
        assert found == (lower if expected == "lower" else expected), name
    assert (x @ x).dtype == SINGLE


def test_only_the_named_device_is_cast():
    with kobai.autocast("strict"):
        assert (X @ X).dtype == SINGLE
    with kobai.autocast("cpu"), kobai.autocast("strict"):
        assert (X @ X).dtype == BRAIN
        assert (X.to("strict") @ X.to("strict")).dtype == HALF
        with kobai.autocast("cpu", enabled=False):
            assert (X @ X).dtype == SINGLE
            with kobai.autocast("cpu", HALF):
                assert (X @ X).dtype == HALF
        assert (X @ X).dtype == BRAIN


def by_hand(net, x, t, lower):
    """What a block does to this net, written with casts."""
    h = F.linear(x.to(lower), net[0].weight.to(lower), net[0].bias.to(lower)).tanh()
    return F.mse_loss(F.linear(h, net[2].weight.to(lower), net[2].bias.to(lower)).float(), t)


@pytest.mark.parametrize("lower", [HALF, BRAIN], ids=str)
def test_gradients_are_those_of_casts_and_parameters_stay_float32(lower, backend):
    net, x, t = small().to(kobai.get_default_device()), kobai.randn(5, 4), kobai.randn(5, 3)
    by_hand(net, x, t, lower).backward()
    wanted = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    with kobai.autocast(kobai.get_default_device().type, lower):
        loss = F.mse_loss(net(x), t)
    assert loss.dtype == SINGLE
    loss.backward()
    for p, right in zip(net.parameters(), wanted, strict=True):
        assert p.dtype == p.grad.dtype == SINGLE
        assert p.grad.tolist() == right.tolist()


def test_a_parameter_is_rounded_once_until_it_changes(monkeypatch):
    casts = []
    plain = autocast.cast
    monkeypatch.setattr(autocast, "cast", lambda t, dtype: casts.append(t) or plain(t, dtype))
    layer, x = kobai.nn.Linear(2, 2), kobai.ones(1, 2).bfloat16()
    with kobai.autocast("cpu"):
        with kobai.autocast("cpu"):
            a = layer(x)
        b = layer(x)
        assert len(casts) == 2  # weight and bias
        with kobai.no_grad():
            layer(x)  # on no tape: not to be used by what is
            layer.weight.mul_(2)
        c = layer(x)
    (a.sum() + b.sum()).backward()
    assert layer.weight.grad.tolist() == [[2, 2], [2, 2]]
    assert kobai.equal(c, F.linear(x, layer.weight.bfloat16(), layer.bias.bfloat16()))
    casts.clear()
    for block in (kobai.autocast("cpu", cache_enabled=False), kobai.autocast("cpu")):
        with block:
            layer(x), layer(x)
            if block._cache_enabled is None:
                kobai.clear_autocast_cache()
                layer(x)
    assert len(casts) == 4 + 4


def test_what_is_unsafe_on_cuda_is_refused_there():
    probabilities = kobai.tensor([0.5]).to("strict")
    with kobai.autocast("strict"), pytest.raises(RuntimeError, match="binary_cross_entropy: is not safe in 16 bits"):
        F.binary_cross_entropy(probabilities, probabilities)


def test_a_decorator_and_its_recursion():
    @kobai.autocast("cpu")
    def f(depth):
        return [(X @ X).dtype, *(f(depth - 1) if depth else [])]

    assert f(2) == [BRAIN] * 3
    with pytest.raises(ZeroDivisionError), kobai.autocast("cpu"):
        1 / 0  # noqa: B018
    assert (X @ X).dtype == SINGLE


def test_threads_are_apart():
    found, go, done = [], threading.Event(), threading.Event()

    def other():
        go.wait()
        found.append((X @ X).dtype)
        with kobai.autocast("cpu", HALF):
            found.append((X @ X).dtype)
            done.set()
            go.clear()

    thread = threading.Thread(target=other)
    thread.start()
    with kobai.autocast("cpu"):
        go.set()
        done.wait()
        assert (X @ X).dtype == BRAIN
    thread.join()
    assert found == [SINGLE, HALF]


def test_the_switches():
    assert kobai.get_autocast_dtype("cpu") == BRAIN
    assert kobai.get_autocast_dtype("cuda") == HALF
    assert kobai.amp.is_autocast_available("cpu")
    assert not kobai.amp.is_autocast_available("abacus")
    with kobai.autocast("cpu", HALF):
        assert kobai.get_autocast_dtype("cpu") == HALF
        assert kobai.is_autocast_enabled("cpu")
        assert not kobai.is_autocast_enabled()
        kobai.set_autocast_dtype("cpu", BRAIN)
        assert (X @ X).dtype == BRAIN
        kobai.set_autocast_cache_enabled(False)
        kobai.set_autocast_enabled("cpu", False)
        assert (X @ X).dtype == SINGLE
    assert kobai.is_autocast_cache_enabled()
    assert kobai.get_autocast_dtype("cpu") == BRAIN
    kobai.set_autocast_enabled("cpu", True)
    assert (X @ X).dtype == BRAIN
    kobai.set_autocast_enabled("cpu", False)
    with pytest.raises(RuntimeError, match="set_autocast_dtype: expected float16 or bfloat16, got float32"):
        kobai.set_autocast_dtype("cpu", SINGLE)
    with pytest.raises(ValueError, match="autocast: expected a device type such as 'cpu' or 'cuda', got True"):
        kobai.autocast(True)
    with pytest.warns(UserWarning, match=r"autocast: expected float16 or bfloat16, got kobai\.float32"):
        block = kobai.autocast("cpu", SINGLE)
    with block:
        assert (X @ X).dtype == SINGLE


def test_without_a_block_no_operation_looks_for_one():
    """Off, the switches of every operation are as they were when it was declared."""

    def cells():
        ops = [primitive.op for primitive in REGISTRY.values()]
        return [
            cell.cell_contents
            for op in ops
            for name, cell in zip(op.__code__.co_freevars, op.__closure__ or (), strict=True)
            if name in ("listed", "at_width")
        ]

    before = cells()
    assert True not in before
    assert not any(4 in cell for cell in before if isinstance(cell, dict))
    with kobai.autocast("cpu"):
        assert True in cells()
    assert cells() == before


@pytest.mark.parametrize("lower", [HALF, BRAIN], ids=str)
@pytest.mark.parametrize("around", [False, True], ids=["inside", "around"])
def test_a_captured_step_replays_bit_for_bit(lower, around):
    def trained(capture):
        net = small()
        optimizer = kobai.optim.Adam(net.parameters(), lr=0.05)

        def step(x, t):
            optimizer.zero_grad()
            with kobai.autocast("cpu", lower, enabled=not around or kobai.is_autocast_enabled("cpu")):
                loss = F.mse_loss(net(x), t)
            loss.backward()
            optimizer.step()
            return loss

        run = kobai.capture(step) if capture else step
        rng, losses = np.random.default_rng(0), []
        for _ in range(6):
            x, t = (kobai.from_numpy(rng.normal(size=(5, n)).astype("f")) for n in (4, 3))
            if around:
                with kobai.autocast("cpu", lower):
                    losses.append(run(x, t).item())
            else:
                losses.append(run(x, t).item())
        assert not capture or run.programs == 1
        return losses, [p.detach().numpy() for p in net.parameters()]

    (a, p), (b, q) = trained(False), trained(True)
    assert a == b
    for one, other in zip(p, q, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_captured_step_is_recorded_for_each_precision():
    layer = kobai.nn.Linear(2, 2)
    step = kobai.capture(lambda x: layer(x).detach())
    x = kobai.ones(1, 2)
    for _ in range(3):
        assert step(x).dtype == SINGLE
        with kobai.autocast("cpu"):
            assert step(x).dtype == BRAIN
            with kobai.no_grad():
                layer.weight.add_(1)
            assert kobai.equal(step(x), F.linear(x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()))


def test_parameters_of_16_bits_train_too():
    for dtype in (BRAIN, HALF):
        net, x, t = small().to(dtype), kobai.randn(20, 4).to(dtype), kobai.randn(20, 3).to(dtype)
        optimizer = kobai.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = F.mse_loss(net(x), t)
            loss.backward()
            kobai.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0]
        assert all(p.dtype == p.grad.dtype == dtype for p in net.parameters())


class Product(kobai.autograd.Function):
    seen: list = []  # noqa: RUF012

    @staticmethod
    @kobai.amp.custom_fwd(device_type="cpu")
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    @kobai.amp.custom_bwd(device_type="cpu")
    def backward(ctx, dy):
        a, b = ctx.saved_tensors
        Product.seen.append((dy @ b.t()).dtype)
        return dy @ b.t(), a.t() @ dy


def test_functions_of_ones_own():
    a = kobai.eye(2, requires_grad=True)
    Product.seen.clear()
    with kobai.autocast("cpu"):
        y = Product.apply(a, X)
    assert y.dtype == BRAIN
    y.sum().backward()
    assert Product.seen == [BRAIN]
    assert a.grad.dtype == SINGLE
    with kobai.autocast("cpu"):  # backward inside, forward outside
        pass
    y = Product.apply(a, X)
    with kobai.autocast("cpu"):
        y.sum().backward()
    assert Product.seen == [BRAIN, SINGLE]


def test_older_names_ask_for_a_device_in_their_name():
    with kobai.autocast("cpu"):
        assert kobai.is_autocast_cpu_enabled()
        kobai.set_autocast_cpu_enabled(False)
        assert not kobai.is_autocast_enabled("cpu")
        kobai.set_autocast_cpu_dtype(HALF)
        kobai.set_autocast_gpu_dtype(BRAIN)
        assert (kobai.get_autocast_cpu_dtype(), kobai.get_autocast_gpu_dtype()) == (HALF, BRAIN)
    assert (kobai.get_autocast_cpu_dtype(), kobai.get_autocast_gpu_dtype()) == (BRAIN, HALF)
