"""Second fresh: nets that look unusual and train well."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kobai
from exam.fresh.material import boxes, per_word, sentences
from exam.fresh2.material import graphs, orders
from exam.material import adam, digits, images, mlp, split, surface
from exam.question import Situation, healthy, rng_of
from kobai import nn
from kobai.nn import functional as F


@healthy("https://arxiv.org/abs/2006.10739")
def sines_of_random_directions(seed: int) -> Situation:
    """Fourier features: inputs are projected to random directions that stay as drawn, and only their sines and
    cosines go on.
    """

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("directions", 1.5 * kobai.randn(2, 48))
            self.body = mlp(96, 48, 1)

        def forward(self, x: Any) -> Any:
            turns = 2 * math.pi * x @ self.directions
            return self.body(kobai.cat([turns.sin(), turns.cos()], 1))

    rng = rng_of(seed)
    x = rng.random((2000, 2)).astype(np.float32)
    t = (np.sin(14 * x[:, :1]) * np.cos(11 * x[:, 1:] + 3 * x[:, :1])).astype(np.float32)
    data, model = split(x, 1.6 * t, seed, 1400), Net()
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held, steps=250)


@healthy("https://arxiv.org/abs/2404.19756")
def polynomials_on_the_edges(seed: int) -> Situation:
    """A Kolmogorov–Arnold net: each connection is a learnt polynomial of tanh(x), and there is no other activation."""

    class Edges(nn.Module):
        def __init__(self, n_in: int, n_out: int, degree: int = 4) -> None:
            super().__init__()
            self.weight = nn.Parameter(kobai.randn(degree, n_in, n_out) / (degree * n_in) ** 0.5)
            self.degree = degree

        def forward(self, x: Any) -> Any:
            x = x.tanh()
            terms = [x, 2 * x * x - 1]
            while len(terms) < self.degree:
                terms.append(2 * x * terms[-1] - terms[-2])
            return kobai.einsum("kni,kio->no", kobai.stack(terms), self.weight)

    data = surface(seed)
    model = nn.Sequential(Edges(8, 16), Edges(16, 1))
    return Situation(model, adam(model, 1e-2), F.mse_loss, data.train, data.held, steps=250)


@healthy("https://arxiv.org/abs/1909.01377")
def a_fixed_point(seed: int) -> Situation:
    """A deep equilibrium net: one layer is iterated twelve times without gradient, and once with it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.again, self.head = nn.Linear(64, 48), nn.Linear(48, 48), nn.Linear(48, 10)

        def forward(self, x: Any) -> Any:
            given = self.enter(x)
            with kobai.no_grad():
                h = kobai.zeros_like(given)
                for _ in range(12):
                    h = (given + 0.5 * self.again(h)).tanh()
            return self.head((given + 0.5 * self.again(h)).tanh())

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1806.07366")
def a_flow_in_twenty_steps(seed: int) -> Situation:
    """A differential equation solved by twenty Euler steps of one small net, which gets the time as well."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.slope, self.head = nn.Linear(64, 24), mlp(25, 32, 24, act=nn.Tanh), nn.Linear(24, 10)

        def forward(self, x: Any) -> Any:
            h = self.enter(x)
            for step in range(20):
                h = h + 0.05 * self.slope(kobai.cat([h, kobai.full((len(h), 1), step / 20)], 1))
            return self.head(h)

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=80)


class Mixer(nn.Module):
    """Dense layers over patches and over channels in turn."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across, self.within = mlp(patches, 32, patches, act=nn.GELU), mlp(width, 48, width, act=nn.GELU)

    def forward(self, x: Any) -> Any:
        x = x + self.across(self.first(x).transpose(1, 2)).transpose(1, 2)
        return x + self.within(self.second(x))


@healthy("https://arxiv.org/abs/2105.01601")
def a_mixer_of_patches(seed: int) -> Situation:
    """MLP-Mixer: patches of an image are transposed and mixed by dense layers, within each sample."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Conv2d(1, 24, 2, stride=2)
            self.body, self.head = nn.Sequential(Mixer(16, 24), Mixer(16, 24)), nn.Linear(24, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.body(self.enter(x).flatten(2).transpose(1, 2)).mean(1))

    data, model = images(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=80)


@healthy("https://arxiv.org/abs/1709.01507")
def channels_under_a_gate(seed: int) -> Situation:
    """Squeeze and excitation: the means of all channels decide, through a bottleneck of two units, how much of each passes."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
            self.gate, self.head = mlp(16, 2, 16, last=(nn.Sigmoid(),)), nn.Linear(256, 10)

        def forward(self, x: Any) -> Any:
            h = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
            return self.head((h * self.gate(h.mean((2, 3)))[..., None, None]).flatten(1))

    data, model = images(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=80)


