"""Order: sort, topk, unique, and searching in what is sorted."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.core.primitive import among, method
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.engine.domains import check_range
from kobai.ops import _ranked
from kobai.ops._args import existing_axis, need, need_tensor, normalize_axis, numpy_names, sortable
from kobai.ops.create import tensor
from kobai.ops.extreme import ValuesIndices, picked
from kobai.ops.gather import gather
from kobai.xp import Array, asarray, xp_of

__all__ = [
    "argsort",
    "bincount",
    "bucketize",
    "histc",
    "isin",
    "kthvalue",
    "mode",
    "msort",
    "searchsorted",
    "sort",
    "topk",
    "unique",
    "unique_consecutive",
]


def _order(array: Array, axis: int, descending: bool) -> Array:
    """Indices that sort, equal elements staying in their order; NaN counts as the largest."""
    xp, array = xp_of(array), sortable(array)
    if not descending:
        return xp.argsort(array, axis=axis, kind="stable")
    # Backwards twice: equal elements would otherwise come out in reverse.
    backwards = xp.argsort(xp.flip(array, axis), axis=axis, kind="stable")
    return array.shape[axis] - 1 - xp.flip(backwards, axis)


@method
@numpy_names
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> ValuesIndices:
    """(values, indices) in rising – or falling – order along ``dim``; always stable, NaN counts as the largest.

    >>> import kobai
    >>> values, indices = kobai.tensor([3., 1., 2.]).sort(descending=True)
    >>> values, indices
    (tensor([3., 2., 1.]), tensor([0, 2, 1]))
    """
    indices = argsort(input, dim, descending)
    return ValuesIndices(gather(input, dim, indices), indices)


@method
@numpy_names
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Indices that sort ``input`` along ``dim``; always stable.

    >>> import kobai
    >>> kobai.argsort(kobai.tensor([2, 1, 2, 1])), kobai.argsort(kobai.tensor([2, 1, 3]), descending=True)
    (tensor([1, 3, 0, 2]), tensor([2, 0, 1]))
    """
    need_tensor("argsort", input)
    axis = normalize_axis("argsort", dim, input._array.ndim)
    if not input._array.ndim:
        return Tensor._wrap(xp_of(input._array).zeros((), np.int64))  # type: ignore[no-any-return]
    return Tensor._wrap(_order(input._array, axis, descending))  # type: ignore[no-any-return]


@method
def msort(input: Tensor) -> Tensor:
    """``input`` sorted along its first dimension.

    >>> import kobai
    >>> kobai.msort(kobai.tensor([[3, 1], [2, 4]]))
    tensor([[2, 1],
            [3, 4]])
    """
    return sort(input, 0).values


@method
@numpy_names
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesIndices:
    """The ``k`` largest (or smallest) elements along ``dim`` in order: (values, indices).

    >>> import kobai
    >>> kobai.tensor([0.1, 0.7, 0.2]).topk(2).indices
    tensor([1, 2])
    """
    need_tensor("topk", input)
    axis = normalize_axis("topk", dim, input._array.ndim)
    array = input._array if input._array.ndim else input._array.reshape(1)
    size = array.shape[axis]
    if not 0 <= k <= size:
        raise RuntimeError(f"topk: expected k in [0, {size}], got {k}")
    xp, before = xp_of(array), (slice(None),) * axis
    indices = (
        _ranked.first(array, k, axis, largest) if 0 < k < size else _order(array, axis, largest)[(*before, slice(0, k))]
    )
    if indices is None:
        # Only the chosen need sorting.
        kth = size - k if largest else k - 1
        parted = xp.argpartition(sortable(array), kth, axis=axis)
        indices = parted[(*before, slice(kth, None) if largest else slice(0, k))]
        order = _order(xp.take_along_axis(array, indices, axis=axis), axis, largest)
        indices = xp.take_along_axis(indices, order, axis=axis)
    if not input._array.ndim:  # has its one element, also for k = 0
        return ValuesIndices(input.clone(), Tensor._wrap(xp.zeros((), np.int64)))
    found = Tensor._wrap(indices)
    return ValuesIndices(gather(input, axis, found), found)


@method
@numpy_names
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """The ``k``-th smallest element (from 1) along ``dim``: (values, indices).

    >>> import kobai
    >>> kobai.kthvalue(kobai.tensor([30, 10, 20]), 2)
    ValuesIndices(values=tensor(20), indices=tensor(2))
    """
    need_tensor("kthvalue", input)
    axis = normalize_axis("kthvalue", dim, input._array.ndim)
    size = input._array.shape[axis] if input._array.ndim else 1
    if not 1 <= k <= size:
        raise RuntimeError(f"kthvalue: expected k in [1, {size}], got {k}")
    if not input._array.ndim:
        return picked(input, argsort(input), axis, keepdim)
    return picked(input, Tensor._wrap(_ranked.kth(input._array, k - 1, axis)), axis, keepdim)


