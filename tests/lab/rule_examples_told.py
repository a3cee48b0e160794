"""Examples for the rules of forward passes, of kinds, of what a net can say, and of what steers a loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from rule_examples import Example, layers, seen, sgd
from small_nets import net

import kobai
from kobai import nn
from kobai.lab.doctor.rules.view import View
from kobai.nn import functional as F
from kobai.train import mlp


def drawn() -> Any:
    """The same numbers for each example, in whatever order they are made."""
    return np.random.default_rng(3)


def tensor(array: Any) -> Any:
    return kobai.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def regressed(x: Any, t: Any, model: Any = None, loss_fn: Any = F.mse_loss, **options: Any) -> View:
    kobai.manual_seed(0)
    x, t = tensor(x), tensor(t).reshape(len(x), -1)
    return seen(mlp(x.shape[1], [16], t.shape[1]) if model is None else model, (x, t), loss_fn, **options)


class Rewritten(nn.Module):
    """A net that draws its first layer anew in each call, or keeps its rows on the unit sphere."""

    def __init__(self, anew: bool) -> None:
        super().__init__()
        self.net, self.anew = net(depth=2), anew

    def forward(self, x: Any) -> Any:
        with kobai.no_grad():
            weight = self.net[1].weight
            weight.copy_(kobai.rand(*weight.shape) - 0.5 if self.anew else F.normalize(weight, dim=1))
        return self.net(x)


class Gains(nn.Module):
    """A matrix of which the diagonal is taken by a product with the identity, or the whole one."""

    def __init__(self, diagonal: bool) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.matrix, self.net, self.diagonal = nn.Parameter(kobai.randn(20, 20) / 4), net(depth=2), diagonal

    def forward(self, x: Any) -> Any:
        return self.net(x @ (self.matrix * kobai.eye(20) if self.diagonal else self.matrix))


def of_days(in_order: bool) -> View:
    """A table with the number of one of twelve towns; the target hangs on the town, or on its number."""
    rng = drawn()
    town, rest = rng.integers(0, 12, 600), rng.normal(size=(600, 2))
    effect = (
        np.arange(12) / 4.0
        if in_order
        else rng.permutation([-2.0, -1.5, -1.0, -0.5, 0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8])
    )
    x = np.concatenate([town[:, None] / 3.5, rest], 1)
    return regressed(x, effect[town] + 0.3 * rest[:, 0] + 0.2 * rng.normal(size=600))


def of_species(ordered: bool) -> View:
    """Eight clusters fitted by their numbers; these follow where the clusters lie, or do not."""
    rng = drawn()
    kind = rng.integers(0, 8, 500)
    centres = np.random.default_rng(4).normal(size=(8, 6)) * 2
    if ordered:
        centres = np.arange(8)[:, None] * np.ones((8, 6)) / 1.5
    return regressed(centres[kind] + 0.5 * rng.normal(size=(500, 6)), kind)


def of_three(alike: bool) -> View:
    """Three classes of points, two of which are drawn around one centre, or each around its own."""
    rng = drawn()
    kind = rng.integers(0, 3, 420)
    centres = np.array([[3.0, 0.0, 0.0], [-2.0, 0.0, 2.0 * (not alike)], [-2.0, 0.0, 0.0]])
    return seen(layers(3, 24, 3), (tensor(centres[kind] + 0.5 * rng.normal(size=(420, 3))), kobai.from_numpy(kind)))


class Chooses(nn.Module):
    """Six experts, mixed by shares that scores of this size give."""

    def __init__(self, size: float) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.gate, self.experts, self.size = nn.Linear(20, 6), nn.Linear(20, 24), size

    def forward(self, x: Any) -> Any:
        shares = F.softmax(self.size * self.gate(x), dim=1)
        return (shares.unsqueeze(2) * self.experts(x).reshape(-1, 6, 4)).sum(1)


def paired(label: int) -> View:
    """Two noisy views of a sample in one row: which of nine candidates, the last of which is its partner, is the other?"""
    rng = drawn()
    a = rng.normal(size=(48, 10))

    class Encoded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kobai.manual_seed(0)
            self.body = nn.Linear(10, 16)

        def forward(self, x: Any) -> Any:
            one, two = (F.normalize(self.body(part), dim=1) for part in (x[:, :10], x[:, 10:]))
            return kobai.stack([(one * two.roll(8 - i, 0)).sum(1) for i in range(9)], 1) * 5

    x = np.concatenate([a + 0.2 * rng.normal(size=a.shape), a + 0.2 * rng.normal(size=a.shape)], 1)
    return seen(Encoded(), (tensor(x), kobai.full((48,), label).long()))


class Cleared(kobai.optim.Adam):
    """What is left of it when a new one is made for every batch."""

    def step(self, closure: Any = None) -> Any:
        for state in self.state.values():
            state.clear()
        self.state.clear()
        return super().step(closure)


class Folded(nn.Module):
    """Words of which the upper bits alone are looked up."""

    def __init__(self, by: int) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.words, self.head, self.by = nn.Embedding(40, 12), mlp(12, [16], 4), by

    def forward(self, x: Any) -> Any:
        return self.head(self.words(x // self.by).mean(1))


def folded(by: int) -> View:
    rng = drawn()
    words = kobai.from_numpy(rng.integers(0, 40, (64, 5)))
    return seen(Folded(by), (words, words[:, 0] % 4))


class Rated(nn.Module):
    """Vectors of two ids, of which number 0 is padding."""

    def __init__(self) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.words, self.head = nn.Embedding(9, 12, padding_idx=0), mlp(12, [16], 4)

    def forward(self, x: Any) -> Any:
        return self.head(self.words(x).sum(1))


def rated(padded: bool) -> View:
    rng = drawn()
    words = rng.integers(1, 9, (64, 7))
    if padded:
        words[np.arange(7) >= rng.integers(2, 7, (64, 1))] = 0
    else:
        words[rng.random(words.shape) < 0.3] = 0
    return seen(Rated(), (kobai.from_numpy(words), kobai.arange(64) % 4))


def offset(by: float) -> View:
    rng = drawn()
    x = rng.normal(size=(200, 5))
    return regressed(x, x[:, :1] + by + 0.1 * rng.normal(size=(200, 1)), nn.Sequential(nn.Linear(5, 1, bias=False)))


def halves(crossed: bool) -> View:
    """A linear net for an exclusive or, or for one half space."""
    rng = drawn()
    x = rng.uniform(-1, 1, (400, 3))
    t = (x[:, 0] > 0) ^ (x[:, 1] > 0) if crossed else x[:, 0] > 0
    return seen(nn.Sequential(nn.Linear(3, 2)), (tensor(x), kobai.from_numpy(t.astype(np.int64))))


def smoothed(beside: bool) -> View:
    """Signals of 24 steps through kernels of 1; the target is the mean of three steps, or a function of each."""
    rng = drawn()
    x = rng.normal(size=(80, 1, 24))
    t = (np.roll(x, 1, 2) + x + np.roll(x, -1, 2)) / 3 if beside else x**2
    model = nn.Sequential(nn.Conv1d(1, 8, 1), nn.ReLU(), nn.Conv1d(8, 1, 1))
    return seen(model, (tensor(x), tensor(t)), F.mse_loss)


def relative(least: float) -> View:
    """A relative squared error, of targets some of which are next to nothing."""
    rng = drawn()
    x = rng.normal(size=(64, 4))
    t = np.where(np.arange(64) % 10 == 0, least, 1 + rng.random(64))[:, None]
    return regressed(x, t, loss_fn=lambda y, t: ((y - t) ** 2 / t**2).mean())


def weighed(cost: bool) -> View:
    """A value and a precision that multiplies the error; it may earn its logarithm."""
    rng = drawn()
    x = rng.normal(size=(64, 4))

    def loss_fn(y: Any, t: Any) -> Any:
        error = (y[:, :1] - t).abs() * y[:, 1:].exp()
        return (error - y[:, 1:] if cost else error).mean()

    return regressed(x, x[:, :1] + 1, mlp(4, [16], 2), loss_fn)


def of_hours(wrapped: bool) -> View:
    """The hour of a shadow's direction; or a number along a line."""
    rng = drawn()
    hour = rng.uniform(0, 24, 400)
    turn = 2 * np.pi * hour / (24 if wrapped else 40)
    x = np.stack([np.cos(turn), np.sin(turn)], 1) + 0.05 * rng.normal(size=(400, 2))
    return regressed(x, hour / 12 - 1)


