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
    """Weights and batch of a case, float32, in PyTorch's layouts: kernels (out, in, 3, 3), weights (out, in), biases 0.

    ``block``: the parameters of a block of sequences under the names that PyTorch's ``state_dict`` gives them.
    """

    kernels: list[np.ndarray]
    weights: list[np.ndarray]
    x: np.ndarray
    t: np.ndarray
    block: dict[str, np.ndarray]


def draw(case: Case, seed: int = 0) -> Problem:
    """Weights by He's rule, inputs from the normal distribution, classes at random."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, std: float = 1.0) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)

    kernels = [normal(n, m, 3, 3, std=(2 / (9 * m)) ** 0.5) for m, n in pairwise((1, *case.channels))]
    if not case.block:
        block: dict[str, np.ndarray] = {}
        weights = [normal(n, m, std=(2 / m) ** 0.5) for m, n in pairwise(case.sizes)]
    else:
        width, inner, classes = case.sizes
        shapes = transformer(width, inner) if case.block == "transformer" else lstm(width, inner)
        block = {name: normal(*shape, std=shape[-1] ** -0.5) for name, shape in shapes.items() if len(shape) == 2}
        block |= {name: np.zeros(shape, np.float32) for name, shape in shapes.items() if len(shape) == 1}
        block |= {name: np.ones(width, np.float32) for name in ("norm1.weight", "norm2.weight") if name in shapes}
        last = width if case.block == "transformer" else inner
        weights = [normal(classes, last, std=last**-0.5)]
    return Problem(kernels, weights, normal(*case.input_shape), rng.integers(0, case.sizes[-1], case.batch), block)


def transformer(width: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters of an encoder block."""
    shapes: dict[str, tuple[int, ...]] = {
        "self_attn.in_proj_weight": (3 * width, width),
        "self_attn.in_proj_bias": (3 * width,),
    }
    for name, (m, n) in {
        "self_attn.out_proj": (width, width),
        "linear1": (width, inner),
        "linear2": (inner, width),
    }.items():
        shapes |= {f"{name}.weight": (n, m), f"{name}.bias": (n,)}
    for name in ("norm1", "norm2"):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes


def lstm(width: int, units: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters of an LSTM layer: the gates input, forget, cell, output below each other."""
    return {
        "weight_ih_l0": (4 * units, width),
        "weight_hh_l0": (4 * units, units),
        "bias_ih_l0": (4 * units,),
        "bias_hh_l0": (4 * units,),
    }
