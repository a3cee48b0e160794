"""Streams and events: CuPy's, with PyTorch's names. What Kobai computes is queued on CuPy's current stream."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kobai import xp

__all__ = ["Event", "Stream", "current_stream", "default_stream", "set_stream", "stream"]


def _cuda() -> Any:
    xp.namespace("cuda")  # raises with cause and cure where there is no device
    return importlib.import_module("cupy").cuda


class Stream:
    """A queue of work on a GPU; what different streams do may overlap. ``priority``: a lower number goes first."""

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        with xp.on(device or "cuda"):
            self._of = _cuda().Stream(non_blocking=True, priority=priority)

    @classmethod
    def _wrap(cls, of: Any) -> Stream:
        self = cls.__new__(cls)
        self._of = of
        return self

    @property
    def cuda_stream(self) -> int:
        """CUDA's handle."""
        return int(self._of.ptr)

    def synchronize(self) -> None:
        """Wait until all work of this stream is done."""
        self._of.synchronize()

    def query(self) -> bool:
        """Whether all work of this stream is done."""
        return bool(self._of.done)

    def record_event(self, event: Event | None = None) -> Event:
        """The event, by default a new one, which happens when the work queued so far is done."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """What is queued from now on waits for ``event``."""
        self._of.wait_event(event._of)

    def wait_stream(self, stream: Stream) -> None:
        """What is queued from now on waits for what ``stream`` has queued."""
        self.wait_event(stream.record_event())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.cuda_stream == other.cuda_stream

    def __hash__(self) -> int:
        return hash(self.cuda_stream)

    def __repr__(self) -> str:
        return f"<kobai.cuda.Stream cuda_stream={self.cuda_stream:#x}>"


class Event:
    """A point in the work of a stream, which can be waited for; with ``enable_timing`` also a moment in time.

    ``blocking``: :meth:`synchronize` lets the processor sleep.
    """

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        if interprocess:
            raise NotImplementedError("Event: Kobai works in one process, so interprocess=True is of no use")
        self._of = _cuda().Event(block=blocking, disable_timing=not enable_timing)

    def record(self, stream: Stream | None = None) -> None:
        """Let it happen when the work that ``stream`` (default: the current one) has queued is done."""
        self._of.record(None if stream is None else stream._of)

    def wait(self, stream: Stream | None = None) -> None:
        """What ``stream`` (default: the current one) queues from now on waits for it."""
        (current_stream() if stream is None else stream).wait_event(self)

    def query(self) -> bool:
        """Whether it has happened."""
        return bool(self._of.done)

    def synchronize(self) -> None:
        """Wait until it has happened."""
        self._of.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this event to ``end_event``."""
        return float(_cuda().get_elapsed_time(self._of, end_event._of))


def current_stream(device: Any = None) -> Stream:
    """The stream on which work is queued now."""
    with xp.on(device or "cuda"):
        return Stream._wrap(_cuda().get_current_stream())


def default_stream(device: Any = None) -> Stream:
    """CUDA's default stream."""
    return Stream._wrap(_cuda().Stream.null)


def set_stream(stream: Stream) -> None:
    """Queue work on ``stream`` from now on."""
    stream._of.use()


@contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    """Block in which work is queued on ``stream``; without effect for None."""
    if stream is None:
        yield
    else:
        with stream._of:
            yield
