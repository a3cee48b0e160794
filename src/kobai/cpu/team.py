"""Work shared with a thread that is awake: handed over through memory, without the interpreter and without a system call.

To wake a sleeping thread takes some 50 µs, and to be given the interpreter's lock as long again: more than most products of a
small net take. So a helper that has done its part stays awake for a moment (``IDLE``) and looks for the next one, outside of
the interpreter; it leaves its core to the core's other thread between two looks, and offers its processor to whoever else
wants it after some of them. What is handed over is a *job*: the address of a compiled function, how many parts there are, and
what the function reads. Parts are taken one by one by whoever comes, caller or helper, so nobody waits for a helper that is
late; where helpers are of no use, because other programs have their processors, the caller does without for a while (``REST``).
What is computed does not depend on who computed which part.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache
from typing import Any

import numpy as np

from kobai.engine.dispatch import compiled, instruction, llvm_ir
from kobai.xp import Array

IDLE = 3000
"""Looks for work, some 0.3 µs each, before a helper goes to sleep: more than there is between two products of a step, or of two
steps that follow each other."""

REST, LONGEST_REST = 64, 1 << 14
"""After helpers were of no use the caller does so many millions of multiplications alone, and each product counts as one more;
twice as many each time that it happens again soon, up to the second number."""

LARGE = 1 << 28
"""Multiplications that are shared in any case: half of them takes as long as a helper is held up for at most."""

MISSED = 20
"""So many products in a row of which no helper did a part, and the caller does without. To wake one takes less."""

PATIENCE = 500
"""Looks at whether a helper has done its part before it counts as held up, on top of what the part should take."""

# The board, through which caller and helpers meet: integers, each in a cache line of its own. WORD holds three numbers: that
# of the job (from bit 32 on), how many parts it has (from bit 16), and how many of them have been taken.
WORD, JOB, DONE, ASLEEP, CALLS, RESTING, NEXT_REST, MISSES, YIELD = (64 * i for i in range(9))

# A job: the address of a function of (job, number of a part, memory of a thread), how many parts it has, and how many
# multiplications. From HEADER on lies what the function reads.
FUNCTION, PARTS, WORK = (8 * i for i in range(3))
HEADER = 24
# --- instructions -----------------------------------------------------------------------------------------------------


def _word(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, address.type.as_pointer())


@instruction
def load(builder: Any, address: Any) -> Any:
    return builder.load_atomic(_word(builder, address), "acquire", 8)


@instruction
def store(builder: Any, address: Any, value: Any) -> None:
    builder.store_atomic(value, _word(builder, address), "seq_cst", 8)


@instruction
def add(builder: Any, address: Any, value: Any) -> Any:
    """Returns what was there before."""
    return builder.atomic_rmw("add", _word(builder, address), value, "seq_cst")


@instruction
def replace(builder: Any, address: Any, old: Any, new: Any) -> Any:
    """1 if ``old`` was there and ``new`` is now, else 0."""
    swapped = builder.cmpxchg(_word(builder, address), old, new, "seq_cst", "seq_cst")
    return builder.zext(builder.extract_value(swapped, 1), old.type)


@instruction
def give_way(builder: Any, function: Any) -> None:
    """Call the system's ``int sched_yield(void)`` at this address."""
    ir = llvm_ir()
    builder.call(builder.inttoptr(function, ir.FunctionType(ir.IntType(32), []).as_pointer()), [])


@instruction
def pause(builder: Any) -> None:
    """Leave the core to its other thread for a moment: two threads of a core that wait in haste halve each other's speed."""
    ir = llvm_ir()
    number = ir.IntType(32)
    name, operands = {
        "x86_64": ("llvm.x86.sse2.pause", []),
        "amd64": ("llvm.x86.sse2.pause", []),
        "aarch64": ("llvm.aarch64.isb", [number(15)]),
        "arm64": ("llvm.aarch64.isb", [number(15)]),
    }.get(platform.machine().lower(), ("", []))
    if name:
        form = ir.FunctionType(ir.VoidType(), [number] * len(operands))
        builder.call(builder.module.declare_intrinsic(name, fnty=form), operands)


@instruction
def call(builder: Any, function: Any, job: Any, i: Any, scratch: Any) -> None:
    """Call the compiled function at an address."""
    ir = llvm_ir()
    form = ir.FunctionType(ir.VoidType(), [job.type] * 3)
    builder.call(builder.inttoptr(function, form.as_pointer()), [job, i, scratch])


# --- loops, which run without the interpreter ---------------------------------------------------------------------------


