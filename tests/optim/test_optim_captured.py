"""Every optimiser in a captured step: as without capture bit for bit, whatever is changed between the steps."""

import copy

import numpy as np
import pytest
from optimizer_table import CASES, IDS, host, make

import kobai
from kobai import optim
from kobai.engine import dispatch

RARER = [("Rprop", {}, {}), ("ASGD", {"t0": 3, "lambd": 0.01}, {})]
SHAPES = [(3, 4), (5,), (), (40, 50)]


@pytest.fixture(params=[False, True], ids=["numpy", "numba"], autouse=True)
def engines(request, monkeypatch):
    if request.param:
        pytest.importorskip("numba")
    monkeypatch.setattr(dispatch, "numba_installed", request.param)


def training(name, captured, options, clip=None):
    """Parameters, their optimiser and a step on a loss whose gradients change."""
    rng = np.random.default_rng(0)
    parameters = [kobai.tensor(rng.normal(size=shape).astype(np.float32), requires_grad=True) for shape in SHAPES]
    optimizer = make(optim, name, parameters, **options)

    def step(x):
        optimizer.zero_grad()
        loss = sum(((p - x) ** 2).sum() for p in parameters)
        loss.backward()
        if clip is not None:
            kobai.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        return loss

    return parameters, optimizer, kobai.capture(step) if captured else step


def both(name, options, change, steps=12, clip=None):
    """The bytes of all parameters after every step, captured and not; ``change(i, optimizer)`` comes before step i."""
    outcomes = []
    for captured in (False, True):
        parameters, optimizer, step = training(name, captured, options, clip)
        seen = []
        for i in range(steps):
            change(i, optimizer)
            step(kobai.tensor(np.float32(np.sin(i))))
            seen.append([host(p).tobytes() for p in parameters])
        outcomes.append((seen, optimizer, step))
    (eager, first, _), (replayed, second, step) = outcomes
    for i, (a, b) in enumerate(zip(eager, replayed, strict=True)):
        assert a == b, f"step {i}"
    return first, second, step


def nothing(i, optimizer):
    pass


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "flags", "_"), CASES + RARER, ids=[*IDS, "Rprop", "ASGD"])
def test_as_without_capture(name, flags, _, weight_decay):
    options = {**flags, **({} if name == "Rprop" else {"weight_decay": weight_decay})}
    eager, captured, step = both(name, options, nothing)
    assert step.programs == 1
    for a, b in zip(eager.param_groups[0]["params"], captured.param_groups[0]["params"], strict=True):
        before, after = eager.state.get(a, {}), captured.state.get(b, {})
        assert before.keys() == after.keys()
        for key, value in before.items():
            if not isinstance(value, kobai.Tensor):
                assert after[key] == value, key  # step counts, products, learning rates of its own


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "NAdam"])
def test_numbers_are_looked_up_at_every_step(name):
    def change(i, optimizer):
        group = optimizer.param_groups[0]
        group["lr"] = 0.1 / (i + 1)
        group["weight_decay"] = 0.01 * (i + 1)

    *_, step = both(name, {"lr": 0.1, "weight_decay": 0.01}, change)
    assert step.programs == 1


def test_the_warm_up_of_radam_ends_within_a_program():
    *_, step = both("RAdam", {"betas": (0.9, 0.99)}, nothing, steps=15)
    assert step.programs == 1


def test_sgd_with_dampening_whose_first_step_is_met_again():
    parameters, optimizer, step = training("SGD", True, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5})
    others, other, eager = training("SGD", False, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5})
    for i in range(6):
        if i == 3:  # forgotten buffers start anew
            optimizer.state.clear()
            other.state.clear()
        for run in (step, eager):
            run(kobai.tensor(np.float32(i)))
        for p, q in zip(parameters, others, strict=True):
            assert host(p).tobytes() == host(q).tobytes(), i


@pytest.mark.parametrize(
    "turn",
    [
        {"weight_decay": 0.1},
        {"maximize": True},
        {"momentum": 0.0},
        {"nesterov": True},
    ],
)
def test_another_formula_is_recorded_anew(turn):
    def change(i, optimizer):
        if i == 6:
            optimizer.param_groups[0].update(turn)

    both("SGD", {"lr": 0.05, "momentum": 0.9}, change)


def test_loading_a_state_is_seen():
    saved = {}

    def change(i, optimizer):
        key = id(optimizer)
        if i == 4:
            saved[key] = copy.deepcopy(optimizer.state_dict())
        if i == 8:
            optimizer.load_state_dict(saved[key])

    both("Adam", {"lr": 0.1}, change)


def test_a_new_group_is_seen():
    def change(i, optimizer):
        if i == 5:
            moved = optimizer.param_groups[0]["params"].pop()
            state = optimizer.state.pop(moved)
            optimizer.add_param_group({"params": [moved], "lr": 0.5})
            optimizer.state[moved] = state

    both("Adam", {"lr": 0.1}, change)


@pytest.mark.parametrize("clip", [0.01, 1e9])
def test_with_clipping(clip):
    both("AdamW", {"lr": 0.1}, nothing, clip=clip)


def test_parameters_that_joined_later_keep_their_own_count():
    """Two batches in one group: the biases have no gradient in the first steps."""
    results = []
    for captured in (False, True):
        rng = np.random.default_rng(0)
        w, b = (kobai.tensor(rng.normal(size=s).astype(np.float32), requires_grad=True) for s in ((3, 4), (4,)))
        optimizer = optim.Adam([w, b], lr=0.1)

        def step(x, both, w=w, b=b, optimizer=optimizer):
            optimizer.zero_grad()
            y = x @ w + b if both else x @ w
            (y * y).sum().backward()
            optimizer.step()

        run = kobai.capture(step) if captured else step
        for i in range(10):
            run(kobai.ones(2, 3) * (i + 1), i > 3)
        results.append((host(w).tobytes(), host(b).tobytes(), optimizer.state[w]["step"], optimizer.state[b]["step"]))
    assert results[0] == results[1]
    assert results[0][2:] == (10, 6)


def test_a_copy_of_an_optimizer_steps_on_its_own():
    parameters, optimizer, step = training("Adam", False, {"lr": 0.1})
    step(kobai.tensor(1.0))
    twin = copy.deepcopy(optimizer)
    before = [host(p) for p in parameters]
    twin.step()
    for p, was in zip(parameters, before, strict=True):
        np.testing.assert_array_equal(host(p), was)
    assert not np.array_equal(host(twin.param_groups[0]["params"][0]), before[0])


@pytest.mark.parametrize("name", ["Adam", "NAdam", "ASGD"])
def test_counts_that_part_between_two_calls(name):
    """A step elsewhere leaves some parameters out, or a program sets a state: those of a batch no longer agree."""

    def change(i, optimizer):
        parameters = optimizer.param_groups[0]["params"]
        if i == 4:
            parameters[0].grad = None
            optimizer.step()
        if i == 8:
            optimizer.state[parameters[1]]["step"] = 1

    *_, step = both(name, {"lr": 0.1}, change)
    assert step.programs > 1
