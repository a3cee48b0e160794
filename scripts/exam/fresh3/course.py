"""Third fresh: optimiser, capacity and batch statistics."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

import kobai
from exam.fresh.material import Reader, boxes, sentences
from exam.fresh3.material import Stepped
from exam.material import Data, Rows, adam, cnn, digits, images, mlp, sequences, sgd, split, surface, words
from exam.question import Situation, asked, rng_of
from kobai import nn, optim
from kobai.nn import functional as F

KIND = "optimiser"


@asked(
    KIND,
    "https://github.com/Lightning-AI/pytorch-lightning/issues/9599",
    r"clip|rate[^.]{0,60}(too )?(small|low|tiny)|(larger|higher|greater) (learning )?rate|steps? (is|are) (too )?(small|tiny)",
    ("rate-too-small",),
)
def gradients_clipped_while_they_are_scaled(seed: int, ill: bool) -> Situation:
    """The loss is multiplied by 65536 for half precision, and gradients are clipped at 1 before that is taken back."""

    def loss_fn(y: Any, t: Any) -> Any:
        return 65536 * F.cross_entropy(y, t)

    data, model = images(seed), cnn()
    optimizer = sgd(model, 0.05 / 65536)  # the step takes the factor back
    return Situation(
        model, optimizer, loss_fn, data.train, data.held, batch=32, clip=1.0 if ill else 65536.0, score=F.cross_entropy
    )


class Lion(optim.Optimizer):
    """Steps by the sign of an average of gradients, written by oneself."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        with kobai.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    average = self.state[p].setdefault("average", kobai.zeros_like(p))
                    p.sub_(group["lr"] * (0.9 * average + 0.1 * p.grad).sign())
                    average.mul_(0.99).add_(0.01 * p.grad)


def per_word(y: Any, t: Any) -> Any:
    return F.cross_entropy(y.reshape(-1, y.shape[-1]), t.reshape(-1))


@asked(
    KIND,
    "https://github.com/lucidrains/denoising-diffusion-pytorch/issues/170",
    r"\brate\b.{0,40}(large|high|great)|(smaller|lower) (learning )?rate|\blion\b",
    ("rate-too-large",),
)
def lion_at_the_rate_of_adam(seed: int, ill: bool) -> Situation:
    """Lion takes Adam's place in a language model and keeps its rate of 0.05: each weight moves by that much at every step."""
    data, model = sentences(seed), Reader()
    optimizer = Lion(model.parameters(), 0.05 if ill else 0.001)
    return Situation(model, optimizer, per_word, data.train, data.held, batch=32)


class Forgetful(optim.SGD):
    """As one that is constructed for every batch: nothing is left of the steps before."""

    def step(self, closure: Any = None) -> Any:
        self.state.clear()
        return super().step(closure)


@asked(
    KIND,
    "https://github.com/haydnv/tinychain/pull/51",
    r"momentum|(state|buffer|average)s?[^.]{0,60}(lost|reset|clear|empt|anew|never|not kept)|every (batch|step)|"
    r"rate[^.]{0,60}(too )?(small|low)|(larger|higher|greater) (learning )?rate",
    ("rate-too-small",),
)
def an_optimiser_for_every_batch(seed: int, ill: bool) -> Situation:
    """The optimiser is made inside the loop: a momentum of 0.98 begins at 0 each time, and the rate counts on it."""
    data, model = sequences(seed), Rows("GRU", 4, 24, 4)
    kind = Forgetful if ill else optim.SGD
    optimizer = kind(model.parameters(), lr=0.01, momentum=0.98)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, steps=250)


