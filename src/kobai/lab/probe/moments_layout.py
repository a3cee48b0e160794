"""What to measure in a tensor, how to walk through it, and where the results stand in a row.

See :mod:`kobai.lab.probe.moments`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

# --- a row ------------------------------------------------------------------------------------------------------------

SIZE, SAMPLES, COLUMNS, ORIGIN, LOW, HIGH, HEAD = range(7)
"""A row's head: n; the length of the first dimension; C; the origin k of the columns' means; the histogram's outer edges."""

WITHIN, TOTAL, SQUARES, LARGEST, SATURATED, DEAD, SUMS = range(7)
"""Behind it, once for each part: Σᵢⱼ (xᵢⱼ − μⱼ)²; Σⱼ (μⱼ − k) and Σⱼ (μⱼ − k)²; the largest magnitude; the shares of elements
that are saturated and of units that are dead. NaN for what is not looked at. Then come the histogram's counts."""

# --- a look -----------------------------------------------------------------------------------------------------------

SAMPLE = 1024
"""A histogram counts at most this many elements, evenly spaced in memory: enough for its shape."""


@dataclass(frozen=True)
class Look:
    """What to measure in a tensor beside its mean and its spread.

    Attributes:
        by_sample: whether the first dimension counts samples; then also ``within`` and the largest magnitude are measured.
        flat: (low, high); what is not between them counts as saturated.
        rectifier: whether units that are nowhere above 0 count as dead. Units are the last dimension or, from four dimensions
            on, the second.
        bins: of the histogram, 0 for none; ``range``: its (low, high), whose outer bins count what is beyond; by default the
            smallest and the largest finite element.
    """

    by_sample: bool = False
    flat: tuple[float, float] | None = None
    rectifier: bool = False
    bins: int = 0
    range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Layout:
    """How to walk through a contiguous tensor, in elements."""

    size: int
    samples: int
    columns: int
    units: int
    inner: int
    """Adjacent elements of one unit."""
    stride: int
    """Distance of the histogram's elements."""
    count: int
    """How many elements the histogram counts."""

    @classmethod
    @lru_cache(maxsize=1024)
    def of(cls, shape: tuple[int, ...], look: Look) -> Layout:
        size, samples = math.prod(shape), shape[0] if shape else 1
        columns = size // samples if look.by_sample and shape else size
        units = shape[1] if len(shape) >= 4 else shape[-1] if len(shape) >= 2 else 1
        inner = math.prod(shape[2:]) if len(shape) >= 4 else 1
        stride = stride_of(size)
        return cls(size, samples, columns, units, inner, stride, min(SAMPLE, -(-size // stride)))


def stride_of(size: int) -> int:
    """Distance of a histogram's elements, coprime to the size, so that they are not all from a few units.

    >>> stride_of(100), stride_of(256 * 100)
    (1, 23)
    """
    stride = max(1, size // SAMPLE)
    while math.gcd(stride, size) > 1:
        stride -= 1
    return stride
