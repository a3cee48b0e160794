"""Philox 4×64-10, the counter stream of :mod:`kobai.random`: random bits as a pure function of key and block number.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A block is four 64-bit words, eight
numbers of 32 bits. Every engine gives the same bits – NumPy's generator in C, the ten rounds written out over arrays, a
compiled loop, CUDA C – so that a dropout mask is the same on every device.

A draw begins at three numbers, which :func:`reserve` takes from the generator. A replayed step reserves anew, so it continues
from where the generator is then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai.engine import dispatch
from kobai.engine.cuda_kernel import CudaKernel
from kobai.engine.dispatch import compiled, launch
from kobai.xp import Array, backend_of, xp_of

MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
KEY_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B  # golden ratio and √3 − 1, see the paper
ROUNDS = 10
PER_BLOCK = 8  # numbers


def blocks_for(n: int) -> int:
    """How many blocks hold ``n`` 32-bit numbers."""
    return -(-n // PER_BLOCK)


def reserve(source: Any, n: int) -> Any:
    """Take ``n`` numbers of the counter stream of a ``kobai.Generator``: (first block, two words of the key).

    A tuple, or in a captured step an array that is filled before every replay (:func:`kobai.engine.dispatch.numbers`).
    """
    return dispatch.numbers(_Reserve(source, blocks_for(n)), np.uint64)


class _Reserve(dispatch.Count):
    __slots__ = ("blocks", "source")

    def __init__(self, source: Any, blocks: int) -> None:
        self.source, self.blocks = source, blocks

    def __call__(self) -> tuple[int, ...]:
        return self.source.take_blocks(self.blocks) % 2**64, *self.source.key

    def save(self) -> int:
        return int(self.source.counter)

    def restore(self, saved: int) -> None:
        self.source.counter = saved


def philox_bits(n: int, start: Any, like: Array) -> Array:
    """``n`` uniform uint32 numbers from ``start`` (see :func:`reserve`), shape (n,), on the device of the array ``like``."""
    xp = xp_of(like)
    if type(like) in dispatch.HOST_TYPES:
        words = xp.empty(4 * blocks_for(n), np.uint64)
        launch(philox_words if dispatch.numba_installed else _numpy_words, on_host(start), 0, words)
    elif (of_samples := getattr(type(like), "bits", None)) is not None:
        return of_samples(n, start, like)
    elif backend_of(like).name == "cupy":
        blocks = blocks_for(n)
        words = xp.empty(4 * blocks, np.uint64)
        launch(PHILOX.of(np.dtype(np.float32)), PHILOX.blocks(blocks), (start, words, blocks))
    else:
        counter, k0, k1 = xp.asarray(on_host(start)).reshape(3, 1)
        counter = xp.arange(blocks_for(n), dtype=np.uint64) + counter
        zero = xp.zeros_like(counter)
        words = xp.stack(philox_rounds((counter, zero, zero, zero), (k0, k1)), axis=1).reshape(-1)
    return words.view(np.uint32)[:n]


def on_host(start: Any) -> Array:
    """The start from :func:`reserve` as an array on the host."""
    return np.array(start, np.uint64) if isinstance(start, tuple) else start


# --- reference --------------------------------------------------------------------------------------------------------


def _numpy_words(start: Array, skip: int, words: Array) -> None:
    counter, *key = (int(word) for word in start)
    # NumPy's counter is incremented before a block is made
    stream = np.random.Philox(key=np.array(key, np.uint64), counter=(counter + skip - 1) % 2**256)
    words[...] = stream.random_raw(words.size)


def philox_rounds(counter: Sequence[Array], key: Sequence[Array]) -> tuple[Array, Array, Array, Array]:
    """The four output words (uint64 arrays) of the blocks numbered by the four words of ``counter``; ``key`` has two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, MULTIPLIERS[0])
        high1, low1 = _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + np.uint64(KEY_STEPS[0]), k1 + np.uint64(KEY_STEPS[1])
    return c0, c1, c2, c3


