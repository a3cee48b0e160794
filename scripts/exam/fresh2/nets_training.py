"""Second fresh: losses and trainings that look unusual and are sound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kobai
from exam.fresh.material import boxes, pixels, sentences
from exam.material import adam, blobs, cnn, digits, images, mlp, sequences, sgd
from exam.question import Situation, healthy, rng_of, wrong_share
from kobai import nn, optim
from kobai.nn import functional as F


@healthy("https://arxiv.org/abs/1708.02002")
def a_prior_of_one_in_a_hundred(seed: int) -> Situation:
    """A focal loss over pixels of which few are objects; the last bias begins at −4.6, so that all say "no" at first."""
    data, model = boxes(seed, side=3), pixels(1)
    nn.init.constant_(list(model)[-1].bias, -math.log(99))

    def loss_fn(y: Any, t: Any) -> Any:
        entropy = F.binary_cross_entropy_with_logits(y, t, reduction="none")
        return ((0.75 * t + 0.25 * (1 - t)) * (1 - (-entropy).exp()) ** 2 * entropy).sum() / t.sum()

    masks = [t.float()[:, None] for t in (data.t, data.fresh_t)]
    train, held = (data.x, masks[0]), (data.fresh_x, masks[1])
    return Situation(model, adam(model, 5e-3), loss_fn, train, held, batch=32, steps=80)


class Views(nn.Module):
    """The same net on two views, (N, 2, D): unit vectors (N, 2, 16); ``scale`` and ``bias`` are learnt too."""

    def __init__(self, inputs: int, scale: float, bias: float = 0.0) -> None:
        super().__init__()
        self.body = mlp(inputs, 64, 16)
        self.log_scale, self.bias = nn.Parameter(kobai.tensor(math.log(scale))), nn.Parameter(kobai.tensor(bias))

    def forward(self, x: Any) -> Any:
        y = F.normalize(self.body(x), dim=-1)
        return y[:, 0] @ y[:, 1].T * self.log_scale.exp() + self.bias


def views(seed: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Two noisy copies of each digit, and a target that nobody reads."""
    data, rng = digits(seed), rng_of(seed)
    sets = []
    for x in (data.x, data.fresh_x[:256]):
        noise = kobai.from_numpy((0.4 * rng.normal(size=(len(x), 2, 64))).astype(np.float32))
        sets.append((x[:, None] + noise, kobai.arange(len(x))))
    return sets[0], sets[1]


@healthy("https://arxiv.org/abs/2303.15343")
def pairs_judged_one_by_one(seed: int) -> Situation:
    """Sigmoid loss for image and text: all pairs of a batch are yes-or-no questions, and the learnt bias begins at −10."""

    def loss_fn(y: Any, t: Any) -> Any:
        return -F.logsigmoid(y * (2 * kobai.eye(len(y)) - 1)).sum(1).mean()

    model = Views(64, 10.0, -10.0)
    return Situation(model, adam(model, 3e-3), loss_fn, *views(seed))


@healthy("https://arxiv.org/abs/2004.11362")
def all_of_a_class_are_positives(seed: int) -> Situation:
    """A supervised contrastive loss at a temperature of 0.1: the labels only say which samples of the batch belong together."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 64, 16)

        def forward(self, x: Any) -> Any:
            return F.normalize(self.body(x), dim=-1)

    def loss_fn(y: Any, t: Any) -> Any:
        own = kobai.eye(len(y))
        scores = y @ y.T / 0.1 - 1e4 * own
        same = (t[:, None] == t).float() * (1 - own)
        return -((same * F.log_softmax(scores, dim=-1)).sum(1) / same.sum(1).clamp(min=1)).mean()

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held)


@healthy("https://arxiv.org/abs/1801.07698")
def a_margin_between_the_angles(seed: int) -> Situation:
    """ArcFace: cosines times 16, and the own class has to be nearer by an angle of 0.3; the first loss is far above log 10."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.classes = mlp(64, 64, 16), nn.Parameter(kobai.randn(10, 16))

        def forward(self, x: Any) -> Any:
            return F.normalize(self.body(x), dim=-1) @ F.normalize(self.classes, dim=-1).T

    def loss_fn(y: Any, t: Any) -> Any:
        own = F.one_hot(t, 10).float()
        angle = y.clamp(-0.999, 0.999).acos()
        return F.cross_entropy(16 * (own * (angle + 0.3).cos() + (1 - own) * y), t)

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held, score=wrong_share)


