"""Third fresh: nets that look unusual and train well."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.fresh2.material import orders
from exam.fresh3.losses_learning import fakes
from exam.fresh3.material import clouds, nodes, spots
from exam.material import Data, adam, cnn, digits, images, mlp, sequences, split
from exam.question import Situation, healthy, rng_of
from kobai import nn
from kobai.nn import functional as F


@healthy("https://arxiv.org/abs/1710.10196")
def a_deviation_over_the_batch_as_a_channel(seed: int) -> Situation:
    """A discriminator has the mean deviation over the batch as one more channel: on purpose a score hangs on all samples."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = nn.Conv2d(1, 8, 3, padding=1), mlp(9 * 16, 32, 1)

        def forward(self, x: Any) -> Any:
            h = F.max_pool2d(F.relu(self.enter(x)), 2)
            spread = ((h - h.mean(0)) ** 2).mean(0).add(1e-8).sqrt().mean()
            return self.head(kobai.cat([h, spread.expand(len(x), 1, 4, 4)], 1).flatten(1))

    data, model = fakes(seed), Net()
    loss_fn = nn.BCEWithLogitsLoss()
    return Situation(model, adam(model, 2e-3), loss_fn, data.train, data.held, batch=32, steps=150)


@healthy("https://arxiv.org/abs/2103.03206")
def latents_that_ask_the_pixels(seed: int) -> Situation:
    """Perceiver: four learnt vectors, the same for each image, look at all of its pixels, and only they go on."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.latents, self.places = nn.Parameter(kobai.randn(4, 24)), nn.Parameter(0.5 * kobai.randn(64, 24))
            self.enter = nn.Linear(1, 24)
            self.look = nn.MultiheadAttention(24, 2, batch_first=True)
            self.body, self.head = mlp(24, 48, 24), nn.Linear(96, 10)

        def forward(self, x: Any) -> Any:
            pixels = self.enter(x[..., None]) * (1 + self.places) + self.places
            h = self.latents.expand(len(x), 4, 24)
            h = h + self.look(h, pixels, pixels, need_weights=False)[0]
            return self.head((h + self.body(h)).flatten(1))

    data, model = digits(seed, 800), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=100)


@healthy("https://arxiv.org/abs/2105.08050")
def gates_across_the_positions(seed: int) -> Situation:
    """gMLP: half of the channels, mixed along the positions by a matrix near 0 and a bias of 1, gate the other half."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.enter, self.leave = nn.Embedding(16, 24), nn.Linear(24, 48), nn.Linear(24, 24)
            self.norm, self.along, self.head = nn.LayerNorm(24), nn.Linear(8, 8), nn.Linear(24, 2)
            nn.init.normal_(self.along.weight, std=0.01)
            nn.init.ones_(self.along.bias)

        def forward(self, x: Any) -> Any:
            h = self.embed(x)
            u, v = F.gelu(self.enter(h)).chunk(2, 2)
            return self.head((h + self.leave(u * self.along(self.norm(v).transpose(1, 2)).transpose(1, 2))).mean(1))

    data, model = orders(seed), Net()
    return Situation(model, adam(model, 1e-2), F.cross_entropy, data.train, data.held, steps=200)


@healthy("https://arxiv.org/abs/1703.06114")
def sums_over_a_set(seed: int) -> Situation:
    """Deep Sets: the same net on each element, and a plain sum of what it says, so that the order counts for nothing."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.all = mlp(4, 32, 32), mlp(32, 32, 1)

        def forward(self, x: Any) -> Any:
            return self.all(self.each(x).sum(1))

    rng = rng_of(seed)
    x = rng.normal(size=(1500, 6, 4))
    t = (x[..., 0] * x[..., 1]).sum(1) + np.abs(x[..., 2]).max(1)
    data = split(x.astype(np.float32), ((t - t.mean()) / t.std()).astype(np.float32)[:, None], seed, 1000)
    model = Net()
    return Situation(model, adam(model, 5e-3), F.mse_loss, data.train, data.held, steps=200)


@healthy("https://arxiv.org/abs/1710.10903")
def attention_over_neighbours(seed: int) -> Situation:
    """Graph attention: scores of all pairs of nodes, of which those without an edge are set to −10000 before the softmax."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.here, self.there = nn.Linear(4, 32), nn.Linear(32, 1), nn.Linear(32, 1)
            self.head = mlp(36, 48, 1)

        def forward(self, x: Any) -> Any:
            h, joined = self.value(x[..., :4]), x[..., 4:]
            scores = F.leaky_relu(self.here(h) + self.there(h).transpose(1, 2), 0.2) + (joined - 1) * 1e4
            around = kobai.bmm(F.softmax(scores, dim=2), h)
            return self.head(kobai.cat([x[..., :4], around], 2)).squeeze(2)

    data, model = nodes(seed), Net()
    return Situation(model, adam(model, 5e-3), F.mse_loss, data.train, data.held, batch=32, steps=150)


