"""Running extremes."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.core.primitive import method
from kobai.core.tensor import Tensor
from kobai.ops._args import need_tensor, normalize_axis, numpy_names
from kobai.ops.extreme import ValuesIndices
from kobai.ops.gather import gather
from kobai.ops.shape import clone
from kobai.xp import Array, xp_of

__all__ = ["cummax", "cummin"]


def _running(who: str, input: Tensor, dim: int, replaces: Any) -> ValuesIndices:
    """Running extreme and the index at which it was met last; ``replaces(x, best)`` says where a new one is met."""
    need_tensor(who, input)
    axis = normalize_axis(who, dim, input._array.ndim)
    xp, x = xp_of(input._array), input._array
    if not x.ndim:
        return ValuesIndices(clone(input), Tensor._wrap(xp.zeros((), np.int64)))
    slices: list[Array] = []
    best, at = None, None
    for i in range(x.shape[axis]):
        now = x[(slice(None),) * axis + (i,)]
        if best is None:
            best, at = now, xp.zeros(now.shape, np.int64)
        else:
            new = replaces(now, best) | (now != now)
            best, at = xp.where(new, now, best), xp.where(new, i, at)
        slices.append(at)
    indices = xp.stack(slices, axis=axis) if slices else xp.zeros(x.shape, np.int64)
    found = Tensor._wrap(indices.astype(np.int64, copy=False))
    return ValuesIndices(gather(input, axis, found), found)


@method
@numpy_names
def cummax(input: Tensor, dim: int) -> ValuesIndices:
    """Largest element so far along ``dim`` and where it was met last: (values, indices).

    >>> import kobai
    >>> kobai.tensor([1, 3, 2, 3]).cummax(0)
    ValuesIndices(values=tensor([1, 3, 3, 3]), indices=tensor([0, 1, 1, 3]))
    """
    return _running("cummax", input, dim, lambda now, best: now >= best)


@method
@numpy_names
def cummin(input: Tensor, dim: int) -> ValuesIndices:
    """Smallest element so far along ``dim`` and where it was met last: (values, indices).

    >>> import kobai
    >>> kobai.cummin(kobai.tensor([3, 1, 2, 1]), dim=0)
    ValuesIndices(values=tensor([3, 1, 1, 1]), indices=tensor([0, 1, 1, 3]))
    """
    return _running("cummin", input, dim, lambda now, best: now <= best)
