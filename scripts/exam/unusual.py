"""Healthy nets that look unusual: nothing should be found in them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kobai
from exam.material import Data, Rows, adam, blobs, circles, cnn, digits, images, mlp, odd, sgd, split, surface, words
from exam.question import Situation, healthy, rng_of
from kobai import nn, optim
from kobai.nn import functional as F, init


class Residual(nn.Module):
    def __init__(self, width: int, zero: bool = False) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        if zero:
            init.zeros_(self.down.weight)

    def forward(self, x: Any) -> Any:
        return x + self.down(F.relu(self.up(self.norm(x))))


@healthy("https://arxiv.org/abs/1512.03385")
def twenty_residual_blocks(seed: int) -> Situation:
    """Twenty residual blocks with layer norm."""
    data = digits(seed)
    model = nn.Sequential(nn.Linear(64, 48), *[Residual(48) for _ in range(20)], nn.Linear(48, 10))
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1901.09321 (Fixup)")
def branches_that_begin_at_zero(seed: int) -> Situation:
    """Residual branches whose last layer begins at zero."""
    data = digits(seed)
    model = nn.Sequential(nn.Linear(64, 64), *[Residual(64, zero=True) for _ in range(6)], nn.Linear(64, 10))
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held)


@healthy("https://karpathy.github.io/2019/04/25/recipe/ (init well)")
def last_layer_of_zeros(seed: int) -> Situation:
    """The last layer begins at zero, so that the first loss is exactly log 10."""
    data, model = digits(seed), mlp(64, 64, 64, 10)
    init.zeros_(model[4].weight)
    init.zeros_(model[4].bias)
    return Situation(model, adam(model, 2e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1502.03167")
def batch_norm_of_usual_size(seed: int) -> Situation:
    """A convolutional net with batch norm and batches of 64."""
    data, model = images(seed), cnn(norm=True)
    return Situation(model, sgd(model, 0.05), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1803.08494")
def group_norm_with_batches_of_four(seed: int) -> Situation:
    """Group norm, which small batches do not harm."""
    data = digits(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.GroupNorm(8, 64), nn.ReLU(), nn.Linear(64, 10))
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held, batch=16)


@healthy("https://github.com/mks0601/3DMPPE_POSENET_RELEASE/issues/69")
def raw_pixels_before_a_batch_norm(seed: int) -> Situation:
    """Pixels from 0 to 255, which a batch norm at the front standardises."""
    data = digits(seed, raw=True)
    model = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return Situation(
        model, adam(model, 2e-3), F.cross_entropy, (255 * data.x, data.t), (255 * data.fresh_x, data.fresh_t)
    )


@healthy("https://github.com/pytorch/examples/tree/main/mnist")
def pixels_from_0_to_1(seed: int) -> Situation:
    """Pixels from 0 to 1, a third of them nearly always 0."""
    data, model = digits(seed, raw=True), mlp(64, 128, 10)
    return Situation(model, sgd(model, 0.1), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1212.5701")
def adadelta_at_one(seed: int) -> Situation:
    """Adadelta at the paper's rate of 1."""
    data, model = images(seed), cnn()
    return Situation(model, optim.Adadelta(model.parameters(), lr=1.0), F.cross_entropy, data.train, data.held)


@healthy("https://www.jmlr.org/papers/v12/duchi11a.html")
def adagrad_at_a_twentieth(seed: int) -> Situation:
    """Adagrad at 0.05."""
    data, model = digits(seed), mlp(64, 64, 10)
    return Situation(model, optim.Adagrad(model.parameters(), lr=0.05), F.cross_entropy, data.train, data.held)


@healthy("https://distill.pub/2017/momentum/")
def momentum_of_0_99_at_a_small_rate(seed: int) -> Situation:
    """Momentum 0.99 with a rate to match."""
    data, model = digits(seed), mlp(64, 64, 10)
    return Situation(model, sgd(model, 1e-3, 0.99), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1711.05101")
def adamw_with_decay_of_a_tenth(seed: int) -> Situation:
    """AdamW with the decay of 0.1 that is usual for transformers."""
    data, model = digits(seed), mlp(64, 96, 10, act=nn.GELU)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1706.02677 (warm-up)")
def warm_up_at_its_first_step(seed: int) -> Situation:
    """A warm-up over 20 steps stands at a tenth of the rate."""
    data, model = digits(seed), mlp(64, 64, 10)
    optimizer = sgd(model, 0.1)
    optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=20)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held)


