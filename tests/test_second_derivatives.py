"""Derivatives of derivatives: every primitive's gradient is differentiated, from the registry alone."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import kobai
import kobai.nn.functional as F
from kobai import nn
from kobai.autograd import Function, grad, gradgradcheck
from kobai.autograd.check import worst_second
from kobai.autograd.function import once_differentiable
from test_registry import CASES, run, sample, tensors

REFUSED = {
    ("ops.ctc._ctc_loss", 0): "CtcLossBackward",
    ("ops.ctc._ctc_loss", 1): "CtcLossBackward",
    ("ops.ctc._ctc_loss", 2): "CtcLossBackward",
}
"""Samples whose second derivative is refused, and what the error says. PyTorch refuses it too: the loss of alignments, whose
gradient is a recursion."""


def everywhere():
    """The first sample of every primitive on NumPy, of a fifth of them on a device; the others, and strict, are thorough."""
    thorough = pytest.mark.thorough
    for name, i in CASES:
        yield pytest.param("numpy", name, i, id=f"numpy-{name}-{i}", marks=[thorough] if i else [])
        yield pytest.param("strict", name, i, id=f"strict-{name}-{i}", marks=[thorough])
        if not i and sum(map(ord, name)) % 5 == 0:
            yield pytest.param("cupy", name, i, id=f"cupy-{name}-{i}", marks=[pytest.mark.gpu])


@pytest.mark.parametrize(("backend", "name", "i"), list(everywhere()))
def test_second_derivatives_of_every_primitive(backend, name, i):
    """Against central differences of the first derivatives, in the operands and in the weights of the result."""
    args, options = sample(name, i)
    with kobai.using(backend):
        args = tensors(args)
        leaves = [a for a in args if isinstance(a, kobai.Tensor) and a.requires_grad and a.numel()]
        if not leaves or not run(name, args, options).requires_grad:
            return

        def function(*xs):
            given = iter(xs)
            return run(name, [next(given) if any(a is x for x in leaves) else a for a in args], options)

        if (name, i) in REFUSED:
            with pytest.raises(NotImplementedError, match=REFUSED[name, i]):
                worst_second(function, leaves)
            return
        assert worst_second(function, leaves).error < 1e-5


def derivative(function, x, order):
    y = function(x)
    for _ in range(order):
        (y,) = grad(y.sum(), x, create_graph=True)
    return y.detach().numpy()


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_higher_orders(order):
    at = np.array([0.3, -0.7, 1.2])
    x = kobai.tensor(at, requires_grad=True)
    waves = [np.sin, np.cos, lambda t: -np.sin(t), lambda t: -np.cos(t)]
    np.testing.assert_allclose(derivative(kobai.sin, x, order), waves[order % 4](at), rtol=1e-14)
    np.testing.assert_allclose(derivative(kobai.exp, x, order), np.exp(at), rtol=1e-14)
    np.testing.assert_allclose(derivative(lambda t: t**6, x, order), np.prod(range(7 - order, 7)) * at ** (6 - order))


def test_fourth_derivative_of_a_small_net():
    """Of a tanh net along a line, against the differences of its third."""
    kobai.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def third(t):
        x = kobai.tensor([[t]], dtype=kobai.float64, requires_grad=True)
        return derivative(net, x, 3).item()

    x = kobai.tensor([[0.4]], dtype=kobai.float64, requires_grad=True)
    assert derivative(net, x, 4).item() == pytest.approx((third(0.4 + 1e-5) - third(0.4 - 1e-5)) / 2e-5, rel=1e-7)


def test_backward_with_create_graph_fills_grad():
    x = kobai.tensor([2.0, 3.0], requires_grad=True)
    (x**3).sum().backward(create_graph=True)
    assert x.grad.requires_grad
    (second,) = grad(x.grad.sum(), x)
    assert second.tolist() == [12.0, 18.0]
    kobai.autograd.backward((x**2).sum(), create_graph=True)  # adds to it, on the tape
    assert x.grad.tolist() == [16.0, 33.0]
    assert x.grad.requires_grad
    x.grad = None
    (x**3).sum().backward()
    assert not x.grad.requires_grad


def test_the_graph_is_kept_unless_asked_otherwise():
    x = kobai.tensor([2.0], requires_grad=True)
    y = x.exp() * x
    grad(y, x, create_graph=True)
    grad(y, x, create_graph=True, retain_graph=False)
    with pytest.raises(RuntimeError, match="freed"):
        grad(y, x)


def test_in_no_grad_the_graph_is_made_too():
    x = kobai.tensor([2.0], requires_grad=True)
    y = x**3
    with kobai.no_grad():
        (g,) = grad(y, x, create_graph=True)
    assert g.requires_grad


def test_weights_of_the_outputs_are_differentiated():
    x, v = (kobai.tensor([1.5, -0.5], dtype=kobai.float64, requires_grad=True) for _ in range(2))
    (g,) = grad(x.sin(), x, v, create_graph=True)
    (back,) = grad(g.sum(), v)
    np.testing.assert_allclose(back.numpy(), np.cos([1.5, -0.5]))


def test_views_and_changes_in_place():
    def changed(x):
        y = x * 2
        y[0] = x[1] ** 2
        y[1:].mul_(x[:2])
        return y * x

    x = kobai.tensor([0.5, -1.5, 2.0], dtype=kobai.float64, requires_grad=True)
    assert gradgradcheck(changed, x, atol=1e-8, rtol=1e-7)


def test_an_operand_changed_in_place_afterwards_is_an_error():
    x = kobai.tensor([1.0, 2.0], requires_grad=True)
    (g,) = grad((x.exp() * x).sum(), x, create_graph=True)
    with kobai.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        grad(g.sum(), x)


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        return dy * 3 * x**2


class Exp(Function):
    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, dy):
        (y,) = ctx.saved_tensors
        return dy * y


class SumAndProduct(Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a + b, a * b

    @staticmethod
    def backward(ctx, d_sum, d_product):
        a, b = ctx.saved_tensors
        return d_sum + d_product * b, d_sum + d_product * a


class Once(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return 2 * dy * ctx.saved_tensors[0]


def test_functions_of_users():
    a, b = (kobai.tensor([0.7, -0.4], dtype=kobai.float64, requires_grad=True) for _ in range(2))
    for function in (Cube.apply, Exp.apply):
        assert gradgradcheck(function, a, atol=1e-8, rtol=1e-7)
        assert gradgradcheck(lambda x, f=function: grad(f(x).sum(), x, create_graph=True)[0], a, atol=1e-8, rtol=1e-7)
    assert gradgradcheck(lambda x, y: SumAndProduct.apply(x * y, y.sin()), (a, b), atol=1e-8, rtol=1e-7)
    (g,) = grad(Once.apply(a).sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad(g.sum(), a)


def test_hooks_see_gradients_on_the_tape():
    seen = []
    x = kobai.tensor([1.0, 2.0], requires_grad=True)
    y = x**2
    y.register_hook(lambda g: seen.append(g.requires_grad) or g * 2)
    (g,) = grad((y**2).sum(), x, create_graph=True)
    assert seen == [True]
    (second,) = grad(g.sum(), x)
    np.testing.assert_allclose(second.numpy(), [40.0, 160.0])  # the hook doubles again: 8x² + 2 · 16x²


def test_module_hooks():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    seen = []
    net[1].register_full_backward_hook(lambda module, given, received: seen.append(received[0].requires_grad))
    x = kobai.randn(2, 3, dtype=kobai.float64, requires_grad=True)
    (g,) = grad(net(x).sum(), x, create_graph=True)
    g.square().sum().backward()
    assert seen[0] is True
    assert all(p.grad is not None for p in net[0].parameters())


def test_kinks():
    """ReLU″ = 0 and |x|″ = 0; powers, roots and norms guarded by where have no NaN."""
    x = kobai.tensor([-1.0, 0.0, 2.0], dtype=kobai.float64, requires_grad=True)
    for function in (F.relu, kobai.abs, lambda t: F.leaky_relu(t, 0.1)):
        (g,) = grad(function(x * x * 0 + x).sum(), x, create_graph=True)
        assert grad(g.sum(), x)[0].tolist() == [0.0, 0.0, 0.0]
    (g,) = grad(kobai.where(x > 0, kobai.where(x > 0, x, 1).sqrt(), 0 * x).sum(), x, create_graph=True)
    second = grad(g.sum(), x)[0].numpy()
    np.testing.assert_allclose(second, [0.0, 0.0, -0.25 * 2**-1.5])
    (g,) = grad((x**2).sum(), x, create_graph=True)
    assert grad(g.sum(), x)[0].tolist() == [2.0, 2.0, 2.0]


def higher(function, at, order):
    x = kobai.tensor(at, dtype=kobai.float64, requires_grad=True)
    return derivative(function, x, order)


S = kobai.special


@pytest.mark.parametrize(
    ("function", "at", "order", "expected"),
    [
        (kobai.sinc, 0.0, 2, -(np.pi**2) / 3),
        (kobai.sinc, 0.0, 4, np.pi**4 / 5),
        (kobai.sinc, 1e-160, 2, -(np.pi**2) / 3),
        (kobai.i0, 0.0, 2, 0.5),
        (kobai.i0, 0.0, 4, 0.375),
        (S.i0e, 0.0, 2, 0.5),
        (S.i1, 0.0, 3, 0.375),
        (kobai.lgamma, 1.0, 2, np.pi**2 / 6),
        (kobai.lgamma, 3.0, 2, np.pi**2 / 6 - 1.25),
        (kobai.digamma, 1.0, 3, np.pi**4 / 15),
        (S.ndtri, 0.5, 3, (2 * np.pi) ** 1.5),
        (S.ndtri, 0.5, 5, 7 * (2 * np.pi) ** 2.5),
    ],
)
def test_special_functions_where_their_algorithms_change_over(function, at, order, expected):
    """A derivative is the function's: not that of an iteration's last step, nor 0 · ∞ of a branch that is not taken."""
    assert higher(function, [at], order).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 3.0, float("inf")])
def test_a_norm_of_zero_is_constant(p):
    """Its gradient is 0 there, and so are all derivatives, where PyTorch has NaN."""
    assert not higher(lambda x: x.norm(p), [0.0, 0.0], 2).any()
    assert not higher(lambda x: kobai.atan2(x[0], x[1]), [0.0, 0.0], 2).any()


def test_nothing_waits_for_the_collector():
    """No cycles: with the collector off, all that a second derivative made is gone with its results."""
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 1))
    net[1].register_full_backward_hook(lambda *args: None)
    x = kobai.randn(5, 4, requires_grad=True)

    def penalty():
        (g,) = grad(net(x).sum(), x, create_graph=True)
        loss = ((g.norm(dim=1) - 1) ** 2).mean()
        loss.backward(create_graph=True)
        nodes = weakref.ref(loss.grad_fn), weakref.ref(g.grad_fn)
        net.zero_grad()
        x.grad = None
        return nodes

    penalty()
    gc.collect()
    gc.disable()
    try:
        nodes = penalty()
        assert [node() for node in nodes] == [None, None]
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_what_is_derived_is_never_a_constant():
    """A gradient that keeps what it computed is refused by name, unless the operation says that it can be run again."""
    from kobai.core.primitive import operation

    def _halved(x):
        factor = x * 0.5
        return x * factor, lambda dy: (dy * factor * 2,)

    x = kobai.tensor([3.0], requires_grad=True)
    with pytest.raises(NotImplementedError, match=r"HalvedBackward has no derivative of its own.*shape \(1,\)"):
        grad(operation(_halved)(x), x, create_graph=True)


@pytest.mark.parametrize("kind", ["mlp", "conv", "norms", "attention", "lstm"])
def test_captured_steps_with_a_graph_of_gradients(kind):
    """A gradient penalty inside a captured step: replays have the bits of eager steps."""
    nets = {
        "mlp": lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)),
        "conv": lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 3, 2, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(36, 1)
        ),
        "norms": lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.BatchNorm1d(8), nn.Linear(8, 1)),
        "attention": lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), Attention(), nn.Flatten(), nn.Linear(6, 1)),
        "lstm": lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), Last(nn.LSTM(3, 4, batch_first=True)), nn.Linear(4, 1)),
    }

    def train(captured):
        kobai.manual_seed(3)
        net = nets[kind]()
        optimizer = kobai.optim.Adam(net.parameters(), lr=0.01)

        def step(x):
            x = x.detach().requires_grad_()
            optimizer.zero_grad()
            (g,) = grad(net(x).sum(), x, create_graph=True)
            loss = ((g.norm(dim=1) - 1) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run_step = kobai.capture(step) if captured else step
        rng = np.random.default_rng(0)
        losses = [run_step(kobai.tensor(rng.normal(size=(4, 6)).astype(np.float32))).item() for _ in range(5)]
        return losses, [p.detach().numpy().copy() for p in net.parameters()], run_step

    losses, parameters, _ = train(False)
    again, captured, step = train(True)
    assert losses == again
    for a, b in zip(parameters, captured, strict=True):
        np.testing.assert_array_equal(a, b)
    assert step.programs == 1


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return F.scaled_dot_product_attention(self.q(x), self.k(x), x)


class Last(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)[0][:, -1]
