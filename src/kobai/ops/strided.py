"""Views by sizes and steps in memory, and copies in which such a part – a slice, a diagonal – is replaced."""

from __future__ import annotations

import math
from typing import Any

from kobai.core.primitive import among, method, primitive
from kobai.core.tensor import Tensor
from kobai.ops._args import drawn, existing_axis, need, need_tensor
from kobai.ops._positions import add_at
from kobai.ops.create import empty
from kobai.ops.index import getitem
from kobai.ops.parts import select
from kobai.ops.shape import clone, diagonal, of_itself, permute, reshape, sizes_of
from kobai.xp import Array, xp_of

__all__ = ["as_strided", "diagonal_scatter", "empty_strided", "select_scatter", "slice_scatter"]

# --- views of memory --------------------------------------------------------------------------------------------------


@primitive(
    kind="view",
    sample=[
        drawn((12,), (2, 3), (3, 1), 3),
        drawn((7,), (3, 3), (2, 1), 0),  # windows that overlap
        drawn((5,), (2, 0), (3, 1), 1),
        drawn((1,), (3,), (0,), 0),
    ],
)
def _strided(x: Array, size: tuple[int, ...], stride: tuple[int, ...], start: int) -> Any:
    """y[i, j, ...] = x[start + i · stride₀ + j · stride₁ + ...] of a vector x."""
    xp, n = xp_of(x), x.size

    def seen(vector: Array) -> Array:
        steps = [step * vector.strides[0] for step in stride]
        return xp.lib.stride_tricks.as_strided(vector[start:], size, steps)

    return seen(x), lambda dy: (lambda: add_at(xp.zeros(n, dy.dtype), seen(xp.arange(n)), dy), None, None, None)


def _memory(x: Tensor) -> Tensor:
    """The elements of ``x`` in the order in which they lie in memory, as a vector that views them."""
    order = sorted(range(x.ndim), key=lambda d: (-x._array.strides[d], d))
    laid_out = permute(x, order) if order != list(range(x.ndim)) else x
    if not laid_out._array.flags.c_contiguous:
        raise RuntimeError(f"as_strided: expected a tensor without gaps in memory, got strides {x.stride()}")
    return reshape(laid_out, -1)


@method
def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view of the memory of ``input``: element (i, j, ...) is the one at ``storage_offset`` + i · stride₀ + j · stride₁ + ...

    The memory is that of ``input``, or of the tensor that ``input`` is a view of; places count in elements. Elements may
    overlap; their gradients add up. ``storage_offset`` is that of ``input`` unless given. RuntimeError for places outside
    the memory.

    >>> import kobai
    >>> kobai.as_strided(kobai.arange(6), (4, 3), (1, 1))
    tensor([[0, 1, 2],
            [1, 2, 3],
            [2, 3, 4],
            [3, 4, 5]])
    """
    need_tensor("as_strided", input)
    sizes, steps = sizes_of("as_strided", (tuple(size),)), sizes_of("as_strided", (tuple(stride),))
    start = input.storage_offset() if storage_offset is None else storage_offset
    need("as_strided", len(sizes) == len(steps), "a step for every size", f"{sizes} and {steps}")
    need(
        "as_strided", all(n >= 0 for n in (*sizes, *steps, start)), "no negative numbers", f"{sizes}, {steps}, {start}"
    )
    memory = _memory(input if input._base is None else input._base)
    last = start + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True))
    if 0 not in sizes and last >= memory.numel():
        raise RuntimeError(
            f"as_strided: size {sizes}, stride {steps} and offset {start} reach element {last} of {memory.numel()}"
        )
    return _strided(memory, sizes, steps, min(start, memory.numel()))


of_itself(as_strided)


def empty_strided(
    size: Any, stride: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of unset numbers with these steps in memory: element (i, j, ...) lies at i · stride₀ + j · stride₁ + ...

    >>> import kobai
    >>> kobai.empty_strided((2, 3), (1, 2)).stride()
    (1, 2)
    """
    sizes, steps = sizes_of("empty_strided", (tuple(size),)), sizes_of("empty_strided", (tuple(stride),))
    need("empty_strided", len(sizes) == len(steps), "a step for every size", f"{sizes} and {steps}")
    need("empty_strided", all(n >= 0 for n in (*sizes, *steps)), "no negative numbers", f"{sizes} and {steps}")
    places = 0 if 0 in sizes else 1 + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True))
    made = as_strided(empty(places, dtype=dtype, device=device), sizes, steps, 0)
    return made.requires_grad_() if requires_grad else made


@method
def resize_(input: Tensor, *sizes: Any) -> Tensor:
    """Give ``input`` another shape in place: its first elements row by row, or all of them and unset ones behind.

    RuntimeError if a gradient is wanted. Views of ``input`` keep the old memory where the new one has to be larger.
    """
    need("resize_", not input.requires_grad, "a tensor that requires no gradient", "one that does")
    shape = sizes_of("resize_", sizes)
    need("resize_", all(n >= 0 for n in shape), "sizes >= 0", shape)
    array, wanted = input._array, math.prod(shape)
    row = array.reshape(-1)[:wanted]
    if wanted > array.size:
        row = xp_of(array).empty(wanted, array.dtype)
        row[: array.size] = array.reshape(-1)
    input._array, input._base, input._steps = row.reshape(shape), None, ()
    if not xp_of(array).may_share_memory(array, row):
        input._version = [0]  # no longer the memory that others may view
    return input


@method
def resize_as_(input: Tensor, the_template: Tensor) -> Tensor:
    """``input.resize_(the_template.shape)``."""
    need_tensor("resize_as_", the_template)
    return resize_(input, tuple(the_template.shape))


# --- parts replaced ---------------------------------------------------------------------------------------------------


def _replaced(who: str, input: Tensor, src: Tensor, part: Any) -> Tensor:
    """A copy of ``input`` in which ``part``, a view, holds ``src``."""
    need_tensor(who, input, src)
    out = clone(among(who, input, src))
    seen = part(out)
    if seen.shape != src.shape:
        raise RuntimeError(f"{who}: expected a source of shape {tuple(seen.shape)}, got {tuple(src.shape)}")
    seen.copy_(src)
    return out


@method
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of ``input`` in which the slice ``index`` of dimension ``dim`` is ``src``.

    >>> import kobai
    >>> kobai.select_scatter(kobai.zeros(2, 2), kobai.ones(2), 0, 1)
    tensor([[0., 0.],
            [1., 1.]])
    """
    return _replaced("select_scatter", input, src, lambda out: select(out, dim, index))


@method
def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """A copy of ``input`` in which the slices start, start + step, ... below ``end`` of dimension ``dim`` are ``src``.

    >>> import kobai
    >>> kobai.slice_scatter(kobai.zeros(4), kobai.ones(2), start=0, step=2)
    tensor([1., 0., 1., 0.])
    """
    need_tensor("slice_scatter", input, src)
    need("slice_scatter", step > 0, "step > 0", step)
    key = (slice(None),) * existing_axis("slice_scatter", dim, input.ndim) + (slice(start, end, step),)
    return _replaced("slice_scatter", input, src, lambda out: getitem(out, key))


@method
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy of ``input`` in which its :func:`diagonal` is ``src``.

    >>> import kobai
    >>> kobai.diagonal_scatter(kobai.zeros(2, 2), kobai.tensor([1., 2.]))
    tensor([[1., 0.],
            [0., 2.]])
    """
    return _replaced("diagonal_scatter", input, src, lambda out: diagonal(out, offset, dim1, dim2))
