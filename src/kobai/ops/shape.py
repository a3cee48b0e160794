"""Other views of the same memory: reshape, transpose, squeeze, diagonal; and ``clone``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from kobai.core.grad_mode import is_grad_enabled
from kobai.core.primitive import method, primitive
from kobai.core.tensor import Size, Tensor
from kobai.dtypes import contiguous_format, dtype as DType, memory_format as MemoryFormat, numeric, preserve_format
from kobai.ops._args import drawn, existing_axis, need_format, normalize_axes, normalize_axis, numpy_names
from kobai.xp import Array, xp_of

__all__ = [
    "clone",
    "diagonal",
    "flatten",
    "moveaxis",
    "movedim",
    "permute",
    "ravel",
    "reshape",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "transpose",
    "unflatten",
    "unsqueeze",
]

# --- views ------------------------------------------------------------------------------------------------------------


@primitive(
    kind="view",
    sample=[
        drawn((4, 3), (2, -1)),
        lambda rng: (rng.normal(size=(2, 3, 4)).transpose(2, 0, 1), (8, 3)),
        drawn((0, 3), (3, 0)),
        drawn((), (1, 1)),
    ],
)
def _reshape(x: Array, shape: tuple[int, ...], who: str = "reshape") -> Any:
    before = x.shape
    try:
        y = x.reshape(shape)
    except ValueError:
        raise RuntimeError(f"{who}: shape {list(shape)} does not fit the {x.size} elements of {before}") from None
    return y, lambda dy: (dy.reshape(before),)


@primitive(kind="view", sample=[drawn((4, 3), (1, 0)), drawn((2, 3, 4), (2, 0, 1)), drawn((2, 0, 4), (2, 0, 1))])
def _permute(x: Array, axes: tuple[int, ...]) -> Any:
    def vjp(dy: Array) -> tuple[Array]:
        back = [0] * len(axes)
        for i, axis in enumerate(axes):
            back[axis] = i
        return (dy.transpose(back),)

    return x.transpose(axes), vjp


@primitive(kind="view", sample=[drawn((4, 3), 0, 1), drawn((2, 3, 4), 0, -1), drawn((3, 0), 0, 1)])
def _swap(x: Array, a: int, b: int) -> Any:
    return x.swapaxes(a, b), lambda dy: (dy.swapaxes(a, b),)


@primitive(
    kind="view",
    sample=[drawn((4, 3), 0, 0, 1), drawn((4, 3), 1, 0, 1), drawn((3, 2, 4), -2, 2, 0), drawn((0, 2), 0, 0, 1)],
)
def _diagonal(x: Array, offset: int, axis1: int, axis2: int) -> Any:
    xp, shape, rank = xp_of(x), x.shape, x.ndim
    order = (*(d for d in range(rank) if d not in (axis1 % rank, axis2 % rank)), axis1, axis2)
    top, left = max(-offset, 0), max(offset, 0)
    n = max(0, min(shape[axis1] - top, shape[axis2] - left))
    square = (..., slice(top, top + n), slice(left, left + n))

    def vjp(dy: Array) -> Any:
        def dx() -> Array:
            out = xp.zeros(shape, dy.dtype)
            places = xp.arange(n)
            out.transpose(order)[square][..., places, places] = dy
            return out

        return dx, None, None, None

    return xp.einsum("...ii->...i", x.transpose(order)[square]), vjp  # a view, unlike ndarray.diagonal one to write to


def sizes_of(who: str, sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence, as in PyTorch."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    for size in sizes:
        if type(size) is not int:
            try:
                return tuple(operator.index(size) for size in sizes)
            except TypeError:
                raise TypeError(f"{who}: expected integers, got {sizes!r}") from None
    return sizes


@method
def reshape(input: Tensor, *sizes: Any, shape: Any = None) -> Tensor:
    """The same elements, row by row, in another shape: a view where the strides allow it, else a copy. −1 is worked out.

    >>> import kobai
    >>> kobai.arange(6).reshape(2, -1)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    return _reshape(input, sizes_of("reshape", sizes if shape is None else (shape,)))


