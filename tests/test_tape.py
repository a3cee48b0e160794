"""The tape: gradients through shared, deep and freed graphs, memory, errors of backward."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import kobai
from graphs import leaf
from kobai import autograd
from kobai.core.primitive import REGISTRY
from kobai.core.tape import Node
from kobai.core.tensor import Tensor
from kobai.ops import index

# --- graphs -----------------------------------------------------------------------------------------------------------


def test_a_tensor_used_many_times_gets_the_sum():
    x = leaf(2.0)
    (x * x * x + x / x - x).sum().backward()
    assert x.grad.tolist() == [3 * 4 + 0 - 1]


def test_shared_subgraph_is_visited_once():
    calls = []
    x = leaf(1.0, 2.0)
    shared = x * 3
    shared.register_hook(lambda g: calls.append(g.tolist()))
    (shared * 2 + shared.exp() * 0 + shared).sum().backward()
    assert calls == [[3.0, 3.0]]
    assert x.grad.tolist() == [9, 9]


def test_gradients_add_up_over_backward_calls():
    x = leaf(1.0)
    for _ in range(3):
        (x * 2).sum().backward()
    assert x.grad.tolist() == [6]
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2]


def test_the_gradient_of_a_leaf_is_its_own():
    x, y = leaf(1.0), leaf(1.0)
    seed = kobai.ones(1, dtype=kobai.float64)
    (x + y).backward(seed)
    x.grad.add_(1)
    assert (y.grad.tolist(), seed.tolist()) == ([1], [1])
    z = leaf(1.0)
    z.backward(seed)
    z.grad.add_(1)
    assert seed.tolist() == [1]


def test_very_deep_graphs_need_no_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1
    y.backward()
    assert x.grad.tolist() == [1]
    y = y * 1.0
    del y  # the whole graph is destroyed; that too could overflow the stack


def test_leaf_as_root():
    x = leaf(1.0, 2.0)
    x.backward(kobai.tensor([3.0, 4.0], dtype=kobai.float64))
    assert x.grad.tolist() == [3, 4]


def test_only_float_inputs_that_ask_get_a_gradient():
    x, y = leaf(1.0), kobai.ones(1, dtype=kobai.float64)
    index = kobai.tensor([0])
    (x[index] * y).sum().backward()
    assert x.grad is not None
    assert y.grad is None
    assert not (x > 0).requires_grad
    assert not x.argmax().requires_grad


def test_no_elements():
    x = kobai.zeros(0, 3, requires_grad=True)
    (x * 2).sum().backward()
    assert x.grad.shape == (0, 3)


def test_the_gradient_is_cast_to_the_dtype_of_the_root():
    x = kobai.ones(2, requires_grad=True)
    (x * 2).backward(kobai.ones(2, dtype=kobai.float64))
    assert x.grad.dtype == kobai.float32


def test_mixed_precision_gradients_have_the_dtype_of_their_tensor():
    x, y = kobai.ones(2, requires_grad=True), leaf(2.0, 3.0)
    (x * y).sum().backward()
    assert (x.grad.dtype, y.grad.dtype) == (kobai.float32, kobai.float64)


# --- memory -----------------------------------------------------------------------------------------------------------


def step(x: Tensor) -> Tensor:
    hidden = x @ x.t()
    hidden[0] = 0
    hidden = hidden.relu()
    return (hidden.reshape(-1).exp() * 0.1 + hidden.mean()).sum()


def test_backward_lets_go_of_what_it_kept():
    x = kobai.ones(3, 3, requires_grad=True)
    hidden = x.exp()
    kept = weakref.ref(hidden.array)
    loss = hidden.log().sum()
    del hidden
    assert kept() is not None
    loss.backward()
    assert kept() is None


def test_a_step_leaves_no_cycles_behind():
    """Memory is freed by reference counts alone; waiting for the collector would let arrays pile up."""
    x = kobai.ones(3, 3, requires_grad=True)
    step(x).backward()
    gc.collect()
    gc.disable()
    try:
        counts = set()
        for i in range(100):
            loss = step(x)
            if i % 2:
                loss.backward()
            x.grad = loss = None
            if i % 10 == 9:
                counts.add(sum(issubclass(type(o), (Tensor, Node)) for o in gc.get_objects()))
        assert len(counts) == 1
        assert gc.collect() == 0
    finally:
        gc.enable()


# --- errors of backward -----------------------------------------------------------------------------------------------


def test_backward_of_several_elements_asks_for_a_gradient():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"backward: expected a tensor of one element.*got shape \(2,\).*sum\(\)"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match=r"backward: expected a gradient of shape \(2,\), got \(3,\)"):
        (x * 2).backward(kobai.ones(3))
    with pytest.raises(TypeError, match="backward: expected gradient to be a Tensor, got float"):
        (x * 2).backward(1.0)
    (x.reshape(1, 2)[:, :1] * 2).backward()
    assert x.grad.tolist() == [2, 0]


def test_backward_twice():
    x = leaf(2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [8]
    with pytest.raises(RuntimeError, match=r"backward: the graph of .*Backward was freed.*retain_graph=True"):
        y.backward()


def test_backward_without_a_graph():
    with pytest.raises(RuntimeError, match="requires no gradient"):
        kobai.ones(1).backward()
    with pytest.raises(RuntimeError, match="requires no gradient"):
        leaf(1.0).detach().backward()
    with kobai.no_grad():
        y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="requires no gradient"):
        y.backward()


# --- backward into some tensors alone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["method", "function"])
def test_backward_adds_to_the_inputs_named_alone(call):
    x, other, unused = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(1.0)
    hooked = []
    x.register_hook(lambda g: hooked.append(g.tolist()))
    y = x * other
    loss, inputs = (y * y).sum(), [x, y, unused]
    if call == "method":
        loss.backward(inputs=inputs)
    else:
        autograd.backward([loss], inputs=inputs)
    assert x.grad.tolist() == [18.0, 64.0] == hooked[0]
    assert len(hooked) == 1
    assert y.grad.tolist() == [6.0, 16.0]
    assert other.grad is None
    assert unused.grad is None


def test_backward_into_one_tensor_adds_up_and_leaves_the_rest_of_the_graph():
    x, other = leaf(1.0), leaf(3.0)
    a, b = x * 2, other * 5
    (a * b).sum().backward(inputs=a)
    assert a.grad.tolist() == [15.0]
    assert x.grad is None
    (a + b).sum().backward(inputs=[a])
    assert a.grad.tolist() == [16.0]
    b.sum().backward()
    assert other.grad.tolist() == [5.0]


def test_backward_refuses_inputs_that_cannot_receive():
    with pytest.raises(RuntimeError, match="at least one tensor in inputs"):
        leaf(1.0).sum().backward(inputs=[])
    with pytest.raises(RuntimeError, match="requires no gradient"):
        leaf(1.0).sum().backward(inputs=[kobai.ones(1)])


# --- every primitive --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, p in REGISTRY.items() if p.kind != "view" and p.name != "_move"])
def test_only_views_share_memory_with_their_operands(name):
    """Otherwise a change of the result would change an operand behind the tape's back."""
    entry = REGISTRY[name]
    for draw in entry.samples:
        args = draw(np.random.default_rng(0))
        args, options = (args[:-1], args[-1]) if args and isinstance(args[-1], dict) else (args, {})
        made = [Tensor._wrap(a.copy()) if isinstance(a, np.ndarray) else a for a in args]
        result = entry.op(*made, **options)
        for a in made:
            if isinstance(a, Tensor) and a.numel():
                assert not np.may_share_memory(result.array, a.array), name


