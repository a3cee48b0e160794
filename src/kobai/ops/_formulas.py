"""The activation functions and their derivatives, each a formula on one element.

``f_backward`` is the gradient dx, from dy and from whatever of x and y it needs. At a kink the derivative is the one from
the left; of the functions that are cut on both sides it is 0 at both ends.
"""

from __future__ import annotations

import math
from typing import Any

from kobai.formula.elementwise import elementwise
from kobai.formula.scalar import (
    erf as error_function,
    erfc as complementary,
    exp,
    log1p,
    maximum,
    minimum,
    rsqrt as inverse_root,
    sigmoid as logistic,
    tanh as hyperbolic_tangent,
)

# --- by their value ---------------------------------------------------------------------------------------------------


@elementwise
def relu(x: Any) -> Any:
    """max(x, 0)"""
    return maximum(x, 0)


@elementwise
def relu_backward(dy: Any, y: Any) -> Any:
    """dy where y > 0"""
    return 0 if y <= 0 else dy


@elementwise
def sigmoid(x: Any) -> Any:
    """σ(x) = 1 / (1 + e⁻ˣ), accurate relative to σ down to the smallest normal number

    (½ + ½ tanh(x/2) cancels: at x = −10 only three digits of it are right in float32.)
    """
    return logistic(x)


@elementwise
def sigmoid_backward(dy: Any, y: Any) -> Any:
    """dy · y (1 − y)"""
    return dy * (y * (1 - y))


