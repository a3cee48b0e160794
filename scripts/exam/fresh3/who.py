"""Third fresh: who is trained."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

import kobai
from exam.fresh3.material import views
from exam.material import Data, adam, cnn, digits, images, mlp, split, surface
from exam.question import Situation, asked, rng_of
from kobai import nn
from kobai.nn import functional as F

KIND = "who is trained"
NO_GRADIENT = r"\b(no|never gets? (a|any)) gradient|gradients? (is|are|stays?) (none|0|zero)|"


class Averaged(nn.Module):
    """An encoder and a slow copy of it, which follows at each training step; ``swapped``: the encoder follows the copy."""

    def __init__(self, swapped: bool) -> None:
        super().__init__()
        self.online = mlp(64, 64, 24)
        self.slow = copy.deepcopy(self.online)
        for parameter in self.slow.parameters():
            parameter.requires_grad_(False)
        self.swapped = swapped

    def follow(self) -> None:
        source, target = (self.slow, self.online) if self.swapped else (self.online, self.slow)
        with kobai.no_grad():
            for p, q in zip(source.parameters(), target.parameters(), strict=True):
                q.mul_(0.9).add_(0.1 * p)

    def forward(self, x: Any) -> Any:
        if self.training:
            self.follow()
        with kobai.no_grad():
            key = self.slow(x[:, 1])
        return F.normalize(kobai.stack([self.online(x[:, 0]), key], 1), dim=-1)


def info_nce(y: Any, t: Any) -> Any:
    """Each first view has to find its second among those of the batch."""
    return F.cross_entropy(y[:, 0] @ y[:, 1].T / 0.2, kobai.arange(len(y)))


@asked(
    KIND,
    "https://github.com/saltoricristiano/cosmix-uda/issues/21",
    r"overwr|forward[^.]{0,60}(chang|writ|modif|sets|moves)|chang\w* (by|in|during) (the |its )?forward|"
    r"(moving|slow|exponential) (average|copy)|pulled back|steps? (is|are) undone",
    ("standing",),
)
def an_average_that_leads(seed: int, ill: bool) -> Situation:
    """The slow copy of an encoder is to follow it, but the update has its arguments swapped: the encoder follows its copy."""
    data, model = views(seed), Averaged(swapped=ill)
    optimizer = kobai.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    return Situation(model, optimizer, info_nce, data.train, data.held)


@asked(
    KIND,
    "https://github.com/fabianbormann/Tensorflow-DeconvNet-Segmentation/issues/24",
    r"(drawn|initiali[sz]|random)[^.]{0,60}(again|anew|every|each|forward|call)|"
    r"forward[^.]{0,60}(chang|overwr|writ|draw|initiali|modif)|reset_parameters",
    ("random-in-evaluation", "standing"),
)
def kernels_drawn_anew_at_each_call(seed: int, ill: bool) -> Situation:
    """The function that initialises the kernels is called by forward, so that each batch meets other ones."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = cnn()
            self.draw()

        def draw(self) -> None:
            for layer in (self.layers[0], self.layers[3]):
                nn.init.kaiming_normal_(layer.weight)

        def forward(self, x: Any) -> Any:
            if ill:
                self.draw()
            return self.layers(x)

    data, model = images(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, batch=32, steps=100)


@asked(
    KIND,
    "https://github.com/Project-MONAI/MONAI/pull/1339",
    r"optimi[sz]er[^.]{0,60}(does not|doesn't|not|without|misses|lacks|never)|not[^.]{0,40}optimi[sz]er|add_param_group|"
    r"left out|empty group|group[^.]{0,30}empty",
    ("not-held",),
)
def a_generator_that_was_used_up(seed: int, ill: bool) -> Situation:
    """The body's parameters are a generator, and counting them has used it up: the group that it is given to is empty."""
    data, model = images(seed), cnn(width=6)
    body: Any = (p for layer in list(model)[:-1] for p in layer.parameters())
    if not ill:
        body = list(body)
    assert sum(p.numel() for p in body) > 0
    groups = [{"params": model[-1].parameters(), "lr": 3e-3}, {"params": body, "lr": 3e-3}]
    return Situation(model, kobai.optim.Adam(groups), F.cross_entropy, data.train, data.held, batch=32, steps=120)


@asked(
    KIND,
    "https://github.com/yaoppeng/U-Net_v2/issues/10 and https://github.com/acids-ircam/ddsp_pytorch/issues/37",
    r"same (layer|module|object|weights?|parameters?)|\bshar(e|es|ed|ing)\b|\btied\b|identical|deepcopy|one and the same|"
    r"(used|registered|listed|called) (\w+|\d+) times|copies of",
)
def a_list_times_four(seed: int, ill: bool) -> Situation:
    """ModuleList([expert] * 4) holds one expert four times: whatever the gate says, the answer is a linear function."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            expert = nn.Linear(8, 1)
            self.experts = nn.ModuleList([expert] * 4 if ill else [expert, *(nn.Linear(8, 1) for _ in range(3))])
            self.gate = mlp(8, 24, 4)

        def forward(self, x: Any) -> Any:
            answers = kobai.cat([expert(x) for expert in self.experts], 1)
            return (answers * F.softmax(self.gate(x), dim=-1)).sum(1, keepdim=True)

    data, model = surface(seed), Net()
    return Situation(model, adam(model, 1e-2), F.mse_loss, data.train, data.held, steps=300)


class Reversed(kobai.autograd.Function):
    """The identity, with minus its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return -gradient


