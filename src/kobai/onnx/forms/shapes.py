"""Other shapes of the same elements, and parts of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.onnx.forms._table import form
from kobai.onnx.sizes import Size, Unknown

_END = 2**62


def axes_of(axis: int, ndim: int) -> int:
    """An axis, counted from the front."""
    return axis % ndim if ndim else 0


@form("ops.shape._reshape", "numpy.reshape")
def _reshape(g: Any, x: Any, shape: Any, who: str = "") -> Any:
    return g.reshape(x, g.out.shape)


@form("ops.shape._permute", "numpy.transpose")
def _permute(g: Any, x: Any, axes: Any = None) -> Any:
    order = range(len(x.shape))[::-1] if axes is None else [axes_of(a, len(x.shape)) for a in axes]
    return g.node("Transpose", x, perm=list(order))


@form("ops.shape._swap", "numpy.swapaxes")
def _swap(g: Any, x: Any, a: int, b: int) -> Any:
    order = list(range(len(x.shape)))
    order[a], order[b] = order[b], order[a]
    return g.node("Transpose", x, perm=order)


@form("ops.broadcast._expand", "numpy.broadcast_to")
def _expand(g: Any, x: Any, shape: Any) -> Any:
    missing = len(g.out.shape) - len(x.shape)
    kept = [1 if i >= missing and x.shape[i - missing] == n else n for i, n in enumerate(g.out.shape)]
    kept = [
        1 if isinstance(n, Unknown) and i >= missing and x.shape[i - missing] != 1 else n for i, n in enumerate(kept)
    ]
    return g.node("Expand", x, g.ints(kept))


@form("ops.index._part", "numpy.getitem")
def _part(g: Any, x: Any, key: Any) -> Any:
    key = list(key) if isinstance(key, tuple) else [key]
    if any(not (k is None or k is Ellipsis or isinstance(k, (slice, int, Size, Unknown))) for k in key):
        raise g.refuse("indexing by tensors")
    used = sum(k is not None and k is not Ellipsis for k in key)
    if Ellipsis not in key:
        key.append(Ellipsis)
    at = key.index(Ellipsis)
    key[at : at + 1] = [slice(None)] * (len(x.shape) - used)
    y, axis, gone, new, place = g.ref(x), 0, [], [], 0
    starts: list[Any] = []
    for k in key:
        if k is None:
            new.append(place)
            place += 1
            continue
        if isinstance(k, slice):
            if k != slice(None):
                starts.append((axis, k.start or 0, _END if k.stop is None else k.stop, k.step or 1))
            place += 1
        else:
            last = isinstance(k, int) and k == -1
            stop = _END if last else k + 1 if isinstance(k, int) else g.need(k, "an index that depends on an axis")
            starts.append((axis, k, stop, 1))
            gone.append(axis)
        axis += 1
    if starts:
        axes, *ends = zip(*starts, strict=True)
        begin, stop, step = ends
        y = g.node("Slice", y, g.ints(begin), g.ints(stop), g.ints(axes), g.ints(step))
    if gone:
        y = g.node("Squeeze", y, g.ints(gone))
    return g.node("Unsqueeze", y, g.ints(new)) if new else y


@form("ops.index._take")
def _take(g: Any, x: Any, index: Any, axis: int, who: str, negative: bool) -> Any:
    return g.node("Gather", x, index, axis=axis)


@form("ops.gather._embedding")
def _embedding(g: Any, weight: Any, indices: Any, padding_idx: Any, by_frequency: bool = False) -> Any:
    return g.node("Gather", weight, indices, axis=0)


@form("ops.gather._gather")
def _gather(g: Any, x: Any, index: Any, axis: int) -> Any:
    axis = axes_of(axis, len(x.shape))
    y, smaller = (
        g.ref(x),
        [i for i, (a, b) in enumerate(zip(x.shape, index.shape, strict=True)) if i != axis and a != b],
    )
    if smaller:  # it reaches only the first rows there
        starts, ends = g.ints([0] * len(smaller)), g.ints([index.shape[i] for i in smaller])
        y = g.node("Slice", y, starts, ends, g.ints(smaller))
    return g.node("GatherElements", y, g.cast(index, np.int64), axis=axis)


@form("ops.joining._cat")
def _cat(g: Any, *arrays: Any, axis: int) -> Any:
    if len(arrays) == 1 and isinstance(arrays[0], tuple):
        arrays = arrays[0]
    return g.node("Concat", *(g.cast(x, g.out.dtype) for x in arrays), axis=axis)


@form("ops.joining._stack")
def _stack(g: Any, *arrays: Any, axis: int) -> Any:
    axis = axes_of(axis, len(g.out.shape))
    parts = [g.node("Unsqueeze", g.cast(x, g.out.dtype), g.ints([axis])) for x in arrays]
    return g.node("Concat", *parts, axis=axis)


@form("ops.joining._pad")
def _pad(g: Any, x: Any, sizes: Any, value: float) -> Any:
    """``sizes``: axis, before, after of each padded dimension; below 0 they cut off."""
    before, after = [0] * len(x.shape), [0] * len(x.shape)
    for axis, a, b in sizes:
        before[axis], after[axis] = a, b
    return g.node("Pad", x, g.ints([*before, *after]), g.ref(value, g.out.dtype))


@form("ops.rearrange._flip")
def _flip(g: Any, x: Any, axes: Any) -> Any:
    n = len(axes)
    return g.node("Slice", x, g.ints([-1] * n), g.ints([-_END] * n), g.ints(axes), g.ints([-1] * n))


@form("ops.rearrange._roll")
def _roll(g: Any, x: Any, shifts: Any, axes: Any) -> Any:
    y = g.ref(x)
    for shift, axis in zip(shifts, axes, strict=True):
        shift = shift % g.need(x.shape[axis])
        if shift:
            one, of = g.ints([0]), g.ints([axis])
            last = g.node("Slice", y, g.ints([-shift]), g.ints([_END]), of)
            y = g.node("Concat", last, g.node("Slice", y, one, g.ints([-shift]), of), axis=axis)
    return y


@form("ops.rearrange._tril", "ops.rearrange._triu")
def _triangle(g: Any, x: Any, diagonal: int) -> Any:
    upper = int(g.call.key.endswith("triu"))
    if g.out.dtype == np.bool_:
        x = g.cast(x, np.int64)
        return g.to(g.node("Trilu", x, diagonal, upper=upper, dtype=np.int64), np.int64, np.bool_)
    return g.node("Trilu", x, g.ref(diagonal, np.int64), upper=upper)


@form("numpy.tri")
def _tri(g: Any, rows: Any, columns: Any = None, k: int = 0, dtype: Any = None) -> Any:
    ones = g.node("Expand", np.ones((), np.int64), g.ints([rows, rows if columns is None else columns]))
    return g.to(g.node("Trilu", ones, k, upper=0, dtype=np.int64), np.int64, g.out.dtype)


@form("ops.parts._windows")
def _windows(g: Any, x: Any, axis: int, size: int, step: int) -> Any:
    """The windows along an axis, each by one slice; the last axis counts the elements of a window."""
    axis, count = axes_of(axis, len(x.shape)), g.need(g.out.shape[axes_of(axis, len(x.shape))])
    rows = np.arange(count)[:, None] * step + np.arange(size)
    y = g.node("Gather", x, rows, axis=axis)  # (…, windows, size, …)
    order = [i for i in range(len(x.shape) + 1) if i != axis + 1] + [axis + 1]
    return g.node("Transpose", y, perm=order)
