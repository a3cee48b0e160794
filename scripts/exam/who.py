"""Who is trained: parameters that are called, registered, held by the optimiser, given a gradient, changed – or not."""

from __future__ import annotations

import copy
from typing import Any

import kobai
from exam.material import Calls, Rows, adam, blobs, cnn, digits, images, mlp, sequences, sgd, surface, words
from exam.question import Situation, asked
from kobai import nn, optim
from kobai.nn import functional as F

KIND = "who is trained"
UNREGISTERED = (
    r"modulelist|moduledict|not registered|unregistered|no part of the model|belongs? to no|nn\.parameter|python list"
)
UNKNOWN = (
    r"(no|any|not in (the|any|a)) (param_)?group|optimi[sz]er (does not|doesn't|never|holds? none|lacks)|"
    r"not (in|held by|given to) the optimi[sz]er|another (copy|model|net)|add_param_group|stale"
)
CUT = (
    r"detach|cut off|cuts? the|no_grad|argmax|without a gradient|no gradient (reaches|arrives)|"
    r"(gets?|given|receives?) no gradient|never (gets?|given|receives?) a gradient|rounds?\b"
)
MADE_ANEW = r"drawn anew|new (weights|layer)|every (call|forward)|inside forward|in forward"
FROZEN = r"frozen|freez|requires_grad|unfreeze"


@asked(KIND, "https://github.com/pytorch/pytorch/issues/715", UNREGISTERED)
def layers_in_a_list(seed: int, ill: bool) -> Situation:
    """The hidden layers are in a Python list, so only the last layer is trained."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            parts = [nn.Linear(64, 96), nn.Linear(96, 96), nn.Linear(96, 48)]
            self.hidden: Any = parts if ill else nn.ModuleList(parts)
            self.out = nn.Linear(48, 10)

        def forward(self, x: Any) -> Any:
            for layer in self.hidden:
                x = F.relu(layer(x))
            return self.out(x)

    data, model = digits(seed), Net()
    return Situation(model, sgd(model), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/kanezaki/pytorch-unsupervised-segmentation/pull/6", UNREGISTERED)
def convolutions_in_a_list(seed: int, ill: bool) -> Situation:
    """Convolutions and their batch norms are appended to an ordinary list of the module."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            parts: list[nn.Module] = []
            for n_in, n_out in [(1, 8), (8, 12)]:
                parts += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out)]
            self.blocks: Any = parts if ill else nn.ModuleList(parts)
            self.head = nn.Linear(12, 10)

        def forward(self, x: Any) -> Any:
            for i in range(0, len(self.blocks), 2):
                x = F.max_pool2d(F.relu(self.blocks[i + 1](self.blocks[i](x))), 2)
            return self.head(x.mean((2, 3)))

    data, model = images(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/pytorch/pytorch/issues/38639", UNREGISTERED)
def experts_in_a_dictionary(seed: int, ill: bool) -> Situation:
    """One encoder for each group of features, kept in a plain dict: the heads alone are in parameters()."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            parts = {"left": nn.Linear(6, 24), "right": nn.Linear(6, 24)}
            self.encoders: Any = parts if ill else nn.ModuleDict(parts)
            self.head = nn.Linear(48, 4)

        def forward(self, x: Any) -> Any:
            left, right = F.relu(self.encoders["left"](x[:, :6])), F.relu(self.encoders["right"](x[:, 6:]))
            return self.head(kobai.cat([left, right], 1))

    data, model = blobs(seed), Net()
    return Situation(model, sgd(model), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/pytorch/pytorch/issues/1291",
    UNREGISTERED + "|" + MADE_ANEW,
)
def layers_made_in_forward(seed: int, ill: bool) -> Situation:
    """A hidden layer is constructed inside forward: it has new random weights at every call and is never trained."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(64, 64), nn.Linear(32, 10)
            if not ill:
                self.middle = nn.Linear(64, 32)

        def forward(self, x: Any) -> Any:
            middle = nn.Linear(64, 32) if ill else self.middle
            return self.last(F.relu(middle(F.relu(self.first(x)))))

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 2e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/SimonThomine/RememberingNormality/issues/7", UNREGISTERED)
def a_weight_that_is_a_plain_tensor(seed: int, ill: bool) -> Situation:
    """A weight matrix made by randn(..., requires_grad=True): an attribute, but not a Parameter."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = 0.2 * kobai.randn(64, 64)
            self.weight: Any = weight.requires_grad_() if ill else nn.Parameter(weight)
            self.head = nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            return self.head(F.relu(x @ self.weight))

    data, model = digits(seed), Net()
    return Situation(model, sgd(model), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/pytorch/pytorch/issues/14467", UNKNOWN, never=("no-signal",))
def head_replaced_after_the_optimiser(seed: int, ill: bool) -> Situation:
    """For fine-tuning the last layer is replaced, but the optimiser was made before: it holds the old one."""
    model, data = mlp(64, 128, 64, 20), digits(seed)
    optimizer = sgd(model)
    model[4] = nn.Linear(64, 10)
    return Situation(model, optimizer if ill else sgd(model), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/microsoft/nni/issues/4521", UNKNOWN, never=("no-signal",))
def backbone_replaced_after_the_optimiser(seed: int, ill: bool) -> Situation:
    """All layers but one are exchanged (pruned, loaded) after the optimiser was made; the step goes to the old ones."""
    model, data = mlp(12, 64, 64, 4), blobs(seed)
    optimizer = adam(model, 3e-3)
    model[0], model[2] = copy.deepcopy(model[0]), copy.deepcopy(model[2])
    return Situation(model, optimizer if ill else adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/pytorch/tutorials/pull/1455", UNKNOWN, never=("no-signal",))
def optimiser_of_the_head_alone(seed: int, ill: bool) -> Situation:
    """Encoder and head are trained together, but only the head's parameters were passed to the optimiser."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = (
                nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 4), nn.Tanh()),
                nn.Linear(4, 1),
            )

        def forward(self, x: Any) -> Any:
            return self.head(self.encoder(x))

    data, model = surface(seed), Net()
    return Situation(model, sgd(model.head if ill else model), F.mse_loss, data.train, data.held)


