"""Choosing by tensors of indices along a dimension, and by masks: gather, embedding, where, masked_fill."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, get_default_dtype
from kobai.engine.dispatch import HOST_TYPES, launch
from kobai.engine.domains import check_range, look_range
from kobai.ops import _index_loops
from kobai.ops._args import cast, existing_axis, need_tensor, normalize_axis, numpy_names, pair, scalar, unbroadcast
from kobai.ops._positions import add_along, add_at, looped, mesh, positions_of, whole
from kobai.ops.arithmetic import remainder
from kobai.ops.broadcast import expand
from kobai.ops.index import getitem, take_slices
from kobai.ops.shape import clone, reshape
from kobai.xp import Array, xp_of

__all__ = [
    "argwhere",
    "embedding",
    "gather",
    "index_select",
    "masked_fill",
    "masked_select",
    "nonzero",
    "take",
    "take_along_dim",
    "where",
]

# --- by index ---------------------------------------------------------------------------------------------------------


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(5, 3)), np.array([[0, 4], [4, 1]]), None),
        lambda rng: (rng.normal(size=(5, 3)), np.array([1, 0, 1]), 2),
        lambda rng: (rng.normal(size=(5, 3)), np.zeros((0,), dtype=np.int64), None),
        lambda rng: (rng.normal(size=(5, 3)), np.array([[3, 0], [1, 4]]), None, True),
    ]
)
def _embedding(weight: Array, indices: Array, padding_idx: int | None, by_frequency: bool = False) -> Any:
    xp, shape = xp_of(weight), weight.shape
    check_range("embedding", indices, shape[0])

    def vjp(dy: Array) -> Any:
        def dweight() -> Array:
            out = xp.zeros(shape, dy.dtype)
            look_range("embedding", indices, shape[0])
            add_along(out, 0, indices, dy)
            if padding_idx is not None:
                out[padding_idx] = 0
            if by_frequency:
                times = xp.zeros((shape[0], 1), dy.dtype)
                add_along(times, 0, indices, xp.ones((*indices.shape, 1), dy.dtype))
                out /= xp.maximum(times, 1)
            return out

        return dweight, None, None, None

    return _at(weight, indices), vjp


def _at(x: Array, index: Array) -> Array:
    """Slices of the first dimension at indices that are known to be in range."""
    if type(x) in HOST_TYPES:  # NumPy need not look again
        return xp_of(x).take(x, index, axis=0, mode="clip")
    return xp_of(x).take(x, index, axis=0)


def embedding(
    weight: Tensor,
    indices: Tensor,
    padding_idx: int | None = None,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of ``weight`` (V, D) named by ``indices`` (any shape S): shape (\\*S, D). Row ``padding_idx`` gets no gradient.

    With ``scale_grad_by_freq`` the gradient of a row is divided by how often ``indices`` name it. Gradients are dense, also
    if ``sparse`` is asked for.

    IndexError for indices outside [0, V); for those on a device when a result is read.

    >>> import kobai
    >>> kobai.embedding(kobai.tensor([[1., 2.], [3., 4.], [5., 6.]]), kobai.tensor([2, 0]))
    tensor([[5., 6.],
            [1., 2.]])
    """
    need_tensor("embedding", weight, indices)
    if indices._array.dtype.kind not in "iu":
        raise RuntimeError(f"embedding: expected integer indices, got {indices.dtype}")
    if weight._array.ndim != 2:
        raise RuntimeError(f"embedding: expected a weight of 2 dimensions, got shape {tuple(weight.shape)}")
    if padding_idx is not None:
        rows = weight._array.shape[0]
        if not -rows <= padding_idx < rows:
            raise IndexError(f"embedding: expected padding_idx in [{-rows}, {rows - 1}], got {padding_idx}")
        padding_idx %= rows
    return (
        _embedding(weight, indices, padding_idx, True)
        if scale_grad_by_freq
        else _embedding(weight, indices, padding_idx)
    )


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), np.array([[0, 2], [1, 1]]), 1),
        lambda rng: (rng.normal(size=(4, 3)), np.array([[0, 2, 2], [3, 2, 0]]), 0),
        lambda rng: (rng.normal(size=(4, 3)), np.array([[0], [2], [1], [1]]), 1),
        lambda rng: (rng.normal(size=(2, 3)), np.zeros((0, 3), dtype=np.int64), 0),
    ]
)
def _gather(x: Array, index: Array, axis: int) -> Any:
    xp, shape = xp_of(x), x.shape
    if index.shape[:axis] == shape[:axis] and index.shape[axis + 1 :] == shape[axis + 1 :] and looped(x, index):
        return _gathered(x, index.astype(np.int64, copy=False), axis)
    positions, one_each = positions_of(shape, axis, index), index.shape[axis] == 1

    def vjp(dy: Array) -> Any:
        def dx() -> Array:
            out = xp.zeros(shape, dy.dtype)
            if one_each:  # one per slice, such as a class for each row: no position repeats
                out.reshape(-1)[positions] = dy
                return out
            return add_at(out, positions, dy)

        return dx, None, None

    return (_at(x.reshape(-1), positions) if x.flags.c_contiguous else x[mesh(index, axis)]), vjp


