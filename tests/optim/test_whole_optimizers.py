"""Optimisers that look at a parameter as a whole: against PyTorch, captured, under a scaler, saved and loaded."""

import importlib

import numpy as np
import pytest

import kobai
from kobai import optim
from kobai.amp import GradScaler

CASES = [
    ("Adafactor", {}),
    ("Adafactor", {"lr": 0.5, "eps": (1e-4, 1e-2), "d": 1.5, "weight_decay": 0.1, "beta2_decay": -0.5}),
    ("Muon", {}),
    ("Muon", {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.0, "ns_steps": 3}),
    ("SparseAdam", {}),
    ("SparseAdam", {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-4}),
]
IDS = ["-".join([name, *map(str, flags)]) for name, flags in CASES]
cases = pytest.mark.parametrize(("name", "flags"), CASES, ids=IDS)
SHAPES = {"Muon": [(4, 3), (3, 7), (1, 5)], "Adafactor": [(4, 3), (5,), (2, 3, 2), ()], "SparseAdam": [(6, 3), (4, 2)]}


def drawn(name, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in SHAPES[name]]


def parameters(name, dtype=np.float64):
    return [kobai.tensor(a, requires_grad=True) for a in drawn(name, dtype=dtype)]


def gradients(name, step, dtype=np.float64):
    grads = drawn(name, 1 + step, dtype)
    if name == "SparseAdam":  # a batch names some of the rows
        for g in grads:
            g[[(step + 1) % 4, step % 3]] = 0
    return grads


def stepped(name, flags, maximize=False, **options):
    ps = parameters(name)
    optimizer = getattr(optim, name)(ps, **flags, **({"maximize": True} if maximize else {}), **options)
    for step in range(4):
        for p, g in zip(ps, gradients(name, step), strict=True):
            p.grad = kobai.tensor(-g if maximize else g)
        optimizer.step()
    return ps, optimizer


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@cases
def test_as_pytorch(name, flags, dtype):
    torch = importlib.import_module("torch")
    ours, theirs = parameters(name, dtype), [torch.tensor(a, requires_grad=True) for a in drawn(name, dtype=dtype)]
    a, b = getattr(optim, name)(ours, **flags), getattr(torch.optim, name)(theirs, **flags)
    for step in range(5):
        for p, q, g in zip(ours, theirs, gradients(name, step, dtype), strict=True):
            p.grad, q.grad = kobai.tensor(g), torch.tensor(g)
            if name == "SparseAdam":
                rows = np.flatnonzero((g != 0).any(-1))
                made = torch.tensor(rows[None]), torch.tensor(g[rows]), g.shape
                q.grad = torch.sparse_coo_tensor(*made, check_invariants=True)
        a.step()
        b.step()
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=tolerance, atol=tolerance)
        assert a.state[p].keys() == b.state[q].keys()
        for key, value in b.state[q].items():
            found = a.state[p][key]
            found = found.numpy() if isinstance(found, kobai.Tensor) else found
            np.testing.assert_allclose(
                found, value.numpy() if hasattr(value, "numpy") else value, rtol=tolerance, atol=1e-7
            )


@cases
def test_captured_as_eager(name, flags):
    def trained(captured):
        ps = parameters(name, np.float32)
        optimizer = getattr(optim, name)(ps, **flags)

        def step(*grads):
            for p in ps:
                p.grad = None
            sum((p * g).sum() for p, g in zip(ps, grads, strict=True)).backward()
            optimizer.step()

        run = kobai.capture(step) if captured else step
        for i in range(5):
            if i == 3:
                optimizer.param_groups[0]["lr"] = 0.03
            run(*map(kobai.tensor, gradients(name, i, np.float32)))
        return [p.tolist() for p in ps], [
            v if isinstance(v, int) else v.tolist() for v in optimizer.state[ps[0]].values()
        ]

    assert trained(True) == trained(False)


