"""Losses that treat all elements alike: squared, absolute and robust errors, binary cross-entropy, divergence.

Each is one primitive whose forward is ℓ(x, t) elementwise, then the reduction; its vjp is dℓ/dx and dℓ/dt times dy (or dy
divided by the number of elements). Classification losses are in :mod:`kobai.ops.cross_entropy`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.engine.domains import check_unit_interval
from kobai.errors import users_line
from kobai.ops._args import Samples, drawn, need_flags, need_tensor, pair, unbroadcast
from kobai.ops._formulas import (
    binary_entropy,
    binary_entropy_backward,
    clamp,
    half_square,
    relu,
    sigmoid,
    sign,
    smooth_size,
    smooth_size_slope,
)
from kobai.ops._size_average import size_average
from kobai.ops.averaged import tell
from kobai.ops.cross_entropy import check_reduction
from kobai.xp import Array, quiet, xp_of

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "smooth_l1_loss",
]


@quiet
def _reduced(loss: Array, reduction: str) -> tuple[Array, float]:
    """The reduced loss, and the factor of dy in the gradient of its elements; the mean of nothing is nan, as in PyTorch."""
    if reduction == "none":
        return loss, 1.0
    total = loss.sum()
    if reduction == "sum":
        return total, 1.0
    n = loss.shape[0] if reduction == "batchmean" and loss.ndim else loss.size
    return (total / n, 1 / n) if n else (total * math.nan, 0.0)


def _samples(draw: Callable[[np.random.Generator, tuple[int, ...]], tuple[Any, ...]]) -> Samples:
    def arguments(rng: np.random.Generator, shape: tuple[int, ...], reduction: str) -> tuple[Any, ...]:
        x, target, *options = draw(rng, shape)
        return np.asarray(x), np.asarray(target), *options, {"reduction": reduction}

    return [
        lambda rng: arguments(rng, (4, 3), "mean"),
        lambda rng: arguments(rng, (2, 3, 2), "none"),
        lambda rng: arguments(rng, (), "sum"),
        lambda rng: arguments(rng, (0, 3), "sum"),
    ]


# --- functions of the difference d = x − t ----------------------------------------------------------------------------


def _of_difference(
    name: str,
    f: Callable[..., Array],
    derivative: Callable[..., Array],
    *options: float,
) -> Callable[..., Tensor]:
    """Primitive of ℓ(d): ``f(xp, d, *options)`` and ``derivative(xp, d, *options)``; dℓ/dt = −dℓ/dx."""

    def forward(x: Array, target: Array, *options: float, reduction: str = "mean") -> Any:
        xp, sx, st = xp_of(x), x.shape, target.shape
        d = x - target
        y, factor = _reduced(f(xp, d, *options), reduction)

        def vjp(dy: Array) -> Any:
            g = derivative(xp, d, *options) * (dy * factor)
            return unbroadcast(g, sx), lambda: -unbroadcast(g, st)

        return y, vjp

    forward.__name__ = f"_{name}"

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Any, ...]:
        # errors below and above the kinks at |d| = 0 and at the sample's option, 0.5
        x = rng.normal(size=shape)
        return x, x + rng.uniform(0.1, 0.4, shape) * rng.choice([-1, 1, 2.5, -2.5], shape), *options

    return primitive(sample=_samples(draw), again=True)(forward)


_squared = _of_difference("mse_loss", lambda xp, d: d * d, lambda xp, d: 2 * d)
_absolute = _of_difference("l1_loss", lambda xp, d: xp.abs(d), lambda xp, d: sign(d))
_huber = _of_difference(
    "huber_loss",
    lambda xp, d, delta: half_square(d, delta=delta),
    lambda xp, d, delta: clamp(d, low=-delta, high=delta),
    0.5,
)
_smooth = _of_difference(
    "smooth_l1_loss",
    lambda xp, d, beta: smooth_size(d, beta=beta),
    lambda xp, d, beta: smooth_size_slope(d, beta=beta),
    0.5,
)


def _two(who: str, input: Tensor, target: Tensor, reduction: str, *known: str) -> tuple[Tensor, Tensor]:
    need_tensor(who, input, target)
    check_reduction(who, reduction, known or ("none", "mean", "sum"))
    sx, st = input._array.shape, target._array.shape
    if sx != st:
        try:
            wide = np.broadcast_shapes(sx, st)
        except ValueError:
            raise RuntimeError(f"{who}: expected target of the input's shape {sx}, got {st}") from None
        warnings.warn(
            f"{who}: input {sx} and target {st} are broadcast to {wide}, which is seldom what was meant; give both one shape",
            stacklevel=users_line(),
        )
    tell("estimates", st)
    return pair(who, input, target, to_float=True)


@size_average("input target size_average reduce reduction")
def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(x − t)², reduced by ``"mean"``, ``"sum"`` or ``"none"``.

    >>> import kobai
    >>> kobai.nn.functional.mse_loss(kobai.tensor([1.0, 2.0]), kobai.tensor([1.0, 4.0]))
    tensor(2.)
    """
    return _squared(*_two("mse_loss", input, target, reduction), reduction=reduction)


