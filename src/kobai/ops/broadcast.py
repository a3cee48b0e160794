"""Broadcasting: dimensions of size 1, or that are not there, repeated without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai.core.primitive import method, primitive
from kobai.core.tensor import Size, Tensor
from kobai.ops._args import drawn, unbroadcast
from kobai.ops.shape import sizes_of
from kobai.xp import Array, xp_of

__all__ = ["broadcast_shapes", "broadcast_tensors", "broadcast_to", "expand"]


@primitive(kind="view", sample=[drawn((4, 1, 3), (4, 2, 3)), drawn((3,), (2, 5, 3)), drawn((), (2, 0))])
def _expand(x: Array, shape: tuple[int, ...]) -> Any:
    before = x.shape
    if type(x) is np.ndarray and x.size and x.flags.c_contiguous:  # a tenth of NumPy's time
        steps = [0 if n == 1 else step for n, step in zip(before, x.strides, strict=True)]
        y = np.ndarray(shape, x.dtype, x, 0, (0,) * (len(shape) - len(before)) + tuple(steps))
    else:
        y = xp_of(x).broadcast_to(x, shape)
        if type(y) is np.ndarray and x.flags.writeable:
            y.flags.writeable = True  # NumPy would refuse to write where no element repeats, too
    return y, lambda dy: (unbroadcast(dy, before),)


@method
def expand(input: Tensor, *sizes: Any, size: Any = None) -> Tensor:
    """A view in which dimensions of size 1 repeat without a copy; −1 keeps a size; new dimensions come in front.

    >>> import kobai
    >>> kobai.tensor([[1], [2]]).expand(-1, 3)
    tensor([[1, 1, 1],
            [2, 2, 2]])
    """
    wanted, shape = sizes_of("expand", sizes if size is None else (size,)), input._array.shape
    extra = len(wanted) - len(shape)
    full, fits = list(wanted), extra >= 0
    for d, n in enumerate(shape if fits else (), extra):
        if full[d] == -1:
            full[d] = n
        elif n != 1 and n != full[d]:
            fits = False
    if not fits or (full and min(full) < 0):
        raise RuntimeError(f"expand: shape {tuple(shape)} cannot be expanded to {tuple(wanted)}")
    return _expand(input, tuple(full))


@method
def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """``input.expand(other.shape)``."""
    return expand(input, other._array.shape)


@method
def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """``input.expand(size)``.

    >>> import kobai
    >>> kobai.broadcast_to(kobai.tensor([1, 2]), (2, 2))
    tensor([[1, 2],
            [1, 2]])
    """
    return expand(input, size)


def broadcast_shapes(*shapes: Any) -> Size:
    """Shape to which ``shapes`` broadcast; RuntimeError if they do not.

    >>> import kobai
    >>> kobai.broadcast_shapes((4, 1), (3,))
    kobai.Size([4, 3])
    """
    try:
        return Size(np.broadcast_shapes(*shapes))
    except ValueError:
        raise RuntimeError(
            f"broadcast: shapes {', '.join(str(tuple(s)) for s in shapes)} do not fit together"
        ) from None


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Views of all tensors in their common shape.

    >>> import kobai
    >>> kobai.broadcast_tensors(kobai.tensor([[1], [2]]), kobai.tensor([3, 4]))[1]
    tensor([[3, 4],
            [3, 4]])
    """
    shape = broadcast_shapes(*(tensor._array.shape for tensor in tensors))
    return tuple(expand(tensor, shape) for tensor in tensors)
