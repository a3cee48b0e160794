"""Healthy nets whose loss or task looks unusual: negative losses, pairs, rewards, critics, one output of many that counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kobai
from exam.material import Calls, adam, blobs, circles, digits, images, mlp, odd, sequences, sgd, split, surface, table
from exam.question import Situation, healthy, rng_of
from kobai import nn, optim
from kobai.nn import functional as F


@healthy("https://arxiv.org/abs/1701.07875")
def critic_with_a_negative_loss(seed: int) -> Situation:
    """A Wasserstein critic: scores of the one kind minus scores of the other, with a penalty on their size."""

    def loss_fn(y: Any, t: Any) -> Any:
        return (y * (1 - 2 * t)).mean() + 0.05 * (y**2).mean()

    data, model = odd(seed), mlp(64, 64, 1, act=lambda: nn.LeakyReLU(0.2))
    return Situation(model, adam(model, 1e-3), loss_fn, data.train, data.held)


@healthy("https://arxiv.org/abs/1406.2661")
def discriminator_of_noise(seed: int) -> Situation:
    """A discriminator of digits and noise."""
    data, rng = digits(seed), rng_of(seed)
    noise = kobai.from_numpy(rng.normal(size=(600, 64)).astype(np.float32))
    x = kobai.cat([data.x[:600], noise])
    t = kobai.cat([kobai.ones(600, 1), kobai.zeros(600, 1)])
    order = kobai.randperm(1200)
    x, t = x[order], t[order]
    model = mlp(64, 64, 1, act=lambda: nn.LeakyReLU(0.2))
    optimizer = adam(model, 2e-4, betas=(0.5, 0.999))
    return Situation(model, optimizer, nn.BCEWithLogitsLoss(), (x[:900], t[:900]), (x[900:], t[900:]))


@healthy("https://ieeexplore.ieee.org/document/374138 (Nix and Weigend 1994)")
def likelihood_that_is_negative(seed: int) -> Situation:
    """A Gaussian log-likelihood of targets on a small scale: the loss is negative once the fit is good."""

    def loss_fn(y: Any, t: Any) -> Any:
        mean, log_variance = y[:, :1], y[:, 1:]
        return 0.5 * (log_variance + (t - mean) ** 2 * kobai.exp(-log_variance)).mean()

    data, model = surface(seed), mlp(8, 64, 64, 2)
    train, held = (data.x, 0.3 * data.t), (data.fresh_x, 0.3 * data.fresh_t)
    return Situation(model, adam(model, 2e-3), loss_fn, train, held)


@healthy("https://publications.aston.ac.uk/id/eprint/373/")
def mixture_of_densities(seed: int) -> Situation:
    """A mixture of three Gaussians as the output of a net."""

    def loss_fn(y: Any, t: Any) -> Any:
        logits, mean, log_scale = y.chunk(3, 1)
        each = F.log_softmax(logits, 1) - log_scale - 0.5 * ((t - mean) * kobai.exp(-log_scale)) ** 2
        return -kobai.logsumexp(each, 1).mean()

    data, model = surface(seed), mlp(8, 64, 9, act=nn.Tanh)
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held)


@healthy("https://arxiv.org/abs/1503.03832")
def triplets(seed: int) -> Situation:
    """Embeddings trained by a triplet loss: anchor, positive and negative in one sample."""
    data = digits(seed)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = mlp(64, 64, 16)

        def forward(self, x: Any) -> Any:
            return F.normalize(self.embed(x.reshape(-1, 64)), dim=1).reshape(len(x), 3, 16)

    def loss_fn(y: Any, t: Any) -> Any:
        return F.triplet_margin_loss(y[:, 0], y[:, 1], y[:, 2], margin=0.5)

    rng = rng_of(seed)
    x, t = data.x.numpy(), data.t.numpy()
    anchors = rng.integers(0, len(t), 900)
    positive = np.array([rng.choice(np.flatnonzero(t == t[i])) for i in anchors])
    negative = np.array([rng.choice(np.flatnonzero(t != t[i])) for i in anchors])
    rows = np.stack([x[anchors], x[positive], x[negative]], 1)
    parts, model = split(rows, t[anchors], seed, 600), Net()
    return Situation(model, adam(model, 2e-3), loss_fn, parts.train, parts.held)


@healthy("https://arxiv.org/abs/2002.05709")
def contrastive_pairs(seed: int) -> Situation:
    """Two views of each image must find each other among all of the batch: the loss mixes samples, the net does not."""
    data, rng = digits(seed), rng_of(seed)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 96, 24)

        def forward(self, x: Any) -> Any:
            return F.normalize(self.body(x[:, 0]), dim=1), F.normalize(self.body(x[:, 1]), dim=1)

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y[0] @ y[1].transpose(0, 1) / 0.2, kobai.arange(len(t)))

    x = data.x.numpy()
    views = np.stack([x + 0.4 * rng.normal(size=x.shape), x + 0.4 * rng.normal(size=x.shape)], 1).astype(np.float32)
    parts, model = split(views, data.t.numpy(), seed, 800), Net()
    return Situation(model, adam(model, 2e-3), loss_fn, parts.train, parts.held, steps=80)


@healthy("https://www.nature.com/articles/nature14236")
def one_action_of_five_counts(seed: int) -> Situation:
    """Q-learning: only the output of the action that was taken gets a gradient."""

    def loss_fn(y: Any, t: Any) -> Any:
        return F.smooth_l1_loss(y.gather(1, t[:, :1].long())[:, 0], t[:, 1])

    data, rng = surface(seed), rng_of(seed)
    targets = []
    for t in (data.t, data.fresh_t):
        action = rng.integers(0, 5, (len(t), 1))
        targets.append(kobai.from_numpy(np.concatenate([action, t.numpy() * (1 + 0.3 * action)], 1).astype(np.float32)))
    model = mlp(8, 64, 64, 5)
    return Situation(model, adam(model, 2e-3), loss_fn, (data.x, targets[0]), (data.fresh_x, targets[1]))


@healthy("https://link.springer.com/article/10.1007/BF00992696")
def policy_gradient(seed: int) -> Situation:
    """A policy gradient: the loss is a reward times a log-probability, of either sign."""

    def loss_fn(y: Any, t: Any) -> Any:
        chosen = F.log_softmax(y, 1).gather(1, t[:, :1].long())[:, 0]
        return -(t[:, 1] * chosen).mean()

    data, rng = blobs(seed), rng_of(seed)
    targets = []
    for t in (data.t, data.fresh_t):
        action = rng.integers(0, 4, len(t))
        reward = np.where(action == t.numpy(), 1.0, -0.33)
        targets.append(kobai.from_numpy(np.stack([action, reward], 1).astype(np.float32)))
    model = mlp(12, 48, 4)
    return Situation(model, adam(model, 1e-3), loss_fn, (data.x, targets[0]), (data.fresh_x, targets[1]))


@healthy("https://arxiv.org/abs/1503.02531")
def taught_by_another_net(seed: int) -> Situation:
    """Distillation: the teacher is part of the module, frozen and without a gradient on purpose."""
    data = digits(seed)
    teacher = mlp(64, 96, 10)
    optimizer = adam(teacher, 3e-3)
    for start in range(0, 960, 64):
        optimizer.zero_grad()
        F.cross_entropy(teacher(data.x[start : start + 64]), data.t[start : start + 64]).backward()
        optimizer.step()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = mlp(64, 32, 10), teacher.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            with kobai.no_grad():
                taught = F.softmax(self.teacher(x) / 2, 1)
            return self.student(x), taught

    def loss_fn(y: Any, t: Any) -> Any:
        return 0.5 * F.cross_entropy(y[0], t) - 0.5 * (y[1] * F.log_softmax(y[0] / 2, 1)).sum(1).mean()

    model = Net()
    return Situation(model, adam(model.student, 2e-3), loss_fn, data.train, data.held)


@healthy("https://www.jstor.org/stable/1913643")
def quantile_regression(seed: int) -> Situation:
    """The pinball loss of three quantiles."""

    def loss_fn(y: Any, t: Any) -> Any:
        q, gap = kobai.tensor([0.1, 0.5, 0.9]), t - y
        return kobai.maximum(q * gap, (q - 1) * gap).mean()

    data, model = surface(seed), mlp(8, 64, 3)
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held)


@healthy("https://pytorch.org/docs/stable/generated/torch.nn.MultiMarginLoss.html")
def hinge_loss(seed: int) -> Situation:
    """A margin loss, which is exactly 0 for samples that are well apart."""
    data, model = digits(seed), mlp(64, 64, 10)
    return Situation(model, adam(model, 1e-3), nn.MultiMarginLoss(), data.train, data.held)


@healthy("https://arxiv.org/abs/1801.07698")
def cosine_classifier(seed: int) -> Situation:
    """Scores are cosines times 16: bounded on purpose, and wide enough."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = mlp(64, 96, 32), nn.Linear(32, 10, bias=False)

        def forward(self, x: Any) -> Any:
            return 16 * F.normalize(self.body(x), dim=1) @ F.normalize(self.head.weight, dim=1).transpose(0, 1)

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 2e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1710.09412")
def mixed_up_targets(seed: int) -> Situation:
    """mixup: inputs and one-hot targets are averages of two samples."""
    data, rng = digits(seed), rng_of(seed)
    share = rng.beta(0.4, 0.4, (len(data.t), 1)).astype(np.float32)
    order = rng.permutation(len(data.t))
    hot = F.one_hot(data.t, 10).float().numpy()
    x = share * data.x.numpy() + (1 - share) * data.x.numpy()[order]
    t = share * hot + (1 - share) * hot[order]
    model = mlp(64, 96, 10)
    fresh = F.one_hot(data.fresh_t, 10).float()
    return Situation(
        model, adam(model, 2e-3), F.cross_entropy, (kobai.from_numpy(x), kobai.from_numpy(t)), (data.fresh_x, fresh)
    )


