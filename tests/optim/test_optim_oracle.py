"""Optimisers and schedules step by step beside PyTorch's."""

import copy
import warnings

import numpy as np
import pytest
from optimizer_table import CASES, host, make, parameter, set_grad

import kobai

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")

CASES = [case for case in CASES if hasattr(torch.optim, case[0])]
IDS = [f"{name}-{flags}" for name, flags, _ in CASES]
SHAPES = [(3, 4), (5,), (), (300, 300)]  # the last is larger than a block of the kernels


@pytest.fixture(autouse=True)
def _default_dtype():
    """PyTorch keeps NAdam's mu_product in its default dtype; in float32 that alone would be an error of 1e-7."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pair(name, dtype, **options):
    """The same optimiser on the same parameters, here and there."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape).astype(dtype) for shape in SHAPES]
    ours = [parameter(value, dtype) for value in values]
    theirs = [torch.tensor(value, requires_grad=True) for value in values]
    return (
        (ours, make(kobai.optim, name, ours, **options)),
        (theirs, make(torch.optim, name, theirs, **options)),
    )


def step_both(ours, theirs, a, b, seed, dtype, n):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        for p, q in zip(ours, theirs, strict=True):
            # Away from 0, also after weight decay: where the decayed gradient nearly cancels, rounding alone decides g/√v.
            g = (rng.choice([-1, 1], p.shape) * (0.6 + rng.random(p.shape))).astype(dtype)
            set_grad(p, g)
            q.grad = torch.tensor(g)
        a.step()
        b.step()


def assert_same(ours, theirs, tolerance):
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(host(p), q.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize(("name", "flags", "options"), CASES, ids=IDS)
def test_twenty_steps(name, flags, options, dtype, tolerance, weight_decay, maximize):
    (ours, a), (theirs, b) = pair(name, dtype, **flags, weight_decay=weight_decay, maximize=maximize)
    step_both(ours, theirs, a, b, 1, dtype, 20)
    assert_same(ours, theirs, tolerance)
    for p, q in zip(ours, theirs, strict=True):
        for key, value in b.state[q].items():
            mine = a.state[p][key]
            mine = mine.numpy() if isinstance(mine, kobai.Tensor) else mine
            np.testing.assert_allclose(mine, np.asarray(value), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "flags", "options"), CASES, ids=IDS)
def test_state_dict_has_pytorchs_keys_and_loads_pytorchs_values(name, flags, options):
    """But for ``step`` and ``mu_product``, which are Python numbers here."""
    (ours, a), (theirs, b) = pair(name, np.float64, **flags)
    step_both(ours, theirs, a, b, 1, np.float64, 5)
    here, there = a.state_dict(), b.state_dict()
    assert here.keys() == there.keys()
    assert here["param_groups"][0].keys() == there["param_groups"][0].keys()
    for key in here["param_groups"][0]:
        assert here["param_groups"][0][key] == there["param_groups"][0][key], key
    assert here["state"].keys() == there["state"].keys()
    for index in here["state"]:
        assert here["state"][index].keys() == there["state"][index].keys()

    def as_ours(value):
        return kobai.tensor(np.asarray(value)) if isinstance(value, torch.Tensor) else value

    moved = {
        "state": {i: {k: as_ours(v) for k, v in state.items()} for i, state in there["state"].items()},
        "param_groups": there["param_groups"],
    }
    fresh = [parameter(q.detach().numpy()) for q in theirs]
    resumed = make(kobai.optim, name, fresh)
    resumed.load_state_dict(moved)
    step_both(fresh, theirs, resumed, b, 2, np.float64, 5)
    assert_same(fresh, theirs, 1e-12)