@size_average("input target size_average reduce reduction")
def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|x − t|, with derivative 0 at 0.

    >>> import kobai
    >>> kobai.nn.functional.l1_loss(kobai.tensor([1., 2.]), kobai.tensor([1., 4.]))
    tensor(1.)
    """
    return _absolute(*_two("l1_loss", input, target, reduction), reduction=reduction)


@size_average("input target size_average reduce reduction beta")
def smooth_l1_loss(input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """½(x − t)²/β where |x − t| < β, |x − t| − ½β elsewhere (Girshick, ICCV 2015); the absolute error if β = 0.

    >>> import kobai
    >>> kobai.nn.functional.smooth_l1_loss(kobai.tensor([1., 3.]), kobai.tensor([0.5, 0.]), reduction="none")
    tensor([0.1250, 2.5000])
    """
    if not beta >= 0:
        raise RuntimeError(f"smooth_l1_loss: expected beta >= 0, got {beta}")
    x, t = _two("smooth_l1_loss", input, target, reduction)
    return _absolute(x, t, reduction=reduction) if beta == 0 else _smooth(x, t, beta, reduction=reduction)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """½(x − t)² where |x − t| ≤ δ, δ(|x − t| − ½δ) elsewhere (Huber, 1964); ``weight`` multiplies the elements.

    >>> import kobai
    >>> kobai.nn.functional.huber_loss(kobai.tensor([1., 3.]), kobai.tensor([0., 0.]), reduction="none", delta=2.0)
    tensor([0.5000, 4.0000])
    """
    if not delta > 0:
        raise RuntimeError(f"huber_loss: expected delta > 0, got {delta}")
    x, t = _two("huber_loss", input, target, reduction)
    if weight is None:
        return _huber(x, t, delta, reduction=reduction)
    return reduce(_huber(x, t, delta, reduction="none") * weight, reduction)


def reduce(loss: Tensor, reduction: str) -> Tensor:
    """``loss`` itself, its mean or its sum: for losses composed of other functions."""
    check_reduction("reduction", reduction)
    return _sum_of(loss, reduction=reduction) if reduction != "none" else loss


@primitive(sample=[drawn((4, 3), {"reduction": "mean"}), drawn((0, 3), {"reduction": "sum"})])
def _sum_of(loss: Array, *, reduction: str) -> Any:
    xp, shape = xp_of(loss), loss.shape
    y, factor = _reduced(loss, reduction)
    return y, lambda dy: (xp.broadcast_to(dy * factor, shape),)


# --- binary cross-entropy ---------------------------------------------------------------------------------------------


def _probabilities(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Any, ...]:
    return rng.uniform(0.05, 0.95, shape), rng.uniform(0, 1, shape), None


def _log(xp: Any, x: Array) -> Array:
    """max(ln x, −100): PyTorch's bound, which keeps the loss of a certain but wrong prediction finite."""
    return xp.maximum(xp.log(x), -100)


def _entropies(xp: Any, x: Array, target: Array) -> Array:
    """−(t ln x + (1 − t) ln(1 − x))"""
    return -(target * _log(xp, x) + (1 - target) * _log(xp, 1 - x))


