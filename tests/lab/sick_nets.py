"""Nets on the digits that are sick on purpose, each with one disease of the catalogue, and healthy ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

import pytest

import kobai
from kobai import nn
from kobai.nn import functional as F, init
from kobai.train import mlp


@dataclass
class Net:
    disease: str  # "healthy" for those that are
    name: str
    model: nn.Module
    optimizer: kobai.optim.Optimizer
    batches: list[Any]
    loss_fn: Callable[[Any, Any], Any] = F.cross_entropy


@cache
def digits() -> tuple[Any, Any]:
    pytest.importorskip("sklearn")
    x, t = kobai.data.digits().train.tensors
    return (x - x.mean()) / x.std(), t


def batches(x: Any = None, t: Any = None) -> list[Any]:
    inputs, targets = digits()
    x, t = inputs if x is None else x, targets if t is None else t
    return [(x[i : i + 100], t[i : i + 100]) for i in range(0, 1200, 100)]


def net(depth: int, width: int, activation: str, init: str = "auto", **options: Any) -> nn.Sequential:
    return mlp(64, [width] * depth, 10, activation=activation, init=init, **options)


def sgd(model: nn.Module, lr: float = 0.1, **options: Any) -> Any:
    return kobai.optim.SGD(model.parameters(), lr=lr, **options)


def adam(model: nn.Module, lr: float = 1e-3) -> Any:
    return kobai.optim.Adam(model.parameters(), lr=lr)


def sick() -> Iterator[Net]:
    """Disease × depth × width × activation × seed."""

    def case(disease: str, name: str, model: nn.Module, rule: Any = sgd, data: Any = None, **options: Any) -> Net:
        return Net(disease, name, model, rule(model), data or batches(), **options)

    seed = 0
    for depth, width, activation, std in [
        (3, 100, "sigmoid", 1),
        (5, 100, "sigmoid", 1),
        (3, 50, "tanh", 1),
        (5, 100, "tanh", 1),
        (4, 200, "tanh", 0.5),
        (3, 100, "hardtanh", 1),
    ]:
        kobai.manual_seed(seed := seed + 1)
        name = f"{activation} {depth}×{width}, normal({std})"
        yield case("saturated", name, net(depth, width, activation, f"normal({std})"))
    for activation in ("sigmoid", "tanh"):
        kobai.manual_seed(seed := seed + 1)
        model = net(3, 100, activation)
        init.normal_(model[1].bias, std=10.0)
        init.normal_(model[3].bias, std=10.0)
        yield case("saturated", f"{activation} 3×100, biases of size 10", model)

    kobai.manual_seed(seed := seed + 1)
    yield case("saturated", "tanh 4×100 as functions, normal(1)", Written(4, 100, kobai.tanh, "normal(1)"))

    for depth, width, activation, std in [
        (4, 100, "relu", 1),
        (6, 50, "relu", 1),
        (5, 200, "gelu", 0.5),
        (5, 100, "leaky_relu", 1),
        (8, 100, "elu", 0.5),
        (10, 50, "relu", 0.6),
    ]:
        kobai.manual_seed(seed := seed + 1)
        name = f"{activation} {depth}×{width}, normal({std})"
        yield case("exploding-activations", name, net(depth, width, activation, f"normal({std})"))

    for depth, width, activation, std in [
        (4, 100, "relu", 0.01),
        (6, 50, "relu", 0.03),
        (5, 100, "tanh", 0.01),
        (3, 200, "gelu", 0.005),
        (8, 100, "selu", 0.03),
        (4, 100, "sigmoid", 0.01),
        (10, 50, "elu", 0.05),
        (3, 50, "leaky_relu", 0.01),
    ]:
        kobai.manual_seed(seed := seed + 1)
        name = f"{activation} {depth}×{width}, normal({std})"
        yield case("collapsed", name, net(depth, width, activation, f"normal({std})"))

    for depth, width, bias, at in [(3, 100, -8, 1), (2, 50, -10, 1), (5, 100, -6, 3), (3, 200, -5, 5), (4, 50, -20, 1)]:
        kobai.manual_seed(seed := seed + 1)
        model = net(depth, width, "relu")
        init.constant_(model[at].bias, bias)
        yield case("dying-relu", f"relu {depth}×{width}, biases of layer {at} {bias}", model)
    kobai.manual_seed(seed := seed + 1)
    written = Written(3, 100, F.relu, "he")
    init.constant_(written.hidden[1].bias, -10)
    yield case("dying-relu", "relu 3×100 as functions, biases of layer 1 -10", written)

    for depth, width, scheme in [
        (6, 100, "xavier"),
        (8, 50, "xavier"),
        (10, 100, "lecun"),
        (7, 200, "xavier"),
        (12, 30, "lecun"),
        (5, 100, "xavier"),
    ]:
        kobai.manual_seed(seed := seed + 1)
        yield case("vanishing-gradient", f"sigmoid {depth}×{width}, {scheme}", net(depth, width, "sigmoid", scheme))

    for depth, width, activation, std in [(3, 100, "relu", 20), (2, 50, "tanh", 50), (4, 100, "gelu", 30)]:
        kobai.manual_seed(seed := seed + 1)
        model = net(depth, width, activation)
        init.normal_(model[-1].weight, std=std)
        yield case("exploding-gradient", f"{activation} {depth}×{width}, last layer normal({std})", model)
    for depth, activation in [(2, "relu"), (3, "tanh")]:
        kobai.manual_seed(seed := seed + 1)
        model, total = net(depth, 100, activation), partial(F.cross_entropy, reduction="sum")
        yield case("exploding-gradient", f"{activation} {depth}×100, loss summed", model, loss_fn=total)
    for kind, factor in [("RNN", 30), ("LSTM", 50)]:
        kobai.manual_seed(seed := seed + 1)
        rows = Rows(kind)
        for name, parameter in rows.rnn.named_parameters():
            if name.startswith("weight_hh"):
                parameter.data.mul_(factor)
        yield case("exploding-gradient", f"{kind}, recurrent weights × {factor}", rows)
    for depth, activation, rule in [(2, "relu", sgd), (3, "tanh", sgd), (2, "gelu", adam), (3, "relu", adam)]:
        kobai.manual_seed(seed := seed + 1)
        x, t = digits()
        data = batches(x, F.one_hot(t, 10).float() * 1000)
        model = net(depth, 100, activation)
        name = f"{activation} {depth}×100, targets of 1000, {rule.__name__}"
        yield case("target-scale", name, model, rule, data=data, loss_fn=F.mse_loss)

    for depth, width, activation, scheme in [
        (2, 50, "relu", "zeros"),
        (3, 100, "tanh", "zeros"),
        (2, 100, "sigmoid", "constant(0.1)"),
        (3, 50, "tanh", "constant(0.05)"),
        (2, 100, "gelu", "constant(0.01)"),
        (4, 50, "relu", "constant(0.02)"),
    ]:
        kobai.manual_seed(seed := seed + 1)
        yield case("symmetric", f"{activation} {depth}×{width}, {scheme}", net(depth, width, activation, scheme))

    for depth, activation, rule, lr in [
        (2, "relu", sgd, 30),
        (3, "tanh", sgd, 30),
        (2, "gelu", sgd, 50),
        (3, "relu", adam, 0.5),
        (2, "tanh", adam, 1),
        (2, "sigmoid", adam, 2),
    ]:
        kobai.manual_seed(seed := seed + 1)
        model, name = net(depth, 100, activation), f"{activation} {depth}×100, {rule.__name__} {lr:g}"
        yield case("rate-too-large", name, model, partial(rule, lr=lr))
    for depth, activation, rule, lr in [
        (2, "relu", sgd, 1e-6),
        (3, "tanh", sgd, 1e-5),
        (5, "gelu", sgd, 1e-6),
        (3, "relu", adam, 1e-8),
        (2, "selu", adam, 1e-9),
    ]:
        kobai.manual_seed(seed := seed + 1)
        model, name = net(depth, 100, activation), f"{activation} {depth}×100, {rule.__name__} {lr:g}"
        yield case("rate-too-small", name, model, partial(rule, lr=lr))

    for depth, activation, scale in [
        (2, "relu", 255),
        (3, "tanh", 255),
        (3, "sigmoid", 1000),
        (2, "gelu", 1e-3),
        (3, "relu", 1e-4),
        (2, "tanh", 50),
    ]:
        kobai.manual_seed(seed := seed + 1)
        model, data = net(depth, 100, activation), batches(digits()[0] * scale)
        yield case("input-scale", f"{activation} {depth}×100, inputs × {scale:g}", model, data=data)
    kobai.manual_seed(seed := seed + 1)
    x = digits()[0].reshape(-1, 64).clone()
    x[:, 20] *= 1000
    yield case("input-scale", "relu 2×100, one feature × 1000", net(2, 100, "relu"), data=batches(x))

    for activation in ("relu", "tanh"):
        kobai.manual_seed(seed := seed + 1)
        x = kobai.ones_like(digits()[0]) * 0.5
        yield case("no-signal", f"{activation} 3×100, constant inputs", net(3, 100, activation), data=batches(x))
        yield case("no-signal", f"{activation} 3×100, all frozen", net(3, 100, activation).requires_grad_(False))
    t = kobai.sort(digits()[1])
    data = batches(digits()[0][t.indices], t.values)
    yield case("no-signal", "relu 2×100, sorted by class", net(2, 100, "relu"), data=data)
    for activation, first in (("relu", 1), ("tanh", 2), ("gelu", 5)):
        kobai.manual_seed(seed := seed + 1)
        data = batches(digits()[0][t.indices], t.values)[first:]
        yield case("unshuffled", f"{activation} 2×100, sorted by class", net(2, 100, activation), data=data)
    for activation, shift in (("relu", 1), ("tanh", -1), ("relu", 100)):
        kobai.manual_seed(seed := seed + 1)
        data = batches(t=digits()[1] + shift)
        yield case("wrong-labels", f"{activation} 2×100, labels + {shift}", net(2, 100, activation), data=data)

    for activation in ("relu", "tanh"):
        kobai.manual_seed(seed := seed + 1)
        x = digits()[0].clone()
        x[7, 0, 0, 0] = float("nan")
        yield case("non-finite", f"{activation} 2×100, NaN in the inputs", net(2, 100, activation), data=batches(x))
        model = net(2, 100, activation)
        model[3].weight.data[0, 0] = float("inf")
        yield case("non-finite", f"{activation} 2×100, infinite weight", model)
    yield case("non-finite", "relu 4×100, normal(1e12)", net(4, 100, "relu", "normal(1e12)"))

    for depth, last, activation in [
        (2, nn.Softmax(dim=1), "relu"),
        (4, nn.Softmax(dim=1), "tanh"),
        (1, nn.Sigmoid(), "gelu"),
    ]:
        kobai.manual_seed(seed := seed + 1)
        model = nn.Sequential(*net(depth, 100, activation), last)
        yield case("bounded-scores", f"{activation} {depth}×100, {type(last).__name__} before the loss", model, adam)
    yield from sick_losses()
    yield from untrained(case)
    yield from incapable(case)
    yield from mixed(case)
    for disease, name, options in [
        ("weight-decay-too-large", "weight decay of 1", {"lr": 0.1, "weight_decay": 1.0}),
        ("momentum-too-high", "momentum of 0.999", {"lr": 0.3, "momentum": 0.999}),
    ]:
        kobai.manual_seed(seed := seed + 1)
        yield case(disease, f"relu 2×100, {name}", net(2, 100, "relu"), lambda model, o=options: sgd(model, **o))


def sick_losses() -> Iterator[Net]:
    """Losses, outputs and targets that do not belong together."""
    x, t = digits()
    odd = (t % 2).float()

    def case(disease: str, name: str, outputs: int, targets: Any, loss_fn: Any, *last: nn.Module) -> Net:
        kobai.manual_seed(len(name))
        model = nn.Sequential(*mlp(64, [100, 50], outputs), *last)
        return Net(disease, name, model, adam(model), batches(x, targets), loss_fn)

    likelihood, squared = F.nll_loss, lambda y, t: ((y - t) ** 2).mean()
    logits, probability = F.binary_cross_entropy_with_logits, F.binary_cross_entropy
    yield case("bounded-scores", "softmax of one unit", 1, odd[:, None], probability, nn.Softmax(dim=1))
    yield case("bounded-scores", "ReLU on negative targets", 1, 1 - t[:, None].float(), F.mse_loss, nn.ReLU())
    yield case("mixed-targets", "squares of columns and rows", 1, odd * 2 - 1, squared)
    yield case(
        "mixed-targets", "distances of columns and rows", 1, t.float() / 5 - 1, lambda y, t: (y - t).abs().mean()
    )
    yield case("constant-loss", "cross-entropy of one score", 1, odd[:, None], F.cross_entropy)
    yield case("no-least-loss", "likelihood of probabilities", 10, t, likelihood, nn.Softmax(dim=1))
    yield case("no-least-loss", "likelihood of scores", 10, t, likelihood)
    yield case("no-least-loss", "labels of 0 and 255 with logits", 1, 255 * odd[:, None], logits)
    yield case("no-least-loss", "cross-entropy with the wrong sign", 10, t, lambda y, t: -F.cross_entropy(y, t))
    yield case("refused-by-the-loss", "scores for probabilities", 1, odd[:, None], probability)
    yield case("refused-by-the-loss", "logits and a row of targets", 1, odd, logits)


class Turned(nn.Module):
    """Axes that a reshape mixes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(64, 100), nn.Linear(100, 10)

    def forward(self, x: Any) -> Any:
        return self.head(F.relu(self.embed(x.flatten(1))).t().reshape(len(x), 100))


