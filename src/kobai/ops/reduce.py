"""Sums, means, variances, products, and running sums.

``dim`` is an integer, a tuple, or None for all dimensions; ``keepdim`` leaves sizes of 1 in their place. PyTorch's second
names ``axis`` and ``keepdims`` work too.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, HALVES
from kobai.errors import users_line
from kobai.ops._args import Samples, cast, drawn, need_tensor, normalize_axes, normalize_axis, numpy_names
from kobai.ops._sums import FEW, centred, cumulative_product, cumulative_sum, product, suffix_sum, total
from kobai.xp import Array, quiet, xp_of

__all__ = [
    "cumprod",
    "cumsum",
    "mean",
    "nanmean",
    "nansum",
    "prod",
    "std",
    "std_mean",
    "sum",
    "var",
    "var_mean",
]

Axes = tuple[int, ...]


def reduced_samples() -> Samples:
    """Sample arrays for reductions: all axes, one, several, kept; a scalar; slices without elements."""
    return [
        drawn((4, 3), None, False),
        drawn((2, 4, 3), (1,), False),
        drawn((2, 4, 3), (0, 2), True),
        lambda rng: (rng.normal(size=(3, 2)).T, (0,), True),
        drawn((), (), False),
        drawn((0, 3), (1,), False),
    ]


def axes_of(who: str, dim: Any, ndim: int) -> Axes | None:
    """``dim`` as a tuple of axes, None for all."""
    if dim is None:
        return None
    if type(dim) is int and -ndim <= dim < ndim:
        return (dim % ndim,)
    return normalize_axes(who, dim, ndim)


def spread(dy: Array, shape: tuple[int, ...], axes: Axes | None, keepdim: bool) -> Array:
    """A reduced array, seen with sizes of 1 in place of the dimensions of ``shape`` that were reduced."""
    if keepdim or not shape:
        return dy
    if axes is None:
        return dy.reshape((1,) * len(shape))
    return dy.reshape([1 if d in axes else n for d, n in enumerate(shape)])


def element_count(shape: tuple[int, ...], axes: Axes | None) -> int:
    return math.prod(shape if axes is None else [shape[d] for d in axes])


def _repeated(dy: Array, shape: tuple[int, ...]) -> Any:
    """``dy`` broadcast to ``shape``: a view if that is large, which takes no memory; else a copy, which is faster."""
    xp = xp_of(dy)
    if element_count(shape, None) > 8192:
        return xp.broadcast_to(dy, shape)

    def copy() -> Array:
        dx = xp.empty(shape, dy.dtype)
        dx[...] = dy
        return dx

    return copy


# --- sums and means ---------------------------------------------------------------------------------------------------


@primitive(sample=reduced_samples())
@quiet
def _sum(x: Array, axes: Axes | None, keepdim: bool) -> Any:
    shape = x.shape

    def vjp(dy: Array) -> Any:
        return _repeated(spread(dy, shape, axes, keepdim), shape), None, None

    y = x.sum(axis=axes, keepdims=keepdim) if x.size <= FEW else total(x, axes, keepdim)
    return y, vjp


@primitive(sample=reduced_samples())
@quiet
def _mean(x: Array, axes: Axes | None, keepdim: bool) -> Any:
    shape = x.shape
    n = element_count(shape, axes) or math.nan  # the mean of nothing is NaN

    def vjp(dy: Array) -> Any:
        return _repeated(spread(dy / n, shape, axes, keepdim), shape), None, None

    y = x.sum(axis=axes, keepdims=keepdim) if x.size <= FEW else total(x, axes, keepdim)
    return y / n, vjp


@method
@numpy_names
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum over ``dim``; integers and truth values add up as int64.

    >>> import kobai
    >>> kobai.tensor([[1., 2.], [3., 4.]]).sum(dim=1, keepdim=True)
    tensor([[3.],
            [7.]])
    """
    array = input._array
    if dtype is None:
        if array.dtype.kind in FLOATING:
            return _sum(input, axes_of("sum", dim, array.ndim), keepdim)
        dtype = np.int64
    return cast(_sum(cast(input, dtype), axes_of("sum", dim, array.ndim), keepdim), dtype)


