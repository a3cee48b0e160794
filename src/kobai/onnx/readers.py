"""What each operator of ONNX is in Kobai: the way back from ``forms/``.

``READERS[op](model, node, *inputs)`` computes a node's output, or a tuple of outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kobai import ops
from kobai.nn import functional as F
from kobai.ops.recurrent import PRIMITIVES


@dataclass
class Node:
    """A node of a graph."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


READERS: dict[str, Callable[..., Any]] = {}

_PLAIN: dict[str, Callable[..., Any]] = {
    "Neg": ops.neg, "Abs": ops.abs, "Sqrt": ops.sqrt, "Reciprocal": ops.reciprocal, "Exp": ops.exp, "Log": ops.log,
    "Sin": ops.sin, "Cos": ops.cos, "Tan": ops.tan, "Asin": ops.asin, "Acos": ops.acos, "Atan": ops.atan,
    "Sinh": ops.sinh, "Cosh": ops.cosh, "Asinh": ops.asinh, "Acosh": ops.acosh, "Atanh": ops.atanh,
    "Sigmoid": ops.sigmoid, "Tanh": ops.tanh, "Erf": ops.erf, "Relu": F.relu, "Mish": F.mish, "Softsign": F.softsign,
    "HardSwish": F.hardswish, "Sign": ops.sign, "Floor": ops.floor, "Ceil": ops.ceil, "Round": ops.round,
    "Not": ops.logical_not, "Identity": lambda x: x, "Add": ops.add, "Sub": ops.sub, "Mul": ops.mul, "Pow": ops.pow,
    "Equal": ops.eq, "Less": ops.lt, "LessOrEqual": ops.le, "Greater": ops.gt, "GreaterOrEqual": ops.ge,
    "And": ops.logical_and, "Or": ops.logical_or, "Xor": ops.logical_xor, "BitwiseAnd": ops.bitwise_and,
    "BitwiseOr": ops.bitwise_or, "BitwiseXor": ops.bitwise_xor, "BitwiseNot": ops.bitwise_not, "IsNaN": ops.isnan,
    "IsInf": ops.isinf, "Where": ops.where, "MatMul": ops.matmul,
}  # fmt: skip


def _plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda model, node, *inputs: function(*inputs)


READERS.update({op: _plainly(function) for op, function in _PLAIN.items()})


