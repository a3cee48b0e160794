"""Statistics of a tensor in one pass over its elements: mean, spread, signal, saturation, dead units, a histogram.

A table has N rows, the samples, and C columns. With column j's own mean μⱼ, and μ the mean of all n = N C elements,

    within = Σᵢⱼ (xᵢⱼ − μⱼ)²,  spread = Σᵢⱼ (xᵢⱼ − μ)² = within + N Σⱼ (μⱼ − μ)²,  Σᵢⱼ xᵢⱼ² = spread + n μ².

``within`` is what differs from sample to sample. A tensor that is only looked at as a whole is a table of one row: then within
is 0, and the second term is all there is. Both terms are sums of squared differences, because x² − μ² would cancel where all
sigmoids are near 0.5. One pass is enough, in float64, with an element as the origin k of its column:

    Σ (x − μ)² = Σ (x − k)² − (Σ (x − k))² / N.

That cancels at most N of N + 1 parts. An origin that is not finite is replaced by 0, so that inf and NaN follow IEEE rules.

Results go into a row of float64 that stays on the device: a head, the sums over the columns in as many parts as there were
parallel workers, and the counts of the histogram. On the host, :func:`combined` and :func:`moments` turn it into numbers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kobai.dtypes import FLOATING
from kobai.engine.dispatch import DEVICE, HOST, HOST_TYPES, engine_for, launch
from kobai.lab.probe import moments_device as cuda, moments_layout as slot, moments_loops as loops
from kobai.lab.probe.moments_layout import Layout, Look
from kobai.ops._matmul import matmul
from kobai.ops.batch_norm.kernel import mean_over
from kobai.xp import Array, backend_of, quiet, xp_of

LEAST, MOST = 1e-30, 1e30
"""Sums of squares in float32 have neither vanished nor overflowed if they are between n LEAST and MOST."""


def width(like: Array, bins: int) -> int:
    """Numbers in a row for tensors on the device of ``like``; on a GPU each block has sums of its own."""
    parts = cuda.PARTS if backend_of(like).name == "cupy" else 1
    return slot.HEAD + parts * slot.SUMS + bins


def measure(x: Array, row: Array, look: Look, minus: Array | None = None) -> None:
    """Measure ``x``, or ``x − minus``, of equal shape and dtype, and write the results into ``row``, (:func:`width`).

    Raises:
        TypeError: elements that are not floats.
        ValueError: no elements.
    """
    if x.dtype.kind not in FLOATING or not x.size:
        what = ValueError if x.dtype.kind in FLOATING else TypeError
        raise what(f"moments: expected floats, at least one, got {x.dtype} of shape {tuple(x.shape)}")
    xp, layout = xp_of(x), Layout.of(tuple(x.shape), look)
    x = xp.ascontiguousarray(x)
    minus = None if minus is None else xp.ascontiguousarray(minus)
    if engine_for((x, minus), halves=True) == DEVICE:
        cuda.measure(x, minus, row, look, layout)
        return
    if x.dtype.itemsize < 4:  # squares of half precision overflow
        x, minus = x.astype(np.float32), None if minus is None else minus.astype(np.float32)
    if engine_for((x, minus)) == HOST:
        loops.measure(x, minus, row, look, layout)
    elif type(x) in HOST_TYPES:
        launch(_on_host, x, minus, row, look, layout, xp.empty(x.size, x.dtype))
    else:
        _reference(x, minus, row, look, layout, xp.empty(x.size, np.float64), True)


# --- on the host ------------------------------------------------------------------------------------------------------


@quiet
def combined(rows: np.ndarray[Any, Any], bins: int) -> np.ndarray[Any, Any]:
    """A copy of rows (R, :func:`width`), with the partial sums added up: (R, HEAD + SUMS + bins)."""
    parts = (rows.shape[1] - slot.HEAD - bins) // slot.SUMS
    if parts == 1:
        return rows.copy()
    end = rows.shape[1] - bins
    sums = rows[:, slot.HEAD : end].reshape(-1, parts, slot.SUMS)
    together = sums.sum(1)
    together[:, slot.LARGEST] = sums[:, :, slot.LARGEST].max(1)
    return np.concatenate([rows[:, : slot.HEAD], together, rows[:, end:]], axis=1)


class Moments(NamedTuple):
    """Statistics of one tensor; NaN or None for what was not measured or makes no sense.

    Attributes:
        size: how many numbers it held; ``samples``: the length of its first dimension.
        mean, std, norm: of all its numbers; ``largest``: the greatest magnitude (inputs and outputs only). NaN and infinity
            show in mean and spread, and make the norm infinite.
        signal: root mean square, over the units, of what differs between the samples of the batch: what a layer still tells of
            its input. A layer's ``std`` may come from its biases alone, its ``signal`` cannot.
        saturated: share of outputs where the activation is flat.
        dead: share of a rectifier's units that are 0 for the whole batch.
        counts: the histogram, if there is one, of at most SAMPLE numbers; from ``low`` to ``high``.
    """

    size: int
    samples: int
    mean: float
    std: float
    norm: float
    largest: float = math.nan
    signal: float = math.nan
    saturated: float = math.nan
    dead: float = math.nan
    low: float = math.nan
    high: float = math.nan
    counts: tuple[int, ...] | None = None

    @property
    def finite(self) -> bool:
        """Whether all its numbers are finite: one that is not makes the sum of squares infinite or NaN."""
        return math.isfinite(self.norm)

    @property
    def edges(self) -> tuple[float, ...] | None:
        """The histogram's ``len(counts) + 1`` edges."""
        if self.counts is None:
            return None
        bins = len(self.counts)
        return (*[self.low + i * ((self.high - self.low) / bins) for i in range(bins)], self.high)

    @property
    def rms(self) -> float:
        """Root mean square: the size of a typical number."""
        return self.norm / math.sqrt(self.size) if self.size else 0.0