# name → a function of (the module lr_scheduler, an optimiser with two groups)
SCHEDULES = {
    "StepLR": lambda s, o: s.StepLR(o, 7, gamma=0.7),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [3, 11, 11, 40], gamma=0.3),
    "ConstantLR": lambda s, o: s.ConstantLR(o, factor=0.3, total_iters=9),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, gamma=0.9),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, total_iters=31, power=1.7),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, T_max=13, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, T_0=5, T_mult=2, eta_min=0.01),
    "CosineAnnealingWarmRestarts-1": lambda s, o: s.CosineAnnealingWarmRestarts(o, T_0=7),
    "LinearLR": lambda s, o: s.LinearLR(o, start_factor=0.2, end_factor=0.9, total_iters=21),
    "LambdaLR": lambda s, o: s.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (1 + e)]),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda e: 0.9 + 0.01 * (e % 3)),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, max_lr=[0.5, 0.2], total_steps=60),
    "OneCycleLR-linear-three": lambda s, o: s.OneCycleLR(
        o, 0.5, epochs=6, steps_per_epoch=10, pct_start=0.2, anneal_strategy="linear", three_phase=True
    ),
    "OneCycleLR-no-momentum": lambda s, o: s.OneCycleLR(o, 0.5, total_steps=60, cycle_momentum=False, div_factor=5.0),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.01, [0.5, 0.4], step_size_up=7, step_size_down=5),
    "CyclicLR-triangular2": lambda s, o: s.CyclicLR(o, 0.01, 0.5, step_size_up=7, mode="triangular2"),
    "CyclicLR-exp": lambda s, o: s.CyclicLR(o, 0.01, 0.5, step_size_up=7, mode="exp_range", gamma=0.97),
    "CyclicLR-own": lambda s, o: s.CyclicLR(o, 0.01, 0.5, step_size_up=7, scale_fn=lambda c: 1 / (1 + c)),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o,
        [s.LinearLR(o, 0.1, total_iters=10), s.CosineAnnealingLR(o, T_max=20), s.ExponentialLR(o, 0.9)],
        milestones=[10, 30],
    ),
    "SequentialLR-restarts": lambda s, o: s.SequentialLR(
        o,
        [
            s.ConstantLR(o, 0.1, total_iters=4),
            s.CosineAnnealingWarmRestarts(o, T_0=6),
            s.StepLR(o, 3),
            s.LambdaLR(o, abs),
        ],
        milestones=[4, 30, 50],
    ),
    "SequentialLR-multiplicative": lambda s, o: s.SequentialLR(
        o,
        [
            s.MultiStepLR(o, [2, 5]),
            s.MultiplicativeLR(o, lambda e: 0.9),
            s.PolynomialLR(o, 9),
            s.MultiStepLR(o, [0, 2]),
        ],
        milestones=[7, 20, 40],
    ),
    "SequentialLR-nested": lambda s, o: s.SequentialLR(
        o,
        [
            s.SequentialLR(o, [s.ConstantLR(o, 0.5, 99), s.ExponentialLR(o, 0.8)], milestones=[5]),
            s.CosineAnnealingLR(o, T_max=15),
        ],
        milestones=[20],
    ),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler(
        [s.ConstantLR(o, 0.1, total_iters=5), s.ExponentialLR(o, 0.95), s.CosineAnnealingLR(o, T_max=10)]
    ),
    "ChainedScheduler-linear": lambda s, o: s.ChainedScheduler(
        [
            s.LinearLR(o, 0.1, total_iters=8),
            s.StepLR(o, 6),
            s.PolynomialLR(o, 40),
            s.MultiplicativeLR(o, lambda e: 0.99),
        ]
    ),
    "ReduceLROnPlateau": lambda s, o: s.ReduceLROnPlateau(o, factor=0.5, patience=2, cooldown=3, min_lr=[0.01, 0.02]),
    "ReduceLROnPlateau-max": lambda s, o: s.ReduceLROnPlateau(
        o, mode="max", factor=0.7, patience=1, threshold=0.01, threshold_mode="abs"
    ),
}


def scheduled(optim, p, q, build, name):
    optimizer = getattr(optim, name)(
        [{"params": [p]}, {"params": [q], "lr": 0.3}], lr=0.5, **({"momentum": 0.9} if name == "SGD" else {})
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optimizer, build(optim.lr_scheduler, optimizer)


def advance(optimizer, scheduler, metric):
    optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if type(scheduler).__name__ == "ReduceLROnPlateau":
            scheduler.step(metric)
        else:
            scheduler.step()
    return [
        (group["lr"], group.get("momentum", 0.0), *group.get("betas", (0.0, 0.0))) for group in optimizer.param_groups
    ]


@pytest.mark.parametrize("optimizer_name", ["SGD", "Adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_sixty_steps_and_a_resume(name, optimizer_name):
    build = SCHEDULES[name]

    def ours():
        return scheduled(kobai.optim, parameter([1.0]), parameter([1.0]), build, optimizer_name)

    a, mine = ours()
    b, yours = scheduled(
        torch.optim, torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True), build, optimizer_name
    )
    metrics = np.random.default_rng(0).random(60) + np.linspace(1, 0, 60).round(1)
    assert mine.get_last_lr() == pytest.approx(yours.get_last_lr(), rel=1e-12)
    for i in range(59):
        if i == 23:  # go on from what was saved, in fresh objects
            saved = copy.deepcopy((a.state_dict(), mine.state_dict()))
            a, mine = ours()
            a.load_state_dict(saved[0])
            mine.load_state_dict(saved[1])
        here, there = advance(a, mine, metrics[i]), advance(b, yours, metrics[i])
        np.testing.assert_allclose(here, there, rtol=1e-12, atol=1e-15, err_msg=f"step {i}")
        assert mine.get_last_lr() == pytest.approx(yours.get_last_lr(), rel=1e-12, abs=1e-15)
        assert mine.last_epoch == yours.last_epoch if hasattr(yours, "last_epoch") else True


@pytest.mark.parametrize("mult", [1, 2, 3])
def test_warm_restarts_at_fractions_of_an_epoch(mult):
    def build(s, o):
        return s.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=mult, eta_min=0.1)

    a, mine = scheduled(kobai.optim, parameter([1.0]), parameter([1.0]), build, "SGD")
    b, yours = scheduled(
        torch.optim, torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True), build, "SGD"
    )
    for epoch in np.arange(0.3, 25, 0.37):
        mine.step(float(epoch))
        yours.step(float(epoch))
        assert mine.get_last_lr() == pytest.approx(yours.get_last_lr(), rel=1e-12)
    assert [g["lr"] for g in a.param_groups] == pytest.approx([g["lr"] for g in b.param_groups])
