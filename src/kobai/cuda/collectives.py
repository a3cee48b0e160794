"""The engine of GPUs: NCCL through CuPy moves bytes from device to device; who is there and what they want, MPI says.

Calls are queued on the current stream, and a capturing stream takes them into its graph. The tree's sums are made by CuPy's
additions between two exchanges, as on the host::

    P arrays of n numbers --send, recv--> P × n/P numbers each --tree--> n/P --all-gather--> n

NCCL's own reductions, which a group with ``order="fast"`` uses, add in an order that depends on the ranks, the size, the
network and the release.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from kobai import xp
from kobai.errors import DistError
from kobai.xp import Array

ORDERS = ("tree", "fast")
"""In which order numbers are added: that of the tree, always the same, or NCCL's."""

FAST = {"sum": "SUM", "avg": "SUM", "product": "PROD", "max": "MAX", "min": "MIN"}
"""What NCCL combines, by its names. All else, and dtypes that CuPy does not name to it, go by the tree in any order."""


def library() -> Any:
    """CuPy's module of NCCL, whose ``available`` says whether it can be used. BackendError without CuPy or a device."""
    xp.namespace("cuda")
    return importlib.import_module("cupy.cuda.nccl")


def needed() -> None:
    """DistError where CuPy finds no NCCL."""
    if not library().available:
        major = importlib.import_module("cupy").cuda.runtime.runtimeGetVersion() // 1000
        raise DistError(
            f"init_process_group: CuPy finds no NCCL (libnccl.so.2), by which GPUs exchange; pip install nvidia-nccl-cu{major} "
            "brings one, for Linux"
        )


class NcclWire:
    """Arrays of one GPU, by NCCL."""

    def __init__(self, comm: Any, index: int, order: str) -> None:
        nccl = library()
        self.nccl, self.index, self.order = nccl, index, order
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())
        self.cupy = importlib.import_module("cupy")
        known = comm.bcast(nccl.get_unique_id() if comm.Get_rank() == 0 else None)
        try:
            with self.cupy.cuda.Device(index):
                self.link = nccl.NcclCommunicator(self.size, known, self.rank)
        except nccl.NcclError as error:
            raise DistError(f"init_process_group: NCCL cannot join cuda:{index} to the others ({error})") from error

    def check(self, what: str, *arrays: Array) -> None:
        """DistError unless the arrays are on this process's GPU."""
        for array in arrays:
            if array.device.id != self.index:
                raise DistError(
                    f"{what}: expected arrays on cuda:{self.index}, this process's GPU, got cuda:{array.device.id}"
                )

    def to_all(self, given: Array, taken: Array) -> None:
        part = given.nbytes // self.size
        self.nccl.groupStart()
        for rank in range(self.size):
            self.link.send(given.data.ptr + rank * part, part, self.nccl.NCCL_UINT8, rank, self._stream())
            self.link.recv(taken.data.ptr + rank * part, part, self.nccl.NCCL_UINT8, rank, self._stream())
        self.nccl.groupEnd()

    def from_all(self, given: Array | None, taken: Array) -> None:
        part, at = taken.nbytes // self.size, taken.data.ptr
        given_at = at + self.rank * part if given is None else given.data.ptr
        self.link.allGather(given_at, at, part, self.nccl.NCCL_UINT8, self._stream())

    def from_one(self, array: Array, source: int) -> None:
        at = array.data.ptr
        self.link.broadcast(at, at, array.nbytes, self.nccl.NCCL_UINT8, source, self._stream())

    def room(self, n: int, dtype: Any) -> Array:
        """From the current pool, which is a graph's own while one is captured."""
        return self.cupy.empty(n, dtype)

    def fast(self, given: Array, taken: Array, op: str) -> bool:
        kind = getattr(self.nccl, f"NCCL_{str(given.dtype).upper()}", None)
        if self.order != "fast" or op not in FAST or kind is None:
            return False
        combine = getattr(self.nccl, f"NCCL_{FAST[op]}")
        call = self.link.allReduce if taken.size == given.size else self.link.reduceScatter
        call(given.data.ptr, taken.data.ptr, taken.size, kind, combine, self._stream())
        return True

    def synchronize(self) -> None:
        """Wait until all that was queued on the GPU is done."""
        self.cupy.cuda.Device(self.index).synchronize()

    def _stream(self) -> int:
        return int(self.cupy.cuda.get_current_stream().ptr)


def gpu_of_this(device: Any) -> int:
    """The number of this process's GPU: ``device``, that of its rank on its machine, or the only one that it sees.

    DistError if there is none.
    """
    count = int(importlib.import_module("cupy").cuda.runtime.getDeviceCount())
    if device is not None:
        index = device if isinstance(device, int) else xp.device(device).index
        if index is None or not 0 <= index < count:
            raise DistError(f"init_process_group: expected device_id from cuda:0 to cuda:{count - 1}, got {device}")
        return index
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if count == 1:  # the only one that it sees, as where Slurm or CUDA_VISIBLE_DEVICES gives each process its own
        return 0
    if local >= count:
        raise DistError(
            f"init_process_group: expected one GPU for each process, but this is process {local + 1} on a machine with "
            f"{count}; start at most {count} there"
        )
    return local


def bus(index: int) -> str:
    """What tells the GPU of this number from all others of the machine; nothing for -1."""
    return "" if index < 0 else str(importlib.import_module("cupy").cuda.runtime.deviceGetPCIBusId(index))
