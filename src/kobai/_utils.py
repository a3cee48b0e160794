"""``torch._utils``: tensors as one vector, which programs that average over parameters import from there."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from kobai.core.tensor import Tensor
from kobai.ops.joining import cat
from kobai.xp import device as Device


def _flatten_dense_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """All elements of ``tensors``, of one dtype, one behind another.

    >>> import kobai
    >>> _flatten_dense_tensors([kobai.ones(1, 2), kobai.zeros(1)])
    tensor([1., 1., 0.])
    """
    return cat([t.flatten() for t in tensors])


def _unflatten_dense_tensors(flat: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Views of ``flat`` with the shapes of ``tensors``.

    >>> import kobai
    >>> _unflatten_dense_tensors(kobai.arange(3), [kobai.ones(1, 2), kobai.zeros(1)])
    (tensor([[0, 1]]), tensor([2]))
    """
    parts = flat.split([prod(t.shape) for t in tensors])
    return tuple(part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True))


def _get_device_index(device: Any, optional: bool = False, allow_cpu: bool = False) -> int:
    """The number of a device; −1 of the CPU, with ``allow_cpu``; 0 of None, with ``optional``."""
    if isinstance(device, int):
        return device
    if device is None and optional:
        return 0
    found = Device(device) if isinstance(device, str) else device
    if found.type == "cpu" and allow_cpu:
        return -1
    if found.type != "cuda":
        raise ValueError(f"_get_device_index: expected a CUDA device, got {device!r}")
    return found.index or 0