@compiled
def _look_away(look: int, other: int) -> None:
    """Between two looks at memory that others write to; now and then whoever else wants the processor gets it."""
    if look % 32 == 31:
        give_way(other)
    for _ in range(8):
        pause()


@compiled
def alone(job: int, scratch: int) -> None:
    """The whole job by this thread."""
    for i in range(load(job + PARTS)):
        call(load(job + FUNCTION), job, i, scratch)


@compiled
def _work(board: int, scratch: int) -> int:
    """Take parts of the present job and compute them until there are no more; returns how many."""
    computed = 0
    while True:
        word = load(board + WORD)
        taken = word & 0xFFFF
        if taken >= (word >> 16) & 0xFFFF:
            return computed
        if replace(board + WORD, word, word + 1):
            job = load(board + JOB)  # it stays as long as one of its parts is not done
            call(load(job + FUNCTION), job, taken, scratch)
            add(board + DONE, 1)
            computed += 1


@compiled
def share(board: int, job: int, helpers: int, scratch: int) -> Any:
    """The job, by this thread and the helpers that are awake: 0. Or nothing, and how many helpers are to be woken first.

    ``helpers``: how many there are, awake or not; 0 if none is to be woken.
    """
    parts, work = load(job + PARTS), load(job + WORK)
    if parts == 1:
        alone(job, scratch)
        return 0
    if load(board + RESTING) > 0 and work < LARGE:
        alone(job, scratch)
        add(board + RESTING, -1 - (work >> 20))
        return 0
    asleep = load(board + ASLEEP)
    lacking = min(parts - 1, helpers) - (helpers - asleep)
    if helpers > 0 and asleep > 0 and lacking > 0:
        return min(asleep, lacking)
    store(board + JOB, job)
    store(board + DONE, 0)
    store(board + WORD, ((load(board + WORD) >> 32) + 1) << 32 | parts << 16)
    mine = _work(board, scratch)
    looks, other = 0, load(board + YIELD)
    while load(board + DONE) < parts:
        _look_away(looks, other)
        looks += 1
    # Helpers are of no use where they are held up, or come too late for anything many times in a row.
    if work >= LARGE:
        return 0
    misses = load(board + MISSES) + 1 if mine == parts else 0
    rest = load(board + NEXT_REST)
    if looks > PATIENCE + work // parts // 10_000 or misses == MISSED:
        store(board + RESTING, rest)
        store(board + NEXT_REST, min(2 * rest, LONGEST_REST))
        misses = 0
    elif mine < parts and rest > REST:
        store(board + NEXT_REST, max(REST, rest - (rest >> 7)))
    store(board + MISSES, misses)
    return 0


@compiled
def serve(board: int, seen: int, scratch: int) -> int:
    """What a helper does while it is awake; 1 if the interpreter has work for it, 0 if there has been none for a while."""
    looks, other = 0, load(board + YIELD)
    while looks < IDLE:
        if _work(board, scratch):
            looks = 0
        elif load(board + CALLS) != seen:
            return 1
        else:
            _look_away(looks, other)
            looks += 1
    return 0


@compiled
def read(address: int) -> Any:
    return load(address)


@compiled
def change(address: int, by: int) -> None:
    add(address, by)


@compiled
def take(address: int, most: int) -> Any:
    """Subtract what is there, ``most`` at most, and return it; nothing of what is negative."""
    while True:
        there = load(address)
        taken = min(there, most)
        if taken <= 0:
            return 0
        if replace(address, there, there - taken):
            return taken


# --- boards and jobs ----------------------------------------------------------------------------------------------------


class Board:
    """Where one pool of threads meets."""

    def __init__(self) -> None:
        self.memory = np.zeros(8 * 9 + 8, np.int64)
        self.address = -(-self.memory.ctypes.data // 64) * 64
        for place, value in ((YIELD, yield_address()), (NEXT_REST, REST)):
            ctypes.c_int64.from_address(self.address + place).value = value


@cache
def yield_address() -> int:
    function = ctypes.WinDLL("kernel32").SwitchToThread if os.name == "nt" else ctypes.CDLL(None).sched_yield  # type: ignore[attr-defined,unused-ignore]
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class Job:
    """What is to be done, as integers in memory. ``keeps`` holds what their addresses lead to, where it is done again."""

    def __init__(self, integers: int) -> None:
        self.keeps: tuple[Array | None, ...] = ()
        self.parts = 0
        self.memory = np.zeros(HEADER // 8 + integers, np.int64)
        self.address: int = self.memory.ctypes.data
