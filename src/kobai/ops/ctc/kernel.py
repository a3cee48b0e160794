"""Connectionist temporal classification by forward and backward recursions in log space: reference and compiled loops.

A target of S classes stands for L = 2S + 1 labels l: its classes with a blank before, between and after them. Over the steps t
a path stays at its label, goes on to the next, or skips a blank between two different classes. With xₜ(c) the log-probability
of class c at step t::

    αₜ(s) = xₜ(lₛ) + ln(e^αₜ₋₁(s) + e^αₜ₋₁(s−1) + [may skip] e^αₜ₋₁(s−2))          of all paths that reach s at t
    βₜ(s) = ln(e^(βₜ₊₁(s) + xₜ₊₁(lₛ)) + … (s+1) + [may skip] … (s+2))                of all ways on from there
    loss = −ln(e^α(L−1) + e^α(L−2)) at the last step;    share of label s at step t = e^(αₜ(s) + βₜ(s) + loss)

``labels`` is (N, L) for the longest target, ``skip`` (N, L) is 0 where a path may come from s − 2 and −∞ elsewhere. α is kept
as (N, T, L + 2) behind two columns of −∞, so that no recursion looks at its place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.engine.dispatch import compiled, host, kernel
from kobai.engine.exponential import exp
from kobai.engine.logarithm import log1p
from kobai.ops._matmul import matmul
from kobai.ops._rows import EXPONENTIALS, launch_split
from kobai.xp import Array, quiet, xp_of


@kernel("x", "skip")
@quiet
def forward(x: Array, skip: Array, labels: Array, steps: Array, sizes: Array) -> tuple[Array, Array]:
    """Losses (N) of log-probabilities (T, N, C), and α. ``steps`` and ``sizes`` (N) are the lengths of inputs and targets."""
    xp, (times, batch, _), width = xp_of(x), x.shape, labels.shape[1]
    alpha = xp.full((batch, times, width + 2), -np.inf, dtype=x.dtype)
    for t in range(times):
        emitted = xp.take_along_axis(x[t], labels, 1)
        if t == 0:
            alpha[:, 0, 2:4] = emitted[:, :2]
        else:
            before = alpha[:, t - 1]
            reached = xp.logaddexp(before[:, 2:], xp.logaddexp(before[:, 1:-1], before[:, :-2] + skip))
            alpha[:, t, 2:] = reached + emitted
    if not times:
        return xp.where(sizes == 0, 0.0, np.inf).astype(x.dtype), alpha
    rows, last, end = xp.arange(batch), xp.maximum(steps - 1, 0), 2 * sizes + 2
    loss = -xp.logaddexp(alpha[rows, last, end], alpha[rows, last, end - 1])
    return xp.where(steps == 0, xp.where(sizes == 0, 0.0, np.inf).astype(x.dtype), loss), alpha


@kernel("dy", "x", "skip", "loss", "alpha")
@quiet
def backward(
    dy: Array, x: Array, skip: Array, loss: Array, alpha: Array, labels: Array, steps: Array, sizes: Array, finite: bool
) -> Array:
    """e^x minus the shares, times dy: the gradient of scores of which x is the log_softmax. ``finite``: 0 for losses of ∞."""
    xp, (times, batch, classes), width = xp_of(x), x.shape, labels.shape[1]
    shares = xp.zeros((batch, times, width), dtype=x.dtype)
    place, end = xp.arange(width), 2 * sizes[:, None]
    ends = (place == end) | (place == end - 1)
    onward = xp.full((batch, width + 2), -np.inf, dtype=x.dtype)
    over = xp.full((batch, width + 2), -np.inf, dtype=x.dtype)
    over[:, :width] = skip
    for t in range(times - 1, -1, -1):
        beta = xp.logaddexp(onward[:, :-2], xp.logaddexp(onward[:, 1:-1], onward[:, 2:] + over[:, 2:]))
        left = (steps - 1 - t)[:, None]
        beta = xp.where(left == 0, xp.where(ends, 0.0, -np.inf), xp.where(left > 0, beta, -np.inf)).astype(x.dtype)
        shares[:, t] = xp.exp(alpha[:, t, 2:] + beta + loss[:, None])
        onward[:, :width] = beta + xp.take_along_axis(x[t], labels, 1)
    is_label = (labels[:, :, None] == xp.arange(classes)).astype(x.dtype)
    d = (xp.exp(x) - matmul(shares, is_label).transpose(1, 0, 2)) * dy[:, None]
    counts = xp.arange(times)[:, None] < steps
    if finite:
        counts = counts & (loss != np.inf)
    return xp.where(counts[:, :, None], d, 0).astype(x.dtype)


# --- compiled loops ---------------------------------------------------------------------------------------------------


@host(forward)
def _forward_loops(x: Array, skip: Array, labels: Array, steps: Array, sizes: Array) -> tuple[Array, Array]:
    xp, (times, batch, _), width = xp_of(x), x.shape, labels.shape[1]
    alpha, loss = xp.empty((batch, times, width + 2), x.dtype), xp.empty(batch, x.dtype)
    launch_split(_alphas, batch, 4 * alpha.size, EXPONENTIALS, x, skip, labels, steps, sizes, alpha, loss)
    return loss, alpha


@host(backward)
def _backward_loops(
    dy: Array, x: Array, skip: Array, loss: Array, alpha: Array, labels: Array, steps: Array, sizes: Array, finite: bool
) -> Array:
    xp, batch, width = xp_of(x), x.shape[1], labels.shape[1]
    dx, beta = xp.empty(x.shape, x.dtype), xp.empty((2, batch, width + 2), x.dtype)
    args = dy, x, skip, loss, alpha, labels, steps, sizes, finite, beta, dx
    launch_split(_shares, batch, 4 * alpha.size + x.size, EXPONENTIALS, *args)
    return dx


@compiled
def _alphas(
    x: Any, skip: Any, labels: Any, steps: Any, sizes: Any, alpha: Any, loss: Any, start: int, stop: int
) -> None:
    zero, one, least = x.dtype.type(0), x.dtype.type(1), x.dtype.type(-np.inf)
    width = labels.shape[1]
    for n in range(start, stop):
        for t in range(alpha.shape[1]):
            for s in range(width + 2):
                alpha[n, t, s] = least
        for t in range(steps[n]):
            if t == 0:
                for s in range(min(2, width)):
                    alpha[n, 0, s + 2] = x[0, n, labels[n, s]]
                continue
            for s in range(width):
                a, b, c = alpha[n, t - 1, s + 2], alpha[n, t - 1, s + 1], alpha[n, t - 1, s] + skip[n, s]
                m = max(max(a, b), c)
                m = zero if m == least else m
                alpha[n, t, s + 2] = m + log1p(exp(a - m) + exp(b - m) + exp(c - m) - one) + x[t, n, labels[n, s]]
        if steps[n] == 0:
            loss[n] = zero if sizes[n] == 0 else -least
        else:
            end = 2 * sizes[n] + 2
            a, b = alpha[n, steps[n] - 1, end], alpha[n, steps[n] - 1, end - 1]
            m = max(a, b)
            m = zero if m == least else m
            loss[n] = -(m + log1p(exp(a - m) + exp(b - m) - one))


@compiled
def _shares(
    dy: Any, x: Any, skip: Any, loss: Any, alpha: Any, labels: Any, steps: Any, sizes: Any, finite: bool,
    beta: Any, dx: Any, start: int, stop: int,
) -> None:  # fmt: skip
    zero, one, least = x.dtype.type(0), x.dtype.type(1), x.dtype.type(-np.inf)
    width = labels.shape[1]
    for n in range(start, stop):
        known = loss[n] != -least
        for t in range(x.shape[0]):
            for c in range(x.shape[2]):
                dx[t, n, c] = exp(x[t, n, c]) * dy[n] if t < steps[n] and (known or not finite) else zero
                if t < steps[n] and not known and not finite:
                    dx[t, n, c] = -least + least  # no path: as ∞ − ∞
        for s in range(width + 2):
            beta[0, n, s], beta[1, n, s] = least, least
        for back in range(steps[n] if known else 0):
            t = steps[n] - 1 - back
            here, after = back % 2, 1 - back % 2
            for s in range(width):
                a, b, c = beta[after, n, s], beta[after, n, s + 1], beta[after, n, s + 2]
                if s + 2 < width:
                    c += skip[n, s + 2]
                m = max(max(a, b), c)
                m = zero if m == least else m
                way = m + log1p(exp(a - m) + exp(b - m) + exp(c - m) - one)
                if back == 0:
                    way = zero if s == 2 * sizes[n] or s == 2 * sizes[n] - 1 else least
                label = labels[n, s]
                dx[t, n, label] -= exp(alpha[n, t, s + 2] + way + loss[n]) * dy[n]
                beta[here, n, s] = way + x[t, n, label]
