"""Samples are independent: output i depends on input i alone, batch statistics aside."""

from __future__ import annotations

from typing import Any

import kobai
from exam.material import adam, blobs, cnn, digits, images, mlp, sequences, surface, words
from exam.question import Situation, asked, wrong_share
from kobai import nn
from kobai.nn import functional as F

KIND = "samples independent"
MIXED = (
    r"\bmix|other samples|across (the )?(samples|batch)|independen|"
    r"samples of the batch depend|permute|transpose|dim ?= ?0"
)


@asked(KIND, "http://karpathy.github.io/2019/04/25/recipe/ (backprop to chart dependencies)", MIXED)
def view_in_place_of_transpose(seed: int, ill: bool) -> Situation:
    """(N, L, D) is viewed as (L, N, D) for a recurrent net that wants time first: samples are mixed."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(4, 32), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            n, length, features = x.shape
            x = x.reshape(length, n, features) if ill else x.transpose(0, 1)
            return self.head(self.rnn(x)[0][-1])

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=100)


@asked(KIND, "https://github.com/timbmg/Sentence-VAE/issues/15", MIXED)
def hidden_state_viewed_as_the_batch(seed: int, ill: bool) -> Situation:
    """The last states of two directions, (2, N, H), are viewed as (N, 2H)."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(4, 16, batch_first=True, bidirectional=True), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            state = self.rnn(x)[1]
            state = state.reshape(len(x), 32) if ill else state.transpose(0, 1).reshape(len(x), 32)
            return self.head(state)

    data, model = sequences(seed, 600, length=8), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=80)


@asked(KIND, "https://github.com/zhouhaoyi/Informer2020/issues/59", MIXED)
def heads_taken_by_a_view_of_the_batch(seed: int, ill: bool) -> Situation:
    """Attention over words, whose projections are viewed as (L, N, D) where they are (N, L, D)."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.qkv, self.head = nn.Embedding(60, 16), nn.Linear(16, 48), nn.Linear(16, 3)

        def forward(self, x: Any) -> Any:
            n, length = x.shape
            q, k, v = self.qkv(self.embed(x)).chunk(3, -1)
            if ill:
                q, k, v = (part.reshape(length, n, 16) for part in (q, k, v))
            y = F.softmax(q @ k.transpose(1, 2) / 4, -1) @ v
            return self.head(y.reshape(n, length, 16).mean(1))

    data, model = words(seed, 800), Net()
    return Situation(
        model,
        adam(model, 1e-2),
        F.cross_entropy,
        data.train,
        data.held,
        batch=64,
        steps=80,
        shown=tuple(p[:64] for p in data.train),
    )


@asked(KIND, "https://github.com/perone/euclidesdb/issues/2", MIXED + "|softmax")
def softmax_of_dim_0_inside(seed: int, ill: bool) -> Situation:
    """A gate in the middle of the net is a softmax over dim 0: the samples compete with each other."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.body, self.head = nn.Linear(12, 32), nn.Linear(12, 32), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            return self.head(F.softmax(self.gate(x), 0 if ill else 1) * F.relu(self.body(x)) * 32)

    data, model = blobs(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, score=wrong_share)


@asked(KIND, "https://github.com/Lackel/DPN/issues/1", MIXED + "|norm")
def normalised_over_the_wrong_dimension(seed: int, ill: bool) -> Situation:
    """F.normalize(h, dim=0): every unit is divided by its norm over the samples of the batch."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = mlp(64, 64, 32), nn.Linear(32, 10)

        def forward(self, x: Any) -> Any:
            h = F.relu(self.body(x))
            return self.head(4 * F.normalize(h, dim=0 if ill else 1))

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/vitrioil/Speech-Separation/issues/4", MIXED)
def channels_and_samples_swapped(seed: int, ill: bool) -> Situation:
    """Feature maps (N, C, H, W) are viewed as (C, N, …) and flattened back to rows: a row holds several samples."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = cnn()[:6], nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            h = self.features(x)  # (N, 16, 2, 2)
            if ill:
                h = h.transpose(0, 1)
            return self.head(h.reshape(len(x), 64))

    data, model = images(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, score=wrong_share, steps=100)


@asked(KIND, "https://github.com/Lightning-AI/pytorch-lightning/issues/1237", MIXED + "|mean")
def batch_mean_taken_off(seed: int, ill: bool) -> Situation:
    """x − x.mean() over samples and features together, inside the net and scaled by the batch's largest value."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(8, 64, 32, 1)

        def forward(self, x: Any) -> Any:
            h = self.body[1](self.body[0](x))
            h = h / h.amax(0).clamp(min=1e-3) if ill else h
            return self.body[4](self.body[3](self.body[2](h)))

    data, model = surface(seed), Net()
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@asked(KIND, "http://karpathy.github.io/2019/04/25/recipe/ (backprop to chart dependencies)", MIXED)
def shifted_by_a_roll_of_the_batch(seed: int, ill: bool) -> Situation:
    """A residual from the previous *sample*, where the previous step in time was meant: roll over dim 0."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(4, 24), nn.Linear(24, 4)

        def forward(self, x: Any) -> Any:
            h = kobai.tanh(self.embed(x))
            return self.head((h + kobai.roll(h, 1, 0 if ill else 1)).mean(1))

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 1e-2), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/aipixel/AEMatter/issues/3", MIXED + "|attention|mask")
def attention_over_the_samples(seed: int, ill: bool) -> Situation:
    """MultiheadAttention without batch_first on (N, L, D): every sample looks at all others."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(60, 16)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=not ill)
            self.head = nn.Linear(16, 3)

        def forward(self, x: Any) -> Any:
            h = self.embed(x)
            return self.head((h + self.attention(h, h, h)[0]).mean(1))

    data, model = words(seed, 800), Net()
    return Situation(
        model,
        adam(model, 5e-3),
        F.cross_entropy,
        data.train,
        data.held,
        shown=tuple(p[:128] for p in data.train),
        steps=80,
    )
