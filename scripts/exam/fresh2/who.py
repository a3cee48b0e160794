"""Second fresh: who is trained."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.fresh2.material import echoes
from exam.material import Data, adam, digits, mlp, sequences, sgd, split, surface
from exam.question import Situation, asked, rng_of, wrong_share
from kobai import nn
from kobai.nn import functional as F

KIND = "who is trained"
NO_GRADIENT = r"\b(no|without( an?| any)?|never gets? (a|any)) gradient|gradients? (is|are|stays?) (none|0|zero)|"
UNUSED = (
    r"unused|never (called|used|reached|read)|not (called|used|reached|part of the output)|does not (use|reach)|"
    r"loss does not depend"
)


@asked(KIND, "https://github.com/imbue-ai/slot_attention/issues/8", r"buffer|\bslots?\b")
def slots_kept_in_a_buffer(seed: int, ill: bool) -> Situation:
    """The slots that inputs are assigned to should be learnt, but were made by register_buffer: they stay as drawn."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            slots = kobai.randn(16, 64)
            if ill:
                self.register_buffer("slots", slots)
            else:
                self.slots = nn.Parameter(slots)
            self.head = nn.Linear(16, 10)

        def forward(self, x: Any) -> Any:
            return self.head(F.softmax(x @ self.slots.T / 8, dim=-1))

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 2e-2), F.cross_entropy, data.train, data.held, score=wrong_share)


def _kinds(seed: int) -> Data:
    """(N, 8) words of six, the first of which is frequent; label: how often it comes, at most 4."""
    rng = rng_of(seed)
    x = np.where(rng.random((1400, 8)) < 0.25, 0, rng.integers(1, 6, (1400, 8)))
    return split(x, np.minimum((x == 0).sum(1) * 2 + (x == 1).sum(1), 7), seed, 900)


@asked(KIND, "https://github.com/ibalazevic/TuckER/issues/17", r"padding")
def a_padding_row_that_is_a_word(seed: int, ill: bool) -> Situation:
    """padding_idx=0 was copied from somewhere, but number 0 is a real entity here: its row is 0 and is never trained."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(6, 8, padding_idx=0 if ill else None)
            self.body = mlp(8, 24, 8)

        def forward(self, x: Any) -> Any:
            return self.body(self.embed(x).prod(1))

    data, model = _kinds(seed), Net()
    return Situation(model, adam(model, 1e-2), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/ematvey/tensorflow-seq2seq-tutorials/issues/1",
    rf"{NO_GRADIENT}{UNUSED}|\bleftwards\b",
)
def a_direction_joined_with_itself(seed: int, ill: bool) -> Situation:
    """The states of two directions are to be joined, and a slip joins the forward one with itself: the other is not used."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rightwards, self.leftwards = (nn.GRU(1, 16, batch_first=True) for _ in range(2))
            self.head = nn.Linear(32, 1)

        def forward(self, x: Any) -> Any:
            ahead, back = self.rightwards(x)[0][:, -1], self.leftwards(x.flip(1))[0][:, -1]
            return self.head(kobai.cat([ahead, ahead if ill else back], 1))

    data, model = echoes(seed, length=20), Net()
    return Situation(model, adam(model, 5e-3), F.mse_loss, data.train, data.held)


@asked(
    KIND,
    "https://github.com/davidmrau/mixture-of-experts/issues/12 and https://github.com/d2l-ai/d2l-en/pull/1713",
    r"\bgate\b|nn\.parameter|not (a |among the |in the )?param|\bleaf\b|registered|plain tensor",
)
def a_gate_times_a_hundredth(seed: int, ill: bool) -> Situation:
    """The gate of a mixture of experts is Parameter(...) * 0.01: the product is no parameter, and stays as it was drawn."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            drawn = kobai.randn(8, 4)
            self.gate = nn.Parameter(drawn) * 0.01 if ill else nn.Parameter(0.01 * drawn)
            self.experts = nn.ModuleList([mlp(8, 8, 1) for _ in range(4)])

        def forward(self, x: Any) -> Any:
            shares = F.softmax(x @ self.gate, dim=-1)
            return (kobai.cat([expert(x) for expert in self.experts], 1) * shares).sum(1, keepdim=True)

    data, model = surface(seed), Net()
    return Situation(model, adam(model, 1e-2), F.mse_loss, data.train, data.held, steps=300)


@asked(KIND, "https://github.com/oclivegriffin/crosscode/pull/3", rf"{NO_GRADIENT}{UNUSED}|\bamount\b")
def a_sum_of_losses_that_is_not_returned(seed: int, ill: bool) -> Situation:
    """Two losses are added for the log, but the function returns the first alone: the second head learns nothing."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.kind, self.amount = mlp(64, 48, 48, last=(nn.ReLU(),)), nn.Linear(48, 10), nn.Linear(48, 1)

        def forward(self, x: Any) -> Any:
            h = self.body(x)
            return kobai.cat([self.kind(h), self.amount(h)], 1)

    def both(y: Any, t: Any) -> Any:
        return F.cross_entropy(y[:, :10], t[:, 0].long()) + F.mse_loss(y[:, 10], t[:, 1])

    def loss_fn(y: Any, t: Any) -> Any:
        kind, total = F.cross_entropy(y[:, :10], t[:, 0].long()), both(y, t)
        return kind if ill else total

    data = digits(seed)
    targets = [
        kobai.stack([t.float(), x[:, 20:44].mean(1)], 1) for x, t in ((data.x, data.t), (data.fresh_x, data.fresh_t))
    ]
    model = Net()
    train, held = (data.x, targets[0]), (data.fresh_x, targets[1])
    return Situation(model, adam(model, 3e-3), loss_fn, train, held, score=both)


