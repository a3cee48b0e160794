"""What the tests of NCCL start in several processes: ``gpu_job.py NAME``, which prints ``ok`` if all is well.

With ``KOBAI_SIMULATE_GPU=1`` the GPUs are simulated ones, ``KOBAI_SIMULATED_DEVICES`` in each process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if os.environ.get("KOBAI_SIMULATE_GPU") == "1":  # before anything can import CuPy
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import simulator

    machine = simulator.install(int(os.environ.get("KOBAI_SIMULATED_DEVICES", "4")))
else:
    machine = None

import job
import numpy as np
import pytest
import shards_job

import kobai
import kobai.distributed as dist
from kobai.distributed.world import found
from kobai.errors import CaptureError, DistError
from kobai.nn.parallel import DistributedDataParallel

RANK = int(os.environ.get("LOCAL_RANK", "0"))
DEVICE = f"cuda:{RANK}"
DTYPES = [kobai.float32, kobai.float64, kobai.float16, kobai.bfloat16, kobai.int64]
OPERATIONS = ["sum", "product", "min", "max", "avg", "band", "bxor"]


def join(**options: object) -> None:
    kobai.use(DEVICE)
    dist.init_process_group("auto", **options)
    assert dist.get_backend() == "nccl"


def bits(tensor: kobai.Tensor) -> bytes:
    return tensor.detach().cpu().view(-1).view(kobai.uint8).numpy().tobytes()


def cases() -> list[tuple[kobai.Tensor, str]]:
    """What differs from rank to rank, and what can be done to it."""
    rng, found = np.random.default_rng(dist.get_rank()), []
    for dtype in DTYPES:
        for op in OPERATIONS:
            if (op in ("band", "bxor")) == dtype.is_floating_point or (op == "avg" and not dtype.is_floating_point):
                continue
            for n in (0, 1, 7, 1000):
                values = (
                    rng.normal(size=n) * (1 if op == "product" else 100)
                    if dtype.is_floating_point
                    else rng.integers(-9, 9, n)
                )
                found.append((kobai.from_numpy(values).to("cpu").to(dtype), op))
    return found


def collectives() -> None:
    """Every sum has MPI's bits; the other functions do what MPI's do."""
    join()
    r, size, mpi = dist.get_rank(), dist.get_world_size(), found("mpi")
    for host, op in cases():
        there = host.to(DEVICE)
        mpi.reduce(op, "", host.array)
        assert dist.all_reduce(there, op) is None
        assert bits(there) == bits(host), (host.dtype, op, len(host))
        if op == "sum" and len(host):
            parts = kobai.cat([host + i for i in range(size)])
            whole, own = parts.to(DEVICE), kobai.empty(len(host), dtype=host.dtype)
            dist.reduce_scatter_tensor(own, whole)
            mpi.reduce(op, "", parts.array)
            assert bits(own) == bits(parts[r * len(host) : (r + 1) * len(host)])
    on_host = kobai.ones(3, device="cpu") * (r + 1)
    dist.all_reduce(on_host)
    assert on_host.tolist() == [size * (size + 1) / 2] * 3
    x = kobai.full((2, 3), float(r)).t()  # not contiguous
    dist.broadcast(x, size - 1)
    assert (x == size - 1).all()
    every = [kobai.empty(2) for _ in range(size)]
    dist.all_gather(every, kobai.full((2,), float(r)))
    assert [part.tolist() for part in every] == [[float(i)] * 2 for i in range(size)]
    taken = kobai.empty(size)
    dist.all_to_all_single(taken, kobai.arange(float(size)) + 10 * r)
    assert taken.tolist() == [10.0 * i + r for i in range(size)]
    parts = [kobai.full((2, 2), r * 1.0), kobai.arange(3) + r, kobai.full((), r, dtype=kobai.float64)]
    dist._the_world("test").share(1, *(part.array for part in parts))
    assert [part.tolist() for part in parts] == [[[1.0, 1.0]] * 2, [1, 2, 3], 1.0]
    dist.barrier()
    known = [r]
    dist.broadcast_object_list(known, src=1)
    assert known == [1]
    elsewhere = kobai.ones(2, device=f"cuda:{(RANK + 1) % size}")
    with pytest.raises(DistError, match=rf"expected arrays on cuda:{RANK}, this process's GPU, got cuda:"):
        dist.all_reduce(elsewhere)
    with pytest.raises(DistError, match="expected arrays of one device, got"):
        dist._the_world("test").gather(x.array, np.empty((size, 6), np.float32))
    mpi.end()


def fast() -> None:
    """NCCL's own sums: another order than the tree's, which is seen from three ranks on; what it does not know is the same."""
    join(order="fast")
    mpi, other = found("mpi"), 0
    for host, op in cases():
        there, sizes = host.to(DEVICE), host.double().abs()
        mpi.reduce(op, "", host.array)
        mpi.reduce("product" if op == "product" else "sum", "", sizes.array)
        dist.all_reduce(there, op)
        if op not in ("sum", "avg", "product"):
            assert bits(there) == bits(host), (host.dtype, op)
        other += bits(there) != bits(host)
        if (
            host.dtype.is_floating_point
        ):  # every partial result is rounded, on both sides, below ``tiny`` to its last place
            kind, apart = kobai.finfo(host.dtype), (there.double().cpu() - host.double()).abs()
            assert bool((apart <= 2 * dist.get_world_size() * kind.eps * (sizes + kind.tiny)).all()), (host.dtype, op)
    assert (other > 0) == (dist.get_world_size() > 2)
    own = kobai.empty(3)
    dist.reduce_scatter_tensor(own, kobai.ones(3 * dist.get_world_size()))
    assert own.tolist() == [dist.get_world_size()] * 3
    mpi.end()


def training() -> None:
    """Shares of a batch give the same bits everywhere, captured or not."""
    join()
    r, size = dist.get_rank(), dist.get_world_size()
    x, t, digests = job.X.to(DEVICE), job.T.to(DEVICE), []
    for capture in (False, True):
        kobai.manual_seed(r)  # the parameters of rank 0 count
        model = DistributedDataParallel(job.net())
        losses = job.trained(model, x[r::size], t[r::size], capture)
        assert losses[-1] < losses[0]
        digests.append(job.digest(model))
    every: list[object] = [None] * size
    dist.all_gather_object(every, digests)
    assert {d for pair in every for d in pair} == {digests[0]}  # type: ignore[attr-defined]


def shards() -> None:
    """The bits of a sharded training, which are the same for every number of processes."""
    if int(os.environ["WORLD_SIZE"]) > 1:
        join()
    kobai.use(DEVICE)
    digests = {}
    for capture in (False, True):
        done = shards_job.run(capture=capture, device=DEVICE)
        assert done._captured.failure is None
        assert done._captured.programs == 2 * capture
        digests[capture] = shards_job.digest(done)
    assert digests[False] == digests[True]
    print(f"digest {digests[True]}", flush=True)


def one_cannot() -> None:
    """One rank reads a value inside the step, between two exchanges: all go on without capture, and none waits for ever."""
    join()
    r, size = dist.get_rank(), dist.get_world_size()
    weight = kobai.ones(4)

    def step(x: kobai.Tensor) -> kobai.Tensor:
        y = weight * x
        dist.all_reduce(y)
        if r == 1:
            y.sum().item()
        dist.all_reduce(y)
        return y

    lenient = kobai.capture(step, fallback=True)
    x = kobai.arange(4.0) + r
    wanted = [(sum(i + s for s in range(size))) * size for i in range(4)]
    for _ in range(4):
        assert lenient(x).tolist() == wanted
    assert lenient.failure is not None
    assert ("item" in lenient.failure) == (r == 1)
    assert ("rank 1 cannot capture it" in lenient.failure) == (r != 1)
    strict = kobai.capture(step)
    strict(x)
    with pytest.raises(CaptureError, match="item" if r == 1 else "rank 1 cannot capture it"):
        strict(x)


def one_is_late() -> None:
    """One rank meets another signature, or must record again: all do what it does, and come to the same numbers."""
    join()
    r, size = dist.get_rank(), dist.get_world_size()
    state = {"scale": 1.0}

    def step(x: kobai.Tensor) -> kobai.Tensor:
        y = x * state["scale"]
        total = y.sum()
        dist.all_reduce(total)
        return total

    run = kobai.capture(step)
    for i in range(9):
        if i == 4 and r == 0:
            state["scale"] = 2.0  # its program no longer holds
        x = kobai.ones(5 if i == 6 and r == 1 else 4) * (r + 1)
        wanted = sum(
            float((5 if i == 6 and s == 1 else 4) * (s + 1) * (2 if i >= 4 and s == 0 else 1)) for s in range(size)
        )
        assert run(x).item() == wanted, i
    assert run.failure is None


def runs_out() -> None:
    """Rank 1 has fewer batches, and the others replay a graph: they hear of it before they launch it."""
    join()
    model = DistributedDataParallel(job.net())
    x, t = job.X[:8].to(DEVICE), job.T[:8].to(DEVICE)
    job.trained(model, x, t, capture=True, steps=4 + 2 * (dist.get_rank() == 0))


def too_many() -> None:
    kobai.use("cuda:0")
    with pytest.raises(DistError, match=r"rank 2: .*this is process 3 on a machine with 2; start at most 2 there"):
        dist.init_process_group("nccl")


def same_device() -> None:
    kobai.use("cuda:0")
    with pytest.raises(DistError, match=r"ranks 0 and 1 have the same, .* start fewer processes there"):
        dist.init_process_group("nccl", device_id=0)


def other_order() -> None:
    kobai.use(DEVICE)
    with pytest.raises(DistError, match="rank 0 has 'tree', rank 1 'fast'"):
        dist.init_process_group("nccl", order="fast" if RANK else "tree")


if __name__ == "__main__":
    for name in sys.argv[1].split(","):
        globals()[name]()
        if dist.is_initialized() and name != "runs_out":
            dist.destroy_process_group()
        if machine is not None:
            machine.sound()
        print(f"{name} ok", flush=True)
