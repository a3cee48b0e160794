"""Running extremes, and running sums of powers."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.ops._args import drawn, need_tensor, normalize_axis, numpy_names
from kobai.ops.extreme import ValuesIndices
from kobai.ops.gather import gather
from kobai.ops.shape import clone
from kobai.xp import Array, quiet, xp_of

__all__ = ["cummax", "cummin", "logcumsumexp"]


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


# --- sums of powers ---------------------------------------------------------------------------------------------------


def _log_running(x: Array, axis: int) -> Array:
    """ln Σ_{j≤i} exp(xⱼ) in log₂ n passes, each of which adds what lies twice as far back, without overflow."""
    y, far = x, 1
    before, after = [slice(None)] * x.ndim, [slice(None)] * x.ndim
    while far < x.shape[axis]:
        before[axis], after[axis] = slice(None, -far), slice(far, None)
        longer = y.copy()
        longer[tuple(after)] = xp_of(x).logaddexp(y[tuple(after)], y[tuple(before)])
        y, far = longer, 2 * far
    return y


@primitive(sample=[drawn((4, 3), 0), drawn((2, 7), 1), drawn((0, 3), 0), drawn((3, 0), 1)])
@quiet
def _logcumsumexp(x: Array, axis: int) -> Any:
    xp, y = xp_of(x), _log_running(x, axis)

    def vjp(dy: Array) -> Any:
        def share(g: Array) -> Array:
            """exp(xᵢ) Σ_{j≥i} gⱼ exp(−yⱼ) for g ≥ 0: a running sum of powers from the end."""
            return xp.exp(x + xp.flip(_log_running(xp.flip(xp.log(g) - y, axis), axis), axis))

        return lambda: share(xp.maximum(dy, 0)) - share(xp.maximum(-dy, 0)), None

    def on_tape(bind: Any, dy: Array) -> Any:
        # dx_i = Σ_{j≥i} e^(x_i − y_j) dy_j as a matrix, which needs no logarithm of dy.
        here = xp_of(dy)
        rows = here.moveaxis(bind(x), axis, -1)[..., :, None]
        later = here.arange(x.shape[axis])[:, None] <= here.arange(x.shape[axis])
        powers = here.exp(here.where(later, rows - here.moveaxis(bind(y), axis, -1)[..., None, :], -np.inf))
        return here.moveaxis((powers * here.moveaxis(dy, axis, -1)[..., None, :]).sum(-1), -1, axis), None

    vjp.on_tape = on_tape  # type: ignore[attr-defined]
    return (y if y is not x else x.copy()), vjp


@method
@numpy_names
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """ln Σ_{j≤i} exp(xⱼ) along ``dim``, without overflow. NotImplementedError for integers.

    >>> import kobai
    >>> kobai.logcumsumexp(kobai.tensor([0., 0., 1000.]), 0)
    tensor([0.0000e+00, 6.9315e-01, 1.0000e+03])
    """
    need_tensor("logcumsumexp", input)
    if input._array.dtype.kind not in FLOATING:
        raise NotImplementedError(f"logcumsumexp: expected floats, got {input.dtype}; use .float() first")
    axis = normalize_axis("logcumsumexp", dim, input._array.ndim)
    return _logcumsumexp(input, axis) if input._array.ndim else clone(input)
