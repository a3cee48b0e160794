"""PyTorch's older names of dtypes, ``FloatTensor`` and its like: they make tensors, and stand for their dtype and device."""

from __future__ import annotations

from typing import Any

import numpy as np

from kobai import xp as _xp
from kobai.core.primitive import method
from kobai.core.tensor import Size, Tensor
from kobai.dtypes import _of, bfloat16, set_default_dtype, strided
from kobai.ops.create import tensor, zeros

TYPES: dict[str, Any] = {
    "FloatTensor": np.float32,
    "DoubleTensor": np.float64,
    "HalfTensor": np.float16,
    "BFloat16Tensor": bfloat16.dtype,
    "LongTensor": np.int64,
    "IntTensor": np.int32,
    "ShortTensor": np.int16,
    "CharTensor": np.int8,
    "ByteTensor": np.uint8,
    "BoolTensor": np.bool_,
}
"""The older name of each dtype."""

__all__ = [*TYPES, "set_default_tensor_type"]


class TensorType(type):
    """Class of the older names. Calling one makes a tensor; its instances are the tensors of its dtype on its device."""

    dtype: Any
    place: str

    def __call__(cls, *data: Any, device: Any = None) -> Tensor:
        where = (cls.place if cls.place == "cuda" else None) if device is None else device
        if data and (isinstance(data[0], Size) or all(isinstance(n, int) for n in data)):
            return zeros(*data, dtype=cls.dtype, device=where)
        made = tensor(data[0] if data else [], dtype=cls.dtype)
        return made if where is None else made.to(where)

    def __instancecheck__(cls, x: object) -> bool:
        return isinstance(x, Tensor) and (x.dtype, x.device.type) == (cls.dtype, cls.place)

    def __repr__(cls) -> str:
        return f"<class '{cls.__module__}.{cls.__name__}'>"


def named(place: str) -> dict[str, Any]:
    """The older names on ``"cpu"`` or ``"cuda"``."""
    module = "kobai" if place == "cpu" else "kobai.cuda"
    return {
        name: TensorType(
            name,
            (),
            {
                "dtype": _of(dtype),
                "place": place,
                "__module__": module,
                "__doc__": (
                    f"Data, or integers as sizes (then zeros), as a tensor of {np.dtype(dtype)}; prefer "
                    ":func:`kobai.tensor`.\n\n"
                    f">>> import kobai\n>>> kobai.{name}([1, 0]).dtype, kobai.{name}(2, 3).shape\n"
                    f"(kobai.{np.dtype(dtype)}, kobai.Size([2, 3]))"
                ),
            },
        )
        for name, dtype in TYPES.items()
    }


globals().update(named("cpu"))

setattr(Tensor, "layout", property(lambda self: strided, doc="How elements are kept: ``kobai.strided``, always."))  # noqa: B010


def type_of(x: Tensor) -> str:
    """PyTorch's name of the type of ``x``: ``"torch.FloatTensor"``, ``"torch.cuda.LongTensor"``."""
    name = next(name for name, known in TYPES.items() if x.dtype == known)
    return f"torch.{'cuda.' * x.is_cuda}{name}"


def type_named(who: str, name: str) -> tuple[str, Any]:
    """Device and dtype that such a name stands for, ours or PyTorch's."""
    *library, last = name.split(".")
    place = library[1:]
    if (library and library[0] not in ("kobai", "torch")) or place not in ([], ["cuda"]) or last not in TYPES:
        raise ValueError(f"{who}: expected a dtype or a name such as 'torch.FloatTensor', got {name!r}")
    return "cuda" if place else "cpu", TYPES[last]


def set_default_tensor_type(t: Any) -> None:
    """Make float tensors of this type's dtype, and all tensors on its device, from now on.

    ``t`` is a class or a name, ``kobai.DoubleTensor`` or ``"torch.cuda.FloatTensor"``; better
    :func:`kobai.set_default_dtype` and :func:`kobai.set_default_device`.

    >>> import kobai
    >>> kobai.set_default_tensor_type(kobai.FloatTensor); kobai.tensor([0.5]).dtype
    kobai.float32
    """
    if isinstance(t, TensorType):
        place, dtype = t.place, t.dtype
    elif isinstance(t, str):
        place, dtype = type_named("set_default_tensor_type", t)
    else:
        raise TypeError(f"set_default_tensor_type: expected a type such as 'torch.FloatTensor', got {t!r}")
    set_default_dtype(dtype)
    if place != _xp.default_device().type:
        _xp.use(place)


@method
def stride(self: Tensor, dim: int | None = None) -> Any:
    """Steps, in elements, from one index to the next in every dimension, or in one."""
    steps = tuple(step // self._array.itemsize for step in self._array.strides)
    if dim is not None and not -len(steps) <= dim < len(steps):
        raise IndexError(f"stride: expected dim in [{-len(steps)}, {len(steps) - 1}], got {dim}")
    return steps if dim is None else steps[dim]


@method
def share_memory_(self: Tensor) -> Tensor:
    """Does nothing: threads share all memory, and Kobai trains in one process."""
    return self
