"""What the tests of ``kobai.distributed`` start in several processes: ``job.py NAME``, which prints ``ok`` if all is well."""

from __future__ import annotations

import hashlib
import os
import signal
import sys

import numpy as np
import pytest

import kobai
import kobai.distributed as dist
from kobai import nn
from kobai.nn import functional as F
from kobai.nn.parallel import DistributedDataParallel
from kobai.utils.data import DistributedSampler

X = kobai.from_numpy(np.random.default_rng(0).normal(size=(48, 20)).astype(np.float32))
T = kobai.arange(48) % 4


def net() -> nn.Module:
    parts = [nn.Linear(20, 16, bias=False), nn.SyncBatchNorm(16), nn.ReLU(), nn.Linear(16, 4)]
    return nn.Sequential(*parts)


def digest(model: nn.Module) -> str:
    numbers = b"".join(t.detach().cpu().numpy().tobytes() for t in (*model.parameters(), *model.buffers()))
    return hashlib.sha256(numbers).hexdigest()


def trained(model: nn.Module, x: kobai.Tensor, t: kobai.Tensor, capture: bool, steps: int = 8) -> list[float]:
    optimizer = kobai.optim.Adam(model.parameters(), lr=0.01)

    def step(x: kobai.Tensor, t: kobai.Tensor) -> kobai.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss

    run = kobai.capture(step) if capture else step
    losses = [float(run(x, t)) for _ in range(steps)]
    assert not capture or run.programs == 1
    return losses


def collectives() -> None:
    r, size = dist.get_rank(), dist.get_world_size()
    assert [os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")] == [str(r), str(r), str(size)]
    assert dist.get_backend() == "mpi"
    for op, wanted in (("sum", sum), ("max", max), ("min", min), ("product", np.prod), ("avg", np.mean)):
        for n in (0, 1, 7, 1000):
            x = kobai.arange(n).double() + r + 1
            assert dist.all_reduce(x, op) is None
            every = np.array([np.arange(n) + i + 1 for i in range(size)], np.float64)
            np.testing.assert_allclose(x.numpy(), [wanted(list(column)) for column in every.T])
    x = kobai.ones(3, 4).t()  # not contiguous
    dist.all_reduce(x, dist.ReduceOp.SUM, async_op=True).wait()
    assert (x == size).all()
    x = kobai.full((2, 3), r)
    dist.broadcast(x, size - 1)
    assert (x == size - 1).all()
    every = [kobai.empty(2) for _ in range(size)]
    dist.all_gather(every, kobai.full((2,), float(r)))
    assert [part.tolist() for part in every] == [[float(i)] * 2 for i in range(size)]
    part = kobai.empty(2)
    dist.reduce_scatter_tensor(part, kobai.arange(2.0 * size))
    assert part.tolist() == [2.0 * r * size, (2.0 * r + 1) * size]
    taken = kobai.empty(size)
    dist.all_to_all_single(taken, kobai.arange(float(size)) + 10 * r)
    assert taken.tolist() == [10.0 * i + r for i in range(size)]
    objects = [None] * size
    dist.all_gather_object(objects, {"rank": r})
    assert objects == [{"rank": i} for i in range(size)]
    known = [r]
    dist.broadcast_object_list(known, src=1)
    assert known == [1]
    dist.barrier()
    shares = [None] * size
    dist.all_gather_object(shares, list(DistributedSampler(X, shuffle=True, seed=3)))
    assert sorted(i for share in shares for i in share) == list(range(48))
    for wrong in (lambda: dist.broadcast(x, size), lambda: dist.all_reduce(kobai.ones(2), "mean")):
        with pytest.raises(ValueError, match="expected"):
            wrong()


def training() -> None:
    """Shares of a batch give the parameters of the whole batch; the same bits everywhere, captured or not."""
    r, size = dist.get_rank(), dist.get_world_size()
    digests = []
    for capture in (False, True):
        kobai.manual_seed(r)  # the parameters of rank 0 count
        model = DistributedDataParallel(net())
        trained(model, X[r::size], T[r::size], capture)
        digests.append(digest(model))
    every = [None] * size
    dist.all_gather_object(every, digests)
    assert {d for pair in every for d in pair} == {digests[0]}
    kobai.manual_seed(0)
    alone = net()
    alone[1] = nn.BatchNorm1d(16)
    trained(alone, X, T, capture=False)
    for (name, a), b in zip(alone.state_dict().items(), model.module.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-3, atol=2e-4, err_msg=name)
    print(f"digest {digests[0]}")


def accumulation() -> None:
    """Gradients added up without an exchange, and a parameter that is not used."""
    r, size = dist.get_rank(), dist.get_world_size()
    x, t = X[r::size], T[r::size]
    kobai.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(20, 4))
    with model.no_sync():
        F.cross_entropy(model(x[:8]), t[:8]).backward()
    F.cross_entropy(model(x[8:16]), t[8:16]).backward()
    whole = nn.Linear(20, 4)
    whole.load_state_dict(model.module.state_dict())
    for part in (slice(8), slice(8, 16)):
        for other in range(size):
            (F.cross_entropy(whole(X[other::size][part]), T[other::size][part]) / size).backward()
    np.testing.assert_allclose(model.module.weight.grad.numpy(), whole.weight.grad.numpy(), atol=1e-6)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(20, 4), nn.Linear(20, 4)

        def forward(self, x: kobai.Tensor) -> kobai.Tensor:
            return self.used(x)

    model = DistributedDataParallel(Two())
    model(x).sum().backward()
    with pytest.raises(RuntimeError, match=r"no gradient to unused\.weight, unused\.bias"):
        model(x)
    model = DistributedDataParallel(Two(), find_unused_parameters=True)
    model(x).sum().backward()
    model.reduce_gradients()
    assert (model.module.unused.weight.grad == 0).all()
    model(x)


def other_model() -> None:
    DistributedDataParallel(nn.Linear(20, 4 + dist.get_rank()))


def runs_out() -> None:
    model = DistributedDataParallel(net())
    trained(model, X[:8], T[:8], capture=True, steps=4 + 2 * (dist.get_rank() == 0))


def raises() -> None:
    model = DistributedDataParallel(net())
    trained(model, X[:8], T[:8], capture=False, steps=2)
    if dist.get_rank() == 1:
        raise ArithmeticError("rank 1 has had enough")
    trained(model, X[:8], T[:8], capture=False, steps=1000)


def killed() -> None:
    model = DistributedDataParallel(net())
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    trained(model, X[:8], T[:8], capture=False, steps=1000)


if __name__ == "__main__":
    dist.init_process_group("auto")
    globals()[sys.argv[1]]()
    if sys.argv[1] != "runs_out":
        dist.destroy_process_group()
    print("ok", flush=True)
