"""For each rule of the doctor a net in which it finds its disease, and one in which it does not, though it comes near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from small_nets import Called, batch, net

import kobai
from kobai import nn
from kobai.lab.doctor.diagnosis import observe
from kobai.lab.doctor.findings import Case
from kobai.lab.doctor.rules.view import View
from kobai.lab.doctor.trials import Trials, undisturbed
from kobai.nn import functional as F


def seen(
    model: Any = None,
    data: Any = None,
    loss_fn: Any = F.cross_entropy,
    optimizer: Any = None,
    clip: Any = None,
    trials: bool = False,
    validation: Any = (),
    history: Any = None,
    first: Any = None,
) -> View:
    """What ``diagnose`` sees of a net, by default a healthy one; ``optimizer``: a function of the parameters."""
    model = net(depth=2) if model is None else model
    optimizer = None if optimizer is None else optimizer(model.parameters())
    with undisturbed():
        case = Case(model, batch() if data is None else data, loss_fn, optimizer, clip, steps=5, validation=validation)
        view = observe(case, Trials(case) if trials else None)
    return view if history is None and first is None else replace(view, history=history or (), first=first)


def epochs(training: list[float], held: list[float] | None = None, rates: list[float] | None = None) -> list[Any]:
    """Records of epochs, as a Trainer keeps them."""
    rates = rates or [0.1] * len(training)
    return [
        {"epoch": i + 1, "loss": loss, "lr": rates[i]} | ({"val_loss": held[i]} if held else {})
        for i, loss in enumerate(training)
    ]


@dataclass
class Example:
    ill: Callable[[], View]
    well: Callable[[], View] = seen


def sgd(lr: float, **options: Any) -> Callable[[Any], Any]:
    return lambda parameters: kobai.optim.SGD(parameters, lr=lr, **options)


def ended(share: float) -> Callable[[Any], Any]:
    """Gradient descent at a share of the rate that a schedule began with."""

    def made(parameters: Any) -> Any:
        optimizer = kobai.optim.SGD(parameters, lr=0.1)
        optimizer.param_groups[0] |= {"initial_lr": 0.1, "lr": 0.1 * share}
        return optimizer

    return made


def summed(y: Any, t: Any) -> Any:
    return F.cross_entropy(y, t, reduction="sum")


def squared(y: Any, t: Any) -> Any:
    return ((y - t) ** 2).mean()


def frames(ill: bool) -> tuple[Any, Any, Any]:
    """A convolution that gives five scores for each of 12 places, made rows as they are, or with the classes last."""
    model = nn.Sequential(nn.Conv1d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 5, 3, padding=1))
    x = kobai.randn(16, 3, 12)

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy((y if ill else y.movedim(1, -1)).reshape(-1, 5), t.reshape(-1))

    return model, (x, kobai.arange(16 * 12).reshape(16, 12) % 5), loss_fn


def of_words(y: Any, t: Any) -> Any:
    return F.cross_entropy(y.transpose(1, 2), t)


def spoilt(x: Any) -> Any:
    x[3, 2] = float("nan")
    return x


def flat_head() -> nn.Module:
    """A last layer that begins at 0, as in many residual nets: only its own gradient is not 0 then."""
    model = net(depth=2)
    nn.init.zeros_(model[-1].weight)
    return model


class Normed(nn.Module):
    """Statistics of the batch, by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(20, 30), nn.Linear(30, 4)

    def forward(self, x: Any) -> Any:
        return self.head(F.relu(F.batch_norm(self.inner(x), None, None, training=True)))


def slow_averages(momentum: float) -> nn.Module:
    """A net whose running averages have far to go."""
    model = nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30, momentum=momentum), nn.ReLU(), nn.Linear(30, 4))
    nn.init.constant_(model[0].bias, 4.0)
    return model


class Held(nn.Module):
    """Two layers with a ReLU between; ``kind`` makes a container of them, ``cut`` detaches what is between."""

    def __init__(self, kind: Any = nn.ModuleList, cut: bool = False) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.layers, self.head, self.cut = kind([nn.Linear(20, 30), nn.Linear(30, 30)]), nn.Linear(30, 4), cut

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x.detach() if self.cut else x)


def layers(*sizes: int, between: Any = nn.ReLU) -> nn.Module:
    kobai.manual_seed(0)
    parts = [part for n_in, n_out in pairwise(sizes) for part in (nn.Linear(n_in, n_out), between())]
    return nn.Sequential(*parts[:-1])


