"""Sums and what else makes one number of many; norms of vectors; products written by letters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.onnx.forms._table import form
from kobai.onnx.sizes import Size, Unknown


def reduced(g: Any, op: str, x: Any, axes: Any, keepdim: bool) -> Any:
    """A node that reduces over ``axes`` (None: all)."""
    if isinstance(axes, int):
        axes = (axes,)
    return g.node(
        op, x, None if axes is None else g.ints(axes), keepdims=int(keepdim), noop_with_empty_axes=int(axes == ())
    )


@form("ops.reduce._sum")
def _sum(g: Any, x: Any, axes: Any, keepdim: bool) -> Any:
    return reduced(g, "ReduceSum", g.cast(x, g.out.dtype), axes, keepdim)


@form("ops.reduce._mean")
def _mean(g: Any, x: Any, axes: Any, keepdim: bool) -> Any:
    return reduced(g, "ReduceMean", g.cast(x, g.out.dtype), axes, keepdim)


@form("ops.reduce._prod")
def _prod(g: Any, x: Any, axes: Any, keepdim: bool) -> Any:
    return reduced(g, "ReduceProd", g.cast(x, g.out.dtype), axes, keepdim)


@form("ops.extreme._amax")
def _amax(g: Any, x: Any, axes: Any, keepdim: bool) -> Any:
    return reduced(g, "ReduceMax", x, axes, keepdim)


@form("ops.extreme._amin")
def _amin(g: Any, x: Any, axes: Any, keepdim: bool) -> Any:
    return reduced(g, "ReduceMin", x, axes, keepdim)


@form("ops.extreme._attained")
def _attained(g: Any, x: Any, index: Any, axis: int, keepdim: bool, extreme: str) -> Any:
    return reduced(g, "ReduceMax" if "max" in extreme else "ReduceMin", x, axis, keepdim)


@form("numpy.argmax", "numpy.argmin")
def _arg(g: Any, x: Any, axis: int | None = None, keepdims: bool = False, **options: Any) -> Any:
    op = "ArgMax" if g.call.key.endswith("argmax") else "ArgMin"
    if axis is None:
        if keepdims:
            raise g.refuse("the place in a tensor as one row, with its dimensions kept,")
        return g.node(op, g.reshape(x, [-1]), axis=0, keepdims=0)
    return g.node(op, x, axis=axis, keepdims=int(keepdims))


@form("numpy.all", "numpy.any")
def _all(g: Any, x: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
    op = "ReduceMin" if g.call.key == "numpy.all" else "ReduceMax"
    number = g.node("Cast", g.cast(x, np.bool_), to=g.onnx.TensorProto.INT32)
    return g.to(reduced(g, op, number, axis, keepdims), np.int32, np.bool_)


@form("ops.extreme._logsumexp")
def _logsumexp(g: Any, x: Any, axes: Any, keepdim: bool) -> Any:
    return reduced(g, "ReduceLogSumExp", x, axes, keepdim)


def variance(g: Any, x: Any, axes: Any, correction: float, keepdim: bool) -> Any:
    """Σ (x − mean)² / (n − correction)."""
    apart = g.node("Sub", x, reduced(g, "ReduceMean", x, axes, True))
    mean = reduced(g, "ReduceMean", g.node("Mul", apart, apart), axes, keepdim)
    if not correction:
        return mean
    sizes = x.shape if axes is None else [x.shape[a] for a in axes]
    n = math.prod(g.need(size) for size in sizes)
    return g.node("Mul", mean, n / (n - correction), dtype=g.out.dtype)


@form("ops.reduce._var")
def _var(g: Any, x: Any, axes: Any, correction: float, keepdim: bool) -> Any:
    return variance(g, x, axes, correction, keepdim)


@form("ops.reduce._std")
def _std(g: Any, x: Any, axes: Any, correction: float, keepdim: bool) -> Any:
    return g.node("Sqrt", variance(g, x, axes, correction, keepdim))


@form("ops.reduce._cumsum")
def _cumsum(g: Any, x: Any, axis: int) -> Any:
    return g.node("CumSum", g.cast(x, g.out.dtype), g.ref(axis, np.int64))


def norm(g: Any, x: Any, p: float, axes: Any, keepdim: bool) -> Any:
    """(Σ|x|ᵖ)^(1/p)."""
    if p == 2:
        return reduced(g, "ReduceL2", x, axes, keepdim)
    if p == 1:
        return reduced(g, "ReduceL1", x, axes, keepdim)
    size = g.node("Abs", x)
    if math.isinf(p):
        return reduced(g, "ReduceMax" if p > 0 else "ReduceMin", size, axes, keepdim)
    if p == 0:
        there = g.to(g.node("Cast", x, to=g.onnx.TensorProto.BOOL), np.bool_, g.out.dtype)
        return reduced(g, "ReduceSum", there, axes, keepdim)
    power = reduced(g, "ReduceSum", g.node("Pow", size, p, dtype=g.out.dtype), axes, keepdim)
    return g.node("Pow", power, 1 / p, dtype=g.out.dtype)


@form("ops.vector_norm._norm")
def _norm(g: Any, x: Any, p: float, axes: Any, keepdim: bool) -> Any:
    return norm(g, x, p, axes, keepdim)


@form("ops.norm._normalize")
def _normalize(g: Any, x: Any, p: float, axes: Any, *, eps: float = 1e-12) -> Any:
    return g.node("Div", x, g.node("Max", norm(g, x, p, axes, True), eps, dtype=g.out.dtype))


@form("ops.einsum._einsum")
def _einsum(g: Any, *operands: Any, inputs: tuple[str, ...], output: str) -> Any:
    return g.node("Einsum", *operands, equation=f"{','.join(inputs)}->{output}")


def known(*sizes: Any) -> bool:
    """Whether all of these sizes are numbers."""
    return not any(isinstance(n, (Size, Unknown)) for n in sizes)
