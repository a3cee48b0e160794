"""Gradients divided by the scale of a loss, over a table of arrays, with what is found in them."""

from functools import partial

import numpy as np

from kobai.nn.utils._clip import CUDA_BLOCKS


def _check(bad, rng):
    arrays = [rng.integers(-8, 8, n).astype(np.float64) for n in (1, 0, 2 * CUDA_BLOCKS * 256 + 5)]
    if bad is not None:
        arrays[2][-1] = bad
    divided = [a / 4 for a in arrays]
    fields = {"at": [arrays], "size": np.array([a.size for a in arrays])}
    found = np.array([0.0 if bad is None else 1.0])
    return (CUDA_BLOCKS, 3), (fields, np.array([0.25]), np.zeros(1)), {"table": divided, "found": found}


CHECKS = {
    "unscale": [partial(_check, bad) for bad in (None, np.inf, -np.inf, np.nan)],
}
