"""``kobai.func``, ``kobai.testing`` and ``kobai.utils.checkpoint``."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.func import functional_call
from kobai.testing import assert_close
from kobai.utils.checkpoint import checkpoint, checkpoint_sequential

# --- functional_call --------------------------------------------------------------------------------------------------


def test_gradients_flow_to_the_given_tensors(backend):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    x = kobai.randn(5, 3)
    own = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in own.items()}
    other = {name: (p.detach() * 2).requires_grad_() for name, p in own.items()}
    functional_call(model, other, (x,)).sum().backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in other.values())
    assert all(kobai.equal(model.get_parameter(n), p) and model.get_parameter(n) is own[n] for n, p in before.items())
    fast = {name: p - 0.1 * g for (name, p), g in zip(own.items(), (other[n].grad for n in own), strict=True)}
    functional_call(model, (fast, {"1.running_mean": kobai.zeros(4)}), x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_shared_parameter_is_replaced_under_all_its_names():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    doubled = {"0.weight": 2 * kobai.eye(2)}
    assert functional_call(model, doubled, kobai.ones(1, 2)).tolist() == [[4.0, 4.0]]
    alone = functional_call(model, doubled, kobai.ones(1, 2), tie_weights=False)
    assert kobai.allclose(alone, 2 * model[1](kobai.ones(1, 2)))


def test_names_are_checked_and_the_module_is_restored():
    model = nn.Linear(2, 1)
    with pytest.raises(KeyError, match=r"unexpected names \['wieght'\]"):
        functional_call(model, {"wieght": kobai.ones(1, 2)}, kobai.ones(1, 2))
    with pytest.raises(KeyError, match=r"missing names \['bias'\]"):
        functional_call(model, {"weight": kobai.ones(1, 2)}, kobai.ones(1, 2), strict=True)
    weight = model.weight
    with pytest.raises(RuntimeError):
        functional_call(model, {"weight": kobai.ones(1, 3)}, kobai.ones(1, 2))
    assert model.weight is weight
    assert functional_call(model, {}, kwargs={"input": kobai.ones(1, 2)}).shape == (1, 1)


# --- assert_close -----------------------------------------------------------------------------------------------------


def test_equal_things_are_close(backend):
    x = kobai.tensor([1.0, 2.0])
    assert_close(x, x + 1e-6)
    assert_close({"a": [x, 1], "b": (2.0,)}, {"a": [x, 1], "b": (2.0 + 1e-9,)})
    assert_close(x / 0 - x / 0, x / 0 - x / 0, equal_nan=True)
    assert_close(x, x.double(), check_dtype=False)
    assert_close(x, x + 0.1, rtol=0, atol=0.2)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0, 2.0], [1.0, 2.5], r"1 of 2 elements, the first at \(1,\); the greatest difference is 0.5"),
        ([1.0], [1.0, 1.0], r"shapes differ: \(1,\) and \(2,\)"),
        ([1], [1.0], "dtypes differ"),
        ([1], [2], "1 of 1"),
    ],
)
def test_what_differs_is_told(a, b, message):
    with pytest.raises(AssertionError, match=message):
        assert_close(kobai.tensor(a), kobai.tensor(b))


def test_differences_in_containers_and_numbers():
    with pytest.raises(AssertionError, match=r"differ at \['a'\]\[1\]: 1 of 1 elements; the greatest"):
        assert_close({"a": [1.0, 2.0]}, {"a": [1.0, 3.0]})
    with pytest.raises(AssertionError, match="keys differ"):
        assert_close({"a": 1}, {"b": 1})
    with pytest.raises(AssertionError, match="lengths differ"):
        assert_close([1], [1, 2])
    with pytest.raises(AssertionError, match="mine"):
        assert_close(1, 2, msg="mine")
    with pytest.raises(AssertionError, match="Says: The values"):
        assert_close(1, 2, msg=lambda text: f"Says: {text}")
    with pytest.raises(TypeError, match="two Tensors or two numbers"):
        assert_close(kobai.ones(1), 1.0)
    with pytest.raises(ValueError, match="together"):
        assert_close(1, 1, rtol=1)


# --- checkpoint -------------------------------------------------------------------------------------------------------


def net():
    kobai.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def gradients(run):
    model, x = net(), kobai.ones(3, 4, requires_grad=True)
    kobai.manual_seed(1)
    run(model, x).square().sum().backward()
    return [x.grad, *(p.grad for p in model.parameters())], kobai.rand(1).item()


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: checkpoint(m, x, use_reentrant=False),
        lambda m, x: checkpoint_sequential(m, 2, x),
        lambda m, x: checkpoint_sequential(m, 4, x, use_reentrant=True),
        lambda m, x: checkpoint(lambda y: m(y), checkpoint(lambda y, k: y * k, x, 1.0)),
    ],
)
def test_the_gradients_are_those_without_it_masks_included(run, backend):
    (expected, next_draw), (found, draw) = gradients(lambda m, x: m(x)), gradients(run)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.cpu().numpy(), b.cpu().numpy(), rtol=1e-6)
    assert draw == next_draw


def test_only_parameters_or_nothing_require_a_gradient():
    model, x = nn.Linear(2, 1), kobai.ones(3, 2)
    checkpoint(model, x).sum().backward()
    assert model.weight.grad.tolist() == [[3.0, 3.0]]
    model.requires_grad_(False)
    assert not checkpoint(model, x, preserve_rng_state=False).requires_grad
    with kobai.no_grad():
        assert not checkpoint(model, x).requires_grad


def test_checkpoint_refuses():
    with pytest.raises(TypeError, match="or a tuple or list with one, got str"):
        checkpoint(lambda x: "a", kobai.ones(1))
    with pytest.raises(ValueError, match="1 to 4 segments, got 5"):
        checkpoint_sequential(net(), 5, kobai.ones(1, 4))


# --- others -----------------------------------------------------------------------------------------------------------


def test_variable_and_stacked_data_sets():
    x = kobai.autograd.Variable(kobai.ones(2), requires_grad=True)
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2, 2]
    stacked = kobai.utils.data.StackDataset(kobai.arange(3), [5, 6, 7])
    assert (stacked[1], len(stacked)) == ((1, 6), 3)
    (a, b), *_ = kobai.utils.data.DataLoader(stacked, batch_size=2)
    assert (a.tolist(), b.tolist()) == ([0, 1], [5, 6])
    with pytest.raises(ValueError, match=r"one length, got \[1, 2\]"):
        kobai.utils.data.StackDataset([1], [1, 2])
    with pytest.raises(ValueError, match="by position or all by name"):
        kobai.utils.data.StackDataset()


def test_transforms_that_are_missing_can_be_imported_and_say_so_when_called():
    from kobai.func import functionalize, linearize  # as programs do that may never need them

    for lacking in (functionalize, linearize):
        with pytest.raises(NotImplementedError, match=r"kobai has no 'func\.\w+', unlike torch: (use|write)"):
            lacking(lambda x: x)
    with pytest.raises(AttributeError):
        kobai.func.nonsense  # noqa: B018
