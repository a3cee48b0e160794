"""Pooling that few programs use: power means, and putting maxima back where they were."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.tensor import Tensor
from kobai.ops._args import need_tensor
from kobai.ops.conv import Ints, per_dimension
from kobai.ops.create import full
from kobai.ops.pool import check_input, checked_mean
from kobai.ops.scatter import scattered

__all__ = [
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Tensor:
    """As :func:`lp_pool2d` in one dimension: (N, C, L) or (C, L).

    >>> import kobai
    >>> kobai.nn.functional.lp_pool1d(kobai.tensor([[3.0, 4.0, 0.0, 1.0]]), 2, 2)
    tensor([[5., 1.]])
    """
    return _power_mean(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Tensor:
    """(Σ xᵖ)^(1/p) of every window, p being ``norm_type``: (N, C, H, W) or (C, H, W) → (N, C, H', W').

    Windows as in :func:`max_pool2d`. One that goes over the edge counts as if its mean were that of a whole one.

    >>> import kobai
    >>> kobai.nn.functional.lp_pool2d(kobai.full((1, 2, 2), 3.0), 2, 2)
    tensor([[[6.]]])
    """
    return _power_mean(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
) -> Tensor:
    """As :func:`lp_pool2d` in three dimensions: (N, C, D, H, W) or (C, D, H, W).

    >>> import kobai
    >>> kobai.nn.functional.lp_pool3d(kobai.ones(1, 2, 2, 2), 3, 2).flatten()
    tensor([2.])
    """
    return _power_mean(3, input, norm_type, kernel_size, stride, ceil_mode)


@one_operation
def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Any = None,
) -> Tensor:
    """As :func:`max_unpool2d` in one dimension: (N, C, L) or (C, L).

    >>> import kobai
    >>> maxima, where = kobai.nn.functional.max_pool1d(kobai.tensor([[1., 3., 2., 0.]]), 2, return_indices=True)
    >>> kobai.nn.functional.max_unpool1d(maxima, where, 2)
    tensor([[0., 3., 2., 0.]])
    """
    return _unpooled(1, input, indices, kernel_size, stride, padding, output_size)


@one_operation
def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Any = None,
) -> Tensor:
    """Maxima put back where :func:`max_pool2d` found them, zeros elsewhere: (N, C, H', W') or (C, H', W') → (N, C, H, W).

    ``indices`` are those of ``return_indices=True``. H = (H' − 1) stride − 2 padding + k, or what ``output_size`` says,
    (H, W) or a whole shape: less than a stride away from it.

    >>> import kobai
    >>> maxima, where = kobai.nn.functional.max_pool2d(kobai.arange(4.0).reshape(1, 2, 2), 2, return_indices=True)
    >>> kobai.nn.functional.max_unpool2d(maxima, where, 2)
    tensor([[[0., 0.],
             [0., 3.]]])
    """
    return _unpooled(2, input, indices, kernel_size, stride, padding, output_size)


@one_operation
def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Any = None,
) -> Tensor:
    """As :func:`max_unpool2d` in three dimensions: (N, C, D, H, W) or (C, D, H, W).

    >>> import kobai
    >>> maxima, where = kobai.nn.functional.max_pool3d(kobai.arange(8.0).reshape(1, 2, 2, 2), 2, return_indices=True)
    >>> kobai.nn.functional.max_unpool3d(maxima, where, 2).flatten()
    tensor([0., 0., 0., 0., 0., 0., 0., 7.])
    """
    return _unpooled(3, input, indices, kernel_size, stride, padding, output_size)


def _power_mean(n: int, input: Tensor, p: float, kernel: Any, stride: Any, ceil_mode: bool) -> Tensor:
    who = f"lp_pool{n}d"
    sizes = per_dimension(who, "kernel_size", kernel, n, 1)
    sums = checked_mean(n, input**p, kernel, stride, 0, ceil_mode, True, None, who) * math.prod(sizes)
    return (sums.sign() * sums.abs()) ** (1 / p)  # type: ignore[no-any-return]


def _unpooled(
    n: int, input: Tensor, indices: Tensor, kernel: Any, stride: Any, padding: Any, output_size: Any
) -> Tensor:
    who = f"max_unpool{n}d"
    size = check_input(who, n, input)
    need_tensor(who, indices)
    kernel = per_dimension(who, "kernel_size", kernel, n, 1)
    stride = kernel if stride is None or stride == () else per_dimension(who, "stride", stride, n, 1)
    padding = per_dimension(who, "padding", padding, n)
    usual = tuple((m - 1) * s - 2 * p + k for m, k, s, p in zip(size, kernel, stride, padding, strict=True))
    wanted = usual if output_size is None else tuple(output_size)
    if len(wanted) == n + 2:
        wanted = wanted[2:]
    if len(wanted) != n:
        raise ValueError(f"{who}: expected output_size to have {n} or {n + 2} elements, got {output_size}")
    if any(abs(a - b) >= s for a, b, s in zip(wanted, usual, stride, strict=True)) and output_size is not None:
        raise ValueError(f"{who}: expected output_size less than {stride} away from {usual}, got {wanted}")
    if indices.dtype != np.int64:
        raise RuntimeError(f"{who}: expected indices of kobai.int64, got {indices.dtype}")
    if indices.shape != input.shape:
        raise RuntimeError(f"{who}: expected indices {tuple(input.shape)} as the input, got {tuple(indices.shape)}")
    outer = tuple(input.shape[:-n])
    flat = full((*outer, math.prod(wanted)), 0, dtype=input.dtype, device=input.device)
    filled = scattered(who, flat, -1, indices.reshape(*outer, -1), input.reshape(*outer, -1), False)
    return filled.reshape(*outer, *wanted)  # type: ignore[no-any-return]
