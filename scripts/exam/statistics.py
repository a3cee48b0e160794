"""Batch statistics: small batches, running averages that do not follow, what training and evaluation do differently."""

from __future__ import annotations

from typing import Any

import kobai
from exam.material import adam, cnn, digits, images, mlp, sgd, surface
from exam.question import Situation, asked
from kobai import nn
from kobai.nn import functional as F, init

KIND = "batch statistics"
SMALL = r"batch.?size|batch of|batches of|few samples|small batch|larger batch|group.?norm|layer.?norm"
EVAL = r"running|eval|momentum|statistics"


def normed(*widths: int, **options: Any) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(len(widths) - 2):
        layers += [nn.Linear(widths[i], widths[i + 1]), nn.BatchNorm1d(widths[i + 1], **options), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(*widths[-2:]))


@asked(KIND, "https://github.com/pytorch/pytorch/issues/4741", SMALL)
def batches_of_two(seed: int, ill: bool) -> Situation:
    """Batch norm over two samples gives ±1 and no gradient."""
    data, model = digits(seed), normed(64, 64, 64, 10)
    return Situation(model, sgd(model, 0.01), F.cross_entropy, data.train, data.held, batch=2 if ill else 64)


@asked(KIND, "https://github.com/ly015/intrinsic_flow/issues/1", SMALL)
def batches_of_two_images(seed: int, ill: bool) -> Situation:
    """Two images, pooled to one pixel, in front of a batch norm."""
    data = images(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(16),
        nn.Linear(16, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, batch=2 if ill else 64)


@asked(KIND, "https://discuss.pytorch.org/t/7146", SMALL)
def batches_of_three_in_a_regression(seed: int, ill: bool) -> Situation:
    """Batches of three, for the memory's sake, in a regression with batch norm."""
    data, model = surface(seed), normed(8, 64, 64, 1)
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held, batch=3 if ill else 64)


def fitted(model: Any, case: Situation, steps: int) -> Situation:
    """The situation after some steps of training, in which running averages should have followed."""
    x, t = case.train
    for step in range(steps):
        rows = slice(64 * step % 900, 64 * step % 900 + 64)
        case.optimizer.zero_grad()
        case.loss_fn(model.train()(x[rows]), t[rows]).backward()
        case.optimizer.step()
    return case


@asked(KIND, "https://github.com/chemprop/chemprop/issues/607", EVAL)
def running_averages_that_stand_still(seed: int, ill: bool) -> Situation:
    """momentum=0.0001, which reads like another library's 0.9999: the averages stay at 0 and 1."""
    data, model = digits(seed), normed(64, 64, 64, 10, momentum=1e-4 if ill else 0.1)
    for layer in model[:6:3]:
        init.normal_(layer.weight, std=0.5)
        init.normal_(layer.bias, mean=2.0)
    return fitted(model, Situation(model, sgd(model, 0.02), F.cross_entropy, data.train, data.held), 60)


@asked(KIND, "https://github.com/keras-team/keras/issues/6977", EVAL)
def averages_of_other_data(seed: int, ill: bool) -> Situation:
    """Running averages were loaded from a net for inputs of another scale, with a momentum that hardly moves them."""
    data, model = images(seed), cnn(norm=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and ill:
            module.running_mean.add_(8.0)
            module.momentum = 1e-4
    return fitted(model, Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, steps=60), 12)


@asked(KIND, "https://arxiv.org/abs/1801.05134 (variance shift)", r"drop|" + EVAL)
def dropout_before_batch_norm(seed: int, ill: bool) -> Situation:
    """Strong dropout before a batch norm: in evaluation the variance is another than the one it has averaged."""
    p = 0.8 if ill else 0.0
    data = digits(seed)
    model = nn.Sequential(
        nn.Dropout(p), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 48), nn.BatchNorm1d(48),
        nn.ReLU(), nn.Linear(48, 10),
    )  # fmt: skip
    return fitted(model, Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held), 40)


@asked(
    KIND,
    "https://github.com/pytorch/pytorch/issues/108956",
    r"layer.?norm|(single|one) (number|value)|same for every|alike",
)
def layer_norm_of_one_number(seed: int, ill: bool) -> Situation:
    """LayerNorm(1) behind a layer of one unit: (x − mean)/std of a single number is 0 for every sample."""
    data = surface(seed)
    width = 1 if ill else 32
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, width), nn.LayerNorm(width), nn.Linear(width, 1))
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@asked(KIND, "https://arxiv.org/abs/1903.06733", r"constant (channel|unit|feature)|0 for every", ("dying-relu",))
def constant_channels(seed: int, ill: bool) -> Situation:
    """Most feature maps are 0 for every image before the batch norm, which keeps them 0."""
    data = images(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(16),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    if ill:
        model[0].bias.data[:14] = -20.0
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, steps=100)


@asked(
    KIND,
    "https://github.com/pytorch/pytorch/issues/19250",
    r"instance.?norm|same for every|alike|does not depend on the input",
)
def instance_norm_of_a_single_pixel(seed: int, ill: bool) -> Situation:
    """Each feature is normalised over its own two values, which are the same: the output does not depend on the input."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = cnn()[:6], mlp(64, 32, 10)

        def forward(self, x: Any) -> Any:
            h = self.features(x).flatten(1)
            if ill:
                h = F.instance_norm(kobai.stack([h, h], -1))[..., 0]
            return self.head(h)

    data, model = images(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, steps=80)
