"""What the public functions of ``ops`` share: turning arguments into tensors, dtype promotion, axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from kobai.core import autocast
from kobai.core.primitive import on_its_device, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import (
    FLOATING,
    bfloat16,
    get_default_dtype,
    memory_format as MemoryFormat,
    numeric,
    preserve_format,
    promoted,
)
from kobai.ops._sums import total
from kobai.refusals import truth_values
from kobai.xp import Array, asarray, default_device, is_array, write

F = TypeVar("F", bound=Callable[..., Any])

Samples = list[Callable[["np.random.Generator"], tuple[Any, ...]]]


def drawn(shapes: Any, *rest: Any, between: tuple[float, float] | None = None) -> Any:
    """One sample of a primitive: random arrays, normal or uniform ``between`` two numbers, followed by ``rest``.

    ``shapes`` is the shape of one array, or a list with those of several.
    """

    def arguments(rng: np.random.Generator) -> tuple[Any, ...]:
        sizes = shapes if isinstance(shapes, list) else [shapes]
        return *(rng.normal(size=n) if between is None else rng.uniform(*between, n) for n in sizes), *rest

    return arguments


def category(dtype: np.dtype[Any]) -> int:
    """0 for bool, 1 for integers, 2 for floats."""
    kind = dtype.kind
    if kind in FLOATING:
        return 2
    if kind in "iu":
        return 1
    if kind == "b":
        return 0
    raise TypeError(f"dtype: expected a bool, integer or float dtype, got {dtype}")


@primitive(sample=[drawn((4, 3), np.float64), drawn((0, 3), np.float64)], half="own")
def _cast(x: Array, dtype: Any) -> Any:
    before = x.dtype
    return x.astype(dtype), lambda dy: (dy.astype(before),)


def cast(x: Tensor, dtype: Any) -> Tensor:
    """``x`` with elements of ``dtype``; itself if they are already."""
    dtype = numeric(dtype)
    if x._array.dtype == dtype:
        return x
    if dtype.kind not in FLOATING or x._array.dtype.kind not in FLOATING:
        return _converted(x, dtype)
    return _cast(x, dtype)


@on_its_device
def _converted(x: Tensor, dtype: Any) -> Tensor:
    return Tensor._wrap(x._array.astype(dtype))  # type: ignore[no-any-return]


autocast.cast = cast


def as_asked(y: Tensor, dtype: Any) -> Tensor:
    """A result in the dtype asked for, if any: that of its input, except under autocast."""
    return y if dtype is None else cast(y, dtype)


def as_float(who: str, input: Any) -> Tensor:
    """``input`` checked to be a Tensor, integers converted to the default float dtype."""
    need_tensor(who, input)
    return input if input._array.dtype.kind in FLOATING else cast(input, get_default_dtype())


def scalar(who: str, value: Any, like: Tensor, dtype: Any = None) -> Tensor:
    """A number as a tensor without dimensions on the device of ``like``, of its dtype or another."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, (bool, int, float)):
        raise TypeError(f"{who}: expected a Tensor or a number, got {type(value).__name__}")
    dtype = like._array.dtype if dtype is None else numeric(dtype)
    return Tensor._wrap(asarray(held(who, value, dtype), dtype=dtype, device=like.device))  # type: ignore[no-any-return]


def need_tensor(who: str, *values: Any) -> None:
    """TypeError unless every value is a Tensor."""
    for value in values:
        if not isinstance(value, Tensor):
            raise TypeError(f"{who}: expected a Tensor, got {type(value).__name__}{_remedy(value)}")


def need_format(who: str, memory_format: Any, ndim: int) -> None:
    """TypeError unless it is a memory format, RuntimeError if it is one for another number of dimensions."""
    if not isinstance(memory_format, MemoryFormat):
        raise TypeError(f"{who}: expected a memory format such as kobai.channels_last, got {memory_format!r}")
    if memory_format.ndim not in (None, ndim):
        raise RuntimeError(f"{who}: expected {memory_format.ndim} dimensions for {memory_format!r}, got {ndim}")


def takes_format(function: F) -> F:
    """Accept a memory format: it is checked, and changes nothing."""

    @wraps(function)
    def formatted(*args: Any, memory_format: Any = preserve_format, **options: Any) -> Any:
        made = function(*args, **options)
        need_format(function.__name__, memory_format, made.ndim)
        return made

    return formatted  # type: ignore[return-value]


def _remedy(value: Any) -> str:
    return "; make it one with kobai.tensor()" if isinstance(value, (np.ndarray, list, tuple)) else ""


def need(who: str, holds: Any, expected: str, got: Any) -> None:
    """RuntimeError unless an argument is as expected. For functions that take much longer than this call."""
    if not holds:
        raise RuntimeError(f"{who}: expected {expected}, got {got}")


def need_flags(who: str, **flags: Any) -> None:
    """TypeError for a flag that is not a bool: Python would take ``"False"`` and ``[0]`` for true."""
    for name, flag in flags.items():
        if type(flag) is not bool and not isinstance(flag, np.bool_):
            raise TypeError(f"{who}: expected {name} to be True or False, got {flag!r}")


