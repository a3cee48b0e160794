"""Loss scaling: as PyTorch's step by step, captured as eager bit for bit, without a value read by the host."""

import copy
from collections import namedtuple

import numpy as np
import pytest
from optimizer_table import CASES, IDS, make

import kobai
from kobai import optim
from kobai.amp import GradScaler
from kobai.core.tensor import Tensor
from kobai.engine import dispatch

RARER = [("Rprop", {}, {}), ("ASGD", {"t0": 3, "lambd": 0.01}, {})]
SHAPES = [(3, 4), (5,), (), (40, 50)]
BAD = {0: np.inf, 1: np.nan, 5: -np.inf, 6: np.inf, 11: np.nan}
"""Steps that overflow, and what their data hold."""


@pytest.fixture(params=[False, True], ids=["numpy", "numba"])
def engines(request, monkeypatch):
    if request.param:
        pytest.importorskip("numba")
    monkeypatch.setattr(dispatch, "numba_installed", request.param)


def training(library, name, options, clip=None, **of_the_scaler):
    """Parameters, their optimiser, a scaler, and a step on a loss whose gradients change."""
    rng = np.random.default_rng(0)
    parameters = [library.tensor(rng.normal(size=shape).astype(np.float32), requires_grad=True) for shape in SHAPES]
    optimizer = make(library.optim, name, parameters, **options)
    scaler = library.amp.GradScaler("cpu", **{"init_scale": 2.0**10, "growth_interval": 3, **of_the_scaler})

    def step(x):
        optimizer.zero_grad()
        loss = sum(((p - x) ** 2).sum() for p in parameters)
        scaler.scale(loss).backward()
        if clip is not None:
            scaler.unscale_(optimizer)
            library.nn.utils.clip_grad_norm_(parameters, clip)
        scaler.step(optimizer)
        scaler.update()
        return loss

    return parameters, optimizer, scaler, step


def data(i):
    return np.float32(BAD.get(i, np.sin(i)))


def run(library, name, options, steps=14, captured=False, change=None, **others):
    """All parameters and the scaler's state after every step; the optimiser; the step."""
    parameters, optimizer, scaler, step = training(library, name, options, **others)
    step = kobai.capture(step) if captured else step
    seen = []
    for i in range(steps):
        if change is not None:
            change(i, optimizer, scaler)
        step(library.tensor(data(i)))
        seen.append(([host(p) for p in parameters], scaler.state_dict()))
    return seen, optimizer, step


def host(p):
    return np.array(p.detach().numpy())


def assert_same_bits(a, b):
    for i, ((ours, state), (theirs, other)) in enumerate(zip(a, b, strict=True)):
        assert state == other, i
        assert [p.tobytes() for p in ours] == [p.tobytes() for p in theirs], f"step {i}"


# --- captured as eager ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "flags", "_"), CASES + RARER, ids=[*IDS, "Rprop", "ASGD"])
def test_captured_as_eager(name, flags, _, weight_decay, engines):
    options = {**flags, **({} if name == "Rprop" else {"weight_decay": weight_decay})}
    eager, first, _ = run(kobai, name, options)
    captured, second, step = run(kobai, name, options, captured=True)
    assert step.programs == 1
    assert_same_bits(eager, captured)
    for before, after in zip(first.state.values(), second.state.values(), strict=True):
        for key, value in before.items():
            np.testing.assert_array_equal(host(value), host(after[key]), err_msg=key)
            assert key != "step" or value.item() == 14 - len(BAD)


