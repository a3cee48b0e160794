"""Fresh healthy nets of unusual but right kinds: their losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kobai
from exam.fresh.material import Twins, Variational, divergence, pairs
from exam.material import adam, blobs, digits, mlp, odd, sgd, split, surface
from exam.question import Situation, healthy, rng_of
from kobai import nn, optim
from kobai.nn import functional as F


@healthy("https://arxiv.org/abs/1312.6114 (the bound as a sum)")
def a_bound_that_is_summed(seed: int) -> Situation:
    """A variational autoencoder whose bound is a sum over pixels and a mean over samples: some tens from the start."""

    def loss_fn(y: Any, t: Any) -> Any:
        return 0.5 * ((y[0] - t) ** 2).sum(1).mean() + divergence(*y[1:]).mean()

    data, model = digits(seed), Variational()
    return Situation(model, adam(model, 3e-3), loss_fn, (data.x, data.x), (data.fresh_x, data.fresh_x))


@healthy("https://arxiv.org/abs/1605.08803")
def a_flow_with_a_negative_loss(seed: int) -> Situation:
    """A density by invertible layers; the data are narrow, so the negative log-likelihood ends well below 0."""
    rng = rng_of(seed)
    x = rng.normal(size=(1300, 2))
    x = (0.2 * np.stack([x[:, 0], 0.4 * x[:, 1] + x[:, 0] ** 2 - 1], 1)).astype(np.float32)
    data = split(x, x, seed, 800)

    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nets = nn.ModuleList([mlp(1, 24, 2, act=nn.Tanh) for _ in range(4)])

        def forward(self, x: Any) -> Any:
            a, b, volume = x[:, :1], x[:, 1:], kobai.zeros(len(x), 1)
            for net in self.nets:
                shift, scale = net(a).chunk(2, 1)
                a, b, volume = (b - shift) * scale.exp(), a, volume + scale
            return kobai.cat([a, b], 1), volume

    def loss_fn(y: Any, t: Any) -> Any:
        return (0.5 * (y[0] ** 2).sum(1) + math.log(2 * math.pi) - y[1][:, 0]).mean()

    model = Flow()
    return Situation(model, adam(model, 5e-3), loss_fn, data.train, data.held)


@healthy("https://arxiv.org/abs/2011.10566")
def a_negative_cosine_and_a_stopped_branch(seed: int) -> Situation:
    """Two views of a sample; one branch is detached on purpose, and the loss is a negative cosine."""
    data, rng = digits(seed), rng_of(seed)
    x = data.x.numpy()
    views = np.stack([x + 0.4 * rng.normal(size=x.shape), x + 0.4 * rng.normal(size=x.shape)], 1).astype(np.float32)
    parts = split(views, data.t.numpy(), seed, 800)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32))
            self.guess = mlp(32, 32, 32)

        def forward(self, x: Any) -> Any:
            a, b = self.body(x[:, 0]), self.body(x[:, 1])
            return self.guess(a), self.guess(b), a.detach(), b.detach()

    def loss_fn(y: Any, t: Any) -> Any:
        return -0.5 * (F.cosine_similarity(y[0], y[3]) + F.cosine_similarity(y[1], y[2])).mean()

    model = Net()
    return Situation(model, sgd(model, 0.05), loss_fn, parts.train, parts.held, steps=80)


@healthy("https://arxiv.org/abs/2006.11239")
def noise_to_be_guessed(seed: int) -> Situation:
    """Diffusion: the target is the noise that was mixed into the sample, at a level that is an input too."""
    rng = rng_of(seed)
    clean = np.repeat(rng.integers(0, 2, (1400, 1)) * 4.0 - 2, 8, 1)
    level = rng.uniform(0.1, 0.9, (1400, 1))
    noise = rng.normal(size=clean.shape)
    x = np.concatenate([np.sqrt(1 - level) * clean + np.sqrt(level) * noise, level], 1)
    data, model = split(x.astype(np.float32), noise.astype(np.float32), seed, 900), mlp(9, 64, 64, 8)
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@healthy("https://arxiv.org/abs/1705.07115")
def tasks_weighed_by_learnt_variances(seed: int) -> Situation:
    """Two tasks, each divided by a learnt variance whose logarithm is added: the loss falls below 0, and may."""
    data = surface(seed)
    second = [part[:, 3:4] * 0.1 for part in (data.x, data.fresh_x)]
    train, held = (data.x, kobai.cat([data.t, second[0]], 1)), (data.fresh_x, kobai.cat([data.fresh_t, second[1]], 1))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.logs = mlp(8, 64, 2), nn.Parameter(kobai.zeros(2))

        def forward(self, x: Any) -> Any:
            return self.body(x), self.logs

    def loss_fn(y: Any, t: Any) -> Any:
        return (((y[0] - t) ** 2).mean(0) * (-y[1]).exp() + y[1]).sum()

    model = Net()
    return Situation(model, adam(model, 5e-3), loss_fn, train, held)


@healthy("https://www.jstor.org/stable/2985181 (Cox 1972)")
def risks_compared_within_the_batch(seed: int) -> Situation:
    """A partial likelihood: who failed first, among all of the batch; the loss mixes samples, the net does not."""
    data = surface(seed)

    def loss_fn(y: Any, t: Any) -> Any:
        order = t[:, 0].argsort()
        risk = y[order, 0]
        return (
            kobai.logsumexp(kobai.where(kobai.triu(kobai.ones(len(y), len(y))) > 0, risk[None], -1e9), 1) - risk
        ).mean()

    model = mlp(8, 48, 1)
    return Situation(model, adam(model, 5e-3), loss_fn, data.train, data.held)


@healthy("https://www.cs.toronto.edu/~graves/icml_2006.pdf")
def labels_without_places(seed: int) -> Situation:
    """CTC: three labels for twelve frames, and a blank that most frames say."""
    rng = rng_of(seed)
    t = np.stack([rng.permutation(4)[:3] + 1 for _ in range(900)])
    x = 0.5 * rng.normal(size=(900, 12, 6))
    for i, places in enumerate(np.sort(np.stack([rng.permutation(12)[:3] for _ in range(900)]), 1)):
        x[i, places, t[i]] += 2.5
    data = split(x.astype(np.float32), t, seed, 600)

    def loss_fn(y: Any, t: Any) -> Any:
        n = len(t)
        return F.ctc_loss(F.log_softmax(y, 2).transpose(0, 1), t, [12] * n, [3] * n)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp(6, 32, 5)

        def forward(self, x: Any) -> Any:
            return self.inner(x)

    model = Net()
    return Situation(model, adam(model, 1e-2), loss_fn, data.train, data.held, steps=60)


@healthy("https://pytorch.org/docs/stable/generated/torch.nn.PoissonNLLLoss.html (log_input)")
def counts_through_an_exponential(seed: int) -> Situation:
    """Counts: the output is the logarithm of a rate, the loss may be negative."""
    rng = rng_of(seed)
    x = rng.normal(size=(1400, 6))
    t = rng.poisson(np.exp(1 + 0.6 * x[:, :1] - 0.4 * x[:, 1:2] * x[:, 2:3])).astype(np.float32)
    data, model = split(x.astype(np.float32), t, seed, 900), mlp(6, 32, 1)
    return Situation(model, adam(model, 3e-3), nn.PoissonNLLLoss(), data.train, data.held)


@healthy("https://www.nature.com/articles/nature14236 (with a frozen copy for the targets)")
def a_critic_with_a_frozen_copy(seed: int) -> Situation:
    """Temporal differences: the target is a reward plus what a frozen copy of the net says of the next state."""
    rng = rng_of(seed)
    state = rng.normal(size=(1300, 2, 6)).astype(np.float32)
    reward = np.sin(state[:, 0, :1]) + state[:, 0, 1:2] * state[:, 0, 2:3]
    data = split(state, reward.astype(np.float32), seed, 900)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online, self.copy = mlp(6, 48, 1), mlp(6, 48, 1)
            self.copy.load_state_dict(self.online.state_dict())
            self.copy.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            with kobai.no_grad():
                later = self.copy(x[:, 1])
            return self.online(x[:, 0]), later

    def loss_fn(y: Any, t: Any) -> Any:
        return F.smooth_l1_loss(y[0], t + 0.9 * y[1])

    model = Net()
    return Situation(model, adam(model.online, 3e-3), loss_fn, data.train, data.held)


@healthy("https://arxiv.org/abs/1602.01783")
def an_actor_beside_a_critic(seed: int) -> Situation:
    """Policy and value share a body; the advantage is detached, entropy is subtracted, and the loss has either sign."""
    data, rng = blobs(seed), rng_of(seed)

    def tried(t: Any) -> Any:
        action = rng.integers(0, 4, len(t))
        return kobai.from_numpy(np.stack([action, action == t.numpy()], 1).astype(np.float32))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(12, 48), nn.ReLU())
            self.actor, self.critic = nn.Linear(48, 4), nn.Linear(48, 1)

        def forward(self, x: Any) -> Any:
            h = self.body(x)
            return kobai.cat([self.actor(h), self.critic(h)], 1)

    def loss_fn(y: Any, t: Any) -> Any:
        log = F.log_softmax(y[:, :4], 1)
        advantage = t[:, 1] - y[:, 4]
        policy = -(advantage.detach() * log.gather(1, t[:, :1].long())[:, 0]).mean()
        return policy + (advantage**2).mean() + 0.05 * (log.exp() * log).sum(1).mean()

    model = Net()
    train, held = (data.x, tried(data.t)), (data.fresh_x, tried(data.fresh_t))
    return Situation(model, adam(model, 3e-3), loss_fn, train, held)


@healthy("http://yann.lecun.com/exdb/publis/pdf/hadsell-chopra-lecun-06.pdf")
def pairs_drawn_together_or_apart(seed: int) -> Situation:
    """A contrastive loss of pairs: 0 for those that are far apart already."""
    data = pairs(seed, digits(seed))

    def loss_fn(y: Any, t: Any) -> Any:
        distance = (((y[:, 0] - y[:, 1]) ** 2).sum(1) + 1e-6).sqrt()
        return (t * distance**2 + (1 - t) * F.relu(1 - distance) ** 2).mean()

    model = Twins(mlp(64, 64, 8))
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held)


@healthy("https://arxiv.org/abs/1205.2618")
def ranks_of_a_pair_of_items(seed: int) -> Situation:
    """Bayesian personalised ranking: only the difference of two scores counts, so the last bias gets no gradient."""
    rng = rng_of(seed)
    x = rng.normal(size=(1400, 2, 6)).astype(np.float32)
    worth = np.sin(x[..., 0]) + x[..., 1] * x[..., 2]
    x[worth[:, 0] < worth[:, 1]] = x[worth[:, 0] < worth[:, 1]][:, ::-1]
    data, model = split(x, worth.argmax(1), seed, 900), Twins(mlp(6, 48, 1))

    def loss_fn(y: Any, t: Any) -> Any:
        return -F.logsigmoid(y[:, 0] - y[:, 1]).mean()

    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held)


@healthy("https://arxiv.org/abs/1901.07884")
def steps_of_an_order(seed: int) -> Situation:
    """Ordinal labels: a column for each threshold, whether the label lies above it."""
    data = surface(seed)
    above = [(t > kobai.tensor([[-1.0, -0.3, 0.3, 1.0]])).float() for t in (data.t, data.fresh_t)]
    model = mlp(8, 64, 4)
    return Situation(model, adam(model, 3e-3), nn.BCEWithLogitsLoss(), (data.x, above[0]), (data.fresh_x, above[1]))


@healthy("https://www.jstor.org/stable/2290063 (Lange, Little and Taylor 1989)")
def a_likelihood_with_heavy_tails(seed: int) -> Situation:
    """A Student likelihood with a learnt scale, for targets with outliers a hundred times as large as the rest."""
    data, rng = surface(seed), rng_of(seed)

    def spoilt(t: Any) -> Any:
        far = rng.random(t.shape) < 0.03
        return kobai.from_numpy(np.where(far, 30 * rng.normal(size=t.shape), t.numpy()).astype(np.float32))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.scale = mlp(8, 64, 1), nn.Parameter(kobai.zeros(1))

        def forward(self, x: Any) -> Any:
            return self.body(x), self.scale

    def loss_fn(y: Any, t: Any) -> Any:
        return (y[1] + 2 * kobai.log1p((t - y[0]) ** 2 / 3 * (-2 * y[1]).exp())).mean()

    model = Net()
    return Situation(model, adam(model, 3e-3), loss_fn, (data.x, spoilt(data.t)), (data.fresh_x, spoilt(data.fresh_t)))


@healthy("https://arxiv.org/abs/1505.07818")
def a_reversed_gradient(seed: int) -> Situation:
    """Domain-adversarial training: a custom Function turns the gradient of the domain's loss round, on purpose."""

    class Reversed(kobai.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return -0.1 * grad

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
            self.label, self.domain = nn.Linear(64, 10), nn.Linear(64, 2)

        def forward(self, x: Any) -> Any:
            h = self.body(x)
            return self.label(h), self.domain(Reversed.apply(h))

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y[0], t[:, 0]) + F.cross_entropy(y[1], t[:, 1])

    def with_domain(x: Any, t: Any) -> tuple[Any, Any]:
        where = kobai.arange(len(t)) % 2
        return x * (1 + 0.3 * where[:, None].float()), kobai.stack([t, where], 1)

    data, model = digits(seed), Net()
    train, held = with_domain(*data.train), with_domain(*data.held)
    return Situation(model, adam(model, 2e-3), loss_fn, train, held)


