"""Sizes that are not known before the graph runs: what several runs of a model with other sizes have in common.

A run sees numbers, not where they come from. So a model with dynamic axes is run several times, each with other sizes of
these axes, and what differs between the runs must be a function of them::

    batch    3       4       6              reshape(x, (3, 8))   (4, 8)   (6, 8)      ──►   (batch, 8)
                                            expand(h, (12, 5))  (16, 5)  (24, 5)      ──►   (4·batch, 5)

A size is an integer, or a·(product of some axes) + b, which the first two runs determine and all of them confirm; another is
:class:`Unknown`, and an error where the graph needs it. So no size of the examples can stay in a graph unnoticed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from kobai.onnx.arrays import Call, Value
from kobai.onnx.errors import OnnxExporterError


@dataclass(frozen=True)
class Size:
    """factor · ∏ axes + offset."""

    axes: tuple[str, ...]
    factor: int
    offset: int

    def __str__(self) -> str:
        return "*".join(self.axes) if (self.factor, self.offset) == (1, 0) else ""


class Unknown:
    """A number that differs between the runs in a way that is no :class:`Size`."""

    def __init__(self, seen: Sequence[Any]) -> None:
        self.seen = tuple(seen)

    def __repr__(self) -> str:
        return " or ".join(map(str, self.seen))


Envs = Sequence[dict[str, int]]
"""The sizes of the dynamic axes in each run."""


def fitted(seen: Sequence[int], envs: Envs) -> Any:
    """The integers of all runs as one: an integer, a Size, or Unknown."""
    if len(set(seen)) == 1:
        return seen[0]
    names = list(envs[0])
    for count in range(1, len(names) + 1):
        for axes in combinations(names, count):
            products = [math.prod(env[a] for a in axes) for env in envs]
            i = next((i for i, p in enumerate(products) if p != products[0]), None)
            if i is None:
                continue
            factor, rest = divmod(seen[i] - seen[0], products[i] - products[0])
            offset = seen[0] - factor * products[0]
            if not rest and all(factor * p + offset == n for p, n in zip(products, seen, strict=True)):
                return Size(axes, factor, offset)
    return Unknown(seen)


@dataclass(eq=False)
class Filled(Value):
    """A constant with one value in every place: its shape may depend on sizes."""

    fill: Any = 0


@dataclass(eq=False)
class Counted(Value):
    """start, start + step, …: as many as a size says."""

    start: Any = 0
    step: Any = 1


class Merger:
    """Several runs as one: their calls, with sizes in the place of numbers."""

    def __init__(self, envs: Envs) -> None:
        self.envs = envs
        self._made: dict[int, Value] = {}

    def calls(self, runs: Sequence[list[Call]]) -> list[Call]:
        """The calls of all runs as one list."""
        keys = [[call.key for call in run] for run in runs]
        for i, key in enumerate(keys[0]):
            if any(len(other) <= i or other[i] != key for other in keys):
                raise self._differs(f"the calls from {runs[0][i].layer or 'the model'} on")
        if any(len(other) != len(keys[0]) for other in keys):
            raise self._differs("the number of calls")
        return [self._call(same) for same in zip(*runs, strict=True)]

    def _differs(self, what: str) -> OnnxExporterError:
        sizes = " and ".join(str(env) for env in self.envs[:2])
        return OnnxExporterError(
            f"onnx.export: {what} differ between sizes {sizes} of the dynamic axes, so that no graph serves both; leave such "
            "axes out of dynamic_axes"
        )

    def _call(self, same: tuple[Call, ...]) -> Call:
        first = same[0]
        args = tuple(self.merged(parts) for parts in zip(*(call.args for call in same), strict=True))
        options = {name: self.merged([call.options[name] for call in same]) for name in first.options}
        return Call(first.key, args, options, self.value([call.result for call in same]), first.layer)

    def merged(self, same: Sequence[Any]) -> Any:
        """An argument, as it was in each run."""
        first = same[0]
        if isinstance(first, Value):
            return self.value(same)
        if isinstance(first, tuple):
            if any(len(other) != len(first) for other in same):
                raise self._differs("numbers of arguments")
            parts = [self.merged(parts) for parts in zip(*same, strict=True)]
            return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
        if isinstance(first, slice):
            return slice(*(self.merged([getattr(s, part) for s in same]) for part in ("start", "stop", "step")))
        if all(type(n) is int or isinstance(n, np.integer) for n in same):
            return fitted([int(n) for n in same], self.envs)
        equal = all(type(other) is type(first) and (other == first or other != other) for other in same)
        return first if equal else Unknown(same)

    def value(self, same: Sequence[Value]) -> Value:
        """A tensor, as it was in each run."""
        first = same[0]
        made = self._made.get(id(first))
        if made is None:
            made = self._made[id(first)] = self._merged_value(same)
        return made

    def _merged_value(self, same: Sequence[Value]) -> Value:
        first = same[0]
        if any(v.kind != first.kind or v.name != first.name or v.dtype != first.dtype for v in same):
            raise self._differs("tensors")
        if any(len(v.shape) != len(first.shape) for v in same):
            raise self._differs("numbers of dimensions")
        shape = tuple(fitted(sizes, self.envs) for sizes in zip(*(v.shape for v in same), strict=True))
        arrays = [v.array for v in same]
        if first.kind in ("input", "state"):
            return Value(shape, first.dtype, first.kind, first.name, first.array, first.varies)
        if all(a is not None for a in arrays) and all(_equal(a, arrays[0]) for a in arrays):
            return Value(shape, first.dtype, "constant", array=arrays[0])
        if first.kind == "call":
            return Value(shape, first.dtype, "call", varies=first.varies)
        return self._pattern(shape, first.dtype, arrays)

    def _pattern(self, shape: Any, dtype: Any, arrays: Sequence[Any]) -> Value:
        """Constants of other sizes in each run, if they follow a rule."""
        if not shape and dtype.kind in "iu":
            n = fitted([int(a) for a in arrays], self.envs)
            return Counted((), dtype, "sized", start=n)
        fills = {a.flat[0].item() if a.size and (a == a.flat[0]).all() else None for a in arrays}
        if len(fills) == 1 and None not in fills:
            return Filled(shape, dtype, "sized", fill=fills.pop())
        if len(shape) == 1 and all(a.size > 1 and np.ptp(np.diff(a)) == 0 for a in arrays):
            starts, steps = {a[0].item() for a in arrays}, {(a[1] - a[0]).item() for a in arrays}
            if len(starts) == len(steps) == 1:
                return Counted(shape, dtype, "sized", start=starts.pop(), step=steps.pop())
        return Value(shape, dtype, "unknown")


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
