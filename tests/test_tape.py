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