@method
@numpy_names
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> ValuesIndices:
    """Most frequent element along ``dim``, of several the smallest, and an index at which it stands.

    >>> import kobai
    >>> kobai.tensor([3, 1, 3, 2]).mode().values
    tensor(3)
    """
    need_tensor("mode", input)
    axis = normalize_axis("mode", dim, input._array.ndim)
    if not input._array.ndim:
        return picked(input, argsort(input), axis, keepdim)
    xp, x = xp_of(input._array), xp_of(input._array).moveaxis(input._array, axis, -1)
    n = x.shape[-1]
    if n == 0:
        raise IndexError(f"mode: expected at least one element in dim {dim}, got shape {tuple(input.shape)}")
    order = xp.argsort(sortable(x), axis=-1, kind="stable")
    ordered = xp.take_along_axis(x, order, axis=-1)
    starts = xp.concatenate([xp.ones((*x.shape[:-1], 1), bool), ordered[..., 1:] != ordered[..., :-1]], axis=-1)
    # How far each element is into its run of equal ones; the furthest ends the longest run.
    flat = starts.reshape(-1)
    length = (xp.arange(flat.size) - xp.nonzero(flat)[0][xp.cumsum(flat) - 1]).reshape(starts.shape)
    best = xp.expand_dims(xp.argmax(length, axis=-1), -1)
    indices = xp.moveaxis(xp.take_along_axis(order, best, axis=-1), -1, axis)
    return picked(input, Tensor._wrap(indices), axis, keepdim)


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Where an element is among ``test_elements`` – or, with ``invert``, is not. ``assume_unique`` may save time.

    >>> import kobai
    >>> kobai.isin(kobai.tensor([1, 2, 3]), kobai.tensor([3, 1]))
    tensor([ True, False,  True])
    """
    if isinstance(elements, Tensor) != isinstance(test_elements, Tensor):  # one of them may be a number
        like = elements if isinstance(elements, Tensor) else test_elements
        elements, test_elements = (x if x is like else tensor(x, device=like.device) for x in (elements, test_elements))
    need_tensor("isin", elements, test_elements)
    xp, a, b = xp_of(elements._array), sortable(elements._array), sortable(test_elements._array)
    found = xp.asarray(xp.isin(a, b, assume_unique=assume_unique, invert=invert))
    return Tensor._wrap(found)  # type: ignore[no-any-return]


@method
@numpy_names
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The different elements (along ``dim``: slices), always sorted; then, where asked for, the index among them of every
    element of ``input``, and how often each occurs.

    >>> import kobai
    >>> kobai.unique(kobai.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    need_tensor("unique", input)
    array = input._array
    axis = None if dim is None else existing_axis("unique", dim, array.ndim)
    wanted = {"return_inverse": True, "return_counts": True, "equal_nan": False}  # every NaN is one of its own
    values, inverse, counts = xp_of(array).unique(sortable(array), axis=axis, **wanted)
    inverse = inverse.reshape(array.shape if axis is None else -1)
    return _answers(values.astype(array.dtype, copy=False), (inverse, return_inverse), (counts, return_counts))


@method
@numpy_names
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """As :func:`unique`, but only neighbours that are equal count as one, and the order stays.

    >>> import kobai
    >>> kobai.unique_consecutive(kobai.tensor([1, 1, 2, 1]), return_counts=True)
    (tensor([1, 2, 1]), tensor([2, 1, 1]))
    """
    need_tensor("unique_consecutive", input)
    array = input._array.reshape(-1) if dim is None else input._array
    xp, axis = xp_of(array), existing_axis("unique_consecutive", dim or 0, array.ndim)
    rows = xp.moveaxis(array, axis, 0)
    flat = rows.reshape(rows.shape[0], -1) if rows.size else xp.zeros((rows.shape[0], 1))
    new = xp.concatenate([xp.ones(min(rows.shape[0], 1), bool), (flat[1:] != flat[:-1]).any(axis=1)])
    starts = xp.nonzero(new)[0]
    counts = xp.diff(xp.concatenate([starts, asarray([rows.shape[0]], np.int64, input.device)]))
    inverse = xp.cumsum(new) - 1
    if dim is None:
        inverse = inverse.reshape(input._array.shape)
    values = xp.ascontiguousarray(xp.moveaxis(rows[starts], 0, axis))
    return _answers(values, (inverse, return_inverse), (counts, return_counts))


def _answers(values: Array, *optional: tuple[Array, bool]) -> Any:
    wanted = [
        Tensor._wrap(values),
        *(Tensor._wrap(array.astype(np.int64, copy=False)) for array, ask in optional if ask),
    ]
    return wanted[0] if len(wanted) == 1 else tuple(wanted)


@method
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, 2, ... occurs in a vector of integers ≥ 0, or the sum of the ``weights`` there.

    >>> import kobai
    >>> kobai.bincount(kobai.tensor([0, 2, 2]), minlength=4)
    tensor([1, 0, 2, 0])
    """
    need_tensor("bincount", input)
    array = input._array
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise RuntimeError(f"bincount: expected a vector of integers, got {input.dtype} of shape {tuple(input.shape)}")
    check_range("bincount", array, np.iinfo(np.int64).max)
    if weights is None:
        return Tensor._wrap(xp_of(array).bincount(array, minlength=minlength))  # type: ignore[no-any-return]
    need_tensor("bincount", weights)
    need("bincount", weights._array.shape == array.shape, f"{array.size} weights", f"shape {tuple(weights.shape)}")
    sums = xp_of(array).bincount(array, weights._array, minlength)
    kind = weights._array.dtype if weights._array.dtype == np.float32 else np.dtype(np.float64)
    return Tensor._wrap(sums.astype(kind, copy=False))  # type: ignore[no-any-return]


