"""Warm-up: compile beforehand what a model's training compiles, on copies, so that nothing else changes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kobai.core.tensor import Tensor
from kobai.engine import notices
from kobai.nn import Module, functional as F
from kobai.optim import Optimizer
from kobai.random import default_generator
from kobai.train.callbacks import Callback
from kobai.train.metric_base import Metric
from kobai.train.trainer import Trainer

STEPS = 3
"""The first step creates the optimizer's state, the second is recorded, the third replays it."""


@dataclass
class Warmed:
    """The result of :func:`warmup`: compiled kernels with their seconds, and the seconds of all.

    >>> Warmed({"softmax.forward": 0.4}, 0.9)
    Warmed(kernels={'softmax.forward': 0.4}, seconds=0.9)
    """

    kernels: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def warmup(
    model: Module,
    optimizer: Optimizer,
    batches: Iterable[Any],
    loss_fn: Callable[[Any, Any], Tensor] = F.cross_entropy,
    *,
    metrics: Iterable[str | Metric] = (),
    callbacks: Iterable[Callback] = (),
    clip_grad_norm: float | None = None,
    precision: str = "fp32",
    capture: bool = True,
    shards: int = 1,
    listener: notices.Listener | None = None,
) -> Warmed:
    """Compile all that training ``model`` will need: forward, loss, backward, clipping, update, dropout, evaluation.

    It does a few steps and an evaluation on copies: model, optimizer and random numbers stay as they are. Compiled kernels are
    kept on disk, so that once per machine is enough (``kobai warmup``); on a GPU the plans of the products, which depend on
    the batch's shape, last as long as the process.

    Args:
        batches: batches ``(input, ..., target)`` of the shapes and dtypes of training; their values do not matter.
        loss_fn, metrics, clip_grad_norm, precision, capture, shards: as for :class:`Trainer`.
        callbacks: those of the training that compute something, such as a :class:`kobai.lab.Doctor`. Pass new objects: they
            see these steps like those of training.
        listener: called with the name of each kernel and None when its compilation begins, with its seconds when it ends.

    >>> import kobai
    >>> model = kobai.nn.Linear(3, 2)
    >>> optimizer = kobai.optim.Adam(model.parameters())
    >>> before = model.weight.clone()
    >>> warmed = warmup(model, optimizer, [(kobai.zeros(8, 3), kobai.zeros(8, dtype=kobai.int64))])
    >>> warmed.seconds > 0, kobai.equal(model.weight, before)
    (True, True)
    """
    found = Warmed()

    def heard(kernel: str, seconds: float | None) -> None:
        if seconds is not None:
            found.kernels[kernel] = found.kernels.get(kernel, 0.0) + seconds
        if listener is not None:
            listener(kernel, seconds)

    start = time.perf_counter()
    random = default_generator.get_state()
    with notices.listening(heard):
        model, optimizer = copy.deepcopy((model, optimizer))
        trainer = Trainer(
            model,
            optimizer,
            loss_fn,
            metrics=metrics,
            callbacks=callbacks,
            clip_grad_norm=clip_grad_norm,
            precision=precision,
            capture=capture,
            shards=shards,
            terminate_on_non_finite=False,
            progress=False,
        )
        seen = list(batches)
        try:
            trainer.fit([batch for batch in seen for _ in range(STEPS)], seen, epochs=1)
        finally:
            default_generator.set_state(random)
    found.seconds = time.perf_counter() - start
    return found
