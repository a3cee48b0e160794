"""Windows that were cut from one series: they share numbers, some steps apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.lab.doctor.rules.relations import Numbers
from kobai.xp import to_host

PIECE, DISTINCT, VALUES = 16, 0.5, 6
NEXT, MOSTLY = 8, 0.5


def series(batches: Sequence[Any]) -> Numbers | None:
    """At most 512 samples as (N, L, features) numbers, of 8 features; None if they cannot be series."""
    parts, count = [], 0
    for first, *_ in batches:
        if not isinstance(first, Tensor) or first.ndim not in (2, 3) or not first.is_floating_point():
            return None
        part = to_host(first.detach().array).reshape(len(first), first.shape[1], -1)
        parts.append(part[:, :, :: -(-part.shape[2] // 8)] if part.shape[2] < part.shape[1] else part)
        count += len(first)
        if count >= 512:
            break
    if not parts or len({part.shape[1:] for part in parts}) > 1:
        return None
    x = np.concatenate(parts)[:512].astype(np.float64)
    if not np.isfinite(x).all():
        return None
    flat = np.sort(x.reshape(len(x), -1), 1)
    distinct = ((np.diff(flat) > 0).sum(1) + 1) / flat.shape[1]
    kept: Numbers = x[distinct > DISTINCT]  # few values repeat by chance
    return kept if len(kept) > DISTINCT * len(x) else None


def among(rows: Numbers, others: Numbers) -> Numbers:
    """Which rows are among others, apart from offset and scale."""
    known = set(_keys(others))
    return np.array([key in known for key in _keys(rows)])


def _keys(rows: Numbers) -> Iterator[bytes]:
    flat = rows.reshape(len(rows), -1)
    flat = flat - flat.mean(1, keepdims=True)
    flat = flat / np.maximum(flat.std(1, keepdims=True), 1e-12)
    return (row.tobytes() for row in np.round(flat * 500).astype(np.int32))


def of_one_series(batches: Sequence[Any]) -> bool:
    """Whether most samples begin with what stands some steps further on in another one: windows that overlap."""
    x = series(batches)
    if x is None or x.shape[1] < 4:
        return False
    length = min(x.shape[1] // 2, PIECE)
    if length * x.shape[2] < VALUES:
        return False
    found = np.zeros(len(x), bool)
    for shift in range(1, min(NEXT, x.shape[1] - length) + 1):
        found |= among(x[:, :length], x[:, shift : shift + length])
    return bool(found.mean() > MOSTLY)
