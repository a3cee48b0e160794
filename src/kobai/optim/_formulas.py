"""The optimisers' updates: each is a formula on one element, of the parameter p, its gradient g and its state.

Whatever depends only on the step (bias corrections, 1 − β) is computed by the optimiser in double precision and arrives
among the numbers, so that no kernel reads a value back from the device and none needs a transcendental function: every
operation here is exactly rounded, and on NumPy the result is the same bit for bit however the arrays are cut into blocks.
"""

from __future__ import annotations

from typing import Any

from kobai.formula.elementwise import elementwise
from kobai.formula.scalar import maximum, minimum, sign, sqrt

# --- what may come before an update -----------------------------------------------------------------------------------


def decayed(p: Any, g: Any, *, l2: Any) -> Any:
    """The L2 penalty's gradient added."""
    g = l2 * p + g
    return g


def ascending(g: Any) -> Any:
    """Maximise instead."""
    g = -g
    return g


def decayed_ascending(p: Any, g: Any, *, l2: Any) -> Any:
    """Maximise, under the L2 penalty."""
    g = l2 * p - g
    return g


def shrunk(p: Any, *, shrink: Any) -> Any:
    """Decoupled weight decay: p ← shrink·p"""
    p = shrink * p
    return p


def shrunk_ascending(p: Any, g: Any, *, shrink: Any) -> Any:
    """Decoupled weight decay, and maximise instead."""
    p = shrink * p
    g = -g
    return p, g


# --- the moving averages that most updates share ----------------------------------------------------------------------


def average(m: Any, g: Any, new: Any) -> Any:
    """m ← m + new·(g − m), the exponential moving average of the gradient."""
    return m + new * (g - m)


def average_square(v: Any, g: Any, old: Any, new: Any) -> Any:
    """v ← old·v + new·g², the exponential moving average of its square."""
    return old * v + new * (g * g)


# --- SGD --------------------------------------------------------------------------------------------------------------


@elementwise
def sgd(p: Any, g: Any, *, lr: Any) -> Any:
    """p ← p − lr·g"""
    p = p - lr * g
    return p


@elementwise
def momentum(p: Any, g: Any, v: Any, *, lr: Any, mu: Any) -> Any:
    """v ← μv + g;  p ← p − lr·v"""
    v = mu * v + g
    p = p - lr * v
    return p, v


@elementwise
def dampened_momentum(p: Any, g: Any, v: Any, *, lr: Any, mu: Any, new: Any) -> Any:
    """v ← μv + (1−τ)g;  p ← p − lr·v, with new = 1 − τ of the dampening τ"""
    v = mu * v + new * g
    p = p - lr * v
    return p, v


@elementwise
def nesterov(p: Any, g: Any, v: Any, *, lr: Any, mu: Any) -> Any:
    """v ← μv + g;  p ← p − lr·(g + μv)"""
    v = mu * v + g
    p = p - lr * (mu * v + g)
    return p, v


# --- scaled by the gradient's own size --------------------------------------------------------------------------------


@elementwise
def adagrad(p: Any, g: Any, total: Any, *, lr: Any, eps: Any) -> Any:
    """G ← G + g²;  p ← p − lr·g / (√G + ε)"""
    total = total + g * g
    p = p - lr * (g / (sqrt(total) + eps))
    return p, total


@elementwise
def rmsprop(p: Any, g: Any, v: Any, *, lr: Any, alpha: Any, new: Any, eps: Any) -> Any:
    """v ← αv + (1−α)g²;  p ← p − lr·g / (√v + ε), with new = 1 − α"""
    v = average_square(v, g, alpha, new)
    p = p - lr * (g / (sqrt(v) + eps))
    return p, v


@elementwise
def rmsprop_momentum(p: Any, g: Any, v: Any, b: Any, *, lr: Any, alpha: Any, new: Any, eps: Any, mu: Any) -> Any:
    """As ``rmsprop``, but b ← μb + g / (√v + ε);  p ← p − lr·b"""
    v = average_square(v, g, alpha, new)
    b = mu * b + g / (sqrt(v) + eps)
    p = p - lr * b
    return p, v, b


@elementwise
def centered(p: Any, g: Any, v: Any, mean: Any, *, lr: Any, alpha: Any, new: Any, eps: Any) -> Any:
    """As ``rmsprop``, but √(v − ḡ²) in place of √v, where ḡ ← αḡ + (1−α)g"""
    v = average_square(v, g, alpha, new)
    mean = average(mean, g, new)
    p = p - lr * (g / (sqrt(v - mean * mean) + eps))
    return p, v, mean