def _multiply(a: Array, m: int) -> tuple[Array, Array]:
    """High and low 64 bits of a · m, by 32-bit halves as in long multiplication."""
    mask = 0xFFFFFFFF
    a_low, a_high = a & mask, a >> 32
    m_low, m_high = m & mask, m >> 32
    low = a_low * m_low
    cross = a_high * m_low
    middle = (low >> 32) + (cross & mask) + a_low * m_high  # < 2⁶⁴: cannot overflow
    high = (cross >> 32) + (middle >> 32) + a_high * m_high
    return high, (middle << 32) | (low & mask)


# --- compiled loop ----------------------------------------------------------------------------------------------------

_LOW32, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)  # Numba makes a float of uint64 and int64: all here are uint64
_M0, _M1 = (np.uint64(m >> 32) for m in MULTIPLIERS)
_m0, _m1 = (np.uint64(m & 0xFFFFFFFF) for m in MULTIPLIERS)
_0, _STEP0, _STEP1 = np.uint64(0), np.uint64(KEY_STEPS[0]), np.uint64(KEY_STEPS[1])


@compiled
def _round(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    a, b = c0 & _LOW32, c0 >> _32
    low, cross = a * _m0, b * _m0
    middle = (low >> _32) + (cross & _LOW32) + a * _M0
    high0, low0 = (cross >> _32) + (middle >> _32) + b * _M0, (middle << _32) | (low & _LOW32)
    a, b = c2 & _LOW32, c2 >> _32
    low, cross = a * _m1, b * _m1
    middle = (low >> _32) + (cross & _LOW32) + a * _M1
    high1, low1 = (cross >> _32) + (middle >> _32) + b * _M1, (middle << _32) | (low & _LOW32)
    return high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0


@compiled
def philox_words(start: Any, skip: int, words: Any) -> None:
    """Fill ``words`` (4 for each block) from block ``start[0] + skip`` on.

    LLVM vectorises only loops without a loop inside, hence ten lines for the rounds: 0.6 ns for a number instead of 3.
    """
    first, k0, k1 = start[0] + np.uint64(skip), start[1], start[2]
    for block in range(words.size // 4):
        c0, c1, c2, c3 = _round(first + np.uint64(block), _0, _0, _0, k0, k1)
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + _STEP0, k1 + _STEP1)
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + np.uint64(2) * _STEP0, k1 + np.uint64(2) * _STEP1)
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + np.uint64(3) * _STEP0, k1 + np.uint64(3) * _STEP1)
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + np.uint64(4) * _STEP0, k1 + np.uint64(4) * _STEP1)
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + np.uint64(5) * _STEP0, k1 + np.uint64(5) * _STEP1)
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + np.uint64(6) * _STEP0, k1 + np.uint64(6) * _STEP1)
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + np.uint64(7) * _STEP0, k1 + np.uint64(7) * _STEP1)
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + np.uint64(8) * _STEP0, k1 + np.uint64(8) * _STEP1)
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + np.uint64(9) * _STEP0, k1 + np.uint64(9) * _STEP1)
        words[4 * block], words[4 * block + 1] = c0, c1
        words[4 * block + 2], words[4 * block + 3] = c2, c3


# --- CUDA C -----------------------------------------------------------------------------------------------------------

PHILOX_C = rf"""
// The four words of block `block`
__device__ inline void philox(
    unsigned long long block, unsigned long long k0, unsigned long long k1, unsigned long long* words
) {{
    unsigned long long c0 = block, c1 = 0, c2 = 0, c3 = 0;
    for (int round = 0; round < {ROUNDS}; round++) {{
        const unsigned long long m0 = {MULTIPLIERS[0]:#x}ULL, m1 = {MULTIPLIERS[1]:#x}ULL;
        const unsigned long long high0 = __umul64hi(c0, m0), low0 = c0 * m0;
        const unsigned long long high1 = __umul64hi(c2, m1), low1 = c2 * m1;
        c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
        k0 += {KEY_STEPS[0]:#x}ULL, k1 += {KEY_STEPS[1]:#x}ULL;
    }}
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}}
"""
"""For the ``prelude`` of kernels that draw."""


PHILOX = CudaKernel(
    "philox",
    "unsigned long long start[3], unsigned long long* words, long long blocks",
    "EACH(i, blocks) philox(start[0] + i, start[1], start[2], words + 4 * i);",
    prelude=PHILOX_C,
    dtypes=("float32",),
)
