"""What each optimiser does: it minimises, its first steps are the published formula's, its flags mean what they say."""

import inspect
import math

import numpy as np
import pytest
from optimizer_table import CASES, IDS, host, make, parameter, set_grad

import kobai
from kobai import optim
from kobai.engine import dispatch


@pytest.mark.parametrize(("name", "flags", "options"), CASES, ids=IDS)
def test_minimises_a_parabola(name, flags, options):
    scale, target = np.array([1.0, 0.2]), np.array([3.0, -1.0])
    p = parameter([-2.0, 2.0])
    optimizer = make(optim, name, [p], **{**flags, **options})
    for _ in range(600):
        set_grad(p, scale * (host(p) - target))
        optimizer.step()
    assert np.abs(host(p) - target).max() < 0.05


@pytest.mark.parametrize(("name", "flags", "options"), CASES, ids=IDS)
def test_descends_rosenbrocks_valley(name, flags, options):
    """f(x, y) = (1 − x)² + 100(y − x²)² from (−1.2, 1), where f = 24.2: down to the curved valley floor, then along it."""
    lr = {"SGD": 1e-4, "RAdam": 1e-3, "Adadelta": 0.3, "Adagrad": 0.5}.get(name, 0.01)  # RAdam begins as plain momentum
    p = parameter([-1.2, 1.0])
    optimizer = make(optim, name, [p], **{**flags, "lr": lr})
    for _ in range(2000):
        x, y = host(p)
        set_grad(p, [-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])
        optimizer.step()
    x, y = host(p)
    assert (1 - x) ** 2 + 100 * (y - x**2) ** 2 < 4.0


def steps(optimizer, p, gradients):
    """The parameter's only element after each step."""
    values = []
    for g in gradients:
        set_grad(p, [g])
        optimizer.step()
        values.append(float(host(p)[0]))
    return values


# From w = 1 with gradients 2 and then −1, worked out from the papers' formulas.
BY_HAND = [
    ("SGD", {"lr": 0.1}, [1 - 0.2, 1 - 0.2 + 0.1]),
    ("SGD", {"lr": 0.1, "weight_decay": 0.5}, [1 - 0.25, 0.75 - 0.1 * (-1 + 0.375)]),
    ("SGD", {"lr": 0.1, "maximize": True}, [1.2, 1.1]),
    ("SGD", {"lr": 0.1, "momentum": 0.5}, [0.8, 0.8 - 0.1 * (0.5 * 2 - 1)]),
    ("SGD", {"lr": 0.1, "momentum": 0.5, "dampening": 0.5}, [0.8, 0.8 - 0.1 * (0.5 * 2 - 0.5)]),
    ("SGD", {"lr": 0.1, "momentum": 0.5, "nesterov": True}, [1 - 0.1 * (2 + 0.5 * 2), 0.7 - 0.1 * (-1 + 0.5 * 0)]),
    ("Adagrad", {"lr": 0.1, "eps": 0.0}, [0.9, 0.9 + 0.1 / math.sqrt(5)]),
    ("Adagrad", {"lr": 0.1, "eps": 0.0, "lr_decay": 1.0}, [0.9, 0.9 + 0.05 / math.sqrt(5)]),
    (
        "RMSprop",
        {"lr": 0.1, "alpha": 0.75, "eps": 0.0},
        [1 - 0.1 * 2 / math.sqrt(1.0), 0.8 + 0.1 / math.sqrt(0.75 + 0.25)],
    ),
    (
        "RMSprop",
        {"lr": 0.1, "alpha": 0.75, "eps": 0.0, "centered": True},
        [1 - 0.2 / math.sqrt(1 - 0.25), 1 - 0.2 / math.sqrt(0.75) + 0.1 / math.sqrt(1 - (0.75 * 0.5 - 0.25) ** 2)],
    ),
    (
        "Adadelta",
        {"rho": 0.75, "eps": 1.0},
        [
            1 - 2 * math.sqrt(1 / 2),
            1 - 2 * math.sqrt(1 / 2) + math.sqrt((0.25 * 2 + 1) / (0.75 * 1 + 0.25 + 1)),
        ],
    ),
    (
        "Adam",
        {"lr": 0.1, "betas": (0.5, 0.75), "eps": 0.0},
        [0.9, 0.9 - 0.1 * ((0.5 * 1 - 0.5) / 0.75) / math.sqrt((0.75 * 1 + 0.25) / (1 - 0.75**2))],
    ),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.0), "eps": 1.0}, [1 - 0.1 * 2 / 3, 1 - 0.1 * 2 / 3]),
    (
        "Adam",
        {"lr": 0.1, "betas": (0.0, 0.0), "eps": 1.0, "amsgrad": True},  # the largest v, 4, stays
        [1 - 0.1 * 2 / 3, 1 - 0.1 * 2 / 3 + 0.1 / 3],
    ),
    ("Adam", {"lr": 0.1, "betas": (0.0, 0.0), "eps": 1.0, "weight_decay": 1.0}, [1 - 0.1 * 3 / 4, None]),
    ("AdamW", {"lr": 0.1, "betas": (0.0, 0.0), "eps": 1.0, "weight_decay": 1.0}, [0.9 - 0.1 * 2 / 3, None]),
    ("Adamax", {"lr": 0.1, "betas": (0.5, 0.25), "eps": 0.0}, [0.9, 0.9 - 0.1 / 0.75 * (0.5 * 1 - 0.5) / 1]),
    (
        "NAdam",  # ψ = 0: μ = β₁/2 throughout
        {"lr": 0.1, "betas": (0.5, 0.0), "eps": 1.0, "momentum_decay": 0.0},
        [1 - 0.1 * (0.25 * 1 / (1 - 0.0625) + 0.75 * 2 / 0.75) / 3, None],
    ),
    ("RAdam", {"lr": 0.1, "betas": (0.5, 0.999)}, [0.8, 0.8 - 0.1 * (0.5 * 1 - 0.5) / 0.75]),  # ρ₁ = 1, ρ₂ = 2: plain
]


