"""What the tests of shards start in several processes: ``shards_job.py NAME``."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np

import kobai
import kobai.distributed as dist
from kobai import nn
from kobai.nn import functional as F
from kobai.train import Trainer
from kobai.utils.data import DataLoader, TensorDataset

RNG = np.random.default_rng(0)
X, T = kobai.from_numpy(RNG.normal(size=(49, 6)).astype(np.float32)), kobai.arange(49) % 3


class Residual(nn.Module):
    """Statistics of all shards between noise and statistics of each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.opening, self.closing = nn.Linear(6, width), nn.Linear(width, 3)
        self.first, self.second = nn.SyncBatchNorm(width), nn.SyncBatchNorm(width)
        self.middle, self.own = nn.Linear(width, width), nn.BatchNorm1d(width)
        self.noise = kobai.Generator().manual_seed(5)

    def forward(self, x: kobai.Tensor) -> kobai.Tensor:
        x = self.opening(F.dropout(x, 0.1))
        y = F.dropout(self.first(x).relu(), 0.3, generator=self.noise)
        return self.closing(F.dropout(self.own(x + self.second(self.middle(y)))))


def trainer(width: int = 8, shards: int = 4, seed: int = 0, met: bool = False, **options: Any) -> Trainer:
    kobai.manual_seed(seed)
    layers = [nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, 3)]
    model = Residual(width) if met else nn.Sequential(*layers)
    rule = kobai.optim.Adam(model.parameters(), lr=0.01)
    schedule = kobai.optim.lr_scheduler.StepLR(rule, 2, 0.5)
    return Trainer(model, rule, scheduler=schedule, metrics=["accuracy"], clip_grad_norm=1.0, shards=shards, **options)


def run(seed: int = 1, **options: Any) -> Trainer:
    """Batches of 20, 20 and 9 samples."""
    done = trainer(seed=dist.get_rank() if dist.is_initialized() else 0, **options)  # that of rank 0 counts
    order = kobai.Generator().manual_seed(seed)
    data = TensorDataset(X, T)
    done.fit(DataLoader(data, batch_size=20, shuffle=True, generator=order), data, epochs=5)
    return done


def digest(done: Trainer) -> str:
    numbers = b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in done.model.state_dict().values())
    history = [{key: value for key, value in record.items() if key != "time"} for record in done.history]
    return hashlib.sha256(numbers + repr((history, kobai.get_rng_state())).encode()).hexdigest()[:16]


def trains(**options: Any) -> None:
    done = run(**options)
    assert done._captured.programs == 2
    assert done.first == (dist.get_rank() == 0)
    if done.first:
        print(f"digest {digest(done)}", flush=True)


def meets() -> None:
    trains(met=True)


def other_model() -> None:
    trainer(width=8 + dist.get_rank())


def other_shards() -> None:
    trainer(shards=2 * (1 + dist.get_rank()))


def other_batch() -> None:
    n = 44 - dist.get_rank()
    trainer().fit([(X[:n], T[:n])], epochs=1)


def other_rule() -> None:
    done = trainer()
    done.optimizer.param_groups[0]["lr"] *= 1 + dist.get_rank()
    done.fit([(X, T)], epochs=1)


def other_noise() -> None:
    done = trainer(seed=dist.get_rank())  # that of rank 0 counts
    kobai.manual_seed(dist.get_rank())
    done.fit([(X, T)], epochs=1)


def other_order() -> None:
    run(seed=1 + dist.get_rank())


def runs_out() -> None:
    trainer().fit([(X, T)] * (3 - dist.get_rank()), epochs=1)


if __name__ == "__main__":
    dist.init_process_group("auto")
    globals()[sys.argv[1]]()
    dist.destroy_process_group()
