"""``x[...]``, and choosing by a mask; what writes by it is in ``assign.py``.

PyTorch applies the integers, slices, None and Ellipsis of an index first, which gives a view, and then the tensors, which
give a copy; NumPy counts integers among the tensors and may order the dimensions differently. Both stages are here.
"""

from __future__ import annotations

import math
import warnings
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np

from kobai.core.primitive import method, on_its_device, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.engine.domains import check_replays, counted_from_front, look_range
from kobai.errors import users_line
from kobai.ops._args import drawn
from kobai.ops._positions import add_along, add_at, placed
from kobai.xp import Array, asarray, differs, is_array, xp_of

__all__: list[str] = []  # methods only

Basic: TypeAlias = tuple[int | slice | EllipsisType | None, ...]


@primitive(
    kind="view",
    sample=[
        drawn((4, 3), 1),
        drawn((4, 3), (slice(None), -1)),
        drawn((4, 3, 2), (slice(1, None, 2), None, ..., 0)),
        drawn((3,), (-1, ...)),
        drawn((4, 3), slice(2, 2)),
    ],
)
def _part(x: Array, key: Any) -> Any:
    shape = x.shape
    return x[key], lambda dy: (lambda *, onto=None: placed(dy, shape, key, onto),)


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), np.array([2, 0, 2]), 0, "index_select", False),
        lambda rng: (rng.normal(size=(2, 4, 3)), np.array([[3, -1], [0, 3]]), 1, "index", True),
        lambda rng: (rng.normal(size=(4, 3)), np.array([], dtype=np.int64), 1, "take", True),
    ]
)
def _take(x: Array, index: Array, axis: int, who: str, negative: bool) -> Any:
    """On behalf of ``who``. With ``negative``, indices may count from the end; without, they are ≥ 0 and have been checked."""
    xp, shape = xp_of(x), x.shape

    def vjp(dy: Array) -> Any:
        def dx() -> Array:
            if negative:
                rows = counted_from_front(who, index, shape[axis])
            else:
                rows = index
                look_range(who, index, shape[axis])
            return add_along(xp.zeros(shape, dy.dtype), axis, rows, dy)

        return dx, None, None, None, None

    if negative:
        check_replays(who, index, shape[axis])
    try:
        return xp.take(x, index, axis=axis), vjp
    except IndexError:
        look_range(who, index, shape[axis], negative)
        raise


take_slices = _take
"""The slices of dimension ``axis`` named by a tensor, see there."""


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(4, 3)) > 0, 0),
        lambda rng: (rng.normal(size=(2, 4, 3)), np.array([True, False, True, True]), 1),
        lambda rng: (rng.normal(size=(4, 3)), np.zeros(4, dtype=bool), 0),
    ]
)
def _masked(x: Array, mask: Array, axis: int) -> Any:
    shape, key = x.shape, (slice(None),) * axis + (mask,)
    return x[key], lambda dy: (lambda: placed(dy, shape, key), None, None)


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), np.array([0, 3, 3]), np.array([1, 2, 2]), {"places": (0, 1)}),
        lambda rng: (rng.normal(size=(4, 3, 2)), np.array([[0], [3]]), np.array([1, -1]), {"places": (0, 2)}),
    ]
)
def _fancy(x: Array, *indices: Array, places: tuple[int, ...]) -> Any:
    shape, key = x.shape, _at(indices, places)
    check_key(x, key)
    return read(x, key), lambda dy: (lambda: _added_up(dy, shape, key),)


def _added_up(values: Array, shape: tuple[int, ...], key: Any) -> Array:
    """As :func:`placed`, but what meets at one place is added up."""
    xp = xp_of(values)
    out = xp.zeros(shape, values.dtype)
    first = next(axis for axis, index in enumerate(key) if type(index) is not slice)
    together = key[first:]
    if all(type(index) is not slice for index in together):  # neighbouring axes, whose indices count in one
        rows: Any = 0
        for size, index in zip(shape[first:], together, strict=False):
            rows = rows * size + counted_from_front("index", index, size)
        merged = out.reshape(*shape[:first], math.prod(shape[first : len(key)]), *shape[len(key) :])
        add_along(merged, first, rows, values)
        return out
    return add_at(out, read(xp.arange(math.prod(shape)).reshape(shape), key), values)


