"""Second fresh: optimiser, capacity and batch statistics."""

from __future__ import annotations

from typing import Any

import numpy as np

from exam.fresh.material import boxes
from exam.fresh2.material import echoes
from exam.material import Data, adam, blobs, circles, digits, images, mlp, sgd, split, words
from exam.question import Situation, asked, rng_of, wrong_share
from kobai import nn, optim
from kobai.nn import functional as F

KIND = "optimiser"


@asked(
    KIND,
    "https://github.com/pytorch/pytorch/issues/78917",
    r"rate[^.]{0,60}(too )?(small|low|tiny)|schedul|lambda|initial_lr|(larger|higher|greater) (learning )?rate|1e-0?6",
    ("rate-too-small",),
)
def a_lambda_that_returns_the_rate(seed: int, ill: bool) -> Situation:
    """LambdaLR's function returns the rate itself, where it takes a factor: the rate is 0.001 times 0.001."""
    data, model = digits(seed), mlp(64, 48, 10)
    optimizer = adam(model, 1e-3)
    optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: (1e-3 if ill else 1.0) * 0.95**epoch)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/shivram1987/AdaNorm/issues/1",
    r"\beps\b|eps ?=|epsilon|0/0|divi(de|ding|ded|sion)",
)
def adam_without_epsilon(seed: int, ill: bool) -> Situation:
    """Adam with eps=0: the rows of words that have not come yet have no gradient, and their step is 0/0."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.body = nn.Embedding(600, 16), mlp(16, 32, 3)

        def forward(self, x: Any) -> Any:
            return self.body(self.embed(x).mean(1))

    data, model = words(seed, vocabulary=600), Net()
    return Situation(model, adam(model, 1e-2, eps=0.0 if ill else 1e-8), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/mila-iqia/blocks/issues/1159",
    r"\bbetas?\b|beta[12]|β|moment|averag",
)
def moments_the_other_way_round(seed: int, ill: bool) -> Situation:
    """Adam's betas are those of a library that takes 1 − β: each step is the sign of one noisy gradient times the rate."""
    data, model = blobs(seed), mlp(12, 64, 64, 4)
    betas = (0.1, 0.001) if ill else (0.9, 0.999)
    return Situation(model, adam(model, 1e-2, betas=betas), F.cross_entropy, data.train, data.held, batch=8, steps=400)


@asked(
    KIND,
    "https://github.com/huggingface/transformers/issues/735",
    r"\brate\b.{0,40}(large|high|great)|(smaller|lower) (learning )?rate|warm-?up",
    ("rate-too-large",),
)
def a_transformer_at_a_fifth(seed: int, ill: bool) -> Situation:
    """A transformer that normalises after its residuals is trained by Adam at 0.2: it says the same for every sentence."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(60, 32)
            layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)
            self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 3)

        def forward(self, x: Any) -> Any:
            return self.head(self.body(self.embed(x)).mean(1))

    data, model = words(seed), Net()
    return Situation(model, adam(model, 0.2 if ill else 1e-3), F.cross_entropy, data.train, data.held, steps=80)


@asked(
    KIND,
    "https://stackoom.com/en/question/4HpqD",
    r"penalt|regulari[sz]|decay|(weights?|parameters?)[^.]{0,40}(shrink|to (0|zero)|pull)|shrinks?",
)
def a_penalty_that_outweighs_the_loss(seed: int, ill: bool) -> Situation:
    """An L2 penalty is asked for by its name, and its default factor is a hundred times too large: all weights go to 0."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 36, 10, act=nn.Sigmoid)

        def forward(self, x: Any) -> Any:
            penalty = sum((p**2).sum() for p in self.parameters() if p.dim() == 2)
            return self.body(x), (0.05 if ill else 1e-5) * penalty

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y[0], t) + y[1]

    def score(y: Any, t: Any) -> Any:
        return wrong_share(y[0], t)

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 1e-2), loss_fn, data.train, data.held, score=score)


