"""Unary mathematics, one row per function: value, derivative, domain of the samples, and what it says in the manual.

Each row gives the derivative in the argument (``of_x``) or in the value (``of_y``); the one that it names is all that the
tape keeps. At a kink the derivative is PyTorch's: 0 for ``abs`` at 0, 1 for ``clamp`` at its bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.core.autocast import one_operation
from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, finfo, get_default_dtype
from kobai.ops import _formulas
from kobai.ops._args import Samples, as_float, cast, drawn, held, into, need_tensor, pair, unbroadcast
from kobai.ops.arithmetic import add, div, mul, sub
from kobai.ops.shape import clone
from kobai.refusals import truth_values
from kobai.xp import Array, is_array, xp_of

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "addcdiv",
    "addcmul",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "exp",
    "exp2",
    "expm1",
    "lerp",
    "log",
    "log10",
    "log1p",
    "log2",
    "logit",
    "nan_to_num",
    "neg",
    "negative",
    "reciprocal",
    "rsqrt",
    "sigmoid",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
]

Unary = Callable[[Tensor], Tensor]


def samples(low: float, high: float) -> Samples:
    """Arguments of a unary primitive, drawn from its domain: a matrix, a transposed cut, a number, nothing."""
    return [
        drawn((4, 3), between=(low, high)),
        lambda rng: (rng.uniform(low, high, (3, 2, 4)).T[::2],),
        drawn((), between=(low, high)),
        drawn((0, 3), between=(low, high)),
    ]


# What the manual shows of each row, here and in ops/special.py: elements before and after. Doctest checks it.
_examples = """
neg         [1, -2] → [-1,  2]
abs         [1, -2] → [1, 2]
square      [1, -2, 3] → [1, 4, 9]
sqrt        [4., 9., -1.] → [2., 3., nan]
rsqrt       [1., 4.] → [1.0000, 0.5000]
reciprocal  [1., 4.] → [1.0000, 0.2500]
exp         [0., 1.] → [1.0000, 2.7183]
exp2        [0, 3, -1] → [1.0000, 8.0000, 0.5000]
expm1       [0., 1.] → [0.0000, 1.7183]
log         [1., 2.] → [0.0000, 0.6931]
log2        [8., 10.] → [3.0000, 3.3219]
log10       [100., 2.] → [2.0000, 0.3010]
log1p       [0., 1.] → [0.0000, 0.6931]
sin         [0., 0.5] → [0.0000, 0.4794]
cos         [0., 0.5] → [1.0000, 0.8776]
tan         [0., 0.5] → [0.0000, 0.5463]
asin        [0., 1.] → [0.0000, 1.5708]
acos        [1., 0.] → [0.0000, 1.5708]
atan        [0., 1.] → [0.0000, 0.7854]
sinh        [0., 1.] → [0.0000, 1.1752]
cosh        [0., 1.] → [1.0000, 1.5431]
asinh       [0., 1.] → [0.0000, 0.8814]
acosh       [1., 2.] → [0.0000, 1.3170]
atanh       [0., 0.5] → [0.0000, 0.5493]
sigmoid     [0., 1., 100.] → [0.5000, 0.7311, 1.0000]
tanh        [0., 0.5, 100.] → [0.0000, 0.4621, 1.0000]
erf         [0., 1.] → [0.0000, 0.8427]
erfc        [0., 1.] → [1.0000, 0.1573]
deg2rad     [180, 90] → [3.1416, 1.5708]
rad2deg     [1., 0.5] → [57.2958, 28.6479]
lgamma      [3., 4.] → [0.6931, 1.7918]
digamma     [1., 2.] → [-0.5772,  0.4228]
erfinv      [0., 0.5, 1.] → [0.0000, 0.4769,    inf]
sinc        [0., 0.5] → [1.0000, 0.6366]
"""
EXAMPLES = {
    name: example.strip().split(" → ")
    for name, example in (line.split(" ", 1) for line in _examples.split("\n") if line)
}


def unary(
    name: str,
    doc: str,
    f: Callable[[Any, Array], Array],
    of_x: Callable[[Any, Array], Array] | None = None,
    of_y: Callable[[Any, Array], Array] | None = None,
    backward: Callable[[Array, Array], Array] | None = None,
    backward_of_x: Callable[[Array, Array], Array] | None = None,
    domain: tuple[float, float] = (-2.0, 2.0),
    keep_integers: bool = False,
    of_truth: Any = None,
) -> Unary:
    """Make the primitive ``_name``, the public function and the methods ``name`` and ``name_`` of one row.

    ``f(xp, x)`` is the value; ``of_x(xp, x)`` or ``of_y(xp, y)`` its derivative, or ``backward(dy, y)`` or
    ``backward_of_x(dy, x)`` the gradient, whichever is given.
    Integers are converted to the default float dtype unless ``keep_integers``, truth values to ``of_truth`` if it is given.
    A row has an example in ``EXAMPLES``.
    """

    def forward(x: Array) -> Any:
        xp = xp_of(x)
        y = f(xp, x)
        if backward is not None:
            return y, lambda dy: (backward(dy, y),)
        if backward_of_x is not None:
            return y, lambda dy: (backward_of_x(dy, x),)
        if of_y is not None:
            return y, lambda dy: (dy * of_y(xp, y),)
        assert of_x is not None
        return y, lambda dy: (dy * of_x(xp, x),)

    forward.__name__ = f"_{name}"
    recorded = primitive(sample=samples(*domain), kind="elementwise")(forward)

    def function(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        need_tensor(name, input)
        if not keep_integers and input._array.dtype.kind not in FLOATING:
            input = cast(input, get_default_dtype())
        elif of_truth is not None and input._array.dtype.kind == "b":
            input = cast(input, of_truth)
        return recorded(input) if out is None else into(name, out, recorded(input))

    function.__name__ = function.__qualname__ = name
    function.__module__ = f.__module__  # that of the row, where doctest looks for it
    argument, value = EXAMPLES[name]
    function.__doc__ = (
        f"{doc} Elementwise{'' if keep_integers else '; integers are converted to floats first'}.\n\n"
        f">>> import kobai\n>>> kobai.{name}(kobai.tensor({argument}))\ntensor({value})"
    )
    return method(function, in_place=True)


ONE = (0.3, 0.9)  # strictly inside (0, 1)
POSITIVE = (0.5, 2.0)
LN2 = math.log(2.0)
LN10 = math.log(10.0)

neg = unary("neg", "−x.", lambda xp, x: -x, lambda xp, x: -1, keep_integers=True)
abs = unary("abs", "|x|.", lambda xp, x: xp.abs(x), lambda xp, x: xp.sign(x), domain=POSITIVE, keep_integers=True)
square = unary("square", "x².", lambda xp, x: x * x, lambda xp, x: 2 * x, keep_integers=True, of_truth=np.int64)
sqrt = unary("sqrt", "√x; nan for negative x.", lambda xp, x: xp.sqrt(x), of_y=lambda xp, y: 0.5 / y, domain=POSITIVE)
rsqrt = unary("rsqrt", "1 / √x.", lambda xp, x: _formulas.rsqrt(x), backward=_formulas.rsqrt_backward, domain=POSITIVE)
reciprocal = unary("reciprocal", "1 / x.", lambda xp, x: 1 / x, of_y=lambda xp, y: -y * y, domain=POSITIVE)

exp = unary("exp", "eˣ.", lambda xp, x: xp.exp(x), of_y=lambda xp, y: y)
exp2 = unary("exp2", "2ˣ.", lambda xp, x: xp.exp2(x), of_y=lambda xp, y: LN2 * y)
expm1 = unary("expm1", "eˣ − 1, accurate near x = 0.", lambda xp, x: xp.expm1(x), of_y=lambda xp, y: y + 1)
log = unary("log", "Natural logarithm ln x.", lambda xp, x: xp.log(x), lambda xp, x: 1 / x, domain=POSITIVE)
log2 = unary("log2", "Logarithm to base 2.", lambda xp, x: xp.log2(x), lambda xp, x: 1 / (LN2 * x), domain=POSITIVE)
log10 = unary(
    "log10", "Logarithm to base 10.", lambda xp, x: xp.log10(x), lambda xp, x: 1 / (LN10 * x), domain=POSITIVE
)
log1p = unary(
    "log1p", "ln(1 + x), accurate near x = 0.", lambda xp, x: xp.log1p(x), lambda xp, x: 1 / (1 + x), domain=ONE
)

sin = unary("sin", "Sine of x in radians.", lambda xp, x: xp.sin(x), lambda xp, x: xp.cos(x))
cos = unary("cos", "Cosine of x in radians.", lambda xp, x: xp.cos(x), lambda xp, x: -xp.sin(x))
tan = unary("tan", "Tangent of x in radians.", lambda xp, x: xp.tan(x), of_y=lambda xp, y: 1 + y * y, domain=(-1, 1))
asin = unary("asin", "Inverse sine.", lambda xp, x: xp.arcsin(x), lambda xp, x: 1 / xp.sqrt(1 - x * x), domain=ONE)
acos = unary("acos", "Inverse cosine.", lambda xp, x: xp.arccos(x), lambda xp, x: -1 / xp.sqrt(1 - x * x), domain=ONE)
atan = unary("atan", "Inverse tangent.", lambda xp, x: xp.arctan(x), lambda xp, x: 1 / (1 + x * x))
sinh = unary("sinh", "(eˣ − e⁻ˣ) / 2.", lambda xp, x: xp.sinh(x), lambda xp, x: xp.cosh(x))
cosh = unary("cosh", "(eˣ + e⁻ˣ) / 2.", lambda xp, x: xp.cosh(x), lambda xp, x: xp.sinh(x))
asinh = unary("asinh", "Inverse of sinh.", lambda xp, x: xp.arcsinh(x), lambda xp, x: 1 / xp.sqrt(x * x + 1))
acosh = unary(
    "acosh", "Inverse of cosh.", lambda xp, x: xp.arccosh(x), lambda xp, x: 1 / xp.sqrt(x * x - 1), domain=(1.5, 3)
)
atanh = unary("atanh", "Inverse of tanh.", lambda xp, x: xp.arctanh(x), lambda xp, x: 1 / (1 - x * x), domain=ONE)

sigmoid = unary(
    "sigmoid",
    "σ(x) = 1 / (1 + e⁻ˣ), without overflow.",
    lambda xp, x: _formulas.sigmoid(x),
    backward=_formulas.sigmoid_backward,
)
tanh = unary("tanh", "(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ).", lambda xp, x: _formulas.tanh(x), backward=_formulas.tanh_backward)
erf = unary(
    "erf",
    "Error function 2/√π ∫₀ˣ e^(−t²) dt.",
    lambda xp, x: _formulas.erf(x),
    backward_of_x=_formulas.erf_backward,
)
erfc = unary(
    "erfc",
    "1 − erf(x), accurate where it is small.",
    lambda xp, x: _formulas.erfc(x),
    backward_of_x=_formulas.erfc_backward,
)

absolute, negative = abs, neg
arcsin, arccos, arctan, arcsinh, arccosh, arctanh = asin, acos, atan, asinh, acosh, atanh
for _alias in ("absolute", "negative", "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh"):
    method(globals()[_alias], name=_alias, in_place=True)
setattr(Tensor, "__neg__", neg)  # noqa: B010  (operators are looked up on the class)
setattr(Tensor, "__abs__", abs)  # noqa: B010


@primitive(
    sample=[
        drawn((4, 3), -1.0, 1.0, between=(-2, 2)),
        drawn((4, 3), None, 0.5, between=(-2, 2)),
        lambda rng: (rng.uniform(-2, 2, (4, 3)), rng.uniform(-1, 0, (3,)), rng.uniform(0, 1, (4, 1))),
        lambda rng: (rng.uniform(-2, 2, (2, 0)), rng.uniform(-1, 0, (2, 1)), None),
    ]
)
def _clamp(x: Array, low: Any, high: Any) -> Any:
    if x.dtype.kind == "f" and not (is_array(low) or is_array(high)):
        bounds = {"low": -math.inf if low is None else low, "high": math.inf if high is None else high}
        return _formulas.clamp(x, **bounds), lambda dy: (lambda: _formulas.clamp_backward(dy, x, **bounds), None, None)
    xp = xp_of(x)
    y = x
    if low is not None:
        y = xp.maximum(y, low)
    if high is not None:
        y = xp.minimum(y, high)

    def vjp(dy: Array) -> Any:
        below = None if low is None else x < low
        above = None if high is None else (x if low is None else xp.maximum(x, low)) > high

        def inside() -> Array:
            g = dy  # none of it for NaN, which is on no side of a bound
            for kept in (None if low is None else x >= low, None if high is None else x <= high):
                g = g if kept is None else xp.where(kept, g, 0)
            return unbroadcast(g, x.shape)

        def at_low() -> Any:
            return unbroadcast(dy * below if above is None else dy * (below & ~above), low.shape)

        return inside, at_low, lambda: unbroadcast(dy * above, high.shape)

    return y, vjp


@method(in_place=True)
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Elements below ``min`` become ``min``, those above ``max`` become ``max`` (numbers or tensors; max wins over min).

    The gradient passes where min ≤ x ≤ max; elsewhere it goes to the bound that replaced the element.

    >>> import kobai
    >>> kobai.clamp(kobai.tensor([-2., 0.5, 3.]), min=0, max=1)
    tensor([0.0000, 0.5000, 1.0000])
    """
    need_tensor("clamp", input)
    if min is None and max is None:
        raise ValueError("clamp: expected at least one of min and max")
    if input._array.dtype.kind == "b" and (type(min) is bool or type(max) is bool):
        raise truth_values("clamp", "bool")
    if min is not None:
        input, min = pair("clamp", input, min, wraps=False)
    if max is not None:
        input, max = pair("clamp", input, max, wraps=False)
        if isinstance(min, Tensor):
            min = cast(min, input._array.dtype)
    return _clamp(input, held("clamp", min, input._array.dtype), held("clamp", max, input._array.dtype))


