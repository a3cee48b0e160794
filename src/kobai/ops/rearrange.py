"""Copies in another arrangement: repeating, reordering, triangles and diagonals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.ops._args import drawn, existing_axis, need, normalize_axes, normalize_axis, numpy_names
from kobai.ops.broadcast import expand
from kobai.ops.gather import index_select
from kobai.ops.shape import clone, contiguous, diagonal as diagonal_of, fresh, movedim, reshape, sizes_of, transpose
from kobai.xp import Array, asarray, default_device, to_host, xp_of

__all__ = [
    "diag",
    "diag_embed",
    "flip",
    "fliplr",
    "flipud",
    "repeat_interleave",
    "roll",
    "rot90",
    "tile",
    "tril",
    "tril_indices",
    "triu",
    "triu_indices",
]

# --- repeating --------------------------------------------------------------------------------------------------------


@method
def repeat(input: Tensor, *sizes: Any, repeats: Any = None) -> Tensor:
    """``input`` put together from ``sizes[d]`` copies along every dimension; sizes may name more dimensions in front.

    >>> import kobai
    >>> kobai.tensor([1, 2]).repeat(2, 2)
    tensor([[1, 2, 1, 2],
            [1, 2, 1, 2]])
    """
    counts, shape = sizes_of("repeat", sizes if repeats is None else (repeats,)), input._array.shape
    extra = len(counts) - len(shape)
    if extra < 0 or any(n < 0 for n in counts):
        raise RuntimeError(f"repeat: expected at least {len(shape)} counts ≥ 0, got {counts}")
    shape = (1,) * extra + shape
    spread = expand(
        input.reshape([n for size in shape for n in (1, size)]),
        [n for pair in zip(counts, shape, strict=True) for n in pair],
    )
    return fresh(contiguous(spread.reshape([count * size for count, size in zip(counts, shape, strict=True)])), input)


@method
def tile(input: Tensor, *counts: Any, dims: Any = None) -> Tensor:
    """As :func:`repeat`, but missing counts in front are 1.

    >>> import kobai
    >>> kobai.tile(kobai.tensor([[1, 2]]), 2)
    tensor([[1, 2, 1, 2]])
    """
    counts = sizes_of("tile", counts if dims is None else (dims,))
    return repeat(input, (1,) * (input._array.ndim - len(counts)) + counts)


@method
@numpy_names
def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Every slice of dimension ``dim`` (None: every element) ``repeats`` times in a row; ``repeats`` may be a tensor.

    Of repeats alone: the indices 0, 1, ..., each as often as they say.

    >>> import kobai
    >>> kobai.repeat_interleave(kobai.tensor([1, 2]), kobai.tensor([2, 1]))
    tensor([1, 1, 2])
    """
    if repeats is None:
        need("repeat_interleave", input.ndim == 1, "a vector of repeats", f"shape {tuple(input.shape)}")
        input, repeats = Tensor._wrap(xp_of(input._array).arange(input.numel())), input
    if dim is None:
        input, dim = input.reshape(-1), 0
    axis = existing_axis("repeat_interleave", dim, input._array.ndim)
    size = input._array.shape[axis]
    counts = to_host(repeats._array) if isinstance(repeats, Tensor) else np.asarray(repeats)
    if counts.dtype.kind not in "iu" or (counts.size and counts.min() < 0):
        raise RuntimeError(f"repeat_interleave: expected integers ≥ 0 as repeats, got {repeats!r}")
    if counts.size not in (1, size) or counts.ndim > 1:
        raise RuntimeError(f"repeat_interleave: expected 1 or {size} repeats, got shape {counts.shape}")
    order = np.repeat(np.arange(size), counts if counts.size == size else int(counts.item()))
    if output_size is not None and output_size != order.size:
        raise RuntimeError(f"repeat_interleave: output_size is {output_size}, but repeats add up to {order.size}")
    return index_select(input, axis, Tensor._wrap(asarray(order, device=input.device)))


# --- reordering -------------------------------------------------------------------------------------------------------


