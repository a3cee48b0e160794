"""Averages of a model's parameters over training: stochastic weight averaging and exponential moving averages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from typing import Any

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.nn.batchnorm import _NormBase
from kobai.nn.module import Module
from kobai.ops.create import tensor

Averages = Callable[[Any, Any, Any], Any]

__all__ = [
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]


def get_ema_avg_fn(decay: float = 0.999) -> Averages:
    """p̄ ← decay·p̄ + (1 − decay)·p for :class:`AveragedModel`: an exponential moving average.

    >>> import kobai
    >>> average = kobai.optim.swa_utils.get_ema_avg_fn(decay=0.75)
    >>> average(kobai.tensor(2.0), kobai.tensor(6.0), kobai.tensor(3))
    tensor(3.)
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"get_ema_avg_fn: expected decay in [0, 1], got {decay}")
    return partial(_moved, decay)


def _moved(decay: float, averaged: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
    return averaged * decay + current * (1 - decay)


def get_swa_avg_fn() -> Averages:
    """p̄ ← p̄ + (p − p̄) / (n + 1): the mean of all.

    >>> import kobai
    >>> average = kobai.optim.swa_utils.get_swa_avg_fn()
    >>> average(kobai.tensor(2.0), kobai.tensor(6.0), kobai.tensor(3))
    tensor(3.)
    """
    return _mean


def _mean(averaged: Tensor, current: Tensor, num_averaged: Any) -> Tensor:
    return averaged + (current - averaged) / (num_averaged + 1)  # type: ignore[no-any-return]


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[[Any, Any, Any], None]:
    """As :func:`get_ema_avg_fn`, for the argument ``multi_avg_fn``: all parameters at once, in place.

    >>> import kobai
    >>> averages = [kobai.tensor(2.0)]
    >>> kobai.optim.swa_utils.get_ema_multi_avg_fn(0.75)(averages, [kobai.tensor(6.0)], kobai.tensor(3))
    >>> averages
    [tensor(3.)]
    """
    return partial(_each, get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> Callable[[Any, Any, Any], None]:
    """As :func:`get_swa_avg_fn`, for the argument ``multi_avg_fn``: all parameters at once, in place.

    >>> import kobai
    >>> averages = [kobai.tensor(2.0)]
    >>> kobai.optim.swa_utils.get_swa_multi_avg_fn()(averages, [kobai.tensor(6.0)], kobai.tensor(3))
    >>> averages
    [tensor(3.)]
    """
    return partial(_each, _mean)


def _each(average: Averages, averaged: Iterable[Tensor], current: Iterable[Tensor], num_averaged: Any) -> None:
    for a, c in zip(averaged, current, strict=True):
        a.copy_(average(a, c, num_averaged))


class AveragedModel(Module):
    """A copy of a model that holds an average of its parameters.

    Args:
        model: what is averaged; the copy is ``module``, and calling this module calls it.
        device: where the copy lives; by default the model's.
        avg_fn: (average, parameter, how many are in the average) → new average; default the mean of all.
        multi_avg_fn: the same for lists, in place.
        use_buffers: average the buffers (such as running statistics) too; else :meth:`update_parameters` copies them.

    Izmailov et al., *Averaging weights leads to wider optima and better generalization*, arXiv:1803.05407.

    >>> import kobai
    >>> from kobai.optim.swa_utils import AveragedModel
    >>> model = kobai.nn.Linear(1, 1, bias=False, init="constant(1)")
    >>> averaged = AveragedModel(model)
    >>> averaged.update_parameters(model)
    >>> kobai.nn.init.constant_(model.weight, 3.0); averaged.update_parameters(model)
    Parameter containing:
    tensor([[3.]], requires_grad=True)
    >>> averaged(kobai.ones(1, 1)).item()
    2.0
    """

    n_averaged: Tensor
    module: Module

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Averages | None = None,
        multi_avg_fn: Callable[[Any, Any, Any], None] | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("AveragedModel: expected avg_fn or multi_avg_fn, got both")
        self.module = deepcopy(model)
        if device is not None:
            self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, device=device))
        self.avg_fn = avg_fn if avg_fn is not None else get_swa_avg_fn()
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model, with the averaged parameters."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Add the present parameters of ``model`` to the average."""
        ours, theirs = list(self.module.parameters()), list(model.parameters())
        if self.use_buffers:
            ours, theirs = [*ours, *self.module.buffers()], [*theirs, *model.buffers()]  # type: ignore[list-item]
        else:
            for mine, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
                mine.detach().copy_(buffer.detach())
        with no_grad():
            current = [p.detach().to(a.device) for a, p in zip(ours, theirs, strict=True)]
            if self.n_averaged.item() == 0:
                for a, c in zip(ours, current, strict=True):
                    a.copy_(c)
            elif self.multi_avg_fn is not None:
                self.multi_avg_fn([a.detach() for a in ours], current, self.n_averaged)
            else:
                for a, c in zip(ours, current, strict=True):
                    a.copy_(self.avg_fn(a.detach(), c, self.n_averaged))
            self.n_averaged += 1


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Recompute the running statistics of every batch norm in ``model`` from one pass over the data.

    ``loader`` yields inputs, or tuples that begin with them. Averaged parameters need other
    statistics than those gathered in training.

    >>> import kobai
    >>> norm = kobai.nn.BatchNorm1d(1)
    >>> kobai.optim.swa_utils.update_bn([kobai.tensor([[1.0], [3.0]]), kobai.tensor([[5.0], [7.0]])], norm)
    >>> norm.running_mean
    tensor([4.])
    """
    norms = [m for m in model.modules() if isinstance(m, _NormBase)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    training = model.training
    model.train()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # the mean of all batches
    with no_grad():
        for batch in loader:
            x = batch[0] if isinstance(batch, (list, tuple)) else batch
            model(x if device is None else x.to(device))
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    model.train(training)
