"""Softmax cross-entropy and the negative log-likelihood with class indices: reference and compiled loops (and CUDA C in
``device.py``).

With m = maxⱼ xⱼ and s = Σⱼ e^(xⱼ − m), the loss of a row with target class t is ln s − (x_t − m) and its gradient
e^(x − m) / s − onehot(t). The fast forms keep m and 1/s of every row and compute the exponentials a second time in backward:
that is faster than writing the probabilities to memory and reading them again, and takes no memory.

Class weights w, label smoothing ε and ignored rows: the loss is (1 − ε) w_t l_t + ε/C Σⱼ wⱼ lⱼ with lⱼ = ln s − (xⱼ − m), or 0
where t is ``ignore_index``. ``mean`` divides the sum of all by that of the w_t; where that is 0 (all targets ignored) it is
nan, with gradient 0. A target outside [0, C) raises IndexError; on a device its loss is nan, and the error comes when a
result is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.cpu.lanes import dot, total
from kobai.engine.dispatch import as_written, compiled, device, host, kernel, launch
from kobai.engine.domains import check_classes, inside, look_classes
from kobai.engine.exponential import exp
from kobai.engine.indices import flat_indices, positions
from kobai.engine.logarithm import log as logarithm
from kobai.ops._halves import beside
from kobai.ops._matmul import matmul
from kobai.ops._rows import (
    BLOCK,
    EXPONENTIALS,
    LEAST,
    LONG,
    MOST,
    exponentials,
    highest,
    launch_split,
    row_max,
    row_sum,
    split,
    sum_of_exponentials,
    wide_total,
)
from kobai.ops.cross_entropy import device as cuda
from kobai.xp import Array, quiet, xp_of

Backward = Callable[[Array], Array]
"""From dy, of the shape of the loss, to the gradient of the rows."""


@kernel("rows", halves=True, when=lambda rows, targets, weight, *_: beside(rows, weight))
def cross_entropy(
    rows: Array, targets: Array, weight: Array | None, ignore_index: int, reduction: str, smoothing: float
) -> tuple[Array, Backward]:
    """Loss of the scores ``rows`` (M, C) with M class indices ``targets`` of any shape, and its gradient.

    The loss has the shape of ``targets`` if ``reduction`` is ``"none"``, else ().
    """
    xp, classes = xp_of(rows), rows.shape[1]
    at, valid, share = _choose("cross_entropy", targets, classes, weight, ignore_index)
    z = rows - row_max(rows)[:, None]
    e = xp.exp(z)
    total = row_sum(e)
    loss = xp.log(total)
    hard = loss - z.reshape(-1)[at]
    hard = hard if share is None else hard * share
    even, weights = smoothing / classes, None
    if smoothing:
        # (1 − ε) of the target goes to its class, ε evenly to all, each with the weight of its class
        weights = xp.ones(classes, rows.dtype) if weight is None else weight
        soft = loss * weights.sum() - matmul(z, weights)
        loss = (1 - smoothing) * hard + even * (soft if valid is None else soft * valid)
    else:
        loss = hard
    loss = _where(valid, loss)
    y, factor = reduce_losses(loss, share, reduction, targets.shape)

    def backward(dy: Array) -> Array:
        g = incoming(dy, factor)
        to_class = _per_row(g, share)
        if weights is None:
            dx = e * (to_class / total)[:, None]
        else:
            to_class = (1 - smoothing) * to_class
            to_all = _per_row(even * g, valid)
            to_all = xp.broadcast_to(to_all, total.shape)[:, None]
            dx = e * ((to_class + to_all[:, 0] * weights.sum()) / total)[:, None]
            dx -= to_all * weights
        dx = dx if valid is None else _where(valid[:, None], dx)
        dx = xp.ascontiguousarray(dx)  # column by column, as z may be, reshape would give a copy
        dx.reshape(-1)[at] -= to_class
        return dx

    return y, backward


@kernel("rows", halves=True, when=lambda rows, targets, weight, *_: beside(rows, weight))
def nll_loss(
    rows: Array, targets: Array, weight: Array | None, ignore_index: int, reduction: str
) -> tuple[Array, Backward]:
    """−w_t x_t for log-probabilities ``rows``; as :func:`cross_entropy`."""
    xp, shape = xp_of(rows), rows.shape
    at, valid, share = _choose("nll_loss", targets, shape[1], weight, ignore_index)
    loss = -rows.reshape(-1)[at]
    loss = _where(valid, loss if share is None else loss * share)
    y, factor = reduce_losses(loss, share, reduction, targets.shape)

    def backward(dy: Array) -> Array:
        dx = xp.zeros(shape, dy.dtype)
        dx.reshape(-1)[at] -= _per_row(incoming(dy, factor), share)
        return dx

    return y, backward


def _where(valid: Array | None, x: Array) -> Array:
    """x with 0 in rows that do not count, even where they hold NaN."""
    return x if valid is None else xp_of(x).where(valid, x, 0)


def _choose(
    who: str, targets: Array, classes: int, weight: Array | None, ignore_index: int
) -> tuple[Array, Array | None, Array | None]:
    """For each target: its position in the flattened rows, whether it counts, and its weight; flat arrays.

    None means "all count" and "1 each".
    """
    flat = targets.reshape(-1)
    if type(flat) is np.ndarray and not 0 <= ignore_index < classes and inside(flat, classes):
        return positions(flat, classes), None, None if weight is None else weight[flat]
    check_classes(who, targets, classes, ignore_index)
    valid = flat != ignore_index
    safe = flat * valid
    return positions(safe, classes), valid, valid if weight is None else weight[safe] * valid


@quiet
def reduce_losses(loss: Array, share: Array | None, reduction: str, shape: tuple[int, ...]) -> tuple[Array, Any]:
    """The reduced loss, and the factor from dy to the gradient of each row's loss."""
    if reduction == "none":
        return loss.reshape(shape), None
    if reduction == "sum":
        return loss.sum(), 1.0
    if share is None:
        return (loss.sum() / loss.size, 1 / loss.size) if loss.size else (loss.sum() * float("nan"), 0.0)
    xp = xp_of(loss)
    total = share.astype(loss.dtype, copy=False).sum()
    nonzero = total + (total == 0)
    return xp.where(total == 0, float("nan"), loss.sum() / nonzero).astype(loss.dtype), 1 / nonzero


