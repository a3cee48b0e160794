"""What files of parameters hold, name by name: ``states.txt``. A checkpoint of before must fit a net of tomorrow."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
from freezing import check

import kobai
from kobai import nn, optim
from kobai.optim import lr_scheduler, swa_utils
from nn.test_layers import LAYERS
from nn.test_lazy import CASES as LAZY
from optim.optimizer_table import CASES as OPTIMIZERS

MODULES = {
    **{name: layer.make for name, layer in LAYERS.items()},
    **{name: make for name, (make, _, _) in LAZY.items()},
    "MaxUnpool1d": lambda: nn.MaxUnpool1d(2),
    "MaxUnpool2d": lambda: nn.MaxUnpool2d((2, 3)),
    "MaxUnpool3d": lambda: nn.MaxUnpool3d(2, 1, 1),
    "RNN": lambda: nn.RNN(3, 4, 2),
    "RNN relu, no bias": lambda: nn.RNN(3, 4, bias=False, nonlinearity="relu"),
    "LSTM": lambda: nn.LSTM(3, 4, 2, bidirectional=True),
    "LSTM, projected": lambda: nn.LSTM(3, 4, proj_size=2),
    "GRU": lambda: nn.GRU(3, 4, bidirectional=True),
    "RNNCell": lambda: nn.RNNCell(3, 4),
    "LSTMCell": lambda: nn.LSTMCell(3, 4),
    "GRUCell": lambda: nn.GRUCell(3, 4, bias=False),
    "MultiheadAttention": lambda: nn.MultiheadAttention(4, 2),
    "MultiheadAttention of other sizes": lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
    "MultiheadAttention to one more": lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(4, 2, 6),
    "TransformerDecoderLayer": lambda: nn.TransformerDecoderLayer(4, 2, 6),
    "TransformerEncoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6), 2, nn.LayerNorm(4)),
    "TransformerDecoder": lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 6), 2),
    "Transformer": lambda: nn.Transformer(4, 2, 1, 1, 6),
    "Sequential": lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.BatchNorm1d(3)),
    "ModuleList": lambda: nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 2)]),
    "ModuleDict": lambda: nn.ModuleDict({"one": nn.Linear(2, 3), "two": nn.Linear(3, 2)}),
    "ParameterList": lambda: nn.ParameterList([kobai.zeros(2), kobai.zeros(3, dtype=kobai.float64)]),
    "ParameterDict": lambda: nn.ParameterDict({"one": kobai.zeros(2), "two": kobai.zeros(3)}),
    "Module": lambda: nn.Module(),
    "DataParallel": lambda: nn.DataParallel(nn.Linear(2, 3)),
    "AveragedModel": lambda: swa_utils.AveragedModel(nn.Linear(2, 3)),
    "weight_norm": lambda: nn.utils.weight_norm(nn.Linear(2, 3)),
    "spectral_norm": lambda: nn.utils.spectral_norm(nn.Linear(2, 3)),
    "AdaptiveLogSoftmaxWithLoss": lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 10, [3, 6], head_bias=True),
    "CrossEntropyLoss, weighted": lambda: nn.CrossEntropyLoss(weight=kobai.ones(3)),
    "BCEWithLogitsLoss, weighted": lambda: nn.BCEWithLogitsLoss(pos_weight=kobai.ones(3)),
}
"""An example of every module; other losses are made without arguments."""

BASES = {"RNNBase", "RNNCellBase"}
"""What is not made itself."""

MORE_OPTIMIZERS = [("Rprop", {}), ("ASGD", {}), ("LBFGS", {}), ("LBFGS", {"line_search_fn": "strong_wolfe"})]
MORE_OPTIMIZERS += [("Adafactor", {}), ("SparseAdam", {}), ("Muon", {})]

SCHEDULES = {
    "LambdaLR": {"lr_lambda": lambda epoch: 0.9**epoch},
    "MultiplicativeLR": {"lr_lambda": lambda epoch: 0.9},
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [2, 3]},
    "ConstantLR": {},
    "LinearLR": {},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {},
    "CosineAnnealingLR": {"T_max": 3},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.2},
    "OneCycleLR": {"max_lr": 0.2, "total_steps": 5},
    "ReduceLROnPlateau": {},
    "SWALR": {"swa_lr": 0.1},
}


def classes(module: Any, base: type) -> set[str]:
    """Names of the public classes of a module that are a ``base``."""
    return {n for n in dir(module) if inspect.isclass(v := getattr(module, n)) and issubclass(v, base) and n[0] != "_"}


def modules() -> dict[str, nn.Module]:
    losses = {
        name: getattr(nn, name) for name in sorted(classes(nn, nn.Module) - MODULES.keys()) if name.endswith("Loss")
    }
    return {name: make() for name, make in {**MODULES, **losses}.items()}


def kind(value: Any) -> str:
    """Dtype and shape of a tensor or an array, else the type, with the kinds of what is in it."""
    if isinstance(value, nn.UninitializedParameter):
        return "uninitialised"
    if isinstance(value, (kobai.Tensor, np.ndarray, np.generic)):
        return f"{'' if isinstance(value, kobai.Tensor) else 'array of '}{np.dtype(value.dtype)} {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of ({', '.join(map(kind, value))})"
    if isinstance(value, dict):
        return f"dict of ({', '.join(f'{k}: {kind(v)}' for k, v in value.items())})"
    return "None" if value is None else type(value).__name__


def module_lines() -> Iterator[str]:
    for name, module in modules().items():
        yield f"nn: {name} ({type(module).__name__})"
        parameters = dict(module.named_parameters())
        for key, value in module.state_dict().items():
            yield f"    {key}: {kind(value)}{', parameter' * (key in parameters)}"
        attributes = sorted(key for key in vars(module) if not key.startswith("_"))
        yield f"    attributes: {' '.join(attributes)}"


def optimizer_lines() -> Iterator[str]:
    for name, flags in [*((name, flags) for name, flags, _ in OPTIMIZERS), *MORE_OPTIMIZERS]:
        weight, bias = (
            kobai.ones(*shape, requires_grad=True) for shape in ((2, 3), (1, 3) if name == "Muon" else (3,))
        )
        optimizer = getattr(optim, name)([weight, bias], **flags)

        def loss(optimizer=optimizer, weight=weight, bias=bias):
            optimizer.zero_grad()
            value = (weight * weight).sum() + (bias * bias * bias).sum()
            value.backward()
            return value

        loss()
        optimizer.step(*[loss] * (name == "LBFGS"))
        yield f"optim: {name} {', '.join(f'{k}={v}' for k, v in flags.items())}".rstrip()
        state = optimizer.state_dict()
        yield f"    {', '.join(state)}"
        for group in state["param_groups"]:
            yield from (f"    group {key}: {kind(value)}" for key, value in group.items())
        for which, entries in state["state"].items():
            yield from (f"    state {which} {key}: {kind(value)}" for key, value in entries.items())


def schedule_lines() -> Iterator[str]:
    for name, options in SCHEDULES.items():
        optimizer = optim.SGD([kobai.ones(2, requires_grad=True)], lr=0.1, momentum=0.9)
        made = getattr(swa_utils if name == "SWALR" else lr_scheduler, name)(optimizer, **options)
        optimizer.step()
        made.step(*[1.0] * (name == "ReduceLROnPlateau"))
        yield f"lr_scheduler: {name}"
        yield from (f"    {key}: {kind(value)}" for key, value in made.state_dict().items())


def test_states_are_as_they_were(request):
    check(request, "states.txt", [*module_lines(), *optimizer_lines(), *schedule_lines()])


def test_every_class_is_among_them():
    there = {type(module).__name__ for module in modules().values()} | {"LazyBatchNorm1d"}
    lazy = {type(make()).__name__ for make, _, _ in LAZY.values()}
    assert classes(nn, nn.Module) - there - lazy == BASES
    named = {name for name, *_ in (*OPTIMIZERS, *MORE_OPTIMIZERS)}
    assert classes(optim, optim.Optimizer) - named == {"Optimizer"}
    composed = {"ChainedScheduler", "SequentialLR", "LRScheduler"}
    assert classes(lr_scheduler, lr_scheduler.LRScheduler) - SCHEDULES.keys() == composed
