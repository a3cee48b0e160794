"""NCCL between simulated devices of several processes: the C functions that CuPy's wrapper calls, and files in place of links.

A collective is done, like everything else, when its stream comes to it. Then it leaves what it sends in a folder that all ranks
share, as ``operation.rank``, waits for what the others leave, and makes its result of that::

    rank 0   ... kernel, AllGather 7, kernel ...    ──► 7.0 ─┐
                                                             ├──► 7.0, 7.1 ──► the buffers of both
    rank 1   ... AllGather 7, kernel, kernel ...    ──► 7.1 ─┘

A rank whose host does not look at its device would let the others wait for ever, which no device does. So a thread looks after
each communicator: when others have come further than this rank has, it does what is queued on the device.

Calls between ``ncclGroupStart`` and ``ncclGroupEnd`` are one operation. All ranks must do the same operations; a group of sends
and receives is one for all ranks, too. What differs – another function, size, type or root – is an error here, where NCCL would
wait for ever or write garbage. ``ncclAllReduce`` adds from the last rank to the first, another order than that of any tree.
"""

from __future__ import annotations

import ctypes
import pickle
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from simulator.capi import Long, Pointer, Struct
from simulator.device import INVALID_VALUE, CudaError, Machine, Stream
from simulator.libraries import Library, put, view

TYPES = [*"int8 uint8 int32 uint32 int64 uint64 float16 float32 float64".split(), ml_dtypes.bfloat16]
"""By the numbers of ``ncclDataType_t``."""
OPERATIONS = (np.add, np.multiply, np.maximum, np.minimum)
"""By the numbers of ``ncclRedOp_t``."""
UNHANDLED, INVALID_ARGUMENT, INVALID_USAGE = 1, 4, 5
MESSAGES = {0: b"no error", UNHANDLED: b"unhandled cuda error", INVALID_ARGUMENT: b"invalid argument"}
MESSAGES |= {INVALID_USAGE: b"invalid usage"}
ID_BYTES = 128
PATIENCE = 120.0
"""Seconds after which a rank gives up waiting for another. A device would go on waiting."""
PAUSE = 0.002


class Call:
    """One call of a communicator: its name and what must be equal on all ranks, where it reads and where it writes."""

    def __init__(self, name: str, count: int, kind: int, more: int = 0) -> None:
        if not 0 <= kind < len(TYPES):
            raise CudaError(INVALID_VALUE, f"{name}: no data type {kind} here")
        self.name, self.count, self.dtype, self.more = name, count, np.dtype(TYPES[kind]), more
        self.reads: Callable[[], np.ndarray] | None = None
        self.writes: Callable[[], np.ndarray] | None = None

    @property
    def alike(self) -> tuple[Any, ...]:
        return () if self.name in ("Send", "Recv") else (self.name, self.count, str(self.dtype), self.more)


