"""Activation functions, one primitive per formula.

Functions and derivatives are written in :mod:`kobai.ops._formulas`. At a kink the derivative is PyTorch's, the one from
the left – relu′(0) = 0, leaky_relu′(0) = negative_slope – and for the functions that are cut on both sides (relu6, hardtanh,
hardsigmoid) 0 at both ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.core.primitive import in_place, method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.ops import _formulas as fast
from kobai.ops._args import Samples, as_float, need_tensor, unbroadcast
from kobai.ops.arithmetic import sub
from kobai.ops.gather import where
from kobai.ops.pointwise import clamp, tanh
from kobai.xp import Array, xp_of

__all__ = [
    "celu",
    "elu",
    "gelu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanhshrink",
    "threshold",
]


def _of_integers(op: Callable[[Tensor], Tensor], inplace: bool, input: Tensor) -> Tensor:
    """op(input) of integers, which stay integers, as a new tensor or written into ``input``."""
    return in_place(input, op) if inplace else op(input)


def _bounded(who: str, input: Tensor, inplace: bool, low: float, high: float) -> Tensor:
    """``input`` cut to [low, high]; integers stay integers, cut to bounds without their fractions."""
    need_tensor(who, input)
    if input._array.dtype.kind not in FLOATING:
        return _of_integers(lambda x: clamp(x, int(low), int(high)), inplace, input)
    return apply(_hardtanh, inplace, who, input, low, high)


def apply(op: Callable[..., Tensor], inplace: bool, who: str, input: Tensor, *args: Any) -> Tensor:
    """op(input as floats, *args), as a new tensor or written into ``input``: RuntimeError if that is of integers."""
    if inplace:
        return in_place(input, lambda x: op(as_float(who, x), *args))
    return op(as_float(who, input), *args)


def _samples(*options: Any, kinks: tuple[float, ...] = ()) -> Samples:
    """Arguments on every side of the kinks and at a distance from them, followed by ``options``."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        x = rng.uniform(-4, 4, shape)
        for kink in kinks:
            x = np.where(np.abs(x - kink) < 0.02, kink + 0.1, x)
        return x

    return [
        lambda rng: (draw(rng, (5, 4)), *options),
        lambda rng: (draw(rng, (3, 2, 4)).T[::2], *options),
        lambda rng: (draw(rng, ()), *options),
        lambda rng: (draw(rng, (0, 3)), *options),
    ]


def _of_formula(name: str, *kinks: float, half: str = "device") -> Callable[..., Tensor]:
    """The primitive of a formula f(x) whose gradient is made of dy and x."""
    formula, backward = getattr(fast, name), getattr(fast, f"{name}_backward")

    def forward(x: Array) -> Any:
        return formula(x), lambda dy: (backward(dy, x),)

    forward.__name__ = f"_{name}"
    return primitive(sample=_samples(kinks=kinks), kind="elementwise", half=half)(forward)


def _step(x: Array, left: Any) -> Array:
    """1 where x > 0, ``left`` (finite: a number or an array) elsewhere; exactly."""
    positive = (x > 0).astype(x.dtype)
    return positive + left * (1 - positive)


# --- rectifiers -------------------------------------------------------------------------------------------------------


@primitive(sample=_samples(kinks=(0.0,)), kind="elementwise", half="device")
def _relu(x: Array) -> Any:
    y = fast.relu(x)
    return y, lambda dy: (fast.relu_backward(dy, y),)


