"""The processes that work together, and what they exchange: bytes, by MPI, and those of GPUs by NCCL (``cuda/collectives.py``).

Every exchange begins with a short message of what each process wants. If they want different things, because one has run out of
data or has another model, all of them raise, and none waits for ever. These messages go from host to host, by MPI. What NCCL
is asked to do after them is queued on the device, and a captured step has it in its graph: each replay sends the messages anew,
and is launched if all agree.

An engine is a *wire*: it moves bytes, and leaves what is added to what, and in which order, to :class:`World`.
"""

from __future__ import annotations

import atexit
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import numpy as np

from kobai import xp
from kobai.distributed.tree import COMBINE, combined
from kobai.engine.dispatch import on_host
from kobai.engine.peers import Refused
from kobai.errors import DistError, install
from kobai.xp import Array

END = "destroy_process_group"
UNCAPTURED = "no captured step"
"""What a process wants whose recording of a step has failed: that all others give theirs up too."""


class Wire(Protocol):
    """What moves bytes between processes, out of contiguous arrays of one kind into others."""

    def to_all(self, given: Array, taken: Array) -> None:
        """Row r of ``given`` to process r; row r of ``taken`` from it."""

    def from_all(self, given: Array | None, taken: Array) -> None:
        """``given`` of process r, into row r of ``taken``; None: each process's own row is there already."""

    def from_one(self, array: Array, source: int) -> None:
        """The array of rank ``source``, into that of all others."""

    def room(self, n: int, dtype: Any) -> Array:
        """An array (n,), until the next call."""

    def fast(self, given: Array, taken: Array, op: str) -> bool:
        """Let the library combine: all of ``given``, or this process's share of it, as ``taken`` is long. Whether it did."""


class MpiWire:
    """Arrays of the host, by MPI."""

    def __init__(self, comm: Any) -> None:
        from mpi4py import MPI

        self.comm, self.size, self._byte, self._in_place = comm, int(comm.Get_size()), MPI.BYTE, MPI.IN_PLACE
        self._room = np.empty(0, np.uint8)

    def to_all(self, given: Array, taken: Array) -> None:
        self.comm.Alltoall([given, self._byte], [taken, self._byte])

    def from_all(self, given: Array | None, taken: Array) -> None:
        self.comm.Allgather(self._in_place if given is None else [given, self._byte], [taken, self._byte])

    def from_one(self, array: Array, source: int) -> None:
        self.comm.Bcast([array.reshape(-1).view(np.uint8), self._byte], source)

    def room(self, n: int, dtype: Any) -> Array:
        if self._room.size < n * dtype.itemsize:
            self._room = np.empty(n * dtype.itemsize, np.uint8)
        return self._room[: n * dtype.itemsize].view(dtype)

    def fast(self, given: Array, taken: Array, op: str) -> bool:
        return False


