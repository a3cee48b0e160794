"""The optimiser's own effect: rate, momentum, weight decay, clipping, and what a schedule has made of the rate."""

from __future__ import annotations

import math
from typing import Any

from exam.material import Rows, adam, blobs, circles, cnn, digits, images, mlp, sequences, sgd, surface, words
from exam.question import Situation, asked
from kobai import nn, optim
from kobai.nn import functional as F

KIND = "optimiser"
LARGE = ("rate-too-large",)
SMALL = ("rate-too-small",)
DECAY = r"decay"
TOO_LARGE = (
    r"(rate|lr|steps?) [^.]{0,40}(too (large|high|great)|lower|smaller|reduce|overshoot|diverge)|too (large|high) a"
)
TOO_SMALL = r"(rate|lr|steps?) [^.]{0,40}(too (small|low)|larger|higher|raise|nothing|hardly)|too (small|low) a"
SCHEDULE = r"schedul|decayed|initial_lr|warm"


@asked(KIND, "https://github.com/BVLC/caffe/issues/1396", DECAY)
def decay_of_a_half(seed: int, ill: bool) -> Situation:
    """Weight decay 0.5: all weights go to zero, and any input gives the same output."""
    data, model = digits(seed), mlp(64, 64, 32, 10)
    return Situation(model, sgd(model, 0.05, weight_decay=0.5 if ill else 5e-4), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/tinghuiz/SfMLearner/issues/34", DECAY)
def decay_in_adam(seed: int, ill: bool) -> Situation:
    """Weight decay as a term of Adam's gradient: where it is larger than the gradient, it alone steers the step."""
    data, model = digits(seed), mlp(64, 96, 48, 10)
    return Situation(
        model, adam(model, 3e-3, weight_decay=0.5 if ill else 1e-5), F.cross_entropy, data.train, data.held
    )


@asked(KIND, "https://arxiv.org/abs/1711.05101 (decay that is decoupled is a share of each step)", DECAY)
def decoupled_decay_of_twenty(seed: int, ill: bool) -> Situation:
    """AdamW with a weight decay of 20, copied from a schedule with another unit."""
    data, model = images(seed), cnn()
    optimizer = optim.AdamW(model.parameters(), lr=5e-3, weight_decay=20 if ill else 0.05)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, steps=100)


@asked(KIND, "https://github.com/Joker316701882/Additive-Margin-Softmax/issues/16", DECAY)
def decay_in_a_regression(seed: int, ill: bool) -> Situation:
    """Decay of 0.3 on all parameters, biases included: the regression says the mean."""
    data, model = surface(seed), mlp(8, 64, 64, 1)
    return Situation(model, sgd(model, 0.05, weight_decay=0.3 if ill else 1e-4), F.mse_loss, data.train, data.held)


@asked(KIND, "https://github.com/Lasagne/Lasagne/issues/765", r"momentum", LARGE, never=("dying-relu",))
def momentum_of_0_99(seed: int, ill: bool) -> Situation:
    """Momentum 0.99 at a rate that is fine with 0.9: the steps add up to a hundred of them."""
    data, model = digits(seed), mlp(64, 128, 64, 10)
    return Situation(
        model, sgd(model, 0.3, 0.995) if ill else sgd(model, 0.05, 0.9), F.cross_entropy, data.train, data.held
    )


@asked(KIND, "https://github.com/Lasagne/Lasagne/issues/241", r"momentum", LARGE)
def nesterov_momentum_in_a_regression(seed: int, ill: bool) -> Situation:
    """Nesterov momentum of 0.999 with a rate of 0.1 on a squared error."""
    data, model = surface(seed), mlp(8, 64, 32, 1)
    momentum = 0.999 if ill else 0.9
    optimizer = sgd(model, 0.1 if ill else 0.02, momentum, nesterov=True)
    return Situation(model, optimizer, F.mse_loss, data.train, data.held)


