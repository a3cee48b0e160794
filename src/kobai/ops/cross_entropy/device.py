"""Cross-entropy and the negative log-likelihood in CUDA C: a block for each row, then one block that adds the losses up.

What is computed, and how it is divided between forward and backward, is in ``cross_entropy.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.engine import domains
from kobai.engine.cuda_kernel import CudaKernel
from kobai.engine.dispatch import launch
from kobai.engine.indices import flat_indices
from kobai.ops._rows import threads_for
from kobai.xp import Array, xp_of


def cross_entropy(
    rows: Array, targets: Array, weight: Array | None, ignore_index: int, reduction: str, smoothing: float
) -> tuple[Array, Callable[[Array], Array]]:
    """Loss of the rows, and the function from its gradient to theirs."""
    xp, dtype, (m, columns) = xp_of(rows), rows.dtype, rows.shape
    stats, loss, reduced = xp.empty((m, 2), dtype), xp.empty(m, dtype), xp.empty(2, dtype)
    each, mean = int(reduction == "none"), int(reduction == "mean")
    options = ignore_index, float(smoothing), columns
    report = domains.fault_of_classes("cross_entropy", targets, columns)
    launch(LOSSES, m, (rows, flat_indices(targets), weight, stats, loss, *options, *report), threads_for(columns))
    if not each:
        launch(ADD_UP, 1, (loss, flat_indices(targets), weight, reduced, ignore_index, mean, m, columns))

    def backward(dy: Array) -> Array:
        dx, dy = xp.empty((m, columns), dtype), xp.ascontiguousarray(dy)
        args = rows, flat_indices(targets), weight, stats, dy, reduced, dx, each, *options
        launch(GRADIENTS, m, args, threads_for(columns))
        return dx

    return (loss.reshape(targets.shape) if each else reduced[:1].reshape(())), backward


def nll_loss(
    rows: Array, targets: Array, weight: Array | None, ignore_index: int, reduction: str
) -> tuple[Array, Callable[[Array], Array]]:
    """Loss of rows of log-probabilities, and the function from its gradient to theirs."""
    xp, dtype, (m, columns) = xp_of(rows), rows.dtype, rows.shape
    loss, reduced = xp.empty(m, dtype), xp.empty(2, dtype)
    each, mean = int(reduction == "none"), int(reduction == "mean")
    report = domains.fault_of_classes("nll_loss", targets, columns)
    args = rows, flat_indices(targets), weight, loss, ignore_index, m, columns, *report
    launch(NLL_LOSSES, NLL_LOSSES.blocks(m), args)
    if not each:
        launch(ADD_UP, 1, (loss, flat_indices(targets), weight, reduced, ignore_index, mean, m, columns))

    def backward(dy: Array) -> Array:
        dx, dy = xp.empty((m, columns), dtype), xp.ascontiguousarray(dy)
        args = flat_indices(targets), weight, dy, reduced, dx, each, ignore_index, m, columns
        launch(NLL_GRADIENTS, NLL_GRADIENTS.blocks(dx.size), args)
        return dx

    return (loss.reshape(targets.shape) if each else reduced[:1].reshape(())), backward


# --- the kernels, and what they must give -----------------------------------------------------------------------------


def _problem(rng: np.random.Generator, m: int, columns: int, weighted: bool) -> tuple[Any, ...]:
    """Scores, targets of which some are ignored (-1), weights and the weight of each row's target (0 where ignored)."""
    x = rng.normal(size=(m, columns)) * 3
    targets = rng.integers(-1, columns, m)
    weight = rng.uniform(0.5, 2, columns) if weighted else None
    all_weights = np.ones(columns) if weight is None else weight
    share = np.where(targets < 0, 0, all_weights[targets])
    return x, targets, weight, all_weights, share


def _stats(x: Array) -> Array:
    m = x.max(axis=1)
    return np.stack([m, 1 / np.exp(x - m[:, None]).sum(axis=1)], axis=1)


_FOUND_NOTHING, _FOUND = np.zeros(2, np.uint64), np.array([9, 1000], np.uint64)


def _check_losses(columns: int, weighted: bool, smoothing: float, wrong: bool = False) -> Any:
    def check(rng: np.random.Generator) -> Any:
        x, targets, weight, weights, share = _problem(rng, 7, columns, weighted)
        stats = _stats(x)
        each = -np.log(stats[:, 1:]) - (x - stats[:, :1])
        valid = targets >= 0
        loss = (1 - smoothing) * share * each[np.arange(7), targets]
        loss += valid * smoothing / columns * (each @ weights)
        if wrong:
            targets[3], loss[3] = 1000, np.nan
        options = -1, smoothing, columns, _FOUND_NOTHING.copy(), 9
        expected = {"stats": stats, "loss": loss, "fault": _FOUND if wrong else _FOUND_NOTHING}
        return 7, (x, targets, weight, np.zeros((7, 2)), np.zeros(7), *options), expected

    return check


