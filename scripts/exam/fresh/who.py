"""Fresh: who is trained."""

from __future__ import annotations

from typing import Any

import kobai
from exam.fresh.material import Twins, triples
from exam.material import adam, blobs, digits, mlp, sequences, sgd, surface, words
from exam.question import Situation, asked
from exam.who import CUT, FROZEN, UNKNOWN, UNREGISTERED
from kobai import nn, optim
from kobai.nn import functional as F

KIND = "who is trained"
LEFT_OUT = CUT + r"|unused|not used|never used|no effect|does not (enter|reach|count|matter)|left out|no part in"
ZERO = r"(begins?|starts?|both|all|initiali)[^.]{0,50}(zero|\b0\b)|zero[- ]?init|symmetr|gradient[^.]{0,40}(zero|\b0\b)"


@asked(KIND, "https://github.com/state-spaces/s4/pull/30", LEFT_OUT)
def a_block_that_returns_its_input(seed: int, ill: bool) -> Situation:
    """A block computes its layers and, by a mix-up of names, returns what it was given: they are never trained."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.inner = nn.LayerNorm(12), mlp(12, 48, 12)

        def forward(self, x: Any) -> Any:
            h = self.inner(self.norm(x))
            return x if ill else x + h

    data = blobs(seed)
    model = nn.Sequential(Block(), Block(), nn.Linear(12, 4))
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/cyclomon/UNSB/issues/29", LEFT_OUT)
def every_layer_is_given_the_first_input(seed: int, ill: bool) -> Situation:
    """A loop calls layer(x) where layer(out) was meant: only what the last layer gives is used."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.ModuleList([nn.Linear(64, 64) for _ in range(3)])
            self.head = nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            out = x
            for layer in self.block:
                out = F.relu(layer(x if ill else out))
            return self.head(out)

    data, model = digits(seed), Net()
    return Situation(model, sgd(model), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/PetarV-/GAT/issues/11", LEFT_OUT)
def a_shortcut_that_is_forgotten(seed: int, ill: bool) -> Situation:
    """The sum with the projected shortcut is assigned to a name that nobody reads: the projection gets no gradient."""

    class Layer(nn.Module):
        def __init__(self, n_in: int, n_out: int) -> None:
            super().__init__()
            self.inner, self.shortcut = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out, bias=False)

        def forward(self, x: Any) -> Any:
            result = F.elu(self.inner(x))
            total = result + self.shortcut(x)
            return result if ill else total

    data = surface(seed)
    model = nn.Sequential(Layer(8, 48), Layer(48, 48), nn.Linear(48, 1))
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@asked(KIND, "https://github.com/line/open-universe/issues/5", UNKNOWN)
def one_of_two_discriminators_is_listed_twice(seed: int, ill: bool) -> Situation:
    """The optimiser's list names the first of two discriminators twice, and so never the second."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.coarse, self.fine = mlp(32, 32, 1), mlp(64, 64, 1)

        def forward(self, x: Any) -> Any:
            return self.coarse(x[:, ::2]) + self.fine(x)

    data, model = digits(seed), Both()
    target = [(t % 2).float()[:, None] for t in (data.t, data.fresh_t)]
    parts = [model.coarse, model.coarse if ill else model.fine]
    named = {id(p): p for part in parts for p in part.parameters()}
    optimizer = optim.Adam(named.values(), lr=1e-3, betas=(0.5, 0.999))
    return Situation(model, optimizer, nn.BCEWithLogitsLoss(), (data.x, target[0]), (data.fresh_x, target[1]))


@asked(KIND, "https://github.com/zhaoyuzhi/deepfillv2/pull/3", UNKNOWN)
def the_optimiser_of_the_other_net(seed: int, ill: bool) -> Situation:
    """The discriminator's optimiser was copied from the generator's line, and still holds the generator."""
    data = digits(seed)
    target = [(t < 5).float()[:, None] for t in (data.t, data.fresh_t)]
    generator, model = mlp(16, 64, 64), mlp(64, 64, 1, act=lambda: nn.LeakyReLU(0.2))
    optimizer = optim.Adam((generator if ill else model).parameters(), lr=1e-3, betas=(0.5, 0.999))
    return Situation(model, optimizer, nn.BCEWithLogitsLoss(), (data.x, target[0]), (data.fresh_x, target[1]))


@asked(
    KIND,
    "https://github.com/ronghuaiyang/arcface-pytorch/issues/20",
    UNKNOWN + r"|(parameter|weight)s? of the loss|loss[^.]{0,40}(has|holds|with|own)[^.]{0,20}(parameter|weight)",
)
def a_loss_with_weights_of_its_own(seed: int, ill: bool) -> Situation:
    """The classes' centres live in the loss module, and only model.parameters() went to the optimiser."""

    class Cosines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(kobai.randn(10, 16))

        def forward(self, y: Any, t: Any) -> Any:
            return F.cross_entropy(16 * F.linear(F.normalize(y), F.normalize(self.weight)), t)

    data, model, loss_fn = digits(seed), mlp(64, 24, 16), Cosines()
    parameters = [*model.parameters(), *([] if ill else loss_fn.parameters())]
    return Situation(model, optim.SGD(parameters, lr=0.02, momentum=0.9), loss_fn, data.train, data.held, steps=80)