@healthy("https://arxiv.org/abs/2111.06377")
def hidden_patches_are_the_target(seed: int) -> Situation:
    """A masked autoencoder: three pixels of four are hidden by the net itself, by chance, and only they are in the loss."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.hidden = mlp(128, 96, 96, 64), nn.Parameter(kobai.zeros(64))

        def forward(self, x: Any) -> Any:
            shown = (kobai.rand_like(x) < 0.25).float()
            return self.body(kobai.cat([shown * x + (1 - shown) * self.hidden, shown], 1)), 1 - shown

    def loss_fn(y: Any, t: Any) -> Any:
        return ((y[0] - t) ** 2 * y[1]).sum() / y[1].sum()

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 3e-3), loss_fn, (data.x, data.x), (data.fresh_x, data.fresh_x), steps=200)


@healthy("https://arxiv.org/abs/2105.04906")
def variance_kept_by_a_hinge(seed: int) -> Situation:
    """VICReg: two views are to agree, each unit is to keep a deviation of 1 over the batch, and units are not to correlate."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 64, 16)

        def forward(self, x: Any) -> Any:
            return self.body(x)

    def spread(z: Any) -> Any:
        z = z - z.mean(0)
        covariance = z.T @ z / (len(z) - 1)
        off = covariance * (1 - kobai.eye(z.shape[1]))
        return F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() + (off**2).sum() / z.shape[1] / 25

    def loss_fn(y: Any, t: Any) -> Any:
        return F.mse_loss(y[:, 0], y[:, 1]) + spread(y[:, 0]) + spread(y[:, 1])

    model = Net()
    return Situation(model, adam(model, 3e-3), loss_fn, *views(seed))


@healthy("https://arxiv.org/abs/1310.4546")
def words_beside_words_drawn_at_random(seed: int) -> Situation:
    """Skip-gram with negative samples: two tables of vectors and a product, no activation; most rows get no gradient."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centre, self.beside = nn.Embedding(60, 12), nn.Embedding(60, 12)
            nn.init.zeros_(self.beside.weight)

        def forward(self, x: Any) -> Any:
            return (self.centre(x[:, :1]) * self.beside(x[:, 1:])).sum(-1)

    data, rng = sentences(seed, count=1000, vocabulary=60), rng_of(seed)
    sets = []
    for x in (data.x, data.fresh_x):
        drawn = kobai.from_numpy(rng.integers(0, 60, (len(x), 5)))
        truth = kobai.zeros(len(x), 6)
        truth[:, 0] = 1
        sets.append((kobai.cat([x[:, :2], drawn], 1), truth))
    model = Net()
    return Situation(model, adam(model, 2e-2), nn.BCEWithLogitsLoss(), *sets, steps=300)


class Sign(kobai.autograd.Function):
    """±1, and the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, w: Any) -> Any:
        return (w >= 0).float() * 2 - 1

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient


@healthy("https://arxiv.org/abs/1511.00363")
def weights_of_plus_or_minus_one(seed: int) -> Situation:
    """BinaryConnect: layers multiply by the signs of their weights, which learn by a gradient that passes through the sign."""

    class Binary(nn.Linear):
        def forward(self, x: Any) -> Any:
            return F.linear(x, Sign.apply(self.weight) / self.weight.shape[1] ** 0.5, self.bias)

    data = digits(seed)
    model = nn.Sequential(Binary(64, 64), nn.BatchNorm1d(64), nn.ReLU(), Binary(64, 10))
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, score=wrong_share)


