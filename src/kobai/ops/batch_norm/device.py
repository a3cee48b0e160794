"""The CUDA twin of batch normalisation, see :mod:`kobai.ops.batch_norm.kernel`.

A block takes ``width`` neighbouring channels and walks through their elements (i, s) together. For (N, C) the size is 1 and the
width at least 8, so that neighbouring threads read whole sectors of memory; otherwise the width is 1. As sums are float32, the
squares are those of x − k − mean(x − k), a third pass over data that is in the caches by then. ``kept`` has an eighth row: the
rounding error of μ − k.
"""

from __future__ import annotations

from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel
from kobai.engine.dispatch import launch
from kobai.formula.many import dtype_of_numbers
from kobai.ops.batch_norm.loops import Kept
from kobai.xp import Array, xp_of

_WALK = r"""
#define WALK \
    const int column = threadIdx.x % width, lanes = blockDim.x / width, lane = threadIdx.x / width; \
    const long long c = blockIdx.x * (long long)width + column; \
    const bool inside = c < channels, first = inside && lane == 0;
#define EACH_OF_CHANNEL(at) \
    for (long long i = lane / size, s = lane % size, at; at = (i * channels + c) * size + s, inside && i < rows; \
         s += lanes % size, i += lanes / size + (s >= size), s -= s >= size ? size : 0)

// The sums of a and of b over all threads of a channel, for each of them.
template <typename V> __device__ void channel_sums(V& a, V& b, int width) {
    V* parts = shared_memory<V>();
    for (int distance = 16; distance >= width; distance >>= 1) {
        a += __shfl_xor_sync(0xffffffffu, a, distance);
        b += __shfl_xor_sync(0xffffffffu, b, distance);
    }
    const int column = threadIdx.x % width, warps = blockDim.x / 32;
    __syncthreads();  // the parts of the sums before have been read
    if (threadIdx.x % 32 < width) {
        V* part = parts + (threadIdx.x / 32 * width + column) * 2;
        part[0] = a, part[1] = b;
    }
    __syncthreads();
    a = b = 0;
    for (int warp = 0; warp < warps; warp++) {
        const V* part = parts + (warp * width + column) * 2;
        a += part[0], b += part[1];
    }
}
"""


def _blocks(x: Array) -> tuple[tuple[int, int, int, int], int, int, int]:
    """The kernels' arguments for the shape, the grid, the threads, and the bytes of shared memory."""
    rows, channels = x.shape[:2]
    size = x.size // (rows * channels)
    width = 1 if size > 1 else next(w for w in (32, 16, 8) if w == 8 or channels >= 128 * w)
    wanted = rows * size * width // 4  # four elements for each thread, if there are as many
    threads = min(1024, max(128, 1 << wanted.bit_length()))
    return (rows, channels, size, width), -(-channels // width), threads, threads // 32 * width * 16


TRAIN = CudaKernel(
    "batch_norm_train",
    "const T* x, const A* weight, const A* bias, A* running_mean, A* running_var, T* y, A* kept, A momentum, A eps, "
    "int relu, long long rows, long long channels, int size, int width",
    r"""
    WALK
    const A n = (A)rows * size, k = inside ? (A)x[c * size] : A(0);
    A sum = 0, rest = 0, squares = 0;
    EACH_OF_CHANNEL(at) sum += x[at] - k;
    channel_sums(sum, squares, width);
    const A offset = sum / n;
    EACH_OF_CHANNEL(at) {
        const A d = (x[at] - k) - offset;
        rest += d;  // not quite 0: backward takes it out of its sum
        squares += d * d;
    }
    channel_sums(rest, squares, width);
    const A var = squares / n, mean = k + offset, invstd = 1 / sqrt(var + eps);
    const A scale = inside && weight ? invstd * weight[c] : invstd;
    const A shift = (inside && bias ? (A)bias[c] : A(0)) - offset * scale;
    if (first) {
        const A values[8] = {k, offset, invstd, scale, shift, mean, var, rest / n};
        for (int j = 0; j < 8; j++) kept[j * channels + c] = values[j];
        if (running_mean) running_mean[c] += momentum * (mean - running_mean[c]);
        if (running_var) running_var[c] += momentum * (var * (n / (n - 1)) - running_var[c]);
    }
    EACH_OF_CHANNEL(at) { const A v = (x[at] - k) * scale + shift; y[at] = relu && v < 0 ? A(0) : v; }
    """,
    threads=1024,
    prelude=_WALK,
    dtypes=EVERY_FLOAT,
)

BACKWARD = CudaKernel(
    "batch_norm_backward",
    "const T* dy, const T* x, const T* y, const A* kept, T* dx, A* dweight, A* dbias, "
    "long long rows, long long channels, int size, int width",
    r"""
    WALK
    A k = 0, offset = 0, invstd = 0, scale = 0, rest = 0;
    if (inside) {
        k = kept[c], offset = kept[channels + c], invstd = kept[2 * channels + c], scale = kept[3 * channels + c];
        rest = kept[7 * channels + c];
    }
    A sum = 0, along = 0;
    EACH_OF_CHANNEL(at) {
        const A dz = y && y[at] <= 0 ? A(0) : (A)dy[at];
        sum += dz;
        along += dz * ((x[at] - k) - offset);
    }
    channel_sums(sum, along, width);
    along = (along - rest * sum) * invstd;
    if (first) dweight[c] = along, dbias[c] = sum;
    const A n = (A)rows * size, level = scale * sum / n, slope = scale * invstd * along / n;
    EACH_OF_CHANNEL(at) {
        const A dz = y && y[at] <= 0 ? A(0) : (A)dy[at];
        dx[at] = dz * scale - (((x[at] - k) - offset) * slope + level);
    }
    """,
    threads=1024,
    prelude=_WALK,
    dtypes=EVERY_FLOAT,
)

AFFINE = CudaKernel(
    "batch_norm_affine",
    "const T* x, const A* mean, const A* scale, const A* bias, T* y, int relu, long long n, int channels, int size",
    r"""
    EACH(i, n) {
        const int c = i / size % channels;
        const A v = (x[i] - mean[c]) * scale[c] + bias[c];
        y[i] = relu && v < 0 ? A(0) : v;
    }
    """,
    dtypes=EVERY_FLOAT,
)


def train(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    y: Array,
    momentum: float,
    eps: float,
    relu: bool,
) -> Kept:
    kept = xp_of(x).empty((8, x.shape[1]), dtype_of_numbers(x.dtype))
    sizes, grid, threads, shared = _blocks(x)
    args = (x, weight, bias, running_mean, running_var, y, kept, momentum, eps, int(relu), *sizes)
    launch(TRAIN, grid, args, threads, shared)
    return (kept,)


def backward(dz: Array, x: Array, y: Array | None, kept: Kept, dx: Array, dweight: Array, dbias: Array) -> None:
    sizes, grid, threads, shared = _blocks(x)
    launch(BACKWARD, grid, (dz, x, y, *kept, dx, dweight, dbias, *sizes), threads, shared)


def affine(x: Array, mean: Array, scale: Array, shift: Array, y: Array, relu: bool) -> None:
    size = x.size // (x.shape[0] * x.shape[1])
    launch(AFFINE, AFFINE.blocks(x.size), (x, mean, scale, shift, y, int(relu), x.size, x.shape[1], size))
