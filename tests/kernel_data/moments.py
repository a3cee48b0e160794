"""Moments, by their definitions, block for block."""

import math

import numpy as np

from kobai.lab.probe.moments_device import PARTS, _arguments, shape_of_blocks
from kobai.lab.probe.moments_layout import (
    DEAD,
    HEAD,
    LARGEST,
    LOW,
    ORIGIN,
    SATURATED,
    SQUARES,
    SUMS,
    TOTAL,
    WITHIN,
    Layout,
    Look,
)


def _check(shape, look, differs=False, spoilt=None):
    """One look, and what each block must have seen by the definitions."""

    def check(rng):
        layout = Layout.of(shape, look)
        width, threads, shared = shape_of_blocks(layout, look)
        x, minus = rng.normal(size=(2, *shape)).astype(np.float16).astype(np.float64)  # numbers that every dtype has
        if look.rectifier:
            x = np.maximum(x, 0)
            x.reshape(-1, layout.units, layout.inner)[:, 1::3] = 0
        if spoilt is not None:
            x.reshape(-1)[[0, layout.size // 2]] = spoilt
        seen = (x - minus if differs else x).reshape(-1)
        row = np.zeros(HEAD + PARTS * SUMS + look.bins)
        args = _arguments(x, minus if differs else None, row, look, layout, width)
        expected = {"head": np.zeros(HEAD), "sums": np.full((PARTS, SUMS), np.nan)}
        head, sums = expected.values()
        head[:LOW] = layout.size, layout.samples, layout.columns, seen[0] if math.isfinite(seen[0]) else 0
        with np.errstate(invalid="ignore"):
            table = seen.reshape(-1, layout.columns)
            means, units = table.mean(0), seen.reshape(-1, layout.units, layout.inner)
            within, dead = ((table - means) ** 2).sum(0), (units <= 0).all((0, 2))
        for block in range(PARTS):
            own = np.arange(layout.columns) // width % PARTS == block
            off = means[own] - head[ORIGIN]
            sums[block, TOTAL], sums[block, SQUARES] = off.sum(), (off**2).sum()
            if look.by_sample:
                sums[block, WITHIN], sums[block, LARGEST] = within[own].sum(), abs(table[:, own]).max(initial=0)
            if look.flat:
                low, high = look.flat
                sums[block, SATURATED] = ((table[:, own] <= low) | (table[:, own] >= high)).sum() / layout.size
            if look.rectifier:
                own = np.arange(layout.units) // (threads // 32) % PARTS == block
                sums[block, DEAD] = dead[own].sum() / layout.units
        if look.bins:
            sample = seen[:: layout.stride][: layout.count]
            sample = sample[np.isfinite(sample)]
            low, high = look.range or (sample.min(), sample.max())
            head[LOW:] = low, high
            expected["counts"] = np.histogram(sample.clip(low, high), look.bins, (low, high))[0].astype(np.float64)
        expected["sums"] = sums.reshape(-1)
        return PARTS, args, expected, threads, shared

    return check


CHECKS = {
    "moments": [
        _check((37, 100), Look(by_sample=True, rectifier=True)),
        _check((3, 41, 70), Look(by_sample=True, flat=(-1.0, 1.5), rectifier=True, bins=7)),
        _check((6, 5, 9, 8), Look(by_sample=True, flat=(-1.0, 1.5), rectifier=True, bins=5, range=(0.25, 1.0))),
        _check((1, 77), Look(by_sample=True)),
        _check((70, 90), Look(bins=3), differs=True),
        _check((70, 90), Look(by_sample=True, bins=4), spoilt=np.inf),
        _check((300,), Look(bins=4), spoilt=np.nan),
        _check((9000,), Look(by_sample=True, rectifier=True)),
    ],
}
