"""``DistributedDataParallel``: gradients are averaged over all processes; and batch normalisation over all their samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kobai import distributed, ops
from kobai.autograd import Function
from kobai.compat.versions import VERSION
from kobai.core.grad_mode import is_grad_enabled, no_grad
from kobai.core.tensor import Tensor
from kobai.dtypes import float64
from kobai.engine.dispatch import launch
from kobai.errors import DistError
from kobai.nn.module import Module

__all__ = ["DistributedDataParallel"]


class DistributedDataParallel(Module):
    """``module``, trained by all processes of :mod:`kobai.distributed`, each on its share of a batch.

    Parameters and buffers begin as those of rank 0. When backward has reached every parameter, their gradients become the mean
    over the processes,

        g = (1/P) Σᵣ gᵣ,

    summed in one order (:mod:`kobai.distributed.tree`): P equal shares of a batch give the gradient of the whole batch, and
    the same bits in every process and every run. In a captured step the sum is part of the program. As in PyTorch the module is
    the attribute ``module``, and keys of the ``state_dict`` begin with ``module.``.

    Args:
        module: the same in all processes, but for its numbers.
        broadcast_buffers: give the buffers of rank 0, such as running statistics, to all processes before each forward pass in
            training mode.
        find_unused_parameters: take a parameter that the loss does not depend on for one whose gradient is 0. Else the next
            forward pass raises, and names it. Which are unused is only known when backward has ended, so the gradients are then
            averaged by :meth:`reduce_gradients`, which the program must call after backward.

    Raises:
        ValueError: no process group. DistError: the processes have different models.
    """

    module: Module

    def __init__(self, module: Module, broadcast_buffers: bool = True, find_unused_parameters: bool = False) -> None:
        super().__init__()
        self.module, self.broadcast_buffers, self.find_unused_parameters = (
            module,
            broadcast_buffers,
            find_unused_parameters,
        )
        self._averaging = True
        self._trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._reached: set[str] = set()
        if not self._trained:
            raise RuntimeError("DistributedDataParallel: the module has no parameter that requires a gradient")
        check_alike("DistributedDataParallel", module)
        for tensor in (*module.parameters(), *module.buffers()):
            with no_grad():
                distributed.broadcast(tensor, 0)
        for name, parameter in self._trained.items():
            parameter.register_post_accumulate_grad_hook(self._reach(name))

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """``module(*inputs, **kwargs)``."""
        if self._averaging and self._reached:
            unused = [name for name in self._trained if name not in self._reached]
            more = f" and {len(unused) - 4} more" if len(unused) > 4 else ""
            raise RuntimeError(
                f"DistributedDataParallel: the last backward pass gave no gradient to {', '.join(unused[:4])}{more}, so that "
                "the gradients were not averaged. If that is meant, pass find_unused_parameters=True and call "
                "model.reduce_gradients() after backward()"
            )
        if self.broadcast_buffers and self.training and is_grad_enabled():
            with no_grad():
                for buffer in self.module.buffers():
                    distributed.broadcast(buffer, 0)
        return self.module(*inputs, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Block in which gradients are only added up; the first backward pass after it averages the sums."""
        before, self._averaging = self._averaging, False
        try:
            yield
        finally:
            self._averaging = before
            self._reached.clear()

    def reduce_gradients(self) -> None:
        """Average the gradients over the processes; a parameter without one has a gradient of 0."""
        with no_grad():
            for parameter in self._trained.values():
                if parameter.grad is None:
                    parameter.grad = ops.zeros_like(parameter)
            self._average()

    def _reach(self, name: str) -> Any:
        def reached(parameter: Tensor) -> None:
            if not self._averaging or self.find_unused_parameters:
                return
            self._reached.add(name)
            if len(self._reached) == len(self._trained):
                self._average()

        return reached

    def _average(self) -> None:
        """All gradients in one launch, where they are."""
        self._reached.clear()
        gradients = [p.grad for p in self._trained.values() if p.grad is not None]
        with no_grad():
            launch(distributed._the_world("DistributedDataParallel").reduce, "avg", "", *(g._array for g in gradients))
            for gradient in gradients:
                gradient._bump()


def check_alike(who: str, module: Module, *others: Any) -> None:
    """DistError unless all processes have the same names, shapes and dtypes, the same Kobai, and the same ``others``."""
    mine = [VERSION, *others, *((name, tuple(t.shape), str(t.dtype)) for name, t in module.state_dict().items())]
    every: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(every, mine)
    for rank, other in enumerate(every):
        if other != every[0]:
            pairs = zip(every[0], other, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(every[0]), len(other)))
            first, second = (entries[at] if at < len(entries) else "nothing more" for entries in (every[0], other))
            raise DistError(
                f"{who}: expected the same model and versions in all processes; rank 0 has {first}, rank {rank} {second}"
            )


class _Summed(Function):
    """The sum over all shares of a batch, y = Σᵣ xᵣ; the gradient of every xᵣ is the sum of all shares' gradients of y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _total(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _total(gradient)


shards_met: ContextVar[Callable[[Tensor], Tensor] | None] = ContextVar("shards_met", default=None)
"""Within a step whose batch is in shards, several to a process: what adds a tensor of this shard to those of all others."""


def in_shares() -> bool:
    """Whether a batch's statistics are more than those of what a layer is given."""
    return shards_met.get() is not None or (distributed.is_initialized() and distributed.get_world_size() > 1)


def _total(x: Tensor) -> Tensor:
    total: Tensor = x.contiguous().clone()
    if (met := shards_met.get()) is not None:
        return met(total)
    distributed.all_reduce(total)
    return total


def batch_norm(layer: Any, x: Tensor, momentum: Any) -> Tensor:
    """What ``layer``, a SyncBatchNorm, makes of the share ``x``, (N, C, ...), of the batch that this process or shard has.

    With n values per channel in all shares::

        μ = (1/n) Σ x,   σ² = (1/n) Σ (x − μ)²,   y = (x − μ) / √(σ² + ε) · weight + bias
    """
    axes, channels = [i for i in range(x.ndim) if i != 1], [1, -1] + [1] * (x.ndim - 2)
    own = x.double() if x.dtype == float64 else x.float()
    count = own.new_full((1,), x.numel() / x.shape[1])
    sums, count = _Summed.apply(ops.cat([own.sum(axes), count])).split([x.shape[1], 1])
    mean = sums / count
    apart = own - mean.reshape(channels)
    variance = _Summed.apply((apart * apart).sum(axes)) / count
    if layer.running_mean is not None:
        with no_grad():
            for statistic, value in ((layer.running_mean, mean), (layer.running_var, variance * count / (count - 1))):
                statistic.copy_(statistic + momentum * (value.to(statistic.dtype) - statistic))
    y: Tensor = apart * (variance + layer.eps).rsqrt().reshape(channels)
    if layer.weight is not None:
        y = y * layer.weight.reshape(channels)
    if layer.bias is not None:
        y = y + layer.bias.reshape(channels)
    y = y.to(x.dtype)
    if layer.activation is not None:
        y = getattr(ops, layer.activation)(y)
    return y
