"""Fresh healthy nets of unusual but right kinds: how they are trained."""

from __future__ import annotations

from typing import Any

import kobai
from exam.fresh.material import Reader, Speaker, per_word, sentences
from exam.material import adam, blobs, cnn, digits, images, mlp, sequences, sgd, surface
from exam.question import Situation, healthy
from kobai import nn, optim
from kobai.nn import functional as F


@healthy("https://arxiv.org/abs/1804.07612 (small batches)")
def batches_of_two_with_group_norm(seed: int) -> Situation:
    """Two images a step, with group norm and a small rate."""
    data = images(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    return Situation(model, sgd(model, 0.003), F.cross_entropy, data.train, data.held, batch=2, steps=400)


@healthy("https://arxiv.org/abs/1804.07612 (a single sample)")
def one_sample_a_step(seed: int) -> Situation:
    """Plain stochastic gradient descent, as it is written in the textbooks."""
    data, model = blobs(seed), mlp(12, 32, 4)
    return Situation(model, sgd(model, 0.01, 0.0), F.cross_entropy, data.train, data.held, batch=4, steps=500)


@healthy("https://arxiv.org/abs/1512.00567 (label smoothing, in a transformer)")
def smoothed_words(seed: int) -> Situation:
    """A transformer language model with label smoothing and dropout."""

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y.reshape(-1, 20), t.reshape(-1), label_smoothing=0.1)

    data, model = sentences(seed), Reader(dropout=0.1)
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held, steps=100)


@healthy("https://jmlr.org/papers/v15/srivastava14a.html (in a convolutional net)")
def dropout_of_a_half_in_a_cnn(seed: int) -> Situation:
    """Dropout of one half before the last layer, and of a quarter of the maps."""
    data = images(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Dropout2d(0.25),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(64, 10),
    )
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, steps=200)


@healthy("https://arxiv.org/abs/2010.11929 (decoupled weight decay of 0.3)")
def adamw_with_a_decay_of_three_tenths(seed: int) -> Situation:
    """AdamW at 1e-3 with decay 0.3: each step takes 0.03 % of a weight."""
    data, model = digits(seed), mlp(64, 96, 10)
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.3)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1211.5063")
def clipped_gradients_of_a_recurrent_net(seed: int) -> Situation:
    """A language model whose gradients are clipped at norm 0.5 at nearly every step."""
    data, model = sentences(seed), Speaker(kind="LSTM")
    return Situation(model, sgd(model, 0.5), per_word, data.train, data.held, clip=0.5)


@healthy("https://arxiv.org/abs/1706.02677 and https://arxiv.org/abs/1608.03983")
def warm_up_and_cosine(seed: int) -> Situation:
    """The rate rises over two epochs from a hundredth, and falls to 0 in the last of eight."""
    data, model = digits(seed), mlp(64, 64, 10)
    optimizer = sgd(model, 0.05)
    first = optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=2)
    then = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
    scheduler = optim.lr_scheduler.SequentialLR(optimizer, [first, then], milestones=[2])
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, epochs=8, scheduler=scheduler)


@healthy("https://arxiv.org/abs/1708.07120")
def one_cycle(seed: int) -> Situation:
    """One cycle over eight epochs: up from a tenth and down to nearly nothing."""
    data, model = digits(seed), mlp(64, 64, 10)
    optimizer = sgd(model, 0.05)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=8 * 19 + 1, div_factor=10)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, epochs=8, scheduler=scheduler)


@healthy("https://arxiv.org/abs/1608.03983 (restarts)")
def restarts(seed: int) -> Situation:
    """The rate starts again every three epochs, and the loss rises a little each time."""
    data, model = images(seed), cnn()
    optimizer = sgd(model, 0.05)
    scheduler = optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=3)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held, epochs=7, scheduler=scheduler)


@healthy("https://arxiv.org/abs/1710.03740")
def in_half_precision(seed: int) -> Situation:
    """The layers compute in bfloat16 under autocast, the scores are float32 again."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 64, 64, 10)

        def forward(self, x: Any) -> Any:
            with kobai.autocast("cpu", dtype=kobai.bfloat16):
                y = self.body(x)
            return y.float()

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 2e-3), F.cross_entropy, data.train, data.held)


@healthy("https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf")
def rmsprop(seed: int) -> Situation:
    """RMSprop with momentum, at a thousandth."""
    data, model = digits(seed), mlp(64, 64, 10)
    optimizer = optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.9)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1908.03265")
def rectified_adam(seed: int) -> Situation:
    """RAdam, whose first steps are those of momentum alone."""
    data, model = surface(seed), mlp(8, 64, 64, 1)
    return Situation(model, optim.RAdam(model.parameters(), lr=5e-3), F.mse_loss, data.train, data.held)


@healthy("https://ieeexplore.ieee.org/document/298623 (Riedmiller and Braun 1993)")
def rprop_in_full_batches(seed: int) -> Situation:
    """Rprop, which takes the signs of the whole set's gradient."""
    data, model = surface(seed), mlp(8, 32, 1, act=nn.Tanh)
    optimizer = optim.Rprop(model.parameters(), lr=1e-3)
    return Situation(model, optimizer, F.mse_loss, data.train, data.held, batch=1000)


@healthy("https://arxiv.org/abs/1902.00751 (a small rate for the body, a large one for the head)")
def rates_by_part(seed: int) -> Situation:
    """Two groups: the body, trained before, at 1e-5, and a new head at 1e-2."""
    data, body = digits(seed), mlp(64, 64, 32)
    before = nn.Sequential(body, nn.ReLU(), nn.Linear(32, 10))
    optimizer = adam(before, 5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(before(data.fresh_x), data.fresh_t).backward()
        optimizer.step()
    model = nn.Sequential(body, nn.ReLU(), nn.Linear(32, 10))
    groups = [{"params": list(body.parameters()), "lr": 1e-5}, {"params": list(model[2].parameters()), "lr": 1e-2}]
    return Situation(model, optim.Adam(groups), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1711.05101 (no decay for biases and norms)")
def decay_for_matrices_alone(seed: int) -> Situation:
    """Weights are decayed, biases and norms are in a group without decay."""
    data = digits(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 10))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    return Situation(model, optim.AdamW(groups, lr=2e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1904.00962 (large batches)")
def a_batch_of_all_samples(seed: int) -> Situation:
    """1024 samples in each step, with a rate to match."""
    data, model = digits(seed), mlp(64, 64, 10)
    return Situation(model, sgd(model, 0.2), F.cross_entropy, data.train, data.held, batch=1024, steps=80)


@healthy(
    "https://www.bioinf.jku.at/publications/older/2604.pdf (forget gate: https://jmlr.org/proceedings/papers/v37/jozefowicz15.html)"
)
def a_forget_gate_that_begins_open(seed: int) -> Situation:
    """An LSTM whose forget gates begin with a bias of 2: nearly saturated on purpose."""
    data = sequences(seed)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(4, 32, batch_first=True), nn.Linear(32, 4)
            with kobai.no_grad():
                self.rnn.bias_hh_l0[32:64] = 2.0

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    model = Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1909.05858 (the usual start of a language model)")
def small_weights_of_a_transformer(seed: int) -> Situation:
    """All weights are drawn with deviation 0.02, so that the first scores are nearly equal."""
    data, model = sentences(seed), Reader()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
    return Situation(model, adam(model, 3e-3), per_word, data.train, data.held, steps=120)
