"""What treats all elements alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.onnx.forms._table import FORMS, form

_ONE = {  # a node of one operand
    "pointwise._neg": "Neg",
    "pointwise._abs": "Abs",
    "pointwise._sqrt": "Sqrt",
    "pointwise._reciprocal": "Reciprocal",
    "pointwise._exp": "Exp",
    "pointwise._log": "Log",
    "pointwise._sin": "Sin",
    "pointwise._cos": "Cos",
    "pointwise._tan": "Tan",
    "pointwise._asin": "Asin",
    "pointwise._acos": "Acos",
    "pointwise._atan": "Atan",
    "pointwise._sinh": "Sinh",
    "pointwise._cosh": "Cosh",
    "pointwise._asinh": "Asinh",
    "pointwise._acosh": "Acosh",
    "pointwise._atanh": "Atanh",
    "pointwise._sigmoid": "Sigmoid",
    "pointwise._tanh": "Tanh",
    "pointwise._erf": "Erf",
    "activation._relu": "Relu",
    "activation._mish": "Mish",
    "activation._softsign": "Softsign",
    "activation._hardswish": "HardSwish",
    "rounding._sign": "Sign",
    "rounding._floor": "Floor",
    "rounding._ceil": "Ceil",
    "rounding._round": "Round",
    "logic._logical_not": "Not",
    "shape._clone": "Identity",
}
_TWO = {  # a node of two operands of one dtype
    "arithmetic._add": "Add",
    "arithmetic._sub": "Sub",
    "arithmetic._mul": "Mul",
    "arithmetic._div": "Div",
    "arithmetic._pow": "Pow",
    "arithmetic._maximum": "Max",
    "arithmetic._minimum": "Min",
    "compare._eq": "Equal",
    "compare._lt": "Less",
    "compare._le": "LessOrEqual",
    "compare._gt": "Greater",
    "compare._ge": "GreaterOrEqual",
    "logic._logical_and": "And",
    "logic._logical_or": "Or",
    "logic._logical_xor": "Xor",
}
_BITS = {"_and": ("And", "BitwiseAnd"), "_or": ("Or", "BitwiseOr"), "_xor": ("Xor", "BitwiseXor")}
_IN_FLOAT32 = frozenset("Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Mish Erf Softsign HardSwish".split())


def operands(g: Any, *args: Any, dtype: Any = None) -> list[str]:
    """The operands of a call in the dtype that NumPy would compute in."""
    known = [x.dtype for x in args if hasattr(x, "dtype")]
    common = np.result_type(*known) if dtype is None else dtype
    return [g.cast(x, common) for x in args]


def _one(op: str) -> Callable[..., Any]:
    def build(g: Any, x: Any) -> Any:
        x = g.cast(x, np.bool_ if op == "Not" else g.out.dtype)
        if op in _IN_FLOAT32 and g.out.dtype == np.float64:  # runtimes have these for single precision
            return g.to(g.node(op, g.to(x, np.float64, np.float32)), np.float32, np.float64)
        return g.node(op, x)

    return build


def _two(op: str) -> Callable[..., Any]:
    def build(g: Any, a: Any, b: Any) -> Any:
        kind = np.bool_ if op in ("And", "Or", "Xor") else g.out.dtype if g.out.dtype != np.bool_ else None
        return g.node(op, *operands(g, a, b, dtype=kind))

    return build


FORMS.update({f"ops.{key}": _one(op) for key, op in _ONE.items()})
FORMS.update({f"ops.{key}": _two(op) for key, op in _TWO.items()})


@form("ops._args._cast", "numpy.astype")
def _cast(g: Any, x: Any, dtype: Any) -> Any:
    return g.node("Cast", x, to=g.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(g.out.dtype)))


@form("numpy.copy")
def _copy(g: Any, x: Any) -> Any:
    return g.node("Identity", x)


@form("ops.convert._move")
def _move(g: Any, x: Any, where: Any) -> Any:
    return g.node("Identity", x)


@form("ops.compare._ne")
def _ne(g: Any, a: Any, b: Any) -> Any:
    return g.node("Not", g.node("Equal", *operands(g, a, b)))


def _bits(logical: str, bitwise: str) -> Callable[..., Any]:
    def build(g: Any, a: Any, b: Any) -> Any:
        return g.node(logical if g.out.dtype == np.bool_ else bitwise, *operands(g, a, b))

    return build


FORMS.update({f"ops.logic.{key}": _bits(*ops) for key, ops in _BITS.items()})


@form("ops.logic._invert")
def _invert(g: Any, x: Any) -> Any:
    return g.node("Not" if g.out.dtype == np.bool_ else "BitwiseNot", x)


@form("ops.arithmetic._squared", "ops.pointwise._square")
def _square(g: Any, x: Any) -> Any:
    return g.node("Mul", x, x)


@form("ops.arithmetic._floor_divide")
def _floor_divide(g: Any, a: Any, b: Any) -> Any:
    if g.out.dtype.kind not in "f":
        raise g.refuse("division of integers, rounded down,")
    return g.node("Floor", g.node("Div", *operands(g, a, b, dtype=g.out.dtype)))


@form("ops.arithmetic._remainder")
def _remainder(g: Any, a: Any, b: Any) -> Any:
    if g.out.dtype.kind in "iu":
        return g.node("Mod", *operands(g, a, b, dtype=g.out.dtype))
    a, b = operands(g, a, b, dtype=g.out.dtype)
    return g.node("Sub", a, g.node("Mul", b, g.node("Floor", g.node("Div", a, b))))


@form("ops.arithmetic._fmod")
def _fmod(g: Any, a: Any, b: Any) -> Any:
    return g.node("Mod", *operands(g, a, b, dtype=g.out.dtype), fmod=1)


@form("ops.pointwise._rsqrt")
def _rsqrt(g: Any, x: Any) -> Any:
    return g.node("Reciprocal", g.node("Sqrt", x))


def _of_log(base: float) -> Callable[..., Any]:
    return lambda g, x: g.node("Div", g.node("Log", x), math.log(base), dtype=g.out.dtype)


FORMS.update({"ops.pointwise._log2": _of_log(2), "ops.pointwise._log10": _of_log(10)})


@form("ops.pointwise._log1p")
def _log1p(g: Any, x: Any) -> Any:
    return log1p(g, g.ref(x), g.out.dtype)


def log1p(g: Any, x: str, dtype: Any) -> Any:
    """ln(1 + x) with the digits of a small x: x · ln(u) / (u − 1) with u = 1 + x, which is x where u = 1 (Kahan)."""
    u = g.node("Add", x, 1, dtype=dtype)
    less = g.node("Sub", u, 1, dtype=dtype)
    none = g.node("Equal", less, 0, dtype=dtype)
    safe = g.node("Where", none, 1, less, dtype=dtype)
    infinite = g.node("IsInf", u) if dtype == np.float32 else g.node("Equal", u, math.inf, dtype=dtype)
    ratio = g.node("Where", infinite, 1, g.node("Div", x, safe), dtype=dtype)
    return g.node("Where", none, x, g.node("Mul", g.node("Log", u), ratio))


@form("ops.pointwise._exp2")
def _exp2(g: Any, x: Any) -> Any:
    return g.node("Exp", g.node("Mul", x, math.log(2), dtype=g.out.dtype))


@form("ops.pointwise._expm1")
def _expm1(g: Any, x: Any) -> Any:
    return expm1(g, x, g.out.dtype)


def expm1(g: Any, x: Any, dtype: Any) -> Any:
    """eˣ − 1 = 2t / (1 − t) with t = tanh(x/2), which keeps the digits of a small x; eˣ − 1 where x is large."""
    t = g.node("Tanh", g.node("Mul", x, 0.5, dtype=dtype))
    near = g.node("Div", g.node("Mul", t, 2, dtype=dtype), g.node("Sub", g.ref(1, dtype), t))
    far = g.node("Sub", g.node("Exp", x), 1, dtype=dtype)
    return g.node("Where", g.node("Greater", x, 1, dtype=dtype), far, near)


@form("ops.pointwise._erfc")
def _erfc(g: Any, x: Any) -> Any:
    return g.node("Sub", 1, g.node("Erf", x), dtype=g.out.dtype)


@form("ops.pointwise._clamp")
def _clamp(g: Any, x: Any, low: Any, high: Any) -> Any:
    y = g.cast(x, g.out.dtype)
    if low is not None:
        y = g.node("Max", y, g.cast(low, g.out.dtype))
    return y if high is None else g.node("Min", y, g.cast(high, g.out.dtype))


@form("ops.activation._hardtanh")
def _hardtanh(g: Any, x: Any, low: float, high: float) -> Any:
    return _clamp(g, x, low, high)


@form("ops.rounding._trunc")
def _trunc(g: Any, x: Any) -> Any:
    return g.node("Mul", g.node("Sign", x), g.node("Floor", g.node("Abs", x)))


@form("ops.gather._where")
def _where(g: Any, condition: Any, a: Any, b: Any) -> Any:
    return g.node("Where", g.cast(condition, np.bool_), *operands(g, a, b, dtype=g.out.dtype))


@form("numpy.isnan", "numpy.isinf")
def _is(g: Any, x: Any) -> Any:
    return g.node({"numpy.isnan": "IsNaN", "numpy.isinf": "IsInf"}[g.call.key], x)


# --- activations ------------------------------------------------------------------------------------------------------


def activated(g: Any, y: str, activation: str | None) -> Any:
    """The activation that a layer computes in one pass with its product."""
    names = {None: "", "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
    if activation not in names:
        raise g.refuse(f"activation={activation!r}")
    return g.node(names[activation], y) if activation else y


@form("ops.activation._leaky_relu")
def _leaky_relu(g: Any, x: Any, slope: float) -> Any:
    return g.node("LeakyRelu", x, alpha=float(slope))


@form("ops.activation._prelu")
def _prelu(g: Any, x: Any, weight: Any) -> Any:
    if len(weight.shape) == 1 and len(x.shape) > 1 and weight.shape[0] != 1:
        weight = g.reshape(weight, [weight.shape[0], *[1] * (len(x.shape) - 2)])
    elif len(weight.shape) == 1 and weight.shape[0] == 1:
        weight = g.reshape(weight, [1] * len(x.shape))
    return g.node("PRelu", x, weight)


@form("ops.dropout._slopes")
def _slopes(g: Any, x: Any, slope: Any) -> Any:
    return g.node("Where", g.node("Less", x, 0, dtype=g.out.dtype), g.node("Mul", x, slope), x)


@form("ops.activation._elu")
def _elu(g: Any, x: Any, alpha: float, scale: float, rate: float) -> Any:
    dtype = g.out.dtype
    left = expm1(g, g.node("Mul", g.node("Min", x, 0, dtype=dtype), rate, dtype=dtype), dtype)
    y = g.node("Add", g.node("Max", x, 0, dtype=dtype), g.node("Mul", left, alpha, dtype=dtype))
    return g.node("Mul", y, scale, dtype=dtype)


@form("ops.activation._gelu")
def _gelu(g: Any, x: Any) -> Any:
    dtype = g.out.dtype
    erf = g.node("Erf", g.node("Mul", x, math.sqrt(0.5), dtype=dtype))
    return g.node("Mul", g.node("Mul", x, 0.5, dtype=dtype), g.node("Add", erf, 1, dtype=dtype))


@form("ops.activation._gelu_tanh")
def _gelu_tanh(g: Any, x: Any) -> Any:
    dtype = g.out.dtype
    cube = g.node("Mul", g.node("Mul", g.node("Mul", x, x), x), 0.044715, dtype=dtype)
    t = g.node("Tanh", g.node("Mul", g.node("Add", x, cube), math.sqrt(2 / math.pi), dtype=dtype))
    return g.node("Mul", g.node("Mul", x, 0.5, dtype=dtype), g.node("Add", t, 1, dtype=dtype))


@form("ops.activation._silu")
def _silu(g: Any, x: Any) -> Any:
    return g.node("Mul", x, g.node("Sigmoid", x))


def softplus(g: Any, z: str, dtype: Any) -> Any:
    """ln(1 + eᶻ) = max(z, 0) + ln(1 + e^−|z|)."""
    small = g.node("Exp", g.node("Neg", g.node("Abs", z)))
    return g.node("Add", g.node("Max", z, 0, dtype=dtype), log1p(g, small, dtype))


@form("ops.activation._softplus")
def _softplus(g: Any, x: Any, beta: float, threshold: float) -> Any:
    dtype = g.out.dtype
    z = g.node("Mul", x, beta, dtype=dtype)
    y = g.node("Div", softplus(g, z, dtype), beta, dtype=dtype)
    return g.node("Where", g.node("Greater", z, threshold, dtype=dtype), x, y)


@form("ops.activation._logsigmoid")
def _logsigmoid(g: Any, x: Any) -> Any:
    return g.node("Neg", softplus(g, g.node("Neg", x), g.out.dtype))


@form("ops.activation._hardsigmoid")
def _hardsigmoid(g: Any, x: Any) -> Any:
    return g.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@form("ops.activation._hardshrink")
def _hardshrink(g: Any, x: Any, bound: float) -> Any:
    dtype = g.out.dtype
    within = g.node("LessOrEqual", g.node("Abs", x), bound, dtype=dtype)
    return g.node("Where", within, 0, x, dtype=dtype)


@form("ops.activation._softshrink")
def _softshrink(g: Any, x: Any, bound: float) -> Any:
    dtype = g.out.dtype
    less = g.node("Max", g.node("Sub", g.node("Abs", x), bound, dtype=dtype), 0, dtype=dtype)
    return g.node("Mul", g.node("Sign", x), less)


@form("ops.activation._threshold")
def _threshold(g: Any, x: Any, bound: float, value: float) -> Any:
    dtype = g.out.dtype
    return g.node("Where", g.node("LessOrEqual", x, bound, dtype=dtype), value, x, dtype=dtype)


# --- seldom -----------------------------------------------------------------------------------------------------------


@form("ops.pointwise._nan_to_num")
def _nan_to_num(g: Any, x: Any, nan: float, posinf: float, neginf: float) -> Any:
    dtype = g.out.dtype
    y = g.node("Where", g.node("IsNaN", x), nan, x, dtype=dtype)
    y = g.node("Where", g.node("Equal", y, math.inf, dtype=dtype), posinf, y, dtype=dtype)
    return g.node("Where", g.node("Equal", y, -math.inf, dtype=dtype), neginf, y, dtype=dtype)


@form("ops.pointwise._logit")
def _logit(g: Any, x: Any) -> Any:
    return g.node("Log", g.node("Div", x, g.node("Sub", 1, x, dtype=g.out.dtype)))


@form("ops.rounding._frac")
def _frac(g: Any, x: Any) -> Any:
    return g.node("Sub", x, _trunc(g, x))


@form("ops.pointwise._deg2rad", "ops.pointwise._rad2deg")
def _angles(g: Any, x: Any) -> Any:
    factor = math.pi / 180 if g.call.key.endswith("deg2rad") else 180 / math.pi
    return g.node("Mul", x, factor, dtype=g.out.dtype)


@form("ops.special._logaddexp")
def _logaddexp(g: Any, a: Any, b: Any) -> Any:
    a, b = operands(g, a, b, dtype=g.out.dtype)
    return g.node("Add", b, softplus(g, g.node("Sub", a, b), g.out.dtype))


@form("ops.random._constant_in")
def _constant_in(g: Any, y: Any, *inputs: Any) -> Any:
    return g.node("Identity", y)
