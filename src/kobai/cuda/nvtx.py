"""Ranges and marks for NVIDIA's profilers, through CuPy."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kobai import xp

__all__ = ["mark", "range", "range_pop", "range_push"]


def _nvtx() -> Any:
    xp.namespace("cuda")  # raises with cause and cure where there is no device
    return importlib.import_module("cupy").cuda.nvtx


def range_push(msg: str) -> None:
    """Begin a range; ranges nest."""
    _nvtx().RangePush(msg)


def range_pop() -> None:
    """End the innermost range."""
    _nvtx().RangePop()


def mark(msg: str) -> None:
    """Mark a moment."""
    _nvtx().Mark(msg)


@contextmanager
def range(msg: str, *args: Any, **kwargs: Any) -> Iterator[None]:
    """A block, or a decorated function, as a range; ``msg`` may have fields for the other arguments."""
    range_push(msg.format(*args, **kwargs))
    try:
        yield
    finally:
        range_pop()
