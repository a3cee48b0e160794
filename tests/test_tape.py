"""The tape: gradients through shared, deep and freed graphs, hooks, in-place changes, grad modes, hand-written operations."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

import kobai
from kobai import autograd
from kobai.core.primitive import REGISTRY
from kobai.core.tape import Node
from kobai.core.tensor import Tensor


def leaf(*values: float) -> Tensor:
    return kobai.tensor(values, dtype=kobai.float64, requires_grad=True)


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


def test_function_lets_go_of_what_it_saved():
    x = leaf(1.0, 2.0)
    y = Cube.apply(x * 1)
    assert list(y.grad_fn.edges[0].edges) != []
    y.sum().backward()
    with pytest.raises(RuntimeError, match="graph of CubeBackward was freed by an earlier backward"):
        y.sum().backward()


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


def test_second_derivatives_are_refused_by_name():
    x = leaf(2.0)
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        (x * x).backward(create_graph=True)
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        autograd.grad(x * x, x, create_graph=True)


# --- grad modes -------------------------------------------------------------------------------------------------------


def test_modes_nest_and_come_back():
    seen = []
    with kobai.no_grad():
        seen.append(kobai.is_grad_enabled())
        with kobai.enable_grad():
            seen.append(kobai.is_grad_enabled())
            with kobai.set_grad_enabled(False), kobai.inference_mode():
                seen.append(kobai.is_grad_enabled())
            seen.append(kobai.is_grad_enabled())
        seen.append(kobai.is_grad_enabled())
    seen.append(kobai.is_grad_enabled())
    assert seen == [False, True, False, True, False, True]


@pytest.mark.parametrize("mode", [kobai.no_grad, kobai.inference_mode, lambda: kobai.set_grad_enabled(False)])
def test_modes_come_back_after_an_exception(mode):
    with pytest.raises(KeyError), mode():
        raise KeyError
    assert kobai.is_grad_enabled()


def test_modes_as_decorators():
    @kobai.no_grad()
    def one():
        """Says so."""
        return kobai.is_grad_enabled()

    @kobai.no_grad
    def two():
        return kobai.is_grad_enabled()

    @kobai.inference_mode()
    def three():
        return kobai.is_grad_enabled()

    @kobai.set_grad_enabled(False)
    def four():
        return kobai.is_grad_enabled()

    @kobai.inference_mode(False)
    def five():
        return kobai.is_grad_enabled()

    @kobai.no_grad()
    def recursive(n):
        return [kobai.is_grad_enabled(), *(recursive(n - 1) if n else [])]

    assert [one(), two(), three(), four(), five()] == [False, False, False, False, True]
    assert recursive(3) == [False] * 4
    assert kobai.is_grad_enabled()
    assert (one.__name__, one.__doc__) == ("one", "Says so.")


def test_set_grad_enabled_as_a_call():
    kobai.set_grad_enabled(False)
    assert not kobai.is_grad_enabled()
    kobai.set_grad_enabled(True)
    assert kobai.is_grad_enabled()


def test_a_generator_has_its_mode_only_while_it_computes():
    @kobai.no_grad()
    def squares():
        sent = None
        for i in range(3):
            try:
                sent = yield i, kobai.is_grad_enabled(), sent
            except ValueError:
                sent = "caught"
        return "end"

    generator = squares()
    assert next(generator) == (0, False, None)
    assert kobai.is_grad_enabled()
    assert generator.send("hello") == (1, False, "hello")
    assert generator.throw(ValueError) == (2, False, "caught")
    with pytest.raises(StopIteration, match="end"):
        next(generator)
    unfinished = squares()
    next(unfinished)
    unfinished.close()
    assert kobai.is_grad_enabled()


def test_mode_belongs_to_the_thread():
    seen = {}

    def work():
        seen["inside"] = kobai.is_grad_enabled()
        kobai.set_grad_enabled(False)

    with kobai.no_grad():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == {"inside": True}
    assert kobai.is_grad_enabled()


def test_threads_build_and_differentiate_their_own_graphs():
    failures = []

    def work(value):
        x = leaf(float(value))
        for _ in range(30):
            x.grad = None
            y = x
            for _ in range(20):
                y = y * 1.0 + x
            y.sum().backward()
            if x.grad.tolist() != [21.0]:
                failures.append(x.grad.tolist())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_requires_grad_can_be_switched_on_leaves_only():
    x = leaf(1.0)
    assert not x.requires_grad_(False).requires_grad
    x.requires_grad = True
    with pytest.raises(RuntimeError, match=r"only leaf tensors.*detach\(\)"):
        (x * 2).requires_grad_(False)
    y = (x * 2).detach_()
    assert y.is_leaf
    assert not y.requires_grad
    with pytest.raises(RuntimeError, match=r"detach_: this tensor is a view"):
        (x * 2)[:].detach_()


# --- hooks ------------------------------------------------------------------------------------------------------------


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


# --- grad() -----------------------------------------------------------------------------------------------------------


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


# --- in-place changes -------------------------------------------------------------------------------------------------


def test_leaves_and_their_views_change_only_outside_the_tape():
    x = leaf(1.0, 2.0)
    for change in (lambda: x.add_(1), lambda: x[:1].mul_(2), lambda: x.__setitem__(0, 5.0), lambda: x.zero_()):
        with pytest.raises(RuntimeError, match="leaf that requires a gradient cannot be changed in place"):
            change()
    with kobai.no_grad():
        x.add_(1)
        x[0] = 7
    assert x.tolist() == [7, 3]
    assert x.is_leaf
    x.data[1] = 0
    x.detach().mul_(2)
    assert x.tolist() == [14, 0]


@pytest.mark.parametrize(
    "change",
    [lambda y: y.add_(1), lambda y: y.__setitem__(0, 0.0), lambda y: y.detach().add_(1), lambda y: y[:1].zero_()],
    ids=["op", "setitem", "detached", "view"],
)
def test_a_change_of_what_backward_needs_is_found(change):
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y.exp() * y  # keeps y
    change(y)
    with pytest.raises(
        RuntimeError, match=r"changed in place after it was used \(it is at version \d+, expected \d+\)"
    ):
        z.sum().backward()


def test_a_change_under_no_grad_is_found_too():
    x, w = leaf(1.0), leaf(2.0)
    y = (x * w).sum()
    with kobai.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_a_change_of_the_output_is_found_where_the_output_is_needed():
    x = leaf(1.0)
    y = x.exp()
    z = y.sum()
    y.add_(1)
    with pytest.raises(RuntimeError, match="a tensor that ExpBackward needs was changed in place"):
        z.backward()


def test_a_change_of_what_backward_does_not_need_is_allowed():
    x = leaf(1.0, 2.0)
    y = x * 2
    z = y + 1  # needs no values
    y.mul_(5)
    (z.sum() + y.sum()).backward()
    assert x.grad.tolist() == [12, 12]


def test_data_is_unseen():
    x, w = leaf(1.0), leaf(2.0)
    y = (x * w).sum()
    w.data.mul_(10)
    y.backward()
    assert x.grad.tolist() == [20], "PyTorch too computes with what is there"


def test_in_place_chain():
    x = leaf(1.0, 2.0)
    y = x * 1
    y += 1
    y *= 3
    y -= x
    y /= 2
    y **= 2
    y.sum().backward()
    value = (3 * (x.array + 1) - x.array) / 2
    np.testing.assert_allclose(x.grad.array, 2 * value, rtol=1e-14)


def test_in_place_on_a_view_reaches_base_and_siblings():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    base = x * 1
    left, right, whole = base[:2], base[2:], base.reshape(2, 2)
    left.mul_(10)
    assert base.tolist() == [10, 20, 3, 4]
    (base.sum() + right.sum() + whole[0].sum() + left.sum()).backward()
    assert x.grad.tolist() == [30, 30, 2, 2]


def test_in_place_on_the_base_reaches_views_made_before():
    x = leaf(1.0, 2.0)
    base = x * 1
    view = base[1:]
    base.mul_(x)
    assert view.requires_grad
    (view * 3).sum().backward()
    assert x.grad.tolist() == [0, 12]


def test_in_place_on_a_view_of_a_view():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    base = x * 1
    inner = base.reshape(2, 2).t()[0]
    inner.mul_(5)
    inner.add_(1)
    assert base.tolist() == [6, 2, 16, 4]
    (base * base).sum().backward()
    assert x.grad.tolist() == [60, 4, 160, 8]


def test_a_constant_becomes_part_of_the_graph_by_a_change():
    x = leaf(2.0)
    buffer = kobai.zeros(3, dtype=kobai.float64)
    view = buffer[1:]
    buffer[0] = x[0] * 3
    view.add_(x)
    assert buffer.requires_grad
    assert not buffer.is_leaf
    (buffer * kobai.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [113]


def test_in_place_overwriting_cuts_the_past():
    x = leaf(1.0, 2.0)
    y = x * 2
    y[0] = 7
    y.sum().backward()
    assert x.grad.tolist() == [0, 2]
    z = leaf(1.0) * 2
    z.zero_()
    assert z.tolist() == [0]


def test_in_place_on_detached_memory_is_seen_by_both():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.detach()[0] = 100
    assert y.tolist() == [100, 4]
    y.sum().backward()
    assert x.grad.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: kobai.ones(2).add_(kobai.ones(3, 2)), r"result has shape \(3, 2\), the tensor \(2,\)"),
        (lambda: kobai.arange(3).add_(0.5), "result of float32 cannot be kept in a tensor of int64"),
        (lambda: kobai.arange(3).div_(2), "result of float32 cannot be kept in a tensor of int64"),
        (lambda: kobai.ones(1).expand(3).add_(1), "share memory"),
    ],
)
def test_results_that_do_not_fit(change, message):
    with pytest.raises(RuntimeError, match=message):
        change()


def test_in_place_keeps_the_dtype():
    x = kobai.ones(2)
    x += kobai.ones(2, dtype=kobai.float64)
    assert x.dtype == kobai.float32
    n = kobai.arange(3)
    n //= 2
    assert (n.tolist(), n.dtype) == ([0, 0, 1], kobai.int64)


def test_in_place_with_itself():
    x = kobai.tensor([[1.0, 2.0], [3.0, 4.0]])
    x.add_(x.t())
    assert x.tolist() == [[2, 5], [5, 8]]
    y = kobai.arange(5.0)
    y[1:] += y[:-1]
    assert y.tolist() == [0, 1, 3, 5, 7]


# --- Function ---------------------------------------------------------------------------------------------------------


class Cube(autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * 3 * x**2


class Both(autograd.Function):
    """(a b, a + b), and a number that has no gradient."""

    calls = 0

    @staticmethod
    def forward(ctx, a, b, power):
        ctx.save_for_backward(a, b)
        ctx.power = power
        count = kobai.tensor(a.numel())
        return a * b, a + b, count

    @staticmethod
    def backward(ctx, d_product, d_sum, d_count):
        Both.calls += 1
        assert d_count is not None
        a, b = ctx.saved_tensors
        da = d_product * b + d_sum if ctx.needs_input_grad[0] else None
        db = d_product * a + d_sum if ctx.needs_input_grad[1] else None
        return da, db, None


def test_function():
    x = leaf(2.0)
    y = Cube.apply(x)
    assert y.grad_fn.name() == "CubeBackward"
    (y * 2).sum().backward()
    assert x.grad.tolist() == [24]
    assert autograd.gradcheck(Cube.apply, (leaf(0.3, -1.2),))


def test_function_of_several_inputs_and_outputs_runs_backward_once():
    Both.calls = 0
    a, b = leaf(2.0), leaf(5.0)
    product, total, count = Both.apply(a, b, 3)
    assert not count.requires_grad
    (product * 10 + total).sum().backward()
    assert (a.grad.tolist(), b.grad.tolist(), Both.calls) == ([51], [21], 1)


def test_function_output_that_nothing_used_gets_zeros():
    a = leaf(2.0)
    b = kobai.ones(1, dtype=kobai.float64) * 5
    _, total, _ = Both.apply(a, b, 3)
    total.sum().backward()
    assert (a.grad.tolist(), b.grad) == ([1], None)


def test_function_does_not_run_backward_off_the_tape():
    assert not Cube.apply(kobai.ones(1)).requires_grad
    with kobai.no_grad():
        assert not Cube.apply(leaf(1.0)).requires_grad


def test_function_finds_a_saved_tensor_changed():
    x = leaf(2.0) * 1
    y = Cube.apply(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match="saved for backward was changed in place"):
        y.sum().backward()


def test_function_may_return_its_input():
    class Reverse(autograd.Function):
        @staticmethod
        def forward(ctx, x, strength):
            ctx.strength = strength
            return x

        @staticmethod
        def backward(ctx, dy):
            return -ctx.strength * dy, None

    x = leaf(1.0)
    y = Reverse.apply(x, 0.5)
    assert y is not x
    (y * 2).sum().backward()
    assert x.grad.tolist() == [-1]


def test_function_with_setup_context():
    class Scale(autograd.Function):
        @staticmethod
        def forward(x, factor):
            return x * factor

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.factor = inputs[1]
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable()

        @staticmethod
        def backward(ctx, dy):
            return dy * ctx.factor, None

    x = leaf(1.0)
    Scale.apply(x, 4.0).sum().backward()
    assert x.grad.tolist() == [4]


def test_function_outputs_marked_without_gradient():
    class Top(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            rounded = x.round()
            ctx.mark_non_differentiable(rounded)
            return x * 1, rounded

        @staticmethod
        def backward(ctx, dy, d_rounded):
            return dy

    y, rounded = Top.apply(leaf(1.4))
    assert (y.requires_grad, rounded.requires_grad) == (True, False)


def wrong(result):
    class Wrong(autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a + b

        @staticmethod
        def backward(ctx, dy):
            return result

    return Wrong


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (kobai.ones(1), RuntimeError, "Wrong.backward: expected 2 gradients, one for each input of forward, got 1"),
        (
            (None, kobai.ones(3)),
            RuntimeError,
            r"Wrong.backward: expected a gradient of shape \(1,\) for input 1, got \(3,\)",
        ),
        ((2.0, None), TypeError, "Wrong.backward: expected a Tensor or None for input 0, got float"),
        ((None, None, kobai.ones(1)), RuntimeError, "expected 2 gradients"),
    ],
)
def test_function_whose_backward_is_wrong(result, error, message):
    with pytest.raises(error, match=message):
        wrong(result).apply(leaf(1.0), leaf(1.0)).sum().backward()


def test_function_half_written():
    class Empty(autograd.Function):
        pass

    with pytest.raises(NotImplementedError, match="define a static method forward"):
        Empty.apply(leaf(1.0))
    with pytest.raises(TypeError, match="save_for_backward: expected Tensors or None, got int"):
        autograd.function.Context((True,)).save_for_backward(3)


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
