"""Second fresh: samples are independent, and weights and signal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kobai
from exam.fresh2.material import Attention, Graphs, bits, graphs, orders
from exam.material import adam, images, sequences, split
from exam.question import Situation, asked, rng_of, wrong_share
from exam.samples import MIXED
from kobai import nn
from kobai.nn import functional as F

KIND = "samples independent"


def waves(length: int, width: int) -> Any:
    """(length, width) sines and cosines of the position."""
    place = np.arange(length)[:, None] * np.exp(-math.log(100) * np.arange(0, width, 2) / width)
    return kobai.from_numpy(np.stack([np.sin(place), np.cos(place)], 2).reshape(length, width).astype(np.float32))


@asked(
    KIND,
    "https://github.com/songyangco/GETNext/issues/2",
    MIXED + r"|position|(place|row|order|index) (in|of) the batch|batch_first|first dimension|order of the samples",
)
def positions_along_the_batch(seed: int, ill: bool) -> Situation:
    """pe[:x.size(0)] is for (L, N, D), and the batch comes first here: each sentence gets the code of its row in the batch."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(16, 32)
            self.register_buffer("codes", waves(512, 32))
            self.layer = nn.TransformerEncoderLayer(32, 2, 64, 0.0, batch_first=True, norm_first=True)
            self.head = nn.Linear(32, 2)

        def forward(self, x: Any) -> Any:
            codes = self.codes[: len(x), None] if ill else self.codes[: x.shape[1]]
            return self.head(self.layer(self.embed(x) + codes).mean(1))

    data, model = orders(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, steps=200)


@asked(KIND, "https://github.com/facebookresearch/LASER/issues/138", MIXED + r"|\bcat\b|concat|joined|\bview\b|reshape")
def two_branches_joined_along_the_batch(seed: int, ill: bool) -> Situation:
    """The states of two branches are joined along dim 0 and then viewed as (N, 2H): a row holds two samples of one branch."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = (nn.GRU(4, 24, batch_first=True) for _ in range(2))
            self.head = nn.Linear(48, 4)

        def forward(self, x: Any) -> Any:
            states = [self.left(x)[0][:, -1], self.right(x.flip(1))[0][:, -1]]
            return self.head(kobai.cat(states, 0).view(len(x), -1) if ill else kobai.cat(states, 1))

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/google-deepmind/graph_nets/issues/135",
    MIXED + r"|offset|first (graph|sample)|other (graph|sample)s?|adjacen|\bedges?\b",
)
def edges_of_all_graphs_in_the_first(seed: int, ill: bool) -> Situation:
    """Graphs are batched by stacking their nodes, but the edges' numbers get no offset: all messages stay in the
    first graph.
    """

    class Net(Graphs):
        def messages(self, h: Any, edges: Any) -> Any:
            if not ill:
                return kobai.bmm(edges, h)
            summed = edges.mean(0) @ h[0]  # a mean over the messages, as they are many
            return kobai.cat([summed[None], kobai.zeros_like(h[1:])], 0)

        def pooled(self, h: Any) -> Any:
            return h.sum(1)

    data, model = graphs(seed), Net()
    return Situation(model, adam(model, 5e-3), F.mse_loss, data.train, data.held)


@asked(
    KIND,
    "https://github.com/pyg-team/pytorch_geometric/issues/258",
    MIXED + r"|\bpool|mean over the batch|(averag|mean)[^.]{0,40}(batch|samples)|other graphs?",
)
def nodes_of_all_graphs_pooled_together(seed: int, ill: bool) -> Situation:
    """The vector that says which node is of which graph was not passed to the pooling: each graph gets the mean of
    all nodes.
    """

    class Net(Graphs):
        def pooled(self, h: Any) -> Any:
            return h.mean((0, 1)).expand(len(h), -1) if ill else h.mean(1)

    data, model = graphs(seed), Net()
    return Situation(model, adam(model, 5e-3), F.mse_loss, data.train, data.held)


SIGNAL = "weights and signal"


@asked(
    SIGNAL,
    "https://github.com/gordicaleksa/pytorch-GAT/issues/11",
    r"initiali[sz]|(weight|parameter|\bscoring\b)[^.]{0,80}(nan|not finite|infinite|huge|not a number)|"
    r"(nan|not finite|infinite|not a number)[^.]{0,60}(weight|parameter)|garbage|\bempty\b",
)
def weights_of_whatever_was_in_memory(seed: int, ill: bool) -> Situation:
    """Parameter(Tensor(n, m)) was never initialised: it holds the bits of old memory, among them some that are no numbers."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.GRU(4, 24, batch_first=True)
            self.scoring = nn.Parameter(bits(seed, 24, 24) if ill else kobai.randn(24, 24) / 24**0.5)
            self.head = nn.Linear(24, 4)

        def forward(self, x: Any) -> Any:
            h = self.body(x)[0]
            shares = F.softmax((h @ self.scoring).tanh().sum(-1), dim=1)
            return self.head((shares[..., None] * h).sum(1))

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


