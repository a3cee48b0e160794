"""Cross-entropy and the negative log-likelihood in CUDA C: a block for each row, then one block that sums the losses.

The mathematics, and what forward keeps for backward, is in ``kernel.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from kobai.engine import domains
from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel
from kobai.engine.dispatch import launch
from kobai.engine.indices import flat_indices
from kobai.formula.many import dtype_of_numbers
from kobai.ops._rows import threads_for
from kobai.xp import Array, xp_of


def cross_entropy(
    rows: Array, targets: Array, weight: Array | None, ignore_index: int, reduction: str, smoothing: float
) -> tuple[Array, Callable[[Array], Array]]:
    """Loss of the rows, and the function from its gradient to theirs."""
    xp, dtype, (m, columns) = xp_of(rows), rows.dtype, rows.shape
    wide = dtype_of_numbers(dtype)
    stats, loss, reduced = xp.empty((m, 2), wide), xp.empty(m, wide), xp.empty(2, wide)
    each, mean = int(reduction == "none"), int(reduction == "mean")
    options = ignore_index, float(smoothing), columns
    report = domains.fault_of_classes("cross_entropy", targets, columns)
    launch(LOSSES, m, (rows, flat_indices(targets), weight, stats, loss, *options, *report), threads_for(columns))
    if not each:
        launch(ADD_UP, 1, (loss, flat_indices(targets), weight, reduced, ignore_index, mean, m, columns))

    def backward(dy: Array) -> Array:
        dx, dy = xp.empty((m, columns), dtype), xp.ascontiguousarray(dy, wide)
        args = rows, flat_indices(targets), weight, stats, dy, reduced, dx, each, *options
        launch(GRADIENTS, m, args, threads_for(columns))
        return dx

    # A copy, since backward needs the number beside it and programs change a loss in place: loss /= steps.
    return (loss.reshape(targets.shape) if each else reduced[:1].copy().reshape(())), backward


def nll_loss(
    rows: Array, targets: Array, weight: Array | None, ignore_index: int, reduction: str
) -> tuple[Array, Callable[[Array], Array]]:
    """Loss of rows of log-probabilities, and the function from its gradient to theirs."""
    xp, dtype, (m, columns) = xp_of(rows), rows.dtype, rows.shape
    wide = dtype_of_numbers(dtype)
    loss, reduced = xp.empty(m, wide), xp.empty(2, wide)
    each, mean = int(reduction == "none"), int(reduction == "mean")
    report = domains.fault_of_classes("nll_loss", targets, columns)
    args = rows, flat_indices(targets), weight, loss, ignore_index, m, columns, *report
    launch(NLL_LOSSES, NLL_LOSSES.blocks(m), args)
    if not each:
        launch(ADD_UP, 1, (loss, flat_indices(targets), weight, reduced, ignore_index, mean, m, columns))

    def backward(dy: Array) -> Array:
        dx, dy = xp.empty((m, columns), dtype), xp.ascontiguousarray(dy, wide)
        args = flat_indices(targets), weight, dy, reduced, dx, each, ignore_index, m, columns
        launch(NLL_GRADIENTS, NLL_GRADIENTS.blocks(dx.size), args)
        return dx

    # A copy, since backward needs the number beside it and programs change a loss in place: loss /= steps.
    return (loss.reshape(targets.shape) if each else reduced[:1].copy().reshape(())), backward


# --- the kernels ------------------------------------------------------------------------------------------------------


_WEIGHTS = r"""
    A weights = columns;  // of all classes together
    if (smoothing != 0 && weight) {
        weights = 0;
        for (int j = threadIdx.x; j < columns; j += blockDim.x) weights += (A)weight[j];
        weights = block_sum(weights);
    }
