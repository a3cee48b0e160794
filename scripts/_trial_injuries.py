"""What can be spoilt in a net, to a degree that is drawn. Part of ``doctor_trial.py``."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import kobai
from _trial_recipes import ACTIVATIONS, Case, recipe, weighted
from kobai import nn
from kobai.nn import init
from kobai.train import Trainer


def train(case: Case, optimizer: Any, steps: int) -> None:
    trainer = Trainer(case.model, optimizer, case.task.loss_fn, clip_grad_norm=case.clip, terminate_on_non_finite=False)
    batches = case.batches
    for i in range(steps):
        trainer.train_step(batches[i % len(batches)])


def log_uniform(draw: random.Random, low: float, high: float) -> float:
    return math.exp(draw.uniform(math.log(low), math.log(high)))


def widen(layers: list[Any], factor: float) -> str:
    for layer in layers:
        layer.weight.data.mul_(factor)
    return f"weights × {factor:.3g}"


class Detached(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Any:
        return self.model(x).detach()


def with_rate(case: Case, factor: float) -> str:
    usual = case.rule

    def rule(parameters: Any) -> Any:
        optimizer = usual(parameters)
        for group in optimizer.param_groups:
            group["lr"] *= factor
        return optimizer

    case.rule = rule
    return f"rate × {factor:.3g}"


def spoil_targets(ill: Case, draw: random.Random) -> str:
    factor = log_uniform(draw, 30, 3000)
    ill.task.t = ill.task.t * np.float32(factor)
    ill.truth.append("target-scale")
    return f"targets × {factor:.3g}"


def spoil_inputs(ill: Case, draw: random.Random) -> str:
    kind, x = draw.choice(["large", "small", "offset", "feature", "bytes"]), ill.task.x
    factor = log_uniform(draw, *((1e-5, 3e-2) if kind == "small" else (10, 3000)))
    if x.dtype.kind != "f":
        return "words have no scale"
    if kind == "bytes":
        ill.task.x = (255 * (x - x.min()) / (x.max() - x.min())).astype(np.float32)
        return "inputs from 0 to 255"
    if kind == "feature":
        flat = x.reshape(len(x), -1).copy()
        flat[:, int(flat.var(0).argmax())] *= np.float32(factor)
        ill.task.x = flat.reshape(x.shape)
        return f"one feature × {factor:.3g}"
    ill.task.x = (x + factor if kind == "offset" else x * factor).astype(np.float32)
    return f"inputs {'+' if kind == 'offset' else '×'} {factor:.3g}"


def spoil_signal(ill: Case, draw: random.Random) -> str:
    kind = draw.choice(["constant", "blank", "frozen", "detached", "sorted", "last layer 0 and frozen"])
    if kind == "constant":
        ill.task.x = np.broadcast_to(ill.task.x[:1], ill.task.x.shape).copy()
    elif kind == "blank":
        ill.task.x = np.zeros_like(ill.task.x)
    elif kind == "frozen":
        ill.model.requires_grad_(False)
    elif kind == "detached":
        ill.model = Detached(ill.model)
    elif kind == "sorted":
        ill.ordered = True
        ill.truth.append("unshuffled")
    else:
        last = weighted(ill.model)[-1]
        init.zeros_(last.weight)
        last.weight.requires_grad_(False)
    return kind


def spoil_numbers(ill: Case, draw: random.Random) -> str:
    kind, bad = draw.choice(["input", "weight", "overflow", "loss"]), draw.choice([np.nan, np.inf])
    if kind == "input":
        share = log_uniform(draw, 1e-3, 0.1)
        ill.task.x = ill.task.x.copy()
        ill.task.x.reshape(len(ill.task.x), -1)[np.random.default_rng(ill.seed).random(len(ill.task.x)) < share, 0] = (
            bad
        )
        return f"{share:.2%} of the inputs not finite"
    if kind == "weight":
        next(iter(ill.model.parameters())).data.reshape(-1)[0] = float(bad)
    elif kind == "overflow":
        widen(weighted(ill.model), 1e20)
        ill.truth.append("exploding-activations")
    else:
        usual = ill.task.loss_fn
        ill.task.loss_fn = lambda y, t: usual(y, t) + kobai.log(kobai.relu(y)).mean()
    return kind


def spoil_relu(ill: Case, draw: random.Random) -> str:
    layers = weighted(ill.model)[:-1]
    if draw.random() < 0.5:
        chosen, bias = draw.choice([layers, [draw.choice(layers)]]), -log_uniform(draw, 1, 20)
        for layer in chosen:
            init.constant_(layer.bias, bias)
        return f"biases {bias:.3g} in {len(chosen)} of {len(layers)} layers"
    lr, steps = log_uniform(draw, 0.5, 20), draw.randint(1, 10)
    train(ill, kobai.optim.SGD(ill.model.parameters(), lr=lr), steps)
    ill.checked = True
    return f"{steps} steps at {lr:.3g} before"


def spoil_gradient(kind: str, ill: Case, draw: random.Random) -> str:
    if kind == "last":
        ill.truth.append("exploding-activations")
        return "last layer: " + widen(weighted(ill.model)[-1:], log_uniform(draw, 10, 1000))
    if kind == "sum":
        ill.task.loss_fn = partial(ill.task.loss_fn, reduction="sum")
        return "loss summed"
    if kind == "targets":
        return spoil_targets(ill, draw)
    if kind == "recurrent":
        factor = log_uniform(draw, 3, 30)
        for name, parameter in ill.model.named_parameters():
            if "weight_hh" in name:
                parameter.data.mul_(factor)
        return f"recurrent weights × {factor:.3g}"
    ill.truth += ["exploding-activations", "saturated"]
    return "all " + widen(weighted(ill.model), log_uniform(draw, 2, 10))


def spoil_symmetry(ill: Case, draw: random.Random) -> str:
    layers, value = weighted(ill.model), draw.choice([0.0, log_uniform(draw, 0.01, 0.3)])
    chosen = draw.choice([layers, layers[:-1], [draw.choice(layers[:-1])]])
    for layer in chosen:
        init.constant_(layer.weight, value)
        init.zeros_(layer.bias)
    return f"weights {value:.3g} in {len(chosen)} of {len(layers)} layers"


def spoil_squashing(ill: Case, draw: random.Random) -> str:
    layers = weighted(ill.model)[:-1]
    if draw.random() < 0.7:
        return widen(layers, log_uniform(draw, 3, 50))
    size = log_uniform(draw, 3, 30)
    for layer in layers:
        init.normal_(layer.bias, std=size)
    return f"biases of {size:.3g}"


def sick(disease: str, index: str) -> tuple[Case, Case]:
    """A recipe, and the same net with one thing spoilt."""
    draw = random.Random(f"{disease} {index}")
    plain: dict[str, Any] = {"deep": True, "plain": True}
    dense = draw.choice("mlp mlp cnn regression autoencoder".split())
    some = draw.choice("mlp mlp cnn residual rows encoder resnet bag regression autoencoder".split())
    image = draw.choice("mlp mlp cnn residual rows encoder resnet".split())
    linear = [name for name in ACTIVATIONS if name not in ("tanh", "sigmoid")]
    kind = draw.choice(["last", "sum", "targets", "recurrent", "weights"])
    steep = {"recurrent": "rows", "targets": "regression"}.get(kind, draw.choice(["mlp", "cnn", "residual", some]))
    other = draw.choice(["mlp", "cnn", "residual", "regression"])
    ways: dict[str, tuple[dict[str, Any], Callable[[Case, random.Random], str]]] = {
        "non-finite": ({"family": image}, spoil_numbers),
        "no-signal": ({"family": image}, spoil_signal),
        "input-scale": ({"family": draw.choice([image, "regression"])}, spoil_inputs),
        "symmetric": ({"family": draw.choice([dense, "residual"]), "deep": True}, spoil_symmetry),
        "saturated": ({"family": dense, "acts": ["tanh", "sigmoid"], **plain}, spoil_squashing),
        "exploding-activations": (
            {"family": other, "acts": linear, **plain},
            lambda ill, draw: widen(weighted(ill.model)[:-1], log_uniform(draw, 1.5, 20)),
        ),
        "collapsed": (
            {"family": dense, **plain},
            lambda ill, draw: widen(weighted(ill.model), log_uniform(draw, 0.003, 0.3)),
        ),
        "dying-relu": ({"family": dense, "acts": ["relu"], **plain}, spoil_relu),
        "vanishing-gradient": (
            {"family": other.replace("residual", "mlp"), **plain},
            lambda ill, draw: "sigmoid for ReLU",
        ),
        "exploding-gradient": ({"family": steep, "deep": True}, partial(spoil_gradient, kind)),
        "rate-too-large": ({"family": some}, lambda ill, draw: with_rate(ill, log_uniform(draw, 10, 3000))),
        "rate-too-small": ({"family": some}, lambda ill, draw: with_rate(ill, log_uniform(draw, 1e-6, 3e-2))),
    }
    options, spoil = ways[disease]
    well, ill = (
        recipe(f"{disease} {index}", **({"acts": [act]} if disease == "vanishing-gradient" else {}), **options)
        for act in ("relu", "sigmoid")
    )
    ill.truth = [disease]
    ill.name = f"{spoil(ill, draw)} | {ill.name}"
    return well, ill


SICK = (
    "non-finite no-signal input-scale symmetric saturated exploding-activations collapsed dying-relu "
    "vanishing-gradient exploding-gradient rate-too-large rate-too-small"
).split()