clip = method(clamp, name="clip", in_place=True)


@method(in_place=True)
def clamp_min(input: Tensor, min: Any) -> Tensor:
    """:func:`clamp` from below only.

    >>> import kobai
    >>> kobai.clamp_min(kobai.tensor([-1, 0, 3]), 1)
    tensor([1, 1, 3])
    """
    return clamp(input, min=min)


@method(in_place=True)
def clamp_max(input: Tensor, max: Any) -> Tensor:
    """:func:`clamp` from above only.

    >>> import kobai
    >>> kobai.clamp_max(kobai.tensor([-1, 0, 3]), 1)
    tensor([-1,  0,  1])
    """
    return clamp(input, max=max)


@method(in_place=True)
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """ln(x / (1 − x)), the inverse of σ; with ``eps``, x is first clamped to [eps, 1 − eps].

    >>> import kobai
    >>> kobai.logit(kobai.tensor([0.5, 0.9]))
    tensor([0.0000, 2.1972])
    """
    x = as_float("logit", input)
    return _logit(x if eps is None else clamp(x, eps, 1 - eps))


@primitive(
    sample=[
        drawn((4, 3), between=(0.1, 0.9)),
        lambda rng: (rng.uniform(0.1, 0.9, (3, 2, 4)).T,),
        drawn((0, 3), between=(0.1, 0.9)),
    ],
    kind="elementwise",
)
def _logit(x: Array) -> Any:
    xp = xp_of(x)

    def vjp(dy: Array) -> Any:
        return (lambda: dy / xp.where((x >= 0) & (x <= 1), x * (1 - x), math.nan).astype(x.dtype, copy=False),)

    return xp.log(x / (1 - x)), vjp