@pytest.mark.parametrize(("name", "options", "expected"), BY_HAND)
def test_first_two_steps_by_hand(name, options, expected):
    p = parameter([1.0])
    for got, want in zip(steps(make(optim, name, [p], **options), p, [2.0, -1.0]), expected, strict=True):
        if want is not None:
            assert got == pytest.approx(want, rel=1e-12)


def test_momentum_as_velocity():
    """v ← μv − ηg; w ← w + v is SGD(lr=η, momentum=μ)."""
    p, w, v = parameter([1.0]), 1.0, 0.0
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    for g in [2.0, -1.0, 0.5, 3.0]:
        v = 0.9 * v - 0.1 * g
        w += v
        assert steps(optimizer, p, [g]) == [pytest.approx(w, rel=1e-12)]


def test_momentum_as_moving_average():
    """v ← βv + (1−β)g; w ← w − αv is SGD(lr=α, momentum=β, dampening=β), with v started at the first gradient."""
    p, w, v = parameter([1.0]), 1.0, None
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9, dampening=0.9)
    for g in [2.0, -1.0, 0.5, 3.0]:
        v = g if v is None else 0.9 * v + (1 - 0.9) * g
        w -= 0.1 * v
        assert steps(optimizer, p, [g]) == [pytest.approx(w, rel=1e-12)]


def test_radam_is_rectified_from_the_sixth_step():
    """β₂ = 0.999: ρ₅ < 5 < ρ₆, so that the scale of the gradient matters until step 5 only."""
    small, large = parameter([1.0]), parameter([1.0])
    a, b = optim.RAdam([small], lr=0.1, eps=0.0), optim.RAdam([large], lr=0.1, eps=0.0)
    moved = []
    for _ in range(6):
        before = host(small)[0], host(large)[0]
        steps(a, small, [1.0])
        steps(b, large, [10.0])
        moved.append((before[0] - host(small)[0], before[1] - host(large)[0]))
    assert moved[4][1] == pytest.approx(10 * moved[4][0])
    assert moved[5][1] == pytest.approx(moved[5][0])


@pytest.mark.parametrize(("name", "flags", "options"), CASES, ids=IDS)
def test_maximize_is_descent_on_the_negated_gradient(name, flags, options):
    down, up = parameter([1.0, -2.0, 3.0]), parameter([1.0, -2.0, 3.0])
    a = make(optim, name, [down], **flags, weight_decay=0.1)
    b = make(optim, name, [up], **flags, weight_decay=0.1, maximize=True)
    rng = np.random.default_rng(0)
    for _ in range(4):
        g = rng.normal(size=3)
        set_grad(down, g)
        set_grad(up, -g)
        a.step()
        b.step()
    assert host(down).tobytes() == host(up).tobytes()


@pytest.mark.parametrize(("name", "flags", "options"), CASES, ids=IDS)
def test_keeps_dtype_and_leaves_the_gradient_alone(name, flags, options):
    p = parameter([[1.0, -2.0], [0.5, 4.0]], np.float32)
    set_grad(p, [[1.0, 2.0], [-3.0, 0.1]])
    before = p.grad.numpy().copy()
    optimizer = make(optim, name, [p], **flags, weight_decay=0.1, maximize=True)
    optimizer.step()
    optimizer.step()
    assert p.dtype == np.float32
    assert p.grad.numpy().tobytes() == before.tobytes()
    for key, value in optimizer.state[p].items():
        if isinstance(value, kobai.Tensor):
            assert value.dtype == np.float32, key
            assert value.shape == p.shape, key


@pytest.mark.parametrize(("name", "flags", "options"), CASES, ids=IDS)
def test_every_backend_takes_the_same_steps(backend, name, flags, options, monkeypatch):
    """No host read, no function CuPy lacks; and a state saved on one backend goes on on another."""
    monkeypatch.setattr(dispatch, "numba_installed", False)  # compiled loops round differently: test_optim_kernels.py
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(2, 3)), rng.normal(size=(4, 2, 3))

    def run(first, second):
        saved = None
        for where, half in ((first, gradients[:2]), (second, gradients[2:])):
            p = kobai.tensor(start if saved is None else saved[0], dtype=kobai.float32, device=where).requires_grad_()
            optimizer = make(optim, name, [p], **flags, weight_decay=0.1, maximize=True)
            if saved is not None:
                optimizer.load_state_dict(saved[1])
            for g in half:
                p.grad = kobai.tensor(g, dtype=kobai.float32, device=where)
                optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            saved = p.detach().cpu().numpy(), optimizer.state_dict()
        return saved[0].tobytes()

    here = kobai.zeros(1).device
    assert run("cpu", here) == run(here, "cpu") == run("cpu", "cpu")


@pytest.mark.parametrize(("name", "flags", "options"), CASES, ids=IDS)
def test_steps_in_place_and_counts_the_change(name, flags, options):
    p = parameter([1.0])
    array, version = p.array, p._version[0]
    set_grad(p, [1.0])
    make(optim, name, [p], **flags).step()
    assert p.array is array
    assert p._version[0] > version


@pytest.mark.parametrize("name", sorted({name for name, _, _ in CASES}))
def test_maximize_is_given_by_name(name):
    parameters = inspect.signature(getattr(optim, name)).parameters
    assert "params" in parameters
    assert parameters["maximize"].kind is inspect.Parameter.KEYWORD_ONLY
