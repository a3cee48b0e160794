"""Windows over the spatial dimensions of images: where they lie, and reducing what lies in them.

Maximum and sum of a window are separable: the maximum of a window is that of its rows' maxima. So a window of k × k costs 2k
passes over ever smaller arrays instead of k².
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from kobai.dtypes import FLOATING
from kobai.xp import Array, quiet, table, xp_of

Sizes = tuple[int, ...]


class Windows(NamedTuple):
    """Where the kernel lies on the input, for every spatial dimension."""

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    pads: tuple[tuple[int, int], ...]  # zeros before and after the input
    size: Sizes  # of the input, without them
    out: Sizes  # how many windows

    @property
    def padded(self) -> Sizes:
        """Size of the input with its padding."""
        return tuple(n + a + b for n, (a, b) in zip(self.size, self.pads, strict=True))

    @property
    def inside(self) -> tuple[slice, ...]:
        """The input within its padding."""
        return tuple(slice(a, a + n) for n, (a, _) in zip(self.size, self.pads, strict=True))

    @property
    def is_pointwise(self) -> bool:
        """Whether every window is one element and there is one for each: the input itself is the columns."""
        return self.size == self.out and set(self.kernel) == set(self.stride) == {1} and not any(map(any, self.pads))

    def taps(self) -> Iterator[tuple[int, tuple[slice, ...]]]:
        """For the t-th element of the kernel: t and the elements of the padded input that it meets, all windows at once."""
        for t, position in enumerate(product(*map(range, self.kernel))):
            starts = [i * d for i, d in zip(position, self.dilation, strict=True)]
            yield (
                t,
                tuple(slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(starts, self.stride, self.out, strict=True)),
            )


def n_windows(size: int, kernel: int, stride: int, pads: int, dilation: int) -> int:
    """⌊(size + pads − dilation (kernel − 1) − 1) / stride⌋ + 1: how many windows fit in one dimension."""
    return (size + pads - dilation * (kernel - 1) - 1) // stride + 1


def pad(x: Array, w: Windows, value: float = 0) -> Array:
    """``x`` with its padding, as a new array; ``x`` itself if there is none."""
    if w.padded == w.size:
        return x
    wide = xp_of(x).full((*x.shape[: -len(w.size)], *w.padded), value, dtype=x.dtype)
    wide[(..., *w.inside)] = x
    return wide


# --- one dimension after the other -------------------------------------------------------------------------------------


def along(w: Windows, axis: int) -> list[tuple[Any, ...]]:
    """For each element of the kernel in one dimension: the elements of the padded input that it meets."""
    rest = (slice(None),) * (len(w.size) - 1 - axis)
    start, stride, n = w.dilation[axis], w.stride[axis], w.out[axis]
    return [(..., slice(i * start, i * start + stride * (n - 1) + 1, stride), *rest) for i in range(w.kernel[axis])]


@quiet
def reduced(x: Array, w: Windows, axis: int, what: str) -> Array:
    """``"max"`` or ``"sum"`` of the windows in one dimension of the padded input, as a new array."""
    if w.out[axis] == 1 and x.shape[axis - len(w.size)] == w.kernel[axis] and w.dilation[axis] == 1:
        return getattr(x, what)(axis=axis - len(w.size), keepdims=True)
    op = xp_of(x).maximum if what == "max" else xp_of(x).add
    first, *others = along(w, axis)
    if not others:
        return x[first].copy()
    y = op(x[first], x[others[0]])
    for where in others[1:]:
        op(y, x[where], out=y)
    return y


def widened(dy: Array, w: Windows, axis: int) -> Array:
    """Zeros with the padded size in one dimension."""
    shape = list(dy.shape)
    shape[axis - len(w.size)] = w.padded[axis]
    return xp_of(dy).zeros(tuple(shape), dtype=dy.dtype)


# --- maxima and means --------------------------------------------------------------------------------------------------


def least_of(dtype: Any) -> float:
    """The least number of the dtype, with which a maximum starts: −∞, or the least integer."""
    return -np.inf if dtype.kind in FLOATING else int(np.iinfo(dtype).min)


def to_the_first_maximum(d: Array, below: Array, top: Array, w: Windows, axis: int) -> Array:
    """The gradient of ``below``, whose maxima in one dimension are ``top`` with gradient ``d``: all to the first maximum."""
    wide = widened(d, w, axis)
    taps = along(w, axis)
    disjoint = w.stride[axis] >= w.dilation[axis] * (w.kernel[axis] - 1) + 1
    free = None  # windows whose maximum is still to come
    for where in taps:
        if where is taps[-1]:
            part = d if free is None else d * free  # all that is left, also where NaN equals nothing
        else:
            hit = below[where] == top
            if free is not None:
                hit &= free
            part = d * hit
            free = ~hit if free is None else free ^ hit
        if disjoint:
            wide[where] = part
        else:
            wide[where] += part
    return wide


def first_maxima(x: Array, y: Array, w: Windows) -> Array:
    """Where the maxima are: positions in the flattened spatial dimensions of the input."""
    xp = xp_of(x)
    wide = pad(x, w, least_of(x.dtype))
    index = xp.zeros(y.shape, dtype=np.int64)
    for _, where in reversed(list(w.taps())):  # the first one is written last
        position = 0
        for s, (a, _), size in zip(where, w.pads, w.size, strict=True):
            offsets = xp.arange(s.start - a, s.stop - a, s.step)
            position = (position * size)[..., None] + offsets if not isinstance(position, int) else offsets
        part = wide[(..., *where)]
        index = xp.where((part == y) | (part != part), position, index)
    return index


@lru_cache(maxsize=64)
def counts(w: Windows, real: Windows, dtype: Any, where: str) -> Any:
    """How many elements of ``real.size``, padded by ``real.pads``, lie in each window: (*out)."""
    total: Any = np.ones(())
    for i in range(len(w.size)):
        inside = np.zeros(w.padded[i])
        start = w.pads[i][0] - real.pads[i][0]
        inside[start : start + real.padded[i]] = 1
        total = np.multiply.outer(total, reduced(inside, _one(w, i), 0, "sum"))
    return table(total.astype(dtype), where)


def _one(w: Windows, i: int) -> Windows:
    return Windows(*((field[i],) for field in w))  # type: ignore[arg-type]  # every field is one item for each dimension
