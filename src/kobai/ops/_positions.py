"""Where indices point to in memory, and writing there: adding, placing, clearing. The gradients of all reads by index."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.dtypes import FLOATING
from kobai.engine.dispatch import HOST_TYPES, launch, loops_run
from kobai.ops import _index_loops
from kobai.runtime import adds_in_no_order
from kobai.xp import Array, xp_of


def add_at(out: Array, positions: Array, values: Array) -> Array:
    """out.flat[positions[i]] += values.flat[i], also where positions repeat; ``out`` must be contiguous. Returns ``out``.

    One dimension is where ``ufunc.at`` is fast: for rows of 64 floats NumPy needs a fifth of the time that the same
    call with an index per row takes, and less than sorting the rows and adding them run by run.
    """
    flat = out.reshape(-1)
    values = values.astype(out.dtype, copy=False).reshape(-1)
    if looped(out, positions):
        launch(_index_loops.add_elements, flat, positions.reshape(-1), values)
        return out
    if out.dtype == np.int64:
        # CuPy's atomic add knows uint64 only; in two's complement the sums are the same bits.
        flat, values = flat.view(np.uint64), values.view(np.uint64)
    if out.dtype == np.bool_:
        flat[positions.reshape(-1)[values]] = True
    else:
        if type(flat) is not np.ndarray and flat.dtype.kind in FLOATING:
            adds_in_no_order("adding at repeated positions")
        if out.dtype.itemsize < 4 and out.dtype.kind not in FLOATING:  # atomic adds know no integers of 8 and 16 bits
            wide = flat.astype(np.int32)
            xp_of(out).add.at(wide, positions.reshape(-1), values.astype(np.int32))
            flat[...] = wide.astype(out.dtype)
        else:
            xp_of(out).add.at(flat, positions.reshape(-1), values)
    return out


def looped(out: Array, *others: Array) -> bool:
    """Whether a compiled loop may write to ``out``, if these others are on the host too."""
    if type(out) not in HOST_TYPES or not loops_run(out.dtype) or not out.flags.c_contiguous:
        return False
    return all(type(array) in HOST_TYPES for array in others)


def add_along(out: Array, axis: int, index: Array, values: Array) -> Array:
    """The slices of ``axis`` at ``index`` += ``values``, also where they repeat; ``out`` must be contiguous. Returns it.

    The caller has checked the indices, which count from the front.
    """
    if not looped(out, index, values):
        return add_at(out, positions_along(out.shape, axis, index), values)
    three = whole(out, axis)
    rows = index.reshape(-1).astype(np.int64, copy=False)
    values = xp_of(values).ascontiguousarray(values.astype(out.dtype, copy=False))
    launch(_index_loops.add_rows, three, rows, values.reshape(three.shape[0], rows.size, three.shape[2]))
    return out


def whole(x: Array, axis: int) -> Array:
    """A contiguous array with three axes: those before ``axis``, itself, and those after it."""
    return x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))


def placed(values: Array, shape: tuple[int, ...], key: Any, onto: Array | None = None) -> Array:
    """Zeros of ``shape``, but ``values`` at ``key``: the gradient of reading x[key] where no place repeats.

    With ``onto`` they are added to that array, whose ``key`` must give a view.
    """
    if onto is not None:
        part = onto[key]
        part += values
        return onto
    out = xp_of(values).zeros(shape, values.dtype)
    out[key] = values
    return out


def cleared(dy: Array, key: Any) -> Array:
    """A copy of ``dy`` with zeros at ``key``: the gradient of what was not overwritten there."""
    out = dy.copy()
    out[key] = 0
    return out


def extreme_at(out: Array, positions: Array, values: Array, extreme: str) -> Array:
    """As :func:`add_at`, with "maximum" or "minimum" in place of the sum; NaN wins. Returns ``out``.

    CuPy 14 has ``maximum.at`` too, but rounds float64 to float32 in it, drops NaN, and knows fewer dtypes. Instead the
    values are sorted by position and in each position by size, and the extreme of every run is written by all of the run.
    """
    xp = xp_of(out)
    flat, positions, values = out.reshape(-1), positions.reshape(-1), values.reshape(-1)
    pick = getattr(xp, extreme)
    if type(out) is np.ndarray:
        pick.at(flat, positions, values)
        return out
    order = xp.argsort(values, kind="stable")
    order = order[xp.argsort(positions[order], kind="stable")]
    positions, values = positions[order], values[order]
    found = last = values[xp.searchsorted(positions, positions, side="right") - 1]
    if extreme == "minimum":
        first = values[xp.searchsorted(positions, positions, side="left")]
        found = xp.where(last != last, last, first)  # NaN is sorted last
    flat[positions] = pick(flat[positions], found)
    return out


def _multiply_at(flat: Array, positions: Array, values: Array) -> None:
    np.multiply.at(flat, positions, values)


def product_at(out: Array, positions: Array, values: Array) -> Array:
    """As :func:`add_at`, with the product in place of the sum. Returns ``out``."""
    xp = xp_of(out)
    flat, positions, values = out.reshape(-1), positions.reshape(-1), values.reshape(-1)
    if type(out) in HOST_TYPES:
        launch(_multiply_at, flat, positions, values)
        return out
    # CuPy has no multiply.at: of all that goes to one place the first is multiplied, then the second, and so on.
    order = xp.argsort(positions, kind="stable")
    positions, values = positions[order], values[order]
    turn = xp.arange(positions.size) - xp.searchsorted(positions, positions, side="left")
    for k in range(int(turn.max().item()) + 1 if turn.size else 0):
        now = turn == k
        flat[positions[now]] *= values[now]
    return out


def positions_along(shape: tuple[int, ...], axis: int, index: Array) -> Array:
    """Flat positions, in an array of ``shape``, of the elements that ``take(index, axis)`` takes, in its order.

    The caller has checked the indices: those outside [0, shape[axis]) would hit other elements.
    """
    xp = xp_of(index)
    before, size, after = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    row = index.reshape(-1).astype(np.int64, copy=False)  # positions may be larger than what the dtype of indices holds
    flat = row if before == 1 else (xp.arange(before) * size)[:, None] + row
    if after == 1:
        return flat.reshape(-1)
    return (flat[..., None] * after + xp.arange(after)).reshape(-1)


def positions_of(shape: tuple[int, ...], axis: int, index: Array) -> Array:
    """Flat positions, in an array of ``shape``, of the elements that ``take_along_axis(index, axis)`` takes.

    The result has the shape of ``index`` and is a new array, which stays as it is when the indices change.
    """
    xp, rank = xp_of(index), index.ndim
    positions = index.astype(np.int64)
    stride = math.prod(shape[axis + 1 :])
    if stride != 1:
        positions *= stride
    for d, n in enumerate(index.shape):
        stride = math.prod(shape[d + 1 :])
        if d != axis and n > 1:
            positions += stride * xp.arange(n).reshape((n,) + (1,) * (rank - d - 1))
    return positions


def taken(x: Array, index: Array, axis: int) -> Array:
    """``take_along_axis(x, index, axis)``, for an index that was checked."""
    xp, sizes = xp_of(x), x.shape
    alike = index.shape[:axis] == sizes[:axis] and index.shape[axis + 1 :] == sizes[axis + 1 :]
    if not alike or not looped(x, index):
        return x[mesh(index, axis)]
    y, index = xp.empty(index.shape, x.dtype), xp.ascontiguousarray(index.astype(np.int64, copy=False))
    launch(_index_loops.take_along, whole(x, axis), whole(index, axis), whole(y, axis))
    return y


def mesh(index: Array, axis: int) -> tuple[Array, ...]:
    """Indices by which ``x[mesh]`` is ``take_along_axis(x, index, axis)``: ``index`` for ``axis``, ranges elsewhere."""
    xp, index = xp_of(index), index.astype(np.int64, copy=False)  # so that flat positions can be made of the parts
    rank = index.ndim
    return tuple(
        index if d == axis else xp.arange(n).reshape((1,) * d + (n,) + (1,) * (rank - d - 1))
        for d, n in enumerate(index.shape)
    )