def need_one_dtype(who: str, *tensors: Tensor | None) -> None:
    """RuntimeError unless all tensors that are given have the same dtype, or autocast is about to give them one."""
    dtypes = [t._array.dtype for t in tensors if t is not None]
    if any(d != dtypes[0] for d in dtypes) and not (autocast.state.dtypes and autocast.CASTABLE.issuperset(dtypes)):
        raise RuntimeError(
            f"{who}: expected tensors of one dtype, got {', '.join(map(str, dtypes))}; convert with .to(dtype)"
        )


def result_dtype(a: Tensor, b: Tensor) -> np.dtype[Any]:
    """PyTorch's promotion: of two tensors the higher category wins; inside one category, the one with dimensions."""
    x, y = a._array.dtype, b._array.dtype
    if x == y:
        return x  # type: ignore[no-any-return]
    cx, cy = category(x), category(y)
    if cx != cy:
        return x if cx > cy else y  # type: ignore[no-any-return]
    if (a._array.ndim == 0) != (b._array.ndim == 0):
        return y if a._array.ndim == 0 else x  # type: ignore[no-any-return]
    return promoted(x, y)


def pair(
    who: str,
    a: Any,
    b: Any,
    to_float: bool = False,
    wraps: bool = True,
    bools: bool = True,
    tensors: int = 0,
) -> tuple[Any, Any]:
    """Both operands of a binary operation with one dtype: Tensors, or one Tensor and one Python number.

    Python numbers are weak, as in PyTorch: they take the tensor's dtype unless they are of a higher category. Integers
    that it cannot hold wrap modulo 2ᵇⁱᵗˢ, as its arithmetic does; without ``wraps`` they are left as they are.
    Without ``bools``, bools are refused; two bool tensors are left to the primitive, which raises. ``tensors``
    is how many of them must be tensors.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a._array.dtype is not b._array.dtype or (to_float and a._array.dtype.kind not in FLOATING):
            if not bools and (a._array.dtype.kind == "b" or b._array.dtype.kind == "b"):
                raise truth_values(who, a.dtype, b.dtype)
            dtype: Any = result_dtype(a, b)
            if to_float and dtype.kind not in FLOATING:
                dtype = get_default_dtype()
            a, b = cast(a, dtype), cast(b, dtype)
        return a, b
    if tensors == 2:
        need_tensor(who, a, b)
    if not isinstance(a, Tensor):
        if not isinstance(b, Tensor):
            if tensors or not all(isinstance(x, (bool, int, float)) for x in (a, b)):
                expected = "a Tensor and a number" if tensors else "a Tensor or a number"
                raise TypeError(f"{who}: expected {expected}, got {type(a).__name__} and {type(b).__name__}")
            kind = {bool: np.dtype(np.bool_), int: np.dtype(np.int64)}.get(type(b), get_default_dtype())
            b = Tensor._wrap(asarray(np.asarray(b, kind), device=default_device()))  # add(1, 2) is a tensor
        y, x = pair(who, b, a, to_float, wraps, bools)
        return x, y
    if isinstance(b, np.generic):
        b = b.item()
    if not isinstance(b, (bool, int, float)):
        if is_array(b):
            return pair(who, a, Tensor._wrap(asarray(b)), to_float, wraps, bools)
        raise TypeError(f"{who}: expected a Tensor or a number, got {type(b).__name__}")
    kind = a._array.dtype.kind
    if not bools and (kind == "b" or type(b) is bool):
        raise truth_values(who, a.dtype, type(b).__name__)
    if kind not in FLOATING:
        if to_float or type(b) is float:
            a = cast(a, get_default_dtype())
        elif type(b) is int:
            if kind == "b":
                a = cast(a, np.int64)
            if wraps and not 0 <= b <= 127:  # these fit everywhere
                b = wrapped(who, b, a._array.dtype)
    return a, b


def held(who: str, value: Any, dtype: np.dtype[Any]) -> Any:
    """``value`` as an element of ``dtype``: a negative one wraps if that is unsigned; RuntimeError if it does not fit."""
    if dtype.kind not in "iu" or type(value) is not int:
        return value
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if not (-high if dtype.kind == "u" else low) <= value <= high:
        raise RuntimeError(f"{who}: expected an integer that fits into {dtype}, got {value}")
    return wrapped(who, value, dtype)


def wrapped(who: str, n: int, dtype: np.dtype[Any]) -> int:
    """``n`` modulo 2ᵇⁱᵗˢ, as the arithmetic of an integer ``dtype`` wraps it; OverflowError beyond 64 bits."""
    if not -(2**63) <= n < 2**64:
        raise OverflowError(f"{who}: expected an integer of 64 bits, got {n}")
    bits = 8 * dtype.itemsize
    n &= (1 << bits) - 1
    return n - (1 << bits) if dtype.kind == "i" and n >> (bits - 1) else n


def need_numbers(who: str, a: Any, b: Any) -> tuple[Any, Any]:
    """The operands, of one dtype; NotImplementedError for bools, which NumPy would turn into int8."""
    if (a if isinstance(a, Tensor) else b)._array.dtype.kind == "b":
        raise truth_values(who, "bool", "bool")
    return a, b


def sortable(array: Array) -> Array:
    """``array`` for sorting and searching: bfloat16 as float32, for its own order has no place for NaN."""
    return array.astype(np.float32) if array.dtype == bfloat16.dtype else array


def shape_of(x: Any) -> tuple[int, ...] | None:
    """Shape of an array, None for a Python number: what a vjp keeps of an operand whose values it does not need."""
    return None if isinstance(x, (bool, int, float)) else x.shape


def unbroadcast(g: Array, shape: tuple[int, ...] | None) -> Any:
    """Sum a gradient over the axes along which an operand of ``shape`` was broadcast; None for a Python number.

    Broadcasting copies; the transpose of copying is adding up.
    """
    if shape is None or g.shape == shape:
        return None if shape is None else g
    extra = g.ndim - len(shape)
    axes = (*range(extra), *(i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1))
    return total(g, axes, True).reshape(shape)


def normalize_axis(who: str, dim: Any, ndim: int) -> int:
    """``dim`` counted from the front; IndexError if there is no such dimension."""
    if not isinstance(dim, (int, np.integer)) or isinstance(dim, bool):
        raise TypeError(f"{who}: expected dim to be an integer, got {dim!r}")
    bound = max(ndim, 1)  # PyTorch lets -1 and 0 name the missing axis of a scalar
    if not -bound <= dim < bound:
        raise IndexError(f"{who}: expected dim in [{-bound}, {bound - 1}], got {dim}")
    return int(dim) % bound


def existing_axis(who: str, dim: Any, ndim: int, error: type[Exception] = IndexError) -> int:
    """``dim`` counted from the front; ``error`` for a tensor without dimensions."""
    axis = normalize_axis(who, dim, ndim)
    if not ndim:
        raise error(f"{who}: expected a tensor with dimensions, got one without")
    return axis


def normalize_axes(who: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """Every dimension named by ``dim`` (None: all; an integer; a sequence), counted from the front, without repeats."""
    if dim is None:
        return tuple(range(ndim))
    axes = tuple(normalize_axis(who, d, ndim) for d in (dim if isinstance(dim, Sequence) else (dim,)))
    if len(set(axes)) != len(axes):
        raise RuntimeError(f"{who}: dim {tuple(dim)} names a dimension twice")
    return tuple(axis for axis in axes if axis < ndim) if dim != () else tuple(range(ndim))


def numpy_names(function: F) -> F:
    """Accept NumPy's names ``axis`` and ``keepdims`` for ``dim`` and ``keepdim``, as PyTorch does, and its methods' own."""

    @wraps(function)
    def renamed(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            for theirs, ours in _SYNONYMS:
                if theirs in kwargs:
                    kwargs[ours] = kwargs.pop(theirs)
        return function(*args, **kwargs)

    return renamed  # type: ignore[return-value]


_SYNONYMS = (("axis", "dim"), ("keepdims", "keepdim"), ("split_size", "split_size_or_sections"))


def numbers_between(function: F) -> F:
    """Accept PyTorch's older order too, with β before the first tensor and α before the second: (β, input, α, x, y)."""

    @wraps(function)
    def ordered(*args: Any, **options: Any) -> Any:
        if len(args) > 3:
            numbers = [arg for arg in args if not isinstance(arg, Tensor)]
            args = tuple(arg for arg in args if isinstance(arg, Tensor))
            options.update(zip(("beta", "alpha"), numbers, strict=False))
        return function(*args, **options)

    return ordered  # type: ignore[return-value]


def into(who: str, out: Tensor | None, result: Tensor) -> Tensor:
    """``result`` of a function with ``out=``: written into that tensor, which is returned; without one, as it is.

    A tensor without elements takes the result's shape. Gradients do not flow through ``out``.
    """
    if out is None:
        return result
    need_tensor(who, out)
    if result.requires_grad or out.requires_grad:
        raise RuntimeError(f"{who}: out= takes no part in differentiation; use the returned tensor, or no_grad()")
    if category(result._array.dtype) > category(out._array.dtype):
        raise RuntimeError(f"{who}: a result of {result.dtype} cannot be kept in an out= tensor of {out.dtype}")
    if out._array.size > 1 and any(s == 0 < n - 1 for s, n in zip(out._array.strides, out.shape, strict=True)):
        raise RuntimeError(f"{who}: elements of out= of shape {tuple(out.shape)} share memory; clone() it first")
    if out._array.shape == result._array.shape:
        write(out._array, result._array)
    elif out._array.size == 0:
        out._array = result._array.astype(out._array.dtype, copy=False)
    else:
        raise RuntimeError(f"{who}: expected out= of shape {tuple(result.shape)}, got {tuple(out.shape)}")
    out._bump()
    return out
