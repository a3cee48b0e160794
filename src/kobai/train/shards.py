"""Logical shards: the parts of every batch whose gradients are computed by themselves and added in one order.

A run has V shards, a power of two, on any number P of processes that divides V. Process r holds V/P neighbours of them::

    batch ── cut in V parts ──► forward, backward of each: (n_s/N) L_s, g_s ──► Σ over its V/P, a subtree  (ops/_tree_sums.py)
                                                                           ──► Σ over processes, the top  (distributed/tree.py)

Which numbers meet, and in what order, depends on V alone, so the sums have the same bits for every P. So have the noise, drawn
by each shard from a range of its own, and the buffers, which are those of shard 0, as in PyTorch's DistributedDataParallel. See
docs/design/0025-shards.md.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from kobai import distributed
from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.distributed.tree import combined
from kobai.engine import dispatch
from kobai.engine.dispatch import launch, on_host
from kobai.errors import DataError, DistError, check_integer
from kobai.nn import Module, SyncBatchNorm
from kobai.nn.data_parallel import check_alike
from kobai.ops._tree_sums import tree_into
from kobai.optim import Optimizer
from kobai.train import lockstep, rowwise
from kobai.train.metric_base import PLAIN, Metric, kind_of, measured
from kobai.train.shard_states import Noise, States, generators_of
from kobai.train.shard_sums import Sums
from kobai.xp import Array, to_host, xp_of

COMPARED = 4096
"""Numbers of a batch's target, and of the first parameter, that are compared between processes in every step."""

Forward = Callable[[list[Any], Any], tuple[Any, Tensor]]
"""Inputs and target of a shard to its output and loss."""