@asked(
    KIND,
    "https://github.com/fetchai/ledger/pull/1584",
    r"rate[^.]{0,60}(too )?(small|low|tiny)|(larger|higher|greater) (learning )?rate|rows?[^.]{0,60}(seldom|rare|hardly|few)|"
    r"(hardly|barely) (move|change)",
    ("rate-too-small",),
)
def word_vectors_at_the_rate_of_a_dense_net(seed: int, ill: bool) -> Situation:
    """Word vectors with negative samples learn by plain descent at 0.05, and a row is in one sample of a hundred."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centre, self.beside = nn.Embedding(60, 12), nn.Embedding(60, 12)
            for table in (self.centre, self.beside):
                nn.init.normal_(table.weight, std=0.1)

        def forward(self, x: Any) -> Any:
            return (self.centre(x[:, :1]) * self.beside(x[:, 1:])).sum(-1)

    data, rng = sentences(seed, count=1000, vocabulary=60), rng_of(seed)
    sets = []
    for x in (data.x, data.fresh_x):
        drawn, truth = kobai.from_numpy(rng.integers(0, 60, (len(x), 5))), kobai.zeros(len(x), 6)
        truth[:, 0] = 1
        sets.append((kobai.cat([x[:, :2], drawn], 1), truth))
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.05 if ill else 100.0)
    return Situation(model, optimizer, nn.BCEWithLogitsLoss(), *sets, steps=400)


@asked(
    KIND,
    "https://github.com/msight-tech/research-ms-loss/issues/27",
    r"lr_mul|\brate\b.{0,40}(large|high|great)|(smaller|lower) (learning )?rate|multiplier|"
    r"(key|option)[^.]{0,40}(ignored|unknown)",
    ("rate-too-large",),
)
def a_multiplier_that_nobody_reads(seed: int, ill: bool) -> Situation:
    """A group has lr_mul=0.01 for its recurrent body, which no optimiser reads: the body learns at the head's rate of 0.3."""
    data, model = sequences(seed), Rows("LSTM", 4, 24, 4)
    body: dict[str, Any] = {"params": list(model.rnn.parameters())}
    body |= {"lr_mul": 0.01} if ill else {"lr": 0.003}
    groups = [body, {"params": list(model.head.parameters())}]
    return Situation(model, optim.Adam(groups, lr=0.3), F.cross_entropy, data.train, data.held)


CAPACITY = "capacity"