def _gathered(x: Array, index: Array, axis: int) -> Any:
    """:func:`_gather` by compiled loops, of an index as large as x beside ``axis``."""
    xp, shape = xp_of(x), x.shape
    index = xp.ascontiguousarray(index)
    y = xp.empty(index.shape, x.dtype)
    launch(_index_loops.take_along, whole(x, axis), whole(index, axis), whole(y, axis))

    def vjp(dy: Array) -> Any:
        def dx() -> Array:
            out = xp.zeros(shape, dy.dtype)
            look_range("gather", index, shape[axis])
            if not looped(out, dy):
                return add_at(out, positions_of(shape, axis, index), dy)
            launch(_index_loops.add_along, whole(out, axis), whole(index, axis), whole(xp.ascontiguousarray(dy), axis))
            return out

        return dx, None, None

    return y, vjp


def check_index(who: str, shape: tuple[int, ...], axis: int, index: Tensor, *others: tuple[int, ...]) -> None:
    """Check an index that has one entry for every element of the result."""
    sizes = index._array.shape
    if index._array.dtype.kind not in "iu":
        raise RuntimeError(f"{who}: expected an index of integers, got {index.dtype}")
    if len(sizes) != len(shape) and not (index._array.size == 0 or len(sizes) + len(shape) == 1):
        raise RuntimeError(f"{who}: expected an index of {len(shape)} dimensions, got shape {tuple(sizes)}")
    if any(n > shape[d] for d, n in enumerate(sizes) if d != axis and len(sizes) == len(shape)):
        raise RuntimeError(f"{who}: an index of shape {tuple(sizes)} is larger than {tuple(shape)} beside dim {axis}")
    for other in others:
        if len(other) != len(sizes) and len(other) + len(sizes) != 1:
            raise RuntimeError(f"{who}: expected a source of {len(sizes)} dimensions, got shape {tuple(other)}")
        if any(n > m for n, m in zip(sizes, other, strict=False)):
            raise RuntimeError(f"{who}: an index of shape {tuple(sizes)} is larger than the source {tuple(other)}")
    check_range(who, index._array, shape[axis] if shape else 1)


@method
@numpy_names
def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """y[i, j] = input[index[i, j], j] for ``dim`` 0, input[i, index[i, j]] for ``dim`` 1, and so on; shape of ``index``.

    RuntimeError for an index whose shape does not fit, IndexError for indices out of range (on a
    device when a result is read).

    >>> import kobai
    >>> p = kobai.tensor([[0.1, 0.9], [0.8, 0.2]])
    >>> p.gather(1, kobai.tensor([[1], [0]]))
    tensor([[0.9000],
            [0.8000]])
    """
    return gathered("gather", input, dim, index)


def gathered(who: str, input: Tensor, dim: int, index: Tensor) -> Tensor:
    """:func:`gather` on behalf of ``who``, which errors name."""
    need_tensor(who, input, index)
    axis = normalize_axis(who, dim, input._array.ndim)
    check_index(who, input._array.shape, axis, index)
    if not input._array.ndim or not index._array.ndim:
        return clone(expand(input, index._array.shape))  # of a scalar there is one element to gather
    if index._array.ndim != input._array.ndim:  # an index without elements may have any shape
        return reshape(getitem(reshape(input, -1), slice(0, 0)), index._array.shape)
    return _gather(input, index, axis)


