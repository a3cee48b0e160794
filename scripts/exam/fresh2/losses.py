"""Second fresh: loss and output belong together."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.fresh.material import boxes, pixels
from exam.fresh2.material import couples, frames, strips
from exam.material import adam, digits, mlp, odd, surface
from exam.question import Situation, asked, rng_of, wrong_share
from kobai import nn
from kobai.nn import functional as F

KIND = "loss and output"
BELOW = r"loss[^.]{0,60}(negative|below (0|zero)|without (a )?(lower )?bound|unbounded|no (lower )?bound)"


class Frames(nn.Module):
    """Two convolutions over time: scores (N, C, L) for each frame."""

    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 32, 3, padding=1), nn.Conv1d(32, outputs, 3, padding=1)

    def forward(self, x: Any) -> Any:
        return self.second(F.relu(self.first(x.transpose(1, 2))))


@asked(
    KIND,
    "https://github.com/weirme/FCSN/issues/32",
    r"reshape|\bview\b|permut|transpos|(wrong|class|channel|other) (dim|axis)|layout|scrambl|"
    r"mix(es|ed|ing)?[^.]{0,40}(class|position|frame|step)",
)
def scores_by_class_read_as_rows(seed: int, ill: bool) -> Situation:
    """Scores (N, C, L) are reshaped to (N·L, C) without moving the classes last: a row holds one class at several frames."""

    def loss_fn(y: Any, t: Any) -> Any:
        rows = y if ill else y.transpose(1, 2)
        return F.cross_entropy(rows.reshape(-1, y.shape[1]), t.reshape(-1))

    def score(y: Any, t: Any) -> Any:
        return (y.argmax(1) != t).float().mean()

    data, model = frames(seed), Frames()
    return Situation(model, adam(model, 5e-3), loss_fn, data.train, data.held, score=score)


def _pixels_wrong(output: Any, target: Any) -> Any:
    return ((output > 0) != (target > 0)).float().mean()


@asked(
    KIND,
    "https://github.com/jakeret/tf_unet/issues/15",
    rf"sigmoid|probabilit|logit|raw score|between 0 and 1|0 to 1|0…1|{BELOW}",
)
def overlap_of_raw_scores(seed: int, ill: bool) -> Situation:
    """The Dice loss is given raw scores where it takes probabilities: it leaves 0 to 1, and its denominator may be 0."""

    def loss_fn(y: Any, t: Any) -> Any:
        p = (y if ill else y.sigmoid()).reshape(len(y), -1)
        t = t.reshape(len(t), -1)
        return (1 - (2 * (p * t).sum(1) + 1) / (p.sum(1) + t.sum(1) + 1)).mean()

    data = boxes(seed)
    masks = [t.float()[:, None] for t in (data.t, data.fresh_t)]
    model = pixels(1)
    return Situation(
        model,
        adam(model, 5e-3),
        loss_fn,
        (data.x, masks[0]),
        (data.fresh_x, masks[1]),
        batch=32,
        steps=80,
        score=_pixels_wrong,
    )


def _order_wrong(output: Any, target: Any) -> Any:
    return ((output[:, 0] > output[:, 1]) != (target > 0)).float().mean()


@asked(
    KIND,
    "https://github.com/seathiefwang/RankPose/issues/4",
    r"minus one|(target|label)s?[^.]{0,60}(\b0\b|zero|[−±-]1)|[−±-]1[^.]{0,30}(target|label)",
)
def ranks_of_0_and_1(seed: int, ill: bool) -> Situation:
    """MarginRankingLoss is given targets of 0 and 1 instead of −1 and 1: where the target is 0 its slope is 0."""

    def loss_fn(y: Any, t: Any) -> Any:
        return F.margin_ranking_loss(y[:, 0], y[:, 1], t, margin=0.5)

    data = couples(seed)
    targets = [t if ill else 2 * t - 1 for t in (data.t, data.fresh_t)]
    model = mlp(12, 64, 32, 2)
    train, held = (data.x, targets[0]), (data.fresh_x, targets[1])
    return Situation(model, adam(model, 3e-3), loss_fn, train, held, score=_order_wrong, steps=300)


@asked(KIND, "https://github.com/gwx314/STARS/issues/9", rf"log_?softmax|softmax|probabilit|{BELOW}")
def frames_without_a_softmax(seed: int, ill: bool) -> Situation:
    """The CTC loss is given raw scores instead of log-probabilities: it falls below 0 by raising every score."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(5, 24, batch_first=True), nn.Linear(24, 5)

        def forward(self, x: Any) -> Any:
            y = self.head(self.rnn(x)[0])
            return y if ill else F.log_softmax(y, dim=-1)

    def ctc(y: Any, t: Any) -> Any:
        lengths = [kobai.full((len(t),), n, dtype=kobai.int64) for n in (y.shape[1], t.shape[1])]
        return F.ctc_loss(y.transpose(0, 1), t, *lengths)

    def score(y: Any, t: Any) -> Any:
        return ctc(F.log_softmax(y, dim=-1), t)

    data, model = strips(seed), Net()
    return Situation(model, adam(model, 1e-2), ctc, data.train, data.held, steps=60, score=score)


