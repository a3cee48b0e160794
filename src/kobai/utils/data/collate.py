"""From a list of samples to one batch.

In two steps, so that a loader's worker threads never touch a device: :func:`stack` runs in a worker and makes NumPy arrays of
what is not a tensor; :func:`to_tensors`, in the training thread, puts them on the default device.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.cuda.backend import pin
from kobai.dtypes import is_number
from kobai.ops.joining import stack as stack_tensors
from kobai.refusals import guard as _guard
from kobai.xp import asarray, default_device, device_of

__all__ = ["default_collate", "default_convert"]


np_str_obj_array_pattern = re.compile("[SaUO]")
"""Kinds of NumPy's that no tensor has; PyTorch's name, for those who collate by their own rules."""


def default_collate(batch: Sequence[Any]) -> Any:
    """One batch of a list of samples, by the type of the first.

    Tensors and arrays of one shape S become one tensor (N, *S) of the same dtype; floats a float64 tensor (N,), ints an
    int64 and bools a bool one; strings and bytes stay as they are. Mappings, named tuples, tuples and lists are collated
    entry by entry (a tuple becomes a list, as in PyTorch).

    >>> default_collate([{"x": 1, "name": "a"}, {"x": 2, "name": "b"}])
    {'x': tensor([1, 2]), 'name': ['a', 'b']}
    """
    return to_tensors(stack(batch))


def default_convert(data: Any) -> Any:
    """``data`` with its arrays as tensors, everything else unchanged: what a loader without batches applies.

    A tuple becomes a list, as in PyTorch.

    >>> import numpy as np
    >>> default_convert({"x": np.zeros(2), "name": "a"})
    {'x': tensor([0., 0.], dtype=kobai.float64), 'name': 'a'}
    """
    return to_tensors(_map(_scalar_to_array, data, plain=list))


def stack(batch: Sequence[Any]) -> Any:
    """First half of :func:`default_collate`: NumPy arrays where the samples are not tensors."""
    if not len(batch):
        raise ValueError("default_collate: expected at least one sample, got an empty batch")
    first = batch[0]
    if isinstance(first, Tensor):
        _check_type(batch, Tensor)
        return stack_tensors(list(batch))
    if isinstance(first, (np.ndarray, np.generic)):
        if not is_number(first.dtype):
            raise TypeError(f"default_collate: arrays of dtype {first.dtype} cannot become a tensor")
        _check_type(batch, (np.ndarray, np.generic))
        if any(sample.shape != first.shape for sample in batch):
            shapes = sorted({sample.shape for sample in batch})
            raise RuntimeError(f"default_collate: expected samples of one shape, got {' and '.join(map(str, shapes))}")
        return np.array(batch)
    if isinstance(first, (int, float)):
        values = np.array(batch)
        if not is_number(values.dtype):
            raise TypeError(f"default_collate: expected numbers as {first!r}, of at most 64 bits, got {batch!r}")
        if isinstance(first, float):
            return values.astype(np.float64, copy=False)
        return values.astype(np.float32) if values.dtype.kind == "f" else values  # ints mixed with floats: as PyTorch
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        return _like_mapping(first, {key: stack([_entry(sample, key) for sample in batch]) for key in first})
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError(
                f"default_collate: expected samples of one length, got lengths {sorted({len(s) for s in batch})}"
            )
        return _like_sequence(first, [stack(column) for column in zip(*batch, strict=True)])
    raise TypeError(
        "default_collate: expected samples of tensors, arrays, numbers, strings, mappings or sequences, "
        f"got {type(first).__name__}; give a collate_fn"
    )


def to_tensors(tree: Any) -> Any:
    """``tree`` with its NumPy arrays as tensors on the default device; tensors stay where they are."""
    where = default_device()
    return _map(lambda leaf: Tensor._wrap(asarray(leaf, device=where)) if isinstance(leaf, np.ndarray) else leaf, tree)


def to_pinned(tree: Any) -> Any:
    """``tree`` with its arrays and its tensors on the CPU in page-locked memory."""

    def leaf(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return pin(value)
        if isinstance(value, Tensor):
            stays = value.requires_grad or device_of(value.array) != "cpu"
            return value if stays else Tensor._wrap(pin(value.array))
        return value.pin_memory() if hasattr(value, "pin_memory") else value

    return _map(leaf, tree)


def _collating(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Any:
    """:func:`default_collate`, as it is called by what collates by the types of a table."""
    return default_collate(batch)


collate_tensor_fn = collate_numpy_array_fn = collate_numpy_scalar_fn = _collating
collate_float_fn = collate_int_fn = collate_str_fn = _collating
default_collate_fn_map: dict[Any, Callable[..., Any]] = dict.fromkeys(
    (Tensor, np.ndarray, (np.bool_, np.number, np.object_), float, int, str, bytes), _collating
)
"""PyTorch's table from types to what makes a batch of them, for programs that add to it and give it to :func:`collate`."""


