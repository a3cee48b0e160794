"""Parts of jobs shared with helpers that are awake: handed over through memory, without interpreter and system calls.

To wake a sleeping thread takes some 50 µs, and to be given the interpreter's lock as long again: more than most products of a
small net take. So a helper that has done its part stays awake for a moment and looks for the next job outside the interpreter.
Caller and helpers meet on a *board*, integers that all of them read, of which one is changed by all, ``word``:

              bit 63 ........ 32 | 31 .. 16 | 15 ... 0
              number of the job  | parts    | parts taken

    caller    word <- (7, 4, 0)   takes 0         takes 2             done = 4: returns
    helper    (looks, looks)             takes 1         takes 3      (looks, looks, sleeps)

To take a part is to replace (7, 4, i) by (7, 4, i + 1) in one instruction, which fails if another thread was first. Thanks to
the number of the job a helper that is held up between its look and its turn takes no part of the next job by mistake. Whoever
has computed a part adds 1 to ``done``. The caller computes parts too and returns once all are done, so it waits for helpers
that are at work, but never for one that has yet to come. What is computed does not depend on who computed it.

A helper that looks leaves its core to the core's other thread between two looks, and now and then offers its processor to
whoever else wants it. Where helpers are of no use, because other programs have their processors, the caller does without them
for a while. :class:`Patience` has the numbers.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from kobai.cpu import threads
from kobai.cpu.job import JOB, Job, Record, fields, load, store, word
from kobai.engine.dispatch import compiled, instruction, llvm_ir


class Patience(NamedTuple):
    """When helpers go to sleep, and when they are not asked any more."""

    idle: int = 3000
    """Looks for work, some 0.3 µs each, before a helper goes to sleep: more than there is between two products of a step, or of
    two steps that follow each other."""
    rest: int = 64
    """After helpers were of no use the caller does so many millions of multiplications alone, and each job counts as one more;
    twice as many each time that it happens again soon, up to ``longest_rest``."""
    longest_rest: int = 1 << 14
    large: int = 1 << 28
    """Multiplications that are shared in any case: half of them takes as long as a helper is held up for at most."""
    missed: int = 20
    """So many jobs in a row of which no helper did a part, and the caller does without. To wake one takes less."""
    held_up: int = 500
    """Looks at whether a helper has done its part before it counts as held up, on top of what the part should take."""


SCRATCH = 1 << 20
"""Bytes of memory that each thread has for parts of jobs. A product needs most (:func:`kobai.cpu.product.scratch_bytes`)."""

BOARD = fields(
    f"word job done asleep calls resting next_rest misses give_way {' '.join(Patience._fields)}", each=64
)  # each in a cache line of its own: what one thread writes does not take the others' copies of the rest away


# --- instructions -----------------------------------------------------------------------------------------------------


@instruction
def add(builder: Any, address: Any, value: Any) -> Any:
    """Returns what was there before."""
    return builder.atomic_rmw("add", word(builder, address), value, "seq_cst")


@instruction
def replace(builder: Any, address: Any, old: Any, new: Any) -> Any:
    """1 if ``old`` was there and ``new`` is now, else 0."""
    swapped = builder.cmpxchg(word(builder, address), old, new, "seq_cst", "seq_cst")
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
def look_away(look: int, other: int) -> None:
    """Between two looks at memory that others write to; now and then whoever else wants the processor gets it."""
    if look % 32 == 31:
        give_way(other)
    for _ in range(8):
        pause()


@compiled
def alone(job: int, scratch: int) -> None:
    """The whole job by this thread."""
    for i in range(load(job + JOB.parts)):
        call(load(job + JOB.function), job, i, scratch)


@compiled
def _work(board: int, scratch: int) -> int:
    """Take parts of the present job and compute them until there are no more; returns how many."""
    computed = 0
    while True:
        word = load(board + BOARD.word)
        taken = word & 0xFFFF
        if taken >= (word >> 16) & 0xFFFF:
            return computed
        if replace(board + BOARD.word, word, word + 1):
            job = load(board + BOARD.job)  # it stays as long as one of its parts is not done
            call(load(job + JOB.function), job, taken, scratch)
            add(board + BOARD.done, 1)
            computed += 1


@compiled
def share(board: int, job: int, helpers: int, scratch: int) -> Any:
    """The job, by this thread and the helpers that are awake: 0. Or nothing, and how many helpers are to be woken first.

    ``helpers``: how many there are, awake or not; 0 if none is to be woken.
    """
    parts, work = load(job + JOB.parts), load(job + JOB.work)
    if parts == 1:
        alone(job, scratch)
        return 0
    if load(board + BOARD.resting) > 0 and work < load(board + BOARD.large):
        alone(job, scratch)
        add(board + BOARD.resting, -1 - (work >> 20))
        return 0
    asleep = load(board + BOARD.asleep)
    lacking = min(parts - 1, helpers) - (helpers - asleep)
    if helpers > 0 and asleep > 0 and lacking > 0:
        return min(asleep, lacking)
    store(board + BOARD.job, job)
    store(board + BOARD.done, 0)
    store(board + BOARD.word, ((load(board + BOARD.word) >> 32) + 1) << 32 | parts << 16)
    mine = _work(board, scratch)
    looks, other = 0, load(board + BOARD.give_way)
    while load(board + BOARD.done) < parts:
        look_away(looks, other)
        looks += 1
    # Helpers are of no use where they are held up, or come too late for anything many times in a row.
    if work >= load(board + BOARD.large):
        return 0
    misses = load(board + BOARD.misses) + 1 if mine == parts else 0
    rest = load(board + BOARD.next_rest)
    if looks > load(board + BOARD.held_up) + work // parts // 10_000 or misses == load(board + BOARD.missed):
        store(board + BOARD.resting, rest)
        store(board + BOARD.next_rest, min(2 * rest, load(board + BOARD.longest_rest)))
        misses = 0
    elif mine < parts and rest > load(board + BOARD.rest):
        store(board + BOARD.next_rest, max(load(board + BOARD.rest), rest - (rest >> 7)))
    store(board + BOARD.misses, misses)
    return 0


@compiled
def serve(board: int, seen: int, scratch: int) -> int:
    """What a helper does while it is awake; 1 if the interpreter has work for it, 0 if there has been none for a while."""
    looks, other, idle = 0, load(board + BOARD.give_way), load(board + BOARD.idle)
    while looks < idle:
        if _work(board, scratch):
            looks = 0
        elif load(board + BOARD.calls) != seen:
            return 1
        else:
            look_away(looks, other)
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


# --- the board, and what is done on it ------------------------------------------------------------------------------------


class Board(Record):
    """Where the helpers of one pool meet their caller: what :class:`kobai.cpu.threads.Awake` asks for."""

    def __init__(self, patience: Patience = Patience()) -> None:  # noqa: B008 - numbers
        super().__init__(BOARD)
        self.write(give_way=give_way_address(), next_rest=patience.rest, **patience._asdict())

    def calls(self) -> int:
        return int(read(self.address + BOARD.calls))

    def call(self) -> None:
        change(self.address + BOARD.calls, 1)

    def serve(self, calls: int) -> bool:
        return bool(serve(self.address, calls, scratch()))

    def asleep(self, by: int) -> None:
        change(self.address + BOARD.asleep, by)

    def share(self, job: Job, pool: threads.Pool) -> None:
        """Do a job; as many helpers as it has parts for are woken, but nobody waits for them."""
        if lacking := share(self.address, job.address, pool.threads, scratch()):
            pool.wake(take(self.address + BOARD.asleep, lacking))
            share(self.address, job.address, 0, scratch())


@cache
def give_way_address() -> int:
    function = ctypes.WinDLL("kernel32").SwitchToThread if os.name == "nt" else ctypes.CDLL(None).sched_yield  # type: ignore[attr-defined,unused-ignore]
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def share_job(job: Job) -> None:
    """Do each part of a job, on several threads; all of them on this one if another thread's work has the pool."""
    pool, helpers = threads.pool, min(job.parts, threads.num_threads()) - 1
    if not helpers or pool.free.locked():
        alone(job.address, scratch())
        return
    with pool.free:
        board: Any = pool.awake
        if board is None:
            board = pool.awake = Board()
            pool.wake(pool.threads)
        pool.have(helpers)
        board.share(job, pool)


_own = threading.local()


def scratch() -> int:
    """The address of this thread's memory for parts of jobs; it begins where a cache line does."""
    try:
        return _own.address  # type: ignore[no-any-return]
    except AttributeError:
        _own.memory = np.empty(SCRATCH + 64, np.uint8)
        _own.address = -(-_own.memory.ctypes.data // 64) * 64
        return _own.address  # type: ignore[no-any-return]
