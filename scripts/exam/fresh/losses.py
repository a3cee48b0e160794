"""Fresh: loss and output belong together, and samples are independent."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.fresh.material import (
    Reader,
    Speaker,
    Twins,
    Variational,
    boxes,
    divergence,
    pairs,
    per_word,
    pixels,
    reconstruction,
    sentences,
    triples,
)
from exam.losses import SHAPES
from exam.material import Data, adam, digits, mlp, sequences, sgd, surface
from exam.question import Situation, asked, rng_of
from exam.samples import MIXED as MIXES
from kobai import nn
from kobai.nn import functional as F

KIND = "loss and output"
MIXED = MIXES + r"|batch_first|first dimension"
AHEAD = r"mask|causal|future|later (word|step|position)|shift|leak|copy|copies|ahead"


def same(data: Data) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """The inputs as targets."""
    return (data.x, data.x), (data.fresh_x, data.fresh_x)


@asked(KIND, "https://github.com/sebastian-hofstaetter/matchmaker/issues/18", r"log")
def divergence_of_probabilities(seed: int, ill: bool) -> Situation:
    """KLDivLoss of a teacher's soft labels is given the student's probabilities instead of their logarithms."""
    data = digits(seed)
    soft = [0.8 * F.one_hot(t, 10).float() + 0.02 for t in (data.t, data.fresh_t)]
    model = mlp(64, 64, 10, last=(nn.Softmax(dim=-1) if ill else nn.LogSoftmax(dim=-1),))
    loss_fn = nn.KLDivLoss(reduction="batchmean")
    return Situation(model, adam(model, 3e-3), loss_fn, (data.x, soft[0]), (data.fresh_x, soft[1]), score=_of_the_label)


def _of_the_label(output: Any, target: Any) -> Any:
    """Share of samples whose greatest score is not at the greatest target."""
    return (output.argmax(-1) != target.argmax(-1)).float().mean()


@asked(
    KIND,
    "https://github.com/huggingface/transformers/pull/404",
    r"shift|copy|copies|leak|target[^.]{0,80}(same as|equal|contained in|in) the input|"
    r"input[^.]{0,40}(holds|contains|equals?)[^.]{0,30}target",
)
def words_that_predict_themselves(seed: int, ill: bool) -> Situation:
    """A language model's targets are its inputs, not shifted by one: it learns to copy, and its loss goes to 0."""
    data, model = sentences(seed), Speaker()
    train, held = same(data) if ill else (data.train, data.held)
    return Situation(model, adam(model, 5e-3), per_word, train, held)


@asked(
    KIND,
    "https://github.com/curiousily/Credit-Card-Fraud-Detection-using-Autoencoders-in-Keras/issues/1",
    r"relu|negative|cannot (be )?reach|out of reach|range",
    never=("dying-relu",),
)
def autoencoder_that_cannot_go_below_zero(seed: int, ill: bool) -> Situation:
    """An autoencoder of standardised features ends in a ReLU: no negative value can be reconstructed."""
    data, model = digits(seed), mlp(64, 48, 24, 48, 64, last=(nn.ReLU(),) * ill)
    return Situation(model, adam(model, 3e-3), F.mse_loss, *same(data))


@asked(
    KIND,
    "https://github.com/togheppi/DCGAN/issues/2",
    r"tanh|cannot (be )?reach|out of reach|target[^.]{0,60}(range|scale|large|outside)",
    ("target-scale",),
)
def tanh_for_pixels_of_255(seed: int, ill: bool) -> Situation:
    """A generator's tanh is to give pixels from 0 to 255."""
    data = digits(seed, raw=True)
    target = [255 * x if ill else 2 * x - 1 for x in (data.x, data.fresh_x)]
    model = mlp(64, 48, 48, 64, act=lambda: nn.LeakyReLU(0.2), last=(nn.Tanh(),))
    return Situation(model, adam(model, 2e-3), F.mse_loss, (data.x, target[0]), (data.fresh_x, target[1]))


@asked(
    KIND,
    "https://github.com/keras-team/keras/pull/3383",
    r"\bkl\b|collaps|terms? of|weight of|does not depend|same (output|answer)|ignor|constant|mean of the target|divergence",
)
def divergence_that_drowns_the_reconstruction(seed: int, ill: bool) -> Situation:
    """The reconstruction error of a VAE is a mean over pixels, its divergence a sum over codes: the code says nothing."""

    def loss_fn(y: Any, t: Any) -> Any:
        return F.mse_loss(y[0], t) * (1 if ill else t.shape[1]) + divergence(*y[1:]).mean()

    data, model = digits(seed), Variational()
    return Situation(model, adam(model, 3e-3), loss_fn, *same(data), score=reconstruction)


