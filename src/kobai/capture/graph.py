"""A step on a device as one CUDA graph: captured once, then replayed with one launch.

A graph is CUDA's own recording. Kernels launched on a capturing stream do not run; they become nodes of the graph, with the
addresses and numbers they were given. Launching the graph runs them all::

    capture    the step, in Python ──► launches ──► graph                                       nothing runs
    replay     host: counts, learning rates ──► feed ──► places on the device ──► graph.launch()     no Python

Two things follow. *Addresses must stay*: a graph has its own memory pool, which lives as long as the graph. *Numbers must
not*: what the host computes for each step lives in places on the device (:class:`Numbers`), which a small kernel fills before
each launch. The host counts a step before it launches it, so if the launch fails, the counts are taken back
(:class:`Counts`).
"""

from __future__ import annotations

import gc
import importlib
import traceback
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from kobai import xp
from kobai.capture.rules import Rules
from kobai.cuda import cublaslt
from kobai.cuda.backend import install_cupy
from kobai.engine import faults
from kobai.engine.cuda_kernel import CudaKernel
from kobai.engine.dispatch import Count
from kobai.errors import CaptureError
from kobai.xp import Array

WORDS = 16
"""64-bit words that one launch carries to the device."""


FEED = CudaKernel(
    "feed",
    f"unsigned long long words[{WORDS}], unsigned long long* place",
    f"if (threadIdx.x == 0) for (int i = 0; i < {WORDS}; i++) place[i] = words[i];",
    threads=32,
    dtypes=("float32",),
)
"""Brings the host's numbers to the device: learning rates, bias corrections, random counters.

They travel as arguments, which CUDA copies when the launch is queued. An asynchronous copy from host memory would read that
memory when its turn comes, and by then the host, several steps ahead, may have written the next step's numbers there.
"""


