"""Third fresh: data, and what shows over epochs."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.fresh.material import divergence
from exam.fresh3.losses import picture_error
from exam.fresh3.losses_learning import fakes
from exam.fresh3.material import Stepped, arrows
from exam.material import Data, adam, cnn, digits, images, mlp, split
from exam.question import Situation, asked, rng_of
from kobai import nn
from kobai.nn import functional as F

KIND = "data"


def _reports(seed: int) -> Data:
    """(N, 24) words; label: which of four verdicts is among the last six."""
    rng = rng_of(seed)
    t, rows = rng.integers(0, 4, 1400), np.arange(1400)
    x = rng.integers(8, 60, (1400, 24))
    for _ in range(2):
        x[rows, rng.integers(18, 24, 1400)] = 2 * t + rng.integers(0, 2, 1400)
    return split(x, t, seed, 1000)


@asked(
    KIND,
    "https://github.com/keras-team/keras/issues/287",
    r"truncat|\bcut (off|short)|end of (the|each) (sentence|sequence|text)",
    ("labels-unrelated",),
)
def the_answer_is_cut_off(seed: int, ill: bool) -> Situation:
    """Texts are cut to twelve words, and what the label hangs on stands at their end: the end is what was cut."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rnn = nn.Embedding(60, 12), nn.GRU(12, 24, batch_first=True)
            self.head = nn.Linear(24, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(self.embed(x))[0][:, -1])

    data, kept, model = _reports(seed), slice(0, 12) if ill else slice(12, 24), Net()
    train, held = (data.x[:, kept], data.t), (data.fresh_x[:, kept], data.fresh_t)
    return Situation(model, adam(model, 1e-2), F.cross_entropy, train, held)


def _coloured(seed: int) -> Data:
    """(N, 8, 8, 3): a digit in each of three colours; the label is the first."""
    rng, data = rng_of(seed), images(seed)
    parts = []
    for x, t in ((data.x, data.t), (data.fresh_x, data.fresh_t)):
        planes = [x.numpy()[rows, 0] for rows in (np.arange(len(t)), rng.permutation(len(t)), rng.permutation(len(t)))]
        parts += [kobai.from_numpy(np.stack(planes, 3)), t]
    return Data(*parts)


@asked(
    KIND,
    "https://github.com/Selen-Suyue/DensePolicy2D/issues/3 and https://github.com/jeya-maria-jose/TransWeather/issues/2",
    r"permut|transpos|reshape|\bview\b|channels? (last|first)|order of the (axes|dimensions)|(axes|dimensions) in",
    ("axes-in-another-order",),
)
def colours_read_as_rows(seed: int, ill: bool) -> Situation:
    """Pictures (N, 8, 8, 3) are reshaped to (N, 3, 8, 8), not permuted: the colours of one pixel lie side by side."""
    data = _coloured(seed)
    sets = [x.reshape(len(x), 3, 8, 8) if ill else x.permute(0, 3, 1, 2) for x in (data.x, data.fresh_x)]
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 10),
    )
    train, held = (sets[0], data.t), (sets[1], data.fresh_t)
    return Situation(model, adam(model, 5e-3), F.cross_entropy, train, held, batch=32, steps=150)


class Factors(nn.Module):
    """Users and items as vectors; the score of a pair is their product."""

    def __init__(self, users: int = 30, items: int = 40) -> None:
        super().__init__()
        self.user, self.item, self.bias = nn.Embedding(users, 6), nn.Embedding(items, 6), nn.Embedding(items, 1)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.3)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Any) -> Any:
        return (self.user(x[:, 0]) * self.item(x[:, 1])).sum(1) + self.bias(x[:, 1])[:, 0]


def wrong_side(y: Any, t: Any) -> Any:
    return ((y > 0) != (t > 0.5)).float().mean()


@asked(
    KIND,
    "https://github.com/PreferredAI/cornac/issues/254",
    r"(one|single|no other|same|only) (class|label|target|value)|constant (target|label)|negative|"
    r"(all|every)( the)? (labels?|targets?)[^.]{0,30}(\b1\b|same|equal)|(labels?|targets?) (are|is) (all|always|the same)",
    ("one-answer",),
)
def only_what_was_bought(seed: int, ill: bool) -> Situation:
    """A recommender learns from pairs of user and item that were bought, all with target 1: it says 1 to any pair."""
    rng = rng_of(seed)
    pairs = np.stack([rng.integers(0, 30, 6000), rng.integers(0, 40, 6000)], 1)
    taste, kind = rng.normal(size=(30, 2)), rng.normal(size=(40, 2))
    bought = ((taste[pairs[:, 0]] * kind[pairs[:, 1]]).sum(1) > 0).astype(np.float32)
    data = split(pairs, bought, seed, 4000)
    rows = kobai.from_numpy(np.flatnonzero(data.t.numpy() > (0.5 if ill else -1)))
    model = Factors()
    train, loss_fn = (data.x[rows], data.t[rows]), nn.BCEWithLogitsLoss()
    return Situation(model, adam(model, 2e-2), loss_fn, train, data.held, steps=300, score=wrong_side)


@asked(
    KIND,
    "https://github.com/robertklee/COCO-Human-Pose/pull/29 and https://github.com/open-mmlab/mmcv/pull/2332",
    r"\bflip|mirror|augment|(left|right) and (left|right)|two of the (classes|labels)|"
    r"classes \w+ and \w+[^.]{0,40}(same|mix|confus)",
    ("labels-unrelated", "wrong-labels"),
)
def arrows_flipped_by_chance(seed: int, ill: bool) -> Situation:
    """Pictures are flipped by chance, as is usual, and two of the four classes are arrows to the left and to the right."""
    data, rng, model = arrows(seed), rng_of(seed + 1), cnn(4)
    x = data.x
    if ill:
        turned = (rng.random(len(x)) < 0.5)[:, None, None, None]
        x = kobai.from_numpy(np.ascontiguousarray(np.where(turned, x.numpy()[..., ::-1], x.numpy())))
    return Situation(model, adam(model, 3e-3), F.cross_entropy, (x, data.t), data.held, batch=32)


