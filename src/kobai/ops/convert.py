"""Moving tensors between dtypes and devices, and questions about both."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from kobai import xp as _xp
from kobai.core.primitive import method, primitive
from kobai.core.tensor import Tensor
from kobai.dtypes import _of, dtype as DType, get_default_dtype, memory_format as MemoryFormat, preserve_format
from kobai.ops._args import cast, category, drawn, need_format, pair, result_dtype as promotion
from kobai.ops.create import Device, empty, tensor
from kobai.ops.typed import TYPES, TensorType, type_named, type_of
from kobai.xp import Array, device_of

__all__ = [
    "can_cast",
    "is_floating_point",
    "is_tensor",
    "numel",
    "promote_types",
    "result_type",
]


@primitive(sample=drawn((4, 3), None), half="own")
def _move(x: Array, where: Device) -> Any:
    before = device_of(x)
    return _xp.move(x, where), lambda dy: (_xp.move(dy, before),)


@method
def to(
    self: Tensor,
    *args: Any,
    device: Device = None,
    dtype: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: MemoryFormat = preserve_format,
) -> Tensor:
    """This tensor with another dtype and/or on another device; itself if nothing changes (unless ``copy=True``).

    ``x.to("cuda")``, ``x.to(kobai.float64)``, ``x.to("cuda", kobai.float16)``, ``x.to(other)``. Recorded on the tape.
    ``non_blocking=True`` allows a copy to a GPU to be still under way on return; without it ``to`` waits for the device.
    A :class:`kobai.memory_format` changes nothing.
    """
    switches = [arg for arg in args if isinstance(arg, bool)]  # non_blocking and copy, by position
    if len(switches) > 2:
        raise TypeError(f"to: expected at most non_blocking and copy as truth values, got {len(switches)}")
    non_blocking, copy = (*switches, *(non_blocking, copy)[len(switches) :])
    if memory_format is not preserve_format:
        need_format("to", memory_format, self.ndim)
    for arg in args:
        if isinstance(arg, bool):
            continue
        if isinstance(arg, Tensor):
            device, dtype = arg.device, arg.dtype
        elif isinstance(arg, _xp.device) or (isinstance(arg, str) and not _names_dtype(arg)):
            device = arg
        elif isinstance(arg, int):
            device = f"cuda:{arg}"
        elif arg is not None:
            dtype = arg
    if isinstance(device, int):
        device = f"cuda:{device}"
    out = self if dtype is None else cast(self, dtype)
    if device is not None and not _is_there(out, device):
        out = _move(out, device)
        if not non_blocking:
            _xp.synchronize(device)
    if copy and out is self:
        out = self.clone()
    return out


def _names_dtype(text: str) -> bool:
    try:
        np.dtype(text)
    except TypeError:
        return False
    return True


def _is_there(x: Tensor, where: Device) -> bool:
    target, here = _xp.device(where), x.device  # type: ignore[arg-type]
    return target == here or (target.type == here.type and target.index is None)


@method
def cpu(self: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
    """This tensor on the CPU; itself if it is there. A memory format changes nothing."""
    return to(self, device="cpu", memory_format=memory_format)


@method
def cuda(
    self: Tensor,
    device: int | Device = None,
    non_blocking: bool = False,
    memory_format: MemoryFormat = preserve_format,
) -> Tensor:
    """This tensor on a GPU (the first one by default); itself if it is there. A memory format changes nothing."""
    where = "cuda" if device is None else device
    return to(self, device=where, non_blocking=non_blocking, memory_format=memory_format)  # type: ignore[arg-type]


@partial(method, name="type")
def _type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """This tensor with elements of ``dtype``; without it, PyTorch's name of its own type, such as ``"torch.FloatTensor"``.

    ``dtype`` may also be such a name, of PyTorch's or of Kobai's, or a class such as ``kobai.cuda.LongTensor`` or
    ``kobai.Tensor`` (the default dtype); these stand for a device too.
    """
    if dtype is None:
        return type_of(self)
    if dtype is Tensor:  # what kobai.Tensor(...) makes: the default dtype, on the default device
        return to(self, _xp.default_device(), get_default_dtype(), non_blocking)
    if isinstance(dtype, TensorType):
        return to(self, dtype.place, dtype.dtype, non_blocking)
    if isinstance(dtype, str) and dtype.endswith("Tensor"):
        return to(self, *type_named("type", dtype), non_blocking)
    return cast(self, dtype)


@method
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """This tensor with dtype and device of ``other``."""
    return to(self, other)


def _converter(name: str, dtype: Any) -> None:
    def convert(self: Tensor, memory_format: MemoryFormat = preserve_format) -> Tensor:
        if memory_format is not preserve_format:
            need_format(name, memory_format, self.ndim)
        return cast(self, dtype)

    convert.__name__ = name
    convert.__doc__ = f"This tensor with elements of {np.dtype(dtype)}."
    method(convert)


for _name, _dtype in TYPES.items():  # .float(), .double(), ...
    _converter(_name.removesuffix("Tensor").lower(), _dtype)


# --- questions --------------------------------------------------------------------------------------------------------


def is_tensor(obj: object) -> bool:
    """Whether ``obj`` is a Tensor.

    >>> import kobai
    >>> kobai.is_tensor(kobai.tensor(1)), kobai.is_tensor([1])
    (True, False)
    """
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """Whether the elements are floats.

    >>> import kobai
    >>> kobai.is_floating_point(kobai.tensor([1.])), kobai.is_floating_point(kobai.tensor([1]))
    (True, False)
    """
    return input.is_floating_point()


def numel(input: Tensor) -> int:
    """Number of elements.

    >>> import kobai
    >>> kobai.numel(kobai.zeros(2, 3))
    6
    """
    return input.numel()


def result_type(tensor1: Any, tensor2: Any) -> DType:
    """Dtype of the result of an operation on two operands, tensors or numbers, by PyTorch's promotion.

    >>> import kobai
    >>> kobai.result_type(kobai.tensor([1, 2]), 1.5)
    kobai.float32
    """
    if not isinstance(tensor1, Tensor) and not isinstance(tensor2, Tensor):
        return _of(promotion(tensor(tensor1), tensor(tensor2)))
    a, b = pair("result_type", tensor1, tensor2)
    return (a if isinstance(a, Tensor) else b).dtype


def promote_types(type1: Any, type2: Any) -> DType:
    """The smallest dtype to which both may be converted: the higher category, or NumPy's choice inside one.

    >>> import kobai
    >>> kobai.promote_types(kobai.int64, kobai.float16), kobai.promote_types(kobai.uint8, kobai.int8)
    (kobai.float16, kobai.int16)
    """
    return _of(promotion(empty(1, dtype=type1), empty(1, dtype=type2)))


def can_cast(from_: Any, to: Any) -> bool:
    """Whether conversion does not fall to a lower category (float to integer, say).

    >>> import kobai
    >>> kobai.can_cast(kobai.int64, kobai.float16), kobai.can_cast(kobai.float32, kobai.int64)
    (True, False)
    """
    return category(np.dtype(from_)) <= category(np.dtype(to))
