"""CUDA's runtime, as far as CuPy calls it, on a :class:`~simulator.device.Machine`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from simulator.device import (
    CAPTURE_INVALIDATED,
    CAPTURE_UNSUPPORTED,
    INVALID_VALUE,
    NOT_READY,
    OUT_OF_MEMORY,
    Capture,
    CudaError,
    Event,
    Graph,
    Machine,
    Stream,
)
from simulator.properties import ATTRIBUTES, PROPERTIES, TOTAL


def offered(table: dict[str, Any], error: type[Exception]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: puts a function into a table under its name, its :class:`CudaError` as the error that CuPy raises for it."""

    def offer(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def called(*args: Any, **named: Any) -> Any:
            try:
                return function(*args, **named)
            except CudaError as failed:
                raise _as_cupys(error, failed) from None

        table[function.__name__] = called
        return function

    return offer


def _as_cupys(error: type[Exception], failed: CudaError) -> Exception:
    if error.__name__ == "CUDARuntimeError":  # the runtime's names of errors are part of CuPy's module
        raised = error(failed.status)
    else:  # those of the driver are asked of its library, which is not here
        raised = error.__new__(error)
        RuntimeError.__init__(raised, f"CUDA driver error {failed.status}: {failed}")
        raised.status = failed.status  # type: ignore[attr-defined]
    raised.add_note(str(failed))
    return raised


def functions(machine: Machine, module: ModuleType) -> dict[str, Callable[..., Any]]:
    """What ``cupy_backends.cuda.api.runtime`` offers, by name."""
    table: dict[str, Any] = {}
    function = offered(table, module.CUDARuntimeError)
    memory = machine.memory

    def plain(**values: Any) -> None:
        for name, value in values.items():
            function(_named(name, lambda *_, value=value: value))

    plain(
        driverGetVersion=12090,
        runtimeGetVersion=12090,
        getDeviceCount=machine.devices,
        deviceCanAccessPeer=1,
        deviceEnablePeerAccess=None,
        _deviceEnsurePeerAccess=None,
        deviceSetLimit=None,
        deviceGetLimit=1024,
        profilerStart=None,
        profilerStop=None,
        _ensure_context=None,
        memAdvise=None,
        graphUpload=None,
        _getCUDAMajorVersion=12,
        _getLocalRuntimeVersion=12090,
    )

    # --- devices

    @function
    def getDevice() -> int:
        return machine.device

    @function
    def setDevice(device: int) -> None:
        if not 0 <= device < machine.devices:
            raise CudaError(101, f"no device {device}")
        machine.local.device = device

    @function
    def deviceGetAttribute(attribute: int, device: int) -> int:
        return ATTRIBUTES.get(attribute, 0)

    @function
    def getDeviceProperties(device: int) -> dict[str, Any]:
        return {**PROPERTIES, "pciBusID": device}

    @function
    def deviceGetPCIBusId(device: int) -> str:
        return f"0000:{device:02x}:00.0"

    @function
    def deviceGetByPCIBusId(text: str) -> int:
        return int(str(text).split(":")[1], 16)

    @function
    def deviceSynchronize() -> None:
        machine.forbid_in_capture("deviceSynchronize")
        machine.finish_device(machine.device)
        memory.check()

    @function
    def memGetInfo() -> tuple[int, int]:
        return TOTAL - memory.used(machine.device), TOTAL

    # --- memory

    def allocate(size: int, device: int) -> int:
        if size + memory.used(device) > TOTAL:
            raise CudaError(OUT_OF_MEMORY, f"{size} bytes asked for")
        return memory.allocate(max(size, 1), device)

    @function
    def malloc(size: int) -> int:
        return allocate(size, machine.device)

    @function
    def mallocManaged(size: int, flags: int = 1) -> int:
        return allocate(size, machine.device)

    @function
    def mallocAsync(size: int, stream: int) -> int:
        return allocate(size, machine.device)

    @function
    def hostAlloc(size: int, flags: int) -> int:
        return memory.allocate(max(size, 1), -1)

    @function
    def free(address: int) -> None:
        if address:
            for device in range(machine.devices):
                machine.finish_device(device)
            memory.free(address)

    @function
    def freeAsync(address: int, stream: int) -> None:
        machine.ask(machine.stream(stream), lambda: memory.free(address))

    @function
    def freeHost(address: int) -> None:
        free(address)

    @function
    def hostRegister(address: int, size: int, flags: int) -> None:
        machine.pinned.append((address, size))

    @function
    def hostUnregister(address: int) -> None:
        machine.pinned[:] = [entry for entry in machine.pinned if entry[0] != address]

    @function
    def pointerGetAttributes(address: int) -> Any:
        block = memory.find(address)
        if block is None:
            return module.PointerAttributes(-2, 0, address, 0)
        if block.device < 0:
            return module.PointerAttributes(0, address, address, 1)
        return module.PointerAttributes(block.device, address, 0, 2)

    @function
    def pointerGetMemoryType(address: int) -> int:
        block = memory.find(address)
        return 0 if block is None else 1 if block.device < 0 else 2

    # --- copies

    def moved(to: int, source: int, size: int) -> Callable[[], None]:
        memory.need(to, size, "memcpy to")
        memory.need(source, size, "memcpy from")
        return lambda: ctypes.memmove(to, source, size)

    def on_device(address: int) -> bool:
        block = memory.find(address)
        return block is not None and block.device >= 0

    @function
    def memcpy(to: int, source: int, size: int, kind: int) -> None:
        machine.forbid_in_capture("memcpy")
        stream = machine.stream(0)
        machine.ask(stream, moved(to, source, size))
        if not (on_device(to) and on_device(source)):
            machine.finish_stream(stream)

    @function
    def memcpyAsync(to: int, source: int, size: int, kind: int, stream: int) -> None:
        target = machine.stream(stream)
        do = moved(to, source, size)
        if on_device(source) or machine.is_pinned(source, size) or target.capture is not None:
            machine.ask(target, do)
        else:  # out of memory that may be paged away: the driver has taken it along when the call returns
            taken = ctypes.create_string_buffer(ctypes.string_at(source, size), max(size, 1))
            machine.ask(target, lambda: ctypes.memmove(to, taken, size))
        if not on_device(to) and not machine.is_pinned(to, size):
            machine.finish_stream(target)

    @function
    def memcpyPeer(to: int, to_device: int, source: int, source_device: int, size: int) -> None:
        for device in (to_device, source_device):
            machine.finish_device(device)
        moved(to, source, size)()

    @function
    def memcpyPeerAsync(to: int, to_device: int, source: int, source_device: int, size: int, stream: int) -> None:
        machine.ask(machine.stream(stream), moved(to, source, size))

    def rows(to: int, pitch: int, source: int, source_pitch: int, width: int, height: int) -> Callable[[], None]:
        if height:
            memory.need(to, pitch * (height - 1) + width, "memcpy2D to")
            memory.need(source, source_pitch * (height - 1) + width, "memcpy2D from")

        def do() -> None:
            for i in range(height):
                ctypes.memmove(to + i * pitch, source + i * source_pitch, width)

        return do

    @function
    def memcpy2D(to: int, pitch: int, source: int, source_pitch: int, width: int, height: int, kind: int) -> None:
        machine.forbid_in_capture("memcpy2D")
        machine.ask(machine.stream(0), rows(to, pitch, source, source_pitch, width, height))
        machine.finish_stream(machine.stream(0))

    @function
    def memcpy2DAsync(
        to: int, pitch: int, source: int, source_pitch: int, width: int, height: int, kind: int, stream: int
    ) -> None:
        machine.ask(machine.stream(stream), rows(to, pitch, source, source_pitch, width, height))
        if not on_device(to) or not on_device(source):
            machine.finish_stream(machine.stream(stream))

    @function
    def memset(address: int, value: int, size: int) -> None:
        memsetAsync(address, value, size, 0)

    @function
    def memsetAsync(address: int, value: int, size: int, stream: int) -> None:
        memory.need(address, size, "memset")
        machine.ask(machine.stream(stream), lambda: ctypes.memset(address, value, size))

    # --- streams

    @function
    def streamCreate() -> int:
        return streamCreateWithPriority(0, 0)

    @function
    def streamCreateWithFlags(flags: int) -> int:
        return streamCreateWithPriority(flags, 0)

    @function
    def streamCreateWithPriority(flags: int, priority: int) -> int:
        stream = Stream(machine.device, blocking=not flags & 1, priority=priority)
        machine.streams.append(stream)
        return machine.handle(stream)

    @function
    def streamDestroy(number: int) -> None:
        stream = machine.of(number, Stream)
        machine.finish(stream.last)
        machine.streams.remove(stream)
        del machine.handles[number]

    @function
    def streamGetFlags(number: int) -> int:
        return int(not machine.stream(number).blocking)

    @function
    def streamGetPriority(number: int) -> int:
        return machine.stream(number).priority

    @function
    def streamSynchronize(number: int) -> None:
        stream = machine.stream(number)
        if stream.capture is None:
            machine.forbid_in_capture("streamSynchronize")
        machine.finish_stream(stream)

    @function
    def streamQuery(number: int) -> int:
        stream = machine.stream(number)
        if stream.capture is not None:
            stream.capture.invalid = "a captured stream was queried"
            raise CudaError(CAPTURE_UNSUPPORTED, stream.capture.invalid)
        if stream.last is not None and not stream.last.done:
            machine.finish(stream.last)  # so that who polls gets on
            return NOT_READY
        return 0

    @function
    def streamWaitEvent(number: int, event_number: int, flags: int = 0) -> None:
        stream, event = machine.stream(number), machine.of(event_number, Event)
        if event.capture is not None:
            if stream.capture is None:
                stream.capture = event.capture
                event.capture.streams.add(stream)
            return
        if stream.capture is not None:
            return  # of work before the capture, which the graph's launch comes after
        if event.work is not None and not event.work.done:
            stream.next_waits.append(event.work)

    @function
    def launchHostFunc(number: int, callback: Callable[[Any], None], argument: Any) -> None:
        machine.ask(machine.stream(number), lambda: callback(argument))

    @function
    def streamAddCallback(number: int, callback: Callable[..., None], argument: Any, flags: int = 0) -> None:
        machine.ask(machine.stream(number), lambda: callback(number, 0, argument))

    # --- events

    @function
    def eventCreate() -> int:
        return machine.handle(Event(0))

    @function
    def eventCreateWithFlags(flags: int) -> int:
        return machine.handle(Event(flags))

    @function
    def eventDestroy(number: int) -> None:
        machine.handles.pop(number, None)

    @function
    def eventRecord(number: int, stream_number: int) -> None:
        event, stream = machine.of(number, Event), machine.stream(stream_number)
        event.capture = stream.capture
        if stream.capture is None:
            machine.ask(stream, lambda: None)
            event.work = stream.last

    @function
    def eventQuery(number: int) -> int:
        event = machine.of(number, Event)
        if event.work is not None and not event.work.done:
            machine.finish(event.work)
            return NOT_READY
        return 0

    @function
    def eventSynchronize(number: int) -> None:
        event = machine.of(number, Event)
        if event.capture is not None:
            event.capture.invalid = "an event of a capture was waited for"
            raise CudaError(CAPTURE_UNSUPPORTED, event.capture.invalid)
        machine.forbid_in_capture("eventSynchronize")
        machine.finish(event.work)

    @function
    def eventElapsedTime(first: int, second: int) -> float:
        for number in (first, second):
            if (work := machine.of(number, Event).work) is None or not work.done:
                raise CudaError(NOT_READY, "an event has not happened")
        return 1.0  # milliseconds that mean nothing

    # --- graphs

    @function
    def streamBeginCapture(number: int, mode: int = 2) -> None:
        stream = machine.stream(number)
        if number in (0, 1):
            raise CudaError(CAPTURE_UNSUPPORTED, "the default stream cannot be captured")
        if stream.capture is not None:
            raise CudaError(905, "the stream is captured already")
        stream.capture = machine.local.capture = Capture(stream)

    @function
    def streamEndCapture(number: int) -> int:
        stream = machine.stream(number)
        capture, machine.local.capture = stream.capture, None
        if capture is None:
            raise CudaError(INVALID_VALUE, "the stream is not captured")
        for member in capture.streams:
            member.capture = None
        for event in machine.handles.values():
            if isinstance(event, Event) and event.capture is capture:
                event.capture = None
        if capture.invalid:
            raise CudaError(CAPTURE_INVALIDATED, capture.invalid)
        return machine.handle(Graph(capture.calls))

    @function
    def streamIsCapturing(number: int) -> int:
        stream = machine.stream(number)
        return 0 if stream.capture is None else 2 if stream.capture.invalid else 1

    @function
    def graphInstantiate(number: int) -> int:
        return machine.handle(Graph(list(machine.of(number, Graph).calls)))

    @function
    def graphLaunch(number: int, stream_number: int) -> None:
        graph = machine.of(number, Graph)

        def run() -> None:
            for call in graph.calls:
                call()

        machine.ask(machine.stream(stream_number), run)

    @function
    def graphDestroy(number: int) -> None:
        machine.handles.pop(number, None)

    @function
    def graphExecDestroy(number: int) -> None:
        machine.handles.pop(number, None)

    return table


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = name
    return function
