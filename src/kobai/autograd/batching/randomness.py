"""Random numbers inside ``vmap``: an error, different ones for every sample, or the same for all.

Random functions ask :func:`kobai.random.resolve` for their generator. Inside ``vmap`` they get one that draws for all samples,
from the same streams: on the host one sample after the other, of the counter stream so many blocks for each.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from kobai import random
from kobai.autograd.batching.arrays import Batched, kind_of
from kobai.autograd.batching.border import Level, kind_at, levels, shared
from kobai.core.tensor import Tensor
from kobai.ops.dropout.philox import PER_BLOCK, blocks_for, philox_bits
from kobai.random import Generator


class OfSamples(Generator):
    """A generator, as it is used inside ``vmap``."""

    def __init__(self, generator: Generator, levels: list[Level]) -> None:
        self._generator, self._levels = generator, levels

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    @property
    def counter(self) -> int:
        """That of the generator."""
        return self._generator.counter

    @counter.setter
    def counter(self, value: int) -> None:
        self._generator.counter = value

    key = property(lambda self: self._generator.key)

    @property
    def numpy(self) -> Any:
        """The host stream: what it draws are arrays of samples."""
        return _Stream(self._generator.numpy, self._levels)

    def take_blocks(self, n: int) -> int:
        """So many blocks for every sample."""
        return self._generator.take_blocks(n * math.prod(_different(self._levels)))


def _different(stack: list[Level]) -> list[int]:
    """The numbers of samples on the levels where every one draws its own numbers."""
    return [level.samples for level in stack if level.randomness == "different"]


class _Stream:
    def __init__(self, stream: Any, stack: list[Level]) -> None:
        self._stream, self._stack = stream, stack

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stream, name)

        def draw(*args: Any, **options: Any) -> Any:
            if any(isinstance(value, Batched) and value.batched for value in (*args, *options.values())):
                return self._of_parameters(method, args, options)
            counts = _different(self._stack)
            every = [method(*args, **options) for _ in itertools.product(*map(range, counts))]
            if not counts:
                return every[0]
            made = np.stack(every) if every else np.zeros((0, *np.shape(method(*args, **options))))
            return as_samples(made.reshape(*counts, *made.shape[1:]), self._stack)

        return draw

    def _of_parameters(self, method: Any, args: Any, options: Any) -> Any:
        """Where every sample has parameters of its own."""
        if len(self._stack) > 1 or self._stack[0].randomness == "same":
            raise RuntimeError("vmap: parameters that differ between samples need randomness='different', and one vmap")
        count = self._stack[0].samples

        def of(value: Any, b: int) -> Any:
            return value.inner[b] if isinstance(value, Batched) and value.batched else value

        every = [method(*(of(v, b) for v in args), **{k: of(v, b) for k, v in options.items()}) for b in range(count)]
        return as_samples(np.stack(every), self._stack)


def as_samples(drawn: Any, stack: list[Level]) -> Any:
    """Numbers with an axis for every level of different ones, the outermost first, as arrays of samples."""
    for level in stack:
        kind = kind_of(type(drawn), level.samples, drawn)
        drawn = kind(drawn, level.randomness == "different")
    return drawn


def bits(n: int, start: Any, like: Batched) -> Any:
    """See :func:`kobai.ops.dropout.philox.philox_bits`."""
    counts, blocks = _different(levels.stack), blocks_for(n)
    inner: Any = like
    while isinstance(inner, Batched):
        inner = inner.inner
    drawn = philox_bits(math.prod(counts) * blocks * PER_BLOCK, start, inner)
    return as_samples(drawn.reshape(*counts, blocks * PER_BLOCK)[..., :n], levels.stack)


def generator_within(generator: Generator) -> Generator:
    """What random functions draw from, for this generator."""
    stack = levels.stack
    if not stack:
        return generator
    if any(level.randomness == "error" for level in stack):
        raise RuntimeError(
            "vmap: a random function was called; pass randomness='different' for other numbers in every sample, or 'same'"
        )
    return OfSamples(generator, list(stack))


def tensor_within(tensor: Tensor) -> Tensor:
    """A tensor of which a part is drawn by chance: inside ``vmap``, so that there are draws for every sample."""
    return shared(tensor, kind_at(tensor._array, len(levels.stack))) if levels.stack else tensor


random.within = generator_within
random.tensor_within = tensor_within
Batched.bits = bits  # type: ignore[attr-defined]
