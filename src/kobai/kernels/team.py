"""Products shared with a thread that is awake: handed over through memory, without the interpreter and without a system call.

To wake a sleeping thread takes some 50 µs, and to be given the interpreter's lock as long again: more than most products of a
small net take. So a helper that has done its part stays awake for a moment (``IDLE``) and looks for the next one, outside of
the interpreter; it leaves its core to the core's other thread between two looks, and offers its processor to whoever else
wants it after some of them. What is handed over is a *job*, 16 integers that describe a product and the grid in which it is
parted. Parts are taken one by one by whoever comes, caller or helper, so nobody waits for a helper that is late; where helpers
are of no use, because other programs have their processors, the caller does without for a while (``REST``). The bits of a
product depend on the grid alone, and not on who computed what.

The products themselves are done by NumPy's own OpenBLAS, which is called by its address. Where that is another library, or
Numba is missing, :mod:`kobai.kernels.blas` shares large products alone, among threads that sleep between them.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from kobai.kernels.engine import compiled, instruction
from kobai.xp import Array

IDLE = 3000
"""Looks for work, some 0.3 µs each, before a helper goes to sleep: more than there is between two products of a step, or of two
steps that follow each other."""

REST, LONGEST_REST = 64, 1 << 14
"""After helpers were of no use the caller does so many millions of multiplications alone, and each product counts as one more;
twice as many each time that it happens again soon, up to the second number."""

MISSED = 20
"""So many products in a row of which no helper did a part, and the caller does without. To wake one takes less."""

PATIENCE = 500
"""Looks at whether a helper has done its part before it counts as held up, on top of what the part should take."""

# The board, through which caller and helpers meet: integers, each in a cache line of its own. WORD holds three numbers: that
# of the job (from bit 32 on), how many parts it has (from bit 16), and how many of them have been taken.
WORD, JOB, DONE, ASLEEP, CALLS, RESTING, NEXT_REST, MISSES, YIELD = (64 * i for i in range(9))

# A job: where each of its integers is. GEMM is the address of a BLAS' product, KIND its form: 0 and 1 are of single and double
# precision with integers of 64 bits, 2 and 3 with integers of 32.
GEMM, KIND, TRANS_A, TRANS_B, M, N, K, A, LDA, B, LDB, C, LDC, GRID_ROWS, GRID_COLUMNS, WAIT = (
    8 * i for i in range(16)
)

ROWS, COLUMNS = 4, 16
"""Parts begin at multiples of so many rows and columns: what OpenBLAS' innermost loops take at a time."""

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
    ir = _ir()
    builder.call(builder.inttoptr(function, ir.FunctionType(ir.IntType(32), []).as_pointer()), [])


@instruction
def pause(builder: Any) -> None:
    """Leave the core to its other thread for a moment: two threads of a core that wait in haste halve each other's speed."""
    ir = _ir()
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


def _gemm(real: str, width: int) -> instruction:
    """C ← op(A)·op(B) by the CBLAS function at ``function``, whose integers have ``width`` bits."""

    def build(
        builder: Any, function: Any, trans_a: Any, trans_b: Any, m: Any, n: Any, k: Any, a: Any, lda: Any, b: Any, ldb: Any,
        c: Any, ldc: Any,
    ) -> None:  # fmt: skip
        ir = _ir()
        enum, size = ir.IntType(32), ir.IntType(width)
        scalar = ir.FloatType() if real == "float32" else ir.DoubleType()
        matrix = scalar.as_pointer()
        form = [enum, enum, enum, size, size, size, scalar, matrix, size, matrix, size, scalar, matrix, size]

        def narrow(x: Any, kind: Any) -> Any:
            return x if kind.width == 64 else builder.trunc(x, kind)

        def at(x: Any) -> Any:
            return builder.inttoptr(x, matrix)

        gemm = builder.inttoptr(function, ir.FunctionType(ir.VoidType(), form).as_pointer())
        sizes = [narrow(x, size) for x in (m, n, k, lda, ldb, ldc)]
        ops = [narrow(x, enum) for x in (trans_a, trans_b)]
        one, zero = scalar(1.0), scalar(0.0)
        builder.call(
            gemm, [enum(_ROW_MAJOR), *ops, *sizes[:3], one, at(a), sizes[3], at(b), sizes[4], zero, at(c), sizes[5]]
        )

    return instruction(build)


def _ir() -> Any:
    return importlib.import_module("llvmlite.ir")  # comes with Numba


_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112  # CBLAS' own numbers

sgemm64, dgemm64, sgemm32, dgemm32 = (_gemm(r, w) for w in (64, 32) for r in ("float32", "float64"))


# --- loops, which run without the interpreter ---------------------------------------------------------------------------