@healthy("https://arxiv.org/abs/1505.00387")
def highways_that_begin_shut(seed: int) -> Situation:
    """Ten highway layers whose gates begin with a bias of −2, so that nearly all of the signal is carried past them."""

    class Highway(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.change, self.gate = nn.Linear(width, width), nn.Linear(width, width)
            nn.init.constant_(self.gate.bias, -2.0)

        def forward(self, x: Any) -> Any:
            share = self.gate(x).sigmoid()
            return share * self.change(x).tanh() + (1 - share) * x

    data = digits(seed)
    model = nn.Sequential(nn.Linear(64, 32), *[Highway(32) for _ in range(10)], nn.Linear(32, 10))
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1608.06993")
def each_layer_sees_all_before_it(seed: int) -> Situation:
    """A densely connected net: every layer gets the outputs of all layers before it, joined along the channels."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Conv2d(1 + 6 * i, 6, 3, padding=1) for i in range(5)])
            self.head = nn.Linear(31 * 16, 10)

        def forward(self, x: Any) -> Any:
            for layer in self.layers:
                x = kobai.cat([x, F.relu(layer(x))], 1)
            return self.head(F.avg_pool2d(x, 2).flatten(1))

    data, model = images(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, steps=80)


@healthy("https://arxiv.org/abs/1612.00593")
def the_greatest_over_a_cloud(seed: int) -> Situation:
    """A net on clouds of points: the same small net on each, and the greatest value over all, so most points get no
    gradient.
    """

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.all = mlp(2, 32, 64), mlp(64, 32, 3)

        def forward(self, x: Any) -> Any:
            return self.all(self.each(x).amax(1))

    rng = rng_of(seed)
    t = rng.integers(0, 3, 1300)
    angle = rng.uniform(0, 2 * np.pi, (1300, 24))
    stretch = np.array([[1, 1], [1.4, 0.7], [0.7, 1.4]])[t][:, None]
    x = (np.stack([np.cos(angle), np.sin(angle)], 2) * stretch).astype(np.float32)
    x, t = kobai.from_numpy(x), kobai.from_numpy(t)
    model = Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, (x[:800], t[:800]), (x[800:], t[800:]))


@healthy("https://arxiv.org/abs/1709.07871")
def features_bent_by_a_question(seed: int) -> Situation:
    """A second input scales and shifts the units of the net on the first; the scale is 1 plus what a net says of the
    question.
    """

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.bend, self.head = nn.Linear(64, 48), nn.Embedding(5, 96), mlp(48, 48, 1)
            nn.init.zeros_(self.bend.weight)

        def forward(self, x: Any, question: Any) -> Any:
            scale, shift = self.bend(question).chunk(2, 1)
            return self.head(F.relu(self.enter(x) * (1 + scale) + shift))

    data, rng = digits(seed), rng_of(seed)
    sets = []
    for x, t in (data.train, data.held):
        question = kobai.from_numpy(rng.integers(0, 5, len(x)))
        sets.append((x, question, (t % 5 == question).float()[:, None]))
    model = Net()
    return Situation(model, adam(model, 5e-3), nn.BCEWithLogitsLoss(), *sets, steps=300)


@healthy("https://arxiv.org/abs/2006.16236")
def attention_without_a_softmax(seed: int) -> Situation:
    """Linear attention: queries and keys through elu + 1, and a quotient of sums in place of the softmax."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.places = nn.Embedding(16, 32), nn.Parameter(0.1 * kobai.randn(8, 32))
            self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
            self.head = mlp(32, 48, 2)

        def forward(self, x: Any) -> Any:
            h = self.embed(x) + self.places
            q, k = F.elu(self.query(h)) + 1, F.elu(self.key(h)) + 1
            told = kobai.bmm(q, kobai.bmm(k.transpose(1, 2), self.value(h)))
            return self.head((h + told / (q * k.sum(1, keepdim=True)).sum(-1, keepdim=True)).amax(1))

    data, model = orders(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=200)


@healthy("https://arxiv.org/abs/2103.17239")
def branches_scaled_by_a_ten_thousandth(seed: int) -> Situation:
    """Each residual branch of a transformer is multiplied by a learnt vector that begins at 0.0001: at first there
    is no depth.
    """

    class Scaled(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.norm, self.body, self.scale = nn.LayerNorm(32), body, nn.Parameter(kobai.full((32,), 1e-4))

        def forward(self, x: Any) -> Any:
            return x + self.scale * self.body(self.norm(x))

    data = digits(seed)
    model = nn.Sequential(
        nn.Linear(64, 32),
        *[Scaled(mlp(32, 64, 32, act=nn.GELU)) for _ in range(4)],
        nn.LayerNorm(32),
        nn.Linear(32, 10),
    )
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/2104.09864")
def positions_by_rotation(seed: int) -> Situation:
    """Rotary positions: queries and keys are turned by an angle that grows with the position; there is no table of
    positions.
    """

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm, self.head = nn.Embedding(20, 32), nn.LayerNorm(32), mlp(32, 64, 20)
            self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))
            angle = np.arange(12)[:, None] * 50 ** (-np.arange(16) / 16)
            self.register_buffer("cosine", kobai.from_numpy(np.cos(angle).astype(np.float32)))
            self.register_buffer("sine", kobai.from_numpy(np.sin(angle).astype(np.float32)))

        def turned(self, h: Any) -> Any:
            a, b = h.chunk(2, -1)
            return kobai.cat([a * self.cosine - b * self.sine, a * self.sine + b * self.cosine], -1)

        def forward(self, x: Any) -> Any:
            h = self.norm(self.embed(x))
            scores = kobai.bmm(self.turned(self.query(h)), self.turned(self.key(h)).transpose(1, 2)) / 32**0.5
            scores = scores + kobai.triu(kobai.full((x.shape[1],) * 2, -math.inf), 1)
            return self.head(h + kobai.bmm(F.softmax(scores, dim=-1), self.value(h)))

    data, model = sentences(seed), Net()
    return Situation(model, adam(model, 5e-3), per_word, data.train, data.held, steps=100)