@asked(KIND, "https://github.com/bowen-gao/DrugCLIP/issues/26", CUT)
def a_detached_temperature(seed: int, ill: bool) -> Situation:
    """The temperature of a contrastive net is a parameter, and is used as logit_scale.exp().detach()."""
    parts = triples(seed, digits(seed))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Twins(mlp(64, 64, 16), unit=True)
            self.logit_scale = nn.Parameter(kobai.zeros(1))

        def forward(self, x: Any) -> Any:
            y, scale = self.body(x), self.logit_scale.exp()
            return (scale.detach() if ill else scale) * kobai.bmm(y[:, :1], y[:, 1:].transpose(1, 2))[:, 0]

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y, kobai.zeros(len(y), dtype=kobai.int64))

    model = Net()
    return Situation(model, adam(model, 1e-2), loss_fn, parts.train, parts.held, steps=100)


@asked(KIND, "https://github.com/pytorch/pytorch/issues/666", UNREGISTERED)
def functional_weights_in_a_list(seed: int, ill: bool) -> Situation:
    """A net in the functional style: its weights are Parameters in an ordinary list, and only the last bias is an attribute."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weights = [nn.Parameter(kobai.randn(a, b) / a**0.5) for a, b in [(64, 64), (64, 32), (32, 10)]]
            self.weights: Any = weights if ill else nn.ParameterList(weights)
            self.bias = nn.Parameter(kobai.zeros(10))

        def forward(self, x: Any) -> Any:
            for weight in list(self.weights)[:-1]:
                x = kobai.tanh(x @ weight)
            return x @ self.weights[2] + self.bias

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://pytorch.org/docs/stable/generated/torch.nn.Embedding.html (from_pretrained freezes unless told not to)",
    FROZEN,
)
def vectors_that_were_frozen_unasked(seed: int, ill: bool) -> Situation:
    """Embedding.from_pretrained is used for vectors that still have to be learnt: it freezes them by default."""
    data = words(seed)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding.from_pretrained(kobai.randn(60, 3), freeze=ill)
            self.head = nn.Linear(3, 3)

        def forward(self, x: Any) -> Any:
            return self.head(self.embed(x).mean(1))

    model = Net()
    return Situation(model, adam(model, 3e-2), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://arxiv.org/abs/2106.09685 (section 4.1: one of the two begins at zero, not both)", ZERO)
def low_rank_adapters_that_are_both_zero(seed: int, ill: bool) -> Situation:
    """Both factors of a low-rank update of a frozen layer begin at zero: each is the other's gradient."""

    class Adapted(nn.Module):
        def __init__(self, n_in: int, n_out: int) -> None:
            super().__init__()
            self.base = nn.Linear(n_in, n_out).requires_grad_(False)
            self.down = nn.Parameter((0.0 if ill else 0.2) * kobai.randn(n_in, 8))
            self.up = nn.Parameter(kobai.zeros(8, n_out))

        def forward(self, x: Any) -> Any:
            return self.base(x) + x @ self.down @ self.up

    data = digits(seed)
    model = nn.Sequential(Adapted(64, 24), nn.ReLU(), Adapted(24, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/DEEP-PolyU/KEQA_WSDM19/issues/2",
    r"softmax|always 1|one (unit|column|element|value|number)|" + LEFT_OUT,
)
def attention_that_is_always_one(seed: int, ill: bool) -> Situation:
    """The softmax of (N, L, 1) attention scores is taken over the last dimension: each weight is 1."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.score, self.head = nn.GRU(4, 32, batch_first=True), nn.Linear(32, 1), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            h = self.rnn(x)[0]
            return self.head((F.softmax(self.score(h), dim=-1 if ill else 1) * h).sum(1))

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/pytorch/pytorch/issues/4714",
    r"finite difference|numerical|gradient[^.]{0,60}(wrong|not (that|the)|differs?|disagree)|"
    r"autograd\.function|backward[^.]{0,40}wrong",
)
def a_function_with_a_wrong_backward(seed: int, ill: bool) -> Situation:
    """The backward of a custom Function leaves out the sign of |x|, so half of the gradients point the wrong way."""

    class Magnitude(kobai.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x.abs()

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            (x,) = ctx.saved_tensors
            return grad if ill else grad * x.sign()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(8, 48), nn.Linear(48, 48), nn.Linear(48, 1)

        def forward(self, x: Any) -> Any:
            return self.head(Magnitude.apply(self.second(Magnitude.apply(self.first(x)))))

    data, model = surface(seed), Net()
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@asked(KIND, "https://github.com/yunjey/pytorch-tutorial/issues/90", CUT)
def states_detached_at_every_word(seed: int, ill: bool) -> Situation:
    """The advice to detach the state between batches is followed at every step: no gradient goes through time."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.GRUCell(4, 32), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            h = kobai.zeros(len(x), 32)
            for i in range(x.shape[1]):
                h = self.cell(x[:, i], h)
                h = h.detach() if ill and i < x.shape[1] - 1 else h
            return self.head(h)

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)