@asked(
    KIND,
    "https://github.com/nyu-mll/jiant/issues/925",
    r"ignore|(class|label) (0|zero)|left out|(not|never) (counted|learn)|leaves? out",
)
def a_class_that_is_ignored(seed: int, ill: bool) -> Situation:
    """ignore_index=0 is meant for padding, but 0 is a class here: it is never learnt, and given to other classes."""
    data = digits(seed)
    labels = [(t - 5).clamp(min=0) for t in (data.t, data.fresh_t)]  # all digits below six are "other"
    model = mlp(64, 48, 5)
    loss_fn = nn.CrossEntropyLoss(ignore_index=0 if ill else -100)
    train, held = (data.x, labels[0]), (data.fresh_x, labels[1])
    return Situation(model, adam(model, 3e-3), loss_fn, train, held, score=wrong_share)


@asked(
    KIND,
    "https://github.com/timsainb/tensorflow2-generative-models/issues/16",
    r"sigmoid|bounded|between 0 and 1|0 to 1|0…1",
)
def a_critic_between_0_and_1(seed: int, ill: bool) -> Situation:
    """A Wasserstein critic keeps the discriminator's sigmoid: the distance that it estimates cannot grow beyond 1."""

    def distance(y: Any, t: Any) -> Any:
        return (y * (1 - t)).sum() / (1 - t).sum() - (y * t).sum() / t.sum()

    def loss_fn(y: Any, t: Any) -> Any:
        return distance(y, t) + 0.02 * (y**2).mean()

    data, rng = digits(seed), rng_of(seed)
    sets = []
    for x in (data.x, data.fresh_x):
        fake = kobai.from_numpy(rng.normal(size=x.shape).astype(np.float32))
        real = kobai.from_numpy((rng.random((len(x), 1)) < 0.5).astype(np.float32))
        sets.append((real * x + (1 - real) * fake, real))
    model = mlp(64, 64, 32, 1, act=lambda: nn.LeakyReLU(0.2), last=(nn.Sigmoid(),) * ill)
    return Situation(model, adam(model, 1e-3), loss_fn, *sets, score=distance)


@asked(
    KIND,
    "https://coderapp.vercel.app/answer/56778700",
    r"softmax|(sum|adds?|add up) to (1|one)",
)
def a_curve_through_a_softmax(seed: int, ill: bool) -> Situation:
    """A function with five values is fitted through a softmax, as in a classifier: whatever it says adds up to 1."""
    data = surface(seed)
    shift = kobai.tensor([[-1.0, -0.5, 0.0, 0.5, 1.0]])
    values = [(t + shift).sigmoid() for t in (data.t, data.fresh_t)]
    model = mlp(8, 64, 32, 5, last=(nn.Softmax(dim=-1) if ill else nn.Sigmoid(),))
    return Situation(model, adam(model, 5e-3), F.mse_loss, (data.x, values[0]), (data.fresh_x, values[1]))


@asked(
    KIND,
    "https://github.com/huanglianghua/siamfc-pytorch/issues/37",
    rf"minus one|(target|label)s?[^.]{{0,60}}([−-]1|outside|negative|below 0|\b0 (and|or) 1)|between 0 and 1|0 to 1|0…1|"
    rf"{BELOW}",
)
def signs_in_place_of_0_and_1(seed: int, ill: bool) -> Situation:
    """Labels of −1 and 1, as a support vector machine takes them, with a binary cross-entropy: its least value is −∞."""

    def score(y: Any, t: Any) -> Any:
        return F.binary_cross_entropy_with_logits(y, (t > 0).float())

    data = odd(seed)
    labels = [2 * t - 1 if ill else t for t in (data.t, data.fresh_t)]
    model = mlp(64, 48, 1)
    train, held = (data.x, labels[0]), (data.fresh_x, labels[1])
    return Situation(model, adam(model, 3e-3), nn.BCEWithLogitsLoss(), train, held, score=score)
