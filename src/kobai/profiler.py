"""``kobai.profiler``: names for parts of a program, which no profiler of ours reads; Python's cProfile shows functions."""

from __future__ import annotations

from contextlib import ContextDecorator
from typing import Any

from kobai.compat.absent import within

__all__ = ["record_function"]


class record_function(ContextDecorator):  # PyTorch's spelling
    """Block, or decorator, that would give its time a ``name`` in PyTorch's profiler. It changes nothing.

    >>> import kobai
    >>> with kobai.profiler.record_function("forward"):
    ...     kobai.ones(1)
    tensor([1.])
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name, self.args = name, args

    def __enter__(self) -> record_function:
        return self

    def __exit__(self, *error: Any) -> None:
        """As if the block had not been there."""


__getattr__ = within(
    __name__,
    """
    DeviceType EnforceUnique EventList ExecutionTraceObserver FunctionEvent ProfilerAction ProfilerActivity
    ProfilerConfig ProfilerState RecordScope emit_itt emit_nvtx itt kineto_available load_nvprof profile schedule
    supported_activities tensorboard_trace_handler
    """,
)
