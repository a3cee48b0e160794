"""Jobs: work in parts, written down as integers in memory, where compiled loops read it by name.

Threads hand work over without the interpreter (:mod:`kobai.cpu.team`), so what is to be done cannot be Python objects. It is a
*record*: integers of 64 bits side by side, one for each name.

    address ->  | function | parts | work | size | m | n | k | a | ...
    offset         0          8       16     24    32 ...
                  every job, read by the team    this kind of job, read by its function

:func:`fields` gives the names their offsets, and ``load(job + PRODUCT.m)`` reads one in a compiled loop. Arrays are in a record
as addresses, so whoever keeps a job to run it again keeps its arrays too (``Job.keeps``).
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from kobai.engine.dispatch import instruction
from kobai.xp import Array


def fields(names: str, *, after: Any = (), each: int = 8) -> Any:
    """Offsets in bytes by name, ``each`` bytes apart; the names of another record, ``after``, come first.

    >>> POINT = fields("x y")
    >>> POINT.y, fields("z", after=POINT)
    (8, Offsets(x=0, y=8, z=16))
    """
    known = (*getattr(after, "_fields", ()), *names.split())
    return namedtuple("Offsets", known)(*range(0, each * len(known), each))


# --- instructions -----------------------------------------------------------------------------------------------------


def word(builder: Any, address: Any) -> Any:
    """The integer at an address, as LLVM points to it."""
    return builder.inttoptr(address, address.type.as_pointer())


@instruction
def load(builder: Any, address: Any) -> Any:
    return builder.load_atomic(word(builder, address), "acquire", 8)


@instruction
def store(builder: Any, address: Any, value: Any) -> None:
    builder.store_atomic(value, word(builder, address), "seq_cst", 8)


# --- records ----------------------------------------------------------------------------------------------------------


class Record:
    """Memory for the integers that ``layout`` names, all zero; it begins where a cache line does."""

    def __init__(self, layout: Any) -> None:
        size, each = layout[-1] // 8 + 1, (layout[1] - layout[0]) // 8
        memory = np.zeros(size + 8, np.int64)
        begin = memory.ctypes.data
        self.address: int = -(-begin // 64) * 64
        skipped = (self.address - begin) // 8
        self.memory, self.layout = memory[skipped : skipped + size], layout
        self.integers = self.memory[::each]

    def write(self, **values: int) -> None:
        """Set integers by name."""
        present = self.layout._make(self.integers.tolist())
        self.integers[:] = present._replace(**values)

    def read(self, name: str) -> int:
        return int(self.memory[getattr(self.layout, name) // 8])


JOB = fields("function parts work")
"""What every job says: the address of a function of (job, number of a part, memory of a thread), how many parts there are, and
how many multiplications."""


class Job(Record):
    """A record that begins with :data:`JOB`. ``keeps`` holds what its addresses lead to, where it is run again."""

    def __init__(self, layout: Any) -> None:
        super().__init__(layout)
        self.parts = 0
        self.keeps: tuple[Array | None, ...] = ()
