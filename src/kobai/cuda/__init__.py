"""``kobai.cuda``: questions about GPUs, with the names of ``torch.cuda``. On a machine without one they answer "none"."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

from kobai import random as _random, xp
from kobai.cuda import backend as backend  # registers CuPy
from kobai.cuda.streams import Event, Stream, current_stream, default_stream, set_stream, stream
from kobai.errors import OutOfMemoryError

__all__ = [
    "Event",
    "OutOfMemoryError",
    "Stream",
    "current_device",
    "current_stream",
    "default_stream",
    "device",
    "device_count",
    "empty_cache",
    "get_arch_list",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "get_rng_state_all",
    "init",
    "initial_seed",
    "ipc_collect",
    "is_available",
    "is_bf16_supported",
    "is_current_stream_capturing",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_max_memory_allocated",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "set_stream",
    "set_rng_state",
    "set_rng_state_all",
    "stream",
    "synchronize",
]

_initialized = (
    False  # asked by reversible networks before they keep the state of each device's generator; one serves all
)


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


Which = int | str | xp.device | None
"""How functions here are told a device; None is the first."""


def _index(device: Which) -> int:
    return device if isinstance(device, int) else (xp.device(device or "cuda").index or 0)


def set_device(device: Which) -> None:
    """Does nothing for the first device, which ``"cuda"`` means; another one is named wherever it is meant: ``"cuda:1"``."""
    if _index(device) > 0:
        raise NotImplementedError(f"set_device: Kobai has no current device to set; name it: 'cuda:{_index(device)}'")
    _cupy()


class device:  # PyTorch's spelling
    """Block in which a device is the current one: the first always is, see :func:`set_device`; nothing for a negative index."""

    def __init__(self, device: Which) -> None:
        self.idx = _index(device)

    def __enter__(self) -> None:
        if self.idx >= 0:
            set_device(self.idx)

    def __exit__(self, *error: object) -> None:
        """The first device stays the current one."""


def _property(device: Which) -> Any:
    found = _cupy().cuda.runtime.getDeviceProperties(_index(device))
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def get_device_name(device: Which = None) -> str:
    """Name of a device, such as ``"NVIDIA H100 80GB HBM3"``."""
    return str(_property(device)["name"])


def get_device_capability(device: Which = None) -> tuple[int, int]:
    """Compute capability of a device, such as (9, 0)."""
    found = _property(device)
    return int(found["major"]), int(found["minor"])


def get_device_properties(device: Which = None) -> SimpleNamespace:
    """``name``, ``major``, ``minor``, ``total_memory`` (bytes), ``multi_processor_count`` and ``warp_size`` of a device."""
    found = _property(device)
    return SimpleNamespace(
        name=found["name"],
        major=found["major"],
        minor=found["minor"],
        total_memory=found["totalGlobalMem"],
        multi_processor_count=found["multiProcessorCount"],
        warp_size=found["warpSize"],
    )


def get_arch_list() -> list[str]:
    """Architectures that kernels can be compiled for: that of every device here, such as ``["sm_90"]``.

    >>> import kobai
    >>> len(kobai.cuda.get_arch_list()) <= kobai.cuda.device_count()
    True
    """
    return sorted({"sm_{}{}".format(*get_device_capability(i)) for i in range(device_count())})


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether tensors on the GPU can be bfloat16; without emulation, whether it computes with them (from 8.0 on).

    >>> import kobai
    >>> kobai.cuda.is_bf16_supported() == kobai.cuda.is_available()
    True
    """
    return is_available() and (including_emulation or get_device_capability()[0] >= 8)


def is_initialized() -> bool:
    """Whether CUDA can be used: it needs no preparation.

    >>> import kobai
    >>> kobai.cuda.is_initialized() == kobai.cuda.is_available()
    True
    """
    return is_available()


def init() -> None:
    """BackendError if CUDA cannot be used; otherwise it is ready."""
    _cupy()


def is_current_stream_capturing() -> bool:
    """Whether work is being recorded in a CUDA graph.

    >>> import kobai
    >>> kobai.cuda.is_current_stream_capturing()
    False
    """
    return is_available() and bool(_cupy().cuda.get_current_stream().is_capturing())


def synchronize(device: Which = None) -> None:
    """Wait until all work queued on the device is done."""
    xp.synchronize(f"cuda:{_index(device)}")


def _pool() -> Any:
    return _cupy().get_default_memory_pool() if is_available() else None


def memory_allocated(device: Which = None) -> int:
    """Bytes of device memory held by live arrays, of all devices together; 0 without one.

    >>> import kobai
    >>> kobai.cuda.memory_allocated() >= 0
    True
    """
    pool = _pool()
    return 0 if pool is None else int(pool.used_bytes())


