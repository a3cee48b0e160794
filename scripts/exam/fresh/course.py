"""Fresh: the optimiser, capacity, weights, batch statistics, and what shows over epochs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kobai
from exam.epochs import OVERFIT
from exam.fresh.material import (
    Reader,
    Speaker,
    Twins,
    Variational,
    divergence,
    per_word,
    reconstruction,
    sentences,
    triples,
)
from exam.material import adam, cnn, digits, images, mlp, sequences, sgd, split, words
from exam.optimisers import DECAY, LARGE, SCHEDULE, SMALL, TOO_LARGE, TOO_SMALL
from exam.question import Situation, asked, rng_of
from kobai import nn, optim
from kobai.nn import functional as F

# --- the optimiser ------------------------------------------------------------------------------------------------------

KIND = "optimiser"


@asked(KIND, "https://github.com/omoindrot/tensorflow-triplet-loss/issues/6", TOO_LARGE, LARGE)
def triplets_that_collapse_to_a_point(seed: int, ill: bool) -> Situation:
    """Under a large rate all embeddings become one point, and the triplet loss stays at its margin."""
    parts, model = triples(seed, digits(seed)), Twins(mlp(64, 64, 64, 16))

    def loss_fn(y: Any, t: Any) -> Any:
        return F.triplet_margin_loss(y[:, 0], y[:, 1], y[:, 2], margin=0.5)

    return Situation(model, adam(model, 0.3 if ill else 2e-3), loss_fn, parts.train, parts.held, steps=100)


@asked(KIND, "https://github.com/NVIDIA/warp/issues/1143", DECAY)
def momentum_given_as_weight_decay(seed: int, ill: bool) -> Situation:
    """The optimiser's arguments are in another order: 0.9 is taken for weight decay, and the momentum is 0."""
    data, model = sentences(seed), Speaker(kind="LSTM")
    options = {"momentum": 0.0, "weight_decay": 0.9} if ill else {"momentum": 0.9, "weight_decay": 0.0}
    return Situation(model, optim.SGD(model.parameters(), lr=0.3, **options), per_word, data.train, data.held)


@asked(KIND, "https://github.com/offbit/evo-design/issues/3", TOO_SMALL, SMALL)
def weight_decay_given_as_rate(seed: int, ill: bool) -> Situation:
    """The line that makes the optimiser reads lr=weight_decay, which is 1e-5."""
    data, model = sequences(seed), nn.Sequential(nn.Flatten(), mlp(48, 64, 64, 4))
    return Situation(model, sgd(model, 1e-5 if ill else 0.05), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/OpenNMT/OpenNMT-py/issues/805", TOO_LARGE, LARGE)
def rate_of_sgd_left_for_adam(seed: int, ill: bool) -> Situation:
    """Adam takes the default rate of 1 that was meant for plain gradient descent, in a transformer."""
    data, model = sentences(seed), Reader()
    return Situation(model, adam(model, 1.0 if ill else 3e-3), per_word, data.train, data.held, steps=100)


@asked(
    KIND,
    "https://github.com/pytorch/pytorch/issues/2769",
    TOO_LARGE + r"|clip|explod",
    (*LARGE, "exploding-gradient", "non-finite"),
)
def recurrent_net_that_explodes(seed: int, ill: bool) -> Situation:
    """A recurrent net of rectifiers over sixteen steps, with momentum and a rate that its steepest batches do not bear."""
    data = sequences(seed, length=16)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(4, 32, nonlinearity="relu", batch_first=True)
            self.head = nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=1.0 if ill else 0.03, momentum=0.9)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, clip=None if ill else 1.0)


@asked(
    KIND,
    "https://github.com/fastai/fastai/issues/3023",
    TOO_LARGE + r"|reduction|accumulat|divide[^.]{0,30}number|\bsum(s|med)?\b",
    LARGE,
)
def micro_batches_that_are_not_averaged(seed: int, ill: bool) -> Situation:
    """The losses of 32 micro-batches are added up, and not divided by their number: the rate is 32 times as large."""

    def loss_fn(y: Any, t: Any) -> Any:
        parts = [F.cross_entropy(a, b) for a, b in zip(y.split(2), t.split(2), strict=True)]
        return sum(parts) / (1 if ill else len(parts))

    data, model = images(seed), cnn(norm=False)
    return Situation(model, sgd(model, 0.05), loss_fn, data.train, data.held, steps=100, score=F.cross_entropy)