@pytest.mark.parametrize("name", ["Adam", "SGD", "RAdam", "ASGD", "RMSprop"])
def test_options_are_looked_up_at_every_step(name):
    """Whatever a schedule or the program moves: numbers of captured steps that only the device may count."""
    options = {"lr": 0.1, **({"momentum": 0.9, "dampening": 0.5} if name == "SGD" else {})}

    def change(i, optimizer, scaler):
        group = optimizer.param_groups[0]
        group["lr"] = 0.1 / (i + 1)
        if "betas" in group:
            group["betas"] = (0.8 + 0.01 * i, 0.99 - 0.01 * i)
        if group.get("momentum"):
            group["momentum"] = 0.9 - 0.01 * i
        scaler.set_growth_factor(2.0 + 0.1 * i)
        scaler.set_backoff_factor(0.5 - 0.01 * i)
        scaler.set_growth_interval(2 + i % 2)

    eager, *_ = run(kobai, name, options, change=change)
    captured, _, step = run(kobai, name, options, captured=True, change=change)
    assert step.programs == 1
    assert_same_bits(eager, captured)


@pytest.mark.parametrize("rate", ["tensor", "schedule"])
def test_with_a_rate_that_changes(rate):
    seen = []
    for captured in (False, True):
        lr = kobai.tensor(0.1) if rate == "tensor" else 0.1
        parameters, optimizer, _, step = training(kobai, "Adam", {"lr": lr})
        schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=14)
        step = kobai.capture(step) if captured else step
        for i in range(14):
            step(kobai.tensor(data(i)))
            schedule.step()
        seen.append([host(p).tobytes() for p in parameters])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("clip", [0.01, 1e9])