@elementwise
def tanh(x: Any) -> Any:
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ)"""
    return hyperbolic_tangent(x)


@elementwise
def tanh_backward(dy: Any, y: Any) -> Any:
    """dy (1 − y²)"""
    return dy * (1 - y * y)


@elementwise
def sign(x: Any) -> Any:
    """−1, 0 or 1; 0 of NaN"""
    return 1 if x > 0 else (-1 if x < 0 else 0)


@elementwise
def rsqrt(x: Any) -> Any:
    """1/√x"""
    return inverse_root(x)


@elementwise
def rsqrt_backward(dy: Any, y: Any) -> Any:
    """−½ y³ dy"""
    return dy * (-0.5 * y**3)


PEAK = 2 / math.sqrt(math.pi)


@elementwise
def erf(x: Any) -> Any:
    """2/√π ∫₀ˣ e^(−t²) dt"""
    return error_function(x)


@elementwise
def erf_backward(dy: Any, x: Any) -> Any:
    """dy · 2/√π e^(−x²)"""
    return dy * (PEAK * exp(-(x * x)))


@elementwise
def erfc(x: Any) -> Any:
    """1 − erf(x), accurate where it is small"""
    return complementary(x)


@elementwise
def erfc_backward(dy: Any, x: Any) -> Any:
    """−dy · 2/√π e^(−x²)"""
    return dy * (-PEAK * exp(-(x * x)))


@elementwise
def logaddexp(x: Any, y: Any) -> Any:
    """ln(eˣ + eʸ), which is the larger one where the other is −∞ or both are equal and infinite"""
    larger = maximum(x, y)
    less = abs(x - y)
    return larger + (log1p(exp(-less)) if less == less else 0)


@elementwise
def binary_entropy(x: Any, t: Any) -> Any:
    """−t ln σ(x) − (1 − t) ln(1 − σ(x)) = (1 − t) x + max(−x, 0) + ln(1 + e^(−|x|))"""
    return (1 - t) * x + (maximum(-x, 0) + log1p(exp(-abs(x))))


@elementwise
def binary_entropy_backward(x: Any, t: Any) -> Any:
    """σ(x) − t"""
    return logistic(x) - t


@elementwise
def half_square(d: Any, *, delta: Any) -> Any:
    """min(|d|, δ) · (|d| − ½ min(|d|, δ)): ½d² up to |d| = δ, a straight line beyond"""
    near = minimum(abs(d), delta)
    return near * (abs(d) - 0.5 * near)


@elementwise
def smooth_size(d: Any, *, beta: Any) -> Any:
    """½d²/β up to |d| = β, |d| − ½β beyond"""
    near = minimum(abs(d), beta)
    return near * (abs(d) - 0.5 * near) / beta


@elementwise
def smooth_size_slope(d: Any, *, beta: Any) -> Any:
    """d/β, cut to [−1, 1]"""
    return minimum(maximum(d, -beta), beta) / beta


@elementwise
def add_scaled(x: Any, y: Any, *, alpha: Any) -> Any:
    """x + alpha y"""
    return x + alpha * y


@elementwise
def lerp(x: Any, end: Any, *, weight: Any) -> Any:
    """x + weight (end − x)"""
    return x + weight * (end - x)


@elementwise
def addcmul(x: Any, a: Any, b: Any, *, value: Any) -> Any:
    """x + value a b"""
    return x + value * (a * b)


@elementwise
def addcdiv(x: Any, a: Any, b: Any, *, value: Any) -> Any:
    """x + value a / b"""
    return x + value * (a / b)


@elementwise
def clamp(x: Any, *, low: Any, high: Any) -> Any:
    """x cut to [low, high]; high wins"""
    return minimum(maximum(x, low), high)


@elementwise
def clamp_backward(dy: Any, x: Any, *, low: Any, high: Any) -> Any:
    """dy from low to high"""
    return dy if x >= low and x <= high else 0


# --- rectifiers -------------------------------------------------------------------------------------------------------


@elementwise
def leaky_relu(x: Any, *, slope: Any) -> Any:
    """x where x > 0, slope · x elsewhere"""
    return maximum(x, 0) + slope * minimum(x, 0)


@elementwise
def leaky_relu_backward(dy: Any, x: Any, *, slope: Any) -> Any:
    """dy times 1 where x > 0, slope elsewhere"""
    return dy if x > 0 else slope * dy


@elementwise
def hardtanh(x: Any, *, low: Any, high: Any) -> Any:
    """x cut to [low, high]"""
    return minimum(maximum(x, low), high)


@elementwise
def hardtanh_backward(dy: Any, x: Any, *, low: Any, high: Any) -> Any:
    """dy inside"""
    return dy if x > low and x < high else 0


@elementwise
def threshold(x: Any, *, bound: Any, value: Any) -> Any:
    """x where x > bound, ``value`` elsewhere"""
    return value if x <= bound else x


@elementwise
def threshold_backward(dy: Any, x: Any, *, bound: Any) -> Any:
    """dy where x > bound"""
    return 0 if x <= bound else dy


@elementwise
def hardshrink(x: Any, *, bound: Any) -> Any:
    """x where |x| > bound"""
    return 0 if abs(x) <= bound else x


@elementwise
def hardshrink_backward(dy: Any, x: Any, *, bound: Any) -> Any:
    """dy where |x| > bound"""
    return 0 if abs(x) <= bound else dy


@elementwise
def softshrink(x: Any, *, bound: Any) -> Any:
    """x moved by ``bound`` towards 0, and 0 where |x| ≤ bound"""
    return x - minimum(maximum(x, -bound), bound)


@elementwise
def hardsigmoid(x: Any) -> Any:
    """x/6 + ½, cut to [0, 1]"""
    return minimum(maximum(x / 6 + 0.5, 0), 1)


@elementwise
def hardsigmoid_backward(dy: Any, x: Any) -> Any:
    """dy/6 inside"""
    return dy / 6 if x > -3 and x < 3 else 0


@elementwise
def hardswish(x: Any) -> Any:
    """x · hardsigmoid(x)"""
    return x * minimum(maximum(x / 6 + 0.5, 0), 1)


@elementwise
def hardswish_backward(dy: Any, x: Any) -> Any:
    """dy times 0 up to −3, x/3 + ½ inside, 1 from 3"""
    return dy * (0 if x <= -3 else (1 if x >= 3 else x / 3 + 0.5))


# --- exponential and sigmoidal units ----------------------------------------------------------------------------------


@elementwise
def elu(x: Any, *, alpha: Any, scale: Any, rate: Any) -> Any:
    """scale · x where x > 0, scale · alpha · (e^(rate·x) − 1) elsewhere

    e^z − 1 = 2t / (1 − t) with t = tanh(z/2), which keeps its digits where z is small.
    """
    t = hyperbolic_tangent((0.5 * rate) * minimum(x, 0))
    return scale * (maximum(x, 0) + alpha * (2 * t / (1 - t)))


@elementwise
def elu_backward(dy: Any, x: Any, *, alpha: Any, scale: Any, rate: Any) -> Any:
    """dy · scale times 1 where x > 0, alpha · rate · e^(rate·x) elsewhere"""
    left = (alpha * rate) * exp(rate * minimum(x, 0))
    return dy * (scale * (1 if x > 0 else left))


@elementwise
def silu(x: Any) -> Any:
    """x σ(x)"""
    return x * logistic(x)


@elementwise
def silu_backward(dy: Any, x: Any) -> Any:
    """dy · σ(x) (1 + x (1 − σ(x)))"""
    s = logistic(x)
    return dy * (s * (1 + x * (1 - s)))


ROOT_HALF = math.sqrt(0.5)
DENSITY = 1 / math.sqrt(2 * math.pi)


@elementwise
def gelu(x: Any) -> Any:
    """x Φ(x), and Φ(x), which backward needs"""
    cdf = 0.5 * (1 + error_function(ROOT_HALF * x))
    return x * cdf, cdf


@elementwise
def gelu_backward(dy: Any, x: Any, cdf: Any) -> Any:
    """dy (Φ(x) + x φ(x))"""
    return dy * (cdf + DENSITY * x * exp(-0.5 * (x * x)))


RATE, CUBIC = math.sqrt(2 / math.pi), 0.044715


@elementwise
def gelu_tanh(x: Any) -> Any:
    """½x (1 + tanh(√(2/π) (x + 0.044715x³)))"""
    t = hyperbolic_tangent(RATE * (x + CUBIC * (x * x * x)))
    return 0.5 * x * (1 + t)


@elementwise
def gelu_tanh_backward(dy: Any, x: Any) -> Any:
    """Its derivative, of which tanh is computed anew: that takes less time than memory."""
    square = x * x
    t = hyperbolic_tangent(RATE * (x + CUBIC * (square * x)))
    slope = RATE * (1 + (3 * CUBIC) * square)
    return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope)


@elementwise
def mish(x: Any) -> Any:
    """x tanh(ln(1 + eˣ)) = x n / (n + 2) with n = eˣ (eˣ + 2); from x = 20 on it is x"""
    e = exp(minimum(x, 20))
    n = e * (e + 2)
    return x * (n / (n + 2))


@elementwise
def mish_backward(dy: Any, x: Any) -> Any:
    """dy (t + x σ(x) (1 − t²)) with t = n / (n + 2), of which 1 − t² = 4 (n + 1) / (n + 2)²; from x = 20 on it is dy"""
    z = minimum(x, 20)
    e = exp(z)
    n = e * (e + 2)
    m = 1 / (n + 2)
    return dy * (n * m + z * logistic(z) * (4 * (n + 1) * m * m))


@elementwise
def softplus(x: Any, *, beta: Any, threshold: Any) -> Any:
    """ln(1 + e^(βx)) / β, with no exponential of a positive number; x where βx > threshold"""
    z = beta * x
    return x if z > threshold else (maximum(z, 0) + log1p(exp(-abs(z)))) / beta


@elementwise
def softplus_backward(dy: Any, x: Any, *, beta: Any, threshold: Any) -> Any:
    """dy · σ(βx); dy where βx > threshold"""
    z = beta * x
    return dy if z > threshold else dy * logistic(z)


@elementwise
def logsigmoid(x: Any) -> Any:
    """ln σ(x)"""
    return minimum(x, 0) - log1p(exp(-abs(x)))


@elementwise
def logsigmoid_backward(dy: Any, x: Any) -> Any:
    """dy · σ(−x)"""
    return dy * logistic(-x)


@elementwise
def softsign(x: Any) -> Any:
    """x / (1 + |x|)"""
    return x / (1 + abs(x))


@elementwise
def softsign_backward(dy: Any, x: Any) -> Any:
    """dy / (1 + |x|)²"""
    scale = 1 + abs(x)
    return dy / (scale * scale)
