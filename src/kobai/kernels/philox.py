"""Philox 4×64-10, the counter stream of :mod:`kobai.random`: random bits as a pure function of key and block number.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. NumPy has it in C; elsewhere the ten
rounds are written out below. Both give the same bits, so a dropout mask is the same on every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kobai.xp import Array, xp_of

MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
KEY_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B  # golden ratio and √3 − 1, see the paper
ROUNDS = 10
BITS_PER_BLOCK = 256


def blocks_for(n: int) -> int:
    """How many blocks hold ``n`` 32-bit numbers."""
    return -(-n * 32 // BITS_PER_BLOCK)


def philox_bits(n: int, key: Sequence[int], first_block: int, like: Array) -> Array:
    """``n`` uniform uint32 numbers from block ``first_block`` on, shape (n,), on the device of the array ``like``."""
    blocks = blocks_for(n)
    if type(like) is np.ndarray:
        # NumPy's counter is incremented before a block is made
        stream = np.random.Philox(key=np.array(key, np.uint64), counter=(first_block - 1) % 2**256)
        return stream.random_raw(4 * blocks).view(np.uint32)[:n]
    xp = xp_of(like)
    counter = xp.arange(blocks, dtype=np.uint64) + np.uint64(first_block)
    zero = xp.zeros_like(counter)
    words = philox_rounds((counter, zero, zero, zero), key)
    return xp.stack(words, axis=1).reshape(-1).view(np.uint32)[:n]


def philox_rounds(counter: Sequence[Array], key: Sequence[int]) -> tuple[Array, Array, Array, Array]:
    """The four output words (uint64 arrays) of the blocks numbered by the four words of ``counter``."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, MULTIPLIERS[0])
        high1, low1 = _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + KEY_STEPS[0]) % 2**64, (k1 + KEY_STEPS[1]) % 2**64
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