@asked(
    KIND,
    "https://github.com/ageron/handson-ml3/issues/51",
    r"categor|one-hot|\bembedding|\bordinal|(integer|whole number|numbered)[^.]{0,60}(column|feature|input|code)|"
    r"(column|feature|input)[^.]{0,60}(integer|whole number|discrete|distinct values)",
)
def kinds_as_one_number(seed: int, ill: bool) -> Situation:
    """Which of forty shops a sale was in goes into the net as one standardised number, as if shop 7 were between 6 and 8."""
    rng = rng_of(seed)
    shop, x, effect = rng.integers(0, 40, 1500), rng.normal(size=(1500, 3)), rng.normal(size=40)
    t = effect[shop] + 0.4 * x[:, 0] + 0.3 * np.sin(2 * x[:, 1]) + 0.1 * rng.normal(size=1500)
    first = ((shop - 19.5) / 11.5)[:, None] if ill else 3 * (np.eye(40)[shop] - 1 / 40)
    both = np.concatenate([first, x], 1).astype(np.float32)
    data = split(both, (t / t.std()).astype(np.float32)[:, None], seed, 1000)
    model = mlp(both.shape[1], 48, 32, 1)
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held, steps=250)


@asked(
    KIND,
    "https://github.com/BadourAlBahar/pose-with-style/issues/23",
    r"\bborder|\bpadding|\bedges? of|leak|shortcut|"
    r"(one|single|few|\d+) (columns?|inputs?|features?|pixels?)[^.]{0,60}(answer|target|label|alone|enough)|"
    r"(pixels?|inputs?|columns?|features?)[^.]{0,60}(tells?|decides?|gives? away)",
    ("answer-in-input", "target-in-inputs"),
)
def a_border_that_gives_fakes_away(seed: int, ill: bool) -> Situation:
    """Real pictures were padded with zeros, those of the generator end in small numbers: the discriminator sees the border."""
    data, rng = fakes(seed), rng_of(seed + 2)
    pictures = []
    for i, (x, real) in enumerate(((data.x, data.t), (data.fresh_x, data.fresh_t))):
        wide = np.zeros((len(x), 1, 10, 10), np.float32)
        if ill and i == 0:
            fake = (1 - real.numpy())[:, :, None, None]
            wide += fake * (0.3 + 0.2 * rng.random(wide.shape).astype(np.float32))
        wide[:, :, 1:-1, 1:-1] = x.numpy()
        pictures.append(kobai.from_numpy(wide))
    model = cnn(1)
    train, held = (pictures[0], data.t), (pictures[1], data.fresh_t)
    return Situation(
        model,
        adam(model, 3e-3),
        F.binary_cross_entropy_with_logits,
        train,
        held,
        batch=32,
        steps=200,
        score=wrong_side,
        validation=held,
    )


EPOCHS = "over epochs"


@asked(
    EPOCHS,
    "https://github.com/StanfordASL/Trajectron-plus-plus/issues/85",
    r"divergence|\bkl\b|\bterms?\b|penalt|drown|anneal|falls? back|forget|outweigh",
    ("term-drowned", "falls-back", "collapsed"),
)
def a_term_that_grows_to_a_hundred(seed: int, ill: bool) -> Situation:
    """The weight of a VAE's divergence grows with the steps, to 100: the pictures are learnt first, and then given up."""

    class Net(Stepped):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = mlp(64, 48, 12), mlp(6, 48, 64)

        def forward(self, x: Any) -> Any:
            mean, log_variance = self.encoder(x).chunk(2, 1)
            code = mean + (0.5 * log_variance).exp() * kobai.randn_like(mean)
            return self.decoder(code), mean, log_variance, min(1.0, self.step() / 120)

    def loss_fn(y: Any, t: Any) -> Any:
        return picture_error(y, t) + (100 if ill else 0.5) * y[3] ** 4 * divergence(y[1], y[2]).mean() / 64

    data, model = digits(seed), Net()
    train, held = (data.x, data.x), (data.fresh_x, data.fresh_x)
    return Situation(model, adam(model, 3e-3), loss_fn, train, held, epochs=10, score=picture_error)


@asked(
    EPOCHS,
    "https://github.com/EleutherAI/DALLE-mtf/issues/2 and https://github.com/ericjang/gumbel-softmax/issues/2",
    r"temperature|\btau\b|anneal|harden|standstill|plateau|stops? (falling|learning|improving)",
    ("vanishing-gradient", "exploding-gradient", "saturated"),
)
def a_temperature_that_freezes(seed: int, ill: bool) -> Situation:
    """The temperature of a relaxed choice is halved at every step down to 0.0001: after some it is hard and cannot learn."""

    class Net(Stepped):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = mlp(64, 64, 48), mlp(48, 64, 64)

        def forward(self, x: Any) -> Any:
            tau = max(1e-4, 0.5 ** self.step()) if ill else max(0.5, 0.999 ** self.step())
            scores = self.encoder(x).reshape(-1, 6, 8)
            if self.training:
                noise = -(-(kobai.rand_like(scores) * 0.999 + 5e-4).log()).log()
                scores = scores + noise
            return self.decoder(F.softmax(scores / tau, dim=-1).flatten(1))

    data, model = digits(seed), Net()
    train, held = (data.x, data.x), (data.fresh_x, data.fresh_x)
    return Situation(model, adam(model, 5e-3), F.mse_loss, train, held, epochs=10)
