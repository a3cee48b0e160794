"""``kobai.distributed``: the answers of a PyTorch that was built without it. Kobai trains in one process.

Programs that ask ``is_available()`` or ``is_initialized()`` before they speak to other processes run; what would speak to
them can be imported, and raises when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from kobai.compat.absent import within

__all__ = [
    "get_rank",
    "get_world_size",
    "is_available",
    "is_backend_available",
    "is_gloo_available",
    "is_initialized",
    "is_mpi_available",
    "is_nccl_available",
    "is_torchelastic_launched",
    "is_ucc_available",
    "is_xccl_available",
]


def is_available() -> bool:
    """Whether there can be several processes: no.

    >>> import kobai
    >>> kobai.distributed.is_available(), kobai.distributed.is_initialized()
    (False, False)
    """
    return False


is_initialized: Callable[[], bool] = is_available
is_nccl_available: Callable[[], bool] = is_available
is_gloo_available: Callable[[], bool] = is_available
is_mpi_available: Callable[[], bool] = is_available
is_torchelastic_launched: Callable[[], bool] = is_available
is_ucc_available: Callable[[], bool] = is_available
is_xccl_available: Callable[[], bool] = is_available


def is_backend_available(backend: str) -> bool:
    """Whether there is a way to speak to other processes: no."""
    return False


def get_rank(group: Any = None) -> NoReturn:
    """ValueError, as in PyTorch before ``init_process_group``: this process has no rank among others."""
    raise ValueError("get_rank: there is no process group, Kobai trains in one process; ask is_initialized() first")


def get_world_size(group: Any = None) -> NoReturn:
    """ValueError, as in PyTorch before ``init_process_group``."""
    raise ValueError(
        "get_world_size: there is no process group, Kobai trains in one process; ask is_initialized() first"
    )


__getattr__ = within(
    __name__,
    """
    AllToAllOptions AllreduceOptions Backend BackendConfig BarrierOptions BroadcastOptions BuiltinCommHookType
    DebugLevel DeviceMesh DistBackendError DistError DistNetworkError DistStoreError FileStore GatherOptions
    GradBucket GroupMember HashStore P2POp PrefixStore ProcessGroup ProcessGroupGloo ProcessGroupMPI ProcessGroupNCCL
    ReduceOp ReduceOptions ReduceScatterOptions Reducer ScatterOptions Store TCPStore Work all_gather
    all_gather_coalesced all_gather_into_tensor all_gather_object all_reduce all_reduce_coalesced all_to_all
    all_to_all_single barrier batch_isend_irecv breakpoint broadcast broadcast_object_list default_pg_timeout
    destroy_process_group gather gather_object get_backend get_backend_config get_default_backend_for_device
    get_global_rank get_group_rank get_node_local_rank get_process_group_ranks group init_device_mesh
    init_process_group irecv isend monitored_barrier new_group new_subgroups new_subgroups_by_enumeration recv
    recv_object_list reduce reduce_op reduce_scatter reduce_scatter_tensor register_rendezvous_handler rendezvous
    scatter scatter_object_list send send_object_list set_debug_level shrink_group split_group supports_complex
    """,
)
