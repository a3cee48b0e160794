"""How :mod:`kobai.nn.init` draws: on the host, from the generator's NumPy stream, then copied to the tensor's device."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.random import Generator, resolve
from kobai.xp import move, write as store


def write(tensor: Tensor, values: Any) -> Tensor:
    """Copy host values, or one number, into a tensor, in its shape and dtype; the tape does not see it."""
    if isinstance(values, np.ndarray):
        values = move(values.reshape(tuple(tensor.shape)).astype(tensor.dtype, copy=False), tensor.device)
    store(tensor.array, values)
    tensor._bump()
    return tensor


def _dtype(like: Tensor) -> Any:
    return np.float64 if like.dtype == np.float64 else np.float32


def standard_normal(like: Tensor, generator: Generator | None) -> np.ndarray[Any, Any]:
    """N(0, 1), of the tensor's shape, in float64 for float64 and float32 for all else."""
    return resolve(generator).numpy.standard_normal(tuple(like.shape), dtype=_dtype(like))


def standard_uniform(like: Tensor, generator: Generator | None) -> np.ndarray[Any, Any]:
    """U(0, 1), as :func:`standard_normal`."""
    return resolve(generator).numpy.random(tuple(like.shape), dtype=_dtype(like))


def orthonormal(like: Tensor, generator: Generator | None) -> np.ndarray[Any, Any]:
    """A matrix (first dimension, all others) with orthonormal rows, or columns if there are fewer of them.

    It is Q of a normal matrix's QR decomposition. Moving the signs of R's diagonal into Q makes it uniform (Mezzadri, 2007).
    """
    flat = standard_normal(like, generator).reshape(like.shape[0], -1).astype(np.float64)
    wide = flat.shape[0] < flat.shape[1]
    q, r = np.linalg.qr(flat.T if wide else flat)
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)
    return q.T if wide else q


def truncated_normal(like: Tensor, low: float, high: float, generator: Generator | None) -> np.ndarray[Any, Any]:
    """As many values of a standard normal on [low, high], by rejection: what falls outside is drawn again."""
    propose = _proposals(low, high, resolve(generator).numpy)
    values, missing = np.empty(like.numel(), dtype=np.float64), np.arange(like.numel())
    while missing.size:
        z, accepted = propose(missing.size)
        values[missing[accepted]] = z[accepted]
        missing = missing[~accepted]
    return values


def _proposals(
    low: float, high: float, rng: np.random.Generator
) -> Callable[[int], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """A function of n that draws n proposals and says which are accepted.

    Normal proposals where [low, high] holds much of the mass; else uniform ones, accepted in proportion to the density
    (Robert, "Simulation of truncated normal variables", Statistics and Computing 5, 1995).
    """
    mass = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
    if mass > 0.25:

        def normal(n: int) -> tuple[Any, Any]:
            z = rng.standard_normal(n)
            return z, (z >= low) & (z <= high)

        return normal

    mode = min(max(low, 0.0), high)  # where the density is greatest
    reach = math.sqrt(mode * mode + 75.0)  # beyond it the density is below e^(−75/2) ≈ 5e-17 of that
    low, high = max(low, -reach), min(high, reach)

    def uniform(n: int) -> tuple[Any, Any]:
        z = rng.uniform(low, high, n)
        return z, rng.random(n) <= np.exp(0.5 * (mode * mode - z * z))

    return uniform