"""

LOSSES = CudaKernel(
    "cross_entropy",
    "const T* x, const long long* targets, const A* weight, A* stats, A* loss, "
    "long long ignore, A smoothing, int columns, unsigned long long* fault, unsigned long long code",
    _WEIGHTS
    + r"""
    const T* row = x + blockIdx.x * (long long)columns;
    A m = -INFINITY, s = 0;
    for (int j = threadIdx.x; j < columns; j += blockDim.x) m = maximum(m, (A)row[j]);
    m = block_max(m);
    for (int j = threadIdx.x; j < columns; j += blockDim.x) s += exp((A)row[j] - m);
    s = block_sum(s);
    const A log_s = log(s);
    const long long t = targets[blockIdx.x];
    A soft = 0;
    if (smoothing != 0) {
        for (int j = threadIdx.x; j < columns; j += blockDim.x) soft += (weight ? (A)weight[j] : (A)1) * ((A)row[j] - m);
        soft = smoothing / columns * (log_s * weights - block_sum(soft));
    }
    if (threadIdx.x == 0) {
        stats[2 * (long long)blockIdx.x] = m, stats[2 * (long long)blockIdx.x + 1] = 1 / s;
        A l = 0;
        if (t != ignore) {
            l = NAN;
            if (t < 0 || t >= columns) report(fault, code, (unsigned long long)t);
            else l = (1 - smoothing) * (weight ? (A)weight[t] : (A)1) * (log_s - ((A)row[t] - m)) + soft;
        }
        loss[blockIdx.x] = l;
    }
    """,
    dtypes=EVERY_FLOAT,
)

GRADIENTS = CudaKernel(
    "cross_entropy_backward",
    "const T* x, const long long* targets, const A* weight, const A* stats, const A* dy, const A* reduced, T* dx, "
    "int each, long long ignore, A smoothing, int columns",
    _WEIGHTS
    + r"""
    const T* row = x + blockIdx.x * (long long)columns;
    T* out = dx + blockIdx.x * (long long)columns;
    const long long t = targets[blockIdx.x];
    const bool inside = t >= 0 && t < columns;
    if (t == ignore) {
        for (int j = threadIdx.x; j < columns; j += blockDim.x) out[j] = T(0);
        return;
    }
    const A g = each ? (A)dy[blockIdx.x] : (A)dy[0] * (A)reduced[1];
    const A to_class = (1 - smoothing) * (weight && inside ? (A)weight[t] : (A)1) * g, to_all = smoothing / columns * g;
    const A m = stats[2 * (long long)blockIdx.x];
    const A factor = (to_class + to_all * weights) * (A)stats[2 * (long long)blockIdx.x + 1];
    for (int j = threadIdx.x; j < columns; j += blockDim.x) {
        A d = exp((A)row[j] - m) * factor;
        if (smoothing != 0) d -= to_all * (weight ? (A)weight[j] : (A)1);
        out[j] = inside ? (j == t ? d - to_class : d) : (A)NAN;
    }
    """,
    dtypes=EVERY_FLOAT,
)

ADD_UP = CudaKernel(
    "cross_entropy_reduce",
    "const T* loss, const long long* targets, const T* weight, T* reduced, "
    "long long ignore, int mean, long long rows, int columns",
    r"""
    A total = 0, share = 0;
    for (long long i = threadIdx.x; i < rows; i += blockDim.x) {
        total += (A)loss[i];
        const long long t = targets[i];
        if (t != ignore) share += weight && t >= 0 && t < columns ? (A)weight[t] : (A)1;
    }
    total = block_sum(total), share = block_sum(share);
    if (threadIdx.x == 0) {
        reduced[0] = mean ? (share != 0 ? total / share : (A)NAN) : total;
        reduced[1] = mean ? (share != 0 ? 1 / share : (A)0) : (A)1;
    }
    """,
    threads=1024,
)

NLL_LOSSES = CudaKernel(
    "nll_loss",
    "const T* x, const long long* targets, const A* weight, A* loss, long long ignore, long long rows, int columns, "
    "unsigned long long* fault, unsigned long long code",
    r"""
    EACH(i, rows) {
        const long long t = targets[i];
        const bool inside = t >= 0 && t < columns;
        if (t != ignore && !inside) report(fault, code, (unsigned long long)t);
        A l = 0;
        if (t != ignore) l = inside ? -(A)x[i * columns + t] * (weight ? (A)weight[t] : (A)1) : (A)NAN;
        loss[i] = l;
    }
    """,
    dtypes=EVERY_FLOAT,
)

NLL_GRADIENTS = CudaKernel(
    "nll_loss_backward",
    "const long long* targets, const A* weight, const A* dy, const A* reduced, T* dx, "
    "int each, long long ignore, long long rows, int columns",
    r"""
    EACH(i, rows * columns) {
        const long long row = i / columns, t = targets[row];
        A d = 0;
        if (t == i - row * columns && t != ignore) {
            d = -(each ? (A)dy[row] : (A)dy[0] * (A)reduced[1]) * (weight ? (A)weight[t] : (A)1);
        }
        dx[i] = d;
    }
    """,
    dtypes=EVERY_FLOAT,
)
