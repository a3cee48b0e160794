"""Second fresh: data, and what shows over epochs."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.fresh.material import boxes, pixels
from exam.fresh2.material import reviews
from exam.material import Data, adam, mlp, sgd, split, surface
from exam.question import Situation, asked, rng_of
from kobai import nn
from kobai.nn import functional as F

KIND = "data"


def _outside(output: Any, target: Any) -> Any:
    return (output.argmax(1) != target).float().mean()


@asked(
    KIND,
    "https://github.com/milesial/Pytorch-UNet/issues/228",
    r"(one|single|no other|same|only) (class|label|target|value)|"
    r"(all|every)( the)? (labels?|targets?|pixels?)[^.]{0,30}(0|same|equal)|"
    r"(labels?|targets?) (are|is) (all|always|the same|constant)|constant|class 0|label 0",
)
def masks_divided_by_255(seed: int, ill: bool) -> Situation:
    """The transform for images divides the masks by 255 too, and long() rounds down: every pixel is of class 0."""
    data = boxes(seed)
    masks = (data.t / 255).long() if ill else data.t
    model = pixels(2)
    train, held = (data.x, masks), (data.fresh_x, data.fresh_t)
    return Situation(model, adam(model, 5e-3), F.cross_entropy, train, held, batch=32, steps=60, score=_outside)


@asked(
    KIND,
    "https://discuss.pytorch.org/t/two-dimensional-mse-loss-in-mlp-training/180059",
    r"targets?[^.]{0,100}(scale|size|deviation|large|standardi|differ|column|unit)|(standardi[sz]e|scales? of) the targets?|"
    r"(smaller|first) (output|target)",
    ("target-scale",),
)
def two_targets_of_different_size(seed: int, ill: bool) -> Situation:
    """One squared error over two targets, one about 0.4 and the other about −22: only the greater is learnt."""
    data = surface(seed)
    both = []
    for t, x in ((data.t, data.x), (data.fresh_t, data.fresh_x)):
        second = (x[:, 4:5] * x[:, 5:6] + x[:, 6:7]) / 1.4
        wide = kobai.cat([0.4 + 0.2 * t, -22 + 9 * second], 1)
        both.append(wide if ill else kobai.cat([t, second], 1))
    centre, spread = (kobai.tensor([[0.4, -22.0]]), kobai.tensor([[0.2, 9.0]])) if ill else (0.0, 1.0)

    def score(y: Any, t: Any) -> Any:
        return (((y - centre) / spread - (t - centre) / spread) ** 2).mean()

    model = mlp(8, 64, 64, 2)
    train, held = (data.x, both[0]), (data.fresh_x, both[1])
    return Situation(model, adam(model, 3e-3), F.mse_loss, train, held, score=score, steps=300)


@asked(
    KIND,
    "https://geeksmental.com/question/appropriate-loss-function-and-metrics-for-regression-task-with-mixed-outputs",
    r"targets?[^.]{0,80}(scale|small|tiny|narrow|deviation|standardi)|standardi[sz]e the targets?|"
    r"(scale|multiply) the targets?",
    ("target-scale",),
)
def changes_of_three_ten_thousandths(seed: int, ill: bool) -> Situation:
    """The targets are relative changes of ±0.0003, with no scaling: the loss is tiny at once, and the answer flat or noise."""
    data, size = surface(seed), 3e-4 if ill else 1.0
    targets = [size * t for t in (data.t, data.fresh_t)]

    def score(y: Any, t: Any) -> Any:
        return (((y - t) / size) ** 2).mean()

    model = mlp(8, 64, 32, 1)
    train, held = (data.x, targets[0]), (data.fresh_x, targets[1])
    return Situation(model, adam(model, 3e-3), F.mse_loss, train, held, score=score)


@asked(
    KIND,
    "https://discuss.pytorch.org/t/bias-grad-in-linear-regression-remains-small-compared-to-weight-grad-and-intercept-is-not-properly-learnt/136505",
    r"(input|feature)s?[^.]{0,100}(scale|standardi|normali|large|mean|cent(re|er)|range|far from)|"
    r"standardi[sz]e the (input|feature)|ill-condition",
    ("input-scale",),
)
def a_line_from_0_to_100(seed: int, ill: bool) -> Situation:
    """Inputs from 0 to 100 as they are, and a rate that they bear: the slope is learnt, and the intercept does not move."""
    rng = rng_of(seed)
    x = rng.uniform(0, 100, (1100, 1))
    t = (0.05 * x + 5 + 0.3 * rng.normal(size=x.shape)).astype(np.float32)
    data = split((x if ill else (x - x.mean()) / x.std()).astype(np.float32), t, seed, 600)
    model = nn.Sequential(nn.Linear(1, 1))
    optimizer = kobai.optim.SGD(model.parameters(), lr=1e-5 if ill else 0.1)
    return Situation(model, optimizer, F.mse_loss, data.train, data.held)


def _heights(seed: int, filled: bool) -> Data:
    """(N, 6) measurements of 175 ± 8, standardised; ``filled``: one in twelve is missing, and 0 was put there before."""
    rng = rng_of(seed)
    z = rng.normal(size=(1500, 6))
    t = np.sin(1.5 * z[:, 0]) + z[:, 1] * z[:, 2] + 0.7 * z[:, 3]
    x, missing = 175 + 8 * z, rng.random(z.shape) < 1 / 12
    x[missing] = 0 if filled else 175
    x = (x - x.mean(0)) / x.std(0)
    return split(x.astype(np.float32), ((t - t.mean()) / t.std()).astype(np.float32)[:, None], seed, 1000)


@asked(
    KIND,
    "https://datascience.stackexchange.com/questions/36047/fill-missing-values-and-normalise",
    r"outlier|missing|filled|placeholder|extreme|heavy|many zeros|exactly (0|the same)|"
    r"(same|lone|single|repeated|one) value|far (from|away|below)",
)
def missing_heights_filled_with_zero(seed: int, ill: bool) -> Situation:
    """Missing heights became 0 before the columns were standardised: those zeros are what the deviation is made of."""
    data, model = _heights(seed, ill), mlp(6, 64, 32, 1)
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


EPOCHS = "over epochs"


@asked(
    EPOCHS,
    "https://github.com/DLR-RM/stable-baselines3/issues/325",
    r"last batch|batch(es)? of (size )?(1\b|one)|(holds|has|with|only|leaves) (one|a single|1) sample|\bstd\b|drop_last|"
    r"standard deviation|unbiased",
)
def one_sample_in_the_last_batch(seed: int, ill: bool) -> Situation:
    """Advantages are standardised within the batch, and 641 samples leave one for the last: its deviation is not a number."""
    rng = rng_of(seed)
    data = surface(seed, count=641 if ill else 640)
    sets = []
    for x in (data.x, data.fresh_x):
        best = (x[:, 0] + x[:, 1] * x[:, 2] > 0).long()
        action = kobai.from_numpy(rng.integers(0, 2, len(x)))
        advantage = (action == best).float() * 2 + kobai.from_numpy(rng.normal(size=len(x)).astype(np.float32))
        sets.append((x, kobai.stack([action.float(), advantage, best.float()], 1)))

    def loss_fn(y: Any, t: Any) -> Any:
        advantage = (t[:, 1] - t[:, 1].mean()) / (t[:, 1].std() + 1e-8)
        return -(advantage * F.log_softmax(y, dim=-1).gather(1, t[:, :1].long())[:, 0]).mean()

    def score(y: Any, t: Any) -> Any:
        return (y.argmax(1) != t[:, 2].long()).float().mean()

    model = mlp(8, 48, 2)
    return Situation(model, adam(model, 3e-3), loss_fn, *sets, batch=64, epochs=8, score=score)


class Texts(nn.Module):
    """An embedding, an LSTM and a dense layer."""

    def __init__(self, vocabulary: int = 400, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.rnn, self.head = nn.LSTM(width, width, batch_first=True), nn.Linear(width, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(self.embed(x))[0].mean(1))


@asked(
    EPOCHS,
    "https://codepudding.com/Softwareengineering/477078.html",
    r"overfit|over-fit|memori[sz]|by heart|generali[sz]|validation[^.]{0,80}(ris|grow|worse|higher|increas)|"
    r"(more|few) (data|samples)",
)
def a_hundred_texts_by_heart(seed: int, ill: bool) -> Situation:
    """An LSTM with its own word vectors sees a hundred texts: it knows each by its rare words, and the validation
    gets worse.
    """
    data, model = reviews(seed, 100 if ill else 1500), Texts()
    epochs = 30 if ill else 6
    return Situation(
        model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, batch=20 if ill else 50, epochs=epochs
    )


@asked(
    EPOCHS,
    "https://github.com/open-mmlab/mmdetection/issues/2061",
    r"outlier|spike|jumps?\b|(one|a single|a few) (sample|batch|target)s?[^.]{0,60}(large|far|loss|gradient|weigh)|extreme|"
    r"broken|corrupt|(one|a single) target|targets?[^.]{0,80}(large|scale|huge|differ)",
    ("target-scale",),
)
def a_broken_annotation(seed: int, ill: bool) -> Situation:
    """One target of a thousand was written without its decimal point: once in each epoch the loss jumps, and so do
    the weights.
    """
    data = surface(seed)
    target = data.t.clone()
    if ill:
        target[577] = 1500.0
    model = mlp(8, 48, 1)
    return Situation(model, sgd(model, 0.005), F.mse_loss, (data.x, target), data.held, batch=50, epochs=6)