class Communicator:
    """One rank among those that share a folder."""

    def __init__(self, machine: Machine, folder: Path, size: int, rank: int) -> None:
        self.machine, self.folder, self.size, self.rank, self.device = machine, folder, size, rank, machine.device
        self.done = 0  # operations
        self.last: Any = None  # the work of the operation that was queued last
        self.ended = False
        self._leave("seat", str(self.device).encode())
        seats = [self._from("seat", other) for other in range(size)]
        if seats.index(str(self.device).encode()) != rank:
            raise CudaError(INVALID_USAGE, f"two ranks have device {self.device}")
        threading.Thread(target=self._look_after, name=f"nccl-{rank}", daemon=True).start()

    # --- what lies in the folder

    def _leave(self, operation: Any, content: bytes) -> None:
        unfinished = self.folder / f"unfinished.{self.rank}"
        unfinished.write_bytes(content)
        unfinished.rename(self.folder / f"{operation}.{self.rank}")

    def _from(self, operation: Any, rank: int) -> bytes:
        path, until = self.folder / f"{operation}.{rank}", time.monotonic() + PATIENCE
        while not path.exists():
            if time.monotonic() > until:
                raise CudaError(UNHANDLED, f"rank {rank} has not come to operation {operation}")
            time.sleep(PAUSE)
        return path.read_bytes()

    def _look_after(self) -> None:
        """Do what is queued when others have come further."""
        while not self.ended:
            others = [r for r in range(self.size) if r != self.rank]
            if any((self.folder / f"{self.done}.{r}").exists() for r in others):
                self.machine.finish_device(self.device)
            time.sleep(PAUSE)

    def destroy(self) -> None:
        """Remove the folder, if all others have left it."""
        self.ended = True
        self._leave("left", b"")
        if all((self.folder / f"left.{r}").exists() for r in range(self.size)):
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- operations

    def ask(self, stream: Stream, calls: list[Call]) -> None:
        """Queue one operation, after the communicator's last."""
        if stream.device != self.device:
            raise CudaError(INVALID_VALUE, f"a stream of device {stream.device}, a communicator of {self.device}")
        if stream.capture is None and self.last is not None and not self.last.done:
            stream.next_waits.append(self.last)
        self.machine.ask(stream, partial(self._do, calls))
        if stream.capture is None:
            self.last = stream.last

    def _do(self, calls: list[Call]) -> None:
        operation, self.done = self.done, self.done + 1
        sent: list[Any] = [call.reads().tobytes() if call.reads else b"" for call in calls]
        peers = [(call.name, call.more) for call in calls]
        self._leave(operation, pickle.dumps(([call.alike for call in calls], peers, sent)))
        every = [pickle.loads(self._from(operation, r)) for r in range(self.size)]
        if operation:  # all have read what was left before this one
            (self.folder / f"{operation - 1}.{self.rank}").unlink()
        for rank, (alike, _, _) in enumerate(every):
            if alike != every[0][0]:
                raise CudaError(INVALID_VALUE, f"nccl: rank 0 asks for {every[0][0]}, rank {rank} for {alike}")
        received = dict.fromkeys(range(self.size), 0)
        for i, call in enumerate(calls):
            if call.name == "Recv":
                said = every[call.more]
                mine = [data for to, data in zip(said[1], said[2], strict=True) if to == ("Send", self.rank)]
                data = mine[received[call.more]]
                received[call.more] += 1
                if len(data) != call.count * call.dtype.itemsize:
                    raise CudaError(INVALID_VALUE, f"nccl: {len(data)} bytes sent, {call.count} {call.dtype} expected")
                call.writes()[...] = np.frombuffer(data, call.dtype)  # type: ignore[misc]
            elif call.name != "Send":
                parts = [np.frombuffer(sent[i], call.dtype) for _, _, sent in every]
                call.writes()[...] = self._result(call, parts)  # type: ignore[misc]

    def _result(self, call: Call, parts: list[np.ndarray]) -> np.ndarray:
        if call.name == "Broadcast":
            return parts[call.more]
        if call.name == "AllGather":
            return np.concatenate(parts)
        total = parts[-1].copy()
        with np.errstate(all="ignore"):
            for part in parts[-2::-1]:
                total = OPERATIONS[call.more](total, part)
        return total if call.name == "AllReduce" else np.split(total, self.size)[self.rank]