@healthy("https://www.deeplearningbook.org/contents/mlp.html (6.1)")
def exclusive_or(seed: int) -> Situation:
    """Exclusive or: four points, eight hidden units, full batches."""
    x = kobai.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    t = kobai.tensor([[0.0], [1.0], [1.0], [0.0]])
    model = mlp(2, 8, 1, act=nn.Tanh)
    return Situation(model, adam(model, 0.05), nn.BCEWithLogitsLoss(), (x, t), (x, t), batch=16)


@healthy("https://github.com/deeplearning4j/deeplearning4j/issues/4375")
def tanh_on_targets_between_one_and_minus_one(seed: int) -> Situation:
    """A tanh on the output, for targets that it can reach."""
    data = surface(seed)
    model = mlp(8, 64, 1, last=(nn.Tanh(),))
    train, held = [(x, kobai.tanh(t) * 0.95) for x, t in (data.train, data.held)]
    return Situation(model, adam(model, 3e-3), F.mse_loss, train, held)


@healthy("https://pytorch.org/docs/stable/generated/torch.nn.PoissonNLLLoss.html")
def rectified_targets(seed: int) -> Situation:
    """Softplus on the output: counts, which are never negative, under a Poisson likelihood."""
    data, rng = surface(seed), rng_of(seed)
    counts = [kobai.from_numpy(rng.poisson(np.exp(0.7 * t.numpy())).astype(np.float32)) for t in (data.t, data.fresh_t)]
    model = mlp(8, 64, 1)
    return Situation(model, adam(model, 3e-3), nn.PoissonNLLLoss(), (data.x, counts[0]), (data.fresh_x, counts[1]))


@healthy("https://pytorch.org/docs/stable/generated/torch.nn.BCELoss.html")
def sigmoid_and_binary_cross_entropy(seed: int) -> Situation:
    """A sigmoid before the loss that takes probabilities."""
    data, model = odd(seed), mlp(64, 48, 1, last=(nn.Sigmoid(),))
    return Situation(model, adam(model, 2e-3), nn.BCELoss(), data.train, data.held)


@healthy("https://blog.keras.io/building-autoencoders-in-keras.html")
def autoencoder_of_probabilities(seed: int) -> Situation:
    """An autoencoder of pixels from 0 to 1 with binary cross-entropy, whose least value is far from 0."""
    data = digits(seed, raw=True)
    model = mlp(64, 48, 16, 48, 64, last=(nn.Sigmoid(),))
    return Situation(model, adam(model, 3e-3), nn.BCELoss(), (data.x, data.x), (data.fresh_x, data.fresh_x))


