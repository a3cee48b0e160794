"""Workspace: the memory for the intermediate arrays of a captured step.

During a recording every new array holds a *block* of memory, and so do its views. When the last of them is dropped, by the
tape or by the program, reference counting returns the block, and a later array of that size reuses it::

    the step      a = x @ w     b = relu(a)     del a       c = b * 2     del b       d = c - 1
    its block     a: 1          b: 2            1 is free   c: 1          2 is free   d: 2

Replays write to the same addresses in the same order, so an assignment that was right in the recording is right in every
replay, and no analysis of lifetimes is needed. The block returned last is reused first, because it is still in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


class Block:
    """The memory of one array and its views; returns to its workspace when the last of them is dropped."""

    __slots__ = ("memory", "workspace")

    memory: np.ndarray[Any, Any]
    workspace: Workspace | None

    def __new__(cls, memory: np.ndarray[Any, Any], workspace: Workspace) -> Block:
        made = super().__new__(cls)
        made.memory, made.workspace = memory, workspace  # so that __del__ always finds them
        return made

    def keep(self) -> None:
        """Never return the memory: something outside the step uses it."""
        self.workspace = None

    def __del__(self) -> None:
        if self.workspace is not None:
            self.workspace.free.append(self.memory)


class Workspace:
    """Blocks of host memory, reused by size.

    >>> workspace = Workspace()
    >>> block = workspace.take(1000)
    >>> del block
    >>> again = workspace.take(900)
    >>> workspace.bytes
    1024
    """

    def __init__(self) -> None:
        self.free: list[np.ndarray[Any, Any]] = []
        self.bytes = 0

    def take(self, nbytes: int) -> Block:
        """A block of at least ``nbytes``, aligned for vector loads."""
        size = -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
        best = -1
        for i in range(len(self.free) - 1, -1, -1):  # the block returned last comes first
            have = self.free[i].nbytes
            if have == size:
                best = i
                break
            if size < have <= 2 * size and (best < 0 or have < self.free[best].nbytes):
                best = i
        if best >= 0:
            return Block(self.free.pop(best), self)
        raw = np.empty(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self.bytes += size
        return Block(raw[start : start + size], self)

    def like(self, array: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], Block]:
        """A new array with the shape, dtype and memory layout of ``array``, and its block."""
        block = self.take(array.nbytes)
        order = sorted(range(array.ndim), key=lambda axis: (-abs(array.strides[axis]), axis))
        dense = np.ndarray([array.shape[axis] for axis in order], array.dtype, buffer=block.memory.data)
        return dense.transpose(np.argsort(order)) if array.ndim > 1 else dense, block
