"""Over epochs: what only a course of training shows. The doctor watches it."""

from __future__ import annotations

from typing import Any

import kobai
from exam.material import adam, blobs, cnn, digits, images, mlp, sgd, surface
from exam.optimisers import SCHEDULE, TOO_LARGE, TOO_SMALL
from exam.question import Situation, asked
from kobai import nn, optim
from kobai.nn import functional as F

KIND = "over epochs"
OVERFIT = r"overfit|memori[sz]|generali[sz]"


@asked(KIND, "https://cs231n.github.io/neural-networks-3/ (train/val accuracy)", OVERFIT)
def forty_samples_by_heart(seed: int, ill: bool) -> Situation:
    """A wide net learns 60 digits by heart: the training loss goes to 0 and the validation loss rises."""
    data, model = digits(seed), mlp(64, 512, 512, 10)
    train = (data.x[:60], data.t[:60]) if ill else data.train
    return Situation(
        model, adam(model, 3e-3), F.cross_entropy, train, data.held, epochs=60 if ill else 4, batch=30 if ill else 64
    )


@asked(KIND, "https://arxiv.org/abs/1611.03530", OVERFIT)
def noisy_labels_by_heart(seed: int, ill: bool) -> Situation:
    """Four in ten labels are wrong, and the net fits them all."""
    data, model = blobs(seed), mlp(12, 256, 256, 4)
    t = data.t.clone()
    if ill:
        t[::5], t[1::5] = (t[::5] + 1) % 4, (t[1::5] + 2) % 4
    train = (data.x[:400], t[:400]) if ill else data.train
    return Situation(model, adam(model, 3e-3), F.cross_entropy, train, data.held, epochs=30 if ill else 4)


@asked(KIND, "https://github.com/keras-team/keras/issues/3894", OVERFIT)
def a_regression_by_heart(seed: int, ill: bool) -> Situation:
    """50 noisy points and 40 thousand weights."""
    data, model = surface(seed), mlp(8, 200, 200, 1)
    train = (data.x[:50], data.t[:50]) if ill else data.train
    return Situation(
        model, adam(model, 3e-3), F.mse_loss, train, data.held, epochs=60 if ill else 5, batch=25 if ill else 64
    )


@asked(
    KIND,
    "https://github.com/keras-team/keras/issues/7603",
    TOO_LARGE + "|" + SCHEDULE + "|diverg",
    ("rate-too-large", "non-finite"),
)
def diverges_late(seed: int, ill: bool) -> Situation:
    """A schedule raises the rate by 60 % in each epoch: the loss falls for some epochs, and then explodes."""
    data, model = digits(seed), mlp(64, 64, 10)
    optimizer = sgd(model, 0.05)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma=1.9 if ill else 0.9)
    return Situation(
        model, optimizer, F.cross_entropy, data.train, data.held, epochs=12 if ill else 6, scheduler=scheduler
    )


@asked(
    KIND,
    "https://github.com/xlvector/learning-dl/issues/1",
    TOO_LARGE,
    ("rate-too-large", "non-finite"),
    never=("dying-relu",),
)
def rate_kills_the_net(seed: int, ill: bool) -> Situation:
    """Adam at 0.3 from the first epoch on."""
    data, model = images(seed), cnn()
    return Situation(model, adam(model, 0.3 if ill else 3e-3), F.cross_entropy, data.train, data.held, epochs=5)


@asked(
    KIND,
    "https://github.com/Lasagne/Lasagne/issues/765",
    r"momentum|" + TOO_LARGE,
    ("rate-too-large",),
    never=("dying-relu",),
)
def momentum_kills_the_net(seed: int, ill: bool) -> Situation:
    """Momentum 0.99 at a rate of 0.3."""
    data, model = digits(seed), mlp(64, 128, 64, 10)
    return Situation(
        model, sgd(model, 0.3, 0.99) if ill else sgd(model), F.cross_entropy, data.train, data.held, epochs=6
    )


@asked(KIND, "https://github.com/matteo-dunnhofer/imagenet/issues/10", SCHEDULE + "|" + TOO_SMALL, ("rate-too-small",))
def rate_divided_by_ten_in_each_epoch(seed: int, ill: bool) -> Situation:
    """StepLR with a step of one epoch from a small rate: nothing is learnt after the third."""
    data, model = digits(seed), mlp(64, 64, 10)
    optimizer = sgd(model, 0.003, 0 if ill else 0.9)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1 if ill else 10, gamma=0.1)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, epochs=8, scheduler=scheduler)


