"""Covariance and correlation, quantiles, differences."""

from __future__ import annotations

import math
from typing import Any

from kobai._primitive import method
from kobai._tensor import Tensor
from kobai.ops._args import normalize_axis
from kobai.ops.create import as_tensor
from kobai.ops.gather import index_select
from kobai.ops.joining import stack
from kobai.ops.sort import sort

__all__ = ["corrcoef", "cov", "diff", "quantile"]


@method
def cov(input: Tensor, *, correction: int = 1) -> Tensor:
    """Covariance matrix of variables (rows) over observations (columns): Σ (x − x̄)(y − ȳ) / (n − correction).

    >>> import kobai
    >>> kobai.cov(kobai.tensor([[0., 1., 2.], [2., 1., 0.]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    if input.ndim > 2:
        raise RuntimeError(f"cov: expected (variables, observations) or one variable, got {tuple(input.shape)}")
    rows = input if input.ndim == 2 else input.reshape(1, -1)
    centred = rows - rows.mean(1, keepdim=True)
    matrix: Tensor = centred @ centred.t() / (rows.shape[1] - correction)
    return matrix if input.ndim == 2 else matrix.reshape(())


@method
def corrcoef(input: Tensor) -> Tensor:
    """Pearson correlation coefficients: the covariance matrix scaled to a diagonal of ones.

    >>> import kobai
    >>> kobai.corrcoef(kobai.tensor([[0., 1., 2.], [20., 10., 0.]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    matrix = cov(input)
    if matrix.ndim == 0:
        return matrix / matrix
    deviation = matrix.diagonal().sqrt()
    return matrix / deviation.unsqueeze(1) / deviation.unsqueeze(0)  # type: ignore[no-any-return]


@method
def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The ``q``-th quantile (0 … 1; a number, or a vector of them, which becomes the first axis), interpolated linearly.

    >>> import kobai
    >>> kobai.quantile(kobai.tensor([0.0, 1.0, 2.0, 3.0]), 0.5)
    tensor(1.5000)
    """
    levels = as_tensor(q, dtype=input.dtype).detach()
    values = [float(v) for v in levels.reshape(-1).tolist()]
    if any(not 0 <= v <= 1 for v in values):
        raise RuntimeError(f"quantile: expected q in [0, 1], got {values}")
    source, axis = (input.reshape(-1), 0) if dim is None else (input, normalize_axis("quantile", dim, input.ndim))
    ordered = sort(source, axis).values
    parts: list[Tensor] = []
    for v in values:
        position = v * (ordered.shape[axis] - 1)
        low, high = math.floor(position), math.ceil(position)
        a, b = (index_select(ordered, axis, as_tensor([i], device=input.device)) for i in (low, high))
        part = a + (b - a) * (position - low)
        if not keepdim:
            part = part.squeeze(axis)
        elif dim is None:
            part = part.reshape([1] * input.ndim)
        parts.append(part)
    if levels.ndim == 0:
        return parts[0]
    return stack(parts)


@method
def diff(input: Tensor, n: int = 1, dim: int = -1) -> Tensor:
    """x[i + 1] − x[i] along ``dim``, ``n`` times.

    >>> import kobai
    >>> kobai.diff(kobai.tensor([1, 4, 9, 16])), kobai.diff(kobai.tensor([1, 4, 9, 16]), n=2)
    (tensor([3, 5, 7]), tensor([2, 2]))
    """
    axis = normalize_axis("diff", dim, input.ndim)
    for _ in range(n):
        size = input.shape[axis]
        input = input.narrow(axis, 1, size - 1) - input.narrow(axis, 0, size - 1)
    return input