def mixed(case: Callable[..., Net]) -> Iterator[Net]:
    """Nets in which samples are mixed with each other."""
    kobai.manual_seed(80)
    yield case("mixed-samples", "relu 1×100, transposed before a reshape", Turned())
    rows = Rows("GRU")
    rows.rnn.batch_first = False
    yield case("mixed-samples", "GRU, along the batch", rows, adam)


def incapable(case: Callable[..., Net]) -> Iterator[Net]:
    """Nets that can express too little."""
    for seed, (width, depth, rule) in enumerate([(64, 3, sgd), (100, 2, adam)], 70):
        kobai.manual_seed(seed)
        sizes = [64, *[width] * depth, 10]
        linear = [nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes)]
        name = f"{width} {rule.__name__}"
        yield case("no-activation", f"linear {depth}×{name}", nn.Sequential(nn.Flatten(), *linear), rule)
        model = net(4, width, "relu")
        model[3], model[5] = nn.Linear(width, seed - 69), nn.Linear(seed - 69, width)
        yield case("bottleneck", f"relu 4×{name}, {seed - 69} units in the middle", model, adam)
        model = net(depth, 200, "relu", dropout=0.9 + 0.02 * depth)
        yield case("dropout", f"relu {depth}×200 {rule.__name__}, dropout {0.9 + 0.02 * depth:g}", model, rule)


