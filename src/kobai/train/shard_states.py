"""What belongs to one shard of a step alone: its noise, its buffers and its gradients, while it has its turn.

Every shard begins with the buffers of the step before, and those that shard 0 leaves hold for all: DistributedDataParallel's
rule. It is right for any buffer – a mean of unit vectors would be no unit vector – and does not depend on how many processes
there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kobai.core.grad_mode import no_grad
from kobai.core.tensor import Tensor
from kobai.engine.dispatch import Count, on_host
from kobai.nn import Module
from kobai.random import Generator, Parts, default_generator
from kobai.runtime import get_float32_matmul_precision, set_float32_matmul_precision

RANGE = 1 << 30
"""Blocks of the counter stream, of eight numbers each, that one shard may draw in one step."""


class States:
    """The states of a process's ``own`` shards: the first works with the model's buffers, the others with copies."""

    def __init__(self, model: Module, trained: dict[str, Tensor], noise: Sequence[Noise], own: Sequence[int]) -> None:
        self._trained, self._noise, self._own = list(trained.values()), noise, own
        self._places = [
            (module._buffers, name)
            for module in model.modules()
            for name, b in module._buffers.items()
            if b is not None
        ]
        buffers = self._buffers()
        self._now: int | None = None
        self._kept: dict[int, tuple[list[Any], list[Tensor | None], str]] = {}
        with no_grad():
            for s in own:
                each = {id(b): b if s == own[0] else b.clone() for b in buffers}  # one may stand in two places
                none: list[Tensor | None] = [None] * len(self._trained)
                self._kept[s] = [each[id(b)] for b in buffers], none, get_float32_matmul_precision()

    def turn(self, i: int) -> None:
        """From now on the i-th of the own shards computes, where it left off if it has had a turn before."""
        if (s := self._own[i]) == self._now:
            return
        for noise in self._noise:
            on_host(noise.turn(self._now, s))
        self._put(s)

    def close(self) -> None:
        """After all turns."""
        self._put(self._own[0])

    def _put(self, s: int) -> None:
        if self._now is not None:
            gradients = [p.grad for p in self._trained]
            self._kept[self._now] = self._buffers(), gradients, get_float32_matmul_precision()
        buffers, gradients, precision = self._kept[s]
        for (holder, name), buffer in zip(self._places, buffers, strict=True):
            holder[name] = buffer
        for parameter, gradient in zip(self._trained, gradients, strict=True):
            parameter.grad = gradient
        if precision != get_float32_matmul_precision():  # which a forward pass may have left in the middle of a block
            set_float32_matmul_precision(precision)
        self._now = s

    def _buffers(self) -> list[Any]:
        return [holder[name] for holder, name in self._places]


def generators_of(model: Module) -> list[Generator]:
    """All that the model may draw from: the default generator, and those in its modules."""
    found = [default_generator]
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Generator) and all(value is not known for known in found):
                found.append(value)
    return found


class Noise:
    """The ranges of one generator: in a step that begins at block c, shard s draws from c + s · RANGE on."""

    def __init__(self, generator: Generator, count: int) -> None:
        self.generator, self.count, self.first = generator, count, 0
        self.parts = Parts(count)
        self.left: dict[int, tuple[int, Any]] = {}  # where shards stopped that have had a turn
        self.end = _Turn(self, None, count)

    def turn(self, before: int | None, s: int) -> _Turn:
        """What is to be done where shard ``s`` goes on after the turn of ``before``; that of none begins the step."""
        return _Turn(self, before, s)


class _Turn(Count):
    """Set the generator to where a shard draws; after the last, to where the next step begins."""

    __slots__ = ("before", "noise", "shard")

    def __init__(self, noise: Noise, before: int | None, shard: int) -> None:
        self.noise, self.before, self.shard = noise, before, shard

    def __call__(self) -> None:
        noise, generator, parts = self.noise, self.noise.generator, self.noise.parts
        if self.before is not None:
            noise.left[self.before] = generator.counter, parts.place()
        elif self.shard < noise.count:
            noise.first = generator.counter
            noise.left.clear()
        if self.shard == noise.count:
            generator.counter = noise.first + self.shard * RANGE
            parts.end(generator)
            return
        generator.counter, place = noise.left.get(self.shard, (noise.first + self.shard * RANGE, (self.shard, None)))
        generator._parts = parts
        parts.begin(*place)

    def save(self) -> Any:
        return self.noise.first, self.noise.generator.counter, self.noise.generator._parts

    def restore(self, saved: Any) -> None:
        self.noise.first, self.noise.generator.counter, self.noise.generator._parts = saved
