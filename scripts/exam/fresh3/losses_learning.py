"""Third fresh: losses of policies, pairs, triples and discriminators that do not belong to what they are given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kobai
from exam.fresh.material import Twins, triples
from exam.fresh3.material import Both, bandit, chosen_log, not_the_best, partner_missed, views
from exam.material import Data, Rows, adam, cnn, digits, images, mlp, sequences
from exam.question import Situation, asked, rng_of
from kobai.nn import functional as F

KIND = "loss and output"


@asked(
    KIND,
    "https://github.com/tensorforce/tensorforce/issues/312",
    r"\bratio\b|detach|loss[^.]{0,50}(constant|does not (depend|change))|gradient[^.]{0,30}\b(is|are) (0|zero|exactly 0)|"
    r"\bno gradient",
    ("constant-loss",),
)
def a_ratio_of_a_policy_to_itself(seed: int, ill: bool) -> Situation:
    """The old policy of a clipped objective is taken from the net as it is, undetached: the ratio is 1, its gradient 0."""

    def loss_fn(y: Any, t: Any) -> Any:
        now = chosen_log(y, t)
        before = now if ill else math.log(1 / 4)
        ratio, earned = (now - before).exp(), t[:, 1] - t[:, 1].mean()
        return -kobai.minimum(ratio * earned, ratio.clamp(0.5, 2.0) * earned).mean()

    train, held = bandit(seed, sequences(seed), 4)
    model = Rows("GRU", 4, 24, 4)
    return Situation(model, adam(model, 5e-3), loss_fn, train, held, steps=200, score=not_the_best)


@asked(
    KIND,
    "https://github.com/facebookresearch/moco/issues/101",
    r"positive|(column|index|class|label) (0|1|zero|one)\b|own (pair|partner|view)|wrong (column|label|class)|off by one",
    ("wrong-labels",),
)
def the_first_negative_is_called_right(seed: int, ill: bool) -> Situation:
    """The positive stands in column 0, and the label is 1 because it is positive: the first negative is to be found."""

    def loss_fn(y: Any, t: Any) -> Any:
        others = [y[:, 0] * y[:, 1].roll(i, 0) for i in range(17)]
        return F.cross_entropy(kobai.stack(others, 1).sum(2) / 0.1, t)

    data, model = views(seed), Both()
    labels = [kobai.full_like(t, 1 if ill else 0) for t in (data.t, data.fresh_t)]
    train, held = (data.x, labels[0]), (data.fresh_x, labels[1])
    return Situation(model, adam(model, 3e-3), loss_fn, train, held, score=partner_missed)


@asked(
    KIND,
    "https://github.com/Delong-liu-bupt/SEN/issues/6",
    r"similar|cosine|distance|\bsign\b|wrong way|uphill|opposite|positives?[^.]{0,40}(apart|farther)|revers|turned round",
    ("steps-uphill",),
)
def a_likeness_taken_for_a_distance(seed: int, ill: bool) -> Situation:
    """A triplet loss for distances is given cosines: it is lowest where the positive is far and the negative near."""

    def loss_fn(y: Any, t: Any) -> Any:
        near = F.cosine_similarity(y[:, 0], y[:, 1], dim=1)
        far = F.cosine_similarity(y[:, 0], y[:, 2], dim=1)
        return F.relu(near - far + 0.3 if ill else far - near + 0.3).mean()

    def score(y: Any, t: Any) -> Any:
        near = F.cosine_similarity(y[:, 0], y[:, 1], dim=1)
        return (near < F.cosine_similarity(y[:, 0], y[:, 2], dim=1)).float().mean()

    data, model = triples(seed, digits(seed)), Twins(mlp(64, 48, 16))
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held, score=score)


def fakes(seed: int, count: int = 800) -> Data:
    """(N, 1, 8, 8) digits, and means of two digits, which nobody has written; 1.0 for the former."""
    rng, data = rng_of(seed), images(seed, count)
    parts = []
    for x in (data.x.numpy(), data.fresh_x.numpy()):
        real = (rng.random(len(x)) < 0.5).astype(np.float32)[:, None]
        mean = 0.6 * (x + x[rng.permutation(len(x))])
        parts += [kobai.from_numpy(np.where(real[:, :, None, None] > 0, x, mean)), kobai.from_numpy(real)]
    return Data(*parts)


@asked(
    KIND,
    "https://github.com/basiclab/GNGAN-PyTorch/issues/1",
    r"(one|single|no other|same|only) (class|label|target|value)|constant (target|label)|"
    r"(all|every)( the)? (labels?|targets?)[^.]{0,30}(\b1\b|same|equal)|(labels?|targets?) (are|is) (all|always|the same)|"
    r"fakes?\b",
    ("one-answer",),
)
def fakes_are_called_real_too(seed: int, ill: bool) -> Situation:
    """One line of a discriminator's loss was copied: real and fake pictures are both compared with ones."""
    data, model = fakes(seed), cnn(1, last=())
    target = kobai.ones_like(data.t) if ill else data.t

    def score(y: Any, t: Any) -> Any:
        return ((y > 0) != (t > 0.5)).float().mean()

    train = (data.x, target)
    loss_fn = F.binary_cross_entropy_with_logits
    return Situation(model, adam(model, 3e-3), loss_fn, train, data.held, batch=32, steps=200, score=score)


@asked(
    KIND,
    "https://github.com/coreylynch/async-rl/issues/8 and https://github.com/keras-team/keras-io/issues/194",
    r"detach|advantage|critic|value (head|output)|(two|both) (terms|losses)|conflict|\bbias(ed)? (up|upwards)",
    ("no-least-loss",),
)
def an_advantage_that_moves_the_critic(seed: int, ill: bool) -> Situation:
    """The advantage in an actor's loss is not detached: the critic is moved to where the actor's loss is low, not the truth."""

    def loss_fn(y: Any, t: Any) -> Any:
        advantage = t[:, 1] - y[:, 10]
        actor = chosen_log(y[:, :10], t) * (advantage if ill else advantage.detach())
        return 0.5 * (advantage**2).mean() - actor.mean() + 0.1 * (y[:, :10] ** 2).mean()

    def score(y: Any, t: Any) -> Any:
        return not_the_best(y[:, :10], t) + F.mse_loss(y[:, 10], t[:, 1])

    train, held = bandit(seed, images(seed), 10)
    model = cnn(11)
    return Situation(model, adam(model, 3e-3), loss_fn, train, held, batch=32, score=score)
