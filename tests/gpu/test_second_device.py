"""Work on the second GPU while the first is the current one: everything is computed, and lies, where the tensors are."""

import inspect
import re

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F
from test_registry import case, is_float, run, sample

pytestmark = pytest.mark.skipif("kobai.cuda.device_count() < 2", reason="needs two devices")


def computed(name, i, where):
    """Result and gradients of one sample."""
    args, options = sample(name, i)
    made = [kobai.tensor(a, requires_grad=is_float(a), device=where) if isinstance(a, np.ndarray) else a for a in args]
    y = run(name, made, options)
    if y.requires_grad:
        y.backward(kobai.tensor(np.cos(np.arange(y.numel())).reshape(y.shape), dtype=y.dtype, device=where))
    return [y.detach(), *(a.grad for a in made if isinstance(a, kobai.Tensor) and a.grad is not None)]


@case
def test_results_and_gradients_lie_there(name, i):
    with kobai.using("cpu" if any(isinstance(a, np.ndarray) for a in sample(name, i)[0]) else "cuda:1"):
        there = computed(name, i, "cuda:1")
    for ours, theirs in zip(computed(name, i, "cpu"), there, strict=True):
        assert theirs.device == "cuda:1"
        np.testing.assert_allclose(theirs.numpy(force=True), ours.numpy(), rtol=1e-9, atol=1e-9)


def _arguments(where):
    """What functions are tried with: numbers, integers, truth values, mixed, with a dimension or indices."""
    rng = np.random.default_rng(0)
    a = rng.uniform(0.1, 0.9, (3, 3)).astype(np.float32)
    x = kobai.tensor(a @ a.T + np.eye(3, dtype=np.float32), device=where)
    i = kobai.tensor([[0, 1, 2], [1, 1, 0], [2, 0, 0]], device=where)
    row, true = i[0], x > 1
    one = [(x,), (i,), (true,), (x, 2), (x, 0), (x, [0, 1]), (x, 1, 0), (x[None], 2), (x[None, None], 2)]
    two = [
        (x, x + 1),
        (i, i + 1),
        (x, i),
        (i, x),
        (x, row),
        (row, x),
        (x, true),
        (true, x, x + 1),
        (x, true, x.flatten()),
    ]
    return [*one, *two, (x, 0, i), (x, 0, row), (x, 0, row, x + 1), (x, 0, i, x + 1), (x, row, x + 1)]


OTHERS = re.compile(r"^(manual_|_?set_|use|__init__|__dlpack|__array)|^(seed|new|cuda|numpy|histc|.*normal_|cauchy_)$")
"""Functions that change what all others do, leave the device, or take numbers where these arguments have tensors."""
FUNCTIONS = {
    f"{place.__name__}.{name}": function
    for place in (kobai, F, kobai.linalg, kobai.Tensor)
    for name, function in vars(place).items()
    if inspect.isfunction(function) and not OTHERS.search(name)
}
DRAW = re.compile(
    "rand|normal|bern|multinomial|drop|expo|uniform|gumbel|rrelu|geometric|cauchy|poisson|empty|resize|searchsorted"
)
"""Whose numbers are drawn, unset or, of sequences that are not sorted, nothing in particular."""
PARTS = 16


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(PARTS))
def test_every_function_works_there(part):
    """All that is public and takes tensors, while the first device is the current one: by primitives or beside them."""
    wrong = []
    for name, function in [*FUNCTIONS.items()][part::PARTS]:
        for k in range(len(_arguments("cpu"))):
            here, there = _arguments("cpu")[k], _arguments("cuda:1")[k]  # anew, as some change what they are given
            kobai.manual_seed(0)
            try:
                expected = _tensors(function(*here))
            except RecursionError:
                raise
            except Exception:
                continue  # it does not take such arguments
            kobai.manual_seed(0)
            try:
                for ours, theirs in zip(_tensors(function(*there)), expected, strict=True):
                    assert ours.device in ("cuda:1", theirs.device)
                    if not DRAW.search(name):
                        np.testing.assert_allclose(
                            ours.numpy(force=True), theirs.numpy(force=True), rtol=1e-3, atol=1e-4
                        )
            except Exception as error:
                wrong.append(f"{name}, arguments {k}: {type(error).__name__}: {error}"[:300])
                break
    assert not wrong, "\n".join(wrong)


def _tensors(result):
    parts = result if isinstance(result, (tuple, list)) else [result]
    return [part.detach() for part in parts if isinstance(part, kobai.Tensor)]


def training(where):
    kobai.manual_seed(1)
    layers = [nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.LayerNorm(16), nn.Dropout(0.2)]
    model = nn.Sequential(*layers, nn.Linear(16, 4)).double().to(where)
    optimizer = kobai.optim.AdamW(model.parameters(), lr=0.01)
    inputs, labels = kobai.randn(24, 6, dtype=kobai.float64).to(where), kobai.randint(0, 4, (24,)).to(where)

    def step(x, t):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return step, inputs, labels, model, optimizer