@method
@numpy_names
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Mean over ``dim`` of floats; RuntimeError for integers unless ``dtype`` says as which float.

    >>> import kobai
    >>> kobai.tensor([1., 2., 6.]).mean()
    tensor(3.)
    """
    if dtype is not None:
        input = cast(input, dtype)
    if input._array.dtype.kind not in FLOATING:
        raise RuntimeError(f"mean: expected floats, got {input.dtype}; pass dtype=, or use .float() first")
    return _mean(input, axes_of("mean", dim, input._array.ndim), keepdim)


@method
@numpy_names
@one_operation
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum over ``dim`` of what is not NaN.

    >>> import kobai
    >>> kobai.nansum(kobai.tensor([1., float("nan"), 5.]))
    tensor(6.)
    """
    return sum(input.masked_fill(input.isnan(), 0), dim, keepdim, dtype=dtype)


@method
@numpy_names
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Mean over ``dim`` of what is not NaN.

    >>> import kobai
    >>> kobai.nanmean(kobai.tensor([1., float("nan"), 5.]))
    tensor(3.)
    """
    if input._array.dtype in HALVES and dtype is None:  # neither the sum nor the count need fit into it
        return cast(nanmean(cast(input, np.float32), dim, keepdim), input._array.dtype)
    valid = cast(input.isnan().logical_not(), input._array.dtype)
    return nansum(input, dim, keepdim, dtype=dtype) / sum(valid, dim, keepdim, dtype=dtype)


# --- variance ---------------------------------------------------------------------------------------------------------


def _spreads() -> Samples:
    return [drawn((4, 3), None, 1, False), drawn((2, 4, 3), (1,), 0, True), drawn((2, 4, 3), (0, 2), 1.5, False)]


def _squares(x: Array, axes: Axes | None, correction: float, keepdim: bool) -> tuple[Array, float]:
    """Σ(x − mean)² and its divisor, in two passes: x² − mean² would lose the digits that matter."""
    squares = centred(x, axes)
    squares *= squares  # in place: new memory costs more than the arithmetic
    return total(squares, axes, keepdim), max(element_count(x.shape, axes) - correction, 0)


def _divided(squares: Array, divisor: float) -> Array:
    if divisor:
        return squares / divisor
    return xp_of(squares).where(squares == 0, math.nan, math.inf).astype(squares.dtype)


@primitive(sample=_spreads())
@quiet
def _var(x: Array, axes: Axes | None, correction: float, keepdim: bool) -> Any:
    squares, divisor = _squares(x, axes, correction, keepdim)

    def vjp(dy: Array) -> Any:
        scaled = spread(dy * (2 / (divisor or math.nan)), x.shape, axes, keepdim)
        return lambda: scaled * centred(x, axes), None, None, None

    return _divided(squares, divisor), vjp


@primitive(sample=_spreads())
@quiet
def _std(x: Array, axes: Axes | None, correction: float, keepdim: bool) -> Any:
    xp = xp_of(x)
    squares, divisor = _squares(x, axes, correction, keepdim)
    y = xp.sqrt(_divided(squares, divisor))

    def vjp(dy: Array) -> Any:
        # At σ = 0 the square root has no derivative; 0 is the value PyTorch gives.
        slope = xp.where(y == 0, 0, dy / (xp.where(y == 0, 1, y) * (divisor or math.nan)))
        scaled = spread(slope.astype(dy.dtype, copy=False), x.shape, axes, keepdim)
        return lambda: scaled * centred(x, axes), None, None, None

    return y, vjp


def _arguments(who: str, input: Tensor, dim: Any, unbiased: bool | None, correction: float | None) -> tuple[Any, float]:
    """Axes and correction of a variance; ``unbiased`` is PyTorch's older way to say 1 or 0."""
    if isinstance(dim, bool):  # x.var(False)
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise TypeError(f"{who}: expected unbiased or correction, not both")
    if unbiased is not None:
        correction = int(unbiased)
    if correction is None:
        correction = 1
    need_tensor(who, input)
    if input._array.dtype.kind not in FLOATING:
        raise RuntimeError(f"{who}: expected floats, got {input.dtype}; use .float() first")
    axes = axes_of(who, dim, input._array.ndim)
    if element_count(input._array.shape, axes) <= correction:
        warnings.warn(
            f"{who}: fewer elements than degrees of freedom, the result is not finite", stacklevel=users_line()
        )
    return axes, correction


