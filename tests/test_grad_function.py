"""``autograd.grad`` and ``autograd.backward``."""

from __future__ import annotations

import pytest

import kobai
from graphs import leaf
from kobai import autograd
from kobai.core.primitive import operation


def test_grad_returns_and_accumulates_nothing():
    x, y = leaf(2.0), leaf(3.0)
    gx, gy = autograd.grad((x * y).sum(), [x, y])
    assert (gx.tolist(), gy.tolist(), x.grad, y.grad) == ([3], [2], None, None)


def test_grad_of_an_intermediate_leaves_the_graph_before_it():
    x = leaf(2.0)
    h = x * x
    y = (h * h).sum()
    (g,) = autograd.grad(y, h)
    assert g.tolist() == [8]
    h.backward(g)
    assert x.grad.tolist() == [32]


def test_grad_visits_nothing_beside_the_way():
    x, other = leaf(2.0), leaf(1.0)
    calls = []
    side = other * 2
    side.register_hook(lambda g: calls.append(1))
    y = (x * 3 + side).sum()
    assert autograd.grad(y, x)[0].tolist() == [3]
    assert not calls


computed = []


def entry(name, value):
    computed.append(name)
    return value


def _product(a, b):
    return a * b, lambda dy: (lambda: entry("a", dy * b), lambda: entry("b", dy * a))


@pytest.mark.parametrize("create_graph", [False, True])
def test_grad_computes_only_what_its_inputs_need(create_graph):
    product = operation(_product)
    x, w, h = leaf(2.0), leaf(3.0), leaf(5.0)
    y = product(product(x, w).exp(), product(h, w).sin())
    computed.clear()
    (g,) = autograd.grad(y.sum(), x, create_graph=create_graph, retain_graph=True)
    assert computed == ["a", "a"]
    computed.clear()
    y.sum().backward(inputs=[h], create_graph=create_graph)
    assert computed == ["b", "a"]
    assert g.requires_grad == create_graph


def test_grad_of_several_outputs_inputs_and_weights():
    x = leaf(1.0, 2.0)
    a, b = x * 2, x * x
    (g,) = autograd.grad([a, b], [x], [kobai.ones(2), kobai.tensor([1.0, 10.0])])
    assert g.tolist() == [4, 42]
    with pytest.raises(RuntimeError, match="expected 2 gradients, one for each output, got 1"):
        autograd.grad([a, b], x, [kobai.ones(2)])


def test_grad_of_root_and_repeated_inputs():
    x = leaf(3.0)
    y = x * x
    gy, gx, again = autograd.grad(y, [y, x, x])
    assert [g.tolist() for g in (gy, gx, again)] == [[1], [6], [6]]


def test_grad_of_unused_inputs():
    x, unused = leaf(1.0), leaf(1.0)
    y = (x * 2).sum()
    with pytest.raises(RuntimeError, match=r"grad: input 1 was not used.*allow_unused=True"):
        autograd.grad(y, [x, unused], retain_graph=True)
    assert autograd.grad(y, [x, unused], allow_unused=True)[1] is None
    with pytest.raises(RuntimeError, match="grad: this tensor requires no gradient"):
        autograd.grad(y, kobai.ones(1))


def test_grad_retains_the_graph_when_asked():
    x = leaf(2.0)
    y = (x * x).sum()
    assert autograd.grad(y, x, retain_graph=True)[0].tolist() == [4]
    assert autograd.grad(y, x)[0].tolist() == [4]
    with pytest.raises(RuntimeError, match="freed"):
        autograd.grad(y, x)


def test_grad_applies_hooks():
    x = leaf(2.0)
    x.register_hook(lambda g: g + 1)
    h = x * 2
    h.register_hook(lambda g: g * 10)
    assert [g.tolist() for g in autograd.grad(h.sum(), [h, x])] == [[10], [21]]


def test_autograd_backward_of_several_roots():
    x = leaf(1.0)
    autograd.backward([x * 2, x * 3], [kobai.ones(1), kobai.ones(1) * 10])
    assert x.grad.tolist() == [32]


def test_many_gradients_at_once():
    x, unused = kobai.randn(3, requires_grad=True), leaf(1.0)
    a = kobai.randn(4, 3)
    y, z = a @ x, x.exp()
    given = kobai.randn(5, 4), kobai.randn(5, 3)
    gx, none = autograd.grad((y, z), (x, unused), given, retain_graph=True, allow_unused=True, is_grads_batched=True)
    assert none is None
    assert kobai.allclose(gx, given[0] @ a + given[1] * z, atol=1e-6)
    (jacobian,) = autograd.grad(y, x, kobai.eye(4), is_grads_batched=True)
    assert kobai.allclose(jacobian, a)
    conv, image = kobai.nn.Conv2d(1, 2, 3), kobai.randn(1, 1, 5, 5)
    y = conv(image).relu().softmax(1)
    dy = kobai.randn(3, *y.shape)
    (many,) = autograd.grad(y, conv.weight, dy, retain_graph=True, is_grads_batched=True)
    for row, one in zip(many, dy, strict=True):
        assert kobai.allclose(row, autograd.grad(y, conv.weight, one, retain_graph=True)[0], atol=1e-6)


def test_the_rest_of_grads_arguments():
    x, y = leaf(2.0), leaf(3.0)
    (g,) = autograd.grad((x * x).sum(), x, None, None, False, True)
    assert g.tolist() == [4]
    gx, gy = autograd.grad((x * x).sum(), [x, y], materialize_grads=True)
    assert (gx.tolist(), gy.tolist()) == ([4], [0])
    with pytest.raises(ValueError, match="only_inputs"):
        autograd.grad((x * x).sum(), x, only_inputs=False)
    with pytest.raises(ValueError, match="contradicts"):
        autograd.grad((x * x).sum(), x, materialize_grads=True, allow_unused=False)


def test_gradients_on_the_tape_are_each_leaves_own():
    x, y = leaf(1.0), leaf(1.0)
    h = x + y
    h.retain_grad()
    (h**2).sum().backward(create_graph=True)
    with kobai.no_grad():
        x.grad.mul_(2)  # as clipping does
    assert (x.grad.tolist(), y.grad.tolist(), h.grad.tolist()) == ([8], [4], [4])


def test_a_gradient_on_the_tape_is_no_view():
    x = leaf(1.0, 2.0)
    (x.reshape(2, 1) ** 2).sum().backward(create_graph=True)
    assert x.grad.detach_().tolist() == [2, 4]
