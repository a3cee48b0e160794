"""``kobai.accelerator``: PyTorch's name for whatever computes faster than the CPU. Here that is CUDA, where there is a device.

Where there is none, questions about it are answered "none", and what needs one raises RuntimeError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kobai import cuda
from kobai.compat.paths import connect as _connect
from kobai.xp import device

__all__ = [
    "current_accelerator",
    "current_device_idx",
    "current_device_index",
    "current_stream",
    "device_count",
    "device_index",
    "empty_cache",
    "get_device_capability",
    "get_memory_info",
    "is_available",
    "max_memory_allocated",
    "max_memory_reserved",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "reset_peak_memory_stats",
    "set_device_idx",
    "set_device_index",
    "set_stream",
    "synchronize",
]


def is_available() -> bool:
    """Whether there is one: CuPy with a CUDA device.

    >>> import kobai
    >>> kobai.accelerator.is_available() == kobai.cuda.is_available()
    True
    """
    return cuda.is_available()


def current_accelerator(check_available: bool = False) -> device | None:
    """``device("cuda")``, or None without a device.

    >>> import kobai
    >>> device = kobai.accelerator.current_accelerator() if kobai.accelerator.is_available() else kobai.device("cpu")
    >>> kobai.ones(2).to(device).sum().item()
    2.0
    """
    return device("cuda") if is_available() else None


def device_count() -> int:
    """How many devices there are."""
    return cuda.device_count()


def _of_cuda(name: str) -> Callable[..., Any]:
    function = getattr(cuda, name)

    def there(*args: Any, **kwargs: Any) -> Any:
        if not is_available():
            raise RuntimeError(f"accelerator.{name}: there is no accelerator; ask accelerator.is_available() first")
        return function(*args, **kwargs)

    there.__name__ = there.__qualname__ = name
    there.__doc__ = f"As :func:`kobai.cuda.{name}`; RuntimeError without a device."
    return there


current_device_index = current_device_idx = _of_cuda("current_device")
set_device_index = set_device_idx = _of_cuda("set_device")
device_index = _of_cuda("device")
synchronize, empty_cache = _of_cuda("synchronize"), _of_cuda("empty_cache")
current_stream, set_stream = _of_cuda("current_stream"), _of_cuda("set_stream")
get_device_capability, get_memory_info = _of_cuda("get_device_capability"), _of_cuda("mem_get_info")
memory_allocated, memory_reserved = _of_cuda("memory_allocated"), _of_cuda("memory_reserved")
max_memory_allocated, max_memory_reserved = _of_cuda("max_memory_allocated"), _of_cuda("max_memory_reserved")
memory_stats, reset_peak_memory_stats = _of_cuda("memory_stats"), _of_cuda("reset_peak_memory_stats")
_connect(__name__)