def test_with_clipping(clip):
    eager, *_ = run(kobai, "AdamW", {"lr": 0.1}, clip=clip)
    captured, *_ = run(kobai, "AdamW", {"lr": 0.1}, clip=clip, captured=True)
    assert_same_bits(eager, captured)
    assert all(np.isfinite(p).all() for p in captured[-1][0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_skipped_steps_change_nothing(dtype):
    p = kobai.tensor(np.ones(3, dtype), requires_grad=True)
    optimizer, scaler = optim.Adam([p], lr=0.1, weight_decay=0.1), GradScaler("cpu", init_scale=4.0)
    for i, x in enumerate((1.0, np.nan, 1.0)):
        before = (host(p), copy.deepcopy({k: host(v) for k, v in optimizer.state.get(p, {}).items()}))
        optimizer.zero_grad()
        scaler.scale((p * dtype(x)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        same = host(p).tobytes() == before[0].tobytes()
        assert same == (i == 1)
        if same:
            assert all(host(v).tobytes() == before[1][k].tobytes() for k, v in optimizer.state[p].items())
    assert optimizer.state[p]["step"].item() == 2
    assert scaler.get_scale() == 2.0


def test_the_stages_move_on_in_replays():
    """Only a part of the step is captured; what the program does around it goes on."""
    parameters, optimizer, scaler, _ = training(kobai, "SGD", {"lr": 0.1})

    @kobai.capture
    def part(x):
        optimizer.zero_grad()
        scaler.scale(sum(((p - x) ** 2).sum() for p in parameters)).backward()
        scaler.unscale_(optimizer)

    others, _, theirs, eager = training(kobai, "SGD", {"lr": 0.1}, clip=1e9)
    for i in range(14):
        part(kobai.tensor(data(i)))
        scaler.step(optimizer)
        if i == 8:
            with pytest.raises(RuntimeError, match="unscale_: step"):
                part(kobai.tensor(data(i)))
        scaler.update()
        eager(kobai.tensor(data(i)))
        if i != 8:
            assert [host(p).tobytes() for p in parameters] == [host(p).tobytes() for p in others]
        assert scaler.state_dict() == theirs.state_dict()
    assert part.programs == 1


def test_a_state_loaded_into_a_scaler_is_that_of_its_captured_steps():
    seen = []
    for captured in (False, True):
        parameters, _, scaler, step = training(kobai, "Adam", {"lr": 0.1})
        step = kobai.capture(step) if captured else step
        for i in range(12):
            if i == 8:
                scaler.load_state_dict({**scaler.state_dict(), "scale": 32.0, "_growth_tracker": 2})
            if i == 10:
                scaler.update(64.0)
            step(kobai.tensor(data(i)))
            seen.append((i, [host(p).tobytes() for p in parameters], scaler.state_dict()))
    assert seen[:12] == seen[12:]


def test_parameters_whose_steps_differ_keep_their_own_count():
    """One has no gradient at first; then all have; then one is left out, and a step is skipped meanwhile."""
    results = []
    for captured in (False, True):
        rng = np.random.default_rng(0)
        a, b, c = (kobai.tensor(rng.normal(size=4).astype(np.float32), requires_grad=True) for _ in range(3))
        optimizer, scaler = optim.Adam([a, b, c], lr=0.1), GradScaler("cpu", init_scale=8.0)

        def step(x, which, parameters=(a, b, c), optimizer=optimizer, scaler=scaler):
            optimizer.zero_grad()
            scaler.scale(sum(((parameters[k] - x) ** 2).sum() for k in which)).backward()
            scaler.step(optimizer)
            scaler.update()

        run_it = kobai.capture(step) if captured else step
        for i in range(18):
            which = (0, 1) if i < 6 else (0, 1, 2) if i < 12 else (0, 2)
            run_it(kobai.tensor(np.float32(np.nan if i in (3, 7, 13) else i)), which)
        results.append(([host(p).tobytes() for p in (a, b, c)], [optimizer.state[p]["step"].item() for p in (a, b, c)]))
    assert results[0] == results[1]
    assert results[0][1] == [15, 10, 10]


def test_two_optimizers_skip_for_themselves_and_share_a_scale():
    seen = []
    for captured in (False, True):
        p, q = (kobai.tensor(np.ones(3, np.float32), requires_grad=True) for _ in range(2))
        one, two = optim.SGD([p], lr=0.1), optim.Adam([q], lr=0.1)
        scaler = GradScaler("cpu", init_scale=8.0, growth_interval=4)

        def step(x, y, p=p, q=q, one=one, two=two, scaler=scaler):
            one.zero_grad()
            two.zero_grad()
            for loss in scaler.scale([(p * x).sum(), (q * y).sum()]):
                loss.backward()
            scaler.step(one)
            scaler.step(two)
            scaler.update()

        run_it = kobai.capture(step) if captured else step
        for i in range(8):
            bad = np.float32(np.inf if i == 4 else 1)
            run_it(kobai.tensor(np.float32(1)), kobai.tensor(bad))
        seen.append((host(p).tobytes(), host(q).tobytes(), scaler.state_dict(), two.state[q]["step"].item()))
    assert seen[0] == seen[1]
    np.testing.assert_allclose(host(p), 1 - 0.1 * 8, rtol=1e-6)
    assert seen[0][2]["scale"] == 8.0
    assert seen[0][3] == 7


def test_nothing_is_read_in_an_eager_step(monkeypatch):
    *_, step = training(kobai, "Adam", {"lr": 0.1})
    step(kobai.tensor(np.float32(1)))

    def read(self, *args):
        raise AssertionError("a value is read")

    for name in ("item", "__float__", "__bool__", "tolist", "numpy"):
        monkeypatch.setattr(Tensor, name, read)
    step(kobai.tensor(np.float32(np.inf)))


def test_an_optimizer_with_its_own_step_is_not_called():
    class Own(optim.Optimizer):
        called = 0

        def __init__(self, params):
            super().__init__(params, {"lr": 0.1})

        def step(self, closure=None):
            self.called += 1
            return "stepped"

    p = kobai.tensor([1.0], requires_grad=True)
    own, scaler = Own([p]), GradScaler("cpu")
    for x, gives in ((1.0, "stepped"), (kobai.nan, None)):
        own.zero_grad()
        scaler.scale((p * x).sum()).backward()
        assert scaler.step(own) == gives
        scaler.update()
    assert own.called == 1


def test_counts_go_back_to_the_host_with_a_saved_state():
    parameters, optimizer, _, step = training(kobai, "NAdam", {"lr": 0.1})
    for i in range(3):
        step(kobai.tensor(np.float32(i)))
    assert optimizer.state[parameters[0]]["step"].shape == ()
    optimizer.step()  # without the scaler: counted all the same, where the counts are
    assert optimizer.state[parameters[0]]["step"].item() == 4
    other = optim.NAdam(parameters, lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    assert other.state[parameters[0]]["step"] == 4
    assert isinstance(other.state[parameters[0]]["mu_product"], float)
    twin = copy.deepcopy(optimizer)
    before = {id(state["step"]) for state in twin.state.values()}
    twin.step()
    assert {id(state["step"]) for state in twin.state.values()} == before


# --- the scaler itself ------------------------------------------------------------------------------------------------


def test_what_is_scaled():
    scaler, pair = GradScaler("cpu", init_scale=4.0), namedtuple("pair", "a b")
    x = kobai.ones(2)
    a, (b,) = scaler.scale([x, (x,)])
    assert (a.tolist(), b.tolist()) == ([4.0, 4.0], [4.0, 4.0])
    assert scaler.scale(pair(x, x)).b.tolist() == [4.0, 4.0]
    assert [y.tolist() for y in scaler.scale(iter([x]))] == [[4.0, 4.0]]
    assert scaler.scale(kobai.ones(2, dtype=kobai.float16)).dtype == kobai.float16
    with pytest.raises(ValueError, match=r"expected a Tensor or an iterable of Tensors, got float"):
        scaler.scale([1.0])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (4, 5)])
@pytest.mark.parametrize("bad", [None, np.inf, -np.inf, np.nan])
def test_gradients_of_all_kinds_are_looked_at(shape, bad, engines):
    p = kobai.tensor(np.zeros(shape, np.float32), requires_grad=True)
    values = np.full(shape, 3e38, np.float32)
    if bad is not None and values.size:
        values.reshape(-1)[-1] = bad
    scaler, optimizer = GradScaler("cpu", init_scale=4.0), optim.SGD([p], lr=1.0)
    scaler.scale(kobai.ones(1))
    p.grad = kobai.tensor(values)
    if len(shape) == 2:  # column by column
        p.grad = kobai.tensor(np.ascontiguousarray(values.T)).T
    scaler.unscale_(optimizer)
    np.testing.assert_array_equal(host(p.grad), values / 4)
    scaler.step(optimizer)
    scaler.update()
    skipped = bad is not None and values.size > 0
    assert scaler.get_scale() == (2.0 if skipped else 4.0)
    np.testing.assert_array_equal(host(p), 0 if skipped else -values / 4)


def test_errors_say_what_was_done_out_of_turn():
    p = kobai.tensor([1.0], requires_grad=True)
    optimizer, scaler = optim.SGD([p], lr=0.1), GradScaler("cpu")
    for call in (scaler.unscale_, scaler.step):
        with pytest.raises(AssertionError, match="nothing has been scaled yet"):
            call(optimizer)
    scaler.scale(p.sum())
    with pytest.raises(AssertionError, match="no parameter of the optimizer has a gradient"):
        scaler.step(optimizer)
    with pytest.raises(AssertionError, match="no gradients were looked at"):
        scaler.update()
    scaler = GradScaler("cpu")
    scaler.scale(p.sum()).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_: unscale_\(\) has been called for this SGD already"):
        scaler.unscale_(optimizer)
    with pytest.raises(AssertionError, match="not within a step"):
        copy.deepcopy(scaler)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step: step\(\) has been called"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_: step\(\) has been called"):
        scaler.unscale_(optimizer)
    scaler.update()
    with pytest.raises(RuntimeError, match="closure"):
        scaler.step(optimizer, closure=lambda: 1.0)
    with pytest.raises(RuntimeError, match="closure"):
        scaler.step(optimizer, lambda: 1.0)
    half = kobai.ones(2, dtype=kobai.float16).requires_grad_()
    half.grad = kobai.ones(2, dtype=kobai.float16)
    with pytest.raises(ValueError, match="got float16"):
        scaler.unscale_(optim.SGD([half], lr=0.1))
    with pytest.raises(AssertionError, match="one number"):
        scaler.update(kobai.ones(2))
    with pytest.raises(AssertionError, match="growth_factor > 1"):
        GradScaler("cpu", growth_factor=1.0)
    with pytest.raises(RuntimeError, match="switched off"):
        scaler.load_state_dict({})


def test_copies_and_saved_states_go_on_alike():
    parameters, _, scaler, step = training(kobai, "SGD", {"lr": 0.1})
    for i in range(4):
        step(kobai.tensor(data(i)))
    twin, other = copy.deepcopy(scaler), GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert scaler.state_dict() == twin.state_dict() == other.state_dict()
    assert scaler.state_dict() == {
        "scale": 256.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 3,
        "_growth_tracker": 2,
    }
    optimizer = optim.SGD(parameters, lr=0.1)
    for one in (scaler, twin, other):
        one.scale(parameters[0].sum()).backward()
        one.step(optimizer)
        one.update()
    assert scaler.get_scale() == twin.get_scale() == other.get_scale() == 512.0
    scaler.update(kobai.tensor(3.0))
    assert scaler.get_scale() == 3.0


# --- beside PyTorch ---------------------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "flags", "_"), CASES + RARER, ids=[*IDS, "Rprop", "ASGD"])
def test_steps_are_pytorchs(name, flags, _):
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, name):
        pytest.skip(f"PyTorch has no {name}")
    for others in ({}, {"growth_factor": 3.7, "backoff_factor": 0.3, "growth_interval": 2, "init_scale": 5.3}):
        ours, *_ = run(kobai, name, flags, **others)
        theirs, *_ = run(torch, name, flags, **others)
        for i, ((a, state), (b, expected)) in enumerate(zip(ours, theirs, strict=True)):
            assert state == expected, i
            for p, q in zip(a, b, strict=True):
                np.testing.assert_allclose(p, q, rtol=2e-5, atol=2e-5)


@pytest.mark.oracle
def test_the_scale_stops_where_pytorchs_does():
    torch = pytest.importorskip("torch")
    scales = []
    for library in (kobai, torch):
        p = library.tensor([1.0], requires_grad=True)
        optimizer = library.optim.SGD([p], lr=0.0)
        scaler = library.amp.GradScaler("cpu", init_scale=2.0**124, growth_factor=3.0, growth_interval=1)
        for _ in range(6):
            optimizer.zero_grad()
            scaler.scale((p * 1e-30).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            scales.append((scaler.get_scale(), scaler.state_dict()["_growth_tracker"]))
    assert scales[:6] == scales[6:]


@pytest.mark.oracle
def test_states_and_signatures_are_pytorchs():
    import inspect

    torch = pytest.importorskip("torch")
    ours, theirs = GradScaler("cpu"), torch.amp.GradScaler("cpu")
    assert ours.state_dict() == theirs.state_dict()
    assert [*inspect.signature(GradScaler).parameters] == [*inspect.signature(torch.amp.GradScaler).parameters]
    assert [*inspect.signature(kobai.cuda.amp.GradScaler).parameters] == [
        *inspect.signature(torch.cuda.amp.GradScaler).parameters
    ]
    public = {name for name in vars(torch.amp.GradScaler) if not name.startswith("_")}
    assert public <= {name for name in vars(GradScaler) if not name.startswith("_")}
    for one, other in ((ours, theirs), (theirs, ours)):
        one.load_state_dict({**other.state_dict(), "scale": 3.0})
        assert one.get_scale() == 3.0
