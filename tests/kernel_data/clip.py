"""Sums of squares over a table of arrays."""

import numpy as np

from kobai.nn.utils._clip import CUDA_BLOCKS


def _check(rng):
    arrays = [rng.normal(size=n) for n in (1, 0, 20_000)]
    each = CUDA_BLOCKS * 256
    wanted = np.zeros((3, CUDA_BLOCKS))
    for row, a in zip(wanted, arrays, strict=True):
        padded = np.concatenate([a, np.zeros(-len(a) % each)]).reshape(-1, CUDA_BLOCKS, 256)
        row[:] = (padded**2).sum((0, 2))
    fields = {"at": [arrays], "size": np.array([a.size for a in arrays])}
    return (CUDA_BLOCKS, 3), (fields, np.zeros((3, CUDA_BLOCKS))), {"sums": wanted}


CHECKS = {
    "sum_of_squares": [_check],
}