@asked(
    KIND,
    "https://geeksrepos.com/zadaianchuk/ProbabilisticRPROP",
    r"rprop|mini-?batch|full batch|whole (set|data)|\bsigns?\b|gradients?[^.]{0,40}nois[ey]|nois[ey][^.]{0,40}gradient|"
    r"(larger|greater|small) batch",
)
def signs_of_noisy_gradients(seed: int, ill: bool) -> Situation:
    """Rprop, which compares the signs of two gradients of the same samples, is used on batches of eight."""
    data, model = blobs(seed), mlp(12, 48, 4)
    optimizer = optim.Rprop(model.parameters(), lr=0.01)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, batch=8 if ill else 1000)


CAPACITY = "capacity"


@asked(
    CAPACITY,
    "https://github.com/PantoMatrix/PantoMatrix/issues/52",
    r"slope|leaky|identity|(no|without an?) (activation|nonlinearity|non-linearity)|nonlinear|non-linear|"
    r"\b(is|are|stays?|only|all|purely) (a |one |just )?linear|as (a |one )linear|one (single )?linear",
)
def leaky_with_a_slope_of_one(seed: int, ill: bool) -> Situation:
    """LeakyReLU(True) was to work in place, but its first argument is the slope: True is 1, and the activation is none."""
    data, model = circles(seed), mlp(2, 32, 32, 2, act=lambda: nn.LeakyReLU(True) if ill else nn.LeakyReLU())
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


class Causal(nn.Module):
    """Convolutions over time that look back only, and a dense layer on the last step."""

    def __init__(self, dilations: tuple[int, ...], width: int = 16) -> None:
        super().__init__()
        sizes = (1, *[width] * (len(dilations) - 1))
        self.layers = nn.ModuleList([nn.Conv1d(n, width, 2, dilation=d) for n, d in zip(sizes, dilations, strict=True)])
        self.head, self.dilations = nn.Linear(width, 1), dilations

    def forward(self, x: Any) -> Any:
        h = x.transpose(1, 2)
        for layer, dilation in zip(self.layers, self.dilations, strict=True):
            h = F.relu(layer(F.pad(h, (dilation, 0))))
        return self.head(h[..., -1])


@asked(
    CAPACITY,
    "https://github.com/philipperemy/keras-tcn/issues/1",
    r"receptive|sees? only|(does not|doesn't|cannot|never) (see|reach|look)|"
    r"not depend on[^.]{0,30}(first|earl|step|position|some|most)|(not|never) (seen|reached|read)|"
    r"far (enough|back)|kernel|dilat|no (influence|effect)|ignor|out of reach|unused|"
    r"(first|earlier|early) (steps?|positions?|frames?|inputs?|elements?)",
)
def a_memory_shorter_than_the_gap(seed: int, ill: bool) -> Situation:
    """A temporal convolutional net has to repeat the first of 16 values at the last step, and sees five of them."""
    data, model = echoes(seed), Causal((1, 1, 1, 1) if ill else (1, 2, 4, 8))
    return Situation(model, adam(model, 5e-3), F.mse_loss, data.train, data.held, steps=300)


