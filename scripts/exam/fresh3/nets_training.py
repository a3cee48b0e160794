"""Third fresh: losses and trainings that look unusual and are sound."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

import kobai
from exam.fresh.material import Reader, Twins, sentences, triples
from exam.fresh3.course import Lion, per_word
from exam.fresh3.material import bandit, chosen_log, not_the_best, views
from exam.material import Rows, adam, blobs, cnn, digits, images, mlp, sequences, surface
from exam.question import Situation, healthy
from kobai import nn, optim
from kobai.nn import functional as F


@healthy("https://arxiv.org/abs/1707.06347")
def a_ratio_that_is_clipped(seed: int) -> Situation:
    """A clipped ratio to the policy that acted: samples whose ratio has left 0.5 to 2 get no gradient, and the loss may be
    negative.
    """

    def loss_fn(y: Any, t: Any) -> Any:
        ratio, earned = (chosen_log(y, t) - math.log(1 / 4)).exp(), t[:, 1] - t[:, 1].mean()
        return -kobai.minimum(ratio * earned, ratio.clamp(0.5, 2.0) * earned).mean()

    train, held = bandit(seed, sequences(seed), 4)
    model = Rows("LSTM", 4, 24, 4)
    return Situation(model, adam(model, 5e-3), loss_fn, train, held, steps=200, score=not_the_best)


@healthy("https://arxiv.org/abs/1707.06887")
def a_return_as_a_histogram(seed: int) -> Situation:
    """A distributional critic: the return is spread over two neighbours of 21 fixed values, and they are the soft labels."""
    data = surface(seed)
    sets = []
    for x, t in ((data.x, data.t), (data.fresh_x, data.fresh_t)):
        place = (t.numpy()[:, 0].clip(-3, 3) + 3) / 0.3
        low = np.minimum(np.floor(place), 19).astype(int)
        soft, rows = np.zeros((len(t), 21), np.float32), np.arange(len(t))
        soft[rows, low], soft[rows, low + 1] = 1 - (place - low), place - low
        sets.append((x, kobai.from_numpy(soft)))
    model = mlp(8, 64, 21)
    return Situation(model, adam(model, 5e-3), F.cross_entropy, *sets, steps=250)


@healthy("https://arxiv.org/abs/2006.07733")
def an_encoder_that_is_taught_by_its_average(seed: int) -> Situation:
    """BYOL: a predictor has to say what a slow average of the encoder sees in the other view; the average has no gradient."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online, self.predict = mlp(64, 64, 24), mlp(24, 32, 24)
            self.slow = copy.deepcopy(self.online)
            for parameter in self.slow.parameters():
                parameter.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            with kobai.no_grad():
                if self.training:
                    for p, q in zip(self.online.parameters(), self.slow.parameters(), strict=True):
                        q.mul_(0.95).add_(0.05 * p)
                seen = self.slow(x[:, 1])
            return kobai.stack([self.predict(self.online(x[:, 0])), seen], 1)

    def loss_fn(y: Any, t: Any) -> Any:
        return 2 - 2 * F.cosine_similarity(y[:, 0], y[:, 1], dim=1).mean()

    data, model = views(seed), Net()
    optimizer = optim.Adam([*model.online.parameters(), *model.predict.parameters()], lr=2e-3)
    return Situation(model, optimizer, loss_fn, data.train, data.held, batch=128)


@healthy("https://arxiv.org/abs/1703.05175")
def prototypes_from_half_of_the_batch(seed: int) -> Situation:
    """Each class is the mean of what the net says of its samples in the first half of a batch; the second half is asked."""

    def loss_fn(y: Any, t: Any) -> Any:
        half = len(t) // 2
        known = F.one_hot(t[:half], 10).float()
        centre = known.T @ y[:half] / (known.sum(0)[:, None] + 1e-3)
        far = ((y[half:, None] - centre) ** 2).sum(2)
        return F.cross_entropy(-far, t[half:])

    data, model = digits(seed), mlp(64, 48, 8)
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held, batch=128)