# --- capacity -----------------------------------------------------------------------------------------------------------

CAPACITY = "capacity"


@asked(
    CAPACITY,
    "https://github.com/tejaslodaya/timeseries-clustering-vae/pull/4",
    r"first (step|position|output|word)|last (step|position|output)|does not depend|ignor|most of (the|its) input|"
    r"(steps|positions|features|parts) of (the|its) input|input[^.]{0,50}(unused|not used|no (effect|influence))",
)
def the_first_state_instead_of_the_last(seed: int, ill: bool) -> Situation:
    """The classifier reads the recurrent net's output at the first step, when it has seen one element of twelve."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(4, 32, batch_first=True), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, 0 if ill else -1])

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


@asked(
    CAPACITY,
    "https://github.com/phlippe/uvadlc_notebooks/issues/147",
    r"activation|non-?linear|linear (map|net|function)",
)
def graph_layers_without_activation(seed: int, ill: bool) -> Situation:
    """Layers on a graph average over the neighbours and multiply, with no activation between them."""
    rng = rng_of(seed)
    x = rng.normal(size=(1300, 8, 3)).astype(np.float32)
    t = np.abs(x[..., 0] + np.roll(x[..., 1], 1, 1)).sum(1, keepdims=True)
    data = split(x, ((t - t.mean()) / t.std()).astype(np.float32), seed, 800)
    ring = kobai.from_numpy(((np.eye(8) + np.roll(np.eye(8), 1, 0) + np.roll(np.eye(8), -1, 0)) / 3).astype(np.float32))

    class Layer(nn.Module):
        def __init__(self, n_in: int, n_out: int) -> None:
            super().__init__()
            self.own, self.others = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out, bias=False)

        def forward(self, x: Any) -> Any:
            y = self.own(x) + self.others(ring @ x)
            return y if ill else F.relu(y)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = nn.Sequential(Layer(3, 32), Layer(32, 32)), nn.Linear(32, 1)

        def forward(self, x: Any) -> Any:
            return self.head(self.layers(x).sum(1))

    model = Net()
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@asked(
    CAPACITY,
    "https://github.com/facebookresearch/detr/issues/96",
    r"mask|padding|does not depend|ignor|same (output|answer)|constant|no effect|(none|nothing|most|parts?) of (the|its) input",
)
def a_padding_mask_the_wrong_way_round(seed: int, ill: bool) -> Situation:
    """key_padding_mask is True for the words where it should be for the padding: attention sees padding alone."""
    data = words(seed)
    x = [kobai.cat([x + 1, kobai.zeros(len(x), 4, dtype=kobai.int64)], 1) for x in (data.x, data.fresh_x)]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(61, 24)
            self.attention = nn.MultiheadAttention(24, 2, batch_first=True)
            self.query, self.head = nn.Parameter(kobai.randn(1, 1, 24)), nn.Linear(24, 3)

        def forward(self, x: Any) -> Any:
            h, padding = self.embed(x), x == 0
            mask = ~padding if ill else padding
            return self.head(self.attention(self.query.expand(len(x), 1, 24), h, h, key_padding_mask=mask)[0][:, 0])

    model = Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, (x[0], data.t), (x[1], data.fresh_t))


@asked(
    CAPACITY,
    "https://github.com/akshat0123/GPT-1/pull/6",
    r"position|permut|order of (the|its) (words|steps|inputs?|tokens|elements)",
)
def a_question_of_order_without_positions(seed: int, ill: bool) -> Situation:
    """Which of two words comes first is asked of a transformer that has no positions: it sees a bag of words."""
    rng = rng_of(seed)
    x = rng.integers(2, 20, (1200, 10))
    places = np.stack([rng.permutation(10)[:2] for _ in x])
    rows = np.arange(len(x))
    x[rows, places[:, 0]], x[rows, places[:, 1]] = 0, 1
    data = split(x, (places[:, 0] < places[:, 1]).astype(np.int64), seed, 800)
    model = Reader(outputs=2, causal=False, pooled=True, positions=not ill)
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


# --- weights ------------------------------------------------------------------------------------------------------------


@asked(
    "weights and signal",
    "https://github.com/pytorch/pytorch/issues/3121",
    r"embed|initial|first loss|last layer|(scores|outputs?|weights?)[^.]{0,40}too (large|great|high)",
)
def an_embedding_of_deviation_one_as_the_last_layer(seed: int, ill: bool) -> Situation:
    """Input embedding and last layer share a weight that is drawn with deviation 1: the scores are far too large."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rnn = nn.Embedding(20, 160), nn.GRU(160, 160, batch_first=True)
            if not ill:
                nn.init.normal_(self.embed.weight, std=0.05)

        def forward(self, x: Any) -> Any:
            return F.linear(4 * self.rnn(self.embed(x))[0], self.embed.weight)

    data, model = sentences(seed, count=400), Net()
    return Situation(model, sgd(model, 0.02), per_word, data.train, data.held, batch=32, steps=60)


