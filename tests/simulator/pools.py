"""CuPy's pools, with every array between fences of its own, and NaN where nothing has been written since it was handed out.

A pool asks the device for large blocks and lends parts of them, so that the device does not see where an array ends, and an
array begins with what its predecessor left. Here the pool lends a little more than it was asked for.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from simulator.device import MARGIN, Block, Machine, Stream
from simulator.runtime import offered


class Held:
    """Memory that a pool has lent. It lives as long as the array's memory does."""

    def __init__(self, machine: Machine, whole: Any, block: Block, stream: Stream) -> None:
        self.machine, self.whole, self.block, self.stream = machine, whole, block, stream

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:  # at the end, sys itself is None
        if not ending():
            self.machine.give_back(self.block, self.stream)


def install(machine: Machine) -> None:
    """Put such pools in place of CuPy's."""
    import cupy

    table: dict[str, Any] = {}
    for function in (machine.lend, machine.stream):
        offered(table, cupy.cuda.runtime.CUDARuntimeError)(function)

    class MemoryPool(cupy.cuda.memory.MemoryPool):  # type: ignore[misc]
        def malloc(self, size: int) -> Any:
            if size == 0:
                return super().malloc(size)
            whole, stream = super().malloc(size + 2 * MARGIN), table["stream"](cupy.cuda.get_current_stream().ptr)
            block = table["lend"](whole.ptr + MARGIN, size, stream)
            held = Held(machine, whole, block, stream)
            return cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(block.address, size, held, block.device), 0)

    class PinnedMemoryPool(cupy.cuda.PinnedMemoryPool):  # type: ignore[misc]
        def malloc(self, size: int) -> Any:
            memory = super().malloc(size)
            ctypes.memset(memory.ptr, 0xFF, size)
            return memory

    cupy.cuda.MemoryPool = MemoryPool  # compiled modules look at that of cupy.cuda.memory
    cupy._default_memory_pool, cupy._default_pinned_memory_pool = MemoryPool(), PinnedMemoryPool()
    cupy.cuda.set_allocator(cupy._default_memory_pool.malloc)
    cupy.cuda.set_pinned_memory_allocator(cupy._default_pinned_memory_pool.malloc)