@method
def view(input: Tensor, *shape: Any, size: Any = None, dtype: Any = None) -> Tensor:
    """As :func:`reshape`, but never a copy: RuntimeError if the strides forbid a view.

    Of a dtype, the same memory read as elements of that; the last dimension shrinks or grows by the ratio of their sizes.
    """
    if dtype is not None or (len(shape) == 1 and isinstance(shape[0], (DType, np.dtype, type))):
        return _read_as(input, numeric(shape[0] if dtype is None else dtype))
    sizes = sizes_of("view", shape if size is None else (size,))
    out = _reshape(input, sizes, "view")
    array = input._array
    if not array.flags.c_contiguous and array.size and not xp_of(array).may_share_memory(array, out._array):
        raise RuntimeError(
            f"view: shape {list(sizes)} of a tensor of shape {tuple(array.shape)} and strides {input.stride()} needs a "
            "copy; use reshape()"
        )
    return out


def _read_as(input: Tensor, dtype: np.dtype[Any]) -> Tensor:
    if input.requires_grad and is_grad_enabled():
        raise RuntimeError("view: memory read as another dtype has no gradient; use detach(), or to(dtype)")
    try:
        seen: Tensor = Tensor._wrap(input._array.view(dtype))
    except ValueError:
        raise RuntimeError(
            f"view: expected a last dimension, without gaps, that is read as a whole number of {dtype}, got "
            f"{input.dtype} of shape {tuple(input.shape)} and strides {input.stride()}"
        ) from None
    seen._version = input._version
    return seen


@method
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """``input.reshape(other.shape)``."""
    return _reshape(input, other._array.shape)


@method
def view_as(input: Tensor, other: Tensor) -> Tensor:
    """``input.view(other.shape)``."""
    return view(input, other._array.shape)


@method
def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension: a view of a contiguous tensor, else a copy.

    >>> import kobai
    >>> kobai.ravel(kobai.tensor([[1, 2], [3, 4]]))
    tensor([1, 2, 3, 4])
    """
    return _reshape(contiguous(input), (-1,) if input._array.size else (0,))


@method
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions ``start_dim`` to ``end_dim``, both included, joined into one.

    >>> import kobai
    >>> kobai.zeros(2, 3, 4).flatten(1).shape
    kobai.Size([2, 12])
    """
    shape = input._array.shape
    first, last = normalize_axis("flatten", start_dim, len(shape)), normalize_axis("flatten", end_dim, len(shape))
    if first > last:
        raise RuntimeError(f"flatten: expected start_dim ≤ end_dim, got {start_dim} and {end_dim}")
    joined = Size(shape[first : last + 1]).numel()
    return _reshape(input, (*shape[:first], joined, *shape[last + 1 :]))


@method
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Dimension ``dim`` taken apart into ``sizes`` (one of them may be −1).

    >>> import kobai
    >>> kobai.unflatten(kobai.arange(6), 0, (2, -1))
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    shape = input._array.shape
    axis = existing_axis("unflatten", dim, len(shape), RuntimeError)
    inner = list(sizes_of("unflatten", (sizes,)))
    known = Size(n for n in inner if n != -1).numel()
    if inner.count(-1) == 1 and known:
        inner[inner.index(-1)] = shape[axis] // known
    if Size(inner).numel() != shape[axis]:
        raise RuntimeError(f"unflatten: sizes {list(sizes)} do not multiply to the {shape[axis]} of dim {dim}")
    return _reshape(input, (*shape[:axis], *inner, *shape[axis + 1 :]))


