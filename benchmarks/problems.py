"""What a case starts from: the same weights and the same batch for every library.

Apart from ``cases``, because it loads NumPy, and a side may have to set something before NumPy is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cases import Case


@dataclass(frozen=True)
class Problem:
    """Weights and batch of a case, float32, in PyTorch's layouts: kernels (out, in, 3, 3), weights (out, in), biases 0."""

    kernels: list[np.ndarray]
    weights: list[np.ndarray]
    x: np.ndarray
    t: np.ndarray


def draw(case: Case, seed: int = 0) -> Problem:
    """Weights by He's rule, inputs from the normal distribution, classes at random."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, std: float = 1.0) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)

    kernels = [normal(n, m, 3, 3, std=(2 / (9 * m)) ** 0.5) for m, n in pairwise((1, *case.channels))]
    weights = [normal(n, m, std=(2 / m) ** 0.5) for m, n in pairwise(case.sizes)]
    return Problem(kernels, weights, normal(*case.input_shape), rng.integers(0, case.sizes[-1], case.batch))