def _check_gradients(columns: int, weighted: bool, smoothing: float, each: bool) -> Any:
    def check(rng: np.random.Generator) -> Any:
        x, targets, weight, weights, share = _problem(rng, 7, columns, weighted)
        stats, valid = _stats(x), targets >= 0
        p = np.exp(x - stats[:, :1]) * stats[:, 1:]
        dy = rng.normal(size=7 if each else 1)
        g = dy if each else np.full(7, dy[0] * 0.25)
        onehot = np.eye(columns)[targets] * valid[:, None]
        q = (1 - smoothing) * share[:, None] * onehot + valid[:, None] * smoothing / columns * weights
        dx = g[:, None] * (q.sum(axis=1, keepdims=True) * p - q)
        args = x, targets, weight, stats, dy, np.array([9, 0.25]), np.ones_like(x), int(each), -1, smoothing, columns
        return 7, args, {"dx": dx}

    return check


def _check_sum(mean: bool, weighted: bool, ignored: bool) -> Any:
    def check(rng: np.random.Generator) -> Any:
        _, targets, weight, _, share = _problem(rng, 1000, 10, weighted)
        if ignored:
            targets, share = np.full(1000, -1), np.zeros(1000)
        loss = rng.normal(size=1000)
        total = share.sum()
        wanted = [loss.sum(), 1]
        if mean:
            wanted = [loss.sum() / total, 1 / total] if total else [np.nan, 0]
        args = loss, targets, weight, np.zeros(2), -1, int(mean), 1000, 10
        return 1, args, {"reduced": np.array(wanted)}

    return check


def _check_nll(weighted: bool, wrong: bool = False) -> Any:
    def check(rng: np.random.Generator) -> Any:
        x, targets, weight, _, share = _problem(rng, 300, 10, weighted)
        loss = -share * x[np.arange(300), targets]
        if wrong:
            targets[250], loss[250] = 1000, np.nan
        args = x, targets, weight, np.zeros(300), -1, 300, 10, _FOUND_NOTHING.copy(), 9
        return 2, args, {"loss": loss, "fault": _FOUND if wrong else _FOUND_NOTHING}

    return check


def _check_nll_gradients(weighted: bool, each: bool) -> Any:
    def check(rng: np.random.Generator) -> Any:
        x, targets, weight, _, share = _problem(rng, 30, 10, weighted)
        dy = rng.normal(size=30 if each else 1)
        g = dy if each else np.full(30, dy[0] * 0.25)
        dx = np.zeros_like(x)
        dx[np.arange(30), targets] = -g * share
        args = targets, weight, dy, np.array([9, 0.25]), np.ones_like(x), int(each), -1, 30, 10
        return 2, args, {"dx": dx}

    return check


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
    "const T* x, const long long* targets, const T* weight, T* stats, T* loss, "
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
    check=[
        _check_losses(300, False, 0.0),
        _check_losses(40, True, 0.0),
        _check_losses(300, True, 0.1),
        _check_losses(40, True, 0.1, True),
    ],
)

GRADIENTS = CudaKernel(
    "cross_entropy_backward",
    "const T* x, const long long* targets, const T* weight, const T* stats, const T* dy, const T* reduced, T* dx, "
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
    check=[
        _check_gradients(300, False, 0.0, False),
        _check_gradients(40, True, 0.0, True),
        _check_gradients(300, True, 0.1, False),
    ],
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
    check=[
        _check_sum(True, False, False),
        _check_sum(True, True, False),
        _check_sum(True, False, True),
        _check_sum(False, True, False),
    ],
)

NLL_LOSSES = CudaKernel(
    "nll_loss",
    "const T* x, const long long* targets, const T* weight, T* loss, long long ignore, long long rows, int columns, "
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
    check=[_check_nll(False), _check_nll(True), _check_nll(True, wrong=True)],
)

NLL_GRADIENTS = CudaKernel(
    "nll_loss_backward",
    "const long long* targets, const T* weight, const T* dy, const T* reduced, T* dx, "
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
    check=[_check_nll_gradients(False, False), _check_nll_gradients(True, True)],
)
