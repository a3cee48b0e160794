"""Sums of the gradients of shards, by names, in the order of the tree (``ops/_tree_sums.py``)."""

from __future__ import annotations

from typing import Any

from kobai.core.tensor import Tensor
from kobai.ops._tree_sums import AT_ONCE, tree_sum
from kobai.xp import Array, beside, xp_of


class Sums:
    """The gradients of this process's shards, added up as they come, in the memory of the first of them."""

    def __init__(self) -> None:
        self.names: list[str] | None = None
        self._leaves: list[dict[str, Tensor]] = []  # fewer than wait for each other
        self._sums: list[dict[str, Tensor]] = []  # of more and more leaves, the last of the most recent ones
        self._fours = 0

    def add(self, leaves: dict[str, Tensor]) -> None:
        """One more shard."""
        self._leaves.append(leaves)
        if len(self._leaves) < AT_ONCE:
            return
        self._fours += 1
        levels = (
            self._fours & -self._fours
        ).bit_length() - 1  # as many sums are complete now as it has zeros at its end
        before = [self._sums.pop()] if levels else []
        total = _into_first([*before, *self._leaves])
        for _ in range(levels - 1):
            total = _into_first([self._sums.pop(), total])
        self._sums.append(total)
        self._leaves = []

    def total(self) -> dict[str, Tensor]:
        """The sum of all shards."""
        return _into_first(self._leaves or self._sums)


def _into_first(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The sums of equal names, in the memory of the first part; the others' is free afterwards."""
    if len(parts) > 1:
        for name, out in parts[0].items():
            tree_sum([part[name]._array for part in parts], out._array)
    return parts[0]


def joined(total: dict[str, Tensor]) -> tuple[list[Array], dict[str, Tensor]]:
    """Sums one after another, an array for each dtype; and the part of every name in them."""
    by_dtype: dict[Any, list[str]] = {}
    for name, tensor in total.items():
        by_dtype.setdefault(tensor.dtype, []).append(name)
    flats, views = [], {}
    for names in by_dtype.values():
        first = total[names[0]]._array
        with beside(first):
            flat, at = xp_of(first).empty(sum(total[name].numel() for name in names), first.dtype), 0
        for name in names:
            n = total[name].numel()
            view = flat[at : at + n].reshape(total[name]._array.shape)
            tree_sum([total[name]._array], view)
            views[name] = Tensor._wrap(view)
            at += n
        flats.append(flat)
    return flats, views
