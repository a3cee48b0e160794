"""Writing and adding at places given by tensors of indices or by a mask: the counterparts of gather."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.primitive import among, method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.engine.dispatch import launch
from kobai.engine.domains import check_range, look_range
from kobai.ops import _index_loops
from kobai.ops._args import (
    cast,
    need,
    need_one_dtype,
    need_tensor,
    normalize_axis,
    numpy_names,
    scalar,
    unbroadcast,
    wrapped,
)
from kobai.ops._positions import add_along, add_at, cleared, extreme_at, looped, mesh, positions_of, taken, whole
from kobai.ops._products_at import scatter_product
from kobai.ops.arithmetic import div, remainder
from kobai.ops.broadcast import broadcast_shapes, expand
from kobai.ops.gather import as_row, check_index, check_slices, where
from kobai.ops.index import getitem
from kobai.ops.shape import clone, reshape
from kobai.xp import Array, xp_of

__all__ = [
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_reduce",
    "masked_scatter",
    "put",
    "scatter",
    "scatter_add",
    "scatter_reduce",
]


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), np.array([[0, 2], [2, 1]]), rng.normal(size=(2, 2)), 1, False),
        lambda rng: (rng.normal(size=(4, 3)), np.array([[0, 2, 3], [2, 1, 3]]), rng.normal(size=(3, 3)), 0, True),
        lambda rng: (rng.normal(size=(4, 3)), np.array([[0, 0, 0]]), rng.normal(size=(1, 1)), 0, False),
        lambda rng: (rng.normal(size=(2, 3)), np.zeros((0, 3), dtype=np.int64), rng.normal(size=(2, 3)), 0, True),
    ]
)
def _scatter(x: Array, index: Array, src: Array, axis: int, add: bool, *, who: str = "scatter") -> Any:
    xp = xp_of(x)
    y, size, sizes, source = x.copy(), x.shape[axis], index.shape, src.shape
    values = src if src.size == 1 else src[tuple(slice(n) for n in sizes)]
    if add:
        add_elements(y, index, axis, xp.broadcast_to(values, sizes))
    else:
        y[mesh(index, axis)] = values

    def vjp(dy: Array) -> Any:
        look_range(who, index, size)

        def dsrc() -> Array:
            g = taken(dy, index, axis)
            if g.shape == source:
                return g
            out = xp.zeros(source, dy.dtype)
            out[tuple(slice(n) for n in sizes)] = unbroadcast(g, (1,) * g.ndim) if out.size == 1 else g
            return out

        return dy if add else lambda: cleared(dy, mesh(index, axis)), None, dsrc, None, None

    return y, vjp


def add_elements(y: Array, index: Array, axis: int, values: Array) -> None:
    """Add each value to the element of ``axis`` that its index names; ``y`` is contiguous."""
    xp = xp_of(y)
    alike = index.shape[:axis] == y.shape[:axis] and index.shape[axis + 1 :] == y.shape[axis + 1 :]
    if alike and looped(y, index, values):
        index = xp.ascontiguousarray(index.astype(np.int64, copy=False))
        values = xp.ascontiguousarray(values)
        launch(_index_loops.add_along, whole(y, axis), whole(index, axis), whole(values, axis))
    else:
        add_at(y, positions_of(y.shape, axis, index), values)


def scattered(who: str, input: Tensor, dim: int, index: Tensor, src: Any, add: bool) -> Tensor:
    need_tensor(who, input, index)
    axis = normalize_axis(who, dim, input._array.ndim)
    if not isinstance(src, Tensor):
        src = scalar(who, src, input).reshape((1,) * input.ndim)
        check_index(who, input._array.shape, axis, index)
    else:
        if src._array.dtype != input._array.dtype:
            raise RuntimeError(f"{who}: expected a source of {input.dtype}, got {src.dtype}")
        check_index(who, input._array.shape, axis, index, src._array.shape)
    if not index._array.size:
        index = reshape(index, (0,) * input._array.ndim)
    if not input._array.ndim:
        return reshape(_scatter(reshape(input, 1), reshape(index, 1), reshape(src, 1), 0, add), ())
    return _scatter(input, index, src, axis, add, who=who)


@method(in_place=True)
@numpy_names
def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    *,
    value: float | None = None,
    reduce: str | None = None,
) -> Tensor:
    """y = input, then y[index[i, j], j] = src[i, j] for ``dim`` 0, y[i, index[i, j]] = src[i, j] for ``dim`` 1, ...

    ``src`` is a tensor or a number (also called ``value``). ``reduce="add"`` adds instead of replacing, ``"multiply"``
    multiplies.

    >>> import kobai
    >>> kobai.zeros(2, 3).scatter(1, kobai.tensor([[2], [0]]), 1.0)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    if (src is None) == (value is None):
        raise TypeError("scatter: expected either src or value")
    if reduce not in (None, "add", "multiply"):
        raise RuntimeError(f"scatter: expected reduce None, 'add' or 'multiply', got {reduce!r}; see scatter_reduce()")
    source = value if src is None else src
    if reduce == "multiply":
        if not isinstance(source, Tensor):
            source = expand(scalar("scatter", source, input), index._array.shape)
        return scatter_reduce(input, dim, index, source, "prod")
    return scattered("scatter", input, dim, index, source, reduce == "add")


