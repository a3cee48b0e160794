"""The statistics of :mod:`kobai.lab.probe.moments` as one CUDA kernel of PARTS blocks, each with sums of its own.

A block goes from tile to tile: ``width`` adjacent columns, which its threads sum together, so that neighbouring threads read
neighbouring memory. In a table of one row a tile has as many columns as there are threads. The host adds up the few partial
sums: on the device that would take a second launch. Sums are float64 even for float32, which is free where memory is the limit.
"""

from __future__ import annotations

import math
from typing import Any

from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel
from kobai.engine.dispatch import launch
from kobai.lab.probe.moments_layout import HEAD, SUMS, Layout, Look
from kobai.xp import Array

PARTS = 32
"""Blocks: with 1024 threads each they use half of an H100's memory bandwidth, and leave few sums to the host."""


def shape_of_blocks(layout: Layout, look: Look) -> tuple[int, int, int]:
    """Columns of a tile, threads, and bytes of shared memory."""
    threads = min(1024, max(128, 1 << (layout.size // (4 * PARTS)).bit_length()))  # four elements per thread
    width = 32 if look.by_sample and layout.columns < layout.size else threads
    return width, threads, 16 * threads if width < threads else 0


def _arguments(x: Array, minus: Array | None, row: Array, look: Look, layout: Layout, width: int) -> tuple[Any, ...]:
    end = HEAD + PARTS * SUMS
    return (
        x, minus, row[:HEAD], row[HEAD:end], row[end:] if look.bins else None,
        layout.size, layout.samples, layout.columns, int(look.by_sample), width, *(look.flat or (math.nan, math.nan)),
        layout.units if look.rectifier else 0, layout.inner, layout.stride, layout.count, look.bins,
        *(look.range or (math.nan, math.nan)),
    )  # fmt: skip


MOMENTS = CudaKernel(
    "moments",
    "const T* x, const T* minus, double* head, double* sums, double* counts, long long size, long long samples, "
    "long long columns, int by_sample, int width, double low, double high, int units, long long inner, "
    "long long stride, int count, int bins, double least, double most",
    r"""
    const int column = threadIdx.x % width, lane = threadIdx.x / width, lanes = blockDim.x / width;
    const long long rows = size / columns;
    const A lower = low, upper = high;
    const double k0 = origin(element(x, minus, 0));
    double within = 0, total = 0, squares = 0, outside = 0;
    A largest = 0;
    for (long long first = blockIdx.x * (long long)width; first < columns; first += (long long)gridDim.x * width) {
        const long long c = first + column;
        const bool inside = c < columns;
        const double k = inside ? origin(element(x, minus, c)) : 0;
        double s = 0, q = 0;
        for (long long i = lane; inside && i < rows; i += lanes) {
            const A v = element(x, minus, i * columns + c);
            const double d = v - k;
            s += d;
            q += d * d;
            largest = maximum(largest, (A)fabs(v));
            outside += v <= lower || v >= upper;
        }
        over_lanes(s, q, width);
        if (inside && lane == 0) {
            const double offset = s / rows, mean = (k - k0) + offset, rest = q - s * offset;
            within += rest < 0 ? 0 : rest;
            total += mean;
            squares += mean * mean;
        }
    }

    // A warp for each unit: one that lives mostly shows it in its first elements.
    double dead = 0;
    const long long each = units ? size / units : 0;
    for (long long u = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; u < units;
         u += (long long)gridDim.x * (blockDim.x / 32)) {
        int alive = 0;
        for (long long start = 0; start < each && !alive; start += 32) {
            const long long e = start + threadIdx.x % 32;
            alive = __any_sync(0xffffffffu, e < each && !((A)x[(e / inner * units + u) * inner + e % inner] <= 0));
        }
        dead += threadIdx.x % 32 == 0 && !alive;
    }

    within = block_sum(within), total = block_sum(total), squares = block_sum(squares);
    outside = block_sum(outside), dead = block_sum(dead), largest = block_max(largest);
    if (threadIdx.x == 0) {
        double* part = sums + blockIdx.x * SUMS;
        part[0] = by_sample ? within : NAN, part[1] = total, part[2] = squares, part[3] = by_sample ? largest : (A)NAN;
        part[4] = low < high ? outside / size : NAN, part[5] = units ? dead / units : NAN;
    }
    if (blockIdx.x > 0) return;
    if (threadIdx.x == 0) head[0] = size, head[1] = samples, head[2] = columns, head[3] = k0;
    if (!bins) return;

    double from = INFINITY, to = -INFINITY;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        const double v = element(x, minus, i * stride);
        if (fabs(v) < INFINITY) from = minimum(from, v), to = maximum(to, v);
    }
    from = block_min(from), to = block_max(to);
    if (from <= to && least < most) from = least, to = most;
    if (from == to) from -= 0.5, to += 0.5;
    if (threadIdx.x == 0) head[4] = from, head[5] = to;
    for (int i = threadIdx.x; i < bins; i += blockDim.x) counts[i] = 0;
    __syncthreads();
    const double scale = bins / (to - from);
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        const double v = element(x, minus, i * stride);
        if (fabs(v) < INFINITY) atomicAdd(counts + (int)fmax(0.0, fmin((v - from) * scale, bins - 1.0)), 1.0);
    }
    """,
    threads=1024,
    prelude=rf"""
    const int SUMS = {SUMS};

    __device__ inline A element(const T* x, const T* minus, long long at) {{
        return minus ? (A)x[at] - (A)minus[at] : (A)x[at];
    }}

    __device__ inline double origin(double x) {{ return fabs(x) < INFINITY ? x : 0; }}

    // The sums of s and of q over all threads of a column, for the first of them.
    __device__ inline void over_lanes(double& s, double& q, int width) {{
        if (width == blockDim.x) return;
        double* all = shared_memory<double>();
        __syncthreads();  // the sums of the tile before have been read
        all[threadIdx.x] = s, all[blockDim.x + threadIdx.x] = q;
        __syncthreads();
        if (threadIdx.x < width)
            for (int t = threadIdx.x + width; t < blockDim.x; t += width) s += all[t], q += all[blockDim.x + t];
    }}
    """,
    dtypes=EVERY_FLOAT,
)


def measure(x: Array, minus: Array | None, row: Array, look: Look, layout: Layout) -> None:
    width, threads, shared = shape_of_blocks(layout, look)
    launch(MOMENTS, PARTS, _arguments(x, minus, row, look, layout, width), threads, shared)