@compiled
def cut(n: int, i: int, parts: int, edge: int) -> int:
    """Where the ``i``-th of ``parts`` of [0, n) begins."""
    if i == parts:
        return n
    return (n * i // parts + edge // 2) // edge * edge


@compiled
def _compute(job: int, i: int) -> None:
    """The ``i``-th part of a product."""
    grid = load(job + GRID_COLUMNS)
    row, column = i // grid, i % grid
    m, n, k = load(job + M), load(job + N), load(job + K)
    top, bottom = cut(m, row, load(job + GRID_ROWS), ROWS), cut(m, row + 1, load(job + GRID_ROWS), ROWS)
    left, right = cut(n, column, grid, COLUMNS), cut(n, column + 1, grid, COLUMNS)
    kind, lda, ldb, ldc = load(job + KIND), load(job + LDA), load(job + LDB), load(job + LDC)
    size = 8 if kind & 1 else 4
    ta, tb, gemm = load(job + TRANS_A), load(job + TRANS_B), load(job + GEMM)
    a = load(job + A) + size * top * (1 if ta == _TRANSPOSED else lda)
    b = load(job + B) + size * left * (ldb if tb == _TRANSPOSED else 1)
    c = load(job + C) + size * (top * ldc + left)
    if kind == 0:
        sgemm64(gemm, ta, tb, bottom - top, right - left, k, a, lda, b, ldb, c, ldc)
    elif kind == 1:
        dgemm64(gemm, ta, tb, bottom - top, right - left, k, a, lda, b, ldb, c, ldc)
    elif kind == 2:
        sgemm32(gemm, ta, tb, bottom - top, right - left, k, a, lda, b, ldb, c, ldc)
    else:
        dgemm32(gemm, ta, tb, bottom - top, right - left, k, a, lda, b, ldb, c, ldc)


@compiled
def _look_away(look: int, other: int) -> None:
    """Between two looks at memory that others write to; now and then whoever else wants the processor gets it."""
    if look % 32 == 31:
        give_way(other)
    for _ in range(8):
        pause()


@compiled
def describe(job: int, gemm: int, kind: int, a: Any, b: Any, out: Any, rows: int, columns: int) -> Any:
    """Write a job; False if a matrix lies neither row by row nor column by column, or the result over a factor."""
    form_a, step_a = _lies(a)
    form_b, step_b = _lies(b)
    form_c, step_c = _lies(out)
    (m, k), n = a.shape, b.shape[1]
    if form_a == 0 or form_b == 0 or form_c != _AS_IT_IS or _overlap(out, a) or _overlap(out, b):
        return False
    store(job + GEMM, gemm)
    store(job + KIND, kind)
    store(job + TRANS_A, form_a)
    store(job + TRANS_B, form_b)
    store(job + M, m)
    store(job + N, n)
    store(job + K, k)
    store(job + A, a.ctypes.data)
    store(job + LDA, step_a)
    store(job + B, b.ctypes.data)
    store(job + LDB, step_b)
    store(job + C, out.ctypes.data)
    store(job + LDC, step_c)
    store(job + GRID_ROWS, rows)
    store(job + GRID_COLUMNS, columns)
    store(job + WAIT, m * n * k // (rows * columns) // 10_000)
    return True


@compiled
def _lies(x: Any) -> Any:
    """(as it is, transposed or 0, elements from one row or column to the next) of a matrix."""
    (rows, columns), (down, right), size = x.shape, x.strides, x.itemsize
    if x.ctypes.data % size != 0:
        return 0, 0
    if right == size and down >= columns * size and down % size == 0:
        return _AS_IT_IS, down // size
    if down == size and right >= rows * size and right % size == 0:
        return _TRANSPOSED, right // size
    return 0, 0


@compiled
def _overlap(x: Any, y: Any) -> Any:
    """Whether the memory of two such matrices may have something in common."""
    x0, y0 = x.ctypes.data, y.ctypes.data
    x1 = x0 + (x.shape[0] - 1) * x.strides[0] + x.shape[1] * x.strides[1]
    y1 = y0 + (y.shape[0] - 1) * y.strides[0] + (y.shape[1] - 1) * y.strides[1] + y.itemsize
    return x0 < y1 and y0 < x1


@compiled
def alone(job: int) -> None:
    """The whole product by this thread."""
    for i in range(load(job + GRID_ROWS) * load(job + GRID_COLUMNS)):
        _compute(job, i)


@compiled
def _work(board: int) -> int:
    """Take parts of the present job and compute them until there are no more; returns how many."""
    computed = 0
    while True:
        word = load(board + WORD)
        taken = word & 0xFFFF
        if taken >= (word >> 16) & 0xFFFF:
            return computed
        if replace(board + WORD, word, word + 1):
            _compute(load(board + JOB), taken)  # the job stays as long as one of its parts is not done
            add(board + DONE, 1)
            computed += 1


@compiled
def share(board: int, job: int, helpers: int) -> Any:
    """The product, by this thread and the helpers that are awake: 0. Or nothing, and how many helpers are to be woken first.

    ``helpers``: how many there are, awake or not; 0 if none is to be woken.
    """
    parts = load(job + GRID_ROWS) * load(job + GRID_COLUMNS)
    if parts == 1:
        alone(job)
        return 0
    if load(board + RESTING) > 0:
        alone(job)
        add(board + RESTING, -1 - (load(job + M) * load(job + N) * load(job + K) >> 20))
        return 0
    asleep = load(board + ASLEEP)
    lacking = parts - 1 - (helpers - asleep)
    if helpers > 0 and asleep > 0 and lacking > 0:
        return min(asleep, lacking)
    store(board + JOB, job)
    store(board + DONE, 0)
    store(board + WORD, ((load(board + WORD) >> 32) + 1) << 32 | parts << 16)
    mine = _work(board)
    looks, other = 0, load(board + YIELD)
    while load(board + DONE) < parts:
        _look_away(looks, other)
        looks += 1
    # Helpers are of no use where they are held up, or come too late for anything many times in a row.
    misses = load(board + MISSES) + 1 if mine == parts else 0
    rest = load(board + NEXT_REST)
    if looks > PATIENCE + load(job + WAIT) or misses == MISSED:
        store(board + RESTING, rest)
        store(board + NEXT_REST, min(2 * rest, LONGEST_REST))
        misses = 0
    elif mine < parts and rest > REST:
        store(board + NEXT_REST, max(REST, rest - (rest >> 7)))
    store(board + MISSES, misses)
    return 0


@compiled
def serve(board: int, seen: int) -> int:
    """What a helper does while it is awake; 1 if the interpreter has work for it, 0 if there has been none for a while."""
    looks, other = 0, load(board + YIELD)
    while looks < IDLE:
        if _work(board):
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
        for place, value in ((YIELD, _yield_address()), (NEXT_REST, REST)):
            ctypes.c_int64.from_address(self.address + place).value = value


@cache
def _yield_address() -> int:
    function = ctypes.WinDLL("kernel32").SwitchToThread if os.name == "nt" else ctypes.CDLL(None).sched_yield  # type: ignore[attr-defined,unused-ignore]
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class Job:
    """A product as integers in memory. The addresses of its arrays are in it; ``keeps`` holds them where it is done again."""

    def __init__(self) -> None:
        self.keeps: tuple[Array, ...] = ()
        self.parts = 0
        self.memory = np.zeros(16, np.int64)
        self.address: int = self.memory.ctypes.data

    def describe(self, library: Gemms, a: Array, b: Array, out: Array, grid: tuple[int, int]) -> bool:
        """Let this be out ← a·b, parted in a grid of (rows, columns); False if BLAS cannot take the arrays as they lie."""
        single = a.itemsize == 4
        function, kind = (library.single, 0) if single else (library.double, 1)
        kind += 2 * (library.width == 32)
        self.parts = grid[0] * grid[1]
        return bool(describe(self.address, function, kind, a, b, out, *grid))


class Gemms:
    """Addresses of a BLAS' products, and the width of its integers in bits."""

    def __init__(self, single: int, double: int, width: int) -> None:
        self.single, self.double, self.width = single, double, width


def find(libraries: list[Any]) -> Gemms | None:
    """The products of NumPy's OpenBLAS among the ``libraries`` that threadpoolctl has found; None if it has another."""
    known = [library for library in libraries if library.internal_api == "openblas"]
    for library in [library for library in known if "numpy" in library.filepath] or known:
        loaded = ctypes.CDLL(library.filepath)
        for prefix in ("", "scipy_"):
            for suffix in ("64_", "_64", ""):
                names = [f"{prefix}cblas_{letter}gemm{suffix}" for letter in "sd"]
                if all(hasattr(loaded, name) for name in names):
                    single, double = (_address(getattr(loaded, name)) for name in names)
                    return Gemms(single, double, 64 if suffix or _wide(loaded, prefix) else 32)
    return None


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _wide(library: Any, prefix: str) -> bool:
    """Whether an OpenBLAS whose names do not say so has integers of 64 bits."""
    config: Callable[[], bytes] | None = getattr(library, f"{prefix}openblas_get_config", None)
    if config is None:
        return False
    config.restype = ctypes.c_char_p  # type: ignore[attr-defined]
    return b"USE64BITINT" in config()