@healthy("https://arxiv.org/abs/1903.10520")
def kernels_standardised_at_each_call(seed: int) -> Situation:
    """Weight standardisation: forward takes its mean from each kernel and divides by its deviation; group norm behind it."""

    class Standardised(nn.Conv2d):
        def forward(self, x: Any) -> Any:
            w = self.weight.flatten(1)
            w = (w - w.mean(1, keepdim=True)) / (w.var(1, keepdim=True) + 1e-5).sqrt()
            return F.conv2d(x, w.reshape(self.weight.shape), self.bias, padding=1)

    data = images(seed)
    model = nn.Sequential(
        Standardised(1, 8, 3),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        Standardised(8, 16, 3),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, batch=32)


def _series(seed: int) -> Data:
    """(N, 24) values of a wave with a trend; target (N, 6): the next six."""
    rng = rng_of(seed)
    time, phase = np.arange(30), rng.uniform(0, 2 * np.pi, (1500, 1))
    x = np.sin(2 * np.pi * time / rng.choice([6, 8, 12], (1500, 1)) + phase) + rng.normal(size=(1500, 1)) * time / 30
    x += 0.1 * rng.normal(size=x.shape)
    return split(x[:, :24].astype(np.float32), x[:, 24:].astype(np.float32), seed, 1000)


@healthy("https://arxiv.org/abs/1905.10437")
def blocks_that_take_off_what_they_explain(seed: int) -> Situation:
    """N-BEATS: each block takes from the input what it explains and adds to the forecast; nobody reads the last remainder."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([mlp(24, 64, 30) for _ in range(3)])

        def forward(self, x: Any) -> Any:
            forecast: Any = 0.0
            for block in self.blocks:
                said = block(x)
                x, forecast = x - said[:, :24], forecast + said[:, 24:]
            return forecast

    data, model = _series(seed), Net()
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held, steps=200)


@healthy("https://arxiv.org/abs/1807.01613")
def a_function_from_eight_of_its_points(seed: int) -> Situation:
    """A neural process: eight points of a curve are averaged into a code, and mean and deviation are asked at four others."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.point, self.answer = mlp(2, 48, 48), mlp(49, 48, 2)

        def forward(self, x: Any) -> Any:
            code = self.point(x[:, :16].reshape(-1, 8, 2)).mean(1)
            return self.answer(kobai.cat([code[:, None].expand(len(x), 4, 48), x[:, 16:, None]], 2))

    def loss_fn(y: Any, t: Any) -> Any:
        deviation = 0.1 + 0.9 * F.softplus(y[..., 1])
        return (0.5 * ((y[..., 0] - t) / deviation) ** 2 + deviation.log()).mean()

    rng = rng_of(seed)
    place = rng.uniform(-2, 2, (1600, 12))
    curve = rng.normal(size=(1600, 1)) * np.sin(2 * place) + rng.normal(size=(1600, 1)) * np.cos(place)
    known = np.stack([place[:, :8], curve[:, :8]], 2).reshape(1600, 16)
    x = np.concatenate([known, place[:, 8:]], 1).astype(np.float32)
    data, model = split(x, curve[:, 8:].astype(np.float32), seed, 1100), Net()
    return Situation(model, adam(model, 5e-3), loss_fn, data.train, data.held, steps=250)