def check_key(x: Array, key: tuple[Any, ...]) -> None:
    """Check the index arrays of a key where NumPy does not: in a captured step, and on a device."""
    for index, size in _arrays_in(x, key):
        check_replays("index", index, size)


def read(x: Array, key: tuple[Any, ...]) -> Array:
    """x[key]; IndexError for indices out of range that says which."""
    try:
        return x[key]
    except IndexError:
        for index, size in _arrays_in(x, key):
            look_range("index", index, size, negative=True)
        raise


def store(x: Array, key: tuple[Any, ...], value: Any) -> None:
    """x[key] ← value; as :func:`read`."""
    try:
        x[key] = value
    except IndexError:
        for index, size in _arrays_in(x, key):
            look_range("index", index, size, negative=True)
        raise


def _arrays_in(x: Array, key: tuple[Any, ...]) -> list[tuple[Array, int]]:
    """Each array of indices in a key with the size of the dimension that it indexes."""
    pairs = zip(key, x.shape, strict=False)
    return [(index, size) for index, size in pairs if type(index) is not slice and index.dtype.kind != "b"]


def _at(indices: tuple[Array, ...], places: tuple[int, ...]) -> tuple[Any, ...]:
    """Key with an index array at each of the places and full slices before and between them."""
    key: list[Any] = [slice(None)] * (places[-1] + 1)
    for index, place in zip(indices, places, strict=True):
        key[place] = index
    return tuple(key)


@on_its_device
def _index_tensor(item: Any, like: Tensor) -> Tensor:
    """A tensor, array, list or range in an index as a tensor of integers or truth values on the device of ``like``."""
    if not isinstance(item, Tensor):
        try:
            array = asarray(list(item) if isinstance(item, range) else item, device=like.device)
        except ValueError as error:
            raise IndexError(f"index: expected rows of equal length in {item!r}") from error
        item = Tensor._wrap(array.astype(np.int64) if array.size == 0 and array.dtype.kind in FLOATING else array)
    elif type(item._array) is not type(like._array):
        item = item.to(like.device)
    if item._array.dtype.kind not in "ib":
        raise IndexError(
            f"index: expected integers (int64, int32) or truth values (bool), got a tensor of {item._array.dtype}"
        )
    return item  # type: ignore[no-any-return]