def untrained(case: Callable[..., Net]) -> Iterator[Net]:
    """Nets of which a part is not trained."""

    def part(model: nn.Module) -> Any:
        return kobai.optim.SGD(
            [{"params": model.hidden.parameters(), "lr": 0.0}, {"params": model.head.parameters()}], 0.1
        )

    def other(model: nn.Module) -> Any:
        rule = sgd(model)
        model.head = nn.Linear(100, 10)
        return rule

    for seed, (depth, function, scheme) in enumerate([(2, F.relu, "he"), (3, kobai.tanh, "xavier")], 50):
        kobai.manual_seed(seed)
        name = f"{function.__name__} {depth}×100"
        listed = Written(depth, 100, function, scheme)
        layers = list(listed.hidden)
        del listed.hidden
        listed.hidden = layers
        yield case("not-registered", f"{name}, layers in a list", listed)
        yield case(
            "not-held", f"{name}, a head that is made after the optimizer", Written(depth, 100, function, scheme), other
        )
        yield case("standing", f"{name}, rate 0 for the hidden layers", Written(depth, 100, function, scheme), part)
        cut = Written(depth, 100, lambda x, function=function: function(x).detach(), scheme)
        yield case("cut-off", f"{name}, detached", cut)
        frozen = Written(depth, 100, function, scheme)
        frozen.hidden.requires_grad_(False)
        yield case("frozen", f"{name}, frozen from the start", frozen)
    model = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.ReLU(), nn.Linear(64 * 8, 10))
    init.zeros_(model[0].weight)
    x = (5 * digits()[0]).clamp(0, 19).long().flatten(1)
    yield case("standing", "an embedding of zeros before ReLU", model, data=batches(x))


