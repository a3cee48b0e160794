"""Hooks of tensors, and gradients that are retained."""

from __future__ import annotations

import pytest

import kobai
from graphs import leaf


def test_hook_on_a_leaf_replaces_the_gradient_before_it_is_added():
    x = leaf(1.0)
    handle = x.register_hook(lambda g: g * 10)
    (x * 2 + x * 3).sum().backward()
    assert x.grad.tolist() == [50]
    handle.remove()
    handle.remove()
    (x * 2).sum().backward()
    assert x.grad.tolist() == [52]


def test_hooks_on_an_intermediate_run_in_order():
    x = leaf(1.0)
    y = x * 2
    seen = []
    y.register_hook(lambda g: seen.append(g.item()))
    y.register_hook(lambda g: -g)
    with y.register_hook(lambda g: seen.append(g.item())):
        (y * 3).sum().backward()
    assert seen == [3, -3]
    assert x.grad.tolist() == [-6]


def test_a_hook_that_writes_into_its_gradient_spoils_no_other_branch():
    x, y = leaf(1.0), leaf(1.0)
    a, b = x * 1, y * 1
    a.register_hook(lambda g: g.mul_(100) and None)
    (a + b).sum().backward()
    assert y.grad.tolist() == [1]
    assert x.grad.tolist() == [100]


def test_hook_errors():
    x = leaf(1.0, 2.0)
    x.register_hook(lambda g: g.sum())
    with pytest.raises(RuntimeError, match=r"tensor hook: expected None or a Tensor of shape \(2,\), got \(\)"):
        (x * 2).sum().backward()
    with pytest.raises(RuntimeError, match="register_hook: this tensor does not require a gradient"):
        kobai.ones(1).register_hook(print)
    with pytest.raises(RuntimeError, match="expected a leaf"):
        (x * 2).register_post_accumulate_grad_hook(print)


def test_post_accumulate_hook_sees_the_gradient():
    x = leaf(1.0)

    def descend(parameter):
        with kobai.no_grad():
            parameter -= 0.5 * parameter.grad
        parameter.grad = None

    handle = x.register_post_accumulate_grad_hook(descend)
    (x * 2).sum().backward()
    assert (x.tolist(), x.grad) == ([0], None)
    handle.remove()
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2]


def test_retain_grad():
    x = leaf(1.0)
    y = x * 2
    assert not y.retains_grad
    y.retain_grad()
    assert y.retains_grad
    z = (y * 3).sum()
    z.backward(retain_graph=True)
    assert y.grad.tolist() == [3]
    z.backward()
    assert y.grad.tolist() == [6], "it adds up, as in leaves"
    x.retain_grad()
    with pytest.raises(RuntimeError, match="retain_grad: this tensor does not require"):
        kobai.ones(1).retain_grad()


def test_retain_grad_of_the_root_and_after_an_in_place_change():
    x = leaf(2.0)
    y = x * 2
    y.retain_grad()
    y.mul_(5)
    y.retain_grad()
    y.sum().backward()
    assert (y.grad.tolist(), x.grad.tolist()) == ([1], [10])


def test_hooks_of_one_tensor_see_the_same_gradient():
    """Programs hang notes for the next hook on the tensor that they are given."""
    seen = []
    x = leaf(1.0)
    y = x * 2

    def first(g):
        g.note = "from the first"

    y.register_hook(first)
    y.register_hook(lambda g: seen.append(g.note))
    y.register_hook(lambda g: g * 3)
    y.register_hook(lambda g: seen.append(hasattr(g, "note")))
    y.sum().backward()
    assert (seen, x.grad.tolist()) == (["from the first", False], [6])
