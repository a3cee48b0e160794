"""Adding at positions that may repeat, and moving elements along an axis: compiled loops, one element or row after the other.

An index outside its range is passed over: it was checked, but others may have written to the array since.
"""

from __future__ import annotations

from typing import Any

from kobai.engine.dispatch import compiled


@compiled
def add_elements(out: Any, positions: Any, values: Any) -> None:
    """out[positions[i]] += values[i]"""
    for i in range(positions.size):
        at = positions[i]
        if 0 <= at < out.size:
            out[at] += values[i]


@compiled
def add_rows(out: Any, index: Any, values: Any) -> None:
    """out[b, index[i], :] += values[b, i, :]"""
    for b in range(out.shape[0]):
        for i in range(index.size):
            row = index[i]
            if 0 <= row < out.shape[1]:
                for j in range(out.shape[2]):
                    out[b, row, j] += values[b, i, j]


@compiled
def add_along(out: Any, index: Any, values: Any) -> None:
    """out[b, index[b, i, j], j] += values[b, i, j]"""
    for b in range(index.shape[0]):
        for i in range(index.shape[1] if index.shape[2] == 1 else 0):  # the last axis: the loop over j would cost more
            row = index[b, i, 0]
            if 0 <= row < out.shape[1]:
                out[b, row, 0] += values[b, i, 0]
        for i in range(index.shape[1] if index.shape[2] != 1 else 0):
            for j in range(index.shape[2]):
                row = index[b, i, j]
                if 0 <= row < out.shape[1]:
                    out[b, row, j] += values[b, i, j]


@compiled
def take_along(x: Any, index: Any, out: Any) -> None:
    """out[b, i, j] = x[b, index[b, i, j], j]"""
    for b in range(index.shape[0]):
        for i in range(index.shape[1] if index.shape[2] == 1 else 0):
            row = index[b, i, 0]
            if 0 <= row < x.shape[1]:
                out[b, i, 0] = x[b, row, 0]
        for i in range(index.shape[1] if index.shape[2] != 1 else 0):
            for j in range(index.shape[2]):
                row = index[b, i, j]
                if 0 <= row < x.shape[1]:
                    out[b, i, j] = x[b, row, j]
