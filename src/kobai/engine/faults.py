"""Illegal values found by kernels on a device: noted there in two words of memory, raised when a result is read.

To check indices on a device, the host would have to wait for everything queued before them. So a kernel checks them, in eager
steps and in graphs, and the first one that finds an illegal value leaves a code and the value. The host reads the words where
it waits anyway – ``item()``, ``tolist()``, a copy to the host – if a check has run since it last did, and raises the error
that the code stands for. Steps queued in between have run: the array library clips or wraps such indices, our kernels give a
loss of nan, and nothing is read beyond an array.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai import xp
from kobai.engine.cuda_kernel import CudaKernel
from kobai.engine.dispatch import DEVICE, engine_for, launch
from kobai.engine.indices import flat_indices
from kobai.xp import Array

_words: dict[int, Array] = {}
"""For each device: the code of what was found first, 0 for nothing, and the value."""

_asked: set[int] = set()
"""Devices on which something has looked since the words were read."""

_codes: dict[Any, int] = {}
_errors: list[Callable[[int], Exception]] = []


def words(index: int) -> Array:
    """The two words of the device with this index, which is the current one. Made before a graph that needs them."""
    found = _words.get(index)
    if found is None:
        found = _words[index] = importlib.import_module("cupy").zeros(2, np.uint64)
        xp.after_read = raise_found
    return found


def code(key: Any, error: Callable[[int], Exception]) -> int:
    """The number by which a kernel reports ``error(value)``; one for each ``key``."""
    found = _codes.get(key)
    if found is None:
        _errors.append(error)
        found = _codes[key] = len(_errors)
    return found


def ask(array: Array) -> Array | None:
    """The words of the device that holds ``array``, which will be read with the next result; None for other backends."""
    owner = xp.backend_of(array)
    if owner.name != "cupy":
        return None
    index = owner.index_of(array) or 0
    if index not in _words:
        with xp.beside(array):
            words(index)
    _asked.add(index)
    return _words[index]


def replayed(index: int) -> None:
    """A graph has run on this device, in which something may have looked."""
    if index in _words:
        _asked.add(index)


def raise_found(array: Array) -> None:
    """Raise what was found on the device of ``array``, whose queue is empty: called when a value was read from there."""
    if not _asked:
        return
    owner = xp.backend_of(array)
    index = (owner.index_of(array) or 0) if owner.name == "cupy" else -1
    if index not in _asked:
        return
    _asked.discard(index)
    number, value = owner.to_host(_words[index]).tolist()
    if number:
        with xp.beside(array):
            _words[index][...] = 0
        raise _errors[number - 1](value)


# --- the kernels ------------------------------------------------------------------------------------------------------


def look_at_integers(
    x: Array,
    low: int,
    high: int,
    key: Any,
    error: Callable[[int], Exception],
    *,
    inside: bool = False,
    spared: Any = None,
) -> None:
    """Report an integer outside [low, high) – with ``inside``, one within – that is not ``spared``."""
    place = ask(x) if x.size else None
    if place is None:
        return
    spared = (low if not inside else high) if spared is None else spared
    with xp.beside(x):
        row = flat_indices(x)
        args = row, place, low, high, spared, int(inside), code(key, of_integers(error)), row.size
        launch(INTEGERS.of("float32"), INTEGERS.blocks(row.size), args)


def look_at_unit_interval(x: Array, key: Any, error: Callable[[float], Exception]) -> None:
    """Report a float that is not in [0, 1]."""
    place = ask(x) if x.size and engine_for((x,)) == DEVICE else None
    if place is not None:
        number = code(key, lambda bits: error(float(np.uint64(bits).view(np.float64))))
        with xp.beside(x):
            launch(UNIT_INTERVAL, UNIT_INTERVAL.blocks(x.size), (x, place, number, x.size))


def of_integers(error: Callable[[int], Exception]) -> Callable[[int], Exception]:
    """``error`` of an integer as what is made of its bits."""
    return lambda bits: error(bits - (1 << 64) if bits >> 63 else bits)


INTEGERS = CudaKernel(
    "look_at_integers",
    "const long long* x, unsigned long long* fault, long long low, long long high, long long spared, int inside, "
    "unsigned long long code, long long n",
    r"""
    EACH(i, n) {
        const long long v = x[i];
        if ((v >= low && v < high) == (inside != 0) && v != spared) report(fault, code, (unsigned long long)v);
    }
    """,
    dtypes=("float32",),
)

UNIT_INTERVAL = CudaKernel(
    "look_at_unit_interval",
    "const T* x, unsigned long long* fault, unsigned long long code, long long n",
    r"""
    EACH(i, n) {
        union { double number; unsigned long long bits; } v;
        v.number = (double)x[i];
        if (!(v.number >= 0 && v.number <= 1)) report(fault, code, v.bits);
    }
    """,
)