@method(in_place=True)
def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """input + weight · (end − input), on the way from ``input`` to ``end``; ``weight`` is a number or a tensor.

    >>> import kobai
    >>> kobai.lerp(kobai.tensor([0., 10.]), kobai.tensor([10., 20.]), 0.5)
    tensor([ 5., 15.])
    """
    need_tensor("lerp", input, end)
    return add(input, mul(sub(end, input), weight))


@method(in_place=True)
@one_operation
def addcmul(input: Tensor, tensor1: Any, tensor2: Tensor, *older: Any, value: float = 1) -> Tensor:
    """input + value · tensor1 · tensor2, with broadcasting. (input, value, tensor1, tensor2) too.

    >>> import kobai
    >>> kobai.addcmul(kobai.tensor([1., 1.]), kobai.tensor([2., 3.]), kobai.tensor([4., 5.]), value=10)
    tensor([ 81., 151.])
    """
    if older:
        value, tensor1, tensor2 = tensor1, tensor2, *older
    need_tensor("addcmul", input, tensor1, tensor2)
    return add(input, mul(tensor1, tensor2), alpha=value)


@method(in_place=True)
@one_operation
def addcdiv(input: Tensor, tensor1: Any, tensor2: Tensor, *older: Any, value: float = 1) -> Tensor:
    """input + value · tensor1 / tensor2, with broadcasting. (input, value, tensor1, tensor2) too.

    >>> import kobai
    >>> kobai.addcdiv(kobai.tensor([1., 1.]), kobai.tensor([2., 3.]), kobai.tensor([4., 6.]), value=10)
    tensor([6., 6.])
    """
    if older:
        value, tensor1, tensor2 = tensor1, tensor2, *older
    need_tensor("addcdiv", input, tensor1, tensor2)
    return add(input, div(tensor1, tensor2), alpha=value)


@primitive(sample=drawn((4, 3), 0.0, 1.0, -1.0), kind="elementwise")
def _nan_to_num(x: Array, nan: float, posinf: float, neginf: float) -> Any:
    xp = xp_of(x)
    y = xp.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)
    return y, lambda dy: (dy * xp.isfinite(x),)


@method(in_place=True)
def nan_to_num(
    input: Tensor, nan: float | None = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """Replace nan by ``nan`` and ±∞ by ``posinf`` and ``neginf`` (default: the largest and least finite numbers).

    >>> import kobai
    >>> kobai.nan_to_num(kobai.tensor([float("nan"), float("inf"), 1.0]), posinf=9)
    tensor([0., 9., 1.])
    """
    need_tensor("nan_to_num", input)
    if input._array.dtype.kind not in FLOATING:
        return clone(input)
    limits = finfo(input._array.dtype)
    return _nan_to_num(
        input,
        0.0 if nan is None else nan,
        float(limits.max) if posinf is None else posinf,
        float(limits.min) if neginf is None else neginf,
    )
