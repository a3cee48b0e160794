"""``torch.cpu``: what programs ask of whatever device they are on, answered for the CPU; and which module to ask."""

from __future__ import annotations

from contextlib import nullcontext
from types import ModuleType
from typing import Any

from kobai import cpu, cuda
from kobai.xp import default_device, device as Device


def get_device_module(device: Any = None) -> ModuleType:
    """``kobai.cuda`` or ``kobai.cpu``, by the kind of a device, or of the default one.

    >>> import kobai
    >>> kobai.get_device_module("cpu").device_count()
    1
    """
    kind = Device(default_device() if device is None else device).type
    return {"cpu": cpu, "cuda": cuda}[kind]


def is_available() -> bool:
    """Yes."""
    return True


def device_count() -> int:
    """One."""
    return 1


def current_device() -> str:
    """``"cpu"``."""
    return "cpu"


def set_device(device: Any) -> None:
    """Does nothing: there is one."""


def synchronize(device: Any = None) -> None:
    """Does nothing: what the CPU computes is done when it returns."""


def is_initialized() -> bool:
    """Yes."""
    return True


def empty_cache() -> None:
    """Does nothing: the system has what is freed."""


class Stream:
    """An order of computations, of which the CPU has one."""

    def __init__(self, priority: int = -1) -> None:
        self.priority = priority

    def synchronize(self) -> None:
        """Does nothing."""

    wait_stream = record_event = wait_event = lambda self, other=None: None


_stream = Stream()


def current_stream(device: Any = None) -> Stream:
    """The one there is."""
    return _stream


def stream(stream: Any) -> Any:
    """A block, which changes nothing."""
    return nullcontext(stream)
