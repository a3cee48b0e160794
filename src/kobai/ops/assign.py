"""``x[...] = value``, ``copy_`` and what else writes into the memory of a tensor, on the tape and off it."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai import xp
from kobai.core.grad_mode import is_grad_enabled
from kobai.core.primitive import among, in_place, method, need_own_places, primitive
from kobai.core.tensor import Tensor
from kobai.ops._args import drawn, held, need_tensor, unbroadcast
from kobai.ops.index import _at, _misfit, _parse, _part, _without_masks, check_key, read, store
from kobai.ops.shape import clone
from kobai.xp import Array, asarray, xp_of

__all__ = ["fill"]  # beside methods


@primitive(sample=[drawn([(4, 3), (3,)]), drawn([(2, 3), ()]), drawn([(0, 3), (1, 3)])])
def _assign(x: Array, value: Array) -> Any:
    y = xp_of(x).empty_like(x)
    y[...] = value
    shape, dtype = value.shape, value.dtype
    return y, lambda dy: (None, lambda: _fitted(dy, shape).astype(dtype, copy=False))


@primitive(
    sample=[
        lambda rng: (rng.normal(size=(4, 3)), rng.normal(size=(2, 3)), np.array([3, 0]), {"places": (0,)}),
        lambda rng: (rng.normal(size=(2, 4, 3)), rng.normal(size=()), np.array([3, 0]), {"places": (1,)}),
    ]
)
def _put(x: Array, value: Array, *indices: Array, places: tuple[int, ...]) -> Any:
    y, key = x.copy(), _at(indices, places)
    check_key(x, key)
    store(y, key, value)
    shape, dtype = value.shape, value.dtype

    def vjp(dy: Array) -> Any:
        def dx() -> Array:
            out = dy.copy()
            store(out, key, 0)
            return out

        return dx, lambda: _fitted(read(dy, key), shape).astype(dtype, copy=False)

    return y, vjp


def _fitted(g: Array, shape: tuple[int, ...]) -> Array:
    """Gradient of a value that was broadcast into an assignment, which also drops leading dimensions of size 1."""
    return unbroadcast(g, shape[max(len(shape) - g.ndim, 0) :]).reshape(shape)


def _as_value(target: Tensor, value: Any) -> Any:
    """What is assigned: a number as it is, all else a Tensor on the device of ``target``."""
    if isinstance(value, Tensor):
        return value if type(value._array) is type(target._array) else value.to(target.device)
    if isinstance(value, (bool, int, float)):
        return held("assignment", value, target._array.dtype) if type(value) is int else value
    return Tensor._wrap(asarray(value, dtype=target._array.dtype, device=target.device))


def _write(target: Tensor, part: Array, value: Any, key: Any = ()) -> None:
    """part[key] ← value, where ``part`` is memory of ``target``, without the tape."""
    if 0 in part.strides:
        need_own_places(part)
    if xp.many_devices:
        with xp.beside(part):
            _store(target, part, value, key)
    else:
        _store(target, part, value, key)
    target._bump()


def _store(target: Tensor, part: Array, value: Any, key: Any) -> None:
    if isinstance(value, Tensor):
        # Memory that both share is read before it is written.
        value = value._array.copy() if value._version is target._version else value._array
    if key:
        check_key(part, key)
        store(part, key, value)
    else:
        part[...] = value


def _recorded(target: Tensor, value: Any) -> bool:
    return is_grad_enabled() and (target.requires_grad or (isinstance(value, Tensor) and value.requires_grad))


def _same_memory(a: Array, b: Array) -> bool:
    alike = a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype
    return alike and bool(Tensor._wrap(a).data_ptr() == Tensor._wrap(b).data_ptr())


def setitem(input: Tensor, index: Any, value: Any) -> None:
    """``input[index] = value``, in place, the value broadcast to the part and cast to its dtype; on the tape if needed.

    IndexError for an index that does not fit, RuntimeError for a value whose shape does not.
    """
    try:
        key, tensors = ((index, ...), []) if type(index) is int else _parse(input, index)
        value = _as_value(input, value)
        part = input._array if key is None else input._array[key]
        shared = isinstance(value, Tensor) and value._version is input._version
        if shared and not tensors and _same_memory(part, value._array):
            return  # x[i] += y has already changed the memory when Python assigns the result
        if _recorded(input, value):
            _record_assignment(input if key is None else _part(input, key), tensors, value)
        elif tensors:
            _write(input, part, value, _keys(tensors))
        else:
            _write(input, part, value)
    except IndexError as error:
        if str(error).startswith("index: "):
            raise
        raise _misfit(input, index, error) from None
    except ValueError as error:
        if not isinstance(value, Tensor):
            raise
        raise RuntimeError(f"index: a value of shape {tuple(value.shape)} cannot be assigned: {error}") from None


method(setitem, name="__setitem__")


def _record_assignment(part: Tensor, tensors: list[tuple[int, Tensor]], value: Any) -> None:
    if not isinstance(value, Tensor):
        value = Tensor._wrap(asarray(value, dtype=part._array.dtype, device=part.device))
    if tensors:
        indices, places = _without_masks(tensors)
        in_place(part, _put, value, *indices, places=places)
    else:
        in_place(part, _assign, value)


def _keys(tensors: list[tuple[int, Tensor]]) -> tuple[Any, ...]:
    """The second stage of an index as a key for arrays."""
    if len(tensors) == 1:
        place, tensor = tensors[0]
        return (slice(None),) * place + (tensor._array,)
    indices, places = _without_masks(tensors)
    return _at(tuple(index._array for index in indices), places)


@method
def copy_(input: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """input ← src, broadcast, cast and moved to the device as needed; the gradient of ``src`` is recorded.

    ``non_blocking`` has no effect: copies are queued where the device can queue them.
    """
    value = _as_value(input, src)
    try:
        if _recorded(input, value):
            _record_assignment(input, [], value)
        else:
            _write(input, input._array, value)
    except ValueError:
        shape = tuple(value.shape) if isinstance(value, Tensor) else ()
        raise RuntimeError(f"copy_: shape {shape} cannot be broadcast to {tuple(input.shape)}") from None
    return input


@method
def fill_(input: Tensor, value: Any) -> Tensor:
    """Every element ← ``value``, a number or a tensor without dimensions."""
    if isinstance(value, Tensor) and value._array.ndim:
        raise RuntimeError(f"fill_: expected a number or a tensor without dimensions, got shape {tuple(value.shape)}")
    return copy_(input, value)


def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor like ``input``, every element ``value``: a number or a tensor without dimensions, which gets the gradient.

    >>> import kobai
    >>> kobai.fill(kobai.tensor([1., 2.]), 7)
    tensor([7., 7.])
    """
    need_tensor("fill", input)
    return fill_(clone(among("fill", input, value)), value)


@method
def zero_(input: Tensor) -> Tensor:
    """Every element ← 0."""
    return copy_(input, 0)
