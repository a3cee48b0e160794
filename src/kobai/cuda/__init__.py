"""``kobai.cuda``: questions about GPUs, with the names of ``torch.cuda``. On a machine without one they answer "none"."""

from __future__ import annotations

import importlib
from typing import Any

from kobai import random, xp
from kobai.cuda import backend as backend  # registers CuPy

__all__ = [
    "current_device",
    "device_count",
    "empty_cache",
    "get_device_name",
    "is_available",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "mem_get_info",
    "memory_allocated",
    "synchronize",
]


def is_available() -> bool:
    """Whether CuPy is installed and a CUDA device answers. Never raises.

    >>> is_available() in (True, False)
    True
    """
    return xp.available_backends()["cupy"] == ""


def _cupy() -> Any:
    xp.namespace("cuda")  # raises with cause and cure where there is no device
    return importlib.import_module("cupy")


def versions() -> tuple[str, int]:
    """CuPy's version, and CUDA's as CUDA writes it (12080 for 12.8)."""
    cupy = _cupy()
    return cupy.__version__, cupy.cuda.runtime.runtimeGetVersion()


def device_count() -> int:
    """Number of CUDA devices; 0 without CuPy.

    >>> import kobai
    >>> kobai.cuda.device_count() > 0 or not kobai.cuda.is_available()
    True
    """
    return int(_cupy().cuda.runtime.getDeviceCount()) if is_available() else 0


def current_device() -> int:
    """Index of the device that new CUDA arrays are made on."""
    return int(_cupy().cuda.runtime.getDevice())


def get_device_name(device: int | str | xp.device | None = None) -> str:
    """Name of a device, such as ``"NVIDIA H100 80GB HBM3"``."""
    index = device if isinstance(device, int) else (xp.device(device or "cuda").index or 0)
    name = _cupy().cuda.runtime.getDeviceProperties(index)["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def synchronize(device: str | xp.device | None = None) -> None:
    """Wait until all work queued on the device is done."""
    xp.synchronize(device or "cuda")


def memory_allocated() -> int:
    """Bytes of device memory held by live arrays."""
    return int(_cupy().get_default_memory_pool().used_bytes())


def max_memory_allocated() -> int:
    """Bytes of device memory that Kobai's pool has reserved so far (CuPy keeps no separate peak)."""
    return int(_cupy().get_default_memory_pool().total_bytes())


def mem_get_info(device: str | xp.device | None = None) -> tuple[int, int]:
    """(free, total) bytes of a device's memory, whoever holds the rest."""
    with xp.on(device or "cuda"):
        free, total = _cupy().cuda.runtime.memGetInfo()
    return int(free), int(total)


def empty_cache() -> None:
    """Give memory that no array uses back to the device; does nothing without one.

    >>> import kobai
    >>> kobai.cuda.empty_cache()
    """
    if is_available():
        _cupy().get_default_memory_pool().free_all_blocks()


def manual_seed(seed: int) -> None:
    """Seed the default generator: one generator serves every device, see :mod:`kobai.random`.

    >>> import kobai
    >>> kobai.cuda.manual_seed(42)
    >>> kobai.initial_seed()
    42
    """
    random.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """As :func:`manual_seed`.

    >>> import kobai
    >>> kobai.cuda.manual_seed_all(42)
    >>> kobai.initial_seed()
    42
    """
    random.manual_seed(seed)