def collate(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Any:
    """A batch as by :func:`default_collate`, after ``collate_fn_map``, a table from types (or tuples of them) to functions.

    >>> collate([{"x": "a"}, {"x": "b"}], collate_fn_map={str: lambda batch, *, collate_fn_map: "".join(batch)})
    {'x': 'ab'}
    """
    first = batch[0]
    for kind, function in (collate_fn_map or {}).items():
        if isinstance(first, kind):
            return function(batch, collate_fn_map=collate_fn_map)

    def among(samples: Sequence[Any]) -> Any:
        return collate(samples, collate_fn_map=collate_fn_map)

    if isinstance(first, Mapping):
        return _like_mapping(first, {key: among([_entry(sample, key) for sample in batch]) for key in first})
    if isinstance(first, Sequence) and not isinstance(first, (str, bytes)):
        return _like_sequence(first, [among(column) for column in zip(*batch, strict=True)])
    return default_collate(batch)


def _map(leaf: Callable[[Any], Any], tree: Any, plain: Callable[[list[Any]], Any] = tuple) -> Any:
    """``tree`` with its leaves replaced; ``plain`` makes what a tuple becomes."""
    if isinstance(tree, (Tensor, np.ndarray, str, bytes)):
        return leaf(tree)
    if isinstance(tree, Mapping):
        return _like_mapping(tree, {key: _map(leaf, value, plain) for key, value in tree.items()})
    if isinstance(tree, (tuple, list)):
        parts = [_map(leaf, value, plain) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else plain(parts) if isinstance(tree, tuple) else parts
    return leaf(tree)


def _like_mapping(model: Mapping[Any, Any], entries: dict[Any, Any]) -> Any:
    """``entries`` in a mapping of ``model``'s type, else in a dict."""
    try:
        if type(model) is dict:
            return entries
        if isinstance(model, MutableMapping):  # keeps what a constructor would not, such as a defaultdict's factory
            clone = copy.copy(model)
            clone.update(entries)
            return clone
        return type(model)(entries)  # type: ignore[call-arg]
    except TypeError:
        return entries


def _like_sequence(model: Sequence[Any], columns: list[Any]) -> Any:
    if hasattr(model, "_fields"):  # a named tuple
        return type(model)(*columns)
    if isinstance(model, (tuple, list)):
        return columns
    try:
        return type(model)(columns)  # type: ignore[call-arg]
    except TypeError:
        return columns


def _entry(sample: Any, key: Any) -> Any:
    if not isinstance(sample, Mapping) or key not in sample:
        raise KeyError(f"default_collate: the first sample has the key {key!r}, a later one of the batch has not")
    return sample[key]


def _check_type(batch: Sequence[Any], kind: Any) -> None:
    for sample in batch:
        if not isinstance(sample, kind):
            raise TypeError(
                "default_collate: expected samples of one type, "
                f"got {type(batch[0]).__name__} and {type(sample).__name__}"
            )


def _scalar_to_array(value: Any) -> Any:
    if isinstance(value, np.generic) and is_number(value.dtype):
        return np.asarray(value)
    return value


_guard(globals())