def memory_reserved(device: Which = None) -> int:
    """Bytes of device memory that Kobai's pool has taken, of all devices together; 0 without one.

    >>> import kobai
    >>> kobai.cuda.memory_reserved() >= kobai.cuda.memory_allocated()
    True
    """
    pool = _pool()
    return 0 if pool is None else int(pool.total_bytes())


def max_memory_allocated(device: Which = None) -> int:
    """Bytes of device memory that Kobai's pool has reserved so far (CuPy keeps no separate peak); 0 without a device.

    >>> import kobai
    >>> kobai.cuda.max_memory_allocated() >= kobai.cuda.memory_allocated()
    True
    """
    return memory_reserved(device)


def max_memory_reserved(device: Which = None) -> int:
    """As :func:`max_memory_allocated`.

    >>> import kobai
    >>> kobai.cuda.max_memory_reserved() == kobai.cuda.memory_reserved()
    True
    """
    return memory_reserved(device)


memory_cached, max_memory_cached = memory_reserved, max_memory_reserved  # PyTorch's older names


def reset_peak_memory_stats(device: Which = None) -> None:
    """Let the peak begin anew: memory that no array uses goes back to the device, as by :func:`empty_cache`.

    >>> import kobai
    >>> kobai.cuda.reset_peak_memory_stats()
    """
    empty_cache()


reset_max_memory_allocated = reset_peak_memory_stats


def memory_stats(device: Which = None) -> dict[str, int]:
    """What is known of memory, by PyTorch's names.

    >>> import kobai
    >>> sorted(kobai.cuda.memory_stats())[:2]
    ['allocated_bytes.all.current', 'allocated_bytes.all.peak']
    """
    return {
        "allocated_bytes.all.current": memory_allocated(device),
        "allocated_bytes.all.peak": max_memory_allocated(device),
        "reserved_bytes.all.current": memory_reserved(device),
        "reserved_bytes.all.peak": max_memory_reserved(device),
    }


def memory_summary(device: Which = None, abbreviated: bool = False) -> str:
    """:func:`memory_stats` as text.

    >>> import kobai
    >>> print(kobai.cuda.memory_summary())  # doctest: +ELLIPSIS
    allocated_bytes.all.current...
    """
    return "\n".join(f"{name:<30} {value:>16,}" for name, value in memory_stats(device).items())


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
    _random.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """As :func:`manual_seed`.

    >>> import kobai
    >>> kobai.cuda.manual_seed_all(42)
    >>> kobai.initial_seed()
    42
    """
    _random.manual_seed(seed)


def seed() -> None:
    """Seed the default generator from the operating system.

    >>> import kobai
    >>> kobai.cuda.seed()
    """
    _random.seed()


def seed_all() -> None:
    """As :func:`seed`.

    >>> import kobai
    >>> kobai.cuda.seed_all()
    """
    _random.seed()


def initial_seed() -> int:
    """The number that the default generator was seeded with.

    >>> import kobai
    >>> kobai.cuda.manual_seed(42); kobai.cuda.initial_seed()
    42
    """
    return _random.initial_seed()


def get_rng_state(device: Which = "cuda") -> Any:
    """State of the default generator, which serves every device.

    >>> import kobai
    >>> state = kobai.cuda.get_rng_state(); a = kobai.rand(1)
    >>> kobai.cuda.set_rng_state(state); bool(kobai.rand(1) == a)
    True
    """
    return _random.get_rng_state()


def set_rng_state(new_state: Any, device: Which = "cuda") -> None:
    """Set the state of the default generator, which serves every device.

    >>> import kobai
    >>> kobai.cuda.set_rng_state(kobai.cuda.get_rng_state())
    """
    _random.set_rng_state(new_state)


def get_rng_state_all() -> list[Any]:
    """The state of the default generator once for every device.

    >>> import kobai
    >>> len(kobai.cuda.get_rng_state_all()) == kobai.cuda.device_count()
    True
    """
    return [_random.get_rng_state() for _ in range(device_count())]


def set_rng_state_all(new_states: list[Any]) -> None:
    """Set the state of the default generator, to the first of those that :func:`get_rng_state_all` gave.

    >>> import kobai
    >>> kobai.cuda.set_rng_state_all(kobai.cuda.get_rng_state_all())
    """
    for state in new_states[:1]:
        _random.set_rng_state(state)


def ipc_collect() -> None:
    """Does nothing: Kobai shares no memory with other processes.

    >>> import kobai
    >>> kobai.cuda.ipc_collect()
    """