@asked(KIND, "https://github.com/Lornatang/SRGAN-PyTorch/issues/1", SCHEDULE + "|" + TOO_SMALL, ("rate-too-small",))
def plateau_without_patience(seed: int, ill: bool) -> Situation:
    """ReduceLROnPlateau with patience 0 and a threshold of 90 %: every epoch counts as a plateau."""
    data, model = surface(seed), mlp(8, 64, 1)
    optimizer = sgd(model, 0.002, 0.9)
    how: dict[str, Any] = {"patience": 0, "threshold": 0.9} if ill else {"patience": 10}
    scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, **how)
    return Situation(model, optimizer, F.mse_loss, data.train, data.held, epochs=8, scheduler=scheduler)


@asked(KIND, "https://cs231n.github.io/neural-networks-3/ (low learning rates)", TOO_SMALL, ("rate-too-small",))
def far_from_done(seed: int, ill: bool) -> Situation:
    """Both losses still fall evenly at the last epoch: the rate is far too small."""
    data, model = digits(seed), mlp(64, 64, 10)
    return Situation(model, sgd(model, 3e-5 if ill else 0.03), F.cross_entropy, data.train, data.held, epochs=6)


@asked(KIND, "https://github.com/rickgroen/cov-weighting/issues/3", r"nan|finite|infinit", ("non-finite",))
def one_sample_is_not_a_number(seed: int, ill: bool) -> Situation:
    """One sample of a thousand is NaN: most batches are well, until that one comes."""
    data, model = surface(seed), mlp(8, 64, 1)
    x = data.x.clone()
    if ill:
        x[777, 3] = float("nan")
    return Situation(model, adam(model, 3e-3), F.mse_loss, (x, data.t), data.held, epochs=4)


@asked(KIND, "https://github.com/hwalsuklee/tensorflow-mnist-VAE/issues/4", r"nan|finite|infinit|log", ("non-finite",))
def logarithm_of_zero_after_some_epochs(seed: int, ill: bool) -> Situation:
    """log of a sigmoid that is 1 in float32 once the net is sure: NaN after some epochs."""
    data = blobs(seed)
    hot = [F.one_hot(t, 4).float() for t in (data.t, data.fresh_t)]

    def loss_fn(y: Any, t: Any) -> Any:
        if not ill:
            return F.binary_cross_entropy_with_logits(y, t)
        p = kobai.sigmoid(15 * y)
        return -(t * kobai.log(p) + (1 - t) * kobai.log(1 - p)).mean()

    model = mlp(12, 64, 4)
    model[2].weight.data.mul_(0.3)
    return Situation(model, adam(model, 5e-3), loss_fn, (data.x, hot[0]), (data.fresh_x, hot[1]), epochs=10)


@asked(KIND, "https://github.com/pytorch/pytorch/issues/4741", r"running|eval|statistic")
def evaluation_is_not_training(seed: int, ill: bool) -> Situation:
    """Batch norm whose averages do not follow (momentum 0): the training is fine, the validation is not."""
    data = digits(seed)
    model = nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64, momentum=1e-5 if ill else 0.1), nn.ReLU(), nn.Linear(64, 10)
    )
    model[0].bias.data.add_(4.0)
    return Situation(model, sgd(model, 0.02), F.cross_entropy, data.train, data.held, epochs=5)


@asked(KIND, "https://github.com/BVLC/caffe/issues/1396", r"decay")
def decay_over_epochs(seed: int, ill: bool) -> Situation:
    """Weight decay of 0.3 takes the weights to zero within some epochs."""
    data, model = images(seed), cnn()
    return Situation(
        model, sgd(model, 0.03, weight_decay=0.3 if ill else 1e-4), F.cross_entropy, data.train, data.held, epochs=5
    )


@asked(
    KIND,
    "https://datascience.stackexchange.com/questions/28481",
    TOO_LARGE + "|diverg|momentum",
    ("rate-too-large", "non-finite"),
)
def learns_and_then_forgets(seed: int, ill: bool) -> Situation:
    """The loss is low after two epochs, and the net falls back to guessing: a cyclic rate that reaches 5."""
    data, model = digits(seed), mlp(64, 64, 32, 10)
    optimizer = sgd(model, 0.02)
    rates = [0.02, 0.02, 0.02, 5.0, 5.0, 5.0] if ill else [0.02] * 6
    scheduler = optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: rates[min(epoch, 5)] / 0.02)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, epochs=6, scheduler=scheduler)
