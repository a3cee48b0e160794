"""Third fresh: loss and output belong together."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.fresh.material import divergence
from exam.fresh3.material import spots
from exam.material import Data, Rows, adam, digits, mlp, sgd, split
from exam.question import Situation, asked, rng_of
from kobai import nn
from kobai.nn import functional as F

KIND = "loss and output"
UNBOUNDED = r"below (0|zero)|without (a )?(lower )?bound|unbounded|no (lower )?bound|no least|least value"


class Variational(nn.Module):
    """A convolutional encoder to mean and log-variance of four numbers, and a dense decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 8)
        )
        self.decoder = mlp(4, 48, 64)

    def forward(self, x: Any) -> Any:
        mean, log_variance = self.encoder(x.reshape(-1, 1, 8, 8)).chunk(2, 1)
        return self.decoder(mean + (0.5 * log_variance).exp() * kobai.randn_like(mean)), mean, log_variance


def picture_error(y: Any, t: Any) -> Any:
    return F.mse_loss(y[0], t)


@asked(
    KIND,
    "https://github.com/graviraja/pytorch-sample-codes/issues/6",
    rf"\bsign\b|minus|\bkl\b|divergence|{UNBOUNDED}",
    ("no-least-loss",),
)
def a_divergence_with_a_flipped_sign(seed: int, ill: bool) -> Situation:
    """The divergence of a VAE is added as the paper's formula has it, which is minus the divergence: codes are driven apart."""

    def loss_fn(y: Any, t: Any) -> Any:
        apart = 0.02 * divergence(y[1], y[2]).mean()
        return picture_error(y, t) + (-apart if ill else apart)

    data, model = digits(seed), Variational()
    train, held = (data.x, data.x), (data.fresh_x, data.fresh_x)
    return Situation(model, adam(model, 3e-3), loss_fn, train, held, steps=200, score=picture_error)


def _energies(seed: int) -> Data:
    """(N, 12, 3) noise; target (N, 1): how the energy of the first column compares with that of the others."""
    rng = rng_of(seed)
    x = rng.normal(size=(1400, 12, 3))
    t = (x[..., 0] ** 2).mean(1) - (x[..., 1] * x[..., 2]).mean(1) + 0.5 * x[:, -4:, 1].mean(1)
    return split(x.astype(np.float32), ((t - t.mean()) / t.std()).astype(np.float32)[:, None], seed, 1000)


@asked(
    KIND,
    "https://github.com/hutec/UncertaintyNN/issues/1",
    rf"variance|sigma|σ|shrink\w* the loss|scale (output|head)|infinit|{UNBOUNDED}",
    ("no-least-loss",),
)
def errors_over_a_variance_that_is_free(seed: int, ill: bool) -> Situation:
    """A recurrent net says a value and the logarithm of its variance, and the loss forgets to add that: variance is free."""

    def loss_fn(y: Any, t: Any) -> Any:
        error = (y[:, :1] - t) ** 2 * (-y[:, 1:]).exp()
        return (error if ill else error + y[:, 1:]).mean()

    def score(y: Any, t: Any) -> Any:
        return F.mse_loss(y[:, :1], t)

    data, model = _energies(seed), Rows("GRU", 3, 32, 2)
    return Situation(model, sgd(model, 0.02), loss_fn, data.train, data.held, steps=250, score=score, clip=1.0)


@asked(
    KIND,
    "https://github.com/duanzhiihao/RAPiD/issues/14",
    r"\bwrap|circ(le|ular)|period|\bangle|\bjumps? (of|in|between) the target|discontinu|\bcos\b|360|2π|modul",
)
def an_angle_that_jumps(seed: int, ill: bool) -> Situation:
    """A direction is fitted by a squared error of the angle: beside the jump from π to −π, neighbours have opposite targets."""
    data, _ = spots(seed)
    sets = [kobai.stack([t], 1) if ill else kobai.stack([t.cos(), t.sin()], 1) for t in (data.t, data.fresh_t)]

    def score(y: Any, t: Any) -> Any:
        if ill:
            return (1 - (y - t).cos()).mean()
        return (1 - F.cosine_similarity(y, t, dim=1)).mean()

    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 32),
        nn.ReLU(),
        nn.Linear(32, 1 if ill else 2),
    )
    train, held = (data.x, sets[0]), (data.fresh_x, sets[1])
    return Situation(model, adam(model, 3e-3), F.mse_loss, train, held, steps=200, score=score)


def _corners(box: Any) -> Any:
    """From centre and size to the two corners."""
    return kobai.cat([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], 1)


def _overlap_loss(a: Any, b: Any) -> Any:
    """1 − intersection / union of boxes that are given by two corners."""
    low, high = kobai.maximum(a[:, :2], b[:, :2]), kobai.minimum(a[:, 2:], b[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).clamp(min=0).prod(1) for box in (a, b)]
    return (1 - common / (areas[0] + areas[1] - common + 1e-6)).mean()


def _framed(seed: int) -> Data:
    """(N, 1, 12, 12) noisy images of a rectangle; target (N, 4): its centre, width and height, in shares of the image."""
    rng = rng_of(seed)
    size, x = rng.integers(3, 6, (800, 2)), 0.4 * rng.normal(size=(800, 1, 12, 12))
    corner = np.floor(rng.random((800, 2)) * (4 - size) + 8).astype(int)
    for i, ((c, r), (w, h)) in enumerate(zip(corner, size, strict=True)):
        x[i, 0, r - 4 : r - 4 + h, c - 4 : c - 4 + w] += 2
    t = np.concatenate([corner - 4 + size / 2, size], 1) / 12
    return split(x.astype(np.float32), t.astype(np.float32), seed, 500)


@asked(
    KIND,
    "https://github.com/stevebottos/owl-vit-object-detection/issues/14",
    r"corner|centre and|\bformat\b|overlap|union|intersection|\bclamp|loss[^.]{0,50}(constant|does not (depend|change))|"
    r"gradient[^.]{0,30}\b(is|are) (0|zero|exactly 0)",
    ("constant-loss",),
)
def boxes_by_centre_read_as_corners(seed: int, ill: bool) -> Situation:
    """Boxes are centre and size, and the overlap is taken as if they were two corners: mostly it is 0, with its gradient."""

    def loss_fn(y: Any, t: Any) -> Any:
        return _overlap_loss(y, t) if ill else _overlap_loss(_corners(y), _corners(t))

    data = _framed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(288, 48),
        nn.ReLU(),
        nn.Linear(48, 4),
        nn.Sigmoid(),
    )
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held, batch=32, steps=200, score=F.l1_loss)


@asked(
    KIND,
    "https://github.com/keras-team/keras/issues/5414",
    r"penalt|regulari|sparsity|drown|outweigh|terms? of the loss|\bl1\b|code[^.]{0,40}(\b0\b|zero|nothing)",
    ("term-drowned",),
)
def a_code_that_is_penalised_to_nothing(seed: int, ill: bool) -> Situation:
    """The penalty on a sparse autoencoder's activity is a sum over units beside a mean over pixels: every unit is silent."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = mlp(64, 80, last=(nn.ReLU(),)), nn.Linear(80, 64)

        def forward(self, x: Any) -> Any:
            code = self.encoder(x)
            return self.decoder(code), code

    def loss_fn(y: Any, t: Any) -> Any:
        return picture_error(y, t) + (0.1 if ill else 1e-4) * y[1].abs().sum(1).mean()

    data, model = digits(seed), Net()
    train, held = (data.x, data.x), (data.fresh_x, data.fresh_x)
    return Situation(model, adam(model, 3e-3), loss_fn, train, held, steps=200, score=picture_error)
