"""Second fresh: losses that are not finite, or nearly so, for what they are given."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.material import adam, digits, mlp, surface
from exam.question import Situation, asked, rng_of, wrong_share
from kobai import nn
from kobai.nn import functional as F

KIND = "loss and output"


@asked(
    KIND,
    "https://github.com/pytorch/pytorch/issues/184030",
    r"\blog\b|log\(|logarithm|log_input|negative|positive|below (0|zero)|softplus",
)
def rates_that_may_be_negative(seed: int, ill: bool) -> Situation:
    """PoissonNLLLoss(log_input=False) takes the logarithm of a rate, and the net ends in a linear layer: half are negative."""
    data, rng = surface(seed), rng_of(seed)
    counts = [kobai.from_numpy(rng.poisson(np.exp(0.8 * t.numpy())).astype(np.float32)) for t in (data.t, data.fresh_t)]
    model = mlp(8, 64, 32, 1, last=() if ill else (nn.Softplus(),))
    loss_fn = nn.PoissonNLLLoss(log_input=False)
    return Situation(model, adam(model, 3e-3), loss_fn, (data.x, counts[0]), (data.fresh_x, counts[1]))


@asked(
    KIND,
    "https://forums.fast.ai/t/cross-entropy-error-log-1-1-inf/1441 and "
    "https://github.com/zackchase/mxnet-the-straight-dope/issues/3",
    r"overflow|\bexp\b|exp\(|exponential|softmax|logsumexp|255",
    ("input-scale",),
)
def a_softmax_of_ones_own(seed: int, ill: bool) -> Situation:
    """exp(y) / Σ exp(y) is written by hand, and pixels go from 0 to 255: exp overflows, and the quotient is ∞/∞."""

    def loss_fn(y: Any, t: Any) -> Any:
        p = y.exp() / y.exp().sum(1, keepdim=True)
        return -p.gather(1, t[:, None]).log().mean()

    data = digits(seed, raw=ill)
    x = [255 * x if ill else x for x in (data.x, data.fresh_x)]
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    with kobai.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(kobai.randn_like(layer.weight) * (2 / layer.weight.shape[1]) ** 0.5)
    train, held = (x[0], data.t), (x[1], data.fresh_t)
    return Situation(model, adam(model, 2e-3), loss_fn, train, held, score=wrong_share)


@asked(
    KIND,
    "https://github.com/keras-team/keras/pull/8524",
    r"cosh|overflow|\bexp\b|exp\(|outlier|extreme|float32",
)
def a_hyperbolic_cosine_of_a_large_error(seed: int, ill: bool) -> Situation:
    """log(cosh(y − t)) is taken for its patience with outliers: at an error of 90 the cosh is infinite in float32."""

    def loss_fn(y: Any, t: Any) -> Any:
        error = (y - t).abs()
        return (error.cosh().log() if ill else error + F.softplus(-2 * error) - np.log(2)).mean()

    data, rng = surface(seed), rng_of(seed)
    target = data.t.clone()
    target[3::97] = kobai.from_numpy((150 + 20 * rng.random((len(target[3::97]), 1))).astype(np.float32))
    model = mlp(8, 64, 32, 1)
    return Situation(model, adam(model, 5e-3), loss_fn, (data.x, target), data.held, score=F.l1_loss)


@asked(
    KIND,
    "https://github.com/keras-team/keras/issues/2908",
    r"divi(de|ding|ded|sion)|percentage|relative|denominator|targets?[^.]{0,60}(\b0\b|zero|vanish)|"
    r"(\b0|zero)[^.]{0,20}targets?",
)
def a_percentage_of_nothing(seed: int, ill: bool) -> Situation:
    """The mean absolute percentage error divides by the target, and one amount in eight is 0: those alone are fitted."""

    def loss_fn(y: Any, t: Any) -> Any:
        return ((y - t).abs() / (t.abs().clamp(min=1e-7) if ill else 1.0)).mean()

    data, rng = surface(seed), rng_of(seed)
    amounts = []
    for t in (data.t, data.fresh_t):
        amount = (2 + t).clamp(min=0.5).numpy()
        amount[rng.random(len(amount)) < 0.125] = 0
        amounts.append(kobai.from_numpy(amount))
    model = mlp(8, 64, 32, 1)
    train, held = (data.x, amounts[0]), (data.fresh_x, amounts[1])
    return Situation(model, adam(model, 5e-3), loss_fn, train, held, score=F.l1_loss)