def trained(where, captured=False):
    step, inputs, labels, model, optimizer = training(where)
    step = kobai.capture(step) if captured else step
    losses = [step(inputs[i : i + 8], labels[i : i + 8]) for i in (0, 8, 16, 0, 8, 16)]
    assert all(loss.device == where for loss in losses)
    state = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, kobai.Tensor)]
    assert all(t.device == where for t in (*model.state_dict().values(), *state, *(p.grad for p in model.parameters())))
    return [loss.item() for loss in losses], {k: v.cpu().numpy() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("default", ["cpu", "cuda:0", "cuda:1"])
def test_training_there(captured, default):
    if captured and not kobai.cuda.cublaslt.is_available():
        pytest.skip("needs nvmath-python")
    here, state = trained("cpu")
    with kobai.using(default):
        there, moved = trained("cuda:1", captured)
    np.testing.assert_allclose(there, here, rtol=1e-9)
    for name, value in state.items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-7, atol=1e-9)


def test_layers_begin_alike_there():
    made = []
    for where in ("cuda:0", "cuda:1"):
        with kobai.using(where):
            kobai.manual_seed(2)
            made.append(
                nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Embedding(5, 2), nn.LSTM(3, 2)).state_dict()
            )
    for name, value in made[1].items():
        assert value.device == "cuda:1"
        assert value.tolist() == made[0][name].tolist()


def test_a_model_in_two_halves():
    """Gradients cross from one device to the other, and are added up where they belong."""
    kobai.manual_seed(3)
    first, second = nn.Linear(4, 8), nn.Linear(8, 3)
    x = kobai.randn(6, 4)

    def gradients(a, b):
        first.to(a).zero_grad(), second.to(b).zero_grad()
        h = first(x.to(a))
        y = second(h.to(b)) + second((h * h).to(b))
        (y + y.square()).sum().backward()
        assert first.weight.grad.device == a
        assert second.weight.grad.device == b
        return [p.grad.cpu().numpy() for p in (*first.parameters(), *second.parameters())]

    for here, there in zip(gradients("cpu", "cpu"), gradients("cuda:1", "cuda:0"), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)


def test_trained_in_two_halves():
    """One optimizer for parameters on two devices, and one norm of all their gradients on each."""

    def trained(a, b):
        kobai.manual_seed(4)
        first, second = nn.Linear(4, 8).double().to(a), nn.Linear(8, 3).double().to(b)
        optimizer = kobai.optim.Adam([*first.parameters(), *second.parameters()], lr=0.1)
        x = kobai.randn(6, 4, dtype=kobai.float64)
        for _ in range(3):
            optimizer.zero_grad()
            second(first(x.to(a)).relu().to(b)).square().sum().backward()
            optimizer.step()
        assert all(
            t.device == p.device for p in optimizer.state for t in optimizer.state[p].values() if kobai.is_tensor(t)
        )
        return [p.detach().cpu().numpy() for p in (*first.parameters(), *second.parameters())]

    for here, there in zip(trained("cpu", "cpu"), trained("cuda:1", "cuda:0"), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-9)


@pytest.mark.skipif("not __import__('kobai').cuda.cublaslt.is_available()", reason="needs nvmath-python")
def test_captured_there_after_the_first():
    """A device captures on a stream of its own."""
    found = [trained(where, captured=True)[0] for where in ("cuda:0", "cuda:1", "cuda:0")]
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-9)


def test_changes_in_place():
    x = kobai.zeros(2, 3, device="cuda:1")
    x[0] = 1
    x[1, kobai.tensor([0, 2], device="cuda:1")] = 5.0
    x += kobai.ones(3, device="cuda:1")
    x.mul_(2).clamp_(max=11)
    assert x.tolist() == [[4, 4, 4], [11, 2, 11]]


def test_waiting_for_it():
    import cupy

    x = kobai.ones(1000, device="cuda:1")
    with cupy.cuda.Device(1):
        over = cupy.cuda.Event()
        _ = x * 2
        over.record()
    kobai.cuda.synchronize("cuda:1")
    assert over.done


def test_what_is_out_of_range_there():
    table = kobai.ones(3, 2, device="cuda:1")
    y = kobai.embedding(table, kobai.tensor([1, 7], device="cuda:1"))
    with pytest.raises(IndexError, match=r"expected indices in \[0, 2\], got 7"):
        y.tolist()
    assert kobai.embedding(table, kobai.tensor([1, 2], device="cuda:1")).sum().item() == 4
    y = table.gather(0, kobai.tensor([[1, 2], [0, 9]], device="cuda:1"))  # which is looked at before the operation
    with pytest.raises(IndexError, match=r"gather: expected indices in \[0, 2\], got 9"):
        y.tolist()


def test_products_use_what_belongs_to_the_device():
    """Handles and scratch memory of cuBLASLt are each device's and, of the latter, each stream's own."""
    import cupy

    from kobai.cuda import cublaslt

    a = np.random.default_rng(0).normal(size=(8, 8))
    places = []
    for where in (0, 1):
        with cupy.cuda.Device(where):
            for stream in (cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)):
                with stream:
                    np.testing.assert_allclose((x := kobai.tensor(a, device=f"cuda:{where}")).matmul(x).tolist(), a @ a)
                    places.append(cublaslt.workspace()[1])
                    assert places[-1].device.id == where
    assert len({place.data.ptr for place in places}) == 4
    assert len({cublaslt.handle(where) for where in (0, 1)}) == 2