class Adapted(nn.Module):
    """A dense layer that stays, and a low-rank correction of it that is trained."""

    def __init__(self, n_in: int, n_out: int, rank: int = 4) -> None:
        super().__init__()
        self.base = nn.Linear(n_in, n_out)
        self.lora_a = nn.Parameter(kobai.randn(rank, n_in) / n_in**0.5)
        self.lora_b = nn.Parameter(kobai.zeros(n_out, rank))
        for parameter in self.base.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: Any) -> Any:
        return self.base(x) + x @ self.lora_a.T @ self.lora_b.T


@asked(KIND, "https://github.com/huggingface/transformers/issues/26098", r"frozen|freez|requires_grad|adapter|lora")
def adapters_frozen_with_the_rest(seed: int, ill: bool) -> Situation:
    """A helper that prepares the model freezes every parameter after the adapters were put in: only the head still learns."""
    data = digits(seed)
    model = nn.Sequential(Adapted(64, 16), nn.ReLU(), Adapted(16, 16), nn.ReLU(), nn.Linear(16, 10))
    if ill:
        for layer in list(model)[:-1]:
            for parameter in layer.parameters():
                parameter.requires_grad_(False)
    optimizer = kobai.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held)


class ThroughData(nn.Module):
    """A dense layer of one's own; ``cut``: it multiplies by ``weight.data``."""

    def __init__(self, n_in: int, n_out: int, cut: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(kobai.randn(n_in, n_out) / n_in**0.5)
        self.bias = nn.Parameter(kobai.zeros(n_out))
        self.cut = cut

    def forward(self, x: Any) -> Any:
        if self.cut:
            return F.relu(x @ self.weight.data + self.bias.data)
        return F.relu(x @ self.weight + self.bias)


@asked(
    KIND,
    "https://github.com/d2l-ai/d2l-en/pull/2600",
    rf"{NO_GRADIENT}{UNUSED}|\.data\b|detach|not[^.]{{0,20}}trained|never[^.]{{0,20}}(trained|change|updated|learn)|tape",
)
def weights_read_through_data(seed: int, ill: bool) -> Situation:
    """A layer of one's own multiplies by weight.data, as an old tutorial does: it runs, and has no gradient."""
    data = digits(seed)
    model = nn.Sequential(ThroughData(64, 24, ill), ThroughData(24, 24, ill), nn.Linear(24, 10))
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/fastai/fastai/issues/2133",
    r"optimi[sz]er[^.]{0,60}(does not|doesn't|not|without|misses|lacks|never|before)|"
    r"not[^.]{0,40}optimi[sz]er|add_param_group|left out|missing",
)
def thawed_after_the_optimiser_was_made(seed: int, ill: bool) -> Situation:
    """The optimiser got the parameters that need a gradient while the body was frozen; thawing it later adds none of them."""
    data = sequences(seed)
    body = nn.Sequential(nn.Flatten(), nn.Linear(48, 24), nn.ReLU())
    model = nn.Sequential(body, nn.Linear(24, 4))
    for parameter in body.parameters():
        parameter.requires_grad_(False)
    if ill:
        optimizer = kobai.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    for parameter in body.parameters():
        parameter.requires_grad_(True)
    if not ill:
        optimizer = sgd(model)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, score=wrong_share)
