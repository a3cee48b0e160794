"""Losses: models that return theirs can be exported too."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai.onnx.forms._table import form
from kobai.onnx.forms.elementwise import operands, softplus
from kobai.onnx.forms.layers import softmax


def over_all(g: Any, loss: Any, reduction: str, rows: Any = None) -> Any:
    """The mean or the sum of all elements, that divided by the number of ``rows``, or each of them."""
    if reduction == "none":
        return loss
    if reduction == "batchmean" and rows is not None:
        return g.node("Div", g.node("ReduceSum", loss, keepdims=0), rows, dtype=g.out.dtype)
    if reduction not in ("mean", "sum", "batchmean"):
        raise g.refuse(f"reduction={reduction!r}")
    return g.node("ReduceSum" if reduction == "sum" else "ReduceMean", loss, keepdims=0)


@form("ops.loss._sum_of")
def _sum_of(g: Any, loss: Any, *, reduction: str) -> Any:
    return over_all(g, g.node("Identity", loss), reduction)


def _difference(g: Any, x: Any, target: Any) -> Any:
    return g.node("Sub", *operands(g, x, target, dtype=g.out.dtype))


@form("ops.loss._mse_loss")
def _mse_loss(g: Any, x: Any, target: Any, *, reduction: str = "mean") -> Any:
    apart = _difference(g, x, target)
    return over_all(g, g.node("Mul", apart, apart), reduction)


@form("ops.loss._l1_loss")
def _l1_loss(g: Any, x: Any, target: Any, *, reduction: str = "mean") -> Any:
    return over_all(g, g.node("Abs", _difference(g, x, target)), reduction)


@form("ops.loss._huber_loss", "ops.loss._smooth_l1_loss")
def _huber_loss(g: Any, x: Any, target: Any, bound: float, *, reduction: str = "mean") -> Any:
    """d² / 2 within the bound, bound · (|d| − bound / 2) beyond; smooth L1 divides that by the bound."""
    dtype, size = g.out.dtype, g.node("Abs", _difference(g, x, target))
    smooth = g.call.key.endswith("smooth_l1_loss")
    if smooth and bound == 0:
        return over_all(g, size, reduction)
    square = g.node("Mul", g.node("Mul", size, size), 0.5, dtype=dtype)
    line = g.node("Mul", g.node("Sub", size, bound / 2, dtype=dtype), bound, dtype=dtype)
    y = g.node("Where", g.node("Less", size, bound, dtype=dtype), square, line)
    return over_all(g, g.node("Div", y, bound, dtype=dtype) if smooth else y, reduction)


@form("ops.loss._binary_cross_entropy")
def _binary_cross_entropy(g: Any, x: Any, target: Any, weight: Any, *, reduction: str = "mean") -> Any:
    """−t max(ln x, −100) − (1 − t) max(ln(1 − x), −100)"""
    dtype = g.out.dtype
    rest, others = g.node("Sub", 1, x, dtype=dtype), g.node("Sub", 1, target, dtype=dtype)
    true, false = (g.node("Max", g.node("Log", p), -100, dtype=dtype) for p in (x, rest))
    y = g.node("Neg", g.node("Add", g.node("Mul", target, true), g.node("Mul", others, false)))
    return over_all(g, y if weight is None else g.node("Mul", y, weight), reduction)


@form("ops.loss._binary_cross_entropy_with_logits")
def _with_logits(g: Any, x: Any, target: Any, weight: Any, positives: Any, *, reduction: str = "mean") -> Any:
    """(1 − t) x + (1 + (w − 1) t) ln(1 + e⁻ˣ), with the weight w of positives."""
    dtype = g.out.dtype
    cost = softplus(g, g.node("Neg", x), dtype)
    if positives is not None:
        more = g.node("Mul", g.node("Sub", positives, 1, dtype=dtype), target)
        cost = g.node("Mul", cost, g.node("Add", more, 1, dtype=dtype))
    y = g.node("Add", g.node("Mul", g.node("Sub", 1, target, dtype=dtype), x), cost)
    return over_all(g, y if weight is None else g.node("Mul", y, weight), reduction)


@form("ops.loss._kl_div")
def _kl_div(g: Any, x: Any, target: Any, log_target: bool, *, reduction: str = "mean") -> Any:
    """t (ln t − x), which is 0 at t = 0."""
    dtype, rows = g.out.dtype, x.shape[0] if x.shape else None
    if log_target:
        return over_all(g, g.node("Mul", g.node("Exp", target), g.node("Sub", target, x)), reduction, rows)
    none = g.node("Equal", target, 0, dtype=dtype)
    log = g.node("Log", g.node("Where", none, 1, target, dtype=dtype))
    return over_all(g, g.node("Mul", target, g.node("Sub", log, x)), reduction, rows)


@form("ops.cross_entropy._nll_loss")
def _nll_loss(g: Any, x: Any, targets: Any, weight: Any, *, ignore_index: int = -100, reduction: str = "mean") -> Any:
    return of_classes(g, g.ref(x), x.shape, targets, weight, ignore_index, reduction, 0.0)


@form("ops.cross_entropy._cross_entropy")
def _cross_entropy(
    g: Any,
    x: Any,
    targets: Any,
    weight: Any,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    logs = softmax(g, "LogSoftmax", x, min(1, len(x.shape) - 1))
    return of_classes(g, logs, x.shape, targets, weight, ignore_index, reduction, label_smoothing)


def of_classes(
    g: Any, logs: Any, shape: Any, targets: Any, weight: Any, ignored: int, reduction: str, smoothing: float
) -> Any:
    """−w ln p of the classes, over Σ w for the mean; with ``smoothing`` all classes have that share, divided among them."""
    dtype, axis = g.out.dtype, min(1, len(shape) - 1)
    classes, at = g.need(shape[axis]), g.ints([axis])
    index = g.cast(targets, np.int64)
    counts = g.node("Not", g.node("Equal", index, ignored, dtype=np.int64))
    safe = g.node("Where", counts, index, 0, dtype=np.int64)
    chosen = g.node("GatherElements", logs, g.node("Unsqueeze", safe, at), axis=axis)
    w = g.to(counts, np.bool_, dtype)
    if weight is not None:
        w = g.node("Mul", w, g.node("Gather", weight, safe, axis=0))
    loss = g.node("Neg", g.node("Mul", g.node("Squeeze", chosen, at), w))
    if smoothing:
        every = logs
        if weight is not None:
            every = g.node("Mul", logs, g.reshape(weight, [classes, *[1] * (len(shape) - axis - 1)]))
        others = g.node("Mul", g.node("ReduceSum", every, at, keepdims=0), g.to(counts, np.bool_, dtype))
        others = g.node("Mul", others, -smoothing / classes, dtype=dtype)
        loss = g.node("Add", g.node("Mul", loss, 1 - smoothing, dtype=dtype), others)
    if reduction != "mean":
        return over_all(g, loss, reduction)
    return g.node("Div", g.node("ReduceSum", loss, keepdims=0), g.node("ReduceSum", w, keepdims=0))


@form("ops.cross_entropy._soft_cross_entropy")
def _soft_cross_entropy(
    g: Any, x: Any, targets: Any, weight: Any, *, reduction: str = "mean", label_smoothing: float = 0.0
) -> Any:
    """−Σ w t ln p of every sample, over the number of samples for the mean."""
    axis, dtype = min(1, len(x.shape) - 1), g.out.dtype
    classes, t = g.need(x.shape[axis]), g.ref(targets)
    if label_smoothing:
        t = g.node("Add", g.node("Mul", t, 1 - label_smoothing, dtype=dtype), label_smoothing / classes, dtype=dtype)
    terms = g.node("Mul", t, softmax(g, "LogSoftmax", x, axis))
    if weight is not None:
        terms = g.node("Mul", terms, g.reshape(weight, [classes, *[1] * (len(x.shape) - axis - 1)]))
    return over_all(g, g.node("Neg", g.node("ReduceSum", terms, g.ints([axis]), keepdims=0)), reduction)