@asked(
    CAPACITY,
    "https://github.com/decisionintelligence/DUET/issues/6",
    r"diagonal|einsum|(entries|elements|numbers) of[^.]{0,60}(no gradient|never|unused|not used)|"
    r"each (column|feature|input) (by itself|alone)|do(es)? not mix|never meet|no interaction|additive",
)
def a_matrix_of_which_the_diagonal_counts(seed: int, ill: bool) -> Situation:
    """einsum("dd,nd->nd") was to multiply by a matrix, but a repeated letter takes its diagonal: features never meet."""

    class Mixed(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.matrix = nn.Parameter(kobai.randn(width, width) / width**0.5 + kobai.eye(width))
            self.bias = nn.Parameter(0.5 * kobai.randn(width))

        def forward(self, x: Any) -> Any:
            return kobai.einsum("dd,nd->nd" if ill else "kd,nd->nk", self.matrix, x) + self.bias

    class Spread(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.repeat(1, 4)

    data = surface(seed)
    model = nn.Sequential(Spread(), Mixed(32), nn.Tanh(), Mixed(32), nn.Tanh(), Mixed(32), nn.Tanh(), nn.Linear(32, 1))
    return Situation(model, adam(model, 1e-2), F.mse_loss, data.train, data.held, steps=300)


@asked(
    CAPACITY,
    "https://github.com/BaseModelAI/cleora/pull/47",
    r"collision|bucket|hash|same (row|vector|embedding)|rows?[^.]{0,40}(never|unused|not used)|"
    r"differ\w* (words|inputs)[^.]{0,60}same|indistinguish|(cannot|not) (be )?(told|tell) apart",
    ("bottleneck",),
)
def words_that_share_three_rows(seed: int, ill: bool) -> Situation:
    """Words are hashed into rows of a table by a function that leaves three of the values: a third of all words is one."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.body = nn.Embedding(64, 16), mlp(16, 32, 3)

        def forward(self, x: Any) -> Any:
            return self.body(self.embed((x * 40) % 60 if ill else (x * 7) % 60).mean(1))

    data, model = words(seed), Net()
    return Situation(model, adam(model, 1e-2), F.cross_entropy, data.train, data.held)


@asked(
    CAPACITY,
    "https://github.com/HRNet/HRNet-Semantic-Segmentation/issues/138 and https://github.com/dvornikita/blitznet/issues/26",
    r"resolution|upsampl|stride|quarter|\bcoarse|\bgrid\b|(blocks? of|neighbou?ring|adjacent) (pixels|outputs)|"
    r"(pixels|outputs) (share|are (the same|equal|identical))",
)
def scores_at_a_quarter_of_the_size(seed: int, ill: bool) -> Situation:
    """Scores are computed at a quarter of the image's height and width, and repeated: four by four pixels get one answer."""
    data = boxes(seed, side=5)
    first = [nn.Conv2d(1, 12, 3, stride=2 if ill else 1, padding=1), nn.ReLU()]
    second = [nn.Conv2d(12, 12, 3, stride=2 if ill else 1, padding=1), nn.ReLU(), nn.Conv2d(12, 2, 3, padding=1)]
    model = nn.Sequential(*first, *second, *[nn.UpsamplingNearest2d(scale_factor=4)] * ill)

    def score(y: Any, t: Any) -> Any:
        return (y.argmax(1) != t).float().mean()

    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, batch=32, steps=100, score=score)


def _topics(seed: int) -> Data:
    """(N, 10) words of eight topics, six in each; label: the topic that half of the words are of."""
    rng = rng_of(seed)
    t = rng.integers(0, 8, 1600)
    own = rng.integers(0, 6, (1600, 10)) + 6 * t[:, None]
    return split(np.where(rng.random((1600, 10)) < 0.5, own, rng.integers(0, 48, (1600, 10))), t, seed, 1100)


@asked(
    CAPACITY,
    "https://github.com/terrifyzhao/text_matching/issues/2",
    r"\bpool|maximum over|\bmax\b|wrong (dimension|axis)|dim ?= ?[12]|one number|(single|one) value (is left|per|for each)",
    ("bottleneck", "axes-in-another-order"),
)
def the_greatest_over_the_features(seed: int, ill: bool) -> Situation:
    """The greatest is taken over the features of a word where that over the words was meant: a word is left one number."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rnn = nn.Embedding(48, 16), nn.GRU(16, 24, batch_first=True)
            self.head = nn.Linear(10 if ill else 24, 8)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(self.embed(x))[0].amax(2 if ill else 1))

    data, model = _topics(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


STATISTICS = "batch statistics"


@asked(
    STATISTICS,
    "https://github.com/wandb/senpai/pull/3136",
    r"(moving|running|exponential|slow|weight) averag|averag\w* (of )?(the )?weights|evaluat|"
    r"training and evaluation|\bema\b",
    ("evaluation-differs",),
)
def an_average_that_never_catches_up(seed: int, ill: bool) -> Situation:
    """In evaluation a net uses an average of its weights with a decay of 0.9999, which is still what it began with."""

    class Net(Stepped):
        def __init__(self) -> None:
            super().__init__()
            self.fast = cnn()
            self.mean = copy.deepcopy(self.fast)
            for parameter in self.mean.parameters():
                parameter.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            if not self.training:
                return self.mean(x)
            decay = 0.9999 if ill else 0.8
            with kobai.no_grad():
                for p, q in zip(self.fast.parameters(), self.mean.parameters(), strict=True):
                    q.mul_(decay).add_((1 - decay) * p)
            return self.fast(x)

    data, model = images(seed), Net()
    optimizer = optim.Adam(model.fast.parameters(), lr=3e-3)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, batch=32, steps=120)


@asked(
    STATISTICS,
    "https://github.com/wasidennis/AdaptSegNet/issues/79 and https://github.com/scikit-adaptation/skada/issues/252",
    r"running (mean|average|statistic)|evaluat|averages? of|domain|two (kinds|groups|clusters)",
    ("evaluation-differs",),
)
def two_domains_with_one_average(seed: int, ill: bool) -> Situation:
    """Two domains pass a batch norm one after the other, each with its own mean in training, and share running averages."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(64, 48), mlp(48, 32, 10)
            first = nn.BatchNorm1d(48)
            self.norms = nn.ModuleList([first, first if ill else nn.BatchNorm1d(48)])

        def normed(self, h: Any, which: int) -> Any:
            norm = self.norms[which]
            if len(h) > 1 or not self.training:
                return norm(h)
            return F.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias)

        def forward(self, x: Any) -> Any:
            second, h = x[:, 0] > 0, self.first(x[:, 1:])
            out = kobai.zeros_like(h)
            for which, rows in enumerate((~second, second)):
                index = kobai.from_numpy(np.flatnonzero(rows.numpy()))
                if len(index):
                    out = out.index_add(0, index, self.normed(h[index], which))
            return self.head(F.relu(out))

    data, rng = digits(seed), rng_of(seed)
    sets = []
    for x, t in ((data.x, data.t), (data.fresh_x, data.fresh_t)):
        second = np.where(rng.random((len(t), 1)) < 0.5, 1, -1).astype(np.float32)
        shifted = np.where(second > 0, 4 - 2 * x.numpy(), x.numpy())
        sets.append((kobai.from_numpy(np.concatenate([second, shifted], 1).astype(np.float32)), t))
    model = Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, *sets)
