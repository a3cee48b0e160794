"""Third fresh: weights and signal."""

from __future__ import annotations

from typing import Any

import kobai
from exam.fresh2.material import echoes
from exam.fresh3.material import nodes
from exam.material import adam, cnn, images
from exam.question import Situation, asked
from kobai import nn
from kobai.nn import functional as F

KIND = "weights and signal"


@asked(
    KIND,
    "https://github.com/DropEdge/DropEdge/issues/8",
    r"smooth|all nodes|nodes?[^.]{0,40}(same|alike|equal)|\balike\b|(too )?deep\b|fewer layers|residual|\bskip",
    ("collapsed", "signal-lost", "no-signal", "vanishing-gradient"),
)
def twelve_rounds_that_smooth_all_away(seed: int, ill: bool) -> Situation:
    """A graph net takes the mean over neighbours twelve times instead of twice: all nodes of a graph are the same behind it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            rounds = 12 if ill else 2
            self.layers = nn.ModuleList([nn.Linear(4 if i == 0 else 24, 24) for i in range(rounds)])
            self.head = nn.Linear(24, 1)

        def forward(self, x: Any) -> Any:
            h, joined = x[..., :4], x[..., 4:] + kobai.eye(x.shape[1])
            joined = joined / joined.sum(2, keepdim=True)
            for layer in self.layers:
                h = F.relu(layer(kobai.bmm(joined, h)))
            return self.head(h).squeeze(2)

    data, model = nodes(seed), Net()
    return Situation(model, adam(model, 5e-3), F.mse_loss, data.train, data.held, batch=32, steps=200)


@asked(
    KIND,
    "https://github.com/craffel/nntools/issues/19",
    r"forget|\bgates?\b|(first|earl\w*) (steps?|inputs?|elements?|positions?)|through time|\bmemory\b",
    ("vanishing-gradient", "saturated", "cut-in-time", "signal-lost", "unused-inputs"),
)
def a_forget_gate_that_begins_shut(seed: int, ill: bool) -> Situation:
    """The bias of an LSTM's forget gate begins at −6 where +1 was meant: each step forgets all that was before it."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(1, 24, batch_first=True), nn.Linear(24, 1)
            with kobai.no_grad():
                self.rnn.bias_hh_l0[24:48] = -6.0 if ill else 1.0

        def forward(self, x: Any) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    data, model = echoes(seed, length=10), Net()
    return Situation(model, adam(model, 5e-3), F.mse_loss, data.train, data.held, steps=250)


@asked(
    KIND,
    "https://github.com/AdaptInfer/Contextualized/issues/33 and https://github.com/tinygrad/tinygrad/pull/566",
    r"explod|(all|only) positive|cent(er|r)ed|mean of the weights|initiali|large (activation|output|signal)|"
    r"weights[^.]{0,40}large",
    ("exploding-activations", "exploding-gradient", "overconfident"),
)
def kernels_between_0_and_1(seed: int, ill: bool) -> Situation:
    """All weights of a convolutional net are drawn from 0 to 1, the default of the function, and not from −a to a."""
    data, model = images(seed), cnn()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            bound = (6 / parameter[0].numel()) ** 0.5
            nn.init.uniform_(parameter) if ill else nn.init.uniform_(parameter, -bound, bound)
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held, batch=32)


@asked(
    KIND,
    "https://github.com/davidtvs/pytorch-lr-finder/issues/11 and https://github.com/Lightning-AI/pytorch-lightning/issues/6675",
    r"initiali|weights? (are|is) (far |much |too )?(large|huge|big)|redraw|fresh weights|start again|(first|initial) loss",
    ("dying-relu", "exploding-activations", "overconfident", "collapsed"),
)
def weights_left_by_a_search_of_the_rate(seed: int, ill: bool) -> Situation:
    """A search of the learning rate ran up to 10 and did not put the weights back: training begins with what it left."""
    data, model = images(seed), cnn()
    if ill:
        for i in range(40):
            rows = slice(16 * i, 16 * i + 16)
            loss = F.cross_entropy(model(data.x[rows]), data.t[rows])
            model.zero_grad()
            loss.backward()
            with kobai.no_grad():
                for p in model.parameters():
                    p.sub_(1e-3 * 1e4 ** (i / 39) * p.grad.clamp(-1, 1))
        model.zero_grad()
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held, batch=32)
