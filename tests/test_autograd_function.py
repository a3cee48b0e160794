"""``autograd.Function``: operations written by hand."""

from __future__ import annotations

import pytest

import kobai
from graphs import leaf
from kobai import autograd


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
            (None, kobai.ones(())),
            RuntimeError,
            r"Wrong.backward: expected a gradient of shape \(1,\) for input 1, got \(\)",
        ),
        ((2.0, None), TypeError, "Wrong.backward: expected a Tensor or None for input 0, got float"),
        ((None, None, kobai.ones(1)), RuntimeError, "expected 2 gradients"),
    ],
)
def test_function_whose_backward_is_wrong(result, error, message):
    with pytest.raises(error, match=message):
        wrong(result).apply(leaf(1.0), leaf(1.0)).sum().backward()


def test_a_gradient_is_summed_where_the_input_was_broadcast():
    a, b = leaf(1.0), leaf(1.0)
    wrong((kobai.ones(3), kobai.full((2, 1), 2.0))).apply(a, b).sum().backward()
    assert (a.grad.tolist(), b.grad.tolist()) == ([3], [4])


def test_a_function_that_saves_nothing_can_be_used_again():
    class Double(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, dy):
            return 2 * dy

    x = leaf(1.0, 2.0)
    y = Double.apply(x)
    for _ in range(2):
        y.backward(kobai.ones(2))
    assert x.grad.tolist() == [4.0, 4.0]


def test_a_backward_may_differentiate_by_what_was_saved():
    """As adjoint methods do: the parameters among the saved tensors are those that the function uses."""
    layer = kobai.nn.Linear(2, 2)

    class Adjoint(autograd.Function):
        @staticmethod
        def forward(ctx, x, *params):
            ctx.save_for_backward(x, *params)
            return layer(x).tanh()

        @staticmethod
        def backward(ctx, dy):
            x, *params = ctx.saved_tensors
            with kobai.enable_grad():
                x = x.detach().requires_grad_()
                return autograd.grad(layer(x).tanh(), (x, *params), dy)

    x = kobai.randn(3, 2, requires_grad=True)
    found = [x, *layer.parameters()]
    Adjoint.apply(x * 2, *layer.parameters()).sum().backward()
    adjoint = [p.grad.clone() for p in found]
    for p in found:
        p.grad = None
    layer(x * 2).tanh().sum().backward()
    for a, p in zip(adjoint, found, strict=True):
        assert kobai.allclose(a, p.grad)


def test_function_half_written():
    class Empty(autograd.Function):
        pass

    with pytest.raises(NotImplementedError, match="define a static method forward"):
        Empty.apply(leaf(1.0))
    with pytest.raises(TypeError, match="save_for_backward: expected Tensors or None, got int"):
        autograd.function.Context((True,)).save_for_backward(3)


def test_function_lets_go_of_what_it_saved():
    x = leaf(1.0, 2.0)
    y = Cube.apply(x * 1)
    assert list(y.grad_fn.edges[0].edges) != []
    y.sum().backward()
    with pytest.raises(RuntimeError, match="graph of CubeBackward was freed by an earlier backward"):
        y.sum().backward()


class AddOneInPlace(autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.mark_dirty(x)
        ctx.factor = factor
        return x.add_(1).mul_(factor)

    @staticmethod
    @autograd.function.once_differentiable
    def backward(ctx: autograd.function.FunctionCtx, dy):
        return dy * ctx.factor, None


def test_an_input_changed_in_place_is_the_output():
    x = leaf(2.0)
    y = x * 1
    out = AddOneInPlace.apply(y, 3)
    assert out is y
    (y * 2).sum().backward()
    assert y.tolist() == [9]
    assert x.grad.tolist() == [6]


def test_a_view_changed_in_place_changes_its_base():
    x = kobai.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    AddOneInPlace.apply(y[:1], 3)
    (y * kobai.tensor([10.0, 100.0])).sum().backward()
    assert y.tolist() == [6, 2]
    assert x.grad.tolist() == [30, 100]


def test_a_leaf_is_not_to_be_changed_in_place():
    with pytest.raises(RuntimeError, match="a leaf that requires a gradient"):
        AddOneInPlace.apply(leaf(2.0), 3)


def test_what_was_saved_before_a_function_changed_it_is_missed():
    x = leaf(2.0)
    y = x * 1
    z = y * y
    AddOneInPlace.apply(y, 3)
    with pytest.raises(RuntimeError, match="changed in place"):
        z.sum().backward()


def test_a_node_has_the_name_of_its_function():
    class TopTwo(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, dy):
            return dy * 2

    assert TopTwo.apply(kobai.ones(1, requires_grad=True)).grad_fn.name() == "TopTwoBackward"
