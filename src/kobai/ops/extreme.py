"""Extremes and what is computed from them: max and min in all their forms, medians, logsumexp; all, any, counts."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.engine.domains import check_range
from kobai.ops._args import as_float, cast, drawn, need_tensor, normalize_axis, numpy_names, sortable
from kobai.ops._positions import mesh, placed
from kobai.ops._ranked import at_rank
from kobai.ops._sums import total
from kobai.ops.arithmetic import maximum, minimum, sub
from kobai.ops.gather import gather
from kobai.ops.reduce import Axes, axes_of, element_count, reduced_samples, spread
from kobai.ops.shape import clone
from kobai.xp import Array, xp_of

__all__ = [
    "all",
    "amax",
    "amin",
    "aminmax",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "logsumexp",
    "max",
    "median",
    "min",
    "nanmedian",
]


class ValuesIndices(NamedTuple):
    """What max, min, median, sort, topk and kthvalue along one dimension return: elements and where they were."""

    values: Tensor
    indices: Tensor


class MinMax(NamedTuple):
    """What :func:`aminmax` returns."""

    min: Tensor
    max: Tensor


def _distinct() -> Any:
    """Samples whose slices have elements, all different: away from ties an extreme is differentiable."""
    return [
        lambda rng: (rng.permutation(12).reshape(4, 3) + 0.5, None, False),
        lambda rng: (rng.permutation(24).reshape(2, 4, 3) + 0.5, (1,), False),
        lambda rng: (rng.permutation(24).reshape(2, 4, 3) + 0.5, (0, 2), True),
        drawn((), (), False),
        drawn((0, 3), (1,), False),
    ]


def among_ties(dy: Array, y: Array, x: Array, axes: Axes | None, keepdim: bool) -> Array:
    """Gradient of an extreme y: shared in equal parts by all elements that attain it; NaN is attained by NaN."""
    level = spread(y, x.shape, axes, keepdim)
    equal = (x == level) | ((level != level) & (x != x))
    count = equal.sum(axis=axes, keepdims=True)
    return (equal * (spread(dy, x.shape, axes, keepdim) / xp_of(x).maximum(count, 1))).astype(dy.dtype, copy=False)


@primitive(sample=_distinct())
def _amax(x: Array, axes: Axes | None, keepdim: bool) -> Any:
    y = x.max(axis=axes, keepdims=keepdim)
    return y, lambda dy: (lambda: among_ties(dy, y, x, axes, keepdim), None, None)


@primitive(sample=_distinct())
def _amin(x: Array, axes: Axes | None, keepdim: bool) -> Any:
    y = x.min(axis=axes, keepdims=keepdim)
    return y, lambda dy: (lambda: among_ties(dy, y, x, axes, keepdim), None, None)


def _extreme_at(rng: np.random.Generator, extreme: str, axis: int, keepdim: bool) -> Any:
    x = rng.permutation(24).reshape(2, 4, 3) + 0.5
    return x, getattr(x, f"arg{extreme}")(axis=axis, keepdims=keepdim), axis, keepdim, extreme


@primitive(
    sample=[
        lambda rng: _extreme_at(rng, "max", 1, False),
        lambda rng: _extreme_at(rng, "min", 2, True),
        lambda rng: (np.zeros((0, 3)), np.zeros(0, dtype=np.int64), 1, False, "max"),
    ]
)
def _attained(x: Array, index: Array, axis: int, keepdim: bool, extreme: str) -> Any:
    xp, shape = xp_of(x), x.shape

    def vjp(dy: Array) -> Any:
        def dx() -> Array:
            check_range(extreme, index, shape[axis])
            here, g = (index, dy) if keepdim else (xp.expand_dims(index, axis), xp.expand_dims(dy, axis))
            return placed(g, shape, mesh(here, axis))

        return dx, None, None, None, None

    # Finding the extreme again is faster than picking it by its index.
    return getattr(x, extreme)(axis=axis, keepdims=keepdim), vjp


def _nonempty(who: str, input: Tensor, dim: Any) -> Axes | None:
    """Axes of ``dim``, checked to have elements: nothing is the largest of nothing."""
    need_tensor(who, input)
    shape = input._array.shape
    axes = axes_of(who, dim, len(shape))
    if element_count(shape, axes) == 0:
        where = "" if dim is None else f" in dim {dim}"
        raise (RuntimeError if dim is None and not who.startswith("arg") else IndexError)(
            f"{who}: expected at least one element{where}, got shape {tuple(shape)}"
        )
    return axes


@method
@numpy_names
def amax(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Largest element over ``dim``; where several are, the gradient is shared by them.

    >>> import kobai
    >>> x = kobai.tensor([3., 3., 1.], requires_grad=True)
    >>> kobai.amax(x, dim=0).backward()
    >>> x.grad
    tensor([0.5000, 0.5000, 0.0000])
    """
    return _amax(input, _nonempty("amax", input, dim), keepdim)


