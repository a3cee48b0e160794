"""One step of each recurrent network, and its gradient, as formulas on one element of the state.

``b_…`` are biases, and ``m`` of a GRU is W' h + b', which r lets through. In the gradients dh and dc are those of the states
after the step when it begins, and what goes past the products to the states before it when it ends; dy is the gradient of the
step's own result.
"""

from __future__ import annotations

from typing import Any

from kobai.formula.elementwise import elementwise
from kobai.formula.scalar import maximum, sigmoid, tanh

# --- Elman's network --------------------------------------------------------------------------------------------------


@elementwise
def tanh_step(a: Any, b: Any) -> Any:
    """h = tanh(a + b)"""
    h = tanh(a + b)
    return h


@elementwise
def tanh_step_backward(h: Any, dh: Any, dy: Any) -> Any:
    """da = (dh + dy)(1 − h²)"""
    da = (dh + dy) * (1 - h * h)
    dh = 0
    return da, dh


@elementwise
def relu_step(a: Any, b: Any) -> Any:
    """h = max(a + b, 0)"""
    h = maximum(a + b, 0)
    return h


@elementwise
def relu_step_backward(h: Any, dh: Any, dy: Any) -> Any:
    """da = dh + dy where h > 0"""
    da = 0 if h <= 0 else dh + dy
    dh = 0
    return da, dh


# --- LSTM -------------------------------------------------------------------------------------------------------------


@elementwise
def lstm_step(i: Any, f: Any, g: Any, o: Any, b_i: Any, b_f: Any, b_g: Any, b_o: Any, c: Any) -> Any:
    """c' = σ(f) c + σ(i) tanh(g), h = σ(o) tanh(c')"""
    i = sigmoid(i + b_i)
    f = sigmoid(f + b_f)
    g = tanh(g + b_g)
    o = sigmoid(o + b_o)
    c_new = f * c + i * g
    h = o * tanh(c_new)
    return i, f, g, o, c_new, h


@elementwise
def lstm_step_backward(
    i: Any, f: Any, g: Any, o: Any, c: Any, c_new: Any, dh: Any, dc: Any, dy: Any
) -> Any:  # of i, f, g, o after σ and tanh
    """dc' = dc + dh o (1 − tanh² c')"""
    dh = dh + dy
    s = tanh(c_new)
    d_o = dh * s * (o * (1 - o))
    dc = dc + dh * o * (1 - s * s)
    d_i = dc * g * (i * (1 - i))
    d_f = dc * c * (f * (1 - f))
    d_g = dc * i * (1 - g * g)
    dc = dc * f
    dh = 0
    return d_i, d_f, d_g, d_o, dh, dc


# --- GRU --------------------------------------------------------------------------------------------------------------


@elementwise
def gru_step(r: Any, z: Any, n: Any, m: Any, b_r: Any, b_z: Any, b_n: Any, b_m: Any, h: Any) -> Any:
    """n' = tanh(n + σ(r) m), h' = n' + σ(z)(h − n')"""
    r = sigmoid(r + b_r)
    z = sigmoid(z + b_z)
    m = m + b_m
    n = tanh(n + b_n + r * m)
    h_new = n + z * (h - n)
    return r, z, n, m, h_new


@elementwise
def gru_step_backward(r: Any, z: Any, n: Any, m: Any, h: Any, dh: Any, dy: Any) -> Any:  # of r, z, n after σ and tanh
    """The gradients of what W and W' give, which differ in n's part alone, and of h."""
    dh = dh + dy
    d_n = dh * (1 - z) * (1 - n * n)
    d_z = dh * (h - n) * (z * (1 - z))
    d_r = d_n * m * (r * (1 - r))
    d_m = d_n * r
    dh = dh * z
    return d_r, d_z, d_n, d_r, d_z, d_m, dh


# --- sequences that have ended ----------------------------------------------------------------------------------------


@elementwise
def added(dh: Any, dy: Any) -> Any:
    """dh + dy"""
    dh = dh + dy
    return dh
