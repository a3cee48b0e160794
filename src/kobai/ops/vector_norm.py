"""Norms of vectors: of a tensor over some of its dimensions, and of a difference."""

from __future__ import annotations

import math
from typing import Any

from kobai.core.autocast import one_operation
from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING
from kobai.ops._args import as_asked, cast, drawn, need_tensor, normalize_axes, numpy_names
from kobai.ops._sums import total
from kobai.ops.arithmetic import sub
from kobai.ops.extreme import among_ties
from kobai.ops.reduce import Axes, axes_of, spread
from kobai.ops.shape import movedim
from kobai.ops.singular import singular_values
from kobai.xp import Array, quiet, xp_of

__all__ = ["dist", "norm"]


@primitive(
    sample=[
        drawn((4, 3), 2.0, None, False),
        drawn((2, 4, 3), 2.0, (1,), True),
        drawn((2, 4, 3), 1.0, (0, 2), False),
        drawn((4, 3), 3.0, (0,), False),
        drawn((4, 3), math.inf, (1,), False),
        drawn((4, 3), -math.inf, None, False),
        drawn((4, 3), 0.0, (1,), False),
        drawn((0, 3), 2.0, (1,), False),
    ]
)
@quiet
def _norm(x: Array, p: float, axes: Axes | None, keepdim: bool) -> Any:
    y = p_norm(x, p, axes, keepdim)
    return y, lambda dy: (lambda: p_norm_slope(dy, y, x, p, axes, keepdim), None, None, None)


def p_norm(x: Array, p: float, axes: Axes | None, keepdim: bool) -> Array:
    """(Σ|x|ᵖ)^(1/p) over ``axes``; p may be 0, below 0 and infinite."""
    xp = xp_of(x)
    if p == 2:
        return xp.sqrt(total(x * x, axes, keepdim))
    if p == 0:
        return (x != 0).sum(axis=axes, keepdims=keepdim).astype(x.dtype)
    if p == 1:
        return total(abs(x), axes, keepdim)
    if math.isinf(p):
        return (abs(x).max if p > 0 else abs(x).min)(axis=axes, keepdims=keepdim)
    return xp.power(total(xp.power(abs(x), p), axes, keepdim), 1 / p)


def p_norm_slope(dy: Array, y: Array, x: Array, p: float, axes: Axes | None, keepdim: bool) -> Array:
    """dx where ``dy`` is the gradient of the norm y: d‖x‖/dx = sign(x) |x|ᵖ⁻¹ / ‖x‖ᵖ⁻¹; at ‖x‖ = 0 the subgradient 0.

    There, and for p < 2 where an element is 0, further derivatives are 0 too.
    """
    xp = xp_of(x)
    if p == 0:
        return xp.zeros_like(x)
    if math.isinf(p):
        return xp.sign(x) * among_ties(dy, y, abs(x), axes, keepdim)
    g = spread(dy, x.shape, axes, keepdim)
    if p == 1:
        return xp.sign(x) * g
    norm = spread(y, x.shape, axes, keepdim)
    ratio = x / xp.where(norm == 0, xp.full_like(norm, math.inf), norm)
    if p == 2:
        return g * ratio
    share = abs(ratio)
    if p < 2:  # at 0 then |x|ᵖ⁻¹ is infinite, or its derivative
        flat = (x == 0) | (norm == 0)
        return g * xp.sign(x) * xp.where(flat, 0, xp.power(xp.where(flat, 1, share), p - 1))
    return g * xp.sign(x) * xp.power(share, p - 1)


@method
@numpy_names
def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """‖x‖ₚ = (Σ|x|ᵖ)^(1/p) over ``dim``, of vectors; ``"fro"`` is 2, ±∞ the largest or smallest size, 0 counts.

    ``"nuc"`` is the sum of the singular values of the matrices in the two dimensions ``dim``; RuntimeError for others.

    >>> import kobai
    >>> kobai.tensor([3., 4.]).norm()
    tensor(5.)
    """
    need_tensor("norm", input)
    if dtype is not None:
        input = cast(input, dtype)
    if input._array.dtype.kind not in FLOATING:
        raise RuntimeError(f"norm: expected floats, got {input.dtype}; use .float() first")
    if p is None or p == "fro":
        p = 2
    if p == "nuc":
        return as_asked(_nuclear(input, dim, keepdim), dtype)
    if isinstance(p, bool) or not isinstance(p, (int, float)):
        raise ValueError(f"norm: expected a number, 'fro' or 'nuc' as p, got {p!r}")
    return as_asked(_norm(input, float(p), axes_of("norm", dim, input._array.ndim), keepdim), dtype)


def _nuclear(input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    axes = normalize_axes("norm", dim, input._array.ndim)
    if len(axes) != 2:
        raise RuntimeError(f"norm: expected two dimensions for 'nuc', got dim {dim} of shape {tuple(input.shape)}")
    y = singular_values(movedim(input, axes, (-2, -1))).sum(-1)
    return y.reshape([1 if d in axes else n for d, n in enumerate(input.shape)]) if keepdim else y  # type: ignore[no-any-return]


@method
@one_operation
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """‖input − other‖ₚ over all elements.

    >>> import kobai
    >>> kobai.dist(kobai.tensor([0., 0.]), kobai.tensor([3., 4.]))
    tensor(5.)
    """
    return norm(sub(input, other), p)