class Turned(nn.Module):
    """A net in which axes are moved by a reshape, or as they should be; and a recurrent one over the wrong axis."""

    def __init__(self, wrong: bool, recurrent: bool = False) -> None:
        super().__init__()
        self.net, self.rnn, self.wrong = net(depth=2), nn.GRU(5, 20, batch_first=not wrong), wrong
        self.recurrent = recurrent

    def forward(self, x: Any) -> Any:
        if self.recurrent:
            return self.net(self.rnn(x.reshape(len(x), 4, 5))[0][:, -1])
        return self.net(x.t().reshape(x.shape) if self.wrong else x)


class Bag(nn.Module):
    """The mean of the words' vectors, through a small net."""

    def __init__(self) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.embed, self.head = nn.Embedding(10, 16), layers(16, 30, 4)

    def forward(self, x: Any) -> Any:
        return self.head(self.embed(x).mean(1))


class NextWord(nn.Module):
    """Scores of the next word, by a recurrent net that reads the words before, or those behind as well."""

    def __init__(self, both_ways: bool = False) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.embed, self.rnn = nn.Embedding(10, 16), nn.GRU(16, 20, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(40 if both_ways else 20, 10)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(self.embed(x))[0])


class Sliced(nn.Module):
    """The first features only."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Any) -> Any:
        return x[:, : self.size]


class Blind(nn.Module):
    """A net that is shown next to nothing of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net(depth=2)

    def forward(self, x: Any) -> Any:
        return self.net(1 + 1e-4 * x)


def dead_embedding(zeros: bool) -> View:
    kobai.manual_seed(0)
    model = nn.Sequential(nn.Embedding(4, 30), nn.ReLU(), nn.Linear(30, 4))
    if zeros:
        nn.init.zeros_(model[0].weight)
    return seen(model, (T, T), optimizer=sgd(0.1))


def frozen(learnt: bool) -> View:
    """A layer that is frozen, and that the optimiser holds; before it was, the net has learnt another task with it, or not."""
    model = Held()
    rule = kobai.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200 * learnt):
        rule.zero_grad()
        F.cross_entropy(model(X), 3 - T).backward()
        rule.step()
    model.layers.requires_grad_(False)
    return seen(model, optimizer=sgd(0.1), trials=True)


X, T = batch()
FRESH = (kobai.randn(64, 20), kobai.randint(4, (64,)))
MANY = batch(600)
STEPS = kobai.randn(128, 6).argsort(1)
PLACES = STEPS.argsort(1)
WORDS = kobai.randint(10, (128, 6))
SUMS = ((WORDS > 4).sum(1) > 3).long()
TEXT = kobai.randint(10, (64, 13))
LEFT_OUT = T.clone()
LEFT_OUT[::2] = -100

