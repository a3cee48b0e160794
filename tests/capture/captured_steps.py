"""Nets, optimizers and batches whose steps are captured."""

from __future__ import annotations

import numpy as np

import kobai
from kobai import nn
from kobai.nn import functional as F

OPTIMIZERS = {
    "sgd": lambda p: kobai.optim.SGD(p, lr=0.05),
    "momentum": lambda p: kobai.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.1, weight_decay=1e-3),
    "nesterov": lambda p: kobai.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, maximize=False),
    "adagrad": lambda p: kobai.optim.Adagrad(p, lr=0.05),
    "rmsprop": lambda p: kobai.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adadelta": lambda p: kobai.optim.Adadelta(p),
    "adam": lambda p: kobai.optim.Adam(p, lr=0.01, weight_decay=1e-3),
    "amsgrad": lambda p: kobai.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: kobai.optim.AdamW(p, lr=0.01),
    "adamax": lambda p: kobai.optim.Adamax(p, lr=0.01),
    "nadam": lambda p: kobai.optim.NAdam(p, lr=0.01),
    "radam": lambda p: kobai.optim.RAdam(p, lr=0.01),
    "rprop": lambda p: kobai.optim.Rprop(p, lr=0.01),
    "asgd": lambda p: kobai.optim.ASGD(p, lr=0.01),
}


def net(kind: str = "plain", width: int = 16) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in in (6, width):
        layers.append(nn.Linear(fan_in, width))
        layers += (
            [nn.BatchNorm1d(width)] if kind == "batch norm" else [nn.LayerNorm(width)] if kind == "layer norm" else []
        )
        layers.append({"tanh": nn.Tanh(), "gelu": nn.GELU()}.get(kind, nn.ReLU()))
        layers += [nn.Dropout(0.3)] if kind == "dropout" else []
    return nn.Sequential(*layers, nn.Linear(width, 3))


def batches(n: int, rows: int = 8) -> list:
    rng = np.random.default_rng(1)
    return [
        (kobai.tensor(rng.standard_normal((rows, 6)).astype("f")), kobai.tensor(rng.integers(0, 3, rows)))
        for _ in range(n)
    ]


def both(make, data) -> tuple[list, list, object]:
    """(losses, model state) of the same steps without and with capture, and the captured step."""
    found = []
    captured = None
    for wrap in (lambda step: step, kobai.capture):
        kobai.manual_seed(3)
        model, step = make()
        step = captured = wrap(step)
        losses = [step(*batch).item() for batch in data]
        found.append((losses, {k: np.array(v.array) for k, v in model.state_dict().items()}))
    (losses, state), (again, state_again) = found
    assert losses == again
    for name in state:
        np.testing.assert_array_equal(state[name], state_again[name], err_msg=name)
    return losses, again, captured


def training(kind="plain", optimizer="sgd", clip=None, schedule=None):
    def make():
        model = net(kind)
        update = OPTIMIZERS[optimizer](model.parameters())
        scheduler = schedule(update) if schedule else None

        def step(x, t):
            update.zero_grad()
            loss = F.cross_entropy(model(x), t)
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            update.step()
            if scheduler:
                scheduler.step()
            return loss

        return model, step

    return make
