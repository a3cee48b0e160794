"""Rprop, ASGD and L-BFGS, whose options differ from those of the optimisers in ``optimizer_table.py``; model averaging."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import kobai
from kobai import optim

CASES = [
    ("Rprop", {}),
    ("Rprop", {"etas": (0.4, 1.3), "step_sizes": (1e-3, 0.5), "lr": 0.1}),
    ("Rprop", {"maximize": True}),
    ("ASGD", {}),
    ("ASGD", {"lambd": 0.01, "alpha": 0.5, "t0": 3, "lr": 0.1, "weight_decay": 0.1}),
    ("ASGD", {"maximize": True}),
]


def run(module, make, name, options, dtype=np.float64, steps=20):
    rng = np.random.default_rng(0)
    p = make(rng.standard_normal((4, 3)).astype(dtype), requires_grad=True)
    optimizer = getattr(module, name)([p], **options)
    for _ in range(steps):
        p.grad = make(rng.standard_normal((4, 3)).astype(dtype))
        optimizer.step()
    return p.detach().cpu().numpy(), optimizer


@pytest.mark.oracle
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_twenty_steps_as_pytorch(name, options, dtype, tolerance):
    torch = importlib.import_module("torch")
    expected, _ = run(torch.optim, torch.tensor, name, options, dtype)
    result, _ = run(optim, kobai.tensor, name, options, dtype)
    if name == "ASGD":
        tolerance = 1e-6  # PyTorch keeps its eta in float32
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_resumes_bit_for_bit(name, options, backend):
    whole, _ = run(optim, kobai.tensor, name, options)
    half, optimizer = run(optim, kobai.tensor, name, options, steps=10)
    p = kobai.tensor(half, requires_grad=True)
    resumed = getattr(optim, name)([p], **options)
    resumed.load_state_dict(optimizer.state_dict())
    rng = np.random.default_rng(0)
    draws = [rng.standard_normal((4, 3)) for _ in range(21)]
    for g in draws[11:]:
        p.grad = kobai.tensor(g)
        resumed.step()
    assert (p.detach().cpu().numpy() == whole).all()


def test_asgd_reads_pytorchs_state():
    p = kobai.ones(2, requires_grad=True)
    optimizer = optim.ASGD([p])
    state = {"step": kobai.tensor(3.0), "eta": kobai.tensor(0.5), "mu": kobai.tensor(1.0), "ax": kobai.zeros(2)}
    optimizer.load_state_dict({"state": {0: state}, "param_groups": optimizer.state_dict()["param_groups"]})
    assert (optimizer.state[p]["eta"], optimizer.state[p]["step"]) == (0.5, 3)


def test_rprop_wants_its_etas_on_both_sides_of_one():
    with pytest.raises(ValueError, match=r"0 < etas\[0\] < 1 < etas\[1\]"):
        optim.Rprop([kobai.ones(1, requires_grad=True)], etas=(1.2, 0.5))


def rosenbrock(w):
    x, y = w
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


def minimise(optimizer, w, f, steps):
    calls = 0

    def closure():
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = f(w)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(steps)]
    return losses, calls


@pytest.mark.parametrize("history_size", [100, 3])
def test_lbfgs_with_line_search_descends_rosenbrocks_valley(history_size, backend):
    w = kobai.tensor([-1.2, 1.0], dtype=kobai.float64, requires_grad=True)
    optimizer = optim.LBFGS([w], line_search_fn="strong_wolfe", history_size=history_size)
    losses, _ = minimise(optimizer, w, rosenbrock, 5)
    assert rosenbrock(w).item() < 1e-8
    assert losses == sorted(losses, reverse=True)


@pytest.mark.oracle
def test_lbfgs_with_line_search_goes_pytorchs_way():
    """The same number of evaluations too: bounds and margins of the search are PyTorch's."""
    torch = importlib.import_module("torch")
    found = []
    for module, make in ((torch.optim, torch.tensor), (optim, kobai.tensor)):
        w = make(np.array([-1.2, 1.0]), requires_grad=True)
        optimizer = module.LBFGS([w], max_iter=7, line_search_fn="strong_wolfe")
        found.append([minimise(optimizer, w, rosenbrock, 3), w.tolist()])
    (their_losses, their_calls), their_end = found[0]
    (losses, calls), end = found[1]
    assert calls == their_calls
    np.testing.assert_allclose([*losses, *end], [*their_losses, *their_end], rtol=1e-8)


@pytest.mark.oracle
def test_lbfgs_steps_as_pytorch():
    torch = importlib.import_module("torch")
    ends = []
    for module, make in ((torch.optim, torch.tensor), (optim, kobai.tensor)):
        w = make(np.array([0.9, 0.5, 2.0]), requires_grad=True)
        target = make(np.array([1.0, 2.0, 3.0]))
        optimizer = module.LBFGS([w], lr=0.5, max_iter=4)
        minimise(optimizer, w, lambda w, t=target: (((w - t) ** 2) * t).sum() + ((w - t) ** 4).sum(), 3)
        ends.append(w.detach().numpy())
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-10)