@asked(
    KIND,
    "https://github.com/keras-team/keras/issues/9097",
    r"sqrt|square root|root of|norm\b|distance|identical pairs?|equal (pairs?|inputs?)",
)
def root_of_a_distance_of_zero(seed: int, ill: bool) -> Situation:
    """Some pairs hold the same sample twice: the root of their squared distance has an infinite slope."""
    parts = pairs(seed, digits(seed))
    x, t = parts.x.clone(), parts.t.clone()
    x[::10, 1], t[::10] = x[::10, 0], 1.0

    def loss_fn(y: Any, t: Any) -> Any:
        distance = (((y[:, 0] - y[:, 1]) ** 2).sum(1) + (0.0 if ill else 1e-6)).sqrt()
        return (t * distance**2 + (1 - t) * F.relu(1 - distance) ** 2).mean()

    model = Twins(mlp(64, 64, 8))
    return Situation(model, adam(model, 2e-3), loss_fn, (x, t), parts.held, steps=100)


@asked(
    KIND,
    "https://github.com/bowang-lab/BLEEP/issues/5",
    r"temperature|bounded|(scores|outputs?)[^.]{0,60}(range|between|small|narrow)",
    ("bounded-scores",),
)
def cosines_times_the_temperature(seed: int, ill: bool) -> Situation:
    """Cosines are multiplied by a temperature of 0.1 where they should be divided: all scores lie within ±0.1."""
    parts = triples(seed, digits(seed))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Twins(mlp(64, 64, 16), unit=True)

        def forward(self, x: Any) -> Any:
            y = self.body(x)
            cosines = kobai.bmm(y[:, :1], y[:, 1:].transpose(1, 2))[:, 0]
            return cosines * 0.1 if ill else cosines / 0.1

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y, kobai.zeros(len(y), dtype=kobai.int64))

    model = Net()
    return Situation(model, adam(model, 2e-3), loss_fn, parts.train, parts.held, steps=100, score=_not_first)


def _not_first(output: Any, target: Any) -> Any:
    return (output.argmax(1) != 0).float().mean()


@asked(
    KIND,
    "https://github.com/PacktPublishing/Deep-Reinforcement-Learning-Hands-On/issues/33",
    SHAPES + r"|other samples?|every target|all targets",
)
def values_of_actions_against_all_returns(seed: int, ill: bool) -> Situation:
    """Q-learning: the values of the actions taken are (N,), the returns (N, 1), and the loss compares each with all."""
    data, rng = surface(seed), rng_of(seed)

    def with_action(x: Any, t: Any) -> Any:
        action = rng.integers(0, 3, len(x))
        value = t.numpy()[:, 0] * (action - 1) + 0.5 * action
        return kobai.from_numpy(np.stack([action, value], 1).astype(np.float32))

    def loss_fn(y: Any, t: Any) -> Any:
        value = y.gather(1, t[:, :1].long())[:, 0]
        return ((value - (t[:, 1:] if ill else t[:, 1])) ** 2).mean()

    def score(y: Any, t: Any) -> Any:
        return ((y.gather(1, t[:, :1].long())[:, 0] - t[:, 1]) ** 2).mean()

    train, held = (data.x, with_action(data.x, data.t)), (data.fresh_x, with_action(data.fresh_x, data.fresh_t))
    model = mlp(8, 64, 64, 3)
    return Situation(model, adam(model, 3e-3), loss_fn, train, held, score=score)


@asked(
    KIND,
    "https://github.com/tianzhi0549/FCOS/issues/36",
    r"exp\b|exponential|target[^.]{0,60}(scale|size|large|hundred|divide)|divide",
    ("target-scale", "rate-too-large", "exploding-gradient", "non-finite"),
)
def box_sides_in_pixels_through_an_exponential(seed: int, ill: bool) -> Situation:
    """The distances to a box's sides, in pixels up to 400, are the exponential of the output: its steps multiply."""
    data = surface(seed)
    sides = [150 + 80 * kobai.cat([t, -t], 1).clamp(-1.8, 3) for t in (data.t, data.fresh_t)]
    sides = sides if ill else [side / 100 for side in sides]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(8, 64, 64, 2)

        def forward(self, x: Any) -> Any:
            return self.body(x).exp()

    model = Net()
    return Situation(model, sgd(model, 0.02), F.mse_loss, (data.x, sides[0]), (data.fresh_x, sides[1]))


