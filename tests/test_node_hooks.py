"""Hooks of nodes, ``y.grad_fn.register_hook`` and ``register_prehook``, against PyTorch's."""

import importlib

import numpy as np
import pytest

import kobai
from graphs import leaf


def told(t):
    """What hooks in framework ``t`` are told, and the gradients that come of what they return."""
    seen = []

    def see(*all_gradients):
        seen.append([[None if g is None else g.tolist() for g in gradients] for gradients in all_gradients])

    x = t.tensor([1.0, 2.0], requires_grad=True, dtype=t.float64)
    y = (x * x).exp()
    y.grad_fn.register_hook(see)
    y.grad_fn.register_prehook(lambda outputs: (outputs[0] * 10,))
    removed = y.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] * 2,))
    y.sum().backward(retain_graph=True)
    seen.append(x.grad.tolist())
    removed.remove()
    (g,) = t.autograd.grad(y.sum(), x, create_graph=True)
    g.sum().backward()
    seen += [g.tolist(), x.grad.tolist()]

    class Both(t.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a.clone(), b * 2

        @staticmethod
        def backward(ctx, da, db):
            return da, db * 2

    first, second = Both.apply(x, x * 3)
    first.grad_fn.register_hook(see)
    second.grad_fn.register_prehook(see)
    second.grad_fn.register_prehook(lambda outputs: (outputs[0] + 1, outputs[1] - 1))
    (first * second).sum().backward()
    seen.append(x.grad.tolist())
    return seen


@pytest.mark.oracle
def test_hooks_of_nodes_as_in_pytorch():
    ours, theirs = told(kobai), told(importlib.import_module("torch"))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_hooks_see_gradients_and_replace_them():
    x, y = leaf(3.0), leaf(5.0)
    z = x * y
    seen = []
    handle = z.grad_fn.register_hook(lambda inputs, outputs: seen.append((inputs, outputs)))
    z.backward(retain_graph=True)
    assert [[g.tolist() for g in gradients] for gradients in seen[0]] == [[[5], [3]], [[1]]]
    seen[0][0][0].mul_(7)  # the hook's own
    assert x.grad.tolist() == [5]
    handle.remove()
    z.grad_fn.register_hook(lambda inputs, outputs: (None, inputs[1] * 2))
    z.backward()
    assert len(seen) == 1
    assert (x.grad.tolist(), y.grad.tolist()) == ([5], [9])


@pytest.mark.parametrize("returned", [lambda g: (g[0], g[0]), lambda g: (g[0].sum(),)])
def test_what_a_hook_must_not_return(returned):
    y = leaf(1.0, 2.0).exp()
    y.grad_fn.register_hook(lambda inputs, outputs: returned(inputs))
    with pytest.raises(RuntimeError, match="register_hook: expected"):
        y.sum().backward()


def test_a_hook_of_a_graph_that_is_gone():
    y = leaf(1.0, 2.0).exp()
    y.sum().backward()
    with pytest.raises(RuntimeError, match="was freed"):
        y.grad_fn.register_hook(print)


def test_what_a_hook_holds_may_change():
    x = leaf(1.0, 2.0)
    y = x.clone()
    z = y + 1
    z.grad_fn.register_hook(lambda inputs, outputs: None if y.ndim else ())
    y.add_(1)
    z.sum().backward()
    assert x.grad.tolist() == [1, 1]
