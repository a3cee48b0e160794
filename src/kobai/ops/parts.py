"""Parts of a tensor as views: select, narrow, split, chunk, unbind; and its windows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Any

from kobai.core.outputs import views
from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.ops._args import drawn, existing_axis, need, normalize_axis, numpy_names
from kobai.ops._positions import add_at
from kobai.ops.index import _part, getitem
from kobai.ops.shape import reshape
from kobai.xp import Array, xp_of

__all__ = [
    "chunk",
    "dsplit",
    "hsplit",
    "narrow",
    "select",
    "split",
    "split_with_sizes",
    "tensor_split",
    "unbind",
    "unsafe_chunk",
    "unsafe_split",
    "vsplit",
]


def _slice(input: Tensor, axis: int, start: int, stop: int) -> Tensor:
    return getitem(input, (slice(None),) * axis + (slice(start, stop),))


def _slices(input: Tensor, axis: int, cuts: Iterable[Any]) -> tuple[Tensor, ...]:
    """Views between each of the cuts and the next."""
    before = (slice(None),) * axis
    return views(_part, input, [(*before, slice(start, max(start, stop))) for start, stop in pairwise(cuts)])


@method
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """View of the slice ``index`` of dimension ``dim``, which goes away.

    >>> import kobai
    >>> kobai.select(kobai.tensor([[1, 2], [3, 4]]), dim=1, index=0)
    tensor([1, 3])
    """
    return getitem(input, (slice(None),) * normalize_axis("select", dim, input._array.ndim) + (index,))


@method
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """View of ``length`` slices of dimension ``dim`` from ``start`` on.

    >>> import kobai
    >>> kobai.narrow(kobai.tensor([0, 1, 2, 3, 4]), dim=0, start=1, length=3)
    tensor([1, 2, 3])
    """
    if isinstance(start, Tensor):
        if start._array.dtype.kind not in "iu" or start._array.ndim:
            raise RuntimeError(
                f"narrow: expected start as an integer without dimensions, got {start.dtype} {tuple(start.shape)}"
            )
        start = start.item()
    axis = existing_axis("narrow", dim, input._array.ndim, RuntimeError)
    size = input._array.shape[axis]
    if not -size <= start <= size:
        raise IndexError(f"narrow: expected start in [{-size}, {size}], got {start}")
    begin = start + size if start < 0 else start
    if not 0 <= length <= size - begin:
        raise RuntimeError(f"narrow: start {start} with length {length} does not fit the size {size} of dim {dim}")
    return _slice(input, axis, begin, begin + length)


@method
@numpy_names
def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of parts of ``split_size_or_sections`` slices each (the last may be smaller), or of the listed sizes.

    >>> import kobai
    >>> [part.shape[0] for part in kobai.arange(7).split(3)]
    [3, 3, 1]
    """
    axis = existing_axis("split", dim, tensor._array.ndim, RuntimeError)
    size = tensor._array.shape[axis]
    sections = split_size_or_sections
    if isinstance(sections, (tuple, list)):
        if sum(sections) != size or any(n < 0 for n in sections):
            raise RuntimeError(f"split: sizes {list(sections)} do not add up to the {size} of dim {dim}")
    else:
        if sections < 0 or (sections == 0 and size):
            raise RuntimeError(f"split: expected a positive size, got {sections}")
        sections = [sections] * (size // sections) + [size % sections] * (size % sections > 0) if size else [0]
    return _slices(tensor, axis, accumulate(sections, initial=0))


@method
@numpy_names
def split_with_sizes(input: Tensor, split_sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of parts of the listed sizes, as :func:`split` gives them.

    >>> import kobai
    >>> kobai.split_with_sizes(kobai.arange(3), (1, 2))
    (tensor([0]), tensor([1, 2]))
    """
    return split(input, list(split_sizes), dim)


@method
@numpy_names
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of at most ``chunks`` parts, all of the same size but perhaps the last.

    >>> import kobai
    >>> kobai.chunk(kobai.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    need("chunk", chunks >= 1, "chunks ≥ 1", chunks)
    size = input._array.shape[existing_axis("chunk", dim, input._array.ndim, RuntimeError)]
    return split(input, max(-(-size // chunks), 1) if size else [0] * chunks, dim)


@method
@numpy_names
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of n nearly equal parts, or of those between the listed indices (integers, a sequence, or a tensor of them).

    >>> import kobai
    >>> kobai.tensor_split(kobai.arange(5), 2), kobai.tensor_split(kobai.arange(5), (1, 3))
    ((tensor([0, 1, 2]), tensor([3, 4])), (tensor([0]), tensor([1, 2]), tensor([3, 4])))
    """
    axis = existing_axis("tensor_split", dim, input._array.ndim, RuntimeError)
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    size = input._array.shape[axis]
    if isinstance(indices_or_sections, (tuple, list)):
        cuts = [0, *(min(max(i + size if i < 0 else i, 0), size) for i in indices_or_sections), size]
    else:
        if not hasattr(indices_or_sections, "__index__"):
            raise TypeError(f"tensor_split: expected a number of sections or indices, got {indices_or_sections!r}")
        n = int(indices_or_sections)
        need("tensor_split", n >= 1, "at least one section", n)
        cuts = [i * (size // n) + min(i, size % n) for i in range(n + 1)]
    return _slices(input, axis, cuts)


@method
@numpy_names
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of all slices of dimension ``dim``.

    >>> import kobai
    >>> kobai.unbind(kobai.tensor([[1, 2], [3, 4]]), dim=1)
    (tensor([1, 3]), tensor([2, 4]))
    """
    axis = existing_axis("unbind", dim, input._array.ndim)
    before = (slice(None),) * axis
    return views(_part, input, [(*before, i, ...) for i in range(input._array.shape[axis])])


unsafe_split, unsafe_chunk = split, chunk  # nothing here is unsafe: changes of the parts are recorded
method(split, name="unsafe_split")
method(chunk, name="unsafe_chunk")


def _split_along(who: str, input: Tensor, sections: Any, axis: int, rank: int = 0) -> tuple[Tensor, ...]:
    """:func:`tensor_split` of a tensor of at least ``rank`` dimensions into sections that must be equal."""
    rank = max(rank, axis + 1)
    shape = input._array.shape
    if len(shape) < rank:
        raise RuntimeError(f"{who}: expected at least {rank} dimensions, got {shape}")
    if isinstance(sections, int) and (sections < 1 or shape[axis] % sections):
        raise RuntimeError(f"{who}: expected a number of sections that divides the size {shape[axis]}, got {sections}")
    return tensor_split(input, sections, axis)


@method
def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """:func:`tensor_split` from left to right: along the second dimension, of a vector along its only one.

    >>> import kobai
    >>> kobai.hsplit(kobai.tensor([[1, 2], [3, 4]]), 2)[0]
    tensor([[1],
            [3]])
    """
    return _split_along("hsplit", input, indices_or_sections, 0 if input._array.ndim < 2 else 1)


@method
def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """:func:`tensor_split` from top to bottom: along the first dimension.

    >>> import kobai
    >>> kobai.vsplit(kobai.tensor([[1, 2], [3, 4]]), 2)
    (tensor([[1, 2]]), tensor([[3, 4]]))
    """
    return _split_along("vsplit", input, indices_or_sections, 0, rank=2)


@method
def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """:func:`tensor_split` along the third dimension.

    >>> import kobai
    >>> [part.shape for part in kobai.dsplit(kobai.zeros(1, 2, 5), (2,))]
    [kobai.Size([1, 2, 2]), kobai.Size([1, 2, 3])]
    """
    return _split_along("dsplit", input, indices_or_sections, 2)


@primitive(kind="view", sample=[drawn((5, 3), 0, 2, 1), drawn((2, 7, 3), 1, 3, 2), drawn((4, 0), 0, 2, 2)])
def _windows(x: Array, axis: int, size: int, step: int) -> Any:
    xp, shape = xp_of(x), x.shape

    def windows(array: Array) -> Array:
        sizes, strides = list(array.shape), list(array.strides)
        sizes[axis : axis + 1] = [(sizes[axis] - size) // step + 1]
        along = strides[axis]
        strides[axis] = along * step
        return xp.lib.stride_tricks.as_strided(array, (*sizes, size), (*strides, along))

    def dx(dy: Array) -> Array:
        return add_at(xp.zeros(shape, dy.dtype), windows(xp.arange(math.prod(shape)).reshape(shape)), dy)

    return windows(x), lambda dy: (lambda: dx(dy), None, None, None)


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of ``size`` elements, ``step`` apart, along ``dimension``, the window last: a view, whose windows overlap."""
    axis = normalize_axis("unfold", dimension, input._array.ndim)
    length = input._array.shape[axis] if input._array.ndim else 1
    if not 0 <= size <= length or step < 1:
        raise RuntimeError(f"unfold: expected 0 ≤ size ≤ {length} and step ≥ 1, got size {size}, step {step}")
    if not input._array.ndim:
        return getitem(reshape(input, 1), slice(0, size))
    return _windows(input, axis, size, step)


method(unfold)  # as in PyTorch a method only: nn.functional.unfold is another thing