@primitive(sample=[drawn((4, 3), (0,)), drawn((2, 3, 2), (0, 2)), drawn((0, 3), (1,))], half="own")
def _flip(x: Array, axes: tuple[int, ...]) -> Any:
    xp = xp_of(x)
    return xp.flip(x, axes).copy(), lambda dy: (xp.flip(dy, axes),)


@method
def flip(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """A copy with the order reversed along ``dims``.

    >>> import kobai
    >>> kobai.flip(kobai.tensor([[1, 2], [3, 4]]), dims=(0, 1))
    tensor([[4, 3],
            [2, 1]])
    """
    axes = sizes_of("flip", args if dims is None else (dims,))
    return _flip(input, normalize_axes("flip", axes, input._array.ndim)) if axes else clone(input)


@method
def fliplr(input: Tensor) -> Tensor:
    """Columns from right to left.

    >>> import kobai
    >>> kobai.fliplr(kobai.tensor([[1, 2], [3, 4]]))
    tensor([[2, 1],
            [4, 3]])
    """
    if input._array.ndim < 2:
        raise RuntimeError(f"fliplr: expected at least two dimensions, got {tuple(input.shape)}")
    return flip(input, 1)


@method
def flipud(input: Tensor) -> Tensor:
    """Rows from bottom to top.

    >>> import kobai
    >>> kobai.flipud(kobai.tensor([[1, 2], [3, 4]]))
    tensor([[3, 4],
            [1, 2]])
    """
    if input._array.ndim < 1:
        raise RuntimeError("flipud: expected at least one dimension, got none")
    return flip(input, 0)


@primitive(sample=[drawn((4, 3), (1,), (0,)), drawn((4, 3), (-1, 2), (0, 1)), drawn((0, 3), (2,), (1,))], half="own")
def _roll(x: Array, shifts: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    xp = xp_of(x)
    return xp.roll(x, shifts, axes), lambda dy: (xp.roll(dy, tuple(-shift for shift in shifts), axes),)


@method
def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Slices moved by ``shifts`` places along ``dims``, those pushed out coming in again at the other end.

    >>> import kobai
    >>> kobai.roll(kobai.arange(4), 1)
    tensor([3, 0, 1, 2])
    """
    by = sizes_of("roll", (shifts,))
    if not by:
        raise RuntimeError("roll: expected shifts, got none")
    if dims is None:
        return reshape(_roll(reshape(input, -1), by, (0,)), input._array.shape)
    along = sizes_of("roll", (dims,))
    if len(by) != len(along):
        raise RuntimeError(f"roll: expected as many shifts as dims, got {by} and {along}")
    return _roll(input, by, tuple(existing_axis("roll", dim, input._array.ndim) for dim in along))


@method
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned ``k`` times by a right angle from the first of ``dims`` towards the second.

    >>> import kobai
    >>> kobai.rot90(kobai.tensor([[1, 2], [3, 4]]))
    tensor([[2, 4],
            [1, 3]])
    """
    rank = input._array.ndim
    if len(dims) != 2 or rank < 2:
        raise RuntimeError(f"rot90: expected two dims of a tensor of at least two, got {tuple(dims)} of {rank}")
    a, b = normalize_axes("rot90", dims, rank)
    if k % 4 == 0:
        return clone(input)
    if k % 4 == 2:
        return flip(input, a, b)
    return flip(transpose(input, a, b), a) if k % 4 == 1 else transpose(flip(input, a), a, b)


# --- triangles and diagonals --------------------------------------------------------------------------------------------


@primitive(sample=[drawn((4, 3), 0), drawn((2, 3, 3), 1)], half="own")
def _tril(x: Array, diagonal: int) -> Any:
    return _cut("tril", x, diagonal), lambda dy: (_cut("tril", dy, diagonal),)


@primitive(sample=[drawn((4, 3), 0), drawn((2, 3, 3), -1)], half="own")
def _triu(x: Array, diagonal: int) -> Any:
    return _cut("triu", x, diagonal), lambda dy: (_cut("triu", dy, diagonal),)


def _cut(name: str, x: Array, diagonal: int) -> Array:
    return getattr(xp_of(x), name)(x, diagonal).astype(x.dtype, copy=False)  # CuPy makes float32 of bfloat16


@method(in_place=True)
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """Lower triangle of the last two dimensions, zero above the given diagonal.

    >>> import kobai
    >>> kobai.tril(kobai.ones(2, 3), diagonal=1)
    tensor([[1., 1., 0.],
            [1., 1., 1.]])
    """
    if input._array.ndim < 2:
        raise RuntimeError(f"tril: expected at least 2 dimensions, got shape {tuple(input.shape)}")
    return _tril(input, diagonal)


@method(in_place=True)
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """Upper triangle of the last two dimensions, zero below the given diagonal.

    >>> import kobai
    >>> kobai.triu(kobai.ones(3, 3), diagonal=1)  # which positions a causal attention hides
    tensor([[0., 1., 1.],
            [0., 0., 1.],
            [0., 0., 0.]])
    """
    if input._array.ndim < 2:
        raise RuntimeError(f"triu: expected at least 2 dimensions, got shape {tuple(input.shape)}")
    return _triu(input, diagonal)


@primitive(sample=[drawn((3,), 0), drawn((2, 3), -1), drawn((0,), 0)], half="own")
def _diag_embed(x: Array, offset: int) -> Any:
    xp = xp_of(x)
    n = x.shape[-1]
    rows = xp.arange(n) + max(-offset, 0)
    columns = xp.arange(n) + max(offset, 0)
    y = xp.zeros((*x.shape[:-1], n + abs(offset), n + abs(offset)), x.dtype)
    y[..., rows, columns] = x
    return y, lambda dy: (dy[..., rows, columns],)


@method
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last dimension of ``input`` on their diagonal ``offset``, zero elsewhere.

    >>> import kobai
    >>> kobai.diag_embed(kobai.tensor([1, 2]), offset=1)
    tensor([[0, 1, 0],
            [0, 0, 2],
            [0, 0, 0]])
    """
    y = _diag_embed(input, offset)
    rank = y._array.ndim
    a, b = normalize_axis("diag_embed", dim1, rank), normalize_axis("diag_embed", dim2, rank)
    return y if (a, b) == (rank - 2, rank - 1) else movedim(y, (-2, -1), (a, b))


@method
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """Of a vector, the matrix with it on the diagonal; of a matrix, a copy of its diagonal.

    >>> import kobai
    >>> kobai.diag(kobai.tensor([1, 2])), kobai.diag(kobai.tensor([[1, 2], [3, 4]]))
    (tensor([[1, 0],
            [0, 2]]), tensor([1, 4]))
    """
    if input._array.ndim == 1:
        return _diag_embed(input, diagonal)
    if input._array.ndim != 2:
        raise RuntimeError(f"diag: expected a vector or a matrix, got shape {tuple(input.shape)}")
    return clone(diagonal_of(input, diagonal))


def _triangle(who: str, find: Any, row: int, col: int, offset: int, dtype: Any, device: Any) -> Tensor:
    need(who, row >= 0 and col >= 0, "row and col >= 0", f"{row} and {col}")
    kind = np.dtype(dtype)
    need(who, kind in (np.int32, np.int64), "dtype int32 or int64", kind)
    return Tensor._wrap(asarray(np.stack(find(row, offset, col)), dtype=kind, device=device or default_device()))  # type: ignore[no-any-return]


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = np.int64, device: Any = None) -> Tensor:
    """Row and column numbers, shape (2, n), of the lower triangle of a (row, col) matrix, row by row.

    >>> import kobai
    >>> kobai.tril_indices(2, 2)
    tensor([[0, 1, 1],
            [0, 0, 1]])
    """
    return _triangle("tril_indices", np.tril_indices, row, col, offset, dtype, device)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = np.int64, device: Any = None) -> Tensor:
    """Row and column numbers, shape (2, n), of the upper triangle of a (row, col) matrix, row by row.

    >>> import kobai
    >>> kobai.triu_indices(2, 2, offset=1)
    tensor([[0],
            [1]])
    """
    return _triangle("triu_indices", np.triu_indices, row, col, offset, dtype, device)