@healthy("https://arxiv.org/abs/1611.01144")
def a_choice_that_is_drawn(seed: int) -> Situation:
    """A categorical code: one of eight values is drawn in each of six places, with a straight-through gradient."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = mlp(64, 64, 48), mlp(48, 64, 64)

        def forward(self, x: Any) -> Any:
            code = F.gumbel_softmax(self.encoder(x).reshape(-1, 6, 8), tau=1.0, hard=True)
            return self.decoder(code.flatten(1))

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 5e-3), F.mse_loss, (data.x, data.x), (data.fresh_x, data.fresh_x), steps=300)


@healthy("https://arxiv.org/abs/1703.04247")
def products_of_all_pairs_of_fields(seed: int) -> Situation:
    """A factorisation machine: half of (square of the sum less sum of the squares), plus a weight for each value; no
    activation.
    """

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vectors, self.weights = nn.Embedding(40, 6), nn.Embedding(40, 1)
            self.bias = nn.Parameter(kobai.zeros(1))
            nn.init.normal_(self.vectors.weight, std=0.3)

        def forward(self, x: Any) -> Any:
            v = self.vectors(x)
            crossed = (v.sum(1) ** 2 - (v**2).sum(1)).sum(1, keepdim=True) / 2
            return crossed + self.weights(x).sum(1) + self.bias

    rng = rng_of(seed)
    x = rng.integers(0, 10, (1800, 4)) + np.arange(4) * 10
    truth = rng.normal(size=(40, 3))[x]
    t = (truth[:, 0] * truth[:, 1] + truth[:, 2] * truth[:, 3]).sum(1, keepdims=True)
    x, t = kobai.from_numpy(x), kobai.from_numpy((t / t.std()).astype(np.float32))
    model = Net()
    return Situation(model, adam(model, 2e-2), F.mse_loss, (x[:1300], t[:1300]), (x[1300:], t[1300:]), steps=300)


@healthy("https://arxiv.org/abs/2109.08668")
def squares_of_rectifiers(seed: int) -> Situation:
    """The activation is the square of a ReLU, as in Primer: its slope grows with its input."""

    class Squared(nn.Module):
        def forward(self, x: Any) -> Any:
            return F.relu(x) ** 2

    data, model = digits(seed), mlp(64, 64, 32, 10, act=Squared)
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@healthy("https://kellerjordan.github.io/posts/muon/")
def steps_that_are_orthogonal(seed: int) -> Situation:
    """Muon, whose steps have all singular values near 1, at a rate of 0.02; matrices only, so that there are no biases."""
    data = digits(seed)
    model = nn.Sequential(nn.Linear(64, 48, bias=False), nn.ReLU(), nn.Linear(48, 10, bias=False))
    return Situation(model, optim.Muon(model.parameters(), lr=0.02), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1412.6980")
def the_greatest_moment(seed: int) -> Situation:
    """Adamax, the variant with the greatest gradient in place of the second moment, at 0.01 in a recurrent net."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(4, 24, batch_first=True), nn.Linear(24, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    data, model = sequences(seed), Net()
    return Situation(model, optim.Adamax(model.parameters(), lr=0.01), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1706.02677")
def a_rate_of_three_tenths_behind_batch_norms(seed: int) -> Situation:
    """Gradient descent at 0.3 with Nesterov momentum, batches of 256, and batch norms that bear it."""
    data, model = images(seed), cnn(norm=True)
    optimizer = sgd(model, 0.3, nesterov=True)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, batch=256, steps=60, score=wrong_share)


@healthy("https://arxiv.org/abs/1512.00567")
def labels_softened_by_a_fifth(seed: int) -> Situation:
    """A label smoothing of 0.2 over four overlapping classes: the loss ends near 1, where guessing costs 1.39."""
    data, model = blobs(seed), mlp(12, 64, 4)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.2)
    return Situation(model, adam(model, 5e-3), loss_fn, data.train, data.held, score=wrong_share)