def _lookups(seed: int) -> Any:
    """(N, 9, 24): eight pairs of key and value, and a key to be looked up; target (N, 4): its value."""
    rng = rng_of(seed)
    keys = rng.normal(size=(1500, 8, 20))
    values = rng.normal(size=(1500, 8, 4))
    asked_for = rng.integers(0, 8, 1500)
    rows = np.arange(1500)
    question = np.concatenate([keys[rows, asked_for], np.zeros((1500, 4))], 1)[:, None]
    x = np.concatenate([np.concatenate([keys, values], 2), question], 1)
    return split(x.astype(np.float32), values[rows, asked_for].astype(np.float32), seed, 1000)


@asked(
    SIGNAL,
    "https://github.com/PAIR-code/tiny-transformers/issues/71",
    r"sqrt|√|square root|root of|one-hot|saturat[^.]{0,60}(softmax|attention)|"
    r"(score|attention|dot product|softmax)[^.]{0,80}(large|scal|steep|peak|single|one position|saturat)",
)
def attention_without_the_root(seed: int, ill: bool) -> Situation:
    """Scores of attention are not divided by the root of the width, 128: the softmax takes one position, and stays with it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.norm = nn.Linear(24, 128), nn.LayerNorm(128)
            self.attention, self.head = Attention(128, divided=not ill), nn.Linear(128, 4)
            for layer in (self.attention.query, self.attention.key):
                nn.init.normal_(layer.weight, std=0.1)

        def forward(self, x: Any) -> Any:
            return self.head(self.attention(self.norm(self.enter(x)))[:, -1])

    data, model = _lookups(seed), Net()
    return Situation(model, adam(model, 1e-3), F.mse_loss, data.train, data.held, steps=200)


class Block(nn.Module):
    """Two convolutions beside an identity, each initialised for rectifiers; ``norm``: with batch norms."""

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for i in range(2):
            conv = nn.Conv2d(width, width, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            for layer in (
                conv,
                nn.BatchNorm2d(width) if norm else nn.Identity(),
                nn.ReLU() if i == 0 else nn.Identity(),
            ):
                self.layers.append(layer)

    def forward(self, x: Any) -> Any:
        return F.relu(x + self.layers(x))


@asked(
    SIGNAL,
    "https://github.com/huangleiBuaa/ONI/issues/1",
    r"explod|grow|residual|(activation|signal|output)s?[^.]{0,60}(large|huge|doubl|times as)",
    ("exploding-activations", "exploding-gradient"),
)
def residual_blocks_without_their_norms(seed: int, ill: bool) -> Situation:
    """Batch norms were taken out of a residual net: each of its blocks more than doubles the variance of the signal."""
    data = images(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        *[Block(8, norm=not ill) for _ in range(8)],
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    optimizer = kobai.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, batch=32, steps=60, score=wrong_share)
