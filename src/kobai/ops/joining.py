"""Tensors put together: cat, stack, grids, blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.ops._args import cast, drawn, into, need_tensor, normalize_axis, numpy_names, result_dtype
from kobai.ops._positions import placed
from kobai.ops.broadcast import broadcast_tensors
from kobai.ops.shape import reshape, transpose, unsqueeze
from kobai.xp import Array, xp_of

__all__ = [
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "block_diag",
    "cartesian_prod",
    "cat",
    "column_stack",
    "concat",
    "concatenate",
    "dstack",
    "hstack",
    "meshgrid",
    "row_stack",
    "stack",
    "vstack",
]


@primitive(
    sample=[drawn([(4, 3), (2, 3)], {"axis": 0}), drawn([(2, 3, 2), (2, 0, 2), (2, 1, 2)], {"axis": 1})], half="own"
)
def _cat(*arrays: Array, axis: int) -> Any:
    sizes = [array.shape[axis] for array in arrays]

    def vjp(dy: Array) -> list[Array]:
        before, start, parts = (slice(None),) * axis, 0, []
        for size in sizes:
            parts.append(dy[(*before, slice(start, start + size))])
            start += size
        return parts

    return xp_of(arrays[0]).concatenate(arrays, axis=axis), vjp


@primitive(
    sample=[
        drawn((4, 3), ((1, 1, 2), (0, 3, 0)), 0.5),
        drawn((4, 3), ((1, -1, 2), (0, 1, -2)), 0.0),
        drawn((0, 3), ((0, 2, 0),), 1.0),
    ],
    half="own",
)
def _pad(x: Array, sizes: tuple[tuple[int, int, int], ...], value: float) -> Any:
    shape, inside, kept = list(x.shape), [slice(None)] * x.ndim, [slice(None)] * x.ndim
    for axis, before, after in sizes:
        n = shape[axis]
        shape[axis] = n + before + after
        inside[axis] = slice(max(before, 0), shape[axis] - max(after, 0))
        kept[axis] = slice(max(-before, 0), n - max(-after, 0))
    there, here, whole = tuple(inside), tuple(kept), x.shape
    y = xp_of(x).full(tuple(shape), value, dtype=x.dtype)
    y[there] = x[here]

    def vjp(dy: Array) -> Any:
        part = dy[there]
        return (part if part.shape == whole else lambda: placed(part, whole, here), None, None)

    return y, vjp


surrounded = _pad
"""A tensor with so many elements of one value (before, after) an axis, or without so many of its own."""


@primitive(
    sample=[
        drawn([(4, 3), (4, 3)], {"axis": 0}),
        drawn([(2, 3), (2, 3), (2, 3)], {"axis": 2}),
        drawn([(), ()], {"axis": 0}),
    ],
    half="own",
)
def _stack(*arrays: Array, axis: int) -> Any:
    before = (slice(None),) * axis
    n = len(arrays)
    return xp_of(arrays[0]).stack(arrays, axis=axis), lambda dy: [dy[(*before, i, ...)] for i in range(n)]


_NONE = "{}: expected at least one tensor, got none"


def _alike(who: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors with their common dtype."""
    if isinstance(tensors, Tensor) or not isinstance(tensors, (tuple, list)):
        raise TypeError(f"{who}: expected a list or tuple of Tensors, got {type(tensors).__name__}")
    if not tensors:
        raise (ValueError if who == "cat" else RuntimeError)(_NONE.format(who))
    need_tensor(who, tensors[0])
    first = tensors[0]._array.dtype
    same = True
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            need_tensor(who, tensor)
        same = same and tensor._array.dtype == first
    if same:
        return list(tensors)
    common = tensors[0]
    for tensor in tensors[1:]:
        if result_dtype(common, tensor) != common._array.dtype:
            common = cast(tensor.detach(), result_dtype(common, tensor))
    return [cast(tensor, common._array.dtype) for tensor in tensors]


