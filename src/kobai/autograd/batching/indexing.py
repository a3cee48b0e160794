"""Reading and writing at indices, for arrays of samples.

NumPy's advanced indexing does it: where an index differs between samples, the number of the sample is an index of its own in
front, x[b, i_b]. Advanced indices that stand side by side leave their dimensions where they stood, others move them to the
front; the axis of samples must end in front, and theirs where one sample has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.autograd.batching.arrays import (
    Batched,
    NoRule,
    aligned,
    inner_of,
    is_batched,
    need_room,
    spread,
)
from kobai.autograd.batching.namespace import RULES, Namespace, behind, rule


class Key:
    """An index with arrays, of one sample, as indices of the inner arrays."""

    def __init__(self, ns: Namespace, x: Any, parts: tuple[Any, ...]) -> None:
        kind = ns.kind
        self.kind, self.parts = kind, [ns.array_of(part) if _is_array(part) else part for part in parts]
        given = [part for part in self.parts if type(part) is kind]
        self.batched = any(part.batched for part in given)
        """Whether other places are chosen in every sample."""
        if any(part.batched and part.dtype.kind == "b" for part in given):
            raise NoRule(
                "vmap: a mask that differs between samples chooses another number of elements in each; use where()"
            )
        self.rank = max(1 if part.dtype.kind == "b" else part.ndim for part in given)
        """The number of dimensions that the arrays have together."""
        chosen = [i for i, part in enumerate(self.parts) if type(part) is kind or type(part) is int]
        self.apart = chosen != list(range(chosen[0], chosen[-1] + 1))
        left = x.ndim - sum(
            map(_uses, self.parts)
        )  # dimensions that no entry names: those of the Ellipsis, or the last
        kept = [left if part is Ellipsis else type(part) is slice or part is None for part in self.parts]
        self.rest = sum(kept) + (0 if any(part is Ellipsis for part in self.parts) else left)
        """The number of the result's other dimensions."""
        self.front = 0 if self.apart else sum(kept[: chosen[0]])
        """How many of these stand before the dimensions of the arrays."""

    def plain(self) -> tuple[Any, ...]:
        """The index where it is the same for all samples."""
        return tuple(inner_of(part, self.kind) for part in self.parts)

    def with_samples(self) -> tuple[Any, ...]:
        """The index of arrays whose first axis is that of the samples; gives (samples, chosen, the rest)."""
        kind = self.kind
        numbers = kind.library.arange(kind.samples).reshape((kind.samples,) + (1,) * self.rank)
        return (numbers, *(aligned(part, self.rank, kind) for part in self.parts))

    def values(self, value: Any) -> Any:
        """What is written there: in the same order of dimensions."""
        batched = is_batched(value, self.kind)
        inner = aligned(value, self.rank + self.rest, self.kind)
        if not self.front or getattr(value, "ndim", 0) == 0:
            return inner
        inner = inner[(None,) * (self.rank + self.rest + batched - inner.ndim)]
        start, stop = batched + self.front, batched + self.front + self.rank
        return self.kind.library.moveaxis(inner, range(start, stop), range(batched, batched + self.rank))


def _uses(part: Any) -> int:
    """How many dimensions of the array an entry of an index takes up."""
    if part is None or part is Ellipsis:
        return 0
    return int(part.ndim) if hasattr(part, "dtype") and part.dtype.kind == "b" else 1


def _parts(index: Any) -> tuple[Any, ...]:
    parts = index if type(index) is tuple else (index,)
    return tuple(int(part) if isinstance(part, np.integer) else part for part in parts)


def _is_array(part: Any) -> bool:
    return isinstance(part, (list, bool)) or hasattr(part, "dtype")


@rule
def getitem(ns: Namespace, x: Any, index: Any) -> Any:
    kind, parts = ns.kind, _parts(index)
    if not any(map(_is_array, parts)):
        return ns.of(x.inner[(slice(None), *parts) if x.batched else parts], x.batched)
    if not x.batched and not any(is_batched(part, kind) for part in parts):
        return ns.of(x.inner[tuple(inner_of(part, kind) for part in parts)], False)
    key = Key(ns, x, parts)
    if key.batched:
        found = spread(x, kind)[key.with_samples()]  # (samples, chosen, the rest)
        places = range(1, 1 + key.rank), range(1 + key.front, 1 + key.front + key.rank)
        return ns.of(ns.library.moveaxis(found, *places) if key.front else found, True)
    found = x.inner[(slice(None), *key.plain())]
    return ns.of(ns.library.moveaxis(found, key.rank, 0) if key.apart else found, True)