@healthy("https://pytorch.org/docs/stable/generated/torch.nn.BCELoss.html (several labels)")
def probabilities_of_several_labels(seed: int) -> Situation:
    """Sigmoids, and the loss that takes probabilities, for four questions at once."""
    data = digits(seed)
    several = [
        kobai.stack([t % 2, (t > 4).long(), (t % 3 == 0).long(), (t == 7).long()], 1).float() for t in data[1::2]
    ]
    model = mlp(64, 64, 4, last=(nn.Sigmoid(),))
    return Situation(model, adam(model, 3e-3), nn.BCELoss(), (data.x, several[0]), (data.fresh_x, several[1]))


@healthy("https://blog.keras.io/building-autoencoders-in-keras.html (a tanh for pixels from −1 to 1)")
def tanh_autoencoder(seed: int) -> Situation:
    """Pixels from −1 to 1 through a code of eight, and a tanh on the output."""
    data = digits(seed, raw=True)
    x, fresh = 2 * data.x - 1, 2 * data.fresh_x - 1
    model = mlp(64, 48, 8, 48, 64, act=nn.Tanh, last=(nn.Tanh(),))
    return Situation(model, adam(model, 3e-3), F.mse_loss, (x, x), (fresh, fresh))


@healthy("https://pytorch.org/docs/stable/generated/torch.nn.KLDivLoss.html")
def divergence_from_soft_labels(seed: int) -> Situation:
    """KLDivLoss of log-probabilities and a teacher's probabilities."""
    data = digits(seed)
    soft = [0.8 * F.one_hot(t, 10).float() + 0.02 for t in (data.t, data.fresh_t)]
    model = mlp(64, 64, 10, last=(nn.LogSoftmax(dim=1),))
    loss_fn = nn.KLDivLoss(reduction="batchmean")
    return Situation(model, adam(model, 3e-3), loss_fn, (data.x, soft[0]), (data.fresh_x, soft[1]))