@method(in_place=True)
@numpy_names
@one_operation
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """As :func:`scatter`, but adding; what goes to one place several times adds up.

    >>> import kobai
    >>> kobai.scatter_add(kobai.zeros(3), 0, kobai.tensor([0, 2, 2]), kobai.tensor([1., 2., 3.]))
    tensor([1., 0., 5.])
    """
    need_tensor("scatter_add", src)
    return scattered("scatter_add", input, dim, index, src, True)


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), np.array([2, 0, 2]), rng.normal(size=(3, 3)), 0, 1.5),
        lambda rng: (rng.normal(size=(2, 4, 3)), np.array([3, 3]), rng.normal(size=(2, 2, 3)), 1, 1),
    ]
)
def _index_add(x: Array, index: Array, source: Array, axis: int, alpha: float) -> Any:
    key, size = (slice(None),) * axis + (index,), x.shape[axis]

    def vjp(dy: Array) -> Any:
        look_range("index_add", index, size)
        return dy, None, lambda: alpha * dy[key], None, None

    return add_along(x.copy(), axis, index, source if alpha == 1 else alpha * source), vjp


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), np.array([2, 0]), rng.normal(size=(2, 3)), 0),
        lambda rng: (rng.normal(size=(2, 4, 3)), np.array([3, 1]), rng.normal(size=(2, 2, 3)), 1),
    ]
)
def _index_copy(x: Array, index: Array, source: Array, axis: int, *, who: str = "index_copy") -> Any:
    key, size = (slice(None),) * axis + (index,), x.shape[axis]
    y = x.copy()
    y[key] = source

    def vjp(dy: Array) -> Any:
        look_range(who, index, size)
        return lambda: cleared(dy, key), None, lambda: dy[key], None

    return y, vjp


@method(in_place=True)
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """``input`` with alpha · source[i] added to its slice index[i] of dimension ``dim``; repeated slices add up.

    >>> import kobai
    >>> kobai.index_add(kobai.zeros(3), 0, kobai.tensor([0, 2, 2]), kobai.tensor([1., 2., 3.]), alpha=10)
    tensor([10.,  0., 50.])
    """
    axis = check_slices("index_add", input, dim, index, source)
    if type(alpha) is int and input._array.dtype.kind in "iu":
        alpha = wrapped("index_add", alpha, input._array.dtype)
    if input._array.ndim:
        return _index_add(input, as_row(index), source, axis, alpha)
    return reshape(_index_add(reshape(input, 1), as_row(index), reshape(source, -1), 0, alpha), ())