@asked(
    KIND,
    "https://github.com/apache/mxnet/issues/7530",
    r"relu|negative|below 0|one half",
    ("bounded-scores",),
    ("dying-relu",),
)
def relu_before_the_loss_with_logits(seed: int, ill: bool) -> Situation:
    """Every dense layer was made with activation="relu", the last one too: no label's probability falls below one half."""
    data = digits(seed)
    several = [
        kobai.stack([t % 2, (t > 4).long(), (t % 3 == 0).long(), (t == 7).long()], 1).float() for t in data[1::2]
    ]
    model = mlp(64, 64, 32, 4, last=(nn.ReLU(),) * ill)
    loss_fn, held = nn.BCEWithLogitsLoss(), (data.fresh_x, several[1])
    return Situation(model, adam(model, 2e-3), loss_fn, (data.x, several[0]), held)


@asked(
    KIND,
    "https://github.com/milesial/Pytorch-UNet/issues/78",
    r"255|between 0 and 1|0 (to|and|or) 1|0…1|0\.\.1|outside|range|negative|probabilit",
)
def masks_of_0_and_255(seed: int, ill: bool) -> Situation:
    """Masks were read from PNG files as 0 and 255, and binary cross-entropy takes 0 to 1: the loss is negative and falls."""
    data = boxes(seed)
    masks = [(255.0 if ill else 1.0) * t.float()[:, None] for t in (data.t, data.fresh_t)]
    model = pixels(1)
    return Situation(
        model,
        adam(model, 5e-3),
        nn.BCEWithLogitsLoss(),
        (data.x, masks[0]),
        (data.fresh_x, masks[1]),
        batch=32,
        steps=60,
        score=_pixels_wrong,
    )


def _pixels_wrong(output: Any, target: Any) -> Any:
    return ((output > 0) != (target > 0)).float().mean()


@asked(
    KIND,
    "https://github.com/zc8340311/RobustAutoencoder/issues/10",
    r"sigmoid|range|cannot (be )?reach|out of reach|between 0 and 1",
)
def sigmoid_for_a_structured_table(seed: int, ill: bool) -> Situation:
    """An autoencoder for pixels is used on a standardised table, and keeps its sigmoid."""
    data, model = surface(seed, inputs=10), mlp(10, 32, 8, 32, 10, last=(nn.Sigmoid(),) * ill)
    return Situation(model, adam(model, 5e-3), F.mse_loss, *same(data))


INDEPENDENT = "samples independent"


@asked(INDEPENDENT, "https://github.com/alex-matton/causal-transformer-decoder/issues/1", AHEAD)
def words_that_see_the_next(seed: int, ill: bool) -> Situation:
    """A transformer language model has no causal mask: each position attends to the word that it has to predict."""
    data, model = sentences(seed), Reader(causal=not ill)
    return Situation(model, adam(model, 3e-3), per_word, data.train, data.held, steps=100)


@asked(INDEPENDENT, "https://github.com/PetrochukM/PyTorch-NLP/issues/2", MIXED)
def attention_over_the_batch(seed: int, ill: bool) -> Situation:
    """The softmax of (N, L) attention scores is over dim 0: the samples share out each position among them."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.score, self.head = nn.GRU(4, 32, batch_first=True), nn.Linear(32, 1), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            h = self.rnn(x)[0]
            weight = F.softmax(self.score(h)[..., 0], dim=0 if ill else 1)
            return self.head((weight[..., None] * h).sum(1))

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(INDEPENDENT, "https://github.com/AndersonJo/dqn-pytorch/issues/1", MIXED)
def a_speaker_without_batch_first(seed: int, ill: bool) -> Situation:
    """A recurrent net that has to repeat the word before gets (N, L) words without batch_first: it reads down the batch."""
    data, model = sentences(seed), Speaker(batch_first=not ill)
    before = [kobai.cat([x[:, :1], x[:, :-1]], 1) for x in (data.x, data.fresh_x)]  # to be remembered from one step ago
    return Situation(model, adam(model, 5e-3), per_word, (data.x, before[0]), (data.fresh_x, before[1]))


@asked(INDEPENDENT, "https://github.com/zamanzadeh/CARLA/issues/16", MIXED + r"|view|reshape|transpose|permute")
def features_by_steps_through_a_view(seed: int, ill: bool) -> Situation:
    """(N, C, L) outputs of a convolution are viewed as (L, N, C) for a recurrent net: its steps mix the samples."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.rnn, self.head = nn.Conv1d(4, 16, 3, padding=1), nn.GRU(16, 32), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            h = F.relu(self.conv(x.transpose(1, 2)))
            n, channels, length = h.shape
            h = h.contiguous().view(length, n, channels) if ill else h.permute(2, 0, 1)
            return self.head(self.rnn(h)[0][-1])

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)
