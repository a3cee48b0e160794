"""Making modules without their first values, and in another layout of memory: what PyTorch's functions of these names leave."""

from __future__ import annotations

from typing import Any, TypeVar

from kobai.dtypes import memory_format as MemoryFormat
from kobai.nn.module import Module

M = TypeVar("M", bound=Module)


def skip_init(module_cls: type[M], *args: Any, **kwargs: Any) -> M:
    """``module_cls(*args, **kwargs)``, whose parameters a program then sets: what they hold before is not to be relied on.

    >>> import kobai
    >>> kobai.nn.utils.skip_init(kobai.nn.Linear, 2, 3).weight.shape
    kobai.Size([3, 2])
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise RuntimeError(f"skip_init: expected a class of modules, got {module_cls!r}")
    return module_cls(*args, **kwargs)


def convert_conv2d_weight_memory_format(module: M, memory_format: MemoryFormat) -> M:
    """``module`` itself: memory formats change nothing, see :class:`kobai.memory_format`."""
    if not isinstance(memory_format, MemoryFormat):
        raise TypeError(f"convert_conv2d_weight_memory_format: expected a memory format, got {memory_format!r}")
    return module


convert_conv3d_weight_memory_format = convert_conv2d_weight_memory_format