def test_lbfgs_resumes_and_counts_its_evaluations():
    def f(w):
        return ((w - 3) ** 4).sum()

    w = kobai.tensor([0.0, 1.0], dtype=kobai.float64, requires_grad=True)
    optimizer = optim.LBFGS([w], max_iter=3)
    _, calls = minimise(optimizer, w, f, 2)
    assert optimizer.state[w]["func_evals"] == calls == 6
    copy = w.detach().clone().requires_grad_()
    resumed = optim.LBFGS([copy], max_iter=3)
    resumed.load_state_dict(optimizer.state_dict())
    minimise(optimizer, w, f, 2)
    minimise(resumed, copy, f, 2)
    assert kobai.equal(w, copy)


def quartic(w):
    return ((w - 3) ** 4).sum()


LBFGS_STATE = [
    "H_diag",
    "al",
    "d",
    "func_evals",
    "n_iter",
    "old_dirs",
    "old_stps",
    "prev_flat_grad",
    "prev_loss",
    "ro",
    "t",
]


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
def test_lbfgs_keeps_its_state_under_pytorchs_names(line_search_fn):
    w = kobai.tensor([0.0, 1.0], dtype=kobai.float64, requires_grad=True)
    optimizer = optim.LBFGS([w], max_iter=4, history_size=2, line_search_fn=line_search_fn)
    minimise(optimizer, w, quartic, 2)
    state = optimizer.state_dict()["state"][0]
    assert sorted(state) == LBFGS_STATE
    assert state["n_iter"] == 8
    assert [len(state[name]) for name in ("old_dirs", "old_stps", "ro", "al")] == [2, 2, 2, 2]
    for s, y, rho in zip(state["old_stps"], state["old_dirs"], state["ro"], strict=True):
        assert s.shape == y.shape == state["d"].shape == state["prev_flat_grad"].shape == (2,)
        assert rho == pytest.approx(1 / (s @ y).item(), rel=1e-12)
    s, y = state["old_stps"][-1], state["old_dirs"][-1]
    assert state["H_diag"] == pytest.approx((s @ y / (y @ y)).item(), rel=1e-12)


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
@pytest.mark.parametrize("after", [1, 2, 5])
def test_lbfgs_resumes_from_a_state_with_tensors_for_numbers_as_pytorch_has_it(line_search_fn, after):
    w = kobai.tensor([0.0, 1.0], dtype=kobai.float64, requires_grad=True)
    optimizer = optim.LBFGS([w], max_iter=1, line_search_fn=line_search_fn)
    minimise(optimizer, w, quartic, after)
    saved = optimizer.state_dict()
    state = dict(saved["state"][0])
    for name in ("t", "H_diag"):
        state[name] = kobai.tensor(state[name], dtype=kobai.float64)
    state["ro"] = [kobai.tensor(rho, dtype=kobai.float64) for rho in state["ro"]]
    copy = w.detach().clone().requires_grad_()
    resumed = optim.LBFGS([copy], max_iter=1, line_search_fn=line_search_fn)
    resumed.load_state_dict({**saved, "state": {0: state}})
    assert all(type(rho) is float for rho in resumed.state[copy]["ro"])
    minimise(optimizer, w, quartic, 4)
    minimise(resumed, copy, quartic, 4)
    assert kobai.equal(w, copy)


@pytest.mark.oracle
@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
def test_lbfgs_resumes_from_pytorchs_state(line_search_fn):
    torch = importlib.import_module("torch")
    w = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=3, line_search_fn=line_search_fn)
    minimise(optimizer, w, quartic, 2)

    def ours(value):
        if isinstance(value, torch.Tensor):
            return kobai.tensor(value.numpy().copy())
        if isinstance(value, dict):
            return {key: ours(part) for key, part in value.items()}
        return [ours(part) for part in value] if isinstance(value, list) else value

    copy = kobai.tensor(w.detach().numpy().copy(), requires_grad=True)
    resumed = optim.LBFGS([copy], max_iter=3, line_search_fn=line_search_fn)
    resumed.load_state_dict(ours(optimizer.state_dict()))
    minimise(optimizer, w, quartic, 3)
    minimise(resumed, copy, quartic, 3)
    np.testing.assert_allclose(copy.detach().numpy(), w.detach().numpy(), rtol=1e-9)


