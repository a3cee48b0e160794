"""Examples for the rules of modes, of hand-written gradients, of states, of scales and of a training's course."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rule_examples import Example, X, epochs, seen, sgd
from small_nets import batch

import kobai
from kobai import nn
from kobai.lab.doctor.plan import Plan
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


class Unrolled(nn.Module):
    """A cell of a dense layer over ten steps of two numbers, whose state may be cut off before each."""

    def __init__(self, cut: bool) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.cell, self.head, self.cut = nn.Linear(18, 16), nn.Linear(16, 4), cut

    def forward(self, x: Any) -> Any:
        h = kobai.zeros(len(x), 16)
        for step in x.reshape(len(x), 10, 2).unbind(1):
            h = self.cell(kobai.cat([step, h.detach() if self.cut else h], 1)).tanh()
        return self.head(h)


def warming_up(steps: int) -> View:
    """After the first epoch of 20 steps in all, of a schedule that rises for so many."""
    optimizer = kobai.optim.SGD(Unrolled(False).parameters(), lr=0.1)
    scheduler = kobai.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.001, total_iters=steps)
    return replace(seen(history=epochs([1.0])), plan=Plan(scheduler, 20))


class Tied(nn.Module):
    """A layer between an embedding of 40 words and the same table as the last layer."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.words, self.between = nn.Embedding(40, 64), nn.Linear(64, 64)
        nn.init.normal_(self.words.weight, std=deviation)

    def forward(self, x: Any) -> Any:
        return F.linear(3 * self.between(self.words(x)), self.words.weight)


def tied(deviation: float) -> View:
    words = kobai.arange(64 * 6).reshape(64, 6) % 40
    return seen(
        Tied(deviation), (words, (7 * words + 3) % 40), lambda y, t: F.cross_entropy(y.reshape(-1, 40), t.reshape(-1))
    )


class Coder(nn.Module):
    """A variational autoencoder of 20 numbers: (answer, means, log-variances)."""

    def __init__(self) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.encode, self.decode = (
            nn.Sequential(nn.Linear(20, 40), nn.ReLU()),
            nn.Sequential(nn.Linear(6, 40), nn.ReLU()),
        )
        self.mean, self.spread, self.answer = nn.Linear(40, 6), nn.Linear(40, 6), nn.Linear(40, 20)

    def forward(self, x: Any) -> Any:
        h = self.encode(x)
        mean, spread = self.mean(h), self.spread(h)
        return self.answer(self.decode(mean + (0.5 * spread).exp() * kobai.randn_like(mean))), mean, spread


def coded(weight: float) -> View:
    """The mean squared error counts ``weight`` times."""
    kobai.manual_seed(0)
    x = kobai.randn(256, 4) @ kobai.randn(4, 20) / 2

    def loss_fn(y: Any, t: Any) -> Any:
        answer, mean, spread = y
        return weight * F.mse_loss(answer, t) + 0.5 * (mean**2 + spread.exp() - spread - 1).sum(1).mean()

    return seen(Coder(), (x, x), loss_fn, lambda parameters: kobai.optim.Adam(parameters, lr=3e-3), trials=True)


def adam(**options: Any) -> Any:
    return lambda parameters: kobai.optim.Adam(parameters, lr=1e-2, **options)


def squeezed(epsilon: float) -> View:
    """A net with batch norms of this epsilon."""
    kobai.manual_seed(0)
    parts = [part for n in (20, 40, 40) for part in (nn.Linear(n, 40), nn.BatchNorm1d(40, epsilon), nn.ReLU())]
    model = nn.Sequential(*parts, nn.Linear(40, 4))
    return seen(model, batch(512), optimizer=sgd(0.02), trials=True)


EXAMPLES = {
    "norms.norm_hides": Example(lambda: squeezed(40.0), lambda: squeezed(1e-3)),
    "settings.setting": Example(
        lambda: seen(data=batch(256), optimizer=adam(eps=1e6), trials=True),
        lambda: seen(data=batch(256), optimizer=adam(betas=(0.5, 0.9), eps=1e-4), trials=True),
    ),
    "backward.wrong_backward": Example(
        lambda: seen(applied(swish, lambda dy, x: dy * x.sigmoid())), lambda: seen(applied(swish, product_rule))
    ),
    "modes.left_in_evaluation": Example(lambda: body_in_evaluation(False), lambda: body_in_evaluation(True)),
    "modes.kept": Example(lambda: seen(Between(goes_on)), lambda: seen(Between(lambda net, h: h.tanh()))),
    "recurrence.cut_in_time": Example(lambda: seen(Unrolled(True)), lambda: seen(Unrolled(False))),
    "schedules.too_long": Example(lambda: warming_up(1000), lambda: warming_up(10)),
    "schedules.steps_late": Example(
        lambda: seen(history=epochs([2.0, 1.0, 0.99, 0.985, 0.98, 0.98, 0.5], rates=[0.1] * 6 + [0.01])),
        lambda: seen(history=epochs([2.0, 1.0, 0.9, 0.8, 0.7, 0.65, 0.4], rates=[0.1] * 6 + [0.01])),
    ),
    "scales.overconfident": Example(lambda: tied(1.0), lambda: tied(0.1)),
    "scales.drowned": Example(lambda: coded(1.0), lambda: coded(20.0)),
    "modes.noisy": Example(lambda: seen(Between(shaken)), lambda: seen(Between(sampled, scaled=True))),
}