# --- gradients of parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("first", ["parts", "whole", "shared"])
def test_gradients_of_overlapping_parts_add_up(inner, first):
    x = kobai.arange(12.0).reshape(4, 3).requires_grad_()
    y = x * 1 if inner else x
    parts = [y[0], y[1:3], y[:, 1], y[0, 2], y[2:2], *y.split(3), *y.unbind(1)]
    rest = {"parts": 0, "whole": (y * y).sum(), "shared": y.sum()}[first]
    (sum((i + 2) * part.sum() for i, part in enumerate(parts)) + rest).backward()
    expected = np.zeros((4, 3))
    columns = [(slice(None), j) for j in range(3)]
    keys = [0, slice(1, 3), columns[1], (0, 2), slice(2, 2), slice(0, 3), slice(3, 4), *columns]
    for i, key in enumerate(keys):
        expected[key] += i + 2
    expected += {"parts": 0, "whole": 2 * x.detach().numpy(), "shared": 1}[first]
    np.testing.assert_allclose(x.grad.numpy(), expected)


def test_parts_cost_no_array_of_the_whole_each(monkeypatch):
    made, placed = [], index.placed
    monkeypatch.setattr(index, "placed", lambda *args: made.append(args[-1] is None) or placed(*args))
    x = kobai.ones(50, 3).requires_grad_()
    (kobai.stack(x.unbind()) * 2).sum().backward()
    assert made == [True] + [False] * 49
    assert x.grad.tolist() == [[2.0] * 3] * 50