def test_lbfgs_refuses_states_that_are_not_its_own():
    w = kobai.ones(2, requires_grad=True)
    optimizer = optim.LBFGS([w], max_iter=2)
    minimise(optimizer, w, quartic, 2)
    saved = optimizer.state_dict()
    for change, message in (
        ({"moments": []}, "got 'moments'"),
        ({"d": kobai.ones(3)}, r"'d' of shape \(2,\), got \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict({**saved, "state": {0: {**saved["state"][0], **change}}})


@pytest.mark.parametrize("line_search_fn", [None, "strong_wolfe"])
def test_lbfgs_begins_anew_after_a_closure_that_failed(line_search_fn):
    w = kobai.tensor([0.0, 1.0], dtype=kobai.float64, requires_grad=True)
    optimizer = optim.LBFGS([w], max_iter=4, line_search_fn=line_search_fn)
    left = 7

    def f(w):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return quartic(w)

    with pytest.raises(KeyboardInterrupt):
        minimise(optimizer, w, f, 4)
    copy = w.detach().clone().requires_grad_()
    fresh = optim.LBFGS([copy], max_iter=4, line_search_fn=line_search_fn)
    minimise(optimizer, w, f, 2)
    minimise(fresh, copy, quartic, 2)
    assert kobai.equal(w, copy)


def test_lbfgs_stops_at_a_minimum_and_survives_a_parameter_without_gradient():
    w, unused = kobai.ones(2, requires_grad=True), kobai.ones(1, requires_grad=True)
    optimizer = optim.LBFGS([w, unused])
    _, calls = minimise(optimizer, w, lambda w: ((w - 1) ** 2).sum(), 1)
    assert calls == 1
    assert unused.item() == 1


def test_lbfgs_refuses():
    w = kobai.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match="'wolfe'"):
        optim.LBFGS([w], line_search_fn="wolfe")
    with pytest.raises(ValueError, match="one parameter group"):
        optim.LBFGS([{"params": [w]}, {"params": [kobai.ones(1, requires_grad=True)]}])
    with pytest.raises(TypeError, match="expected a closure"):
        optim.LBFGS([w]).step()


# --- averages of weights ----------------------------------------------------------------------------------------------


def averaged(swa_utils, module, **options):
    """An averaged model after three updates, in either framework."""
    model = module.nn.Sequential(module.nn.Linear(3, 4), module.nn.BatchNorm1d(4), module.nn.Linear(4, 1))
    average = swa_utils.AveragedModel(model, **options)
    rng = np.random.default_rng(0)
    x = module.tensor(rng.standard_normal((8, 3)).astype(np.float32))
    for _ in range(3):
        with module.no_grad():
            for p in model.parameters():
                p.copy_(module.tensor(rng.standard_normal(tuple(p.shape)).astype(np.float32)))
        model(x)
        average.update_parameters(model)
    swa_utils.update_bn([(x[:4],), (x[4:],)], average)
    average.eval()
    return average, average(x).detach().numpy()


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["mean", "ema", "multi", "multi, mean", "buffers"])
def test_averaged_models_as_pytorch(kind):
    torch = importlib.import_module("torch")
    results = []
    for module, swa_utils in ((torch, importlib.import_module("torch.optim.swa_utils")), (kobai, optim.swa_utils)):
        options = {
            "mean": {},
            "ema": {"avg_fn": swa_utils.get_ema_avg_fn(0.8)},
            "multi": {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.8)},
            "multi, mean": {"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()},
            "buffers": {"use_buffers": True},
        }[kind]
        results.append(averaged(swa_utils, module, **options))
    (expected_model, expected), (model, result) = results
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    assert list(model.state_dict()) == list(expected_model.state_dict())


def test_averaged_model_counts_and_leaves_batch_norms_as_they_were():
    average, _ = averaged(optim.swa_utils, kobai)
    assert average.n_averaged.item() == 3
    assert average.module[1].momentum == 0.1
    assert not average.training
    plain = optim.swa_utils.AveragedModel(kobai.nn.Linear(1, 1), device="cpu")
    optim.swa_utils.update_bn([kobai.ones(1, 1)], plain)
    with pytest.raises(ValueError, match="got both"):
        optim.swa_utils.AveragedModel(kobai.nn.Linear(1, 1), avg_fn=max, multi_avg_fn=max)
    with pytest.raises(ValueError, match="decay in"):
        optim.swa_utils.get_ema_avg_fn(2)


@pytest.mark.oracle
@pytest.mark.parametrize("options", [{}, {"anneal_epochs": 3, "anneal_strategy": "linear"}, {"anneal_epochs": 0}])
def test_swalr_as_pytorch(options):
    torch = importlib.import_module("torch")
    rates = []
    for module, swa_utils in ((torch, importlib.import_module("torch.optim.swa_utils")), (kobai, optim.swa_utils)):
        groups = [
            {"params": [module.zeros(1, requires_grad=True)]},
            {"params": [module.ones(1, requires_grad=True)], "lr": 2.0},
        ]
        optimizer = module.optim.SGD(groups, lr=1.0)
        scheduler = swa_utils.SWALR(optimizer, swa_lr=[0.1, 0.2], **options)
        seen = []
        for _ in range(15):
            optimizer.step()
            scheduler.step()
            seen.append(scheduler.get_last_lr())
        rates.append(seen)
    np.testing.assert_allclose(rates[1], rates[0], rtol=1e-9)


def test_swalr_refuses():
    optimizer = optim.SGD([kobai.zeros(1, requires_grad=True)], lr=1.0)
    with pytest.raises(ValueError, match="'cosine'"):
        optim.swa_utils.SWALR(optimizer, 0.1, anneal_strategy="cosine")
    with pytest.raises(ValueError, match="anneal_epochs"):
        optim.swa_utils.SWALR(optimizer, 0.1, anneal_epochs=-1)