@method
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), with derivative 0 at 0 (Nair and Hinton, ICML 2010).

    >>> import kobai
    >>> kobai.relu(kobai.tensor([-1., 0., 2.]))
    tensor([0., 0., 2.])
    """
    need_tensor("relu", input)
    return in_place(input, _relu) if inplace else _relu(input)


@method
def relu_(input: Tensor) -> Tensor:
    """In-place form of :func:`relu`.

    >>> import kobai
    >>> x = kobai.tensor([-1., 2.])
    >>> kobai.relu_(x) is x, x
    (True, tensor([0., 2.]))
    """
    return relu(input, inplace=True)


@primitive(sample=_samples(-0.5, 1.5, kinks=(-0.5, 1.5)), kind="elementwise", half="device")
def _hardtanh(x: Array, low: float, high: float) -> Any:
    return fast.hardtanh(x, low=low, high=high), lambda dy: (fast.hardtanh_backward(dy, x, low=low, high=high),)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x cut to [min_val, max_val]; derivative 1 inside, 0 at the ends and outside.

    >>> import kobai
    >>> kobai.nn.functional.hardtanh(kobai.tensor([-3., 0.5, 3.]))
    tensor([-1.0000,  0.5000,  1.0000])
    """
    if min_val > max_val:
        raise ValueError(f"hardtanh: expected min_val <= max_val, got {min_val} and {max_val}")
    return _bounded("hardtanh", input, inplace, min_val, max_val)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6).

    >>> import kobai
    >>> kobai.nn.functional.relu6(kobai.tensor([-1., 3., 8.]))
    tensor([0., 3., 6.])
    """
    return _bounded("relu6", input, inplace, 0.0, 6.0)


@primitive(sample=_samples(0.1, kinks=(0.0,)) + _samples(-0.3, kinks=(0.0,))[:1], kind="elementwise", half="device")
def _leaky_relu(x: Array, slope: float) -> Any:
    return fast.leaky_relu(x, slope=slope), lambda dy: (fast.leaky_relu_backward(dy, x, slope=slope),)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, negative_slope · x elsewhere (Maas, Hannun, Ng, ICML 2013).

    >>> import kobai
    >>> kobai.nn.functional.leaky_relu(kobai.tensor([-10., 2.]), 0.1)
    tensor([-1.,  2.])
    """
    return apply(_leaky_relu, inplace, "leaky_relu", input, negative_slope)


@primitive(
    sample=[
        lambda rng: (rng.uniform(0.1, 2, (4, 3)) * rng.choice([-1, 1], (4, 3)), rng.uniform(0.1, 0.5, (3,))),
        lambda rng: (rng.uniform(-2, -1, (2, 3, 5)), rng.uniform(0.1, 0.5, (3,))),
        lambda rng: (rng.uniform(-2, -1, (5,)), rng.uniform(0.1, 0.5, (1,))),
        lambda rng: (rng.uniform(-2, -1, (0, 3)), rng.uniform(0.1, 0.5, (3,))),
    ],
    again=True,
)
def _prelu(x: Array, weight: Array) -> Any:
    below = xp_of(x).minimum(x, 0)
    shape = (-1,) + (1,) * max(x.ndim - 2, 0) if x.ndim else ()
    slope = weight.reshape(shape)

    def vjp(dy: Array) -> Any:
        slopes = weight.reshape(shape)
        return (
            lambda: dy * _step(x, slopes),
            lambda: unbroadcast(dy * below, slopes.shape).reshape(weight.shape),
        )

    return fast.relu(x) + slope * below, vjp


