"""``kobai.distributed``: several processes that train one model, over MPI; on GPUs, over NCCL.

``kobai launch -n 4 script.py`` starts a script in four processes; there, PyTorch's functions do what they do in PyTorch::

    import kobai.distributed as dist
    dist.init_process_group("auto")           # "mpi", which "gloo" means too, or "nccl" if tensors are made on a GPU
    model = nn.parallel.DistributedDataParallel(model)
    sampler = DistributedSampler(data)        # knows rank and number of processes

Sums are taken in one order, see :mod:`kobai.distributed.tree`, so that a training ends in the same bits in every run. Needs
the extra ``mpi``; without it ``is_available()`` is False. NCCL needs that too: the processes find each other by MPI, and say by
it what they want, while numbers travel from GPU to GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kobai.compat.absent import within
from kobai.engine import peers
from kobai.errors import BackendError, DistError, nearest
from kobai.xp import default_device

if TYPE_CHECKING:
    from kobai.core.tensor import Tensor
    from kobai.distributed.world import World

__all__ = [
    "DistError",
    "ReduceOp",
    "Work",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "destroy_process_group",
    "get_backend",
    "get_rank",
    "get_world_size",
    "init_process_group",
    "is_available",
    "is_backend_available",
    "is_gloo_available",
    "is_initialized",
    "is_mpi_available",
    "is_nccl_available",
    "is_torchelastic_launched",
    "is_ucc_available",
    "is_xccl_available",
    "reduce",
    "reduce_scatter_tensor",
]

_world: World | None = None

BACKENDS = ("auto", "mpi", "gloo", "nccl")
"""Ways to speak to other processes: programs for the CPU are written with ``gloo``, which here means MPI."""


class ReduceOp:
    """What :func:`all_reduce` does to the numbers of all processes."""

    SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR, BXOR = "sum", "avg", "product", "min", "max", "band", "bor", "bxor"


class Work:
    """What a function with ``async_op=True`` returns: the work is done already."""

    def wait(self, timeout: Any = None) -> bool:
        """True at once."""
        return True

    def is_completed(self) -> bool:
        """True."""
        return True


# --- the group


def is_available() -> bool:
    """Whether there can be several processes: whether mpi4py is installed."""
    return find_spec("mpi4py") is not None


def is_initialized() -> bool:
    """Whether :func:`init_process_group` was called.

    >>> import kobai
    >>> kobai.distributed.is_initialized()
    False
    """
    return _world is not None


is_mpi_available = is_available
is_gloo_available = is_available


def is_nccl_available() -> bool:
    """Whether GPUs can speak to each other: whether CuPy, a GPU and NCCL are there.

    >>> import kobai
    >>> kobai.distributed.is_nccl_available() <= kobai.cuda.is_available()
    True
    """
    from kobai.cuda.collectives import library

    try:
        return bool(library().available)
    except BackendError:
        return False


def is_ucc_available() -> bool:
    """False: Kobai uses neither UCC nor XCCL, and torchelastic starts no MPI."""
    return False


is_torchelastic_launched = is_xccl_available = is_ucc_available


def is_backend_available(backend: str) -> bool:
    """Whether ``init_process_group(backend)`` can work."""
    name = backend.lower()
    return name in BACKENDS and is_available() and (name != "nccl" or is_nccl_available())


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: Any = None,
    world_size: int = -1,
    rank: int = -1,
    store: Any = None,
    device_id: Any = None,
    order: str = "tree",
) -> None:
    """Join the processes that were started together, by ``kobai launch``, ``mpiexec -m mpi4py`` or Slurm's ``srun``.

    Args:
        backend: ``"mpi"``, which ``"gloo"`` means too, for tensors of the host; ``"nccl"`` for those of GPUs, one GPU for each
            process, and of the host, by MPI. ``"auto"``, like None: NCCL if tensors are made on a GPU now, as by
            ``kobai.use("cupy")``, else MPI.
        world_size, rank: checked, if given: who is who, MPI knows.
        init_method: None or ``"env://"``: MPI needs no address to meet at, and no ``store``.
        timeout: nothing waits for a process that is dead or wants something else, however long it is.
        device_id: with NCCL, this process's GPU (``"cuda:1"`` or 1); by default that of its rank on its machine
            (``LOCAL_RANK``), or the only one that it sees.
        order: with NCCL, ``"fast"`` lets NCCL add as it likes, where speed counts more than the same bits in every run.

    Raises:
        RuntimeError: called twice.
        ValueError: another backend, or an order or a GPU without NCCL. BackendError: no CuPy or no GPU for NCCL.
        DistError: no mpi4py, no NCCL; fewer GPUs than processes; another rank or number of processes than MPI's.
    """
    global _world
    import os

    from kobai.cuda.collectives import ORDERS
    from kobai.distributed.world import found, found_on_gpus

    if _world is not None:
        raise RuntimeError("init_process_group: it has been called already; destroy_process_group() ends the group")
    name = "auto" if backend is None else str(backend).lower()
    if name not in BACKENDS:
        raise ValueError(
            f"init_process_group: expected backend {', '.join(BACKENDS)}, got {backend!r}.{nearest(name, BACKENDS)}"
        )
    if store is not None or init_method not in (None, "env://"):
        raise ValueError(
            f"init_process_group: expected no store, and 'env://' or no init_method, got {store} and {init_method!r}: start "
            "the script by: kobai launch -n 2 script.py"
        )
    if name == "auto":
        name = "nccl" if default_device().type == "cuda" else "mpi"
    if order not in ORDERS:
        raise ValueError(
            f"init_process_group: expected order {' or '.join(ORDERS)}, got {order!r}.{nearest(order, ORDERS)}"
        )
    if name != "nccl" and (order != "tree" or device_id is not None):
        raise ValueError(
            f"init_process_group: expected no order and no device_id with MPI, got {order!r} and {device_id}; they are NCCL's"
        )
    world = found_on_gpus(device_id, order) if name == "nccl" else found("mpi")
    for what, asked, known in (
        ("world_size", world_size if world_size >= 0 else int(os.environ.get("WORLD_SIZE", world.size)), world.size),
        ("rank", rank if rank >= 0 else int(os.environ.get("RANK", world.rank)), world.rank),
    ):
        if asked != known:
            raise DistError(
                f"init_process_group: expected {what} {asked}, but MPI says {known}; start the script by: "
                f"kobai launch -n {max(asked, 2)} script.py"
            )
    _world = world
    peers.joined = world if world.device is not None and world.size > 1 else None


def destroy_process_group(group: None = None) -> None:
    """Leave the group; all processes must do so."""
    global _world
    world, _world, peers.joined = _the_world("destroy_process_group", group), None, None
    world.end()


def get_rank(group: None = None) -> int:
    """Which process this is, from 0 on; ValueError without a group, as in PyTorch."""
    return _the_world("get_rank", group).rank


def get_world_size(group: None = None) -> int:
    """How many processes there are; ValueError without a group, as in PyTorch."""
    return _the_world("get_world_size", group).size


def get_backend(group: None = None) -> str:
    """``"mpi"`` or ``"nccl"``."""
    return _the_world("get_backend", group).backend


# --- tensors: all functions are collective, every process calls them in the same order


def all_reduce(tensor: Tensor, op: str = ReduceOp.SUM, group: None = None, async_op: bool = False) -> Work | None:
    """Combine the tensors of all processes, in place in each: the same bits in all of them.

    In a captured step the sum is part of the program.
    """
    _reduce_in_place("all_reduce", tensor, op, group)
    return Work() if async_op else None


def reduce(tensor: Tensor, dst: int, op: str = ReduceOp.SUM, group: None = None, async_op: bool = False) -> Work | None:
    """As :func:`all_reduce`; of the others than ``dst`` PyTorch promises nothing, and here they get the result too."""
    _rank_of("reduce", dst)
    return all_reduce(tensor, op, group, async_op)


def broadcast(tensor: Tensor, src: int, group: None = None, async_op: bool = False) -> Work | None:
    """The tensor of rank ``src``, into that of every process."""
    world = _the_world("broadcast", group)
    _launched("broadcast", tensor, lambda buffer: (world.broadcast, buffer, _rank_of("broadcast", src)))
    return Work() if async_op else None


def all_gather_into_tensor(
    output_tensor: Tensor, input_tensor: Tensor, group: None = None, async_op: bool = False
) -> Work | None:
    """``output_tensor``, (P n, ...) or (P, n, ...), becomes the ``input_tensor`` (n, ...) of all P processes, by rank."""
    from kobai.core.grad_mode import no_grad
    from kobai.engine.dispatch import launch

    world = _the_world("all_gather_into_tensor", group)
    if output_tensor.numel() != world.size * input_tensor.numel() or output_tensor.dtype != input_tensor.dtype:
        raise ValueError(
            f"all_gather_into_tensor: expected an output of {world.size} × {input_tensor.numel()} {input_tensor.dtype}, got "
            f"{output_tensor.numel()} {output_tensor.dtype}"
        )
    with no_grad():
        own = input_tensor.detach().contiguous()
        every = own.new_empty((world.size, *own.shape))
        launch(world.gather, own.array, every.array)
        output_tensor.copy_(every.reshape(output_tensor.shape))
    return Work() if async_op else None


def all_gather(
    tensor_list: Sequence[Tensor], tensor: Tensor, group: None = None, async_op: bool = False
) -> Work | None:
    """The tensors of all processes, by rank, into those of a list."""
    from kobai.core.grad_mode import no_grad

    world = _the_world("all_gather", group)
    if len(tensor_list) != world.size:
        raise ValueError(f"all_gather: expected a list of {world.size} tensors, got {len(tensor_list)}")
    every = tensor.new_empty((world.size, *tensor.shape))
    all_gather_into_tensor(every, tensor)
    with no_grad():
        for part, one in zip(tensor_list, every, strict=True):
            part.copy_(one)
    return Work() if async_op else None


def reduce_scatter_tensor(
    output: Tensor, input: Tensor, op: str = ReduceOp.SUM, group: None = None, async_op: bool = False
) -> Work | None:
    """``input``, (P n, ...), combined over the P processes; rank r keeps the r-th part, (n, ...), in ``output``."""
    from kobai.core.grad_mode import no_grad
    from kobai.engine.dispatch import launch

    world = _the_world("reduce_scatter_tensor", group)
    _check_operation("reduce_scatter_tensor", input, op)
    if input.numel() != world.size * output.numel():
        raise ValueError(
            f"reduce_scatter_tensor: expected an input of {world.size} × {output.numel()} elements, got {input.numel()}"
        )
    with no_grad():
        given = input.detach().contiguous()
        part = given.new_empty(output.shape)
        launch(world.reduce_scatter, given.array, part.array, op)
        output.copy_(part)
    return Work() if async_op else None


def all_to_all_single(output: Tensor, input: Tensor, group: None = None, async_op: bool = False) -> Work | None:
    """Part r of ``input`` to process r; part r of ``output`` from it. Both have P equal parts along dimension 0."""
    from kobai.core.grad_mode import no_grad
    from kobai.engine.dispatch import launch

    world = _the_world("all_to_all_single", group)
    if input.shape != output.shape or not input.shape or input.shape[0] % world.size:
        raise ValueError(
            f"all_to_all_single: expected two tensors of one shape (a multiple of {world.size}, ...), got "
            f"{tuple(input.shape)} and {tuple(output.shape)}"
        )
    with no_grad():
        given = input.detach().contiguous().reshape(world.size, -1)
        taken = given.new_empty(given.shape)
        launch(world.exchange, given.array, taken.array)
        output.copy_(taken.reshape(output.shape))
    return Work() if async_op else None


def barrier(group: None = None, async_op: bool = False, device_ids: Any = None) -> Work | None:
    """Wait until all processes are here."""
    _the_world("barrier", group).barrier()
    return Work() if async_op else None


# --- objects


def all_gather_object(object_list: list[Any], obj: Any, group: None = None) -> None:
    """One object of each process, by rank, into a list. They are pickled, as processes of one job trust each other."""
    world = _the_world("all_gather_object", group)
    if len(object_list) != world.size:
        raise ValueError(f"all_gather_object: expected a list of {world.size} places, got {len(object_list)}")
    object_list[:] = world.objects(obj)


def broadcast_object_list(object_list: list[Any], src: int = 0, group: None = None, device: Any = None) -> None:
    """The objects of rank ``src``, in the place of those in every process's list."""
    every = _the_world("broadcast_object_list", group).objects(list(object_list))
    object_list[:] = every[_rank_of("broadcast_object_list", src)]


