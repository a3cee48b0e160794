"""Making tensors: from data, filled, ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from kobai import xp as _xp
from kobai.core.tensor import Tensor
from kobai.dtypes import (
    FLOATING,
    contiguous_format,
    get_default_dtype,
    is_number,
    memory_format as MemoryFormat,
    numeric,
)
from kobai.errors import ArgumentError
from kobai.ops._args import held, need, need_format
from kobai.xp import Array, asarray, device, is_array, to_host

__all__ = [
    "arange",
    "as_tensor",
    "empty",
    "eye",
    "from_dlpack",
    "from_numpy",
    "full",
    "linspace",
    "logspace",
    "ones",
    "tensor",
    "zeros",
]

Device = device | str | None
F = TypeVar("F", bound=Callable[..., Any])


def _is_number(part: Any) -> bool:
    return type(part) in (bool, int, float)


def _host(data: Any, who: str, floats: Any) -> np.ndarray[Any, Any]:
    """Nested Python data as a host array, Python floats as dtype ``floats``; Tensors and device arrays inside are read.

    In a sequence of tensors of one element each they count as numbers, as in PyTorch.
    """
    if isinstance(data, Tensor):
        return to_host(data._array)
    if is_array(data):
        return to_host(data)
    if isinstance(data, Sequence) and not isinstance(data, str):
        if all((isinstance(part, Tensor) and part._array.size == 1) or _is_number(part) for part in data):
            data = [part._array.reshape(()) if isinstance(part, Tensor) else part for part in data]
        parts = [part if _is_number(part) else _host(part, who, floats) for part in data]
        try:
            host = np.asarray(parts)
        except ValueError as error:
            raise ValueError(f"{who}: expected rows of equal length, got a ragged sequence ({error})") from error
        # float64 that came from Python numbers alone takes the default dtype, as in PyTorch
        if host.dtype == np.float64 and not any(isinstance(p, np.ndarray) and p.dtype == np.float64 for p in parts):
            host = host.astype(floats)
        return host if host.size or host.dtype.kind not in FLOATING else host.astype(floats)
    if isinstance(data, (bool, int, float)) and not isinstance(data, np.generic):
        return np.asarray(data, dtype=floats if isinstance(data, float) else None)
    host = np.asarray(data)
    if not is_number(host.dtype):
        raise TypeError(
            f"{who}: expected numbers, sequences of numbers or an array, got {type(data).__name__} ({host.dtype})"
        )
    return host


def _fitted(host: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Python's numbers as ``dtype``; RuntimeError for integers that do not fit, but −1 may become unsigned."""
    if dtype.kind in "iu" and host.dtype != dtype and host.size:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        for number in (host.min().item(), host.max().item()):
            if not (-high if dtype.kind == "u" else low) <= number <= high:  # nor is nan
                raise RuntimeError(f"tensor: expected numbers that fit into {dtype}, got {number}")
    return host.astype(dtype)


def _checked(who: str, array: Array) -> Array:
    """``array`` if its dtype is one of Kobai's, in the byte order of this machine; TypeError for text, objects, ..."""
    if not is_number(array.dtype):
        raise TypeError(f"{who}: expected a bool, integer or float array, got {array.dtype}")
    if isinstance(array, np.ndarray):
        array = np.asarray(array)  # memmap, matrix, ...: their operators may mean something else
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _home(array: Array, where: Device) -> Device:
    """The device for ``array``: ``where`` if given, the default device for one of the host; None, where it is."""
    return _xp.default_device() if where is None and isinstance(array, np.ndarray) else where


