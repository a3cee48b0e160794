"""The share of a data set that one of several processes reads."""

from __future__ import annotations

import math
from collections.abc import Sized

import numpy as np

from kobai.random import Generator
from kobai.utils.data.sampler import Order, _Ordered

__all__ = ["DistributedSampler"]


class DistributedSampler(_Ordered):
    """Every ``num_replicas``-th index, from ``rank`` on, of an order that is the same in all processes.

    Args:
        dataset: what is divided.
        num_replicas, rank: how many processes there are, and which of them this is; by default those of
            :mod:`kobai.distributed`.
        shuffle: in a new random order every epoch, told by :meth:`set_epoch`.
        seed: of that order; the same in all processes.
        drop_last: leave out what does not divide evenly; else the first indices come again at the end.

    Raises:
        RuntimeError: no ``num_replicas`` or ``rank``, and no process group.
        ValueError: a rank that is not one of 0 ... num_replicas − 1.

    >>> from kobai.utils.data import DistributedSampler
    >>> [list(DistributedSampler(range(5), 2, rank, shuffle=False)) for rank in (0, 1)]
    [[0, 2, 4], [1, 3, 0]]
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            from kobai.distributed import get_rank, get_world_size, is_initialized

            if not is_initialized():
                raise RuntimeError(
                    "DistributedSampler: expected num_replicas and rank, or a process group: call init_process_group() first"
                )
            num_replicas = get_world_size() if num_replicas is None else num_replicas
            rank = get_rank() if rank is None else rank
        if not 0 <= rank < num_replicas:
            raise ValueError(f"DistributedSampler: expected a rank in [0, {num_replicas - 1}], got {rank}")
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last, self.epoch = shuffle, seed, drop_last, 0
        share = len(dataset) / num_replicas
        self.num_samples = math.floor(share) if drop_last else math.ceil(share)
        self.total_size = self.num_samples * num_replicas

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next epoch; without it every epoch has the same."""
        self.epoch = epoch

    def _order(self) -> Order:
        n = len(self.dataset)
        draw = Generator().manual_seed(self.seed + self.epoch).numpy
        order = draw.permutation(n) if self.shuffle else np.arange(n)
        return np.resize(order, self.total_size)[self.rank :: self.num_replicas]

    def __len__(self) -> int:
        return self.num_samples