def _parse(like: Tensor, index: Any) -> tuple[Basic | None, list[tuple[int, Tensor]]]:
    """The two stages of an index: the basic key (None: everything), and the tensors with their places after it."""
    array = like._array
    if type(index) is list and len(index) < 32 and any(not isinstance(part, (int, np.generic)) for part in index):
        warnings.warn(
            "index: a list that holds more than integers is taken as one index per dimension, as a tuple, like in PyTorch; "
            "NumPy takes it as one index. Write x[a, b] for the first, x[kobai.tensor([a, b])] for the second",
            stacklevel=users_line(),
        )
        index = tuple(index)
    items: list[Any] = []
    for item in index if type(index) is tuple else (index,):
        if item is None or item is Ellipsis or type(item) is int:
            items.append(item)
        elif isinstance(item, slice):
            if item.step is not None and item.step <= 0:
                raise ValueError(f"index: expected a slice step > 0, got {item.step}; use flip()")
            items.append(item)
        elif isinstance(item, (bool, np.bool_, Tensor, list, tuple, range)) or is_array(item):
            tensor = _index_tensor(item, like)
            scalar = tensor._array.ndim == 0 and tensor._array.dtype.kind == "i" and not differs(tensor._array)
            items.append(int(tensor._array.item()) if scalar else tensor)
        elif isinstance(item, np.integer):
            items.append(int(item))
        else:
            raise IndexError(
                f"index: expected integers, slices, None, Ellipsis, or tensors of them, got {type(item).__name__}"
            )
    uses = [0 if i is None or i is Ellipsis else i._array.ndim if _is_mask(i) else 1 for i in items]
    if sum(uses) > array.ndim:
        raise IndexError(f"index: {sum(uses)} indices are too many for a tensor of shape {tuple(array.shape)}")
    if sum(item is Ellipsis for item in items) > 1:
        raise IndexError("index: expected at most one Ellipsis")
    if not any(isinstance(item, Tensor) for item in items):
        # The Ellipsis makes NumPy give a view, not a scalar, where all dimensions are indexed.
        return tuple(items) if Ellipsis in items else (*items, ...), []

    key: list[Any] = []
    tensors: list[tuple[int, Tensor]] = []
    place = used = 0  # dimension of the basic stage's result; of the tensor
    for item, use in zip(items, uses, strict=True):
        if item is Ellipsis:
            rest = array.ndim - sum(uses)
            key += [slice(None)] * rest
            place, used = place + rest, used + rest
        elif isinstance(item, Tensor):
            sizes, shape = item._array.shape, array.shape[used : used + use]
            if _is_mask(item) and sizes != shape:
                raise IndexError(f"index: a mask of shape {tuple(sizes)} does not fit dimensions {tuple(shape)}")
            # A truth value without dimensions chooses in a new dimension of size 1.
            key += [slice(None)] * use if use else [None]
            tensors.append((place, item if sizes or not _is_mask(item) else item.reshape(1)))
            place, used = place + max(use, 1), used + use
        else:
            key.append(item)
            place, used = place + (not isinstance(item, int)), used + use
    whole = all(isinstance(item, slice) and item == slice(None) for item in key)
    return None if whole else tuple(key), tensors


def _is_mask(item: Any) -> bool:
    return isinstance(item, Tensor) and item._array.dtype.kind == "b"


@on_its_device
def _without_masks(tensors: list[tuple[int, Tensor]]) -> tuple[list[Tensor], tuple[int, ...]]:
    """Index tensors and their places, every mask replaced by the indices of its true elements."""
    indices, places = [], []
    for place, tensor in tensors:
        found = xp_of(tensor._array).nonzero(tensor._array) if _is_mask(tensor) else (tensor._array,)
        for i, array in enumerate(found):
            indices.append(tensor if array is tensor._array else Tensor._wrap(array))
            places.append(place + i)
    return indices, tuple(places)


def _chosen(input: Tensor, tensors: list[tuple[int, Tensor]]) -> Tensor:
    """The second stage of an index."""
    if len(tensors) == 1:
        place, tensor = tensors[0]
        return _masked(input, tensor, place) if _is_mask(tensor) else _take(input, tensor, place, "index", True)
    indices, places = _without_masks(tensors)
    return _fancy(input, *indices, places=places)


def _misfit(input: Tensor, index: Any, error: Exception) -> IndexError:
    shown = index if isinstance(index, (int, slice)) else type(index).__name__
    return IndexError(f"index: {shown} does not fit a tensor of shape {tuple(input.shape)}: {error.__cause__ or error}")


def _is_plain(index: tuple[Any, ...], ndim: int) -> bool:
    """Whether a tuple holds integers and slices without a step alone, which need no parsing."""
    for item in index:
        if type(item) is not int and (type(item) is not slice or item.step is not None):
            return False
    return len(index) <= ndim


def getitem(input: Tensor, index: Any) -> Tensor:
    """``input[index]``: a view for integers, slices, None and Ellipsis; a copy for tensors, lists and masks.

    IndexError for what does not fit the shape.
    """
    kind = type(index)
    try:
        if kind is int:
            return _part(input, index if input._array.ndim > 1 else (index, ...))
        if kind is slice and index.step is None:
            return _part(input, index)
        if kind is tuple and _is_plain(index, input._array.ndim):
            return _part(input, (*index, ...))
        key, tensors = _parse(input, index)
        part = input if key is None else _part(input, key)
        return _chosen(part, tensors) if tensors else part
    except IndexError as error:
        if str(error).startswith("index: "):
            raise
        raise _misfit(input, index, error) from None


method(getitem, name="__getitem__")