@healthy("https://arxiv.org/abs/1807.03247")
def coordinates_as_channels(seed: int) -> Situation:
    """CoordConv: two constant planes, the row and the column of each pixel, are joined to the image inside the net."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            line = kobai.linspace(-1, 1, 12)
            self.register_buffer("planes", kobai.stack([line[:, None].expand(12, 12), line.expand(12, 12)]))
            self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
            self.head = nn.Linear(12, 2)

        def forward(self, x: Any) -> Any:
            h = kobai.cat([x, self.planes.expand(len(x), 2, 12, 12)], 1)
            return self.head(F.relu(self.second(F.relu(self.first(h)))).amax((2, 3)))

    data, _ = spots(seed)
    sets = [kobai.stack([t.cos(), t.sin()], 1) for t in (data.t, data.fresh_t)]
    model = Net()
    train, held = (data.x, sets[0]), (data.fresh_x, sets[1])
    return Situation(model, adam(model, 5e-3), F.mse_loss, train, held, batch=32, steps=150)


@healthy("https://arxiv.org/abs/1707.01083")
def channels_dealt_out_anew(seed: int) -> Situation:
    """ShuffleNet: convolutions of four groups that never meet, and between them the channels are dealt out anew."""
    data = images(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=4),
        nn.ReLU(),
        nn.ChannelShuffle(4),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, batch=32)


@healthy("https://arxiv.org/abs/2201.09792")
def each_channel_by_itself(seed: int) -> Situation:
    """ConvMixer: a residual convolution of each channel by itself, then one of 1 × 1 across channels, with batch norms."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depth, self.norm = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24)

        def forward(self, x: Any) -> Any:
            return x + self.norm(F.gelu(self.depth(x)))

    data = images(seed)
    mixers = [part for _ in range(2) for part in (Residual(), nn.Conv2d(24, 24, 1), nn.GELU(), nn.BatchNorm2d(24))]
    model = nn.Sequential(
        nn.Conv2d(1, 24, 2, stride=2), nn.GELU(), *mixers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)
    )
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, batch=32)


@healthy("https://arxiv.org/abs/1803.04831")
def units_that_remember_alone(seed: int) -> Situation:
    """IndRNN: a unit's memory is its own last value times one weight near 1, and units meet in the next layer only."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.middle, self.head = nn.Linear(4, 32), nn.Linear(32, 32), nn.Linear(32, 4)
            self.keep = nn.Parameter(0.8 + 0.2 * kobai.rand(2, 32))

        def forward(self, x: Any) -> Any:
            for layer, keep in ((self.enter, self.keep[0]), (self.middle, self.keep[1])):
                states = [kobai.zeros(len(x), 32)]
                for step in layer(x).unbind(1):
                    states.append(F.relu(step + keep * states[-1]))
                x = kobai.stack(states[1:], 1)
            return self.head(x[:, -1])

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=100)


@healthy("https://arxiv.org/abs/1506.03134")
def a_pointer_into_the_input(seed: int) -> Situation:
    """A pointer net: the scores are for the places of the input itself, and there are as many classes as words in it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(16, 16)
            self.rnn, self.score = nn.GRU(16, 16, batch_first=True, bidirectional=True), nn.Linear(32, 1)

        def forward(self, x: Any) -> Any:
            return self.score(self.rnn(self.embed(x))[0]).squeeze(2)

    data = orders(seed)
    model = Net()
    train, held = (data.x, data.x.argmax(1)), (data.fresh_x, data.fresh_x.argmax(1))
    return Situation(model, adam(model, 1e-2), F.cross_entropy, train, held)


@healthy("https://arxiv.org/abs/1801.07829")
def the_nearest_points_of_a_cloud(seed: int) -> Situation:
    """A net on edges to the nearest point, which is chosen by an argmin that has no gradient, within each cloud."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.edge, self.head = mlp(6, 32, 32), nn.Linear(32, 2)

        def forward(self, x: Any) -> Any:
            far = ((x[:, :, None] - x[:, None]) ** 2).sum(3) + 1e3 * kobai.eye(x.shape[1])
            other = x.gather(1, far.argmin(2)[..., None].expand(x.shape))
            return self.head(self.edge(kobai.cat([x, other - x], 2)).amax(1))

    data, model = clouds(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, batch=32, steps=150)


@healthy("https://arxiv.org/abs/1611.04076")
def a_discriminator_of_least_squares(seed: int) -> Situation:
    """A least-squares discriminator: a squared error of unbounded scores with 0 and 1, and slopes of 0.2 below zero."""
    data = fakes(seed)
    model = nn.Sequential(*[nn.LeakyReLU(0.2) if isinstance(layer, nn.ReLU) else layer for layer in cnn(1)])
    return Situation(model, adam(model, 2e-3), F.mse_loss, data.train, data.held, batch=32, steps=150)


@healthy("https://arxiv.org/abs/1804.00891")
def a_code_on_a_sphere(seed: int) -> Situation:
    """An autoencoder's code is four numbers, stretched to unit length, as in a hyperspherical one: a narrow neck on purpose."""

    class Unit(nn.Module):
        def forward(self, x: Any) -> Any:
            return F.normalize(x, dim=1)

    data, model = digits(seed), nn.Sequential(mlp(64, 48, 4), Unit(), mlp(4, 48, 64))
    return Situation(model, adam(model, 5e-3), F.mse_loss, (data.x, data.x), (data.fresh_x, data.fresh_x), steps=200)