def incoming(dy: Array, factor: Any) -> Array:
    """Gradient of every row's loss: (M,) for reduction none, else one number."""
    return dy.reshape(-1) if factor is None else dy * factor


def _per_row(g: Array, share: Array | None) -> Array:
    return g if share is None else g * share


# --- compiled loops ---------------------------------------------------------------------------------------------------

_ALIKE = {np.dtype(kind): np.empty(0, kind) for kind in (np.float32, np.float64)}
"""Stand-ins for missing class weights, so that one compiled loop serves both cases."""


@host(cross_entropy)
def _on_host(
    rows: Array, targets: Array, weight: Array | None, ignore_index: int, reduction: str, smoothing: float
) -> tuple[Array, Backward]:
    xp, dtype, (m, columns) = xp_of(rows), rows.dtype, rows.shape
    w = _ALIKE[dtype] if weight is None else weight
    parts = min(32, max(1, rows.size // EXPONENTIALS), m) if m else 1
    scratch = xp.empty(2 * parts * BLOCK, dtype)
    stats, loss, reduced = xp.empty(2 * m, dtype), xp.empty(m, dtype), xp.empty(2, dtype)
    each, mean, smoothing = reduction == "none", reduction == "mean", float(smoothing)
    sums = flat_indices(targets), w, ignore_index, loss, reduced, mean
    args = rows.reshape(-1), *sums[:3], smoothing, scratch, stats, *sums[3:], columns, -(-m // parts)
    call = (_losses, *args, 0, 1) if parts == 1 else (split, _losses, parts, 1, *args)
    launch(_looking, "cross_entropy", targets, columns, ignore_index, *call)
    if parts > 1:
        launch(_add_up, *sums)

    def backward(dy: Array) -> Array:
        dx = xp.empty((m, columns), dtype)
        dy = xp.ascontiguousarray(dy).reshape(-1)
        x, t = rows.reshape(-1), flat_indices(targets)  # here, so that the tape sees which arrays are kept
        args = x, t, w, ignore_index, smoothing, stats, dy, reduced, each, dx.reshape(-1), columns
        try:
            launch_split(_gradients, m, rows.size, EXPONENTIALS, *args)
        except IndexError:  # the targets were changed since forward
            look_classes("cross_entropy", targets, columns, ignore_index)
            raise
        return dx

    # A copy, since backward needs the number beside it and programs change a loss in place: loss /= steps.
    return (loss.reshape(targets.shape) if each else reduced[:1].copy().reshape(())), backward


def _looking(who: str, targets: Array, classes: int, ignore_index: int, call: Any, *args: Any) -> None:
    """``call(*args)``; where it meets an index out of range, the error says which."""
    try:
        call(*args)
    except IndexError:
        look_classes(who, targets, classes, ignore_index)
        raise


@as_written
def _loss(log: Any, x: Any, m: Any) -> Any:
    return log - (x - m)  # (log + m) − x would round to the size of m


@compiled
def _losses(
    x: Any,
    targets: Any,
    weight: Any,
    ignore_index: int,
    smoothing: float,
    scratch: Any,
    stats: Any,
    loss: Any,
    reduced: Any,
    mean: bool,
    columns: int,
    rows: int,
    start: int,
    stop: int,
) -> None:
    """Parts ``start`` to ``stop`` of all rows; each part has ``rows`` rows and its own scratch memory."""
    number = x.dtype.type
    weights = wide_total(weight) if weight.size else np.float64(columns)  # of all classes together
    step = BLOCK // columns if columns < LONG else 1
    end = min(stop * rows, targets.size)
    for part in range(start, stop):
        block, room = scratch[2 * part * BLOCK :][:BLOCK], scratch[(2 * part + 1) * BLOCK :][:BLOCK]
        for first in range(part * rows, min((part + 1) * rows, end), step):
            last = min(first + step, (part + 1) * rows, end)
            if columns < LONG:
                exponentials(x[first * columns : last * columns], block)
            for row in range(first, last):
                xs = x[row * columns : (row + 1) * columns]
                m = number(0)
                if columns < LONG:
                    s = total(block[(row - first) * columns : (row - first + 1) * columns])
                else:
                    s = sum_of_exponentials(xs, m, room)
                if columns == 1 or not LEAST < s < MOST:
                    m = highest(xs)
                    s = sum_of_exponentials(xs, m, room)
                stats[2 * row] = m
                stats[2 * row + 1] = number(1) / s
                t = targets[row]
                if t == ignore_index:
                    loss[row] = 0
                    continue
                if t < 0 or t >= columns:
                    raise IndexError("cross_entropy: a class index is out of range")
                log = logarithm(np.float64(s))
                value = _loss(log, np.float64(xs[t]), np.float64(m))
                value = (0.0 if value < 0 else value) * (weight[t] if weight.size else 1.0)  # less by rounding only
                if smoothing:
                    z = sum_of_weighted(xs, m, weight, room)
                    value = (1 - smoothing) * value + smoothing / columns * (log * weights - z)
                loss[row] = value
    if stop * rows - start * rows >= targets.size:
        _add_up(targets, weight, ignore_index, loss, reduced, mean)


@compiled
def _weighted(x: Any, m: Any, weight: Any, first: int, y: Any) -> None:
    if weight.size:
        for j in range(y.size):
            y[j] = (x[first + j] - m) * weight[first + j]
    else:
        for j in range(y.size):
            y[j] = x[first + j] - m


@as_written
def sum_of_weighted(x: Any, m: Any, weight: Any, scratch: Any) -> Any:
    """Σ (x − m) w, with room for BLOCK terms."""
    if m == 0:
        return dot(x, weight) if weight.size else total(x)
    z = x.dtype.type(0)
    for first in range(0, x.size, BLOCK):
        block = scratch[: min(BLOCK, x.size - first)]
        _weighted(x, m, weight, first, block)
        z += total(block)
    return z


@as_written
def _add_up(targets: Any, weight: Any, ignore_index: int, loss: Any, reduced: Any, mean: bool) -> None:
    """reduced ← (the sum or mean of the losses, the factor from dy to the gradient of each loss)."""
    losses, share, count = wide_total(loss), 0.0, 0
    if not mean:
        reduced[0], reduced[1] = losses, 1
        return
    for row in range(targets.size if weight.size else 0):
        t = targets[row]
        if t != ignore_index:
            share += weight[t] if 0 <= t < weight.size else 1.0
    for row in range(0 if weight.size else targets.size):
        count += targets[row] != ignore_index
    share += count
    reduced[0] = losses / share if share != 0 else np.nan
    reduced[1] = 1 / share if share != 0 else 0.0


@compiled
def _gradients(
    x: Any,
    targets: Any,
    weight: Any,
    ignore_index: int,
    smoothing: float,
    stats: Any,
    dy: Any,
    reduced: Any,
    each: bool,
    dx: Any,
    columns: int,
    start: int,
    stop: int,
) -> None:
    number = x.dtype.type
    weights = wide_total(weight) if weight.size else np.float64(columns)
    step = BLOCK // columns if columns < LONG else 1
    for first in range(start, stop, step):
        last = min(first + step, stop)
        if columns < LONG:
            exponentials(x[first * columns : last * columns], dx[first * columns : last * columns])
        for row in range(first, last):
            xs, out = x[row * columns : (row + 1) * columns], dx[row * columns : (row + 1) * columns]
            t = targets[row]
            if t == ignore_index:
                for j in range(out.size):
                    out[j] = 0
                continue
            if t < 0 or t >= columns:
                raise IndexError("cross_entropy: a class index is out of range")
            g = dy[row] if each else dy[0] * reduced[1]
            to_class = (1 - smoothing) * (weight[t] if weight.size else 1.0) * g
            to_all = smoothing / columns * g
            m, factor = stats[2 * row], number((to_class + to_all * weights) * stats[2 * row + 1])
            if columns < LONG and m == 0:
                for j in range(out.size):
                    out[j] *= factor
            else:
                for j in range(out.size):
                    out[j] = exp(xs[j] - m) * factor
            if smoothing:
                for j in range(out.size):
                    out[j] -= number(to_all) * (weight[j] if weight.size else number(1))
            out[t] -= number(to_class)


@host(nll_loss)
def _nll_on_host(
    rows: Array, targets: Array, weight: Array | None, ignore_index: int, reduction: str
) -> tuple[Array, Backward]:
    xp, dtype, (m, columns) = xp_of(rows), rows.dtype, rows.shape
    w = _ALIKE[dtype] if weight is None else weight
    loss, reduced = xp.empty(m, dtype), xp.empty(2, dtype)
    each, mean = reduction == "none", reduction == "mean"
    look = "nll_loss", targets, columns, ignore_index
    args = flat_indices(targets), w, ignore_index, loss, reduced, mean, columns
    launch(_looking, *look, _nll_losses, rows.reshape(-1), *args)

    def backward(dy: Array) -> Array:
        dx = xp.empty((m, columns), dtype)
        dy = xp.ascontiguousarray(dy).reshape(-1)
        args = flat_indices(targets), w, ignore_index, dy, reduced, each, dx.reshape(-1), columns
        launch(_looking, *look, _nll_gradients, *args)
        return dx

    # A copy, since backward needs the number beside it and programs change a loss in place: loss /= steps.
    return (loss.reshape(targets.shape) if each else reduced[:1].copy().reshape(())), backward


@compiled
def _nll_losses(
    x: Any, targets: Any, weight: Any, ignore_index: int, loss: Any, reduced: Any, mean: bool, columns: int
) -> None:
    for row in range(targets.size):
        t = targets[row]
        if t == ignore_index:
            loss[row] = 0
            continue
        if t < 0 or t >= columns:
            raise IndexError("nll_loss: a class index is out of range")
        loss[row] = -x[row * columns + t] * (weight[t] if weight.size else x.dtype.type(1))
    _add_up(targets, weight, ignore_index, loss, reduced, mean)


@compiled
def _nll_gradients(
    targets: Any, weight: Any, ignore_index: int, dy: Any, reduced: Any, each: bool, dx: Any, columns: int
) -> None:
    for i in range(dx.size):
        dx[i] = 0
    for row in range(targets.size):
        t = targets[row]
        if t != ignore_index:
            if t < 0 or t >= columns:
                raise IndexError("nll_loss: a class index is out of range")
            g = dy[row] if each else dy[0] * reduced[1]
            dx[row * columns + t] = -g * (weight[t] if weight.size else dx.dtype.type(1))


device(cross_entropy)(cuda.cross_entropy)
device(nll_loss)(cuda.nll_loss)