@method
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, weight · x elsewhere; one learned slope, or one per channel (dimension 1) (He et al., ICCV 2015).

    Shapes: input (N, C, ...) with weight (C,); any input with weight (1,) or ().

    >>> import kobai
    >>> kobai.prelu(kobai.tensor([[-1., -1.]]), kobai.tensor([0.25, 0.5]))  # one slope per channel
    tensor([[-0.2500, -0.5000]])
    """
    need_tensor("prelu", input, weight)
    channels = input._array.shape[1] if input._array.ndim > 1 else 1
    if weight._array.ndim > 1 or weight._array.size not in (1, channels):
        raise RuntimeError(f"prelu: expected weight (1,) or ({channels},), got {tuple(weight.shape)}")
    return _prelu(input, weight)


# --- exponential and sigmoidal units ----------------------------------------------------------------------------------

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@primitive(sample=_samples(1.3, 0.7, 0.5, kinks=(0.0,)), kind="elementwise", half="device")
def _elu(x: Array, alpha: float, scale: float, rate: float) -> Any:
    options = {"alpha": alpha, "scale": scale, "rate": rate}
    return fast.elu(x, **options), lambda dy: (fast.elu_backward(dy, x, **options),)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, α(eˣ − 1) elsewhere (Clevert, Unterthiner, Hochreiter, ICLR 2016).

    >>> import kobai
    >>> kobai.nn.functional.elu(kobai.tensor([-1., 0., 2.]))
    tensor([-0.6321,  0.0000,  2.0000])
    """
    return apply(_elu, inplace, "elu", input, alpha, 1.0, 1.0)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, α(exp(x/α) − 1) elsewhere: continuously differentiable (Barron, arXiv:1704.07483).

    >>> import kobai
    >>> kobai.celu(kobai.tensor([-2., 0., 2.]), alpha=2)
    tensor([-1.2642,  0.0000,  2.0000])
    """
    if alpha == 0:
        raise ValueError("celu: expected alpha != 0, got 0")
    return apply(_elu, inplace, "celu", input, alpha, 1.0, 1 / alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """λx where x > 0, λα(eˣ − 1) elsewhere, with the λ and α that keep mean 0 and variance 1 (Klambauer et al., NIPS 2017).

    >>> import kobai
    >>> kobai.selu(kobai.tensor([-1., 0., 1.]))
    tensor([-1.1113,  0.0000,  1.0507])
    """
    return apply(_elu, inplace, "selu", input, SELU_ALPHA, SELU_SCALE, 1.0)


@primitive(sample=_samples(), kind="elementwise", half="device", again=True)
def _gelu(x: Array) -> Any:
    y, cdf = fast.gelu(x)
    return y, lambda dy: (fast.gelu_backward(dy, x, cdf),)


_gelu_tanh = _of_formula("gelu_tanh")


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x Φ(x), Φ the normal distribution function (Hendrycks and Gimpel, arXiv:1606.08415).

    ``approximate="tanh"``: ½x(1 + tanh(√(2/π)(x + 0.044715x³))).

    >>> import kobai
    >>> kobai.nn.functional.gelu(kobai.tensor([-1., 0., 1.]))
    tensor([-0.1587,  0.0000,  0.8413])
    """
    if approximate not in ("none", "tanh"):
        raise RuntimeError(f"gelu: expected approximate 'none' or 'tanh', got {approximate!r}")
    return (_gelu if approximate == "none" else _gelu_tanh)(as_float("gelu", input))


_silu = _of_formula("silu")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x σ(x), also called swish (Elfwing, Uchibe, Doya, Neural Networks 2018).

    >>> import kobai
    >>> kobai.nn.functional.silu(kobai.tensor([-1., 0., 1.]))
    tensor([-0.2689,  0.0000,  0.7311])
    """
    return apply(_silu, inplace, "silu", input)


_mish = _of_formula("mish")


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x tanh(softplus(x)) (Misra, BMVC 2020).

    >>> import kobai
    >>> kobai.nn.functional.mish(kobai.tensor([-1., 0., 1.]))
    tensor([-0.3034,  0.0000,  0.8651])
    """
    return apply(_mish, inplace, "mish", input)


@primitive(sample=_samples(1.0, 20.0) + _samples(2.0, 3.0, kinks=(1.5,))[:1], kind="elementwise", half="device")
def _softplus(x: Array, beta: float, threshold: float) -> Any:
    options = {"beta": beta, "threshold": threshold}
    return fast.softplus(x, **options), lambda dy: (fast.softplus_backward(dy, x, **options),)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """ln(1 + e^(βx)) / β; x itself where βx > threshold.

    >>> import kobai
    >>> kobai.nn.functional.softplus(kobai.tensor([0., 30.]))
    tensor([ 0.6931, 30.0000])
    """
    return _softplus(as_float("softplus", input), beta, threshold)