@healthy("https://arxiv.org/abs/1703.07737")
def the_hardest_of_the_batch(seed: int) -> Situation:
    """A triplet loss of the farthest sample of the own class and the nearest of another: few samples get a gradient."""

    def loss_fn(y: Any, t: Any) -> Any:
        far = (((y[:, None] - y) ** 2).sum(2) + 1e-6).sqrt()
        same = (t[:, None] == t).float()
        hardest = (far * same).amax(1) - (far + 1e3 * same).amin(1)
        return F.softplus(hardest).mean()

    data, model = digits(seed), mlp(64, 64, 16)
    held = (data.fresh_x[:128], data.fresh_t[:128])
    return Situation(model, adam(model, 2e-3), loss_fn, data.train, held, batch=128)


@healthy("https://arxiv.org/abs/1709.01686")
def an_exit_behind_every_layer(seed: int) -> Situation:
    """A net of three exits: the loss is the sum of three cross-entropies, and the first exit has to do with one layer."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(64 if i == 0 else 32, 32) for i in range(3)])
            self.exits = nn.ModuleList([nn.Linear(32, 10) for _ in range(3)])

        def forward(self, x: Any) -> Any:
            said = []
            for layer, leave in zip(self.layers, self.exits, strict=True):
                x = F.relu(layer(x))
                said.append(leave(x))
            return said

    def loss_fn(y: Any, t: Any) -> Any:
        return sum(F.cross_entropy(part, t) for part in y)

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held)


@healthy("https://arxiv.org/abs/2106.14448")
def two_passes_that_have_to_agree(seed: int) -> Situation:
    """R-Drop: each batch passes a net with dropout twice, and the two answers are drawn together by their divergence."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Dropout(0.3), nn.Linear(96, 10))

        def forward(self, x: Any) -> Any:
            return kobai.stack([self.body(x), self.body(x)], 1)

    def loss_fn(y: Any, t: Any) -> Any:
        first, second = (F.log_softmax(y[:, i], dim=-1) for i in range(2))
        apart = ((first.exp() - second.exp()) * (first - second)).sum(1).mean()
        return F.nll_loss(first, t) + F.nll_loss(second, t) + apart

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held)


@healthy("https://www.jmlr.org/papers/v11/vincent10a.html")
def noise_on_the_input_alone(seed: int) -> Situation:
    """A denoising autoencoder spoils half of its input, in training alone, and has to say what was there before."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 96, 96, 64)

        def forward(self, x: Any) -> Any:
            return self.body(x * (kobai.rand_like(x) < 0.5).float() if self.training else x)

    data, model = digits(seed), Net()
    train, held = (data.x, data.x), (data.fresh_x, data.fresh_x)
    return Situation(model, adam(model, 3e-3), F.mse_loss, train, held, steps=200)


@healthy("https://arxiv.org/abs/2205.13147")
def vectors_of_which_the_first_numbers_do(seed: int) -> Situation:
    """Nested vectors: the first 4, 8 and 16 numbers of an embedding each have to tell the classes, by one weight matrix."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = mlp(64, 48, 16), nn.Parameter(kobai.randn(10, 16) / 4)

        def forward(self, x: Any) -> Any:
            h = self.body(x)
            return kobai.stack([h[:, :n] @ self.head[:, :n].T for n in (4, 8, 16)], 1)

    def loss_fn(y: Any, t: Any) -> Any:
        return sum(F.cross_entropy(y[:, i], t) for i in range(3)) / 3

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 5e-3), loss_fn, data.train, data.held, steps=200)


@healthy("https://arxiv.org/abs/2302.06675")
def lion_at_a_rate_of_its_own(seed: int) -> Situation:
    """Lion, written as an optimiser of one's own, at 0.001: every weight moves by exactly that much at each step."""
    data, model = sentences(seed), Reader()
    return Situation(model, Lion(model.parameters(), 0.001), per_word, data.train, data.held, batch=32)