def moments(rows: np.ndarray[Any, Any]) -> list[Moments | None]:
    """The statistics in each row of :func:`combined`; None for a row that nothing was written into."""
    return [_moments(row) if row[slot.SIZE] >= 1 else None for row in rows.tolist()]


def _moments(row: list[float]) -> Moments:
    """Plain Python: 60 µs for 34 rows right after a step. NumPy, whose code is not in the caches then, takes 135."""
    size, samples, columns, origin, low, high = row[: slot.HEAD]
    within, total, squares, largest, saturated, dead = row[slot.HEAD : slot.HEAD + slot.SUMS]
    mean = origin + total / columns
    spread = size / columns * (squares - total * (total / columns))
    spread = 0.0 if spread < 0 else spread
    if columns < size:
        spread += within
    norm = math.sqrt(spread + size * mean * mean) if math.isfinite(mean) else math.inf
    std, signal = math.sqrt(spread / size), math.sqrt(within / size)
    seen = int(size), int(samples), mean, std, norm, largest, signal, saturated, dead
    return Moments(*seen, low, high, tuple(map(int, row[slot.HEAD + slot.SUMS :]))) if low < high else Moments(*seen)


# --- reference --------------------------------------------------------------------------------------------------------


def _on_host(x: Array, minus: Array | None, row: Array, look: Look, layout: Layout, values: Array) -> None:
    """The reference in the tensor's own dtype, repeated in float64 if its sums leave the dtype's range.

    This takes a third less time than float64 at once, and numbers beyond 1e±15 appear only where something is wrong.
    """
    _reference(x, minus, row, look, layout, values, False)
    squares = row[slot.HEAD + (slot.WITHIN if look.by_sample else slot.SQUARES)]
    if not LEAST * x.size < squares < MOST:
        _reference(x, minus, row, look, layout, np.empty(x.size), True)


@quiet
def _reference(
    x: Array, minus: Array | None, row: Array, look: Look, layout: Layout, values: Array, careful: bool
) -> None:
    """The statistics in operations that every array library has. Nothing is read from the device.

    ``values``: (n), memory for a copy of the elements, of the dtype to sum in. ``careful``: elements may be NaN or infinite.
    """
    xp, sums = xp_of(x), row[slot.HEAD : slot.HEAD + slot.SUMS]
    seen = (x if minus is None else x - minus).reshape(-1)
    row[slot.SIZE], row[slot.SAMPLES], row[slot.COLUMNS] = layout.size, layout.samples, layout.columns
    sums[...] = math.nan
    origins = seen[: layout.columns] if look.by_sample else seen.sum(keepdims=True) / layout.size
    if careful:
        origins = xp.where(xp.isfinite(origins), origins, 0).astype(values.dtype)
    row[slot.ORIGIN] = origins[0]
    if look.by_sample:
        table = values.reshape(-1, layout.columns)
        xp.subtract(seen.reshape(table.shape), origins, out=table)
        offsets = matmul(mean_over(xp, len(table), values.dtype), table)
        table -= offsets
        sums[slot.WITHIN] = matmul(values, values)
        sums[slot.LARGEST] = xp.maximum(seen.max(), -seen.min())
        values = (origins - origins[0]).astype(np.float64) + offsets
    else:
        xp.subtract(seen, origins, out=values)
    sums[slot.TOTAL] = values.sum()
    sums[slot.SQUARES] = matmul(values, values)
    if look.flat is not None:
        low, high = look.flat
        sums[slot.SATURATED] = xp.count_nonzero((seen <= low) | (seen >= high)) / layout.size
    if look.rectifier:
        nowhere = (seen.reshape(-1, layout.units, layout.inner) <= 0).all((0, 2))
        sums[slot.DEAD] = xp.count_nonzero(nowhere) / layout.units
    if look.bins:
        _count(seen[:: layout.stride][: layout.count].astype(np.float64), row, look)


def _count(sample: Array, row: Array, look: Look) -> None:
    """The histogram: counts between the smallest and the largest finite element, or in the given range."""
    xp, bins, finite = xp_of(sample), look.bins, xp_of(sample).isfinite(sample)
    low, high = (sample, sample) if look.range is None else look.range
    least, most = xp.where(finite, low, math.inf).min(), xp.where(finite, high, -math.inf).max()
    half = 0.5 * (least == most)
    row[slot.LOW], row[slot.HIGH] = least - half, most + half
    places = (sample - row[slot.LOW]) * (bins / (row[slot.HIGH] - row[slot.LOW]))
    counts = xp.zeros(bins + 1)  # the last one counts what is not finite
    xp.add.at(counts, xp.where(finite, places.clip(0, bins - 1), bins).astype(np.int64), 1.0)
    row[slot.HEAD + slot.SUMS :] = counts[:bins]
