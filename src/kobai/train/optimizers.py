"""Optimisers and schedules by name, as the settings of a run give them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kobai import optim
from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.optim import Optimizer, lr_scheduler
from kobai.optim.lr_scheduler import LRScheduler

# name: (class, default learning rate: PyTorch's, except for SGD, whose 0.001 hardly moves)
OPTIMIZERS: dict[str, tuple[type[Optimizer], float]] = {
    "sgd": (optim.SGD, 0.1),
    "adam": (optim.Adam, 1e-3),
    "adamw": (optim.AdamW, 1e-3),
    "adagrad": (optim.Adagrad, 1e-2),
    "rmsprop": (optim.RMSprop, 1e-3),
    "adadelta": (optim.Adadelta, 1.0),
    "adamax": (optim.Adamax, 2e-3),
    "nadam": (optim.NAdam, 2e-3),
    "radam": (optim.RAdam, 1e-3),
}

WITH_MOMENTUM = ("sgd", "rmsprop")

SCHEDULES = ("none", "cosine", "step", "exponential", "onecycle", "plateau")

PLANNED_TO_THE_END = ("cosine", "step", "exponential", "onecycle")
"""Schedules over the whole run: with another number of epochs they are other schedules."""


def optimizer(
    name: str, params: Iterable[Tensor], lr: float | None = None, weight_decay: float = 0.0, momentum: float = 0.0
) -> Optimizer:
    """The optimiser called ``name``; ``lr=None`` takes its usual rate, ``momentum`` is for those of WITH_MOMENTUM.

    >>> import kobai
    >>> optimizer("sgd", [kobai.zeros(1, requires_grad=True)], momentum=0.9).param_groups[0]["lr"]
    0.1
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer: unknown optimizer {name!r}.{nearest(name, OPTIMIZERS)}")
    kind, usual = OPTIMIZERS[name]
    options: dict[str, Any] = {"lr": usual if lr is None else lr, "weight_decay": weight_decay}
    if momentum:
        if name not in WITH_MOMENTUM:
            raise ValueError(f"optimizer: {name} has no momentum to set; {' and '.join(WITH_MOMENTUM)} have")
        options["momentum"] = momentum
    return kind(params, **options)


def schedule(name: str, optimizer: Optimizer, epochs: int, batches: int) -> LRScheduler | None:
    """The schedule called ``name`` for a run of ``epochs`` epochs of ``batches`` batches; None for ``"none"``.

    ``cosine`` falls to 0 along half a wave; ``step`` divides by 10 after each third of the run; ``exponential`` falls evenly
    to 1 %; ``onecycle`` rises to the given rate and falls to almost nothing, batch by batch; ``plateau`` halves when the
    validation loss has not improved for 3 epochs.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule: unknown schedule {name!r}.{nearest(name, SCHEDULES)}")
    if name == "none" or epochs == 0:
        return None
    if name == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    if name == "step":
        return lr_scheduler.StepLR(optimizer, step_size=max(1, -(-epochs // 3)), gamma=0.1)
    if name == "exponential":
        return lr_scheduler.ExponentialLR(optimizer, gamma=0.01 ** (1 / epochs))
    if name == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    peak = optimizer.param_groups[0]["lr"]
    # Cycle the rate only: not every optimiser has a momentum.
    return lr_scheduler.OneCycleLR(optimizer, max_lr=peak, total_steps=epochs * batches, cycle_momentum=False)
