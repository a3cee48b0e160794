"""One launch for many arrays: a kernel over a table of addresses, such as an optimiser's step over all its parameters."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import addressof, c_char
from functools import partial
from operator import is_
from typing import Any

import numpy as np

from kobai.kernels import engine
from kobai.kernels._numpy_code import as_numbers, prepared
from kobai.kernels.compiler import Elementwise
from kobai.kernels.threads import GRAIN, run_split
from kobai.xp import Array


class Many:
    """``many(*arrays, numbers)``: the kernel on ``count`` sets of arrays, each result into the array of its name.

    ``arrays`` are first all those that the kernel's first parameter stands for, then all those of its second, and so on;
    ``numbers`` are its numbers in order, in a tuple or a 1-D array. All arrays are of one library and dtype; those of one set
    have one shape. Started through :func:`kobai.kernels.engine.launch`.

    The table of addresses is kept from call to call for the arrays that the kernel writes (parameters and their state), as
    long as the same ones come. Arrays that are only read (gradients) are looked up anew at every call and not kept alive.
    """

    def __init__(self, kernel: Elementwise, count: int) -> None:
        self.kernel, self.count = kernel, count
        self.code = kernel.code()
        self.slots = self.code.slots
        self.written = [k * count + i for k in range(self.slots) if k in self.code.into for i in range(count)]
        self.read = [k * count + i for k in range(self.slots) if k not in self.code.into for i in range(count)]
        self._kept: list[Array] = []
        self._table = np.zeros((self.slots, count), np.int64)
        self._addresses = self._table.reshape(-1)
        self._offsets = np.zeros(count + 1, np.int64)
        self._regular = False

    def __repr__(self) -> str:
        return f"<{self.count} × {self.kernel.name}>"

    def __call__(self, *arrays_and_numbers: Any) -> None:
        arrays, numbers = arrays_and_numbers[:-1], arrays_and_numbers[-1]
        if not self.count:
            return
        first = arrays[0]
        if type(first) is np.ndarray:
            if self._loops_run(first.dtype) and self._find(arrays):
                self._loop(np.asarray(numbers, first.dtype))()
            else:
                for slots in self._sets(arrays):
                    self.code.on_host(*slots, numbers)
        elif self.code.cuda.runs(*arrays):
            self.code.cuda.launch_many(self.count, arrays, numbers)
        else:
            for slots in self._sets(arrays):
                self.code.anywhere(slots, numbers)

    def bind(self, *arrays_and_numbers: Any) -> Callable[[], None]:
        """The same as a function without arguments, for arrays that stay where they are: what a recorded step keeps."""
        arrays, numbers = arrays_and_numbers[:-1], arrays_and_numbers[-1]
        if not self.count:
            return lambda: None
        first = arrays[0]
        if type(first) is not np.ndarray:
            return partial(self, *arrays_and_numbers)
        fixed = Many(self.kernel, self.count)  # a table of its own: eager steps may follow with other gradients
        if fixed._loops_run(first.dtype) and fixed._find(arrays):
            bound = fixed._loop(np.asarray(numbers, first.dtype))
            bound.keep = arrays  # type: ignore[attr-defined]
            return bound
        scalars = as_numbers(first.dtype, numbers)
        calls = [call for slots in self._sets(arrays) for call in prepared(self.code.calls, slots, scalars)]

        def run() -> None:
            for function, args in calls:
                function(*args)

        return run

    def _sets(self, arrays: tuple[Array, ...]) -> list[tuple[Array, ...]]:
        return [arrays[i :: self.count] for i in range(self.count)]

    def _loops_run(self, dtype: Any) -> bool:
        return engine.numba_installed and dtype in engine.FLOATS and self.kernel.formula.vectorises

    def _loop(self, numbers: Array) -> partial[None]:
        many, n = self.code.loops.many, int(self._offsets[-1])
        if n < 2 * GRAIN:
            return partial(many, self._table, self._offsets, numbers, 0, n)
        return partial(run_split, many, n, self._table, self._offsets, numbers)

    def _find(self, arrays: tuple[Array, ...]) -> bool:
        """Fill the table; False if the elements of some array do not lie in a row in memory."""
        written = [arrays[i] for i in self.written]
        if len(written) != len(self._kept) or not all(map(is_, written, self._kept)):
            self._kept = written
            addresses = list(map(_address, arrays))
            self._regular = -1 not in addresses
            self._addresses[:] = addresses
            self._offsets[1:] = np.cumsum([a.size for a in arrays[: self.count]])
            return self._regular
        addresses = [_address(arrays[i]) for i in self.read]
        self._addresses[self.read] = addresses
        return self._regular and -1 not in addresses


def _address(array: Array) -> int:
    """Where the elements of a host array begin; −1 if they do not stand in a row in memory."""
    try:
        return addressof(c_char.from_buffer(array))  # a quarter of the time of .ctypes.data
    except (TypeError, ValueError):  # read-only, empty, or not in a row
        if not isinstance(array, np.ndarray):
            raise TypeError(
                f"expected arrays of one library, got a {type(array).__name__} among those of NumPy"
            ) from None
        return int(array.ctypes.data) if array.flags.c_contiguous else -1