@cases
def test_under_a_scaler_a_step_that_overflows_changes_nothing(name, flags):
    ps, others = parameters(name), parameters(name)
    a, b = getattr(optim, name)(ps, **flags), getattr(optim, name)(others, **flags)
    scaler = GradScaler("cpu", init_scale=4.0)
    for step in range(4):
        grads = gradients(name, step)
        for p, q, g in zip(ps, others, grads, strict=True):
            p.grad = kobai.tensor(np.full_like(g, np.inf) if step == 1 else g) * scaler.get_scale()
            q.grad = kobai.tensor(g)
        scaler.scale(kobai.ones(1))
        scaler.step(a)
        scaler.update()
        if step != 1:
            b.step()
    for p, q in zip(ps, others, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-12)


@cases
def test_maximize_is_minimising_the_negative(name, flags):
    if name == "Muon":
        pytest.skip("as PyTorch's, it has no such option")
    for p, q in zip(stepped(name, flags)[0], stepped(name, flags, maximize=True)[0], strict=True):
        assert p.tolist() == q.tolist()


@cases
def test_a_loaded_state_goes_on(name, flags):
    ps, optimizer = stepped(name, flags)
    qs = [kobai.tensor(p.detach().numpy(), requires_grad=True) for p in ps]
    other = getattr(optim, name)(qs, **flags)
    other.load_state_dict(optimizer.state_dict())
    for params, o in ((ps, optimizer), (qs, other)):
        for p, g in zip(params, gradients(name, 9), strict=True):
            p.grad = kobai.tensor(g)
        o.step()
    assert [p.tolist() for p in ps] == [q.tolist() for q in qs]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@cases
def test_parameters_of_16_bits(name, flags, dtype):
    ps = [kobai.tensor(a, dtype=getattr(kobai, dtype), requires_grad=True) for a in drawn(name)]
    optimizer = getattr(optim, name)(ps, **flags)
    for p, g in zip(ps, gradients(name, 0), strict=True):
        p.grad = kobai.tensor(g, dtype=p.dtype)
    optimizer.step()
    for p, q in zip(ps, parameters(name), strict=True):
        assert str(p.dtype) == f"kobai.{dtype}" or dtype in str(p.dtype)
        np.testing.assert_allclose(p.detach().float().numpy(), q.detach().numpy(), atol=3.0)
        assert kobai.isfinite(p).all()


def test_empty_and_transposed_parameters():
    ps = [kobai.ones(0, 3, requires_grad=True), kobai.tensor(np.arange(6.0).reshape(2, 3).T, requires_grad=True)]
    optimizer = optim.Adafactor(ps)
    for p in ps:
        p.grad = kobai.ones(*p.shape, dtype=p.dtype)
    optimizer.step()
    assert (ps[1] < kobai.tensor(np.arange(6.0).reshape(2, 3).T)).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: optim.Muon([p[0].detach()]), ValueError, "Muon: expected matrices as parameters, got one of shape"),
        (lambda p: optim.Muon([p], adjust_lr_fn="rms"), ValueError, "Muon: expected adjust_lr_fn to be one of"),
        (lambda p: optim.Muon([p], ns_steps=100), ValueError, "fewer than 100 ns_steps"),
        (lambda p: optim.Adafactor([p], d=0.5), ValueError, "Adafactor: expected d >= 1, got 0.5"),
        (lambda p: optim.Adafactor([p], beta2_decay=0.5), ValueError, "expected beta2_decay <= 0"),
        (lambda p: optim.Adafactor([p], eps=(None, -1)), ValueError, "expected eps >= 0"),
        (
            lambda p: optim.Adafactor([p], differentiable=True),
            NotImplementedError,
            "differentiable=True is not supported",
        ),
        (lambda p: optim.SparseAdam([p], lr=0.0), ValueError, "SparseAdam: expected lr > 0"),
    ],
)
def test_nonsense(make, error, message):
    with pytest.raises(error, match=message):
        make(kobai.ones(2, 3, requires_grad=True).detach().requires_grad_())