def reader(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: what computes these operators, of the node and its inputs."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        READERS.update(dict.fromkeys(names, lambda model, node, *inputs: function(node, *inputs)))
        return function

    return declare


@reader("Constant")
def _constant(node: Node) -> Any:
    return node.attributes["value"]


@reader("Max", "Min")
def _extreme(node: Node, first: Any, *others: Any) -> Any:
    for other in others:
        first = (ops.maximum if node.op == "Max" else ops.minimum)(first, other)
    return first


@reader("Div")
def _div(node: Node, a: Any, b: Any) -> Any:
    return ops.div(a, b) if a.is_floating_point() else ops.div(a, b, rounding_mode="trunc")


@reader("Mod")
def _mod(node: Node, a: Any, b: Any) -> Any:
    return (ops.fmod if node.attributes.get("fmod") else ops.remainder)(a, b)


@reader("Cast")
def _cast(node: Node, x: Any) -> Any:
    return x.to(node.attributes["to"])


@reader("LeakyRelu")
def _leaky_relu(node: Node, x: Any) -> Any:
    return F.leaky_relu(x, node.attributes.get("alpha", 0.01))


@reader("PRelu")
def _prelu(node: Node, x: Any, slope: Any) -> Any:
    return ops.where(x < 0, x * slope, x)


@reader("HardSigmoid")
def _hard_sigmoid(node: Node, x: Any) -> Any:
    return ops.clamp(node.attributes.get("alpha", 0.2) * x + node.attributes.get("beta", 0.5), 0, 1)


# --- shapes -----------------------------------------------------------------------------------------------------------


@reader("Shape")
def _shape(node: Node, x: Any) -> Any:
    return ops.tensor(
        list(x.shape)[node.attributes.get("start", 0) : node.attributes.get("end")], dtype=np.dtype(np.int64)
    )


@reader("Range")
def _range(node: Node, start: Any, stop: Any, step: Any) -> Any:
    return ops.arange(start.item(), stop.item(), step.item(), dtype=start.dtype, device=start.device)


@reader("Reshape")
def _reshape(node: Node, x: Any, shape: Any) -> Any:
    sizes = shape.tolist()
    if not node.attributes.get("allowzero"):
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return x.reshape(sizes)


@reader("Transpose")
def _transpose(node: Node, x: Any) -> Any:
    return x.permute(*node.attributes.get("perm", range(x.ndim)[::-1]))


@reader("Expand")
def _expand(node: Node, x: Any, shape: Any) -> Any:
    return x.expand(*np.broadcast_shapes(tuple(x.shape), tuple(shape.tolist())))


@reader("Slice")
def _slice(node: Node, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    begin, end = starts.tolist(), ends.tolist()
    along = range(len(begin)) if axes is None else axes.tolist()
    for i, axis in enumerate(along):
        step = 1 if steps is None else steps.tolist()[i]
        places = range(x.shape[axis])[slice(begin[i], end[i], step)]
        if step > 0:
            x = x[(slice(None),) * (axis % x.ndim) + (slice(places.start, places.stop, step),)]
        else:
            x = ops.index_select(x, axis, ops.tensor(list(places), dtype=np.dtype(np.int64), device=x.device))
    return x


@reader("Squeeze")
def _squeeze(node: Node, x: Any, axes: Any = None) -> Any:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))


