"""Covariance and correlation, quantiles, differences."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.primitive import method
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, get_default_dtype
from kobai.ops._args import cast, existing_axis, need, need_tensor, normalize_axis, numpy_names
from kobai.ops.create import as_tensor
from kobai.ops.gather import index_select, where
from kobai.ops.joining import cat
from kobai.ops.shape import fresh
from kobai.ops.sort import sort

__all__ = ["corrcoef", "cov", "diff", "quantile"]


@method
def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """Covariance matrix of variables (rows) over observations (columns): Σ (x − x̄)(y − ȳ) / (n − correction).

    ``fweights``, integers, say how often each observation was made; ``aweights``, floats, how much it counts. With w their
    product and W = Σ w it is Σ w (x − x̄)(y − ȳ) / (W − correction · Σ w·aweights / W), the means weighted too. A divisor
    below 0 counts as 0, and warns. Errors: RuntimeError for more dimensions, booleans, weights of the wrong kind or length,
    negative ones, and a W of 0.

    >>> import kobai
    >>> kobai.cov(kobai.tensor([[0., 1., 2.], [2., 1., 0.]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    need_tensor("cov", input)
    need("cov", input.ndim <= 2, "(variables, observations) or one variable", tuple(input.shape))
    need("cov", input._array.dtype.kind != "b", "numbers", "booleans")
    rows = input if input.ndim == 2 else input.reshape(1, -1)
    rows = rows if rows.is_floating_point() else cast(rows, get_default_dtype())
    n = rows.shape[1]
    weights: Any = None
    for name, given, kinds in (("fweights", fweights, "iu"), ("aweights", aweights, FLOATING)):
        if given is None:
            continue
        need_tensor("cov", given)
        if given._array.dtype.kind not in kinds:
            wanted = "integers" if name == "fweights" else "floats"
            raise RuntimeError(f"cov: expected {name} as {wanted}, got {given.dtype}")
        if given.ndim > 1 or given.numel() != n:
            raise RuntimeError(f"cov: expected {name} for {n} observations, got shape {tuple(given.shape)}")
        if (given < 0).any():
            raise RuntimeError(f"cov: expected {name} >= 0, got {given.min().item()}")
        given = given.reshape(-1)
        weights = given if weights is None else weights * given
    if weights is None:
        centred = rows - rows.mean(1, keepdim=True)
        centred = centred - centred.mean(1, keepdim=True)  # what rounding the mean has left
        weighted, divisor = centred, n - correction
    else:
        total: Any = weights.sum()
        if total == 0:
            raise RuntimeError("cov: expected weights of which at least one is not 0")
        centred = rows - (rows * weights).sum(1, keepdim=True) / total
        centred = centred - (centred * weights).sum(1, keepdim=True) / total
        weighted = centred * weights
        scale = 1 if aweights is None else (weights * aweights.reshape(-1)).sum() / total
        divisor = total - correction * scale
    if divisor <= 0:
        warnings.warn(
            f"cov: expected correction < {n} observations, got {correction}; nothing can be said", stacklevel=3
        )
        divisor = 0
    matrix: Tensor = weighted @ cast(centred, weighted.dtype).t() / divisor
    return matrix.reshape(()) if rows.shape[0] == 1 else matrix


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


_RANKS: dict[str, tuple[Callable[[float], int], Callable[[float], int]]] = {
    "linear": (math.floor, math.ceil),
    "midpoint": (math.floor, math.ceil),
    "lower": (math.floor, math.floor),
    "higher": (math.ceil, math.ceil),
    "nearest": (round, round),
}
"""From the rank of a quantile to the elements of a sorted slice, counted from 0, between which it lies."""


@method
@numpy_names
@one_operation
def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The ``q``-th quantile (0 … 1; a number, or a vector of them, which becomes the first axis); NaN where there is a NaN.

    Between the elements a and b at ranks ⌊r⌋ and ⌈r⌉, r = q (n − 1), it is a + (r − ⌊r⌋)(b − a), or by ``interpolation``
    the lower, the higher, the nearest or the mean of them. The gradient reaches ``q`` too.

    >>> import kobai
    >>> kobai.quantile(kobai.tensor([0.0, 1.0, 2.0, 3.0]), 0.5)
    tensor(1.5000)
    """
    need_tensor("quantile", input)
    if not input.is_floating_point():
        raise RuntimeError(f"quantile: expected floats, got {input.dtype}; use .float() first")
    need("quantile", interpolation in _RANKS, f"interpolation {', '.join(_RANKS)}", repr(interpolation))
    levels = cast(q, input.dtype) if isinstance(q, Tensor) else as_tensor(q, dtype=input.dtype, device=input.device)
    need("quantile", levels.ndim <= 1, "q to be a number or a vector", f"shape {tuple(levels.shape)}")
    levels = levels.reshape(-1)
    if not ((levels >= 0) & (levels <= 1)).all():
        raise RuntimeError(f"quantile: expected q in [0, 1], got {levels.tolist()}")
    axis = 0 if dim is None else normalize_axis("quantile", dim, input.ndim)
    source = input.reshape(-1) if dim is None or not input.ndim else input
    n = source.shape[axis]
    need("quantile", source.numel(), "at least one element", f"shape {tuple(input.shape)}")
    ordered = sort(source, axis).values
    ranks = levels * (n - 1)
    between = ([whole(r) for r in ranks.tolist()] for whole in _RANKS[interpolation])
    a, b = (index_select(ordered, axis, as_tensor(i, dtype=np.int64, device=input.device)) for i in between)
    weight: Any = 0.5 if interpolation == "midpoint" else ranks - ranks.detach().floor()
    if isinstance(weight, Tensor):
        weight = weight.reshape([-1 if d == axis else 1 for d in range(a.ndim)])
    found = a if interpolation in ("lower", "higher", "nearest") else a + (b - a) * weight
    last = ordered.detach().narrow(axis, n - 1, 1)
    found = where(last.isnan(), math.nan, found).movedim(axis, 0)
    if keepdim and input.ndim:
        found = found.reshape(-1, *(1,) * input.ndim) if dim is None else found.unsqueeze(axis + 1)
    several = q.ndim > 0 if isinstance(q, Tensor) else isinstance(q, (list, tuple))
    return found if several else found.squeeze(0)  # type: ignore[no-any-return]


@method
def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """x[i + 1] − x[i] along ``dim``, ``n`` times, of ``prepend``, ``input`` and ``append`` one after another.

    >>> import kobai
    >>> kobai.diff(kobai.tensor([1, 4, 9, 16])), kobai.diff(kobai.tensor([1, 4, 9, 16]), n=2)
    (tensor([3, 5, 7]), tensor([2, 2]))
    """
    axis = existing_axis("diff", dim, input.ndim, RuntimeError)
    need("diff", n >= 0, "n >= 0", n)
    given = input
    around = [part for part in (prepend, input, append) if part is not None]
    for part in around:
        need_tensor("diff", part)
        others = [tuple(size for d, size in enumerate(t.shape) if d != axis) for t in (part, given)]
        if part.ndim != given.ndim or others[0] != others[1]:
            raise RuntimeError(
                f"diff: expected prepend and append of the shape {tuple(given.shape)}, but for dimension {axis}, "
                f"got {tuple(part.shape)}"
            )
    if n and len(around) > 1:
        input = cat(around, axis)
    for _ in range(min(n, input.shape[axis])):
        size = input.shape[axis]
        after, before = input.narrow(axis, 1, size - 1), input.narrow(axis, 0, size - 1)
        input = after ^ before if input._array.dtype.kind == "b" else after - before
    return fresh(input, given)
