"""Comparison and kinds of numbers: truth values, without a gradient."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from kobai.core.primitive import method, on_its_device, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import HALVES
from kobai.ops._args import Samples, drawn, need_one_dtype, need_tensor, pair
from kobai.ops._operators import as_operator
from kobai.ops.broadcast import broadcast_shapes
from kobai.xp import Array, xp_of

__all__ = [
    "allclose",
    "eq",
    "equal",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "le",
    "less",
    "less_equal",
    "lt",
    "ne",
    "not_equal",
    "signbit",
]

# --- comparison -------------------------------------------------------------------------------------------------------


def _two() -> Samples:
    return [drawn([(4, 3), (4, 3)]), drawn([(4, 1, 3), (2, 1)]), drawn((4, 3), 0.5), drawn([(0, 3), (3,)])]


def without_gradient(module: str, name: str, function: Any, sample: Any, kind: str = "") -> Callable[..., Tensor]:
    """The primitive ``name`` of ``module``: ``function`` of two arrays, or of an array and a number."""

    def forward(a: Array, b: Array) -> Any:
        return function(a, b), None

    forward.__name__, forward.__module__ = name, module
    return primitive(sample=sample, kind=kind)(forward)


_eq, _ne, _lt, _le, _gt, _ge = (
    without_gradient(__name__, f"_{name}", getattr(operator, name), _two(), "elementwise")
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
)


def _operands(who: str, input: Any, other: Any, wraps: bool = False) -> tuple[Any, Any]:
    """Both operands with one dtype; RuntimeError if their shapes do not broadcast."""
    need_tensor(who, input)
    a, b = pair(who, input, other, wraps=wraps)
    if type(b) is float and a._array.dtype in HALVES:
        b = float(a._array.dtype.type(b))  # as an element: 1.001 is 1 in bfloat16
    if isinstance(b, Tensor) and a._array.shape != b._array.shape:
        broadcast_shapes(a._array.shape, b._array.shape)
    return a, b


@method(in_place=True)
def eq(input: Tensor, other: Any) -> Tensor:
    """input = other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.tensor([1, 2, 3]) == kobai.tensor([1, 0, 3])
    tensor([ True, False,  True])
    """
    return _eq(*_operands("eq", input, other))


@method(in_place=True)
def ne(input: Tensor, other: Any) -> Tensor:
    """input ≠ other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.ne(kobai.tensor([1, 2, 3]), 2)
    tensor([ True, False,  True])
    """
    return _ne(*_operands("ne", input, other))


@method(in_place=True)
def lt(input: Tensor, other: Any) -> Tensor:
    """input < other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.lt(kobai.tensor([1, 2, 3]), 2)
    tensor([ True, False, False])
    """
    return _lt(*_operands("lt", input, other))


@method(in_place=True)
def le(input: Tensor, other: Any) -> Tensor:
    """input ≤ other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.le(kobai.tensor([1, 2, 3]), 2)
    tensor([ True,  True, False])
    """
    return _le(*_operands("le", input, other))


@method(in_place=True)
def gt(input: Tensor, other: Any) -> Tensor:
    """input > other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.gt(kobai.tensor([1, 2, 3]), 2)
    tensor([False, False,  True])
    """
    return _gt(*_operands("gt", input, other))


@method(in_place=True)
def ge(input: Tensor, other: Any) -> Tensor:
    """input ≥ other, elementwise with broadcasting: a tensor of truth values.

    >>> import kobai
    >>> kobai.ge(kobai.tensor([1, 2, 3]), 2)
    tensor([False,  True,  True])
    """
    return _ge(*_operands("ge", input, other))


greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne
for _alias in ("greater", "greater_equal", "less", "less_equal", "not_equal"):
    method(globals()[_alias], name=_alias, in_place=True)


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """|input − other| ≤ atol + rtol · |other|, elementwise. RuntimeError for tensors of different dtypes.

    >>> import kobai
    >>> kobai.isclose(kobai.tensor([1., 1.]), kobai.tensor([1.1, 1.2]), atol=0.15)
    tensor([ True, False])
    """
    need_tensor("isclose", input, other)
    need_one_dtype("isclose", input, other)
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not tolerance >= 0:
            raise RuntimeError(f"isclose: expected {name} >= 0, got {tolerance}")
    a, b = _operands("isclose", input, other)
    xp = xp_of(a._array)
    found = xp.isclose(a._array, b._array, rtol=rtol, atol=atol, equal_nan=equal_nan)
    return Tensor._wrap(xp.asarray(found))  # type: ignore[no-any-return]  # NumPy gives a scalar for two 0-d arrays


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Whether :func:`isclose` holds everywhere, as a Python bool.

    >>> import kobai
    >>> kobai.allclose(kobai.tensor([1.0]), kobai.tensor([1.0 + 1e-7]))
    True
    """
    return bool(isclose(input, other, rtol, atol, equal_nan)._array.all().item())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and elements, as a Python bool.

    >>> import kobai
    >>> kobai.equal(kobai.tensor([1, 2]), kobai.tensor([1, 2])), kobai.equal(kobai.tensor([1]), kobai.tensor([1, 1]))
    (True, False)
    """
    need_tensor("equal", input, other)
    return input._array.shape == other._array.shape and bool(eq(input, other)._array.all().item())


method(isclose)
method(allclose)
method(equal)


for _function in (eq, ne, lt, le, gt, ge):  # x == None is False, as in PyTorch
    setattr(Tensor, f"__{_function.__name__}__", as_operator(_function))


# --- kinds of numbers -------------------------------------------------------------------------------------------------


@on_its_device
def _kind(input: Tensor, who: str) -> Tensor:
    need_tensor(who, input)
    xp = xp_of(input._array)
    return Tensor._wrap(xp.asarray(getattr(xp, who)(input._array)))  # type: ignore[no-any-return]


@method
def isnan(input: Tensor) -> Tensor:
    """Where an element is not a number.

    >>> import kobai
    >>> kobai.isnan(kobai.tensor([1.0, float("nan"), float("inf")]))
    tensor([False,  True, False])
    """
    return _kind(input, "isnan")


@method
def isinf(input: Tensor) -> Tensor:
    """Where an element is ∞ or −∞.

    >>> import kobai
    >>> kobai.isinf(kobai.tensor([float("-inf"), float("nan"), float("inf")]))
    tensor([ True, False,  True])
    """
    return _kind(input, "isinf")


@method
def isfinite(input: Tensor) -> Tensor:
    """Where an element is neither infinite nor NaN.

    >>> import kobai
    >>> kobai.isfinite(kobai.tensor([1.0, float("nan"), float("inf")]))
    tensor([ True, False, False])
    """
    return _kind(input, "isfinite")


@method
def isposinf(input: Tensor) -> Tensor:
    """Where an element is ∞.

    >>> import kobai
    >>> kobai.isposinf(kobai.tensor([float("-inf"), 1.0, float("inf")]))
    tensor([False, False,  True])
    """
    return _eq(input, math.inf)


@method
def isneginf(input: Tensor) -> Tensor:
    """Where an element is −∞.

    >>> import kobai
    >>> kobai.isneginf(kobai.tensor([float("-inf"), 1.0, float("inf")]))
    tensor([ True, False, False])
    """
    return _eq(input, -math.inf)


@method
def signbit(input: Tensor) -> Tensor:
    """Where the sign is set: negative numbers and −0.

    >>> import kobai
    >>> kobai.signbit(kobai.tensor([-1.0, -0.0, 0.0]))
    tensor([ True,  True, False])
    """
    return _kind(input, "signbit")