EXAMPLES = {
    "data.wrong_labels": Example(lambda: seen(data=(X, T + 1)), lambda: seen(data=(X, LEFT_OUT))),
    "losses.refused": Example(
        lambda: seen(loss_fn=lambda y, t: F.binary_cross_entropy(y, F.one_hot(t, 4).float())),
        lambda: seen(
            nn.Sequential(net(), nn.Sigmoid()), loss_fn=lambda y, t: F.binary_cross_entropy(y, F.one_hot(t, 4).float())
        ),
    ),
    "losses.mixed_targets": Example(
        lambda: seen(nn.Sequential(net(), nn.Linear(4, 1)), (X, X[:, 2]), squared),
        lambda: seen(nn.Sequential(net(), nn.Linear(4, 1)), (X, X[:, 2]), lambda y, t: squared(y[:, 0], t)),
    ),
    "reads.read_otherwise": Example(lambda: seen(*frames(True)), lambda: seen(*frames(False))),
    "losses.constant_loss": Example(
        lambda: seen(nn.Sequential(net(), nn.Linear(4, 1)), (X, (X[:, :1] > 0).float())),
        lambda: seen(nn.Sequential(net(), nn.Linear(4, 1)), (X, X[:, :1]), F.mse_loss),
    ),
    "losses.no_least_loss": Example(
        lambda: seen(nn.Sequential(net(), nn.Softmax(dim=1)), loss_fn=F.nll_loss),
        lambda: seen(nn.Sequential(net(), nn.LogSoftmax(dim=1)), loss_fn=F.nll_loss),
    ),
    "numbers.non_finite": Example(lambda: seen(data=(spoilt(X.clone()), T)), lambda: seen(data=(1e6 * X, T))),
    "data.constant_inputs": Example(lambda: seen(data=(kobai.ones_like(X), T)), lambda: seen(data=(1 + 1e-3 * X, T))),
    "data.alike_targets": Example(
        lambda: seen(data=(X, kobai.zeros_like(T))), lambda: seen(data=(X[:8], kobai.zeros_like(T[:8])))
    ),
    "data.unshuffled": Example(
        lambda: seen(data=(X, kobai.arange(64) // 22)), lambda: seen(data=(X, kobai.arange(64) // 16))
    ),
    "outputs.bounded_scores": Example(
        lambda: seen(nn.Sequential(net(depth=2), nn.Softmax(dim=1))),
        lambda: seen(nn.Sequential(net(depth=2), nn.Softmax(dim=1)), loss_fn=lambda y, t: F.nll_loss(y.log(), t)),
    ),
    "data.rare_class": Example(lambda: seen(data=(X, 1 - (T == 3).long() * (X[:, 2] > 1.2).long()))),
    "validation.prepared_otherwise": Example(
        lambda: seen(validation=[(5 - 2 * FRESH[0], FRESH[1])]), lambda: seen(validation=[FRESH])
    ),
    "validation.labelled_otherwise": Example(
        lambda: seen(data=(MANY[0][:400], MANY[1][:400]), validation=[(MANY[0][400:], (MANY[1][400:] + 1) % 4)]),
        lambda: seen(data=(MANY[0][:400], MANY[1][:400]), validation=[(MANY[0][400:], MANY[1][400:])]),
    ),
    "validation.seen_in_training": Example(
        lambda: seen(validation=[(kobai.cat([X[:10], FRESH[0]]), kobai.cat([T[:10], FRESH[1]]))]),
        lambda: seen(validation=[FRESH]),
    ),
    "neighbours.unrelated": Example(
        lambda: seen(data=(MANY[0], kobai.randint(4, (600,))), optimizer=sgd(0.3), trials=True),
        lambda: seen(data=MANY, optimizer=sgd(0.3), trials=True),
    ),
    "epochs.overfitting": Example(
        lambda: seen(history=epochs([1.0, 0.5, 0.3, 0.2, 0.1, 0.05], [1.0, 0.6, 0.5, 0.6, 0.7, 0.8])),
        lambda: seen(history=epochs([1.0, 0.5, 0.3, 0.2, 0.19, 0.18], [1.0, 0.6, 0.5, 0.52, 0.49, 0.51])),
    ),
    "epochs.falls_back": Example(
        lambda: seen(history=epochs([2.0, 0.5, 0.3, 1.9], rates=[0.1, 0.1, 0.1, 3.0])),
        lambda: seen(history=epochs([2.0, 0.5, 0.3, 0.5])),
    ),
    "epochs.schedule_ended": Example(
        lambda: seen(history=epochs([2.0, 1.9, 1.89, 1.89, 1.89], rates=[0.1, 0.01, 1e-3, 1e-4, 1e-5])),
        lambda: seen(history=epochs([2.0, 1.5, 1.1, 0.9, 0.9, 0.9], rates=[0.1, 0.08, 0.06, 0.04, 0.02, 1e-3])),
    ),
    "epochs.spoilt_by_steps": Example(
        lambda: seen(Called(F.relu, -10.0), optimizer=sgd(0.1), first=seen(Called(F.relu)).reading),
        lambda: seen(Called(F.relu), optimizer=sgd(0.1), first=seen(Called(F.relu)).reading),
    ),
    "epochs.validation_worse": Example(
        lambda: seen(history=epochs([0.5, 0.1], [3.0, 3.5]), validation=[FRESH]),
        lambda: seen(history=epochs([0.5, 0.1], [1.2, 3.5]), validation=[FRESH]),
    ),
    "epochs.validation_easier": Example(
        lambda: seen(history=epochs([1.5, 1.4], [0.6, 0.5]), validation=[FRESH, FRESH]),
        lambda: seen(history=epochs([1.5, 1.4], [1.2, 1.0]), validation=[FRESH, FRESH]),
    ),
    "batches.small_batches": Example(lambda: seen(Normed(), (X[:3], T[:3])), lambda: seen(Normed())),
    "batches.lost": Example(
        lambda: seen(nn.Sequential(nn.Linear(20, 1), nn.LayerNorm(1), nn.Linear(1, 4))), lambda: seen(flat_head())
    ),
    "batches.modes_apart": Example(
        lambda: seen(slow_averages(1e-4), optimizer=sgd(0.1), trials=True),
        lambda: seen(slow_averages(0.1), optimizer=sgd(0.1), trials=True),
    ),
    "optimisers.uphill": Example(
        lambda: seen(optimizer=sgd(0.1, maximize=True)),
        lambda: seen(data=(X, T), loss_fn=lambda y, t: -F.cross_entropy(y, t), optimizer=sgd(0.1, maximize=True)),
    ),
    "optimisers.schedule_left": Example(
        lambda: seen(optimizer=ended(1e-5), trials=True), lambda: seen(optimizer=ended(0.1), trials=True)
    ),
    "optimisers.decay": Example(
        lambda: seen(optimizer=sgd(0.1, weight_decay=1.0), trials=True),
        lambda: seen(optimizer=sgd(0.1, weight_decay=1e-3), trials=True),
    ),
    "optimisers.momentum": Example(
        lambda: seen(optimizer=sgd(0.5, momentum=0.999), trials=True),
        lambda: seen(optimizer=sgd(0.001, momentum=0.99), trials=True),
    ),
    "units.no_gradient": Example(lambda: seen(net(depth=2).requires_grad_(False)), lambda: seen(flat_head())),
    "trained.not_registered": Example(lambda: seen(Held(list), optimizer=sgd(0.1)), lambda: seen(Held())),
    "trained.not_held": Example(
        lambda: seen(net(), optimizer=lambda parameters: kobai.optim.SGD(list(parameters)[2:], lr=0.1)),
        lambda: seen(net(), optimizer=lambda p: kobai.optim.SGD([*p, kobai.ones(1, requires_grad=True)], lr=0.1)),
    ),
    "trained.cut_off": Example(lambda: seen(Held(cut=True)), lambda: seen(Held())),
    "trained.frozen": Example(lambda: frozen(False), lambda: frozen(True)),
    "trained.standing": Example(lambda: dead_embedding(True), lambda: dead_embedding(False)),
    "units.symmetric": Example(lambda: seen(net("constant(0.1)", "tanh")), lambda: seen(flat_head())),
    "data.input_scale": Example(
        lambda: seen(data=(1000 * X, T)), lambda: seen(nn.Sequential(nn.BatchNorm1d(20), net()), (1000 * X, T))
    ),
    "data.target_scale": Example(
        lambda: seen(data=(X, 100 * F.one_hot(T, 4).float()), loss_fn=F.mse_loss),
        lambda: seen(data=(X, 9 * F.one_hot(T, 4).float()), loss_fn=F.mse_loss),
    ),
    "activations.saturated": Example(
        lambda: seen(net("normal(0.6)", "tanh", depth=2)), lambda: seen(net("lecun", "tanh"))
    ),
    "activations.exploding": Example(lambda: seen(net("normal(1)"))),
    "activations.collapsed": Example(
        lambda: seen(net("normal(0.01)")), lambda: seen(net("normal(0.01)", batch_norm=True))
    ),
    "activations.dying": Example(lambda: seen(Called(F.relu, -10.0)), lambda: seen(Called(F.leaky_relu, -10.0))),
    "gradients.vanishing": Example(
        lambda: seen(net("xavier", "sigmoid", depth=8)), lambda: seen(net("xavier", "tanh", depth=8))
    ),
    "gradients.exploding": Example(
        lambda: seen(net(), batch(256), summed, sgd(0.1)), lambda: seen(net(), batch(256), summed, sgd(0.1), clip=1.0)
    ),
    "independence.mixed_samples": Example(lambda: seen(Turned(True)), lambda: seen(Turned(False, True))),
    "answers.answer_in_input": Example(
        lambda: seen(NextWord(both_ways=True), (TEXT[:, :-1], TEXT[:, 1:]), of_words),
        lambda: seen(NextWord(), (TEXT[:, :-1], TEXT[:, 1:]), of_words),
    ),
    "counted.class_left_out": Example(
        lambda: seen(loss_fn=lambda y, t: F.cross_entropy(y, t, ignore_index=2)), lambda: seen(data=(X, LEFT_OUT))
    ),
    "order.order_unseen": Example(
        lambda: seen(Bag(), (STEPS, (PLACES[:, 0] < PLACES[:, 1]).long())), lambda: seen(Bag(), (WORDS, SUMS))
    ),
    "unused.unused": Example(
        lambda: seen(nn.Sequential(Sliced(8), nn.Linear(8, 4))),
        lambda: seen(nn.Sequential(Sliced(16), nn.Linear(16, 4))),
    ),
    "capacity.no_activation": Example(
        lambda: seen(layers(20, 30, 30, 4, between=nn.Identity)),
        lambda: seen(layers(20, 30, 30, 4, between=lambda: nn.LeakyReLU(0.9))),
    ),
    "capacity.bottleneck": Example(
        lambda: seen(layers(20, 30, 1, 30, 4)),
        lambda: seen(layers(20, 30, 1, 30, 20), (X, X), F.mse_loss),
    ),
    "capacity.dropout": Example(
        lambda: seen(layers(20, 100, 4, between=lambda: nn.Dropout(0.9))),
        lambda: seen(layers(20, 100, 4, between=lambda: nn.Sequential(nn.ReLU(), nn.Dropout(0.5)))),
    ),
    "capacity.cannot_fit": Example(
        lambda: seen(Blind(), optimizer=sgd(0.1), trials=True),
        lambda: seen(data=(X, T[kobai.randperm(64)]), optimizer=sgd(1e-4), trials=True),
    ),
    "updates.too_large": Example(lambda: seen(optimizer=sgd(3.0)), lambda: seen(optimizer=sgd(0.5))),
    "updates.too_small": Example(lambda: seen(optimizer=sgd(1e-6)), lambda: seen(optimizer=sgd(1e-2))),
    "course.guessing": Example(
        lambda: seen(nn.Sequential(net(), nn.Tanh(), nn.Linear(4, 4, init="zeros")), optimizer=sgd(1e-4), trials=True),
        lambda: seen(optimizer=sgd(0.1), trials=True),
    ),
}
"""By file and name of the rule."""

CURES = {
    "reinitialise": lambda x: ({"1": "he", "3": "he", "5": "lecun"},),
    "rectify": lambda x: (["2", "4"], [], {"1": "he", "3": "he", "5": "lecun"}),
    "remove_activation": lambda x: ("4", "tanh"),
    "replace_end": lambda x: ("4", "nn.Sigmoid()"),
    "append_end": lambda x: ("nn.Softmax(dim=1)",),
    "same_shape": lambda x: (squared, (5,)),
    "one_by_one": lambda x: (squared, True),
    "targets_on_two_sides": lambda x: (squared,),
    "targets_within": lambda x: (squared, -1.0, 1.0),
    "logarithms": lambda x: (squared, False),
    "probabilities": lambda x: (squared,),
    "turned": lambda x: (squared,),
    "shrink": lambda x: ("5.weight", 0.1),
    "set_loss": lambda x: ("l1_loss",),
    "normalise": lambda x: ([("1", "BatchNorm1d", 30), ("3", "LayerNorm", 30)],),
    "scale_rate": lambda x: (0.1, 0.5),
    "descend": lambda x: (),
    "set_option": lambda x: ("weight_decay", 0.5, 0.0),
    "set_rate": lambda x: (1e-3, 0.5),
    "standardise_inputs": lambda x: (x,),
    "clip_gradients": lambda x: (),
    "orthogonal": lambda x: (["6"],),
    "group_norm": lambda x: ([("6", 4)],),
    "average_anew": lambda x: ([x],),
    "train_again": lambda x: (True,),
    "without": lambda x: (["2", "4"],),
    "unfreeze": lambda x: (["1"],),
    "register": lambda x: ([("", "extra", "Parameter")],),
    "hold": lambda x: (),
    "thaw": lambda x: ([("1.weight", False), ("3.bias", True)],),
    "set_group_rate": lambda x: ([0], 1e-3),
    "activate": lambda x: (["1", "3"],),
    "widen": lambda x: ("1", "3", (20, 40, 30)),
    "drop_less": lambda x: (["0.1"], 0.1),
    "set_options": lambda x: ([("0.1", "p", 0.2)],),
    "with_positions": lambda x: ("1", 64, 30),
    "redraw": lambda x: ({"1.weight": "normal(1)"},),
}
"""For each cure its arguments for the net of the tests, of which 1, 3 and 5 are dense layers, 2 and 4 their activations, and
6 is recurrent."""