@primitive(
    sample=[*_samples(_probabilities), lambda rng: (*_probabilities(rng, (4, 3))[:2], rng.uniform(0.5, 2, (3,)), {})]
)
def _binary_cross_entropy(x: Array, target: Array, weight: Array | None, *, reduction: str = "mean") -> Any:
    xp = xp_of(x)
    check_unit_interval("binary_cross_entropy", "probabilities", x)
    check_unit_interval("binary_cross_entropy", "targets", target)
    loss = _entropies(xp, x, target)
    y, factor = _reduced(loss if weight is None else loss * weight, reduction)

    def vjp(dy: Array) -> Any:
        g = dy * factor if weight is None else dy * factor * weight

        def dweight() -> Any:
            return unbroadcast(dy * factor * _entropies(xp, x, target), weight.shape)  # type: ignore[union-attr]

        # x(1 − x) is bounded as in PyTorch, for x = 0 and 1
        return (
            lambda: g * (x - target) / xp.maximum(x * (1 - x), 1e-12),
            lambda: g * (_log(xp, 1 - x) - _log(xp, x)),
            dweight,
        )

    return y, vjp


def _same_shape(who: str, input: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> tuple[Any, Any, Any]:
    need_tensor(who, input, target)
    check_reduction(who, reduction)
    if input._array.shape != target._array.shape:
        raise ValueError(f"{who}: expected target {tuple(input.shape)} as the input, got {tuple(target.shape)}")
    x, t = pair(who, input, target, to_float=True)
    if weight is not None:
        need_tensor(who, weight)
        try:
            np.broadcast_shapes(weight._array.shape, x._array.shape)
        except ValueError:
            raise ValueError(
                f"{who}: expected weight that broadcasts to {tuple(x.shape)}, got {tuple(weight.shape)}"
            ) from None
    return x, t, weight


@size_average("input target weight size_average reduce reduction")
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """−w (t ln x + (1 − t) ln(1 − x)) for probabilities x; logarithms are bounded below by −100.

    Errors: ValueError for x or t outside [0, 1] or other shapes. Scores: binary_cross_entropy_with_logits.

    >>> import kobai
    >>> kobai.nn.functional.binary_cross_entropy(kobai.tensor([0.5, 0.0]), kobai.tensor([1., 1.]), reduction="none")
    tensor([  0.6931, 100.0000])
    """
    x, t, w = _same_shape("binary_cross_entropy", input, target, weight, reduction)
    tell("probabilities", t._array.shape)
    return _binary_cross_entropy(x, t, w, reduction=reduction)


def _scores(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Any, ...]:
    return rng.uniform(-3, 3, shape), rng.uniform(0, 1, shape), None, None


@primitive(
    sample=[
        *_samples(_scores),
        lambda rng: (*_scores(rng, (4, 3))[:2], None, rng.uniform(0.5, 2, (3,)), {}),
        lambda rng: (*_scores(rng, (4, 3))[:2], rng.uniform(0.5, 2, (4, 1)), rng.uniform(0.5, 2, (3,)), {}),
    ],
    again=True,
)
def _binary_cross_entropy_with_logits(
    x: Array, target: Array, weight: Array | None, pos_weight: Array | None, *, reduction: str = "mean"
) -> Any:
    if weight is None and pos_weight is None:
        y, factor = _reduced(binary_entropy(x, target), reduction)
        return y, lambda dy: (
            lambda: binary_entropy_backward(x, target) * (dy * factor),
            lambda: -x * (dy * factor),
            None,
            None,
        )
    xp = xp_of(x)
    # −ln σ(x) = ln(1 + e⁻ˣ) = max(−x, 0) + ln(1 + e^(−|x|)), and −ln(1 − σ(x)) = x more than that
    cost = relu(-x) + xp.log1p(xp.exp(-xp.abs(x)))
    loss = (1 - target) * x + _of_positives(pos_weight, target) * cost
    y, factor = _reduced(loss if weight is None else loss * weight, reduction)

    def vjp(dy: Array) -> Any:
        base = dy * factor
        g = base if weight is None else base * weight

        def dx() -> Array:
            p = sigmoid(x)
            if pos_weight is None:
                return g * (p - target)
            return g * ((1 - target) - _of_positives(pos_weight, target) * (1 - p))

        def dtarget() -> Array:
            return g * (-x if pos_weight is None else (pos_weight - 1) * cost - x)

        def dweight() -> Any:
            each = (1 - target) * x + _of_positives(pos_weight, target) * cost
            return unbroadcast(base * each, weight.shape)  # type: ignore[union-attr]

        def dpositive() -> Any:
            return unbroadcast(g * target * cost, pos_weight.shape)  # type: ignore[union-attr]

        return dx, dtarget, dweight, dpositive

    return y, vjp


def _of_positives(pos_weight: Array | None, target: Array) -> Any:
    """How much −ln σ(x) counts: q t + 1 − t times."""
    return 1 if pos_weight is None else 1 + (pos_weight - 1) * target


@size_average("input target weight size_average reduce reduction pos_weight")
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """−w (q t ln σ(x) + (1 − t) ln(1 − σ(x))) for scores x, without overflow; q is ``pos_weight``.

    ``target`` has the shape of ``input``; ``weight`` and ``pos_weight`` broadcast to it.

    >>> import kobai
    >>> scores, truth = kobai.tensor([0.0, 200.0]), kobai.tensor([1., 0.])
    >>> kobai.nn.functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    tensor([  0.6931, 200.0000])
    """
    who = "binary_cross_entropy_with_logits"
    x, t, w = _same_shape(who, input, target, weight, reduction)
    _same_shape(who, input, target, pos_weight, reduction)
    tell("logits", t._array.shape)
    return _binary_cross_entropy_with_logits(x, t, w, pos_weight, reduction=reduction)


# --- divergence -------------------------------------------------------------------------------------------------------


def _two_distributions(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Any, ...]:
    return np.log(rng.uniform(0.1, 0.9, shape)), rng.uniform(0.1, 0.9, shape), False


@primitive(
    sample=[
        *_samples(_two_distributions),
        lambda rng: (*_two_distributions(rng, (4, 3))[:2], True, {"reduction": "batchmean"}),
    ]
)
def _kl_div(x: Array, target: Array, log_target: bool, *, reduction: str = "mean") -> Any:
    xp, sx = xp_of(x), x.shape
    log_t = target if log_target else _log_or_zero(xp, target)
    y, factor = _reduced((xp.exp(target) if log_target else target) * (log_t - x), reduction)

    def vjp(dy: Array) -> Any:
        g = dy * factor

        def dtarget() -> Any:
            if log_target:
                return unbroadcast(g * xp.exp(target) * (target - x + 1), target.shape)
            return unbroadcast(g * (_log_or_zero(xp, target) - x + 1), target.shape)

        return lambda: unbroadcast(-g * (xp.exp(target) if log_target else target), sx), dtarget

    return y, vjp


def _log_or_zero(xp: Any, t: Array) -> Array:
    """ln t, and 0 at t = 0, where t ln t = 0."""
    return xp.log(t + (t == 0))


@size_average("input target size_average reduce reduction log_target")
def kl_div(input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """t (ln t − x), the terms of the divergence of exp(x) from t; ``log_target`` says that ``target`` holds ln t.

    ``input`` are log-probabilities. ``reduction="batchmean"`` (the sum divided by the number of rows) is the divergence;
    ``"mean"`` divides by the number of elements.

    >>> import kobai
    >>> p = kobai.tensor([[0.5, 0.5]])
    >>> q = kobai.tensor([[0.25, 0.75]])
    >>> kobai.nn.functional.kl_div(q.log(), p, reduction="batchmean")  # ½ ln 2 + ½ ln ⅔
    tensor(0.1438)
    """
    need_flags("kl_div", log_target=log_target)
    x, t = _two("kl_div", input, target, reduction, "none", "mean", "sum", "batchmean")
    return _kl_div(x, t, log_target, reduction=reduction)
