"""Pruned parameters, against PyTorch."""

import importlib

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.nn.utils import prune


def steps(t):
    """Ways to prune a ``Conv2d(3, 4, 2)`` and a ``Linear(4, 5)`` in framework ``t``, by name."""
    p = t.nn.utils.prune

    def scores(layer):
        return t.arange(layer.weight.numel()).reshape(layer.weight.shape).to(layer.weight.dtype)

    class Negative(p.BasePruningMethod):
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, x, default_mask):
            mask = default_mask.clone()
            mask.view(-1)[x.reshape(-1) < 0] = 0
            return mask

    def twice(c, f):
        p.ln_structured(c, "weight", amount=1, n=1, dim=0)
        p.l1_unstructured(c, "weight", amount=0.5)
        p.ln_structured(c, "weight", amount=0.34, n=2, dim=1)
        p.l1_unstructured(c, "bias", amount=2)

    def over_all(c, f):
        p.l1_unstructured(f, "weight", 0.2)
        p.global_unstructured([(c, "weight"), (f, "weight"), (f, "bias")], p.L1Unstructured, amount=0.4)
        p.global_unstructured(((c, "weight"), (f, "bias")), p.L1Unstructured, {(c, "weight"): scores(c)}, amount=10)

    return {
        "identity": lambda c, f: p.identity(c, "weight"),
        "share": lambda c, f: p.l1_unstructured(c, "weight", 0.3),
        "number": lambda c, f: p.l1_unstructured(f, "bias", 2),
        "none": lambda c, f: p.l1_unstructured(f, "bias", 0.0),
        "all": lambda c, f: p.l1_unstructured(f, "bias", 1.0),
        "scores": lambda c, f: p.l1_unstructured(c, "weight", 0.5, importance_scores=scores(c)),
        "channels": lambda c, f: p.ln_structured(c, "weight", 0.5, 2, 0),
        "channels, largest": lambda c, f: p.ln_structured(c, "weight", 1, float("inf"), -1),
        "mask": lambda c, f: p.custom_from_mask(f, "weight", scores(f) > 7),
        "twice": twice,
        "over all": over_all,
        "own": lambda c, f: (p.l1_unstructured(c, "weight", 3), Negative.apply(c, "weight")),
        "removed": lambda c, f: (p.l1_unstructured(c, "weight", 0.5), p.remove(c, "weight")),
    }


def pruned(t, name, values):
    c, f = t.nn.Conv2d(3, 4, 2), t.nn.Linear(4, 5)
    net = t.nn.Sequential(c, t.nn.Flatten(), f).double()
    net.load_state_dict({key: t.tensor(value) for key, value in values.items()})
    steps(t)[name](c, f)
    t.optim.SGD(net.parameters(), lr=0.1).zero_grad()
    x = t.tensor(np.random.default_rng(1).normal(size=(6, 3, 2, 2)))
    (net(x) ** 2).sum().backward()
    grads = [(key, value.grad.numpy()) for key, value in net.named_parameters()]
    return (
        net,
        [(key, value.numpy()) for key, value in net.state_dict().items()],
        grads,
        t.nn.utils.prune.is_pruned(net),
    )


@pytest.mark.oracle
@pytest.mark.parametrize("name", steps(kobai))
def test_pruned_as_by_pytorch(name):
    torch = importlib.import_module("torch")
    torch.nn.utils.prune = importlib.import_module("torch.nn.utils.prune")
    rng = np.random.default_rng(0)
    shapes = {"0.weight": (4, 3, 2, 2), "0.bias": (4,), "2.weight": (5, 4), "2.bias": (5,)}
    values = {key: rng.normal(size=shape) for key, shape in shapes.items()}
    (_, state, grads, flag), (_, states, theirs, flags) = (pruned(t, name, values) for t in (kobai, torch))
    assert flag == flags
    for ours, other in ((state, states), (grads, theirs)):
        assert [key for key, _ in ours] == [key for key, _ in other]
        for (key, value), (_, wanted) in zip(ours, other, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-10, atol=1e-12, err_msg=key)


@pytest.mark.parametrize(("amount", "zeros"), [(0.25, 15), (7, 7), (0, 0), (1.0, 60)])
def test_as_many_as_asked_are_drawn(amount, zeros):
    layer = prune.random_unstructured(nn.Linear(6, 10), "weight", amount)
    assert (layer.weight == 0).sum() == zeros
    layer = prune.random_structured(nn.Linear(10, 6), "weight", amount=amount if amount in (0, 1.0) else 3, dim=1)
    assert (layer.weight == 0).all(0).sum() == {0: 0, 60: 10}.get(zeros, 3)


def test_training_keeps_the_zeros():
    layer = prune.l1_unstructured(nn.Linear(4, 5), "weight", 0.5)
    before = layer.weight_mask.clone()
    optimizer = kobai.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (layer(kobai.ones(2, 4)) ** 2).sum().backward()
        optimizer.step()
    assert bool(((layer.weight != 0) == (before == 1)).all())
    fresh = prune.identity(nn.Linear(4, 5), "weight")
    fresh.load_state_dict(layer.state_dict())
    assert fresh(kobai.ones(2, 4)).equal(layer(kobai.ones(2, 4)))


def test_prune_of_a_tensor_changes_no_module():
    x = kobai.tensor([[1.0, -3.0], [2.0, 0.5]])
    assert prune.L1Unstructured(2).prune(x).tolist() == [[0, -3], [2, 0]]
    assert prune.LnStructured(1, 1, 0).prune(x, importance_scores=x.flip(0)).tolist() == [[0, 0], [2, 0.5]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: prune.l1_unstructured(m, "weight", 1.5), ValueError, "L1Unstructured: expected amount .* got 1.5"),
        (lambda m: prune.l1_unstructured(m, "weight", -1), ValueError, "got -1"),
        (lambda m: prune.l1_unstructured(m, "weight", "half"), TypeError, "expected amount to be a number, got 'half'"),
        (lambda m: prune.l1_unstructured(m, "weight", 21), ValueError, "expected amount to be at most 20, got 21"),
        (lambda m: prune.ln_structured(m, "bias", 1, 2, 0), ValueError, "two dimensions"),
        (lambda m: prune.ln_structured(m, "weight", 1, 2, 2), ValueError, "dim=2"),
        (lambda m: prune.remove(m, "weight"), ValueError, "Linear has no pruned parameter 'weight'"),
        (lambda m: prune.l1_unstructured(m, "gain", 1), AttributeError, "gain"),
        (lambda m: prune.l1_unstructured(m, "weight", 1, kobai.ones(2)), ValueError, r"importance_scores \(5, 4\)"),
        (
            lambda m: prune.global_unstructured([(m, "weight")], prune.LnStructured, amount=1, n=1),
            TypeError,
            "unstructured",
        ),
        (lambda m: prune.global_unstructured([m], prune.L1Unstructured, amount=1), TypeError, "pairs"),
    ],
)
def test_refusals_change_nothing(call, error, message):
    layer = nn.Linear(4, 5)
    with pytest.raises(error, match=message):
        call(layer)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert not prune.is_pruned(layer)