@method
@numpy_names
def amin(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Smallest element over ``dim``; where several are, the gradient is shared by them.

    >>> import kobai
    >>> kobai.amin(kobai.tensor([[1, 2], [3, 0]]), dim=(0, 1))
    tensor(0)
    """
    return _amin(input, _nonempty("amin", input, dim), keepdim)


@numpy_names
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> MinMax:
    """(smallest, largest) over ``dim``.

    >>> import kobai
    >>> kobai.aminmax(kobai.tensor([[3, 1, 2]]), dim=1)
    MinMax(min=tensor([1]), max=tensor([3]))
    """
    return MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))


method(aminmax)


def _arg(who: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    """Index of the first extreme along ``dim``, or among all elements."""
    _nonempty(who, input, dim)
    xp, array = xp_of(input._array), input._array
    axis = None if dim is None else normalize_axis(who, dim, array.ndim)
    found = xp.asarray(getattr(xp, who)(array, axis=axis if array.ndim else None))
    if keepdim and array.ndim:
        found = found.reshape((1,) * array.ndim) if axis is None else xp.expand_dims(found, axis)
    return Tensor._wrap(found)  # type: ignore[no-any-return]


@method
@numpy_names
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the (first) largest element along ``dim``; without ``dim``, in the tensor seen as one row.

    >>> import kobai
    >>> kobai.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]).argmax(dim=1)
    tensor([1, 0])
    """
    return _arg("argmax", input, dim, keepdim)


@method
@numpy_names
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the (first) smallest element along ``dim``; without ``dim``, in the tensor seen as one row.

    >>> import kobai
    >>> kobai.argmin(kobai.tensor([[2, 1], [1, 3]])), kobai.argmin(kobai.tensor([[2, 1], [1, 3]]), dim=1)
    (tensor(1), tensor([1, 0]))
    """
    return _arg("argmin", input, dim, keepdim)


def picked(input: Tensor, indices: Tensor, axis: int, keepdim: bool) -> ValuesIndices:
    """The elements at ``indices``, one per slice of ``axis`` (kept in ``indices``), with their gradient."""
    if not input._array.ndim:
        return ValuesIndices(clone(input), indices)
    values = gather(input, axis, indices)
    return ValuesIndices(values, indices) if keepdim else ValuesIndices(values.squeeze(axis), indices.squeeze(axis))


@method
@numpy_names
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """Largest element; along ``dim``, (values, indices); with a second tensor, the elementwise :func:`maximum`.

    >>> import kobai
    >>> kobai.tensor([[1., 5.], [7., 2.]]).max(dim=1).indices
    tensor([1, 0])
    """
    return _extreme("max", amax, argmax, maximum, input, dim, keepdim, other)


@method
@numpy_names
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """Smallest element; along ``dim``, (values, indices); with a second tensor, the elementwise :func:`minimum`.

    >>> import kobai
    >>> kobai.min(kobai.tensor([[2, 1], [1, 3]])), kobai.min(kobai.tensor([[2, 1], [1, 3]]), dim=1).indices
    (tensor(1), tensor([1, 0]))
    """
    return _extreme("min", amin, argmin, minimum, input, dim, keepdim, other)


def _extreme(
    who: str, of_all: Any, where: Any, of_two: Any, input: Tensor, dim: Any, keepdim: bool, other: Tensor | None
) -> Any:
    if isinstance(dim, Tensor):
        other, dim = dim, None
    if other is not None:
        return of_two(input, other)
    if dim is None:
        if not input._array.size:
            raise RuntimeError(f"{who}: expected at least one element, got shape {tuple(input.shape)}")
        return of_all(input)
    indices = where(input, dim, keepdim)
    if not input._array.ndim:
        return ValuesIndices(clone(input), indices)
    return ValuesIndices(_attained(input, indices, normalize_axis(who, dim, input._array.ndim), keepdim, who), indices)


@method
@numpy_names
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Middle element, of an even number the lower one, NaN if there is a NaN; along ``dim``, (values, indices).

    >>> import kobai
    >>> kobai.median(kobai.tensor([1., 5., 3., 4.]))
    tensor(3.)
    """
    return _medians("median", input, dim, keepdim, ignore_nan=False)


@method
@numpy_names
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The :func:`median` of what is not NaN; NaN if there is nothing else.

    >>> import kobai
    >>> kobai.nanmedian(kobai.tensor([1., float("nan"), 4., 2., 3.]))
    tensor(2.)
    """
    return _medians("nanmedian", input, dim, keepdim, ignore_nan=True)


def _medians(who: str, input: Tensor, dim: int | None, keepdim: bool, ignore_nan: bool) -> Any:
    need_tensor(who, input)
    array = input._array
    if dim is None:
        value = _median(input, ignore_nan) if array.size else cast(sub(input.sum(), math.nan), array.dtype)
        return value.reshape((1,) * array.ndim) if keepdim else value
    _nonempty(who, input, dim)
    axis = normalize_axis(who, dim, array.ndim)
    if not array.ndim:
        return ValuesIndices(clone(input), Tensor._wrap(xp_of(array).zeros((), np.int64)))
    rank, value = _middle(array, axis, ignore_nan)
    indices = at_rank(array, rank, axis, value)
    return picked(input, Tensor._wrap(indices), axis, keepdim)


def _middle(x: Array, axis: int, ignore_nan: bool) -> tuple[Array, Array]:
    """Where among the sorted elements of every slice, NaN coming last, the median is, and its value; the axis is kept."""
    xp, keys, n = xp_of(x), sortable(x), x.shape[axis]
    known = (x == x).sum(axis=axis, keepdims=True)
    if ignore_nan:
        rank = xp.maximum(known - 1, 0) // 2
        return rank, xp.take_along_axis(xp.sort(keys, axis=axis), rank, axis=axis)
    middle = (n - 1) // 2
    value = xp.partition(keys, middle, axis=axis)[(*(slice(None),) * axis, slice(middle, middle + 1))]
    value = xp.where(known < n, keys.dtype.type(math.nan), value) if keys.dtype.kind in FLOATING else value
    return xp.where(known < n, known, middle), value  # the first NaN


@primitive(
    sample=[
        lambda rng: (rng.permutation(12).reshape(4, 3) + 0.5, False),
        lambda rng: (rng.permutation(7) + 0.5, True),
        drawn((), False),
    ]
)
def _median(x: Array, ignore_nan: bool) -> Any:
    """Of all elements; the gradient is shared by all that are equal to it, for none is chosen among them."""
    flat = x.reshape(-1)
    y = _middle(flat, 0, ignore_nan)[1].astype(x.dtype, copy=False).reshape(())
    return y, lambda dy: (lambda: among_ties(dy, y, x, None, False), None)


# --- logsumexp --------------------------------------------------------------------------------------------------------


@primitive(sample=reduced_samples())
def _logsumexp(x: Array, axes: Axes | None, keepdim: bool) -> Any:
    xp = xp_of(x)
    if element_count(x.shape, axes):
        top = x.max(axis=axes, keepdims=True)
        top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))  # ∞ − ∞ would be NaN
        powers = total(xp.exp(x - top), axes, True)
    else:
        top = powers = total(x, axes, True)
    nothing = powers == 0
    y = xp.where(nothing, -math.inf, xp.log(xp.where(nothing, 1, powers)) + top).astype(x.dtype, copy=False)
    if not keepdim:
        y = y.reshape([n for d, n in enumerate(x.shape) if axes is not None and d not in axes])

    def vjp(dy: Array) -> Any:
        def dx() -> Array:
            # softmax, of which ∞ has a share that is not defined: NaN; of a slice in which all is −∞, 0 is harmless
            level = spread(y, x.shape, axes, keepdim)
            level = xp.where(level == -math.inf, xp.zeros_like(level), level)
            return spread(dy, x.shape, axes, keepdim) * xp.exp(x - level)

        return dx, None, None

    return y, vjp


@method
@numpy_names
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log Σ exp(x) over ``dim``, without overflow; −∞ where all of x is −∞, with gradient 0.

    >>> import kobai
    >>> kobai.logsumexp(kobai.tensor([100., 100.]), dim=0)  # 100 + ln 2, though e¹⁰⁰ is no float32
    tensor(100.6931)
    """
    input = as_float("logsumexp", input)
    return _logsumexp(input, axes_of("logsumexp", dim, input._array.ndim), keepdim)


# --- truth values and counts ------------------------------------------------------------------------------------------


@method
@numpy_names
def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether all elements over ``dim`` are true (not zero).

    >>> import kobai
    >>> kobai.all(kobai.tensor([[1, 1], [1, 0]]), dim=1)
    tensor([ True, False])
    """
    return _truth("all", input, dim, keepdim)


@method
@numpy_names
def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether some element over ``dim`` is true (not zero).

    >>> import kobai
    >>> kobai.any(kobai.tensor([[0, 0], [1, 0]]), dim=1)
    tensor([False,  True])
    """
    return _truth("any", input, dim, keepdim)


def _truth(who: str, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Of uint8, PyTorch's truth values of old, the answer is uint8 too; an empty ``dim`` names no dimension here."""
    need_tensor(who, input)
    xp, array = xp_of(input._array), input._array
    axes = () if isinstance(dim, (tuple, list)) and not dim else axes_of(who, dim, array.ndim)
    found = xp.asarray(getattr(xp, who)(array, axis=axes, keepdims=keepdim))
    return Tensor._wrap(found.astype(np.uint8 if array.dtype == np.uint8 else bool, copy=False))  # type: ignore[no-any-return]


@method
@numpy_names
def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements over ``dim`` are not zero.

    >>> import kobai
    >>> kobai.count_nonzero(kobai.tensor([[0, 0], [1, 2]]), dim=1)
    tensor([0, 2])
    """
    need_tensor("count_nonzero", input)
    found = (input._array != 0).sum(axis=axes_of("count_nonzero", dim, input._array.ndim), dtype=np.int64)
    return Tensor._wrap(xp_of(input._array).asarray(found))  # type: ignore[no-any-return]
