"""Kernels of the tests' own: they prove what every kernel stands on, the prelude, shared memory, and how arguments travel."""

import numpy as np

from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel


def _reductions(rng):
    x = rng.normal(size=(3, 1000))
    x[0] -= 10  # all negative, and all positive: no maximum or minimum is that of memory that was never written
    x[1, 500] = np.nan
    x[2] += 10
    with np.errstate(invalid="ignore"):
        wanted = np.stack([x.sum(1), x.max(1), x.min(1)], axis=1)
    return 3, (x, np.zeros((3, 3)), 1000), {"y": wanted}


def _reductions_in_one_warp(rng):
    return (*_reductions(rng), 32, 32 * 8)


def _affine(rng):
    x = rng.normal(size=777)
    return 2, (x, np.zeros(777), (2.0, -1.0), 5, 777), {"y": 2 * x - 1 + 5}


def _affine_with_numbers_on_the_device(rng):
    grid, (x, y, _, k, n), expected = _affine(rng)
    return grid, (x, y, np.array([2.0, -1.0]), k, n), expected


def _through_a_table(rng):
    x = [rng.normal(size=n) for n in (5, 300)]
    return (2, 2), (x, np.array([5, 300])), {"table": [2 * a for a in x]}


CudaKernel(
    "test_reductions",
    "const T* x, T* y, int columns",
    r"""
    A* first = shared_memory<A>();
    const T* row = x + blockIdx.x * (long long)columns;
    A sum = 0, most = -INFINITY, least = INFINITY;
    for (int j = threadIdx.x; j < columns; j += blockDim.x) {
        const A v = row[j];
        sum += v;
        most = maximum(most, v);
        least = minimum(least, v);
    }
    sum = block_sum(sum), most = block_max(most), least = block_min(least);
    first[threadIdx.x] = sum;
    __syncthreads();
    const A other = first[blockDim.x - 1 - threadIdx.x];
    if (threadIdx.x == 0) y[blockIdx.x * 3] = other, y[blockIdx.x * 3 + 1] = most, y[blockIdx.x * 3 + 2] = least;
    """,
    shared=256 * 8,
    dtypes=EVERY_FLOAT,
)
CudaKernel(
    "test_affine",
    "const T* __restrict__ x, T* y, A h[2], A k, long long n",
    "EACH(i, n) y[i] = h[0] * x[i] + h[1] + k;",
    dtypes=EVERY_FLOAT,
)
CudaKernel(
    "test_table",
    "const unsigned long long* table, const long long* sizes",
    r"""
    T* x = (T*)table[blockIdx.y];
    EACH(i, sizes[blockIdx.y]) x[i] = 2 * (A)x[i];
    """,
)

CudaKernel(
    "test_each",
    "T* x, long long n",
    r"""
    EACH(i, n) {
        static_assert(sizeof i == 8, "an array may have more elements than an int can count");
        x[i] = x[i] + (A)i;
    }
    """,
)


def _each(rng):
    x = rng.normal(size=700)
    return 2, (x, 700), {"x": x + np.arange(700)}


CHECKS = {
    "test_each": [_each],
    "test_reductions": [_reductions, _reductions_in_one_warp],
    "test_affine": [_affine, _affine_with_numbers_on_the_device],
    "test_table": [_through_a_table],
}