class Numbers:
    """The host's numbers for one graph: their places on the device, and what was last sent there."""

    def __init__(self) -> None:
        self.blocks: list[tuple[np.ndarray[Any, Any], Array]] = []
        self._sent: list[bytes] = []
        self._free = 0
        self._pool: Any = None

    def place(self, count: int, dtype: Any) -> tuple[np.ndarray[Any, Any], Array]:
        """Room for ``count`` numbers: a view of host memory, and the device array that it is sent to."""
        words = -(-count * dtype.itemsize // 8)
        if words > WORDS:
            raise ValueError(f"numbers: expected at most {WORDS * 8} bytes, got {count} of {dtype}")
        if words > self._free:
            cupy = importlib.import_module("cupy")
            # Not from the graph's pool: a replay would write to memory that an earlier array of the step had.
            self._pool = self._pool or cupy.cuda.MemoryPool()
            with cupy.cuda.using_allocator(self._pool.malloc):
                self.blocks.append((np.zeros(WORDS, np.uint64), cupy.empty(WORDS, np.uint64)))
            self._sent.append(b"")
            self._free = WORDS
        first = WORDS - self._free
        self._free -= words
        host, there = (block[first : first + words].view(dtype)[:count] for block in self.blocks[-1])
        return host, there

    def send(self) -> None:
        """Queue what has changed on the current stream."""
        for i, (host, there) in enumerate(self.blocks):
            content = host.tobytes()
            if content != self._sent[i]:
                FEED.of("float32")(1, (tuple(host.tolist()), there))
                self._sent[i] = content


class Counts:
    """Counts that the host has advanced for a step that is not launched yet. If the launch fails, they are taken back."""

    def __init__(self) -> None:
        self._saved: list[tuple[Count, Any]] = []

    def keep(self, compute: Callable[[], Any]) -> None:
        """Remember the state that ``compute()`` is about to change."""
        if isinstance(compute, Count):
            self._saved.append((compute, compute.save()))

    def take_back(self) -> None:
        """Restore the state before the first of them."""
        for compute, saved in reversed(self._saved):
            compute.restore(saved)
        self._saved.clear()


class CudaRecorder(Rules):
    """The recorder while a graph is captured: kernels are queued, which captures them without running them.

    The host's part of a step – advancing counts, computing numbers – runs once during the capture, on behalf of the first
    replay.
    """

    def __init__(self, lenient: bool = False) -> None:
        super().__init__(lenient)
        self.sources = Numbers()
        self.feeds: list[tuple[Callable[[], Any], Any]] = []
        """What the host computes before every replay, and where the numbers go."""
        self.counts = Counts()
        """The counts advanced during the capture."""
        self.done: list[tuple[float, ...] | None] = []
        """What the host has done so far, in order: the numbers it computed, None for other actions."""

    def numbers(self, compute: Callable[[], tuple[float, ...]], dtype: Any) -> Array:
        """See :func:`kobai.engine.dispatch.numbers`."""
        self.counts.keep(compute)
        values = self.repeated(compute)
        host, there = self.sources.place(len(values), np.dtype(dtype))
        host[...] = values
        self.done.append(values)
        self.feed(compute, host)
        return there

    def feed(self, compute: Callable[[], Any], place: Any) -> None:
        """Every replay does this on the host before it is queued, and sends the numbers."""
        self.feeds.append((compute, place))

    def host(self, action: Callable[[], None]) -> None:
        """See :func:`kobai.engine.dispatch.on_host`."""
        before = len(self.feeds)
        if not self._on_host:
            self.counts.keep(action)
        super().host(action)
        self.done += [None] * (len(self.feeds) - before)

    def host_read(self, what: str, array: Any) -> Any:
        """A captured step has no values yet: this raises even if ``lenient``."""
        self.lenient = False
        return super().host_read(what, array)


_streams: dict[int, Any] = {}


def _stream(cupy: Any) -> Any:
    """The stream on which this device's graphs are captured. Nothing runs on it: graphs run where they are launched."""
    index = cupy.cuda.runtime.getDevice()
    if index not in _streams:
        _streams[index] = cupy.cuda.Stream(non_blocking=True)
    return _streams[index]


class Graph:
    """A captured function. Its buffers, those of intermediate results included, live as long as it does.

    Attributes: ``result``, what the function returned while it was captured – its arrays hold values after a replay;
    ``launched``, whether there was one.
    """

    def __init__(self, device: int, pool: Any, graph: Any, result: Any, recorder: CudaRecorder | None) -> None:
        self.device, self.result = device, result
        self._pool, self._graph, self._recorder = pool, graph, recorder
        self.launched = False

    @classmethod
    def capture(cls, function: Callable[[], Any], *, device: Any = None, recorder: CudaRecorder | None = None) -> Self:
        """Queue the work of ``function()`` into a graph instead of on the device.

        Run it once before: what is made once – compiled kernels, tables, the plans of products – must be there already.
        ``recorder`` is the one at work (``xp.recorder()``) while the function runs.

        Raises:
            CaptureError: where nvmath is missing, or the function does what cannot be captured; the capture has ended then,
                and the device can be used as before.
        """
        with xp.on(device or "cuda"):
            cupy = importlib.import_module("cupy")
            if not cublaslt.is_available():
                raise CaptureError(
                    "capture: on a GPU it needs nvmath-python, because products through CuPy cannot be captured. "
                    f"Install it: {install_cupy()}"
                )
            FEED.of("float32").compile()
            # there before the graph, which would make them anew at every replay
            faults.words(cupy.cuda.runtime.getDevice())
            pool, stream = cupy.cuda.MemoryPool(), _stream(cupy)
            with ExitStack() as stack:
                stack.enter_context(stream)
                cublaslt.workspace()
                # A graph goes on writing to memory that the pool considers free; nobody else may be given that.
                stack.enter_context(cupy.cuda.using_allocator(pool.malloc))
                if gc.isenabled():  # it could free device memory, or run a finaliser that waits for the device
                    gc.disable()
                    stack.callback(gc.enable)
                stream.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
                try:
                    result = function()
                except BaseException as error:
                    with suppress(Exception):  # an open capture would make every later CUDA call of this process fail
                        stream.end_capture()
                    if isinstance(error, CaptureError) or "captur" not in str(error).lower():
                        raise
                    line = _line_of(error.__traceback__)
                    raise CaptureError(
                        f"captured step: the device refuses to capture this ({line}): {error}"
                    ) from error
                try:
                    graph = stream.end_capture()
                except Exception as error:
                    raise CaptureError(f"captured step: the device could not make a graph of it: {error}") from error
            index = cupy.cuda.runtime.getDevice()
        return cls(index, pool, graph, result, recorder)

    def replay(self) -> None:
        """Queue the step once more, on the current stream of the graph's device."""
        with xp.on(xp.device("cuda", self.device)) if xp.many_devices else nullcontext():
            self._replay()

    def _replay(self) -> None:
        cupy = importlib.import_module("cupy")
        counts, none = Counts(), Counts()
        try:
            if self._recorder is not None:
                for compute, place in self._recorder.feeds if self.launched else ():
                    counts.keep(compute)
                    values = compute()
                    if place is not None:
                        place[...] = values
                self._recorder.sources.send()
            stream, launch = cupy.cuda.get_current_stream(), self._graph.launch
            self.launched, counts = True, none  # no call between this and launch, where a signal handler could raise
            launch(stream)
        except BaseException:
            counts.take_back()
            raise
        faults.replayed(self.device)

    @property
    def pool_bytes(self) -> int:
        """Bytes of device memory that the graph's buffers take."""
        return int(self._pool.total_bytes())


def _line_of(trace: TracebackType | None) -> str:
    """File and line of the innermost frame that belongs to neither Kobai nor CuPy."""
    ours = str(Path(__file__).resolve().parents[1])
    frames = [f for f in traceback.extract_tb(trace) if not f.filename.startswith(ours) and "cupy" not in f.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "in Kobai itself"
