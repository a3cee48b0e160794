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
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MARGIN = 256
"""Bytes before and behind every block of memory, which nobody may write to."""

_UNWRITTEN = 0xFF  # floating-point numbers of such bytes are NaN, integers -1


class CudaError(Exception):
    """A call of the runtime or the driver that fails; ``status`` is CUDA's number for it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


INVALID_VALUE, OUT_OF_MEMORY, INVALID_HANDLE, NOT_READY, ILLEGAL_ADDRESS = 1, 2, 400, 600, 700
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURE_UNMATCHED, CAPTURE_UNJOINED = 900, 901, 903, 904
CAPTURE_ISOLATION, CAPTURE_IMPLICIT, CAPTURE_WRONG_THREAD = 905, 906, 908

# --- memory -----------------------------------------------------------------------------------------------------------


class Block:
    """Memory between two fences, which are NaN in floating point.

    The NaN are signalling ones, which any arithmetic changes, and of bits that no other block's fences have, so that a copy
    from beyond one array to beyond another is seen too.
    """

    def __init__(self, address: int, size: int, device: int, kept: object = None) -> None:
        self.address, self.size, self.device = address, size, device  # device -1: memory of the host, pinned
        self.kept = kept
        mark = (address * 2654435761 >> 9 & 0x3FFFF) + 1
        self.fence = struct.pack("<II", 0xFF800000 | mark, 0xFFF00000 | mark) * (MARGIN // 8)
        self.pooled = False  # a pool lends parts of it
        self.given_back = False
        self.capture: Capture | None = None  # during which a pool lent it
        self.captured: list[Block] = []  # parts of it that were lent during captures

    def begin(self) -> None:
        """As if nothing had ever been written to it."""
        ctypes.memset(self.address, _UNWRITTEN, self.size)
        self.enclose()

    def enclose(self) -> None:
        """Put up the fences."""
        ctypes.memmove(self.address - MARGIN, self.fence, MARGIN)
        ctypes.memmove(self.address + self.size, self.fence, MARGIN)

    def check(self, culprit: str = "something") -> None:
        for where, address in (("before", self.address - MARGIN), ("behind", self.address + self.size)):
            if ctypes.string_at(address, MARGIN) != self.fence:
                ctypes.memmove(address, self.fence, MARGIN)
                which = f"the block of {self.size} bytes at {self.address:#x}"
                raise CudaError(ILLEGAL_ADDRESS, f"{culprit} wrote {where} {which}")

    def overlaps(self, other: Block) -> bool:
        return self.address < other.address + other.size and other.address < self.address + self.size


class Blocks:
    """Blocks by address."""

    def __init__(self, slack: int = 0) -> None:
        self.slack = slack  # bytes around a block that count as part of it
        self._lock = threading.Lock()  # a thread may do what is queued while another asks for more
        self._addresses: list[int] = []
        self._blocks: dict[int, Block] = {}

    def __iter__(self) -> Iterator[Block]:
        return iter(list(self._blocks.values()))

    def add(self, block: Block) -> None:
        with self._lock:
            self._blocks[block.address] = block
            bisect.insort(self._addresses, block.address)

    def remove(self, address: int) -> Block | None:
        with self._lock:
            block = self._blocks.pop(address, None)
            if block is not None:
                del self._addresses[bisect.bisect_left(self._addresses, address)]
            return block

    def find(self, address: int) -> Block | None:
        """The block that an address lies in."""
        with self._lock:
            i = bisect.bisect_right(self._addresses, address + self.slack) - 1
            block = self._blocks[self._addresses[i]] if i >= 0 else None
        return block if block is not None and address < block.address + max(block.size, 1) + self.slack else None


class Memory:
    """What has been allocated, and what pools have lent of it."""

    def __init__(self) -> None:
        self.blocks, self.lent = Blocks(), Blocks(MARGIN)

    def allocate(self, size: int, device: int) -> int:
        memory = (ctypes.c_char * (size + 2 * MARGIN + 512))()
        block = Block(-(-(ctypes.addressof(memory) + MARGIN) // 512) * 512, size, device, memory)
        block.begin()
        self.blocks.add(block)
        return block.address

    def free(self, address: int) -> None:
        block = self.blocks.remove(address)
        if block is None:
            raise CudaError(INVALID_VALUE, f"{address:#x} is not the address of a block")
        block.given_back = True
        block.check()

    def find(self, address: int) -> Block | None:
        """The allocated block that an address lies in."""
        return self.blocks.find(address)

    def need(self, address: int, size: int, what: str) -> Block | None:
        """The block that these bytes lie in, None for memory of the host; an error where they leave their block."""
        block = self.blocks.find(address)
        if block is not None and address + size > block.address + block.size:
            raise CudaError(
                INVALID_VALUE, f"{what}: {size} bytes at {address:#x} leave their block of {block.size} bytes"
            )
        return block

    def need_now(self, address: int, size: int, what: str) -> Block | None:
        """As :meth:`need`, of memory that belongs to somebody now: as long as a call is made, not when its work is done."""
        block = self.need(address, size, what)
        if block is None or not block.pooled or size == 0:
            return block
        lent = self.lent.find(address)
        if lent is None:
            raise CudaError(ILLEGAL_ADDRESS, f"{what}: the memory at {address:#x} has been given back to its pool")
        if address < lent.address or address + size > lent.address + lent.size:
            raise CudaError(
                ILLEGAL_ADDRESS, f"{what}: {size} bytes at {address:#x} leave their array of {lent.size} bytes"
            )
        return lent

    def poison(self, address: int, size: int) -> None:
        """Let these bytes be as if nothing had been written to them."""
        self.need(address, size, "workspace")
        ctypes.memset(address, _UNWRITTEN, size)

    def check(self) -> None:
        for block in self.blocks:
            block.check()

    def used(self, device: int) -> int:
        return sum(block.size for block in self.blocks if block.device == device)


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
        self.after: dict[Stream, int] = {}  # how many captured calls of which streams come before it


RELAXED = 2  # the mode of captures during which a thread may make calls that are unsafe for others


class Capture:
    """What streams that take part in a capture are asked to do: a graph in the making."""

    def __init__(self, origin: Stream, mode: int = RELAXED) -> None:
        self.origin, self.mode, self.thread = origin, mode, threading.get_ident()
        self.streams = {origin}
        self.calls: list[Callable[[], None]] = []
        self.invalid: str | None = None
        self.known: dict[Stream, dict[Stream, int]] = {origin: {origin: 0}}
        """By stream: how many calls of each stream come before what it is asked for next."""
        self.outside: set[Block] = set()
        """Memory that the calls use and that is not theirs: lent before the capture."""
        self.inside: list[Block] = []
        self.graphs = 1  # that are alive, this one in the making included

    def add(self, stream: Stream, do: Callable[[], None]) -> None:
        if self.invalid:
            raise CudaError(CAPTURE_INVALIDATED, self.invalid)
        self.calls.append(do)
        self.known[stream][stream] += 1

    def fail(self, why: str, status: int = CAPTURE_UNSUPPORTED) -> CudaError:
        self.invalid = self.invalid or why
        return CudaError(status, why)

    def join(self, stream: Stream, after: dict[Stream, int]) -> None:
        """What ``stream`` is asked for next comes after these."""
        self.streams.add(stream)
        known = self.known.setdefault(stream, {stream: 0})
        for other, count in after.items():
            known[other] = max(known.get(other, 0), count)

    def unjoined(self) -> bool:
        """Whether the origin does not wait for all that was asked of other streams."""
        return any(self.known[self.origin].get(s, 0) < self.known[s][s] for s in self.streams)


class Graph:
    def __init__(self, capture: Capture) -> None:
        self.capture = capture

    def launch(self) -> Callable[[], None]:
        """The work of one launch; an error where memory that it uses belongs to others by now."""
        for block in self.capture.outside:
            if block.given_back:
                raise CudaError(
                    ILLEGAL_ADDRESS, f"a graph is launched that uses an array of {block.size} bytes which is gone"
                )
        for block in self.capture.inside:
            if block.kept.given_back:  # type: ignore[attr-defined]
                raise CudaError(ILLEGAL_ADDRESS, "a graph is launched whose own memory has been freed")

        def run() -> None:
            for call in self.capture.calls:
                call()

        return run


class Machine:
    """All devices, their streams and memory, and what each thread has made the current device."""

    def __init__(self, devices: int = 2, backwards: bool = False) -> None:
        self.devices, self.backwards = devices, backwards
        self.memory = Memory()
        self.handles: dict[int, object] = {}
        self._numbers = itertools.count(0x1000, 16)
        self._default = [Stream(i) for i in range(devices)]
        self.streams: list[Stream] = [*self._default]
        self.local = threading.local()
        self.lock = threading.RLock()
        self.pinned: list[tuple[int, int]] = []
        self.peers: set[tuple[int, int]] = set()
        """Pairs of devices whose first may reach into the memory of the second."""
        self.peer_access = False
        """Whether devices can be allowed to."""
        self.failure: Exception | None = None

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
            if stream.capture is not None:
                stream.capture.add(stream, do)
                return
            self._not_behind_a_capture(stream)
            self._queue(stream, do)

    def _not_behind_a_capture(self, stream: Stream) -> None:
        """The default stream comes after all blocking ones of its device, hence after none that is captured."""
        if stream is self._default[stream.device]:
            for other in self.streams:
                if other.capture is not None and other.blocking and other.device == stream.device:
                    raise other.capture.fail(
                        "the default stream was used while a blocking stream was captured", CAPTURE_IMPLICIT
                    )

    def _queue(self, stream: Stream, do: Callable[[], None]) -> None:
        with self.lock:
            default = self._default[stream.device]
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
        """An operation that a capture in CUDA's modes ``global`` and ``thread local`` does not allow its thread."""
        for stream in self.streams:
            capture = stream.capture
            if capture is not None and capture.mode != RELAXED and capture.thread == threading.get_ident():
                raise capture.fail(f"{what} while a stream was captured")

    # --- memory that pools lend

    def lend(self, address: int, size: int, stream: Stream) -> Block:
        """A pool hands out memory, for use on ``stream``."""
        with self.lock:
            whole = self.memory.find(address)
            assert whole is not None
            whole.pooled = True
            block = Block(address, size, whole.device, whole)
            block.capture = stream.capture
            whole.captured = [part for part in whole.captured if part.capture.graphs]  # type: ignore[union-attr]
            for part in whole.captured:
                if part.capture is not block.capture and part.overlaps(block):
                    raise CudaError(
                        ILLEGAL_ADDRESS, f"a pool lends {size} bytes at {address:#x}, to which a graph still writes"
                    )
            if block.capture is not None:
                if any(part.capture is block.capture and part.overlaps(block) for part in whole.captured):
                    block.capture.add(stream, block.begin)
                else:  # its contents may be for the launches, and come from outside
                    self.finish(stream.last)
                    block.begin()
                    block.capture.add(stream, block.enclose)
                whole.captured.append(block)
                block.capture.inside.append(block)
            else:
                self._queue(stream, block.begin)
            self.memory.lent.add(block)
            return block

    def used(self, kernel: str, addresses: list[int]) -> list[Block]:
        """The blocks that a kernel is given the addresses of: memory that it may reach, and that belongs to somebody."""
        found = []
        for i, address in enumerate(addresses):
            block = self.memory.lent.find(address)
            if block is None:
                block = self.memory.find(address)
                if block is None:  # a number
                    continue
                if block.pooled:
                    raise CudaError(ILLEGAL_ADDRESS, f"{kernel}: argument {i} is memory that its pool has back")
            if block.device not in (-1, self.device) and (self.device, block.device) not in self.peers:
                raise CudaError(
                    ILLEGAL_ADDRESS,
                    f"{kernel}: argument {i} is memory of device {block.device}, the kernel runs on device {self.device}",
                )
            found.append(block)
        return found

    def give_back(self, block: Block, stream: Stream) -> None:
        """Memory returns to its pool, which may lend it for other use on the same stream."""
        with self.lock:
            block.given_back = True
            self.memory.lent.remove(block.address)

            def end() -> None:
                block.check()
                block.begin()

            if block.capture is None and stream.capture is None:
                self._queue(stream, end)
            elif block.capture is stream.capture is not None and not stream.capture.invalid:
                stream.capture.add(stream, end)

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
                try:
                    first.do()
                except Exception as error:
                    self.failure = self.failure or error

    def report(self) -> None:
        """Raise what has gone wrong on a device since somebody asked last."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def finish_stream(self, stream: Stream) -> None:
        if stream.capture is not None:
            raise stream.capture.fail("a captured stream was synchronised")
        self._not_behind_a_capture(stream)
        self.finish(stream.last)
        if stream is self._default[stream.device]:
            for other in self.streams:
                if other.blocking and other.device == stream.device:
                    self.finish(other.last)
        self.report()

    def finish_device(self, device: int) -> None:
        for stream in reversed(self.streams):
            if stream.device == device:
                self.finish(stream.last)

    def sound(self) -> None:
        """Do all that is left to be done, and raise what was wrong with any of it."""
        captured = [stream for stream in self.streams if stream.capture is not None]
        for stream in captured:
            stream.capture = None
        if captured:
            self.failure = self.failure or CudaError(CAPTURE_UNJOINED, "a stream was still captured")
        for device in range(self.devices):
            self.finish_device(device)
        self.report()
        self.memory.check()

    def is_pinned(self, address: int, size: int) -> bool:
        block = self.memory.find(address)
        if block is not None:
            return block.device == -1
        return any(first <= address and address + size <= first + length for first, length in self.pinned)
