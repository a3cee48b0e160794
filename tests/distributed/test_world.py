"""What processes agree on, and which of them captures: with threads in place of processes, and no GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import kobai
import kobai.distributed as dist
from kobai.distributed.tree import combined
from kobai.distributed.world import World, _check_seats
from kobai.engine import peers as joined_peers
from kobai.engine.dispatch import on_host
from kobai.engine.peers import Refused
from kobai.errors import BackendError, CaptureError, DistError

mpi = pytest.mark.skipif(not dist.is_available(), reason="mpi4py is not installed")


class Threads:
    """A communicator of mpi4py's kind, between threads of one process."""

    def __init__(self, rank: int, shared: SimpleNamespace) -> None:
        self.rank, self.shared = rank, shared

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return len(self.shared.given)

    def _every(self, mine: Any) -> list[Any]:
        self.shared.given[self.rank] = mine
        self.shared.barrier.wait(60)
        every = list(self.shared.given)
        self.shared.barrier.wait(60)
        return every

    def Allgather(self, mine: Any, every: Any) -> None:
        own = (
            mine[0] if isinstance(mine, list) else np.split(every[0].reshape(-1), self.Get_size())[self.rank]
        )  # in place
        parts = self._every(own.copy())
        every[0].reshape(len(parts), -1)[...] = [part.reshape(-1) for part in parts]

    def Alltoall(self, mine: Any, taken: Any) -> None:
        rows = self._every(mine[0].reshape(self.Get_size(), -1).copy())
        taken[0].reshape(len(rows), -1)[...] = [row[self.rank] for row in rows]

    def Bcast(self, buffer: Any, source: int) -> None:
        buffer[0][...] = self._every(buffer[0].copy())[source]


def together(n: int, job: Callable[[World], Any]) -> list[Any]:
    """What a job gives in each of ``n`` ranks; errors are results too."""
    shared = SimpleNamespace(given=[None] * n, barrier=threading.Barrier(n))

    def ranked(rank: int) -> Any:
        try:
            return job(World(Threads(rank, shared), "mpi"))
        except (DistError, CaptureError) as error:
            return error

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(ranked, range(n)))


@mpi
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_each_part_of_a_sum_has_the_order_of_the_whole(n: int) -> None:
    every = np.random.default_rng(0).normal(size=(n, n, 5)).astype(np.float32) * 1000

    def job(world: World) -> tuple[Any, Any]:
        whole, part = every[world.rank].copy(), np.empty(5, np.float32)
        world.reduce_scatter(whole, part, "avg")
        world.reduce("avg", "", whole)
        return whole, part

    wanted = combined(every.copy(), np.add) / np.float32(n)
    for rank, (whole, part) in enumerate(together(n, job)):
        assert whole.tobytes() == wanted.tobytes()
        assert part.tobytes() == wanted[rank].tobytes()


@mpi
def test_arrays_of_all_kinds_travel_together() -> None:
    def job(world: World) -> list[Any]:
        r = world.rank
        arrays = [
            np.full((2, 3), r, np.float32).T,
            np.array(r + 0.5),
            np.arange(3, dtype=np.int8) + r,
            np.zeros((0, 2)),
        ]
        world.share(1, *arrays)
        return [array.tolist() for array in arrays]

    assert together(3, job) == [[[[1.0, 1.0]] * 3, 1.5, [1, 2, 3], []]] * 3


@mpi
def test_the_least_of_all_plans_holds() -> None:
    assert together(3, lambda world: world.least("captured step f", 3 - world.rank)) == [1, 1, 1]
    found = together(2, lambda world: world.agree("barrier") if world.rank else world.least("captured step f", 3))
    assert all(isinstance(error, DistError) for error in found)
    assert "rank 0: captured step f 3; rank 1: barrier" in str(found[0])


@mpi
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_arrays_together_are_as_each_by_itself(n: int) -> None:
    """Large ones travel from where they are; small ones, and those in no order, in one message for each dtype."""
    rng = np.random.default_rng(1)
    shapes = ((300, 301), (7,), (), (0, 3), (400, 250), (5, 5))
    every = [[np.asarray(rng.normal(size=shape), np.float32) for shape in shapes] for _ in range(n)]
    for arrays in every:
        arrays[4], arrays[5] = arrays[4].T, arrays[5].astype(np.float64)

    def job(world: World) -> tuple[Any, Any, int]:
        alone = [array.copy() for array in every[world.rank]]
        for array in alone:
            world.reduce("sum", "", array)
        before = world.exchanges
        world.reduce("sum", "", *every[world.rank])
        return alone, every[world.rank], world.exchanges - before

    for alone, found, exchanges in together(n, job):
        for one, other in zip(alone, found, strict=True):
            np.testing.assert_array_equal(one, other)
        assert exchanges == (n > 1)


