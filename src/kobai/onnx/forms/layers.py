"""Products, convolutions, pooling, normalisation and softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai.onnx.forms._table import form
from kobai.onnx.forms.elementwise import activated
from kobai.onnx.forms.reductions import known
from kobai.onnx.forms.shapes import axes_of
from kobai.ops._windows import Windows, counts
from kobai.ops.resample import _weights


@form("ops.linear._linear")
def _linear(g: Any, x: Any, weight: Any, bias: Any, *, activation: str | None = None) -> Any:
    if len(x.shape) == 2:
        y = g.node("Gemm", x, weight, bias, transB=1)
    else:
        y = g.node("MatMul", x, g.node("Transpose", weight, perm=[1, 0]))
        y = y if bias is None else g.node("Add", y, bias)
    return activated(g, y, activation)


@form("ops.linear._matmul")
def _matmul(g: Any, a: Any, b: Any) -> Any:
    return g.node("MatMul", a, b)


def _batched(g: Any, x: Any, dims: int, build: Any) -> Any:
    """``build`` of ``x`` as (N, C, …), which may have come as (C, …)."""
    if len(x.shape) == dims:
        return build(g.ref(x))
    y = build(g.node("Unsqueeze", x, g.ints([0])))
    return g.node("Squeeze", y, g.ints([0]))


def _pads(pads: Any) -> list[int]:
    return [a for a, _ in pads] + [b for _, b in pads]


@form("ops.conv._conv")
def _conv(
    g: Any,
    x: Any,
    weight: Any,
    bias: Any,
    *,
    stride: Any,
    pads: Any,
    dilation: Any,
    groups: int,
    activation: Any = None,
) -> Any:
    def build(images: str) -> Any:
        return g.node(
            "Conv", images, weight, bias,
            strides=list(stride), pads=_pads(pads), dilations=list(dilation), group=groups, kernel_shape=list(weight.shape[2:]),
        )  # fmt: skip

    return activated(g, _batched(g, x, len(weight.shape), build), activation)


@form("ops.conv._conv_transpose")
def _conv_transpose(
    g: Any, x: Any, weight: Any, bias: Any, *, stride: Any, pads: Any, dilation: Any, groups: int, extra: Any = None
) -> Any:
    def build(images: str) -> Any:
        return g.node(
            "ConvTranspose", images, weight, bias, strides=list(stride), pads=_pads(pads), dilations=list(dilation),
            group=groups, kernel_shape=list(weight.shape[2:]), output_padding=list(extra) if extra else None,
        )  # fmt: skip

    return _batched(g, x, len(weight.shape), build)


# --- windows ----------------------------------------------------------------------------------------------------------


def _as_images(g: Any, x: Any, n: int, build: Any) -> Any:
    """``build`` of ``x`` (…, *size) as (N, C, *size)."""
    if len(x.shape) == n + 2:
        return build(g.ref(x))
    if len(x.shape) == n + 1:
        return _batched(g, x, n + 2, build)
    raise g.refuse(f"pooling of a tensor of {len(x.shape)} dimensions")


@form("ops.pool._max_pool")
def _max_pool(g: Any, x: Any, *, w: Windows) -> Any:
    options = {"kernel_shape": list(w.kernel), "strides": list(w.stride), "dilations": list(w.dilation)}
    return _as_images(g, x, len(w.kernel), lambda y: g.node("MaxPool", y, pads=_pads(w.pads), **options))


@form("ops.pool._avg_pool")
def _avg_pool(g: Any, x: Any, *, w: Windows, divisor: Any) -> Any:
    """The sum of every window, over a number or over how many elements of the input lie in it."""
    n = math.prod(w.kernel)
    if set(w.dilation) != {1}:
        raise g.refuse("a mean over windows with gaps")

    def build(y: str) -> Any:
        mean = g.node(
            "AveragePool",
            y,
            kernel_shape=list(w.kernel),
            strides=list(w.stride),
            pads=_pads(w.pads),
            count_include_pad=1,
        )
        if not isinstance(divisor, Windows):
            return mean if divisor == n else g.node("Mul", mean, n / divisor, dtype=g.out.dtype)
        for size in (*w.size, *divisor.size):
            g.need(size, "a mean over windows at the edge of an image whose size is dynamic")
        return g.node("Div", g.node("Mul", mean, n, dtype=g.out.dtype), counts(w, divisor, g.out.dtype, "cpu"))

    return _as_images(g, x, len(w.kernel), build)


@form("ops.resample._repeated")
def _repeated(g: Any, x: Any, *, factors: Any) -> Any:
    """Every element of the last dimensions repeated."""
    y, first = g.ref(x), len(x.shape) - len(factors)
    for i, factor in enumerate(factors):
        rows = np.repeat(np.arange(g.need(x.shape[first + i])), factor)
        y = g.node("Gather", y, rows, axis=first + i)
    return y


@form("ops.resample._resample")
def _resample(g: Any, x: Any, *, out: Any, kind: str, scale: Any) -> Any:
    """The matrices that resample one dimension after the other."""
    y, first = g.ref(x), len(x.shape) - len(out)
    for i, n in enumerate(out):
        axis, size = first + i, g.need(x.shape[first + i], "resampling of an image whose size is dynamic")
        weights = _weights(kind, size, g.need(n), scale[i] if scale else None).astype(g.out.dtype)
        last = [j for j in range(len(x.shape)) if j != axis] + [axis]
        y = g.node("MatMul", g.node("Transpose", y, perm=last), np.ascontiguousarray(weights.T))
        y = g.node("Transpose", y, perm=[last.index(j) for j in range(len(last))])
    return y


# --- normalisation ----------------------------------------------------------------------------------------------------


@form("ops.batch_norm._batch_norm_eval")
def _batch_norm_eval(
    g: Any, x: Any, mean: Any, var: Any, weight: Any, bias: Any, *, eps: float = 1e-5, activation: str | None = None
) -> Any:
    ones = np.ones(mean.shape, mean.dtype)
    scale, shift = ones if weight is None else weight, 0 * ones if bias is None else bias
    return activated(g, g.node("BatchNormalization", x, scale, shift, mean, var, epsilon=eps), activation)


@form("ops.batch_norm._batch_norm")
def _batch_norm(
    g: Any,
    x: Any,
    mean: Any,
    var: Any,
    weight: Any,
    bias: Any,
    *,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: Any = None,
) -> Any:
    if mean is not None:
        raise g.refuse("batch statistics, which a layer keeps in training,")
    axes = [a for a in range(len(x.shape)) if a != 1]
    return activated(g, _standardized(g, x, axes, eps, weight, bias, [-1] + [1] * (len(x.shape) - 2)), activation)


def _standardized(
    g: Any, x: Any, axes: Any, eps: float, weight: Any, bias: Any, shape: Any, centre: bool = True
) -> Any:
    """w (x − mean) / √(var + eps) + b, with w and b in this ``shape`` (None: as they are)."""
    apart = g.node("Sub", x, g.node("ReduceMean", x, g.ints(axes))) if centre else g.ref(x)
    var = g.node("ReduceMean", g.node("Mul", apart, apart), g.ints(axes))
    y = g.node("Div", apart, g.node("Sqrt", g.node("Add", var, eps, dtype=g.out.dtype)))
    for op, operand in (("Mul", weight), ("Add", bias)):
        if operand is not None:
            y = g.node(op, y, operand if shape is None else g.reshape(operand, shape))
    return y


@form("ops.norm._layer_norm")
def _layer_norm(
    g: Any, x: Any, weight: Any, bias: Any, *, dims: int = 0, eps: float = 1e-5, centre: bool = True
) -> Any:
    n = dims if weight is None else len(weight.shape)
    if centre and weight is not None:
        return g.node("LayerNormalization", x, weight, bias, axis=-n, epsilon=eps)
    return _standardized(g, x, list(range(-n, 0)), eps, weight, bias, None, centre)


@form("ops.norm._group_norm")
def _group_norm(g: Any, x: Any, weight: Any, bias: Any, groups: int, *, eps: float = 1e-5) -> Any:
    channels = x.shape[1]
    if not known(*x.shape[2:]):  # 0 keeps a size that is not known
        raise g.refuse("group normalisation of an image whose size is dynamic", sized=True)
    y = _standardized(g, g.reshape(x, [x.shape[0], groups, -1]), [2], eps, None, None, None)
    y = g.reshape(y, x.shape)
    for op, operand in (("Mul", weight), ("Add", bias)):
        if operand is not None:
            y = g.node(op, y, g.reshape(operand, [channels, *[1] * (len(x.shape) - 2)]))
    return y


def softmax(g: Any, op: str, x: Any, axis: int) -> Any:
    """A single number is a vector of one."""
    if x.shape:
        return g.node(op, x, axis=axis)
    return g.reshape(g.node(op, g.reshape(x, [1]), axis=0), [])


@form("ops.softmax._softmax")
def _softmax(g: Any, x: Any, axis: int) -> Any:
    return softmax(g, "Softmax", x, axis)


@form("ops.softmax._log_softmax")
def _log_softmax(g: Any, x: Any, axis: int) -> Any:
    return softmax(g, "LogSoftmax", x, axis)


@form("ops.softmax._glu")
def _glu(g: Any, x: Any, axis: int) -> Any:
    a, b = g.node("Split", x, axis=axes_of(axis, len(x.shape)), outputs=2, num_outputs=2)
    return g.node("Mul", a, g.node("Sigmoid", b))


# --- windows side by side: a convolution whose filters are single ones ------------------------------------------------


def _single(g: Any, channels: Any, w: Windows) -> dict[str, Any]:
    """Filters that take every element of a window, and how they lie on the image."""
    k = math.prod(w.kernel)
    filters = np.tile(np.eye(k, dtype=g.out.dtype).reshape(k, 1, *w.kernel), (g.need(channels), 1, 1, 1))
    options = {
        "strides": list(w.stride),
        "dilations": list(w.dilation),
        "pads": _pads(w.pads),
        "kernel_shape": list(w.kernel),
    }
    return {"filters": filters, "options": {**options, "group": channels}}


@form("ops.fold._columns_of")
def _columns_of(g: Any, x: Any, *, w: Windows) -> Any:
    """(N, C, H, W) → (N, C·k, L)"""
    made = _single(g, x.shape[1], w)
    return g.reshape(g.node("Conv", x, made["filters"], **made["options"]), g.out.shape)


@form("ops.fold._image_of")
def _image_of(g: Any, columns: Any, *, w: Windows) -> Any:
    """(N, C·k, L) → (N, C, H, W)"""
    made = _single(g, g.out.shape[1], w)
    images = g.reshape(columns, [columns.shape[0], columns.shape[1], *map(g.need, w.out)])
    reached = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(w.out, w.stride, w.dilation, w.kernel, strict=True)]
    rest = [n - r for n, r in zip(w.padded, reached, strict=True)]
    return g.node("ConvTranspose", images, made["filters"], output_padding=rest, **made["options"])