class Rows(nn.Module):
    """An image, row by row, through a recurrent net."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(8, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(x[:, 0])[0][:, -1])


class Written(nn.Module):
    """Activations called as functions, in forward()."""

    def __init__(self, depth: int, width: int, function: Callable[[Any], Any], init: str) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(width if i else 64, width, init=init) for i in range(depth)])
        self.head, self.function = nn.Linear(width, 10), function

    def forward(self, x: Any) -> Any:
        x = x.flatten(1)
        for layer in self.hidden:
            x = self.function(layer(x))
        return self.head(x)


class Residual(nn.Module):
    def __init__(self, width: int, norm: bool = False, zero: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.up = nn.Linear(width, width, init="he")
        self.act = nn.ReLU()
        self.down = nn.Linear(width, width, init="zeros" if zero else "lecun")

    def forward(self, x: Any) -> Any:
        return x + self.down(self.act(self.up(self.norm(x))))


def convolutional(norm: bool, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in [(1, 8), (8, 16), (16, 16)]:
        layers.append(nn.Conv2d(n_in, n_out, 3, padding=1))
        init.kaiming_normal_(layers[-1].weight, nonlinearity="relu")
        layers += [nn.BatchNorm2d(n_out)] * norm + [activation()]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 16, 10))


def healthy() -> Iterator[Net]:
    def case(name: str, model: nn.Module, rule: Any = sgd, data: Any = None, **options: Any) -> Net:
        return Net("healthy", name, model, rule(model), data or batches(), **options)

    seed = 100
    for depth, width, activation, scheme in [
        (1, 50, "relu", "he"),
        (2, 100, "relu", "he"),
        (5, 100, "relu", "he"),
        (10, 100, "relu", "he"),
        (3, 300, "relu", "kaiming_uniform"),
        (2, 100, "tanh", "lecun"),
        (5, 100, "tanh", "lecun"),
        (10, 100, "tanh", "xavier"),
        (3, 50, "tanh", "orthogonal"),
        (2, 100, "gelu", "he"),
        (5, 100, "gelu", "he"),
        (8, 100, "gelu", "he"),
        (2, 100, "selu", "lecun"),
        (1, 100, "sigmoid", "xavier"),
        (2, 100, "sigmoid", "xavier"),
        (3, 100, "leaky_relu", "he"),
        (4, 100, "elu", "he"),
        (3, 100, "silu", "he"),
        (3, 100, "prelu", "he"),
        (3, 100, "softplus", "he"),
        (2, 100, "hardtanh", "xavier"),
    ]:
        kobai.manual_seed(seed := seed + 1)
        yield case(f"{activation} {depth}×{width}, {scheme}", net(depth, width, activation, scheme))
    for depth, activation, scheme in [
        (3, "relu", "he"),
        (5, "tanh", "xavier"),
        (8, "relu", "normal(0.01)"),
        (5, "sigmoid", "xavier"),
        (10, "gelu", "he"),
    ]:
        kobai.manual_seed(seed := seed + 1)
        yield case(
            f"{activation} {depth}×100 with batch norm, {scheme}", net(depth, 100, activation, scheme, batch_norm=True)
        )
    for depth, activation, rule in [(2, "relu", adam), (5, "tanh", adam), (3, "gelu", adam), (5, "selu", adam)]:
        kobai.manual_seed(seed := seed + 1)
        yield case(f"{activation} {depth}×100, adam", net(depth, 100, activation), rule)
    for depth, width in [(8, 100), (15, 50)]:  # which diverge at a rate of 0.1
        kobai.manual_seed(seed := seed + 1)
        name = f"selu {depth}×{width}, momentum 0.01"
        yield case(name, net(depth, width, "selu", "lecun"), partial(sgd, lr=0.01, momentum=0.9))
    kobai.manual_seed(seed := seed + 1)
    yield case("sigmoid 3×50, xavier, adam", net(3, 50, "sigmoid", "xavier"), partial(adam, lr=3e-3))
    kobai.manual_seed(seed := seed + 1)
    yield case("relu 3×100, dropout", net(3, 100, "relu", dropout=0.5))
    yield case("relu 2×100, momentum", net(2, 100, "relu"), partial(sgd, lr=0.02, momentum=0.9))
    yield case("relu 2×100, pixels from 0 to 1", net(2, 100, "relu"), data=batches(digits()[0] * 0.375 + 0.3))
    for blocks, norm, zero in [(4, False, False), (4, True, False), (8, True, False), (4, False, True)]:
        kobai.manual_seed(seed := seed + 1)
        body = [Residual(64, norm, zero) for _ in range(blocks)]
        what = ", layer norm" * norm + ", branches from 0" * zero
        yield case(f"residual, {blocks} blocks{what}", nn.Sequential(nn.Flatten(), *body, nn.Linear(64, 10)))
    kobai.manual_seed(seed := seed + 1)
    yield case("relu 5×100 as functions, he", Written(5, 100, F.relu, "he"))
    yield case("tanh 3×100 as functions, xavier", Written(3, 100, kobai.tanh, "xavier"))
    yield case("LSTM, adam", Rows("LSTM"), adam)
    yield case("GRU, adam", Rows("GRU"), adam)
    yield case("convolutional, He", convolutional(False))
    yield case("convolutional, batch norm", convolutional(True))
    yield case("convolutional, GELU, adam", convolutional(False, nn.GELU), adam)
    x, t = digits()
    data = batches(x, F.one_hot(t, 10).float())
    yield case("relu 2×100, squared error", net(2, 100, "relu"), data=data, loss_fn=F.mse_loss)
