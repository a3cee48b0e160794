"""Older and rarer names of PyTorch's at the top level."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kobai import xp as _xp
from kobai.core.tensor import Tensor
from kobai.dtypes import FLOATING, get_default_dtype, numeric
from kobai.ops._args import need, need_one_dtype, need_tensor
from kobai.ops.create import Device, as_tensor, from_numpy, tensor
from kobai.ops.random import _place
from kobai.random import Generator, resolve
from kobai.xp import to_host

__all__ = [
    "asarray",
    "binomial",
    "detach",
    "frombuffer",
    "is_same_size",
    "range",
    "typename",
]


def asarray(
    obj: Any, *, dtype: Any = None, device: Device = None, copy: bool | None = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of an array, a buffer or nested sequences, sharing its memory where dtype and device allow, unless ``copy``.

    ValueError if ``copy=False`` and the memory cannot be shared.

    >>> import kobai
    >>> kobai.asarray([1.0, 2.0])
    tensor([1., 2.])
    """
    if isinstance(obj, (bytes, bytearray, memoryview)):
        obj = frombuffer(obj, dtype=dtype or np.float32)
    made = as_tensor(obj, dtype, device)
    source = obj._array if isinstance(obj, Tensor) else obj
    shares = _xp.is_array(source) and type(source) is type(made._array) and np.may_share_memory(source, made._array)
    if copy is False and not shares:
        raise ValueError("asarray: expected data whose memory can be shared, with copy=False")
    made = made.clone() if copy and shares else made
    return made.detach().requires_grad_() if requires_grad else made


def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """A vector that shares the memory of a buffer (``bytearray``, ``memoryview``, ...), from byte ``offset`` on.

    >>> import kobai
    >>> kobai.frombuffer(bytearray([1, 0, 2, 0]), dtype=kobai.int16)
    tensor([1, 2], dtype=kobai.int16)
    """
    made = from_numpy(np.frombuffer(buffer, numeric(dtype), count, offset))
    return made.requires_grad_() if requires_grad else made


def detach(input: Tensor) -> Tensor:
    """The same memory without history, as :meth:`Tensor.detach`.

    >>> import kobai
    >>> kobai.detach(kobai.ones(1, requires_grad=True)).requires_grad
    False
    """
    need_tensor("detach", input)
    return input.detach()


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape.

    >>> import kobai
    >>> kobai.is_same_size(kobai.zeros(2, 1), kobai.zeros(2))
    False
    """
    need_tensor("is_same_size", input, other)
    return input.shape == other.shape


def range(
    start: float,
    end: float,
    step: float = 1,
    *,
    dtype: Any = None,
    device: Device = None,
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, ... up to ``end``, which is included, as floats; :func:`arange` excludes it.

    >>> import kobai
    >>> kobai.range(1, 4)
    tensor([1., 2., 3., 4.])
    """
    need("range", step != 0 and (end - start) / step >= 0, f"steps from {start} towards {end}", f"step {step}")
    count = math.floor((end - start) / step) + 1
    host = start + step * np.arange(count)
    return tensor(host, dtype=dtype or get_default_dtype(), device=device, requires_grad=requires_grad)


def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """Successes in ``count`` trials, each of probability ``prob``; drawn on the host.

    >>> import kobai
    >>> kobai.binomial(kobai.tensor([3., 8.]), kobai.tensor([0., 1.]))
    tensor([0., 8.])
    """
    need_tensor("binomial", count, prob)
    need_one_dtype("binomial", count, prob)
    need("binomial", count._array.dtype.kind in FLOATING, "floats", count.dtype)
    trials, chances = (to_host(x.detach().array) for x in (count, prob))
    need(
        "binomial", np.all(trials >= 0) and np.all((chances >= 0) & (chances <= 1)), "count >= 0, prob in [0, 1]", prob
    )
    return _place(resolve(generator).numpy.binomial(trials.astype(np.int64), chances), count.dtype, count.device)


def typename(obj: Any) -> str:
    """PyTorch's name of the type of a tensor, such as ``"torch.FloatTensor"``; of other objects, module and type.

    >>> import kobai
    >>> kobai.typename(kobai.tensor([1.0]))
    'torch.FloatTensor'
    """
    if isinstance(obj, Tensor):
        return str(obj.type())
    return f"{type(obj).__module__}.{type(obj).__qualname__}".removeprefix("builtins.")
