"""What all optimisers share: groups, gradients that are not there, saving and resuming, hooks, and bad input."""

import copy
import pickle

import numpy as np
import pytest
from optimizer_table import CASES, IDS, OPTIMIZERS, host, make, parameter, set_grad

import kobai
from kobai import optim


def two_parameters():
    rng = np.random.default_rng(1)
    return [parameter(rng.normal(size=(3, 2))), parameter(rng.normal(size=2))]


def random_steps(optimizer, params, seed, n=3):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        for p in params:
            set_grad(p, rng.normal(size=p.shape))
        optimizer.step()


def test_groups_have_their_own_options():
    a, b = parameter([1.0]), parameter([1.0])
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    for p in (a, b):
        set_grad(p, [1.0])
    optimizer.step()
    assert (host(a)[0], host(b)[0]) == (0.9, 0.5)
    optimizer.param_groups[0]["lr"] = 0.2  # what users do to change the rate
    optimizer.step()
    assert host(a)[0] == pytest.approx(0.7)


def test_parameters_without_gradient_are_skipped_and_keep_no_state():
    a, b = two_parameters()
    before = host(b)
    set_grad(a, np.ones(a.shape))
    optimizer = optim.Adam([a, b], weight_decay=0.1)
    optimizer.step()
    assert host(b).tobytes() == before.tobytes()
    assert list(optimizer.state_dict()["state"]) == [0]


def test_zero_grad():
    p = parameter([1.0])
    optimizer = optim.SGD([p])
    set_grad(p, [2.0])
    grad = p.grad
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is grad
    assert p.grad.numpy()[0] == 0
    optimizer.zero_grad()
    assert p.grad is None


def test_step_returns_the_closures_loss_and_records_inside_it():
    p = parameter([1.0])
    optimizer = optim.SGD([p], lr=0.1)

    def closure():
        assert kobai.is_grad_enabled()
        set_grad(p, [1.0])
        return 42.0

    with kobai.no_grad():
        assert optimizer.step(closure) == 42.0
    assert host(p)[0] == 0.9
    assert optimizer.step() is None