# --- what they share


def _the_world(who: str, group: Any = None) -> World:
    if group is not None:
        raise NotImplementedError(f"{who}: there is one group, of all processes; expected group=None")
    if _world is None:
        raise ValueError(f"{who}: there is no process group; call init_process_group() first, or ask is_initialized()")
    return _world


def _rank_of(who: str, rank: int) -> int:
    if not 0 <= rank < _the_world(who).size:
        raise ValueError(f"{who}: expected a rank from 0 to {_the_world(who).size - 1}, got {rank}")
    return rank


def _reduce_in_place(who: str, tensor: Tensor, op: str, group: None) -> None:
    world = _the_world(who, group)
    _check_operation(who, tensor, op)
    _launched(who, tensor, lambda buffer: (world.reduce, op, "", buffer))


def _check_operation(who: str, tensor: Tensor, op: str) -> None:
    from kobai.distributed.tree import COMBINE

    if op not in COMBINE:
        raise ValueError(f"{who}: expected an operation of ReduceOp ({', '.join(COMBINE)}), got {op!r}")
    if op == ReduceOp.AVG and not tensor.is_floating_point():
        raise TypeError(f"{who}: expected floats for the average, got {tensor.dtype}")


def _launched(who: str, tensor: Tensor, call: Any) -> None:
    """Run a method of the world on a copy of the tensor, as a kernel, and write that back."""
    from kobai.core.grad_mode import no_grad
    from kobai.engine.dispatch import launch

    with no_grad():
        buffer = tensor.detach().contiguous().clone()
        launch(*call(buffer.array))
        tensor.copy_(buffer)


__getattr__ = within(
    __name__,
    """
    AllToAllOptions AllreduceOptions Backend BackendConfig BarrierOptions BroadcastOptions BuiltinCommHookType
    DebugLevel DeviceMesh DistBackendError DistNetworkError DistStoreError FileStore GatherOptions
    GradBucket GroupMember HashStore P2POp PrefixStore ProcessGroup ProcessGroupGloo ProcessGroupMPI ProcessGroupNCCL
    ReduceOptions ReduceScatterOptions Reducer ScatterOptions Store TCPStore
    all_gather_coalesced all_reduce_coalesced all_to_all
    batch_isend_irecv breakpoint default_pg_timeout
    gather gather_object get_backend_config get_default_backend_for_device
    get_global_rank get_group_rank get_node_local_rank get_process_group_ranks group init_device_mesh
    irecv isend monitored_barrier new_group new_subgroups new_subgroups_by_enumeration recv
    recv_object_list reduce_op reduce_scatter register_rendezvous_handler rendezvous rpc
    scatter scatter_object_list send send_object_list set_debug_level shrink_group split_group supports_complex
    """,
)