@method(in_place=True)
@one_operation
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``input`` with its slice index[i] of dimension ``dim`` replaced by source[i].

    >>> import kobai
    >>> kobai.index_copy(kobai.zeros(3), 0, kobai.tensor([2, 0]), kobai.tensor([1., 2.]))
    tensor([2., 0., 1.])
    """
    axis = check_slices("index_copy", input, dim, index, source)
    if input._array.ndim:
        return _index_copy(input, as_row(index), source, axis)
    return reshape(_index_copy(reshape(input, 1), as_row(index), reshape(source, -1), 0), ())


@method(in_place=True)
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """``input`` with every element of the slices ``index`` of dimension ``dim`` replaced by ``value``.

    >>> import kobai
    >>> kobai.index_fill(kobai.zeros(2, 3), 1, kobai.tensor([0, 2]), 7)
    tensor([[7., 0., 7.],
            [7., 0., 7.]])
    """
    axis = check_slices("index_fill", input, dim, index)
    if not isinstance(value, Tensor):
        value = scalar("index_fill", value, input)
        if input._array.ndim:
            sizes = [index._array.size if d == axis else n for d, n in enumerate(input._array.shape)]
            return _index_copy(input, as_row(index), expand(value, sizes), axis, who="index_fill")
    # A mask rather than positions: a place that is named twice is filled once and sends its gradient once.
    shape = input._array.shape
    filled = xp_of(input._array).zeros(shape[axis] if shape else 1, bool)
    filled[index._array.reshape(-1)] = True
    mask = filled.reshape([n if d == axis else 1 for d, n in enumerate(shape)])
    return where(Tensor._wrap(mask), cast(value, input._array.dtype), input)  # type: ignore[no-any-return]


@method(in_place=True)
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """``input`` with the elements where ``mask`` holds replaced by those of ``source``, in order; the two broadcast.

    >>> import kobai
    >>> kobai.masked_scatter(kobai.zeros(3), kobai.tensor([True, False, True]), kobai.tensor([5., 6., 7.]))
    tensor([5., 0., 6.])
    """
    need_tensor("masked_scatter", input, mask, source)
    if source._array.dtype != input._array.dtype or mask._array.dtype.kind != "b":
        raise RuntimeError(
            f"masked_scatter: expected a bool mask and a source of {input.dtype}, got {mask.dtype} and {source.dtype}"
        )
    shape = broadcast_shapes(input._array.shape, mask._array.shape)
    input, chosen = expand(input, shape), expand(mask, shape)
    count = int(chosen._array.sum().item())
    if count > source._array.size:
        raise RuntimeError(f"masked_scatter: expected at least {count} elements in the source, got {source.numel()}")
    positions = xp_of(chosen._array).nonzero(chosen._array.reshape(-1))[0]
    values = getitem(reshape(source, -1), slice(0, count))
    return reshape(index_copy(reshape(input, -1), 0, Tensor._wrap(positions), values), shape)


@method(in_place=True)
@one_operation
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """``input`` with ``input[indices] = values``, or with ``accumulate`` the values added, also where places repeat.

    >>> import kobai
    >>> i = kobai.tensor([0, 0])
    >>> kobai.index_put(kobai.zeros(2), (i,), kobai.tensor([1., 2.]), accumulate=True)
    tensor([3., 0.])
    """
    need_tensor("index_put", input, values)
    key = tuple(indices)
    if not accumulate:
        (out := clone(among("index_put", input, values, *key)))[key] = values
        return out
    if all(isinstance(i, Tensor) and i._array.dtype.kind in "iu" for i in key) and 0 < len(key) <= input._array.ndim:
        return _put_rows(input, key, values)
    places = getitem(Tensor._wrap(xp_of(input._array).arange(input._array.size).reshape(input._array.shape)), key)
    spread = reshape(expand(values, places._array.shape), -1)
    return reshape(index_add(reshape(input, -1), 0, reshape(places, -1), spread), input._array.shape)


def _put_rows(input: Tensor, key: tuple[Tensor, ...], values: Tensor) -> Tensor:
    """Values added where tensors index the first dimensions, which count as one."""
    shape = input._array.shape
    place: Any = 0
    for index, size in zip(key, shape, strict=False):
        check_range("index", index._array, size, negative=True)
        place = place * size + remainder(cast(index, np.int64), max(size, 1))
    rest, spread = shape[len(key) :], (*place._array.shape, *shape[len(key) :])
    source = reshape(expand(values, spread), (place._array.size, *rest))
    return reshape(index_add(reshape(input, (-1, *rest)), 0, reshape(place, -1), source), shape)


@method
def fill_diagonal_(input: Tensor, fill_value: float, wrap: bool = False) -> Tensor:
    """The main diagonal ← ``fill_value``, in place; ``wrap`` goes on below the square part of a tall matrix."""
    rows = input._array.shape
    if len(rows) < 2 or (len(rows) > 2 and len(set(rows)) > 1):
        raise RuntimeError(f"fill_diagonal_: expected a matrix or equal sizes, got shape {tuple(rows)}")
    n = np.arange(rows[0] if wrap and len(rows) == 2 else min(rows))
    n = n[n % (rows[1] + 1) < rows[1]]  # a square part is followed by a row without a diagonal
    input[(n, *(n % (rows[1] + 1),) * (len(rows) - 1))] = fill_value
    return input


@primitive(
    sample=[
        lambda rng: _piles(rng, "maximum", True),
        lambda rng: _piles(rng, "minimum", False),
    ]
)
def _scatter_extreme(x: Array, index: Array, src: Array, axis: int, extreme: str, include_self: bool) -> Any:
    xp = xp_of(x)
    part = tuple(slice(n) for n in index.shape)
    key = mesh(index, axis)
    y = x.copy()
    if not include_self:
        y[key] = src[part]  # any candidate will do as a start
    extreme_at(y, _positions(xp, y, key), src[part], extreme)

    def vjp(dy: Array) -> Any:
        # Shared in equal parts by all that attain the extreme, as in PyTorch.
        look_range("scatter_reduce", index, (x.shape or (1,))[axis])
        key = mesh(index, axis)
        own = x == y
        if not include_self:
            touched = xp.zeros(x.shape, bool)
            touched[key] = True
            own = own & ~touched | ~touched
        attained = src[part] == y[key]
        count = own.astype(dy.dtype)
        add_at(count, _positions(xp, y, key), attained.astype(dy.dtype))
        share = dy / xp.where(count == 0, 1, count)

        def dsrc() -> Array:
            out = xp.zeros(src.shape, dy.dtype)
            out[part] = share[key] * attained
            return out

        return lambda: share * own, None, dsrc, None, None, None

    return y, vjp


_REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def _positions(xp: Any, x: Array, key: tuple[Array, ...]) -> Array:
    """Where the elements x[key] of a contiguous array lie."""
    return xp.arange(x.size).reshape(x.shape)[key]


def _piles(rng: np.random.Generator, extreme: str, include_self: bool) -> Any:
    index = np.array([[0, 1, 1], [0, 2, 1], [3, 2, 1]])
    values = rng.permutation(24) + 0.5  # all different: away from ties an extreme is differentiable
    return values[:12].reshape(4, 3), index, values[12:].reshape(4, 3), 0, extreme, include_self


@method(in_place=True)
@numpy_names
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """As :func:`scatter`, but what meets at one place is combined by ``reduce``: sum, prod, mean, amax or amin.

    ``include_self`` says whether the element of ``input`` there counts too.

    >>> import kobai
    >>> kobai.zeros(2).scatter_reduce(0, kobai.tensor([0, 0, 1]), kobai.tensor([1., 3., 5.]), "mean", include_self=False)
    tensor([2., 5.])
    """
    need_tensor("scatter_reduce", input, index, src)
    need("scatter_reduce", reduce in _REDUCTIONS, f"reduce {', '.join(map(repr, _REDUCTIONS))}", repr(reduce))
    if src._array.dtype != input._array.dtype:
        raise RuntimeError(f"scatter_reduce: expected a source of {input.dtype}, got {src.dtype}")
    axis = normalize_axis("scatter_reduce", dim, input._array.ndim)
    if reduce in ("prod", "amax", "amin"):
        check_index("scatter_reduce", input._array.shape, axis, index, src._array.shape)
        if reduce == "prod":
            if not input._array.ndim:
                input, index, src = (reshape(t, 1) for t in (input, index, src))
                return reshape(scatter_product(input, index, src, 0, include_self), ())
            return scatter_product(input, index, src, axis, include_self)
        return _scatter_extreme(input, index, src, axis, "maximum" if reduce == "amax" else "minimum", include_self)
    start = input if include_self else scattered("scatter_reduce", input, axis, index, 0, False)
    total = scattered("scatter_reduce", start, axis, index, src, True)
    if reduce == "sum":
        return total
    ones: Tensor = Tensor._wrap(xp_of(src._array).ones_like(src._array))
    zeros: Tensor = Tensor._wrap(xp_of(input._array).zeros_like(input._array))
    counts = scattered("scatter_reduce", zeros, axis, index, ones, True)
    divisor: Tensor = counts + 1 if include_self else counts.clamp(min=1)
    return div(total, divisor, rounding_mode=None if input._array.dtype.kind in FLOATING else "floor")


@method(in_place=True)
def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """As :func:`index_add`, but what meets at one slice is combined by ``reduce``: prod, mean, amax or amin.

    >>> import kobai
    >>> kobai.index_reduce(kobai.ones(3), 0, kobai.tensor([0, 2, 2]), kobai.tensor([2., 3., 4.]), "prod")
    tensor([ 2.,  1., 12.])
    """
    axis = check_slices("index_reduce", input, dim, index, source)
    need("index_reduce", reduce in _REDUCTIONS[1:], f"reduce {', '.join(map(repr, _REDUCTIONS[1:]))}", repr(reduce))
    row = reshape(index, [-1 if d == axis else 1 for d in range(max(source.ndim, 1))])
    each = expand(row, source._array.shape or (1,))
    if input._array.ndim:
        return scatter_reduce(input, axis, each, source, reduce, include_self=include_self)
    whole = scatter_reduce(reshape(input, 1), 0, each, reshape(source, -1), reduce, include_self=include_self)
    return reshape(whole, ())


@method(in_place=True)
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of ``input`` with ``source`` written – or with ``accumulate`` added – at places of ``input`` seen as one row.

    >>> import kobai
    >>> kobai.put(kobai.zeros(2, 2), kobai.tensor([1, -1]), kobai.tensor([5., 6.]))
    tensor([[0., 5.],
            [0., 6.]])
    """
    need_tensor("put", input, index, source)
    need_one_dtype("put", input, source)
    if index.numel() != source.numel():
        raise IndexError(f"put: expected {index.numel()} values, got {source.numel()}")
    flat = index_put(reshape(input, -1), (reshape(index, -1),), reshape(source, -1), accumulate)
    return reshape(flat, input._array.shape)