@healthy("https://arxiv.org/abs/1609.02907")
def averages_over_neighbours(seed: int) -> Situation:
    """A graph convolution: each node takes the degree-weighted mean over its neighbours and itself, in one dense product."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(4, 48), nn.Linear(48, 48), nn.Linear(48, 1)

        def forward(self, x: Any) -> Any:
            h, edges = x[..., :4], x[..., 4:] + kobai.eye(x.shape[1])
            root = edges.sum(-1, keepdim=True) ** -0.5
            edges = root * edges * root.transpose(1, 2)
            h = F.relu(kobai.bmm(edges, self.first(h)))
            return self.head(F.relu(kobai.bmm(edges, self.second(h))).sum(1))

    data, model = graphs(seed, count=900), Net()
    return Situation(model, adam(model, 1e-2), F.mse_loss, data.train, data.held, steps=250)


@healthy("https://arxiv.org/abs/1511.06581")
def value_and_advantage_apart(seed: int) -> Situation:
    """A dueling net: the advantages are taken less their mean, so their sum has no gradient; one action of four is trained."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.value, self.advantage = nn.Linear(8, 64), nn.Linear(64, 1), nn.Linear(64, 4)

        def forward(self, x: Any) -> Any:
            h = self.body(x).relu()
            advantage = self.advantage(h)
            return self.value(h) + advantage - advantage.mean(1, keepdim=True)

    data, rng = surface(seed), rng_of(seed)
    sets = []
    for x, t in (data.train, data.held):
        action = kobai.from_numpy(rng.integers(0, 4, len(x)))
        gain = t[:, 0] + 0.7 * x[:, 4] * (action.float() - 1.5)
        sets.append((x, kobai.stack([action.float(), gain], 1)))

    def loss_fn(y: Any, t: Any) -> Any:
        return F.smooth_l1_loss(y.gather(1, t[:, :1].long())[:, 0], t[:, 1])

    model = Net()
    return Situation(model, adam(model, 5e-3), loss_fn, *sets, steps=250)


@healthy("https://arxiv.org/abs/1606.05328")
def kernels_with_a_mask(seed: int) -> Situation:
    """Convolutions whose kernels are masked, so that each pixel is guessed from those before it: half of each weight
    never counts.
    """

    class Masked(nn.Conv2d):
        def __init__(self, n_in: int, n_out: int, own: bool) -> None:
            super().__init__(n_in, n_out, 3, padding=1)
            mask = kobai.ones(3, 3)
            mask[1, 1 + own :], mask[2] = 0, 0
            self.register_buffer("mask", mask)

        def forward(self, x: Any) -> Any:
            return F.conv2d(x, self.weight * self.mask, self.bias, padding=1)

    data, model = (
        boxes(seed),
        nn.Sequential(Masked(1, 16, False), nn.ReLU(), Masked(16, 16, True), nn.ReLU(), Masked(16, 1, True)),
    )
    picture = [t.float()[:, None] for t in (data.t, data.fresh_t)]
    train, held = (picture[0], picture[0]), (picture[1], picture[1])
    return Situation(model, adam(model, 1e-2), nn.BCEWithLogitsLoss(), train, held, batch=32, steps=80)
