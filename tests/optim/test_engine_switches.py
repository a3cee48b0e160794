"""PyTorch's switches of how a step is computed: taken by every optimiser; ``differentiable`` differentiates the step."""

import inspect

import numpy as np
import pytest
from optimizer_table import CASES, IDS, make, parameter, set_grad

import kobai
from kobai import optim
from kobai.gradcheck import gradcheck

NAMES = sorted({name for name, _, _ in CASES} | {"Rprop", "ASGD"})
SWITCHES = [
    {"foreach": True},
    {"foreach": False},
    {"fused": True},
    {"capturable": True},
    {"foreach": None, "fused": None},
]


def stepped(name, **options):
    p = parameter([[1.0, -2.0, 3.0]])
    optimizer = make(optim, name, [p], **options)
    for i in range(3):
        set_grad(p, [[0.5, i - 1.0, 2.0]])
        optimizer.step()
    return p, optimizer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_a_switch_changes_nothing_and_stays_in_the_group(name, switches):
    plain, usual = stepped(name)
    switched, optimizer = stepped(name, **switches)
    assert switched.tolist() == plain.tolist()
    assert switches.items() <= optimizer.param_groups[0].items()
    again = make(optim, name, [parameter([[1.0, -2.0, 3.0]])])
    again.load_state_dict(optimizer.state_dict())
    left, right = (o.param_groups[0] for o in (again, usual))  # the choice of who made it, not of who loads it
    assert [left.get(switch) for switch in switches] == [right.get(switch) for switch in switches]


@pytest.mark.oracle
@pytest.mark.parametrize("name", [*NAMES, "Adafactor", "LBFGS", "Muon", "SparseAdam"])
def test_optimisers_show_themselves_as_pytorchs(name):
    """Their text, and the options that ``inspect.signature`` names, which programs look for."""
    torch = pytest.importorskip("torch")
    makers = getattr(torch.optim, name), getattr(optim, name)
    theirs, ours = makers[0]([torch.ones(2, 2).requires_grad_()], lr=0.1), makers[1]([parameter([[1.0, 2.0]])], lr=0.1)
    if name != "LBFGS":  # has one group
        theirs.add_param_group({"params": torch.ones(2, 2).requires_grad_(), "lr": 0.2})
        ours.add_param_group({"params": parameter([[1.0, 2.0]]), "lr": 0.2})
    assert repr(ours) == repr(theirs)
    names = [set(inspect.signature(maker).parameters) for maker in makers]
    assert names[1] == names[0]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_switch_is_refused(name):
    with pytest.raises(TypeError, match=f"{name}: got an unexpected keyword argument 'momentun'"):
        make(optim, name, [parameter([1.0])], momentun=0.9)
    with pytest.raises(TypeError, match=f"{name}: expected fused to be True, False or None, got 1"):
        make(optim, name, [parameter([1.0])], fused=1)
    with pytest.raises(RuntimeError, match="expected one of fused, foreach and differentiable"):
        make(optim, name, [parameter([1.0])], fused=True, foreach=True)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_adam_takes_a_tensor_rate_with_foreach_only_if_capturable(name):
    make(optim, name, [parameter([1.0])], lr=kobai.tensor(0.1), foreach=True, capturable=True)
    with pytest.raises(ValueError, match="expected capturable=True beside foreach=True"):
        make(optim, name, [parameter([1.0])], lr=kobai.tensor(0.1), foreach=True)


@pytest.mark.parametrize(("name", "flags", "_"), CASES, ids=IDS)
def test_gradients_flow_through_a_differentiable_step(name, flags, _):
    rated = "lr" in inspect.signature(getattr(optim, name)).parameters

    def trained(w, lr):
        p = w.clone()
        rate = {"lr": lr} if rated else {}
        optimizer = make(optim, name, [p], differentiable=True, **{**flags, **rate})
        for i in range(3):
            p.grad = w * w * (0.3 * i + 0.2) + lr
            optimizer.step()
        return p

    w = kobai.tensor(np.array([0.7, -1.2, 1.9]), requires_grad=True)
    lr = kobai.tensor(0.05, dtype=kobai.float64, requires_grad=True)
    assert gradcheck(trained, (w, lr), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("maximize", [False, True])
def test_a_differentiable_step_gives_the_numbers_of_a_plain_one(maximize):
    plain, _ = stepped("AdamW", weight_decay=0.1, maximize=maximize)
    p = kobai.tensor(np.array([[1.0, -2.0, 3.0]]), requires_grad=True).clone()
    optimizer = optim.AdamW([p], weight_decay=0.1, maximize=maximize, differentiable=True)
    for i in range(3):
        p.grad = kobai.tensor(np.array([[0.5, i - 1.0, 2.0]]))
        with kobai.no_grad():
            optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), plain.detach().numpy(), rtol=1e-14)


def test_a_leaf_cannot_be_stepped_differentiably():
    p = parameter([1.0])
    optimizer = optim.SGD([p], lr=0.1, differentiable=True)
    set_grad(p, [1.0])
    with pytest.raises(RuntimeError, match="leaf"):
        optimizer.step()