@method
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """As :func:`gather`, with ``input`` and ``indices`` broadcast against each other; ``dim`` None: over all elements.

    Indices below 0 count from the end.

    >>> import kobai
    >>> x = kobai.tensor([[3, 1, 2]])
    >>> kobai.take_along_dim(x, x.argsort(dim=1), dim=1)
    tensor([[1, 2, 3]])
    """
    need_tensor("take_along_dim", input, indices)
    if dim is None:
        return take_along_dim(reshape(input, -1), reshape(indices, -1), 0)
    axis = existing_axis("take_along_dim", dim, input._array.ndim)
    if input._array.ndim != indices._array.ndim:
        raise RuntimeError(
            f"take_along_dim: expected indices of {input.ndim} dimensions, got shape {tuple(indices.shape)}"
        )
    rows, columns = list(input._array.shape), list(indices._array.shape)
    for d in range(len(rows)):
        if d != axis:
            rows[d] = columns[d] = max(rows[d], columns[d]) if min(rows[d], columns[d]) else 0
    if indices._array.dtype.kind not in "iu":
        raise RuntimeError(f"take_along_dim: expected an index of integers, got {indices.dtype}")
    size = rows[axis]
    check_range("take_along_dim", indices._array, size, negative=True)
    places = remainder(cast(indices, np.int64), max(size, 1))
    return gathered("take_along_dim", expand(input, rows), axis, expand(places, columns))


def check_slices(who: str, input: Tensor, dim: int, index: Tensor, source: Tensor | None = None) -> int:
    """Check an index that names whole slices, and a source with one slice for each; returns the axis."""
    need_tensor(who, input, index)
    axis = normalize_axis(who, dim, input._array.ndim)
    shape, array = input._array.shape, index._array
    if array.dtype.kind not in "iu":
        raise RuntimeError(f"{who}: expected an index of integers, got {index.dtype}")
    if array.ndim > 1:
        raise IndexError(f"{who}: expected an index of one dimension, got shape {tuple(array.shape)}")
    check_range(who, array, shape[axis] if shape else 1)
    if source is not None:
        expected = (*shape[:axis], array.size, *shape[axis + 1 :]) if shape else source._array.shape
        fits = source._array.shape == expected and (shape or source._array.size == array.size)
        if not fits or source._array.dtype != input._array.dtype:
            raise RuntimeError(
                f"{who}: expected a source of shape {expected} and {input.dtype}, got {tuple(source.shape)} of {source.dtype}"
            )
    return axis


def as_row(index: Tensor) -> Tensor:
    """An index that may be a number as a vector, which most are."""
    return index if index._array.ndim else index.reshape(-1)