@pytest.mark.parametrize(("name", "flags", "options"), CASES, ids=IDS)
def test_resumes_bit_for_bit(name, flags, options):
    params = two_parameters()
    optimizer = make(optim, name, params, **flags, weight_decay=0.01)
    random_steps(optimizer, params, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    others = [parameter(host(p)) for p in params]
    resumed = make(optim, name, others, lr=123.0)  # options come from the saved groups
    resumed.load_state_dict(saved)
    random_steps(optimizer, params, 3)
    random_steps(resumed, others, 3)
    for p, q in zip(params, others, strict=True):
        assert host(p).tobytes() == host(q).tobytes()
    assert resumed.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_a_saved_state_survives_a_file(tmp_path):
    params = two_parameters()
    optimizer = optim.NAdam([{"params": [params[0]], "lr": 0.1}, {"params": [params[1]]}])
    random_steps(optimizer, params, 2)
    kobai.save(optimizer.state_dict(), tmp_path / "optimizer.safetensors")
    others = [parameter(host(p)) for p in params]
    resumed = optim.NAdam([{"params": [others[0]]}, {"params": [others[1]]}])
    resumed.load_state_dict(kobai.load(tmp_path / "optimizer.safetensors"))
    random_steps(optimizer, params, 3)
    random_steps(resumed, others, 3)
    for p, q in zip(params, others, strict=True):
        assert host(p).tobytes() == host(q).tobytes()


def test_state_dict_is_pytorchs_format():
    params = two_parameters()
    optimizer = optim.Adam([{"params": [params[0]]}, {"params": [params[1]], "lr": 0.5}])
    random_steps(optimizer, params, 0)
    saved = optimizer.state_dict()
    assert list(saved) == ["state", "param_groups"]
    assert [group["params"] for group in saved["param_groups"]] == [[0], [1]]
    assert [group["lr"] for group in saved["param_groups"]] == [1e-3, 0.5]
    assert list(saved["state"]) == [0, 1]
    assert list(saved["state"][0]) == ["step", "exp_avg", "exp_avg_sq"]
    assert saved["state"][0]["step"] == 3


def test_loading_copies_and_converts():
    params = two_parameters()
    optimizer = optim.SGD(params, momentum=0.9)
    random_steps(optimizer, params, 0)
    saved = optimizer.state_dict()
    half = [parameter(host(p), np.float32) for p in params]
    other = optim.SGD(half, momentum=0.9)
    other.load_state_dict(saved)
    buffer = other.state[half[0]]["momentum_buffer"]
    assert buffer.dtype == np.float32
    buffer.array[...] = 7
    assert not (saved["state"][0]["momentum_buffer"].numpy() == 7).any()


def test_loading_what_does_not_fit_changes_nothing():
    params = two_parameters()
    optimizer = optim.SGD(params, lr=0.1, momentum=0.9)
    random_steps(optimizer, params, 0)
    good = optimizer.state_dict()
    before = copy.deepcopy(good)
    with pytest.raises(ValueError, match="expected 1 parameter groups, got 2"):
        optimizer.load_state_dict({**good, "param_groups": good["param_groups"] * 2})
    with pytest.raises(ValueError, match="expected 2 parameters in group 0, got 1"):
        optimizer.load_state_dict({**good, "param_groups": [{**good["param_groups"][0], "params": [0]}]})
    with pytest.raises(ValueError, match=r"SGD: expected a state_dict with state and param_groups, got \['0.weight'\]"):
        optimizer.load_state_dict({"0.weight": params[0]})
    bad = {0: {"momentum_buffer": kobai.tensor([1.0])}, 1: good["state"][1]}
    with pytest.raises(ValueError, match=r"expected state 'momentum_buffer' of shape \(3, 2\), got \(1,\)"):
        optimizer.load_state_dict({**good, "state": bad})
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for i in (0, 1):
        a, b = (d["state"][i]["momentum_buffer"].numpy() for d in (after, before))
        assert a.tobytes() == b.tobytes()


def test_deepcopy_keeps_state_with_the_copied_parameters():
    params = two_parameters()
    optimizer = optim.Adam(params, lr=0.1)
    random_steps(optimizer, params, 0)
    others, copied = copy.deepcopy((params, optimizer))
    assert copied.param_groups[0]["params"][0] is others[0]
    assert copied.state[others[0]]["step"] == 3
    before = host(params[0])
    random_steps(copied, others, 5)
    assert host(params[0]).tobytes() == before.tobytes()
    random_steps(optimizer, params, 5)
    assert host(params[0]).tobytes() == host(others[0]).tobytes()


@pytest.mark.parametrize(("name", "flags", "options"), CASES, ids=IDS)
def test_pickled_with_its_parameters_it_goes_on_bit_for_bit(name, flags, options):
    def steps(p, optimizer, n):
        for k in range(n):
            set_grad(p, [0.5, -k, 1.0])
            optimizer.step()

    p = parameter([1.0, 2.0, 3.0])
    optimizer = make(optim, name, [p], **{"lr": 0.1, **flags})
    optimizer.register_step_pre_hook(lambda *args: None)  # stays behind, as in PyTorch
    steps(p, optimizer, 3)
    q, twin = pickle.loads(pickle.dumps((p, optimizer)))
    assert twin.param_groups[0]["params"][0] is q
    assert list(twin.state) in ([], [q])
    steps(p, optimizer, 3)
    steps(q, twin, 3)
    assert kobai.equal(p.detach(), q.detach())


def test_repr():
    assert repr(optim.SGD([parameter([1.0])], lr=0.1)) == (
        "SGD (\nParameter Group 0\n    dampening: 0\n    differentiable: False\n    foreach: None\n    fused: None\n"
        "    lr: 0.1\n    maximize: False\n    momentum: 0\n    nesterov: False\n    weight_decay: 0\n)"
    )


def test_generators_named_parameters_and_added_groups():
    a, b, c = (parameter([1.0]) for _ in range(3))
    assert optim.SGD(p for p in (a, b)).param_groups[0]["params"] == [a, b]
    named = optim.SGD(iter([("a", a), ("b", b)]))
    assert named.param_groups[0]["param_names"] == ["a", "b"]
    assert named.state_dict()["param_groups"][0]["param_names"] == ["a", "b"]
    with pytest.raises(ValueError, match="with names or all without"):
        named.add_param_group({"params": [c]})
    with pytest.raises(ValueError, match="expected all parameters with a name or all without, got 1"):
        optim.SGD([("a", a), b])
    plain = optim.SGD([a], lr=0.1)
    plain.add_param_group({"params": c, "lr": 0.2})
    assert [group["lr"] for group in plain.param_groups] == [0.1, 0.2]


def test_hooks_run_around_the_step_also_of_a_users_optimizer():
    class Mine(optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        def step(self, closure=None):
            calls.append("step")

    calls = []
    for optimizer in (optim.SGD([parameter([1.0])]), Mine([parameter([1.0])])):
        calls.clear()
        handle = optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
        optimizer.register_step_post_hook(lambda *_: calls.append("after"))
        optimizer.step()
        assert [c for c in calls if c != "step"] == ["before", "after"]
        handle.remove()
        optimizer.step()
        assert calls.count("before") == 1
        optimizer.register_step_pre_hook(lambda *_: "nonsense")
        with pytest.raises(RuntimeError, match="pre-hook returns None or"):
            optimizer.step()


def test_a_pre_hook_may_replace_the_arguments():
    optimizer = optim.SGD([parameter([1.0])])
    optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: ((lambda: 7.0,), {}))
    assert optimizer.step() == 7.0


def test_a_users_optimizer_keeps_its_own_state():
    class Counting(optim.Optimizer):
        def __init__(self, params, lr=optim.optimizer.required):
            super().__init__(params, {"lr": lr, "betas": (1, 2, 3)})  # the names are free, and so are the values

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    state["n"] = state.get("n", 0) + 1
            self.state["all"] = {"n": 1}

    p = parameter([1.0])
    with pytest.raises(ValueError, match="gives no 'lr'"):
        Counting([p])
    optimizer = Counting([{"params": [p], "lr": 1.0}])
    optimizer.step()
    saved = optimizer.state_dict()
    assert saved["state"] == {0: {"n": 1}, "all": {"n": 1}}
    other = Counting([{"params": [p], "lr": 1.0}])
    other.load_state_dict(saved)
    assert other.state[p] == {"n": 1}
    assert other.state["all"] == {"n": 1}


class Preconditioned(optim.Optimizer):
    """Keeps what no optimiser of Kobai does: a matrix, a norm, steps in a tensor; and sets defaults when it is unpickled."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def __setstate__(self, state):
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("nesterov", False)

    @kobai.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(
                        matrix=kobai.zeros(len(p), len(p), dtype=p.dtype), norm=kobai.zeros(()), step=kobai.tensor(0.0)
                    )
                state["step"] += 1
                state["norm"] = p.grad.norm()
                state["matrix"].add_(kobai.outer(p.grad, p.grad))
                p -= group["lr"] * state["matrix"] @ p.grad / state["step"].item()


@pytest.mark.parametrize(
    "carry",
    [
        pytest.param(lambda optimizer: optimizer.state_dict(), id="state_dict"),
        pytest.param(lambda optimizer: pickle.loads(pickle.dumps(optimizer)).state_dict(), id="pickle"),
        pytest.param(lambda optimizer: copy.deepcopy(optimizer).state_dict(), id="deepcopy"),
    ],
)
def test_state_of_a_users_optimizer_has_any_shape(carry):
    a, b = parameter([1.0, 2.0]), parameter([1.0, 2.0])
    first, second = Preconditioned([a]), Preconditioned([b])
    random_steps(first, [a], 3)
    b.data = a.detach().clone()
    second.load_state_dict(carry(first))
    for p, optimizer in ((a, first), (b, second)):
        random_steps(optimizer, [p], 4)
    assert host(a).tobytes() == host(b).tobytes()
    assert second.state[b]["step"].item() == 6
    assert second.state[b]["matrix"].shape == (2, 2)
    assert copy.deepcopy(first).param_groups[0]["nesterov"] is False


def test_the_base_class_says_what_to_define():
    p = parameter([1.0])
    set_grad(p, [1.0])
    with pytest.raises(NotImplementedError, match="define step"):
        optim.Optimizer([p], {"lr": 0.1, "maximize": False}).step()


P = parameter([1.0])

BAD = [
    (lambda: optim.SGD([]), ValueError, "SGD: got an empty parameter list"),
    (lambda: optim.SGD(iter([])), ValueError, "empty parameter list"),
    (lambda: optim.SGD(P), TypeError, "expected an iterable of tensors or dicts, got Tensor"),
    (lambda: optim.SGD(3), TypeError, "expected an iterable of tensors or dicts, got int"),
    (lambda: optim.SGD({P}), TypeError, "fixed order, got a set"),
    (lambda: optim.SGD([{"params": {P}}]), TypeError, "fixed order, got a set"),
    (lambda: optim.SGD([1.0]), TypeError, "expected tensors as parameters, got float"),
    (lambda: optim.SGD([{"lr": 0.1}]), ValueError, "with the key 'params'"),
    (lambda: optim.SGD([{"params": [P]}, [P]]), TypeError, "parameter group as a dict, got list"),
    (lambda: optim.SGD([{"params": [P]}, {"params": [P]}]), ValueError, "more than one parameter group"),
    (lambda: optim.SGD([P], lr=-1.0), ValueError, r"SGD: expected lr >= 0, got -1.0"),
    (lambda: optim.SGD([{"params": [P], "lr": -1.0}]), ValueError, "expected lr >= 0"),
    (lambda: optim.SGD([P], lr=kobai.tensor(-0.5)), ValueError, "SGD: expected lr >= 0, got -0.5"),
    (lambda: optim.SGD([P], momentum=kobai.tensor(0.1)), TypeError, "expected momentum as a number, got Tensor"),
    (lambda: optim.SGD([P], lr=kobai.ones(2)), ValueError, r"expected lr as a number, got Tensor \(2,\)"),
    (
        lambda: optim.Adam([P], betas=(0.9, kobai.tensor(0.9))),
        ValueError,
        r"expected betas\[1\] as a number, got Tensor",
    ),
    (lambda: optim.SGD([P], lr="0.1"), TypeError, "expected lr as a number, got str"),
    (lambda: optim.SGD([P], lr=float("nan")), ValueError, "expected lr >= 0, got nan"),
    (lambda: optim.SGD([P], nesterov=True), ValueError, "momentum > 0 and dampening = 0"),
    (lambda: optim.Adam([P], betas=(0.9, 1.0)), ValueError, r"expected betas\[1\] in \[0, 1\), got 1.0"),
    (lambda: optim.Adam([P], betas=0.9), ValueError, "expected betas as a pair"),
    (lambda: optim.Adam([P], eps=-1e-8), ValueError, "expected eps >= 0"),
    (lambda: optim.Adam([P], weight_decay=-1), ValueError, "expected weight_decay >= 0"),
    (lambda: optim.RMSprop([P], alpha=1.5), ValueError, r"expected alpha in \[0, 1\], got 1.5"),
    (lambda: optim.Adadelta([P], rho=-0.1), ValueError, r"expected rho in \[0, 1\]"),
    (lambda: optim.Adagrad([P], lr_decay=-0.1), ValueError, "expected lr_decay >= 0"),
    (lambda: optim.NAdam([P], momentum_decay=-0.1), ValueError, "expected momentum_decay >= 0"),
]


@pytest.mark.parametrize(("make_it", "error", "message"), BAD)
def test_bad_input(make_it, error, message):
    with pytest.raises(error, match=message):
        make_it()


@pytest.mark.parametrize(("name", "option"), [(name, o) for name in OPTIMIZERS for o in getattr(optim, name)._ranges])
def test_options_out_of_range(name, option):
    below = (0.9, -0.5) if option == "betas" else -0.5
    with pytest.raises(ValueError, match=rf"^{name}: expected {option}.*, got -0.5$"):
        getattr(optim, name)([P], **{option: below})
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected {option}"):
        getattr(optim, name)([P], **{option: None})


def test_every_optimizer_checks_its_rate():
    assert all("lr" in getattr(optim, name)._ranges for name in OPTIMIZERS)


def test_non_leaf():
    with pytest.raises(ValueError, match="expected leaf tensors"):
        optim.SGD([parameter([1.0]) * 2])


def test_twice_in_one_group_warns():
    with pytest.warns(UserWarning, match="occurs twice"):
        optim.SGD([P, P])


def test_a_gradient_that_does_not_fit():
    p = parameter([1.0])
    set_grad(p, [1.0])
    p.data = kobai.tensor(np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match=r"SGD: expected a gradient of shape \(2,\) and dtype float64, got \(1,\)"):
        optim.SGD([p]).step()


def test_gradient_or_state_on_another_device():
    p = parameter([1.0])
    optimizer = optim.Adam([p])
    set_grad(p, [1.0])
    optimizer.step()
    p.grad = p.grad.to("strict")
    with pytest.raises(kobai.errors.BackendError, match="Adam: a parameter is on cpu but its grad on strict"):
        optimizer.step()
    p.data, p.grad = p.data.to("strict"), p.grad.to("strict")
    with pytest.raises(kobai.errors.BackendError, match="a parameter is on strict but its exp_avg on cpu"):
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()


@pytest.mark.parametrize("wrap", [kobai.capture, lambda step: step], ids=["captured", "eager"])
@pytest.mark.parametrize("bad", [None, "0.5", [0.1]], ids=str)
@pytest.mark.parametrize("option", ["lr", "eps"])
def test_an_option_that_is_no_number_is_an_error(wrap, option, bad):
    p = parameter(np.ones(3))
    optimizer = kobai.optim.Adam([p], lr=0.1)

    def step(x):
        (p * x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    call = wrap(step)
    for _ in range(3):
        call(kobai.ones(3))
    optimizer.param_groups[0][option] = bad
    before = p.tolist()
    with pytest.raises((TypeError, ValueError)):
        call(kobai.ones(3))
    assert p.tolist() == before
    optimizer.param_groups[0][option] = 0.1
    call(kobai.ones(3))
    assert p.tolist() != before


def test_hooks_around_the_state_dict():
    optimizer = optim.SGD([parameter([1.0])], lr=0.1)
    log = []
    optimizer.register_state_dict_pre_hook(lambda o: log.append("pre"))
    handle = optimizer.register_state_dict_post_hook(lambda o, state: {**state, "extra": 1})
    optimizer.register_state_dict_post_hook(lambda o, state: log.append(sorted(state)), prepend=True)
    optimizer.register_load_state_dict_pre_hook(lambda o, state: {k: v for k, v in state.items() if k != "extra"})
    optimizer.register_load_state_dict_post_hook(lambda o: log.append("loaded"))
    state = optimizer.state_dict()
    assert state["extra"] == 1
    assert log == ["pre", ["param_groups", "state"]]
    optimizer.load_state_dict(state)
    assert log[-1] == "loaded"
    handle.remove()
    assert "extra" not in optimizer.state_dict()


def test_a_wrapper_that_borrows_everything_from_the_optimizer_inside():
    class Lookahead(optim.Optimizer):
        def __init__(self, inner):
            self.inner = inner
            self.param_groups = inner.param_groups
            self.state = inner.state

        def step(self, closure=None):
            return self.inner.step(closure)

    p = parameter([1.0])
    wrapper = Lookahead(optim.SGD([p], lr=0.5))
    set_grad(p, [1.0])
    wrapper.step()
    assert p.tolist() == [0.5]
    assert wrapper.state_dict()["param_groups"][0]["lr"] == 0.5