class World:
    """All processes of the job. The methods take contiguous arrays, and can be launched as kernels are.

    ``device``: the wire for arrays of a GPU, if there is one.
    """

    def __init__(self, comm: Any, backend: str, device: Any = None) -> None:
        self.comm, self.backend, self.host, self.device = comm, backend, MpiWire(comm), device
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())
        self.exchanges = 0
        """How often the processes have agreed on something."""

    def wishes(self, what: str) -> list[str]:
        """What each process wants, by rank."""
        self.exchanges += 1
        mine = np.frombuffer(what.encode()[:_LONGEST].ljust(_LONGEST), np.uint8)
        every = np.empty((self.size, _LONGEST), np.uint8)
        self.host.from_all(mine, every)
        return [row.tobytes().decode(errors="replace").strip() for row in every]

    def agree(self, what: str) -> None:
        """Go on if all processes want the same; DistError, in all of them, if not."""
        if self.size > 1 and len(set(wanted := self.wishes(what))) > 1:
            self._refuse(wanted)

    def least(self, what: str, plan: int) -> int:
        """The least of the processes' numbers from 0 to 9; they must all ask for it, by the same words."""
        wanted = self.wishes(f"{what} {plan}")
        if any(want[:-2] != what for want in wanted):
            self._refuse(wanted)
        return min(int(want[-1]) for want in wanted)

    def refuse_capture(self) -> None:
        """Let the others give up the recording that has failed here: at whatever they want next they raise ``Refused``."""
        self.wishes(UNCAPTURED)

    def _refuse(self, wanted: list[str]) -> None:
        """The processes want different things."""
        if UNCAPTURED in wanted:
            raise Refused(f"captured step: rank {wanted.index(UNCAPTURED)} cannot capture it, so no rank does")
        atexit.unregister(self.leave)  # there is nothing to wait for any more
        told = "; ".join(f"rank {rank}: {_said(want)}" for rank, want in enumerate(wanted))
        raise DistError(f"the processes want different things – {told}")

    def _wire(self, what: str, *arrays: Array) -> Wire:
        """The wire for these arrays, once all agree on ``what``; in a captured step on a GPU, before each of its replays."""
        kinds = {isinstance(array, np.ndarray) for array in arrays}
        if len(kinds) > 1 or (self.device is None and not all(kinds)):
            where = ", ".join(str(xp.device_of(array)) for array in arrays)
            raise DistError(f"{what}: expected arrays of {'one device' if self.device else 'the host'}, got {where}")
        on_host_memory = all(kinds)
        if not on_host_memory:
            self.device.check(what, *arrays)
        elif (at_work := xp.recorder()) is not None:  # on the host the call itself is noted, outside the recording
            at_work.fail(
                f"captured step: {what} is on the host, and a replay on a GPU would not repeat it; move the numbers to the GPU"
            )
        on_host(partial(self.agree, what))
        return self.host if on_host_memory else self.device

    def reduce(self, op: str, what: str, *arrays: Array) -> None:
        """Combine each array with those of all other processes, in place, in the order of :mod:`kobai.distributed.tree`.

        Large arrays travel from where they are, and small ones of a dtype together. ``what`` says more of them, on which the
        processes must agree.
        """
        kinds = " and ".join(sorted(map(str, {array.dtype for array in arrays})))
        wire = self._wire(f"all_reduce({op}) of {sum(array.size for array in arrays):,} {kinds}{what}", *arrays)
        with xp.beside(arrays[0]):
            small: dict[Any, list[Array]] = {}
            for array in arrays:
                if array.flags.c_contiguous and (len(arrays) == 1 or array.nbytes >= _ALONE):
                    self._combine(wire, array.reshape(-1), op)
                else:
                    small.setdefault(array.dtype, []).append(array)
            for parts in small.values():
                joined = xp.xp_of(arrays[0]).concatenate([part.reshape(-1) for part in parts])
                self._combine(wire, joined, op)
                ends = np.cumsum([part.size for part in parts])
                for part, end in zip(parts, ends.tolist(), strict=True):
                    part[...] = joined[end - part.size : end].reshape(part.shape)

    def _combine(self, wire: Wire, flat: Array, op: str) -> None:
        """One array (n,) of all processes combined, in place."""
        size = self.size
        if size > 1 and flat.size and not wire.fast(flat, flat, op):
            part = -(-flat.size // size)
            even = part * size == flat.size
            room = wire.room(part * size * (1 if even else 2), flat.dtype)
            taken, given = room[: part * size], flat if even else room[part * size :]
            if not even:
                given[: flat.size] = flat
                given[flat.size :] = 0
            wire.to_all(given, taken)
            combined(taken.reshape(size, part), COMBINE[op], out=given[self.rank * part : (self.rank + 1) * part])
            wire.from_all(None, given)
            if not even:
                flat[...] = given[: flat.size]
        if op == "avg":
            flat /= size

    def reduce_scatter(self, array: Array, out: Array, op: str) -> None:
        """Part r of ``array``, which has as many equal parts as there are processes, combined, into ``out`` of rank r."""
        wire = self._wire(f"reduce_scatter({op}) of {array.size:,} {array.dtype}", array, out)
        flat, part = array.reshape(-1), out.reshape(-1)
        with xp.beside(array):
            if self.size == 1:
                part[...] = flat
            elif flat.size and not wire.fast(flat, part, op):
                taken = wire.room(flat.size, flat.dtype)
                wire.to_all(flat, taken)
                combined(taken.reshape(self.size, part.size), COMBINE[op], out=part)
            if op == "avg":
                part /= self.size

    def broadcast(self, array: Array, source: int) -> None:
        """The array of rank ``source``, into that of all others."""
        wire = self._wire(f"broadcast of {array.size:,} {array.dtype} from rank {source}", array)
        if self.size > 1 and array.size:
            with xp.beside(array):
                wire.from_one(array, source)

    def share(self, source: int, *arrays: Array) -> None:
        """All arrays of rank ``source``, of any layout, into those of all others, in one message."""
        wire = self._wire(f"broadcast of {len(arrays)} arrays from rank {source}", *arrays)
        if self.size == 1:
            return
        library = xp.xp_of(arrays[0])
        with xp.beside(arrays[0]):
            parts = [library.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
            ends = np.cumsum([part.size + -part.size % _ALIGNED for part in parts]).tolist()
            joined = library.zeros(ends[-1], np.uint8)
            for part, begin in zip(parts, [0, *ends], strict=False):
                joined[begin : begin + part.size] = part
            wire.from_one(joined, source)
            for array, begin in zip(arrays, [0, *ends], strict=False) if self.rank != source else ():
                array[...] = joined[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)

    def gather(self, array: Array, out: Array, what: str = "") -> None:
        """The arrays of all processes, into ``out`` of shape (processes, ...); ``what`` as in :meth:`reduce`."""
        wire = self._wire(f"all_gather of {array.size:,} {array.dtype}{what}", array, out)
        with xp.beside(array):
            if self.size == 1:
                out[...] = array.reshape(out.shape)
            elif array.size:
                wire.from_all(array, out)

    def exchange(self, given: Array, taken: Array) -> None:
        """Row r of ``given`` to process r; row r of ``taken`` from it."""
        wire = self._wire(f"all_to_all of {given.size:,} {given.dtype}", given, taken)
        with xp.beside(given):
            if self.size == 1:
                taken[...] = given
            elif given.size:
                wire.to_all(given, taken)

    def objects(self, value: Any) -> list[Any]:
        """One object of each process, in order of rank."""
        self.agree("all_gather_object")
        return list(self.comm.allgather(value))

    def barrier(self) -> None:
        """Wait for all, and for what was queued on their GPUs."""
        if self.device is not None:
            self.device.synchronize()
        self.agree("barrier")

    def end(self) -> None:
        """The last exchange: whoever still wants something hears that this process wants nothing more."""
        atexit.unregister(self.leave)
        self.agree(END)

    def leave(self) -> None:
        """:meth:`end` at the end of the program, where nobody is left to be told what others want: they raise."""
        with suppress(DistError):
            self.end()


_LONGEST = 96
"""Bytes of the message about what a process wants."""

_ALONE = 1 << 18
"""Bytes of an array that travels by itself: to copy it twice takes longer than one more message."""

_ALIGNED = 16
"""Bytes: where arrays that travel together begin, so that a GPU can read them."""


def _said(want: str) -> str:
    return "nothing more: it has ended, or its data ran out" if want == END else want


def found(backend: str) -> World:
    """The processes that MPI has started with this one; DistError without mpi4py."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise DistError(f"there is no MPI: {install('mpi')} brings one") from error
    world = World(MPI.COMM_WORLD.Dup(), backend)
    atexit.register(world.leave)
    return world


def found_on_gpus(device: Any, order: str) -> World:
    """The processes that MPI has started, each with a GPU.

    ``device``: which; by default that of the process's rank on its machine, or the only one that it sees.

    Raises:
        BackendError: no CuPy or no GPU. DistError: no NCCL or MPI; fewer GPUs than processes on a machine.
    """
    from kobai.cuda import collectives

    collectives.needed()
    world = found("nccl")
    from mpi4py import MPI  # which is there by now

    try:
        index, error = collectives.gpu_of_this(device), None
    except DistError as caught:
        index, error = -1, str(caught)
    seats = world.comm.allgather((error, order, MPI.Get_processor_name(), collectives.bus(index)))
    if world.size > 1:
        _check_seats(seats)
    elif error is not None:
        raise DistError(error)
    world.device = collectives.NcclWire(world.comm, index, order)
    return world


def _check_seats(seats: list[tuple[str | None, str, str, str]]) -> None:
    """DistError, the same in all processes, unless each has a GPU of its own, and all the same order of sums."""
    for rank, (error, order, host, bus) in enumerate(seats):
        if error is not None:
            raise DistError(f"rank {rank}: {error}")
        if order != seats[0][1]:
            raise DistError(
                f"init_process_group: expected one order in all processes; rank 0 has {seats[0][1]!r}, rank {rank} {order!r}"
            )
        first = next(i for i, seat in enumerate(seats) if seat[2:] == (host, bus))
        if first != rank:
            raise DistError(
                f"init_process_group: expected one GPU for each process, but ranks {first} and {rank} have the same, {bus} of "
                f"{host}; start fewer processes there, or give each its own device_id"
            )
