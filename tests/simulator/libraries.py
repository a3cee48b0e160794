"""What NVIDIA's libraries of matrices share: handles, operands on the device, functions that return a status.

CuPy's own wrappers run as they are, on C functions of these names that call Python (``capi.stand_in``). A call checks its
arguments – null pointers, leading dimensions, memory of the host or of another device – and the work waits for its stream.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np

from simulator.capi import Pointer
from simulator.device import ILLEGAL_ADDRESS, INVALID_VALUE, CudaError, Machine, Stream

REAL = {"S": "float32", "D": "float64"}
"""By the letter in the names of functions. There are no complex numbers in Kobai."""


class Handle:
    """A library's handle: of the device that is current when it is made."""

    def __init__(self, device: int) -> None:
        self.device = device
        self.stream = 0
        self.scalars_on_device = False
        self.math_mode = 0


def view(
    machine: Machine,
    device: int,
    address: int,
    dtype: Any,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Memory that a device reads or writes, as an array; strides in elements. An error where it leaves its block."""
    dtype = np.dtype(dtype)
    if 0 in shape:
        return np.empty(shape, dtype)
    if strides is None:
        strides = tuple(np.cumprod((1, *shape[:0:-1]))[::-1].tolist())
    extent = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    block = machine.memory.need(address, extent * dtype.itemsize, "an array of a library call")
    if block is None:
        raise CudaError(ILLEGAL_ADDRESS, f"{address:#x} is not on the device")
    if block.device not in (-1, device):
        raise CudaError(ILLEGAL_ADDRESS, f"{address:#x} is on device {block.device}, the call on device {device}")
    flat = np.frombuffer((ctypes.c_char * (extent * dtype.itemsize)).from_address(address), dtype)
    return np.lib.stride_tricks.as_strided(flat, shape, [s * dtype.itemsize for s in strides])


class Library:
    """The functions of one library, by their names in C, and what their bodies are made of."""

    def __init__(self, machine: Machine, invalid: int, failed: int) -> None:
        self.machine, self.invalid, self.failed = machine, invalid, failed
        self.functions: dict[str, Callable[..., int]] = {}

    # --- offering functions

    def offers(self, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Decorator: the function of this name; one for each real type, which it gets first, where the name has a {T}."""

        def offer(function: Callable[..., None]) -> Callable[..., None]:
            if "{T}" in name:
                for letter, dtype in REAL.items():
                    self._offer(name.replace("{T}", letter), partial(function, dtype))
            else:
                self._offer(name, function)
            return function

        return offer

    def _offer(self, name: str, function: Callable[..., None]) -> None:
        @wraps(function)
        def called(*args: int) -> int:
            try:
                function(*args)
            except CudaError as error:
                print(f"{name}: {error}", file=sys.stderr)  # as the libraries' own logging does
                return self.invalid if error.status in (INVALID_VALUE, ILLEGAL_ADDRESS) else self.failed
            return 0

        self.functions[name] = called

    # --- arguments

    def create(self, to: Pointer) -> None:
        put(to, np.uint64, self.machine.handle(Handle(self.machine.device)))

    def destroy(self, handle: Pointer) -> None:
        self.handle(handle)
        del self.machine.handles[handle]

    def set_stream(self, handle: Pointer, stream: Pointer) -> None:
        self.handle(handle).stream = stream

    def get_stream(self, handle: Pointer, to: Pointer) -> None:
        put(to, np.uint64, self.handle(handle).stream)

    def handle(self, number: int) -> Handle:
        handle: Handle = self.machine.of(number, Handle)  # type: ignore[assignment]
        if handle.device != self.machine.device:
            raise CudaError(INVALID_VALUE, f"a handle of device {handle.device} on device {self.machine.device}")
        return handle

    def stream(self, handle: Pointer) -> Stream:
        stream = self.machine.stream(self.handle(handle).stream)
        if stream.device != self.machine.device:
            raise CudaError(INVALID_VALUE, f"a stream of device {stream.device} on device {self.machine.device}")
        return stream

    def array(
        self, handle: Pointer, address: int, dtype: Any, shape: tuple[int, ...], strides: tuple[int, ...] | None = None
    ) -> Callable[[], np.ndarray]:
        """Memory as an array, once the work is done; checked now, and then, too: a graph may be launched after it is freed."""
        made = partial(view, self.machine, self.handle(handle).device, address, dtype, shape, strides)
        made()
        return made

    def matrix(
        self, handle: Pointer, address: int, dtype: Any, rows: int, cols: int, ld: int
    ) -> Callable[[], np.ndarray]:
        """A matrix that lies column by column, ``ld`` elements apart."""
        leading(rows, ld)
        return self.array(handle, address, dtype, (rows, cols), (1, ld))

    def batch(
        self, handle: Pointer, address: int, dtype: Any, count: int, rows: int, cols: int, ld: int, step: int
    ) -> Callable[[], np.ndarray]:
        """Matrices that lie column by column, ``step`` elements apart."""
        leading(rows, ld)
        return self.array(handle, address, dtype, (count, rows, cols), (step, 1, ld))

    def pointed(
        self, handle: Pointer, addresses: int, dtype: Any, count: int, rows: int, cols: int, ld: int
    ) -> Callable[[], list[np.ndarray]]:
        """Matrices whose addresses lie on the device."""
        leading(rows, ld)
        device, table = self.handle(handle).device, self.array(handle, addresses, np.uint64, (count,))
        return lambda: [view(self.machine, device, int(a), dtype, (rows, cols), (1, ld)) for a in table()]

    def factor(self, handle: Pointer, address: int, dtype: Any) -> Callable[[], Any]:
        """α or β: read now if it is on the host, when the work is done if the handle says that it is on the device."""
        if self.handle(handle).scalars_on_device:
            there = self.array(handle, address, dtype, (1,))
            return lambda: there()[0]
        value = get(address, dtype)
        block = self.machine.memory.find(address)
        if block is not None and block.device >= 0:
            raise CudaError(ILLEGAL_ADDRESS, "a factor on the device, which the handle has on the host")
        return lambda: value

    # --- work

    def ask(self, handle: Pointer, do: Callable[[], None]) -> None:
        self.machine.ask(self.stream(handle), do)

    def used_up(self, handle: Pointer, address: int, dtype: Any, size: int) -> Callable[[], None]:
        """Lets a workspace be as if nothing had been written to it, when the work is done."""
        self.array(handle, address, dtype, (size,))
        return lambda: self.machine.memory.poison(address, size * np.dtype(dtype).itemsize)


def leading(rows: int, ld: int) -> None:
    if rows < 0 or ld < max(1, rows):
        raise CudaError(INVALID_VALUE, f"a leading dimension of {ld} for {rows} rows")


def get(address: int, dtype: Any) -> Any:
    """A number that lies on the host."""
    if not address:
        raise CudaError(INVALID_VALUE, "a null pointer")
    return np.frombuffer((ctypes.c_char * np.dtype(dtype).itemsize).from_address(address), dtype)[0]


def put(address: int, dtype: Any, value: Any) -> None:
    """Write a number to the host."""
    if not address:
        raise CudaError(INVALID_VALUE, "a null pointer")
    np.frombuffer((ctypes.c_char * np.dtype(dtype).itemsize).from_address(address), dtype)[...] = value
