"""Checks of values that must lie in a domain: indices, classes, probabilities, divisors.

A check is one reduction; if a value is illegal it raises, naming the operation, what it expects and what it got. On the host
it runs at once, and a captured step repeats it at every replay, in the same place (``dispatch.check``), so that a replay
raises what the eager step would have raised. On a device a check would wait for the queue: there a kernel looks, and the host
raises what it found when it reads a result (``faults.py``).

Others may write to index arrays (``from_numpy``) after they were checked. So backward checks again, and a compiled loop
compares each index with its bounds where it reads it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from kobai.dtypes import FLOATING
from kobai.engine import dispatch, faults
from kobai.errors import PositionError
from kobai.xp import Array, quiet

_UNSIGNED = {np.dtype(f"i{n}"): (np.dtype(f"u{n}"), 1 << (8 * n - 1)) for n in (1, 2, 4, 8)}
"""For each signed dtype the unsigned one of its width, and the first number there that stands for a negative one."""

_INT64, _UINT64 = np.dtype(np.int64), np.dtype(np.uint64)

_highest = np.maximum.reduce


def inside(index: np.ndarray[Any, Any], size: int) -> bool:
    """Whether every index lies in [0, size), by one reduction: as unsigned numbers the negative ones are huge."""
    if index.size == 0:
        return True
    dtype = index.dtype
    if dtype is not _INT64:
        unsigned, half = _UNSIGNED.get(dtype, (dtype, size))
        return dtype.kind in "iu" and size <= half and bool(_highest(index.view(unsigned), axis=None) < size)
    return _highest(index.view(_UINT64), axis=None) < size  # type: ignore[no-any-return]


# --- indices ----------------------------------------------------------------------------------------------------------


def check_range(who: str, index: Array, size: int, negative: bool = False) -> None:
    """IndexError if an element of ``index`` is not in [0, size) – or, with ``negative``, in [−size, size)."""
    if type(index) in dispatch.HOST_TYPES:
        dispatch.check(look_range, who, index, size, negative)
    else:
        low, key = -size if negative else 0, ("range", who, size, negative)
        faults.look_at_integers(index, low, size, key, lambda wrong: _out_of_range(who, low, size, wrong))


def look_range(who: str, index: Array, size: int, negative: bool = False) -> None:
    """:func:`check_range` here and now; nothing if the index is not an array on the host."""
    if type(index) is not np.ndarray or inside(index, size) or index.size == 0:
        return
    low, high = int(index.min()), int(index.max())
    floor = -size if negative else 0
    if low < floor or high >= size:
        wrong = low if low < floor else high
        raise _out_of_range(who, floor, size, wrong)


def _out_of_range(who: str, low: int, size: int, wrong: int) -> PositionError:
    return PositionError(f"{who}: expected indices in [{low}, {size - 1}], got {wrong}")


def check_replays(who: str, index: Array, size: int) -> None:
    """:func:`check_range` with ``negative`` for indices that NumPy itself checks, but whose error names no operation.

    On the host the caller catches NumPy's error and has :func:`look_range` explain it: legal indices cost nothing.
    """
    if type(index) is not np.ndarray:
        check_range(who, index, size, negative=True)


def counted_from_front(who: str, index: Array, size: int) -> Array:
    """Indices in [−size, size) as ones in [0, size), for arithmetic with them in backward; looked at on the host."""
    if type(index) is np.ndarray:
        if inside(index, size):
            return index
        look_range(who, index, size, negative=True)
    return index % max(size, 1)


# --- classes ----------------------------------------------------------------------------------------------------------


def check_classes(who: str, targets: Array, classes: int, ignore_index: int) -> None:
    """IndexError naming the first index outside [0, classes) that is not ``ignore_index``."""
    if type(targets) in dispatch.HOST_TYPES:
        dispatch.check(look_classes, who, targets, classes, ignore_index)
    else:
        error = partial(_no_class, who, classes)
        faults.look_at_integers(targets, 0, classes, ("classes", who, classes), error, spared=ignore_index)


def fault_of_classes(who: str, targets: Array, classes: int) -> tuple[Any, int]:
    """Where a kernel that reads targets on a device notes one outside [0, classes), and the code that it writes there."""
    error = faults.of_integers(partial(_no_class, who, classes))
    return faults.ask(targets), faults.code(("classes", who, classes), error)


def look_classes(who: str, targets: Array, classes: int, ignore_index: int) -> None:
    """:func:`check_classes` here and now; nothing if the targets are not on the host."""
    if type(targets) is not np.ndarray or inside(targets, classes):
        return
    bad = ((targets < 0) | (targets >= classes)) & (targets != ignore_index)
    if bad.any():
        position, where = _first(bad)
        raise _no_class(who, classes, int(targets[position]), where)


def _no_class(who: str, classes: int, wrong: int, where: str = "") -> IndexError:
    return IndexError(f"{who}: expected class indices in [0, {classes}), got {wrong}{where}")


def _first(wrong: np.ndarray[Any, Any]) -> tuple[tuple[int, ...], str]:
    """Where the first True is, and that in words; no words for an array without dimensions."""
    position = tuple(int(i) for i in np.argwhere(wrong)[0])
    return position, f" at position {position[0] if len(position) == 1 else position}" if position else ""


# --- numbers ----------------------------------------------------------------------------------------------------------

_ONE = {
    np.dtype(name): (np.dtype(bits), int(np.ones((), name).view(bits)))
    for name, bits in (("bfloat16", "u2"), ("float16", "u2"), ("float32", "u4"), ("float64", "u8"))
}
"""For each float dtype the unsigned integers of its width, and the bits of 1."""


def check_unit_interval(who: str, what: str, x: Array) -> None:
    """ValueError unless all elements lie in [0, 1] (nan does not)."""
    if type(x) in dispatch.HOST_TYPES:
        dispatch.check(look_unit_interval, who, what, x)
    else:
        error = lambda wrong: ValueError(f"{who}: expected {what} in [0, 1], got {wrong:g}")  # noqa: E731
        faults.look_at_unit_interval(x, ("unit interval", who, what), error)


def look_unit_interval(who: str, what: str, x: Array) -> None:
    """:func:`check_unit_interval` here and now; nothing if the array is not on the host."""
    if type(x) is not np.ndarray or x.size == 0:
        return
    # Numbers from 0 to 1 are ordered as their bits are; above them come larger ones, nan, and all with a sign.
    if x.dtype in _ONE:
        unsigned, one = _ONE[x.dtype]
        if int(np.maximum.reduce(x.view(unsigned), axis=None)) <= one:
            return
    low, high = _least_and_greatest(x)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{who}: expected {what} in [0, 1], got values from {low:g} to {high:g}")


@quiet
def _least_and_greatest(x: Array) -> Any:
    return x.min(), x.max()


def check_divisor(who: str, x: Any, divisor: Any) -> None:
    """RuntimeError where integers – arrays, or one of the two a number – are divided by 0; floats give inf or nan."""
    if isinstance(divisor, (bool, int, float)):
        if not divisor and x.dtype.kind not in FLOATING:
            raise _division_by_zero(who)
    elif divisor.dtype.kind not in FLOATING and type(divisor) in dispatch.HOST_TYPES:
        dispatch.check(look_divisor, who, divisor)
    elif divisor.dtype.kind not in FLOATING:
        faults.look_at_integers(divisor, 0, 1, ("divisor", who), lambda _: _division_by_zero(who), inside=True)


def look_divisor(who: str, divisor: Array) -> None:
    """:func:`check_divisor` here and now; nothing if the array is not on the host."""
    if type(divisor) is np.ndarray and not np.logical_and.reduce(divisor, axis=None):
        raise _division_by_zero(who, _first(divisor == 0)[1])


def _division_by_zero(who: str, where: str = "") -> RuntimeError:
    return RuntimeError(f"{who}: expected integers other than 0 to divide by, got 0{where}")