@method
@numpy_names
def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Variance Σ(x − mean)² / (n − correction) over ``dim``; the correction is 1 unless said (``unbiased=False``: 0).

    >>> import kobai
    >>> kobai.tensor([1., 2., 3.]).var(), kobai.tensor([1., 3.]).var(correction=0)
    (tensor(1.), tensor(1.))
    """
    return _var(input, *_arguments("var", input, dim, unbiased, correction), keepdim)


@method
@numpy_names
def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Standard deviation: the square root of :func:`var`, with gradient 0 where it is 0.

    >>> import kobai
    >>> kobai.std(kobai.tensor([1., 2., 3.])), kobai.std(kobai.tensor([1., 3.]), correction=0)
    (tensor(1.), tensor(1.))
    """
    return _std(input, *_arguments("std", input, dim, unbiased, correction), keepdim)


@numpy_names
def var_mean(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Tensor, Tensor]:
    """(:func:`var`, :func:`mean`).

    >>> import kobai
    >>> kobai.var_mean(kobai.tensor([[1., 2., 3.]]), dim=1)
    (tensor([1.]), tensor([2.]))
    """
    axes, correction = _arguments("var_mean", input, dim, unbiased, correction)
    return _var(input, axes, correction, keepdim), _mean(input, axes, keepdim)


@numpy_names
def std_mean(
    input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Tensor, Tensor]:
    """(:func:`std`, :func:`mean`).

    >>> import kobai
    >>> kobai.std_mean(kobai.tensor([[1., 3., 5.]]), dim=1)
    (tensor([2.]), tensor([3.]))
    """
    axes, correction = _arguments("std_mean", input, dim, unbiased, correction)
    return _std(input, axes, correction, keepdim), _mean(input, axes, keepdim)


# --- products and running sums ----------------------------------------------------------------------------------------


@primitive(
    sample=[
        *reduced_samples(),
        lambda rng: (rng.normal(size=(4, 3)) * (np.arange(12).reshape(4, 3) % 5 > 0), (1,), False),
        lambda rng: (rng.normal(size=(2, 3)) * [[0, 1, 0], [1, 0, 1]], None, True),
    ]
)
@quiet
def _prod(x: Array, axes: Axes | None, keepdim: bool) -> Any:
    def vjp(dy: Array) -> Any:
        return lambda: spread(dy, x.shape, axes, keepdim) * of_others(x, axes), None, None

    return product(x, axes, keepdim), vjp


def of_others(x: Array, axes: Axes | None) -> Array:
    """For every element the product of the *others* over ``axes``: of those before it times of those after it.

    It is 0 beside a zero, also where the product of large factors overflows: 0 · ∞ would be NaN.
    """
    xp, axes = xp_of(x), tuple(range(x.ndim)) if axes is None else axes
    if not axes or not x.size:
        return xp.ones_like(x)
    last = tuple(range(-len(axes), 0))
    moved = xp.moveaxis(x, axes, last)
    rows = moved.reshape(-1, element_count(x.shape, axes))
    zero = rows == 0
    factors = rows.astype(np.float64)
    one = xp.ones((rows.shape[0], 1))
    before = xp.concatenate([one, xp.cumprod(factors[:, :-1], axis=1)], axis=1)
    after = xp.concatenate([one, xp.cumprod(xp.flip(factors[:, 1:], 1), axis=1)], axis=1)
    others = before * xp.flip(after, 1) + 0.0
    others = xp.where((others != others) & (zero.sum(axis=1, keepdims=True) > zero), 0, others).astype(x.dtype)
    return xp.moveaxis(others.reshape(moved.shape), last, axes)


@primitive(sample=[drawn((4, 3), 0), drawn((2, 3, 2), -2), drawn((0, 3), 1)])
@quiet
def _cumsum(x: Array, axis: int) -> Any:
    return cumulative_sum(x, axis), lambda dy: (lambda: suffix_sum(dy, axis), None)