def functions(machine: Machine) -> dict[str, Callable[..., int]]:
    """The C functions of ``libnccl.so.2``, by name."""
    library = Library(machine, INVALID_ARGUMENT, UNHANDLED)
    offers = library.offers
    local = threading.local()
    texts = {status: ctypes.create_string_buffer(text) for status, text in MESSAGES.items()}

    def communicator(number: Pointer) -> Communicator:
        return machine.of(number, Communicator)  # type: ignore[return-value]

    def ask(
        number: Pointer, stream: Pointer, call: Call, source: int | None, to: int | None, parts: tuple[int, int]
    ) -> None:
        """One call, now or at the end of the group; ``parts``: of how many times its count it reads and writes."""
        comm = communicator(number)
        for which, address, times in (("reads", source, parts[0]), ("writes", to, parts[1])):
            if address is not None:
                made = partial(view, machine, comm.device, address, call.dtype, (call.count * times,))
                made()
                setattr(call, which, made)
        if getattr(local, "depth", 0):
            local.calls.append((comm, machine.stream(stream), call))
        elif call.name in ("Send", "Recv") and comm.size > 1:
            raise CudaError(INVALID_VALUE, "here sends and receives are for groups")
        else:
            comm.ask(machine.stream(stream), [call])

    @offers("ncclGetVersion")
    def version(to: Pointer) -> None:
        put(to, np.int32, 22703)

    @offers("ncclGetUniqueId")
    def unique_id(to: Pointer) -> None:
        folder = tempfile.mkdtemp(prefix="kobai-nccl-").encode()
        ctypes.memmove(to, folder.ljust(ID_BYTES, b"\0"), ID_BYTES)

    @offers("ncclCommInitRankConfig")
    def init(to: Pointer, size: int, identity: Struct, rank: int, config: Pointer) -> None:
        if not 0 <= rank < size:
            raise CudaError(INVALID_VALUE, f"rank {rank} of {size}")
        folder = ctypes.string_at(identity, ID_BYTES).rstrip(b"\0").decode()
        put(to, np.uint64, machine.handle(Communicator(machine, Path(folder), size, rank)))

    @offers("ncclCommDestroy")
    def destroy(comm: Pointer) -> None:
        communicator(comm).destroy()
        del machine.handles[comm]

    @offers("ncclGroupStart")
    def start() -> None:
        local.depth = getattr(local, "depth", 0) + 1
        if local.depth == 1:
            local.calls = []

    @offers("ncclGroupEnd")
    def end() -> None:
        local.depth -= 1
        if local.depth or not local.calls:
            return
        if len({(id(comm), id(stream)) for comm, stream, _ in local.calls}) > 1:
            raise CudaError(INVALID_VALUE, "here a group has one communicator and one stream")
        local.calls[0][0].ask(local.calls[0][1], [call for _, _, call in local.calls])

    @offers("ncclAllReduce")
    def all_reduce(x: Pointer, y: Pointer, n: Long, kind: int, op: int, comm: Pointer, stream: Pointer) -> None:
        ask(comm, stream, Call("AllReduce", n, kind, op), x, y, (1, 1))

    @offers("ncclReduceScatter")
    def reduce_scatter(x: Pointer, y: Pointer, n: Long, kind: int, op: int, comm: Pointer, stream: Pointer) -> None:
        ask(comm, stream, Call("ReduceScatter", n, kind, op), x, y, (communicator(comm).size, 1))

    @offers("ncclAllGather")
    def all_gather(x: Pointer, y: Pointer, n: Long, kind: int, comm: Pointer, stream: Pointer) -> None:
        ask(comm, stream, Call("AllGather", n, kind), x, y, (1, communicator(comm).size))

    @offers("ncclBroadcast")
    def broadcast(x: Pointer, y: Pointer, n: Long, kind: int, root: int, comm: Pointer, stream: Pointer) -> None:
        ask(comm, stream, Call("Broadcast", n, kind, root), x, y, (1, 1))

    @offers("ncclSend")
    def send(x: Pointer, n: Long, kind: int, peer: int, comm: Pointer, stream: Pointer) -> None:
        ask(comm, stream, Call("Send", n, kind, peer), x, None, (1, 1))

    @offers("ncclRecv")
    def receive(y: Pointer, n: Long, kind: int, peer: int, comm: Pointer, stream: Pointer) -> None:
        ask(comm, stream, Call("Recv", n, kind, peer), None, y, (1, 1))

    def error_string(status: int) -> int:
        return ctypes.addressof(texts.get(status, texts[UNHANDLED]))

    return {**library.functions, "ncclGetErrorString": error_string}