@healthy("https://pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html (reduction='sum')")
def a_sum_with_a_rate_to_match(seed: int) -> Situation:
    """The loss is a sum over the batch, and the rate is that of a mean divided by its size."""

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y, t, reduction="sum")

    data, model = digits(seed), mlp(64, 64, 10)
    return Situation(model, sgd(model, 0.05 / 64), loss_fn, data.train, data.held)


@healthy("https://en.wikipedia.org/wiki/Support_vector_machine (hinge)")
def a_linear_classifier_with_a_hinge(seed: int) -> Situation:
    """One linear layer, targets of ±1, and a hinge, as a support vector machine has it."""
    data = odd(seed)

    def loss_fn(y: Any, t: Any) -> Any:
        return F.relu(1 - (2 * t - 1) * y).mean()

    model = nn.Linear(64, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.02, weight_decay=1e-3)
    return Situation(model, optimizer, loss_fn, data.train, data.held)


@healthy("https://www.tensorflow.org/tutorials/keras/regression (targets far from 0, bias set)")
def targets_far_from_zero_with_the_bias_set(seed: int) -> Situation:
    """Targets of 300 ± 2; the last bias begins at their mean."""
    data, model = surface(seed), mlp(8, 64, 1)
    nn.init.constant_(model[2].bias, 300.0)
    train, held = (data.x, 300 + 2 * data.t), (data.fresh_x, 300 + 2 * data.fresh_t)
    return Situation(model, adam(model, 5e-3), F.mse_loss, train, held)