_logsigmoid = _of_formula("logsigmoid")


def logsigmoid(input: Tensor) -> Tensor:
    """ln σ(x), without overflow.

    >>> import kobai
    >>> kobai.nn.functional.logsigmoid(kobai.tensor([-100., 0.]))
    tensor([-100.0000,   -0.6931])
    """
    return _logsigmoid(as_float("logsigmoid", input))


_softsign = _of_formula("softsign", 0.0, half="wide")


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|).

    >>> import kobai
    >>> kobai.nn.functional.softsign(kobai.tensor([-1., 0., 3.]))
    tensor([-0.5000,  0.0000,  0.7500])
    """
    return _softsign(as_float("softsign", input))


def tanhshrink(input: Tensor) -> Tensor:
    """x − tanh(x).

    >>> import kobai
    >>> kobai.nn.functional.tanhshrink(kobai.tensor([0., 1.]))
    tensor([0.0000, 0.2384])
    """
    return sub(input, tanh(input))


# --- piecewise linear approximations, thresholds ----------------------------------------------------------------------


_hardsigmoid = _of_formula("hardsigmoid", -3.0, 3.0)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """x/6 + ½, cut to [0, 1].

    >>> import kobai
    >>> kobai.nn.functional.hardsigmoid(kobai.tensor([-4., 0., 1.5, 4.]))
    tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """
    return apply(_hardsigmoid, inplace, "hardsigmoid", input)


_hardswish = _of_formula("hardswish", -3.0, 3.0)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x · hardsigmoid(x) (Howard et al., "Searching for MobileNetV3", ICCV 2019); derivative 0 at −3, 1 at 3.

    >>> import kobai
    >>> kobai.nn.functional.hardswish(kobai.tensor([1.5, 4.]))
    tensor([1.1250, 4.0000])
    """
    return apply(_hardswish, inplace, "hardswish", input)


@primitive(sample=_samples(0.5, kinks=(-0.5, 0.5)), kind="elementwise", half="device")
def _hardshrink(x: Array, bound: float) -> Any:
    return fast.hardshrink(x, bound=bound), lambda dy: (fast.hardshrink_backward(dy, x, bound=bound),)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > λ, 0 elsewhere.

    >>> import kobai
    >>> kobai.nn.functional.hardshrink(kobai.tensor([-2., 0.5, 1.]))
    tensor([-2.,  0.,  1.])
    """
    return _hardshrink(as_float("hardshrink", input), lambd)


@primitive(sample=_samples(0.5, kinks=(-0.5, 0.5)), kind="elementwise", half="device")
def _softshrink(x: Array, bound: float) -> Any:
    return fast.softshrink(x, bound=bound), lambda dy: (fast.hardshrink_backward(dy, x, bound=bound),)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved by λ towards 0, and 0 where |x| ≤ λ.

    >>> import kobai
    >>> kobai.nn.functional.softshrink(kobai.tensor([-2., 0.5, 1.]))
    tensor([-1.5000,  0.0000,  0.5000])
    """
    if not lambd >= 0:
        raise RuntimeError(f"softshrink: expected lambd >= 0, got {lambd}")
    return _softshrink(as_float("softshrink", input), lambd)


@primitive(sample=_samples(0.5, -1.0, kinks=(0.5,)), kind="elementwise", half="device")
def _threshold(x: Array, bound: float, value: float) -> Any:
    return fast.threshold(x, bound=bound, value=value), lambda dy: (fast.threshold_backward(dy, x, bound=bound),)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, ``value`` elsewhere.

    >>> import kobai
    >>> kobai.threshold(kobai.tensor([1., 2., 3.]), 2, -1)
    tensor([-1., -1.,  3.])
    """
    need_tensor("threshold", input)
    if input._array.dtype.kind in "iu":
        return _of_integers(lambda x: where(x > threshold, x, int(value)), inplace, input)
    return apply(_threshold, inplace, "threshold", input, threshold, value)