@method
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Dimensions ``dim0`` and ``dim1`` exchanged: a view.

    >>> import kobai
    >>> kobai.transpose(kobai.zeros(2, 3, 4), 0, 2).shape
    kobai.Size([4, 3, 2])
    """
    rank = input._array.ndim
    a, b = normalize_axis("transpose", dim0, rank), normalize_axis("transpose", dim1, rank)
    return _swap(input, a, b) if rank else _reshape(input, ())


@method
def t(input: Tensor) -> Tensor:
    """Transpose of a matrix; a vector as it is.

    >>> import kobai
    >>> kobai.t(kobai.tensor([[1, 2, 3]]))
    tensor([[1],
            [2],
            [3]])
    """
    if input._array.ndim > 2:
        raise RuntimeError(f"t: expected at most 2 dimensions, got shape {tuple(input.shape)}; use transpose() or mT")
    return _swap(input, 0, 1) if input._array.ndim == 2 else input


def _matrix_transpose(input: Tensor) -> Tensor:
    """The last two dimensions exchanged: a view."""
    if input._array.ndim < 2:
        raise RuntimeError(f"mT: expected at least 2 dimensions, got shape {tuple(input.shape)}")
    return transpose(input, -2, -1)


def _reversed(input: Tensor) -> Tensor:
    """All dimensions in reverse order: a view."""
    rank = input._array.ndim
    return _swap(input, 0, 1) if rank == 2 else _permute(input, tuple(range(rank - 1, -1, -1)))


def _hermitian(input: Tensor) -> Tensor:
    """Transpose of a matrix (of real numbers, the only ones here): a view."""
    if input._array.ndim not in (0, 2):
        raise RuntimeError(f"H: expected a matrix, got shape {tuple(input.shape)}; use mT")
    return _reversed(input)


for _name, _property in (("T", _reversed), ("mT", _matrix_transpose), ("H", _hermitian), ("mH", _matrix_transpose)):
    setattr(Tensor, _name, property(_property))


@method
def permute(input: Tensor, *order: Any, dims: Any = None) -> Tensor:
    """Dimensions in the order ``dims``: a view.

    >>> import kobai
    >>> kobai.zeros(2, 3, 4).permute(2, 0, 1).shape
    kobai.Size([4, 2, 3])
    """
    order = sizes_of("permute", order if dims is None else (dims,))
    rank = input._array.ndim
    axes = tuple(normalize_axis("permute", dim, rank) for dim in order)
    if len(axes) != rank or len(set(axes)) != rank:
        raise RuntimeError(f"permute: expected each of {rank} dimensions once, got {order}")
    return _permute(input, axes)


@method
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Dimensions ``source`` moved to the places ``destination``; the others keep their order.

    >>> import kobai
    >>> kobai.movedim(kobai.zeros(2, 3, 4), 0, -1).shape
    kobai.Size([3, 4, 2])
    """
    rank = input._array.ndim
    sources, targets = normalize_axes("movedim", source, rank), normalize_axes("movedim", destination, rank)
    if len(sources) != len(targets):
        raise RuntimeError(f"movedim: expected as many sources as destinations, got {source} and {destination}")
    order = [d for d in range(rank) if d not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return _permute(input, tuple(order))


moveaxis, swapaxes, swapdims = movedim, transpose, transpose
method(movedim, name="moveaxis")
method(transpose, name="swapaxes")
method(transpose, name="swapdims")


@method
@numpy_names
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Without the dimensions of size 1: all of them, or those among ``dim`` (an integer or a tuple).

    >>> import kobai
    >>> kobai.squeeze(kobai.zeros(1, 3, 1)).shape, kobai.squeeze(kobai.zeros(1, 3, 1), dim=0).shape
    (kobai.Size([3]), kobai.Size([3, 1]))
    """
    shape = input._array.shape
    axes = () if isinstance(dim, (tuple, list)) and not dim else normalize_axes("squeeze", dim, len(shape))
    return _reshape(input, tuple(n for d, n in enumerate(shape) if n != 1 or d not in axes))


@method
@numpy_names
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a dimension of size 1 put in at ``dim``.

    >>> import kobai
    >>> kobai.zeros(3).unsqueeze(-1).shape
    kobai.Size([3, 1])
    """
    shape = input._array.shape
    axis = normalize_axis("unsqueeze", dim, len(shape) + 1)
    return _reshape(input, (*shape[:axis], 1, *shape[axis:]))


@method
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """View of the diagonal of dimensions ``dim1`` and ``dim2``, put last; ``offset`` > 0 is above the main one.

    >>> import kobai
    >>> kobai.diagonal(kobai.tensor([[1, 2], [3, 4]])), kobai.diagonal(kobai.tensor([[1, 2], [3, 4]]), offset=1)
    (tensor([1, 4]), tensor([2]))
    """
    rank = input._array.ndim
    a, b = normalize_axis("diagonal", dim1, rank), normalize_axis("diagonal", dim2, rank)
    if a == b:
        raise RuntimeError(f"diagonal: expected two different dimensions, got {dim1} and {dim2}")
    return _diagonal(input, offset, a, b)


# --- copies -------------------------------------------------------------------------------------------------------------


@primitive(sample=[drawn((4, 3)), lambda rng: (rng.normal(size=(3, 2)).T,)], kind="elementwise", half="own")
def _clone(x: Array) -> Any:
    return x.copy(), lambda dy: (dy,)


@method
def clone(input: Tensor, *, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """A copy in memory of its own; the gradient passes through. A :class:`kobai.memory_format` changes nothing.

    >>> import kobai
    >>> x = kobai.tensor([1., 2.])
    >>> y = kobai.clone(x).mul_(10)
    >>> x, y
    (tensor([1., 2.]), tensor([10., 20.]))
    """
    if memory_format is not preserve_format:
        need_format("clone", memory_format, input.ndim)
    return _clone(input)


@method
def contiguous(input: Tensor, memory_format: MemoryFormat = contiguous_format) -> Tensor:
    """``input`` with its elements row by row in memory, whatever the memory format: itself, or a copy."""
    if memory_format is not contiguous_format:
        need_format("contiguous", memory_format, input.ndim)
    return input if input._array.flags.c_contiguous else _clone(input)


@method
def is_contiguous(input: Tensor, memory_format: MemoryFormat = contiguous_format) -> bool:
    """Whether the elements lie in memory row by row without gaps; in another memory format, with channels last."""
    n = memory_format.ndim
    if n is None:
        return bool(input._array.flags.c_contiguous)
    return input.ndim == n and bool(input._array.transpose(0, *range(2, n), 1).flags.c_contiguous)


def fresh(result: Tensor, *inputs: Tensor) -> Tensor:
    """``result`` in memory of its own: a copy if it is one of the inputs of its function, or a view of one.

    For functions that are not views, but have nothing to do for some arguments.
    """
    return _clone(result) if any(result._version is input._version for input in inputs) else result


# --- the shape of the tensor itself -----------------------------------------------------------------------------------


def _become(target: Tensor, view: Tensor, who: str) -> Tensor:
    """``target`` takes over the shape and history of a view of itself; its memory stays.

    The old tensor lives on as the base of all views, earlier ones too.
    """
    if target.is_leaf and target._requires_grad:
        if is_grad_enabled():
            raise RuntimeError(f"{who}: a leaf that requires a gradient cannot change in place outside no_grad()")
    elif target._base is None:
        before: Tensor = Tensor._wrap(target._array)
        before._version, before._node, before._requires_grad = target._version, target._node, target._requires_grad
        target._base, target._steps, target._seen = before, view._steps, before._node
    else:
        target._steps, target._seen = view._steps, view._seen
    target._array, target._node = view._array, view._node
    return target


def of_itself(view: Callable[..., Tensor]) -> None:
    """Give Tensor the in-place form of a view, which changes the shape of the tensor itself."""
    name = f"{view.__name__}_"

    @wraps(view)
    def changed(input: Tensor, *args: Any, **options: Any) -> Tensor:
        seen = view(input, *args, **options)
        return input if seen is input else _become(input, seen, name)

    changed.__name__ = changed.__qualname__ = name
    changed.__doc__ = f":func:`{view.__name__}` of the tensor itself."
    method(changed)


for _view in (squeeze, unsqueeze, transpose, t):
    of_itself(_view)
for _alias in ("swapaxes_", "swapdims_"):
    setattr(Tensor, _alias, vars(Tensor)["transpose_"])
