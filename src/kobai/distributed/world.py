"""The processes that work together, and what they exchange: bytes, by MPI.

Every exchange begins with a short message of what each process wants. If they want different things, because one has run out of
data or has another model, all of them raise, and none waits for ever.
"""

from __future__ import annotations

import atexit
from contextlib import suppress
from typing import Any

import numpy as np

from kobai.distributed.tree import COMBINE, combined
from kobai.errors import DistError, install

END = "destroy_process_group"


class World:
    """All processes of the job. The methods take contiguous arrays of the host, and can be launched as kernels are."""

    def __init__(self, comm: Any, backend: str) -> None:
        from mpi4py import MPI

        self.comm, self.backend, self._byte = comm, backend, MPI.BYTE
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())
        self._buffers: dict[tuple[int, str], tuple[np.ndarray[Any, Any], ...]] = {}

    def agree(self, what: str) -> None:
        """Go on if all processes want the same; DistError, in all of them, if not."""
        if self.size == 1:
            return
        mine = np.frombuffer(what.encode()[:_LONGEST].ljust(_LONGEST), np.uint8)
        every = np.empty((self.size, _LONGEST), np.uint8)
        self.comm.Allgather([mine, self._byte], [every, self._byte])
        if (every == mine).all():
            return
        atexit.unregister(self.leave)  # there is nothing to wait for any more
        wanted = [row.tobytes().decode(errors="replace").strip() for row in every]
        told = "; ".join(f"rank {rank}: {_said(want)}" for rank, want in enumerate(wanted))
        raise DistError(f"the processes want different things – {told}")

    def reduce(self, array: np.ndarray[Any, Any], op: str, what: str = "") -> None:
        """``array`` of all processes combined, in place, in the order of :mod:`kobai.distributed.tree`.

        ``what`` says more of it, on which they must agree.
        """
        self.agree(f"all_reduce({op}) of {array.size:,} {array.dtype}{what}")
        flat, size = array.reshape(-1), self.size
        if size > 1 and flat.size:
            part = -(-flat.size // size)
            given, taken = self._room(part, flat.dtype)
            given[: flat.size] = flat
            given[flat.size :] = 0
            self.comm.Alltoall([given, self._byte], [taken, self._byte])
            sent = combined(taken.reshape(size, part), COMBINE[op])
            self.comm.Allgather([sent, self._byte], [given, self._byte])
            flat[...] = given[: flat.size]
        if op == "avg":
            flat /= size

    def broadcast(self, array: np.ndarray[Any, Any], source: int) -> None:
        """The array of rank ``source``, into that of all others."""
        self.agree(f"broadcast of {array.size:,} {array.dtype} from rank {source}")
        if self.size > 1 and array.size:
            self.comm.Bcast(
                [array.view(np.uint8) if array.ndim else array.reshape(1).view(np.uint8), self._byte], source
            )

    def share(self, source: int, *arrays: np.ndarray[Any, Any]) -> None:
        """All arrays of rank ``source``, of any layout, into those of all others, in one message."""
        self.agree(f"broadcast of {len(arrays)} arrays from rank {source}")
        if self.size > 1:
            joined = np.frombuffer(bytearray().join(array.tobytes() for array in arrays), np.uint8)
            self.comm.Bcast([joined, self._byte], source)
            at = 0
            for array in arrays if self.rank != source else ():
                array[...] = joined[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
                at += array.nbytes

    def gather(self, array: np.ndarray[Any, Any], out: np.ndarray[Any, Any], what: str = "") -> None:
        """The arrays of all processes, into ``out`` of shape (processes, ...); ``what`` as in :meth:`reduce`."""
        self.agree(f"all_gather of {array.size:,} {array.dtype}{what}")
        if self.size == 1:
            out[...] = array.reshape(out.shape)
        elif array.size:
            self.comm.Allgather([array, self._byte], [out, self._byte])

    def exchange(self, given: np.ndarray[Any, Any], taken: np.ndarray[Any, Any]) -> None:
        """Row r of ``given`` to process r; row r of ``taken`` from it."""
        self.agree(f"all_to_all of {given.size:,} {given.dtype}")
        if self.size == 1:
            taken[...] = given
        elif given.size:
            self.comm.Alltoall([given, self._byte], [taken, self._byte])

    def objects(self, value: Any) -> list[Any]:
        """One object of each process, in order of rank."""
        self.agree("all_gather_object")
        return list(self.comm.allgather(value))

    def barrier(self) -> None:
        """Wait for all."""
        self.agree("barrier")

    def end(self) -> None:
        """The last exchange: whoever still wants something hears that this process wants nothing more."""
        atexit.unregister(self.leave)
        self.agree(END)

    def leave(self) -> None:
        """:meth:`end` at the end of the program, where nobody is left to be told what others want: they raise."""
        with suppress(DistError):
            self.end()

    def _room(self, part: int, dtype: Any) -> tuple[np.ndarray[Any, Any], ...]:
        """Two arrays of ``part`` numbers for each process, kept for the next time."""
        key = part, dtype.str
        if key not in self._buffers:
            self._buffers[key] = tuple(np.empty(part * self.size, dtype) for _ in range(2))
        return self._buffers[key]


_LONGEST = 96
"""Bytes of the message about what a process wants."""


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