# --- batch statistics ---------------------------------------------------------------------------------------------------

STATISTICS = "batch statistics"


@asked(
    STATISTICS, "https://github.com/wenwenyu/PICK-pytorch/issues/77", r"dropout|eval|training=|self\.training|random"
)
def dropout_that_never_ends(seed: int, ill: bool) -> Situation:
    """F.dropout is called without training=self.training: it goes on in evaluation."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(64, 96), nn.Linear(96, 96), nn.Linear(96, 10)

        def forward(self, x: Any) -> Any:
            drop = {} if ill else {"training": self.training}
            h = F.dropout(F.relu(self.first(x)), 0.5, **drop)
            return self.head(F.dropout(F.relu(self.second(h)), 0.5, **drop))

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(
    STATISTICS,
    "https://github.com/pytorch/pytorch/issues/19250",
    r"group ?norm|instance ?norm|one (value|element|number)|single|constant|does not depend|norm[^.]{0,40}(zero|\b0\b)",
)
def group_norm_of_single_values(seed: int, ill: bool) -> Situation:
    """GroupNorm(64, 64) after global pooling: each group is one number, and its deviation from itself is 0."""
    data = images(seed)
    groups = 64 if ill else 8
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 64, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.GroupNorm(groups, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=100)


@asked(STATISTICS, "https://github.com/fartashf/vsepp/issues/4", r"batch ?norm|running|averag|eval")
def evaluation_mode_that_was_never_left(seed: int, ill: bool) -> Situation:
    """After a first validation the body is left in evaluation mode: batch norm divides by averages it no longer takes."""
    data = digits(seed)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            parts = [nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU()]
            parts += [part for _ in range(6) for part in (nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU())]
            self.body, self.head = nn.Sequential(*parts), nn.Linear(64, 10)

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            if ill:
                self.body.eval()
            return self

        def forward(self, x: Any) -> Any:
            return self.head(self.body(x))

    model = Net().train()
    return Situation(model, sgd(model, 0.02), F.cross_entropy, data.train, data.held)


# --- over epochs --------------------------------------------------------------------------------------------------------

EPOCHS = "over epochs"


@asked(EPOCHS, "https://github.com/tensorflow/recommenders/issues/252", OVERFIT)
def ratings_by_heart(seed: int, ill: bool) -> Situation:
    """A factorisation of few ratings has a free vector of 64 numbers for each user: it learns them by heart."""
    rng = rng_of(seed)
    users, items = rng.normal(size=(60, 2)), rng.normal(size=(40, 2))
    pairs = np.stack([rng.integers(0, 60, 2000), rng.integers(0, 40, 2000)], 1)
    t = (users[pairs[:, 0]] * items[pairs[:, 1]]).sum(1, keepdims=True) + 0.3 * rng.normal(size=(2000, 1))
    data = split(pairs, t.astype(np.float32), seed, 500 if ill else 1500)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = 64 if ill else 4
            self.user, self.item = nn.Embedding(60, width), nn.Embedding(40, width)
            for table in (self.user, self.item):
                nn.init.normal_(table.weight, std=0.3)

        def forward(self, x: Any) -> Any:
            return (self.user(x[:, 0]) * self.item(x[:, 1])).sum(1, keepdim=True)

    model = Net()
    optimizer = adam(model, 1e-2)
    return Situation(model, optimizer, F.mse_loss, data.train, data.held, epochs=30 if ill else 8)


@asked(EPOCHS, "https://github.com/FunctionLab/selene/issues/115", SCHEDULE + "|plateau|mode|" + TOO_SMALL, SMALL)
def a_plateau_schedule_that_waits_for_a_rise(seed: int, ill: bool) -> Situation:
    """ReduceLROnPlateau(mode="max") watches a loss: as long as that falls, the rate is cut."""
    data, model = digits(seed), mlp(64, 64, 64, 10)
    optimizer = sgd(model, 0.1, 0.0)
    mode = "max" if ill else "min"
    scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode=mode, patience=0, factor=0.1)
    return Situation(
        model, optimizer, F.cross_entropy, data.train, data.held, epochs=8, scheduler=scheduler, score=F.cross_entropy
    )


@asked(
    EPOCHS,
    "https://github.com/CodefyUI/CodefyUI/issues/244",
    SCHEDULE + "|" + TOO_SMALL + "|onecycle|one ?cycle",
    SMALL,
)
def one_cycle_that_never_begins(seed: int, ill: bool) -> Situation:
    """OneCycleLR is made for far more steps than will be taken: the rate stays at its lowest."""
    data, model = digits(seed), mlp(64, 64, 64, 10)
    optimizer = sgd(model, 0.05)
    steps = 8 * 19 * (200 if ill else 1) + 1
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=steps, div_factor=2000)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, epochs=8, scheduler=scheduler)


@asked(
    EPOCHS,
    "https://github.com/vanderschaarlab/synthcity/issues/331",
    r"exp\b|exponential|overflow|clamp|input[^.]{0,60}(scale|large|standardi)",
    ("input-scale",),
)
def a_variance_that_overflows(seed: int, ill: bool) -> Situation:
    """A VAE's log-variance is not bounded, and its exponential of a table with large columns is infinite."""
    data = digits(seed)
    far = [80.0 * x if ill else x for x in (data.x, data.fresh_x)]

    def loss_fn(y: Any, t: Any) -> Any:
        return F.mse_loss(y[0], t) * t.shape[1] + divergence(*y[1:]).mean()

    model = Variational()
    return Situation(
        model, adam(model, 3e-3), loss_fn, (far[0], data.x), (far[1], data.fresh_x), epochs=4, score=reconstruction
    )


@asked(
    EPOCHS,
    "https://github.com/erickrf/multiffn-nli/issues/10",
    r"mask|softmax|attention|-inf|padding|some samples?|sample \d|row \d|now and then",
)
def a_sentence_of_padding_alone(seed: int, ill: bool) -> Situation:
    """One sentence of hundreds is empty: all its attention scores are minus infinity, and their softmax is NaN."""
    data = words(seed)
    x = [kobai.cat([x + 1, kobai.zeros(len(x), 2, dtype=kobai.int64)], 1) for x in (data.x, data.fresh_x)]
    if ill:
        x[0][700] = 0

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.score, self.head = nn.Embedding(61, 24), nn.Linear(24, 1), nn.Linear(24, 3)

        def forward(self, x: Any) -> Any:
            h = self.embed(x)
            weight = F.softmax(self.score(h)[..., 0].masked_fill(x == 0, -math.inf), dim=1)
            return self.head((weight[..., None] * h).sum(1))

    model = Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, (x[0], data.t), (x[1], data.fresh_t), epochs=4)