@asked(KIND, "https://github.com/guillaumegenthial/sequence_tagging/issues/47", TOO_LARGE, LARGE, never=("dying-relu",))
def adam_at_0_5(seed: int, ill: bool) -> Situation:
    """Adam with a rate of 0.5, where a thousandth is usual."""
    data, model = digits(seed), mlp(64, 96, 64, 10)
    return Situation(model, adam(model, 0.5 if ill else 1e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/keras-team/keras/issues/3425", TOO_LARGE, LARGE)
def adam_at_1_in_a_recurrent_net(seed: int, ill: bool) -> Situation:
    """An LSTM under Adam with a rate of 1."""
    data, model = sequences(seed), Rows()
    return Situation(model, adam(model, 1.0 if ill else 5e-3), F.cross_entropy, data.train, data.held, steps=80)


@asked(KIND, "https://github.com/NLeSC/mcfly/issues/43", TOO_LARGE, LARGE, never=("dying-relu",))
def descent_at_20(seed: int, ill: bool) -> Situation:
    """Plain gradient descent at a rate of 20 on four classes."""
    data, model = blobs(seed), mlp(12, 64, 32, 4)
    return Situation(model, sgd(model, 20 if ill else 0.2, 0), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/chiphuyen/stanford-tensorflow-tutorials/issues/54", TOO_LARGE, LARGE)
def linear_regression_diverges(seed: int, ill: bool) -> Situation:
    """A linear regression at a rate above 2 over the curvature: the loss grows at every step."""
    data, model = surface(seed), nn.Sequential(nn.Linear(8, 1))
    return Situation(model, sgd(model, 3.0 if ill else 0.05, 0), F.mse_loss, data.train, data.held)


@asked(KIND, "https://github.com/lionelmessi6410/Neural-Networks-from-Scratch/issues/2", TOO_LARGE + "|momentum", LARGE)
def momentum_at_a_rate_of_4(seed: int, ill: bool) -> Situation:
    """Sigmoids, momentum 0.9 and a rate of 4."""
    data, model = digits(seed), mlp(64, 64, 10, act=nn.Sigmoid)
    return Situation(model, sgd(model, 4.0 if ill else 0.1, 0.9), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/lmoroney/tfbook/issues/24", TOO_SMALL, SMALL)
def descent_at_a_millionth(seed: int, ill: bool) -> Situation:
    """Gradient descent with a rate of 1e-6 kept from a net with inputs of another scale."""
    data, model = digits(seed), mlp(64, 64, 10)
    return Situation(model, sgd(model, 1e-6 if ill else 0.03), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/tensorflow/tensorflow/issues/39432", TOO_SMALL, SMALL)
def adadelta_at_a_thousandth(seed: int, ill: bool) -> Situation:
    """Adadelta at 0.001, the default of one library, where the paper multiplies by 1."""
    data = digits(seed, raw=True)
    model = mlp(64, 24, 64, last=(nn.Sigmoid(),))
    optimizer = optim.Adadelta(model.parameters(), lr=1e-3 if ill else 1.0, rho=0.95)
    return Situation(model, optimizer, nn.BCELoss(), (data.x, data.x), (data.fresh_x, data.fresh_x))


@asked(KIND, "https://github.com/keras-team/keras/issues/13815", TOO_SMALL, SMALL)
def adam_at_a_ten_millionth(seed: int, ill: bool) -> Situation:
    """Adam at 1e-7 in a convolutional net."""
    data, model = images(seed), cnn()
    return Situation(model, adam(model, 1e-7 if ill else 3e-3), F.cross_entropy, data.train, data.held, steps=80)


@asked(KIND, "https://github.com/rinongal/textual_inversion/issues/98", TOO_SMALL + r"|rate[^.]{0,30}\b0\b", SMALL)
def rate_of_zero(seed: int, ill: bool) -> Situation:
    """The rate arrives as 0 (an integer division in the configuration)."""
    data, model = words(seed), _Bag()
    return Situation(model, adam(model, 0.0 if ill else 1e-2), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/leftthomas/SRGAN/issues/94", SCHEDULE + "|" + TOO_SMALL, SMALL)
def schedule_stepped_for_each_batch(seed: int, ill: bool) -> Situation:
    """A schedule meant for epochs is stepped for every batch: the rate is nothing before anything is learnt."""
    data, model = digits(seed), mlp(64, 64, 10)
    optimizer = sgd(model, 0.05)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    for _ in range(18 if ill else 1):
        optimizer.step()
        scheduler.step()
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/matteo-dunnhofer/imagenet/issues/10", SCHEDULE + "|" + TOO_SMALL, SMALL)
def exponential_decay_of_the_rate(seed: int, ill: bool) -> Situation:
    """The rate is divided by ten at every step of the schedule, and has been seven times."""
    data, model = surface(seed), mlp(8, 64, 32, 1)
    optimizer = adam(model, 3e-3)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.1)
    for _ in range(7 if ill else 0):
        optimizer.step()
        scheduler.step()
    return Situation(model, optimizer, F.mse_loss, data.train, data.held)


@asked(KIND, "https://github.com/crowsonkb/k-diffusion/issues/50", SCHEDULE + "|" + TOO_SMALL, SMALL)
def warm_up_that_never_ends(seed: int, ill: bool) -> Situation:
    """A linear warm-up over a million steps for a training of some hundred."""
    data, model = blobs(seed), mlp(12, 64, 4)
    optimizer = adam(model, 3e-3)
    if ill:
        optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-5, total_iters=1_000_000)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://www.tensorflow.org/api_docs/python/tf/keras/optimizers/Adam (note on epsilon)",
    TOO_SMALL + "|eps",
    SMALL,
)
def epsilon_of_ten(seed: int, ill: bool) -> Situation:
    """Adam with epsilon 10: the gradient's own size is lost beside it, and the steps are tiny."""
    data, model = digits(seed), mlp(64, 64, 10)
    return Situation(model, adam(model, 1e-3, eps=10.0 if ill else 1e-8), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://arxiv.org/abs/1211.5063 (norm clipping)", r"clip|" + TOO_SMALL, SMALL)
def clipped_to_nothing(seed: int, ill: bool) -> Situation:
    """The gradient's norm is clipped at 1e-4, and the rate is that of unclipped gradients."""
    data, model = digits(seed), mlp(64, 64, 10)
    return Situation(model, sgd(model, 0.03), F.cross_entropy, data.train, data.held, clip=1e-4 if ill else 1.0)


@asked(
    KIND,
    "https://pytorch.org/docs/stable/generated/torch.optim.SGD.html (maximize)",
    r"maximi|ascent|uphill",
    never=LARGE,
)
def maximise_left_over(seed: int, ill: bool) -> Situation:
    """maximize=True is left over from a reward: every step climbs."""
    data, model = circles(seed), mlp(2, 32, 32, 2)
    return Situation(model, adam(model, 1e-3, maximize=ill), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/facebookresearch/maskrcnn-benchmark/issues/295",
    r"\bsum|" + TOO_LARGE,
    ("rate-too-large", "exploding-gradient"),
)
def loss_summed_over_the_batch(seed: int, ill: bool) -> Situation:
    """reduction="sum" with the rate of a mean: gradients are as many times larger as there are samples."""
    data, model = digits(seed), mlp(64, 96, 10)
    loss_fn = nn.CrossEntropyLoss(reduction="sum" if ill else "mean")
    return Situation(model, sgd(model, 0.05), loss_fn, data.train, data.held, score=F.cross_entropy)


@asked(KIND, "https://stats.stackexchange.com/questions/352036", TOO_SMALL + r"|divid|scale of the loss", SMALL)
def loss_divided_twice(seed: int, ill: bool) -> Situation:
    """A mean loss that is divided by the number of samples again, and by the number of batches."""
    data, model = surface(seed), mlp(8, 64, 1)

    def loss_fn(y: Any, t: Any) -> Any:
        return F.mse_loss(y, t) / (len(t) * 20 if ill else 1)

    return Situation(model, sgd(model, 0.02), loss_fn, data.train, data.held, score=F.mse_loss)


class _Bag(nn.Module):
    """Words, embedded, averaged, and a dense layer on top."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(60, 16), nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.embed(x).mean(1) * math.sqrt(10))