@numpy_names
def cat(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor:
    """The tensors one after the other along dimension ``dim``; their other sizes must be equal.

    As in PyTorch, tensors of shape (0,) fit anything.

    >>> import kobai
    >>> kobai.cat([kobai.tensor([1, 2]), kobai.tensor([3])])
    tensor([1, 2, 3])
    """
    parts = _alike("cat", tensors)
    if any(part._array.shape == (0,) for part in parts):
        parts = [part for part in parts if part._array.shape != (0,)] or parts[:1]
    first = parts[0]._array.shape
    if not first:
        raise RuntimeError("cat: tensors without dimensions cannot be joined; use stack()")
    axis = normalize_axis("cat", dim, len(first))
    for i, part in enumerate(parts):
        shape = part._array.shape
        if shape[:axis] != first[:axis] or shape[axis + 1 :] != first[axis + 1 :] or len(shape) != len(first):
            raise RuntimeError(
                f"cat: expected sizes equal to those of the first tensor {tuple(first)} but in dim {axis}, "
                f"got {tuple(shape)} for tensor {i}"
            )
    return into("cat", out, _cat(*parts, axis=axis))


concat = concatenate = cat


@numpy_names
def stack(tensors: Sequence[Tensor], dim: int = 0, *, out: Tensor | None = None) -> Tensor:
    """The tensors, all of one shape, side by side in a new dimension ``dim``.

    >>> import kobai
    >>> kobai.stack([kobai.tensor([1, 2]), kobai.tensor([3, 4])], dim=1)
    tensor([[1, 3],
            [2, 4]])
    """
    parts = _alike("stack", tensors)
    first = parts[0]._array.shape
    for i, part in enumerate(parts):
        if part._array.shape != first:
            raise RuntimeError(
                f"stack: expected equal shapes, got {tuple(first)} and {tuple(part.shape)} for tensor {i}"
            )
    return into("stack", out, _stack(*parts, axis=normalize_axis("stack", dim, len(first) + 1)))


def _at_least(rank: int, tensor: Tensor) -> Tensor:
    """With dimensions of size 1 in front up to ``rank``; the third of three comes last, as in NumPy's dstack."""
    while tensor._array.ndim < min(rank, 2):
        tensor = unsqueeze(tensor, 0)
    return unsqueeze(tensor, -1) if rank == 3 and tensor._array.ndim == 2 else tensor


def _each_at_least(rank: int, tensors: tuple[Any, ...]) -> Any:
    if len(tensors) == 1:
        if isinstance(tensors[0], Tensor):
            return _at_least(rank, tensors[0])
        tensors = tuple(tensors[0])
    return tuple(_at_least(rank, tensor) for tensor in tensors)


def atleast_1d(*tensors: Any) -> Any:
    """The tensor, or each of several, with at least one dimension.

    >>> import kobai
    >>> kobai.atleast_1d(kobai.tensor(5))
    tensor([5])
    """
    return _each_at_least(1, tensors)


def atleast_2d(*tensors: Any) -> Any:
    """The tensor, or each of several, with at least two dimensions: a vector becomes a row.

    >>> import kobai
    >>> kobai.atleast_2d(kobai.tensor([1, 2]))
    tensor([[1, 2]])
    """
    return _each_at_least(2, tensors)


def atleast_3d(*tensors: Any) -> Any:
    """The tensor, or each of several, with at least three dimensions: a vector becomes (1, n, 1).

    >>> import kobai
    >>> kobai.atleast_3d(kobai.tensor([1, 2])).shape
    kobai.Size([1, 2, 1])
    """
    return _each_at_least(3, tensors)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined from left to right: along the second dimension, vectors along their only one.

    >>> import kobai
    >>> kobai.hstack((kobai.tensor([1, 2]), kobai.tensor([3])))
    tensor([1, 2, 3])
    """
    if not tensors:
        raise RuntimeError(_NONE.format("hstack"))
    parts = [_at_least(1, tensor) for tensor in tensors]
    return cat(parts, 0 if parts[0]._array.ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined from top to bottom: along the first dimension, vectors as rows.

    >>> import kobai
    >>> kobai.vstack((kobai.tensor([1, 2]), kobai.tensor([3, 4])))
    tensor([[1, 2],
            [3, 4]])
    """
    if not tensors:
        raise RuntimeError(_NONE.format("vstack"))
    return cat([_at_least(2, tensor) for tensor in tensors], 0)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the third dimension.

    >>> import kobai
    >>> kobai.dstack((kobai.tensor([1, 2]), kobai.tensor([3, 4])))
    tensor([[[1, 3],
             [2, 4]]])
    """
    if not tensors:
        raise RuntimeError(_NONE.format("dstack"))
    return cat([_at_least(3, tensor) for tensor in tensors], 2)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinates of the grid spanned by vectors, one tensor each: ``"ij"`` rows first, ``"xy"`` columns first.

    >>> import kobai
    >>> kobai.meshgrid(kobai.tensor([1, 2]), kobai.tensor([3, 4, 5]))[0]
    tensor([[1, 1, 1],
            [2, 2, 2]])
    """
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tuple(tensors[0])
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f"meshgrid: expected indexing 'ij' or 'xy', got {indexing!r}")
    need_tensor("meshgrid", *tensors)
    rank = len(tensors)
    columns = []
    for i, tensor in enumerate(tensors):
        if tensor._array.ndim > 1:
            raise RuntimeError(f"meshgrid: expected vectors, got shape {tuple(tensor.shape)}")
        columns.append(tensor.reshape(*(1,) * i, -1, *(1,) * (rank - i - 1)))
    grids = broadcast_tensors(*columns)
    return tuple(transpose(grid, 0, 1) for grid in grids) if indexing == "xy" and rank > 1 else grids


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the elements of vectors, one per row.

    >>> import kobai
    >>> kobai.cartesian_prod(kobai.tensor([1, 2]), kobai.tensor([3, 4]))
    tensor([[1, 3],
            [1, 4],
            [2, 3],
            [2, 4]])
    """
    return tensors[0] if len(tensors) == 1 else stack([grid.reshape(-1) for grid in meshgrid(*tensors)], 1)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined from left to right, vectors as columns.

    >>> import kobai
    >>> kobai.column_stack((kobai.tensor([1, 2]), kobai.tensor([3, 4])))
    tensor([[1, 3],
            [2, 4]])
    """
    return cat([reshape(tensor, -1, 1) if tensor._array.ndim < 2 else tensor for tensor in tensors], 1)


row_stack = vstack


def block_diag(*tensors: Tensor) -> Tensor:
    """The matrices one after the other along the diagonal, zero elsewhere; vectors are rows.

    >>> import kobai
    >>> kobai.block_diag(kobai.tensor([[1, 2], [3, 4]]), kobai.tensor([5]))
    tensor([[1, 2, 0],
            [3, 4, 0],
            [0, 0, 5]])
    """
    blocks = [_at_least(2, tensor) for tensor in _alike("block_diag", tensors)]
    rows = sum(block._array.shape[0] for block in blocks)
    columns = sum(block._array.shape[1] for block in blocks)
    first = blocks[0]._array
    out: Tensor = Tensor._wrap(xp_of(first).zeros((rows, columns), first.dtype))
    row = column = 0
    for block in blocks:
        height, width = block._array.shape
        out[row : row + height, column : column + width] = block
        row, column = row + height, column + width
    return out