class Lookahead(optim.Adam):
    """After every fifth step the weights go half of the way back to where they were five steps ago."""

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        self.count = getattr(self, "count", 0) + 1
        with kobai.no_grad():
            for p in (p for group in self.param_groups for p in group["params"]):
                slow = self.state[p].setdefault("slow", p.detach().clone())
                if self.count % 5 == 0:
                    slow.add_(0.5 * (p - slow))
                    p.copy_(slow)
        return loss


@healthy("https://arxiv.org/abs/1907.08610")
def half_of_the_way_back(seed: int) -> Situation:
    """Lookahead: after every five steps of Adam the weights are put half of the way back, by the optimiser itself."""
    data, model = images(seed), cnn()
    return Situation(model, Lookahead(model.parameters(), lr=5e-3), F.cross_entropy, data.train, data.held, batch=32)


@healthy("https://arxiv.org/abs/1804.04235")
def moments_by_row_and_column(seed: int) -> Situation:
    """Adafactor keeps second moments by row and by column only, at a rate of 0.02, in a recurrent net."""
    data, model = sequences(seed), Rows("GRU", 4, 24, 4)
    return Situation(model, optim.Adafactor(model.parameters(), lr=0.02), F.cross_entropy, data.train, data.held)


@healthy("https://openreview.net/forum?id=ryQu7f-RZ")
def the_greatest_second_moment_so_far(seed: int) -> Situation:
    """AMSGrad: Adam divides by the greatest second moment that there ever was, at 0.005 on four overlapping classes."""
    data, model = blobs(seed), mlp(12, 48, 4)
    return Situation(model, adam(model, 5e-3, amsgrad=True), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1606.01305")
def states_that_are_kept_by_chance(seed: int) -> Situation:
    """Zoneout: in training each unit of a recurrent state keeps its old value with one chance in seven."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.GRUCell(4, 24), nn.Linear(24, 4)

        def forward(self, x: Any) -> Any:
            h = kobai.zeros(len(x), 24)
            for step in x.unbind(1):
                new = self.cell(step, h)
                keep = (kobai.rand_like(h) < 0.15).float() if self.training else 0.15
                h = keep * h + (1 - keep) * new
            return self.head(h)

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=100)


@healthy("https://arxiv.org/abs/1412.6622")
def three_numbers_of_a_triplet(seed: int) -> Situation:
    """A triplet net whose two distances go through a softmax: a squared error pulls the share of the nearer one to 0."""

    def loss_fn(y: Any, t: Any) -> Any:
        near, far = (((y[:, 0] - y[:, i]) ** 2).sum(1).add(1e-6).sqrt() for i in (1, 2))
        return (F.softmax(kobai.stack([near, far], 1), dim=1)[:, 0] ** 2).mean()

    data, model = triples(seed, digits(seed)), Twins(mlp(64, 48, 16))
    return Situation(model, adam(model, 2e-3), loss_fn, data.train, data.held)


@healthy("https://arxiv.org/abs/1911.05722")
def a_queue_of_old_keys(seed: int) -> Situation:
    """MoCo: negatives are the 64 keys of batches before, kept in a buffer, so that the answer hangs on earlier calls."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = mlp(64, 64, 24)
            with kobai.no_grad():
                self.register_buffer("queue", F.normalize(self.encoder(data.x[:64, 1]), dim=1))

        def forward(self, x: Any) -> Any:
            q, k = (F.normalize(self.encoder(x[:, i]), dim=1) for i in range(2))
            k = k.detach()
            scores = kobai.cat([(q * k).sum(1, keepdim=True), q @ self.queue.clone().T], 1) / 0.2
            if self.training:
                with kobai.no_grad():
                    self.queue.copy_(kobai.cat([k, self.queue])[:64])
            return scores

    data = views(seed)
    model = Net()
    train, held = (data.x, kobai.zeros_like(data.t)), (data.fresh_x, kobai.zeros_like(data.fresh_t))
    return Situation(model, adam(model, 3e-3), F.cross_entropy, train, held)