@rule
def setitem(ns: Namespace, x: Any, index: Any, value: Any) -> None:
    write_at(_store, ns, x, index, value)


def _store(x: Any, index: Any, value: Any) -> None:
    x[index] = value


def write_at(write: Callable[..., Any], ns: Namespace, x: Any, index: Any, value: Any) -> None:
    """``write(x, index, value)``, which changes x[index] by values that broadcast to it."""
    kind, parts = ns.kind, _parts(index)
    differs = any(is_batched(part, kind) for part in parts)
    if not x.batched and not differs and not is_batched(value, kind):
        write(x.inner, tuple(inner_of(part, kind) for part in parts), inner_of(value, kind))
        return
    need_room(x)
    if len(parts) == 1 and differs and parts[0].dtype.kind == "b" and not getattr(value, "ndim", 0):
        _write_where(write, kind, x, parts[0], value)
    elif not any(map(_is_array, parts)):
        place = x.inner[(slice(None), *parts)]
        write(place, ..., aligned(value, place.ndim - 1, kind))
    else:
        key = Key(ns, x, parts)
        write(x.inner, key.with_samples(), key.values(value))


def _write_where(write: Callable[..., Any], kind: type[Batched], x: Any, mask: Any, value: Any) -> None:
    """One number for the elements under a mask that differs between samples."""
    if is_batched(value, kind):
        value = kind.library.broadcast_to(aligned(value, mask.ndim, kind), mask.inner.shape)[mask.inner]
        if x.ndim > mask.ndim:
            value = value[(..., *(None,) * (x.ndim - mask.ndim))]
    write(x.inner, mask.inner, inner_of(value, kind))


RULES["at"] = lambda ns, function, x, index, *values: write_at(
    lambda place, key, value: function(place, key, *([] if value is None else [value])),
    ns,
    x,
    index,
    *(values or (None,)),
)


@rule
def take(ns: Namespace, a: Any, indices: Any, axis: Any = None, **options: Any) -> Any:
    a, indices = ns.array_of(a), ns.array_of(indices)
    if axis is None:
        a, axis = a.reshape(-1), 0
    place = behind(axis, a.ndim)
    if indices.batched:
        return getitem(ns, a, (*(slice(None),) * (place - 1), indices))
    return ns.of(ns.library.take(a.inner, indices.inner, axis=place if a.batched else place - 1, **options), a.batched)


@rule
def take_along_axis(ns: Namespace, arr: Any, indices: Any, axis: Any) -> Any:
    arr, indices = ns.array_of(arr), ns.array_of(indices)
    if axis is None:
        arr, axis = arr.reshape(-1), 0
    if not arr.batched and not indices.batched:
        return ns.of(ns.library.take_along_axis(arr.inner, indices.inner, axis=axis), False)
    both = [spread(a, ns.kind) for a in (arr, indices)]
    return ns.of(ns.library.take_along_axis(*both, axis=behind(axis, arr.ndim)), True)


@rule
def searchsorted(ns: Namespace, a: Any, v: Any, side: str = "left") -> Any:
    """One search where all samples look in the same row, else one each."""
    a, v = ns.array_of(a), ns.array_of(v)
    if not a.batched:
        return ns.of(ns.library.searchsorted(a.inner, v.inner, side=side), v.batched)
    rows = zip(a.inner, spread(v, ns.kind), strict=True)
    return ns.of(ns.library.stack([ns.library.asarray(ns.library.searchsorted(*row, side=side)) for row in rows]), True)


@rule
def histogram(ns: Namespace, a: Any, *args: Any, **options: Any) -> Any:
    """Counts and edges, of one sample after the other."""
    a = ns.array_of(a)
    every = [ns.library.histogram(one, *args, **options) for one in spread(a, ns.kind)]
    return tuple(ns.of(ns.library.stack(parts), True) for parts in zip(*every, strict=True))