def test_parts_of_a_view_follow_a_change_of_the_whole():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    base = x * 1
    left, right = base.view(2, 2).unbind()
    base.mul_(3)
    (left * right).sum().backward()
    assert left.tolist() == [3.0, 6.0]
    assert x.grad.tolist() == [27.0, 36.0, 9.0, 18.0]
    with kobai.no_grad():
        assert not any(part.requires_grad for part in x.split(1))


# --- gradients that share memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", ["assign", "copy_", "in place", "indexed"])
@pytest.mark.parametrize("inner", [False, True])
def test_adding_up_a_gradient_leaves_others_of_the_same_memory_alone(write, inner):
    """The gradient of what was written into y is that of y, which b's is too; a's is then added up further."""
    a, b = leaf(1.0, 1.0, 1.0), leaf(1.0, 1.0, 1.0)
    source, other = (a * 1, b * 1) if inner else (a, b)
    more = source * 10
    y = kobai.zeros(3, dtype=a.dtype)
    if write == "assign":
        y[:] = source
    elif write == "copy_":
        y.copy_(source)
    elif write == "in place":
        y.add_(source)
    else:
        y[kobai.tensor([0, 1, 2])] = source
    ((y + other) * kobai.tensor([1.0, 2.0, 3.0], dtype=a.dtype)).sum().add(more.sum()).backward()
    assert a.grad.tolist() == [11.0, 12.0, 13.0]
    assert b.grad.tolist() == [1.0, 2.0, 3.0]


def test_hooks_keep_what_they_were_given():
    """Gradients that a hook, ``retain_grad`` and the caller hold are not added to afterwards."""
    x, seen = leaf(1.0, 2.0, 3.0), []
    y = x * 1
    y.retain_grad()
    y.register_hook(seen.append)
    given = kobai.ones(3)
    parts = y.unbind()
    for _ in range(2):
        autograd.backward([kobai.stack(parts), y], [given, given], retain_graph=True)
    assert given.tolist() == [1.0] * 3
    assert [g.tolist() for g in seen] == [[2.0] * 3] * 2
    assert y.grad.tolist() == x.grad.tolist() == [4.0] * 3


def test_second_derivatives_of_sums_of_parts():
    rng = np.random.default_rng(0)
    x, v = (kobai.tensor(rng.normal(size=(5, 5)), requires_grad=True) for _ in range(2))
    w = [kobai.tensor(rng.normal(size=(5, 5)), requires_grad=True) for _ in range(2)]
    (g,) = autograd.grad(kobai.gradient(x, edge_order=2), x, w, create_graph=True)
    again = autograd.grad(g, w, v)
    for found, wanted in zip(again, kobai.gradient(v.detach(), edge_order=2), strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=1e-12)  # gradient is linear
