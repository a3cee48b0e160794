"""Third fresh: samples are independent."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.fresh3.material import clouds
from exam.material import Data, adam, mlp, sequences, split
from exam.question import Situation, asked, rng_of
from exam.samples import MIXED
from kobai import nn
from kobai.nn import functional as F

KIND = "samples independent"


@asked(
    KIND,
    "https://github.com/allenai/bilm-tf/issues/220 and https://github.com/keras-team/keras/issues/1870",
    r"\bcarrie[sd]\b|(hidden|recurrent|last|kept|old) state|\bstate(ful|s)? (is|are) kept|previous (batch|call|samples?)|"
    r"(batch|call) before|keeps? (a |its )?state",
    ("state-kept", "mixed-samples"),
)
def a_state_carried_to_the_next_batch(seed: int, ill: bool) -> Situation:
    """The state of a recurrent net is kept for the next batch, as in a stateful one, and the samples are shuffled."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(4, 24, batch_first=True), nn.Linear(24, 4)
            self.state: Any = None

        def forward(self, x: Any) -> Any:
            start = None if self.state is None else self.state.expand(1, len(x), 24).contiguous()
            states, last = self.rnn(x, start)
            if ill:
                self.state = last[:, -1:].detach()
            return self.head(states[:, -1])

    data, model = sequences(seed, length=6), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


def _products(seed: int) -> Data:
    """(N, 8, 4) noise; target (N, 1): the product of what two columns add up to."""
    rng = rng_of(seed)
    x = rng.normal(size=(1500, 8, 4))
    t = x[..., 0].sum(1) * x[..., 1].sum(1) + 2 * x[..., 2].sum(1)
    return split(x.astype(np.float32), (t / t.std()).astype(np.float32)[:, None], seed, 1000)


@asked(KIND, "https://github.com/rish-16/aft-pytorch/issues/1", MIXED + r"|over the batch|sum\(0\)", ("mixed-samples",))
def sums_over_the_batch_in_an_attention(seed: int, ill: bool) -> Situation:
    """An attention-free transformer sums exp(k)·v over dim 0, which is the batch, where the positions are dim 1."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.query, self.key, self.value = nn.Linear(4, 24), *(nn.Linear(24, 24) for _ in range(3))
            self.head = nn.Linear(24, 1)

        def forward(self, x: Any) -> Any:
            h = self.enter(x)
            weight, dim = self.key(h).clamp(-5, 5).exp(), 0 if ill else 1
            context = (weight * self.value(h)).sum(dim, keepdim=True) / weight.sum(dim, keepdim=True)
            return self.head((self.query(h).sigmoid() * context).mean(1))

    data, model = _products(seed), Net()
    return Situation(model, adam(model, 1e-2), F.mse_loss, data.train, data.held, steps=300)


def _choices(seed: int) -> Data:
    """(N, 18): a question of six numbers and three answers of four; label: the answer that fits best."""
    rng = rng_of(seed)
    x, mixing = rng.normal(size=(1500, 18)), rng.normal(size=(6, 4))
    fit = np.einsum("nq,qa,nka->nk", x[:, :6], mixing, x[:, 6:].reshape(-1, 3, 4))
    return split(x.astype(np.float32), fit.argmax(1), seed, 1000)


@asked(
    KIND,
    "https://github.com/wenet-e2e/west/pull/121",
    MIXED + r"|\brepeat|interleave|another sample",
    ("mixed-samples",),
)
def questions_repeated_in_another_order(seed: int, ill: bool) -> Situation:
    """Questions are repeated as a block, 1 2 3 1 2 3, and answers stand as 1 1 2 2 3 3: an answer meets another's question."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ask, self.answer, self.head = nn.Linear(6, 32), nn.Linear(4, 32), mlp(32, 32, 1)

        def forward(self, x: Any) -> Any:
            question = self.ask(x[:, :6])
            question = question.repeat(3, 1) if ill else question.repeat_interleave(3, 0)
            return self.head(question * self.answer(x[:, 6:].reshape(-1, 4))).reshape(-1, 3)

    data, model = _choices(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=250)


@asked(
    KIND,
    "https://github.com/rusty1s/pytorch_cluster/issues/16 and https://github.com/graphnet-team/graphnet/pull/236",
    MIXED + r"|other clouds?|neighbou?rs? (of|from|in) other",
    ("mixed-samples",),
)
def neighbours_from_all_clouds(seed: int, ill: bool) -> Situation:
    """Nearest neighbours are sought among the points of the whole batch: they belong to any cloud, and are always near."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.edge, self.head = mlp(6, 32, 32), nn.Linear(32, 2)

        def forward(self, x: Any) -> Any:
            n, points, _ = x.shape
            flat = x.reshape(1, -1, 3) if ill else x
            with kobai.no_grad():
                square = (flat**2).sum(2)
                far = square[:, :, None] + square[:, None] - 2 * kobai.bmm(flat, flat.transpose(1, 2))
                near = (-far).topk(3, dim=2)[1][..., 1:]
            offset = kobai.arange(len(flat))[:, None, None] * flat.shape[1]
            other = flat.reshape(-1, 3)[(near + offset).reshape(-1)].reshape(n, points, 2, 3)
            own = x[:, :, None].expand(n, points, 2, 3)
            return self.head(self.edge(kobai.cat([own, other - own], 3)).amax((1, 2)))

    data, model = clouds(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, batch=32, steps=150)
