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
from kobai.errors import users_line
from kobai.ops._args import cast, existing_axis, need, need_tensor, normalize_axes, normalize_axis, numpy_names
from kobai.ops.create import as_tensor
from kobai.ops.gather import gather, index_select, where
from kobai.ops.joining import cat
from kobai.ops.rounding import ceil, floor, round as nearest
from kobai.ops.shape import fresh
from kobai.ops.sort import sort

__all__ = ["corrcoef", "cov", "diff", "gradient", "nanquantile", "quantile"]


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
            f"cov: expected correction < {n} observations, got {correction}; nothing can be said",
            stacklevel=users_line(),
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


_RANKS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "linear": (floor, ceil),
    "midpoint": (floor, ceil),
    "lower": (floor, floor),
    "higher": (ceil, ceil),
    "nearest": (nearest, nearest),
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
    return _quantile("quantile", input, q, dim, keepdim, interpolation, ignore_nan=False)


@method
@numpy_names
@one_operation
def nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The :func:`quantile` of what is not NaN; NaN if there is nothing else.

    >>> import kobai
    >>> kobai.nanquantile(kobai.tensor([0.0, float("nan"), 1.0]), 0.5)
    tensor(0.5000)
    """
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, ignore_nan=True)


def _quantile(
    who: str, input: Tensor, q: Any, dim: int | None, keepdim: bool, interpolation: str, ignore_nan: bool
) -> Tensor:
    need_tensor(who, input)
    if not input.is_floating_point():
        raise RuntimeError(f"{who}: expected floats, got {input.dtype}; use .float() first")
    need(who, interpolation in _RANKS, f"interpolation {', '.join(_RANKS)}", repr(interpolation))
    levels = cast(q, input.dtype) if isinstance(q, Tensor) else as_tensor(q, dtype=input.dtype, device=input.device)
    need(who, levels.ndim <= 1, "q to be a number or a vector", f"shape {tuple(levels.shape)}")
    levels = levels.reshape(-1)
    if not ((levels >= 0) & (levels <= 1)).all():
        raise RuntimeError(f"{who}: expected q in [0, 1], got {levels.tolist()}")
    axis = 0 if dim is None else normalize_axis(who, dim, input.ndim)
    source = input.reshape(-1) if dim is None or not input.ndim else input
    n = source.shape[axis]
    need(who, source.numel(), "at least one element", f"shape {tuple(input.shape)}")
    ordered = sort(source, axis).values
    down, up = _RANKS[interpolation]
    if ignore_nan:
        known: Any = cast((ordered == ordered).sum(axis, keepdim=True), input.dtype)
        ranks = levels.reshape([-1 if d == axis else 1 for d in range(source.ndim)]) * (known - 1).clamp(min=0)
        a, b = (gather(ordered, axis, cast(whole(ranks.detach()), np.int64)) for whole in (down, up))
    else:
        ranks = levels * (n - 1)
        between = ([int(r) for r in whole(ranks.detach()).tolist()] for whole in (down, up))
        a, b = (index_select(ordered, axis, as_tensor(i, dtype=np.int64, device=input.device)) for i in between)
        ranks = ranks.reshape([-1 if d == axis else 1 for d in range(a.ndim)])
    weight: Any = 0.5 if interpolation == "midpoint" else ranks - ranks.detach().floor()
    found = a if interpolation in ("lower", "higher", "nearest") else a + (b - a) * weight
    if not ignore_nan:
        last = ordered.detach().narrow(axis, n - 1, 1)
        found = where(last.isnan(), math.nan, found)
    found = found.movedim(axis, 0)
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


@method
def gradient(input: Tensor, *, spacing: Any = None, dim: Any = None, edge_order: int = 1) -> tuple[Tensor, ...]:
    """Estimates of ∂input/∂x along each of ``dim`` (default: all) from neighbouring elements.

    ``spacing`` is the distance of neighbours (default: 1), one number or one for each dimension, or the coordinates, a tuple
    of a vector for each. Inside, with h before and H after an element, it is the difference
    (h² y₊ − H² y₋ + (H² − h²) y) / (h H (h + H)), exact for parabolas; at the ends that of one interval, or with
    ``edge_order=2`` of the parabola through three elements.

    >>> import kobai
    >>> kobai.gradient(kobai.tensor([1., 2., 4., 7., 11., 16.]))
    (tensor([1.0000, 1.5000, 2.5000, 3.5000, 4.5000, 5.0000]),)
    """
    need_tensor("gradient", input)
    need("gradient", edge_order in (1, 2), "edge_order 1 or 2", edge_order)
    if dim is not None and not input.ndim:
        raise IndexError("gradient: expected a tensor with dimensions, got one without")
    axes = normalize_axes("gradient", dim, input.ndim)
    spacing = 1 if spacing is None else spacing
    distances = list(spacing) if isinstance(spacing, (tuple, list)) else [spacing] * len(axes)
    need("gradient", len(distances) == len(axes), f"one spacing or {len(axes)}", f"{len(distances)}")
    for axis in axes:
        size = input.shape[axis]
        need("gradient", size > edge_order, f"at least {edge_order + 1} elements in dimension {axis}", size)
    return tuple(_slopes(input, axis, distance, edge_order) for axis, distance in zip(axes, distances, strict=True))


def _slopes(y: Tensor, axis: int, spacing: Any, edge_order: int) -> Tensor:
    n, steps = y.shape[axis], spacing
    coordinates = isinstance(spacing, Tensor) and spacing.ndim > 0
    if coordinates:
        need("gradient", tuple(spacing.shape) == (n,), f"coordinates of shape {(n,)}", tuple(spacing.shape))
        steps = diff(spacing).reshape([-1 if d == axis else 1 for d in range(y.ndim)])

    def part(start: int, length: int) -> Any:
        """Distances of neighbours."""
        return steps.narrow(axis, start, length) if coordinates else steps

    rises = y.narrow(axis, 1, n - 1) - y.narrow(axis, 0, n - 1)
    slope = rises / part(0, n - 1)
    h, H = part(0, n - 2), part(1, n - 2)
    inner = (slope.narrow(axis, 0, n - 2) * H + slope.narrow(axis, 1, n - 2) * h) / (h + H)
    first, last = slope.narrow(axis, 0, 1), slope.narrow(axis, n - 2, 1)
    if edge_order == 2:
        a, b, c, d = part(0, 1), part(1, 1), part(n - 3, 1), part(n - 2, 1)
        first = first + a * (first - slope.narrow(axis, 1, 1)) / (a + b)
        last = last + d * (last - slope.narrow(axis, n - 3, 1)) / (c + d)
    return cat([first, inner, last], axis)