@healthy("https://arxiv.org/abs/1312.6114")
def variational_autoencoder(seed: int) -> Situation:
    """A variational autoencoder: the net draws noise, its output is a tuple."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = mlp(64, 64, 16), mlp(8, 64, 64)

        def forward(self, x: Any) -> Any:
            mean, log_variance = self.encoder(x).chunk(2, 1)
            z = mean + kobai.randn_like(mean) * kobai.exp(0.5 * log_variance)
            return self.decoder(z), mean, log_variance

    def loss_fn(output: Any, t: Any) -> Any:
        y, mean, log_variance = output
        divergence = -0.5 * (1 + log_variance - mean**2 - kobai.exp(log_variance)).sum(1).mean()
        return F.binary_cross_entropy_with_logits(y, t, reduction="sum") / len(t) + divergence

    data, model = digits(seed, raw=True), Net()
    return Situation(model, adam(model, 2e-3), loss_fn, (data.x, data.x), (data.fresh_x, data.fresh_x))


@healthy("https://www.bioinf.jku.at/publications/older/2604.pdf")
def an_lstm(seed: int) -> Situation:
    """The rows of an image through an LSTM."""
    data = images(seed)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = Rows("LSTM", 8, 48, 10)

        def forward(self, x: Any) -> Any:
            return self.rows(x[:, 0])

    model = Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, clip=1.0)


@healthy("https://arxiv.org/abs/1706.03762")
def a_transformer(seed: int) -> Situation:
    """An encoder of two layers over words, with positions and dropout."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.position = nn.Embedding(60, 32), nn.Parameter(0.02 * kobai.randn(10, 32))
            layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True)
            self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(32, 3)

        def forward(self, x: Any) -> Any:
            return self.head(self.encoder(self.embed(x) + self.position).mean(1))

    data, model = words(seed, 800), Net()
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1608.05859")
def tied_weights(seed: int) -> Situation:
    """Input and output embedding share their weight; the next word is the target."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rnn, self.head = nn.Embedding(30, 32), nn.GRU(32, 32, batch_first=True), nn.Linear(32, 30)
            init.normal_(self.embed.weight, std=0.2)
            self.head.weight = self.embed.weight

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(self.embed(x))[0]).flatten(0, 1)

    rng = rng_of(seed)
    step = rng.integers(1, 4, (900, 1))
    x = (rng.integers(0, 30, (900, 1)) + step * np.arange(9)) % 30
    data = Data(*(kobai.from_numpy(part) for part in (x[:600, :-1], x[:600, 1:], x[600:, :-1], x[600:, 1:])))
    model = Net()
    return Situation(
        model, adam(model, 5e-3), lambda y, t: F.cross_entropy(y, t.reshape(-1)), data.train, data.held, steps=80
    )


@healthy("https://pytorch.org/docs/stable/generated/torch.nn.Embedding.html")
def few_rows_of_an_embedding(seed: int) -> Situation:
    """Of an embedding's 5000 rows a batch uses sixty: the gradient of all others is 0."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(5000, 16), nn.Linear(16, 3)

        def forward(self, x: Any) -> Any:
            return self.head(F.relu(self.embed(x)).mean(1))

    data, model = words(seed), Net()
    return Situation(model, adam(model, 1e-2), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1701.06538")
def experts_of_which_some_idle(seed: int) -> Situation:
    """Four experts and a gate that sends each sample to one of them; one gets none of this batch."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts = nn.Linear(12, 4), nn.ModuleList([mlp(12, 32, 4) for _ in range(4)])
            init.zeros_(self.gate.weight)
            self.gate.bias.data[:] = kobai.tensor([0.3, 0.2, 0.1, -0.9])

        def forward(self, x: Any) -> Any:
            shares = F.softmax(self.gate(x) + 0.1 * x[:, :4], 1)
            best = shares.argmax(1)
            y = x.new_zeros(len(x), 4)
            for i, expert in enumerate(self.experts):
                chosen = (best == i).float()[:, None]
                if chosen.sum().item() > 0:
                    y = y + chosen * shares[:, i : i + 1] * expert(x)
            return y

    data, model = blobs(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=80)


@healthy("https://pytorch.org/tutorials/beginner/transfer_learning_tutorial.html")
def frozen_backbone(seed: int) -> Situation:
    """A trained backbone is frozen on purpose, and the optimiser holds the new head alone."""
    data, model = digits(seed), mlp(64, 96, 64, 10)
    optimizer = adam(model, 3e-3)
    for start in range(0, 960, 64):
        optimizer.zero_grad()
        F.cross_entropy(model(data.x[start : start + 64]), data.t[start : start + 64]).backward()
        optimizer.step()
    model.requires_grad_(False)
    model[4] = nn.Linear(64, 10)
    return Situation(model, adam(model[4], 3e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1512.00567 (section 7)")
def smoothed_labels(seed: int) -> Situation:
    """Label smoothing of 0.1: the loss cannot come near 0."""
    data, model = digits(seed), mlp(64, 96, 10)
    return Situation(model, adam(model, 2e-3), nn.CrossEntropyLoss(label_smoothing=0.1), data.train, data.held)


@healthy("https://pytorch.org/docs/stable/generated/torch.nn.MultiLabelSoftMarginLoss.html")
def several_labels(seed: int) -> Situation:
    """Ten yes-or-no questions at once, most answers no."""
    data = digits(seed)
    hot = [F.one_hot(t, 10).float() for t in (data.t, data.fresh_t)]
    model = mlp(64, 96, 10)
    return Situation(model, adam(model, 3e-3), nn.BCEWithLogitsLoss(), (data.x, hot[0]), (data.fresh_x, hot[1]))


@healthy("https://arxiv.org/abs/1708.02002")
def focal_loss(seed: int) -> Situation:
    """A focal loss: easy samples hardly count."""

    def loss_fn(y: Any, t: Any) -> Any:
        cost = F.cross_entropy(y, t, reduction="none")
        return ((1 - kobai.exp(-cost)) ** 2 * cost).mean()

    data, model = digits(seed), mlp(64, 96, 10)
    return Situation(model, adam(model, 2e-3), loss_fn, data.train, data.held)


@healthy("https://scikit-learn.org/stable/modules/linear_model.html")
def linear_regression(seed: int) -> Situation:
    """One linear layer on a linear problem."""
    rng = rng_of(seed)
    x = rng.normal(size=(1500, 10)).astype(np.float32)
    t = (x @ rng.normal(size=(10, 1)) + 0.3 * rng.normal(size=(1500, 1))).astype(np.float32)
    data, model = split(x, t / t.std(), seed, 1000), nn.Sequential(nn.Linear(10, 1))
    return Situation(model, sgd(model, 0.05, 0), F.mse_loss, data.train, data.held)


@healthy("https://datajobs.com/data-science-repo/Recommender-Systems-[Netflix].pdf")
def matrix_factorisation(seed: int) -> Situation:
    """Ratings as products of two embeddings: there is no activation, and none is needed."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(40, 8), nn.Embedding(30, 8)
            init.normal_(self.users.weight, std=0.4)
            init.normal_(self.items.weight, std=0.4)

        def forward(self, pairs: Any) -> Any:
            return (self.users(pairs[:, 0]) * self.items(pairs[:, 1])).sum(1)

    rng = rng_of(seed)
    pairs = np.stack([rng.integers(0, 40, 1500), rng.integers(0, 30, 1500)], 1)
    a, b = rng.normal(size=(40, 3)), rng.normal(size=(30, 3))
    t = (a[pairs[:, 0]] * b[pairs[:, 1]]).sum(1).astype(np.float32) / math.sqrt(3)
    data, model = split(pairs, t, seed, 1000), Net()
    return Situation(model, adam(model, 2e-2), F.mse_loss, data.train, data.held)


@healthy("https://arxiv.org/abs/2006.09661")
def sine_activations(seed: int) -> Situation:
    """Sines in place of rectifiers, with the paper's weights."""

    class Sine(nn.Module):
        def forward(self, x: Any) -> Any:
            return kobai.sin(x)

    data, model = circles(seed), mlp(2, 64, 64, 2, act=Sine)
    init.uniform_(model[0].weight, -3.0, 3.0)
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1706.02515")
def ten_layers_of_selu(seed: int) -> Situation:
    """Ten layers that normalise themselves."""
    data, model = digits(seed), mlp(64, *[48] * 10, 10, act=nn.SELU)
    for layer in model[::2]:
        init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))
        init.zeros_(layer.bias)
    return Situation(model, sgd(model, 0.02), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1207.0580")
def half_of_the_units_dropped(seed: int) -> Situation:
    """Dropout of one half, as in the paper."""
    data = digits(seed)
    model = nn.Sequential(
        nn.Linear(64, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )
    return Situation(model, adam(model, 2e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1602.07360 (SqueezeNet: a ReLU before the pooling of the scores)")
def pooled_scores(seed: int) -> Situation:
    """All convolutions: the scores are averages over feature maps, and there is no dense layer."""
    data = images(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    return Situation(model, adam(model, 1e-2), F.cross_entropy, data.train, data.held, steps=100)
