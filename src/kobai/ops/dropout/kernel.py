"""Dropout masks and their use: reference, compiled loops, CUDA C.

An element is kept when its 32-bit number of the counter stream is at least p · 2³². The mask is kept as bytes for backward:
reading one takes a tenth of the time that drawing it again would.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.cpu.threads import GRAIN
from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel
from kobai.engine.dispatch import compiled, device, host, kernel, launch
from kobai.ops._rows import launch_split
from kobai.ops.dropout.philox import PHILOX_C, blocks_for, on_host, philox_bits, philox_words, reserve
from kobai.xp import Array, xp_of

CHUNK = 2048
"""Numbers drawn at a time, so that they stay in the first-level cache."""

DRAWN, LIGHT = 1 << 17, 4 * GRAIN
"""Elements worth a thread where each needs a random number, 0.6 ns, and where it is only masked (see ``threads.GRAIN``)."""


def keep_mask(shape: tuple[int, ...], p: float, source: Any, like: Array) -> Array:
    """bool array of ``shape``, True with probability 1 − p (to within 2⁻³²); advances the counter of ``source``."""
    n = math.prod(shape)
    start = reserve(source, n)
    return (philox_bits(n, start, like) >= _threshold(p)).reshape(shape)


@kernel("x", halves=True)
def dropout(x: Array, p: float, source: Any) -> tuple[Array, Array]:
    """y = x · keep / (1 − p) and the mask ``keep``, p < 1; advances the counter of ``source``."""
    keep = keep_mask(x.shape, p, source, x)
    return masked(x, keep, 1 / (1 - p)), keep


@kernel("x", halves=True, when=lambda x, keep, scale: x.shape == keep.shape and keep.flags.c_contiguous)
def masked(x: Array, keep: Array, scale: float) -> Array:
    """x · keep · scale; ``keep`` has the dimensions of ``x`` or 1 in their place."""
    y = x * keep
    y *= scale
    return y


def _threshold(p: float) -> int:
    return min(round(p * 2**32), 2**32 - 1)


# --- compiled loops ---------------------------------------------------------------------------------------------------


@host(dropout)
def _dropout_numba(x: Array, p: float, source: Any) -> tuple[Array, Array]:
    xp = xp_of(x)
    y, keep = xp.empty(x.shape, x.dtype), xp.empty(x.shape, bool)
    parts = max(1, min(32, x.size // DRAWN))
    size = -(-x.size // (parts * CHUNK)) * CHUNK
    words = xp.empty((parts, CHUNK // 2), np.uint64)
    start = on_host(reserve(source, x.size))
    args = x.reshape(-1), start, _threshold(p), 1 / (1 - p), words, keep.reshape(-1), y.reshape(-1), size
    launch_split(_drop, parts, parts, 1, *args)
    return y, keep


@compiled
def _drop(
    x: Any, first: Any, threshold: int, scale: float, words: Any, keep: Any, y: Any, size: int, start: int, stop: int
) -> None:
    """Parts ``start`` to ``stop`` of all elements; each part has ``size`` elements and its own row of ``words``."""
    number = x.dtype.type
    factor, least = number(scale), np.uint32(threshold)
    for part in range(start, stop):
        drawn = words[part]
        bits = drawn.view(np.uint32)
        for at in range(part * size, min((part + 1) * size, x.size), bits.size):
            xs, ks, ys = x[at : at + bits.size], keep[at : at + bits.size], y[at : at + bits.size]
            philox_words(first, at // 8, drawn[: (xs.size + 7) // 8 * 4])
            for i in range(xs.size):
                kept = bits[i] >= least
                ks[i] = kept
                ys[i] = xs[i] * (factor if kept else number(0))


@host(masked)
def _masked_numba(x: Array, keep: Array, scale: float) -> Array:
    y = xp_of(x).empty(x.shape, x.dtype)
    launch_split(_mask, x.size, x.size, LIGHT, x.reshape(-1), keep.reshape(-1), scale, y.reshape(-1))
    return y


@compiled
def _mask(x: Any, keep: Any, scale: float, y: Any, start: int, stop: int) -> None:
    number = x.dtype.type
    factor = number(scale)
    xs, ks, ys = x[start:stop], keep[start:stop], y[start:stop]
    for i in range(xs.size):
        ys[i] = xs[i] * (factor if ks[i] else number(0))


# --- CUDA C: a thread for each block of eight numbers -----------------------------------------------------------------


DROPOUT = CudaKernel(
    "dropout",
    "const T* x, unsigned long long start[3], unsigned int threshold, A scale, bool* keep, T* y, long long n",
    r"""
    EACH(block, (n + 7) / 8) {
        unsigned long long words[4];
        philox(start[0] + block, start[1], start[2], words);
        for (int i = 0; i < 8; i++) {
            const long long at = 8 * block + i;
            if (at >= n) break;
            const bool kept = (unsigned int)(words[i / 2] >> (i % 2 * 32)) >= threshold;
            keep[at] = kept;
            y[at] = (A)x[at] * (kept ? scale : (A)0);
        }
    }
    """,
    prelude=PHILOX_C,
    dtypes=EVERY_FLOAT,
)

MASK = CudaKernel(
    "dropout_mask",
    "const T* x, const bool* keep, A scale, T* y, long long n",
    "EACH(i, n) y[i] = (A)x[i] * (keep[i] ? scale : (A)0);",
    dtypes=EVERY_FLOAT,
)


@device(dropout)
def _dropout_cuda(x: Array, p: float, source: Any) -> tuple[Array, Array]:
    xp, blocks = xp_of(x), blocks_for(x.size)
    y, keep = xp.empty(x.shape, x.dtype), xp.empty(x.shape, bool)
    args = x, reserve(source, x.size), _threshold(p), 1 / (1 - p), keep, y, x.size
    launch(DROPOUT, DROPOUT.blocks(blocks), args)
    return y, keep


@device(masked)
def _masked_cuda(x: Array, keep: Array, scale: float) -> Array:
    y = xp_of(x).empty(x.shape, x.dtype)
    launch(MASK, MASK.blocks(x.size), (x, keep, scale, y, x.size))
    return y