def returns(size: float) -> View:
    rng = drawn()
    x = rng.normal(size=(100, 6))
    return regressed(x, size * (x[:, :1] * x[:, 1:2]))


class Remembers(nn.Module):
    """A leaky state: what it keeps of each step is a number."""

    def __init__(self, kept: float) -> None:
        super().__init__()
        kobai.manual_seed(0)
        self.enter, self.head, self.kept = nn.Linear(2, 16), nn.Linear(16, 1), kept

    def forward(self, x: Any) -> Any:
        h = kobai.zeros(len(x), 16)
        for step in x.unbind(1):
            h = self.kept * h + self.enter(step).tanh()
        return self.head(h)


def recalled(kept: float) -> View:
    rng = drawn()
    x = rng.normal(size=(300, 8, 2))
    return seen(Remembers(kept), (tensor(x), tensor(x[:, 0, :1] + x[:, 1, 1:])), F.mse_loss)


class Averages(nn.Module):
    """The mean of three layers behind a body: one layer, listed three times, or three."""

    def __init__(self, repeated: bool) -> None:
        super().__init__()
        kobai.manual_seed(0)
        heads = [nn.Linear(24, 4) for _ in range(3)]
        self.body, self.heads = nn.Linear(20, 24), nn.ModuleList([heads[0]] * 3 if repeated else heads)

    def forward(self, x: Any) -> Any:
        h = F.relu(self.body(x))
        return kobai.stack([head(h) for head in self.heads]).mean(0)


