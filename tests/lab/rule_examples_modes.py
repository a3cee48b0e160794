"""Examples for the rules of modes, of hand-written gradients, of states, of scales and of a training's course."""

from __future__ import annotations

from typing import Any

from rule_examples import Example, X, seen, sgd

import kobai
from kobai import nn
from kobai.lab.doctor.rules.view import View
from kobai.nn import functional as F


def applied(forward: Any, backward: Any) -> nn.Module:
    """A net whose activation is a Function of its own."""

    class Own(kobai.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return backward(dy, *ctx.saved_tensors)

    return Between(lambda net, h: Own.apply(h))


class Between(nn.Module):
    """Two dense layers with a function of the net and the hidden layer between; ``state`` and ``scale`` are for that."""

    def __init__(self, function: Any, scaled: bool = False) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.first, self.head = nn.Linear(20, 30), nn.Linear(30, 4)
        self.scale = nn.Linear(20, 30) if scaled else None
        self.function, self.state, self.x = function, None, None

    def forward(self, x: Any) -> Any:
        self.x = x.detach()
        return self.head(self.function(self, self.first(x)))


def swish(x: Any) -> Any:
    return x * x.sigmoid()


def product_rule(dy: Any, x: Any) -> Any:
    """The derivative of ``swish``."""
    return dy * (x.sigmoid() + x * x.sigmoid() * (1 - x.sigmoid()))


def goes_on(net: Any, h: Any) -> Any:
    """A state that the next batch is given."""
    net.state = (h if net.state is None else h + net.state).tanh().detach()
    return net.state + h


def shaken(net: Any, h: Any) -> Any:
    """Noise of one size."""
    return F.relu(h + 0.3 * kobai.randn_like(h))


def sampled(net: Any, h: Any) -> Any:
    """Noise of a size that is learnt, as in a variational autoencoder."""
    return F.relu(h) + net.scale(net.x).exp() * kobai.randn_like(h)


def body_in_evaluation(averaged: bool) -> View:
    """Norms in evaluation mode, whose averages are those of their inputs or not."""
    kobai.manual_seed(0)
    parts = [part for _ in range(3) for part in (nn.Linear(20, 20), nn.BatchNorm1d(20, momentum=None), nn.ReLU())]
    model = nn.Sequential(nn.Sequential(*parts), nn.Linear(20, 4))
    if averaged:
        model(X)
    model[0].eval()
    return seen(model, optimizer=sgd(0.1))


EXAMPLES = {
    "backward.wrong_backward": Example(
        lambda: seen(applied(swish, lambda dy, x: dy * x.sigmoid())), lambda: seen(applied(swish, product_rule))
    ),
    "modes.left_in_evaluation": Example(lambda: body_in_evaluation(False), lambda: body_in_evaluation(True)),
    "modes.kept": Example(lambda: seen(Between(goes_on)), lambda: seen(Between(lambda net, h: h.tanh()))),
    "modes.noisy": Example(lambda: seen(Between(shaken)), lambda: seen(Between(sampled, scaled=True))),
}