@elementwise
def centered_momentum(
    p: Any, g: Any, v: Any, mean: Any, b: Any, *, lr: Any, alpha: Any, new: Any, eps: Any, mu: Any
) -> Any:
    """As ``centered``, but b ← μb + g / (√(v − ḡ²) + ε);  p ← p − lr·b"""
    v = average_square(v, g, alpha, new)
    mean = average(mean, g, new)
    b = mu * b + g / (sqrt(v - mean * mean) + eps)
    p = p - lr * b
    return p, v, mean, b


@elementwise
def adadelta(p: Any, g: Any, v: Any, u: Any, *, lr: Any, rho: Any, new: Any, eps: Any) -> Any:
    """v ← ρv + (1−ρ)g²;  d = g·√(u + ε) / √(v + ε);  u ← ρu + (1−ρ)d²;  p ← p − lr·d"""
    v = average_square(v, g, rho, new)
    d = sqrt((u + eps) / (v + eps)) * g
    u = average_square(u, d, rho, new)
    p = p - lr * d
    return p, v, u


# --- Adam's family ----------------------------------------------------------------------------------------------------


@elementwise
def adam(p: Any, g: Any, m: Any, v: Any, *, lr: Any, new1: Any, beta2: Any, new2: Any, eps: Any) -> Any:
    """m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  p ← p − lr·m / (√v + ε), with new = 1 − β

    The bias corrections are folded into ``lr`` and ``eps`` by the caller, which saves a pass.
    """
    m = average(m, g, new1)
    v = average_square(v, g, beta2, new2)
    p = p - lr * (m / (sqrt(v) + eps))
    return p, m, v


@elementwise
def amsgrad(p: Any, g: Any, m: Any, v: Any, most: Any, *, lr: Any, new1: Any, beta2: Any, new2: Any, eps: Any) -> Any:
    """As ``adam``, but v̂ ← max(v̂, v), and √v̂ in place of √v"""
    m = average(m, g, new1)
    v = average_square(v, g, beta2, new2)
    most = maximum(most, v)
    p = p - lr * (m / (sqrt(most) + eps))
    return p, m, v, most


@elementwise
def adamax(p: Any, g: Any, m: Any, u: Any, *, lr: Any, new1: Any, beta2: Any, eps: Any) -> Any:
    """m ← β₁m + (1−β₁)g;  u ← max(β₂u, |g| + ε);  p ← p − lr·m / u, with new1 = 1 − β₁"""
    m = average(m, g, new1)
    u = maximum(beta2 * u, abs(g) + eps)
    p = p - lr * (m / u)
    return p, m, u


@elementwise
def nadam(p: Any, g: Any, m: Any, v: Any, *, lr_g: Any, lr_m: Any, new1: Any, beta2: Any, new2: Any, eps: Any) -> Any:
    """m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  p ← p − (lr_g·g + lr_m·m) / (√v + ε), with new = 1 − β"""
    m = average(m, g, new1)
    v = average_square(v, g, beta2, new2)
    p = p - (lr_g * g + lr_m * m) / (sqrt(v) + eps)
    return p, m, v


@elementwise
def radam(
    p: Any, g: Any, m: Any, v: Any, *, lr: Any, new1: Any, beta2: Any, new2: Any, eps: Any, rectified: Any
) -> Any:
    """As ``adam`` where ``rectified`` is not 0; p ← p − lr·m until then, as long as v's variance is not bounded"""
    m = average(m, g, new1)
    v = average_square(v, g, beta2, new2)
    p = p - lr * (m / (sqrt(v) + eps) if rectified != 0 else m)
    return p, m, v


# --- others -----------------------------------------------------------------------------------------------------------


@elementwise
def rprop(p: Any, g: Any, before: Any, size: Any, *, down: Any, up: Any, least: Any, most: Any) -> Any:
    """size ← η⁺size where g keeps its sign, η⁻size where it turns (there g counts as 0);  p ← p − sign(g)·size"""
    same = g * before
    size = size * (up if same > 0 else (down if same < 0 else 1.0))
    size = minimum(maximum(size, least), most)
    before = 0.0 if same < 0 else g
    p = p - sign(before) * size
    return p, before, size


@elementwise
def asgd(p: Any, g: Any, mean: Any, *, eta: Any, keep: Any, mu: Any) -> Any:
    """p ← (1 − λη)p − ηg;  p̄ ← p̄ + μ(p − p̄), with keep = 1 − λη"""
    p = keep * p - eta * g
    mean = mean + mu * (p - mean)
    return p, mean