class Shards:
    """The shards of a run, and those among them that are this process's own.

    ``rank`` and ``size`` are this process's number and how many there are.
    """

    def __init__(self, count: int, model: Module, alone: bool = False) -> None:
        self.count, self.model = count, model
        self.rank, self.size = (0, 1) if alone else processes()
        check_count(count, self.size)
        own = count // self.size
        self.own = range(self.rank * own, (self.rank + 1) * own)
        self.noise = [Noise(generator, count) for generator in generators_of(model)]

    def alone(self) -> Shards:
        """The same shards, all of them this process's own."""
        return Shards(self.count, self.model, alone=True)

    # --- batches

    def cut(self, inputs: Sequence[Any], target: Any) -> tuple[tuple[int, ...], list[Any], Any]:
        """The samples in each of all shards, and what belongs to this process's own: one slice of each tensor.

        Of N samples the first N mod V shards have ⌈N/V⌉ and the others ⌊N/V⌋, however many processes there are.
        """
        n = _samples(target if isinstance(target, Tensor) else inputs[0])
        if n < self.count:
            raise DataError(
                f"Trainer: a batch of {n} samples cannot be cut in {self.count} shards; expected at least {self.count}, so "
                "give the loader drop_last=True or another batch size"
            )
        least, more = divmod(n, self.count)
        sizes = tuple(least + (s < more) for s in range(self.count))
        first = sum(sizes[: self.own.start])
        rows = slice(first, first + sum(sizes[self.own.start : self.own.stop]))
        return sizes, [_rows(part, rows, n) for part in inputs], _rows(target, rows, n)

    def parts(self, sizes: tuple[int, ...], inputs: Sequence[Any], target: Any) -> Iterator[tuple[int, list[Any], Any]]:
        """Number, inputs and target of each of this process's own shards."""
        start, n = 0, sum(sizes[s] for s in self.own)
        for s in self.own:
            rows = slice(start, start + sizes[s])
            yield s, [_rows(part, rows, n) for part in inputs], _rows(target, rows, n)
            start += sizes[s]

    # --- the step

    def gradients(
        self,
        optimizer: Optimizer,
        batch: tuple[tuple[int, ...], Sequence[Any], Any],
        forward: Forward,
        backward: Callable[[Tensor], None],
        summed: bool,
        apart: tuple[Callable[[list[Any]], Any], Callable[[Any, Any], Tensor]] | None = None,
    ) -> tuple[list[Any], Tensor]:
        """Set the gradients of a batch that :meth:`cut` has cut; returns the outputs of the own shards, and the loss of all.

        ``forward`` is called for each shard, and ``backward`` for its share of the loss: all of it if the loss is ``summed``
        over samples, or else its part n_s/N in the mean. ``apart`` are the two halves of ``forward``: with them a model whose
        rows do not depend on each other computes all own shards in one pass, and has the same bits (``rowwise.py``).
        """
        sizes = batch[0]
        trained = _trained(optimizer, self.model)
        if apart is not None and len(self.own) > 1 and rowwise.takes(self.model, trained, batch[1]):
            return self._at_once(trained, batch, apart, backward, summed)
        states = States(self.model, trained, self.noise, self.own)

        def computed(s: int, inputs: list[Any], target: Any) -> tuple[Any, Tensor, dict[str, Tensor]]:
            output, loss = forward(inputs, target)
            share = loss if summed else loss * (sizes[s] / sum(sizes))
            backward(share)
            leaves = {name: p.grad.detach() for name, p in trained.items() if p.grad is not None}
            for parameter in trained.values():
                parameter.grad = None
            return output, share.detach(), leaves

        works = [partial(computed, *part) for part in self.parts(*batch)]
        meet = len(works) > 1 and any(isinstance(module, SyncBatchNorm) for module in self.model.modules())
        outputs, sums = [], Sums()
        try:
            run = lockstep.run(works, states.turn, self._met) if meet else lockstep.in_turn(works, states.turn)
            for s, (output, share, leaves) in zip(self.own, run, strict=True):
                outputs.append(output)
                sums.add({**self._same_names(leaves, s, sums), "": share})
        finally:
            states.close()
        for noise in self.noise:
            on_host(noise.end)
        if self.size > 1 and (buffers := list(self.model.buffers())):
            with no_grad():
                launch(_world().share, 0, *(buffer._array for buffer in buffers))
        return outputs, self._everywhere(sums.names or [], sums.total(), trained, sizes)

    def _met(self, arrays: Sequence[Array]) -> Array:
        """The sum of what all shards have brought, whose own are ``arrays``, in memory of these."""
        total = arrays[0]
        tree_into(arrays, total)
        if self.size > 1:
            launch(_world().reduce, "sum", ", statistics of all shards", total)
        return total

    def _at_once(
        self,
        trained: dict[str, Tensor],
        batch: tuple[tuple[int, ...], Sequence[Any], Any],
        apart: tuple[Callable[[list[Any]], Any], Callable[[Any, Any], Tensor]],
        backward: Callable[[Tensor], None],
        summed: bool,
    ) -> tuple[list[Any], Tensor]:
        """:meth:`gradients` of all own shards in one pass."""
        sizes, (forward, loss_of) = batch[0], apart
        for noise in self.noise:
            on_host(noise.turn(None, self.own.start))
        for parameter in trained.values():
            parameter.grad = None
        own, sums = tuple(sizes[s] for s in self.own), Sums()

        def loss(s: int, output: Tensor, target: Any) -> None:
            share = loss_of(output, target)
            share = share if summed else share * (sizes[s] / sum(sizes))
            backward(share)
            sums.add({"": share.detach()})

        targets = ((s, target) for s, _, target in self.parts(*batch))
        outputs = rowwise.run(forward(list(batch[1])), own, targets, loss)
        for noise in self.noise:
            on_host(noise.end)
        total = {name: p.grad.detach() for name, p in trained.items() if p.grad is not None}
        return outputs, self._everywhere(list(total), {**total, **sums.total()}, trained, sizes)

    def _same_names(self, leaves: dict[str, Tensor], s: int, sums: Sums) -> dict[str, Tensor]:
        """The gradients that a shard has come to; RuntimeError unless all have those of the same parameters."""
        if sums.names is not None and sums.names != list(leaves):
            name = min(set(sums.names).symmetric_difference(leaves))
            raise RuntimeError(
                f"Trainer: expected all shards to have gradients of the same parameters, but {name!r} has one in "
                f"{'shard' if name in leaves else 'the shards before'} {s} only; such a model trains with shards=1"
            )
        sums.names = list(leaves)
        return leaves

    def _everywhere(
        self, found: list[str], total: dict[str, Tensor], trained: dict[str, Tensor], sizes: tuple[int, ...]
    ) -> Tensor:
        """Write the sums over all shards into the gradients that were found; returns that of the losses."""
        if self.size > 1:
            names = zlib.crc32(repr((found, sizes)).encode())
            what = f", gradients {names:08x} of a batch of {sum(sizes)}"
            launch(_world().reduce, "sum", what, *(tensor._array for tensor in total.values()))
        for name in found:
            trained[name].grad = total[name]
        return total[""]

    # --- metrics

    def measure(
        self, metrics: Sequence[Metric], outputs: Sequence[Any], batch: tuple[Any, ...], target: Any, at: str
    ) -> None:
        """Add what the metrics measure in every shard to them, in the order of the tree.

        DistError if other processes have seen another batch, by its whole ``target`` and the place ``at`` which it came, or
        have other parameters or random streams since, because they train otherwise.
        """
        found = [
            [measured(metric, output, target) for metric in metrics]
            for output, (_, _, target) in zip(outputs, self.parts(*batch), strict=True)
        ]
        xp = xp_of(outputs[0]._array) if isinstance(outputs[0], Tensor) else np
        numbers = [[_numbers(xp, part) for pair in row for part in pair] for row in found]
        rows = xp.stack([xp.concatenate([xp.zeros(0), *row]) for row in numbers])
        if self.size > 1:
            own, rows = rows, xp.empty((self.count, rows.shape[1]))
            streams = [(noise.generator.initial_seed(), noise.generator.counter) for noise in self.noise]
            state = fingerprint(next(self.model.parameters(), None), zlib.crc32(repr(streams).encode()))
            _world().gather(own, rows, f", {at}, target {fingerprint(target)}, state {state}")
        total, first = combined(rows, xp.add), 0
        for metric, (sums, _) in zip(metrics, found[0], strict=True):
            k = 1 if type(sums) in PLAIN else sums.size
            own = total[first : first + k + 1]
            metric.add(*(_plain(own) if isinstance(own, np.ndarray) else (own[:-1], own[-1])))
            first += k + 1


