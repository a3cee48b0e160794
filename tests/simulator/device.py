"""A CUDA device that is not there: its memory, its streams and events, and graphs of what is done on it.

Nothing happens when it is asked for. Work waits in the queue of its stream until somebody has to see it: a synchronisation, a
copy to the host, a query. A buffer of the host that is reused before the copy out of it has happened is so seen with its new
contents, as on a device. Work of one stream is done in order; between streams only events, and the rules of the default
stream, say what comes before what, and where they say nothing the stream that was asked for last comes first.
"""

from __future__ import annotations

import bisect
import ctypes
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

MARGIN = 256
"""Bytes before and behind every block of memory, which nobody may write to."""

_UNWRITTEN, _FENCE = 0xFF, 0xA5  # floating-point numbers of bytes 0xFF are NaN, integers -1


class CudaError(Exception):
    """A call of the runtime or the driver that fails; ``status`` is CUDA's number for it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


INVALID_VALUE, OUT_OF_MEMORY, INVALID_HANDLE, NOT_READY = 1, 2, 400, 600
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, ILLEGAL_ADDRESS = 900, 901, 700

# --- memory -----------------------------------------------------------------------------------------------------------


@dataclass
class Block:
    address: int
    size: int
    device: int  # -1: memory of the host, pinned
    memory: ctypes.Array[ctypes.c_char] = field(repr=False)

    def check(self) -> None:
        fence = bytes([_FENCE]) * MARGIN
        for where, address in (("before", self.address - MARGIN), ("behind", self.address + self.size)):
            if ctypes.string_at(address, MARGIN) != fence:
                which = f"the block of {self.size} bytes at {self.address:#x}"
                raise CudaError(ILLEGAL_ADDRESS, f"something was written {where} {which}")


class Memory:
    """All blocks, by address."""

    def __init__(self) -> None:
        self._addresses: list[int] = []
        self._blocks: dict[int, Block] = {}

    def allocate(self, size: int, device: int) -> int:
        memory = (ctypes.c_char * (size + 2 * MARGIN + 512))()
        address = -(-(ctypes.addressof(memory) + MARGIN) // 512) * 512
        ctypes.memset(ctypes.addressof(memory), _FENCE, len(memory))
        ctypes.memset(address, _UNWRITTEN, size)
        self._blocks[address] = Block(address, size, device, memory)
        bisect.insort(self._addresses, address)
        return address

    def free(self, address: int) -> None:
        block = self._blocks.pop(address, None)
        if block is None:
            raise CudaError(INVALID_VALUE, f"{address:#x} is not the address of a block")
        self._addresses.remove(address)
        block.check()

    def find(self, address: int) -> Block | None:
        """The block that an address lies in."""
        i = bisect.bisect_right(self._addresses, address) - 1
        block = self._blocks[self._addresses[i]] if i >= 0 else None
        return block if block is not None and address < block.address + max(block.size, 1) else None

    def need(self, address: int, size: int, what: str) -> Block | None:
        """The block that these bytes lie in, None for memory of the host; an error where they leave their block."""
        block = self.find(address)
        if block is not None and address + size > block.address + block.size:
            raise CudaError(
                INVALID_VALUE, f"{what}: {size} bytes at {address:#x} leave their block of {block.size} bytes"
            )
        return block

    def poison(self, address: int, size: int) -> None:
        """Let these bytes be as if nothing had been written to them."""
        self.need(address, size, "workspace")
        ctypes.memset(address, _UNWRITTEN, size)

    def check(self) -> None:
        for block in self._blocks.values():
            block.check()

    def used(self, device: int) -> int:
        return sum(block.size for block in self._blocks.values() if block.device == device)


# --- work -------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Work:
    """Something to be done on a stream, after what it waits for."""

    do: Callable[[], None]
    stream: Stream
    after: list[Work]
    done: bool = False


class Stream:
    def __init__(self, device: int, blocking: bool = True, priority: int = 0) -> None:
        self.device, self.blocking, self.priority = device, blocking, priority
        self.waiting: list[Work] = []
        self.last: Work | None = None
        self.next_waits: list[Work] = []
        self.capture: Capture | None = None


class Event:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.work: Work | None = None
        self.capture: Capture | None = None
        self.recorded = 0


class Capture:
    """What streams that take part in a capture are asked to do: a graph in the making."""

    def __init__(self, origin: Stream) -> None:
        self.origin = origin
        self.streams = {origin}
        self.calls: list[Callable[[], None]] = []
        self.invalid: str | None = None


class Graph:
    def __init__(self, calls: list[Callable[[], None]]) -> None:
        self.calls = calls


class Machine:
    """All devices, their streams and memory, and what each thread has made the current device."""

    def __init__(self, devices: int = 2) -> None:
        self.devices = devices
        self.memory = Memory()
        self.handles: dict[int, object] = {}
        self._numbers = itertools.count(0x1000, 16)
        self._default = [Stream(i) for i in range(devices)]
        self.streams: list[Stream] = [*self._default]
        self.local = threading.local()
        self.lock = threading.RLock()
        self.pinned: list[tuple[int, int]] = []

    # --- handles

    def handle(self, thing: object) -> int:
        number = next(self._numbers)
        self.handles[number] = thing
        return number

    def of(self, number: int, kind: type) -> object:
        thing = self.handles.get(number)
        if not isinstance(thing, kind):
            raise CudaError(INVALID_HANDLE, f"{number:#x} is not the handle of a {kind.__name__.lower()}")
        return thing

    @property
    def device(self) -> int:
        return getattr(self.local, "device", 0)

    def stream(self, number: int) -> Stream:
        """A stream by handle; 0 and 1 are the default stream of the current device."""
        if number in (0, 1):
            return self._default[self.device]
        return self.of(number, Stream)  # type: ignore[return-value]

    # --- asking for work

    def ask(self, stream: Stream, do: Callable[[], None]) -> None:
        """``do`` is to be done on ``stream``, or becomes part of the graph that it is captured for."""
        with self.lock:
            capturing = [s.capture for s in self.streams if s.capture is not None]
            if stream.capture is not None:
                stream.capture.calls.append(do)
                return
            default = self._default[stream.device]
            if stream is default:
                for capture in capturing:
                    if any(s.blocking and s.device == stream.device for s in capture.streams):
                        capture.invalid = "the default stream was used while another stream was captured"
                        raise CudaError(CAPTURE_UNSUPPORTED, capture.invalid)
            after = stream.next_waits
            stream.next_waits = []
            if stream.blocking:
                others = self.streams if stream is default else [default]
                after += [
                    s.last for s in others if s is not stream and s.blocking and s.device == stream.device and s.last
                ]
            work = Work(do, stream, [w for w in after if not w.done])
            stream.waiting.append(work)
            stream.last = work

    def forbid_in_capture(self, what: str) -> None:
        """An operation that no thread may ask for while it captures (in CUDA's modes ``global`` and ``thread local``)."""
        capture = getattr(self.local, "capture", None)
        if capture is not None:
            capture.invalid = f"{what} while a stream was captured"
            raise CudaError(CAPTURE_UNSUPPORTED, capture.invalid)

    # --- doing it

    def finish(self, work: Work | None) -> None:
        """Do this, and all that comes before it."""
        with self.lock:
            if work is None or work.done:
                return
            stream = work.stream
            while not work.done:
                first = stream.waiting[0]
                for before in first.after:
                    self.finish(before)
                stream.waiting.pop(0)
                first.done = True
                first.after = []
                first.do()

    def finish_stream(self, stream: Stream) -> None:
        if stream.capture is not None:
            stream.capture.invalid = "a captured stream was synchronised"
            raise CudaError(CAPTURE_UNSUPPORTED, stream.capture.invalid)
        self.finish(stream.last)

    def finish_device(self, device: int) -> None:
        for stream in reversed(self.streams):
            if stream.device == device:
                self.finish(stream.last)

    def is_pinned(self, address: int, size: int) -> bool:
        block = self.memory.find(address)
        if block is not None:
            return block.device == -1
        return any(first <= address and address + size <= first + length for first, length in self.pinned)