@healthy("https://arxiv.org/abs/1810.04805 (masked words)")
def most_of_the_labels_left_out(seed: int) -> Situation:
    """Half of the labels are −100, which the loss leaves out."""
    data, model = digits(seed), mlp(64, 96, 10)
    t = data.t.clone()
    t[::2] = -100
    return Situation(model, adam(model, 3e-3), F.cross_entropy, (data.x, t), data.held)


@healthy("https://scikit-learn.org/stable/modules/generated/sklearn.utils.class_weight.compute_class_weight.html")
def rare_class_with_its_weight(seed: int) -> Situation:
    """One sample in seven is of the rare class, and counts six times."""
    data = odd(seed)
    ones = np.flatnonzero(data.t.numpy()[:, 0] == 1)
    rows = np.concatenate([np.flatnonzero(data.t.numpy()[:, 0] == 0), ones[: len(ones) // 6]])
    rows = kobai.from_numpy(rng_of(seed).permutation(rows))
    model = mlp(64, 48, 1)
    loss_fn = nn.BCEWithLogitsLoss(pos_weight=kobai.tensor([6.0]))
    return Situation(model, adam(model, 2e-3), loss_fn, (data.x[rows], data.t[rows]), data.held)


@healthy("https://archive.ics.uci.edu/dataset/109/wine")
def a_small_table(seed: int) -> Situation:
    """124 wines, standardised, in full batches."""
    data = table("wine", seed)
    mean, std = data.x.mean(0), data.x.std(0)
    model = mlp(13, 16, 3)
    train, held = ((data.x - mean) / std, data.t), ((data.fresh_x - mean) / std, data.fresh_t)
    return Situation(model, adam(model, 1e-2), F.cross_entropy, train, held, batch=124)


@healthy("https://scikit-learn.org/stable/datasets/toy_dataset.html (diabetes)")
def a_noisy_regression(seed: int) -> Situation:
    """A table whose targets can be explained by half at best."""
    data = table("diabetes", seed)
    scale, mean, std = data.x.std(0), data.t.mean(), data.t.std()
    model = mlp(10, 16, 1)
    train, held = (data.x / scale, (data.t - mean) / std), (data.fresh_x / scale, (data.fresh_t - mean) / std)
    return Situation(model, adam(model, 3e-3), F.mse_loss, train, held, batch=32)


@healthy("https://arxiv.org/abs/1409.2329")
def a_state_space_of_two_directions(seed: int) -> Situation:
    """A bidirectional GRU over short walks, with dropout between its layers and clipped gradients."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 16, 2, batch_first=True, bidirectional=True, dropout=0.2)
            self.head = nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0].mean(1))

    data, model = sequences(seed, 600, length=8), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, clip=1.0, steps=60)


@healthy("https://arxiv.org/abs/1411.4038")
def a_label_for_each_pixel(seed: int) -> Situation:
    """A label for each of 64 pixels: bright or dark among the neighbours."""
    data = images(seed)
    targets = [(x[:, 0] > F.avg_pool2d(x, 3, 1, 1)[:, 0]).long() for x in (data.x, data.fresh_x)]
    model = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 2, 3, padding=1))
    return Situation(
        model, adam(model, 5e-3), F.cross_entropy, (data.x, targets[0]), (data.fresh_x, targets[1]), steps=60
    )


@healthy("https://arxiv.org/abs/2103.00020")
def a_learnt_temperature(seed: int) -> Situation:
    """A single scalar parameter scales all scores, as the temperature of contrastive nets does."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.log_scale = mlp(64, 64, 10), nn.Parameter(kobai.tensor(math.log(2.0)))

        def forward(self, x: Any) -> Any:
            return kobai.exp(self.log_scale) * self.body(x)

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 2e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1505.00387")
def written_with_functions(seed: int) -> Situation:
    """Activations, normalisation and dropout are all called in forward."""
    data, model = (
        digits(seed),
        Calls(64, 96, 64, 10, act=lambda x: F.dropout(F.gelu(F.layer_norm(x, x.shape[1:])), 0.1)),
    )
    return Situation(model, adam(model, 2e-3), F.cross_entropy, data.train, data.held)


@healthy("https://karpathy.github.io/2019/04/25/recipe/ (overfit)")
def trained_already(seed: int) -> Situation:
    """A net that has learnt already: its loss and its gradients are small."""
    data, model = circles(seed), mlp(2, 32, 32, 2)
    optimizer = adam(model, 1e-2)
    for start in range(0, 200 * 4, 4):
        rows = slice(start % 900, start % 900 + 100)
        optimizer.zero_grad()
        F.cross_entropy(model(data.x[rows]), data.t[rows]).backward()
        optimizer.step()
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1608.03983")
def an_epoch_watched(seed: int) -> Situation:
    """The doctor watches a training of eight epochs with a cosine schedule that ends with it."""
    data, model = digits(seed), mlp(64, 64, 10)
    optimizer = sgd(model, 0.05)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, epochs=8, scheduler=scheduler)