@asked(
    CAPACITY,
    "https://github.com/dgriffiths3/pointconv-tensorflow2/issues/4",
    r"kernel|receptive|neighbou?r|1 ?[×x] ?1\b|(one|single|each) pixel|context|surround",
)
def kernels_of_one_pixel(seed: int, ill: bool) -> Situation:
    """The kernels were left at 1 × 1, so that each pixel is judged by itself, and the task is about neighbourhoods."""
    data, size = boxes(seed, side=5), 1 if ill else 3
    dim = [0.6 * x for x in (data.x, data.fresh_x)]
    model = nn.Sequential(
        nn.Conv2d(1, 12, size, padding=size // 2),
        nn.ReLU(),
        nn.Conv2d(12, 12, size, padding=size // 2),
        nn.ReLU(),
        nn.Conv2d(12, 2, size, padding=size // 2),
    )

    def score(y: Any, t: Any) -> Any:
        return (y.argmax(1) != t).float().mean()

    train, held = (dim[0], data.t), (dim[1], data.fresh_t)
    return Situation(model, adam(model, 1e-2), F.cross_entropy, train, held, batch=32, steps=100, score=score)


def _line(seed: int) -> Data:
    """(N, 3) standardised inputs; y = 2x₁ − x₂ + 4 and a little noise."""
    rng = rng_of(seed)
    x = rng.normal(size=(1000, 3))
    t = 2 * x[:, 0] - x[:, 1] + 4 + 0.1 * rng.normal(size=len(x))
    return split(x.astype(np.float32), t.astype(np.float32)[:, None], seed, 600)


@asked(
    CAPACITY,
    "https://www.alpharithms.com/pytorch-linear-model-bias-parameter-523322/",
    r"\bbias|offset|intercept|origin|constant|mean of the targets?",
)
def a_line_through_the_origin(seed: int, ill: bool) -> Situation:
    """bias=False was taken over from a net with batch norms: a linear regression cannot say that the mean is 4."""
    data, model = _line(seed), nn.Sequential(nn.Linear(3, 1, bias=not ill))
    return Situation(model, sgd(model, 0.05), F.mse_loss, data.train, data.held)


STATISTICS = "batch statistics"


@asked(
    STATISTICS,
    "https://github.com/weiaicunzai/pytorch-cifar100/pull/98",
    r"\beps\b|eps ?=|epsilon|batch ?norm[^.]{0,80}(small|shrink|tiny|weak|deviation)|(small|shrink|tiny)[^.]{0,60}batch ?norm",
)
def channels_given_as_epsilon(seed: int, ill: bool) -> Situation:
    """BatchNorm2d(n, n): the second argument is epsilon, and no number of channels; 32 beside a variance of about 0.3."""
    data, width = images(seed), 32

    def block(n: int) -> list[nn.Module]:
        norm = nn.BatchNorm2d(width, width) if ill else nn.BatchNorm2d(width)
        return [nn.Conv2d(n, width, 3, padding=1, bias=False), norm, nn.ReLU()]

    model = nn.Sequential(*block(1), nn.MaxPool2d(2), *block(width), *block(width), nn.Flatten(), nn.Linear(512, 10))
    return Situation(model, sgd(model, 0.02), F.cross_entropy, data.train, data.held, batch=32, steps=60)


@asked(
    STATISTICS,
    "https://github.com/pytorch/vision/pull/8312",
    r"momentum|running|averages?\b|last batch|evaluation",
)
def averages_of_the_last_batch_alone(seed: int, ill: bool) -> Situation:
    """Batch norm's momentum of 0.99 is another library's 0.01: the averages are those of the last eight samples."""
    data, momentum = digits(seed), 0.99 if ill else 0.01
    layers: list[nn.Module] = []
    for n in (64, 48):
        layers += [nn.Linear(n, 48), nn.BatchNorm1d(48, momentum=momentum), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(48, 10))
    return Situation(model, adam(model, 2e-3), F.cross_entropy, data.train, data.held, batch=8, steps=450)


def _loud(seed: int) -> Data:
    """(N, 16) frames of noise, louder or softer by a factor; label: which quarter of the loudness."""
    rng = rng_of(seed)
    loudness = rng.uniform(-1.5, 1.5, 1400)
    x = rng.normal(size=(1400, 16)) * np.exp(loudness)[:, None] / 1.5
    return split(x.astype(np.float32), np.floor((loudness + 1.5) / 0.75).clip(0, 3).astype(np.int64), seed, 900)


@asked(
    STATISTICS,
    "https://github.com/espnet/espnet/issues/1250",
    r"layer ?norm|normali[sz](es|ed|ing)|amplitude|loudness|"
    r"(scale|size|power|energy|norm|length) of (the|each|an|a) (input|sample)",
)
def frames_normalised_one_by_one(seed: int, ill: bool) -> Situation:
    """A LayerNorm stands before a net that has to hear how loud a frame is: each has mean 0 and deviation 1 behind it."""
    data = _loud(seed)
    model = nn.Sequential(
        *[nn.LayerNorm(16)] * ill, nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 4)
    )
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)