@method
@numpy_names
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices of dimension ``dim`` named by the vector ``index``, in its order.

    >>> import kobai
    >>> kobai.arange(6).reshape(2, 3).index_select(1, kobai.tensor([2, 0]))
    tensor([[2, 0],
            [5, 3]])
    """
    axis = check_slices("index_select", input, dim, index)
    if not input._array.ndim:
        return clone(input)
    return take_slices(input, as_row(index), axis, "index_select", False)


@method
def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements of ``input``, seen as one row, at ``index``; shape of ``index``.

    >>> import kobai
    >>> kobai.take(kobai.tensor([[1, 2], [3, 4]]), kobai.tensor([0, 3]))
    tensor([1, 4])
    """
    need_tensor("take", input, index)
    return reshape(take_slices(reshape(input, -1), reshape(index, -1), 0, "take", True), index._array.shape)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 at the class, 0 elsewhere: shape (\\*S, num_classes) of integers; −1 takes the largest class plus one.

    >>> import kobai
    >>> kobai.nn.functional.one_hot(kobai.tensor([0, 2]), 3)
    tensor([[1, 0, 0],
            [0, 0, 1]])
    """
    need_tensor("one_hot", tensor)
    array = tensor._array
    if array.dtype.kind not in "iu":
        raise RuntimeError(f"one_hot: expected integers, got {tensor.dtype}")
    if num_classes == -1:
        if not array.size:
            raise RuntimeError("one_hot: expected num_classes for a tensor without elements")
        num_classes = int(array.max().item()) + 1
    check_range("one_hot", array, num_classes)
    xp = xp_of(array)
    return Tensor._wrap((array[..., None] == xp.arange(num_classes)).astype(np.int64))  # type: ignore[no-any-return]


# --- by mask ----------------------------------------------------------------------------------------------------------


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)) > 0, rng.normal(size=(4, 3)), rng.normal(size=(4, 3))),
        lambda rng: (rng.normal(size=(4, 1)) > 0, rng.normal(size=3), rng.normal(size=(2, 1, 1))),
        lambda rng: (np.zeros((0, 3), dtype=bool), rng.normal(size=3), rng.normal(size=())),
    ],
    half="own",
)
def _where(condition: Array, a: Array, b: Array) -> Any:
    xp, sa, sb = xp_of(condition), a.shape, b.shape

    def chosen(a: Any, b: Any, dtype: Any) -> Array:
        return xp.where(condition, a, b).astype(dtype, copy=False)  # CuPy makes float32 of bfloat16

    return chosen(a, b, a.dtype), lambda dy: (
        None,
        lambda: unbroadcast(chosen(dy, dy.dtype.type(0), dy.dtype), sa),
        lambda: unbroadcast(chosen(dy.dtype.type(0), dy, dy.dtype), sb),
    )


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """``input`` where the condition holds, ``other`` elsewhere, all broadcast; alone, the indices where it holds.

    >>> import kobai
    >>> x = kobai.tensor([-1., 2.])
    >>> kobai.where(x > 0, x, 0.)
    tensor([0., 2.])
    """
    need_tensor("where", condition)
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    if condition._array.dtype == np.uint8:  # what comparisons gave before PyTorch had truth values
        condition = condition != 0
    if condition._array.dtype.kind != "b":
        raise RuntimeError(f"where: expected a condition of truth values (bool), got {condition.dtype}")
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        kinds = {**dict.fromkeys(FLOATING, get_default_dtype()), "b": np.bool_}
        kind = kinds.get(np.asarray(input).dtype.kind, np.int64)
        input = scalar("where", input, condition, kind)
    a, b = pair("where", input, other)
    if not isinstance(a, Tensor):
        a = scalar("where", a, b)
    if not isinstance(b, Tensor):
        b = scalar("where", b, a)
    return _where(condition, a, b)


method(lambda self, condition, other: where(condition, self, other), name="where")


@method(in_place=True)
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value`` (a number or a tensor without dimensions) where ``mask`` holds, ``input`` elsewhere.

    >>> import kobai
    >>> kobai.zeros(3).masked_fill(kobai.tensor([True, False, True]), float("-inf"))
    tensor([-inf, 0., -inf])
    """
    need_tensor("masked_fill", input, mask)
    if mask._array.dtype.kind != "b":
        raise RuntimeError(f"masked_fill: expected a mask of truth values (bool), got {mask.dtype}")
    if isinstance(value, Tensor):
        if value._array.ndim:
            raise RuntimeError(f"masked_fill: expected a value without dimensions, got shape {tuple(value.shape)}")
        value = cast(value, input._array.dtype)
    else:
        value = scalar("masked_fill", value, input)
    return _where(mask, value, input)


@method
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """Vector of the elements where ``mask``, broadcast against ``input``, holds.

    >>> import kobai
    >>> x = kobai.tensor([[1, 2], [3, 4]])
    >>> kobai.masked_select(x, x > 1)
    tensor([2, 3, 4])
    """
    need_tensor("masked_select", input, mask)
    if mask._array.dtype.kind != "b":
        raise RuntimeError(f"masked_select: expected a mask of truth values (bool), got {mask.dtype}")
    shape = np.broadcast_shapes(input._array.shape, mask._array.shape)
    if not shape:
        shape = (1,)
    return getitem(input.expand(shape), mask.expand(shape))


@method
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Indices of the elements that are not zero, one row each; as a tuple, one vector per dimension.

    >>> import kobai
    >>> kobai.tensor([0, 3, 5]).nonzero()
    tensor([[1],
            [2]])
    """
    need_tensor("nonzero", input)
    array = input._array if input._array.ndim or not as_tuple else input._array.reshape(1)
    found = xp_of(array).argwhere(array)
    if as_tuple:
        return tuple(Tensor._wrap(found[:, d]) for d in range(array.ndim))
    return Tensor._wrap(found)


argwhere = nonzero
method(nonzero, name="argwhere")
