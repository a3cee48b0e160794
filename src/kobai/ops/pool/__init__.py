"""Pooling: the maximum or the mean of every window, one dimension after the other (:mod:`kobai.ops._windows`)."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.ops._args import Samples, need_flags, need_tensor
from kobai.ops._windows import (
    Sizes,
    Windows,
    along,
    counts,
    first_maxima,
    least_of,
    n_windows,
    pad,
    reduced,
    to_the_first_maximum,
    widened,
)
from kobai.ops.conv import LAYOUT, Ints, per_dimension
from kobai.ops.pool import max_pool
from kobai.xp import Array, device_of, xp_of

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]


def _windows(size: Any, kernel: Any, stride: Any = None, padding: Any = None, dilation: Any = None) -> Windows:
    """Windows of full size only, with the same padding on both sides; for samples and non-overlapping windows."""
    n = len(size)
    stride = stride or kernel
    dilation = dilation or (1,) * n
    pads = tuple((p, p) for p in padding or (0,) * n)
    out = tuple(
        n_windows(m, k, s, a + b, d) for m, k, s, (a, b), d in zip(size, kernel, stride, pads, dilation, strict=True)
    )
    return Windows(tuple(kernel), tuple(stride), tuple(dilation), pads, tuple(size), out)


# --- maximum ----------------------------------------------------------------------------------------------------------


def _distinct(*shape: int) -> Any:
    """Values without ties, farther apart than the step of a difference quotient."""
    return lambda rng: rng.permutation(int(np.prod(shape))).reshape(shape) * 0.1 - 1.0


_MAX_SAMPLES: Samples = [
    lambda rng: (_distinct(2, 3, 4, 6)(rng), {"w": _windows((4, 6), (2, 2))}),
    lambda rng: (_distinct(2, 3, 5, 7)(rng), {"w": _windows((5, 7), (3, 2), (2, 1), (1, 1))}),
    lambda rng: (_distinct(2, 7)(rng), {"w": _windows((7,), (3,), (1,), None, (2,))}),
    lambda rng: (_distinct(3, 4, 4)(rng), {"w": _windows((4, 4), (4, 4))}),
    lambda rng: (_distinct(2, 3, 4, 4, 3)(rng), {"w": _windows((4, 4, 3), (2, 2, 1))}),
    lambda rng: (_distinct(0, 3, 4, 4)(rng), {"w": _windows((4, 4), (2, 2))}),
]


@primitive(sample=_MAX_SAMPLES)
def _max_pool(x: Array, *, w: Windows) -> Any:
    """The gradient goes to the first of several equal maxima, row by row."""
    if max_pool.has_twin(x, w):
        y, taken = max_pool.forward(x, w)
        return y, lambda dy: (lambda: max_pool.backward(dy, taken, w),)
    n = len(w.size)
    least = least_of(x.dtype)
    y = pad(x, w, least)
    for axis in range(n):
        y = reduced(y, w, axis, "max")

    def vjp(dy: Array) -> tuple[Any]:
        # Last dimension first: the first maximal row of a window is then chosen before the first element in that row.
        # The maxima themselves are found again too, so that the result may change in place (as by ReLU(inplace=True)).
        levels = [pad(x, w, least)]
        for axis in range(n - 1, 0, -1):
            levels.append(reduced(levels[-1], w, axis, "max"))
        top, d = reduced(levels[-1], w, 0, "max"), dy
        for axis in range(n):
            below = levels[n - 1 - axis]
            d = to_the_first_maximum(d, below, top, w, axis)
            top = below
        return (d[(..., *w.inside)],)

    return y, vjp


# --- mean -------------------------------------------------------------------------------------------------------------


_MEAN_SAMPLES: Samples = [
    lambda rng: (rng.normal(size=(2, 3, 4, 6)), {"w": _windows((4, 6), (2, 2)), "divisor": 4}),
    lambda rng: (rng.normal(size=(2, 3, 4, 6)), {"w": _windows((4, 6), (4, 6)), "divisor": 24}),
    lambda rng: (
        rng.normal(size=(2, 3, 5, 7)),
        {"w": _windows((5, 7), (3, 2), (2, 1), (1, 1)), "divisor": _windows((5, 7), (1, 1))},
    ),
    lambda rng: (rng.normal(size=(2, 7)), {"w": _windows((7,), (3,), (1,)), "divisor": 3}),
    lambda rng: (rng.normal(size=(0, 3, 4, 4)), {"w": _windows((4, 4), (2, 2)), "divisor": 4}),
]


@primitive(sample=_MEAN_SAMPLES, again=True)
def _avg_pool(x: Array, *, w: Windows, divisor: Any) -> Any:
    """``divisor`` is a number, or Windows whose padded input holds the elements that count."""
    y = pad(x, w)
    for axis in range(len(w.size)):
        y = reduced(y, w, axis, "sum")
    if isinstance(divisor, Windows):
        divisor = counts(w, divisor, x.dtype, str(device_of(x)))
    if y.dtype.kind == "i":
        sign = xp_of(x).sign
        return abs(y) // abs(divisor) * sign(y) * sign(divisor), None  # towards zero
    y /= divisor

    def vjp(dy: Array) -> tuple[Any]:
        d = dy / divisor
        for axis in range(len(w.size) - 1, -1, -1):
            wide = widened(d, w, axis)
            if w.stride[axis] >= w.kernel[axis]:
                for where in along(w, axis):
                    wide[where] = d
            else:
                for where in along(w, axis):
                    wide[where] += d
            d = wide
        return (d[(..., *w.inside)],)

    return y, vjp


# --- public functions -------------------------------------------------------------------------------------------------


def max_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """As :func:`max_pool2d` in one dimension: (N, C, L) or (C, L).

    >>> import kobai
    >>> kobai.nn.functional.max_pool1d(kobai.tensor([[1.0, 3.0, 2.0, 0.0]]), 2)
    tensor([[3., 2.]])
    """
    return _checked_max(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Largest element of every window: (N, C, H, W) or (C, H, W) → (N, C, H', W').

    Args:
        kernel_size: of a window; a number or one for each dimension, as all that follow.
        stride: step between windows; ``kernel_size`` by default.
        padding: of −∞ on both sides, at most half a window.
        dilation: step between the elements of a window.
        ceil_mode: also take windows that go over the edge, if they begin within the input or its left padding.
        return_indices: return (maxima, positions), positions counted in the flattened H·W.

    The gradient goes to the first of equal maxima, row by row. H' = ⌊(H + 2 padding − dilation (k − 1) − 1) / stride⌋ + 1.

    >>> import kobai
    >>> kobai.nn.functional.max_pool2d(kobai.arange(16.0).reshape(1, 4, 4), 2)
    tensor([[[ 5.,  7.],
             [13., 15.]]])
    """
    return _checked_max(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@one_operation
def max_pool3d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """As :func:`max_pool2d` in three dimensions: (N, C, D, H, W) or (C, D, H, W).

    >>> import kobai
    >>> kobai.nn.functional.max_pool3d(kobai.arange(8.0).reshape(1, 2, 2, 2), 2).flatten()
    tensor([7.])
    """
    return _checked_max(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """As :func:`avg_pool2d` in one dimension: (N, C, L) or (C, L).

    >>> import kobai
    >>> kobai.nn.functional.avg_pool1d(kobai.tensor([[1.0, 3.0, 2.0, 0.0]]), 2)
    tensor([[2., 1.]])
    """
    return checked_mean(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean of every window: (N, C, H, W) or (C, H, W) → (N, C, H', W').

    Windows as in :func:`max_pool2d`, padded with zeros; these count as elements unless ``count_include_pad=False``.
    ``divisor_override`` divides the sums by another number. Means of int64 are rounded towards zero.

    >>> import kobai
    >>> kobai.nn.functional.avg_pool2d(kobai.arange(16.0).reshape(1, 4, 4), 2)
    tensor([[[ 2.5000,  4.5000],
             [10.5000, 12.5000]]])
    """
    return checked_mean(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@one_operation
def avg_pool3d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """As :func:`avg_pool2d` in three dimensions: (N, C, D, H, W) or (C, D, H, W).

    >>> import kobai
    >>> kobai.nn.functional.avg_pool3d(kobai.arange(8.0).reshape(1, 2, 2, 2), 2).flatten()
    tensor([3.5000])
    """
    return checked_mean(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


# --- arguments --------------------------------------------------------------------------------------------------------


def check_input(who: str, n: int, input: Any) -> tuple[int, ...]:
    """The spatial sizes of a batch of images, or of one."""
    need_tensor(who, input)
    shape = tuple(input.shape)
    if len(shape) not in (n + 1, n + 2):
        raise RuntimeError(f"{who}: expected input (N, C, {LAYOUT[n]}) or (C, {LAYOUT[n]}), got {shape}")
    if 0 in shape[-n - 1 :]:
        raise RuntimeError(f"{who}: expected at least one channel and one element each way, got {shape}")
    return shape[-n:]


def _checked_windows(
    who: str, n: int, input: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Windows:
    size = check_input(who, n, input)
    need_flags(who, ceil_mode=ceil_mode)
    kernel = per_dimension(who, "kernel_size", kernel, n, 1)
    stride = kernel if stride is None or stride == () else per_dimension(who, "stride", stride, n, 1)
    padding = per_dimension(who, "padding", padding, n)
    dilation = per_dimension(who, "dilation", dilation, n, 1)
    return _fitted(who, size, kernel, stride, padding, dilation, bool(ceil_mode))


@lru_cache(maxsize=1024)
def _fitted(
    who: str, size: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool
) -> Windows:
    pads, out = [], []
    for m, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        reach = d * (k - 1) + 1
        if p > reach // 2:
            raise RuntimeError(f"{who}: expected padding of at most half a window of {reach}, got {p}")
        count = n_windows(m, k, s, 2 * p, d)
        if ceil_mode:
            count = n_windows(m, k, s, 2 * p + s - 1, d)
            count -= (count - 1) * s >= m + p  # that window would begin in the right padding
        if count < 1:
            raise RuntimeError(f"{who}: a window of {reach} does not fit into the padded input of size {m + 2 * p}")
        pads.append((p, max(p, (count - 1) * s + reach - m - p)))
        out.append(count)
    return Windows(kernel, stride, dilation, tuple(pads), size, tuple(out))


def _checked_max(
    n: int, input: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, indices: bool
) -> Any:
    w = _checked_windows(f"max_pool{n}d", n, input, kernel, stride, padding, dilation, ceil_mode)
    y = _max_pool(input, w=w)
    return (y, Tensor._wrap(first_maxima(input._array, y._array, w))) if indices else y


def checked_mean(
    n: int,
    input: Tensor,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
    who: str = "",
) -> Tensor:
    who = who or f"avg_pool{n}d"
    w = _checked_windows(who, n, input, kernel, stride, padding, 1, ceil_mode)
    if not input.is_floating_point() and input.dtype != np.int64:
        raise RuntimeError(f"{who}: expected a float tensor, or one of kobai.int64, got {input.dtype}")
    need_flags(who, count_include_pad=count_include_pad)
    if divisor is not None:
        if isinstance(divisor, bool) or not hasattr(divisor, "__index__"):
            raise TypeError(f"{who}: expected divisor_override to be an integer, got {divisor!r}")
        if divisor == 0:
            raise RuntimeError(f"{who}: expected divisor_override other than 0")
        return _avg_pool(input, w=w, divisor=divisor)
    if w.padded == w.size or (count_include_pad and all(a == b for a, b in w.pads)):
        return _avg_pool(input, w=w, divisor=prod(w.kernel))
    # What ceil_mode adds on the right never counts; the padding asked for only with count_include_pad.
    counted = tuple((a, a) if count_include_pad else (0, 0) for a, _ in w.pads)
    return _avg_pool(input, w=w, divisor=w._replace(pads=counted))
