"""In-place forms that change memory itself, without an array for the result: ``x.mul_(0.9).add_(g, alpha=0.1)``.

They take what is usual – arrays of float32 or float64 on the host. For all else they return False, which leaves the arguments,
and the errors that they raise, to the operation. Each can be called as its operation can: a test compares their signatures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from kobai.core.primitive import DIRECT, need_own_places
from kobai.core.tensor import Tensor
from kobai.engine.dispatch import FLOATS, HOST_TYPES
from kobai.formula.elementwise import Elementwise
from kobai.ops import _formulas
from kobai.ops._args import normalize_axis
from kobai.ops._positions import add_along, looped, mesh
from kobai.ops.arithmetic import add, div, mul, sub
from kobai.ops.gather import check_index, check_slices, masked_fill
from kobai.ops.pointwise import addcdiv, addcmul, clamp, lerp
from kobai.ops.scatter import add_elements, index_add, scatter, scatter_add
from kobai.xp import xp_of

__all__: list[str] = []  # methods of other modules


def _own(target: Tensor) -> Any:
    """The array of ``target`` if it is one that is changed here, else None."""
    array = target._array
    if array.dtype not in FLOATS or type(array) not in HOST_TYPES:
        return None
    need_own_places(array)
    return array


def _beside(array: Any, other: Any) -> Any:
    """``other`` as an operand of ``array`` that does not change its shape or dtype, else None."""
    if type(other) is int or type(other) is float:
        return other
    if not isinstance(other, Tensor) or other._array.dtype != array.dtype or type(other._array) not in HOST_TYPES:
        return None
    shape, present = other._array.shape, array.shape
    if shape != present and (
        len(shape) > len(present) or any(n not in (1, m) for n, m in zip(shape[::-1], present[::-1], strict=False))
    ):
        return None
    return other._array


def _arithmetic(ufunc: str, sign: float = 0) -> Any:
    """x ← x ∘ y by one call; with a ``sign``, x ± alpha · y too."""

    def direct(target: Tensor, other: Any, *older: Any, alpha: float = 1, rounding_mode: str | None = None) -> bool:
        array = None if older or rounding_mode is not None else _own(target)
        operand = None if array is None else _beside(array, other)
        if operand is None:
            return False
        if alpha == 1:
            getattr(xp_of(array), ufunc)(array, operand, out=array)
            return True
        return bool(sign) and _by(_formulas.add_scaled, target, other, alpha=sign * alpha)

    return direct


def _by(kernel: Elementwise, target: Tensor, *others: Any, **numbers: Any) -> bool:
    """By a formula of arrays of one shape, of which the result takes the place of the first."""
    array = _own(target)
    if array is None:
        return False
    for number in numbers.values():
        if type(number) is not float and type(number) is not int:
            return False
    slots = [array]
    for other in others:
        beside = other._array if isinstance(other, Tensor) else None
        if beside is None or beside.dtype != array.dtype or beside.shape != array.shape:
            return False
        if type(beside) not in HOST_TYPES or (beside is not array and xp_of(array).may_share_memory(beside, array)):
            return False
        slots.append(beside)
    kernel.into_first(slots, numbers)
    return True


def _clamp(target: Tensor, min: Any = None, max: Any = None) -> bool:
    if min is None and max is None:
        return False
    return _by(
        _formulas.clamp, target, low=-float("inf") if min is None else min, high=float("inf") if max is None else max
    )


def _index_add(target: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> bool:
    array = _own(target)
    if array is None or not array.ndim or not isinstance(index, Tensor) or not isinstance(source, Tensor):
        return False
    if alpha != 1 or source._array.dtype != array.dtype or not looped(array, index._array, source._array):
        return False
    if xp_of(array).may_share_memory(source._array, array):
        return False
    axis = check_slices("index_add", target, dim, index, source)
    add_along(array, axis, index._array, source._array)
    return True


def _scatter_add(target: Tensor, dim: int, index: Tensor, src: Tensor) -> bool:
    array = _own(target)
    if array is None or not array.ndim or not isinstance(index, Tensor) or not isinstance(src, Tensor):
        return False
    if src._array.dtype != array.dtype or not looped(array, index._array, src._array) or not index._array.size:
        return False
    if xp_of(array).may_share_memory(src._array, array):
        return False
    axis = normalize_axis("scatter_add", dim, array.ndim)
    check_index("scatter_add", array.shape, axis, index, src._array.shape)
    add_elements(array, index._array, axis, src._array[tuple(slice(n) for n in index._array.shape)])
    return True


def _scatter(
    target: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> bool:
    """Of a number."""
    array, number = _own(target), value if src is None else src
    if array is None or not array.ndim or not isinstance(index, Tensor) or not (src is None or value is None) or reduce:
        return False
    if (type(number) is not int and type(number) is not float) or type(index._array) not in HOST_TYPES:
        return False
    axis = normalize_axis("scatter", dim, array.ndim)
    check_index("scatter", array.shape, axis, index)
    if index._array.ndim != array.ndim:  # without elements
        return False
    array[mesh(index._array, axis)] = number
    return True


def _masked_fill(target: Tensor, mask: Tensor, value: Any) -> bool:
    array = _own(target)
    if array is None or not (type(value) is int or type(value) is float) or not isinstance(mask, Tensor):
        return False
    where = mask._array
    if where.dtype.kind != "b" or where.shape != array.shape or type(where) not in HOST_TYPES:
        return False
    xp_of(array).copyto(array, value, where=where)
    return True


def _counted(direct: Callable[..., bool]) -> Callable[..., bool]:
    """``direct``, whose changes the tensor counts."""

    @wraps(direct)
    def counted(target: Tensor, *args: Any, **options: Any) -> bool:
        done = direct(target, *args, **options)
        if done:
            target._bump()
        return done

    return counted


_FORMS: dict[Callable[..., Any], Callable[..., bool]] = {
    add: _arithmetic("add", 1),
    sub: _arithmetic("subtract", -1),
    mul: _arithmetic("multiply"),
    div: _arithmetic("divide"),
    clamp: _clamp,
    lerp: lambda target, end, weight: _by(_formulas.lerp, target, end, weight=weight),
    addcmul: lambda target, tensor1, tensor2, *older, value=1: (
        not older and _by(_formulas.addcmul, target, tensor1, tensor2, value=value)
    ),
    addcdiv: lambda target, tensor1, tensor2, *older, value=1: (
        not older and _by(_formulas.addcdiv, target, tensor1, tensor2, value=value)
    ),
    index_add: _index_add,
    scatter_add: _scatter_add,
    scatter: _scatter,
    masked_fill: _masked_fill,
}
DIRECT.update((op, _counted(direct)) for op, direct in _FORMS.items())
