"""CUDA's runtime, as far as CuPy calls it, on a :class:`~simulator.device.Machine`."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

from simulator.device import (
    CAPTURE_INVALIDATED,
    CAPTURE_ISOLATION,
    CAPTURE_UNJOINED,
    CAPTURE_UNMATCHED,
    CAPTURE_UNSUPPORTED,
    CAPTURE_WRONG_THREAD,
    INVALID_VALUE,
    NOT_READY,
    OUT_OF_MEMORY,
    RELAXED,
    Capture,
    CudaError,
    Event,
    Graph,
    Machine,
    Stream,
)
from simulator.properties import ATTRIBUTES, PROPERTIES, TOTAL

DRIVER_ERRORS = {
    1: "INVALID_VALUE",
    200: "INVALID_IMAGE",
    400: "INVALID_HANDLE",
    500: "NOT_FOUND",
    700: "ILLEGAL_ADDRESS",
}
DRIVER_ERRORS |= {719: "LAUNCH_FAILED", 901: "STREAM_CAPTURE_INVALIDATED", 906: "STREAM_CAPTURE_IMPLICIT"}


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
        RuntimeError.__init__(raised, f"CUDA_ERROR_{DRIVER_ERRORS.get(failed.status, failed.status)}: {failed}")
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
        captures = {s.capture for s in machine.streams if s.capture is not None and s.device == machine.device}
        for failed in [capture.fail("the device was synchronised while a stream was captured") for capture in captures]:
            raise failed
        machine.finish_device(machine.device)
        memory.check()
        machine.report()

    @function
    def deviceCanAccessPeer(device: int, peer: int) -> int:
        return int(machine.peer_access and device != peer)

    @function
    def deviceEnablePeerAccess(peer: int) -> None:
        if not deviceCanAccessPeer(machine.device, peer):
            raise CudaError(217, f"device {machine.device} cannot reach the memory of device {peer}")
        if (machine.device, peer) in machine.peers:
            raise CudaError(704, f"device {machine.device} reaches the memory of device {peer} already")
        machine.peers.add((machine.device, peer))

    @function
    def _deviceEnsurePeerAccess(peer: int) -> None:
        if (machine.device, peer) not in machine.peers:
            deviceEnablePeerAccess(peer)

    @function
    def memGetInfo() -> tuple[int, int]:
        return TOTAL - memory.used(machine.device), TOTAL

    # --- memory

    def allocate(size: int, device: int) -> int:
        machine.forbid_in_capture("memory was allocated")
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
        machine.forbid_in_capture("page-locked memory was allocated")
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
        memory.need_now(to, size, "memcpy to")
        memory.need_now(source, size, "memcpy from")
        return lambda: ctypes.memmove(to, source, size)

    def on_device(address: int) -> bool:
        block = memory.find(address)
        return block is not None and block.device >= 0

    @function
    def memcpy(to: int, source: int, size: int, kind: int) -> None:
        machine.forbid_in_capture("memory was copied synchronously")
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
        do = moved(to, source, size)
        for device in (to_device, source_device):
            machine.finish_device(device)
        machine.report()
        do()

    @function
    def memcpyPeerAsync(to: int, to_device: int, source: int, source_device: int, size: int, stream: int) -> None:
        machine.ask(machine.stream(stream), moved(to, source, size))

    def rows(to: int, pitch: int, source: int, source_pitch: int, width: int, height: int) -> Callable[[], None]:
        if height:
            memory.need_now(to, pitch * (height - 1) + width, "memcpy2D to")
            memory.need_now(source, source_pitch * (height - 1) + width, "memcpy2D from")

        def do() -> None:
            for i in range(height):
                ctypes.memmove(to + i * pitch, source + i * source_pitch, width)

        return do

    @function
    def memcpy2D(to: int, pitch: int, source: int, source_pitch: int, width: int, height: int, kind: int) -> None:
        machine.forbid_in_capture("memory was copied synchronously")
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
        memory.need_now(address, size, "memset")
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
            machine.forbid_in_capture("a stream was synchronised")
        machine.finish_stream(stream)

    @function
    def streamQuery(number: int) -> int:
        stream = machine.stream(number)
        if stream.capture is not None:
            raise stream.capture.fail("a captured stream was queried")
        if stream.last is not None and not stream.last.done:
            machine.finish(stream.last)  # so that who polls gets on
            return NOT_READY
        machine.report()
        return 0

    @function
    def streamWaitEvent(number: int, event_number: int, flags: int = 0) -> None:
        stream, event = machine.stream(number), machine.of(event_number, Event)
        if event.capture is not None:
            if stream.capture is None:
                stream.capture = event.capture
            elif stream.capture is not event.capture:
                raise stream.capture.fail("a captured stream waits for another capture", CAPTURE_ISOLATION)
            stream.capture.join(stream, event.after)
            return
        if stream.capture is not None:
            raise stream.capture.fail("a captured stream waits for work that is not captured", CAPTURE_ISOLATION)
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
        if stream.capture is not None:
            event.after = dict(stream.capture.known[stream])
        else:
            machine.ask(stream, lambda: None)
            event.work = stream.last

    @function
    def eventQuery(number: int) -> int:
        event = machine.of(number, Event)
        if event.capture is not None:
            raise event.capture.fail("an event of a capture was queried")
        machine.forbid_in_capture("an event was queried")
        if event.work is not None and not event.work.done:
            machine.finish(event.work)
            return NOT_READY
        machine.report()
        return 0

    @function
    def eventSynchronize(number: int) -> None:
        event = machine.of(number, Event)
        if event.capture is not None:
            raise event.capture.fail("an event of a capture was waited for")
        machine.forbid_in_capture("an event was waited for")
        machine.finish(event.work)
        machine.report()

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
            raise CudaError(CAPTURE_UNSUPPORTED, "the stream is captured already")
        stream.capture = Capture(stream, mode)

    @function
    def streamEndCapture(number: int) -> int:
        stream = machine.stream(number)
        capture = stream.capture
        if capture is None:
            raise CudaError(INVALID_VALUE, "the stream is not captured")
        if capture.origin is not stream:
            raise capture.fail("the capture did not begin on this stream", CAPTURE_UNMATCHED)
        if capture.mode != RELAXED and capture.thread != threading.get_ident():
            raise capture.fail("the capture began in another thread", CAPTURE_WRONG_THREAD)
        for member in capture.streams:
            member.capture = None
        for event in machine.handles.values():
            if isinstance(event, Event) and event.capture is capture:
                event.capture = None
        capture.graphs = 0
        if capture.invalid:
            raise CudaError(CAPTURE_INVALIDATED, capture.invalid)
        if capture.unjoined():
            raise CudaError(CAPTURE_UNJOINED, "the stream does not wait for all that was captured on others")
        return machine.handle(Graph(capture))

    @function
    def streamIsCapturing(number: int) -> int:
        stream = machine.stream(number)
        return 0 if stream.capture is None else 2 if stream.capture.invalid else 1

    @function
    def graphInstantiate(number: int) -> int:
        graph = Graph(machine.of(number, Graph).capture)
        graph.capture.graphs += 1
        return machine.handle(graph)

    @function
    def graphLaunch(number: int, stream_number: int) -> None:
        machine.report()
        machine.ask(machine.stream(stream_number), machine.of(number, Graph).launch())

    @function
    def graphDestroy(number: int) -> None:
        machine.handles.pop(number, None)

    @function
    def graphExecDestroy(number: int) -> None:
        machine.handles.pop(number).capture.graphs -= 1

    return table


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = name
    return function
