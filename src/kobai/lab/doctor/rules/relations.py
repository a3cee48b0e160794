"""How surely two things are related: their covariances beside those with one of them shuffled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from kobai.core.tensor import Tensor
from kobai.xp import to_host

Numbers: TypeAlias = "np.ndarray[Any, Any]"

DRAWS = 30
"""Shuffles, which say what chance gives."""
KINDS = 32
"""Whole numbers that are told apart; of numbers, features that are looked at."""
MOST = 20_000
"""Pairs that are looked at, at most."""


def described(x: Tensor, axes: int = 2) -> Numbers:
    """Features of each place, (*x.shape[:axes], features): numbers as they are, whole numbers as 0 and 1 for each."""
    array = to_host(x.detach().array)
    if not x.is_floating_point():
        array = array.reshape(*array.shape[:axes], -1)[..., 0] % KINDS
        described: Numbers = (array[..., None] == np.arange(min(KINDS, int(array.max()) + 1))).astype(np.float32)
        return described
    return np.asarray(array, np.float32).reshape(*array.shape[:axes], -1)[..., :KINDS]


def standardised(part: Numbers) -> Numbers:
    """Columns of mean 0 and deviation 1; those that hardly vary stay small."""
    scaled: Numbers = (part - part.mean(0)) / np.maximum(part.std(0), 1e-6)
    return scaled


def covariance(a: Numbers, b: Numbers) -> float:
    """Sum of the squared correlations of the features of a and b, whose last axis is that of features."""
    a, b = (standardised(part.reshape(-1, part.shape[-1])[:MOST].astype(np.float64)) for part in (a, b))
    return float(((a.T @ b / len(a)) ** 2).sum())


def beyond_shuffles(score: Callable[[np.random.Generator | None], float], draws: int = DRAWS) -> float:
    """How far ``score(None)`` is above scores of shuffles, in their standard deviations."""
    rng = np.random.default_rng(0)
    drawn = [score(rng) for _ in range(draws)]
    return (score(None) - float(np.mean(drawn))) / max(float(np.std(drawn)), 1e-9)


def along(x: Tensor, t: Tensor, axis: int) -> float:
    """How surely neighbours along an axis, 0 or 1, are related: an input with the next one, or with the target beside it.

    What is shuffled are whole rows, so that relations along the other axis are no evidence.

    >>> import kobai
    >>> x = (kobai.arange(12)[None] + kobai.arange(64)[:, None] * 7) % 5
    >>> along(x, x, 1) > 4
    True
    """
    xs, ts = (np.moveaxis(described(part), axis, 0) for part in (x, t))

    def related(a: Numbers, b: Numbers) -> float:
        def score(rng: np.random.Generator | None) -> float:
            return covariance(a, b if rng is None else b[rng.permutation(len(b))])

        return beyond_shuffles(score)

    if xs.shape[:2] != ts.shape[:2]:  # no target beside each input
        return related(xs[:-1], xs[1:])
    return max(related(xs[:-1], xs[1:]), related(xs[:-1], ts[1:]), related(xs[1:], ts[:-1]))