def _domains(seed: int) -> Data:
    """Digits, half of them from a scanner that adds a ramp; targets (N, 2): the digit, and which scanner."""
    rng, data = rng_of(seed), digits(seed)
    ramp = np.linspace(-1, 1, 64).astype(np.float32)
    parts = []
    for x, t in ((data.x, data.t), (data.fresh_x, data.fresh_t)):
        second = (rng.random(len(t)) < 0.5).astype(np.float32)
        parts += [
            kobai.from_numpy(x.numpy() + second[:, None] * ramp),
            kobai.from_numpy(np.stack([t.numpy(), second.astype(np.int64)], 1)),
        ]
    return Data(*parts)


@asked(
    KIND,
    "https://github.com/janfreyberg/pytorch-revgrad/issues/5",
    r"revers|turn\w* round|(wrong|opposite) (sign|way|direction)|minus[^.]{0,20}gradient|gradient[^.]{0,40}opposite|"
    r"climb|uphill|ascen",
    ("wrong-backward", "steps-uphill"),
)
def a_reversal_behind_its_own_classifier(seed: int, ill: bool) -> Situation:
    """The gradient is to be reversed between body and domain classifier, but stands after the latter, which unlearns too."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.label, self.domain = mlp(64, 48, last=(nn.ReLU(),)), nn.Linear(48, 10), mlp(48, 16, 2)

        def forward(self, x: Any) -> Any:
            h = self.body(x)
            domain = Reversed.apply(self.domain(h)) if ill else self.domain(Reversed.apply(h))
            return kobai.cat([self.label(h), domain], 1)

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y[:, :10], t[:, 0]) + 0.3 * F.cross_entropy(y[:, 10:], t[:, 1])

    data, model = _domains(seed), Net()
    return Situation(model, adam(model, 3e-3), loss_fn, data.train, data.held)


def _regimes(seed: int) -> Data:
    """(N, 6); which of two features is larger decides what is asked for, and it is a linear function then."""
    rng = rng_of(seed)
    x = rng.normal(size=(1900, 6))
    t = np.where(x[:, 0] > x[:, 1], 1.5 * x[:, 2] + x[:, 3], -1.5 * x[:, 2] + x[:, 4] - x[:, 3])
    return split(x.astype(np.float32), (t / t.std()).astype(np.float32)[:, None], seed, 1400)


@asked(
    KIND,
    "https://github.com/jingyaogong/minimind/pull/859",
    rf"{NO_GRADIENT}\brouter\b|always (1|one)\b|constant weight",
    ("standing", "cut-off"),
)
def a_router_whose_weight_is_one(seed: int, ill: bool) -> Situation:
    """The best expert's weight is divided by the sum of the chosen ones, which is itself: it is 1, and the router stays."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router = nn.Linear(6, 4)
            self.experts = nn.ModuleList([nn.Linear(6, 1) for _ in range(4)])

        def forward(self, x: Any) -> Any:
            weight, which = F.softmax(self.router(x), dim=-1).topk(1, dim=-1)
            if ill:
                weight = weight / weight.sum(-1, keepdim=True)
            answers = kobai.cat([expert(x) for expert in self.experts], 1)
            return answers.gather(1, which) * weight

    data, model = _regimes(seed), Net()
    return Situation(model, adam(model, 1e-2), F.mse_loss, data.train, data.held, steps=400)


@asked(
    KIND,
    "https://github.com/showlab/Olaf-World/issues/8",
    rf"{NO_GRADIENT}code ?book|\bbook\b|detach",
    ("standing", "cut-off"),
)
def a_book_behind_the_straight_through(seed: int, ill: bool) -> Situation:
    """The term that moves the codes is taken of the straight-through output, in which they are detached: they stay."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = mlp(64, 48, 8), mlp(8, 48, 64)
            self.book = nn.Parameter(kobai.randn(24, 8))

        def forward(self, x: Any) -> Any:
            z = self.encoder(x)
            distance = (z**2).sum(1, keepdim=True) - 2 * z @ self.book.T + (self.book**2).sum(1)
            code = self.book[distance.argmin(1)]
            through = z + (code - z).detach()
            return self.decoder(through), z, through if ill else code

    def loss_fn(y: Any, t: Any) -> Any:
        picture, z, code = y
        return F.mse_loss(picture, t) + F.mse_loss(code, z.detach()) + 0.25 * F.mse_loss(z, code.detach())

    def score(y: Any, t: Any) -> Any:
        return F.mse_loss(y[0], t)

    data, model = digits(seed), Net()
    train, held = (data.x, data.x), (data.fresh_x, data.fresh_x)
    return Situation(model, adam(model, 3e-3), loss_fn, train, held, steps=300, score=score)