@mpi
def test_a_recording_that_failed_ends_those_of_others() -> None:
    def job(world: World) -> Any:
        if world.rank == 1:
            return world.refuse_capture()
        return world.reduce("sum", "", np.ones(3))

    found = together(3, job)
    assert isinstance(found[0], Refused)
    assert isinstance(found[2], Refused)
    assert found[1] is None
    assert "rank 1 cannot capture it" in str(found[0])


class Peers:
    """Other processes whose plans are known: the least of them for each call."""

    exchanges = 0

    def __init__(self, plans: list[int]) -> None:
        self.plans = plans
        self.asked: list[int] = []

    def least(self, what: str, plan: int) -> int:
        assert what == "captured step step"
        self.asked.append(plan)
        return min(plan, self.plans[len(self.asked) - 1])


def captured_beside(monkeypatch: pytest.MonkeyPatch, plans: list[int], **options: Any) -> tuple[Any, Peers, list[str]]:
    """A captured step that exchanges with others, those, and what its calls have been but replays."""
    peers, done = Peers(plans), []
    monkeypatch.setattr(joined_peers, "joined", peers)

    def exchange() -> None:
        peers.exchanges += 1

    def step(x: kobai.Tensor) -> kobai.Tensor:
        on_host(exchange)
        return x * 2

    run = kobai.capture(step, verify=0, **options)
    for name in ("_warm", "_record", "_give_up"):
        method = getattr(run, name)
        monkeypatch.setattr(run, name, lambda *args, name=name, method=method: (done.append(name), method(*args))[1])
    return run, peers, done


def test_a_process_does_what_all_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    run, peers, done = captured_beside(monkeypatch, [3, 3, 1, 2, 3])
    x = kobai.ones(3)
    for _ in range(6):
        assert run(x).tolist() == [2.0] * 3
    assert peers.asked == [
        2,
        3,
        3,
        3,
        3,
    ]  # none before the first call is known to exchange; then it can record, and replay
    assert done == ["_warm", "_record", "_warm", "_record"]  # with a replay after each recording
    assert run.programs == 2


def test_no_process_captures_what_one_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    run, _, done = captured_beside(monkeypatch, [3, 3, 0], fallback=True)
    x = kobai.ones(3)
    for _ in range(5):
        assert run(x).tolist() == [2.0] * 3
    assert "another process cannot capture it" in run.failure
    assert done == ["_warm", "_record", "_give_up"]
    run, _, _ = captured_beside(monkeypatch, [0])
    run(x)
    with pytest.raises(CaptureError, match="another process cannot capture it, so none does"):
        run(x)


def test_what_nccl_is_asked_for_in_vain() -> None:
    if kobai.available_backends()["cupy"]:
        assert not dist.is_nccl_available()
        with pytest.raises(BackendError, match="backend 'cupy'"):
            dist.init_process_group("nccl")
    with pytest.raises(ValueError, match="expected order tree or fast, got 'quick'"):
        dist.init_process_group("nccl", order="quick")
    for options in ({"order": "fast"}, {"device_id": 0}):
        with pytest.raises(ValueError, match="expected no order and no device_id with MPI"):
            dist.init_process_group("mpi", **options)
    assert not dist.is_initialized()


def test_each_process_has_a_gpu_of_its_own() -> None:
    def seat(bus: str, host: str = "a", order: str = "tree", error: str | None = None) -> tuple[Any, ...]:
        return error, order, host, bus

    _check_seats([seat("0"), seat("1"), seat("0", "b"), seat("1", "b")])
    for seats, said in (
        ([seat("0"), seat("1"), seat("0")], "ranks 0 and 2 have the same, 0 of a"),
        ([seat("0"), seat("1", order="fast")], "rank 0 has 'tree', rank 1 'fast'"),
        ([seat("0"), seat("", error="no device 1")], "rank 1: no device 1"),
    ):
        with pytest.raises(DistError, match=said):
            _check_seats(seats)
