"""Making tensors like others: of the same shape, or of the same dtype on the same device."""

from __future__ import annotations

from typing import Any

from kobai.core.primitive import method
from kobai.core.tensor import Tensor
from kobai.ops._args import need_tensor, takes_format
from kobai.ops.create import Device, empty, full, ones, tensor, zeros

__all__ = ["empty_like", "full_like", "ones_like", "zeros_like"]


@takes_format
def zeros_like(input: Tensor, *, dtype: Any = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """Zeros with shape, dtype and device of ``input``.

    >>> import kobai
    >>> kobai.zeros_like(kobai.tensor([3, 4]))
    tensor([0, 0])
    """
    need_tensor("zeros_like", input)
    return _new(input, zeros, input.shape, dtype=dtype, device=device, requires_grad=requires_grad)


@takes_format
def ones_like(input: Tensor, *, dtype: Any = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """Ones with shape, dtype and device of ``input``.

    >>> import kobai
    >>> kobai.ones_like(kobai.tensor([3, 4]), dtype=kobai.float32)
    tensor([1., 1.])
    """
    need_tensor("ones_like", input)
    return _new(input, ones, input.shape, dtype=dtype, device=device, requires_grad=requires_grad)


@takes_format
def empty_like(input: Tensor, *, dtype: Any = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """Unset elements with shape, dtype and device of ``input``.

    >>> import kobai
    >>> kobai.empty_like(kobai.tensor([3, 4])).dtype
    kobai.int64
    """
    need_tensor("empty_like", input)
    return _new(input, empty, input.shape, dtype=dtype, device=device, requires_grad=requires_grad)


@takes_format
def full_like(
    input: Tensor, fill_value: Any, *, dtype: Any = None, device: Device = None, requires_grad: bool = False
) -> Tensor:
    """One number everywhere, with shape, dtype and device of ``input``.

    >>> import kobai
    >>> kobai.full_like(kobai.tensor([3., 4.]), 7)
    tensor([7., 7.])
    """
    need_tensor("full_like", input)
    return _new(input, full, input.shape, fill_value, dtype=dtype, device=device, requires_grad=requires_grad)


def _new(self: Tensor, make: Any, *args: Any, dtype: Any, device: Device, requires_grad: bool) -> Tensor:
    where = device if device is not None else self.device
    made: Tensor = make(*args, dtype=dtype or self.dtype, device=where, requires_grad=requires_grad)
    room = getattr(type(self._array), "with_room", None)  # inside vmap: what one sample is written into, all are
    if room is not None:
        made._array = room(made._array)
    return made


@method
def new_zeros(
    self: Tensor, *sizes: Any, size: Any = None, dtype: Any = None, device: Device = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of another size with dtype and device of this tensor."""
    return _new(
        self, zeros, *(sizes if size is None else (size,)), dtype=dtype, device=device, requires_grad=requires_grad
    )


@method
def new_ones(
    self: Tensor, *sizes: Any, size: Any = None, dtype: Any = None, device: Device = None, requires_grad: bool = False
) -> Tensor:
    """Ones of another size with dtype and device of this tensor."""
    return _new(
        self, ones, *(sizes if size is None else (size,)), dtype=dtype, device=device, requires_grad=requires_grad
    )


@method
def new_empty(
    self: Tensor, *sizes: Any, size: Any = None, dtype: Any = None, device: Device = None, requires_grad: bool = False
) -> Tensor:
    """Unset elements of another size with dtype and device of this tensor."""
    return _new(
        self, empty, *(sizes if size is None else (size,)), dtype=dtype, device=device, requires_grad=requires_grad
    )


@method
def new_full(
    self: Tensor, size: Any, fill_value: Any, dtype: Any = None, device: Device = None, requires_grad: bool = False
) -> Tensor:
    """One number everywhere, of another size with dtype and device of this tensor."""
    return _new(self, full, size, fill_value, dtype=dtype, device=device, requires_grad=requires_grad)


@method
def new_tensor(
    self: Tensor, data: Any, dtype: Any = None, device: Device = None, requires_grad: bool = False
) -> Tensor:
    """``data`` as a tensor with dtype and device of this one."""
    return _new(self, tensor, data, dtype=dtype, device=device, requires_grad=requires_grad)