def sharded(count: int, model: Module, metrics: Sequence[Metric]) -> Shards | None:
    """The shards of a run, whose processes begin with the model and the random streams of rank 0; None for one shard.

    Raises:
        ValueError: not a power of two. DistError: it is not divided by the number of processes, or these have other models.
    """
    check_count(count)
    if count == 1:
        return None
    for metric in metrics:
        check_metric(metric)
    shards = Shards(count, model)
    if shards.size > 1:
        if _world().device is None and any(tensor.is_cuda for tensor in (*model.parameters(), *model.buffers())):
            raise DistError(
                "Trainer: expected a model on the CPU, for MPI exchanges what lies there; got one on a GPU, which needs "
                "init_process_group('nccl')"
            )
        check_alike("Trainer", model, f"{count} shards", f"NumPy {np.__version__}", f"Numba {dispatch.numba_installed}")
        with no_grad():
            launch(_world().share, 0, *(tensor._array for tensor in (*model.parameters(), *model.buffers())))
        states = _world().objects([noise.generator.get_state() for noise in shards.noise])[0]
        for noise, state in zip(shards.noise, states, strict=True):
            noise.generator.set_state(state)
    return shards


def processes() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def check_count(count: int, processes: int = 1) -> None:
    """Raise unless a run can have so many shards on so many processes."""
    check_integer("Trainer", "shards", count, 1)
    if count & (count - 1):
        raise ValueError(f"Trainer: expected a power of two as shards, got {count}")
    if count % processes:
        raise DistError(
            f"Trainer: expected a number of processes that divides the {count} shards, got {processes} processes"
        )


def _world() -> Any:
    return distributed._the_world("Trainer")


def _trained(optimizer: Optimizer, model: Module) -> dict[str, Tensor]:
    """All parameters that a step may give a gradient, by names."""
    trained: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    known = set(map(id, trained.values()))
    for g, group in enumerate(optimizer.param_groups):
        for i, p in enumerate(group["params"]):
            if id(p) not in known:
                trained[f"{g}/{i} of the optimizer"] = p
    return trained


def fingerprint(value: Any, start: int = 0) -> str:
    """A checksum of the first numbers of a tensor, or of the first of several, to be compared between processes."""
    while isinstance(value, (dict, list, tuple)) and value:
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    if not isinstance(value, Tensor):
        return f"{start:08x}"
    return f"{zlib.crc32(to_host(value.array).reshape(-1)[:COMPARED].tobytes(), start):08x}"


def _samples(value: Any) -> int:
    if not isinstance(value, Tensor) or not value.ndim:
        raise TypeError(
            f"Trainer: expected batches of tensors (N, ...), which can be cut in shards, got {kind_of(value)}"
        )
    return len(value)


def _rows(part: Any, rows: slice, n: int) -> Any:
    """Rows of a part of a batch, which may be nested."""
    if isinstance(part, dict):
        return {key: _rows(value, rows, n) for key, value in part.items()}
    if isinstance(part, (list, tuple)):
        return type(part)(_rows(value, rows, n) for value in part)
    if _samples(part) != n:
        raise TypeError(
            f"Trainer: expected all tensors of a batch to have its {n} samples, to be cut in shards, got one of shape "
            f"{tuple(part.shape)}"
        )
    return part[rows]


# --- metrics ----------------------------------------------------------------------------------------------------------


def check_metric(metric: Metric) -> None:
    """TypeError for a metric that more than sums make up, which cannot be added over shards."""
    for name in ("update", "compute", "add"):
        if getattr(type(metric), name) is not getattr(Metric, name):
            raise TypeError(
                f"Trainer: expected metrics that define measure(), and mean() if need be, to be added over shards; "
                f"{type(metric).__name__} has its own {name}()"
            )


def _numbers(xp: Any, part: Any) -> Array:
    """A sum, several sums or a count, as float64 (k,)."""
    return xp.asarray(part, dtype=np.float64).reshape(-1)


def _plain(numbers: Array) -> tuple[Any, float]:
    """The sums and the count of a metric, as a batch on the host gives them."""
    *sums, count = numbers.tolist()
    return (sums[0] if len(sums) == 1 else numbers[:-1].copy()), count