@primitive(sample=[drawn((4, 3), 0), lambda rng: (rng.normal(size=(2, 5)) * [[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], 1)])
@quiet
def _cumprod(x: Array, axis: int) -> Any:
    xp = xp_of(x)

    def vjp(dy: Array) -> Any:
        def dx() -> Array:
            # dx_i = Σ_{j≥i} dy_j y_j / x_i. After the first zero all y are 0; at it, its own factor is left out, and the sum
            # ends before the second, from which on there is a zero among the others too.
            wide = x.astype(np.float64)
            zero = wide == 0
            zeros = xp.cumsum(zero, axis=axis)
            first = zero & (zeros == 1)
            products = xp.cumprod(xp.where(zero, 1, wide), axis=axis)
            usual = suffix_sum(xp.where(zeros == 0, dy * products, 0), axis) / xp.where(zero, 1, wide)
            at_first = suffix_sum(xp.where(zeros == 1, dy * products, 0), axis)
            return xp.where(first, at_first, xp.where(zeros == 0, usual, 0)).astype(dy.dtype)

        return dx, None

    def on_tape(bind: Any, dy: Array) -> Any:
        # Without quotients: dx_i = Π_{k<i} x_k · s_i with s_i = dy_i + x_{i+1} s_{i+1}. Zeros are like any others.
        dys, xs = xp_of(dy).moveaxis(dy, axis, 0), xp_of(dy).moveaxis(bind(x), axis, 0)
        before, sums = [xp_of(dy).ones_like(xs[:1][0])], [dys[-1]]
        for i in range(len(xs) - 1):
            before.append(before[-1] * xs[i])
            sums.append(dys[-2 - i] + xs[-1 - i] * sums[-1])
        dx = [a * b for a, b in zip(before, reversed(sums), strict=True)]
        return xp_of(dy).stack(dx, axis), None

    if x.size:
        vjp.on_tape = on_tape  # type: ignore[attr-defined]
    return cumulative_product(x, axis), vjp


@method
@numpy_names
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Product over ``dim``, of integers as int64; the gradient is right at zeros too.

    >>> import kobai
    >>> kobai.prod(kobai.tensor([[1, 2], [3, 4]]), dim=1)
    tensor([ 2, 12])
    """
    input = cast(input, _accumulated(input, dtype))
    return _as_accumulated(_prod(input, axes_of("prod", dim, input._array.ndim), keepdim), input, dtype)


def _accumulated(input: Tensor, dtype: Any) -> Any:
    """The dtype of products and running sums: ``dtype`` if given, else the tensor's, of integers int64."""
    if dtype is not None:
        return dtype
    return input._array.dtype if input._array.dtype.kind in FLOATING else np.int64


def _as_accumulated(y: Tensor, input: Tensor, dtype: Any) -> Tensor:
    """NumPy widens small integers by itself, as autocast does floats of 16 bits. A result cast back is the same."""
    return y if dtype is None and y._array.dtype.kind in FLOATING else cast(y, input._array.dtype)


def _along(running: Any, input: Tensor, axis: int) -> Tensor:
    """A running sum or product; a tensor without dimensions is a vector of one element."""
    return running(input, axis) if input._array.ndim else running(input.reshape(1), axis).reshape(())  # type: ignore[no-any-return]


@method(in_place=True)
@numpy_names
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running sum along ``dim``.

    >>> import kobai
    >>> kobai.tensor([1, 2, 3]).cumsum(0)
    tensor([1, 3, 6])
    """
    input = cast(input, _accumulated(input, dtype))
    axis = normalize_axis("cumsum", dim, input._array.ndim)
    return _as_accumulated(_along(_cumsum, input, axis), input, dtype)


@method(in_place=True)
@numpy_names
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running product along ``dim``.

    >>> import kobai
    >>> kobai.cumprod(kobai.tensor([[1, 2], [3, 4]]), dim=1)
    tensor([[ 1,  2],
            [ 3, 12]])
    """
    input = cast(input, _accumulated(input, dtype))
    axis = normalize_axis("cumprod", dim, input._array.ndim)
    return _as_accumulated(_along(_cumprod, input, axis), input, dtype)
