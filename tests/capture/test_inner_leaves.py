"""Steps that differentiate by tensors made inside them, and through a Function of the user's: recorded once, then replayed."""

import numpy as np
import pytest

import kobai
from kobai import nn
from kobai.autograd import Function, grad
from kobai.func import functional_call
from kobai.utils.checkpoint import checkpoint


class Doubled(Function):
    @staticmethod
    def forward(ctx, x, net):
        ctx.net = net
        ctx.save_for_backward(x)
        return net(x) * 2

    @staticmethod
    def backward(ctx, dy):
        (x,) = ctx.saved_tensors
        with kobai.enable_grad():
            x = x.detach().requires_grad_()
            (dx,) = grad(ctx.net(x), x, 2 * dy)
        return dx, None


def penalty(net, x):
    x = x.detach().requires_grad_()
    (g,) = grad(net(x).sum(), x, create_graph=True)
    return g.square().sum()


def by_backward(net, x):
    """The leaf's own .grad is filled at every call, by the step itself."""
    x = x.detach().requires_grad_()
    net(x).square().sum().backward()
    return net(x.grad * 0.1).square().sum()


LOSSES = {
    "penalty": penalty,
    "backward": by_backward,
    "function": lambda net, x: Doubled.apply(net[0](x), net[1:]).square().sum(),
    "functional": lambda net, x: functional_call(net, {n: 2 * p for n, p in net.named_parameters()}, x).square().sum(),
    "checkpoint": lambda net, x: penalty(lambda x: checkpoint(net, x), x),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_recorded_once_and_replayed(loss):
    def train(captured):
        kobai.manual_seed(1)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = kobai.optim.Adam(net.parameters(), lr=0.01)

        def step(x):
            optimizer.zero_grad()
            value = loss(net, x)
            value.backward()
            optimizer.step()
            return value.detach()

        run = kobai.capture(step) if captured else step
        rng = np.random.default_rng(0)
        values = [run(kobai.tensor(rng.normal(size=(5, 3)).astype(np.float32))).item() for _ in range(25)]
        return values, [p.detach().numpy().copy() for p in net.parameters()], run

    expected, parameters, _ = train(False)
    found, captured, run = train(True)
    assert found == expected
    for a, b in zip(parameters, captured, strict=True):
        np.testing.assert_array_equal(a, b)
    assert run.programs == 1
