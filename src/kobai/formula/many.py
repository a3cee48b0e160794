"""One launch for many arrays: a kernel over a table of addresses, such as an optimiser's step over all its parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import addressof, c_char
from functools import partial
from operator import is_
from typing import Any

import numpy as np

from kobai.cpu.threads import GRAIN, run_split
from kobai.engine import dispatch
from kobai.formula.elementwise import Elementwise
from kobai.formula.numpy_code import as_numbers, prepared
from kobai.xp import Array


def dtype_of_numbers(dtype: Any) -> Any:
    """The dtype of the numbers given beside arrays of ``dtype``: that in which they are computed with."""
    return dtype if dtype.itemsize > 2 else np.dtype(np.float32)


class Table:
    """Where ``count`` sets of host arrays lie in memory, one array of each set for every slot.

    ``addresses[slot, i]``, and ``offsets``: where the elements of each set begin if the sets are thought of as one after the
    other. What was found for the slots ``lasting`` is kept as long as the same arrays come, and keeps them alive; arrays of the
    other slots (gradients, which every step makes anew) are looked up at every call.
    """

    def __init__(self, slots: int, count: int, lasting: Sequence[int] = ()) -> None:
        self.count = count
        self.addresses = np.zeros((slots, count), np.int64)
        self.offsets = np.zeros(count + 1, np.int64)
        self._lasting, self._others = tuple(lasting), tuple(k for k in range(slots) if k not in lasting)
        self._kept: tuple[Array, ...] = ()
        self._in_rows = False

    def find(self, arrays: tuple[Array, ...]) -> bool:
        """Fill the table for these arrays, slot after slot; False if the elements of one do not stand in a row in memory."""
        count = self.count
        lasting: tuple[Array, ...] = ()
        for k in self._lasting:
            lasting += arrays[k * count : (k + 1) * count]
        if len(self._kept) != len(lasting) or not all(map(is_, lasting, self._kept)):
            self.offsets[1:] = np.cumsum([a.size for a in arrays[:count]])
            self._in_rows = all(self._look_up(k, arrays) for k in self._lasting)
            self._kept = lasting
        return all(self._look_up(k, arrays) for k in self._others) and self._in_rows

    def _look_up(self, slot: int, arrays: tuple[Array, ...]) -> bool:
        found = list(map(_address, arrays[slot * self.count : (slot + 1) * self.count]))
        self.addresses[slot] = found
        return -1 not in found


def _address(array: Array) -> int:
    """Where the elements of a host array begin; −1 if they do not stand in a row in memory."""
    try:
        return addressof(_from_buffer(array))  # a quarter of the time of .ctypes.data
    except (TypeError, ValueError):  # read-only, empty, or not in a row
        if not isinstance(array, np.ndarray):
            raise TypeError(
                f"expected arrays of one library, got a {type(array).__name__} among those of NumPy"
            ) from None
        return int(array.ctypes.data) if array.flags.c_contiguous else -1


_from_buffer = c_char.from_buffer


class Many:
    """``many(*arrays, numbers)``: the kernel on ``count`` sets of arrays, each result into the array of its name.

    ``arrays`` are first all those that the kernel's first parameter stands for, then all those of its second, and so on;
    ``numbers`` are its numbers in order, in a tuple or a 1-D array. All arrays are of one library and dtype; those of one set
    have one shape. Started through :func:`kobai.engine.dispatch.launch`.
    """

    def __init__(self, kernel: Elementwise, count: int) -> None:
        self.kernel, self.count = kernel, count
        self.code = kernel.code()
        self.table = Table(self.code.slots, count, sorted(set(self.code.into)))
        self.begun = False
        """Set where the work of a call begins: before that, nothing has been written to."""

    def __repr__(self) -> str:
        return f"<{self.count} × {self.kernel.name}>"

    def __call__(self, *arrays_and_numbers: Any) -> None:
        arrays, numbers = arrays_and_numbers[:-1], arrays_and_numbers[-1]
        if not self.count:
            return
        first = arrays[0]
        on_host = type(first) is np.ndarray
        if on_host and dispatch.loops_run(first.dtype) and self.table.find(arrays):
            loop = self._loop(np.asarray(numbers, first.dtype))
            self.begun = True
            loop()
        elif not on_host and dispatch.engine_for(arrays, halves=True) == dispatch.DEVICE:
            self.code.cuda.launch_many(self.count, arrays, numbers)
            self.begun = True
        else:
            run, sets = (self.code.on_host if on_host else self.code.anywhere), self._sets(arrays)
            self.begun = True
            for slots in sets:
                run(*slots, numbers)

    def bind(self, *arrays_and_numbers: Any) -> Callable[[], None]:
        """The same as a function without arguments, for arrays that stay where they are: what a recorded step keeps."""
        arrays, numbers = arrays_and_numbers[:-1], arrays_and_numbers[-1]
        if not self.count or type(arrays[0]) is not np.ndarray:
            return partial(self, *arrays_and_numbers)
        fixed = Many(self.kernel, self.count)  # a table of its own: eager steps may follow with other gradients
        dtype = arrays[0].dtype
        if dispatch.loops_run(dtype) and fixed.table.find(arrays):
            bound = fixed._loop(np.asarray(numbers, dtype))
            bound.keep = arrays  # type: ignore[attr-defined]
            self.begun = True
            return bound
        calls = prepared(self.code.calls, self._sets(arrays), as_numbers(dtype, numbers))

        def run() -> None:
            for function, args in calls:
                function(*args)

        self.begun = True
        return run

    def _sets(self, arrays: tuple[Array, ...]) -> list[tuple[Array, ...]]:
        return [arrays[i :: self.count] for i in range(self.count)]

    def _loop(self, numbers: Array) -> partial[None]:
        loop, table = self.code.loops.many, self.table
        many = loop.dispatcher or loop.compile()  # not through Python: where this is called, the work begins
        n = int(table.offsets[-1])
        if n < 2 * GRAIN:
            return partial(many, table.addresses, table.offsets, numbers, 0, n)
        return partial(run_split, many, n, table.addresses, table.offsets, numbers)