@reader("Unsqueeze")
def _unsqueeze(node: Node, x: Any, axes: Any) -> Any:
    ndim = x.ndim + axes.numel()
    for axis in sorted(a % ndim for a in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


@reader("Gather")
def _gather(node: Node, x: Any, index: Any) -> Any:
    axis = node.attributes.get("axis", 0) % x.ndim
    return x[(slice(None),) * axis + (index.to(np.dtype(np.int64)),)]


@reader("GatherElements")
def _gather_elements(node: Node, x: Any, index: Any) -> Any:
    return ops.gather(x, node.attributes.get("axis", 0), index)


@reader("Concat")
def _concat(node: Node, *parts: Any) -> Any:
    return ops.cat(parts, node.attributes["axis"])


@reader("Split")
def _split(node: Node, x: Any, sizes: Any = None) -> Any:
    axis = node.attributes.get("axis", 0)
    if sizes is not None:
        return tuple(ops.split(x, sizes.tolist(), axis))
    return tuple(ops.split(x, -(-x.shape[axis] // len(node.outputs)), axis))


@reader("Pad")
def _pad(node: Node, x: Any, pads: Any, value: Any = None, axes: Any = None) -> Any:
    if node.attributes.get("mode", "constant") != "constant":
        raise NotImplementedError(f"OnnxModule: Pad with mode={node.attributes['mode']!r} is not read")
    sizes = pads.tolist()
    half = len(sizes) // 2
    before, after = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(range(x.ndim) if axes is None else axes.tolist()):
        before[axis], after[axis] = sizes[i], sizes[half + i]
    flat = [n for a, b in zip(before[::-1], after[::-1], strict=True) for n in (a, b)]
    return F.pad(x, flat, value=0 if value is None else value.item())


@reader("Trilu")
def _triangle(node: Node, x: Any, diagonal: Any = None) -> Any:
    k = 0 if diagonal is None else int(diagonal.item())
    return (ops.triu if node.attributes.get("upper", 1) else ops.tril)(x, k)


# --- reductions -------------------------------------------------------------------------------------------------------


def _sum_of_squares(x: Any, **where: Any) -> Any:
    return ops.sqrt((x * x).sum(**where))


_REDUCE: dict[str, Callable[..., Any]] = {
    "ReduceSum": ops.sum,
    "ReduceMean": ops.mean,
    "ReduceMax": ops.amax,
    "ReduceMin": ops.amin,
    "ReduceL1": lambda x, **where: x.abs().sum(**where),
    "ReduceL2": _sum_of_squares,
    "ReduceLogSumExp": ops.logsumexp,
}


@reader(*_REDUCE, "ReduceProd")
def _reduce(node: Node, x: Any, axes: Any = None) -> Any:
    keepdim = bool(node.attributes.get("keepdims", 1))
    if axes is None and node.attributes.get("noop_with_empty_axes"):
        return x
    dims = tuple(range(x.ndim)) if axes is None else tuple(axes.tolist())
    if node.op == "ReduceProd":
        for dim in sorted((d % x.ndim for d in dims), reverse=True):
            x = x.prod(dim, keepdim)
        return x
    return _REDUCE[node.op](x, dim=dims, keepdim=keepdim) if dims else x


@reader("ArgMax", "ArgMin")
def _arg(node: Node, x: Any) -> Any:
    where = ops.argmax if node.op == "ArgMax" else ops.argmin
    return where(x, node.attributes.get("axis", 0), bool(node.attributes.get("keepdims", 1)))


@reader("CumSum")
def _cumsum(node: Node, x: Any, axis: Any) -> Any:
    return ops.cumsum(x, int(axis.item()))


@reader("Einsum")
def _einsum(node: Node, *operands: Any) -> Any:
    return ops.einsum(node.attributes["equation"], *operands)


# --- layers -----------------------------------------------------------------------------------------------------------


@reader("Gemm")
def _gemm(node: Node, a: Any, b: Any, c: Any = None) -> Any:
    given = node.attributes
    plain = given.get("transB") and not given.get("transA") and given.get("alpha", 1) == given.get("beta", 1) == 1
    if plain and (c is None or c.shape == b.shape[:1]):
        return F.linear(a, b, c)
    product = given.get("alpha", 1.0) * ((a.T if given.get("transA") else a) @ (b.T if given.get("transB") else b))
    return product if c is None else product + given.get("beta", 1.0) * c


def _ends(node: Node, n: int) -> tuple[list[int], list[int]]:
    """The padding before and after each dimension."""
    if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise NotImplementedError(f"OnnxModule: {node.op} with auto_pad={node.attributes['auto_pad']!r} is not read")
    pads = node.attributes.get("pads", [0] * 2 * n)
    return pads[:n], pads[n:]


def _padded(node: Node, x: Any, n: int, value: float = 0) -> Any:
    before, after = _ends(node, n)
    flat = [p for pair in zip(before[::-1], after[::-1], strict=True) for p in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


@reader("Conv")
def _conv(node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    n, given = weight.ndim - 2, node.attributes
    before, after = _ends(node, n)
    same = before == after
    x = x if same else _padded(node, x, n)
    return getattr(F, f"conv{n}d")(
        x,
        weight,
        bias,
        given.get("strides", [1] * n),
        before if same else 0,
        given.get("dilations", [1] * n),
        given.get("group", 1),
    )


@reader("ConvTranspose")
def _conv_transpose(node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    n, given = weight.ndim - 2, node.attributes
    before, after = _ends(node, n)
    if before != after or "output_shape" in given:
        raise NotImplementedError("OnnxModule: ConvTranspose with uneven padding, or output_shape, is not read")
    return getattr(F, f"conv_transpose{n}d")(
        x, weight, bias, given.get("strides", [1] * n), before, given.get("output_padding", [0] * n), given.get("group", 1),
        given.get("dilations", [1] * n),
    )  # fmt: skip


@reader("MaxPool")
def _max_pool(node: Node, x: Any) -> Any:
    kernel, given = node.attributes["kernel_shape"], node.attributes
    n = len(kernel)
    if given.get("ceil_mode") or len(node.outputs) > 1:
        raise NotImplementedError("OnnxModule: MaxPool with ceil_mode, or with indices, is not read")
    x = _padded(node, x, n, -math.inf)
    return getattr(F, f"max_pool{n}d")(x, kernel, given.get("strides", [1] * n), 0, given.get("dilations", [1] * n))


@reader("AveragePool")
def _average_pool(node: Node, x: Any) -> Any:
    kernel, given = node.attributes["kernel_shape"], node.attributes
    n = len(kernel)
    before, after = _ends(node, n)
    even = any((*before, *after)) and not given.get("count_include_pad")
    if given.get("ceil_mode") or even or set(given.get("dilations", [1])) != {1}:
        raise NotImplementedError(
            "OnnxModule: AveragePool with ceil_mode, dilations, or padding that does not count, is not read"
        )
    return getattr(F, f"avg_pool{n}d")(_padded(node, x, n), kernel, given.get("strides", [1] * n))


def _batch_norm(model: Any, node: Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any) -> Any:
    eps, momentum = node.attributes.get("epsilon", 1e-5), 1 - node.attributes.get("momentum", 0.9)
    return F.batch_norm(x, mean, var, weight, bias, model.training, momentum, eps)


READERS["BatchNormalization"] = _batch_norm


@reader("LayerNormalization")
def _layer_norm(node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    axis = node.attributes.get("axis", -1) % x.ndim
    return F.layer_norm(x, x.shape[axis:], weight, bias, node.attributes.get("epsilon", 1e-5))


@reader("Softmax", "LogSoftmax")
def _softmax(node: Node, x: Any) -> Any:
    return (F.softmax if node.op == "Softmax" else F.log_softmax)(x, node.attributes.get("axis", -1))


_BACK = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Kobai's order of the gates, by ONNX's."""


@reader("LSTM", "GRU", "RNN")
def _recurrent(
    node: Node,
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    ends: Any = None,
    h: Any = None,
    c: Any = None,
    peepholes: Any = None,
) -> Any:
    given, hidden = node.attributes, r.shape[-1]
    _known_recurrent(node, ends, peepholes)

    def ordered(block: Any) -> Any:
        return ops.cat([block[i * hidden : (i + 1) * hidden] for i in _BACK[node.op]])

    weights: list[Any] = []
    rows = r.shape[1]
    for d in range(w.shape[0]):
        biases = (None, None) if b is None else (ordered(b[d, :rows]), ordered(b[d, rows:]))
        weights += [ordered(w[d]), ordered(r[d]), *biases]
    states = (h, c) if node.op == "LSTM" else (h,)
    options = {"nonlinearity": given.get("activations", ["Tanh"])[0].lower()} if node.op == "RNN" else {}
    joined = PRIMITIVES[node.op](x, *states, None, *weights, **options)
    (steps, n, _), d = x.shape, w.shape[0]
    parts = ops.split(joined, [steps * n * d * hidden, *[d * n * hidden] * len(states)])
    return (
        parts[0].reshape(steps, n, d, hidden).permute(0, 2, 1, 3),
        *(part.reshape(d, n, hidden) for part in parts[1:]),
    )


def _known_recurrent(node: Node, ends: Any, peepholes: Any) -> None:
    given = node.attributes
    usual = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}.get(node.op)
    functions = given.get("activations")
    odd = (
        functions is not None and functions[: len(usual or ())] != usual
        if usual
        else len(set(functions or ["Tanh"])) > 1
    )
    if (
        odd
        or ends is not None
        or peepholes is not None
        or given.get("direction") == "reverse"
        or given.get("layout")
        or "clip" in given
    ):
        raise NotImplementedError(
            f"OnnxModule: {node.op} with lengths, peepholes, a clip or such activations is not read"
        )
    if node.op == "GRU" and not given.get("linear_before_reset"):
        raise NotImplementedError("OnnxModule: GRU with linear_before_reset=0 is not read")