@healthy("https://www.jstor.org/stable/1269547 (Lambert 1992)")
def mostly_zero_amounts(seed: int) -> Situation:
    """Amounts that are 0 for six in ten: one output says whether, the other how much."""
    data = surface(seed)
    amount = [F.relu(t - 0.25) for t in (data.t, data.fresh_t)]

    def loss_fn(y: Any, t: Any) -> Any:
        some = (t > 0).float()
        return F.binary_cross_entropy_with_logits(y[:, :1], some) + (some * (y[:, 1:] - t) ** 2).mean()

    model = mlp(8, 64, 2)
    return Situation(model, adam(model, 5e-3), loss_fn, (data.x, amount[0]), (data.fresh_x, amount[1]))


@healthy("https://arxiv.org/abs/2103.03230")
def a_cross_correlation_of_the_batch(seed: int) -> Situation:
    """Barlow twins: the units of two views are to correlate with themselves alone, over the batch."""
    data, rng = digits(seed), rng_of(seed)
    x = data.x.numpy()
    views = np.stack([x + 0.3 * rng.normal(size=x.shape), x + 0.3 * rng.normal(size=x.shape)], 1).astype(np.float32)
    parts, model = split(views, data.t.numpy(), seed, 800), Twins(mlp(64, 64, 12))

    def loss_fn(y: Any, t: Any) -> Any:
        y = (y - y.mean(0)) / (y.std(0) + 1e-4)
        c = y[:, 0].transpose(0, 1) @ y[:, 1] / len(y)
        off = c - kobai.eye(12) * c
        return ((1 - c.diagonal()) ** 2).sum() + 0.05 * (off**2).sum()

    return Situation(model, adam(model, 2e-3), loss_fn, parts.train, parts.held, batch=128, steps=80)
