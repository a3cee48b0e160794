"""Adaptive pooling: windows chosen so that the result has a given size, as equal as the sizes allow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.ops._args import need_flags
from kobai.ops._windows import first_maxima
from kobai.ops.conv import per_dimension
from kobai.ops.extreme import max as _max
from kobai.ops.gather import gathered, index_select
from kobai.ops.pool import _avg_pool, _max_pool, _windows, check_input
from kobai.ops.reduce import mean
from kobai.ops.resample import resample
from kobai.ops.shape import reshape
from kobai.xp import Array, asarray

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
]


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """As :func:`adaptive_avg_pool2d` in one dimension: (N, C, L) → (N, C, output_size).

    >>> import kobai
    >>> kobai.nn.functional.adaptive_avg_pool1d(kobai.tensor([[1., 3., 5., 7.]]), 2)
    tensor([[2., 6.]])
    """
    return _adaptive_mean(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means of windows chosen so that the result is of ``output_size``: (N, C, H, W) → (N, C, *output_size).

    Window i of n goes from ⌊i H / n⌋ to ⌈(i + 1) H / n⌉. ``output_size`` is a number or a pair; None keeps a dimension.

    >>> import kobai
    >>> kobai.nn.functional.adaptive_avg_pool2d(kobai.arange(16.0).reshape(1, 4, 4), 1)
    tensor([[[7.5000]]])
    """
    return _adaptive_mean(2, input, output_size)


@one_operation
def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """As :func:`adaptive_avg_pool2d` in three dimensions: (N, C, D, H, W) → (N, C, *output_size).

    >>> import kobai
    >>> kobai.nn.functional.adaptive_avg_pool3d(kobai.arange(8.0).reshape(1, 2, 2, 2), (2, 1, 1)).flatten()
    tensor([1.5000, 5.5000])
    """
    return _adaptive_mean(3, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of the windows of :func:`adaptive_avg_pool1d`; with ``return_indices`` (maxima, positions).

    >>> import kobai
    >>> kobai.nn.functional.adaptive_max_pool1d(kobai.tensor([[1., 3., 5., 7.]]), 2)
    tensor([[3., 7.]])
    """
    return _adaptive_max(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of the windows of :func:`adaptive_avg_pool2d`; with ``return_indices`` (maxima, positions in H·W).

    >>> import kobai
    >>> kobai.nn.functional.adaptive_max_pool2d(kobai.arange(9.0).reshape(1, 3, 3), 2)
    tensor([[[4., 5.],
             [7., 8.]]])
    """
    return _adaptive_max(2, input, output_size, return_indices)


@one_operation
def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of the windows of :func:`adaptive_avg_pool3d`; with ``return_indices`` (maxima, positions in D·H·W).

    >>> import kobai
    >>> kobai.nn.functional.adaptive_max_pool3d(kobai.arange(8.0).reshape(1, 2, 2, 2), (2, 1, 1)).flatten()
    tensor([3., 7.])
    """
    return _adaptive_max(3, input, output_size, return_indices)


def _output_sizes(who: str, n: int, size: tuple[int, ...], output_size: Any) -> tuple[int, ...]:
    wanted = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * n
    if output_size is None:
        raise TypeError(f"{who}: expected output_size to be an integer or {n} of them, got None")
    if len(wanted) != n:
        raise RuntimeError(f"{who}: expected {n} output sizes, got {output_size!r}")
    return per_dimension(who, "output_size", [s if o is None else o for o, s in zip(wanted, size, strict=True)], n)


def _sizes(who: str, n: int, input: Any) -> tuple[int, ...]:
    """The spatial sizes; ValueError for too few dimensions in two or three, as in PyTorch."""
    try:
        return check_input(who, n, input)
    except RuntimeError as error:
        raise (ValueError if 1 < n >= input.ndim else RuntimeError)(str(error)) from None


@one_operation
def _adaptive_mean(n: int, input: Tensor, output_size: Any) -> Tensor:
    who = f"adaptive_avg_pool{n}d"
    size = _sizes(who, n, input)
    out = _output_sizes(who, n, size, output_size)
    if set(out) == {1}:
        return mean(input, tuple(range(-n, 0)), keepdim=True)
    if all(o > 0 and m % o == 0 and m > 0 for m, o in zip(size, out, strict=True)):
        kernel = tuple(m // o for m, o in zip(size, out, strict=True))
        return _avg_pool(input, w=_windows(size, kernel), divisor=math.prod(kernel))
    return resample(input, out, "area")


def _adaptive_max(n: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    who = f"adaptive_max_pool{n}d"
    need_flags(who, return_indices=return_indices)
    size = _sizes(who, n, input)
    out = _output_sizes(who, n, size, output_size)
    if set(out) == {1} and 0 not in size:
        y, chosen = _max(reshape(input, (*input.shape[:-n], -1)), -1)
        kept = (*input.shape[:-n], *out)
        return (reshape(y, kept), reshape(chosen, kept)) if return_indices else reshape(y, kept)
    if all(o > 0 and m % o == 0 and m > 0 for m, o in zip(size, out, strict=True)):
        w = _windows(size, tuple(m // o for m, o in zip(size, out, strict=True)))
        y = _max_pool(input, w=w)
        return (y, Tensor._wrap(first_maxima(input._array, y._array, w))) if return_indices else y
    # Windows of unequal sizes: each is filled up with its last element, which is never the first maximum then.
    outer, inner, where = input.shape[:-n], [], np.zeros((), np.int64)
    for axis, (m, o) in enumerate(zip(size, out, strict=True)):
        begin, end = np.arange(o) * m // max(o, 1), -(np.arange(1, o + 1) * -m // max(o, 1))
        width = int((end - begin).max(initial=1))
        rows = np.minimum(begin[:, None] + np.arange(width), end[:, None] - 1)
        input = index_select(input, axis - n, _indices(rows.reshape(-1), input))
        inner += [o, width]
        where = where[..., None, None] * m + rows
    order = (*range(0, 2 * n, 2), *range(1, 2 * n, 2))
    windows = input.reshape(*outer, *inner).permute(*range(len(outer)), *(len(outer) + i for i in order))
    windows = windows.reshape(*outer, *out, math.prod(inner[1::2]))
    y, chosen = _max(windows, -1)
    if not return_indices:
        return y
    table = _indices(where.transpose(order).reshape(*out, -1), input).expand(windows.shape)
    return y, gathered(who, table, -1, chosen.unsqueeze(-1)).squeeze(-1)


def _indices(host: Array, like: Tensor) -> Tensor:
    return Tensor._wrap(asarray(host, device=like.device))  # type: ignore[no-any-return]