EXAMPLES = {
    "forward.written_in_forward": Example(lambda: seen(Rewritten(True)), lambda: seen(Rewritten(False))),
    "forward.diagonal_alone": Example(
        lambda: seen(Gains(True), optimizer=sgd(0.1)), lambda: seen(Gains(False), optimizer=sgd(0.1))
    ),
    "forward.one_module_for_several": Example(lambda: seen(Averages(True)), lambda: seen(Averages(False))),
    "kinds.kinds_as_number": Example(lambda: of_days(False), lambda: of_days(True)),
    "kinds.labels_as_numbers": Example(lambda: of_species(False), lambda: of_species(True)),
    "settings.forgets": Example(
        lambda: seen(optimizer=lambda p: Cleared(p, lr=1e-3)),
        lambda: seen(optimizer=lambda p: kobai.optim.Adam(p, lr=1e-3)),
    ),
    "choices.hard_choice": Example(lambda: seen(Chooses(60.0)), lambda: seen(Chooses(2.0))),
    "kinds.another_label": Example(lambda: paired(1), lambda: paired(8)),
    "kinds.classes_alike": Example(lambda: of_three(True), lambda: of_three(False)),
    "kinds.words_alike": Example(lambda: folded(10), lambda: folded(2)),
    "kinds.padding_is_a_word": Example(lambda: rated(False), lambda: rated(True)),
    "sayable.no_offset": Example(lambda: offset(3.0), lambda: offset(0.01)),
    "sayable.only_a_plane": Example(lambda: halves(True), lambda: halves(False)),
    "sayable.one_place": Example(lambda: smoothed(True), lambda: smoothed(False)),
    "steering.few_steer": Example(lambda: relative(1e-4), lambda: relative(0.1)),
    "steering.free_scale": Example(lambda: weighed(False), lambda: weighed(True)),
    "steering.target_jumps": Example(lambda: of_hours(True), lambda: of_hours(False)),
    "steering.target_tiny": Example(lambda: returns(1e-4), lambda: returns(0.5)),
    "recurrence.fades_in_time": Example(lambda: recalled(0.02), lambda: recalled(0.8)),
}