@asked(KIND, "https://github.com/zjunlp/HVPNeT/issues/5", UNKNOWN, never=("no-signal",))
def embedding_left_out_of_the_groups(seed: int, ill: bool) -> Situation:
    """Parameter groups were written by hand, one for each part, and the embedding was forgotten."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.hidden, self.head = nn.Embedding(60, 16), nn.Linear(16, 32), nn.Linear(32, 3)

        def forward(self, x: Any) -> Any:
            return self.head(F.relu(self.hidden(self.embed(x).mean(1))))

    data, model = words(seed), Net()
    parts = [model.hidden, model.head] if ill else [model.embed, model.hidden, model.head]
    optimizer = optim.Adam([{"params": list(part.parameters()), "lr": 3e-3} for part in parts])
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/speechbrain/speechbrain/issues/1396", CUT)
def detach_in_the_middle(seed: int, ill: bool) -> Situation:
    """The features are detached before the classifier, left over from an experiment: the encoder is never trained."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.classifier = mlp(64, 64, 24), nn.Linear(24, 10)

        def forward(self, x: Any) -> Any:
            h = F.relu(self.encoder(x))
            return self.classifier(h.detach() if ill else h)

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://pytorch.org/docs/stable/notes/autograd.html (locally disabling gradients)", CUT)
def no_grad_around_a_block(seed: int, ill: bool) -> Situation:
    """The convolutions are run under no_grad, meant for evaluation only."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = cnn()[:6], nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            if ill:
                with kobai.no_grad():
                    h = self.features(x)
            else:
                h = self.features(x)
            return self.head(h.flatten(1))

    data, model = images(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/pytorch/pytorch/issues/1339", CUT)
def argmax_on_the_way(seed: int, ill: bool) -> Situation:
    """A hard choice by argmax in the middle of the net: nothing before it gets a gradient."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.chooser, self.table = mlp(12, 32, 8), nn.Embedding(8, 16)
            self.head = nn.Linear(16, 4)

        def forward(self, x: Any) -> Any:
            scores = self.chooser(x)
            chosen = self.table(scores.argmax(1)) if ill else F.softmax(scores, 1) @ self.table.weight
            return self.head(F.relu(chosen))

    data, model = blobs(seed), Net()
    return Situation(model, adam(model, 1e-2), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/zzzxxxttt/pytorch_DoReFaNet/issues/8", CUT + "|gradient of exactly 0|rounding")
def rounding_on_the_way(seed: int, ill: bool) -> Situation:
    """Activations are quantised by round(), whose gradient is 0, without a straight-through estimate."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 64), mlp(64, 32, 1)

        def forward(self, x: Any) -> Any:
            h = kobai.tanh(self.first(x)) * 4
            rounded = kobai.round(h)
            return self.last(rounded if ill else h + (rounded - h).detach())

    data, model = surface(seed), Net()
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@asked(KIND, "https://github.com/meta-pytorch/botorch/issues/520", CUT)
def through_numpy_and_back(seed: int, ill: bool) -> Situation:
    """The hidden state is turned into an array and a new tensor is made of it: the tape ends there."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(4, 32, batch_first=True), mlp(32, 32, 4)

        def forward(self, x: Any) -> Any:
            state = self.rnn(x)[0][:, -1]
            return self.head(kobai.tensor(state.detach().numpy().clip(-0.9, 0.9)) if ill else state.clamp(-0.9, 0.9))

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/nttcslab/byol-a/issues/7", FROZEN)
def frozen_and_not_thawed(seed: int, ill: bool) -> Situation:
    """Two hidden layers were frozen for a warm-up and never thawed; the optimiser still holds them."""
    data, model = digits(seed), mlp(64, 64, 64, 64, 10)
    for part in (model[0], model[2]):
        part.requires_grad_(not ill)
    return Situation(model, sgd(model), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/open-mmlab/mmdetection/issues/4040", FROZEN)
def frozen_norms_in_a_net_from_scratch(seed: int, ill: bool) -> Situation:
    """A loop over the parameters froze by name, and caught all convolutions of a net that is not pre-trained."""
    data, model = images(seed), cnn(norm=True)
    if ill:
        for name, parameter in model.named_parameters():
            if name.startswith(("0", "4")):
                parameter.requires_grad_(False)
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/mrchor/HiNet/issues/1",
    r"gradient|zeros?\b|dead|initiali",
    names=("symmetric", "dying-relu", "no-signal"),
)
def embedding_of_zeros_before_relu(seed: int, ill: bool) -> Situation:
    """An embedding begins at zero in front of a ReLU: its gradient is 0, and it stays where it is."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(60, 16), nn.Linear(16, 3)
            if ill:
                nn.init.zeros_(self.embed.weight)

        def forward(self, x: Any) -> Any:
            return self.head(F.relu(self.embed(x)).mean(1))

    data, model = words(seed), Net()
    return Situation(model, adam(model, 1e-2), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/jaehyunnn/ViTPose_pytorch/issues/20",
    r"rate|lr\b",
    names=("rate-too-small",),
)
def group_with_a_rate_of_zero(seed: int, ill: bool) -> Situation:
    """The group of the hidden layers lost its rate to a decay by layers, which is 0 by now."""
    data, model = digits(seed), mlp(64, 48, 24, 10)
    hidden = [*model[0].parameters(), *model[2].parameters()]
    optimizer = optim.SGD(
        [{"params": hidden, "lr": 0.0 if ill else 0.05}, {"params": list(model[4].parameters())}], lr=0.05, momentum=0.9
    )
    return Situation(model, optimizer, F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/open-mmlab/mmdetection/issues/472", UNREGISTERED + "|" + FROZEN)
def recurrent_cells_in_a_list(seed: int, ill: bool) -> Situation:
    """A stack of recurrent cells in a plain list under a registered read-out."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            cells = [nn.GRUCell(4, 24), nn.GRUCell(24, 24)]
            self.cells: Any = cells if ill else nn.ModuleList(cells)
            self.head = nn.Linear(24, 4)

        def forward(self, x: Any) -> Any:
            states = [x.new_zeros(len(x), 24) for _ in self.cells]
            for step in range(x.shape[1]):
                h = x[:, step]
                for i, cell in enumerate(self.cells):
                    states[i] = h = cell(h, states[i])
            return self.head(h)

    data, model = sequences(seed, 500, length=6), Net()
    return Situation(model, adam(model, 1e-2), F.cross_entropy, data.train, data.held, steps=80)


@asked(KIND, "https://github.com/roman-vygon/triplet_loss_kws/issues/6", CUT, names=("no-signal",))
def loss_made_of_the_detached_output(seed: int, ill: bool) -> Situation:
    """The loss function takes .data of the output and asks for a gradient again: backward() runs and reaches nothing."""

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y.detach().requires_grad_() if ill else y, t)

    data, model = blobs(seed), Rows("LSTM", 3, 24, 4)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model

        def forward(self, x: Any) -> Any:
            return self.body(x.reshape(len(x), 4, 3))

    net = Net()
    return Situation(net, adam(net, 5e-3), loss_fn, data.train, data.held, steps=80)


@asked(KIND, "https://github.com/rimchang/Faster-RCNN-Pytorch-Simple/issues/2", CUT)
def one_branch_is_cut(seed: int, ill: bool) -> Situation:
    """Of two branches that are added, one goes through .data: its weights never change, and the other hides it."""
    left, right = Calls(12, 48, 24), Calls(12, 48, 24)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = left, right, nn.Linear(48, 4)

        def forward(self, x: Any) -> Any:
            right = self.right(x)
            return self.head(F.relu(kobai.cat([self.left(x), right.detach() if ill else right], 1)))

    data, model = blobs(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)