@method
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements lie in each of ``bins`` equal intervals of [min, max]; equal bounds mean those of the data.

    >>> import kobai
    >>> kobai.histc(kobai.tensor([1., 2., 1., 4.]), bins=4, min=0, max=4)
    tensor([0., 2., 1., 1.])
    """
    need_tensor("histc", input)
    array = input._array
    if array.dtype.kind not in FLOATING:
        raise RuntimeError(f"histc: expected floats, got {input.dtype}")
    low, high = float(min), float(max)
    if low == high and array.size:
        low, high = float(array.min().item()), float(array.max().item())
    if low == high:
        low, high = low - 1, high + 1
    if not low < high:
        raise RuntimeError(f"histc: expected min ≤ max, both finite, got {low} and {high}")
    counts, _ = xp_of(array).histogram(array, bins=bins, range=(low, high))
    return Tensor._wrap(counts.astype(array.dtype))  # type: ignore[no-any-return]


def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where each element of ``input`` would go into the sorted sequence: at the left of equal ones, or at the right.

    The sequence is a vector, or has the leading dimensions of ``input``, each row then searched in its own. One that is not
    sorted comes with its ``sorter``, the indices that sort it (``argsort``), int64 of the same shape.

    >>> import kobai
    >>> kobai.searchsorted(kobai.tensor([1, 3, 5]), kobai.tensor([3, 4]))
    tensor([1, 2])
    """
    need_tensor("searchsorted", sorted_sequence)
    need("searchsorted", side in (None, "left", "right"), "side 'left' or 'right'", repr(side))
    if side == "left" and right:
        raise RuntimeError("searchsorted: expected one side, got side='left' and right=True")
    if sorter is not None:
        need_tensor("searchsorted", sorter)
        if sorter.dtype != np.int64 or sorter.shape != sorted_sequence.shape:
            raise RuntimeError(
                f"searchsorted: expected sorter kobai.int64 of shape {tuple(sorted_sequence.shape)}, got {sorter.dtype} of "
                f"shape {tuple(sorter.shape)}"
            )
        check_range("searchsorted", sorter._array, sorted_sequence.shape[-1])
        sorted_sequence = gather(sorted_sequence.detach(), -1, sorter)
    sequence = sortable(among("searchsorted", sorted_sequence, input)._array)
    values = sortable(input._array) if isinstance(input, Tensor) else asarray(input, device=sorted_sequence.device)
    xp, at_right = xp_of(sequence), right or side == "right"
    if sequence.ndim == 1:
        found = xp.searchsorted(sequence, values, side="right" if at_right else "left")
    else:
        if sequence.shape[:-1] != values.shape[:-1]:
            raise RuntimeError(
                f"searchsorted: expected equal leading dimensions, got {tuple(sequence.shape)} and {tuple(values.shape)}"
            )
        rows, targets = sequence[..., None, :], values[..., :, None]
        found = (rows <= targets if at_right else rows < targets).sum(axis=-1)
    return Tensor._wrap(xp.asarray(found).astype(np.int32 if out_int32 else np.int64, copy=False))  # type: ignore[no-any-return]


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """Number of the interval between ``boundaries`` (a sorted vector) in which each element of ``input`` lies.

    >>> import kobai
    >>> kobai.bucketize(kobai.tensor([1, 2, 9]), kobai.tensor([2, 4])), kobai.bucketize(2, kobai.tensor([2, 4]), right=True)
    (tensor([0, 0, 2]), tensor(1))
    """
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


method(lambda self, boundaries, **options: bucketize(self, boundaries, **options), name="bucketize")