def tensor(data: Any, *, dtype: Any = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """A tensor holding a copy of ``data``: a number, nested sequences, an array, a tensor.

    Python floats become the default dtype (float32), integers int64; arrays keep their dtype. Data of the host goes to the
    default device, see :func:`kobai.use`; tensors and arrays of a device stay there.

    Errors: TypeError for what is not numeric, ValueError for ragged sequences.

    >>> import kobai
    >>> kobai.tensor([[1, 2], [3, 4]]).dtype, kobai.tensor([1.5, 2]).dtype
    (kobai.int64, kobai.float32)
    """
    if isinstance(data, Tensor) or is_array(data):
        source = data._array if isinstance(data, Tensor) else _checked("tensor", data)
        device = device if isinstance(data, Tensor) else _home(data, device)
        with _xp.beside(source):
            made = source.astype(numeric(dtype or source.dtype))  # which copies
        made = _xp.move(made, device)
        return Tensor._wrap(made, requires_grad)  # type: ignore[no-any-return]
    host = _checked("tensor", _host(data, "tensor", get_default_dtype() if dtype is None else np.float64))
    made = asarray(_fitted(host, numeric(dtype or host.dtype)), device=device or _xp.default_device())
    return Tensor._wrap(made, requires_grad)  # type: ignore[no-any-return]


def as_tensor(data: Any, dtype: Any = None, device: Device = None) -> Tensor:
    """As :func:`tensor`, but without a copy where dtype and device already fit.

    >>> import kobai
    >>> x = kobai.tensor([1, 2])
    >>> kobai.as_tensor(x) is x, kobai.as_tensor([1, 2], dtype=kobai.float32)
    (True, tensor([1., 2.]))
    """
    if isinstance(data, Tensor):
        return data.to(device=device, dtype=dtype)  # type: ignore[no-any-return]
    if is_array(data):
        return Tensor._wrap(asarray(_checked("as_tensor", data), dtype=dtype, device=_home(data, device)))  # type: ignore[no-any-return]
    return tensor(data, dtype=dtype, device=device)


def from_numpy(ndarray: np.ndarray[Any, Any]) -> Tensor:
    """A CPU tensor that shares memory with a NumPy array; a change of one is a change of the other.

    >>> import kobai
    >>> import numpy as np
    >>> a = np.zeros(2)
    >>> t = kobai.from_numpy(a)
    >>> a[0] = 5
    >>> t
    tensor([5., 0.], dtype=kobai.float64)
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(ndarray).__name__}")
    if not ndarray.dtype.isnative:
        raise ValueError(
            f"from_numpy: expected the byte order of this machine, got {ndarray.dtype}; use kobai.tensor()"
        )
    return Tensor._wrap(np.asarray(_checked("from_numpy", ndarray)))  # type: ignore[no-any-return]


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor that shares memory with an array of another library, through the DLPack protocol.

    Specification: https://dmlc.github.io/dlpack

    >>> import kobai
    >>> import numpy as np
    >>> kobai.from_dlpack(np.arange(3))
    tensor([0, 1, 2])
    """
    if not hasattr(ext_tensor, "__dlpack__"):
        raise TypeError(f"from_dlpack: expected an object with __dlpack__, got {type(ext_tensor).__name__}")
    kind = ext_tensor.__dlpack_device__()[0]
    where = device("cpu") if kind == 1 else device("cuda")
    shared = _xp.namespace(where).from_dlpack(ext_tensor)
    own = ext_tensor._array if isinstance(ext_tensor, Tensor) else ext_tensor
    if isinstance(shared, np.ndarray) and not shared.flags.writeable and isinstance(own, np.ndarray):
        shared = own  # NumPy 2.0 lets nobody write to what came through the protocol
    return Tensor._wrap(shared)  # type: ignore[no-any-return]


def _shape(who: str, size: Any) -> tuple[int, ...]:
    """Sizes given as integers or as one sequence, checked."""
    if len(size) == 1 and (isinstance(size[0], (tuple, list)) or not isinstance(size[0], (int, np.integer, Tensor))):
        size = size[0]
    try:
        shape = tuple(int(n.item() if isinstance(n, Tensor) else n.__index__()) for n in size)
    except (TypeError, AttributeError) as error:
        raise TypeError(f"{who}: expected sizes as integers or one sequence of integers, got {size!r}") from error
    if any(n < 0 for n in shape):
        raise RuntimeError(f"{who}: expected sizes >= 0, got {shape}")
    return shape


def _takes_size(function: F) -> F:
    """Accept PyTorch's keyword too: ``zeros(size=(2, 3))`` is ``zeros(2, 3)``."""

    @wraps(function)
    def named(*sizes: Any, size: Any = None, **options: Any) -> Any:
        if size is not None:
            if sizes:
                raise TypeError(f"{function.__name__}: expected sizes once, got {sizes} and size={size}")
            sizes = (size,)
        return function(*sizes, **options)

    return named  # type: ignore[return-value]


def _filled(who: str, size: Any, value: Any, dtype: Any, where: Device, requires_grad: bool) -> Tensor:
    shape = _shape(who, size)
    with _xp.on(where):
        kind = numeric(dtype or get_default_dtype())
        made = _xp.namespace(where).full(shape, held(who, value, kind), dtype=kind)
    return Tensor._wrap(made, requires_grad)  # type: ignore[no-any-return]


@_takes_size
def zeros(*size: Any, dtype: Any = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """A tensor of zeros; ``size`` as integers or one sequence.

    >>> import kobai
    >>> kobai.zeros(2, 3).shape
    kobai.Size([2, 3])
    """
    return _filled("zeros", size, 0, dtype, device, requires_grad)


@_takes_size
def ones(*size: Any, dtype: Any = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """A tensor of ones; ``size`` as integers or one sequence.

    >>> import kobai
    >>> kobai.ones(2, 3)
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    return _filled("ones", size, 1, dtype, device, requires_grad)


@_takes_size
def empty(
    *size: Any,
    dtype: Any = None,
    device: Device = None,
    requires_grad: bool = False,
    memory_format: MemoryFormat = contiguous_format,
) -> Tensor:
    """A tensor whose elements are not set to anything. A :class:`kobai.memory_format` changes nothing.

    >>> import kobai
    >>> kobai.empty(2, 3).shape
    kobai.Size([2, 3])
    """
    shape = _shape("empty", size)
    if memory_format is not contiguous_format:
        need_format("empty", memory_format, len(shape))
    with _xp.on(device):
        made = _xp.namespace(device).empty(shape, dtype=numeric(dtype or get_default_dtype()))
    return Tensor._wrap(made, requires_grad)  # type: ignore[no-any-return]


def full(
    size: Any, fill_value: Any, *, dtype: Any = None, device: Device = None, requires_grad: bool = False
) -> Tensor:
    """A tensor filled with one number; its dtype follows the number (bool, int64, default float) unless given.

    >>> import kobai
    >>> kobai.full((2,), 7), kobai.full((2,), 0.5)
    (tensor([7, 7]), tensor([0.5000, 0.5000]))
    """
    value = fill_value.item() if isinstance(fill_value, (Tensor, np.generic)) else fill_value
    if dtype is None:
        dtype = {bool: np.bool_, int: np.int64}.get(type(value), get_default_dtype())
    return _filled("full", (size,), value, dtype, device, requires_grad)


def arange(
    start: Any = None,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Device = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, ... below ``end`` (from 0 if one bound is given); int64 if all three are integers.

    With a ``dtype`` of integers ``start`` and ``step`` lose their fractions, for int64 ``end`` does too.

    >>> import kobai
    >>> kobai.arange(0, 1, 0.25)
    tensor([0.0000, 0.2500, 0.5000, 0.7500])
    """
    if start is None and end is None:
        raise TypeError("arange: expected an end")
    if start is None or end is None:
        start, end = 0, end if start is None else start
    start, end, step = _number(start), _number(end), _number(step)
    if not all(math.isfinite(v) for v in (start, end)):
        raise RuntimeError(f"arange: expected finite bounds, got {start} and {end}")
    if step == 0 or not (end - start) / step >= 0:
        raise RuntimeError(f"arange: expected steps from {start} towards {end}, got step {step}")
    if dtype is None:
        dtype = np.int64 if all(isinstance(v, int) for v in (start, end, step)) else get_default_dtype()
    dtype = numeric(dtype)
    if dtype.kind in "iu":
        # Bounds and step lose their fractions, as in PyTorch, where only int64 does so before it counts.
        whole = tuple(math.trunc(v) for v in (start, end, step))
        first, last, by = whole if dtype == np.int64 else (start, end, step)
        start, step = whole[0], whole[2]
        if not step:
            raise ArgumentError(f"arange: expected a step of at least 1 for {dtype}, got {by}")
        count = max(math.ceil((last - first) / by), 0) if isinstance(by, float) else max(-(-(last - first) // by), 0)
        host = start + step * np.arange(count)
    else:
        host = np.arange(start, end, step)
    return Tensor._wrap(asarray(host.astype(dtype), device=device or _xp.default_device()), requires_grad)  # type: ignore[no-any-return]


def linspace(
    start: Any, end: Any, steps: int, *, dtype: Any = None, device: Device = None, requires_grad: bool = False
) -> Tensor:
    """``steps`` evenly spaced numbers from ``start`` to ``end``, both included.

    With a ``dtype`` of integers the bounds lose their fractions first, then the numbers between them.

    >>> import kobai
    >>> kobai.linspace(0, 1, 5)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    _need_steps("linspace", steps)
    start, end = _number(start), _number(end)
    kind = numeric(dtype or get_default_dtype())
    if kind.kind in "iu":
        host = np.trunc(_between_whole(start, end, steps)).astype(kind)
    else:
        host = np.linspace(float(start), float(end), steps).astype(kind)
    return Tensor._wrap(asarray(host, device=device or _xp.default_device()), requires_grad)  # type: ignore[no-any-return]


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Device = None,
    requires_grad: bool = False,
) -> Tensor:
    """``steps`` numbers from baseˢᵗᵃʳᵗ to baseᵉⁿᵈ, evenly spaced in their exponents.

    With a ``dtype`` of integers the exponents' bounds lose their fractions first, then the numbers.

    >>> import kobai
    >>> kobai.logspace(0, 3, 4)
    tensor([   1.,   10.,  100., 1000.])
    """
    _need_steps("logspace", steps)
    start, end = _number(start), _number(end)
    kind = numeric(dtype or get_default_dtype())
    if kind.kind in "iu":
        exponents = _between_whole(start, end, steps) if steps != 1 else np.array([float(start)])
        host = np.power(float(base), exponents).astype(kind)
    else:
        host = np.logspace(float(start), float(end), steps, base=base).astype(kind)
    return Tensor._wrap(asarray(host, device=device or _xp.default_device()), requires_grad)  # type: ignore[no-any-return]


def _between_whole(start: Any, end: Any, steps: int) -> np.ndarray[Any, Any]:
    """``steps`` numbers from ``start`` to ``end``, which lose their fractions first, as in PyTorch for dtypes of integers.

    Each half is counted from its own end, as there: rounding then decides alike where a number is nearly whole.
    """
    first, last = float(math.trunc(start)), float(math.trunc(end))
    step, i = (last - first) / max(steps - 1, 1), np.arange(steps)
    return np.where((i < steps // 2) | (steps == 1), first + step * i, last - step * (steps - 1 - i))


def _number(bound: Any) -> Any:
    """A bound of a range, which may be a tensor of one element, as a Python number."""
    return bound.item() if isinstance(bound, (Tensor, np.generic)) else bound


def _need_steps(who: str, steps: int) -> None:
    if isinstance(steps, bool) or not hasattr(steps, "__index__"):
        raise TypeError(f"{who}: expected steps to be an integer, got {steps!r}")
    need(who, steps >= 0, "steps >= 0", steps)


def eye(
    n: int, m: int | None = None, *, dtype: Any = None, device: Device = None, requires_grad: bool = False
) -> Tensor:
    """The n × m matrix with ones on its diagonal.

    >>> import kobai
    >>> kobai.eye(2, 3)
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    rows, columns = _shape("eye", (n, n if m is None else m))
    with _xp.on(device):
        made = _xp.namespace(device).eye(rows, columns, dtype=numeric(dtype or get_default_dtype()))
    return Tensor._wrap(made, requires_grad)  # type: ignore[no-any-return]
